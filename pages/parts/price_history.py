"""A model's price over time, with what was used at each, and the plans that can be withdrawn."""

from collections.abc import Sequence
from operator import attrgetter

import altair as alt
import streamlit as st

from billing_core import pricing, stats
from billing_core.errors import BillingError
from billing_core.money import format_price, price_yuan
from billing_core.pricing import SetPrice
from billing_core.rates import as_rates
from billing_core.stats import Period, from_ns

from . import tables, told
from .charts import PALETTE, draw
from .price_dialog import HEADINGS, summary
from .tables import Column
from .viewer import Viewer
from .words import _, moment, sentence

PARTS = ("input", "output", "cache_read", "cache_write")
HEIGHT = 220
DAY_NS = 86_400 * 10**9


def planned(viewer: Viewer, prices: Sequence[SetPrice]) -> None:
    """What is still to come, each with a button that takes it back."""
    if not prices:
        return
    st.subheader(_("Planned"), anchor=False)
    for price in prices:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f"**{told.plain(price.model)}** · {moment(price.valid_from_ns, viewer.tz)} · {_told(price)}",
                width="stretch",
            )
            if viewer.is_admin and st.button(_("Withdraw"), key=f"withdraw-{price.price_id}"):
                try:
                    viewer.db.write(pricing.withdraw, price.price_id, actor=viewer.actor)
                except BillingError as error:
                    st.error(told.plain(sentence(error)))
                    return
                told.later(
                    _("The planned price of {model} is withdrawn: it never counts.", model=told.plain(price.model))
                )
                st.rerun()


def _told(price: SetPrice) -> str:
    if price.prices is None:
        return _("Retired")
    four = {_(HEADINGS[part]): format_price(micro) for part in PARTS if (micro := getattr(price, part)) is not None}
    return " · ".join(f"{heading} {text}" for heading, text in (four | summary(price.more)).items())


def history(viewer: Viewer, model: str, now_ns: int) -> None:
    """Every price that was set, newest first, as steps over time."""
    past = viewer.db.read(pricing.history, model)
    if not past:
        st.caption(_("No price was ever set for it here; its built-in price counts."))
        return
    counted = [price for price in past[::-1] if not price.withdrawn]
    if counted:
        _steps(viewer, counted, now_ns)
    used = _used(viewer, model, counted, now_ns) if st.toggle(_("Show what was used at each"), key="price-used") else {}
    columns = [
        Column(_("From"), lambda row: moment(row.valid_from_ns, viewer.tz), width=140),
        *(Column(_(HEADINGS[part]), attrgetter(part), "price", width=90) for part in PARTS),
        Column(_("Further"), lambda row: " · ".join(f"{name} {text}" for name, text in summary(row.more, str).items())),
        Column(_("What"), lambda row: _what(row, now_ns)),
    ]
    if used:
        columns[1:1] = [
            Column(_("Calls"), lambda row: used.get(row.price_id, (0, 0))[0], "count", width=80),
            Column(_("Cost, 元"), lambda row: used.get(row.price_id, (0, 0))[1], "money", width=100),
        ]
    tables.table(columns, past, alt=_("Prices that were set, newest first"), key="history")
    tables.csv_link("price-history", model=model, timezone=viewer.tz.key)
    if used:
        st.caption(_("What was used is counted by the quarter of an hour in which a price began."))


def _what(row: SetPrice, now_ns: int) -> str:
    if row.withdrawn:
        return _("Withdrawn")
    if row.input is None:
        return _("Retired")
    return _("Planned") if row.valid_from_ns > now_ns else _("Set here")


def _used(viewer: Viewer, model: str, counted: Sequence[SetPrice], now_ns: int) -> dict[int, tuple[int, int]]:
    """Calls and cost while each price counted, by the price's number."""
    starts = [price.valid_from_ns for price in counted if price.valid_from_ns <= now_ns]
    if not starts:
        return {}
    periods = [
        Period(start, end, from_ns(start, viewer.tz))
        for start, end in zip(starts, [*starts[1:], now_ns + DAY_NS], strict=True)
    ]
    whose = None if viewer.is_admin else viewer.user_id
    found = viewer.db.read(stats.usage, periods, actor=viewer.actor, user_id=whose)
    return {counted[one.period].price_id: (one.calls, one.cost) for one in found if one.name == model}


def _steps(viewer: Viewer, counted: Sequence[SetPrice], now_ns: int) -> None:
    last = max(now_ns, counted[-1].valid_from_ns) + max(DAY_NS, (now_ns - counted[0].valid_from_ns) // 20)
    ends = [*(price.valid_from_ns for price in counted[1:]), last]
    data: list[dict[str, object]] = []
    for price, end in zip(counted, ends, strict=True):
        rates = as_rates(price.prices) if price.prices else None
        for part in PARTS if rates else ():
            micro = getattr(rates, part)
            if part in ("input", "output") or getattr(price, part) is not None:
                data += [_step(viewer, part, micro, a, b, now_ns) for a, b in _cut(price.valid_from_ns, end, now_ns)]
    if not data:
        return
    parts = [part for part in PARTS if any(row["kind"] == _(HEADINGS[part]) for row in data)]
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=[_(HEADINGS[part]) for part in parts], range=list(PALETTE[: len(parts)])),
        legend=alt.Legend(title=None, orient="bottom", symbolType="stroke"),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("kind:N", title=_("Kind")),
        alt.Tooltip("shown:N", title=_("Price")),
        alt.Tooltip("since:N", title=_("From")),
    ]
    base = alt.Chart(height=HEIGHT).encode(color=colour, tooltip=tooltip)
    y = alt.Y(
        "price:Q",
        axis=alt.Axis(
            title=_("元 per million tokens"), titleAngle=0, titleAlign="left", titleY=-8, titleX=0, tickCount=5
        ),
    )
    x = alt.X("from:T", axis=alt.Axis(title=None, tickCount=6, format="%Y-%m-%d", labelOverlap=True))
    lines = base.mark_rule(strokeWidth=3).encode(
        x=x,
        x2=alt.X2("to:T"),
        y=y,
        strokeDash=alt.StrokeDash(
            "planned:N", scale=alt.Scale(domain=[False, True], range=[[1, 0], [4, 4]]), legend=None
        ),
    )
    now = alt.Chart().mark_rule(strokeDash=[2, 4], color="#9aa3a0").encode(x=alt.X("at:T"))
    draw(
        alt.layer(lines.transform_filter("isValid(datum.from)"), now.transform_filter("isValid(datum.at)")),
        [*data, {"at": now_ns // 10**6}],
        key="price-steps",
        alt=_("The price over time, in steps; the table below has the figures."),
    )


def _cut(start: int, end: int, now_ns: int) -> list[tuple[int, int]]:
    """A price's time up to now, and after it."""
    return [(start, now_ns), (now_ns, end)] if start < now_ns < end else [(start, end)]


def _step(viewer: Viewer, part: str, micro: int, start: int, end: int, now_ns: int) -> dict[str, object]:
    return {
        "kind": _(HEADINGS[part]), "price": micro / 1_000_000, "shown": f"{price_yuan(micro):f}", "from": start // 10**6,
        "to": end // 10**6, "planned": start >= now_ns, "since": moment(start, viewer.tz),
    }  # fmt: skip
