"""What else a provider's answer tells of a call: kinds of tokens beyond the four, tools, the service tier, its cost."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import Invalid
from billing_core.tokens import Extras, Tokens
from billing_core.usage import read

Body = dict[str, Any]


def chat(usage: Body | None = None, **beside: Any) -> Body:
    counts = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    return {"object": "chat.completion", "model": "m", "choices": [], "usage": counts | (usage or {}), **beside}


def responses(*output: Body, **beside: Any) -> Body:
    counts = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
    return {"object": "response", "model": "m", "output": list(output), "usage": counts, **beside}


def anthropic(**usage: Any) -> Body:
    return {"type": "message", "model": "m", "usage": {"input_tokens": 100, "output_tokens": 50, **usage}}


def gemini(beside: Body | None = None, **usage: Any) -> Body:
    counts = {"promptTokenCount": 100, "candidatesTokenCount": 50, "totalTokenCount": 150}
    return {"modelVersion": "gemini-3-pro", "usageMetadata": counts | usage, **(beside or {})}


def of(modality: str, count: int) -> list[Body]:
    return [{"modality": "TEXT", "tokenCount": 5}, {"modality": modality, "tokenCount": count}]


def grounded(*queries: str) -> Body:
    return {"candidates": [{"groundingMetadata": {"webSearchQueries": list(queries)}}]}


WEB: Body = {"type": "web_search_call", "action": {"type": "search", "query": "x"}}
HOUR = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 30}


@pytest.mark.parametrize(
    ("body", "extras"),
    [
        (chat(), None),
        (chat({"prompt_tokens_details": {"audio_tokens": 40, "cached_tokens": 0}}), Extras(audio_input=40)),
        (chat({"completion_tokens_details": {"audio_tokens": 30}}), Extras(audio_output=30)),
        (chat({"prompt_tokens_details": {"image_tokens": 7, "video_tokens": 8}}), Extras(image_input=15)),
        (chat({"prompt_tokens_details": {"audio_tokens": 90, "cached_tokens": 60}}), Extras(audio_input=40)),
        (chat({"completion_tokens_details": {"audio_tokens": 51}}), Extras(audio_output=50, cut=("audio_output",))),
        (chat({"completion_tokens_details": {"reasoning_tokens": 51}}), Extras(cut=("reasoning",))),
        (chat({"prompt_tokens_details": {"cached_tokens": 101}}), Extras(cut=("cached",))),
        (chat(service_tier="flex"), Extras(service_tier="flex")),
        (chat(service_tier="default"), None),
        (chat(service_tier="on_demand"), None),
        (chat({"cost": Decimal("0.00004"), "is_byok": False}), Extras(upstream_usd=Decimal("0.00004"))),
        (chat({"cost": 4e-05}), Extras(upstream_usd=Decimal("0.00004"))),
        (chat({"cost": 0}), Extras(upstream_usd=Decimal(0))),
        (chat({"cost": Decimal("0.01"), "is_byok": True, "cost_details": {"upstream_inference_cost": Decimal("0.2")}}),
         Extras(upstream_usd=Decimal("0.21"))),
        (chat({"cost": Decimal("0.01"), "is_byok": False, "cost_details": {"upstream_inference_cost": Decimal("0.2")}}),
         Extras(upstream_usd=Decimal("0.01"))),
        (chat({"cost": {"total_cost": Decimal("0.006")}, "num_search_queries": 2}),
         Extras(upstream_usd=Decimal("0.006"), tools=(("web_search", 2),))),
        (chat({"cost_in_usd_ticks": 37_756_000}), Extras(upstream_usd=Decimal("0.0037756"))),
        (chat({"num_sources_used": 3}), Extras(tools=(("live_search", 3),))),
        (chat({"server_tool_use_details": {"web_search_requests": 2}}), Extras(tools=(("web_search", 2),))),
        (chat({"server_side_tool_usage_details": {"x_search_calls": 1, "code_interpreter_calls": 2}}),
         Extras(tools=(("code_execution", 2), ("x_search", 1)))),
        *((chat({"cost": wrong}), None) for wrong in (-1, "0.1", True, float("nan"), float("inf"), Decimal("1e99"), None, [1])),
        (chat({"total_tokens": 170}), Extras(stated_total=170)),
        (chat({"total_tokens": 140}), Extras(stated_total=140)),
        (chat({"total_tokens": 160, "completion_tokens_details": {"reasoning_tokens": 10}}), None),
        (responses(), None),
        (responses(WEB, {"type": "message"}, WEB), Extras(tools=(("web_search", 2),))),
        (responses(WEB, {"type": "web_search_call", "action": {"type": "open_page"}}), Extras(tools=(("web_search", 1),))),
        (responses({"type": "file_search_call"}, {"type": "code_interpreter_call"}, {"type": "image_generation_call"}),
         Extras(tools=(("code_execution", 1), ("file_search", 1), ("image_generation", 1)))),
        (responses({"type": "function_call"}, service_tier="priority"), Extras(service_tier="priority")),
        (responses(service_tier="auto"), None),
        (anthropic(), None),
        (anthropic(cache_creation_input_tokens=40, cache_creation=HOUR), Extras(cache_creation_1h=30)),
        (anthropic(cache_creation=HOUR), Extras(cache_creation_1h=30)),
        (anthropic(server_tool_use={"web_search_requests": 3, "web_fetch_requests": 1}),
         Extras(tools=(("web_fetch", 1), ("web_search", 3)))),
        (anthropic(service_tier="batch"), Extras(service_tier="batch")),
        (anthropic(service_tier="standard"), None),
        (gemini(), None),
        (gemini(promptTokensDetails=of("AUDIO", 60)), Extras(audio_input=60)),
        (gemini(promptTokensDetails=of("AUDIO", 60), cachedContentTokenCount=40, cacheTokensDetails=of("AUDIO", 40)),
         Extras(audio_input=20)),
        (gemini(promptTokensDetails=[*of("IMAGE", 30), *of("VIDEO", 40)]), Extras(image_input=70)),
        (gemini(candidatesTokensDetails=of("IMAGE", 40)), Extras(image_output=40)),
        (gemini(candidatesTokensDetails=of("AUDIO", 45)), Extras(audio_output=45)),
        (gemini(serviceTier="flex"), Extras(service_tier="flex")),
        (gemini(serviceTier="standard", trafficType="ON_DEMAND"), None),
        (gemini(trafficType="ON_DEMAND_PRIORITY"), Extras(service_tier="priority")),
        (gemini(totalTokenCount=170), Extras(stated_total=170)),
        (gemini(grounded("a", "b")), Extras(tools=(("web_search", 2),))),
        (gemini(grounded("a", "b") | {"modelVersion": "gemini-2.5-flash"}), Extras(tools=(("web_search", 1),))),
        ({"usage": {"inputTokens": 100, "outputTokens": 50, "totalTokens": 150, "cacheWriteInputTokens": 40,
                    "cacheDetails": [{"ttl": "1h", "inputTokens": 30}, {"ttl": "5m", "inputTokens": 10}]}},
         Extras(cache_creation_1h=30)),
        ({"usage": {"inputTokens": 100, "outputTokens": 50}, "serviceTier": {"type": "flex"}}, Extras(service_tier="flex")),
        ({"usage": {"inputTokens": 100, "outputTokens": 50, "totalTokens": 170}}, Extras(stated_total=170)),
        ({"usage": {"billed_units": {"input_tokens": 1, "output_tokens": 2}}}, None),
        ({"object": "list", "data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}, None),
    ],
)  # fmt: skip
def test_what_an_answer_tells_besides_four_counts(body: Body, extras: Extras | None) -> None:
    assert read(body).tokens.extras == extras
    text = json.dumps(body, default=str if "nan" in str(body) else float)
    if "Infinity" not in text and "NaN" not in text and extras and extras.upstream_usd is None:
        assert read(text).tokens.extras == extras


def stream(*events: Body) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def test_a_stream_tells_its_tools_once_and_its_cost_exactly() -> None:
    done = {"type": "response.completed", "response": responses(WEB, service_tier="flex")}
    begun = {"type": "response.created", "response": responses(service_tier="auto") | {"usage": None}}
    assert read(stream(begun, done)).tokens.extras == read(stream(begun, done, done)).tokens.extras
    assert read(stream(begun, done)).tokens.extras == Extras(tools=(("web_search", 1),), service_tier="flex")
    assert read(
        'data: {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": 1.437e-06}}'
    ).tokens.extras == Extras(upstream_usd=Decimal("0.000001437"))


def test_an_anthropic_stream_amends_what_it_said_first() -> None:
    start = {"type": "message_start", "message": anthropic(cache_creation_input_tokens=40, cache_creation=HOUR,
             server_tool_use={"web_search_requests": 0}, service_tier="standard")}  # fmt: skip
    delta = {"type": "message_delta", "usage": {"output_tokens": 60, "server_tool_use": {"web_search_requests": 2}}}
    usage = read(stream(start, delta))
    assert usage.tokens == Tokens(140, 60, 0, 40, 0, Extras(cache_creation_1h=30, tools=(("web_search", 2),)))


def test_each_round_keeps_its_kinds_and_the_call_its_tools() -> None:
    rounds = [
        {"type": "advisor_message", "model": "other", "input_tokens": 10, "output_tokens": 5, "cache_creation": HOUR},
        {"type": "message", "input_tokens": 100, "output_tokens": 50},
    ]
    body = anthropic(iterations=rounds, server_tool_use={"web_search_requests": 2}, service_tier="batch")
    usage = read(body)
    assert usage.tokens.extras == Extras(cache_creation_1h=30, tools=(("web_search", 2),), service_tier="batch")
    assert usage.by_model("own") == {
        "other": Tokens(50, 5, 0, 40, 0, Extras(cache_creation_1h=30, service_tier="batch")),
        "own": Tokens(100, 50, 0, 0, 0, Extras(tools=(("web_search", 2),), service_tier="batch")),
    }


# Whatever comes


_words = st.sampled_from([
    "usage", "usageMetadata", "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens",
    "prompt_tokens_details", "completion_tokens_details", "audio_tokens", "image_tokens", "cached_tokens", "cost",
    "cost_details", "is_byok", "upstream_inference_cost", "cost_in_usd_ticks", "service_tier", "serviceTier", "type",
    "trafficType", "server_tool_use", "web_search_requests", "cache_creation", "ephemeral_1h_input_tokens", "iterations",
    "promptTokensDetails", "cacheTokensDetails", "modality", "tokenCount", "promptTokenCount", "candidatesTokenCount",
    "candidates", "groundingMetadata", "webSearchQueries", "output", "action", "inputTokens", "outputTokens", "cacheDetails",
    "ttl", "object", "model", "response", "message", "delta", "choices",
])  # fmt: skip
_values = (
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | st.decimals(allow_nan=True)
    | st.sampled_from(["AUDIO", "IMAGE", "1h", "flex", "web_search_call", "search", "response", "list", "\x00", "\ud800", "9"])
)  # fmt: skip
_bodies = st.recursive(
    _values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=6), max_leaves=30
)


def is_about_the_response(error: Invalid) -> None:
    assert error.field == "response"


@given(st.dictionaries(_words, _bodies, max_size=8))
def test_any_answer_is_read_within_its_bounds_or_refused(body: Body) -> None:
    try:
        usage = read(body)
    except Invalid as error:
        is_about_the_response(error)
        return
    assert replace(usage.tokens) == usage.tokens  # every rule of Tokens and of Extras is checked anew
    for tokens in usage.by_model("own").values():
        assert replace(tokens) == tokens
    if usage.tokens.extras:
        assert replace(usage.tokens.extras) == usage.tokens.extras
        usage.tokens.extras.as_json()


@given(st.dictionaries(_words, _bodies, max_size=8), st.data())
def test_a_broken_text_is_read_or_refused_and_doubled_it_costs_the_same(body: Body, data: st.DataObject) -> None:
    text = json.dumps(body, default=str)
    cut = data.draw(st.integers(0, len(text)))
    for broken in (text[:cut], text + text[:cut], f"data: {text[:cut]}\n\ndata: {text}\n\n"):
        try:
            read(broken)
        except Invalid as error:
            is_about_the_response(error)
    try:
        once = read(f"data: {text}\n\n").tokens
    except Invalid:
        return
    assert read(f"data: {text}\n\ndata: {text}\n\n").tokens == once
