"""Charging many calls again at the price that counts now: the dialog that shows what it will do. The job is run and shown
by undoing.py."""

from dataclasses import replace

import streamlit as st

from billing_core import ledger, repricing
from billing_core.logs import Filters, Row
from billing_core.repricing import Preview

from . import dialog, told, undoing
from .tables import Column, table
from .viewer import Viewer
from .words import _, language, ngettext, yuan

FEW = 6
"""How many changes of prices are listed."""


def remark(row: Row) -> str:
    """An entry's remark; of a charge that a repricing wrote what it is, and why."""
    return _("Repriced: {reason}", reason=row.remark) if row.reprices_id else row.remark


def instead_of(row: Row) -> str:
    """The entry that such a charge stands for, and what it had cost, where the two are one line."""
    if row.reprices_id is None:
        return ""
    if row.repriced_from is None:
        return _("entry {id}", id=row.reprices_id)
    return _("entry {id}, which cost {amount} 元", id=row.reprices_id, amount=yuan(row.repriced_from))


def button(filters: Filters) -> None:
    """To charge the calls again that the filters show; not there where they show none."""
    types = tuple(type for type in filters.types or ledger.CALLS if type in ledger.CALLS)
    if types:
        st.button(
            _("Reprice the calls…"), icon=":material/price_change:", type="tertiary", key="reprice",
            on_click=undoing.ask, args=(replace(filters, types=types), "repricings"),
        )  # fmt: skip


def opened(viewer: Viewer) -> None:
    """The dialog, while it is open."""
    asked = dialog.asked("repricings")
    if asked is not None:
        dialog.show(_("Reprice many calls"), undoing.confirm, viewer, REPRICINGS, *asked, width="medium")


def _show(seen: Preview) -> None:
    """From → to, and what stays as it is."""
    if seen.models:
        calls = ngettext("{n} call", "{n} calls", seen.seen.to_reprice)
        st.markdown(
            _(
                "**{calls}**: cost {old} → {new} 元, {amount} 元 on balances in all.", calls=calls, old=yuan(seen.old),
                new=yuan(seen.new), amount=yuan(seen.seen.amount, sign=True),
            )
            + "  \n"
            + _("The entries stay; each gets a reversal and a new charge. Members see them as one line, with the reason.")
        )  # fmt: skip
        _models(seen)
    if len(seen.accounts) == 1:
        undoing.one_balance(seen.accounts[0])
    elif seen.accounts:
        _accounts(seen)
    undoing.warn(seen.into_debt)
    undoing.left_alone(seen.left_alone, repricing.WHY_NOT)


def _models(seen: Preview) -> None:
    lines = [f"- {told.plain(one.model)}: {told.plain(one.sentence(language()))}" for one in seen.models[:FEW]]
    more = ["- …"] if len(seen.models) > FEW else []
    st.caption("\n".join([_("Prices in 元 per million tokens:"), "", *lines, *more]))
    if len(seen.models) == 1:
        return
    columns = [
        Column(_("Model"), lambda one: one.model, width=180),
        Column(_("Calls"), lambda one: one.entries, "count", width=70),
        Column(_("Cost, 元"), lambda one: one.old, "money"),
        Column(_("New cost, 元"), lambda one: one.new, "money"),
        Column(_("On balances, 元"), lambda one: one.amount, "signed"),
    ]
    table(columns, seen.models, alt=_("Costs before and after, by model and price"), at_once=8)


def _accounts(seen: Preview) -> None:
    columns = [
        Column(_("Account"), lambda one: one.name, width=100),
        Column(_("Calls"), lambda one: one.entries, "count", width=60),
        Column(_("Cost, 元"), lambda one: one.old, "money", width=80),
        Column(_("New cost, 元"), lambda one: one.new, "money", width=90),
        Column(_("Balance now, 元"), lambda one: one.before, "money"),
        Column(_("Balance then, 元"), lambda one: one.after, "money"),
    ]
    table(columns, seen.accounts, alt=_("Balances before and after, by account"), at_once=8)


REPRICINGS = undoing.Kind(
    "repricings", repricing.preview, repricing.start, _show,
    lambda seen: ngettext("Reprice {n} call", "Reprice {n} calls", seen.seen.to_reprice),
    lambda seen: "" if seen.seen.to_reprice else _("None of these calls would cost anything else. Correct the price first."),
)  # fmt: skip
