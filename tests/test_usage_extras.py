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


def searched(*queries: str) -> Body:
    call = {"toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": list(queries)}}
    return {"candidates": [{"content": {"parts": [{"text": "Hi"}, {"toolCall": call}]}}]}


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
        (chat({"prompt_tokens_details": {"audio_tokens": 101}}), Extras(audio_input=100, cut=("audio_input",))),
        (chat({"prompt_tokens_details": {"audio_tokens": 60, "image_tokens": 50}}),
         Extras(audio_input=60, image_input=40, cut=("image_input",))),
        (chat({"prompt_text_tokens": 40, "prompt_image_tokens": 60, "cached_prompt_text_tokens": 30}), Extras(image_input=60)),
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
        (chat({"cost_in_usd_ticks": "37756000"}), Extras(upstream_usd=Decimal("0.0037756"))),
        *((chat({"cost_in_usd_ticks": wrong}), None) for wrong in ("-1", "1e3", "9" * 5000, "٣", "", " 1", None)),
        (chat({"server_side_tools_used": [*2 * ["SERVER_SIDE_TOOL_WEB_SEARCH"], "SERVER_SIDE_TOOL_COLLECTIONS_SEARCH", 7]}),
         Extras(tools=(("file_search", 1), ("web_search", 2)))),
        (chat({"server_side_tools_used": ["SERVER_SIDE_TOOL_VIEW_IMAGE"]}), None),
        (chat({"server_side_tools_used": 7}), None),
        (chat({"num_sources_used": 3}), Extras(tools=(("live_search", 3),))),
        (chat({"server_tool_use_details": {"web_search_requests": 2}}), Extras(tools=(("web_search", 2),))),
        (chat({"server_side_tool_usage_details": {"x_search_calls": 1, "code_interpreter_calls": 2}}),
         Extras(tools=(("code_execution", 2), ("x_search", 1)))),
        *((chat({"cost": wrong}), None) for wrong in (-1, "0.1", True, float("nan"), float("inf"), Decimal("1e99"), None, [1])),
        (chat({"total_tokens": 170}), Extras(stated_total=170)),
        (chat({"total_tokens": 140}), Extras(stated_total=140)),
        (chat({"total_tokens": 160, "completion_tokens_details": {"reasoning_tokens": 10}}), None),
        (responses(), None),
        (responses(WEB, WEB, tool_usage={"web_search": {"num_requests": 3}}), Extras(tools=(("web_search", 3),))),
        (responses(tool_usage={"web_search": {"num_requests": 0}}), None),
        (responses({"type": ["web_search_call"]}, {"type": "web_search_call", "action": []}), Extras(tools=(("web_search", 1),))),
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
        (anthropic(service_tier="standard", speed="fast"), Extras(service_tier="fast")),
        (anthropic(service_tier="standard", speed="standard"), None),
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
        (gemini(trafficType="PROVISIONED_THROUGHPUT"), Extras(service_tier="provisioned")),
        (gemini(promptTokenDetails=of("IMAGE", 60)), Extras(image_input=60)),
        (gemini(totalTokenCount=170), Extras(stated_total=170)),
        (gemini(grounded("a", "b")), Extras(tools=(("web_search", 2),))),
        (gemini(grounded("", "a", "a", " ", "b")), Extras(tools=(("web_search", 2),))),
        (gemini(grounded("")), None),
        (gemini(searched("a", "b")), Extras(tools=(("web_search", 2),))),
        (gemini({"candidates": [*grounded("", "a")["candidates"], *searched("a")["candidates"]]}),
         Extras(tools=(("web_search", 1),))),
        (gemini({"candidates": [{"content": {"parts": [{"toolCall": {"toolType": "FILE_SEARCH"}}]}}]}), None),
        (gemini(grounded("a", "b") | {"modelVersion": "gemini-2.5-flash"}), Extras(tools=(("web_search", 1),))),
        ({"usage": {"inputTokens": 100, "outputTokens": 50, "totalTokens": 150, "cacheWriteInputTokens": 40,
                    "cacheDetails": [{"ttl": "1h", "inputTokens": 30}, {"ttl": "5m", "inputTokens": 10}]}},
         Extras(cache_creation_1h=30)),
        ({"usage": {"inputTokens": 100, "outputTokens": 50}, "serviceTier": {"type": "flex"}}, Extras(service_tier="flex")),
        ({"usage": {"inputTokens": 100, "outputTokens": 50, "totalTokens": 170}}, Extras(stated_total=170)),
        ({"usage": {"billed_units": {"input_tokens": 1, "output_tokens": 2}}}, None),
        ({"meta": {"billed_units": {"input_tokens": 1, "image_tokens": 0}}}, None),
        ({"meta": {"billed_units": {"input_tokens": 1, "image_tokens": 258}}}, Extras(image_input=258)),
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


@pytest.mark.parametrize(("again", "whole", "hour"), [(40, 40, 30), (60, 60, 30), (20, 20, 0), (None, 40, 30)])
def test_an_anthropic_stream_that_repeats_its_whole_keeps_its_parts(again: int | None, whole: int, hour: int) -> None:
    """Its last event says the whole without the parts: they still hold, unless it has become less than they are."""
    start = {"type": "message_start", "message": anthropic(cache_creation_input_tokens=40, cache_creation=HOUR)}
    delta = {"type": "message_delta", "usage": {"output_tokens": 60, "cache_creation_input_tokens": again}}
    extras = Extras(cache_creation_1h=hour) if hour else None
    assert read(stream(start, delta)).tokens == Tokens(100 + whole, 60, 0, whole, 0, extras)


def test_an_anthropic_stream_is_known_by_its_events() -> None:
    """Also where whatever passed it on left the message's type out, and nothing was cached."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 1000, "output_tokens": 1}}}
    delta = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 900}}
    assert read(stream(start, delta)).tokens == Tokens(1000, 900)


def test_the_last_service_tier_that_a_stream_names_counts() -> None:
    def tier(*names: str | None) -> str | None:
        events = ({"type": "response.in_progress", "response": responses(service_tier=name)} for name in names)
        extras = read(stream(*events)).tokens.extras
        return extras.service_tier if extras else None

    assert tier("auto", "flex") == "flex"
    assert tier("priority", "default") is None  # asked for, but served as usual
    assert tier("flex", None) == "flex"
    assert tier("flex", "") == "flex"


def test_a_realtime_answer_says_how_much_of_its_sound_was_cached() -> None:
    usage = {"input_tokens": 139, "output_tokens": 61, "total_tokens": 200,
             "input_token_details": {"audio_tokens": 96, "text_tokens": 43, "cached_tokens": 64,
                                     "cached_tokens_details": {"audio_tokens": 64, "text_tokens": 0}},
             "output_token_details": {"audio_tokens": 43, "text_tokens": 18}}  # fmt: skip
    tokens = Tokens(139, 61, 64, 0, 0, Extras(audio_input=32, audio_output=43))
    assert read({"type": "response.done", "response": {"object": "realtime.response", "usage": usage}}).tokens == tokens
    assert read({"type": "response.done", "response": {"usage": {}}, "usage": usage}).tokens == tokens  # xAI


def test_groq_counts_a_tool_once_though_its_stream_shows_it_twice() -> None:
    search, visit = {"index": 0, "type": "search"}, {"index": 1, "type": "visit"}
    whole = chat(choices=[{"message": {"executed_tools": [search, visit, {"type": "search"}, {"type": "new"}]}}])
    assert read(whole).tokens.extras == Extras(tools=(("web_fetch", 1), ("web_search", 2)))
    chunks = [{"choices": [{"delta": {"executed_tools": [tool]}}]} for tool in (search, search, visit)]
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    told = read(stream(*chunks, {"choices": [], "x_groq": {"usage": usage}}))
    assert told.tokens == Tokens(1, 2, extras=Extras(tools=(("web_fetch", 1), ("web_search", 1))))


@pytest.mark.parametrize(
    ("body", "tokens", "api"),
    [
        ({"embedding": [0.1], "inputTextTokenCount": 5}, Tokens(5, 0), "bedrock"),
        ({"inputTextTokenCount": 5, "results": [{"tokenCount": 7, "outputText": "Hi"}]}, Tokens(5, 7), "bedrock"),
        (
            {"predictions": [{"embeddings": {"statistics": {"token_count": count}}} for count in (4, 6.0)]},
            Tokens(10, 0),
            "gemini",
        ),
        ({"embeddings": [{"values": [0.1]}], "usageMetadata": {"promptTokenCount": 7}}, Tokens(7, 0), "gemini"),
    ],
)
def test_counts_that_stand_in_the_body_itself(body: Body, tokens: Tokens, api: str) -> None:
    before = json.dumps(body)
    assert (read(body).tokens, read(body).api) == (tokens, api)
    assert json.dumps(body) == before


@pytest.mark.parametrize(
    "body", [{"inputTokens": 11}, {"input_tokens": 11}, {"totalTokens": 11}, {"predictions": [{}]}]
)
def test_an_answer_to_how_many_tokens_a_prompt_has_is_no_call(body: Body) -> None:
    with pytest.raises(Invalid, match="no usage"):
        read(body)


@pytest.mark.parametrize("number", ["1e99999999999999999999", "-1e-99999999999999999999", "1e400", "NaN", "Infinity"])
def test_a_number_that_nothing_can_hold_is_no_count_and_no_cost(number: str) -> None:
    usage = f'"usage": {{"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": {number}}}'
    for text in (f"{{{usage}}}", f"data: {{{usage}}}", f'{{"id": {number}, {usage}', f'{{{usage}, "cut": '):
        assert read(text).tokens == Tokens(3, 2)
    with pytest.raises(Invalid) as caught:
        read(f'{{"usage": {{"prompt_tokens": {number}, "completion_tokens": 2}}}}')
    is_about_the_response(caught.value)


@pytest.mark.parametrize("name", ["", " ", "a\x00b", "\ud800", "x" * 201, 7, ["big"], None])
def test_a_model_that_cannot_be_one_is_the_calls_own(name: object) -> None:
    rounds = [{"model": name, "input_tokens": 10, "output_tokens": 5}, {"input_tokens": 100, "output_tokens": 50}]
    assert read(anthropic(iterations=rounds)).by_model("own") == {"own": Tokens(110, 55)}
    assert read(anthropic() | {"model": name}).model is None


def test_a_stream_that_starts_anew_keeps_nothing_of_the_one_before() -> None:
    first = {"type": "message_start", "message": anthropic(cache_read_input_tokens=900)}
    second = {"type": "message_start", "message": anthropic(output_tokens=1)}
    delta = {"type": "message_delta", "usage": {"output_tokens": 60}}
    assert read(stream(first, delta, second, delta)).tokens == Tokens(100, 60)


def test_of_a_key_twice_the_last_counts() -> None:
    usage = '"usage": {"prompt_tokens": 1, "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}'
    assert read(f'{{"usage": {{"prompt_tokens": 9, "completion_tokens": 9}}, {usage}}}').tokens == Tokens(3, 2)


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
