"""One dialog at a time. It stays open, whatever makes the page run again, until its work is done or it is closed."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import streamlit as st

from . import told

T = TypeVar("T")


def open(name: str, *about: Any) -> None:
    """Open the dialog `name`; `about` says what it is about. For a button's `on_click`."""
    st.session_state["dialog"] = (name, about)
    st.session_state.pop("dialog seen", None)


def close() -> None:
    if st.session_state.pop("dialog", None) is not None:
        st.session_state["dialogs closed"] = closed() + 1


def closed() -> int:
    """How many dialogs were closed so far. A table that opens one has this in its key: after it, it is drawn as a new
    table in which nothing is selected, and the browser's late word of the click that opened the dialog opens none."""
    count: int = st.session_state.get("dialogs closed", 0)
    return count


def stay_on(page: str) -> None:
    """At the beginning of each run: neither a dialog nor what is kept on this page follows its viewer to another one."""
    if st.session_state.get("dialog page") != page:
        close()
        st.session_state.pop("until it is left", None)
        st.session_state["dialog page"] = page


def on_this_page() -> dict[str, Any]:
    """What is kept until its viewer goes to another page."""
    kept: dict[str, Any] = st.session_state.setdefault("until it is left", {})
    return kept


def asked(name: str) -> tuple[Any, ...] | None:
    """What the dialog `name` is about, while it is open."""
    opened, about = st.session_state.get("dialog", ("", ()))
    return about if opened == name else None


def seen(read: Callable[[], T]) -> T:
    """What `read` gave when the open dialog was drawn first, and its viewer saw it."""
    if "dialog seen" not in st.session_state:
        st.session_state["dialog seen"] = read()
    first: T = st.session_state["dialog seen"]
    return first


def fresh(key: str, times: int) -> str:
    """A widget's key that is another one each time: the browser would send what it held under the one before."""
    return f"{key} {times}" if times else key


def show(title: str, content: Callable[..., None], *about: Any, width: Literal["small", "medium"] = "small") -> None:
    st.dialog(title, width=width, on_dismiss=close)(content)(*about)


def done(message: str) -> None:
    """Close the dialog, draw the page anew, and tell what has happened."""
    close()
    told.later(message)
    st.rerun()
