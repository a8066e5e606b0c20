"""reverse-many, reversals."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Invalid
from ..glossary import TYPES
from ..i18n import N_, ntranslate, translate
from ..money import format_yuan
from . import reading
from .output import (
    Column,
    JsonOption,
    ZoneOption,
    db,
    hint,
    iso,
    language,
    print_json,
    progress_bar,
    read_text,
    say,
    say_number,
    shown,
    table,
    word,
    zone,
)  # fmt: skip
from .reading import ModelOption, SearchOption, TypesOption

if TYPE_CHECKING:
    from ..logs import Filters
    from ..repricing import OnAccount as OnAccountRepriced
    from ..undoing import Job, OnAccount, Preview, Selection

DOES = {False: N_("Reverses"), True: N_("Reprices")}
"""A job."""
FEW = 10
"""How many lines are shown of what may be long."""


ReasonOption = Annotated[str, typer.Option(help="Stands beside each reversal.", show_default=False)]
FileOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The entries' numbers, in a file, or - for standard input.", show_default=False),
]
UserOption = Annotated[
    str | None, typer.Option("--account", "--user", metavar="USER_ID", help="Only this account.", show_default=False)
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        "--from",
        metavar="TIME",
        help="From this day or moment on: 2025-06-30 or 2025-06-30T08:00.",
        show_default=False,
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--until", "--to", metavar="TIME", help="Up to the end of this day, or up to this moment.", show_default=False
    ),
]
ResumeOption = Annotated[
    int | None, typer.Option(metavar="JOB", help="Go on with this job, which was cut short.", show_default=False)
]
YesOption = Annotated[bool, typer.Option("--yes", help="Don't ask.")]


def reverse_many(
    reason: ReasonOption = "",
    file: FileOption = None,
    user_id: UserOption = None,
    model: ModelOption = "",
    types: TypesOption = None,
    since: FromOption = None,
    until: ToOption = None,
    search: SearchOption = "",
    job: Annotated[
        int | None, typer.Option(metavar="JOB", help="What this job has reversed, which undoes the job.", show_default=False)
    ] = None,
    resume: ResumeOption = None,
    yes: YesOption = False,
    timezone: ZoneOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Undo many entries for one reason: those that the filters show, or a list of numbers. Shows first what it will do."""
    from .. import undoing
    from ..actors import SHELL

    database = db()
    filters = reading.filters(
        user_id, zone(timezone), types=types, model=model, since=since, until=until, search=search
    )
    must_say_which(filters, file, job, resume, reason)
    if resume is None:
        selection: Selection = filters
        if file is not None:
            selection = numbers(file)
        elif job is not None:
            selection = database.read(undoing.reversals_of, job, actor=SHELL)
        seen = database.read(undoing.preview, selection, actor=SHELL)
        _show(seen)
        if not yes and not typer.confirm(translate(N_("Reverse them?"), language()), err=True):
            raise typer.Exit(1)
        resume = database.write(undoing.start, selection, reason, actor=SHELL, seen=seen.seen)
        hint(N_("Job {id} begins. If it is cut short, go on with: reverse-many --resume {id}"), id=resume)
    run(resume, as_json)


def run(job_id: int, as_json: bool) -> None:
    """Run a job, and say what it has done."""
    from .. import undoing
    from ..actors import SHELL

    reprices = db().read(undoing.status, job_id, actor=SHELL).reprices
    with progress_bar(N_("Repricing") if reprices else N_("Reversing")) as progress:
        done = undoing.run(db(), job_id, actor=SHELL, progress=progress)
    if as_json:
        return print_json(_as_json(done))
    if reprices:
        say_number("Repriced {n} entry (job {id}).", "Repriced {n} entries (job {id}).", done.reversed, id=done.id)
    else:
        say_number("Reversed {n} entry (job {id}).", "Reversed {n} entries (job {id}).", done.reversed, id=done.id)
    if done.refused:
        hint(N_("Left as they are: {n}. See why with: reversals {id}"), n=f"{done.refused:,}", id=done.id)


def must_say_which(filters: "Filters", file: str | None, job: int | None, resume: int | None, reason: str) -> None:
    """Raises BadParameter."""
    from ..logs import shows_all

    if [not shows_all(filters), file is not None, job is not None, resume is not None].count(True) != 1:
        raise typer.BadParameter(N_("Say which entries: by filters, or --file, or --job, or go on with --resume."))
    if resume is None and not reason.strip():
        raise typer.BadParameter(N_("Say why, with --reason: it stands beside each reversal."))


def numbers(file: str) -> list[int]:
    """The numbers in a file, with white space or commas between them. Raises Invalid."""
    words = re.split(r"[\s,]+", read_text(file).strip())
    for text in words:
        if not re.fullmatch("[0-9]{1,18}", text):
            raise Invalid(
                N_("“{text}” in {file} is not the number of an entry. Write one number a line."),
                field="file", text=text[:40], file=file,
            )  # fmt: skip
    return [int(text) for text in words]


def _show(seen: "Preview") -> None:
    """What a job would do, on standard error: what it has done is for standard output."""
    from .. import undoing

    types = ", ".join(f"{n:,} × {word(TYPES, type)}" for type, n in seen.types.items())
    hint(
        N_("To be reversed: {n} of {all} selected entries ({types}), {amount} 元 in all."), n=f"{seen.seen.to_reverse:,}",
        all=f"{seen.seen.entries:,}", types=types or "–", amount=format_yuan(seen.seen.amount, sign=True),
    )  # fmt: skip
    for why, n in seen.left_alone.items():
        hint(N_("Left as they are: {n} × {why}"), n=f"{n:,}", why=word(undoing.WHY_NOT, why))
    show_accounts(seen.accounts, seen.into_debt)


def show_accounts(
    accounts: "Sequence[OnAccount | OnAccountRepriced]", into_debt: "Sequence[OnAccount | OnAccountRepriced]"
) -> None:
    """What a job does to balances, from → to, and who would be in debt."""
    for one in accounts[:FEW]:
        line = ntranslate(
            "{user_id}: {before} → {after} 元 ({n} entry)", "{user_id}: {before} → {after} 元 ({n} entries)", one.entries,
            language(), user_id=one.user_id, n=f"{one.entries:,}", before=format_yuan(one.before), after=format_yuan(one.after),
        )  # fmt: skip
        typer.echo(line, err=True)
    if len(accounts) > FEW:
        hint(N_("… and {n} more accounts"), n=len(accounts) - FEW)
    if into_debt:
        names = ", ".join(one.user_id for one in into_debt[:FEW]) + ("…" if len(into_debt) > FEW else "")
        hint(N_("Into debt: {names}. Nothing more can be charged there until a recharge covers it."), names=names)


def _as_json(job: "Job") -> dict[str, Any]:
    from datetime import UTC

    return {
        "id": job.id, "operator_id": job.operator_id, "reason": job.reason, "created_at": iso(job.created_at_ns, UTC),
        "finished_at": iso(job.finished_at_ns, UTC), "entries": job.entries, "reversed": job.reversed,
        "refused": job.refused, "left": job.left, "reprices": job.reprices,
    }  # fmt: skip


def reversals(
    job_id: Annotated[
        int | None,
        typer.Argument(metavar="JOB", help="Only this one, and what it left as it is.", show_default=False),
    ] = None,
    timezone: ZoneOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the jobs of reverse-many and reprice, newest first."""
    from .. import undoing
    from ..actors import SHELL

    tz, database = zone(timezone), db()
    if job_id is None:
        found = database.read(undoing.jobs, actor=SHELL)
    else:
        found = [database.read(undoing.status, job_id, actor=SHELL)]
    refused = [] if job_id is None else database.read(undoing.refusals, job_id, actor=SHELL, limit=1000)
    if as_json:
        why = [{"entry_id": one.entry_id, "message": one.error.sentence(language())} for one in refused]
        return print_json(
            [_as_json(one) for one in found] if job_id is None else {**_as_json(found[0]), "refusals": why}
        )
    if not found:
        return hint(N_("Nothing was ever reversed with reverse-many, or repriced."))
    table(
        [
            Column(N_("Job"), right=True), Column(N_("Does")), Column(N_("Time")), Column(N_("By"), long=True), Column(N_("Reason"), long=True),
            Column(N_("Entries"), right=True), Column(N_("Done"), right=True), Column(N_("Left as they are"), right=True),
            Column(N_("To do"), right=True),
        ],
        (
            [
                one.id, translate(DOES[one.reprices], language()), shown(one.created_at_ns, tz), one.operator_id, one.reason, f"{one.entries:,}",
                f"{one.reversed:,}", f"{one.refused:,}", f"{one.left:,}",
            ]
            for one in found
        ),
    )  # fmt: skip
    for each in refused:
        say("{sentence}", sentence=each.error.sentence(language()))
