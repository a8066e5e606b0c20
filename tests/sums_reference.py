"""The sums of use as the entries say they should be, in plain Python: what the ledger's, the check's and the migrations' are
held against."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from conftest import Clock

from billing_core import sums
from billing_core.database import Database, Transaction, may_be_alone
from billing_core.models import ACCOUNT, BOTH, MODEL, OTHER, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USED
from billing_core.tokens import extras_from

Key = tuple[int, int, int, int, int, int]
"""of, length, period, account_id, model_id, kind"""
KEYS = ("of", "length", "period", "account_id", "model_id", "kind")
TOKENS = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens")
NUMBERS = ("cost", "calls", *TOKENS, "priced_extras", "upstream_yuan", "upstream_cost")

Numbers = tuple[int, ...]
Sums = dict[Key, Numbers]
"""NUMBERS by key, but for rows that hold nothing but zeros."""


def sums_of(entries: Iterable[Any], open_calls: dict[tuple[int, int], int] | None = None) -> Sums:
    """The sums of these entries, rows with the columns of `entry`. Who is busy doesn't depend on `open_calls`, by account and
    period of LONG."""
    by_id = {row.id: row for row in entries}
    used = [row for row in by_id.values() if row.type in ("deduct", "settle")]
    found: dict[Key, list[int]] = {}

    def add(of: int, length: int, at_ns: int, call: Any, kind: int, numbers: Numbers) -> None:
        account, model = (0 if of == MODEL else call.account_id), (0 if of == ACCOUNT else call.model_id)
        so_far = found.setdefault((of, length, _period(at_ns, length), account, model, kind), [0] * len(NUMBERS))
        so_far[:] = map(sum, zip(so_far, numbers, strict=True))

    calls = {place: -number for place, number in (open_calls or {}).items()}
    for row in used:
        long = (row.account_id, _period(row.created_at_ns, sums.LONG))
        calls[long] = calls.get(long, 0) + 1
    for row in used:
        busy = calls[row.account_id, _period(row.created_at_ns, sums.LONG)] >= sums.BUSY_CALLS
        for of in (MODEL, ACCOUNT, BOTH):
            for length in (*sums.KEPT[of], *(sums.BUSY if busy and of == BOTH else ())):
                add(of, length, row.created_at_ns, row, USED, _numbers(row, row.cost, 1))

    for row in by_id.values():
        if row.type not in ("deduct", "settle"):
            recharges = row.type == "recharge" or (row.type == "reversal" and row.model_id is None)
            numbers = (row.amount if recharges else 0, 1) + (0,) * (len(NUMBERS) - 2)
            for length in sums.KEPT[ACCOUNT]:
                add(ACCOUNT, length, row.created_at_ns, row, OTHER, numbers)

    def undo(at_ns: int, call: Any, kind: int, numbers: Numbers) -> None:
        for of, lengths in sums.UNDONE.items():
            for length in lengths:
                add(of, length, at_ns, call, kind, numbers)

    for row in by_id.values():
        if row.type == "reversal":
            call, sign = by_id[row.reverses_id], -1
            while call.reverses_id is not None:
                call, sign = by_id[call.reverses_id], -sign
            if call.type not in ("deduct", "settle"):
                continue
            undo(call.created_at_ns, call, UNDONE_AT_CALL, _numbers(call, row.cost, sign))
            undo(row.created_at_ns, call, UNDONE_AT_REVERSAL, _numbers(call, row.cost, sign))
    for row in used:
        if row.reprices_id is not None and row.recorded_at_ns is not None:
            undo(row.created_at_ns, row, UNDONE_AT_REVERSAL, _numbers(row, -row.cost, -1))
            undo(row.recorded_at_ns, row, UNDONE_AT_REVERSAL, _numbers(row, row.cost, 1))
    return {key: tuple(numbers) for key, numbers in found.items() if any(numbers)}


def _period(at_ns: int, length: int) -> int:
    return at_ns // sums.QUARTER_NS // length


def _numbers(call: Any, cost: int, sign: int) -> Numbers:
    extras = extras_from(call.extras)
    known = call.upstream_yuan is not None
    tokens = (sign * (getattr(call, name) or 0) for name in TOKENS)
    priced = sign if extras is not None and extras.are_priced else 0
    return (cost, sign, *tokens, priced, sign * call.upstream_yuan if known else 0, cost if known else 0)


def opened(db: Database) -> list[tuple[int, ...]]:
    """What `usage_open` holds: quarter, account, model and NUMBERS."""
    columns = ", ".join(("quarter", "account_id", "model_id", *NUMBERS))
    return [tuple(row) for row in db.read(lambda tx: tx.rows(f"SELECT {columns} FROM usage_open"))]


def expected(db: Database) -> Sums:
    """What `usage_sum` and `usage_open` should hold together."""
    calls: dict[tuple[int, int], int] = {}
    for quarter, account, model, _cost, number, *_rest in opened(db):
        if model:
            place = (account, quarter // sums.LONG)
            calls[place] = calls.get(place, 0) + number
    entries = db.read(lambda tx: tx.connection().execute(sa.text("SELECT * FROM entry ORDER BY id")).all())
    return sums_of(entries, calls)


def kept(db: Database) -> Sums:
    """What they hold together."""
    found: dict[Key, Numbers] = {}

    def add(key: Key, numbers: Numbers) -> None:
        found[key] = tuple(map(sum, zip(found.get(key, (0,) * len(NUMBERS)), numbers, strict=True)))

    columns = ", ".join((*KEYS, "slot", *NUMBERS))
    for row in db.read(lambda tx: tx.connection().execute(sa.text(f"SELECT {columns} FROM usage_sum")).all()):
        assert row.slot == 0 or row.of == MODEL
        add(tuple(row[:6]), tuple(row[7:]))
    closed = dict(found)
    for quarter, account, model, *numbers in opened(db):
        if not model:
            for length in sums.KEPT[ACCOUNT]:
                add((ACCOUNT, length, quarter // length, account, 0, OTHER), tuple(numbers))
            continue
        calls = closed.get((ACCOUNT, sums.LONG, quarter // sums.LONG, account, 0, USED), (0, 0))[1]
        for of, who, what in ((MODEL, 0, model), (ACCOUNT, account, 0), (BOTH, account, model)):
            busy = sums.BUSY if of == BOTH and calls >= sums.BUSY_CALLS else ()
            for length in (*sums.KEPT[of], *busy):
                add((of, length, quarter // length, who, what, USED), tuple(numbers))
    return {key: numbers for key, numbers in found.items() if any(numbers)}


@may_be_alone
def close_ended(tx: Transaction) -> None:
    """As the first charge of another quarter of an hour does it."""
    sums.Uses(tx).write()


def close(db: Database, clock: Clock) -> None:
    """Nothing is open any more, and a quarter of an hour has passed."""
    clock.forward(seconds=900)
    db.write(close_ended)
    assert opened(db) == []


def write(db: Database) -> None:
    """Make `usage_sum` what it should be."""
    entries = db.read(lambda tx: tx.connection().execute(sa.text("SELECT * FROM entry ORDER BY id")).all())
    rows = [(*key, 0, *numbers) for key, numbers in sums_of(entries).items()]
    columns = (*KEYS, "slot", *NUMBERS)

    def put(tx: Transaction) -> None:
        tx.connection().execute(sa.text("DELETE FROM usage_sum"))
        tx.connection().execute(sa.text("DELETE FROM usage_open"))
        if rows:
            tx.connection().execute(
                sa.text(f"INSERT INTO usage_sum ({', '.join(columns)}) VALUES (:{', :'.join(columns)})"),
                [dict(zip(columns, row, strict=True)) for row in rows],
            )

    db.write(put)
