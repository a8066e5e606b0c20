"""The walk by several processes, which see the same state."""

import gc
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import sqlalchemy as sa

from .. import seals
from ..database import Database, Transaction
from .findings import Findings, Progress
from .rules import file, seals_in_place, single_rules
from .used import Busy, kept_fingerprint
from .walk import Part, Sums, Walked, walk

IN_PARTS_FROM = 300_000
"""Entries: below that, processes take longer to start than to help."""
PARTS = 2
_WORKER = "from billing_core.check.parts import worker; worker()"


def walk_in_parts(
    tx: Transaction, found: Findings, url: str, total: int, salt: int, busy: Busy, noted: int, progress: Progress
) -> tuple[Walked, int | None]:
    """The walk by several processes and, meanwhile, all else by this one; with the fingerprint of what is kept."""
    # Every process sees the same entries up to `total`: SQLite writes them in the order of their ids, and for Postgres,
    # where a smaller id may be committed later, this transaction's own snapshot is handed on.
    snapshot = None if tx.is_sqlite else str(tx.connection().scalar(sa.text("SELECT pg_export_snapshot()")))
    parts = _parts(tx, total, salt, busy, noted)
    workers = [_Worker(url, snapshot, part) for part in parts]

    def aside() -> int | None:
        single_rules(tx, found)
        return kept_fingerprint(tx, salt, busy)

    another, of_file = Database(url), Findings()
    try:
        with ThreadPoolExecutor(2) as pool:
            rest, whole_file = pool.submit(aside), pool.submit(another.read, file, of_file)
            while not (rest.done() and whole_file.done()) or not all(one.ended.is_set() for one in workers):
                progress(sum(one.entries for one in workers), total)
                time.sleep(0.1)
            kept = rest.result()
            whole_file.result()
        walked = [one.walked or walk(tx, one.part, lambda _entries: None) for one in workers]
    finally:
        another.close()
        for worker in workers:
            worker.process.kill()
    for finding in of_file:
        found.add(finding)
    whole = Walked()
    for each in walked:
        whole.entries += each.entries
        whole.used += each.used
        whole.held += each.held
        whole.findings += each.findings
        for id, sums in each.sums.items():
            so_far = whole.sums.setdefault(id, Sums())
            so_far.added += sums.added
            so_far.consumed += sums.consumed
    return whole, kept


def _parts(tx: Transaction, total: int, salt: int, busy: Busy, noted: int) -> list[Part]:
    """The ledger up to `total` in parts of about the same length, cut where a seal ends one of its stretches."""
    known = list(seals_in_place(tx))
    parts, after, before = [], 0, seals.NOTHING_BEFORE
    for number in range(1, PARTS):
        target = total * number // PARTS
        within = [seal for seal in known if seal.last_entry_id <= target]
        last = within[-1].last_entry_id if within else target if not known else after
        if last <= after:
            continue
        parts.append(Part(after, last, within, salt, busy, noted, before))
        known = known[len(within) :]
        after, before = last, within[-1].hash if within else before
    return [*parts, Part(after, total, known, salt, busy, noted, before)]


class _Worker:
    """A process that walks a part; `walked` stays None where it could not."""

    def __init__(self, url: str, snapshot: str | None, part: Part):
        self.part, self.entries, self.walked = part, 0, cast(Walked | None, None)
        self.ended = threading.Event()
        paths = (str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH", ""))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        )
        threading.Thread(target=self._listen, args=((url, snapshot, part),), daemon=True).start()

    def _listen(self, task: tuple[str, str | None, Part]) -> None:
        assert self.process.stdin
        assert self.process.stdout
        try:
            with self.process.stdin, self.process.stdout:
                pickle.dump(task, self.process.stdin)
                self.process.stdin.flush()
                while self.walked is None:
                    said = pickle.load(self.process.stdout)
                    if isinstance(said, Walked):
                        self.walked = said
                    else:
                        self.entries = said
        except (OSError, EOFError, pickle.UnpicklingError):
            pass
        finally:
            self.process.wait()
            self.ended.set()


def worker() -> None:
    """What a process of _walk_in_parts runs: it reads its part from standard input, and tells how far it is and then
    what it found on standard output."""
    url, snapshot, part = pickle.load(sys.stdin.buffer)
    gc.disable()  # looking for circles among millions of rows, where there are none, takes a tenth of the time

    def tell(said: int | Walked) -> None:
        pickle.dump(said, sys.stdout.buffer)
        sys.stdout.buffer.flush()

    def walk_mine(tx: Transaction) -> Walked:
        if snapshot is not None:
            tx.connection().execute(sa.text(f"SET TRANSACTION SNAPSHOT '{snapshot}'"))
        return walk(tx, part, tell)

    db = Database(url)
    tell(db.read(walk_mine))
    db.close()
