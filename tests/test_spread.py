"""The ledger on tables whose every key names the account: docs/spread.sql."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import Clock

from billing_core import accounts, ledger, logs, pricing, seals, stats
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database
from billing_core.errors import Conflict
from billing_core.idempotency import Once
from billing_core.tokens import Tokens
from billing_core.zones import zone

SPREAD = Path(__file__).parent.parent / "docs" / "spread.sql"
BELONGS_TO_AN_ACCOUNT = ("entry", "hold")


@pytest.fixture
def db(postgres_database: str, clock: Clock) -> Iterator[Database]:
    db = Database(postgres_database, clock=clock)
    for user_id in ("ann", "bob"):
        db.write(accounts.add, user_id, user_id.title(), actor=SHELL)
        db.write(ledger.recharge, user_id, 1_000_000, actor=SHELL)
    with db.engine.connect() as connection:
        connection.connection.driver_connection.execute(SPREAD.read_text())  # type: ignore[union-attr]
    yield db
    db.close()


def test_every_key_of_what_belongs_to_an_account_names_it(db: Database) -> None:
    found = sa.inspect(db.engine)
    for table in BELONGS_TO_AN_ACCOUNT:
        assert "account_id" in found.get_pk_constraint(table)["constrained_columns"]
        assert all("account_id" in index["column_names"] for index in found.get_indexes(table) if index["unique"])
        for key in found.get_foreign_keys(table):
            if key["referred_table"] in BELONGS_TO_AN_ACCOUNT:
                assert "account_id" in key["constrained_columns"]
                assert "account_id" in key["referred_columns"]


def test_the_ledger_works_on_them_and_the_check_proves_it(db: Database, clock: Clock) -> None:
    once = Once.of(SHELL, "a key", "a call")
    first = db.write(ledger.charge, "ann", "m", Tokens(1000, 500), actor=SHELL, once=once)
    assert db.write(ledger.charge, "ann", "m", Tokens(1000, 500), actor=SHELL, once=once).entry_id == first.entry_id
    batch = [ledger.Charge(user_id, "m", Tokens(100 * n, 10)) for n in range(1, 20) for user_id in ("ann", "bob")]
    charged, *_ = db.write(ledger.charge_many, batch, actor=SHELL)
    assert isinstance(charged, ledger.Receipt)
    settled, refunded, expiring = (
        db.write(ledger.precharge, "bob", "m", 100, 100, actor=SHELL, ttl_seconds=60).entry_id for _ in range(3)
    )
    db.write(ledger.settle, settled, Tokens(100, 50), actor=SHELL)
    db.write(ledger.refund, refunded, actor=SHELL)
    clock.forward(seconds=120)
    ledger.note_expired(db)
    with pytest.raises(Conflict, match="expired"):
        db.write(ledger.settle, expiring, Tokens(100, 50), actor=SHELL)
    db.write(ledger.reverse, first.entry_id, "a mistake", actor=SHELL)
    with pytest.raises(Conflict, match="reversed already"):
        db.write(ledger.reverse, first.entry_id, "again", actor=SHELL)
    price = db.write(pricing.set_price, "m", 7_000_000, 9_000_000, actor=SHELL)
    db.write(ledger.reprice, charged.entry_id, price.id, "the list price", actor=SHELL)
    seals.close(db, everything=True)
    assert check(db) == []
    rows = db.read(logs.page, logs.Filters("ann"), actor=SHELL)
    periods = stats.last_periods(clock.now_ns, "day", zone("UTC"), 1)
    used = db.read(stats.usage, periods, actor=SHELL, user_id="ann")
    assert sum(one.cost for one in used) == sum(row.consumed for row in rows if row.type != "recharge")
