"""What is chosen lives in the page's address: a reload, a bookmark and a link show the same.

Streamlit's own `bind="query-params"` writes an option as it is labelled, so that a link would depend on the language; here
it is written as it is called in the code.
"""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import streamlit as st


def _bound(key: str, value: Any, default: Any, write: Callable[[Any], str]) -> dict[str, Any]:
    """What a widget needs for its value to come from the address and to go there."""
    st.session_state[key] = value

    def note() -> None:
        now = st.session_state[key]
        if now == default or now in (None, "", ()):
            st.query_params.pop(key, None)
        else:
            st.query_params[key] = write(now)
        st.query_params.pop("page", None)  # another filter begins at the first page

    return {"key": key, "on_change": note}


def pick(
    widget: Callable[..., Any], label: str, options: Sequence[str], *, key: str, default: str,
    name: Callable[[str], str] = str, **more: Any,
) -> str:  # fmt: skip
    """One of `options`, in a selectbox or a segmented control."""
    asked = st.query_params.get(key, default)
    value = asked if asked in options else default
    return widget(label, options, format_func=name, **_bound(key, value, default, str), **more) or default


def search(label: str, *, key: str = "q", **more: Any) -> str:
    """A line of text to look for."""
    value = st.query_params.get(key, "")
    return st.text_input(label, type="search", **_bound(key, value, "", str), **more) or ""


def dates(label: str, default: tuple[date, date], *, key: str = "dates", **more: Any) -> tuple[date, date] | None:
    """Two dates, the first not after the second; None while only one has been chosen."""
    try:
        first, _, last = st.query_params.get(key, "").partition("..")
        value = (date.fromisoformat(first), date.fromisoformat(last))
    except ValueError:
        value = default

    def write(chosen: tuple[date, ...]) -> str:
        return "..".join(day.isoformat() for day in chosen)

    # While only one date is chosen, the widget keeps it; the address follows when there are two.
    half = st.session_state.get(key)
    bound = _bound(key, half if isinstance(half, tuple) and len(half) == 1 else value, None, write)
    chosen = st.date_input(label, **bound, **more)
    return chosen if isinstance(chosen, tuple) and len(chosen) == 2 else None
