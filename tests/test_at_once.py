"""A charge that is all of its transaction: on Postgres one statement, with the same outcome as step by step."""

from decimal import Decimal
from typing import Any

import psycopg
import pytest
from conftest import Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core import accounts, ledger, pricing, sums
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import BillingError, DatabaseUnavailable, Invalid
from billing_core.idempotency import Once
from billing_core.tokens import Extras, Tokens

TOKENS = st.builds(
    Tokens,
    st.integers(0, 5000),
    st.integers(0, 500),
    extras=st.sampled_from([None, Extras(service_tier="priority"), Extras(upstream_usd=Decimal("0.0123"))]),
)
CALLS = st.tuples(
    st.sampled_from(["openai/gpt-4o", "own", "a model that nobody knows"]), TOKENS, st.booleans(), st.integers(0, 30)
)
STEPS = st.lists(
    st.one_of(CALLS, CALLS, CALLS, st.sampled_from(["freeze", "unfreeze", "price", "hold", "soon", "later"])),
    max_size=25,
)


@pytest.fixture
def team(db: Database, ann: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setattr(sums, "BUSY_CALLS", 3)
    db.write(pricing.set_price, "own", 3_000_000, 9_000_000, actor=SHELL)
    return db


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """What each charge found that was tried without looking first: on Postgres a statement that was a transaction by itself."""
    found: list[list[Any]] = []
    ask, in_turn = Transaction.at_once, ledger._in_turn

    def note(tx: Transaction, query: str, parameters: Any) -> list[Any]:
        found.append(ask(tx, query, parameters))
        return found[-1]

    def note_in_turn(tx: Transaction, parameters: Any) -> list[Any]:
        found.append(in_turn(tx, parameters))
        return found[-1]

    monkeypatch.setattr(Transaction, "at_once", note)
    monkeypatch.setattr(ledger, "_in_turn", note_in_turn)
    return found


def outcome(db: Database, *asked: Any, **more: Any) -> Any:
    try:
        receipt = db.write(*asked, **more)
    except BillingError as error:
        return type(error), {name: each for name, each in error.params.items() if name not in ("user_id", "key")}
    return receipt._replace(entry_id=0, user_id="")


def step_by_step(tx: Transaction, *asked: Any, **more: Any) -> ledger.Receipt:
    """What says its moment isn't tried at once."""
    return ledger.charge(tx, *asked, created_at_ns=tx.now_ns, **more)


ENTRIES = (
    "SELECT type, amount, balance_after, cost, model_id, price_id, prompt_tokens, cached_tokens, cache_creation_tokens, "
    "completion_tokens, reasoning_tokens, created_at_ns, recorded_at_ns, extras, upstream_usd, upstream_yuan, operator_id "
    "FROM entry WHERE account_id = (SELECT id FROM account WHERE user_id = ?) ORDER BY id"
)


@given(STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_does_what_is_done_step_by_step(team: Database, clock: Clock, steps: list[Any]) -> None:
    clock.forward(days=10)
    run = team.read(lambda tx: tx.rows("SELECT count(*) FROM account")[0][0])
    alone, stepwise, meter = f"alone-{run}", f"steps-{run}", f"meter-{run}"
    for user_id in (alone, stepwise, meter):
        number = team.write(accounts.add, user_id, "Somebody", actor=SHELL).id
        team.write(ledger.recharge, user_id, 100_000, actor=SHELL)
    actor = Actor(number, meter, "Somebody", may_charge=True)
    asked: dict[str, Any]
    for step in steps:
        if step in ("soon", "later"):
            clock.forward(seconds=300 if step == "soon" else 30_000)
        elif step == "price":
            team.write(pricing.set_price, "own", 1_000_000, 1_000_000, actor=SHELL)
        elif step == "hold":
            asked = {"actor": actor, "ttl_seconds": 3600}
            first, second = (outcome(team, ledger.precharge, who, "own", 10, 10, **asked) for who in (alone, stepwise))
            assert first == second
        elif isinstance(step, str):
            for user_id in (alone, stepwise):
                team.write(accounts.change, user_id, status="frozen" if step == "freeze" else "active", actor=SHELL)
        else:
            model, tokens, allow_debt, key = step
            once = [Once.of(actor, f"{who} {key}", model, repr(tokens)) if key else None for who in (alone, stepwise)]
            asked = {"actor": actor, "allow_debt": allow_debt}
            first = outcome(team, ledger.charge, alone, model, tokens, once=once[0], **asked)
            assert outcome(team, step_by_step, stepwise, model, tokens, once=once[1], **asked) == first
    assert team.read(lambda tx: tx.rows(ENTRIES, (alone,))) == team.read(lambda tx: tx.rows(ENTRIES, (stepwise,)))
    assert check(team) == []


def charge(db: Database, user_id: str = "ann", model: str = "own", **more: Any) -> ledger.Receipt:
    return db.write(ledger.charge, user_id, model, Tokens(1000, 1000), actor=SHELL, **more)


def once(key: str) -> Once:
    return Once.of(SHELL, key, 1)


def test_it_is_done_without_looking_first(team: Database, at_once: list[list[Any]]) -> None:
    team.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    charge(team, once=once("1"))  # reads the price
    assert not any(at_once)
    done = [charge(team, once=once(key)).entry_id for key in ("2", "4", "5")]
    team.write(ledger.charge_many, [ledger.Charge("ann", "own", Tokens(1000, 1000), once=once("6"))], actor=SHELL)
    # Three calls are open after two of them; the next one closes them, on SQLite with itself.
    found = [[row[0] for row in rows] for rows in at_once]
    assert found[:3] == [[done[0]], [done[1]], [done[2]] if team.is_sqlite else []]
    assert [len(rows) for rows in found] == [1, 1, int(team.is_sqlite), 1]
    at_once.clear()
    assert charge(team, once=once("2")).replayed
    assert at_once == [[]]


def test_the_first_charge_after_a_quarter_of_an_hour_closes_it(
    team: Database, at_once: list[list[Any]], clock: Clock
) -> None:
    team.write(accounts.add, "bob", "Bob", actor=SHELL)
    for key in "12":
        charge(team, once=once(key), allow_debt=True)
        charge(team, "bob", once=once(f"bob {key}"), allow_debt=True)
    at_once.clear()
    clock.forward(seconds=900)
    charge(team, once=once("3"), allow_debt=True)
    charge(team, once=once("4"), allow_debt=True)
    assert [len(found) for found in at_once] == [0, 1]
    ann = team.read(accounts.find, "ann").id
    now = clock() // sums.QUARTER_NS
    opened = team.read(lambda tx: tx.rows("SELECT quarter, account_id, calls FROM usage_open"))
    assert opened == [(now, ann, 2)]
    assert check(team) == []


def test_without_a_key_or_with_more_to_do_it_goes_step_by_step(
    team: Database, at_once: list[list[Any]], clock: Clock
) -> None:
    team.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    for key in "ab":
        charge(team, once=once(key))
    at_once.clear()
    charge(team, once=once("late"), created_at_ns=clock() - 10**9)
    charge(team, once=once("others"), others=[("openai/gpt-4o", Tokens(1, 1))])
    assert at_once == []
    charge(team)  # where a connection is lost, it could not be asked again
    team.write(lambda tx: ledger.charge(tx, "ann", "own", Tokens(1000, 1000), actor=SHELL, once=once("within")))
    assert len(at_once) == (2 if team.is_sqlite else 0)


def test_what_raises_after_it_undoes_it(team: Database) -> None:
    team.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    charge(team, once=once("before"))

    def charge_and_fail(tx: Transaction) -> None:
        ledger.charge(tx, "ann", "own", Tokens(1000, 1000), actor=SHELL, once=once("undone"))
        raise ZeroDivisionError

    before = team.read(accounts.find, "ann").balance
    with pytest.raises(ZeroDivisionError):
        team.write(charge_and_fail)
    assert team.read(accounts.find, "ann").balance == before
    assert not charge(team, once=once("undone")).replayed


def test_a_price_that_another_process_sets_counts_for_the_next_call(team: Database, db_url: str, clock: Clock) -> None:
    team.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    before = [charge(team, once=once(key)).cost for key in "ab"]
    other = Database(db_url, clock=clock)
    other.write(pricing.set_price, "own", 300_000_000, 900_000_000, actor=SHELL)
    other.close()
    assert charge(team, once=once("c")).cost == 100 * before[0] == 100 * before[1]


def test_who_charges_its_own_account_is_no_operator(team: Database) -> None:
    team.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    own = Actor(team.read(accounts.find, "ann").id, "ann", "Ann", may_charge=True)
    other = Actor(team.write(accounts.add, "meter", "Meter", actor=SHELL).id, "meter", "Meter", may_charge=True)
    for actor in (own, own, other, other):
        key = Once.of(actor, f"{team.clock()}-{len(team.read(lambda tx: tx.rows('SELECT id FROM entry')))}", 1)
        team.write(ledger.charge, "ann", "own", Tokens(1000, 1000), actor=actor, once=key)
    rows = team.read(lambda tx: tx.rows("SELECT operator_id FROM entry WHERE type = 'deduct' ORDER BY id"))
    assert [number for (number,) in rows] == [None, None, other.account_id, other.account_id]


def test_accounts_do_not_wait_for_each_other(postgres_database: str, clock: Clock, at_once: list[list[Any]]) -> None:
    db = Database(f"{postgres_database}&options=-c%20lock_timeout%3D2000", clock=clock)
    for user_id in ("ann", "bob"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
        db.write(ledger.recharge, user_id, 10**7, actor=SHELL)
        charge(db, user_id, once=once(user_id))
    at_once.clear()

    def charge_meanwhile(tx: Transaction) -> None:
        ledger.charge(tx, "ann", "own", Tokens(1000, 1000), actor=SHELL)
        tx.rows("")  # all of it has been told
        charge(db, "bob", once=once("meanwhile"))

    db.write(charge_meanwhile)
    assert [len(found) for found in at_once] == [1]
    db.close()


def test_a_hold_that_expires_in_this_moment_is_given_back_first(team: Database, clock: Clock) -> None:
    team.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    charge(team, once=once("before"))
    team.write(ledger.precharge, "ann", "own", 10, 10, actor=SHELL, ttl_seconds=60)
    clock.forward(seconds=60)
    charge(team, once=once("then"))
    rows = team.read(lambda tx: tx.rows("SELECT type FROM entry ORDER BY id"))
    assert [type for (type,) in rows] == ["recharge", "deduct", "precharge", "expire", "deduct"]


def test_who_is_interrupted_leaves_a_connection_on_which_writes_are_whole(
    postgres_database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database(postgres_database, clock=clock)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    db.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    for key in "ab":
        charge(db, once=once(key))

    def interrupted(*_asked: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.RawCursor, "execute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            charge(db, once=once("interrupted"))

    def recharge_and_fail(tx: Transaction) -> None:
        ledger.recharge(tx, "ann", 1, actor=SHELL)
        raise ZeroDivisionError

    before = db.read(accounts.find, "ann").balance
    with pytest.raises(ZeroDivisionError):
        db.write(recharge_and_fail)
    assert db.read(accounts.find, "ann").balance == before
    db.close()


def test_a_model_that_is_no_name_is_refused(team: Database) -> None:
    charge(team, once=once("before"), allow_debt=True)
    with pytest.raises(Invalid, match="A model's name"):
        charge(team, model=["own"], once=once("a list"))  # type: ignore[arg-type]


def test_who_waits_for_too_long_is_told_after_one_wait(
    postgres_database: str, clock: Clock, at_once: list[list[Any]]
) -> None:
    db = Database(f"{postgres_database}&options=-c%20lock_timeout%3D200", clock=clock)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    db.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    for key in "ab":
        charge(db, once=once(key))

    def hold_and_charge(tx: Transaction) -> None:
        ledger.recharge(tx, "ann", 1, actor=SHELL)
        with pytest.raises(DatabaseUnavailable, match="busy"):
            charge(db, once=once("meanwhile"))

    at_once.clear()
    db.write(hold_and_charge)
    assert at_once == []  # it raised, and nothing was tried after it
    assert not charge(db, once=once("meanwhile")).replayed
    db.close()
