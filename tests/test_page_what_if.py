"""The page What if: old and new cost by model, account and day."""

import json

import pytest
from conftest import Visit
from streamlit.testing.v1 import AppTest

from billing_core import accounts, ledger, pricing
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.rates import More, Tier
from billing_core.tokens import Tokens

MILLION = 1_000_000


@pytest.fixture
def db(visit_db: Database) -> Database:
    visit_db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    visit_db.write(accounts.add, "ann", "Ann", actor=SHELL)
    for model in ("a", "b"):
        visit_db.write(pricing.set_price, model, 10 * MILLION, 20 * MILLION, actor=SHELL)
        visit_db.write(ledger.charge, "ann", model, Tokens(100_000, 0), actor=SHELL, allow_debt=True)
    return visit_db


def figures(app: AppTest) -> list[str]:
    assert not app.exception, app.exception
    return [metric.value for metric in app.metric]


def edit(app: AppTest, rows: dict[int, dict[str, str]]) -> AppTest:
    states = app._tree.get_widget_states()
    editor = states.widgets.add()
    editor.id = app.data_editor[0].proto.id
    editor.string_value = json.dumps({"edited_rows": rows, "added_rows": [], "deleted_rows": []})
    app._run(states)
    return app


def test_an_empty_page_says_so(visit: Visit, visit_db: Database) -> None:
    visit_db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    assert "Nothing was used in this range." in visit("what-if", "boss").info[0].value


def test_prices_are_tried_in_place(visit: Visit, db: Database) -> None:
    app = visit("what-if", "boss")
    assert figures(app) == ["2.00", "2.00", "0.00"]
    app = edit(app, {0: {"input": "5"}})
    assert figures(app) == ["2.00", "1.50", "-0.50"]
    assert "rounding up each call adds at most 0.0001 元" in " ".join(one.value for one in app.caption)
    by_model = app.dataframe[-2].value
    assert list(by_model["How"]) == ["from the sums", "as charged"]
    assert db.read(pricing.in_force, "a").input == 10 * MILLION


def test_a_model_that_was_chosen_stays_where_it_was_not_used(visit: Visit, db: Database) -> None:
    """Without it, the answer would be about all models."""
    long_ago = db.clock() - 20 * 86_400 * 10**9
    db.write(ledger.charge, "ann", "old", Tokens(10, 0), actor=SHELL, allow_debt=True, created_at_ns=long_ago)
    app = visit("what-if", "boss")
    app.multiselect[0].select("old").run()
    assert figures(app)[0] == "0.0002"
    for chosen, charged in (("7d", "0.00"), ("24h", "0.00"), ("30d", "0.0002")):
        app.segmented_control[0].set_value(chosen).run()
        assert (app.multiselect[0].value, figures(app)[0]) == (["old"], charged)


def test_a_price_that_is_written_otherwise_is_no_other_price(visit: Visit, db: Database) -> None:
    app = edit(visit("what-if", "boss"), {0: {"input": "10"}, 1: {"output": "20.000"}})
    assert list(app.dataframe[-2].value["How"]) == ["as charged", "as charged"]
    assert list(app.dataframe[-1].value["Account"]) == ["Ann (ann)"]
    assert app.multiselect[1].options == ["Ann (ann)", "Boss (boss)"]


def test_what_is_no_price_is_told(visit: Visit, db: Database) -> None:
    app = edit(visit("what-if", "boss"), {0: {"input": "cheap"}})
    assert "is not a price" in app.error[0].value
    assert not app.exception


def test_another_models_price_for_the_same_tokens(visit: Visit, db: Database) -> None:
    tiers = More(tiers=(Tier(50_000, MILLION, MILLION),))
    db.write(pricing.set_price, "c", 5 * MILLION, 5 * MILLION, actor=SHELL, more=tiers)
    app = visit("what-if", "boss", way="model")
    assert figures(app) == ["2.00", "2.00", "0.00"]
    next(one for one in app.selectbox if one.key == "what-if-as").set_value("c").run()
    assert figures(app) == ["2.00", "0.20", "-1.80"]
    assert set(app.dataframe[-2].value["How"]) == {"from the entries"}


def test_the_catalogue_prices_what_it_knows(visit: Visit, db: Database) -> None:
    db.write(pricing.set_price, "openai/gpt-4o", MILLION, MILLION, actor=SHELL)
    db.write(ledger.charge, "ann", "openai/gpt-4o", Tokens(MILLION, 0), actor=SHELL, allow_debt=True)
    assert figures(visit("what-if", "boss", way="catalogue")) == ["3.00", "20.00", "+17.00"]


def test_some_models_and_accounts_alone_to_the_last(visit: Visit, db: Database) -> None:
    app = visit("what-if", "boss")
    next(one for one in app.multiselect if one.key == "what-if-models").set_value(["a"]).run()
    next(one for one in app.toggle if one.key == "to-the-last").set_value(True).run()
    assert figures(app) == ["1.00", "1.00", "0.00"]
    app = edit(app, {0: {"output": "1", "input": "1.00001"}})
    assert figures(app) == ["1.00", "0.1001", "-0.8999"]
    next(one for one in app.multiselect if one.key == "what-if-accounts").set_value(["boss"]).run()
    assert figures(app)[0] == "0.00"


def test_it_is_for_admins(visit: Visit, db: Database) -> None:
    app = visit("what-if", "ann")
    assert "What if" not in [title.value for title in app.title]


def test_what_was_typed_stays_with_its_model_whichever_others_are_shown(visit: Visit, db: Database) -> None:
    for times in range(20):
        at = db.clock() - 40 * 86_400 * 10**9
        db.write(ledger.charge, "ann", "b", Tokens(100_000, times), actor=SHELL, created_at_ns=at, allow_debt=True)
    app = edit(visit("what-if", "boss"), {0: {"input": "5"}})
    assert figures(app)[2] == "-0.50"
    next(one for one in app.button_group if one.label == "Range").set_value("12m").run()
    assert list(app.data_editor[0].value["model"]) == ["b", "a"]  # the dearest first
    assert list(app.data_editor[0].value["input"]) == ["10.00", "5"]
    assert figures(app)[2] == "-0.50"
    app = edit(app, {1: {"input": "10"}})
    assert figures(app)[2] == "0.00"


def test_a_model_that_nothing_is_known_of_is_priced_at_the_default_and_says_so(visit: Visit, db: Database) -> None:
    db.write(ledger.charge, "ann", "nobody/knows", Tokens(1, 0), actor=SHELL, allow_debt=True)
    app = visit("what-if", "boss", way="model")
    next(one for one in app.selectbox if one.key == "what-if-as").set_value("nobody/knows").run()
    assert not app.exception, app.exception
    assert "No price is known for nobody" in " ".join(one.value for one in app.caption)
