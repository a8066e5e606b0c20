"""Where the money went: periods in a time zone, and what was used in them.

Only consumption counts: `deduct` and `settle`, less their reversals, in the period of the call or of the reversal, as the
setting `reversals_count_in` says. Sums come from usage_sum, which is cut in quarters of
an hour, so that every zone's periods add up; nothing here reads the history. Amounts are 毫, times ns since the epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta
from sqlalchemy import BigInteger, column, func, select, values
from sqlalchemy import cast as sql_cast

from . import accounts, settings
from .actors import Actor
from .database import Transaction
from .errors import Invalid
from .i18n import N_
from .ledger import PERIOD_NS
from .models import ACCOUNTS, MODELS, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USAGE_SUMS, USED
from .money import Hao
from .rates import Rates

SECOND = 1_000_000_000
LABELS = {"hour": "%H:00", "day": "%m-%d", "month": "%Y-%m"}
MAX_PERIODS = 4000
EARLIEST, LATEST = 1990, 2200
"""Years: no entry is older than 2000, and beyond 2262 a moment in ns is more than the database keeps."""


@dataclass(frozen=True, slots=True)
class Period:
    """From `start_ns` up to, not including, `end_ns`; `start` is the same moment in the viewer's zone."""

    start_ns: int
    end_ns: int
    start: datetime


@dataclass(frozen=True, slots=True)
class Used:
    """What was used of one model (or by one account, see usage) in one period: `cost` in 毫, counts in calls and tokens."""

    period: int
    """The period's place in the list that was asked for."""
    name: str
    cost: Hao
    calls: int
    prompt_tokens: int
    cached_tokens: int
    cache_creation_tokens: int
    completion_tokens: int
    reasoning_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def cost_at(self, rates: Rates) -> int:
        """What all of it would have cost at a price, in 毫; about, as each call is rounded up on its own."""
        uncached = self.prompt_tokens - self.cached_tokens - self.cache_creation_tokens
        return rates.cost_of(uncached, self.cached_tokens, self.cache_creation_tokens, self.completion_tokens)


SUMS = tuple(field.name for field in fields(Used)[2:])


def to_ns(moment: datetime) -> int:
    """A moment with a zone as ns since the epoch."""
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * SECOND + moment.microsecond * 1000


def from_ns(ns: int, tz: tzinfo) -> datetime:
    """A moment in a zone, to the microsecond."""
    return datetime.fromtimestamp(ns // SECOND, tz).replace(microsecond=ns % SECOND // 1000)


def _days(first: date, last: date, tz: ZoneInfo) -> list[Period]:
    return _between([first + timedelta(days=n) for n in range((last - first).days + 2)], tz)


def _months(first: date, last: date, tz: ZoneInfo) -> list[Period]:
    count = (last.year - first.year) * 12 + last.month - first.month + 2
    return _between([first.replace(day=1) + relativedelta(months=n) for n in range(count)], tz)


def _between(starts: list[date], tz: ZoneInfo) -> list[Period]:
    """The periods between the midnights that begin these dates; a date that a zone skipped has none."""
    moments = [datetime(day.year, day.month, day.day, tzinfo=tz) for day in starts]
    cuts = [to_ns(moment) for moment in moments]
    return [Period(start, end, from_ns(start, tz)) for start, end in pairwise(cuts) if start < end]


def _hours(from_: int, to: int, tz: ZoneInfo) -> list[Period]:
    """The clock's hours that overlap [from_, to), whole. Where a clock goes back, its second 01:00 is an hour of its own."""

    def hour(ns: int) -> tuple[Any, ...]:
        moment = from_ns(ns, tz)
        return moment.date(), moment.hour, moment.utcoffset()

    start = from_ // PERIOD_NS * PERIOD_NS
    while hour(start - PERIOD_NS) == hour(start):
        start -= PERIOD_NS
    cuts, at = [start], start
    while at < to or hour(at) == hour(at - PERIOD_NS):
        at += PERIOD_NS
        if hour(at) != hour(at - PERIOD_NS):
            cuts.append(at)
    return [Period(a, b, from_ns(a, tz)) for a, b in pairwise(cuts)]


def last_periods(now_ns: int, granularity: str, tz: ZoneInfo, days: int = 7) -> list[Period]:
    """The last 24 hours, `days` days or 12 months, oldest first, the current period included. Raises Invalid."""
    if granularity not in LABELS:
        raise Invalid(N_("granularity is hour, day or month."), field="granularity")
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MAX_PERIODS:
        raise Invalid(N_("days is a whole number from 1 to {most}."), field="days", most=MAX_PERIODS)
    today = from_ns(now_ns, tz).date()
    if granularity == "hour":
        return _hours(now_ns - 25 * 3600 * SECOND, now_ns + 1, tz)[-24:]
    if granularity == "day":
        return _days(today - timedelta(days=days - 1), today, tz)
    return _months(today + relativedelta(months=-11), today, tz)


def periods_between(first: date, last: date, granularity: str, tz: ZoneInfo) -> list[Period]:
    """The periods from the date `first` up to and including the date `last`. Raises Invalid."""
    if not EARLIEST <= first.year <= last.year <= LATEST and first <= last:
        raise Invalid(
            N_("The range must lie between the years {earliest} and {latest}."),
            field="range", earliest=EARLIEST, latest=LATEST,
        )  # fmt: skip
    if last < first:
        raise Invalid(N_("The range ends before it begins. Swap the two dates."), field="range")
    if (last - first).days * (24 if granularity == "hour" else 1) > MAX_PERIODS:
        raise Invalid(N_("The range is too long for periods this short. Choose longer periods."), field="range")
    if granularity == "month":
        return _months(first, last, tz)
    days = _days(first, last, tz)
    return _hours(days[0].start_ns, days[-1].end_ns, tz) if granularity == "hour" else days


RANGES = {"24h": ("hour", 1), "7d": ("day", 7), "30d": ("day", 30), "12m": ("month", 1)}
"""What people choose from, besides two dates: periods of what length, and of how many days."""


def chosen_periods(
    now_ns: int, chosen: str, tz: ZoneInfo, dates: tuple[date, date] | None = None
) -> tuple[list[Period], str]:
    """The periods of one of RANGES, or of two dates, and their granularity, which suits the length. Raises Invalid."""
    if dates is None:
        granularity, days = RANGES[chosen]
        return last_periods(now_ns, granularity, tz, days), granularity
    length = (dates[1] - dates[0]).days
    granularity = "hour" if length < 2 else "day" if length <= 92 else "month"
    return periods_between(*dates, granularity, tz), granularity


def usage(
    tx: Transaction,
    periods: Sequence[Period],
    *,
    actor: Actor,
    user_id: str | None,
    by: str = "model",
) -> list[Used]:
    """What an account (all of them: None) used in each period, by `model` or by `account` (its user id); nothing where
    nothing was used. Raises Forbidden, UnknownAccount."""
    actor.must_see(user_id)
    if not periods:
        return []
    account = None if user_id is None else accounts.find(tx, user_id).id
    cuts = [(n, p.start_ns // PERIOD_NS, p.end_ns // PERIOD_NS) for n, p in enumerate(periods)]
    cut = values(column("n", BigInteger), column("a", BigInteger), column("b", BigInteger)).data(cuts).cte("cut")
    group = USAGE_SUMS.c.model_id if by == "model" else USAGE_SUMS.c.account_id
    table = MODELS if by == "model" else ACCOUNTS
    name = MODELS.c.name if by == "model" else ACCOUNTS.c.user_id
    by_call = settings.read(tx)["reversals_count_in"] == "call"
    kinds = (USED, UNDONE_AT_CALL if by_call else UNDONE_AT_REVERSAL)
    inside = (USAGE_SUMS.c.period >= cut.c.a) & (USAGE_SUMS.c.period < cut.c.b) & USAGE_SUMS.c.kind.in_(kinds)
    if account is not None:
        inside &= USAGE_SUMS.c.account_id == account
    sums = (
        select(
            cut.c.n,
            group.label("id"),
            *(sql_cast(func.sum(USAGE_SUMS.c[part]), BigInteger).label(part) for part in SUMS),
        )
        .select_from(cut.join(USAGE_SUMS, inside))
        .group_by(cut.c.n, group)
        .subquery()
    )
    rows = tx.connection().execute(
        select(sums.c.n, name, *(sums.c[part] for part in SUMS)).join(table, table.c.id == sums.c.id).order_by(sums.c.n)
    )
    return [used for row in rows if (used := Used(*row)).calls or used.cost]


def totals(used: Sequence[Used]) -> list[Used]:
    """The same by name over all periods, dearest first."""
    sums: dict[str, list[int]] = {}
    for one in used:
        so_far = sums.setdefault(one.name, [0] * len(SUMS))
        for place, part in enumerate(SUMS):
            so_far[place] += getattr(one, part)
    return sorted((Used(0, name, *numbers) for name, numbers in sums.items()), key=lambda one: (-one.cost, one.name))


def whole(used: Sequence[Used]) -> Used:
    """All of it added up, under no name."""
    return Used(0, "", *(sum(getattr(one, part) for one in used) for part in SUMS))


@dataclass(frozen=True, slots=True)
class Margin:
    """Of the calls of a model whose provider's price is known, what they cost here and what the provider asks."""

    name: str
    cost: Hao
    """毫"""
    asked: int
    """10⁻⁹ 元"""

    @property
    def margin(self) -> Hao:
        """In 毫, rounded down."""
        return (self.cost * 100_000 - self.asked) // 100_000


def margins(tx: Transaction, periods: Sequence[Period], *, actor: Actor, user_id: str | None) -> list[Margin]:
    """The margin on each model's calls, for admins, dearest first. Raises Forbidden, UnknownAccount."""
    actor.must_be_admin()
    if not periods:
        return []
    by_call = settings.read(tx)["reversals_count_in"] == "call"
    kinds = (USED, UNDONE_AT_CALL if by_call else UNDONE_AT_REVERSAL)
    sums = USAGE_SUMS.c
    query = (
        select(
            MODELS.c.name, *(sql_cast(func.sum(part), BigInteger) for part in (sums.upstream_cost, sums.upstream_yuan))
        )
        .join(MODELS, MODELS.c.id == sums.model_id)
        .where(sums.period >= periods[0].start_ns // PERIOD_NS, sums.period < periods[-1].end_ns // PERIOD_NS)
        .where(sums.kind.in_(kinds))
        .group_by(MODELS.c.name)
    )
    if user_id is not None:
        query = query.where(sums.account_id == accounts.find(tx, user_id).id)
    found = [Margin(*row) for row in tx.connection().execute(query)]
    return sorted((one for one in found if one.cost or one.asked), key=lambda one: (-one.cost, one.name))


def spent(tx: Transaction, periods: Sequence[Period], *, actor: Actor, user_id: str | None) -> list[int]:
    """The cost of each period, in 毫."""
    costs = [0] * len(periods)
    for one in usage(tx, periods, actor=actor, user_id=user_id):
        costs[one.period] += one.cost
    return costs
