"""The audit log: whatever is done that is no entry stands in it, with who, from where and when, and without secrets."""

import csv
import io
import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from billing_http import Api, sentence
from conftest import Clock
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from billing_core import accounts, audit, database, price_rules, pricing, settings, signin
from billing_core.__main__ import app
from billing_core.actors import SHELL, Actor
from billing_core.audit import Noted
from billing_core.database import Database
from billing_core.errors import BillingError, Forbidden, Invalid, NotSignedIn
from billing_core.rates import Prices
from billing_core.signin import actor_of

MILLION = 1_000_000
PASSWORD = "a long and secret sentence"


@pytest.fixture
def boss(db: Database) -> Actor:
    return actor_of(db.write(accounts.add, "boss", "Boss", actor=SHELL, role="admin"))


def noted(db: Database, **filters: str) -> list[Noted]:
    return db.read(audit.page, actor=SHELL, limit=1000, **filters)  # type: ignore[arg-type]


def said(db: Database, language: str = "en", **filters: str) -> list[str]:
    """The sentences, oldest first."""
    return [audit.sentence(row, language) for row in reversed(noted(db, **filters))]


def test_a_price_is_noted_with_what_it_was_before(db: Database, boss: Actor) -> None:
    db.write(pricing.set_price, "m", 20 * MILLION, 72 * MILLION, actor=boss)
    db.write(pricing.set_price, "m", 20 * MILLION, 80 * MILLION, actor=boss, cache_read=MILLION)
    db.write(pricing.retire, "m", actor=boss)
    assert said(db, kind="price") == [
        "Boss changed the price of m: input 18.00 → 20.00, output 72.00 元 per million tokens",
        "Boss changed the price of m: input 20.00, output 72.00 → 80.00, cache read 20.00 → 1.00 元 per million tokens",
        "Boss retired the price of m, the built-in one counts: input 20.00 → 18.00, output 80.00 → 72.00, "
        "cache read 1.00 → 18.00 元 per million tokens",
    ]


def test_a_retired_price_is_noted_with_what_a_rule_says_then(db: Database, boss: Actor) -> None:
    db.write(pricing.set_price, "other", 5 * MILLION, 6 * MILLION, actor=boss)
    db.write(price_rules.set_rule, "m*", "other", actor=boss)
    db.write(pricing.set_price, "m1", 7 * MILLION, 8 * MILLION, actor=boss)
    db.write(pricing.retire, "m1", actor=boss)
    assert "input 7.00 → 5.00, output 8.00 → 6.00" in said(db, kind="price")[-1]


def test_a_planned_price_is_noted_with_its_start(db: Database, boss: Actor, clock: Clock) -> None:
    start = clock() + 86_400 * 10**9
    db.write(pricing.set_price, "m", 20 * MILLION, 80 * MILLION, actor=boss, valid_from_ns=start)
    (row,) = noted(db, kind="price")
    assert audit.sentence(row, when=lambda ns: f"<{ns}>").endswith(f"per million tokens, from <{start}> on")


def test_prices_that_are_applied_together_are_noted_one_by_one(db: Database, boss: Actor) -> None:
    changes = [pricing.Change(name, Prices(MILLION, MILLION, None, None), None) for name in ("a", "b")]
    db.write(pricing.apply, changes, actor=boss)
    assert [row.subject for row in noted(db, kind="price")] == ["b", "a"]


def test_an_account_and_its_changes_are_noted(db: Database, boss: Actor) -> None:
    db.write(accounts.add, "ann", "Ann", actor=boss, email="ann@example.org")
    db.write(accounts.change, "ann", actor=boss, name="Anna", email="", role="admin", status="frozen")
    db.write(accounts.change, "ann", actor=boss, name="Anna")  # changes nothing
    assert said(db, kind="account")[1:] == [
        "Boss added the account ann (Ann, Member)",
        "Boss changed the account ann: name Ann → Anna, email ann@example.org → –, role Member → Admin, "
        "status Active → Frozen",
    ]


def test_keys_are_noted_by_their_first_characters_also_when_a_role_takes_them_away(db: Database, boss: Actor) -> None:
    db.write(accounts.add, "ann", "Ann", actor=boss, role="admin")
    ann = actor_of(db.read(accounts.find, "ann"))
    key, secret = db.write(signin.add_key, "ann", actor=ann, can="admin")
    db.write(signin.add_key, "ann", actor=ann)
    db.write(accounts.change, "ann", actor=boss, role="member")
    db.write(signin.revoke_key, key.id or 0, actor=boss)  # is revoked already
    assert said(db, kind="key") == [
        f"Ann added a key for ann: {secret[:8]}…, does what an admin may",
        said(db, kind="key")[1],
        f"Boss revoked a key of ann: {secret[:8]}…, does what an admin may",
    ]


def test_what_a_program_does_is_noted_under_its_key(db: Database, boss: Actor) -> None:
    _key, secret = db.write(signin.add_key, "boss", actor=boss, can="admin")
    program, _key = db.read(signin.key_actor, secret)
    db.write(accounts.add, "ann", "Ann", actor=program)
    row = noted(db)[0]
    assert (row.user_id, row.origin) == ("boss", f"key {secret[:8]}…")
    assert audit.origin(row) == f"key {secret[:8]}…"


def test_a_setting_and_who_set_it_in_the_shell(db: Database) -> None:
    db.write(settings.change, "usd_rate", "7.3", actor=SHELL)
    assert said(db) == ["The shell changed the setting usd_rate: 7.2 → 7.3"]
    assert audit.origin(noted(db)[0]) == "shell"


def test_signing_in_and_out_is_noted_once_each(db: Database, boss: Actor) -> None:
    account = db.read(accounts.find, "boss")
    ticket = db.write(lambda tx: signin.issue(tx, "ticket", account))
    session = db.write(signin.trade_ticket, ticket)
    assert db.write(signin.trade_ticket, ticket) is None
    db.write(signin.sign_out, session)
    db.write(signin.sign_out, session)
    assert said(db, kind="session") == ["Boss signed in", "Boss signed out"]


def test_wrong_passwords_are_noted_when_the_id_has_to_wait_and_ever_more_rarely(
    db: Database, boss: Actor, clock: Clock
) -> None:
    for user_id in ("boss", "nobody, or a password"):
        for _ in range(23):
            with pytest.raises(NotSignedIn):
                signin.check_password(db, user_id, "wrong")
            clock.forward(seconds=1000)
    assert [row.detail["tries"] for row in noted(db, kind="session")] == [20, 10, 5]
    assert said(db, kind="session")[0] == "5 wrong passwords in a row for boss: the id has to wait"


def test_the_first_admin_s_link_is_noted_when_it_is_made_and_used(db: Database) -> None:
    secret = db.write(signin.setup_link) or ""
    db.write(signin.set_up, secret, "boss", "Boss", signin.hash_password(PASSWORD))
    assert said(db) == [
        "A link was made for the first admin",
        "Somebody added the account boss (Boss, Admin)",
        "Somebody set a new password for boss",
        "Boss became the first admin by the link",
    ]
    assert audit.origin(noted(db, kind="account")[0]) == "setup link"


def test_no_secret_gets_into_the_log(db: Database) -> None:
    """Every secret that there is: passwords and their hashes, keys, sessions, tickets, the link."""
    link = db.write(signin.setup_link) or ""
    hashes = [signin.hash_password(PASSWORD), signin.hash_password(PASSWORD + "!")]
    account = db.write(signin.set_up, link, "boss", "Boss", hashes[0])
    boss = actor_of(account)
    ticket = db.write(lambda tx: signin.issue(tx, "ticket", account))
    session = db.write(signin.trade_ticket, ticket) or ""
    _key, secret = db.write(signin.add_key, "boss", actor=boss, can="admin")
    db.write(signin.change_password, "boss", hashes[1], actor=boss, keep_session=session)
    for _ in range(5):
        with pytest.raises(NotSignedIn):
            signin.check_password(db, "boss", "a password nearly right")
    for _ in range(5):
        with pytest.raises(NotSignedIn):
            signin.check_password(db, PASSWORD, "boss")
    db.write(signin.sign_out, session)
    with db.engine.connect() as connection:
        whole = " ".join(str(row) for row in connection.execute(sa.text("SELECT * FROM audit")))
    assert "password.set" in whole
    assert secret[:8] in whole
    for one in (PASSWORD, *hashes, link, ticket, session, secret, secret[8:], "a password nearly right", "argon2"):
        assert one not in whole


def test_what_is_refused_is_not_noted(db: Database, boss: Actor) -> None:
    before = noted(db)
    with pytest.raises(BillingError):
        db.write(accounts.change, "boss", actor=boss, role="member")
    assert noted(db) == before


def test_the_log_only_grows(db: Database, boss: Actor) -> None:
    for statement in ("UPDATE audit SET subject = 'x'", "DELETE FROM audit"):
        with db.writer.connect() as connection, pytest.raises(DBAPIError, match="never changes"):
            connection.execute(sa.text(statement))


def test_only_admins_read_it(db: Database, ann: str) -> None:
    with pytest.raises(Forbidden):
        db.read(audit.page, actor=actor_of(db.read(accounts.find, ann)))


def test_it_is_read_page_by_page_in_both_directions(db: Database) -> None:
    for n in range(1, 8):
        db.write(settings.change, "backup_keep", str(100 + n), actor=SHELL)
    ids = [row.id for row in noted(db)]
    first = db.read(audit.page, actor=SHELL, limit=3)
    older = db.read(audit.page, actor=SHELL, limit=3, before=first[-1].id)
    newer = db.read(audit.page, actor=SHELL, limit=3, after=older[0].id)
    assert [row.id for row in first + older] == ids[:6]
    assert newer == first
    assert [row.id for row in audit.every(db, actor=SHELL)] == ids


def test_it_is_searched_by_who_what_and_how(db: Database, boss: Actor) -> None:
    db.write(accounts.add, "ann", "安娜 100%", actor=boss)
    db.write(settings.change, "usd_rate", "7.31", actor=boss)
    assert [row.subject for row in noted(db, search="安娜")] == ["ann"]
    assert [row.subject for row in noted(db, search="boss 7.31")] == ["usd_rate"]
    assert [row.subject for row in noted(db, search="100%")] == ["ann"]
    assert noted(db, search="\x00") == noted(db, search="0_%") == []


def test_a_kind_that_does_not_exist_is_refused(db: Database) -> None:
    with pytest.raises(Invalid, match="price, account"):
        noted(db, kind="prices")


def test_a_row_of_another_version_is_told_plainly(db: Database) -> None:
    db.write(audit.note, SHELL, "moon.land", "sea", who="x", at=[1, 2])
    db.write(audit.note, SHELL, "account.add", "ann")
    assert said(db) == ["The shell did moon.land to sea", "The shell did account.add to ann"]


def test_copies_of_the_whole_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        monkeypatch.setenv("BILLING_DATABASE_URL", f"sqlite:///{tmp_path / name}")
        steps = [["account", "add", "ann", "--name", "Ann"], ["backup", str(tmp_path / "backup")]]
        steps += [["export", "all", str(tmp_path / "archive")], ["restore", str(tmp_path / "backup"), "--replace"]]
        for step in steps if name == "a" else [["import", str(tmp_path / "archive")]]:
            done = CliRunner().invoke(app, step)
            assert done.exit_code == 0, done.output
            database.open_database(f"sqlite:///{tmp_path / name}").close()  # as each command ends by itself
    opened = [database.open_database(f"sqlite:///{tmp_path / name}") for name in ("a", "b")]
    assert [said(each, kind="database") for each in opened] == [
        ["The shell restored the backup backup (entries: 0)"],
        [
            "The shell backed everything up to backup (entries: 0)",
            "The shell imported the archive archive (entries: 0)",
        ],
    ]
    for each in opened:
        each.close()


# The doors


def test_programs_read_it(db: Database) -> None:
    api = Api(db)
    api.post("/pricing", model_id="m", input_price=20, output_price=72)
    newest = api.get("/audit", limit=1)[0]
    assert (newest["action"], newest["subject"]) == ("price.set", "m")
    assert newest["detail"]["input"] == [18 * MILLION, 20 * MILLION]
    assert "changed the price of m: input 18.00 → 20.00" in newest["text"]
    older = api.get("/audit", before=newest["id"])
    assert all(int(row["id"]) < int(newest["id"]) for row in older)
    assert [row["action"] for row in api.get("/audit", kind="price", search="m")] == ["price.set"]
    assert "Only an admin" in sentence(api.send("GET", "/audit", key=api.key("ann")), 403)
    sentence(api.send("GET", "/audit?kind=moon"), 422)


def test_all_of_it_is_there_as_a_file(db: Database) -> None:
    api = Api(db)
    db.write(accounts.add, "eve", "=1+1", actor=SHELL)
    response = api.send("GET", "/export/audit.csv?kind=account&search=eve")
    (row,) = csv.DictReader(io.StringIO(response.content.decode("utf-8-sig")))
    assert (row["action"], row["user_id"], row["origin"], row["subject"]) == ("account.add", "", "shell", "eve")
    assert json.loads(row["detail"]) == {"name": "=1+1", "email": "", "role": "member"}
    sentence(api.send("GET", "/export/audit.csv", key=api.key("ann")), 403)


def test_the_shell_lists_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_DATABASE_URL", db.url)
    monkeypatch.setenv("COLUMNS", "160")
    db.write(settings.change, "usd_rate", "7.3", actor=SHELL)
    db.write(accounts.add, "ann", "Ann", actor=SHELL)
    try:
        table = CliRunner().invoke(app, ["--lang", "en", "audit", "--kind", "setting"])
        assert "The shell changed the setting usd_rate: 7.2 → 7.3" in table.output
        assert "ann" not in table.output
        (row,) = json.loads(CliRunner().invoke(app, ["audit", "--limit", "1", "--json"]).output)
        assert (row["action"], row["subject"], row["detail"]["name"]) == ("account.add", "ann", "Ann")
        file = CliRunner().invoke(app, ["export", "audit"]).output
        assert file.count("\n") == 3
    finally:
        database.open_database(db.url).close()
