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
