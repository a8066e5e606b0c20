"""Statements over HTTP: for oneself, for admins, and verified."""

import pytest
from billing_http import Api, sentence
from test_seals import tamper

from billing_core import accounts, signin
from billing_core.database import Database


@pytest.fixture
def api(db: Database) -> Api:
    """Ann spent 0.018 元 of 100 in June 2025."""
    api = Api(db)
    api.post("/recharge", user_id="ann", amount=1_000_000, remark="June")
    api.post("/pricing", model_id="a/m", input_price=18, output_price=0.1)
    api.post("/charge", user_id="ann", model_id="a/m", prompt_tokens=1000, completion_tokens=0)
    return api


def test_a_member_takes_their_own(api: Api) -> None:
    ann = api.key("ann")
    page = api.send("GET", "/statements?month=2025-06&timezone=Asia/Shanghai", key=ann)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-disposition"] == 'inline; filename="statement-ann-2025-06.html"'
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<td>99.9820</td>" in page.text
    assert "2025-06-15 23:06:40" in page.text
    file = api.send("GET", "/statements?month=2025-06&format=csv", key=ann)
    assert (file.status_code, file.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert file.headers["content-disposition"] == 'attachment; filename="statement-ann-2025-06.csv"'
    assert "closing_balance_hao,999820\r\n" in file.text


def test_an_admin_takes_anybodys_and_nobody_else_does(api: Api) -> None:
    assert api.send("GET", "/statements/ann?month=2025-06").status_code == 200
    assert "admin" in sentence(api.send("GET", "/statements/boss?month=2025-06", key=api.key("ann")), 403)
    assert "Bearer" in sentence(api.send("GET", "/statements?month=2025-06", key=None), 401)
    assert "There is no account nobody" in sentence(api.send("GET", "/statements/nobody?month=2025-06"), 404)


def test_who_is_signed_in_on_the_page_may_take_theirs(api: Api) -> None:
    ann = api.db.read(accounts.find, "ann")
    cookie = {"Cookie": f"billing_session={api.db.write(signin.issue, 'session', ann)}"}
    assert api.send("GET", "/statements?month=2025-06", key=None, headers=cookie).status_code == 200


def test_the_page_is_in_the_readers_language(api: Api) -> None:
    for asked in ({"headers": {"Accept-Language": "zh-CN"}}, {"params": {"lang": "zh_CN", "month": "2025-06"}}):
        page = api.send("GET", "/statements/ann?month=2025-06", **asked)  # type: ignore[arg-type]
        assert '<html lang="zh-CN">' in page.text


@pytest.mark.parametrize(
    "query", ["", "month=", "month=june", "month=2025-07", "month=2025-06&format=pdf", "month=2025-06&timezone=Mars"]
)
def test_what_is_wrong_is_said_before_the_file_begins(api: Api, query: str) -> None:
    response = api.send("GET", f"/statements/ann?{query}")
    sentence(response, 422)
    assert "content-disposition" not in response.headers


@pytest.mark.parametrize("format", ["html", "csv"])
def test_verify_tells_whether_the_ledger_still_says_the_same(api: Api, format: str) -> None:
    file = api.send("GET", f"/statements/ann?month=2025-06&format={format}").content
    for key in ("", api.key("ann")):
        answer = api.raw("/statements/verify", file, key=key).json()
        assert answer == {
            "same": True, "text": "The ledger still says the same: 2 entries of ann in 2025-06, under seal 1 and those before it.",
            "entry_id": None, "user_id": "ann", "month": "2025-06", "timezone": "UTC", "seal": 1,
        }  # fmt: skip
    tamper(api.db, "UPDATE entry SET amount = amount - 1 WHERE id = 2")
    answer = api.raw("/statements/verify", file).json()
    assert (answer["same"], answer["entry_id"]) == (False, "2")
    assert "Entry 2 differs: " in answer["text"]


def test_what_cannot_be_verified_is_one_sentence(api: Api) -> None:
    api.account("bob")
    file = api.send("GET", "/statements/ann?month=2025-06&format=csv").content
    assert "not a statement" in sentence(api.raw("/statements/verify", b"hello"), 422)
    assert "damaged" in sentence(api.raw("/statements/verify", file[:-9]), 422)
    assert "somebody else's" in sentence(api.raw("/statements/verify", file, key=api.key("bob")), 403)
    assert "There is no account amy" in sentence(api.raw("/statements/verify", file.replace(b",ann", b",amy")), 404)
    assert "Bearer" in sentence(api.raw("/statements/verify", file, key=None), 401)
