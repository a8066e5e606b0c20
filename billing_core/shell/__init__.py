"""The commands of `python -m billing_core`.

Commands are thin: they read their arguments, call billing_core, and print. A BillingError is one sentence on standard
error and exit code 1; wrong usage is Typer's and exit code 2. What takes long to import is imported inside of the
commands, so that `--help` and a mistyped option answer at once.
"""

import errno
import gc
import os
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from ..errors import BillingError
from ..i18n import N_, translate
from . import archives, audits, exports, people, prices, reading, repricing, spending, statements, undoing, upkeep
from .help import Group, Shell, refuse
from .output import Language, language, spoken

ACCOUNTS, MONEY, PRICES, CARE = "Accounts and keys", "Money", "Prices and settings", "The database"


class Root(Group):
    def main(self, **more: Any) -> Any:  # type: ignore[override]
        spoken.set(None)
        try:
            code = super().main(**more | {"standalone_mode": False})
        except TyperException as error:
            refuse(error)
        except typer.Abort:
            code = 1
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a reader that has gone away is noticed here, and not when Python ends
            return result
        except BillingError as error:
            typer.echo(error.sentence(language()), err=True)
        except OSError as error:
            if error.filename is not None or error.errno == errno.EPIPE:
                raise
            _unsaid(error)
            raise typer.Exit(3) from None
        except Exception as error:
            if not type(error).__module__.startswith("sqlalchemy."):
                raise
            said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            typer.echo(translate(N_("The database could not do this: {said}"), language(), said=said), err=True)
        raise typer.Exit(1)


def _unsaid(error: OSError) -> None:
    """Standard output can't be written to, and what the command did may have been done."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still to be written when Python ends
    said = N_("The answer can't be written: {reason}. What was asked may have been done: look before you ask again.")
    with suppress(OSError):
        typer.echo(translate(said, language(), reason=error.strerror or error), err=True)


app = Shell(
    name="billing_core",
    cls=Root,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _speak(lang: Language | None) -> None:
    """As soon as it is read: what comes after it may be --help, or wrong."""
    if lang:
        spoken.set(lang.value)


@app.callback(
    epilog="Exit codes: 0 done, 1 refused (one sentence on standard error says why), 2 wrong usage, 3 the answer can't be written. "
    "BILLING_DATABASE_URL names the database; without it, it is data/billing.db."
)
def root(
    lang: Annotated[
        Language | None,
        typer.Option(
            "--lang",
            help="The language of help, tables and sentences; else that of LANG.",
            show_default=False,
            is_eager=True,
            callback=_speak,
        ),
    ] = None,
) -> None:
    """Prepaid balances for model calls: accounts, recharges, prices, and where the money went.

    Amounts are in 元 (yuan). Every command explains itself with --help; what lists something has --json.

    [bold]A first bill:[/bold]

      python -m billing_core account add boss --name Boss --admin
      python -m billing_core account add ann --name Ann
      python -m billing_core recharge ann 100 --remark 首充
      python -m billing_core charge ann openai/gpt-4o --prompt-tokens 1000 --completion-tokens 200
      python -m billing_core logs ann

    [bold]A program that charges calls needs a key:[/bold]

      python -m billing_core account add meter --name Meter
      python -m billing_core key add --account meter --can charge

    [bold]Just looking around? Fill another, empty database with a made-up year:[/bold]

      BILLING_DATABASE_URL=sqlite:///demo.db python -m billing_core demo
    """


app.add_typer(people.account, rich_help_panel=ACCOUNTS)
app.add_typer(people.key, rich_help_panel=ACCOUNTS)
app.command("setup-link", rich_help_panel=ACCOUNTS)(upkeep.setup_link)
app.command("recharge", cls=spending.WithAmounts, rich_help_panel=MONEY)(spending.recharge)
app.command("balance", rich_help_panel=MONEY)(spending.balance)
app.command("charge", rich_help_panel=MONEY)(spending.charge)
app.command("reverse", rich_help_panel=MONEY)(spending.reverse)
app.command("reverse-many", rich_help_panel=MONEY)(undoing.reverse_many)
app.command("reprice", rich_help_panel=MONEY)(repricing.reprice)
app.command("reversals", rich_help_panel=MONEY)(undoing.reversals)
app.command("logs", rich_help_panel=MONEY)(reading.logs)
app.command("stats", rich_help_panel=MONEY)(reading.stats)
exports.export.command("all")(archives.export_all)
app.add_typer(exports.export, rich_help_panel=MONEY)
app.command("statement", rich_help_panel=MONEY)(statements.statement)
app.add_typer(prices.price, rich_help_panel=PRICES)
app.add_typer(prices.rule, rich_help_panel=PRICES)
app.add_typer(prices.setting, rich_help_panel=PRICES)
app.command("demo", rich_help_panel=CARE)(upkeep.demo)
app.command("audit", rich_help_panel=CARE)(audits.audit)
app.command("check", rich_help_panel=CARE)(upkeep.check)
app.command("seal", rich_help_panel=CARE)(upkeep.seal)
app.command("backup", rich_help_panel=CARE)(upkeep.backup)
app.command("restore", rich_help_panel=CARE)(upkeep.restore)
app.command("import", rich_help_panel=CARE)(archives.import_all)
app.command("migrate", rich_help_panel=CARE)(upkeep.migrate)


def main() -> None:
    gc.set_threshold(100_000)  # importing makes many objects and no rubbish: a seventh of a command's time
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called, who wants to hear nothing
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names are Chinese too, whatever the terminal was set up for
            stream.reconfigure(errors="backslashreplace", **({} if stream.isatty() else {"encoding": "utf-8"}))
    app(prog_name="python -m billing_core")
