"""Prices that are planned and withdrawn, and many that are changed, and undone, at once."""

import time
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

import pytest
from conftest import NOON, SECOND, Clock
from hypothesis import given
from hypothesis import strategies as st
from sums_reference import NUMBERS, kept

from billing_core import audit, ledger, pricing, stats
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import Conflict, Forbidden, Invalid, NotFound
from billing_core.models import MODEL, Entry
from billing_core.pricing import Change, Upstream
from billing_core.rates import More, Prices
from billing_core.tokens import Extras, Tokens
from billing_core.zones import zone

YUAN = 1_000_000
DAY = 86_400 * SECOND
MEMBER = Actor(1, "ann", "Ann")


def put(db: Database, input: int | None, model: str = "m", **options: Any) -> int:
    row = db.write(pricing.set_price, model, input, input, actor=SHELL, **options)
    return row.id or 0


def input_now(db: Database, model: str = "m") -> int:
    return db.read(pricing.in_force, model).input


def apply(db: Database, inputs: dict[str, int | None], **options: Any) -> int:
    changes = []
    for model, micro in inputs.items():
        found = db.read(pricing.in_force, model)
        seen = found.price_id if found.source == "database" else None
        changes.append(Change(model, None if micro is None else Prices(micro, micro), seen, '{"catalogue": "list"}'))
    done = db.write(pricing.apply, changes, actor=SHELL, what="list", **options)
    assert done is not None
    return done


def test_a_plan_counts_once_the_clock_is_past_it(db: Database, clock: Clock) -> None:
    put(db, 1 * YUAN)
    put(db, 2 * YUAN, valid_from_ns=clock.now_ns + DAY)
    assert input_now(db) == 1 * YUAN
    clock.forward(days=1)
    counts = db.read(pricing.in_force, "m")
    assert (counts.input, counts.source, counts.valid_from_ns) == (2 * YUAN, "database", clock.now_ns)
    assert [one.rates for one in db.read(pricing.current)] == [counts]
    assert db.read(pricing.planned) == []


def test_a_call_whose_clock_is_ahead_pays_no_price_that_is_still_planned(db: Database, clock: Clock, ann: str) -> None:
    put(db, 1 * YUAN)
    plan = put(db, 2 * YUAN, valid_from_ns=clock.now_ns + 60 * SECOND)
    ahead = {"created_at_ns": clock.now_ns + 120 * SECOND, "allow_debt": True}
    done = db.write(ledger.charge, ann, "m", Tokens(1_000_000, 0), actor=SHELL, **ahead)
    assert (done.cost, done.created_at_ns) == (10_000, ahead["created_at_ns"])
    db.write(pricing.withdraw, plan, actor=SHELL)


def test_a_withdrawn_plan_never_counts(db: Database, clock: Clock) -> None:
    put(db, 1 * YUAN)
    plan = put(db, 2 * YUAN, valid_from_ns=clock.now_ns + DAY)
    assert [one.price_id for one in db.read(pricing.planned)] == [plan]
    db.write(pricing.withdraw, plan, actor=SHELL)
    assert db.read(pricing.planned) == []
    clock.forward(days=2)
    assert input_now(db) == 1 * YUAN
    assert [(one.input, one.withdrawn) for one in db.read(pricing.history, "m")] == [
        (2 * YUAN, True),
        (1 * YUAN, False),
    ]
    assert [one.input for one in db.read(pricing.listed)] == [1 * YUAN]
    (noted, *_) = db.read(audit.page, actor=SHELL, kind="price")
    assert audit.sentence(noted, when=lambda _ns: "then") == "The shell withdrew the planned price of m, from then on"


def test_a_first_price_that_was_withdrawn_is_not_what_late_calls_pay(db: Database, clock: Clock, ann: str) -> None:
    plan = put(db, 9 * YUAN, valid_from_ns=clock.now_ns + DAY)
    db.write(pricing.withdraw, plan, actor=SHELL)
    clock.forward(days=2)
    put(db, 3 * YUAN)
    assert db.read(pricing.in_force, "m", clock.now_ns - 3 * DAY).input == 3 * YUAN


def test_only_a_plan_can_be_withdrawn_once_by_an_admin(db: Database, clock: Clock) -> None:
    counts, plan = put(db, 1), put(db, 2, valid_from_ns=clock.now_ns + DAY)
    with pytest.raises(Forbidden):
        db.write(pricing.withdraw, plan, actor=MEMBER)
    with pytest.raises(Conflict, match="counts already"):
        db.write(pricing.withdraw, counts, actor=SHELL)
    for unknown in (0, 99, -1, 2**63):
        with pytest.raises(NotFound, match="There is no planned price"):
            db.write(pricing.withdraw, unknown, actor=SHELL)
    db.write(pricing.withdraw, plan, actor=SHELL)
    with pytest.raises(Conflict, match="has been withdrawn already"):
        db.write(pricing.withdraw, plan, actor=SHELL)


def test_many_prices_are_one_change_that_is_undone_as_one(db: Database) -> None:
    put(db, 1 * YUAN, "a", more=More(call=7))
    put(db, 5 * YUAN, "gone")
    builtin = input_now(db, "openai/gpt-4o")
    change = apply(db, {"a": 2 * YUAN, "gone": None, "openai/gpt-4o": 3 * YUAN})
    assert [input_now(db, model) for model in ("a", "openai/gpt-4o")] == [2 * YUAN, 3 * YUAN]
    assert db.read(pricing.in_force, "gone").source == "default"
    (one,) = db.read(pricing.changes)
    assert (one.id, one.what, one.models, one.undone) == (change, "list", 3, False)
    assert {price.origin for price in db.read(pricing.listed)} == {'{"catalogue": "list"}'}
    assert db.write(pricing.undo_change, change, actor=SHELL) == (3, 0)
    assert [input_now(db, model) for model in ("a", "gone", "openai/gpt-4o")] == [1 * YUAN, 5 * YUAN, builtin]
    assert db.read(pricing.in_force, "a").more == More(call=7)
    (one,) = db.read(pricing.changes)
    assert one.undone
    with pytest.raises(Conflict, match="has been undone already"):
        db.write(pricing.undo_change, change, actor=SHELL)
    sentences = [audit.sentence(row) for row in db.read(audit.page, actor=SHELL, kind="price")][:2]
    assert sentences == [
        f"The shell undid change {change} of prices from list, 3 in all",
        f"The shell set prices from list, 3 in all (change {change})",
    ]
    assert not check(db)


def test_undoing_leaves_alone_what_was_set_since_and_withdraws_what_is_planned(db: Database, clock: Clock) -> None:
    put(db, 1 * YUAN, "a")
    change = apply(db, {"a": 2 * YUAN, "b": 2 * YUAN})
    put(db, 9 * YUAN, "b")
    assert db.write(pricing.undo_change, change, actor=SHELL) == (1, 1)
    assert [input_now(db, model) for model in ("a", "b")] == [1 * YUAN, 9 * YUAN]
    planned = apply(db, {"a": 4 * YUAN, "b": 4 * YUAN}, valid_from_ns=clock.now_ns + DAY)
    assert db.write(pricing.undo_change, planned, actor=SHELL) == (2, 0)
    clock.forward(days=2)
    assert [input_now(db, model) for model in ("a", "b")] == [1 * YUAN, 9 * YUAN]


def test_a_change_of_many_is_made_whole_or_not_at_all(db: Database) -> None:
    with pytest.raises(Invalid):
        apply(db, {"a": 2 * YUAN, "b": -1})
    assert db.read(pricing.listed) == db.read(pricing.changes) == []
    with pytest.raises(Forbidden):
        db.write(pricing.apply, [], actor=MEMBER, what="list")
    with pytest.raises(Forbidden):
        db.write(pricing.undo_change, 1, actor=MEMBER)
    with pytest.raises(NotFound, match="There is no change of prices 7"):
        db.write(pricing.undo_change, 7, actor=SHELL)


# What it cost upstream


@given(st.integers(0, 10**24), st.sampled_from([2, 10, 10**6, 10**15]))
def test_what_a_call_costs_upstream_is_rounded_as_decimals_are(number: int, unit: int) -> None:
    with localcontext(prec=60):
        for exact in (number, number // unit * unit + unit // 2, number // unit * unit + unit // 2 + 1):
            assert pricing._rounded(exact, unit) == int((Decimal(exact) / unit).to_integral_value())


def charged(db: Database, model: str, tokens: Tokens) -> Entry:
    db.write(ledger.recharge, "ann", 10**9, actor=SHELL)
    receipt = db.write(ledger.charge, "ann", model, tokens, actor=SHELL)
    return db.read(lambda tx: tx.session.get_one(Entry, receipt.entry_id))


def test_what_the_provider_states_is_kept_in_dollars_and_yuan(db: Database, ann: str) -> None:
    entry = charged(db, "house/own", Tokens(10, 1, extras=Extras(upstream_usd=Decimal("0.0001437"))))
    assert (entry.upstream_usd, entry.upstream_yuan) == (143_700_000, 1_034_640)
    assert entry.extras is None


def test_what_the_catalogue_knows_is_kept_where_the_provider_says_nothing(db: Database, ann: str) -> None:
    put(db, 100 * YUAN, "openai/gpt-4o")
    entry = charged(db, "openai/gpt-4o", Tokens(1_000_000, 0))
    assert (entry.upstream_usd, entry.upstream_yuan) == (2_500_000_000_000, 18_000_000_000)
    assert entry.cost == 1_000_000


def test_more_than_a_call_can_cost_upstream_is_not_noted(db: Database) -> None:
    for tokens, usd in ((400_000_000, 1000 * 10**12), (400_000_001, None)):  # at 2.5 US dollars a million
        asked = db.read(upstream, "openai/gpt-4o", Tokens(tokens, 0), NOON)
        assert (asked and asked.usd) == usd


def test_a_call_of_which_nobody_knows_what_it_cost_upstream_is_repriced_without_that(db: Database, ann: str) -> None:
    entry = charged(db, "house/own", Tokens(10**6, 0))
    price = put(db, 5 * YUAN, model="house/own")
    done = db.write(ledger.reprice, entry.id or 0, price, "too dear", actor=SHELL)
    again = db.read(lambda tx: tx.session.get_one(Entry, done.other_ids[0]))
    assert (again.cost, again.upstream_usd, again.upstream_yuan) == (50_000, None, None)


def upstream(tx: Transaction, model: str, tokens: Tokens, at_ns: int) -> Upstream | None:
    return pricing.InForce(tx).upstream(model, tokens, at_ns)


@pytest.mark.parametrize("zone_here", ["UTC", "Asia/Shanghai"])
def test_what_the_catalogue_knows_is_of_the_calls_hour_wherever_the_machine_is(
    db: Database, monkeypatch: pytest.MonkeyPatch, zone_here: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone_here)
        time.tzset()
        asked = []
        for hour, minute in ((0, 59), (1, 0), (15, 59), (16, 45), (17, 0)):  # cheaper from 16:30 to 00:30
            at = int(datetime(2025, 6, 15, hour, minute, tzinfo=UTC).timestamp()) * SECOND
            asked.append(db.read(upstream, "deepseek/deepseek-chat", Tokens(1_000_000, 0), at))
    time.tzset()
    cheap, usual = Upstream(135 * 10**9, 972 * 10**6), Upstream(270 * 10**9, 1944 * 10**6)
    assert asked == [cheap, usual, usual, usual, cheap]


@pytest.mark.parametrize("usd", ["-1", "1001", "1e30"])
def test_a_stated_cost_that_cannot_be_is_not_kept(db: Database, ann: str, usd: str) -> None:
    entry = charged(db, "house/own", Tokens(10, 1, extras=Extras(upstream_usd=Decimal(usd))))
    assert (entry.upstream_usd, entry.upstream_yuan) == (None, None)
    assert charged(db, "house/own", Tokens(10, 1)).upstream_usd is None


def test_the_sums_keep_what_it_cost_upstream_and_a_reversal_takes_it_back(db: Database, ann: str) -> None:
    put(db, YUAN, "m", more=More(tools=(("web_search", YUAN),)))
    used = Tokens(10, 1, extras=Extras(upstream_usd=Decimal("0.5"), tools=(("web_search", 1),)))
    entry = charged(db, "m", used)

    def sums() -> list[tuple[int, ...]]:
        places = [NUMBERS.index(name) for name in ("calls", "priced_extras", "upstream_yuan", "upstream_cost")]
        return sorted(
            (key[-1], *(numbers[place] for place in places))
            for key, numbers in kept(db).items()
            if key[:2] == (MODEL, 1)
        )

    assert sums() == [(0, 1, 1, 3_600_000_000, 10_001)]
    db.write(ledger.reverse, entry.id, "wrong", actor=SHELL)
    assert sums()[1:] == [(kind, -1, -1, -3_600_000_000, -10_001) for kind in (1, 2)]
    assert not check(db)


def test_the_margin_is_what_was_charged_less_what_was_asked(db: Database, ann: str) -> None:
    put(db, 100 * YUAN, "m")
    charged(db, "m", Tokens(10_000, 0, extras=Extras(upstream_usd=Decimal("0.1"))))
    entry = charged(db, "m", Tokens(10_000, 0, extras=Extras(upstream_usd=Decimal("0.1"))))
    charged(db, "unknown", Tokens(10_000, 0))
    periods = stats.last_periods(db.clock(), "day", zone("UTC"), 2)
    (one,) = db.read(stats.margins, periods, actor=SHELL, user_id="ann")
    assert (one.name, one.cost, one.asked, one.margin) == ("m", 20_000, 1_440_000_000, 5_600)
    db.write(ledger.reverse, entry.id, "wrong", actor=SHELL)
    assert db.read(stats.margins, periods, actor=SHELL, user_id=None) == [stats.Margin("m", 10_000, 720_000_000)]
    with pytest.raises(Forbidden):
        db.read(stats.margins, periods, actor=MEMBER, user_id="ann")
