"""Seals close what was written, and whoever changes it afterwards is found, triggers or not."""

import sqlite3
import threading
from contextlib import closing

import pytest
import sqlalchemy as sa
from conftest import Clock

from billing_core import ledger, seals
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database


def recharge(db: Database, times: int) -> None:
    for _ in range(times):
        db.write(ledger.recharge, "ann", 10_000, actor=SHELL)


def sealed(db: Database) -> list[tuple[int, int]]:
    with db.engine.connect() as connection:
        return [
            tuple(row) for row in connection.execute(sa.text("SELECT last_entry_id, entries FROM seal ORDER BY number"))
        ]


def tamper(db: Database, *statements: str) -> None:
    """As somebody would who owns the database: without its triggers."""
    with db.writer.connect() as connection:
        if db.is_sqlite:
            connection.execute(sa.text("DROP TRIGGER entry_no_update"))
            connection.execute(sa.text("DROP TRIGGER seal_no_update"))
        else:
            connection.execute(sa.text("ALTER TABLE entry DISABLE TRIGGER ALL"))
            connection.execute(sa.text("ALTER TABLE seal DISABLE TRIGGER ALL"))
        for statement in statements:
            connection.execute(sa.text(statement))
        connection.commit()


def test_a_stretch_is_sealed_at_a_thousand_entries(db: Database, ann: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "STRETCH", 4)
    monkeypatch.setattr(seals, "_STRETCH", sa.text(str(seals._STRETCH).replace("1000", "4")))
    recharge(db, 9)
    assert seals.close(db) == 2
    assert sealed(db) == [(4, 4), (8, 4)]
    assert seals.close(db) == 0


def test_a_stretch_is_sealed_when_a_day_has_passed(db: Database, ann: str, clock: Clock) -> None:
    recharge(db, 2)
    assert seals.close(db) == 0
    clock.forward(days=1)
    recharge(db, 1)
    assert seals.close(db) == 1
    assert sealed(db) == [(3, 3)]


def test_everything_can_be_sealed_now(db: Database, ann: str) -> None:
    assert seals.close(db, everything=True) == 0
    recharge(db, 2)
    assert seals.close(db, everything=True) == 1
    assert not check(db)


@pytest.mark.parametrize(
    "change",
    ["UPDATE entry SET remark = 'x' WHERE id = 2", "UPDATE entry SET operator_id = 1 WHERE id = 2",
     "UPDATE account SET user_id = 'eve'"],
)  # fmt: skip
def test_what_only_a_seal_sees_is_found(db: Database, ann: str, change: str) -> None:
    recharge(db, 3)
    seals.close(db, everything=True)
    tamper(db, change)
    assert "Seal 1 no longer fits" in " ".join(one.sentence() for one in check(db) if one.table == "seal")


def test_a_number_that_names_nothing_is_not_taken_for_none(db: Database, ann: str) -> None:
    if db.file:  # SQLite's foreign keys are off for whoever doesn't switch them on
        recharge(db, 3)
        seals.close(db, everything=True)
        with closing(sqlite3.connect(db.file)) as connection, connection:
            connection.execute("DROP TRIGGER entry_no_update")
            connection.execute("UPDATE entry SET operator_id = 999 WHERE id = 2")
        assert "Seal 1 no longer fits" in " ".join(one.sentence() for one in check(db) if one.table == "seal")


@pytest.mark.parametrize("change", ["last_entry_id = 99", "number = 2"])
def test_a_changed_seal_is_found(db: Database, ann: str, change: str) -> None:
    recharge(db, 3)
    seals.close(db, everything=True)
    tamper(db, f"UPDATE seal SET {change}")
    assert [one.id for one in check(db) if one.table == "seal"] == [1]


def test_two_that_seal_at_once_make_each_seal_once(db: Database, ann: str) -> None:
    recharge(db, 30)
    made: list[int] = []
    both = [threading.Thread(target=lambda: made.append(seals.close(db, everything=True))) for _ in range(4)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sum(made) == 1
    assert not check(db)


def test_what_is_committed_late_is_sealed_in_its_place(postgres_database: str, clock: Clock) -> None:
    db = Database(postgres_database, clock=clock)
    from billing_core import accounts

    for name in ("ann", "bob"):
        db.write(accounts.add, name, name, actor=SHELL)
    wrote, may_commit = threading.Event(), threading.Event()

    def slowly(tx: ledger.Transaction) -> None:
        ledger.recharge(tx, "bob", 10_000, actor=SHELL)
        wrote.set()
        may_commit.wait(30)

    slow = threading.Thread(target=db.write, args=(slowly,))
    slow.start()
    wrote.wait(30)
    recharge(db, 1)  # a larger id, committed first
    sealing = threading.Thread(target=seals.close, args=(db,), kwargs={"everything": True})
    sealing.start()
    sealing.join(0.2)
    assert sealed(db) == []
    may_commit.set()
    slow.join()
    sealing.join()
    assert sealed(db) == [(2, 2)]
    assert not check(db)
    db.close()
