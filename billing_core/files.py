"""Files that are there whole or not at all, whenever the process ends, kill -9 included.

What is being written has a name of its own, with a dot before it, beside the name that it will have; what a kill left of it
is removed by the next run.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import Conflict, Invalid
from .i18n import N_

if sys.platform != "win32":
    import fcntl

_ENDS = ("-wal", "-shm", "-journal", "")
"""What SQLite puts beside a file; the file itself goes last, so that what is beside it is found as long as there is any."""


def new(name: Path | str, taken: str) -> Path:
    """A file that isn't there yet, nor what a kill left beside it. Raises Conflict with the message `taken` where there is one,
    Invalid for a name that can't be written down."""
    file = Path(name)
    named(file)
    clean(file.parent, re.escape(file.name))
    if os.path.lexists(file):
        raise Conflict(taken, file=file)
    return file


def named(file: Path) -> None:
    """Raises Invalid for a name that is no text: it could stand in no log."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        raise Invalid(
            N_("The name of the file {file} is not UTF-8. Give it another one."),
            field="file", file=ascii(str(file)),
        ) from None  # fmt: skip


def put(part: Path, file: Path, taken: str) -> None:
    """Give a file that has been written its name, which nobody else has taken meanwhile. Raises as `new` does."""
    with file_errors(file):
        try:
            os.link(part, file)
        except FileExistsError:
            raise Conflict(taken, file=file) from None
        except OSError:  # a file system without links
            part.rename(new(file, taken))
        sync_folder(file)


@contextmanager
def beside(file: Path, what: str, mode: int = 0o600) -> Iterator[Path]:
    """A new file in the folder of `file`, which is gone afterwards unless it has been renamed."""
    part = file.with_name(f".{file.name}.{what}-{os.getpid()}")
    with file_errors(file):
        part.touch(mode=mode, exist_ok=False)
        opened = part.open("rb")
    try:
        with opened:
            _lock(opened)
            yield part
    finally:
        _remove(part)


def clean(folder: Path, name: str) -> None:
    """Remove what killed backups, restores and exports left beside files whose name matches the pattern `name`."""
    left = re.compile(rf"\.{{1,2}}{name}\.(backup|restore|export)-\d+(\.copy-\d+)?")
    with suppress(OSError):  # whatever is wrong there, what is run next says so
        for file in list(folder.iterdir()):
            if left.fullmatch(file.name):
                with file.open("rb") as opened:
                    dead = _lock(opened)
                if dead:
                    _remove(file)


def _lock(opened: IO[bytes]) -> bool:
    """Take the file until it is closed; False where another process is at work on it. A number of a process says nothing:
    in a container it is the same at every start."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(file: Path) -> None:
    for end in _ENDS:
        with suppress(OSError):  # of a name that is too long there is none
            Path(f"{file}{end}").unlink()


def sync(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


@contextmanager
def file_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Invalid(
            N_("The file {file} can't be written: {reason}."), field="file", file=file, reason=error.strerror or error
        ) from None


def sync_folder(file: Path) -> None:
    """Make a new name last through a power cut, where the system can."""
    with suppress(OSError):
        folder = os.open(file.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
