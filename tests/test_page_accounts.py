"""The page Accounts, run as a session runs it: who has what, and what an admin does about it."""

from typing import Any

import pytest
from conftest import Visit
from streamlit.testing.v1 import AppTest

from billing_core import accounts, ledger, signin
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.errors import NotSignedIn
from billing_core.tokens import Tokens


@pytest.fixture
def db(visit_db: Database) -> Database:
    """Boss, an admin; Ann has 10 元; Bob owes 5 元."""
    visit_db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    visit_db.write(accounts.add, "ann", "Ann *A*", actor=SHELL, email="ann@example.com")
    visit_db.write(accounts.add, "bob", "Bob", actor=SHELL)
    visit_db.write(ledger.recharge, "ann", 100_000, actor=SHELL)
    visit_db.write(ledger.recharge, "bob", -50_000, actor=SHELL)
    return visit_db


def titles(app: AppTest) -> list[str]:
    assert not app.exception, app.exception
    return [one.value for one in app.title]


def errors(app: AppTest) -> list[str]:
    assert not app.exception, app.exception
    return [one.value.replace("\\", "") for one in app.error]


def figures(app: AppTest) -> dict[str, tuple[str, str]]:
    return {one.label: (one.value, one.delta) for one in app.metric}


def names(app: AppTest) -> list[str]:
    return list(app.dataframe[0].value["Name"])


def field(app: AppTest, label: str) -> Any:
    return next(one for one in app.text_input if one.label == label)


def press(app: AppTest, label: str) -> AppTest:
    """Press the last button that is called so: the one in the dialog, where there is one."""
    return next(one for one in reversed(app.button) if one.label == label).click().run()


# Everybody


def test_a_member_does_not_get_the_page_nor_an_account_on_it(visit: Visit, db: Database) -> None:
    assert titles(visit("accounts", "ann")) == ["Balance"]
    assert titles(visit("account", "ann", account="bob")) == ["Balance"]


def test_the_teams_balance_and_who_is_in_debt_stand_on_top(visit: Visit, db: Database) -> None:
    shown = figures(visit("accounts", "boss"))
    assert shown["Balance of the team, 元"] == ("5.00", "0.00 元 spent in 30 days")
    assert shown["In debt"] == (":red[1]", "Bob")
    assert shown["Runs out this week"] == ("0", "nobody does")


def test_whoever_spends_a_balance_in_days_runs_out_this_week(visit: Visit, db: Database) -> None:
    db.write(ledger.charge, "ann", "some/model", Tokens(500_000, 0), actor=SHELL)
    app = visit("accounts", "boss")
    assert figures(app)["Runs out this week"] == ("1", "Ann \\*A\\*")
    assert names(app) == ["Bob", "Ann *A*", "Boss"]


def test_those_in_debt_stand_first(visit: Visit, db: Database) -> None:
    assert names(visit("accounts", "boss")) == ["Bob", "Ann *A*", "Boss"]


def test_many_accounts_are_shown_page_by_page(visit: Visit, db: Database) -> None:
    for n in range(205):
        db.write(accounts.add, f"user{n:03}", f"User {n:03}", actor=SHELL)
    app = visit("accounts", "boss")
    assert names(app) == ["Bob", "Ann *A*", "Boss", *(f"User {n:03}" for n in range(47))]
    app.session_state["accounts-page-of-5"] = 5
    assert names(app.run()) == [f"User {n:03}" for n in range(197, 205)]
    assert not app.exception
    app.session_state["accounts-0-clicked"] = 1
    assert titles(app.run()) == ["User 198"]
    few = visit("accounts", "boss", q="user20")
    assert names(few) == [f"User {n:03}" for n in range(200, 205)]


def test_a_search_in_the_address_shows_who_it_finds_and_the_figures_of_all(visit: Visit, db: Database) -> None:
    app = visit("accounts", "boss", q="EXAMPLE.com")
    assert names(app) == ["Ann *A*"]
    assert figures(app)["Balance of the team, 元"][0] == "5.00"


def test_a_search_that_finds_nobody_says_what_to_do(visit: Visit, db: Database) -> None:
    app = visit("accounts", "boss", q="nobody")
    assert app.info[0].value.startswith("No account has this")
    assert not app.dataframe


def test_the_first_admin_is_told_to_add_members(visit: Visit, visit_db: Database) -> None:
    visit_db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    assert "Add the members" in visit("accounts", "boss").info[0].value


def test_the_csv_holds_what_the_search_finds(visit: Visit, db: Database) -> None:
    links = [one.proto.url for one in visit("accounts", "boss", q="ann").get("link_button")]
    assert links == ["/api/v1/billing/export/accounts.csv?search=ann&timezone=UTC"]


def test_a_click_on_a_row_opens_the_account_and_puts_it_into_the_address(visit: Visit, db: Database) -> None:
    app = visit("accounts", "boss")
    app.session_state["accounts-0-clicked"] = 0
    app.run()
    assert titles(app) == ["Bob"]
    assert app.query_params["account"] in ("bob", ["bob"])


def test_an_added_account_opens_and_can_sign_in_with_its_first_password(visit: Visit, db: Database) -> None:
    app = press(visit("accounts", "boss"), "Add an account")
    field(app, "Id, to sign in with").set_value("cem")
    field(app, "Name, as others see it").set_value("Cem_1")
    field(app, "First password (may stay empty)").set_value("correct horse")
    press(app, "Add the account")
    assert titles(app) == ["Cem\\_1"]
    assert [one.value for one in app.toast] == ["Cem\\_1 is added. A recharge comes next."]
    assert signin.check_password(db, "cem", "correct horse").role == "member"


@pytest.mark.parametrize(
    ("label", "wrong", "sentence"),
    [
        ("Id, to sign in with", "ann", "There is an account ann already. Choose another id."),
        ("Id, to sign in with", "a b", "“a b” can't be an id."),
        ("Name, as others see it", " ", "A name has 1 to 100 characters."),
        ("Email (may stay empty)", "cem", "“cem” is not an email address."),
        ("First password (may stay empty)", "short", "A password has at least 8 characters."),
    ],
)
def test_what_cannot_be_added_gets_one_sentence(
    visit: Visit, db: Database, label: str, wrong: str, sentence: str
) -> None:
    app = press(visit("accounts", "boss"), "Add an account")
    field(app, "Id, to sign in with").set_value("cem")
    field(app, "Name, as others see it").set_value("Cem")
    field(app, label).set_value(wrong)
    [shown] = errors(press(app, "Add the account"))
    assert shown.startswith(sentence)
    assert len(db.read(accounts.listed, actor=SHELL)) == 3


# One account


def test_an_address_with_an_account_shows_it_with_its_balance(visit: Visit, db: Database) -> None:
    app = visit("account", "boss", account="bob")
    assert titles(app) == ["Bob"]
    assert figures(app)["Balance, 元"][0] == ":red[-5.00]"


def test_an_accounts_recharge_logs_and_stats_are_one_click_away(visit: Visit, db: Database) -> None:
    links = visit("account", "boss", account="ann").get("page_link")
    assert [(one.label, one.proto.query_string) for one in links] == [
        ("All accounts", ""),
        *((label, "account=ann") for label in ("Recharge", "Logs", "Stats")),
    ]


def test_an_unknown_account_in_the_address_gets_a_sentence_and_a_way_back(visit: Visit, db: Database) -> None:
    app = visit("account", "boss", account="cem")
    assert errors(app) == ["There is no account cem. Check the id, or add the account first."]
    assert app.get("page_link")[0].label == "All accounts"


def test_name_and_role_are_changed(visit: Visit, db: Database) -> None:
    app = visit("account", "boss", account="ann")
    field(app, "Name, as others see it").set_value("Ann")
    app.segmented_control[0].set_value("admin")
    press(app, "Save Ann \\*A\\*")
    assert titles(app) == ["Ann"]
    assert db.read(accounts.find, "ann").role == "admin"


def test_a_wrong_email_is_refused_beside_its_field(visit: Visit, db: Database) -> None:
    app = visit("account", "boss", account="ann")
    field(app, "Email (may stay empty)").set_value("a@b@c")
    assert errors(press(app, "Save Ann \\*A\\*")) == ["“a@b@c” is not an email address."]
    assert db.read(accounts.find, "ann").email == "ann@example.com"


def test_the_only_admin_stays_one(visit: Visit, db: Database) -> None:
    app = visit("account", "boss", account="boss")
    app.segmented_control[0].set_value("member")
    assert errors(press(app, "Save Boss")) == ["boss is the only admin left. Make somebody else an admin first."]
    assert db.read(accounts.find, "boss").role == "admin"


def test_freezing_says_what_it_does_before_it_counts(visit: Visit, db: Database) -> None:
    db.write(ledger.precharge, "ann", "some/model", 100_000, 0, actor=SHELL)
    app = press(visit("account", "boss", account="ann"), "Freeze Ann \\*A\\*")
    said = " ".join(one.value for one in app.markdown)
    assert "New charges and holds are refused" in said
    assert "1.80 元 held for running calls" in said
    assert db.read(accounts.find, "ann").status == "active"


def test_freezing_and_unfreezing_happen_when_confirmed(visit: Visit, db: Database) -> None:
    session = db.write(lambda tx: signin.issue(tx, "session", accounts.find(tx, "ann")))
    app = press(press(visit("account", "boss", account="ann"), "Freeze Ann \\*A\\*"), "Freeze Ann \\*A\\*")
    assert db.read(accounts.find, "ann").status == "frozen"
    assert db.read(signin.session_actor, session) is None
    assert [one.value for one in app.toast] == ["Ann \\*A\\* is frozen."]
    press(press(app, "Unfreeze Ann \\*A\\*"), "Unfreeze Ann \\*A\\*")
    assert db.read(accounts.find, "ann").status == "active"


def test_a_new_password_replaces_the_old_one(visit: Visit, db: Database) -> None:
    db.write(signin.change_password, "ann", signin.hash_password("the old one"), actor=SHELL)
    app = visit("account", "boss", account="ann")
    field(app, "New password").set_value("correct horse")
    press(app, "Set the password of Ann \\*A\\*")
    assert signin.check_password(db, "ann", "correct horse").user_id == "ann"
    with pytest.raises(NotSignedIn):
        signin.check_password(db, "ann", "the old one")


def test_a_password_that_is_too_short_is_refused_beside_its_field(visit: Visit, db: Database) -> None:
    app = visit("account", "boss", account="ann")
    field(app, "New password").set_value("short")
    [shown] = errors(press(app, "Set the password of Ann \\*A\\*"))
    assert shown.startswith("A password has at least 8 characters.")


def test_ones_own_password_is_changed_where_the_old_one_is_asked_for(visit: Visit, db: Database) -> None:
    app = visit("account", "boss", account="boss")
    assert not [one for one in app.text_input if one.label == "New password"]
    assert "Change your own password" in [one.label for one in app.get("page_link")]
