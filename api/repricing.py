"""Charging many entries again at the price that counts now: what it would do, the job, and how far it is."""

from fastapi import APIRouter, BackgroundTasks, Request, Response

from billing_core import pricing, repricing
from billing_core.database import Transaction
from billing_core.rates import Rates
from billing_core.repricing import Back, Seen, Selection

from . import schemas, undoing
from .auth import Admin, AdminReader, Db
from .bodies import Body, parse
from .errors import Route
from .exact_json import ExactJSONResponse, loads
from .openapi import READING_ONE, WRITING, takes
from .routes import Key, once_of
from .undoing import JobId

router = APIRouter(prefix="/repricings", route_class=Route)


def _selection(wanted: schemas.SelectionRequest) -> Selection:
    found = undoing.selected(wanted)
    return found if found is not None else Back(undoing.job_number(wanted.job_id or ""))


def _prices(rates: Rates) -> schemas.FourPrices:
    return schemas.FourPrices.model_validate(pricing.as_yuan(rates))


@router.post(
    "/preview",
    response_model=schemas.RepricingsPreview,
    responses=WRITING,
    openapi_extra=takes(schemas.SelectionRequest),
)
def preview_repricings(actor: Admin, db: Db, body: Body) -> Response:
    """What charging a selection again at the prices that count now would do. Nothing is written."""
    selection = _selection(parse(schemas.SelectionRequest, loads(body)))
    found = db.read(repricing.preview, selection, actor=actor)
    return ExactJSONResponse(
        schemas.RepricingsPreview(
            last_id=str(found.seen.last_id),
            entries=found.seen.entries,
            to_reprice=found.seen.to_reprice,
            amount=found.seen.amount,
            prices=found.seen.prices,
            old=found.old,
            new=found.new,
            left_alone=found.left_alone,
            models=[
                schemas.RepricedModel(
                    model_id=one.model, entries=one.entries, old=one.old, new=one.new,
                    before=_prices(one.before), after=_prices(one.after),
                )
                for one in found.models
            ],
            accounts=[
                schemas.RepricedAccount(
                    user_id=one.user_id, name=one.name, entries=one.entries, old=one.old, new=one.new,
                    before=one.before, after=one.after,
                )
                for one in found.accounts
            ],
        )
    )  # fmt: skip


@router.post(
    "", response_model=schemas.ReversalJob, responses=WRITING, openapi_extra=takes(schemas.RepricingsRequest)
)  # fmt: skip
def start_repricings(actor: Admin, db: Db, request: Request, body: Body, key: Key = None) -> Response:
    """Make a job of a selection that was previewed. `POST /repricings/{job_id}/run` runs it."""
    content = loads(body)
    wanted = parse(schemas.RepricingsRequest, content)
    last_id = undoing.entry_number(wanted.last_id)
    seen = Seen(last_id, wanted.entries, wanted.to_reprice, wanted.amount, wanted.prices)
    once = once_of(actor, key, "repricings", content)

    def write(tx: Transaction) -> int:
        return repricing.start(tx, _selection(wanted), wanted.reason, actor=actor, seen=seen, once=once)

    return undoing.told(db, db.write(write), actor, request)


@router.get("/{job_id}", response_model=schemas.ReversalJob, responses=READING_ONE)
def repricings(actor: AdminReader, db: Db, request: Request, job_id: JobId) -> Response:
    """A job, and how far it is."""
    return undoing.reversals(actor, db, request, job_id)


@router.post("/{job_id}/run", response_model=schemas.ReversalJob, responses=WRITING)
def run_repricings(actor: Admin, db: Db, request: Request, job_id: JobId, later: BackgroundTasks) -> Response:
    """Run a job, or go on with it, after this answer: `GET /repricings/{job_id}` says how far it is. Asked twice, each
    entry is reversed and charged again once all the same."""
    return undoing.run_reversals(actor, db, request, job_id, later)
