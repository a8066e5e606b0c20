"""Reading a statement's file again: what it says, whether or not that is true."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from html import unescape
from itertools import takewhile
from typing import Any

from ..errors import BillingError, Invalid
from ..i18n import LANGUAGES, N_
from ..seals import FIELDS
from ..text import safe, unsafe
from ..zones import zone
from .content import SHOWN, period
from .writing import EARLIER_STYLES, FACTS, JSON_MARK, MARK, STYLE, VERSION


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a file says."""

    head: dict[str, Any]
    """As writing.head gives it."""
    language: str | None
    """Of HTML."""
    rows: list[list[Any]] | None
    """Of HTML: the entries of its JSON."""
    top: list[str]
    """What stands above the entries: a text or value each."""
    shown: list[list[str]]
    """The rows of the table of entries, as people see them."""
    page: str | None = None
    """Of HTML: all of it but its JSON, with a style of before as it is now."""


_TEXTS = ("user_id", "name", "month", "timezone", "seal_hash")
_NUMBERS = ("opening_balance_hao", "closing_balance_hao", "entries", "seal_number", "sealed_at_ns")


def read(file: bytes) -> Claimed:
    """Raises Invalid where it is no statement, or a damaged one."""
    try:
        text = file.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _other() from None
    try:
        if MARK in text[:2000]:
            return _html(text)
        if re.match(r'"?statement"?,', text):
            return _csv(text)
    except (ValueError, KeyError, TypeError, RecursionError, csv.Error):
        raise _damaged() from None
    raise _other()


def _other() -> Invalid:
    return Invalid(
        N_("The file is not a statement of this app. Choose one that was downloaded here, as it is, in HTML or CSV."),
        field="file",
    )


def _damaged() -> Invalid:
    return Invalid(
        N_(
            "The statement is damaged: a part of the file is missing or can't be read. Take it from where it was kept again."
        ),
        field="file",
    )


def _checked(head: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError, KeyError, TypeError, Invalid."""
    if head["statement"] != VERSION:
        raise Invalid(
            N_("The statement is of a newer version of this app. Update the app, then try again."), field="file"
        )
    for name in _TEXTS:
        if not isinstance(head[name], str):
            raise TypeError(name)
    for name in _NUMBERS:
        if type(head[name]) is not int or abs(head[name]) >= 2**63:
            raise TypeError(name)
    try:
        period(head["month"], zone(head["timezone"] or "?"))
    except BillingError as error:
        raise ValueError from error
    return head


# CSV


def _csv(text: str) -> Claimed:
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    end = rows.index([])
    table = rows[end + 1 :]
    if not text.endswith("\n") or any(len(row) != len(table[0]) for row in table):
        raise ValueError
    head: dict[str, Any] = {name: value for name, value in rows[:end]}
    for name in ("statement", *_NUMBERS):
        if not re.fullmatch("-?[0-9]{1,19}", head[name]):
            raise ValueError
        head[name] = int(head[name])
    for name in _TEXTS:
        head[name] = unsafe(head[name])
    if len(table) - 1 < _checked(head)["entries"]:
        raise ValueError
    return Claimed(head, None, None, [cell for row in rows[:end] for cell in row], table)


def written(row: Iterable[Any]) -> list[str]:
    """A row as CSV's reader gives it back."""
    return ["" if cell is None else safe(cell) if isinstance(cell, str) else str(cell) for cell in row]


# HTML

_ROW = re.compile(r"<td[^<>]*>([^<]*)</td>")


def _html(text: str) -> Claimed:
    text = text.replace("\r\n", "\n")  # as some ways of copying text write it
    top, style, middle, source, end = _parted(text, "<style>", "</style>", JSON_MARK, "</script>")
    language = re.match(r'<!DOCTYPE html>\n<html lang="([A-Za-z-]{2,20})">\n', top)
    if "<" in source:  # it is never written; a browser could take it for the end of the JSON
        raise ValueError
    found = json.loads(source, parse_constant=_no_number, parse_float=_no_number, object_pairs_hook=_once_each)
    if set(found) != {"statement", *_TEXTS, *_NUMBERS, "fields", "rows"}:
        raise ValueError
    rows = found.pop("rows")
    fields = found.pop("fields")
    if fields not in (list(FIELDS), list(SHOWN)):  # at first there were FIELDS only
        raise ValueError
    if language is None or (name := language[1].replace("-", "_")) not in LANGUAGES:
        raise ValueError
    if not all(isinstance(row, list) and len(row) == len(fields) and type(row[0]) is int for row in rows):
        raise ValueError
    rows = [row + [None] * (len(SHOWN) - len(fields)) for row in rows]
    if sha256(style.encode("utf-8", "surrogatepass")).hexdigest() in EARLIER_STYLES:
        style = STYLE
    page = f"{top}<style>{style}</style>{middle}{JSON_MARK}</script>{end}"
    cells = [[unescape(cell) for cell in _ROW.findall(line)] for line in middle.split("\n")]
    cells = [row for row in cells if row]
    shown = list(takewhile(lambda row: len(row) == 1, cells))[:FACTS]
    return Claimed(_checked(found), name, rows, [row[0] for row in shown], cells[len(shown) :], page)


def _parted(text: str, *marks: str) -> Iterator[str]:
    """What stands before each of these marks, and the rest. Raises ValueError."""
    for mark in marks:
        part, found, text = text.partition(mark)
        if not found:
            raise ValueError(mark)
        yield part
    yield text


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _no_number(text: str) -> Iterator[Any]:
    raise ValueError(text)
