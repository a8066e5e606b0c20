"""CSV that a spreadsheet reads as it was meant, however much there is of it."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from itertools import islice, product
from zoneinfo import ZoneInfo

import pytest
from conftest import NOON, SECOND
from hypothesis import given
from hypothesis import strategies as st

from billing_core import accounts, export, ledger, logs, pricing, stats
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.money import price_yuan, to_yuan
from billing_core.rates import More, Tier
from billing_core.text import safe, unsafe
from billing_core.tokens import Extras, Tokens

SHANGHAI = ZoneInfo("Asia/Shanghai")
BOM = "\ufeff".encode()


def read(blocks: Iterator[bytes]) -> list[dict[str, str]]:
    content = b"".join(blocks)
    assert content.startswith(BOM)
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠SUM(A1)"]
)
def test_text_that_a_spreadsheet_would_run_is_made_harmless(text: str) -> None:
    ((shown,),) = [row.values() for row in read(export.blocks(["text"], [[text]]))]
    assert shown == "'" + text


@pytest.mark.parametrize("text", ["首充", "a=b", "1-2", "ann@example.com", 'say "hi", please', "two\nlines", "", " =1"])
def test_other_text_stays_as_it_is(text: str) -> None:
    ((shown,),) = [row.values() for row in read(export.blocks(["text"], [[text]]))]
    assert shown == text


def test_numbers_stay_numbers() -> None:
    rows = [[-5, Decimal("-0.0005"), Decimal("100000000000.0000"), Decimal("0.0001"), None]]
    content = b"".join(export.blocks(list("abcde"), rows))
    assert content == BOM + b"a,b,c,d,e\r\n-5,-0.0005,100000000000.0000,0.0001,\r\n"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3))
def test_any_text_comes_back_and_none_of_it_begins_like_a_formula(cells: list[str]) -> None:
    content = b"".join(export.blocks([str(n) for n in range(len(cells))], [cells]))
    (_, row) = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    assert [cell.removeprefix("'") for cell in row] == [cell.removeprefix("'") for cell in cells]
    assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_without_rows_there_is_the_heading() -> None:
    assert b"".join(export.blocks(["a", "b"], [])) == BOM + b"a,b\r\n"


def test_rows_are_read_only_as_the_file_is_taken() -> None:
    """An endless list of rows: what was built in memory could never come to an end."""
    taken = 0

    def rows() -> Iterator[list[str]]:
        nonlocal taken
        while True:
            taken += 1
            yield ["x" * 100]

    file = export.blocks(["text"], rows())
    assert taken == 0
    sizes = [len(block) for block in islice(file, 3)]
    assert taken == sum(sizes) // 102 + (1 if sum(sizes) % 102 > len(BOM) + 6 else 0)
    assert all(export.BLOCK <= size <= export.BLOCK + 200 for size in sizes)


def test_an_export_of_the_log_is_exact_in_both_units_and_in_the_viewers_time(db: Database, ann: str) -> None:
    db.write(ledger.recharge, ann, 1_000_001, actor=SHELL, remark="=首充, “100 元”")
    db.write(pricing.set_price, "some/model", 18_500_000, 1, actor=SHELL, cache_read=0)
    db.write(ledger.charge, ann, "some/model", Tokens(1000, 10, 3, 4, 5), actor=SHELL)
    charged, recharged = read(export.logs(db, logs.Filters(), SHANGHAI, actor=SHELL))
    assert recharged["remark"] == "'=首充, “100 元”"
    assert (recharged["amount_yuan"], recharged["amount_hao"], recharged["model_id"]) == ("100.0001", "1000001", "")
    assert recharged["operator_id"] == "shell"
    assert charged["created_at"] == charged["recorded_at"] == "2025-06-15T23:06:40.000000+08:00"
    assert (charged["cost_yuan"], charged["cost_hao"]) == ("0.0185", "185")
    assert (charged["amount_yuan"], charged["balance_after_hao"]) == ("-0.0185", "999816")
    assert (charged["input_price"], charged["output_price"], charged["cache_read_price"]) == ("18.5", "0.000001", "0")
    assert (charged["prompt_tokens"], charged["cached_tokens"], charged["reasoning_tokens"]) == ("1000", "3", "5")
    assert recharged["prompt_tokens"] == recharged["input_price"] == ""
    only = logs.recharges(logs.Filters(ann))
    (row,) = read(export.recharges(logs.every(db, only, actor=SHELL), ZoneInfo("UTC")))
    assert (row["created_at"], row["amount_yuan"], row["operator_name"]) == (
        "2025-06-15T15:06:40.000000+00:00",
        "100.0001",
        "shell",
    )


def test_an_export_of_the_stats_says_when_each_period_begins(db: Database, ann: str) -> None:
    db.write(ledger.charge, ann, "some/model", Tokens(1000, 10), actor=SHELL, allow_debt=True)
    periods = stats.periods_between(date(2025, 6, 15), date(2025, 6, 15), "hour", SHANGHAI)
    account = {"user_id": "ann", "name": "Ann"}
    for by, names in (
        ("model", {"model_id": "some/model"}),
        ("account", account),
        ("both", account | {"model_id": "some/model"}),
    ):
        (row,) = read(export.stats(db, periods, by, actor=SHELL, user_id=None))
        assert {name: row[name] for name in ("user_id", "name", "model_id") if name in row} == names
        assert (row["start"], row["cost_yuan"]) == ("2025-06-15T23:00:00+08:00", "0.0188")
        assert (row["calls"], row["prompt_tokens"], row["completion_tokens"]) == ("1", "1000", "10")


@pytest.mark.parametrize("granularity", ["day", "month"])
def test_stats_by_account_and_model_add_up_to_either(db: Database, ann: str, granularity: str) -> None:
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    for user_id, model, at in product((ann, "bob"), ("a", "b"), (NOON, NOON - 90_000 * SECOND)):
        if (user_id, model) != ("bob", "b"):
            options = {"created_at_ns": at, "allow_debt": True}
            db.write(ledger.charge, user_id, model, Tokens(1000 + len(model + user_id), 7), actor=SHELL, **options)  # type: ignore[arg-type]
    periods = stats.periods_between(date(2025, 6, 1), date(2025, 6, 15), granularity, SHANGHAI)

    def sums(by: str, *names: str, user_id: str | None = None) -> dict[tuple[str, ...], int]:
        found: Counter[tuple[str, ...]] = Counter()
        for row in read(export.stats(db, periods, by, actor=SHELL, user_id=user_id)):
            found[tuple(row[name] for name in ("start", *names))] += int(row["cost_hao"])
        return found

    assert sums("both", "model_id") == sums("model", "model_id")
    assert sums("both", "user_id") == sums("account", "user_id")
    assert sums("both", "model_id", user_id="bob") == sums("model", "model_id", user_id="bob")
    assert len(read(export.stats(db, periods, "both", actor=SHELL, user_id=None))) == 3 * len(periods[-2:])


def test_stats_by_account_are_read_some_periods_at_a_time(db: Database, ann: str) -> None:
    def charge(user_id: str, days_ago: int) -> None:
        at = NOON - days_ago * 86_400 * SECOND
        db.write(
            ledger.charge, user_id, "a", Tokens(1000 + days_ago, 7), actor=SHELL, created_at_ns=at, allow_debt=True
        )

    periods = stats.last_periods(NOON, "day", SHANGHAI, 3 * export.PERIODS_AT_ONCE - 1)
    for days_ago in range(len(periods)):
        charge(ann, days_ago)
    blocks = export.stats(db, periods, "account", actor=SHELL, user_id=None)
    db.write(accounts.add, "bob", "Bob", actor=SHELL)  # while the file is being read
    charge("bob", 0)
    found = [(row["start"], row["name"], int(row["prompt_tokens"])) for row in read(blocks)]
    starts = [period.start.isoformat() for period in periods]
    of_ann = [(start, "Ann", 1000 + len(starts) - 1 - place) for place, start in enumerate(starts)]
    assert found == [*of_ann, (starts[-1], "Bob", 1000)]


def test_an_export_of_prices_and_accounts(db: Database, ann: str) -> None:
    db.write(pricing.set_price, "some/model", 18_000_000, 500_000, actor=SHELL)
    (price,) = read(export.prices(db.read(pricing.current), SHANGHAI))
    assert (price["model_id"], price["input_price"], price["output_price"]) == ("some/model", "18", "0.5")
    assert price["valid_from"] == "2025-06-15T23:06:40.000000+08:00"
    db.write(accounts.change, ann, actor=SHELL, name="-李雷")
    row = db.read(accounts.find, ann)
    (account,) = read(export.accounts([(row, -5, 7)], SHANGHAI))
    assert (account["name"], account["balance_yuan"], account["balance_hao"]) == ("'-李雷", "-0.0005", "-5")
    assert (account["spent_30_days_yuan"], account["status"]) == ("0.0007", "active")
    assert account["created_at"] == export.moment(NOON, SHANGHAI)


def test_the_file_of_the_logs_says_what_the_logs_say_cell_by_cell(db: Database, ann: str) -> None:
    """Lines are put together in another way than any other file's."""
    zones = [ZoneInfo(name) for name in ("UTC", "Asia/Kathmandu", "America/New_York")]
    autumn = 1_730_613_600 * 10**9  # New York's clocks go back
    moments = [NOON - 1, NOON, NOON - 999, NOON - 1_000, NOON - 959_999_999_999, autumn - 1, autumn, 10**18]
    more = More(call=5, tiers=(Tier(5000, 1, 2),))
    db.write(pricing.set_price, 'a "model"', 18_500_000, 0, actor=SHELL, cache_read=0, more=more)
    db.write(ledger.recharge, ann, 10**15, actor=SHELL, remark='-1, "two"\n three')
    db.write(ledger.recharge, ann, -3, actor=SHELL)
    used = Tokens(1000, 10, 3, 4, 5, Extras(tools=(("web_search", 2),)))
    calls = [
        db.write(ledger.charge, ann, model, used, actor=SHELL, created_at_ns=at)
        for model in ('a "model"', "=other") for at in moments
    ]  # fmt: skip
    held = [db.write(ledger.precharge, ann, "=other", 100, 9, actor=SHELL) for _ in range(2)]
    db.write(ledger.settle, held[0].entry_id, Tokens(50, 3), actor=SHELL)
    db.write(ledger.refund, held[1].entry_id, actor=SHELL)
    db.write(ledger.reverse, calls[0].entry_id, "+wrong", actor=SHELL)
    db.write(accounts.change, ann, actor=SHELL, name="＝李, 雷")
    price = db.write(pricing.set_price, 'a "model"', 1, 2, actor=SHELL).id
    db.write(ledger.reprice, calls[1].entry_id, price, "dear", actor=SHELL)
    for tz in zones:
        for filters in (logs.Filters(), logs.Filters(ann, merged=True), logs.Filters(ann, types=("deduct",))):
            lines = read(export.logs(db, filters, tz, actor=SHELL))
            rows = list(logs.every(db, filters, actor=SHELL))
            assert len(lines) == len(rows) > 2
            for line, row in zip(lines, rows, strict=True):
                told = {
                    "id": row.id, "created_at": export.moment(row.created_at_ns, tz), "user_id": row.user_id, "name": safe(row.name),
                    "type": row.type, "model_id": safe(row.model or ""), "prompt_tokens": row.prompt_tokens,
                    "cached_tokens": row.cached_tokens, "cache_creation_tokens": row.cache_creation_tokens,
                    "completion_tokens": row.completion_tokens, "reasoning_tokens": row.reasoning_tokens,
                    "cost_yuan": to_yuan(row.consumed), "cost_hao": row.consumed, "amount_yuan": to_yuan(row.amount),
                    "amount_hao": row.amount, "balance_after_yuan": to_yuan(row.balance_after),
                    "balance_after_hao": row.balance_after, "price_source": row.price_source,
                    "precharge_id": row.id if row.type == "precharge" else row.precharge_id, "reverses_id": row.reverses_id, "reversed_by": row.reversed_by,
                    "operator_id": row.operator_id, "remark": safe(row.remark), "reprices_id": row.reprices_id,
                    "extras": row.extras, "further": (row.price_source == "database" and row.price_input != 1 and more.as_json()) or "",
                    "recorded_at": export.moment(row.recorded_at_ns, tz),
                } | {
                    f"{part}_price": None if (micro := getattr(row, f"price_{part}")) is None else f"{price_yuan(micro):f}"
                    for part in export.PARTS
                }  # fmt: skip
                assert line == {name: "" if value is None else str(value) for name, value in told.items()}


@given(
    st.integers(-2 * 10**18, 4 * 10**18),
    st.sampled_from(["Africa/Monrovia", "Asia/Shanghai", "America/New_York", "Pacific/Kiritimati"]),
)
def test_a_time_of_the_logs_is_written_as_in_any_other_file(ns: int, name: str) -> None:
    texts = export._Texts(logs.Names({}, {}, {}), ZoneInfo(name))
    for at in (ns, ns + 450 * SECOND, ns // SECOND * SECOND):
        assert texts.moment(at) == export.moment(at, ZoneInfo(name))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(10**16), 10**16) | st.integers(-20_000, 20_000))
def test_a_cell_of_the_logs_is_written_as_in_any_other_file(text: str, hao: int) -> None:
    written = b"".join(export.blocks(["a", "b", "c"], [[text, to_yuan(hao), hao]])).decode("utf-8-sig")
    assert written == f"a,b,c\r\n{export._cell(text)},{export._both(hao)}\r\n"


@given(text=st.text(alphabet="'=+-@\t＝x", max_size=6))
def test_what_is_made_safe_is_told_again(text: str) -> None:
    assert unsafe(safe(text)) == text
    assert not safe(text).startswith(("=", "+", "-", "@", "\t", "＝"))
