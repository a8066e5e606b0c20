"""For a supervisor: is the process alive, and can it serve? Without a key, and outside of the API's prefix as well."""

import shutil

from fastapi import APIRouter

from billing_core import database, place
from billing_core.errors import DatabaseUnavailable
from billing_core.i18n import N_

from . import schemas
from .auth import Db
from .errors import Route
from .openapi import refusals

LEAST_FREE = 64 * 1024 * 1024
"""Bytes that have to be left on the disk of a SQLite file."""

router = APIRouter(route_class=Route)


@router.get("/health", response_model=schemas.Health, responses=refusals())
async def health() -> dict[str, str]:
    """The process answers. It asks nothing of the database."""
    return {"status": "ok"}


@router.get("/ready", response_model=schemas.Ready, responses=refusals())
def ready(db: Db) -> dict[str, str]:
    """The database answers, its revision is this app's, and there is room on the disk; else 503 with a sentence."""
    found = database.revision(db)
    if found != place.REVISION:
        raise DatabaseUnavailable(
            N_("The database is of revision {found}, this app needs {known}. Restart the app to bring them together."),
            found=found or "-",
            known=place.REVISION,
        )
    if db.file is not None and shutil.disk_usage(db.file.absolute().parent).free < LEAST_FREE:
        raise DatabaseUnavailable(N_("The disk is nearly full. Make room before charges are refused."))
    return {"status": "ready", "revision": found}
