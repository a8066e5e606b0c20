"""How fast charges are booked over HTTP, by one worker: many in a request, and one a request on many connections.

    python -m bench http

The server is a process of its own, `api:app` on a fresh SQLite file. A request of 1000 charges (NDJSON) stands beside bare
sqlite3 that books as many in one transaction (bare.py). A charge a request, of which many are under way at once, stands beside
a route of the same server that does the same but for the ledger: it reads the request, checks the key and answers. Whoever
asks is a process of its own as well. What is compared runs in turns, round by round; a ratio is the median of the rounds'.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount

import api
from api import PREFIX, routes, schemas
from api.auth import Charger
from api.bodies import NDJSON, Body
from api.errors import Route
from api.exact_json import ExactJSONResponse
from billing_core import ledger, signin
from billing_core.actors import SHELL

from . import bare
from .bare import Call
from .charging import (
    ACCOUNTS,
    MODELS,
    Row,
    arrivals,
    compare,
    consumed,
    database,
    endless_calls,
    must_agree,
    show,
    timed,
)  # fmt: skip

# The server

_plain = APIRouter(route_class=Route)


@_plain.post("/bare")
async def _bare(actor: Charger, body: Body, key: routes.Key = None) -> Response:
    """As `POST /charge` does it, without the ledger."""
    call = await routes.asked_charge(body, actor, key)
    receipt = ledger.Receipt(1, call.user_id, "deduct", 0, 0, 10**12, "active", 0)
    return ExactJSONResponse(schemas.Charged(**routes.charged(receipt)))


def app() -> Starlette:
    """`api:app`, and the bare route beside its own."""
    next(route.app for route in api.app.routes if isinstance(route, Mount)).include_router(_plain)
    return api.app


@contextmanager
def served(url: str) -> Iterator[tuple[str, int]]:
    """The address of a server that is up."""
    command = [sys.executable, "-m", "uvicorn", f"{__name__}:app", "--factory", "--port", "0", "--no-access-log"]
    env = os.environ | {"BILLING_DATABASE_URL": url}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = ""
            while not (found := re.search(r"running on http://([\d.]+):(\d+)", said)):
                line = process.stderr.readline()
                said += line
                if not line:
                    sys.exit(f"The server did not start:\n{said}")
            yield found[1], int(found[2])
        finally:
            process.terminate()
            process.stderr.read()


def _body(call: Call) -> dict[str, Any]:
    return {
        "user_id": f"user{call.account}",
        "model_id": MODELS[call.model - 1],
        "prompt_tokens": call.prompt,
        "completion_tokens": call.completion,
    }


# Whoever asks: a process that costs little, so that it isn't the limit


class _Connection(asyncio.Protocol):
    """Sends a request, and the next one when its answer is there, until there are no more."""

    def __init__(self, requests: Iterator[bytes], answers: list[bytes], seconds: list[float]) -> None:
        self._requests, self._answers, self._seconds = requests, answers, seconds
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def begin(self) -> None:
        self._received = b""
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, content = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length is None or len(content) < int(length[1]):
            return
        self._seconds.append(time.perf_counter() - self._began)
        self._answers.append(self._received)
        self.begin()

    def connection_lost(self, _error: Exception | None) -> None:
        self.ended.set_result(None)


async def ask(address: tuple[str, int], requests: Sequence[bytes], connections: int) -> tuple[float, list[float], int]:
    """Send them all; the seconds that it took, those of each, and the cost of all in 毫."""
    waiting, answers, seconds = iter(requests), list[bytes](), list[float]()
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: _Connection(waiting, answers, seconds), *address))[1]
        for _ in range(connections)
    ]
    began = time.perf_counter()
    for one in made:
        one.begin()
    await asyncio.gather(*(one.ended for one in made))
    taken = time.perf_counter() - began
    refused = [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200 ")]
    if refused or len(answers) < len(requests):
        sys.exit(f"{len(answers)} of {len(requests)} were answered, {len(refused)} refused: {refused[:1]}")
    return taken, seconds, sum(json.loads(answer.partition(b"\r\n\r\n")[2])["cost"] for answer in answers)


def requests(path: str, calls: Sequence[Call], address: tuple[str, int], key: str) -> list[bytes]:
    """A charge each."""
    bodies = [json.dumps(_body(call)).encode() for call in calls]
    return [
        f"POST {PREFIX}{path} HTTP/1.1\r\nHost: {address[0]}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {call.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
        for call, body in zip(calls, bodies, strict=True)
    ]


def _client(pipe: Any, address: tuple[str, int], key: str) -> None:
    while (asked := pipe.recv()) is not None:
        path, calls, connections = asked
        pipe.send(asyncio.run(ask(address, requests(path, calls, address, key), connections)))


@contextmanager
def _asking(address: tuple[str, int], key: str) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_client, args=(theirs, address, key))
    process.start()
    theirs.close()  # so that the process's end is seen
    try:
        yield ours
        ours.send(None)
    finally:
        process.join(timeout=10)
        process.kill()


# The rows


def _together(
    address: tuple[str, int], key: str, calls: Iterator[Call], charges: int, connections: int, rounds: int
) -> tuple[list[Row], int]:
    """One charge a request; and what all of them cost, in 毫."""
    spent = 0
    taken: list[tuple[tuple[float, list[float]], ...]] = []
    with _asking(address, key) as pipe:

        def ask(path: str, some: Sequence[Call]) -> tuple[float, list[float], int]:
            pipe.send((path, some, connections))
            try:
                return pipe.recv()  # type: ignore[no-any-return]
            except EOFError:
                sys.exit(f"POST {path}: see above.")

        for turn in range(rounds + 1):
            some = list(itertools.islice(calls, charges))
            done = {path: ask(path, some) for path in (("/charge", "/bare") if turn % 2 else ("/bare", "/charge"))}
            cost = sum(call.cost for call in some)
            must_agree("POST /charge", done["/charge"][2], cost)
            spent += cost
            if turn:  # the first one warms up
                taken.append(tuple(done[path][:2] for path in ("/charge", "/bare")))
    name = f"POST /charge, {connections} connections"
    rates = [charges / statistics.median(pair[side][0] for pair in taken) for side in (0, 1)]
    late = [[_p99(pair[side][1]) * 1000 for pair in taken] for side in (0, 1)]
    return [
        _row(name, rates, [theirs[0] / ours[0] for ours, theirs in taken], 0.5),
        _row(f"{name}: p99, ms", [statistics.median(each) for each in late], [a / b for a, b in zip(*late, strict=True)], 3, most=True),
    ], spent  # fmt: skip


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100]


def _row(name: str, values: Sequence[float], ratios: Sequence[float], limit: float, *, most: bool = False) -> Row:
    ratio = statistics.median(ratios)
    return Row(name, *values, ratio, min(ratios), max(ratios), limit, ratio <= limit if most else ratio >= limit)


def _batches(
    folder: Path, address: tuple[str, int], key: str, calls: Iterator[Call], batch: int, rounds: int
) -> tuple[Row, int]:
    """Many charges a request; and what all of them cost, in 毫."""
    plain = bare.sqlite(folder / "bare.db", ACCOUNTS)
    connection = HTTPConnection(*address)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": NDJSON}

    def ours(some: Sequence[Call]) -> tuple[float, float]:
        body = b"".join(json.dumps({"request_id": call.key, **_body(call)}).encode() + b"\n" for call in some)

        def send(_some: Sequence[Call]) -> None:
            connection.request("POST", f"{PREFIX}/charges", body, headers)
            answer.append(connection.getresponse().read())

        answer: list[bytes] = []
        taken = timed(send)(some)
        cost = sum(json.loads(line).get("cost", 0) for line in answer[0].splitlines())
        must_agree("POST /charges", cost, sum(call.cost for call in some))
        return taken

    row, spent = compare(
        f"POST /charges, NDJSON, {batch} a request",
        ours,
        timed(lambda some: bare.charge_together(plain, [call._replace(at_ns=time.time_ns()) for call in some])),
        calls, batch, rounds, 0.4,
    )  # fmt: skip
    must_agree("POST /charges", plain.execute("SELECT sum(consumed) FROM account").fetchone()[0], spent)
    row.ours_cpu_us = row.bare_cpu_us = None  # the server's isn't in it
    plain.close()
    connection.close()
    return row, spent


def _rows(asked: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=asked.folder) as name:
        folder = Path(name).resolve()
        url = f"sqlite:///{folder / 'ours.db'}"
        db, actor = database(url)
        key = db.write(signin.add_key, actor.user_id, actor=SHELL, can="charge")[1]
        calls = endless_calls(db, arrivals(asked.trace), [1] * ACCOUNTS)
        with served(url) as address:
            row, spent = _batches(folder, address, key, calls, asked.batch, asked.rounds)
            yield row
            rows, more = _together(address, key, calls, asked.charges, asked.connections, asked.rounds)
            yield from rows
        must_agree("the ledger", consumed(db), spent + more)
        db.close()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench http", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="a CSV: TIMESTAMP, tokens in, tokens out")
    parser.add_argument("--charges", type=int, default=2000, help="of all connections together in each round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1000, help="charges in a request of many")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to be measured; cleaned up")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    show(_rows(asked), asked.json)
