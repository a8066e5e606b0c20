"""What requests and answers hold. 毫 (hao) are integers, 10 000 of them 1 元 (yuan); 元 are exact decimals."""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StrictBool, StrictInt, StrictStr, WithJsonSchema
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from billing_core import ledger, money, rates
from billing_core.errors import Invalid
from billing_core.i18n import N_

NS = "ns since 1970-01-01 (UTC)"

Yuan = Annotated[Decimal, WithJsonSchema({"type": "number"})]
"""元, as a JSON number that is exact."""
Status = Literal["active", "frozen"]
EntryType = Literal["deduct", "precharge", "settle", "refund", "expire", "recharge", "reversal"]


def _one_of(*values: str) -> dict[str, Any]:
    """Of text in an answer: the document names the values; that it is one of them, billing_core has seen to."""
    return {"enum": list(values)}


def _micro(value: object, info: ValidationInfo) -> int | None:
    """A price in 元 as money.parse_price gives it: 10⁻⁶ 元 per million tokens."""
    field = info.field_name or "price"
    try:
        # People write 1,234 for a thousand and more; of a program that writes it, nobody knows what it means.
        odd = isinstance(value, str) and not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value)
        if odd or isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            raise Invalid(
                N_("{name} must be a price in 元 per million tokens: a number like 0.5, or text like “0.5”."),
                name=field,
            )
        return money.parse_price(value, field=field)
    except Invalid as error:
        raise PydanticCustomError("refused", "no price", {"refusal": error}) from None


Price = Annotated[
    int,
    PlainValidator(_micro),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d{1,6})?$"}]}),
]
"""A price in a request, in 10⁻⁶ 元 per million tokens once it is read."""


# Requests


class Request(BaseModel):
    """Fields that are not named here are left alone: programs of the older system may send more."""


class RechargeRequest(Request):
    model_config = ConfigDict(json_schema_extra={"example": {"user_id": "ann", "amount": 1_000_000, "remark": "June"}})

    user_id: StrictStr = Field(description="The account's id.")
    amount: StrictInt = Field(
        description="毫, not 0: above 0 credits the account, below 0 debits it, into debt if need be."
    )
    remark: StrictStr = Field("", description="What it is for: at most 500 characters.")


class TierRequest(Request):
    """What tokens cost in calls with long prompts; what is absent falls under another kind, as in the price itself."""

    above_prompt_tokens: StrictInt = Field(description="It counts for prompts of more tokens than that.")
    input_price: Price = Field(description="元 per million input tokens.")
    output_price: Price = Field(description="元 per million output tokens.")
    cache_read_price: Price | None = Field(None, description="元 per million tokens read from a cache.")
    cache_write_price: Price | None = Field(None, description="元 per million tokens written to a cache.")
    cache_write_1h_price: Price | None = Field(None, description="元 per million tokens kept in a cache for an hour.")
    audio_input_price: Price | None = Field(None, description="元 per million tokens of audio that is sent.")
    image_input_price: Price | None = Field(None, description="元 per million tokens of images that are sent.")
    audio_output_price: Price | None = Field(None, description="元 per million tokens of audio that is made.")
    image_output_price: Price | None = Field(None, description="元 per million tokens of images that are made.")


class PriceRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"example": {"model_id": "openai/gpt-4o", "input_price": 18, "output_price": 72}}
    )

    model_id: StrictStr = Field(description="The model's name, 1 to 200 characters.")
    input_price: Price = Field(description="元 per million input tokens, 0 or more, exact to six places.")
    output_price: Price = Field(description="元 per million output tokens, 0 or more, exact to six places.")
    cache_read_price: Price | None = Field(
        None, description="元 per million input tokens read from a cache. Without it: the same as input_price."
    )
    cache_write_price: Price | None = Field(
        None, description="元 per million input tokens written to a cache. Without it: the same as input_price."
    )
    cache_write_1h_price: Price | None = Field(
        None,
        description="元 per million input tokens kept in a cache for an hour. Without it: the same as cache_write_price.",
    )
    audio_input_price: Price | None = Field(None, description="Of audio. Without it: the same as input_price.")
    image_input_price: Price | None = Field(None, description="Of images. Without it: the same as input_price.")
    audio_output_price: Price | None = Field(None, description="Of audio. Without it: the same as output_price.")
    image_output_price: Price | None = Field(None, description="Of images. Without it: the same as output_price.")
    call_price: Price | None = Field(None, description="元 for each call, besides its tokens.")
    tool_prices: dict[StrictStr, Price] = Field(
        {},
        description="元 for each call of a tool, by its name, like web_search.",
        json_schema_extra={"maxProperties": rates.MAX_NAMED},
    )
    tiers: list[TierRequest] = Field(
        [],
        description="What tokens cost in calls with long prompts: of the tiers that a prompt exceeds the last counts.",
        json_schema_extra={"maxItems": rates.MAX_TIERS},
    )
    service_tiers: dict[StrictStr, Price] = Field(
        {},
        description="What tokens cost in a service tier, as a multiple, like batch: 0.5.",
        json_schema_extra={"maxProperties": rates.MAX_NAMED},
    )
    valid_from: StrictStr | None = Field(
        None,
        description="From when on the price counts: ISO 8601 with an offset, not in the past. Without it: now.",
        json_schema_extra={"format": "date-time"},
    )


class RuleRequest(Request):
    model_config = ConfigDict(json_schema_extra={"example": {"pattern": "openrouter/*", "target": "*"}})

    pattern: StrictStr = Field(description="Models' names, in which each * stands for any text.")
    target: StrictStr = Field(description="The model whose price counts; each * is what the pattern's was, in order.")


class EndRuleRequest(Request):
    model_config = ConfigDict(json_schema_extra={"example": {"pattern": "openrouter/*"}})

    pattern: StrictStr = Field(description="The rule's pattern.")


class WithdrawRequest(Request):
    model_config = ConfigDict(json_schema_extra={"example": {"price_id": "17"}})

    price_id: StrictStr | StrictInt = Field(description="The planned price's number.")


class TokensRequest(Request):
    """A call's tokens: either the counts, or what the provider answered."""

    prompt_tokens: StrictInt | None = Field(
        None, description="Tokens: all input, cached tokens included. Either this and completion_tokens, or response."
    )
    completion_tokens: StrictInt | None = Field(None, description="Tokens: all output, reasoning included.")
    cached_tokens: StrictInt = Field(0, description="Tokens: the part of prompt_tokens that was read from a cache.")
    cache_creation_tokens: StrictInt = Field(
        0, description="Tokens: the part of prompt_tokens that was written to a cache."
    )
    reasoning_tokens: StrictInt = Field(0, description="Tokens: the part of completion_tokens that was reasoning.")
    cache_creation_1h_tokens: StrictInt = Field(
        0, description="Tokens: the part of cache_creation_tokens that is kept for an hour."
    )
    audio_input_tokens: StrictInt = Field(0, description="Tokens: the part of the uncached input that was audio.")
    image_input_tokens: StrictInt = Field(0, description="Tokens: the part of the uncached input that was images.")
    audio_output_tokens: StrictInt = Field(0, description="Tokens: the part of completion_tokens that was audio.")
    image_output_tokens: StrictInt = Field(0, description="Tokens: the part of completion_tokens that was images.")
    tools: dict[StrictStr, StrictInt] = Field(
        default_factory=dict,  # pydantic would copy a value each time, in five times as long
        description="How often tools were called that are charged by the call.",
        json_schema_extra={"default": {}},
    )
    service_tier: StrictStr | None = Field(
        None, description="batch, flex, priority…, where it isn't the usual one: a price may have a multiple for it."
    )
    response: Annotated[
        Any, WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "array", "items": {}}, {"type": "string"}]})
    ] = Field(
        None,
        description="Instead of counts: what the provider sent, its JSON body, or the text of its event stream.",
    )
    provider: StrictStr | None = Field(
        None, description="Who sent the response, such as xai: settles what a body may leave open."
    )


class ChargeRequest(TokensRequest):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "user_id": "ann",
                "model_id": "openai/gpt-4o",
                "prompt_tokens": 1000,
                "completion_tokens": 200,
                "cached_tokens": 600,
            }
        }
    )

    user_id: StrictStr = Field(description="The id of the account that pays.")
    model_id: StrictStr = Field(description="The model's name.")
    created_at: StrictInt | None = Field(
        None, description=f"When the call was made, in {NS}: its price counts. Without it: now."
    )
    allow_debt: StrictBool = Field(
        False, description="true: the call has been made, so it is booked in full even where the balance falls below 0."
    )


class ChargeItem(ChargeRequest):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "request_id": "call-1",
                "user_id": "ann",
                "model_id": "openai/gpt-4o",
                "prompt_tokens": 1000,
                "completion_tokens": 200,
            }
        }
    )

    request_id: StrictStr = Field(
        description="The charge's idempotency key, 1 to 255 characters: the same one is charged once."
    )


class PrechargeRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "user_id": "ann",
                "model_id": "openai/gpt-4o",
                "prompt_tokens": 1000,
                "max_completion_tokens": 4096,
            }
        }
    )

    user_id: StrictStr = Field(description="The id of the account that pays.")
    model_id: StrictStr = Field(description="The model's name.")
    prompt_tokens: StrictInt = Field(description="Tokens: all input.")
    max_completion_tokens: StrictInt = Field(description="Tokens: the most output that there can be.", ge=0, le=10**9)
    service_tier: StrictStr | None = Field(
        None, description="The service tier that is asked for, like batch or priority."
    )
    ttl_seconds: StrictInt = Field(
        ledger.DEFAULT_TTL_SECONDS,
        description=f"Seconds until the hold is given back by itself: 1 to {ledger.MAX_TTL_SECONDS} (a week).",
    )


class SettleRequest(TokensRequest):
    model_config = ConfigDict(
        json_schema_extra={"example": {"precharge_id": "17", "prompt_tokens": 1000, "completion_tokens": 200}}
    )

    precharge_id: StrictStr | StrictInt = Field(description="The precharge's id.")


class RefundRequest(Request):
    model_config = ConfigDict(json_schema_extra={"example": {"precharge_id": "17"}})

    precharge_id: StrictStr | StrictInt = Field(description="The precharge's id.")


class NewAccountRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"example": {"user_id": "ann", "name": "Ann", "email": "ann@example.com"}}
    )

    user_id: StrictStr = Field(description="The id: 1 to 64 characters without spaces and / ? # %. It never changes.")
    name: StrictStr = Field(description="The name that is shown: 1 to 100 characters.")
    email: StrictStr = Field("", description="An email address, or nothing.")
    role: Literal["member", "admin"] = Field("member", description="member or admin.")
    status: Status = Field("active", description="active, or frozen: nothing new can be charged to it.")


class AccountChangeRequest(Request):
    """What is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "frozen"}})

    name: StrictStr | None = Field(None, description="The name that is shown: 1 to 100 characters.")
    email: StrictStr | None = Field(None, description="An email address; empty text takes it away.")
    role: Literal["member", "admin"] | None = Field(None, description="member or admin.")
    status: Status | None = Field(None, description="active, or frozen: nothing new can be charged to it.")


class SelectionRequest(Request):
    """Entries: by filters, all of which have to let them through, or by `ids`, or what a job has reversed."""

    model_config = ConfigDict(
        extra="forbid",  # a filter that is misspelt would let everything through
        json_schema_extra={"example": {"user_id": "ann", "types": ["deduct"], "start": "2026-11-24T00:00:00+08:00"}},
    )

    user_id: StrictStr | None = Field(None, description="Only this account's.")
    start: StrictStr | None = Field(
        None, description="From when on: ISO 8601 with its offset.", json_schema_extra={"format": "date-time"}
    )
    end: StrictStr | None = Field(
        None, description="Up to, not including: ISO 8601 with its offset.", json_schema_extra={"format": "date-time"}
    )
    model: StrictStr = Field("", description="Only of this model.")
    types: list[EntryType] = Field([], description="Only of these types.")
    search: StrictStr = Field("", description="Text in the remark.")
    ids: list[StrictStr | StrictInt] | None = Field(None, description="The entries' ids, instead of filters.")
    job_id: StrictStr | StrictInt | None = Field(
        None, description="What this job has done, instead of filters: that undoes the job."
    )


class ReversalsRequest(SelectionRequest):
    """A selection as it was previewed: it is refused (409) where it is another one by now."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "user_id": "ann", "types": ["deduct"], "reason": "a wrong price",
                "last_id": "831", "entries": 22, "to_reverse": 22, "amount": 215712,
            }
        }
    )  # fmt: skip

    reason: StrictStr = Field(description="Why: it stands beside each reversal. 1 to 500 characters.")
    last_id: StrictStr | StrictInt = Field(description="As the preview says it: nothing later is reversed.")
    entries: StrictInt = Field(description="As the preview says it.")
    to_reverse: StrictInt = Field(description="As the preview says it.")
    amount: StrictInt = Field(description="毫, as the preview says it.")


class RepricingsRequest(SelectionRequest):
    """A selection as it was previewed: it is refused (409) where it is another one by now, or a price has changed."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "openai/gpt-4o", "types": ["deduct", "settle"], "reason": "a wrong price", "last_id": "831",
                "entries": 22, "to_reprice": 20, "amount": 107856, "prices": "0f5a33c1d2b07e94",
            }
        }
    )  # fmt: skip

    reason: StrictStr = Field(description="Why: it stands beside each reversal and new charge. 1 to 500 characters.")
    last_id: StrictStr | StrictInt = Field(description="As the preview says it: nothing later is repriced.")
    entries: StrictInt = Field(description="As the preview says it.")
    to_reprice: StrictInt = Field(description="As the preview says it.")
    amount: StrictInt = Field(description="毫, as the preview says it.")
    prices: StrictStr = Field(description="As the preview says it.")


REQUESTS: tuple[type[BaseModel], ...] = (
    RechargeRequest,
    PriceRequest,
    RuleRequest,
    EndRuleRequest,
    WithdrawRequest,
    ChargeRequest,
    ChargeItem,
    PrechargeRequest,
    SettleRequest,
    RefundRequest,
    NewAccountRequest,
    AccountChangeRequest,
    SelectionRequest,
    ReversalsRequest,
    RepricingsRequest,
)


# Answers


class Balance(BaseModel):
    balance: int = Field(description="毫 that may still be spent; below 0 is owed.")
    total_consumed: int = Field(description="毫 spent on calls in all, less what was reversed.")
    billing_status: str = Field(
        json_schema_extra=_one_of("active", "frozen"), description="active, or frozen: nothing new can be charged."
    )
    held: int = Field(description="毫 that open precharges hold: off the balance, not yet consumed.")


class Recharged(BaseModel):
    id: str = Field(description="The entry's id.")
    balance: int = Field(description="毫 after it.")
    status: str = Field(json_schema_extra=_one_of("active", "frozen"), description="The account's status.")


class LogRow(BaseModel):
    id: str = Field(description="The entry's id.")
    type: str = Field(
        json_schema_extra=_one_of(*get_args(EntryType)),
        description="What happened. Only deduct and settle are consumption.",
    )
    model_id: str | None = Field(description="The model's name; null where there is none.")
    amount: int = Field(description="毫 that the entry adds to the balance; below 0 it takes.")
    cost: int = Field(
        description="毫: what a deduct or settle cost, what a precharge holds, what a reversal takes back (below 0)."
    )
    balance_after: int = Field(description="毫 after the entry.")
    prompt_tokens: int = Field(description="Tokens: all input.")
    completion_tokens: int = Field(description="Tokens: all output.")
    cached_tokens: int = Field(description="Tokens: the part of the input that was read from a cache.")
    cache_creation_tokens: int = Field(description="Tokens: the part of the input that was written to a cache.")
    reasoning_tokens: int = Field(description="Tokens: the part of the output that was reasoning.")
    created_at: int = Field(description=f"When it happened, in {NS}.")
    precharge_id: str | None = Field(description="The precharge that the entry is, or ends.")
    reverses_id: str | None = Field(description="The entry that this one undoes.")
    remark: str = Field(description="A recharge's remark or a reversal's reason.")
    reprices_id: str | None = Field(description="The entry that this charge stands for, at another price.")
    extras: dict[str, Any] | None = Field(
        description="What else the call used, and what is known about it: cache_creation_1h, audio_input, image_input, "
        "audio_output, image_output (tokens), tools (calls by name), service_tier, stated_total (the provider's own, where "
        "its parts don't add up to it), cut (parts that were reported larger than their whole). null: nothing."
    )
    upstream_usd: Decimal | None = Field(
        json_schema_extra={"type": "number"},
        description="US dollars that the provider asks for the call; for admins, where it is known.",
    )


class RechargeRow(BaseModel):
    id: str = Field(description="The entry's id.")
    user_id: str = Field(description="The account's id.")
    amount: int = Field(description="毫: above 0 credited, below 0 debited.")
    balance_after: int = Field(description="毫 after it.")
    operator_id: str | None = Field(description="The id of whoever did it; “shell” where it was done from the shell.")
    operator_name: str | None = Field(description="The name of whoever did it.")
    remark: str = Field(description="What it was for.")
    created_at: int = Field(description=f"When, in {NS}.")


class AuditRow(BaseModel):
    id: str = Field(description="The row's id: `before` takes it.")
    created_at: int = Field(description=f"When, in {NS}.")
    user_id: str | None = Field(description="The id of whoever did it; null: the shell, or nobody yet.")
    name: str | None = Field(description="Their name.")
    origin: str = Field(description="From where: page, shell, setup link, or the first characters of a key.")
    action: str = Field(description="What was done, by a fixed name like price.set.")
    subject: str = Field(description="Whom or what it was done to.")
    detail: dict[str, Any] = Field(
        description="What changed: [from, to] by field. Prices are in 10⁻⁶ 元 per million tokens."
    )
    text: str = Field(description="The same as a sentence, in the language of Accept-Language.")


class Verified(BaseModel):
    same: bool = Field(description="Whether the ledger still says the same.")
    text: str = Field(description="The same as a sentence, which names the first row that differs.")
    entry_id: str | None = Field(description="The entry that differs first; null: none, or it is no entry.")
    user_id: str = Field(description="The account that the statement is of.")
    month: str = Field(description="Its month, like 2026-10.")
    timezone: str = Field(description="The zone in which the month is cut.")
    seal: int = Field(description="The number of the newest seal when it was made.")


class PeriodCost(BaseModel):
    date: str = Field(description="The period's label: 14:00, 11-24 or 2026-11.")
    start: str = Field(description="When the period starts: ISO 8601 with its offset.")
    cost: Yuan = Field(description="元, exact.")
    by_model: dict[str, Yuan] = Field(description="元 by the model's name, exact.")


class ModelCost(BaseModel):
    model: str = Field(description="The model's name.")
    cost: Yuan = Field(description="元, exact.")
    count: int = Field(description="Calls.")


class Stats(BaseModel):
    daily: list[PeriodCost] = Field(description="A row a period, oldest first, the current one included.")
    by_model: list[ModelCost] = Field(description="A row a model, dearest first.")
    models: list[str] = Field(description="The models' names, sorted.")


class TierOut(BaseModel):
    above_prompt_tokens: int = Field(description="It counts for prompts of more tokens than that.")
    input_price: Yuan = Field(description="元 per million input tokens.")
    output_price: Yuan = Field(description="元 per million output tokens.")
    cache_read_price: Yuan | None = Field(None, description="元 per million tokens read from a cache.")
    cache_write_price: Yuan | None = Field(None, description="元 per million tokens written to a cache.")
    cache_write_1h_price: Yuan | None = Field(None, description="元 per million tokens kept in a cache for an hour.")
    audio_input_price: Yuan | None = Field(None, description="元 per million tokens of audio that is sent.")
    image_input_price: Yuan | None = Field(None, description="元 per million tokens of images that are sent.")
    audio_output_price: Yuan | None = Field(None, description="元 per million tokens of audio that is made.")
    image_output_price: Yuan | None = Field(None, description="元 per million tokens of images that are made.")


class PriceOut(BaseModel):
    model_id: str = Field(description="The model's name.")
    input_price: Yuan = Field(description="元 per million input tokens, exact.")
    output_price: Yuan = Field(description="元 per million output tokens, exact.")
    cache_read_price: Yuan = Field(description="元 per million input tokens read from a cache, exact.")
    cache_write_price: Yuan = Field(description="元 per million input tokens written to a cache, exact.")
    source: str = Field(
        json_schema_extra=_one_of("database", "default"), description="database: set by an admin. default: built in."
    )
    source_detail: str = Field(
        json_schema_extra=_one_of("database", "catalogue", "default"),
        description="Of a built-in price: catalogue is this model's own, default the one for models that have none.",
    )
    valid_from: str | None = Field(description="From when on it counts: ISO 8601, UTC; null for a built-in price.")
    price_id: str | None = Field(None, description="The number of a set price: POST /price-plans/withdraw takes it.")
    decided_by: str = Field(
        "price",
        json_schema_extra=_one_of("price", "rule", "catalogue", "default"),
        description="What decided: the model's own price, a rule, the built-in catalogue, or the default.",
    )
    rule: str | None = Field(None, description="The pattern of the rule that decided.")
    priced_as: str | None = Field(None, description="The model whose price it is, by that rule.")
    cache_write_1h_price: Yuan | None = Field(None, description="null: the same as cache_write_price.")
    audio_input_price: Yuan | None = Field(None, description="null: the same as input_price.")
    image_input_price: Yuan | None = Field(None, description="null: the same as input_price.")
    audio_output_price: Yuan | None = Field(None, description="null: the same as output_price.")
    image_output_price: Yuan | None = Field(None, description="null: the same as output_price.")
    call_price: Yuan = Field(Decimal(0), description="元 for each call.")
    tool_prices: dict[str, Yuan] = Field({}, description="元 for each call of a tool.")
    tiers: list[TierOut] = Field([], description="What tokens cost in calls with long prompts.")
    service_tiers: dict[str, Yuan] = Field({}, description="What tokens cost in a service tier, as a multiple.")


class PlanOut(PriceOut):
    """A price whose start is still to come."""

    retires: bool = Field(
        False,
        description="true: from then on no price is set, so that a rule or the built-in price counts; prices are null.",
    )
    input_price: Yuan | None = Field(description="元 per million input tokens, exact.")  # type: ignore[assignment]
    output_price: Yuan | None = Field(description="元 per million output tokens, exact.")  # type: ignore[assignment]
    cache_read_price: Yuan | None = Field(description="元 per million input tokens read from a cache, exact.")  # type: ignore[assignment]
    cache_write_price: Yuan | None = Field(description="元 per million input tokens written to a cache, exact.")  # type: ignore[assignment]


class RuleOut(BaseModel):
    pattern: str = Field(description="Models' names, in which each * stands for any text.")
    target: str = Field(description="The model whose price counts.")
    since: str = Field(description="From when on: ISO 8601, UTC.")


class Charged(BaseModel):
    id: str = Field(description="The entry's id.")
    cost: int = Field(description="毫 that the call cost.")
    balance: int = Field(description="毫 after it.")
    status: str = Field(json_schema_extra=_one_of("active", "frozen"), description="The account's status.")
    ids: list[str] = Field(description="Every entry's id: several where rounds of the call ran on different models.")


class ItemCharged(Charged):
    request_id: str | None = Field(description="The item's own request_id.")


class ItemRefused(BaseModel):
    request_id: str | None = Field(description="The item's own request_id; null where it has none.")
    error: Literal[True] = Field(default=True, description="Always true: nothing was charged.")
    detail: str = Field(description="What is wrong and what to do, in one sentence.")
    errors: list["FieldError"] = Field(default=[], description="For 422: the fields that are wrong.")
    status_code: int = Field(description="The status that POST /charge would have answered.")


class Precharged(BaseModel):
    precharge_id: str = Field(description="The precharge's id, to settle or refund it by.")
    cost: int = Field(description="毫 that are held.")
    balance: int = Field(description="毫 after it.")
    status: str = Field(json_schema_extra=_one_of("active", "frozen"), description="The account's status.")
    expires_at: int = Field(description=f"When the hold is given back by itself, in {NS}.")


class Settled(Charged):
    refunded: int = Field(description="毫 that came back of the hold; 0 where the call cost more than it.")


class Refunded(BaseModel):
    id: str = Field(description="The entry's id.")
    refunded: int = Field(description="毫 that came back.")
    balance: int = Field(description="毫 after it.")
    status: str = Field(json_schema_extra=_one_of("active", "frozen"), description="The account's status.")


class AccountOut(BaseModel):
    user_id: str = Field(description="The account's id.")
    name: str = Field(description="The name that is shown.")
    email: str = Field(description="An email address, or empty.")
    role: str = Field(json_schema_extra=_one_of("member", "admin"), description="member or admin.")
    status: str = Field(
        json_schema_extra=_one_of("active", "frozen"),
        description="active, or frozen: nothing new can be charged to it.",
    )
    balance: int = Field(description="毫 that may still be spent; below 0 is owed.")
    total_consumed: int = Field(description="毫 spent on calls in all, less what was reversed.")
    created_at: int = Field(description=f"Since when it exists, in {NS}.")


class OnAccount(BaseModel):
    user_id: str = Field(description="The account's id.")
    name: str = Field(description="The name that is shown.")
    entries: int = Field(description="How many of its entries are reversed.")
    before: int = Field(description="毫 on the balance now.")
    after: int = Field(description="毫 on the balance then; below 0 is owed.")


class ReversalsPreview(BaseModel):
    last_id: str = Field(description="The newest entry's id: nothing later is in the selection.")
    entries: int = Field(description="How many entries are selected.")
    to_reverse: int = Field(description="How many of them can be reversed.")
    amount: int = Field(description="毫 that the reversals add to all balances.")
    types: dict[str, int] = Field(description="How many of each type are reversed.")
    left_alone: dict[str, int] = Field(
        description="How many are not: reversed (already), paired (with another one of the selection, which they undo), or "
        "a precharge that has ended by settle, refund or expire."
    )
    accounts: list[OnAccount] = Field(description="What it does to each account, by id.")


class FourPrices(BaseModel):
    input_price: Yuan = Field(description="元 per million input tokens, exact.")
    output_price: Yuan = Field(description="元 per million output tokens, exact.")
    cache_read_price: Yuan = Field(description="元 per million input tokens read from a cache, exact.")
    cache_write_price: Yuan = Field(description="元 per million input tokens written to a cache, exact.")


class RepricedModel(BaseModel):
    model_id: str = Field(description="The model's name.")
    entries: int = Field(description="How many calls are repriced that were charged at this price.")
    old: int = Field(description="毫 that they cost.")
    new: int = Field(description="毫 that they will cost.")
    before: FourPrices = Field(description="The price at which they were charged.")
    after: FourPrices = Field(description="The price that counts now.")


class RepricedAccount(BaseModel):
    user_id: str = Field(description="The account's id.")
    name: str = Field(description="The name that is shown.")
    entries: int = Field(description="How many of its calls are repriced.")
    old: int = Field(description="毫 that they cost.")
    new: int = Field(description="毫 that they will cost.")
    before: int = Field(description="毫 on the balance now.")
    after: int = Field(description="毫 on the balance then; below 0 is owed.")


class RepricingsPreview(BaseModel):
    last_id: str = Field(description="The newest entry's id: nothing later is in the selection.")
    entries: int = Field(description="How many entries are selected.")
    to_reprice: int = Field(description="How many of them are charged again.")
    amount: int = Field(description="毫 that it adds to all balances.")
    prices: str = Field(description="A fingerprint of the prices that count now.")
    old: int = Field(description="毫 that the calls cost.")
    new: int = Field(description="毫 that they will cost.")
    left_alone: dict[str, int] = Field(
        description="How many are not: reversed (already), same_cost, no_call, or too_much (for an entry)."
    )
    models: list[RepricedModel] = Field(description="What it does to each model's calls, by name and price.")
    accounts: list[RepricedAccount] = Field(description="What it does to each account, by id.")


class ReversalRefused(BaseModel):
    id: str = Field(description="The entry's id.")
    detail: str = Field(description="Why it was left as it is, in the language of Accept-Language.")


class ReversalJob(BaseModel):
    id: str = Field(description="The job's id.")
    operator_id: str = Field(description="Who began it.")
    reason: str = Field(description="Why.")
    created_at: int = Field(description=f"When it was begun, in {NS}.")
    finished_at: int | None = Field(description=f"When nothing was left to do, in {NS}; null before.")
    entries: int = Field(description="How many entries were selected.")
    reversed: int = Field(description="How many are reversed by now.")
    refused: int = Field(description="How many were left as they are.")
    left: int = Field(description="How many are still to be reversed.")
    reprices: bool = Field(description="Whether each is charged again at another price, in the same moment.")
    refusals: list[ReversalRefused] = Field(description="Of those left as they are the first 50, and why.")


class Health(BaseModel):
    status: str = Field(description="`ok`: the server lives.", json_schema_extra=_one_of("ok"))


class Ready(BaseModel):
    status: str = Field(description="`ready`: the server can serve.", json_schema_extra=_one_of("ready"))
    revision: str = Field(description="The revision of the database's tables.")


class Error(BaseModel):
    detail: str = Field(description="What is wrong and what to do, in one sentence. Follows Accept-Language.")


class FieldError(BaseModel):
    field: str = Field(description="The field's name.")
    message: str = Field(description="What is wrong with it and what to do, in one sentence.")


class InvalidError(Error):
    errors: list[FieldError] = Field(description="The fields that are wrong.")
