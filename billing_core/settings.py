"""What an admin sets for everybody, with what counts until then. Values are text; amounts and rates are decimals."""

import json
from collections.abc import Callable, Iterable, Mapping

from . import audit
from .actors import Actor
from .database import Transaction
from .errors import Invalid, NotFound
from .i18n import N_
from .models import Setting
from .money import parse_price

DEFAULTS = {
    "usd_rate": "7.2",  # 元 for a US dollar, for the built-in prices
    "default_input_price": "18",  # 元 per million tokens, for models that nobody knows
    "default_output_price": "72",
    "reversals_count_in": "call",  # the stats period in which a reversal counts: that of the call, or of the reversal
    "backup_every_hours": "0",  # 0: no backups by themselves
    "backup_keep": "7",
    "backup_folder": "",  # empty: backups/ beside the database's file
}


def read(tx: Transaction) -> dict[str, str]:
    """Every setting's value."""
    return DEFAULTS | {name: value for name, value in tx.rows("SELECT name, value FROM setting") if name in DEFAULTS}


CHANGED = "FROM audit WHERE action = 'setting.change'"
"""SQL: where the audit log says what was changed, and when (`at_ns`)."""


Changed = tuple[int, str, str]
"""When a setting was changed, its name, and its value before."""


def changes(tx: Transaction) -> list[Changed]:
    """Every change of a setting, newest first, as the audit log has noted it."""
    rows = tx.rows(f"SELECT at_ns, subject, detail {CHANGED} ORDER BY at_ns DESC, id DESC")
    return [(at_ns, name, json.loads(detail)["value"][0]) for at_ns, name, detail in rows if name in DEFAULTS]


def as_of(values: Mapping[str, str], changed: Iterable[Changed], at_ns: int) -> dict[str, str]:
    """The values at a moment that has passed, of those that are set now."""
    return {**values, **{name: value for at, name, value in changed if at > at_ns}}


def read_at(tx: Transaction, at_ns: int) -> dict[str, str]:
    """Every setting's value at a moment."""
    return as_of(read(tx), changes(tx), at_ns)


def change(tx: Transaction, name: str, value: str, *, actor: Actor) -> None:
    """Set one. Raises Forbidden, Invalid, NotFound."""
    actor.must_be_admin()
    if name not in DEFAULTS:
        raise NotFound(
            N_("There is no setting {name}. There are: {names}."), name=name, names=", ".join(sorted(DEFAULTS))
        )
    value = _CHECKS[name](name, value.strip())
    before = read(tx)[name]
    if value != before:
        tx.session.merge(Setting(name=name, value=value))
        audit.note(tx, actor, "setting.change", name, value=[before, value])


def can_be(name: str, value: str) -> bool:
    """Whether `change` could have set it so."""
    try:
        return _CHECKS[name](name, value) == value
    except Invalid:
        return False


def _price(name: str, value: str) -> str:
    micro = parse_price(value, field=name)
    if name == "usd_rate" and not 0 < micro <= MAX_USD_RATE_MICRO:
        raise Invalid(N_("The rate must be above 0 and at most 1,000."), field=name)
    return value.replace(",", "")


MAX_USD_RATE_MICRO = 1000 * 1_000_000
"""With it, no built-in price is more than a price can be."""


def _period(name: str, value: str) -> str:
    if value not in ("call", "reversal"):
        raise Invalid(N_("{name} is call or reversal."), field=name, name=name)
    return value


def _whole(least: int, most: int) -> Callable[[str, str], str]:
    def check(name: str, value: str) -> str:
        if not (value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most):
            raise Invalid(
                N_("{name} is a whole number from {least} to {most}."), field=name, name=name, least=least, most=most
            )
        return str(int(value))

    return check


def _folder(name: str, value: str) -> str:
    if not value.isprintable() or len(value) > 1000:
        raise Invalid(N_("{name} is the path of a folder."), field=name, name=name)
    return value


_CHECKS: dict[str, Callable[[str, str], str]] = {
    "usd_rate": _price,
    "default_input_price": _price,
    "default_output_price": _price,
    "reversals_count_in": _period,
    "backup_every_hours": _whole(0, 8760),
    "backup_keep": _whole(1, 1000),
    "backup_folder": _folder,
}
