"""What providers answered, charged over HTTP: the tokens in the logs, and the exact cost."""

import json
from pathlib import Path
from typing import Any

import pytest
from billing_http import Api, sentence
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core.check import check
from billing_core.database import Database

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "data" / "provider_responses.jsonl"
PRICE = {"input_price": 12.34, "output_price": 56.78, "cache_read_price": 1.234567, "cache_write_price": 15.425}
MICRO = (12_340_000, 56_780_000, 1_234_567, 15_425_000)
KINDS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_creation_tokens", "reasoning_tokens")


@pytest.fixture
def api(db: Database) -> Api:
    """Ann has 100 000 元; model m has PRICE, big costs 100 元 a million tokens and small 10."""
    api = Api(db)
    api.post("/recharge", user_id="ann", amount=10**9)
    api.post("/pricing", model_id="m", **PRICE)
    api.post("/pricing", model_id="big", input_price=100, output_price=100)
    api.post("/pricing", model_id="small", input_price=10, output_price=10)
    return api


def cost(tokens: dict[str, int]) -> int:
    """毫, by the contract's formula."""
    prompt, completion, cached, creation, _ = (tokens[kind] or 0 for kind in KINDS)
    parts = zip((prompt - cached - creation, completion, cached, creation), MICRO, strict=True)
    return -(-sum(count * price for count, price in parts) // 100_000_000)


def recorded() -> list[dict[str, Any]]:
    """Real answers of real providers. They lie beside the project on the build machine only: elsewhere the small bodies
    below stand for them."""
    if not RECORDED.exists():
        pytest.skip("The recorded responses of providers are not in ../shared/data.")
    return [json.loads(line) for line in RECORDED.read_text().splitlines()]


@pytest.mark.parametrize(("stream", "count"), [(False, 87), (True, 24)])
def test_recorded_responses_are_charged_exactly(api: Api, stream: bool, count: int) -> None:
    chosen = [one for one in recorded() if one["stream"] is stream]
    assert len(chosen) == count
    balance = 10**9
    for one in chosen:
        call = {"user_id": "ann", "model_id": "m", "provider": one["provider"], "response": one["response"]}
        done = api.post("/charge", **call)
        row = api.get("/logs/ann", limit=1)[0]
        assert {kind: row[kind] for kind in KINDS if one["tokens"][kind] is not None} == {
            kind: count for kind, count in one["tokens"].items() if count is not None
        }, one["source"]
        balance -= cost(one["tokens"])
        assert (done["cost"], done["balance"], row["cost"]) == (cost(one["tokens"]), balance, cost(one["tokens"]))


def test_recorded_responses_are_charged_exactly_as_a_batch(api: Api) -> None:
    chosen = recorded()
    lines = [
        json.dumps({"request_id": str(n), "user_id": "ann", "model_id": "m", "provider": one["provider"], "response": one["response"]})
        for n, one in enumerate(chosen)
    ]  # fmt: skip
    response = api.raw("/charges", "\n".join(lines), headers={"Content-Type": "application/x-ndjson"})
    results = [json.loads(line) for line in response.text.splitlines()]
    assert [one["cost"] for one in results] == [cost(one["tokens"]) for one in chosen]


# Calls of several rounds


def rounds(*iterations: tuple[str | None, int, int], model: str = "claude") -> dict[str, Any]:
    """Anthropic's answer after several rounds; those without a model's name ran on the answer's own."""
    listed = [
        {"type": "message", "input_tokens": prompt, "output_tokens": completion} | ({"model": name} if name else {})
        for name, prompt, completion in iterations
    ]
    usage = {"input_tokens": listed[-1]["input_tokens"], "output_tokens": listed[-1]["output_tokens"]}
    return {"type": "message", "model": model, "content": [], "usage": usage | {"iterations": listed}}


TWO = rounds((None, 1000, 100), ("small", 2000, 200), ("claude", 500, 0))
"""On big: 1600 tokens at 100 元, 160 毫 a 160; on small 2200 at 10 元."""


def test_rounds_on_several_models_are_charged_at_each_ones_price(api: Api) -> None:
    done = api.post("/charge", user_id="ann", model_id="big", response=TWO)
    assert (done["cost"], done["balance"]) == (1600 + 220, 10**9 - 1820)
    small, big = api.get("/logs/ann", limit=2)
    assert done["ids"] == [big["id"], small["id"]]
    assert done["id"] == big["id"]
    assert [(row["model_id"], row["prompt_tokens"], row["completion_tokens"], row["cost"]) for row in (big, small)] == [
        ("big", 1500, 100, 1600), ("small", 2000, 200, 220),
    ]  # fmt: skip
    assert api.get("/balance/ann")["total_consumed"] == 1820
    assert [(one["model"], one["cost"]) for one in api.get("/stats/ann")["by_model"]] == [
        ("big", 0.16),
        ("small", 0.022),
    ]


def test_rounds_are_charged_all_or_not_at_all(api: Api) -> None:
    api.post("/recharge", user_id="ann", amount=1700 - 10**9)
    call = {"user_id": "ann", "model_id": "big", "response": TWO}
    assert "0.17 元" in api.refused(402, "/charge", **call)
    batch = api.send("POST", "/charges", json=[{"request_id": "1", **call}]).json()
    assert batch[0]["status_code"] == 402
    assert (api.balance(), [row["type"] for row in api.get("/logs/ann")]) == (1700, ["recharge", "recharge"])
    assert api.post("/charge", **call, allow_debt=True)["balance"] == -120


def test_rounds_that_are_sent_again_are_charged_once(api: Api) -> None:
    call = {"user_id": "ann", "model_id": "big", "response": TWO}
    first = api.post("/charge", once="a", **call)
    assert api.post("/charge", once="a", **call) == first
    batch = api.send("POST", "/charges", json=[{"request_id": "a", **call}] * 2).json()
    assert batch == [{"request_id": "a", **first}] * 2
    assert api.balance() == 10**9 - 1820


def test_a_settle_charges_the_other_models_beside_what_was_held(api: Api) -> None:
    hold = api.post("/precharge", user_id="ann", model_id="big", prompt_tokens=2000, max_completion_tokens=0)
    api.raw("/accounts/ann", '{"status": "frozen"}', method="PATCH")
    done = api.post("/settle", once="s", precharge_id=hold["precharge_id"], response=TWO)
    assert (hold["cost"], done["cost"], done["refunded"], done["status"]) == (2000, 1820, 180, "frozen")
    assert api.post("/settle", once="s", precharge_id=hold["precharge_id"], response=TWO) == done
    deduct, settle = api.get("/logs/ann", limit=2)
    assert [(row["type"], row["model_id"], row["cost"]) for row in (settle, deduct)] == [
        ("settle", "big", 1600), ("deduct", "small", 220),
    ]  # fmt: skip
    assert deduct["balance_after"] == done["balance"] == api.balance() == 10**9 - 1820
    assert list(check(api.db)) == []


def test_a_call_that_ran_on_other_models_alone_is_charged_to_them(api: Api) -> None:
    done = api.post("/charge", user_id="ann", model_id="big", response=rounds(("small", 10, 0), ("small", 20, 10)))
    assert (done["cost"], len(done["ids"])) == (4, 1)


def test_a_body_without_usage_says_how_to_get_it(api: Api) -> None:
    stream = 'data: {"object": "chat.completion.chunk", "choices": []}\n\ndata: [DONE]\n\n'
    assert "include_usage" in api.refused(422, "/charge", user_id="ann", model_id="m", response=stream)


# Whatever is sent

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(KINDS), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
fields = st.sampled_from([*KINDS, "user_id", "model_id", "response", "created_at", "allow_debt", "provider", "amount", "precharge_id", "input_price", "output_price", "valid_from", "ttl_seconds", "max_completion_tokens", "name", "email", "role", "remark"])  # fmt: skip
paths = st.sampled_from(
    ["/charge", "/charges", "/precharge", "/settle", "/refund", "/recharge", "/pricing", "/accounts"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=paths, good=st.booleans(), sent=st.dictionaries(fields, anything, max_size=4))
def test_no_body_breaks_anything(api: Api, path: str, good: bool, sent: dict[str, Any]) -> None:
    call = {"user_id": "ann", "model_id": "m", "prompt_tokens": 5, "completion_tokens": 5} if good else {}
    body: Any = {**call, **sent}
    response = api.raw(path, json.dumps([{"request_id": "r", **body}] if path == "/charges" else body))
    if response.status_code != 200:
        assert response.status_code in (402, 404, 409, 422), response.text
        sentence(response, response.status_code)
