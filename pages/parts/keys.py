"""An account's keys: listed with their last use, added (shown once), revoked."""

import streamlit as st

from billing_core import signin
from billing_core.errors import BillingError
from billing_core.i18n import N_
from billing_core.models import ApiKey

from . import dialog, told
from .tables import Column, table
from .viewer import Viewer
from .words import _, moment

RIGHTS = {"": N_("reads its own account"), "charge": N_("charges calls"), "admin": N_("does what an admin may")}


def show(viewer: Viewer, user_id: str) -> None:
    """The keys of an account that the viewer may see."""
    found = [key for key, _owner in viewer.db.read(signin.keys, user_id, actor=viewer.actor)]
    if found:
        _table(viewer, found)
        _revoke(viewer, [key for key in found if key.revoked_at_ns is None])
    _add(viewer, user_id)


def _table(viewer: Viewer, found: list[ApiKey]) -> None:
    def used(key: ApiKey) -> str:
        return moment(key.last_used_at_ns, viewer.tz) if key.last_used_at_ns else _("never")

    table(
        [
            Column(_("Name"), lambda key: key.name or "–"),
            Column(_("Begins with"), lambda key: f"{key.hint}…"),
            Column(_("May"), lambda key: _(RIGHTS[key.can])),
            Column(_("Made"), lambda key: moment(key.created_at_ns, viewer.tz)),
            Column(_("Last used"), used),
            Column(_("Revoked"), lambda key: moment(key.revoked_at_ns, viewer.tz) if key.revoked_at_ns else ""),
        ],
        found,
        alt=_("Keys"),
    )


def _revoke(viewer: Viewer, active: list[ApiKey]) -> None:
    names = {key.id: f"{key.name or '–'} ({key.hint}…)" for key in active}
    if not names:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            _("Revoke a key"), list(names), format_func=names.__getitem__, index=None, placeholder=_("Choose a key")
        )
        asked = st.button(
            _("Revoke it: programs that use it are refused"), disabled=chosen is None, icon=":material/key_off:"
        )
    if asked and chosen is not None:
        viewer.db.write(signin.revoke_key, chosen, actor=viewer.actor)
        told.later(_("The key is revoked."))
        st.rerun()


def _add(viewer: Viewer, user_id: str) -> None:
    kept = dialog.on_this_page()
    shown, made = f"secret of {user_id}", f"keys made for {user_id}"
    # A new form after each key: the second half of a double click finds the old one gone.
    form = st.form(f"add-key-{user_id}-{st.session_state.setdefault(made, 0)}")
    with form, st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(_("Name of a new key"), placeholder=_("What will use it"), max_chars=100)
        rights = list(RIGHTS) if viewer.is_admin else [""]
        can = st.selectbox(_("What it may do"), rights, format_func=lambda right: _(RIGHTS[right]))
        asked = st.form_submit_button(_("Add a key"), icon=":material/key:")
    if asked and not name.strip():
        st.error(_("Give the key a name: what will use it."))
    elif asked:
        try:
            _key, kept[shown] = viewer.db.write(signin.add_key, user_id, actor=viewer.actor, name=name, can=can)
        except BillingError as error:
            told.problem(error, st.container())
            return
        st.session_state[made] += 1
        st.rerun()
    if shown in kept:
        st.success(_("Copy the key now: it is shown only this once."), icon=":material/key:")
        st.code(kept[shown], language=None)
        st.button(_("I have copied it"), on_click=kept.pop, args=(shown, None), icon=":material/check:")
