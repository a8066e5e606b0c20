"""The page Prices, run as a session runs it: what a call costs, and how admins change that."""

import json
from datetime import UTC, date, datetime, time, timedelta

import pytest
from conftest import Visit
from streamlit.testing.v1 import AppTest

from billing_core import accounts, ledger, price_rules, pricing, settings, stats
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.errors import Invalid
from billing_core.rates import MORE_PARTS, PARTS, More, Tier
from billing_core.tokens import Tokens
from billing_core.zones import zone
from pages.parts import price_dialog
from pages.parts.price_editor import drafted

MILLION = 1_000_000


@pytest.fixture
def db(visit_db: Database) -> Database:
    """Boss, an admin, and Ann, who has used two of four models."""
    visit_db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    visit_db.write(accounts.add, "ann", "Ann", actor=SHELL)
    visit_db.write(pricing.set_price, "openai/gpt-4o", 18 * MILLION, 72 * MILLION, actor=SHELL, cache_read=9 * MILLION)
    visit_db.write(pricing.set_price, "some/*other*", 2 * MILLION, 3 * MILLION, actor=SHELL)
    visit_db.write(ledger.recharge, "ann", 10**6, actor=SHELL)
    visit_db.write(ledger.charge, "ann", "openai/gpt-4o", Tokens(10_000, 1_000), actor=SHELL)
    visit_db.write(ledger.charge, "ann", "house/own", Tokens(1_000, 0), actor=SHELL)
    return visit_db


GPT, OWN, OTHER = 1, 0, 2
"""The rows' places: house/own, openai/gpt-4o, some/*other*."""


def edit(
    app: AppTest, edited: dict[int, dict[str, str]] | None = None, added: object = (), deleted: object = ()
) -> AppTest:
    """What the browser sends when cells are changed, rows added or deleted."""
    states = app._tree.get_widget_states()
    editor = states.widgets.add()
    editor.id = app.data_editor[0].proto.id
    editor.string_value = json.dumps(
        {"edited_rows": edited or {}, "added_rows": list(added), "deleted_rows": list(deleted)}
    )
    app._run(states)
    assert not app.exception, app.exception
    return app


def press(app: AppTest, label: str) -> AppTest:
    next(one for one in app.button if one.label == label).click().run()
    assert not app.exception, app.exception
    return app


def buttons(app: AppTest) -> list[str]:
    return [one.label for one in app.button]


def words(app: AppTest) -> str:
    """All that the page says, as it is read."""
    assert not app.exception, app.exception
    kinds = (app.markdown, app.caption, app.warning, app.error, app.info, app.toast)
    return "\n".join(one.value for kind in kinds for one in kind).replace("\\", "")


def set_prices(db: Database) -> dict[str, tuple]:
    return {p.model: (p.input, p.output, p.cache_read, p.cache_write) for p in db.read(pricing.listed)}


# Reading


def test_a_member_reads_the_price_of_every_model_and_can_edit_none(visit: Visit, db: Database) -> None:
    app = visit("prices", "ann")
    table = app.dataframe[0].value
    assert list(table["Model"]) == ["house/own", "openai/gpt-4o", "some/*other*"]
    assert list(table["Source"]) == ["Default", "Set here", "Set here"]
    assert [str(price) for price in table["Cache write"]] == ["18", "18", "2"]
    assert not app.data_editor
    assert buttons(app) == ["Sign out"]


def test_the_search_in_the_address_narrows_the_table(visit: Visit, db: Database) -> None:
    assert list(visit("prices", "ann", q="GPT").dataframe[0].value["Model"]) == ["openai/gpt-4o"]
    assert list(visit("prices", "boss", q="GPT").data_editor[0].value["model"]) == ["openai/gpt-4o"]


def test_a_search_that_finds_nothing_says_so(visit: Visit, db: Database) -> None:
    assert "No model here has “*x*” in its name." in words(visit("prices", "ann", q="*x*"))


def test_a_call_that_is_only_thought_of_is_priced_exactly(visit: Visit, db: Database) -> None:
    app = visit("prices", "ann", **{"cost-of": "openai/gpt-4o", "in": "2000", "out": "1"})
    assert "2,000 × 18.00 + 1 × 72.00 元 per million tokens = **0.0361 元**" in words(app)


def test_a_model_that_nobody_has_used_can_be_asked_for_as_well(visit: Visit, db: Database) -> None:
    app = visit("prices", "ann", **{"cost-of": "nobody/knows"})
    assert "1,000 × 18.00 + 500 × 72.00 元 per million tokens = **0.054 元**" in words(app)


def test_the_dearest_model_of_the_last_30_days_is_asked_for_at_first(visit: Visit, db: Database) -> None:
    assert visit("prices", "ann").selectbox[0].value == "openai/gpt-4o"


@pytest.mark.parametrize(("user_id", "sentence"), [("ann", "No model has been charged"), ("boss", "add a row to set")])
def test_an_empty_page_says_what_will_stand_here(visit: Visit, visit_db: Database, user_id: str, sentence: str) -> None:
    visit_db.write(accounts.add, user_id, "X", actor=SHELL, role="admin" if user_id == "boss" else "member")
    assert sentence in words(visit("prices", user_id))


def test_planned_prices_and_the_history_are_there_for_everybody(visit: Visit, db: Database) -> None:
    start = db.clock() + 3600 * 10**9
    db.write(pricing.set_price, "openai/gpt-4o", 5, 5, actor=SHELL, valid_from_ns=start)
    db.write(pricing.retire, "openai/gpt-4o", actor=SHELL)
    app = visit("prices", "ann")
    assert "**openai/gpt-4o** · " in words(app)
    assert list(app.dataframe[1].value["What"]) == ["Planned", "Retired", "Set here"]
    assert "Withdraw" not in buttons(app)


def test_the_csv_holds_what_the_search_shows(visit: Visit, db: Database) -> None:
    history, found = visit("prices", "ann", q="gpt").get("link_button")
    assert "/export/prices.csv?search=gpt&timezone=UTC" in found.proto.url
    assert "/export/price-history.csv?model=openai%2Fgpt-4o&timezone=UTC" in history.proto.url


# Editing


def test_a_changed_cell_is_shown_with_what_the_last_30_days_would_have_cost_and_then_applied(
    visit: Visit, db: Database
) -> None:
    app = edit(visit("prices", "boss"), {GPT: {"input": "20", "cache_write": "21.5"}})
    assert "openai/gpt-4o**: Input 18.00 → 20.00, Cache write 18.00 → 21.50." in words(app)
    assert "The last 30 days would have cost about 0.252 → 0.272 元." in words(app)
    press(app, "Apply 1 change")
    assert set_prices(db)["openai/gpt-4o"] == (20 * MILLION, 72 * MILLION, 9 * MILLION, 21_500_000)
    assert "1 price change counts from now on." in words(app)
    assert "Discard" not in buttons(app)


def test_a_new_row_sets_a_price_for_a_new_model(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), added=[{"model": " new/model ", "input": "1", "output": "0.000001"}])
    assert "Not used in the last 30 days." in words(app)
    press(app, "Apply 1 change")
    assert set_prices(db)["new/model"] == (MILLION, 1, None, None)


def test_a_deleted_row_retires_the_set_price(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), deleted=[OTHER])
    assert "some/*other***: retired, so that the built-in price counts again, Input 2.00 → 18.00" in words(app)
    press(app, "Apply 1 change")
    assert "some/*other*" not in set_prices(db)


def test_a_deleted_row_without_a_set_price_changes_nothing_and_says_so(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), deleted=[OWN])
    assert "No price is set here for house/own, so its built-in price goes on counting." in words(app)
    assert "Discard" in buttons(app)
    assert not any("Apply" in label for label in buttons(app))


def test_several_changes_are_applied_together(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), {OWN: {"output": "1"}, GPT: {"cache_read": ""}}, deleted=[OTHER])
    press(app, "Apply 3 changes")
    assert set_prices(db) == {
        "house/own": (18 * MILLION, MILLION, None, None),
        "openai/gpt-4o": (18 * MILLION, 72 * MILLION, None, None),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("-1", "A price can't be below 0. Use 0 for a free model."),
        ("abc", "“abc” is not a price. Write it in 元 per million tokens, like 18 or 0.5."),
        ("1e3", "“1e3” is not a price."),
        ("0.1234567", "A price has at most six decimal places; 0.1234567 has more."),
        ("", "A price is missing. Write 0 for a free model."),
    ],
)
def test_what_is_no_price_is_named_with_its_model_and_field_and_nothing_is_applied(
    visit: Visit, db: Database, text: str, sentence: str
) -> None:
    before = set_prices(db)
    app = edit(visit("prices", "boss"), {OTHER: {"input": "5"}, GPT: {"output": text}})
    assert f"openai/gpt-4o, Output: {sentence}" in words(app)
    assert next(one for one in app.button if one.label == "Apply 1 change").disabled
    assert set_prices(db) == before


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({}, "Fill in the new row"),
        ({"model": "new"}, "new, Input: A price is missing."),
        ({"input": "1"}, "New row, Model: A model's name has 1 to 200 characters"),
        ({"model": "openai/gpt-4o", "input": "1", "output": "1"}, "openai/gpt-4o has a row already."),
    ],
)
def test_a_new_row_that_cannot_be_applied_says_what_is_missing(
    visit: Visit, db: Database, row: dict[str, str], sentence: str
) -> None:
    app = edit(visit("prices", "boss"), added=[row])
    assert sentence in words(app)
    assert not any("Apply" in label for label in buttons(app))


def test_a_row_for_a_model_that_the_search_hides_is_not_added_twice(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss", q="gpt"), added=[{"model": "house/own", "input": "1", "output": "1"}])
    assert "house/own has a row already." in words(app)


def test_a_model_cannot_be_renamed(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), {GPT: {"model": "openai/gpt-5"}})
    assert "A model keeps its name. Write openai/gpt-4o back" in words(app)


def test_a_cell_that_says_the_same_is_no_change(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), {GPT: {"input": "18", "cache_write": "18.0"}})
    assert "No price is different yet." in words(app)


def test_discarding_shows_the_table_as_it_is(visit: Visit, db: Database) -> None:
    before = set_prices(db)
    app = press(edit(visit("prices", "boss"), {GPT: {"input": "20"}}), "Discard")
    assert "not applied yet" not in words(app)
    assert set_prices(db) == before


def test_pending_changes_lock_the_search_and_stay_with_their_rows(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss", q="gpt"), {0: {"input": "20"}})
    assert app.text_input[0].disabled
    assert "The search waits until the changes below are applied or discarded." in words(app)
    db.write(pricing.set_price, "a-gpt/before-it", 1, 1, actor=SHELL)  # a new first row
    app.query_params["q"] = "house"
    press(app.run(), "Apply 1 change")
    assert set_prices(db)["openai/gpt-4o"][0] == 20 * MILLION
    assert set_prices(db)["a-gpt/before-it"] == (1, 1, None, None)
    assert "house/own" not in set_prices(db)


def test_a_price_that_somebody_else_has_changed_is_not_overwritten(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), {GPT: {"input": "20"}, OTHER: {"input": "3"}})
    db.write(pricing.set_price, "openai/gpt-4o", 7, 7, actor=SHELL)
    press(app, "Apply 2 changes")
    assert "Somebody else has changed the price of openai/gpt-4o in the meantime, so nothing was applied." in words(app)
    assert set_prices(db)["openai/gpt-4o"] == (7, 7, None, None)
    assert set_prices(db)["some/*other*"][0] == 2 * MILLION
    assert list(press(app, "Discard").data_editor[0].value["input"])[GPT] == "0.000007"


def test_who_is_no_admin_any_more_is_refused(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), {GPT: {"input": "20"}})
    db.write(accounts.add, "eve", "Eve", actor=SHELL, role="admin")
    db.write(accounts.change, "boss", actor=SHELL, role="member")
    press(app, "Apply 1 change")
    assert not app.data_editor
    assert set_prices(db)["openai/gpt-4o"][0] == 18 * MILLION


def test_a_change_can_be_planned(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), {GPT: {"input": "20"}})
    tomorrow = stats.from_ns(db.clock(), zone("UTC")).date() + timedelta(days=2)
    app.date_input[0].set_value(tomorrow).run()
    assert "Apply 1 change" not in buttons(app)
    app.time_input[0].set_value(time(8, 30)).run()
    press(app, "Plan 1 change")
    assert [price.valid_from_ns for price in db.read(pricing.planned)] == [
        stats.to_ns(datetime.combine(tomorrow, time(8, 30), UTC))
    ]
    assert "Planned: 1 price change from" in words(app)
    assert [(price.model, price.input) for price in db.read(pricing.planned)] == [("openai/gpt-4o", 20 * MILLION)]
    assert set_prices(db)["openai/gpt-4o"][0] == 18 * MILLION
    press(app, "Withdraw")
    assert "The planned price of openai/gpt-4o is withdrawn: it never counts." in words(app)
    assert db.read(pricing.planned) == []
    assert list(app.dataframe[1].value["What"]) == ["Withdrawn", "Set here"]


def test_nothing_can_be_planned_for_the_past(visit: Visit, db: Database) -> None:
    app = edit(visit("prices", "boss"), {GPT: {"input": "20"}})
    app.date_input[0].set_value(date(2020, 1, 1)).run()
    press(app, "Plan 1 change")
    assert "A price can't start in the past" in words(app)
    assert set_prices(db)["openai/gpt-4o"][0] == 18 * MILLION


def test_edits_of_a_row_that_is_then_deleted_do_not_count() -> None:
    row = pricing.Current("a/b", pricing.Rates(1, 1, 1, 1, "database", 7, 0), (1, 1, None, None))
    edits = {"edited_rows": {0: {"input": "x"}}, "added_rows": [], "deleted_rows": [0]}
    draft = drafted(edits, [row], {"a/b"})
    assert draft.problems == []
    assert draft.changes == [pricing.Change("a/b", None, 7)]


# Built-in prices


def field(app: AppTest, label: str) -> object:
    return next(one for one in app.text_input if one.label == label)


def test_an_admin_changes_the_default_price(visit: Visit, db: Database) -> None:
    app = visit("prices", "boss")
    assert "1 model costs the default." in words(app)
    field(app, "Default for input").set_value("20")
    press(app, "Let these count from now on")
    assert db.read(settings.read)["default_input_price"] == "20"
    assert "The built-in prices are changed." in words(app)
    assert list(app.data_editor[0].value["input"])[OWN] == "20.00"


def test_a_rate_that_is_none_is_refused_with_a_sentence(visit: Visit, db: Database) -> None:
    app = visit("prices", "boss")
    field(app, "A US dollar, 元").set_value("0")
    assert "The rate must be above 0 and at most 1,000." in words(press(app, "Let these count from now on"))
    assert db.read(settings.read) == settings.DEFAULTS


def test_a_default_that_somebody_else_has_changed_is_not_set_back(visit: Visit, db: Database) -> None:
    app = visit("prices", "boss")
    db.write(pricing.change_settings, {"usd_rate": "7.1"}, actor=SHELL)
    field(app, "Default for input").set_value("20")
    press(app, "Let these count from now on")
    assert db.read(settings.read) == settings.DEFAULTS | {"usd_rate": "7.1", "default_input_price": "20"}


# All of a price, rules and lists


def write(app: AppTest, key: str, text: str) -> None:
    next(one for one in app.text_input if one.key == key).set_value(text)


def test_all_of_a_price_is_shown_and_changed_in_its_dialog(visit: Visit, db: Database) -> None:
    app = press(visit("prices", "boss"), "All of its price…")
    write(app, "price of one model cache_write_1h", "40")
    write(app, "price of one model call", "0.01")
    app.run()
    assert "- Cache write, 1 h – → 40.00\n- Each call, 元 0.00 → 0.01" in words(app)
    press(app, "Let it count from now on")
    assert "The price of openai/gpt-4o counts from now on." in words(app)
    rates = db.read(pricing.in_force, "openai/gpt-4o")
    assert rates.more == More(cache_write_1h=40 * MILLION, call=10_000)
    assert rates.input == 18 * MILLION
    assert "Cache write, 1 h 40.00 · Each call, 元 0.01" in words(visit("prices", "ann"))


def test_what_was_typed_into_a_closed_dialog_does_not_come_back(visit: Visit, db: Database) -> None:
    app = press(visit("prices", "boss"), "All of its price…")
    write(app, "price of one model input", "99")
    app.run()
    app.session_state["dialogs closed"] = 1  # as dismissing it does
    del app.session_state["dialog"]
    app.run()
    press(app, "All of its price…")
    (field,) = [one for one in app.text_input if str(one.key).startswith("price of one model input")]
    assert field.value == "18.00"


def test_a_plan_says_all_that_it_sets(visit: Visit, db: Database) -> None:
    more = More(call=10_000, audio_input=50 * MILLION)
    at = db.clock() + 10**15
    db.write(pricing.set_price, "openai/gpt-4o", 22 * MILLION, 1, actor=SHELL, more=more, valid_from_ns=at)
    shown = words(visit("prices", "ann"))
    assert "Input 22.00 · Output 0.000001 · Audio in 50.00 · Each call, 元 0.01" in shown


def test_a_list_says_what_changes_beside_the_four(visit: Visit, db: Database) -> None:
    four = db.read(pricing.in_force, "openai/gpt-4o")
    db.write(
        pricing.set_price,
        "openai/gpt-4o",
        four.input,
        four.output,
        actor=SHELL,
        cache_read=four.cache_read,
        more=More(call=10_000),
    )
    app = visit("prices", "boss")
    next(one for one in app.toggle if one.key == "choose-list").set_value(True).run()
    (frame,) = [one.value for one in app.dataframe if "Odd" in one.value]
    (row,) = [row for _, row in frame.iterrows() if row["Model"] == "openai/gpt-4o"]
    assert "Each call, 元 0.01 → –" in row["Further"]


def test_what_is_no_component_is_told_in_the_dialog_and_nothing_is_set(visit: Visit, db: Database) -> None:
    before = db.read(pricing.in_force, "openai/gpt-4o")
    app = press(visit("prices", "boss"), "All of its price…")
    write(app, "price of one model audio_input", "dear")
    app.run()
    assert "“dear” is not a price. Write it in 元 per million tokens, like 18 or 0.5." in words(app)
    write(app, "price of one model audio_input", "")
    write(app, "price of one model call", "seven")
    app.run()
    assert "Each call, 元: “seven” is no fee. Write 元 a call" in words(app)
    assert "Let it count from now on" not in buttons(app)
    assert db.read(pricing.in_force, "openai/gpt-4o") == before


FILLED = dict.fromkeys((*PARTS, *MORE_PARTS, "call"), "") | {"input": "1", "output": "2"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["100000", "", "", "", ""], "Input needs a price. Write 0 where it is free."),
        (["100000", "1", "", "", ""], "Output needs a price. Write 0 where it is free."),
        (["lots", "1", "1", "", ""], "“lots” is no number of tokens. Write one like 200000."),
        (["", "1", "1", "", ""], "“” is no number of tokens. Write one like 200000."),
        (["1,5", "1", "1", "", ""], "“1,5” is no number of tokens. Write one like 200000."),
        (["20,00", "1", "1", "", ""], "“20,00” is no number of tokens. Write one like 200000."),
    ],
)
def test_a_row_of_long_prompts_needs_its_length_and_prices(row: list[str], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        price_dialog._prices(FILLED, [row], [], [], More())
    assert refused.value.sentence() == said


def test_a_row_of_long_prompts_is_a_tier() -> None:
    found = price_dialog._prices(FILLED, [["200,000", "3", "0", "", "1"]], [], [], More())
    assert found.more == More(tiers=(Tier(200_000, 3 * MILLION, 0, None, MILLION),))


def test_the_fee_of_a_call_stands_in_the_sum(visit: Visit, db: Database) -> None:
    db.write(pricing.set_price, "openai/gpt-4o", MILLION, 2 * MILLION, actor=SHELL, more=More(call=10_000))
    assert "1,000 × 1.00 + 500 × 2.00 元 per million tokens + 0.01 元 a call = **0.012 元**" in words(
        visit("prices", "ann", **{"cost-of": "openai/gpt-4o"})
    )


def test_a_model_at_the_default_is_one_click_from_a_price(visit: Visit, db: Database) -> None:
    db.write(ledger.charge, "ann", "nobody/knows", Tokens(10_000, 0), actor=SHELL, allow_debt=True)
    app = visit("prices", "boss")
    assert "**nobody/knows** · 0.18 元 in the last 30 days" in words(app)
    press(app, "Set a price")
    write(app, "price of one model input", "1")
    app.run()
    press(app, "Let it count from now on")
    assert db.read(pricing.in_force, "nobody/knows").input == MILLION
    assert "Without a price" not in words(app)
    assert "Without a price" not in words(visit("prices", "ann"))


def test_a_rule_is_previewed_set_and_ended(visit: Visit, db: Database) -> None:
    db.write(ledger.charge, "ann", "router/openai/gpt-4o", Tokens(10, 0), actor=SHELL, allow_debt=True)
    app = visit("prices", "boss")
    write(app, "rule-pattern", "router/*")
    write(app, "rule-target", "*")
    app.run()
    assert "**router/openai/gpt-4o**:" in words(app)
    press(app, "Set the rule")
    assert "The rule counts from now on." in words(app)
    assert {one.key: one.value for one in app.text_input if "rule-" in str(one.key)} == {
        "rule-pattern 1": "", "rule-target 1": "",
    }  # fmt: skip
    assert db.read(pricing.in_force, "router/openai/gpt-4o").priced_as == "openai/gpt-4o"
    app = visit("prices", "boss")
    next(one for one in app.selectbox if one.key == "rule-ended").set_value("router/*").run()
    press(app, "End it")
    assert db.read(price_rules.listed) == []


def test_a_rule_that_is_none_is_refused_with_a_sentence(visit: Visit, db: Database) -> None:
    app = visit("prices", "boss")
    write(app, "rule-pattern", "router")
    write(app, "rule-target", "*")
    app.run()
    assert "The target has more * than the pattern." in words(app)
    write(app, "rule-target", "router")
    assert "The target is the pattern itself." in words(app.run())


def test_a_list_is_looked_through_applied_and_undone(visit: Visit, db: Database) -> None:
    before = db.read(pricing.in_force, "openai/gpt-4o")
    app = visit("prices", "boss")
    next(one for one in app.toggle if one.key == "choose-list").set_value(True).run()
    assert "New " in words(app)
    assert "have no price for tokens and are left out: other " in words(app)
    label = next(name for name in buttons(app) if name.startswith("Set ") and "price" in name and name != "Set a price")
    press(app, label)
    after = db.read(pricing.in_force, "openai/gpt-4o")
    assert (after.input, after.source) == (18 * MILLION, "database")
    assert [(one.key, one.value) for one in app.toggle if "choose-list" in str(one.key)] == [("choose-list 1", False)]
    assert "Undo" in buttons(app)
    (change,) = db.read(pricing.changes)
    app = visit("prices", "boss")
    press(app, "Undo")
    assert "as it was before." in words(app) or "as they were before." in words(app)
    assert db.read(pricing.in_force, "openai/gpt-4o").parts == before.parts
    assert db.read(pricing.changes)[0].undone
    assert change.what.startswith("genai-prices")


def test_a_price_that_somebody_else_has_changed_is_not_overwritten_in_its_dialog(visit: Visit, db: Database) -> None:
    app = press(visit("prices", "boss"), "All of its price…")
    write(app, "price of one model input", "20")
    app.run()
    db.write(pricing.set_price, "openai/gpt-4o", 18 * MILLION, 90 * MILLION, actor=SHELL)
    press(app, "Let it count from now on")
    assert "Somebody else has changed the price of openai/gpt-4o in the meantime" in words(app)
    assert set_prices(db)["openai/gpt-4o"] == (18 * MILLION, 90 * MILLION, None, None)


def test_nor_by_a_list(visit: Visit, db: Database) -> None:
    app = visit("prices", "boss")
    next(one for one in app.toggle if one.key == "choose-list").set_value(True).run()
    db.write(pricing.set_price, "openai/gpt-4o", 19 * MILLION, 72 * MILLION, actor=SHELL)
    next(one for one in app.button if one.key == "list-apply").click().run()
    assert "Somebody else has changed the price of openai/gpt-4o in the meantime" in words(app)
    assert set_prices(db)["openai/gpt-4o"] == (19 * MILLION, 72 * MILLION, None, None)
    assert not db.read(pricing.changes)


def test_a_model_that_has_only_plans_was_used_at_none_of_its_prices(visit: Visit, db: Database) -> None:
    db.write(pricing.set_price, "a/planned", 1, 1, actor=SHELL, valid_from_ns=db.clock() + 10**15)
    app = visit("prices", "boss", model="a/planned")
    next(one for one in app.toggle if one.key == "price-used").set_value(True).run()
    assert not app.exception, app.exception
    assert not app.error


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("list-markup", "1,1", "“1,1” is no markup"),
        ("list-markup", "0", "“0” is no markup"),
        ("list-markup", "much", "“much” is no markup"),
        ("list-markup", "opnai=1.5", "No model of the list, and no provider, is called opnai."),
        ("list-rate", "abc", "“abc” is no rate"),
        ("list-rate", "0", "“0” is no rate"),
    ],
)
def test_what_is_no_factor_is_told_beside_a_list(visit: Visit, db: Database, field: str, text: str, said: str) -> None:
    app = visit("prices", "boss")
    next(one for one in app.toggle if one.key == "choose-list").set_value(True).run()
    next(one for one in app.text_input if one.key == field).set_value(text).run()
    assert said in words(app)
    assert not any(one.key == "list-apply" for one in app.button)
