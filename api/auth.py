"""Who asks, and what they may: a program's key, or for reading the session of somebody signed in to the pages.

Writing takes a key: a browser sends its cookie along with a request that another site made it send.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Path, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from billing_core import ledger, signin
from billing_core.actors import Actor
from billing_core.database import Database, Transaction
from billing_core.errors import BillingError, DatabaseUnavailable, NotSignedIn
from billing_core.i18n import N_
from billing_core.models import ApiKey

from .together import Together

SESSION_COOKIE = "billing_session"
TOUCH_NS = 60 * 10**9
"""How often at most a key's last use is written down."""

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="A key: `Authorization: Bearer KEY`.")
_cookie = APIKeyCookie(
    name=SESSION_COOKIE,
    auto_error=False,
    scheme_name="session",
    description="The session of somebody signed in to the pages. For reading only.",
)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
Cookie = Annotated[str | None, Depends(_cookie)]


def _open(open_db: Callable[[], Database], asked: Sequence[None]) -> list[Database]:
    try:
        return [open_db()] * len(asked)
    except BillingError as error:
        raise DatabaseUnavailable(error.message, **error.params) from error
    except OSError as error:
        raise DatabaseUnavailable(
            N_("The database file can't be opened. Check that its folder is there and may be written to.")
        ) from error


_opened = Together(_open)


async def database(request: Request) -> Database:
    """The database. Raises DatabaseUnavailable, whatever it is that keeps it from being opened."""
    return await _opened(request.app.state.open_db, None)


Db = Annotated[Database, Depends(database)]


def _look_up(db: Database, secrets: Sequence[str]) -> list[tuple[Actor, ApiKey] | BillingError]:
    def look(tx: Transaction, secret: str) -> tuple[Actor, ApiKey] | BillingError:
        try:
            return signin.key_actor(tx, secret)
        except BillingError as error:
            return error

    found = db.read(lambda tx: {secret: look(tx, secret) for secret in set(secrets)})
    return [found[secret] for secret in secrets]


def _touch(db: Database, key_ids: Sequence[int]) -> Sequence[None]:
    def touch(tx: Transaction) -> None:
        for key_id in sorted(set(key_ids)):
            signin.touch_key(tx, key_id)

    db.write(touch)
    return [None] * len(key_ids)


_looked_up = Together(_look_up, at_once=4)  # one that a connection to Postgres leaves waiting holds up no other
_touched = Together(_touch)


async def with_key(db: Db, bearer: Bearer, later: BackgroundTasks) -> Actor:
    """Whom the key speaks for; its use is noted after the answer. Raises NotSignedIn."""
    if bearer is None:
        raise NotSignedIn(
            N_("Sign in with the header “Authorization: Bearer KEY”. Keys are made by: python -m billing_core key add.")
        )
    actor, key = await _looked_up(db, bearer.credentials)
    if key.id is not None and db.clock() - (key.last_used_at_ns or 0) >= TOUCH_NS:
        later.add_task(_note_use, db, key.id)
    return actor


async def _note_use(db: Database, key_id: int) -> None:
    with suppress(BillingError, SQLAlchemyError):  # a database that can't be written to can still be read
        await _touched(db, key_id)


async def reader(db: Db, bearer: Bearer, cookie: Cookie, later: BackgroundTasks) -> Actor:
    """Who reads: with a key, or with a page's cookie."""
    await run_in_threadpool(ledger.note_expired, db)
    if bearer is None and cookie:
        actor = await run_in_threadpool(db.read, signin.session_actor, cookie)
        if actor is None:
            raise NotSignedIn(N_("The session is over. Sign in on the page again."))
        return actor
    return await with_key(db, bearer, later)


Reader = Annotated[Actor, Depends(reader)]


# Those that ask nothing of the database are async: FastAPI sends every other one to a thread.


async def reading_admin(actor: Reader) -> Actor:
    actor.must_be_admin()
    return actor


async def admin(actor: Annotated[Actor, Depends(with_key)]) -> Actor:
    actor.must_be_admin()
    return actor


async def charger(actor: Annotated[Actor, Depends(with_key)]) -> Actor:
    actor.must_charge()
    return actor


async def hold_ender(actor: Annotated[Actor, Depends(with_key)]) -> Actor:
    actor.must_end_holds()
    return actor


UserId = Annotated[str, Path(description="An account's id.")]


async def viewer(user_id: UserId, actor: Reader) -> Actor:
    """Who may see the account that the address names."""
    actor.must_see(user_id)
    return actor


Admin = Annotated[Actor, Depends(admin)]
AdminReader = Annotated[Actor, Depends(reading_admin)]
Viewer = Annotated[Actor, Depends(viewer)]
Charger = Annotated[Actor, Depends(charger)]
HoldEnder = Annotated[Actor, Depends(hold_ender)]
