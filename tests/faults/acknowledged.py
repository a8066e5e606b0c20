"""What writers were told, against what the ledger holds after a fault."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from billing_core.check import check
from billing_core.database import Database, Transaction

TOLD: list[tuple[str, int, int, int, int]] = []
"""Fault, rounds, acknowledged, lost, doubled: printed at the end of the run."""


@dataclass(frozen=True, slots=True)
class Told:
    """A writer's answer: its request's key, the entry's id and its cost in 毫."""

    key: str
    entry_id: int
    cost: int


def read(file: Path) -> list[Told]:
    """What writers noted in a file, a line each; a last line that was cut off by a kill was not acknowledged."""
    text = file.read_text() if file.exists() else ""
    lines = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [Told(key, int(entry_id), int(cost)) for key, entry_id, cost in lines]


def compare(db: Database, told: list[Told], fault: str | None = None, rounds: int = 1) -> None:
    """Every acknowledged write is there once, nothing is there twice, nothing is half done, and everything adds up."""
    kept, entries = db.read(_kept)
    lost = [one for one in told if kept.get(one.key) != (one.entry_id, one.cost)]
    named = Counter(entry_id for entry_id, _cost in kept.values())
    doubled = [id for id in entries if named[id] != 1]  # a charge whose key is not its own, or that has none
    if fault is not None:
        TOLD.append((fault, rounds, len(told), len(lost), len(doubled)))
    assert not lost, lost[:3]
    assert not doubled, doubled[:3]
    findings = check(db)
    assert not findings, [one.sentence() for one in findings]


def _kept(tx: Transaction) -> tuple[dict[str, tuple[int, int]], list[int]]:
    """What is kept under each key, and the ids of all charges."""
    rows = tx.connection().execute(
        sa.text(
            "SELECT i.key, e.id, e.cost FROM idempotency i JOIN entry e ON e.id = i.entry_id WHERE e.type = 'deduct'"
        )
    )
    entries = tx.connection().scalars(sa.text("SELECT id FROM entry WHERE type = 'deduct'"))
    return {key: (id, cost) for key, id, cost in rows}, list(entries)
