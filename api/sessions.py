"""A browser's way in: a page checks the password and makes a ticket; here the ticket is traded for a cookie.

A page cannot set a cookie itself, and a cookie that scripts can't read has to come from the server.
"""

from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from billing_core import signin
from billing_core.database import open_database
from billing_core.errors import BillingError

from .auth import SESSION_COOKIE

START = "/session/start"
END = "/session/end"


def start_url(ticket: str, to: str = "/") -> str:
    """Where a browser goes with its ticket, and on from there."""
    return f"{START}?ticket={quote(ticket, safe='')}&to={quote(to, safe='')}"


def _local(to: str) -> str:
    """A path of this app: never another site, whatever the address says."""
    plain = to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable() and "\\" not in to
    return to if plain else "/"


async def start(request: Request) -> Response:
    """Set the session's cookie for a ticket, once; a ticket that is no good leads to the sign-in form."""
    response = RedirectResponse(_local(request.query_params.get("to", "/")), 303, {"Cache-Control": "no-store"})
    try:
        trade = request.query_params.get("ticket", "")
        session = await run_in_threadpool(lambda: open_database().write(signin.trade_ticket, trade))
    except BillingError:
        session = None  # the page that follows says what is wrong with the database
    if session:
        response.set_cookie(
            SESSION_COOKIE,
            session,
            max_age=signin.SESSION_SECONDS,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
    return response


async def end(request: Request) -> Response:
    """Forget the cookie; the page has ended the session itself."""
    response = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
    response.delete_cookie(SESSION_COOKIE)
    return response


ROUTES = [Route(START, start), Route(END, end)]
