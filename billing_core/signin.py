"""Getting in: passwords, sessions and one-time links for people, keys for programs.

Secrets are random and kept as SHA-256, passwords as argon2. Wrong passwords are counted by name, in the database.
"""

import hashlib
import secrets
from dataclasses import replace

from sqlalchemy import delete, update
from sqlmodel import col, select

from . import accounts, audit
from .actors import SHELL, Actor
from .database import Database, Transaction, is_id
from .errors import Forbidden, Invalid, NotFound, NotSignedIn, TooManyTries
from .i18n import N_
from .models import Account, ApiKey, SignInTries, Token
from .text import one_line

SECOND = 1_000_000_000
SESSION_SECONDS = 30 * 24 * 3600
LIFE_SECONDS = {"session": SESSION_SECONDS, "ticket": 60, "setup": 24 * 3600}
FREE_TRIES = 5
"""Wrong passwords before a wait; from then on it doubles from 1 s up to MAX_WAIT_SECONDS."""
MAX_WAIT_SECONDS = 900
FORGOTTEN_SECONDS = 86_400
"""After so long without a try, wrong passwords are forgotten."""


def _bytes(text: str) -> bytes:
    """Text as it came in; what no UTF-8 can hold (a lone surrogate) is no error either."""
    return text.encode("utf-8", "surrogatepass")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(_bytes(secret)).digest()


def actor_of(
    account: Account, *, may_charge: bool = False, is_admin: bool | None = None, origin: str = "page"
) -> Actor:
    return Actor(
        account.id,
        account.user_id,
        account.name,
        is_admin=account.role == "admin" if is_admin is None else is_admin,
        may_charge=may_charge,
        is_frozen=account.status == "frozen",
        language=account.language,
        timezone=account.timezone,
        origin=origin,
    )


# Passwords


def hash_password(password: str) -> str:
    """Argon2 of a password. Slow on purpose: call it outside a transaction. Raises Invalid."""
    from argon2 import PasswordHasher

    if not 8 <= len(password) <= 200:
        raise Invalid(
            N_("A password has at least 8 characters. A short sentence is easy to remember."), field="password"
        )
    return PasswordHasher().hash(_bytes(password))


def _matches(password_hash: str | None, password: str) -> bool:
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        # Someone unknown takes as long as someone known.
        return PasswordHasher().verify(password_hash or _NOBODY, _bytes(password[:1000])) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"


def check_password(db: Database, user_id: str, password: str) -> Account:
    """The account, where the password is right. Each try counts as a wrong one before it is known to be none, so that many
    at once wait for each other as well. Argon2 runs outside of any transaction.

    Raises NotSignedIn, TooManyTries while the name has to wait, Forbidden where the password is right but the account
    is frozen.
    """
    user_id = user_id.strip()[:100]
    known = user_id.isprintable()  # no account has another id, and Postgres can't be asked for one with a NUL
    account, tries = db.write(_count_try, user_id) if known else (None, 0)
    if not _matches(account.password_hash if account else None, password):
        if tries in _TRIES_NOTED:
            db.write(_note_locked, user_id, tries)
        raise NotSignedIn(N_("The id or the password is wrong."))
    assert account is not None
    db.write(_forget_tries, user_id)
    if account.status == "frozen":
        raise Forbidden(N_("This account is frozen. Ask one of your team's admins."))
    return account


def forget_old_tries(db: Database) -> None:
    """Of ids that nobody has tried for a day; whoever tries ids that there are not would fill the table."""
    long_ago = db.clock() - FORGOTTEN_SECONDS * SECOND
    old = col(SignInTries.retry_at_ns) < long_ago
    if db.read(lambda tx: tx.session.exec(select(SignInTries.user_id).where(old).limit(1)).first()) is not None:
        db.write(lambda tx: tx.connection().execute(delete(SignInTries).where(old)))


def _count_try(tx: Transaction, user_id: str) -> tuple[Account | None, int]:
    """The account, if there is one, and the tries in a row with this one. Raises TooManyTries."""
    tries = tx.session.get(SignInTries, user_id, with_for_update=True)
    # What is further ahead was noted by a clock that was ahead.
    if tries and 0 < tries.retry_at_ns - tx.now_ns <= MAX_WAIT_SECONDS * SECOND:
        raise TooManyTries(
            N_("Too many wrong tries for this id. Try again in {seconds} s."),
            seconds=-((tx.now_ns - tries.retry_at_ns) // SECOND),
        )
    tries = tries or SignInTries(user_id=user_id, failures=0, retry_at_ns=0)
    tries.failures += 1
    wait = min(2 ** (tries.failures - FREE_TRIES), MAX_WAIT_SECONDS) if tries.failures >= FREE_TRIES else 0
    tries.retry_at_ns = tx.now_ns + wait * SECOND
    tx.session.add(tries)
    account = tx.session.exec(select(Account).where(Account.user_id == user_id)).one_or_none()
    if account:
        tx.session.expunge(account)
    return account, tries.failures


_TRIES_NOTED = {FREE_TRIES * 2**times for times in range(40)}
"""Wrong tries in a row that the audit log hears of: ever fewer, so that nobody can fill it."""


def _note_locked(tx: Transaction, user_id: str, tries: int) -> None:
    """An id that no account has isn't noted: it may be a password that was typed into the wrong field."""
    account = tx.session.exec(select(Account).where(Account.user_id == user_id)).one_or_none()
    if account:
        audit.note(tx, replace(SHELL, origin="page"), "session.locked", user_id, tries=tries)


def _forget_tries(tx: Transaction, user_id: str) -> None:
    tx.connection().execute(delete(SignInTries).where(col(SignInTries.user_id) == user_id))


def change_password(
    tx: Transaction, user_id: str, password_hash: str | None, *, actor: Actor, keep_session: str | None = None
) -> None:
    """Give an account a new password (see hash_password) and end its sessions, but for the one that asks. An admin may
    do it for anyone; who changes their own has shown the old one (check_password). Raises Forbidden, UnknownAccount."""
    actor.must_see(user_id)
    account = accounts.find(tx, user_id)
    account.password_hash = password_hash
    tx.session.add(account)
    audit.note(tx, actor, "password.set" if password_hash else "password.remove", user_id)
    sessions = delete(Token).where(col(Token.account_id) == account.id)
    if keep_session:
        sessions = sessions.where(col(Token.hash) != _hash(keep_session))
    tx.connection().execute(sessions)


# Sessions, tickets and the first admin's link


def issue(tx: Transaction, purpose: str, account: Account | None = None) -> str:
    """A new secret for a purpose of LIFE_SECONDS."""
    tx.connection().execute(delete(Token).where(col(Token.expires_at_ns) < tx.now_ns))
    secret = secrets.token_urlsafe(32)
    tx.session.add(
        Token(
            hash=_hash(secret),
            purpose=purpose,
            account_id=account.id if account else None,
            created_at_ns=tx.now_ns,
            expires_at_ns=tx.now_ns + LIFE_SECONDS[purpose] * SECOND,
        )
    )
    return secret


def _token(tx: Transaction, purpose: str, secret: str) -> Token | None:
    token = tx.session.get(Token, _hash(secret)) if secret else None
    return token if token and token.purpose == purpose and token.expires_at_ns > tx.now_ns else None


def trade_ticket(tx: Transaction, ticket: str) -> str | None:
    """A session's secret for a ticket, once."""
    token = _token(tx, "ticket", ticket)
    account = tx.session.get(Account, token.account_id) if token else None
    if token is None or account is None or account.status != "active":
        return None
    gone = tx.connection().execute(delete(Token).where(col(Token.hash) == token.hash))
    tx.session.expunge(token)
    if not gone.rowcount:
        return None
    audit.note(tx, actor_of(account), "session.start", account.user_id)
    return issue(tx, "session", account)


def session_actor(tx: Transaction, session: str | None) -> Actor | None:
    """Who carries this session's secret; None where it is over."""
    token = _token(tx, "session", session or "")
    account = tx.session.get(Account, token.account_id) if token else None
    return actor_of(account, may_charge=account.role == "admin") if account and account.status == "active" else None


def sign_out(tx: Transaction, session: str | None) -> None:
    actor = session_actor(tx, session)
    gone = tx.connection().execute(delete(Token).where(col(Token.hash) == _hash(session or "")))
    if actor and gone.rowcount:
        audit.note(tx, actor, "session.end", actor.user_id)


def setup_link(tx: Transaction) -> str | None:
    """The secret with which the first admin makes their account; None once there is an admin. Earlier ones end."""
    if accounts.acting_admins(tx):
        return None
    tx.connection().execute(delete(Token).where(col(Token.purpose) == "setup"))
    audit.note(tx, SHELL, "setup.link", "")
    return issue(tx, "setup")


def may_set_up(tx: Transaction, secret: str | None) -> bool:
    return _token(tx, "setup", secret or "") is not None


def set_up(tx: Transaction, secret: str, user_id: str, name: str, password_hash: str) -> Account:
    """The first admin, for the setup link's secret, once. Raises NotFound, Invalid."""
    gone = tx.connection().execute(
        delete(Token).where(
            col(Token.hash) == _hash(secret), col(Token.purpose) == "setup", col(Token.expires_at_ns) > tx.now_ns
        )
    )
    if not gone.rowcount or accounts.acting_admins(tx):
        raise NotFound(N_("This link has been used or is too old. Restart the app to get a new one on its console."))
    by_link = replace(SHELL, origin=audit.SETUP_LINK)
    account = accounts.add(tx, user_id, name, actor=by_link, role="admin", password_hash=password_hash)
    audit.note(tx, actor_of(account), "setup.use", account.user_id)
    return account


# Keys


def add_key(tx: Transaction, user_id: str, *, actor: Actor, name: str = "", can: str = "") -> tuple[ApiKey, str]:
    """A key that speaks for an account, and its secret, which is shown only now. `can`: "" reads the account's own,
    "charge" charges any account, "admin" does what an admin may. Raises Forbidden, UnknownAccount, Invalid."""
    actor.must_see(user_id)
    if can:
        actor.must_be_admin()
    if can not in ("", "charge", "admin"):
        raise Invalid(N_("“{can}” is not a right of a key. It is charge or admin."), field="can", can=can)
    account = accounts.find(tx, user_id)
    secret = "bk_" + secrets.token_urlsafe(32)
    key = ApiKey(
        account_id=account.id or 0,
        name=one_line(name[:100], 100, field="name"),
        hash=_hash(secret),
        hint=secret[:8],
        can=can,
        created_at_ns=tx.now_ns,
    )
    tx.session.add(key)
    tx.session.flush()
    audit.note(tx, actor, "key.add", user_id, key=key.hint, can=can, name=key.name)
    return key, secret


def keys(tx: Transaction, user_id: str | None, *, actor: Actor) -> list[tuple[ApiKey, str]]:
    """Keys with their account's user id, those in use first, newest first; of all accounts where `user_id` is None."""
    actor.must_see(user_id)
    query = select(ApiKey, Account.user_id).join(Account)
    if user_id is not None:
        query = query.where(Account.user_id == user_id)
    return list(tx.session.exec(query.order_by(col(ApiKey.revoked_at_ns).is_not(None), col(ApiKey.id).desc())))


def revoke_key(tx: Transaction, key_id: int, *, actor: Actor) -> ApiKey:
    """Raises NotFound, Forbidden."""
    key = tx.session.get(ApiKey, key_id) if is_id(key_id) else None
    if key is None or (key.account_id != actor.account_id and not actor.is_admin):
        raise NotFound(N_("There is no key {key_id}."), key_id=key_id)
    account = tx.session.get(Account, key.account_id)
    accounts.revoke(tx, key, account.user_id if account else "", actor=actor)
    return key


def key_actor(tx: Transaction, secret: str) -> tuple[Actor, ApiKey]:
    """Who a key speaks for: a frozen account's reads, and ends what is held. Raises NotSignedIn."""
    found = tx.session.exec(select(ApiKey, Account).join(Account).where(ApiKey.hash == _hash(secret))).one_or_none()
    if found is None or found[0].revoked_at_ns is not None:
        raise NotSignedIn(N_("The key is unknown or has been revoked. Ask an admin for a new one."))
    key, account = found
    actor = actor_of(account, may_charge=key.can == "charge", is_admin=key.can == "admin", origin=f"key {key.hint}…")
    return actor, key


def touch_key(tx: Transaction, key_id: int) -> None:
    """Note that a key is in use."""
    tx.connection().execute(update(ApiKey).where(col(ApiKey.id) == key_id).values(last_used_at_ns=tx.now_ns))
