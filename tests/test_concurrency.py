"""One short transaction on one account's rows: accounts don't wait for each other, and nobody sees a deadlock."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import Clock
from sqlalchemy import event
from test_invariants import at_once

from billing_core import accounts, ledger
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import Conflict, DatabaseUnavailable
from billing_core.idempotency import Once
from billing_core.ledger import Receipt
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


@contextmanager
def watched(db: Database) -> Iterator[list[tuple[str, Any]]]:
    """The statements that the database is sent, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        seen.append((" ".join(statement.split()), parameters))

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def account_number(db: Database, user_id: str) -> int:
    return db.read(lambda tx: accounts.find(tx, user_id).id or 0)


OPERATIONS: dict[str, Callable[[Database], Any]] = {
    "recharge": lambda db: db.write(ledger.recharge, "ann", 100, actor=SHELL, once=Once.of(SHELL, "r", 1)),
    "charge": lambda db: db.write(ledger.charge, "ann", *CALL, actor=SHELL, once=Once.of(SHELL, "c", 1)),
    "precharge": lambda db: db.write(ledger.precharge, "ann", "m", 10, 10, actor=SHELL, once=Once.of(SHELL, "p", 1)),
}


def hold(db: Database) -> int:
    return db.read(
        lambda tx: int(tx.connection().scalar(sa.text("SELECT max(id) FROM entry WHERE type = 'precharge'")))
    )


def charged(db: Database) -> int:
    return db.read(lambda tx: int(tx.connection().scalar(sa.text("SELECT min(id) FROM entry WHERE type = 'deduct'"))))


@pytest.mark.parametrize("operation", [*OPERATIONS, "settle", "refund", "reverse"])
def test_a_write_is_one_transaction_on_one_accounts_rows(team: Database, operation: str) -> None:
    team.write(ledger.precharge, "ann", "m", 10, 10, actor=SHELL)
    ann = account_number(team, "ann")
    number = hold(team), charged(team)
    begun: list[Any] = []

    def begin(connection: Any) -> None:
        begun.append(connection)

    event.listen(team.engine, "begin", begin)
    with watched(team) as seen:
        {"settle": lambda: team.write(ledger.settle, number[0], Tokens(5, 5), actor=SHELL, once=Once.of(SHELL, "s", 1)),
         "refund": lambda: team.write(ledger.refund, number[0], actor=SHELL, once=Once.of(SHELL, "f", 1)),
         "reverse": lambda: team.write(ledger.reverse, number[1], "wrong", actor=SHELL, once=Once.of(SHELL, "v", 1)),
         }.get(operation, lambda: OPERATIONS[operation](team))()  # fmt: skip
    event.remove(team.engine, "begin", begin)
    assert len(begun) == 1
    written = [
        (statement, parameters)
        for statement, parameters in seen
        if statement.startswith(("INSERT", "UPDATE", "DELETE")) or "FOR UPDATE" in statement
    ]
    assert written
    for statement, parameters in written:
        values = list(parameters.values()) if isinstance(parameters, dict) else list(parameters)
        if "idempotency" in statement:
            assert statement.startswith("INSERT INTO idempotency")
        else:  # the account, its entries, its holds, its sums: each statement names Ann
            assert ann in values or "ann" in values or number[0] in values, (statement, values)
            assert any(f" {table} " in f"{statement} " for table in ("account", "entry", "hold", "usage_sum"))
    assert len(seen) <= 16


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
    assert len(tries) == 3
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
    with watched(team) as without:
        team.write(ledger.charge, "bob", *CALL, actor=SHELL)
    for passed in (1, 999, 500, 499):
        clock.forward(seconds=passed)
        elapsed = (clock.now_ns - team.read(lambda tx: accounts.find(tx, "ann").created_at_ns)) // 10**9
        left = team.read(lambda tx: ledger.balance(tx, accounts.find(tx, "ann")))
        assert left == before - sum(held[elapsed:])
    with watched(team) as with_some_due:
        team.write(ledger.charge, "bob", *CALL, actor=SHELL)
    assert len(with_some_due) == len(without)
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
