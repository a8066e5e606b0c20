"""Which price counts when, where it comes from, and that a change rewrites nothing."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import NOON, SECOND, Clock

from billing_core import accounts, catalogues, ledger, logs, price_rules, pricing, settings
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import Forbidden, Invalid, NotFound
from billing_core.models import Entry, Price
from billing_core.pricing import Rates
from billing_core.tokens import Tokens

MODEL = "team/own-model"
YUAN = 1_000_000
"""1 元 in 10⁻⁶ 元."""


def put(db: Database, input: int | None, output: int | None = 0, model: str = MODEL, **options: Any) -> None:
    db.write(pricing.set_price, model, input, output, actor=SHELL, **options)


def now(db: Database, model: str = MODEL, at_ns: int | None = None) -> Rates:
    return db.read(pricing.in_force, model, at_ns)


def test_the_price_in_force_is_the_newest_that_has_begun(db: Database, clock: Clock) -> None:
    put(db, 1 * YUAN)
    clock.forward(days=1)
    put(db, 2 * YUAN)
    put(db, 3 * YUAN, valid_from_ns=clock.now_ns + 10 * SECOND)
    second = clock.now_ns
    moments = [NOON, second - 1, second, second + 10 * SECOND - 1, second + 10 * SECOND]
    assert [now(db, at_ns=at).input for at in moments] == [1 * YUAN, 1 * YUAN, 2 * YUAN, 2 * YUAN, 3 * YUAN]
    assert now(db).input == 2 * YUAN
    clock.forward(seconds=10)
    assert now(db).input == 3 * YUAN


def test_of_two_prices_from_one_moment_the_later_word_counts(db: Database) -> None:
    put(db, 1 * YUAN)
    put(db, 2 * YUAN)
    assert now(db).input == 2 * YUAN


def test_a_call_from_before_the_first_price_pays_that_one(db: Database, clock: Clock) -> None:
    put(db, 5 * YUAN)
    clock.forward(days=1)
    put(db, 6 * YUAN)
    assert now(db, at_ns=NOON - 86_400 * SECOND).input == 5 * YUAN


def test_a_price_starts_now_or_later_but_never_in_the_past(db: Database, ann: str) -> None:
    with pytest.raises(Invalid, match="can't start in the past"):
        put(db, YUAN, valid_from_ns=NOON - 61 * SECOND)
    put(db, YUAN, valid_from_ns=NOON - 60 * SECOND)  # clocks differ: it counts from now on
    assert [price.valid_from_ns for price in db.read(pricing.history, MODEL)] == [NOON]


@pytest.mark.parametrize("moment", [2**63, 10**30, float(NOON), True, "now"], ids=repr)
def test_a_start_that_no_clock_reaches_is_refused(db: Database, moment: Any) -> None:
    with pytest.raises(Invalid) as refused:
        put(db, YUAN, valid_from_ns=moment)
    assert refused.value.field == "valid_from"


def test_a_retired_price_gives_way_to_the_built_in_one_and_stays_in_the_history(db: Database, clock: Clock) -> None:
    put(db, 1 * YUAN)
    clock.forward(days=1)
    db.write(pricing.retire, MODEL, actor=SHELL)
    assert (now(db).source, now(db).input) == ("default", 18 * YUAN)
    assert now(db, at_ns=NOON).input == 1 * YUAN
    assert db.read(pricing.listed) == []
    assert [price.input for price in db.read(pricing.listed, NOON)] == [1 * YUAN]
    assert [(price.input, price.valid_from_ns) for price in db.read(pricing.history, MODEL)] == [
        (None, clock.now_ns),
        (1 * YUAN, NOON),
    ]
    with pytest.raises(NotFound, match="so none can be retired"):
        db.write(pricing.retire, MODEL, actor=SHELL)
    put(db, 2 * YUAN)
    assert now(db).input == 2 * YUAN


def test_what_is_planned_is_listed_apart_soonest_first(db: Database) -> None:
    put(db, 1 * YUAN)
    put(db, 3 * YUAN, model="b", valid_from_ns=NOON + 2)
    put(db, 2 * YUAN, model="a", valid_from_ns=NOON + 1)
    assert [price.model for price in db.read(pricing.listed)] == [MODEL]
    assert [(price.model, price.input) for price in db.read(pricing.planned)] == [("a", 2 * YUAN), ("b", 3 * YUAN)]


def test_a_cache_price_that_is_not_set_is_that_of_input_and_0_is_0(db: Database) -> None:
    put(db, 10 * YUAN, 30 * YUAN)
    assert now(db).parts == (10 * YUAN, 30 * YUAN, 10 * YUAN, 10 * YUAN)
    put(db, 10 * YUAN, 30 * YUAN, cache_read=0, cache_write=12 * YUAN)
    assert now(db).parts == (10 * YUAN, 30 * YUAN, 0, 12 * YUAN)
    (shown,) = db.read(pricing.listed)
    assert pricing.as_yuan(shown) == {
        "input_price": Decimal(10),
        "output_price": Decimal(30),
        "cache_read_price": Decimal(0),
        "cache_write_price": Decimal(12),
    }


def test_the_answer_says_where_a_price_comes_from(db: Database) -> None:
    put(db, YUAN, model="openai/gpt-4o-mini")
    sources = [now(db, model).source for model in ("openai/gpt-4o-mini", "openai/gpt-4o", "nobody/knows")]
    assert sources == ["database", "catalogue", "default"]


@pytest.mark.parametrize("model", ["openai/gpt-4o", "gpt-4o", "openai/gpt-4o:online"])
def test_a_well_known_model_has_its_price_under_each_of_its_names(db: Database, model: str) -> None:
    # 2.5, 10 and 1.25 US dollars at 7.2 元.
    assert now(db, model).parts == (18 * YUAN, 72 * YUAN, 9 * YUAN, 18 * YUAN)


def test_a_model_that_says_free_is_free(db: Database, ann: str) -> None:
    assert now(db, "some/model:free").parts == (0, 0, 0, 0)
    assert db.write(ledger.charge, ann, "some/model:free", Tokens(1000, 10), actor=SHELL).cost == 0
    put(db, YUAN, model="some/model:free")
    assert now(db, "some/model:free").input == YUAN  # unless an admin says otherwise


def test_models_whose_names_look_alike_have_prices_of_their_own(db: Database) -> None:
    for number, model in enumerate(("a/b", "a/b:c", "a", "A/b", "a / b", "模型"), 1):
        put(db, number * YUAN, model=f" {model} ")
    assert [now(db, model).input for model in ("a/b", "a/b:c", "a", "A/b", "a / b", "模型")] == [
        number * YUAN for number in range(1, 7)
    ]


@pytest.mark.parametrize("model", ["", "a\0b", "\ud800", "x" * 300, "' OR 1=1 --"], ids=count())
def test_a_name_that_no_model_has_costs_the_default(db: Database, model: str) -> None:
    assert now(db, model).source == "default"
    assert db.read(pricing.history, model) == []


def test_the_rate_moves_the_built_in_prices_and_nothing_that_was_charged(db: Database, ann: str) -> None:
    charge = (ledger.charge, ann, "openai/gpt-4o", Tokens(1000, 0))
    first = db.write(*charge, actor=SHELL, allow_debt=True)
    db.write(settings.change, "usd_rate", "14.4", actor=SHELL)
    db.write(settings.change, "default_input_price", "1", actor=SHELL)
    second = db.write(*charge, actor=SHELL, allow_debt=True)
    assert (first.cost, second.cost) == (180, 360)
    assert [db.read(logs.one, one.entry_id, actor=SHELL).price_input for one in (first, second)] == [
        18 * YUAN,
        36 * YUAN,
    ]
    assert now(db, "nobody/knows").parts == (1 * YUAN, 72 * YUAN, 1 * YUAN, 1 * YUAN)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("usd_rate", "0", Invalid),
        ("usd_rate", "-1", Invalid),
        ("usd_rate", "seven", Invalid),
        ("default_input_price", "1e3", Invalid),
        ("default_output_price", "", Invalid),
        ("nothing", "1", NotFound),
    ],
)
def test_a_setting_that_cannot_be_is_refused(db: Database, name: str, value: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        db.write(settings.change, name, value, actor=SHELL)
    assert db.read(settings.read) == settings.DEFAULTS


def test_a_built_in_price_is_copied_once_and_named_by_every_entry(db: Database, ann: str) -> None:
    for model in 3 * ("nobody/knows", "anthropic/claude-3.7-sonnet"):  # with no prices of a cache, and with two
        db.write(ledger.charge, ann, model, Tokens(1, 1), actor=SHELL, allow_debt=True)
    assert db.read(lambda tx: tx.rows("SELECT count(*), count(DISTINCT model_id) FROM price")) == [(2, 2)]
    db.write(ledger.charge, ann, "nobody/knows", Tokens(1, 1), actor=SHELL, allow_debt=True)
    rows = db.read(logs.page, logs.Filters(ann, model="nobody/knows"), actor=SHELL)
    assert [(row.price_input, row.price_output, row.price_source) for row in rows] == 4 * [
        (18 * YUAN, 72 * YUAN, "default")
    ]
    assert db.read(pricing.history, "nobody/knows") == []  # nobody set one


def test_only_an_admin_sets_prices(db: Database, ann: str) -> None:
    member = SHELL.__class__(1, "ann", "Ann", may_charge=True)
    with pytest.raises(Forbidden):
        db.write(pricing.set_price, MODEL, 0, 0, actor=member)
    with pytest.raises(Forbidden):
        db.write(pricing.retire, MODEL, actor=member)
    assert now(db).source == "default"


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("anthropic/claude-3.7-sonnet", ("3", "15", "0.3", "3.75")),  # OpenRouter's own entry has no cache prices
        ("google/gemini-2.5-flash", ("0.3", "2.5", "0.03", "0.3")),
        ("bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0", ("3", "15", "0.3", "3.75")),
        ("qwen/qwen-max", ("1.6", "6.4", "1.6", "1.6")),
        ("deepseek/deepseek-chat", ("0.27", "1.1", "0.07", "0.27")),  # which costs less at night
    ],
)
def test_a_built_in_price_is_the_makers_own_with_its_cache_prices_at_any_hour(
    db: Database, clock: Clock, model: str, usd: tuple[str, ...]
) -> None:
    for _quarter_of_a_day in range(4):
        rates = db.read(pricing.in_force, model)
        expected = [int(Decimal(price) * Decimal("7.2") * 1_000_000) for price in usd]
        assert [rates.input, rates.output, rates.cache_read, rates.cache_write] == expected
        catalogues.built_in_rates.cache_clear()
        catalogues.built_in.cache_clear()
        clock.forward(seconds=6 * 3600)


# What is kept in mind between charges


@pytest.fixture
def other(db: Database, clock: Clock) -> Iterator[Database]:
    """The same database, as another process has it."""
    other = Database(db.url, clock=clock)
    yield other
    other.close()


def charged(db: Database, model: str = MODEL, **options: Any) -> ledger.Receipt:
    return db.write(ledger.charge, "ann", model, Tokens(1_000_000, 0), actor=SHELL, allow_debt=True, **options)


def price_of(db: Database, receipt: ledger.Receipt) -> Price:
    entry = db.read(lambda tx: tx.session.get_one(Entry, receipt.entry_id))
    price = db.read(lambda tx: tx.session.get_one(Price, entry.price_id))
    assert price.model_id == entry.model_id
    return price


Change = Callable[[Database], Any]


@pytest.mark.parametrize(
    ("model", "change", "yuan"),
    [
        (MODEL, lambda db: put(db, 7 * YUAN), 7),
        (MODEL, lambda db: db.write(pricing.retire, MODEL, actor=SHELL), 18),
        ("x/own", lambda db: db.write(price_rules.set_rule, "x/*", MODEL, actor=SHELL), 3),
        ("y/own", lambda db: db.write(price_rules.end_rule, "y/*", actor=SHELL), 18),
        ("x/own", lambda db: db.write(settings.change, "default_input_price", "19", actor=SHELL), 19),
        (MODEL, lambda db: put(db, 8 * YUAN, valid_from_ns=NOON + 3600 * SECOND), 3),
    ],
)
def test_what_another_process_changes_counts_from_the_next_charge(
    db: Database, other: Database, ann: str, model: str, change: Change, yuan: int
) -> None:
    put(db, 3 * YUAN)
    db.write(price_rules.set_rule, "y/*", MODEL, actor=SHELL)
    before = charged(db, model)
    assert charged(db, model).cost == before.cost
    change(other)
    assert charged(db, model).cost == yuan * 10_000
    assert now(db, model).input == yuan * YUAN


def test_a_planned_price_counts_from_its_moment_and_a_withdrawn_one_never(
    db: Database, other: Database, ann: str, clock: Clock
) -> None:
    put(db, 3 * YUAN)
    put(db, 4 * YUAN, valid_from_ns=NOON + 60 * SECOND)
    put(db, 5 * YUAN, valid_from_ns=NOON + 120 * SECOND)
    costs = []
    for seconds in (0, 59, 1, 59):
        clock.forward(seconds=seconds)
        costs += [charged(db).cost, charged(db).cost]
    (planned,) = [price for price in db.read(pricing.history, MODEL) if price.input == 5 * YUAN]
    other.write(pricing.withdraw, planned.price_id, actor=SHELL)
    clock.forward(seconds=1)
    costs.append(charged(db).cost)
    late = charged(db, created_at_ns=NOON + 59 * SECOND)
    early = charged(db, created_at_ns=NOON - SECOND)
    clock.now_ns = NOON + SECOND  # set back
    assert [cost // 10_000 for cost in costs] == [3, 3, 3, 3, 4, 4, 4, 4, 4]
    assert [one.cost // 10_000 for one in (late, early, charged(db))] == [3, 3, 3]


def test_a_model_that_was_undone_is_not_kept_in_mind(db: Database, ann: str) -> None:
    def refused(tx: Transaction) -> None:
        for model in ("first/new", "second/new"):
            ledger.charge(tx, "ann", model, Tokens(1, 0), actor=SHELL, allow_debt=True)
        ledger.charge(tx, "ann", "first/new", Tokens(1, 0), actor=SHELL, allow_debt=True)
        raise Invalid("no")

    for model in ("openai/gpt-4o", "first/new", "second/new", "openai/gpt-4o-mini"):
        with pytest.raises(Invalid):
            db.write(refused)
        price_of(db, charged(db, model))
        price_of(db, charged(db, model))
    assert check(db) == []


def test_what_a_refused_price_would_have_been_is_not_kept_in_mind(db: Database, ann: str) -> None:
    def refused(tx: Transaction) -> None:
        pricing.set_price(tx, MODEL, 9 * YUAN, 0, actor=SHELL)
        assert ledger.charge(tx, "ann", MODEL, Tokens(10**6, 0), actor=SHELL, allow_debt=True).cost == 90_000
        raise Invalid("no")

    put(db, 3 * YUAN)
    for _ in range(2):
        with pytest.raises(Invalid):
            db.write(refused)
        assert charged(db).cost == 30_000


def test_after_another_file_was_put_in_its_place_its_prices_count(
    sqlite_url: str, clock: Clock, tmp_path: Path
) -> None:
    db = Database(sqlite_url, clock=clock)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    put(db, 3 * YUAN)
    with closing(sqlite3.connect(tmp_path / "billing.db")) as file:
        file.execute(f"VACUUM INTO '{tmp_path / 'kept.db'}'")
    put(db, 4 * YUAN)
    assert charged(db).cost == 40_000
    (tmp_path / "kept.db").rename(tmp_path / "billing.db")
    assert charged(db).cost == 30_000
    db.close()
