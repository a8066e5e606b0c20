"""The API served alone by two worker processes, as `uvicorn api:app --workers 2` does it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from api import PREFIX, create_api
from billing_core import accounts, ledger, pricing, signin
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, prepare

PROJECT = Path(__file__).resolve().parent.parent


@contextmanager
def served(folder: Path = PROJECT, **environment: str) -> Iterator[str]:
    """The address of a server that is up."""
    env = {name: value for name, value in os.environ.items() if name != "BILLING_DATABASE_URL"} | environment
    command = [sys.executable, "-m", "uvicorn", "api:app", "--workers", "2", "--port", "0", "--no-access-log"]
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address, started, said = "", 0, []
            while not (address and started == 2):
                line = process.stderr.readline()
                said.append(line)
                assert line, "".join(said)
                started += "Application startup complete" in line
                if found := re.search(r"running on (http://[\d.:]+)", line):
                    address = found[1]
            yield address + PREFIX
        finally:
            process.terminate()
            process.stderr.read()


def filled(db: Database, balance: int) -> str:
    """Ann with a balance, model m at 18 元, and a key that may charge."""
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    db.write(ledger.recharge, "ann", balance, actor=SHELL)
    db.write(pricing.set_price, "m", 18_000_000, 18_000_000, actor=SHELL)
    return db.write(signin.add_key, "ann", actor=SHELL, can="charge")[1]


CALL = {"user_id": "ann", "model_id": "m", "prompt_tokens": 1000, "completion_tokens": 0}


def test_many_clients_and_retries_never_charge_twice_or_below_zero(db_url: str) -> None:
    db = Database(db_url)
    key = filled(db, 100 * 180 + 179)
    with served(BILLING_DATABASE_URL=db_url) as address, httpx.Client(timeout=60) as client:

        def charge(name: str) -> tuple[str, int, bytes]:
            headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": name}
            response = client.post(f"{address}/charge", json=CALL, headers=headers)
            return name, response.status_code, response.content

        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(charge, [f"call {n // 3}" for n in range(3 * 120)]))
    charged = {name: content for name, status, content in answers if status == 200}
    assert len(charged) == len(set(charged.values())) == 100
    assert {status for name, status, _ in answers if name not in charged} == {402}
    assert all(content == charged[name] for name, status, content in answers if name in charged)
    account = db.read(accounts.find, "ann")
    assert (account.balance, account.total_consumed) == (179, 100 * 180)
    assert check(db) == []
    db.close()


def test_batches_and_holds_from_many_clients_add_up(db_url: str) -> None:
    db = Database(db_url)
    key = filled(db, 10**6)
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    db.write(ledger.recharge, "bob", 10**6, actor=SHELL)
    with (
        served(BILLING_DATABASE_URL=db_url) as address,
        httpx.Client(timeout=60, headers={"Authorization": f"Bearer {key}"}) as client,
    ):

        def post(path: str, body: Any) -> Any:
            response = client.post(address + path, json=body)
            assert response.status_code == 200, response.text
            return response.json()

        def batch(number: int) -> None:
            who = ("ann", "bob") if number % 2 else ("bob", "ann")
            items = [{**CALL, "user_id": who[n % 2], "request_id": f"{number}-{n}"} for n in range(10)]
            assert all("id" in one for one in post("/charges", items))

        def hold(number: int) -> None:
            body = {"user_id": "ann", "model_id": "m", "prompt_tokens": 1000, "max_completion_tokens": 0}
            held = post("/precharge", body)["precharge_id"]
            if number % 2:
                post("/settle", {"precharge_id": held, "prompt_tokens": 500, "completion_tokens": 0})
            else:
                post("/refund", {"precharge_id": held})

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: (batch(number), hold(number)), range(20)))
    spent = {user_id: db.read(accounts.find, user_id).total_consumed for user_id in ("ann", "bob")}
    assert spent == {"ann": 20 * 5 * 180 + 10 * 90, "bob": 20 * 5 * 180}
    assert check(db) == []
    db.close()


def test_without_settings_it_serves_the_default_database(tmp_path: Path) -> None:
    for package in ("api", "billing_core"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with served(tmp_path) as address:
        assert httpx.get(f"{address}/pricing").json() == []
        file = tmp_path / "data" / "billing.db"
        db = Database(f"sqlite:///{file}")
        key = filled(db, 180)
        done = httpx.post(f"{address}/charge", json=CALL, headers={"Authorization": f"Bearer {key}"})
        assert (done.status_code, done.json()["balance"]) == (200, 0)
        db.close()


def test_mounted_in_another_app_a_models_name_may_hold_anything(sqlite_url: str) -> None:
    db = Database(sqlite_url)
    prepare(db)
    client = TestClient(Starlette(routes=[Mount(PREFIX, create_api(lambda: db))]))
    for name in ("a/b:c", "a//b", "gpt-4o", "模型", "a b", "a?b#c", "50%", "balance", "."):
        db.write(pricing.set_price, name, 1_000_000, 1, actor=SHELL)
        path = "".join(f"%{byte:02X}" for byte in name.encode())
        assert client.get(f"{PREFIX}/pricing/{path}").json()["model_id"] == name
    assert client.get(f"{PREFIX}/pricing/a/b:c").json()["source"] == "database"
    db.close()
