"""How a large ledger is read: a page of the log wherever it is and whatever it shows, a file of a million entries, a list of accounts.

    python -m bench reading --file ledger.db [--postgres URL]

`--file`: a ledger that `python -m bench ledger` has made; it gets an admin and a key. `--postgres`: an empty database, into which
the ledger is copied, and whose pages are measured instead. A page's time is set against that of the newest one, in turns, and
the ratio is the median of the rounds' ratios.
"""

import argparse
import csv
import http.client
import io
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
import sqlalchemy as sa

from billing_core import accounts, logs, overview, signin, stretches
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction, migrate
from billing_core.errors import UnknownAccount
from billing_core.logs import Filters
from billing_core.zones import zone

DAY_NS = 86_400 * 10**9
EXPORTED = 1_000_000


@dataclass
class Row:
    name: str
    reached: float
    unit: str
    against: float | None
    """What it stands beside, in the same unit."""
    ratio: float | None
    limit: str
    met: bool
    over_time: tuple[int, ...] = ()
    """The same at each tenth of the way."""


# Pages


def pages(db: Database) -> dict[str, tuple[Filters, dict[str, int]]]:
    """What is looked at, each with its place."""
    ((last, first_ns, last_ns),) = db.read(
        lambda tx: tx.rows("SELECT max(id), min(created_at_ns), max(created_at_ns) FROM entry")
    )
    ((rarest,),) = db.read(lambda tx: tx.rows("SELECT name FROM model ORDER BY id DESC LIMIT 1"))

    def at(part: float) -> int:
        return first_ns + int((last_ns - first_ns) * part)

    large, small = "user1", "user77"
    return {
        "an account's newest": (Filters(small), {}),
        "half way down": (Filters(), {"before": last // 2}),
        "near the end": (Filters(), {"before": last // 100}),
        "offset 100,000": (Filters(), {"offset": 100_000}),
        "offset 90%": (Filters(), {"offset": last * 9 // 10}),
        "a large account, offset 100,000": (Filters(large), {"offset": 100_000}),
        "a day long ago": (Filters(start_ns=at(0.01), end_ns=at(0.01) + DAY_NS), {}),
        "a day half way": (Filters(start_ns=at(0.5), end_ns=at(0.5) + DAY_NS), {}),
        "a small account's month": (Filters(small, at(0.3), at(0.3) + 30 * DAY_NS), {}),
        "a large account's day": (Filters(large, at(0.3), at(0.3) + DAY_NS), {}),
        "calls": (Filters(types=("deduct", "settle")), {}),
        "settles": (Filters(types=("settle",)), {}),
        "recharges": (Filters(types=("recharge",)), {}),
        "reversals": (Filters(types=("reversal",)), {}),
        "a type that there is none of": (Filters(types=("expire",)), {}),
        "a large account's reversals": (Filters(large, types=("reversal",)), {}),
        "a common model": (Filters(model="maker/model-1"), {}),
        "a rare model": (Filters(model=rarest), {}),
        "a rare model of a month": (Filters(model=rarest, start_ns=at(0.2), end_ns=at(0.2) + 30 * DAY_NS), {}),
        "a large account's rare model": (Filters(large, model=rarest), {}),
        "a small account's rare model": (Filters(small, model=rarest), {}),
        "text in remarks": (Filters(search="wrong"), {}),
        "text that is in none": (Filters(search="zebra"), {}),
        "a member's own, a month": (Filters(small, at(0.7), at(0.7) + 30 * DAY_NS, merged=True), {}),
    }


def read_pages(db: Database, rounds: int) -> list[Row]:
    asked = pages(db)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    for turn in range(rounds + 1):
        for name, (filters, place) in asked.items():
            newest, this = (_timed(db, *one) for one in ((Filters(), {}), (filters, place)))
            if turn:  # the first time, files and statements are read
                times[name].append((this, newest))
    rows = []
    for name, both in times.items():
        ratio = statistics.median(this / newest for this, newest in both)
        this, newest = (statistics.median(column) * 1000 for column in zip(*both, strict=True))
        rows.append(Row(name, round(this, 2), "ms", round(newest, 2), round(ratio, 2), "at most 1.5", ratio <= 1.5))
    return rows


def _timed(db: Database, filters: Filters, place: dict[str, int]) -> float:
    began = time.perf_counter()
    db.read(logs.page, filters, actor=SHELL, **place)
    return time.perf_counter() - began


# A file


SERVER = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from api import PREFIX, create_api
from billing_core.database import open_database
db = open_database(sys.argv[1])
uvicorn.run(Starlette(routes=[Mount(PREFIX, create_api(lambda: db))]), port=int(sys.argv[2]), log_level="warning")
"""


def _memory_mb(pid: int, what: str) -> int:
    said = Path(f"/proc/{pid}/status").read_text()
    return int(said.split(f"{what}:")[1].split()[0]) // 1024


def export(db: Database, key: str) -> list[Row]:
    """The file of the newest million entries over HTTP, beside what bare sqlite3 and csv take for the entries alone."""
    assert db.file is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, db.url, str(port)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        _lines(port, key, EXPORTED // 3)  # SQLite keeps up to 64 MB of its pages for each connection, whatever is read
        before = _memory_mb(server.pid, "VmRSS")
        over_time: list[int] = []
        first, seconds, lines = _lines(
            port, key, EXPORTED, lambda: over_time.append(_memory_mb(server.pid, "VmRSS") - before)
        )
        grown = _memory_mb(server.pid, "VmHWM") - before
    finally:
        server.kill()
        server.wait()
    bare = lines / _bare(db.file, lines)
    speed = round(lines / seconds)
    return [
        Row("CSV over HTTP, rows a second", speed, "", round(bare), round(speed / bare, 2), "150000", speed >= 150_000),
        Row("its first byte", round(first * 1000), "ms", None, None, "300", first <= 0.3),
        Row("memory that it takes", grown, "MB", None, None, "50", grown < 50, tuple(over_time)),
    ]


def _lines(port: int, key: str, most: int, at_a_tenth: Callable[[], None] = lambda: None) -> tuple[float, float, int]:
    """Seconds until the first byte and until `most` lines have come, and the lines."""
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            began = time.perf_counter()
            path = "/api/v1/billing/export/logs.csv?all=true"
            connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    answer, lines = connection.getresponse(), 0
    assert answer.status == 200, answer.read()
    block = answer.read1(1 << 20)
    first = time.perf_counter() - began
    while block and lines < most:
        tenth = lines * 10 // most
        lines += block.count(b"\n")
        if lines * 10 // most > tenth:
            at_a_tenth()
        block = answer.read1(1 << 20)
    seconds = time.perf_counter() - began
    connection.close()
    return first, seconds, lines


def _bare(file: Path, lines: int) -> float:
    began = time.perf_counter()
    connection, out = sqlite3.connect(f"file:{file}?mode=ro", uri=True), io.StringIO()
    writer = csv.writer(out)
    cursor = connection.execute("SELECT * FROM entry ORDER BY id DESC LIMIT ?", (lines,))
    while rows := cursor.fetchmany(5000):
        writer.writerows(rows)
        out.getvalue().encode()
        out.seek(0)
        out.truncate()
    return time.perf_counter() - began


# Accounts


def list_accounts(db: Database) -> Row:
    """Statements for the list of all accounts, beside those for the list of one."""

    def asked(search: str) -> int:
        count = 0

        def note(*_: object) -> None:
            nonlocal count
            count += 1

        sa.event.listen(db.engine, "before_cursor_execute", note)
        rows = Transaction.rows
        Transaction.rows = lambda *given: (note(), rows(*given))[1]  # type: ignore[assignment, method-assign]
        try:
            db.read(overview.team, actor=SHELL, tz=zone("UTC"), search=search)
        finally:
            Transaction.rows = rows  # type: ignore[method-assign]
            sa.event.remove(db.engine, "before_cursor_execute", note)
        return count

    ((there,),) = db.read(lambda tx: tx.rows("SELECT count(*) FROM account"))
    few, many = asked("user77"), asked("")
    return Row(f"queries for {there} accounts", many, "", few, round(many / few, 2), "no more", many <= few)


# Postgres


def copy(source: Database, url: str) -> Database:
    """The ledger's rows, in a Postgres database."""
    from sqlmodel import SQLModel

    target = Database(url)
    migrate(target)
    file = source.file
    with sqlite3.connect(str(file)) as there, psycopg.connect(url.replace("+psycopg", "")) as here:
        for table in SQLModel.metadata.sorted_tables:
            if table.name == "price_version":  # it has its row
                continue
            names = ", ".join(column.name for column in table.columns)
            with here.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copying:
                for row in there.execute(f"SELECT {names} FROM {table.name}"):
                    copying.write_row(row)
    with target.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
    return target


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench reading", description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--postgres", default=None, help="the URL of an empty database: its pages are measured")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    db = Database(f"sqlite:///{asked.file}")
    migrate(db)
    stretches.fill(db)
    if asked.postgres:
        rows = read_pages(copy(db, asked.postgres), asked.rounds)
    else:
        try:
            db.read(accounts.find, "bench-admin")
        except UnknownAccount:
            db.write(accounts.add, "bench-admin", "Admin", actor=SHELL, role="admin")
        key = db.write(signin.add_key, "bench-admin", actor=SHELL, can="admin")[1]
        rows = [*export(db, key), *read_pages(db, asked.rounds), list_accounts(db)]
    if asked.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        beside = "" if row.against is None else f"{row.against:>12,}"
        ratio = "" if row.ratio is None else f"{row.ratio:>6}"
        print(
            f"{row.name:<34} {row.reached:>10,} {row.unit:<3} {beside:>12} {ratio:>6}  {row.limit:<12} {'met' if row.met else 'missed'}"
        )
        if row.over_time:
            print(f"{'  at each tenth of the way':<34} {' '.join(map(str, row.over_time))}")
