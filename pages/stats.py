"""Stats: where did the money go?"""

from collections import Counter

import streamlit as st

from billing_core import accounts, pricing, settings, stats
from billing_core.database import Transaction
from billing_core.stats import Period, Used

from .parts import address, charts, people, ranges, told
from .parts.tables import Column, csv_link, paged, table
from .parts.viewer import Viewer
from .parts.words import N_, _, count, percent, yuan, zone_name

COUNTED = {
    "call": N_("A reversed call is taken off the period in which it was made."),
    "reversal": N_("A reversed call stays in the period in which it was made, and is taken off that of its reversal."),
}
"""Where reversals count: what the setting `reversals_count_in` means."""
BY = {"model": N_("By model"), "account": N_("By account")}


def page(viewer: Viewer) -> None:
    st.title(_("Stats"), anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        periods, granularity = ranges.choose(viewer, "30d")
        measure = address.pick(
            st.segmented_control, _("Measure"), list(charts.MEASURES), key="measure", default="cost",
            name=lambda option: _(charts.MEASURES[option]),
        )  # fmt: skip
        user_id, by = _whose(viewer)

    def read(tx: Transaction) -> tuple[list[Used], list[Used], dict[str, int], dict[str, str], int]:
        if by == "model":
            used = stats.usage(tx, periods, actor=viewer.actor, user_id=user_id)
            return stats.totals(used), used, pricing.model_names(tx), {}, tx.now_ns
        totals, drawn = stats.by_account(tx, periods, actor=viewer.actor, measure=measure, most=charts.LONGEST)
        everybody = accounts.known(tx, actor=viewer.actor)
        numbers = {one.user_id: one.id for one in everybody}
        twice = {name for name, times in Counter(one.name for one in everybody).items() if times > 1}
        names = {one.user_id: f"{one.name} ({one.user_id})" if one.name in twice else one.name for one in everybody}
        return totals, drawn, numbers, names, tx.now_ns

    totals, used, numbers, names, now_ns = viewer.db.read(read)
    if not used:
        st.info(_("Nothing was used in this range. Choose a longer one, or connect a program that charges its calls."))
        _reversals(viewer)
        return
    whole = stats.whole(totals)
    _figures(totals, whole, names, by)
    charts.stacked(
        periods, used, granularity=granularity, measure=measure, numbers=numbers, names=names, now_ns=now_ns, key="used"
    )
    _table(totals, whole, names, by)
    if viewer.is_admin:
        _margin(viewer, periods, user_id)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.caption(_("Periods are cut in {zone}.", zone=zone_name(viewer.tz)))
        with st.container(horizontal=True, width="content"):
            _csv(viewer, periods, granularity, user_id, by)
            if viewer.is_admin and user_id is None:
                _csv(viewer, periods, granularity, user_id, "both", _("CSV by account and model"))
    _reversals(viewer)


def _reversals(viewer: Viewer) -> None:
    """Which period reversals count in; admins change it, for everybody."""
    now = viewer.db.read(settings.read)["reversals_count_in"]
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.caption(_(COUNTED[now]))
        if viewer.is_admin:
            other = "reversal" if now == "call" else "call"
            label = (
                _("Take reversed calls off the period of the reversal")
                if now == "call"
                else _("Take reversed calls off the period of the call")
            )
            st.button(
                label, type="tertiary", icon=":material/swap_horiz:", key="reversals count in",
                help=_("Counts for everybody, for the past as well."), on_click=_count_in, args=(viewer, other),
            )  # fmt: skip


def _count_in(viewer: Viewer, period: str) -> None:
    viewer.db.write(settings.change, "reversals_count_in", period, actor=viewer.actor)
    told.later(_(COUNTED[period]))


def _whose(viewer: Viewer) -> tuple[str | None, str]:
    """Whose figures, and by what: admins choose."""
    user_id = people.choose(viewer)
    if user_id is not None:
        return user_id, "model"
    by = address.pick(
        st.segmented_control,
        _("Split"),
        list(BY),
        key="by",
        default="model",
        required=True,
        name=lambda one: _(BY[one]),
    )
    return None, by


def _figures(totals: list[Used], whole: Used, names: dict[str, str], by: str) -> None:
    spent, calls, dearest = st.columns([1, 1, 2])
    spent.metric(_("Cost, 元"), yuan(whole.cost), border=True, height="stretch")
    calls.metric(_("Calls"), count(whole.calls), border=True, height="stretch")
    first = totals[0]
    dearest.metric(
        _("Dearest model") if by == "model" else _("Dearest account"),
        told.plain(names.get(first.name, first.name)),
        delta=_("{amount} 元, {share} of it all", amount=yuan(first.cost), share=percent(first.cost, whole.cost)),
        delta_color="off", delta_arrow="off", border=True, height="stretch",
    )  # fmt: skip


def _table(totals: list[Used], whole: Used, names: dict[str, str], by: str) -> None:
    columns = [
        Column(_("Model") if by == "model" else _("Account"), lambda one: names.get(one.name, one.name)),
        Column(_("Cost, 元"), lambda one: one.cost, "money"),
        Column(_("Share"), lambda one: percent(one.cost, whole.cost), "right"),
        Column(_("Calls"), lambda one: one.calls, "count"),
        Column(_("Input tokens"), lambda one: one.prompt_tokens, "count"),
        Column(_("of them cached"), lambda one: one.cached_tokens, "count"),
        Column(_("Output tokens"), lambda one: one.completion_tokens, "count"),
    ]
    with paged(totals, key="totals") as rows:
        table(columns, rows, alt=_("What was used, dearest first"))


def _margin(viewer: Viewer, periods: list[Period], user_id: str | None) -> None:
    """What the providers ask, where that is known, beside what was charged."""
    with st.expander(_("Margin"), key="margin"):
        if not st.toggle(_("Show what the providers ask"), key="show-margin"):
            return
        found = viewer.db.read(stats.margins, periods, actor=viewer.actor, user_id=user_id)
        if not found:
            st.caption(_("No call here says what it cost, and the catalogue knows none of these models."))
            return
        whole = stats.Margin("", sum(one.cost for one in found), sum(one.asked for one in found))
        asked, cost, margin = (yuan(each) for each in (whole.cost - whole.margin, whole.cost, whole.margin))
        st.markdown(
            _(
                "The providers ask {asked} 元 for calls that cost {cost} 元 here: a margin of **{margin} 元**.",
                asked=asked,
                cost=cost,
                margin=margin,
            )
        )
        table(
            [
                Column(_("Model"), lambda one: one.name),
                Column(_("Cost, 元"), lambda one: one.cost, "money"),
                Column(_("The providers ask, 元"), lambda one: one.cost - one.margin, "money"),
                Column(_("Margin, 元"), lambda one: one.margin, "signed"),
                Column(_("Margin, %"), lambda one: percent(one.margin, one.cost), "right"),
            ],
            found,
            alt=_("The margin on each model, the dearest first"),
            key="margins",
        )
        st.caption(
            _(
                "Of calls that say what they cost, or whose model the built-in catalogue knows, at the rate of their time."
            )
        )


def _csv(
    viewer: Viewer, periods: list[Period], granularity: str, user_id: str | None, by: str, label: str = ""
) -> None:
    last = stats.from_ns(periods[-1].end_ns - 1, viewer.tz)
    days = {"first": periods[0].start.date().isoformat(), "last": last.date().isoformat()}
    if st.session_state["range"] == "24h":  # no whole days: the file has the last 24 hours without any
        days = {}
    csv_link(
        "stats",
        label,
        user_id=user_id,
        all="" if user_id else "true",
        by=by,
        granularity=granularity,
        timezone=viewer.tz.key,
        **days,
    )
