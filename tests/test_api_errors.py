"""Whatever goes wrong is one plain sentence with the right status, and nothing of it stays behind."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from billing_http import Api, sentence
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from starlette.testclient import TestClient

from api import PREFIX, app, bodies, create_api
from api.errors import TooLarge
from billing_core import database
from billing_core.database import Database


@pytest.fixture
def api(db: Database) -> Api:
    return Api(db)


# What a body says


@pytest.mark.parametrize(
    "amount", ["1.5", "1.0", '"5"', '"1e3"', "1e3", "true", "null", "0", "-0", "[]", "{}", "1000000000000001", "9" * 60]
)
def test_an_amount_that_is_no_count_of_hao_is_refused(api: Api, amount: str) -> None:
    response = api.raw("/recharge", f'{{"user_id": "ann", "amount": {amount}}}')
    assert "amount" in sentence(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == ["amount"]
    assert api.balance() == 0


def test_a_missing_field_is_named(api: Api) -> None:
    response = api.raw("/recharge", '{"amount": "5"}')
    assert sentence(response, 422) == "user_id is missing: the request needs it."
    assert [error["field"] for error in response.json()["errors"]] == ["user_id", "amount"]


@pytest.mark.parametrize(
    "price", ["-1", '"-0.5"', "0.0000001", "true", "null", '"1e3"', '"free"', "1000001", "1E400", "[]"]
)
def test_a_price_that_is_none_is_refused(api: Api, price: str) -> None:
    response = api.raw("/pricing", f'{{"model_id": "m", "input_price": 1, "output_price": {price}}}')
    assert "price" in sentence(response, 422).lower()
    assert api.get("/pricing") == []


@pytest.mark.parametrize(
    "start", ["2025-06-20", "2025-06-20T00:00:00", "2024-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "tomorrow", "0001-01-01T00:00:00+14:00"]
)  # fmt: skip
def test_a_price_starts_at_a_moment_to_come(api: Api, start: str) -> None:
    assert api.refused(422, "/pricing", model_id="m", input_price=1, output_price=1, valid_from=start)


@pytest.mark.parametrize(
    ("tokens", "field"),
    [
        ('"prompt_tokens": -1, "completion_tokens": 0', "prompt_tokens"),
        ('"prompt_tokens": 1.0, "completion_tokens": 0', "prompt_tokens"),
        ('"prompt_tokens": "1", "completion_tokens": 0', "prompt_tokens"),
        ('"prompt_tokens": 1, "completion_tokens": true', "completion_tokens"),
        ('"prompt_tokens": 1000000001, "completion_tokens": 0', "prompt_tokens"),
        ('"prompt_tokens": 5, "completion_tokens": 0, "cached_tokens": 6', "cached_tokens"),
        ('"prompt_tokens": 5, "completion_tokens": 0, "cached_tokens": 3, "cache_creation_tokens": 3', "cache_creation_tokens"),
        ('"prompt_tokens": 5, "completion_tokens": 1, "reasoning_tokens": 2', "reasoning_tokens"),
        ('"prompt_tokens": 5, "completion_tokens": 1, "reasoning_tokens": null', "reasoning_tokens"),
        ('"prompt_tokens": 5', "completion_tokens"),
        ('"provider": "xai"', "prompt_tokens"),
        ('"prompt_tokens": 5, "completion_tokens": 1, "response": {}', "response"),
        ('"response": {"id": "no usage"}', "response"),
        ('"response": ""', "response"),
        ('"prompt_tokens": 5, "completion_tokens": 1, "created_at": 5', "created_at"),
        ('"prompt_tokens": 5, "completion_tokens": 1, "created_at": 1e18', "created_at"),
        ('"prompt_tokens": 5, "completion_tokens": 1, "created_at": 1750000400000000000', "created_at"),
        ('"prompt_tokens": 5, "completion_tokens": 1, "created_at": 99999999999999999999', "created_at"),
        ('"prompt_tokens": 5, "completion_tokens": 1, "allow_debt": 1', "allow_debt"),
        ('"prompt_tokens": 5, "completion_tokens": 1, "model_id": ""', "model_id"),
    ],
)  # fmt: skip
def test_a_call_that_makes_no_sense_is_refused_and_not_charged(api: Api, tokens: str, field: str) -> None:
    model = "" if "model_id" in tokens else '"model_id": "m", '
    response = api.raw("/charge", f'{{"user_id": "ann", {model}{tokens}}}')
    sentence(response, 422)
    assert field in [error["field"] for error in response.json()["errors"]]
    assert api.get("/logs/ann") == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'{"user_id": "ann", "amount": 5', b"{'user_id': 'ann'}", b"\xff\xfe", b"[" * 100_000, b"NaN",
        b'{"user_id": "ann", "amount": NaN}', b'{"user_id": "ann", "amount": 5, "amount": 5}',
        b'{"user_id": "ann", "amount": 1' + b"0" * 5000 + b"}", b'{"user_id": "ann", "amount": 1.' + b"0" * 5000 + b"}",
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_is_400(api: Api, body: bytes) -> None:
    sentence(api.raw("/recharge", body), 400)
    assert api.balance() == 0


@pytest.mark.parametrize("body", ["[]", "5", "null", '"text"'])
def test_a_body_that_is_no_object_is_422(api: Api, body: str) -> None:
    assert "JSON object" in sentence(api.raw("/recharge", body), 422)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", " ", "a/b", "x" * 100])
def test_no_id_can_break_anything(api: Api, name: str) -> None:
    call = {"model_id": "m", "prompt_tokens": 1, "completion_tokens": 1}
    for path, body in (("/charge", call), ("/recharge", {"amount": 1})):
        assert "no account" in sentence(api.raw(path, json.dumps({"user_id": name, **body})), 404)
    for model in ("a\0b", "\ud800", " ", "x" * 201):
        sent = json.dumps({"user_id": "ann", **call, "model_id": model})
        assert "model" in sentence(api.raw("/charge", sent), 422)


def test_a_remark_keeps_what_can_be_shown(api: Api) -> None:
    api.raw("/recharge", '{"user_id": "ann", "amount": 1, "remark": "June\\u0000\\n\\ud800  top-up"}')
    assert api.get("/recharge/logs/ann")[0]["remark"] == "June top-up"
    assert "too long" in api.refused(422, "/recharge", user_id="ann", amount=1, remark="x" * 501)


def test_a_body_above_the_limit_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BYTES", bodies.MB)
    too_much = b" " * (bodies.MB + 1)
    assert "at most 1 MB" in sentence(api.raw("/recharge", too_much), 413)
    assert "at most 1 MB" in sentence(api.send("POST", "/recharge", content=iter([too_much])), 413)
    assert api.raw("/charges", too_much + b"[]").json() == []


@pytest.mark.parametrize(("two", "more"), [("[CALL, 1]", "[CALL, 1, 2]"), ("CALL\n\n1\n\n", "CALL\n1\n2")])
def test_a_batch_of_too_many_is_refused_before_anything_is_charged(
    api: Api, monkeypatch: pytest.MonkeyPatch, two: str, more: str
) -> None:
    monkeypatch.setattr(bodies, "MAX_ITEMS", 2)
    api.post("/recharge", user_id="ann", amount=100)
    call = '{"request_id": "r", "user_id": "ann", "model_id": "m", "prompt_tokens": 1, "completion_tokens": 1}'
    assert "at most 2 charges" in sentence(api.raw("/charges", more.replace("CALL", call)), 413)
    assert api.balance() == 100
    assert api.raw("/charges", two.replace("CALL", call)).status_code == 200
    assert api.balance() < 100


def test_a_large_object_that_names_a_key_twice_is_refused(api: Api) -> None:
    names = [*range(200_000), 199_999]  # where time grew with the square of them, the run would not end
    body = "{" + ",".join(f'"{name}":1' for name in names) + "}"
    assert "“199999” stands twice" in sentence(api.raw("/charge", body), 400)


@pytest.mark.parametrize(("declared", "reads"), [([(b"content-length", b"1048577")], 0), ([], 5)])
def test_a_body_above_the_limit_is_not_read_on(declared: list[tuple[bytes, bytes]], reads: int) -> None:
    parts = 0

    async def receive() -> dict[str, Any]:
        nonlocal parts
        parts += 1
        return {"type": "http.request", "body": b" " * (bodies.MB // 4), "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": declared}, receive)
    # In a thread of its own: a browser's tests leave an event loop running in this one.
    with ThreadPoolExecutor(1) as pool, pytest.raises(TooLarge):
        pool.submit(lambda: asyncio.run(bodies.read(request, bodies.MB))).result()
    assert parts == reads


# Addresses


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=10001", "limit=1.0", "limit=ten", "limit=", "limit=1e1", "limit=%00"]
)
def test_a_limit_that_is_no_count_is_refused(api: Api, query: str) -> None:
    for path in ("/logs", "/logs/ann", "/recharge/logs/ann"):
        assert "limit" in sentence(api.send("GET", f"{path}?{query}"), 422)


@pytest.mark.parametrize("number", ["9" * 19, "-" + "9" * 19, "9" * 5000])
def test_a_number_that_is_too_large_is_called_that(api: Api, number: str) -> None:
    for asked in (f"/logs?limit={number}", f"/logs?offset={number}", f"/stats?days={number}"):
        assert "is a larger number than this field takes" in sentence(api.send("GET", asked), 422)


@pytest.mark.parametrize(
    "query", ["offset=-1", "offset=x", "offset=1.5", "offset=99999999999999999999", "offset=9223372036854775808"]
)
def test_an_offset_that_is_no_count_is_refused(api: Api, query: str) -> None:
    assert "offset" in sentence(api.send("GET", f"/logs?{query}"), 422)


@pytest.mark.parametrize(
    "query",
    [
        "days=0",
        "days=-7",
        "days=4001",
        "days=1.5",
        "granularity=week",
        "timezone=Mars/Base",
        "timezone=../UTC",
        "timezone=%00",
    ],
)
def test_periods_that_cannot_be_are_refused(api: Api, query: str) -> None:
    response = api.send("GET", f"/stats?{query}")
    assert query.split("=")[0] in response.json()["errors"][0]["field"]
    sentence(response, 422)


def test_an_address_or_a_method_that_is_not_there(api: Api) -> None:
    for path in ("/nothing", "", "/", "/balance/", "/balance/a/b", "/pricing/x/../../y"):
        assert "nothing at this address" in sentence(api.send("GET", path), 404) or path.endswith("y")
    assert "method" in sentence(api.send("GET", "/recharge"), 405)
    refused = api.send("DELETE", "/pricing/m")
    assert "method" in sentence(refused, 405)
    assert refused.headers["allow"] == "GET"
    outside = TestClient(app).get("/elsewhere")
    assert "nothing at this address" in sentence(outside, 404)  # type: ignore[arg-type]


def test_a_sentence_is_in_the_readers_language(api: Api) -> None:
    english, chinese = (
        sentence(api.send("GET", "/nothing", headers={"Accept-Language": language}), 404)
        for language in ("de, en;q=0.5", "zh-CN,zh;q=0.9,en;q=0.8")
    )
    assert english.startswith("There is nothing")
    assert chinese.startswith("此地址")


# What nobody thought of


def test_an_unexpected_error_tells_nothing_and_is_logged(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("billing_core.ledger.held", broken)
    with caplog.at_level(logging.ERROR, "api.errors"):
        detail = sentence(api.send("GET", "/balance"), 500)
    assert "secret" not in detail
    assert "secret detail" in caplog.text
    assert "/balance" in caplog.text


# A database that can't be used


def served(open_db: Callable[[], Database], key: str) -> Callable[..., Any]:
    client = TestClient(Starlette(routes=[Mount(PREFIX, create_api(open_db))]))
    return lambda method, path, **more: client.request(
        method, PREFIX + path, headers={"Authorization": f"Bearer {key}"}, **more
    )


def unavailable(response: Any) -> str:
    assert response.headers["retry-after"] == "1"
    return sentence(response, 503)


def test_a_locked_database_is_503_and_can_still_be_read(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0)
    db = Database(sqlite_url)
    api = Api(db)
    assert db.file is not None
    with closing(sqlite3.connect(db.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "busy" in unavailable(api.send("POST", "/recharge", json={"user_id": "ann", "amount": 5}))
        assert api.balance() == 0
        other.execute("ROLLBACK")
    assert api.post("/recharge", user_id="ann", amount=5)["balance"] == 5
    db.close()


def test_a_read_only_database_is_503_and_can_still_be_read(sqlite_url: str) -> None:
    db = Database(sqlite_url)
    key = Api(db).boss
    db.close()
    read_only = Database(f"sqlite:///file:{db.file}?mode=ro&uri=true")
    request = served(lambda: read_only, key)
    assert request("GET", "/balance/ann").json()["balance"] == 0
    assert "read-only" in unavailable(request("POST", "/recharge", json={"user_id": "ann", "amount": 5}))
    read_only.close()


def test_a_newer_an_absent_and_a_damaged_database_are_503(sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "billing.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database at all" * 1000)
    for url, words in (
        (sqlite_url, "newer version"),
        (f"sqlite:///{tmp_path}/absent/billing.db", "can't be opened"),
        (f"sqlite:///{damaged}", "not a billing database"),
        ("mysql://host/name", "BILLING_DATABASE_URL"),
        ("postgresql+psycopg://nobody@127.0.0.1:1/none", "does not answer"),
    ):
        request = served(lambda url=url: database.open_database(url), "bk_any")  # type: ignore[misc]
        for method, path in (
            ("GET", "/balance"),
            ("GET", "/pricing"),
            ("POST", "/charge"),
            ("GET", "/export/logs.csv"),
        ):
            assert words in unavailable(request(method, path))
