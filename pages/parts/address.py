"""What is chosen lives in the page's address: a reload, a bookmark and a link show the same.

Streamlit's own `bind="query-params"` writes an option as it is labelled, so that a link would depend on the language; here
it is written as it is called in the code.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from time import monotonic
from typing import Any

import streamlit as st

from billing_core.errors import Invalid

from .words import N_, _

PLACES = ("before", "after")
"""Which page of a list is shown: the one that begins before, or ends after, an entry."""


LATE_SECONDS = 3
"""So long a browser may still send the address that it had before a choice went into it."""


class Unknown(Invalid):
    """A link names what there isn't. What is shown without it would answer another question."""

    def __init__(
        self,
        key: str,
        asked: str,
        message: str = N_(
            "This link asks for “{asked}”, which there is none of here. Leave it out, or choose something else above."
        ),
    ):
        super().__init__(message, field=key, asked=asked[:100])


def leave_out(key: str) -> None:
    """Take something out of the address. For a button's `on_click`."""
    st.query_params.pop(key, None)


def _put(key: str, text: str) -> None:
    if text:
        st.query_params[key] = text
    else:
        st.query_params.pop(key, None)


def _asked(key: str) -> str:
    """What the address holds; where it is late, what was chosen since."""
    text = st.query_params.get(key, "")
    before, chosen, at = st.session_state.get(f"address of {key} on {st.context.url}", ("", "", 0.0))
    if text == before != chosen and monotonic() - at < LATE_SECONDS:
        _put(key, chosen)
        return str(chosen)
    return text


def _bound(key: str, value: Any, default: Any, write: Callable[[Any], str | None]) -> dict[str, Any]:
    """What a widget needs for its value to come from the address and to go there; what `write` has no text for stays with
    the widget."""
    st.session_state[key] = value

    def note() -> None:
        now = st.session_state[key]
        text = "" if now == default or now in (None, "", ()) else write(now)
        if text is None:
            return
        st.session_state[f"address of {key} on {st.context.url}"] = (st.query_params.get(key, ""), text, monotonic())
        _put(key, text)
        _first_page()  # of what another filter shows

    return {"key": key, "on_change": note}


def pick(
    widget: Callable[..., Any], label: str, options: Sequence[str], *, key: str, default: str,
    name: Callable[[str], str] = str, **more: Any,
) -> str:  # fmt: skip
    """One of `options`, in a selectbox or a segmented control. Raises Unknown."""
    asked = _asked(key) or default
    value = asked if asked in options else default
    if widget is st.segmented_control:
        more = {"required": True, "wrap": True, **more}
    chosen: str = widget(label, options, format_func=name, **_bound(key, value, default, str), **more) or default
    if asked not in options:
        raise Unknown(key, asked)
    return chosen


def search(label: str, *, key: str = "q", **more: Any) -> str:
    """A line of text to look for."""
    value = _asked(key)
    more.setdefault("placeholder", _("Search"))
    return st.text_input(label, type="search", **_bound(key, value, "", str), **more) or ""


def dates(label: str, default: tuple[date, date], *, key: str = "dates", **more: Any) -> tuple[date, date]:
    """Two dates, the first not after the second; while only one is chosen, those before. Raises Unknown."""
    asked = _asked(key)
    try:
        value = _two(asked) if asked else default
    except ValueError:
        raise Unknown(key, asked) from None
    more["max_value"] = max(more["max_value"], *value)  # a link may come from where it is tomorrow already

    def write(chosen: tuple[date, ...]) -> str | None:
        return "..".join(day.isoformat() for day in chosen) if len(chosen) == 2 else None

    # While only one date is chosen, the widget keeps it; the address follows when there are two.
    half = st.session_state.get(key)
    bound = _bound(key, half if isinstance(half, tuple) and len(half) == 1 else value, None, write)
    chosen = st.date_input(label, **bound, **more)
    if isinstance(chosen, tuple) and len(chosen) == 2:
        return chosen
    st.caption(_("Choose the last day as well. Until then: {first} – {last}.", first=value[0], last=value[1]))
    return value


def _two(text: str) -> tuple[date, date]:
    """Raises ValueError."""
    first, last = (datetime.strptime(day, "%Y-%m-%d").date() for day in text.split(".."))
    return first, last


def place(name: str) -> int | None:
    """The entry that one of PLACES names."""
    asked = st.query_params.get(name, "")
    return int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 19 else None


def newest_if_none(rows: Sequence[Any]) -> None:
    """Where a page of a list has no rows, show its first page: its own entries may be gone from the filters."""
    if not rows and any(name in st.query_params for name in PLACES):
        _first_page()
        st.rerun()


def _first_page() -> None:
    for name in PLACES:
        leave_out(name)


def pages(first: int | None, last: int | None, *, more: bool) -> None:
    """Buttons for the pages of a list, newest first; `first` and `last` are the entries on this one, `more` says whether
    the list goes on in the direction that it was opened in."""
    backwards = place("after") is not None
    newer = more if backwards else place("before") is not None
    older = backwards or more

    def go(**to: int) -> None:
        _first_page()
        st.query_params.update({name: str(entry) for name, entry in to.items()})

    if newer or older:
        with st.container(horizontal=True, horizontal_alignment="right"):
            st.button(_("Newest"), on_click=go, disabled=not newer, icon=":material/first_page:")
            st.button(
                _("Newer"), on_click=go, kwargs={"after": first}, disabled=not newer, icon=":material/chevron_left:"
            )
            st.button(
                _("Older"),
                on_click=go,
                kwargs={"before": last},
                disabled=not older,
                icon=":material/chevron_right:",
                icon_position="right",
            )


def go(url: str) -> None:
    """Send the browser to a path of this app, outside of Streamlit's pages."""
    st.html(f"<script>window.location.assign({url!r})</script>", unsafe_allow_javascript=True)
    st.stop()
