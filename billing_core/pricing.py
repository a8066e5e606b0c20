"""Prices: the one in force at a moment, their history, and what counts for models that have none.

A price counts from `valid_from_ns` until the next one of its model. Nothing that was charged changes with it. A call of
the past, booked late, is charged at the price of its time; where the model's first price came only later, at that one.

Which price applies: the model's own, else that of the model which a rule names (see price_rules), else the built-in
catalogue's, else the default.

A price is called `Prices` as somebody writes it, `Rates` as it counts (both in rates.py), `SetPrice` as a step of a model's
history, `Current` as a line of the list of all models, and `Listed` as a catalogue has it, in its own currency
(catalogues.py).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

from sqlalchemy import func
from sqlmodel import col, select

from . import audit, price_rules, settings
from .actors import Actor
from .catalogues import built_in_rates
from .database import Transaction, is_id, marks
from .errors import Conflict, Invalid, NotFound
from .i18n import N_
from .models import PRICE_CHANGES, Model, Price, PriceChange, PriceWithdrawal
from .money import Micro, parse_price, price_yuan
from .price_rules import Rule
from .rates import PARTS, More, Prices, Rates, as_called, as_rates, check_price, more_from
from .tokens import Tokens

A = TypeVarTuple("A")
T = TypeVar("T")
HOUR_NS = 3600 * 10**9
PAST_SECONDS = 60
"""How far back `valid_from` may lie: as much as clocks differ."""


def clean_model(name: str) -> str:
    """A model's name as it is kept. Raises Invalid."""
    name = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise Invalid(N_("A model's name has 1 to 200 characters, like openai/gpt-4o."), field="model_id")
    return name


def known_number(tx: Transaction, name: str) -> int | None:
    """The number of the model called `name`, None where nothing has that name."""
    rows = tx.rows("SELECT id FROM model WHERE name = ?", (name,)) if name.isprintable() else []
    return rows[0][0] if rows else None


def model_number(tx: Transaction, name: str) -> int:
    """The number of the model called `name`, made where it is new."""
    found = known_number(tx, name)
    if found is None:
        ((found,),) = tx.rows("INSERT INTO model (name) VALUES (?) RETURNING id", (name,))
    return found


def rates_of(row: Any) -> Rates | None:
    """A row of `price` as it counts; None where it ends a set price. Raises ValueError, TypeError, AttributeError or Invalid
    for what can't have been written by the app."""
    if row.input is None or row.output is None:
        return None
    origin = json.loads(row.origin) if row.origin else {}
    rates = as_rates(
        Prices(row.input, row.output, row.cache_read, row.cache_write, more_from(row.more)),
        origin.get("source", row.source),
    )
    return replace(
        rates, price_id=row.id, valid_from_ns=row.valid_from_ns, rule=origin.get("rule"), priced_as=origin.get("as")
    )


def in_force(tx: Transaction, model: str, at_ns: int | None = None) -> Rates:
    """What counts for a model at a moment (now, without one)."""
    return InForce(tx).at(model, tx.now_ns if at_ns is None else at_ns)


class _Row(NamedTuple):
    """What a row of `price` says of the price itself."""

    input: Micro | None
    output: Micro | None
    cache_read: Micro | None
    cache_write: Micro | None
    source: str
    id: int
    valid_from_ns: int
    more: str | None
    origin: str | None


_COLUMNS = ", ".join(_Row._fields)
_SET = (
    f"SELECT {_COLUMNS} FROM price WHERE model_id = ? AND source = 'database' AND valid_from_ns <= ? "
    "AND NOT EXISTS (SELECT 1 FROM price_withdrawal w WHERE w.price_id = price.id) "
)
_PRICE_AT = f"{_SET} ORDER BY valid_from_ns DESC, id DESC LIMIT 1"
_FIRST_PRICE = f"{_SET} ORDER BY valid_from_ns, id DESC LIMIT 1"


def _own(tx: Transaction, model: str, at_ns: int) -> Rates | None:
    number = known_number(tx, model)
    return None if number is None else _set_price(tx, number, at_ns)


def _set_price(tx: Transaction, number: int, at_ns: int) -> Rates | None:
    row = _set_row(tx, number, at_ns)
    if row is None and at_ns < tx.now_ns:
        row = _set_row(tx, number, tx.now_ns, _FIRST_PRICE)
    return _rates_of(row) if row else None


def _set_row(tx: Transaction, number: int, at_ns: int, query: str = _PRICE_AT) -> _Row | None:
    rows = tx.rows(query, (number, at_ns))
    return _Row(*rows[0]) if rows else None


@lru_cache(maxsize=4096)
def _rates_of(row: _Row) -> Rates | None:
    """`rates_of`: a price's row never changes."""
    return rates_of(row)


def without_own(tx: Transaction, model: str, at_ns: int) -> Rates:
    """What counts for a model that has no price of its own: by a rule, from the catalogue, or the default."""
    return _without_own(tx, settings.read_at(tx, at_ns), model, at_ns)


def _without_own(tx: Transaction, known: Mapping[str, str], model: str, at_ns: int) -> Rates:
    return _by_rule(tx, known, price_rules.listed(tx, at_ns), model, at_ns) or _builtin(known, model)


MAX_HOPS = 5
"""How many rules may lead from one to the next."""


def _by_rule(
    tx: Transaction, known: Mapping[str, str], rules: Sequence[Rule], model: str, at_ns: int, hops: int = MAX_HOPS
) -> Rates | None:
    for rule, target in price_rules.targets(rules, model) if hops else ():
        found = _own(tx, target, at_ns) or _by_rule(tx, known, rules, target, at_ns, hops - 1)
        found = found or built_in_rates(target, Decimal(known["usd_rate"]))
        if found:
            return replace(
                found, price_id=None, valid_from_ns=None, rule=rule.pattern, priced_as=found.priced_as or target
            )
    return None


_KEPT_COLUMNS = ("model_id", "source", *PARTS, "more", "origin")
_SAME_ROW = (
    f"SELECT {_COLUMNS} FROM price WHERE valid_from_ns = 0 AND model_id = ? AND source = ? AND input = ? AND output = ? "
    "AND coalesce(cache_read, -1) = ? AND coalesce(cache_write, -1) = ? AND coalesce(more, '') = ? "
    "AND coalesce(origin, '') = ? LIMIT 1"
)
_KEEP_ROW = (
    f"INSERT INTO price ({', '.join(_KEPT_COLUMNS)}, valid_from_ns, created_at_ns) "
    f"VALUES ({marks(len(_KEPT_COLUMNS))}, 0, ?) RETURNING {_COLUMNS}"
)


VERSION = "SELECT version FROM price_version", ()
"""What InForce asks first; see models.PriceVersion."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What one version of the prices says, between two moments at which any of them starts."""

    version: int
    from_ns: int
    until_ns: int
    settings: Mapping[str, str]
    usd_rate: Micro
    models: dict[str, tuple[int, Rates]]
    """By name, the number and the price in force, each noted when it is first asked for."""


_FROM_UNTIL = f"""
SELECT max((SELECT coalesce(max(valid_from_ns), 0) FROM price WHERE source = 'database' AND valid_from_ns <= ?),
    (SELECT coalesce(max(created_at_ns), 0) FROM price_rule WHERE created_at_ns <= ?),
    (SELECT coalesce(max(at_ns), 0) {settings.CHANGED} AND at_ns <= ?)),
    min((SELECT coalesce(min(valid_from_ns), {2**63 - 1}) FROM price WHERE source = 'database' AND valid_from_ns > ?),
    (SELECT coalesce(min(created_at_ns), {2**63 - 1}) FROM price_rule WHERE created_at_ns > ?))
"""


def _known(tx: Transaction, version: int) -> _Known:
    known: _Known | None = tx.kept.get("prices")
    if known is None or known.version != version or not known.from_ns <= tx.now_ns < known.until_ns:
        query = _FROM_UNTIL if tx.is_sqlite else _FROM_UNTIL.replace("max((", "greatest((").replace("min((", "least((")
        ((start, until),) = tx.rows(query, (tx.now_ns,) * 5)
        values = settings.read(tx)
        known = _Known(version, start, until, values, parse_price(values["usd_rate"]), {})
        if _is_still(tx, version):
            tx.kept["prices"] = known
    return known


def _is_still(tx: Transaction, version: int) -> bool:
    """Whether what has been read so far is all of this version: on Postgres each statement sees what is committed by then."""
    return tx.is_sqlite or tx.rows(*VERSION) == [(version,)]


def last_read(tx: Transaction) -> "InForce | None":
    """What was in force when it was last read, as far as it reaches this moment; it holds if its `version` is still the same."""
    known: _Known | None = tx.kept.get("prices")
    return InForce(tx, known.version) if known and known.from_ns <= tx.now_ns < known.until_ns else None


class InForce:
    """What counts for models within one transaction that changes no price. `version`: what VERSION gave in it."""

    def __init__(self, tx: Transaction, version: int | None = None) -> None:
        self._tx = tx
        if version is None:
            ((version,),) = tx.rows(*VERSION)
        self._known = _known(tx, version)
        self.version = version
        self._models = self._known.models
        self._numbers: dict[str, int | None] = {}
        self._changes: list[settings.Changed] | None = None
        self._found: dict[tuple[str, int], Rates] = {}
        self._rows: dict[tuple[str, int], tuple[int, Rates]] = {}

    def _is_present(self, at_ns: int) -> bool:
        """Whether no price starts between a moment and now."""
        return self._known.from_ns <= at_ns < self._known.until_ns

    def at(self, model: str, at_ns: int) -> Rates:
        """The price of a model at a moment, in ns: whenever it is asked, the same."""
        found = self._found.get((model, at_ns))
        if found is None:
            known = self.noted(model, at_ns)
            found = self._found[model, at_ns] = known[1] if known else self._looked_up(model, at_ns)
        return found

    def noted(self, model: str, at_ns: int) -> tuple[int, Rates] | None:
        """What `kept` gives, where it needs no look into the database."""
        return self._models.get(model) if self._is_present(at_ns) else None

    def _looked_up(self, model: str, at_ns: int) -> Rates:
        number = self._number(model)
        own = None if number is None else _set_price(self._tx, number, at_ns)
        return own or _without_own(self._tx, self._settings(at_ns), model, at_ns)

    def _settings(self, at_ns: int) -> Mapping[str, str]:
        """What was set at a moment."""
        if self._is_present(at_ns):
            return self._known.settings
        if self._changes is None:
            self._changes = settings.changes(self._tx)
        return settings.as_of(self._known.settings, self._changes, at_ns)

    def _usd_rate(self, at_ns: int) -> Micro:
        is_present = self._is_present(at_ns)
        return self._known.usd_rate if is_present else parse_price(self._settings(at_ns)["usd_rate"])

    def _number(self, model: str) -> int | None:
        if model not in self._numbers:
            self._numbers[model] = known_number(self._tx, model)
        return self._numbers[model]

    def kept(self, model: str, at_ns: int) -> tuple[int, Rates]:
        """The model's number, and its price at a moment with the row (`price_id`) that an entry names: both are made where
        they are missing."""
        found = self._rows.get((model, at_ns))
        if found is None:
            rates, noted = self.at(model, at_ns), self.noted(model, at_ns)
            # Another thread may have noted another price since then.
            found = noted if noted and noted[1] is rates else self._with_row(model, at_ns, rates)
            self._rows[model, at_ns] = found
        return found

    def _with_row(self, model: str, at_ns: int, rates: Rates) -> tuple[int, Rates]:
        number = self._number(model)
        if number is None:
            number = self._numbers[model] = self._made(model_number, model)
        if rates.price_id is None:
            rates = _kept(self._tx, number, rates) or self._made(_keep, number, rates)
        if self._is_present(at_ns) and _is_still(self._tx, self._known.version):
            self._models[model] = number, rates
        return number, rates

    def _made(self, make: Callable[[Transaction, *A], T], *args: *A) -> T:
        """A new row. What follows isn't kept for others: they are not to know before it is committed."""
        self._models = dict(self._models)
        return make(self._tx, *args)

    def upstream(self, model: str, tokens: Tokens, at_ns: int) -> "Upstream | None":
        """What the provider asks for a call at a moment, as it says itself, else as the catalogue knows; None where neither
        does."""
        usd = tokens.extras.upstream_usd if tokens.extras else None
        if usd is None:
            prices = _catalogue_rates(model, at_ns // HOUR_NS)
            if prices is None:
                return None
            exact = prices.exact(tokens)  # in 10⁻¹⁸ US dollars
            if exact > MAX_UPSTREAM_USD * 10**18:
                return None
            return Upstream(_rounded(exact, 10**6), _rounded(exact * self._usd_rate(at_ns), 10**15))
        if not 0 <= usd <= MAX_UPSTREAM_USD:
            return None
        yuan = (usd * self._usd_rate(at_ns)).scaleb(3)
        return Upstream(int(usd.scaleb(12).to_integral_value()), int(yuan.to_integral_value()))


def _rounded(number: int, unit: int) -> int:
    """How many units there are in a number, half a unit to the even one, as Decimal does."""
    whole, rest = divmod(number, unit)
    return whole + (2 * rest > unit or (2 * rest == unit and whole % 2))


@lru_cache(maxsize=4096)
def _catalogue_rates(model: str, hour: int) -> Rates | None:
    """The catalogue's price at an hour since the epoch, with dollars for 元."""
    return built_in_rates(model, Decimal(1), datetime.fromtimestamp(hour * 3600, UTC))


def to_charge(tx: Transaction, model: str, at_ns: int) -> tuple[int, Rates]:
    """A model's number and the price in force, which has a row (`price_id`): an entry names the one it was charged at."""
    return InForce(tx).kept(model, at_ns)


def _kept(tx: Transaction, number: int, rates: Rates) -> Rates | None:
    """A price that isn't set for the model itself, with the row that entries name, if there is one."""
    first, reads, writes, more, origin = _as_row(number, rates)
    wanted = (*first, -1 if reads is None else reads, -1 if writes is None else writes, more or "", origin or "")
    rows = tx.rows(_SAME_ROW, wanted)
    return _rates_of(_Row(*rows[0])) if rows else None


def _keep(tx: Transaction, number: int, rates: Rates) -> Rates:
    """The same once the row is made."""
    first, *rest = _as_row(number, rates)
    ((*row,),) = tx.rows(_KEEP_ROW, (*first, *rest, tx.now_ns))
    found = _rates_of(_Row(*row))
    assert found is not None
    return found


def _as_row(number: int, rates: Rates) -> tuple[tuple[Any, ...], Micro | None, Micro | None, str | None, str | None]:
    four = asdict_of_four(rates)
    more = rates.more.as_json() if rates.more else None
    origin = {"rule": rates.rule, "as": rates.priced_as, "source": rates.source} if rates.rule else None
    kept_origin = json.dumps(origin, sort_keys=True, separators=(",", ":")) if origin else None
    first = (number, "catalogue" if rates.rule else rates.source, rates.input, rates.output)
    return first, four["cache_read"], four["cache_write"], more, kept_origin


def asdict_of_four(rates: Rates) -> dict[str, Micro | None]:
    """The four prices as they are written: None where one falls back to that of input."""
    return {part: getattr(rates, part) if part in rates.own else None for part in PARTS}


# The built-in prices


def _builtin(known: Mapping[str, str], model: str) -> Rates:
    input_price, output_price = (parse_price(known[f"default_{part}_price"]) for part in ("input", "output"))
    default = as_rates(Prices(input_price, output_price), "default")
    return built_in_rates(model, Decimal(known["usd_rate"])) or default


# What it cost upstream


class Upstream(NamedTuple):
    """What the provider asks for a call."""

    usd: int
    """10⁻¹² US dollars."""
    yuan: int
    """10⁻⁹ 元, at the rate that is set."""


MAX_UPSTREAM_USD = 1000
"""No call costs more; the sums of a quarter of an hour hold a million of them."""


# Setting and listing


@dataclass(frozen=True, slots=True)
class SetPrice:
    """A price that an admin set, in 10⁻⁶ 元 per million tokens. `input` None: retired from then on."""

    model: str
    input: Micro | None
    output: Micro | None
    cache_read: Micro | None
    cache_write: Micro | None
    valid_from_ns: int
    more: More | None = None
    price_id: int = 0
    withdrawn: bool = False
    """Before it started: it never counted."""
    origin: str | None = None

    @property
    def prices(self) -> Prices | None:
        if self.input is None or self.output is None:
            return None
        return Prices(self.input, self.output, self.cache_read, self.cache_write, self.more)


def set_price(
    tx: Transaction,
    model: str,
    input: Micro | None,
    output: Micro | None,
    *,
    actor: Actor,
    cache_read: Micro | None = None,
    cache_write: Micro | None = None,
    more: More | None = None,
    valid_from_ns: int | None = None,
) -> Price:
    """Let a model cost this from a moment on (now, without one); prices in 10⁻⁶ 元 per million tokens (see
    money.parse_price). Raises Forbidden, Invalid where the moment has passed."""
    actor.must_be_admin()
    retires, more = (input, output) == (None, None), as_called(more)
    prices = None if retires else Prices(input, output, cache_read, cache_write, more)  # type: ignore[arg-type]
    if prices:
        check_price(input, "input")
        check_price(output, "output")
    for part, micro in (("cache_read", cache_read), ("cache_write", cache_write)):
        if micro is not None:
            check_price(micro, part)
    starts = _start(tx, valid_from_ns)
    model = clean_model(model)
    before = in_force(tx, model, starts)
    row = _new(tx, model_number(tx, model), prices, starts, actor)
    tx.session.add(row)
    tx.session.flush()
    after = as_rates(prices) if prices else without_own(tx, model, starts)
    changed: dict[str, object] = {part: [getattr(before, part), getattr(after, part)] for part in PARTS}
    if before.more != after.more:
        changed["more"] = [rates.more and rates.more.as_json() for rates in (before, after)]
    if starts > tx.now_ns:
        changed["valid_from_ns"] = starts
    audit.note(tx, actor, "price.set" if prices else "price.retire", model, **changed)
    return row


def _start(tx: Transaction, valid_from_ns: int | None) -> int:
    if valid_from_ns is None:
        return tx.now_ns
    if type(valid_from_ns) is not int or valid_from_ns >= 2**63:
        raise Invalid(N_("valid_from must be a moment before the year 2262."), field="valid_from")
    if valid_from_ns < tx.now_ns - PAST_SECONDS * 10**9:
        raise Invalid(
            N_("A price can't start in the past: what was charged stays as it is. Leave valid_from out for now."),
            field="valid_from",
        )
    return max(valid_from_ns, tx.now_ns)


def _new(
    tx: Transaction, number: int, prices: Prices | None, starts: int, actor: Actor, *,
    origin: str | None = None, change_id: int | None = None,
) -> Price:  # fmt: skip
    """A row that isn't written yet."""
    four = {part: getattr(prices, part) if prices else None for part in PARTS}
    return Price(
        model_id=number, source="database", **four,
        more=prices.more.as_json() if prices and prices.more else None, valid_from_ns=starts,
        operator_id=actor.account_id, origin=origin, change_id=change_id, created_at_ns=tx.now_ns,
    )  # fmt: skip


def retire(tx: Transaction, model: str, *, actor: Actor) -> Price:
    """End a model's set price: from now on what counts without one. Raises NotFound, Forbidden."""
    actor.must_be_admin()
    if not any(price.model == model for price in listed(tx)):
        raise NotFound(N_("No price is set for {model}, so none can be retired."), model=model)
    return set_price(tx, model, None, None, actor=actor)


def withdraw(tx: Transaction, price_id: int, *, actor: Actor) -> SetPrice:
    """Take a planned price back before it starts: it never counts. Gives it. Raises NotFound, Conflict, Forbidden."""
    actor.must_be_admin()
    price = tx.session.get(Price, price_id) if is_id(price_id) else None
    if price is None or price.source != "database":
        raise NotFound(N_("There is no planned price {price_id}."), price_id=price_id)
    model = tx.session.get_one(Model, price.model_id).name
    _lock_models(tx, [price.model_id])
    if tx.session.get(PriceWithdrawal, price_id) is not None:
        raise Conflict(N_("The planned price of {model} has been withdrawn already."), model=model)
    if price.valid_from_ns <= tx.now_ns:
        raise Conflict(
            N_("The price of {model} counts already. What counted stays: set another one from now on."), model=model
        )
    _withdraw(tx, price, actor)
    audit.note(tx, actor, "price.withdraw", model, valid_from_ns=price.valid_from_ns)
    return set_of(price, model, withdrawn=True)


def _withdraw(tx: Transaction, price: Price, actor: Actor) -> None:
    tx.session.add(PriceWithdrawal(price_id=price.id or 0, operator_id=actor.account_id, created_at_ns=tx.now_ns))
    tx.session.flush()


def _lock_models(tx: Transaction, numbers: Iterable[int]) -> None:
    """Whoever else sets a price of these models waits, or is waited for."""
    tx.session.exec(
        select(Model.id).where(col(Model.id).in_(list(numbers))).order_by(col(Model.id)).with_for_update(key_share=True)
    ).all()


_WITHDRAWN = col(Price.id).in_(select(PriceWithdrawal.price_id))


def listed(tx: Transaction, at_ns: int | None = None) -> list[SetPrice]:
    """Every model with a set price in force at a moment (now, without one), by name."""
    return [set_of(price, name) for price, name in _set_and_in_force(tx, tx.now_ns if at_ns is None else at_ns)]


def _set_and_in_force(tx: Transaction, at_ns: int) -> list[tuple[Price, str]]:
    place = func.row_number().over(
        partition_by=col(Price.model_id), order_by=(col(Price.valid_from_ns).desc(), col(Price.id).desc())
    )
    newest = (
        select(col(Price.id).label("id"), place.label("place"))
        .where(Price.source == "database", Price.valid_from_ns <= at_ns, ~_WITHDRAWN)
        .subquery()
    )
    rows = tx.session.exec(
        select(Price, Model.name)
        .join(Model)
        .join(newest, newest.c.id == Price.id)
        .where(newest.c.place == 1, col(Price.input).is_not(None))
        .order_by(Model.name)
    )
    return [(price, name) for price, name in rows]


def history(tx: Transaction, model: str = "") -> list[SetPrice]:
    """Every price that was ever set for a model (of all of them, by name), newest first, planned and withdrawn ones
    included."""
    if not model.isprintable():  # no model's name: Postgres takes no NUL, UTF-8 no lone surrogate
        return []
    query = select(Price, Model.name, _WITHDRAWN).join(Model).where(Price.source == "database")
    if model:
        query = query.where(Model.name == model)
    rows = tx.session.exec(query.order_by(Model.name, col(Price.valid_from_ns).desc(), col(Price.id).desc()))
    return [set_of(price, name, bool(withdrawn)) for price, name, withdrawn in rows]


def planned(tx: Transaction) -> list[SetPrice]:
    """Prices whose start is still to come, soonest first; of several for one model and moment the last, which counts."""
    rows = tx.session.exec(
        select(Price, Model.name)
        .join(Model)
        .where(Price.source == "database", Price.valid_from_ns > tx.now_ns, ~_WITHDRAWN)
        .order_by(col(Price.valid_from_ns), col(Price.id))
    )
    return list({(price.valid_from_ns, name): set_of(price, name) for price, name in rows}.values())


def set_of(price: Price, model: str, withdrawn: bool = False) -> SetPrice:
    """A row of `price` that an admin set, as it is listed."""
    return SetPrice(
        model, price.input, price.output, price.cache_read, price.cache_write, price.valid_from_ns,
        more_from(price.more), price.id or 0, withdrawn, price.origin,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Current:
    """A model with the price that counts for it now, and with that price as it is written."""

    model: str
    rates: Rates
    prices: Prices

    def matches(self, search: str) -> bool:
        """Whether the model's name holds `search`, in capitals or not."""
        return search.strip().casefold() in self.model.casefold()


def current(tx: Transaction) -> list[Current]:
    """What counts now for every model that was ever charged or priced, by name."""
    known, rules = settings.read(tx), price_rules.listed(tx)
    set_here = {name: price for price, name in _set_and_in_force(tx, tx.now_ns)}
    found = []
    for name in model_names(tx):
        rates = rates_of(set_here[name]) if name in set_here else None
        rates = rates or _by_rule(tx, known, rules, name, tx.now_ns) or _builtin(known, name)
        found.append(Current(name, rates, prices_of(rates)))
    return found


def prices_of(rates: Rates) -> Prices:
    """What counts, as it is written."""
    four = asdict_of_four(rates)
    return Prices(rates.input, rates.output, four["cache_read"], four["cache_write"], rates.more)


@dataclass(frozen=True, slots=True)
class Change:
    """What an admin wants a model to cost."""

    model: str
    prices: Prices | None
    """None: the set price is retired, what counts without one counts again."""
    replaces: int | None
    """The `price_id` of the set price that the admin saw in force; None where there was none."""
    origin: str | None = None
    """Where the numbers come from, as JSON: a catalogue with its US dollars, rate and markup."""


def preview(tx: Transaction, changes: Sequence[Change]) -> list[tuple[Rates, Rates]]:
    """What counts for each model now, and what would."""
    return [
        (
            in_force(tx, change.model),
            as_rates(change.prices) if change.prices else without_own(tx, change.model, tx.now_ns),
        )
        for change in changes
    ]


def apply(
    tx: Transaction, changes: Sequence[Change], *, actor: Actor, valid_from_ns: int | None = None, what: str = ""
) -> int | None:
    """Let all of these count from a moment on (now, without one): all or none. With `what` (the catalogue that they come
    from) they are one change, whose number is given back, to be undone as one. Raises Forbidden, Invalid, NotFound, and
    Conflict where somebody else has changed the price of one of the models since."""
    actor.must_be_admin()
    numbers = {change.model: model_number(tx, clean_model(change.model)) for change in changes}
    _lock_models(tx, numbers.values())
    change_id = _change(tx, what, actor) if what else None
    starts = _start(tx, valid_from_ns)
    set_now = {price.model_id: price.id for price, _name in _set_and_in_force(tx, tx.now_ns)}
    rows = []
    for change in changes:
        number = numbers[change.model]
        if set_now.get(number) != change.replaces:
            raise Conflict(
                N_(
                    "Somebody else has changed the price of {model} in the meantime, so nothing was applied. "
                    "Discard your changes to see it, and decide anew."
                ),
                model=change.model,
            )
        if change.prices is None and number not in set_now:
            raise NotFound(N_("No price is set for {model}, so none can be retired."), model=change.model)
        if change_id is not None:
            checked = change.prices and _checked(change.prices)
            rows.append(_new(tx, number, checked, starts, actor, origin=change.origin, change_id=change_id))
            continue
        prices = change.prices or Prices(None, None)  # type: ignore[arg-type]
        set_price(
            tx, change.model, prices.input, prices.output, actor=actor, cache_read=prices.cache_read,
            cache_write=prices.cache_write, more=prices.more, valid_from_ns=valid_from_ns,
        )  # fmt: skip
    tx.session.add_all(rows)
    tx.session.flush()
    if change_id is not None:
        later = {"valid_from_ns": starts} if starts > tx.now_ns else {}
        audit.note(tx, actor, "price.change", str(change_id), what=what, models=len(changes), **later)
    return change_id


def _checked(prices: Prices) -> Prices:
    for part in PARTS:
        if (micro := getattr(prices, part)) is not None:
            check_price(micro, part)
    return replace(prices, more=as_called(prices.more))


def _change(tx: Transaction, what: str, actor: Actor, undoes: int | None = None) -> int:
    change = PriceChange(what=what, undoes=undoes, operator_id=actor.account_id, created_at_ns=tx.now_ns)
    tx.session.add(change)
    tx.session.flush()
    return change.id or 0


@dataclass(frozen=True, slots=True)
class ManySet:
    """Prices that were set at once."""

    id: int
    what: str
    at_ns: int
    models: int
    undone: bool


def changes(tx: Transaction) -> list[ManySet]:
    """The last 50 changes of many prices at once, newest first; those that undo one aside."""
    undone = set(tx.session.exec(select(PriceChange.undoes).where(col(PriceChange.undoes).is_not(None))))
    rows = tx.session.exec(
        select(PriceChange, func.count(col(Price.id)))
        .join(Price, col(Price.change_id) == PriceChange.id)
        .where(col(PriceChange.undoes).is_(None))
        .group_by(*PRICE_CHANGES.columns)
        .order_by(col(PriceChange.id).desc())
        .limit(50)
    )
    return [ManySet(row.id or 0, row.what, row.created_at_ns, models, row.id in undone) for row, models in rows]


def from_lists(tx: Transaction) -> list[str]:
    """The models whose price in force was set from a list."""
    return [price.model for price in listed(tx) if price.origin and "catalogue" in price.origin]


def undo_change(tx: Transaction, change_id: int, *, actor: Actor) -> tuple[int, int]:
    """Let what counted before a change of many prices count again, from now on: of how many models, and how many were
    left alone because their price has been set anew since. Raises NotFound, Conflict, Forbidden."""
    actor.must_be_admin()
    change = tx.session.get(PriceChange, change_id) if is_id(change_id) else None
    if change is None or change.undoes is not None:
        raise NotFound(N_("There is no change of prices {change_id}."), change_id=change_id)
    prices = tx.session.exec(select(Price, Model.name).join(Model).where(Price.change_id == change_id)).all()
    _lock_models(tx, [price.model_id for price, _name in prices])
    if tx.session.exec(select(PriceChange.id).where(PriceChange.undoes == change_id)).first() is not None:
        raise Conflict(N_("Change {change_id} of prices has been undone already."), change_id=change_id)
    undoing = _change(tx, change.what, actor, undoes=change_id)
    newest_first: dict[int, list[Price]] = {price.model_id: [] for price, _name in prices}
    for price in tx.session.exec(
        select(Price)
        .where(col(Price.model_id).in_(newest_first), Price.source == "database", ~_WITHDRAWN)
        .order_by(col(Price.valid_from_ns).desc(), col(Price.id).desc())
    ):
        newest_first[price.model_id].append(price)
    undone, rows = 0, []
    for price, name in prices:
        if price.valid_from_ns > tx.now_ns:
            if price.id in [one.id for one in newest_first[price.model_id]]:
                _withdraw(tx, price, actor)
                undone += 1
            continue
        counted = [one for one in newest_first[price.model_id] if one.valid_from_ns <= tx.now_ns]
        if not counted or counted[0].id != price.id:  # set anew since, or withdrawn before it started
            continue
        old, origin = (set_of(counted[1], name).prices, counted[1].origin) if counted[1:] else (None, None)
        rows.append(_new(tx, price.model_id, old, tx.now_ns, actor, origin=origin, change_id=undoing))
        undone += 1
    tx.session.add_all(rows)
    tx.session.flush()
    audit.note(tx, actor, "price.undo_change", str(change_id), what=change.what, models=undone)
    return undone, len(prices) - undone


def change_settings(tx: Transaction, values: Mapping[str, str], *, actor: Actor) -> None:
    """Set what the built-in prices are made from; see settings.DEFAULTS. Raises Forbidden, Invalid, NotFound."""
    actor.must_be_admin()
    for name, value in values.items():
        settings.change(tx, name, value, actor=actor)


def model_names(tx: Transaction) -> dict[str, int]:
    """Every model that was ever charged or priced, with its number."""
    return dict(tx.rows("SELECT name, id FROM model ORDER BY name"))


def as_yuan(rates: Rates | SetPrice) -> dict[str, Decimal | None]:
    """The four prices in 元 per million tokens."""
    return {f"{part}_price": None if (micro := getattr(rates, part)) is None else price_yuan(micro) for part in PARTS}


def charged_at(tx: Transaction, price_id: int | None) -> Rates:
    """The price that an entry names, as it was."""
    rates = rates_of(tx.session.get_one(Price, price_id))
    assert rates is not None
    return rates


def preview_rule(
    tx: Transaction, pattern: str, target: str, models: Iterable[str], *, actor: Actor
) -> list[tuple[str, Rates, Rates]]:
    """What a rule would change: of `models` those that would cost something else, with what counts now and what would.
    Raises Forbidden, Invalid."""
    actor.must_be_admin()
    rules = price_rules.with_rule(price_rules.listed(tx), pattern, target, tx.now_ns)
    known = settings.read(tx)
    changed = []
    for model in models:
        if _own(tx, model, tx.now_ns) is None:
            before = without_own(tx, model, tx.now_ns)
            after = _by_rule(tx, known, rules, model, tx.now_ns) or _builtin(known, model)
            if prices_of(before) != prices_of(after):
                changed.append((model, before, after))
    return changed
