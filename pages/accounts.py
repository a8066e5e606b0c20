"""Accounts: who has what?"""

import streamlit as st

from billing_core import accounts, overview, signin, stats
from billing_core.database import Transaction
from billing_core.errors import BillingError
from billing_core.money import to_yuan
from billing_core.overview import Overview, Team

from .parts import address, dialog, told
from .parts.tables import Column, csv_link, paged, table
from .parts.viewer import Viewer
from .parts.words import ROLES, STATUSES, _, listed, yuan


def page(viewer: Viewer) -> None:
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.title(_("Accounts"), anchor=False, width="content")
        st.button(
            _("Add an account"), type="primary", icon=":material/person_add:", on_click=dialog.open,
            args=("add account",),
        )  # fmt: skip
    if dialog.asked("add account") is not None:
        dialog.show(_("Add an account"), _add, viewer)
    figures = st.container()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = address.search(_("Search by name, id or email"))
        csv_link("accounts", search=search, timezone=viewer.tz.key)
    team = viewer.db.read(overview.team, actor=viewer.actor, tz=viewer.tz, search=search)
    with figures:
        _figures(team)
    if not team.rows:
        st.info(_("No account has this in its name, id or email. Search for less, or add the account."))
        return
    _table(viewer, team)
    if len(team.rows) == 1 and not search:
        st.info(
            _("You are alone here so far. Add the members of your team, then recharge them."),
            icon=":material/group_add:",
        )


def _figures(team: Team) -> None:
    left, soon, owing = st.columns(3)
    left.metric(
        _("Balance of the team, 元"), yuan(team.balance), border=True, height="stretch",
        delta=_("{amount} 元 spent in 30 days", amount=yuan(team.spent)), delta_color="off", delta_arrow="off",
    )  # fmt: skip
    soon.metric(
        _("Runs out this week"), len(team.soon), border=True, height="stretch",
        delta=_names(team.soon) or _("nobody does"), delta_color="off", delta_arrow="off",
    )  # fmt: skip
    owing.metric(
        _("In debt"), f":red[{len(team.in_debt)}]" if team.in_debt else 0, border=True, height="stretch",
        delta=_names(team.in_debt) or _("Nobody owes anything"), delta_color="off", delta_arrow="off",
    )  # fmt: skip


def _names(found: list[Overview]) -> str:
    return told.plain(listed([*(one.name for one in found[:4]), *(["…"] if len(found) > 4 else [])]))


def _table(viewer: Viewer, team: Team) -> None:
    with paged(overview.neediest_first(team.rows), key="accounts") as rows:
        daily = viewer.db.read(_daily, viewer, [row.user_id for row in rows])
        columns = [
            Column(_("Name"), lambda row: row.name),
            Column(_("Id"), lambda row: row.user_id),
            Column(_("Balance, 元"), lambda row: row.balance, "money"),
            Column(_("Days left"), lambda row: row.days_left, "count"),
            Column(_("Spent in 30 days, 元"), lambda row: row.spent, "money"),
            Column(_("Day by day"), lambda row: [float(to_yuan(cost)) for cost in daily[row.user_id]], "line"),
            Column(_("Role"), lambda row: _(ROLES[row.role])),
            Column(_("Status"), lambda row: _(STATUSES[row.status])),
        ]
        clicked = table(
            columns, rows, alt=_("Accounts: in debt first, then who runs out first"), key="accounts", select=True
        )
    if clicked is not None:
        st.switch_page(viewer.pages["account"], query_params={"account": rows[clicked].user_id})
    st.caption(_("In debt first, then who runs out this week, then by name. Click a row to open the account."))


def _daily(tx: Transaction, viewer: Viewer, user_ids: list[str]) -> dict[str, list[int]]:
    return stats.spent_by(tx, overview.last_days(tx, viewer.tz), actor=viewer.actor, user_ids=user_ids)


def _add(viewer: Viewer) -> None:
    with st.form("add account", border=False):
        user_id = st.text_input(_("Id, to sign in with"), placeholder="ann", autocomplete="off", key="new id")
        by_id = st.empty()
        name = st.text_input(_("Name, as others see it"), placeholder="Ann", autocomplete="off", key="new name")
        by_name = st.empty()
        email = st.text_input(_("Email (may stay empty)"), autocomplete="off", key="new email")
        by_email = st.empty()
        role = st.segmented_control(
            _("Role"), list(ROLES), format_func=lambda role: _(ROLES[role]), default="member", required=True,
            help=_("An admin sees and recharges everybody, and sets prices."), key="new role",
        )  # fmt: skip
        password = st.text_input(
            _("First password (may stay empty)"), type="password", autocomplete="new-password", key="new password",
            help=_("Without one, the account can be charged but nobody can sign in to it."),
        )  # fmt: skip
        by_password = st.empty()
        asked = st.form_submit_button(_("Add the account"), type="primary", icon=":material/person_add:")
    if asked:
        try:
            password_hash = signin.hash_password(password) if password else None
            account = viewer.db.write(
                accounts.add, user_id, name, actor=viewer.actor, email=email, role=role or "member",
                password_hash=password_hash,
            )  # fmt: skip
        except BillingError as error:
            told.problem(error, by_id, name=by_name, email=by_email, password=by_password)
            return
        dialog.close()
        told.later(_("{name} is added. A recharge comes next.", name=told.plain(account.name)))
        st.switch_page(viewer.pages["account"], query_params={"account": account.user_id})
