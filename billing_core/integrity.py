"""What shows an admin that the ledger is right: the last check, the newest seal, the last backup, and a seal that was kept."""

import re
from dataclasses import dataclass

import sqlalchemy as sa

from . import check, keeping, seals, undoing
from .actors import Actor
from .database import Transaction
from .errors import Invalid
from .i18n import N_
from .models import Seal


@dataclass(frozen=True, slots=True)
class State:
    """How the proof stands."""

    last_check: check.Last | None
    newest: Seal | None
    unsealed: int
    """How many entries come after the newest seal."""
    last_backup: keeping.Backup | None
    unfinished: int
    """Jobs of reversals with something left to do."""


def state(tx: Transaction, *, actor: Actor) -> State:
    """Raises Forbidden."""
    actor.must_be_admin()
    newest = seals.newest(tx)
    after = {"after": newest.last_entry_id if newest else 0}
    unsealed = tx.connection().scalar(sa.text("SELECT count(*) FROM entry WHERE id > :after"), after)
    return State(
        check.last(tx), newest, int(unsealed or 0), keeping.last_backup(tx), len(undoing.unfinished(tx, actor=actor))
    )


def compare(tx: Transaction, number: str, hash: str, *, actor: Actor) -> str:
    """How the database's seal `number` stands to one that was kept elsewhere: `same`; `differs`: what it closed has been
    changed; `missing`: there is none, so the newest entries are gone. Raises Invalid, Forbidden."""
    actor.must_be_admin()
    number, hash = number.strip(), "".join(hash.split()).lower()
    if not (number.isascii() and number.isdigit() and len(number) < 19 and int(number) > 0):
        raise Invalid(N_("A seal's number is a whole number from 1 on, as it stands beside the hash."), field="number")
    if not re.fullmatch(r"[0-9a-f]{64}", hash):
        raise Invalid(N_("A seal's hash has 64 characters, 0 to 9 and a to f. Copy all of it."), field="hash")
    found = tx.session.get(Seal, int(number))
    if found is None:
        return "missing"
    return "same" if found.hash == hash else "differs"
