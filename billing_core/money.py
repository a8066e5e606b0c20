"""Money and prices, exact: 毫 (hao) are integers, 1 元 (yuan) = 10 000 毫; prices are decimals of at most six places.

A price is kept as an integer of 10⁻⁶ 元 per million tokens ("micro"), so that no database and no float can round it.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeAlias

from .errors import Invalid
from .i18n import N_

Hao: TypeAlias = int
"""An amount in 毫."""
Micro: TypeAlias = int
"""A price in 10⁻⁶ 元 per million tokens."""
HAO_PER_YUAN = 10_000
MICRO_PER_YUAN = 1_000_000
MAX_HAO = 10**15
"""The largest amount that one entry moves: 10¹⁵ 毫 = 100 billion 元. A JSON number carries it exactly everywhere."""
MAX_PRICE_MICRO = 10**6 * MICRO_PER_YUAN
"""The highest price: a million 元 per million tokens."""

WHOLE = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
"""Digits, with thousands commas where they belong: 1,5 and 0,500 may well mean a fraction."""
_DECIMAL = re.compile(rf"[+-]?{WHOLE}(?:\.[0-9]+)?")


def _exact(value: object) -> Decimal | None:
    """`value` as a plain decimal number, or None. Text is digits with an optional sign, point and thousands commas."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, Decimal):
        return value if value.is_finite() and abs(value.adjusted()) < 40 else None
    if not isinstance(value, str):  # a float above all: it may be another number than was meant
        return None
    text = value.strip().replace("−", "-")
    return Decimal(text.replace(",", "")) if len(text) < 40 and _DECIMAL.fullmatch(text) else None


def _scaled(number: Decimal, scale: int) -> int | None:
    """`number × scale` as an integer, or None where it is not one."""
    numerator, denominator = number.as_integer_ratio()
    quotient, remainder = divmod(numerator * scale, denominator)
    return None if remainder else quotient


def parse_yuan(value: str | int | Decimal, *, field: str = "amount") -> Hao:
    """An amount in 元, as a person writes it ("1,234.5"), in 毫. Raises Invalid."""
    number = _exact(value)
    if number is None:
        raise Invalid(
            N_("“{value}” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."),
            field=field,
            value=value,
        )
    hao = _scaled(number, HAO_PER_YUAN)
    if hao is None:
        raise Invalid(
            N_("{value} 元 is finer than 0.0001 元. Use at most four decimal places."), field=field, value=value
        )
    return check_hao(hao, field=field)


def check_hao(hao: Hao, *, field: str = "amount") -> Hao:
    """`hao`, if one entry can move it. Raises Invalid."""
    if abs(hao) > MAX_HAO:
        raise Invalid(N_("The amount is too large. One entry moves at most 100,000,000,000 元."), field=field)
    return hao


def to_yuan(hao: Hao) -> Decimal:
    """毫 as an exact amount in 元, with four decimal places."""
    return Decimal(hao).scaleb(-4)


def format_yuan(hao: Hao, *, sign: bool = False, decimals: int = 2) -> str:
    """毫 in 元 for reading: "1,234.50", from `decimals` to four decimals; with `sign`, "+" where it is above 0."""
    whole, rest = divmod(abs(hao), HAO_PER_YUAN)
    digits = f"{rest:04d}"
    digits = digits[:decimals] + digits[decimals:].rstrip("0")
    prefix = "-" if hao < 0 else "+" if sign and hao > 0 else ""
    return f"{prefix}{whole:,}.{digits}"


def decimals_needed(amounts: Iterable[Hao]) -> int:
    """How many decimals a column of amounts in 毫 needs, to be written alike: two to four."""
    return max((len(f"{abs(hao) % HAO_PER_YUAN:04d}".rstrip("0")) for hao in amounts if hao % 100), default=2)


def parse_price(value: str | int | Decimal, *, field: str = "price") -> Micro:
    """A price in 元 per million tokens as an integer of 10⁻⁶ 元. Raises Invalid."""
    number = _exact(value)
    if number is None:
        raise Invalid(
            N_("“{value}” is not a price. Write it in 元 per million tokens, like 18 or 0.5."), field=field, value=value
        )
    if number < 0:
        raise Invalid(N_("A price can't be below 0. Use 0 for a free model."), field=field)
    micro = _scaled(number, MICRO_PER_YUAN)
    if micro is None:
        raise Invalid(N_("A price has at most six decimal places; {value} has more."), field=field, value=value)
    if micro > MAX_PRICE_MICRO:
        raise Invalid(N_("The price is too high. At most 1,000,000 元 per million tokens."), field=field)
    return micro


def price_yuan(micro: Micro) -> Decimal:
    """10⁻⁶ 元 as an exact price in 元, without trailing zeros."""
    number = Decimal(micro).scaleb(-6)
    return number.quantize(Decimal(1)) if number == number.to_integral_value() else number.normalize()


def format_price(micro: Micro) -> str:
    """A price in 元 per million tokens for reading: at least two decimals, thousands separated."""
    whole, rest = divmod(micro, MICRO_PER_YUAN)
    decimals = f"{rest:06d}"
    return f"{whole:,}.{decimals[:2] + decimals[2:].rstrip('0')}"
