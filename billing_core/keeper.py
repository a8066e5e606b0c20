"""What the app does by itself, beside everything else: it seals what is due and notes what that holds, writes down holds that
have expired, and makes the backups that the settings ask for. A thread of its own in each server; several servers share the work.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from . import files, keeping, ledger, seals, settings, signin, stretches
from .database import Database, Transaction
from .errors import BillingError
from .i18n import N_
from .keeping import Backup
from .models import Setting
from .place import DEFAULT_FILE

log = logging.getLogger("billing")

EVERY_SECONDS = 60
HOUR_NS = 3600 * 10**9
_CLAIM = "_backup_claim"
"""When a server began a backup: the others leave it to that one for an hour."""


def start(open_db: Callable[[], Database]) -> threading.Event:
    """Begin; setting the event that it gives ends it."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            try:
                tick(open_db())
            except Exception:  # whatever it is, the next round may do better
                log.exception("what the app does by itself failed")
            ended.wait(EVERY_SECONDS)

    threading.Thread(target=run, name="keeper", daemon=True).start()
    return ended


def tick(db: Database) -> None:
    """One round. What fails is logged, and tried again in the next one."""
    for task in (seals.close, stretches.fill, ledger.note_expired, signin.forget_old_tries, back_up_if_due):
        try:
            task(db)
        except (BillingError, OSError) as error:
            log.error("%s", error)
        except Exception:  # of a row that somebody has tampered with, say: the other tasks go on, a backup above all
            log.exception("what the app does by itself failed: %s", task.__name__)


def back_up_if_due(db: Database) -> Backup | None:
    """Make the backup that the settings ask for, and delete those beyond the number to keep. A failure is remembered,
    for the page Integrity, and tried again after an hour."""
    values = db.read(settings.read)
    hours = int(values["backup_every_hours"])
    if not hours or not db.write(_claim, hours):
        return None
    folder = Path(values["backup_folder"] or (db.file or DEFAULT_FILE).parent / "backups")
    now, of = datetime.fromtimestamp(db.clock() // 10**9, UTC), _of(db)
    file, ours = (
        folder / f"billing-{now:%Y%m%dT%H%M%SZ}-{of}.backup",
        re.compile(rf"billing-\d{{8}}T\d{{6}}Z-{of}\.backup"),
    )
    try:
        with files.file_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            files.clean(folder, ours.pattern)
            done = keeping.backup(db, file)
            _delete_old(folder, ours, int(values["backup_keep"]), file.name)
    except Exception as error:
        if not isinstance(error, BillingError):
            log.exception("no backup was made")
            error = BillingError(
                N_("No backup was made, for a reason that the app's log names. Run: python -m billing_core check")
            )
        done = Backup(db.clock(), str(file), error=error)
        db.write(keeping.remember, done)
    db.write(_let_go)
    return done


def _claim(tx: Transaction, hours: int) -> bool:
    """Whether a backup is due and nobody else is making it."""
    known = keeping.last_backup(tx)
    wait = HOUR_NS if known and known.error else hours * HOUR_NS
    # Where the clock was set back, what happened in its future says nothing.
    if known and 0 <= tx.now_ns - known.at_ns < wait:
        return False
    claim = tx.session.get(Setting, _CLAIM, with_for_update=True)
    if claim and 0 <= tx.now_ns - int(claim.value) < HOUR_NS:
        return False
    if claim is None:
        tx.session.add(Setting(name=_CLAIM, value=str(tx.now_ns)))  # of two at once one is refused, and looks again
    else:
        claim.value = str(tx.now_ns)
        tx.session.add(claim)
    tx.session.flush()
    return True


def _let_go(tx: Transaction) -> None:
    claim = tx.session.get_one(Setting, _CLAIM)
    claim.value = "0"  # the app's role on Postgres may delete nothing
    tx.session.add(claim)


def _of(db: Database) -> str:
    """What tells the backups of this database from another one's in the same folder, a restored copy's above all: where it is."""
    url = db.engine.url
    place = str(db.file.absolute()) if db.file else f"{url.host}:{url.port}/{url.database}"
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _delete_old(folder: Path, ours: re.Pattern[str], keep: int, newest: str) -> None:
    """Only files that carry a name of ours: first those of a clock that was ahead of the newest's, then the oldest."""
    found = [file for file in folder.iterdir() if ours.fullmatch(file.name)]
    for file in sorted(found, key=lambda file: (file.name <= newest, file.name))[:-keep]:
        file.unlink()
