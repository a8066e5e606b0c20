"""A disk that fails at any single read, write or sync: strace lets the system call fail, under a program that charges."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from billing_core.database import Database

from .acknowledged import compare, read
from .test_kill import PATHS, PROJECT, books

CHARGES = 40
PROGRAM = f"""
import json, os, sys
from sqlalchemy import event
from billing_core.database import Database
from billing_core.errors import DatabaseUnavailable
from faults import writer

said = []

class Persistent(Database):
    "Asks again under the same key until it is answered."

    def __init__(self, url):
        super().__init__(url)
        event.listen(self.engine, "connect", lambda raw, _: raw.execute("PRAGMA wal_autocheckpoint = 40"))

    def write(self, *args, **kwargs):
        for _ in range(50):
            try:
                return super().write(*args, **kwargs)
            except DatabaseUnavailable as error:
                said.append(error.sentence())
                print(repr(error.__cause__), file=sys.stderr)
        raise SystemExit("it does not go on")

writer.Database = Persistent
first = int(sys.argv[3]) * {CHARGES}
writer.write(sys.argv[1], sys.argv[2], first, first + {CHARGES} - 1)
print(json.dumps(said))
os._exit(0)
"""
SENTENCES = (
    "The disk can't be read or written. Look after it",
    "The disk is full. Nothing was changed",
    "The database file can't be opened.",
    "The database is read-only.",
    "The file is not a billing database, or it is damaged.",  # SQLite takes a page that can't be read for a broken one
)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "pread64"])
def test_a_call_that_fails_now_and_then_is_told_and_the_program_goes_on(
    sqlite_url: str, tmp_path: Path, call: str, error: str, rounds: int
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace, to let system calls fail")
    if (call, error) == ("pread64", "ENOSPC"):
        return  # reading takes no space
    books(sqlite_url).close()
    file = sqlite_url.removeprefix("sqlite:///")
    times, heard = rounds or 2, list[str]()
    told = tmp_path / "told"
    for number in range(times):
        # A charge is some 20 writes and one sync: each time another one of them fails.
        every = {"pwrite64": 31, "fdatasync": 5, "pread64": 150}[call]
        strace = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={call}"]
        strace += [
            "-P",
            file,
            "-P",
            f"{file}-wal",
            "-e",
            f"inject={call}:error={error}:when={7 + number % 12}+{every + number}",  # of the first twenty
        ]
        done = subprocess.run(
            [*strace, sys.executable, "-c", PROGRAM, sqlite_url, str(told), str(number)],
            env=os.environ | {"PYTHONPATH": PATHS}, cwd=PROJECT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        heard += said
        assert all(sentence.startswith(SENTENCES) for sentence in said), (said, done.stderr)
        assert len(read(told)) == CHARGES * (number + 1)
    assert heard or call == "pread64"  # of a sync on the log's way back into the file nobody hears
    db = Database(sqlite_url)
    compare(db, read(told), f"{error} of {call}", times)
    db.close()
