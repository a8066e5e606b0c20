"""What is refused is told in one plain sentence that names the field: word by word, where money is moved and priced."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import NOON, SECOND, Clock

from billing_core import accounts, ledger, money, price_rules, pricing
from billing_core.actors import SHELL, Actor
from billing_core.database import Database
from billing_core.errors import BillingError
from billing_core.models import Entry
from billing_core.pricing import Change
from billing_core.rates import More, Prices, Rates, Tier, as_rates
from billing_core.tokens import Extras, Tokens

BIG = 10**9
ONE = Tokens(1, 1)
DEAREST = More(tools=(("search", 10**12),))
SEARCHED = Tokens(0, 0, extras=Extras(tools=(("search", 100_001),)))
"""At the dearest price: one search more than an entry can hold."""
DAY = 86_400 * SECOND


def told(call: Callable[[], Any]) -> tuple[str, str | None]:
    with pytest.raises(BillingError) as refused:
        call()
    return str(refused.value), getattr(refused.value, "field", None)


NO_AMOUNT = "“{}” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."
NO_PRICE = "“{}” is not a price. Write it in 元 per million tokens, like 18 or 0.5."
TOO_MUCH = "The amount is too large. One entry moves at most 100,000,000,000 元."


@pytest.mark.parametrize(
    ("call", "sentence", "field"),
    [
        (lambda: money.parse_yuan("x", field="f"), NO_AMOUNT.format("x"), "f"),
        (lambda: money.parse_yuan("x"), NO_AMOUNT.format("x"), "amount"),
        (lambda: money.parse_yuan("1" * 40), NO_AMOUNT.format("1" * 40), "amount"),
        (lambda: money.parse_yuan("0.00001", field="f"), "0.00001 元 is finer than 0.0001 元. Use at most four decimal places.", "f"),
        (lambda: money.parse_yuan("100000000000.0001", field="f"), TOO_MUCH, "f"),
        (lambda: money.check_hao(-(10**15) - 1, field="f"), TOO_MUCH, "f"),
        (lambda: money.check_hao(10**15 + 1), TOO_MUCH, "amount"),
        (lambda: money.parse_price("x", field="f"), NO_PRICE.format("x"), "f"),
        (lambda: money.parse_price("x"), NO_PRICE.format("x"), "price"),
        (lambda: money.parse_price("-1", field="f"), "A price can't be below 0. Use 0 for a free model.", "f"),
        (lambda: money.parse_price("1.1234567", field="f"), "A price has at most six decimal places; 1.1234567 has more.", "f"),
        (lambda: money.parse_price("1000000.000001", field="f"), "The price is too high. At most 1,000,000 元 per million tokens.", "f"),
    ],
)  # fmt: skip
def test_amounts_and_prices(call: Callable[[], Any], sentence: str, field: str) -> None:
    assert told(call) == (sentence, field)


MODEL = "A model's name has 1 to 200 characters, like openai/gpt-4o."
TTL = "ttl_seconds must be a whole number from 1 to 604800 (a week)."
LONG = "The text is too long: at most 500 characters."
WHY = "Say why: the reason stands beside the reversal."
EARLY = "created_at must be a time since 2000, in whole nanoseconds since 1970 (UTC)."
LATE = "created_at lies in the future. Leave it out, or check the clock."
DEAR = "The call would cost more than any entry can hold. Check the token counts."
MICRO = "A price is a whole number of 10⁻⁶ 元, from 0 to 1,000,000 元 per million tokens."
PAST = "A price can't start in the past: what was charged stays as it is. Leave valid_from out for now."
NO_SUCH = "No price is set for m, so none can be retired."
MEANWHILE = (
    "Somebody else has changed the price of m in the meantime, so nothing was applied. Discard your changes to see it, "
    "and decide anew."
)
NAMED = "A tool or service tier has a name of 1 to 100 characters, like web_search or batch."
TIERS = "Tiers begin above whole numbers of prompt tokens, each higher than the one before."
MOST = "A price has at most 10 tiers, 50 tools and 50 service tiers."
PATTERN = "A pattern or target is a model's name of 1 to 200 characters, with at most 5 *, like openrouter/*."
PARTS = (
    "cached_tokens and cache_creation_tokens are more than prompt_tokens, which they are parts of: count all input in "
    "prompt_tokens."
)
TOOL = "A tool's name has 1 to 100 characters, like web_search."
COUNT = "{} is a count of tokens: give a whole number from 0 to 1000000000."


def charge(db: Database, tokens: Tokens = ONE, **options: Any) -> Any:
    return db.write(ledger.charge, "ann", options.pop("model", "m"), tokens, actor=SHELL, **options)


def put(db: Database, *prices: Any, **options: Any) -> Any:
    return db.write(pricing.set_price, options.pop("model", "m"), *prices, actor=SHELL, **options)


def plan(db: Database) -> int:
    """A planned price's number, the same each time."""
    planned = db.read(pricing.history, "m")
    return planned[0].price_id if planned else int(put(db, 1, 1, valid_from_ns=NOON + DAY).id)


def listed(db: Database) -> int:
    """The number of a change of prices, the same each time."""
    if not db.read(pricing.changes):
        db.write(pricing.apply, [Change("m", Prices(1, 1), None)], actor=SHELL, what="list")
    return db.read(pricing.changes)[0].id


@pytest.mark.parametrize(
    ("call", "sentence", "field"),
    [
        (lambda db: db.write(ledger.recharge, "ann", 0, actor=SHELL),
         "The amount must be a whole number of 毫 other than 0 (1 元 is 10,000 毫).", "amount"),
        (lambda db: db.write(ledger.recharge, "ann", 1, actor=SHELL, remark="x" * 501), LONG, "remark"),
        (lambda db: db.read(ledger.preview_recharge, "ann", 0, actor=SHELL),
         "0 元 changes nothing. Write 100 to add 100 元, or -100 to take 100 元 off.", "amount"),
        (lambda db: db.read(ledger.preview_reversal, 77, actor=SHELL), "There is no entry 77.", None),
        (lambda db: charge(db, model="x" * 201), MODEL, "model_id"),
        (lambda db: charge(db, created_at_ns=946_684_800 * SECOND - 1), EARLY, "created_at"),
        (lambda db: charge(db, created_at_ns=True), EARLY, "created_at"),
        (lambda db: charge(db, created_at_ns=NOON + 300 * SECOND + 1), LATE, "created_at"),
        (charge, "The balance of ann is 0.00 元, the call needs 0.0001 元. Ask an admin for a recharge.", None),
        (lambda db: (put(db, 0, 0, more=DEAREST), charge(db, SEARCHED, allow_debt=True)), DEAR, "tokens"),
        (lambda db: db.write(ledger.precharge, "ann", "m", 1, 1, actor=SHELL, ttl_seconds=0), TTL, "ttl_seconds"),
        (lambda db: db.write(ledger.precharge, "ann", "m", 1, 1, actor=SHELL, ttl_seconds=604_801), TTL, "ttl_seconds"),
        (lambda db: db.write(ledger.settle, 77, ONE, actor=SHELL), "There is no precharge 77.", None),
        (lambda db: db.write(ledger.reverse, 1, " ", actor=SHELL), WHY, "reason"),
        (lambda db: db.write(ledger.reverse, 1, "x" * 501, actor=SHELL), LONG, "reason"),
        (lambda db: db.write(ledger.reverse, 77, "why", actor=SHELL), "There is no entry 77.", None),
        (lambda db: put(db, -1, 1), MICRO, "input_price"),
        (lambda db: put(db, 1, 10**12 + 1), MICRO, "output_price"),
        (lambda db: put(db, 1, None), MICRO, "output_price"),
        (lambda db: put(db, 1, 1, cache_read=-1), MICRO, "cache_read_price"),
        (lambda db: put(db, 1, 1, cache_write=1.0), MICRO, "cache_write_price"),
        (lambda db: put(db, 1, 1, valid_from_ns=2**63), "valid_from must be a moment before the year 2262.", "valid_from"),
        (lambda db: put(db, 1, 1, valid_from_ns=NOON - 60 * SECOND - 1), PAST, "valid_from"),
        (lambda db: put(db, 1, 1, model=" "), MODEL, "model_id"),
        (lambda db: put(db, 1, 1, more=More(call=-1)), MICRO, "call_price"),
        (lambda db: put(db, 1, 1, more=More(tools=(("", 1),))), NAMED, "tools"),
        (lambda db: put(db, 1, 1, more=More(service_tiers=(("x", -1),))), "A multiplier is a number from 0 to 1000.", "service_tiers"),
        (lambda db: put(db, 1, 1, more=More(tiers=(Tier(0, 1, 1),))), TIERS, "tiers"),
        (lambda db: put(db, 1, 1, more=More(tiers=tuple(Tier(n, 1, 1) for n in range(1, 12)))), MOST, "tiers"),
        (lambda db: db.write(pricing.retire, "m", actor=SHELL), NO_SUCH, None),
        (lambda db: db.write(pricing.apply, [Change("m", None, None)], actor=SHELL), NO_SUCH, None),
        (lambda db: db.write(pricing.apply, [Change("m", Prices(1, 1), 7)], actor=SHELL), MEANWHILE, None),
        (lambda db: db.write(pricing.withdraw, 7, actor=SHELL), "There is no planned price 7.", None),
        (lambda db: db.write(pricing.undo_change, 7, actor=SHELL), "There is no change of prices 7.", None),
        (lambda db: db.write(price_rules.set_rule, "", "x", actor=SHELL), PATTERN, "pattern"),
        (lambda db: db.write(price_rules.set_rule, "x", "x*", actor=SHELL), "The target has more * than the pattern.", "target"),
        (lambda db: db.write(price_rules.end_rule, "x", actor=SHELL), "There is no rule for x.", None),
        (lambda db: Tokens(-1, 1), COUNT.format("prompt_tokens"), "prompt_tokens"),
        (lambda db: Extras(audio_input=-1), COUNT.format("audio_input_tokens"), "audio_input_tokens"),
        (lambda db: Extras(tools=(("x", -1),)), "tools are counts of calls by tool: give whole numbers from 0 to 1000000000.", "tools"),
        (lambda db: Tokens(5, 1, 6), PARTS, "cached_tokens"),
        (lambda db: Tokens(5, 1, 3, 3), PARTS, "cache_creation_tokens"),
        (lambda db: Tokens(5, 1, 5, 1), PARTS, "cache_creation_tokens"),
        (lambda db: Tokens(9, 1, 0, 5, extras=Extras(cache_creation_1h=6)),
         "cache_creation_1h_tokens are more than cache_creation_tokens, which they are part of.", "cache_creation_1h_tokens"),
        (lambda db: Tokens(9, 1, extras=Extras(audio_output=1, image_output=1)),
         "audio_output_tokens + image_output_tokens are more than completion_tokens, which they are part of.",
         "audio_output_tokens"),
        (lambda db: Extras(tools=(("x" * 101, 1),)), TOOL, "tools"),
        (lambda db: Extras(tools=tuple((f"t{n:02}", 1) for n in range(21))), "A call can be charged for at most 20 tools.", "tools"),
        (lambda db: Extras(service_tier="x" * 101), "A service tier's name has 1 to 100 characters, like batch.", "service_tier"),
        (lambda db: More(audio_input=-1), MICRO, "audio_input_price"),
        (lambda db: More(tools=(("x", -1),)), MICRO, "tools_price"),
        (lambda db: More(service_tiers=(("", 1),)), NAMED, "service_tiers"),
        (lambda db: More(tiers=(Tier(10**9 + 1, 1, 1),)), TIERS, "tiers"),
        (lambda db: More(tiers=(Tier(1, None, 1),)), MICRO, "input_price"),  # type: ignore[arg-type]
        (lambda db: More(tiers=(Tier(1, 1, 1, audio_output=-1),)), MICRO, "audio_output_price"),
        (lambda db: db.write(pricing.apply, [Change("m", Prices(1, -1), None)], actor=SHELL, what="list"), MICRO, "output_price"),
        (lambda db: [db.write(pricing.withdraw, plan(db), actor=SHELL) for _twice in range(2)],
         "The planned price of m has been withdrawn already.", None),
        (lambda db: db.write(pricing.withdraw, put(db, 1, 1).id, actor=SHELL),
         "The price of m counts already. What counted stays: set another one from now on.", None),
        (lambda db: [db.write(pricing.undo_change, listed(db), actor=SHELL) for _twice in range(2)],
         "Change 1 of prices has been undone already.", None),
        (lambda db: db.write(pricing.undo_change, 2**63, actor=SHELL), f"There is no change of prices {2**63}.", None),
        (lambda db: Tokens(1, 1, extras=Extras(audio_input=1, image_input=1)),
         "audio_input_tokens + image_input_tokens are more than the prompt_tokens that aren't cached, which they are part of.",
         "audio_input_tokens"),
    ],
)  # fmt: skip
def test_what_the_ledger_and_the_prices_refuse(
    db: Database, ann: str, call: Callable[[Database], Any], sentence: str, field: str | None
) -> None:
    assert told(lambda: call(db)) == (sentence, field)


@pytest.mark.parametrize("end", ["settle", "refund", "reverse", "expire"])
def test_an_ended_precharge_names_itself(db: Database, ann: str, clock: Clock, end: str) -> None:
    db.write(ledger.recharge, ann, 10**6, actor=SHELL)
    held = db.write(ledger.precharge, ann, "m", 1, 1, actor=SHELL).entry_id
    if end == "settle":
        db.write(ledger.settle, held, ONE, actor=SHELL)
    elif end == "refund":
        db.write(ledger.refund, held, actor=SHELL)
    elif end == "reverse":
        db.write(ledger.reverse, held, "why", actor=SHELL)
    else:
        clock.forward(days=1)
    said = {
        "settle": "has been settled already.", "refund": "has been refunded already.",
        "reverse": "has been reversed by an admin.",
        "expire": "has expired and was given back. Charge the call itself, with allow_debt if it was made.",
    }  # fmt: skip
    assert told(lambda: db.write(ledger.refund, held, actor=SHELL)) == (f"Precharge {held} {said[end]}", None)


def test_what_is_undone_once_is_told_so(db: Database, ann: str) -> None:
    entry = db.write(ledger.recharge, ann, 10**6, actor=SHELL).entry_id
    db.write(ledger.reverse, entry, "why", actor=SHELL)
    assert told(lambda: db.write(ledger.reverse, entry, "why", actor=SHELL)) == (
        f"Entry {entry} has been reversed already.",
        None,
    )


def test_a_frozen_account_is_named(db: Database, ann: str) -> None:
    db.write(accounts.change, ann, actor=SHELL, status="frozen")
    assert told(lambda: charge(db))[0].startswith("The account ann is frozen")


def test_a_balance_that_no_ledger_holds_is_refused(db: Database, ann: str) -> None:
    db.write(lambda tx: tx.connection().exec_driver_sql(f"UPDATE account SET balance = {9 * 10**18 - 1}"))
    db.write(ledger.recharge, ann, 1, actor=SHELL)
    said = told(lambda: db.write(ledger.recharge, ann, 1, actor=SHELL))
    assert said == ("The balance would be larger than the ledger can hold.", "amount")


def test_what_holds_give_back_together_is_no_more_than_a_ledger_holds(db: Database, ann: str, clock: Clock) -> None:
    put(db, 10**6, 0)
    db.write(ledger.recharge, ann, 200, actor=SHELL)
    for _ in range(2):
        db.write(ledger.precharge, ann, "m", 10_000, 0, actor=SHELL)
    db.write(lambda tx: tx.connection().exec_driver_sql(f"UPDATE account SET balance = {9 * 10**18 - 150}"))
    clock.forward(days=1)
    said = told(lambda: db.write(ledger.expire_holds))
    assert said == ("The balance would be larger than the ledger can hold.", "amount")


# The last that is let through


def test_limits_are_part_of_what_they_limit(db: Database, ann: str) -> None:
    assert money.check_hao(-(10**15)) == -(10**15)
    assert money.parse_price("1000000") == 10**12
    assert pricing.clean_model("x" * 200) == "x" * 200
    put(db, 10**12, 0, cache_read=10**12)
    db.write(ledger.recharge, ann, 10**15, actor=SHELL, remark="x" * 500)
    db.write(ledger.precharge, ann, "m", 0, 1, actor=SHELL, ttl_seconds=604_800)
    assert charge(db, Tokens(10**9 // 10, 0)).cost == 10**12
    assert charge(db, Tokens(BIG, 0), allow_debt=True).cost == 10**13
    put(db, 0, 0, model="searched", more=DEAREST)
    most = Tokens(0, 0, extras=Extras(tools=(("search", 100_000),)))
    assert charge(db, most, model="searched", allow_debt=True).cost == 10**15
    put(db, 1, 1, model="late", valid_from_ns=2**63 - 1)
    for moment in (946_684_800 * SECOND, NOON + 300 * SECOND):
        entry = charge(db, model="free", created_at_ns=moment, allow_debt=True)
        assert entry.created_at_ns == moment
    db.write(ledger.reverse, entry.entry_id, "x" * 500, actor=SHELL)


def test_the_most_that_a_price_and_a_call_can_hold_is_let_through() -> None:
    name = "x" * 100
    many = tuple((f"t{n:02}", 10**12) for n in range(50))
    More(tools=many, service_tiers=((name, 10**9),), tiers=tuple(Tier(10**9 - 10 + n, 1, 1) for n in range(1, 11)))
    More(service_tiers=many[:1] and tuple((f"t{n:02}", 1) for n in range(50)), tools=((name, 1),))
    Extras(tools=tuple((f"t{n:02}", 10**9) for n in range(20)), service_tier=name)
    Extras(tools=((name, 1),))


def test_who_did_it_and_why_stand_on_every_entry(db: Database, ann: str) -> None:
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    boss = Actor(2, "boss", "Boss", is_admin=True)
    db.write(ledger.recharge, ann, 10**6, actor=boss, remark="June")
    first = db.write(ledger.charge, ann, "m", ONE, actor=boss)
    db.write(ledger.refund, db.write(ledger.precharge, ann, "m", 1, 1, actor=boss).entry_id, actor=boss)
    held = db.write(ledger.precharge, ann, "m", 1, 1, actor=boss).entry_id
    db.write(ledger.settle, held, ONE, actor=boss, others=[("other", ONE)])
    db.write(ledger.reverse, first.entry_id, "a mistake", actor=boss)

    def rows(tx: Any) -> list[Entry]:
        return [tx.session.get_one(Entry, number) for number in range(1, 9)]

    found = db.read(rows)
    assert [entry.type for entry in found] == [
        "recharge", "deduct", "precharge", "refund", "precharge", "settle", "deduct", "reversal",
    ]  # fmt: skip
    assert {entry.operator_id for entry in found} == {2}
    assert (found[0].remark, found[7].remark) == ("June", "a mistake")


def test_rates_of_a_price_are_told_apart_by_their_source() -> None:
    assert as_rates(Prices(1, 2)) == Rates(1, 2, 1, 1, "database", own=("input", "output"))
    assert as_rates(Prices(1, 2, 3, 4)) == Rates(1, 2, 3, 4, "database")
    assert as_rates(Prices(1, 2, None, 4)) == Rates(1, 2, 1, 4, "database", own=("input", "output", "cache_write"))


def test_what_is_not_repriced_says_why(db: Database, ann: str) -> None:
    boss = Actor(2, "boss", "Boss", is_admin=True)
    db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin")
    recharged = db.write(ledger.recharge, ann, 10**6, actor=SHELL).entry_id
    dear = put(db, 10**9, 0).id
    other = put(db, 1, 1, model="other").id
    call = charge(db, Tokens(1000, 0))
    cheap = put(db, 10**7, 0).id

    def reprice(entry: int, price: int | None, actor: Actor = SHELL) -> Any:
        return db.write(ledger.reprice, entry, price, "too dear", actor=actor)

    no_call = f"Entry {recharged} charges no call, so it has no price."
    assert told(lambda: reprice(recharged, cheap)) == (no_call, None)
    held = db.write(ledger.precharge, ann, "m", 10, 10, actor=SHELL).entry_id
    assert told(lambda: reprice(held, cheap)) == (no_call.replace(str(recharged), str(held)), None)
    of_another = f"Price {other} is not one of the model of entry {call.entry_id}."
    assert told(lambda: reprice(call.entry_id, other)) == (of_another, "price_id")
    the_same = f"Entry {call.entry_id} costs the same at the price that counts now, so it stays as it is."
    assert told(lambda: reprice(call.entry_id, dear)) == (the_same, None)
    done = reprice(call.entry_id, cheap, boss)
    assert (done.user_id, done.status, done.amount) == ("ann", "active", 9_900)
    rows = db.read(lambda tx: [tx.session.get_one(Entry, number) for number in (done.entry_id, *done.other_ids)])
    assert [row.operator_id for row in rows] == [2, 2]
    by_itself = (
        f"Entry {done.entry_id} was written by a repricing, and charge {done.other_ids[0]} stands in the place of what it "
        "undid. Reverse or reprice that one."
    )
    assert told(lambda: db.write(ledger.reverse, done.entry_id, "why", actor=SHELL)) == (by_itself, None)
    again = f"Entry {call.entry_id} has been reversed already."
    assert told(lambda: reprice(call.entry_id, cheap)) == (again, None)
    # Another account's charge in between, and a later one of the same account, are none of the repricing's.
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    plain = db.write(ledger.reverse, charge(db, Tokens(1000, 0)).entry_id, "wrong", actor=SHELL).entry_id
    db.write(ledger.charge, "bob", "m", Tokens(1000, 0), actor=SHELL, allow_debt=True)
    charge(db, Tokens(1000, 0))
    charge(db, Tokens(1000, 0))
    assert db.write(ledger.reverse, plain, "right after all", actor=SHELL).entry_id > plain


def test_output_tokens_that_are_fewer_than_their_part() -> None:
    sentence = "reasoning_tokens are more than completion_tokens, which they are part of: count all output in completion_tokens."
    assert told(lambda: Tokens(1, 1, reasoning=2)) == (sentence, "reasoning_tokens")


def test_a_recharge_without_a_remark_has_none(db: Database, ann: str) -> None:
    entry = db.write(ledger.recharge, ann, 1, actor=SHELL).entry_id
    assert not db.read(lambda tx: tx.session.get_one(Entry, entry).remark)
