"""demo, check, seal, backup, restore, migrate, setup-link."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ..errors import DatabaseUnavailable
from ..i18n import N_
from . import audits
from .output import JsonOption, db, hint, language, print_json, progress_bar, say, say_number

SETUP_PATH = "/?setup={secret}"


def demo(
    seed: Annotated[int, typer.Option(help="Another number invents another year.")] = 1,
    members: Annotated[int, typer.Option(help="How many people.")] = 25,
    days: Annotated[int, typer.Option(help="How many days, up to now.")] = 365,
) -> None:
    """Fill an empty database with a made-up team's year."""
    from .. import demo

    database = db()
    with progress_bar(N_("Inventing a year")) as progress:
        demo.fill(database, seed=seed, members=members, days=days, progress=progress)
    say(N_("{members} members and {days} days are there."), members=members, days=days)
    hint(N_("Nobody has a password yet. To sign in as the admin, give them one: account password boss"))


def check(as_json: JsonOption = False) -> None:
    """Recompute every balance, cost and sum from the entries; exit 1 and name the row where one is wrong."""
    from .. import check

    database = db()
    with progress_bar(N_("Checking")) as progress:
        findings = check.check(database, progress)
    with suppress(DatabaseUnavailable):  # a database that can't be written to can be checked
        database.write(check.remember, findings)
    if as_json:
        broken = [
            {"table": one.table, "id": one.id, "message": one.sentence(language()), "more": one.more}
            for one in findings
        ]
        print_json(
            {
                "entries": findings.entries,
                "seals": findings.seals,
                "newest_seal": findings.newest_seal,
                "findings": broken,
            }
        )
    elif findings:
        for one in findings:
            hint("{sentence}", sentence=one.sentence(language()))
    else:
        say_number(
            "{n} entry checked: everything adds up.", "{n} entries checked: everything adds up.", findings.entries
        )
        if findings.newest_seal:
            say(N_("Seal {number}: {hash}"), number=findings.seals, hash=findings.newest_seal)
    if findings:
        raise typer.Exit(1)


def seal() -> None:
    """Seal every entry so far and print the newest seal. Keep a copy elsewhere: it vouches for all that came before it."""
    from .. import seals

    database = db()
    seals.close(database, everything=True)
    newest = database.read(seals.newest)
    if newest is None:
        hint(N_("There are no entries yet, so there is nothing to seal."))
    else:
        say(N_("Seal {number}: {hash}"), number=newest.number, hash=newest.hash)


def backup(file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.", show_default=False)]) -> None:
    """Write a compressed copy of the database to a file, and check the copy. The app may go on running."""
    from .. import keeping

    with progress_bar(N_("Backing up")) as progress:
        done = keeping.backup(db(), file, progress=progress)
    audits.note("database.backup", file.name, entries=done.entries)
    say_number(
        "Backed up {n} entry to {file}: everything adds up.",
        "Backed up {n} entries to {file}: everything adds up.",
        done.entries,
        file=file,
    )
    if done.seal_hash:
        say(N_("Seal {number}: {hash}"), number=done.seal_number, hash=done.seal_hash)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What “backup” wrote.", show_default=False)],
    replace: Annotated[
        bool, typer.Option("--replace", help="Even if the database holds entries; they are kept aside.")
    ] = False,
) -> None:
    """Bring a backup back. Stop the app first."""
    from .. import keeping
    from ..place import database_url

    done = keeping.restore(database_url(), file, replace=replace)
    audits.note("database.restore", file.name, entries=done.entries)
    say_number("Restored {n} entry from {file}.", "Restored {n} entries from {file}.", done.entries, file=file)
    if done.seal_hash:
        say(N_("Seal {number}: {hash}"), number=done.seal_number, hash=done.seal_hash)
    if done.replaced_hash and done.replaced_hash != done.seal_hash:
        hint(
            N_("The newest seal of what was replaced is another one, {number}: {hash}"),
            number=done.replaced_number,
            hash=done.replaced_hash,
        )
    if done.kept is not None:
        hint(N_("What was there before is in {kept}."), kept=done.kept)


def migrate() -> None:
    """Create the database, or bring an older one up to date. Stop every app that uses it first."""
    from .. import database, place

    opened = database.Database(place.database_url())
    try:
        database.migrate(opened, keep=True)
    finally:
        opened.close()
    say(N_("The database is up to date (revision {revision})."), revision=place.REVISION)


def setup_link() -> None:
    """Print a one-time path with which the first admin chooses a name and a password. Earlier ones end."""
    from .. import signin
    from ..errors import Conflict

    secret = db().write(signin.setup_link)
    if secret is None:
        raise Conflict(N_("There is an admin already. Add accounts with: account add USER_ID --name NAME"))
    hint(N_("Open this path on the app's address within a day. It is valid once."))
    typer.echo(SETUP_PATH.format(secret=secret))
