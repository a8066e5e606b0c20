"""Patterns that admins keep: which model's price counts for names that have none of their own.

A rule has a pattern, a name in which each * stands for any text (also none), and a target, the model whose price counts;
each * in it is what the pattern's was, in order. `openrouter/*` → `*` lets openrouter/openai/gpt-4o cost what openai/gpt-4o
does, `*-2026*` → `*` leaves off a date, `*:free` → `free` names one price for all of them. Of several that fit, the one
with the most text besides its * is asked first. A rule counts from the moment on that it is set; what was charged stays.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from . import audit
from .actors import Actor
from .database import Transaction
from .errors import Invalid, NotFound
from .i18n import N_
from .models import PriceRule

MAX_RULES = 500
MAX_STARS = 5


@dataclass(frozen=True, slots=True)
class Rule:
    pattern: str
    target: str
    since_ns: int

    @property
    def weight(self) -> tuple[int, str]:
        """What sorts rules, the first asked first."""
        return -len(self.pattern.replace("*", "")), self.pattern

    def applied_to(self, model: str) -> str | None:
        """The model whose price counts for this one; None where the pattern doesn't fit."""
        stars = _stars(self.pattern, model)
        if stars is None:
            return None
        found = iter(stars)
        return re.sub(r"\*", lambda _star: next(found), self.target)


def _stars(pattern: str, name: str) -> list[str] | None:
    """What each * of a pattern stands for in a name, the first ones as much as they can; None where it doesn't fit. From the
    right, piece by piece: a regular expression may try for minutes."""
    first, *pieces = pattern.split("*")
    if not pieces:
        return [] if name == pattern else None
    last = pieces.pop()
    end = len(name) - len(last)
    if end < len(first) or not name.startswith(first) or not name.endswith(last):
        return None
    found = []
    for piece in reversed(pieces):
        at = name.rfind(piece, len(first), end)
        if at < 0:
            return None
        found.append(name[at + len(piece) : end])
        end = at
    return [name[len(first) : end], *reversed(found)]


def _clean(name: str, field: str) -> str:
    name = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(name) <= 200 or not name.isprintable() or name.count("*") > MAX_STARS:
        raise Invalid(
            N_("A pattern or target is a model's name of 1 to 200 characters, with at most {most} *, like openrouter/*."),
            field=field, most=MAX_STARS,
        )  # fmt: skip
    return name


def _checked(pattern: str, target: str) -> tuple[str, str]:
    pattern, target = _clean(pattern, "pattern"), _clean(target, "target")
    if target.count("*") > pattern.count("*"):
        raise Invalid(N_("The target has more * than the pattern."), field="target")
    if target == pattern:
        raise Invalid(N_("The target is the pattern itself. Name the model whose price shall count."), field="target")
    return pattern, target


def with_rule(rules: Iterable[Rule], pattern: str, target: str, since_ns: int) -> list[Rule]:
    """Rules with one more, in the order in which they are asked. Raises Invalid."""
    new = Rule(*_checked(pattern, target), since_ns)
    return sorted([new, *(rule for rule in rules if rule.pattern != new.pattern)], key=lambda rule: rule.weight)


def set_rule(tx: Transaction, pattern: str, target: str, *, actor: Actor) -> Rule:
    """From now on, models whose name fits `pattern` and that have no price of their own cost what `target` does.
    Raises Forbidden, Invalid."""
    actor.must_be_admin()
    pattern, target = _checked(pattern, target)
    known = {rule.pattern: rule.target for rule in listed(tx)}
    if pattern not in known and len(known) >= MAX_RULES:
        raise Invalid(N_("There are {most} rules, which is the most. End one first."), field="pattern", most=MAX_RULES)
    _add(tx, pattern, target, actor)
    audit.note(tx, actor, "price.rule", pattern, target=[known.get(pattern), target])
    return Rule(pattern, target, tx.now_ns)


def end_rule(tx: Transaction, pattern: str, *, actor: Actor) -> Rule:
    """From now on, the rule no longer counts; the one that ended. Raises Forbidden, NotFound."""
    actor.must_be_admin()
    known = {rule.pattern: rule for rule in listed(tx)}
    if pattern not in known:
        raise NotFound(N_("There is no rule for {pattern}."), pattern=pattern)
    _add(tx, pattern, None, actor)
    audit.note(tx, actor, "price.rule_end", pattern, target=[known[pattern].target, None])
    return known[pattern]


def _add(tx: Transaction, pattern: str, target: str | None, actor: Actor) -> None:
    tx.session.add(PriceRule(pattern=pattern, target=target, operator_id=actor.account_id, created_at_ns=tx.now_ns))
    tx.session.flush()


_RULES = "SELECT pattern, target, created_at_ns FROM price_rule WHERE created_at_ns <= ? ORDER BY id"


def listed(tx: Transaction, at_ns: int | None = None) -> list[Rule]:
    """The rules that count at a moment (now, without one), in the order in which they are asked."""
    at = tx.now_ns if at_ns is None else at_ns
    newest = {pattern: (target, since_ns) for pattern, target, since_ns in tx.rows(_RULES, (at,))}
    rules = [Rule(pattern, target, since_ns) for pattern, (target, since_ns) in newest.items() if target is not None]
    return sorted(rules, key=lambda rule: rule.weight)


def targets(rules: Iterable[Rule], model: str) -> Iterator[tuple[Rule, str]]:
    """The rules that fit a name, and the models that they name."""
    for rule in rules:
        target = rule.applied_to(model)
        if target and target != model:
            yield rule, target
