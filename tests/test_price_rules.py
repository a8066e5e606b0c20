"""Which price applies: a model's own, a rule's, the catalogue's, the default."""

import re

import pytest
from conftest import SECOND, Clock
from hypothesis import example, given
from hypothesis import strategies as st

from billing_core import audit, ledger, price_rules, pricing
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database
from billing_core.errors import Forbidden, Invalid, NotFound
from billing_core.rates import More, Rates
from billing_core.tokens import Extras, Tokens

YUAN = 1_000_000
MEMBER = Actor(1, "ann", "Ann")


def rule(db: Database, pattern: str, target: str) -> None:
    db.write(price_rules.set_rule, pattern, target, actor=SHELL)


def put(db: Database, model: str, input: int, **options: object) -> None:
    db.write(pricing.set_price, model, input, input, actor=SHELL, **options)


def decided(db: Database, model: str, at_ns: int | None = None) -> tuple[str, str | None, str | None]:
    rates: Rates = db.read(pricing.in_force, model, at_ns)
    return rates.source, rates.rule, rates.priced_as


@pytest.mark.parametrize(
    ("pattern", "target", "model", "priced_as"),
    [
        ("openrouter/*", "*", "openrouter/house/own", "house/own"),
        ("*-2026*", "*", "house/own-2026-11-01", "house/own"),
        ("*:free", "house/own", "some/thing:free", "house/own"),
        ("us.*.*-v*", "*/*", "us.house.own-v2", "house/own"),
        ("own", "house/own", "own", "house/own"),
        ("house/o.n*", "house/own", "house/o.n2", "house/own"),
    ],
)
def test_a_rule_names_the_model_whose_price_counts(
    db: Database, pattern: str, target: str, model: str, priced_as: str
) -> None:
    put(db, "house/own", 5 * YUAN)
    assert decided(db, model)[1] is None
    rule(db, pattern, target)
    assert decided(db, model) == ("database", pattern, priced_as)
    counts = db.read(pricing.in_force, model)
    assert (counts.input, counts.price_id, counts.valid_from_ns) == (5 * YUAN, None, None)
    assert decided(db, "other") == ("default", None, None)


def test_a_dot_in_a_pattern_is_a_dot(db: Database) -> None:
    put(db, "house/own", YUAN)
    rule(db, "a.b*", "house/own")
    assert decided(db, "axb")[1] is None


@example("ab*b*", "ab")
@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_the_first_stars_stand_for_as_much_as_they_can(pattern: str, name: str) -> None:
    greedy = re.fullmatch("(.*)".join(pattern.split("*")), name)
    target = "|".join("*" * pattern.count("*"))
    found = price_rules.Rule(pattern, target, 0).applied_to(name)
    assert found == (None if greedy is None else "|".join(greedy.groups()))


def test_no_pattern_takes_long() -> None:
    """A regular expression tries each way to place the hyphens: 20 seconds for five stars."""
    stars = price_rules.MAX_STARS
    assert price_rules.Rule("*-" * stars + "x", "*", 0).applied_to("-" * 200) is None
    assert price_rules.Rule("*-" * stars + "*", "*", 0).applied_to("-" * 200) == "-" * (200 - stars)


def test_a_model_with_a_price_of_its_own_asks_no_rule(db: Database) -> None:
    put(db, "house/own", YUAN)
    put(db, "router/x", 2 * YUAN)
    rule(db, "router/*", "house/own")
    assert decided(db, "router/x") == ("database", None, None)


def test_the_rule_with_the_most_text_is_asked_first(db: Database) -> None:
    put(db, "one", YUAN)
    put(db, "two", YUAN)
    rule(db, "*", "one")
    rule(db, "router/*", "two")
    assert decided(db, "router/x")[2] == "two"
    assert decided(db, "x")[2] == "one"


def test_a_rule_leads_on_to_another_one_and_never_in_a_circle(db: Database) -> None:
    put(db, "house/own", YUAN)
    rule(db, "router/*", "*")
    rule(db, "own-*", "house/own")
    assert decided(db, "router/own-2026") == ("database", "router/*", "house/own")
    rule(db, "a*", "b*")
    rule(db, "b*", "a*")
    assert decided(db, "a1") == ("default", None, None)


def test_a_rule_whose_target_has_no_price_gives_way_to_the_next_and_to_the_catalogue(db: Database) -> None:
    put(db, "house/own", YUAN)
    rule(db, "router/nobody*", "nobody-knows-*")
    rule(db, "router/*", "house/own")
    assert decided(db, "router/nobody1") == ("database", "router/*", "house/own")
    rule(db, "openai/*", "nobody-knows-*")
    assert decided(db, "openai/gpt-4o") == ("catalogue", None, None)
    rule(db, "mine/*", "openai/*")
    assert decided(db, "mine/gpt-4o") == ("catalogue", "mine/*", "openai/gpt-4o")


def test_a_rule_counts_from_its_moment_until_it_ends(db: Database, clock: Clock) -> None:
    put(db, "house/own", YUAN)
    before = clock.now_ns
    clock.forward(seconds=10)
    rule(db, "x*", "house/own")
    since = clock.now_ns
    clock.forward(seconds=10)
    db.write(price_rules.end_rule, "x*", actor=SHELL)
    assert [decided(db, "x1", at)[1] for at in (before, since, since + 9 * SECOND, clock.now_ns)] == [
        None,
        "x*",
        "x*",
        None,
    ]
    assert db.read(price_rules.listed) == []


def test_an_entry_keeps_the_rule_and_the_price_that_it_was_charged_at(db: Database, ann: str) -> None:
    put(db, "house/own", 5 * YUAN, more=More(call=YUAN))
    rule(db, "router/*", "*")
    db.write(ledger.recharge, ann, 10**8, actor=SHELL)
    receipts = [db.write(ledger.charge, ann, "router/house/own", Tokens(YUAN, 0), actor=SHELL) for _ in range(2)]
    assert [receipt.cost for receipt in receipts] == [60_000, 60_000]
    put(db, "house/own", 7 * YUAN)
    rule(db, "router/*", "else")
    entry = db.read(lambda tx: ledger._entry(tx, receipts[0].entry_id))
    kept = db.read(pricing.charged_at, entry.price_id)
    assert (kept.input, kept.source, kept.rule, kept.priced_as) == (5 * YUAN, "database", "router/*", "house/own")
    assert not check(db)


def test_rules_change_for_admins_only_and_are_noted(db: Database, ann: str) -> None:
    with pytest.raises(Forbidden):
        db.write(price_rules.set_rule, "a*", "b", actor=MEMBER)
    rule(db, "a*", "b")
    with pytest.raises(Forbidden):
        db.write(price_rules.end_rule, "a*", actor=MEMBER)
    rule(db, "a*", "c")
    db.write(price_rules.end_rule, "a*", actor=SHELL)
    noted = [(row.subject, audit.sentence(row)) for row in db.read(audit.page, actor=SHELL, kind="price")]
    assert noted == [
        ("a*", "The shell ended the rule for a*: c → –"),
        ("a*", "The shell changed the rule for a*: b → c"),
        ("a*", "The shell changed the rule for a*: – → b"),
    ]


@pytest.mark.parametrize(
    ("pattern", "target", "field"),
    [("", "b", "pattern"), ("a" * 201, "b", "pattern"), ("a\n*", "b", "pattern"), ("a", "b*", "target"), ("a*", "", "target"),
     ("******", "b", "pattern"), ("a*", "a*", "target")],
)  # fmt: skip
def test_what_is_no_rule_is_refused(db: Database, pattern: str, target: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        rule(db, pattern, target)
    assert refused.value.field == field
    assert str(refused.value).startswith("The target is the pattern itself.") == (pattern == target)


def test_a_rule_that_is_not_there_cannot_end(db: Database) -> None:
    with pytest.raises(NotFound, match="no rule for a"):
        db.write(price_rules.end_rule, "a", actor=SHELL)


def test_a_precharge_and_its_settle_by_a_rule(db: Database, ann: str) -> None:
    put(db, "house/own", 5 * YUAN, more=More(tools=(("web_search", YUAN),), service_tiers=(("batch", 500_000),)))
    rule(db, "router/*", "*")
    db.write(ledger.recharge, ann, 10**8, actor=SHELL)
    held = db.write(ledger.precharge, ann, "router/house/own", YUAN, 0, actor=SHELL, service_tier="batch")
    assert held.cost == 25_000
    rule(db, "router/*", "else")
    used = Tokens(YUAN, 0, extras=Extras(tools=(("web_search", 2),), service_tier="batch"))
    done = db.write(ledger.settle, held.entry_id, used, actor=SHELL)
    assert done.cost == 45_000
    assert not check(db)
