"""Prices: what counts, what is planned, and the rules that say which model's price it is."""

from datetime import UTC
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from billing_core import price_rules, pricing
from billing_core.database import Transaction
from billing_core.errors import Invalid, NotFound
from billing_core.i18n import N_
from billing_core.money import price_yuan
from billing_core.pricing import SetPrice
from billing_core.rates import MORE_PARTS, PARTS, More, Rates, Tier
from billing_core.stats import iso

from . import schemas
from .auth import Admin, Db
from .bodies import Body, parse
from .errors import Route
from .exact_json import ExactJSONResponse, dumps, loads
from .openapi import WRITING, refusals, takes
from .queries import moment
from .routes import Key, answer_once, once_of

router = APIRouter(route_class=Route)
ModelId = Annotated[str, Path(description="The model's name; / and : in it may stand as they are, or encoded.")]
ALL_PARTS = (*PARTS, *MORE_PARTS)


def _yuan(micro: int | None) -> Decimal | None:
    return None if micro is None else price_yuan(micro)


def _further(more: More | None) -> dict[str, Any]:
    """The components beyond the four, as they are given back."""
    more = more or More()
    return {
        **{f"{part}_price": _yuan(getattr(more, part)) for part in MORE_PARTS},
        "call_price": price_yuan(more.call),
        "tool_prices": {tool: price_yuan(fee) for tool, fee in more.tools},
        "tiers": [
            {"above_prompt_tokens": tier.above, **{f"{part}_price": _yuan(getattr(tier, part)) for part in ALL_PARTS}}
            for tier in more.tiers
        ],
        "service_tiers": {name: price_yuan(ppm) for name, ppm in more.service_tiers},
    }


def _fields(price: SetPrice) -> dict[str, Any]:
    four = pricing.as_yuan(price)
    prices = {name: four["input_price"] if value is None else value for name, value in four.items()}
    return {
        "model_id": price.model, **prices, "source": "database", "source_detail": "database", "price_id": str(price.price_id),
        "valid_from": iso(price.valid_from_ns, UTC), **_further(price.more),
    }  # fmt: skip


def _set(price: SetPrice) -> schemas.PriceOut:
    """A price that an admin set."""
    return schemas.PriceOut(**_fields(price))


def _planned(price: SetPrice) -> schemas.PlanOut:
    """One that is to come, or that no price is to count from then on."""
    return schemas.PlanOut(**_fields(price), retires=price.prices is None)


def _in_force(model: str, rates: Rates) -> schemas.PriceOut:
    """What counts for a model, and what decided that."""
    four: dict[str, Any] = pricing.as_yuan(rates)
    own = rates.source == "database" and rates.rule is None
    decided_by = "rule" if rates.rule else "price" if own else rates.source
    return schemas.PriceOut(
        model_id=model,
        **four,
        source="database" if rates.source == "database" else "default",
        source_detail=rates.source,
        valid_from=iso(rates.valid_from_ns, UTC) if own and rates.valid_from_ns is not None else None,
        price_id=str(rates.price_id) if own else None,
        decided_by=decided_by,
        rule=rates.rule,
        priced_as=rates.priced_as,
        **_further(rates.more),
    )


def _more(wanted: schemas.PriceRequest) -> More | None:
    """The components beyond the four that a request sets. Raises Invalid."""
    try:
        return _components(wanted)
    except Invalid as error:
        error.field = "tool_prices" if error.field == "tools" else error.field
        raise


def _components(wanted: schemas.PriceRequest) -> More | None:
    more = More(
        **{part: getattr(wanted, f"{part}_price") for part in MORE_PARTS},
        call=wanted.call_price or 0,
        tools=tuple(sorted(wanted.tool_prices.items())),
        tiers=tuple(
            Tier(tier.above_prompt_tokens, **{part: getattr(tier, f"{part}_price") for part in ALL_PARTS})
            for tier in sorted(wanted.tiers, key=lambda tier: tier.above_prompt_tokens)
        ),
        service_tiers=tuple(sorted(wanted.service_tiers.items())),
    )
    return None if more == More() else more


@router.post(
    "/pricing",
    response_model=schemas.PriceOut,
    responses=refusals(400, 401, 403, 409, 413),
    openapi_extra=takes(schemas.PriceRequest),
)
def set_price(actor: Admin, db: Db, body: Body, key: Key = None) -> Response:
    """Set a model's price from a moment on. What was charged before stays as it is."""
    content = loads(body)
    wanted = parse(schemas.PriceRequest, content)
    start = None if wanted.valid_from is None else moment(wanted.valid_from, "valid_from")
    more = _more(wanted)

    def write(tx: Transaction) -> bytes:
        row = pricing.set_price(
            tx, wanted.model_id, wanted.input_price, wanted.output_price, actor=actor, more=more,
            cache_read=wanted.cache_read_price, cache_write=wanted.cache_write_price, valid_from_ns=start,
        )  # fmt: skip
        return dumps(_set(pricing.set_of(row, pricing.clean_model(wanted.model_id))))

    once = once_of(actor, key, "pricing", content)
    return ExactJSONResponse(db.write(lambda tx: answer_once(tx, once, lambda: write(tx))))


@router.get("/pricing", response_model=list[schemas.PriceOut], responses=refusals())
def prices(db: Db) -> Response:
    """Every price that is set and in force, by the model's name."""
    return ExactJSONResponse([_set(price) for price in db.read(pricing.listed)])


@router.get("/pricing/{model_id:path}", response_model=schemas.PriceOut, responses=refusals())
def price(db: Db, model_id: ModelId) -> Response:
    """The price in force for a model, whose name may hold / and : as it is; a built-in one where none is set."""
    name = pricing.clean_model(model_id)
    return ExactJSONResponse(_in_force(name, db.read(pricing.in_force, name)))


@router.get("/price-plans", response_model=list[schemas.PlanOut], responses=refusals())
def planned_prices(db: Db) -> Response:
    """The prices whose start is still to come, the soonest first."""
    return ExactJSONResponse([_planned(price) for price in db.read(pricing.planned)])


@router.post(
    "/price-plans/withdraw",
    response_model=schemas.PlanOut,
    responses=WRITING,
    openapi_extra=takes(schemas.WithdrawRequest),
)
def withdraw_price(actor: Admin, db: Db, body: Body, key: Key = None) -> Response:
    """Take a planned price back before it starts: it never counts. Gives the price that was planned."""
    content = loads(body)
    wanted = str(parse(schemas.WithdrawRequest, content).price_id)
    number = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 19 else 0
    if not number:
        raise NotFound(N_("There is no planned price {price_id}."), price_id=wanted[:40])

    def write(tx: Transaction) -> bytes:
        return dumps(_planned(pricing.withdraw(tx, number, actor=actor)))

    once = once_of(actor, key, "price-plans/withdraw", content)
    return ExactJSONResponse(db.write(lambda tx: answer_once(tx, once, lambda: write(tx))))


@router.get("/price-rules", response_model=list[schemas.RuleOut], responses=refusals())
def rules(db: Db) -> Response:
    """The rules that say which model's price counts for names without one, in the order in which they are asked."""
    return ExactJSONResponse([_rule(rule) for rule in db.read(price_rules.listed)])


@router.post(
    "/price-rules", response_model=schemas.RuleOut, responses=WRITING, openapi_extra=takes(schemas.RuleRequest)
)
def set_rule(actor: Admin, db: Db, body: Body, key: Key = None) -> Response:
    """From now on, models whose name fits the pattern and that have no price of their own cost what the target does."""
    content = loads(body)
    wanted = parse(schemas.RuleRequest, content)

    def write(tx: Transaction) -> bytes:
        return dumps(_rule(price_rules.set_rule(tx, wanted.pattern, wanted.target, actor=actor)))

    once = once_of(actor, key, "price-rules", content)
    return ExactJSONResponse(db.write(lambda tx: answer_once(tx, once, lambda: write(tx))))


@router.post(
    "/price-rules/end", response_model=schemas.RuleOut, responses=WRITING, openapi_extra=takes(schemas.EndRuleRequest)
)
def end_rule(actor: Admin, db: Db, body: Body, key: Key = None) -> Response:
    """From now on, the rule no longer counts. Gives the rule that ended."""
    content = loads(body)
    wanted = parse(schemas.EndRuleRequest, content)

    def write(tx: Transaction) -> bytes:
        return dumps(_rule(price_rules.end_rule(tx, wanted.pattern, actor=actor)))

    once = once_of(actor, key, "price-rules/end", content)
    return ExactJSONResponse(db.write(lambda tx: answer_once(tx, once, lambda: write(tx))))


def _rule(rule: price_rules.Rule) -> schemas.RuleOut:
    return schemas.RuleOut(pattern=rule.pattern, target=rule.target, since=iso(rule.since_ns, UTC))
