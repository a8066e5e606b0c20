"""The audit log: who did what that is no entry of the ledger, from where and when. It only ever grows.

`note` belongs in the transaction that does the thing, so that both remain or neither. An action is a fixed name like
`price.set`; `sentence` says it in the reader's language.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_
from sqlmodel import col, select

from .actors import Actor
from .database import Database, Transaction
from .errors import Invalid
from .glossary import KINDS, RIGHTS, ROLES, STATUSES
from .i18n import N_, translate
from .models import Account, Audit
from .money import format_price
from .text import words_of

MAX_LIMIT = 1000
SETUP_LINK = "setup link"
"""The origin of what the first admin's link does."""


def note(tx: Transaction, /, actor: Actor, action: str, subject: str, **detail: Any) -> None:
    """Write down that `actor` did `action` to `subject`; `detail` is what changed, [from, to] by field, without secrets."""
    told = json.dumps(detail, ensure_ascii=False, default=str)
    row = Audit(
        at_ns=tx.now_ns, actor_id=actor.account_id, origin=actor.origin, action=action, subject=subject, detail=told
    )
    tx.session.add(row)


@dataclass(frozen=True, slots=True)
class Noted:
    """A row of the audit log."""

    id: int
    at_ns: int
    user_id: str | None
    """Who did it; None: the shell, or nobody yet."""
    name: str | None
    origin: str
    action: str
    subject: str
    detail: dict[str, Any]


def page(
    tx: Transaction,
    *,
    actor: Actor,
    kind: str = "",
    search: str = "",
    before: int | None = None,
    after: int | None = None,
    limit: int = 50,
) -> list[Noted]:
    """The newest `limit` rows, newest first, of one of KINDS or of all. Those older than the row `before`, or those just
    newer than `after`. `search`: words that id, name, subject or detail hold. Raises Forbidden, Invalid."""
    actor.must_be_admin()
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(N_("limit is from 1 to {most}."), field="limit", most=MAX_LIMIT)
    if kind and kind not in KINDS:
        raise Invalid(
            N_("“{kind}” is no kind of the audit log. There are: {kinds}."),
            field="kind", kind=kind, kinds=", ".join(KINDS),
        )  # fmt: skip
    query = select(Audit, Account.user_id, Account.name).join(Account, isouter=True)
    if kind:
        query = query.where(col(Audit.action).startswith(f"{kind}."))
    for word in words_of(search):
        if not word.isprintable():
            return []
        held = (Account.user_id, Account.name, Audit.subject, Audit.detail)
        query = query.where(or_(*(col(field).icontains(word, autoescape=True) for field in held)))
    if after is not None:
        query = query.where(col(Audit.id) > after).order_by(col(Audit.id))
    else:
        query = query.order_by(col(Audit.id).desc())
    if before is not None:
        query = query.where(col(Audit.id) < before)
    rows = [
        Noted(row.id or 0, row.at_ns, user_id, name, row.origin, row.action, row.subject, json.loads(row.detail))
        for row, user_id, name in tx.session.exec(query.limit(limit))
    ]
    return rows[::-1] if after is not None else rows


def every(db: Database, *, actor: Actor, kind: str = "", search: str = "") -> Iterator[Noted]:
    """All rows that the filters let through, newest first, read a page at a time. Raises Forbidden, Invalid."""
    before = None
    while rows := db.read(page, actor=actor, kind=kind, search=search, before=before, limit=MAX_LIMIT):
        yield from rows
        before = rows[-1].id


# In words

_SENTENCES = {
    "price.set": N_("{who} changed the price of {subject}: {changes} 元 per million tokens"),
    "price.retire": N_(
        "{who} retired the price of {subject}, the built-in one counts: {changes} 元 per million tokens"
    ),
    "price.withdraw": N_("{who} withdrew the planned price of {subject}"),
    "price.rule": N_("{who} changed the rule for {subject}: {changes}"),
    "price.rule_end": N_("{who} ended the rule for {subject}: {changes}"),
    "price.change": N_("{who} set prices from {what}, {models} in all (change {subject})"),
    "price.undo_change": N_("{who} undid change {subject} of prices from {what}, {models} in all"),
    "account.add": N_("{who} added the account {subject} ({name}, {role})"),
    "account.change": N_("{who} changed the account {subject}: {changes}"),
    "password.set": N_("{who} set a new password for {subject}"),
    "password.remove": N_("{who} took the password of {subject} away"),
    "key.add": N_("{who} added a key for {subject}: {key}…, {rights}"),
    "key.revoke": N_("{who} revoked a key of {subject}: {key}…, {rights}"),
    "setting.change": N_("{who} changed the setting {subject}: {changes}"),
    "session.start": N_("{who} signed in"),
    "session.end": N_("{who} signed out"),
    "session.locked": N_("{tries} wrong passwords in a row for {subject}: the id has to wait"),
    "reversals.start": N_("{who} began to reverse entries, {entries} in all ({subject}): {reason}"),
    "repricings.start": N_("{who} began to reprice entries, {entries} in all ({subject}): {reason}"),
    "database.backup": N_("{who} backed everything up to {subject} (entries: {entries})"),
    "database.restore": N_("{who} restored the backup {subject} (entries: {entries})"),
    "database.export": N_("{who} exported everything to {subject} (entries: {entries})"),
    "database.import": N_("{who} imported the archive {subject} (entries: {entries})"),
    "setup.link": N_("A link was made for the first admin"),
    "setup.use": N_("{who} became the first admin by the link"),
}
_FROM_THEN = N_("{what}, from {when} on")
_OTHER = N_("{who} did {action} to {subject}")
_FIELDS = {
    "input": N_("input"),
    "output": N_("output"),
    "cache_read": N_("cache read"),
    "cache_write": N_("cache write"),
    "more": N_("further components"),
    "target": "",
    "name": N_("name"),
    "email": N_("email"),
    "role": N_("role"),
    "status": N_("status"),
    "value": "",
}
_WORDS = {"role": ROLES, "status": STATUSES}
ORIGINS = {"page": N_("page"), "shell": N_("shell"), SETUP_LINK: N_("setup link")}


def origin(row: Noted, language: str = "en") -> str:
    """From where it was done."""
    if row.origin.startswith("key "):
        return translate(N_("key {hint}"), language, hint=row.origin.removeprefix("key "))
    return translate(ORIGINS.get(row.origin, row.origin), language)


def who(row: Noted, language: str = "en") -> str:
    """Who did it, by name."""
    if row.name is not None:
        return row.name
    return translate(N_("The shell") if row.origin == "shell" else N_("Somebody"), language)


def sentence(
    row: Noted, language: str = "en", *, when: Callable[[int], str] = str, plain: Callable[[str], str] = str
) -> str:
    """What was done, in `language`. `when` writes a moment (ns since the epoch), `plain` what people wrote."""
    detail = {name: value for name, value in row.detail.items() if name not in ("who", "subject", "action", "changes")}
    words = {name: plain(_word(name, value, language)) for name, value in detail.items()}
    words |= {"who": plain(who(row, language)), "subject": plain(row.subject), "action": row.action}
    words["changes"] = translate(N_(", "), language).join(_changes(row, language, plain))
    words["rights"] = translate(RIGHTS.get(str(detail.get("can", "")), ""), language)
    try:
        what = translate(_SENTENCES.get(row.action, _OTHER), language, **words)
    except KeyError:  # a row of another version
        what = translate(_OTHER, language, **words)
    if "valid_from_ns" in detail:
        what = translate(_FROM_THEN, language, what=what, when=plain(when(int(detail["valid_from_ns"]))))
    return what


def _word(field: str, value: object, language: str) -> str:
    words = _WORDS.get(field, {})
    return translate(words[value], language) if isinstance(value, str) and value in words else str(value)


def _changes(row: Noted, language: str, plain: Callable[[str], str]) -> Iterator[str]:
    """“input 18 → 20” for every field that changed."""
    pairs = {name: pair for name, pair in row.detail.items() if isinstance(pair, list) and len(pair) == 2}
    prices = row.action in ("price.set", "price.retire")
    for name, pair in pairs.items():
        if prices and name.startswith("cache") and (pair[0] == pair[1] or pair == pairs.get("input")):
            continue
        before, after = (
            format_price(each) if prices and isinstance(each, int) else plain(_word(name, each or "", language))
            for each in pair
        )
        told = after if before == after else f"{before or '–'} → {after or '–'}"
        yield f"{translate(_FIELDS.get(name, name), language)} {told}".strip()
