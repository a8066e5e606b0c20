"""What is read every day costs no more with a longer history or more accounts, on either database."""

from collections.abc import Callable
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from billing_http import Api
from conftest import NOON, Clock
from plans import statements, steps

from billing_core import accounts, export, idempotency, ledger, logs, overview, seals, stats, stretches
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction
from billing_core.logs import Filters
from billing_core.sums import QUARTER_NS
from billing_core.tokens import Tokens

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
    "the page's days": lambda tx: stats.spent_by(tx, overview.last_days(tx, UTC), actor=SHELL),
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


# Plans


@pytest.fixture
def sealed(db: Database, clock: Clock) -> Database:
    """Enough entries for a database to look for an index, most of them sealed and noted."""

    def write(tx: Transaction) -> None:
        for user_id in ("ann", "bob"):
            accounts.add(tx, user_id, user_id.title(), actor=SHELL)
            ledger.recharge(tx, user_id, 10_000_000, actor=SHELL, remark="first")
        calls = [
            ledger.Charge(("bob", "ann")[n % 3 > 0], "some/model", Tokens(n, 1), created_at_ns=tx.now_ns - 3000 + n)
            for n in range(3000)
        ]
        ledger.charge_many(tx, calls, actor=SHELL)
        ledger.reverse(tx, 7, "mistake", actor=SHELL)

    db.write(write)
    seals.close(db)
    assert stretches.fill(db) == 3
    if not db.is_sqlite:
        db.write(lambda tx: tx.rows("ANALYZE"))
    return db


DATES = {"start_ns": NOON - 2900, "end_ns": NOON - 2000}
DAYS = {"start_ns": (NOON // QUARTER_NS - 96) * QUARTER_NS, "end_ns": (NOON // QUARTER_NS + 1) * QUARTER_NS}
PAGES: dict[str, tuple[Filters, dict[str, int]]] = {
    "the newest": (Filters(), {}),
    "further down": (Filters(), {"before": 2000}),
    "at an offset": (Filters(), {"offset": 2000}),
    "an account's": (Filters("ann"), {}),
    "a member's own": (Filters("ann", merged=True), {}),
    "an account's at an offset": (Filters("ann"), {"offset": 1000}),
    "between two dates": (Filters(**DATES), {}),
    "an account's between two dates": (Filters("ann", **DATES), {}),
    "a model's": (Filters(model="some/model"), {}),
    "an unknown model's": (Filters(model="no/model"), {}),
    "a rare type": (Filters(types=("reversal",)), {}),
    "an account's rare type": (Filters("ann", types=("reversal",)), {}),
    "recharges": (Filters(types=("recharge",)), {}),
    "an account's recharges": (Filters("ann", types=("recharge",)), {}),
    "text": (Filters(search="mistake"), {}),
    "an account's text": (Filters("ann", search="mistake"), {}),
    "all of it, further down": (
        Filters(None, NOON - 2900, NOON, "some/model", ("reversal", "settle")),
        {"before": 2000},
    ),
}


def reads_all(plan: list[str]) -> list[str]:
    """What of a plan reads the whole ledger."""
    return [step for step in plan if step == "SCAN entry" or "Seq Scan on entry" in step]


@pytest.mark.parametrize(("filters", "place"), PAGES.values(), ids=PAGES)
def test_a_page_reads_entries_by_an_index_and_sorts_no_history(
    sealed: Database, monkeypatch: pytest.MonkeyPatch, filters: Filters, place: dict[str, int]
) -> None:
    monkeypatch.setattr(logs, "_SMALL", 100)
    plans = steps(sealed, lambda: sealed.read(logs.page, filters, actor=SHELL, limit=10, **place))
    newest = [["SCAN entry"]] if filters == Filters() and not place and sealed.is_sqlite else []
    assert [found for plan in plans if (found := reads_all(plan))] == newest  # backwards by its number, up to LIMIT
    for plan in plans:
        if not any("stretch" in step for step in plan):  # of these there are a thousand times fewer
            few = any("= ANY" in step or "(id >= " in step for step in plan)  # listed, or of some stretches
            assert not [step for step in plan if "TEMP B-TREE" in step or (step.startswith("Sort ") and not few)], plan


DAILY: dict[str, Callable[[Transaction], Any]] = {
    "a sum between two dates": lambda tx: logs.total(tx, Filters(**DATES), actor=SHELL),
    "an account's sum": lambda tx: logs.total(tx, Filters("ann", **DATES), actor=SHELL),
    "an account's sum of some days": lambda tx: logs.total(tx, Filters("ann", **DAYS), actor=SHELL),
    "a member's sum of some days": lambda tx: logs.total(tx, Filters("ann", **DAYS, merged=True), actor=SHELL),
    "its calls of some days": lambda tx: logs.total(tx, Filters("ann", **DAYS, types=ledger.CALLS), actor=SHELL),
    "of a model": lambda tx: logs.total(
        tx, Filters("ann", **DAYS, model="some/model", types=ledger.CALLS), actor=SHELL
    ),
    "one entry": lambda tx: logs.one(tx, 7, actor=SHELL),
    "the accounts": lambda tx: overview.team(tx, actor=SHELL, tz=UTC),
    "the accounts' days": lambda tx: stats.spent_by(tx, days(), actor=SHELL, user_ids=["ann", "bob"]),
    "an account": lambda tx: overview.one(tx, "ann", actor=SHELL, tz=UTC),
    "an account's balances": lambda tx: overview.balances(
        tx, overview.one(tx, "ann", actor=SHELL, tz=UTC), actor=SHELL, tz=UTC
    ),
    "everybody's calls of a model": lambda tx: logs.total(
        tx, Filters(**DAYS, model="some/model", types=ledger.CALLS), actor=SHELL
    ),
    "everybody's remarks": lambda tx: logs.total(tx, Filters(**DAYS, search="mistake"), actor=SHELL),
    "stats by model": lambda tx: stats.usage(tx, days(), actor=SHELL, user_id=None, by="model"),
    "stats by account": lambda tx: stats.usage(tx, days(), actor=SHELL, user_id=None, by="account"),
    "stats of the accounts that are drawn": lambda tx: stats.by_account(
        tx, days(), actor=SHELL, measure="cost", most=1
    ),
    "an account's stats": lambda tx: stats.usage(tx, days(), actor=SHELL, user_id="ann", by="model"),
}


def days() -> list[stats.Period]:
    return stats.periods_between(date(2025, 6, 10), date(2025, 6, 20), "day", UTC)


@pytest.mark.parametrize("read", DAILY.values(), ids=DAILY)
def test_what_is_read_every_day_never_reads_the_whole_ledger(
    sealed: Database, read: Callable[[Transaction], Any]
) -> None:
    plans = steps(sealed, lambda: sealed.read(read))
    assert plans
    assert not [found for plan in plans if (found := reads_all(plan))], plans


def test_balances_of_a_month_are_reckoned_from_what_came_since(sealed: Database) -> None:
    shown = sealed.read(overview.one, "ann", actor=SHELL, tz=UTC)
    plans = steps(sealed, lambda: sealed.read(overview.balances, shown, actor=SHELL, tz=UTC))
    (moved,) = [plan for plan in plans if any("entry_recharge" in step for step in plan)]
    assert any("entry_rare_of_account" in step for step in moved), moved
    if sealed.is_sqlite:
        read = [step for step in moved if step.startswith("SEARCH entry USING")]
        assert len(read) == 2
        assert all("(account_id=? AND id>?)" in step for step in read), read


def test_what_a_charge_looks_up_is_found_by_an_index(sealed: Database) -> None:
    once = idempotency.Once.of(SHELL, "key", 1)

    def spend() -> None:
        sealed.write(ledger.charge, "ann", "some/model", Tokens(1, 1), actor=SHELL, once=once)
        hold = sealed.write(ledger.precharge, "ann", "some/model", 1, 1, actor=SHELL)
        settled = sealed.write(ledger.settle, hold.entry_id, Tokens(1, 1), actor=SHELL)
        sealed.write(ledger.reverse, settled.entry_id, "mistake", actor=SHELL)

    plans = steps(sealed, spend)
    assert plans
    assert not [found for plan in plans if (found := reads_all(plan))], plans


def test_pieces_of_time_are_looked_up_in_an_index(sealed: Database) -> None:
    """Postgres takes their bounds, which it can't see, for wide ones: left to itself, it joined them with all there is."""
    kathmandu = ZoneInfo("Asia/Kathmandu")
    periods = stats.last_periods(NOON, "day", kathmandu, 30)
    for user_id, by in (("ann", "model"), (None, "model"), (None, "account")):
        found = steps(
            sealed,
            lambda user_id=user_id, by=by: sealed.read(stats.usage, periods, actor=SHELL, user_id=user_id, by=by),  # type: ignore[misc]
        )
        lines = [line for plan in found for line in plan]
        if sealed.is_sqlite:
            assert not [line for line in lines if line.split()[:2] in (["SCAN", "s"], ["SCAN", "e"])]
            assert any("SEARCH s USING PRIMARY KEY (of=? AND length=? AND period=?" in line for line in lines)
        else:
            assert not [line for line in lines if line.startswith(("Join Filter", "Hash Cond")) and "column" in line]
            assert any(line.startswith("Index Cond") and '"*VALUES*".column' in line for line in lines)
