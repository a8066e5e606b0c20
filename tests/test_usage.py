"""Usage as providers report it: a small body of every shape, whole and as a stream, and all that can be odd in one."""

import json
import re
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.errors import Invalid
from billing_core.tokens import MOST, Tokens
from billing_core.usage import Round, Usage, read

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "data" / "provider_responses.jsonl"


def chat(**usage: Any) -> dict[str, Any]:
    return {"object": "chat.completion", "model": "m", "choices": [], "usage": usage}


def responses(**usage: Any) -> dict[str, Any]:
    return {"object": "response", "model": "m", "usage": usage}


def anthropic(**usage: Any) -> dict[str, Any]:
    return {"type": "message", "model": "m", "content": [], "usage": usage}


def gemini(**usage: Any) -> dict[str, Any]:
    return {"candidates": [], "modelVersion": "m", "usageMetadata": usage}


def bedrock(**usage: Any) -> dict[str, Any]:
    return {"output": {}, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 1}}


def sse(*events: object, end: str = "\n\n") -> str:
    return "".join(f"data: {json.dumps(event)}{end}" for event in events)


def counts(response: object, provider: str | None = None) -> tuple[int, int, int, int, int]:
    tokens = read(response, provider).tokens
    return tokens.prompt, tokens.completion, tokens.cached, tokens.cache_creation, tokens.reasoning


def refused(response: object) -> str:
    with pytest.raises(Invalid) as caught:
        read(response)
    assert caught.value.field == "response"
    return caught.value.sentence()


WHOLE = {
    "chat": (
        "openai-chat",
        chat(
            prompt_tokens=100,
            completion_tokens=20,
            total_tokens=120,
            prompt_tokens_details={"cached_tokens": 60, "cache_write_tokens": 30},
            completion_tokens_details={"reasoning_tokens": 15},
        ),
        (100, 20, 60, 30, 15),
    ),
    "chat without details": (
        "openai-chat",
        chat(prompt_tokens=4, completion_tokens=2, prompt_tokens_details=None),
        (4, 2, 0, 0, 0),
    ),
    "DeepSeek": (
        "openai-chat",
        chat(prompt_tokens=976, completion_tokens=61, prompt_cache_hit_tokens=896, prompt_cache_miss_tokens=80),
        (976, 61, 896, 0, 0),
    ),
    "Moonshot": ("openai-chat", chat(prompt_tokens=9, completion_tokens=3, cached_tokens=8), (9, 3, 8, 0, 0)),
    "Mistral": ("openai-chat", chat(prompt_tokens=9, completion_tokens=3, num_cached_tokens=8), (9, 3, 8, 0, 0)),
    "Google's chat": (
        "openai-chat",
        chat(prompt_tokens=66, completion_tokens=6, total_tokens=100),
        (66, 34, 0, 0, 0),
    ),
    "xAI, reasoning in the total only": (
        "openai-chat",
        chat(
            prompt_tokens=10,
            completion_tokens=5,
            total_tokens=115,
            completion_tokens_details={"reasoning_tokens": 100},
        ),
        (10, 105, 0, 0, 100),
    ),
    "xAI by way of OpenRouter, reasoning in output": (
        "openai-chat",
        chat(
            prompt_tokens=687,
            completion_tokens=240,
            total_tokens=927,
            completion_tokens_details={"reasoning_tokens": 165},
        ),
        (687, 240, 0, 0, 165),
    ),
    "11 reasoning tokens of 10": (
        "openai-chat",
        chat(
            prompt_tokens=43,
            completion_tokens=10,
            total_tokens=53,
            completion_tokens_details={"reasoning_tokens": 11},
        ),
        (43, 10, 0, 0, 10),
    ),
    "embeddings": (
        "openai-chat",
        {"object": "list", "data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        (8, 0, 0, 0, 0),
    ),
    "embeddings with a total alone": (
        "openai-chat",
        {"object": "list", "data": [], "usage": {"total_tokens": 8}},
        (8, 0, 0, 0, 0),
    ),
    "responses": (
        "openai-responses",
        responses(
            input_tokens=142,
            output_tokens=33,
            total_tokens=175,
            input_tokens_details={"cached_tokens": 50, "cache_write_tokens": 27},
            output_tokens_details={"reasoning_tokens": 11},
        ),
        (142, 33, 50, 27, 11),
    ),
    "responses without object": (
        "openai-responses",
        {"usage": {"input_tokens": 10, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 4}}},
        (10, 1, 4, 0, 0),
    ),
    "anthropic": (
        "anthropic",
        anthropic(
            input_tokens=4,
            output_tokens=290,
            cache_read_input_tokens=14714,
            cache_creation_input_tokens=379,
            output_tokens_details={"thinking_tokens": 19},
        ),
        (15097, 290, 14714, 379, 19),
    ),
    "anthropic, cache writes by how long they are kept": (
        "anthropic",
        anthropic(
            input_tokens=4,
            output_tokens=2,
            cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        ),
        (34, 2, 0, 30, 0),
    ),
    "gemini": (
        "gemini",
        gemini(
            promptTokenCount=32,
            toolUsePromptTokenCount=2395,
            cachedContentTokenCount=20,
            candidatesTokenCount=41,
            thoughtsTokenCount=47,
            totalTokenCount=2515,
        ),
        (2427, 88, 20, 0, 47),
    ),
    "gemini, cut off while thinking": (
        "gemini",
        gemini(promptTokenCount=15, thoughtsTokenCount=2, totalTokenCount=17),
        (15, 2, 0, 0, 2),
    ),
    "bedrock": (
        "bedrock",
        bedrock(inputTokens=3, outputTokens=61, totalTokens=2435, cacheReadInputTokens=2074, cacheWriteInputTokens=297),
        (2374, 61, 2074, 297, 0),
    ),
    "bedrock, the names that its models use": (
        "bedrock",
        {"usage": {"inputTokens": 3, "outputTokens": 6, "cacheReadInputTokenCount": 5, "cacheWriteInputTokenCount": 7}},
        (15, 6, 5, 7, 0),
    ),
    "cohere": (
        "cohere",
        {
            "usage": {
                "billed_units": {"input_tokens": 2406, "output_tokens": 2},
                "cached_tokens": 2928,
                "tokens": {"input_tokens": 2935, "output_tokens": 4},
            }
        },
        (2406, 2, 0, 0, 0),
    ),
    "cohere v1": (
        "cohere",
        {"text": "Hi", "meta": {"billed_units": {"input_tokens": 7.0, "output_tokens": 9.0}}},
        (7, 9, 0, 0, 0),
    ),
    "cohere embeddings": ("cohere", {"meta": {"billed_units": {"input_tokens": 7}}}, (7, 0, 0, 0, 0)),
    "cohere without billed units": (
        "cohere",
        {"usage": {"tokens": {"input_tokens": 7, "output_tokens": 1}}},
        (7, 1, 0, 0, 0),
    ),
}

START = {"type": "message_start", "message": anthropic(input_tokens=20, output_tokens=1, cache_read_input_tokens=7)}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 59}}
METRICS = {
    "inputTokenCount": 20,
    "outputTokenCount": 59,
    "cacheReadInputTokenCount": 7,
    "cacheWriteInputTokenCount": 2,
    "invocationLatency": 9,
}
CHUNK = {"object": "chat.completion.chunk", "model": "m", "choices": [{"delta": {"content": "Hi"}}], "usage": None}
CHAT_USAGE = {"prompt_tokens": 304, "completion_tokens": 49, "total_tokens": 353}
GEMINI_CHUNKS = [
    gemini(promptTokenCount=18, candidatesTokenCount=79, thoughtsTokenCount=35, totalTokenCount=132),
    gemini(promptTokenCount=18, candidatesTokenCount=80, thoughtsTokenCount=35, totalTokenCount=133),
]

STREAMS = {
    "chat": ("openai-chat", sse(CHUNK, CHUNK | {"choices": [], "usage": CHAT_USAGE}) + "data: [DONE]\n\n", (304, 49)),
    "chat, usage in every chunk": (
        "openai-chat",
        sse(CHUNK | {"usage": {"prompt_tokens": 304, "completion_tokens": 1}}, CHUNK | {"usage": CHAT_USAGE}, CHUNK),
        (304, 49),
    ),
    "Groq": ("openai-chat", sse(CHUNK, CHUNK | {"x_groq": {"id": "r", "usage": CHAT_USAGE}}), (304, 49)),
    "Moonshot": ("openai-chat", sse(CHUNK, {"choices": [{"delta": {}, "usage": CHAT_USAGE}]}), (304, 49)),
    "comments, CRLF, several lines of data": (
        "openai-chat",
        ': wait\r\n\r\nid: 1\r\ndata: {"choices": [],\r\ndata: "usage": {"prompt_tokens": 3, "completion_tokens": 1}}'
        "\r\n\r\ndata: [DONE]",
        (3, 1),
    ),
    "no empty lines between events": ("openai-chat", sse(CHUNK, CHUNK | {"usage": CHAT_USAGE}, end="\n"), (304, 49)),
    "a line separator in the text": (
        "openai-chat",
        'data: {"choices": ["\u2028\x85"], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n\n',
        (3, 1),
    ),
    **{
        f"response.{end}": (
            "openai-responses",
            sse(
                {"type": "response.created", "response": responses() | {"usage": None}},
                {"type": f"response.{end}", "response": responses(input_tokens=78, output_tokens=37)},
            ),
            (78, 37),
        )
        for end in ("completed", "incomplete", "failed")
    },
    "anthropic": ("anthropic", sse(START, {"type": "ping"}, DELTA), (27, 59, 7)),
    "anthropic, counts replaced": (
        "anthropic",
        sse(START, DELTA, {"type": "message_delta", "usage": {"input_tokens": 2, "output_tokens": 60}}),
        (9, 60, 7),
    ),
    "anthropic, cut off": ("anthropic", sse(START), (27, 1, 7)),
    "anthropic by way of Bedrock": (
        "anthropic",
        sse(START, DELTA, {"type": "message_stop", "amazon-bedrock-invocationMetrics": METRICS}),
        (27, 59, 7),
    ),
    "Bedrock's metrics alone": (
        "bedrock",
        sse({"generation": "Hi"}, {"generation": "", "amazon-bedrock-invocationMetrics": METRICS}),
        (29, 59, 7, 2),
    ),
    "gemini": ("gemini", sse(*GEMINI_CHUNKS), (18, 115, 0, 0, 35)),
    "gemini, a JSON array": ("gemini", json.dumps(GEMINI_CHUNKS, indent=2), (18, 115, 0, 0, 35)),
    "gemini, a JSON array cut off": ("gemini", json.dumps(GEMINI_CHUNKS, indent=2)[:-4], (18, 115, 0, 0, 35)),
    "gemini, an array already parsed": ("gemini", GEMINI_CHUNKS, (18, 115, 0, 0, 35)),
    "gemini, a last chunk without counts": (
        "gemini",
        sse(*GEMINI_CHUNKS, gemini(trafficType="ON_DEMAND")),
        (18, 115, 0, 0, 35),
    ),
    "converse, an event a line": (
        "bedrock",
        '{"messageStart": {}}\n{"metadata": {"usage": {"inputTokens": 7, "outputTokens": 2, "totalTokens": 9}}}\n',
        (7, 2),
    ),
    "converse, binary frames": (
        "bedrock",
        '\x00\x00\x00\xb5\x0b:event-type\x07\x00\x08metadata{"metrics":{"latencyMs":3},'
        '"usage":{"inputTokens":7,"outputTokens":2,"serverToolUsage":{},"totalTokens":9}}\ufffd\x01',
        (7, 2),
    ),
    "cohere": (
        "cohere",
        sse({"type": "message-start"}, {"type": "message-end", "delta": WHOLE["cohere"][1]}),
        (2406, 2),
    ),
    "cohere v1": (
        "cohere",
        '{"event_type": "text-generation", "text": "Hi"}\n'
        + json.dumps({"event_type": "stream-end", "response": WHOLE["cohere v1"][1]}),
        (7, 9),
    ),
}


@pytest.mark.parametrize(("api", "body", "expected"), WHOLE.values(), ids=WHOLE)
def test_a_whole_body(api: str, body: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert counts(body) == expected
    assert read(body).api == api
    assert read(json.dumps(body, indent=2)) == read(body)
    assert read(json.loads(json.dumps(body), parse_int=Decimal)) == read(body)


@pytest.mark.parametrize(("api", "body", "expected"), STREAMS.values(), ids=STREAMS)
def test_a_stream(api: str, body: object, expected: tuple[int, ...]) -> None:
    assert counts(body) == expected + (0,) * (5 - len(expected))
    assert read(body).api == api


def test_all_recorded_responses() -> None:
    """Real answers of real providers. They lie beside the project on the build machine only: elsewhere the small bodies
    above stand for them."""
    if not RECORDED.exists():
        pytest.skip("The recorded responses of providers are not in ../shared/data.")
    wrong, right = [], 0
    for line in RECORDED.read_text().splitlines():
        record = json.loads(line)
        expected = tuple(count or 0 for count in record["tokens"].values())
        for provider in (None, record["provider"]):
            usage = read(record["response"], provider)
            if counts(record["response"], provider) != expected or usage.api != record["api"]:
                wrong.append((record["source"], usage, expected))
        right += 1
    assert not wrong
    assert right >= 111


@pytest.mark.parametrize(
    ("provider", "model", "completion"),
    [("xai", "m", 105), (None, "grok-4", 105), ("openai", "m", 5), (None, "m", 5), ("openrouter", "x-ai/grok-4", 5)],
)
def test_without_a_total_xai_adds_its_reasoning(provider: str | None, model: str, completion: int) -> None:
    body = chat(prompt_tokens=10, completion_tokens=5, completion_tokens_details={"reasoning_tokens": 100})
    body["model"] = model
    assert counts(body, provider) == (10, completion, 0, 0, min(100, completion))


def test_the_model_is_the_one_that_answered() -> None:
    assert read(WHOLE["chat"][1]).model == "m"
    assert read(STREAMS["anthropic"][1]).model == "m"
    assert read(STREAMS["gemini"][1]).model == "m"
    assert read(WHOLE["bedrock"][1]).model is None
    assert read(chat(prompt_tokens=1) | {"model": 7}).model is None


COMPACTION = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500}
MESSAGE = {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000, "cache_read_input_tokens": 500}
ADVICE = {"type": "advisor_message", "model": "big", "input_tokens": 800, "output_tokens": 90}


def test_compaction_adds_up_its_rounds() -> None:
    usage = {**MESSAGE, "output_tokens_details": {"thinking_tokens": 12}, "iterations": [COMPACTION, MESSAGE]}
    rounds = (Round("m", Tokens(180_000, 3_500)), Round("m", Tokens(23_500, 1_000, 500)))
    expected = Usage("anthropic", "m", Tokens(203_500, 4_500, 500, 0, 12), rounds)
    assert read(anthropic(**usage)) == expected
    assert read(sse(START, {"type": "message_delta", "usage": usage})) == expected


def test_a_round_may_name_another_model() -> None:
    usage = read(anthropic(**MESSAGE, iterations=[MESSAGE, ADVICE, None, {"type": "message"}]))
    assert usage.tokens == Tokens(24_300, 1_090, 500)
    assert usage.rounds == (Round("m", Tokens(23_500, 1_000, 500)), Round("big", Tokens(800, 90)))


def test_rounds_of_too_many_models_are_refused() -> None:
    rounds = [{**ADVICE, "model": f"m{number}"} for number in range(101)]
    assert len(read(anthropic(**MESSAGE, iterations=rounds[:-1] * 2)).by_model("m")) == 100
    assert "at most 100 models" in refused(anthropic(**MESSAGE, iterations=rounds))


@pytest.mark.parametrize("iterations", [None, [], [MESSAGE], [{"input_tokens": 1, "output_tokens": 1}], 7, {}, "x"])
def test_rounds_that_add_nothing_are_left_out(iterations: object) -> None:
    assert read(anthropic(**MESSAGE, iterations=iterations)) == Usage("anthropic", "m", Tokens(23_500, 1_000, 500))


ODD = [None, "12", float("nan"), float("inf"), -1, True, 1.5, Decimal("NaN"), Decimal("sNaN"), Decimal("1.5"), [], {}]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_count_is_no_count(odd: object) -> None:
    part = {"cached_tokens": odd, "cache_write_tokens": odd, "reasoning_tokens": odd}
    body = chat(prompt_tokens=10, completion_tokens=5, total_tokens=odd, prompt_tokens_details=part)
    assert counts(body) == (10, 5, 0, 0, 0)
    assert counts(chat(prompt_tokens=10, completion_tokens=5, prompt_tokens_details=odd)) == (10, 5, 0, 0, 0)
    for body in (
        chat(prompt_tokens=odd, completion_tokens=5),
        responses(input_tokens=odd, output_tokens=5),
        anthropic(input_tokens=odd, output_tokens=5),
        gemini(promptTokenCount=odd, candidatesTokenCount=5),
        bedrock(inputTokens=odd, outputTokens=5),
    ):
        refused(body)
    if odd is not None:  # null is like leaving it out, as embeddings do
        refused({"usage": {"billed_units": {"input_tokens": odd, "output_tokens": 5}}})
        refused(chat(prompt_tokens=10, completion_tokens=odd))
        assert counts(chat(prompt_tokens=10, completion_tokens=odd, total_tokens=15)) == (10, 5, 0, 0, 0)
        odd_output = gemini(promptTokenCount=10, candidatesTokenCount=odd, thoughtsTokenCount=2, totalTokenCount=15)
        assert counts(odd_output) == (10, 5, 0, 0, 2)


def test_a_whole_float_or_decimal_is_a_count() -> None:
    assert counts(chat(prompt_tokens=12.0, completion_tokens=Decimal("3.0"))) == (12, 3, 0, 0, 0)


@pytest.mark.parametrize("huge", [MOST + 1, 10**5000, 1e300, Decimal("1E+999999999")], ids=["1", "2", "3", "4"])
def test_huge_counts(huge: object) -> None:
    assert "more tokens than a call" in refused(chat(prompt_tokens=huge, completion_tokens=5))
    assert "more tokens than a call" in refused(
        anthropic(input_tokens=MOST, output_tokens=5, cache_read_input_tokens=1)
    )
    assert counts(chat(prompt_tokens=10, completion_tokens=5, total_tokens=huge)) == (10, 5, 0, 0, 0)
    assert counts(chat(prompt_tokens=10, completion_tokens=5, reasoning_tokens=huge)) == (10, 5, 0, 0, 5)


def test_parts_are_cut_to_their_whole() -> None:
    details = {"cached_tokens": 8, "cache_write_tokens": 8}
    body = responses(
        input_tokens=10, output_tokens=1, input_tokens_details=details, output_tokens_details={"reasoning_tokens": 9}
    )
    assert counts(body) == (10, 1, 8, 2, 1)


def test_what_to_do_without_usage() -> None:
    assert '{"include_usage": true}' in refused(sse(CHUNK, CHUNK) + "data: [DONE]\n\n")
    assert "is an error" in refused({"error": {"message": "Overloaded", "type": "overloaded_error"}})
    assert "is an error" in refused('{"type": "error", "error": {"type": "overloaded_error"}}')
    assert "whole JSON body" in refused({"id": "x", "choices": [], "error": None})
    assert "whole JSON body" in refused({"meta": {"billed_units": {"search_units": 1}}})


def nested(depth: int) -> object:
    body: object = {}
    for _ in range(depth):
        body = {"usage": body, "response": [body]}
    return body


GARBAGE: list[object] = [
    None, 7, 1.5, True, b"{}", [], [[]], {}, "", "[DONE]", "data:", "data: [DONE]", "<html></html>", object(),
    {"usage": None}, {"usage": []}, {"usage": {}}, {"usage": {"total_tokens": 5}}, {"choices": 5}, {7: 8},
    {"usage": {"input_tokens": 1, "output_tokens": "x", "cache_creation": {7: 1}}},
    nested(5000), '{"a":' * 100_000, "[" * 1_000_000, '{"usage": ' + "9" * 5000 + "}",
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda value: type(value).__name__)
def test_garbage_is_refused(garbage: object) -> None:
    refused(garbage)


@pytest.mark.parametrize(
    "line",
    [
        *(
            '"\\\\"',
            '{"a":"\\\\", ',
            '{"usage":[',
            '"usage":{"usage":{',
            '"usage": ',
            "data: [\n",
            "data: {}\n\n",
            "\n",
            "{\n",
            "\x00",
            "\r\n{",
            "data:",
        ),
        *('{"usage":{}}\n', '{"type":"message_delta","usage":{"iterations":[],"a":1}}\n', '{"a":', '"usage":{"a":['),
    ],
)
def test_a_megabyte_of_nothing_is_refused_to_its_end(line: str) -> None:
    refused(line * (1_000_000 // len(line)))  # where time grew with the square of it, the run would not end
    refused('"usage"' + " " * 1_000_000 + line)


NAMES = [
    "usage", "usageMetadata", "meta", "billed_units", "tokens", "message", "response", "delta", "result",
    "metadata", "x_groq", "choices", "model", "type", "object", "error", "iterations",
    "amazon-bedrock-invocationMetrics", "prompt_tokens", "completion_tokens", "total_tokens",
    "prompt_tokens_details", "completion_tokens_details", "cached_tokens", "cache_write_tokens",
    "reasoning_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens",
    "cache_creation_input_tokens", "cache_creation", "output_tokens_details", "promptTokenCount",
    "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount", "cachedContentTokenCount",
    "totalTokenCount", "inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens",
    "inputTokenCount",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 50)
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.sampled_from(["message", "message_delta", "response", "list", "12"])
    | st.text(max_size=5)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=9),
    max_leaves=40,
)
USAGE = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 50) | JSON, max_size=12)
BODIES = JSON | USAGE.map(lambda usage: {"usage": usage}) | st.fixed_dictionaries({"usage": USAGE, "type": SCALARS})


def consistent(response: object) -> None:
    try:
        usage = read(response)
    except Invalid:
        assert refused(response)
        return
    tokens = usage.tokens
    assert replace(tokens) == tokens  # every rule of Tokens is checked anew
    assert tokens.uncached + tokens.cached + tokens.cache_creation == tokens.prompt
    if usage.rounds:
        total = sum((each.tokens for each in usage.rounds), Tokens(0, 0))
        assert (total.prompt, total.completion) == (tokens.prompt, tokens.completion)


@settings(max_examples=300, deadline=None)
@given(BODIES, st.lists(BODIES, max_size=3), st.text())
def test_any_json_is_read_or_refused(body: object, events: list[object], text: str) -> None:
    consistent(body)
    consistent(events)
    consistent(text)
    stream = sse(*(json.loads(json.dumps(event, default=str)) for event in events))
    consistent(stream + text)
    consistent(stream[: len(stream) // 2])


def places(body: object) -> list[tuple[Any, Any]]:
    """Every value inside of a body, by what holds it and where."""
    keys = body if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else ()
    return [place for key in list(keys) for place in ((body, key), *places(body[key]))]  # type: ignore[index]


WRONG = [*ODD, "\x00", "\ud800", 10**5000, 1e300, MOST, [[]], {"usage": {}}, "AUDIO", "flex", "message_start"]
NUMBERS = ["1e400", "NaN", "-Infinity", "1e99999999999999999999", "9" * 5000, '"12"', '"\\ud800"', "-1", "[[[[", "null"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_real_shape_with_something_wrong_is_read_or_refused(data: st.DataObject) -> None:
    shapes = [body for _, body, _ in WHOLE.values()]
    body = deepcopy(data.draw(st.sampled_from(shapes)))
    for _ in range(data.draw(st.integers(1, 3))):
        held, key = data.draw(st.sampled_from(places(body) or places({"usage": None})))
        kind = data.draw(st.sampled_from(["deleted", "replaced", "moved in", "doubled"]))
        if kind == "deleted":
            del held[key]
        elif kind == "replaced":
            held[key] = deepcopy(data.draw(st.sampled_from(WRONG)))
        elif kind == "moved in":
            held[key] = {data.draw(st.sampled_from(NAMES)): held[key]}
        elif isinstance(held, dict):
            held[data.draw(st.sampled_from(NAMES))] = deepcopy(held[key])
    consistent(body)
    consistent([body, data.draw(st.sampled_from(shapes))])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_real_stream_with_something_wrong_is_read_or_refused(data: st.DataObject) -> None:
    texts = [body for _, body, _ in STREAMS.values() if isinstance(body, str)]
    text, other = data.draw(st.sampled_from(texts)), data.draw(st.sampled_from(texts))
    at = data.draw(st.integers(0, len(text)))
    numbers = list(re.finditer(r"(?<=: )\d+", text))
    number = data.draw(st.sampled_from(numbers)) if numbers else None
    mixed = [event for pair in zip_longest(text.split("\n\n"), other.split("\n\n"), fillvalue="") for event in pair]
    for broken in (
        text[:at],
        text[:at] + other,
        text[:at] + text[at + data.draw(st.integers(1, 50)) :],
        text[:at] + data.draw(st.sampled_from(NUMBERS)) + text[at:],
        text[: number.start()] + data.draw(st.sampled_from(NUMBERS)) + text[number.end() :] if number else text,
        "\n\n".join(mixed),
    ):
        consistent(broken)
    assert read(f"{text}\n\n{text}").tokens == read(text).tokens


@given(st.integers(0, MOST), st.integers(0, MOST), st.integers(), st.integers(), st.integers())
def test_parts_are_cut_and_wholes_kept(prompt: int, completion: int, cached: int, written: int, thought: int) -> None:
    details = {"cached_tokens": cached, "cache_write_tokens": written}
    body = chat(
        prompt_tokens=prompt, completion_tokens=completion, prompt_tokens_details=details, reasoning_tokens=thought
    )
    got = counts(body)
    cached = min(max(cached, 0), prompt)
    expected = (prompt, completion, cached, min(max(written, 0), prompt - cached), min(max(thought, 0), completion))
    assert got == expected


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((-1, 0), "prompt_tokens"),
        ((1.0, 0), "prompt_tokens"),
        (("1", 0), "prompt_tokens"),
        ((True, 0), "prompt_tokens"),
        ((None, 0), "prompt_tokens"),
        ((MOST + 1, 0), "prompt_tokens"),
        ((0, -1), "completion_tokens"),
        ((0, MOST + 1), "completion_tokens"),
        ((5, 5, -1), "cached_tokens"),
        ((5, 5, 6), "cached_tokens"),
        ((5, 5, 0, False), "cache_creation_tokens"),
        ((5, 5, 3, 3), "cache_creation_tokens"),
        ((5, 5, 0, 0, 6), "reasoning_tokens"),
        ((5, 5, 0, 0, Decimal(1)), "reasoning_tokens"),
    ],
)
def test_tokens_refuse_what_they_cannot_be(arguments: tuple[Any, ...], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        Tokens(*arguments)
    assert caught.value.field == field
    assert field in caught.value.sentence()


def test_tokens_add_up() -> None:
    assert Tokens(10, 5, 3, 4, 2) + Tokens(1, 1, 1) == Tokens(11, 6, 4, 4, 2)
    assert Tokens(10, 5, 3, 4).uncached == 3
    assert Tokens(MOST, MOST, MOST, 0, MOST).uncached == 0
    with pytest.raises(Invalid):
        Tokens(MOST, 0) + Tokens(1, 0)
    with pytest.raises(TypeError):
        Tokens(1, 1) + 1


def test_a_streams_last_event_counts_though_it_is_cut_off_after_its_usage() -> None:
    first = 'data: {"usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 2, "totalTokenCount": 102}}\n\n'
    last = 'data: {"usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 50, "totalTokenCount": 150}'
    assert read(first + last).tokens == Tokens(100, 50)
    cohere = '{"embeddings": [[0.1]], "meta": {"billed_units": {"input_tokens": 7}}, "texts": ["a", '
    assert read(cohere).tokens == Tokens(7, 0)
    chat = 'data: {"choices": []}\n\ndata: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}'
    assert read(chat).tokens == Tokens(7, 3)


CUT = {
    "id": "x",
    "choices": [{"message": {"content": 'a "quoted\\ {text}, [1'}}],
    "object": "chat.completion",
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2}},
    "usage_breakdown": {"models": [{"usage": {"prompt_tokens": 5, "completion_tokens": 1}}, {"model": "n"}]},
    "x": [True, None, 1.5, {}],
}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("prefix", ["", "data: "])
def test_a_body_that_is_cut_off_counts_from_the_end_of_its_usage_on(indent: int | None, prefix: str) -> None:
    if indent and prefix:
        return  # an event stands on one line
    text = json.dumps(CUT, indent=indent)
    whole = text.index('"usage_breakdown"') - 2 - (indent or 0)
    for at in range(len(text)):
        if at < whole:
            refused(prefix + text[:at])
        else:
            assert counts(prefix + text[:at]) == (7, 3, 2, 0, 0)


def test_what_a_model_says_in_a_body_that_is_cut_off_is_no_usage() -> None:
    tool = {"type": "tool_use", "input": {"usage": {"input_tokens": 1, "output_tokens": 1}}}
    text = json.dumps({"type": "message", "content": [tool], "usage": {"input_tokens": 5000, "output_tokens": 70}})
    for at in range(len(text) - 1):
        refused(text[:at])
    assert counts(text[:-1]) == (5000, 70, 0, 0, 0)


def test_an_array_that_is_cut_off_within_its_last_usage_counts_by_the_one_before() -> None:
    text = json.dumps(GEMINI_CHUNKS)
    assert counts(text[: text.rindex("totalTokenCount")]) == (18, 114, 0, 0, 35)


def test_a_later_count_of_cache_writes_replaces_their_parts_as_well() -> None:
    start = {"input_tokens": 10, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 1}
    start["cache_creation"] = {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 0}
    delta = {"input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 50, "output_tokens": 25}
    events = [{"type": "message_start", "message": {"type": "message", "usage": start}}]
    events += [{"type": "message_delta", "usage": delta}]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    assert read(stream).tokens == Tokens(60, 25, 50, 0)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"usage": {"prompt_tokens": None, "completion_tokens": 5, "total_tokens": 15}}, Tokens(10, 5)),
        ({"usage": {"completion_tokens": 5, "total_tokens": 15}}, Tokens(10, 5)),
        (
            {"usageMetadata": {"candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 15}},
            Tokens(8, 7, 0, 0, 2),
        ),
        ({"meta": {"billed_units": {"output_tokens": 3}}}, Tokens(0, 3)),
    ],
)
def test_a_main_count_that_is_left_out_follows_from_the_total(body: dict[str, Any], tokens: Tokens) -> None:
    assert read(body).tokens == tokens
