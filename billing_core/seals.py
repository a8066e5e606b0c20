"""Seals: each closes a stretch of the ledger for good, so that whoever changes an entry behind the app's back is found.

A seal is SHA-256 over the seal before it and its stretch's entries in a canonical form: the hash before it in hex, then
one JSON array of the entries by id, each an array in the order of FIELDS, ASCII without spaces. An entry names its account, model and
price by what they are, not by their numbers, so that these can't be changed either, and a copy in another database has
the same seals. A copy of the newest hash, kept elsewhere, vouches for everything before it.

Seals are made beside the charges, never in their way. A stretch ends at STRETCH entries, or when its oldest is a day old.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from .database import Database, Transaction
from .models import Seal

STRETCH = 1000
"""The most entries under one seal."""
DAY_NS = 86_400 * 10**9
NOTHING_BEFORE = "0" * 64
"""What stands for the seal before the first."""
AT_ONCE = 50
"""How many seals are made in one transaction at most."""
LATE_SECONDS = 10
"""How long transactions that are still writing are waited for (Postgres)."""

FIELDS = (
    "id", "account", "type", "amount", "balance_after", "cost", "model", "price", "prompt_tokens", "cached_tokens",
    "cache_creation_tokens", "completion_tokens", "reasoning_tokens", "precharge_id", "reverses_id", "operator", "remark",
    "created_at_ns", "recorded_at_ns",
)  # fmt: skip
"""An entry's canonical form: `account` and `operator` are user ids, `model` its name, `price` null or PRICE_FIELDS. An entry
that has any of FURTHER goes on with all of them, a price with any of FURTHER_OF_PRICE with both: what was sealed before there were
any is sealed as it was."""
PRICE_FIELDS = ("source", "input", "output", "cache_read", "cache_write")
FURTHER = ("extras", "reprices_id", "upstream_usd", "upstream_yuan")
FURTHER_OF_PRICE = ("more", "origin")
COLUMNS = (
    "id, account_id, type, amount, balance_after, cost, model_id, price_id, prompt_tokens, cached_tokens, "
    "cache_creation_tokens, completion_tokens, reasoning_tokens, precharge_id, reverses_id, operator_id, remark, "
    "created_at_ns, recorded_at_ns, extras, reprices_id, upstream_usd, upstream_yuan"
)
"""The columns of `entry` in the order of FIELDS and FURTHER."""


_PRICES = sa.text(f"SELECT id, {', '.join((*PRICE_FIELDS, *FURTHER_OF_PRICE))} FROM price")


def _shortened(row: Any, length: int) -> list[Any]:
    """A row without what follows `length` columns, where that is nothing."""
    whole = list(row)
    if whole[length:].count(None) == len(whole) - length:
        del whole[length:]
    return whole


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers in an entry stand for."""

    accounts: dict[int | None, Any]
    models: dict[int | None, Any]
    prices: dict[int | None, Any]

    @classmethod
    def read(cls, tx: Transaction) -> "Names":
        rows = tx.connection().execute
        return cls(
            {None: None} | {row[0]: row[1] for row in rows(sa.text("SELECT id, user_id FROM account"))},
            {None: None} | {row[0]: row[1] for row in rows(sa.text("SELECT id, name FROM model"))},
            {None: None} | {row[0]: _shortened(row[1:], len(PRICE_FIELDS)) for row in rows(_PRICES)},
        )

    def canonical(self, row: Any) -> list[Any]:
        """An entry in the order of FIELDS, for a row of COLUMNS. A number that names nothing, which no honest entry
        has, stands as [number], so that it isn't taken for none."""
        whole = _shortened(row, len(FIELDS))
        try:
            whole[1] = self.accounts[row[1]]
            whole[6] = self.models[row[6]]
            whole[7] = self.prices[row[7]]
            whole[15] = self.accounts[row[15]]
        except KeyError:
            for place, names in ((1, self.accounts), (6, self.models), (7, self.prices), (15, self.accounts)):
                whole[place] = names[row[place]] if row[place] in names else [row[place]]
        return whole


def hash_of(before: str, entries: Iterable[list[Any]]) -> str:
    """The hash of the seal that closes these entries (each in its canonical form) after the seal with the hash `before`."""
    text = json.dumps(list(entries), separators=(",", ":"), default=repr)  # repr: what can't be in an honest ledger
    return hashlib.sha256(f"{before}{text}".encode("ascii", "replace")).hexdigest()


def newest(tx: Transaction) -> Seal | None:
    """The last seal, None where there is none yet."""
    row = tx.connection().execute(sa.text(f"SELECT {_SEAL} FROM seal ORDER BY number DESC LIMIT 1")).one_or_none()
    return None if row is None else Seal(**row._mapping)


_SEAL = "number, last_entry_id, entries, hash, created_at_ns"
_STRETCH = sa.text(f"SELECT {COLUMNS} FROM entry WHERE id > :after AND id <= :last ORDER BY id LIMIT {STRETCH}")


def close(db: Database, *, everything: bool = False) -> int:
    """Seal what is due (with `everything`, all that is committed); how many seals were made. Raises DatabaseUnavailable.

    Several may do so at once: a seal is made once.
    """
    made = 0
    last = _all_there_up_to(db)  # once: who ran after what is written meanwhile would never end
    while True:
        after, seals = db.read(_due, last, everything)
        if not seals:
            return made
        if db.write(_keep, after, seals):
            made += len(seals)


def _all_there_up_to(db: Database) -> int:
    """The largest entry's id below which none can still appear. SQLite writes one transaction after the other. On
    Postgres an entry's id may be taken before a larger one's and committed after it, by a transaction that has begun to
    write by now: those are waited for."""

    def begin(tx: Transaction) -> tuple[int, int]:
        last = int(tx.connection().scalar(sa.text("SELECT max(id) FROM entry")) or 0)
        if tx.is_sqlite:
            return last, 0
        return last, int(tx.connection().scalar(sa.text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")))

    def oldest(tx: Transaction) -> int:
        return int(tx.connection().scalar(sa.text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")))

    last, began = db.read(begin)
    if db.is_sqlite:
        return last
    deadline = time.monotonic() + LATE_SECONDS
    while db.read(oldest) < began:
        if time.monotonic() > deadline:
            return 0
        time.sleep(0.01)
    return last


def _due(tx: Transaction, last: int, everything: bool) -> tuple[int, list[Seal]]:
    """The number of the newest seal, and those that come next."""
    known = newest(tx)
    number, after, before = (known.number, known.last_entry_id, known.hash) if known else (0, 0, NOTHING_BEFORE)
    names, seals = Names.read(tx), []
    for place in range(1, AT_ONCE + 1):
        rows = tx.connection().execute(_STRETCH, {"after": after, "last": last}).all()
        if not rows:
            break
        oldest = rows[0].created_at_ns if rows[0].recorded_at_ns is None else rows[0].recorded_at_ns
        if not everything and len(rows) < STRETCH and tx.now_ns - oldest < DAY_NS:
            break
        after, before = rows[-1].id, hash_of(before, map(names.canonical, rows))
        seals.append(
            Seal(number=number + place, last_entry_id=after, entries=len(rows), hash=before, created_at_ns=tx.now_ns)
        )
    return number, seals


def _keep(tx: Transaction, after: int, seals: list[Seal]) -> bool:
    """Write the seals that come after number `after`, unless somebody else has."""
    known = newest(tx)
    if (known.number if known else 0) != after:
        return False
    tx.connection().execute(sa.insert(Seal), [seal.model_dump() for seal in seals])
    return True


def every(tx: Transaction) -> Iterator[Seal]:
    """Every seal, oldest first."""
    for row in tx.connection().execute(sa.text(f"SELECT {_SEAL} FROM seal ORDER BY number")):
        yield Seal(**row._mapping)
