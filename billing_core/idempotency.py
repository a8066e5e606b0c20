"""What is asked twice with one key happens once.

The key is remembered in the transaction that does the thing, so that a crash leaves both or neither. A refusal leaves
nothing behind: the same key may be tried again.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from .actors import Actor
from .database import Transaction
from .errors import Conflict, Invalid
from .i18n import N_


@dataclass(frozen=True, slots=True)
class Once:
    """A caller's key with what is asked: the same key for something else is refused."""

    scope: int
    key: str
    fingerprint: bytes

    @classmethod
    def of(cls, actor: Actor, key: str, *request: Any, batch: bool = False) -> "Once":
        """`request`: whatever tells this request from another one, as JSON. `batch`: of many things, each of which has a
        key of its own, so that the same key may name both. Raises Invalid."""
        if not (isinstance(key, str) and 1 <= len(key) <= 255 and key.isprintable()):
            raise Invalid(N_("An idempotency key has 1 to 255 printable characters."), field="Idempotency-Key")
        key = f"\x1f{key}" if batch else key  # no caller's key begins so: it isn't printable
        text = json.dumps(request, sort_keys=True, default=str)
        return cls(actor.scope, key, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16])


_EARLIER = text("SELECT fingerprint, entry_id, answer FROM idempotency WHERE scope = :scope AND key = :key")
_REMEMBER = text(
    "INSERT INTO idempotency (scope, key, fingerprint, entry_id, answer) "
    "VALUES (:scope, :key, :fingerprint, :entry_id, :answer)"
)


def earlier(tx: Transaction, once: Once | None) -> Any:
    """The row (`entry_id`, `answer`) of what was done with this key before, or None. Raises Conflict where it was something else."""
    if once is None:
        return None
    row = tx.connection().execute(_EARLIER, {"scope": once.scope, "key": once.key}).first()
    if row is not None and bytes(row.fingerprint) != once.fingerprint:
        raise Conflict(
            N_("The idempotency key “{key}” was used for another request. Use a new key for a new request."),
            key=once.key,
        )
    return row


def remember(tx: Transaction, once: Once | None, *, entry_id: int | None = None, answer: Any = None) -> None:
    """Keep the answer for the next time."""
    if once is not None:
        row = {"scope": once.scope, "key": once.key, "fingerprint": once.fingerprint, "entry_id": entry_id}
        text_answer = None if answer is None else json.dumps(answer, default=str)
        tx.connection().execute(_REMEMBER, {**row, "answer": text_answer})
