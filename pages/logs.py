"""Logs: what was that?"""

import streamlit as st

from billing_core import logs, pricing
from billing_core.database import Transaction
from billing_core.stats import Period, from_ns

from .parts import address, entries, people, ranges, repricing, undoing
from .parts.tables import csv_link
from .parts.viewer import Viewer
from .parts.words import TYPES, _, ngettext, yuan, zone_name

AT_ONCE = 50
KINDS = {"": None, "calls": ("deduct", "settle"), **{type: (type,) for type in TYPES}}
"""What may be chosen as type, and the types of entries that it means."""


def page(viewer: Viewer) -> None:
    st.title(_("Logs"), anchor=False)
    if viewer.is_admin:
        undoing.jobs(viewer)
        undoing.opened(viewer)
        repricing.opened(viewer)
    periods, filters = _filters(viewer)
    before, after = address.place("before"), address.place("after")

    def read(tx: Transaction) -> tuple[list[logs.Row], logs.Sum]:
        found = logs.page(tx, filters, actor=viewer.actor, limit=AT_ONCE + 1, before=before, after=after)
        return found, logs.total(tx, filters, actor=viewer.actor)

    found, total = viewer.db.read(read)
    more = len(found) > AT_ONCE
    rows = found[-AT_ONCE:] if after is not None else found[:AT_ONCE]
    address.newest_if_none(rows)
    if not rows:
        st.info(_("Nothing here yet that passes these filters. Choose a longer range, or take a filter away."))
        return
    _sum(viewer, periods, filters, total)
    if viewer.is_admin:
        with st.container(horizontal=True):
            undoing.button(filters, total.entries)
            repricing.button(filters)
    entries.table(viewer, rows, key="entries", balance=filters.user_id is not None, account=filters.user_id is None)
    address.pages(rows[0].id, rows[-1].id, more=more)
    st.caption(_("Click a row to see tokens × price = cost. Times are in {zone}.", zone=zone_name(viewer.tz)))


def _filters(viewer: Viewer) -> tuple[list[Period], logs.Filters]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        periods, _granularity = ranges.choose(viewer, "7d")
    columns = st.columns(4 if viewer.is_admin else 3)
    with columns[-4] if viewer.is_admin else st.empty():
        user_id = people.choose(viewer)
    with columns[-3]:
        models = ["", *viewer.db.read(pricing.model_names)]
        model = address.pick(
            st.selectbox, _("Model"), models, key="model", default="", name=lambda name: name or _("All models")
        )
    with columns[-2]:
        names = {"": _("All types"), "calls": _("All calls"), **{type: _(name) for type, name in TYPES.items()}}
        kind = address.pick(st.selectbox, _("Type"), list(KINDS), key="type", default="", name=names.__getitem__)
    with columns[-1]:
        search = address.search(_("Text in the remark"))
    return periods, logs.Filters(
        user_id=user_id, start_ns=periods[0].start_ns, end_ns=periods[-1].end_ns, model=model,
        types=KINDS[kind] or (), search=search, merged=not viewer.is_admin,
    )  # fmt: skip


def _sum(viewer: Viewer, periods: list[Period], filters: logs.Filters, total: logs.Sum) -> None:
    """What the filters show, added up, and all of it as a file."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        cost = f"**{yuan(total.cost)}**"
        # Not “spent”: a range may hold a call without its reversal, or a reversal without its call.
        spent = _("{amount} 元 total cost", amount=cost)
        recharged = _("{amount} 元 recharged", amount=f"**{yuan(total.recharged)}**")
        st.markdown(
            " · ".join([ngettext("{n} entry", "{n} entries", total.entries), spent, recharged]), width="content",
            help=_("Of the entries that are shown: a reversal counts when it was made. Stats says what a range cost."),
        )  # fmt: skip
        csv_link(
            "logs", user_id=filters.user_id, all="" if filters.user_id else "true", model=filters.model,
            type=filters.types, search=filters.search, timezone=viewer.tz.key,
            start=periods[0].start.isoformat(), end=from_ns(periods[-1].end_ns, viewer.tz).isoformat(),
        )  # fmt: skip
