"""Prices of many components, plans and rules over HTTP, and calls that use more than four kinds."""

from typing import Any

import httpx
import pytest
from billing_http import Api, sentence

from billing_core import ledger, pricing
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database

RICH: dict[str, Any] = {
    "model_id": "house/rich", "input_price": 10, "output_price": "20.5", "cache_write_price": 12, "cache_write_1h_price": 16,
    "audio_input_price": 80, "call_price": 0.001, "tool_prices": {"web_search": 0.07},
    "tiers": [{"above_prompt_tokens": 100_000, "input_price": 30, "output_price": 40, "cache_read_price": 3}],
    "service_tiers": {"batch": 0.5},
}  # fmt: skip


def send(api: Api, who: str, method: str, path: str, **more: Any) -> httpx.Response:
    """As boss, with a key that may charge, or without any."""
    key = {"admin": "", "nobody": None, "charger": CHARGER.setdefault(api.boss, "")}[who]
    if who == "charger" and not key:
        key = CHARGER[api.boss] = api.key("ann", "charge")
    return api.send(method, path, key=key, **more)


CHARGER: dict[str, str] = {}
"""A charging key by the admin's of the same database."""


def charged(api: Api, **used: Any) -> int:
    body = {"user_id": "ann", "model_id": "house/rich", "prompt_tokens": 0, "completion_tokens": 0} | used
    answer = send(api, "charger", "POST", "/charge", json=body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["cost"])


@pytest.fixture
def api(db: Database) -> Api:
    api = Api(db)
    api.db.write(ledger.recharge, "ann", 10**9, actor=SHELL)
    answer = send(api, "admin", "POST", "/pricing", json=RICH)
    assert answer.status_code == 200, answer.text
    return api


def test_a_price_is_given_back_as_it_was_set(api: Api) -> None:
    given = send(api, "nobody", "GET", "/pricing/house/rich").json()
    for name, value in {**RICH, "output_price": 20.5}.items():
        if name != "tiers":
            assert given[name] == value, name
    (tier,) = given["tiers"]
    assert {name: value for name, value in tier.items() if value is not None} == RICH["tiers"][0]
    assert (given["source"], given["decided_by"], given["audio_output_price"]) == ("database", "price", None)
    assert next(one for one in send(api, "nobody", "GET", "/pricing").json() if one["model_id"] == "house/rich")[
        "tool_prices"
    ] == {"web_search": 0.07}


@pytest.mark.parametrize(
    ("used", "cost"),
    [
        ({"prompt_tokens": 1_000_000 // 10}, 10_010),
        ({"prompt_tokens": 1_000_000}, 300_010),
        ({"prompt_tokens": 1_000, "cache_creation_tokens": 1_000, "cache_creation_1h_tokens": 500}, 150),
        ({"prompt_tokens": 1_000, "audio_input_tokens": 500}, 460),
        ({"tools": {"web_search": 2}}, 1_410),
        ({"prompt_tokens": 100_000, "service_tier": "batch"}, 5_010),
        ({}, 10),
    ],
)
def test_a_call_costs_what_it_used(api: Api, used: dict[str, Any], cost: int) -> None:
    assert charged(api, **used) == cost
    assert not check(api.db)


def test_a_response_is_charged_kind_by_kind(api: Api) -> None:
    usage = {
        "input_tokens": 100, "output_tokens": 0, "cache_creation_input_tokens": 900,
        "cache_creation": {"ephemeral_1h_input_tokens": 400}, "server_tool_use": {"web_search_requests": 1}, "service_tier": "batch",
    }  # fmt: skip
    body = {"user_id": "ann", "model_id": "house/rich", "response": {"type": "message", "model": "x", "usage": usage}}
    assert (
        send(api, "charger", "POST", "/charge", json=body).json()["cost"] == 777
    )  # (100×10 + 500×12 + 400×16) / 2 + 0.001 + 0.07


def test_a_precharge_in_a_service_tier_holds_what_it_can_cost_there(api: Api) -> None:
    body = {"user_id": "ann", "model_id": "house/rich", "prompt_tokens": 1_000, "max_completion_tokens": 0}
    usual = send(api, "charger", "POST", "/precharge", json=body).json()["cost"]
    assert (
        usual,
        send(api, "charger", "POST", "/precharge", json=body | {"service_tier": "batch"}).json()["cost"],
    ) == (810, 410)


@pytest.mark.parametrize(("asked", "cost"), [("batch", 500), (" BATCH", 500), ("Standard", 1000), ("new", 1000)])
def test_a_service_tier_is_the_same_however_it_is_written_and_whoever_names_it(api: Api, asked: str, cost: int) -> None:
    price = {"model_id": "m", "input_price": 100, "output_price": 0, "service_tiers": {"Batch": 0.5}}
    assert send(api, "admin", "POST", "/pricing", json=price).json()["service_tiers"] == {"batch": 0.5}
    call, counts = {"user_id": "ann", "model_id": "m"}, {"prompt_tokens": 1000, "completion_tokens": 0}
    response = {"object": "chat.completion", "usage": counts, "service_tier": asked}
    hold = {**call, "prompt_tokens": 1000, "max_completion_tokens": 0, "service_tier": asked}
    asked_for = [
        ("/charge", {**call, **counts, "service_tier": asked}),
        ("/charge", {**call, "response": response}),
        ("/precharge", hold),
    ]
    assert [send(api, "charger", "POST", path, json=body).json()["cost"] for path, body in asked_for] == [cost] * 3
    assert not check(api.db)


@pytest.mark.parametrize(
    ("told", "cost"),
    [
        ({"prompt_tokens": 1000, "completion_tokens": 0}, 500),
        ({"prompt_tokens": 1000, "completion_tokens": 0, "service_tier": "default"}, 1000),
        ({"prompt_tokens": 1000, "completion_tokens": 0, "service_tier": "flex"}, 700),
        ({"response": {"usage": {"prompt_tokens": 1000, "completion_tokens": 0}}}, 500),
        ({"response": {"usage": {"prompt_tokens": 1000, "completion_tokens": 0}, "service_tier": "default"}}, 1000),
        ({"response": {"usage": {"prompt_tokens": 1000, "completion_tokens": 0}, "service_tier": "flex"}}, 700),
        ({"response": {"type": "message", "model": "a", "usage": {"input_tokens": 500, "output_tokens": 0, "iterations": [
            {"model": "m/other", "input_tokens": 500, "output_tokens": 0}, {"input_tokens": 500, "output_tokens": 0}]}}}, 500),
    ],
)  # fmt: skip
def test_a_settle_that_names_no_service_tier_is_in_that_of_its_hold(api: Api, told: dict[str, Any], cost: int) -> None:
    for model in ("m", "m/other"):
        price = {"model_id": model, "input_price": 100, "output_price": 0, "service_tiers": {"batch": 0.5, "flex": 0.7}}
        assert send(api, "admin", "POST", "/pricing", json=price).status_code == 200
    hold = {"user_id": "ann", "model_id": "m", "prompt_tokens": 1000, "max_completion_tokens": 0}
    held = send(api, "charger", "POST", "/precharge", json=hold | {"service_tier": "batch"}).json()
    settled = send(api, "charger", "POST", "/settle", json={"precharge_id": held["precharge_id"]} | told).json()
    assert (held["cost"], settled["cost"], settled["refunded"]) == (500, cost, max(0, 500 - cost))
    assert not check(api.db)


def test_a_settle_charges_no_model_that_was_not_called(api: Api) -> None:
    """All rounds of the answer were another model's: the hold is given back, and what they used is charged as ever."""
    for model in ("m/x", "m/y"):
        price = {"model_id": model, "input_price": 1, "output_price": 2, "call_price": 0.01}
        assert send(api, "admin", "POST", "/pricing", json=price).status_code == 200
    rounds = [{"model": "m/y", "input_tokens": n, "output_tokens": 5} for n in (990, 20)]
    usage = {"input_tokens": 10, "output_tokens": 5, "iterations": rounds}
    response = {"type": "message", "model": "claude-x", "usage": usage}
    call = send(api, "charger", "POST", "/charge", json={"user_id": "ann", "model_id": "m/x", "response": response})
    hold = {"user_id": "ann", "model_id": "m/x", "prompt_tokens": 2000, "max_completion_tokens": 0}
    held = send(api, "charger", "POST", "/precharge", json=hold).json()
    before = send(api, "admin", "GET", "/balance/ann").json()
    asked = {"json": {"precharge_id": held["precharge_id"], "response": response}, "headers": {"Idempotency-Key": "s"}}
    settled = send(api, "charger", "POST", "/settle", **asked)
    assert (settled.json()["cost"], call.json()["cost"], settled.json()["refunded"]) == (111, 111, held["cost"] - 111)
    assert settled.json()["balance"] == before["balance"] + held["cost"] - 111
    assert send(api, "charger", "POST", "/settle", **asked).json() == settled.json()
    used = send(api, "admin", "GET", "/stats/ann").json()["by_model"]
    assert [(one["model"], one["count"]) for one in used] == [("m/y", 2)]
    assert send(api, "admin", "GET", "/balance/ann").json()["held"] == 0
    again = send(api, "charger", "POST", "/settle", json=asked["json"])
    assert "refunded already" in sentence(again, 409)
    assert not check(api.db)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"audio_input_price": -1}, "audio_input_price"),
        ({"call_price": "x"}, "call_price"),
        ({"tool_prices": {"": 1}}, "name of 1 to 100 characters"),
        ({"tool_prices": {"a": -1}}, "tool_prices"),
        ({"tiers": [{"above_prompt_tokens": 0, "input_price": 1, "output_price": 1}]}, "Tiers begin above"),
        ({"tiers": [{"above_prompt_tokens": 5, "input_price": 1}]}, "tiers"),
        ({"service_tiers": {"batch": 1001}}, "multiplier"),
        ({"input_price": "1,234"}, "input_price must be a price"),
        ({"input_price": " 5"}, "input_price must be a price"),
        ({"tiers": [{"above_prompt_tokens": 5, "input_price": "x", "output_price": 1}]}, "tiers.0.input_price must be"),
        (
            {"tiers": [{"above_prompt_tokens": n, "input_price": 1, "output_price": 1} for n in range(1, 12)]},
            "at most 10 tiers",
        ),
        ({"service_tiers": {"Default": 2}}, "isn't the usual one"),
        ({"service_tiers": {"batch": 0.5, "BATCH ": 0.5}}, "stands there twice"),
    ],
)
def test_what_is_no_component_is_refused(api: Api, change: dict[str, Any], words: str) -> None:
    answer = send(api, "admin", "POST", "/pricing", json=RICH | change)
    assert answer.status_code == 422
    assert words in answer.text


@pytest.mark.parametrize(
    "used",
    [
        {"audio_input_tokens": 1},
        {"cache_creation_1h_tokens": 1},
        {"tools": {"a": -1}},
        {"service_tier": ""},
        {"tools": {"": 1}},
    ],
)
def test_what_no_call_can_have_used_is_refused(api: Api, used: dict[str, Any]) -> None:
    body = {"user_id": "ann", "model_id": "house/rich", "prompt_tokens": 0, "completion_tokens": 0} | used
    answer = send(api, "charger", "POST", "/charge", json=body)
    assert answer.status_code == 422
    assert sentence(answer, 422)


def test_counts_and_a_response_are_not_sent_together(api: Api) -> None:
    body = {"user_id": "ann", "model_id": "m", "response": {"usage": {"prompt_tokens": 1}}, "tools": {"a": 1}}
    assert send(api, "charger", "POST", "/charge", json=body).status_code == 422


def test_a_plan_is_listed_and_withdrawn(api: Api) -> None:
    body = {"model_id": "house/rich", "input_price": 1, "output_price": 1, "valid_from": "2100-01-01T00:00:00Z"}
    planned = send(api, "admin", "POST", "/pricing", json=body).json()
    assert [one["price_id"] for one in send(api, "nobody", "GET", "/price-plans").json()] == [planned["price_id"]]
    assert (
        send(api, "charger", "POST", "/price-plans/withdraw", json={"price_id": planned["price_id"]}).status_code == 403
    )
    assert (
        send(api, "admin", "POST", "/price-plans/withdraw", json={"price_id": planned["price_id"]}).status_code == 200
    )
    assert send(api, "nobody", "GET", "/price-plans").json() == []
    assert (
        send(api, "admin", "POST", "/price-plans/withdraw", json={"price_id": planned["price_id"]}).status_code == 409
    )
    for unknown in ("999", "x", "-1", "9" * 30):
        assert send(api, "admin", "POST", "/price-plans/withdraw", json={"price_id": unknown}).status_code == 404


def test_a_rule_decides_and_ends(api: Api) -> None:
    body = {"pattern": "router/*", "target": "*"}
    assert send(api, "charger", "POST", "/price-rules", json=body).status_code == 403
    assert send(api, "admin", "POST", "/price-rules", json=body).json()["pattern"] == "router/*"
    given = send(api, "nobody", "GET", "/pricing/router/house/rich").json()
    assert (given["decided_by"], given["rule"], given["priced_as"], given["valid_from"]) == (
        "rule",
        "router/*",
        "house/rich",
        None,
    )
    assert given["tool_prices"] == {"web_search": 0.07}
    assert [one["target"] for one in send(api, "nobody", "GET", "/price-rules").json()] == ["*"]
    assert send(api, "admin", "GET", "/export/prices.csv").status_code == 200
    assert send(api, "admin", "POST", "/price-rules/end", json={"pattern": "router/*"}).status_code == 200
    assert send(api, "admin", "POST", "/price-rules/end", json={"pattern": "router/*"}).status_code == 404
    assert send(api, "nobody", "GET", "/pricing/router/house/rich").json()["decided_by"] == "default"


def test_built_in_prices_say_so(api: Api) -> None:
    assert send(api, "nobody", "GET", "/pricing/openai/gpt-4o").json()["decided_by"] == "catalogue"
    assert (
        send(api, "nobody", "GET", "/pricing/google/gemini-2.5-pro").json()["tiers"][0]["above_prompt_tokens"]
        == 200_000
    )


def test_a_log_tells_what_else_a_call_used_and_an_admin_what_it_cost_upstream(api: Api) -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 1,
        "total_tokens": 9,
        "cost": 0.0012,
        "prompt_tokens_details": {"audio_tokens": 2},
    }
    body = {"user_id": "ann", "model_id": "house/rich", "response": {"object": "chat.completion", "usage": usage}}
    send(api, "charger", "POST", "/charge", json=body)
    admins = send(api, "admin", "GET", "/logs/ann").json()[0]
    members = api.send("GET", "/logs", key=api.key("ann")).json()[0]
    assert admins["extras"] == members["extras"] == {"audio_input": 2, "stated_total": 9}
    assert (admins["upstream_usd"], members["upstream_usd"], members["reprices_id"]) == (0.0012, None, None)


def test_a_plan_that_ends_a_price_is_listed_and_withdrawn(api: Api) -> None:
    (current,) = api.db.read(pricing.listed)
    later = api.db.clock() + 10**12
    change = pricing.Change("house/rich", None, current.price_id)
    api.db.write(pricing.apply, [change], actor=SHELL, valid_from_ns=later)
    (plan,) = send(api, "nobody", "GET", "/price-plans").json()
    assert (plan["model_id"], plan["retires"], plan["input_price"]) == ("house/rich", True, None)
    answer = send(api, "admin", "POST", "/price-plans/withdraw", json={"price_id": plan["price_id"]})
    assert (answer.status_code, answer.json()) == (200, plan)
    assert send(api, "nobody", "GET", "/price-plans").json() == []
    assert send(api, "nobody", "GET", "/pricing/house/rich").json()["source"] == "database"


def test_a_list_of_ids_is_one_field(api: Api) -> None:
    answer = send(api, "admin", "POST", "/reversals/preview", json={"ids": [None] * 100})
    assert [error["field"] for error in answer.json()["errors"]] == ["ids"]


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ({"tiers": [{}]}, "tiers.0.above_prompt_tokens", "is missing"),
        ({"tiers": [1]}, "tiers.0", "must be a JSON object"),
        ({"tool_prices": {"": 1}}, "tool_prices", "A tool or service tier has a name"),
        ({"input_price": "dear"}, "input_price", "元 per million tokens"),
    ],
)
def test_a_refusal_names_the_field_that_was_sent(api: Api, wrong: dict[str, Any], field: str, said: str) -> None:
    body = {"model_id": "m", "input_price": 1, "output_price": 1} | wrong
    answer = send(api, "admin", "POST", "/pricing", json=body)
    assert said in sentence(answer, 422)
    assert field in [error["field"] for error in answer.json()["errors"]]
