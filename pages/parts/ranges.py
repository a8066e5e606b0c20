"""Which stretch of time is shown."""

from datetime import timedelta

import streamlit as st

from billing_core import stats
from billing_core.stats import Period

from . import address
from .viewer import Viewer
from .words import N_, _

RANGES = {
    "24h": N_("24 hours"),
    "7d": N_("7 days"),
    "30d": N_("30 days"),
    "12m": N_("12 months"),
    "dates": N_("Dates…"),
}


def choose(viewer: Viewer, default: str) -> tuple[list[Period], str]:
    """The chosen periods, oldest first, and what they are: hours, days or months. Raises Invalid, Unknown."""
    now_ns = viewer.db.clock()
    today = stats.from_ns(now_ns, viewer.tz).date()
    chosen = address.pick(
        st.segmented_control, _("Range"), list(RANGES), key="range", default=default,
        name=lambda option: _(RANGES[option]),
    )  # fmt: skip
    if chosen != "dates":
        return stats.chosen_periods(now_ns, chosen, viewer.tz)
    month = (today - timedelta(days=29), today)
    dates = address.dates(_("From – to"), month, max_value=today, format="YYYY-MM-DD", width=260)
    return stats.chosen_periods(now_ns, chosen, viewer.tz, dates)
