"""export all, import: everything as one portable file."""

from pathlib import Path
from typing import Annotated

import typer

from ..i18n import N_
from . import audits
from .output import db, hint, progress_bar, say_number


def export_all(file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.", show_default=False)]) -> None:
    """Everything as one portable archive, which “import” brings into another database: SQLite or Postgres."""
    from .. import archive

    with progress_bar(N_("Exporting")) as progress:
        done = archive.export(db(), file, progress=progress)
    audits.note("database.export", file.name, entries=done.entries)
    say_number("Exported {n} entry to {file}.", "Exported {n} entries to {file}.", done.entries, file=file)
    _tell(done.seal, done.hash)
    hint(N_("It holds everything but who is signed in. Keep it where only you can read it."))


def import_all(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What “export all” wrote.", show_default=False)],
) -> None:
    """Fill an empty database with an archive, all of it, checked, or nothing. People sign in anew."""
    from .. import archive
    from ..actors import SHELL

    with progress_bar(N_("Importing")) as progress:
        done = archive.load(db(), file, actor=SHELL, progress=progress)
    say_number(
        "Imported {n} entry from {file}: everything adds up.",
        "Imported {n} entries from {file}: everything adds up.",
        done.entries,
        file=file,
    )
    _tell(done.seal, done.hash)


def _tell(number: int, sha256: str) -> None:
    if number:
        hint(N_("Its newest seal is number {number}: {hash}"), number=number, hash=sha256)
