"""A database that each released revision made is kept in tests/upgrades: all of them open, and nothing of them changes."""

import gzip
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import sums_reference
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from conftest import ROOT
from sqlmodel import SQLModel
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from api import create_api
from billing_core import ledger, shell, sums
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import REVISION, Database, migrate, open_database, prepare, revision
from billing_core.errors import DatabaseUnavailable
from billing_core.models import BOTH, TYPES
from billing_core.tokens import Tokens

HERE = Path(__file__).parent / "upgrades"
REVISIONS = sorted(file.name[:4] for file in (ROOT / "billing_core/migrations/versions").glob("*.py"))
OLDER = [each for each in REVISIONS if each != REVISION]
SUMS = "cost, calls, prompt_tokens, cached_tokens, cache_creation_tokens, completion_tokens, reasoning_tokens"

Rows = list[tuple[Any, ...]]


def unpacked(name: str) -> bytes:
    return gzip.decompress((HERE / name).read_bytes())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A SQLite file that the oldest revision made."""
    file = tmp_path / "billing.db"
    file.write_bytes(unpacked(f"{REVISIONS[0]}.sqlite.gz"))
    return file


def empty_postgres(url: str) -> Database:
    db = Database(url)
    with db.engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    return db


def load(db: Database, name: str) -> None:
    with psycopg.connect(db.url.replace("+psycopg", "")) as connection:
        connection.execute(unpacked(name))


@pytest.fixture
def postgres(postgres_database: str) -> Iterator[Database]:
    """A Postgres database that the oldest revision made."""
    db = empty_postgres(postgres_database)
    load(db, f"{REVISIONS[0]}.sql.gz")
    yield db
    db.close()


def rows(db: Database, statement: str) -> Rows:
    return db.read(lambda tx: [tuple(row) for row in tx.connection().execute(sa.text(statement))])


def holds(db: Database) -> dict[str, Rows]:
    """What no upgrade may change: balances, entries and other rows, and what was used."""
    kept = {
        table: rows(db, f"SELECT {columns} FROM {table} ORDER BY 1, 2")
        for table, columns in {
            "account": "id, user_id, name, role, status, balance, total_consumed, hold_expires_at_ns, password_hash",
            "entry": "id, account_id, type, amount, balance_after, cost, model_id, price_id, precharge_id, reverses_id, "
            "prompt_tokens, completion_tokens, remark, created_at_ns, recorded_at_ns",
            "price": "id, model_id, source, input, output, cache_read, valid_from_ns",
            "hold": "precharge_id, account_id, held, expires_at_ns, ended_by",
            "idempotency": "scope, entry_id, key, fingerprint, answer",
            "api_key": "id, account_id, hash, can",
            "setting": "name, value",
        }.items()
    }
    columns = {column["name"] for column in sa.inspect(db.engine).get_columns("usage_sum")}
    numbers = ", ".join(f"CAST(sum({each}) AS BIGINT) AS {each}" for each in SUMS.split(", "))
    eight_days = "period" if "length" in columns else f"period / {sums.LONG}"  # before, quarters of an hour were kept
    by_call = (
        f"SELECT account_id, {eight_days}, model_id, {numbers} FROM usage_sum WHERE 0 = 0 "
        f"{'AND kind IN (0, 1)' if 'kind' in columns else ''} "
        f"{f'AND of = {BOTH} AND length = {sums.LONG}' if 'length' in columns else ''} "
        "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    kept["used"] = [row for row in rows(db, by_call) if any(row[3:])]
    assert all(kept.values())
    return kept


def copies(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.name}.before-*"))


def goes_on(db: Database) -> None:
    """Money still moves, and it adds up."""
    db.write(ledger.recharge, "ann", 1_000, actor=SHELL)
    call = db.write(ledger.charge, "ann", "our/model", Tokens(10, 10), actor=SHELL)
    db.write(ledger.reverse, call.entry_id, "tried", actor=SHELL)
    assert not check(db)


def whole(file: Path) -> dict[str, Rows]:
    db = Database(f"sqlite:///{file}")
    try:
        return holds(db)
    finally:
        db.close()


# The files


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_has_its_files(revision: str) -> None:
    missing = [name for name in (f"{revision}.sqlite.gz", f"{revision}.sql.gz") if not (HERE / name).exists()]
    assert not missing, "Run: python tests/upgrades/make.py"


@pytest.mark.parametrize("kind", ["sqlite", "sql"])
def test_the_files_of_the_newest_revision_have_its_tables(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Until it is released it may change: then make its files again."""
    name = f"{REVISION}.{kind}.gz"
    if kind == "sqlite":
        (tmp_path / "billing.db").write_bytes(unpacked(name))
        db = Database(f"sqlite:///{tmp_path / 'billing.db'}")
    else:
        db = empty_postgres(request.getfixturevalue("postgres_database"))
        load(db, name)
    with db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    prepare(db)
    assert not copies(tmp_path / "billing.db")
    assert not check(db)
    goes_on(db)
    db.close()


@pytest.mark.parametrize("new", [True, False], ids=["a new file", "an upgraded one"])
def test_an_entry_has_one_of_the_types_and_no_list_is_made_of_them(file: Path, new: bool) -> None:
    """SQLite makes a table of a list of more than two, whenever a row is written."""
    if new:
        file.unlink()
    db = Database(f"sqlite:///{file}")
    migrate(db)
    with closing(sqlite3.connect(file)) as connection:
        made = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE tbl_name = 'entry'") if sql]
        assert not any(" IN (" in sql for sql in made if "TRIGGER" not in sql)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        columns = "account_id, type, amount, balance_after, cost, created_at_ns"
        for type in TYPES:
            connection.execute(f"INSERT INTO entry ({columns}) VALUES (1, ?, 0, 0, 0, 0)", (type,))
        with pytest.raises(sqlite3.IntegrityError, match="entry_type"):
            connection.execute(f"INSERT INTO entry ({columns}) VALUES (1, 'gift', 0, 0, 0, 0)")
    db.close()


def test_a_build_of_sqlite_that_guards_its_schema_is_upgraded_as_well(file: Path) -> None:
    db = Database(f"sqlite:///{file}")

    def guard(driver: Any, _record: Any) -> None:
        guarded = (sqlite3.SQLITE_PRAGMA, "writable_schema")
        driver.set_authorizer(lambda *asked: sqlite3.SQLITE_IGNORE if asked[:2] == guarded else sqlite3.SQLITE_OK)

    sa.event.listen(db.engine, "connect", guard)
    migrate(db)
    assert "type IN (" in rows(db, "SELECT sql FROM sqlite_master WHERE name = 'entry'")[0][0]
    goes_on(db)
    db.close()


# What was used


@pytest.fixture(params=["sqlite", "sql"])
def older_db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of the last revision that kept sums of quarters of an hour."""
    if request.param == "sqlite":
        (tmp_path / "billing.db").write_bytes(unpacked("0003.sqlite.gz"))
        db = Database(f"sqlite:///{tmp_path / 'billing.db'}")
    else:
        db = empty_postgres(request.getfixturevalue("postgres_database"))
        load(db, "0003.sql.gz")
    yield db
    db.close()


def test_an_upgrade_makes_the_sums_that_charging_anew_would_make(older_db: Database) -> None:
    migrate(older_db)
    assert sums_reference.kept(older_db) == sums_reference.expected(older_db) != {}


@pytest.mark.parametrize("fewer", [1, 0])
def test_an_upgrade_makes_the_sums_of_busy_accounts_as_well(older_db: Database, fewer: int) -> None:
    """A call of long ago is written so often that its account is busy in those 8 days, or nearly."""
    quarter, long_ago = sums.QUARTER_NS, 2_400 * sums.LONG  # 480 calls in each quarter of an hour
    copied = [column["name"] for column in sa.inspect(older_db.engine).get_columns("entry")]
    changed = {"id": "1000000 + n", "created_at_ns": f"{long_ago * quarter} + n / 480 * {quarter} + n"}
    columns = ", ".join(changed.get(name, f"e.{name}") for name in copied)
    first = "SELECT * FROM entry WHERE id = (SELECT min(id) FROM entry WHERE type = 'deduct')"
    calls = sums.BUSY_CALLS - fewer
    many = f"WITH RECURSIVE many(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM many WHERE n < {calls - 1})"
    numbers = ", ".join(f"sum({each})" for each in SUMS.split(", ")[2:])
    with older_db.writer.begin() as connection:
        connection.execute(
            sa.text(f"INSERT INTO entry ({', '.join(copied)}) {many} SELECT {columns} FROM ({first}) AS e, many")
        )
        connection.execute(
            sa.text(
                f"INSERT INTO usage_sum (account_id, period, model_id, kind, {SUMS}, upstream_yuan, upstream_cost) "
                f"SELECT account_id, created_at_ns / {quarter}, model_id, 0, sum(cost), count(*), {numbers}, "
                "coalesce(sum(upstream_yuan), 0), sum(CASE WHEN upstream_yuan IS NULL THEN 0 ELSE cost END) "
                "FROM entry WHERE id >= 1000000 GROUP BY 1, 2, 3"
            )
        )
    migrate(older_db)
    assert sums_reference.kept(older_db) == sums_reference.expected(older_db)
    hours = f"SELECT count(*) FROM usage_sum WHERE of = {BOTH} AND length = 4 AND kind = 0"
    assert rows(older_db, hours) == [(0 if fewer else 2,)]


# SQLite


@pytest.mark.parametrize("older", OLDER)
def test_an_older_file_is_brought_up_to_date_when_it_is_opened(older: str, tmp_path: Path) -> None:
    file = tmp_path / "billing.db"
    file.write_bytes(unpacked(f"{older}.sqlite.gz"))
    before = whole(file)
    db = open_database(f"sqlite:///{file}")
    assert revision(db) == REVISION
    assert holds(db) == before
    assert not check(db)
    goes_on(db)


def test_a_copy_of_what_it_was_stays_beside_it(file: Path) -> None:
    file.chmod(0o640)
    before = whole(file)
    db = Database(f"sqlite:///{file}")
    prepare(db)
    prepare(db)
    goes_on(db)
    db.close()
    (kept,) = copies(file)
    assert kept.name.startswith(f"billing.db.before-{REVISION}-")
    assert kept.stat().st_mode & 0o777 == 0o640
    with closing(sqlite3.connect(kept)) as old:
        assert old.execute("SELECT version_num FROM alembic_version").fetchone() == (REVISIONS[0],)
    assert whole(kept) == before
    assert [one.name for one in file.parent.iterdir() if one.name.startswith(".")] == []


def test_what_is_in_the_wal_is_in_the_copy_as_well(file: Path) -> None:
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        with writer:
            writer.execute("UPDATE account SET name = 'Anne' WHERE user_id = 'ann'")
        db = Database(f"sqlite:///{file}")
        prepare(db)
        db.close()
    (kept,) = copies(file)
    with closing(sqlite3.connect(kept)) as old:
        assert old.execute("SELECT name FROM account WHERE user_id = 'ann'").fetchone() == ("Anne",)


def test_a_new_file_gets_no_copy(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'billing.db'}")
    prepare(db)
    db.close()
    assert copies(tmp_path / "billing.db") == []


def test_a_disk_without_room_for_the_upgrade_is_said_and_nothing_is_changed(file: Path) -> None:
    before = whole(file)
    db = Database(f"sqlite:///{file}")
    sa.event.listen(db.engine, "connect", lambda raw, _: raw.execute("PRAGMA max_page_count = 1"))
    with pytest.raises(DatabaseUnavailable, match="The disk is full"):
        prepare(db)
    assert revision(db) == REVISIONS[0]
    db.close()
    assert whole(file) == before
    assert copies(file) == []


OPENING = """
import signal, sys
from billing_core.database import Database, prepare, revision
from billing_core.errors import BillingError
sys.stdin.readline()
db = Database(sys.argv[1])
try:
    prepare(db)
    print(revision(db))
except BillingError as error:
    print(error.sentence())
"""


def opening(url: str, *, code: str = OPENING, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **options,
    )  # fmt: skip


def small_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def test_a_disk_without_room_for_the_copy_is_said_and_nothing_is_changed(file: Path) -> None:
    before = file.read_bytes()
    said, _ = opening(f"sqlite:///{file}", preexec_fn=small_files).communicate("\n")
    assert "a copy of it can't be made before it is changed" in said
    assert "Nothing was changed; make room beside billing.db, then start again." in said
    with closing(sqlite3.connect(file)) as old:
        assert old.execute("SELECT version_num FROM alembic_version").fetchone() == (REVISIONS[0],)
    assert file.read_bytes()[100:] == before[100:]
    assert copies(file) == []


def all_at_once(url: str, count: int) -> list[str]:
    processes = [opening(url) for _ in range(count)]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate()[0].strip() for process in processes]


def test_of_several_processes_that_open_an_older_file_one_upgrades_it(file: Path) -> None:
    before = whole(file)
    assert all_at_once(f"sqlite:///{file}", 4) == [REVISION] * 4
    assert len(copies(file)) == 1
    assert whole(file) == before


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from billing_core.database import Database, prepare

db, left = Database(sys.argv[1]), [int(sys.stdin.readline())]

def count(*_):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)

sa.event.listen(db.engine, "before_cursor_execute", count)
sa.event.listen(db.engine, "commit", count)
prepare(db)
"""


@pytest.mark.parametrize("statements", [2, 6, 12, 20, 26])
def test_an_upgrade_that_is_killed_leaves_the_old_database_and_is_made_at_the_next_opening(
    file: Path, statements: int
) -> None:
    before = whole(file)
    process = opening(f"sqlite:///{file}", code=KILLED)
    process.communicate(f"{statements}\n")
    assert process.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(file)) as old:
        assert old.execute("SELECT version_num FROM alembic_version").fetchone() == (REVISIONS[0],)
    assert whole(file) == before
    db = Database(f"sqlite:///{file}")
    prepare(db)
    assert holds(db) == before
    assert not check(db)
    db.close()
    assert all(whole(copy) == before for copy in copies(file))


# Postgres


@pytest.mark.parametrize("older", OLDER)
def test_an_older_postgres_is_left_alone_until_migrate_is_run(
    older: str, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = empty_postgres(postgres_database)
    load(db, f"{older}.sql.gz")
    before = holds(db)
    with pytest.raises(DatabaseUnavailable, match="python -m billing_core migrate") as refused:
        open_database(postgres_database)
    assert f"older version ({older}) than this app ({REVISION})" in refused.value.sentence()
    assert revision(db) == older
    monkeypatch.setenv("BILLING_DATABASE_URL", postgres_database)
    done = CliRunner().invoke(shell.app, ["migrate"])
    assert (done.exit_code, done.stdout) == (0, f"The database is up to date (revision {REVISION}).\n")
    assert revision(db) == REVISION
    assert holds(db) == before
    assert not check(db)
    goes_on(db)
    open_database(postgres_database).close()
    db.close()


def test_several_servers_may_migrate_a_postgres_at_once(postgres: Database) -> None:
    before = holds(postgres)
    assert all_at_once_migrating(postgres) == [REVISION] * 8
    assert holds(postgres) == before
    assert not check(postgres)


def all_at_once_migrating(db: Database) -> list[str]:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    together = Barrier(8)

    def one(_: int) -> str | None:
        server = Database(db.url)
        together.wait()
        migrate(server)
        found = revision(server)
        server.close()
        return found

    with ThreadPoolExecutor(8) as pool:
        return [str(found) for found in pool.map(one, range(8))]


def test_an_empty_postgres_gets_its_tables_by_itself(postgres_database: str) -> None:
    db = empty_postgres(postgres_database)
    prepare(db)
    assert revision(db) == REVISION
    db.close()


def test_a_page_says_what_an_older_postgres_needs(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_DATABASE_URL", postgres.url)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run()
    assert not app.exception
    assert "python -m billing_core migrate" in app.error[0].value.replace("\\", "")


def test_the_api_says_what_an_older_postgres_needs_and_goes_on_once_it_is_done(postgres: Database) -> None:
    client = TestClient(create_api(lambda: open_database(postgres.url)))
    refused = client.get("/pricing")
    assert refused.status_code == 503
    assert "python -m billing_core migrate" in refused.json()["detail"]
    migrate(Database(postgres.url))
    assert client.get("/pricing").status_code == 200
    open_database(postgres.url).close()
