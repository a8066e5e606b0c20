"""The door for programs: FastAPI routes, as thin as the pages, over billing_core.

`uvicorn api:app` serves them alone, under PREFIX; the Streamlit app has `Door` in front of it.
"""

from collections.abc import Callable

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from billing_core.database import Database, open_database

from . import errors, exports, openapi, routes

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
    api.include_router(exports.router)
    openapi.complete(api)
    return api


app = Starlette(routes=[Mount(PREFIX, create_api())], exception_handlers=errors.HANDLERS)
app.router.redirect_slashes = False


class Door:
    """ASGI middleware: what is under PREFIX goes to the API, all else to the app behind. Streamlit's own middleware would
    refuse model ids such as a/../b, in words of its own."""

    def __init__(self, behind: ASGIApp):
        self.behind = behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and (scope["path"] + "/").startswith(PREFIX + "/")
        await (app if ours else self.behind)(scope, receive, send)
