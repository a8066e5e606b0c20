"""Where the money went: periods in a time zone, and what was used in them.

Only consumption counts: `deduct` and `settle`, less their reversals, in the period of the call or of the reversal, as the
setting `reversals_count_in` says. They are put together from sums (see sums.py) that are cut in quarters of an hour, so that
every zone's periods add up; nothing here reads the history. Amounts are 毫, times ns since the epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta

from . import accounts, settings, sums
from .actors import Actor
from .database import Transaction
from .errors import Invalid
from .i18n import N_
from .models import ACCOUNT, BOTH, MODEL, UNDONE_AT_CALL, UNDONE_AT_REVERSAL
from .money import Hao
from .rates import Rates
from .sums import QUARTER_NS

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


class Used(NamedTuple):
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


SUMS = Used._fields[2:]


def to_ns(moment: datetime) -> int:
    """A moment with a zone as ns since the epoch."""
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * SECOND + moment.microsecond * 1000


def from_ns(ns: int, tz: tzinfo) -> datetime:
    """A moment in a zone, to the microsecond."""
    return datetime.fromtimestamp(ns // SECOND, tz).replace(microsecond=ns % SECOND // 1000)


def iso(ns: int, tz: tzinfo) -> str:
    """A moment in ISO 8601 with its offset, with a fraction where there is one."""
    return from_ns(ns, tz).isoformat()


def _days(first: date, last: date, tz: ZoneInfo) -> list[Period]:
    return _between([first + timedelta(days=n) for n in range((last - first).days + 2)], tz)


def _months(first: date, last: date, tz: ZoneInfo) -> list[Period]:
    """The months of these dates; of the first and the last one, the days from and up to them."""
    count = (last.year - first.year) * 12 + last.month - first.month
    later = [first.replace(day=1) + relativedelta(months=n + 1) for n in range(count)]
    return _between([first, *later, last + timedelta(days=1)], tz)


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

    start = from_ // QUARTER_NS * QUARTER_NS
    while hour(start - QUARTER_NS) == hour(start):
        start -= QUARTER_NS
    cuts, at = [start], start
    while at < to or hour(at) == hour(at - QUARTER_NS):
        at += QUARTER_NS
        if hour(at) != hour(at - QUARTER_NS):
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
    return _months(today + relativedelta(months=-11, day=1), today + relativedelta(day=31), tz)


def periods_between(first: date, last: date, granularity: str, tz: ZoneInfo) -> list[Period]:
    """The periods from the date `first` up to and including the date `last`: no day more, so that the first and the last
    month may be parts of one. Raises Invalid."""
    if not EARLIEST <= first.year <= last.year <= LATEST and first <= last:
        raise Invalid(
            N_("The range must lie between the years {earliest} and {latest}."),
            field="range", earliest=EARLIEST, latest=LATEST,
        )  # fmt: skip
    if last < first:
        raise Invalid(N_("The range ends before it begins. Swap the two dates."), field="range")
    days = (last - first).days
    if {"hour": 24 * days, "day": days, "month": days // 28}[granularity] > MAX_PERIODS:
        raise Invalid(N_("The range is too long for periods this short. Choose longer periods."), field="range")
    found = _months(first, last, tz) if granularity == "month" else _days(first, last, tz)
    if not found:
        raise Invalid(
            N_("There was no {day} in {zone}: its clocks skipped that day. Choose another one."),
            field="range", day=first.isoformat(), zone=tz.key,
        )  # fmt: skip
    return _hours(found[0].start_ns, found[-1].end_ns, tz) if granularity == "hour" else found


def joined(periods: Sequence[Period]) -> Period:
    """All of them as one."""
    return Period(periods[0].start_ns, periods[-1].end_ns, periods[0].start)


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
    of = ACCOUNT if by == "account" else MODEL if user_id is None else BOTH
    names = _accounts(tx) if by == "account" else dict(tx.rows("SELECT id, name FROM model"))
    place = 1 if by == "account" else 2
    return _named(_used(tx, periods, SUMS, of=of, only=_only(tx, user_id)), place, names)


def _named(found: sums.Found, place: int, names: dict[int, str]) -> list[Used]:
    return [Used(key[0], names[key[place]], *found[key]) for key in sorted(found) if any(found[key])]


def by_account(
    tx: Transaction, periods: Sequence[Period], *, actor: Actor, measure: str, most: int
) -> tuple[list[Used], list[Used]]:
    """What each account used in all periods together, dearest first; and in each period, of the `most` accounts with the
    largest `measure` (a number of Used), and of all others under no name. It reads as much for two thousand accounts as it
    draws. Raises Forbidden."""
    whole_time = sorted(each_account(tx, periods, actor=actor), key=lambda one: (-one.cost, one.name))
    largest = sorted(whole_time, key=lambda one: (-getattr(one, measure), one.name))[:most]
    names, chosen = _accounts(tx), {one.name for one in largest}
    found = _used(tx, periods, SUMS, of=ACCOUNT, only=[number for number, name in names.items() if name in chosen])
    shown = _named(found, 1, names)
    if len(whole_time) > len(largest):
        others = {place: [0] * len(SUMS) for place in range(len(periods))}
        everything = usage(tx, periods, actor=actor, user_id=None)
        for sign, some in ((1, everything), (-1, shown)):
            for one in some:
                for place, part in enumerate(SUMS):
                    others[one.period][place] += sign * getattr(one, part)
        shown += [Used(period, "", *numbers) for period, numbers in others.items() if any(numbers)]
    return whole_time, shown


def each_account(tx: Transaction, periods: Sequence[Period], *, actor: Actor) -> list[Used]:
    """What each account used in all periods together; also those whose periods cancel each other out. Raises Forbidden."""
    actor.must_see(None)
    names, found = _accounts(tx), _used(tx, [joined(periods)], SUMS, of=ACCOUNT, only=None)
    nothing = [account for (_period, account, _model), numbers in found.items() if not any(numbers)]
    apart = _used(tx, periods, SUMS, of=ACCOUNT, only=nothing) if nothing else {}
    cancelled = {account for (_period, account, _model), numbers in apart.items() if any(numbers)}
    return [
        Used(0, names[account], *numbers)
        for (_period, account, _model), numbers in sorted(found.items()) if any(numbers) or account in cancelled
    ]  # fmt: skip


def _accounts(tx: Transaction) -> dict[int, str]:
    return dict(tx.rows("SELECT id, user_id FROM account"))


def _only(tx: Transaction, user_id: str | None) -> list[int] | None:
    """The account's number. Raises UnknownAccount."""
    return None if user_id is None else [accounts.number(tx, user_id)]


def _used(
    tx: Transaction, periods: Sequence[Period], columns: Sequence[str], *, of: int, only: Sequence[int] | None,
    undone: int | None = None,
) -> sums.Found:  # fmt: skip
    """See sums.used; `only` of these accounts; reversals count where the setting says, unless `undone` does."""
    if not periods:
        return {}
    if undone is None:
        by_call = settings.read(tx)["reversals_count_in"] == "call"
        undone = UNDONE_AT_CALL if by_call else UNDONE_AT_REVERSAL
    spans = [(period.start_ns, period.end_ns) for period in periods]
    return sums.used(tx, spans, columns, of=of, undone=undone, accounts=only)


def by_period(periods: Sequence[Period], used: Sequence[Used]) -> list[list[Used]]:
    """What was used, period by period."""
    apart: list[list[Used]] = [[] for _period in periods]
    for one in used:
        apart[one.period].append(one)
    return apart


def totals(used: Sequence[Used]) -> list[Used]:
    """The same by name over all periods, dearest first."""
    so_far: dict[str, Sequence[int]] = {}
    for one in used:
        sums.plus(so_far, one.name, one[2:])
    return sorted((Used(0, name, *numbers) for name, numbers in so_far.items()), key=lambda one: (-one.cost, one.name))


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
    of = MODEL if user_id is None else BOTH
    used = _used(tx, [joined(periods)], ("upstream_cost", "upstream_yuan"), of=of, only=_only(tx, user_id))
    names = dict(tx.rows("SELECT id, name FROM model"))
    found = [Margin(names[model], *numbers) for (_period, _account, model), numbers in used.items()]
    return sorted((one for one in found if one.cost or one.asked), key=lambda one: (-one.cost, one.name))


def spent(
    tx: Transaction, periods: Sequence[Period], *, actor: Actor, user_id: str | None, undone: int | None = None
) -> list[int]:
    """The cost of each period, in 毫. `undone`: where reversals count, UNDONE_AT_CALL or UNDONE_AT_REVERSAL; None: where the
    setting says. Raises Forbidden, UnknownAccount."""
    costs = [0] * len(periods)
    actor.must_see(user_id)
    of = MODEL if user_id is None else ACCOUNT
    found = _used(tx, periods, ("cost",), of=of, only=_only(tx, user_id), undone=undone)
    for (period, _account, _model), (cost,) in found.items():
        costs[period] += cost
    return costs


def spent_by(
    tx: Transaction, periods: Sequence[Period], *, actor: Actor, user_ids: Sequence[str] | None = None
) -> dict[str, list[int]]:
    """The same for each of many accounts (all: None) at once. Raises Forbidden."""
    actor.must_be_admin()
    names = _accounts(tx)
    chosen = set(names.values() if user_ids is None else user_ids)
    only = None if user_ids is None else [number for number, name in names.items() if name in chosen]
    costs = {name: [0] * len(periods) for name in names.values() if name in chosen}
    for (period, account, _model), (cost,) in _used(tx, periods, ("cost",), of=ACCOUNT, only=only).items():
        costs[names[account]][period] += cost
    return costs
