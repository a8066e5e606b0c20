"""What is kept of use at several lengths, and any stretch of time put together from it."""

from itertools import pairwise
from typing import Any

import pytest
from conftest import NOON, Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sums_reference import NUMBERS, expected, kept

from billing_core import accounts, ledger, pricing, stats, sums
from billing_core import settings as our_settings
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction, migrate
from billing_core.ledger import Charge, Receipt
from billing_core.models import ACCOUNT, BOTH, MODEL, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USED
from billing_core.sums import LONG, QUARTER_NS
from billing_core.tokens import Tokens
from billing_core.zones import zone

START = NOON // QUARTER_NS
QUARTERS = st.one_of(
    st.integers(-3, 3), st.integers(-2 * LONG, 0), st.integers(-20 * LONG, 0), st.sampled_from([-LONG, -96, -16, -4, 0])
)
CALLS = st.tuples(st.sampled_from(["ann", "bob", "eve"]), st.sampled_from("ab"), QUARTERS, st.integers(0, 3))


@pytest.fixture(autouse=True)
def few_calls_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "BUSY_CALLS", 3)


@pytest.fixture
def team(db: Database, ann: str) -> Database:
    for user_id in ("bob", "eve"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
    return db


def charge(db: Database, user_id: str, model: str, quarter: int, tokens: int) -> int:
    at = min(NOON, (START + quarter) * QUARTER_NS + 7)
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
    calls=st.lists(CALLS, min_size=1, max_size=25),
    reversed_=st.sets(st.integers(0, 24), max_size=4),
    cuts=st.lists(QUARTERS, min_size=2, max_size=6, unique=True),
    days=st.integers(0, 9),
)
def test_any_stretch_is_the_sum_of_its_entries(
    team: Database, clock: Clock, calls: list[Any], reversed_: set[int], cuts: list[int], days: int
) -> None:
    numbers = [charge(team, *call) for call in calls]
    for place in sorted(reversed_ & set(range(len(calls)))):
        clock.forward(days=days)
        entry = team.write(ledger.reverse, numbers[place], "wrong", actor=SHELL).entry_id
        if place % 2:
            team.write(ledger.reverse, entry, "right after all", actor=SHELL)
    assert kept(team) == expected(team)
    edges = sorted((START + cut) * QUARTER_NS for cut in cuts)
    spans = [*pairwise(edges), (edges[0], (START + 10 * LONG) * QUARTER_NS)]
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


def test_a_batch_may_make_an_account_busy_at_once(team: Database) -> None:
    used = [Charge("ann", "a", Tokens(1000, 0), allow_debt=True) for _ in range(7)]
    assert all(isinstance(one, Receipt) for one in team.write(ledger.charge_many, used, actor=SHELL))
    assert busy(team) == {(1, START // LONG)}
    assert kept(team) == expected(team)


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

    def as_before(tx: Transaction) -> None:
        tx.rows("DELETE FROM usage_sum WHERE kind <> 0")
        tx.rows("UPDATE alembic_version SET version_num = '0006'")

    db.write(as_before)
    assert kept(db) != expected(db)
    migrate(db)
    assert kept(db) == expected(db)
    assert not check(db)
