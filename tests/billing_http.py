"""The API as a program meets it: mounted as the app mounts it, with an admin's key in hand."""

import json
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from api import PREFIX, create_api
from billing_core import accounts, signin
from billing_core.actors import SHELL
from billing_core.database import Database


class Api:
    """Requests with the admin boss's key, unless `key` says another one (None: without any)."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.client = TestClient(Starlette(routes=[Mount(PREFIX, create_api(lambda: self.db))]))
        self.account("boss", role="admin")
        self.account("ann")
        self.boss = self.key("boss", "admin")

    def account(self, user_id: str, role: str = "member", balance: int = 0) -> str:
        self.db.write(accounts.add, user_id, user_id.capitalize(), actor=SHELL, role=role)
        if balance:
            self.post("/recharge", user_id=user_id, amount=balance)
        return user_id

    def key(self, user_id: str, can: str = "") -> str:
        return self.db.write(signin.add_key, user_id, actor=SHELL, can=can)[1]

    def send(
        self, method: str, path: str, *, key: str | None = "", once: str | None = None,
        headers: dict[str, str] | None = None, **more: Any,
    ) -> httpx.Response:  # fmt: skip
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key or self.boss}"
        if once is not None:
            sent["Idempotency-Key"] = once
        return self.client.request(method, PREFIX + path, headers=sent, **more)  # type: ignore[return-value]

    def get(self, path: str, *, key: str | None = "", headers: dict[str, str] | None = None, **query: Any) -> Any:
        """The answer's JSON; the request has to succeed."""
        response = self.send("GET", path, key=key, headers=headers, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, *, key: str | None = "", once: str | None = None, **body: Any) -> Any:
        response = self.send("POST", path, key=key, once=once, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, status: int, path: str, *, key: str | None = "", once: str | None = None, **body: Any) -> str:
        """The sentence of a POST that has to be refused."""
        return sentence(self.send("POST", path, key=key, once=once, json=body), status)

    def raw(self, path: str, body: str | bytes, *, method: str = "POST", **more: Any) -> httpx.Response:
        return self.send(method, path, content=body, **more)

    def balance(self, user_id: str = "ann") -> int:
        return int(self.get(f"/balance/{user_id}")["balance"])


def sentence(response: httpx.Response, status: int) -> str:
    """The one sentence of an error, which says nothing internal and, for 422, names the fields."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == ({"detail", "errors"} if status == 422 else {"detail"}), body
    detail = body["detail"]
    assert isinstance(detail, str)
    assert detail.endswith((".", "。")), detail
    assert not any(word in detail for word in ("Traceback", "Error", "Exception", "sqlite3", "psycopg.")), detail
    if status == 422:
        assert body["errors"], body
        assert all(set(error) == {"field", "message"} for error in body["errors"])
    return detail


def exact(response: httpx.Response) -> Any:
    """The JSON with its decimals as the text that was sent."""
    return json.loads(response.content, parse_float=str)
