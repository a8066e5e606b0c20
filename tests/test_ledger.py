import pytest
from conftest import Clock

from billing_core import accounts, ledger
from billing_core.accounts import SHELL
from billing_core.database import Database
from billing_core.errors import InsufficientBalance
from billing_core.usage import Tokens


def test_a_recharge_and_a_charge_leave_the_difference(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 10_000, actor=SHELL, remark="首充")
    receipt = db.write(ledger.charge, ann, "free/of-a-kind", Tokens(1000, 0), actor=SHELL)
    assert (receipt.cost, receipt.balance) == (180, 9_820)


def test_a_charge_that_the_balance_does_not_cover_leaves_nothing(db: Database, ann: str) -> None:
    with pytest.raises(InsufficientBalance):
        db.write(ledger.charge, ann, "some/model", Tokens(1, 0), actor=SHELL)
    assert db.read(accounts.find, ann).balance == 0


def test_an_expired_hold_is_in_the_balance_at_once(db: Database, ann: str, clock: Clock) -> None:
    db.write(ledger.recharge, ann, 10_000, actor=SHELL)
    db.write(ledger.precharge, ann, "some/model", 1000, 0, actor=SHELL, ttl_seconds=60)
    assert db.read(lambda tx: ledger.balance(tx, accounts.find(tx, ann))) == 9_820
    clock.forward(seconds=60)
    assert db.read(lambda tx: ledger.balance(tx, accounts.find(tx, ann))) == 10_000
