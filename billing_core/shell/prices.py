"""price … and setting …"""

import json
import re
from datetime import tzinfo
from typing import Annotated, Any

import typer

from ..errors import Invalid
from ..glossary import SOURCES
from ..i18n import N_, translate
from ..money import format_price, parse_price
from ..rates import Tier
from .help import Shell
from .output import (
    Column,
    JsonOption,
    ZoneOption,
    db,
    hint,
    iso,
    language,
    moment,
    print_json,
    record,
    say,
    shown,
    table,
    word,
    zone,
)  # fmt: skip
from .spending import WithAmounts

price = Shell(name="price", help="What a model costs, in 元 per million tokens.")
rule = Shell(name="rule", help="Which model's price counts for names without one.")
setting = Shell(name="setting", help="What is set for everybody.")

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Like openai/gpt-4o.", show_default=False)]
PARTS = ("input", "output", "cache_read", "cache_write")
_COLUMNS = [
    Column(N_("Model"), long=True), Column(N_("Input"), right=True), Column(N_("Output"), right=True),
    Column(N_("Cache read"), right=True), Column(N_("Cache write"), right=True), Column(N_("From")),
    Column(N_("Further"), long=True),
]  # fmt: skip


def _cells(one: Any, tz: tzinfo) -> list[Any]:
    if one.input is None:
        return [one.model, translate(N_("retired"), language()), "", "", "", shown(one.valid_from_ns, tz), ""]
    amounts = ["" if each is None else format_price(each) for each in (getattr(one, part) for part in PARTS)]
    further = [translate(N_("withdrawn"), language())] if one.withdrawn else []
    further += _further(one.more).get("further", {})
    return [one.model, *amounts, shown(one.valid_from_ns, tz), ", ".join(further)]


def _as_json(one: Any, tz: tzinfo) -> dict[str, Any]:
    from .. import pricing

    return {
        "model_id": one.model, **pricing.as_yuan(one), "valid_from": iso(one.valid_from_ns, tz), "price_id": one.price_id,
        **_further(one.more), **({"withdrawn": True} if one.withdrawn else {}),
    }  # fmt: skip


def _further(more: Any) -> dict[str, Any]:
    """The components beyond the four, in 10⁻⁶ 元, where there are any."""
    kept = more.as_json() if more else None
    return {"further": json.loads(kept)} if kept else {}


@price.command("list")
def list_(timezone: ZoneOption = None, as_json: JsonOption = False) -> None:
    """List the prices that are set, then those that are planned."""
    from .. import pricing

    tz = zone(timezone)
    now, later = db().read(lambda tx: (pricing.listed(tx), pricing.planned(tx)))
    if as_json:
        return print_json([_as_json(one, tz) | {"planned": one in later} for one in [*now, *later]])
    if not now and not later:
        return hint(N_("No price is set: the built-in ones count. Set one: price set openai/gpt-4o 18 72"))
    table(_COLUMNS, (_cells(one, tz) for one in [*now, *later]))


@price.command("show")
def show(model: ModelArgument, timezone: ZoneOption = None, as_json: JsonOption = False) -> None:
    """Show the price that counts for a model now, and where it comes from."""
    from .. import pricing

    tz = zone(timezone)
    rates = db().read(pricing.in_force, pricing.clean_model(model))
    if as_json:
        since = None if rates.price_id is None else iso(rates.valid_from_ns, tz)
        decided = {"rule": rates.rule, "priced_as": rates.priced_as} if rates.rule else {}
        return print_json(
            {
                "model_id": model, **pricing.as_yuan(rates), "source": rates.source, "valid_from": since, **decided,
                **_further(rates.more),
            }
        )  # fmt: skip
    record(
        [
            (N_("Model"), model), (N_("Input"), format_price(rates.input)), (N_("Output"), format_price(rates.output)),
            (N_("Cache read"), format_price(rates.cache_read)), (N_("Cache write"), format_price(rates.cache_write)),
            (N_("Source"), word(SOURCES, rates.source)),
            *([(N_("By the rule"), rates.rule), (N_("Priced as"), rates.priced_as)] if rates.rule else []),
            *([(N_("Further, 10⁻⁶ 元"), rates.more.as_json())] if rates.more else []),
        ]
    )  # fmt: skip


_Component = Annotated[
    str | None,
    typer.Option(
        metavar="元", help="Per million tokens; else the same as the kind they are part of.", show_default=False
    ),
]


def _named(text: str, field: str) -> tuple[str, int]:
    """`web_search=0.07`, as a name and 10⁻⁶."""
    name, _equals, amount = text.partition("=")
    return name.strip(), parse_price(amount, field=field)


def _tier(text: str) -> Tier:
    """`200000:36,108` or `200000:36,108,3.6,45`."""
    above, _colon, prices = text.partition(":")
    amounts = [parse_price(one, field="tiers") for one in prices.split(",")]
    if not re.fullmatch("[0-9]{1,10}", above.strip()) or not 2 <= len(amounts) <= 4:
        raise Invalid(N_("“{text}” is no tier. Write it like 200000:36,108."), field="tiers", text=text)
    return Tier(int(above), *amounts)


@price.command("set", cls=WithAmounts)
def set_(
    model: ModelArgument,
    input: Annotated[str, typer.Argument(metavar="INPUT", help="元 per million tokens of input.", show_default=False)],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="元 per million tokens of output.", show_default=False)
    ],
    cache_read: Annotated[
        str | None,
        typer.Option(metavar="元", help="For input from a cache; else the same as INPUT.", show_default=False),
    ] = None,
    cache_write: Annotated[
        str | None, typer.Option(metavar="元", help="For input written to a cache; else the same.", show_default=False)
    ] = None,
    cache_write_1h: _Component = None,
    audio_input: _Component = None,
    image_input: _Component = None,
    audio_output: _Component = None,
    image_output: _Component = None,
    call: Annotated[str | None, typer.Option(metavar="元", help="For each call.", show_default=False)] = None,
    tool: Annotated[
        list[str] | None, typer.Option(metavar="NAME=元", help="For each call of a tool, like web_search=0.07.")
    ] = None,
    tier: Annotated[
        list[str] | None,
        typer.Option(metavar="ABOVE:IN,OUT[,READ[,WRITE]]", help="For prompts of more tokens, like 200000:36,108."),
    ] = None,
    service_tier: Annotated[
        list[str] | None, typer.Option(metavar="NAME=MULTIPLE", help="What tokens cost in it, like batch=0.5.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="From a moment to come; else from now.", show_default=False),
    ] = None,
    timezone: ZoneOption = None,
) -> None:
    """Set a model's price from now, or a later moment, on. What was charged stays as it is."""
    from .. import pricing
    from ..actors import SHELL
    from ..rates import More

    def micro(text: str | None, field: str) -> int | None:
        return None if text is None else parse_price(text, field=field)

    amounts = [
        micro(text, f"{part}_price") for part, text in zip(PARTS, (input, output, cache_read, cache_write), strict=True)
    ]
    components = {
        "cache_write_1h": cache_write_1h, "audio_input": audio_input, "image_input": image_input,
        "audio_output": audio_output, "image_output": image_output,
    }  # fmt: skip
    more = More(
        **{part: micro(text, f"{part}_price") for part, text in components.items()},
        call=micro(call, "call_price") or 0,
        tools=tuple(sorted(_named(one, "tools") for one in tool or [])),
        tiers=tuple(sorted((_tier(one) for one in tier or []), key=lambda one: one.above)),
        service_tiers=tuple(sorted(_named(one, "service_tiers") for one in service_tier or [])),
    )
    since = moment(start, zone(timezone), field="valid_from")
    db().write(
        pricing.set_price, model, amounts[0], amounts[1], actor=SHELL, cache_read=amounts[2], cache_write=amounts[3],
        more=None if more == More() else more, valid_from_ns=since,
    )  # fmt: skip
    say(
        N_("{model}: {input} 元 for input, {output} 元 for output, per million tokens."),
        model=model, input=format_price(amounts[0] or 0), output=format_price(amounts[1] or 0),
    )  # fmt: skip


@price.command("retire")
def retire(model: ModelArgument) -> None:
    """End a set price: the built-in one counts again."""
    from .. import pricing
    from ..actors import SHELL

    db().write(pricing.retire, model, actor=SHELL)
    say(N_("The set price of {model} has ended; the built-in one counts."), model=model)


@price.command("withdraw")
def withdraw(number: Annotated[int, typer.Argument(metavar="NUMBER", help="As “price list --json” has it.")]) -> None:
    """Take a planned price back before it starts: it never counts."""
    from .. import pricing
    from ..actors import SHELL

    done = db().write(pricing.withdraw, number, actor=SHELL)
    say(N_("The planned price of {model} is withdrawn: it never counts."), model=done.model)


@rule.command("set")
def set_rule(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Like “openrouter/*”.", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Like “*”, or a model.", show_default=False)],
) -> None:
    """Let models whose name fits, and that have no price of their own, cost what another one does."""
    from .. import price_rules
    from ..actors import SHELL

    done = db().write(price_rules.set_rule, pattern, target, actor=SHELL)
    say(N_("{pattern} costs what {target} does, from now on."), pattern=done.pattern, target=done.target)


@rule.command("end")
def end_rule(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="As “rule list” has it.", show_default=False)],
) -> None:
    """End a rule."""
    from .. import price_rules
    from ..actors import SHELL

    done = db().write(price_rules.end_rule, pattern, actor=SHELL)
    say(N_("The rule for {pattern} no longer counts."), pattern=done.pattern)


@rule.command("list")
def list_rules(timezone: ZoneOption = None, as_json: JsonOption = False) -> None:
    """List the rules, the first asked first."""
    from .. import price_rules

    tz = zone(timezone)
    found = db().read(price_rules.listed)
    if as_json:
        return print_json(
            [{"pattern": one.pattern, "target": one.target, "since": iso(one.since_ns, tz)} for one in found]
        )
    if not found:
        return hint(N_("No rule yet. Set one: rule set 'openrouter/*' '*'"))
    columns = [Column(N_("Pattern"), long=True), Column(N_("Costs what … costs"), long=True), Column(N_("Since"))]
    table(columns, ([one.pattern, one.target, shown(one.since_ns, tz)] for one in found))


@price.command("history")
def history(model: ModelArgument, timezone: ZoneOption = None, as_json: JsonOption = False) -> None:
    """Show every price that was set for a model, newest first."""
    from .. import pricing

    tz = zone(timezone)
    found = db().read(pricing.history, pricing.clean_model(model))
    if as_json:
        return print_json([_as_json(one, tz) for one in found])
    if not found:
        return hint(N_("No price was ever set for {model}."), model=model)
    table(_COLUMNS, (_cells(one, tz) for one in found))


@setting.command("list")
def list_settings(as_json: JsonOption = False) -> None:
    """List the settings."""
    from .. import settings

    values = db().read(settings.read)
    if as_json:
        return print_json(values)
    table(
        [Column(N_("Setting")), Column(N_("Value"), right=True)],
        ([name, value] for name, value in sorted(values.items())),
    )


@setting.command("set", cls=WithAmounts)
def set_setting(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As “setting list” names it.", show_default=False)],
    value: Annotated[str, typer.Argument(metavar="VALUE", show_default=False)],
) -> None:
    """Change a setting."""
    from .. import settings
    from ..actors import SHELL

    db().write(settings.change, name, value, actor=SHELL)
    say(N_("{name} is {value}."), name=name, value=value)
