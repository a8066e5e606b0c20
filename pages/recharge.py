"""Recharge: put money on a balance, or take it off; below, what has been."""

import secrets
from dataclasses import dataclass, replace

import streamlit as st

from billing_core import accounts, ledger, logs
from billing_core.database import Transaction
from billing_core.errors import BillingError
from billing_core.idempotency import Once
from billing_core.ledger import Change
from billing_core.money import parse_yuan

from .parts import address, dialog, entries, people, told
from .parts.tables import Column, csv_link, table
from .parts.viewer import Viewer
from .parts.words import _, moment, sentence, yuan, zone_name

AT_ONCE = 50


@dataclass(frozen=True)
class Prepared:
    """A recharge that is filled in and not made yet. `key` is its form's: what is sent twice with it happens once."""

    key: str
    user_id: str
    name: str
    amount: int
    remark: str = ""

    @property
    def label(self) -> str:
        if self.amount > 0:
            return _("Recharge {name} by {amount} 元", name=told.plain(self.name), amount=yuan(self.amount))
        return _("Take {amount} 元 off {name}", name=told.plain(self.name), amount=yuan(-self.amount))


def page(viewer: Viewer) -> None:
    st.title(_("Recharge"), anchor=False)
    with st.container(border=True):
        user_id = _form(viewer)
    _made(viewer)
    _log(viewer, user_id)


def _form(viewer: Viewer) -> str | None:
    """The fields, and what they would do; the chosen account."""
    key = st.session_state.setdefault("recharge form", secrets.token_urlsafe())
    whom, how_much = st.columns(2)
    with whom:
        user_id = _account(viewer)
    with how_much:
        text = st.text_input(
            _("Amount, 元"), placeholder="100", autocomplete="off", live="400ms", key=f"amount {key}",
            help=_("Above 0 it is put on the balance; below 0, like -20, it is taken off."),
        )  # fmt: skip
        problem = st.empty()
    account = viewer.db.read(accounts.find, user_id) if user_id else None
    prepared = None
    try:
        amount = parse_yuan(text) if text else None
        if account and amount is not None:
            change = viewer.db.read(ledger.preview_recharge, account.user_id, amount, actor=viewer.actor)
            prepared = Prepared(key, account.user_id, account.name, amount)
            _show(prepared, change)
    except BillingError as error:
        told.problem(error, problem)
    if not prepared:
        st.metric(_("Balance, 元"), _balance(viewer.db.read(ledger.balance, account)) if account else "–")
        st.caption(_("Choose an account and write an amount: here you see what the balance will be."))
    with st.form("recharge", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        remark = st.text_input(_("Remark"), autocomplete="off", key=f"remark {key}")
        asked = st.form_submit_button(
            prepared.label if prepared else _("Recharge"), type="primary", disabled=prepared is None,
            icon=":material/add_card:", key="ask",
        )  # fmt: skip
    if asked and prepared:
        dialog.open("recharge", replace(prepared, remark=remark))
    opened = dialog.asked("recharge")
    if opened is not None:
        dialog.show(opened[0].label, _confirm, viewer, *opened)
    return user_id


def _account(viewer: Viewer) -> str | None:
    names = {"": _("Choose by name or id"), **viewer.db.read(people.names, viewer.actor)}
    return (
        address.pick(st.selectbox, _("Account"), list(names), key="account", default="", name=names.__getitem__) or None
    )


def _balance(hao: int) -> str:
    return f":red[{yuan(hao, decimals=4)}]" if hao < 0 else yuan(hao, decimals=4)


def _show(prepared: Prepared, change: Change) -> None:
    """From → to, and what that means where it is below 0."""
    st.metric(_("Balance, 元"), f"{_balance(change.before)} → {_balance(change.after)}")
    if change.after < 0:
        told.debt(prepared.name, change.after)
    else:
        st.caption(_("Nothing is booked before you confirm it."))


def _confirm(viewer: Viewer, prepared: Prepared) -> None:
    change = viewer.db.read(ledger.preview_recharge, prepared.user_id, prepared.amount, actor=viewer.actor)
    _show(prepared, change)
    if prepared.remark:
        st.markdown(_("Remark: {remark}", remark=told.plain(prepared.remark)))
    if st.button(prepared.label, type="primary", icon=":material/add_card:", key="do recharge"):
        _make(viewer, prepared)


def _make(viewer: Viewer, prepared: Prepared) -> None:
    """Book it, once for its form however often it is asked for, and begin a new form."""
    once = Once.of(viewer.actor, prepared.key, "recharge", prepared.user_id, prepared.amount, prepared.remark)
    try:
        receipt = viewer.db.write(
            ledger.recharge, prepared.user_id, prepared.amount, actor=viewer.actor, remark=prepared.remark, once=once
        )
    except BillingError as error:
        st.error(told.plain(sentence(error)))
        return
    st.session_state["recharged"] = receipt.entry_id
    st.session_state.pop("recharge form", None)
    dialog.done(_what(prepared.name, receipt.amount, receipt.balance))


def _what(name: str, amount: int, balance: int) -> str:
    shown = {"name": told.plain(name), "amount": yuan(abs(amount)), "balance": yuan(balance)}
    if amount > 0:
        return _("{name} is recharged by {amount} 元 and has {balance} 元.", **shown)
    return _("{amount} 元 are taken off {name}, who has {balance} 元.", **shown)


def _made(viewer: Viewer) -> None:
    """The recharge just made, and the way back."""
    entry_id = st.session_state.get("recharged")
    if entry_id is None:
        return
    row = viewer.db.read(logs.one, entry_id, actor=viewer.actor)
    with st.container(border=True, horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        if row.reversed_by:
            st.markdown(_("Entry {id} is undone.", id=row.id))
            return
        st.markdown(":material/check_circle: " + _what(row.name, row.amount, row.balance_after))
        st.button(_("Reverse it"), icon=":material/undo:", on_click=dialog.open, args=("entry", entry_id))


def _log(viewer: Viewer, user_id: str | None) -> None:
    before, after = address.place("before"), address.place("after")

    def read(tx: Transaction) -> list[logs.Row]:
        wanted = logs.recharges(logs.Filters(user_id=user_id))
        return logs.page(tx, wanted, actor=viewer.actor, limit=AT_ONCE + 1, before=before, after=after)

    found = viewer.db.read(read)
    more = len(found) > AT_ONCE
    rows = found[-AT_ONCE:] if after is not None else found[:AT_ONCE]
    address.newest_if_none(rows)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.subheader(_("Recharges so far"), anchor=False, width="content")
        if rows:
            csv_link("recharges", user_id=user_id, all="" if user_id else "true", timezone=viewer.tz.key)
    entries.opened(viewer, rows, _table(viewer, rows, everybody=user_id is None) if rows else None)
    if not rows:
        st.info(_("No recharge yet. Choose an account, write an amount, and confirm it: then it stands here."))
        return
    address.pages(rows[0].id, rows[-1].id, more=more)
    st.caption(_("Click a row to see it in full, or to undo it. Times are in {zone}.", zone=zone_name(viewer.tz)))


def _table(viewer: Viewer, rows: list[logs.Row], *, everybody: bool) -> int | None:
    columns = [
        Column(_("Entry"), lambda row: str(row.id), "right"),
        Column(_("Time"), lambda row: moment(row.created_at_ns, viewer.tz)),
        *([Column(_("Account"), lambda row: row.name)] if everybody else []),
        Column(_("Amount, 元"), lambda row: row.amount, "signed"),
        Column(_("Balance, 元"), lambda row: row.balance_after, "money"),
        Column(_("Remark"), lambda row: row.remark),
        Column(_("By"), lambda row: row.operator_name or row.name),
        Column(_("Undone by"), lambda row: str(row.reversed_by or ""), "right"),
    ]
    return table(columns, rows, alt=_("Recharges, newest first"), key="recharges", select=True)
