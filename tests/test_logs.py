"""Reading the ledger back: filters, pages, who sees what, and that none of it reads more than it shows."""

from functools import partial
from typing import Any

import pytest
from conftest import NOON, SECOND, Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plans import plans

from billing_core import accounts, ledger, logs, pricing
from billing_core.actors import SHELL, Actor
from billing_core.database import Database, Transaction
from billing_core.errors import Forbidden, Invalid, NotFound, UnknownAccount
from billing_core.logs import TYPES, Filters, Row
from billing_core.tokens import Tokens

MODEL = "nobody/knows"
REMARKS = ["首充", "100% off", "10_5", "a\\b", "Straße", "refund  of  June", "=1+1", ""]


@pytest.fixture
def books(db: Database, clock: Clock) -> Database:
    """Entries of every type for two accounts, a second apart."""

    def write(tx: Transaction) -> None:
        for user_id in ("ann", "bob"):
            accounts.add(tx, user_id, user_id.title(), actor=SHELL)
            for remark in REMARKS:
                tx.now_ns += SECOND
                ledger.recharge(tx, user_id, 1_000, actor=SHELL, remark=remark)
            for model in (MODEL, "other/model"):
                tx.now_ns += SECOND
                ledger.charge(tx, user_id, model, Tokens(100, 10, 20, 30, 5), actor=SHELL)
            hold = ledger.precharge(tx, user_id, MODEL, 100, 0, actor=SHELL)
            ledger.settle(tx, hold.entry_id, Tokens(100, 0), actor=SHELL)
            hold = ledger.precharge(tx, user_id, MODEL, 100, 0, actor=SHELL)
            ledger.refund(tx, hold.entry_id, actor=SHELL)
            ledger.precharge(tx, user_id, MODEL, 100, 0, actor=SHELL, ttl_seconds=1)
            tx.now_ns += SECOND
            ledger.reverse(tx, hold.entry_id - 1, "a mistake", actor=SHELL)

    db.write(write)
    clock.forward(days=1)
    return db


def member(db: Database) -> Actor:
    return Actor(db.read(accounts.find, "ann").id, "ann", "Ann")


def read(db: Database, filters: Filters = Filters(), actor: Actor = SHELL, **options: Any) -> list[Row]:
    return db.read(logs.page, filters, actor=actor, **{"limit": 1000, **options})


def test_the_newest_comes_first_and_everything_is_there(books: Database) -> None:
    rows = read(books)
    assert [row.id for row in rows] == list(range(len(rows), 0, -1))
    assert {row.type for row in rows} == set(TYPES)
    assert rows == list(logs.every(books, Filters(), actor=SHELL))


FILTERS: list[tuple[Filters, Any]] = [
    (Filters("ann"), lambda row: row.user_id == "ann"),
    (Filters(model=MODEL), lambda row: row.model == MODEL),
    (Filters(model="nobody"), lambda row: False),
    (Filters(model="a\0b"), lambda row: False),
    (Filters(model="\ud800"), lambda row: False),
    (Filters(types=("recharge",)), lambda row: row.type == "recharge"),
    (Filters(types=("deduct", "settle")), lambda row: row.type in ("deduct", "settle")),
    (Filters(types=("nothing",)), lambda row: False),
    (Filters(start_ns=NOON + 5 * SECOND), lambda row: row.created_at_ns >= NOON + 5 * SECOND),
    (Filters(end_ns=NOON + 5 * SECOND), lambda row: row.created_at_ns < NOON + 5 * SECOND),
    (Filters(start_ns=-(10**30), end_ns=10**30), lambda row: True),
    (Filters(start_ns=10**30), lambda row: False),
    (Filters("ann", NOON, NOON + 10**12, MODEL, ("settle",)), lambda row: (row.user_id, row.type) == ("ann", "settle")),
    (Filters(search="首"), lambda row: row.remark == "首充"),
    (Filters(search="100%"), lambda row: row.remark == "100% off"),
    (Filters(search="%"), lambda row: "%" in row.remark),
    (Filters(search="_"), lambda row: "_" in row.remark),
    (Filters(search="\\"), lambda row: "\\" in row.remark),
    (Filters(search="OFF"), lambda row: row.remark == "100% off"),
    (Filters(search=" refund  of "), lambda row: row.remark == "refund of June"),
    (Filters(search="off\0\ud800"), lambda row: row.remark == "100% off"),
    (Filters(search="' OR 1=1"), lambda row: False),
    (Filters(search="   "), lambda row: True),
]


@pytest.mark.parametrize(("filters", "passes"), FILTERS, ids=[repr(filters) for filters, _ in FILTERS])
def test_a_filter_shows_what_passes_it_and_nothing_else(books: Database, filters: Filters, passes: Any) -> None:
    expected = [row for row in read(books) if passes(row)]
    assert read(books, filters) == expected
    assert books.read(logs.total, filters, actor=SHELL) == logs.Sum(
        len(expected),
        sum(row.cost for row in expected if row.type in ("deduct", "settle", "reversal")),
        sum(row.amount for row in expected if row.type == "recharge" or (row.type == "reversal" and row.model is None)),
    )


def test_every_filter_of_the_list_above_is_told_apart_by_the_books(books: Database) -> None:
    rows = read(books)
    shown = [len([row for row in rows if passes(row)]) for _, passes in FILTERS]
    assert len(set(shown)) > 6


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(3, 40), filters=st.sampled_from([filters for filters, _ in FILTERS]))
def test_pages_one_after_another_are_the_whole_list(books: Database, limit: int, filters: Filters) -> None:
    whole = read(books, filters)
    by_key: list[Row] = []
    while page := read(books, filters, limit=limit, before=by_key[-1].id if by_key else None):
        by_key += page
    assert by_key == whole
    by_offset: list[Row] = []
    while page := read(books, filters, limit=limit, offset=len(by_offset)):
        by_offset += page
    assert by_offset == whole
    assert list(logs.every(books, filters, actor=SHELL, batch=limit)) == whole


def test_a_page_stays_the_same_while_new_entries_come(books: Database) -> None:
    first = read(books, limit=5)
    second = read(books, limit=5, before=first[-1].id)
    books.write(ledger.recharge, "ann", 1, actor=SHELL)
    assert read(books, limit=5, before=first[-1].id) == second


def test_before_a_number_that_no_entry_has_shows_what_lies_before_it(books: Database) -> None:
    everything = read(books)
    assert read(books, before=10**30) == everything
    assert read(books, before=-(10**30)) == read(books, before=0) == []


def test_an_export_is_read_a_batch_at_a_time(books: Database) -> None:
    rows = logs.every(books, Filters(), actor=SHELL, batch=2)
    first = next(rows)
    books.write(ledger.recharge, "ann", 1, actor=SHELL)  # nothing is locked in the meantime
    assert [first, *rows] == read(books)[1:]


def test_an_account_without_entries_has_an_empty_log(db: Database, ann: str) -> None:
    assert read(db, Filters(ann)) == list(logs.every(db, Filters(ann), actor=SHELL)) == []
    assert db.read(logs.total, Filters(ann), actor=SHELL) == logs.Sum(0, 0, 0)


@pytest.mark.parametrize("limit", [0, -1, 10001, True, 1.5, "5", None], ids=repr)
def test_a_limit_that_is_no_count_is_refused(books: Database, limit: Any) -> None:
    with pytest.raises(Invalid, match="limit is a whole number from 1 to 1000"):
        read(books, limit=limit)


@pytest.mark.parametrize("offset", [-1, True, 1.5, "5", None, 2**63], ids=repr)
def test_an_offset_that_is_no_count_is_refused(books: Database, offset: Any) -> None:
    with pytest.raises(Invalid, match="offset is a whole number"):
        read(books, offset=offset)


def test_an_offset_past_the_end_shows_nothing(books: Database) -> None:
    assert read(books, offset=2**63 - 1) == []


# Who sees what


def test_a_member_sees_their_own_and_nothing_else(books: Database) -> None:
    ann = member(books)
    assert {row.user_id for row in read(books, Filters("ann"), ann)} == {"ann"}
    for filters in (Filters("bob"), Filters(), Filters("nobody")):
        for reading in (
            partial(read, books, filters, ann),
            partial(books.read, logs.total, filters, actor=ann),
            lambda filters=filters: list(logs.every(books, filters, actor=ann)),
        ):
            with pytest.raises(Forbidden):
                reading()
    with pytest.raises(UnknownAccount):
        read(books, Filters("nobody"))


def test_one_entry_is_shown_to_whom_it_belongs(books: Database) -> None:
    mine, theirs = (read(books, Filters(user_id), limit=1)[0] for user_id in ("ann", "bob"))
    assert books.read(logs.one, mine.id, actor=member(books)) == mine
    assert books.read(logs.one, theirs.id, actor=SHELL) == theirs
    with pytest.raises(NotFound, match=f"There is no entry {theirs.id}"):
        books.read(logs.one, theirs.id, actor=member(books))


# What a row tells


def test_a_row_tells_tokens_price_and_what_undid_it(books: Database) -> None:
    reversal = next(row for row in read(books, Filters("ann")) if row.type == "reversal")
    settled = books.read(logs.one, reversal.reverses_id or 0, actor=SHELL)
    assert (settled.type, settled.reversed_by, settled.cost, reversal.cost) == ("settle", reversal.id, 18, -18)
    assert books.read(logs.one, settled.precharge_id or 0, actor=SHELL).type == "precharge"
    (charged,) = read(books, Filters("ann", model=MODEL, types=("deduct",)))
    tokens = (
        charged.prompt_tokens,
        charged.completion_tokens,
        charged.cached_tokens,
        charged.cache_creation_tokens,
        charged.reasoning_tokens,
    )
    assert tokens == (100, 10, 20, 30, 5)
    prices = (charged.price_input, charged.price_output, charged.price_cache_read, charged.price_cache_write)
    assert prices == (18_000_000, 72_000_000, 18_000_000, 18_000_000)
    assert charged.price_source == "default"


def test_a_balance_of_0_is_0(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 5, actor=SHELL)
    db.write(ledger.recharge, ann, -5, actor=SHELL)
    assert read(db)[0].balance_after == 0


# How it is read

DAILY: list[tuple[str, Filters, dict[str, Any], str]] = [
    ("an account's log", Filters("ann"), {}, "entry_of_account (account_id=?)"),
    ("a member's own", Filters("ann", merged=True), {}, "entry_of_account (account_id=?)"),
    ("a later page of it", Filters("ann"), {"before": 10}, "entry_of_account (account_id=? AND id<?)"),
    (
        "an account's calls of a day",
        Filters("ann", NOON, NOON + 1, "m", ("deduct",)),
        {},
        "entry_at (account_id=? AND created_at_ns>? AND created_at_ns<?)",
    ),
    ("an account's recharges", Filters("ann", types=("recharge",)), {}, "entry_recharge (account_id=?)"),
    (
        "a later page of them",
        Filters("ann", types=("recharge",)),
        {"before": 10},
        "entry_recharge (account_id=? AND id<?)",
    ),
    ("everybody's later page", Filters(), {"before": 10}, "INTEGER PRIMARY KEY (rowid<?)"),
]


@pytest.mark.parametrize(("name", "filters", "options", "index"), DAILY, ids=[name for name, *_ in DAILY])
def test_the_daily_reading_takes_an_index_and_sorts_nothing(
    sqlite_url: str, name: str, filters: Filters, options: dict[str, Any], index: str
) -> None:
    db = Database(sqlite_url)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    db.write(pricing.model_number, "m")
    steps = [step for plan in plans(db, partial(read, db, filters, **options)) for step in plan]
    db.close()
    assert [step for step in steps if step.startswith("SEARCH entry USING") and step.endswith(index)], steps
    assert not [step for step in steps if step.startswith("SCAN")], steps
    assert not [step for step in steps if "TEMP B-TREE" in step], steps


def test_the_newest_of_everybody_is_read_off_the_end_without_sorting(sqlite_url: str) -> None:
    db = Database(sqlite_url)
    steps = [step for plan in plans(db, partial(read, db)) for step in plan]
    db.close()
    assert [step for step in steps if step.startswith("SCAN")] == ["SCAN entry"]  # backwards by its number, up to LIMIT
    assert not [step for step in steps if "TEMP B-TREE" in step], steps


def test_one_entry_is_found_by_its_number(sqlite_url: str) -> None:
    db = Database(sqlite_url)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    number = db.write(ledger.recharge, "ann", 1, actor=SHELL).entry_id
    steps = [step for plan in plans(db, partial(db.read, logs.one, number, actor=SHELL)) for step in plan]
    db.close()
    assert "SEARCH entry USING INTEGER PRIMARY KEY (rowid=?)" in steps
    assert not [step for step in steps if step.startswith("SCAN")], steps
