"""What a statement holds. Amounts are 毫, times ns since the epoch, UTC.

An entry belongs to the month in which it was written into the ledger, as the balances follow that order. Where a clock was
set back, the ledger's order (the entries' ids) counts: a month ends with the last entry written before its end, and the
next one begins right after it. So the opening balance plus all amounts is the closing balance, always, and months chain.

Only what is sealed counts, so a month, a zone and a seal's number give the same statement at any later time.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from dateutil.relativedelta import relativedelta

from .. import seals
from ..accounts import find
from ..actors import Actor
from ..database import Database, Transaction
from ..errors import Conflict, DatabaseUnavailable, Invalid
from ..i18n import N_
from ..models import Seal
from ..seals import COLUMNS, FIELDS, FURTHER, NOTHING_BEFORE, PRICE_FIELDS, Names
from ..stats import from_ns, periods_between

BATCH = 5000


@dataclass(frozen=True, slots=True)
class Statement:
    """All but the entries, which `entries` reads."""

    user_id: str
    name: str
    month: str
    """Like 2026-10."""
    timezone: str
    start_ns: int
    end_ns: int
    opening: int
    closing: int
    entries: int
    """How many there are."""
    seal_number: int
    """The newest seal when it was made, 0 where the ledger was empty."""
    seal_hash: str
    sealed_at_ns: int
    account_id: int
    before_id: int
    """The account's last entry before the month, 0 where there is none."""
    last_id: int
    names: Names

    @property
    def tz(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


def period(month: str, tz: ZoneInfo) -> tuple[int, int]:
    """Where a month like 2026-10 starts and ends in a zone, ns since the epoch. Raises Invalid."""
    if not re.fullmatch(r"(?!0000)[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise Invalid(N_("“{month}” is not a month. Write it like 2026-10."), field="month", month=month[:40])
    first = date.fromisoformat(f"{month}-01")
    (one,) = periods_between(first, first + relativedelta(day=31), "month", tz)
    return one.start_ns, one.end_ns


def make(db: Database, user_id: str, month: str, tz: ZoneInfo, *, actor: Actor) -> Statement:
    """The statement of a month in a zone, after everything is sealed. Raises Invalid, UnknownAccount, Forbidden,
    DatabaseUnavailable, and Conflict where the ledger doesn't add up."""
    actor.must_see(user_id)
    start_ns, end_ns = period(month, tz)
    if start_ns > db.clock():
        raise Invalid(N_("The month {month} has not begun yet. Choose an earlier one."), field="month", month=month)
    db.read(find, user_id)
    seals.close(db, everything=True)

    def read(tx: Transaction) -> Statement:
        made = compose(tx, user_id, month, tz, seals.newest(tx))
        if end_ns <= tx.now_ns and _last_before(tx, made.account_id, end_ns, 2**63 - 1) != made.last_id:
            raise DatabaseUnavailable(N_("Entries of this month are still being written. Try again in a moment."))
        moved = tx.connection().scalar(
            sa.text("SELECT sum(amount) FROM entry WHERE account_id = :account AND id > :after AND id <= :last"),
            {"account": made.account_id, "after": made.before_id, "last": made.last_id},
        )
        if made.opening + int(moved or 0) != made.closing:
            raise Conflict(
                N_("The entries of {user_id} don't add up, so no statement is made. Run: python -m billing_core check"),
                user_id=user_id,
            )
        return made

    return db.read(read)


def compose(tx: Transaction, user_id: str, month: str, tz: ZoneInfo, seal: Seal | None) -> Statement:
    """The statement of what `seal` and those before it close. Raises UnknownAccount, Invalid."""
    start_ns, end_ns = period(month, tz)
    account = find(tx, user_id)
    account_id = account.id or 0
    sealed = seal.last_entry_id if seal else 0
    before = _last_before(tx, account_id, start_ns, sealed)
    last = _last_before(tx, account_id, end_ns, sealed)
    count = tx.connection().scalar(
        sa.text("SELECT count(*) FROM entry WHERE account_id = :account AND id > :after AND id <= :last"),
        {"account": account_id, "after": before, "last": last},
    )
    return Statement(
        user_id=user_id, name=account.name, month=month, timezone=tz.key, start_ns=start_ns, end_ns=end_ns,
        opening=_balance(tx, before), closing=_balance(tx, last), entries=int(count or 0),
        seal_number=seal.number if seal else 0, seal_hash=seal.hash if seal else NOTHING_BEFORE,
        sealed_at_ns=seal.created_at_ns if seal else 0,
        account_id=account_id, before_id=before, last_id=last, names=Names.read(tx),
    )  # fmt: skip


# Goes back from the newest entry by the index entry_of_account, and stops at the first that fits: it reads as many of the
# account's entries as were written since then. No other account's are read, and no entry from before the month.
_LAST_BEFORE = sa.text(
    "SELECT id FROM entry WHERE account_id = :account AND id <= :sealed AND COALESCE(recorded_at_ns, created_at_ns) < :at "
    "ORDER BY id DESC LIMIT 1"
)


def _last_before(tx: Transaction, account_id: int, at_ns: int, sealed: int) -> int:
    """The account's last entry written before a moment, 0 where there is none."""
    return int(tx.connection().scalar(_LAST_BEFORE, {"account": account_id, "at": at_ns, "sealed": sealed}) or 0)


def _balance(tx: Transaction, entry_id: int) -> int:
    return int(tx.connection().scalar(sa.text("SELECT balance_after FROM entry WHERE id = :id"), {"id": entry_id}) or 0)


_ENTRIES = sa.text(
    f"SELECT {COLUMNS} FROM entry WHERE account_id = :account AND id > :after AND id <= :last ORDER BY id LIMIT {BATCH}"
)


SHOWN = (*FIELDS, "extras", "reprices_id")
"""What a statement tells of an entry: its canonical form, without what only admins see."""
_WORDS = ("account", "type", "model", "price", "operator", "remark", "extras")
_COUNTS = [place for place, name in enumerate((*FIELDS, *FURTHER)) if name not in _WORDS]


def shown(canonical: list[Any]) -> list[Any]:
    """An entry in the order of SHOWN, of its canonical form. What a price comes from is for admins, too."""
    entry = [*canonical[: len(SHOWN)], *[None] * (len(SHOWN) - len(canonical))]
    if isinstance(price := entry[_PRICE], list) and len(price) > len(PRICE_FIELDS):
        entry[_PRICE] = price[: len(PRICE_FIELDS)] + (
            [] if price[len(PRICE_FIELDS)] is None else [price[len(PRICE_FIELDS)]]
        )
    return entry


_PRICE = FIELDS.index("price")


class Unreadable(Conflict):
    """SQLite keeps anything in a column of numbers, once somebody has put it there."""

    def __init__(self, entry_id: int):
        self.entry_id = entry_id
        super().__init__(
            N_("Entry {id} can't be read in the ledger: it was changed. Run: python -m billing_core check"), id=entry_id
        )


def entries(db: Database, statement: Statement) -> Iterator[list[Any]]:
    """The entries by id, each in the order of SHOWN, read a batch at a time. Raises
    Unreadable, DatabaseUnavailable."""
    after = statement.before_id

    def read(tx: Transaction) -> list[Any]:
        asked = {"account": statement.account_id, "after": after, "last": statement.last_id}
        return list(tx.connection().execute(_ENTRIES, asked))

    while rows := db.read(read):
        for row in rows:
            if any(type(row[place]) is not int for place in _COUNTS if row[place] is not None):
                raise Unreadable(row.id)
            entry = shown(statement.names.canonical(row))
            if any(type(micro) is not int for micro in (entry[_PRICE] or ())[1:5] if micro is not None):
                raise Unreadable(row.id)
            yield entry
        after = rows[-1].id


def local(ns: int, tz: ZoneInfo) -> str:
    """A moment as a statement shows it, like 2026-10-31 23:59:59."""
    return from_ns(ns, tz).strftime("%Y-%m-%d %H:%M:%S")
