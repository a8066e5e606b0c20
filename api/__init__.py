"""The door for programs: FastAPI routes, as thin as the pages, over billing_core.

`uvicorn api:app` serves them alone, under PREFIX; the Streamlit app has `Door` in front of it.
"""

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from billing_core import keeper
from billing_core.database import Database, open_database

from . import errors, exports, health, openapi, prices, repricing, routes, statements, undoing

PREFIX = "/api/v1/billing"


def create_api(open_db: Callable[[], Database] = open_database) -> FastAPI:
    """The routes, relative to PREFIX. `open_db` is asked at every request: it keeps what it has opened."""
    api = FastAPI(
        title="Billing",
        version="1",
        description=openapi.ABOUT,
        servers=[{"url": PREFIX}],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=errors.HANDLERS,
        generate_unique_id_function=lambda route: route.name,
    )
    api.state.open_db = open_db
    api.include_router(routes.router)
    api.include_router(prices.router)
    api.include_router(exports.router)
    api.include_router(statements.router)
    api.include_router(health.router)
    api.include_router(undoing.router)
    api.include_router(repricing.router)
    openapi.complete(api)
    return api


SUPERVISION = ("/health", "/ready")
"""Answered at the root of the port as well, where supervisors look."""


@asynccontextmanager
async def _alone(_app: Starlette) -> AsyncIterator[None]:
    """Without the Streamlit app in front, this server does what the app does by itself."""
    # A batch makes many objects and no rubbish, so it is looked for less often, and not among what the start has made.
    gc.set_threshold(10_000, 20, 20)
    gc.collect()
    gc.freeze()
    ended = keeper.start(open_database)
    yield
    ended.set()


_api = create_api()
app = Starlette(
    routes=[Mount(PREFIX, _api), *(Route(path, _api) for path in SUPERVISION)],
    exception_handlers=errors.HANDLERS,
    lifespan=_alone,
)
app.router.redirect_slashes = False


class Door:
    """ASGI middleware: what is under PREFIX or for supervisors goes to the API, all else to the app behind. Streamlit's
    own middleware would refuse model ids such as a/../b, in words of its own."""

    def __init__(self, behind: ASGIApp):
        self.behind = behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        ours = scope["type"] == "http" and (path in SUPERVISION or f"{path}/".startswith(f"{PREFIX}/"))
        await (app if ours else self.behind)(scope, receive, send)
