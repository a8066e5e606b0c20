"""The check of the ledger, run beside the pages: whoever leaves finds it again, and there is one at a time."""

import logging
import threading
from dataclasses import dataclass, field

import streamlit as st

from billing_core import check
from billing_core.database import Database
from billing_core.errors import BillingError

from . import told
from .viewer import Viewer
from .words import N_, _, count

SHORT_SECONDS = 0.5
"""A check that takes no longer shows no bar."""


@dataclass
class Run:
    """A check under way, or its end."""

    done: int = 0
    whole: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    sound: bool = False
    error: BillingError | None = None


runs: dict[str, Run] = {}
"""What this server checks now, by the database's address."""
_starting = threading.Lock()


def shown(viewer: Viewer) -> None:
    """The button, or how far the check is; and how one ended that this viewer has watched."""
    watched: Run | None = st.session_state.get("watched check")
    if watched is not None and watched.ended.is_set():
        del st.session_state["watched check"]
        if watched.error is not None:
            told.problem(watched.error, st.container())
        elif watched.sound:
            told.later(_("Everything adds up."))
            told.now()
    run = runs.get(viewer.db.url)
    if run is None:
        st.button(
            _("Check the ledger now"), icon=":material/fact_check:", type="primary", on_click=_start, args=(viewer.db,)
        )
        return
    st.session_state["watched check"] = run
    with st.container(border=True):
        st.fragment(_bar, run_every="1s")(run)
        st.caption(_("You may leave this page: it goes on, and stands here when you come back."))


def _bar(run: Run) -> None:
    if run.ended.is_set():
        st.rerun()
    whole = count(max(run.done, run.whole)) if run.whole else "…"
    text = _("Checking every entry: {done} of about {all}", done=count(run.done), all=whole)
    st.progress(min(run.done / max(run.whole, 1), 1.0), text)


def _start(db: Database) -> None:
    with _starting:
        run = runs.get(db.url)
        if run is None:
            run = Run()
            thread = threading.Thread(target=_work, args=(db, run), name="check", daemon=True)
            runs[db.url] = run
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads
                del runs[db.url]
                raise
    st.session_state["watched check"] = run
    run.ended.wait(SHORT_SECONDS)


def _work(db: Database, run: Run) -> None:
    def progress(done: int, whole: int) -> None:
        run.done, run.whole = done, whole

    try:
        found = check.check(db, progress)
        db.write(check.remember, found)
        run.sound = not found
    except BillingError as error:
        run.error = error
    except Exception:
        logging.getLogger("billing").exception("the check stopped")
        run.error = BillingError(N_("The check stopped before its end. Look at the log of the app, then try again."))
    finally:
        run.ended.set()
        runs.pop(db.url, None)
