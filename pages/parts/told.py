"""What has been done is told once, after the page has been drawn anew; what is wrong, beside its field."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from billing_core.errors import BillingError

from .words import _, sentence, yuan


def later(message: str) -> None:
    """Show this as a toast at the page's next run."""
    told = st.session_state.setdefault("told", [])
    if message not in told:  # a double click runs twice
        told.append(message)


def now() -> None:
    for message in st.session_state.pop("told", []):
        st.toast(message, icon=":material/check_circle:", duration="long")


def problem(error: BillingError, otherwise: DeltaGenerator, **places: DeltaGenerator) -> None:
    """Say what is wrong in the place of the field that it is about."""
    places.get(getattr(error, "field", None) or "", otherwise).error(plain(sentence(error)))


def debt(name: str, balance: int) -> None:
    """Say what a balance below 0, in 毫, would mean, before it is one."""
    message = _(
        "{name} will owe {amount} 元: nothing more can be charged until a recharge covers it.",
        name=plain(name), amount=yuan(-balance),
    )  # fmt: skip
    st.markdown(f":small[:red[:material/warning: {message}]]")


def plain(text: str) -> str:
    """Text that people wrote, for a place that reads Markdown."""
    return "".join("\\" + letter if letter in "\\`*_{}[]()<>#+-.!|~:$" else letter for letter in text)
