"""Reversing many entries: what it would do, the job, and how far it is."""

import logging
import re
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response

from billing_core import logs, undoing
from billing_core.actors import Actor
from billing_core.database import Database, Transaction
from billing_core.errors import Invalid, NotFound
from billing_core.i18n import N_
from billing_core.undoing import Seen, Selection

from . import schemas
from .auth import Admin, AdminReader, Db
from .bodies import Body, parse
from .errors import Route, language
from .exact_json import ExactJSONResponse, loads
from .openapi import READING_ONE, WRITING, takes
from .queries import moment, searched
from .routes import Key, once_of

router = APIRouter(prefix="/reversals", route_class=Route)

JobId = Annotated[str, Path(description="The job's id.")]


def _number(text: str | int, sentence: str, name: str) -> int:
    """An id's number. Raises NotFound for what can't be one."""
    if not re.fullmatch("[0-9]{1,18}", str(text)):
        raise NotFound(sentence, **{name: str(text)[:40]})
    return int(text)


def entry_number(text: str | int) -> int:
    return _number(text, N_("There is no entry {entry_id}."), "entry_id")


def job_number(text: str | int) -> int:
    return _number(text, N_("There is no job {job_id} of reversals."), "job_id")


def selected(wanted: schemas.SelectionRequest) -> Selection | None:
    """What a request selects; None for what a job has done. Raises Invalid where it doesn't say, or says it twice."""
    start = None if wanted.start is None else moment(wanted.start, "start")
    end = None if wanted.end is None else moment(wanted.end, "end")
    filters = logs.Filters(wanted.user_id, start, end, wanted.model, tuple(wanted.types), searched(wanted.search))
    if [not logs.shows_all(filters), wanted.ids is not None, wanted.job_id is not None].count(True) != 1:
        raise Invalid(N_("Say which entries: by filters, or ids, or job_id."), field="ids")
    if wanted.ids is not None:
        return [entry_number(one) for one in wanted.ids]
    return filters if wanted.job_id is None else None


def _selection(tx: Transaction, wanted: schemas.SelectionRequest, actor: Actor) -> Selection:
    found = selected(wanted)
    return found if found is not None else undoing.reversals_of(tx, job_number(wanted.job_id or ""), actor=actor)


@router.post(
    "/preview",
    response_model=schemas.ReversalsPreview,
    responses=WRITING,
    openapi_extra=takes(schemas.SelectionRequest),
)
def preview_reversals(actor: Admin, db: Db, body: Body) -> Response:
    """What reversing a selection would do. Nothing is written."""
    wanted = parse(schemas.SelectionRequest, loads(body))
    found = db.read(lambda tx: undoing.preview(tx, _selection(tx, wanted, actor), actor=actor))
    return ExactJSONResponse(
        schemas.ReversalsPreview(
            last_id=str(found.seen.last_id),
            entries=found.seen.entries,
            to_reverse=found.seen.to_reverse,
            amount=found.seen.amount,
            types=found.types,
            left_alone=found.left_alone,
            accounts=[
                schemas.OnAccount(
                    user_id=one.user_id, name=one.name, entries=one.entries, before=one.before, after=one.after
                )
                for one in found.accounts
            ],
        )
    )


def told(db: Database, job_id: int, actor: Actor, request: Request) -> Response:
    def read(tx: Transaction) -> tuple[undoing.Job, list[undoing.Refusal]]:
        return undoing.status(tx, job_id, actor=actor), undoing.refusals(tx, job_id, actor=actor)

    job, refusals = db.read(read)
    return ExactJSONResponse(
        schemas.ReversalJob(
            id=str(job.id),
            operator_id=job.operator_id,
            reason=job.reason,
            created_at=job.created_at_ns,
            finished_at=job.finished_at_ns,
            entries=job.entries,
            reversed=job.reversed,
            refused=job.refused,
            left=job.left,
            reprices=job.reprices,
            refusals=[
                schemas.ReversalRefused(id=str(one.entry_id), detail=one.error.sentence(language(request)))
                for one in refusals
            ],
        )
    )


@router.post(
    "", response_model=schemas.ReversalJob, responses=WRITING, openapi_extra=takes(schemas.ReversalsRequest)
)  # fmt: skip
def start_reversals(actor: Admin, db: Db, request: Request, body: Body, key: Key = None) -> Response:
    """Make a job of a selection that was previewed. `POST /reversals/{job_id}/run` runs it."""
    content = loads(body)
    wanted = parse(schemas.ReversalsRequest, content)
    seen = Seen(entry_number(wanted.last_id), wanted.entries, wanted.to_reverse, wanted.amount)
    once = once_of(actor, key, "reversals", content)

    def write(tx: Transaction) -> int:
        return undoing.start(tx, _selection(tx, wanted, actor), wanted.reason, actor=actor, seen=seen, once=once)

    return told(db, db.write(write), actor, request)


@router.get("/{job_id}", response_model=schemas.ReversalJob, responses=READING_ONE)
def reversals(actor: AdminReader, db: Db, request: Request, job_id: JobId) -> Response:
    """A job, and how far it is."""
    return told(db, job_number(job_id), actor, request)


@router.post("/{job_id}/run", response_model=schemas.ReversalJob, responses=WRITING)
def run_reversals(actor: Admin, db: Db, request: Request, job_id: JobId, later: BackgroundTasks) -> Response:
    """Run a job, or go on with it, after this answer: `GET` of the job says how far it is. Asked twice, each entry is
    reversed (and charged again) once all the same."""
    number = job_number(job_id)
    answer = told(db, number, actor, request)
    later.add_task(_run, db, number, actor)
    return answer


def _run(db: Database, job_id: int, actor: Actor) -> None:
    try:
        undoing.run(db, job_id, actor=actor)
    except Exception:
        logging.getLogger("billing").exception("job %s of reversals stopped", job_id)
