"""The members' pages, run as a session runs them: what stands on them, what can be done, and who may see what."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from conftest import ROOT, Visit
from streamlit.testing.v1 import AppTest

from billing_core import accounts, ledger, signin, stats
from billing_core.actors import SHELL
from billing_core.database import REVISION, Database
from billing_core.tokens import Tokens
from pages.parts import words


@pytest.fixture
def team(visit_db: Database) -> Database:
    """Boss, an admin, and Ann, who has spent 0.18 of her 1 元 on one call and 0.36 on a held one."""
    password = signin.hash_password("correct horse")
    db = visit_db
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin", password_hash=password)
    db.write(accounts.add, "ann", "Ann *A*", actor=SHELL, password_hash=password)
    db.write(ledger.recharge, "ann", 10_000, actor=SHELL, remark="首充 [1]")
    db.write(ledger.charge, "ann", "some/model", Tokens(10_000, 0, 4_000), actor=SHELL)
    held = db.write(ledger.precharge, "ann", "some/model", 10_000, 100, actor=SHELL)
    db.write(ledger.settle, held.entry_id, Tokens(10_000, 100, 0, 0, 50), actor=SHELL)
    return db


def titles(app: AppTest) -> list[str]:
    assert not app.exception, app.exception
    return [one.value for one in app.title]


def errors(app: AppTest) -> list[str]:
    assert not app.exception, app.exception
    return [one.value for one in app.error]


def metrics(app: AppTest) -> dict[str, str]:
    return {one.label: one.value for one in app.metric}


def field(app: AppTest, label: str) -> Any:
    return next(one for kind in (app.text_input, app.selectbox) for one in kind if one.label == label)


def press(app: AppTest, label: str) -> AppTest:
    return next(one for one in app.button if one.label == label).click().run()


# Getting in


def test_nobody_sees_a_page_before_signing_in(visit: Visit, team: Database) -> None:
    for path in ("balance", "logs", "stats", "prices", "my-account", "accounts", "recharge"):
        assert titles(visit(path)) == ["Billing"]


def test_an_empty_database_says_how_the_first_admin_is_made(visit: Visit) -> None:
    app = visit("balance")
    assert "Nobody has an account here yet" in app.info[0].value
    assert "account add boss --name Boss --admin" in app.code[0].value


def test_a_wrong_password_gets_one_sentence(visit: Visit, team: Database) -> None:
    app = visit("balance")
    field(app, "Id").set_value("ann")
    field(app, "Password").set_value("wrong horse")
    assert errors(press(app, "Sign in")) == ["The id or the password is wrong\\."]


def test_a_right_password_sends_the_browser_for_its_cookie(visit: Visit, team: Database) -> None:
    app = visit("logs", type="deduct", lang="en")
    field(app, "Id").set_value("ann")
    field(app, "Password").set_value("correct horse")
    press(app, "Sign in")
    sent = " ".join(one.proto.body for one in app.get("html"))
    assert "/session/start?ticket=" in sent
    assert "&to=%2F%3Ftype%3Ddeduct" in sent


def test_the_setup_link_makes_the_first_admin_once(visit: Visit, visit_db: Database) -> None:
    secret = visit_db.write(signin.setup_link)
    app = visit("balance", setup=secret)
    field(app, "Id, to sign in with").set_value("boss")
    field(app, "Name, as others see it").set_value("Boss")
    field(app, "Password").set_value("short")
    assert "at least 8 characters" in errors(press(app, "Make me the first admin"))[0]
    field(app, "Password").set_value("long enough")
    press(app, "Make me the first admin")
    assert visit_db.read(accounts.find, "boss").role == "admin"
    assert "has been used" in errors(visit("balance", setup=secret))[0]


def test_the_sign_in_form_speaks_the_language_that_the_address_names(visit: Visit, team: Database) -> None:
    app = visit("balance", lang="zh_CN")
    assert "登录" in [one.label for one in app.button]


def test_a_members_navigation_has_no_team_pages(visit: Visit, team: Database) -> None:
    assert titles(visit("accounts", "ann")) == ["Balance"]
    assert titles(visit("recharge", "ann")) == ["Balance"]


def test_signing_out_ends_the_session(visit: Visit, team: Database) -> None:
    app = visit("balance", "ann")
    press(app, "Sign out")
    assert titles(app.run()) == ["Billing"]


def test_freezing_ends_a_session_in_the_middle_of_it(visit: Visit, team: Database) -> None:
    app = visit("balance", "ann")
    team.write(accounts.change, "ann", actor=SHELL, status="frozen")
    assert titles(app.run()) == ["Billing"]


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")


def damaged(file: Path) -> None:
    file.write_bytes(b"no database at all " * 100)


def gone(file: Path) -> None:
    file.unlink()
    file.parent.joinpath("billing.db").mkdir()


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (
            newer,
            f"The database is of a newer version (9999) than this app ({REVISION}). Update the app, then start again.",
        ),
        (damaged, "The file is not a billing database, or it is damaged. Restore a backup, or name another file."),
        (gone, "The database file can't be opened. Check that its folder is there and may be written to."),
    ],
)
def test_a_troubled_database_gets_one_sentence(
    visit: Visit, sqlite_url: str, trouble: Callable[[Path], None], sentence: str
) -> None:
    trouble(Path(sqlite_url.removeprefix("sqlite:///")))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run()
    assert [one.replace("\\", "") for one in errors(app)] == [sentence]
    assert "This page tries again every 5 s." in [one.value for one in app.caption]


def test_a_wrong_database_url_gets_one_sentence(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_DATABASE_URL", "mysql://nowhere")
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run()
    assert "BILLING\\_DATABASE\\_URL is not the address of a database" in errors(app)[0]


def test_a_database_that_is_read_only_gets_one_sentence_and_shows_what_it_has(visit: Visit, team: Database) -> None:
    app = visit("my-account", "ann")
    team.engine.dispose()  # root may write any file; this refuses root as well
    sa.event.listen(team.engine, "connect", lambda connection, _record: connection.execute("PRAGMA query_only = ON"))
    field(app, "Name of a new key").set_value("notebook")
    assert "The database is read-only" in errors(press(app, "Add a key"))[0].replace("\\", "")
    assert titles(app) == ["My account"]


# Balance


def test_the_balance_page_says_what_is_left_and_what_was_spent(visit: Visit, team: Database) -> None:
    app = visit("balance", "ann")
    assert titles(app) == ["Balance"]
    shown = metrics(app)
    assert shown["Balance, 元"] == "0.6328"
    assert shown["Spent this month, 元"] == "0.3672"
    assert shown["Lasts for"] == "24 days"
    assert len(app.dataframe[0].value) == 4


def test_what_is_owed_is_red_and_says_what_clears_it(visit: Visit, team: Database) -> None:
    team.write(ledger.recharge, "ann", -20_000, actor=SHELL)
    app = visit("balance", "ann")
    assert metrics(app)["Balance, 元"] == ":red[-1.3672]"
    assert any("owed: 1.3672 元" in one.proto.delta for one in app.metric)


# Logs


def test_logs_show_each_entry_and_their_sum(visit: Visit, team: Database) -> None:
    app = visit("logs", "ann")
    rows = app.dataframe[0].value
    assert list(rows["Type"]) == ["Settled ← 3", "Held → 4", "Charge", "Recharge"]
    assert "4 entries" in app.markdown[0].value
    assert "**0.3672** 元 total cost" in app.markdown[0].value
    assert "**1.00** 元 recharged" in app.markdown[0].value


@pytest.mark.parametrize(
    ("asked", "types"),
    [
        ({"type": "calls"}, ["Settled ← 3", "Charge"]),
        ({"q": "首充"}, ["Recharge"]),
        ({"model": "some/model", "type": "deduct"}, ["Charge"]),
        ({"before": "3"}, ["Charge", "Recharge"]),
    ],
)
def test_the_address_holds_the_filters(visit: Visit, team: Database, asked: dict[str, str], types: list[str]) -> None:
    assert list(visit("logs", "ann", **asked).dataframe[0].value["Type"]) == types


def test_a_filter_goes_into_the_address(visit: Visit, team: Database) -> None:
    app = visit("logs", "ann")
    field(app, "Type").select("deduct").run()
    assert app.query_params["type"] in ("deduct", ["deduct"])
    assert list(app.dataframe[0].value["Type"]) == ["Charge"]


def test_a_choice_stays_though_the_browsers_next_request_still_has_the_old_address(
    visit: Visit, team: Database
) -> None:
    app = visit("logs", "ann")
    field(app, "Type").select("deduct").run()
    app.query_params.pop("type")
    app.run()
    assert list(app.dataframe[0].value["Type"]) == ["Charge"]


def test_filters_that_nothing_passes_say_so(visit: Visit, team: Database) -> None:
    assert "Nothing here yet that passes" in visit("logs", "ann", q="nobody wrote this").info[0].value


def test_a_member_sees_their_own_entries_whatever_the_address_says(visit: Visit, team: Database) -> None:
    team.write(accounts.add, "bob", "Bob", actor=SHELL)
    assert not visit("logs", "bob", account="ann").dataframe
    assert not visit("logs", "bob", account="*").dataframe


def test_an_admin_sees_all_accounts_or_one(visit: Visit, team: Database) -> None:
    team.write(ledger.recharge, "boss", 5, actor=SHELL)
    assert len(visit("logs", "boss").dataframe[0].value) == 5
    assert len(visit("logs", "boss", account="boss").dataframe[0].value) == 1


def test_pages_lead_to_older_entries_and_back(visit: Visit, team: Database) -> None:
    for _time in range(60):
        team.write(ledger.recharge, "ann", 1, actor=SHELL)
    app = visit("logs", "ann")
    first = list(app.dataframe[0].value["Entry"])
    press(app, "Older")
    assert len(app.dataframe[0].value) == 14
    press(app, "Newer")
    assert list(app.dataframe[0].value["Entry"]) == first


def test_a_late_word_of_the_click_does_not_open_a_closed_entry_again(visit: Visit, team: Database) -> None:
    app = visit("logs", "ann")
    newest = int(app.dataframe[0].value["Entry"].iloc[0])
    app.session_state["entries-0-clicked"] = 0
    app.run()
    assert app.session_state["dialog"] == ("entry", (newest,))
    del app.session_state["dialog"]  # as closing it does
    app.session_state["dialogs closed"] = 1
    app.session_state["entries-0-clicked"] = 0
    app.run()
    assert "dialog" not in app.session_state
    app.session_state["entries-1-clicked"] = 0
    app.run()
    assert app.session_state["dialog"] == ("entry", (newest,))


# Stats


def test_stats_show_the_total_and_each_model(visit: Visit, team: Database) -> None:
    app = visit("stats", "ann")
    assert metrics(app) == {"Cost, 元": "0.3672", "Calls": "2", "Dearest model": "some/model"}
    row = app.dataframe[0].value.iloc[0]
    assert (row["Calls"], row["Share"], str(row["Cost, 元"])) == (2, "100.0%", "0.3672")


def test_an_admin_splits_stats_by_account(visit: Visit, team: Database) -> None:
    app = visit("stats", "boss", by="account", range="12m")
    assert metrics(app)["Dearest account"] == "Ann \\*A\\*"


def test_two_dates_in_the_wrong_order_get_a_sentence(visit: Visit, team: Database) -> None:
    app = visit("stats", "ann", range="dates", dates="2026-05-02..2026-05-01")
    assert "The range ends before it begins" in errors(app)[0]


def test_without_dates_the_last_30_days_are_shown(visit: Visit, team: Database) -> None:
    assert metrics(visit("stats", "ann", range="dates", dates=""))["Calls"] == "2"


LINKS = [
    *(("logs", asked) for asked in ({"model": "no/such"}, {"model": "Some/Model"}, {"type": "charge"}, {"range": "14d"}, {"account": "zoe"})),
    *(("stats", asked) for asked in ({"by": "user"}, {"measure": "money"}, {"account": "zoe"})),
    *(("stats", {"range": "dates", "dates": dates}) for dates in ("2026-05-02", "x..y", "9999-99-99..2026-01-01", "2026-W10..2026-W12", "2026-02-30..2026-03-01")),
    *(("what-if", asked) for asked in ({"way": "mine"}, {"range": "1y"})),
    *(("audit", asked) for asked in ({"kind": "nothing"},)),
    ("recharge", {"account": "zoe"}),
]  # fmt: skip


@pytest.mark.parametrize(("page", "asked"), LINKS, ids=repr)
def test_a_link_that_names_what_there_is_not_shows_nothing_else_in_its_place(
    visit: Visit, team: Database, page: str, asked: dict[str, str]
) -> None:
    """All calls, for a model that was misspelt, look like an answer, and could be reversed as one."""
    app = visit(page, "boss", **asked)
    (said,) = errors(app)
    wrong = list(asked.values())[-1]
    assert said.replace("\\", "").startswith(f"This link asks for “{wrong}”, which there is none of here.")
    assert not app.dataframe
    assert not app.metric
    assert not app.get("link_button")
    press(app, "Leave it out")
    assert not errors(app)
    assert list(asked)[-1] not in app.query_params


def test_somebody_else_s_figures_in_a_member_s_link_are_not_their_own(visit: Visit, team: Database) -> None:
    for page in ("logs", "stats"):
        assert "This link is about the account “boss”" in errors(visit(page, "ann", account="boss"))[0]
        assert not errors(visit(page, "ann", account="ann"))


def choose_dates(app: AppTest, *days: date) -> AppTest:
    app.date_input[0].set_value(days)
    return app.run()


def test_while_one_of_two_dates_is_chosen_those_before_stay(visit: Visit, autumn: Database) -> None:
    app = visit("logs", "boss", range="dates", dates="2025-11-01..2025-11-20")
    assert set(app.dataframe[0].value["Model or remark"]) == {"of/11-01", "of/11-20"}
    choose_dates(app, date(2025, 8, 1))
    assert set(app.dataframe[0].value["Model or remark"]) == {"of/11-01", "of/11-20"}
    assert any("Until then: 2025-11-01 – 2025-11-20." in one.value for one in app.caption)
    assert app.query_params["dates"] in ("2025-11-01..2025-11-20", ["2025-11-01..2025-11-20"])
    choose_dates(app, date(2025, 8, 1), date(2025, 8, 20))
    assert set(app.dataframe[0].value["Model or remark"]) == {"of/08-01", "of/08-15"}
    assert "Until then" not in " ".join(one.value for one in app.caption)


def test_a_page_of_a_list_that_has_no_rows_shows_the_first_one(visit: Visit, team: Database) -> None:
    for page, asked in (("logs", {"before": "1"}), ("logs", {"after": "999999"}), ("recharge", {"before": "1"})):
        app = visit(page, "boss", **asked)
        assert len(app.dataframe) == 1
        assert not set(asked) & set(app.query_params)


def test_what_would_be_reversed_is_told_in_words(visit: Visit, autumn: Database) -> None:
    app = visit("logs", "boss", range="dates", dates="2025-11-01..2025-11-20", account="ann", type="deduct")
    press(app, "Reverse all 2 entries…")
    (said,) = [one.value.replace("\\", "") for one in app.caption if "ann ·" in one.value]
    assert said == "Nov 1, 2025, 00:00 – Nov 21, 2025, 00:00 · ann · All models · Charge"


def test_a_search_of_blanks_is_none(visit: Visit, team: Database) -> None:
    everything = visit("logs", "boss").markdown[0].value
    assert "4 entries" in everything
    assert visit("logs", "boss", q="  ").markdown[0].value == everything


# My account


def test_language_and_zone_are_chosen_for_good(visit: Visit, team: Database) -> None:
    app = visit("my-account", "ann")
    field(app, "Language").select("zh_CN")
    field(app, "Time zone").select("Asia/Kathmandu")
    press(app, "Save")
    account = team.read(accounts.find, "ann")
    assert (account.language, account.timezone) == ("zh_CN", "Asia/Kathmandu")
    assert titles(visit("balance", "ann")) == ["余额"]


def test_a_password_is_changed_by_whoever_knows_the_old_one(visit: Visit, team: Database) -> None:
    app = visit("my-account", "ann")
    field(app, "Present password").set_value("wrong horse")
    field(app, "New password").set_value("battery staple")
    assert errors(press(app, "Change my password")) == ["The present password is wrong."]
    field(app, "Present password").set_value("correct horse")
    press(app, "Change my password")
    assert signin.check_password(team, "ann", "battery staple").user_id == "ann"
    assert titles(app.run()) == ["My account"]


def test_a_key_is_shown_once_and_revoked(visit: Visit, team: Database) -> None:
    app = visit("my-account", "ann")
    field(app, "Name of a new key").set_value("notebook")
    press(app, "Add a key")
    secret = app.code[0].value
    assert team.read(signin.key_actor, secret)[0].user_id == "ann"
    app = visit("my-account", "ann")
    assert not app.code
    key = field(app, "Revoke a key")
    key.select(key.options[0]).run()
    press(app, "Revoke it: programs that use it are refused")
    with pytest.raises(signin.NotSignedIn):
        team.read(signin.key_actor, secret)


@pytest.mark.parametrize("page", ["logs", "stats", "what-if"])
@pytest.mark.parametrize(
    "dates", ["2025-01-01..2999-01-01", "2998-01-01..2999-01-01", "2025-02-01..2025-01-01", "2001-01-01..2025-01-01"]
)
def test_dates_in_a_link_may_be_any(visit: Visit, team: Database, page: str, dates: str) -> None:
    app = visit(page, "boss", range="dates", dates=dates)
    assert titles(app)
    assert all("ends before it begins" in said or "must lie between the years" in said for said in errors(app))


@pytest.fixture
def autumn(team: Database) -> Database:
    """Calls of Ann at noon of the first and the last of August and of November 2025, and of 15 August and 20 November."""
    for day in ("08-01", "08-15", "08-31", "11-01", "11-20", "11-30"):
        at_ns = stats.to_ns(datetime.fromisoformat(f"2025-{day}T12:00:00+00:00"))
        options = {"created_at_ns": at_ns, "allow_debt": True}
        team.write(ledger.charge, "ann", f"of/{day}", Tokens(1000, 0), actor=SHELL, **options)  # type: ignore[arg-type]
    return team


def links(app: AppTest) -> list[str]:
    assert not app.exception, app.exception
    return [unquote(one.proto.url) for one in app.get("link_button")]


def test_two_dates_are_those_days_and_no_other_however_far_apart(visit: Visit, autumn: Database) -> None:
    within = {"of/08-15", "of/08-31", "of/11-01", "of/11-20"}
    asked = {"range": "dates", "dates": "2025-08-15..2025-11-20"}
    logs = visit("logs", "boss", **asked)
    assert set(logs.dataframe[0].value["Model or remark"]) == within
    assert "4 entries" in logs.markdown[0].value
    assert "start=2025-08-15T00:00:00+00:00&end=2025-11-21T00:00:00+00:00" in links(logs)[0]
    app = visit("stats", "boss", **asked)
    assert set(app.dataframe[0].value["Model"]) == within
    assert all("granularity=month&timezone=UTC&first=2025-08-15&last=2025-11-20" in link for link in links(app))
    assert {"by=model", "by=both"} == {part for link in links(app) for part in link.split("&") if "by=" in part}
    assert visit("what-if", "boss", **asked).multiselect[0].options == sorted(within)


def test_a_day_that_the_zone_skipped_gets_a_sentence(visit: Visit, team: Database) -> None:
    boss = signin.actor_of(team.read(accounts.find, "boss"))
    team.write(accounts.choose, actor=boss, language=None, timezone="Pacific/Apia")
    for page in ("stats", "logs", "what-if"):
        (said,) = errors(visit(page, "boss", range="dates", dates="2011-12-30..2011-12-30"))
        assert "no 2011-12-30 in Pacific/Apia" in said.replace("\\", "")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_a_part_of_a_month_says_which_days(zone: str) -> None:
    periods = stats.periods_between(date(2025, 3, 1), date(2025, 10, 30), "month", ZoneInfo(zone))
    shown = [words.period_label(one, "month") for one in periods]
    assert (shown[0], shown[-2]) == ("March 2025", "September 2025")
    assert re.fullmatch("Oct 1\\W+30, 2025", shown[-1])
    (day,) = stats.periods_between(date(2025, 3, 31), date(2025, 3, 31), "month", ZoneInfo(zone))
    assert words.period_label(day, "month") == "Mar 31, 2025"


def test_names_and_models_are_no_markdown_where_an_entry_is_opened(visit: Visit, team: Database) -> None:
    model = "a`![x](https://example.com/x.png)`b"
    entry = team.write(ledger.charge, "ann", model, Tokens(1, 1), actor=SHELL).entry_id
    app = visit("logs", "boss")
    app.session_state["dialog"], app.session_state["dialog page"] = ("entry", (entry,)), "logs"
    app.run()
    (facts,) = [one.value for one in app.markdown if "**Model**" in one.value]
    assert "![x]" not in facts
    assert "*A*" not in facts


def test_the_file_of_24_hours_holds_24_hours(visit: Visit, team: Database) -> None:
    def link(chosen: str) -> str:
        app = visit("stats", "boss", range=chosen)
        assert not app.exception, app.exception
        return next(found for one in app.get("link_button") if "stats.csv" in (found := one.proto.url))

    assert "first=" not in link("24h")
    assert "first=" in link("7d")


def test_what_goes_wrong_is_said_in_the_viewer_s_language(visit: Visit, team: Database) -> None:
    team.write(accounts.choose, actor=signin.actor_of(team.read(accounts.find, "ann")), language="zh_CN", timezone=None)
    (said,) = errors(visit("stats", "ann", range="dates", dates="2025-02-01..2025-01-01"))
    assert "。" in said


def test_a_new_key_has_a_name_and_is_shown_until_it_is_copied(visit: Visit, team: Database) -> None:
    app = visit("my-account", "ann")
    assert "Give the key a name" in errors(press(app, "Add a key"))[0]
    field(app, "Name of a new key").set_value("notebook")
    secret = press(app, "Add a key").code[0].value
    assert field(app, "Name of a new key").value == ""
    assert app.run().code[0].value == secret
    assert [key.name for key, _whose in team.read(signin.keys, "ann", actor=SHELL)] == ["notebook"]
    assert not press(app, "I have copied it").code


def test_an_admin_s_sum_of_some_entries_is_called_what_it_is(visit: Visit, team: Database) -> None:
    assert "元 total cost" in visit("logs", "boss", type="calls").markdown[0].value
    assert "元 total cost" in visit("logs", "ann", type="calls").markdown[0].value


def test_a_hold_that_has_ended_is_undone_at_the_entry_that_ended_it(visit: Visit, team: Database) -> None:
    app = visit("logs", "boss")
    for entry, can in ((3, False), (4, True)):
        app.session_state["dialog"], app.session_state["dialog page"] = ("entry", (entry,)), "logs"
        app.run()
        assert (f"Reverse entry {entry}" in [one.label for one in app.button]) == can


def test_an_entry_leads_to_those_that_belong_with_it(visit: Visit, team: Database) -> None:
    undone = team.write(ledger.reverse, 4, "wrong", actor=SHELL).entry_id
    for user_id, way in (("boss", [3, 4, undone, 4]), ("ann", [4, undone])):
        app = visit("logs", user_id)
        app.session_state["dialog"], app.session_state["dialog page"] = ("entry", (way[0],)), "logs"
        app.run()
        for number in way[1:]:
            press(app, f"Entry {number}")
            assert app.session_state["dialog"] == ("entry", (number,))


def test_an_entry_that_is_no_line_of_a_member_is_said(visit: Visit, team: Database) -> None:
    app = visit("logs", "ann")
    app.session_state["dialog"], app.session_state["dialog page"] = ("entry", (999,)), "logs"
    assert errors(app.run()) == ["There is no entry 999\\."]
    assert not errors(app.run())


def test_an_admin_s_balance_leads_to_their_own_figures(visit: Visit, team: Database) -> None:
    team.write(ledger.charge, "boss", "m", Tokens(1, 1), actor=SHELL, allow_debt=True)
    for user_id, asked in (("boss", "account=boss"), ("ann", "")):
        app = visit("balance", user_id)
        assert not app.exception, app.exception
        assert [one.proto.query_string for one in app.get("page_link")] == [asked, asked]


def test_the_page_of_an_account_asks_for_one(visit: Visit, team: Database) -> None:
    app = visit("account", "boss")
    assert not errors(app)
    assert [one.value for one in app.info] == ["Choose one of the accounts."]


@pytest.mark.parametrize("path", ["accounts", "audit", "logs"])
@pytest.mark.parametrize("search", ["word " * 1100, "x" * 60_000])
def test_a_search_that_is_too_long_is_said(visit: Visit, visit_db: Database, path: str, search: str) -> None:
    visit_db.write(accounts.add, "root", "Root", actor=SHELL, role="admin")
    app = visit(path, "root", q=search)
    assert not app.exception, app.exception
    assert [one.value for one in app.error] == ["The text is too long\\: at most 500 characters\\."]


def test_a_name_is_no_markdown_at_the_foot(visit: Visit, visit_db: Database) -> None:
    visit_db.write(accounts.add, "root", "*R* :red[owes 5]", actor=SHELL)
    said = [one.value for one in visit("balance", "root").sidebar.caption]
    assert "Signed in as \\*R\\* \\:red\\[owes 5\\]" in said
