"""Prices: the one in force at a moment, their history, and the built-in ones for models that have none.

A price counts from `valid_from_ns` until the next one of its model. Nothing that was charged changes with it. A call of
the past, booked late, is charged at the price of its time; where the model's first price came only later, at that one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import func, text
from sqlmodel import col, select

from . import audit, settings
from .actors import Actor
from .database import Transaction
from .errors import Conflict, Invalid, NotFound
from .i18n import N_
from .models import Model, Price
from .money import MAX_PRICE_MICRO, Hao, Micro, price_yuan
from .tokens import Tokens

PAST_SECONDS = 60
"""How far back `valid_from` may lie: as much as clocks differ."""


@dataclass(frozen=True, slots=True)
class Rates:
    """A model's price, in 10⁻⁶ 元 per million tokens."""

    input: Micro
    output: Micro
    cache_read: Micro
    cache_write: Micro
    source: str
    """`database`, `catalogue` (a built-in price for this model) or `default`."""
    price_id: int | None = None
    valid_from_ns: int | None = None

    @property
    def parts(self) -> tuple[Micro, Micro, Micro, Micro]:
        """In the order of PARTS."""
        return self.input, self.output, self.cache_read, self.cache_write

    def cost(self, tokens: Tokens) -> Hao:
        """What a call costs, in 毫."""
        return self.cost_of(tokens.uncached, tokens.cached, tokens.cache_creation, tokens.completion)

    def cost_of(self, uncached: int, cached: int, cache_creation: int, completion: int) -> Hao:
        """What so many tokens cost, in 毫: each kind × its price, summed exactly, rounded up once."""
        micro = (
            uncached * self.input
            + cached * self.cache_read
            + cache_creation * self.cache_write
            + completion * self.output
        )
        return -(-micro // 100_000_000)  # 10⁻⁶ 元 per 10⁶ tokens, in 10⁻⁴ 元

    def most(self, prompt: int, completion: int) -> Hao:
        """The most that a call of so many tokens can cost, in 毫, however its prompt is cached."""
        return -(
            -(prompt * max(self.input, self.cache_read, self.cache_write) + completion * self.output) // 100_000_000
        )


def clean_model(name: str) -> str:
    """A model's name as it is kept. Raises Invalid."""
    name = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise Invalid(N_("A model's name has 1 to 200 characters, like openai/gpt-4o."), field="model_id")
    return name


_MODEL = text("SELECT id FROM model WHERE name = :name")


def model_number(tx: Transaction, name: str) -> int:
    """The number of the model called `name`, made where it is new."""
    found = tx.connection().scalar(_MODEL, {"name": name})
    if found is None:
        model = Model(name=name)
        tx.add(model)
        tx.flush()
        found = model.id
    return int(found or 0)


def rates_of(row: Any) -> Rates | None:
    """A row of `price` as it counts; None where it ends a set price."""
    if row.input is None or row.output is None:
        return None
    return Rates(
        row.input,
        row.output,
        row.input if row.cache_read is None else row.cache_read,
        row.input if row.cache_write is None else row.cache_write,
        row.source,
        row.id,
        row.valid_from_ns,
    )


def in_force(tx: Transaction, model: str, at_ns: int | None = None) -> Rates:
    """What counts for a model at a moment (now, without one): an admin's price, else the built-in one, else `default`."""
    number = tx.connection().scalar(_MODEL, {"name": model}) if model.isprintable() else None
    set_one = None if number is None else _set_price(tx, number, tx.now_ns if at_ns is None else at_ns)
    return set_one or builtin(tx, model)


_COLUMNS = "input, output, cache_read, cache_write, source, id, valid_from_ns"
_PRICE_AT = text(
    f"SELECT {_COLUMNS} FROM price WHERE model_id = :model AND source = 'database' AND valid_from_ns <= :at "
    "ORDER BY valid_from_ns DESC, id DESC LIMIT 1"
)
_FIRST_PRICE = text(
    f"SELECT {_COLUMNS} FROM price WHERE model_id = :model AND source = 'database' AND valid_from_ns <= :at "
    "ORDER BY valid_from_ns, id DESC LIMIT 1"
)
_BUILTIN_ROW = text(
    f"SELECT {_COLUMNS} FROM price WHERE model_id = :model_id AND valid_from_ns = 0 AND source = :source "
    "AND input = :input AND output = :output AND cache_read = :cache_read AND cache_write = :cache_write LIMIT 1"
)


def _set_price(tx: Transaction, number: int, at_ns: int) -> Rates | None:
    row = tx.connection().execute(_PRICE_AT, {"model": number, "at": at_ns}).first()
    if row is None and at_ns < tx.now_ns:
        row = tx.connection().execute(_FIRST_PRICE, {"model": number, "at": tx.now_ns}).first()
    return rates_of(row) if row else None


def to_charge(tx: Transaction, model: str, at_ns: int) -> tuple[int, Rates]:
    """A model's number and the price in force, which has a row (`price_id`): an entry names the one it was charged at."""
    number = model_number(tx, model)
    rates = _set_price(tx, number, at_ns) or builtin(tx, model)
    if rates.price_id is not None:
        return number, rates
    content: dict[str, Any] = {
        "model_id": number,
        "source": rates.source,
        "input": rates.input,
        "output": rates.output,
        "cache_read": rates.cache_read,
        "cache_write": rates.cache_write,
    }
    row = tx.connection().execute(_BUILTIN_ROW, content).first()
    if row is None:
        tx.add(Price(**content, valid_from_ns=0, created_at_ns=tx.now_ns))
        tx.flush()
        row = tx.connection().execute(_BUILTIN_ROW, content).first()
    found = rates_of(row)
    assert found is not None
    return number, found


# The built-in prices


def builtin(tx: Transaction, model: str) -> Rates:
    """The catalogue's price for a model at the set rate, else the `default` one."""
    return _builtin(settings.read(tx), model)


def _builtin(known: Mapping[str, str], model: str) -> Rates:
    input_price, output_price = (_micro(Decimal(known[f"default_{part}_price"])) for part in ("input", "output"))
    default = Rates(input_price, output_price, input_price, input_price, "default")
    return _catalogue(model, Decimal(known["usd_rate"])) or default


def _micro(yuan: Decimal) -> Micro:
    return int(yuan.scaleb(6).to_integral_value(ROUND_HALF_EVEN))


_SNAPSHOT_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
"""Of prices that depend on the day or the hour the one at this moment, on every server and at every call alike: it moves
with the version of genai-prices in requirements.txt."""
_PROVIDERS = {"bedrock": "aws"}
"""Makers that genai-prices calls otherwise."""


@lru_cache(maxsize=4096)
def _catalogue(model: str, usd_rate: Decimal) -> Rates | None:
    """A model's price in genai-prices' snapshot, in 元 at `usd_rate`, to six places; of tiers the first.

    Of `maker/model` the maker's own price comes first: OpenRouter's leaves out many prices for cached tokens."""
    from genai_prices.data_snapshot import get_snapshot

    plain, _, suffix = model.partition(":")
    tries: list[tuple[str, str | None]] = []
    if "/" in model:
        maker = model.partition("/")[0]
        tries = [(name.partition("/")[2], _PROVIDERS.get(maker, maker)) for name in (model, plain)]
        tries += [(model, "openrouter"), (plain, "openrouter")]
    tries += [(model, None), (plain, None), (plain.rsplit("/", 1)[-1], None)]
    for name, provider in tries:
        try:
            _, info = get_snapshot().find_provider_model(name, None, provider, None)
            price = info.get_prices(_SNAPSHOT_AT)
        except LookupError:
            continue
        usd = {
            part: getattr(value, "base", value)
            for part in ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
            if (value := price.__dict__.get(part)) is not None
        }
        if "input_mtok" in usd and suffix != "free":
            micro = {part: _micro(value * usd_rate) for part, value in usd.items()}
            first = micro["input_mtok"]
            return Rates(
                first,
                micro.get("output_mtok", 0),
                micro.get("cache_read_mtok", first),
                micro.get("cache_write_mtok", first),
                "catalogue",
            )
    return Rates(0, 0, 0, 0, "catalogue") if suffix == "free" and "/" in model else None


# Setting and listing

PARTS = ("input", "output", "cache_read", "cache_write")
Prices = tuple[Micro, Micro, Micro | None, Micro | None]
"""In the order of PARTS, in 10⁻⁶ 元 per million tokens; a cache price of None is the same as that of input."""


@dataclass(frozen=True, slots=True)
class SetPrice:
    """A price that an admin set, in 10⁻⁶ 元 per million tokens. `input` None: retired from then on."""

    model: str
    input: Micro | None
    output: Micro | None
    cache_read: Micro | None
    cache_write: Micro | None
    valid_from_ns: int


def _check_price(micro: object, part: str) -> None:
    if type(micro) is not int or not 0 <= micro <= MAX_PRICE_MICRO:
        raise Invalid(
            N_("A price is a whole number of 10⁻⁶ 元, from 0 to 1,000,000 元 per million tokens."),
            field=f"{part}_price",
        )


def set_price(
    tx: Transaction,
    model: str,
    input: Micro | None,
    output: Micro | None,
    *,
    actor: Actor,
    cache_read: Micro | None = None,
    cache_write: Micro | None = None,
    valid_from_ns: int | None = None,
) -> Price:
    """Let a model cost this from a moment on (now, without one); prices in 10⁻⁶ 元 per million tokens (see
    money.parse_price). Raises Forbidden, Invalid where the moment has passed."""
    actor.must_be_admin()
    if (input, output) != (None, None):
        _check_price(input, "input")
        _check_price(output, "output")
    for part, micro in (("cache_read", cache_read), ("cache_write", cache_write)):
        if micro is not None:
            _check_price(micro, part)
    now = tx.now_ns
    if valid_from_ns is None:
        valid_from_ns = now
    elif type(valid_from_ns) is not int or valid_from_ns >= 2**63:
        raise Invalid(N_("valid_from must be a moment before the year 2262."), field="valid_from")
    elif valid_from_ns < now - PAST_SECONDS * 10**9:
        raise Invalid(
            N_("A price can't start in the past: what was charged stays as it is. Leave valid_from out for now."),
            field="valid_from",
        )
    model = clean_model(model)
    starts = max(valid_from_ns, now)
    before = in_force(tx, model, starts)
    row = Price(
        model_id=model_number(tx, model),
        source="database",
        input=input,
        output=output,
        cache_read=cache_read,
        cache_write=cache_write,
        valid_from_ns=starts,
        operator_id=actor.account_id,
        created_at_ns=now,
    )
    tx.add(row)
    tx.flush()
    after = as_rates((input, output, cache_read, cache_write)) if input is not None and output is not None else None
    both = zip(PARTS, before.parts, (after or builtin(tx, model)).parts, strict=True)
    changed: dict[str, object] = {part: [old, new] for part, old, new in both}
    if starts > now:
        changed["valid_from_ns"] = starts
    audit.note(tx, actor, "price.set" if after else "price.retire", model, **changed)
    return row


def retire(tx: Transaction, model: str, *, actor: Actor) -> Price:
    """End a model's set price: from now on the built-in one counts. Raises NotFound, Forbidden."""
    actor.must_be_admin()
    if not any(price.model == model for price in listed(tx)):
        raise NotFound(N_("No price is set for {model}, so none can be retired."), model=model)
    return set_price(tx, model, None, None, actor=actor)


def listed(tx: Transaction, at_ns: int | None = None) -> list[SetPrice]:
    """Every model with a set price in force at a moment (now, without one), by name."""
    return [_set(price, name) for price, name in _set_and_in_force(tx, tx.now_ns if at_ns is None else at_ns)]


def _set_and_in_force(tx: Transaction, at_ns: int) -> list[tuple[Price, str]]:
    place = func.row_number().over(
        partition_by=col(Price.model_id), order_by=(col(Price.valid_from_ns).desc(), col(Price.id).desc())
    )
    newest = (
        select(col(Price.id).label("id"), place.label("place"))
        .where(Price.source == "database", Price.valid_from_ns <= at_ns)
        .subquery()
    )
    rows = tx.exec(
        select(Price, Model.name)
        .join(Model)
        .join(newest, newest.c.id == Price.id)
        .where(newest.c.place == 1, col(Price.input).is_not(None))
        .order_by(Model.name)
    )
    return [(price, name) for price, name in rows]


def history(tx: Transaction, model: str) -> list[SetPrice]:
    """Every price that was ever set for a model, newest first, planned ones included."""
    if not model.isprintable():  # no model's name: Postgres takes no NUL, UTF-8 no lone surrogate
        return []
    rows = tx.exec(
        select(Price, Model.name)
        .join(Model)
        .where(Model.name == model, Price.source == "database")
        .order_by(col(Price.valid_from_ns).desc(), col(Price.id).desc())
    )
    return [_set(price, name) for price, name in rows]


def planned(tx: Transaction) -> list[SetPrice]:
    """Prices whose start is still to come, soonest first; of several for one model and moment the last, which counts."""
    rows = tx.exec(
        select(Price, Model.name)
        .join(Model)
        .where(Price.source == "database", Price.valid_from_ns > tx.now_ns)
        .order_by(col(Price.valid_from_ns), col(Price.id))
    )
    return list({(price.valid_from_ns, name): _set(price, name) for price, name in rows}.values())


def _set(price: Price, model: str) -> SetPrice:
    return SetPrice(model, price.input, price.output, price.cache_read, price.cache_write, price.valid_from_ns)


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
    known = settings.read(tx)
    set_here = {name: price for price, name in _set_and_in_force(tx, tx.now_ns)}
    return [_current(name, set_here.get(name), known) for name in model_names(tx)]


def _current(model: str, price: Price | None, known: Mapping[str, str]) -> Current:
    rates = rates_of(price) if price else None
    if price and rates:
        return Current(model, rates, (rates.input, rates.output, price.cache_read, price.cache_write))
    rates = _builtin(known, model)
    read, write = (None if cache == rates.input else cache for cache in (rates.cache_read, rates.cache_write))
    return Current(model, rates, (rates.input, rates.output, read, write))


@dataclass(frozen=True, slots=True)
class Change:
    """What an admin wants a model to cost."""

    model: str
    prices: Prices | None
    """None: the set price is retired, the built-in one counts again."""
    replaces: int | None
    """The `price_id` of the set price that the admin saw in force; None where there was none."""


def preview(tx: Transaction, changes: Sequence[Change]) -> list[tuple[Rates, Rates]]:
    """What counts for each model now, and what would."""
    return [
        (in_force(tx, change.model), as_rates(change.prices) if change.prices else builtin(tx, change.model))
        for change in changes
    ]


def as_rates(prices: Prices) -> Rates:
    """Prices as they count once they are set."""
    first, output, read, write = prices
    return Rates(first, output, first if read is None else read, first if write is None else write, "database")


def apply(tx: Transaction, changes: Sequence[Change], *, actor: Actor, valid_from_ns: int | None = None) -> None:
    """Let all of these count from a moment on (now, without one). Raises Forbidden, Invalid, NotFound, and Conflict
    where somebody else has changed the price of one of the models since."""
    actor.must_be_admin()
    numbers = {change.model: model_number(tx, clean_model(change.model)) for change in changes}
    # Whoever else sets a price of these models waits, or is waited for.
    tx.exec(select(Model.id).where(col(Model.id).in_(numbers.values())).order_by(col(Model.id)).with_for_update()).all()
    for change in changes:
        found = _set_price(tx, numbers[change.model], tx.now_ns)
        if (found.price_id if found else None) != change.replaces:
            raise Conflict(
                N_(
                    "Somebody else has changed the price of {model} in the meantime, so nothing was applied. "
                    "Discard your changes to see it, and decide anew."
                ),
                model=change.model,
            )
        if change.prices is None and found is None:
            raise NotFound(N_("No price is set for {model}, so none can be retired."), model=change.model)
        first, output, read, write = change.prices or (None, None, None, None)
        set_price(
            tx, change.model, first, output, actor=actor, cache_read=read, cache_write=write,
            valid_from_ns=valid_from_ns,
        )  # fmt: skip


def change_settings(tx: Transaction, values: Mapping[str, str], *, actor: Actor) -> None:
    """Set what the built-in prices are made from; see settings.DEFAULTS. Raises Forbidden, Invalid, NotFound."""
    actor.must_be_admin()
    for name, value in values.items():
        settings.change(tx, name, value, actor=actor)


def model_names(tx: Transaction) -> dict[str, int]:
    """Every model that was ever charged or priced, with its number."""
    return {model.name: model.id or 0 for model in tx.exec(select(Model).order_by(Model.name))}


def as_yuan(rates: Rates | SetPrice) -> dict[str, Decimal | None]:
    """The four prices in 元 per million tokens."""
    return {f"{part}_price": None if (micro := getattr(rates, part)) is None else price_yuan(micro) for part in PARTS}


def charged_at(tx: Transaction, price_id: int | None) -> Rates:
    """The price that an entry names, as it was."""
    row = tx.get(Price, price_id)
    rates = rates_of(row) if row else None
    assert rates is not None
    return rates
