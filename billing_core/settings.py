"""What an admin sets for everybody, with what counts until then. Amounts and rates are decimals written as text."""

from sqlalchemy import text

from .database import Transaction
from .errors import Invalid, NotFound
from .i18n import N_
from .models import Setting
from .money import parse_price

DEFAULTS = {
    "usd_rate": "7.2",  # 元 for a US dollar, for the built-in prices
    "default_input_price": "18",  # 元 per million tokens, for models that nobody knows
    "default_output_price": "72",
}


_ALL = text("SELECT name, value FROM setting")


def read(tx: Transaction) -> dict[str, str]:
    """Every setting's value."""
    return DEFAULTS | {name: value for name, value in tx.connection().execute(_ALL) if name in DEFAULTS}


def change(tx: Transaction, name: str, value: str) -> None:
    """Set one. Every setting so far is a price or a rate: above or equal 0, of at most six places. Raises Invalid."""
    if name not in DEFAULTS:
        raise NotFound(
            N_("There is no setting {name}. There are: {names}."), name=name, names=", ".join(sorted(DEFAULTS))
        )
    if parse_price(value, field=name) == 0 and name == "usd_rate":
        raise Invalid(N_("The rate must be above 0."), field=name)
    tx.merge(Setting(name=name, value=value.strip().replace(",", "")))
