"""Which price applies: the rules, what a new one would change, and the models that cost the default."""

from collections.abc import Mapping, Sequence

import streamlit as st

from billing_core import price_rules, pricing
from billing_core.errors import BillingError
from billing_core.price_rules import Rule
from billing_core.pricing import Current
from billing_core.stats import Used

from . import dialog, price_dialog, tables, told
from .tables import Column
from .viewer import Viewer
from .words import _, moment, ngettext, price, sentence, yuan

AT_ONCE = 8
"""How many models a list shows before “and so many more”."""


def rules(viewer: Viewer, rows: Sequence[Current]) -> None:
    """The rules that count, and for admins what sets and ends them."""
    known: list[Rule] = viewer.db.read(price_rules.listed)
    with st.expander(_("Rules: models that cost what another one does"), key="rules"):
        if known:
            decided = {rule.pattern: sum(row.rates.rule == rule.pattern for row in rows) for rule in known}
            columns = [
                Column(_("Pattern"), lambda rule: rule.pattern, width=230),
                Column(_("Costs what … costs"), lambda rule: rule.target, width=230),
                Column(_("Models now"), lambda rule: decided[rule.pattern], "count", width=90),
                Column(_("Since"), lambda rule: moment(rule.since_ns, viewer.tz), width=140),
            ]
            tables.table(columns, known, alt=_("Rules, the first asked first"), key="price-rules")
        else:
            st.caption(_("No rule yet: every model costs its own price, its built-in one, or the default."))
        if viewer.is_admin:
            _change(viewer, known, rows)


def _change(viewer: Viewer, known: Sequence[Rule], rows: Sequence[Current]) -> None:
    how = _(
        "In a pattern each * stands for any text, and in the target for what it was: openrouter/* → *, *-2026* → *, "
        "*:free → free. A model with a price of its own asks no rule."
    )
    st.caption(told.plain(how))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        times = st.session_state.get("rules changed", 0)
        pattern, target = (
            st.text_input(label, key=dialog.fresh(key, times), width=230, autocomplete="off")
            for label, key in ((_("Pattern"), "rule-pattern"), (_("Costs what … costs"), "rule-target"))
        )
        asked = st.button(_("Set the rule"), disabled=not (pattern.strip() and target.strip()))
    if pattern.strip() and target.strip():
        _preview(viewer, rows, pattern, target)
    if asked:
        _done(
            viewer,
            lambda: viewer.db.write(price_rules.set_rule, pattern, target, actor=viewer.actor),
            _("The rule counts from now on."),
        )
    if known:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            ended = st.selectbox(
                _("End a rule"),
                [rule.pattern for rule in known],
                index=None,
                key=dialog.fresh("rule-ended", times),
                width=230,
                placeholder=_("Pattern"),
            )
            if st.button(_("End it"), disabled=ended is None):
                _done(
                    viewer,
                    lambda: viewer.db.write(price_rules.end_rule, ended or "", actor=viewer.actor),
                    _("The rule no longer counts."),
                )


def _preview(viewer: Viewer, rows: Sequence[Current], pattern: str, target: str) -> None:
    """Which models would cost something else."""
    try:
        changed = viewer.db.read(pricing.preview_rule, pattern, target, [row.model for row in rows], actor=viewer.actor)
    except BillingError as error:
        st.error(told.plain(sentence(error)))
        return
    lines = [
        f"- **{told.plain(model)}**: {price(before.input)} / {price(before.output)} → {price(after.input)} / {price(after.output)}"
        for model, before, after in changed[:AT_ONCE]
    ]
    if len(changed) > AT_ONCE:
        lines.append("- " + ngettext("and {n} more", "and {n} more", len(changed) - AT_ONCE))
    st.markdown("\n".join(lines) or _("None of the models here would cost something else."))


def _done(viewer: Viewer, change: object, message: str) -> None:
    assert callable(change)
    try:
        change()
    except BillingError as error:
        st.error(told.plain(sentence(error)))
        return
    st.session_state["rules changed"] = st.session_state.get("rules changed", 0) + 1
    told.later(message)
    st.rerun()


def at_default(rows: Sequence[Current], used: Mapping[str, Used]) -> None:
    """Models that cost the default and were used: what they have cost, and one click to price them."""
    found = sorted(
        (row for row in rows if row.rates.source == "default" and row.model in used),
        key=lambda row: -used[row.model].cost,
    )
    if not found:
        return
    st.subheader(_("Without a price"), anchor=False)
    st.caption(_("These models were used in the last 30 days, and nobody knows them: they cost the default."))
    for row in found[:AT_ONCE]:
        with st.container(horizontal=True, vertical_alignment="center"):
            cost = _("{cost} 元 in the last 30 days", cost=yuan(used[row.model].cost))
            st.markdown(f"**{told.plain(row.model)}** · {cost}", width="stretch")
            st.button(_("Set a price"), key=f"price {row.model}", on_click=price_dialog.ask, args=(row.model,))
    if len(found) > AT_ONCE:
        st.caption(ngettext("and {n} more", "and {n} more", len(found) - AT_ONCE))
