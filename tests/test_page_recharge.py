"""The page Recharge, run as a session runs it: what a recharge will do, that it is booked once, and the way back."""

from typing import Any

import pytest
from conftest import Visit
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from billing_core import accounts, ledger, logs
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.logs import Filters, Row


@pytest.fixture
def db(visit_db: Database) -> Database:
    """Boss, an admin; Ann has 12 元; Bob has nothing."""
    visit_db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    visit_db.write(accounts.add, "ann", "Ann", actor=SHELL)
    visit_db.write(accounts.add, "bob", "Bob", actor=SHELL)
    visit_db.write(ledger.recharge, "ann", 120_000, actor=SHELL, remark="首充")
    return visit_db


def field(app: AppTest, label: str) -> Any:
    assert not app.exception, app.exception
    return next(one for one in app.text_input if one.label == label)


def press(app: AppTest, label: str) -> AppTest:
    """Press the last button that is called so: the one in the dialog, where there is one."""
    return next(one for one in reversed(app.button) if one.label == label).click().run()


def shown(app: AppTest) -> str:
    """What the line above the button says of the balance."""
    assert not app.exception, app.exception
    return app.metric[0].value


def sentences(app: AppTest) -> list[str]:
    assert not app.exception, app.exception
    return [one.value.replace("\\", "") for one in app.error]


def recharges(db: Database, user_id: str) -> list[Row]:
    return db.read(logs.page, logs.recharges(Filters(user_id=user_id)), actor=SHELL)


def balance(db: Database, user_id: str) -> int:
    return db.read(accounts.find, user_id).balance


def filled(visit: Visit, user_id: str, amount: str, remark: str = "") -> AppTest:
    app = visit("recharge", "boss", account=user_id)
    field(app, "Amount, 元").set_value(amount).run()
    field(app, "Remark").set_value(remark)
    return app


def test_a_member_does_not_get_the_page(visit: Visit, db: Database) -> None:
    assert [one.value for one in visit("recharge", "ann").title] == ["Balance"]


def test_nothing_can_be_confirmed_before_an_account_and_an_amount_are_there(visit: Visit, db: Database) -> None:
    app = visit("recharge", "boss")
    assert shown(app) == "–"
    assert next(one for one in app.button if one.label == "Recharge").disabled
    app.selectbox[0].set_value("ann").run()
    assert shown(app) == "12.0000"
    assert next(one for one in app.button if one.label == "Recharge").disabled
    assert app.query_params["account"] == "ann"


def test_the_new_balance_stands_there_before_it_is_booked(visit: Visit, db: Database) -> None:
    app = press(filled(visit, "ann", "100"), "Recharge Ann by 100.00 元")
    assert [one.value for one in app.metric] == ["12.0000 → 112.0000"] * 2
    assert balance(db, "ann") == 120_000


def test_a_confirmed_recharge_is_booked_with_its_remark_and_told(visit: Visit, db: Database) -> None:
    app = press(filled(visit, "ann", "1,000.0001", "二充 *"), "Recharge Ann by 1,000.0001 元")
    press(app, "Recharge Ann by 1,000.0001 元")
    newest = recharges(db, "ann")[0]
    assert (newest.amount, newest.remark, newest.operator_id) == (10_000_001, "二充 *", "boss")
    assert [one.value for one in app.toast] == ["Ann is recharged by 1,000.0001 元 and has 1,012.0001 元."]
    assert field(app, "Amount, 元").value == ""
    assert list(app.dataframe[0].value["Remark"]) == ["二充 *", "首充"]


def test_a_double_click_books_once(visit: Visit, db: Database) -> None:
    app = press(filled(visit, "ann", "100"), "Recharge Ann by 100.00 元")
    before = {name: app.session_state[name] for name in ("dialog", "recharge form")}
    press(app, "Recharge Ann by 100.00 元")
    for name in before:  # the second click comes from the page as it was before the first
        app.session_state[name] = before[name]
    press(app.run(), "Recharge Ann by 100.00 元")
    assert not sentences(app)
    assert len(recharges(db, "ann")) == 2
    assert balance(db, "ann") == 1_120_000


def test_the_same_recharge_filled_in_anew_is_another_one(visit: Visit, db: Database) -> None:
    app = press(press(filled(visit, "ann", "100"), "Recharge Ann by 100.00 元"), "Recharge Ann by 100.00 元")
    field(app, "Amount, 元").set_value("100").run()
    press(press(app, "Recharge Ann by 100.00 元"), "Recharge Ann by 100.00 元")
    assert balance(db, "ann") == 2_120_000


def test_a_debit_into_debt_says_so_before_it_is_confirmed(visit: Visit, db: Database) -> None:
    app = press(filled(visit, "ann", "-20"), "Take 20.00 元 off Ann")
    warnings = [one.value for one in app.markdown if "Ann will owe 8.00 元" in one.value]
    assert len(warnings) == 2
    assert shown(app) == "12.0000 → :red[-8.0000]"
    press(app, "Take 20.00 元 off Ann")
    assert balance(db, "ann") == -80_000
    assert [one.value for one in app.toast] == ["20.00 元 are taken off Ann, who has -8.00 元."]


def test_a_recharge_just_made_can_be_reversed_on_the_spot(visit: Visit, db: Database) -> None:
    app = press(press(filled(visit, "ann", "100"), "Recharge Ann by 100.00 元"), "Recharge Ann by 100.00 元")
    entry = recharges(db, "ann")[0].id
    press(app, "Reverse it")
    assert any("112.00 → 12.00 元" in one.value for one in app.caption)
    field(app, "Undo this entry: the reason").set_value("wrong person")
    press(app, f"Reverse entry {entry}")
    assert balance(db, "ann") == 120_000
    assert recharges(db, "ann")[0].reversed_by is not None
    assert not [one for one in app.button if one.label == "Reverse it"]


def test_a_dialog_that_is_left_open_does_not_follow_to_another_page(visit: Visit, db: Database) -> None:
    app = press(filled(visit, "ann", "100"), "Recharge Ann by 100.00 元")
    for page in ("accounts", "recharge"):
        app._page_hash = calc_hash(page)
        app.run()
    assert "do recharge" not in [one.key for one in app.button]


def test_a_wrong_recharge_is_corrected_from_the_log(visit: Visit, db: Database) -> None:
    app = visit("recharge", "boss", account="ann")
    app.session_state["recharges-0-clicked"] = 0
    app.run()
    entry = recharges(db, "ann")[0].id
    assert sentences(press(app, f"Reverse entry {entry}")) == ["Say why: the reason stands beside the reversal."]
    field(app, "Undo this entry: the reason").set_value("twice")
    press(app, f"Reverse entry {entry}")
    assert balance(db, "ann") == 0


@pytest.mark.parametrize(
    ("amount", "sentence"),
    [
        ("1.23456", "1.23456 元 is finer than 0.0001 元. Use at most four decimal places."),
        ("1e3", "“1e3” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."),
        ("一百", "“一百” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."),
        (" ", "“ ” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."),
        ("0", "0 元 changes nothing. Write 100 to add 100 元, or -100 to take 100 元 off."),
        ("1" * 15, "The amount is too large. One entry moves at most 100,000,000,000 元."),
    ],
)
def test_what_is_no_amount_gets_one_sentence(visit: Visit, db: Database, amount: str, sentence: str) -> None:
    app = filled(visit, "ann", amount)
    assert sentences(app) == [sentence]
    assert next(one for one in app.button if one.label == "Recharge").disabled


def test_a_reversal_into_debt_says_so_before_it_is_made(visit: Visit, db: Database) -> None:
    db.write(ledger.recharge, "ann", -20_000, actor=SHELL)
    app = visit("recharge", "boss", account="ann")
    app.session_state["recharges-0-clicked"] = 1
    app.run()
    assert any("Ann will owe 2.00 元" in one.value for one in app.markdown)


def test_an_unknown_account_in_the_address_gets_a_sentence(visit: Visit, db: Database) -> None:
    app = visit("recharge", "boss", account="cem")
    assert sentences(app) == [
        "This link asks for “cem”, which there is none of here. Leave it out, or choose something else above."
    ]


def test_the_log_shows_everybodys_recharges_until_an_account_is_chosen(visit: Visit, db: Database) -> None:
    db.write(ledger.recharge, "bob", 10_000, actor=SHELL)
    app = visit("recharge", "boss")
    assert list(app.dataframe[0].value["Account"]) == ["Bob", "Ann"]
    app.selectbox[0].set_value("ann").run()
    assert list(app.dataframe[0].value["Remark"]) == ["首充"]


def test_an_account_without_recharges_says_how_one_is_made(visit: Visit, db: Database) -> None:
    app = visit("recharge", "boss", account="bob")
    assert app.info[0].value.startswith("No recharge yet")
    assert not app.dataframe


def test_the_csv_holds_the_recharges_that_are_shown(visit: Visit, db: Database) -> None:
    def link(**asked: str) -> str:
        return str(visit("recharge", "boss", **asked).get("link_button")[0].proto.url)

    assert link(account="ann") == "/api/v1/billing/export/recharges.csv?user_id=ann&timezone=UTC"
    assert link() == "/api/v1/billing/export/recharges.csv?all=true&timezone=UTC"


def test_a_long_log_has_pages_that_begin_where_the_last_one_ended(visit: Visit, db: Database) -> None:
    for number in range(60):
        db.write(ledger.recharge, "bob", 10_000, actor=SHELL, remark=str(number))
    app = visit("recharge", "boss", account="bob")
    assert list(app.dataframe[0].value["Remark"]) == [str(number) for number in range(59, 9, -1)]
    press(app, "Older")
    assert list(app.dataframe[0].value["Remark"]) == [str(number) for number in range(9, -1, -1)]
    press(app, "Newer")
    assert app.dataframe[0].value["Remark"][0] == "59"
