"""What stands in an address behind the `?`."""

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal, get_origin

from fastapi import Depends, Query, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query as QueryInfo
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from billing_core import glossary, logs, stats
from billing_core.errors import Invalid
from billing_core.i18n import N_
from billing_core.text import MAX_SEARCH, one_line

from .auth import Reader

EARLIEST, LATEST = date(1970, 1, 2), date(2200, 1, 1)
"""Moments outside of these don't fit into a column of nanoseconds."""


def _digits(value: Any) -> Any:
    """Only digits make a count: pydantic alone would take “1.0” and “1_000” too."""
    if isinstance(value, str) and not re.fullmatch("-?[0-9]{1,18}", value):
        too_large = re.fullmatch("-?[0-9]+", value)
        raise PydanticCustomError("int_parsing_size" if too_large else "int_parsing", "not a whole number")
    return value


def written_day(value: Any) -> Any:
    """Only 2026-11-24 is a day: pydantic alone would take a number of seconds too."""
    if isinstance(value, str) and not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise PydanticCustomError("date_parsing", "not a day")
    return value


async def _only_known(request: Request, _actor: Reader) -> None:
    """Refuse what is no parameter of a route, and what stands there twice: a filter that is written wrong would let everything
    through, unnoticed. Raises Invalid."""
    known = {
        one.alias: one.field_info.annotation
        for one in get_flat_params(request.scope["route"].dependant)
        if isinstance(one.field_info, QueryInfo)
    }
    for name in request.query_params:
        if name not in known:
            raise Invalid(
                N_("“{name}” is none of the parameters here. There are: {known}."),
                field=name, name=name, known=", ".join(known),
            )  # fmt: skip
        if len(request.query_params.getlist(name)) > 1 and get_origin(known[name]) is not list:
            raise Invalid(N_("“{name}” stands there twice. Give it once."), field=name, name=name)


ONLY_KNOWN = Depends(_only_known)


def moment(text: str, field: str) -> int:
    """A moment in ISO 8601 with its offset, in ns since 1970 (UTC). Raises Invalid."""
    if "T" in text:
        text = re.sub(r" (\d\d:?\d\d)$", r"+\1", text)  # a + that nobody encoded arrives as a space
    parts = re.fullmatch(r"(.*\d\d)[.,](\d{1,9})(\D.*)?", text)  # datetime itself knows no ns
    whole, fraction = (parts[1] + (parts[3] or ""), parts[2]) if parts else (text, "")
    try:
        found = datetime.fromisoformat(whole)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or found.microsecond:
        raise Invalid(
            N_("{name} must be a moment in ISO 8601 with its offset from UTC, like 2026-11-24T08:00:00+08:00."),
            field=field,
            name=field,
        )
    if not EARLIEST <= found.date() <= LATEST:
        raise Invalid(
            N_("{name} must be a moment from {earliest} to {latest}."),
            field=field, name=field, earliest=EARLIEST.isoformat(), latest=LATEST.isoformat(),
        )  # fmt: skip
    return stats.to_ns(found) + int(fraction.ljust(9, "0") or 0)


def _moment(field: str) -> tuple[Any, Any]:
    return (
        BeforeValidator(lambda text: moment(text, field) if text else None),
        WithJsonSchema({"type": "string", "format": "date-time"}),
    )


Count = Annotated[int, BeforeValidator(_digits)]
Limit = Annotated[Count, Query(description=f"How many rows at most: 1 to {logs.MAX_LIMIT}.")]
Offset = Annotated[Count, Query(description="How many of the newest rows to leave out.")]
Timezone = Annotated[
    str,
    Query(
        description="An IANA time zone, such as Asia/Shanghai. Without it: the one that the asking account has set, else UTC."
    ),
]


def searched(text: str) -> str:
    """Text to look for, as remarks are kept. Raises Invalid for what holds none: it would find everything."""
    found = one_line(text, MAX_SEARCH, field="search")
    if text and not found:
        raise Invalid(
            N_("search holds no letter that could be looked for. Leave it out to find everything."), field="search"
        )
    return found


Search = Annotated[
    str,
    AfterValidator(searched),
    Query(description="Text that a row must hold."),
]
Model = Annotated[
    str,
    AfterValidator(lambda text: one_line(text, 200, field="model") or text),  # no name is no word for every model
    Query(description="A model's name: only its entries."),
]
Start = Annotated[
    int | None,
    *_moment("start"),
    Query(description="From when on: ISO 8601 with its offset. Without it: from the first row on."),
]
End = Annotated[
    int | None,
    *_moment("end"),
    Query(description="Up to, not including: ISO 8601 with its offset. Without it: up to now."),
]
Granularity = Annotated[
    Literal["hour", "day", "month"],
    Query(description="hour: the last 24 hours; day: the last `days` days; month: the last 12 months."),
]
Days = Annotated[Count, Query(description=f"For day: how many, 1 to {stats.MAX_PERIODS}, today included.")]
AuditKind = Annotated[str, Query(description=f"Only rows of this kind: {', '.join(glossary.KINDS)}.")]
Before = Annotated[Count | None, Query(description="Only rows older than the one with this id.")]
