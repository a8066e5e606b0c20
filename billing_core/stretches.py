"""What each sealed stretch of the ledger holds, so that a page of the log jumps over stretches that hold nothing of what is
asked for.

For a stretch, which a seal closes for good, a row of `stretch` keeps its first and last entry and its earliest and latest
moment. A row of `stretch_holds` keeps how many entries there are of a model, of a type, or with a remark, what they come to,
and which ones they are, where they are few: about a byte an entry, all in all. They are filled beside the charges, once a
stretch is sealed; what comes after the last one is read directly. `check` proves them against the entries.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import seals
from .database import Database, Transaction
from .money import Hao

AT_ONCE = 50
"""How many stretches are written in one transaction at most."""
FEW = 16
"""Up to so many entries of a kind in a stretch are listed; to find a page of more, few entries have to be read."""
REMARKED = 0
"""In `stretch_holds.what`: entries with a remark. Above it are models' numbers, below it types (see TYPES)."""
TYPES = {
    "deduct": -1, "precharge": -2, "settle": -3, "refund": -4, "expire": -5, "recharge": -6, "reversal": -7,
}  # fmt: skip
MANY_CUT = 50
"""Of more stretches that are cut by a moment, apart from each other, no sums are used."""
SPAN, LONGER = 16, 512
"""How many stretches are looked for at once: at first, and then. Where entries are listed, four times as many entries."""

Held = tuple[int, int, int, str | None, Hao, Hao]
"""A row of `stretch_holds`: what, number, how many entries, their distances from the first entry, or None, and what was consumed
and recharged by them."""
CONSUMING = ("deduct", "settle", "reversal")
"""The types whose cost is consumption."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A row of `stretch`. Times in ns since the epoch."""

    number: int
    """That of the seal."""
    first_id: int
    last_id: int
    upto: int
    """How many entries there are up to its last one."""
    from_ns: int
    to_ns: int
    latest_ns: int
    """The latest moment of this stretch and all before it."""


_STRETCH = "number, first_id, last_id, upto, from_ns, to_ns, latest_ns"
_HELD = "what, number, entries, ids, consumed, recharged"


def contents(number: int, rows: Sequence[Sequence[Any]], before: Stretch | None) -> tuple[Stretch, list[Held]]:
    """What is kept of a stretch: of rows of seals.COLUMNS, by id; `before` is the stretch before."""
    first, places, moments = rows[0][0], dict[int, list[int]](), []
    consumed, recharged = dict[int, Hao](), dict[int, Hao]()
    for row in rows:
        place, type, model = row[0] - first, row[2], row[6]
        kinds = [TYPES[type]]
        if model is not None:
            kinds.append(model)
        if row[16] is not None:
            kinds.append(REMARKED)
        for kind in kinds:
            places.setdefault(kind, []).append(place)
            if type in CONSUMING:
                consumed[kind] = consumed.get(kind, 0) + row[5]
            if type == "recharge" or (type == "reversal" and model is None):  # which undoes a recharge
                recharged[kind] = recharged.get(kind, 0) + row[3]
        moments.append(row[17])
        if row[20] is not None and row[18] is not None:  # a repricing's charge is shown at its own moment to a member
            moments.append(row[18])
    latest = max(moments)
    upto, latest_before = (before.upto, before.latest_ns) if before else (0, latest)
    whole = Stretch(number, first, rows[-1][0], upto + len(rows), min(moments), latest, max(latest, latest_before))
    held = [
        (
            what, number, len(found), ",".join(map(str, found)) if len(found) <= FEW else None,
            consumed.get(what, 0), recharged.get(what, 0),
        )
        for what, found in sorted(places.items())
    ]  # fmt: skip
    return whole, held


# Writing


def fill(db: Database) -> int:
    """Keep what the stretches hold that were sealed meanwhile; how many. Raises DatabaseUnavailable."""
    made = 0
    while True:
        after, found = db.read(_next)
        if not found:
            return made
        if db.write(_keep, after, found):
            made += len(found)


_SEALS = "SELECT number, last_entry_id FROM seal WHERE number > ? ORDER BY number LIMIT ?"
ENTRIES = f"SELECT {seals.COLUMNS} FROM entry WHERE id > ? AND id <= ? ORDER BY id"


def newest(tx: Transaction) -> Stretch | None:
    rows = tx.rows(f"SELECT {_STRETCH} FROM stretch ORDER BY number DESC LIMIT 1")
    return Stretch(*rows[0]) if rows else None


def _next(tx: Transaction) -> tuple[int, list[tuple[Stretch, list[Held]]]]:
    known = newest(tx)
    number, before, found = known.number if known else 0, known, []
    for seal, last in tx.rows(_SEALS, (number, AT_ONCE)):
        one = contents(seal, tx.rows(ENTRIES, (before.last_id if before else 0, last)), before)
        before = one[0]
        found.append(one)
    return number, found


def _keep(tx: Transaction, after: int, found: list[tuple[Stretch, list[Held]]]) -> bool:
    """Write the stretches that come after number `after`, unless somebody else has."""
    known = newest(tx)
    if (known.number if known else 0) != after:
        return False
    one = [(s.number, s.first_id, s.last_id, s.upto, s.from_ns, s.to_ns, s.latest_ns) for s, _ in found]
    tx.many(f"INSERT INTO stretch ({_STRETCH}) VALUES (?, ?, ?, ?, ?, ?, ?)", one)
    tx.many(
        f"INSERT INTO stretch_holds ({_HELD}) VALUES (?, ?, ?, ?, ?, ?)",
        sorted(row for _, held in found for row in held),
    )
    return True


# Reading


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page looks for: entries of any of each of `kinds` (numbers of what they are), and between two moments. None
    or () is all."""

    kinds: tuple[tuple[int, ...], ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None
    before: int | None = None
    """Only entries with a smaller number."""
    after: int | None = None
    """Only entries with a larger number."""


@dataclass(frozen=True, slots=True)
class Window:
    """Entries that may be wanted: those of `ids`, else from `first` to `last` (None: all that follow). Nothing else
    between the windows is wanted."""

    first: int
    last: int | None
    ids: list[int] | None = None
    count: int | None = None
    """How many entries of `kinds` there are in it; None where that isn't known."""


def windows(tx: Transaction, wanted: Wanted, *, oldest_first: bool = False, counted: bool = False) -> Iterator[Window]:
    """Where to look, newest first (or `oldest_first`), none of them twice. `counted`: a window a stretch, with its count."""
    known = newest(tx)
    if known is None:
        yield Window(-(2**63), None)
        return
    following = Window(known.last_id + 1, None)
    found = _windows(_candidates(tx, wanted, known, oldest_first, counted), single=counted)
    if oldest_first:
        yield from found
        yield following
        return
    first = next(found, None)
    if first is not None and first.ids is None and first.last == known.last_id and not counted:
        yield Window(first.first, None)  # at one go with what follows
    else:
        if _may_hold(tx, following, wanted):
            yield following
        if first is not None:
            yield first
    yield from found


def listed(ids: Sequence[int]) -> Iterator[Window]:
    """The entries of these numbers, in their order: few at first, as a page may be full with them."""
    most = SPAN * 4
    while ids:
        some, ids, most = ids[:most], ids[most:], most * 4
        yield Window(min(some), max(some), list(some))


def _may_hold(tx: Transaction, following: Window, wanted: Wanted) -> bool:
    """Whether what isn't noted yet holds any of what is wanted: to look at the few entries is quicker than to ask for a page
    of them."""
    where, asked = ["id >= ?"], [following.first]
    for kinds in wanted.kinds:
        types = [name for name, what in TYPES.items() if what in kinds]
        if types:
            where.append(f"type IN ({', '.join(map(repr, types))})")
        elif kinds == (REMARKED,):
            where.append("remark IS NOT NULL")
        else:
            where.append("model_id = ?")
            asked += kinds
    for moment, sign in ((wanted.start_ns, ">="), (wanted.end_ns, "<")):
        if moment is not None:
            where.append(f"(created_at_ns {sign} ? OR recorded_at_ns {sign} ?)")
            asked += [moment, moment]
    return bool(tx.rows(f"SELECT 1 FROM entry WHERE {' AND '.join(where)} LIMIT 1", asked))


def skipped(tx: Transaction, count: int) -> tuple[int, int]:
    """The number before which lie all entries but the `count` newest, or some more; and how many more."""
    known = newest(tx)
    if known is None:
        return 2**63 - 1, count
    ((following,),) = tx.rows("SELECT count(*) FROM entry WHERE id > ?", (known.last_id,))
    if count < following:
        return 2**63 - 1, count
    left = max(known.upto - (count - following), 0)
    ((last, upto),) = tx.rows("SELECT last_id, upto FROM stretch WHERE upto >= ? ORDER BY upto LIMIT 1", (left,))
    return last + 1, upto - left if left else count


def span(tx: Transaction, start_ns: int | None, end_ns: int | None) -> list[Window]:
    """The windows outside of which nothing happened between two moments: one that is sealed, and what follows."""
    known = newest(tx)
    if known is None or (start_ns is None and end_ns is None):
        return [Window(-(2**63), None)]
    low, high = _numbers(tx, Wanted(start_ns=start_ns, end_ns=end_ns), known)
    ends = tx.rows("SELECT min(first_id), max(last_id) FROM stretch WHERE number >= ? AND number <= ?", (low, high))
    found = [Window(first, last) for first, last in ends if first is not None]
    return [*found, Window(known.last_id + 1, None)]


def totals(
    tx: Transaction, start_ns: int | None, end_ns: int | None, kinds: Sequence[int] = ()
) -> tuple[tuple[int, Hao, Hao], list[Window]]:
    """How many entries of `kinds` there are, all of types or all of models (all entries, without any), in the stretches that
    lie between two moments as a whole, and what was consumed and recharged by them; and where else such entries may lie."""
    known = newest(tx)
    if known is None:
        return (0, 0, 0), [Window(-(2**63), None)]
    low, high = _numbers(tx, Wanted(start_ns=start_ns, end_ns=end_ns), known)
    start, end = -(2**63) if start_ns is None else start_ns, 2**63 - 1 if end_ns is None else end_ns
    cut = "(from_ns < ? OR to_ns >= ?)"
    whole = f"SELECT number FROM stretch WHERE number BETWEEN ? AND ? AND NOT {cut}"
    what = ", ".join(map(str, kinds or TYPES.values()))
    (sums,) = tx.rows(
        "SELECT coalesce(sum(entries), 0), coalesce(sum(consumed), 0), coalesce(sum(recharged), 0) "
        f"FROM stretch_holds WHERE what IN ({what}) AND number BETWEEN ? AND ? AND number IN ({whole})",
        (low, high, low, high, start, end),
    )
    ends: list[tuple[int, Window]] = []
    for number, first, last in tx.rows(
        f"SELECT number, first_id, last_id FROM stretch WHERE number BETWEEN ? AND ? AND {cut} ORDER BY number",
        (low, high, start, end),
    ):
        if ends and ends[-1][0] == number - 1:  # neighbours as one
            ends[-1] = number, Window(ends[-1][1].first, last)
        else:
            ends.append((number, Window(first, last)))
    if len(ends) > MANY_CUT:  # late calls are everywhere: it is quicker to read all
        return (0, 0, 0), span(tx, start_ns, end_ns)
    return sums, [*(window for _number, window in ends), Window(known.last_id + 1, None)]


def _numbers(tx: Transaction, wanted: Wanted, known: Stretch) -> tuple[int, int]:
    """The first and last stretch that can hold what is wanted, by its moments and numbers."""
    low, high = 1, known.number
    if wanted.start_ns is not None:
        rows = tx.rows(
            "SELECT number FROM stretch WHERE latest_ns >= ? ORDER BY latest_ns, number LIMIT 1", (wanted.start_ns,)
        )
        low = rows[0][0] if rows else high + 1
    if wanted.end_ns is not None:
        ((last,),) = tx.rows("SELECT max(number) FROM stretch WHERE from_ns < ?", (wanted.end_ns,))
        high = min(high, last or 0)
    if wanted.before is not None:
        rows = tx.rows("SELECT number FROM stretch WHERE last_id >= ? ORDER BY last_id LIMIT 1", (wanted.before - 1,))
        high = min(high, rows[0][0] if rows else high)
    if wanted.after is not None:
        rows = tx.rows("SELECT number FROM stretch WHERE last_id > ? ORDER BY last_id LIMIT 1", (wanted.after,))
        low = max(low, rows[0][0] if rows else high + 1)
    return low, high


_Candidate = tuple[int, int, int, int | None, str | None]
"""A stretch that may hold what is wanted: number, first and last id, how many entries, their distances."""


def _candidates(
    tx: Transaction, wanted: Wanted, known: Stretch, oldest_first: bool, counted: bool
) -> Iterator[_Candidate]:
    low, high = _numbers(tx, wanted, known)
    where: list[tuple[str, tuple[int, ...]]] = []
    # One kind leads: its rows are few where it is rare, and say which entries. Of the others it is enough that they are there.
    lead = next((kinds for kinds in wanted.kinds if len(kinds) == 1), None)
    if lead:
        where.append(("h.number = s.number AND h.what = ?", lead))
    for kinds in wanted.kinds:
        if kinds is not lead:
            marks = ", ".join("?" * len(kinds))
            where.append(
                (f"EXISTS (SELECT 1 FROM stretch_holds o WHERE o.what IN ({marks}) AND o.number = s.number)", kinds)
            )
    if wanted.start_ns is not None:
        where.append(("s.to_ns >= ?", (wanted.start_ns,)))
    if wanted.end_ns is not None:
        where.append(("s.from_ns < ?", (wanted.end_ns,)))
    table, numbers = ("stretch_holds h, stretch s", "h") if lead else ("stretch s", "s")
    query = (
        f"SELECT s.number, s.first_id, s.last_id, {'h.entries, h.ids' if lead else 'NULL, NULL'} FROM {table} "
        f"WHERE {' AND '.join([*(one for one, _ in where), f'{numbers}.number BETWEEN ? AND ?'])} "
        f"ORDER BY {numbers}.number {'' if oldest_first else 'DESC'} LIMIT ?"
    )
    asked = [number for _, numbers in where for number in numbers]
    exact = counted and not any(kinds is not lead for kinds in wanted.kinds) and wanted == Wanted(wanted.kinds)
    limit = SPAN * 4 if lead else SPAN
    while low <= high:
        rows = tx.rows(query, (*asked, low, high, limit))
        for number, first, last, entries, ids in rows:
            yield number, first, last, entries if exact else None, ids
        if len(rows) < limit:
            return
        low, high = (rows[-1][0] + 1, high) if oldest_first else (low, rows[-1][0] - 1)
        limit = LONGER


def _windows(candidates: Iterator[_Candidate], *, single: bool) -> Iterator[Window]:
    """Neighbours, or stretches whose entries are listed, as one window; not where they are to be `single`."""
    run: list[_Candidate] = []
    most, listed = SPAN, 0
    for one in candidates:
        if run and (
            single
            or (one[4] is None) != (run[-1][4] is None)
            or (len(run) >= most or abs(run[-1][0] - one[0]) > 1 if one[4] is None else listed >= most * 4)
        ):
            yield _window(run)
            run, most, listed = [], min(most * 4, LONGER), 0
        run.append(one)
        listed += 0 if one[4] is None else one[4].count(",") + 1
    if run:
        yield _window(run)


def _window(run: list[_Candidate]) -> Window:
    ids = [one[1] + int(place) for one in run if one[4] is not None for place in one[4].split(",")]
    count = run[0][3] if len(run) == 1 else None
    return Window(min(one[1] for one in run), max(one[2] for one in run), ids or None, count)
