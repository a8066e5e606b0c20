"""What stands at the top of a page."""

from zoneinfo import ZoneInfo

import pytest
from conftest import Clock

from billing_core import accounts, ledger, overview, seals, stats, stretches
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction

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
        spent = stats.spent(tx, overview.last_days(tx, UTC), actor=SHELL, user_id="ann")
        return overview.balances(tx, overview.one(tx, "ann", actor=SHELL, tz=UTC), spent, tz=UTC)

    assert db.read(read)[-5:] == [1_000, 1_200, 200, 1_200, 1_200]
