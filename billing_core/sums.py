"""The sums of use: what is kept, and how what was used in any stretch of time is put together from it.

A period is `length` quarters of an hour. Of every model, whoever used it, periods of 15 minutes, 4 hours, a day and 8 days
are kept; of every account, whatever it used, of 4 hours, a day, 8 days and 64 days; of every account and model, of 8 days, and
only where an account made BUSY_CALLS calls within those 8 days, of an hour, 4 hours and a day as well: whoever makes fewer has
few entries to read. What reversals undo is rare, and kept in every length. Where sums don't reach, at the ends of a stretch,
the calls themselves are added up, found by their account and time.
"""

import operator
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from .database import Transaction, marks
from .models import ACCOUNT, BOTH, MODEL, USAGE_SUMS, USED
from .money import Hao
from .tokens import KINDS, PRICED_IN_SQL, Tokens

QUARTER_NS = 900 * 10**9
LONG = 768
"""8 days, in which an account is busy or isn't."""
KEPT = {MODEL: (LONG, 96, 16, 1), ACCOUNT: (8 * LONG, LONG, 96, 16), BOTH: (LONG,)}
"""The lengths that are always kept of what was used."""
BUSY = (96, 16, 4)
"""And of BOTH for a busy account, within periods of LONG in which it is one."""
UNDONE = {MODEL: (LONG, 96, 16, 1), ACCOUNT: (8 * LONG, LONG, 96, 16, 1), BOTH: (LONG, 96, 16, 4, 1)}
"""The lengths that are kept of what reversals undid."""
BUSY_CALLS = 2048
"""An account is busy in a period of LONG from so many calls on: `calls` of its sum of ACCOUNT, of kind USED."""
KEY = tuple(column.name for column in USAGE_SUMS.primary_key)
SUMS = tuple(column.name for column in USAGE_SUMS.columns if not column.primary_key)
"""What is summed up: `cost` and `upstream_cost` in 毫, `upstream_yuan` in 10⁻⁹ 元, calls, tokens."""

Key = tuple[int, ...]
K = TypeVar("K")


# Writing


class Uses:
    """What a transaction adds to the sums, to be written when its entries are. `known`: what calls_now found, in it, of the
    accounts in the period `now`."""

    def __init__(self, now: int | None = None, known: Iterable[tuple[int, int]] = ()) -> None:
        self._added: dict[Key, Sequence[int]] = {}
        """By account, model, quarter of an hour and kind."""
        self._now = now
        self._known = {(account, now): calls for account, calls in known if now is not None}

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
        plus(
            self._added, (account_id, model_id, at_ns // QUARTER_NS, kind), of_call(cost, calls, tokens, upstream_yuan)
        )

    def write(self, tx: Transaction) -> None:
        """Add all of it to the sums that are kept."""
        made: dict[tuple[int, int], int] = {}
        for (account, _model, quarter, kind), (_cost, calls, *_tokens) in self._added.items():
            if kind == USED:
                place = (account, quarter // LONG)
                made[place] = made.get(place, 0) + calls
        before = self._known | _calls(tx, [place for place in made if place[1] != self._now])
        quarters: dict[Key, Sequence[int]] = {
            (BOTH, quarter, account, model, kind, 0): numbers
            for (account, model, quarter, kind), numbers in self._added.items()
        }
        for (account, model, quarter, kind), numbers in self._added.items():
            plus(quarters, (MODEL, quarter, 0, model, kind, tx.slot), numbers)
            plus(quarters, (ACCOUNT, quarter, account, 0, kind, 0), numbers)
        rows: dict[Key, Sequence[int]] = {}
        for (of, quarter, who, what, kind, part), numbers in quarters.items():
            lengths = KEPT[of] if kind == USED else UNDONE[of]
            if of == BOTH and kind == USED and before.get((who, quarter // LONG), 0) >= BUSY_CALLS:
                lengths += BUSY
            for length in lengths:
                plus(rows, (of, length, quarter // length, who, what, kind, part), numbers)
        every = [(*key, *rows[key]) for key in sorted(rows)]
        if tx.is_sqlite:
            tx.many(_ADD, every)
        elif every:
            tx.many(_ADD_COLUMNS, [[f"{{{','.join(map(str, column))}}}" for column in zip(*every, strict=True)]])
        for (account, period), calls in made.items():
            if before.get((account, period), 0) < BUSY_CALLS <= before.get((account, period), 0) + calls:
                for length in BUSY:
                    tx.rows(_BECAME_BUSY, (length, length * QUARTER_NS, account, *_span(LONG, period)))


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


_ADD = (
    f"INSERT INTO usage_sum ({', '.join((*KEY, *SUMS))}) VALUES ({', '.join('?' * len(KEY + SUMS))}) "
    f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {', '.join(f'{name} = usage_sum.{name} + excluded.{name}' for name in SUMS)}"
)
_ADD_COLUMNS = re.sub(r"VALUES \(.*?\)", f"SELECT * FROM unnest({', '.join(['?::bigint[]'] * len(KEY + SUMS))})", _ADD)
"""The same on Postgres, which takes many rows as an array a column in a tenth of the time."""
_ADD_SELECTED = re.sub(r"VALUES \(.*?\)", "{}", _ADD)
_NUMBERS = ", ".join(f"%({name})s::bigint" for name in SUMS)
_TO_ACCOUNT = (
    f"SELECT {ACCOUNT}, long, %(quarter)s::bigint / long, taken.id, 0, {USED}, 0, {_NUMBERS} "
    f"FROM taken CROSS JOIN (VALUES {', '.join(f'({long})' for long in KEPT[ACCOUNT])}) AS kept(long)"
)
_TO_OTHERS = (
    f"SELECT what, long, %(quarter)s::bigint / long, CASE what WHEN {MODEL} THEN 0 ELSE taken.id END, %(model_id)s::bigint, "
    f"{USED}, CASE what WHEN {MODEL} THEN %(slot)s::bigint ELSE 0 END, {_NUMBERS} "
    f"FROM taken JOIN account_sums ON account_sums.length = {LONG} JOIN (VALUES "
    + ", ".join(
        [f"({of}, {long}, 0)" for of in (MODEL, BOTH) for long in KEPT[of]] + [f"({BOTH}, {long}, 1)" for long in BUSY]
    )
    + ") AS kept(what, long, if_busy) ON if_busy = 0 OR account_sums.calls > %(busy_calls)s"
)
AT_ONCE = f"""
account_sums AS (
    {_ADD_SELECTED.format(_TO_ACCOUNT)} RETURNING length, calls
), other_sums AS (
    {_ADD_SELECTED.format(_TO_OTHERS)}
)"""
"""What adds a call to the sums within a statement on Postgres: of the account `taken.id`, which it has locked. Whoever becomes
busy by it is found by `account_sums.calls`."""
_OF_ENTRIES = {
    "calls": "1",
    **{f"{kind}_tokens": f"coalesce(e.{kind}_tokens, 0)" for kind in KINDS},
    "priced_extras": f"CASE WHEN {PRICED_IN_SQL.format(extras='e.extras')} THEN 1 ELSE 0 END",
    "upstream_yuan": "coalesce(e.upstream_yuan, 0)",
    "upstream_cost": "CASE WHEN e.upstream_yuan IS NULL THEN 0 ELSE e.cost END",
}
"""What a call's entry adds to each sum."""


def _sums_of_entries(columns: Iterable[str]) -> str:
    return ", ".join(f"CAST(sum({_OF_ENTRIES.get(name, f'e.{name}')}) AS BIGINT)" for name in columns)


_BECAME_BUSY = (
    f"INSERT INTO usage_sum (of, length, period, account_id, model_id, kind, slot, {', '.join(SUMS)}) "
    f"SELECT {BOTH}, ?, e.created_at_ns / ?, e.account_id, e.model_id, {USED}, 0, {_sums_of_entries(SUMS)} FROM entry e "
    "WHERE e.account_id = ? AND e.created_at_ns >= ? AND e.created_at_ns < ? AND e.type IN ('deduct', 'settle') "
    "GROUP BY 3, e.account_id, e.model_id"
)


def _span(length: int, period: int) -> tuple[int, int]:
    """From when to when a period lasts, in ns."""
    return period * length * QUARTER_NS, (period + 1) * length * QUARTER_NS


def long_period(at_ns: int) -> int:
    """The period of LONG that a moment is in."""
    return at_ns // QUARTER_NS // LONG


def calls_now(period: int, user_ids: Sequence[str]) -> tuple[str, Sequence[Any]]:
    """What to ask for the calls of accounts in a period of LONG: by account, none where there is no sum yet."""
    return (
        f"SELECT s.account_id, s.calls FROM account a JOIN usage_sum s ON s.of = {ACCOUNT} AND s.length = {LONG} "
        f"AND s.period = ? AND s.account_id = a.id AND s.model_id = 0 AND s.kind = {USED} "
        f"WHERE a.user_id IN ({marks(len(user_ids))})",
        (period, *user_ids),
    )


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
) -> "Found":
    """What was used between moments (ns, whole quarters of an hour): by the span's place, account (0 where `of` is MODEL) and
    model (0 where it is ACCOUNT), the sums `columns`. `undone`: the kind of sums that say what reversals undid; None: calls
    count whatever was undone. Only of `accounts` and `models`, where they are given."""
    quarters = [(place, start // QUARTER_NS, end // QUARTER_NS) for place, (start, end) in enumerate(spans)]
    reading = _Reading(tx, columns, of, accounts, models)
    sums, rest = _cut(quarters, KEPT[of])
    if of == BOTH:
        ends = [part for span in rest for part in _split(*span)]
        more, rest = _cut(ends, BUSY)
        sums += more
        shortest = BUSY[-1]
        middles = [(place, -(-start // shortest) * shortest, end // shortest * shortest) for place, start, end in ends]
        reading.calls(middles, _NOT_BUSY)
    reading.calls(rest)
    kinds = () if undone is None else (undone,)
    reading.sums(sums, (USED, *kinds))
    if kinds:
        quarters_left, _none = _cut(rest, (1,))
        reading.sums(quarters_left, kinds)
    return reading.found


Found = dict[tuple[int, int, int], Sequence[int]]
"""Sums by the place of a span, an account and a model."""
_Span = tuple[int, int, int]
_APART = 2**40
"""More than there are accounts or models: place × _APART + number is both in one, which SQLite sorts more quickly than two."""
_NOT_BUSY = (
    f" AND NOT EXISTS (SELECT 1 FROM usage_sum b WHERE b.of = {ACCOUNT} AND b.length = {LONG} "
    f"AND b.period = start / {LONG * QUARTER_NS} AND b.account_id = a.id AND b.model_id = 0 AND b.kind = {USED} "
    "AND b.calls >= {busy}{alone})"
)


class _Reading:
    """One question, and what is found for it; see used."""

    def __init__(
        self,
        tx: Transaction,
        columns: Sequence[str],
        of: int,
        accounts: Sequence[int] | None,
        models: Sequence[int] | None,
    ) -> None:
        self.found: Found = {}
        self._tx, self._columns, self._of = tx, columns, of
        self._accounts, self._models = None if of == MODEL else accounts, models
        self._one: int | None = 0
        """The account in what is found, where it is the same in all."""
        if of == BOTH:
            self._one = accounts[0] if accounts is not None and len(accounts) == 1 else None

    def sums(self, periods: Sequence[_Span], kinds: tuple[int, ...]) -> None:
        """Add what the sums of periods (place, length, period) hold."""
        if periods:
            nobody = " AND s.account_id = 0" if self._of == MODEL else ""
            only = _among("s.account_id", self._accounts) + _among("s.model_id", self._models)
            self._add(
                f"piece(place, long, number) AS (VALUES {_values(periods)})",
                ("s.account_id", "s.model_id"), ", ".join(f"CAST(sum(s.{name}) AS BIGINT)" for name in self._columns),
                "piece", "usage_sum s",
                f"s.of = {self._of} AND s.length = long AND s.period = number{nobody} AND s.kind IN ({_listed(kinds)}){only}",
            )  # fmt: skip

    def calls(self, spans: Iterable[_Span], unless: str = "") -> None:
        """Add what the calls within spans (place, from, to, in quarters) used."""
        pieces = [(place, start * QUARTER_NS, end * QUARTER_NS) for place, start, end in spans if start < end]
        if pieces:
            self._add(
                f"piece(place, start, until) AS (VALUES {_values(pieces)})",
                ("a.id", "e.model_id"), _sums_of_entries(self._columns),
                "piece CROSS JOIN account a", "entry e",
                "e.account_id = a.id AND e.created_at_ns >= start AND e.created_at_ns < until "
                f"AND e.type IN ('deduct', 'settle'){_among('e.model_id', self._models)}",
                _among("a.id", self._accounts) + unless.format(busy=BUSY_CALLS, alone=_alone(self._tx)),
            )  # fmt: skip

    def _add(
        self, pieces: str, of: tuple[str, str], numbers: str, each: str, table: str, which: str, where: str = ""
    ) -> None:
        """Add `numbers`, by place and `of` whom and which model, of those rows of a `table` that belong to `each` piece."""
        account, model = of
        key = f"place * {_APART} + {account if self._of == ACCOUNT else model}"
        whose, by = (account, "1, 2") if self._one is None else (self._one, "1")
        for row in self._tx.rows(
            f"WITH {pieces} SELECT {key}, {whose}, {numbers} FROM {looked_up(self._tx, each, table, which)}{where} GROUP BY {by}"
        ):
            place, number = divmod(row[0], _APART)
            plus(self.found, (place, number, 0) if self._of == ACCOUNT else (place, row[1], number), row[2:])


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
