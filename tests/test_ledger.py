"""Each operation of the ledger: what it does, and everything that it refuses, leaving nothing behind."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
import sums_reference
from conftest import NOON, SECOND, Clock

from billing_core import accounts, ledger, logs, pricing
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import (
    BillingError,
    Conflict,
    Forbidden,
    Frozen,
    InsufficientBalance,
    Invalid,
    NotFound,
    UnknownAccount,
)
from billing_core.idempotency import Once
from billing_core.ledger import Charge, Receipt
from billing_core.money import MAX_HAO
from billing_core.rates import More
from billing_core.tokens import MOST, Extras, Tokens

MODEL = "nobody/knows"
"""Costs the default: 18 元 per million tokens of input, 72 of output."""
HUNDRED = Tokens(1000, 0)
"""180 毫 of MODEL."""
NO_IDS = [0, -1, 999, 2**63, -(2**63) - 1, 10**30]


def recharge(db: Database, amount: int, user_id: str = "ann") -> Receipt:
    return db.write(ledger.recharge, user_id, amount, actor=SHELL)


def charge(db: Database, tokens: Tokens = HUNDRED, **options: Any) -> Receipt:
    return db.write(ledger.charge, "ann", MODEL, tokens, actor=SHELL, **options)


def hold(db: Database, prompt: int = 1000, completion: int = 0, **options: Any) -> Receipt:
    return db.write(ledger.precharge, "ann", MODEL, prompt, completion, actor=SHELL, **options)


def settle(db: Database, precharge_id: int, tokens: Tokens = HUNDRED, **options: Any) -> Receipt:
    return db.write(ledger.settle, precharge_id, tokens, actor=SHELL, **options)


def refund(db: Database, precharge_id: int, **options: Any) -> Receipt:
    return db.write(ledger.refund, precharge_id, actor=SHELL, **options)


def reverse(db: Database, entry_id: int, **options: Any) -> Receipt:
    return db.write(ledger.reverse, entry_id, "a mistake", actor=SHELL, **options)


def freeze(db: Database, status: str = "frozen") -> None:
    db.write(accounts.change, "ann", actor=SHELL, status=status)


def balance(db: Database, user_id: str = "ann") -> int:
    return db.read(lambda tx: ledger.balance(tx, accounts.find(tx, user_id)))


def consumed(db: Database) -> int:
    return db.read(accounts.find, "ann").total_consumed


def everything(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row that an operation could leave behind."""
    tables = ("account", "entry", "hold", "usage_sum", "idempotency", "price", "model")
    read = "SELECT * FROM {} ORDER BY 1, 2"
    return db.read(
        lambda tx: {
            name: [tuple(row) for row in tx.connection().execute(sa.text(read.format(name)))] for name in tables
        }
    )


def refuses(db: Database, kind: type[BillingError], says: str, operation: Callable[[], object]) -> BillingError:
    """The operation fails with one plain sentence, and not a row is other than before."""
    before = everything(db)
    with pytest.raises(kind, match=says) as refused:
        operation()
    assert everything(db) == before
    assert type(refused.value) is kind
    return refused.value


@pytest.fixture(autouse=True)
def adds_up(request: pytest.FixtureRequest) -> Any:
    """Whatever a test of this file did, the ledger adds up after it."""
    db = request.getfixturevalue("db") if "db" in request.fixturenames else None
    yield
    if db:
        assert not [finding.sentence() for finding in check(db)]


# Recharges


def test_a_recharge_and_a_charge_leave_the_difference(db: Database, ann: str) -> None:
    assert recharge(db, 10_000).balance == 10_000
    receipt = charge(db)
    assert (receipt.cost, receipt.amount, receipt.balance) == (180, -180, 9_820)
    assert (balance(db), consumed(db)) == (9_820, 180)


def test_a_debit_takes_more_than_there_is_into_debt(db: Database, ann: str) -> None:
    recharge(db, 100)
    assert recharge(db, -150).balance == -50
    assert (balance(db), consumed(db)) == (-50, 0)


@pytest.mark.parametrize("amount", [0, True, False, 1.0, 1.5, "1", None, float("nan")], ids=repr)
def test_an_amount_that_is_no_whole_number_of_hao_moves_nothing(db: Database, ann: str, amount: Any) -> None:
    assert refuses(db, Invalid, "whole number of 毫", lambda: recharge(db, amount)).field == "amount"  # type: ignore[attr-defined]


@pytest.mark.parametrize("amount", [MAX_HAO + 1, -MAX_HAO - 1, 10**40])
def test_an_amount_larger_than_any_entry_moves_nothing(db: Database, ann: str, amount: int) -> None:
    refuses(db, Invalid, "too large", lambda: recharge(db, amount))


def test_the_largest_amounts_go_in_and_out_exactly(db: Database, ann: str) -> None:
    assert recharge(db, MAX_HAO).balance == MAX_HAO
    assert recharge(db, MAX_HAO).balance == 2 * MAX_HAO
    assert recharge(db, -1).balance == 2 * MAX_HAO - 1
    assert balance(db) == 2 * MAX_HAO - 1


@pytest.mark.parametrize("sign", [1, -1])
def test_a_balance_never_grows_past_what_the_ledger_can_hold(db: Database, sign: int) -> None:
    """A year of the largest recharges a minute apart would get there; here the account begins close to it."""
    db.write(accounts.add, "rich", "Rich", actor=SHELL)
    rich = db.read(accounts.find, "rich").id
    near = sign * (9 * 10**18 - MAX_HAO)
    start = (
        "INSERT INTO entry (account_id, type, amount, balance_after, cost, created_at_ns, remark) "
        f"VALUES ({rich}, 'recharge', {near}, {near}, 0, {NOON}, '')"
    )
    db.write(lambda tx: tx.connection().execute(sa.text(start)))
    db.write(lambda tx: tx.connection().execute(sa.text(f"UPDATE account SET balance = {near} WHERE id = {rich}")))
    sums_reference.write(db)
    assert recharge(db, sign * MAX_HAO, "rich").balance == sign * 9 * 10**18
    refuses(db, Invalid, "larger than the ledger can hold", lambda: recharge(db, sign, "rich"))
    into_debt = lambda: db.write(ledger.charge, "rich", MODEL, HUNDRED, actor=SHELL, allow_debt=True)  # noqa: E731
    if sign < 0:
        refuses(db, Invalid, "larger than the ledger can hold", into_debt)
    else:
        assert into_debt().balance == 9 * 10**18 - 180


def test_when_a_charge_was_written_is_kept_where_that_is_another_moment(db: Database, ann: str, clock: Clock) -> None:
    recharge(db, 1_000)
    now = charge(db).entry_id
    past = charge(db, created_at_ns=NOON - SECOND).entry_id
    kept = dict(db.read(lambda tx: tx.rows("SELECT id, recorded_at_ns FROM entry")))
    assert (kept[now], kept[past]) == (None, clock.now_ns)


def test_a_remark_is_kept_as_one_line_of_what_a_screen_can_show(db: Database, ann: str) -> None:
    receipt = db.write(ledger.recharge, ann, 1, actor=SHELL, remark="  首充\t100 元\n\0\ud800 ok ")
    assert db.read(logs.one, receipt.entry_id, actor=SHELL).remark == "首充 100 元 ok"
    too_long = "long " * 101
    refuses(db, Invalid, "too long", lambda: db.write(ledger.recharge, ann, 1, actor=SHELL, remark=too_long))


@pytest.mark.parametrize("user_id", ["nobody", "", "ANN", "a\0b", "\ud800", "'; DROP TABLE entry --"], ids=count())
def test_an_account_that_is_not_there_is_told_so(db: Database, ann: str, user_id: str) -> None:
    for operation in (
        lambda: recharge(db, 1, user_id),
        lambda: db.write(ledger.charge, user_id, MODEL, HUNDRED, actor=SHELL),
        lambda: db.write(ledger.charge, user_id, MODEL, HUNDRED, actor=SHELL, allow_debt=True),
        lambda: db.write(ledger.precharge, user_id, MODEL, 1, 1, actor=SHELL),
        lambda: db.read(ledger.preview_recharge, user_id, 1, actor=SHELL),
    ):
        refuses(db, UnknownAccount, "There is no account", operation)


# Charges


def test_a_charge_that_the_balance_does_not_cover_leaves_nothing(db: Database, ann: str) -> None:
    recharge(db, 179)
    refuses(db, InsufficientBalance, "0.0179 元, the call needs 0.018 元", lambda: charge(db))
    recharge(db, 1)
    assert charge(db).balance == 0


def test_a_call_that_has_been_made_is_booked_in_full_into_debt(db: Database, ann: str) -> None:
    recharge(db, 100)
    assert charge(db, allow_debt=True).balance == -80
    assert consumed(db) == 180
    refuses(db, InsufficientBalance, "-0.008 元", lambda: charge(db, Tokens(1, 0)))
    assert charge(db, Tokens(1, 0), allow_debt=True).balance == -81


def test_a_call_that_costs_nothing_is_written_down_whatever_the_balance(db: Database, ann: str) -> None:
    assert charge(db, Tokens(0, 0)).cost == 0
    recharge(db, -5)
    db.write(pricing.set_price, MODEL, 0, 0, actor=SHELL)
    refuses(db, InsufficientBalance, "recharge", lambda: charge(db))  # in debt nothing more is charged, free or not


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\nb", "a\0b", None, 7])
def test_a_model_without_a_proper_name_is_refused(db: Database, ann: str, name: Any) -> None:
    refuses(db, Invalid, "model's name", lambda: db.write(ledger.charge, ann, name, HUNDRED, actor=SHELL))
    refuses(db, Invalid, "model's name", lambda: db.write(ledger.precharge, ann, name, 1, 1, actor=SHELL))


@pytest.mark.parametrize(
    ("at", "says"),
    [
        (NOON + 301 * SECOND, "future"),
        (10**30, "future"),
        (946_684_800 * SECOND - 1, "since 2000"),
        (-1, "since 2000"),
        (True, "since 2000"),
        (float(NOON), "since 2000"),
        (str(NOON), "since 2000"),
    ],
)
def test_a_moment_that_cannot_be_is_refused(db: Database, ann: str, at: Any, says: str) -> None:
    recharge(db, 10_000)
    refuses(db, Invalid, says, lambda: charge(db, created_at_ns=at))


def test_a_call_of_the_past_pays_the_price_of_its_time_and_says_when_it_was_written(
    db: Database, ann: str, clock: Clock
) -> None:
    recharge(db, 10_000)
    db.write(pricing.set_price, MODEL, 1_000_000, 0, actor=SHELL)
    clock.forward(days=1)
    db.write(pricing.set_price, MODEL, 2_000_000, 0, actor=SHELL)
    clock.forward(days=1)
    late = charge(db, Tokens(10_000, 0), created_at_ns=NOON + 86_399 * SECOND)
    assert (late.cost, charge(db, Tokens(10_000, 0)).cost) == (100, 200)
    row = db.read(logs.one, late.entry_id, actor=SHELL)
    assert (row.created_at_ns, row.recorded_at_ns) == (NOON + 86_399 * SECOND, clock.now_ns)


def test_a_call_costlier_than_any_entry_is_refused(db: Database, ann: str) -> None:
    db.write(pricing.set_price, MODEL, 0, 0, actor=SHELL, more=More(tools=(("web_search", 10**12),)))
    dearest = Tokens(0, 0, extras=Extras(tools=(("web_search", MOST),)))
    refuses(
        db, Invalid, "would cost more",
        lambda: db.write(ledger.charge, ann, MODEL, dearest, actor=SHELL, allow_debt=True),
    )  # fmt: skip


def test_a_batch_gives_one_result_an_item_and_a_bad_one_spoils_no_other(db: Database, ann: str) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    recharge(db, 400)
    recharge(db, 180, "bob")
    batch = [
        Charge("bob", MODEL, HUNDRED),
        Charge("ann", MODEL, HUNDRED),
        Charge("nobody", MODEL, HUNDRED),
        Charge("bob", MODEL, HUNDRED),
        Charge("ann", "", HUNDRED),
        Charge("ann", MODEL, HUNDRED),
        Charge("ann", MODEL, HUNDRED),
        Charge("ann", MODEL, HUNDRED, allow_debt=True),
    ]
    results = db.write(ledger.charge_many, batch, actor=SHELL)
    told = [one.balance if isinstance(one, Receipt) else type(one) for one in results]
    assert told == [0, 220, UnknownAccount, InsufficientBalance, Invalid, 40, InsufficientBalance, -140]
    assert (balance(db), balance(db, "bob")) == (-140, 0)
    written = [one.entry_id for one in results if isinstance(one, Receipt)]
    assert written == sorted(written)
    assert db.write(ledger.charge_many, [], actor=SHELL) == []


def test_what_other_models_used_in_a_call_is_charged_with_it_or_not_at_all(db: Database, ann: str) -> None:
    recharge(db, 400)
    others = [("nobody/either", HUNDRED)]
    receipt = charge(db, others=others)
    assert (receipt.cost, receipt.amount, receipt.balance, len(receipt.other_ids)) == (360, -360, 40, 1)
    recharge(db, 200)
    refuses(db, InsufficientBalance, "needs 0.036 元", lambda: charge(db, others=others))


def test_what_is_asked_again_has_the_first_answer_field_by_field(db: Database, ann: str) -> None:
    recharge(db, 10_000)
    held, dropped = hold(db).entry_id, hold(db).entry_id
    asked: list[Callable[[Once], Receipt]] = [
        lambda once: db.write(ledger.recharge, "ann", 100, actor=SHELL, once=once),
        lambda once: charge(db, once=once),
        lambda once: charge(db, once=once, others=[("nobody/either", HUNDRED), ("nobody/other", Tokens(1, 1))]),
        lambda once: hold(db, once=once),
        lambda once: settle(db, held, once=once, others=[("nobody/either", HUNDRED)]),
        lambda once: refund(db, dropped, once=once),
        lambda once: reverse(db, 1, once=once),
        lambda once: db.write(ledger.charge, "ann", MODEL, HUNDRED, actor=SHELL, allow_debt=True, once=once),
    ]
    for number, ask in enumerate(asked):
        once = Once.of(SHELL, f"key {number}", number)
        first, again = ask(once), ask(once)
        assert again == first._replace(replayed=True)
        assert None not in (first.user_id, first.status, first.created_at_ns)


# Holds


def test_a_hold_is_off_the_balance_and_consumes_nothing(db: Database, ann: str) -> None:
    recharge(db, 1_000)
    held = hold(db, 1000, 10)
    assert (held.cost, held.balance, held.expires_at_ns) == (188, 812, NOON + 900 * SECOND)
    assert (balance(db), consumed(db)) == (812, 0)
    assert db.read(lambda tx: ledger.held(tx, accounts.find(tx, "ann"))) == 188


def test_a_hold_that_the_balance_does_not_cover_is_refused(db: Database, ann: str) -> None:
    recharge(db, 179)
    refuses(db, InsufficientBalance, "The balance of ann is 0.0179 元, the call needs 0.018 元", lambda: hold(db))


@pytest.mark.parametrize("ttl", [0, -1, 7 * 86_400 + 1, True, 1.5, 60.0, "60", None], ids=repr)
def test_a_hold_for_no_whole_number_of_seconds_is_refused(db: Database, ann: str, ttl: Any) -> None:
    recharge(db, 1_000)
    refuses(db, Invalid, "ttl_seconds must be a whole number", lambda: hold(db, ttl_seconds=ttl))


@pytest.mark.parametrize("count", [-1, MOST + 1, True, 1.0, "1", None], ids=repr)
def test_a_hold_for_no_count_of_tokens_is_refused(db: Database, ann: str, count: Any) -> None:
    recharge(db, 1_000)
    refuses(db, Invalid, "prompt_tokens", lambda: hold(db, count, 0))
    refuses(db, Invalid, "completion_tokens", lambda: hold(db, 0, count))


def test_a_settle_below_the_hold_gives_the_rest_back(db: Database, ann: str) -> None:
    recharge(db, 1_000)
    done = settle(db, hold(db).entry_id, Tokens(400, 0))
    assert (done.cost, done.refunded, done.balance) == (72, 108, 928)
    assert (balance(db), consumed(db)) == (928, 72)


def test_a_settle_above_the_hold_takes_the_rest_into_debt_and_counts_it(db: Database, ann: str) -> None:
    recharge(db, 200)
    done = settle(db, hold(db).entry_id, Tokens(2000, 0))
    assert (done.cost, done.amount, done.refunded, done.balance) == (360, -180, 0, -160)
    assert (balance(db), consumed(db)) == (-160, 360)
    refuses(db, InsufficientBalance, "recharge", lambda: hold(db, 1))


def test_a_hold_whose_model_was_not_called_is_given_back_and_the_others_are_charged(db: Database, ann: str) -> None:
    recharge(db, 10_000)
    db.write(pricing.set_price, MODEL, 10**6, 10**6, actor=SHELL, more=More(call=100_000))
    held = hold(db)
    before, once = balance(db), Once.of(SHELL, "s", 1)
    done = settle(db, held.entry_id, None, others=[("nobody/either", HUNDRED), ("nobody/third", HUNDRED)], once=once)
    assert (done.type, done.cost, done.amount, done.refunded) == (
        "refund",
        360,
        held.cost - 360,
        max(0, held.cost - 360),
    )
    assert (done.balance, consumed(db)) == (before + held.cost - 360, 360) == (balance(db), 360)
    assert len(done.other_ids) == 2
    assert settle(db, held.entry_id, None, others=[("x", HUNDRED)], once=once)._replace(replayed=False) == done
    entry = db.read(logs.one, done.entry_id, actor=SHELL)
    assert (entry.type, entry.precharge_id, entry.model, entry.amount) == ("refund", held.entry_id, MODEL, held.cost)
    refuses(db, Conflict, "has been refunded already", lambda: settle(db, held.entry_id))
    assert not check(db)


@pytest.mark.parametrize(("asked", "kept"), [("Batch ", "batch"), ("default", None), (None, None)])
@pytest.mark.parametrize("tier_of_hold", [True, False])
def test_a_settle_is_in_the_tier_of_its_hold_if_it_is_told_so(
    db: Database, ann: str, asked: str | None, kept: str | None, tier_of_hold: bool
) -> None:
    recharge(db, 10_000)
    for model in (MODEL, "nobody/either"):
        db.write(pricing.set_price, model, 10**8, 10**8, actor=SHELL, more=More(service_tiers=(("batch", 500_000),)))
    held = hold(db, service_tier=asked)
    assert held.cost == (500 if kept else 1000)
    extras = Extras(tools=(("search", 1),))
    others = [("nobody/either", HUNDRED)]
    done = settle(db, held.entry_id, Tokens(1000, 0, extras=extras), others=others, tier_of_hold=tier_of_hold)
    cheap = kept is not None and tier_of_hold
    assert done.cost == (1000 if cheap else 2000)
    first, other = (db.read(logs.one, number, actor=SHELL) for number in (done.entry_id, *done.other_ids))
    tiered = '"service_tier":"batch",' if cheap else ""
    assert first.extras == f'{{{tiered}"tools":{{"search":1}}}}'
    assert other.extras == ('{"service_tier":"batch"}' if cheap else None)
    assert not check(db)


def test_a_settle_charges_other_models_beside_the_held_one(db: Database, ann: str) -> None:
    recharge(db, 1_000)
    done = settle(db, hold(db).entry_id, others=[("nobody/either", Tokens(100, 0))])
    assert (done.cost, done.amount, done.balance) == (198, -18, 802)


def test_a_settle_pays_the_price_that_was_in_force_at_the_precharge(db: Database, ann: str) -> None:
    recharge(db, 1_000)
    held = hold(db)
    db.write(pricing.set_price, MODEL, 36_000_000, 0, actor=SHELL)
    assert settle(db, held.entry_id).cost == 180


def test_a_refund_gives_the_whole_hold_back(db: Database, ann: str) -> None:
    recharge(db, 1_000)
    done = refund(db, hold(db).entry_id)
    assert (done.refunded, done.cost, done.balance) == (180, 0, 1_000)
    assert (balance(db), consumed(db)) == (1_000, 0)


def expire(db: Database, clock: Clock) -> None:
    clock.forward(seconds=900)
    assert db.write(ledger.expire_holds) == 1


ENDS: dict[str, Callable[[Database, Clock, int], object]] = {
    "settled": lambda db, clock, number: settle(db, number),
    "refunded": lambda db, clock, number: refund(db, number),
    "reversed": lambda db, clock, number: reverse(db, number),
    "expired": lambda db, clock, number: expire(db, clock),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_hold_ends_once_and_every_later_end_is_told_how(db: Database, ann: str, clock: Clock, how: str) -> None:
    recharge(db, 1_000)
    number = hold(db).entry_id
    ENDS[how](db, clock, number)
    for again in (settle, refund, reverse):
        refuses(db, Conflict, f"{how}", lambda again=again: again(db, number))  # type: ignore[misc]
    clock.forward(days=1)
    assert db.write(ledger.expire_holds) == 0


@pytest.mark.parametrize("number", NO_IDS)
def test_a_precharge_or_entry_that_is_not_there_is_told_so(db: Database, ann: str, number: int) -> None:
    refuses(db, NotFound, "There is no precharge", lambda: settle(db, number))
    refuses(db, NotFound, "There is no precharge", lambda: refund(db, number))
    refuses(db, NotFound, "There is no entry", lambda: reverse(db, number))
    refuses(db, NotFound, "There is no entry", lambda: db.read(ledger.preview_reversal, number, actor=SHELL))
    refuses(db, NotFound, "There is no entry", lambda: db.read(logs.one, number, actor=SHELL))


def test_only_a_precharge_can_be_settled_or_refunded(db: Database, ann: str) -> None:
    other = recharge(db, 1_000).entry_id
    refuses(db, NotFound, "There is no precharge", lambda: settle(db, other))
    refuses(db, NotFound, "There is no precharge", lambda: refund(db, other))


def test_a_hold_lasts_up_to_its_last_nanosecond(db: Database, ann: str, clock: Clock) -> None:
    recharge(db, 200)
    held = hold(db, ttl_seconds=60)
    clock.now_ns = NOON + 60 * SECOND - 1
    assert balance(db) == 20
    refuses(db, InsufficientBalance, "0.002 元", lambda: charge(db))
    assert settle(db, held.entry_id, Tokens(1, 0)).balance == 199


def test_a_hold_comes_back_at_its_last_nanosecond(db: Database, ann: str, clock: Clock) -> None:
    recharge(db, 200)
    held = hold(db, ttl_seconds=60)
    clock.now_ns = NOON + 60 * SECOND
    assert balance(db) == 200  # at once, before anything is written
    assert db.read(lambda tx: ledger.held(tx, accounts.find(tx, "ann"))) == 0
    assert charge(db).balance == 20
    refuses(db, Conflict, "has expired", lambda: settle(db, held.entry_id))
    rows = db.read(logs.page, logs.Filters("ann", types=("expire",)), actor=SHELL)
    assert [(row.created_at_ns, row.amount, row.precharge_id) for row in rows] == [
        (NOON + 60 * SECOND, 180, held.entry_id)
    ]


def test_what_was_written_down_since_an_account_was_read_is_not_given_back_twice(
    db: Database, ann: str, clock: Clock
) -> None:
    recharge(db, 1_000)
    hold(db)
    clock.forward(days=1)
    read_before = db.read(accounts.find, "ann")
    assert db.read(ledger.expired, read_before) == 180
    db.write(ledger.expire_holds)
    assert db.read(ledger.expired, read_before) == 0


def test_holds_expire_one_by_one_in_the_order_of_their_deadlines(db: Database, ann: str, clock: Clock) -> None:
    recharge(db, 1_000)
    second, first, last = (hold(db, 1000, ttl_seconds=ttl).entry_id for ttl in (20, 10, 30))
    clock.forward(seconds=20)
    recharge(db, 1)
    rows = db.read(logs.page, logs.Filters("ann", types=("expire",)), actor=SHELL)
    assert [row.precharge_id for row in rows] == [second, first]
    assert balance(db) == 1_001 - 180
    assert refund(db, last).balance == 1_001


def test_a_price_above_the_input_for_the_cache_is_held_as_well(db: Database, ann: str) -> None:
    db.write(pricing.set_price, MODEL, 1_000_000, 0, actor=SHELL, cache_write=2_000_000)
    recharge(db, 1_000)
    held = hold(db, 10_000)
    assert (held.cost, settle(db, held.entry_id, Tokens(10_000, 0, 0, 10_000)).amount) == (200, 0)


# Undoing


def test_a_reversed_recharge_is_taken_back_even_into_debt(db: Database, ann: str) -> None:
    entry = recharge(db, 1_000)
    charge(db)
    assert db.read(ledger.preview_reversal, entry.entry_id, actor=SHELL) == ledger.Change(820, -180)
    assert reverse(db, entry.entry_id).balance == -180
    assert consumed(db) == 180


def test_a_reversed_charge_comes_back_and_is_no_longer_consumed(db: Database, ann: str) -> None:
    recharge(db, 1_000)
    done = reverse(db, charge(db).entry_id)
    assert (done.amount, done.cost, done.balance, consumed(db)) == (180, -180, 1_000, 0)


def test_a_reversed_settle_undoes_the_whole_call(db: Database, ann: str) -> None:
    recharge(db, 1_000)
    done = settle(db, hold(db).entry_id, Tokens(2000, 0))
    assert reverse(db, done.entry_id).balance == 1_000
    assert consumed(db) == 0


def test_a_reversed_hold_ends(db: Database, ann: str, clock: Clock) -> None:
    recharge(db, 1_000)
    assert reverse(db, hold(db).entry_id).balance == 1_000
    clock.forward(days=1)
    assert (db.write(ledger.expire_holds), balance(db)) == (0, 1_000)


@pytest.mark.parametrize("how", ["refunded", "expired"])
def test_a_reversed_return_of_a_hold_is_taken_again(db: Database, ann: str, clock: Clock, how: str) -> None:
    recharge(db, 1_000)
    ENDS[how](db, clock, hold(db).entry_id)
    (last, *_) = db.read(logs.page, logs.Filters("ann"), actor=SHELL)
    assert (reverse(db, last.id).balance, consumed(db)) == (820, 0)


@pytest.mark.parametrize("kind", ["recharge", "deduct", "settle"])
def test_a_reversal_of_a_reversal_makes_the_entry_count_again(db: Database, ann: str, kind: str) -> None:
    first = recharge(db, 1_000)
    entry = {"recharge": lambda: first, "deduct": lambda: charge(db), "settle": lambda: settle(db, hold(db).entry_id)}
    number = entry[kind]().entry_id
    before = (balance(db), consumed(db))
    undone = reverse(db, number)
    undone_twice = reverse(db, undone.entry_id)
    assert (undone_twice.amount, undone_twice.cost) == (-undone.amount, -undone.cost)
    assert (balance(db), consumed(db)) == before
    third = reverse(db, undone_twice.entry_id)
    assert (third.amount, third.cost) == (undone.amount, undone.cost)


def test_an_entry_is_reversed_once(db: Database, ann: str) -> None:
    entry = recharge(db, 1_000).entry_id
    reverse(db, entry)
    refuses(db, Conflict, f"Entry {entry} has been reversed already", lambda: reverse(db, entry))


@pytest.mark.parametrize("reason", ["", "  ", "\n\0"])
def test_a_reversal_says_why(db: Database, ann: str, reason: str) -> None:
    entry = recharge(db, 1_000).entry_id
    refuses(db, Invalid, "Say why", lambda: db.write(ledger.reverse, entry, reason, actor=SHELL))


def test_a_preview_shows_what_the_recharge_then_does(db: Database, ann: str, clock: Clock) -> None:
    recharge(db, 1_000)
    hold(db, ttl_seconds=60)
    clock.forward(seconds=60)
    for amount in (500, -2_000):
        seen = db.read(ledger.preview_recharge, ann, amount, actor=SHELL)
        assert seen.before == balance(db)
        assert seen.after == recharge(db, amount).balance


# Who may, and frozen accounts


def test_a_frozen_account_gets_no_new_charges_or_holds_but_what_is_held_ends(
    db: Database, ann: str, clock: Clock
) -> None:
    recharge(db, 10_000)
    to_settle, to_refund, to_expire = (hold(db).entry_id for _ in range(3))
    done = charge(db).entry_id
    freeze(db)
    refuses(db, Frozen, "is frozen", lambda: charge(db))
    refuses(db, Frozen, "is frozen", lambda: charge(db, allow_debt=True))
    refuses(db, Frozen, "is frozen", lambda: charge(db, Tokens(0, 0)))
    refuses(db, Frozen, "is frozen", lambda: hold(db))
    assert settle(db, to_settle, Tokens(2000, 0)).status == "frozen"
    assert refund(db, to_refund).status == "frozen"
    assert recharge(db, 1).status == "frozen"
    assert reverse(db, done).status == "frozen"
    clock.forward(seconds=900)
    refuses(db, Conflict, "has expired", lambda: settle(db, to_expire))
    refuses(db, Frozen, "is frozen", lambda: charge(db))
    freeze(db, "active")
    assert charge(db).status == "active"


def test_a_frozen_account_is_charged_for_nothing_on_the_way_of_a_hold_that_comes_back(
    db: Database, ann: str, clock: Clock
) -> None:
    recharge(db, 10_000)
    hold(db, ttl_seconds=60)
    freeze(db)
    clock.forward(seconds=60)
    refuses(db, Frozen, "is frozen", lambda: charge(db))


def member(db: Database, **rights: bool) -> Actor:
    return Actor(db.read(accounts.find, "ann").id, "ann", "Ann", **rights)


def test_nobody_without_the_right_moves_money(db: Database, ann: str) -> None:
    recharge(db, 10_000)
    number, reader = hold(db).entry_id, member(db)
    batch = [Charge("ann", MODEL, HUNDRED)]
    for operation in (
        lambda: db.write(ledger.charge, ann, MODEL, HUNDRED, actor=reader),
        lambda: db.write(ledger.precharge, ann, MODEL, 1, 1, actor=reader),
        lambda: db.write(ledger.settle, number, HUNDRED, actor=reader),
        lambda: db.write(ledger.refund, number, actor=reader),
    ):
        refuses(db, Forbidden, "may not charge", operation)
    (result,) = db.write(ledger.charge_many, batch, actor=reader)
    assert isinstance(result, Forbidden)
    for meter in (reader, member(db, may_charge=True)):
        for operation in (
            lambda meter=meter: db.write(ledger.recharge, ann, 1, actor=meter),  # type: ignore[misc]
            lambda meter=meter: db.write(ledger.reverse, number, "why", actor=meter),  # type: ignore[misc]
            lambda meter=meter: db.read(ledger.preview_recharge, ann, 1, actor=meter),  # type: ignore[misc]
            lambda meter=meter: db.read(ledger.preview_reversal, number, actor=meter),  # type: ignore[misc]
        ):
            refuses(db, Forbidden, "Only an admin", operation)


def test_an_entry_names_who_did_it_where_that_is_somebody_else(db: Database, ann: str) -> None:
    db.write(accounts.add, "boss", "Boss", actor=SHELL)
    boss = Actor(db.read(accounts.find, "boss").id, "boss", "Boss", is_admin=True)
    by_boss = db.write(ledger.recharge, ann, 1_000, actor=boss).entry_id
    by_shell = recharge(db, 1_000).entry_id
    by_herself = db.write(ledger.charge, ann, MODEL, HUNDRED, actor=member(db, may_charge=True)).entry_id
    names = [db.read(logs.one, number, actor=SHELL).operator_name for number in (by_boss, by_shell, by_herself)]
    assert names == ["Boss", "shell", None]


def test_an_admins_recharge_of_their_own_account_is_theirs(db: Database) -> None:
    """It was taken for the shell's, as the entries of an account's own calls name nobody."""
    db.write(accounts.add, "boss", "Boss", actor=SHELL)
    boss = Actor(db.read(accounts.find, "boss").id, "boss", "Boss", is_admin=True)
    db.write(pricing.set_price, MODEL, 1_000_000, 1_000_000, actor=SHELL)
    recharged = db.write(ledger.recharge, "boss", 1_000_000, actor=boss).entry_id
    charged = db.write(ledger.charge, "boss", MODEL, HUNDRED, actor=boss).entry_id
    numbers = [recharged, charged]
    dearer = db.write(pricing.set_price, MODEL, 9_000_000_000, 9_000_000_000, actor=SHELL)
    numbers.append(db.write(ledger.reprice, charged, dearer.id or 0, "dearer", actor=boss).entry_id)
    numbers.append(db.write(ledger.reverse, recharged, "wrong", actor=boss).entry_id)
    assert [db.read(logs.one, number, actor=SHELL).operator_name for number in numbers] == [
        "Boss",
        None,
        "Boss",
        "Boss",
    ]


# Retries


def once(key: str = "k", *request: Any, actor: Actor = SHELL) -> Once:
    return Once.of(actor, key, *request)


def asked_twice(db: Database, operation: Callable[[Once], Receipt]) -> None:
    first = operation(once())
    before = everything(db)
    again = operation(once())
    assert everything(db) == before
    assert again.replayed
    assert not first.replayed
    assert [getattr(again, name) for name in first.__slots__ if name != "replayed"] == [
        getattr(first, name) for name in first.__slots__ if name != "replayed"
    ]


def test_whatever_is_asked_twice_with_one_key_happens_once_and_is_answered_alike(db: Database, ann: str) -> None:
    recharge(db, 100_000)
    numbers = [hold(db).entry_id for _ in range(2)]
    operations: list[Callable[[Once], Receipt]] = [
        lambda key: db.write(ledger.recharge, ann, 7, actor=SHELL, once=key),
        lambda key: charge(db, once=key),
        lambda key: charge(db, once=key, others=[("nobody/either", HUNDRED), ("nobody/else", Tokens(1, 1))]),
        lambda key: hold(db, once=key),
        lambda key: settle(db, numbers[0], once=key, others=[("nobody/either", HUNDRED)]),
        lambda key: refund(db, numbers[1], once=key),
        lambda key: reverse(db, 1, once=key),
    ]
    for place, operation in enumerate(operations):
        asked_twice(db, lambda _, place=place, operation=operation: operation(once(f"k{place}")))  # type: ignore[misc]


def test_a_retry_is_answered_as_the_first_time_even_when_it_would_be_refused_now(db: Database, ann: str) -> None:
    recharge(db, 180)
    first = charge(db, once=once())
    freeze(db)
    again = charge(db, once=once())
    assert (again.entry_id, again.balance, again.status, again.replayed) == (first.entry_id, 0, "active", True)


def test_a_key_keeps_only_what_its_entry_does_not_say(db: Database, ann: str) -> None:
    recharge(db, 1_000)
    held = hold(db)
    charge(db, once=once("k1"))
    freeze(db)
    settle(db, held.entry_id, once=once("k2"))
    kept = sa.text("SELECT answer FROM idempotency ORDER BY key")
    assert db.read(lambda tx: list(tx.connection().scalars(kept))) == [None, '"frozen"']


def test_the_same_key_with_another_request_is_refused(db: Database, ann: str) -> None:
    recharge(db, 10_000)
    charge(db, once=once("k", "charge", 1))
    refuses(db, Conflict, "“k” was used for another request", lambda: charge(db, once=once("k", "charge", 2)))


def test_a_refusal_leaves_its_key_free(db: Database, ann: str) -> None:
    refuses(db, InsufficientBalance, "recharge", lambda: charge(db, once=once()))
    recharge(db, 180)
    assert not charge(db, once=once()).replayed


def test_each_caller_has_keys_of_its_own(db: Database, ann: str) -> None:
    recharge(db, 10_000)
    charge(db, once=once())
    meter = member(db, may_charge=True)
    assert not charge(db, once=once(actor=meter)).replayed


def test_a_batch_sent_again_happens_once(db: Database, ann: str) -> None:
    recharge(db, 10_000)
    batch = [Charge("ann", MODEL, HUNDRED, once=once(f"k{n}")) for n in (1, 2, 1)]
    first = db.write(ledger.charge_many, batch, actor=SHELL)
    again = db.write(ledger.charge_many, batch, actor=SHELL)
    ids = [[one.entry_id for one in results if isinstance(one, Receipt)] for results in (first, again)]
    assert ids[0] == ids[1]
    assert ids[0][0] == ids[0][2] != ids[0][1]
    replayed = [[one.replayed for one in results if isinstance(one, Receipt)] for results in (first, again)]
    assert replayed == [[False, False, True], [True, True, True]]
    assert balance(db) == 10_000 - 360


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "a\0b", "\ud800", None, 7], ids=count())
def test_what_cannot_be_a_key_is_refused(key: Any) -> None:
    with pytest.raises(Invalid, match="1 to 255 printable characters"):
        once(key)


def test_a_repeated_call_that_names_its_time_is_known_though_the_clock_was_set_back(
    db: Database, ann: str, clock: Clock
) -> None:
    recharge(db, 1_000_000)
    once = Once.of(SHELL, "late", 1)
    call = (ann, "m", Tokens(1000, 0))
    first = db.write(ledger.charge, *call, actor=SHELL, created_at_ns=clock.now_ns, once=once)
    clock.forward(seconds=-3600)
    again = db.write(ledger.charge, *call, actor=SHELL, created_at_ns=clock.now_ns + 3600 * 10**9, once=once)
    assert (again.entry_id, again.replayed) == (first.entry_id, True)


def test_what_is_held_counts_towards_the_most_that_a_balance_can_be(db: Database, ann: str, clock: Clock) -> None:
    def fill(tx: Transaction) -> None:
        for _ in range(ledger.MAX_BALANCE // MAX_HAO):
            ledger.recharge(tx, ann, MAX_HAO, actor=SHELL)

    db.write(fill)
    held = db.write(ledger.precharge, ann, "some/model", 1000, 0, actor=SHELL, ttl_seconds=60)
    with pytest.raises(Invalid, match="larger than the ledger can hold"):
        db.write(ledger.recharge, ann, held.cost, actor=SHELL)
    clock.forward(seconds=61)
    ledger.note_expired(db)
    assert db.read(lambda tx: ledger.balance(tx, accounts.find(tx, ann))) == ledger.MAX_BALANCE
