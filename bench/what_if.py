"""How long a what-if takes for a ledger of so many entries, beside the same sum in plain SQL.

    python -m bench what_if --entries 1000000 --file /somewhere/ledger.db

The file is made as by `python -m bench ledger`; all of it is in the range.
"""

import argparse
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from billing_core import what_if
from billing_core.actors import SHELL
from billing_core.database import Database
from billing_core.rates import More, Prices, Tier
from billing_core.stats import Period, from_ns
from billing_core.zones import zone

from .ledger import START_NS, YEARS_NS, make

PRICES = Prices(2_000_000, 8_000_000, 200_000)
TIERED = Prices(2_000_000, 8_000_000, 200_000, more=More(tiers=(Tier(10_000, 4_000_000, 16_000_000),)))
PLAIN = """
SELECT account_id, model_id, created_at_ns / 900000000000 / 2976, sum(
    ((prompt_tokens - cached_tokens - cache_creation_tokens) * 2000000 + cached_tokens * 200000
     + cache_creation_tokens * 2000000 + completion_tokens * 8000000 + 99999999) / 100000000)
FROM entry WHERE type IN ('deduct', 'settle') GROUP BY 1, 2, 3
"""


def _best(act: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return min(taken)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench what_if")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--file", type=Path, default=Path("bench-ledger.db"))
    asked = parser.parse_args(arguments)
    if not asked.file.exists():
        make(asked.file, asked.entries, asked.accounts, asked.models)
    db = Database(f"sqlite:///{asked.file}", clock=lambda: START_NS + YEARS_NS)
    cuts = [START_NS + YEARS_NS * n // 36 // 900_000_000_000 * 900_000_000_000 for n in range(37)]
    periods = [Period(a, b, from_ns(a, zone("UTC"))) for a, b in pairwise(cuts)]
    models = [f"maker/model-{n}" for n in range(1, asked.models + 1)]

    def ask(prices: Prices, among: list[Period] = periods, **options: bool) -> float:
        wanted = dict.fromkeys(models, prices)
        return _best(lambda: db.read(what_if.summary, among, wanted, actor=SHELL, **options))

    with closing(sqlite3.connect(asked.file)) as plain:
        entries = plain.execute("SELECT count(*) FROM entry").fetchone()[0]
        base = _best(lambda: plain.execute(PLAIN).fetchall())
    print(f"{entries} entries, all of them in the range; the least of 5 runs, and beside the same sum in plain SQL")
    print(f"plain SQL over the entries     {base:7.3f} s   1.00")
    for name, taken in (
        ("from the sums", ask(PRICES)),
        ("to the last 毫, from entries", ask(PRICES, to_the_last=True)),
        ("with tiers, from entries", ask(TIERED)),
        ("the last month, from the sums", ask(PRICES, periods[-1:])),
        ("the last month, with tiers", ask(TIERED, periods[-1:])),
    ):
        print(f"{name:30} {taken:7.3f} s   {taken / base:.2f}")
    db.close()
