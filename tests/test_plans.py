"""What is read every day costs no more with a longer history or more accounts, on either database."""

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from billing_http import Api
from conftest import Clock
from plans import statements

from billing_core import accounts, export, ledger, overview
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction

UTC = ZoneInfo("UTC")


# Lists of accounts


def people(db: Database, first: int, last: int) -> None:
    """Accounts, each with a hold that is open and one that has expired."""

    def write(tx: Transaction) -> None:
        for n in range(first, last):
            accounts.add(tx, f"user{n}", f"User {n}", actor=SHELL)
            ledger.recharge(tx, f"user{n}", 100_000 + n, actor=SHELL)
            ledger.precharge(tx, f"user{n}", "some/model", 100, 0, actor=SHELL, ttl_seconds=60)
            ledger.precharge(tx, f"user{n}", "some/model", 200, 0, actor=SHELL, ttl_seconds=7200)

    db.write(write)


LISTS: dict[str, Callable[[Transaction], Any]] = {
    "the page": lambda tx: overview.team(tx, actor=SHELL, tz=UTC),
    "the file": lambda tx: export.accounts_and_spending(tx, actor=SHELL, tz=UTC),
}


@pytest.mark.parametrize("read", LISTS.values(), ids=LISTS)
def test_a_list_of_accounts_asks_as_often_for_many_as_for_few(
    db: Database, clock: Clock, read: Callable[[Transaction], Any]
) -> None:
    people(db, 0, 2)
    clock.forward(seconds=3600)
    few = len(statements(db, lambda: db.read(read)))
    people(db, 2, 30)
    clock.forward(seconds=3600)
    assert len(statements(db, lambda: db.read(read))) == few


def test_over_http_too(db: Database) -> None:
    api = Api(db)
    people(db, 0, 2)
    api.get("/accounts")  # notes when the key was used
    few = len(statements(db, lambda: api.get("/accounts")))
    people(db, 2, 30)
    assert len(statements(db, lambda: api.get("/accounts"))) == few


def test_each_account_in_a_list_has_the_balance_that_it_has_alone(db: Database, clock: Clock) -> None:
    people(db, 0, 3)
    clock.forward(seconds=3600)
    alone = db.read(lambda tx: [overview.one(tx, f"user{n}", actor=SHELL, tz=UTC) for n in range(3)])
    assert [one.held for one in alone] == [36] * 3
    assert db.read(overview.team, actor=SHELL, tz=UTC).rows == alone
    rows = db.read(export.accounts_and_spending, actor=SHELL, tz=UTC)
    assert [balance for _, balance, _ in rows] == [one.balance for one in alone]
