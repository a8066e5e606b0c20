"""The door for programs: FastAPI routes, as thin as the pages, over billing_core.

`uvicorn api:app` serves them alone, under PREFIX; the Streamlit app mounts `create_api()` there itself.
"""

from collections.abc import Callable

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

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
