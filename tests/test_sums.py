"""What is kept of use at several lengths, and any stretch of time put together from it."""

from itertools import pairwise
from typing import Any

import pytest
from conftest import NOON, Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sums_reference import NUMBERS, expected, kept, opened

from billing_core import accounts, ledger, pricing, stats, sums
from billing_core import settings as our_settings
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction, migrate
from billing_core.ledger import Charge, Receipt
from billing_core.models import ACCOUNT, BOTH, MODEL, OTHER, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USED
from billing_core.sums import LONG, QUARTER_NS
from billing_core.tokens import Tokens
from billing_core.zones import zone

START = NOON // QUARTER_NS
QUARTERS = st.one_of(
    st.integers(-3, 3), st.integers(-2 * LONG, 0), st.integers(-20 * LONG, 0), st.sampled_from([-LONG, -96, -16, -4, 0])
)
CALLS = st.tuples(st.sampled_from(["ann", "bob", "eve"]), st.sampled_from("ab"), QUARTERS, st.integers(0, 3))
PAUSES = st.sampled_from([0, 0, 0, 0, 60, 900, 3 * 3600, 8 * 86_400])
"""Seconds between two calls."""


@pytest.fixture(autouse=True)
def few_calls_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "BUSY_CALLS", 3)


@pytest.fixture
def team(db: Database, ann: str) -> Database:
    for user_id in ("bob", "eve"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
    return db


def charge(db: Database, user_id: str, model: str, quarter: int, tokens: int) -> int:
    at = min(db.clock(), (db.clock() // QUARTER_NS + quarter) * QUARTER_NS + 7)
    done = db.write(
        ledger.charge,
        user_id,
        model,
        Tokens(1000 * tokens, 100 * tokens),
        actor=SHELL,
        created_at_ns=at,
        allow_debt=True,
    )
    return done.entry_id


def in_all(db: Database, spans: list[tuple[int, int]], of: int, undone: int, only: Any) -> dict[Any, tuple[int, ...]]:
    """The same as sums.used, by adding up quarters of an hour that are worked out from the entries."""
    found: dict[Any, tuple[int, ...]] = {}
    entries = db.read(lambda tx: tx.rows(
        "SELECT account_id, model_id, created_at_ns, cost, 1, coalesce(prompt_tokens, 0) FROM entry "
        "WHERE type IN ('deduct', 'settle')"
    ))  # fmt: skip
    rows = [(account, model, at // QUARTER_NS, *numbers) for account, model, at, *numbers in entries]
    rows += [
        (account, model, period, numbers[0], numbers[1], numbers[2])
        for (of_, length, period, account, model, kind), numbers in expected(db).items()
        if of_ == BOTH and length == 1 and kind == undone
    ]
    for place, (start, end) in enumerate(spans):
        for account, model, quarter, *numbers in rows:
            if start <= quarter * QUARTER_NS < end and (only is None or account in only):
                key = (place, 0 if of == MODEL else account, 0 if of == ACCOUNT else model)
                found[key] = tuple(map(sum, zip(numbers, found.get(key, [0, 0, 0]), strict=True)))
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(st.tuples(CALLS, PAUSES), min_size=1, max_size=25),
    reversed_=st.sets(st.integers(0, 24), max_size=4),
    cuts=st.lists(QUARTERS, min_size=2, max_size=6, unique=True),
    days=st.integers(0, 9),
)
def test_any_stretch_is_the_sum_of_its_entries(
    team: Database, clock: Clock, calls: list[Any], reversed_: set[int], cuts: list[int], days: int
) -> None:
    numbers = []
    for call, pause in calls:
        clock.forward(seconds=pause)
        numbers.append(charge(team, *call))
        if pause:
            recharged = team.write(ledger.recharge, call[0], 10**9 + pause, actor=SHELL)
            team.write(ledger.precharge, call[0], "a", 10, 10, actor=SHELL, ttl_seconds=1 + pause % 86_399)
            if call[3] == 2:
                team.write(ledger.reverse, recharged.entry_id, "wrong", actor=SHELL)
    now = clock() // QUARTER_NS
    for place in sorted(reversed_ & set(range(len(calls)))):
        clock.forward(days=days)
        entry = team.write(ledger.reverse, numbers[place], "wrong", actor=SHELL).entry_id
        if place % 2:
            team.write(ledger.reverse, entry, "right after all", actor=SHELL)
    assert kept(team) == expected(team)
    assert not check(team)
    edges = sorted((now + cut) * QUARTER_NS for cut in cuts)
    spans = [*pairwise(edges), (edges[0], (now + 10 * LONG) * QUARTER_NS)]
    for of in (MODEL, ACCOUNT, BOTH):
        for undone in (UNDONE_AT_CALL, UNDONE_AT_REVERSAL):
            for only in (None,) if of == MODEL else (None, [1], [2, 3]):
                found = team.read(
                    sums.used, spans, ("cost", "calls", "prompt_tokens"), of=of, undone=undone, accounts=only
                )
                wanted = in_all(team, spans, of, undone, only)
                assert {key: row for key, row in found.items() if any(row)} == {
                    key: row for key, row in wanted.items() if any(row)
                }
    for only in (None, [1], [2, 3]):
        found = team.read(sums.used, spans, ("cost", "calls"), of=ACCOUNT, undone=None, accounts=only, kind=OTHER)
        assert {key: row for key, row in found.items() if any(row)} == others(team, spans, only)


def others(db: Database, spans: list[tuple[int, int]], only: Any) -> dict[Any, tuple[int, ...]]:
    """How many entries are no calls, and what they recharged, by place and account."""
    found: dict[Any, tuple[int, ...]] = {}
    for account, at, type, amount, model in db.read(lambda tx: tx.rows(
        "SELECT account_id, created_at_ns, type, amount, model_id FROM entry WHERE type NOT IN ('deduct', 'settle')"
    )):  # fmt: skip
        for place, (start, end) in enumerate(spans):
            if start <= at < end and (only is None or account in only):
                recharged = amount if type == "recharge" or (type == "reversal" and model is None) else 0
                so_far = found.get((place, account, 0), (0, 0))
                found[place, account, 0] = (so_far[0] + recharged, so_far[1] + 1)
    return found


def test_an_entry_that_is_no_call_counts_at_its_own_moment(team: Database) -> None:
    """Of what is open, and of its sums, no more is proven than the 4 hours that it lies in."""
    now = NOON // QUARTER_NS
    assert now // 16 == (now - 1) // 16
    team.write(ledger.recharge, "ann", 5, actor=SHELL)
    team.write(lambda tx: tx.rows("UPDATE usage_open SET quarter = quarter - 1"))
    assert not check(team)
    before, after = ((now - 20) * QUARTER_NS, now * QUARTER_NS), (now * QUARTER_NS, (now + 1) * QUARTER_NS)
    found = team.read(sums.used, [before, after], ("cost",), of=ACCOUNT, undone=None, kind=OTHER)
    assert found == {(1, 1, 0): (5,)}


def busy(db: Database) -> set[tuple[int, int]]:
    """The account and period of LONG of which finer sums are kept."""
    return {
        (account, period * length // LONG)
        for (of, length, period, account, _model, kind) in kept(db)
        if of == BOTH and kind == USED and length < LONG
    }


def test_finer_sums_are_kept_from_the_call_on_that_makes_an_account_busy(team: Database) -> None:
    for times in range(1, 6):
        charge(team, "ann", "a", -times, 1)
        charge(team, "bob", "a", -times * LONG, 1)
        assert busy(team) == ({(1, START // LONG)} if times >= 3 else set())
        assert kept(team) == expected(team)


def test_a_batch_may_make_an_account_busy_at_once(team: Database, clock: Clock) -> None:
    late = [Charge("ann", "a", Tokens(1000, 0), NOON - 900 * 10**9, allow_debt=True) for _ in range(2)]
    for used in (late, [one._replace(created_at_ns=None) for one in late * 3], late):
        assert all(isinstance(one, Receipt) for one in team.write(ledger.charge_many, used, actor=SHELL))
        assert kept(team) == expected(team)
    assert busy(team) == {(1, START // LONG)}
    assert opened(team) == []  # what was, is a part of the finer sums


def test_what_is_open_makes_an_account_busy_once_it_is_closed(team: Database, clock: Clock) -> None:
    for user_id in ("ann", "bob", "ann", "ann"):
        charge(team, user_id, "a", 0, 1)
        assert not team.read(lambda tx: tx.rows("SELECT * FROM usage_sum"))
        assert kept(team) == expected(team)
    assert busy(team) == set()
    clock.forward(seconds=900)
    team.write(ledger.charge, "bob", "a", Tokens(10, 10), actor=SHELL, allow_debt=True)
    assert busy(team) == {(1, START // LONG)}
    assert [row[:2] for row in opened(team)] == [(START + 1, 2)]
    assert kept(team) == expected(team)
    assert not check(team)


def test_of_many_accounts_the_next_ones_go_on_closing(team: Database, clock: Clock, monkeypatch: Any) -> None:
    monkeypatch.setattr(sums, "CLOSED_AT_ONCE", 1)
    for user_id in ("ann", "bob", "eve"):
        charge(team, user_id, "a", 0, 1)
        charge(team, user_id, "b", 0, 1)
    clock.forward(seconds=900)
    left = []
    for _ in range(4):
        team.write(ledger.charge, "ann", "a", Tokens(10, 10), actor=SHELL, allow_debt=True)
        left.append(len([row for row in opened(team) if row[0] == START]))
        assert kept(team) == expected(team)
        assert not check(team)
    assert left in ([4, 2, 0, 0], [2, 0, 0, 0])


def test_what_is_open_is_closed_where_it_would_be_busy(team: Database) -> None:
    now = NOON // QUARTER_NS
    charge(team, "bob", "a", 0, 1)
    for calls in (1, 2, 3):
        charge(team, "ann", "a", 0, 1)
        assert [(row[0], row[4]) for row in opened(team) if row[1] == 1] == [(now, calls)]
    assert busy(team) == set()
    team.write(ledger.recharge, "ann", 10**6, actor=SHELL)
    assert busy(team) == {(1, now // LONG)}
    hold = team.write(ledger.precharge, "ann", "a", 10, 10, actor=SHELL).entry_id
    team.write(ledger.settle, hold, Tokens(10, 10), actor=SHELL)
    assert [(row[1], bool(row[2]), row[4]) for row in sorted(opened(team))] == [
        (1, False, 1),
        (1, True, 1),
        (2, True, 1),
    ]
    charge(team, "bob", "a", -1, 1)
    for calls in (2, 3, 1, 2):
        charge(team, "ann", "a", 0, 1)
        assert [row[4] for row in opened(team) if row[1] == 1 and row[2]] == [calls]
        assert kept(team) == expected(team)
    assert not check(team)


def test_only_the_models_that_are_asked_for(team: Database) -> None:
    for model in ("a", "b", "a", "a"):
        charge(team, "ann", model, 0, 1)
    numbers = team.read(pricing.model_names)
    span = [((START - 1) * QUARTER_NS, (START + 1) * QUARTER_NS)]
    for of in (MODEL, BOTH):
        found = team.read(sums.used, span, ("calls",), of=of, undone=UNDONE_AT_CALL, models=[numbers["b"]])
        assert [(key[2], row) for key, row in found.items()] == [(numbers["b"], (1,))]
    assert team.read(sums.used, span, ("calls",), of=BOTH, undone=UNDONE_AT_CALL, models=[]) == {}


def test_every_number_is_summed_up() -> None:
    assert sums.SUMS == NUMBERS


def test_a_call_that_cost_nothing_is_taken_off_as_well(db: Database, ann: str, clock: Clock) -> None:
    db.write(pricing.set_price, "a/free", 0, 0, actor=SHELL)
    calls = [db.write(ledger.charge, ann, "a/free", Tokens(100, 10, 5), actor=SHELL).entry_id for _ in "123"]
    clock.forward(days=1)
    undone = db.write(ledger.reverse, calls[0], "wrong", actor=SHELL)
    db.write(ledger.reverse, undone.entry_id, "right after all", actor=SHELL)
    db.write(ledger.reverse, calls[2], "wrong", actor=SHELL)
    price = db.write(pricing.set_price, "a/free", 10**7, 10**7, actor=SHELL).id or 0
    db.write(ledger.recharge, ann, 10**6, actor=SHELL)
    db.write(ledger.reprice, calls[1], price, "not free", actor=SHELL)
    assert kept(db) == expected(db)
    assert not check(db)
    periods = db.read(lambda tx: stats.last_periods(tx.now_ns, "day", zone("UTC")))
    for setting in ("call", "reversal"):
        db.write(our_settings.change, "reversals_count_in", setting, actor=SHELL)
        (used,) = stats.totals(db.read(stats.usage, periods, actor=SHELL, user_id=ann))
        assert (used.calls, used.prompt_tokens, used.completion_tokens) == (2, 200, 20)


def test_an_upgrade_takes_off_what_was_free_and_reversed(db: Database, ann: str, clock: Clock) -> None:
    db.write(pricing.set_price, "a/free", 0, 0, actor=SHELL)
    calls = [db.write(ledger.charge, ann, "a/free", Tokens(100, 10), actor=SHELL).entry_id for _ in "12"]
    clock.forward(days=1)
    undone = [db.write(ledger.reverse, call, "wrong", actor=SHELL).entry_id for call in calls]
    db.write(ledger.reverse, undone[0], "right after all", actor=SHELL)
    assert not [row for row in opened(db) if row[2]]

    def as_before(tx: Transaction) -> None:
        later = f"(of = {BOTH} AND length > {LONG}) OR length IN (8, 32)"
        tx.rows(f"DELETE FROM usage_sum WHERE kind <> 0 OR {later}")
        tx.rows("UPDATE alembic_version SET version_num = '0006'")

    db.write(as_before)
    assert kept(db) != expected(db)
    db.write(lambda tx: tx.rows("DROP TABLE usage_open"))
    for index in ("entry_repricing_of_account", "audit_of_settings"):
        db.write(lambda tx, index=index: tx.rows(f"DROP INDEX {index}"))
    migrate(db)
    assert kept(db) == expected(db)
    assert not check(db)
