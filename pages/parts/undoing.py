"""Reversing many entries: the dialog that shows what it will do, and the bar of a job that is under way; repricing.py has
the dialog for charging them again.

A job runs in a thread of its own, so that the page may be left; what it has done stands in the database, and whoever comes
back sees it. One that nobody runs any more (the server was stopped) waits with a button to go on.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from billing_core import undoing
from billing_core.database import Transaction
from billing_core.errors import BillingError
from billing_core.idempotency import Once
from billing_core.logs import Filters
from billing_core.repricing import Back
from billing_core.undoing import Job, OnAccount, Preview

from . import dialog, told
from .tables import Column, table
from .viewer import Viewer
from .words import TYPES, _, count, listed, moment, ngettext, sentence, yuan

FEW = 20
"""How many of the entries that were left alone are listed."""
runners: dict[tuple[str, int], threading.Thread] = {}
"""The jobs that this server runs, by their database and number."""


@dataclass(frozen=True)
class Kind:
    """What the dialog for many entries does to them."""

    name: str
    preview: Callable[..., Any]
    """As undoing.preview."""
    start: Callable[..., int]
    """As undoing.start."""
    show: Callable[[Any], None]
    """Draws a preview."""
    label: Callable[[Any], str]
    """Of the button that does what the preview says."""
    nothing: Callable[[Any], str]
    """What is said where there is nothing to do; else nothing."""


def ask(selection: Any, name: str = "reversals") -> None:
    """Open the dialog of a kind. For a button's `on_click`."""
    st.session_state.pop(f"{name} seen", None)
    dialog.open(name, selection, secrets.token_urlsafe())


def button(filters: Filters, entries: int) -> None:
    """To reverse all that the filters show."""
    st.button(
        ngettext("Reverse {n} entry…", "Reverse all {n} entries…", entries), icon=":material/undo:", type="tertiary",
        key="reverse all", on_click=ask, args=(filters,),
    )  # fmt: skip


def opened(viewer: Viewer) -> None:
    """The dialog, while it is open."""
    asked = dialog.asked("reversals")
    if asked is not None:
        dialog.show(_("Reverse many entries"), confirm, viewer, REVERSALS, *asked, width="medium")


def confirm(viewer: Viewer, kind: Kind, selection: Any, key: str) -> None:
    """The dialog: what it would do, why, and the button."""
    problem = st.session_state.pop(f"{kind.name} problem", None)
    if problem:
        st.error(problem)
    try:
        seen = st.session_state.get(f"{kind.name} seen")
        if seen is None:
            seen = viewer.db.read(kind.preview, selection, actor=viewer.actor)
            st.session_state[f"{kind.name} seen"] = seen
    except BillingError as error:
        told.problem(error, st.container())
        return
    if isinstance(selection, Filters):
        st.caption(told.plain(_selected(viewer, selection)))
    kind.show(seen)
    if nothing := kind.nothing(seen):
        st.info(nothing)
        return
    with st.form(kind.name, border=False):
        reason = st.text_input(_("The reason"), key=f"reason {key}", autocomplete="off")
        field = st.container()
        asked = st.form_submit_button(kind.label(seen), type="primary", icon=":material/undo:")
    if asked:
        _start(viewer, kind, seen, reason, key, field)


def _selected(viewer: Viewer, filters: Filters) -> str:
    """What the filters let through, in words."""
    ends = [moment(ns, viewer.tz) for ns in (filters.start_ns, filters.end_ns) if ns is not None]
    parts = [
        " – ".join(ends),
        filters.user_id or _("All accounts"),
        filters.model or _("All models"),
        listed(_(TYPES[type]) for type in filters.types) or _("All types"),
        f"“{filters.search}”" if filters.search else "",
    ]
    return " · ".join(part for part in parts if part)


def _show(seen: Preview) -> None:
    """From → to, and what stays as it is."""
    types = listed(f"{count(n)} × {_(TYPES[type])}" for type, n in seen.types.items())
    if types:
        st.markdown(
            _("**{types}**: {amount} 元 in all.", types=types, amount=yuan(seen.seen.amount, sign=True))
            + "  \n"
            + _("The entries stay; each gets a reversal that names it.")
        )
    if len(seen.accounts) == 1:
        one_balance(seen.accounts[0])
    elif seen.accounts:
        _accounts(seen.accounts)
    warn(seen.into_debt)
    left_alone(seen.left_alone, undoing.WHY_NOT)


REVERSALS = Kind(
    "reversals", undoing.preview, undoing.start, _show,
    lambda seen: ngettext("Reverse {n} entry", "Reverse {n} entries", seen.seen.to_reverse),
    lambda seen: "" if seen.seen.to_reverse else _("None of these entries can be reversed."),
)  # fmt: skip


def warn(into_debt: Sequence[Any]) -> None:
    """Say who would be in debt."""
    if len(into_debt) == 1:
        told.debt(into_debt[0].name, into_debt[0].after)
    elif into_debt:
        warning = _(
            "{n} accounts go into debt: nothing more can be charged to them until a recharge covers it.",
            n=count(len(into_debt)),
        )
        st.markdown(f":small[:red[:material/warning: {warning}]]")


def left_alone(counts: Mapping[str, int], why_not: Mapping[str, str]) -> None:
    if counts:
        lines = [f"- {count(n)} × {_(why_not[why])}" for why, n in counts.items()]
        st.caption("\n".join([_("Left as they are:"), "", *lines]))


def one_balance(one: Any) -> None:
    """What is done to the only account."""
    st.metric(_("Balance of {name}, 元", name=told.plain(one.name)), f"{_balance(one.before)} → {_balance(one.after)}")


def _balance(hao: int) -> str:
    return f":red[{yuan(hao)}]" if hao < 0 else yuan(hao)


def _accounts(accounts: Sequence[OnAccount]) -> None:
    columns = [
        Column(_("Account"), lambda one: one.name, width=100),
        Column(_("Entries"), lambda one: one.entries, "count", width=70),
        Column(_("Now, 元"), lambda one: one.before, "money"),
        Column(_("Then, 元"), lambda one: one.after, "money"),
    ]
    table(columns, accounts, alt=_("Balances before and after, by account"), at_once=10)


def _start(
    viewer: Viewer, kind: Kind, seen: Any, reason: str, key: str, field: st.delta_generator.DeltaGenerator
) -> None:
    """Write the job down, once for its dialog however often it is asked for, and have it run."""
    once = Once.of(viewer.actor, key, kind.name)
    try:
        job_id = viewer.db.write(kind.start, seen.selection, reason, actor=viewer.actor, seen=seen.seen, once=once)
    except BillingError as error:
        if getattr(error, "field", None) == "reason":
            told.problem(error, field)
            return
        # It isn't what was shown any more: show what it is now.
        st.session_state.pop(f"{kind.name} seen", None)
        st.session_state[f"{kind.name} problem"] = told.plain(sentence(error))
        st.rerun()
    _go_on(viewer, job_id)
    dialog.close()
    st.rerun()


# The job


def _go_on(viewer: Viewer, job_id: int) -> None:
    """Run a job beside the page."""
    key, db, actor = (viewer.db.url, job_id), viewer.db, viewer.actor
    st.session_state["reversal job"] = job_id
    if key in runners:
        return

    def work() -> None:
        try:
            undoing.run(db, job_id, actor=actor)
        except Exception:
            logging.getLogger("billing").exception("job %s of reversals stopped", job_id)
        finally:
            runners.pop(key, None)

    runners[key] = threading.Thread(target=work, name=f"reversals {job_id}", daemon=True)
    runners[key].start()


def jobs(viewer: Viewer) -> None:
    """The jobs that are under way, and the one that this viewer has just seen through."""

    running = {job_id for url, job_id in [*runners] if url == viewer.db.url}  # before reading: a job may end meanwhile

    def read(tx: Transaction) -> list[Job]:
        found = undoing.unfinished(tx, actor=viewer.actor)
        mine = st.session_state.get("reversal job")
        if mine is not None and mine not in [job.id for job in found]:
            found.append(undoing.status(tx, mine, actor=viewer.actor))
        return found

    for job in viewer.db.read(read):
        if job.finished_at_ns is not None:
            _finished(viewer, job)
        elif job.id in running:
            st.session_state["reversal job"] = job.id  # whoever comes back sees how it ends
            st.fragment(_running, run_every="1s")(viewer, job.id)
        else:
            _stopped(viewer, job)


def _bar(job: Job) -> None:
    whole = job.reversed + job.left
    numbers = {"done": count(job.reversed), "all": count(whole)}
    text = _("Repricing: {done} of {all}", **numbers) if job.reprices else _("Reversing: {done} of {all}", **numbers)
    st.progress(job.reversed / whole if whole else 1.0, text=f"{text} · {told.plain(job.reason)}")


def _running(viewer: Viewer, job_id: int) -> None:
    job = viewer.db.read(undoing.status, job_id, actor=viewer.actor)
    if job.finished_at_ns is not None or (viewer.db.url, job_id) not in runners:
        st.rerun()
    with st.container(border=True):
        _bar(job)
        st.caption(_("You may leave this page: it goes on, and stands here when you come back."))


def _stopped(viewer: Viewer, job: Job) -> None:
    with st.container(border=True):
        _bar(job)
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.caption(
                _("It was cut short, or is run elsewhere. Nothing is half done, and nothing is done twice."),
                width="content",
            )
            label = ngettext("Go on with the {n} entry left", "Go on with the {n} entries left", job.left)
            st.button(
                label, icon=":material/play_arrow:", key=f"go on {job.id}", on_click=_go_on, args=(viewer, job.id)
            )


def _finished(viewer: Viewer, job: Job) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            if job.reprices:
                done = ngettext("{n} entry is repriced", "{n} entries are repriced", job.reversed)
            else:
                done = ngettext("{n} entry is reversed", "{n} entries are reversed", job.reversed)
            st.markdown(f":material/check_circle: {done} · {told.plain(job.reason)}", width="content")
            with st.container(horizontal=True, width="content"):
                if job.reversed:
                    st.button(
                        _("Undo this…"), icon=":material/undo:", key=f"undo {job.id}",
                        on_click=_ask_back, args=(viewer, job),
                    )  # fmt: skip
                st.button(_("Hide"), type="tertiary", icon=":material/close:", key=f"hide {job.id}", on_click=_hide)
        if job.refused:
            with st.expander(ngettext("{n} was left as it is", "{n} were left as they are", job.refused)):
                refused = viewer.db.read(undoing.refusals, job.id, actor=viewer.actor, limit=FEW)
                lines = [f"- {told.plain(sentence(one.error))}" for one in refused]
                st.markdown("\n".join([*lines, *(["- …"] if job.refused > len(refused) else [])]))


def _ask_back(viewer: Viewer, job: Job) -> None:
    if job.reprices:
        ask(Back(job.id), "repricings")
    else:
        ask(tuple(viewer.db.read(undoing.reversals_of, job.id, actor=viewer.actor)))


def _hide() -> None:
    st.session_state.pop("reversal job", None)
