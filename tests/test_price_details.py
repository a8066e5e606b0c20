"""Small things about prices and what calls used that only show when something else goes wrong."""

from decimal import Decimal
from typing import Any

import pytest
from conftest import NOON, SECOND, Clock
from sums_reference import NUMBERS, kept

from billing_core import accounts, audit, ledger, price_rules, pricing
from billing_core.actors import SHELL, Actor
from billing_core.database import Database
from billing_core.errors import Forbidden, Invalid
from billing_core.idempotency import Once
from billing_core.ledger import Charge
from billing_core.models import MODEL, Account, Entry, Price, PriceChange, PriceRule, PriceWithdrawal
from billing_core.pricing import Change
from billing_core.rates import More, Prices, Tier
from billing_core.tokens import Extras, Tokens, extras_from

YUAN = 1_000_000
DAY = 86_400 * SECOND
ONE = Tokens(1, 1)
BOSS = Actor(1, "boss", "Boss", is_admin=True)


def put(db: Database, input: int, model: str = "m", **options: Any) -> int:
    row: Price = db.write(pricing.set_price, model, input, input, actor=SHELL, **options)
    return row.id or 0


def charge(db: Database, model: str, tokens: Tokens = ONE) -> Entry:
    receipt = db.write(ledger.charge, "ann", model, tokens, actor=SHELL, allow_debt=True)
    return db.read(lambda tx: tx.session.get_one(Entry, receipt.entry_id))


def row(db: Database, table: Any, key: int | None) -> Any:
    return db.read(lambda tx: tx.session.get_one(table, key))


# As it is kept


def test_components_are_kept_in_one_canonical_form() -> None:
    more = More(
        call=1, cache_write_1h=2, tools=(("b", 3), ("c", 4)), service_tiers=(("batch", 5),), tiers=(Tier(7, 8, 9),)
    )
    assert more.as_json() == (
        '{"cache_write_1h":2,"call":1,"service_tiers":{"batch":5},"tiers":[{"above":7,"input":8,"output":9}],'
        '"tools":{"b":3,"c":4}}'
    )


def test_extras_are_kept_in_one_canonical_form() -> None:
    extras = Extras(1, tools=(("x", 2),), service_tier="b", stated_total=3, cut=("cached", "reasoning"))
    kept = '{"cache_creation_1h":1,"cut":["cached","reasoning"],"service_tier":"b","stated_total":3,"tools":{"x":2}}'
    assert (extras.as_json(), extras_from(kept)) == (kept, extras)


def test_what_two_rounds_say_is_put_together() -> None:
    one, two = Extras(tools=(("a", 1),), cut=("cached",)), Extras(tools=(("b", 2),), cut=("reasoning",))
    assert one + two == Extras(tools=(("a", 1), ("b", 2)), cut=("cached", "reasoning"))
    third = (one + Extras(upstream_usd=Decimal("0.1"))).upstream_usd
    assert isinstance(third, Decimal)


def test_a_lines_kind_is_the_call_or_the_tools_name() -> None:
    rates = pricing.as_rates(Prices(1, 1, more=More(call=1, tools=(("x", 2),))))
    lines = rates.lines(Tokens(0, 0, extras=Extras(tools=(("x", 1), ("y", 1)))))
    assert [(line.kind, line.price) for line in lines] == [("call", 1), ("x", 2), ("y", 0)]


# Which price


def test_a_call_of_the_past_pays_the_price_of_its_time_of_several(db: Database, clock: Clock) -> None:
    for price in (1, 2, 3):
        put(db, price * YUAN)
        clock.forward(days=1)
    assert [db.read(pricing.in_force, "m", NOON + days * DAY).input for days in (0, 1, 2, 3)] == [
        YUAN,
        2 * YUAN,
        3 * YUAN,
        3 * YUAN,
    ]


def test_an_entry_names_the_set_price_itself_and_a_built_in_one_without_an_origin(db: Database, ann: str) -> None:
    price = put(db, 5)
    assert charge(db, "m").price_id == price
    built_in = row(db, Price, charge(db, "openai/gpt-4o").price_id)
    assert (built_in.source, built_in.origin) == ("catalogue", None)
    assert db.read(pricing.charged_at, built_in.id).source == "catalogue"
    assert [one.model for one in db.read(pricing.listed)] == ["m"]


def test_a_price_of_only_one_kind_of_token_is_none(db: Database) -> None:
    """Nobody can set one: a database that somebody else wrote to holds it."""

    def write(tx: Any) -> None:
        half = Price(
            model_id=pricing.model_number(tx, "m"), source="database", input=5, valid_from_ns=0, created_at_ns=0
        )
        tx.session.add(half)

    db.write(write)
    assert db.read(pricing.in_force, "m").source == "default"
    assert [one.prices for one in db.read(pricing.listed)] == [None]


def test_what_a_rule_decided_is_no_price_of_the_model(db: Database, ann: str) -> None:
    put(db, 5)
    db.write(price_rules.set_rule, "x/*", "*", actor=SHELL)
    kept = row(db, Price, charge(db, "x/m").price_id)
    assert kept.origin == '{"as":"m","rule":"x/*","source":"database"}'
    assert {one.model: one.rates.priced_as for one in db.read(pricing.current)} == {"m": None, "x/m": "m"}
    db.write(price_rules.end_rule, "x/*", actor=SHELL)
    assert db.read(pricing.in_force, "x/m").source == "default"


def test_prices_are_listed_by_model_each_with_its_own(db: Database, clock: Clock, ann: str) -> None:
    put(db, 1, "b", more=More(call=7))
    put(db, 2, "a")
    clock.forward(seconds=1)
    put(db, 3, "b", more=More(call=8))
    put(db, 4, "b", more=More(call=9))
    later = [put(db, 5, "b", valid_from_ns=clock.now_ns + DAY), put(db, 6, "a", valid_from_ns=clock.now_ns + DAY)]
    assert [(one.model, one.input) for one in db.read(pricing.listed)] == [("a", 2), ("b", 4)]
    assert [(one.model, one.input) for one in db.read(pricing.history, "b")] == [("b", 5), ("b", 4), ("b", 3), ("b", 1)]
    every = [(one.model, one.input) for one in db.read(pricing.history)]
    assert every == [("a", 6), ("a", 2), ("b", 5), ("b", 4), ("b", 3), ("b", 1)]
    assert [one.price_id for one in db.read(pricing.planned)] == later
    assert [one.prices.more for one in db.read(pricing.current)] == [None, More(call=9)]
    charge(db, "openai/gpt-4o")
    assert [one.model for one in db.read(pricing.history, "openai/gpt-4o")] == []


# Who, and what is noted


def test_who_set_withdrew_and_changed_is_kept(db: Database, clock: Clock) -> None:
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    price = db.write(pricing.set_price, "m", 1, 1, actor=BOSS, valid_from_ns=clock.now_ns + DAY)
    db.write(pricing.withdraw, price.id, actor=BOSS)
    change = db.write(pricing.apply, [Change("n", Prices(1, 1), None)], actor=BOSS, what="list")
    assert {
        row(db, table, key).operator_id
        for table, key in ((Price, price.id), (PriceWithdrawal, price.id), (PriceChange, change))
    } == {1}


def test_a_plan_is_noted_against_what_counts_by_then(db: Database, clock: Clock) -> None:
    put(db, YUAN)
    put(db, 2 * YUAN, valid_from_ns=clock.now_ns + DAY)
    put(db, 3 * YUAN, valid_from_ns=clock.now_ns + 2 * DAY, more=More(call=1))
    noted = db.read(audit.page, actor=SHELL, kind="price")[0].detail
    assert (noted["input"], noted["more"]) == ([2 * YUAN, 3 * YUAN], [None, '{"call":1}'])


def test_changes_from_the_page_keep_every_component(db: Database) -> None:
    wanted = Prices(1, 2, 3, 4, More(call=5))
    db.write(pricing.apply, [Change("m", wanted, None)], actor=SHELL)
    assert db.read(pricing.listed)[0].prices == wanted


def test_many_prices_can_be_planned(db: Database, clock: Clock) -> None:
    db.write(
        pricing.apply, [Change("m", Prices(1, 1), None)], actor=SHELL, what="list", valid_from_ns=clock.now_ns + DAY
    )
    assert db.read(pricing.in_force, "m").source == "default"
    noted = audit.sentence(db.read(audit.page, actor=SHELL, kind="price")[0], when=lambda ns: str(ns - clock.now_ns))
    assert noted == f"The shell set prices from list, 1 in all (change 1), from {DAY} on"


def test_changes_are_listed_newest_first_fifty_of_them(db: Database, clock: Clock) -> None:
    for n in range(51):
        clock.forward(seconds=1)
        changes = [Change(f"m{n}", Prices(1, 1), None), *([Change("x", Prices(1, 1), None)] if n == 50 else [])]
        db.write(pricing.apply, changes, actor=SHELL, what=f"list {n}")
    found = db.read(pricing.changes)
    assert [one.id for one in found] == list(range(51, 1, -1))
    assert (found[0].models, found[1].models, found[0].at_ns, found[0].what) == (2, 1, clock.now_ns, "list 50")


def test_undoing_goes_on_past_what_is_left_alone_and_knows_only_set_prices(
    db: Database, clock: Clock, ann: str
) -> None:
    charge(db, "openai/gpt-4o")
    for price in (1, 2, 3):
        clock.forward(seconds=1)
        put(db, price, "c")
    clock.forward(seconds=1)
    names = ("a", "openai/gpt-4o", "c")
    seen = {one.model: one.price_id for one in db.read(pricing.listed)}
    change = db.write(
        pricing.apply, [Change(name, Prices(9, 9), seen.get(name)) for name in names], actor=SHELL, what="list"
    )
    put(db, 5, "a")
    assert db.write(pricing.undo_change, change, actor=SHELL) == (2, 1)
    assert db.read(pricing.in_force, "openai/gpt-4o").source == "catalogue"
    assert db.read(pricing.in_force, "c").input == 3
    assert db.read(pricing.in_force, "a").input == 5


def test_a_plan_that_was_withdrawn_by_hand_is_not_undone_once_more(db: Database, clock: Clock) -> None:
    change = db.write(
        pricing.apply, [Change(name, Prices(1, 1), None) for name in "ab"], actor=SHELL, what="list",
        valid_from_ns=clock.now_ns + DAY,
    )  # fmt: skip
    db.write(pricing.withdraw, db.read(pricing.history, "a")[0].price_id, actor=SHELL)
    assert db.write(pricing.undo_change, change, actor=SHELL) == (1, 1)


# Upstream


@pytest.mark.parametrize("usd", [0, 1000])
def test_the_least_and_the_most_that_a_call_can_cost_upstream_is_kept(db: Database, ann: str, usd: int) -> None:
    assert charge(db, "m", Tokens(1, 1, extras=Extras(upstream_usd=Decimal(usd)))).upstream_usd == usd * 10**12


def test_a_settle_keeps_what_the_call_cost_upstream(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 10**9, actor=SHELL)
    for model, used, pico in (
        ("m", Tokens(1, 1, extras=Extras(upstream_usd=Decimal("0.5"))), 5 * 10**11),
        ("openai/gpt-4o", Tokens(1_000_000, 0), 25 * 10**11),
    ):
        held = db.write(ledger.precharge, ann, model, 10, 10, actor=SHELL)
        settled = row(db, Entry, db.write(ledger.settle, held.entry_id, used, actor=SHELL).entry_id)
        assert settled.upstream_usd == pico
    place = NUMBERS.index("upstream_yuan")
    assert sum(numbers[place] for key, numbers in kept(db).items() if key[:2] == (MODEL, 1)) == 21_600_000_000
    held = db.write(ledger.precharge, ann, "m", 10, 10, actor=SHELL)
    round_of_another = ("openai/gpt-4o", Tokens(1_000_000, 0))
    done = db.write(ledger.settle, held.entry_id, Tokens(1, 1), actor=SHELL, others=(round_of_another,))
    assert row(db, Entry, done.other_ids[0]).upstream_usd == 25 * 10**11


# Charges and holds


def test_a_batchs_calls_keep_their_moment_and_their_rounds(db: Database, ann: str) -> None:
    call = Charge(ann, "m", ONE, NOON - DAY, allow_debt=True, others=(("n", ONE),))
    (done,) = db.write(ledger.charge_many, [call], actor=SHELL)
    assert isinstance(done, ledger.Receipt)
    assert (done.created_at_ns, len(done.other_ids)) == (NOON - DAY, 1)


def test_a_write_leaves_the_holds_of_others_alone(db: Database, ann: str, clock: Clock) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    for name, seconds in (("ann", 60), ("ann", 600), ("bob", 50), ("bob", 500)):
        db.write(ledger.recharge, name, 10**6, actor=SHELL)
        db.write(ledger.precharge, name, "m", 1, 1, actor=SHELL, ttl_seconds=seconds)
    clock.forward(seconds=100)
    db.write(ledger.recharge, "ann", 1, actor=SHELL)

    def deadlines(tx: Any) -> list[int | None]:
        return [tx.session.get_one(Account, number).hold_expires_at_ns for number in (1, 2)]

    assert db.read(deadlines) == [NOON + 600 * SECOND, NOON + 50 * SECOND]


def test_a_balance_that_an_expired_hold_makes_just_enough_pays(db: Database, ann: str, clock: Clock) -> None:
    put(db, YUAN)
    db.write(ledger.recharge, ann, 100, actor=SHELL)
    held = db.write(ledger.precharge, ann, "m", 10_000, 0, actor=SHELL)
    assert held.balance == 0
    clock.forward(days=1)
    shown = db.read(ledger.preview_reversal, 1, actor=SHELL)
    assert (shown.before, shown.after) == (100, 0)
    assert db.write(ledger.charge, ann, "m", Tokens(10_000, 0), actor=SHELL).balance == 0


def test_a_repeated_settle_tells_of_a_frozen_account_again(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 10**6, actor=SHELL)
    held = db.write(ledger.precharge, ann, "m", 1, 1, actor=SHELL)
    db.write(accounts.change, ann, actor=SHELL, status="frozen")
    once = Once.of(SHELL, "key", "settle")
    first, again = (db.write(ledger.settle, held.entry_id, ONE, actor=SHELL, once=once) for _ in range(2))
    assert (first.status, again.status, again.replayed) == ("frozen", "frozen", True)


def test_history_and_plans_are_in_the_order_of_their_starts(db: Database, clock: Clock) -> None:
    put(db, 1, valid_from_ns=clock.now_ns + 2 * DAY)
    put(db, 2, valid_from_ns=clock.now_ns + DAY)
    put(db, 3)
    assert [one.input for one in db.read(pricing.history, "m")] == [1, 2, 3]
    assert [one.input for one in db.read(pricing.planned)] == [2, 1]
    withdrawn = db.write(pricing.withdraw, db.read(pricing.planned)[0].price_id, actor=SHELL)
    assert (withdrawn.model, withdrawn.input, withdrawn.withdrawn) == ("m", 2, True)


def test_a_plan_that_was_withdrawn_before_its_start_is_left_alone_after_it(db: Database, clock: Clock) -> None:
    later = clock() + 3600 * 10**9
    change = db.write(
        pricing.apply, [Change("a", Prices(1, 1), None), Change("b", Prices(1, 1), None)], actor=SHELL,
        valid_from_ns=later, what="a list",
    )  # fmt: skip
    assert change is not None
    db.write(pricing.withdraw, db.read(pricing.history, "a")[0].price_id, actor=SHELL)
    clock.forward(seconds=7200)
    assert db.write(pricing.undo_change, change, actor=SHELL) == (1, 1)
    assert db.read(pricing.history, "a")[0].withdrawn
    assert len(db.read(pricing.history, "a")) == 1


def test_undoing_brings_back_the_newest_of_before_with_where_it_came_from(db: Database, clock: Clock) -> None:
    put(db, 9, valid_from_ns=clock.now_ns + 2 * SECOND)
    put(db, 8, valid_from_ns=clock.now_ns + SECOND)
    db.write(pricing.withdraw, put(db, 7, valid_from_ns=clock.now_ns + 3 * SECOND), actor=SHELL)
    clock.forward(seconds=5)
    origin = '{"catalogue":"old"}'
    changes = []
    for price, origin_of in ((20, origin), (30, '{"catalogue":"new"}')):
        seen = db.read(pricing.in_force, "m").price_id
        changes.append(
            db.write(pricing.apply, [Change("m", Prices(price, 1), seen, origin_of)], actor=SHELL, what="list")
        )
        clock.forward(seconds=1)
    db.write(pricing.undo_change, changes[1], actor=SHELL)
    (again,) = db.read(pricing.listed)
    assert (again.model, again.input, again.origin) == ("m", 20, origin)
    undoing = db.read(lambda tx: tx.session.get_one(Price, again.price_id).change_id)
    assert undoing not in (None, *changes)
    assert db.read(pricing.from_lists) == ["m"]
    clock.forward(seconds=1)
    put(db, 40)
    assert db.read(pricing.from_lists) == []


def test_undoing_a_first_price_of_a_list_brings_back_the_one_set_last_before(db: Database, clock: Clock) -> None:
    put(db, 9, valid_from_ns=clock.now_ns + 2 * SECOND)
    put(db, 8, valid_from_ns=clock.now_ns + SECOND)
    db.write(pricing.withdraw, put(db, 7, valid_from_ns=clock.now_ns + 3 * SECOND), actor=SHELL)
    clock.forward(seconds=5)
    seen = db.read(pricing.in_force, "m").price_id
    change = db.write(pricing.apply, [Change("m", Prices(20, 1), seen)], actor=SHELL, what="list")
    db.write(pricing.undo_change, change, actor=SHELL)
    assert db.read(pricing.in_force, "m").input == 9


def test_a_rule_shows_what_it_would_change_before_it_is_set(db: Database, ann: str) -> None:
    put(db, 5, "house/own")
    put(db, 6, "router/priced")
    for model in ("router/house/own", "router/x", "other"):
        charge(db, model)
    models = ["router/house/own", "router/priced", "router/x", "other"]
    changed = db.read(pricing.preview_rule, "router/*", "*", models, actor=SHELL)
    assert [(model, before.source, after.priced_as) for model, before, after in changed] == [
        ("router/house/own", "default", "house/own")
    ]
    rule = db.write(price_rules.set_rule, "router/*", "*", actor=SHELL)
    assert (rule.pattern, rule.target, rule.since_ns) == ("router/*", "*", db.clock())
    assert db.read(price_rules.listed) == [rule]
    assert db.read(pricing.preview_rule, "router/*", "*", models, actor=SHELL) == []
    db.write(price_rules.set_rule, "mine/*", "house/own", actor=SHELL)
    charge(db, "mine/x")
    models.append("mine/x")
    narrower = db.read(pricing.preview_rule, "router/house/*", "router/priced", models, actor=SHELL)
    assert [(model, before.input, after.input) for model, before, after in narrower] == [("router/house/own", 5, 6)]
    instead = db.read(pricing.preview_rule, "router/*", "router/priced", models, actor=SHELL)
    assert [model for model, _before, _after in instead] == ["router/house/own", "router/x"]
    with pytest.raises(Forbidden):
        db.read(pricing.preview_rule, "a", "b", models, actor=Actor(1, "ann", "Ann"))


def test_there_are_so_many_rules_and_no_more(db: Database) -> None:
    db.write(lambda tx: [price_rules.set_rule(tx, f"{n}*****", "x", actor=SHELL) for n in range(500)])
    db.write(price_rules.set_rule, "7*****", "y" * 200, actor=SHELL)
    with pytest.raises(Invalid) as refused:
        db.write(price_rules.set_rule, "one more", "x", actor=SHELL)
    assert (str(refused.value), refused.value.field) == (
        "There are 500 rules, which is the most. End one first.",
        "pattern",
    )
    db.write(price_rules.end_rule, "7*****", actor=SHELL)
    db.write(price_rules.set_rule, "x" * 200, "x", actor=SHELL)


def test_who_set_a_rule_is_kept_and_what_is_no_text_is_none(db: Database) -> None:
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    db.write(price_rules.set_rule, "a", "b", actor=BOSS)
    assert row(db, PriceRule, 1).operator_id == 1
    with pytest.raises(Invalid):
        db.write(price_rules.set_rule, None, "b", actor=SHELL)
    with pytest.raises(Invalid):
        db.write(price_rules.set_rule, "a", 7, actor=SHELL)


def test_a_model_keeps_its_number(db: Database) -> None:
    put(db, 1, "b")
    put(db, 1, "a")
    assert db.read(pricing.model_names) == {"a": 2, "b": 1}


def test_what_a_rule_gives_is_previewed_and_listed(db: Database, ann: str) -> None:
    put(db, 5, "house/own")
    put(db, 6, "router/house/own")
    db.write(price_rules.set_rule, "router/*", "*", actor=SHELL)
    db.write(price_rules.set_rule, "mine/*", "openai/*", actor=SHELL)
    charge(db, "mine/gpt-4o")
    seen = db.read(pricing.in_force, "router/house/own").price_id
    ((before, after),) = db.read(pricing.preview, [Change("router/house/own", None, seen)])
    assert (before.input, after.input, after.priced_as) == (6, 5, "house/own")
    assert {one.model: one.rates.priced_as for one in db.read(pricing.current)}["mine/gpt-4o"] == "openai/gpt-4o"
    assert not any(one.withdrawn for one in db.read(pricing.listed))
