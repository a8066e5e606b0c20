"""What the app does by itself: seals, expired holds, and the backups that the settings ask for."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import Clock
from test_keeping import programs  # noqa: F401

from billing_core import archive, check, keeper, keeping, ledger, seals, settings, stretches
from billing_core.actors import SHELL
from billing_core.database import Database, prepare
from billing_core.tokens import Tokens


@pytest.fixture
def scheduled(db: Database, ann: str, tmp_path: Path) -> Database:
    """A backup every six hours, two of them kept."""
    db.write(ledger.recharge, "ann", 1_000_000, actor=SHELL)
    for name, value in (("every_hours", "6"), ("keep", "2"), ("folder", str(tmp_path / "kept"))):
        db.write(settings.change, f"backup_{name}", value, actor=SHELL)
    return db


def kept(tmp_path: Path) -> list[str]:
    folder = tmp_path / "kept"
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def test_without_the_setting_no_backup_is_made(db: Database, ann: str) -> None:
    keeper.tick(db)
    assert db.read(keeping.last_backup) is None


def test_a_round_seals_what_is_due_and_writes_down_what_has_expired(db: Database, ann: str, clock: Clock) -> None:
    db.write(ledger.recharge, "ann", 1_000_000, actor=SHELL)
    db.write(ledger.precharge, "ann", "m", 10, 10, actor=SHELL)
    clock.forward(days=2)
    keeper.tick(db)
    sealed = db.read(seals.newest)
    assert sealed is not None
    assert sealed.entries == 2
    with db.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT type FROM entry ORDER BY id DESC LIMIT 1")) == "expire"


def test_backups_are_made_when_due_and_only_so_many_are_kept(scheduled: Database, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "billing-of-mine.backup").write_text("dear")
    made = []
    for _hour in range(0, 24, 3):
        keeper.tick(scheduled)
        made.append(len(kept(tmp_path)) - 1)
        clock.forward(seconds=3 * 3600)
    assert made == [1, 1, 2, 2, 2, 2, 2, 2]
    assert "billing-of-mine.backup" in kept(tmp_path)
    newest = scheduled.read(keeping.last_backup)
    assert newest is not None
    assert Path(newest.file).name == kept(tmp_path)[-2]
    assert newest.seal_hash == check.check(scheduled).newest_seal


def test_another_ledger_with_the_same_folder_deletes_none(
    scheduled: Database, tmp_path: Path, clock: Clock, sqlite_url: str
) -> None:
    for _day in range(2):
        keeper.tick(scheduled)
        clock.forward(days=1)
    first = kept(tmp_path)
    other = Database(f"sqlite:///{tmp_path / 'look.db'}", clock=clock)
    archive.export(scheduled, tmp_path / "all.zip")
    prepare(other)
    archive.load(other, tmp_path / "all.zip")  # whose settings name the same folder
    for _day in range(3):
        keeper.tick(other)
        clock.forward(days=1)
    other.close()
    assert set(first) < set(kept(tmp_path))
    assert len(kept(tmp_path)) == 4


def test_of_servers_that_look_at_once_one_makes_the_backup(scheduled: Database, tmp_path: Path) -> None:
    made: list[object] = []
    both = [threading.Thread(target=lambda: made.append(keeper.back_up_if_due(scheduled))) for _ in range(4)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(kept(tmp_path)) == 1
    assert sum(one is not None for one in made) == 1


def test_a_server_that_died_at_it_keeps_nobody_from_it_for_long(
    scheduled: Database, tmp_path: Path, clock: Clock
) -> None:
    assert scheduled.write(keeper._claim, 6)
    keeper.tick(scheduled)
    assert kept(tmp_path) == []
    clock.forward(seconds=3601)
    keeper.tick(scheduled)
    assert len(kept(tmp_path)) == 1


def test_a_backup_that_fails_is_told_and_tried_again(scheduled: Database, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    keeper.tick(scheduled)
    known = scheduled.read(keeping.last_backup)
    assert known is not None
    assert known.error
    reasons = ("File exists", "文件已存在")
    assert [r in known.error.sentence(each) for r, each in zip(reasons, ("en", "zh_CN"), strict=True)] == [True, True]
    (tmp_path / "kept").unlink()
    clock.forward(seconds=3601)
    keeper.tick(scheduled)
    known = scheduled.read(keeping.last_backup)
    assert known is not None
    assert known.error is None


def test_a_backup_of_a_ledger_that_does_not_add_up_fails_and_says_why_in_any_language(scheduled: Database) -> None:
    scheduled.write(lambda tx: tx.connection().execute(sa.text("UPDATE account SET balance = balance + 1")))
    keeper.tick(scheduled)
    known = scheduled.read(keeping.last_backup)
    assert known is not None
    assert known.error
    assert "no backup was made. The balance of " in known.error.sentence()
    assert "的余额记为" in known.error.sentence("zh_CN")


def test_a_clock_that_was_set_back_does_not_keep_backups_from_being_made(
    scheduled: Database, tmp_path: Path, clock: Clock
) -> None:
    clock.forward(days=365)
    for _ in range(2):  # as many as are kept
        clock.forward(days=1)
        keeper.tick(scheduled)
    ahead = kept(tmp_path)
    clock.forward(days=-360)
    for left in (1, 0):  # those of the future go first
        clock.forward(days=1)
        keeper.tick(scheduled)
        made = scheduled.read(keeping.last_backup)
        assert made is not None
        assert Path(made.file).exists()
        assert len(kept(tmp_path)) == 2
        assert len({*kept(tmp_path)} & {*ahead}) == left


def test_a_task_that_fails_keeps_no_other_from_its_work(scheduled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_db: Database) -> None:
        raise TypeError("a row that nobody can read")

    monkeypatch.setattr(stretches, "fill", broken)
    keeper.tick(scheduled)
    made = scheduled.read(keeping.last_backup)
    assert made is not None
    assert made.error is None


def test_a_backup_that_fails_for_no_reason_that_is_known_is_remembered(
    scheduled: Database, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("a row that nobody can read")

    with monkeypatch.context() as within:
        within.setattr(keeping, "backup", broken)
        keeper.tick(scheduled)
    failed = scheduled.read(keeping.last_backup)
    assert failed is not None
    assert failed.error
    assert failed.error.sentence() == (
        "No backup was made, for a reason that the app's log names. Run: python -m billing_core check"
    )
    clock.forward(seconds=3601)
    keeper.tick(scheduled)
    made = scheduled.read(keeping.last_backup)
    assert made is not None
    assert made.error is None


def test_charges_go_on_while_a_backup_is_made(scheduled: Database, tmp_path: Path) -> None:
    told: list[int] = []
    ended = threading.Event()

    def charge() -> None:
        while not ended.is_set():
            told.append(scheduled.write(ledger.charge, "ann", "m", Tokens(1, 0), actor=SHELL).entry_id)

    program = threading.Thread(target=charge)
    program.start()
    try:
        made = keeping.backup(scheduled, tmp_path / "backup")
    finally:
        ended.set()
        program.join()
    assert made.entries >= 1
    assert made.seal_number == 1  # it sealed what was there when it began, and did not run after what came
    assert set(told) <= set(scheduled.read(lambda tx: list(tx.connection().scalars(sa.text("SELECT id FROM entry")))))
    assert not check.check(scheduled)
