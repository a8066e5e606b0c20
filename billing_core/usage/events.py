"""From what was sent to events: a JSON body is one, a stream is many."""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

Body = dict[str, Any]
METRICS = "amazon-bedrock-invocationMetrics"
_EMBEDDED = re.compile(rf'"(usage|usageMetadata|{METRICS})"\s*:\s*(?=\{{)')


def _exact(digits: str) -> Decimal:
    """A fraction as it stands; NaN, which is no count and no cost, where its exponent is beyond what Decimal holds."""
    try:
        return Decimal(digits)
    except InvalidOperation:
        return Decimal("NaN")


_DECODER = json.JSONDecoder(parse_float=_exact)


def events_of(response: object) -> list[Body]:
    if not isinstance(response, str):
        return bodies(response if isinstance(response, list) else [response])
    text = response.strip("\ufeff \t\r\n")
    whole = _whole(text)
    if isinstance(whole, list | dict):
        return bodies(whole if isinstance(whole, list) else [whole])
    return bodies(_streamed(text)) or list(_embedded(text))


def bodies(found: Iterable[object]) -> list[Body]:
    return [event for event in found if isinstance(event, dict)]


def _parse(text: str) -> object:
    """What a JSON object or array says, None where the text is neither."""
    try:
        return json.loads(text, parse_float=_exact) if text[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        return None


_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)  # a text may be cut off
_USAGE = {'"usage"', '"usageMetadata"', '"meta"', f'"{METRICS}"'}


def _whole(text: str) -> object:
    """What a JSON object or array says, even if it was cut off; None where the text is neither."""
    said = _parse(text)
    return _parse(_closed(text)) if said is None and text[:1] in ("{", "[") else said


def _closed(text: str) -> str:
    """A JSON text that was cut off, without what is unfinished in it: a value, or counts of usage."""
    opened: list[tuple[str, str, int]] = []  # the bracket that is missing, the key before it, where all was finished
    finished, key, value, before = 0, "", "", 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in "{[":
            opened.append(("}" if mark == "{" else "]", key, before))
        elif mark in "}]" and (not opened or opened.pop()[0] != mark):
            return ""
        if mark in "{[}],":
            finished, key = token.start() if mark == "," else token.end(), ""
            if not opened:
                return ""  # several texts, or none: not one that was cut off
        elif mark == ":":
            key, before = value, finished
        else:
            value = mark
    for place, (_, name, start) in enumerate(opened):
        if name in _USAGE:
            opened, finished = opened[:place], start
            break
    return text[:finished] + "".join(bracket for bracket, *_ in reversed(opened))


def _streamed(text: str) -> Iterator[object]:
    """What the events of a stream say: server-sent events, or one JSON object a line."""
    data: list[str] = []
    for line in (*re.split(r"\r\n|\n|\r", text), ""):
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").strip())
        elif line.startswith("{") and line.rstrip().endswith("}"):
            yield _parse(line)
        elif not line and data:
            whole = "\n".join(data)
            event = _parse(whole)
            # Some senders leave out the empty line between two events; an event may be cut off after its usage.
            yield from [each for line in data for each in _whole_or_usage(line)] if event is None else [event]
            data = []


def _whole_or_usage(text: str) -> Iterable[object]:
    event = _whole(text)
    return _embedded(text) if event is None else [event]


def _embedded(text: str) -> Iterator[Body]:
    """The last few usage objects in a text that is no whole JSON, such as Bedrock's binary frames or a cut-off body."""
    for match in deque(_EMBEDDED.finditer(text), maxlen=8):
        try:
            yield {match[1]: _DECODER.raw_decode(text, match.end())[0]}
        except (ValueError, RecursionError):
            continue


def holders_of(event: Body) -> list[Body]:
    """The objects of an event in which usage and the model's name may stand, itself first."""
    choices = event.get("choices")  # Moonshot's streams
    wrapped = [event.get(key) for key in ("message", "response", "delta", "result", "metadata", "x_groq")]
    return bodies([event, *wrapped, *(choices[:1] if isinstance(choices, list) else [])])


def word(value: object) -> str:
    """A text, "" for anything else."""
    return value if isinstance(value, str) else ""


def inner(holder: Body, path: str) -> Any:
    """What stands at a path like `a.b`, None where there is nothing."""
    found: Any = holder
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def listed(holder: Body, path: str) -> list[Body]:
    """The objects in the list at a path."""
    found = inner(holder, path)
    return bodies(found) if isinstance(found, list) else []
