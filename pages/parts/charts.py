"""Charts: one look for all of them. Numbers become floats here alone, to be drawn; what is written stays exact.

They are written as Vega-Lite's JSON: to check them against its schema each time, as Altair does, takes longer than all else
on a page."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st
from babel.dates import format_skeleton

from billing_core.stats import Period, Used, totals

from .words import N_, _, count, locale, percent, period_label, yuan

PALETTE = (
    "#3366aa", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a6fc9", "#b5a800", "#7a4a2b", "#17a2a2",
    "#7f9fce", "#f2c76b", "#66c5a8", "#e2b3cc", "#a3d5f2", "#e89a66", "#b9a8df", "#d6cd66", "#b08a6e", "#7bcaca",
)  # fmt: skip
"""Ten colours that colour-blind people tell apart, then the same ones lighter."""
GREY = "#9aa3a0"
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
    colours = [PALETTE[(numbers.get(name, 1) - 1) % len(PALETTE)] for name in dearest] + [GREY]
    data = [
        {
            "place": place,
            "label": period_label(period, granularity),
            "name": name,
            "amount": amounts[place, name] / (10_000 if measure == "cost" else 1),
            "shown": _amount(measure, amounts[place, name]),
            "calls": count(calls[place, name]),
            "share": percent(amounts[place, name], whole[place]),
            "over": period.end_ns <= now_ns,
            "rank": series.index(name),
        }
        for place, period in enumerate(periods)
        for name in series
        if amounts[place, name]
    ]
    st.vega_lite_chart(
        _stacked(periods, data, series, colours, granularity, measure),
        key=key,
        alt=_("Bars of what was used, period by period; the table below has the figures."),
    )


def _stacked(
    periods: Sequence[Period], data: list[dict[str, Any]], series: list[str], colours: list[str], granularity: str,
    measure: str,
) -> dict[str, Any]:  # fmt: skip
    domain = list(range(len(periods)))
    every = max(1, -(-len(periods) // 12))
    text = "#c3ccc8" if st.context.theme.type == "dark" else "#4a5550"
    legend = {
        "title": None, "orient": "bottom", "offset": 6, "columns": {"expr": "max(1, floor(width / 200))"},
        "labelLimit": 220, "symbolType": "square",
    }  # fmt: skip
    shown = {"label": _("Period"), "name": _("Name"), "shown": _(MEASURES[measure]), "calls": _("Calls"), "share": _("Share")}  # fmt: skip
    return {
        "data": {"values": data},
        "mark": {"type": "bar", "cornerRadius": 1},
        "transform": [{"filter": {"param": "chosen"}}],
        "params": [{"name": "chosen", "select": {"type": "point", "fields": ["name"]}, "bind": "legend"}],
        "encoding": {
            "x": {
                "field": "place",
                "type": "ordinal",
                "scale": {"domain": domain, "paddingInner": 0.25},
                "axis": period_axis(
                    [_axis_label(period, granularity) for period in periods], domain[::-1][::every], grid=False
                ),
            },
            "y": {
                "field": "amount",
                "type": "quantitative",
                "stack": "zero",
                "axis": {
                    **YUAN_AXIS,
                    "title": "元" if measure == "cost" else None,
                    "domain": False,
                    "ticks": False,
                    "format": ",.4~f" if measure == "cost" else "~s",
                },
            },
            "color": {
                "field": "name",
                "type": "nominal",
                "scale": {"domain": series, "range": colours},
                "legend": legend if len(series) > 1 else None,
            },
            "order": {"field": "rank", "type": "quantitative"},
            "opacity": {"condition": {"test": "datum.over", "value": 1}, "value": 0.55},
            "tooltip": tooltip(shown),
        },
        "height": HEIGHT + LEGEND_HEIGHT * len(series),
        "config": {
            "view": {"stroke": None},
            "axis": {"gridOpacity": 0.5, "labelColor": text, "titleColor": text},
            "legend": {"labelColor": text},
        },
    }


YUAN_AXIS = {"title": "元", "titleAngle": 0, "titleAlign": "left", "titleY": -8, "titleX": 0, "tickCount": 5}


def period_axis(labels: Sequence[str], places: Sequence[int], **more: Any) -> dict[str, Any]:
    """An axis of periods: the labels of all, and the places at which one stands."""
    return {
        "title": None, "labelAngle": 0, "values": places, "labelExpr": f"{json.dumps(labels, ensure_ascii=False)}[datum.value]",
        "ticks": False, "domain": False, "labelOverlap": True, **more,
    }  # fmt: skip


def tooltip(fields: Mapping[str, str]) -> list[dict[str, str]]:
    """What the pointer shows of a bar: fields and what they are called."""
    return [{"field": field, "title": title, "type": "nominal"} for field, title in fields.items()]


_AXIS = {"hour": "Hm", "day": "MMMd", "month": "yMMM"}


def _axis_label(period: Period, granularity: str) -> str:
    return str(format_skeleton(_AXIS[granularity], period.start, locale=locale()))
