"""The routes: each reads a request, asks billing_core in one transaction, and writes the answer.

They are plain functions: FastAPI runs them on a thread each, so that waiting for the database holds up nobody else. Only
`POST /charge` is none: what arrives while others are charged is charged with the next ones.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import AfterValidator
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from billing_core import accounts, audit, idempotency, ledger, logs, stats, usage
from billing_core.actors import Actor
from billing_core.balances import balances_of
from billing_core.database import Database, Retry, Transaction
from billing_core.errors import BillingError, DatabaseUnavailable, Invalid, NotFound
from billing_core.i18n import N_
from billing_core.idempotency import Once
from billing_core.models import Account
from billing_core.money import Hao, to_yuan
from billing_core.stats import iso
from billing_core.tokens import EXTRA_TOKENS, KINDS, Extras, Tokens, tier_named
from billing_core.zones import zone

from . import bodies, schemas
from .auth import Admin, AdminReader, Charger, Db, HoldEnder, Reader, UserId, Viewer
from .bodies import Batch, Body, parse
from .errors import Route, language
from .errors import body as error_body
from .exact_json import ExactJSONResponse, dumps, loads
from .openapi import READING, READING_ONE, SPENDING, WRITING, refusals, takes, takes_many
from .queries import ONLY_KNOWN, AuditKind, Before, Days, Granularity, Limit, Offset, Search, Timezone
from .together import Together

router = APIRouter(route_class=Route)


def _as_written(key: str | None) -> str | None:
    """A server takes a header's bytes for Latin-1; most programs send UTF-8. The same key in a body is the same key."""
    try:
        return key and key.encode("latin-1").decode()
    except UnicodeError:
        return key


Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="1 to 255 characters of the caller's own: whatever is sent twice with the same one happens once.",
    ),
    AfterValidator(_as_written),
]


def once_of(actor: Actor, key: str | None, *request: Any) -> Once | None:
    return None if key is None else Once.of(actor, key, *request)


def answer_once(tx: Transaction, once: Once | None, act: Callable[[], bytes]) -> bytes:
    """What `act` answers, or what it answered the first time. For writes that the ledger doesn't remember itself."""
    known = idempotency.earlier(tx, once)
    if known is not None:
        return str(json.loads(known.answer or "null")).encode()
    try:
        answer = act()
    except BillingError:
        if idempotency.earlier(tx, once) is not None:  # the same request was under way, and is done by now
            raise Retry from None
        raise
    idempotency.remember(tx, once, answer=answer.decode())
    return answer


# Balances


def _balance(tx: Transaction, user_id: str) -> schemas.Balance:
    account = accounts.find(tx, user_id)
    return schemas.Balance(
        balance=ledger.balance(tx, account),
        total_consumed=account.total_consumed,
        billing_status=account.status,
        held=ledger.held(tx, account),
    )


@router.get("/balance", response_model=schemas.Balance, responses=READING)
def balance(actor: Reader, db: Db) -> Response:
    """What the asking account may still spend."""
    return ExactJSONResponse(db.read(_balance, actor.user_id))


@router.get("/balance/{user_id}", response_model=schemas.Balance, responses=READING_ONE)
def balance_of(viewer: Viewer, db: Db, user_id: UserId) -> Response:
    """What an account may still spend: for admins, and for the account itself."""
    return ExactJSONResponse(db.read(_balance, user_id))


# Logs


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _log_row(row: logs.Row) -> schemas.LogRow:
    return schemas.LogRow(
        id=str(row.id),
        type=row.type,
        model_id=row.model,
        amount=row.amount,
        cost=row.cost,
        balance_after=row.balance_after,
        prompt_tokens=row.prompt_tokens or 0,
        completion_tokens=row.completion_tokens or 0,
        cached_tokens=row.cached_tokens or 0,
        cache_creation_tokens=row.cache_creation_tokens or 0,
        reasoning_tokens=row.reasoning_tokens or 0,
        created_at=row.created_at_ns,
        precharge_id=_text(row.id if row.type == "precharge" else row.precharge_id),
        reverses_id=_text(row.reverses_id),
        remark=row.remark,
        reprices_id=_text(row.reprices_id),
        extras=json.loads(row.extras) if row.extras else None,
        upstream_usd=None if row.upstream_usd is None else Decimal(row.upstream_usd).scaleb(-12),
    )


def _logs(db: Database, actor: Actor, user_id: str, limit: int, offset: int) -> Response:
    rows = db.read(logs.page, logs.Filters(user_id=user_id), actor=actor, limit=limit, offset=offset)
    return ExactJSONResponse([_log_row(row) for row in rows])


@router.get("/logs", name="logs", response_model=list[schemas.LogRow], responses=READING)
def own_logs(actor: Reader, db: Db, limit: Limit = 50, offset: Offset = 0) -> Response:
    """The asking account's entries, newest first."""
    return _logs(db, actor, actor.user_id, limit, offset)


@router.get("/logs/{user_id}", response_model=list[schemas.LogRow], responses=READING_ONE)
def logs_of(viewer: Viewer, db: Db, user_id: UserId, limit: Limit = 50, offset: Offset = 0) -> Response:
    """An account's entries, newest first: for admins, and for the account itself."""
    return _logs(db, viewer, user_id, limit, offset)


@router.get("/recharge/logs/{user_id}", response_model=list[schemas.RechargeRow], responses=READING_ONE)
def recharge_logs(actor: AdminReader, db: Db, user_id: UserId, limit: Limit = 50, offset: Offset = 0) -> Response:
    """An account's recharges, newest first."""
    wanted = logs.recharges(logs.Filters(user_id=user_id))
    rows = db.read(logs.page, wanted, actor=actor, limit=limit, offset=offset)
    return ExactJSONResponse(
        [
            schemas.RechargeRow(
                id=str(row.id),
                user_id=row.user_id,
                amount=row.amount,
                balance_after=row.balance_after,
                operator_id=row.operator_id,
                operator_name=row.operator_name,
                remark=row.remark,
                created_at=row.created_at_ns,
            )
            for row in rows
        ]
    )


# Stats


def _stats(db: Database, actor: Actor, user_id: str, days: int, granularity: str, timezone: str) -> Response:
    tz = zone(timezone or actor.timezone)

    def read(tx: Transaction) -> tuple[list[stats.Period], list[stats.Used]]:
        periods = stats.last_periods(tx.now_ns, granularity, tz, days)
        return periods, stats.usage(tx, periods, actor=actor, user_id=user_id)

    periods, used = db.read(read)
    by_period = zip(periods, stats.by_period(periods, used), strict=True)
    by_model = stats.totals(used)
    return ExactJSONResponse(
        schemas.Stats(
            daily=[_period(period, granularity, some) for period, some in by_period],
            by_model=[schemas.ModelCost(model=one.name, cost=to_yuan(one.cost), count=one.calls) for one in by_model],
            models=sorted(one.name for one in by_model),
        )
    )  # fmt: skip


def _period(period: stats.Period, granularity: str, used: list[stats.Used]) -> schemas.PeriodCost:
    return schemas.PeriodCost(
        date=period.start.strftime(stats.LABELS[granularity]),
        start=period.start.isoformat(),
        cost=to_yuan(sum(one.cost for one in used)),
        by_model={one.name: to_yuan(one.cost) for one in used},
    )


@router.get("/stats", name="stats", response_model=schemas.Stats, responses=READING)
def own_stats(
    actor: Reader, db: Db, days: Days = 7, granularity: Granularity = "day", timezone: Timezone = ""
) -> Response:
    """What the asking account spent, by period and by model."""
    return _stats(db, actor, actor.user_id, days, granularity, timezone)


@router.get("/stats/{user_id}", response_model=schemas.Stats, responses=READING_ONE)
def stats_of(
    viewer: Viewer, db: Db, user_id: UserId, days: Days = 7, granularity: Granularity = "day", timezone: Timezone = ""
) -> Response:
    """What an account spent, by period and by model: for admins, and for the account itself."""
    return _stats(db, viewer, user_id, days, granularity, timezone)


# Money


@router.post(
    "/recharge",
    response_model=schemas.Recharged,
    responses=WRITING,
    openapi_extra=takes(schemas.RechargeRequest),
)
def recharge(actor: Admin, db: Db, body: Body, key: Key = None) -> Response:
    """Change an account's balance, up or down."""
    content = loads(body)
    wanted = parse(schemas.RechargeRequest, content)
    receipt = db.write(
        ledger.recharge, wanted.user_id, wanted.amount, actor=actor, remark=wanted.remark,
        once=once_of(actor, key, "recharge", content),
    )  # fmt: skip
    return ExactJSONResponse(
        schemas.Recharged(id=str(receipt.entry_id), balance=receipt.balance, status=receipt.status)
    )


_EXTRAS = {f"{kind}_tokens" for kind in EXTRA_TOKENS} | {"tools", "service_tier"}
_COUNTS = {f"{kind}_tokens" for kind in KINDS} | _EXTRAS


def _used(wanted: schemas.TokensRequest, own: str) -> tuple[dict[str, Tokens], bool]:
    """What a call used of each model, `own` standing for the one that is charged or held for; and whether it is said in which
    service tier. Raises Invalid."""
    if wanted.response is not None:
        if any(getattr(wanted, name) is not None for name in _COUNTS & wanted.model_fields_set):
            raise Invalid(N_("Send either token counts or the provider's response, not both."), field="response")
        found = usage.read(wanted.response, wanted.provider)
        return found.by_model(own), found.names_tier
    if wanted.prompt_tokens is None or wanted.completion_tokens is None:
        raise Invalid(
            N_("Send prompt_tokens and completion_tokens, or response: what the provider answered."),
            field="prompt_tokens" if wanted.prompt_tokens is None else "completion_tokens",
        )
    extras = None
    if not _EXTRAS.isdisjoint(wanted.model_fields_set):
        extras = Extras(
            **{kind: getattr(wanted, f"{kind}_tokens") for kind in EXTRA_TOKENS},
            tools=tuple(sorted(wanted.tools.items())),
            service_tier=None if wanted.service_tier is None else tier_named(wanted.service_tier),
        )
    tokens = Tokens(
        wanted.prompt_tokens,
        wanted.completion_tokens,
        wanted.cached_tokens,
        wanted.cache_creation_tokens,
        wanted.reasoning_tokens,
        extras if extras and extras != Extras() else None,
    )
    return {own: tokens}, wanted.service_tier is not None


def _charge(wanted: schemas.ChargeRequest, actor: Actor, key: str | None, content: dict[str, Any]) -> ledger.Charge:
    """The ledger's charge for a request. Its key counts alike in /charge and in /charges."""
    (model, tokens), *others = _used(wanted, wanted.model_id)[0].items()
    asked = {name: value for name, value in content.items() if name != "request_id"}
    return ledger.Charge(
        wanted.user_id, model, tokens, wanted.created_at, wanted.allow_debt,
        once_of(actor, key, "charge", asked), tuple(others),
    )  # fmt: skip


def charged(receipt: ledger.Receipt) -> dict[str, Any]:
    ids = [str(number) for number in (receipt.entry_id, *receipt.other_ids)]
    return {"id": ids[0], "cost": receipt.cost, "balance": receipt.balance, "status": receipt.status, "ids": ids}


LARGE_BYTES = 65_536
"""From so many on a body is read on a thread, so that it holds up nobody else."""


async def asked_charge(body: bytes, actor: Actor, key: str | None) -> ledger.Charge:
    """What the body of `POST /charge` asks for. Raises Malformed, Invalid."""

    def read() -> ledger.Charge:
        content = loads(body)
        return _charge(parse(schemas.ChargeRequest, content), actor, key, content)

    return read() if len(body) < LARGE_BYTES else await run_in_threadpool(read)


def _charge_together(
    place: tuple[Database, str | None], asked: Sequence[tuple[Actor, ledger.Charge]]
) -> list[ledger.Receipt | BillingError]:
    """One result a charge, in order; those of each actor are charged at once, all of them in one transaction."""
    calls: dict[Actor, list[ledger.Charge]] = {}
    for actor, call in asked:
        calls.setdefault(actor, []).append(call)

    if len(calls) == 1:
        ((actor, some),) = calls.items()
        return place[0].write(ledger.charge_many, some, actor=actor)

    def charge(tx: Transaction) -> dict[Actor, Iterator[ledger.Receipt | BillingError]]:
        return {actor: iter(ledger.charge_many(tx, some, actor=actor)) for actor, some in calls.items()}

    done = place[0].write(charge)
    return [next(done[actor]) for actor, _ in asked]


_charged_together = Together(_charge_together)


@router.post("/charge", response_model=schemas.Charged, responses=SPENDING, openapi_extra=takes(schemas.ChargeRequest))
async def charge(actor: Charger, db: Db, body: Body, key: Key = None) -> Response:
    """Take what a call costs off an account's balance."""
    call = await asked_charge(body, actor, key)
    # SQLite lets one write at a time. On Postgres accounts don't wait for each other, only charges of the same one do.
    place = db, None if db.is_sqlite else call.user_id
    return ExactJSONResponse(schemas.Charged(**charged(await _charged_together(place, (actor, call)))))


CHUNK = 1000
"""Charges in one transaction: the database's one writer is not kept for longer than that takes."""


def _charge_item(item: Any, actor: Actor) -> ledger.Charge | BillingError:
    if isinstance(item, bodies.BrokenLine):
        return item.error
    try:
        wanted = parse(schemas.ChargeItem, item)
        return _charge(wanted, actor, wanted.request_id, item)
    except BillingError as error:
        if isinstance(error, Invalid) and error.field == "Idempotency-Key":
            error.field = "request_id"
        return error
    except RecursionError:
        return Invalid(N_("The body is nested too deeply to be read."), field="response")


def _item_answer(item: Any, result: ledger.Receipt | BillingError, language: str) -> bytes:
    asked = item.get("request_id") if isinstance(item, dict) else None
    request_id = asked if isinstance(asked, str) else None
    if isinstance(result, BillingError):
        said = error_body(result, language)
        return dumps(schemas.ItemRefused(request_id=request_id, status_code=result.status, **said))
    # An ItemCharged, of which there may be thousands: without decimals, and a charge's request_id can be printed.
    return to_json({**charged(result), "request_id": request_id})


def _item_answers(
    items: Sequence[Any], results: Sequence[ledger.Receipt | BillingError], language: str, between: bytes
) -> bytes:
    return between.join(_item_answer(*pair, language) for pair in zip(items, results, strict=True))


def _charge_chunk(
    db: Database, items: Sequence[Any], actor: Actor, once: Once | None, part: int, language: str, between: bytes
) -> bytes:
    """The answers to items that are charged and remembered in one transaction, or what they were the first time. `once`: the whole
    request's, of which this is a part."""
    asked = [_charge_item(item, actor) for item in items]
    calls = [each for each in asked if isinstance(each, ledger.Charge)]

    def charge(tx: Transaction) -> bytes:
        # An item may have the request's key as its own; else no other request may.
        if once is not None and not any(call.once and call.once.key == once.key for call in calls):
            idempotency.claim(tx, once)
        done = iter(ledger.charge_many(tx, calls, actor=actor))
        results = [next(done) if isinstance(each, ledger.Charge) else each for each in asked]
        return _item_answers(items, results, language, between)

    return db.write(lambda tx: answer_once(tx, once and once.part(part), lambda: charge(tx)))


@router.post(
    "/charges",
    response_model=list[schemas.ItemCharged | schemas.ItemRefused],
    responses=WRITING,
    openapi_extra=takes_many(schemas.ChargeItem),
)
def charges(actor: Charger, db: Db, request: Request, body: Batch, key: Key = None) -> Response:
    """Charge many calls: one result an item, in order; one that is refused spoils no other."""
    ndjson = bodies.is_ndjson(request, body)
    items = bodies.lines(body) if ndjson else bodies.items(body)
    once = once_of(actor, key, "charges", ndjson, items)
    reader, between = language(request), b"\n" if ndjson else b","
    answers: list[bytes] = []
    try:
        for start in range(0, len(items) or 1, CHUNK):
            some = items[start : start + CHUNK]
            answers.append(_charge_chunk(db, some, actor, once, len(answers), reader, between))
    except DatabaseUnavailable as error:
        if not answers:
            raise
        others = items[len(answers) * CHUNK :]
        answers.append(_item_answers(others, [error] * len(others), reader, between))
    text = between.join(answers)
    if ndjson:
        return ExactJSONResponse(text and text + b"\n", media_type=bodies.NDJSON)
    return ExactJSONResponse(b"[%b]" % text)


# Holds


def _precharge_number(text: str | int) -> int:
    """A precharge's number. Raises NotFound for what can't be one."""
    if not re.fullmatch("[0-9]{1,18}", str(text)):
        raise NotFound(N_("There is no precharge {precharge_id}."), precharge_id=str(text)[:40])
    return int(text)


@router.post(
    "/precharge", response_model=schemas.Precharged, responses=SPENDING, openapi_extra=takes(schemas.PrechargeRequest)
)
def precharge(actor: Charger, db: Db, body: Body, key: Key = None) -> Response:
    """Hold the most that a call can cost, until it is settled or refunded, or time is up."""
    content = loads(body)
    wanted = parse(schemas.PrechargeRequest, content)
    receipt = db.write(
        ledger.precharge, wanted.user_id, wanted.model_id, wanted.prompt_tokens, wanted.max_completion_tokens,
        actor=actor, ttl_seconds=wanted.ttl_seconds, service_tier=wanted.service_tier,
        once=once_of(actor, key, "precharge", content),
    )  # fmt: skip
    return ExactJSONResponse(
        schemas.Precharged(
            precharge_id=str(receipt.entry_id),
            cost=receipt.cost,
            balance=receipt.balance,
            status=receipt.status,
            expires_at=receipt.expires_at_ns or 0,
        )
    )


@router.post("/settle", response_model=schemas.Settled, responses=WRITING, openapi_extra=takes(schemas.SettleRequest))
def settle(actor: HoldEnder, db: Db, body: Body, key: Key = None) -> Response:
    """End a hold with what the call really cost: the rest goes back, or more is taken."""
    content = loads(body)
    wanted = parse(schemas.SettleRequest, content)
    used, names_tier = _used(wanted, "")
    own = used.pop("", None)
    receipt = db.write(
        ledger.settle, _precharge_number(wanted.precharge_id), own, actor=actor,
        once=once_of(actor, key, "settle", content), others=tuple(used.items()), tier_of_hold=not names_tier,
    )  # fmt: skip
    return ExactJSONResponse(schemas.Settled(**charged(receipt), refunded=receipt.refunded))


@router.post("/refund", response_model=schemas.Refunded, responses=WRITING, openapi_extra=takes(schemas.RefundRequest))
def refund(actor: HoldEnder, db: Db, body: Body, key: Key = None) -> Response:
    """Give a hold back in full: the call failed."""
    content = loads(body)
    wanted = parse(schemas.RefundRequest, content)
    receipt = db.write(
        ledger.refund, _precharge_number(wanted.precharge_id), actor=actor, once=once_of(actor, key, "refund", content)
    )
    return ExactJSONResponse(
        schemas.Refunded(
            id=str(receipt.entry_id), refunded=receipt.refunded, balance=receipt.balance, status=receipt.status
        )
    )


# Accounts


def _account(account: Account, balance: Hao) -> schemas.AccountOut:
    return schemas.AccountOut(
        user_id=account.user_id,
        name=account.name,
        email=account.email,
        role=account.role,
        status=account.status,
        balance=balance,
        total_consumed=account.total_consumed,
        created_at=account.created_at_ns,
    )


@router.get("/accounts", response_model=list[schemas.AccountOut], responses=READING)
def list_accounts(actor: AdminReader, db: Db, search: Search = "") -> Response:
    """Every account, by name; with `search`, those whose id, name or email holds it."""

    def read(tx: Transaction) -> list[schemas.AccountOut]:
        found = accounts.listed(tx, actor=actor, search=search)
        return [_account(one, balance.left) for one, balance in zip(found, balances_of(tx, found), strict=True)]

    return ExactJSONResponse(db.read(read))


@router.post(
    "/accounts",
    response_model=schemas.AccountOut,
    responses=refusals(400, 401, 403, 409, 413),
    openapi_extra=takes(schemas.NewAccountRequest),
)
def add_account(actor: Admin, db: Db, body: Body, key: Key = None) -> Response:
    """Add an account with a balance of 0."""
    content = loads(body)
    wanted = parse(schemas.NewAccountRequest, content)
    once = once_of(actor, key, "accounts", content)

    def write(tx: Transaction) -> bytes:
        account = accounts.add(tx, wanted.user_id, wanted.name, actor=actor, email=wanted.email, role=wanted.role)
        if wanted.status != account.status:
            account = accounts.change(tx, account.user_id, actor=actor, status=wanted.status)
        return dumps(_account(account, ledger.balance(tx, account)))

    return ExactJSONResponse(db.write(lambda tx: answer_once(tx, once, lambda: write(tx))))


@router.patch(
    "/accounts/{user_id}",
    response_model=schemas.AccountOut,
    responses=WRITING,
    openapi_extra=takes(schemas.AccountChangeRequest),
)
def change_account(actor: Admin, db: Db, user_id: UserId, body: Body, key: Key = None) -> Response:
    """Change what is given; what is left out stays as it is."""
    content = loads(body)
    wanted = parse(schemas.AccountChangeRequest, content)
    once = once_of(actor, key, "accounts", user_id, content)

    def write(tx: Transaction) -> bytes:
        account = accounts.change(tx, user_id, actor=actor, **wanted.model_dump())
        return dumps(_account(account, ledger.balance(tx, account)))

    return ExactJSONResponse(db.write(lambda tx: answer_once(tx, once, lambda: write(tx))))


# The audit log


@router.get("/audit", response_model=list[schemas.AuditRow], responses=READING, dependencies=[ONLY_KNOWN])
def audit_log(
    actor: AdminReader, db: Db, request: Request, limit: Limit = 50, before: Before = None, kind: AuditKind = "",
    search: Search = "",
) -> Response:  # fmt: skip
    """Who did what that is no entry of the ledger, newest first."""
    rows = db.read(audit.page, actor=actor, limit=limit, before=before, kind=kind, search=search)
    return ExactJSONResponse([_audit_row(row, language(request)) for row in rows])


def _audit_row(row: audit.Noted, language: str) -> schemas.AuditRow:
    return schemas.AuditRow(
        id=str(row.id),
        created_at=row.at_ns,
        user_id=row.user_id,
        name=row.name,
        origin=row.origin,
        action=row.action,
        subject=row.subject,
        detail=row.detail,
        text=audit.sentence(row, language, when=lambda ns: iso(ns, UTC)),
    )
