"""The HTTP contract, route by route, on both databases."""

import threading
from datetime import datetime, timedelta
from decimal import Decimal
from json import dumps, loads
from typing import Any

import pytest
from billing_http import Api, exact, sentence
from conftest import NOON, SECOND, Clock

from api import routes
from billing_core import accounts, ledger, signin, stats
from billing_core.actors import SHELL, Actor
from billing_core.check import check
from billing_core.database import Database
from billing_core.errors import DatabaseUnavailable
from billing_core.models import Account

CALL: dict[str, Any] = {
    "user_id": "ann",
    "model_id": "openai/gpt-4o:beta",
    "prompt_tokens": 1000,
    "completion_tokens": 0,
}


@pytest.fixture
def api(db: Database) -> Api:
    return Api(db)


@pytest.fixture
def rich(api: Api) -> Api:
    """Ann has 1 000 000 毫, and the model of CALL costs 18 and 72 元."""
    api.post("/recharge", user_id="ann", amount=1_000_000)
    api.post("/pricing", model_id=CALL["model_id"], input_price=18, output_price=72)
    return api


def test_a_charge(rich: Api) -> None:
    done = rich.post("/charge", **CALL)
    assert done == {"id": done["id"], "ids": [done["id"]], "cost": 180, "balance": 999_820, "status": "active"}


# Signing in


def test_without_a_key_nothing_but_prices_is_told(api: Api) -> None:
    for path in ("/balance", "/logs", "/stats", "/balance/ann", "/accounts", "/recharge/logs/ann"):
        response = api.send("GET", path, key=None)
        assert "Authorization: Bearer" in sentence(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    assert api.get("/pricing", key=None) == []


def test_an_unknown_key_and_a_revoked_one_are_refused(api: Api) -> None:
    key, secret = api.db.write(signin.add_key, "ann", actor=SHELL)
    assert api.get("/balance", key=secret)["balance"] == 0
    api.db.write(signin.revoke_key, key.id, actor=SHELL)
    assert "revoked" in sentence(api.send("GET", "/balance", key=secret), 401)
    assert "unknown" in sentence(api.send("GET", "/balance", key="bk_nobody"), 401)


def test_a_plain_key_reads_its_own_account_alone(api: Api) -> None:
    key = api.key("ann")
    assert api.get("/balance/ann", key=key) == api.get("/balance", key=key)
    for path in ("/balance/boss", "/logs/boss", "/stats/boss", "/accounts", "/recharge/logs/ann", "/balance/nobody"):
        assert "admin" in sentence(api.send("GET", path, key=key), 403)
    assert "may not charge" in api.refused(403, "/charge", key=key, **CALL)
    assert "admin" in api.refused(403, "/recharge", key=key, user_id="ann", amount=1)


def test_a_key_that_may_charge_does_no_admins_work(rich: Api) -> None:
    key = rich.key("ann", "charge")
    rich.post("/charge", key=key, **CALL)
    for path in ("/recharge", "/pricing", "/accounts"):
        assert "admin" in rich.refused(403, path, key=key)
    assert "admin" in sentence(rich.raw("/accounts/ann", "{}", method="PATCH", key=key), 403)


def test_a_pages_cookie_reads_and_never_writes(api: Api) -> None:
    boss = api.db.read(accounts.find, "boss")
    cookie = {"Cookie": f"billing_session={api.db.write(signin.issue, 'session', boss)}"}
    assert api.get("/balance/ann", key=None, headers=cookie)["balance"] == 0
    body: dict[str, Any] = {"user_id": "ann", "amount": 5}
    assert "Bearer" in sentence(api.send("POST", "/recharge", key=None, headers=cookie, json=body), 401)
    over = {"Cookie": "billing_session=over"}
    assert "over" in sentence(api.send("GET", "/balance", key=None, headers=over), 401)


def test_a_keys_use_is_noted_to_the_minute(api: Api, clock: Clock) -> None:
    def last_used() -> int | None:
        return api.db.read(lambda tx: signin.keys(tx, "ann", actor=SHELL))[0][0].last_used_at_ns

    key = api.key("ann")
    api.get("/balance", key=key)
    assert last_used() == NOON
    clock.forward(seconds=59)
    api.get("/balance", key=key)
    assert last_used() == NOON
    clock.forward(seconds=1)
    api.get("/balance", key=key)
    assert last_used() == NOON + 60 * SECOND


# Balance, recharge, logs


def test_a_recharge_credits_and_debits(api: Api) -> None:
    assert api.post("/recharge", user_id="ann", amount=500)["balance"] == 500
    done = api.post("/recharge", user_id="ann", amount=-700, remark="退款 😀")
    assert (done["balance"], done["status"]) == (-200, "active")
    newest, first = api.get("/recharge/logs/ann")
    assert newest == {
        "id": done["id"], "user_id": "ann", "amount": -700, "balance_after": -200, "operator_id": "boss",
        "operator_name": "Boss", "remark": "退款 😀", "created_at": NOON,
    }  # fmt: skip
    assert (first["amount"], first["remark"]) == (500, "")


def test_the_recharge_log_keeps_the_rows_of_an_operator_who_has_left(api: Api) -> None:
    api.account("eve", role="admin")
    api.post("/recharge", key=api.key("eve", "admin"), user_id="ann", amount=500)
    sent = api.raw("/accounts/eve", '{"role": "member", "status": "frozen", "name": "(left)"}', method="PATCH")
    assert sent.status_code == 200
    assert [row["operator_id"] for row in api.get("/recharge/logs/ann")] == ["eve"]


def test_the_balance_tells_what_is_held_and_what_was_consumed(rich: Api) -> None:
    rich.post("/charge", **CALL)
    rich.post("/precharge", user_id="ann", model_id=CALL["model_id"], prompt_tokens=1000, max_completion_tokens=0)
    assert rich.get("/balance", key=rich.key("ann")) == {
        "balance": 999_640, "total_consumed": 180, "billing_status": "active", "held": 180,
    }  # fmt: skip


def test_logs_are_newest_first_and_paged(rich: Api) -> None:
    ids = [rich.post("/charge", **CALL)["id"] for _ in range(4)]
    assert [row["id"] for row in rich.get("/logs/ann", limit=3)] == ids[:0:-1]
    assert [row["type"] for row in rich.get("/logs/ann", offset=3)] == ["deduct", "recharge"]
    assert rich.get("/logs/ann", offset=5) == rich.get("/logs") == []


def test_a_logs_row_holds_every_count(rich: Api) -> None:
    tokens = {"prompt_tokens": 1000, "cached_tokens": 600, "cache_creation_tokens": 100}
    tokens |= {"completion_tokens": 50, "reasoning_tokens": 20}
    done = rich.post("/charge", **CALL | tokens)
    row = rich.get("/logs/ann", limit=1)[0]
    assert row == {
        "id": done["id"], "type": "deduct", "model_id": CALL["model_id"], "cost": 216, "amount": -216,
        "balance_after": 999_784, "created_at": NOON, "precharge_id": None, "reverses_id": None, "remark": "", "reprices_id": None,
        "extras": None, "upstream_usd": 0.00225, **tokens,
    }  # fmt: skip


def test_balance_after_of_zero_is_zero(rich: Api) -> None:
    rich.post("/recharge", user_id="ann", amount=-999_820)
    assert rich.post("/charge", **CALL)["balance"] == 0
    row = rich.raw("/logs/ann?limit=1", "", method="GET")
    assert '"balance_after":0,' in row.text


# Prices


def test_a_price_is_exact_to_six_places(api: Api) -> None:
    body = '{"model_id": "a/b:c", "input_price": 0.100001, "output_price": 10, "cache_read_price": "0.000001"}'
    made = exact(api.raw("/pricing", body))
    assert (made["input_price"], made["output_price"]) == ("0.100001", 10)
    assert (made["cache_read_price"], made["cache_write_price"]) == ("0.000001", "0.100001")
    assert (made["source"], made["valid_from"]) == ("database", "2025-06-15T15:06:40+00:00")
    for address in ("a/b:c", "a%2Fb%3Ac", "a/b%3ac"):
        assert exact(api.send("GET", f"/pricing/{address}", key=None)) == made
    assert exact(api.send("GET", "/pricing", key=None)) == [made]


def test_a_model_without_a_price_costs_the_built_in_one(api: Api) -> None:
    unknown = api.get("/pricing/nobody/knows", key=None)
    assert (unknown["source"], unknown["source_detail"], unknown["input_price"], unknown["output_price"]) == (
        "default", "default", 18, 72,
    )  # fmt: skip
    known = api.get("/pricing/openai/gpt-4o", key=None)
    assert (known["source"], known["source_detail"], known["valid_from"]) == ("default", "catalogue", None)


def test_a_planned_price_counts_from_its_moment_on(rich: Api, clock: Clock) -> None:
    start = "2025-06-15T23:07:40+08:00"  # in a minute
    planned = rich.post("/pricing", model_id=CALL["model_id"], input_price=1, output_price=1, valid_from=start)
    assert planned["valid_from"] == "2025-06-15T15:07:40+00:00"
    assert rich.get(f"/pricing/{CALL['model_id']}")["input_price"] == 18
    clock.forward(seconds=60)
    assert rich.post("/charge", **CALL)["cost"] == 10
    assert rich.post("/charge", **CALL, created_at=NOON)["cost"] == 180


# Charges


def test_one_token_at_half_a_yuan_costs_one_hao(rich: Api) -> None:
    rich.post("/pricing", model_id="cheap", input_price=0.5, output_price=0)
    assert rich.post("/charge", user_id="ann", model_id="cheap", prompt_tokens=1, completion_tokens=0)["cost"] == 1
    assert rich.post("/charge", user_id="ann", model_id="cheap", prompt_tokens=0, completion_tokens=9)["cost"] == 0


def test_each_token_is_charged_once_at_its_own_rate(rich: Api) -> None:
    rich.post(
        "/pricing", model_id="m", input_price=10, output_price=20, cache_read_price=1, cache_write_price=12.5
    )  # fmt: skip
    done = rich.post(
        "/charge", user_id="ann", model_id="m", prompt_tokens=1_000_000, cached_tokens=600_000,
        cache_creation_tokens=200_000, completion_tokens=100_000, reasoning_tokens=90_000,
    )  # fmt: skip
    assert done["cost"] == 20_000 + 6_000 + 25_000 + 20_000


def test_a_charge_above_the_balance_is_refused_and_leaves_nothing(rich: Api) -> None:
    rich.post("/recharge", user_id="ann", amount=-999_821)
    assert "0.0179 元" in rich.refused(402, "/charge", once="k", **CALL)
    assert (rich.balance(), len(rich.get("/logs/ann"))) == (179, 2)
    assert rich.post("/charge", once="k", **CALL, allow_debt=True)["balance"] == -1
    assert rich.refused(402, "/charge", **CALL)


def test_a_frozen_account_gets_nothing_new_but_what_is_held_can_end(rich: Api) -> None:
    hold = {"user_id": "ann", "model_id": CALL["model_id"], "prompt_tokens": 1000, "max_completion_tokens": 0}
    one, other = (rich.post("/precharge", **hold)["precharge_id"] for _ in range(2))
    rich.raw("/accounts/ann", '{"status": "frozen"}', method="PATCH")
    assert "frozen" in rich.refused(403, "/charge", **CALL)
    assert "frozen" in rich.refused(403, "/precharge", **hold)
    assert rich.post("/settle", precharge_id=one, prompt_tokens=500, completion_tokens=0)["status"] == "frozen"
    assert rich.post("/refund", precharge_id=other)["refunded"] == 180
    assert rich.get("/balance/ann")["billing_status"] == "frozen"


def test_nobody_is_404(api: Api) -> None:
    assert "nobody" in api.refused(404, "/charge", **CALL | {"user_id": "nobody"})
    assert "nobody" in api.refused(404, "/recharge", user_id="nobody", amount=1)
    for path in ("/balance/nobody", "/logs/nobody", "/stats/nobody", "/recharge/logs/nobody"):
        assert "nobody" in sentence(api.send("GET", path), 404)


# Batches


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"request_id": f"call-{number}", **CALL, **more}


def test_one_bad_charge_spoils_no_other(rich: Api) -> None:
    items: list[Any] = [
        item(1), item(2, user_id="nobody"), item(3, prompt_tokens=-1), "no object", item(4, prompt_tokens=10**9), item(5)
    ]  # fmt: skip
    results = rich.raw("/charges", "[" + ",".join(map(dumps, items)) + "]").json()
    assert [one.get("status_code", 200) for one in results] == [200, 404, 422, 422, 402, 200]
    assert [one["request_id"] for one in results] == ["call-1", "call-2", "call-3", None, "call-4", "call-5"]
    assert [one["cost"] for one in results if "cost" in one] == [180, 180]
    assert [[field["field"] for field in one.get("errors", [])] for one in results[1:5]] == [
        [], ["prompt_tokens"], ["body"], []
    ]  # fmt: skip
    assert all(one["error"] is True and one["detail"].endswith(".") for one in results[1:5])
    assert rich.balance() == 999_640


def test_ndjson_in_gives_ndjson_out(rich: Api) -> None:
    lines = "\r\n".join([dumps(item(1)), "{broken", "", dumps(item(2))])
    response = rich.raw("/charges", lines, headers={"Content-Type": "application/x-ndjson; charset=utf-8"})
    assert response.headers["content-type"] == "application/x-ndjson"
    results = [loads(line) for line in response.text.splitlines()]
    assert [one.get("status_code", 200) for one in results] == [200, 400, 200]


def test_a_request_id_is_charged_once_wherever_it_comes(rich: Api) -> None:
    sent = [item(1), item(2), item(1), item(2, prompt_tokens=5)]
    first = rich.send("POST", "/charges", json=sent).json()
    assert first[2] == first[0]
    assert first[3]["status_code"] == 409
    assert rich.send("POST", "/charges", json=sent).json() == first
    assert rich.post("/charge", once="call-1", **CALL)["id"] == first[0]["id"]
    assert rich.balance() == 999_640


def test_whoever_asks_and_is_frozen_is_told_so_and_not_that_the_payer_is(rich: Api) -> None:
    rich.db.write(accounts.add, "meter", "Meter", actor=SHELL, role="admin")
    keys = [rich.key("meter", can) for can in ("admin", "charge")]
    rich.db.write(accounts.change, "meter", actor=SHELL, status="frozen")
    said = [
        sentence(rich.send("GET", "/accounts", key=keys[0]), 403),
        sentence(rich.send("POST", "/charge", key=keys[1], json=CALL), 403),
    ]
    assert said == ["Your account meter is frozen, so you may not do this. Ask an admin to unfreeze it."] * 2


def test_a_batchs_key_is_no_other_requests(rich: Api) -> None:
    """But for an item of its own that has it as well."""
    assert "cost" in rich.send("POST", "/charges", once="k", json=[item(1)]).json()[0]
    assert "“k”" in sentence(rich.send("POST", "/charge", once="k", json=CALL), 409)
    assert rich.send("POST", "/charge", once="j", json=CALL).status_code == 200
    assert "“j”" in sentence(rich.send("POST", "/charges", once="j", json=[item(2)]), 409)
    own = [item(3) | {"request_id": "own"}]
    first = rich.send("POST", "/charges", once="own", json=own).json()
    assert rich.send("POST", "/charges", once="own", json=own).json() == first
    assert rich.balance() == 1_000_000 - 3 * 180
    assert not check(rich.db)


def test_a_batch_longer_than_a_transaction_keeps_its_order(rich: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "CHUNK", 100)
    accounts_in_turn = ["ann", "boss", "nobody"]
    items = [item(n, user_id=accounts_in_turn[n % 3], prompt_tokens=n, allow_debt=True) for n in range(450)]
    results = rich.send("POST", "/charges", once="k", json=items).json()
    assert rich.send("POST", "/charges", once="k", json=items).json() == results
    assert "“k”" in sentence(rich.send("POST", "/charges", once="k", json=items[:-1]), 409)
    assert [one["request_id"] for one in results] == [f"call-{n}" for n in range(450)]
    assert [one.get("status_code", 200) for one in results] == [200, 200, 404] * 150
    assert rich.balance() == 1_000_000 - sum(-(-n * 18 // 100) for n in range(0, 450, 3))


def unavailable_after(api: Api, writes: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The database takes so many writes more. Each one asked for is noted."""
    write, asked = api.db.write, []

    def counted(*args: Any, **more: Any) -> Any:
        asked.append(1)
        if len(asked) > writes:
            raise DatabaseUnavailable("The database is busy. Nothing was changed; try again in a moment.")
        return write(*args, **more)

    monkeypatch.setattr(api.db, "write", counted)
    return asked


def test_where_the_database_fails_within_a_batch_what_was_charged_is_told(
    rich: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "CHUNK", 2)
    items = [item(1), item(2, user_id="nobody"), item(3), item(4, prompt_tokens=-1), item(5)]
    with monkeypatch.context() as failing:
        asked = unavailable_after(rich, 1, failing)
        results = rich.send("POST", "/charges", once="k", json=items).json()
    assert len(asked) == 2  # who waited in vain once does not wait for every other part
    assert [one.get("status_code", 200) for one in results] == [200, 404, 503, 503, 503]
    assert [one["request_id"] for one in results] == [f"call-{n}" for n in range(1, 6)]
    assert rich.balance() == 999_820
    again = rich.send("POST", "/charges", once="k", json=items).json()
    assert again[:2] == results[:2]
    assert [one.get("status_code", 200) for one in again] == [200, 404, 200, 422, 200]
    assert rich.balance() == 999_460


def test_where_the_database_fails_at_once_a_batch_is_503(rich: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as failing:
        unavailable_after(rich, 0, failing)
        assert "Nothing was changed" in sentence(rich.send("POST", "/charges", once="k", json=[item(1)]), 503)
    assert rich.balance() == 1_000_000


def test_a_batch_is_a_list(api: Api) -> None:
    assert "list" in sentence(api.raw("/charges", "{}"), 422)
    assert api.raw("/charges", "[]").json() == []


# Holds


def test_a_hold_is_settled_and_the_rest_goes_back(rich: Api) -> None:
    held = rich.post(
        "/precharge", user_id="ann", model_id=CALL["model_id"], prompt_tokens=1000, max_completion_tokens=1000,
        ttl_seconds=60,
    )  # fmt: skip
    assert held == {
        "precharge_id": held["precharge_id"], "cost": 900, "balance": 999_100, "status": "active",
        "expires_at": NOON + 60 * SECOND,
    }  # fmt: skip
    done = rich.post("/settle", precharge_id=held["precharge_id"], prompt_tokens=1000, completion_tokens=10)
    assert (done["cost"], done["refunded"], done["balance"]) == (188, 712, 999_812)
    row = rich.get("/logs/ann", limit=1)[0]
    assert (row["type"], row["precharge_id"], row["cost"]) == ("settle", held["precharge_id"], 188)
    assert "settled" in rich.refused(
        409, "/settle", precharge_id=held["precharge_id"], prompt_tokens=1, completion_tokens=0
    )
    assert "settled" in rich.refused(409, "/refund", precharge_id=int(held["precharge_id"]))


def test_a_settle_above_the_hold_and_the_balance_is_booked_in_full(rich: Api) -> None:
    rich.post("/recharge", user_id="ann", amount=-999_800)
    hold = rich.post(
        "/precharge", user_id="ann", model_id=CALL["model_id"], prompt_tokens=1000, max_completion_tokens=0
    )
    done = rich.post("/settle", precharge_id=hold["precharge_id"], prompt_tokens=2000, completion_tokens=0)
    assert (done["cost"], done["refunded"], done["balance"]) == (360, 0, -160)
    rows = rich.get("/logs/ann")
    assert sum(row["amount"] for row in rows) == rows[0]["balance_after"] == rich.balance() == -160
    assert rich.get("/balance/ann")["total_consumed"] == 360


def test_a_hold_that_nobody_ends_comes_back_by_itself(rich: Api, clock: Clock) -> None:
    hold = rich.post("/precharge", user_id="ann", model_id="m", prompt_tokens=1000, max_completion_tokens=0)
    clock.forward(seconds=ledger.DEFAULT_TTL_SECONDS)
    assert rich.balance() == 1_000_000
    assert "expired" in rich.refused(
        409, "/settle", precharge_id=hold["precharge_id"], prompt_tokens=1, completion_tokens=0
    )
    assert rich.get("/accounts")[0]["balance"] == 1_000_000


@pytest.mark.parametrize("number", ["x", "", "0", "999", "-1", 999, -1, 10**30, "9" * 30, "\0", "\ud800", "१"])
def test_what_is_no_precharge_is_404(api: Api, number: Any) -> None:
    body = dumps({"precharge_id": number, "prompt_tokens": 1, "completion_tokens": 0})
    assert "no precharge" in sentence(api.raw("/settle", body), 404)
    assert "no precharge" in sentence(api.raw("/refund", body), 404)


# Repetitions


def writes(api: Api) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Every write with a body, and with another one."""
    one, two = (
        api.post("/precharge", user_id="ann", model_id="m", prompt_tokens=9, max_completion_tokens=9)["precharge_id"]
        for _ in range(2)
    )
    return [
        ("POST", "/recharge", {"user_id": "ann", "amount": 5}, {"user_id": "ann", "amount": 6}),
        ("POST", "/pricing", {"model_id": "m", "input_price": 1.1, "output_price": 2}, {"model_id": "m", "input_price": 1, "output_price": 2}),
        ("POST", "/charge", CALL, {**CALL, "prompt_tokens": 1}),
        ("POST", "/charges", [item(1), item(2, user_id="nobody")], [item(1)]),  # type: ignore[list-item]
        ("POST", "/precharge", {"user_id": "ann", "model_id": "m", "prompt_tokens": 1, "max_completion_tokens": 1}, {"user_id": "ann", "model_id": "m", "prompt_tokens": 2, "max_completion_tokens": 1}),
        ("POST", "/settle", {"precharge_id": one, "prompt_tokens": 1, "completion_tokens": 1}, {"precharge_id": two, "prompt_tokens": 1, "completion_tokens": 1}),
        ("POST", "/refund", {"precharge_id": two}, {"precharge_id": one}),
        ("POST", "/accounts", {"user_id": "new", "name": "New"}, {"user_id": "newer", "name": "New"}),
        ("PATCH", "/accounts/ann", {"name": "Anna"}, {"name": "Ann"}),
    ]  # fmt: skip


def test_a_retried_write_gives_the_first_answer_and_happens_once(rich: Api, clock: Clock) -> None:
    for method, path, body, other in writes(rich):
        first = rich.send(method, path, once=f"key of {path}", json=body)
        assert first.status_code == 200, first.text
        clock.forward(seconds=5)
        before = rich.get("/logs/ann")
        again = rich.send(method, path, once=f"key of {path}", json=body)
        assert (again.status_code, again.content) == (200, first.content)
        assert "key of" in sentence(rich.send(method, path, once=f"key of {path}", json=other), 409)
        assert rich.get("/logs/ann") == before


def test_a_key_speaks_for_its_caller_alone(rich: Api) -> None:
    key = rich.key("ann", "charge")
    assert rich.post("/charge", once="same", **CALL)["id"] != rich.post("/charge", key=key, once="same", **CALL)["id"]


def test_a_key_is_remembered_together_with_the_charge_or_not_at_all(rich: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("power cut")

    for path, body in (("/charge", CALL), ("/accounts", {"user_id": "new", "name": "New"})):
        with monkeypatch.context() as patch:
            patch.setattr("billing_core.idempotency.remember_all", crash)
            sentence(rich.send("POST", path, once="k" + path, json=body), 500)
    assert rich.balance() == 1_000_000
    assert rich.post("/charge", once="k/charge", **CALL)["balance"] == 999_820
    assert rich.post("/accounts", once="k/accounts", user_id="new", name="New")["user_id"] == "new"


def test_a_batchs_answer_is_remembered_together_with_its_charges_or_not_at_all(
    rich: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("billing_core.idempotency.remember", crash)
        sentence(rich.send("POST", "/charges", once="k", json=[item(1)]), 500)
    assert rich.balance() == 1_000_000
    assert rich.send("POST", "/charges", once="k", json=[item(1)]).json()[0]["balance"] == 999_820


def test_what_a_batchs_retry_charged_is_not_told_as_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is refused, and then slow; there is a recharge; its retry waits after its first write until it's answered."""
    write, answers = api.db.write, {}
    refused, retried, answered = (threading.Event() for _ in range(3))

    def slow(*args: Any, **more: Any) -> Any:
        done = write(*args, **more)
        if not refused.is_set():
            refused.set()
            retried.wait(10)
        elif not retried.is_set():
            retried.set()
            answered.wait(10)
        return done

    def send(name: str) -> None:
        answers[name] = api.send("POST", "/charges", once="k", json=[item(1)]).json()[0]

    first, retry = (threading.Thread(target=send, args=(name,)) for name in ("first", "retry"))
    with monkeypatch.context() as patch:
        patch.setattr(api.db, "write", slow)
        first.start()
        assert refused.wait(10)
        write(ledger.recharge, "ann", 1_000_000, actor=SHELL)
        retry.start()
        first.join()
        answered.set()
        retry.join()
    assert ("id" in answers["first"], "id" in answers["retry"]) == (False, api.balance() < 1_000_000)


def test_the_same_batch_in_another_format_is_another_request(rich: Api) -> None:
    items = [item(1), item(2)]
    lines = "\n".join(map(dumps, items))
    assert rich.raw("/charges", lines, once="k").status_code == 200
    assert "“k”" in sentence(rich.raw("/charges", dumps(items), once="k"), 409)


def test_other_broken_lines_are_another_request(rich: Api) -> None:
    def send(line: str) -> Any:
        return rich.raw("/charges", line, once="k", headers={"Content-Type": "application/x-ndjson"})

    assert send("{broken").content == send("{broken").content
    assert "“k”" in sentence(send("{brokem"), 409)


def test_a_retry_that_overtakes_its_request_is_answered_alike(
    postgres_database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(Database(postgres_database, clock=clock))
    add, overtaking = accounts.add, []

    def overtaken(*args: Any, **more: Any) -> Account:
        if not overtaking:
            overtaking.append(True)
            overtaking.append(api.post("/accounts", once="k", user_id="new", name="New"))
        return add(*args, **more)

    monkeypatch.setattr(accounts, "add", overtaken)
    assert api.post("/accounts", once="k", user_id="new", name="New") == overtaking[1]
    api.db.close()


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_a_key_is_short_and_printable(rich: Api, key: str) -> None:
    assert "idempotency key" in rich.refused(422, "/charge", once=key, **CALL)


# Accounts


def test_accounts_are_added_changed_and_listed(api: Api) -> None:
    made = api.post("/accounts", user_id="李雷", name="李 雷", email="li@example.com", role="admin", status="frozen")
    assert made == {
        "user_id": "李雷", "name": "李 雷", "email": "li@example.com", "role": "admin", "status": "frozen",
        "balance": 0, "total_consumed": 0, "created_at": NOON,
    }  # fmt: skip
    changed = api.raw("/accounts/李雷", '{"status": "active", "email": "", "name": null}', method="PATCH").json()
    assert changed == made | {"status": "active", "email": ""}
    assert [one["user_id"] for one in api.get("/accounts")] == ["ann", "boss", "李雷"]
    assert [one["user_id"] for one in api.get("/accounts", search="雷")] == ["李雷"]


def test_what_no_account_can_be_is_refused(api: Api) -> None:
    assert "already" in api.refused(409, "/accounts", user_id="ann", name="Ann")
    assert "can't be an id" in api.refused(422, "/accounts", user_id="a/b", name="A")
    assert "email" in api.refused(422, "/accounts", user_id="a", name="A", email="a\0@b")
    assert "role" in api.refused(422, "/accounts", user_id="a", name="A", role="king")
    assert "only admin" in sentence(api.raw("/accounts/boss", '{"role": "member"}', method="PATCH"), 409)
    assert "nobody" in sentence(api.raw("/accounts/nobody", "{}", method="PATCH"), 404)


# Stats


def at(text: str) -> int:
    return stats.to_ns(datetime.fromisoformat(text))


def charge_at(api: Api, *moments: str) -> None:
    for moment in moments:
        api.post("/charge", **CALL, created_at=at(moment))


def costs(answer: Any) -> list[tuple[str, Decimal]]:
    return [(row["date"], Decimal(str(row["cost"]))) for row in answer["daily"] if row["cost"]]


YUAN = Decimal("0.018")


def test_stats_add_up_by_period_and_by_model(rich: Api) -> None:
    rich.post("/pricing", model_id="other", input_price=100, output_price=0)
    charge_at(rich, "2025-06-14T12:00:00+00:00", "2025-06-15T12:00:00+00:00")
    rich.post("/charge", user_id="ann", model_id="other", prompt_tokens=1000, completion_tokens=0)
    hold = rich.post("/precharge", user_id="ann", model_id="other", prompt_tokens=1000, max_completion_tokens=0)
    found = exact(rich.send("GET", "/stats/ann?days=3"))
    assert found["daily"] == [
        {"date": "06-13", "start": "2025-06-13T00:00:00+00:00", "cost": "0.0000", "by_model": {}},
        {"date": "06-14", "start": "2025-06-14T00:00:00+00:00", "cost": "0.0180", "by_model": {CALL["model_id"]: "0.0180"}},
        {"date": "06-15", "start": "2025-06-15T00:00:00+00:00", "cost": "0.1180", "by_model": {"other": "0.1000", CALL["model_id"]: "0.0180"}},
    ]  # fmt: skip
    assert found["by_model"] == [
        {"model": "other", "cost": "0.1000", "count": 1}, {"model": CALL["model_id"], "cost": "0.0360", "count": 2},
    ]  # fmt: skip
    assert found["models"] == [CALL["model_id"], "other"]
    rich.post("/settle", precharge_id=hold["precharge_id"], prompt_tokens=500, completion_tokens=0)
    assert exact(rich.send("GET", "/stats", key=rich.key("ann")))["daily"][-1]["cost"] == "0.1680"


def test_the_window_starts_where_its_first_period_starts(rich: Api) -> None:
    charge_at(rich, "2025-06-09T00:00:00+00:00", "2025-06-08T23:59:59+00:00", "2024-07-01T00:00:00+00:00")
    assert costs(rich.get("/stats/ann", days=7)) == [("06-09", YUAN)]
    monthly = rich.get("/stats/ann", granularity="month", days=7)
    assert (len(monthly["daily"]), costs(monthly)) == (12, [("2024-07", YUAN), ("2025-06", 2 * YUAN)])
    hourly = rich.get("/stats/ann", granularity="hour", days=7)
    assert [row["date"] for row in hourly["daily"]] == [f"{hour % 24:02}:00" for hour in range(16, 40)]


def test_periods_are_cut_and_labelled_in_one_named_zone(rich: Api) -> None:
    charge_at(rich, "2025-06-14T18:14:59+00:00", "2025-06-14T18:15:00+00:00")  # midnight in Kathmandu
    found = rich.get("/stats/ann", days=2, timezone="Asia/Kathmandu")
    assert costs(found) == [("06-14", YUAN), ("06-15", YUAN)]
    assert [row["start"] for row in found["daily"]] == ["2025-06-14T00:00:00+05:45", "2025-06-15T00:00:00+05:45"]
    assert costs(rich.get("/stats/ann", days=2)) == [("06-14", 2 * YUAN)]


def test_days_of_23_and_25_hours_add_up(rich: Api, clock: Clock) -> None:
    clock.now_ns = at("2025-10-27T12:00:00+01:00")
    hours = [datetime.fromisoformat("2025-10-26T00:00:00+02:00") + timedelta(hours=n) for n in range(26)]
    charge_at(rich, *(hour.isoformat() for hour in hours))
    assert costs(rich.get("/stats/ann", timezone="Europe/Berlin")) == [("10-26", 25 * YUAN), ("10-27", YUAN)]
    clock.now_ns = at("2026-03-30T12:00:00+02:00")
    hours = [datetime.fromisoformat("2026-03-29T00:00:00+01:00") + timedelta(hours=n) for n in range(24)]
    charge_at(rich, *(hour.isoformat() for hour in hours))
    assert costs(rich.get("/stats/ann", timezone="Europe/Berlin")) == [("03-29", 23 * YUAN), ("03-30", YUAN)]


def test_two_periods_with_one_label_stay_apart(rich: Api, clock: Clock) -> None:
    clock.now_ns = at("2025-10-26T12:00:00+01:00")
    charge_at(rich, "2025-10-26T02:30:00+02:00", "2025-10-26T02:30:00+01:00", "2024-10-26T12:00:00+00:00")
    hourly = rich.get("/stats/ann", granularity="hour", timezone="Europe/Berlin")
    assert [(row["date"], row["start"]) for row in hourly["daily"] if row["cost"]] == [
        ("02:00", "2025-10-26T02:00:00+02:00"), ("02:00", "2025-10-26T02:00:00+01:00"),
    ]  # fmt: skip
    daily = rich.get("/stats/ann", days=366, timezone="Europe/Berlin")
    assert costs(daily) == [("10-26", YUAN), ("10-26", 2 * YUAN)]
    assert len({row["start"] for row in daily["daily"]}) == 366


def test_without_a_time_zone_the_viewers_own_counts(rich: Api) -> None:
    ann = Actor(None, "ann", "Ann")
    rich.db.write(accounts.choose, actor=ann, language=None, timezone="Asia/Kathmandu")
    assert rich.get("/stats", key=rich.key("ann"))["daily"][0]["start"].endswith("+05:45")
    assert rich.get("/stats", key=rich.key("ann"), timezone="UTC")["daily"][0]["start"].endswith("+00:00")
    assert rich.get("/stats/ann")["daily"][0]["start"].endswith("+00:00")


def test_after_a_hold_has_expired_the_entries_add_up_to_the_balance(rich: Api, clock: Clock) -> None:
    held = rich.post(
        "/precharge", user_id="ann", model_id="m", prompt_tokens=1000, max_completion_tokens=0, ttl_seconds=1
    )
    clock.forward(seconds=2)
    for path, key in (("/settle", "prompt_tokens"), ("/refund", "ignored")):
        assert "expired" in rich.refused(409, path, precharge_id=held["precharge_id"], completion_tokens=0, **{key: 1})
        rows = rich.get("/logs/ann")
        assert [row["type"] for row in rows[:2]] == ["expire", "precharge"]
        assert sum(row["amount"] for row in rows) == rows[0]["balance_after"] == rich.balance()
    assert rows[0]["precharge_id"] == rows[1]["precharge_id"] == held["precharge_id"]


def test_a_batchs_key_may_be_that_of_one_of_its_items(rich: Api) -> None:
    before = rich.balance()
    first = rich.raw("/charges", dumps([item(1)]), once="call-1")
    again = rich.raw("/charges", dumps([item(1)]), once="call-1")
    assert (first.status_code, first.content) == (200, again.content)
    assert before - rich.balance() == first.json()[0]["cost"]


def test_a_frozen_accounts_own_key_still_reads_and_ends_what_is_held(rich: Api) -> None:
    key = rich.key("ann", "charge")
    hold = {"user_id": "ann", "model_id": "m", "prompt_tokens": 1000, "max_completion_tokens": 0}
    one, two = (rich.post("/precharge", key=key, **hold)["precharge_id"] for _time in range(2))
    rich.raw("/accounts/ann", '{"status": "frozen"}', method="PATCH")
    assert rich.get("/balance", key=key)["billing_status"] == "frozen"
    assert rich.post("/settle", key=key, precharge_id=one, prompt_tokens=1, completion_tokens=0)["status"] == "frozen"
    assert rich.post("/refund", key=key, precharge_id=two)["refunded"] > 0
    assert "frozen" in rich.refused(403, "/charge", key=key, **CALL)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/jsonlines"])
def test_lines_that_begin_with_an_object_are_ndjson_whatever_they_are_called(rich: Api, content_type: str) -> None:
    lines = "\n".join(dumps(item(number)) for number in (1, 2))
    response = rich.raw("/charges", lines, headers={"Content-Type": content_type})
    assert [loads(line)["request_id"] for line in response.text.splitlines()] == ["call-1", "call-2"]


@pytest.mark.parametrize("user_id", [".", ".."])
def test_an_id_that_no_address_can_hold_is_refused(api: Api, user_id: str) -> None:
    assert "can't be an id" in api.refused(422, "/accounts", user_id=user_id, name="Dot")


@pytest.mark.parametrize("key", ["é-1", "呼叫-1"])
def test_a_key_in_a_header_is_the_same_as_in_a_body(rich: Api, key: str) -> None:
    """A header's bytes reach the app as Latin-1."""
    sent = item(1) | {"request_id": key}
    first = rich.send("POST", "/charges", json=[sent]).json()[0]
    again = rich.send("POST", "/charge", json=CALL, headers={"Idempotency-Key": key.encode()})  # type: ignore[dict-item]
    assert (again.status_code, again.json()["id"]) == (200, first["id"])


def test_a_request_id_that_is_none_is_named_as_it_was_sent(rich: Api) -> None:
    (refused,) = rich.send("POST", "/charges", json=[item(1) | {"request_id": "x" * 300}]).json()
    assert refused["status_code"] == 422
    assert [error["field"] for error in refused["errors"]] == ["request_id"]
