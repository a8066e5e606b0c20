"""The shell's help and its wrong-usage sentences, in the reader's language.

Help stays English in the code, as docstrings and `help=`, where Typer looks for it; `shown_texts` names all of it, for
the catalogue and for the moment before it is shown.
"""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from ..i18n import N_, translate
from .output import language

TYPERS_WORDS = {
    "ARGUMENTS_PANEL_TITLE": N_("Arguments"),
    "OPTIONS_PANEL_TITLE": N_("Options"),
    "COMMANDS_PANEL_TITLE": N_("Commands"),
    "DEFAULT_STRING": N_("[default: {}]"),
    "REQUIRED_LONG_STRING": N_("[required]"),
}
"""What typer.rich_utils calls its own words."""
USAGE_WORDS = {"options_metavar": N_("[OPTIONS]"), "subcommand_metavar": N_("COMMAND …")}
WRONG_USAGE = {
    r"Missing (?:argument|option) (?P<name>'.*?')\..*": N_("{name} is missing: the command needs it."),
    r"Missing command\.": N_("A command is missing: --help lists them."),
    r"No such command '(?P<name>.*?)'\. ?Did you mean (?P<near>.*)\?": N_(
        "There is no command “{name}”. Did you mean {near}?"
    ),
    r"No such command '(?P<name>.*?)'\.": N_("There is no command “{name}”. --help lists them."),
    r"No such option: (?P<name>.*?) \(Possible options: (?P<near>.*)\)": N_(
        "There is no option {name}. Did you mean {near}?"
    ),
    r"No such option: (?P<name>.*)": N_("There is no option {name}. --help lists them."),
    r"Option '(?P<name>.*)' requires an argument\.": N_("After {name} its value is missing."),
    r"Option '(?P<name>.*)' does not take a value\.": N_("{name} takes no value."),
    r"Got unexpected extra argument\(s\) \((?P<more>.*)\)": N_(
        "“{more}” is more than the command takes. Text with spaces stands in quotes."
    ),
    r"Invalid value for (?P<name>'.*?'): Input should be a valid integer.*": N_("{name} takes a whole number."),
    r"Invalid value for (?P<name>'.*?'): Value error, (?P<value>'.*') is not one of (?P<choices>.*)\.": N_(
        "{name} can't be “{value}”. It is one of {choices}."
    ),
}
"""Typer's sentences, which it gives no hook to translate, and ours for them. What is in neither stays as Typer says it."""


MARK = "\0"
"""Before an argument that begins like an option and is none: no program is given one that holds it."""


def say(text: str) -> str:
    return translate(text, language())


def shown_texts(command: Any, change: Callable[[str], str]) -> None:
    """Put each text that the help of a command shows through `change`."""

    def put(thing: Any, *names: str) -> None:
        for name in names:
            if text := getattr(thing, name, None):
                setattr(thing, name, change(text))

    for each in (command, *getattr(command, "commands", {}).values()):
        put(each, "help", "epilog", "rich_help_panel")
    for param in command.params:
        put(param, "help")
        if param.metavar and param.metavar.isupper():  # a word, and not something to type like member|admin
            put(param, "metavar")


def messages() -> Iterator[str]:
    """What all commands' help shows, for the catalogue."""
    from typer.main import get_command

    from . import app

    found: list[str] = []

    def collect(text: str) -> str:
        found.append(text)
        return text

    def walk(command: Any) -> None:
        shown_texts(command, collect)
        for each in getattr(command, "commands", {}).values():
            walk(each)

    walk(get_command(app))
    yield from dict.fromkeys(found)


class _Translated:
    """Help in the reader's language."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        from typer import rich_utils

        class Folding(rich_utils.OptionHighlighter):
            """Chinese has no spaces to break a line at, and a cell would cut it."""

            def highlight(self, text: Any) -> None:
                super().highlight(text)
                text.overflow = "fold"

        rich_utils.highlighter = Folding()
        for param in self.get_params(ctx):
            _tell_type(param, ctx)
        shown_texts(self, say)
        self.get_help_option(ctx).help = say(N_("Show this message and exit."))
        for thing, words in ((rich_utils, TYPERS_WORDS), (self, USAGE_WORDS)):
            for name, word in words.items():
                setattr(thing, name, say(word))
        super().format_help(ctx, formatter)  # type: ignore[misc]

    def format_usage(self: Any, ctx: Any, formatter: Any) -> None:
        pieces = " ".join(self.collect_usage_pieces(ctx)).replace("{", "").replace("}", "")
        formatter.write_usage(ctx.command_path, pieces, prefix=say(N_("Usage: ")))


def _tell_type(param: Any, ctx: Any) -> None:
    """Words in place of Python's types: an argument's name says enough, a switch takes nothing."""
    if param.param_type_name == "argument":
        param.display_type_rich = lambda ctx: None
    elif param.metavar is None and param.type_descriptor.is_choice:
        param.metavar = param.display_type(ctx).strip("<>")
    elif param.metavar is None:
        param.metavar = {"str": N_("TEXT"), "int": N_("NUMBER")}.get(param.bare_type(), "")


class Command(_Translated, TyperCommand):
    pass


class Group(_Translated, TyperGroup):
    pass


class Shell(typer.Typer):
    """Typer, with commands whose help is in the reader's language."""

    def __init__(self, *, cls: type[TyperGroup] = Group, **more: Any):
        super().__init__(cls=cls, no_args_is_help=True, **more)

    def command(self, name: str | None = None, *, cls: type[TyperCommand] | None = Command, **more: Any) -> Any:
        return super().command(name, cls=cls, **more)


def refuse(error: TyperException) -> NoReturn:
    """Say in one sentence how a command was misused, and where to look."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ != "NoArgsIsHelpError":  # which has shown the help
        typer.echo(_sentence(error), err=True)
        if context is not None:
            typer.echo(
                translate(N_("How to use it: {command} --help"), language(), command=context.command_path), err=True
            )
    sys.exit(error.exit_code)


def _sentence(error: TyperException) -> str:
    if isinstance(error, typer.BadParameter) and error.param is None:  # a command's own
        return say(error.message)
    said = error.format_message().replace(MARK, "").replace(ascii(MARK)[1:-1], "")  # it quotes some as Python does
    for pattern, sentence in WRONG_USAGE.items():
        if match := re.fullmatch(pattern, said, re.DOTALL):
            # Typer quotes names as Python does; a metavar is called what the help calls it.
            parts = {name: say(text.replace("'", "")) for name, text in match.groupdict().items()}
            return translate(sentence, language(), **parts)
    return said
