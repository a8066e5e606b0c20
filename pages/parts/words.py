"""Words and figures as the viewer reads them: translated, in the viewer's zone, money in 元."""

from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

import streamlit as st
from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_skeleton, get_timezone_name
from babel.numbers import format_decimal, format_percent

from billing_core.errors import BillingError
from billing_core.i18n import N_, ntranslate, translate
from billing_core.money import format_price, format_yuan
from billing_core.stats import Period, from_ns

__all__ = [
    "N_",
    "_",
    "count",
    "day",
    "language",
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


def ngettext(one: str, many: str, n: int) -> str:
    """The message for a number of things, `{n}` in it being the number."""
    return ntranslate(one, many, n, language(), n=count(n))


def sentence(error: BillingError) -> str:
    return error.sentence(language())


def locale() -> Locale:
    """Babel's locale: the browser's own variant of the language, where it is that language."""
    try:
        browser = Locale.parse(st.context.locale or "", sep="-")
    except (ValueError, UnknownLocaleError):
        browser = None
    ours = Locale.parse(language())
    return browser if browser and browser.language == ours.language else ours


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


def moment(ns: int, tz: ZoneInfo, *, full: bool = False) -> str:
    """A moment in the viewer's zone; `full` with seconds and the zone."""
    return str(format_datetime(from_ns(ns, tz), "long" if full else "short", locale=locale()))


def day(value: date) -> str:
    return str(format_date(value, "medium", locale=locale()))


def zone_name(tz: ZoneInfo) -> str:
    """The zone by its IANA name and as people call it."""
    return f"{tz.key} ({get_timezone_name(tz, locale=locale())})" if tz.key != "UTC" else "UTC"


_SKELETONS = {"hour": "MMMdHm", "day": "yMMMEd", "month": "yMMMM"}


def period_label(period: Period, granularity: str) -> str:
    """A period's name, told apart from every other one's."""
    text = str(format_skeleton(_SKELETONS[granularity], period.start, locale=locale()))
    return f"{text} ({period.start:%z})" if granularity == "hour" and period.start.fold else text


TYPES = {
    "deduct": N_("Charge"),
    "precharge": N_("Held"),
    "settle": N_("Settled"),
    "refund": N_("Refund"),
    "expire": N_("Hold expired"),
    "recharge": N_("Recharge"),
    "reversal": N_("Reversal"),
}
STATUSES = {"active": N_("Active"), "frozen": N_("Frozen")}
ROLES = {"member": N_("Member"), "admin": N_("Admin")}
SOURCES = {"database": N_("Set here"), "catalogue": N_("Built in"), "default": N_("Default")}
