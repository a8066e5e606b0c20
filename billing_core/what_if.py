"""What calls would have cost at other prices. Amounts are 毫, times ns since the epoch.

The sums of use say what was spent, exactly, and how many tokens of each kind. Each call is rounded up to a whole 毫 by
itself, so at another price they say what it costs but for at most 1 毫 a call. Where that is not enough (a price with tiers
or service tiers, calls with kinds that the sums don't keep apart, or whoever wants it to the last 毫), the entries
themselves are added up, by the database as far as it can.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from . import settings, sums
from .actors import Actor
from .database import Transaction
from .ledger import EARLIEST_NS
from .models import ACCOUNT, BOTH, MODEL, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USED
from .money import Hao
from .rates import PPM, Prices, Rates, as_rates
from .stats import Period
from .tokens import PRICED_IN_SQL, Tokens, extras_from

SAME, SUMS, ENTRIES = "same", "sums", "entries"
"""Where a new cost is from: the price is the old one; the sums of use; the entries."""
MOST_IN_SQL = 2_000_000_000
"""Prices up to that, in 10⁻⁶ 元, times the most tokens of a call fit into 63 bits."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What an account used of a model in a period, at the price that was charged and at the other one."""

    period: int
    """The period's place in the list that was asked for."""
    model: str
    user_id: str
    calls: int
    old: Hao
    new: Hao
    slack: Hao
    """At most so much more, by rounding up each call; 0 where `new` is exact."""
    source: str
    """SAME, SUMS or ENTRIES."""


def what_if(
    tx: Transaction,
    periods: Sequence[Period],
    wanted: Mapping[str, Prices],
    *,
    actor: Actor,
    user_ids: Sequence[str] = (),
    models: Sequence[str] = (),
    to_the_last: bool = False,
) -> list[Cell]:
    """What `models` (none: all) would have cost `user_ids` (none: everybody) in each period, with the prices `wanted`; a
    model without one costs what it did. `to_the_last`: exactly, whatever it takes. Raises Forbidden."""
    return _asked(tx, periods, wanted, [BY], actor, user_ids, models, to_the_last)[0]


@dataclass(frozen=True, slots=True)
class Summary:
    """The cells of an answer, added up."""

    whole: "Total"
    by_period: list["Total"]
    """By the period's place in the list that was asked for."""
    by_model: list["Total"]
    by_account: list["Total"]


def summary(
    tx: Transaction,
    periods: Sequence[Period],
    wanted: Mapping[str, Prices],
    *,
    actor: Actor,
    user_ids: Sequence[str] = (),
    models: Sequence[str] = (),
    to_the_last: bool = False,
) -> Summary:
    """The same as what_if, added up by period, model and account: it reads less than all the cells. Raises Forbidden."""
    groupings = (("period",), ("model",), ("user_id",))
    cells = _asked(tx, periods, wanted, groupings, actor, user_ids, models, to_the_last)
    return Summary(whole(cells[0]), *(totals(some, by) for some, (by,) in zip(cells, groupings, strict=True)))


BY = ("period", "model", "user_id")


def _asked(
    tx: Transaction,
    periods: Sequence[Period],
    wanted: Mapping[str, Prices],
    groupings: Sequence[Sequence[str]],
    actor: Actor,
    user_ids: Sequence[str],
    models: Sequence[str],
    to_the_last: bool,
) -> list[list[Cell]]:
    """The cells of each grouping: what isn't told apart by has the period 0 or no name. Models always are, as each has its
    price."""
    actor.must_be_admin()
    if not periods:
        return [[] for _grouping in groupings]
    rates = {model: as_rates(prices) for model, prices in wanted.items()}
    by_call = settings.read(tx)["reversals_count_in"] == "call"
    names = {0: ""} | _names(tx, "SELECT id, name FROM model", models)
    people = _names(tx, "SELECT id, user_id FROM account", user_ids)
    only = (list(people) if user_ids else None, list(names) if models else None)
    priced = [number for number, name in names.items() if name in rates]
    grouped = [_used(tx, periods, by, by_call, *only, priced) for by in groupings]
    within = [sums.long_period(moment) for moment in (periods[0].start_ns, periods[-1].end_ns - 1)]
    rich = _rich(tx, priced, *within) if priced else set()
    looked_up = {
        model
        for rows in grouped
        for _period, _account, model in rows
        if (price := rates.get(names[model])) and (to_the_last or model in rich or (price.more and price.more.tiers))
    }
    exact: dict[tuple[int, int, int], Hao] = {}
    if looked_up:
        prices = {number: rates[names[number]] for number in looked_up}
        exact = _from_entries(tx, periods, prices, set(people), by_call, rich & looked_up)
    summed = set(priced) - looked_up
    undone = _undone(tx, periods, summed, set(people)) if summed and not by_call else {}
    answers = []
    for by, rows in zip(groupings, grouped, strict=True):
        costs, reversals = (_together(cells, by) for cells in (exact, undone))
        linear = _rounded(
            {place: _linear(rates[names[place[2]]], row) for place, row in rows.items() if place[2] in summed}
        )
        cells = []
        for (period, account, model), row in rows.items():
            price = rates.get(names[model])
            if price is None:
                new, slack, source = row.cost, 0, SAME
            elif model in looked_up:
                new, slack, source = costs.get((period, account, model), 0), 0, ENTRIES
            else:
                taken = reversals.get((period, account, model), 0)
                # Each call is rounded up; what a reversal takes off had been as well.
                new, slack = linear[period, account, model] - taken, max(row.calls + taken, 0) + 2 * taken
                source = SUMS
            cell = Cell(period, names[model], people.get(account, ""), row.calls, row.cost, new, slack, source)
            if cell.calls or cell.old or cell.new:
                cells.append(cell)
        answers.append(cells)
    return answers


def _together(cells: Mapping[tuple[int, int, int], int], by: Sequence[str]) -> dict[tuple[int, int, int], int]:
    """Numbers by period, account and model, added up over what `by` doesn't tell apart."""
    sums: dict[tuple[int, int, int], int] = {}
    for (period, account, model), number in cells.items():
        place = (period if "period" in by else 0, account if "user_id" in by else 0, model)
        sums[place] = sums.get(place, 0) + number
    return sums


def _undone(
    tx: Transaction, periods: Sequence[Period], models: set[int], people: set[int]
) -> dict[tuple[int, int, int], int]:
    """How many calls, not holds, were taken off by reversals, by period, account and model."""
    found: dict[tuple[int, int, int], int] = {}
    reversed_ = _UNDONE.format(models=", ".join(map(str, sorted(models))), undone_at="chain.at_ns")
    rows = tx.rows(
        f"SELECT {_period_in_sql(periods)}, account_id, model_id, count(*) FROM {reversed_} "
        "WHERE sign < 0 AND at_ns >= ? AND at_ns < ? GROUP BY 1, 2, 3",
        (periods[0].start_ns, periods[-1].end_ns),
    )
    for *place, number in rows:
        _add(found, place, number, people)
    return found


def _rich(tx: Transaction, models: Iterable[int], first: int, last: int) -> set[int]:
    """Those of the models that may have, in periods of sums.LONG from one to another, calls of which the four counts don't
    say all that they cost, or reversals of such calls. Sums of use, and what is open, say which have none: but for reversals they only grow, so
    that nothing in them cancels out."""
    which = f"s.of = {MODEL} AND s.length = {sums.LONG} AND (s.kind <> {USED} OR s.priced_extras > 0)"
    source = f"usage_sum s WHERE {which}"
    if not tx.is_sqlite:  # it takes that for half of the table, and would read all of it
        ever = f"generate_series({sums.long_period(EARLIEST_NS)}, {sums.long_period(tx.now_ns) + 1}) number"
        source = sums.looked_up(tx, ever, "usage_sum s", f"{which} AND s.period = number")
    rows = tx.rows(
        f"SELECT s.model_id, s.kind, CASE WHEN s.period BETWEEN ? AND ? THEN 1 ELSE 0 END FROM {source} UNION "
        f"SELECT model_id, {USED}, CASE WHEN quarter / {sums.LONG} BETWEEN ? AND ? THEN 1 ELSE 0 END FROM usage_open "
        "WHERE priced_extras > 0",
        (first, last, first, last),
    )
    priced = {model for model, kind, _within in rows if kind == USED}
    return {model for model, kind, within in rows if within and (kind == USED or model in priced)} & set(models)


def _names(tx: Transaction, query: str, only: Sequence[str]) -> dict[int, str]:
    return {number: name for number, name in tx.rows(query) if not only or name in only}


def _rounded(costs: Mapping[tuple[int, int, int], int]) -> dict[tuple[int, int, int], Hao]:
    """Costs in 10⁻¹² 元 by period, account and model as 毫: a model's rounded up one upon the other, account by account, so
    that however they are told apart they add up to the same."""
    rounded: dict[tuple[int, int, int], Hao] = {}
    so_far: dict[int, int] = {}
    for place in sorted(costs, key=lambda place: place[::-1]):
        model = place[2]
        before = so_far.get(model, 0)
        so_far[model] = before + costs[place]
        rounded[place] = -(-so_far[model] // 10**8) + (-before // 10**8)
    return rounded


def _linear(price: Rates, row: "_Sums") -> int:
    """What the sums cost at four prices and a fee per call, in 10⁻¹² 元."""
    uncached = row.prompt_tokens - row.cached_tokens - row.cache_creation_tokens
    tokens = uncached * price.input + row.cached_tokens * price.cache_read
    tokens += row.cache_creation_tokens * price.cache_write + row.completion_tokens * price.output
    return int(tokens + (price.more.call * PPM * row.calls if price.more else 0))


class _Sums(NamedTuple):
    """Sums of use."""

    cost: Hao
    calls: int
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_creation_tokens: int = 0
    completion_tokens: int = 0


def _used(
    tx: Transaction, periods: Sequence[Period], by: Sequence[str], by_call: bool,
    accounts: Sequence[int] | None, models: Sequence[int] | None, priced: Sequence[int],
) -> dict[tuple[int, int, int], _Sums]:  # fmt: skip
    """What was used by period, account and model. Where `by` doesn't ask for models, an account's that aren't `priced` are one,
    number 0: its sums over all models are far fewer than those of each. Where all costs what it did, tokens are added up for
    nothing."""
    columns = _Sums._fields if priced else ("cost", "calls")
    if "model" in by or "user_id" not in by or models is not None:
        return _sums(tx, periods, by, by_call, accounts, models, bool(priced or models) or "model" in by, columns)
    all_models = _sums(tx, periods, by, by_call, accounts, None, False, ("cost", "calls"))
    found = _sums(tx, periods, by, by_call, accounts, priced, True, columns) if priced else {}
    for (period, account, _model), row in found.items():
        every = all_models.get((period, account, 0), _Sums(0, 0))
        all_models[period, account, 0] = _Sums(every.cost - row.cost, every.calls - row.calls)
    return found | all_models


def _sums(
    tx: Transaction, periods: Sequence[Period], by: Sequence[str], by_call: bool,
    accounts: Sequence[int] | None, models: Sequence[int] | None, apart: bool, columns: Sequence[str],
) -> dict[tuple[int, int, int], _Sums]:  # fmt: skip
    """What was used (`columns`: the first fields of _Sums) by period, account and model; all periods as one, and all accounts,
    unless `by` tells them apart. An account's models are one, number 0, unless they are told `apart`."""
    spans = [(period.start_ns, period.end_ns) for period in periods]
    if "period" not in by:
        spans = [(spans[0][0], spans[-1][1])]
    found = sums.used(
        tx, spans, columns, of=MODEL if accounts is None and "user_id" not in by else BOTH if apart else ACCOUNT,
        undone=UNDONE_AT_CALL if by_call else UNDONE_AT_REVERSAL, accounts=accounts, models=models,
    )  # fmt: skip
    if "user_id" not in by and accounts is not None:
        together: sums.Found = {}
        for (period, _account, model), numbers in found.items():
            sums.plus(together, (period, 0, model), numbers)
        found = together
    return {key: _Sums(*found[key]) for key in sorted(found)}


# From the entries

# A call counts once, and is taken off or counted again for each reversal in the chain upon it; when, the setting says. A
# repriced call that isn't counted by its own period counts when it was repriced.
_CALLS = """
(SELECT e.account_id, e.model_id, {at} AS at_ns, 1 AS sign, e.prompt_tokens, e.cached_tokens, e.cache_creation_tokens,
    e.completion_tokens, e.extras
FROM entry e WHERE e.type IN ('deduct', 'settle') AND e.model_id IN ({models})) AS counted
"""
_UNDONE = """
(WITH RECURSIVE chain(root, at_ns, sign) AS (
    SELECT reverses_id, created_at_ns, -1 FROM entry WHERE reverses_id IS NOT NULL
    UNION ALL
    SELECT up.reverses_id, chain.at_ns, -chain.sign
    FROM chain JOIN entry up ON up.id = chain.root WHERE up.reverses_id IS NOT NULL
)
SELECT e.account_id, e.model_id, {undone_at} AS at_ns, chain.sign, e.prompt_tokens, e.cached_tokens, e.cache_creation_tokens,
    e.completion_tokens, e.extras
FROM chain JOIN entry e ON e.id = chain.root
WHERE e.reverses_id IS NULL AND e.type IN ('deduct', 'settle') AND e.model_id IN ({models})) AS counted
"""


def _from_entries(
    tx: Transaction,
    periods: Sequence[Period],
    rates: Mapping[int, Rates],
    people: set[int],
    by_call: bool,
    rich: set[int],
) -> dict[tuple[int, int, int], Hao]:
    """The new cost by period, account and model, call by call. `rich`: the models with calls of which the four counts
    don't say all that they cost."""
    costs: dict[tuple[int, int, int], Hao] = {}
    in_sql = {number: price for number, price in rates.items() if _fits(price)}
    one_by_one = sorted((rates.keys() - in_sql.keys()) | rich)
    within = {"start": periods[0].start_ns, "end": periods[-1].end_ns}
    period = _period_in_sql(periods)
    for source in (_CALLS, _UNDONE):
        counted = source.format(
            models=", ".join(map(str, sorted(rates))),
            at="e.created_at_ns" if by_call else _SEEN_AT,
            undone_at="e.created_at_ns" if by_call else "chain.at_ns",
        )
        where = f"FROM {counted} WHERE at_ns >= :start AND at_ns < :end"
        if in_sql:
            numbers = ", ".join(map(str, sorted(in_sql)))
            plain = f"AND NOT {PRICED_IN_SQL.format(extras='extras')}" if rich else ""
            query = (
                f"SELECT {period}, account_id, model_id, sum(sign * ({_cost_in_sql(in_sql)})) "
                f"{where} AND model_id IN ({numbers}) {plain} GROUP BY 1, 2, 3"
            )
            for *place, cost in tx.connection().execute(sa.text(query), within):
                _add(costs, place, int(cost), people)
        if one_by_one:
            numbers = ", ".join(map(str, one_by_one))
            kinds = (
                f"AND (model_id NOT IN ({', '.join(map(str, sorted(in_sql)))}) OR {PRICED_IN_SQL.format(extras='extras')})"
                if in_sql
                else ""
            )
            query = (
                f"SELECT {period}, account_id, model_id, sign, prompt_tokens, completion_tokens, cached_tokens, "
                f"cache_creation_tokens, extras {where} AND model_id IN ({numbers}) {kinds}"
            )
            for *place, sign, prompt, completion, cached, creation, extras in tx.connection().execute(
                sa.text(query), within
            ):
                tokens = Tokens(prompt, completion, cached, creation, 0, extras_from(extras))
                _add(costs, place, sign * rates[place[2]].cost(tokens), people)
    return costs


def _add(costs: dict[tuple[int, int, int], Hao], place: Sequence[Any], cost: Hao, people: set[int]) -> None:
    period, account, model = place
    if period >= 0 and account in people:
        costs[period, account, model] = costs.get((period, account, model), 0) + cost


def _period_in_sql(periods: Sequence[Period]) -> str:
    """The place of the period that holds `at_ns`, -1 for none, found by halving."""

    def among(first: int, last: int) -> str:
        if first == last:
            period = periods[first]
            return f"CASE WHEN at_ns >= {period.start_ns} AND at_ns < {period.end_ns} THEN {first} ELSE -1 END"
        middle = (first + last + 1) // 2
        return f"CASE WHEN at_ns < {periods[middle].start_ns} THEN {among(first, middle - 1)} ELSE {among(middle, last)} END"

    return among(0, len(periods) - 1)


_SEEN_AT = "CASE WHEN e.reprices_id IS NULL THEN e.created_at_ns ELSE coalesce(e.recorded_at_ns, e.created_at_ns) END"


def _fits(price: Rates) -> bool:
    """Whether what a call costs at a price fits into SQL's integers."""
    of_tiers = [(tier.input, tier.output, tier.cache_read or 0, tier.cache_write or 0) for tier in _tiers(price)]
    fee = price.more.call if price.more else 0
    return max(*price.parts, fee, *(micro for tier in of_tiers for micro in tier)) <= MOST_IN_SQL


def _tiers(price: Rates) -> Sequence[Any]:
    return price.more.tiers if price.more else ()


def _cost_in_sql(rates: Mapping[int, Rates]) -> str:
    """What a call without extras costs, in 毫: each kind × its price, rounded up once."""
    models = []
    for number, price in rates.items():
        fee = price.more.call * PPM if price.more else 0
        steps = [
            f"WHEN prompt_tokens > {tier.above} THEN {_sum(tier.input, _or(tier.cache_read, tier), _or(tier.cache_write, tier), tier.output)}"
            for tier in reversed(_tiers(price))
        ]
        usual = _sum(price.input, price.cache_read, price.cache_write, price.output)
        tokens = f"CASE {' '.join(steps)} ELSE {usual} END" if steps else usual
        models.append(f"WHEN {number} THEN ({tokens} + {fee} + 99999999) / 100000000")
    return f"CASE model_id {' '.join(models)} END"


def _or(micro: int | None, tier: Any) -> int:
    return tier.input if micro is None else micro


def _sum(first: int, read: int, write: int, output: int) -> str:
    return (
        f"((prompt_tokens - cached_tokens - cache_creation_tokens) * {first} + cached_tokens * {read} "
        f"+ cache_creation_tokens * {write} + completion_tokens * {output})"
    )


# Added up


@dataclass(frozen=True, slots=True)
class Total:
    """Cells added up under a name."""

    name: Any
    calls: int
    old: Hao
    new: Hao
    slack: Hao
    sources: frozenset[str]

    @property
    def difference(self) -> Hao:
        return self.new - self.old


def totals(cells: Iterable[Cell], by: str) -> list[Total]:
    """By `model`, `user_id` or `period`; the dearest first, periods in their order."""
    added = _added((getattr(cell, by), cell) for cell in cells)
    return sorted(added, key=lambda one: one.name if by == "period" else (-max(one.old, one.new), one.name))


def whole(cells: Iterable[Cell]) -> Total:
    """All of them."""
    return next(iter(_added(("", cell) for cell in cells)), Total("", 0, 0, 0, 0, frozenset()))


def _added(cells: Iterable[tuple[Any, Cell]]) -> list[Total]:
    found: dict[Any, tuple[int, Hao, Hao, Hao]] = {}
    sources: dict[Any, set[str]] = {}
    for name, cell in cells:
        calls, old, new, slack = found.get(name, (0, 0, 0, 0))
        found[name] = calls + cell.calls, old + cell.old, new + cell.new, slack + cell.slack
        sources.setdefault(name, set()).add(cell.source)
    return [Total(name, *numbers, frozenset(sources[name])) for name, numbers in found.items()]
