"""Everything as one portable file, which carries a team from SQLite to Postgres and back, exact to the last seal.

An archive is a zip. `manifest.json` says what it is: the format's version, the schema's revision, the newest seal, and of
every table how many rows it has and the SHA-256 of its file. `TABLE.ndjson` holds a table: the first line names its
columns, each further line is a row, by primary key; bytes are base64, and integers have up to 63 bits. Archives of the same
ledger hold the same lines, whatever the database. What lets a browser in (table `token`) stays behind: people sign in
anew. So does what the app notes about the database itself (settings with a name that begins with _), and what it finds out
again by itself (tables `stretch`, `stretch_holds` and `price_version`).
"""

import base64
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel

from . import audit, seals, stretches
from .actors import Actor
from .check import check, check_within
from .database import Database, Transaction
from .errors import BillingError, Conflict, DatabaseUnavailable, Invalid
from .files import beside, file_errors, named, new, put, sync
from .i18n import N_
from .models import USAGE_SUMS
from .place import REVISION

Progress = Callable[[int, int], None]
FORMAT, VERSION = "billing archive", 1
MANIFEST = "manifest.json"
LEFT_BEHIND = ("token", "stretch", "stretch_holds", "price_version")
TABLES = [table for table in SQLModel.metadata.sorted_tables if table.name not in LEFT_BEHIND]
"""Each comes after those that it refers to; rows refer to earlier ones of their own table."""
PASSING = ("token", "sign_in_tries", "audit")
"""What a database may hold and still be empty, besides the notes in `setting`: an app that was started on it has offered
a link to its first admin."""
ROWS_AT_ONCE = 5000
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Archived:
    """What was carried over."""

    entries: int
    seal: int
    """The number of the newest seal, 0 where there is none."""
    hash: str
    """Its SHA-256 in hex."""


def export(db: Database, file: Path | str, *, progress: Progress | None = None) -> Archived:
    """Seal every entry, and write all there is to `file`, whole or not at all, while the app may go on. The file holds
    what the database holds, password hashes included: it is for its owner's eyes.

    `progress(rows so far, about how many)` is called as it goes. Raises Conflict where there is such a file or where the
    ledger doesn't add up, Invalid where the file can't be written, DatabaseUnavailable.
    """
    file = new(file, _TAKEN)
    seals.close(db, everything=True)
    check(db).must_be_none(N_("The ledger doesn't add up, so no archive was made. {sentence}"))
    with beside(file, "export") as part, file_errors(file):
        manifest = db.read(_write, part, progress or _nobody)
        sync(part)
        _must_be_readable(part, manifest)
        put(part, file, _TAKEN)
    return _archived(manifest)


_TAKEN = N_("There is a file {file} already. Choose another name for the archive.")


def load(db: Database, file: Path | str, *, actor: Actor | None = None, progress: Progress | None = None) -> Archived:
    """Fill an empty database with what `export` wrote: all of it, checked, or nothing. The audit log tells that `actor` did.

    Raises Conflict where the database isn't empty, Invalid where the file is no archive, damaged, of another version, or
    doesn't add up; DatabaseUnavailable.
    """
    file = Path(file)
    named(file)
    with _readable(file):
        archive = zipfile.ZipFile(file)
    with archive:
        with _readable(file):
            manifest = _manifest(archive)
            _verify(archive, manifest)
        done = db.write(_fill, file, archive, manifest, actor, progress or _nobody)
    with suppress(DatabaseUnavailable):  # what is left to do, the app does by itself
        stretches.fill(db)
    return done


def _nobody(_done: int, _all: int) -> None:
    """Nobody watches."""


def _archived(manifest: dict[str, Any]) -> Archived:
    return Archived(manifest["tables"]["entry"]["rows"], manifest["seal"]["number"], manifest["seal"]["hash"])


def _rows_of(table: sa.Table) -> sa.Select[Any]:
    """What is carried over; the parts of a sum of use as one."""
    if table is USAGE_SUMS:
        slot = table.c.slot
        keys = [column for column in table.primary_key if column is not slot]
        sums = [
            sa.cast(sa.func.sum(column), sa.BigInteger).label(column.name)
            for column in table.c
            if not column.primary_key
        ]
        return sa.select(*keys, sa.literal_column("0").label(slot.name), *sums).group_by(*keys)
    every = sa.select(table)
    return every.where(sa.func.substr(table.c.name, 1, 1) != "_") if table.name == "setting" else every


def _member(table: str) -> str:
    return f"{table}.ndjson"


# Writing


def _write(tx: Transaction, part: Path, progress: Progress) -> dict[str, Any]:
    """The archive of one consistent state; its manifest."""
    counts = [sa.select(sa.func.count()).select_from(_rows_of(table).subquery()) for table in TABLES]
    every, done, tables = sum(tx.connection().scalar(each) or 0 for each in counts), 0, {}
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for table in TABLES:
            digest, rows = hashlib.sha256(), 0
            with archive.open(_member(table.name), "w", force_zip64=True) as member:
                for lines, count in _lines(tx, table):
                    digest.update(lines)
                    member.write(lines)
                    rows += count
                    progress(done + rows, every)
            done += rows
            tables[table.name] = {"rows": rows, "sha256": digest.hexdigest()}
        newest = seals.newest(tx)
        seal = {"number": newest.number, "hash": newest.hash} if newest else {"number": 0, "hash": seals.NOTHING_BEFORE}
        manifest = {"format": FORMAT, "version": VERSION, "revision": REVISION, "seal": seal, "tables": tables}
        archive.writestr(MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return manifest


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _lines(tx: Transaction, table: sa.Table) -> Iterator[tuple[bytes, int]]:
    """A table's file in pieces, each with the number of its rows."""
    yield _json([column.name for column in table.columns]).encode() + b"\n", 0
    secret = [place for place, column in enumerate(table.columns) if isinstance(column.type, sa.LargeBinary)]
    # One order on both databases: that of the letters' numbers.
    by = [
        sa.collate(column, "C") if isinstance(column.type, sa.Text) and not tx.is_sqlite else column
        for column in table.primary_key.columns
        if column is not USAGE_SUMS.c.slot
    ]
    found = tx.connection().execute(_rows_of(table).order_by(*by), execution_options={"yield_per": ROWS_AT_ONCE})
    for rows in found.partitions():
        lists = [list(row) for row in rows]
        for place in secret:
            for row in lists:
                row[place] = base64.b64encode(row[place]).decode()
        yield "".join(f"{_json(row)}\n" for row in lists).encode(), len(lists)


# Reading


NO_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),  # no zip, or somebody else's
    *(KeyError, TypeError, ValueError, OverflowError),  # other content
)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Whatever is no archive, or no longer one, gets a sentence."""
    try:
        yield
    except OSError as error:
        raise Invalid(
            N_("The file {file} can't be read: {reason}."), field="file", file=file, reason=error.strerror or error
        ) from None
    except NO_ARCHIVE as error:
        raise Invalid(
            N_("{file} is damaged, or not an archive. Name a file that “export all” wrote."), field="file", file=file
        ) from error


def _must_be_readable(part: Path, manifest: dict[str, Any]) -> None:
    try:
        with zipfile.ZipFile(part) as archive:
            _verify(archive, manifest)
    except NO_ARCHIVE as error:
        raise Conflict(N_("What was written can't be read back, so no archive was made. Try another disk.")) from error


def _manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """What the archive says of itself. Raises Invalid for another version, and what _opened expects for no archive."""
    with archive.open(MANIFEST) as member:
        manifest: dict[str, Any] = json.loads(member.read(BLOCK))  # one that is larger is none, whatever it unpacks to
    if manifest["format"] != FORMAT:
        raise ValueError
    version, revision = int(manifest["version"]), str(manifest["revision"])
    if version > VERSION or revision > REVISION:
        raise Invalid(
            N_("The archive is of a newer version ({found}) than this app ({known}). Update the app, then import again."),
            field="file", found=revision, known=REVISION,
        )  # fmt: skip
    if revision != REVISION:
        raise Invalid(
            N_(
                "The archive is of an older version ({found}) than this app ({known}). Import it with the app that made it, "
                "then update."
            ),
            field="file", found=revision, known=REVISION,
        )  # fmt: skip
    return manifest


def _verify(archive: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
    """Read all of it, before a row is believed. Raises ValueError where it isn't what the manifest says."""
    for table in TABLES:
        digest, lines = hashlib.sha256(), 0
        with archive.open(_member(table.name)) as member:
            while block := member.read(BLOCK):
                digest.update(block)
                lines += block.count(b"\n")
        if manifest["tables"][table.name] != {"rows": lines - 1, "sha256": digest.hexdigest()}:
            raise ValueError(table.name)


def _fill(
    tx: Transaction,
    file: Path,
    archive: zipfile.ZipFile,
    manifest: dict[str, Any],
    actor: Actor | None,
    progress: Progress,
) -> Archived:
    _must_be_empty(tx)
    try:
        with _readable(file):
            archived, done = _archived(manifest), 0
            every = sum(table["rows"] for table in manifest["tables"].values())
            for table in TABLES:
                for rows in _rows(archive, table):
                    _insert(tx, table, rows)
                    done += len(rows)
                    progress(done, every)
    except (sa.exc.IntegrityError, sa.exc.DataError) as error:
        raise Invalid(_BROKEN, field="file", sentence=str(error.orig).strip().splitlines()[0]) from error
    if not tx.is_sqlite:
        _go_on_after(tx)
    findings = check_within(tx)
    if findings:
        raise Invalid(_BROKEN, field="file", sentence=findings[0].told())
    newest = seals.newest(tx)
    here = (newest.number, newest.hash) if newest else (0, seals.NOTHING_BEFORE)
    if here != (archived.seal, archived.hash):
        raise Invalid(_BROKEN, field="file", sentence=_OTHER_SEAL)
    if actor is not None:
        audit.note(tx, actor, "database.import", file.name, entries=archived.entries)
    return archived


_BROKEN = N_("The archive doesn't add up, so nothing was imported. {sentence}")
_OTHER_SEAL = BillingError(N_("Its newest seal is not the one that its manifest names."))


def _must_be_empty(tx: Transaction) -> None:
    """Nobody else writes from here on. Raises Conflict."""
    if not tx.is_sqlite:
        names = ", ".join(table.name for table in TABLES)
        tx.connection().execute(sa.text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
    for table in TABLES:
        if table.name not in PASSING and tx.connection().execute(_rows_of(table).limit(1)).first() is not None:
            raise Conflict(N_("The database is not empty. Name a new one in BILLING_DATABASE_URL, then import again."))
    with _audit_may_go(tx):
        for name in (*PASSING, "setting"):
            tx.connection().execute(sa.delete(SQLModel.metadata.tables[name]))


@contextmanager
def _audit_may_go(tx: Transaction) -> Iterator[None]:
    """Take the triggers off the audit log for a moment, and put them back as they were."""
    run = tx.connection().exec_driver_sql
    if not tx.is_sqlite:
        run("ALTER TABLE audit DISABLE TRIGGER USER")
        yield
        run("ALTER TABLE audit ENABLE TRIGGER USER")
        return
    triggers = run("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'").all()
    for name, _sql in triggers:
        run(f"DROP TRIGGER {name}")
    yield
    for _name, sql in triggers:
        run(sql)


def _rows(archive: zipfile.ZipFile, table: sa.Table) -> Iterator[list[list[Any]]]:
    """A table's rows, in the order of its columns. Raises ValueError for what can't be in their place."""
    with io.BufferedReader(archive.open(_member(table.name)), BLOCK) as member:  # type: ignore[type-var]
        names = json.loads(member.readline())
        columns = [column.name for column in table.columns]
        if sorted(names) != sorted(columns):
            raise ValueError(names)
        places = [names.index(name) for name in columns]
        takes = [_takes(column) for column in table.columns]
        secret = [place for place, column in enumerate(table.columns) if isinstance(column.type, sa.LargeBinary)]
        fine: set[tuple[type, ...]] = set()
        rows: list[list[Any]] = []
        for line in member:
            found = json.loads(line)
            row = [found[place] for place in places] if len(found) == len(places) else []
            if (kinds := tuple(map(type, row))) not in fine:
                if len(kinds) != len(takes) or not all(map(frozenset.__contains__, takes, kinds)):
                    raise ValueError(line)
                fine.add(kinds)
            for place in secret:
                row[place] = base64.b64decode(row[place], validate=True)
            rows.append(row)
            if len(rows) == ROWS_AT_ONCE:
                yield rows
                rows = []
        if rows:
            yield rows


def _takes(column: sa.Column[Any]) -> frozenset[type]:
    """The types of JSON that a column takes: SQLite would keep anything."""
    kind = int if isinstance(column.type, sa.BigInteger | sa.Integer) else str
    return frozenset((kind, type(None)) if column.nullable else (kind,))


def _insert(tx: Transaction, table: sa.Table, rows: list[list[Any]]) -> None:
    columns = ", ".join(column.name for column in table.columns)
    if tx.is_sqlite:
        marks = ", ".join("?" * len(table.columns))
        tx.connection().exec_driver_sql(
            f"INSERT INTO {table.name} ({columns}) VALUES ({marks})", [tuple(row) for row in rows]
        )
        return
    raw, errors = tx.connection().connection, tx.connection().dialect.loaded_dbapi.Error
    try:
        with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:  # type: ignore[attr-defined]
            for row in rows:
                copy.write_row(row)
    except errors as error:  # as SQLAlchemy names what the driver raises
        raise sa.exc.DBAPIError.instance(None, None, error, errors) from error


def _go_on_after(tx: Transaction) -> None:
    """Postgres counts on from the last number, and learns how much there is now."""
    for table in TABLES:
        if "id" in table.columns:
            tx.connection().execute(
                sa.text(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), coalesce(max(id), 1), max(id) IS NOT NULL) "
                    f"FROM {table.name}"
                )
            )
    tx.connection().execute(sa.text("ANALYZE"))
