"""A real `streamlit run app.py` on a database of its own, and a real Chromium."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


class App:
    """A running app: where it is, what it has printed, and its database."""

    def __init__(self, database_url: str, log: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.database_url = database_url
        self.log = log
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port)]
        command += ["--server.headless", "true"]
        environment = os.environ | {"BILLING_DATABASE_URL": self.database_url}
        with self.log.open("wb") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1):
                return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def setup_link(self) -> str:
        """The first admin's link, as the console shows it."""
        found = re.search(r"http://\S+/\?setup=\S+", self.log.read_text())
        assert found, self.log.read_text()
        return found[0]

    def shell(self, *arguments: str, stdin: str = "") -> str:
        """`python -m billing_core …` on the same database."""
        done = subprocess.run(
            [sys.executable, "-m", "billing_core", *arguments], cwd=ROOT, input=stdin, capture_output=True, text=True,
            env=os.environ | {"BILLING_DATABASE_URL": self.database_url}, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it waits for browsers that are still connected
            self.process.kill()
            self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], App]]:
    """Start the app on an empty database."""
    running: list[App] = []

    def started() -> App:
        place = tmp_path / str(len(running))
        place.mkdir()
        running.append(App(f"sqlite:///{place / 'billing.db'}", place / "console.log"))
        running[-1].wait()
        return running[-1]

    yield started
    for app in running:
        app.stop()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Browser tests need Chromium: install it (Debian: apt-get install chromium), then run them again.")
    with sync_playwright() as playwright:
        home = {**os.environ, "HOME": str(tmp_path_factory.mktemp("chromium"))}  # it leaves nothing in anybody's own
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, env=home)
        yield browser
        browser.close()
