"""Periods in any zone, and sums that add up in them: what the older system got wrong, and this one gets right."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
import sqlalchemy as sa
from conftest import NOON, SECOND, Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plans import plans

from billing_core import accounts, ledger, stats
from billing_core import settings as our_settings
from billing_core.actors import SHELL, Actor
from billing_core.database import Database
from billing_core.errors import Invalid, UnknownAccount
from billing_core.stats import LABELS, Period
from billing_core.sums import QUARTER_NS
from billing_core.tokens import Tokens
from billing_core.zones import zone as named

HOUR = 3600 * SECOND
MODEL = "nobody/knows"
"""Costs the default: 18 元 per million tokens of input, 72 of output."""


def ns(text: str, zone: str = "UTC") -> int:
    return stats.to_ns(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


def last(now: str, granularity: str, zone: str = "UTC", days: int = 7) -> list[Period]:
    return stats.last_periods(ns(now, zone), granularity, ZoneInfo(zone), days)


def between(first: str, last: str, granularity: str, zone: str = "UTC") -> list[Period]:
    return stats.periods_between(date.fromisoformat(first), date.fromisoformat(last), granularity, ZoneInfo(zone))


def hours(period: Period) -> float:
    return (period.end_ns - period.start_ns) / HOUR


def labels(periods: list[Period], granularity: str) -> list[str]:
    return [period.start.strftime(LABELS[granularity]) for period in periods]


# Where the window starts


def test_the_first_day_is_a_whole_one() -> None:
    periods = last("2025-06-15T17:30", "day", "Asia/Shanghai", days=3)
    assert [period.start.isoformat() for period in periods] == [
        "2025-06-13T00:00:00+08:00",
        "2025-06-14T00:00:00+08:00",
        "2025-06-15T00:00:00+08:00",
    ]


def test_twelve_months_are_shown_whatever_the_number_of_days() -> None:
    for days in (1, 7, 400):
        periods = last("2025-03-31T12:00", "month", "Asia/Shanghai", days=days)
        assert labels(periods, "month") == [f"2024-{month:02}" for month in range(4, 13)] + [
            "2025-01",
            "2025-02",
            "2025-03",
        ]
        assert periods[0].start.isoformat() == "2024-04-01T00:00:00+08:00"


def test_the_last_24_hours_end_with_the_current_one() -> None:
    periods = last("2025-06-15T17:30", "hour", "Asia/Shanghai")
    assert (len(periods), labels(periods, "hour")[0], labels(periods, "hour")[-1]) == (24, "18:00", "17:00")
    assert periods[-1].start_ns == ns("2025-06-15T17:00", "Asia/Shanghai")


def test_the_very_first_moment_of_a_period_is_in_it() -> None:
    for granularity in LABELS:
        (*_, current) = last("2025-03-01T00:00", granularity, "Asia/Kolkata")
        assert current.start_ns == ns("2025-03-01T00:00", "Asia/Kolkata")


def test_months_begin_with_their_first_day_and_have_all_their_days() -> None:
    months = between("2024-01-01", "2024-12-31", "month", "Asia/Shanghai")
    assert [hours(one) // 24 for one in months] == [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    assert {one.start.day for one in months} == {1}


@pytest.mark.parametrize("granularity", ["month", "day", "hour"])
@pytest.mark.parametrize(
    ("first", "end"),
    [("2025-08-15", "2025-08-20"), ("2024-01-31", "2024-03-01"), ("2024-12-31", "2025-01-01"), ("2025-02-01", "2025-02-28")],
)  # fmt: skip
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York"])
def test_a_range_holds_its_days_and_no_other(first: str, end: str, granularity: str, zone: str) -> None:
    periods = between(first, end, granularity, zone)
    following = date.fromisoformat(end) + timedelta(days=1)
    assert (periods[0].start_ns, periods[-1].end_ns) == (
        ns(f"{first}T00:00", zone),
        ns(f"{following}T00:00", zone),
    )
    assert all(one.end_ns == other.start_ns for one, other in pairwise(periods))
    if granularity == "month":
        assert len(periods) == len(
            {day[:7] for day in (first, end)} | ({"2024-02"} if first == "2024-01-31" else set())
        )


@pytest.mark.parametrize("granularity", ["month", "day", "hour"])
def test_a_day_that_a_zone_skipped_is_refused(granularity: str) -> None:
    """Samoa went to the other side of the date line; Kwajalein had done so before."""
    for zone, day in (("Pacific/Apia", "2011-12-30"), ("Pacific/Kwajalein", "1993-08-21")):
        with pytest.raises(Invalid, match=f"There was no {day} in {zone}"):
            between(day, day, granularity, zone)
    around = between("2011-12-29", "2011-12-31", "day", "Pacific/Apia")
    assert [one.start.day for one in around] == [29, 31]
    assert len(between("2011-12-29", "2011-12-31", "hour", "Pacific/Apia")) == 48


# Days and hours of the zones that people live in


@pytest.mark.parametrize(
    ("zone", "day", "length"),
    [
        ("Europe/Berlin", "2025-03-30", 23),
        ("Europe/Berlin", "2025-10-26", 25),
        ("America/New_York", "2025-03-09", 23),
        ("America/New_York", "2025-11-02", 25),
        ("Australia/Lord_Howe", "2025-10-05", 23.5),
        ("Australia/Lord_Howe", "2025-04-06", 24.5),
        ("America/Santiago", "2025-09-07", 23),  # the clock skips midnight itself
        ("America/Santiago", "2025-04-05", 25),
        ("America/Havana", "2025-11-02", 25),  # midnight comes twice
        ("Asia/Kolkata", "2025-06-15", 24),
        ("Asia/Kathmandu", "2025-06-15", 24),
    ],
)
def test_a_day_is_as_long_as_its_clock_says(zone: str, day: str, length: float) -> None:
    (period,) = between(day, day, "day", zone)
    assert hours(period) == length
    assert period.start.date() == date.fromisoformat(day)
    within = between(day, day, "hour", zone)
    assert (within[0].start_ns, within[-1].end_ns) == (period.start_ns, period.end_ns)
    assert sum(hours(one) for one in within) == length


def test_the_hour_that_comes_twice_is_two_periods_told_apart_by_their_start() -> None:
    periods = between("2025-10-26", "2025-10-26", "hour", "Europe/Berlin")
    twice = [period.start.isoformat() for period in periods if period.start.hour == 2]
    assert twice == ["2025-10-26T02:00:00+02:00", "2025-10-26T02:00:00+01:00"]
    assert {hours(period) for period in periods} == {1}
    seen = labels(last("2025-10-26T12:30", "hour", "Europe/Berlin"), "hour")
    assert (len(seen), seen.count("02:00")) == (24, 2)


def test_half_an_hour_that_comes_twice_is_a_period_of_its_own() -> None:
    periods = between("2025-04-06", "2025-04-06", "hour", "Australia/Lord_Howe")
    around = [(period.start.isoformat(), hours(period)) for period in periods if period.start.hour == 1]
    assert around == [("2025-04-06T01:00:00+11:00", 1), ("2025-04-06T01:30:00+10:30", 0.5)]


def test_hours_begin_where_the_clock_of_a_half_hour_or_45_minute_zone_says() -> None:
    for name, minute in (("Asia/Kolkata", 30), ("Asia/Kathmandu", 15)):
        periods = last("2025-06-15T17:30", "hour", name)
        assert {period.start.minute for period in periods} == {0}
        assert {period.start.astimezone(UTC).minute for period in periods} == {minute}


def test_a_day_that_a_zone_skipped_has_no_period() -> None:
    periods = between("2011-12-29", "2011-12-31", "day", "Pacific/Apia")
    assert labels(periods, "day") == ["12-29", "12-31"]
    assert periods[0].end_ns == periods[1].start_ns


def test_days_more_than_a_year_apart_share_a_label_and_are_still_two() -> None:
    periods = last("2025-06-15T17:30", "day", days=400)
    twice = [period for period in periods if period.start.strftime("%m-%d") == "06-01"]
    assert [period.start.year for period in twice] == [2024, 2025]


ZONES = st.sampled_from(sorted(available_timezones()))
DAYS = st.dates(date(2000, 1, 2), date(2037, 12, 31))


@settings(max_examples=150, deadline=None)
@given(ZONES, DAYS, st.integers(0, 40), st.sampled_from(sorted(LABELS)))
def test_periods_lie_side_by_side_and_begin_where_their_label_says(
    zone: str, first: date, days: int, granularity: str
) -> None:
    periods = stats.periods_between(first, first + timedelta(days=days), granularity, ZoneInfo(zone))
    assert all(a.end_ns == b.start_ns for a, b in pairwise(periods))
    assert all(period.start_ns < period.end_ns for period in periods)
    assert all(stats.to_ns(period.start) == period.start_ns for period in periods)
    assert all(period.start_ns % QUARTER_NS == 0 for period in periods)  # no sum is cut in two
    if granularity == "month":
        assert {period.start.day for period in periods[1:]} <= {1}
        assert periods[0].start.date() == first
    if granularity == "day":
        dates = [period.start.date() for period in periods]
        assert dates == sorted(set(dates))
    if granularity == "hour":
        assert len({period.start.isoformat() for period in periods}) == len(periods)
        assert all(hours(period) <= 1 for period in periods)


@settings(max_examples=100, deadline=None)
@given(ZONES, st.datetimes(datetime(2001, 1, 1), datetime(2037, 1, 1)), st.sampled_from(sorted(LABELS)))
def test_the_last_period_is_the_one_that_is_now(zone: str, moment: datetime, granularity: str) -> None:
    now_ns = stats.to_ns(moment.replace(tzinfo=UTC))
    periods = stats.last_periods(now_ns, granularity, ZoneInfo(zone))
    assert periods[-1].start_ns <= now_ns < periods[-1].end_ns
    assert len(periods) in ({"hour": {24}, "month": {12}, "day": {6, 7}}[granularity])


def test_a_moment_survives_its_way_through_a_zone() -> None:
    assert stats.from_ns(NOON + 123_456_789, ZoneInfo("Asia/Kolkata")).isoformat() == "2025-06-15T20:36:40.123456+05:30"
    assert stats.to_ns(stats.from_ns(-1_000, ZoneInfo("UTC"))) == -1_000


@pytest.mark.parametrize(
    "name", ["Nowhere/Land", "../etc/passwd", "/etc/localtime", "utc ", "a\0b", "\ud800"], ids=count()
)
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="not a time zone"):
        named(name)


def test_without_a_zone_it_is_utc() -> None:
    assert [named(name).key for name in (None, "", "Asia/Shanghai")] == ["UTC", "UTC", "Asia/Shanghai"]


@pytest.mark.parametrize("days", [0, -1, 4001, True, 1.5, "7", None, 10**30], ids=repr)
def test_a_number_of_days_that_is_no_count_is_refused(days: object) -> None:
    with pytest.raises(Invalid, match="days is a whole number from 1 to 4000"):
        stats.last_periods(NOON, "day", ZoneInfo("UTC"), days)  # type: ignore[arg-type]


@pytest.mark.parametrize("granularity", ["week", "", "Hour", None])
def test_a_granularity_that_is_none_is_refused(granularity: str) -> None:
    with pytest.raises(Invalid, match="hour, day or month"):
        stats.last_periods(NOON, granularity, ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("first", "end", "granularity"),
    [
        ("2025-06-15", "2025-06-14", "day"),
        ("2000-01-01", "2025-01-01", "day"),
        ("2025-01-01", "2025-12-31", "hour"),
        ("0001-01-01", "0001-01-02", "day"),
        ("0001-01-01", "9999-12-31", "month"),
        ("9999-12-30", "9999-12-31", "day"),
        ("9999-12-30", "9999-12-31", "month"),
        ("9999-12-31", "9999-12-31", "hour"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_a_range_that_cannot_be_shown_is_refused(first: str, end: str, granularity: str, zone: str) -> None:
    with pytest.raises(Invalid, match="range") as refused:
        between(first, end, granularity, zone)
    assert refused.value.field == "range"


# Sums


def spend(db: Database, at_ns: int, tokens: Tokens = Tokens(1000, 0), user_id: str = "ann", model: str = MODEL) -> int:
    options = {"created_at_ns": at_ns, "allow_debt": True}
    return db.write(ledger.charge, user_id, model, tokens, actor=SHELL, **options).entry_id  # type: ignore[arg-type]


def test_an_account_whose_days_cancel_each_other_out_is_shown(db: Database, ann: str, clock: Clock) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    db.write(our_settings.change, "reversals_count_in", "reversal", actor=SHELL)
    undone = spend(db, NOON)
    spend(db, NOON, user_id="bob")
    periods = stats.periods_between(date(2025, 6, 15), date(2025, 6, 16), "day", ZoneInfo("UTC"))
    clock.forward(days=1)
    db.write(ledger.reverse, undone, "wrong", actor=SHELL)

    def drawn(most: int) -> dict[tuple[int, str], int]:
        totals, shown = db.read(stats.by_account, periods, actor=SHELL, measure="cost", most=most)
        assert [(one.name, one.cost) for one in totals] == [("bob", 180), ("ann", 0)]
        return {(one.period, one.name): one.cost for one in shown}

    assert drawn(10) == {(0, "ann"): 180, (0, "bob"): 180, (1, "ann"): -180}
    assert drawn(1) == {(0, ""): 180, (0, "bob"): 180, (1, ""): -180}


def test_tokens_that_cost_nothing_in_the_end_are_still_counted(db: Database, ann: str, clock: Clock) -> None:
    """A call that is undone on another day, and one made for the same money with other tokens."""
    db.write(our_settings.change, "reversals_count_in", "reversal", actor=SHELL)
    undone = spend(db, NOON, Tokens(1000, 0))
    clock.forward(days=1)
    db.write(ledger.reverse, undone, "wrong", actor=SHELL)
    spend(db, clock.now_ns, Tokens(600, 100))
    periods = stats.periods_between(date(2025, 6, 15), date(2025, 6, 16), "day", ZoneInfo("UTC"))
    used = db.read(stats.usage, periods, actor=SHELL, user_id=None)
    assert [(one.cost, one.calls, one.tokens) for one in used] == [(180, 1, 1000), (0, 0, -300)]


def test_what_was_used_stands_in_its_period_by_model_and_empty_ones_cost_0(db: Database, ann: str) -> None:
    periods = stats.last_periods(NOON, "day", ZoneInfo("Asia/Shanghai"), 3)
    spend(db, periods[0].start_ns)
    spend(db, periods[0].start_ns - 1, model="too/early")
    spend(db, periods[2].start_ns - 1, Tokens(10, 20, 3, 4, 5), model="other")
    spend(db, NOON, Tokens(2000, 0))
    spend(db, NOON)
    used = db.read(stats.usage, periods, actor=SHELL, user_id=ann)
    assert [(one.period, one.name, one.cost, one.calls) for one in used] == [
        (0, MODEL, 180, 1),
        (1, "other", 17, 1),
        (2, MODEL, 540, 2),
    ]
    other = used[1]
    assert (other.prompt_tokens, other.completion_tokens, other.tokens) == (10, 20, 30)
    assert (other.cached_tokens, other.cache_creation_tokens, other.reasoning_tokens) == (3, 4, 5)
    assert db.read(stats.spent, periods, actor=SHELL, user_id=ann) == [180, 17, 540]
    assert [(one.name, one.cost, one.calls) for one in stats.totals(used)] == [(MODEL, 720, 3), ("other", 17, 1)]
    assert db.read(stats.usage, [], actor=SHELL, user_id=ann) == []


def test_only_consumption_counts(db: Database, ann: str, clock: Clock) -> None:
    periods = stats.last_periods(NOON, "hour", ZoneInfo("UTC"))
    db.write(ledger.recharge, ann, 100_000, actor=SHELL)
    first, second, _ = [db.write(ledger.precharge, ann, MODEL, 1000, 0, actor=SHELL).entry_id for _ in range(3)]
    db.write(ledger.refund, first, actor=SHELL)
    assert db.read(stats.usage, periods, actor=SHELL, user_id=ann) == []
    db.write(ledger.settle, second, Tokens(500, 0), actor=SHELL)
    clock.forward(seconds=900)
    db.write(ledger.expire_holds)
    assert sum(db.read(stats.spent, periods, actor=SHELL, user_id=ann)) == 90


def test_a_reversal_takes_back_what_the_period_of_the_call_counted(db: Database, ann: str, clock: Clock) -> None:
    entry = spend(db, NOON, Tokens(10, 20, 3, 4, 5))
    clock.forward(days=40)
    periods = stats.last_periods(clock.now_ns, "month", ZoneInfo("UTC"))
    before = db.read(stats.usage, periods, actor=SHELL, user_id=ann)
    undone = db.write(ledger.reverse, entry, "a mistake", actor=SHELL).entry_id
    assert db.read(stats.usage, periods, actor=SHELL, user_id=ann) == []
    db.write(ledger.reverse, undone, "right after all", actor=SHELL)
    assert db.read(stats.usage, periods, actor=SHELL, user_id=ann) == before


def test_an_admin_sees_everybody_by_model_or_by_account(db: Database, ann: str) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    spend(db, NOON)
    spend(db, NOON, user_id="bob")
    spend(db, NOON, user_id="bob", model="other")
    periods = stats.last_periods(NOON, "day", ZoneInfo("UTC"))
    by_account = db.read(stats.usage, periods, actor=SHELL, user_id=None, by="account")
    assert [(one.name, one.cost) for one in stats.totals(by_account)] == [("bob", 360), ("ann", 180)]
    by_model = db.read(stats.usage, periods, actor=SHELL, user_id=None)
    assert [(one.name, one.cost) for one in stats.totals(by_model)] == [(MODEL, 360), ("other", 180)]
    member = Actor(db.read(accounts.find, ann).id, ann, "Ann")
    assert sum(db.read(stats.spent, periods, actor=member, user_id=ann)) == 180
    with pytest.raises(UnknownAccount):
        db.read(stats.usage, periods, actor=SHELL, user_id="nobody")


def test_as_many_periods_as_may_be_asked_for_are_answered(db: Database, ann: str) -> None:
    spend(db, NOON)
    periods = stats.last_periods(NOON, "day", ZoneInfo("UTC"), stats.MAX_PERIODS)
    assert db.read(stats.spent, periods, actor=SHELL, user_id=None) == [0] * 3999 + [180]


MOMENTS = st.integers(ns("2025-01-01T00:00") // SECOND, NOON // SECOND)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zone=ZONES,
    moments=st.lists(st.tuples(MOMENTS, st.booleans()), max_size=6),
    granularity=st.sampled_from(["hour", "day", "month"]),
)
def test_the_sums_over_periods_are_the_sums_of_their_entries_in_any_zone(
    db: Database, ann: str, zone: str, moments: list[tuple[int, bool]], granularity: str
) -> None:
    for moment, is_reversed in moments:
        entry = spend(db, moment * SECOND)
        if is_reversed:
            db.write(ledger.reverse, entry, "a mistake", actor=SHELL)
    first = {"hour": date(2025, 6, 1)}.get(granularity, date(2025, 1, 2))
    periods = stats.periods_between(first, date(2025, 6, 15), granularity, ZoneInfo(zone))
    counted = sa.text(
        "SELECT coalesce(sum(cost), 0) FROM entry WHERE type = 'deduct' AND created_at_ns >= :a AND created_at_ns < :b "
        "AND id NOT IN (SELECT reverses_id FROM entry WHERE reverses_id IS NOT NULL)"
    )
    spent = db.read(stats.spent, periods, actor=SHELL, user_id=ann)
    busy = [n for n, cost in enumerate(spent) if cost]

    def entries(a: int, b: int) -> int:
        return int(db.read(lambda tx: tx.connection().scalar(counted, {"a": a, "b": b})))

    assert sum(spent) == entries(periods[0].start_ns, periods[-1].end_ns)
    assert [spent[n] for n in busy] == [entries(periods[n].start_ns, periods[n].end_ns) for n in busy]


# How it is read


def test_reading_sums_takes_an_index_and_never_reads_the_history(sqlite_url: str) -> None:
    db = Database(sqlite_url, clock=lambda: NOON)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    spend(db, NOON)
    year = stats.last_periods(NOON, "month", ZoneInfo("UTC"))
    for user_id in ("ann", None):
        for by in ("model", "account"):
            asked = plans(db, partial(db.read, stats.usage, year, actor=SHELL, user_id=user_id, by=by))
            steps = [step for plan in asked for step in plan]
            read = [step for step in steps if re.match(r"(SEARCH|SCAN) [seb]\b", step)]
            assert read, steps
            for step in read:  # sums by their key down to the period, and further; entries by account and time
                assert re.match(
                    r"SEARCH (s|b) USING PRIMARY KEY \(of=\? AND length=\? AND period=\?"
                    r"|SEARCH e USING INDEX entry_at \(account_id=\? AND created_at_ns>\? AND created_at_ns<\?\)",
                    step,
                ), steps
    db.close()


@pytest.mark.parametrize("measure", ["cost", "calls", "tokens"])
def test_stats_of_many_accounts_draw_the_largest_and_add_up_the_others(db: Database, measure: str) -> None:
    for n in range(5):
        db.write(accounts.add, f"user{n}", f"User {n}", actor=SHELL)
        for day in range(n % 3 + 1):
            for _ in range(5 - n):
                db.write(
                    ledger.charge, f"user{n}", "some/model", Tokens(1000 * (n + 1), n), actor=SHELL, allow_debt=True,
                    created_at_ns=NOON - day * 86_400 * SECOND,
                )  # fmt: skip
    days = stats.last_periods(NOON, "day", ZoneInfo("UTC"), 3)
    used = db.read(stats.usage, days, actor=SHELL, user_id=None, by="account")
    whole, drawn = db.read(stats.by_account, days, actor=SHELL, measure=measure, most=2)
    assert whole == stats.totals(used)
    largest = {one.name for one in sorted(whole, key=lambda one: (-getattr(one, measure), one.name))[:2]}
    assert [one for one in drawn if one.name] == [one for one in used if one.name in largest]
    for place in range(3):
        both = [[one for one in some if one.period == place] for some in (drawn, used)]
        assert stats.whole(both[0]) == stats.whole(both[1])
    others = [one.period for one in drawn if not one.name]
    assert others == sorted({one.period for one in used if one.name not in largest})
    everybody = db.read(stats.by_account, days, actor=SHELL, measure=measure, most=5)
    assert everybody == (whole, used)
