"""Entries of the ledger: a table of them, and one of them step by step."""

from collections.abc import Sequence

import streamlit as st

from billing_core import ledger, logs
from billing_core.errors import BillingError
from billing_core.logs import Row

from . import told
from .tables import Column
from .tables import table as draw
from .viewer import Viewer
from .words import SOURCES, TYPES, _, count, moment, price, sentence, yuan


def table(viewer: Viewer, rows: Sequence[Row], *, key: str, balance: bool = False, account: bool = False) -> None:
    """The rows; one that is clicked opens. `balance`: with the balance after each; `account`: with whose they are."""
    columns = [
        Column(_("Time"), lambda row: moment(row.created_at_ns, viewer.tz), width=130),
        *([Column(_("Account"), lambda row: row.name, width=110)] if account else []),
        Column(_("Type"), lambda row: _(TYPES[row.type]), width=90),
        Column(_("Model or remark"), about),
        Column(_("Input"), lambda row: row.prompt_tokens, "count", width=75),
        Column(_("Output"), lambda row: row.completion_tokens, "count", width=75),
        Column(_("Amount, 元"), lambda row: row.amount, "signed", width=95),
        *([Column(_("Balance, 元"), lambda row: row.balance_after, "money", width=100)] if balance else []),
    ]
    place = draw(columns, rows, alt=_("Entries, newest first"), key=key, select=True)
    if place is not None:
        st.dialog(_("Entry {id}", id=rows[place].id), width="medium")(_opened)(viewer, rows[place])


def about(row: Row) -> str:
    """What an entry is about: the model, the remark, the entries that it belongs to."""
    parts = [row.model or "", row.remark]
    if row.precharge_id:
        parts.append(_("of hold {id}", id=row.precharge_id))
    if row.reverses_id:
        parts.append(_("undoes {id}", id=row.reverses_id))
    if row.reversed_by:
        parts.append(_("undone by {id}", id=row.reversed_by))
    return " · ".join(part for part in parts if part)


def _opened(viewer: Viewer, row: Row) -> None:
    facts = [
        (_("Type"), _(TYPES[row.type])),
        (_("Account"), f"{row.name} ({row.user_id})"),
        (_("Time"), moment(row.created_at_ns, viewer.tz, full=True)),
        (
            _("Written"),
            moment(row.recorded_at_ns, viewer.tz, full=True) if row.recorded_at_ns != row.created_at_ns else "",
        ),
        (_("Model"), f"`{row.model}`" if row.model else ""),
        (_("By"), f"{row.operator_name} ({row.operator_id})" if row.operator_id else ""),
        (_("Remark"), told.plain(row.remark)),
        (_("Belongs to"), _("hold {id}", id=row.precharge_id) if row.precharge_id else ""),
        (_("Undoes"), _("entry {id}", id=row.reverses_id) if row.reverses_id else ""),
        (_("Undone by"), _("entry {id}", id=row.reversed_by) if row.reversed_by else ""),
    ]
    st.markdown("  \n".join(f"**{name}** {value}" for name, value in facts if value))
    if row.price_input is not None and row.prompt_tokens is not None:
        _steps(row)
    amount, after = st.columns(2)
    amount.metric(_("Amount, 元"), yuan(row.amount, sign=True))
    after.metric(_("Balance after it, 元"), yuan(row.balance_after))
    if viewer.is_admin and row.reversed_by is None:
        _reverse(viewer, row)


def _steps(row: Row) -> None:
    """Tokens × price = cost, kind by kind, and the sum rounded up once."""
    steps = logs.steps(row)
    lines = [
        f"| {_(step.name)} | {count(step.tokens)} | {price(step.price)} | {step.yuan:,.6f} |"
        for step in steps
        if step.tokens
    ]
    heads = [_("Tokens of"), _("Count"), _("元 per million"), _("元")]
    held = row.type == "precharge"
    st.markdown(
        "\n".join(
            [
                f"| {' | '.join(heads)} |",
                "|:--|--:|--:|--:|",
                *lines,
                f"| **{_('Held at most') if held else _('Cost, rounded up to 0.0001 元')}** | | | **{yuan(row.cost, decimals=4)}** |",
            ]
        )
    )
    reasoning = (
        _("{n} of the output tokens are reasoning. ", n=count(row.reasoning_tokens)) if row.reasoning_tokens else ""
    )
    st.caption(reasoning + _("Price: {source}.", source=_(SOURCES[row.price_source or "default"])))


def _reverse(viewer: Viewer, row: Row) -> None:
    preview = viewer.db.read(ledger.preview_reversal, row.id, actor=viewer.actor)
    with st.form(f"reverse-{row.id}", border=False):
        reason = st.text_input(_("Undo this entry: the reason"), key=f"reason-{row.id}")
        st.caption(
            _(
                "{name}: {before} → {after} 元. The entry stays; a reversal that names it is added.",
                name=told.plain(row.name), before=yuan(preview.before), after=yuan(preview.after),
            )
        )  # fmt: skip
        asked = st.form_submit_button(_("Reverse entry {id}", id=row.id), icon=":material/undo:")
    if asked:
        try:
            done = viewer.db.write(ledger.reverse, row.id, reason, actor=viewer.actor)
        except BillingError as error:
            st.error(sentence(error))
            return
        told.later(
            _("Entry {id} is undone; {name} has {balance} 元.", id=row.id, name=row.name, balance=yuan(done.balance))
        )
        st.rerun()
