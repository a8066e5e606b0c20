"""Undoing many entries for one reason: a job that is shown first, may be cut short anywhere, and reverses nothing twice.

    seen = db.read(undoing.preview, Filters("ann", types=("deduct",)), actor=boss)   # what it would do
    job = db.write(undoing.start, seen.selection, "a wrong price", actor=boss, seen=seen.seen)
    undoing.run(db, job, actor=boss)                                                 # and again, after a crash

Every reversal is written together with its item's end, so that a crash leaves both or neither. Amounts are 毫.

A job may charge its entries again at another price, too: repricing.py makes those, and they run here.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy import func, select

from . import accounts, audit, idempotency, ledger, logs, stretches
from .actors import SHELL_ID, Actor
from .database import Database, Transaction, is_id
from .errors import BillingError, Conflict, Invalid, NotFound
from .i18n import N_
from .idempotency import Once
from .logs import Filters
from .models import ACCOUNTS, ENTRIES, HOLDS, ITEMS, JOBS, ReversalJob
from .money import Hao
from .text import one_line

MOST = 100_000
"""The most entries in one job."""
AT_ONCE = 20
"""How many entries of an account are reversed in one transaction: its charges wait for so long."""

Selection = Filters | Sequence[int]
"""Entries by what the logs' filters let through, or by their numbers."""

REVERSED, PAIRED, REPRICED = "reversed", "paired", "repriced"
WHY_NOT = {
    REVERSED: N_("reversed already"),
    REPRICED: N_("written by a repricing (the new charge stands in the place of what it undid)"),
    PAIRED: N_("undo something else in the selection, and together come to nothing"),
    "settle": N_("holds whose call was settled (the settling entry undoes the whole call)"),
    "refund": N_("holds given back already"),
    "expire": N_("holds that have expired"),
}
"""Why entries of a selection are left alone; the last three name what ended a hold."""
NOTHING_SELECTED = N_("No entry is selected.")


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody was shown, and a job has to find again: nothing later than `last_id` is in it."""

    last_id: int
    entries: int
    to_reverse: int
    amount: Hao
    """What it adds to all balances, in 毫."""


@dataclass(frozen=True, slots=True)
class OnAccount:
    """What a job does to one account. Balances in 毫; below 0 is owed."""

    user_id: str
    name: str
    entries: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job would do."""

    selection: Selection
    seen: Seen
    types: dict[str, int]
    """How many entries of each type are reversed."""
    left_alone: dict[str, int]
    """How many are not, by WHY_NOT."""
    accounts: list[OnAccount]
    """By user id."""

    @property
    def into_debt(self) -> list[OnAccount]:
        return [one for one in self.accounts if one.after < min(one.before, 0)]


@dataclass(frozen=True, slots=True)
class Job:
    """A job and how far it is."""

    id: int
    operator_id: str
    reason: str
    created_at_ns: int
    finished_at_ns: int | None
    entries: int
    reversed: int
    refused: int
    priced: int
    """How many of the entries are to be charged again at another price."""

    @property
    def reprices(self) -> bool:
        """Whether it charges its entries again at another price, rather than only reverse them."""
        return self.priced > 0

    @property
    def left(self) -> int:
        return self.entries - self.reversed - self.refused


@dataclass(frozen=True, slots=True)
class _Chosen:
    """An entry of a selection, and why it is left alone."""

    id: int
    account_id: int
    type: str
    amount: Hao
    """What its reversal adds to the balance, in 毫."""
    why_not: str | None
    refusal: BillingError | None


# Before it begins


def preview(tx: Transaction, selection: Selection, *, actor: Actor) -> Preview:
    """What reversing a selection would do now. Raises Invalid (nothing is selected, or more than MOST), NotFound,
    UnknownAccount, Forbidden."""
    actor.must_be_admin()
    last_id = int(tx.connection().scalar(select(func.max(ENTRIES.c.id))) or 0)
    chosen = _chosen(tx, selection, last_id, actor)
    if not chosen:
        raise Invalid(NOTHING_SELECTED, field="selection")
    reversible = [one for one in chosen if one.why_not is None]
    amounts, counts = Counter[int](), Counter[int]()
    for one in reversible:
        amounts[one.account_id] += one.amount
        counts[one.account_id] += 1
    changes = []
    for account in accounts.listed(tx, actor=actor):
        number = account.id or 0
        if counts[number]:
            before = ledger.balance(tx, account)
            after = before + amounts[number]
            changes.append(OnAccount(account.user_id, account.name, counts[number], before, after))
    return Preview(
        selection, _seen(last_id, chosen), dict(Counter(one.type for one in reversible).most_common()),
        dict(Counter(one.why_not for one in chosen if one.why_not).most_common()),
        sorted(changes, key=lambda one: one.user_id),
    )  # fmt: skip


def _seen(last_id: int, chosen: list[_Chosen]) -> Seen:
    reversible = [one for one in chosen if one.why_not is None]
    return Seen(last_id, len(chosen), len(reversible), sum(one.amount for one in reversible))


def _chosen(tx: Transaction, selection: Selection, last_id: int, actor: Actor) -> list[_Chosen]:
    """The entries of a selection up to `last_id`."""
    e, undoing, ended = ENTRIES.c, ENTRIES.alias("undoing"), ENTRIES.alias("ended")
    query = select(
        e.id, e.account_id, e.type, e.amount, e.cost, e.precharge_id, e.reverses_id,
        undoing.c.id.label("reversed_by"), ended.c.type.label("ended_by"), HOLDS.c.expires_at_ns,
        ledger.charged_anew(ENTRIES).label("charge_id"),
    ).select_from(
        ENTRIES.outerjoin(undoing, undoing.c.reverses_id == e.id)
        .outerjoin(HOLDS, HOLDS.c.precharge_id == e.id)
        .outerjoin(ended, ended.c.id == HOLDS.c.ended_by)
    )  # fmt: skip
    rows = selected(tx, query, selection, last_id, actor)
    by_id = {row.id: row for row in rows}
    return [_one(row, by_id, tx.now_ns) for row in rows]


def selected(tx: Transaction, query: sa.Select[Any], selection: Selection, last_id: int, actor: Actor) -> Sequence[Any]:
    """The rows of a query from `entry` (with its id) that a selection means, up to `last_id`. Raises Invalid, NotFound,
    UnknownAccount, Forbidden."""
    e, wanted = ENTRIES.c, list[int]()
    query = query.where(e.id <= last_id).limit(MOST + 1)
    if isinstance(selection, Filters):
        query = query.where(*logs.conditions(tx, selection, actor))
        windows = stretches.span(tx, *logs.bounds(selection))
        rows = list(chain(*(tx.connection().execute(query.where(logs.within(one))) for one in windows)))
    else:
        wanted = sorted(set(selection))
        _not_too_many(len(wanted))
        known = json.dumps([number for number in wanted if is_id(number)])
        query = query.where(e.id.in_(sa.text(_NUMBERS[tx.is_sqlite]).bindparams(ids=known)))
        rows = list(tx.connection().execute(query))
    _not_too_many(len(rows))
    if len(rows) < len(wanted):
        there = {row.id for row in rows}
        missing = next(number for number in wanted if number not in there)
        raise NotFound(N_("There is no entry {entry_id}."), entry_id=missing)
    return rows


_NUMBERS = {
    True: "SELECT value FROM json_each(:ids)",
    False: "SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:ids AS json))",
}
"""A list of numbers as a table, on SQLite or not: no database takes so many parameters."""
_WRITE_ITEMS = {
    True: "INSERT INTO reversal_item (job_id, entry_id, refusal, price_id) SELECT :job, json_extract(value, '$[0]'), "
    "json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(:items)",
    False: "INSERT INTO reversal_item (job_id, entry_id, refusal, price_id) SELECT :job, CAST(value ->> 0 AS bigint), "
    "value ->> 1, CAST(value ->> 2 AS bigint) FROM json_array_elements(CAST(:items AS json))",
}
"""The same for a job's items: on Postgres a row at a time would take seconds."""


def _not_too_many(entries: int) -> None:
    if entries > MOST:
        raise Invalid(
            N_("More than {most} entries are selected. Do it in parts: choose a shorter range or one account."),
            field="selection",
            most=f"{MOST:,}",
        )


def _one(row: Any, chosen: dict[int, Any], now_ns: int) -> _Chosen:
    why, refusal = None, None
    ended = row.ended_by
    if row.type == "precharge" and ended is None and row.expires_at_ns <= now_ns:
        ended = "expire"  # though that isn't written down yet
    if row.reversed_by is not None:
        why, refusal = REVERSED, Conflict(ledger.REVERSED_ALREADY, entry_id=row.id)
    elif row.charge_id is not None:
        why, refusal = REPRICED, Conflict(ledger.NOT_BY_ITSELF, entry_id=row.id, charge_id=row.charge_id)
    elif row.type == "precharge" and ended is not None:
        why, refusal = ended, Conflict(ledger.ENDED[ended], precharge_id=row.id)
    elif _chosen_in_a_row(row, chosen) % 2 == 0:
        why = PAIRED
        refusal = Conflict(
            N_("Entry {entry_id} undoes entry {other_id}, which is selected as well: together they come to nothing."),
            entry_id=row.id, other_id=_undoes(row),
        )  # fmt: skip
    return _Chosen(row.id, row.account_id, row.type, ledger.undone(row)[1], why, refusal)


def _undoes(row: Any) -> int | None:
    """The entry that this one has undone: a refund and an expiry give back all that their precharge held."""
    return row.precharge_id if row.type in ("refund", "expire") else row.reverses_id


def _chosen_in_a_row(row: Any, chosen: dict[int, Any]) -> int:
    """How many entries of the selection undo one another, down from this one. Of an even number nothing is left to undo:
    reversing the last would only bring the one before it back."""
    length = 1
    while (row := chosen.get(_undoes(row) or 0)) is not None:
        length += 1
    return length


# The job


def start(
    tx: Transaction, selection: Selection, reason: str, *, actor: Actor, seen: Seen, once: Once | None = None
) -> int:
    """Write a job down, to be run; its number. Raises Conflict where the selection is not what was `seen` (any more),
    Invalid, NotFound, UnknownAccount, Forbidden."""
    reason = checked_reason(reason, actor)
    if (known := idempotency.earlier(tx, once)) is not None:
        return int(json.loads(known.answer or "null"))
    chosen = _chosen(tx, selection, seen.last_id, actor)
    if _seen(seen.last_id, chosen) != seen:
        raise Conflict(CHANGED)
    if not seen.to_reverse:
        raise Conflict(N_("None of the selected entries can be reversed."))
    said = asdict(selection) if isinstance(selection, Filters) else f"{len(chosen)} ids"
    return write_job(
        tx, [Item(one.id, one.refusal) for one in chosen], reason, actor, once, "reversals.start",
        entries=seen.to_reverse, amount_hao=seen.amount, selection=said,
    )  # fmt: skip


CHANGED = N_("The selection has changed since it was shown, and nothing was reversed. Look at it again.")


@dataclass(frozen=True, slots=True)
class Item:
    """An entry of a job: left as it is for a reason, or reversed; and charged again, with a price."""

    entry_id: int
    refusal: BillingError | None = None
    price_id: int | None = None


def checked_reason(reason: str, actor: Actor) -> str:
    """Raises Invalid, Forbidden."""
    actor.must_be_admin()
    reason = one_line(reason, 500, field="reason")
    if not reason:
        raise Invalid(N_("Say why: the reason stands beside each reversal."), field="reason")
    return reason


def write_job(
    tx: Transaction, items: Iterable[Item], reason: str, actor: Actor, once: Once | None, action: str, **told: Any
) -> int:
    """Write a job down with its items; `action` and what is `told` stand in the audit log. Its number."""
    job = ReversalJob(operator_id=actor.account_id, reason=reason, created_at_ns=tx.now_ns)
    tx.session.add(job)
    tx.session.flush()
    assert job.id is not None
    rows = json.dumps([(one.entry_id, one.refusal and _kept(one.refusal), one.price_id) for one in items])
    tx.connection().execute(sa.text(_WRITE_ITEMS[tx.is_sqlite]), {"job": job.id, "items": rows})
    audit.note(tx, actor, action, f"job {job.id}", reason=reason, **told)
    idempotency.remember(tx, once, answer=job.id)
    return job.id


def run(db: Database, job_id: int, *, actor: Actor, progress: Callable[[int, int], None] | None = None) -> Job:
    """Reverse (or reprice) what a job has left, account by account, as `actor`; `progress` is told how many are done of
    all that it reverses.

    Several may run one job at once, and it may be run again after a crash: an item is done once. What the ledger refuses
    is noted with the item, and the job goes on. Raises NotFound, Forbidden, and DatabaseUnavailable, after which it can
    be run again.
    """
    actor.must_be_admin()
    job = db.read(status, job_id, actor=actor)
    done, left = job.reversed, db.read(_left, job_id)
    for _account, items in groupby(left, key=lambda pair: pair[0]):
        numbers = [entry_id for _, entry_id in items]
        for place in range(0, len(numbers), AT_ONCE):
            batch = numbers[place : place + AT_ONCE]
            db.write(_reverse, job_id, batch, job.reason, actor)
            done += len(batch)
            if progress:
                progress(done, job.reversed + job.left)
    db.write(_finish, job_id)
    return db.read(status, job_id, actor=actor)


_NOT_DONE = ITEMS.c.reversal_id.is_(None) & ITEMS.c.refusal.is_(None)


def _left(tx: Transaction, job_id: int) -> list[tuple[int, int]]:
    """The account and the entry of each item that is not done."""
    query = (
        select(ENTRIES.c.account_id, ENTRIES.c.id)
        .join(ITEMS, ITEMS.c.entry_id == ENTRIES.c.id)
        .where(ITEMS.c.job_id == job_id, _NOT_DONE)
        .order_by(ENTRIES.c.account_id, ENTRIES.c.id)
    )
    return [(row.account_id, row.id) for row in tx.connection().execute(query)]


def _reverse(tx: Transaction, job_id: int, batch: list[int], reason: str, actor: Actor) -> None:
    """Reverse some of one account's entries, and charge those with a price again. Their items are locked first: whoever runs the same job at the same time
    waits here, and then finds them done."""
    mine = (
        select(ITEMS.c.entry_id, ITEMS.c.price_id)
        .where(ITEMS.c.job_id == job_id, ITEMS.c.entry_id.in_(batch), _NOT_DONE)
        .order_by(ITEMS.c.entry_id)
        .with_for_update()
    )
    ends = []
    for entry_id, price_id in tx.connection().execute(mine).all():
        end: dict[str, Any] = {"entry": entry_id, "reversal": None, "refused": None}
        try:
            with tx.savepoint():
                if price_id is None:
                    done = ledger.reverse(tx, entry_id, reason, actor=actor)
                else:
                    done = ledger.reprice(tx, entry_id, price_id, reason, actor=actor)
                end["reversal"] = done.entry_id
        except BillingError as error:
            end["refused"] = _kept(error)
        ends.append(end)
    if ends:
        this = (ITEMS.c.job_id == job_id) & (ITEMS.c.entry_id == sa.bindparam("entry"))
        values: dict[str, Any] = {"reversal_id": sa.bindparam("reversal"), "refusal": sa.bindparam("refused")}
        tx.connection().execute(sa.update(ITEMS).where(this).values(values), ends)


def _finish(tx: Transaction, job_id: int) -> None:
    left = select(ITEMS.c.entry_id).where(ITEMS.c.job_id == job_id, _NOT_DONE).exists()
    job = sa.update(JOBS).where(JOBS.c.id == job_id, JOBS.c.finished_at_ns.is_(None), ~left)
    tx.connection().execute(job.values(finished_at_ns=tx.now_ns))


def _kept(error: BillingError) -> str:
    return json.dumps(error.kept(), ensure_ascii=False, default=str)


# Looking back


def status(tx: Transaction, job_id: int, *, actor: Actor) -> Job:
    """A job, and how far it is. Raises NotFound, Forbidden."""
    actor.must_be_admin()
    found = _jobs(tx, JOBS.c.id == job_id) if is_id(job_id) else []
    if not found:
        raise NotFound(N_("There is no job {job_id} of reversals."), job_id=job_id)
    return found[0]


def jobs(tx: Transaction, *, actor: Actor, limit: int = 50) -> list[Job]:
    """The newest jobs, newest first. Raises Forbidden."""
    actor.must_be_admin()
    logs.checked(limit)
    return _jobs(tx, sa.true(), limit)


def unfinished(tx: Transaction, *, actor: Actor) -> list[Job]:
    """The jobs that have something left to do, newest first. Raises Forbidden."""
    actor.must_be_admin()
    return _jobs(tx, JOBS.c.finished_at_ns.is_(None))


def _jobs(tx: Transaction, which: Any, limit: int | None = None) -> list[Job]:
    newest = select(JOBS).where(which).order_by(JOBS.c.id.desc()).limit(limit).subquery()
    done = (
        func.count(), func.count(ITEMS.c.reversal_id), func.count(ITEMS.c.refusal), func.count(ITEMS.c.price_id)
    )  # fmt: skip
    query = (
        select(
            newest.c.id, func.coalesce(ACCOUNTS.c.user_id, SHELL_ID), newest.c.reason, newest.c.created_at_ns,
            newest.c.finished_at_ns, *done,
        )
        .select_from(
            newest.join(ITEMS, ITEMS.c.job_id == newest.c.id).outerjoin(ACCOUNTS, ACCOUNTS.c.id == newest.c.operator_id)
        )
        .group_by(
            newest.c.id, ACCOUNTS.c.user_id, newest.c.reason, newest.c.created_at_ns, newest.c.finished_at_ns
        )
        .order_by(newest.c.id.desc())
    )  # fmt: skip
    return [Job(*row) for row in tx.connection().execute(query)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an entry of a job was left as it is."""

    entry_id: int
    error: BillingError


def refusals(tx: Transaction, job_id: int, *, actor: Actor, limit: int = 50) -> list[Refusal]:
    """What a job did not reverse, and why, by the entries' numbers. Raises NotFound, Forbidden."""
    status(tx, job_id, actor=actor)
    logs.checked(limit)
    query = (
        select(ITEMS.c.entry_id, ITEMS.c.refusal)
        .where(ITEMS.c.job_id == job_id, ITEMS.c.refusal.is_not(None))
        .order_by(ITEMS.c.entry_id)
        .limit(limit)
    )
    kept = [(row.entry_id, json.loads(row.refusal)) for row in tx.connection().execute(query)]
    return [Refusal(entry_id, BillingError.of_kept(one)) for entry_id, one in kept]


def reversals_of(tx: Transaction, job_id: int, *, actor: Actor) -> list[int]:
    """The numbers of the reversals that a job has written: a selection that undoes the job. Raises NotFound, Forbidden, and
    Conflict for a repricing."""
    if status(tx, job_id, actor=actor).reprices:
        raise Conflict(N_("Job {job_id} is a repricing: it is taken back by another repricing."), job_id=job_id)
    query = select(ITEMS.c.reversal_id).where(ITEMS.c.job_id == job_id, ITEMS.c.reversal_id.is_not(None))
    return [int(number) for number in tx.connection().scalars(query.order_by(ITEMS.c.reversal_id))]
