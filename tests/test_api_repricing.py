"""Charging many entries again over HTTP: preview, start, run, and how far it is."""

from typing import Any

import pytest
from billing_http import Api, sentence
from conftest import NOON

from billing_core import ledger, pricing
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database

CALLS: dict[str, Any] = {"user_id": "ann", "types": ["deduct"]}
SEEN = ("last_id", "entries", "to_reprice", "amount", "prices")


@pytest.fixture
def api(db: Database) -> Api:
    """Ann was recharged by 100 元 and charged for three calls of 180 毫, at a price that has been corrected since."""
    api = Api(db)
    api.post("/recharge", user_id="ann", amount=1_000_000)
    for _ in "123":
        api.post("/charge", user_id="ann", model_id="some/model", prompt_tokens=1000, completion_tokens=0)
    api.post("/pricing", model_id="some/model", input_price=10, output_price=20)
    return api


def seen(api: Api, **selection: Any) -> dict[str, Any]:
    shown = api.post("/repricings/preview", **selection)
    return {name: shown[name] for name in SEEN}


def start(api: Api, **selection: Any) -> dict[str, Any]:
    job: dict[str, Any] = api.post("/repricings", reason="a wrong price", **selection, **seen(api, **selection))
    return job


def test_a_selection_is_previewed_started_and_run(api: Api) -> None:
    shown = api.post("/repricings/preview", **CALLS)
    assert len(shown.pop("prices")) == 16
    prices = ("input_price", "output_price", "cache_read_price", "cache_write_price")
    assert shown == {
        "last_id": "4", "entries": 3, "to_reprice": 3, "amount": 240, "old": 540, "new": 300, "left_alone": {},
        "models": [
            {
                "model_id": "some/model", "entries": 3, "old": 540, "new": 300,
                "before": dict(zip(prices, (18, 72, 18, 18), strict=True)),
                "after": dict(zip(prices, (10, 20, 10, 10), strict=True)),
            }
        ],
        "accounts": [
            {
                "user_id": "ann", "name": "Ann", "entries": 3, "old": 540, "new": 300, "before": 999_460, "after": 999_700,
            }
        ],
    }  # fmt: skip
    job = start(api, **CALLS)
    assert job == {
        "id": "1", "operator_id": "boss", "reason": "a wrong price", "created_at": NOON, "finished_at": None,
        "entries": 3, "reversed": 0, "refused": 0, "left": 3, "reprices": True, "refusals": [],
    }  # fmt: skip
    assert api.balance() == 999_460
    for _ in "12":
        api.post("/repricings/1/run")
    done = api.get("/repricings/1")
    assert (done["reversed"], done["left"], done["finished_at"]) == (3, 0, NOON)
    assert api.balance() == 999_700
    assert not check(api.db)


def test_a_members_log_has_both_entries_and_the_csv_one_line(api: Api) -> None:
    start(api, **CALLS)
    api.post("/repricings/1/run")
    key = api.key("ann", "")
    rows = api.get("/logs", key=key)
    assert [(row["type"], row["cost"]) for row in rows[:2]] == [("deduct", 100), ("reversal", -180)]
    assert sum(row["cost"] for row in rows) == 300
    assert len(rows) == 10
    text = api.send("GET", "/export/logs.csv", key=key).text.splitlines()
    assert len(text) == 1 + 7
    assert len(api.send("GET", "/export/logs.csv?user_id=ann").text.splitlines()) == 1 + 10


def test_ids_and_a_job_are_selections_too(api: Api) -> None:
    start(api, ids=["2", 3])
    api.post("/repricings/1/run")
    assert api.balance() == 999_460 + 160
    start(api, job_id="1")
    api.post("/repricings/2/run")
    assert api.balance() == 999_460
    assert "is a repricing" in api.refused(409, "/reversals/preview", job_id="1")


def test_a_start_that_is_sent_twice_makes_one_job(api: Api) -> None:
    body = {"reason": "x", **CALLS, **seen(api, **CALLS)}
    assert api.post("/repricings", once="key", **body) == api.post("/repricings", once="key", **body)
    assert "used for another request" in api.refused(409, "/repricings", once="key", **{**body, "reason": "y"})


def test_a_selection_or_price_that_changed_since_is_refused(api: Api) -> None:
    body = {"reason": "x", **CALLS, **seen(api, **CALLS)}
    api.db.write(pricing.set_price, "some/model", 9 * 10**6, 9 * 10**6, actor=SHELL)
    assert "has changed since it was shown" in api.refused(409, "/repricings", **body)
    body = {"reason": "x", **CALLS, **seen(api, **CALLS)}
    api.db.write(ledger.reverse, 2, "before", actor=SHELL)
    assert "has changed since it was shown" in api.refused(409, "/repricings", **body)


@pytest.mark.parametrize(
    ("status", "selection", "said"),
    [
        (422, {}, "Say which entries"),
        (422, {"usr_id": "ann"}, "usr_id is no field of this request"),
        (404, {"user_id": "nobody"}, "There is no account nobody"),
        (404, {"ids": ["99"]}, "There is no entry 99"),
        (404, {"job_id": "7"}, "There is no job 7"),
        (404, {"job_id": "x"}, "There is no job x"),
    ],
)
def test_a_selection_that_is_none_is_one_sentence(api: Api, status: int, selection: dict[str, Any], said: str) -> None:
    assert said in api.refused(status, "/repricings/preview", **selection)


def test_only_an_admin_may(api: Api) -> None:
    body = {"reason": "x", **CALLS, **seen(api, **CALLS)}
    start(api, **CALLS)
    meter = api.key("ann", "charge")
    assert api.refused(403, "/repricings/preview", key=meter, **CALLS)
    assert api.refused(403, "/repricings", key=meter, **body)
    assert api.refused(403, "/repricings/1/run", key=meter)
    assert sentence(api.send("GET", "/repricings/1", key=meter), 403)
    assert api.balance() == 999_460
