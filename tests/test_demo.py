from typing import Any

import pytest
import sqlalchemy as sa
from conftest import NOON
from sums_reference import kept

from billing_core import accounts, demo, ledger, logs, pricing, stats
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction, prepare
from billing_core.errors import Conflict, Invalid
from billing_core.models import Account
from billing_core.sums import QUARTER_NS
from billing_core.zones import zone

TABLES = ("account", "model", "price", "entry", "hold")
END = NOON // QUARTER_NS * QUARTER_NS


def scalar(db: Database, statement: str) -> Any:
    return db.read(lambda tx: tx.connection().scalar(sa.text(statement)))


def everything(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    def read(tx: Transaction) -> dict[str, list[tuple[Any, ...]]]:
        rows = {table: tx.connection().execute(sa.text(f"SELECT * FROM {table}")) for table in TABLES}
        return {table: sorted((tuple(row) for row in found), key=repr) for table, found in rows.items()}

    return db.read(read) | {"usage_sum": sorted((*key, *numbers) for key, numbers in kept(db).items())}


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A year in little: 25 people, 365 days, few calls."""
    db = Database(f"sqlite:///{tmp_path_factory.mktemp('demo')}/year.db", clock=lambda: NOON)
    prepare(db)
    demo.fill(db, entries=5000)
    return db


def test_every_invariant_holds_in_it(db: Database) -> None:
    demo.fill(db, members=8, days=9)
    findings = check(db)
    assert (list(findings), findings.entries > 150) == ([], True)


def test_the_same_seed_gives_the_same_rows_on_both_databases(db: Database, sqlite_url: str) -> None:
    demo.fill(db, seed=7, members=6, days=5)
    other = Database(sqlite_url.replace("billing.db", "other.db"), clock=lambda: NOON + 60 * 10**9)
    prepare(other)
    demo.fill(other, seed=7, members=6, days=5)
    assert everything(db) == everything(other)
    other.close()


def test_another_seed_gives_other_rows(year: Database, sqlite_url: str) -> None:
    other = Database(sqlite_url, clock=lambda: NOON)
    demo.fill(other, seed=2, entries=5000)
    assert everything(year)["entry"] != everything(other)["entry"]
    other.close()


def test_it_has_25_people_and_the_gateway_that_charges_them(year: Database) -> None:
    found = year.read(accounts.listed, actor=SHELL)
    assert len(found) == 26
    assert {one.user_id for one in found if one.role == "admin"} == {"boss", "grace.liu"}
    assert any(one.name.isascii() for one in found)
    assert not all(one.name.isascii() for one in found)


def test_one_account_is_frozen_and_one_in_debt(year: Database) -> None:
    found = year.read(accounts.listed, actor=SHELL)
    assert [one.user_id for one in found if one.status == "frozen"] == ["sunqiang"]
    assert [one.user_id for one in found if one.balance < 0] == ["tom.becker"]


def test_it_has_every_kind_of_entry(year: Database) -> None:
    def count(tx: Transaction) -> dict[str, int]:
        return {type: logs.total(tx, logs.Filters(types=(type,)), actor=SHELL).entries for type in logs.TYPES}

    counts = year.read(count)
    assert all(counts.values()), counts
    assert sum(counts.values()) == pytest.approx(5000, rel=0.15)
    above = (
        "SELECT count(*) FROM entry e JOIN entry p ON p.id = e.precharge_id WHERE e.type = 'settle' AND e.amount < 0"
    )
    assert scalar(year, above) > 0


def test_twelve_models_are_used_and_their_popularity_changes(year: Database) -> None:
    def used(tx: Transaction) -> list[set[str]]:
        tz = zone("Asia/Shanghai")
        months = stats.last_periods(END, "month", tz)
        return [{one.name for one in stats.usage(tx, [month], actor=SHELL, user_id=None)} for month in months]

    first, *_, last = year.read(used)
    assert {"openai/o3-mini", "anthropic/claude-3.7-sonnet"} <= first - last
    assert {"openai/gpt-5", "anthropic/claude-sonnet-4-5"} <= last - first
    assert scalar(year, "SELECT count(DISTINCT model_id) FROM usage_sum WHERE of = 0") == 12


def test_two_prices_change_during_the_year(year: Database) -> None:
    def history(tx: Transaction) -> dict[str, int]:
        return {name: len(pricing.history(tx, name)) for name in pricing.model_names(tx)}

    changed = {name for name, count in year.read(history).items() if count > 1}
    assert changed == {"openai/gpt-4o", "deepseek/deepseek-chat"}


def test_weekdays_and_office_hours_are_busier(year: Database) -> None:
    local = f"(period * 900 + {8 * 3600})"
    hours = dict(
        _rows(year, f"SELECT {local} / 3600 % 24, sum(calls) FROM usage_sum WHERE of = 0 AND length = 1 GROUP BY 1")
    )
    days = dict(
        _rows(
            year, f"SELECT ({local} / 86400 + 3) % 7, sum(calls) FROM usage_sum WHERE of = 0 AND length = 1 GROUP BY 1"
        )
    )
    assert min(hours[hour] for hour in (10, 11, 15, 16)) > 4 * max(hours.get(hour, 0) for hour in (2, 3, 4))
    assert min(days[day] for day in range(5)) > 2 * max(days[5], days[6])


def _rows(db: Database, statement: str) -> list[Any]:
    return db.read(lambda tx: [tuple(row) for row in tx.connection().execute(sa.text(statement))])


def test_what_happens_later_stands_later(year: Database) -> None:
    back = "SELECT count(*) FROM entry a JOIN entry b ON b.id = a.id + 1 WHERE a.created_at_ns > b.created_at_ns"
    assert scalar(year, back) == 0
    start = END - 365 * 86_400 * 10**9
    assert scalar(year, "SELECT min(created_at_ns) FROM entry") >= start
    assert scalar(year, "SELECT max(created_at_ns) FROM entry") < END


def test_something_is_still_held_at_the_end(year: Database) -> None:
    def held(tx: Transaction) -> int:
        return sum(ledger.held(tx, account) for account in tx.session.exec(sa.select(Account)).scalars())

    assert year.read(held) > 0


def test_a_database_with_accounts_is_refused_and_left_as_it_is(db: Database, ann: str) -> None:
    with pytest.raises(Conflict, match="holds accounts already"):
        demo.fill(db, members=3, days=2)
    assert [one.user_id for one in db.read(accounts.listed, actor=SHELL)] == [ann]


def test_what_is_interrupted_leaves_nothing(db: Database) -> None:
    def interrupt(done: int, _days: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.fill(db, members=5, days=4, progress=interrupt)
    assert scalar(db, "SELECT count(*) FROM account") == 0
    demo.fill(db, members=5, days=4)
    assert not check(db)


@pytest.mark.parametrize("size", [{"members": 0}, {"days": 0}, {"entries": -1}])
def test_a_size_that_is_no_count_is_refused(db: Database, size: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="is a whole number, 1 or more"):
        demo.fill(db, **size)  # type: ignore[arg-type]


@pytest.mark.parametrize(("members", "days"), [(1, 1), (2, 3), (40, 2)])
def test_the_smallest_and_larger_teams_add_up(db: Database, members: int, days: int) -> None:
    demo.fill(db, members=members, days=days)
    assert not check(db)
    assert scalar(db, "SELECT count(*) FROM account") == members + 1


def test_it_is_committed_piece_by_piece_where_it_is_large(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Database(db.url, clock=db.clock)
    monkeypatch.setattr(demo, "EVENTS_A_TRANSACTION", 20)
    seen: list[int] = []
    demo.fill(
        db, members=4, days=6, progress=lambda _done, _days: seen.append(scalar(whole, "SELECT count(*) FROM entry"))
    )
    assert len(set(seen)) > 2
    assert not check(db)
    whole.close()


def test_progress_rises_to_the_number_of_days(db: Database) -> None:
    seen: list[tuple[int, int]] = []
    demo.fill(db, members=3, days=3, progress=lambda done, days: seen.append((done, days)))
    assert seen == sorted(seen)
    assert seen[-1] == (3, 3)


def test_names_are_unique() -> None:
    assert len({user_id for user_id, _ in demo._PEOPLE}) == 25
    assert len({model.name for model in demo._MODELS}) == 12
