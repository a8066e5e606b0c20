"""A team moves from SQLite to Postgres and back in one file, and not a byte of its ledger differs."""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import sums_reference
from conftest import NOON, Clock
from sqlmodel import SQLModel
from typer.testing import CliRunner

from billing_core import accounts, archive, demo, ledger, seals, settings, shell, signin, stretches, sums
from billing_core.actors import SHELL
from billing_core.check import check
from billing_core.database import REVISION, Database, prepare
from billing_core.errors import BillingError, Conflict, Invalid
from billing_core.idempotency import Once
from billing_core.models import MODEL, Setting
from billing_core.tokens import Tokens

Change = Callable[[dict[str, bytes]], None]


def fill(db: Database) -> None:
    """A demo's days, and what it has none of."""
    demo.fill(db, members=5, days=4, entries=150, end_ns=NOON)
    db.write(accounts.add, "ann", '安 ‘A\\n"n’ \U0001f600\t', actor=SHELL, password_hash="$argon2id$made-up")
    db.write(signin.add_key, "ann", actor=SHELL, can="charge")
    db.write(lambda tx: signin.issue(tx, "session", accounts.find(tx, "ann")))
    first = db.write(ledger.recharge, "ann", 10**12, actor=SHELL, remark="首充\\ ,\"'")
    for number in range(5):
        once = Once.of(SHELL, f"键-{number}-Ä-a", number)
        call = db.write(ledger.charge, "ann", "our/模型", Tokens(999, 1), actor=SHELL, once=once)
    undone = db.write(ledger.reverse, call.entry_id, "wrong", actor=SHELL)
    db.write(ledger.reverse, undone.entry_id, "right after all", actor=SHELL)
    held = db.write(ledger.precharge, "ann", "our/模型", 100, 100, actor=SHELL)
    db.write(ledger.settle, held.entry_id, Tokens(100, 700), actor=SHELL)
    db.write(ledger.precharge, "ann", "our/模型", 100, 100, actor=SHELL, ttl_seconds=86_400)
    assert first.entry_id > 100


@pytest.fixture
def sqlite(sqlite_url: str, clock: Clock) -> Iterator[Database]:
    db = Database(sqlite_url, clock=clock)
    yield db
    db.close()


@pytest.fixture
def postgres(postgres_database: str, clock: Clock) -> Iterator[Database]:
    db = Database(postgres_database, clock=clock)
    yield db
    db.close()


@pytest.fixture
def third(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    """Another, empty SQLite file."""
    db = Database(f"sqlite:///{tmp_path / 'third.db'}", clock=clock)
    prepare(db)
    yield db
    db.close()


def rows(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but `token` and `price_version`; the parts of a sum of use added up."""
    if db.read(seals.newest):
        stretches.fill(db)  # as the app does by itself
    found = db.read(
        lambda tx: {
            name: sorted((tuple(row) for row in tx.connection().execute(sa.select(table))), key=repr)
            for name, table in SQLModel.metadata.tables.items()
            if name not in ("token", "price_version", "usage_sum")
        }
    )
    return found | {"usage_sum": sorted(sums_reference.kept(db).items())}


def newest(db: Database) -> tuple[int, str, int]:
    seal = db.read(seals.newest)
    assert seal is not None
    return seal.number, seal.hash, seal.last_entry_id


def lines(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def goes_on(db: Database) -> None:
    before = db.read(accounts.find, "ann").balance
    call = db.write(ledger.charge, "ann", "our/模型", Tokens(10, 10), actor=SHELL)
    assert call.balance == before - call.cost
    db.write(accounts.add, "new", "New", actor=SHELL)
    db.write(ledger.charge, "new", "another/model", Tokens(10, 10), actor=SHELL, allow_debt=True)
    seals.close(db, everything=True)
    again = db.write(ledger.charge, "ann", "our/模型", Tokens(999, 1), actor=SHELL, once=Once.of(SHELL, "键-1-Ä-a", 1))
    assert again.replayed
    assert not check(db)


# There and back


def test_the_parts_of_a_sum_are_one_in_an_archive(postgres: Database, third: Database, tmp_path: Path) -> None:
    fill(postgres)
    archive.export(postgres, tmp_path / "one.zip")
    half = ", ".join(f"{name} = {name} - {name} / 2" for name in sums.SUMS)
    halves = ", ".join(f"{name} / 2" for name in sums.SUMS)
    keys = ", ".join(sums.KEY[:-1])
    for statement in (
        f"INSERT INTO usage_sum ({keys}, slot, {', '.join(sums.SUMS)}) SELECT {keys}, slot + 100, {halves} FROM usage_sum "
        f"WHERE of = {MODEL}",
        f"UPDATE usage_sum SET {half} WHERE of = {MODEL} AND slot < 100",
    ):
        postgres.write(lambda tx, text: tx.connection().execute(sa.text(text)), statement)
    assert not check(postgres)
    archive.export(postgres, tmp_path / "two.zip")
    assert lines(tmp_path / "one.zip")["usage_sum.ndjson"] == lines(tmp_path / "two.zip")["usage_sum.ndjson"]
    archive.load(third, tmp_path / "two.zip")
    assert sums_reference.kept(third) == sums_reference.kept(postgres)


def test_a_team_moves_from_sqlite_to_postgres_and_back_with_the_same_seal(
    sqlite: Database, postgres: Database, third: Database, tmp_path: Path
) -> None:
    fill(sqlite)
    there = archive.export(sqlite, tmp_path / "there.zip")
    assert archive.load(postgres, tmp_path / "there.zip") == there
    back = archive.export(postgres, tmp_path / "back.zip")
    assert archive.load(third, tmp_path / "back.zip") == back == there
    assert newest(sqlite) == newest(postgres) == newest(third)
    assert (there.seal, there.hash) == newest(sqlite)[:2]
    assert newest(sqlite)[2] == there.entries
    assert rows(sqlite) == rows(postgres) == rows(third)
    assert lines(tmp_path / "there.zip") == lines(tmp_path / "back.zip")
    for db in (sqlite, postgres, third):
        goes_on(db)
    assert newest(sqlite) == newest(postgres) == newest(third)


def test_a_team_moves_from_postgres_to_sqlite(postgres: Database, sqlite: Database, tmp_path: Path) -> None:
    fill(postgres)
    archive.export(postgres, tmp_path / "all.zip")
    archive.load(sqlite, tmp_path / "all.zip")
    assert sqlite.read(stretches.newest) is not None  # at once, so that pages of the log are quick
    assert rows(sqlite) == rows(postgres)
    assert newest(sqlite) == newest(postgres)
    goes_on(sqlite)


def test_numbers_go_on_after_a_ledger_with_gaps(db: Database, third: Database, tmp_path: Path) -> None:
    """On Postgres a refused charge leaves a gap; the numbers after it stay what they were."""
    fill(third)
    third.write(lambda tx: tx.connection().execute(sa.text("UPDATE api_key SET id = 70")))
    archive.export(third, tmp_path / "all.zip")
    archive.load(db, tmp_path / "all.zip")
    key, _secret = db.write(signin.add_key, "ann", actor=SHELL)
    assert key.id == 71


def test_an_empty_ledger_moves_as_well(db: Database, third: Database, tmp_path: Path) -> None:
    done = archive.export(db, tmp_path / "all.zip")
    assert (done.entries, done.seal) == (0, 0)
    assert archive.load(third, tmp_path / "all.zip") == done
    third.write(accounts.add, "ann", "Ann", actor=SHELL)
    assert third.read(accounts.find, "ann").id == 1


def test_sessions_and_links_stay_behind(db: Database, third: Database, tmp_path: Path) -> None:
    fill(db)
    third.write(signin.setup_link)
    archive.export(db, tmp_path / "all.zip")
    archive.load(third, tmp_path / "all.zip")
    assert third.read(lambda tx: tx.connection().scalar(sa.text("SELECT count(*) FROM token"))) == 0


# Writing


def test_what_is_written_during_an_export_is_in_the_archive_as_a_whole_or_not_at_all(
    db: Database, third: Database, tmp_path: Path
) -> None:
    fill(db)
    before = db.read(accounts.find, "ann").balance

    def meanwhile(done: int, _all: int) -> None:
        db.write(ledger.recharge, "ann", 5, actor=SHELL)

    archive.export(db, tmp_path / "all.zip", progress=meanwhile)
    archive.load(third, tmp_path / "all.zip")
    assert third.read(accounts.find, "ann").balance == before < db.read(accounts.find, "ann").balance


def test_a_file_that_is_there_is_not_written_over(db: Database, tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_text("mine")
    with pytest.raises(Conflict, match="There is a file"):
        archive.export(db, tmp_path / "all.zip")
    assert (tmp_path / "all.zip").read_text() == "mine"


def test_a_file_that_comes_meanwhile_is_not_written_over(db: Database, tmp_path: Path) -> None:
    def appear(_done: int, _all: int) -> None:
        (tmp_path / "all.zip").write_text("dear")

    with pytest.raises(Conflict, match="There is a file"):
        archive.export(db, tmp_path / "all.zip", progress=appear)
    assert {file.name: file.read_text() for file in tmp_path.glob("*all*")} == {"all.zip": "dear"}


@pytest.mark.parametrize("name", [b"q\xff.zip", b"x" * 300], ids=["no text", "too long"])
def test_a_file_whose_name_cannot_be_is_said(db: Database, tmp_path: Path, name: bytes) -> None:
    file = tmp_path / os.fsdecode(name)
    for act in (archive.export, archive.load):
        with pytest.raises(Invalid) as refused:
            act(db, file)
        assert "\n" not in refused.value.sentence()


def test_a_file_that_cannot_be_written_is_said(db: Database, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="can't be written: No such file or directory"):
        archive.export(db, tmp_path / "nowhere" / "all.zip")


def test_a_ledger_that_does_not_add_up_is_not_exported(db: Database, ann: str, tmp_path: Path) -> None:
    db.write(lambda tx: tx.connection().execute(sa.text("UPDATE account SET balance = balance + 1")))
    before = set(tmp_path.iterdir())
    with pytest.raises(Conflict, match=r"doesn't add up, so no archive was made\. The balance of ann"):
        archive.export(db, tmp_path / "all.zip")
    assert set(tmp_path.iterdir()) == before


def test_nobody_else_may_read_an_archive(db: Database, tmp_path: Path) -> None:
    archive.export(db, tmp_path / "all.zip")
    assert (tmp_path / "all.zip").stat().st_mode & 0o077 == 0


# Reading


@pytest.fixture(scope="module")
def packed_once(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    shutil.copy(sqlite_template, folder / "billing.db")
    db = Database(f"sqlite:///{folder / 'billing.db'}", clock=Clock())
    fill(db)
    archive.export(db, folder / "all.zip")
    db.close()
    return folder / "all.zip"


@pytest.fixture
def packed(packed_once: Path, tmp_path: Path) -> Path:
    """An archive with something in it."""
    return Path(shutil.copy(packed_once, tmp_path))


def is_empty(db: Database) -> bool:
    return not any(rows(db).values())


def refusal(db: Database, file: Path) -> BillingError:
    """What an import is refused with; nothing of it remains."""
    with pytest.raises(BillingError) as refused:
        archive.load(db, file)
    assert is_empty(db)
    assert "\n" not in refused.value.sentence()
    return refused.value


def changed(file: Path, change: Change, *, signed: bool = True) -> Path:
    """The archive with other content; `signed`: by somebody who knows how to write a manifest."""
    content = lines(file)
    change(content)
    if signed and archive.MANIFEST in content:
        manifest = json.loads(content[archive.MANIFEST])
        for name in [name for name in content if name != archive.MANIFEST]:
            data = content[name]
            manifest["tables"][name.removesuffix(".ndjson")] = {
                "rows": data.count(b"\n") - 1, "sha256": hashlib.sha256(data).hexdigest(),
            }  # fmt: skip
        content[archive.MANIFEST] = json.dumps(manifest).encode()
    other = file.with_name("changed.zip")
    with zipfile.ZipFile(other, "w") as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    return other


def edit(name: str, old: str, new: str) -> Change:
    def change(content: dict[str, bytes]) -> None:
        assert old.encode() in content[name]
        content[name] = content[name].replace(old.encode(), new.encode(), 1)

    return change


def without(name: str) -> Change:
    def change(content: dict[str, bytes]) -> None:
        del content[name]

    return change


def last_line_of_entries(content: dict[str, bytes]) -> None:
    content["entry.ndjson"] = content["entry.ndjson"].rstrip(b"\n").rpartition(b"\n")[0] + b"\n"


def amount_of_an_entry(content: dict[str, bytes]) -> None:
    head, *entries = content["entry.ndjson"].decode().splitlines()
    row, place = json.loads(entries[0]), json.loads(head).index("remark")
    row[place] = "another remark"
    content["entry.ndjson"] = "\n".join([head, json.dumps(row), *entries[1:], ""]).encode()


def setting(name: str, value: str) -> Change:
    def change(content: dict[str, bytes]) -> None:
        content["setting.ndjson"] += json.dumps([name, value]).encode() + b"\n"

    return change


DAMAGED = "is damaged, or not an archive. Name a file that “export all” wrote."


@pytest.mark.parametrize("content", [b"", b"PK", b"a letter " * 1000, b"SQLite format 3\0" * 100])
def test_a_file_that_is_no_archive_is_said(db: Database, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "letter").write_bytes(content)
    assert DAMAGED in refusal(db, tmp_path / "letter").sentence()


def test_a_file_that_is_not_there_is_said(db: Database, tmp_path: Path) -> None:
    assert "can't be read: No such file or directory." in refusal(db, tmp_path / "nowhere").sentence()
    assert "can't be read: Is a directory." in refusal(db, tmp_path).sentence()


def test_a_damaged_archive_is_found_wherever_it_is_damaged(db: Database, packed: Path, tmp_path: Path) -> None:
    content = packed.read_bytes()
    with zipfile.ZipFile(packed) as whole:
        begins = [(each.header_offset + 100, each.compress_size - 100) for each in whole.infolist()]
    for start, length in begins:
        for place in range(start, start + length, max(length // 4, 1)):
            changed = content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]
            (tmp_path / "damaged").write_bytes(changed)
            assert DAMAGED in refusal(db, tmp_path / "damaged").sentence()
    (tmp_path / "damaged").write_bytes(content[: len(content) * 2 // 3])
    assert DAMAGED in refusal(db, tmp_path / "damaged").sentence()


@pytest.mark.parametrize(
    "change",
    [
        edit("entry.ndjson", "recharge", "recharqe"),
        edit("entry.ndjson", '"amount"', '"amoumt"'),
        last_line_of_entries,
        without("hold.ndjson"),
        without("manifest.json"),
        edit("manifest.json", "billing archive", "cooking recipes"),
        edit("manifest.json", '"tables"', '"chairs"'),
        edit("manifest.json", "{", "["),
    ],
)
def test_an_archive_that_was_changed_is_refused(db: Database, packed: Path, change: Change) -> None:
    assert DAMAGED in refusal(db, changed(packed, change, signed=False)).sentence()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (edit("entry.ndjson", '"amount"', '"amoumt"'), DAMAGED),
        (edit("entry.ndjson", '"recharge",', '"recharge","more",'), DAMAGED),
        (edit("entry.ndjson", '"recharge",', '"recharge",1.5,'), DAMAGED),
        (edit("entry.ndjson", '"recharge",', '5,'), DAMAGED),
        (edit("entry.ndjson", "[1,", "[36893488147419103232,"), ""),
        (edit("entry.ndjson", "[2,", "[1,"), "so nothing was imported."),
        (edit("entry.ndjson", '"recharge"', '"robbery"'), "so nothing was imported."),
        (edit("entry.ndjson", "[1,1,", "[1,99,"), "so nothing was imported."),
        (amount_of_an_entry, "so nothing was imported. Seal 1 no longer fits"),
        (last_line_of_entries, "so nothing was imported."),
        (edit("manifest.json", '"number": 1', '"number": 43'), "Its newest seal is not the one that its manifest names."),
        (edit("manifest.json", '"seal"', '"deal"'), DAMAGED),
        (edit("manifest.json", '"format"', '"pad": "' + "x" * (1 << 20) + '", "format"'), DAMAGED),
        (setting("usd_rate", "much"), "so nothing was imported. The setting usd_rate holds something that it can't be set to."),
        (edit("manifest.json", '"hash": "', '"hash": "0'), "Its newest seal is not the one that its manifest names."),
    ],
)  # fmt: skip
def test_an_archive_that_does_not_add_up_leaves_nothing(
    db: Database, packed: Path, change: Change, sentence: str
) -> None:
    assert sentence in refusal(db, changed(packed, change)).sentence()
    archive.load(db, packed)  # and the right one goes in afterwards
    goes_on(db)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (edit("manifest.json", REVISION, "9999"), f"of a newer version (9999) than this app ({REVISION}). Update the app"),
        (edit("manifest.json", '"version": 1', '"version": 2'), "of a newer version"),
        (edit("manifest.json", REVISION, "0001"), "Import it with the app that made it, then update."),
    ],
)  # fmt: skip
def test_an_archive_of_another_version_is_said(db: Database, packed: Path, change: Change, sentence: str) -> None:
    assert sentence in refusal(db, changed(packed, change)).sentence()


def test_what_the_app_notes_about_a_database_is_no_part_of_an_archive(
    db: Database, third: Database, tmp_path: Path
) -> None:
    for each in (db, third):
        each.write(lambda tx: tx.session.merge(Setting(name="_last_check", value=db.url)))
    db.write(settings.change, "usd_rate", "7.5", actor=SHELL)
    archive.export(db, tmp_path / "all.zip")
    archive.load(third, tmp_path / "all.zip")
    assert rows(third)["setting"] == [("usd_rate", "7.5")]


def test_a_database_that_holds_something_is_left_alone(db: Database, ann: str, packed: Path) -> None:
    before = rows(db)
    with pytest.raises(Conflict, match=r"The database is not empty\. Name a new one"):
        archive.load(db, packed)
    assert rows(db) == before


# From the shell


def test_the_shell_exports_and_imports(
    sqlite: Database, postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sqlite)
    monkeypatch.setenv("BILLING_DATABASE_URL", sqlite.url)
    done = CliRunner().invoke(shell.app, ["export", "all", str(tmp_path / "all.zip")])
    number, sha256, last = newest(sqlite)
    assert (done.exit_code, done.stdout) == (0, f"Exported {last} entries to {tmp_path / 'all.zip'}.\n")
    assert f"Its newest seal is number {number}: {sha256}\n" in done.stderr
    monkeypatch.setenv("BILLING_DATABASE_URL", postgres.url)
    done = CliRunner().invoke(shell.app, ["import", str(tmp_path / "all.zip")])
    expected = f"Imported {last} entries from {tmp_path / 'all.zip'}: everything adds up.\n"
    assert (done.exit_code, done.stdout) == (0, expected)
    assert sha256 in done.stderr
    done = CliRunner().invoke(shell.app, ["import", str(tmp_path / "all.zip")])
    assert (done.exit_code, done.stderr) == (
        1, "The database is not empty. Name a new one in BILLING_DATABASE_URL, then import again.\n"
    )  # fmt: skip
