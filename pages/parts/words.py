"""Words and figures as the viewer reads them: translated, in the viewer's zone, money in 元."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

import streamlit as st
from babel import Locale, UnknownLocaleError
from babel.dates import format_datetime, format_interval, format_skeleton, format_timedelta, get_timezone_name
from babel.numbers import format_decimal, format_percent
from dateutil.relativedelta import relativedelta

from billing_core.errors import BillingError
from billing_core.glossary import ROLES, SOURCES, STATUSES, TYPES
from billing_core.i18n import N_, ntranslate, translate
from billing_core.money import format_price, format_yuan
from billing_core.stats import Period, from_ns

__all__ = [
    "N_",
    "ROLES",
    "SOURCES",
    "STATUSES",
    "TYPES",
    "_",
    "ago",
    "count",
    "language",
    "listed",
    "locale",
    "moment",
    "ngettext",
    "percent",
    "period_label",
    "price",
    "yuan",
]


def language() -> str:
    return st.session_state.get("language", "en")


def _(message: str, **params: object) -> str:
    """The message in the viewer's language, with its `{names}` filled in."""
    return translate(message, language(), **params)


def ngettext(one: str, many: str, n: int, **params: object) -> str:
    """The message for a number of things, `{n}` in it being the number."""
    return ntranslate(one, many, n, language(), n=count(n), **params)


def listed(parts: Iterable[str]) -> str:
    """One after the other, set apart as the language does it."""
    return _(", ").join(parts)


def sentence(error: BillingError) -> str:
    return error.sentence(language())


def locale() -> Locale:
    """Babel's locale: the browser's own variant of the language, where it is that language."""
    return _locale(st.context.locale or "", language())


@lru_cache(maxsize=256)
def _locale(browsers: str, ours: str) -> Locale:
    try:
        browser = Locale.parse(browsers, sep="-")
    except (ValueError, UnknownLocaleError):
        browser = None
    mine = Locale.parse(ours)
    return browser if browser and browser.language == mine.language else mine


def yuan(hao: int | None, *, sign: bool = False, decimals: int = 2) -> str:
    """毫 as an amount in 元, without the unit, with at least so many decimals; nothing for None."""
    return "" if hao is None else format_yuan(hao, sign=sign, decimals=decimals)


def price(micro: int | None) -> str:
    """10⁻⁶ 元 as a price in 元 per million tokens."""
    return "" if micro is None else format_price(micro)


def count(number: int | None) -> str:
    return "" if number is None else str(format_decimal(number, locale=locale()))


def percent(part: int, whole: int) -> str:
    return str(format_percent(Decimal(part) / whole, "#,##0.0%", locale=locale())) if whole else "–"


def moment(ns: int, tz: ZoneInfo, *, full: bool = False, this_year: int | None = None) -> str:
    """A moment in the viewer's zone; `full` with seconds and the zone, and without its year where that is `this_year`."""
    at = from_ns(ns, tz)
    if full:
        return str(format_datetime(at, "long", locale=locale()))
    return _day_and_time(at, "MMMd" if at.year == this_year else "yMMMd")


def ago(ns: int, now_ns: int) -> str:
    """How long ago a moment was: “3 hours ago”."""
    return str(
        format_timedelta(timedelta(seconds=min((ns - now_ns) // 10**9, -1)), add_direction=True, locale=locale())
    )


def _day_and_time(at: datetime, day: str) -> str:
    """A day, by Babel's skeleton, and a time, put together as the language does."""
    written = (format_skeleton(skeleton, at, locale=locale()) for skeleton in ("Hm", day))
    return str(locale().datetime_formats["medium"]).format(*written)


def zone_name(tz: ZoneInfo) -> str:
    """The zone by its IANA name and as people call it."""
    return f"{tz.key} ({get_timezone_name(tz, locale=locale())})" if tz.key != "UTC" else "UTC"


def period_label(period: Period, granularity: str) -> str:
    """A period's name, told apart from every other one's: of two hours called the same, the later says its offset; a part
    of a month says its days."""
    if granularity == "hour":
        return _day_and_time(period.start, "MMMd") + (f" ({period.start:%z})" if period.start.fold else "")
    last = from_ns(period.end_ns - 1, period.start.tzinfo or UTC).date()
    if granularity == "month" and (period.start.day != 1 or last != last + relativedelta(day=31)):
        return str(format_interval(period.start.date(), last, "yMMMd", locale=locale()))
    return str(format_skeleton({"day": "yMMMEd", "month": "yMMMM"}[granularity], period.start, locale=locale()))
