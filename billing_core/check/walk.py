"""The walk through the entries, one by one, in the ledger's order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from .. import seals, stretches
from ..database import Transaction
from ..errors import Invalid
from ..i18n import N_
from ..models import PRICES, UNDONE_AT_REVERSAL, Seal
from ..money import Hao
from ..pricing import rates_of
from ..rates import Rates
from ..sums import of_other, recharged
from ..tokens import Tokens, extras_from
from .findings import Finding, Findings
from .held import HeldSketch, stretch_before
from .reading import blocks, yuan
from .used import Busy, Sketch, weigh


@dataclass(frozen=True, slots=True)
class Part:
    """The entries with an id above `after`, up to `last` (None: all that follow), and the seals that close them."""

    after: int
    last: int | None
    closed_by: Sequence[Seal]
    salt: int
    """Of the check's fingerprints, see Sketch."""
    busy: Busy
    stretches: int = 0
    """Up to which seal it is noted what the stretches hold."""
    before: str = seals.NOTHING_BEFORE
    """The hash of the seal before the part."""


@dataclass(slots=True)
class Sums:
    """What an account's entries add up to, in 毫."""

    last: int = 0
    """The last entry's balance_after."""
    added: Hao = 0
    consumed: Hao = 0


@dataclass(slots=True)
class Walked:
    entries: int = 0
    sums: dict[int, Sums] = field(default_factory=dict)
    used: int = 0
    """The fingerprint of what the entries used, see Sketch."""
    held: int = 0
    """The fingerprint of what the stretches hold of which that is noted, see HeldSketch."""
    findings: list[Finding] = field(default_factory=list)


_BALANCES_BEFORE = """
SELECT a.id, (SELECT e.balance_after FROM entry e WHERE e.account_id = a.id AND e.id <= {after} ORDER BY e.id DESC LIMIT 1)
FROM account a
"""


def walk(tx: Transaction, part: Part, progress: Callable[[int], None]) -> Walked:
    """Look at a part's entries, one by one."""
    found, sums, entries, used = Findings(), dict[int, Sums](), 0, 0
    sketch = Sketch(part.salt, part.busy)
    place = sketch.of_calls()
    names = seals.Names.read(tx)
    prices = tx.connection().execute(sa.select(PRICES)).all()
    rates = {row.id: (row.model_id, counts) for row in prices if (counts := _rates(row)) is not None}
    starts = {row.id: row.valid_from_ns for row in prices if row.source == "database"}
    if part.after:
        before = tx.connection().execute(sa.text(_BALANCES_BEFORE.format(after=part.after)))
        sums = {row[0]: Sums(row[1]) for row in before if row[1] is not None}
    closing = iter([*part.closed_by, None])
    seal, hashed = next(closing), part.before
    stretch: list[list[Any]] = []
    of_stretch: list[Any] = []
    holding = _Holding(tx, part)
    within = [f"id > {part.after}"] if part.after else []  # a number below 0 is looked at as well
    within += [] if part.last is None else [f"id <= {part.last}"]
    where = f"WHERE {' AND '.join(within)}" if within else ""
    for rows in blocks(tx, f"SELECT {seals.COLUMNS} FROM entry {where} ORDER BY id"):
        for row in rows:
            (id, account_id, type, amount, balance_after, cost, model_id, price_id, prompt, cached, creation, completion,
             reasoning, _precharge_id, _reverses_id, _operator, _remark, created_at_ns, recorded_at_ns,
             extras, reprices_id, _usd, upstream_yuan) = row  # fmt: skip
            while seal is not None and id > seal.last_entry_id:
                hashed = _close(found, seal, hashed, stretch)
                holding.add(seal.number, of_stretch)
                stretch, of_stretch, seal = [], [], next(closing)
            if seal is not None:
                stretch.append(names.canonical(row))
                of_stretch.append(row)
            account = sums.get(account_id)
            if account is None:
                account = sums[account_id] = Sums()
            try:
                if balance_after != account.last + amount:
                    found.note(
                        "entry", id,
                        N_("Entry {id} of {user_id} ends with {kept} 元, but the entries up to it add up to {sum} 元."),
                        user_id=names.accounts.get(account_id), kept=yuan(balance_after),
                        sum=yuan(account.last + amount),
                    )  # fmt: skip
                account.last = balance_after
                account.added += amount
                further = None if extras is None else extras_from(extras)
                if type in ("deduct", "settle"):
                    account.consumed += cost
                    weight = weigh(
                        cost, 1, prompt, cached, creation, completion, reasoning,
                        1 if further and further.are_priced else 0,
                        0 if upstream_yuan is None else upstream_yuan, 0 if upstream_yuan is None else cost,
                    )  # fmt: skip
                    used += weight * place(account_id, model_id, created_at_ns)
                    if reprices_id is not None and recorded_at_ns is not None:
                        used += weight * sketch.undone(account_id, model_id, recorded_at_ns, UNDONE_AT_REVERSAL)
                        used -= weight * sketch.undone(account_id, model_id, created_at_ns, UNDONE_AT_REVERSAL)
                else:
                    weight = weigh(*of_other(recharged(type, model_id, amount)))
                    used += weight * sketch.other(account_id, created_at_ns)
                if price_id in starts and starts[price_id] > (recorded_at_ns or created_at_ns) and reprices_id is None:
                    found.note("entry", id, N_("Entry {id} was charged at a price that began to count only later."))
                if type == "deduct":
                    if amount != -cost or cost < 0:
                        found.note("entry", id, N_("Entry {id} is a charge that takes another amount than its cost."))
                    model, price = rates.get(price_id, _NONE)
                    if not (
                        model == model_id is not None and further is None and price.more is None and cached >= 0 and creation >= 0 and cached + creation <= prompt
                        and 0 <= reasoning <= completion
                        and cost == price.cost_of(prompt - cached - creation, cached, creation, completion)
                    ):  # fmt: skip
                        _cost(found, row, rates)
                elif type == "recharge":
                    if cost or not amount:
                        found.note("entry", id, N_("Entry {id} is a recharge that moves nothing, or has a cost."))
                elif type in ("settle", "precharge"):
                    _cost(found, row, rates)
                elif type == "reversal":
                    account.consumed += cost
            except (
                TypeError,
                KeyError,
                ValueError,
                AttributeError,
                RecursionError,
                MemoryError,
                Invalid,
            ):  # SQLite keeps text in a column of numbers, if somebody puts it there
                if type == "deduct" and None in (prompt, cached, creation, completion, reasoning):
                    found.note("entry", id, _NO_COUNTS)
                else:
                    found.note("entry", id, N_("Entry {id} holds something that can't be in its place."))
        entries += len(rows)
        progress(entries)
    while seal is not None:
        hashed = _close(found, seal, hashed, stretch)
        holding.add(seal.number, of_stretch)
        stretch, of_stretch, seal = [], [], next(closing)
    return Walked(entries, sums, used, holding.total, list(found))


class _Holding:
    """Adds up the fingerprint of what a part's stretches hold."""

    def __init__(self, tx: Transaction, part: Part):
        self.until, self.sketch, self.total = part.stretches, HeldSketch(part.salt), 0
        self.last = stretch_before(tx, part.closed_by[0].number) if part.closed_by else None

    def add(self, number: int, rows: list[Any]) -> None:
        if number > self.until:
            return
        try:
            self.last, held = stretches.contents(number, rows, self.last)
            self.total += self.sketch.of(self.last, held)
        except (TypeError, KeyError, ValueError, IndexError):  # what no honest entry holds
            self.total += 1


_NONE: tuple[Any, Any] = (None, None)
_NO_COUNTS = N_("Entry {id} has token counts that can't be.")


def _close(found: Findings, seal: Seal, before: str, stretch: list[list[Any]]) -> str:
    """Compare a seal with the entries that it closed; the hash that the next one stands on."""
    fits = len(stretch) == seal.entries and bool(stretch) and stretch[-1][0] == seal.last_entry_id
    if not fits or seals.hash_of(before, stretch) != seal.hash:
        first = stretch[0][0] if stretch else seal.last_entry_id
        found.note(
            "seal", seal.number,
            N_(
                "Seal {id} no longer fits: one of the entries {first} to {last}, which it closed, was changed, added or "
                "removed."
            ),
            first=first, last=seal.last_entry_id,
        )  # fmt: skip
    return seal.hash


def _rates(row: Any) -> Rates | None:
    try:
        return rates_of(row)
    except (ValueError, TypeError, AttributeError, RecursionError, Invalid):  # not written by the app
        return None


def _cost(found: Findings, row: Sequence[Any], prices: dict[int, tuple[int, Rates]]) -> None:
    """The cost again, from the tokens and the price that the entry (a row of seals.COLUMNS) names."""
    id, _account, type, _amount, _after, kept, model_id, price_id, prompt, cached, creation, completion, reasoning = (
        row[:13]
    )
    model, rates = prices.get(price_id, _NONE)
    if rates is None or model != model_id:
        found.note("entry", id, N_("Entry {id} names no price of its model."))
        return
    try:
        tokens = Tokens(prompt, completion, cached, creation, reasoning, extras_from(row[19]))
    except Invalid:
        found.note("entry", id, _NO_COUNTS)
        return
    cost = rates.most(tokens) if type == "precharge" else rates.cost(tokens)
    if kept != cost:
        found.note(
            "entry", id, N_("Entry {id} cost {kept} 元, but its tokens at its price cost {sum} 元."),
            kept=yuan(kept), sum=yuan(cost),
        )  # fmt: skip
