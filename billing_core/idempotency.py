"""What is asked twice with one key happens once.

The key is remembered in the transaction that does the thing, so that a crash leaves both or neither. A refusal leaves
nothing behind: the same key may be tried again.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from .actors import Actor
from .database import Transaction, chunks, marks
from .errors import Conflict, Invalid
from .i18n import N_

_ENCODER = json.JSONEncoder(sort_keys=True, default=str)


class Once(NamedTuple):
    """A caller's key with what is asked: the same key for something else is refused."""

    scope: int
    key: str
    fingerprint: bytes

    @classmethod
    def of(cls, actor: Actor, key: str, *request: Any) -> "Once":
        """`request`: whatever tells this request from another one, as JSON. Raises Invalid."""
        if not (isinstance(key, str) and 1 <= len(key) <= 255 and key.isprintable()):
            raise Invalid(N_("An idempotency key has 1 to 255 printable characters."), field="Idempotency-Key")
        text = _ENCODER.encode(request)
        return cls(actor.scope, key, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16])

    def part(self, number: int) -> "Once":
        """The key of a part of the request that is done by itself; a thing in it may have the request's key as its own."""
        return self._replace(key=f"\x1f{number}\x1f{self.key}")  # no caller's key begins so: it isn't printable


class Earlier(NamedTuple):
    """What was done with a key before."""

    fingerprint: bytes
    entry_id: int | None
    answer: str | None
    """JSON"""


K = TypeVar("K", Earlier, Once)


def earlier(tx: Transaction, once: Once | None) -> Earlier | None:
    """What was done with this key before, or None. Raises Conflict where it was something else."""
    return None if once is None else same(once, all_earlier(tx, [once]).get((once.scope, once.key)))


def all_earlier(tx: Transaction, asked: Iterable[Once]) -> dict[tuple[int, str], Earlier]:
    """What was done with these keys before, by scope and key."""
    return found(tx.ask(*queries(asked)))


def queries(asked: Iterable[Once]) -> list[tuple[str, Sequence[Any]]]:
    """What to ask the database for that."""
    keys: dict[int, list[str]] = {}
    for once in asked:
        keys.setdefault(once.scope, []).append(once.key)
    return [(_query(len(some)), (scope, *some)) for scope, wanted in keys.items() for some in chunks(wanted)]


@lru_cache
def _query(count: int) -> str:
    return (
        f"SELECT scope, key, fingerprint, entry_id, answer FROM idempotency WHERE scope = ? AND key IN ({marks(count)})"
    )


def found(answers: Iterable[Iterable[Sequence[Any]]]) -> dict[tuple[int, str], Earlier]:
    """What it answered."""
    return {
        (scope, key): Earlier(bytes(fingerprint), *rest) for rows in answers for scope, key, fingerprint, *rest in rows
    }


def same(once: Once, known: K | None) -> K | None:
    """`known`, if it was the same request. Raises Conflict."""
    if known is not None and known.fingerprint != once.fingerprint:
        raise Conflict(
            N_("The idempotency key “{key}” was used for another request. Use a new key for a new request."),
            key=once.key.rpartition("\x1f")[2],
        )
    return known


def claim(tx: Transaction, once: Once) -> None:
    """Keep the key for this request, which keeps its answers under keys of its parts. Raises Conflict."""
    if earlier(tx, once) is None:
        remember(tx, once)


def remember(tx: Transaction, once: Once | None, *, entry_id: int | None = None, answer: Any = None) -> None:
    """Keep the answer for the next time."""
    if once is not None:
        remember_all(tx, [(once, entry_id, answer)])


def remember_all(tx: Transaction, done: Iterable[tuple[Once, int | None, Any]]) -> None:
    """Keep what was done with each key: the entry that it wrote, and what the entry doesn't say."""
    tx.many(
        "INSERT INTO idempotency (scope, key, fingerprint, entry_id, answer) VALUES (?, ?, ?, ?, ?)",
        [
            (
                once.scope,
                once.key,
                once.fingerprint,
                entry_id,
                None if answer is None else json.dumps(answer, default=str),
            )
            for once, entry_id, answer in done
        ],
    )
