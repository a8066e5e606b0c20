"""Whether the ledger still says what a statement says."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa

from .. import seals
from ..actors import Actor
from ..database import Database, Transaction
from ..errors import BillingError, Forbidden
from ..i18n import N_, ntranslate, translate
from ..models import Seal
from ..money import format_yuan
from ..seals import NOTHING_BEFORE
from ..zones import zone
from .content import SHOWN, Statement, Unreadable, compose, entries
from .reading import Claimed, read, written
from .writing import HTML_END, csv_table, csv_top, facts, head, html_page, html_rows


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a statement: without a `difference`, the ledger still says the same."""

    statement: Statement
    """What the ledger says now."""
    difference: BillingError | None = None
    """The first one, as a sentence."""
    entry_id: int | None = None
    """The entry that it is about."""

    def sentence(self, language: str = "en") -> str:
        if self.difference:
            return self.difference.sentence(language)
        n = self.statement.entries
        return ntranslate(
            "The ledger still says the same: {n} entry of {user_id} in {month}, under seal {number} and those before it.",
            "The ledger still says the same: {n} entries of {user_id} in {month}, under seal {number} and those before it.",
            n, language, n=f"{n:,}", user_id=self.statement.user_id, month=self.statement.month,
            number=self.statement.seal_number,
        )  # fmt: skip


class _Differs(Exception):
    def __init__(self, message: str, entry_id: int | None = None, **params: object):
        self.error = BillingError(message, **params)
        self.entry_id = entry_id
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class _Word:
    """A parameter that is translated as well."""

    message: str

    def sentence(self, language: str) -> str:
        return translate(self.message, language)


_FIELDS = {
    "account": N_("the account"), "type": N_("the type"), "amount": N_("the amount"),
    "balance_after": N_("the balance after it"), "cost": N_("the cost"), "model": N_("the model"), "price": N_("the price"),
    "operator": N_("who did it"), "remark": N_("the remark"), "created_at_ns": N_("the time"),
    "recorded_at_ns": N_("the time at which it was written"), "extras": N_("what else it used"),
}  # fmt: skip
_MONEY = ("amount", "balance_after", "cost")


def verify(db: Database, file: bytes, *, actor: Actor) -> Verdict:
    """Compare a statement's file, HTML or CSV, with the ledger: every entry, both balances, the seal's hash, and that the
    seals over the entries fit them. Raises Invalid (no statement, or damaged), Forbidden, UnknownAccount,
    DatabaseUnavailable."""
    claimed = read(file)
    user_id = claimed.head["user_id"]
    if user_id != actor.user_id and not actor.is_admin:
        raise Forbidden(N_("The statement is somebody else's. Only its member and admins may verify it."))
    actor.must_see(user_id)

    def again(tx: Transaction) -> tuple[Statement, Seal | None]:
        seal = tx.session.get(Seal, claimed.head["seal_number"])
        tz = zone(claimed.head["timezone"])
        return compose(tx, user_id, claimed.head["month"], tz, seal), seal

    now, seal = db.read(again)
    now = replace(now, name=claimed.head["name"])  # may change, and is no part of the ledger
    try:
        if seal is None and claimed.head["seal_number"]:
            raise _Differs(
                N_(
                    "The ledger has no seal {number}, which the statement names: it was put back to an older state, or "
                    "another database was opened."
                ),
                number=claimed.head["seal_number"],
            )
        _compare(db, claimed, now)
    except _Differs as found:
        return Verdict(now, found.error, found.entry_id)
    except Unreadable as error:
        return Verdict(now, error, error.entry_id)
    return Verdict(now)


def _compare(db: Database, claimed: Claimed, now: Statement) -> None:
    """Raises _Differs at the first difference."""
    said = claimed.head
    ids: list[int] = []

    def noted() -> Iterator[list[Any]]:
        for entry in entries(db, now):
            ids.append(entry[0])
            yield entry

    opening = N_("The opening balance is {there} 元 in the statement and {here} 元 in the ledger.")
    closing = N_("The closing balance is {there} 元 in the statement and {here} 元 in the ledger.")
    _balance(opening, said["opening_balance_hao"], now.opening)
    if claimed.rows is None:
        _shown(claimed.shown, ((entry, written(row)) for entry, row in csv_table(now, noted())))
        top = [cell for name, value in csv_top(now) for cell in (name, *written([value]))]
    else:
        _entries(claimed.rows, noted())
        top = [text for _label, text in facts(now, claimed.language or "en")]
    _balance(closing, said["closing_balance_hao"], now.closing)
    if said["seal_hash"] != now.seal_hash:
        raise _Differs(
            N_("Seal {number} has another hash in the statement ({there}) than in the ledger ({here})."),
            number=now.seal_number, there=said["seal_hash"][:64], here=now.seal_hash,
        )  # fmt: skip
    pairs = [(said[name], value) for name, value in head(now).items()] + list(zip_longest(claimed.top, top))
    for there, here in pairs:
        if there != here or isinstance(there, bool):
            raise _Differs(_OTHER, there=_short(there), here=_short(here))
    if claimed.page is not None:
        language = claimed.language or "en"
        page = "".join((*html_page(now, entries(db, now), language), HTML_END))
        if claimed.page != page:
            _shown(claimed.shown, html_rows(now, entries(db, now), language))
            _page(claimed.page, page)
    db.read(_sealed, now, ids)


_OTHER = N_("The statement says “{there}” where the ledger has “{here}”.")


def _balance(message: str, there: int, here: int) -> None:
    if there != here:
        raise _Differs(message, there=format_yuan(there, decimals=4), here=format_yuan(here, decimals=4))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _entries(there: list[list[Any]], here: Iterable[list[Any]]) -> None:
    """The entries of the statement's JSON and those of the ledger."""
    for claimed, found in zip_longest(there, here):
        _one_each(claimed[0] if claimed else None, found[0] if found else None)
        for name, said, is_ in zip(SHOWN, claimed, found, strict=True):
            if said != is_ or isinstance(said, bool):
                shown = [_value(name, each) for each in (said, is_)]
                raise _Differs(
                    N_("Entry {id} differs: {field} is {there} in the statement and {here} in the ledger."), found[0],
                    id=found[0], field=_Word(_FIELDS.get(name, name)), there=shown[0], here=shown[1],
                )  # fmt: skip


def _value(name: str, value: object) -> str:
    if name in _MONEY and type(value) is int:
        return f"{format_yuan(value, decimals=4)} 元"
    return "–" if value is None else _short(value)


def _one_each(there: int | None, here: int | None) -> None:
    """Whether both have this entry."""
    if there is not None and (here is None or there < here):
        raise _Differs(
            N_("Entry {id} is in the statement, but the ledger has no such entry of this account in this month."), there,
            id=there,
        )  # fmt: skip
    if here is not None and there != here:
        raise _Differs(N_("Entry {id} is in the ledger, but not in the statement."), here, id=here)


def _shown(there: list[list[str]], here: Iterable[tuple[list[Any] | None, list[str]]]) -> None:
    """What people see in the statement, and what it would be by the ledger."""
    for claimed, row in zip_longest(there, here):
        entry, cells = row or (None, [])
        if claimed is not None and row is not None and claimed == cells:
            continue
        number = _number(claimed)
        if entry is not None and (number is None or number > entry[0]):
            _one_each(None, entry[0])
        if number is not None and (entry is None or number < entry[0]) and len(claimed or ()) > 2:
            _one_each(number, None)
        pairs = [pair for pair in zip_longest(claimed or [], cells, fillvalue="") if pair[0] != pair[1]] or [("", "")]
        said, is_ = (_short(each) or "–" for each in pairs[0])
        if entry is None:
            raise _Differs(_OTHER, there=said, here=is_)
        raise _Differs(
            N_("Entry {id} differs: the statement says “{there}” where the ledger has “{here}”."), entry[0],
            id=entry[0], there=said, here=is_,
        )  # fmt: skip


def _page(there: str, here: str) -> None:
    """Where a page is not as it was written: a heading, a note, or how it looks."""
    same = next((place for place, (one, two) in enumerate(zip(there, here, strict=False)) if one != two), len(here))
    begin = max(there.rfind("\n", 0, same), there.rfind(">", 0, same)) + 1
    said, is_ = (_short(text[begin:].lstrip().partition("\n")[0]) for text in (there, here))
    raise _Differs(
        N_("The file was changed beside its entries: it has “{there}” where “{here}” was written."),
        there=said,
        here=is_,
    )


def _number(row: list[str] | None) -> int | None:
    """The entry that a row seems to be about."""
    first = row[0] if row else ""
    return int(first) if first.isascii() and first.isdigit() and len(first) < 19 else None


# Seals


_CHAIN = sa.text(
    "SELECT number, last_entry_id, entries, hash, created_at_ns FROM seal WHERE number <= :up_to AND number >= "
    "(SELECT min(number) FROM seal WHERE last_entry_id >= :entry) - 1 ORDER BY number"
)
_STRETCH = sa.text(f"SELECT {seals.COLUMNS} FROM entry WHERE id > :after AND id <= :last ORDER BY id")


def _sealed(tx: Transaction, now: Statement, ids: list[int]) -> None:
    """Compute the hashes of the seals over these entries again, each from the one before it."""
    if not ids:
        return
    asked = {"up_to": now.seal_number, "entry": ids[0]}
    chain = [Seal(**row._mapping) for row in tx.connection().execute(_CHAIN, asked)]
    before = {0: Seal(number=0, last_entry_id=0, entries=0, hash=NOTHING_BEFORE, created_at_ns=0)}
    before |= {seal.number: seal for seal in chain}
    ends = [seal.last_entry_id for seal in chain]
    over = {bisect_left(ends, entry_id) for entry_id in ids}
    for place in sorted(over):
        if place == len(chain) or (previous := before.get(chain[place].number - 1)) is None:
            raise _Differs(N_("A seal over the entries is missing in the ledger. Run: python -m billing_core check"))
        seal = chain[place]
        rows = tx.connection().execute(_STRETCH, {"after": previous.last_entry_id, "last": seal.last_entry_id}).all()
        if len(rows) != seal.entries or seals.hash_of(previous.hash, map(now.names.canonical, rows)) != seal.hash:
            raise _Differs(
                N_(
                    "Seal {number} over the entries doesn't fit the ledger any more: one of the entries {first} to "
                    "{last} was changed. Run: python -m billing_core check"
                ),
                number=seal.number, first=previous.last_entry_id + 1, last=seal.last_entry_id,
            )  # fmt: skip
