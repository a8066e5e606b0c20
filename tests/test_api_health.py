"""What a supervisor asks: is the process alive, and can it serve?"""

import pytest
import sqlalchemy as sa
from billing_http import Api, sentence
from starlette.testclient import TestClient

import api as door
from billing_core.database import REVISION, Database


@pytest.fixture
def api(db: Database) -> Api:
    return Api(db)


def test_it_is_alive_and_ready_without_a_key(api: Api) -> None:
    assert api.send("GET", "/health", key=None).json() == {"status": "ok"}
    assert api.send("GET", "/ready", key=None).json() == {"status": "ready", "revision": REVISION}


def test_a_database_of_another_revision_is_not_ready_but_alive(api: Api) -> None:
    with api.db.writer.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    answer = api.send("GET", "/ready", key=None)
    assert f"of revision 0001, this app needs {REVISION}" in sentence(answer, 503)
    assert answer.headers["Retry-After"]
    assert api.send("GET", "/health", key=None).status_code == 200


def test_a_database_that_does_not_answer_is_not_ready() -> None:
    nowhere = Database("postgresql+psycopg://nobody@localhost:1/nothing")
    client = TestClient(door.create_api(lambda: nowhere))
    assert "does not answer" in sentence(client.get("/ready"), 503)  # type: ignore[arg-type]
    assert client.get("/health").status_code == 200


def test_a_disk_that_is_nearly_full_is_not_ready(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(Database(sqlite_url))
    monkeypatch.setattr("api.health.LEAST_FREE", 2**62)
    assert "nearly full" in sentence(api.send("GET", "/ready", key=None), 503)


def test_supervisors_find_both_at_the_root_of_the_port(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_DATABASE_URL", sqlite_url)
    client = TestClient(door.app)
    assert [client.get(path).status_code for path in ("/health", "/ready", f"{door.PREFIX}/ready")] == [200, 200, 200]
