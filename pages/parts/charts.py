"""Charts: one look for all of them. Numbers become floats here alone, to be drawn; what is written stays exact.

Altair would check each part of each chart against Vega-Lite's schema, which takes longer than all else on a page: a test does
that once instead. What is encoded is given as its channel (alt.X, alt.OpacityValue): of a string or a dict, like that of
alt.condition, Altair looks for the schema that fits, which takes as long.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import altair as alt
import streamlit as st
from altair.utils import schemapi
from babel.dates import format_skeleton

from billing_core.stats import Period, Used, totals

from .words import N_, _, count, locale, percent, period_label, yuan

schemapi.disable_debug_mode()

PALETTE = (
    "#3366aa", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a6fc9", "#b5a800", "#7a4a2b", "#17a2a2",
    "#7f9fce", "#f2c76b", "#66c5a8", "#e2b3cc", "#a3d5f2", "#e89a66", "#b9a8df", "#d6cd66", "#b08a6e", "#7bcaca",
)  # fmt: skip
"""Ten colours that colour-blind people tell apart, then the same ones lighter."""
GREY = "#9aa3a0"
ROWS = alt.NamedData("rows")
LONGEST = 10
"""So many have a colour of their own on one chart; the rest is “other”."""
HEIGHT, LEGEND_HEIGHT = 300, 14
"""In pixels: of the bars, and of a legend's line, which holds several names unless the screen is narrow."""
MEASURES = {"cost": N_("Cost"), "calls": N_("Calls"), "tokens": N_("Tokens")}


def _amount(measure: str, number: int) -> str:
    return f"{yuan(number)} 元" if measure == "cost" else count(number)


def stacked(
    periods: Sequence[Period], used: Sequence[Used], *, granularity: str, measure: str, numbers: dict[str, int],
    now_ns: int, key: str, names: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """What was used, bars period by period. `numbers` gives each name its colour, `names` what it is called; what has no
    name is “other”, like all beyond LONGEST."""
    by_name = {one.name: getattr(one, measure) for one in totals(used)}
    dearest = sorted(filter(None, by_name), key=lambda name: (-by_name[name], name))[:LONGEST]
    other = _("other")
    called = {name: (names or {}).get(name, name) for name in dearest}
    calls: Counter[tuple[int, str]] = Counter()
    amounts: Counter[tuple[int, str]] = Counter()
    whole: Counter[int] = Counter()
    for one in used:
        place = one.period, called.get(one.name, other)
        amounts[place] += getattr(one, measure)
        calls[place] += one.calls
        whole[one.period] += getattr(one, measure)
    series = [*called.values(), *([other] if len(by_name) > len(dearest) else [])]
    colours = [*_colours(dearest, numbers), GREY]
    data = [
        {
            "place": place,
            "label": label,
            "name": name,
            "amount": amounts[place, name] / (10_000 if measure == "cost" else 1),
            "shown": _amount(measure, amounts[place, name]),
            "calls": count(calls[place, name]),
            "share": percent(amounts[place, name], whole[place]),
            "over": period.end_ns <= now_ns,
            "rank": series.index(name),
        }
        for place, period in enumerate(periods)
        for label in [period_label(period, granularity)]
        for name in series
        if amounts[place, name]
    ]
    draw(
        _stacked(periods, series, colours, granularity, measure),
        data,
        key=key,
        alt=_("Bars of what was used, period by period; the table below has the figures."),
    )


def _colours(names: Sequence[str], numbers: dict[str, int]) -> list[str]:
    """A colour each, no two alike: that of its number, wherever it is shown, unless one with a lower number has it."""
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: numbers.get(name, 1)):
        place = numbers.get(name, 1) - 1
        while (colour := PALETTE[place % len(PALETTE)]) in found.values():
            place += 1
        found[name] = colour
    return [found[name] for name in names]


def draw(
    chart: alt.Chart | alt.LayerChart | alt.FacetChart, data: Sequence[Mapping[str, object]], *, key: str, alt: str
) -> None:
    """Draw a chart of rows. `alt`: what it shows, for who can't see it."""
    # Named before it is written: each layer of a chart without data would get some of its own, that is empty.
    spec = chart.properties(data=ROWS).to_dict(validate=False) | {"datasets": {"rows": [*data]}}
    st.vega_lite_chart(spec, key=key, alt=alt)


def _stacked(
    periods: Sequence[Period], series: list[str], colours: list[str], granularity: str, measure: str
) -> alt.Chart:
    labels = [_axis_label(period, granularity) for period in periods]
    chosen = alt.selection_point(fields=["name"], bind="legend")
    domain = list(range(len(periods)))
    every = max(1, -(-len(periods) // 12))
    text = "#c3ccc8" if st.context.theme.type == "dark" else "#4a5550"
    axis = alt.Axis(
        title=None, labelAngle=0, values=domain[::-1][::every], ticks=False, domain=False, labelOverlap=True,
        labelExpr=f"{json.dumps(labels)}[datum.value]", grid=False,
    )  # fmt: skip
    return (
        alt.Chart()
        .mark_bar(cornerRadius=1)
        .transform_filter(chosen)
        .encode(
            x=alt.X("place:O", scale=alt.Scale(domain=domain, paddingInner=0.25), axis=axis),
            y=alt.Y(
                "amount:Q",
                stack="zero",
                axis=alt.Axis(
                    title="元" if measure == "cost" else None,
                    tickCount=5,
                    titleAngle=0,
                    titleAlign="left",
                    titleY=-8,
                    titleX=0,
                    domain=False,
                    ticks=False,
                    format=",.4~f" if measure == "cost" else "~s",
                ),
            ),
            color=alt.Color(
                "name:N",
                scale=alt.Scale(domain=series, range=colours),
                legend=alt.Legend(
                    title=None,
                    orient="bottom",
                    offset=6,
                    columns=alt.ExprRef("max(1, floor(width / 200))"),
                    labelLimit=220,
                    symbolType="square",
                )
                if len(series) > 1
                else None,
            ),
            order=alt.Order("rank:Q"),
            opacity=alt.OpacityValue(0.55, condition={"test": "datum.over", "value": 1}),
            tooltip=[
                alt.Tooltip("label:N", title=_("Period")),
                alt.Tooltip("name:N", title=_("Name")),
                alt.Tooltip("shown:N", title=_(MEASURES[measure])),
                alt.Tooltip("calls:N", title=_("Calls")),
                alt.Tooltip("share:N", title=_("Share")),
            ],
        )
        .add_params(chosen)
        .properties(height=HEIGHT + LEGEND_HEIGHT * len(series))
        .configure_view(stroke=None)
        .configure_axis(gridOpacity=0.5, labelColor=text, titleColor=text)
        .configure_legend(labelColor=text)
    )


_AXIS = {"hour": "Hm", "day": "MMMd", "month": "yMMM"}


def _axis_label(period: Period, granularity: str) -> str:
    return str(format_skeleton(_AXIS[granularity], period.start, locale=locale()))
