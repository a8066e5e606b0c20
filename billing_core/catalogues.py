"""Lists of prices that others keep: genai-prices' snapshot, which is built in, LiteLLM's price file, and CSV.

Amounts are exact decimals as the list has them; `in_yuan` makes a price of them: × the rate of a dollar × a markup, rounded
once, half to even, to 10⁻⁶ 元.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import Invalid
from .i18n import N_
from .money import MAX_PRICE_MICRO, WHOLE, price_yuan
from .rates import MORE_PARTS, NOTHING_MORE, PARTS, PPM, More, Prices, Rates, Tier, as_rates, more_from
from .text import unsafe

MAX_BYTES = 50_000_000
"""The largest list that is read."""
MAX_DIGITS = 60
"""A number with more characters is none."""
MAX_EXPONENT = 30
"""Nor is one from 10³¹ on, or below 10⁻³⁰."""
EXACT = Context(prec=4 * MAX_DIGITS)
"""Arithmetic on a list's numbers: nothing is rounded on the way."""


@dataclass(frozen=True, slots=True)
class Odd:
    """A sentence about an offer, to be translated."""

    message: str
    params: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Listed:
    """A model's price in a list, in the list's currency: per million tokens by kind (see rates.Prices and rates.More), per
    call, and per call of a tool."""

    tokens: Mapping[str, Decimal]
    tiers: tuple[tuple[int, Mapping[str, Decimal]], ...] = ()
    """More prompt tokens than that, and what tokens cost then."""
    call: Decimal = Decimal(0)
    tools: Mapping[str, Decimal] = field(default_factory=dict)
    service_tiers: Mapping[str, Decimal] = field(default_factory=dict)
    """What tokens cost in them, as a multiple."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a list offers for a model."""

    model: str
    provider: str
    listed: Listed
    odd: tuple[Odd, ...] = ()
    """What is wrong about it in the list."""
    notes: tuple[Odd, ...] = ()
    """What the list has that no price can say, and is left out."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A list that was read."""

    name: str
    offers: Mapping[str, Offer]
    """By model."""
    currency: str
    """`USD` or `元`."""
    skipped: int = 0
    """How many of its models have no price for tokens."""
    why_skipped: Mapping[str, int] = field(default_factory=dict)
    """The same by what they are, in the list's words: image_generation, audio_hours…"""


def in_yuan(listed: Listed, factor: Decimal | Fraction) -> Prices:
    """A price of it; `factor` is 元 for a unit of the list's currency, markup included. Raises Invalid for what is none."""
    scale = _exact(factor) * PPM

    def micro(amount: Decimal) -> int:
        price = round(_exact(amount) * scale)  # half to even
        if not 0 <= price <= MAX_PRICE_MICRO:
            raise Invalid(N_("A price must be from 0 to 1,000,000 元 per million tokens."), field="price")
        return price

    def tokens(given: Mapping[str, Decimal]) -> dict[str, Any]:
        return {part: micro(given[part]) for part in (*PARTS, *MORE_PARTS) if part in given}

    base = tokens(listed.tokens)
    tiers = [Tier(above, **{"output": 0} | tokens(given)) for above, given in listed.tiers]
    more = More(
        **{part: base.pop(part) for part in MORE_PARTS if part in base},
        call=micro(listed.call),
        tools=tuple(sorted((tool, micro(fee)) for tool, fee in listed.tools.items())),
        tiers=tuple(tiers),
        service_tiers=tuple(
            sorted((name, round(_exact(multiple) * PPM)) for name, multiple in listed.service_tiers.items())
        ),
    )
    return Prices(**{"output": 0} | base, more=None if more == More() else more)


def _exact(number: Decimal | Fraction) -> Fraction:
    """Raises Invalid for what is no number, or too large to be calculated with."""
    if isinstance(number, Decimal) and not _is_amount(number):
        raise Invalid(N_("A price must be from 0 to 1,000,000 元 per million tokens."), field="price")
    return Fraction(number)


def _is_amount(number: Decimal) -> bool:
    return number.is_finite() and (not number or abs(number.adjusted()) <= MAX_EXPONENT)


def _multiple(base: Listed, other: Listed) -> Decimal | None:
    """What `other`, which may name fewer kinds, is of `base`: one multiple for every kind of token and in every tier, which
    is all that a price can say of a service tier. None where it is several, or not of both input and output."""
    if not {"input", "output"} & base.tokens.keys() <= other.tokens.keys():
        return None
    higher = dict(other.tiers)
    ratios: set[Fraction | None] = set()
    for kinds, those in [(base.tokens, other.tokens), *((kinds, higher.get(above, {})) for above, kinds in base.tiers)]:
        for kind in kinds.keys() & those.keys():
            if kinds[kind]:
                ratios.add(Fraction(those[kind]) / Fraction(kinds[kind]))
            elif those[kind]:
                ratios.add(None)
    ratio = ratios.pop() if len(ratios) == 1 else None
    return None if ratio is None else Decimal(ratio.numerator) / Decimal(ratio.denominator)


def _no_multiple(service_tier: str) -> Odd:
    return Odd(
        N_("What {service_tier} calls cost is no single multiple of the price, and is left out."),
        {"service_tier": service_tier},
    )


def factor_of(markups: Mapping[str, Decimal], offer: Offer) -> Decimal:
    """The markup of an offer: of the patterns (like openai/* or anthropic) that fit its model or its provider, that with
    the most text; 1 without one."""
    fitting = [name for name in markups if fits(name, offer)]
    return markups[max(fitting, key=lambda name: len(name.replace("*", "")))] if fitting else Decimal(1)


def fits(pattern: str, offer: Offer) -> bool:
    """Whether a markup's pattern is about an offer: by its model or its provider."""
    return fnmatchcase(offer.model, pattern) or fnmatchcase(offer.provider, pattern)


# genai-prices

SNAPSHOT_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
"""Of prices that depend on the day or the hour the one at this moment, on every server and at every call alike: it moves
with the version of genai-prices in requirements.txt."""
_PROVIDERS = {"bedrock": "aws"}
"""Makers that genai-prices calls otherwise."""
_TOKENS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "input_image_mtok": "image_input",
    "output_audio_mtok": "audio_output",
    "output_image_mtok": "image_output",
}
_TOOLS = {"web_searches_kcount": "web_search", "storage_searches_kcount": "file_search"}


def _genai(price: Any) -> Listed | None:
    """A price of genai-prices'; None where it has none for input tokens."""
    found = {name: value for name, value in price.__dict__.items() if value is not None}
    if "input_mtok" not in found:
        return None
    kinds = {_TOKENS[name]: value for name, value in found.items() if name in _TOKENS}
    starts = sorted({tier.start for value in kinds.values() for tier in getattr(value, "tiers", ())})
    return Listed(
        {kind: getattr(value, "base", value) for kind, value in kinds.items()},
        tuple((start, {kind: _at(value, start) for kind, value in kinds.items()}) for start in starts),
        found.get("requests_kcount", Decimal(0)) / 1000,
        {tool: found[name] / 1000 for name, tool in _TOOLS.items() if name in found},
    )


def _at(value: Any, start: int) -> Decimal:
    """What counts of a tiered price in a call with more than `start` prompt tokens."""
    price: Decimal = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        price = tier.price if tier.start <= start else price
    return price


def _tries(model: str) -> Iterator[tuple[str, str | None]]:
    """The names and providers under which the snapshot may have a model, the best first."""
    plain = model.partition(":")[0]
    if "/" in model:
        maker = model.partition("/")[0]
        yield from ((name.partition("/")[2], _PROVIDERS.get(maker, maker)) for name in (model, plain))
        yield from ((model, "openrouter"), (plain, "openrouter"))
    yield from ((model, None), (plain, None), (plain.rsplit("/", 1)[-1], None))


def _is_free(model: str) -> bool:
    return "/" in model and model.partition(":")[2] == "free"


@lru_cache(maxsize=16384)
def _info(name: str, provider: str | None) -> Any:
    """The snapshot's model of that name; None where there is none, which takes the snapshot long to find out."""
    from genai_prices.data_snapshot import get_snapshot

    with suppress(LookupError):
        return get_snapshot().find_provider_model(name, None, provider, None)[1]
    return None


def _at_moment(info: Any, at: datetime) -> Listed | None:
    """A model's price at a moment, service tiers included where they are a multiple of it; None where it has none."""
    listed = _genai(info.get_prices(at))
    if listed is None:
        return None
    multiples = {}
    for service_tier in _SERVICE_TIERS.values():
        other = _genai(info.get_prices(at, _context(service_tier)))
        if other and other != listed and (multiple := _multiple(listed, other)) is not None:
            multiples[service_tier] = multiple
    return replace(listed, service_tiers=multiples)


def _context(service_tier: str) -> dict[str, str]:
    """How genai-prices names a service tier."""
    return {"processing": "batch"} if service_tier == "batch" else {"service_tier": service_tier}


@lru_cache(maxsize=4096)
def built_in(model: str, at: datetime = SNAPSHOT_AT) -> Listed | None:
    """A model's price at a moment in genai-prices' snapshot, in US dollars; None where it has none. Of `maker/model` the
    maker's own price comes first: OpenRouter's leaves out many prices for cached tokens."""
    if model.partition(":")[2] == "free":
        return FREE if _is_free(model) else None
    for name, provider in _tries(model):
        info = _info(name, provider)
        if info and (listed := _at_moment(info, at)):
            return listed
    return None


FREE = Listed({"input": Decimal(0), "output": Decimal(0)})


@lru_cache(maxsize=4096)
def built_in_rates(model: str, rate: Decimal, at: datetime = SNAPSHOT_AT) -> Rates | None:
    """The same as it counts, at `rate` 元 for a dollar."""
    listed = built_in(model, at)
    return None if listed is None else as_rates(in_yuan(listed, rate), "catalogue")


def genai_prices(at: datetime = SNAPSHOT_AT) -> Catalogue:
    """The built-in catalogue as a list: of every model the price at a moment, under the names that its makers and
    OpenRouter use. What a name finds is the same as in `built_in`, whoever else has a model of that name."""
    from genai_prices.data_snapshot import get_snapshot

    offers: dict[str, Offer] = {}
    skipped: Counter[str] = Counter()
    for provider in get_snapshot().providers:
        makers = [provider.id, *(name for name, known_as in _PROVIDERS.items() if known_as == provider.id)]
        for model in provider.models:
            listed = FREE if _is_free(model.id) else _at_moment(model, at)
            if listed is None:
                price = model.get_prices(at)
                skipped[next((name for name, value in price.__dict__.items() if value is not None), "")] += 1
                continue
            names = [] if provider.id == "openrouter" else [f"{maker}/{model.id}" for maker in makers]
            for name in [*names, model.id]:
                if name not in offers:
                    offers[name] = Offer(name, provider.id, built_in(name, at) or listed)
    return Catalogue(f"genai-prices {version('genai-prices')}", offers, "USD", skipped.total(), skipped)


# LiteLLM's price file

_LITELLM = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "audio_input",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_audio_token": "audio_output",
    "output_cost_per_image_token": "image_output",
}
_ABOVE = re.compile(r"_above_([0-9]{1,6})k_tokens$")
_SERVICE_TIERS = {"_batches": "batch", "_flex": "flex", "_priority": "priority"}
_CALLS = ("input_cost_per_request", "input_cost_per_query")
_SEARCHES = "search_context_cost_per_query"
_OTHERWISE = re.compile(r"(?:in|out)put_cost_per_(?:image|pixel|character|second|video_per_second|audio_per_second)$")
"""What else is charged by than tokens and calls."""


def litellm_file() -> Path | None:
    """The price file of an installed LiteLLM; None where there is none."""
    spec = find_spec("litellm")
    file = Path(spec.origin).parent / "model_prices_and_context_window_backup.json" if spec and spec.origin else None
    return file if file and file.exists() else None


def litellm(content: bytes, name: str = "LiteLLM") -> Catalogue:
    """LiteLLM's model_prices_and_context_window.json. Raises Invalid."""
    text = _text(content)
    try:
        found = json.loads(
            text, parse_float=_number, parse_int=_number, parse_constant=_number, object_pairs_hook=_Object
        )
    except (ValueError, RecursionError):
        raise Invalid(
            N_("The file is no JSON. Choose LiteLLM's model_prices_and_context_window.json."), field="file"
        ) from None
    if not isinstance(found, _Object) or not any(
        isinstance(row, _Object) and "litellm_provider" in row for row in found.values()
    ):
        raise Invalid(
            N_("The file names no models with prices. Choose LiteLLM's model_prices_and_context_window.json."),
            field="file",
        )
    offers: dict[str, Offer] = {}
    skipped: Counter[str] = Counter()
    for model, row in found.items():
        if model == "sample_spec" or not isinstance(row, _Object):
            continue
        offer = _of_litellm(model, row) if 1 <= len(model) <= 200 and model.isprintable() else None
        if offer is None:
            mode = row.get("mode")
            skipped[mode[:100] if isinstance(mode, str) else ""] += 1
        elif model in found.twice or row.twice:
            offers[model] = replace(offer, odd=(Odd(N_("The list has it twice; the last one counts."), {}),))
        else:
            offers[model] = offer
    return Catalogue(name, offers, "USD", skipped.total(), skipped)


class _Object(dict[str, Any]):
    """A JSON object that knows which of its names were given more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.twice = (
            {name for name, n in Counter(name for name, _ in pairs).items() if n > 1} if len(self) < len(pairs) else ()
        )


def _number(text: str) -> Decimal:
    """A number of JSON, exactly; NaN where it is none that a price can have."""
    try:
        return Decimal(text if len(text) <= MAX_DIGITS else "NaN")
    except InvalidOperation:  # 1e99999999999999999999
        return Decimal("NaN")


def _of_litellm(model: str, row: Mapping[str, Any]) -> Offer | None:
    """None where it isn't priced by token."""

    def amount(given: Mapping[str, Any], name: str) -> Decimal | None:
        value = given.get(name)
        if value is None or (isinstance(value, Decimal) and _is_amount(value)):
            return value
        shown = str(value)[:40] if isinstance(value, (str, bool, Decimal)) else "…"
        raise Invalid(N_("{model}: “{value}” is no price."), field="file", model=model, value=shown)

    def kinds(given: Mapping[str, Any], ending: str = "") -> dict[str, Decimal]:
        amounts = {kind: amount(given, f"{name}{ending}") for name, kind in _LITELLM.items()}
        return {kind: value.scaleb(6, EXACT) for kind, value in amounts.items() if value is not None}

    def whole(ending: str = "") -> Listed:
        higher = [(above, kinds(row, f"_above_{above // 1000}k_tokens{ending}")) for above in starts]
        return Listed(kinds(row, ending), tuple(higher))

    starts = sorted({int(found[1]) * 1000 for name in row if (found := _ABOVE.search(name))} - {0})
    base = whole()
    ranges = _ranges(row.get("tiered_pricing"))
    if ranges and not base.tiers:
        (_, first), *rest = [(start, kinds(step)) for start, step in ranges]
        base = Listed({**first, **base.tokens}, tuple(rest))
    call = next((fee for name in _CALLS if (fee := amount(row, name))), Decimal(0))
    if "input" not in base.tokens or _is_otherwise(base, row, call):
        return None
    multiples = {}
    notes = []
    for ending, service_tier in _SERVICE_TIERS.items():
        other = whole(ending)
        multiple = _multiple(base, other)
        if multiple is not None:
            multiples[service_tier] = multiple
        elif other.tokens:
            notes.append(_no_multiple(service_tier))
    searches = row.get(_SEARCHES)
    fee = amount(searches, "search_context_size_medium") if isinstance(searches, dict) else None
    listed = Listed(base.tokens, tuple(_filled(base)), call, {} if fee is None else {"web_search": fee}, multiples)
    return Offer(model, str(row.get("litellm_provider", ""))[:100], listed, notes=tuple(notes))


def _filled(listed: Listed) -> Iterator[tuple[int, Mapping[str, Decimal]]]:
    """The tiers that say something, each with what it leaves to the one before."""
    kinds = listed.tokens
    for above, higher in listed.tiers:
        if higher:
            kinds = {**kinds, **higher}
            yield above, kinds


def _ranges(steps: object) -> list[tuple[int, Mapping[str, Any]]]:
    """`tiered_pricing`: prices by the range of the prompt's length, as (its start, its prices)."""
    found = []
    for step in steps if isinstance(steps, list) else ():
        ends = step.get("range") if isinstance(step, dict) else None
        start = ends[0] if isinstance(ends, list) and ends else None
        if not (isinstance(start, Decimal) and start.is_finite() and 0 <= start <= 10**9):
            return []  # by something else, like the number of results
        found.append((int(start), step))
    return sorted(found, key=lambda step: step[0])


def _is_otherwise(listed: Listed, row: Mapping[str, Any], call: Decimal) -> bool:
    """Whether the model's answers are charged by the image, say, so that tokens alone would make them free."""
    if any(listed.tokens.get(kind) for kind in ("output", "audio_output", "image_output")):
        return False
    others = [name for name, value in row.items() if value and _OTHERWISE.match(name)]
    is_paid = call or any(listed.tokens.values())
    return any(name.startswith("output") for name in others) or bool(others and not is_paid)


# CSV


def from_csv(content: bytes, currency: str, name: str = "CSV") -> Catalogue:
    """A list with a heading, `model` or `model_id`, and columns like those of the app's own: input_price, output_price, and
    others of …_price, per million tokens. Raises Invalid, which names the line."""
    text = _text(content)
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    offers: dict[str, Offer] = {}
    try:
        columns = _columns(rows.fieldnames or ())
        key = columns.get("model_id", columns.get("model"))
        kinds = {columns[f"{part}_price"]: part for part in (*PARTS, *MORE_PARTS) if f"{part}_price" in columns}
        if key is None or not {"input", "output"} <= set(kinds.values()):
            raise Invalid(
                N_("The first line must name the columns: model, input_price, output_price, and others of the price list."),
                field="file",
            )  # fmt: skip
        for row in rows:
            line = rows.line_num
            if any(cell.strip() for cell in row.pop(None, ())):
                raise Invalid(
                    N_("Line {line} has more cells than there are columns: a decimal comma, say. Write 1.5, not 1,5."),
                    field="file", line=line,
                )  # fmt: skip
            model = unsafe((row[key] or "").strip())
            if not model:
                continue
            given = {part: _decimal(row[column], line) for column, part in kinds.items() if (row[column] or "").strip()}
            if not {"input", "output"} <= given.keys() or not (len(model) <= 200 and model.isprintable()):
                raise Invalid(N_("Line {line} has no model with prices for input and output."), field="file", line=line)
            if model in offers:
                raise Invalid(N_("Line {line} names {model} a second time."), field="file", line=line, model=model)
            further = _further(row[columns["further"]] if "further" in columns else None, line)
            listed = replace(
                further, tokens={k: v for k, v in further.tokens.items() if k not in kinds.values()} | given
            )
            offers[model] = Offer(model, model.partition("/")[0], listed)
    except csv.Error:
        raise Invalid(N_("Line {line} is no CSV."), field="file", line=rows.reader.line_num) from None
    if not offers:
        raise Invalid(N_("The file names no models."), field="file")
    return Catalogue(name, offers, currency)


def _columns(names: Iterable[str]) -> dict[str, str]:
    """The columns as they are headed, by what that means. Raises Invalid where one stands there twice."""
    columns: dict[str, str] = {}
    for name in filter(None, names):
        if columns.setdefault(name.strip().lower(), name) != name or list(names).count(name) > 1:
            raise Invalid(N_("The first line names the column {column} twice."), field="file", column=name[:40])
    return columns


def _further(text: str | None, line: int) -> Listed:
    """What the app's own export has in `further` (see More.as_json): tiers, fees and service tiers, in 10⁻⁶ of the list's
    currency."""
    try:
        more = more_from(text.strip() or None if text else None) or NOTHING_MORE
    except (ValueError, TypeError, AttributeError, RecursionError, Invalid):
        raise Invalid(
            N_("Line {line}: the column “further” isn't as the app writes it."), field="file", line=line
        ) from None

    def kinds(given: Tier | More, parts: Iterable[str]) -> dict[str, Decimal]:
        return {part: price_yuan(micro) for part in parts if (micro := getattr(given, part)) is not None}

    return Listed(
        kinds(more, MORE_PARTS),
        tuple((tier.above, kinds(tier, (*PARTS, *MORE_PARTS))) for tier in more.tiers),
        price_yuan(more.call),
        {tool: price_yuan(micro) for tool, micro in more.tools},
        {name: price_yuan(ppm) for name, ppm in more.service_tiers},
    )


def _text(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise Invalid(N_("The file is too large: at most 50 MB."), field="file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid(N_("The file is no text in UTF-8. Save it as that, and try again."), field="file") from None


_NUMBER = re.compile(rf"[+-]?(?:{WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?")


def _decimal(text: str | None, line: int) -> Decimal:
    text = (text or "").strip()
    number = Decimal(text.replace(",", "") if len(text) <= MAX_DIGITS and _NUMBER.fullmatch(text) else "NaN")
    if not _is_amount(number) or number < 0:
        raise Invalid(N_("“{value}” in line {line} is no price."), field="file", value=text[:40], line=line)
    return number


# Beside what counts now


@dataclass(frozen=True, slots=True)
class Row:
    """An offer beside what counts for its model now."""

    model: str
    kind: str
    """`new`, `changed`, `same`, or `gone`: it has a price from such a list, which no longer has it."""
    before: Prices | None
    after: Prices | None
    """None: gone, or no price here (see `odd`)."""
    odd: tuple[Odd, ...] = ()
    listed: Listed | None = None
    markup: Decimal = Decimal(1)
    notes: tuple[Odd, ...] = ()
    """What the list has that no price can say; nothing is wrong about that."""


def compare(
    catalogue: Catalogue,
    current: Mapping[str, Prices],
    *,
    rate: Decimal,
    markups: Mapping[str, Decimal] | None = None,
    from_list: Iterable[str] = (),
) -> list[Row]:
    """Every offer beside what counts now, by model. `rate`: 元 for a dollar; `from_list`: the models whose set price came
    from such a list."""
    everywhere = _unit(catalogue)
    rows = []
    for model, offer in sorted(catalogue.offers.items()):
        markup, before = factor_of(markups or {}, offer), current.get(model)
        after = refused = None
        try:
            factor = (_exact(rate) if catalogue.currency == "USD" else 1) * _exact(markup)
            after = in_yuan(offer.listed, factor)
        except Invalid as error:
            refused = Odd(error.message, error.params)
        kind = "new" if before is None else "same" if after and _alike(before, after) else "changed"
        odd = [*offer.odd, *([everywhere] if everywhere else _units(offer, catalogue.currency))]
        odd += [refused] if refused else _oddities(model, before, after) if after else []
        rows.append(Row(model, kind, before, after, tuple(odd), offer.listed, markup, offer.notes))
    gone = sorted(set(from_list) - catalogue.offers.keys())
    return rows + [Row(model, "gone", current.get(model), None) for model in gone]


def _alike(one: Prices, other: Prices) -> bool:
    """Whether they come to the same, though one may write out what the other lets fall under another kind."""
    return as_rates(one).parts == as_rates(other).parts and (one.more or NOTHING_MORE) == (other.more or NOTHING_MORE)


def _oddities(model: str, before: Prices | None, after: Prices) -> Iterator[Odd]:
    for part in (*PARTS, *MORE_PARTS, "call"):
        old, new = (_part(prices, part) if prices else None for prices in (before, after))
        if old and new is not None and (new >= 10 * old or 10 * new <= old):
            yield Odd(N_("{part}: ten times the price now, or a tenth of it."), {"part": part})
    if 0 < after.output < after.input:
        yield Odd(N_("Output is cheaper than input."), {})
    if not before and not model.endswith(":free") and not _costs(after):
        yield Odd(N_("It is free, unless the list just doesn't know its price."), {})


def _costs(prices: Prices) -> bool:
    """Whether there is anything in a price that isn't free."""
    more = prices.more or NOTHING_MORE
    kinds = (part for tier in (more, *more.tiers) for part in (*PARTS, *MORE_PARTS) if getattr(tier, part, None))
    return any(as_rates(prices).parts) or any(kinds) or more.call > 0 or any(fee for _tool, fee in more.tools)


def _part(prices: Prices, part: str) -> int | None:
    price: int | None = getattr(prices if part in PARTS else prices.more or NOTHING_MORE, part)
    return price


def _factor_to_known(offer: Offer, currency: str, part: str) -> Decimal | None:
    """How many times an offer's price the built-in catalogue's is, about; None where one of them is missing or 0."""
    price, known = offer.listed.tokens.get(part), (_known(offer.model) or FREE).tokens.get(part)
    if not price or not known or not _is_amount(price):
        return None
    return known / (price if currency == "USD" else price / DOLLAR)


FAR = 300
"""No markup and no other host explains so many times a price; another unit does."""


def _units(offer: Offer, currency: str) -> Iterator[Odd]:
    """Single prices that are a thousandth, say, of what the built-in catalogue knows."""
    for part in PARTS:
        times = _factor_to_known(offer, currency, part)
        if times is not None and not Decimal(1) / FAR < abs(times) < FAR:
            yield Odd(
                N_("{part}: hundreds of times the built-in price, or as small a part of it. Prices are per million tokens."),
                {"part": part},
            )  # fmt: skip


def _unit(catalogue: Catalogue) -> Odd | None:
    """Whether the list as a whole looks as if it were per thousand tokens, or per token: against the built-in prices."""
    found: Counter[int] = Counter()
    for offer in catalogue.offers.values():
        times = _factor_to_known(offer, catalogue.currency, "input")
        if times is not None:
            found[times.adjusted()] += 1
    for exponent, message in (
        (3, N_("The list looks as if its prices were per thousand tokens: multiply them by 1,000.")),
        (6, N_("The list looks as if its prices were per token: multiply them by 1,000,000.")),
    ):
        near = sum(found[exponent + off] for off in (-1, 0, 1))
        if near * 2 > found.total() > 0:
            return Odd(message, {})
    return None


DOLLAR = Decimal(7)
"""About what a dollar is in 元, for guessing at units."""


_known = cache(built_in)
"""built_in keeps only so many."""


def origin(catalogue: Catalogue, row: Row, rate: Decimal) -> str:
    """Where a price comes from, as its row keeps it: the list, its amounts, the rate and the markup."""
    listed = row.listed.tokens if row.listed else {}
    told = {
        "catalogue": catalogue.name, "currency": catalogue.currency, "markup": f"{row.markup:f}",
        "listed": {part: f"{value.normalize():f}" for part, value in listed.items()},
    } | ({"rate": f"{rate:f}"} if catalogue.currency == "USD" else {})  # fmt: skip
    return json.dumps(told, sort_keys=True, separators=(",", ":"))
