"""Audit log: who changed what that is no entry?"""

import json

import streamlit as st

from billing_core import audit, stats
from billing_core.audit import Noted
from billing_core.glossary import KINDS

from .parts import address, dialog, told
from .parts.tables import Column, csv_link, table
from .parts.viewer import Viewer
from .parts.words import _, language, moment, zone_name

AT_ONCE = 50


def page(viewer: Viewer) -> None:
    st.title(_("Audit log"), anchor=False)
    kind_place, search_place = st.columns(2)
    with kind_place:
        names = {"": _("Everything"), **{kind: _(name) for kind, name in KINDS.items()}}
        kind = address.pick(st.selectbox, _("What"), list(names), key="kind", default="", name=names.__getitem__)
    with search_place:
        search = address.search(_("Who, whom or what"))
    before, after = address.place("before"), address.place("after")
    found = viewer.db.read(
        audit.page, actor=viewer.actor, kind=kind, search=search, before=before, after=after, limit=AT_ONCE + 1
    )
    more = len(found) > AT_ONCE
    rows = found[-AT_ONCE:] if after is not None else found[:AT_ONCE]
    address.newest_if_none(rows)
    if not rows:
        st.info(
            _("Nothing like that has been done. Changes of prices, accounts, keys, passwords and settings stand here.")
        )
        return
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.caption(_("Whatever is done that is no entry of the ledger; nothing here can be changed or removed."))
        csv_link("audit", kind=kind, search=search, timezone=viewer.tz.key)
    _table(viewer, rows)
    address.pages(rows[0].id, rows[-1].id, more=more)
    st.caption(_("Click a row to see all of it. Times are in {zone}.", zone=zone_name(viewer.tz)))


def _table(viewer: Viewer, rows: list[Noted]) -> None:
    year = stats.from_ns(viewer.db.clock(), viewer.tz).year
    columns = [
        Column(_("Time"), lambda row: moment(row.at_ns, viewer.tz, this_year=year), width=165),
        Column(_("What"), lambda row: _said(viewer, row), width=560),
        Column(_("Where from"), lambda row: audit.origin(row, language()), width=110),
    ]
    clicked = table(columns, rows, alt=_("What was done, newest first"), key="audit", select=True)
    if clicked is not None:
        dialog.open("audit", rows[clicked].id)
    asked = dialog.asked("audit")
    opened = next((row for row in rows if asked == (row.id,)), None)
    if opened:
        dialog.show(_("Line {id}", id=opened.id), _opened, viewer, opened, width="medium")


def _said(viewer: Viewer, row: Noted) -> str:
    return audit.sentence(row, language(), when=lambda ns: moment(ns, viewer.tz))


def _opened(viewer: Viewer, row: Noted) -> None:
    st.markdown(told.plain(_said(viewer, row)))
    who = audit.who(row, language())
    facts = [
        (_("By"), told.plain(f"{who} ({row.user_id})" if row.user_id else who)),
        (_("Time"), told.plain(moment(row.at_ns, viewer.tz, full=True))),
        (_("Where from"), told.plain(audit.origin(row, language()))),
        (_("Action"), f"`{row.action}`"),
    ]
    st.markdown("  \n".join(f"**{name}** {value}" for name, value in facts))
    if row.detail:
        st.caption(_("As it is kept; prices in 10⁻⁶ 元 per million tokens."))
        st.code(json.dumps(row.detail, ensure_ascii=False, indent=2), language="json", wrap_lines=True)
