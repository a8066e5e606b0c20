"""The HTTP contract, route by route, on both databases."""

import pytest
from billing_http import Api

from billing_core.database import Database

CALL = {"user_id": "ann", "model_id": "openai/gpt-4o:beta", "prompt_tokens": 1000, "completion_tokens": 0}


@pytest.fixture
def api(db: Database) -> Api:
    return Api(db)


@pytest.fixture
def rich(api: Api) -> Api:
    """Ann has 1 000 000 毫, and the model of CALL costs 18 and 72 元."""
    api.post("/recharge", user_id="ann", amount=1_000_000)
    api.post("/pricing", model_id=CALL["model_id"], input_price=18, output_price=72)
    return api


def test_a_charge(rich: Api) -> None:
    done = rich.post("/charge", **CALL)
    assert done == {"id": done["id"], "ids": [done["id"]], "cost": 180, "balance": 999_820, "status": "active"}
