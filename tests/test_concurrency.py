"""One short transaction on one account's rows: accounts don't wait for each other, and nobody sees a deadlock."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from unittest.mock import patch

import pytest
import sqlalchemy as sa
from conftest import NOON, SECOND, Clock
from sqlalchemy import event
from sums_reference import close_ended, opened
from test_invariants import at_once

from billing_core import accounts, ledger, pricing
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import BillingError, Conflict, DatabaseUnavailable, UnknownAccount
from billing_core.idempotency import Once
from billing_core.ledger import Charge, Receipt
from billing_core.models import Entry, Price
from billing_core.sums import QUARTER_NS
from billing_core.tokens import Tokens

CALL = ("m", Tokens(1000, 10))


@pytest.fixture
def team(db: Database, ann: str) -> Database:
    """Ann, Bob and Cid with money, and a model that has been charged before."""
    for user_id in ("bob", "cid"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
    for user_id in ("ann", "bob", "cid"):
        db.write(ledger.recharge, user_id, 10**8, actor=SHELL)
        db.write(ledger.charge, user_id, *CALL, actor=SHELL)
    return db


Statement = tuple[str, dict[str, Any]]


@contextmanager
def transactions(db: Database) -> Iterator[list[list[Statement]]]:
    """The transactions that begin: the statements of each, with their parameters by name."""
    begun: list[list[Statement]] = []
    make, rows, ask, many = Transaction.__init__, Transaction.rows, Transaction.ask, Transaction.many
    alone = Transaction.at_once

    def note(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        named = context.compiled_parameters if context.compiled else [{}]
        if not statement.startswith("BEGIN"):
            begun[-1] += [(" ".join(statement.split()), each) for each in named]

    def begin(tx: Transaction, *given: Any, **named: Any) -> None:
        begun.append([])
        make(tx, *given, **named)

    def note_at_once(tx: Transaction, query: str, parameters: Any) -> list[Any]:
        begun[-1].append(("UPDATE account", {"user_id": parameters["user_id"]}))
        return alone(tx, query, parameters)

    def note_rows(tx: Transaction, query: str, parameters: Any = ()) -> list[Any]:
        if query:  # an empty one asks whether the server is there
            begun[-1].append((query.strip(), by_name(query, parameters)))
        return rows(tx, query, parameters)

    def note_ask(tx: Transaction, *queries: Any) -> list[list[Any]]:
        if not tx.is_sqlite:  # where it is so many times `rows`
            begun[-1] += [(query, by_name(query, parameters)) for query, parameters in queries]
        return ask(tx, *queries)

    def note_many(tx: Transaction, query: str, parameters: Any) -> None:
        begun[-1] += [(query, by_name(query, each)) for each in parameters]
        many(tx, query, parameters)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        with patch.multiple(
            Transaction, __init__=begin, rows=note_rows, ask=note_ask, many=note_many, at_once=note_at_once
        ):
            yield begun
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def by_name(query: str, parameters: Any) -> dict[str, Any]:
    """The parameters of a statement that goes straight to the driver, under their columns' names."""
    if isinstance(parameters, dict):
        return {name: parameters[name] for name in re.findall(r":(\w+)", query)}
    if found := re.match(r"INSERT INTO \w+ \(([^)]*)\) VALUES \(([^)]*)\)", query):
        columns = found[1].split(", ")
        given = [name for name, value in zip(columns, found[2].split(", "), strict=True) if value == "?"]
        return dict(zip(given, parameters, strict=True))
    if found := re.search(r"WHERE (user_id IN|id =)", query):
        skipped = query[: found.start()].count("?")
        name = "user_id" if found[1].startswith("user") else "id"
        return {f"{name}_{place}": value for place, value in enumerate(parameters[skipped:])}
    return {}


@dataclass(frozen=True, slots=True)
class Owners:
    """Who has which account and which hold, by their numbers."""

    accounts: dict[int, str]
    holds: dict[int, str]

    @classmethod
    def of(cls, db: Database) -> Self:
        def rows(tx: Transaction, statement: str) -> dict[int, str]:
            return {row[0]: row[1] for row in tx.connection().execute(sa.text(statement))}

        holds = "SELECT h.precharge_id, a.user_id FROM hold h JOIN account a ON a.id = h.account_id"
        return cls(db.read(rows, "SELECT id, user_id FROM account"), db.read(rows, holds))

    def named(self, statement: str, parameters: dict[str, Any]) -> set[str]:
        """Whose rows a statement writes or locks."""
        found = re.match(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)|SELECT .* FROM (\w+) .*FOR UPDATE", statement)
        if found is None or (table := found[1] or found[2]) == "idempotency":
            return set()
        assert table in ("account", "entry", "hold", "usage_sum", "usage_open"), statement
        users = set()
        for name, value in parameters.items():
            match re.sub(r"_\d+$", "", name), table:
                case ("user_id", _):
                    users.add(value)
                case ("account_id", _) | ("id", "account"):
                    users |= {self.accounts[value]} if value else set()  # 0: a sum of everybody's
                case ("precharge_id", "hold") if statement.startswith("UPDATE"):
                    users.add(self.holds[value])
        assert users or table in ("usage_sum", "usage_open"), (statement, parameters)
        return users

    def in_turn(self, transaction: list[Statement]) -> list[str]:
        """Whose rows a transaction writes or locks, in its order."""
        every = [user for statement in transaction for user in sorted(self.named(*statement))]
        return [user for place, user in enumerate(every) if place == 0 or every[place - 1] != user]


OPERATIONS: dict[str, Callable[[Database, int, int], Any]] = {
    "recharge": lambda db, _hold, _call: db.write(
        ledger.recharge, "ann", 100, actor=SHELL, once=Once.of(SHELL, "r", 1)
    ),
    "charge": lambda db, _hold, _call: db.write(ledger.charge, "ann", *CALL, actor=SHELL, once=Once.of(SHELL, "c", 1)),
    "precharge": lambda db, _hold, _call: db.write(
        ledger.precharge, "ann", "m", 10, 10, actor=SHELL, once=Once.of(SHELL, "p", 1)
    ),
    "settle": lambda db, hold, _call: db.write(
        ledger.settle, hold, Tokens(5, 5), actor=SHELL, once=Once.of(SHELL, "s", 1)
    ),
    "refund": lambda db, hold, _call: db.write(ledger.refund, hold, actor=SHELL, once=Once.of(SHELL, "f", 1)),
    "reverse": lambda db, _hold, call: db.write(
        ledger.reverse, call, "wrong", actor=SHELL, once=Once.of(SHELL, "v", 1)
    ),
}


@pytest.fixture
def call(team: Database) -> int:
    """The number of a charge of Ann's."""
    return team.write(ledger.charge, "ann", *CALL, actor=SHELL).entry_id


def hold(db: Database, user_id: str, seconds: int) -> int:
    """The number of a precharge."""
    return db.write(ledger.precharge, user_id, "m", 10, 10, actor=SHELL, ttl_seconds=seconds).entry_id


def ended(db: Database) -> list[tuple[str, int]]:
    """Whose holds have ended, and which."""
    statement = "SELECT a.user_id, h.precharge_id FROM hold h JOIN account a ON a.id = h.account_id "
    statement += "WHERE ended_by IS NOT NULL ORDER BY 1, 2"
    return db.read(lambda tx: [(row[0], row[1]) for row in tx.connection().execute(sa.text(statement))])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("due", [0, 3], ids=["", "with holds due"])
def test_a_write_is_one_transaction_on_one_accounts_rows(
    team: Database, clock: Clock, call: int, operation: str, due: int
) -> None:
    """What has expired of the account is written down in it; what has of others is not its business."""
    open_one, expired = hold(team, "ann", 900), [("ann", hold(team, "ann", 60 + n)) for n in range(due)]
    hold(team, "bob", 60)
    clock.forward(seconds=600)
    team.write(close_ended)
    owners = Owners.of(team)
    with transactions(team) as begun:
        OPERATIONS[operation](team, open_one, call)
    assert len(begun) == 1
    assert owners.in_turn(begun[0]) == ["ann"]
    statements = [one for one, _ in begun[0] if "INTO usage_" not in one]  # of which one has many rows
    assert len(statements) <= (16 if due == 0 else 20 + 3 * due)
    assert [one for one in ended(team) if one != ("ann", open_one)] == expired
    assert not check(team)


def test_a_batch_locks_its_accounts_in_one_order_before_it_writes(team: Database, clock: Clock) -> None:
    """In the order of their ids, whatever the batch's is; and it writes each table once."""
    expired = [("bob", hold(team, "bob", 60))]
    hold(team, "cid", 60)
    clock.forward(seconds=60)
    owners = Owners.of(team)
    users = ["bob", "ann", "nobody", "bob", "ann"]
    batch = [Charge(user, *CALL, once=Once.of(SHELL, f"b-{n}", n)) for n, user in enumerate(users)]
    with transactions(team) as begun:
        done = team.write(ledger.charge_many, batch, actor=SHELL)
    assert [one.user_id if isinstance(one, Receipt) else type(one) for one in done] == [
        *("bob", "ann", UnknownAccount, "bob", "ann")
    ]
    ((first, locked), *_rest) = [one for one in begun[0] if "FROM account" in one[0]]
    assert len(begun) == 1
    assert list(locked.values()) == ["ann", "bob", "nobody"]
    assert first.endswith("ORDER BY user_id" if team.is_sqlite else "ORDER BY user_id FOR NO KEY UPDATE")
    assert begun[0].index((first, locked)) == 0
    assert set(owners.in_turn(begun[0])) - {"nobody"} == {"ann", "bob"}
    entries = [place for place, (statement, _) in enumerate(begun[0]) if "'deduct'" in statement]
    assert len(entries) == 4
    assert entries[-1] - entries[0] == 3
    assert ended(team) == expired
    assert not check(team)


def test_who_closes_a_quarter_of_an_hour_waits_for_nobody(postgres_database: str, clock: Clock) -> None:
    """What is open of an account that somebody else is charging stays open until the next write."""
    db = Database(f"{postgres_database}&options=-c%20lock_timeout%3D2000", clock=clock)
    for user_id in ("ann", "bob", "cid"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
        db.write(ledger.charge, user_id, *CALL, actor=SHELL, allow_debt=True)
    quarter = clock() // QUARTER_NS
    clock.forward(seconds=900)

    def still_open() -> list[tuple[int, str]]:
        query = "SELECT quarter, user_id FROM usage_open JOIN account ON account.id = account_id ORDER BY 1, 2"
        return db.read(lambda tx: tx.rows(query))

    def charge_bob_and_ann_meanwhile(tx: Transaction) -> None:
        ledger.recharge(tx, "bob", 1, actor=SHELL)
        db.write(ledger.charge, "ann", *CALL, actor=SHELL, allow_debt=True)
        assert still_open() == [(quarter, "bob"), (quarter + 1, "ann")]
        assert not check(db)

    db.write(charge_bob_and_ann_meanwhile)
    db.write(ledger.charge, "cid", *CALL, actor=SHELL, allow_debt=True)
    assert still_open() == [(quarter + 1, user_id) for user_id in ("ann", "bob", "cid")]
    assert not check(db)
    db.close()


def test_a_longer_transaction_closes_what_is_its_own_alone(postgres_database: str, clock: Clock) -> None:
    """Or whoever is charged next would wait for all of it."""
    db = Database(f"{postgres_database}&options=-c%20lock_timeout%3D2000", clock=clock)
    for user_id in ("ann", "bob"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
        db.write(ledger.charge, user_id, *CALL, actor=SHELL, allow_debt=True)
    clock.forward(seconds=900)

    def charge_ann_and_bob_meanwhile(tx: Transaction) -> None:
        ledger.charge(tx, "ann", *CALL, actor=SHELL, allow_debt=True)
        tx.rows("")  # all of it has been told
        db.write(ledger.charge, "bob", *CALL, actor=SHELL, allow_debt=True)

    db.write(charge_ann_and_bob_meanwhile)
    now = clock() // QUARTER_NS
    assert [row[0] for row in opened(db)] == [now, now]
    assert not check(db)
    db.close()


def test_accounts_do_not_wait_for_each_other(postgres_database: str, clock: Clock) -> None:
    """Each charge is made while all those before it are not committed yet, of one model."""
    db = Database(
        f"{postgres_database}{'&' if '?' in postgres_database else '?'}options=-c%20lock_timeout%3D5000", clock=clock
    )
    users = [f"user-{n}" for n in range(20)]
    for user_id in users:
        db.write(accounts.add, user_id, user_id, actor=SHELL)
    db.write(ledger.charge, users[0], *CALL, actor=SHELL, allow_debt=True)  # the model is known

    def charge(tx: Transaction, left: list[str]) -> None:
        ledger.charge(tx, left[0], *CALL, actor=SHELL, allow_debt=True)
        if left[1:]:
            db.write(charge, left[1:])

    db.write(charge, users)
    assert not check(db)
    db.close()


def test_expiry_is_one_transaction_an_account(team: Database, clock: Clock) -> None:
    expired = [(user, hold(team, user, 60)) for user in ("ann", "ann", "bob")]
    hold(team, "cid", 900)
    clock.forward(seconds=60)
    owners = Owners.of(team)
    with transactions(team) as begun:
        ledger.note_expired(team)
    assert [owners.in_turn(each) for each in begun] == [[], ["ann"], ["bob"]]  # the first only looks
    assert ended(team) == expired
    with transactions(team) as begun:
        ledger.note_expired(team)
    assert [len(each) for each in begun] == [1]  # nothing is due: one look
    assert not check(team)


def test_expiry_in_one_transaction_takes_accounts_in_the_order_of_a_batch(team: Database, clock: Clock) -> None:
    expired = sorted((user, hold(team, user, 60)) for user in ("cid", "ann", "bob"))
    clock.forward(seconds=60)
    owners = Owners.of(team)
    with transactions(team) as begun:
        assert team.write(ledger.expire_holds) == 3
    assert [owners.in_turn(each) for each in begun] == [["ann", "bob", "cid"]]
    assert ended(team) == expired


def test_accounts_never_wait_for_each_other_on_postgres(postgres_database: str) -> None:
    db = Database(postgres_database)
    for user_id in ("ann", "bob"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
        db.write(ledger.recharge, user_id, 10**8, actor=SHELL)
        db.write(ledger.charge, user_id, *CALL, actor=SHELL)

    def while_ann_is_written(tx: Transaction) -> list[Receipt]:
        ledger.charge(tx, "ann", *CALL, actor=SHELL)

        def impatient(own: Transaction, operation: Callable[..., Receipt], *args: Any) -> Receipt:
            own.connection().execute(sa.text("SET LOCAL lock_timeout = '2s'"))
            return operation(own, *args, actor=SHELL)

        done = [db.write(impatient, ledger.recharge, "bob", 100), db.write(impatient, ledger.charge, "bob", *CALL)]
        held = db.write(impatient, ledger.precharge, "bob", "m", 10, 10)
        done.append(db.write(impatient, ledger.settle, held.entry_id, Tokens(1, 1)))
        return [*done, db.write(impatient, ledger.reverse, done[1].entry_id, "wrong")]

    assert len(db.write(while_ann_is_written)) == 4
    assert not check(db)
    db.close()


def test_a_program_that_is_charged_itself_holds_up_nobody_whom_it_charges(postgres_database: str) -> None:
    db = Database(postgres_database)
    for user_id in ("gateway", "bob"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
        db.write(ledger.recharge, user_id, 10**8, actor=SHELL)
        db.write(ledger.charge, user_id, *CALL, actor=SHELL)
    gateway = Actor(db.read(accounts.find, "gateway").id, "gateway", "Gateway", may_charge=True)

    def impatient(own: Transaction) -> Receipt:
        own.connection().execute(sa.text("SET LOCAL lock_timeout = '2s'"))
        return ledger.charge(own, "bob", *CALL, actor=gateway)

    def while_it_is_charged(tx: Transaction) -> Receipt:
        ledger.charge(tx, "gateway", *CALL, actor=gateway)
        return db.write(impatient)

    assert db.write(while_it_is_charged).user_id == "bob"
    assert not check(db)
    db.close()


def test_a_deadlock_on_postgres_is_run_again_and_not_seen(postgres_database: str) -> None:
    db = Database(postgres_database)
    for user_id in ("ann", "bob"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
    both = threading.Barrier(2)
    tries = []

    def crosswise(tx: Transaction, first: str, second: str) -> None:
        tries.append(first)
        ledger.recharge(tx, first, 100, actor=SHELL)
        if len(tries) <= 2:
            both.wait(10)
        ledger.recharge(tx, second, 100, actor=SHELL)

    assert at_once(lambda: db.write(crosswise, "ann", "bob"), lambda: db.write(crosswise, "bob", "ann")) == [None, None]
    assert len(tries) > 2  # whoever is run again may meet the other once more
    assert db.read(lambda tx: [accounts.find(tx, name).balance for name in ("ann", "bob")]) == [200, 200]
    assert not check(db)
    db.close()


def test_a_serialization_failure_on_postgres_is_run_again_and_not_seen(postgres_database: str) -> None:
    db = Database(postgres_database)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    tries = []

    def late(tx: Transaction) -> None:
        tx.connection().execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        tx.connection().execute(sa.text("SELECT count(*) FROM account"))
        tries.append(1)
        if len(tries) == 1:
            db.write(ledger.recharge, "ann", 100, actor=SHELL)
        ledger.recharge(tx, "ann", 100, actor=SHELL)

    db.write(late)
    assert len(tries) == 2
    assert db.read(lambda tx: accounts.find(tx, "ann").balance) == 200
    db.close()


def test_with_thousands_of_holds_expiry_is_exact_and_costs_others_nothing(team: Database, clock: Clock) -> None:
    """Each hold lasts a second longer than the one before."""

    def many(tx: Transaction) -> list[Receipt]:
        return [ledger.precharge(tx, "ann", "m", 10, 10, actor=SHELL, ttl_seconds=n) for n in range(1, 2001)]

    before = team.read(lambda tx: accounts.find(tx, "ann").balance)
    held = [one.cost for one in team.write(many)]
    with transactions(team) as without:
        team.write(ledger.charge, "bob", *CALL, actor=SHELL)
    for passed in (1, 999, 500, 499):
        clock.forward(seconds=passed)
        elapsed = (clock.now_ns - team.read(lambda tx: accounts.find(tx, "ann").created_at_ns)) // 10**9
        left = team.read(lambda tx: ledger.balance(tx, accounts.find(tx, "ann")))
        assert left == before - sum(held[elapsed:])
    team.write(close_ended)
    with transactions(team) as with_some_due:
        team.write(ledger.charge, "bob", *CALL, actor=SHELL)
    assert [len(each) for each in with_some_due] == [len(each) for each in without]
    ledger.note_expired(team)
    assert team.read(lambda tx: accounts.find(tx, "ann").balance) == before - held[-1]
    assert not check(team)


def test_a_settle_and_an_expiry_at_the_deadline_end_a_hold_once(team: Database, clock: Clock) -> None:
    for _ in range(8):
        before = team.read(lambda tx: ledger.balance(tx, accounts.find(tx, "ann")))
        one = team.write(ledger.precharge, "ann", "m", 10, 10, actor=SHELL, ttl_seconds=60)
        clock.forward(seconds=60)
        settled, _swept = at_once(
            lambda number=one.entry_id: team.write(ledger.settle, number, Tokens(1, 1), actor=SHELL),
            lambda: team.write(ledger.expire_holds),
        )
        assert isinstance(settled, Conflict)  # the deadline has come, whoever writes it down
        assert team.read(lambda tx: ledger.balance(tx, accounts.find(tx, "ann"))) == before
    assert not check(team)


def test_a_settle_and_an_expiry_around_the_deadline_end_a_hold_once(db_url: str) -> None:
    """Each thread's clock says another moment within some milliseconds of the deadline, as servers' clocks do."""
    moment, dice = threading.local(), random.Random(9)
    db = Database(db_url, clock=lambda: getattr(moment, "now_ns", NOON))
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    db.write(ledger.recharge, "ann", 10**8, actor=SHELL)
    deadline = NOON + 60 * SECOND
    ends: dict[str, int] = {}

    def told(now_ns: int, operation: Callable[..., Any], *args: Any, **named: Any) -> Callable[[], Any]:
        def run() -> Any:
            moment.now_ns = now_ns
            return db.write(operation, *args, **named)

        return run

    for number in range(40):
        one = db.write(ledger.precharge, "ann", "m", 10, 10, actor=SHELL, ttl_seconds=60).entry_id
        before = db.read(lambda tx: accounts.find(tx, "ann").total_consumed)
        # Some rounds lie before the deadline, some after it, most on both sides.
        low, high = ((-5, -1), (0, 5), (-2, 2), (-1, 0))[number % 4]
        times = [deadline + dice.randint(low * 10**6, high * 10**6) for _ in range(8)]
        enders = [*[ledger.settle] * 3, ledger.refund]
        asked = [
            told(at, end, one, *([Tokens(1, 1)] if end is ledger.settle else []), actor=SHELL)
            for at, end in zip(times, enders, strict=False)
        ]
        asked += [told(at, ledger.expire_holds) for at in times[4:7]]
        asked.append(told(times[7], ledger.charge, "ann", *CALL, actor=SHELL))
        dice.shuffle(asked)
        done = at_once(*asked)
        won = [each for each in done if isinstance(each, Receipt) and each.type in ("settle", "refund")]
        refused = [each for each in done if isinstance(each, BillingError)]
        swept = sum(each for each in done if isinstance(each, int))
        charged = next(each for each in done if isinstance(each, Receipt) and each.type == "deduct")
        assert all(isinstance(each, Conflict) for each in refused)
        assert len(won) + len(refused) == 4
        assert len(won) <= 1
        if won:
            assert won[0].created_at_ns < deadline
            assert swept == 0
        if max(times[:4]) < deadline and max(times) < deadline:
            assert won  # nobody saw it expire
        how, end, ended_ns = db.read(_end_of, one) or ("", 0, 0)
        assert (end in [each.entry_id for each in won]) if won else how in ("expire", "")
        if how == "":  # nobody looked after the deadline who could write it down: whoever comes next does
            assert min(times[:4]) >= deadline > max(times[4:])
            assert told(deadline, ledger.expire_holds)() == 1
        elif how == "expire":
            assert ended_ns == deadline
        ends[how or "next"] = ends.get(how or "next", 0) + 1
        consumed = db.read(lambda tx: accounts.find(tx, "ann").total_consumed)
        assert consumed == before + charged.cost + sum(each.cost for each in won)
        assert db.read(lambda tx: accounts.find(tx, "ann").balance) == 10**8 - consumed
        assert db.read(lambda tx: accounts.find(tx, "ann").hold_expires_at_ns) is None
        moment.now_ns = NOON
    assert not check(db)
    assert {"settle", "expire"} <= set(ends), ends
    db.close()


def _end_of(tx: Transaction, precharge_id: int) -> tuple[str, int, int] | None:
    """The type, the number and the time of the entry that ended a hold."""
    statement = "SELECT type, id, created_at_ns FROM entry WHERE precharge_id = :id"
    found = tx.connection().execute(sa.text(statement), {"id": precharge_id}).one_or_none()
    return None if found is None else (found[0], found[1], found[2])


def test_a_lock_that_is_not_had_in_time_is_a_busy_database(postgres_database: str) -> None:
    db = Database(postgres_database)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)

    def impatient(tx: Transaction) -> None:
        tx.connection().execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
        ledger.recharge(tx, "ann", 100, actor=SHELL)

    def while_ann_is_written(tx: Transaction) -> None:
        ledger.recharge(tx, "ann", 100, actor=SHELL)
        with pytest.raises(DatabaseUnavailable, match="The database is busy"):
            db.write(impatient)

    db.write(while_ann_is_written)
    db.close()


# Prices that change meanwhile


def price(db: Database, yuan: int) -> None:
    db.write(pricing.set_price, "m", yuan * 1_000_000, 0, actor=SHELL)


def test_what_another_thread_finds_out_meanwhile_changes_no_charge(postgres_database: str) -> None:
    """Cid's charge begins, then an admin's change of the price, then Ann's and Bob's. Once Ann's has the old price the change
    is committed, and Bob's, which has seen no more than the others, finds the new one. It is too late for Ann's and Cid's."""
    db = Database(postgres_database)
    for user_id in ("ann", "bob", "cid"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
    price(db, 3)
    straight = pricing.InForce.at
    has_begun = {name: threading.Event() for name in ("admin", "ann", "bob", "cid")}
    is_committed, bob_is_done = threading.Event(), threading.Event()

    def at(self: pricing.InForce, model: str, at_ns: int) -> pricing.Rates:
        name = threading.current_thread().name
        if name == "admin":
            return straight(self, model, at_ns)
        found = straight(self, model, at_ns) if name == "ann" else None
        has_begun[name].set()
        assert (is_committed if name == "bob" else bob_is_done).wait(20)
        return found or straight(self, model, at_ns)

    def set_price(tx: Transaction) -> None:
        has_begun["admin"].set()
        assert has_begun["ann"].wait(20)
        assert has_begun["bob"].wait(20)
        pricing.set_price(tx, "m", 7_000_000, 0, actor=SHELL)

    receipts: dict[str, Receipt] = {}

    def charge(user_id: str) -> None:
        receipts[user_id] = db.write(ledger.charge, user_id, "m", Tokens(10**6, 0), actor=SHELL, allow_debt=True)

    threads = {name: threading.Thread(target=charge, args=(name,), name=name) for name in ("cid", "ann", "bob")}
    threads["admin"] = threading.Thread(target=db.write, args=(set_price,), name="admin")
    with patch.object(pricing.InForce, "at", at):
        for name in ("cid", "admin", "ann", "bob"):
            threads[name].start()
            assert has_begun[name].wait(20)
        threads["admin"].join(20)
        is_committed.set()
        threads["bob"].join(20)
        bob_is_done.set()
        threads["ann"].join(20)
        threads["cid"].join(20)
    costs = {}
    for user_id, receipt in receipts.items():
        entry = db.read(lambda tx, receipt=receipt: tx.session.get_one(Entry, receipt.entry_id))
        named = db.read(lambda tx, entry=entry: tx.session.get_one(Price, entry.price_id))
        assert named.valid_from_ns <= entry.created_at_ns
        assert entry.cost == (named.input or 0) // 100
        costs[user_id] = entry.cost
    assert costs == {"ann": 30_000, "bob": 70_000, "cid": 30_000}
    assert not check(db)
    db.close()


def deadlocks(db: Database) -> int:
    """So far; Postgres tells of them once the connections that met one are idle or gone."""
    db.close()
    ((count,),) = db.read(
        lambda tx: tx.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    )
    return int(count)


def test_charges_of_new_models_do_not_deadlock(postgres_database: str) -> None:
    db = Database(postgres_database)
    for user_id in ("ann", "bob"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
        db.write(ledger.recharge, user_id, 10**10, actor=SHELL)
    together = threading.Barrier(2)

    def act(user_id: str, *models: str) -> None:
        for n in range(20):
            together.wait(20)
            charges = [ledger.Charge(user_id, f"{model}/{n}", CALL[1]) for model in models]
            db.write(ledger.charge_many, charges, actor=SHELL)
            db.write(ledger.precharge, user_id, f"{user_id}/{n}", 1, 1, actor=SHELL)

    at_once(lambda: act("ann", "x", "y"), lambda: act("bob", "y", "x"))
    assert deadlocks(db) == 0
    assert not check(db)
    db.close()


def test_who_waits_for_an_account_holds_up_nobody_elses_new_models(postgres_database: str) -> None:
    db = Database(postgres_database)
    for user_id in ("ann", "bob"):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
        db.write(ledger.recharge, user_id, 10**10, actor=SHELL)
    done = threading.Event()
    waiting = threading.Thread(target=lambda: db.write(ledger.precharge, "ann", "new/x", 1, 1, actor=SHELL))

    def hold(tx: Transaction) -> None:
        ledger.recharge(tx, "ann", 5, actor=SHELL)
        waiting.start()
        time.sleep(0.3)
        other = threading.Thread(
            target=lambda: (db.write(ledger.charge, "bob", "new/y", CALL[1], actor=SHELL), done.set())
        )
        other.start()
        assert done.wait(20)

    db.write(hold)
    waiting.join(20)
    assert not waiting.is_alive()
    db.close()
