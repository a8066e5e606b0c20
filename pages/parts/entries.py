"""Entries of the ledger: a table of them, and one of them step by step."""

from collections.abc import Sequence
from decimal import Decimal

import streamlit as st

from billing_core import costs, ledger, logs, stats
from billing_core.costs import Why
from billing_core.errors import BillingError, NotFound
from billing_core.logs import Row
from billing_core.money import price_yuan
from billing_core.rates import PPM, Line
from billing_core.tokens import Extras

from . import dialog, repricing, told
from .tables import Column
from .tables import table as draw
from .viewer import Viewer
from .words import N_, SOURCES, TYPES, _, count, listed, moment, price, yuan


def table(viewer: Viewer, rows: Sequence[Row], *, key: str, balance: bool = False, account: bool = False) -> None:
    """The rows; one that is clicked opens. `balance`: with the balance after each; `account`: with whose they are."""
    year = stats.from_ns(viewer.db.clock(), viewer.tz).year
    columns = [
        Column(_("Entry"), lambda row: str(row.id), "right"),
        Column(_("Time"), lambda row: moment(row.created_at_ns, viewer.tz, this_year=year)),
        *([Column(_("Account"), lambda row: row.name, width=100)] if account else []),
        Column(_("Type"), _type, width=120),
        Column(_("Model or remark"), about, width=180),
        Column(_("Tokens in → out"), tokens, "right"),
        Column(
            _("Cost, 元"), lambda row: row.consumed if row.type in ("deduct", "settle") else None, "money", width=80
        ),
        Column(_("Amount, 元"), lambda row: row.amount, "signed", width=90),
        *([Column(_("Balance, 元"), lambda row: row.balance_after, "money", width=96)] if balance else []),
    ]
    opened(viewer, rows, draw(columns, rows, alt=_("Entries, newest first"), key=key, select=True))


def opened(viewer: Viewer, rows: Sequence[Row], clicked: int | None = None) -> None:
    """The dialog of one entry, while it is open: of the row that was `clicked`, or by dialog.open("entry", id)."""
    if clicked is not None:
        dialog.open("entry", rows[clicked].id)
    asked = dialog.asked("entry")
    if asked is not None:
        try:
            row = viewer.db.read(logs.one, *asked, actor=viewer.actor)
        except NotFound as error:  # one that a member's lines leave out
            dialog.close()
            told.problem(error, st.container())
            return
        dialog.show(_("Entry {id}", id=row.id), _opened, viewer, row, width="medium")


def _type(row: Row) -> str:
    """What happened, and the entry that it belongs with: a hold and its end are one call."""
    if row.type == "precharge" and row.ended_by:
        return f"{_(TYPES[row.type])} → {row.ended_by}"
    other = row.precharge_id or row.reverses_id or row.reprices_id
    return f"{_(TYPES[row.type])} ← {other}" if other else _(TYPES[row.type])


def tokens(row: Row) -> str:
    return "" if row.prompt_tokens is None else f"{count(row.prompt_tokens)} → {count(row.completion_tokens)}"


def about(row: Row) -> str:
    """Whether it was undone, the model, the remark."""
    remark = repricing.remark(row)
    what = [remark, row.model or ""] if row.reprices_id else [row.model or "", remark]
    parts = [_("undone by {id}", id=row.reversed_by) if row.reversed_by else "", *what]  # first: a narrow cell is cut
    return " · ".join(part for part in parts if part)


def _opened(viewer: Viewer, row: Row) -> None:
    facts = [
        (_("Type"), _(TYPES[row.type])),
        (_("Account"), told.plain(f"{row.name} ({row.user_id})")),
        (_("Time"), moment(row.created_at_ns, viewer.tz, full=True)),
        (
            _("Written"),
            moment(row.recorded_at_ns, viewer.tz, full=True) if row.recorded_at_ns != row.created_at_ns else "",
        ),
        (_("Model"), told.plain(row.model or "")),
        (_("By"), told.plain(f"{row.operator_name} ({row.operator_id})") if row.operator_id else ""),
        (_("Remark"), told.plain(repricing.remark(row))),
        (_("Ended by"), _("entry {id}", id=row.ended_by) if row.ended_by else ""),
        (_("Held"), _("{amount} 元", amount=yuan(row.held)) if row.type in ("precharge", "settle") else ""),
        (_("Belongs to"), _("hold {id}", id=row.precharge_id) if row.precharge_id else ""),
        (_("Instead of"), repricing.instead_of(row)),
        (_("Undoes"), _("entry {id}", id=row.reverses_id) if row.reverses_id else ""),
        (_("Undone by"), _("entry {id}", id=row.reversed_by) if row.reversed_by else ""),
    ]
    st.markdown("  \n".join(f"**{name}** {value}" for name, value in facts if value))
    related = (row.ended_by, row.precharge_id, row.reprices_id, row.reverses_id, row.reversed_by)
    with st.container(horizontal=True):
        for number in dict.fromkeys(filter(None, related)):
            if st.button(
                _("Entry {id}", id=number), icon=":material/receipt_long:", type="tertiary", key=f"to {number}"
            ):
                dialog.open("entry", number)
                st.rerun()
    why = viewer.db.read(costs.why, row.id, actor=viewer.actor)
    if why is not None:
        _steps(why, row)
    amount, after = st.columns(2)
    amount.metric(_("Amount, 元"), yuan(row.amount, sign=True))
    after.metric(_("Balance after it, 元"), yuan(row.balance_after))
    if viewer.is_admin and row.reversed_by is None and not row.ended_by:  # a call is undone at the entry that ended it
        _reverse(viewer, row)


def _steps(why: Why, row: Row) -> None:
    """Tokens × price = cost, kind by kind, and the sum rounded up once."""
    tokens, rates = why.tokens, why.rates
    extras = tokens.extras or Extras()
    lines = [
        f"| {_name(line)} | {count(line.count)} | {_unit(line)} | {Decimal(line.pico).scaleb(-12):,.6f} |"
        for line in why.lines
    ]
    if why.multiplier != PPM:
        tier = told.plain(extras.service_tier or "")
        lines.append(f"| {_('Tokens in the service tier {tier}', tier=tier)} | | × {price_yuan(why.multiplier):f} | |")
    heads = [_("Tokens of"), _("Count"), _("元 per million"), _("元")]
    held = row.type == "precharge"
    total = _("Held at most") if held else _("Cost, rounded up to 0.0001 元")
    last = f"| **{total}** | | | **{yuan(row.cost, decimals=4)}** |"
    st.markdown("\n".join([f"| {' | '.join(heads)} |", "|:--|--:|--:|--:|", *lines, last]))
    source = _(SOURCES[rates.source])
    if rates.rule:
        source = _(
            "by the rule {rule}, as {model}", rule=told.plain(rates.rule), model=told.plain(rates.priced_as or "")
        )
    notes = [
        _("{n} of the output tokens are reasoning.", n=count(tokens.reasoning)) if tokens.reasoning else "",
        _("The price for prompts of more than {above} tokens.", above=count(why.tier.above)) if why.tier else "",
        _("The provider's own total is {n} tokens.", n=count(extras.stated_total)) if extras.stated_total else "",
        _(
            "The provider reported more than there can be of: {parts}. It was cut.",
            parts=listed(_part(part) for part in extras.cut),
        )
        if extras.cut
        else "",
        _("Price: {source}.", source=source),
    ]
    st.caption(" ".join(note for note in notes if note))
    if why.upstream:
        usd, there = (
            Decimal(why.upstream.usd).scaleb(-12).normalize(),
            Decimal(why.upstream.yuan).scaleb(-9).normalize(),
        )
        st.caption(
            _(
                "The provider asks {usd} USD for it, {yuan} 元 at the rate of the time.",
                usd=f"{usd:f}",
                yuan=f"{there:f}",
            )
        )


KINDS = {
    "input": N_("Input"),
    "cache_read": N_("Input from a cache"),
    "cache_write": N_("Input written to a cache"),
    "cache_write_1h": N_("Input written to a cache for an hour"),
    "audio_input": N_("Audio in"),
    "image_input": N_("Images in"),
    "output": N_("Output"),
    "audio_output": N_("Audio out"),
    "image_output": N_("Images out"),
}


def _part(name: str) -> str:
    """A count by its name in Tokens or Extras."""
    known = {"cached": "cache_read", "cache_creation": "cache_write", "cache_creation_1h": "cache_write_1h"}
    return _("Reasoning") if name == "reasoning" else _(KINDS[known.get(name, name)])


def _name(line: Line) -> str:
    if line.kind == "call" and line.per_call:
        return _("The call itself")
    if line.per_call:
        return _("Calls of {tool}", tool=told.plain(line.kind))
    if line.falls_under:
        return _("{kind}, priced as {other}", kind=_(KINDS[line.kind]), other=_(KINDS[line.falls_under]))
    return _(KINDS[line.kind])


def _unit(line: Line) -> str:
    return _("{price} each", price=price(line.price)) if line.per_call else price(line.price)


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
        if preview.after < 0:
            told.debt(row.name, preview.after)
        asked = st.form_submit_button(_("Reverse entry {id}", id=row.id), icon=":material/undo:")
    if asked:
        try:
            done = viewer.db.write(ledger.reverse, row.id, reason, actor=viewer.actor)
        except BillingError as error:
            told.problem(error, st.container())
            return
        name = told.plain(row.name)
        dialog.done(
            _("Entry {id} is undone; {name} has {balance} 元.", id=row.id, name=name, balance=yuan(done.balance))
        )
