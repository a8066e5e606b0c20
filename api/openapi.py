"""The OpenAPI document: what FastAPI cannot know by itself, as bodies are read by hand."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from . import schemas
from .bodies import MAX_BATCH_BYTES, MAX_BYTES, MAX_ITEMS, MB, NDJSON

ABOUT = f"""Prepaid balances for shared model API keys.

**Units.** Balances and costs are whole numbers of 毫 (hao); 10 000 毫 are 1 元 (yuan). Prices, and the costs in `/stats`,
are exact decimals in 元; prices are for a million tokens. Every field says its unit. Read decimals as decimals: a float
rounds them. Times are nanoseconds since 1970 (UTC), or ISO 8601 with an offset. Ids are strings.

**Signing in.** `Authorization: Bearer KEY`. Keys are made by `python -m billing_core key add --account USER_ID`; with
`--can charge` a key charges any account, with `--can admin` it does what an admin may; without it speaks for its own
account alone. The session cookie of somebody signed in to the pages is good for reading only.

**Retries.** Every write takes an `Idempotency-Key`. The same key with the same body gives the first answer again and does
nothing; with another body it is refused (409). A request that was refused leaves nothing behind: its key may be used again.

**Errors.** `{{"detail": "a sentence"}}` in the language of `Accept-Language` (English or Chinese); for 422 `errors` beside
it names the fields. 503 says that the database can't be used now: nothing was changed, try again. Where it fails within `/charges`,
what was charged is told, and the other items have 503.

**Bodies.** JSON in UTF-8, at most {MAX_BYTES // MB} MB (`/charges`: {MAX_BATCH_BYTES // MB} MB and {MAX_ITEMS} charges).
"""

MEANINGS = {
    400: "The body can't be read.",
    401: "Not signed in, or the key has been revoked.",
    402: "The balance can't cover it.",
    403: "Not allowed: an admin's work, a key that may not charge, or a frozen account.",
    404: "There is no such account or precharge.",
    409: "It is so already, or the idempotency key was used for another request.",
    413: "The body is too large, or has too many items.",
    422: "A field is not what it should be; `errors` names it.",
    500: "Something went wrong here. Nothing of it is told, and it has been logged.",
    503: "The database can't be used now. Nothing was changed.",
}

Responses = dict[int | str, dict[str, Any]]


def refusals(*statuses: int) -> Responses:
    """A route's errors: those named, and those that every route has."""
    return {
        status: {"model": schemas.InvalidError if status == 422 else schemas.Error, "description": MEANINGS[status]}
        for status in sorted({*statuses, 422, 500, 503})
    }


READING = refusals(401, 403)
READING_ONE = refusals(401, 403, 404)
WRITING = refusals(400, 401, 403, 404, 409, 413)
SPENDING = refusals(400, 401, 402, 403, 404, 409, 413)


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """What a route's body holds."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _ref(model)}}}}


def takes_many(model: type[BaseModel]) -> dict[str, Any]:
    """A list, or one item a line."""
    many = {"schema": {"type": "array", "items": _ref(model)}}
    return {"requestBody": {"required": True, "content": {"application/json": many, NDJSON: {"schema": _ref(model)}}}}


def complete(api: FastAPI) -> None:
    """Have the document name the requests' fields as well."""
    plain = api.openapi

    def document() -> dict[str, Any]:
        if api.openapi_schema:
            return api.openapi_schema
        found = plain()
        _, definitions = models_json_schema(
            [(model, "validation") for model in schemas.REQUESTS], ref_template="#/components/schemas/{model}"
        )
        found["components"]["schemas"] |= definitions["$defs"]
        return found

    api.openapi = document  # type: ignore[method-assign]
