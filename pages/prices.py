"""Prices: what does a call cost?"""

from collections.abc import Mapping, Sequence
from operator import attrgetter

import streamlit as st

from billing_core import overview, pricing, settings, stats
from billing_core.database import Transaction
from billing_core.errors import BillingError
from billing_core.pricing import Current, SetPrice
from billing_core.usage import MOST, Tokens

from .parts import price_editor, tables, told
from .parts.tables import Column
from .parts.viewer import Viewer
from .parts.words import SOURCES, _, count, moment, ngettext, price, sentence, yuan, zone_name


def page(viewer: Viewer) -> None:
    def read(tx: Transaction) -> tuple:
        whose = None if viewer.is_admin else viewer.user_id
        used = stats.usage(tx, overview.last_days(tx, viewer.tz), actor=viewer.actor, user_id=whose)
        return (
            pricing.current(tx),
            pricing.planned(tx),
            {one.name: one for one in stats.totals(used)},
            settings.read(tx),
        )

    rows, planned, used, known = viewer.db.read(read)
    st.title(_("Prices"), anchor=False)
    searched = price_editor.search_and_edit(viewer, rows, used) if viewer.is_admin else _search_and_read(viewer, rows)
    _explain(viewer, rows, searched)
    model = _what_would_it_cost(viewer, rows, next(iter(used), None))
    _planned(viewer, planned)
    if model:
        _history(viewer, model)
    if viewer.is_admin:
        _settings(viewer, rows, known)
    with st.container(horizontal=True, horizontal_alignment="distribute"):
        st.caption(_("Times are in {zone}.", zone=zone_name(viewer.tz)))
        tables.csv_link("prices", search=searched.strip(), timezone=viewer.tz.key)


def _search_and_read(viewer: Viewer, rows: Sequence[Current]) -> str:
    searched = price_editor.search()
    found = [row for row in rows if row.matches(searched)]
    if found:
        columns = [
            Column(_("Model"), lambda row: row.model, width=230),
            *_part_columns("rates."),
            Column(_("Source"), lambda row: _(SOURCES[row.rates.source]), width=90),
            Column(_("Since"), lambda row: price_editor.since(row, viewer), width=140),
        ]
        tables.table(columns, found, alt=_("Prices by model"), key="prices")
    return searched


def _explain(viewer: Viewer, rows: Sequence[Current], searched: str) -> None:
    """The unit, and what to do where there is nothing or where something is missing."""
    if not rows:
        st.info(
            _(
                "No model has been charged or priced yet. A model stands here once it is; the built-in prices count already."
            )
            if not viewer.is_admin
            else _(
                "No model yet: add a row to set a price. Models that are charged appear here, at their built-in price."
            ),
            icon=":material/sell:",
        )
    elif not any(row.matches(searched) for row in rows):
        st.info(
            _(
                "No model here has “{search}” in its name. What it would cost can be asked below.",
                search=told.plain(searched.strip()),
            ),
            icon=":material/search_off:",
        )
    unit = _("Prices are in 元 per million tokens.")
    st.caption(f"{unit} {_('An empty cache price is the same as that of input.')}" if viewer.is_admin else unit)


def _what_would_it_cost(viewer: Viewer, rows: Sequence[Current], most_used: str | None) -> str | None:
    """A call that is only thought of; gives its model."""
    st.subheader(_("What would it cost?"), anchor=False)
    names = [row.model for row in rows]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            _("Model"), names, index=names.index(most_used) if most_used in names else 0 if names else None, width=320,
            accept_new_options=True, key="model", placeholder=_("A model's name, like openai/gpt-4o"),
        )  # fmt: skip
        prompt = st.number_input(_("Tokens in"), 0, MOST, 1000, step=1000, key="in", width=170)
        completion = st.number_input(_("Tokens out"), 0, MOST, 500, step=500, key="out", width=170)
    if not name:
        return None
    try:
        model = pricing.clean_model(name)
    except BillingError as error:
        st.error(sentence(error))
        return None
    rates = viewer.db.read(pricing.in_force, model)
    st.markdown(
        _(
            "{prompt} × {input} + {completion} × {output} 元 per million tokens = **{cost} 元**",
            prompt=count(prompt), input=price(rates.input), completion=count(completion), output=price(rates.output),
            cost=yuan(rates.cost(Tokens(prompt, completion))),
        )
    )  # fmt: skip
    return model


def _planned(viewer: Viewer, planned: Sequence[SetPrice]) -> None:
    if planned:
        st.subheader(_("Planned"), anchor=False)
        columns = [Column(_("Model"), lambda row: row.model, width=230), *_price_columns(viewer)]
        tables.table(columns, planned, alt=_("Planned prices, the soonest first"), key="planned")


def _history(viewer: Viewer, model: str) -> None:
    with st.expander(_("What {model} cost before", model=told.plain(model))):
        past = viewer.db.read(pricing.history, model)
        if past:
            tables.table(_price_columns(viewer), past, alt=_("Prices that were set, newest first"), key="history")
        else:
            st.caption(_("No price was ever set for it here; its built-in price counts."))


def _part_columns(where: str = "") -> list[Column]:
    return [
        Column(_(heading), attrgetter(where + part), "price", width=90)
        for part, heading in price_editor.HEADINGS.items()
    ]


def _price_columns(viewer: Viewer) -> list[Column]:
    return [
        Column(_("From"), lambda row: moment(row.valid_from_ns, viewer.tz), width=140),
        *_part_columns(),
        Column(_("What"), lambda row: _("Retired") if row.input is None else _("Set here")),
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
                "Built-in prices are kept in US dollars and count at this rate; models that nobody knows cost the default."
            )
            + " "
            + ngettext("{n} model here is built in,", "{n} models here are built in,", sources.count("catalogue"))
            + " "
            + ngettext("{n} costs the default.", "{n} cost the default.", sources.count("default"))
        )
        fields = zip(labels.items(), st.columns(3), strict=True)
        given = {name: place.text_input(label, known[name], key=name) for (name, label), place in fields}
        asked = st.form_submit_button(_("Let these count from now on"))
    changed = {name: value for name, value in given.items() if value != known[name]}
    if asked and changed:
        try:
            viewer.db.write(pricing.change_settings, changed, actor=viewer.actor)
        except BillingError as error:
            st.error(sentence(error))
            return
        told.later(_("The built-in prices are changed. What was charged stays as it is."))
        st.rerun()
