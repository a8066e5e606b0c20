"""Changing prices as the page does: what counts now, several changes at once, planned ones, and what they would cost."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Clock

from billing_core import accounts, ledger, pricing, settings, stats
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database
from billing_core.errors import BillingError, Conflict, Forbidden, Invalid, NotFound
from billing_core.pricing import Change, Current, Rates
from billing_core.rates import Prices
from billing_core.tokens import Tokens
from billing_core.zones import zone

MILLION = 1_000_000
MEMBER = Actor(1, "ann", "Ann")


def current(db: Database) -> dict[str, Current]:
    return {row.model: row for row in db.read(pricing.current)}


def test_a_model_that_was_only_charged_is_listed_at_its_built_in_price(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 10**8, actor=SHELL)
    for model in ("openai/gpt-4o-mini", "house/own"):
        db.write(ledger.charge, ann, model, Tokens(1000, 10), actor=SHELL)
    rows = current(db)
    assert {name: row.rates.source for name, row in rows.items()} == {
        "house/own": "default",
        "openai/gpt-4o-mini": "catalogue",
    }
    assert rows["house/own"].prices == Prices(18 * MILLION, 72 * MILLION, None, None)


def test_a_set_price_is_listed_as_it_is_written_and_as_it_counts(db: Database) -> None:
    db.write(pricing.set_price, "a/b", 5 * MILLION, 7 * MILLION, actor=SHELL, cache_read=MILLION)
    row = current(db)["a/b"]
    assert row.prices == Prices(5 * MILLION, 7 * MILLION, MILLION, None)
    assert (row.rates.cache_write, row.rates.source) == (5 * MILLION, "database")


def test_a_search_finds_a_part_of_a_name_in_capitals_or_not(db: Database) -> None:
    db.write(pricing.set_price, "OpenAI/GPT-4o", 1, 1, actor=SHELL)
    row = current(db)["OpenAI/GPT-4o"]
    assert row.matches(" gpt-4O ")
    assert row.matches("")
    assert not row.matches("gpt 4o")


def test_changes_are_applied_together(db: Database) -> None:
    db.write(pricing.set_price, "old", 1, 1, actor=SHELL)
    seen = current(db)["old"].rates.price_id
    changes = [Change("old", None, seen), Change("new", Prices(MILLION, 2 * MILLION, None, 0), None)]
    db.write(pricing.apply, changes, actor=SHELL)
    rows = current(db)
    assert rows["old"].rates.source == "default"
    assert rows["new"].prices == Prices(MILLION, 2 * MILLION, None, 0)


def test_of_changes_of_which_one_cannot_be_made_none_is(db: Database) -> None:
    changes = [Change("new", Prices(1, 1, None, None), None), Change("never set", None, None)]
    with pytest.raises(NotFound):
        db.write(pricing.apply, changes, actor=SHELL)
    assert current(db) == {}


@pytest.mark.parametrize("wanted", [Prices(2, 2, None, None), None])
def test_somebody_elses_new_price_is_not_overwritten(db: Database, clock: Clock, wanted: pricing.Prices | None) -> None:
    db.write(pricing.set_price, "a/b", 1, 1, actor=SHELL)
    seen = current(db)["a/b"].rates.price_id
    clock.forward(seconds=1)
    db.write(pricing.set_price, "a/b", 9, 9, actor=SHELL)
    with pytest.raises(Conflict, match="Somebody else has changed the price of a/b"):
        db.write(pricing.apply, [Change("a/b", wanted, seen)], actor=SHELL)
    assert current(db)["a/b"].prices == Prices(9, 9, None, None)


def test_a_price_that_somebody_has_retired_in_the_meantime_is_not_set_again(db: Database, clock: Clock) -> None:
    db.write(pricing.set_price, "a/b", 1, 1, actor=SHELL)
    seen = current(db)["a/b"].rates.price_id
    clock.forward(seconds=1)
    db.write(pricing.retire, "a/b", actor=SHELL)
    with pytest.raises(Conflict):
        db.write(pricing.apply, [Change("a/b", Prices(2, 2, None, None), seen)], actor=SHELL)


@pytest.mark.parametrize("known", [True, False])
def test_of_admins_who_change_a_price_at_the_same_time_one_is_told(db: Database, known: bool) -> None:
    if known:
        db.write(pricing.set_price, "a/b", 1, 1, actor=SHELL)
    seen = current(db)["a/b"].rates.price_id if known else None

    def change(price: int) -> str:
        try:
            db.write(pricing.apply, [Change("a/b", Prices(price, price, None, None), seen)], actor=SHELL)
            return "applied"
        except Conflict:
            return "told"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(change, range(2, 6))) == ["applied", "told", "told", "told"]


def test_a_change_can_be_planned_and_counts_from_its_moment_on(db: Database, clock: Clock) -> None:
    start = clock.now_ns + 3600 * stats.SECOND
    db.write(pricing.apply, [Change("a/b", Prices(5, 6, None, None), None)], actor=SHELL, valid_from_ns=start)
    assert current(db)["a/b"].rates.source == "default"
    assert [(price.model, price.input) for price in db.read(pricing.planned)] == [("a/b", 5)]
    clock.forward(seconds=3600)
    assert current(db)["a/b"].prices == Prices(5, 6, None, None)
    assert db.read(pricing.planned) == []


def test_of_prices_planned_for_the_same_moment_the_last_is_listed_and_counts(db: Database, clock: Clock) -> None:
    start = clock.now_ns + 60 * stats.SECOND
    for price in (5, 7):
        db.write(pricing.set_price, "a/b", price, price, actor=SHELL, valid_from_ns=start)
    assert [price.input for price in db.read(pricing.planned)] == [7]
    clock.forward(seconds=60)
    assert current(db)["a/b"].rates.input == 7


def test_nothing_can_be_planned_for_the_past(db: Database, clock: Clock) -> None:
    start = clock.now_ns - 3600 * stats.SECOND
    with pytest.raises(Invalid, match="can't start in the past"):
        db.write(pricing.apply, [Change("a/b", Prices(5, 6, None, None), None)], actor=SHELL, valid_from_ns=start)
    assert current(db) == {}


def test_a_preview_tells_what_counts_and_what_would(db: Database) -> None:
    db.write(pricing.set_price, "a/b", 5, 6, actor=SHELL)
    seen = current(db)["a/b"].rates.price_id
    changes = [Change("a/b", Prices(7, 6, None, 1), seen), Change("a/b", None, seen)]
    (before, after), (_before, retired) = db.read(pricing.preview, changes)
    assert (before.input, before.cache_read) == (5, 5)
    assert (after.input, after.cache_read, after.cache_write) == (7, 7, 1)
    assert (retired.input, retired.source) == (18 * MILLION, "default")


def test_what_was_used_costs_so_much_at_another_price(db: Database, clock: Clock, ann: str) -> None:
    db.write(pricing.set_price, "a/b", 10 * MILLION, 20 * MILLION, actor=SHELL, cache_read=MILLION)
    db.write(ledger.recharge, ann, 10**8, actor=SHELL)
    for _ in range(2):
        db.write(ledger.charge, ann, "a/b", Tokens(1000, 100, cached=400, cache_creation=100), actor=SHELL)
    days = stats.last_periods(clock.now_ns, "day", zone("UTC"), 30)
    (used,) = stats.totals(db.read(stats.usage, days, actor=SHELL, user_id=None))
    assert used.cost_at(current(db)["a/b"].rates) == used.cost == 2 * (50 + 4 + 10 + 20)
    assert used.cost_at(Rates(MILLION, 2 * MILLION, 0, 3 * MILLION, "database")) == 2 * (5 + 3 + 2)


def test_usage_of_more_tokens_than_one_call_may_have_is_priced_as_well() -> None:
    used = stats.Used(0, "a/b", 0, 9, 5 * 10**9, 0, 0, 10**9, 0)
    assert used.cost_at(Rates(MILLION, 2 * MILLION, 0, 0, "database")) == 7000 * 10_000
    exact = Rates(999_999_999_999_900, 0, 0, 0, "database").cost_of(9 * 10**9 + 7, 0, 0, 0)
    assert exact == -(-999_999_999_999_900 * (9 * 10**9 + 7) // 10**8)  # more digits than a float has


def test_a_member_can_change_no_price_and_no_setting(db: Database) -> None:
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    with pytest.raises(Forbidden):
        db.write(pricing.apply, [Change("a/b", Prices(1, 1, None, None), None)], actor=MEMBER)
    with pytest.raises(Forbidden):
        db.write(pricing.change_settings, {"usd_rate": "7"}, actor=MEMBER)
    assert current(db) == {}
    assert db.read(settings.read) == settings.DEFAULTS


def test_an_admin_sets_the_rate_and_the_default_prices_together_or_not_at_all(db: Database) -> None:
    with pytest.raises(BillingError, match="rate must be above 0"):
        db.write(pricing.change_settings, {"default_input_price": "9", "usd_rate": "0"}, actor=SHELL)
    assert db.read(settings.read) == settings.DEFAULTS
    db.write(pricing.change_settings, {"default_input_price": "9", "usd_rate": "7.1"}, actor=SHELL)
    assert db.read(settings.read) == settings.DEFAULTS | {"default_input_price": "9", "usd_rate": "7.1"}


def test_a_late_call_costs_what_the_settings_said_at_its_moment(db: Database, clock: Clock, ann: str) -> None:
    """Of built-in prices in dollars, of the default one, and what the provider asks for it in 元."""
    db.write(ledger.recharge, ann, 10**9, actor=SHELL)
    moments = []
    for rate, default in (("7.2", "18"), ("14.4", "36"), ("3.6", "9")):
        clock.forward(seconds=3600)
        db.write(settings.change, "usd_rate", rate, actor=SHELL)
        db.write(pricing.change_settings, {"default_input_price": default}, actor=SHELL)
        moments.append((clock() + 1, db.write(ledger.charge, ann, "gpt-4o", Tokens(1000, 0), actor=SHELL).cost))
    assert [cost for _at, cost in moments] == [180, 360, 90]
    clock.forward(seconds=3600)
    for (at, cost), default in zip(moments, (180, 360, 90), strict=True):
        late = db.write(ledger.charge, ann, "gpt-4o", Tokens(1000, 0), actor=SHELL, created_at_ns=at)
        unknown = db.write(ledger.charge, ann, "house/own", Tokens(1000, 0), actor=SHELL, created_at_ns=at)
        assert (late.cost, unknown.cost) == (cost, default)
        asked = db.read(lambda tx, n=late.entry_id: tx.rows("SELECT upstream_yuan FROM entry WHERE id = ?", (n,)))
        assert asked == [(cost * 10**5,)]
    before = clock() - 7 * 3600 * 10**9
    assert db.write(ledger.charge, ann, "gpt-4o", Tokens(1000, 0), actor=SHELL, created_at_ns=before).cost == 180
    assert db.read(pricing.in_force, "house/own", moments[1][0]).input == 36 * MILLION
    assert not check(db)
