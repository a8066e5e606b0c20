"""The sums of use: what is kept, and how what was used in any stretch of time is put together from it.

A period is `length` quarters of an hour. Of every model, whoever used it, periods of 15 minutes, 4 and 8 hours, a day and 8
days are kept; of every account, whatever it used, of 4 hours, a day, 8 days and 64 days; of every account and model, of 8 and
64 days, and only where an account made BUSY_CALLS calls within those 8 days, of 1, 2, 4 and 8 hours and a day as well:
whoever makes fewer has few entries to read. What reversals undo is rare, and kept in every length; entries that are no calls are
counted as an account's use is. Where sums don't reach, at the ends of a stretch, the entries themselves are added up, found by
their account and time.

A call of the quarter of an hour under way is added to one row alone, that of its account and model in `usage_open` (another entry
to that of its account): the rest would be ten pages of the file. Whoever writes an entry first after the quarter's end closes
it: adds its rows to all of the sums above (the next ones go on, where there are many). An account's rows are closed before that,
where one of them holds BUSY_CALLS calls. So what was used is what the sums hold and what is open, at any moment.
"""

import operator
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar

from .database import Transaction
from .models import ACCOUNT, BOTH, MODEL, OTHER, USAGE_SUMS, USED
from .money import Hao
from .tokens import KINDS, PRICED_IN_SQL, Tokens

QUARTER_NS = 900 * 10**9
LONG = 768
"""8 days, in which an account is busy or isn't."""
KEPT = {MODEL: (LONG, 96, 32, 16, 1), ACCOUNT: (8 * LONG, LONG, 96, 16), BOTH: (8 * LONG, LONG)}
"""The lengths that are always kept of what was used, and of an account's other entries."""
BUSY = (96, 32, 16, 8, 4)
"""And of BOTH for a busy account, within periods of LONG in which it is one."""
UNDONE = {
    MODEL: (LONG, 96, 32, 16, 1),
    ACCOUNT: (8 * LONG, LONG, 96, 16, 1),
    BOTH: (8 * LONG, LONG, 96, 32, 16, 8, 4, 1),
}
"""The lengths that are kept of what reversals undid."""
BUSY_CALLS = 2048
"""An account is busy in a period of LONG from so many calls on: `calls` of its sum of ACCOUNT, of kind USED."""
SHARED = {MODEL: (LONG, 16), ACCOUNT: (LONG, 16), BOTH: (LONG, 4)}
"""The lengths between whose periods a boundary of two stretches of time is read once for both: see _apart."""
CLOSED_AT_ONCE = 100
"""Accounts: a charge may take a few milliseconds more for it, but not the time of thousands."""
KEY = tuple(column.name for column in USAGE_SUMS.primary_key)
SUMS = tuple(column.name for column in USAGE_SUMS.columns if not column.primary_key)
"""What is summed up: `cost` and `upstream_cost` in 毫, `upstream_yuan` in 10⁻⁹ 元, calls, tokens."""

Key = tuple[int, ...]
Opened = dict[tuple[int, int, int], Sequence[int]]
"""What is added to SUMS of the quarter under way, by quarter, account and model."""
Kept = dict[tuple[int, int, int, int], Sequence[int]]
"""And of others, by quarter, account, model and kind."""
K = TypeVar("K")


# Writing


class Uses:
    """What a transaction adds to the sums, to be written when its entries are. `full`: accounts that it has locked and that have
    many open calls (see IS_FULL). `to_close`: whether quarters that have ended are still open (see TO_CLOSE); None: not known."""

    def __init__(self, tx: Transaction, full: Iterable[int] = (), to_close: bool | None = None) -> None:
        self._tx, self._full, self._to_close = tx, list(full), to_close
        self._now = tx.now_ns // QUARTER_NS
        self._opened: Opened = {}
        self._kept: Kept = {}

    def add(
        self,
        account_id: int,
        model_id: int,
        at_ns: int,
        cost: Hao,
        calls: int,
        tokens: Tokens,
        upstream_yuan: int | None,
        kind: int = USED,
    ) -> None:
        """Add a call (`calls` 1), or what was undone of one (-1), at a moment."""
        quarter, numbers = at_ns // QUARTER_NS, of_call(cost, calls, tokens, upstream_yuan)
        if quarter == self._now and kind == USED:
            plus(self._opened, (quarter, account_id, model_id), numbers)
        else:
            plus(self._kept, (quarter, account_id, model_id, kind), numbers)

    def add_other(self, account_id: int, at_ns: int, recharged: Hao) -> None:
        """Add an entry that is no call, and what it recharges or takes off a recharge, at a moment."""
        quarter, numbers = at_ns // QUARTER_NS, of_other(recharged)
        if quarter == self._now:
            plus(self._opened, (quarter, account_id, 0), numbers)
        else:
            plus(self._kept, (quarter, account_id, 0, OTHER), numbers)

    def write(self) -> None:
        """Add all of it to what is open and to the sums that are kept, and close what has ended."""
        tx, opened, kept = self._tx, self._opened, self._kept
        if self._to_close is None:
            ((self._to_close,),) = tx.rows(f"SELECT {TO_CLOSE.format('?')}", (self._now,))
        if self._to_close:
            _close(tx, self._now, {key[1] for key in (*opened, *kept)}, kept)
        if self._full:
            _take(tx, f"account_id IN ({_listed(self._full)})", (), kept)
        if kept:
            _keep(tx, kept, opened)
        _add(tx, _ADD_OPEN, [(*key, *opened[key]) for key in sorted(opened)])


_NOTHING = (0,) * (len(SUMS) - 2)


def recharged(type: str, model_id: int | None, amount: Hao) -> Hao:
    """What an entry that is no call recharges, or takes off a recharge: a reversal without a model undoes one."""
    return amount if type == "recharge" or (type == "reversal" and model_id is None) else 0


def of_other(recharged: Hao) -> tuple[int, ...]:
    """What such an entry adds to SUMS."""
    return (recharged, 1, *_NOTHING)


def _kind(model_id: int) -> int:
    """Of what is open."""
    return USED if model_id else OTHER


def of_call(cost: Hao, calls: int, tokens: Tokens, upstream_yuan: int | None) -> list[int]:
    """What a call (`calls` 1), or what was undone of one (-1), adds to SUMS."""
    extras = tokens.extras
    return [
        cost, calls, calls * tokens.prompt, calls * tokens.cached, calls * tokens.cache_creation,
        calls * tokens.completion, calls * tokens.reasoning,
        calls if extras is not None and extras.are_priced else 0,
        0 if upstream_yuan is None else calls * upstream_yuan, 0 if upstream_yuan is None else cost,
    ]  # fmt: skip


def plus(so_far: dict[K, Sequence[int]], key: K, numbers: Sequence[int]) -> None:
    """Add numbers to those of a key, which are as many."""
    known = so_far.get(key)
    so_far[key] = numbers if known is None else tuple(map(operator.add, known, numbers))


def _close(tx: Transaction, now: int, own: set[int], kept: Kept) -> None:
    """Take what is open of quarters that have ended, of CLOSED_AT_ONCE accounts. On Postgres an account's sums change with its row
    locked: of accounts other than the transaction's own, those that nobody else is writing to, and none where it goes on and would
    hold them for long."""
    if tx.is_sqlite:
        _take(tx, f"quarter < ? AND account_id IN ({_TO_BE_CLOSED} LIMIT {CLOSED_AT_ONCE})", (now, now), kept)
        return
    if tx.is_alone:
        free = (
            f"SELECT id FROM account WHERE id IN ({_TO_BE_CLOSED}) LIMIT {CLOSED_AT_ONCE} FOR NO KEY UPDATE SKIP LOCKED"
        )
        own |= {account for (account,) in tx.rows(free, (now,))}
    _take(tx, f"quarter < ? AND account_id IN ({_listed(own)})", (now,), kept)


_TO_BE_CLOSED = "SELECT DISTINCT account_id FROM usage_open WHERE quarter < ?"


def _take(tx: Transaction, which: str, parameters: Sequence[Any], kept: Kept) -> None:
    """Delete open rows, and add them to `kept`."""
    query = f"DELETE FROM usage_open WHERE {which} RETURNING {', '.join((*_OPEN_KEY, *SUMS))}"
    for quarter, account, model, *numbers in tx.rows(query, parameters):
        plus(kept, (quarter, account, model, _kind(model)), numbers)


def _keep(tx: Transaction, kept: Kept, opened: Opened) -> None:
    """Add to the sums that are kept. Of whoever becomes busy by it nothing stays open: its finer sums are what its entries say."""
    calls, became_busy = _busy(tx, kept)
    if became_busy:
        whose = {account for account, _period in became_busy}
        for key in [key for key in opened if key[1] in whose]:
            plus(kept, (*key, _kind(key[2])), opened.pop(key))
        _take(tx, f"account_id IN ({_listed(whose)})", (), kept)
        calls, became_busy = _busy(tx, kept)  # in other periods as well
    quarters: dict[Key, Sequence[int]] = {}
    for (quarter, account, model, kind), numbers in kept.items():
        plus(quarters, (ACCOUNT, quarter, account, 0, kind, 0), numbers)
        if kind != OTHER:
            plus(quarters, (MODEL, quarter, 0, model, kind, tx.slot), numbers)
            plus(quarters, (BOTH, quarter, account, model, kind, 0), numbers)
    rows: dict[Key, Sequence[int]] = {}
    for (of, quarter, who, what, kind, part), numbers in quarters.items():
        lengths = KEPT[of] if kind in (USED, OTHER) else UNDONE[of]
        if of == BOTH and kind == USED and calls.get((who, quarter // LONG), 0) >= BUSY_CALLS:
            lengths += BUSY
        for length in lengths:
            plus(rows, (of, length, quarter // length, who, what, kind, part), numbers)
    _add(tx, _ADD, [(*key, *rows[key]) for key in sorted(rows)])
    for account, period in became_busy:
        for length in BUSY:
            tx.rows(_BECAME_BUSY, (length, length * QUARTER_NS, account, *_span(LONG, period)))


def _busy(tx: Transaction, kept: Kept) -> tuple[dict[tuple[int, int], int], list[tuple[int, int]]]:
    """Of accounts in periods of LONG: the calls that their sums hold, and those that become busy by what is added."""
    more: dict[tuple[int, int], int] = {}
    for (quarter, account, _model, kind), (_cost, calls, *_tokens) in kept.items():
        if kind == USED:
            place = (account, quarter // LONG)
            more[place] = more.get(place, 0) + calls
    so_far = _calls(tx, more)
    return so_far, [
        place for place, calls in more.items() if so_far.get(place, 0) < BUSY_CALLS <= so_far.get(place, 0) + calls
    ]


def _add(tx: Transaction, query: str, rows: Sequence[Sequence[int]]) -> None:
    if tx.is_sqlite or not rows:
        tx.many(query, rows)
    else:  # many rows as an array a column take a tenth of the time
        columns = [f"{{{','.join(map(str, column))}}}" for column in zip(*rows, strict=True)]
        tx.many(_of_columns(query, len(columns)), [columns])


@lru_cache
def _of_columns(query: str, count: int) -> str:
    return _VALUES.sub(f"SELECT * FROM unnest({', '.join(['?::bigint[]'] * count)})", query)


def _adding(table: str, key: Sequence[str]) -> str:
    return (
        f"INSERT INTO {table} ({', '.join((*key, *SUMS))}) VALUES ({', '.join('?' * (len(key) + len(SUMS)))}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(f'{name} = {table}.{name} + excluded.{name}' for name in SUMS)}"
    )


_VALUES = re.compile(r"VALUES \(.*?\)")
_ADD = _adding("usage_sum", KEY)
_OPEN_KEY = ("quarter", "account_id", "model_id")
_ADD_OPEN = _adding("usage_open", _OPEN_KEY)
IS_FULL = "EXISTS (SELECT 1 FROM usage_open WHERE quarter = {} AND account_id = account.id AND calls >= {})"
"""SQL: whether an account has so many open calls of a model in a quarter (the first place) that it would be busy (BUSY_CALLS, in
the second), or as many other entries. While it isn't, its calls are read one by one."""
TO_CLOSE = "EXISTS (SELECT 1 FROM usage_open WHERE quarter < {})"
"""SQL: whether quarters that have ended are still open."""
_NUMBERS = ", ".join(f"%({name})s::bigint" for name in SUMS)
OPEN = _VALUES.sub(f"SELECT %(quarter)s::bigint, taken.id, %(model_id)s::bigint, {_NUMBERS} FROM taken", _ADD_OPEN)
"""SQL: adds a call to what is open, of the account `taken.id`, which is locked."""
_OF_ENTRIES = {
    "calls": "1",
    **{f"{kind}_tokens": f"coalesce(e.{kind}_tokens, 0)" for kind in KINDS},
    "priced_extras": f"CASE WHEN {PRICED_IN_SQL.format(extras='e.extras')} THEN 1 ELSE 0 END",
    "upstream_yuan": "coalesce(e.upstream_yuan, 0)",
    "upstream_cost": "CASE WHEN e.upstream_yuan IS NULL THEN 0 ELSE e.cost END",
}
"""What a call's entry adds to each sum."""
IS_CALL = "e.type IN ('deduct', 'settle')"
RECHARGED = "CASE WHEN e.type = 'recharge' OR e.type = 'reversal' AND e.model_id IS NULL THEN e.amount ELSE 0 END"
"""SQL for `recharged`."""
_OF_KIND = {USED: (IS_CALL, _OF_ENTRIES), OTHER: (f"NOT {IS_CALL}", {"calls": "1", "cost": RECHARGED})}


def _of_each(columns: Iterable[str], kind: int = USED) -> list[str]:
    """SQL: what an entry `e` adds to each of these sums."""
    of = _OF_KIND[kind][1]
    return [of.get(name, f"e.{name}") for name in columns]


_ADDED_UP = ", ".join(f"CAST(sum({number}) AS BIGINT)" for number in _of_each(SUMS))
_BECAME_BUSY = (
    f"INSERT INTO usage_sum (of, length, period, account_id, model_id, kind, slot, {', '.join(SUMS)}) "
    f"SELECT {BOTH}, ?, e.created_at_ns / ?, e.account_id, e.model_id, {USED}, 0, {_ADDED_UP} FROM entry e "
    f"WHERE e.account_id = ? AND e.created_at_ns >= ? AND e.created_at_ns < ? AND {IS_CALL} "
    "GROUP BY 3, e.account_id, e.model_id"
)


def _span(length: int, period: int) -> tuple[int, int]:
    """From when to when a period lasts, in ns."""
    return period * length * QUARTER_NS, (period + 1) * length * QUARTER_NS


def long_period(at_ns: int) -> int:
    """The period of LONG that a moment is in."""
    return at_ns // QUARTER_NS // LONG


def _calls(tx: Transaction, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """How many calls accounts made in periods of LONG, by account and period; none where there is no sum yet."""
    found: dict[tuple[int, int], int] = {}
    wanted = list(places)
    for start in range(0, len(wanted), 500):
        some = wanted[start : start + 500]
        listed = ", ".join(["(CAST(? AS BIGINT), CAST(? AS BIGINT))"] * len(some))
        query = (
            f"WITH wanted(account, number) AS (VALUES {listed}) SELECT account, number, s.calls FROM wanted "
            f"JOIN usage_sum s ON s.of = {ACCOUNT} AND s.length = {LONG} AND s.period = number "
            f"AND s.account_id = account AND s.model_id = 0 AND s.kind = {USED}"
        )
        found |= {
            (account, period): calls for account, period, calls in tx.rows(query, [n for one in some for n in one])
        }
    return found


# Reading


def used(
    tx: Transaction,
    spans: Sequence[tuple[int, int]],
    columns: Sequence[str],
    *,
    of: int,
    undone: int | None,
    accounts: Sequence[int] | None = None,
    models: Sequence[int] | None = None,
    kind: int = USED,
) -> "Found":
    """What was used between moments (ns, whole quarters of an hour): by the span's place, account (0 where `of` is MODEL) and
    model (0 where it is ACCOUNT), the sums `columns`. `undone`: the kind of sums that say what reversals undid; None: calls
    count whatever was undone. Only of `accounts` and `models`, where they are given. Of `kind` OTHER it is what models.OTHER says,
    by ACCOUNT."""
    newest, longest = _newest(tx, kind), KEPT[of][0]
    own, others = _apart([(start // QUARTER_NS, end // QUARTER_NS) for start, end in spans], SHARED[of])
    reading = _Reading(tx, columns, of, accounts, models, kind)
    kinds, asked = () if undone is None else (undone,), []
    for sign, some in ((1, own), (-1, others)):
        # After an end that nothing comes after, a long period says the same.
        quarters = [(place, start, -(-end // longest) * longest if end > newest else end) for place, start, end in some]
        sums, rest = _cut(quarters, KEPT[of])
        middles: list[_Span] = []
        if of == BOTH:
            ends = [part for span in rest for part in _split(*span)]
            more, rest = _cut(ends, BUSY)
            sums += more
            shortest = BUSY[-1]
            middles = [
                (place, -(-start // shortest) * shortest, end // shortest * shortest) for place, start, end in ends
            ]
            reading.calls(sign, middles, busy=False)
        reading.calls(sign, rest)
        reading.sums(sign, sums, (kind, *kinds))
        if kinds:
            reading.sums(sign, _cut(rest, (1,))[0], kinds)
        asked.append((sign, quarters, rest, middles))
    return reading.found(asked)


def _apart(spans: Sequence[tuple[int, int]], lengths: Sequence[int]) -> tuple[list["_Span"], list["_Span"]]:
    """Spans (from, to, in quarters) as (place, from, to) of which some are to be taken off the others: those of the second list.
    A boundary of two neighbours is where the nearest period begins, of the longest of the `lengths` that fits into
    both, and what lies between is added to the one and taken off the other: less than both sides of the boundary, up to where their
    periods begin."""
    own, others = [(place, *span) for place, span in enumerate(spans)], []
    for place, (one, other) in enumerate(pairwise(spans)):
        boundary, shorter = one[1], min(one[1] - one[0], other[1] - other[0])
        length = next((length for length in lengths if length <= shorter), 0)
        if boundary != other[0] or not length:
            continue
        begins = (boundary + length // 2) // length * length
        own[place], own[place + 1] = (place, own[place][1], begins), (place + 1, begins, other[1])
        if begins != boundary:
            has, lacks = (place, place + 1) if begins < boundary else (place + 1, place)
            start, end = min(begins, boundary), max(begins, boundary)
            own.append((has, start, end))
            others.append((lacks, start, end))
    return own, others


def _newest(tx: Transaction, kind: int) -> int:
    """A quarter of an hour after which there is nothing: the last one that is told apart."""
    of, length = (MODEL, KEPT[MODEL][-1]) if kind == USED else (ACCOUNT, KEPT[ACCOUNT][-1])
    closed = f"SELECT period FROM usage_sum WHERE of = {of} AND length = {length} ORDER BY period DESC LIMIT 1"
    ((period, opened),) = tx.rows(f"SELECT ({closed}), (SELECT max(quarter) FROM usage_open)")
    opened = 0 if opened is None else opened // length
    return (max(0 if period is None else int(period), opened) + 1) * length - 1


Found = dict[tuple[int, int, int], Sequence[int]]
"""Sums by the place of a span, an account and a model."""
_Span = tuple[int, int, int]
_Asked = tuple[int, Sequence[_Span], Sequence[_Span], Sequence[_Span]]
"""Whether spans are added (1) or taken off (-1), and the spans; those within which all calls have been read; and those within
which the calls of accounts that aren't busy have been."""
_APART = 2**40
"""More than there are accounts or models: place × _APART + number is both in one, which SQLite sorts more quickly than two."""
_IS_BUSY = (
    f"EXISTS (SELECT 1 FROM usage_sum b WHERE b.of = {ACCOUNT} AND b.length = {LONG} AND b.period = {{period}} "
    f"AND b.account_id = {{account}} AND b.model_id = 0 AND b.kind = {USED} AND b.calls >= {{calls}}{{alone}})"
)


class _Reading:
    """One question, of which the parts are put together to one statement; see used."""

    def __init__(
        self,
        tx: Transaction,
        columns: Sequence[str],
        of: int,
        accounts: Sequence[int] | None,
        models: Sequence[int] | None,
        kind: int,
    ) -> None:
        self._tx, self._columns, self._of, self._kind = tx, columns, of, kind
        self._accounts, self._models = None if of == MODEL else accounts, models
        self._one: int | None = 0
        """The account in what is found, where it is the same in all."""
        if of == BOTH:
            self._one = accounts[0] if accounts is not None and len(accounts) == 1 else None
        self._pieces: list[str] = []
        self._parts: list[str] = []

    def sums(self, sign: int, periods: Sequence[_Span], kinds: tuple[int, ...]) -> None:
        """Add (`sign` 1) or take off (-1) what the sums of periods (place, length, period) hold."""
        nobody = " AND s.account_id = 0" if self._of == MODEL else ""
        only = _among("s.account_id", self._accounts) + _among("s.model_id", self._models)
        self._add(
            sign, periods, "long, number", ("s.account_id", "s.model_id"), [f"s.{name}" for name in self._columns], "", "usage_sum s",
            f"s.of = {self._of} AND s.length = long AND s.period = number{nobody} AND s.kind IN ({_listed(kinds)}){only}",
        )  # fmt: skip

    def calls(self, sign: int, spans: Iterable[_Span], *, busy: bool = True) -> None:
        """The same of the calls, or other entries, within spans (place, from, to, in quarters); but for those of `busy` accounts,
        where that is False."""
        self._add(
            sign, [span for span in spans if span[1] < span[2]], "start, until",
            ("a.id", "e.model_id"), _of_each(self._columns, self._kind), " CROSS JOIN account a", "entry e",
            f"e.account_id = a.id AND e.created_at_ns >= start * {QUARTER_NS} AND e.created_at_ns < until * {QUARTER_NS} "
            f"AND {_OF_KIND[self._kind][0]}{_among('e.model_id', self._models)}",
            _among("a.id", self._accounts) + ("" if busy else f" AND NOT {self._is_busy(f'start / {LONG}', 'a.id')}"),
        )  # fmt: skip

    def _is_busy(self, period: str, account: str) -> str:
        return _IS_BUSY.format(period=period, account=account, calls=BUSY_CALLS, alone=_alone(self._tx))

    def _add(
        self, sign: int, pieces: Sequence[_Span], names: str, of: tuple[str, str], numbers: Iterable[str], joined: str, table: str,
        which: str, where: str = "",
    ) -> None:  # fmt: skip
        """`numbers`, by place and `of` whom and which model, of those rows of a `table` that belong to each piece (place and `names`)."""
        if not pieces:
            return
        piece = f"piece{len(self._pieces)}"
        self._pieces.append(f"{piece}(place, {names}) AS (VALUES {_values(pieces)})")
        account, model = of
        key = f"place * {_APART} + {account if self._of == ACCOUNT else model}"
        whose = f"{account} AS whose, " if self._one is None else ""
        columns = ", ".join(f"{'-' if sign < 0 else ''}{one} AS n{place}" for place, one in enumerate(numbers))
        source = looked_up(self._tx, f"{piece}{joined}", table, which)
        self._parts.append(f"SELECT {key} AS number, {whose}{columns} FROM {source}{where}")

    def found(self, asked: Sequence[_Asked]) -> Found:
        """All of it added up, with what is open within what was asked."""
        found: Found = {}
        if self._parts:
            numbers = ", ".join(f"CAST(sum(n{place}) AS BIGINT)" for place in range(len(self._columns)))
            by = ", whose" if self._one is None else ""
            rows = self._tx.rows(
                f"WITH {', '.join(self._pieces)} SELECT number / {_APART}, {'whose' if self._one is None else self._one}, "
                f"number % {_APART}, {numbers} "
                f"FROM ({' UNION ALL '.join(self._parts)}) AS part GROUP BY number{by}"
            )
            if self._of == ACCOUNT:
                found = {(row[0], row[2], 0): row[3:] for row in rows}
            else:
                found = {row[:3]: row[3:] for row in rows}
        if any(spans for _sign, spans, _called, _if_idle in asked):
            self._add_open(found, asked)
        return found

    def _add_open(self, found: Found, asked: Iterable[_Asked]) -> None:
        account, model, busy, by = "account_id", "model_id", "TRUE", " GROUP BY 1, 3, 4"
        numbers = ", ".join(f"CAST(sum({name}) AS BIGINT)" for name in self._columns)
        if self._of == MODEL:
            account = "0"
        elif self._of == ACCOUNT:
            model = "0"
        else:
            busy, numbers, by = (
                self._is_busy(f"usage_open.quarter / {LONG}", "usage_open.account_id"),
                ", ".join(self._columns),
                "",
            )
        every = [span for _sign, spans, _called, _if_idle in asked for span in spans]
        rows = self._tx.rows(
            f"SELECT quarter, {busy}, {account}, {model}, {numbers} FROM usage_open WHERE quarter >= ? AND quarter < ? "
            f"AND model_id {'>' if self._kind == USED else '='} 0{_among('account_id', self._accounts)}{_among('model_id', self._models)}{by}",
            (min(start for _place, start, _end in every), max(end for _place, _start, end in every)),
        )
        places: dict[tuple[int, bool], list[tuple[int, int]]] = {}
        for quarter, is_busy, account_id, model_id, *more in rows:
            if (quarter, is_busy) not in places:
                places[quarter, is_busy] = [
                    (sign, place)
                    for sign, spans, called, if_idle in asked
                    for place in _places(spans, quarter)
                    - _places(called, quarter)
                    - (set() if is_busy else _places(if_idle, quarter))
                ]
            for sign, place in places[quarter, is_busy]:
                plus(found, (place, account_id, model_id), tuple(sign * number for number in more))


def _places(spans: Iterable[_Span], quarter: int) -> set[int]:
    """Of those spans (place, from, to, in quarters) that a quarter lies in."""
    return {place for place, start, end in spans if start <= quarter < end}


def looked_up(tx: Transaction, each: str, table: str, which: str) -> str:
    """What follows FROM, for those rows of a `table` (with a letter as its alias) that belong to `each` row before it."""
    if tx.is_sqlite:  # which keeps to this order
        return f"{each} CROSS JOIN {table} WHERE {which}"
    return f"{each} CROSS JOIN LATERAL (SELECT * FROM {table} WHERE {which}{_alone(tx)}) {table[-1]} WHERE true"


def _alone(tx: Transaction) -> str:
    """At the end of a subquery: makes Postgres ask it for each row. It can't see how few rows that finds, and would rather read
    all that there is."""
    return "" if tx.is_sqlite else " OFFSET 0"


def _among(column: str, numbers: Sequence[int] | None) -> str:
    return "" if numbers is None else f" AND {column} IN ({_listed(numbers)})"


def _values(rows: Iterable[_Span]) -> str:
    return ", ".join(f"({one}, {two}, {three})" for one, two, three in rows)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers) or "NULL"


def _cut(
    spans: Iterable[tuple[int, int, int]], lengths: Sequence[int]
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Spans (place, from, to, in quarters) as whole periods (place, length, period), and the spans that are left over."""
    whole: list[tuple[int, int, int]] = []
    left = list(spans)
    for length in lengths:
        still: list[tuple[int, int, int]] = []
        for place, start, end in left:
            first, last = -(-start // length), end // length
            if first < last:
                whole += ((place, length, period) for period in range(first, last))
                still += ((place, start, first * length), (place, last * length, end))
            else:
                still.append((place, start, end))
        left = [span for span in still if span[1] < span[2]]
    return whole, left


def _split(place: int, start: int, end: int) -> list[tuple[int, int, int]]:
    """A span, shorter than twice LONG, cut where a period of LONG ends."""
    middle = (start // LONG + 1) * LONG
    return [(place, start, end)] if end <= middle else [(place, start, middle), (place, middle, end)]
