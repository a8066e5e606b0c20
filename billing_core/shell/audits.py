"""audit: who did what that is no entry."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ..glossary import KINDS
from ..i18n import N_
from .output import (
    Column,
    JsonOption,
    ZoneOption,
    db,
    hint,
    iso,
    language,
    print_json,
    shown,
    table,
    zone,
)  # fmt: skip

KindOption = Annotated[
    str, typer.Option(metavar="KIND", help=f"Only this kind: {', '.join(KINDS)}.", show_default=False)
]
SearchOption = Annotated[
    str, typer.Option(help="Words in a name, in what it was done to, or in what changed.", show_default=False)
]


def note(action: str, file: Path | str, **detail: object) -> None:
    """Note what was done with the database as a whole, where it can be written to."""
    from ..actors import SHELL
    from ..audit import note
    from ..errors import DatabaseUnavailable

    with suppress(DatabaseUnavailable):
        db().write(note, SHELL, action, str(file), **detail)


def audit(
    kind: KindOption = "",
    search: SearchOption = "",
    limit: Annotated[int, typer.Option(help="How many rows at most.")] = 20,
    timezone: ZoneOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who changed a price, a role, a key or a setting, newest first."""
    from .. import audit
    from ..actors import SHELL

    tz = zone(timezone)
    rows = db().read(audit.page, actor=SHELL, kind=kind, search=search, limit=limit)
    if as_json:
        return print_json(
            [
                {
                    "id": row.id, "at": iso(row.at_ns, tz), "at_ns": row.at_ns, "user_id": row.user_id, "name": row.name,
                    "origin": row.origin, "action": row.action, "subject": row.subject, "detail": row.detail,
                }
                for row in rows
            ]
        )  # fmt: skip
    if not rows:
        return hint(N_("Nothing like that has been done."))
    table(
        [Column(N_("No."), right=True), Column(N_("Time")), Column(N_("Where from"), wide=True), Column(N_("What"), long=True)],
        (
            [
                row.id, shown(row.at_ns, tz), audit.origin(row, language()),
                audit.sentence(row, language(), when=lambda ns: shown(ns, tz)),
            ]
            for row in rows
        ),
    )  # fmt: skip
