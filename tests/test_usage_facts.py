"""What docs/providers.md says of the installed genai-prices: where its `extract_usage` counts otherwise than we do, or not
at all. When a new version of it makes one of these fail, it has learned something: mend the document."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot

from billing_core.usage import read

Body = dict[str, Any]
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "providers.md"

GROK = {"model": "grok-4"}
GPT = {"model": "gpt-4o"}
ROUNDS = [{"input_tokens": 55_196, "output_tokens": 125}, {"input_tokens": 220, "output_tokens": 8}]


def theirs(body: object, provider: str, flavor: str = "default") -> tuple[int, int, int, int, int]:
    found = get_snapshot().extract_usage(body, provider_id=provider, provider_api_url=None, api_flavor=flavor).usage
    kinds = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "output_reasoning_tokens")
    return tuple(int(getattr(found, kind, None) or 0) for kind in kinds)  # type: ignore[return-value]


def ours(body: object) -> tuple[int, int, int, int, int]:
    tokens = read(body).tokens
    return tokens.prompt, tokens.completion, tokens.cached, tokens.cache_creation, tokens.reasoning


def test_the_document_names_the_installed_version() -> None:
    assert f"Version {version('genai-prices')}" in DOCUMENT.read_text()


def chat(prompt: int, completion: int, beside: Body | None = None, **usage: Any) -> Body:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, **usage}
    return {"model": "m", **(beside or {}), "usage": counts}


@pytest.mark.parametrize(
    ("body", "provider", "flavor", "they_say", "we_say"),
    [
        pytest.param(
            chat(66, 6, {"model": "gemini-2.5-flash"}, total_tokens=100),
            *("google", "chat", (66, 6, 0, 0, 0), (66, 34, 0, 0, 0)), id="Google's thoughts, in the total only",
        ),
        pytest.param(
            {"model": "claude-sonnet-4-5", "type": "message", "usage": {**ROUNDS[1], "iterations": ROUNDS}},
            *("anthropic", "default", (220, 8, 0, 0, 0), (55_416, 133, 0, 0, 0)), id="Anthropic's rounds",
        ),
        pytest.param(
            chat(64, 6, {"model": "mistral-large-latest"}, num_cached_tokens=32),
            *("mistral", "default", (64, 6, 0, 0, 0), (64, 6, 32, 0, 0)), id="Mistral's cached tokens",
        ),
        pytest.param(
            chat(9, 3, {"model": "kimi-k2-0905-preview"}, cached_tokens=8),
            *("moonshotai", "chat", (9, 3, 0, 0, 0), (9, 3, 8, 0, 0)), id="Moonshot's cached tokens",
        ),
        pytest.param(
            chat(976, 61, {"model": "deepseek-chat"}, prompt_cache_hit_tokens=896),
            *("deepseek", "chat", (976, 61, 0, 0, 0), (976, 61, 896, 0, 0)), id="DeepSeek's own name of cached tokens",
        ),
        pytest.param(
            chat(687, 240, GROK, total_tokens=927, completion_tokens_details={"reasoning_tokens": 165}),
            *("x-ai", "chat", (687, 405, 0, 0, 165), (687, 240, 0, 0, 165)), id="reasoning that is in the output already",
        ),
        pytest.param(
            chat(43, 10, GPT, completion_tokens_details={"reasoning_tokens": 11}),
            *("openai", "chat", (43, 10, 0, 0, 11), (43, 10, 0, 0, 10)), id="11 reasoning tokens of 10",
        ),
        pytest.param(
            chat(10, 5, GPT, prompt_tokens_details={"cached_tokens": 11}),
            *("openai", "chat", (10, 5, 11, 0, 0), (10, 5, 10, 0, 0)), id="11 cached tokens of 10",
        ),
    ],
)  # fmt: skip
def test_where_it_counts_otherwise(
    body: Body, provider: str, flavor: str, they_say: tuple[int, ...], we_say: tuple[int, ...]
) -> None:
    assert theirs(body, provider, flavor) == they_say
    assert ours(body) == we_say


RESPONSE = {"object": "response", "model": "gpt-oss-120b", "usage": {"input_tokens": 1, "output_tokens": 2}}


@pytest.mark.parametrize(
    ("body", "provider", "flavor"),
    [
        pytest.param(RESPONSE, "deepseek", "responses", id="DeepSeek's Responses"),
        pytest.param(RESPONSE, "aws", "responses", id="Bedrock's Responses"),
        pytest.param(chat(1, 2), "aws", "chat", id="Bedrock's chat"),
        pytest.param(chat(1, 2), "ollama", "chat", id="Ollama"),
        pytest.param(chat(1, 2), "snowflake", "chat", id="Snowflake"),
        pytest.param(chat(1, 2, {"model": "made-up"}), "openrouter", "chat", id="a model without prices"),
        pytest.param(
            {"model": "llama-3.3-70b-versatile", "x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}},
            *("groq", "default"), id="Groq's last chunk",
        ),
        pytest.param('data: {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}', "openai", "chat", id="a stream"),
        pytest.param(
            {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 1, "outputTokenCount": 2}},
            *("aws", "default"), id="Bedrock's metrics",
        ),
    ],
)  # fmt: skip
def test_what_it_does_not_read(body: object, provider: str, flavor: str) -> None:
    with pytest.raises((ValueError, LookupError)):
        theirs(body, provider, flavor)
    assert ours(body) == (1, 2, 0, 0, 0)


@pytest.mark.parametrize(
    ("body", "provider", "flavor"),
    [
        (chat(10, 5, GROK, total_tokens=115, completion_tokens_details={"reasoning_tokens": 100}), "x-ai", "chat"),
        (
            {
                "modelVersion": "gemini-2.5-flash",
                "usageMetadata": {
                    "promptTokenCount": 32, "toolUsePromptTokenCount": 2395, "cachedContentTokenCount": 20,
                    "candidatesTokenCount": 41, "thoughtsTokenCount": 47, "totalTokenCount": 2515,
                },
            },
            *("google", "default"),
        ),
        ({"usage": {"inputTokens": 3, "outputTokens": 6, "cacheReadInputTokens": 5, "cacheWriteInputTokens": 7}}, "aws", "default"),
        ({"model": "command-r", "usage": {"billed_units": {"input_tokens": 7, "output_tokens": 2}, "tokens": {"input_tokens": 9}}},
         "cohere", "default"),
    ],
    ids=["xAI", "Gemini", "Bedrock", "Cohere"],
)  # fmt: skip
def test_where_both_agree(body: Body, provider: str, flavor: str) -> None:
    assert theirs(body, provider, flavor) == ours(body)
