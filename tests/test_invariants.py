"""The nine invariants of the design, each by its name: alone, in any order of operations, from many threads, and
after a crash."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from math import ceil
from threading import Barrier, Event
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import NOON, SECOND, Clock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from billing_core import accounts, ledger, logs, money, pricing, stats
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import BillingError, Conflict, Forbidden, Frozen, InsufficientBalance, Invalid
from billing_core.idempotency import Once
from billing_core.ledger import Charge, Receipt
from billing_core.models import ENTRIES, PRICES
from billing_core.tokens import Tokens
from billing_core.zones import zone

MODEL = "nobody/knows"
HUNDRED = Tokens(1000, 0)
"""180 毫 of MODEL."""


def broken(db: Database) -> list[str]:
    return [finding.sentence() for finding in check(db)]


def one(db: Database, statement: str) -> Any:
    return db.read(lambda tx: tx.connection().execute(sa.text(statement)).scalar())


def balance(db: Database, user_id: str) -> int:
    return db.read(lambda tx: ledger.balance(tx, accounts.find(tx, user_id)))


# Any order of operations against a model of a few lines


@dataclass
class Known:
    """What the model knows of an account, in 毫."""

    balance: int = 0
    consumed: int = 0
    frozen: bool = False


@dataclass
class Done:
    """An entry whose reversal the model can foretell: what it would add to the balance and to the consumption."""

    user_id: str
    back: int
    consumed: int
    is_reversed: bool = False


@dataclass
class Held:
    user_id: str
    amount: int
    expires_at_ns: int
    prices: tuple[int, int]
    is_open: bool = True


USERS = st.sampled_from(["a", "b", "c"])
TOKENS = st.builds(Tokens, st.integers(0, 20_000), st.integers(0, 5_000))
EXAMPLE = count(1)


class LedgerMachine(RuleBasedStateMachine):
    """Each run has three accounts and a model of its own in one database."""

    done = Bundle("done")
    holds = Bundle("holds")
    asked = Bundle("asked")
    steps = 0

    def __init__(self, db: Database, clock: Clock):
        super().__init__()
        self.db, self.clock = db, clock
        self.prefix = f"run{next(EXAMPLE)}-"
        self.keys = count(1)
        self.known = {self.prefix + name: Known() for name in "abc"}
        self.prices: list[tuple[int, int, int]] = []
        self.entries: dict[int, Done] = {}
        self.held: dict[int, Held] = {}

    @initialize()
    def begin(self) -> None:
        for user_id in self.known:
            self.db.write(accounts.add, user_id, user_id, actor=SHELL)

    # The model

    def price_at(self, at_ns: int) -> tuple[int, int]:
        by_start = sorted(self.prices, key=lambda price: price[0])  # of two that start at once the later one counts
        begun = [price for price in by_start if price[0] <= at_ns]
        if begun:
            return begun[-1][1:]
        known = [price for price in by_start if price[0] <= self.clock.now_ns]
        if known:  # a call from before the first price pays that one
            return [price for price in known if price[0] == known[0][0]][-1][1:]
        return 18, 72

    @staticmethod
    def cost(prices: tuple[int, int], tokens: Tokens) -> int:
        return ceil(Fraction(tokens.prompt * prices[0] + tokens.completion * prices[1], 100))

    def move(self, user_id: str, amount: int, consumed: int = 0) -> None:
        self.known[user_id].balance += amount
        self.known[user_id].consumed += consumed

    def expire(self) -> None:
        for held in self.held.values():
            if held.is_open and held.expires_at_ns <= self.clock.now_ns:
                held.is_open = False
                self.move(held.user_id, held.amount)

    def refusal(self, user_id: str, cost: int, allow_debt: bool = False) -> type[BillingError] | None:
        if self.known[user_id].frozen:
            return Frozen
        return InsufficientBalance if self.known[user_id].balance < cost and not allow_debt else None

    # What is done to both

    def ask(
        self, expected: type[BillingError] | None, function: Callable[..., Receipt], *args: Any, **options: Any
    ) -> Any:
        """Do it with a key of its own; what can be asked again, or None where it was refused as foretold."""
        key = Once.of(SHELL, f"{self.prefix}{next(self.keys)}", function.__name__)

        def call() -> Receipt:
            return self.db.write(function, *args, actor=SHELL, once=key, **options)

        if expected:
            with pytest.raises(expected):
                call()
            return None
        receipt = call()
        assert receipt.balance == self.known[receipt.user_id].balance + receipt.amount
        return call, receipt

    @rule(target=asked, name=USERS, amount=st.integers(-2_000, 20_000).filter(bool))
    def recharge(self, name: str, amount: int) -> Any:
        self.expire()
        user_id = self.prefix + name
        call, receipt = self.ask(None, ledger.recharge, user_id, amount)
        self.move(user_id, amount)
        self.entries[receipt.entry_id] = Done(user_id, -amount, 0)
        return call, receipt

    @rule(target=asked, name=USERS, tokens=TOKENS, allow_debt=st.booleans(), ago=st.sampled_from([0, 0, 30, 3_000]))
    def charge(self, name: str, tokens: Tokens, allow_debt: bool, ago: int) -> Any:
        self.expire()
        user_id, at = self.prefix + name, self.clock.now_ns - ago * SECOND
        cost = self.cost(self.price_at(at), tokens)
        refused = self.refusal(user_id, cost, allow_debt)
        options = {"allow_debt": allow_debt, "created_at_ns": at}
        happened = self.ask(refused, ledger.charge, user_id, self.prefix + "model", tokens, **options)
        if happened is None:
            return multiple()
        assert happened[1].cost == cost
        self.charged(happened[1])
        return happened

    def charged(self, receipt: Receipt) -> None:
        self.move(receipt.user_id, -receipt.cost, receipt.cost)
        self.entries[receipt.entry_id] = Done(receipt.user_id, receipt.cost, -receipt.cost)

    @rule(calls=st.lists(st.tuples(USERS, TOKENS, st.booleans()), max_size=5))
    def charge_many(self, calls: list[tuple[str, Tokens, bool]]) -> None:
        self.expire()
        batch = [Charge(self.prefix + name, self.prefix + "model", tokens, None, debt) for name, tokens, debt in calls]
        results = self.db.write(ledger.charge_many, batch, actor=SHELL)
        for item, result in zip(batch, results, strict=True):
            cost = self.cost(self.price_at(self.clock.now_ns), item.tokens)
            refused = self.refusal(item.user_id, cost, item.allow_debt)
            if refused:
                assert type(result) is refused
            else:
                assert isinstance(result, Receipt)
                assert result.cost == cost
                self.charged(result)
                assert result.balance == self.known[item.user_id].balance

    @rule(target=holds, name=USERS, tokens=TOKENS, ttl=st.sampled_from([1, 60, 900]))
    def precharge(self, name: str, tokens: Tokens, ttl: int) -> Any:
        self.expire()
        user_id, prices = self.prefix + name, self.price_at(self.clock.now_ns)
        most = self.cost(prices, tokens)
        arguments = (user_id, self.prefix + "model", tokens.prompt, tokens.completion)
        happened = self.ask(self.refusal(user_id, most), ledger.precharge, *arguments, ttl_seconds=ttl)
        if happened is None:
            return multiple()
        receipt = happened[1]
        assert receipt.cost == most
        self.move(user_id, -most)
        self.held[receipt.entry_id] = Held(user_id, most, self.clock.now_ns + ttl * SECOND, prices)
        return receipt.entry_id

    @rule(target=asked, number=holds, tokens=TOKENS)
    def settle(self, number: int, tokens: Tokens) -> Any:
        self.expire()
        held = self.held[number]
        happened = self.ask(None if held.is_open else Conflict, ledger.settle, number, tokens)
        if happened is None:
            return multiple()
        cost = self.cost(held.prices, tokens)
        assert (happened[1].cost, happened[1].amount) == (cost, held.amount - cost)
        held.is_open = False
        self.move(held.user_id, held.amount - cost, cost)
        self.entries[happened[1].entry_id] = Done(held.user_id, cost, -cost)
        return happened

    @rule(target=asked, number=holds)
    def refund(self, number: int) -> Any:
        self.expire()
        held = self.held[number]
        happened = self.ask(None if held.is_open else Conflict, ledger.refund, number)
        if happened is None:
            return multiple()
        held.is_open = False
        self.move(held.user_id, held.amount)
        self.entries[happened[1].entry_id] = Done(held.user_id, -held.amount, 0)
        return happened

    @rule(number=holds)
    def reverse_a_hold(self, number: int) -> None:
        self.expire()
        held = self.held[number]
        if self.ask(None if held.is_open else Conflict, ledger.reverse, number, "a mistake"):
            held.is_open = False
            self.move(held.user_id, held.amount)

    @rule(data=st.data())
    def reverse(self, data: Any) -> None:
        self.expire()
        if not self.entries:
            return
        number = data.draw(st.sampled_from(sorted(self.entries)))
        entry = self.entries[number]
        happened = self.ask(Conflict if entry.is_reversed else None, ledger.reverse, number, "a mistake")
        if happened:
            entry.is_reversed = True
            assert (happened[1].amount, happened[1].cost) == (entry.back, entry.consumed)
            self.move(entry.user_id, entry.back, entry.consumed)
            self.entries[happened[1].entry_id] = Done(entry.user_id, -entry.back, -entry.consumed)

    @rule(name=USERS)
    def freeze_or_unfreeze(self, name: str) -> None:
        known = self.known[self.prefix + name]
        known.frozen = not known.frozen
        status = "frozen" if known.frozen else "active"
        self.db.write(accounts.change, self.prefix + name, actor=SHELL, status=status)

    @rule(first=st.integers(0, 40), second=st.integers(0, 40))
    def change_the_price(self, first: int, second: int) -> None:
        self.prices.append((self.clock.now_ns, first, second))
        micro = (first * 10**6, second * 10**6)
        self.db.write(pricing.set_price, self.prefix + "model", *micro, actor=SHELL)

    @rule(seconds=st.sampled_from([1, 59, 60, 1_000]))
    def wait(self, seconds: int) -> None:
        self.clock.forward(seconds=seconds)

    @rule()
    def set_the_clock_back(self) -> None:
        self.db.write(ledger.expire_holds)  # what has come back by now was read, and stays so
        self.expire()
        self.clock.forward(seconds=-3600)

    @rule(earlier=asked)
    def ask_again(self, earlier: tuple[Callable[[], Receipt], Receipt]) -> None:
        call, first = earlier
        again = call()
        assert again.replayed
        told = ("entry_id", "amount", "cost", "balance", "status")
        assert [getattr(again, name) for name in told] == [getattr(first, name) for name in told]

    @rule()
    def write_down_what_has_expired(self) -> None:
        self.db.write(ledger.expire_holds)

    @invariant()
    def the_balances_are_those_of_the_model(self) -> None:
        self.expire()
        LedgerMachine.steps += 1

        def read(tx: Transaction) -> dict[str, Known]:
            rows = [accounts.find(tx, user_id) for user_id in self.known]
            return {
                row.user_id: Known(ledger.balance(tx, row), row.total_consumed, row.status == "frozen") for row in rows
            }

        try:
            assert self.db.read(read) == self.known
        except accounts.UnknownAccount:
            assert not self.entries  # before `begin`


def test_any_order_of_operations_ends_as_a_short_model_says(db: Database, clock: Clock) -> None:
    # A profile (pytest --hypothesis-profile) may ask for more: it is scaled down here, not replaced.
    LedgerMachine.steps = 0
    chosen = settings(
        max_examples=max(64, settings().max_examples // 2),
        stateful_step_count=50,
        deadline=None,
        derandomize=True,  # the same two thousand steps in every run
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: LedgerMachine(db, clock), settings=chosen)
    assert LedgerMachine.steps >= 2000
    assert one(db, "SELECT count(*) FROM entry") > 0
    assert broken(db) == []
    assert not_integers(db) == []


# 1. Money is integers; prices are exact decimals; no float touches either


def not_integers(db: Database) -> list[str]:
    """Columns that hold anything but whole numbers where money, prices, counts and times stand (SQLite would take it;
    Postgres's columns can't)."""
    if not db.is_sqlite:
        return []
    found = []
    for table in (
        ENTRIES,
        PRICES,
        *(sa.Table(name, sa.MetaData(), autoload_with=db.engine) for name in ("account", "hold", "usage_sum")),
    ):
        for column in table.columns:
            if isinstance(column.type, sa.Integer):
                odd = one(
                    db, f"SELECT count(*) FROM {table.name} WHERE typeof({column.name}) NOT IN ('integer', 'null')"
                )
                found += [f"{table.name}.{column.name}"] if odd else []
    return found


@pytest.mark.parametrize("price", [1.5, 1.0, True, "1", -1, float("nan"), 10**12 + 1], ids=repr)
def test_1_no_float_and_no_price_below_0_gets_into_a_price(db: Database, price: Any) -> None:
    for place in ("input", "output", "cache_read", "cache_write"):
        prices = {"input": 1_000_000, "output": 1_000_000, place: price}
        with pytest.raises(Invalid, match="price") as refused:
            db.write(pricing.set_price, MODEL, actor=SHELL, **prices)
        assert refused.value.field == f"{place}_price"
    assert db.read(pricing.history, MODEL) == []


@pytest.mark.parametrize(("input_price", "output_price"), [(1, None), (None, 1)])
def test_1_a_price_is_whole_or_retired_and_nothing_between(db: Database, input_price: Any, output_price: Any) -> None:
    with pytest.raises(Invalid, match="price"):
        db.write(pricing.set_price, MODEL, input_price, output_price, actor=SHELL)


# 2. A balance is the sum of its entries, and the database refuses to change or delete one


@pytest.mark.parametrize("table", ["entry", "price"])
@pytest.mark.parametrize("change", ["UPDATE {} SET created_at_ns = 0", "DELETE FROM {}", "DELETE FROM {} WHERE id = 1"])
def test_2_the_database_refuses_to_change_or_delete_an_entry_or_a_price(
    db: Database, ann: str, table: str, change: str
) -> None:
    db.write(ledger.charge, ann, MODEL, HUNDRED, actor=SHELL, allow_debt=True)
    with pytest.raises(sa.exc.DBAPIError, match=f"a row of {table} never changes"), db.writer.begin() as connection:
        connection.execute(sa.text(change.format(table)))
    assert one(db, f"SELECT count(*) FROM {table}") == 1
    assert broken(db) == []


def test_2_postgres_refuses_to_empty_the_ledger(postgres_database: str) -> None:
    db = Database(postgres_database)
    for table in ("entry", "price"):
        with pytest.raises(sa.exc.DBAPIError, match="never changes"), db.writer.begin() as connection:
            connection.execute(sa.text(f"TRUNCATE {table} CASCADE"))
    db.close()


def test_2_every_balance_after_is_the_running_sum(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 1_000, actor=SHELL)
    db.write(ledger.charge, ann, MODEL, HUNDRED, actor=SHELL)
    hold = db.write(ledger.precharge, ann, MODEL, 1000, 0, actor=SHELL)
    db.write(ledger.settle, hold.entry_id, Tokens(5000, 0), actor=SHELL)
    db.write(ledger.reverse, 2, "a mistake", actor=SHELL)
    rows = list(logs.every(db, logs.Filters(ann), actor=SHELL))[::-1]
    sums = [sum(row.amount for row in rows[: n + 1]) for n in range(len(rows))]
    assert [row.balance_after for row in rows] == sums
    assert balance(db, ann) == sums[-1] == 1_000 - 900


# 3. A charge never takes a balance below 0


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Run them at the same moment in threads of their own; what each gave or raised."""
    start = Barrier(len(functions))

    def run(function: Callable[[], Any]) -> Any:
        start.wait()
        try:
            return function()
        except BillingError as error:
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(run, function) for function in functions]]


def test_3_charges_from_many_threads_never_go_below_0_nor_lose_a_hao(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 50 * 180 + 179, actor=SHELL)

    def ten_charges() -> list[object]:
        results: list[object] = []
        for _ in range(10):
            try:
                results.append(db.write(ledger.charge, ann, MODEL, HUNDRED, actor=SHELL).balance)
            except InsufficientBalance:
                results.append(None)
        return results

    results = [result for batch in at_once(*[ten_charges] * 8) for result in batch]
    charged = sorted(result for result in results if result is not None)
    assert charged == [179 + 180 * n for n in range(50)]
    assert results.count(None) == 30
    assert balance(db, ann) == 179
    assert broken(db) == []


def test_3_holds_settles_and_recharges_from_many_threads_add_up(db: Database, ann: str, clock: Clock) -> None:
    db.write(ledger.recharge, ann, 100_000, actor=SHELL)

    def calls() -> None:
        for n in range(5):
            hold = db.write(ledger.precharge, ann, MODEL, 1000, 0, actor=SHELL)
            if n % 2:
                db.write(ledger.settle, hold.entry_id, Tokens(1500, 0), actor=SHELL)
            else:
                db.write(ledger.refund, hold.entry_id, actor=SHELL)

    def recharges() -> None:
        for _ in range(5):
            db.write(ledger.recharge, ann, 10, actor=SHELL)

    assert at_once(calls, calls, calls, recharges) == [None] * 4
    assert balance(db, ann) == 100_000 + 50 - 3 * 2 * 270
    assert broken(db) == []


def test_3_batches_across_accounts_in_opposite_orders_never_wait_for_each_other_in_a_circle(db: Database) -> None:
    users = [f"u{n}" for n in range(6)]
    for user_id in users:
        db.write(accounts.add, user_id, user_id, actor=SHELL)
        db.write(ledger.recharge, user_id, 100_000, actor=SHELL)
    deadlocks = []
    sa.event.listen(
        db.engine, "handle_error",
        lambda context: deadlocks.append(context) if getattr(context.original_exception, "sqlstate", "") == "40P01" else None,
    )  # fmt: skip

    def batches(order: list[str]) -> None:
        for _ in range(5):
            db.write(ledger.charge_many, [Charge(user_id, MODEL, HUNDRED) for user_id in order], actor=SHELL)

    assert at_once(lambda: batches(users), lambda: batches(users[::-1]), lambda: batches(users)) == [None] * 3
    assert deadlocks == []
    assert {balance(db, user_id) for user_id in users} == {100_000 - 15 * 180}
    assert broken(db) == []


# 4. Cost = tokens × price, exactly, rounded up once: see test_money.py; here the way into the ledger


def test_4_an_entry_costs_what_its_tokens_cost_at_its_price(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 1_000_000, actor=SHELL)
    prices = [money.parse_price(text) for text in ("10", "30", "1", "12.5")]
    db.write(pricing.set_price, MODEL, *prices[:2], actor=SHELL, cache_read=prices[2], cache_write=prices[3])
    receipt = db.write(ledger.charge, ann, MODEL, Tokens(600, 50, 200, 300, 40), actor=SHELL)
    assert receipt.cost == 65  # 10 + 2 + 37.5 + 15


# 5. An entry keeps the price it was charged at


def test_5_a_new_price_rewrites_nothing_and_what_was_charged_keeps_its_own(
    db: Database, ann: str, clock: Clock
) -> None:
    db.write(ledger.recharge, ann, 1_000_000, actor=SHELL)
    charged = []
    for price in (None, 1, 2, None):
        micro = None if price is None else price * 1_000_000
        if charged:
            db.write(pricing.set_price, MODEL, micro, micro, actor=SHELL)
        charged.append(db.write(ledger.charge, ann, MODEL, HUNDRED, actor=SHELL))
        clock.forward(days=1)
    rows = [db.read(logs.one, receipt.entry_id, actor=SHELL) for receipt in charged]
    assert [(row.cost, row.price_input, row.price_source) for row in rows] == [
        (180, 18_000_000, "default"),
        (10, 1_000_000, "database"),
        (20, 2_000_000, "database"),
        (180, 18_000_000, "default"),
    ]
    assert broken(db) == []


# 6. Whatever is asked twice with one key happens once


def test_6_one_key_from_many_threads_at_once_happens_once_and_answers_all_alike(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 180, actor=SHELL)
    key = Once.of(SHELL, "k", "charge")
    answers = at_once(*[lambda: db.write(ledger.charge, ann, MODEL, HUNDRED, actor=SHELL, once=key)] * 8)
    assert {answer.entry_id for answer in answers} == {2}
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 7
    assert balance(db, ann) == 0
    assert broken(db) == []


@contextmanager
def slow_first(db: Database, operation: Callable[..., Any], *args: Any, **options: Any) -> Iterator[Future[Any]]:
    """`operation` has been done but is not committed while the block runs."""
    done, go_on = Event(), Event()

    def held_open(tx: Transaction) -> Any:
        result = operation(tx, *args, **options)
        done.set()
        go_on.wait(30)
        return result

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(db.write, held_open)
        assert done.wait(30)
        try:
            yield first
        finally:
            go_on.set()


def until_somebody_waits(db: Database) -> None:
    """On Postgres: until another transaction waits for a lock. (SQLite lets no second write begin.)"""
    if not db.is_sqlite:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not one(db, waiting):
            pass


@pytest.mark.parametrize("what", ["charge", "precharge", "settle", "refund", "reverse"])
def test_6_a_retry_while_the_first_is_still_under_way_gets_its_answer(db: Database, ann: str, what: str) -> None:
    """The first leaves nothing to take, to end or to undo: without its key the second would be refused."""
    db.write(ledger.recharge, ann, 180, actor=SHELL)
    db.write(ledger.charge, ann, MODEL, Tokens(0, 0), actor=SHELL)
    operation: dict[str, tuple[Any, ...]] = {
        "charge": (ledger.charge, ann, MODEL, HUNDRED),
        "precharge": (ledger.precharge, ann, MODEL, 1000, 0),
        "reverse": (ledger.reverse, 1, "a mistake"),
    }
    if what in ("settle", "refund"):
        number = db.write(ledger.precharge, ann, MODEL, 1000, 0, actor=SHELL).entry_id
        operation = {"settle": (ledger.settle, number, HUNDRED), "refund": (ledger.refund, number)}
    key = Once.of(SHELL, "k", what)
    with ThreadPoolExecutor(1) as pool:
        with slow_first(db, *operation[what], actor=SHELL, once=key) as first:
            second = pool.submit(db.write, *operation[what], actor=SHELL, once=key)
            until_somebody_waits(db)
        assert second.result().entry_id == first.result().entry_id
        assert second.result().replayed
    assert broken(db) == []


CRASHING = """
import sys
from billing_core import ledger
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.idempotency import Once
from billing_core.ledger import Charge
from billing_core.tokens import Tokens
db = Database(sys.argv[1])
for n in range(10_000):
    batch = [Charge("ann", "nobody/knows", Tokens(1000, 0), once=Once.of(SHELL, f"{n}-{m}", n, m)) for m in range(3)]
    print(*(one.entry_id for one in db.write(ledger.charge_many, batch, actor=SHELL)), flush=True)
"""


def test_6_what_was_acknowledged_before_a_crash_is_there_and_is_not_charged_again(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 10**9, actor=SHELL)
    command = [sys.executable, "-c", CRASHING, db.url]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    ) as process:
        assert process.stdout
        told = [process.stdout.readline() for _ in range(20)]
        process.kill()
        told += process.stdout.read().splitlines(keepends=True)
    acknowledged = [[int(number) for number in line.split()] for line in told if line.endswith("\n")]
    assert len(acknowledged) >= 20
    db.engine.dispose()
    assert broken(db) == []
    for n, numbers in enumerate(acknowledged):
        batch = [Charge(ann, MODEL, HUNDRED, once=Once.of(SHELL, f"{n}-{m}", n, m)) for m in range(3)]
        again = db.write(ledger.charge_many, batch, actor=SHELL)
        assert [receipt.entry_id for receipt in again if isinstance(receipt, Receipt)] == numbers
    entries = one(db, "SELECT count(*) FROM entry WHERE type = 'deduct'")
    assert entries % 3 == 0  # a batch is there as a whole or not at all
    assert balance(db, ann) == 10**9 - entries * 180


# 7. A precharge ends once


def test_7_a_hold_that_many_threads_end_at_once_ends_once(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 1_000, actor=SHELL)
    number = db.write(ledger.precharge, ann, MODEL, 1000, 0, actor=SHELL).entry_id
    results = at_once(
        lambda: db.write(ledger.settle, number, HUNDRED, actor=SHELL),
        lambda: db.write(ledger.refund, number, actor=SHELL),
        lambda: db.write(ledger.reverse, number, "stuck", actor=SHELL),
        lambda: db.write(ledger.settle, number, Tokens(1, 0), actor=SHELL),
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 3 + ["Receipt"]
    assert broken(db) == []


def test_7_holds_that_many_threads_find_expired_come_back_once(db: Database, ann: str, clock: Clock) -> None:
    db.write(ledger.recharge, ann, 1_000, actor=SHELL)
    for _ in range(5):
        db.write(ledger.precharge, ann, MODEL, 1000, 0, actor=SHELL, ttl_seconds=60)
    clock.forward(seconds=60)
    results = at_once(
        *[lambda: db.write(ledger.expire_holds)] * 3,
        *[lambda: db.write(ledger.recharge, ann, 1, actor=SHELL)] * 3,
    )
    assert sum(result for result in results if isinstance(result, int)) <= 5
    assert balance(db, ann) == 1_003
    assert one(db, "SELECT count(*) FROM entry WHERE type = 'expire'") == 5
    assert broken(db) == []


# 8. Time is stored as UTC


@pytest.mark.parametrize("name", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_8_what_is_stored_is_the_same_whatever_zone_it_is_read_in(
    db: Database, ann: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TZ", name)
    receipt = db.write(ledger.recharge, ann, 1, actor=SHELL)
    row = db.read(logs.one, receipt.entry_id, actor=SHELL)
    assert row.created_at_ns == NOON
    shown = stats.from_ns(row.created_at_ns, zone(name))
    assert stats.to_ns(shown) == NOON


# 9. What a viewer may not do is refused by the core


def test_9_a_member_sees_and_does_nothing_beyond_their_own(db: Database, ann: str) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    entry = db.write(ledger.recharge, "bob", 1_000, actor=SHELL).entry_id
    day = stats.last_periods(NOON, "day", zone(None))
    member = Actor(db.read(accounts.find, ann).id, ann, "Ann")
    refused: list[Callable[[], Any]] = [
        lambda: db.write(ledger.recharge, "ann", 1, actor=member),
        lambda: db.write(ledger.reverse, entry, "why", actor=member),
        lambda: db.write(ledger.charge, "ann", MODEL, HUNDRED, actor=member),
        lambda: db.write(pricing.set_price, MODEL, 0, 0, actor=member),
        lambda: db.write(pricing.retire, MODEL, actor=member),
        lambda: db.write(accounts.add, "carl", "Carl", actor=member),
        lambda: db.write(accounts.change, "ann", actor=member, role="admin"),
        lambda: db.read(accounts.listed, actor=member),
        lambda: db.read(logs.page, logs.Filters("bob"), actor=member),
        lambda: db.read(logs.page, logs.Filters(None), actor=member),
        lambda: db.read(logs.total, logs.Filters("bob"), actor=member),
        lambda: list(logs.every(db, logs.Filters(None), actor=member)),
        lambda: db.read(stats.usage, day, actor=member, user_id="bob"),
        lambda: db.read(stats.usage, day, actor=member, user_id=None),
        lambda: db.read(stats.spent, day, actor=member, user_id="bob"),
    ]
    for operation in refused:
        with pytest.raises(Forbidden):
            operation()
    assert one(db, "SELECT count(*) FROM entry") == 1
