"""Lists of prices that others keep: genai-prices' snapshot, which is built in, LiteLLM's price file, and CSV.

Amounts are exact decimals as the list has them; `in_yuan` makes a price of them: × the rate of a dollar × a markup, rounded
once, half to even, to 10⁻⁶ 元.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import Invalid
from .i18n import N_
from .money import MAX_PRICE_MICRO
from .rates import MAX_MULTIPLIER, MORE_PARTS, PARTS, PPM, More, Prices, Rates, Tier, as_rates

MAX_BYTES = 50_000_000
"""The largest list that is read."""


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


def in_yuan(listed: Listed, factor: Decimal) -> Prices:
    """A price of it; `factor` is 元 for a unit of the list's currency, markup included. Raises Invalid for what is none."""

    def tokens(given: Mapping[str, Decimal]) -> dict[str, Any]:
        return {part: _micro(given[part] * factor) for part in (*PARTS, *MORE_PARTS) if part in given}

    base = tokens(listed.tokens)
    tiers = [Tier(above, **{"output": 0} | tokens(given)) for above, given in listed.tiers]
    more = More(
        **{part: base.pop(part) for part in MORE_PARTS if part in base},
        call=_micro(listed.call * factor),
        tools=tuple(sorted((tool, _micro(fee * factor)) for tool, fee in listed.tools.items())),
        tiers=tuple(tiers),
        service_tiers=tuple(sorted((name, _ppm(multiple)) for name, multiple in listed.service_tiers.items())),
    )
    return Prices(**{"output": 0} | base, more=None if more == More() else more)


def _micro(yuan: Decimal) -> int:
    micro = int(yuan.scaleb(6).to_integral_value(ROUND_HALF_EVEN))
    if not 0 <= micro <= MAX_PRICE_MICRO:
        raise Invalid(N_("A price must be from 0 to 1,000,000 元 per million tokens."), field="price")
    return micro


def _ppm(multiple: Decimal) -> int:
    return min(int((multiple * PPM).to_integral_value(ROUND_HALF_EVEN)), MAX_MULTIPLIER)


def factor_of(markups: Mapping[str, Decimal], offer: Offer) -> Decimal:
    """The markup of an offer: of the patterns (like openai/* or anthropic) that fit its model or its provider, that with
    the most text; 1 without one."""
    fits = [name for name in markups if fnmatchcase(offer.model, name) or fnmatchcase(offer.provider, name)]
    return markups[max(fits, key=lambda name: len(name.replace("*", "")))] if fits else Decimal(1)


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


@lru_cache(maxsize=4096)
def built_in(model: str) -> Listed | None:
    """A model's price in genai-prices' snapshot, in US dollars; None where it has none. Of `maker/model` the maker's own
    price comes first: OpenRouter's leaves out many prices for cached tokens."""
    from genai_prices.data_snapshot import get_snapshot

    plain, _, suffix = model.partition(":")
    tries: list[tuple[str, str | None]] = []
    if "/" in model:
        maker = model.partition("/")[0]
        tries = [(name.partition("/")[2], _PROVIDERS.get(maker, maker)) for name in (model, plain)]
        tries += [(model, "openrouter"), (plain, "openrouter")]
    tries += [(model, None), (plain, None), (plain.rsplit("/", 1)[-1], None)]
    for name, provider in tries:
        try:
            _, info = get_snapshot().find_provider_model(name, None, provider, None)
            listed = _genai(info.get_prices(SNAPSHOT_AT))
        except LookupError:
            continue
        if listed and suffix != "free":
            return listed
    return Listed({"input": Decimal(0), "output": Decimal(0)}) if suffix == "free" and "/" in model else None


@lru_cache(maxsize=4096)
def built_in_rates(model: str, usd_rate: Decimal) -> Rates | None:
    """The same in 元, as it counts."""
    listed = built_in(model)
    return None if listed is None else as_rates(in_yuan(listed, usd_rate), "catalogue")


def genai_prices() -> Catalogue:
    """The built-in catalogue as a list: of every model the price under the names that its makers and OpenRouter use."""
    from genai_prices.data_snapshot import get_snapshot

    offers: dict[str, Offer] = {}
    skipped = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            listed = _genai(model.get_prices(SNAPSHOT_AT))
            if listed is None:
                skipped += 1
                continue
            names = [model.id] if provider.id == "openrouter" else [f"{provider.id}/{model.id}", model.id]
            for name in names:
                if name not in offers:  # of maker/model the maker's own counts, as in built_in
                    offers[name] = Offer(
                        name, provider.id, (built_in(name) if provider.id == "openrouter" else None) or listed
                    )
    return Catalogue(f"genai-prices {version('genai-prices')}", offers, "USD", skipped)


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
_ABOVE = {f"_above_{thousands}k_tokens": thousands * 1000 for thousands in (128, 200, 256, 272, 512)}
_SERVICE_TIERS = {"_batches": "batch", "_flex": "flex", "_priority": "priority"}
MILLION = 10**6


def litellm_file() -> Path | None:
    """The price file of an installed LiteLLM; None where there is none."""
    spec = find_spec("litellm")
    file = Path(spec.origin).parent / "model_prices_and_context_window_backup.json" if spec and spec.origin else None
    return file if file and file.exists() else None


def litellm(content: bytes, name: str = "LiteLLM") -> Catalogue:
    """LiteLLM's model_prices_and_context_window.json. Raises Invalid."""
    text = _text(content)
    try:
        found = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Invalid(
            N_("The file is no JSON. Choose LiteLLM's model_prices_and_context_window.json."), field="file"
        ) from None
    if not isinstance(found, dict) or not any(
        isinstance(row, dict) and "litellm_provider" in row for row in found.values()
    ):
        raise Invalid(
            N_("The file names no models with prices. Choose LiteLLM's model_prices_and_context_window.json."),
            field="file",
        )
    offers: dict[str, Offer] = {}
    rows = {model: row for model, row in found.items() if isinstance(row, dict) and model != "sample_spec"}
    for model, row in rows.items():
        listed = _of_litellm(row)
        if listed is not None and 1 <= len(model) <= 200 and model.isprintable():
            offers[model] = Offer(model, str(row.get("litellm_provider", "")), listed)
    return Catalogue(name, offers, "USD", len(rows) - len(offers))


def _of_litellm(row: Mapping[str, Any]) -> Listed | None:
    def kinds(ending: str = "") -> dict[str, Decimal]:
        given = {kind: row.get(f"{name}{ending}") for name, kind in _LITELLM.items()}
        return {
            kind: value * MILLION for kind, value in given.items() if isinstance(value, Decimal) and value.is_finite()
        }

    base = kinds()
    if "input" not in base:
        return None
    tiers = [(above, base | higher) for ending, above in _ABOVE.items() if (higher := kinds(ending))]
    multiples = {}
    for ending, service_tier in _SERVICE_TIERS.items():
        there = kinds(ending)
        ratios = {price / base[kind] for kind, price in there.items() if base.get(kind)}
        if len(ratios) == 1 and {"input", "output"} & base.keys() <= there.keys():  # else it is no multiple
            multiples[service_tier] = ratios.pop()
    searches = row.get("search_context_cost_per_query")
    fee = searches.get("search_context_size_medium") if isinstance(searches, dict) else None
    tools = {"web_search": fee} if isinstance(fee, Decimal) and fee.is_finite() else {}
    call = row.get("input_cost_per_request")
    return Listed(
        base, tuple(tiers), call if isinstance(call, Decimal) and call.is_finite() else Decimal(0), tools, multiples
    )


def _no_number(_text: str) -> None:
    return None


# CSV


def from_csv(content: bytes, currency: str, name: str = "CSV") -> Catalogue:
    """A list with a heading, `model` or `model_id`, and columns like those of the app's own: input_price, output_price, and
    others of …_price, per million tokens. Raises Invalid, which names the line."""
    text = _text(content)
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = {column.strip().lower(): column for column in rows.fieldnames or () if column}
    key = columns.get("model_id", columns.get("model"))
    kinds = {columns[f"{part}_price"]: part for part in (*PARTS, *MORE_PARTS) if f"{part}_price" in columns}
    if key is None or not {"input", "output"} <= set(kinds.values()):
        raise Invalid(
            N_("The first line must name the columns: model, input_price, output_price, and others of the price list."),
            field="file",
        )
    offers: dict[str, Offer] = {}
    try:
        for row in rows:
            model = (row[key] or "").strip()
            if not model:
                continue
            given = {
                part: _decimal(row[column], rows.line_num)
                for column, part in kinds.items()
                if (row[column] or "").strip()
            }
            if not {"input", "output"} <= given.keys() or not (len(model) <= 200 and model.isprintable()):
                raise Invalid(
                    N_("Line {line} has no model with prices for input and output."), field="file", line=rows.line_num
                )
            if model in offers:
                raise Invalid(
                    N_("Line {line} names {model} a second time."), field="file", line=rows.line_num, model=model
                )
            offers[model] = Offer(model, model.partition("/")[0], Listed(given))
    except csv.Error:
        raise Invalid(N_("Line {line} is no CSV."), field="file", line=rows.line_num) from None
    if not offers:
        raise Invalid(N_("The file names no models."), field="file")
    return Catalogue(name, offers, currency)


def _text(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise Invalid(N_("The file is too large: at most 50 MB."), field="file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid(N_("The file is no text in UTF-8. Save it as that, and try again."), field="file") from None


def _decimal(text: str | None, line: int) -> Decimal:
    text = (text or "").strip()
    try:
        number = Decimal(text.replace(",", "")) if len(text) < 40 and text.isascii() else Decimal("NaN")
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number.adjusted()) > 30 or number < 0:
        raise Invalid(N_("“{value}” in line {line} is no price."), field="file", value=text[:40], line=line)
    return number


# Beside what counts now


@dataclass(frozen=True, slots=True)
class Odd:
    """What looks wrong about an offer."""

    message: str
    params: Mapping[str, object]


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
    factor = rate if catalogue.currency == "USD" else Decimal(1)
    everywhere = _unit(catalogue, factor)
    rows = []
    for model, offer in sorted(catalogue.offers.items()):
        markup, before = factor_of(markups or {}, offer), current.get(model)
        try:
            after = in_yuan(offer.listed, factor * markup)
        except Invalid as error:
            rows.append(
                Row(
                    model,
                    "changed" if before else "new",
                    before,
                    None,
                    (Odd(error.message, error.params),),
                    offer.listed,
                    markup,
                )
            )
            continue
        kind = "new" if before is None else "same" if before == after else "changed"
        rows.append(Row(model, kind, before, after, tuple(_oddities(before, after, everywhere)), offer.listed, markup))
    gone = sorted(set(from_list) - catalogue.offers.keys())
    return rows + [Row(model, "gone", current.get(model), None) for model in gone]


def _oddities(before: Prices | None, after: Prices, everywhere: Odd | None) -> Iterator[Odd]:
    if everywhere:
        yield everywhere
    for part in ("input", "output"):
        old, new = getattr(before, part, None), getattr(after, part)
        if old and (new >= 10 * old or 10 * new <= old):
            yield Odd(N_("{part}: ten times the price now, or a tenth of it."), {"part": part})
    if 0 < after.output < after.input:
        yield Odd(N_("Output is cheaper than input."), {})


def _unit(catalogue: Catalogue, factor: Decimal) -> Odd | None:
    """Whether the list as a whole looks as if it were per thousand tokens, or per token: against the built-in prices."""
    found: Counter[int] = Counter()
    for model, offer in catalogue.offers.items():
        known = _known(model)
        price = offer.listed.tokens.get("input")
        if known and price and factor:
            found[(known / (price * factor / DOLLAR)).adjusted()] += 1
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


@cache
def _known(model: str) -> Decimal | None:
    listed = built_in(model)
    return listed.tokens.get("input") if listed else None


def origin(catalogue: Catalogue, row: Row, rate: Decimal) -> str:
    """Where a price comes from, as its row keeps it: the list, its amounts, the rate and the markup."""
    listed = row.listed.tokens if row.listed else {}
    told = {
        "catalogue": catalogue.name, "currency": catalogue.currency, "markup": f"{row.markup:f}",
        "listed": {part: f"{value.normalize():f}" for part, value in listed.items()},
    } | ({"rate": f"{rate:f}"} if catalogue.currency == "USD" else {})  # fmt: skip
    return json.dumps(told, sort_keys=True, separators=(",", ":"))
