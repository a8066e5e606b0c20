"""How many tokens a provider says a call used, brought to one meaning: `read` takes what the provider sent.

A body is one event and a stream is many; each shape that reports usage in them has one small function in `SHAPES`.

Why not genai-prices' `extract_usage`? It must be told the provider and the API, reads no streams, and on recorded
answers (genai-prices 0.2.3) these came out otherwise than the provider's own totals, or not at all:

- Google's OpenAI shape: thoughts are neither in `completion_tokens` nor added from `total_tokens` (6 tokens of 34);
- xAI: it always adds reasoning to output, by the provider's name, also where `total_tokens` shows it is in there;
- refused for want of an extractor: Responses from DeepSeek or Bedrock, OpenAI chat from Bedrock, all of Ollama;
- refused for an unlisted model, though counting needs none: Hugging Face, some on OpenRouter;
- Anthropic `iterations` (compaction, rounds of other models) are left out, so are `thinking_tokens` on Bedrock;
- a part above its whole (11 reasoning tokens of 10) is passed on as it is;
- not read at all: Groq's `x_groq`, Moonshot's and Mistral's own names for cached tokens, Bedrock's
  `amazon-bedrock-invocationMetrics`.
"""

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

from .errors import Invalid
from .i18n import N_

MOST = 10**9
"""The most tokens that one count may have."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts of tokens. `prompt` is all input, of which `cached` was read from a cache and `cache_creation` written to
    one; `completion` is all output, of which `reasoning` is a part.

    Raises Invalid, with the API's name of the field, for a count that is no int from 0 to MOST, and for parts that are
    more than their whole.
    """

    prompt: int
    completion: int
    cached: int = 0
    cache_creation: int = 0
    reasoning: int = 0

    def __post_init__(self) -> None:
        for part in fields(self):
            value, name = getattr(self, part.name), f"{part.name}_tokens"
            if type(value) is not int or not 0 <= value <= MOST:
                message = N_("{name} is a count of tokens: give a whole number from 0 to {most}.")
                raise Invalid(message, field=name, name=name, most=MOST)
        if self.cached + self.cache_creation > self.prompt:
            message = N_(
                "cached_tokens and cache_creation_tokens are more than prompt_tokens, which they are parts of: "
                "count all input in prompt_tokens."
            )
            raise Invalid(message, field="cached_tokens" if self.cached > self.prompt else "cache_creation_tokens")
        if self.reasoning > self.completion:
            message = N_(
                "reasoning_tokens are more than completion_tokens, which they are part of: "
                "count all output in completion_tokens."
            )
            raise Invalid(message, field="reasoning_tokens")

    @property
    def uncached(self) -> int:
        """Input tokens that were neither read from a cache nor written to one."""
        return self.prompt - self.cached - self.cache_creation

    def __add__(self, other: object) -> "Tokens":
        if not isinstance(other, Tokens):
            return NotImplemented
        return Tokens(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


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

_KEYS = ("usage", "usageMetadata", "meta")
_METRICS = "amazon-bedrock-invocationMetrics"
_EMBEDDED = re.compile(rf'"(usage|usageMetadata|{_METRICS})"\s*:\s*(?=\{{)')


def _events(response: object) -> list[Body]:
    parsed: list[Any] = [response]
    if isinstance(response, list):
        parsed = response
    elif isinstance(response, str):
        text = response.strip("\ufeff \t\r\n")
        whole = _parse(text)
        parsed = whole if isinstance(whole, list) else [whole] if isinstance(whole, dict) else list(_streamed(text))
    return [event for event in parsed if isinstance(event, dict)] or (
        list(_embedded(response)) if isinstance(response, str) else []
    )


def _parse(text: str) -> Any:
    """What a JSON text says, None where it says nothing."""
    try:
        return json.loads(text) if text[:1] in ("{", "[", " ") else None
    except (ValueError, RecursionError):
        return None


def _streamed(text: str) -> Iterator[Any]:
    """What the events of a stream say: server-sent events, or one JSON object a line."""
    data: list[str] = []
    for line in (*re.split(r"\r\n|\n|\r", text), ""):
        if line.startswith("data:"):
            data.append(line.removeprefix("data:"))
        elif line.startswith("{"):
            yield _parse(line)
        elif not line and data:
            event = _parse("\n".join(data).strip())
            # Some senders leave out the empty line between two events.
            yield from [event] if event is not None else map(_parse, map(str.strip, data))
            data = []


def _embedded(text: str) -> Iterator[Body]:
    """The last few usage objects in a text that is no whole JSON, such as Bedrock's binary frames or a cut-off body."""
    for match in deque(_EMBEDDED.finditer(text), maxlen=8):
        try:
            yield {match[1]: json.JSONDecoder().raw_decode(text, match.end())[0]}
        except (ValueError, RecursionError):
            continue


# From events to usage.


def _holders(event: Body) -> Iterator[Body]:
    """The objects in an event in which its usage and its model may stand."""
    yield event
    choices = event.get("choices")  # Moonshot's streams
    wrapped = [event.get(key) for key in ("message", "response", "delta", "result", "metadata", "x_groq")]
    for inner in wrapped + (choices[:1] if isinstance(choices, list) else []):
        if isinstance(inner, dict):
            yield inner


def _fold(events: list[Body], provider: str) -> Usage | None:
    """The usage that events add up to: the last report counts. Anthropic's later ones amend the earlier."""
    model: str | None = None
    message: Body = {}
    last: Usage | None = None
    metrics: Usage | None = None
    for event in events:
        for holder in _holders(event):
            name = holder.get("model") or holder.get("modelVersion")
            model = model or (name if isinstance(name, str) else None)
            for usage in (holder.get(key) for key in _KEYS):
                if not isinstance(usage, dict):
                    continue
                api = _shape(usage, event, holder)
                if api == "anthropic":
                    message.update((key, value) for key, value in usage.items() if value is not None)
                elif api and (tokens := SHAPES[api](usage)):
                    last = Usage(api, model, tokens)
                    if api == "openai-chat" and _adds_reasoning(usage, provider, model):
                        last = replace(last, tokens=replace(tokens, completion=tokens.completion + _reasoning(usage),
                                                            reasoning=_reasoning(usage)))
        counts = event.get(_METRICS)
        if isinstance(counts, dict) and (tokens := _bedrock(counts)):
            metrics = Usage("bedrock", model, tokens)
    return _message(message, model) or (replace(last, model=model) if last else metrics)


def _shape(usage: Body, event: Body, holder: Body) -> str | None:
    """Which shape a usage object has, by what only that shape has in it."""
    if "billed_units" in usage or isinstance(usage.get("tokens"), dict):
        return "cohere"
    if "promptTokenCount" in usage:
        return "gemini"
    if "inputTokens" in usage:
        return "bedrock"
    if "prompt_tokens" in usage or _is_embedding(usage, holder):
        return "openai-chat"
    own = {"cache_read_input_tokens", "cache_creation_input_tokens", "iterations"}
    if own & usage.keys() or holder.get("type") == "message" or event.get("type") == "message_delta":
        return "anthropic"
    return "openai-responses" if "input_tokens" in usage else None
