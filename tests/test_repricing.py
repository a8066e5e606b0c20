"""Charging many entries again at the price that counts now: shown first, done once each, one line for members."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from conftest import Clock
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sums_reference import kept

from billing_core import accounts, export, ledger, logs, overview, pricing, repricing, settings, stats, undoing
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import BillingError, Conflict, Forbidden, Invalid, NotFound
from billing_core.idempotency import Once
from billing_core.logs import Filters
from billing_core.models import BOTH, ENTRIES
from billing_core.rates import More
from billing_core.repricing import Back, Preview, Selection
from billing_core.sums import LONG, QUARTER_NS
from billing_core.tokens import Extras, Tokens

ROOT = Path(__file__).parent.parent
UTC = ZoneInfo("UTC")
CALLS = Filters(types=("deduct", "settle"))
MODEL = "some/model"
PRICE = 10**6
"""1 元 per million tokens."""


@pytest.fixture
def bob(db: Database, ann: str) -> str:
    """Ann and Bob have 100 元 each; 1,000 tokens of MODEL cost 100 毫, at a price that is wrong."""

    def write(tx: Transaction) -> None:
        accounts.add(tx, "bob", "Bob", actor=SHELL)
        for user_id in ("ann", "bob"):
            ledger.recharge(tx, user_id, 1_000_000, actor=SHELL)
        pricing.set_price(tx, MODEL, 10 * PRICE, 10 * PRICE, actor=SHELL)

    db.write(write)
    return "bob"


def charge(db: Database, user_id: str = "ann", times: int = 1, **what: Any) -> list[int]:
    def write(tx: Transaction) -> list[int]:
        tokens, model = what.pop("tokens", Tokens(1000, 0)), what.pop("model", MODEL)
        calls = (ledger.charge(tx, user_id, model, tokens, actor=SHELL, **what) for _ in range(times))
        return [call.entry_id for call in calls]

    return db.write(write)


def cost_now(db: Database, yuan: int, model: str = MODEL, **more: Any) -> None:
    """Correct a model's price, in 元 per million tokens: 1,000 tokens cost ten times as many 毫."""
    db.write(pricing.set_price, model, yuan * PRICE, yuan * PRICE, actor=SHELL, **more)


def preview(db: Database, selection: Selection = CALLS) -> Preview:
    return db.read(repricing.preview, selection, actor=SHELL)


def start(db: Database, selection: Selection = CALLS, reason: str = "a wrong price") -> int:
    return db.write(repricing.start, selection, reason, actor=SHELL, seen=preview(db, selection).seen)


def reprice(db: Database, selection: Selection = CALLS, reason: str = "a wrong price") -> undoing.Job:
    return undoing.run(db, start(db, selection, reason), actor=SHELL)


def account(db: Database, user_id: str = "ann") -> tuple[int, int]:
    """Balance and consumption."""
    found = db.read(accounts.find, user_id)
    return found.balance, found.total_consumed


def member(db: Database, user_id: str = "ann") -> Actor:
    return Actor(db.read(accounts.find, user_id).id, user_id, user_id.title())


def read(db: Database, filters: Filters = Filters(), actor: Actor = SHELL, **options: Any) -> list[logs.Row]:
    return db.read(logs.page, filters, actor=actor, **{"limit": 1000, **options})


def entry(db: Database, number: int) -> Any:
    return db.read(lambda tx: tx.connection().execute(sa.select(ENTRIES).where(ENTRIES.c.id == number)).one())


def repriced(db: Database) -> list[int]:
    """The entries that a charge stands for."""
    query = sa.select(ENTRIES.c.reprices_id).where(ENTRIES.c.reprices_id.is_not(None)).order_by(ENTRIES.c.reprices_id)
    return db.read(lambda tx: [int(number) for number in tx.connection().scalars(query)])


def used(db: Database) -> dict[str, Any]:
    """What the stats say of each day, by model, whichever period reversals count in."""
    found = {}
    for setting in ("call", "reversal"):
        db.write(settings.change, "reversals_count_in", setting, actor=SHELL)

        def sums(tx: Transaction) -> Any:
            days = stats.last_periods(tx.now_ns, "day", UTC, 3)
            return {
                (one.period, one.name): (one.cost, one.calls, one.prompt_tokens, one.completion_tokens)
                for one in stats.usage(tx, days, actor=SHELL, user_id=None)
                if one.cost or one.calls
            }

        found[setting] = db.read(sums)
    return found


# What is shown, and what is done


def test_a_selection_is_shown_and_then_charged_again_at_the_price_that_counts_now(db: Database, bob: str) -> None:
    calls = charge(db, "ann", 30) + charge(db, "bob", 2)
    cost_now(db, 4)
    shown = preview(db)
    assert (shown.seen.entries, shown.seen.to_reprice, shown.seen.amount) == (32, 32, 32 * 60)
    assert (shown.old, shown.new, shown.left_alone, shown.into_debt) == (3200, 1280, {}, [])
    (on,) = shown.models
    assert (on.model, on.entries, on.old, on.new, on.amount) == (MODEL, 32, 3200, 1280, 1920)
    assert (on.before.input, on.after.input) == (10 * PRICE, 4 * PRICE)
    assert [(one.user_id, one.entries, one.old, one.new, one.before, one.after) for one in shown.accounts] == [
        ("ann", 30, 3000, 1200, 997_000, 998_800), ("bob", 2, 200, 80, 999_800, 999_920),
    ]  # fmt: skip
    told: list[tuple[int, int]] = []
    number = db.write(repricing.start, shown.selection, "a wrong price", actor=SHELL, seen=shown.seen)
    job = undoing.run(db, number, actor=SHELL, progress=lambda done, whole: told.append((done, whole)))
    assert (job.entries, job.reversed, job.refused, job.left, job.reprices) == (32, 32, 0, 0, True)
    assert told[-1] == (32, 32)
    assert repriced(db) == calls
    assert (account(db, "ann"), account(db, "bob")) == ((998_800, 1200), (999_920, 80))
    assert not check(db)


def test_the_new_charge_is_of_the_same_call(db: Database, bob: str, clock: Clock) -> None:
    extras = Extras(
        cache_creation_1h=40, image_input=7, tools=(("web_search", 3),), service_tier="batch", stated_total=9,
        cut=("cached",), upstream_usd=Decimal("0.012"),
    )  # fmt: skip
    tokens = Tokens(1000, 200, 300, 100, 50, extras)
    (old,) = charge(db, tokens=tokens, created_at_ns=clock() - 5 * 10**9)
    before = entry(db, old)
    more = More(call=2 * PRICE, cache_write_1h=30 * PRICE, tools=(("web_search", PRICE),))
    cost_now(db, 20, more=more)
    clock.forward(days=1)
    reprice(db, [old])
    new, reversal = read(db, limit=2)
    assert (reversal.reverses_id, reversal.amount, reversal.remark) == (old, before.cost, "a wrong price")
    assert (new.type, new.reprices_id, new.remark, new.operator_id) == ("deduct", old, "a wrong price", "shell")
    after = entry(db, new.id)
    same = (
        "account_id", "model_id", "prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens",
        "reasoning_tokens", "extras", "upstream_usd", "upstream_yuan", "created_at_ns",
    )  # fmt: skip
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert after.recorded_at_ns == clock()
    assert after.cost == db.read(pricing.in_force, MODEL).cost(tokens) != before.cost
    assert not check(db)


def test_a_settled_call_is_charged_again_as_a_whole(db: Database, bob: str) -> None:
    hold = db.write(ledger.precharge, "ann", MODEL, 1000, 0, actor=SHELL).entry_id
    db.write(ledger.settle, hold, Tokens(500, 0), actor=SHELL)
    cost_now(db, 20)
    shown = preview(db, Filters("ann"))
    assert (shown.seen.to_reprice, shown.left_alone) == (1, {repricing.NO_CALL: 2})
    assert reprice(db, Filters("ann")).reversed == 1
    assert account(db) == (999_900, 100)
    assert not check(db)


def test_what_costs_the_same_is_left_alone_and_counted(db: Database, bob: str) -> None:
    charge(db)
    charge(db, model="other/model")
    (undone,) = charge(db)
    db.write(ledger.reverse, undone, "before", actor=SHELL)
    cost_now(db, 4)
    shown = preview(db)
    assert (shown.seen.to_reprice, shown.left_alone) == (1, {repricing.THE_SAME: 1, repricing.REVERSED: 1})
    assert set(shown.left_alone) <= set(repricing.WHY_NOT)
    job = reprice(db)
    assert (job.reversed, job.refused) == (1, 2)
    said = " ".join(one.error.sentence() for one in db.read(undoing.refusals, job.id, actor=SHELL))
    assert "costs the same at the price that counts now" in said
    assert "has been reversed already" in said
    cost_now(db, 4)
    with pytest.raises(Conflict, match="None of the selected entries would cost anything else"):
        reprice(db)


def test_entries_of_several_prices_and_models_are_shown_apart(db: Database, bob: str) -> None:
    charge(db, times=2)
    cost_now(db, 20)
    charge(db)
    charge(db, model="other/model")
    cost_now(db, 5)
    cost_now(db, 1, "other/model")
    shown = [
        (one.model, one.before.input // PRICE, one.after.input // PRICE, one.entries, one.amount)
        for one in preview(db).models
    ]
    assert shown == [("other/model", 18, 1, 1, 170), (MODEL, 10, 5, 2, 100), (MODEL, 20, 5, 1, 150)]


def test_a_built_in_price_and_one_by_a_rule_count_as_well(db: Database, bob: str) -> None:
    charge(db, model="openai/gpt-4o")
    db.write(pricing.change_settings, {"usd_rate": "14"}, actor=SHELL)
    assert reprice(db).reversed == 1
    assert not check(db)


def test_it_may_go_into_debt_and_on_a_frozen_account(db: Database, bob: str) -> None:
    charge(db)
    db.write(ledger.recharge, "ann", -999_900, actor=SHELL)
    db.write(accounts.change, "ann", actor=SHELL, status="frozen")
    cost_now(db, 20)
    assert [(one.user_id, one.after) for one in preview(db).into_debt] == [("ann", -100)]
    reprice(db)
    assert account(db) == (-100, 200)
    assert not check(db)


def test_a_debt_as_deep_as_a_ledger_goes_is_repriced(db: Database, bob: str) -> None:
    (call,) = charge(db)
    cost_now(db, 5)
    price = db.read(pricing.in_force, MODEL).price_id
    db.write(lambda tx: tx.connection().execute(sa.text(f"UPDATE account SET balance = {5 - 9 * 10**18}")))
    done = db.write(ledger.reprice, call, price, "a wrong price", actor=SHELL)
    assert (done.amount, done.balance) == (50, 55 - 9 * 10**18)


def test_a_price_that_changes_after_the_start_changes_nothing_of_the_job(db: Database, bob: str) -> None:
    charge(db)
    cost_now(db, 4)
    job = start(db)
    cost_now(db, 50)
    undoing.run(db, job, actor=SHELL)
    assert account(db) == (999_960, 40)


def test_a_price_that_changes_after_the_preview_is_refused(db: Database, bob: str) -> None:
    charge(db, times=2)
    charge(db, "ann", 2, model="other/model")
    cost_now(db, 4)
    cost_now(db, 8, "other/model")
    shown = preview(db)
    cost_now(db, 8)
    cost_now(db, 4, "other/model")  # the same sum
    assert preview(db).seen.amount == shown.seen.amount
    with pytest.raises(Conflict, match="The selection or a price has changed"):
        db.write(repricing.start, shown.selection, "x", actor=SHELL, seen=shown.seen)
    assert db.read(undoing.jobs, actor=SHELL) == []


def test_what_came_in_after_the_preview_is_left_alone(db: Database, bob: str) -> None:
    calls = charge(db, times=2)
    cost_now(db, 4)
    shown = preview(db)
    cost_now(db, 9)
    charge(db)
    cost_now(db, 4)
    undoing.run(db, db.write(repricing.start, CALLS, "x", actor=SHELL, seen=shown.seen), actor=SHELL)
    assert repriced(db) == calls


def test_a_job_that_is_asked_for_twice_is_made_once(db: Database, bob: str) -> None:
    charge(db)
    cost_now(db, 4)
    shown, once = preview(db), Once.of(SHELL, "key", "repricings")
    made = {db.write(repricing.start, CALLS, "x", actor=SHELL, seen=shown.seen, once=once) for _ in "12"}
    assert len(made) == len(db.read(undoing.jobs, actor=SHELL)) == 1


def test_one_entry_repriced_twice_with_one_key_happens_once(db: Database, bob: str) -> None:
    (call,) = charge(db)
    cost_now(db, 4)
    price, once = db.read(pricing.in_force, MODEL).price_id or 0, Once.of(SHELL, "key", "reprice")
    first, again = (db.write(ledger.reprice, call, price, "x", actor=SHELL, once=once) for _ in "12")
    assert (first.amount, first.cost, first.balance) == (60, -60, 999_960)
    assert (again.entry_id, again.other_ids, again.amount, again.balance) == (
        first.entry_id,
        first.other_ids,
        60,
        999_960,
    )


def test_the_ledger_takes_only_a_price_of_the_calls_model(db: Database, bob: str) -> None:
    (call,) = charge(db)
    cost_now(db, 4, "other/model")
    other = db.read(pricing.in_force, "other/model").price_id or 0
    db.write(pricing.retire, MODEL, actor=SHELL)
    retired = db.read(lambda tx: tx.connection().scalar(sa.text("SELECT max(id) FROM price")))
    for price in (other, retired, 0, 99, 2**70):
        with pytest.raises(Invalid, match="is not one of the model of entry"):
            db.write(ledger.reprice, call, price, "x", actor=SHELL)


def test_where_somebody_was_faster_it_says_so_and_the_job_goes_on(db: Database, bob: str) -> None:
    first, second, third = charge(db, times=3)
    cost_now(db, 4)
    job = start(db)
    db.write(ledger.reverse, second, "by hand", actor=SHELL)
    done = undoing.run(db, job, actor=SHELL)
    assert (done.reversed, done.refused, done.left) == (2, 1, 0)
    (refusal,) = db.read(undoing.refusals, job, actor=SHELL)
    assert refusal.error.sentence() == f"Entry {second} has been reversed already."
    assert repriced(db) == [first, third]


def test_two_jobs_over_the_same_entries_reprice_each_once(db: Database, bob: str) -> None:
    charge(db, times=5)
    cost_now(db, 4)
    jobs = [start(db), start(db)]
    assert [undoing.run(db, job, actor=SHELL).reversed for job in jobs] == [5, 0]
    assert account(db) == (999_800, 200)


def test_a_repriced_call_is_repriced_or_reversed_like_any_other(db: Database, bob: str) -> None:
    charge(db, times=2)
    for yuan in (4, 7):
        cost_now(db, yuan)
        assert reprice(db).reversed == 2
        assert account(db) == (1_000_000 - 20 * yuan, 20 * yuan)
    seen = db.read(undoing.preview, CALLS, actor=SHELL)
    assert (seen.seen.to_reverse, seen.left_alone) == (2, {"reversed": 4})
    undoing.run(db, db.write(undoing.start, CALLS, "x", actor=SHELL, seen=seen.seen), actor=SHELL)
    assert account(db) == (1_000_000, 0)
    assert not check(db)


def test_a_repricing_is_taken_back_by_another(db: Database, bob: str) -> None:
    charge(db, times=2)
    cost_now(db, 20)
    charge(db)
    before = account(db)
    cost_now(db, 4)
    job = reprice(db)
    back = reprice(db, Back(job.id), "the prices were right")
    assert (back.reversed, back.reprices, account(db)) == (3, True, before)
    again = reprice(db, Back(back.id))
    assert (again.reversed, account(db)) == (3, (1_000_000 - 120, 120))
    assert preview(db, Back(job.id)).left_alone == {"reversed": 3}
    assert not check(db)


def test_a_call_that_would_cost_more_than_there_can_be_is_left_alone(db: Database, bob: str) -> None:
    charge(db)
    charge(db, tokens=Tokens(10**9, 0, extras=Extras(service_tier="fast")), allow_debt=True)
    cost_now(db, 1_000_000, more=More(service_tiers=(("fast", 1000 * 10**6),)))
    shown = preview(db)
    assert (shown.seen.to_reprice, shown.left_alone) == (1, {"too_much": 1})
    assert reprice(db).refused == 1
    assert not check(db)


def test_what_would_be_taken_back_is_shown_price_by_price(db: Database, bob: str) -> None:
    """Calls that cost the same now, and go back to what each cost before."""
    for yuan in (10, 15):
        cost_now(db, yuan)
        charge(db)
    cost_now(db, 20)
    shown = preview(db, Back(reprice(db).id))
    assert [(one.entries, one.old, one.new, one.before.input, one.after.input) for one in shown.models] == [
        (1, 200, 100, 20 * PRICE, 10 * PRICE), (1, 200, 150, 20 * PRICE, 15 * PRICE),
    ]  # fmt: skip


def test_only_a_repricing_is_taken_back_so_and_a_reversal_by_reversing(db: Database, bob: str) -> None:
    (call, other) = charge(db, times=2)
    cost_now(db, 4)
    repricing_job = reprice(db, [call]).id
    seen = db.read(undoing.preview, [other], actor=SHELL).seen
    reversal_job = db.write(undoing.start, [other], "x", actor=SHELL, seen=seen)
    with pytest.raises(Conflict, match="is a repricing"):
        db.read(undoing.reversals_of, repricing_job, actor=SHELL)
    with pytest.raises(Conflict, match="is no repricing"):
        preview(db, Back(reversal_job))
    with pytest.raises(NotFound, match="There is no job 99"):
        preview(db, Back(99))


def test_half_of_a_repricing_cannot_be_undone(db: Database, bob: str) -> None:
    """Or the call would be charged twice."""
    (call,) = charge(db)
    cost_now(db, 4)
    reprice(db)
    new, reversal = read(db, limit=2)
    with pytest.raises(Conflict, match=f"charge {new.id} stands in the place of what it undid"):
        db.write(ledger.reverse, reversal.id, "x", actor=SHELL)
    seen = db.read(undoing.preview, Filters("ann"), actor=SHELL)
    assert seen.left_alone == {"reversed": 1, "repriced": 1}
    assert [one.after for one in seen.accounts] == [0]
    undoing.run(db, db.write(undoing.start, Filters("ann"), "x", actor=SHELL, seen=seen.seen), actor=SHELL)
    assert account(db) == (0, 0)
    assert call in repriced(db)
    assert not check(db)


def test_others_may_write_between_the_two_halves_of_a_repricing(db: Database, bob: str) -> None:
    """As they do on Postgres, where accounts never wait for each other."""
    (call,) = charge(db)
    halves: tuple[dict[str, Any], ...] = (
        {"user_id": "ann", "type": "reversal", "reverses_id": call},
        {"user_id": "bob", "type": "recharge"},
        {"user_id": "ann", "type": "deduct", "reprices_id": call},
    )

    def write(tx: Transaction) -> int:
        for columns in halves:
            account_id = accounts.find(tx, columns.pop("user_id")).id
            row = {"account_id": account_id, "amount": 0, "balance_after": 0, "cost": 0, "created_at_ns": tx.now_ns}
            tx.connection().execute(sa.insert(ENTRIES).values(**row, **columns))
        return int(tx.connection().execute(sa.select(ENTRIES.c.id).where(ENTRIES.c.reverses_id == call)).scalar_one())

    reversal = db.write(write)
    with pytest.raises(Conflict, match=f"charge {call + 3} stands in the place"):
        db.write(ledger.reverse, reversal, "x", actor=SHELL)
    assert db.read(undoing.preview, [reversal], actor=SHELL).left_alone == {"repriced": 1}


def test_nothing_selected_and_unknown_entries_are_sentences(db: Database, bob: str) -> None:
    with pytest.raises(Invalid, match="No entry is selected"):
        preview(db, Filters(search="nothing like this"))
    with pytest.raises(NotFound, match="There is no entry 99"):
        preview(db, [99])


def test_only_an_admin_reprices_and_always_with_a_reason(db: Database, bob: str) -> None:
    (call,) = charge(db)
    cost_now(db, 4)
    shown, ann = preview(db), member(db)
    for act in (
        lambda: db.read(repricing.preview, CALLS, actor=ann),
        lambda: db.write(repricing.start, CALLS, "x", actor=ann, seen=shown.seen),
        lambda: db.write(ledger.reprice, call, 1, "x", actor=ann),
    ):
        with pytest.raises(Forbidden):
            act()
    with pytest.raises(Invalid, match="Say why"):
        db.write(repricing.start, CALLS, "  ", actor=SHELL, seen=shown.seen)
    with pytest.raises(Invalid, match="Say why"):
        db.write(ledger.reprice, call, 1, "  ", actor=SHELL)


def test_a_job_stands_in_the_audit_log(db: Database, bob: str) -> None:
    charge(db)
    cost_now(db, 4)
    job = start(db)
    row = db.read(lambda tx: tx.connection().execute(sa.text("SELECT * FROM audit ORDER BY id DESC LIMIT 1")).one())
    assert (row.action, row.subject) == ("repricings.start", f"job {job}")
    assert '"amount_hao": 60' in row.detail


# Once, whatever happens


def test_two_that_run_one_job_at_once_reprice_each_entry_once(db: Database, bob: str) -> None:
    calls = charge(db, "ann", 40) + charge(db, "bob", 40)
    cost_now(db, 4)
    job = start(db)
    together, done = threading.Barrier(3), list[undoing.Job]()

    def work() -> None:
        together.wait()
        done.append(undoing.run(db, job, actor=SHELL))

    runners = [threading.Thread(target=work) for _ in range(3)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert [(one.reversed, one.left) for one in done] == [(80, 0)] * 3
    assert repriced(db) == calls
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
    calls = charge(db, "ann", 100) + charge(db, "bob", 100)
    cost_now(db, 4)
    job = start(db)
    for _ in range(2):
        command = [sys.executable, "-c", textwrap.dedent(RUNNER), db.url, str(job)]
        runner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert runner.stdout is not None
        told = [int(runner.stdout.readline()) for _ in range(8)]
        runner.send_signal(signal.SIGKILL)
        runner.wait()
        cut = db.read(undoing.status, job, actor=SHELL)
        assert told[-1] <= cut.reversed < 200
        assert len(repriced(db)) == cut.reversed
        assert not check(db)
    done = undoing.run(db, job, actor=SHELL)
    assert (done.reversed, done.left) == (200, 0)
    assert Counter(repriced(db)) == Counter(calls)
    assert (account(db, "ann"), account(db, "bob")) == ((996_000, 4000), (996_000, 4000))
    assert not check(db)


# Stats


def test_the_stats_count_the_right_cost_in_the_calls_period_or_the_difference_now(
    db: Database, bob: str, clock: Clock
) -> None:
    charge(db, times=3)
    clock.forward(days=1)
    charge(db)
    before = used(db)
    assert before["call"] == before["reversal"] == {(1, MODEL): (300, 3, 3000, 0), (2, MODEL): (100, 1, 1000, 0)}
    clock.forward(days=1)
    cost_now(db, 4)
    reprice(db)
    after = used(db)
    assert after["call"] == {(0, MODEL): (120, 3, 3000, 0), (1, MODEL): (40, 1, 1000, 0)}
    assert after["reversal"] == {
        (0, MODEL): (300, 3, 3000, 0),
        (1, MODEL): (100, 1, 1000, 0),
        (2, MODEL): (-240, 0, 0, 0),
    }
    assert not check(db)


def test_the_sums_that_a_repricing_leaves_are_those_of_the_right_price(db: Database, bob: str) -> None:
    """But for the kinds that keep what was undone: each with its counterpart."""
    charge(db, times=3)
    charge(db, model="openai/gpt-4o", tokens=Tokens(1000, 20))

    def sums() -> dict[Any, tuple[int, ...]]:
        found: dict[Any, tuple[int, ...]] = {}
        for (of, length, _period, account, model, kind), numbers in kept(db).items():
            if kind < 2 and of == BOTH and length == LONG:
                found[account, model] = tuple(
                    map(sum, zip(numbers, found.get((account, model), (0,) * len(numbers)), strict=True))
                )
        return found

    right = sums()
    cost_now(db, 4)
    cost_now(db, 3, "openai/gpt-4o")
    reprice(db)
    assert sums() != right
    cost_now(db, 10)
    db.write(pricing.retire, "openai/gpt-4o", actor=SHELL)
    reprice(db)
    assert sums() == right
    assert not check(db)


@pytest.mark.parametrize("setting", ["call", "reversal"])
def test_the_balance_page_adds_up(db: Database, bob: str, clock: Clock, setting: str) -> None:
    db.write(settings.change, "reversals_count_in", setting, actor=SHELL)
    charge(db, times=3)
    clock.forward(days=1)
    cost_now(db, 4)
    reprice(db)

    def read(tx: Transaction) -> tuple[overview.Overview, list[int]]:
        shown = overview.one(tx, "ann", actor=SHELL, tz=UTC)
        return shown, overview.balances(tx, shown, actor=SHELL, tz=UTC)

    shown, balances = db.read(read)
    assert shown.spent == shown.total_consumed == 120
    assert balances[-2:] == [999_700, 999_880]  # as it was, wherever reversals count


def test_a_charge_that_stands_for_no_reversed_call_is_found(db: Database, bob: str) -> None:
    (call,) = charge(db)
    cost_now(db, 4)
    reprice(db)
    new = read(db, limit=1)[0].id

    def spoil(tx: Transaction) -> None:
        change = "UPDATE entry SET reprices_id = :to WHERE id = :id"
        if tx.is_sqlite:
            tx.connection().execute(sa.text("DROP TRIGGER entry_no_update"))
        else:
            tx.connection().execute(sa.text("ALTER TABLE entry DISABLE TRIGGER entry_never_changes"))
        tx.connection().execute(sa.text(change), {"to": 1, "id": new})

    db.write(spoil)
    found = [one.sentence() for one in check(db)]
    assert f"Entry {new} stands for a call of its account that isn't reversed, or isn't there." in found
    assert call != new


def test_a_wrong_sum_beside_a_repricing_is_named_and_nothing_else(db: Database, bob: str, clock: Clock) -> None:
    charge(db)
    clock.forward(days=1)
    cost_now(db, 4)
    reprice(db)
    kinds = sa.text("SELECT count(*) FROM usage_sum WHERE kind = 2 AND of = 0 AND length = 1")
    assert db.read(lambda tx: tx.connection().scalar(kinds)) == 2
    db.write(
        lambda tx: tx.connection().execute(
            sa.text("UPDATE usage_sum SET cost = cost + 1 WHERE kind = 2 AND of = 0 AND length = 1")
        )
    )
    (found,) = [one.sentence() for one in check(db)]
    assert "differs by -0.0001 元 and 0 calls. (1 more like it.)" in found


# One line for members


def test_a_member_sees_one_line_with_the_difference_and_the_balance_after_it(
    db: Database, bob: str, clock: Clock
) -> None:
    (call,) = charge(db)
    clock.forward(days=1)
    cost_now(db, 4)
    reprice(db, reason="the list price")
    charge(db)
    ann = member(db)
    last, line, old, recharge = read(db, logs.seen_by(ann), ann)
    assert (line.type, line.amount, line.cost, line.repriced_from, line.consumed) == ("deduct", 60, 40, 100, -60)
    assert (line.balance_after, line.remark, line.reprices_id) == (999_960, "the list price", call)
    assert line.created_at_ns == line.recorded_at_ns == clock()
    assert (old.id, old.reversed_by, old.amount, recharge.type) == (call, line.id, -100, "recharge")
    for newer, older in ((last, line), (line, old), (old, recharge)):
        assert newer.balance_after == older.balance_after + newer.amount
    assert db.read(logs.one, line.id, actor=ann) == line
    assert [row.type for row in read(db, Filters("ann"))] == ["deduct", "deduct", "reversal", "deduct", "recharge"]
    assert {row.repriced_from for row in read(db)} == {None}


def test_a_range_of_a_members_log_is_by_the_moment_of_the_repricing(db: Database, bob: str, clock: Clock) -> None:
    charge(db)
    clock.forward(days=1)
    cost_now(db, 4)
    reprice(db)
    ann = member(db)
    today = Filters("ann", start_ns=clock(), merged=True)
    assert [row.amount for row in read(db, today, ann)] == [60]
    assert db.read(logs.total, today, actor=ann) == logs.Sum(1, -60, 0)


steps = st.lists(
    st.tuples(st.sampled_from(["charge", "hold", "price", "reprice", "reverse", "recharge", "day"]), st.integers(1, 9)),
    min_size=1, max_size=12,
)  # fmt: skip


@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, limit=st.integers(1, 5))
def test_whatever_happens_costs_are_right_and_a_members_lines_add_up(
    db: Database, bob: str, clock: Clock, steps: list[tuple[str, int]], limit: int
) -> None:
    cost_now(db, 10)
    for what, n in steps:
        if what == "charge":
            charge(db, tokens=Tokens(100 * n, n), allow_debt=True)
        elif what == "hold":
            hold = db.write(ledger.precharge, "bob", MODEL, 10, n, actor=SHELL).entry_id
            db.write(ledger.settle, hold, Tokens(10, 2 * n), actor=SHELL)
        elif what == "price":
            cost_now(db, n)
        elif what == "recharge":
            db.write(ledger.recharge, "ann", n - 10, actor=SHELL, remark="a step")
        elif what == "day":
            clock.forward(days=1)
        elif what == "reprice":
            try:
                reprice(db)
            except BillingError as error:
                assert "No entry is selected" in str(error) or "None of the selected" in str(error)  # noqa: PT017
        else:
            standing = [row for row in read(db, CALLS) if row.reversed_by is None]
            for row in standing[:n]:
                db.write(ledger.reverse, row.id, "a step", actor=SHELL)
    assert not check(db)
    with suppress(BillingError):  # where every call costs what it has to already
        reprice(db)
    rates = db.read(pricing.in_force, MODEL)
    for user_id in ("ann", "bob"):
        whole = read(db, Filters(user_id))
        standing = [row for row in whole if row.type in ledger.CALLS and row.reversed_by is None]
        assert all(row.cost == rates.cost(ledger.counted(entry(db, row.id))) for row in standing)
        assert account(db, user_id)[1] == sum(row.cost for row in standing)
        actor = member(db, user_id)
        seen_by = logs.seen_by(actor)
        lines = read(db, seen_by, actor)
        assert lines == list(logs.every(db, seen_by, actor=actor, batch=limit))
        pages: list[logs.Row] = []
        while page := read(db, seen_by, actor, limit=limit, before=pages[-1].id if pages else None):
            pages += page
        assert pages == lines
        for newer, older in pairwise(lines):
            assert newer.balance_after == older.balance_after + newer.amount
        merged = [row for row in lines if row.repriced_from is not None]
        assert len(whole) == len(lines) + len(merged)
        total = db.read(logs.total, seen_by, actor=actor)
        spent = sum(row.consumed for row in lines if row.type in (*ledger.CALLS, "reversal"))
        assert (total.entries, total.cost) == (len(lines), spent) == (len(lines), account(db, user_id)[1])
        assert b"".join(export.logs(db, seen_by, UTC, actor=actor)).count(b"\r\n") == len(lines) + 1
    assert not check(db)


moves = st.lists(
    st.tuples(
        st.sampled_from(["charge", "late", "other", "hold", "price", "reprice", "reverse", "undo", "recharge", "undo recharge", "later"]),
        st.integers(1, 9),
    ),
    min_size=1, max_size=14,
)  # fmt: skip
OTHER = "other/model"


@examples(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=moves, spans=st.lists(st.tuples(st.integers(-200, 40), st.integers(1, 300)), min_size=1, max_size=4))
def test_what_an_account_did_between_two_moments_adds_up_as_its_lines_do(
    db: Database, bob: str, clock: Clock, moves: list[tuple[str, int]], spans: list[tuple[int, int]]
) -> None:
    for what, n in moves:
        if what in ("charge", "late", "other"):
            at = clock() - n * 5 * QUARTER_NS if what == "late" else None
            model = OTHER if what == "other" else MODEL
            charge(db, model=model, tokens=Tokens(100 * n, n), created_at_ns=at, allow_debt=True)
        elif what == "hold":
            hold = db.write(ledger.precharge, "bob", MODEL, 10, n, actor=SHELL).entry_id
            db.write(ledger.settle, hold, Tokens(10, 2 * n), actor=SHELL)
        elif what == "price":
            cost_now(db, n)
        elif what == "reprice":
            with suppress(BillingError):  # where there is nothing to reprice
                reprice(db)
        elif what == "recharge":
            db.write(ledger.recharge, "ann", n - 10, actor=SHELL, remark="a move")
        elif what == "later":
            clock.forward(seconds=n * 2000)
        else:
            types = {"undo": ("reversal",), "undo recharge": ("recharge",)}.get(what, CALLS.types)
            rows = read(db, Filters(types=types, search="a move" if what == "undo recharge" else ""))
            for row in [row for row in rows if row.reversed_by is None][:n]:
                with suppress(Conflict):  # what a repricing undid isn't counted again by itself
                    db.write(ledger.reverse, row.id, "a move", actor=SHELL)
    now = clock() // QUARTER_NS
    for user_id, merged, types, model in product(("ann", "bob"), (False, True), ((), CALLS.types), ("", MODEL, "no")):
        whole = Filters(user_id, model=model, types=types, merged=merged)
        lines = read(db, whole)
        for first, quarters in spans:
            start, end = (now + first) * QUARTER_NS, (now + first + quarters) * QUARTER_NS
            within = [row for row in lines if start <= row.created_at_ns < end]
            assert db.read(logs.total, replace(whole, start_ns=start, end_ns=end), actor=SHELL) == logs.Sum(
                len(within),
                sum(row.consumed for row in within if row.type in (*ledger.CALLS, "reversal")),
                sum(
                    row.amount for row in within if row.type == "recharge" or (row.type == "reversal" and not row.model)
                ),
            )
