"""Whose figures are shown: one's own; an admin chooses among all accounts."""

import streamlit as st

from billing_core import accounts
from billing_core.actors import Actor
from billing_core.database import Transaction

from . import address
from .viewer import Viewer
from .words import N_, _

ALL = "/"
"""All accounts: no id has a slash."""


def choose(viewer: Viewer) -> str | None:
    """The account whose figures are shown; None: all of them. Raises Unknown."""
    if not viewer.is_admin:
        if (asked := st.query_params.get("account", viewer.user_id)) != viewer.user_id:
            raise address.Unknown(
                "account", asked, N_("This link is about the account “{asked}”. You can see your own alone.")
            )
        return viewer.user_id
    called = {ALL: _("All accounts"), **viewer.db.read(names, viewer.actor)}
    chosen = address.pick(st.selectbox, _("Account"), list(called), key="account", default=ALL, name=called.__getitem__)
    return None if chosen == ALL else chosen


def names(tx: Transaction, actor: Actor) -> dict[str, str]:
    """What to call each account in a list to choose from."""
    return {one.user_id: f"{one.name} ({one.user_id})" for one in accounts.known(tx, actor=actor)}
