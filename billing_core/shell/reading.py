"""logs and stats."""

from datetime import tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..glossary import DEBIT, TYPES
from ..i18n import N_, translate
from ..money import format_yuan, price_yuan
from .output import (
    Column,
    JsonOption,
    SinceOption,
    SomeUserId,
    UntilOption,
    ZoneOption,
    db,
    hao,
    hint,
    iso,
    language,
    moment,
    print_json,
    shown,
    table,
    zone,
)  # fmt: skip

if TYPE_CHECKING:
    from ..logs import Filters
    from ..stats import Period, Used


class EntryType(StrEnum):
    deduct = "deduct"
    precharge = "precharge"
    settle = "settle"
    refund = "refund"
    expire = "expire"
    recharge = "recharge"
    reversal = "reversal"


class Granularity(StrEnum):
    hour = "hour"
    day = "day"
    month = "month"


class By(StrEnum):
    model = "model"
    account = "account"


TypesOption = Annotated[
    list[EntryType] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        show_default=False,
        help="Only this type; more than once for several: deduct (a charge), precharge (held before a call), settle "
        "(its real cost), refund, expire (a hold given back by itself), recharge, reversal.",
    ),
]
ModelOption = Annotated[str, typer.Option(help="Only this model.", show_default=False)]
SearchOption = Annotated[str, typer.Option(help="Text in the remark.", show_default=False)]
DaysOption = Annotated[int, typer.Option(help="How many days, with --granularity day.")]
GranularityOption = Annotated[
    Granularity, typer.Option(help="hour: the last 24 hours; day: the last --days; month: the last 12 months.")
]
ByOption = Annotated[By, typer.Option(help="Who or what to divide it by.")]


def filters(
    user_id: str | None, tz: tzinfo, *, types: list[EntryType] | None = None, model: str = "", since: str | None = None,
    until: str | None = None, search: str = "",
) -> "Filters":  # fmt: skip
    from ..logs import Filters

    return Filters(
        user_id, moment(since, tz, field="since"), moment(until, tz, field="until", end=True), model,
        tuple(one.value for one in types or ()), search,
    )  # fmt: skip


def logs(
    user_id: SomeUserId = None,
    limit: Annotated[int, typer.Option(help="How many entries, 10000 at most; export has no such limit.")] = 50,
    types: TypesOption = None,
    model: ModelOption = "",
    since: SinceOption = None,
    until: UntilOption = None,
    search: SearchOption = "",
    timezone: ZoneOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest entries of the ledger."""
    from .. import logs
    from ..actors import SHELL

    tz = zone(timezone)
    wanted = filters(user_id, tz, types=types, model=model, since=since, until=until, search=search)
    rows = db().read(logs.page, wanted, actor=SHELL, limit=limit)
    if as_json:
        return print_json([_as_json(row, tz) for row in rows])
    if not rows:
        return hint(N_("No entry matches."))
    account = [] if user_id else [Column(N_("Account"), long=True)]
    table(
        [
            Column(N_("No."), right=True), Column(N_("Time")), *account, Column(N_("Type")),
            Column(N_("Model or remark"), long=True), Column(N_("Input"), right=True, wide=True),
            Column(N_("Cached"), right=True, wide=True), Column(N_("Output"), right=True, wide=True),
            Column(N_("Amount, 元"), right=True), Column(N_("Balance, 元"), right=True, wide=not user_id),
        ],
        (
            [
                row.id, shown(row.created_at_ns, tz), *([] if user_id else [row.user_id]), _type(row), _about(row),
                _count(row.prompt_tokens), _count(row.cached_tokens), _count(row.completion_tokens),
                format_yuan(row.amount, sign=True), format_yuan(row.balance_after),
            ]
            for row in rows
        ),
    )  # fmt: skip


def _type(row: Any) -> str:
    return translate(DEBIT if row.type == "recharge" and row.amount < 0 else TYPES[row.type], language())


def _count(tokens: int | None) -> str:
    return "" if tokens is None else f"{tokens:,}"


def _about(row: Any) -> str:
    """What a line is about: the model, the entry that it belongs to, the remark."""
    other = row.precharge_id or row.reverses_id or row.reprices_id
    parts = [row.model or "", f"→ {other}" if other else "", row.remark]
    if row.reversed_by:
        parts.append(translate(N_("(reversed by {id})"), language(), id=row.reversed_by))
    return " ".join(part for part in parts if part)


def _as_json(row: Any, tz: tzinfo) -> dict[str, Any]:
    prices = {
        f"{part}_price": None if micro is None else price_yuan(micro)
        for part in ("input", "output", "cache_read", "cache_write")
        for micro in (getattr(row, f"price_{part}"),)
    }
    same = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens",
            "precharge_id", "reverses_id", "reversed_by", "operator_id", "operator_name", "remark")  # fmt: skip
    return {
        "id": row.id, "created_at": iso(row.created_at_ns, tz), "created_at_ns": row.created_at_ns,
        "user_id": row.user_id, "name": row.name, "type": row.type, "model_id": row.model,
        **hao("cost", row.cost), **hao("amount", row.amount), **hao("balance_after", row.balance_after),
        **{name: getattr(row, name) for name in same}, **prices, "price_source": row.price_source,
    }  # fmt: skip


LABELS = {"hour": "%m-%d %H:00", "day": "%Y-%m-%d", "month": "%Y-%m"}


def used(
    user_id: str | None, days: int, granularity: Granularity, timezone: str | None, by: By
) -> "tuple[list[Period], list[Used]]":
    from .. import stats
    from ..actors import SHELL

    periods = last_periods(days, granularity, timezone)
    return periods, db().read(stats.usage, periods, actor=SHELL, user_id=user_id, by=by.value)


def last_periods(days: int, granularity: Granularity, timezone: str | None) -> "list[Period]":
    from .. import stats

    return stats.last_periods(db().clock(), granularity.value, zone(timezone), days)  # type: ignore[arg-type]


def stats(
    user_id: SomeUserId = None,
    days: DaysOption = 7,
    granularity: GranularityOption = Granularity.day,
    timezone: ZoneOption = None,
    by: ByOption = By.model,
    as_json: JsonOption = False,
) -> None:
    """Show where the money went, by period and by model or account."""
    from .. import stats

    periods, found = used(user_id, days, granularity, timezone, by)
    totals = stats.totals(found)
    whole = sum(one.cost for one in totals)
    apart = stats.by_period(periods, found)
    sums = [(sum(one.cost for one in some), sum(one.calls for one in some)) for some in apart]
    name = "model_id" if by is By.model else "user_id"
    if as_json:
        return print_json(
            {
                "periods": [
                    {
                        "start": period.start.isoformat(), **hao("cost", cost), "calls": calls,
                        f"by_{by.value}": {one.name: hao("cost", one.cost) for one in some},
                    }
                    for period, (cost, calls), some in zip(periods, sums, apart, strict=True)
                ],
                "totals": [
                    {name: one.name, **hao("cost", one.cost), **{part: getattr(one, part) for part in stats.SUMS[1:]}}
                    for one in totals
                ],
            }
        )  # fmt: skip
    top = max(*(cost for cost, _ in sums), 1)
    table(
        [Column(N_("Period")), Column(N_("Cost, 元"), right=True), Column(N_("Calls"), right=True), Column("")],
        (
            [
                period.start.strftime(LABELS[granularity.value]),
                format_yuan(cost),
                f"{calls:,}",
                "▇" * round(cost * 24 / top),
            ]
            for period, (cost, calls) in zip(periods, sums, strict=True)
        ),
    )
    table(
        [
            Column(N_("Model") if by is By.model else N_("Account"), long=True), Column(N_("Cost, 元"), right=True),
            Column(N_("Share"), right=True), Column(N_("Calls"), right=True), Column(N_("Tokens"), right=True),
        ],
        (
            [one.name, format_yuan(one.cost), f"{one.cost * 1000 // (whole or 1) / 10:.1f} %", f"{one.calls:,}", f"{one.tokens:,}"]
            for one in totals
        ),
    )  # fmt: skip
