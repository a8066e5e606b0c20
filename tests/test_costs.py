"""Why an entry cost what it did: the lines add up to its cost, and say where a price falls under another's."""

from decimal import Decimal
from typing import Any

import pytest

from billing_core import costs, ledger, price_rules, pricing
from billing_core.actors import SHELL, Actor
from billing_core.database import Database
from billing_core.errors import NotFound
from billing_core.pricing import Upstream
from billing_core.rates import More, Tier
from billing_core.tokens import Extras, Tokens

YUAN = 1_000_000
MORE = More(
    cache_write_1h=30 * YUAN, call=5_000, tools=(("web_search", 70_000),), service_tiers=(("batch", 500_000),),
    tiers=(Tier(100_000, 20 * YUAN, 90 * YUAN),),
)  # fmt: skip
EXTRAS = Extras(10, 20, 0, 5, 0, (("web_search", 2),), "batch", 1_500, ("reasoning",), Decimal("0.01"))
USED = Tokens(1_000, 200, 300, 100, 50, EXTRAS)


@pytest.fixture
def rich(db: Database, ann: str) -> Database:
    db.write(ledger.recharge, ann, 10**9, actor=SHELL)
    db.write(pricing.set_price, "m", 10 * YUAN, 80 * YUAN, actor=SHELL, cache_read=YUAN, more=MORE)
    return db


def charged(db: Database, tokens: Tokens = USED, model: str = "m") -> int:
    return db.write(ledger.charge, "ann", model, tokens, actor=SHELL).entry_id


def exact(why: costs.Why) -> Decimal:
    """In 元, from what is shown."""
    factor = Decimal(why.multiplier) / 10**6
    return sum((Decimal(line.pico).scaleb(-12) * (1 if line.per_call else factor) for line in why.lines), Decimal(0))


@pytest.mark.parametrize("tokens", [USED, Tokens(1_000, 10), Tokens(200_000, 10, 5), Tokens(0, 0)])
def test_the_lines_of_a_call_add_up_to_its_cost(rich: Database, tokens: Tokens) -> None:
    done = rich.write(ledger.charge, "ann", "m", tokens, actor=SHELL)
    why = rich.read(costs.why, done.entry_id, actor=SHELL)
    assert why is not None
    assert done.cost - 1 < exact(why) * 10_000 <= done.cost
    assert (why.tier is not None) == (tokens.prompt > 100_000)


def test_a_precharge_shows_the_most_that_it_can_come_to(rich: Database) -> None:
    held = rich.write(ledger.precharge, "ann", "m", 1_000, 100, actor=SHELL, service_tier="batch")
    why = rich.read(costs.why, held.entry_id, actor=SHELL)
    assert why is not None
    assert held.cost - 1 < exact(why) * 10_000 <= held.cost
    assert [(line.kind, line.price) for line in why.lines] == [
        ("input", 30 * YUAN),
        ("output", 80 * YUAN),
        ("call", 5_000),
    ]


def test_each_kind_says_what_it_falls_under(rich: Database) -> None:
    why = rich.read(costs.why, charged(rich), actor=SHELL)
    assert why is not None
    assert {line.kind: line.falls_under for line in why.lines if line.falls_under} == {
        "audio_input": "input", "cache_write": "input", "audio_output": "output",
    }  # fmt: skip
    assert why.tokens.extras == Extras(10, 20, 0, 5, 0, (("web_search", 2),), "batch", 1_500, ("reasoning",))


def test_what_the_provider_asks_is_for_admins(rich: Database) -> None:
    entry = charged(rich)
    admins, members = (rich.read(costs.why, entry, actor=actor) for actor in (SHELL, Actor(1, "ann", "Ann")))
    assert admins is not None
    assert members is not None
    assert (admins.upstream, members.upstream) == (Upstream(10_000_000_000, 72_000_000), None)


def test_it_tells_the_rule_that_decided(rich: Database) -> None:
    rich.write(price_rules.set_rule, "router/*", "*", actor=SHELL)
    why = rich.read(costs.why, charged(rich, model="router/m"), actor=SHELL)
    assert why is not None
    assert (why.rates.rule, why.rates.priced_as) == ("router/*", "m")


def test_what_is_no_call_has_no_why_and_nobody_elses_is_told(rich: Database) -> None:
    assert rich.read(costs.why, 1, actor=SHELL) is None
    entry: Any = charged(rich)
    with pytest.raises(NotFound):
        rich.read(costs.why, entry, actor=Actor(7, "eve", "Eve"))
