"""Reversing many entries over HTTP: preview, start, run, and how far it is."""

from typing import Any

import pytest
from billing_http import Api, sentence
from conftest import NOON

from billing_core import ledger, undoing
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import Database

ANNS: dict[str, Any] = {"user_id": "ann", "types": ["deduct"]}
SEEN = ("last_id", "entries", "to_reverse", "amount")


@pytest.fixture
def api(db: Database) -> Api:
    """Ann was recharged by 100 元, and charged for three calls of 180 毫."""
    api = Api(db)
    api.post("/recharge", user_id="ann", amount=1_000_000)
    for _ in "123":
        api.post("/charge", user_id="ann", model_id="some/model", prompt_tokens=1000, completion_tokens=0)
    return api


def seen(api: Api, **selection: Any) -> dict[str, Any]:
    shown = api.post("/reversals/preview", **selection)
    return {name: shown[name] for name in SEEN}


def start(api: Api, once: str | None = None, **selection: Any) -> dict[str, Any]:
    job: dict[str, Any] = api.post(
        "/reversals", once=once, reason="a wrong price", **selection, **seen(api, **selection)
    )
    return job


def test_a_selection_is_previewed_started_and_run(api: Api) -> None:
    shown = api.post("/reversals/preview", **ANNS)
    assert shown == {
        "last_id": "4", "entries": 3, "to_reverse": 3, "amount": 540, "types": {"deduct": 3}, "left_alone": {},
        "accounts": [{"user_id": "ann", "name": "Ann", "entries": 3, "before": 999_460, "after": 1_000_000}],
    }  # fmt: skip
    job = start(api, **ANNS)
    assert job == {
        "id": "1", "operator_id": "boss", "reason": "a wrong price", "created_at": NOON, "finished_at": None,
        "entries": 3, "reversed": 0, "refused": 0, "left": 3, "reprices": False, "refusals": [],
    }  # fmt: skip
    assert api.balance() == 999_460
    api.post("/reversals/1/run")
    done = api.get("/reversals/1")
    assert (done["reversed"], done["left"], done["finished_at"]) == (3, 0, NOON)
    assert api.balance() == 1_000_000
    assert not check(api.db)


def test_a_job_that_is_run_twice_reverses_once(api: Api) -> None:
    start(api, **ANNS)
    for _ in "12":
        api.post("/reversals/1/run")
    assert api.balance() == 1_000_000


def test_ids_and_a_job_are_selections_too(api: Api) -> None:
    start(api, ids=["2", 3])
    api.post("/reversals/1/run")
    assert api.balance() == 1_000_000 - 180
    start(api, job_id="1")
    api.post("/reversals/2/run")
    assert api.balance() == 1_000_000 - 3 * 180


def test_a_start_that_is_sent_twice_makes_one_job(api: Api) -> None:
    body = {"reason": "x", **ANNS, **seen(api, **ANNS)}
    assert api.post("/reversals", once="key", **body) == api.post("/reversals", once="key", **body)
    assert len(api.db.read(undoing.jobs, actor=SHELL)) == 1
    assert "used for another request" in api.refused(409, "/reversals", once="key", **{**body, "reason": "y"})


def test_a_selection_that_changed_since_is_refused(api: Api) -> None:
    body = {"reason": "x", **ANNS, **seen(api, **ANNS)}
    api.db.write(ledger.reverse, 2, "before", actor=SHELL)
    assert "has changed since it was shown" in api.refused(409, "/reversals", **body)


def test_what_was_left_alone_is_told_in_the_readers_language(api: Api) -> None:
    api.db.write(ledger.reverse, 2, "before", actor=SHELL)
    assert api.post("/reversals/preview", **ANNS)["left_alone"] == {"reversed": 1}
    start(api, **ANNS)
    (refusal,) = api.get("/reversals/1")["refusals"]
    assert refusal == {"id": "2", "detail": "Entry 2 has been reversed already."}
    assert "流水" in api.get("/reversals/1", headers={"Accept-Language": "zh"})["refusals"][0]["detail"]


@pytest.mark.parametrize(
    ("status", "selection", "said"),
    [
        (422, {}, "Say which entries"),
        (422, {"search": " \u3000"}, "no letter that could be looked for"),
        (422, {"search": "\0", "user_id": "ann"}, "no letter that could be looked for"),
        (422, {"ids": ["2"], "user_id": "ann"}, "Say which entries"),
        (422, {"usr_id": "ann", "types": ["deduct"]}, "usr_id is no field of this request"),
        (422, {"types": ["charge"]}, "must be one of"),
        (422, {"start": "yesterday"}, "start must be a moment in ISO 8601"),
        (422, {"user_id": "boss"}, "No entry is selected"),
        (404, {"user_id": "nobody"}, "There is no account nobody"),
        (404, {"ids": ["99"]}, "There is no entry 99"),
        (404, {"ids": ["x"]}, "There is no entry x"),
        (404, {"job_id": "7"}, "There is no job 7"),
    ],
)
def test_a_selection_that_is_none_is_one_sentence(api: Api, status: int, selection: dict[str, Any], said: str) -> None:
    assert said in api.refused(status, "/reversals/preview", **selection)


def test_only_an_admin_may(api: Api) -> None:
    body = {"reason": "x", **ANNS, **seen(api, **ANNS)}
    start(api, **ANNS)
    meter = api.key("ann", "charge")
    assert api.refused(403, "/reversals/preview", key=meter, **ANNS)
    assert api.refused(403, "/reversals", key=meter, **body)
    assert api.refused(403, "/reversals/1/run", key=meter)
    assert sentence(api.send("GET", "/reversals/1", key=meter), 403)
    assert sentence(api.send("POST", "/reversals/1/run", key=None), 401)
    assert api.balance() == 999_460


def test_an_unknown_job_is_not_found(api: Api) -> None:
    for job in ("7", "x", "9" * 30):
        assert "There is no job" in sentence(api.send("GET", f"/reversals/{job}"), 404)
        assert "There is no job" in api.refused(404, f"/reversals/{job}/run")
