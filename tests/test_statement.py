"""A statement says what the ledger says, and whoever changes either afterwards is found."""

import csv
import io
import json
import re
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from conftest import NOON, SECOND, Clock
from plans import plans
from test_seals import tamper
from test_shell import Run, environment, refused, run  # noqa: F401

from billing_core import accounts, ledger, seals, statement
from billing_core.actors import SHELL, Actor
from billing_core.database import Database, Transaction
from billing_core.errors import BillingError, Conflict, Forbidden, Invalid, UnknownAccount
from billing_core.statement import reading
from billing_core.statement.writing import STYLE
from billing_core.tokens import Tokens

UTC, SHANGHAI = ZoneInfo("UTC"), ZoneInfo("Asia/Shanghai")
FORMATS = pytest.mark.parametrize("format", ["html", "csv"])
HTML = """=1+1 </script><b>&"'"""


@pytest.fixture
def june(db: Database, ann: str, clock: Clock) -> Database:
    """Ann: recharged in May, and in June recharged, charged twice and a hold settled; Bob between them."""
    clock.forward(days=-20)
    db.write(ledger.recharge, "ann", 500_000, actor=SHELL)
    clock.forward(days=20)

    def write(tx: Transaction) -> None:
        accounts.add(tx, "bob", "Bob", actor=SHELL)
        ledger.recharge(tx, "ann", 1_000_000, actor=SHELL, remark=HTML)
        for _ in range(2):
            ledger.charge(
                tx, "ann", "some/model", Tokens(1000, 0), actor=SHELL, created_at_ns=NOON - 40 * 86_400 * SECOND
            )
            ledger.recharge(tx, "bob", 10_000, actor=SHELL)
        hold = ledger.precharge(tx, "ann", "some/model", 1000, 1000, actor=SHELL)
        ledger.settle(tx, hold.entry_id, Tokens(1000, 10), actor=SHELL)

    db.write(write)
    return db


def made(db: Database, format: str = "csv", month: str = "2025-06", tz: ZoneInfo = UTC, language: str = "en") -> bytes:
    one = statement.make(db, "ann", month, tz, actor=SHELL)
    return b"".join(statement.FORMATS[format](db, one, language))


def said(db: Database, file: bytes, actor: Actor = SHELL) -> str:
    return statement.verify(db, file, actor=actor).sentence()


def found(db: Database, file: bytes) -> bool:
    """Whether the file is refused, or differs from the ledger."""
    try:
        return statement.verify(db, file, actor=SHELL).difference is not None
    except BillingError:
        return True


def table(file: bytes) -> list[dict[str, str]]:
    text = file.decode("utf-8-sig").partition("\r\n\r\n")[2]
    return list(csv.DictReader(io.StringIO(text, newline="")))


def member(db: Database, user_id: str) -> Actor:
    account = db.read(accounts.find, user_id)
    return Actor(account.id, user_id, account.name)


SAME = "The ledger still says the same: 5 entries of ann in 2025-06, under seal 1 and those before it."


def test_the_opening_balance_and_every_amount_make_the_closing_balance(june: Database) -> None:
    one = statement.make(june, "ann", "2025-06", UTC, actor=SHELL)
    rows = table(made(june))
    assert [row["type"] for row in rows] == ["recharge", "deduct", "deduct", "precharge", "settle"]
    assert one.opening == 500_000
    assert one.opening + sum(int(row["amount_hao"]) for row in rows) == one.closing
    assert one.closing == june.read(accounts.find, "ann").balance
    assert [int(row["balance_after_hao"]) for row in rows][-1] == one.closing


def test_every_entry_in_it_is_under_the_seal_that_it_names(june: Database) -> None:
    one = statement.make(june, "ann", "2025-06", UTC, actor=SHELL)
    newest = june.read(seals.newest)
    assert newest is not None
    assert (one.seal_number, one.seal_hash) == (newest.number, newest.hash)
    assert one.last_id <= newest.last_entry_id


def test_months_follow_each_other_without_a_gap(june: Database, clock: Clock) -> None:
    clock.forward(days=40)
    june.write(ledger.recharge, "ann", 1, actor=SHELL)
    months = [
        statement.make(june, "ann", month, UTC, actor=SHELL) for month in ("2025-04", "2025-05", "2025-06", "2025-07")
    ]
    assert [one.entries for one in months] == [0, 1, 5, 1]
    assert [one.opening for one in months[1:]] == [one.closing for one in months[:-1]]


def test_a_month_is_cut_in_the_zone(db: Database, ann: str, clock: Clock) -> None:
    clock.now_ns = 1_751_299_200 * SECOND  # 2025-06-30 16:00 UTC: July in Shanghai
    db.write(ledger.recharge, "ann", 1, actor=SHELL)
    assert [statement.make(db, "ann", "2025-06", tz, actor=SHELL).entries for tz in (UTC, SHANGHAI)] == [1, 0]
    assert table(made(db, "csv", "2025-07", SHANGHAI))[0]["recorded_at"] == "2025-07-01T00:00:00+08:00"


def test_a_clock_that_was_set_back_takes_no_entry_out_of_order(db: Database, ann: str, clock: Clock) -> None:
    for days in (0, 40, -40, 20):  # June, July, June again, July
        clock.forward(days=days)
        db.write(ledger.recharge, "ann", 1, actor=SHELL)
    june, july = (statement.make(db, "ann", month, UTC, actor=SHELL) for month in ("2025-06", "2025-07"))
    assert ([entry[0] for entry in statement.entries(db, june)], june.closing) == ([1, 2, 3], 3)
    assert ([entry[0] for entry in statement.entries(db, july)], july.opening) == ([4], 3)


def test_a_call_of_the_past_stands_where_it_was_written(june: Database) -> None:
    row = table(made(june))[1]
    assert (row["recorded_at"][:10], row["created_at"][:10]) == ("2025-06-15", "2025-05-06")
    assert b"of 2025-05-06 15:06:40" in made(june, "html")


def test_an_account_without_entries_has_a_statement(db: Database, ann: str) -> None:
    for format in statement.FORMATS:
        file = made(db, format)
        assert (
            said(db, file)
            == "The ledger still says the same: 0 entries of ann in 2025-06, under seal 0 and those before it."
        )


@FORMATS
@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_what_the_ledger_still_says_is_verified(june: Database, format: str, language: str) -> None:
    file = made(june, format, tz=SHANGHAI, language=language)
    assert said(june, file) == SAME
    june.write(ledger.recharge, "ann", 77, actor=SHELL)  # what comes later changes nothing
    june.write(accounts.change, "ann", actor=SHELL, name="Ann Smith")
    seals.close(june, everything=True)
    assert said(june, file, member(june, "ann")) == SAME


@FORMATS
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("amount = amount - 1 WHERE id = 3", "Entry 3 differs: "),
        ("balance_after = balance_after + 10 WHERE id = 5", "Entry 5 differs: "),
        ("cost = 181 WHERE id = 5", "Entry 5 differs: "),
        ("prompt_tokens = 1001 WHERE id = 7", "Entry 7 differs: "),
        ("remark = 'x' WHERE id = 2", "Entry 2 differs: "),
        ("account_id = 2 WHERE id = 3", "Entry 3 is in the statement, but the ledger has no such entry"),
        ("account_id = 1 WHERE id = 4", "Entry 4 is in the ledger, but not in the statement."),
        ("created_at_ns = created_at_ns + 1 WHERE id = 8", "Entry 8 differs: "),
        ("balance_after = 400000 WHERE id = 1", "The opening balance is 50.0000 元 in the statement and 40.0000 元 in the ledger."),
        ("amount = 20000 WHERE id = 4", "Seal 1 over the entries doesn't fit the ledger any more: one of the entries 1 to 8"),
    ],
)  # fmt: skip
def test_a_digit_changed_in_the_database_is_found_and_its_row_named(
    june: Database, format: str, change: str, sentence: str
) -> None:
    file = made(june, format)
    tamper(june, f"UPDATE entry SET {change}")
    verdict = statement.verify(june, file, actor=SHELL)
    assert verdict.difference is not None
    assert sentence in verdict.sentence()
    if "Entry" in sentence:
        assert str(verdict.entry_id) in sentence


@FORMATS
def test_a_row_that_is_gone_from_the_database_is_named(june: Database, format: str) -> None:
    file = made(june, format)
    tamper(
        june,
        "DELETE FROM usage_sum",
        *(["DROP TRIGGER entry_no_delete"] if june.is_sqlite else []),
        "DELETE FROM entry WHERE id = 5",
    )
    assert "Entry 5 is in the statement, but the ledger has no such entry" in said(june, file)


@pytest.mark.parametrize("change", ["entry SET cost = 'x' WHERE id = 5", "price SET input = 'x', cache_read = 'x'"])
def test_what_is_no_number_in_the_database_is_found(june: Database, change: str) -> None:
    if not june.is_sqlite:
        return  # Postgres takes none
    files = [made(june, format) for format in statement.FORMATS]
    tamper(june, "DROP TRIGGER price_no_update", f"UPDATE {change}")
    for file in files:
        assert re.match(r"Entry [35] can't be read in the ledger: it was changed\.", said(june, file)), said(june, file)


def test_the_labels_of_a_csv_statement_are_compared_as_well(june: Database) -> None:
    file = made(june, "csv")
    names = (b"opening_balance_yuan", b"closing_balance_yuan")
    swapped = file.replace(names[0], b"?").replace(names[1], names[0]).replace(b"?", names[1])
    assert swapped != file
    said_now = "The statement says “closing_balance_yuan” where the ledger has “opening_balance_yuan”"
    assert said_now in said(june, swapped)
    assert "“any_text”" in said(june, file.replace(names[1], b"any_text"))


@FORMATS
def test_another_hash_of_the_seal_is_found(june: Database, format: str) -> None:
    file = made(june, format)
    with june.writer.begin() as connection:
        connection.execute(
            sa.text("DROP TRIGGER seal_no_update" if june.is_sqlite else "ALTER TABLE seal DISABLE TRIGGER ALL")
        )
        connection.execute(sa.text("UPDATE seal SET hash = replace(hash, substr(hash, 1, 4), 'beef')"))
    assert "Seal 1 has another hash in the statement" in said(june, file)


@FORMATS
def test_a_ledger_that_never_had_the_seal_is_told_apart(june: Database, format: str, clock: Clock) -> None:
    file = (
        made(june, format).replace(b"seal_number,1", b"seal_number,9").replace(b'"seal_number":1', b'"seal_number":9')
    )
    assert "The ledger has no seal 9, which the statement names" in said(june, file)


def digits(file: bytes) -> list[int]:
    """Where the digits stand that people read as figures: of HTML, in cells and data; of CSV, everywhere."""
    text = file.decode()
    spans = [(0, len(text))]
    if "<html" in text:
        spans = [match.span(1) for match in re.finditer(r"<td[^>]*>([^<]*)</td>", text)]
        spans += [
            match.span(1) for match in re.finditer(r'<script type="application/json">(.*)</script>', text, re.DOTALL)
        ]
    return [place for start, end in spans for place in range(start, end) if text[place] in "0123456789"]


@FORMATS
def test_any_digit_changed_in_the_file_is_found(db: Database, ann: str, format: str) -> None:
    db.write(ledger.recharge, "ann", 1_234_500, actor=SHELL, remark="it's =5")
    db.write(ledger.charge, "ann", "some/model", Tokens(1000, 7), actor=SHELL)
    file = made(db, format)
    assert statement.verify(db, file, actor=SHELL).difference is None
    text = file.decode()
    for place in digits(file)[:: 1 if db.is_sqlite else 9]:
        changed = (text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]).encode()
        assert found(db, changed), text[place - 30 : place + 10]


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_anything_changed_in_the_page_is_found(june: Database, language: str) -> None:
    page = made(june, "html", language=language).decode()
    assert not found(june, page.encode())
    assert not found(june, page.replace("\n", "\r\n").encode())
    closing = re.search(r"<td>([0-9,.]+)</td></tr>\n<tr><th>(?:Entries|流水)", page)
    assert closing
    money = closing[1]
    for old, new in (
        (f"<td>{money}</td>", f"<th>9{money}</th><td hidden>{money}</td>"),
        ('<td class="n">', '<td class="n" hidden>'),
        ("</style>", "td { display: none } th::after { content: '99,998.2000' }</style>"),
        ("<h1>", "<h1>999.00 "),
        ("<th>", "<th>9"),
        ("<footer><p>", "<footer><p>The closing balance is 9,999.00. "),
        ("</body>", "<p>9,999.00</p></body>"),
        ("<body>", "<body style='display: none'>"),
        ("</html>\n", "</html>\n<p>9,999.00</p>"),
        ('{"statement":1', '{"x":"</SCRIPT><p>9,999.00</p>","statement":1'),
        ('{"statement":1', '{"x":"9,999.00","statement":1'),
        ('{"statement":1', '{"closing_balance_hao":99990000,"statement":1'),
        ("]}</script>", "]}</script ><p>9,999.00</p></script>"),
    ):
        assert old in page
        assert found(june, page.replace(old, new, 1).encode()), new


def test_what_was_changed_beside_the_entries_is_said(june: Database) -> None:
    file = made(june, "html")
    assert said(june, file.replace(b"<h1>Statement", b"<h1>Statement of 999 yuan")) == (
        "The file was changed beside its entries: it has “Statement of 999 yuan</h1>” where “Statement</h1>” was written."
    )


def test_files_that_people_keep_go_on_being_verified(db: Database, clock: Clock) -> None:
    """Where this fails, the page has changed: what it was has to be known to reading._html, as EARLIER_STYLES are."""
    db.write(accounts.add, "nobody", "Nobody", actor=SHELL)
    one = statement.make(db, "nobody", "2025-06", UTC, actor=SHELL)
    pages = [b"".join(statement.FORMATS["html"](db, one, language)) for language in ("en", "zh_CN")]
    style = re.compile(rb"<style>(.*)</style>", re.DOTALL)
    assert [sha256(style.sub(b"", page)).hexdigest()[:16] for page in pages] == ["f35c24e9617ec968", "e0ebd1fd9506322b"]
    assert [match[1].decode() for page in pages if (match := style.search(page))] == [STYLE] * 2
    assert sha256(STYLE.encode()).hexdigest()[:16] == "9175f14de0f52822"


def test_a_file_with_a_style_of_before_is_verified(june: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    page = made(june, "html")
    older = page.replace(STYLE.encode(), b"td { color: black }")
    assert found(june, older)
    monkeypatch.setattr(reading, "EARLIER_STYLES", (sha256(b"td { color: black }").hexdigest(),))
    assert not found(june, older)


@pytest.mark.parametrize("piece", ["<a ", "<![x[", "<td", "<td>", "<tr>", "<style>", "</script>", "&#", "<!--"])
def test_a_broken_page_takes_no_longer_than_another(june: Database, piece: str) -> None:
    """A parser that reads some of these over and over took a minute for 50 kB."""
    page = made(june, "html")
    assert found(june, page.replace(b"<h1>", b"<h1>" + piece.encode() * 200_000))
    assert found(june, page[:300] + piece.encode() * 200_000)


@FORMATS
def test_a_row_taken_out_or_put_in_is_named(june: Database, format: str) -> None:
    lines = made(june, format).split(b"\n")
    at = next(place for place, line in enumerate(lines) if re.match(rb"5,|<tr><td[^>]*>5<", line))
    twice = b"\n".join([*lines[: at + 1], *lines[at:]])
    assert "5" in said(june, twice)
    gone = b"\n".join(lines[:at] + lines[at + 1 :])
    if format == "csv":
        with pytest.raises(Invalid, match="damaged"):
            said(june, gone)
    else:
        assert said(june, gone) == "Entry 5 is in the ledger, but not in the statement."


@pytest.mark.parametrize(
    "file",
    [b"", b"\xff\xfe", b"hello", b"<html>", b"statement", b"id,created_at\r\n1,2", b"PK\x03\x04", "你好".encode()],
)  # fmt: skip
def test_what_is_no_statement_is_told_so(db: Database, file: bytes) -> None:
    with pytest.raises(Invalid, match="The file is not a statement of this app"):
        said(db, file)


@FORMATS
def test_what_is_cut_short_is_damaged(june: Database, format: str) -> None:
    file = made(june, format)
    for part in range(1, 10):
        cut = file[: max(len(file) * part // 10, 300 if format == "html" else 40)]
        with pytest.raises(Invalid, match="The statement is damaged"):
            said(june, cut)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"entries":5', b'"entries":"5"'), (b'"month":"2025-06"', b'"month":"2025-13"'), (b'"rows":[', b'"rows":[1,'),
        (b'"rows":[', b'"rows":[[],'), (b'"rows":[', b'"rows":' + b"[" * 100_000), (b'"UTC"', b'"Mars"'), (b'"UTC"', b'""'),
        (b'"sealed_at_ns":', b'"sealed_at_ns":1e5,"x":'), (b'"sealed_at_ns":', b'"sealed_at_ns":99999999999'), (b'lang="en"', b'lang="fr"'),
        (b"<tr><td", b"<td></td><tr><td"), (b'"statement":1', b'"statement":"a"'), (b"</body>", b"<script></script></body>"),
    ],
)  # fmt: skip
def test_a_file_with_anything_in_it_is_one_sentence(june: Database, old: bytes, new: bytes) -> None:
    file = made(june, "html")
    assert old in file
    assert found(june, file.replace(old, new))


def test_a_member_verifies_their_own_and_nobody_elses(june: Database) -> None:
    file = made(june)
    assert said(june, file, member(june, "ann")) == SAME
    with pytest.raises(Forbidden, match="somebody else's"):
        said(june, file, member(june, "bob"))
    with pytest.raises(Forbidden):
        statement.make(june, "ann", "2025-06", UTC, actor=member(june, "bob"))
    with pytest.raises(UnknownAccount):
        said(june, file.replace(b"user_id,ann", b"user_id,amy"))


@pytest.mark.parametrize(
    "month", ["", "2025", "2025-6", "2025-13", "0000-01", "2025-06-01", "２０２５-06", "1980-01", "9999-12"]
)
def test_what_is_no_month_is_told_so(db: Database, ann: str, month: str) -> None:
    with pytest.raises(Invalid):
        made(db, month=month)


def test_a_month_that_has_not_begun_has_no_statement(db: Database, ann: str) -> None:
    with pytest.raises(Invalid, match="The month 2025-07 has not begun yet"):
        made(db, month="2025-07")


def test_no_statement_is_made_of_what_does_not_add_up(june: Database) -> None:
    tamper(june, "UPDATE entry SET amount = amount + 1 WHERE id = 3")
    with pytest.raises(Conflict, match="The entries of ann don't add up"):
        made(june)


def test_what_people_wrote_is_text_in_both_kinds(june: Database) -> None:
    page = made(june, "html").decode()
    assert page.count("<script") == page.count("</script>") == 1
    assert "<b>" not in page
    shown = re.search(r"<tr><td[^>]*>2</td>.*</tr>", page)
    assert shown is not None
    assert HTML in unescape(shown[0])
    assert table(made(june))[0]["remark"] == "'" + HTML


def test_html_needs_nothing_from_elsewhere_and_holds_the_data(june: Database) -> None:
    page = made(june, "html").decode()
    assert not re.search(r"https?:|src=|href=|url\(", page)
    data = json.loads(page.split('<script type="application/json">')[1].split("</script>")[0])
    rows: list[dict[str, Any]] = [dict(zip(data["fields"], row, strict=True)) for row in data["rows"]]
    assert data["opening_balance_hao"] + sum(row["amount"] for row in rows) == data["closing_balance_hao"]
    assert "1,000" not in json.dumps(data)


def test_its_language_is_the_readers(june: Database) -> None:
    assert '<html lang="zh-CN">' in made(june, "html", language="zh_CN").decode()


def test_a_user_id_that_begins_like_a_formula_is_read_back(db: Database) -> None:
    db.write(accounts.add, "-ann", "=Ann", actor=SHELL)
    db.write(ledger.recharge, "-ann", 5, actor=SHELL)
    one = statement.make(db, "-ann", "2025-06", UTC, actor=SHELL)
    for write in statement.FORMATS.values():
        verdict = statement.verify(db, b"".join(write(db, one, "en")), actor=SHELL)
        assert (verdict.difference, verdict.statement.user_id) == (None, "-ann")


def test_many_seals_and_batches_are_compared(db: Database, ann: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "_STRETCH", sa.text(str(seals._STRETCH).replace("1000", "2")))
    monkeypatch.setattr(statement.content, "_ENTRIES", sa.text(str(statement.content._ENTRIES).replace("5000", "2")))
    db.write(accounts.add, "bob", "Bob", actor=SHELL)
    for n in range(9):
        db.write(ledger.recharge, "bob" if n in (0, 1, 4, 5) else "ann", 1, actor=SHELL)
    file = made(db)
    assert said(db, file).startswith("The ledger still says the same: 5 entries of ann in 2025-06, under seal 5")
    tamper(db, "UPDATE entry SET remark = 'x' WHERE id = 6")  # under a seal that no entry of Ann's is under
    assert statement.verify(db, file, actor=SHELL).difference is None
    with db.writer.begin() as connection:
        connection.execute(sa.text("UPDATE entry SET remark = 'x' WHERE id = 3"))
    assert "Entry 3 differs" in said(db, file)


def test_no_other_accounts_entries_are_read_for_it(june: Database) -> None:
    if not june.is_sqlite:
        return  # the plan is SQLite's
    one = statement.make(june, "ann", "2025-06", UTC, actor=SHELL)

    def again() -> None:
        june.read(statement.content.compose, "ann", "2025-06", UTC, june.read(seals.newest))
        list(statement.entries(june, one))

    steps = [step for plan in plans(june, again) for step in plan if " entry" in step]
    assert len(steps) == 7
    for step in steps:
        assert re.search(
            r"SEARCH entry USING (COVERING )?INDEX entry_of_account|SEARCH entry USING INTEGER PRIMARY KEY", step
        )


# The shell


def test_the_shell_writes_a_statement_and_verifies_it(run: Run, june: Database, tmp_path: Path) -> None:  # noqa: F811
    for name, format in (("a.html", "html"), ("a.csv", "csv")):
        file = tmp_path / name
        run("statement", "ann", "--month", "2025-06", "--format", format, "--timezone", "UTC", "--output", str(file))
        assert file.read_bytes() == made(june, format)
        assert run("statement", "verify", str(file)).stdout == SAME + "\n"
    assert run("statement", "ann", "--month", "2025-06").stdout.startswith("<!DOCTYPE html>")
    tamper(june, "UPDATE entry SET balance_after = balance_after + 1 WHERE id = 5")
    assert refused("statement", "verify", str(file)).startswith("Entry 5 differs: ")


def test_the_shell_says_what_is_wrong(run: Run, june: Database, tmp_path: Path) -> None:  # noqa: F811
    other = tmp_path / "other"
    other.write_text("hello")
    assert "not a statement" in refused("statement", "verify", str(other))
    assert "can't be read" in refused("statement", "verify", str(tmp_path / "none"))
    assert "There is no account amy" in refused("statement", "amy", "--month", "2025-06")
    assert "is not a month" in refused("statement", "ann", "--month", "June")
    assert "Say which month" in run("statement", "ann", code=2).stderr
    assert "verify FILE" in run("statement", "ann", "bob", code=2).stderr
