"""An account's balance, read straight from SQLite's file: to import SQLAlchemy and the tables takes a command several times
as long as all else that it does.

Nothing is opened here that isn't as it should be: then the database is opened as usual, with its checks and its sentences.
"""

import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from .money import Hao
from .place import REVISION, database_url

_BALANCE = """
SELECT a.balance, a.total_consumed, a.status, (SELECT coalesce(sum(held), 0) FROM hold WHERE account_id = a.id AND ended_by IS NULL)
FROM account a WHERE a.user_id = ?
AND (SELECT count(*) FROM account WHERE hold_expires_at_ns <= ?) = 0 AND (SELECT version_num FROM alembic_version) = ?
"""


@dataclass(frozen=True, slots=True)
class Glance:
    """As ledger.balance, ledger.held and the account say."""

    balance: Hao
    held: Hao
    total_consumed: Hao
    status: str


def balance(user_id: str) -> Glance | None:
    """None where the database is no SQLite file of today's revision, where a hold is due to be given back, or where there
    is no such account."""
    url = database_url()
    if not url.startswith("sqlite:///") or "%" in url or "?" in url:  # SQLAlchemy reads more into it
        return None
    file = Path(url.removeprefix("sqlite:///"))
    with suppress(sqlite3.Error, ValueError):
        if file.is_file():
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as connection:
                row = connection.execute(_BALANCE, (user_id, time.time_ns(), REVISION)).fetchone()
                return None if row is None else Glance(row[0], row[3], row[1], row[2])
    return None
