"""The files behind the download buttons: all that the filters show, in blocks, for those who may see it."""

import csv
import io
from datetime import UTC
from typing import Any

import pytest
from billing_http import Api, sentence
from conftest import NOON, SECOND

from billing_core import accounts, pricing, signin, stats
from billing_core.actors import SHELL
from billing_core.database import Database

NEXT_DAY = "2025-06-16T15:06:41+00:00"
FILES = ("logs", "recharges", "stats", "prices", "accounts")

FURTHER = (
    "rule", "priced_as", "cache_write_1h_price", "audio_input_price", "image_input_price", "audio_output_price",
    "image_output_price", "further",
)  # fmt: skip


@pytest.fixture
def api(db: Database) -> Api:
    """Ann spent 0.018 元 of 100, Bob owes 1."""
    api = Api(db)
    api.account("bob")
    api.post("/recharge", user_id="ann", amount=1_000_000, remark="=June")
    api.post("/recharge", user_id="bob", amount=-10_000)
    api.post("/pricing", model_id="a/m", input_price=18, output_price=0.1)
    api.post("/charge", user_id="ann", model_id="a/m", prompt_tokens=1000, completion_tokens=0)
    return api


def rows(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.content.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"), newline="")))


def named(response: Any) -> str:
    return str(response.headers["content-disposition"])


def test_logs_are_the_entries_that_the_filters_show(api: Api) -> None:
    entries = rows(api.send("GET", "/export/logs.csv?user_id=ann"))
    assert [(row["type"], row["cost_hao"], row["cost_yuan"]) for row in entries] == [
        ("deduct", "180", "0.0180"), ("recharge", "0", "0.0000"),
    ]  # fmt: skip
    assert entries[1]["remark"] == "'=June"

    def found(query: str) -> list[str]:
        return [f"{row['user_id']} {row['type']}" for row in rows(api.send("GET", f"/export/logs.csv?{query}"))]

    assert found("all=true") == ["ann deduct", "bob recharge", "ann recharge"]
    assert found("") == []  # boss has none
    assert found("all=true&type=deduct&type=precharge") == found("all=true&model=a/m") == ["ann deduct"]
    assert found("all=true&user_id=bob&type=recharge") == ["bob recharge"]
    assert found("all=true&search=JUNE") == ["ann recharge"]
    assert found("all=true&model=other") == found(f"all=true&start={NEXT_DAY}") == []
    assert found("all=true&start=2025-06-15T23:06:40+08:00&end=2025-06-15T15:06:41Z") == found("all=true")
    assert found("all=true&end=2025-06-15T15:06:40Z") == []
    assert found("user_id=&start=&end=&model=&search=&timezone=") == []


def test_times_are_in_the_zone_that_is_asked_for(api: Api) -> None:
    entries = rows(api.send("GET", "/export/logs.csv?user_id=ann&timezone=Asia/Shanghai"))
    assert entries[0]["created_at"] == "2025-06-15T23:06:40.000000+08:00"


def test_recharges_stats_prices_and_accounts(api: Api) -> None:
    recharges = rows(api.send("GET", "/export/recharges.csv?all=true"))
    assert [(row["user_id"], row["amount_hao"], row["operator_id"]) for row in recharges] == [
        ("bob", "-10000", "boss"), ("ann", "1000000", "boss"),
    ]  # fmt: skip
    by_model = rows(api.send("GET", "/export/stats.csv?all=true"))
    assert [(row["start"], row["model_id"], row["cost_hao"]) for row in by_model] == [
        ("2025-06-15T00:00:00+00:00", "a/m", "180")
    ]
    by_account = rows(
        api.send("GET", "/export/stats.csv?all=true&by=account&granularity=month&first=2025-05-01&last=2025-06-30")
    )
    assert [(row["start"], row["user_id"]) for row in by_account] == [("2025-06-01T00:00:00+00:00", "ann")]
    assert rows(api.send("GET", "/export/prices.csv?search=A/")) == [
        {"model_id": "a/m", "input_price": "18", "output_price": "0.1", "cache_read_price": "18", "cache_write_price": "18", "source": "database", "valid_from": "2025-06-15T15:06:40.000000+00:00"} | dict.fromkeys(FURTHER, "")
    ]  # fmt: skip
    assert rows(api.send("GET", "/export/prices.csv?search=b")) == []
    found = rows(api.send("GET", "/export/accounts.csv?search=ann"))
    assert [(row["user_id"], row["balance_hao"], row["spent_30_days_hao"]) for row in found] == [
        ("ann", "999820", "180")
    ]
    assert len(rows(api.send("GET", "/export/accounts.csv"))) == 3


def test_the_history_of_prices_has_every_one_that_was_set(api: Api) -> None:
    for valid_from in ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"):
        api.post("/pricing", model_id="a/m", input_price=5, output_price=6, call_price=0.01, valid_from=valid_from)
    (plan, _other) = api.send("GET", "/price-plans").json()
    api.post("/price-plans/withdraw", price_id=plan["price_id"])
    api.post("/pricing", model_id="b", input_price=1, output_price=1)
    api.db.write(pricing.retire, "b", actor=SHELL)
    found = rows(api.send("GET", "/export/price-history.csv?timezone=Asia/Shanghai"))
    assert [(row["model_id"], row["state"], row["input_price"], row["further"]) for row in found] == [
        ("a/m", "set", "5", '{"call":10000}'), ("a/m", "withdrawn", "5", '{"call":10000}'), ("a/m", "set", "18", ""),
        ("b", "retired", "", ""), ("b", "set", "1", ""),
    ]  # fmt: skip
    assert found[0]["valid_from"] == "2026-02-01T08:00:00.000000+08:00"
    only = api.send("GET", "/export/price-history.csv?model=b")
    assert [row["model_id"] for row in rows(only)] == ["b", "b"]
    assert "price-history-b-2025-06-15.csv" in named(only)
    assert rows(api.send("GET", "/export/price-history.csv?model=%00")) == []


def test_the_files_name_says_what_is_in_it(api: Api) -> None:
    span = "start=2025-06-01T00:00:00%2B08:00&end=2025-06-16T00:00:00%2B08:00&timezone=Asia/Shanghai"
    for query, name in {
        f"logs.csv?user_id=ann&{span}": "logs-ann-2025-06-01_2025-06-15.csv",
        "logs.csv?all=true&model=a/m&type=deduct&type=settle": "logs-all-a_m-deduct-settle.csv",
        "logs.csv?all=true": "logs-all.csv",
        "recharges.csv?user_id=ann&start=2025-06-01T00:00:00Z": "recharges-ann-2025-06-01.csv",
        "stats.csv?user_id=ann&days=3": "stats-ann-by-model-day-2025-06-13_2025-06-15.csv",
        "stats.csv?all=true&by=both&granularity=month&first=2025-05-20&last=2025-06-03": "stats-all-by-both-month-2025-05-20_2025-06-03.csv",
        "prices.csv?timezone=Asia/Tokyo": "prices-2025-06-16.csv",
        "accounts.csv": "accounts-2025-06-15.csv",
    }.items():
        assert named(api.send("GET", f"/export/{query}")) == f'attachment; filename="{name}"'


def test_a_name_beyond_ascii_is_written_as_rfc_6266_says(api: Api) -> None:
    api.account('李";雷')
    disposition = named(api.send("GET", '/export/logs.csv?user_id=李";雷'))
    assert disposition == "attachment; filename=\"logs-____.csv\"; filename*=UTF-8''logs-%E6%9D%8E%22%3B%E9%9B%B7.csv"


def test_who_is_signed_in_on_the_page_may_download(api: Api) -> None:
    ann = api.db.read(accounts.find, "ann")
    cookie = {"Cookie": f"billing_session={api.db.write(signin.issue, 'session', ann)}"}
    own = api.send("GET", "/export/logs.csv", key=None, headers=cookie)
    assert [row["user_id"] for row in rows(own)] == ["ann", "ann"]
    for query in (
        "logs.csv?all=true",
        "logs.csv?user_id=bob",
        "logs.csv?user_id=nobody",
        "recharges.csv?all=1",
        "stats.csv?all=true&by=account",
        "accounts.csv",
    ):
        assert "admin" in sentence(api.send("GET", f"/export/{query}", key=None, headers=cookie), 403)
    for file in FILES:
        assert "Bearer" in sentence(api.send("GET", f"/export/{file}.csv", key=None), 401)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("logs.csv?user_id=nobody", 404), ("recharges.csv?user_id=nobody", 404), ("stats.csv?user_id=nobody", 404),
        ("logs.csv?start=yesterday", 422), ("logs.csv?end=2025-06-15", 422), ("logs.csv?start=9999-12-31T23:59:59Z", 422),
        ("logs.csv?type=gift", 422), ("logs.csv?all=perhaps", 422), ("logs.csv?timezone=Mars", 422),
        ("stats.csv?first=2025-06-01", 422), ("stats.csv?first=2025-06-02&last=2025-06-01", 422),
        ("stats.csv?first=x&last=y", 422), ("stats.csv?first=0001-01-01&last=9999-12-31", 422),
        ("stats.csv?first=1971-01-01&last=2199-01-01&granularity=hour", 422), ("stats.csv?days=0", 422),
        ("stats.csv?first=2011-12-30&last=2011-12-30&timezone=Pacific/Apia", 422),
        ("logs.csv?types=deduct", 422), ("stats.csv?all=true&user=ann", 422), ("accounts.csv?Search=ann", 422),
        ("logs.csv?start=2025-06-02T00:00:00Z&end=2025-06-01T00:00:00Z", 422),
        ("recharges.csv?start=2025-06-02T00:00:00Z&end=2025-06-01T00:00:00Z", 422),
        ("stats.csv?days=3&granularity=hour", 422), ("stats.csv?days=3&first=2025-06-01&last=2025-06-02", 422),
        ("stats.csv?first=1749945600&last=1749945600", 422), ("stats.csv?all=true&user_id=ann&user_id=bob", 422),
        ("stats.csv?by=user", 422), ("stats.csv?granularity=week", 422),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_the_file_begins(api: Api, query: str, status: int) -> None:
    response = api.send("GET", f"/export/{query}")
    sentence(response, status)
    assert "content-disposition" not in response.headers


def test_a_filter_that_is_none_is_named_with_those_that_are(api: Api) -> None:
    """Written wrong, it would let everything through, unnoticed."""
    said = sentence(api.send("GET", "/export/logs.csv?types=deduct"), 422)
    assert said == (
        "“types” is none of the parameters here. There are: start, end, model, type, search, timezone, user_id, all."
    )
    twice = sentence(api.send("GET", "/export/logs.csv?model=a&model=b"), 422)
    assert twice == "“model” stands there twice. Give it once."
    for path in (
        "/statements?month=2025-06&tz=Asia/Shanghai",
        "/statements/ann?month=2025-06&tz=UTC",
        "/audit?Kind=price",
    ):
        assert "is none of the parameters here" in sentence(api.send("GET", path), 422)
    assert "Bearer" in sentence(api.send("GET", "/export/logs.csv?types=deduct", key=None), 401)


def test_what_can_be_chosen_is_told_in_the_readers_language(api: Api) -> None:
    def said(language: str) -> str:
        headers = {"Accept-Language": language}
        return sentence(api.send("GET", "/export/stats.csv?granularity=week", headers=headers), 422)

    assert said("en").endswith("one of: hour, day, month.")
    assert said("zh-CN").endswith("hour, day, month。")


def test_what_is_held_is_no_cost(api: Api) -> None:
    held = {"user_id": "ann", "model_id": "a/m", "prompt_tokens": 1000, "max_completion_tokens": 0}
    precharge = api.post("/precharge", **held)
    api.post("/settle", precharge_id=precharge["precharge_id"], prompt_tokens=500, completion_tokens=0)
    found = rows(api.send("GET", "/export/logs.csv?user_id=ann"))
    assert [(row["type"], row["cost_hao"], row["amount_hao"]) for row in found[:2]] == [
        ("settle", "90", "90"), ("precharge", "0", "-180"),
    ]  # fmt: skip
    (used,) = rows(api.send("GET", "/export/stats.csv?user_id=ann"))
    assert sum(int(row["cost_hao"]) for row in found) == int(used["cost_hao"])


def test_the_audit_log_says_what_was_done_in_the_readers_language(api: Api) -> None:
    def said(language: str) -> list[str]:
        found = rows(api.send("GET", "/export/audit.csv?kind=price", headers={"Accept-Language": language}))
        return [row["text"] for row in found]

    assert said("en") == ["Boss changed the price of a/m: input 18.00, output 72.00 → 0.10 元 per million tokens"]
    assert said("zh") != said("en")
    boss = signin.actor_of(api.db.read(accounts.find, "boss"))
    api.db.write(accounts.choose, actor=boss, language="zh_CN", timezone=None)
    assert said("en") == said("zh")


def test_what_nobody_can_write_matches_nothing_that_breaks(api: Api) -> None:
    for file in ("logs", "recharges", "accounts"):
        answer = api.send("GET", f"/export/{file}.csv?search=%00" + ("" if file == "accounts" else "&all=true"))
        assert "no letter that could be looked for" in sentence(answer, 422)
    for model in ("%00x", "%00", "%20", "%EF%BF%BF"):
        assert rows(api.send("GET", f"/export/logs.csv?all=true&model={model}")) == []


def test_a_moment_is_meant_to_the_nanosecond(api: Api) -> None:
    for n in (0, 500, 999, 1000):
        call = {"user_id": "bob", "model_id": "a/m", "prompt_tokens": 1, "completion_tokens": 0, "allow_debt": True}
        assert api.send("POST", "/charge", json=call | {"created_at": NOON - SECOND + n}).status_code == 200
    moment = stats.iso(NOON - SECOND, UTC).removesuffix("+00:00")
    for fraction, count in (("", 4), (".0000006", 2), (".000000999", 2), (",000001", 1), (".0000010000", None)):
        answer = api.send("GET", f"/export/logs.csv?user_id=bob&type=deduct&start={moment}{fraction}Z")
        if count is None:
            assert "ISO 8601" in sentence(answer, 422)
        else:
            assert len(rows(answer)) == count, fraction


@pytest.mark.parametrize("start", ["1970-01-01T00:00:00Z", "2300-01-01T00:00:00Z"])
def test_a_moment_outside_of_time_is_told_what_there_is(api: Api, start: str) -> None:
    said = sentence(api.send("GET", f"/export/logs.csv?all=true&start={start}"), 422)
    assert said == "start must be a moment from 1970-01-02 to 2200-01-01."


def test_days_before_there_were_any_are_told_so(api: Api) -> None:
    said = sentence(api.send("GET", "/export/stats.csv?first=1969-01-01&last=1970-01-01"), 422)
    assert "between the years 1990 and 2200" in said


def test_a_long_file_comes_in_blocks_and_whole(api: Api) -> None:
    calls = [
        {
            "request_id": str(n), "user_id": "ann", "model_id": "a/m", "prompt_tokens": n, "completion_tokens": 0,
            "created_at": NOON - n * SECOND,
        }
        for n in range(1500)
    ]  # fmt: skip
    api.send("POST", "/charges", json=calls)
    with api.client.stream(
        "GET", "/api/v1/billing/export/logs.csv?user_id=ann", headers={"Authorization": f"Bearer {api.boss}"}
    ) as response:
        assert "content-length" not in response.headers
        blocks = list(response.iter_raw())
    assert len(blocks) > 2
    assert max(map(len, blocks)) < 300_000
    assert b"".join(blocks).count(b"\r\n") == 1 + 1 + 1 + 1500


def test_what_a_price_was_made_of_is_for_admins(api: Api) -> None:
    origin = '{"catalogue":"ours","markup":"1.7"}'
    api.db.write(pricing.apply, [pricing.Change("c", pricing.Prices(1, 2), None, origin)], actor=SHELL, what="ours")
    assert rows(api.send("GET", "/export/price-history.csv?model=c"))[0]["origin"] == origin
    assert rows(api.send("GET", "/export/price-history.csv?model=c", key=api.key("ann")))[0]["origin"] == ""
