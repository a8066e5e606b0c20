"""The database's own troubles, each with its one plain sentence, and a schema that is made once however many start."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from conftest import postgres_url
from sqlmodel import SQLModel

from billing_core import accounts, database, ledger
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction, database_url, prepare, revision
from billing_core.errors import BillingError, DatabaseUnavailable, Invalid
from billing_core.idempotency import Once
from billing_core.models import Account, Model
from billing_core.tokens import Tokens


@contextmanager
def opened(url: str) -> Iterator[Database]:
    db = Database(url)
    try:
        yield db
    finally:
        db.close()


def refusal(url: str) -> BillingError:
    """What opening the database at `url` is refused with."""

    def use() -> None:
        with opened(url) as db:
            prepare(db)
            db.write(accounts.add, "ann", "Ann", actor=SHELL)

    with pytest.raises(BillingError) as refused:
        use()
    return refused.value


# Where it is


def test_the_setting_names_the_database_and_without_one_it_is_the_file_in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_DATABASE_URL", " sqlite:////somewhere/else.db ")
    assert database_url() == "sqlite:////somewhere/else.db"
    for nothing in ("", "  "):
        monkeypatch.setenv("BILLING_DATABASE_URL", nothing)
        assert database_url() == f"sqlite:///{database.DEFAULT_FILE}"


@pytest.mark.parametrize(
    "url", ["nonsense", "data/billing.db", "mysql://root@localhost/billing", "sqlite+nothing:///x.db", "://", "postgresql+psycopg://host:port/x"]
)  # fmt: skip
def test_an_address_that_is_none_says_how_one_looks(url: str) -> None:
    refused = refusal(url)
    assert isinstance(refused, Invalid)
    assert "BILLING_DATABASE_URL is not the address of a database" in refused.sentence()
    assert url == "://" or url not in refused.sentence()  # it may hold a password


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    refused = refusal(f"sqlite:///{tmp_path}/nowhere/billing.db")
    assert isinstance(refused, DatabaseUnavailable)
    assert "can't be opened. Check that its folder is there" in refused.sentence()
    assert "can't be opened" in refusal(f"sqlite:///{tmp_path}").sentence()


@pytest.mark.parametrize("content", [b"This is a letter, not a database. " * 40, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "letter"
    file.write_bytes(content)
    assert "not a billing database, or it is damaged" in refusal(f"sqlite:///{file}").sentence()
    assert file.read_bytes() == content


@contextmanager
def nobody_in_particular() -> Iterator[None]:
    """Root may write everywhere: what follows is tried as somebody who may not."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_read_only_file_is_said(sqlite_template: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="billing-"))
    folder.chmod(0o777)
    file = folder / "billing.db"
    shutil.copy(sqlite_template, file)
    file.chmod(0o444)
    with nobody_in_particular():
        refused = refusal(f"sqlite:///{file}")
    shutil.rmtree(folder)
    assert isinstance(refused, DatabaseUnavailable)
    assert "The database is read-only" in refused.sentence()


def test_a_full_disk_is_said_and_nothing_is_changed(sqlite_url: str) -> None:
    with opened(sqlite_url) as db:
        sa.event.listen(db.engine, "connect", lambda raw, _: raw.execute("PRAGMA max_page_count = 1"))
        added: list[accounts.Account] = []

        def add_many() -> None:
            while True:
                added.append(db.write(accounts.add, f"u{len(added)}", "x" * 100, actor=SHELL))

        with pytest.raises(DatabaseUnavailable, match="The disk is full"):
            add_many()
        assert len(db.read(accounts.listed, actor=SHELL)) == len(added) > 0
        assert not check(db)


def test_a_database_that_stays_locked_is_busy(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    with opened(sqlite_url) as db, db.writer.begin():
        refused = refusal(sqlite_url)
        assert isinstance(refused, DatabaseUnavailable)
        assert "The database is busy. Nothing was changed" in refused.sentence()
        with opened(sqlite_url) as reader:  # who only reads doesn't wait
            assert reader.read(accounts.listed, actor=SHELL) == []


def test_a_database_of_a_newer_version_is_refused_and_left_alone(db: Database) -> None:
    db.write(lambda tx: tx.connection().execute(sa.text("UPDATE alembic_version SET version_num = '0999'")))
    with pytest.raises(DatabaseUnavailable, match=r"newer version \(0999\) than this app \(\d+\)"):
        prepare(db)
    assert revision(db) == "0999"


def test_a_postgres_that_is_not_there_is_said(unused_tcp_port: int) -> None:
    refused = refusal(f"postgresql+psycopg://me:secret@127.0.0.1:{unused_tcp_port}/billing")
    assert isinstance(refused, DatabaseUnavailable)
    assert refused.sentence() == "The database does not answer. Check that it runs, then try again."


@pytest.fixture
def unused_tcp_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_postgres_that_has_no_room_for_every_text_is_said(postgres_database: str, encoding: str) -> None:
    with closing(Database(postgres_database)) as db:
        connection = db.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(sa.text("DROP DATABASE IF EXISTS narrow"))
        connection.execute(sa.text(f"CREATE DATABASE narrow TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"))
        connection.close()
        url = db.engine.url.set(database="narrow").render_as_string(hide_password=False)
    assert f"The database keeps text as {encoding}" in refusal(url).sentence()


def test_a_postgres_without_that_database_or_user_is_said(postgres_server: Any) -> None:
    url = sa.make_url(postgres_url(postgres_server, "nowhere"))
    for wrong in (url, url.set(database="postgres", username="nobody_known")):
        refused = refusal(wrong.render_as_string(hide_password=False))
        assert isinstance(refused, DatabaseUnavailable)
        assert "refuses the connection. Check the name, user and password" in refused.sentence()


def test_a_connection_that_postgres_cut_is_replaced_at_the_next_try(postgres_database: str) -> None:
    with opened(postgres_database) as db, opened(postgres_database) as admin:
        db.write(accounts.add, "ann", "Ann", actor=SHELL)
        others = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        admin.read(lambda tx: tx.connection().execute(sa.text(others)).all())
        assert db.read(accounts.find, "ann").name == "Ann"


# Transactions


def test_a_row_of_postgres_that_stays_locked_is_busy(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 1)
    db = Database(postgres_database)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)

    def recharge() -> None:
        db.write(ledger.recharge, "ann", 100, actor=SHELL)

    with closing(Database(postgres_database)) as other, other.writer.connect() as holder:
        holder.execute(sa.text("UPDATE account SET balance = balance"))
        for once in (None, Once.of(SHELL, "k")):
            for act in (
                recharge,
                lambda once=once: db.write(ledger.charge, "ann", "m", Tokens(0, 0), actor=SHELL, once=once),
            ):
                with pytest.raises(DatabaseUnavailable, match="The database is busy"):
                    act()
    recharge()
    assert db.read(lambda tx: accounts.find(tx, "ann").balance) == 100
    db.close()


def test_a_limit_that_the_server_sets_for_waiting_is_kept(postgres_database: str) -> None:
    def limit() -> str:
        with closing(Database(postgres_database)) as db:
            return str(db.read(lambda tx: tx.rows("SHOW lock_timeout"))[0][0])

    assert limit() == "10s"
    with closing(Database(postgres_database)) as db, db.writer.connect() as connection, connection.begin():
        name = connection.scalar(sa.text("SELECT quote_ident(current_database())"))
        connection.execute(sa.text(f"ALTER DATABASE {name} SET lock_timeout = '3s'"))
    assert limit() == "3s"


def test_a_read_sees_one_state(db: Database, ann: str) -> None:
    """However many statements it is made of, and whatever is committed between them; on Postgres as well."""

    def balances(tx: Transaction) -> list[int]:
        found = []
        for _ in range(2):
            found.append(tx.rows("SELECT balance FROM account")[0][0])
            found.append(accounts.find(tx, "ann").balance)
            other = threading.Thread(target=db.write, args=(ledger.recharge, "ann", 100), kwargs={"actor": SHELL})
            other.start()
            other.join()
        return found

    assert db.read(balances) == [0, 0, 0, 0]
    assert db.read(lambda tx: accounts.find(tx, "ann").balance) == 200
    assert db.write(lambda tx: accounts.find(tx, "ann").balance) == 200


def test_a_connection_that_has_read_writes_next(db: Database, ann: str) -> None:
    for _ in range(3):
        db.read(lambda tx: accounts.find(tx, "ann"))
        db.write(ledger.recharge, "ann", 100, actor=SHELL)
        db.read(lambda tx: tx.rows("SELECT balance FROM account"))
        with db.writer.connect() as connection, connection.begin():
            connection.execute(sa.text("UPDATE account SET name = 'Ann'"))
    assert db.read(lambda tx: accounts.find(tx, "ann").balance) == 300


def test_a_write_leaves_its_connection_to_the_next(db: Database, ann: str) -> None:
    """But where SQLAlchemy has it, or it was not committed."""
    pool: Any = db.engine.pool

    def in_use_after(act: Callable[[Transaction], Any]) -> int:
        with suppress(ZeroDivisionError):
            db.write(act)
        return int(pool.checkedout())

    for _ in range(2):
        assert in_use_after(lambda tx: tx.rows("SELECT 1")) == 1
        db.read(lambda tx: tx.rows("SELECT 1"))
        assert in_use_after(lambda tx: tx.many(NAME, [("A",)])) == 1
        assert in_use_after(lambda tx: tx.connection()) == 0
        assert in_use_after(lambda tx: tx.many(NAME, [("B",)])) == 1
        assert in_use_after(lambda tx: (tx.rows("UPDATE account SET name = 'C'"), 1 / 0)) == 0
        assert db.read(accounts.find, ann).name == "B"
    db.write(lambda tx: tx.rows("SELECT 1"))
    db.close()
    assert pool.checkedout() == pool.checkedin() == 0


def test_what_a_write_left_is_closed_with_all_others(db: Database, ann: str) -> None:
    """After a fault, and at the end; however many writers there were."""

    def at_the_same_time(tx: Transaction, others: int) -> None:
        tx.rows("SELECT 1")
        if others and not db.is_sqlite:
            db.write(at_the_same_time, others - 1)

    for end in (db._open_anew, db.close):
        db.write(at_the_same_time, 3)
        left: list[Any] = [pooled.driver_connection for _pool, pooled in db._writing]
        assert left
        end()
        for driver in left:
            with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
                driver.execute("SELECT 1")
        assert db.read(accounts.find, ann).name == "Ann"


def test_who_reads_on_a_connection_that_wrote_waits_for_a_busy_file(db: Database) -> None:
    if not db.is_sqlite:
        return

    def waits(tx: Transaction) -> int:
        return int(tx.rows("PRAGMA busy_timeout")[0][0])

    for _ in range(2):
        assert db.write(waits) == 0
        db.write(lambda tx: tx.connection())  # gives it back
        assert db.read(waits) == 1000 * database.BUSY_SECONDS


def test_without_a_log_a_write_waits_at_its_end_for_whoever_reads(tmp_path: Path) -> None:
    """Some file systems have no memory that is shared, which SQLite's log needs."""
    db = Database(f"sqlite:///file:{tmp_path / 'plain.db'}?vfs=unix-dotfile&uri=true")
    prepare(db)
    assert db.read(lambda tx: tx.rows("PRAGMA journal_mode")) == [("delete",)]
    for _ in range(2):
        assert db.write(lambda tx: tx.rows("PRAGMA busy_timeout")) == [(1000 * database.BUSY_SECONDS,)]
    db.close()


def test_what_raises_leaves_nothing(db: Database, ann: str) -> None:
    def change(tx: database.Transaction) -> None:
        accounts.change(tx, ann, actor=SHELL, name="Anne")
        raise Invalid("no")

    with pytest.raises(Invalid):
        db.write(change)
    assert db.read(accounts.find, ann).name == "Ann"


def test_a_write_that_somebody_else_was_first_with_is_run_again_and_at_last_given_up(db: Database) -> None:
    tries = []

    def second_time(tx: database.Transaction) -> int:
        tries.append(tx)
        if len(tries) < 2:
            raise database.Retry
        return len(tries)

    assert db.write(second_time) == 2

    def never(tx: database.Transaction) -> None:
        raise database.Retry

    with pytest.raises(DatabaseUnavailable, match="busy"):
        db.write(never)


NAME = "UPDATE account SET name = ? WHERE id = 1"


def test_what_many_writes_counts_for_whatever_follows(db: Database, ann: str) -> None:
    def change(tx: database.Transaction) -> list[Any]:
        seen = []
        tx.many(NAME, [("A",), ("B",)])
        seen += tx.rows("SELECT name FROM account")
        tx.many(NAME, [("C",)])
        seen += [
            row
            for rows in tx.ask(("SELECT name FROM account", ()), (NAME, ("D",)), ("SELECT name FROM account", ()))
            for row in rows
        ]
        tx.many(NAME, [("E",)])
        seen += tx.connection().execute(sa.text("SELECT name FROM account")).all()
        tx.many(NAME, [("F",)])
        seen.append((tx.session.get_one(Account, 1).name,))
        tx.many(NAME, [("G",)])
        return [name for (name,) in seen]

    assert db.write(change) == ["B", "C", "D", "E", "F"]
    assert db.read(accounts.find, ann).name == "G"


def test_what_raises_within_a_savepoint_leaves_nothing_and_the_rest_goes_on(db: Database, ann: str) -> None:
    def change(tx: database.Transaction) -> None:
        tx.many(NAME, [("A",)])
        with suppress(Invalid), tx.savepoint():
            tx.many(NAME, [("B",)])
            tx.session.add(Model(name="m"))
            tx.session.flush()
            tx.many(NAME, [("C",)])
            raise Invalid("no")
        assert tx.rows("SELECT name FROM account") == [("A",)]
        with tx.savepoint():
            tx.many(NAME, [("D",)])
        tx.session.add(Model(name="n"))

    db.write(change)
    assert db.read(accounts.find, ann).name == "D"
    assert db.read(lambda tx: tx.rows("SELECT name FROM model")) == [("n",)]


@pytest.mark.parametrize("wrong", ["INSERT INTO account (id) VALUES (?)", "no statement ?"])
def test_what_the_database_refuses_at_the_end_leaves_nothing(db: Database, ann: str, wrong: str) -> None:
    def change(tx: database.Transaction) -> None:
        tx.many(NAME, [("A",)])
        tx.many(wrong, [(1,)])
        tx.many(NAME, [("B",)])

    with pytest.raises(sa.exc.DBAPIError):
        db.write(change)
    assert db.read(accounts.find, ann).name == "Ann"


def test_a_connection_that_postgres_has_ended_is_not_noticed(postgres_database: str) -> None:
    db, other = Database(postgres_database), Database(postgres_database)

    def end_all() -> None:
        other.read(
            lambda tx: tx.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )

    for act in (
        lambda tx: tx.rows("SELECT 1"), lambda tx: tx.ask(("SELECT 1", ())), lambda tx: tx.connection(),
        lambda tx: tx.session.get(Account, 1), lambda tx: tx.many(NAME, [("A",)]),
    ):  # fmt: skip
        db.write(act)
        end_all()
        db.write(act)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)

    def ended_within(tx: database.Transaction) -> None:
        tx.many(NAME, [("A",)])
        tx.rows("SELECT 1")
        end_all()
        tx.rows("SELECT 1")

    with pytest.raises(DatabaseUnavailable):  # what has been done in it may not be done twice
        db.write(ended_within)
    assert db.read(accounts.find, "ann").name == "Ann"
    db.close()
    other.close()


@pytest.mark.parametrize(("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)])
def test_sqlite_keeps_what_it_acknowledged_and_refers_to_nothing_missing(
    sqlite_url: str, pragma: str, value: Any
) -> None:
    with opened(sqlite_url) as db:
        assert db.read(lambda tx: tx.connection().exec_driver_sql(f"PRAGMA {pragma}").scalar()) == value


# The schema


def test_the_migrations_make_what_the_models_describe(db: Database) -> None:
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_the_newest_migration_is_the_one_that_the_app_asks_for() -> None:
    versions = Path(database.__file__).parent / "migrations" / "versions"
    assert max(file.name[:4] for file in versions.glob("*.py")) == database.REVISION


def test_preparing_twice_changes_nothing(db: Database, ann: str) -> None:
    prepare(db)
    assert revision(db) == database.REVISION
    assert db.read(accounts.find, ann).name == "Ann"


STARTING = """
import sys
from billing_core.database import Database, prepare, revision
sys.stdin.readline()
db = Database(sys.argv[1])
prepare(db)
print(revision(db))
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_several_processes_that_start_at_once_make_the_schema_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'new.db'}"
    else:
        url = request.getfixturevalue("postgres_database")
        with opened(url) as db, db.writer.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    environment = {**os.environ, "PYTHONPATH": str(Path(database.__file__).parent.parent)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STARTING, url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:  # they are ready by now, or nearly
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        said, complained = process.communicate()
        assert (said.strip(), process.returncode) == (database.REVISION, 0), complained
    with opened(url) as db:
        assert not check(db)


def test_another_programs_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "theirs.db"
    with closing(sqlite3.connect(file)) as theirs, theirs:
        theirs.execute("CREATE TABLE t (a)")
    before = file.read_bytes()
    assert "another program's database" in refusal(f"sqlite:///{file}").sentence()
    assert file.read_bytes()[100:] == before[100:]  # its header says WAL now
