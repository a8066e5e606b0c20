"""One model's whole price: the four that everybody knows, and what unfolds beside them. From → to, before it counts."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, time
from decimal import Decimal
from typing import Any

import pandas as pd
import streamlit as st

from billing_core import pricing, stats
from billing_core.errors import BillingError, Invalid
from billing_core.money import WHOLE, format_price, parse_price, price_yuan
from billing_core.pricing import Change
from billing_core.rates import FALLS_UNDER, MORE_PARTS, PARTS, More, Prices, Rates, Tier, as_rates

from . import dialog, told
from .viewer import Viewer
from .words import N_, _, listed, moment, sentence

HEADINGS = {
    "input": N_("Input"),
    "output": N_("Output"),
    "cache_read": N_("Cache read"),
    "cache_write": N_("Cache write"),
    "cache_write_1h": N_("Cache write, 1 h"),
    "audio_input": N_("Audio in"),
    "image_input": N_("Images in"),
    "audio_output": N_("Audio out"),
    "image_output": N_("Images out"),
    "call": N_("Each call, 元"),
}
"""What the components of a price are called."""
TIER_PARTS = ("input", "output", "cache_read", "cache_write")
NAME = "price of one model"


def ask(model: str) -> None:
    """Open the dialog. For a button's `on_click`."""
    dialog.open(NAME, model)


def opened(viewer: Viewer) -> None:
    """The dialog, while it is open."""
    about = dialog.asked(NAME)
    if about is not None:
        (model,) = about
        dialog.show(_("The price of {model}", model=told.plain(model)), _edit, viewer, model, width="medium")


def _key(field: str) -> str:
    return dialog.fresh(f"{NAME} {field}", dialog.closed())


def _edit(viewer: Viewer, model: str) -> None:
    now = dialog.seen(lambda: viewer.db.read(pricing.in_force, model))
    prices = pricing.prices_of(now)
    more = prices.more or More()
    st.caption(_("元 per million tokens. Empty: the same as the one that is named in the field. 0 is free."))
    fields: dict[str, str] = {}
    for row in (PARTS, MORE_PARTS):
        for part, place in zip(row, st.columns(len(row)), strict=True):
            micro = getattr(prices if part in PARTS else more, part)
            like = FALLS_UNDER.get(part)
            fields[part] = place.text_input(
                _(HEADINGS[part]), "" if micro is None else format_price(micro), key=_key(part),
                placeholder=_("as {kind}", kind=_(HEADINGS[like])) if like else "", autocomplete="off",
            )  # fmt: skip
    left, right = st.columns(2)
    fields["call"] = left.text_input(_(HEADINGS["call"]), format_price(more.call), key=_key("call"), autocomplete="off")
    with right:
        at = start(viewer, dialog.fresh(NAME, dialog.closed()))
    with st.expander(_("Long prompts"), expanded=bool(more.tiers)):
        st.caption(_("All tokens of a call cost what its row says, where the prompt has more tokens than that."))
        tiers = _table("tiers", [_("More than"), *(_(HEADINGS[part]) for part in TIER_PARTS)], [
            [str(tier.above), *("" if (micro := getattr(tier, part)) is None else format_price(micro) for part in TIER_PARTS)]
            for tier in more.tiers
        ])  # fmt: skip
    with st.expander(_("Tools"), expanded=bool(more.tools)):
        st.caption(_("What each call of a tool costs besides its tokens, in 元: web_search, file_search, …"))
        tools = _table("tools", [_("Tool"), _("元 a call")], [[name, format_price(fee)] for name, fee in more.tools])
    with st.expander(_("Service tiers"), expanded=bool(more.service_tiers)):
        st.caption(_("What tokens cost in a service tier, as a multiple: batch 0.5, priority 2."))
        multiples = _table("service tiers", [_("Service tier"), _("Multiple")], [
            [name, f"{price_yuan(ppm):f}"] for name, ppm in more.service_tiers
        ])  # fmt: skip
    try:
        wanted = _prices(fields, tiers, tools, multiples, more)
    except BillingError as error:
        st.error(told.plain(sentence(error)))
        return
    changed = list(differences(now, as_rates(wanted)))
    st.markdown("\n".join(f"- {line}" for line in changed) or _("No price is different yet."))
    label = _("Let it count from now on") if at is None else _("Plan it")
    if st.button(label, type="primary", disabled=not changed and now.source == "database"):
        seen = now.price_id if now.source == "database" and now.rule is None else None
        try:
            viewer.db.write(pricing.apply, [Change(model, wanted, seen)], actor=viewer.actor, valid_from_ns=at)
        except BillingError as error:
            st.error(told.plain(sentence(error)))
            return
        if at is None:
            dialog.done(
                _("The price of {model} counts from now on. What was charged stays as it is.", model=told.plain(model))
            )
        else:
            dialog.done(
                _("The price of {model} is planned for {when}.", model=told.plain(model), when=moment(at, viewer.tz))
            )


def start(viewer: Viewer, key: str) -> int | None:
    """The moment from which prices shall count, on the day that is chosen; None: now."""
    with st.container(horizontal=True):
        day = st.date_input(
            _("From"), value=None, key=f"{key} day", format="YYYY-MM-DD", width=150,
            help=_("Leave it empty to let them count from now on."),
        )  # fmt: skip
        if day is None:
            return None
        at = st.time_input(_("At"), value=time(0), key=f"{key} time", width=120)
    return stats.to_ns(datetime.combine(day, at, tzinfo=viewer.tz))


def _table(name: str, headings: list[str], rows: list[list[str]]) -> list[list[str]]:
    """A small table to be filled in; its rows that aren't empty."""
    text = st.column_config.TextColumn
    frame = pd.DataFrame(rows, columns=headings, dtype=object)
    edited = st.data_editor(
        frame, num_rows="dynamic", hide_index=True, placeholder="", key=_key(name),
        column_config={heading: text(heading) for heading in headings},
    )  # fmt: skip
    cells = [[str(cell or "").strip() for cell in row] for row in edited.fillna("").values.tolist()]
    return [row for row in cells if any(row)]


def _prices(
    fields: Mapping[str, str], tiers: list[list[str]], tools: list[list[str]], multiples: list[list[str]], before: More
) -> Prices:
    """What stands in the fields. Raises Invalid."""
    fee, tools_fees = fields["call"], [(name, _factor(name, text, FEE)) for name, text in tools]
    micro = {
        part: parse_price(text, field=part) if text.strip() else None for part, text in fields.items() if part != "call"
    }
    further = {tier.above: tier for tier in before.tiers}
    more = More(
        **{part: micro[part] for part in MORE_PARTS},
        call=_factor(_(HEADINGS["call"]), fee, FEE) if fee.strip() else 0,
        tools=tuple(sorted(tools_fees)),
        tiers=tuple(sorted((_tier(row, further) for row in tiers), key=lambda tier: tier.above)),
        service_tiers=tuple(sorted((name, _factor(name, text, MULTIPLE)) for name, text in multiples)),
    )
    first, output = (_needed(part, fields[part], field=part) for part in ("input", "output"))
    return Prices(first, output, micro["cache_read"], micro["cache_write"], None if more == More() else more)


FEE = N_("{name}: “{value}” is no fee. Write 元 a call, with at most six decimal places, like 0.05.")
MULTIPLE = N_("{name}: “{value}” is no multiple. Write one with at most six decimal places, like 0.5.")


def _factor(name: str, text: str, otherwise: str) -> int:
    """What isn't a price per million tokens, in millionths. Raises Invalid, which says `otherwise`."""
    try:
        return parse_price(text)
    except Invalid:
        raise Invalid(otherwise, field="price", name=name or "–", value=text) from None


def _needed(part: str, text: str, *, field: str) -> int:
    """A price that stands for itself. Raises Invalid."""
    if not text.strip():
        raise Invalid(N_("{kind} needs a price. Write 0 where it is free."), field=field, kind=_(HEADINGS[part]))
    return parse_price(text, field=field)


def _tier(row: list[str], known: Mapping[int, Tier]) -> Tier:
    """A row of the table of long prompts. Raises Invalid."""
    count = row[0].replace(",", "")
    if not re.fullmatch(WHOLE, row[0]) or len(count) > 10:
        raise Invalid(N_("“{text}” is no number of tokens. Write one like 200000."), field="tiers", text=row[0])
    above = int(count)
    first, output = (_needed(part, text, field="tiers") for part, text in zip(TIER_PARTS, row[1:3], strict=False))
    read, write = (parse_price(text, field="tiers") if text else None for text in row[3:])
    if above in known:
        return replace(known[above], input=first, output=output, cache_read=read, cache_write=write)
    return Tier(above, first, output, read, write)


def differences(before: Rates, after: Rates) -> Iterable[str]:
    """What a change of a price comes to, a line each."""
    for part in PARTS:
        old, new = getattr(before, part), getattr(after, part)
        if old != new:
            yield f"{_(HEADINGS[part])} {format_price(old)} → {format_price(new)}"
    old_more, new_more = before.more or More(), after.more or More()
    for part in (*MORE_PARTS, "call"):
        old, new = getattr(old_more, part), getattr(new_more, part)
        if old != new:
            yield f"{_(HEADINGS[part])} {_amount(old)} → {_amount(new)}"
    for heading, old_rows, new_rows in (
        (_("Tools"), _told(old_more.tools), _told(new_more.tools)),
        (_("Service tiers"), _told(old_more.service_tiers), _told(new_more.service_tiers)),
        (_("Long prompts"), _told_tiers(old_more.tiers), _told_tiers(new_more.tiers)),
    ):
        if old_rows != new_rows:
            yield f"{heading}: {old_rows or '–'} → {new_rows or '–'}"


def _amount(micro: int | None) -> str:
    return "–" if micro is None else format_price(micro)


def _told(rows: Iterable[tuple[str, int]], plain: Callable[[str], str] = told.plain) -> str:
    return listed(f"{plain(name)} {Decimal(price_yuan(micro)):f}" for name, micro in rows)


def _told_tiers(tiers: Iterable[Tier]) -> str:
    return listed(f"> {tier.above:,}: {format_price(tier.input)} / {format_price(tier.output)}" for tier in tiers)


def summary(more: More | None, plain: Callable[[str], str] = told.plain) -> dict[str, Any]:
    """The components beyond the four that a price has, by heading, as they are read. `plain`: what keeps a name from being
    taken for Markdown."""
    if more is None:
        return {}
    shown: dict[str, Any] = {
        _(HEADINGS[part]): format_price(micro) for part in MORE_PARTS if (micro := getattr(more, part)) is not None
    }
    if more.call:
        shown[_(HEADINGS["call"])] = format_price(more.call)
    for heading, text in (
        (_("Tools"), _told(more.tools, plain)),
        (_("Service tiers"), _told(more.service_tiers, plain)),
        (_("Long prompts"), _told_tiers(more.tiers)),
    ):
        if text:
            shown[heading] = text
    return shown
