"""Reading a statement's file again: what it says, whether or not that is true."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import takewhile
from typing import Any

from ..errors import BillingError, Invalid
from ..i18n import LANGUAGES, N_
from ..seals import FIELDS
from ..text import safe, unsafe
from ..zones import zone
from .content import SHOWN, period
from .writing import FACTS, MARK, VERSION


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
    return Claimed(head, None, None, [value for _name, value in rows[:end]], table)


def written(row: Iterable[Any]) -> list[str]:
    """A row as CSV's reader gives it back."""
    return ["" if cell is None else safe(cell) if isinstance(cell, str) else str(cell) for cell in row]


# HTML


class _Parser(HTMLParser):
    """The cells of all tables, and the JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.language = ""
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self._into: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "html":
            self.language = (dict(attrs).get("lang") or "").replace("-", "_")
        elif tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")
            self._into = self.rows[-1]
        elif tag == "script":
            self.scripts.append("")
            self._into = self.scripts

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "script"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data


def _html(text: str) -> Claimed:
    parser = _Parser()
    try:
        parser.feed(text)
        parser.close()
    except IndexError:  # a cell outside of a row
        raise ValueError from None
    (source,) = parser.scripts
    found = json.loads(source, parse_constant=_no_number, parse_float=_no_number)
    rows = found.pop("rows")
    fields = found.pop("fields")
    if fields not in (list(FIELDS), list(SHOWN)) or parser.language not in LANGUAGES:  # at first there were FIELDS only
        raise ValueError
    if not all(isinstance(row, list) and len(row) == len(fields) and type(row[0]) is int for row in rows):
        raise ValueError
    rows = [row + [None] * (len(SHOWN) - len(fields)) for row in rows]
    cells = [row for row in parser.rows if row]
    top = list(takewhile(lambda row: len(row) == 1, cells))[:FACTS]
    return Claimed(_checked(found), parser.language, rows, [row[0] for row in top], cells[len(top) :])


def _no_number(text: str) -> Iterator[Any]:
    raise ValueError(text)
