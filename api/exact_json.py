"""JSON whose numbers stay exact: a decimal is never a float, neither on the way in nor on the way out."""

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import simplejson
from pydantic import BaseModel
from starlette.responses import Response

from billing_core.i18n import N_

from .errors import Malformed

MAX_DIGITS = 100


def loads(raw: bytes | str) -> Any:
    """What a JSON text says, its fractions as Decimal. Raises Malformed, also for NaN, for a key that an object has
    twice, and for more nesting than can be followed."""
    try:
        text = raw.decode().removeprefix("\ufeff") if isinstance(raw, bytes) else raw
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(
            N_("The body is not JSON: see line {line}, column {column}."), line=error.lineno, column=error.colno
        ) from None
    except UnicodeDecodeError:
        raise Malformed(N_("The body is not UTF-8. Send JSON in UTF-8.")) from None
    except RecursionError:
        raise Malformed(N_("The body is nested too deeply to be read.")) from None
    except ValueError:  # an integer of thousands of digits
        raise Malformed(N_("The body has a number with too many digits.")) from None


def _decimal(digits: str) -> Decimal:
    if len(digits) > MAX_DIGITS:
        raise ValueError(digits)
    try:
        return Decimal(digits)
    except ArithmeticError:
        raise ValueError(digits) from None


def _no_number(name: str) -> Any:
    raise Malformed(N_("{name} is not a number in JSON."), name=name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Malformed(N_("“{name}” stands twice in one object of the body. Give it once."), name=twice)
    return found


_DECODER = json.JSONDecoder(parse_float=_decimal, parse_constant=_no_number, object_pairs_hook=_object)


def dumps(content: Any) -> bytes:
    """`content`, made of what JSON knows, Decimal and pydantic's models, as JSON in UTF-8."""
    text = simplejson.dumps(
        content, use_decimal=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_model
    )
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate stays what it was in the request: an escape


def _model(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


class ExactJSONResponse(Response):
    """`content` as JSON; bytes are JSON already."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200, headers: dict[str, str] | None = None, **kwargs: Any):
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
        super().__init__(content, status_code, headers, **kwargs)

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else dumps(content)
