"""Many write to one SQLite at once: each gets its turn, and who can't wait longer is told that nothing was changed."""

import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from billing_core import database, ledger
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.errors import DatabaseUnavailable
from billing_core.idempotency import Once
from billing_core.tokens import Tokens

from .acknowledged import Told, compare, read
from .test_kill import books

THREADS = 16


def charge(db: Database, key: str) -> Told:
    done = db.write(ledger.charge, "ann", "m", Tokens(1000, 10), actor=SHELL, once=Once.of(SHELL, key))
    return Told(key, done.entry_id, done.cost)


def test_threads_write_in_the_order_in_which_they_ask(sqlite_url: str) -> None:
    db = books(sqlite_url)
    order: list[int] = []
    all_told: list[Told] = []
    start = threading.Barrier(THREADS)

    def work(number: int) -> None:
        start.wait()
        for turn in range(20):
            all_told.append(charge(db, f"{number} {turn}"))
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(order) == THREADS * 20
    # Whoever has written asks again behind all others: nobody is passed more than a few times.
    waits = Counter[int]()
    last = dict.fromkeys(range(THREADS), 0)
    for place, number in enumerate(order[: THREADS * 15]):
        waits[number] = max(waits[number], place - last[number])
        last[number] = place
    assert max(waits.values()) <= 4 * THREADS, waits
    compare(db, all_told, f"{THREADS} threads at once")
    db.close()


def test_processes_get_each_a_share(sqlite_url: str, tmp_path: Path) -> None:
    processes, enough = 4, 600
    books(sqlite_url).close()
    files = [tmp_path / f"told {number}" for number in range(processes)]

    def work(file: Path) -> None:
        db, out, number = Database(sqlite_url), os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 0
        db.read(lambda tx: tx.rows("SELECT 1"))
        began = time.monotonic()
        while not all(one.exists() for one in files):
            assert time.monotonic() < began + 60, "another process didn't begin"
            time.sleep(0.001)  # whoever began first would have a share more
        while sum(one.stat().st_size for one in files if one.exists()) < enough * 20:
            told = charge(db, f"{file.name[-1]}-{number}")
            os.write(out, f"{told.key} {told.entry_id} {told.cost}\n".encode())
            number += 1

    children = []
    for file in files:
        child = os.fork()
        if child == 0:
            try:
                work(file)
                os._exit(0)
            except BaseException:  # noqa: BLE001
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * processes
    shares = [len(read(file)) for file in files]
    assert min(shares) * 8 * processes >= sum(shares), shares
    db = Database(sqlite_url)
    compare(db, [one for file in files for one in read(file)], f"{processes} processes at once")
    db.close()


def test_who_has_waited_for_long_enough_is_told_and_nothing_was_charged(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = books(sqlite_url)
    other = Database(sqlite_url)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    refused: list[str] = []

    def ask(number: int) -> None:
        with pytest.raises(DatabaseUnavailable) as error:
            charge(db, f"k-{number}")
        refused.append(error.value.sentence())

    with other.writer.begin():  # another program holds the lock
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(refused) == {"The database is busy. Nothing was changed; try again in a moment."}
    assert len(refused) == 4
    compare(db, [charge(db, "k-0")], "a lock that is held for too long")
    other.close()
    db.close()
