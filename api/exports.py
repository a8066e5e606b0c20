"""The files behind the pages' download buttons: CSV in blocks, so that no file is ever whole in memory."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import Annotated, Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BeforeValidator

from billing_core import audit, export, logs, pricing, stats
from billing_core.actors import Actor
from billing_core.errors import Invalid
from billing_core.i18n import N_
from billing_core.zones import zone

from .auth import AdminReader, Db, Reader
from .errors import Route, language
from .openapi import READING, READING_ONE, Responses
from .queries import (
    ONLY_KNOWN,
    AuditKind,
    Days,
    End,
    Granularity,
    Model,
    Search,
    Start,
    Timezone,
    written_day,
)
from .schemas import EntryType

router = APIRouter(prefix="/export", route_class=Route, dependencies=[ONLY_KNOWN])

CSV = "text/csv; charset=utf-8"


def _answers(refused: Responses) -> Responses:
    return {200: {"description": "The file.", "content": {CSV: {"schema": {"type": "string"}}}}, **refused}


def as_file(
    blocks: Iterator[bytes], *name: str | date | None, ending: str = "csv", media_type: str = CSV, shown: bool = False
) -> Response:
    """The file as a download (`shown`: in the browser), called by the parts of `name`. Its first block is read at once:
    whatever is wrong is said before the answer begins."""
    first = next(blocks)
    file = re.sub(r"[/\\]", "_", "-".join(str(part) for part in name if part)) + f".{ending}"
    plain = re.sub(r"[^A-Za-z0-9._@+-]", "_", file)
    disposition = f'{"inline" if shown else "attachment"}; filename="{plain}"'
    if plain != file:
        disposition += f"; filename*=UTF-8''{quote(file, safe='')}"  # RFC 6266
    headers = {"Content-Disposition": disposition, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(chain([first], blocks), headers=headers, media_type=media_type)


@dataclass(frozen=True, slots=True)
class Whose:
    """The account that a file is about; None: all of them."""

    actor: Actor
    user_id: str | None

    @property
    def name(self) -> str:
        return "all" if self.user_id is None else self.user_id


async def _whose(
    actor: Reader,
    user_id: Annotated[str, Query(description="An account's id. Without it: the asking account's own.")] = "",
    all: Annotated[bool, Query(description="true: every account, unless user_id names one. For admins.")] = False,
) -> Whose:
    wanted = user_id or (None if all else actor.user_id)
    actor.must_see(wanted)
    return Whose(actor, wanted)


WhoseFile = Annotated[Whose, Depends(_whose)]


def _zone(actor: Actor, timezone: str) -> ZoneInfo:
    return zone(timezone or actor.timezone)


def _dates(start_ns: int | None, end_ns: int | None, tz: ZoneInfo) -> str:
    """The first and the last day, as a file's name has them."""
    first = None if start_ns is None else stats.from_ns(start_ns, tz).date()
    last = None if end_ns is None else stats.from_ns(end_ns - 1, tz).date()
    return "_".join(str(day) for day in (first, last) if day)


Types = Annotated[list[EntryType], Query(description="Only entries of this type; may be given several times.")]


@router.get("/logs.csv", responses=_answers(READING_ONE), response_class=Response)
def export_logs(
    whose: WhoseFile, db: Db, start: Start = None, end: End = None, model: Model = "", type: Types = [],  # noqa: B006
    search: Search = "", timezone: Timezone = "",
) -> Response:  # fmt: skip
    """Entries, newest first; for a member what a repricing wrote is one line."""
    tz = _zone(whose.actor, timezone)
    wanted = logs.Filters(whose.user_id, start, end, model, tuple(type), search, merged=not whose.actor.is_admin)
    blocks = export.logs(db, wanted, tz, actor=whose.actor)
    return as_file(blocks, "logs", whose.name, model, *type, _dates(start, end, tz))


@router.get("/recharges.csv", responses=_answers(READING_ONE), response_class=Response)
def export_recharges(
    whose: WhoseFile, db: Db, start: Start = None, end: End = None, search: Search = "", timezone: Timezone = ""
) -> Response:
    """Recharges, newest first."""
    tz = _zone(whose.actor, timezone)
    wanted = logs.recharges(logs.Filters(whose.user_id, start, end, search=search))
    rows = logs.every(db, wanted, actor=whose.actor)
    return as_file(export.recharges(rows, tz), "recharges", whose.name, _dates(start, end, tz))


Day = Annotated[date | None, BeforeValidator(written_day), Query()]


@router.get("/stats.csv", responses=_answers(READING_ONE), response_class=Response)
def export_stats(
    request: Request,
    whose: WhoseFile,
    db: Db,
    granularity: Granularity = "day",
    days: Days = 7,
    first: Annotated[Day, Query(description="The first day, with `last` instead of `days`.")] = None,
    last: Annotated[Day, Query(description="The last day.")] = None,
    by: Annotated[Literal["model", "account", "both"], Query(description="A row a period and what.")] = "model",
    timezone: Timezone = "",
) -> Response:
    """What was used: a row a period and model, or account, or both (an account after the other)."""
    if (first is None) != (last is None):
        raise Invalid(N_("Give both days, first and last, or neither."), field="last" if last is None else "first")
    if "days" in request.query_params and (first or granularity != "day"):
        raise Invalid(N_("days goes with granularity=day alone, without first and last."), field="days")
    tz = _zone(whose.actor, timezone)
    if first and last:
        periods = stats.periods_between(first, last, granularity, tz)
    else:
        periods = stats.last_periods(db.clock(), granularity, tz, days)
    blocks = export.stats(db, periods, by, actor=whose.actor, user_id=whose.user_id)
    dates = _dates(periods[0].start_ns, periods[-1].end_ns, tz)
    return as_file(blocks, "stats", whose.name, f"by-{by}", granularity, dates)


@router.get("/prices.csv", responses=_answers(READING), response_class=Response)
def export_prices(actor: Reader, db: Db, search: Search = "", timezone: Timezone = "") -> Response:
    """What counts now for every model that was charged or priced, by its name; with `search`, of those that hold it."""
    tz = _zone(actor, timezone)
    found = [price for price in db.read(pricing.current) if price.matches(search)]
    return as_file(export.prices(found, tz), "prices", stats.from_ns(db.clock(), tz).date())


@router.get("/price-history.csv", responses=_answers(READING), response_class=Response)
def export_price_history(actor: Reader, db: Db, model: Model = "", timezone: Timezone = "") -> Response:
    """Every price that was set, planned and withdrawn ones included, by model, newest first."""
    tz = _zone(actor, timezone)
    blocks = export.price_history(db.read(pricing.history, model), tz, actor=actor)
    return as_file(blocks, "price-history", model, stats.from_ns(db.clock(), tz).date())


@router.get("/accounts.csv", responses=_answers(READING), response_class=Response)
def export_accounts(actor: AdminReader, db: Db, search: Search = "", timezone: Timezone = "") -> Response:
    """Accounts by name, with what they spent in the last 30 days; with `search`, those that hold it."""
    tz = _zone(actor, timezone)
    rows = db.read(export.accounts_and_spending, actor=actor, tz=tz, search=search)
    return as_file(export.accounts(rows, tz), "accounts", stats.from_ns(db.clock(), tz).date())


@router.get("/audit.csv", responses=_answers(READING), response_class=Response)
def export_audit(
    request: Request, actor: AdminReader, db: Db, kind: AuditKind = "", search: Search = "", timezone: Timezone = ""
) -> Response:
    """The audit log, newest first; `text` in the language that the asking account has set, else that of Accept-Language."""
    tz = _zone(actor, timezone)
    rows = audit.every(db, actor=actor, kind=kind, search=search)
    blocks = export.audit(rows, tz, actor.language or language(request))
    return as_file(blocks, "audit", stats.from_ns(db.clock(), tz).date())
