"""One function a shape: from its usage object to Tokens, None where its main counts are missing."""

from collections.abc import Callable

from ..tokens import Tokens
from .counts import count, main, modal, output, part, tokens
from .events import Body, inner, listed

_XAI = ("xai", "x-ai", "grok")


def _openai(usage: Body, maker: str) -> Tokens | None:
    """OpenAI's chat, embeddings and Responses, and the many that follow them. `maker`: the provider, else the model."""
    given = usage.get("prompt_tokens", usage.get("input_tokens"))
    prompt = count(given)
    completion = main(usage, "completion_tokens", "output_tokens")
    total = count(usage.get("total_tokens"))
    if given is None and total is not None and completion is not None:
        prompt = max(total - completion, 0)  # of an embedding all
    if completion is None and prompt is not None and total is not None:
        completion = max(total - prompt, 0)  # what stands there is no count
    if prompt is None or completion is None:
        return None
    reasoning = part(
        usage,
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "reasoning_tokens",
    )
    parts = prompt + completion
    if total is not None and total == parts + reasoning:
        parts = total  # xAI's reasoning, which it counts beside the output
    if total is not None:
        completion = output(completion, prompt, total)  # where xAI's reasoning and Google's thoughts are
    elif maker.startswith(_XAI) and "/" not in maker:
        completion += reasoning
    cached = part(
        usage,
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
        "input_token_details.cached_tokens",  # OpenAI's realtime
        "prompt_cache_hit_tokens",  # DeepSeek
        "cached_tokens",  # Moonshot
        "num_cached_tokens",  # Mistral
        "cached_prompt_text_tokens",  # xAI
        "cache_read_input_tokens",  # Databricks
    )
    creation = part(
        usage,
        "prompt_tokens_details.cache_write_tokens",
        "input_tokens_details.cache_write_tokens",
        "prompt_tokens_details.cache_creation_tokens",
        "cache_creation_input_tokens",
    )
    sent, got = (("prompt_tokens_details", "input_tokens_details", "input_token_details"),
                 ("completion_tokens_details", "output_tokens_details", "output_token_details"))  # fmt: skip

    def kind(holders: tuple[str, ...], name: str) -> int:
        return part(usage, *(f"{holder}.{name}" for holder in holders))

    def uncached(name: str) -> int:
        return max(kind(sent, name) - kind(sent, f"cached_tokens_details.{name}"), 0)

    pictures = max(uncached("image_tokens"), part(usage, "prompt_image_tokens"))  # xAI caches text only
    return tokens(
        prompt, completion, cached, creation, reasoning,
        audio_input=uncached("audio_tokens"), image_input=pictures + uncached("video_tokens"),
        audio_output=kind(got, "audio_tokens"), image_output=kind(got, "image_tokens"), total=total, parts=parts,
    )  # fmt: skip


def anthropic(usage: Body, _: str = "") -> Tokens | None:
    """Anthropic's messages, or one of their rounds: `input_tokens` leaves out both kinds of cached tokens."""
    uncached, completion = count(usage.get("input_tokens")), main(usage, "output_tokens")
    if uncached is None or completion is None:
        return None
    creation = max(kept_in_cache(usage), part(usage, "cache_creation_input_tokens"))
    cached = part(usage, "cache_read_input_tokens")
    reasoning = part(usage, "output_tokens_details.thinking_tokens", "output_tokens_details.reasoning_tokens")
    hour = part(usage, "cache_creation.ephemeral_1h_input_tokens")
    prompt = uncached + cached + creation
    return tokens(prompt, completion, cached, creation, reasoning, cache_creation_1h=hour)


def kept_in_cache(usage: Body) -> int:
    """Anthropic's `cache_creation`: tokens by how long they are kept, added up."""
    kept = usage.get("cache_creation")
    return sum(count(value) or 0 for value in kept.values()) if isinstance(kept, dict) else 0


def _gemini(usage: Body, _: str = "") -> Tokens | None:
    """Gemini: thoughts are output, and what tools put into the prompt is input on top of `promptTokenCount`."""
    completion = main(usage, "candidatesTokenCount", "responseTokenCount")
    thoughts, tools = part(usage, "thoughtsTokenCount"), part(usage, "toolUsePromptTokenCount")
    total = part(usage, "totalTokenCount")
    prompt = count(usage.get("promptTokenCount"))
    if completion is None and prompt is not None and total:
        completion = max(total - prompt - thoughts - tools, 0)  # what stands there is no count
    if completion is None:
        return None
    if usage.get("promptTokenCount") is None and total:
        prompt = max(total - completion - thoughts - tools, 0)
    if prompt is None:
        return None
    prompt += tools
    parts = prompt + completion + thoughts
    completion = output(completion + thoughts, prompt, total)

    def uncached(*modalities: str) -> int:
        names = ("promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails")  # the second: embeddings
        sent = sum(modal(usage, name, *modalities) for name in names)
        return max(sent - modal(usage, "cacheTokensDetails", *modalities), 0)

    def got(*modalities: str) -> int:
        return sum(modal(usage, name, *modalities) for name in ("candidatesTokensDetails", "responseTokensDetails"))

    return tokens(
        prompt, completion, part(usage, "cachedContentTokenCount"), 0, thoughts,
        audio_input=uncached("AUDIO"), image_input=uncached("IMAGE", "VIDEO"), audio_output=got("AUDIO"),
        image_output=got("IMAGE", "VIDEO"), total=total or None, parts=parts,
    )  # fmt: skip


def _bedrock(usage: Body, _: str = "") -> Tokens | None:
    """Bedrock's Converse, and its metrics of other calls: input leaves out both kinds of cached tokens."""
    uncached = count(usage.get("inputTokens", usage.get("inputTokenCount")))
    completion = main(usage, "outputTokens", "outputTokenCount")
    if uncached is None or completion is None:
        return None
    cached = part(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    creation = part(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    hour = sum(count(each.get("inputTokens")) or 0 for each in listed(usage, "cacheDetails") if each.get("ttl") == "1h")
    prompt = uncached + cached + creation
    total = count(usage.get("totalTokens"))
    parts = total if total == uncached + completion else prompt + completion  # with what was cached, or without it
    return tokens(prompt, completion, cached, creation, cache_creation_1h=hour, total=total, parts=parts or 0)


def _cohere(usage: Body, _: str = "") -> Tokens | None:
    """Cohere: what is charged. Its `tokens` and `cached_tokens` count more, and are read only where nothing else is."""
    billed = usage.get("billed_units") or usage.get("tokens")
    if not isinstance(billed, dict):
        return None
    prompt, completion = main(billed, "input_tokens"), main(billed, "output_tokens")
    if not billed.keys() & {"input_tokens", "output_tokens", "image_tokens"} or prompt is None or completion is None:
        return None
    pictures = part(billed, "image_tokens")  # of embeddings, beside the text
    return tokens(prompt + pictures, completion, image_input=pictures)


def bare(event: Body) -> Body | None:
    """A usage object made of counts that stand in the body itself, or None: Titan's on Bedrock, Vertex's predictions."""
    if "inputTextTokenCount" in event:
        texts = [count(each.get("tokenCount")) or 0 for each in listed(event, "results")]
        return {"inputTokens": event["inputTextTokenCount"], "outputTokens": sum(texts)}
    counted = [
        counts
        for each in listed(event, "predictions")
        if (counts := count(inner(each, "embeddings.statistics.token_count"))) is not None
    ]
    return {"promptTokenCount": sum(counted)} if counted else None


SHAPES: dict[str, Callable[[Body, str], Tokens | None]] = {
    "openai-chat": _openai,
    "openai-responses": _openai,
    "anthropic": anthropic,
    "gemini": _gemini,
    "bedrock": _bedrock,
    "cohere": _cohere,
}
