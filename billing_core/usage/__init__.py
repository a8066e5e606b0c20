"""How many tokens a provider says a call used, brought to one meaning: `read` takes what the provider sent.

A body is one event and a stream is many (events.py); each shape that reports usage in them has one small function
(shapes.py); what stands beside the counts is read from all of them (beside.py). docs/providers.md says shape by shape what
is read, and why genai-prices' `extract_usage` is not used for it.
"""

from dataclasses import dataclass, replace
from itertools import product

from ..errors import Invalid
from ..i18n import N_
from ..tokens import Extras, Tokens
from .beside import beside
from .counts import count
from .events import METRICS, Body, bodies, events_of, holders_of
from .shapes import SHAPES, anthropic, bare, kept_in_cache

MAX_MODELS = 100
"""The most models that one call can be charged for: each is an entry."""


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
    names_tier: bool = False
    """Whether the answer says in which service tier it was, be it the usual one."""

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
        if used and self.tokens.extras:
            _share(used, own if own in used else next(iter(used)), self.tokens.extras)
        return used or {own: self.tokens}


def _share(used: dict[str, Tokens], first: str, whole: Extras) -> None:
    """What was called and stated is the call's own, the service tier that of each of its rounds."""
    for name, tokens in used.items():
        extras = replace(tokens.extras or Extras(), service_tier=whole.service_tier)
        if name == first:
            extras = replace(
                extras,
                tools=whole.tools,
                stated_total=whole.stated_total,
                cut=whole.cut,
                upstream_usd=whole.upstream_usd,
            )
        used[name] = replace(tokens, extras=None if extras == Extras() else extras)


def read(response: object, provider: str | None = None) -> Usage:
    """The usage in what a provider answered: its JSON body, or the text of its event stream (or of its JSON body).

    The shape is recognised by the body. `provider` (such as "xai") settles the one thing that a body may leave open:
    whether reasoning is in `completion_tokens` where no total is given. Takes time linear in the response's length.

    Raises Invalid (field "response"), and nothing else, where there is no usage in it, or that of too many models.
    """
    events = events_of(response)
    try:
        usage = _fold(events, (provider or "").lower())
    except Invalid:  # parts are cut to their wholes, so only the size of a whole can be wrong
        message = N_("The response counts more tokens than a call can have: check that it is what the provider sent.")
        raise Invalid(message, field="response") from None
    if usage is None:
        raise Invalid(_reason(events, isinstance(response, str)), field="response")
    if len({each.model for each in usage.rounds}) > MAX_MODELS:
        message = N_("A call can be charged for at most {most} models: charge the rounds of the others by themselves.")
        raise Invalid(message, field="response", most=MAX_MODELS)
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


# From events to usage.


def _fold(events: list[Body], provider: str) -> Usage | None:
    """The usage that events add up to: the last report counts, and Anthropic's later ones amend its earlier ones."""
    model: str | None = None
    last: tuple[str, Tokens] | None = None
    amended: Body = {}
    for event in events:
        holders = holders_of(event)
        names = (_model(holder.get("model") or holder.get("modelVersion")) for holder in holders)
        model = model or next((name for name in names if name), None)
        if event.get("type") == "message_start":
            amended = {}
        if counts := bare(event):
            holders = [{"usage": counts}, *holders]
        for holder, key in product(holders, ("usage", "usageMetadata", "meta", METRICS)):
            usage = holder.get(key)
            if not isinstance(usage, dict) or not (shape := _shape(usage, holder, event)):
                continue
            if shape == "anthropic":
                whole_creation = count(usage.get("cache_creation_input_tokens"))
                if whole_creation is not None and whole_creation < kept_in_cache(amended):
                    amended.pop("cache_creation", None)  # its parts belong to the count that is replaced
                amended.update((name, value) for name, value in usage.items() if value is not None)
                break
            if tokens := SHAPES[shape](usage, provider or model or ""):
                last = shape, tokens
                break
    if whole := anthropic(amended):
        found = Usage("anthropic", model, *_rounds(whole, amended.get("iterations"), model))
    elif last:
        found = Usage(last[0], model, last[1])
    else:
        return None
    also, names_tier = beside(events)
    if also == Extras():
        return replace(found, names_tier=names_tier)
    extras = found.tokens.extras + also if found.tokens.extras else also
    return replace(found, tokens=replace(found.tokens, extras=extras), names_tier=names_tier)


def _model(name: object) -> str | None:
    """A model's name as it can be kept; None for anything else."""
    name = name.strip() if isinstance(name, str) else ""
    return name if 1 <= len(name) <= 200 and name.isprintable() else None


def _shape(usage: Body, holder: Body, event: Body) -> str | None:
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
    if own & usage.keys() or any(one.get("type") in _ANTHROPIC for one in (holder, event)):
        return "anthropic"
    return "openai-responses" if "input_tokens" in usage else None


_ANTHROPIC = ("message", "message_start", "message_delta")
"""The types of Anthropic's answer and of what its stream says usage in."""


def _rounds(whole: Tokens, iterations: object, model: str | None) -> tuple[Tokens, tuple[Round, ...]]:
    """The sum over Anthropic's rounds, and the rounds if there are several. `whole`, on top, may leave some out."""
    rounds: list[Round] = []
    for iteration in bodies(iterations if isinstance(iterations, list) else []):
        if tokens := anthropic(iteration):
            rounds.append(Round(_model(iteration.get("model")) or model, tokens))
    total = sum((each.tokens for each in rounds), Tokens(0, 0))
    if total.prompt + total.completion < whole.prompt + whole.completion:
        return whole, ()
    total = replace(total, reasoning=min(max(total.reasoning, whole.reasoning), total.completion))
    return total, tuple(rounds) if len(rounds) > 1 or any(each.model != model for each in rounds) else ()
