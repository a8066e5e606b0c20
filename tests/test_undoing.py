"""Reversing many entries at once: shown first, done once, whatever happens in between."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from conftest import Clock

from billing_core import accounts, ledger, logs, overview, settings, stats, undoing
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import Conflict, Forbidden, Invalid, NotFound
from billing_core.idempotency import Once
from billing_core.logs import Filters
from billing_core.tokens import Tokens
from billing_core.undoing import Preview, Selection

ROOT = Path(__file__).parent.parent
UTC = ZoneInfo("UTC")


@pytest.fixture
def bob(db: Database, ann: str) -> str:
    """Ann and Bob have 100 元 each."""

    def write(tx: Transaction) -> None:
        accounts.add(tx, "bob", "Bob", actor=SHELL)
        for user_id in ("ann", "bob"):
            ledger.recharge(tx, user_id, 1_000_000, actor=SHELL)

    db.write(write)
    return "bob"


def charge(db: Database, user_id: str, times: int = 1) -> list[int]:
    """Calls of 180 毫 each."""

    def write(tx: Transaction) -> list[int]:
        calls = (ledger.charge(tx, user_id, "some/model", Tokens(1000, 0), actor=SHELL) for _ in range(times))
        return [call.entry_id for call in calls]

    return db.write(write)


def preview(db: Database, selection: Selection) -> Preview:
    return db.read(undoing.preview, selection, actor=SHELL)


def start(db: Database, selection: Selection, reason: str = "a mistake") -> int:
    seen = preview(db, selection).seen
    return db.write(undoing.start, selection, reason, actor=SHELL, seen=seen)


def undo(db: Database, selection: Selection) -> undoing.Job:
    return undoing.run(db, start(db, selection), actor=SHELL)


def balance(db: Database, user_id: str) -> int:
    return db.read(accounts.find, user_id).balance


def reversed_ids(db: Database) -> list[int]:
    rows = db.read(logs.page, Filters(types=("reversal",)), actor=SHELL, limit=10_000)
    return sorted(row.reverses_id or 0 for row in rows)


def test_a_selection_is_shown_and_then_reversed_each_entry_once(db: Database, bob: str) -> None:
    calls = charge(db, "ann", 30) + charge(db, "bob", 2)
    shown = preview(db, Filters(types=("deduct",)))
    assert (shown.seen.entries, shown.seen.to_reverse, shown.seen.amount) == (32, 32, 32 * 180)
    assert (shown.types, shown.left_alone, shown.into_debt) == ({"deduct": 32}, {}, [])
    assert shown.accounts == [
        undoing.OnAccount("ann", "Ann", 30, 1_000_000 - 30 * 180, 1_000_000),
        undoing.OnAccount("bob", "Bob", 2, 1_000_000 - 2 * 180, 1_000_000),
    ]
    told: list[tuple[int, int]] = []
    number = db.write(undoing.start, shown.selection, "a wrong price", actor=SHELL, seen=shown.seen)
    job = undoing.run(db, number, actor=SHELL, progress=lambda done, whole: told.append((done, whole)))
    assert (job.entries, job.reversed, job.refused, job.left) == (32, 32, 0, 0)
    assert job.finished_at_ns is not None
    assert told[-1] == (32, 32)
    assert reversed_ids(db) == calls
    rows = db.read(logs.page, Filters(types=("reversal",)), actor=SHELL)
    assert {row.remark for row in rows} == {"a wrong price"}
    assert (balance(db, "ann"), balance(db, "bob")) == (1_000_000, 1_000_000)
    assert not check(db)


def test_a_job_that_is_run_again_reverses_nothing_twice(db: Database, bob: str) -> None:
    charge(db, "ann", 3)
    job = undo(db, Filters("ann", types=("deduct",)))
    assert undoing.run(db, job.id, actor=SHELL) == job
    assert balance(db, "ann") == 1_000_000


def test_a_list_of_numbers_is_a_selection_and_each_counts_once(db: Database, bob: str) -> None:
    first, second, _third = charge(db, "ann", 3)
    undo(db, [second, first, second])
    assert reversed_ids(db) == [first, second]


def test_a_number_that_no_entry_has_spoils_the_list(db: Database, bob: str) -> None:
    for missing in (99, 0, 2**70):
        with pytest.raises(NotFound, match=f"There is no entry {missing}"):
            preview(db, [1, missing])


def test_nothing_selected_and_too_much_selected_are_sentences(db: Database, bob: str, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    with pytest.raises(Invalid, match="No entry is selected"):
        preview(db, Filters(search="nothing like this"))
    monkeypatch.setattr(undoing, "MOST", 1)
    for selection in (Filters(), [1, 2]):
        with pytest.raises(Invalid, match="More than 1 entries are selected"):
            preview(db, selection)


def test_what_came_in_after_the_preview_is_left_alone(db: Database, bob: str) -> None:
    calls = charge(db, "ann", 2)
    shown = preview(db, Filters("ann", types=("deduct",)))
    charge(db, "ann", 5)
    job = db.write(undoing.start, shown.selection, "a mistake", actor=SHELL, seen=shown.seen)
    undoing.run(db, job, actor=SHELL)
    assert reversed_ids(db) == calls


def test_a_selection_that_is_not_what_was_seen_is_refused(db: Database, bob: str) -> None:
    first, _second = charge(db, "ann", 2)
    shown = preview(db, Filters("ann", types=("deduct",)))
    db.write(ledger.reverse, first, "somebody was faster", actor=SHELL)
    with pytest.raises(Conflict, match="has changed since it was shown"):
        db.write(undoing.start, shown.selection, "a mistake", actor=SHELL, seen=shown.seen)
    assert db.read(undoing.jobs, actor=SHELL) == []


def test_a_job_that_is_asked_for_twice_is_made_once(db: Database, bob: str) -> None:
    charge(db, "ann", 2)
    shown = preview(db, Filters("ann", types=("deduct",)))
    once = Once.of(SHELL, "key", "reversals")
    made = [
        db.write(undoing.start, shown.selection, "a mistake", actor=SHELL, seen=shown.seen, once=once) for _ in "12"
    ]
    undoing.run(db, made[0], actor=SHELL)
    made.append(db.write(undoing.start, shown.selection, "a mistake", actor=SHELL, seen=shown.seen, once=once))
    assert len(set(made)) == 1
    assert len(db.read(undoing.jobs, actor=SHELL)) == 1


def test_what_cannot_be_reversed_is_shown_and_noted(db: Database, bob: str, clock: Clock) -> None:
    (call,) = charge(db, "ann")
    db.write(ledger.reverse, call, "before", actor=SHELL)

    def hold(ttl: int = 900) -> int:
        return db.write(ledger.precharge, "ann", "some/model", 1000, 0, actor=SHELL, ttl_seconds=ttl).entry_id

    settled, refunded, expired, still = hold(), hold(), hold(ttl=1), hold()
    db.write(ledger.settle, settled, Tokens(500, 0), actor=SHELL)
    db.write(ledger.refund, refunded, actor=SHELL)
    clock.forward(seconds=2)
    chosen = [call, settled, refunded, expired, still]
    shown = preview(db, chosen)
    assert shown.left_alone == {"reversed": 1, "settle": 1, "refund": 1, "expire": 1}
    assert shown.types == {"precharge": 1}
    assert set(shown.left_alone) <= set(undoing.WHY_NOT)
    job = undo(db, chosen)
    assert (job.reversed, job.refused) == (1, 4)
    said = {one.entry_id: one.error.sentence() for one in db.read(undoing.refusals, job.id, actor=SHELL)}
    assert said[call] == f"Entry {call} has been reversed already."
    assert "settled already" in said[settled]
    assert "refunded already" in said[refunded]
    assert "has expired" in said[expired]
    assert "已" in db.read(undoing.refusals, job.id, actor=SHELL)[0].error.sentence("zh_CN")
    assert not check(db)


def test_a_call_that_was_held_for_is_undone_by_its_settling_entry(db: Database, bob: str) -> None:
    hold = db.write(ledger.precharge, "ann", "some/model", 1000, 0, actor=SHELL).entry_id
    db.write(ledger.settle, hold, Tokens(500, 0), actor=SHELL)
    job = undo(db, Filters("ann", types=("precharge", "settle")))
    assert (job.reversed, job.refused) == (1, 1)
    assert balance(db, "ann") == 1_000_000


def test_undoing_everything_leaves_nothing_whatever_was_undone_before(db: Database, bob: str, clock: Clock) -> None:
    """Of entries that undo one another the last is reversed only where something is left of them."""
    a, b, c = charge(db, "ann", 3)

    def reverse(entry_id: int) -> int:
        return db.write(ledger.reverse, entry_id, "x", actor=SHELL).entry_id

    reverse(a)  # nothing is left
    reverse(reverse(b))  # b counts again
    reverse(reverse(reverse(c)))
    hold = [db.write(ledger.precharge, "ann", "some/model", 1000, 0, actor=SHELL, ttl_seconds=60) for _ in "1234"]
    db.write(ledger.refund, hold[0].entry_id, actor=SHELL)
    reverse(db.write(ledger.refund, hold[1].entry_id, actor=SHELL).entry_id)
    reverse(hold[2].entry_id)
    clock.forward(days=1)
    ledger.note_expired(db)
    shown = preview(db, Filters("ann"))
    assert [one.after for one in shown.accounts] == [0]
    undo(db, Filters("ann"))
    assert balance(db, "ann") == 0
    assert db.read(accounts.find, "ann").total_consumed == 0
    assert not check(db)


def test_who_would_be_in_debt_is_named(db: Database, bob: str) -> None:
    charge(db, "ann", 1)
    shown = preview(db, Filters(types=("recharge",)))
    assert [(one.user_id, one.after) for one in shown.into_debt] == [("ann", -180)]
    undo(db, shown.selection)
    assert (balance(db, "ann"), balance(db, "bob")) == (-180, 0)


def test_a_job_is_undone_by_a_job(db: Database, bob: str) -> None:
    charge(db, "ann", 25)
    before = balance(db, "ann")
    job = undo(db, Filters(types=("deduct",)))
    back = undo(db, db.read(undoing.reversals_of, job.id, actor=SHELL))
    assert (back.reversed, balance(db, "ann")) == (25, before)
    assert db.read(accounts.find, "ann").total_consumed == 25 * 180
    assert not check(db)


def test_an_entry_reversed_by_hand_meanwhile_is_refused_and_the_job_goes_on(db: Database, bob: str) -> None:
    first, second, third = charge(db, "ann", 3)
    job = start(db, [first, second, third])
    db.write(ledger.reverse, second, "by hand", actor=SHELL)
    done = undoing.run(db, job, actor=SHELL)
    assert (done.reversed, done.refused, done.left) == (2, 1, 0)
    (refusal,) = db.read(undoing.refusals, job, actor=SHELL)
    assert (refusal.entry_id, refusal.error.message) == (second, "Entry {entry_id} has been reversed already.")


def test_two_jobs_over_the_same_entries_reverse_each_once(db: Database, bob: str) -> None:
    calls = charge(db, "ann", 5)
    jobs = [start(db, calls), start(db, calls)]
    assert [undoing.run(db, job, actor=SHELL).reversed for job in jobs] == [5, 0]
    assert balance(db, "ann") == 1_000_000


def test_only_an_admin_undoes_and_always_with_a_reason(db: Database, bob: str) -> None:
    charge(db, "ann")
    shown = preview(db, Filters("ann", types=("deduct",)))
    member = Actor(1, "ann", "Ann")
    job = start(db, shown.selection)
    for act in (
        lambda: db.read(undoing.preview, shown.selection, actor=member),
        lambda: db.write(undoing.start, shown.selection, "x", actor=member, seen=shown.seen),
        lambda: undoing.run(db, job, actor=member),
        lambda: db.read(undoing.status, job, actor=member),
        lambda: db.read(undoing.jobs, actor=member),
        lambda: db.read(undoing.unfinished, actor=member),
        lambda: db.read(undoing.refusals, job, actor=member),
        lambda: db.read(undoing.reversals_of, job, actor=member),
    ):
        with pytest.raises(Forbidden):
            act()
    with pytest.raises(Invalid, match="Say why"):
        db.write(undoing.start, shown.selection, "  ", actor=SHELL, seen=shown.seen)


def test_a_job_stands_in_the_audit_log(db: Database, bob: str) -> None:
    charge(db, "ann")
    job = start(db, Filters("ann", types=("deduct",)))
    with db.engine.connect() as connection:
        row = connection.execute(
            sa.text("SELECT action, subject, origin, detail FROM audit ORDER BY id DESC LIMIT 1")
        ).one()
    assert (row.action, row.subject, row.origin) == ("reversals.start", f"job {job}", "shell")
    assert '"amount_hao": 180' in row.detail


def test_unfinished_jobs_are_found_and_unknown_ones_are_not(db: Database, bob: str) -> None:
    calls = charge(db, "ann", 2)
    first, second = start(db, calls[:1]), start(db, calls[1:])
    assert [job.id for job in db.read(undoing.unfinished, actor=SHELL)] == [second, first]
    undoing.run(db, first, actor=SHELL)
    assert [job.id for job in db.read(undoing.unfinished, actor=SHELL)] == [second]
    for number in (99, 0, 2**70):
        with pytest.raises(NotFound, match="There is no job"):
            undoing.run(db, number, actor=SHELL)


def test_two_that_run_one_job_at_once_reverse_each_entry_once(db: Database, bob: str) -> None:
    calls = charge(db, "ann", 60) + charge(db, "bob", 60)
    job = start(db, calls)
    together, done = threading.Barrier(3), list[undoing.Job]()

    def work() -> None:
        together.wait()
        done.append(undoing.run(db, job, actor=SHELL))

    runners = [threading.Thread(target=work) for _ in range(3)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert [(one.reversed, one.left) for one in done] == [(120, 0)] * 3
    assert reversed_ids(db) == calls
    assert not check(db)


RUNNER = """
    import sys
    from billing_core import undoing
    from billing_core.actors import SHELL
    from billing_core.database import Database

    undoing.AT_ONCE = 3
    def tell(done, whole):
        print(done, flush=True)
    undoing.run(Database(sys.argv[1]), int(sys.argv[2]), actor=SHELL, progress=tell)
"""


def test_a_job_that_is_killed_half_way_goes_on_where_it_was(db: Database, bob: str) -> None:
    calls = charge(db, "ann", 150) + charge(db, "bob", 150)
    job = start(db, calls)
    for _ in range(2):
        command = [sys.executable, "-c", textwrap.dedent(RUNNER), db.url, str(job)]
        runner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert runner.stdout is not None
        told = [int(runner.stdout.readline()) for _ in range(10)]
        runner.send_signal(signal.SIGKILL)
        runner.wait()
        cut = db.read(undoing.status, job, actor=SHELL)
        assert told[-1] <= cut.reversed < 300
        assert len(reversed_ids(db)) == cut.reversed
        assert not check(db)
    assert cut.finished_at_ns is None
    done = undoing.run(db, job, actor=SHELL)
    assert (done.reversed, done.left) == (300, 0)
    assert Counter(reversed_ids(db)) == Counter(calls)
    assert (balance(db, "ann"), balance(db, "bob")) == (1_000_000, 1_000_000)
    assert not check(db)


# Where reversals count


def last_three_days(db: Database, user_id: str | None = "ann") -> list[int]:
    def read(tx: Transaction) -> list[int]:
        return stats.spent(tx, stats.last_periods(tx.now_ns, "day", UTC, 3), actor=SHELL, user_id=user_id)

    return db.read(read)


def test_a_setting_says_in_which_period_a_reversal_counts(db: Database, bob: str, clock: Clock) -> None:
    calls = charge(db, "ann", 3)
    clock.forward(days=1)
    undo(db, calls[:2])
    charge(db, "ann")
    clock.forward(days=1)
    assert last_three_days(db) == [180, 180, 0]
    db.write(settings.change, "reversals_count_in", "reversal", actor=SHELL)
    assert last_three_days(db) == [3 * 180, -180, 0]
    assert sum(last_three_days(db)) == db.read(accounts.find, "ann").total_consumed
    db.write(settings.change, "reversals_count_in", "call", actor=SHELL)
    assert last_three_days(db, None) == [180, 180, 0]


@pytest.mark.parametrize("setting", ["call", "reversal"])
def test_the_balance_page_adds_up_whichever_period_counts(db: Database, ann: str, clock: Clock, setting: str) -> None:
    db.write(settings.change, "reversals_count_in", setting, actor=SHELL)
    db.write(ledger.recharge, "ann", 1_000_000, actor=SHELL)
    calls = charge(db, "ann", 3)
    clock.forward(days=1)
    extra = db.write(ledger.recharge, "ann", 500, actor=SHELL).entry_id
    undone = undo(db, [*calls[:2], extra])
    clock.forward(days=1)
    undo(db, db.read(undoing.reversals_of, undone.id, actor=SHELL))

    def read(tx: Transaction) -> tuple[overview.Overview, list[int], overview.Months]:
        shown = overview.one(tx, "ann", actor=SHELL, tz=UTC)
        months = overview.months(tx, "ann", actor=SHELL, tz=UTC)
        return shown, overview.balances(tx, shown, actor=SHELL, tz=UTC), months

    shown, balances, months = db.read(read)
    assert shown.spent == shown.total_consumed == months.this == 3 * 180
    assert shown.balance == 1_000_500 - 3 * 180 == balances[-1]
    assert balances[0] == 0
    assert balances[-3:] == [999_460, 999_820, 999_960]  # each day ends as it did, wherever reversals count


def test_a_moment_that_no_database_can_keep_is_as_far_as_one_can(db: Database, ann: str) -> None:
    db.write(ledger.recharge, "ann", 1000, actor=SHELL)
    assert db.read(undoing.preview, Filters("ann", -(10**20), 10**20), actor=SHELL).seen.entries == 1
