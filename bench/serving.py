"""What people cost a program, and a program people: twenty on Stats while one charges as fast as it can.

    python -m bench serving --file ledger.db

`--file`: a ledger that `python -m bench ledger` has made; a copy of it is charged, by a process of its own, through
`ledger.charge`, one charge a transaction. The app is a real server; each of its people has a websocket as a browser has it, and
looks at another stretch of all accounts' stats every `--every` seconds. In turns: the program alone, with the people at rest,
and beside them.
"""

import argparse
import itertools
import json
import multiprocessing
import random
import sqlite3
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from billing_core.actors import Actor
from billing_core.database import Database, migrate

from . import charging
from .app import App, Visitor, sign_in
from .pages import p95

LOOKED_AT = ("range=24h", "range=7d", "range=30d", "range=12m", "range=30d&by=account")


@dataclass
class Row:
    """Two things side by side, and how the first of them may stand to the second."""

    name: str
    beside: float
    alone: float | None
    ratio: float | None
    limit: str
    met: bool


def program(pipe: Any, url: str, actor: Actor) -> None:
    """Charge for so many seconds whenever it is asked to, and say how often it did."""
    db = Database(url)
    calls = charging.endless_calls(db, charging.arrivals(None), [1] * charging.ACCOUNTS, seed=time.time_ns())
    while seconds := pipe.recv():
        end, made = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            charging.charge(db, actor, next(calls))
            made += 1
        pipe.send(made)
    db.close()


class Person:
    """Looks at stats while `looking` is set, and notes how long each look took."""

    def __init__(self, visitor: Visitor, every: float, number: int, looking: threading.Event, taken: list[float]):
        self.visitor = visitor
        self.every = every
        self.dice = random.Random(number)
        self.looking = looking
        self.taken = taken
        self.leaving = False
        visitor.open("stats", LOOKED_AT[0])
        self.thread = threading.Thread(target=self.look)
        self.thread.start()

    def look(self) -> None:
        for query in itertools.cycle(LOOKED_AT):
            self.looking.wait()
            time.sleep(self.dice.uniform(0, 2 * self.every))
            if self.leaving:
                return
            if self.looking.is_set():
                self.taken.append(self.visitor.open("stats", query))

    def leave(self) -> None:
        self.leaving = True
        self.looking.set()
        self.thread.join()


def measure(file: Path, people: int, every: float, seconds: float, rounds: int) -> list[Row]:
    looking, taken = threading.Event(), list[float]()
    alone, beside = [], []
    with ExitStack() as opened:
        db = Database(f"sqlite:///{file}")
        actor, session = charging.fill(db, with_accounts=False), sign_in(db)
        app = opened.enter_context(App(db.url))
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=program, args=(theirs, db.url, actor))
        process.start()
        theirs.close()  # so that its end is seen
        opened.callback(process.kill)
        for number in range(people):
            person = Person(opened.enter_context(Visitor(app, session)), every, number, looking, taken)
            opened.callback(person.leave)
        for turn in range(rounds + 1):
            for some in (alone, beside) if turn % 2 else (beside, alone):
                (looking.set if some is beside else looking.clear)()
                time.sleep(1)  # until who was looking has seen it
                ours.send(seconds)
                some.append(ours.recv() / seconds)
            if turn == 0:  # the first time, all files and statements are read
                alone.clear()
                beside.clear()
                taken.clear()
        ours.send(0)
    ratio = statistics.median(one / other for one, other in zip(beside, alone, strict=True))
    rates = [round(statistics.median(some), 1) for some in (beside, alone)]
    slowest = round(p95(taken), 3)
    return [
        Row("charges a second", rates[0], rates[1], round(ratio, 2), "above 0.8", ratio > 0.8),
        Row(f"a page's seconds, p95 of {len(taken)}", slowest, None, None, "under 1", slowest < 1),
    ]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench serving", description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--every", type=float, default=5, help="seconds between two looks of one of them, on average")
    parser.add_argument("--seconds", type=float, default=10, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to be measured; cleaned up")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=asked.folder) as folder:
        file = Path(folder).resolve() / "ledger.db"
        with closing(sqlite3.connect(asked.file)) as source, closing(sqlite3.connect(file)) as copy:
            source.backup(copy)
        migrate(Database(f"sqlite:///{file}"))
        rows = measure(file, asked.people, asked.every, asked.seconds, asked.rounds)
    if asked.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"{'':34}{'beside people':>14}{'alone':>10}{'ratio':>8}")
    for row in rows:
        alone, ratio = ("" if number is None else f"{number:g}" for number in (row.alone, row.ratio))
        print(f"{row.name:34}{row.beside:14g}{alone:>10}{ratio:>8}  {row.limit:10} {'met' if row.met else 'missed'}")
