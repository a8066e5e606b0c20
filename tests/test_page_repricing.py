"""Charging many calls again from the page Logs, and the one line that members see of it."""

import pytest
from conftest import Visit
from test_page_undoing import balance, click, finish, labels, shown

from billing_core import accounts, ledger, pricing, repricing, undoing
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.logs import Filters
from billing_core.tokens import Tokens


@pytest.fixture
def db(visit_db: Database) -> Database:
    """Ann and Bob, each recharged and charged 180 毫 a call, at a price that has been corrected since."""

    def write(tx: Transaction) -> None:
        accounts.add(tx, "boss", "Boss", actor=SHELL, role="admin")
        for user_id, calls in (("ann", 3), ("bob", 2)):
            accounts.add(tx, user_id, user_id.title(), actor=SHELL)
            ledger.recharge(tx, user_id, 1_000_000, actor=SHELL)
            for _ in range(calls):
                ledger.charge(tx, user_id, "some/model", Tokens(1000, 0), actor=SHELL)
        pricing.set_price(tx, "some/model", 10_000_000, 72_000_000, actor=SHELL)

    visit_db.write(write)
    return visit_db


def test_a_member_reprices_nothing(visit: Visit, db: Database) -> None:
    assert not any("eprice" in label for label in labels(visit("logs", "ann")))


def test_the_calls_that_the_filters_show_are_repriced_after_it_was_shown(visit: Visit, db: Database) -> None:
    app = visit("logs", "boss", account="ann")
    click(app, "Reprice the calls…")
    assert "**3 calls**: cost 0.054 → 0.03 元, +0.024 元 on balances in all." in shown(app)
    assert "some/model: input 18\\.00 → 10\\.00" in shown(app)
    assert "99.946 → 99.97" in shown(app)
    app.text_input[-1].set_value("a wrong price")
    finish(click(app, "Reprice 3 calls"))
    assert not app.exception
    assert "3 entries are repriced · a wrong price" in shown(app)
    assert (balance(db, "ann"), balance(db, "bob")) == (999_700, 1_000_000 - 360)
    assert not check(db)


def test_models_and_prices_are_shown_apart(visit: Visit, db: Database) -> None:
    db.write(ledger.charge, "ann", "some/model", Tokens(1000, 0), actor=SHELL)
    db.write(pricing.set_price, "some/model", 20_000_000, 72_000_000, actor=SHELL)
    app = visit("logs", "boss", account="ann")
    click(app, "Reprice the calls…")
    frame = next(one.value for one in app.dataframe if "On balances, 元" in one.value)
    assert list(frame["Calls"]) == [3, 1]
    assert [str(value) for value in frame["On balances, 元"]] == ["-0.0060", "-0.0100"]


def test_every_account_is_shown_from_and_to(visit: Visit, db: Database) -> None:
    db.write(ledger.recharge, "ann", -999_460, actor=SHELL)
    db.write(ledger.recharge, "bob", -999_640, actor=SHELL)
    db.write(pricing.set_price, "some/model", 20_000_000, 72_000_000, actor=SHELL)
    app = visit("logs", "boss", type="calls")
    click(app, "Reprice the calls…")
    frame = next(one.value for one in app.dataframe if "Balance then, 元" in one.value)
    assert list(frame["Account"]) == ["Ann", "Bob"]
    assert [str(value) for value in frame["Balance then, 元"]] == ["-0.0060", "-0.0040"]
    assert "2 accounts go into debt" in shown(app)


def test_where_no_calls_are_shown_there_is_no_button(visit: Visit, db: Database) -> None:
    assert "Reprice the calls…" not in labels(visit("logs", "boss", type="recharge"))


def test_without_a_reason_nothing_happens(visit: Visit, db: Database) -> None:
    app = visit("logs", "boss")
    click(app, "Reprice the calls…")
    click(app, "Reprice 5 calls")
    assert "Say why" in shown(app)
    assert db.read(undoing.jobs, actor=SHELL) == []


def test_where_every_call_costs_the_same_it_says_so(visit: Visit, db: Database) -> None:
    db.write(pricing.retire, "some/model", actor=SHELL)
    app = visit("logs", "boss")
    click(app, "Reprice the calls…")
    assert "None of these calls would cost anything else" in shown(app)
    assert "5 × cost the same at the price that counts now" in shown(app)


def test_a_price_that_changed_meanwhile_is_shown_anew(visit: Visit, db: Database) -> None:
    app = visit("logs", "boss")
    click(app, "Reprice the calls…")
    db.write(pricing.set_price, "some/model", 9_000_000, 72_000_000, actor=SHELL)
    app.text_input[-1].set_value("a wrong price")
    click(app, "Reprice 5 calls")
    assert not app.exception
    assert db.read(undoing.jobs, actor=SHELL) == []
    assert "has changed since it was shown" in shown(app)
    assert "cost 0.09 → 0.045 元" in shown(app)


def test_a_job_that_was_cut_short_is_found_again_goes_on_and_is_taken_back(visit: Visit, db: Database) -> None:
    seen = db.read(repricing.preview, Filters(types=("deduct",)), actor=SHELL)
    db.write(repricing.start, seen.selection, "a wrong price", actor=SHELL, seen=seen.seen)
    app = visit("logs", "boss")
    assert "It was cut short" in shown(app)
    finish(click(app, "Go on with the 5 entries left"))
    assert "5 entries are repriced" in shown(app)
    assert (balance(db, "ann"), balance(db, "bob")) == (999_700, 999_800)
    click(app, "Undo this…")
    assert "**5 calls**: cost 0.05 → 0.09 元, -0.04 元 on balances in all." in shown(app)
    app.text_input[-1].set_value("it was right")
    finish(click(app, "Reprice 5 calls"))
    assert not app.exception
    assert (balance(db, "ann"), balance(db, "bob")) == (999_460, 999_640)


def test_a_member_sees_one_line_with_its_reason_and_an_admin_both_entries(visit: Visit, db: Database) -> None:
    db.write(
        lambda tx: ledger.reprice(
            tx, 3, pricing.in_force(tx, "some/model").price_id or 0, "the list price", actor=SHELL
        )
    )
    member, admin = visit("logs", "ann"), visit("logs", "boss", account="ann")
    assert "5 entries" in shown(member)
    assert "6 entries" in shown(admin)
    assert "**0.046** 元 total cost" in shown(member)
    for app, amounts in ((member, ["0.0080"]), (admin, ["-0.0100", "0.0180"])):
        frame = app.dataframe[0].value
        assert [str(value) for value in frame["Amount, 元"][: len(amounts)]] == amounts
        assert frame["Model or remark"][0] == "Repriced: the list price · some/model"
        assert str(frame["Balance, 元"][0]) == "99.9540"
    assert "undone by 9" in list(member.dataframe[0].value["Model or remark"])[2]
    balances = visit("balance", "ann")
    assert not balances.exception
    assert [str(value) for value in balances.dataframe[-1].value["Amount, 元"][:1]] == ["0.0080"]
    balances.session_state["dialog"] = ("entry", (9,))
    assert "**Instead of** entry 3, which cost 0.018 元" in shown(balances.run())
