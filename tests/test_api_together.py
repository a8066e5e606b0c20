"""Charges that arrive together share a transaction, and nobody can tell."""

import asyncio
import json
import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import sqlalchemy as sa
from billing_http import Api, sentence
from test_api_server import served

from api import create_api
from api.together import MOST, Together
from billing_core import accounts, database, ledger, logs, pricing, signin
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database, Transaction
from billing_core.errors import BillingError, DatabaseUnavailable, NotFound

Ask = Callable[..., Awaitable[httpx.Response]]


def call(user_id: str = "ann", tokens: int = 1000) -> dict[str, Any]:
    """180 毫 for 1 000 tokens."""
    return {"user_id": user_id, "model_id": "m", "prompt_tokens": tokens, "completion_tokens": 0}


@pytest.fixture
def api(db: Database) -> Api:
    """Ann and Bob with 1 000 000 毫 each, and model m at 18 元."""
    api = Api(db)
    api.account("bob", balance=10**6)
    api.post("/recharge", user_id="ann", amount=10**6)
    db.write(pricing.set_price, "m", 18_000_000, 18_000_000, actor=SHELL)
    return api


def at_once(api: Api, use: Callable[[Ask], Awaitable[Any]]) -> Any:
    """What `use` gives, which asks as many at once as it likes, all of one server."""

    async def run() -> Any:
        transport = httpx.ASGITransport(create_api(lambda: api.db))
        async with httpx.AsyncClient(transport=transport, base_url="http://billing", timeout=60) as client:

            def charge(body: dict[str, Any], once: str | None = None, key: str = api.boss) -> Awaitable[httpx.Response]:
                headers = {"Authorization": f"Bearer {key}"} | ({"Idempotency-Key": once} if once else {})
                return client.post("/charge", json=body, headers=headers)

            return await use(charge)

    return asyncio.run(run())


def all_at_once(api: Api, *asked: dict[str, Any]) -> list[httpx.Response]:
    async def use(charge: Ask) -> list[httpx.Response]:
        return await asyncio.gather(*(charge(**one) for one in asked))

    return list(at_once(api, use))


def consumed(db: Database, user_id: str = "ann") -> int:
    return db.read(accounts.find, user_id).total_consumed


def test_a_server_that_is_asked_for_all_kinds_at_once_answers_each_as_if_alone(db_url: str) -> None:
    db = Database(db_url)
    db.write(pricing.set_price, "m", 18_000_000, 18_000_000, actor=SHELL)
    for user_id, balance in (("ann", 10**6), ("bob", 10**6), ("poor", 1799), ("icy", 10**6)):
        db.write(accounts.add, user_id, user_id, actor=SHELL)
        db.write(ledger.recharge, user_id, balance, actor=SHELL)
    db.write(accounts.change, "icy", actor=SHELL, status="frozen")
    keys = [db.write(signin.add_key, user_id, actor=SHELL, can="charge")[1] for user_id in ("ann", "bob")]
    plain = db.write(signin.add_key, "ann", actor=SHELL)[1]
    asked = [
        *((keys[n % 2], call("ann", 1000 + n), f"good {n}") for n in range(60)),
        *((keys[n % 2], call("bob", 1000 + n), f"bobs {n}") for n in range(60)),
        *((keys[0], call("poor", 1000), f"poor {n}") for n in range(20)),
        *((keys[0], call("icy"), f"icy {n}") for n in range(5)),
        *((keys[0], call("nobody"), f"nobody {n}") for n in range(5)),
        *((plain, call("ann"), f"plain {n}") for n in range(5)),
        *(("bk_unknown", call("ann"), f"unknown {n}") for n in range(5)),
        *((keys[1], {**call("bob"), "prompt_tokens": -1}, f"odd {n}") for n in range(5)),
    ] * 2  # each is sent twice
    random.Random(1).shuffle(asked)
    with served(BILLING_DATABASE_URL=db_url) as address, httpx.Client(timeout=60) as client:

        def send(one: tuple[str, dict[str, Any], str]) -> tuple[str, int, bytes]:
            key, body, name = one
            headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": name}
            response = client.post(f"{address}/charge", json=body, headers=headers)
            return name, response.status_code, response.content

        with ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(send, asked))
    told: dict[str, set[int]] = {}
    for name, status, _ in answers:
        told.setdefault(name.split()[0], set()).add(status)
    assert told == {
        "good": {200}, "bobs": {200}, "poor": {200, 402}, "icy": {403}, "nobody": {404}, "plain": {403},
        "unknown": {401}, "odd": {422},
    }  # fmt: skip
    charged = {name: content for name, status, content in answers if status == 200}
    assert all(content == charged[name] for name, status, content in answers if status == 200)
    assert len({json.loads(content)["id"] for content in charged.values()}) == len(charged) == 60 + 60 + 9
    costs = sum(-(-(1000 + n) * 18 // 100) for n in range(60))
    assert [consumed(db, user_id) for user_id in ("ann", "bob", "poor", "icy")] == [costs, costs, 9 * 180, 0]
    assert check(db) == []
    db.close()


def test_many_at_once_share_transactions_and_each_gets_its_own_answer(api: Api) -> None:
    writes = []
    write = Database.write

    def note(db: Database, *asked: Any, **named: Any) -> Any:
        writes.append(1)
        return write(db, *asked, **named)

    with patch.object(Database, "write", note):
        done = all_at_once(api, *({"body": call("ann", 100 * n), "once": f"c {n}"} for n in range(1, 41)))
    assert [answer.json()["cost"] for answer in done] == [18 * n for n in range(1, 41)]
    assert len(writes) < 20
    assert consumed(api.db) == sum(18 * n for n in range(1, 41))
    assert check(api.db) == []


def test_of_the_same_key_at_once_one_is_charged_and_all_get_its_answer(api: Api) -> None:
    done = all_at_once(api, *[{"body": call(), "once": "same"}] * 10)
    assert {answer.content for answer in done} == {done[0].content}
    others = all_at_once(api, *[{"body": call("bob"), "once": "same"}] * 3)
    assert ["was used for another request" in sentence(other, 409) for other in others] == [True] * 3
    assert (consumed(api.db), consumed(api.db, "bob")) == (180, 0)


def test_of_two_requests_with_one_key_at_once_one_is_charged(api: Api) -> None:
    done = all_at_once(api, *({"body": call(user_id), "once": "same"} for user_id in 4 * ("ann", "bob")))
    codes = [{answer.status_code for answer in done[first::2]} for first in (0, 1)]
    assert codes in ([{200}, {409}], [{409}, {200}])
    assert consumed(api.db) + consumed(api.db, "bob") == 180


def test_programs_that_charge_at_once_are_told_apart(api: Api) -> None:
    """Each has its own idempotency keys, stands beside its own entries, and may do what its own key may."""
    keys = [api.key(api.account(name), can) for name, can in (("m1", "charge"), ("m2", "charge"), ("m3", ""))]
    done = all_at_once(api, *({"body": call(), "once": "same", "key": keys[n % 3]} for n in range(12)))
    assert [answer.status_code for answer in done] == [200, 200, 403] * 4
    assert {answer.json()["id"] for answer in done[::3]} != {answer.json()["id"] for answer in done[1::3]}
    rows = api.db.read(logs.page, logs.Filters(user_id="ann", types=("deduct",)), actor=SHELL, limit=50)
    assert sorted(row.operator_id or "" for row in rows) == ["m1", "m2"]
    assert consumed(api.db) == 2 * 180


def test_while_the_database_is_busy_each_is_told_and_nothing_is_charged(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database(sqlite_url)
    api = Api(db)
    db.write(pricing.set_price, "m", 18_000_000, 18_000_000, actor=SHELL)
    api.post("/recharge", user_id="ann", amount=10_000)
    asked = [{"body": call(), "once": f"c {n}"} for n in range(30)]
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    assert db.file is not None
    with closing(sqlite3.connect(db.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for answer in all_at_once(api, *asked):
            assert answer.headers["retry-after"] == "1"
            assert "busy" in sentence(answer, 503)
        other.execute("ROLLBACK")
    assert consumed(db) == 0
    monkeypatch.setattr(database, "BUSY_SECONDS", 10)
    assert {answer.status_code for answer in all_at_once(api, *asked, *asked)} == {200}
    assert consumed(db) == 30 * 180
    assert check(db) == []
    db.close()


def test_what_nobody_thought_of_is_the_trouble_of_one_alone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = pricing.clean_model

    def broken(name: str) -> str:
        if name == "broken":
            raise RuntimeError("secret detail")
        return clean(name)

    monkeypatch.setattr(pricing, "clean_model", broken)
    done = all_at_once(api, *({"body": call() | ({"model_id": "broken"} if n == 5 else {})} for n in range(10)))
    assert [answer.status_code for answer in done] == [200] * 5 + [500] + [200] * 4
    assert "secret" not in sentence(done[5], 500)
    assert consumed(api.db) == 9 * 180


def test_on_postgres_accounts_do_not_wait_for_each_other(postgres_database: str) -> None:
    db = Database(postgres_database)
    api = Api(db)
    api.account("bob", balance=10_000)
    api.post("/recharge", user_id="ann", amount=10_000)
    for user_id in ("ann", "bob"):
        db.write(ledger.charge, user_id, "m", ledger.Tokens(1, 1), actor=SHELL)  # the model is known
    locked, done = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> None:
        tx.connection().execute(sa.text("SELECT 1 FROM account WHERE user_id = 'ann' FOR UPDATE"))
        locked.set()
        done.wait(30)

    async def use(charge: Ask) -> tuple[int, bool, int]:
        anns = asyncio.gather(*(charge(call("ann")) for _ in range(5)))
        bobs = await asyncio.gather(*(charge(call("bob")) for _ in range(5)))
        waiting = not anns.done()
        done.set()
        return sum(one.status_code == 200 for one in bobs), waiting, sum(one.status_code == 200 for one in await anns)

    holder = threading.Thread(target=db.write, args=(hold,))
    holder.start()
    assert locked.wait(10)
    try:
        assert at_once(api, use) == (5, True, 5)
    finally:
        done.set()
        holder.join()
    assert check(db) == []
    db.close()


def test_a_lone_request_is_done_at_once_and_those_that_come_meanwhile_are_the_next() -> None:
    batches: list[list[int]] = []
    go_on = threading.Semaphore(0)

    def act(_place: str, batch: Sequence[int]) -> list[int | BillingError]:
        batches.append(list(batch))
        go_on.acquire(timeout=10)
        return [NotFound("There is no {n}.", n=n) if n == 3 else n * 10 for n in batch]

    async def run() -> list[Any]:
        together = Together(act)
        asked = [asyncio.create_task(together("here", 0))]
        while not batches:
            await asyncio.sleep(0.001)
        asked += [asyncio.create_task(together("here", n)) for n in range(1, MOST + 5)]
        await asyncio.sleep(0)
        asked[2].cancel()  # before its batch began
        go_on.release(3)
        return await asyncio.gather(*asked, return_exceptions=True)

    given = asyncio.run(run())
    assert batches == [[0], [1, *range(3, MOST + 1)], list(range(MOST + 1, MOST + 5))]
    assert isinstance(given[2], asyncio.CancelledError)
    assert isinstance(given[3], NotFound)
    assert [one for one in given if isinstance(one, int)] == [n * 10 for n in range(MOST + 5) if n not in (2, 3)]


def test_one_batch_that_takes_long_holds_up_no_other_where_several_are_under_way() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def act(_place: str, batch: Sequence[int]) -> list[int | BillingError]:
        if 0 in batch:
            begun.set()
            assert go_on.wait(10)
        return [n * 10 for n in batch]

    async def run() -> list[int]:
        together = Together(act, at_once=2)
        stuck = asyncio.create_task(together("here", 0))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        given = [await together("here", n) for n in (1, 2)]
        go_on.set()
        return [await stuck, *given]

    assert asyncio.run(run()) == [0, 10, 20]


def test_what_the_database_cannot_do_is_not_waited_for_twice() -> None:
    batches: list[list[int]] = []
    go_on = threading.Event()

    def act(_place: str, batch: Sequence[int]) -> list[int | BillingError]:
        batches.append(list(batch))
        go_on.wait(10)
        raise DatabaseUnavailable("The database is busy.")

    async def run() -> list[Any]:
        together = Together(act)
        asked = [asyncio.create_task(together("here", 0))]
        while not batches:
            await asyncio.sleep(0.001)
        asked += [asyncio.create_task(together("here", n)) for n in range(1, 4)]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(one) for one in asyncio.run(run())] == [DatabaseUnavailable] * 4
    assert batches == [[0]]


def test_after_what_nobody_thought_of_each_is_told_how_it_went_alone() -> None:
    def act(_place: str, batch: Sequence[int]) -> list[int | BillingError]:
        if len(batch) > 1:
            raise RuntimeError
        if batch == [2]:
            raise DatabaseUnavailable("The database is busy.")
        return [batch[0] * 10]

    async def run() -> list[Any]:
        together = Together(act)
        return await asyncio.gather(*(together("here", n) for n in range(1, 4)), return_exceptions=True)

    first, second, third = asyncio.run(run())
    assert (first, type(second), third) == (10, DatabaseUnavailable, 30)
