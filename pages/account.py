"""One account, as an admin sees it: what it has, who it is, how it gets in."""

import streamlit as st

from billing_core import accounts, signin
from billing_core.accounts import find
from billing_core.database import Transaction
from billing_core.errors import BillingError, UnknownAccount
from billing_core.models import Account
from billing_core.overview import Overview

from . import balance
from .parts import dialog, keys, statements, told
from .parts.viewer import Viewer
from .parts.words import ROLES, STATUSES, _, yuan


def page(viewer: Viewer) -> None:
    st.page_link(viewer.pages["accounts"], label=_("All accounts"), icon=":material/arrow_back:")
    if "account" not in st.query_params:
        st.info(_("Choose one of the accounts."))
        return
    try:
        _show(viewer, st.query_params["account"])
    except UnknownAccount as error:
        told.problem(error, st.container())


def _show(viewer: Viewer, user_id: str) -> None:
    actor, tz = viewer.actor, viewer.tz

    def read(tx: Transaction) -> tuple[Account, balance.Standing]:
        return find(tx, user_id), balance.standing(tx, user_id, actor=actor, tz=tz)

    account, standing = viewer.db.read(read)
    name = told.plain(account.name)
    st.title(name, anchor=False)
    facts = (account.user_id, _(ROLES[account.role]), _(STATUSES[account.status]), account.email)
    st.markdown(" · ".join(told.plain(fact) for fact in facts if fact))
    if account.status == "frozen":
        st.warning(
            _("{name} is frozen: nothing new can be charged until you unfreeze the account.", name=name),
            icon=":material/ac_unit:",
        )
    balance.figures(*standing)
    _links(viewer, user_id)
    st.subheader(_("Statements"), anchor=False)
    statements.show(viewer, user_id)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader(_("Name and role"), anchor=False)
        _edit(viewer, account)
    with right:
        st.subheader(_("Signing in"), anchor=False)
        _password(viewer, account)
        _freezing(viewer, account, standing[0])
    st.subheader(_("Keys for programs"), anchor=False)
    keys.show(viewer, user_id)


def _links(viewer: Viewer, user_id: str) -> None:
    labels = (
        ("recharge", _("Recharge"), ":material/add_card:"),
        ("logs", _("Logs"), ":material/receipt_long:"),
        ("stats", _("Stats"), ":material/bar_chart:"),
    )
    with st.container(horizontal=True):
        for path, label, icon in labels:
            st.page_link(viewer.pages[path], label=label, icon=icon, query_params={"account": user_id})


def _edit(viewer: Viewer, account: Account) -> None:
    with st.form("edit"):
        name = st.text_input(_("Name, as others see it"), account.name, autocomplete="off", key=f"name {account.id}")
        by_name = st.empty()
        email = st.text_input(_("Email (may stay empty)"), account.email, autocomplete="off", key=f"email {account.id}")
        by_email = st.empty()
        role = st.segmented_control(
            _("Role"), list(ROLES), format_func=lambda role: _(ROLES[role]), default=account.role, required=True,
            help=_("An admin sees and recharges everybody, and sets prices."), key=f"role {account.id}",
        )  # fmt: skip
        by_role = st.empty()
        asked = st.form_submit_button(_("Save {name}", name=told.plain(account.name)))
    if asked:
        try:
            changed = viewer.db.write(
                accounts.change, account.user_id, actor=viewer.actor, name=name, email=email, role=role
            )
        except BillingError as error:
            told.problem(error, by_role, name=by_name, email=by_email)
            return
        told.later(_("{name} is saved.", name=told.plain(changed.name)))
        st.rerun()


def _password(viewer: Viewer, account: Account) -> None:
    if account.user_id == viewer.user_id:
        st.page_link(viewer.pages["my-account"], label=_("Change your own password"), icon=":material/person:")
        return
    name = told.plain(account.name)
    with st.form("password", clear_on_submit=True):
        password = st.text_input(
            _("New password"), type="password", autocomplete="new-password", key=f"password {account.id}",
            help=_("At least 8 characters. A short sentence is easy to remember."),
        )  # fmt: skip
        by_password = st.empty()
        st.caption(_("{name} is signed out everywhere then. Pass the new password on.", name=name))
        asked = st.form_submit_button(_("Set the password of {name}", name=name))
    if asked:
        try:
            password_hash = signin.hash_password(password)
            viewer.db.write(signin.change_password, account.user_id, password_hash, actor=viewer.actor)
        except BillingError as error:
            told.problem(error, by_password)
            return
        told.later(_("{name} has a new password.", name=name))
        st.rerun()


def _freezing(viewer: Viewer, account: Account, shown: Overview) -> None:
    frozen = account.status == "frozen"
    name = told.plain(account.name)
    label = _("Unfreeze {name}", name=name) if frozen else _("Freeze {name}", name=name)
    icon = ":material/mode_heat:" if frozen else ":material/ac_unit:"
    st.button(label, icon=icon, on_click=dialog.open, args=("freeze", account.user_id))
    if dialog.asked("freeze") == (account.user_id,):
        dialog.show(label, _freeze, viewer, shown, label, icon)


def _freeze(viewer: Viewer, shown: Overview, label: str, icon: str) -> None:
    """What will happen, before it does."""
    name = told.plain(shown.name)
    if shown.status == "frozen":
        effects = [
            _("New calls can be charged to {name} again.", name=name),
            _("{name} and the account's keys can sign in again.", name=name),
        ]
        status, message = "active", _("{name} is unfrozen.", name=name)
    else:
        effects = [
            _("New charges and holds are refused from now on."),
            _("{name} is signed out everywhere, and can't sign in.", name=name),
            _("{amount} 元 held for running calls can still be settled or given back.", amount=yuan(shown.held))
            if shown.held
            else _("Nothing is held for running calls."),
            _("The balance of {amount} 元 stays.", amount=yuan(shown.balance)),
        ]
        status, message = "frozen", _("{name} is frozen.", name=name)
    st.markdown("\n".join(f"- {effect}" for effect in effects))
    if st.button(label, type="primary", icon=icon, key="do freeze"):
        try:
            viewer.db.write(accounts.change, shown.user_id, actor=viewer.actor, status=status)
        except BillingError as error:
            told.problem(error, st.container())
            return
        dialog.done(message)
