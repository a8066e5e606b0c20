"""statement USER_ID, statement verify FILE."""

from enum import StrEnum
from typing import Annotated

import typer

from ..i18n import N_
from . import exports
from .output import ZoneOption, db, language, read_bytes, zone


class Format(StrEnum):
    html = "html"
    csv = "csv"


def statement(
    user_id: Annotated[
        str, typer.Argument(metavar="USER_ID|verify", help="The account's id; or verify, then FILE.", show_default=False)
    ],
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="After verify: the statement; - for standard input.", show_default=False)
    ] = None,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Which month, like 2026-10.", show_default=False)] = "",
    format: Annotated[Format, typer.Option(help="html prints well; csv is for spreadsheets.")] = Format.html,
    timezone: ZoneOption = None,
    output: exports.FileOption = "-",
) -> None:  # fmt: skip
    """A month of an account: both balances and every entry, under a seal. Or verify one against the ledger."""
    if file is not None:
        if user_id != "verify":
            raise typer.BadParameter(N_("Say either USER_ID --month YYYY-MM, or verify FILE."))
        return _verify(file)
    if not month:
        raise typer.BadParameter(N_("Say which month, with --month, like 2026-10."))
    from .. import statement, zones
    from ..actors import SHELL

    tz, database = zones.zone(str(zone(timezone))), db()
    made = statement.make(database, user_id, month, tz, actor=SHELL)
    exports.write(statement.FORMATS[format.value](database, made, language()), output)


def _verify(file: str) -> None:
    """Say that the ledger still says the same, or raise what differs."""
    from .. import statement
    from ..actors import SHELL

    content = read_bytes(file)
    verdict = statement.verify(db(), content, actor=SHELL)
    if verdict.difference:
        raise verdict.difference
    typer.echo(verdict.sentence(language()))
