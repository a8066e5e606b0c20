"""Tables of figures: exact, right-aligned, red where something is owed; and a table's CSV."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

import api
from billing_core.money import decimals_needed, price_yuan, to_yuan

from . import dialog
from .words import _, count, price, yuan

T = TypeVar("T")
ROWS_AT_ONCE = 60
"""A longer table scrolls in itself."""
ROWS_A_PAGE = 50
"""A still longer one has pages: what nobody looks at is neither reckoned nor sent."""
Kind = Literal["text", "money", "signed", "price", "count", "line", "right"]


@dataclass(frozen=True)
class Column:
    """A heading, what stands below it for a row, and how: amounts in 毫 are shown in 元, prices in 元 per million
    tokens, a line is drawn from a list of numbers."""

    heading: str
    get: Callable[[Any], Any]
    kind: Kind = "text"
    width: Literal["small", "medium", "large"] | int | None = None
    pinned: bool = False


def _shown(kind: Kind, values: Sequence[Any]) -> Callable[[Any], str]:
    """How a column's figures are written: amounts with as many decimals as the longest of them needs."""
    if kind in ("money", "signed"):
        decimals = decimals_needed(value for value in values if value is not None)
        return partial(yuan, sign=kind == "signed", decimals=decimals)
    return price if kind == "price" else count


_EXACT: dict[str, Callable[[int], Decimal]] = {"money": to_yuan, "signed": to_yuan, "price": price_yuan}
"""What the browser sorts and copies: decimals in 元."""


@contextmanager
def paged(rows: Sequence[T], *, key: str) -> Iterator[Sequence[T]]:
    """The rows of the page that is chosen below what is drawn within: all of them, where they are few."""
    place = st.container()
    pages = -(-len(rows) // ROWS_A_PAGE)
    chosen = 1
    if pages > 1:
        with st.container(horizontal=True, horizontal_alignment="right"):
            chosen = st.pagination(pages, key=f"{key}-page-of-{pages}")
    with place:
        yield rows[(chosen - 1) * ROWS_A_PAGE : chosen * ROWS_A_PAGE]


def table(
    columns: Sequence[Column], rows: Sequence[Any], *, alt: str, key: str | None = None, select: bool = False,
    at_once: int = ROWS_AT_ONCE,
) -> int | None:  # fmt: skip
    """Draw the rows, `at_once` of them; with `select` (and a `key`), the place of the one that was just clicked."""
    red = f"color: {'#ff8a80' if st.context.theme.type == 'dark' else '#b3261e'}"
    data: dict[str, list[Any]] = {}
    config: dict[str, Any] = {}
    styled = []
    for column in columns:
        values = [column.get(row) for row in rows]
        exact = _EXACT.get(column.kind)
        data[column.heading] = [None if value is None else exact(value) for value in values] if exact else values
        if column.kind == "line":
            config[column.heading] = st.column_config.LineChartColumn(width=column.width or "small", y_min=0)
        elif column.kind in ("text", "right"):
            config[column.heading] = st.column_config.TextColumn(
                width=column.width, pinned=column.pinned, alignment="right" if column.kind == "right" else None
            )
        else:
            config[column.heading] = st.column_config.NumberColumn(width=column.width, pinned=column.pinned)
            styled.append((column, values, dict(zip(data[column.heading], values, strict=True))))
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in data.items()})
    formats: dict[str, Any] = {}
    owed: list[str] = []
    for column, values, raw in styled:
        shown = _shown(column.kind, values)
        formats[column.heading] = lambda value, raw=raw, shown=shown: shown(raw.get(value))
        if column.kind == "money" and any(value is not None and value < 0 for value in values):
            owed.append(column.heading)
    style = frame.style.format(formats)  # at once: each time, it goes through the whole table
    if owed:
        style = style.map(lambda value: red if value is not None and value < 0 else "", subset=owed)
    selecting: dict[str, Any] = {}
    if select and key is not None:
        key = f"{key}-{dialog.closed()}"
        selecting = {"on_select": partial(_note_click, key), "selection_mode": "single-cell"}
    st.dataframe(
        style, hide_index=True, column_config=config, alt=alt, key=key, placeholder="",
        height="content" if len(rows) <= at_once else "auto",
        **selecting,
    )  # fmt: skip
    clicked = st.session_state.pop(f"{key}-clicked", None) if select else None
    return clicked if clicked is not None and clicked < len(rows) else None


def _note_click(key: str) -> None:
    """A click counts once: the cell stays selected, but another run doesn't repeat it."""
    for row, _column in st.session_state[key].selection.cells:
        st.session_state[f"{key}-clicked"] = row


def csv_link(what: str, label: str = "", /, **filters: Any) -> None:
    """A button that downloads all that the filters show."""
    given = {name: value for name, value in filters.items() if value not in (None, "", ())}
    st.link_button(
        label or _("Download CSV"),
        f"{api.PREFIX}/export/{what}.csv?{urlencode(given, doseq=True)}",
        icon=":material/download:",
    )
