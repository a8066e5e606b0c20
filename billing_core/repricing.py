"""Charging many entries again at the price that counts now, because theirs was wrong: a job like those of undoing.py,
which run it.

    seen = db.read(repricing.preview, Filters(model="some/model", types=("deduct",)), actor=boss)
    job = db.write(repricing.start, seen.selection, "a wrong price", actor=boss, seen=seen.seen)
    undoing.run(db, job, actor=boss)

Each entry is reversed and charged again in one transaction; a price that changes after `start` changes nothing of the
job. Costs and balances are 毫.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select

from . import accounts, idempotency, ledger, pricing, undoing
from .actors import Actor
from .database import Transaction
from .errors import BillingError, Conflict, Invalid
from .i18n import N_, translate
from .idempotency import Once
from .logs import Filters
from .models import ENTRIES, ITEMS, MODELS
from .money import Hao, format_price
from .rates import Rates
from .undoing import REVERSED, Item


@dataclass(frozen=True, slots=True)
class Back:
    """What a job has repriced, back to the prices before it: a selection that undoes the job."""

    job_id: int


Selection = undoing.Selection | Back

NO_CALL, THE_SAME, TOO_MUCH = "no_call", "same_cost", "too_much"
WHY_NOT = {
    REVERSED: undoing.WHY_NOT[REVERSED],
    NO_CALL: N_("no charges of calls"),
    THE_SAME: N_("cost the same at the price that counts now"),
    TOO_MUCH: N_("would cost more than any entry can hold"),
}
"""Why entries of a selection are left alone."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody was shown, and a job has to find again: nothing later than `last_id` is in it."""

    last_id: int
    entries: int
    to_reprice: int
    amount: Hao
    """What it adds to all balances, in 毫."""
    prices: str
    """A fingerprint of the prices at which the calls are charged again."""


@dataclass(frozen=True, slots=True)
class OnModel:
    """What a job does to a model's calls that were charged at one price."""

    model: str
    entries: int
    old: Hao
    """What they cost."""
    new: Hao
    before: Rates
    after: Rates

    @property
    def amount(self) -> Hao:
        """What it adds to balances."""
        return self.old - self.new

    def sentence(self, language: str = "en") -> str:
        """What changes of the price: “input 18.00 → 20.00”, in 元 per million tokens."""
        told = [
            f"{translate(name, language)} {format_price(before)} → {format_price(after)}"
            for part, name in PARTS.items()
            if (before := getattr(self.before, part)) != (after := getattr(self.after, part))
            and (part in self.before.own or part in self.after.own)
        ]
        if self.before.more != self.after.more:
            told.append(translate(N_("further components"), language))
        return translate(N_(", "), language).join(told)


PARTS = {"input": N_("input"), "output": N_("output"), "cache_read": N_("cache read"), "cache_write": N_("cache write")}
"""The four that everybody knows."""


@dataclass(frozen=True, slots=True)
class OnAccount:
    """What a job does to one account. Balances below 0 are owed."""

    user_id: str
    name: str
    entries: int
    old: Hao
    """What its calls cost."""
    new: Hao
    before: int
    """Its balance."""

    @property
    def amount(self) -> Hao:
        """What it adds to the balance."""
        return self.old - self.new

    @property
    def after(self) -> int:
        return self.before + self.amount


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job would do."""

    selection: Selection
    seen: Seen
    old: Hao
    """What the calls cost that are repriced."""
    new: Hao
    left_alone: dict[str, int]
    """How many are not, by WHY_NOT."""
    models: list[OnModel]
    """By name, then by price."""
    accounts: list[OnAccount]
    """By user id."""

    @property
    def into_debt(self) -> list[OnAccount]:
        return [one for one in self.accounts if one.after < min(one.before, 0)]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """An entry of a selection, what it would cost, and why it is left alone."""

    row: Any
    rates: Rates | None
    cost: Hao
    why_not: str | None = None
    refusal: BillingError | None = None


def preview(tx: Transaction, selection: Selection, *, actor: Actor) -> Preview:
    """What repricing a selection would do now. Raises Invalid (nothing is selected, or more than undoing.MOST), NotFound,
    UnknownAccount, Forbidden."""
    actor.must_be_admin()
    last_id = int(tx.connection().scalar(select(func.max(ENTRIES.c.id))) or 0)
    chosen = _chosen(tx, selection, last_id, actor, lambda model: pricing.in_force(tx, model))
    if not chosen:
        raise Invalid(undoing.NOTHING_SELECTED, field="selection")
    todo = [one for one in chosen if one.why_not is None]
    # Taken back, calls of one price may go back to several.
    by = ("model", "price_id", *(("earlier_price_id",) if isinstance(selection, Back) else ()))
    by_price, by_account = _added(todo, *by), _added(todo, "account_id")
    rates = {tuple(getattr(one.row, name) for name in by): one.rates for one in todo}
    models = []
    for key, (entries, old, new) in sorted(by_price.items()):
        after, (model, price_id) = rates[key], key[:2]
        assert after is not None
        models.append(OnModel(model, entries, old, new, pricing.charged_at(tx, price_id), after))
    changes = [
        OnAccount(account.user_id, account.name, *by_account[key], ledger.balance(tx, account))
        for account in accounts.listed(tx, actor=actor)
        if (key := (account.id,)) in by_account
    ]
    return Preview(
        selection, _seen(last_id, chosen), sum(one.old for one in models), sum(one.new for one in models),
        dict(Counter(one.why_not for one in chosen if one.why_not).most_common()),
        models, sorted(changes, key=lambda one: one.user_id),
    )  # fmt: skip


def _added(todo: Iterable[_Chosen], *by: str) -> dict[tuple[Any, ...], tuple[int, Hao, Hao]]:
    """How many entries, what they cost, and what they will, by some of their columns."""
    sums: dict[tuple[Any, ...], tuple[int, Hao, Hao]] = {}
    for one in todo:
        key = tuple(getattr(one.row, name) for name in by)
        entries, old, new = sums.get(key, (0, 0, 0))
        sums[key] = entries + 1, old + one.row.cost, new + one.cost
    return sums


def _seen(last_id: int, chosen: list[_Chosen]) -> Seen:
    todo = [one for one in chosen if one.why_not is None]
    used = {(one.row.model, rates.parts, rates.more and rates.more.as_json()) for one in todo if (rates := one.rates)}
    fingerprint = hashlib.sha256(json.dumps(sorted(used, key=repr)).encode()).hexdigest()[:16]
    return Seen(last_id, len(chosen), len(todo), sum(one.row.cost - one.cost for one in todo), fingerprint)


def _chosen(
    tx: Transaction, selection: Selection, last_id: int, actor: Actor, price_of: Callable[[str], Rates]
) -> list[_Chosen]:
    """The entries of a selection up to `last_id`, each at what `price_of` its model says, or at its price before."""
    e, undoing_it, before = ENTRIES.c, ENTRIES.alias("undoing"), ENTRIES.alias("before")
    query = select(
        *ENTRIES.columns, MODELS.c.name.label("model"), undoing_it.c.id.label("reversed_by"),
        before.c.price_id.label("earlier_price_id"),
    ).select_from(
        ENTRIES.outerjoin(undoing_it, undoing_it.c.reverses_id == e.id)
        .outerjoin(MODELS, MODELS.c.id == e.model_id)
        .outerjoin(before, before.c.id == e.reprices_id)
    )  # fmt: skip
    entries = _charges_of(tx, selection.job_id, actor) if isinstance(selection, Back) else selection
    rows = undoing.selected(tx, query, entries, last_id, actor)
    known: dict[Any, Rates] = {}

    def rates_of(row: Any) -> Rates:
        back = isinstance(selection, Back)
        key = row.earlier_price_id if back else row.model
        if key not in known:
            known[key] = pricing.charged_at(tx, key) if back else price_of(key)
        return known[key]

    return [_one(row, rates_of) for row in rows]


def _one(row: Any, rates_of: Callable[[Any], Rates]) -> _Chosen:
    if row.type not in ledger.CALLS or row.model is None:
        return _Chosen(row, None, 0, NO_CALL, Conflict(ledger.NO_CALL, entry_id=row.id))
    if row.reversed_by is not None:
        return _Chosen(row, None, 0, REVERSED, Conflict(ledger.REVERSED_ALREADY, entry_id=row.id))
    rates = rates_of(row)
    try:
        cost = ledger.bounded(rates.cost(ledger.counted(row)))
    except Invalid as error:
        return _Chosen(row, None, 0, TOO_MUCH, error)
    if cost == row.cost:
        return _Chosen(row, rates, cost, THE_SAME, Conflict(ledger.COSTS_THE_SAME, entry_id=row.id))
    return _Chosen(row, rates, cost)


def _charges_of(tx: Transaction, job_id: int, actor: Actor) -> list[int]:
    """The numbers of the charges that a repricing has written. Raises NotFound, Forbidden, and Conflict for a job that only
    reverses."""
    if not undoing.status(tx, job_id, actor=actor).reprices:
        raise Conflict(N_("Job {job_id} is no repricing: it is taken back by reversing what it wrote."), job_id=job_id)
    query = (
        select(ledger.charged_anew(ENTRIES))
        .join(ITEMS, ITEMS.c.reversal_id == ENTRIES.c.id)
        .where(ITEMS.c.job_id == job_id)
    )
    return [int(number) for number in tx.connection().scalars(query)]


def start(
    tx: Transaction, selection: Selection, reason: str, *, actor: Actor, seen: Seen, once: Once | None = None
) -> int:
    """Write a job down with the price for each entry, for undoing.run; its number. Raises Conflict where the selection or
    a price is not what was `seen` (any more), Invalid, NotFound, UnknownAccount, Forbidden."""
    reason = undoing.checked_reason(reason, actor)
    if (known := idempotency.earlier(tx, once)) is not None:
        return int(json.loads(known.answer or "null"))
    chosen = _chosen(tx, selection, seen.last_id, actor, lambda model: pricing.to_charge(tx, model, tx.now_ns)[1])
    if _seen(seen.last_id, chosen) != seen:
        raise Conflict(
            N_("The selection or a price has changed since it was shown, and nothing was repriced. Look at it again.")
        )
    if not seen.to_reprice:
        raise Conflict(N_("None of the selected entries would cost anything else."))
    said = asdict(selection) if isinstance(selection, Filters | Back) else f"{len(chosen)} ids"
    items = [
        Item(one.row.id, one.refusal, one.rates.price_id if one.rates and one.why_not is None else None)
        for one in chosen
    ]
    return undoing.write_job(
        tx, items, reason, actor, once, "repricings.start",
        entries=seen.to_reprice, amount_hao=seen.amount, selection=said,
    )  # fmt: skip
