"""Pages of the log are found by what is noted of sealed stretches: it never changes what a page shows, and is proven."""

from typing import Any

import pytest
import sqlalchemy as sa
from conftest import NOON, SECOND, Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core import accounts, keeper, ledger, logs, pricing, seals, stretches
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.logs import TYPES, Filters, Row
from billing_core.tokens import Tokens

MODELS = ("common/model", "rare/model", "never/again", "unsealed/model")
HOUR = 3600 * SECOND


@pytest.fixture
def ledgers(db: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Stretches of ten entries, of which some are sealed and noted, some sealed alone, and some neither."""
    monkeypatch.setattr(seals, "STRETCH", 10)
    monkeypatch.setattr(seals, "_STRETCH", sa.text(str(seals._STRETCH).replace("LIMIT 1000", "LIMIT 10")))
    monkeypatch.setattr(stretches, "FEW", 2)
    monkeypatch.setattr(stretches, "SPAN", 2)
    monkeypatch.setattr(stretches, "LONGER", 3)
    monkeypatch.setattr(logs, "_SMALL", 5)
    monkeypatch.setattr(logs, "_FEW", 20)

    def write(tx: Transaction) -> None:
        for user_id in ("ann", "bob"):
            accounts.add(tx, user_id, user_id.title(), actor=SHELL)
            ledger.recharge(tx, user_id, 10_000_000, actor=SHELL, remark="first")
        price = pricing.set_price(tx, "common/model", 1, 1, actor=SHELL).id
        for n in range(120):
            tx.now_ns += HOUR
            user_id = "bob" if n % 5 == 0 else "ann"
            late = tx.now_ns - 50 * HOUR if n % 40 == 39 else None
            call = ledger.charge(tx, user_id, MODELS[n % 17 == 3], Tokens(100 + n, 10), actor=SHELL, created_at_ns=late)
            if n % 23 == 0:
                ledger.reverse(tx, call.entry_id, f"Mistake {n}", actor=SHELL)
            if n == 60:
                ledger.charge(tx, "bob", MODELS[2], Tokens(1, 1), actor=SHELL)
                hold = ledger.precharge(tx, "ann", MODELS[0], 100, 0, actor=SHELL)
                ledger.settle(tx, hold.entry_id, Tokens(100, 0), actor=SHELL)
                pricing.set_price(tx, "common/model", 10**9, 1, actor=SHELL)
            if n == 70:
                ledger.reprice(tx, call.entry_id, price, "dear", actor=SHELL)
            if n == 80:
                wrong = ledger.recharge(tx, "ann", 70_000, actor=SHELL, remark="second")
                ledger.reverse(tx, wrong.entry_id, "Mistake", actor=SHELL)

    db.write(write)
    clock.forward(days=30)
    seals.close(db)
    assert stretches.fill(db) == db.read(seals.newest).number > 10
    db.write(ledger.charge, "ann", MODELS[3], Tokens(9, 9), actor=SHELL)
    seals.close(db, everything=True)
    clock.forward(days=1)
    db.write(ledger.charge, "ann", MODELS[1], Tokens(9, 9), actor=SHELL, created_at_ns=NOON + 30 * HOUR)
    db.write(ledger.recharge, "bob", 5, actor=SHELL, remark="last")
    return db


def forget(db: Database) -> None:
    for table in ("stretch_holds", "stretch"):
        db.write(lambda tx, table=table: tx.rows(f"DELETE FROM {table}"))


def _filters(start_ns: int | None, end_ns: int | None, **more: Any) -> Filters:
    in_order = start_ns is None or end_ns is None or start_ns <= end_ns
    return Filters(start_ns=start_ns if in_order else end_ns, end_ns=end_ns if in_order else start_ns, **more)


FILTERS = st.builds(
    _filters,
    user_id=st.sampled_from([None, "ann", "bob"]),
    start_ns=st.none() | st.integers(-5, 130).map(lambda n: NOON + n * HOUR),
    end_ns=st.none() | st.integers(-5, 900).map(lambda n: NOON + n * HOUR),
    model=st.sampled_from(["", "", *MODELS, "nobody/knows", "\0"]),
    types=st.lists(st.sampled_from([*TYPES, "nothing"]), max_size=2, unique=True).map(tuple),
    search=st.sampled_from(["", "", "", "mistake", "first", "zebra"]),
    merged=st.booleans(),
)
PLACES = st.one_of(
    st.just({}),
    st.builds(lambda n: {"before": n}, st.integers(-3, 150)),
    st.builds(lambda n: {"after": n}, st.integers(-3, 150)),
    st.builds(lambda n: {"offset": n}, st.integers(0, 150)),
    st.builds(lambda n, m: {"offset": n, "before": m}, st.integers(0, 50), st.integers(0, 150)),
)


def shown(db: Database, filters: Filters, place: dict[str, Any], limit: int) -> tuple[list[Row], logs.Sum]:
    return db.read(
        lambda tx: (
            logs.page(tx, filters, actor=SHELL, limit=limit, **place),
            logs.total(tx, filters, actor=SHELL),
        )
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(st.tuples(FILTERS, PLACES, st.integers(1, 30)), min_size=10, max_size=10))
def test_every_page_is_the_one_that_is_found_without_them(ledgers: Database, asked: list[Any]) -> None:
    if not ledgers.read(stretches.newest):
        stretches.fill(ledgers)
    found = [shown(ledgers, *one) for one in asked]
    forget(ledgers)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(logs, "_FEW", 0)
        assert found == [shown(ledgers, *one) for one in asked]


@pytest.mark.parametrize("user_id", [None, "bob"])
@pytest.mark.parametrize("types", [(), ("deduct",), ("deduct", "reversal"), ("reversal",)])
def test_an_offset_leaves_out_as_many_as_pass(ledgers: Database, user_id: str | None, types: tuple[str, ...]) -> None:
    for model in MODELS:
        filters = Filters(user_id, model=model, types=types)
        whole = shown(ledgers, filters, {}, 1000)[0]
        for n in range(0, len(whole) + 2, 3):
            assert shown(ledgers, filters, {"offset": n}, 3)[0] == whole[n : n + 3], (model, n)


def test_every_place_and_every_moment_begins_a_page(ledgers: Database) -> None:
    whole = shown(ledgers, Filters(), {}, 1000)[0]
    for n in range(len(whole) + 2):
        assert shown(ledgers, Filters(), {"offset": n}, 3)[0] == whole[n : n + 3]
    for moment in {row.created_at_ns for row in whole}:
        since, until = (
            [row for row in whole if row.created_at_ns >= moment],
            [row for row in whole if row.created_at_ns < moment],
        )
        for filters, rows in ((Filters(start_ns=moment), since), (Filters(end_ns=moment), until)):
            found, total = shown(ledgers, filters, {}, 1000)
            assert (found, total.entries) == (rows, len(rows))
            assert list(logs.every(ledgers, filters, actor=SHELL, batch=50)) == rows


@pytest.mark.parametrize("most", [0, 1, 2, 1000])
def test_a_total_is_the_same_however_many_stretches_a_moment_cuts(
    ledgers: Database, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        Filters(start_ns=NOON + first * HOUR, end_ns=NOON + (first + hours) * HOUR)
        for first in range(-60, 800, 37)
        for hours in (5, 90, 900)
    ]
    forget(ledgers)
    plain = [ledgers.read(logs.total, one, actor=SHELL) for one in asked]
    stretches.fill(ledgers)
    monkeypatch.setattr(stretches, "MANY_CUT", most)
    assert [ledgers.read(logs.total, one, actor=SHELL) for one in asked] == plain
    assert len({one.entries for one in plain}) > 5


def test_they_are_noted_by_the_app_itself_once_each(ledgers: Database) -> None:
    def noted() -> list[Any]:
        return ledgers.read(
            lambda tx: [tx.rows(f"SELECT * FROM {t} ORDER BY 1, 2") for t in ("stretch", "stretch_holds")]
        )

    keeper.tick(ledgers)
    before = noted()
    assert len(before[0]) == ledgers.read(seals.newest).number
    assert stretches.fill(ledgers) == 0
    forget(ledgers)
    keeper.tick(ledgers)
    assert noted() == before
    assert not check(ledgers)


def test_a_note_that_somebody_else_made_meanwhile_is_not_made_twice(ledgers: Database) -> None:
    forget(ledgers)
    after, found = ledgers.read(stretches._next)
    assert ledgers.write(stretches._keep, after, found)
    assert not ledgers.write(stretches._keep, after, found)
    assert not check(ledgers)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE stretch SET first_id = first_id - 1 WHERE number = 4", "UPDATE stretch SET last_id = last_id + 1 WHERE number = 4",
        "UPDATE stretch SET upto = upto + 1 WHERE number = 4", "UPDATE stretch SET from_ns = from_ns + 1 WHERE number = 4",
        "UPDATE stretch SET to_ns = to_ns - 1 WHERE number = 4", "UPDATE stretch SET latest_ns = 0 WHERE number = 4",
        "DELETE FROM stretch WHERE number = 4", "DELETE FROM stretch_holds WHERE number = 4 AND what = -1",
        "UPDATE stretch_holds SET entries = entries + 1 WHERE number = 4 AND what = -1",
        "UPDATE stretch_holds SET ids = '1' WHERE number = 4 AND what = -1",
        "UPDATE stretch_holds SET consumed = consumed + 1 WHERE number = 4 AND what = -1",
        "UPDATE stretch_holds SET recharged = recharged + 1 WHERE number = 4 AND what = -1",
        f"UPDATE stretch_holds SET consumed = consumed + {2**61 - 1} WHERE number = 4 AND what = -1",
        f"UPDATE stretch_holds SET entries = entries + {2**61 - 1} WHERE number = 4 AND what = -1",
        "UPDATE stretch_holds SET what = -2 WHERE number = 4 AND what = -1",
        "UPDATE stretch_holds SET what = 99 WHERE number = 4 AND what = -1",
        "INSERT INTO stretch_holds VALUES (99, 4, 1, '3', 0, 0)", "INSERT INTO stretch_holds VALUES (99, 4000, 1, '3', 0, 0)",
        "INSERT INTO stretch VALUES (4000, 1, 2, 3, 4, 5, 6)",
    ],
)  # fmt: skip
def test_what_is_noted_wrongly_is_found(ledgers: Database, change: str) -> None:
    assert not check(ledgers)
    ledgers.write(lambda tx: tx.rows(change))
    (finding,) = check(ledgers)
    assert finding.table == "stretch"
    assert "WHERE number = 4" not in change or finding.id == 4


@pytest.mark.parametrize(
    "change",
    ["UPDATE stretch SET upto = 'x' WHERE number = 4", "UPDATE stretch_holds SET ids = x'00' WHERE number = 4"],
)
def test_what_is_no_note_at_all_is_found(sqlite_url: str, change: str, request: pytest.FixtureRequest) -> None:
    db = Database(sqlite_url)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    for n in range(4):
        db.write(ledger.recharge, "ann", n + 1, actor=SHELL)
        seals.close(db, everything=True)
    stretches.fill(db)
    db.write(lambda tx: tx.rows(change))
    assert [finding.table for finding in check(db)] == ["stretch"]
    db.close()
