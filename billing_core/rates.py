"""What a price is made of, and what a call costs at it.

Prices are whole numbers of 10⁻⁶ 元 per million tokens, fees whole numbers of 10⁻⁶ 元 per call, so that a cost is added up
exactly before it is rounded up once, to a whole 毫.
"""

import json
from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import Invalid
from .i18n import N_
from .money import MAX_PRICE_MICRO, Hao, Micro
from .tokens import Extras, Tokens, tier_named

PARTS = ("input", "output", "cache_read", "cache_write")
"""The four that everybody knows."""
MORE_PARTS = ("cache_write_1h", "audio_input", "image_input", "audio_output", "image_output")
FALLS_UNDER = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "audio_input": "input",
    "image_input": "input",
    "audio_output": "output",
    "image_output": "output",
}
"""A kind of token without a price of its own costs what the kind costs that it is part of."""
INPUTS = ("input", "cache_read", "cache_write", "cache_write_1h", "audio_input", "image_input")
OUTPUTS = ("output", "audio_output", "image_output")
PPM = 1_000_000
"""A multiplier of 1, in millionths."""
MAX_MULTIPLIER = 1000 * PPM
MAX_TIERS = 10
MAX_NAMED = 50
"""The most tools, and the most service tiers, that one price can name."""


@dataclass(frozen=True, slots=True)
class Tier:
    """What tokens cost in a call with more than `above` prompt tokens. None: falls under another kind, see FALLS_UNDER."""

    above: int
    input: Micro
    output: Micro
    cache_read: Micro | None = None
    cache_write: Micro | None = None
    cache_write_1h: Micro | None = None
    audio_input: Micro | None = None
    image_input: Micro | None = None
    audio_output: Micro | None = None
    image_output: Micro | None = None


@dataclass(frozen=True, slots=True)
class More:
    """A price's components beyond the four. Raises Invalid for what can't be a price."""

    cache_write_1h: Micro | None = None
    audio_input: Micro | None = None
    image_input: Micro | None = None
    audio_output: Micro | None = None
    image_output: Micro | None = None
    call: Micro = 0
    """A fee per call, in 10⁻⁶ 元."""
    tools: tuple[tuple[str, Micro], ...] = ()
    """Fees per call of a tool, in 10⁻⁶ 元, by its name, sorted. A tool without one costs nothing by itself."""
    tiers: tuple[Tier, ...] = ()
    """By the length of the prompt, shortest first: all tokens of a call cost what the last one says that it exceeds."""
    service_tiers: tuple[tuple[str, int], ...] = ()
    """What tokens cost in a service tier, in millionths of their price, by its name, sorted; fees stay as they are."""

    def __post_init__(self) -> None:
        for part in MORE_PARTS:
            if (micro := getattr(self, part)) is not None:
                check_price(micro, part)
        check_price(self.call, "call")
        for named, field in ((self.tools, "tools"), (self.service_tiers, "service_tiers")):
            if len({name for name, _value in named}) < len(named):
                raise Invalid(N_("A name stands there twice: give each tool and each service tier once."), field=field)
        for tool, micro in self.tools:
            _check_name(tool, "tools")
            check_price(micro, "tools")
        for name, ppm in self.service_tiers:
            _check_name(name, "service_tiers")
            if type(ppm) is not int or not 0 <= ppm <= MAX_MULTIPLIER:
                raise Invalid(N_("A multiplier is a number from 0 to 1000."), field="service_tiers")
        if max(len(self.tools), len(self.service_tiers)) > MAX_NAMED or len(self.tiers) > MAX_TIERS:
            raise Invalid(
                N_("A price has at most {tiers} tiers, {named} tools and {named} service tiers."),
                field="tiers", tiers=MAX_TIERS, named=MAX_NAMED,
            )  # fmt: skip
        above = 0
        for tier in self.tiers:
            if type(tier.above) is not int or not above < tier.above <= 10**9:
                raise Invalid(
                    N_("Tiers begin above whole numbers of prompt tokens, each higher than the one before."),
                    field="tiers",
                )
            above = tier.above
            for part in (*PARTS, *MORE_PARTS):
                if (micro := getattr(tier, part)) is not None or part in ("input", "output"):
                    check_price(micro, part)

    def as_json(self) -> str | None:
        """The canonical form in which a price's row keeps them; None where there is nothing."""
        kept: dict[str, Any] = {part: value for part in MORE_PARTS if (value := getattr(self, part)) is not None}
        if self.call:
            kept["call"] = self.call
        for name in ("tools", "service_tiers"):
            if getattr(self, name):
                kept[name] = dict(getattr(self, name))
        if self.tiers:
            kept["tiers"] = [
                {field.name: value for field in fields(Tier) if (value := getattr(tier, field.name)) is not None}
                for tier in self.tiers
            ]
        return json.dumps(kept, sort_keys=True, separators=(",", ":")) if kept else None


def as_called(more: More | None) -> More | None:
    """With its service tiers by the names that calls have them by. Raises Invalid for the usual one."""
    if more is None or not more.service_tiers:
        return more
    tiers = [(name, ppm) for called, ppm in more.service_tiers if (name := tier_named(called)) is not None]
    if len(tiers) < len(more.service_tiers):
        raise Invalid(
            N_("A multiple is for a service tier that isn't the usual one: what that costs are the prices themselves."),
            field="service_tiers",
        )
    return replace(more, service_tiers=tuple(sorted(tiers)))


def more_from(kept: str | None) -> More | None:
    """What `as_json` wrote, None for None. Raises ValueError, TypeError, AttributeError or Invalid for anything else."""
    if kept is None:
        return None
    values: dict[str, Any] = json.loads(kept)
    for name in ("tools", "service_tiers"):
        values[name] = tuple(sorted(values.get(name, {}).items()))
    values["tiers"] = tuple(Tier(**tier) for tier in values.get("tiers", ()))
    return More(**values)


def check_price(micro: object, part: str) -> None:
    """Raises Invalid for what is no price."""
    if type(micro) is not int or not 0 <= micro <= MAX_PRICE_MICRO:
        raise Invalid(
            N_("A price is a whole number of 10⁻⁶ 元, from 0 to 1,000,000 元 per million tokens."),
            field=f"{part}_price",
        )


def _check_name(name: object, field: str) -> None:
    if not (isinstance(name, str) and 1 <= len(name) <= 100 and name.isprintable()):
        raise Invalid(
            N_("A tool or service tier has a name of 1 to 100 characters, like web_search or batch."), field=field
        )


NOTHING_MORE = More()


@dataclass(frozen=True, slots=True)
class Prices:
    """A price as it is written. None: the same as `input`, see FALLS_UNDER."""

    input: Micro
    output: Micro
    cache_read: Micro | None = None
    cache_write: Micro | None = None
    more: More | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of what a call used, and what it costs before the service tier's multiplier and the rounding up."""

    kind: str
    """One of INPUTS or OUTPUTS; `call`; or the name of a tool, where `per_call`."""
    count: int
    price: Micro
    """10⁻⁶ 元 per million tokens, or per call."""
    falls_under: str | None = None
    """The kind whose price it is, where it has none of its own."""
    per_call: bool = False

    @property
    def pico(self) -> int:
        """In 10⁻¹² 元."""
        return self.count * self.price * (PPM if self.per_call else 1)


@dataclass(frozen=True, slots=True)
class Rates:
    """A model's price as it counts, in 10⁻⁶ 元 per million tokens; the four with what they fall back to."""

    input: Micro
    output: Micro
    cache_read: Micro
    cache_write: Micro
    source: str
    """`database`, `catalogue` (a built-in price for this model) or `default`; by a rule, of the model that it names."""
    price_id: int | None = None
    valid_from_ns: int | None = None
    more: More | None = None
    own: tuple[str, ...] = PARTS
    """Which of the four are prices of their own."""
    rule: str | None = None
    """The pattern of the rule that decided."""
    priced_as: str | None = None
    """The model whose price it is, by that rule."""

    @property
    def parts(self) -> tuple[Micro, Micro, Micro, Micro]:
        """In the order of PARTS."""
        return self.input, self.output, self.cache_read, self.cache_write

    def cost(self, tokens: Tokens) -> Hao:
        """What a call costs, in 毫."""
        return -(-self.exact(tokens) // 10**14)

    def exact(self, tokens: Tokens) -> int:
        """The same before it is rounded up, in 10⁻¹⁸ 元."""
        more = self.more
        if more is None or (tokens.extras is None and not more.call and self.tier(tokens.prompt) is None):
            # Every kind falls under one of the four, and nothing else costs.
            return PPM * self._four(tokens.uncached, tokens.cached, tokens.cache_creation, tokens.completion)
        return self._sum(self.lines(tokens), tokens.extras)

    def _sum(self, lines: list[Line], extras: Extras | None) -> int:
        multiplier = self.multiplier(extras)
        return sum(line.pico * (PPM if line.per_call else multiplier) for line in lines)

    def multiplier(self, extras: Extras | None) -> int:
        """What the call's service tier makes of the price of tokens, in millionths."""
        tiers = dict(self.more.service_tiers) if self.more else {}
        return tiers.get(extras.service_tier, PPM) if extras and extras.service_tier else PPM

    def lines(self, tokens: Tokens) -> list[Line]:
        """What a call used, kind by kind, with what counts for each; only what was used."""
        extras, more = tokens.extras or Extras(), self.more or NOTHING_MORE
        counts = {
            "input": tokens.uncached - extras.audio_input - extras.image_input,
            "audio_input": extras.audio_input,
            "image_input": extras.image_input,
            "cache_read": tokens.cached,
            "cache_write": tokens.cache_creation - extras.cache_creation_1h,
            "cache_write_1h": extras.cache_creation_1h,
            "output": tokens.completion - extras.audio_output - extras.image_output,
            "audio_output": extras.audio_output,
            "image_output": extras.image_output,
        }
        lines = [Line(kind, count, *self._price(kind, tokens.prompt)) for kind, count in counts.items() if count]
        if more.call:
            lines.append(Line("call", 1, more.call, per_call=True))
        fees = dict(more.tools)
        lines += [Line(tool, calls, fees.get(tool, 0), per_call=True) for tool, calls in extras.tools if calls]
        return lines

    def _price(self, kind: str, prompt: int) -> tuple[Micro, str | None]:
        """What a kind of token costs in a call with so long a prompt, and the kind that it falls under for it."""
        tier = self.tier(prompt)
        wanted: str = kind
        while True:
            if tier is not None:
                price = getattr(tier, wanted)
            elif wanted in PARTS:
                price = getattr(self, wanted) if wanted in self.own else None
            else:
                price = getattr(self.more, wanted) if self.more else None
            if price is not None:
                return price, None if wanted == kind else wanted
            wanted = FALLS_UNDER[wanted]

    def tier(self, prompt: int) -> Tier | None:
        """The tier of a call with so many prompt tokens; None where the usual price counts."""
        found = None
        for tier in self.more.tiers if self.more else ():
            if prompt > tier.above:
                found = tier
        return found

    def cost_of(self, uncached: int, cached: int, cache_creation: int, completion: int) -> Hao:
        """What so many tokens cost at the four prices alone, in 毫: each kind × its price, summed exactly, rounded up once."""
        return -(-self._four(uncached, cached, cache_creation, completion) // 10**8)

    def _four(self, uncached: int, cached: int, cache_creation: int, completion: int) -> int:
        """The same before it is rounded up, in 10⁻¹² 元."""
        return (
            uncached * self.input
            + cached * self.cache_read
            + cache_creation * self.cache_write
            + completion * self.output
        )

    def most_lines(self, tokens: Tokens) -> list[Line]:
        """The most that a call of so many tokens can cost, whatever kinds they are of; but for what tools cost."""
        lines = [
            Line(kinds[0], count, max(self._price(kind, tokens.prompt)[0] for kind in kinds))
            for kinds, count in ((INPUTS, tokens.prompt), (OUTPUTS, tokens.completion))
        ]
        return [*lines, Line("call", 1, self.more.call, per_call=True)] if self.more and self.more.call else lines

    def most(self, tokens: Tokens) -> Hao:
        """The same in 毫."""
        return -(-self._sum(self.most_lines(tokens), tokens.extras) // 10**14)


def as_rates(prices: Prices, source: str = "database") -> Rates:
    """Prices as they count once they are set."""
    first, read, write = prices.input, prices.cache_read, prices.cache_write
    return Rates(
        first, prices.output, first if read is None else read, first if write is None else write, source,
        more=prices.more,
        own=tuple(part for part in PARTS if getattr(prices, part) is not None),
    )  # fmt: skip
