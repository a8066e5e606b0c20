"""What stands at the top of a page."""

from zoneinfo import ZoneInfo

import pytest
from conftest import Clock

from billing_core import accounts, ledger, logs, overview, seals, settings, stretches
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction
from billing_core.tokens import Tokens

UTC = ZoneInfo("UTC")


@pytest.mark.parametrize("sealed", [False, True])
def test_the_balance_of_a_day_counts_recharges_and_what_undid_them(db: Database, clock: Clock, sealed: bool) -> None:
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    old = db.write(ledger.recharge, "ann", 1_000, actor=SHELL)
    if sealed:
        seals.close(db, everything=True)
        stretches.fill(db)
    clock.forward(days=40)
    db.write(ledger.recharge, "bob", 77, actor=SHELL)
    db.write(ledger.recharge, "ann", 200, actor=SHELL)
    clock.forward(days=1)
    undone = db.write(ledger.reverse, old.entry_id, "wrong", actor=SHELL)
    clock.forward(days=1)
    db.write(ledger.reverse, undone.entry_id, "right after all", actor=SHELL)
    clock.forward(days=1)

    def read(tx: Transaction) -> list[int]:
        return overview.balances(tx, overview.one(tx, "ann", actor=SHELL, tz=UTC), actor=SHELL, tz=UTC)

    assert db.read(read)[-5:] == [1_000, 1_200, 200, 1_200, 1_200]


@pytest.mark.parametrize("counted", ["call", "reversal"])
def test_what_was_undone_had_been_spent_until_then(db: Database, ann: str, clock: Clock, counted: str) -> None:
    db.write(settings.change, "reversals_count_in", counted, actor=SHELL)
    balances = [db.write(ledger.recharge, ann, 10**6, actor=SHELL).balance]
    clock.forward(days=1)
    call = db.write(ledger.charge, ann, "some/model", Tokens(100_000, 0), actor=SHELL)
    balances.append(call.balance)
    clock.forward(days=1)
    balances.append(db.write(ledger.reverse, call.entry_id, "wrong", actor=SHELL).balance)

    def read(tx: Transaction) -> list[int]:
        return overview.balances(tx, overview.one(tx, ann, actor=SHELL, tz=UTC), actor=SHELL, tz=UTC)

    assert db.read(read)[-3:] == balances == [10**6, 10**6 - call.cost, 10**6]


def test_reversals_of_what_ended_a_hold_move_the_balance(db: Database, ann: str, clock: Clock) -> None:
    def read(tx: Transaction) -> list[int]:
        return overview.balances(tx, overview.one(tx, ann, actor=SHELL, tz=UTC), actor=SHELL, tz=UTC)

    db.write(ledger.recharge, ann, 1_000_000, actor=SHELL)
    held = db.write(ledger.precharge, ann, "some/model", 50_000, 0, actor=SHELL)
    clock.forward(days=1)
    assert db.write(ledger.expire_holds) == 1
    clock.forward(days=1)
    end = db.read(logs.page, logs.Filters(types=("expire",)), actor=SHELL)[0].id
    taken = db.write(ledger.reverse, end, "it was used", actor=SHELL)
    clock.forward(days=1)
    again = db.write(ledger.precharge, ann, "some/model", 50_000, 0, actor=SHELL)
    back = db.write(ledger.reverse, again.entry_id, "not needed", actor=SHELL)
    clock.forward(days=1)
    db.write(ledger.reverse, back.entry_id, "needed after all", actor=SHELL)
    after = 1_000_000 - held.cost
    assert taken.balance == after
    assert db.read(read)[-5:] == [1_000_000, 1_000_000, after, after, after - held.cost]
