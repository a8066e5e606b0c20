"""Balance: how much is left, and how long will it last?"""

from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core import logs, overview, pricing, stats
from billing_core.actors import Actor
from billing_core.database import Transaction
from billing_core.money import to_yuan

from .parts import charts, entries
from .parts.viewer import Viewer
from .parts.words import _, ngettext, yuan, zone_name


def page(viewer: Viewer) -> None:
    show(viewer, viewer.user_id)


def show(viewer: Viewer, user_id: str) -> None:
    actor, tz = viewer.actor, viewer.tz

    def read(tx: Transaction) -> tuple[Any, ...]:
        days = overview.last_days(tx, tz)
        return (
            *standing(tx, user_id, actor=actor, tz=tz),
            days,
            stats.usage(tx, days, actor=actor, user_id=user_id),
            pricing.model_names(tx),
            logs.page(tx, logs.seen_by(actor, user_id), actor=actor, limit=10),
            tx.now_ns,
        )

    mine, months, spent, balances, days, used, numbers, last, now_ns = viewer.db.read(read)
    st.title(_("Balance"), anchor=False)
    if mine.status == "frozen":
        st.warning(_("This account is frozen: nothing new can be charged to it until an admin unfreezes it."))
    figures(mine, months, spent, balances)
    if not last:
        st.info(
            _(
                "No calls yet. An admin recharges the account; then a program charges its calls to it, and they stand here."
            ),
            icon=":material/hourglass_empty:",
        )
        return
    st.subheader(_("The last 30 days"), anchor=False)
    charts.stacked(days, used, granularity="day", measure="cost", numbers=numbers, now_ns=now_ns, key="spent")
    stats_page = viewer.pages["stats"]
    own = {"account": viewer.user_id} if viewer.is_admin else {}  # where admins see everybody's at first
    st.page_link(
        stats_page, label=_("The figures as a table, and as CSV"), icon=":material/table_chart:", query_params=own
    )
    st.subheader(_("The last entries"), anchor=False)
    entries.table(viewer, last, key="last", balance=True)
    with st.container(horizontal=True, horizontal_alignment="distribute"):
        st.caption(_("Times are in {zone}.", zone=zone_name(tz)))
        st.page_link(viewer.pages["logs"], label=_("All entries"), icon=":material/arrow_forward:", query_params=own)


Standing = tuple[overview.Overview, overview.Months, list[int], list[int]]
"""What `figures` shows: what was spent, and the balance, are those of the last days, oldest first."""


def standing(tx: Transaction, user_id: str, *, actor: Actor, tz: ZoneInfo) -> Standing:
    shown = overview.one(tx, user_id, actor=actor, tz=tz)
    months = overview.months(tx, user_id, actor=actor, tz=tz)
    spent = stats.spent(tx, overview.last_days(tx, tz), actor=actor, user_id=user_id)
    return shown, months, spent, overview.balances(tx, shown, actor=actor, tz=tz)


def figures(mine: overview.Overview, months: overview.Months, daily: list[int], balances: list[int]) -> None:
    """What is left, what was spent, and how long it lasts: an account's most important figures."""
    left, spent, lasts = st.columns(3)
    owed = mine.balance < 0
    left.metric(
        _("Balance, 元"), f":red[{yuan(mine.balance)}]" if owed else yuan(mine.balance),
        delta=_("{amount} 元 held for running calls", amount=yuan(mine.held)) if mine.held else None,
        delta_color="off", delta_arrow="off", border=True, height="stretch",
        chart_data=[float(to_yuan(balance)) for balance in balances], chart_type="line",
    )  # fmt: skip
    spent.metric(
        _("Spent this month, 元"), yuan(months.this), border=True, height="stretch",
        delta=_("{amount} 元 last month", amount=yuan(months.last)), delta_color="off", delta_arrow="off",
        chart_data=[float(to_yuan(cost)) for cost in daily], chart_type="bar",
    )  # fmt: skip
    if owed:
        days, why = (
            ngettext("{n} day", "{n} days", 0),
            _("owed: {amount} 元", amount=yuan(-mine.balance)),
        )
    elif mine.days_left is None:
        days, why = "–", _("nothing spent in two weeks")
    else:
        days = ngettext("{n} day", "{n} days", mine.days_left)
        why = _("at the last two weeks' pace")
    lasts.metric(
        _("Lasts for"), days, delta=why, delta_color="off", delta_arrow="off", border=True, height="stretch",
        chart_data=[float(to_yuan(cost)) for cost in daily[-overview.PACE_DAYS :]], chart_type="area",
    )  # fmt: skip
