"""The OpenAPI document: whoever reads it alone can write a client."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from api import PREFIX, app, create_api

ROUTES = {
    "/balance": ["get"], "/recharge": ["post"], "/logs": ["get"], "/stats": ["get"], "/pricing": ["get", "post"],
    "/pricing/{model_id}": ["get"], "/price-plans": ["get"], "/price-plans/withdraw": ["post"],
    "/price-rules": ["get", "post"], "/price-rules/end": ["post"], "/recharge/logs/{user_id}": ["get"], "/charge": ["post"], "/charges": ["post"],
    "/precharge": ["post"], "/settle": ["post"], "/refund": ["post"], "/balance/{user_id}": ["get"],
    "/logs/{user_id}": ["get"], "/stats/{user_id}": ["get"], "/accounts": ["get", "post"],
    "/accounts/{user_id}": ["patch"], "/export/logs.csv": ["get"], "/export/recharges.csv": ["get"],
    "/export/stats.csv": ["get"], "/export/prices.csv": ["get"], "/export/price-history.csv": ["get"], "/export/accounts.csv": ["get"],
    "/reversals": ["post"], "/reversals/preview": ["post"], "/reversals/{job_id}": ["get"],
    "/reversals/{job_id}/run": ["post"],
    "/repricings": ["post"], "/repricings/preview": ["post"], "/repricings/{job_id}": ["get"],
    "/repricings/{job_id}/run": ["post"], "/health": ["get"], "/ready": ["get"], "/audit": ["get"], "/export/audit.csv": ["get"],
    "/statements": ["get"], "/statements/{user_id}": ["get"], "/statements/verify": ["post"],
}  # fmt: skip


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    mounted = TestClient(Starlette(routes=[Mount(PREFIX, create_api())]))
    found: dict[str, Any] = mounted.get(f"{PREFIX}/openapi.json").json()
    assert found == TestClient(app).get(f"{PREFIX}/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_it_names_every_route_and_where_they_are(document: dict[str, Any]) -> None:
    assert {path: sorted(methods) for path, methods in document["paths"].items()} == ROUTES
    assert document["servers"] == [{"url": PREFIX}]
    assert document["openapi"].startswith("3.1")
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_the_documents_name_every_route(document: dict[str, Any]) -> None:
    text = (Path(__file__).parent.parent / "docs" / "api.md").read_text("utf-8")
    for path in document["paths"]:
        assert re.search(re.escape(path.split("/{")[0]) + "(?![a-z-])", text), path


def test_every_field_and_parameter_says_what_it_is(document: dict[str, Any]) -> None:
    silent = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, described in schema["properties"].items()
        if not described.get("description", "").endswith(".")
    ]
    silent += [
        f"{path} {parameter['name']}"
        for _, path, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not (parameter.get("description") or parameter["schema"].get("description"))
    ]
    assert silent == []
    assert all(operation["description"].endswith(".") for _, _, operation in operations(document))


@pytest.mark.parametrize(
    ("unit", "fields"),
    [
        ("毫", ["amount", "balance", "balance_after", "held", "refunded", "total_consumed"]),
        ("元", ["input_price", "output_price", "cache_read_price", "cache_write_price"]),
        ("ns since", ["created_at", "expires_at"]),
        (
            "Tokens: ",
            ["prompt_tokens", "completion_tokens", "cached_tokens", "cache_creation_tokens", "reasoning_tokens"],
        ),
    ],
)
def test_every_field_has_one_unit_and_names_it(document: dict[str, Any], unit: str, fields: list[str]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field in set(fields) & schema["properties"].keys():
            assert unit in schema["properties"][field]["description"], f"{name}.{field}"
        if "cost" in schema["properties"]:
            in_yuan = name in ("PeriodCost", "ModelCost")
            assert ("元" if in_yuan else "毫") in schema["properties"]["cost"]["description"], name


def test_every_error_is_there_and_is_a_sentence(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        refused = {status for status in operation["responses"] if status != "200"}
        assert {"422", "500", "503"} <= refused
        if not (method == "get" and path.startswith(("/pricing", "/price-", "/health", "/ready"))):
            assert {"401", "403"} <= refused, path
        if method != "get":
            assert {"400", "409", "413"} <= refused, path
        for status in refused:
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith("InvalidError" if status == "422" else "/Error")


def test_every_write_has_a_body_with_an_example_and_takes_an_idempotency_key(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if method == "get":
            assert "requestBody" not in operation
            continue
        if path == "/statements/verify":  # it reads, and takes a file
            assert set(operation["requestBody"]["content"]) == {"text/html", "text/csv"}
            continue
        if path.endswith("/{job_id}/run"):  # a job is run once, however often it is asked for
            continue
        keyed = {"Idempotency-Key"} if not path.endswith("/preview") else set()  # which writes nothing
        assert keyed == {one["name"] for one in operation.get("parameters", []) if one["in"] == "header"}, path
        content = operation["requestBody"]["content"]
        assert ("application/x-ndjson" in content) == (path == "/charges")
        schema = content["application/json"]["schema"]
        name = schema.get("items", schema)["$ref"].rsplit("/", 1)[-1]
        described = document["components"]["schemas"][name]
        assert set(described["example"]) <= set(described["properties"])


def test_how_to_sign_in_is_there(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["key"]["type"], schemes["key"]["scheme"]) == ("http", "bearer")
    assert (schemes["session"]["in"], schemes["session"]["name"]) == ("cookie", "billing_session")
    for method, path, operation in operations(document):
        if method == "get" and path.startswith(("/pricing", "/price-", "/health", "/ready")):
            assert "security" not in operation
        else:
            expected = [{"key": []}] if method != "get" else [{"key": []}, {"session": []}]
            assert operation["security"] == expected, path


def test_every_reference_leads_somewhere_and_every_schema_is_used(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name
    used = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert used == set(document["components"]["schemas"])
