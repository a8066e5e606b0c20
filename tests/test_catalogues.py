"""Price lists that others keep: read exactly, beside what counts now, with what looks odd about them."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core import catalogues
from billing_core.catalogues import (
    Catalogue,
    Listed,
    Offer,
    built_in,
    compare,
    from_csv,
    genai_prices,
    in_yuan,
    litellm,
)
from billing_core.errors import Invalid
from billing_core.rates import More, Prices, Tier
from billing_core.tokens import Tokens

YUAN = 1_000_000
RATE = Decimal("7.2")


def a_list(**inputs: str) -> Catalogue:
    offers = {
        model: Offer(model, "maker", Listed({"input": Decimal(price), "output": 2 * Decimal(price)}))
        for model, price in inputs.items()
    }
    return Catalogue("list", offers, "元")


# LiteLLM

ROW: dict[str, Any] = {"litellm_provider": "openai", "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05}


def read(row: dict[str, Any]) -> Listed:
    found = litellm(json.dumps({"sample_spec": {"litellm_provider": "x"}, "m": row}).encode())
    return found.offers["m"].listed


@pytest.mark.parametrize(
    ("more", "prices"),
    [
        ({}, Prices(2_500_000, 10_000_000)),
        ({"cache_read_input_token_cost": 2.5e-07, "cache_creation_input_token_cost": 3.125e-06},
         Prices(2_500_000, 10_000_000, 250_000, 3_125_000)),
        ({"cache_creation_input_token_cost_above_1hr": 5e-06, "input_cost_per_audio_token": 4e-05},
         Prices(2_500_000, 10_000_000, more=More(cache_write_1h=5_000_000, audio_input=40_000_000))),
        ({"input_cost_per_token_above_200k_tokens": 5e-06, "output_cost_per_token_above_200k_tokens": 1.5e-05},
         Prices(2_500_000, 10_000_000, more=More(tiers=(Tier(200_000, 5_000_000, 15_000_000),)))),
        ({"input_cost_per_token_batches": 1.25e-06, "output_cost_per_token_batches": 5e-06},
         Prices(2_500_000, 10_000_000, more=More(service_tiers=(("batch", 500_000),)))),
        ({"input_cost_per_token_priority": 5e-06, "output_cost_per_token_priority": 1e-05}, Prices(2_500_000, 10_000_000)),
        ({"search_context_cost_per_query": {"search_context_size_medium": 0.035}},
         Prices(2_500_000, 10_000_000, more=More(tools=(("web_search", 35_000),)))),
        ({"output_cost_per_token": None}, Prices(2_500_000, 0)),
        ({"max_tokens": 8192, "mode": "chat", "supports_vision": True}, Prices(2_500_000, 10_000_000)),
    ],
)  # fmt: skip
def test_litellms_file_is_read_exactly(more: dict[str, Any], prices: Prices) -> None:
    assert in_yuan(read(ROW | more), Decimal(1)) == prices


def test_what_is_not_priced_by_token_is_counted_as_skipped() -> None:
    rows = {
        "a": ROW,
        "b": {"litellm_provider": "x", "mode": "image_generation", "output_cost_per_image": 0.04},
        "c" * 201: ROW,
    }
    found = litellm(json.dumps(rows).encode())
    assert (list(found.offers), found.skipped, found.currency) == (["a"], 2, "USD")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"a": 1}', b"\xff\xfe", b"[" * 100_000, b'{"a": {"litellm_provider": 1e400}', b"NaN"],
)
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        litellm(content)
    assert refused.value.field == "file"


def test_numbers_that_are_none_are_left_out() -> None:
    text = '{"m": {"litellm_provider": "x", "input_cost_per_token": 1e-06, "output_cost_per_token": NaN}}'
    assert litellm(text.encode()).offers["m"].listed.tokens == {"input": Decimal(1)}


# CSV


def test_a_csv_is_read_by_its_heading() -> None:
    text = "\ufeffmodel_id,input_price,output_price,cache_read_price,source\nm/1,18,72,0.000001,x\nm/2,0,0,,\n"
    found = from_csv(text.encode(), "元")
    assert {model: in_yuan(offer.listed, Decimal(1)) for model, offer in found.offers.items()} == {
        "m/1": Prices(18 * YUAN, 72 * YUAN, 1),
        "m/2": Prices(0, 0),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a,b\n1,2\n",
            "The first line must name the columns: model, input_price, output_price, and others of the price list.",
        ),
        ("model,input_price,output_price\n", "The file names no models."),
        ("model,input_price,output_price\nm,1,x\n", "“x” in line 2 is no price."),
        ("model,input_price,output_price\nm,-1,1\n", "“-1” in line 2 is no price."),
        ("model,input_price,output_price\nm,1,1e400\n", "“1e400” in line 2 is no price."),
        ("model,input_price,output_price\nm,1,NaN\n", "“NaN” in line 2 is no price."),
        ("model,input_price,output_price\nm,1,1\nm,1,2\n", "Line 3 names m a second time."),
        ("model,input_price,output_price\nm,1,\n", "Line 2 has no model with prices for input and output."),
    ],
)
def test_a_csv_that_is_none_is_refused_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(Invalid) as refused:
        from_csv(text.encode(), "USD")
    assert str(refused.value) == sentence


def test_a_file_that_is_too_large_or_no_text_is_refused() -> None:
    with pytest.raises(Invalid, match="too large"):
        from_csv(b"x" * 50_000_001, "元")
    with pytest.raises(Invalid, match="no text in UTF-8"):
        from_csv(b"\xff", "元")


# The built-in one


def test_the_built_in_list_has_every_model_under_the_names_that_programs_use() -> None:
    offers = genai_prices().offers
    assert len(offers) > 2000
    for name in ("gpt-4o", "openai/gpt-4o", "anthropic/claude-3-5-haiku-latest"):
        assert offers[name].listed == built_in(name)


def test_every_built_in_price_is_one_at_the_highest_rate() -> None:
    for offer in genai_prices().offers.values():
        in_yuan(offer.listed, Decimal(1000))


def test_a_long_prompt_costs_what_the_tier_says() -> None:
    listed = built_in("google/gemini-2.5-pro")
    assert listed is not None
    assert [above for above, _prices in listed.tiers] == [200_000]
    rates = catalogues.built_in_rates("google/gemini-2.5-pro", Decimal(1))
    assert rates is not None
    assert rates.cost(Tokens(200_000, 0)) == 2_500
    assert rates.cost(Tokens(400_000, 0)) == 10_000


# In 元

amounts = st.decimals(0, 1000, allow_nan=False, allow_infinity=False, places=6)


@given(amounts, st.decimals("0.01", 100, places=4), st.decimals("0.1", 5, places=2))
def test_a_price_is_the_amount_times_the_rate_times_the_markup_rounded_once(
    amount: Decimal, rate: Decimal, markup: Decimal
) -> None:
    prices = in_yuan(Listed({"input": amount, "output": amount}), rate * markup)
    exact = amount * rate * markup * YUAN
    assert abs(prices.input - exact) <= Decimal("0.5")
    if exact == exact.to_integral_value():
        assert prices.input == exact


def test_the_markup_with_the_most_text_counts() -> None:
    markups = {"*": Decimal(2), "openai/*": Decimal(3), "openai/gpt-4o": Decimal(4), "anthropic": Decimal(5)}
    offers = [
        Offer(name, maker, Listed({}))
        for name, maker in (("x", "y"), ("openai/a", "openai"), ("openai/gpt-4o", "openai"), ("c", "anthropic"))
    ]
    assert [catalogues.factor_of(markups, offer) for offer in offers] == [2, 3, 4, 5]
    assert catalogues.factor_of({}, offers[0]) == 1


# Beside what counts


def test_new_changed_same_and_gone_are_told_apart() -> None:
    current = {"same": Prices(YUAN, 2 * YUAN), "changed": Prices(3 * YUAN, 2 * YUAN), "gone": Prices(1, 1)}
    rows = compare(a_list(new="1", same="1", changed="1"), current, rate=RATE, from_list=["gone", "same"])
    assert {row.model: row.kind for row in rows} == {"new": "new", "same": "same", "changed": "changed", "gone": "gone"}
    assert next(row.after for row in rows if row.model == "new") == Prices(YUAN, 2 * YUAN)


@pytest.mark.parametrize(
    ("price", "output", "message"),
    [
        ("10", "20", "{part}: ten times the price now, or a tenth of it."),
        ("0.1", "20", "{part}: ten times the price now, or a tenth of it."),
        ("2", "1.9", "Output is cheaper than input."),
    ],
)
def test_what_looks_odd_is_told(price: str, output: str, message: str) -> None:
    offers = {"m": Offer("m", "", Listed({"input": Decimal(price), "output": Decimal(output)}))}
    (row,) = compare(Catalogue("list", offers, "元"), {"m": Prices(YUAN, 2 * YUAN)}, rate=RATE)
    assert message in {odd.message for odd in row.odd}


@pytest.mark.parametrize(("per", "said"), [(1, None), (1000, "per thousand"), (1_000_000, "per token")])
def test_a_list_in_another_unit_is_noticed(per: int, said: str | None) -> None:
    offers = {}
    for model in ("gpt-4o", "gpt-4o-mini", "claude-3-5-haiku-latest", "our/own"):
        listed = built_in(model) or Listed({"input": Decimal(1), "output": Decimal(1)})
        offers[model] = Offer(model, "", Listed({part: price / per for part, price in listed.tokens.items()}))
    rows = compare(Catalogue("list", offers, "USD"), {}, rate=Decimal(7))
    told = {odd.message for row in rows for odd in row.odd}
    assert any("as if its prices were" in message for message in told) == (said is not None)
    assert said is None or any(said in message for message in told)


def test_what_no_price_can_be_is_told_and_not_offered() -> None:
    (row,) = compare(a_list(m="1000001"), {}, rate=RATE)
    assert (row.after, row.odd[0].message) == (None, "A price must be from 0 to 1,000,000 元 per million tokens.")


def test_a_price_says_where_it_comes_from() -> None:
    offers = {"m": Offer("m", "", Listed({"input": Decimal("2.50"), "output": Decimal(10)}))}
    catalogue = Catalogue("list 1", offers, "USD")
    (row,) = compare(catalogue, {}, rate=RATE, markups={"*": Decimal("1.1")})
    assert json.loads(catalogues.origin(catalogue, row, RATE)) == {
        "catalogue": "list 1", "currency": "USD", "listed": {"input": "2.5", "output": "10"}, "markup": "1.1", "rate": "7.2",
    }  # fmt: skip
    assert row.after == Prices(19_800_000, 79_200_000)
