"""Reading the ledger back: filters, pages that don't slow down with depth, and everything at once for an export.

Newest first is the ledger's own order (an entry's number), not the clock's. Amounts are 毫, times ns since the epoch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

from sqlalchemy import FromClause, case, false, func, literal_column, null, or_, select
from sqlalchemy.sql import Select

from . import accounts, ledger, pricing, stretches, sums
from .actors import SHELL_ID, Actor
from .database import Database, Transaction, is_id
from .errors import Invalid, NotFound
from .i18n import N_
from .models import (
    ACCOUNT,
    ACCOUNTS,
    BOTH,
    ENTRIES,
    HOLDS,
    MODEL,
    MODELS,
    OTHER,
    PRICES,
    RARE,
    UNDONE_AT_REVERSAL,
    USED,
)
from .models import TYPES as TYPES
from .money import Hao
from .text import MAX_SEARCH, one_line

MAX_LIMIT = 10_000
_SMALL = 5000
"""An account with fewer entries is read by itself: that takes no longer than to look where its entries may be."""
_FEW = 500
"""Fewer entries of an account between two moments are read by their numbers, which its index of moments has."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What to show; None or "" shows all. `user_id` None needs an admin. Raises Invalid for a range that ends before it begins
    and a search that is too long."""

    user_id: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    model: str = ""
    types: tuple[str, ...] = ()
    search: str = ""
    """Text in the remark."""
    merged: bool = False
    """What a repricing wrote, a reversal and a charge, shows as one line, the charge's, as what it came to: with the
    difference as its amount, at the moment of the repricing. The reversal is left out."""

    def __post_init__(self) -> None:
        if self.start_ns is not None and self.end_ns is not None and self.end_ns < self.start_ns:
            raise Invalid(N_("The range ends before it begins. Swap its two ends."), field="end")
        object.__setattr__(self, "search", one_line(self.search, MAX_SEARCH, field="search"))  # as remarks are kept


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as people read it. Amounts in 毫, prices in 10⁻⁶ 元 per million tokens."""

    id: int
    user_id: str
    name: str
    type: str
    amount: Hao
    balance_after: Hao
    cost: Hao
    model: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    cache_creation_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    precharge_id: int | None
    reverses_id: int | None
    reversed_by: int | None
    remark: str
    operator_id: str | None
    operator_name: str | None
    created_at_ns: int
    recorded_at_ns: int
    price_input: int | None
    price_output: int | None
    price_cache_read: int | None
    price_cache_write: int | None
    price_source: str | None
    ended_by: int | None = None
    """Of a precharge: the entry that ended it."""
    reprices_id: int | None = None
    """Of a charge that a repricing wrote: the entry that it stands for."""
    repriced_from: Hao | None = None
    """Of a line that stands for both entries of a repricing: what the call had cost."""
    extras: str | None = None
    """What else the call used, as tokens.Extras.as_json writes it."""
    upstream_usd: int | None = None
    """10⁻¹² US dollars that the provider asks for the call; for admins."""

    @property
    def consumed(self) -> int:
        """What the line adds to what was spent, in 毫."""
        return 0 if self.type == "precharge" else self.cost - (self.repriced_from or 0)

    @property
    def held(self) -> int:
        """Of a precharge or its settle: what was held, in 毫."""
        return self.amount + self.cost if self.type == "settle" else -self.amount


_UNDOING, _REPRICED = ENTRIES.alias("undoing"), ENTRIES.alias("repriced")
_BY_THE_SHELL = ENTRIES.c.operator_id.is_(None) & (
    ENTRIES.c.type.in_(("recharge", "reversal")) | ENTRIES.c.reprices_id.is_not(None)
)


def _as_lines(filters: Filters) -> tuple[Any, Any, Any]:
    """A line's amount, what reversed it, and what it cost before a repricing."""
    if not filters.merged:
        return ENTRIES.c.amount, _UNDOING.c.id, null()
    return (
        ENTRIES.c.amount + func.coalesce(_REPRICED.c.cost, 0),
        func.coalesce(ledger.charged_anew(_UNDOING), _UNDOING.c.id),
        _REPRICED.c.cost,
    )


def _rows(tx: Transaction, filters: Filters, actor: Actor) -> Select[Any]:
    return _lines(filters.merged, actor.is_admin).where(*conditions(tx, filters, actor)).order_by(ENTRIES.c.id.desc())


@cache
def _lines(merged: bool, is_admin: bool) -> Select[Any]:
    """A SELECT of Row's fields; to put it together takes as long as to read a page."""
    filters, operator, e, p = Filters(merged=merged), ACCOUNTS.alias("operator"), ENTRIES.c, PRICES.c
    amount, reversed_by, repriced_from = _as_lines(filters)
    return select(
        e.id,
        ACCOUNTS.c.user_id,
        ACCOUNTS.c.name,
        e.type,
        amount,
        e.balance_after,
        e.cost,
        MODELS.c.name.label("model"),
        e.prompt_tokens,
        e.cached_tokens,
        e.cache_creation_tokens,
        e.completion_tokens,
        e.reasoning_tokens,
        e.precharge_id,
        e.reverses_id,
        reversed_by,
        func.coalesce(e.remark, "").label("remark"),
        case((_BY_THE_SHELL, SHELL_ID), else_=operator.c.user_id).label("operator_id"),
        case((_BY_THE_SHELL, SHELL_ID), else_=operator.c.name).label("operator_name"),
        _moment(filters),
        func.coalesce(e.recorded_at_ns, e.created_at_ns).label("recorded_at_ns"),
        p.input,
        p.output,
        func.coalesce(p.cache_read, p.input),
        func.coalesce(p.cache_write, p.input),
        p.source,
        HOLDS.c.ended_by,
        e.reprices_id,
        repriced_from,
        e.extras,
        e.upstream_usd if is_admin else null(),
    ).select_from(
        ENTRIES.join(ACCOUNTS, ACCOUNTS.c.id == e.account_id)
        .outerjoin(MODELS, MODELS.c.id == e.model_id)
        .outerjoin(PRICES, p.id == e.price_id)
        .outerjoin(operator, operator.c.id == e.operator_id)
        .outerjoin(_UNDOING, _UNDOING.c.reverses_id == e.id)
        .outerjoin(HOLDS, HOLDS.c.precharge_id == e.id)
        .outerjoin(_REPRICED, _REPRICED.c.id == e.reprices_id)
    )


# That few are reversals at all tells Postgres that nearly every entry passes.
_IS_LINE = ENTRIES.c.reverses_id.is_(None) | ledger.charged_anew(ENTRIES).is_(None)


def conditions(tx: Transaction, filters: Filters, actor: Actor) -> list[Any]:
    """What a SELECT from entry has to hold to. Raises Invalid, Forbidden, UnknownAccount."""
    actor.must_see(filters.user_id)
    e, at = ENTRIES.c, _moment(filters)
    if tx.is_sqlite:
        at = at + 0  # not by the index entry_at: what it finds would have to be sorted. Postgres weighs that by itself.
    found: list[Any] = []
    if filters.merged:
        found.append(_IS_LINE)
    if filters.user_id is not None:
        found.append(e.account_id == accounts.number(tx, filters.user_id))
    if filters.start_ns is not None:
        found.append(at >= _kept(filters.start_ns))
    if filters.end_ns is not None:
        found.append(at < _kept(filters.end_ns))
    if filters.model:
        model = pricing.known_number(tx, filters.model)
        found.append(false() if model is None else e.model_id == model)
    if filters.types == ("recharge",):  # written out, or SQLite doesn't see that the index entry_recharge fits
        found.append(e.type == literal_column("'recharge'"))
    elif filters.types:
        found.append(e.type.in_(filters.types))
        if set(filters.types) <= set(RARE):  # the same for the index entry_rare_of_account
            found.append(or_(*(e.type == literal_column(f"'{type}'") for type in RARE)))
    if filters.search:
        found += [e.remark.is_not(None), e.remark.icontains(filters.search, autoescape=True)]
    return found


def shows_all(filters: Filters) -> bool:
    """Whether every entry passes the filters."""
    return replace(filters, merged=False) == Filters()


def _moment(filters: Filters) -> Any:
    """When a line happened."""
    e = ENTRIES.c
    if not filters.merged:
        return e.created_at_ns
    return case((e.reprices_id.is_not(None), func.coalesce(e.recorded_at_ns, e.created_at_ns)), else_=e.created_at_ns)


def _kept(number: int) -> int:
    """The number, or the nearest that a database can keep: it can't even be asked about others."""
    return max(-(2**63), min(number, 2**63 - 1))


def bounds(filters: Filters) -> tuple[int | None, int | None]:
    """From when to when, as a database can be asked about it."""
    start, end = (None if ns is None else _kept(ns) for ns in (filters.start_ns, filters.end_ns))
    return start, end


def checked(limit: int, offset: int = 0) -> None:
    """Raises Invalid for a limit or offset that is no count."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise Invalid(N_("limit is a whole number from 1 to {most}."), field="limit", most=MAX_LIMIT)
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < 2**63:
        raise Invalid(N_("offset is a whole number, 0 or more."), field="offset")


def page(
    tx: Transaction, filters: Filters, *, actor: Actor, limit: int = 50, before: int | None = None,
    after: int | None = None, offset: int = 0,
) -> list[Row]:  # fmt: skip
    """The newest entries that pass the filters; `before` an entry's number, for the next page, or the ones right `after`
    it, for the page before. Newest first. Raises Invalid, Forbidden, UnknownAccount."""
    checked(limit, offset)
    before, after = None if before is None else _kept(before), None if after is None else _kept(after)
    e, passing = ENTRIES.c, conditions(tx, filters, actor)
    if before is not None:
        passing.append(e.id < before)
    if after is not None:
        passing.append(e.id > after)
    order = e.id if after is not None else e.id.desc()
    lines = _lines(filters.merged, actor.is_admin).order_by(order)
    if offset:
        # Numbers first: to leave out a line takes a tenth of what it takes to read it.
        ids = _numbers(tx, filters, select(e.id).where(*passing).order_by(order), limit, offset, before, after)
        rows = _fetched(tx, lines.where(e.id.in_(ids))) if ids else []
    else:
        rows = _first(tx, filters, lines.where(*passing), limit, before, after)
    found = [Row(*row) for row in rows]
    return found if after is None else found[::-1]


def _is_narrow(filters: Filters) -> bool:
    """Whether entries, of an account or of all, may have to be left out."""
    return replace(filters, user_id=None, merged=False) != Filters()


def _jumps(tx: Transaction, filters: Filters) -> bool:
    """Whether a page is looked for stretch by stretch: where many entries may lie between those that pass."""
    if "deduct" in filters.types:  # they are everywhere
        filters = replace(filters, types=())
    if not _is_narrow(filters) or filters.user_id is None:
        return _is_narrow(filters)
    if not _is_dated(filters) and _has_index(filters):
        return False
    small = _SMALL if filters.model or filters.types or filters.search else _SMALL // 5  # dates tell where to look best
    return bool(tx.rows(_IS_LARGE, (filters.user_id, small)))


def _is_dated(filters: Filters) -> bool:
    return filters.start_ns is not None or filters.end_ns is not None


def _has_index(filters: Filters) -> bool:
    """Whether an index of each account's has what is wanted and little else."""
    return bool(filters.search or (filters.types and set(filters.types) <= {*RARE, "recharge"}))


_IS_LARGE = "SELECT 1 FROM entry WHERE account_id = (SELECT id FROM account WHERE user_id = ?) ORDER BY id DESC LIMIT 1 OFFSET ?"


def _numbers(
    tx: Transaction,
    filters: Filters,
    query: Select[Any],
    limit: int,
    offset: int,
    before: int | None,
    after: int | None,
) -> list[int]:
    """The numbers of a page's entries after `offset` others; `query` is for the numbers of all that pass."""
    whole = "deduct" not in filters.types  # else the stretches are asked for more than passes
    counted = whole and filters.user_id is None and not filters.merged and not filters.search
    places = _places(tx, filters, before, after, counted=counted)
    if places is not None:
        return [row[0] for row in _look(tx, query, places, limit, offset)]
    if filters == Filters() and before is after is None:
        before, offset = stretches.skipped(tx, offset)
        query = query.where(ENTRIES.c.id < before)
    return list(tx.connection().scalars(query.limit(limit).offset(offset)))


def _first(
    tx: Transaction, filters: Filters, query: Select[Any], limit: int, before: int | None, after: int | None
) -> list[tuple[Any, ...]]:
    """The first rows of a query for entries that pass the filters, and lie before or after a number."""
    places = _places(tx, filters, before, after)
    return _fetched(tx, query.limit(limit)) if places is None else _look(tx, query, places, limit)


def _fetched(tx: Transaction, query: Select[Any]) -> list[tuple[Any, ...]]:
    """A query's rows as the driver gives them: a Row each would take longer than to read it."""
    return cast(list[tuple[Any, ...]], tx.connection().execute(query).cursor.fetchall())


def _look(
    tx: Transaction, query: Select[Any], windows: Iterable[stretches.Window], limit: int, offset: int = 0
) -> list[tuple[Any, ...]]:
    """The first rows of a query for entries, after `offset` others, window by window."""
    found: list[tuple[Any, ...]] = []
    for window in windows:
        if window.count is not None and window.count <= offset:
            offset -= window.count
            continue
        rows = _fetched(tx, query.where(within(window)).limit(limit - len(found) + offset))
        found += rows[offset:]
        offset = max(offset - len(rows), 0)
        if len(found) == limit:
            break
    return found


def _places(
    tx: Transaction, filters: Filters, before: int | None, after: int | None, *, counted: bool = False
) -> Iterator[stretches.Window] | None:
    """Where a page is looked for; None where it is quicker to read all."""
    if (numbers := _between(tx, filters)) is not None:
        left = [one for one in numbers if (before is None or one < before) and (after is None or one > after)]
        return stretches.listed(left if after is not None else left[::-1])
    return _windows(tx, filters, before, after, counted=counted) if _jumps(tx, filters) else None


def _windows(
    tx: Transaction, filters: Filters, before: int | None, after: int | None, *, counted: bool = False
) -> Iterator[stretches.Window]:
    wanted = _wanted(tx, filters, before, after)
    if wanted is not None:
        yield from stretches.windows(tx, wanted, oldest_first=after is not None, counted=counted)


def _between(tx: Transaction, filters: Filters) -> list[int] | None:
    """The numbers of an account's entries that may lie between two moments, in their order; None where that isn't what is asked,
    or they aren't few."""
    if filters.user_id is None or not _is_dated(filters) or _has_index(filters):
        return None
    account, (start, end) = accounts.number(tx, filters.user_id), bounds(filters)
    moments = " AND ".join(f"created_at_ns {sign} {ns}" for sign, ns in ((">=", start), ("<", end)) if ns is not None)
    found: set[int] = set()
    # A merged line is at the moment of its repricing, whenever the call was.
    for which in (moments, "reprices_id IS NOT NULL") if filters.merged else (moments,):
        rows = tx.rows(f"SELECT id FROM entry WHERE account_id = ? AND {which} LIMIT {_FEW}", (account,))
        if len(rows) == _FEW:
            return None
        found.update(number for (number,) in rows)
    return sorted(found)


def _wanted(tx: Transaction, filters: Filters, before: int | None, after: int | None) -> stretches.Wanted | None:
    """What the stretches are asked for; None where nothing can pass."""
    kinds: list[tuple[int, ...]] = []
    if filters.search:
        kinds.append((stretches.REMARKED,))
    if filters.model:
        number = pricing.known_number(tx, filters.model)
        if number is None:
            return None
        kinds.append((number,))
    if filters.types and "deduct" not in filters.types:  # they are everywhere
        known = tuple(stretches.TYPES[type] for type in filters.types if type in stretches.TYPES)
        if not known:
            return None
        kinds.insert(0 if set(filters.types) <= {*RARE, "recharge"} else len(kinds), known)  # the rarest leads
    start, end = bounds(filters)
    return stretches.Wanted(tuple(kinds), start, end, before, after)


def within(window: stretches.Window) -> Any:
    """What a SELECT from entry has to hold to, to stay in a window."""
    e = ENTRIES.c
    if window.ids is not None:
        return e.id.in_(window.ids)
    return e.id >= window.first if window.last is None else e.id.between(window.first, window.last)


def every(db: Database, filters: Filters, *, actor: Actor, batch: int = 5000) -> Iterator[Row]:
    """All that passes the filters, newest first, read a batch at a time. Raises as page does, before the first row."""
    before: int | None = None

    def read(tx: Transaction) -> list[Row]:
        query = _rows(tx, filters, actor)
        if before is not None:
            query = query.where(ENTRIES.c.id < before)
        return [Row(*row) for row in _first(tx, filters, query, batch, before, None)]

    rows = db.read(read)
    while rows:
        yield from rows
        before = rows[-1].id
        rows = db.read(read) if len(rows) == batch else []


RAW = (
    "id, created_at_ns, account_id, type, model_id, prompt_tokens, cached_tokens, cache_creation_tokens, "
    "completion_tokens, reasoning_tokens, consumed, amount, balance_after, price_id, precharge_id, reverses_id, "
    "reversed_by, operator_id, remark, reprices_id, extras, recorded_at_ns"
)
"""What `raw` gives of an entry, in this order. `operator_id` is 0 for the shell, `recorded_at_ns` None where it is the moment of
the line."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers in raw rows stand for: accounts' (user_id, name), models' names, prices' (input, output, cache
    read, cache write, source, what More.as_json wrote)."""

    accounts: dict[int, tuple[str, str]]
    models: dict[int, str]
    prices: dict[int, tuple[int | None, int | None, int | None, int | None, str, str | None]]

    @classmethod
    def read(cls, tx: Transaction) -> "Names":
        run, p = tx.connection().execute, PRICES.c
        prices = select(p.id, p.input, p.output, func.coalesce(p.cache_read, p.input), func.coalesce(p.cache_write, p.input), p.source, p.more)  # fmt: skip
        return cls(
            {row[0]: (row[1], row[2]) for row in run(select(ACCOUNTS.c.id, ACCOUNTS.c.user_id, ACCOUNTS.c.name))},
            {row[0]: row[1] for row in run(select(MODELS.c.id, MODELS.c.name))},
            {row[0]: (row[1], row[2], row[3], row[4], row[5], row[6]) for row in run(prices)},
        )


def raw(db: Database, filters: Filters, *, actor: Actor, batch: int = 5000) -> Iterator[list[tuple[Any, ...]]]:
    """The same as `every` for a file of millions: tuples as the driver gives them (see RAW), many at a time, the first
    ones sooner. Raises as page does, before the first."""
    e, limit = ENTRIES.c, batch // 10
    before = 2**63 - 1
    amount, reversed_by, repriced_from = _as_lines(filters)
    columns = select(
        e.id, _moment(filters), e.account_id, e.type, e.model_id, e.prompt_tokens, e.cached_tokens,
        e.cache_creation_tokens, e.completion_tokens, e.reasoning_tokens,
        case((e.type == "precharge", 0), else_=e.cost - func.coalesce(repriced_from, 0)), amount,
        e.balance_after, e.price_id, e.precharge_id, e.reverses_id, reversed_by,
        case((_BY_THE_SHELL, 0), else_=e.operator_id), e.remark, e.reprices_id, e.extras, e.recorded_at_ns,
    )  # fmt: skip
    lines = ENTRIES.outerjoin(_UNDOING, _UNDOING.c.reverses_id == e.id)
    if filters.merged:
        lines = lines.outerjoin(_REPRICED, _REPRICED.c.id == e.reprices_id)

    def read(tx: Transaction) -> list[tuple[Any, ...]]:
        query = columns.select_from(lines).where(*conditions(tx, filters, actor), e.id < before)
        rows = _first(tx, filters, query.order_by(e.id.desc()), limit, before, None)
        if tx.is_sqlite:
            tx.rows("PRAGMA shrink_memory")  # what has been read won't be read again
        return rows

    while True:
        rows = db.read(read)
        if rows:
            yield rows
        if len(rows) < limit:
            return
        before, limit = rows[-1][0], batch


@dataclass(frozen=True, slots=True)
class Sum:
    """What the filters show, added up: `cost` is consumption, `recharged` recharges, both less their reversals, in 毫."""

    entries: int
    cost: Hao
    recharged: int


_RECHARGING = (ENTRIES.c.type == "recharge") | ((ENTRIES.c.type == "reversal") & ENTRIES.c.model_id.is_(None))
"""Entries whose amount counts as recharged: a reversal without a model undoes a recharge."""


def total(tx: Transaction, filters: Filters, *, actor: Actor) -> Sum:
    """Raises Invalid, Forbidden, UnknownAccount."""
    e, passing = ENTRIES.c, conditions(tx, filters, actor)
    if (found := _summed(tx, filters)) is not None:
        return found
    lines: FromClause = ENTRIES
    consumed: Any = e.cost
    if filters.merged:
        repriced = ENTRIES.alias("repriced")
        lines, consumed = (
            ENTRIES.outerjoin(repriced, repriced.c.id == e.reprices_id),
            e.cost - func.coalesce(repriced.c.cost, 0),
        )
    cost = func.coalesce(func.sum(case((e.type.in_(stretches.CONSUMING), consumed), else_=0)), 0)
    recharged = func.coalesce(func.sum(case((_RECHARGING, e.amount), else_=0)), 0)
    query = select(func.count(), cost, recharged).select_from(lines).where(*passing)
    known, windows = _known_total(tx, filters)
    parts = [known, *(tx.connection().execute(query.where(within(one))).one() for one in windows)]
    return Sum(*(sum(int(one[place]) for one in parts) for place in range(3)))


def _summed(tx: Transaction, filters: Filters) -> Sum | None:
    """The same of all that an account did between two moments, or of its calls (of a model), or of everybody's calls of a
    model, as the sums of use say it; None where they don't."""
    start, end = filters.start_ns, filters.end_ns
    only_calls = set(filters.types) == set(ledger.CALLS)
    if (
        start is None or end is None or not 0 <= start < end < 2**62 or start % sums.QUARTER_NS or end % sums.QUARTER_NS
        or filters.search or (not only_calls and (filters.types or filters.model))
    ):  # fmt: skip
        return None
    models = None
    if filters.model:
        number = pricing.known_number(tx, filters.model)
        models = [] if number is None else [number]
    if filters.user_id is None:
        if not (only_calls and filters.model) or filters.merged:
            return None
        used = sums.used(tx, [(start, end)], ("cost", "calls"), of=MODEL, undone=None, models=models)
        return Sum(sum(calls for _cost, calls in used.values()), sum(cost for cost, _calls in used.values()), 0)
    account, of = accounts.number(tx, filters.user_id), ACCOUNT if models is None else BOTH

    def added_up(undone: int | None, kind: int = USED) -> tuple[int, int]:
        used = sums.used(
            tx, [(start, end)], ("cost", "calls"), of=of, undone=undone, accounts=[account], models=models, kind=kind
        )
        return sum(cost for cost, _calls in used.values()), sum(calls for _cost, calls in used.values())

    (cost, entries), recharged = added_up(None), 0
    if not only_calls:
        recharged, others = added_up(None, OTHER)
        entries += others
        cost, _calls = added_up(UNDONE_AT_REVERSAL)
    if only_calls and not filters.merged:
        return Sum(entries, cost, recharged)
    # What a repricing charged stands among the entries at the moment of the call, and in merged lines at its own, with the
    # difference; sums by the moment of reversals have all of it at its own.
    (at_call, cost_at_call), (at_own, cost_at_own, cost_before) = _repriced(tx, account, models, start, end)
    if only_calls:
        entries += at_own - at_call
        cost += cost_at_own - cost_before - cost_at_call
    elif filters.merged:
        entries -= at_call  # and what it undid is left out at its own
    else:
        cost += cost_at_call - cost_at_own
    return Sum(entries, cost, recharged)


def _repriced(
    tx: Transaction, account: int, models: Sequence[int] | None, start: int, end: int
) -> tuple[tuple[int, Hao], tuple[int, Hao, Hao]]:
    """What repricings charged an account for calls between two moments: how many, and their cost; and what repricings
    between these moments charged: how many, their cost, and what the calls had cost before."""
    at_call, at_own = (
        f"CASE WHEN {at} >= {start} AND {at} < {end} THEN {{}} ELSE 0 END"
        for at in ("e.created_at_ns", "coalesce(e.recorded_at_ns, e.created_at_ns)")
    )
    sums = [at_call.format(1), at_call.format("e.cost"), *(at_own.format(what) for what in (1, "e.cost", "old.cost"))]
    which = "" if models is None else f" AND e.model_id IN ({', '.join(map(str, models)) or 'NULL'})"
    (found,) = tx.rows(
        f"SELECT {', '.join(f'CAST(coalesce(sum({one}), 0) AS BIGINT)' for one in sums)} "
        "FROM entry e JOIN entry old ON old.id = e.reprices_id "
        f"WHERE e.account_id = ? AND e.reprices_id IS NOT NULL{which}",
        (account,),
    )
    return found[:2], found[2:]


def _known_total(tx: Transaction, filters: Filters) -> tuple[tuple[int, Hao, Hao], list[stretches.Window]]:
    """What is known of the total, and where the entries are that it still lacks."""
    start, end = bounds(filters)
    if filters.user_id is None and not filters.merged and not filters.search and not (filters.model and filters.types):
        kinds = [stretches.TYPES[type] for type in filters.types if type in stretches.TYPES]
        if filters.model and (number := pricing.known_number(tx, filters.model)) is not None:
            kinds.append(number)
        if kinds or not (filters.model or filters.types):
            return stretches.totals(tx, start, end, kinds)
    if filters.user_id is None and (filters.search or filters.model):  # few have a remark, or are of one model and type
        return (0, 0, 0), list(_windows(tx, filters, None, None))
    return (0, 0, 0), stretches.span(tx, start, end)


def one(tx: Transaction, entry_id: int, *, actor: Actor) -> Row:
    """One entry, or a member's line. Raises NotFound, also for somebody else's entry."""
    query = _rows(tx, seen_by(actor), actor).where(ENTRIES.c.id == entry_id)
    row = tx.connection().execute(query).one_or_none() if is_id(entry_id) else None
    if row is None:
        raise NotFound(N_("There is no entry {entry_id}."), entry_id=entry_id)
    return Row(*row)


def seen_by(actor: Actor, user_id: str | None = None) -> Filters:
    """The log as it is shown to an admin: every entry (of `user_id`); or to a member: their own, with one line a repricing."""
    return Filters(user_id) if actor.is_admin else Filters(user_id or actor.user_id, merged=True)


def recharges(filters: Filters) -> Filters:
    """The same for recharges alone."""
    return replace(filters, types=("recharge",))
