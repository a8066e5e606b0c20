"""The database: where it is, its transactions, and what SQLite and Postgres do differently.

    db = open_database()                                       # data/billing.db, or BILLING_DATABASE_URL
    receipt = db.write(ledger.recharge, "ann", 1_000_000, actor=SHELL)
    page = db.read(logs.page, "ann")

`read` and `write` run a function in one transaction and hand it the transaction first. A write takes SQLite's write lock
at its start; on Postgres a deadlock or a serialization failure runs it again.
"""

import os
import random
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlmodel import Session

from .errors import BillingError, DatabaseUnavailable, Invalid
from .files import sync_folder
from .i18n import N_
from .place import DEFAULT_FILE, REVISION, database_url

P = ParamSpec("P")
T = TypeVar("T")

BUSY_SECONDS = 10
"""How long a busy database is waited for."""
SLOTS = 0x62696C6C
"""The first key of the advisory locks that give Postgres' connections their numbers."""
PREPARED_FROM = 5
"""How often Postgres is told a statement before it is prepared, as psycopg has it."""
RETRIES = 20
RETRIED_STATES = ("40001", "40P01", "23505")
"""Postgres: serialization failure, deadlock, and a row that somebody else made in the same moment."""
STEP_BY_STEP_STATES = (*RETRIED_STATES, "22012", "22003", "0A000")
"""With which `at_once` gives up: these, a division by 0, a number that is too large, and what an engine like Postgres lacks."""


_GONE = N_("The database file is gone. Put it back or restore a backup; until then nothing can be charged.")
_BUSY = N_("The database is busy. Nothing was changed; try again in a moment.")


Identity = tuple[int, int] | None
"""A file's device and number, None where there is none."""


class Retry(Exception):
    """Raised inside a write: somebody else was first; run the whole transaction again."""


class _Lost(Exception):
    """Postgres has ended a connection that nobody used; another one may serve."""


class Transaction:
    """One transaction on one connection, with the moment (ns since the epoch, UTC) at which it began.

    `rows`, `ask` and `many` go straight to the driver, for what is done at every charge: a tenth of the time. Parameters are
    written ?, on SQLite also :name. `connection` and `session` are SQLAlchemy's, in the same transaction, made when they are
    asked for.
    """

    def __init__(
        self,
        engine: sa.Engine,
        pooled: sa.PoolProxiedConnection,
        now_ns: int,
        kept: dict[str, Any],
        *,
        alone: bool = False,
    ) -> None:
        self.now_ns = now_ns
        self.kept = kept
        """What is kept between the transactions of this process. Whoever keeps something knows by itself whether it holds."""
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._engine, self._pooled = engine, pooled
        self._driver: Any = pooled.driver_connection
        self._connection: sa.Connection | None = None
        self._session: Session | None = None
        self._waiting: list[tuple[str, Sequence[Sequence[Any]]]] = []
        """What `many` was given and Postgres hasn't been told yet."""
        self._has_answered = self.is_sqlite
        """Whether the server has, in this transaction: until then another connection can be taken."""
        self._is_left = False
        """Whether another transaction has the connection."""
        self.is_alone = alone
        """Whether it is for one function of the ledger, and nothing else; on Postgres `at_once` may be asked then, before anything
        else."""

    @property
    def file(self) -> Identity:
        """SQLite's file, as the connection opened it."""
        info: Any = self._pooled.record_info
        found: Identity = info["file"]
        return found

    @property
    def slot(self) -> int:
        """A number that no other open connection has; 0 on SQLite, where one writes at a time."""
        info: Any = self._pooled.record_info
        return 0 if self.is_sqlite else int(info["slot"])

    def connection(self) -> sa.Connection:
        """SQLAlchemy's connection. Raises DBAPIError."""
        if not self._has_answered:
            self.rows("")  # whether it is there still
        self._send()
        if self._connection is None:
            self._connection = sa.Connection(self._engine, self._pooled)
            self._connection.begin()
        return self._connection

    @property
    def session(self) -> Session:
        """SQLModel's session. Raises DBAPIError."""
        connection = self.connection()
        if self._session is None:
            self._session = Session(connection, expire_on_commit=False)
        return self._session

    def rows(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """Run a statement; its rows as tuples, none of one that gives none. On SQLite parameters may have names. Raises
        DBAPIError."""
        if self._waiting:
            return self._in_one_trip((query, parameters))[0]
        try:
            if self.is_sqlite:
                return self._driver.execute(query, parameters).fetchall()
            cursor = self._driver.execute(_marked(query), parameters)
            found = cursor.fetchall() if cursor.description else []
        except Exception as error:
            raise self._said(query, error) from error
        self._has_answered = True
        return found

    def insert(self, query: str, parameters: Mapping[str, Any]) -> int:
        """Write a row on SQLite; its number. RETURNING would take as long as the row itself. Raises DBAPIError."""
        try:
            return int(self._driver.execute(query, parameters).lastrowid)
        except Exception as error:
            raise self._said(query, error) from error

    def ask(self, *queries: tuple[str, Sequence[Any] | Mapping[str, Any]]) -> list[list[Any]]:
        """Run queries, on Postgres in one round trip; the rows of each. Raises DBAPIError."""
        if self.is_sqlite:
            return [self.rows(*query) for query in queries]
        return self._in_one_trip(*queries)

    def at_once(self, query: str, parameters: Mapping[str, Any]) -> list[Any]:
        """Run a statement with parameters %(name)s as a transaction of its own, in one round trip; its rows. Without any, it
        did nothing, and the transaction begins with what follows. Only for what can be asked twice: where the connection
        is lost, nobody knows whether it counted, and the whole function is run again."""
        from psycopg import RawCursor  # other cursors read a long query anew each time

        text, names = _numbered(query)
        found: list[Any] = []
        try:
            self._driver.autocommit = True  # whoever is interrupted leaves it so: see Database._begin
            found = RawCursor(self._driver).execute(text, [parameters[name] for name in names]).fetchall()
        except Exception as error:
            if getattr(error, "sqlstate", None) not in STEP_BY_STEP_STATES:
                raise self._said(query, error) from error
        self._driver.autocommit = False
        self._has_answered = bool(found)
        return found

    def many(self, query: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run a statement with each of these parameters: on SQLite now, on Postgres in one round trip with what follows, so
        that a write's last statements are told together with COMMIT. Raises DBAPIError."""
        if not parameters:
            return
        if not self.is_sqlite:
            self._waiting.append((query, parameters))
            return
        try:
            if len(parameters) == 1:
                self._driver.execute(query, parameters[0])
            else:
                self._driver.executemany(query, parameters)
        except Exception as error:
            raise self._said(query, error) from error

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What raises within leaves nothing behind, and the transaction goes on. Raises what is raised within."""
        with self.session.begin_nested() as nested:
            nested.session.connection()  # where it begins
            try:
                yield
                self._send()
            finally:
                self._waiting.clear()

    def commit(self) -> None:
        """Raises DBAPIError."""
        if self._session is not None:
            self._session.flush()
        if not self._has_answered:
            self._send()  # by itself: a lost COMMIT may have counted, so that it is never sent again
        try:
            if self._waiting:
                with self._driver.pipeline():
                    self._tell()
                    self._driver.commit()
            else:
                self._driver.commit()
        except Exception as error:
            raise self._said("COMMIT", error) from error

    def leave(self) -> sa.PoolProxiedConnection | None:
        """Once all is committed: the connection, for another transaction; None where SQLAlchemy has it."""
        self._is_left = self._connection is None
        return self._pooled if self._is_left else None

    def close(self) -> None:
        """Undo what isn't committed, and give the connection back."""
        if self._session is not None:
            self._session.close()
        if not self._is_left:
            (self._connection or self._pooled).close()

    def _send(self) -> None:
        """Tell Postgres what `many` was given."""
        if self._waiting:
            self._in_one_trip()

    def _in_one_trip(self, *queries: tuple[str, Sequence[Any] | Mapping[str, Any]]) -> list[list[Any]]:
        """What `many` was given, and then queries; the rows of each of these."""
        try:
            with self._driver.pipeline():
                self._tell()
                cursors = [self._driver.execute(_marked(query), parameters) for query, parameters in queries]
            found = [cursor.fetchall() if cursor.description else [] for cursor in cursors]
        except Exception as error:
            raise self._said(queries[-1][0] if queries else "", error) from error
        self._has_answered = True
        return found

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for query, parameters in waiting:
            if len(parameters) == 1:
                self._driver.execute(_marked(query), parameters[0])
            else:
                self._driver.cursor().executemany(_marked(query), parameters)

    def _said(self, query: str, error: Exception) -> Exception:
        """What the driver raised, as SQLAlchemy says it; _Lost where the connection was lost before the server answered."""
        if not self.is_sqlite and self._driver.closed:
            self._pooled.invalidate()
            if not self._has_answered:
                return _Lost()
        return _wrapped(query, error, self._engine.dialect)


@cache
def _numbered(query: str) -> tuple[str, Sequence[str]]:
    """A statement with its parameters by number, and their names in that order."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", query)))
    return query % {name: f"${number}" for number, name in enumerate(names, start=1)}, names


_ALONE: set[Callable[..., Any]] = set()


def may_be_alone(function: Callable[P, T]) -> Callable[P, T]:
    """Of a function that `write` may be given itself: there it is all that its transaction does, which `is_alone` then."""
    _ALONE.add(function)
    return function


def _wrapped(query: str, error: Exception, dialect: sa.Dialect) -> Exception:
    """What a driver raised as SQLAlchemy raises it."""
    base = dialect.loaded_dbapi.Error
    return DBAPIError.instance(query, None, error, base, dialect=dialect) if isinstance(error, base) else error


def _marked(query: str) -> str:
    """A statement as Postgres' driver wants its parameters written."""
    return query.replace("%", "%%").replace("?", "%s")


class Database:
    """One database. `clock` gives the present as ns since the epoch; a test or the demo brings its own."""

    def __init__(self, url: str, clock: Callable[[], int] = time.time_ns):
        self.url = url
        self.clock = clock
        try:
            parsed = sa.make_url(url)
            if parsed.get_backend_name() not in ("sqlite", "postgresql"):
                raise ArgumentError(url)
            self.engine = sa.create_engine(parsed, **_options(parsed))
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, TypeError, ValueError) as error:
            raise Invalid(
                N_(
                    "BILLING_DATABASE_URL is not the address of a database. It looks like "
                    "sqlite:////folder/billing.db or postgresql+psycopg://user:password@host/database."
                )
            ) from error
        if self.is_sqlite:
            event.listen(self.engine, "do_connect", self._before_connect)
            event.listen(self.engine, "connect", self._prepare_sqlite)
            event.listen(self.engine, "checkout", self._before_use)
            event.listen(self.engine, "checkin", _be_patient)
            event.listen(self.engine, "begin", _begin_sqlalchemy)
        else:
            event.listen(self.engine, "connect", _prepare_postgres)
            event.listen(self.engine, "checkout", _as_it_comes)
        self.writer = self.engine.execution_options(billing_write=True)
        self._turns = _Turns()
        self._writing: list[tuple[sa.Pool, sa.PoolProxiedConnection]] = []
        """The connection of the last write, where the next one may have it: to give it back and to get it again would be a
        tenth of a charge."""
        self._kept: dict[str, Any] = {}
        self._opening_anew = threading.Lock()
        self._opened: dict[str, Identity] = {}
        """SQLite's files ("", "-wal", "-shm") as they were when a connection was made last."""

    @cached_property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @cached_property
    def file(self) -> Path | None:
        """SQLite's file."""
        name = self.engine.url.database
        return Path(name.removeprefix("file:")) if self.is_sqlite and name not in (None, "", ":memory:") else None

    def read(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(tx, …)` against one consistent state. Raises DatabaseUnavailable."""
        return self._run(self.engine, function, args, kwargs)

    def write(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(tx, …)` and commit; nothing of it remains if it raises. Raises DatabaseUnavailable."""
        return self._run(self.writer, function, args, kwargs)

    def _run(self, engine: sa.Engine, function: Callable[..., T], args: Any, kwargs: Any) -> T:
        one_at_a_time = self.is_sqlite and engine is self.writer
        _waits.until = time.monotonic() + BUSY_SECONDS  # waiting for a turn counts
        for attempt in range(RETRIES):
            pool = self.engine.pool  # of which the connection is, or an older one
            try:
                with self._turns if one_at_a_time else nullcontext():
                    with closing(self._begin(engine, alone=function in _ALONE)) as tx:
                        written = tx.file if one_at_a_time and self.file is not None else None
                        result = function(tx, *args, **kwargs)
                        tx.commit()
                        if engine is self.writer and not self._writing and (left := tx.leave()) is not None:
                            self._writing.append((pool, left))
                    if written is not None:
                        self._must_be_there(written)
                    return result
            except Retry:
                pass
            except _Lost:
                self._open_anew()  # the others are lost as well
            except sa.exc.TimeoutError as error:  # every connection was in use for as long as one is waited for
                raise DatabaseUnavailable(_BUSY) from error
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in RETRIED_STATES:
                    sentence = unavailable(error)
                    if self.is_sqlite and sentence.message != _BUSY:
                        self._open_anew()  # what was opened while a fault lasted may not outlast it
                    raise sentence from error
            time.sleep(min(0.001 * 2**attempt, 0.1))
        raise DatabaseUnavailable(_BUSY)

    def _begin(self, engine: sa.Engine, *, alone: bool = False) -> Transaction:
        try:
            pooled = (engine is self.writer and self._last_writer()) or engine.raw_connection()
            if self.is_sqlite:
                try:
                    _begin_sqlite(pooled, engine is self.writer)
                except BaseException:
                    pooled.close()
                    raise
            else:
                driver: Any = pooled.driver_connection
                if driver.autocommit:
                    driver.autocommit = False
                if engine is self.engine:
                    _only_reads(driver)
        except engine.dialect.loaded_dbapi.Error as error:
            raise _wrapped("BEGIN", error, engine.dialect) from error
        return Transaction(engine, pooled, self.clock(), self._kept, alone=alone)

    def _last_writer(self) -> sa.PoolProxiedConnection | None:
        """The connection of the last write, if it is of what is open now."""
        try:
            pool, pooled = self._writing.pop()
        except IndexError:
            return None
        info: Any = pooled.record_info
        if pool is self.engine.pool and (self.file is None or _identity(self.file) == info["file"]):
            return pooled
        pooled.close()
        return None

    def _leave_none(self) -> None:
        """Give back what the last writes have left."""
        with suppress(IndexError):
            while True:
                self._writing.pop()[1].close()

    def _open_anew(self) -> None:
        """Close all connections: those in use when they come back. The engine forgets the pool that they go back to, where
        they would stay open until Python looks for rubbish: under faults that don't end, until the server has no more."""
        with self._opening_anew:
            left = self.engine.pool
            self.engine.dispose()
            event.listen(left, "checkin", lambda _connection, record: record.close())
            self._leave_none()
            left.dispose()  # those that came back in between

    # SQLite's file may be deleted or replaced under a running app. A connection that is open would go on with the old
    # file, which nobody can see any more; a new one would make an empty file.

    def _must_be_there(self, written: Identity) -> None:
        """What was committed is in the file that has the name. Raises DatabaseUnavailable."""
        assert self.file is not None
        found = _identity(self.file)
        if found is None:
            raise DatabaseUnavailable(_GONE)
        if found != written:
            raise DatabaseUnavailable(
                N_("The database file was replaced in this moment. Look whether your change is there, then try again.")
            )

    def _before_connect(self, *_: Any) -> None:
        if self.file is None:
            return
        found, log = _identity(self.file), Path(f"{self.file}-wal")
        if found is None and (self._opened or (log.is_file() and log.stat().st_size)):
            raise DatabaseUnavailable(_GONE)
        if self._opened and found != self._opened[""]:
            # The old file's log would be read into the new one.
            for end in ("-wal", "-shm"):
                left = Path(f"{self.file}{end}")
                if self._opened[end] is not None and _identity(left) == self._opened[end]:
                    with suppress(OSError):  # another process was first
                        left.rename(f"{left}.replaced-{datetime.now():%Y%m%d-%H%M%S}")

    def _prepare_sqlite(self, connection: Any, record: Any) -> None:
        _prepare_sqlite(connection, record)
        if self.file is not None:
            self._opened = {end: _identity(f"{self.file}{end}") for end in ("", "-wal", "-shm")}
            record.record_info["file"] = self._opened[""]

    def _before_use(self, _connection: Any, record: Any, _proxy: Any) -> None:
        if self.file is not None and _identity(self.file) != record.record_info["file"]:
            raise sa.exc.InvalidatePoolError  # all are opened anew

    def close(self) -> None:
        self._leave_none()
        self.engine.dispose()


class _Waits(threading.local):
    """Until when this thread's write may wait."""

    until = 0.0


_waits = _Waits()


class _Turns:
    """Who came first writes first: SQLite lets one write at a time, and a lock of the system keeps no order.

    Waiting is bounded: who has not had a turn in BUSY_SECONDS is told that the database is busy.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        if not mine.wait(BUSY_SECONDS):
            with self._lock:
                if not mine.is_set():
                    self._waiting.remove(mine)
                    raise DatabaseUnavailable(_BUSY)

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


def _options(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {
            "connect_args": {"timeout": BUSY_SECONDS},
            "pool_size": 20,
            "max_overflow": 40,
            "pool_timeout": BUSY_SECONDS,
            "pool_use_lifo": True,  # the one used last has its pages in memory
        }
    # Whoever has gone without a word is given up: a connection would wait for hours.
    silent = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 40_000}
    return {
        "connect_args": {"connect_timeout": 5, "client_encoding": "utf8", **silent},
        "pool_size": 10,
        "max_overflow": 20,
        "pool_timeout": BUSY_SECONDS,
    }


def _identity(file: Path | str) -> Identity:
    try:
        found = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # it can't be seen, so SQLite will say what it is
        return 0, 0
    return found.st_dev, found.st_ino


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    cursor = connection.cursor()
    record.info["is_wal"] = False
    with suppress(sqlite3.OperationalError):  # a read-only file keeps the mode that it has
        ((mode,),) = cursor.execute("PRAGMA journal_mode = WAL")
        record.info["is_wal"] = mode == "wal"
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA cache_size = -65536")
    # The log goes back into the file every 40 MB instead of every 4: a page that changes often is copied once.
    cursor.execute("PRAGMA wal_autocheckpoint = 10000")
    # While somebody reads for long it can't, and grows; the room is given back once it could.
    cursor.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    cursor.close()
    # SQLite's own knows the capitals of ASCII alone.
    connection.create_function(
        "lower", 1, lambda text: text.lower() if isinstance(text, str) else text, deterministic=True
    )


def _prepare_postgres(connection: Any, record: Any) -> None:
    """Its slot: the lowest number that no open connection holds, kept until this one closes. And how long it waits for a row
    that somebody else has, unless the server says so. Raises DatabaseUnavailable where not every text can be kept."""
    from psycopg.types.numeric import Int8Dumper

    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        connection.close()
        raise DatabaseUnavailable(
            N_(
                "The database keeps text as {encoding}, which has no room for every name and remark. Make one with: CREATE "
                "DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
            ),
            encoding=encoding,
        )
    # A number of any size is a bigint: with the sizes' own types, hardly a statement would be prepared twice alike.
    connection.adapters.register_dumper(int, Int8Dumper)
    row = connection.execute(
        f"SELECT s FROM generate_series(0, 9999) s WHERE pg_try_advisory_lock({SLOTS}, s) LIMIT 1"
    ).fetchone()
    connection.execute(
        "SELECT set_config('lock_timeout', %s, false) WHERE current_setting('lock_timeout') = '0'", [f"{BUSY_SECONDS}s"]
    )
    connection.commit()
    record.record_info["slot"] = row[0] if row else 0


def _only_reads(driver: Any) -> None:
    """Its next transaction sees one state, where each statement would see another one, and writes nothing. Each query is
    planned for what it asks: a plan for whatever might be asked reads the whole history."""
    from psycopg import IsolationLevel

    driver.isolation_level = IsolationLevel.REPEATABLE_READ
    driver.read_only = True
    driver.prepare_threshold = None


def _as_it_comes(driver: Any, _record: Any, _proxy: Any) -> None:
    """A connection that has read may write next: as the server, or who set it up, has it."""
    if driver.isolation_level is not None:
        driver.isolation_level = driver.read_only = None
        driver.prepare_threshold = PREPARED_FROM


def _begin_sqlalchemy(connection: sa.Connection) -> None:
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction:  # a Transaction's
        return
    try:
        _begin_sqlite(connection.connection, bool(connection.get_execution_options().get("billing_write")))
    except sqlite3.Error as error:
        raise _wrapped("BEGIN", error, connection.dialect) from error


def _begin_sqlite(pooled: sa.PoolProxiedConnection, writes: bool) -> None:
    driver: Any = pooled.driver_connection
    if not writes:
        driver.execute("BEGIN")
        return
    # SQLite's own waiting asks less and less often, so that whoever has waited longest comes last; here every process
    # asks as often as the others.
    if pooled.info.get("is_patient", True):
        driver.execute("PRAGMA busy_timeout = 0")
        pooled.info["is_patient"] = False
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() > _waits.until:
                raise DatabaseUnavailable(_BUSY) from error
        time.sleep(random.uniform(0.0005, 0.004))
    # From here on nothing is busy for it, but where the file has no write-ahead log: there COMMIT waits for whoever reads.
    if not pooled.info["is_wal"]:
        _be_patient(driver, pooled)


def _be_patient(driver: Any, record: Any) -> None:
    """Set the busy timeout back to BUSY_SECONDS, for whatever is next."""
    if driver is not None and not record.info.get("is_patient", True):
        driver.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        record.info["is_patient"] = True


def unavailable(error: SQLAlchemyError) -> BillingError:
    """The sentence for what a database driver raised; what is no such thing is raised as it came."""
    text = str(getattr(error, "orig", error)).lower()
    if "readonly" in text or "read-only" in text:
        return DatabaseUnavailable(
            N_("The database is read-only. Give the app the right to write the file and its folder, then try again.")
        )
    if "locked" in text or "busy" in text or "lock timeout" in text:
        return DatabaseUnavailable(_BUSY)
    if "full" in text or "no space" in text:
        return DatabaseUnavailable(N_("The disk is full. Nothing was changed; make room, then try again."))
    if "not a database" in text or "malformed" in text or "no such table" in text:
        return DatabaseUnavailable(
            N_("The file is not a billing database, or it is damaged. Restore a backup, or name another file.")
        )
    if "disk i/o" in text:
        return DatabaseUnavailable(
            N_("The disk can't be read or written. Look after it, then send the same again, with the same key.")
        )
    if "unable to open" in text:
        return DatabaseUnavailable(
            N_("The database file can't be opened. Check that its folder is there and may be written to.")
        )
    if "authentication" in text or ("does not exist" in text and "connection" in text):
        return DatabaseUnavailable(
            N_("The database refuses the connection. Check the name, user and password in BILLING_DATABASE_URL.")
        )
    if "sqlite3" not in type(getattr(error, "orig", None)).__module__ and isinstance(
        error, sa.exc.OperationalError | sa.exc.InterfaceError
    ):
        return DatabaseUnavailable(N_("The database does not answer. Check that it runs, then try again."))
    raise error


MOST_AT_ONCE = 10_000
"""Parameters of one statement: SQLite takes 32 766."""


def chunks(values: Sequence[T]) -> list[Sequence[T]]:
    """So many of them at once as one statement takes."""
    return [values[start : start + MOST_AT_ONCE] for start in range(0, len(values), MOST_AT_ONCE)]


def marks(count: int) -> str:
    """Places for so many parameters."""
    return ", ".join("?" * count)


def is_id(number: int) -> bool:
    """Whether a row can have this number: SQLite can't even be asked for a larger one."""
    return 0 < number < 2**63


@cache
def _opened(url: str) -> Database:
    db = Database(url)
    prepare(db)
    return db


def open_database(url: str | None = None) -> Database:
    """The database at `url` (else where database_url says), made or brought up to date where that is needed; one a
    process and url. Raises Invalid, DatabaseUnavailable."""
    return _opened(url or database_url())


def revision(db: Database) -> str | None:
    """The schema's revision, None for an empty database."""

    def read(tx: Transaction) -> str | None:
        if not sa.inspect(tx.connection()).has_table("alembic_version"):
            return None
        return tx.connection().execute(sa.text("SELECT version_num FROM alembic_version")).scalar()

    return db.read(read)


def prepare(db: Database) -> None:
    """Create the tables, or bring an older SQLite file up to date, with a copy of what it was beside it. Raises
    DatabaseUnavailable for an older Postgres, which `migrate` brings up to date, and for a newer database."""
    if db.file is not None and db.file.parent == DEFAULT_FILE.parent:
        db.file.parent.mkdir(exist_ok=True)
    found = _known_revision(db)
    if found not in (None, REVISION) and not db.is_sqlite:
        raise DatabaseUnavailable(
            N_(
                "The database is of an older version ({found}) than this app ({known}). Stop the older apps, make a copy "
                "with pg_dump, and run: python -m billing_core migrate"
            ),
            found=found,
            known=REVISION,
        )
    if found != REVISION:
        _upgrade(db, keep=True)


def migrate(db: Database, *, keep: bool = False) -> None:
    """Create the tables, or bring any older database up to date; with `keep`, a copy of an SQLite file stays beside it.
    Raises DatabaseUnavailable."""
    if _known_revision(db) != REVISION:
        _upgrade(db, keep=keep)


def _known_revision(db: Database) -> str | None:
    """The revision of a database that this code can work with or bring up to date. Raises DatabaseUnavailable."""
    found = revision(db)
    if found is not None and found > REVISION:
        raise DatabaseUnavailable(
            N_(
                "The database is of a newer version ({found}) than this app ({known}). Update the app, then start again."
            ),
            found=found,
            known=REVISION,
        )
    if found is None and db.is_sqlite and db.read(lambda tx: sa.inspect(tx.connection()).get_table_names()):
        raise DatabaseUnavailable(
            N_(
                "The file is another program's database, so it was left alone. Name another one in BILLING_DATABASE_URL."
            )
        )
    return found


def _upgrade(db: Database, *, keep: bool) -> None:
    """Run the migrations up to REVISION, all of them in one transaction, one process at a time."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    kept: Path | None = None
    try:
        with db.writer.connect() as connection, connection.begin():
            if not db.is_sqlite:
                connection.execute(sa.text("SET LOCAL lock_timeout = 0"))  # another process may migrate for minutes
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7310582)"))
            elif keep and db.file is not None:
                kept = _keep_aside(db.file, connection)
            config.attributes["connection"] = connection
            command.upgrade(config, REVISION)
    except BaseException as error:
        if kept is not None:  # of what is there unchanged
            kept.unlink(missing_ok=True)
        if isinstance(error, DBAPIError):
            raise unavailable(error) from error
        raise


def _keep_aside(file: Path, locked: sa.Connection) -> Path | None:
    """Copy an older database's file, whole and down to the disk; None where there is nothing to keep. `locked` has the
    write lock: what is copied is what will be upgraded, and of several processes one makes the copy."""
    if not sa.inspect(locked).has_table("alembic_version"):
        return None
    if locked.scalar(sa.text("SELECT version_num FROM alembic_version")) == REVISION:
        return None
    kept = file.with_name(f"{file.name}.before-{REVISION}-{datetime.now():%Y%m%d-%H%M%S}")
    part = file.with_name(f".{file.name}.before-{REVISION}")  # the same each time: what a kill left is made anew
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)  # syncs it
        same_rights(file, part)
        part.rename(kept)
        sync_folder(kept)
    except (OSError, sqlite3.Error) as error:
        part.unlink(missing_ok=True)
        raise DatabaseUnavailable(
            N_(
                "The database is of an older version, and a copy of it can't be made before it is changed: {reason}. "
                "Nothing was changed; make room beside {file}, then start again."
            ),
            reason=getattr(error, "strerror", None) or error,
            file=file.name,
        ) from error
    return kept


def same_rights(file: Path, other: Path) -> None:
    """Whoever may use the one may use the other, and nobody else."""
    before = file.stat()
    other.chmod(before.st_mode & 0o777)
    with suppress(OSError, AttributeError):
        os.chown(other, before.st_uid, before.st_gid)
