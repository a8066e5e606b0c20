"""Every chart is one that Vega-Lite's schema knows: pages don't check that each time."""

from typing import Any

import altair as alt
import pytest
import streamlit as st
from altair.utils import schemapi
from conftest import SECOND, Visit

from billing_core import accounts, ledger, pricing
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.tokens import Tokens


@pytest.fixture
def used(visit_db: Database) -> None:
    db = visit_db
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    db.write(ledger.recharge, "boss", 1_000_000, actor=SHELL)
    for micro in (1_000_000, 2_000_000):
        db.write(pricing.set_price, "a/model", micro, 4 * micro, actor=SHELL)
    db.write(pricing.set_price, "a/model", 3_000_000, 0, actor=SHELL, valid_from_ns=db.clock() + 86_400 * SECOND)
    for model, prompt in (("a/model", 100_000), ("b/model", 1)):  # the dearest one's history is drawn
        db.write(ledger.charge, "boss", model, Tokens(prompt, 1), actor=SHELL)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("balance", {}), ("stats", {}), ("stats", {"measure": "tokens", "range": "12m"}), ("stats", {"range": "24h"}),
        ("what-if", {}), ("prices", {}),
    ],
)  # fmt: skip
def test_a_pages_charts_fit_the_schema(
    visit: Visit, used: None, monkeypatch: pytest.MonkeyPatch, path: str, asked: dict[str, str]
) -> None:
    drawn: list[dict[str, Any]] = []
    draw = st.vega_lite_chart
    monkeypatch.setattr(st, "vega_lite_chart", lambda spec, **more: (drawn.append(spec), draw(spec, **more)))
    visit(path, "boss", **asked)
    assert drawn
    for spec in drawn:
        schemapi.validate_jsonschema(spec, alt.load_schema())
        assert spec["datasets"][spec["data"]["name"]]
        for part in spec.get("layer", []):  # of which each draws these rows
            assert "data" not in part


def test_no_two_of_a_chart_have_the_same_colour_and_each_keeps_its_own(
    visit: Visit, visit_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = visit_db
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    for number in range(45):
        db.write(accounts.add, f"user{number}", f"User {number}", actor=SHELL)

    def spend(*numbers: int) -> None:
        for number in numbers:
            db.write(ledger.recharge, f"user{number}", 1_000_000, actor=SHELL)
            db.write(ledger.charge, f"user{number}", "a/model", Tokens(1000 + number, 1), actor=SHELL)

    def colours() -> dict[str, str]:
        drawn: list[dict[str, Any]] = []
        with monkeypatch.context() as within:
            within.setattr(st, "vega_lite_chart", lambda spec, **_: drawn.append(spec))
            visit("stats", "boss", by="account")
        scales = [scale for spec in drawn for scale in found(spec)]
        return dict(zip(scales[0]["domain"], scales[0]["range"], strict=False))

    def found(spec: Any) -> list[dict[str, Any]]:
        if isinstance(spec, dict):
            here = [spec] if isinstance(spec.get("range"), list) and "domain" in spec else []
            return here + [one for value in spec.values() for one in found(value)]
        return [one for value in spec for one in found(value)] if isinstance(spec, list) else []

    spend(3, 5)
    alone = colours()
    spend(23, 43, 25)  # of which each is twenty further on than another
    together = colours()
    assert len(set(together.values())) == len(together) == 5
    assert {name: together[name] for name in alone} == alone
