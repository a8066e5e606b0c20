"""Price lists that others keep: read exactly, beside what counts now, with what looks odd about them."""

import importlib
import json
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from billing_core import catalogues, export
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
    litellm_file,
)
from billing_core.errors import Invalid
from billing_core.money import price_yuan
from billing_core.pricing import Current
from billing_core.rates import More, Prices, Tier, as_rates
from billing_core.tokens import Extras, Tokens

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


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("NaN", "NaN"), ("-Infinity", "-Infinity"), ("1e400", "1E+400"), ("1e99999999999999999999", "NaN"), ("1e-999999", "1E-999999"),
        ("9" * 5000, "NaN"), ('"0.000001"', "0.000001"), ("true", "True"), ("[]", "…"), ("{}", "…"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    "name", ["input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost_above_200k_tokens"]
)
def test_what_is_no_number_is_refused_with_its_model(name: str, number: str, shown: str) -> None:
    row = {
        "litellm_provider": "x",
        "input_cost_per_token": 1e-06,
        "input_cost_per_token_above_200k_tokens": 2e-06,
        name: 0.5,
    }
    text = json.dumps({"maker/m": row}).replace("0.5", number)
    with pytest.raises(Invalid) as refused:
        litellm(text.encode())
    assert str(refused.value) == f"maker/m: “{shown}” is no price."


PER = {
    "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "cache_read_input_token_cost": 1e-07,
}  # fmt: skip


def above(thousands: int, **prices: float) -> dict[str, float]:
    return {f"{name}_above_{thousands}k_tokens": price for name, price in prices.items()}


def test_a_tier_leaves_what_it_does_not_name_to_the_one_before() -> None:
    row = PER | above(32, input_cost_per_token=3e-06) | above(1000, output_cost_per_token=9e-06)
    prices = in_yuan(read(ROW | row), Decimal(1))
    assert prices.more == More(
        tiers=(Tier(32_000, 3_000_000, 2_000_000, 100_000), Tier(1_000_000, 3_000_000, 9_000_000, 100_000))
    )


def test_prices_by_the_range_of_the_prompt_are_tiers() -> None:
    steps = [
        {"range": [32000.0, 128000.0], "input_cost_per_token": 2e-06, "output_cost_per_token": 4e-06},
        {"range": [0, 32000.0], "input_cost_per_token": 1e-06, "output_cost_per_token": 3e-06},
    ]
    row = {"litellm_provider": "dashscope", "tiered_pricing": steps}
    assert in_yuan(read(row), Decimal(1)) == Prices(
        1_000_000, 3_000_000, more=More(tiers=(Tier(32_000, 2_000_000, 4_000_000),))
    )


@pytest.mark.parametrize("start", ["NaN", "Infinity", "-1", "1" * 200])
def test_ranges_of_something_else_are_no_tiers(start: str) -> None:
    steps = f'[{{"range": [{start}, 9], "input_cost_per_token": 1e-06}}]'
    text = f'{{"m": {{"litellm_provider": "x", "input_cost_per_token": 2e-06, "output_cost_per_token": 0, "tiered_pricing": {steps}}}}}'
    assert in_yuan(litellm(text.encode()).offers["m"].listed, Decimal(1)) == Prices(2_000_000, 0)


@pytest.mark.parametrize(
    ("more", "multiple"),
    [
        ({"input_cost_per_token_flex": 5e-07, "output_cost_per_token_flex": 1e-06}, "0.5"),
        ({"input_cost_per_token_flex": 5e-07, "output_cost_per_token_flex": 1e-06, "cache_read_input_token_cost_flex": 5e-08}, "0.5"),
        ({"input_cost_per_token_flex": 5e-07}, None),
        ({"input_cost_per_token_flex": 5e-07, "output_cost_per_token_flex": 2e-06}, None),
        ({"input_cost_per_token_flex": 5e-07, "output_cost_per_token_flex": 1e-06, "cache_read_input_token_cost_flex": 1e-07}, None),
        (
            above(200, input_cost_per_token=4e-06)
            | {"input_cost_per_token_flex": 5e-07, "output_cost_per_token_flex": 1e-06,
               "input_cost_per_token_above_200k_tokens_flex": 3e-06},
            None,
        ),
    ],
)  # fmt: skip
def test_a_service_tier_is_one_multiple_of_every_price_or_is_noted(more: dict[str, Any], multiple: str | None) -> None:
    offer = litellm(json.dumps({"m": ROW | PER | more}).encode()).offers["m"]
    assert offer.listed.service_tiers == ({"flex": Decimal(multiple)} if multiple else {})
    assert [note.params for note in offer.notes] == ([] if multiple else [{"service_tier": "flex"}])
    (row,) = compare(Catalogue("list", {"m": offer}, "USD"), {}, rate=RATE)
    assert (row.odd, row.notes) == ((), offer.notes)


def test_what_is_charged_by_the_call_is_and_what_is_charged_by_the_image_is_left_out() -> None:
    rows: dict[str, Any] = {
        "rerank": {"mode": "rerank", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "input_cost_per_query": 0.002},
        "draw": {"mode": "image_generation", "input_cost_per_token": 1e-06, "output_cost_per_image": 0.04},
        "hear": {"mode": "audio_transcription", "input_cost_per_token": 0.0, "input_cost_per_second": 0.0001},
        "embed": {"mode": "embedding", "input_cost_per_token": 1e-07, "output_cost_per_token": 0.0, "input_cost_per_image": 6e-05},
    }  # fmt: skip
    found = litellm(json.dumps({name: {"litellm_provider": "x"} | row for name, row in rows.items()}).encode())
    assert in_yuan(found.offers["rerank"].listed, Decimal(1)) == Prices(0, 0, more=More(call=2_000))
    assert found.offers.keys() == {"rerank", "embed"}
    assert (found.skipped, found.why_skipped) == (2, {"image_generation": 1, "audio_transcription": 1})


def test_a_model_that_is_there_twice_is_odd() -> None:
    one, other = (json.dumps(ROW | {"input_cost_per_token": price}) for price in (1e-06, 3e-06))
    found = litellm(
        f'{{"a": {one}, "b": {one}, "a": {other}, "c": {one[:-1]}, "input_cost_per_token": 3e-06}}}}'.encode()
    )
    assert {model: in_yuan(offer.listed, Decimal(1)).input for model, offer in found.offers.items()} == {
        "a": 3_000_000, "b": 1_000_000, "c": 3_000_000,
    }  # fmt: skip
    rows = compare(found, {}, rate=RATE)
    assert [[odd.message for odd in row.odd] for row in rows] == [
        ["The list has it twice; the last one counts."], [], ["The list has it twice; the last one counts."],
    ]  # fmt: skip


names = st.sampled_from(
    ["litellm_provider", "mode", "input_cost_per_token", "output_cost_per_token", "input_cost_per_token_above_200k_tokens",
     "input_cost_per_token_flex", "output_cost_per_token_flex", "input_cost_per_query", "tiered_pricing", "range",
     "search_context_cost_per_query", "search_context_size_medium"]
)  # fmt: skip
numbers = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.decimals(-1, 1, places=12).map(float), st.text()
)
anything = st.recursive(numbers, lambda each: st.lists(each) | st.dictionaries(names, each), max_leaves=20)


@given(st.dictionaries(st.text(), st.dictionaries(names, numbers | anything), max_size=3))
def test_any_json_is_read_or_refused_with_a_sentence(content: dict[str, Any]) -> None:
    content["m"] = {"litellm_provider": "x", "input_cost_per_token": 1e-06}
    try:
        found = litellm(json.dumps(content).encode("utf-8", "surrogatepass"))
    except Invalid:
        return
    for row in compare(found, {}, rate=RATE):
        assert row.after or row.odd


@given(
    st.binary()
    | st.text().map(lambda text: f"model,input_price,output_price,further\n{text}".encode("utf-8", "replace"))
)
def test_any_bytes_are_read_or_refused_with_a_sentence(content: bytes) -> None:
    for reading in (litellm, lambda content: from_csv(content, "元")):
        with suppress(Invalid):
            reading(content)


def test_the_installed_file_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert litellm_file() is None
    (tmp_path / "litellm").mkdir()
    (tmp_path / "litellm" / "__init__.py").write_text("raise SystemExit")
    importlib.invalidate_caches()
    assert litellm_file() is None
    file = tmp_path / "litellm" / "model_prices_and_context_window_backup.json"
    file.write_text("{}")
    assert litellm_file() == file


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


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model,input_price,output_price\nm,\"1,5\",2\n", "“1,5” in line 2 is no price."),
        ("model,input_price,output_price\nm,\"0,075\",2\n", "“0,075” in line 2 is no price."),
        ("model,input_price,output_price\nm,1_0,2\n", "“1_0” in line 2 is no price."),
        ("model,Input_price,input_price,output_price\n", "The first line names the column input_price twice."),
        ("model,input_price,output_price\nm,1,500,6,000\n",
         "Line 2 has more cells than there are columns: a decimal comma, say. Write 1.5, not 1,5."),
        ('model,input_price,output_price\nm,"1"8,2\n', "Line 2 is no CSV."),
        ("model," + "x" * 200_000, "Line 1 is no CSV."),
        ("model,input_price,output_price\nm,1," + "x" * 200_000, "Line 2 is no CSV."),
        *(
            (f"model,input_price,output_price,further\nm,1,2,{further}\n",
             "Line 2: the column “further” isn't as the app writes it.")
            for further in ("x", "[]", "1", "{}x", '"{""call"":0.5}"', '"{""tiers"":[{""above"":0}]}"', '"{""tools"":[1]}"')
        ),
    ],
)  # fmt: skip
def test_a_csv_with_a_doubtful_line_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(Invalid) as refused:
        from_csv(text.encode(), "元")
    assert str(refused.value) == sentence


def test_numbers_are_read_as_spreadsheets_write_them() -> None:
    text = 'model,input_price,output_price,cache_read_price\nm,"1,234.5",1E-06,.5,, \n'
    assert in_yuan(from_csv(text.encode(), "元").offers["m"].listed, Decimal(1)) == Prices(1_234_500_000, 1, 500_000)


micros = st.integers(0, 10**12)
maybe = st.none() | micros
words = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=20).filter(str.isprintable)
tiers = st.lists(
    st.tuples(st.integers(1, 10**9), micros, micros, maybe, maybe), max_size=4, unique_by=lambda row: row[0]
)
mores = st.builds(
    More, maybe, maybe, maybe, maybe, maybe, micros,
    st.dictionaries(words, micros, max_size=3).map(lambda fees: tuple(sorted(fees.items()))),
    tiers.map(lambda rows: tuple(Tier(*row) for row in sorted(rows))),
    st.dictionaries(words, st.integers(0, 10**9), max_size=3).map(lambda tiers: tuple(sorted(tiers.items()))),
)  # fmt: skip
ids = st.one_of(words, words.map("@{}".format), words.map("={}".format)).filter(
    lambda name: name.strip() == name and not name.startswith("'")
)


@given(st.dictionaries(ids, st.builds(Prices, micros, micros, maybe, maybe, st.none() | mores), min_size=1, max_size=4))
def test_the_apps_own_export_comes_back_as_it_was(prices: dict[str, Prices]) -> None:
    rows = [Current(model, as_rates(each), each) for model, each in prices.items()]
    found = from_csv(b"".join(export.prices(rows, UTC)), "元")
    assert {row.model: row.kind for row in compare(found, prices, rate=RATE)} == dict.fromkeys(prices, "same")


def test_a_file_that_is_too_large_or_no_text_is_refused() -> None:
    with pytest.raises(Invalid, match="too large"):
        from_csv(b"x" * 50_000_001, "元")
    with pytest.raises(Invalid, match="no text in UTF-8"):
        from_csv(b"\xff", "元")


# The built-in one


def test_the_built_in_list_has_every_model_under_the_names_that_programs_use() -> None:
    offers = genai_prices().offers
    assert len(offers) > 2000
    wanted = {
        "gpt-4o", "openai/gpt-4o", "anthropic/claude-3-5-haiku-latest", "deepseek/deepseek-chat", "openai/gpt-oss-20b:free",
        "aws/amazon.nova-lite-v1:0", "bedrock/amazon.nova-lite-v1:0",
    }  # fmt: skip
    assert wanted <= offers.keys()


def test_the_built_in_list_offers_what_counts_without_it() -> None:
    for name, offer in genai_prices().offers.items():
        assert built_in(name) in (offer.listed, None), name


def test_a_price_of_the_snapshot_is_that_of_its_day() -> None:
    days = [datetime(2026, month, 1, tzinfo=UTC) for month in (8, 9)]
    before, after = (genai_prices(day).offers["openai/gpt-5.6-sol"].listed.tokens["input"] for day in days)
    assert (before, after) == (Decimal(5), Decimal(4))


def test_what_has_no_price_for_tokens_is_counted_by_its_unit() -> None:
    found = genai_prices()
    assert found.skipped == sum(found.why_skipped.values()) > 0
    assert "audio_hours" in found.why_skipped


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


# What a call costs upstream


def usd(model: str, tokens: Tokens, at: datetime = catalogues.SNAPSHOT_AT) -> Decimal | None:
    rates = catalogues.built_in_rates(model, Decimal(1), at)
    return None if rates is None else Decimal(rates.exact(tokens)).scaleb(-18)


@pytest.mark.parametrize(
    ("model", "tokens", "cost"),
    [
        ("openai/gpt-4o", Tokens(1_000, 10, cached=400), "0.0021"),
        ("gpt-4o", Tokens(1, 0), "0.0000025"),
        ("google/gemini-2.5-pro", Tokens(200_000, 1), "0.25001"),
        ("google/gemini-2.5-pro", Tokens(200_001, 1), "0.5000175"),
        ("anthropic/claude-sonnet-4-5", Tokens(30, 0, 10, 20, extras=Extras(cache_creation_1h=5)), "0.00008925"),
        ("anthropic/claude-sonnet-4-5", Tokens(0, 0, extras=Extras(tools=(("web_search", 3), ("x", 1)))), "0.03"),
        ("deepseek/deepseek-chat:free", Tokens(10**9, 10**9), "0"),
        ("anthropic/claude-sonnet-4-5", Tokens(10, 0, cached=10), "0.000003"),
        ("gpt-5.6-sol", Tokens(10, 10, extras=Extras(service_tier="priority")), "0.00048"),
        ("gpt-5.6-sol", Tokens(10, 10, extras=Extras(service_tier="batch")), "0.00012"),
        ("gpt-5.6-sol", Tokens(10, 10, extras=Extras(service_tier="unheard of")), "0.00024"),
        ("nobody/knows-it", Tokens(1, 1), None),
    ],
)  # fmt: skip
def test_what_a_call_costs_by_the_snapshot_is_exact(model: str, tokens: Tokens, cost: str | None) -> None:
    assert usd(model, tokens) == (None if cost is None else Decimal(cost))


def test_a_service_tier_that_is_no_multiple_costs_the_usual_price() -> None:
    listed = built_in("openai/gpt-4o")
    assert listed is not None
    assert "batch" not in listed.service_tiers  # half of input and output, but cached tokens stay as dear
    assert "priority" in listed.service_tiers


def test_a_call_of_the_past_costs_what_it_did() -> None:
    tokens = Tokens(4020, 5, cache_creation=4012)
    assert usd("openai/gpt-5.6-sol", tokens, datetime(2026, 7, 17, tzinfo=UTC)) == Decimal("0.025265")
    assert usd("openai/gpt-5.6-sol", tokens) == Decimal("0.020192")


def is_found(model: ModelInfo, provider: str) -> bool:
    """Whether the snapshot finds a model by its own id, which isn't so of all."""
    with suppress(LookupError):
        return get_snapshot().find_provider_model(model.id, None, provider, None)[1] is model
    return False


def test_every_model_of_the_snapshot_comes_to_what_genai_prices_calculates_itself() -> None:
    tokens = Tokens(300_000, 70, 11, 13, extras=Extras(tools=(("web_search", 2),)))
    usage = {
        "input_tokens": 300_000, "cache_read_tokens": 11, "cache_write_tokens": 13, "output_tokens": 70,
        "web_searches": 2,
    }  # fmt: skip
    compared = exact = 0
    for provider in get_snapshot().providers:
        for model in provider.models if provider.id != "openrouter" else ():  # the makers' prices come first there
            price = model.get_prices(catalogues.SNAPSHOT_AT)
            if price.input_mtok is not None and is_found(model, provider.id) and not model.id.endswith(":free"):
                ours = usd(f"{provider.id}/{model.id}", tokens)
                theirs = price.calc_price(Usage(**usage))["total_price"]
                assert ours is not None
                listed = built_in(f"{provider.id}/{model.id}")
                assert listed is not None
                amounts = [listed.tokens, *(kinds for _above, kinds in listed.tiers)]
                are_whole = all(amount.scaleb(6) % 1 == 0 for kinds in amounts for amount in kinds.values())
                # Prices are kept to 10⁻⁶ of a dollar per million tokens; the snapshot has a few with more digits.
                bound = Decimal("1e-20") if are_whole else Decimal("0.5e-12") * 300_070
                assert abs(ours - theirs) <= bound, (provider.id, model.id)
                exact += are_whole
                compared += 1
    assert compared > exact > 1000


# In 元

amounts = st.decimals(0, 1000, allow_nan=False, allow_infinity=False, places=6)


@given(amounts, st.decimals("0.01", 100, places=4), st.decimals("0.1", 5, places=2))
def test_a_price_is_the_amount_times_the_rate_times_the_markup_rounded_once(
    amount: Decimal, rate: Decimal, markup: Decimal
) -> None:
    prices = in_yuan(Listed({"input": amount, "output": amount}), rate * markup)
    exact = Fraction(amount) * Fraction(rate) * Fraction(markup) * YUAN
    assert abs(prices.input - exact) <= Fraction(1, 2)
    assert abs(prices.input - exact) < Fraction(1, 2) or prices.input % 2 == 0


@given(st.integers(0, 10**12))
def test_a_price_in_yuan_is_read_back_as_it_is_written(micro: int) -> None:
    text = f"model,input_price,output_price\nm,{price_yuan(micro):f},{price_yuan(micro):f}\n"
    assert in_yuan(from_csv(text.encode(), "元").offers["m"].listed, Decimal(1)) == Prices(micro, micro)
    per_token = json.dumps(ROW).replace("2.5e-06", f"{Decimal(micro).scaleb(-12):f}")
    listed = litellm(f'{{"m": {per_token}}}'.encode()).offers["m"].listed
    assert in_yuan(listed, Decimal(1)).input == micro


@pytest.mark.parametrize(
    ("amount", "factor", "micro"),
    [
        ("0.0000005", "1", 0), ("0.0000015", "1", 2), ("0.00000050000000000000000000000000000000000001", "1", 1),
        ("0.0000025", "1.00000000000000000000000000001", 3), ("0.00000249999999999999999999999999999999", "1", 2),
    ],
)  # fmt: skip
def test_it_is_rounded_once_half_to_even_however_many_digits_there_are(amount: str, factor: str, micro: int) -> None:
    prices = in_yuan(Listed({"input": Decimal(amount), "output": Decimal(0)}), Decimal(factor))
    assert prices.input == micro


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "1e999999", "-0.000001", "1e-999999"])
def test_what_is_no_amount_is_no_price(amount: str) -> None:
    for listed, factor in ((Decimal(amount), Decimal(1)), (Decimal(1), Decimal(amount))):
        with pytest.raises(Invalid):
            in_yuan(Listed({"input": listed, "output": listed}), factor)


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


@pytest.mark.parametrize("part", ["cache_read", "audio_input", "call"])
def test_a_jump_is_told_of_every_component(part: str) -> None:
    listed = Listed(
        {"input": Decimal(1), "output": Decimal(2), "cache_read": Decimal(1), "audio_input": Decimal(5)},
        call=Decimal(1),
    )
    before = Prices(YUAN, 2 * YUAN, YUAN, more=More(audio_input=5 * YUAN, call=YUAN))
    before = replace(before, cache_read=1) if part == "cache_read" else before
    before = before if part == "cache_read" else replace(before, more=replace(before.more or More(), **{part: 1}))
    (row,) = compare(Catalogue("list", {"m": Offer("m", "", listed)}, "元"), {"m": before}, rate=RATE)
    assert [odd.params for odd in row.odd] == [{"part": part}]


def test_what_comes_to_the_same_is_the_same() -> None:
    current = {"a": Prices(YUAN, 2 * YUAN, YUAN, None), "b": Prices(YUAN, 2 * YUAN, YUAN - 1)}
    assert [row.kind for row in compare(a_list(a="1", b="1"), current, rate=RATE)] == ["same", "changed"]


def test_a_model_that_has_become_free_or_is_new_and_free_is_odd() -> None:
    current = {"same": Prices(0, 0), "was": Prices(YUAN, YUAN)}
    rows = compare(a_list(**{"new": "0", "new:free": "0", "same": "0", "was": "0"}), current, rate=RATE)
    assert {row.model for row in rows if row.odd} == {"new", "was"}


def test_one_price_in_another_unit_is_noticed() -> None:
    prices = {"gpt-4o": "2.5", "gpt-4o-mini": "0.00015", "claude-3-5-haiku-latest": "0.8", "our/own": "0.001"}
    offers = {
        model: Offer(model, "", Listed({"input": Decimal(price), "output": Decimal(20)}))
        for model, price in prices.items()
    }
    rows = compare(Catalogue("list", offers, "USD"), {}, rate=RATE)
    assert {row.model: [odd.params for odd in row.odd] for row in rows if row.odd} == {
        "gpt-4o-mini": [{"part": "input"}]
    }


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
