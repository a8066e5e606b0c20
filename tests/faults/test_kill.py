"""kill -9 at any moment: what was acknowledged is there once, and the next one goes on."""

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import httpx
import pytest
import sqlalchemy as sa
from conftest import postgres_url
from test_api_server import CALL, filled

from billing_core import accounts, archive, demo, ledger, pricing, seals
from billing_core.actors import SHELL
from billing_core.archive import Archived
from billing_core.check import check
from billing_core.database import Database, prepare

from .acknowledged import TOLD, Told, compare, read

PROJECT = Path(__file__).resolve().parent.parent.parent
PATHS = os.pathsep.join((str(PROJECT), str(PROJECT / "tests")))


def books(url: str) -> Database:
    db = Database(url)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    db.write(ledger.recharge, "ann", 10**10, actor=SHELL)
    for model in ("m", "n"):
        db.write(pricing.set_price, model, 18_000_000, 72_000_000, actor=SHELL)
    return db


@contextmanager
def writers(url: str, file: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "faults.writer", url, str(file)]
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": PATHS}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_killed_worker_loses_nothing(db_url: str, tmp_path: Path, rounds: int) -> None:
    rounds = rounds or (100 if "sqlite" in db_url else 40)
    db, dice, file = books(db_url), random.Random(5), tmp_path / "told"
    with writers(db_url, file) as process:
        assert process.stdin
        assert process.stdout
        for _ in range(rounds):
            # The last one may have been written and not told: it is asked again, under its key.
            process.stdin.write(f"{len({one.key for one in read(file)})}\n")
            process.stdin.flush()
            writer = int(process.stdout.readline())
            size = file.stat().st_size if file.exists() else 0
            while not file.exists() or file.stat().st_size == size:
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.05))
            os.kill(writer, signal.SIGKILL)
            process.stdout.readline()
            with file.open("ab+") as told:  # a line that was cut off was never said
                told.seek(0)
                whole = told.read()
                told.truncate(whole.rfind(b"\n") + 1)
    told = read(file)
    assert len(told) >= rounds
    compare(db, told, f"kill -9 of a worker, {db.engine.dialect.name}", rounds)
    db.close()


def test_a_killed_server_loses_nothing(sqlite_url: str, rounds: int) -> None:
    rounds = rounds or 10
    db, dice = Database(sqlite_url), random.Random(6)
    key = filled(db, 10**10)
    told: list[Told] = []
    numbers = iter(range(10**9))
    unsure: list[int] = []

    def client(address: str) -> None:
        with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=20) as http:
            while True:
                number = unsure.pop() if unsure else next(numbers)
                try:
                    answer = http.post("/charge", json=CALL, headers={"Idempotency-Key": f"k-{number}"})
                except httpx.HTTPError:
                    unsure.append(number)
                    return
                assert answer.status_code == 200, answer.text
                told.append(Told(f"k-{number}", int(answer.json()["id"]), answer.json()["cost"]))

    for _ in range(rounds):
        command = [sys.executable, "-m", "uvicorn", "api:app", "--port", "0", "--no-access-log"]
        env = os.environ | {"BILLING_DATABASE_URL": sqlite_url}
        with subprocess.Popen(command, cwd=PROJECT, env=env, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            address = next(line.split()[-5] for line in process.stderr if "running on" in line)
            clients = [threading.Thread(target=client, args=(f"{address}/api/v1/billing",)) for _ in range(8)]
            for one in clients:
                one.start()
            before = len(told)
            while len(told) < before + 5 and any(one.is_alive() for one in clients):
                time.sleep(0.01)
            time.sleep(dice.uniform(0, 0.3))
            process.kill()
            for one in clients:
                one.join()
    assert told
    compare(db, told, "kill -9 of a server, 8 connections", rounds)
    db.close()


def test_a_killed_shell_command_loses_nothing(sqlite_url: str, rounds: int) -> None:
    """Each asks again, under its request id, until it is told."""
    rounds = rounds or 12
    db, dice = books(sqlite_url), random.Random(8)
    told: list[Told] = []
    command = [sys.executable, "-m", "billing_core", "charge", "ann", "m", "--prompt-tokens", "10"]
    command += ["--completion-tokens", "1", "--json", "--request-id"]
    env = os.environ | {"BILLING_DATABASE_URL": sqlite_url}
    killed, whole_seconds = 0, 1.0
    for number in range(rounds):
        patience = dice.uniform(0.5, 1.0) * whole_seconds
        while True:
            key, start = f"s-{number}", time.monotonic()
            with subprocess.Popen([*command, key], cwd=PROJECT, env=env, stdout=subprocess.PIPE, text=True) as process:
                try:
                    answer = json.loads(process.communicate(timeout=patience)[0])
                except subprocess.TimeoutExpired:
                    process.kill()
                    killed += 1
                    patience = 60
                    continue
            whole_seconds = time.monotonic() - start
            told.append(Told(key, int(answer["id"]), answer["cost_hao"]))
            break
    assert killed
    compare(db, told, "kill -9 of a shell command", killed)
    db.close()


class Commands:
    """Shell commands, one after the other; some are killed."""

    def __init__(self, process: subprocess.Popen[str], out: Path) -> None:
        self.process, self.out = process, out

    def run(self, url: str, *words: str, seconds: float | None = None) -> tuple[int, str]:
        """Its exit code and what it said; after so many seconds it is killed."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([url, str(self.out), words]) + "\n")
        self.process.stdin.flush()
        number = int(self.process.stdout.readline())
        if seconds is not None and not select.select([self.process.stdout], [], [], seconds)[0]:
            with suppress(ProcessLookupError):  # it has ended in this moment
                os.kill(number, signal.SIGKILL)
        return int(self.process.stdout.readline()), self.out.read_text()


@contextmanager
def commands(out: Path) -> Iterator[Commands]:
    with subprocess.Popen(
        [sys.executable, "-m", "faults.commands"],
        env=os.environ | {"PYTHONPATH": PATHS}, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield Commands(process, out)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def an_archive(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Archived]:
    """A demo's weeks without an open hold, and what is in them."""
    place = tmp_path_factory.mktemp("archive")
    shutil.copy(sqlite_template, place / "billing.db")
    db = Database(f"sqlite:///{place / 'billing.db'}")
    demo.fill(db, members=5, days=20, entries=3000, end_ns=time.time_ns() - 2 * 86_400 * 10**9)
    db.write(ledger.expire_holds)  # or one of its last holds would, in the middle of a test
    done = archive.export(db, place / "all.zip")
    db.close()
    return place / "all.zip", done


class Empty(Protocol):
    def __call__(self, number: int) -> str: ...


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Empty]:
    """Gives URLs of databases that nobody has used: SQLite's file isn't even there, Postgres's has no tables."""
    if request.param == "sqlite":
        yield lambda number: f"sqlite:///{tmp_path / f'{number}.db'}"
        return
    admin: sa.Connection = request.getfixturevalue("postgres_admin")
    server, made = request.getfixturevalue("postgres_server"), list[str]()

    def another(number: int) -> str:
        made.append(f"import{number}")
        admin.execute(sa.text(f"CREATE DATABASE {made[-1]}"))
        return postgres_url(server, made[-1])

    yield another
    for name in made:
        admin.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def alone(db: Database) -> None:
    """Wait until the server has noticed that its client is gone."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
    while not db.is_sqlite and db.read(lambda tx: tx.connection().scalar(sa.text(others))):
        time.sleep(0.01)


def imported(db: Database) -> tuple[int, int, list[str]]:
    """How many entries there are, how often the audit log tells of an import, and what is broken."""
    statements = ("SELECT count(*) FROM entry", "SELECT count(*) FROM audit WHERE action = 'database.import'")
    entries, noted = db.read(lambda tx: [tx.connection().scalar(sa.text(each)) or 0 for each in statements])
    return entries, noted, [one.sentence() for one in check(db)]


def test_a_killed_import_has_brought_all_or_nothing(
    empty: Empty, an_archive: tuple[Path, Archived], tmp_path: Path, rounds: int
) -> None:
    """Asked again, it brings all, or says that the database isn't empty: then all was there."""
    rounds = rounds or 12
    dice, (file, whole) = random.Random(10), an_archive
    killed, acknowledged, nothing = 0, 0, 0
    with commands(tmp_path / "said") as shell:
        for more in (1, 2):  # the first is slower
            start = time.monotonic()
            assert shell.run(empty(rounds + more), "import", str(file))[0] == 0
            seconds = time.monotonic() - start
        for number in range(rounds):
            url = empty(number)
            code, said = shell.run(url, "import", str(file), seconds=dice.uniform(0, 1.1) * seconds)
            assert code in (0, -signal.SIGKILL), said
            db = Database(url)
            alone(db)
            prepare(db)  # as whatever comes next does
            entries, noted, broken = imported(db)
            assert (entries, noted, broken) in ((0, 0, []), (whole.entries, 1, []))
            killed += code != 0
            if "Imported" in said:
                acknowledged += 1
                assert entries
            nothing += not entries
            code, said = shell.run(url, "import", str(file))
            assert (code, "not empty" in said) == ((1, True) if entries else (0, False)), said
            assert imported(db) == (whole.entries, 1, [])
            newest = db.read(seals.newest)
            assert newest is not None
            assert newest.hash == whole.hash
            kind = db.engine.dialect.name
            db.close()
    assert killed
    assert nothing
    TOLD.append((f"kill -9 of an import, {kind}", rounds, acknowledged, 0, 0))


@pytest.mark.parametrize("kept", ["with its WAL", "without its WAL"])
def test_what_a_killed_writer_left_is_opened(sqlite_url: str, tmp_path: Path, kept: str) -> None:
    """A copy of the files after a kill: the WAL is read; without it, the ledger is an earlier one and still adds up."""
    db, file = books(sqlite_url), tmp_path / "told"
    with writers(sqlite_url, file) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("0\n")
        process.stdin.flush()
        writer = int(process.stdout.readline())
        while len(read(file)) < 20:
            time.sleep(0.01)
        os.kill(writer, signal.SIGKILL)
        process.stdout.readline()
    source = Path(str(db.file))
    copy = tmp_path / "copy.db"
    copy.write_bytes(source.read_bytes())
    if kept == "with its WAL":
        Path(f"{copy}-wal").write_bytes(Path(f"{source}-wal").read_bytes())
    left = Database(f"sqlite:///{copy}")
    compare(left, read(file) if kept == "with its WAL" else [])
    left.close()
    db.close()
