"""Integrity: is the ledger right, and would we notice if it were not?"""

from pathlib import PurePath
from urllib.parse import quote

import streamlit as st

from billing_core import integrity, seals, settings
from billing_core.database import Transaction
from billing_core.errors import BillingError
from billing_core.integrity import State
from billing_core.models import Seal

from .parts import checking, statements, told
from .parts.viewer import Viewer
from .parts.words import _, ago, count, moment, ngettext, sentence

HOUR_NS = 3600 * 10**9


def page(viewer: Viewer) -> None:
    st.title(_("Integrity"), anchor=False)

    def read(tx: Transaction) -> tuple[State, dict[str, str]]:
        return integrity.state(tx, actor=viewer.actor), settings.read(tx)

    now, known = viewer.db.read(read)
    _figures(viewer, now, known)
    checking.shown(viewer)
    if now.unfinished:
        _unfinished(viewer, now.unfinished)
    left, right = st.columns(2, gap="large")
    with left:
        _newest(viewer, now)
        _compare(viewer)
    with right:
        _backups(viewer, now, known)
        st.subheader(_("A statement that somebody has"), anchor=False)
        statements.verify_upload(viewer, key="statement")


def _figures(viewer: Viewer, now: State, known: dict[str, str]) -> None:
    """The three answers, each with its age; red is danger."""
    at = viewer.db.clock()
    checked, sealed, backed_up = st.columns(3)
    with checked.container(border=True, height="stretch"):
        last = now.last_check
        st.metric(_("Last check"), ago(last.at_ns, at) if last else _("Never"))
        if last is None:
            st.caption(_("Nobody has checked the ledger yet."))
        elif last.broken:
            for one in last.broken:
                st.markdown(f":red[:material/error: {told.plain(sentence(one))}]")
        else:
            st.caption(
                ngettext(
                    "{n} entry: everything adds up.", "{n} entries: everything adds up.", last.entries
                )
            )  # fmt: skip
    with sealed.container(border=True, height="stretch"):
        st.metric(_("Newest seal"), ago(now.newest.created_at_ns, at) if now.newest else _("None yet"))
        unsealed = ngettext("{n} entry not sealed yet.", "{n} entries not sealed yet.", now.unsealed)
        if now.newest:
            number = _(
                "Number {number}, up to entry {entry}.", number=now.newest.number, entry=now.newest.last_entry_id
            )
            st.caption(f"{number} {unsealed}" if now.unsealed else number)
        else:
            st.caption(unsealed)
    with backed_up.container(border=True, height="stretch"):
        backup = now.last_backup
        st.metric(_("Last backup"), ago(backup.at_ns, at) if backup else _("Never"))
        every_ns = int(known["backup_every_hours"]) * HOUR_NS
        if backup is None:
            st.caption(_("Nothing is backed up yet: set below how often it should be."))
        elif backup.error:
            st.markdown(f":red[:material/error: {told.plain(_('It failed: {reason}', reason=sentence(backup.error)))}]")
        elif every_ns and at - backup.at_ns > 2 * every_ns:
            st.markdown(f":red[:material/error: {_('It is overdue: look at the log of the app.')}]")
        else:
            st.caption(told.plain(PurePath(backup.file or "").name))


def _unfinished(viewer: Viewer, jobs: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f":material/pending: {ngettext('{n} job is not finished.', '{n} jobs are not finished.', jobs)}")
        st.page_link(viewer.pages["logs"], label=_("Go on with it on the page Logs"), icon=":material/receipt_long:")


def _newest(viewer: Viewer, now: State) -> None:
    st.subheader(_("The newest seal"), anchor=False)
    if now.newest:
        _keep(viewer, now.newest)
    elif now.unsealed:
        st.write(_("A seal closes the entries up to it for good. The first is made by itself, or here."))
    else:
        st.write(_("There are no entries yet, so there is nothing to seal."))
    if now.unsealed and st.button(_("Seal every entry now"), icon=":material/verified:"):
        seals.close(viewer.db, everything=True)
        told.later(_("Every entry so far is sealed."))
        st.rerun()


def _keep(viewer: Viewer, seal: Seal) -> None:
    """The seal, and three ways to take a copy of it."""
    made = moment(seal.created_at_ns, viewer.tz, full=True)
    text = "\n".join(
        [
            _("Seal number: {number}", number=seal.number),
            _("Hash: {hash}", hash=seal.hash),
            _("Up to entry: {entry}", entry=seal.last_entry_id),
            _("Made: {time}", time=made),
        ]
    )
    st.caption(
        _(
            "Keep a copy where nobody who can open this database can change it: it vouches for every entry before it. "
            "Whoever alters one of them, even without the database's triggers, can't arrive at this hash again."
        )
    )
    st.code(f"{seal.number} {seal.hash}", language=None, wrap_lines=True)
    st.caption(_("Made {time}.", time=made))
    with st.container(horizontal=True):
        subject = _("Seal {number} of our billing", number=seal.number)
        st.download_button(
            _("Save as a file"), text + "\n", file_name=f"seal-{seal.number}.txt", mime="text/plain",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip
        st.link_button(
            _("Send by email"), f"mailto:?subject={quote(subject)}&body={quote(text)}", icon=":material/mail:"
        )


def _compare(viewer: Viewer) -> None:
    st.subheader(_("A seal that you kept"), anchor=False)
    with st.form("compare"):
        number = st.text_input(_("Seal number"), key="seal-number")
        number_problem = st.container()
        hash = st.text_input(_("Hash"), key="seal-hash")
        hash_problem = st.container()
        asked = st.form_submit_button(_("Compare with the database"), icon=":material/compare_arrows:")
    if not asked:
        return
    try:
        verdict = viewer.db.read(integrity.compare, number, hash, actor=viewer.actor)
    except BillingError as error:
        told.problem(error, st.container(), number=number_problem, hash=hash_problem)
        return
    number = told.plain(number.strip())
    if verdict == "same":
        st.success(
            _(
                "Seal {number} is still the same. The check tells whether every entry still fits its seal.",
                number=number,
            )
        )
    elif verdict == "differs":
        st.error(
            _(
                "Seal {number} is another one in the database: entries up to it were changed, or it is another database. "
                "Keep this database as it is, and compare it with a backup.",
                number=number,
            )
        )
    else:
        st.error(
            _(
                "The database has no seal {number}: its newest entries are gone, perhaps by an older backup that was "
                "restored, or it is another database.",
                number=number,
            )
        )


def _backups(viewer: Viewer, now: State, known: dict[str, str]) -> None:
    st.subheader(_("Backups"), anchor=False)
    backup = now.last_backup
    if backup and not backup.error:
        lines = [
            _("**File** {file}", file=told.plain(backup.file or "")),
            _("**Made** {time}", time=told.plain(moment(backup.at_ns, viewer.tz, full=True))),
        ]
        if backup.entries is not None:
            lines.append(_("**Entries** {n}, checked", n=count(backup.entries)))
        if backup.seal_number and backup.seal_hash:
            lines.append(_("**Seal** {number}: `{hash}`", number=backup.seal_number, hash=backup.seal_hash))
        st.markdown("  \n".join(lines))
    with st.form("backups"):
        every = st.text_input(_("A backup every so many hours; 0 for none"), known["backup_every_hours"], key="every")
        every_problem = st.container()
        keep = st.text_input(_("How many to keep"), known["backup_keep"], key="keep")
        keep_problem = st.container()
        folder = st.text_input(
            _("Folder on the server"), known["backup_folder"], key="folder",
            placeholder=_("backups, beside the database's file"),
        )  # fmt: skip
        folder_problem = st.container()
        asked = st.form_submit_button(_("Save"), icon=":material/save:")
    if not asked:
        return

    def write(tx: Transaction) -> None:
        for name, value in (("backup_every_hours", every), ("backup_keep", keep), ("backup_folder", folder)):
            settings.change(tx, name, value, actor=viewer.actor)

    try:
        viewer.db.write(write)
    except BillingError as error:
        told.problem(
            error, st.container(), backup_every_hours=every_problem, backup_keep=keep_problem,
            backup_folder=folder_problem,
        )  # fmt: skip
        return
    told.later(_("Saved."))
    st.rerun()
