"""Reversing many entries from the page Logs, and the setting on the page Stats."""

import threading
from typing import Any

import pytest
from conftest import Visit
from streamlit.testing.v1 import AppTest

from billing_core import accounts, ledger, settings, undoing
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.logs import Filters
from billing_core.tokens import Tokens
from pages.parts import undoing as part


@pytest.fixture
def db(visit_db: Database) -> Database:
    """Ann and Bob, each recharged and charged: 180 毫 a call."""

    def write(tx: Transaction) -> None:
        accounts.add(tx, "boss", "Boss", actor=SHELL, role="admin")
        for user_id, calls in (("ann", 3), ("bob", 2)):
            accounts.add(tx, user_id, user_id.title(), actor=SHELL)
            ledger.recharge(tx, user_id, 1_000_000, actor=SHELL)
            for _ in range(calls):
                ledger.charge(tx, user_id, "some/model", Tokens(1000, 0), actor=SHELL)

    visit_db.write(write)
    return visit_db


def balance(db: Database, user_id: str) -> int:
    return db.read(accounts.find, user_id).balance


def click(app: AppTest, label: str) -> AppTest:
    return next(one for one in reversed(app.button) if one.label == label).click().run()


def labels(app: AppTest) -> list[str]:
    return [one.label for one in app.button]


def shown(app: AppTest) -> str:
    kinds = (app.markdown, app.caption, app.error, app.info, app.metric)
    return "\n".join(str(getattr(one, "label", "")) + " " + str(one.value) for kind in kinds for one in kind)


def finish(app: AppTest) -> AppTest:
    """Wait for the jobs that run beside the page."""
    for runner in list(part.runners.values()):
        runner.join()
    return app.run()


def test_a_member_reverses_nothing(visit: Visit, db: Database) -> None:
    app = visit("logs", "ann")
    assert not app.exception
    assert not any("everse" in label for label in labels(app))


def test_all_that_the_filters_show_is_reversed_after_it_was_shown(visit: Visit, db: Database) -> None:
    app = visit("logs", "boss", type="deduct", account="ann")
    click(app, "Reverse all 3 entries…")
    assert "**3 × Charge**: +0.054 元 in all." in shown(app)
    assert "99.946 → 100.00" in shown(app)
    app.text_input[-1].set_value("a wrong price")
    finish(click(app, "Reverse 3 entries"))
    assert not app.exception
    assert "3 entries are reversed · a wrong price" in shown(app)
    assert (balance(db, "ann"), balance(db, "bob")) == (1_000_000, 1_000_000 - 360)
    assert not check(db)


def test_every_account_is_shown_from_and_to(visit: Visit, db: Database) -> None:
    app = visit("logs", "boss", type="recharge")
    click(app, "Reverse all 2 entries…")
    frame = next(one.value for one in app.dataframe if "Then, 元" in one.value)
    assert list(frame["Account"]) == ["Ann", "Bob"]
    assert [str(value) for value in frame["Then, 元"]] == ["-0.0540", "-0.0360"]
    assert "2 accounts go into debt" in shown(app)


def test_without_a_reason_nothing_happens(visit: Visit, db: Database) -> None:
    app = visit("logs", "boss", type="deduct")
    click(app, "Reverse all 5 entries…")
    click(app, "Reverse 5 entries")
    assert "Say why" in shown(app)
    assert db.read(undoing.jobs, actor=SHELL) == []


def test_a_selection_that_changed_meanwhile_is_shown_anew(visit: Visit, db: Database) -> None:
    app = visit("logs", "boss", type="deduct", account="ann")
    click(app, "Reverse all 3 entries…")
    db.write(ledger.reverse, 2 + 1, "somebody was faster", actor=SHELL)
    app.text_input[-1].set_value("a wrong price")
    click(app, "Reverse 3 entries")
    assert not app.exception
    assert db.read(undoing.jobs, actor=SHELL) == []
    assert "has changed since it was shown" in shown(app)
    assert "1 × reversed already" in shown(app)
    assert "Reverse 2 entries" in labels(app)


def test_a_job_that_was_cut_short_is_found_again_and_goes_on(visit: Visit, db: Database) -> None:
    selection = Filters(types=("deduct",))
    seen = db.read(undoing.preview, selection, actor=SHELL)
    db.write(undoing.start, selection, "a wrong price", actor=SHELL, seen=seen.seen)
    app = visit("logs", "boss")
    assert "It was cut short" in shown(app)
    finish(click(app, "Go on with the 5 entries left"))
    assert not app.exception
    assert "5 entries are reversed" in shown(app)
    assert (balance(db, "ann"), balance(db, "bob")) == (1_000_000, 1_000_000)
    assert "Go on" not in " ".join(labels(visit("logs", "boss")))


def test_a_job_that_ends_while_the_page_is_drawn_was_not_cut_short(
    visit: Visit, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = visit("logs", "boss", type="deduct", account="ann")
    selection = Filters("ann", types=("deduct",))
    seen = db.read(undoing.preview, selection, actor=SHELL).seen
    job_id = db.write(undoing.start, selection, "wrong", seen=seen, actor=SHELL)
    part.runners[str(db.url), job_id] = threading.Thread()

    def unfinished(tx: Transaction, **options: Any) -> list[undoing.Job]:
        found = unfinished_really(tx, **options)
        if part.runners.pop((str(db.url), job_id), None):
            undoing.run(db, job_id, actor=SHELL)
        return found

    unfinished_really = undoing.unfinished
    monkeypatch.setattr(undoing, "unfinished", unfinished)
    assert "cut short" not in shown(app.run())
    assert "3 entries are reversed · wrong" in shown(app)


def test_a_job_is_undone_by_its_own_button(visit: Visit, db: Database) -> None:
    app = visit("logs", "boss", type="deduct", account="ann")
    click(app, "Reverse all 3 entries…")
    app.text_input[-1].set_value("a wrong price")
    finish(click(app, "Reverse 3 entries"))
    click(app, "Undo this…")
    assert "**3 × Reversal**: -0.054 元 in all." in shown(app)
    app.text_input[-1].set_value("it was right")
    finish(click(app, "Reverse 3 entries"))
    assert balance(db, "ann") == 1_000_000 - 3 * 180
    click(app, "Hide")
    assert "are reversed" not in shown(app)


def test_what_was_left_alone_is_told(visit: Visit, db: Database) -> None:
    db.write(ledger.reverse, 3, "before", actor=SHELL)
    app = visit("logs", "boss", type="deduct", account="ann")
    click(app, "Reverse all 3 entries…")
    app.text_input[-1].set_value("a wrong price")
    finish(click(app, "Reverse 2 entries"))
    assert [one.label for one in app.expander] == ["1 was left as it is"]
    assert "Entry 3 has been reversed already" in shown(app)


def test_an_admin_says_in_which_period_reversals_count_and_everybody_reads_it(visit: Visit, db: Database) -> None:
    assert "is taken off the period in which it was made" in shown(visit("stats", "ann"))
    app = visit("stats", "boss")
    click(app, "Take reversed calls off the period of the reversal")
    assert db.read(settings.read)["reversals_count_in"] == "reversal"
    assert "taken off that of its reversal" in shown(app)
    member = visit("stats", "ann")
    assert "taken off that of its reversal" in shown(member)
    assert "Take reversed calls off the period of the call" not in labels(member)
    click(visit("stats", "boss"), "Take reversed calls off the period of the call")
    assert db.read(settings.read)["reversals_count_in"] == "call"


def test_more_reversed_than_used_in_a_period_is_shown_below_zero(visit: Visit, db: Database) -> None:
    db.write(settings.change, "reversals_count_in", "reversal", actor=SHELL)
    long_ago = db.clock() - 60 * 86_400 * 10**9
    call = {"model": "some/model", "tokens": Tokens(6000, 0), "created_at_ns": long_ago, "actor": SHELL}
    made = db.write(ledger.charge, "ann", **call)
    db.write(ledger.reverse, made.entry_id, "x", actor=SHELL)  # 0.108 元, twice as much as is used today
    app = visit("stats", "ann")
    assert not app.exception
    assert app.metric[0].value == "-0.054"
    for path in ("balance", "logs"):
        assert not visit(path, "ann").exception
    assert not visit("accounts", "boss").exception
