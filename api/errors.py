"""What goes wrong, as HTTP: a status, and `{"detail": "a sentence"}` in the reader's language."""

import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from billing_core.errors import BillingError, Invalid
from billing_core.i18n import N_, choose_language

log = logging.getLogger(__name__)


class Malformed(BillingError):
    """A body that cannot be read at all (400)."""

    status = 400


class TooLarge(BillingError):
    status = 413


class Unexpected(BillingError):
    """What nobody thought of (500): it is logged, and nothing of it is told."""

    status = 500

    def __init__(self) -> None:
        super().__init__(N_("Something went wrong here. It has been noted; try again later."))


class NoRoute(BillingError):
    """What the server itself refuses: an address or a method that isn't there."""

    def __init__(self, status: int, message: str):
        self.status = status
        super().__init__(message)


class InvalidFields(Invalid):
    """Fields that are not what they should be (422); the first one's sentence stands for all."""

    def __init__(self, fields: Sequence[Invalid]):
        self.fields = fields
        super().__init__(fields[0].message, field=fields[0].field, **fields[0].params)


SENTENCES = {
    "missing": N_("{name} is missing: the request needs it."),
    "string": N_("{name} must be text in quotes."),
    "int": N_("{name} must be a whole number, without quotes and without a point."),
    "int_parsing_size": N_("{name} is a larger number than this field takes."),
    "bool": N_("{name} must be true or false."),
    "date": N_("{name} must be a date like 2026-11-24."),
    "literal": N_("{name} must be one of: {expected}."),
    "greater": N_("{name} must be at least {ge}."),
    "less": N_("{name} must be at most {le}."),
    "extra": N_("{name} is no field of this request: openapi.json names them."),
    "model": N_("{name} must be a JSON object with the fields that openapi.json names."),
    "body": N_("The body must be a JSON object with the fields that openapi.json names."),
}
OTHERWISE = N_("{name} is not what this field takes: openapi.json says what it is.")


def invalid_fields(found: Iterable[Any]) -> InvalidFields:
    """pydantic's errors in plain sentences, one a field."""
    fields: dict[str, Invalid] = {}
    for error in found:
        path = [str(part) for part in error["loc"] if part not in ("query", "path", "header")]
        # Of a price's tiers, which one and what of it: `tiers.0.above_prompt_tokens`.
        name = ".".join(path if path[:1] == ["tiers"] else path[:1] or ["body"])
        kind = error["type"] if path else "body"
        message = SENTENCES.get(kind) or SENTENCES.get(kind.split("_")[0], OTHERWISE)
        params = error.get("ctx", {})
        if isinstance(refusal := params.get("refusal"), Invalid):
            message, params = refusal.message, refusal.params
        if kind == "literal_error":  # “'hour', 'day' or 'month'” would be English
            params = {"expected": params["expected"].replace(" or ", ", ").replace("'", "").removeprefix(", ")}
        fields.setdefault(name, Invalid(message, field=name, **{**params, "name": name}))
    return InvalidFields(list(fields.values()))


HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}


def language(request: Request) -> str:
    return choose_language(request.headers.get("accept-language"))


def body(error: BillingError, language: str) -> dict[str, Any]:
    """An error's body; for 422 `errors` names the fields."""
    answer: dict[str, Any] = {"detail": error.sentence(language)}
    if error.status == 422:
        fields = error.fields if isinstance(error, InvalidFields) else [error]
        named = [(getattr(each, "field", None), each.sentence(language)) for each in fields]
        answer["errors"] = [{"field": field, "message": message} for field, message in named if field is not None]
    return answer


def respond(request: Request, error: Exception) -> Response:
    from .exact_json import ExactJSONResponse

    if isinstance(error, RequestValidationError):
        error = invalid_fields(error.errors())
    if not isinstance(error, BillingError):
        log.exception("%s %s", request.method, request.url.path, exc_info=error)
        error = Unexpected()
    return ExactJSONResponse(body(error, language(request)), error.status, HEADERS.get(error.status))


def respond_unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {
        404: N_("There is nothing at this address. See openapi.json for what there is."),
        405: N_("This address does not take this method. See openapi.json for those that it takes."),
    }.get(error.status_code, N_("The request can't be answered as it is. See openapi.json for what there is."))
    response = respond(request, NoRoute(error.status_code, sentence))
    response.headers.update(error.headers or {})
    return response


HANDLERS: dict[Any, Any] = {
    BillingError: respond,
    RequestValidationError: respond,
    HTTPException: respond_unrouted,
}


class Route(APIRoute):
    """A route whose unexpected errors are logged and answered here, so that no server sees them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except (BillingError, RequestValidationError, HTTPException):
                raise
            except RecursionError:
                raise Malformed(N_("The body is nested too deeply to be read.")) from None
            except ClientDisconnect:
                raise Malformed(N_("The body ended before all of it was there.")) from None
            except Exception as error:  # noqa: BLE001
                return respond(request, error)

        return answered
