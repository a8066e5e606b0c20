"""Around every page: who is there, which pages they may see, and what is shown when something goes wrong."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from api import sessions
from billing_core import ledger, signin
from billing_core.database import Database, open_database
from billing_core.errors import BillingError, DatabaseUnavailable

from .. import account, accounts, audit, balance, integrity, logs, my_account, prices, recharge, sign_in, stats, what_if
from . import address, dialog, told
from . import viewer as viewers
from .viewer import Viewer
from .words import N_, _

ICON = Path(__file__).with_name("icon.png")
ROOMS = {
    "": [
        ("balance", N_("Balance"), ":material/account_balance_wallet:", balance.page),
        ("logs", N_("Logs"), ":material/receipt_long:", logs.page),
        ("stats", N_("Stats"), ":material/bar_chart:", stats.page),
        ("prices", N_("Prices"), ":material/sell:", prices.page),
        ("my-account", N_("My account"), ":material/person:", my_account.page),
    ],
    N_("Team"): [
        ("accounts", N_("Accounts"), ":material/group:", accounts.page),
        ("account", N_("Account"), ":material/person_search:", account.page),
        ("recharge", N_("Recharge"), ":material/add_card:", recharge.page),
        ("what-if", N_("What if"), ":material/calculate:", what_if.page),
        ("integrity", N_("Integrity"), ":material/verified_user:", integrity.page),
        ("audit", N_("Audit log"), ":material/history:", audit.page),
    ],
}
"""The navigation's sections, each page with its address, title, icon and function. The second is for admins."""
AGAIN_SECONDS = 5
UNLISTED = ("account",)
"""Pages that others lead to."""


def show() -> None:
    """What a session's script runs."""
    st.set_page_config(page_title=_("Billing"), page_icon=str(ICON), layout="wide", initial_sidebar_state=220)
    try:
        _show()
    except BillingError as error:
        _in_some_language()
        told.problem(error, st.container())
        if isinstance(error, address.Unknown):
            st.button(_("Leave it out"), icon=":material/close:", on_click=address.leave_out, args=(error.field,))
        if isinstance(error, DatabaseUnavailable):
            st.session_state["tried"] = False
            _try_again()


def _in_some_language() -> None:
    """The browser's, where it isn't known yet who looks."""
    if "language" not in st.session_state:
        viewers.choose(None)


@st.fragment(run_every=AGAIN_SECONDS)
def _try_again() -> None:
    """Load the page anew after a while, at its own address: it goes on by itself once the database is back."""
    if st.session_state["tried"]:
        address.go(st.context.url or "/")
    st.session_state["tried"] = True
    st.caption(_("This page tries again every {n} s.", n=AGAIN_SECONDS))


def _show() -> None:
    db = open_database()
    actor = viewers.who(db)
    tz = viewers.choose(actor)
    st.set_page_config(page_title=_("Billing"))  # in the language that is known now
    if actor is None:
        # Every address leads to the form, and from there on to where the visitor wanted to go.
        doors = [
            st.Page(partial(sign_in.page, db), title=_("Sign in"), url_path=path, default=path == "balance")
            for rooms in ROOMS.values()
            for path, *_rest in rooms
        ]
        st.navigation(doors, position="hidden").run()
        return
    ledger.note_expired(db)
    viewer = Viewer(db, actor, tz)
    sections = {
        _(section) if section else "": [_page(viewer, room) for room in rooms]
        for section, rooms in ROOMS.items()
        if not section or viewer.is_admin
    }
    chosen = st.navigation(sections)
    with st.sidebar:
        _foot(db, viewer)
    told.now()
    dialog.stay_on(chosen.url_path)
    chosen.run()


def _page(viewer: Viewer, room: tuple[Any, ...]) -> st.Page:
    path, title, icon, function = room
    page = st.Page(
        partial(function, viewer),
        title=_(title),
        icon=icon,
        url_path=path,
        default=path == "balance",
        visibility="hidden" if path in UNLISTED else "visible",
    )
    viewer.pages[path] = page
    return page


def _foot(db: Database, viewer: Viewer) -> None:
    st.caption(_("Signed in as {name}", name=told.plain(viewer.actor.name)))
    if st.button(_("Sign out"), icon=":material/logout:", type="tertiary"):
        db.write(signin.sign_out, viewers.session_secret())
        address.go(sessions.END)


def unexpected(error: Exception) -> bool:
    """What a viewer reads where a page fails; the rest is for the log."""
    _in_some_language()
    if isinstance(error, BillingError):
        told.problem(error, st.container())
        if isinstance(error, DatabaseUnavailable):
            logging.getLogger("billing").error("%s", error)
        return True
    logging.getLogger("billing").exception("a page failed", exc_info=error)
    st.error(_("Something went wrong here. It has been noted; reload the page, or try again later."))
    return True
