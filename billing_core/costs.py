"""Why an entry cost what it did: what was used, kind by kind, at the price that the entry keeps."""

from dataclasses import dataclass

from . import logs, pricing
from .actors import Actor
from .database import Transaction
from .models import Entry
from .pricing import Upstream
from .rates import Line, Rates, Tier
from .tokens import Tokens, extras_from


@dataclass(frozen=True, slots=True)
class Why:
    """An entry's cost, step by step."""

    tokens: Tokens
    rates: Rates
    """The price that the entry names, as it was."""
    lines: list[Line]
    """Each kind × its price; of a precharge the most that input and output can come to."""
    upstream: Upstream | None
    """What the provider asked, for admins; None where that isn't known."""

    @property
    def tier(self) -> Tier | None:
        """The tier that counted, by the length of the prompt."""
        return self.rates.tier(self.tokens.prompt)

    @property
    def multiplier(self) -> int:
        """What the service tier made of the price of tokens, in millionths."""
        return self.rates.multiplier(self.tokens.extras)


def why(tx: Transaction, entry_id: int, *, actor: Actor) -> Why | None:
    """None for an entry that isn't a call. Raises NotFound, also for somebody else's entry."""
    row = logs.one(tx, entry_id, actor=actor)
    entry = tx.session.get_one(Entry, row.id)
    if entry.price_id is None or entry.prompt_tokens is None:
        return None
    tokens = Tokens(
        entry.prompt_tokens, entry.completion_tokens or 0, entry.cached_tokens or 0, entry.cache_creation_tokens or 0,
        entry.reasoning_tokens or 0, extras_from(entry.extras),
    )  # fmt: skip
    rates = pricing.charged_at(tx, entry.price_id)
    lines = rates.most_lines(tokens) if entry.type == "precharge" else rates.lines(tokens)
    known = actor.is_admin and entry.upstream_yuan is not None
    upstream = Upstream(entry.upstream_usd or 0, entry.upstream_yuan or 0) if known else None
    return Why(tokens, rates, lines, upstream)
