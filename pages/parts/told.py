"""What has been done is told once, after the page has been drawn anew."""

import streamlit as st


def later(message: str) -> None:
    """Show this as a toast at the page's next run."""
    st.session_state.setdefault("told", []).append(message)


def now() -> None:
    for message in st.session_state.pop("told", []):
        st.toast(message, icon=":material/check_circle:", duration="long")


def plain(text: str) -> str:
    """Text that people wrote, for a place that reads Markdown."""
    return "".join("\\" + letter if letter in "\\`*_{}[]()<>#+-.!|~:$" else letter for letter in text)
