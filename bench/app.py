"""The app as it runs, and people at it: a browser's websocket without the browser, so that what is timed is the server.

with App(url) as app, Visitor(app, session) as boss:
    boss.open("stats", "range=12m")
    seconds = boss.rerun()
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import connect

from api.auth import SESSION_COOKIE
from billing_core import accounts, signin
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.errors import UnknownAccount

ROOT = Path(__file__).parent.parent
ADMIN = "bench-admin"
SECONDS = 60
"""So long anything is waited for."""


def sign_in(db: Database, user_id: str = ADMIN) -> str:
    """A session's secret; the admin is made where there is none."""
    try:
        account = db.read(accounts.find, user_id)
    except UnknownAccount:
        account = db.write(accounts.add, user_id, "Admin", actor=SHELL, role="admin")
    return db.write(signin.issue, "session", account)


class App:
    """`streamlit run app.py` in a process of its own. With `notes`, a file, it notes there what each run of a page took
    (see timed.py)."""

    def __init__(self, database_url: str, notes: Path | None = None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.notes = notes
        module = ["streamlit"] if notes is None else ["bench.timed", str(notes)]
        command = [sys.executable, "-m", *module, "run", "app.py", "--server.port", str(self.port)]
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, "--server.headless", "true"], cwd=ROOT, stdout=subprocess.DEVNULL,
            env=os.environ | {"BILLING_DATABASE_URL": database_url},
        )  # fmt: skip

    def __enter__(self) -> Self:
        while self.process.poll() is None and time.perf_counter() - self.began < SECONDS:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1):
                return self
            time.sleep(0.01)
        sys.exit("The app didn't start.")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def memory_mb(self) -> int:
        """What it has in memory now."""
        said = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(said.split("VmRSS:")[1].split()[0]) // 1024

    def noted(self) -> list[dict[str, float]]:
        """What timed.py has noted so far."""
        return [json.loads(line) for line in self.notes.read_text().splitlines()] if self.notes else []


class Visitor:
    """Somebody signed in, at a page."""

    def __init__(self, app: App, session: str):
        self.app = app
        self.session = session
        self.path = self.query = ""
        self.page = ""
        """The page's hash, as the server calls it."""
        self.texts: list[bytes] = []
        """What the last run has sent."""

    def __enter__(self) -> Self:
        self.opened = connect(
            f"ws://localhost:{self.app.port}/_stcore/stream", subprotocols=["streamlit"], max_size=None,
            additional_headers={"Cookie": f"{SESSION_COOKIE}={self.session}"}, compression=None,
        )  # fmt: skip
        self.socket = self.opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.opened.__exit__(*error)

    def open(self, path: str, query: str = "") -> float:
        """Go to a page, by its address; seconds until it is there."""
        self.path, self.query, self.page = path, query, ""
        return self.rerun()

    def rerun(self, widgets: Mapping[str, str] | None = None) -> float:
        """Run the page again, with these choices in its widgets; seconds until all of it has come."""
        asked = BackMsg()
        run = asked.rerun_script
        run.query_string, run.page_script_hash, run.page_name = self.query, self.page, "" if self.page else self.path
        context = run.context_info
        context.timezone, context.locale = "Asia/Shanghai", "en-US"
        context.url, context.color_scheme = f"{self.app.url}/{self.path}", "light"
        for id, value in (widgets or {}).items():
            run.widget_states.widgets.append(WidgetState(id=id, string_value=value))
        self.texts = []
        began = time.perf_counter()
        self.socket.send(asked.SerializeToString())
        while True:
            said: Any = self.socket.recv(timeout=SECONDS)
            self.texts.append(said)
            message = ForwardMsg.FromString(said)
            kind = message.WhichOneof("type")
            if kind == "navigation":
                self.page = message.navigation.page_script_hash
            elif kind == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                return time.perf_counter() - began
