"""How many tokens a provider says a call used, brought to one meaning: `read` takes what the provider sent.

A body is one event and a stream is many; each shape that reports usage in them has one small function in `SHAPES`.

Why not genai-prices' `extract_usage`? It must be told the provider and the API, and reads no streams. Version 0.2.3

- counts 6 of 34 output tokens in Google's OpenAI shape, whose thoughts are in `total_tokens` only;
- refuses Responses from DeepSeek and Bedrock, OpenAI's chat from Bedrock, all of Ollama, and models that it has no
  prices for (Hugging Face, OpenRouter), though counting needs none;

and, going by its tables rather than by a recorded answer, it

- adds xAI's reasoning to output always, also where `total_tokens` shows that it is in there;
- leaves out Anthropic's `iterations`, and its `thinking_tokens` on Bedrock;
- doesn't know Groq's `x_groq`, Moonshot's and Mistral's own names for cached tokens, or Bedrock's
  `amazon-bedrock-invocationMetrics`;
- passes on a part that is more than its whole (11 reasoning tokens of 10).
"""

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from typing import Any

from .errors import Invalid
from .i18n import N_
from .tokens import MOST, Tokens

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Round:
    """One of several model runs within a call, with the model it is charged at (None: the provider doesn't say)."""

    model: str | None
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call used. `api` is the shape of the answer (a name in SHAPES), `model` the model that the answer names.

    `tokens` is the sum over everything. `rounds` is empty but for an Anthropic call of several rounds, or of a round by
    another model: then it holds all rounds in order, each to be charged at its own model's price. Their tokens add up
    to `tokens`, except for `reasoning`, which the provider may report for the whole only.
    """

    api: str
    model: str | None
    tokens: Tokens
    rounds: tuple[Round, ...] = ()

    def by_model(self, own: str) -> dict[str, Tokens]:
        """What each model used, `own` standing for the one that the answer names."""
        used: dict[str, Tokens] = {}
        for each in self.rounds:
            name = own if each.model in (None, self.model) else each.model or own
            used[name] = used.get(name, Tokens(0, 0)) + each.tokens
        unplaced = self.tokens.reasoning - sum(tokens.reasoning for tokens in used.values())
        for name, tokens in used.items():
            reasoning = min(tokens.reasoning + unplaced, tokens.completion)
            unplaced -= reasoning - tokens.reasoning
            used[name] = replace(tokens, reasoning=reasoning)
        return used or {own: self.tokens}


def read(response: object, provider: str | None = None) -> Usage:
    """The usage in what a provider answered: its JSON body, or the text of its event stream (or of its JSON body).

    The shape is recognised by the body. `provider` (such as "xai") settles the one thing that a body may leave open:
    whether reasoning is in `completion_tokens` where no total is given. Takes time linear in the response's length.

    Raises Invalid (field "response"), and nothing else, where there is no usage in it.
    """
    events = _events(response)
    try:
        usage = _fold(events, (provider or "").lower())
    except Invalid:  # parts are cut to their wholes, so only the size of a whole can be wrong
        message = N_("The response counts more tokens than a call can have: check that it is what the provider sent.")
        raise Invalid(message, field="response") from None
    if usage is None:
        raise Invalid(_reason(events, isinstance(response, str)), field="response")
    return usage


def _reason(events: list[Body], text: bool) -> str:
    """Why there is no usage, and what to do."""
    if any(event.get("error") or event.get("type") == "error" for event in events):
        return N_("The response is an error that reports no usage: if the call is to be charged, send token counts.")
    if text and any("choices" in event for event in events):
        return N_(
            "The stream reports no usage: ask the provider for it with "
            'stream_options {"include_usage": true}, or send token counts.'
        )
    return N_(
        "The response reports no usage: send the provider's whole JSON body, "
        "or the text of its stream from the first event to the last, or send token counts."
    )


# From what was sent to events: a JSON body is one, a stream is many.

_METRICS = "amazon-bedrock-invocationMetrics"
_EMBEDDED = re.compile(rf'"(usage|usageMetadata|{_METRICS})"\s*:\s*(?=\{{)')


def _events(response: object) -> list[Body]:
    if not isinstance(response, str):
        return _bodies(response if isinstance(response, list) else [response])
    text = response.strip("\ufeff \t\r\n")
    whole = _parse(text)
    if isinstance(whole, list | dict):
        return _bodies(whole if isinstance(whole, list) else [whole])
    return _bodies(_streamed(text)) or list(_embedded(text))


def _bodies(found: Iterable[object]) -> list[Body]:
    return [event for event in found if isinstance(event, dict)]


def _parse(text: str) -> object:
    """What a JSON object or array says, None where the text is neither."""
    try:
        return json.loads(text) if text[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        return None


def _streamed(text: str) -> Iterator[object]:
    """What the events of a stream say: server-sent events, or one JSON object a line."""
    data: list[str] = []
    for line in (*re.split(r"\r\n|\n|\r", text), ""):
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").strip())
        elif line.startswith("{") and line.rstrip().endswith("}"):
            yield _parse(line)
        elif not line and data:
            whole = "\n".join(data)
            event = _parse(whole)
            # Some senders leave out the empty line between two events; an event may be cut off after its usage.
            yield from [each for line in data for each in _whole_or_usage(line)] if event is None else [event]
            data = []


def _whole_or_usage(text: str) -> Iterable[object]:
    event = _parse(text)
    return _embedded(text) if event is None else [event]


def _embedded(text: str) -> Iterator[Body]:
    """The last few usage objects in a text that is no whole JSON, such as Bedrock's binary frames or a cut-off body."""
    for match in deque(_EMBEDDED.finditer(text), maxlen=8):
        try:
            yield {match[1]: json.JSONDecoder().raw_decode(text, match.end())[0]}
        except (ValueError, RecursionError):
            continue


# From events to usage.


def _holders(event: Body) -> list[Body]:
    """The objects of an event in which usage and the model's name may stand, itself first."""
    choices = event.get("choices")  # Moonshot's streams
    wrapped = [event.get(key) for key in ("message", "response", "delta", "result", "metadata", "x_groq")]
    return _bodies([event, *wrapped, *(choices[:1] if isinstance(choices, list) else [])])


def _fold(events: list[Body], provider: str) -> Usage | None:
    """The usage that events add up to: the last report counts, and Anthropic's later ones amend its earlier ones."""
    model: str | None = None
    last: tuple[str, Tokens] | None = None
    amended: Body = {}
    for event in events:
        holders = _holders(event)
        names = (holder.get("model") or holder.get("modelVersion") for holder in holders)
        model = model or next((name for name in names if name and isinstance(name, str)), None)
        for holder, key in product(holders, ("usage", "usageMetadata", "meta", _METRICS)):
            usage = holder.get(key)
            if not isinstance(usage, dict) or not (shape := _shape(usage, holder)):
                continue
            if shape == "anthropic":
                if usage.get("cache_creation_input_tokens") is not None:
                    amended.pop("cache_creation", None)  # its parts belong to the count that is replaced
                amended.update((name, value) for name, value in usage.items() if value is not None)
                break
            if tokens := SHAPES[shape](usage, provider or model or ""):
                last = shape, tokens
                break
    if whole := _anthropic(amended):
        return Usage("anthropic", model, *_rounds(whole, amended.get("iterations"), model))
    return Usage(last[0], model, last[1]) if last else None


def _shape(usage: Body, holder: Body) -> str | None:
    """Which of SHAPES a usage object has, by what only that shape has in it."""
    if "billed_units" in usage or isinstance(usage.get("tokens"), dict):
        return "cohere"
    if "promptTokenCount" in usage or "totalTokenCount" in usage:
        return "gemini"
    if "inputTokens" in usage or "inputTokenCount" in usage:
        return "bedrock"
    if holder.get("object") == "response":
        return "openai-responses"
    if usage.keys() & {"prompt_tokens", "completion_tokens"} or (
        holder.get("object") == "list" and "total_tokens" in usage
    ):
        return "openai-chat"
    own = {"cache_read_input_tokens", "cache_creation_input_tokens", "iterations"}
    if own & usage.keys() or holder.get("type") in ("message", "message_delta"):
        return "anthropic"
    return "openai-responses" if "input_tokens" in usage else None


# One function a shape: from its usage object to Tokens, None where its main counts are missing.


def _count(value: object) -> int | None:
    """A count as JSON may give it: an int, or a float or Decimal that is whole. None for everything else."""
    if isinstance(value, float):
        value = Decimal(value)
    if isinstance(value, Decimal):
        if not value.is_finite() or value != value.to_integral_value():
            return None
        value = int(max(Decimal(-1), min(value, Decimal(MOST + 1))))
    return min(value, MOST + 1) if type(value) is int and value >= 0 else None


def _main(usage: Body, *names: str) -> int | None:
    """A main count: 0 if it is left out, None if it is given as something that is no count."""
    given = [usage[name] for name in names if usage.get(name) is not None]
    return _count(given[0]) if given else 0


def _part(usage: Body, *names: str) -> int:
    """A part that providers name differently ("a.b" stands in an inner object): what one of the names gives, or 0."""
    found = [0]
    for name in names:
        outer, _, inner = name.rpartition(".")
        holder = usage.get(outer) if outer else usage
        found.append((_count(holder.get(inner)) if isinstance(holder, dict) else None) or 0)
    return max(found)


def _tokens(prompt: int, completion: int, cached: int = 0, creation: int = 0, reasoning: int = 0) -> Tokens:
    """Tokens with each part cut to its whole."""
    cached = min(cached, prompt)
    return Tokens(prompt, completion, cached, min(creation, prompt - cached), min(reasoning, completion))


def _output(completion: int, prompt: int, total: int) -> int:
    """Where the total is more than the two parts, the rest is output."""
    return max(completion, total - prompt) if total <= MOST else completion


_XAI = ("xai", "x-ai", "grok")


def _openai(usage: Body, maker: str) -> Tokens | None:
    """OpenAI's chat, embeddings and Responses, and the many that follow them. `maker`: the provider, else the model."""
    given = usage.get("prompt_tokens", usage.get("input_tokens"))
    prompt = _count(given)
    completion = _main(usage, "completion_tokens", "output_tokens")
    total = _count(usage.get("total_tokens"))
    if given is None and total is not None and completion is not None:
        prompt = max(total - completion, 0)  # of an embedding all
    if prompt is None or completion is None:
        return None
    reasoning = _part(
        usage,
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "reasoning_tokens",
    )
    if total is not None:
        completion = _output(completion, prompt, total)  # where xAI's reasoning and Google's thoughts are
    elif maker.startswith(_XAI) and "/" not in maker:
        completion += reasoning
    cached = _part(
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
    creation = _part(
        usage,
        "prompt_tokens_details.cache_write_tokens",
        "input_tokens_details.cache_write_tokens",
        "prompt_tokens_details.cache_creation_tokens",
        "cache_creation_input_tokens",
    )
    return _tokens(prompt, completion, cached, creation, reasoning)


def _anthropic(usage: Body, _: str = "") -> Tokens | None:
    """Anthropic's messages, or one of their rounds: `input_tokens` leaves out both kinds of cached tokens."""
    uncached, completion = _count(usage.get("input_tokens")), _main(usage, "output_tokens")
    if uncached is None or completion is None:
        return None
    kept = usage.get("cache_creation")  # tokens by how long they are kept
    creation = sum(_count(value) or 0 for value in kept.values()) if isinstance(kept, dict) else 0
    creation = max(creation, _part(usage, "cache_creation_input_tokens"))
    cached = _part(usage, "cache_read_input_tokens")
    reasoning = _part(usage, "output_tokens_details.thinking_tokens", "output_tokens_details.reasoning_tokens")
    return _tokens(uncached + cached + creation, completion, cached, creation, reasoning)


def _rounds(whole: Tokens, iterations: object, model: str | None) -> tuple[Tokens, tuple[Round, ...]]:
    """The sum over Anthropic's rounds, and the rounds if there are several. `whole`, on top, may leave some out."""
    rounds: list[Round] = []
    for iteration in _bodies(iterations if isinstance(iterations, list) else []):
        name, tokens = iteration.get("model"), _anthropic(iteration)
        if tokens:
            rounds.append(Round(name if isinstance(name, str) else model, tokens))
    total = sum((each.tokens for each in rounds), Tokens(0, 0))
    if total.prompt + total.completion < whole.prompt + whole.completion:
        return whole, ()
    total = replace(total, reasoning=min(max(total.reasoning, whole.reasoning), total.completion))
    return total, tuple(rounds) if len(rounds) > 1 or any(each.model != model for each in rounds) else ()


def _gemini(usage: Body, _: str = "") -> Tokens | None:
    """Gemini: thoughts are output, and what tools put into the prompt is input on top of `promptTokenCount`."""
    completion = _main(usage, "candidatesTokenCount", "responseTokenCount")
    thoughts, tools = _part(usage, "thoughtsTokenCount"), _part(usage, "toolUsePromptTokenCount")
    total = _part(usage, "totalTokenCount")
    if completion is None:
        return None
    prompt = _count(usage.get("promptTokenCount"))
    if usage.get("promptTokenCount") is None and total:
        prompt = max(total - completion - thoughts - tools, 0)
    if prompt is None:
        return None
    prompt += tools
    completion = _output(completion + thoughts, prompt, total)
    return _tokens(prompt, completion, _part(usage, "cachedContentTokenCount"), 0, thoughts)


def _bedrock(usage: Body, _: str = "") -> Tokens | None:
    """Bedrock's Converse, and its metrics of other calls: input leaves out both kinds of cached tokens."""
    uncached = _count(usage.get("inputTokens", usage.get("inputTokenCount")))
    completion = _main(usage, "outputTokens", "outputTokenCount")
    if uncached is None or completion is None:
        return None
    cached = _part(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    creation = _part(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    return _tokens(uncached + cached + creation, completion, cached, creation)


def _cohere(usage: Body, _: str = "") -> Tokens | None:
    """Cohere: what is charged. Its `tokens` and `cached_tokens` count more, and are read only where nothing else is."""
    billed = usage.get("billed_units") or usage.get("tokens")
    if not isinstance(billed, dict):
        return None
    prompt, completion = _main(billed, "input_tokens"), _main(billed, "output_tokens")
    return (
        None
        if not billed.keys() & {"input_tokens", "output_tokens"} or prompt is None or completion is None
        else _tokens(prompt, completion)
    )


SHAPES: dict[str, Callable[[Body, str], Tokens | None]] = {
    "openai-chat": _openai,
    "openai-responses": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "bedrock": _bedrock,
    "cohere": _cohere,
}
