"""Statements: a month of an account, to print or as CSV; and whether the ledger still says what one says."""

from urllib.parse import quote, urlencode

import streamlit as st
from dateutil.relativedelta import relativedelta

import api
from billing_core import accounts, statement, stats
from billing_core.errors import BillingError

from . import told
from .viewer import Viewer
from .words import _, language, period_label, zone_name


def show(viewer: Viewer, user_id: str) -> None:
    """The months since the account was made, each as a file."""
    account = viewer.db.read(accounts.find, user_id)
    now_ns = viewer.db.clock()
    first, today = (stats.from_ns(ns, viewer.tz).date() for ns in (min(account.created_at_ns, now_ns), now_ns))
    whole = stats.periods_between(first.replace(day=1), today + relativedelta(day=31), "month", viewer.tz)
    months = {one.start.strftime("%Y-%m"): one for one in whole[::-1]}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        month = st.selectbox(
            _("Month"), list(months), format_func=lambda name: period_label(months[name], "month"),
            index=min(1, len(months) - 1), key=f"statement {account.id}", width=240,
        )  # fmt: skip
        _link(viewer, user_id, month, "html", _("Open, to read or print"), ":material/print:")
        _link(viewer, user_id, month, "csv", _("Download CSV"), ":material/download:")
    st.caption(
        _(
            "Opening balance, every entry, closing balance, and the seal that vouches for them. An entry stands in the month "
            "in which it was written into the ledger. Months are cut in {zone}.",
            zone=zone_name(viewer.tz),
        )
    )
    with st.expander(_("Verify a statement"), icon=":material/verified:"):
        verify_upload(viewer, key=f"verify {account.id}")


def _link(viewer: Viewer, user_id: str, month: str, format: str, label: str, icon: str) -> None:
    whose = "" if user_id == viewer.user_id else f"/{quote(user_id)}"
    asked = urlencode({"month": month, "format": format, "timezone": viewer.tz.key, "lang": language()})
    st.link_button(label, f"{api.PREFIX}/statements{whose}?{asked}", icon=icon)


def verify_upload(viewer: Viewer, *, key: str) -> None:
    """A place for a statement's file, and what the ledger says to it."""
    file = st.file_uploader(
        _("A statement, as it was downloaded: HTML or CSV"), type=["html", "csv"], key=key, max_upload_size=64
    )
    if file is None:
        return
    try:
        verdict = statement.verify(viewer.db, file.getvalue(), actor=viewer.actor)
    except BillingError as error:
        told.problem(error, st.container())
        return
    said = told.plain(verdict.sentence(language()))
    if verdict.difference is None:
        st.success(said, icon=":material/verified:")
    else:
        st.error(said, icon=":material/gpp_bad:")
