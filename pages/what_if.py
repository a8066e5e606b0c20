"""What if: what would it have cost at other prices?"""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from billing_core import catalogues, export, pricing, settings, stats, what_if
from billing_core.database import Transaction
from billing_core.errors import BillingError
from billing_core.money import format_price, parse_price
from billing_core.pricing import Current
from billing_core.rates import PARTS, Prices
from billing_core.stats import Period
from billing_core.what_if import ENTRIES, SAME, SUMS, Summary, Total

from .parts import address, charts, people, ranges, told
from .parts.price_dialog import HEADINGS
from .parts.tables import Column, paged, table
from .parts.viewer import Viewer
from .parts.words import N_, _, count, listed, period_label, sentence, yuan, zone_name

WAYS = {
    "edit": N_("Prices of my own"),
    "catalogue": N_("The built-in catalogue's"),
    "model": N_("Those of another model"),
}
SOURCES = {SAME: N_("as charged"), SUMS: N_("from the sums"), ENTRIES: N_("from the entries")}


def page(viewer: Viewer) -> None:
    st.title(_("What if"), anchor=False)
    st.caption(_("What would it have cost at other prices? Nothing is changed by asking."))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        periods, granularity = ranges.choose(viewer, "30d")
        way = address.pick(
            st.segmented_control, _("Prices"), list(WAYS), key="way", default="edit", required=True,
            name=lambda option: _(WAYS[option]),
        )  # fmt: skip

    def read(tx: Transaction) -> tuple[list[str], dict[str, Current], dict[str, str]]:
        used = stats.totals(stats.usage(tx, [stats.joined(periods)], actor=viewer.actor, user_id=None))
        current = {row.model: row for row in pricing.current(tx)}
        return [one.name for one in used], current, people.names(tx, viewer.actor)

    used, current, names = viewer.db.read(read)
    # What was chosen stays, used or not: without it, the answer would be about all of them.
    to_choose = [*used, *(one for one in st.session_state.get("what-if-models", ()) if one not in used)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        models = st.multiselect(_("Models"), to_choose, key="what-if-models", placeholder=_("All of them"), width=420)
        user_ids = st.multiselect(
            _("Accounts"),
            list(names),
            key="what-if-accounts",
            placeholder=_("All of them"),
            width=300,
            format_func=names.__getitem__,
        )
    if not used:
        st.info(_("Nothing was used in this range. Choose a longer one."))
        return
    try:
        wanted = _wanted(viewer, way, models or used, current)
    except BillingError as error:
        st.error(told.plain(sentence(error)))
        return
    to_the_last = st.toggle(_("To the last 毫, from the entries"), key="to-the-last")
    options: dict[str, Any] = {"user_ids": user_ids, "models": models, "to_the_last": to_the_last}
    answer = viewer.db.read(what_if.summary, periods, wanted, actor=viewer.actor, **options)
    _show(answer, periods, granularity, names)

    def as_csv() -> bytes:
        cells = viewer.db.read(what_if.what_if, periods, wanted, actor=viewer.actor, **options)
        return b"".join(export.what_if(cells, periods))

    first, last = (stats.from_ns(ns, viewer.tz).date() for ns in (periods[0].start_ns, periods[-1].end_ns - 1))
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.caption(_("Periods are cut in {zone}.", zone=zone_name(viewer.tz)))
        st.download_button(
            _("Download CSV"), as_csv, f"what-if-{first}_{last}.csv", "text/csv",
            icon=":material/download:", type="tertiary", on_click="ignore",
        )  # fmt: skip


def _wanted(viewer: Viewer, way: str, models: Sequence[str], current: Mapping[str, Current]) -> dict[str, Prices]:
    """The other price of each model that has one. Raises Invalid."""
    if way == "edit":
        return _edited(models, current)
    if way == "catalogue":
        rate = Decimal(viewer.db.read(settings.read)["usd_rate"])
        found = {model: catalogues.built_in_rates(model, rate) for model in models}
        return {model: pricing.prices_of(rates) for model, rates in found.items() if rates}
    other = st.selectbox(
        _("The model"), sorted(current), index=None, key="what-if-as", width=320, accept_new_options=True,
        placeholder=_("A model's name, like openai/gpt-4o"),
    )  # fmt: skip
    if not other:
        return {}
    rates = viewer.db.read(pricing.in_force, pricing.clean_model(other))
    if rates.source == "default":
        st.caption(_("No price is known for {model}: the default price counts for it.", model=told.plain(other)))
    return dict.fromkeys(models, pricing.prices_of(rates))


def _edited(models: Sequence[str], current: Mapping[str, Current]) -> dict[str, Prices]:
    """The prices that were changed in the table. What was typed stays with its model, whichever others are shown."""
    written = {
        part: [
            "" if (micro := getattr(current[model].prices, part)) is None else format_price(micro) for model in models
        ]
        for part in PARTS
    }
    typed: dict[tuple[str, str], str] = st.session_state.setdefault("what-if-typed", {})
    key = f"what-if-{hash((*models, *map(tuple, written.values())))}"
    if st.session_state.get("what-if-shown", ("",))[0] != key:
        # What a new editor begins with. It knows its own changes, so that this stays as long as it does.
        begun = {
            part: [typed.get((model, part), written[part][place]) for place, model in enumerate(models)]
            for part in PARTS
        }
        st.session_state["what-if-shown"] = key, begun
        st.session_state.pop(key, None)
    text = st.column_config.TextColumn
    edited = st.data_editor(
        pd.DataFrame({"model": list(models), **st.session_state["what-if-shown"][1]}, dtype=object), hide_index=True, key=key,
        placeholder="", height="content" if len(models) <= 8 else "auto", alt=_("The prices to try, to be edited"),
        column_config={
            "model": text(_("Model"), disabled=True),
            **{part: text(_(HEADINGS[part]), alignment="right") for part in PARTS},
        },
    )  # fmt: skip
    st.caption(
        _(
            "元 per million tokens, as they count now: change any of them. An empty cache price is that of input. A model "
            "that you leave as it is costs what it was charged."
        )
    )
    wanted = {}
    for place, model in enumerate(models):
        cells = {part: str(edited[part][place] or "").strip() for part in PARTS}
        for part in PARTS:
            if cells[part] == written[part][place]:
                typed.pop((model, part), None)
            else:
                typed[model, part] = cells[part]
        if any(cells[part] != written[part][place] for part in PARTS):
            first, output = (parse_price(cells[part], field=part) for part in ("input", "output"))
            read, write = (
                parse_price(cells[part], field=part) if cells[part] else None for part in ("cache_read", "cache_write")
            )
            other = Prices(first, output, read, write, current[model].prices.more)
            if other != current[model].prices:  # 9 is 9.00
                wanted[model] = other
    return wanted


def _show(answer: Summary, periods: Sequence[Period], granularity: str, names: Mapping[str, str]) -> None:
    whole = answer.whole
    old, new, difference = st.columns(3)
    old.metric(_("Charged, 元"), yuan(whole.old), border=True)
    new.metric(_("It would have cost, 元"), yuan(whole.new), border=True)
    difference.metric(_("Difference, 元"), yuan(whole.difference, sign=True), border=True)
    if whole.slack:
        st.caption(
            _(
                "From the sums of use: rounding up each call adds at most {slack} 元.",
                slack=yuan(whole.slack, decimals=4),
            )
        )
    _bars(periods, {one.name: one for one in answer.by_period}, granularity)
    _table(_("Model"), answer.by_model, "model", {})
    _table(_("Account"), answer.by_account, "account", names)


def _table(heading: str, totals: Sequence[Total], key: str, names: Mapping[str, str]) -> None:
    columns = [
        Column(heading, lambda one: names.get(one.name, one.name), width=230),
        Column(_("Calls"), lambda one: one.calls, "count"),
        Column(_("Charged, 元"), lambda one: one.old, "money"),
        Column(_("It would have cost, 元"), lambda one: one.new, "money"),
        Column(_("Difference, 元"), lambda one: one.difference, "signed"),
        Column(_("How"), lambda one: listed(_(SOURCES[source]) for source in sorted(one.sources))),
    ]
    with paged(totals, key=f"what-if-by-{key}") as rows:
        table(columns, rows, alt=_("Old and new cost, the dearest first"), key=f"what-if-by-{key}")


def _bars(periods: Sequence[Period], totals: Mapping[int, Total], granularity: str) -> None:
    """What was charged beside what it would have cost, period by period."""
    kinds = {"old": _("Charged"), "new": _("It would have cost")}
    data = [
        {
            "place": place, "label": period_label(period, granularity), "kind": name, "amount": getattr(totals[place], kind) / 10_000,
            "shown": f"{yuan(getattr(totals[place], kind))} 元", "calls": count(totals[place].calls),
        }
        for place, period in enumerate(periods) if place in totals for kind, name in kinds.items()
    ]  # fmt: skip
    labels = [
        period.start.strftime("%m-%d" if granularity == "day" else "%Y-%m" if granularity == "month" else "%H:%M")
        for period in periods
    ]
    domain = list(range(len(periods)))
    axis = alt.Axis(
        title=None, labelAngle=0, values=domain[:: max(1, -(-len(periods) // 10))], labelExpr=f"{json.dumps(labels)}[datum.value]",
        ticks=False, domain=False, labelOverlap=True,
    )  # fmt: skip
    chart = (
        alt.Chart(height=220)
        .mark_bar(cornerRadius=1)
        .encode(
            x=alt.X("place:O", scale=alt.Scale(domain=domain), axis=axis),
            xOffset=alt.XOffset("kind:N", sort=list(kinds.values())),
            y=alt.Y("amount:Q", axis=alt.Axis(title="元", titleAngle=0, titleAlign="left", titleY=-8, titleX=0, tickCount=5)),
            color=alt.Color(
                "kind:N", scale=alt.Scale(domain=list(kinds.values()), range=[charts.GREY, charts.PALETTE[0]]),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            tooltip=[alt.Tooltip("label:N", title=_("Time")), alt.Tooltip("kind:N", title=_("What")), alt.Tooltip("shown:N", title=_("Cost")), alt.Tooltip("calls:N", title=_("Calls"))],
        )
    )  # fmt: skip
    charts.draw(
        chart,
        data,
        key="what-if-bars",
        alt=_("Bars of what was charged and what it would have cost; the tables below have the figures."),
    )
