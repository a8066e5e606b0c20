"""How soon it is there: a shell's command, the app, a chart; and the memory of an app that five people use.

    python -m bench start --file ledger.db

`--file`: a ledger that `python -m bench ledger` has made; it gets an admin, and a call, so that there is one of today. Needs
Chromium, for what is measured in a browser: it is opened before the app is started.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from api.auth import SESSION_COOKIE
from billing_core import ledger
from billing_core.actors import SHELL
from billing_core.database import Database, migrate
from billing_core.tokens import Tokens

from .app import ADMIN, ROOT, App, Visitor, sign_in

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PEOPLE = (ADMIN, "user1", "user2", "user3", "user4")
SEEN = (("", ""), ("logs", "range=30d"), ("stats", "range=12m"), ("prices", ""), ("my-account", ""))
"""What each of them looks at; the admin at the accounts and an account besides."""
DRAWN = "document.querySelector('[data-testid=stVegaLiteChart] svg .role-mark path')"
"""A bar of a chart."""


@dataclass
class Row:
    name: str
    reached: float
    least: float
    most: float
    unit: str
    limit: float | None
    met: bool | None


def row(name: str, numbers: list[float], unit: str, limit: float | None = None) -> Row:
    """The median of what was measured."""
    middle = statistics.median(numbers)
    shown = [round(number, 2) for number in (middle, min(numbers), max(numbers))]
    return Row(name, *shown, unit, limit, None if limit is None else middle <= limit)


# A shell's command


def commands(url: str, rounds: int) -> Iterator[Row]:
    """In turns, so that a busy machine is busy for all of them."""
    asked: dict[str, tuple[list[str], float | None]] = {
        "python -m billing_core balance": (["-m", "billing_core", "balance", PEOPLE[1]], 0.4),
        "beside it, python -c pass": (["-c", "pass"], None),
        "beside it, python -c 'import sqlmodel'": (["-c", "import sqlmodel"], None),
    }
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(rounds + 1):
        for name, (arguments, _limit) in asked.items():
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, env=os.environ | {"BILLING_DATABASE_URL": url},
                stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            if turn:  # the first reads the files from the disk
                seconds[name].append(time.perf_counter() - began)
    for name, (_arguments, limit) in asked.items():
        yield row(name, seconds[name], "s", limit)


# The app


@contextmanager
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        sys.exit("This needs Chromium. Install it (Debian: apt-get install chromium).")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


def page_of(browser: Any, app: App, session: str) -> Any:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US", timezone_id="Asia/Shanghai")
    context.add_cookies([{"name": SESSION_COOKIE, "value": session, "url": app.url}])
    page = context.new_page()
    page.set_default_timeout(30_000)
    return page


def first_page(url: str, session: str, rounds: int) -> Iterator[Row]:
    """From the start of the app's process until a page is there: for a websocket, and on a browser's screen."""
    by_socket, on_screen = [], []
    for _ in range(rounds):
        with App(url) as app, Visitor(app, session) as visitor:
            visitor.open("")
            by_socket.append(time.perf_counter() - app.began)
        with browser() as opened, App(url) as app:
            page = page_of(opened, app, session)
            page.goto(app.url)
            page.get_by_role("heading", name="Balance", exact=True).wait_for()
            on_screen.append(time.perf_counter() - app.began)
    yield row("from start to a page, without a browser", by_socket, "s")
    yield row("from start to a page on screen", on_screen, "s", 4)


def click(url: str, session: str, rounds: int) -> Row:
    """From a click on Stats, on another page, until its chart of all accounts is drawn."""
    seconds = []
    with browser() as opened, App(url) as app:
        page = page_of(opened, app, session)
        for turn in range(rounds + 1):
            page.goto(f"{app.url}/my-account")
            link = page.get_by_test_id("stSidebarNav").get_by_role("link", name="Stats", exact=True)
            page.get_by_role("heading", name="Keys for programs").wait_for()
            page.wait_for_timeout(500)  # until the page has come to rest
            began = time.perf_counter()
            link.click()
            page.wait_for_function(DRAWN)
            if turn:  # the first loads the part of the browser's code that draws
                seconds.append(time.perf_counter() - began)
    return row("from a click to the chart on screen", seconds, "s", 1)


def memory(db: Database) -> list[Row]:
    """Of an app that nobody uses yet, and after five people have looked at all of its pages and stay there."""
    with App(db.url) as app, ExitStack() as there:
        before = app.memory_mb()
        for user_id in PEOPLE:
            visitor = there.enter_context(Visitor(app, sign_in(db, user_id)))
            for path, query in (*SEEN, *((("accounts", ""), ("account", "account=user1")) * (user_id == ADMIN))):
                visitor.open(path, query)
                visitor.rerun()
        return [row("memory after the start", [before], "MB"), row("with five people", [app.memory_mb()], "MB", 250)]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench start", description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    db = Database(f"sqlite:///{asked.file.resolve()}")
    migrate(db)
    session = sign_in(db)
    db.write(ledger.charge, PEOPLE[1], "maker/model-1", Tokens(1000, 100), actor=SHELL, allow_debt=True)
    rows = [
        *commands(db.url, asked.rounds),
        *first_page(db.url, session, max(1, asked.rounds // 3)),
        click(db.url, session, asked.rounds),
        *memory(db),
    ]
    if asked.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for one in rows:
        limit = "" if one.limit is None else f"at most {one.limit:g} {one.unit:<3} {'met' if one.met else 'missed'}"
        spread = "" if one.least == one.most else f"({one.least:g}–{one.most:g})"
        print(f"{one.name:42}{one.reached:8g} {one.unit:<3} {spread:<16} {limit}")
