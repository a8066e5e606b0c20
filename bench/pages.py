"""What a page's rerun takes the server, and how much of it in the database: each page, over a large ledger.

    python -m bench pages --file ledger.db

`--file`: a ledger that `python -m bench ledger` has made; it gets an admin. A real server, and a websocket for a browser: a
rerun's time is that from its request until all of the page has come, of the page's script alone, and of its transactions; the
95th hundredth of them in turns, with the median in brackets.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from billing_core.database import Database, migrate

from .app import ADMIN, App, Visitor, sign_in

MEMBER = "user1"
"""The account with a fifth of all entries."""
LIMIT_MS = 150
PAGES = {
    "Balance": (MEMBER, "", ""),
    "Logs, own": (MEMBER, "logs", "range=30d"),
    "Logs": (ADMIN, "logs", "range=30d"),
    "Logs, an account's": (ADMIN, "logs", f"range=30d&account={MEMBER}"),
    "Logs, 12 months": (ADMIN, "logs", "range=12m"),
    "Logs, own, 12 months": (MEMBER, "logs", "range=12m"),
    "Logs, an account's, 12 months": (ADMIN, "logs", f"range=12m&account={MEMBER}"),
    "Stats, own": (MEMBER, "stats", "range=12m"),
    "Stats": (ADMIN, "stats", "range=30d"),
    "Stats, 12 months": (ADMIN, "stats", "range=12m"),
    "Stats, 12 months, by account": (ADMIN, "stats", "range=12m&by=account"),
    "Prices": (ADMIN, "prices", ""),
    "My account": (MEMBER, "my-account", ""),
    "Accounts": (ADMIN, "accounts", ""),
    "Account": (ADMIN, "account", f"account={MEMBER}"),
    "Recharge": (ADMIN, "recharge", f"account={MEMBER}"),
    "What if": (ADMIN, "what-if", "range=30d"),
    "What if, 12 months": (ADMIN, "what-if", "range=12m"),
    "Integrity": (ADMIN, "integrity", ""),
    "Audit log": (ADMIN, "audit", ""),
}
"""Who looks at what."""


@dataclass
class Row:
    """Milliseconds: until the page was there, of the script, of the database in it; each the p95 and the median."""

    name: str
    whole: float
    whole_median: float
    script: float
    script_median: float
    database: float
    database_median: float
    met: bool


def p95(numbers: Sequence[float]) -> float:
    return sorted(numbers)[max(0, -(-len(numbers) * 95 // 100) - 1)]


def measure(db: Database, rounds: int) -> list[Row]:
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in PAGES}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        notes = Path(folder) / "notes"
        notes.touch()
        app = opened.enter_context(App(db.url, notes))
        sessions = {user_id: sign_in(db, user_id) for user_id in (ADMIN, MEMBER)}
        visitors = {}
        for name, (user_id, path, query) in PAGES.items():
            visitors[name] = opened.enter_context(Visitor(app, sessions[user_id]))
            visitors[name].open(path, query)
            visitors[name].rerun()
        for _ in range(rounds):
            for name, visitor in visitors.items():
                seconds = visitor.rerun()
                noted = app.noted()[-1]
                taken[name].append((seconds, noted["seconds"], noted["in_database"]))
    rows = []
    for name, times in taken.items():
        both = [[round(of(column) * 1000, 1) for of in (p95, statistics.median)] for column in zip(*times, strict=True)]
        rows.append(Row(name, *both[0], *both[1], *both[2], both[0][0] <= LIMIT_MS))
    return rows


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench pages", description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    db = Database(f"sqlite:///{asked.file.resolve()}")
    migrate(db)
    rows = measure(db, asked.rounds)
    if asked.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"{'ms, p95 (median)':32}{'the page':>16}{'its script':>16}{'in the database':>18}  {'at most':>8}")
    for row in rows:
        pairs = ((row.whole, row.whole_median), (row.script, row.script_median), (row.database, row.database_median))
        shown = "".join(f"{f'{most:.0f} ({middle:.0f})':>16}" for most, middle in pairs)
        print(f"{row.name:32}{shown}  {LIMIT_MS:>10}  {'met' if row.met else 'missed'}")
