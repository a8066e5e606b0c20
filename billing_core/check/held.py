"""What is noted of stretches, by which the logs are found, against their entries."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from .. import stretches
from ..database import Transaction
from ..i18n import N_
from ..stretches import Held, Stretch
from .findings import Findings
from .reading import blocks

_STRETCHES = "SELECT number, first_id, last_id, upto, from_ns, to_ns, latest_ns FROM stretch"
_HELD = "SELECT what, number, entries, ids, consumed, recharged FROM stretch_holds"


class HeldSketch:
    """Fingerprints of notes, which add up in any order, by dice thrown for this check."""

    def __init__(self, salt: int) -> None:
        self.salt = salt

    def of_stretch(self, row: Sequence[Any]) -> int:
        return self._hash(row)

    def of_held(self, row: Sequence[Any]) -> int:
        what, number, entries, ids, *amounts = row
        listed = -1 if ids is None else int.from_bytes(ids.encode(), "little")
        return self._hash((what, number, entries, *amounts), listed)

    def _hash(self, numbers: Sequence[int], *more: int) -> int:
        """Of numbers of 64 bits, each in two parts: Python's hash takes -1 for -2, and 0 for 2⁶¹ - 1. Raises TypeError for
        text."""
        return hash((self.salt, *more, *(part for number in numbers for part in divmod(number + 2**63, 2**32))))

    def of(self, whole: Stretch, held: Sequence[Held]) -> int:
        return self.of_stretch(astuple(whole)) + sum(map(self.of_held, held))


def newest(tx: Transaction) -> int:
    """The number of the last stretch of which anything is noted."""
    ((last,),) = tx.rows("SELECT coalesce(max(number), 0) FROM stretch")
    return last if isinstance(last, int) else 0  # SQLite keeps text in a column of numbers


def stretch_before(tx: Transaction, number: int) -> Stretch | None:
    rows = tx.rows(f"{_STRETCHES} WHERE number = ?", (number - 1,))
    return Stretch(*rows[0]) if rows else None


def kept_fingerprint(tx: Transaction, salt: int) -> int | None:
    """Of all that is noted; None where it isn't whole numbers."""
    sketch, kept = HeldSketch(salt), 0
    try:
        for rows in blocks(tx, _STRETCHES):
            kept += sum(map(sketch.of_stretch, rows))
        for rows in blocks(tx, _HELD):
            kept += sum(map(sketch.of_held, rows))
    except (TypeError, AttributeError):
        return None
    return kept


def stretches_held(tx: Transaction, found: Findings) -> None:
    """Name the first stretch that is noted wrongly."""
    last: Stretch | None = None
    seals = {number: last_id for number, last_id in tx.rows("SELECT number, last_entry_id FROM seal")}
    for number in range(1, newest(tx) + 1):
        rows = tx.rows(stretches.ENTRIES, (last.last_id if last else 0, seals.get(number, 0)))
        try:
            last, held = stretches.contents(number, rows, last)
        except (IndexError, TypeError, KeyError, ValueError):  # the entries themselves are broken, or gone
            break
        kept = tx.rows(f"{_STRETCHES} WHERE number = ?", (number,))
        kept_held = tx.rows(f"{_HELD} WHERE number = ? ORDER BY what", (number,))
        if kept != [astuple(last)] or kept_held != held:
            break
    else:
        number = newest(tx) + 1
    found.note(
        "stretch", number,
        N_("What is noted of the entries under seal {id} is not what they are, so that the logs may leave some out."),
    )  # fmt: skip
