"""My account: password, keys, language and time zone."""

import streamlit as st

from billing_core import accounts, signin
from billing_core import zones as timezones
from billing_core.errors import BillingError, NotSignedIn
from billing_core.i18n import LANGUAGES

from .parts import keys, statements, told
from .parts import viewer as viewers
from .parts.viewer import Viewer
from .parts.words import _


def page(viewer: Viewer) -> None:
    st.title(_("My account"), anchor=False)
    rights = _("admin") if viewer.is_admin else _("member")
    st.markdown(f"{told.plain(viewer.actor.name)} · {told.plain(viewer.user_id)} · {rights}")
    st.subheader(_("Statements"), anchor=False)
    statements.show(viewer, viewer.user_id)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader(_("Language and time zone"), anchor=False)
        _choices(viewer)
    with right:
        st.subheader(_("Password"), anchor=False)
        _password(viewer)
    st.subheader(_("Keys for programs"), anchor=False)
    if not viewer.is_admin:
        st.caption(
            _(
                "A key made here reads this account: its balance, logs and stats. Keys that may charge are made by admins."
            )
        )
    keys.show(viewer, viewer.user_id)


def _choices(viewer: Viewer) -> None:
    """What follows the browser until it is chosen."""
    browser = {"": _("As the browser says")}
    languages = {**browser, **LANGUAGES}
    zones = {**browser, **{name: name for name in sorted(timezones.names()) if "/" in name or name == "UTC"}}
    with st.form("choices"):
        language = st.selectbox(
            _("Language"), list(languages), format_func=languages.__getitem__,
            index=list(languages).index(viewer.actor.language or ""),
        )  # fmt: skip
        zone = st.selectbox(
            _("Time zone"), list(zones), format_func=zones.__getitem__,
            index=list(zones).index(viewer.actor.timezone or "") if (viewer.actor.timezone or "") in zones else 0,
        )  # fmt: skip
        asked = st.form_submit_button(_("Save"))
    if asked:
        viewer.db.write(accounts.choose, actor=viewer.actor, language=language or None, timezone=zone or None)
        told.later(_("Language and time zone are saved."))
        st.rerun()


def _password(viewer: Viewer) -> None:
    with st.form("password", clear_on_submit=False):
        old = st.text_input(_("Present password"), type="password", autocomplete="current-password", key="old")
        new = st.text_input(
            _("New password"), type="password", autocomplete="new-password", key="new",
            help=_("At least 8 characters. A short sentence is easy to remember."),
        )  # fmt: skip
        asked = st.form_submit_button(_("Change my password"))
    if asked:
        try:
            signin.check_password(viewer.db, viewer.user_id, old)
            viewer.db.write(
                signin.change_password, viewer.user_id, signin.hash_password(new), actor=viewer.actor,
                keep_session=viewers.session_secret(),
            )  # fmt: skip
        except NotSignedIn:
            st.error(_("The present password is wrong."))
            return
        except BillingError as error:
            told.problem(error, st.container())
            return
        told.later(_("The password is changed. Other sessions of yours have ended."))
        st.rerun()
