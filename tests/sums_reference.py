"""The sums of use as the entries say they should be, in plain Python: what the ledger's, the check's and the migrations' are
held against."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from billing_core import sums
from billing_core.database import Database, Transaction
from billing_core.models import ACCOUNT, BOTH, MODEL, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USED
from billing_core.tokens import extras_from

Key = tuple[int, int, int, int, int, int]
"""of, length, period, account_id, model_id, kind"""
KEYS = ("of", "length", "period", "account_id", "model_id", "kind")
TOKENS = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens")
NUMBERS = ("cost", "calls", *TOKENS, "priced_extras", "upstream_yuan", "upstream_cost")

Numbers = tuple[int, ...]
Sums = dict[Key, Numbers]
"""NUMBERS by key, but for rows that hold nothing but zeros."""


def sums_of(entries: Iterable[Any]) -> Sums:
    """The sums of these entries, rows with the columns of `entry`."""
    by_id = {row.id: row for row in entries}
    used = [row for row in by_id.values() if row.type in ("deduct", "settle")]
    found: dict[Key, list[int]] = {}

    def add(of: int, length: int, at_ns: int, call: Any, kind: int, numbers: Numbers) -> None:
        account, model = (0 if of == MODEL else call.account_id), (0 if of == ACCOUNT else call.model_id)
        so_far = found.setdefault((of, length, _period(at_ns, length), account, model, kind), [0] * len(NUMBERS))
        so_far[:] = map(sum, zip(so_far, numbers, strict=True))

    calls: dict[tuple[int, int], int] = {}
    for row in used:
        long = (row.account_id, _period(row.created_at_ns, sums.LONG))
        calls[long] = calls.get(long, 0) + 1
    for row in used:
        busy = calls[row.account_id, _period(row.created_at_ns, sums.LONG)] >= sums.BUSY_CALLS
        for of in (MODEL, ACCOUNT, BOTH):
            for length in (*sums.KEPT[of], *(sums.BUSY if busy and of == BOTH else ())):
                add(of, length, row.created_at_ns, row, USED, _numbers(row, row.cost, 1))

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


def expected(db: Database) -> Sums:
    """What `usage_sum` should hold."""
    return sums_of(db.read(lambda tx: tx.connection().execute(sa.text("SELECT * FROM entry ORDER BY id")).all()))


def kept(db: Database) -> Sums:
    """What `usage_sum` holds."""
    found: dict[Key, Numbers] = {}
    columns = ", ".join((*KEYS, "slot", *NUMBERS))
    for row in db.read(lambda tx: tx.connection().execute(sa.text(f"SELECT {columns} FROM usage_sum")).all()):
        key, slot, numbers = tuple(row[:6]), row[6], tuple(row[7:])
        assert slot == 0 or row.of == MODEL
        found[key] = tuple(map(sum, zip(found.get(key, (0,) * len(NUMBERS)), numbers, strict=True)))
    return {key: numbers for key, numbers in found.items() if any(numbers)}


def write(db: Database) -> None:
    """Make `usage_sum` what it should be."""
    rows = [(*key, 0, *numbers) for key, numbers in expected(db).items()]
    columns = (*KEYS, "slot", *NUMBERS)

    def put(tx: Transaction) -> None:
        tx.connection().execute(sa.text("DELETE FROM usage_sum"))
        if rows:
            tx.connection().execute(
                sa.text(f"INSERT INTO usage_sum ({', '.join(columns)}) VALUES (:{', :'.join(columns)})"),
                [dict(zip(columns, row, strict=True)) for row in rows],
            )

    db.write(put)
