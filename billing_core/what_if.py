"""What calls would have cost at other prices. Amounts are 毫, times ns since the epoch.

The sums of use say what was spent, exactly, and how many tokens of each kind. Each call is rounded up to a whole 毫 by
itself, so at another price they say what it costs but for at most 1 毫 a call. Where that is not enough (a price with tiers
or service tiers, calls with kinds that the sums don't keep apart, or whoever wants it to the last 毫), the entries
themselves are added up, by the database as far as it can.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from . import settings
from .actors import Actor
from .database import Transaction
from .ledger import PERIOD_NS
from .models import UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USED
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
    actor.must_be_admin()
    if not periods:
        return []
    rates = {model: as_rates(prices) for model, prices in wanted.items()}
    by_call = settings.read(tx)["reversals_count_in"] == "call"
    names = _names(tx, "SELECT id, name FROM model", models)
    people = _names(tx, "SELECT id, user_id FROM account", user_ids)
    found: list[Cell] = []
    looked_up: set[int] = set()
    rows = [row for row in _sums(tx, periods, by_call) if row.model_id in names and row.account_id in people]
    rich = {row.model_id for row in rows if row.priced_extras}
    for row in rows:
        model = names[row.model_id]
        price = rates.get(model)
        if price is None:
            found.append(_cell(row, model, people, row.cost, 0, SAME))
        elif to_the_last or row.model_id in rich or (price.more and price.more.tiers):
            looked_up.add(row.model_id)
        else:
            new = -(-_linear(price, row) // 10**8)
            found.append(_cell(row, model, people, new, row.calls, SUMS))
    if looked_up:
        prices = {number: rates[names[number]] for number in looked_up}
        exact = _from_entries(tx, periods, prices, set(people), by_call, rich & looked_up)
        for row in rows:
            if row.model_id in looked_up:
                new = exact.get((row.period, row.account_id, row.model_id), 0)
                found.append(_cell(row, names[row.model_id], people, new, 0, ENTRIES))
    return [cell for cell in found if cell.calls or cell.old or cell.new]


def _names(tx: Transaction, query: str, only: Sequence[str]) -> dict[int, str]:
    return {row[0]: row[1] for row in tx.connection().execute(sa.text(query)) if not only or row[1] in only}


def _cell(row: Any, model: str, people: Mapping[int, str], new: Hao, slack: Hao, source: str) -> Cell:
    return Cell(row.period, model, people[row.account_id], row.calls, row.cost, new, max(slack, 0), source)


def _linear(price: Rates, row: Any) -> int:
    """What the sums cost at four prices and a fee per call, in 10⁻¹² 元."""
    uncached = row.prompt_tokens - row.cached_tokens - row.cache_creation_tokens
    tokens = uncached * price.input + row.cached_tokens * price.cache_read
    tokens += row.cache_creation_tokens * price.cache_write + row.completion_tokens * price.output
    return int(tokens + (price.more.call * PPM * row.calls if price.more else 0))


_TOKENS = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens")
_SUMMED = ("cost", "calls", *_TOKENS, "priced_extras")


def _sums(tx: Transaction, periods: Sequence[Period], by_call: bool) -> Iterable[Any]:
    """The sums of use by period, account and model."""
    cuts = [(n, period.start_ns // PERIOD_NS, period.end_ns // PERIOD_NS) for n, period in enumerate(periods)]
    values = sa.values(*(sa.column(name, sa.BigInteger) for name in ("n", "a", "b"))).data(cuts).cte("cut")
    sums = sa.table("usage_sum", *(sa.column(name) for name in ("account_id", "model_id", "period", "kind", *_SUMMED)))
    kinds = (USED, UNDONE_AT_CALL if by_call else UNDONE_AT_REVERSAL)
    inside = (sums.c.period >= values.c.a) & (sums.c.period < values.c.b) & sums.c.kind.in_(kinds)
    query = (
        sa.select(
            values.c.n.label("period"), sums.c.account_id, sums.c.model_id,
            *(sa.cast(sa.func.sum(sums.c[name]), sa.BigInteger).label(name) for name in _SUMMED),
        )
        .select_from(values.join(sums, inside))
        .group_by(values.c.n, sums.c.account_id, sums.c.model_id)
        .order_by(values.c.n, sums.c.account_id, sums.c.model_id)
    )  # fmt: skip
    return tx.connection().execute(query).all()


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
    sums: dict[tuple[int, int, int], Hao] = {}
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
                _add(sums, place, int(cost), people)
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
                _add(sums, place, sign * rates[place[2]].cost(tokens), people)
    return sums


def _add(sums: dict[tuple[int, int, int], Hao], place: Sequence[Any], cost: Hao, people: set[int]) -> None:
    period, account, model = place
    if period >= 0 and account in people:
        sums[period, account, model] = sums.get((period, account, model), 0) + cost


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
    found: dict[Any, list[Cell]] = {}
    for cell in cells:
        found.setdefault(getattr(cell, by), []).append(cell)
    sums = [_total(name, some) for name, some in found.items()]
    return sorted(sums, key=lambda one: one.name if by == "period" else (-max(one.old, one.new), one.name))


def whole(cells: Sequence[Cell]) -> Total:
    """All of them."""
    return _total("", cells)


def _total(name: Any, cells: Sequence[Cell]) -> Total:
    return Total(
        name, sum(cell.calls for cell in cells), sum(cell.old for cell in cells), sum(cell.new for cell in cells),
        sum(cell.slack for cell in cells), frozenset(cell.source for cell in cells),
    )  # fmt: skip
