"""Who asks, and what they may: a program's key, or for reading the session of somebody signed in to the pages.

Writing takes a key: a browser sends its cookie along with a request that another site made it send.
"""

from contextlib import suppress
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Path, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError

from billing_core import ledger, signin
from billing_core.actors import Actor
from billing_core.database import Database
from billing_core.errors import BillingError, DatabaseUnavailable, NotSignedIn
from billing_core.i18n import N_

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


def database(request: Request) -> Database:
    """The database. Raises DatabaseUnavailable, whatever it is that keeps it from being opened."""
    try:
        return request.app.state.open_db()
    except BillingError as error:
        raise DatabaseUnavailable(error.message, **error.params) from error
    except OSError as error:
        raise DatabaseUnavailable(
            N_("The database file can't be opened. Check that its folder is there and may be written to.")
        ) from error


Db = Annotated[Database, Depends(database)]


def with_key(db: Db, bearer: Bearer, later: BackgroundTasks) -> Actor:
    """Whom the key speaks for; its use is noted after the answer. Raises NotSignedIn."""
    if bearer is None:
        raise NotSignedIn(
            N_("Sign in with the header “Authorization: Bearer KEY”. Keys are made by: python -m billing_core key add.")
        )
    actor, key = db.read(signin.key_actor, bearer.credentials)
    if key.id is not None and db.clock() - (key.last_used_at_ns or 0) >= TOUCH_NS:
        later.add_task(_touch, db, key.id)
    return actor


def _touch(db: Database, key_id: int) -> None:
    with suppress(BillingError, SQLAlchemyError):  # a database that can't be written to can still be read
        db.write(signin.touch_key, key_id)


def reader(db: Db, bearer: Bearer, cookie: Cookie, later: BackgroundTasks) -> Actor:
    """Who reads: with a key, or with a page's cookie."""
    ledger.note_expired(db)
    if bearer is None and cookie:
        actor = db.read(signin.session_actor, cookie)
        if actor is None:
            raise NotSignedIn(N_("The session is over. Sign in on the page again."))
        return actor
    return with_key(db, bearer, later)


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
