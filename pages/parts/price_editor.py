"""The table of prices, edited in place: what has been changed so far, what it would have cost, and applying it at once.

While changes are pending, the table is drawn from the rows that they were made in, whatever has happened since: the
editor knows a row by its place alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import streamlit as st

from billing_core import pricing
from billing_core.errors import BillingError
from billing_core.money import format_price, parse_price
from billing_core.pricing import Change, Current
from billing_core.rates import PARTS, More, Prices, Rates, as_rates
from billing_core.stats import Used

from . import address, price_dialog, told
from .viewer import Viewer
from .words import SOURCES, _, moment, ngettext, price, sentence, yuan

HEADINGS = {part: heading for part, heading in price_dialog.HEADINGS.items() if part in PARTS}
"""What the four parts of a price are called."""

WIDTHS = {"input": 78, "output": 88, "cache_read": 110, "cache_write": 114}
ROWS_AT_ONCE = 14
"""A longer table scrolls in itself, so that what a call would cost is in sight below it."""

Edits = Mapping[str, Any]
"""What st.data_editor keeps: `edited_rows` by place, `added_rows`, and the places of `deleted_rows`."""


@dataclass
class Draft:
    """What the edits come to."""

    changes: list[Change] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What has to be put right first, a sentence each."""
    notes: list[str] = field(default_factory=list)
    """What changes nothing, a sentence each."""


def search_and_edit(viewer: Viewer, rows: Sequence[Current], used: Mapping[str, Used]) -> str:
    """The search, the table and what is pending. `used` is what was used of each model in the last 30 days. Gives what
    is looked for."""
    key = f"prices-{st.session_state.setdefault('prices-version', 0)}"
    edits = st.session_state.get(key) or {}
    pending = any(edits.values())
    searched = search(disabled=pending)
    # One line in both cases, so that the table does not jump when its first cell is changed.
    if pending:
        unit(_("The search waits until the changes below are applied or discarded."))
    else:
        unit(_("An empty cache price is the same as that of input."))
        st.session_state["prices-shown"] = [row for row in rows if row.matches(searched)]
    shown = st.session_state["prices-shown"]
    _table(viewer, shown, key)
    if pending:
        _pending(viewer, drafted(edits, shown, {row.model for row in rows}), used, key)
    else:
        nothing(viewer, rows, searched)
        how = _("The last, empty row adds a model. To retire a price, mark its row at the left and press Delete.")
        st.caption(how)
    return searched


def search(**more: Any) -> str:
    return address.search(_("Search"), placeholder=_("A model's name, or a part of it"), **more)


def unit(more: str = "") -> None:
    st.caption(f"{_('Prices are in 元 per million tokens.')} {more}")


def nothing(viewer: Viewer, rows: Sequence[Current], searched: str) -> None:
    """What to do where there is nothing to see."""
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


def _table(viewer: Viewer, shown: Sequence[Current], key: str) -> None:
    data = {
        "model": [row.model for row in shown],
        **{part: [written[part] for written in map(_written, shown)] for part in PARTS},
        "source": [source(row) for row in shown],
        "since": [since(row, viewer) for row in shown],
    }
    text = st.column_config.TextColumn
    # No `validate`: it would refuse in silence what drafted() refuses with a sentence.
    st.data_editor(
        pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in data.items()}),
        num_rows="dynamic", height="content" if len(shown) <= ROWS_AT_ONCE else "auto", hide_index=True, placeholder="", key=key, alt=_("Prices by model, to be edited"),
        column_config={
            "model": text(_("Model"), width=None if shown else "medium", max_chars=200),
            **{part: text(_(heading), alignment="right", width=WIDTHS[part]) for part, heading in HEADINGS.items()},
            "source": text(_("Source"), disabled=True, width=84),
            "since": text(_("Valid since"), disabled=True, width=142),
        },
    )  # fmt: skip


def source(row: Current) -> str:
    """Where a price comes from; by a rule, the model whose it is."""
    return f"← {row.rates.priced_as}" if row.rates.rule else _(SOURCES[row.rates.source])


def since(row: Current, viewer: Viewer) -> str:
    start = row.rates.valid_from_ns
    return "" if row.rates.source != "database" or row.rates.rule or start is None else moment(start, viewer.tz)


def _written(row: Current) -> dict[str, str]:
    prices = {part: getattr(row.prices, part) for part in PARTS}
    return {part: "" if micro is None else format_price(micro) for part, micro in prices.items()}


def drafted(edits: Edits, shown: Sequence[Current], known: set[str]) -> Draft:
    """What the edits of the rows `shown` come to, where `known` are all the models that have a row."""
    draft = Draft()
    deleted = set(edits["deleted_rows"])
    for place, cells in edits["edited_rows"].items():
        row = shown[place]
        if place in deleted:
            continue
        if cells.get("model", row.model) != row.model:
            draft.problems.append(
                _("A model keeps its name. Write {model} back, and add a row for the other one.", model=row.model)
            )
            continue
        prices = _prices(_written(row) | cells, row.model, draft, row.prices.more)
        if prices and as_rates(prices).parts != row.rates.parts:
            draft.changes.append(Change(row.model, prices, row.rates.price_id))
    for cells in edits["added_rows"]:
        _added(cells, known, draft)
    for row in (shown[place] for place in sorted(deleted)):
        if row.rates.source == "database" and row.rates.rule is None:
            draft.changes.append(Change(row.model, None, row.rates.price_id))
        else:
            draft.notes.append(
                _("No price is set here for {model}, so its built-in price goes on counting.", model=row.model)
            )
    return draft


def _added(cells: Mapping[str, str | None], known: set[str], draft: Draft) -> None:
    if not any(cells.values()):
        draft.notes.append(_("Fill in the new row: the model's name, and its prices for input and output."))
        return
    try:
        model = pricing.clean_model(cells.get("model") or "")
    except BillingError as error:
        draft.problems.append(_about(_("New row"), _("Model"), sentence(error)))
        return
    if model in known or any(change.model == model for change in draft.changes):
        draft.problems.append(_("{model} has a row already. Change the price there.", model=model))
    elif prices := _prices(cells, model, draft):
        draft.changes.append(Change(model, prices, None))


def _prices(cells: Mapping[str, str | None], model: str, draft: Draft, more: More | None = None) -> Prices | None:
    """The prices that stand in a row's cells, with `more` beside them; None where one of them is none."""
    micro: dict[str, int | None] = {}
    for part, heading in HEADINGS.items():
        text = (cells.get(part) or "").strip()
        try:
            micro[part] = parse_price(text) if text else None
        except BillingError as error:
            draft.problems.append(_about(model, _(heading), sentence(error)))
            return None
    first, output = micro["input"], micro["output"]
    if first is None or output is None:
        missing = _(HEADINGS["input" if first is None else "output"])
        draft.problems.append(_about(model, missing, _("A price is missing. Write 0 for a free model.")))
        return None
    return Prices(first, output, micro["cache_read"], micro["cache_write"], more)


def _about(model: str, heading: str, problem: str) -> str:
    return _("{model}, {field}: {problem}", model=model, field=heading, problem=problem)


def _pending(viewer: Viewer, draft: Draft, used: Mapping[str, Used], key: str) -> None:
    """What the edits come to, and the button that makes it so."""
    with st.container(border=True, key="pending"):
        if draft.changes:
            st.markdown(
                f"**{ngettext('{n} change, not applied yet', '{n} changes, not applied yet', len(draft.changes))}**"
            )
            compared = zip(draft.changes, viewer.db.read(pricing.preview, draft.changes), strict=True)
            st.markdown("\n".join(_line(change, *rates, used.get(change.model)) for change, rates in compared))
            if any(change.model in used for change in draft.changes):
                st.caption(_("What was charged stays as it is. “About”: each call is rounded up on its own."))
        if draft.problems:
            st.warning("  \n".join(map(told.plain, draft.problems)), icon=":material/edit:")
        for note in draft.notes or ([] if draft.changes or draft.problems else [_("No price is different yet.")]):
            st.caption(told.plain(note))
        with st.container(horizontal=True, vertical_alignment="bottom"):
            start = price_dialog.start(viewer, key) if draft.changes else None
            asked = draft.changes and st.button(_label(draft, start), type="primary", disabled=bool(draft.problems))
            st.button(_("Discard"), on_click=_forget, icon=":material/undo:")
        if asked:
            _apply(viewer, draft, start)


def _line(change: Change, before: Rates, after: Rates, used: Used | None) -> str:
    what = [
        f"{_(HEADINGS[part])} {price(old)} → {price(new)}"
        for part, old, new in zip(PARTS, before.parts, after.parts, strict=True)
        if old != new
    ]
    if change.prices is None:
        what.insert(0, _("retired, so that the built-in price counts again"))
    elif not what:
        what.append(_("set here, at the price that counts already"))
    if used:
        costs = {"before": yuan(used.cost_at(before)), "after": yuan(used.cost_at(after))}
        cost = _("The last 30 days would have cost about {before} → {after} 元.", **costs)
    else:
        cost = _("Not used in the last 30 days.")
    return f"- **{told.plain(change.model)}**: {', '.join(what)}.  \n  {cost}"


def _label(draft: Draft, start: int | None) -> str:
    if start:
        return ngettext("Plan {n} change", "Plan {n} changes", len(draft.changes))
    return ngettext("Apply {n} change", "Apply {n} changes", len(draft.changes))


def _apply(viewer: Viewer, draft: Draft, start: int | None) -> None:
    try:
        viewer.db.write(pricing.apply, draft.changes, actor=viewer.actor, valid_from_ns=start)
    except BillingError as error:
        st.error(told.plain(sentence(error)))
        return
    _forget()
    n = len(draft.changes)
    if start:
        changes, when = ngettext("{n} price change", "{n} price changes", n), moment(start, viewer.tz)
        told.later(_("Planned: {changes} from {when} on.", changes=changes, when=when))
    else:
        told.later(ngettext("{n} price change counts from now on.", "{n} price changes count from now on.", n))
    st.rerun()


def _forget() -> None:
    """Start with an empty editor: the version is a part of its key."""
    st.session_state["prices-version"] += 1
