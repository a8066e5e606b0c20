"""What calls would have cost at other prices: to the last 毫 from the entries, within its bound from the sums."""

from typing import Any

import pytest
from conftest import NOON, SECOND, Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core import accounts, ledger, pricing, repricing, stats, undoing, what_if
from billing_core import settings as our_settings
from billing_core.actors import SHELL, Actor
from billing_core.database import Database
from billing_core.errors import Forbidden
from billing_core.logs import Filters
from billing_core.models import Entry
from billing_core.rates import More, Prices, Tier, as_rates
from billing_core.tokens import Extras, Tokens, extras_from
from billing_core.what_if import ENTRIES, SAME, SUMS, Cell
from billing_core.zones import zone

YUAN = 1_000_000
DAY = 86_400 * SECOND


def periods(days: int = 4) -> list[stats.Period]:
    return stats.last_periods(NOON + DAY, "day", zone("Asia/Shanghai"), days)


def ask(db: Database, wanted: dict[str, Prices], **options: Any) -> list[Cell]:
    return db.read(what_if.what_if, periods(), wanted, actor=SHELL, **options)


def charge(db: Database, user_id: str, model: str, tokens: Tokens, at_ns: int = NOON) -> int:
    done = db.write(ledger.charge, user_id, model, tokens, actor=SHELL, created_at_ns=at_ns, allow_debt=True)
    return done.entry_id


@pytest.fixture
def books(db: Database, ann: str) -> Database:
    """Two accounts and two models over three days, with a reversed call and a settled hold."""
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    db.write(pricing.set_price, "a", 10 * YUAN, 20 * YUAN, actor=SHELL, cache_read=YUAN)
    for day in range(3):
        for user_id in ("ann", "bob"):
            charge(db, user_id, "a", Tokens(1_001, 77, 300, 10), NOON - day * DAY)
            charge(db, user_id, "b", Tokens(2_003, 5), NOON - day * DAY)
    db.write(ledger.reverse, charge(db, "ann", "a", Tokens(999, 1)), "wrong", actor=SHELL)
    db.write(ledger.recharge, "ann", 10**7, actor=SHELL)
    held = db.write(ledger.precharge, "ann", "a", 10, 10, actor=SHELL)
    db.write(ledger.settle, held.entry_id, Tokens(11, 12), actor=SHELL)
    return db


def by_hand(db: Database, wanted: dict[str, Prices], by_call: bool = True) -> int:
    """All calls at other prices, one by one, less the reversed ones."""

    def read(tx: Any) -> int:
        entries = [
            tx.session.get_one(Entry, number) for (number,) in tx.connection().exec_driver_sql("SELECT id FROM entry")
        ]
        names = {number: name for name, number in pricing.model_names(tx).items()}
        undone = {entry.reverses_id for entry in entries}
        assert by_call
        return sum(
            as_rates(wanted[names[one.model_id]]).cost(Tokens(
                one.prompt_tokens, one.completion_tokens, one.cached_tokens, one.cache_creation_tokens, 0, extras_from(one.extras)
            )) if names[one.model_id] in wanted else one.cost
            for one in entries if one.type in ("deduct", "settle") and one.id not in undone
        )  # fmt: skip

    return db.read(read)


RICH = Prices(
    7 * YUAN, 9 * YUAN, None, None, More(call=1234, tiers=(Tier(1_000, 3 * YUAN, YUAN, 1), Tier(2_000, 1, 2)))
)


def test_without_another_price_it_is_what_was_spent(books: Database) -> None:
    cells = ask(books, {})
    used = books.read(stats.usage, periods(), actor=SHELL, user_id=None)
    assert {cell.source for cell in cells} == {SAME}
    assert what_if.whole(cells).old == what_if.whole(cells).new == sum(one.cost for one in used)
    assert {one.name: one.old for one in what_if.totals(cells, "model")} == {
        one.name: one.cost for one in stats.totals(used)
    }


def test_the_sums_say_it_but_for_the_rounding_of_each_call(books: Database) -> None:
    wanted = {"a": Prices(3 * YUAN, 7 * YUAN, YUAN, 5)}
    (a, b) = sorted(what_if.totals(ask(books, wanted), "model"), key=lambda one: one.name)
    exact = what_if.totals(ask(books, wanted, models=["a"], to_the_last=True), "model")[0]
    assert (a.sources, b.sources, exact.sources) == ({SUMS}, {SAME}, {ENTRIES})
    assert (b.old, b.slack) == (b.new, 0)
    assert a.new <= exact.new <= a.new + a.slack
    assert (a.calls, a.slack, exact.slack) == (7, 7, 0)


def test_tiers_are_looked_up_in_the_entries(books: Database) -> None:
    cells = ask(books, {"a": RICH, "b": RICH})
    assert {cell.source for cell in cells} == {ENTRIES}
    assert what_if.whole(cells).new == by_hand(books, {"a": RICH, "b": RICH})


def test_an_account_and_a_model_can_be_asked_for_alone(books: Database) -> None:
    cells = ask(books, {"a": RICH}, user_ids=["bob"], models=["a"])
    assert {(cell.user_id, cell.model) for cell in cells} == {("bob", "a")}
    assert [(one.name, one.calls) for one in what_if.totals(cells, "period")] == [(0, 1), (1, 1), (2, 1)]
    assert what_if.whole(cells).calls == 3


def test_only_an_admin_asks(books: Database) -> None:
    with pytest.raises(Forbidden):
        books.read(what_if.what_if, periods(), {}, actor=Actor(1, "ann", "Ann"))
    assert books.read(what_if.what_if, [], {}, actor=SHELL) == []


@pytest.mark.parametrize("counted_in", ["call", "reversal"])
@pytest.mark.parametrize("wanted", [{}, {"a": Prices(10 * YUAN, 20 * YUAN, YUAN)}])
def test_reversals_and_repricings_count_where_stats_count_them(
    books: Database, clock: Clock, counted_in: str, wanted: dict[str, Prices]
) -> None:
    late = charge(books, "bob", "a", Tokens(5_000, 0), NOON - 2 * DAY)
    books.write(pricing.set_price, "b", YUAN, YUAN, actor=SHELL)
    seen = books.read(repricing.preview, Filters(model="b", types=("deduct",)), actor=SHELL)
    job = books.write(repricing.start, seen.selection, "too dear", actor=SHELL, seen=seen.seen)
    undoing.run(books, job, actor=SHELL)
    clock.forward(days=1)
    undone = books.write(ledger.reverse, late, "wrong", actor=SHELL)
    books.write(ledger.reverse, undone.entry_id, "right after all", actor=SHELL)
    books.write(ledger.reverse, charge(books, "ann", "a", Tokens(7, 7)), "wrong", actor=SHELL)
    books.write(our_settings.change, "reversals_count_in", counted_in, actor=SHELL)
    used = books.read(stats.usage, periods(), actor=SHELL, user_id=None)
    cells = ask(books, wanted, to_the_last=True)
    by_period = {one.name: one.old for one in what_if.totals(cells, "period")}
    spent = {one.period: 0 for one in used}
    for one in used:
        spent[one.period] += one.cost
    assert {period: cost for period, cost in by_period.items() if cost} == {
        period: cost for period, cost in spent.items() if cost
    }
    # At the price that model a was charged at, its entries come to what its sums say.
    for cell in cells:
        assert cell.old == cell.new, cell


amounts = st.integers(0, 5 * YUAN)
maybe = st.none() | amounts
mores = st.builds(
    More, cache_write_1h=maybe, audio_input=maybe, call=st.integers(0, 5_000),
    tools=st.sampled_from([(), (("web_search", 70_000),)]),
    tiers=st.sampled_from([(), (Tier(500, 3 * YUAN, YUAN),), (Tier(300, 1, 2, 3, 4), Tier(900, 5, 6))]),
    service_tiers=st.sampled_from([(), (("batch", 333_333),)]),
)  # fmt: skip
prices = st.builds(Prices, amounts, amounts, maybe, maybe, st.none() | mores)
extras = st.none() | st.sampled_from(
    [Extras(service_tier="batch"), Extras(tools=(("web_search", 2),)), Extras(audio_input=3), Extras(stated_total=5)]
)
tokens = st.builds(
    lambda uncached, cached, creation, output, also: Tokens(uncached + cached + creation, output, cached, creation, 0, also),
    st.integers(3, 1000), st.integers(0, 500), st.integers(0, 500), st.integers(0, 1000), extras,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("ab"), tokens, st.booleans()), min_size=1, max_size=8),
    st.dictionaries(st.sampled_from("ab"), prices),
)
def test_it_is_each_call_at_its_price(
    db: Database, ann: str, calls: list[tuple[str, Tokens, bool]], wanted: dict[str, Prices]
) -> None:
    for model, used, undone in calls:
        entry = charge(db, ann, model, used)
        if undone:
            db.write(ledger.reverse, entry, "wrong", actor=SHELL)
    exact = what_if.whole(ask(db, wanted, to_the_last=True))
    assert exact.new == by_hand(db, wanted)
    quick = what_if.whole(ask(db, wanted))
    assert quick.new <= exact.new <= quick.new + quick.slack
    assert exact.old == quick.old


def test_prices_that_sql_cannot_multiply_are_added_up_one_by_one(books: Database) -> None:
    dear = {"a": Prices(10**12, 10**12, more=More(tiers=(Tier(5, 10**12, 3),)))}
    assert what_if.whole(ask(books, dear)).new == by_hand(books, dear)


@pytest.mark.parametrize("wanted", [{}, {"a": Prices(7 * YUAN, 9 * YUAN)}], ids=["as charged", "another price"])
@pytest.mark.parametrize(
    "options", [{}, {"user_ids": ["ann"]}, {"models": ["b"]}], ids=["all", "an account", "a model"]
)
def test_a_summary_says_what_the_cells_say(
    books: Database, wanted: dict[str, Prices], options: dict[str, list[str]]
) -> None:
    cells = ask(books, wanted, **options)
    answer = books.read(what_if.summary, periods(), wanted, actor=SHELL, **options)

    def money(totals: list[what_if.Total]) -> list[tuple[Any, ...]]:
        return [(one.name, one.calls, one.old) for one in totals if one.calls or one.old]

    for by, totals in (("period", answer.by_period), ("model", answer.by_model), ("user_id", answer.by_account)):
        assert money(totals) == money(what_if.totals(cells, by))
        assert sum(one.new for one in totals) == sum(cell.new for cell in cells) == answer.whole.new
        if not wanted:
            assert all((one.new, one.slack, one.sources) == (one.old, 0, {SAME}) for one in totals)


def test_a_reversal_and_a_call_of_the_same_range_hide_no_service_tier(db: Database, ann: str, clock: Clock) -> None:
    db.write(our_settings.change, "reversals_count_in", "reversal", actor=SHELL)
    batch = Extras(service_tier="batch")
    price = Prices(10 * YUAN, 10 * YUAN, more=More(service_tiers=(("batch", 500_000),)))
    db.write(pricing.set_price, "a", price.input, price.output, actor=SHELL, more=price.more)
    first = charge(db, ann, "a", Tokens(10**6, 0, extras=batch))
    clock.forward(days=2)
    db.write(ledger.reverse, first, "wrong", actor=SHELL)
    charge(db, ann, "a", Tokens(3 * 10**6, 0, extras=batch), clock())
    for to_the_last in (False, True):
        today = db.read(lambda tx: stats.last_periods(tx.now_ns, "day", zone("UTC"), 1))
        answer = what_if.whole(db.read(what_if.what_if, today, {"a": price}, actor=SHELL, to_the_last=to_the_last))
        assert (answer.old, answer.new, answer.slack) == (100_000, 100_000, 0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 250), st.integers(-2, 0), st.booleans()), min_size=1, max_size=8
    ),
    st.integers(1, 3 * YUAN),
)
def test_what_is_reversed_in_another_period_is_within_the_bounds_as_well(
    db: Database, ann: str, calls: list[tuple[str, int, int, bool]], price: int
) -> None:
    db.write(our_settings.change, "reversals_count_in", "reversal", actor=SHELL)
    for model, count, day, undone in calls:
        entry = charge(db, ann, model, Tokens(count, 0), NOON + day * DAY)
        if undone:
            db.write(ledger.reverse, entry, "wrong", actor=SHELL)
    wanted = dict.fromkeys("ab", Prices(price, price))
    exact = {(one.period, one.model): one for one in ask(db, wanted, to_the_last=True)}
    quick = {(one.period, one.model): one for one in ask(db, wanted)}
    for place, cell in quick.items():
        new = exact[place].new if place in exact else 0
        assert cell.new <= new <= cell.new + cell.slack, place
    assert quick.keys() >= exact.keys()
    answer = db.read(what_if.summary, periods(), wanted, actor=SHELL)
    for totals in (answer.by_period, answer.by_model, answer.by_account):
        assert sum(one.new for one in totals) == sum(cell.new for cell in quick.values())


def test_a_hold_that_is_reversed_was_never_rounded_up(db: Database, ann: str) -> None:
    db.write(our_settings.change, "reversals_count_in", "reversal", actor=SHELL)
    db.write(ledger.recharge, ann, 10**7, actor=SHELL)
    charge(db, ann, "a", Tokens(1_001, 0))
    for times in (1, 2, 3):
        entry = db.write(ledger.precharge, ann, "a", 10, 10, actor=SHELL).entry_id
        for _ in range(times):
            entry = db.write(ledger.reverse, entry, "wrong", actor=SHELL).entry_id
    wanted = {"a": Prices(7 * YUAN, 0)}
    answer = db.read(what_if.summary, periods(), wanted, actor=SHELL)
    assert (answer.whole.new, answer.whole.slack) == (71, 1)
    assert [one.new for one in answer.by_account] == [71]


def test_accounts_alike_come_to_the_same(db: Database, ann: str) -> None:
    """Each call is half a 毫 beyond a whole one: not one account gets all that is rounded up."""
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    for day in range(2):
        for user_id in ("ann", "bob"):
            charge(db, user_id, "a", Tokens(15, 0), NOON - day * DAY)
    cells = ask(db, {"a": Prices(YUAN * 10, 0)})
    assert len(cells) == 4
    assert [one.new for one in what_if.totals(cells, "user_id")] == [3, 3]
