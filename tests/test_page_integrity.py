"""The pages Integrity and Audit log, run as a session runs them."""

import json
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import Visit
from streamlit.testing.v1 import AppTest

from billing_core import accounts, check, ledger, seals, settings, undoing
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.models import Setting
from pages.parts import checking


@pytest.fixture
def db(visit_db: Database) -> Database:
    """Boss, an admin; Ann has 12 元."""
    visit_db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    visit_db.write(accounts.add, "ann", "Ann", actor=SHELL)
    visit_db.write(ledger.recharge, "ann", 120_000, actor=SHELL)
    return visit_db


def figures(app: AppTest) -> dict[str, str]:
    assert not app.exception, app.exception
    return {one.label: one.value for one in app.metric}


def words(app: AppTest) -> str:
    """All that the page says in sentences."""
    assert not app.exception, app.exception
    shown = [*app.markdown, *app.caption, *app.error, *app.success, *app.info, *app.code, *app.toast]
    return "\n".join(one.value.replace("\\", "") for one in shown)


def press(app: AppTest, label: str) -> AppTest:
    return next(one for one in app.button if one.label == label).click().run()


def checked(app: AppTest) -> AppTest:
    press(app, "Check the ledger now")
    while checking.runs:
        time.sleep(0.01)
    return app.run()


def fill(app: AppTest, **values: str) -> AppTest:
    for key, value in values.items():
        app.text_input(key=key.replace("_", "-")).set_value(value)
    return app


def backed_up(db: Database, **told: Any) -> None:
    row = {"file": "/backups/b.gz", "entries": 1, "seal_number": 1, "seal_hash": "ab", "error": None} | told
    db.write(lambda tx: tx.session.add(Setting(name="_last_backup", value=json.dumps(row))))


def test_a_member_gets_neither_page(visit: Visit, db: Database) -> None:
    for path in ("integrity", "audit"):
        assert [one.value for one in visit(path, "ann").title] == ["Balance"]


def test_what_was_never_done_is_said(visit: Visit, db: Database) -> None:
    app = visit("integrity", "boss")
    assert figures(app) == {"Last check": "Never", "Newest seal": "None yet", "Last backup": "Never"}
    assert "1 entry not sealed yet." in words(app)
    assert ":red" not in words(app)


def test_the_check_is_run_from_the_page(visit: Visit, db: Database) -> None:
    app = checked(visit("integrity", "boss"))
    assert "ago" in figures(app)["Last check"]
    assert "1 entry: everything adds up." in words(app)
    last = db.read(check.last)
    assert last is not None
    assert last.broken == ()


def test_a_check_goes_on_when_the_page_is_left_and_is_found_again(
    visit: Visit, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, go_on, asked = check.check, threading.Event(), []

    def slow(db: Database, progress: Any) -> Any:
        asked.append(1)
        progress(1, 4)
        go_on.wait(30)
        return straight(db)

    monkeypatch.setattr(check, "check", slow)
    monkeypatch.setattr(checking, "SHORT_SECONDS", 0)
    try:
        press(visit("integrity", "boss"), "Check the ledger now")
        again = visit("integrity", "boss")  # another tab, or the same one later
        assert "You may leave this page" in words(again)
        assert "Check the ledger now" not in [one.label for one in again.button]
        assert "Never" in figures(again)["Last check"]
        go_on.set()
        while checking.runs:
            time.sleep(0.01)
        assert "Everything adds up." in words(again.run())
        assert "ago" in figures(again)["Last check"]
        assert "Check the ledger now" in [one.label for one in again.button]
        assert asked == [1]
    finally:
        go_on.set()


def test_a_check_that_cannot_begin_leaves_the_button(
    visit: Visit, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as within:
        within.setattr(threading.Thread, "start", broken)
        with pytest.raises(RuntimeError):
            checking._start(db)
    assert "Check the ledger now" in [one.label for one in visit("integrity", "boss").button]


def test_a_check_that_fails_says_so(visit: Visit, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(check, "check", broken)
    monkeypatch.setattr(checking, "SHORT_SECONDS", 30)
    assert "The check stopped before its end." in words(press(visit("integrity", "boss"), "Check the ledger now"))


def test_a_check_that_found_something_is_red_and_names_the_first_row_of_each_rule(visit: Visit, db: Database) -> None:
    with db.writer.connect() as connection:
        connection.execute(sa.text("UPDATE account SET balance = 7, total_consumed = 3 WHERE user_id = 'ann'"))
        connection.commit()
    app = checked(visit("integrity", "boss"))
    assert ":red[" in words(app)
    assert "The balance of ann" in words(app)
    assert "What ann has consumed" in words(app)
    assert "ann 的余额" in words(visit("integrity", "boss", lang="zh_CN"))


def test_everything_is_sealed_and_the_seal_can_be_copied(visit: Visit, db: Database) -> None:
    app = press(visit("integrity", "boss"), "Seal every entry now")
    seal = db.read(seals.newest)
    assert seal is not None
    assert f"1 {seal.hash}" in [one.value for one in app.code]
    assert "Number 1, up to entry 1." in words(app)
    assert "not sealed yet" not in words(app)


def test_a_kept_seal_is_compared(visit: Visit, db: Database) -> None:
    seals.close(db, everything=True)
    seal = db.read(seals.newest)
    assert seal is not None
    app = fill(visit("integrity", "boss"), seal_number="1", seal_hash=f" {seal.hash.upper()}\n")
    assert "Seal 1 is still the same" in words(press(app, "Compare with the database"))
    app = fill(visit("integrity", "boss"), seal_number="1", seal_hash="0" * 64)
    assert "entries up to it were changed" in words(press(app, "Compare with the database"))
    app = fill(visit("integrity", "boss"), seal_number="2", seal_hash=seal.hash)
    assert "has no seal 2" in words(press(app, "Compare with the database"))


def test_what_is_no_seal_is_told_beside_its_field(visit: Visit, db: Database) -> None:
    app = fill(visit("integrity", "boss"), seal_number="one", seal_hash="0" * 64)
    assert "whole number from 1 on" in words(press(app, "Compare with the database"))
    app = fill(visit("integrity", "boss"), seal_number="1", seal_hash="abc")
    assert "64 characters" in words(press(app, "Compare with the database"))


def test_the_last_backup_stands_there_with_its_seal(visit: Visit, db: Database) -> None:
    backed_up(db, at_ns=db.clock() - 3 * 3600 * 10**9)
    app = visit("integrity", "boss")
    assert figures(app)["Last backup"] == "3 hours ago"
    assert "/backups/b.gz" in words(app)
    assert ":red" not in words(app)


def test_a_backup_that_failed_or_is_overdue_is_red(visit: Visit, db: Database) -> None:
    db.write(settings.change, "backup_every_hours", "1", actor=SHELL)
    backed_up(db, at_ns=db.clock() - 3 * 3600 * 10**9)
    assert "It is overdue" in words(visit("integrity", "boss"))
    with db.writer.connect() as connection:
        connection.execute(sa.text("DELETE FROM setting WHERE name = '_last_backup'"))
        connection.commit()
    backed_up(db, at_ns=db.clock(), error="No space left on device")
    assert "It failed: No space left on device" in words(visit("integrity", "boss"))


def test_scheduled_backups_are_set_on_the_page(visit: Visit, db: Database) -> None:
    app = press(fill(visit("integrity", "boss"), every="24", keep="14", folder="/backups"), "Save")
    assert "Saved." in words(app)
    known = db.read(settings.read)
    assert [known[f"backup_{name}"] for name in ("every_hours", "keep", "folder")] == ["24", "14", "/backups"]
    app = press(fill(visit("integrity", "boss"), every="daily", keep="3"), "Save")
    assert "backup_every_hours is a whole number" in words(app)
    assert db.read(settings.read)["backup_keep"] == "14"


def test_reversals_that_are_not_finished_are_pointed_out(visit: Visit, db: Database) -> None:
    seen = db.read(undoing.preview, [1], actor=SHELL)
    db.write(undoing.start, seen.selection, "a mistake", actor=SHELL, seen=seen.seen)
    assert "1 job is not finished." in words(visit("integrity", "boss"))


def test_a_statement_is_verified_there(visit: Visit, db: Database) -> None:
    app = visit("integrity", "boss")
    assert "A statement that somebody has" in [one.value for one in app.subheader]
    assert len(app.get("file_uploader")) == 1


# The audit log


def table(app: AppTest) -> list[list[str]]:
    assert not app.exception, app.exception
    return [list(row) for row in app.dataframe[0].value.to_numpy()]


def test_the_audit_log_says_what_was_done_newest_first(visit: Visit, db: Database) -> None:
    db.write(settings.change, "usd_rate", "7.3", actor=SHELL)
    rows = table(visit("audit", "boss"))
    assert [row[1:] for row in rows] == [
        ["The shell changed the setting usd_rate: 7.2 → 7.3", "shell"],
        ["The shell added the account ann (Ann, Member)", "shell"],
        ["The shell added the account boss (Boss, Admin)", "shell"],
    ]


def test_the_audit_log_is_filtered_and_paged_by_its_address(visit: Visit, db: Database) -> None:
    for n in range(60):
        db.write(settings.change, "backup_keep", str(100 + n), actor=SHELL)
    assert len(table(visit("audit", "boss"))) == 50
    assert len(table(visit("audit", "boss", kind="account"))) == 2
    assert [row[1] for row in table(visit("audit", "boss", q="boss"))] == [
        "The shell added the account boss (Boss, Admin)"
    ]
    older = press(visit("audit", "boss"), "Older")
    assert len(table(older)) == 12
    assert "before" in older.query_params
    assert "Nothing like that" in words(visit("audit", "boss", kind="key"))


def test_what_people_wrote_is_no_markdown_in_an_opened_line(visit: Visit, db: Database) -> None:
    db.write(accounts.change, "ann", actor=SHELL, name="**[x](http://y)**")
    app = visit("audit", "boss")
    app.session_state["dialog"] = ("audit", (3,))
    app.session_state["dialog page"] = "audit"
    app.run()
    assert any(r"\*\*\[x\]\(http\:" in one.value for one in app.markdown)
