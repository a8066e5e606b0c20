"""Reading counts out of JSON, whatever stands there."""

from decimal import Decimal

from ..tokens import MOST, Extras, Tokens
from .events import Body, inner, listed


def count(value: object) -> int | None:
    """A count as JSON may give it: an int, or a float or Decimal that is whole. None for everything else."""
    if isinstance(value, float):
        value = Decimal(value)
    if isinstance(value, Decimal):
        if not value.is_finite() or value != value.to_integral_value():
            return None
        value = int(max(Decimal(-1), min(value, Decimal(MOST + 1))))
    return min(value, MOST + 1) if type(value) is int and value >= 0 else None


def main(usage: Body, *names: str) -> int | None:
    """A main count: 0 if it is left out, None if it is given as something that is no count."""
    given = [usage[name] for name in names if usage.get(name) is not None]
    return count(given[0]) if given else 0


def part(usage: Body, *names: str) -> int:
    """A part that providers name differently ("a.b" stands in an inner object): what one of the names gives, or 0."""
    return max(count(inner(usage, name)) or 0 for name in names)


def modal(usage: Body, name: str, *modalities: str) -> int:
    """Gemini's counts by modality: what a list like promptTokensDetails says of these."""
    return sum(count(one.get("tokenCount")) or 0 for one in listed(usage, name) if one.get("modality") in modalities)


def tokens(
    prompt: int,
    completion: int,
    cached: int = 0,
    creation: int = 0,
    reasoning: int = 0,
    *,
    cache_creation_1h: int = 0,
    audio_input: int = 0,
    image_input: int = 0,
    audio_output: int = 0,
    image_output: int = 0,
    total: int | None = None,
    parts: int = 0,
) -> Tokens:
    """Tokens with each part cut to its whole. `total` is the provider's own, `parts` what its parts add up to."""
    cut = []

    def within(part: int, whole: int, name: str) -> int:
        if part > whole:
            cut.append(name)
        return min(part, whole)

    cached = within(cached, prompt, "cached")
    creation = within(creation, prompt - cached, "cache_creation")
    reasoning = within(reasoning, completion, "reasoning")
    uncached = prompt - cached - creation
    # Where a body doesn't say how much of the sound and the pictures was cached, as much as is left uncached counts.
    audio_input = min(within(audio_input, prompt, "audio_input"), uncached)
    image_input = min(within(image_input, prompt - audio_input, "image_input"), uncached - audio_input)
    audio_output = within(audio_output, completion, "audio_output")
    extras = Extras(
        within(cache_creation_1h, creation, "cache_creation_1h"), audio_input, image_input, audio_output,
        within(image_output, completion - audio_output, "image_output"),
        stated_total=total if total is not None and total != parts and total <= MOST else None, cut=tuple(sorted(cut)),
    )  # fmt: skip
    return Tokens(prompt, completion, cached, creation, reasoning, None if extras == Extras() else extras)


def output(completion: int, prompt: int, total: int) -> int:
    """Where the total is more than the two parts, the rest is output."""
    return max(completion, total - prompt) if total <= MOST else completion


def amount(value: object) -> Decimal | None:
    """An amount as JSON may give it, exact; None for what is none."""
    if isinstance(value, float):
        value = Decimal(repr(value))
    if not isinstance(value, int | Decimal) or isinstance(value, bool):
        return None
    if isinstance(value, Decimal) and not (
        value.is_finite() and abs(value.adjusted()) < 30 and len(value.as_tuple().digits) < 40
    ):
        return None
    return Decimal(value) if 0 <= value <= 10**15 else None
