"""Many prices at once, from a list that others keep: first what it would change, then all of it as one change."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

import streamlit as st

from billing_core import catalogues, pricing, settings
from billing_core.catalogues import Catalogue, Row
from billing_core.errors import BillingError, Invalid
from billing_core.i18n import translate
from billing_core.money import parse_price
from billing_core.pricing import Change, Current

from . import dialog, tables, told
from .price_dialog import HEADINGS, summary
from .tables import Column
from .viewer import Viewer
from .words import N_, _, language, listed, moment, ngettext, price, sentence

SOURCES = {
    "genai": N_("The built-in catalogue (genai-prices)"),
    "installed": N_("LiteLLM's price file, of the installed package"),
    "litellm": N_("LiteLLM's price file, uploaded"),
    "csv": N_("CSV"),
}
KINDS = {"new": N_("New"), "changed": N_("Changed"), "same": N_("Same"), "gone": N_("Gone")}


def lists(viewer: Viewer, rows: Sequence[Current]) -> None:
    """For admins: a list is chosen, looked through, and applied; earlier ones are undone."""
    with st.expander(_("Price lists: many prices at once"), key="price-lists"):
        if not st.toggle(_("Choose a list"), key=dialog.fresh("choose-list", st.session_state.get("lists applied", 0))):
            _earlier(viewer)
            return
        catalogue = _chosen()
        if catalogue is None:
            return
        found = _compared(viewer, catalogue, rows)
        if found is not None:
            _offered(viewer, catalogue, *found)


def _chosen() -> Catalogue | None:
    offered = [name for name in SOURCES if name != "installed" or catalogues.litellm_file()]
    source = st.selectbox(
        _("The list"), offered, format_func=lambda name: _(SOURCES[name]), key="list-source", width=420
    )
    try:
        if source == "genai":
            return _genai()
        if source == "installed":
            file = catalogues.litellm_file()
            return catalogues.litellm((file or Path()).read_bytes(), "LiteLLM")
        currency = "USD"
        if source == "csv":
            currency = (
                st.segmented_control(
                    _("Its prices are in"), ["USD", "元"], default="元", required=True, key="list-currency"
                )
                or "元"
            )
        upload = st.file_uploader(_("The file"), type=["csv"] if source == "csv" else ["json"], key=f"list-{source}")
        if upload is None:
            return None
        content, name = upload.getvalue(), upload.name
        return catalogues.from_csv(content, currency, name) if source == "csv" else catalogues.litellm(content, name)
    except (BillingError, OSError) as error:
        st.error(told.plain(sentence(error) if isinstance(error, BillingError) else str(error)))
        return None


@st.cache_resource(show_spinner=False)
def _genai() -> Catalogue:
    return catalogues.genai_prices()


def _compared(viewer: Viewer, catalogue: Catalogue, rows: Sequence[Current]) -> tuple[list[Row], Decimal] | None:
    """Each offer beside what counts now, of the models in use or of all."""
    known = viewer.db.read(settings.read)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        rate = st.text_input(_("A US dollar, 元"), known["usd_rate"], key="list-rate", width=150)
        markup = st.text_input(
            _("Markup"), "1", key="list-markup", width=330,
            help=_("× the list's price: 1.1 for all, or by provider or model: openai=1.1, anthropic/*=1.2"),
        )  # fmt: skip
        everything = st.toggle(_("Also models that were never used"), key="list-all")
    try:
        dollar = _factor(rate, N_("“{text}” is no rate. Write what a US dollar is in 元, like 7.2."), field="usd_rate")
        markups = _markups(markup, catalogue)
    except BillingError as error:
        st.error(told.plain(sentence(error)))
        return None
    current = {row.model: row.prices for row in rows if row.rates.source == "database" and row.rates.rule is None}
    came_from_a_list = viewer.db.read(pricing.from_lists)
    found = catalogues.compare(catalogue, current, rate=dollar, markups=markups, from_list=came_from_a_list)
    if not everything:
        used = {row.model for row in rows}
        found = [row for row in found if row.model in used]
    return found, dollar


NO_MARKUP = N_("“{text}” is no markup. Write 1.1 for all, or one by provider or model: openai=1.1, anthropic/*=1.2")


def _factor(text: str, message: str, *, field: str) -> Decimal:
    """A number above 0. Raises Invalid with the message."""
    try:
        micro = parse_price(text, field=field)
    except Invalid as error:
        raise Invalid(message, field=field, text=text.strip()) from error
    if not micro:
        raise Invalid(message, field=field, text=text.strip())
    return Decimal(micro).scaleb(-6)


def _markups(text: str, catalogue: Catalogue) -> dict[str, Decimal]:
    """`1.1`, or `openai=1.1, anthropic/*=1.2`. Raises Invalid."""
    markups: dict[str, Decimal] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        pattern, _equals, factor = part.rpartition("=")
        pattern = pattern.strip() or "*"
        if pattern in markups:
            raise Invalid(NO_MARKUP, field="markup", text=text)
        markups[pattern] = _factor(factor, NO_MARKUP, field="markup")
        if not any(catalogues.fits(pattern, offer) for offer in catalogue.offers.values()):
            raise Invalid(
                N_("No model of the list, and no provider, is called {pattern}."), field="markup", pattern=pattern
            )
    if len(markups) > 100:
        raise Invalid(N_("There are at most {most} markups."), field="markup", most=100)
    return markups


def _offered(viewer: Viewer, catalogue: Catalogue, found: list[Row], rate: Decimal) -> None:
    kinds = {kind: sum(row.kind == kind for row in found) for kind in KINDS}
    odd = [row for row in found if row.odd]
    told_kinds = " · ".join(f"{_(word)} {kinds[kind]:,}" for kind, word in KINDS.items())
    st.markdown(f"{told_kinds} · {_('Odd')} {len(odd):,}")
    if catalogue.skipped:
        why = listed(f"{name or _('other')} {n:,}" for name, n in Counter(catalogue.why_skipped).most_common(5))
        left_out = ngettext(
            "{n} model of the list has no price for tokens and is left out: {why}.",
            "{n} models of the list have no price for tokens and are left out: {why}.",
            catalogue.skipped, why=why,
        )  # fmt: skip
        st.caption(told.plain(left_out))
    changed = [row for row in found if row.kind in ("new", "changed") and row.after]
    shown = [row for row in found if row.kind != "same"]
    if not shown:
        st.info(_("Nothing in the list differs from the prices that count."))
        return
    further = {row.model: _further(row) for row in shown}
    columns = [
        Column(_("Model"), lambda row: row.model, width=200),
        Column(_("What"), lambda row: _(KINDS[row.kind]), width=64),
        *(
            Column(_(HEADINGS[part]), partial(_from_to, part), "right", width=116)
            for part in ("input", "output", "cache_read", "cache_write")
        ),
        *(
            [Column(_("Further"), lambda row: further[row.model], width=230)]
            if any(further[row.model] for row in changed)
            else []
        ),
        Column(
            _("Odd"), lambda row: " ".join(_odd(one.message, one.params) for one in (*row.odd, *row.notes)), width=320
        ),
    ]
    tables.table(
        columns,
        sorted(shown, key=lambda row: not row.odd),
        alt=_("What the list would change, odd ones first"),
        key="list-rows",
        at_once=12,
    )
    skip = st.toggle(_("Leave out what is odd"), value=True, key="list-skip-odd") if odd else False
    wanted = [row for row in changed if not (skip and row.odd)]
    label = ngettext("Set {n} price", "Set {n} prices", len(wanted))
    asked = st.button(label, type="primary", disabled=not wanted, key="list-apply")
    if not asked:  # what the button is pressed beside
        st.session_state["list-seen"] = {price.model: price.price_id for price in viewer.db.read(pricing.listed)}
        return
    seen = st.session_state["list-seen"]
    changes = [
        Change(row.model, row.after, seen.get(row.model), catalogues.origin(catalogue, row, rate)) for row in wanted
    ]
    try:
        viewer.db.write(pricing.apply, changes, actor=viewer.actor, what=catalogue.name)
    except BillingError as error:
        st.error(told.plain(sentence(error)))
        return
    told.later(
        ngettext(
            "{n} price is set. It can be undone below.",
            "{n} prices are set. They can be undone as one below.",
            len(changes),
        )
    )
    st.session_state["lists applied"] = st.session_state.get("lists applied", 0) + 1
    st.rerun()


def _from_to(part: str, row: Row) -> str:
    before, after = (getattr(prices, part) if prices else None for prices in (row.before, row.after))
    if before == after:
        return price(after)
    return f"{price(before) or '–'} → {price(after) or '–'}"


def _further(row: Row) -> str:
    """What changes beside the four."""
    before, after = (summary(prices.more if prices else None, str) for prices in (row.before, row.after))
    return " · ".join(
        f"{name} {before.get(name, '–')} → {after.get(name, '–')}"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    )


def _odd(message: str, params: object) -> str:
    words = dict(params) if isinstance(params, dict) else {}
    if "part" in words:
        words["part"] = _(HEADINGS[words["part"]])
    return translate(message, language(), **words)


def _earlier(viewer: Viewer) -> None:
    """What lists have set, and the button that takes one back."""
    for change in viewer.db.read(pricing.changes)[:5]:
        with st.container(horizontal=True, vertical_alignment="center"):
            n = ngettext("{n} price", "{n} prices", change.models)
            undone = _("undone") if change.undone else ""
            st.markdown(
                f"**{told.plain(change.what)}** · {n} · {moment(change.at_ns, viewer.tz)} {undone}", width="stretch"
            )
            if not change.undone and st.button(_("Undo"), key=f"undo-list-{change.id}", icon=":material/undo:"):
                try:
                    done, left = viewer.db.write(pricing.undo_change, change.id, actor=viewer.actor)
                except BillingError as error:
                    st.error(told.plain(sentence(error)))
                    return
                told.later(
                    ngettext("{n} price is as it was before.", "{n} prices are as they were before.", done)
                    + (
                        " "
                        + ngettext(
                            "{n} was set anew since, and is left alone.",
                            "{n} were set anew since, and are left alone.",
                            left,
                        )
                        if left
                        else ""
                    )
                )
                st.rerun()
