"""Bodies, read by hand: FastAPI's own reading would turn exact decimals into floats, and has no limit."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from billing_core.errors import BillingError, Invalid
from billing_core.i18n import N_

from . import exact_json
from .errors import TooLarge, invalid_fields

MB = 1024 * 1024
MAX_BYTES = 16 * MB
MAX_BATCH_BYTES = 64 * MB
MAX_ITEMS = 100_000
"""Charges in one batch."""
NDJSON = "application/x-ndjson"
NDJSON_TYPES = (NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines")

M = TypeVar("M", bound=BaseModel)


async def read(request: Request, most: int) -> bytes:
    """The body. Raises TooLarge as soon as that is known, without reading on."""
    too_large = TooLarge(N_("The body is too large: at most {most} MB. Send less at once."), most=most // MB)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        if len(body) + len(part) > most:
            raise too_large
        body += part
    return bytes(body)


async def _one(request: Request) -> bytes:
    return await read(request, MAX_BYTES)


async def _batch(request: Request) -> bytes:
    return await read(request, MAX_BATCH_BYTES)


Body = Annotated[bytes, Depends(_one)]
Batch = Annotated[bytes, Depends(_batch)]


def parse(model: type[M], content: Any) -> M:
    """What a body's JSON says, as a request. Raises InvalidFields."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise invalid_fields(error.errors()) from None


def is_ndjson(request: Request, body: bytes) -> bool:
    """By its content type, or because its first line is an object and others follow, where a batch begins with a list."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    first, _, others = body.strip().partition(b"\n")
    return content_type in NDJSON_TYPES or (first[:1] == b"{" and first.rstrip()[-1:] == b"}" and bool(others))


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that is no JSON, and why."""

    line: bytes
    error: BillingError


def lines(body: bytes) -> list[Any]:
    """Each line's JSON, or a BrokenLine; empty lines are left out. Raises TooLarge."""
    found: list[Any] = []
    for line in body.split(b"\n"):
        if line.strip():
            try:
                found.append(exact_json.loads(line))
            except BillingError as error:
                found.append(BrokenLine(line, error))
            _check_length(found)
    return found


def items(body: bytes) -> list[Any]:
    """A JSON list's items. Raises Malformed, Invalid, TooLarge."""
    content = exact_json.loads(body)
    if not isinstance(content, list):
        raise Invalid(
            N_("The body must be a JSON list of charges, or one charge a line with Content-Type: {ndjson}."),
            field="body",
            ndjson=NDJSON,
        )
    _check_length(content)
    return content


def _check_length(items: list[Any]) -> None:
    if len(items) > MAX_ITEMS:
        raise TooLarge(N_("A batch has at most {most} charges. Send the others in another one."), most=MAX_ITEMS)
