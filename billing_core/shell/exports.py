"""export …: CSV of everything that the filters show. `export all` is in archives.py."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import Invalid
from ..i18n import N_
from . import audits, reading
from .help import Shell
from .output import SinceOption, UntilOption, ZoneOption, db, hint, language, zone
from .reading import DaysOption, Granularity, GranularityOption, ModelOption, SearchOption, TypesOption


class SplitBy(StrEnum):
    model = "model"
    account = "account"
    both = "both"


export = Shell(name="export", help="CSV for spreadsheets, of all that the filters show; or everything as one archive.")

AccountOption = Annotated[
    str | None, typer.Option("--account", metavar="USER_ID", help="Only this account.", show_default=False)
]
FileOption = Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="Where to; - for standard output.")]


def write(blocks: Iterable[bytes], file: str) -> None:
    """Into a file, which is there as a whole or not at all, or into a pipe or device. Raises Invalid."""
    if file == "-":
        for block in blocks:
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return
    target = Path(os.path.realpath(file))  # a link goes on leading to it
    part = Path(f"{target}.{os.getpid()}.part")
    try:
        if Path(file).exists() and not Path(file).is_file():  # a pipe or a device stays one
            with Path(file).open("wb") as out:
                out.writelines(blocks)
        else:
            with part.open("wb") as out:
                out.writelines(blocks)
            part.replace(target)
    except OSError as error:
        raise Invalid(
            N_("The file {file} can't be written: {reason}."), field="file", file=file, reason=error.strerror or error
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()
    hint(N_("Wrote {file}."), file=file)


@export.command("logs")
def logs(
    account: AccountOption = None, types: TypesOption = None, model: ModelOption = "", since: SinceOption = None,
    until: UntilOption = None, search: SearchOption = "", timezone: ZoneOption = None, output: FileOption = "-",
) -> None:  # fmt: skip
    """The ledger's entries, newest first."""
    from .. import export
    from ..actors import SHELL

    tz = zone(timezone)
    wanted = reading.filters(account, tz, types=types, model=model, since=since, until=until, search=search)
    write(export.logs(db(), wanted, tz, actor=SHELL), output)


@export.command("recharges")
def recharges(
    account: AccountOption = None, since: SinceOption = None, until: UntilOption = None, search: SearchOption = "",
    timezone: ZoneOption = None, output: FileOption = "-",
) -> None:  # fmt: skip
    """The recharge log, newest first."""
    from .. import export, logs
    from ..actors import SHELL

    tz = zone(timezone)
    wanted = logs.recharges(reading.filters(account, tz, since=since, until=until, search=search))
    write(export.recharges(logs.every(db(), wanted, actor=SHELL), tz), output)


@export.command("stats")
def stats(
    account: AccountOption = None, days: DaysOption = 7, granularity: GranularityOption = Granularity.day,
    by: Annotated[SplitBy, typer.Option(help="What to divide it by.")] = SplitBy.model, timezone: ZoneOption = None, output: FileOption = "-",
) -> None:  # fmt: skip
    """What was used, a row a period and model, or account, or both."""
    from .. import export
    from ..actors import SHELL

    periods = reading.last_periods(days, granularity, timezone)
    write(export.stats(db(), periods, by.value, actor=SHELL, user_id=account), output)


@export.command("prices")
def prices(timezone: ZoneOption = None, output: FileOption = "-") -> None:
    """What counts now for every model that was charged or priced."""
    from .. import export, pricing

    write(export.prices(db().read(pricing.current), zone(timezone)), output)


@export.command("price-history")
def price_history(model: ModelOption = "", timezone: ZoneOption = None, output: FileOption = "-") -> None:
    """Every price that was set, by model, newest first."""
    from .. import export, pricing
    from ..actors import SHELL

    write(export.price_history(db().read(pricing.history, model), zone(timezone), actor=SHELL), output)


@export.command("accounts")
def accounts(
    search: Annotated[str, typer.Option(help="Part of an id, a name or an email.", show_default=False)] = "",
    timezone: ZoneOption = None,
    output: FileOption = "-",
) -> None:
    """The accounts, with what they spent in the last 30 days."""
    from .. import export
    from ..actors import SHELL

    tz = zone(timezone)
    write(export.accounts(db().read(export.accounts_and_spending, actor=SHELL, tz=tz, search=search), tz), output)  # type: ignore[arg-type]


@export.command("audit")
def audit(
    kind: audits.KindOption = "",
    search: audits.SearchOption = "",
    timezone: ZoneOption = None,
    output: FileOption = "-",
) -> None:
    """Who changed what that is no entry, newest first."""
    from .. import audit, export
    from ..actors import SHELL

    tz = zone(timezone)
    write(export.audit(audit.every(db(), actor=SHELL, kind=kind, search=search), tz, language()), output)
