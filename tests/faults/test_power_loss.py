"""Power loss: a run's writes and syncs of SQLite's files are recorded, and what a power cut could have left is opened.

strace records them in order, and with them the writer's notes of what it was told. A cut after any of them leaves all that
was synced; of what was written to a file since its last sync none, all, or any of it in any order, by sectors of 512 bytes.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from billing_core.database import Database

from .acknowledged import Told, compare, read
from .test_kill import PATHS, PROJECT, books

CHARGES = 60
SECTOR = 512
CALLS = "pwrite64,write,ftruncate,fsync,fdatasync,unlink"
WRITER = f"""
import sys
from sqlalchemy import event
from billing_core import database
from faults import writer

class Database(database.Database):
    def __init__(self, url):
        super().__init__(url)
        event.listen(self.engine, "connect", lambda raw, _: [raw.execute(text) for text in sys.argv[3:]])

writer.Database = Database
writer.write(sys.argv[1], sys.argv[2], 1, {CHARGES})
"""
CALL = re.compile(
    r'^\d+ +(?P<call>\w+)\((?:\d+<(?P<open>[^>]*)>)?"?(?P<path>[^",]*)"?(?:, "(?P<data>[^"]*)")?(?P<numbers>[\d, ]*)\) += \d'
)


@dataclass(slots=True)
class Step:
    """A call that changed a file, synced it (`data` None and `at` None), or cut it to `at` bytes (`data` None)."""

    name: str
    data: bytes | None
    at: int | None


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def recorded(url: str, folder: Path, *pragmas: str) -> list[Step]:
    """The steps of a writer that charges CHARGES times."""
    trace = folder / "trace"
    command = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-y", "-xx", "-s", "70000", "-o", str(trace)]
    program = [sys.executable, "-c", WRITER, url, str(folder / "told"), *pragmas]
    subprocess.run(command + program, env=os.environ | {"PYTHONPATH": PATHS}, cwd=PROJECT, check=True)
    steps = []
    for line in trace.read_text().splitlines():
        if not (found := CALL.match(line)):
            continue
        name = Path(unhex(found["open"] or found["path"]).decode(errors="replace")).name
        numbers = [int(each) for each in found["numbers"].replace(",", " ").split()]
        if name not in ("billing.db", "billing.db-wal", "told"):
            continue
        match found["call"]:
            case "pwrite64":
                steps.append(Step(name, unhex(found["data"]), numbers[-1]))
            case "write":
                steps.append(Step(name, unhex(found["data"]), None))
            case "ftruncate":
                steps.append(Step(name, None, numbers[-1]))
            case "unlink":
                steps.append(Step(name, None, 0))
            case _:
                steps.append(Step(name, None, None))
    return steps


@dataclass(slots=True)
class Disk:
    """One file: what is on it for certain, and what may be."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Step] = field(default_factory=list)

    def step(self, step: Step) -> None:
        if step.data is None and step.at is None:
            for each in self.pending:
                apply(self.synced, each)
            self.pending = []
        else:
            self.pending.append(step)

    def after_a_cut(self, how: str, dice: random.Random) -> bytes:
        left = bytearray(self.synced)
        if how == "all":
            parts = self.pending
        elif how == "some":
            parts = [each for each in self.pending if dice.random() < 0.5]
        elif how == "torn":
            parts = [part for each in self.pending for part in sectors(each) if dice.random() < 0.5]
        else:
            parts = []
        for part in parts:
            apply(left, part)
        return bytes(left)


def apply(content: bytearray, step: Step) -> None:
    assert step.at is not None
    if step.data is None:
        del content[step.at :]
    else:
        content.extend(bytes(max(0, step.at - len(content))))
        content[step.at : step.at + len(step.data)] = step.data


def sectors(step: Step) -> Iterator[Step]:
    """A write in the parts that a disk writes whole."""
    if step.data is None or step.at is None:
        yield step
        return
    place = 0
    while place < len(step.data):
        size = SECTOR - (step.at + place) % SECTOR
        yield Step(step.name, step.data[place : place + size], step.at + place)
        place += size


def cuts(before: bytes, steps: list[Step], states: int) -> Iterator[tuple[dict[str, bytes], list[Told]]]:
    """What a cut could leave: the files, and what had been told by then. As many as asked for, spread over the run."""
    dice = random.Random(7)
    chosen = sorted(dice.choices(range(len(steps)), k=states))
    disks = {"billing.db": Disk(bytearray(before)), "billing.db-wal": Disk()}
    told: list[Told] = []
    for place, step in enumerate(steps):
        if step.name == "told":
            assert step.data is not None
            key, entry_id, cost = step.data.decode().split()
            told.append(Told(key, int(entry_id), int(cost)))
        else:
            disks[step.name].step(step)
        for number in range(chosen.count(place)):
            how = ("torn", "some", "none", "all")[(place + number) % 4]
            yield {name: disk.after_a_cut(how, dice) for name, disk in disks.items()}, told


def outcome(folder: Path, files: dict[str, bytes], told: list[Told]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    db = Database(f"sqlite:///{folder / 'billing.db'}")
    try:
        compare(db, told)
    finally:
        db.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "after"
    made.mkdir()
    return made


def run(sqlite_url: str, folder: Path, *pragmas: str) -> tuple[bytes, list[Step]]:
    if shutil.which("strace") is None:
        pytest.skip("needs strace, to see what is synced")
    books(sqlite_url).close()  # all of it is in the file then
    before = Path(sqlite_url.removeprefix("sqlite:///")).read_bytes()
    steps = recorded(sqlite_url, folder.parent, "PRAGMA wal_autocheckpoint = 40", *pragmas)
    assert len(read(folder.parent / "told")) == sum(step.name == "told" for step in steps) == CHARGES
    assert (
        sum(step.name == "billing.db" for step in steps) > 10
    )  # the log was written back into the file, several times
    return before, steps


def test_whatever_a_power_cut_leaves_holds_all_that_was_acknowledged(
    sqlite_url: str, folder: Path, rounds: int
) -> None:
    before, steps = run(sqlite_url, folder)
    states = rounds or 400
    for files, told in cuts(before, steps, states):
        outcome(folder, files, told)
    db = Database(sqlite_url)
    compare(db, read(folder.parent / "told"), "power loss, states opened", states)
    db.close()


def test_without_syncs_the_same_cuts_are_found_to_lose_something(sqlite_url: str, folder: Path) -> None:
    """That the harness would see it."""
    before, steps = run(sqlite_url, folder, "PRAGMA synchronous = NORMAL")
    found = 0
    for files, told in cuts(before, steps, 60):
        try:
            outcome(folder, files, told)
        except AssertionError:
            found += 1
    assert found > 0
