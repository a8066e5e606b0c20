"""A clock that jumps: the ledger's order is its own, not the clock's."""

import pytest
from conftest import Clock

from billing_core import accounts, keeper, ledger, logs, pricing, seals, signin
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database
from billing_core.errors import Conflict, NotSignedIn
from billing_core.idempotency import Once
from billing_core.tokens import Tokens

from .acknowledged import Told, compare

JUMPS = pytest.mark.parametrize("days", [-1 / 24, 365], ids=["an hour back", "a year forward"])


def charges(db: Database, first: int, many: int) -> list[Told]:
    told = []
    for number in range(first, first + many):
        once = Once.of(SHELL, f"k-{number}", number)
        done = db.write(ledger.charge, "ann", "m", Tokens(1000, 0), actor=SHELL, once=once)
        assert done.replayed == (f"k-{number}" in _seen)
        _seen.add(f"k-{number}")
        told.append(Told(f"k-{number}", done.entry_id, done.cost))
    return told


_seen: set[str] = set()


@JUMPS
def test_entries_keep_their_order_and_what_was_asked_before_is_known(
    db: Database, ann: str, clock: Clock, days: float
) -> None:
    _seen.clear()
    db.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    told = charges(db, 0, 5)
    clock.forward(days=days)
    told += charges(db, 5, 5)
    assert charges(db, 0, 10) == told  # each again, under its key
    rows = list(logs.every(db, logs.Filters("ann"), actor=SHELL))
    assert [row.id for row in rows] == sorted((row.id for row in rows), reverse=True)
    sums = [sum(row.amount for row in rows[place:]) for place in range(len(rows))]
    assert [row.balance_after for row in rows] == sums
    seals.close(db, everything=True)
    compare(db, told, f"the clock {'an hour back' if days < 0 else 'a year forward'}, {db.engine.dialect.name}")


@JUMPS
def test_a_hold_ends_once_whatever_the_clock_does(db: Database, ann: str, clock: Clock, days: float) -> None:
    db.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    hold = db.write(ledger.precharge, "ann", "m", 1000, 100, actor=SHELL, ttl_seconds=60)
    clock.forward(days=days)
    keeper.tick(db)
    clock.forward(days=-days)
    keeper.tick(db)
    if days > 0:  # it had expired, and that was written down
        with pytest.raises(Conflict, match="has expired"):
            db.write(ledger.settle, hold.entry_id, Tokens(1000, 10), actor=SHELL)
    else:
        db.write(ledger.settle, hold.entry_id, Tokens(1000, 10), actor=SHELL)
    clock.forward(days=1)
    keeper.tick(db)
    ends = [row for row in logs.every(db, logs.Filters("ann"), actor=SHELL) if row.precharge_id == hold.entry_id]
    assert len(ends) == 1
    assert not check(db)


@JUMPS
def test_a_price_counts_by_the_clock_and_what_was_charged_keeps_its_own(
    db: Database, ann: str, clock: Clock, days: float
) -> None:
    db.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    db.write(pricing.set_price, "m", 1_000_000, 1_000_000, actor=SHELL)
    clock.forward(seconds=7200)
    db.write(pricing.set_price, "m", 3_000_000, 3_000_000, actor=SHELL)
    first = db.write(ledger.charge, "ann", "m", Tokens(1000, 0), actor=SHELL)
    clock.forward(days=days)
    second = db.write(ledger.charge, "ann", "m", Tokens(1000, 0), actor=SHELL)
    assert (first.cost, second.cost) == (30, 10 if days < 0 else 30)
    assert not check(db)


def test_sessions_end_by_the_clock_and_go_on_when_it_is_set_right(db: Database, ann: str, clock: Clock) -> None:
    secret = db.write(lambda tx: signin.issue(tx, "session", accounts.find(tx, "ann")))
    clock.forward(days=365)
    assert db.read(signin.session_actor, secret) is None
    clock.forward(days=-365)
    assert db.read(signin.session_actor, secret) is not None
    with pytest.raises(NotSignedIn):
        db.read(signin.key_actor, "bk_unknown")
