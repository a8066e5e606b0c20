"""What a call costs at a price of many components: each kind once, exactly, rounded up once."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import Invalid
from billing_core.rates import (
    FALLS_UNDER,
    INPUTS,
    MORE_PARTS,
    OUTPUTS,
    PARTS,
    More,
    Prices,
    Rates,
    Tier,
    as_called,
    as_rates,
    more_from,
)
from billing_core.tokens import EXTRA_TOKENS, Extras, Tokens, extras_from

YUAN = 1_000_000
"""1 元 in 10⁻⁶ 元."""


def rates(
    input: int = 10 * YUAN, output: int = 20 * YUAN, read: int | None = None, write: int | None = None, **more: Any
) -> Rates:
    return as_rates(Prices(input, output, read, write, More(**more) if more else None))


def used(prompt: int = 0, completion: int = 0, cached: int = 0, creation: int = 0, **extras: Any) -> Tokens:
    return Tokens(prompt, completion, cached, creation, 0, Extras(**extras) if extras else None)


MILLION = 10**6


@pytest.mark.parametrize(
    ("price", "tokens", "yuan"),
    [
        (rates(), used(MILLION), "10"),
        (rates(write=12 * YUAN, cache_write_1h=16 * YUAN), used(MILLION, 0, 0, MILLION, cache_creation_1h=MILLION // 2), "14"),
        (rates(write=12 * YUAN), used(MILLION, 0, 0, MILLION, cache_creation_1h=MILLION), "12"),
        (rates(), used(MILLION, 0, 0, MILLION, cache_creation_1h=MILLION), "10"),
        (rates(audio_input=80 * YUAN), used(MILLION, audio_input=MILLION // 4), "27.5"),
        (rates(), used(MILLION, audio_input=MILLION // 4), "10"),
        (rates(audio_output=100 * YUAN), used(0, MILLION, audio_output=MILLION // 2), "60"),
        (rates(image_input=1 * YUAN, image_output=0), used(MILLION, MILLION, image_input=MILLION, image_output=MILLION), "1"),
        (rates(call=YUAN // 2), used(), "0.5"),
        (rates(call=1), used(1), "0.0001"),
        (rates(tools=(("web_search", 70_000),)), used(tools=(("code", 9), ("web_search", 3))), "0.21"),
        (rates(tiers=(Tier(MILLION, 30 * YUAN, 40 * YUAN),)), used(MILLION, MILLION), "30"),
        (rates(tiers=(Tier(MILLION, 30 * YUAN, 40 * YUAN),)), used(MILLION + 1, 0), "30.0001"),
        (rates(tiers=(Tier(1, 1 * YUAN, 1 * YUAN), Tier(2, 2 * YUAN, 2 * YUAN))), used(0, MILLION), "20"),
        (rates(read=1, tiers=(Tier(9, 3 * YUAN, 0),)), used(MILLION, 0, MILLION), "3"),
        (rates(service_tiers=(("batch", 500_000),), call=YUAN), used(MILLION, service_tier="batch"), "6"),
        (rates(service_tiers=(("batch", 500_000),)), used(MILLION, service_tier="flex"), "10"),
        (rates(service_tiers=(("batch", 333_333),)), used(1, service_tier="batch"), "0.0001"),
    ],
)  # fmt: skip
def test_a_call_costs(price: Rates, tokens: Tokens, yuan: str) -> None:
    assert Decimal(price.cost(tokens)) / 10_000 == Decimal(yuan)


def test_a_kind_without_a_price_says_under_which_it_falls() -> None:
    tokens = used(100, 10, 20, 30, cache_creation_1h=30, audio_input=5, audio_output=4)
    lines = {line.kind: line.falls_under for line in rates(write=5, tools=()).lines(tokens)}
    assert lines == {
        "input": None, "audio_input": "input", "cache_read": "input", "cache_write_1h": "cache_write", "output": None,
        "audio_output": "output",
    }  # fmt: skip


prices = st.integers(0, 10**9)
maybe = st.none() | prices
names = st.text("abc_é中", min_size=1, max_size=5)
tiers = st.lists(
    st.tuples(st.integers(1, 3000), prices, prices, maybe, maybe, maybe, maybe, maybe, maybe, maybe),
    max_size=3, unique_by=lambda tier: tier[0],
).map(lambda found: tuple(Tier(*tier) for tier in sorted(found)))  # fmt: skip
mores = st.builds(
    More, maybe, maybe, maybe, maybe, maybe, st.integers(0, 10**7),
    st.dictionaries(names, prices, max_size=3).map(lambda found: tuple(sorted(found.items()))), tiers,
    st.dictionaries(names, st.integers(0, 3_000_000), max_size=3).map(lambda found: tuple(sorted(found.items()))),
)  # fmt: skip
written = st.builds(Prices, prices, prices, maybe, maybe, st.none() | mores)


@st.composite
def calls(draw: st.DrawFn) -> Tokens:
    cached, write, hour, text, audio, image = (draw(st.integers(0, 1000)) for _ in range(6))
    out, spoken, drawn = (draw(st.integers(0, 1000)) for _ in range(3))
    extras = Extras(
        hour, audio, image, spoken, drawn,
        draw(st.dictionaries(names, st.integers(0, 9), max_size=3).map(lambda found: tuple(sorted(found.items())))),
        draw(st.none() | names),
    )  # fmt: skip
    prompt, completion = cached + write + hour + text + audio + image, out + spoken + drawn
    return Tokens(prompt, completion, cached, write + hour, 0, extras if draw(st.booleans()) else None)


def by_hand(price: Prices, tokens: Tokens) -> int:
    """The cost in 毫, worked out another way."""
    extras, more = tokens.extras or Extras(), price.more or More()
    part: Any = price
    for tier in more.tiers:
        if tokens.prompt > tier.above:
            part = tier

    def of(kind: str) -> int:
        holder = part if isinstance(part, Tier) or kind in PARTS else more
        found = getattr(holder, kind)
        return of(FALLS_UNDER[kind]) if found is None else found

    spoken = {kind: getattr(extras, kind) for kind in ("audio_input", "image_input", "audio_output", "image_output")}
    counts = {
        **spoken, "cache_read": tokens.cached, "cache_write_1h": extras.cache_creation_1h,
        "cache_write": tokens.cache_creation - extras.cache_creation_1h,
        "input": tokens.uncached - spoken["audio_input"] - spoken["image_input"],
        "output": tokens.completion - spoken["audio_output"] - spoken["image_output"],
    }  # fmt: skip
    factor = Fraction(dict(more.service_tiers).get(extras.service_tier or "", 10**6), 10**6)
    yuan = sum(Fraction(count * of(kind), 10**12) for kind, count in counts.items()) * factor
    yuan += Fraction(more.call + sum(dict(more.tools).get(tool, 0) * calls for tool, calls in extras.tools), 10**6)
    return -(-yuan * 10_000 // 1)


@given(written, calls())
def test_the_cost_is_each_kind_at_its_price_summed_and_rounded_up_once(price: Prices, tokens: Tokens) -> None:
    assert as_rates(price).cost(tokens) == by_hand(price, tokens)


@given(written, calls())
def test_the_lines_of_a_call_hold_every_token_once(price: Prices, tokens: Tokens) -> None:
    lines = as_rates(price).lines(tokens)
    assert sum(line.count for line in lines if line.kind in INPUTS and not line.per_call) == tokens.prompt
    assert sum(line.count for line in lines if line.kind in OUTPUTS and not line.per_call) == tokens.completion


@given(written, calls())
def test_what_is_held_covers_all_but_what_tools_cost(price: Prices, tokens: Tokens) -> None:
    extras = tokens.extras or Extras()
    counted = as_rates(price)
    without_tools = Extras(**{part: getattr(extras, part) for part in EXTRA_TOKENS}, service_tier=extras.service_tier)
    call = Tokens(tokens.prompt, tokens.completion, tokens.cached, tokens.cache_creation, 0, without_tools)
    assert counted.cost(call) <= counted.most(call)


@given(mores)
def test_components_are_read_back_as_they_were_written(more: More) -> None:
    kept = more.as_json()
    assert more_from(kept) == (None if more == More() else more)


@given(calls())
def test_extras_are_read_back_as_they_were_written(tokens: Tokens) -> None:
    if tokens.extras is not None:
        kept = tokens.extras.as_json()
        assert extras_from(kept) == (None if tokens.extras == Extras() else tokens.extras)


def test_a_free_component_is_kept_as_free() -> None:
    assert more_from(More(cache_write_1h=0).as_json()) == More(cache_write_1h=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"audio_input": -1}, {"call": -1}, {"call": 1.5}, {"cache_write_1h": True}, {"audio_output": 10**12 + 1},
        {"tools": (("", 1),)}, {"tools": (("a\n", 1),)}, {"tools": (("a", -1),)}, {"tools": (("a" * 101, 1),)},
        {"service_tiers": (("batch", -1),)}, {"service_tiers": (("batch", 1000 * 10**6 + 1),)},
        {"service_tiers": tuple((f"t{n:02}", 1) for n in range(51))},
        {"tiers": (Tier(0, 1, 1),)}, {"tiers": (Tier(2, 1, 1), Tier(2, 1, 1))}, {"tiers": (Tier(1, 1, None),)},  # type: ignore[arg-type]
        {"tiers": (Tier(1, -1, 1),)}, {"tiers": (Tier(1, 1, 1, audio_input=-1),)},
        {"tiers": tuple(Tier(n, 1, 1) for n in range(1, 12))},
    ],
)  # fmt: skip
def test_what_cannot_be_a_price_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        More(**wrong)


@pytest.mark.parametrize(
    ("counts", "field"),
    [
        ({"cache_creation_1h": 31}, "cache_creation_1h_tokens"),
        ({"audio_input": 30, "image_input": 21}, "audio_input_tokens"),
        ({"audio_output": 5, "image_output": 6}, "audio_output_tokens"),
        ({"audio_input": -1}, "audio_input_tokens"),
        ({"image_output": 1.0}, "image_output_tokens"),
        ({"tools": (("web_search", -1),)}, "tools"),
        ({"tools": (("", 1),)}, "tools"),
        ({"tools": tuple((f"t{n:02}", 1) for n in range(21))}, "tools"),
        ({"service_tier": ""}, "service_tier"),
        ({"service_tier": "a\tb"}, "service_tier"),
    ],
)
def test_what_a_call_cannot_have_used_is_refused(counts: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        used(100, 10, 20, 30, **counts)
    assert refused.value.field == field


def test_the_parts_of_two_rounds_add_up() -> None:
    one = used(
        100, 10, 0, 50, cache_creation_1h=5, tools=(("a", 1), ("b", 2)), upstream_usd=Decimal("0.1"), stated_total=111
    )
    two = used(
        100, 10, 0, 50, cache_creation_1h=6, tools=(("b", 1),), upstream_usd=Decimal("0.2"), service_tier="batch"
    )
    both = (one + two).extras
    assert both == Extras(
        11, tools=(("a", 1), ("b", 3)), service_tier="batch", stated_total=111, upstream_usd=Decimal("0.3")
    )
    assert (one + used(1)).extras == one.extras
    assert MORE_PARTS == ("cache_write_1h", "audio_input", "image_input", "audio_output", "image_output")


def test_the_most_that_a_call_can_cost_is_told_kind_by_kind() -> None:
    most = rates(call=7 * YUAN, audio_output=90 * YUAN)
    lines = most.most_lines(used(1_000, 10))
    assert [(line.kind, line.count, line.price) for line in lines] == [
        ("input", 1_000, 10 * YUAN), ("output", 10, 90 * YUAN), ("call", 1, 7 * YUAN),
    ]  # fmt: skip
    assert most.most(used(1_000, 10)) == 100 + 9 + 70_000


def test_a_service_tier_is_written_as_calls_name_it() -> None:
    tiers = (("Batch ", 500_000), ("FLEX", 700_000))
    assert as_called(More(call=1, service_tiers=tiers)) == More(
        call=1, service_tiers=(("batch", 500_000), ("flex", 700_000))
    )
    assert as_called(More(call=1)) == More(call=1)
    assert as_called(None) is None
    for usual in ("default", " Standard", "ON_DEMAND", "on-demand", "auto", "standard_only", "unspecified"):
        with pytest.raises(Invalid) as refused:
            as_called(More(service_tiers=(("batch", 1), (usual, 2))))
        assert refused.value.field == "service_tiers"
        assert refused.value.sentence() == (
            "A multiple is for a service tier that isn't the usual one: what that costs are the prices themselves."
        )
    with pytest.raises(Invalid, match="stands there twice"):
        as_called(More(service_tiers=(("BATCH", 1), ("batch", 2))))
