"""What a call used, in the terms of the HTTP contract."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from .errors import Invalid
from .i18n import N_

MOST = 10**9
"""The most tokens, or calls of a tool, that one count may have."""
MAX_TOOLS = 20
"""The most tools that one call can be charged for."""


USUAL_TIERS = {"auto", "default", "standard", "standard_only", "on_demand", "on-demand", "unspecified"}
"""What providers call the tier that everybody is in."""


def tier_named(name: str) -> str | None:
    """A service tier as entries and prices name it, however it is written; None for the usual one."""
    name = name.strip().lower()
    return None if name in USUAL_TIERS else name


_NO_COUNT = N_("{name} is a count of tokens: give a whole number from 0 to {most}.")


def _check(value: object, name: str, message: str) -> None:
    if type(value) is not int or not 0 <= value <= MOST:
        raise Invalid(message, field=name, name=name, most=MOST)


@dataclass(frozen=True, slots=True)
class Extras:
    """What else a call used, and what is known about it. Raises Invalid, with the API's name of the field."""

    cache_creation_1h: int = 0
    """Tokens: the part of `cache_creation` that is kept for an hour."""
    audio_input: int = 0
    """Tokens: the part of the uncached input that was audio."""
    image_input: int = 0
    """Tokens: the part of the uncached input that was images or video."""
    audio_output: int = 0
    """Tokens: the part of `completion` that was audio."""
    image_output: int = 0
    """Tokens: the part of `completion` that was images."""
    tools: tuple[tuple[str, int], ...] = ()
    """How often each tool that is charged by the call was called, by name, sorted."""
    service_tier: str | None = None
    """`batch`, `flex`, `priority`…: what the provider calls it; None for the usual one."""
    stated_total: int | None = None
    """Tokens: the provider's own total, where it and the parts disagree."""
    cut: tuple[str, ...] = ()
    """The parts that the provider reported larger than their whole, cut to it, by their names in Tokens and here."""
    upstream_usd: Decimal | None = None
    """What the provider says that the call cost, in US dollars."""

    def __post_init__(self) -> None:
        for part in EXTRA_TOKENS:
            _check(getattr(self, part), f"{part}_tokens", _NO_COUNT)
        for tool, calls in self.tools:
            if not (isinstance(tool, str) and 1 <= len(tool) <= 100 and tool.isprintable()):
                raise Invalid(N_("A tool's name has 1 to 100 characters, like web_search."), field="tools")
            _check(calls, "tools", N_("{name} are counts of calls by tool: give whole numbers from 0 to {most}."))
        if len(self.tools) > MAX_TOOLS:
            raise Invalid(N_("A call can be charged for at most {most} tools."), field="tools", most=MAX_TOOLS)
        tier = self.service_tier
        if tier is not None and not (isinstance(tier, str) and 1 <= len(tier) <= 100 and tier.isprintable()):
            raise Invalid(N_("A service tier's name has 1 to 100 characters, like batch."), field="service_tier")

    def __add__(self, other: object) -> "Extras":
        if not isinstance(other, Extras):
            return NotImplemented
        tools = dict(self.tools)
        for tool, calls in other.tools:
            tools[tool] = tools.get(tool, 0) + calls
        costs = [cost for cost in (self.upstream_usd, other.upstream_usd) if cost is not None]
        totals = [total for total in (self.stated_total, other.stated_total) if total is not None]
        return Extras(
            **{part: getattr(self, part) + getattr(other, part) for part in EXTRA_TOKENS},
            tools=tuple(sorted(tools.items())), service_tier=self.service_tier or other.service_tier,
            stated_total=sum(totals) if totals else None, cut=tuple(sorted({*self.cut, *other.cut})),
            upstream_usd=sum(costs, Decimal(0)) if costs else None,
        )  # fmt: skip

    @property
    def are_priced(self) -> bool:
        """Whether the four common counts don't say all that a call costs."""
        return bool(any(getattr(self, part) for part in EXTRA_TOKENS) or self.tools or self.service_tier)

    def as_json(self) -> str | None:
        """The canonical form in which an entry keeps them, but for `upstream_usd`; None where there is nothing."""
        kept: dict[str, Any] = {part: value for part in _KEPT if (value := getattr(self, part)) not in (0, None, ())}
        if self.tools:
            kept["tools"] = dict(self.tools)
        return json.dumps(kept, sort_keys=True, separators=(",", ":")) if kept else None


EXTRA_TOKENS = ("cache_creation_1h", "audio_input", "image_input", "audio_output", "image_output")
"""The fields of Extras that count tokens."""
_KEPT = (*EXTRA_TOKENS, "tools", "service_tier", "stated_total", "cut")


PRICED_IN_SQL = (
    "({extras} IS NOT NULL AND ("
    + " OR ".join(f"{{extras}} LIKE '%\"{name}\":%'" for name in (*EXTRA_TOKENS, "tools", "service_tier"))
    + "))"
)
"""`are_priced`, of a column that `as_json` wrote."""


def extras_from(kept: str | None) -> Extras | None:
    """What `as_json` wrote. Raises ValueError, TypeError or Invalid for anything else."""
    if kept is None:
        return None
    values = json.loads(kept)
    values = {name: value for name, value in values.items() if name in _KEPT}
    tools, cut = values.pop("tools", {}), values.pop("cut", ())
    return Extras(**values, tools=tuple(sorted(tools.items())), cut=tuple(cut))


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts of tokens. `prompt` is all input, of which `cached` was read from a cache and `cache_creation` written to
    one; `completion` is all output, of which `reasoning` is a part. What else a call used stands in `extras`.

    Raises Invalid, with the API's name of the field, for a count that is no int from 0 to MOST, and for parts that are
    more than their whole.
    """

    prompt: int
    completion: int
    cached: int = 0
    cache_creation: int = 0
    reasoning: int = 0
    extras: Extras | None = None

    def __post_init__(self) -> None:
        counts = self.prompt, self.completion, self.cached, self.cache_creation, self.reasoning
        for place, count in enumerate(counts):
            if type(count) is not int or not 0 <= count <= MOST:
                _check(count, _FIELDS[place], _NO_COUNT)
        if self.cached + self.cache_creation > self.prompt:
            message = N_(
                "cached_tokens and cache_creation_tokens are more than prompt_tokens, which they are parts of: "
                "count all input in prompt_tokens."
            )
            raise Invalid(message, field="cached_tokens" if self.cached > self.prompt else "cache_creation_tokens")
        if self.reasoning > self.completion:
            message = N_(
                "reasoning_tokens are more than completion_tokens, which they are part of: "
                "count all output in completion_tokens."
            )
            raise Invalid(message, field="reasoning_tokens")
        if self.extras is not None:
            self._check_extras(self.extras)

    def _check_extras(self, extras: Extras) -> None:
        for parts, whole, of in (
            (("cache_creation_1h",), self.cache_creation, "cache_creation_tokens"),
            (("audio_input", "image_input"), self.uncached, N_("the prompt_tokens that aren't cached")),
            (("audio_output", "image_output"), self.completion, "completion_tokens"),
        ):
            if sum(getattr(extras, part) for part in parts) > whole:
                raise Invalid(
                    N_("{parts} are more than {whole}, which they are part of."),
                    field=f"{parts[0]}_tokens", parts=_names(parts), whole=of,
                )  # fmt: skip

    @property
    def uncached(self) -> int:
        """Input tokens that were neither read from a cache nor written to one."""
        return self.prompt - self.cached - self.cache_creation

    def __add__(self, other: object) -> "Tokens":
        if not isinstance(other, Tokens):
            return NotImplemented
        extras = self.extras or other.extras
        if self.extras and other.extras:
            extras = self.extras + other.extras
        return Tokens(**{part: getattr(self, part) + getattr(other, part) for part in KINDS}, extras=extras)


def _names(parts: Iterable[str]) -> str:
    return " + ".join(f"{part}_tokens" for part in parts)


KINDS = tuple(field.name for field in fields(Tokens) if field.name != "extras")
"""The counts, in the order of Tokens."""
_FIELDS = tuple(f"{kind}_tokens" for kind in KINDS)
