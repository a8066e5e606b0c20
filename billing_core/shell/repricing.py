"""reprice."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..i18n import N_, ntranslate, translate
from ..money import format_yuan
from . import reading, undoing
from .output import JsonOption, ZoneOption, db, hint, language, word, zone
from .reading import ModelOption, SearchOption, TypesOption
from .undoing import FEW, FileOption, FromOption, ReasonOption, ResumeOption, ToOption, UserOption, YesOption

if TYPE_CHECKING:
    from ..repricing import Preview, Selection


def reprice(
    reason: ReasonOption = "",
    file: FileOption = None,
    user_id: UserOption = None,
    model: ModelOption = "",
    types: TypesOption = None,
    since: FromOption = None,
    until: ToOption = None,
    search: SearchOption = "",
    job: Annotated[
        int | None,
        typer.Option(
            metavar="JOB", help="What this job has repriced, back to the prices before it.", show_default=False
        ),
    ] = None,
    resume: ResumeOption = None,
    yes: YesOption = False,
    timezone: ZoneOption = None,
    as_json: JsonOption = False,
) -> None:
    """Charge calls again at the price that counts now: those that the filters show, or a list of numbers. Shows first what
    it will do."""
    from .. import repricing
    from ..actors import SHELL

    database = db()
    filters = reading.filters(
        user_id, zone(timezone), types=types, model=model, since=since, until=until, search=search
    )
    undoing.must_say_which(filters, file, job, resume, reason)
    if resume is None:
        selection: Selection = filters
        if file is not None:
            selection = undoing.numbers(file)
        elif job is not None:
            selection = repricing.Back(job)
        seen = database.read(repricing.preview, selection, actor=SHELL)
        _show(seen)
        asking = seen.seen.to_reprice and not yes
        if asking and not typer.confirm(translate(N_("Reprice them?"), language()), err=True):
            raise typer.Exit(1)
        resume = database.write(repricing.start, selection, reason, actor=SHELL, seen=seen.seen)
        hint(N_("Job {id} begins. If it is cut short, go on with: reprice --resume {id}"), id=resume)
    undoing.run(resume, as_json)


def _show(seen: "Preview") -> None:
    """What a job would do, on standard error: what it has done is for standard output."""
    from .. import repricing

    hint(
        N_("To be repriced: {n} of {all} selected entries, {old} → {new} 元, {amount} 元 in all."),
        n=f"{seen.seen.to_reprice:,}", all=f"{seen.seen.entries:,}", old=format_yuan(seen.old), new=format_yuan(seen.new),
        amount=format_yuan(seen.seen.amount, sign=True),
    )  # fmt: skip
    for why, n in seen.left_alone.items():
        hint(N_("Left as they are: {n} × {why}"), n=f"{n:,}", why=word(repricing.WHY_NOT, why))
    for one in seen.models[:FEW]:
        line = ntranslate(
            "{model}: {change} 元 per million tokens; {old} → {new} 元 ({n} entry)",
            "{model}: {change} 元 per million tokens; {old} → {new} 元 ({n} entries)", one.entries,
            language(), model=one.model, n=f"{one.entries:,}", change=one.sentence(language()), old=format_yuan(one.old), new=format_yuan(one.new),
        )  # fmt: skip
        typer.echo(line, err=True)
    if len(seen.models) > FEW:
        hint(N_("… and {n} more models and prices"), n=len(seen.models) - FEW)
    undoing.show_accounts(seen.accounts, seen.into_debt)
