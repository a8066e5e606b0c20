"""Backups: made while the app runs, checked before they count as done, and brought back without losing what is there.

SQLite is copied by its own backup API and compressed with gzip. Postgres is dumped and restored by its own programs,
pg_dump, pg_restore and psql, which have to be on the PATH and at least as new as the server.

Whenever the process ends, kill -9 included, a backup's file and a restored database are there whole or not at all. What a
kill left half done has names of its own, and the next run removes it.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import SQLModel

from . import seals
from .check import Findings, check
from .database import Database, Transaction, migrate, revision, same_rights
from .errors import BillingError, Conflict, DatabaseUnavailable, Invalid
from .files import beside, clean, file_errors, named, new, put, sync, sync_folder
from .i18n import N_
from .models import Setting
from .place import DEFAULT_FILE

Progress = Callable[[int, int], None]
SQLITE_HEADER = b"SQLite format 3\0"
POSTGRES_HEADER = b"PGDMP"
GZIP_HEADER = b"\x1f\x8b"
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Restored:
    entries: int
    kept: str | None
    """Where what was there before is: a file beside SQLite's, or a schema of Postgres's; None where there was nothing."""
    seal_number: int = 0
    seal_hash: str | None = None
    """Of the newest seal that came back."""
    replaced_number: int = 0
    replaced_hash: str | None = None
    """Of the newest seal in what was there before; None where there was none."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made, or `error`: why it failed."""

    at_ns: int
    file: str
    entries: int = 0
    seal_number: int = 0
    seal_hash: str | None = None
    """Of the newest seal in it; None in an empty ledger."""
    error: BillingError | None = None


_LAST = "_last_backup"


def last_backup(tx: Transaction) -> Backup | None:
    """The last one that was made or tried."""
    row = tx.session.get(Setting, _LAST)
    if row is None:
        return None
    kept = json.loads(row.value)
    return Backup(**kept | {"error": BillingError.of_kept(kept["error"]) if kept["error"] else None})


def remember(tx: Transaction, backup: Backup) -> None:
    error = backup.error.kept() if backup.error else None
    kept = asdict(replace(backup, error=None)) | {"error": error}
    tx.session.merge(Setting(name=_LAST, value=json.dumps(kept, default=str)))


def backup(db: Database, file: Path | str, *, progress: Progress | None = None) -> Backup:
    """Seal the ledger, write a copy of the database to `file`, whole or not at all, and check it.

    Raises Conflict where there is such a file or where the copy doesn't add up, Invalid where it can't be written,
    DatabaseUnavailable.
    """
    file = new(file, _TAKEN)
    with suppress(DatabaseUnavailable):  # a database that can't be written to can be backed up
        seals.close(db, everything=True)
    with beside(file, "backup") as part:
        findings = _copy_sqlite(db, part, progress) if db.is_sqlite else _dump_postgres(db, part, progress)
        findings.must_be_none(N_("The copy doesn't add up, so no backup was made. {sentence}"))
        put(part, file, _TAKEN)
    done = Backup(db.clock(), str(file.absolute()), findings.entries, findings.seals, findings.newest_seal)
    with suppress(DatabaseUnavailable):
        db.write(remember, done)
    return done


_TAKEN = N_("There is a file {file} already. Choose another name for the backup.")


def restore(url: str, file: Path | str, *, replace: bool = False) -> Restored:
    """Put what `backup` wrote into the place of the database at `url`; an older backup is brought up to date.

    What was there is kept aside. Raises Conflict where the database isn't empty and `replace` isn't given, or is in
    use; Invalid where the file is no backup or doesn't add up; DatabaseUnavailable.
    """
    file = Path(file)
    named(file)
    db = Database(url)
    try:
        kind = _kind(file)
        if db.is_sqlite != (kind == "sqlite"):
            raise Invalid(
                N_("{file} is a backup of {kind}, and BILLING_DATABASE_URL names a database of another kind."),
                field="file", file=file, kind={"sqlite": "SQLite", "postgres": "Postgres"}[kind],
            )  # fmt: skip
        return _restore_sqlite(db, file, replace) if db.is_sqlite else _restore_postgres(db, file, replace)
    finally:
        db.close()


# What both have in common


def _kind(file: Path) -> str:
    """`sqlite` or `postgres`. Raises Invalid for what is no backup."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(POSTGRES_HEADER))
        if start == POSTGRES_HEADER:
            return "postgres"
        if start.startswith(GZIP_HEADER):
            with gzip.open(file) as opened:
                if opened.read(len(SQLITE_HEADER)) == SQLITE_HEADER:
                    return "sqlite"
    except (EOFError, zlib.error, gzip.BadGzipFile):
        pass
    except OSError as error:
        raise Invalid(
            N_("The file {file} can't be read: {reason}."), field="file", file=file, reason=error.strerror or error
        ) from None
    raise Invalid(N_("{file} is not a backup. Name a file that “backup” wrote."), field="file", file=file)


OURS = {*SQLModel.metadata.tables, "alembic_version"}


def _is_worth_keeping(tx: Transaction) -> bool:
    """Whether there are accounts in a database, or tables of somebody else."""
    tables = set(sa.inspect(tx.connection()).get_table_names())
    if tables - OURS:
        return True
    return "account" in tables and tx.connection().scalar(sa.text("SELECT id FROM account LIMIT 1")) is not None


def _newest_seal(tx: Transaction) -> tuple[int, str | None]:
    newest = seals.newest(tx) if sa.inspect(tx.connection()).has_table("seal") else None
    return (newest.number, newest.hash) if newest else (0, None)


def _now() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S-%f")


_REFUSED = N_("The database is not empty. Restore into an empty one, or say --replace: what is there is kept aside.")
_NO_LEDGER = N_("{file} holds no ledger, so nothing was restored. Take another backup.")
_BROKEN = N_("The backup doesn't add up, so nothing was restored. {sentence}")


# SQLite


def _database(file: Path) -> Database:
    return Database(sa.URL.create("sqlite", database=str(file.absolute())).render_as_string())


def _copy_sqlite(db: Database, part: Path, progress: Progress | None) -> Findings:
    """A checked and compressed copy in `part`."""
    with beside(part, "copy") as copy:
        raw = db.engine.raw_connection()
        try:
            source = raw.driver_connection
            assert isinstance(source, sqlite3.Connection)
            with closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        except sqlite3.Error as error:
            raise DatabaseUnavailable(N_("The database can't be copied: {reason}."), reason=error) from error
        finally:
            raw.close()
        copied = _database(copy)
        try:
            findings = check(copied, progress)
        finally:
            copied.close()
        with file_errors(part):
            written = hashlib.sha256()
            with copy.open("rb") as opened, gzip.open(part, "wb", compresslevel=6) as packed:
                while block := opened.read(BLOCK):
                    written.update(block)
                    packed.write(block)
            sync(part)
            read_back = hashlib.sha256()
            with gzip.open(part) as packed:
                while block := packed.read(BLOCK):
                    read_back.update(block)
        if written.digest() != read_back.digest():
            raise Conflict(N_("What was written can't be read back, so no backup was made. Try another disk."))
        return findings


def _restore_sqlite(db: Database, file: Path, replace: bool) -> Restored:
    if db.file is None:
        raise Invalid(N_("A database in memory can't be restored. Name a file in BILLING_DATABASE_URL."))
    target = Path(os.path.realpath(db.file))  # a link goes on leading to it
    if target.parent == DEFAULT_FILE.parent:
        target.parent.mkdir(exist_ok=True)
    clean(target.parent, re.escape(target.name))
    with beside(target, "restore", 0o666) as copy:
        _unpack(file, copy)
        restored = _database(copy)
        try:
            migrate(restored)
            findings = check(restored)
        finally:
            restored.close()
        findings.must_be_none(_BROKEN)
        worth_keeping, replaced = _look_into(db, target)
        if worth_keeping and not replace:
            raise Conflict(_REFUSED)
        with file_errors(target):
            sync(copy)
            if target.exists():
                same_rights(target, copy)
            kept = _put_aside(target, worth_keeping)
            copy.replace(target)
            sync_folder(target)
    return Restored(
        findings.entries, None if kept is None else str(kept), findings.seals, findings.newest_seal, *replaced
    )


def _unpack(file: Path, copy: Path) -> None:
    try:
        with gzip.open(file) as packed:
            content = iter(lambda: packed.read(BLOCK), b"")
            with file_errors(copy), copy.open("wb") as opened:
                for block in _readable(content, file):
                    opened.write(block)
    except OSError as error:
        raise Invalid(
            N_("The file {file} can't be read: {reason}."), field="file", file=file, reason=error.strerror or error
        ) from None


def _readable(blocks: Iterator[bytes], file: Path) -> Iterator[bytes]:
    try:
        yield from blocks
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Invalid(
            N_("The backup {file} is damaged: it ends too early or was changed. Use another one."),
            field="file",
            file=file,
        ) from None


def _look_into(db: Database, target: Path) -> tuple[bool, tuple[int, str | None]]:
    """Whether there is something to lose in the database that is replaced, and its newest seal. Leaves it in one file,
    which nobody has open."""
    nothing: tuple[int, str | None] = (0, None)
    if not target.exists() or not target.stat().st_size:
        return False, nothing
    try:
        found, seal = db.read(_is_worth_keeping), db.read(_newest_seal)
        db.close()
        with closing(sqlite3.connect(target, timeout=2)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # refused while somebody else has it open
    except (sqlite3.OperationalError, BillingError) as error:
        if "locked" in str(error).lower() or "busy" in str(error).lower():
            raise Conflict(N_("The database is in use. Stop the app, then restore.")) from error
        return True, nothing
    except sqlite3.DatabaseError:
        return True, nothing
    return found, seal


def _put_aside(target: Path, worth_keeping: bool) -> Path | None:
    """Give the database's file another name as well, if it is worth keeping; until it is replaced it keeps its own. And put aside
    what SQLite left beside a damaged one, or beside one that has gone: it would be taken for the new one's."""
    kept = target.with_name(f"{target.name}.before-restore-{_now()}")
    found = kept if worth_keeping else None
    for suffix in ("-shm", "-wal", "-journal"):
        left = Path(f"{target}{suffix}")
        if left.exists():
            if left.stat().st_size and suffix != "-shm":
                found = found or Path(f"{kept}{suffix}")
            left.rename(f"{kept}{suffix}")
    if worth_keeping:
        try:
            os.link(target, kept)
        except OSError:  # a file system without links
            target.rename(kept)
    return found


# Postgres


def _found(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        raise DatabaseUnavailable(
            N_("{tool} isn't installed. Install Postgres's client programs, as new as the server, and try again."),
            tool=tool,
        )
    return found


def _failed(tool: str, said: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(N_("{tool} failed: {said}"), tool=tool, said=" ".join(said.split())[:500])


def _address(db: Database) -> tuple[str, dict[str, str]]:
    """The argument that names the database, and the environment with its password, which no list of processes shows."""
    url = db.engine.url
    address = url.set(drivername="postgresql", password=None).render_as_string()
    return f"--dbname={address}", os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})


def _run(tool: str, db: Database, *arguments: str) -> None:
    """Run one of Postgres's programs against the database. Raises DatabaseUnavailable with what it says."""
    command, (address, environment) = _found(tool), _address(db)
    done = subprocess.run(
        [command, address, *arguments], env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise _failed(tool, done.stderr.strip() or str(done.returncode))


def _dump_postgres(db: Database, part: Path, progress: Progress | None) -> Findings:
    """A dump in `part`, of the very state that is checked."""

    def dump(tx: Transaction) -> None:
        _must_be_public(tx)
        snapshot = tx.connection().scalar(sa.text("SELECT pg_export_snapshot()"))
        arguments = ("--format=custom", "--no-owner", "--no-privileges", "--schema=public", f"--file={part}")
        _run("pg_dump", db, f"--snapshot={snapshot}", *arguments)
        sync(part)

    return check(db, progress, dump)


def _must_be_public(tx: Transaction) -> None:
    """What is dumped and restored are the tables in `public`. Raises Conflict where those that count are elsewhere."""
    schema = tx.connection().scalar(sa.text(
        "SELECT coalesce((SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('entry')), "
        "current_schema())"
    ))  # fmt: skip
    if schema != "public":
        raise Conflict(
            N_(
                "The tables are in the schema {schema}. Only those in public can be backed up and restored here: use pg_dump, "
                "or “export all” and “import”."
            ),
            schema=schema,
        )


_STAGED = "restoring"
"""The schema in which a backup is brought up to date and checked before it takes the place of `public`."""
_ASIDE = "restoring_aside"
_RESTORES = 7310583
"""The advisory lock that a restore holds."""
_MOVES = f"SELECT pg_advisory_xact_lock({_RESTORES + 1})"
"""Waits for what a killed restore's transaction, whose end the server has yet to notice, does to the schemas."""


def _restore_postgres(db: Database, file: Path, replace: bool) -> Restored:
    """The old tables stay where they are until the restored ones have been checked, and then in a schema of their own."""
    db.read(_must_be_public)
    worth_keeping, replaced = db.read(_is_worth_keeping), db.read(_newest_seal)
    if worth_keeping and not replace:
        raise Conflict(_REFUSED)
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({_RESTORES})")):
            raise Conflict(N_("Another restore is running. Wait until it ends."))
        try:
            try:
                _stage(db, file)
                staged = Database(
                    db.engine.url.update_query_dict({"options": f"-csearch_path={_STAGED}"}).render_as_string(
                        hide_password=False
                    ),
                    clock=db.clock,
                )
                try:
                    if revision(staged) is None:
                        raise Invalid(_NO_LEDGER, field="file", file=file)
                    migrate(staged)
                    _execute(staged, *(f"ANALYZE {table}" for table in sorted(OURS)))
                    findings = check(staged)
                finally:
                    staged.close()
                findings.must_be_none(_BROKEN)
                kept = f"before_restore_{_now().replace('-', '_')}"
                _execute(
                    db,
                    _MOVES,
                    f"ALTER SCHEMA public RENAME TO {kept}",
                    f"ALTER SCHEMA {_STAGED} RENAME TO public",
                    *([] if worth_keeping else [f"DROP SCHEMA {kept} CASCADE"]),
                )
            except BaseException:
                _execute(db, _MOVES, f"DROP SCHEMA IF EXISTS {_STAGED} CASCADE")
                raise
        finally:
            connection.execute(sa.text(f"SELECT pg_advisory_unlock({_RESTORES})"))
    db.close()
    return Restored(findings.entries, kept if worth_keeping else None, findings.seals, findings.newest_seal, *replaced)


def _stage(db: Database, file: Path) -> None:
    """Fill the schema _STAGED, in one transaction. A dump names its tables public.…, so for its time `public` is another."""
    restore, psql = _found("pg_restore"), _found("psql")
    address, environment = _address(db)
    began = (
        f"BEGIN; SET LOCAL client_min_messages = warning; {_MOVES}; DROP SCHEMA IF EXISTS {_STAGED} CASCADE; "
        f"ALTER SCHEMA public RENAME TO {_ASIDE}; CREATE SCHEMA public;\n"
    )
    ended = f"ALTER SCHEMA public RENAME TO {_STAGED}; ALTER SCHEMA {_ASIDE} RENAME TO public; COMMIT;\n"
    command = [psql, address, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        assert run.stdin
        assert run.stderr
        try:
            run.stdin.write(began.encode())
            run.stdin.flush()
            script = subprocess.run(
                [restore, "--no-owner", "--no-privileges", "--schema=public", "--file=-", str(file)],
                stdout=run.stdin, stderr=subprocess.PIPE, check=False,
            )  # fmt: skip
            if not script.returncode:  # else it ends without COMMIT
                run.stdin.write(ended.encode())
            run.stdin.close()
        except BrokenPipeError:
            pass
        except BaseException:
            run.kill()
            raise
        said = run.stderr.read().decode(errors="replace").strip()
        failed = run.wait()
    if failed:
        raise _failed("psql", said or str(failed))
    if script.returncode:
        raise _failed("pg_restore", script.stderr.decode(errors="replace").strip() or str(script.returncode))


def _execute(db: Database, *statements: str) -> None:
    def run(tx: Transaction) -> None:
        tx.rows("SET LOCAL lock_timeout = 0")  # what a killed program holds, it holds for a while
        for statement in statements:
            tx.connection().execute(sa.text(statement))

    db.write(run)
