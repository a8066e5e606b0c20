"""Does the ledger add up? Every invariant, recomputed from the entries.

    findings = check(db)        # empty where everything holds; findings.entries says how many were looked at

It reads one consistent state while others write, and names the first row that breaks each rule, with a count of the others.
Entries are walked once, in the ledger's order, with each account's running sum and each seal's hash; a large ledger is
walked in parts at once, by a process each, that see the same state. What joins or sorts is left to the database, in a
second pass beside it, so that memory stays bounded.
"""

import secrets
import sqlite3
from collections.abc import Callable

import sqlalchemy as sa

from ..database import Database, Transaction
from ..i18n import N_
from . import parts
from .findings import Finding, Findings, Last, Progress, last, remember
from .held import kept_fingerprint as held_fingerprint
from .held import newest, stretches_held
from .rules import APPEND_ONLY, VERSIONED, accounts, file, seals_in_place, single_rules
from .used import busy_accounts, kept_fingerprint, usage_sums
from .walk import Part, walk

__all__ = ["APPEND_ONLY", "VERSIONED", "Finding", "Findings", "Last", "check", "check_within", "last", "remember"]


def check(
    db: Database, progress: Progress | None = None, also: Callable[[Transaction], None] | None = None
) -> Findings:
    """Look at every row of the ledger. `progress(entries so far, about how many)` is called as it goes, and `also` before
    it, in a transaction that sees the state that is checked.

    Raises DatabaseUnavailable.
    """
    return db.read(_snapshot, db.url, progress or (lambda _done, _all: None), also)


def check_within(tx: Transaction) -> Findings:
    """The same inside of a transaction that nobody writes beside: what it has written itself is looked at as well."""
    return _check(tx, None, lambda _done, _all: None)


def _snapshot(
    tx: Transaction, url: str, progress: Progress, also: Callable[[Transaction], None] | None = None
) -> Findings:
    if also is not None:
        also(tx)
    return _check(tx, url, progress)


def _check(tx: Transaction, url: str | None, progress: Progress) -> Findings:
    """With a `url`, in parts where that helps: other processes see only what is committed."""
    found = Findings()
    try:
        _look(tx, url, progress, found)
    except (sqlite3.OperationalError, sa.exc.OperationalError) as error:
        if "decode" not in str(error):
            raise
        said = str(getattr(error, "orig", error))
        found.note(
            "database",
            None,
            N_("The database holds text that is none, so that the rest can't be read: {said}"),
            said=said,
        )
    return found


def _look(tx: Transaction, url: str | None, progress: Progress, found: Findings) -> None:
    total = int(tx.connection().scalar(sa.text("SELECT max(id) FROM entry")) or 0)
    salt, busy, noted = secrets.randbits(61), busy_accounts(tx), newest(tx)
    if url and total >= parts.IN_PARTS_FROM:
        walked, kept = parts.walk_in_parts(tx, found, url, total, salt, busy, noted, progress)
    else:
        known = seals_in_place(tx)
        walked = walk(tx, Part(0, None, known, salt, busy, noted), lambda done: progress(done, total))
        file(tx, found)
        single_rules(tx, found)
        kept = kept_fingerprint(tx, salt, busy)
    sums_differ = kept is None or walked.used != kept
    if sums_differ:
        usage_sums(tx, found)
    if walked.held != held_fingerprint(tx, salt):
        stretches_held(tx, found)
    found.entries = walked.entries
    for finding in walked.findings:
        found.add(finding)
    accounts(tx, found, walked.sums)
    if sums_differ and not found:  # text in a column of numbers is 0 to SQLite
        found.note("usage_sum", None, N_("The sums of usage hold something that can't be in its place."))
    progress(found.entries, found.entries)
