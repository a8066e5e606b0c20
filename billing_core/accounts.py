"""Who there is: accounts, their roles and status."""

import re
from typing import NamedTuple

from sqlalchemy import delete, func, or_
from sqlmodel import col, select

from . import audit
from .actors import SHELL_ID, Actor
from .database import Transaction
from .errors import Conflict, Invalid, UnknownAccount
from .i18n import LANGUAGES, N_
from .models import Account, ApiKey, Token
from .money import Hao
from .text import words_of
from .zones import zone

_USER_ID = re.compile(r"[^\s/?#%]{1,64}")
_CHANGED = ("name", "email", "role", "status")
"""What the audit log keeps of a change."""


def find(tx: Transaction, user_id: str) -> Account:
    """The account. Raises UnknownAccount."""
    known = user_id.isprintable()  # what can't be an id isn't asked for: Postgres takes no NUL, UTF-8 no lone surrogate
    account = tx.session.exec(select(Account).where(Account.user_id == user_id)).one_or_none() if known else None
    if account is None:
        raise UnknownAccount(user_id)
    return account


def number(tx: Transaction, user_id: str) -> int:
    """The account's number, by which all else names it. Raises UnknownAccount."""
    rows = tx.rows("SELECT id FROM account WHERE user_id = ?", (user_id,)) if user_id.isprintable() else []
    if not rows:
        raise UnknownAccount(user_id)
    return int(rows[0][0])


def add(
    tx: Transaction,
    user_id: str,
    name: str,
    *,
    actor: Actor,
    email: str = "",
    role: str = "member",
    password_hash: str | None = None,
) -> Account:
    """A new account with a balance of 0. Raises Invalid, Conflict, Forbidden."""
    actor.must_be_admin()
    user_id = user_id.strip()
    if not _USER_ID.fullmatch(user_id) or not user_id.isprintable() or user_id in (SHELL_ID, ".", ".."):
        raise Invalid(
            N_("“{user_id}” can't be an id. Use 1 to 64 letters, digits and signs like - _ . @, without spaces or /."),
            field="user_id",
            user_id=user_id,
        )
    if tx.session.exec(select(Account).where(Account.user_id == user_id)).first():
        raise Conflict(N_("There is an account {user_id} already. Choose another id."), user_id=user_id)
    account = Account(
        user_id=user_id,
        name=_name(name),
        email=_email(email),
        role=_role(role),
        password_hash=password_hash,
        created_at_ns=tx.now_ns,
    )
    tx.session.add(account)
    tx.session.flush()
    audit.note(tx, actor, "account.add", user_id, name=account.name, email=account.email, role=account.role)
    if password_hash:
        audit.note(tx, actor, "password.set", user_id)
    return account


def change(
    tx: Transaction,
    user_id: str,
    *,
    actor: Actor,
    name: str | None = None,
    email: str | None = None,
    role: str | None = None,
    status: str | None = None,
) -> Account:
    """Change what is given. Freezing ends the account's sessions, and losing the role of admin its keys that may do
    an admin's work. Raises UnknownAccount, Invalid, Conflict, Forbidden."""
    actor.must_be_admin()
    if role is not None or status is not None:
        _lock_admins(tx)
    account = find(tx, user_id)
    before = {field: getattr(account, field) for field in _CHANGED}
    if name is not None:
        account.name = _name(name)
    if email is not None:
        account.email = _email(email)
    was_admin, was_acting_admin = account.role == "admin", (account.role, account.status) == ("admin", "active")
    if role is not None:
        account.role = _role(role)
    if status is not None:
        if status not in ("active", "frozen"):
            raise Invalid(N_("“{status}” is not a status. It is active or frozen."), field="status", status=status)
        account.status = status
    tx.session.add(account)
    tx.session.flush()
    if was_acting_admin and (account.role, account.status) != ("admin", "active") and not acting_admins(tx):
        raise Conflict(N_("{user_id} is the only admin left. Make somebody else an admin first."), user_id=user_id)
    changed = {field: [was, getattr(account, field)] for field, was in before.items() if was != getattr(account, field)}
    if changed:
        audit.note(tx, actor, "account.change", user_id, **changed)
    if was_admin and account.role != "admin":
        for key in tx.session.exec(select(ApiKey).where(ApiKey.account_id == account.id, ApiKey.can == "admin")):
            revoke(tx, key, user_id, actor=actor)
    if status == "frozen":
        end_sessions(tx, account)
    return account


def choose(tx: Transaction, *, actor: Actor, language: str | None, timezone: str | None) -> Account:
    """Set the actor's own language and time zone; None follows the browser. Raises Invalid."""
    account = find(tx, actor.user_id)
    if language is not None and language not in LANGUAGES:
        raise Invalid(N_("“{language}” is not a language of this app."), field="language", language=language)
    zone(timezone)
    account.language, account.timezone = language, timezone
    tx.session.add(account)
    return account


def revoke(tx: Transaction, key: ApiKey, user_id: str, *, actor: Actor) -> None:
    """End a key of the account `user_id`, where it hasn't been."""
    if key.revoked_at_ns is None:
        key.revoked_at_ns = tx.now_ns
        tx.session.add(key)
        audit.note(tx, actor, "key.revoke", user_id, key=key.hint, can=key.can, name=key.name)


def end_sessions(tx: Transaction, account: Account) -> None:
    tx.connection().execute(delete(Token).where(col(Token.account_id) == account.id))


def _lock_admins(tx: Transaction) -> None:
    """Let changes of admins wait for each other: two that go at once would each count the other as the one who stays."""
    tx.session.exec(
        select(Account.id).where(Account.role == "admin").order_by(col(Account.id)).with_for_update(key_share=True)
    ).all()


def acting_admins(tx: Transaction) -> int:
    """How many admins there are that are not frozen."""
    wanted = select(func.count()).select_from(Account).where(Account.role == "admin", Account.status == "active")
    return tx.session.exec(wanted).one()


def listed(tx: Transaction, *, actor: Actor, search: str = "") -> list[Account]:
    """All accounts, by name; with `search`, those whose id, name or email holds it. Raises Forbidden."""
    actor.must_be_admin()
    query = select(Account).order_by(func.lower(Account.name), Account.user_id)
    for word in words_of(search):
        if not word.isprintable():
            return []
        query = query.where(
            or_(
                *(
                    col(field).icontains(word, autoescape=True)
                    for field in (Account.user_id, Account.name, Account.email)
                )
            )
        )
    return list(tx.session.exec(query))


class Known(NamedTuple):
    """What a list of all accounts shows of each, as Account has it: thousands are read in a tenth of the time."""

    id: int
    user_id: str
    name: str
    role: str
    status: str
    balance: Hao
    total_consumed: Hao


def known(tx: Transaction, *, actor: Actor) -> list[Known]:
    """All accounts, by name. Raises Forbidden."""
    actor.must_be_admin()
    rows = tx.rows(f"SELECT {', '.join(Known._fields)} FROM account")
    return sorted(map(Known._make, rows), key=lambda one: (one.name.lower(), one.user_id))


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise Invalid(N_("A name has 1 to 100 characters."), field="name")
    return name


def _email(email: str) -> str:
    email = email.strip()
    if email and (len(email) > 254 or not email.isprintable() or not re.fullmatch(r"[^@\s]+@[^@\s]+", email)):
        raise Invalid(N_("“{email}” is not an email address."), field="email", email=email)
    return email


def _role(role: str) -> str:
    if role not in ("member", "admin"):
        raise Invalid(N_("“{role}” is not a role. It is member or admin."), field="role", role=role)
    return role
