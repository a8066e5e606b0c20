"""What can happen to SQLite's file under a running app: a plain sentence, nothing half done, and on it goes afterwards."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from billing_core import keeping, ledger
from billing_core.actors import SHELL
from billing_core.database import Database, Transaction
from billing_core.errors import DatabaseUnavailable
from billing_core.idempotency import Once
from billing_core.tokens import Tokens

from .acknowledged import Told, compare
from .test_kill import books


class Program:
    """Charges one call after the other, and asks again under the same key what was refused."""

    def __init__(self, db: Database) -> None:
        self.db, self.told, self.number = db, list[Told](), 0

    def charge(self) -> None:
        key = f"k-{self.number}"
        done = self.db.write(
            ledger.charge, "ann", "m", Tokens(1000, 10), actor=SHELL, once=Once.of(SHELL, key, self.number)
        )
        self.told.append(Told(key, done.entry_id, done.cost))
        self.number += 1

    def until_refused(self) -> str:
        """Its sentence."""
        for _ in range(20_000):
            try:
                self.charge()
            except DatabaseUnavailable as error:
                return error.sentence()
        raise AssertionError("nothing was refused")


@contextmanager
def small_disk(folder: Path, size: str = "4m") -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None,
    reason="only root can mount a small disk",
)


@needs_root
def test_a_full_disk_refuses_and_room_lets_it_go_on(tmp_path: Path, sqlite_template: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        shutil.copy(sqlite_template, disk / "billing.db")
        db = books(f"sqlite:///{disk / 'billing.db'}")
        program = Program(db)
        (disk / "ballast").write_bytes(bytes(2_000_000))
        assert program.until_refused() == "The disk is full. Nothing was changed; make room, then try again."
        assert "full" in program.until_refused()  # still
        (disk / "ballast").unlink()
        for _ in range(5):
            program.charge()
        compare(db, program.told, "a full disk")
        db.close()


@needs_root
def test_a_disk_that_turns_read_only_refuses_and_goes_on_when_it_is_writable(
    tmp_path: Path, sqlite_template: Path
) -> None:
    with small_disk(tmp_path / "disk", "32m") as disk:
        shutil.copy(sqlite_template, disk / "billing.db")
        db = books(f"sqlite:///{disk / 'billing.db'}")
        program = Program(db)
        program.charge()
        db.close()  # a file that is open for writing keeps its disk writable
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        sentence = program.until_refused()
        assert "read-only" in sentence or "can't be opened" in sentence
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        for _ in range(5):
            program.charge()
        compare(db, program.told, "a disk that turns read-only")
        db.close()


def test_writes_that_the_system_refuses_leave_nothing_half_done(sqlite_url: str) -> None:
    """No file may grow beyond a limit: SQLite meets an I/O error wherever it comes to it."""
    db = books(sqlite_url)
    program = Program(db)
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rounds = 12
    for number in range(rounds):
        limit = max(os.path.getsize(f"{db.file}{end}") for end in ("", "-wal")) + 5_000 * number
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            sentence = program.until_refused()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert sentence.startswith(("The disk is full", "The database file can't be", "The disk can't be"))
        program.charge()
    compare(db, program.told, "I/O errors while writing", rounds)
    db.close()


def test_a_deleted_file_is_noticed_and_a_new_one_is_not_made_in_its_place(sqlite_url: str, tmp_path: Path) -> None:
    db = books(sqlite_url)
    program = Program(db)
    program.charge()
    keeping.backup(db, tmp_path / "backup")
    file = Path(str(db.file))
    for left in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        left.unlink(missing_ok=True)
    assert "The database file is gone" in program.until_refused()
    assert not file.exists()
    keeping.restore(sqlite_url, tmp_path / "backup")
    program.charge()
    compare(db, program.told, "a deleted file, restored")
    db.close()


def test_a_replaced_file_is_the_one_that_is_written_from_then_on(sqlite_url: str, tmp_path: Path) -> None:
    db = books(sqlite_url)
    program = Program(db)
    program.charge()
    keeping.backup(db, tmp_path / "backup")
    program.charge()  # lost with the file that is replaced
    other = f"sqlite:///{tmp_path / 'other.db'}"
    keeping.restore(other, tmp_path / "backup")
    db.engine.dispose()
    os.replace(tmp_path / "other.db", str(db.file))
    for end in ("-wal", "-shm"):
        Path(f"{db.file}{end}").unlink(missing_ok=True)
    del program.told[1:]
    program.number = 1
    program.charge()
    compare(db, program.told, "a replaced file")
    db.close()


def test_a_file_that_is_moved_away_while_a_charge_is_written_acknowledges_nothing(
    sqlite_url: str, tmp_path: Path
) -> None:
    db = books(sqlite_url)
    program = Program(db)
    program.charge()
    file = Path(str(db.file))

    def moved(tx: Transaction) -> None:
        ledger.charge(tx, "ann", "m", Tokens(1000, 10), actor=SHELL, once=Once.of(SHELL, "k-1", 1))
        file.rename(tmp_path / "elsewhere")

    with pytest.raises(DatabaseUnavailable, match="The database file is gone"):
        db.write(moved)
    assert "The database file is gone" in program.until_refused()
    assert not file.exists()
    (tmp_path / "elsewhere").rename(file)
    for _ in range(3):  # the first is asked again, under its key
        program.charge()
    compare(db, program.told, "a file moved away and back")
    db.close()


def test_a_file_replaced_under_open_connections_does_not_get_the_old_ones_log(sqlite_url: str, tmp_path: Path) -> None:
    db = books(sqlite_url)
    program = Program(db)
    program.charge()
    keeping.backup(db, tmp_path / "backup")
    keeping.restore(f"sqlite:///{tmp_path / 'other.db'}", tmp_path / "backup")
    for _ in range(50):
        program.charge()  # all of it in the log of the file that is replaced
    with db.engine.connect():  # somebody reads meanwhile
        os.replace(tmp_path / "other.db", str(db.file))
        del program.told[1:]
        program.number = 1
        for _ in range(60):
            program.charge()
    again = Database(sqlite_url)
    compare(again, program.told, "a file replaced under open connections")
    again.close()
    db.close()
