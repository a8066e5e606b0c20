"""What all commands share: the language, the database, tables, JSON, times and files."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unicodedata import east_asian_width
from zoneinfo import ZoneInfo

import typer

from ..errors import Invalid
from ..i18n import N_, environment_language, ntranslate, translate
from ..money import Hao, to_yuan

if TYPE_CHECKING:
    from ..database import Database

SHORTEST = 16
"""How far text that may be cut is cut before columns are left out, in letters."""
GAP = 2
"""Between two columns of a table."""


class Language(StrEnum):
    en = "en"
    zh_CN = "zh_CN"


spoken: ContextVar[str | None] = ContextVar("spoken", default=None)
"""What --lang says."""


def language() -> str:
    """--lang, else the environment's."""
    return spoken.get() or environment_language()


def say(message: str, **params: object) -> None:
    """A sentence on standard output, in the reader's language."""
    typer.echo(translate(message, language(), **params))


def say_number(one: str, many: str, n: int, **params: object) -> None:
    """The same about a number of things, `{n}`."""
    typer.echo(ntranslate(one, many, n, language(), n=f"{n:,}", **params))


def word(words: dict[str, str], code: str) -> str:
    """A code of `glossary` as a person reads it."""
    return translate(words[code], language())


def hint(message: str, **params: object) -> None:
    """A sentence for a person, beside what a program may read."""
    typer.echo(translate(message, language(), **params), err=True)


def db() -> "Database":
    from ..database import open_database
    from ..ledger import note_expired

    database = open_database()
    note_expired(database)
    return database


JsonOption = Annotated[
    bool, typer.Option("--json", help="JSON, exact: *_hao in 毫 (1 元 = 10 000 毫), *_yuan and prices as decimal text.")
]
ZoneOption = Annotated[
    str | None,
    typer.Option(
        "--timezone", metavar="ZONE", help="An IANA zone like Asia/Shanghai; else this machine's.", show_default=False
    ),
]
UserId = Annotated[str, typer.Argument(metavar="USER_ID", help="The account's id.", show_default=False)]
SomeUserId = Annotated[
    str | None,
    typer.Argument(metavar="USER_ID", help="The account's id; all accounts without it.", show_default=False),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="From this day or moment on: 2025-06-30 or 2025-06-30T08:00.", show_default=False
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Up to the end of this day, or up to this moment.", show_default=False),
]


# Times


def zone(name: str | None) -> tzinfo:
    """The zone called `name`, else this machine's. Raises Invalid."""
    if name:
        from ..zones import zone as named

        return named(name)
    return _local_zone()


def _local_zone() -> ZoneInfo:
    names = [os.environ.get("TZ", "").lstrip(":")]
    with suppress(OSError):
        names.append(str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2])
    for name in names:
        try:
            if name:
                return ZoneInfo(name)
        except (LookupError, ValueError, OSError):
            continue
    return ZoneInfo("UTC")


def moment(text: str | None, tz: tzinfo, *, field: str, end: bool = False) -> int | None:
    """A day or a moment that a person wrote, as ns since the epoch; with `end`, a day's end. Raises Invalid."""
    if text is None:
        return None
    from ..stats import to_ns

    try:
        if "W" in text:  # 2025-W10 would be that week's Monday
            raise ValueError
        try:
            day = date.fromisoformat(text.strip())
            at = datetime.combine(day + timedelta(days=end), time(), tz)
        except ValueError:
            at = datetime.fromisoformat(text.strip())
        ns = to_ns(at if at.tzinfo else at.replace(tzinfo=tz))
        if not 0 <= ns < 2**63:  # 1970 to 2262: what the database can keep
            raise ValueError
        return ns
    except (ValueError, OverflowError):
        raise Invalid(
            N_("“{text}” is not a time. Write a day like 2025-06-30 or a moment like 2025-06-30T08:00+08:00."),
            field=field, text=text,
        ) from None  # fmt: skip


def shown(ns: int | None, tz: tzinfo) -> str:
    """A time in a table."""
    return "" if ns is None else datetime.fromtimestamp(ns // 10**9, tz).strftime("%Y-%m-%d %H:%M")


def iso(ns: int | None, tz: tzinfo) -> str | None:
    from .. import stats

    return None if ns is None else stats.iso(ns, tz)


# Tables and JSON


def print_json(value: Any) -> None:
    def plain(one: object) -> str:
        return f"{one:f}" if isinstance(one, Decimal) else str(one)

    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=plain))


def hao(name: str, amount: Hao) -> dict[str, Any]:
    """An amount as JSON has it, exact in both units."""
    return {f"{name}_hao": amount, f"{name}_yuan": f"{to_yuan(amount):f}"}


class Column:
    """A column of a table: what stands above it, and how it is laid out."""

    def __init__(self, heading: str, *, right: bool = False, wide: bool = False, long: bool = False):
        self.heading = heading
        self.right = right
        """Numbers, which are never cut."""
        self.wide = wide
        """Left out where the terminal is too narrow for all."""
        self.long = long
        """Text that may be cut to fit."""


def console(*, err: bool = False) -> Any:
    """Where to print to; into a file or a pipe nothing is cut."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, width=None if stream.isatty() or "COLUMNS" in os.environ else 1000, highlight=False)


def table(columns: list[Column], rows: Iterable[list[Any]]) -> None:
    """Rows under translated headings, fitted to the terminal."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    out = console()
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    headings = [translate(column.heading, language()) for column in columns]
    widths = [max(map(cell_len, [heading, *each])) for heading, *each in zip(headings, *cells, strict=True)]
    kept = list(range(len(columns)))

    def needed() -> int:
        return sum((min(widths[place], SHORTEST) if columns[place].long else widths[place]) + GAP for place in kept)

    for place in reversed(range(len(columns))):
        if columns[place].wide and needed() > out.width:
            kept.remove(place)
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place in kept:
        column = columns[place]
        grid.add_column(
            Text(headings[place]),
            justify="right" if column.right else "left",
            min_width=None if column.long else widths[place],
            no_wrap=not column.long,
            overflow="fold",
        )
    for row in cells:
        grid.add_row(*(Text(row[place]) for place in kept))
    out.print(grid)


def record(rows: Iterable[tuple[str, Any]]) -> None:
    """One thing, a line a property."""
    named = [(translate(name, language()), value) for name, value in rows]
    longest = max(width(name) for name, _ in named)
    for name, value in named:
        gap = " " * (longest - width(name) + GAP)
        typer.echo(f"{typer.style(name, bold=True)}{gap}{'' if value is None else value}")


def width(text: str) -> int:
    """The cells that a text takes: two for a Chinese letter. Rich knows it better, and takes long to import."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


@contextmanager
def progress_bar(message: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(err=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(translate(message, language()), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# Files


def read_bytes(name: str) -> bytes:
    """A file, or standard input for `-`. Raises Invalid."""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Invalid(
            N_("The file {file} can't be read: {reason}."), field="file", file=name, reason=error.strerror or error
        ) from None


def read_text(name: str) -> str:
    """The same as text, in UTF-8. Raises Invalid."""
    try:
        return read_bytes(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid(N_("The file {file} is not text in UTF-8."), field="file", file=name) from None
