"""What is noted of stretches, by which the logs are found, against their entries."""

from collections.abc import Sequence
from dataclasses import astuple
from hashlib import blake2b
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
    """Fingerprints of notes, which add up in any order, by a key made for this check."""

    def __init__(self, salt: int) -> None:
        self._key = salt.to_bytes(8, "little")

    def of_row(self, row: Sequence[Any]) -> int:
        """Of a row of `stretch` or `stretch_holds`: they have not as many columns."""
        return int.from_bytes(blake2b(repr(tuple(row)).encode(), key=self._key, digest_size=16).digest(), "little")

    def of(self, whole: Stretch, held: Sequence[Held]) -> int:
        return self.of_row(astuple(whole)) + sum(map(self.of_row, held))


def newest(tx: Transaction) -> int:
    """The number of the last stretch of which anything is noted."""
    ((last,),) = tx.rows("SELECT coalesce(max(number), 0) FROM stretch")
    return last if isinstance(last, int) else 0  # SQLite keeps text in a column of numbers


def stretch_before(tx: Transaction, number: int) -> Stretch | None:
    rows = tx.rows(f"{_STRETCHES} WHERE number = ?", (number - 1,))
    return Stretch(*rows[0]) if rows else None


def kept_fingerprint(tx: Transaction, salt: int) -> int:
    """Of all that is noted."""
    sketch = HeldSketch(salt)
    return sum(sketch.of_row(row) for query in (_STRETCHES, _HELD) for rows in blocks(tx, query) for row in rows)


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
