"""Prices: what does a call cost?"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import streamlit as st

from billing_core import overview, pricing, settings, stats
from billing_core.database import Transaction
from billing_core.errors import BillingError
from billing_core.pricing import Current
from billing_core.rates import Rates
from billing_core.tokens import MOST, Tokens

from .parts import price_dialog, price_editor, price_history, price_lists, price_rules, tables, told
from .parts.tables import Column
from .parts.viewer import Viewer
from .parts.words import SOURCES, _, count, ngettext, price, sentence, yuan, zone_name


def page(viewer: Viewer) -> None:
    def read(tx: Transaction) -> tuple[Any, ...]:
        whose = None if viewer.is_admin else viewer.user_id
        used = stats.usage(tx, overview.last_days(tx, viewer.tz), actor=viewer.actor, user_id=whose)
        return (
            pricing.current(tx),
            pricing.planned(tx),
            {one.name: one for one in stats.totals(used)},
            settings.read(tx),
            tx.now_ns,
        )

    rows, planned, used, known, now_ns = viewer.db.read(read)
    st.title(_("Prices"), anchor=False)
    searched = price_editor.search_and_edit(viewer, rows, used) if viewer.is_admin else _search_and_read(viewer, rows)
    if viewer.is_admin:
        price_rules.at_default(rows, used)
    model = _what_would_it_cost(viewer, rows, next(iter(used), None))
    price_history.planned(viewer, planned)
    if model:
        with st.expander(_("Price history of {model}", model=told.plain(model)), key="price-history"):
            price_history.history(viewer, model, now_ns)
    price_rules.rules(viewer, rows)
    if viewer.is_admin:
        price_lists.lists(viewer, rows)
        _settings(viewer, rows, known)
        price_dialog.opened(viewer)
    with st.container(horizontal=True, horizontal_alignment="distribute"):
        st.caption(_("Times are in {zone}.", zone=zone_name(viewer.tz)))
        tables.csv_link("prices", search=searched.strip(), timezone=viewer.tz.key)


def _search_and_read(viewer: Viewer, rows: Sequence[Current]) -> str:
    searched = price_editor.search()
    price_editor.unit()
    found = [row for row in rows if row.matches(searched)]
    if found:
        columns = [
            Column(_("Model"), lambda row: row.model, width=230),
            *_part_columns("rates."),
            Column(_("Source"), price_editor.source, width=120),
            Column(_("Valid since"), lambda row: price_editor.since(row, viewer), width=140),
        ]
        tables.table(columns, found, alt=_("Prices by model"), key="prices")
    price_editor.nothing(viewer, rows, searched)
    return searched


def _what_would_it_cost(viewer: Viewer, rows: Sequence[Current], most_used: str | None) -> str | None:
    """A call that is only thought of; gives its model."""
    st.subheader(_("What would it cost?"), anchor=False)
    names = [row.model for row in rows]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            _("Model"), names, index=names.index(most_used) if most_used in names else 0 if names else None, width=320,
            accept_new_options=True, key="cost-of", bind="query-params", placeholder=_("A model's name, like openai/gpt-4o"),
        )  # fmt: skip
        prompt = st.number_input(_("Tokens in"), 0, MOST, 1000, step=1000, key="in", bind="query-params", width=170)
        completion = st.number_input(_("Tokens out"), 0, MOST, 500, step=500, key="out", bind="query-params", width=170)
    if not name:
        return None
    try:
        model = pricing.clean_model(name)
    except BillingError as error:
        st.error(told.plain(sentence(error)))
        return None
    rates = viewer.db.read(pricing.in_force, model)
    _decided(viewer, model, rates)
    tier = rates.tier(prompt)
    first, last = (tier.input, tier.output) if tier else (rates.input, rates.output)
    amounts = {
        "prompt": count(prompt), "input": price(first), "completion": count(completion), "output": price(last),
        "cost": yuan(rates.cost(Tokens(prompt, completion))),
    }  # fmt: skip
    if rates.more and rates.more.call:
        fee = price(rates.more.call)
        words = _(
            "{prompt} × {input} + {completion} × {output} 元 per million tokens + {fee} 元 a call = **{cost} 元**",
            fee=fee, **amounts,
        )  # fmt: skip
    else:
        words = _("{prompt} × {input} + {completion} × {output} 元 per million tokens = **{cost} 元**", **amounts)
    st.markdown(words)
    if tier:
        st.caption(_("The price for prompts of more than {above} tokens.", above=count(tier.above)))
    return model


def _decided(viewer: Viewer, model: str, rates: Rates) -> None:
    """Which price it is, what else it has, and for admins the way to change all of it."""
    words = _(SOURCES[rates.source])
    if rates.rule:
        words = _(
            "by the rule {rule}, as {model}", rule=told.plain(rates.rule), model=told.plain(rates.priced_as or "")
        )
    further = " · ".join(f"{name} {text}" for name, text in price_dialog.summary(rates.more).items())
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{_('Price')}: {words}{' · ' + further if further else ''}", width="stretch")
        if viewer.is_admin:
            st.button(
                _("All of its price…"),
                icon=":material/tune:",
                type="tertiary",
                on_click=price_dialog.ask,
                args=(model,),
            )


def _part_columns(where: str = "") -> list[Column]:
    return [
        Column(_(heading), attrgetter(where + part), "price", width=90)
        for part, heading in price_editor.HEADINGS.items()
    ]


def _settings(viewer: Viewer, rows: Sequence[Current], known: Mapping[str, str]) -> None:
    """What the built-in prices are made from."""
    sources = [row.rates.source for row in rows]
    labels = {
        "usd_rate": _("A US dollar, 元"),
        "default_input_price": _("Default for input"),
        "default_output_price": _("Default for output"),
    }
    with st.expander(_("Built-in prices")), st.form("settings", border=False):
        st.markdown(
            _(
                "Where no price is set here, a model's built-in price counts: in US dollars, at this rate. A model that "
                "nobody knows costs the default, in 元 per million tokens."
            )
        )
        built_in, default = sources.count("catalogue"), sources.count("default")
        counted = ngettext("{n} model has a built-in price now.", "{n} models have a built-in price now.", built_in)
        st.caption(f"{counted} {ngettext('{n} model costs the default.', '{n} models cost the default.', default)}")
        fields = zip(labels.items(), st.columns(3), strict=True)
        # With the value in its key, a field shows what somebody else has set in the meantime, and never sets it back.
        given = {
            name: place.text_input(label, known[name], key=f"{name}-{known[name]}") for (name, label), place in fields
        }
        asked = st.form_submit_button(_("Let these count from now on"))
    changed = {name: value for name, value in given.items() if value != known[name]}
    if asked and changed:
        try:
            viewer.db.write(pricing.change_settings, changed, actor=viewer.actor)
        except BillingError as error:
            st.error(told.plain(sentence(error)))
            return
        told.later(_("The built-in prices are changed. What was charged stays as it is."))
        st.rerun()
