"""Statements: a month of an account as a file, and whether the ledger still says what such a file says."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from billing_core import statement
from billing_core.actors import Actor
from billing_core.database import Database
from billing_core.zones import zone

from . import schemas
from .auth import Db, Reader, UserId, Viewer, with_key
from .bodies import Batch
from .errors import Route, language
from .exact_json import ExactJSONResponse
from .exports import CSV, as_file
from .openapi import READING_ONE, Responses, refusals
from .queries import ONLY_KNOWN, Timezone

router = APIRouter(prefix="/statements", route_class=Route)

HTML = "text/html; charset=utf-8"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A statement runs nothing and loads nothing, whatever stands in it."""

Month = Annotated[str, Query(description="Which month, like 2026-10.")]
Format = Annotated[
    Literal["html", "csv"], Query(description="html: a page that prints well; csv: a file for spreadsheets.")
]
Lang = Annotated[
    Literal["", "en", "zh_CN"], Query(description="The language of the page; without it, that of Accept-Language.")
]
FILES: Responses = {
    200: {
        "description": "The statement.",
        "content": {HTML: {"schema": {"type": "string"}}, CSV: {"schema": {"type": "string"}}},
    },
    **READING_ONE,
    **refusals(401, 403, 404, 409),
}


@router.get("", responses=FILES, response_class=Response, dependencies=[ONLY_KNOWN])
def own_statement(
    actor: Reader,
    db: Db,
    request: Request,
    month: Month,
    format: Format = "html",
    timezone: Timezone = "",
    lang: Lang = "",
) -> Response:
    """One's own month: opening balance, every entry, closing balance, and the newest seal."""
    return _file(db, actor, actor.user_id, month, format, timezone, lang or language(request))


@router.get("/{user_id}", responses=FILES, response_class=Response, dependencies=[ONLY_KNOWN])
def statement_of(
    user_id: UserId, actor: Viewer, db: Db, request: Request, month: Month, format: Format = "html",
    timezone: Timezone = "", lang: Lang = "",
) -> Response:  # fmt: skip
    """The same of another account, for admins."""
    return _file(db, actor, user_id, month, format, timezone, lang or language(request))


def _file(db: Database, actor: Actor, user_id: str, month: str, format: str, timezone: str, language: str) -> Response:
    made = statement.make(db, user_id, month, zone(timezone or actor.timezone), actor=actor)
    blocks = statement.FORMATS[format](db, made, language)
    page = format == "html"
    media_type = HTML if page else CSV
    response = as_file(blocks, "statement", user_id, month, ending=format, media_type=media_type, shown=page)
    response.headers["Content-Security-Policy"] = POLICY
    return response


@router.post(
    "/verify",
    response_model=schemas.Verified,
    responses=refusals(400, 401, 403, 404, 409, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": {"type": "string"}} for kind in ("text/html", "text/csv")},
        }
    },
)
def verify_statement(actor: Annotated[Actor, Depends(with_key)], db: Db, request: Request, body: Batch) -> Response:
    """Whether the ledger still says what a statement says. The body is the file as it was downloaded, HTML or CSV."""
    verdict = statement.verify(db, body, actor=actor)
    now = verdict.statement
    return ExactJSONResponse(
        schemas.Verified(
            same=verdict.difference is None,
            text=verdict.sentence(language(request)),
            entry_id=None if verdict.entry_id is None else str(verdict.entry_id),
            user_id=now.user_id,
            month=now.month,
            timezone=now.timezone,
            seal=now.seal_number,
        )
    )
