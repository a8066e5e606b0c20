"""How fast a large ledger says what was used, beside a small one, DuckDB and plain SQL over the entries.

    python -m bench stats --file 10m.db --small 100k.db

Both files are ledgers that `python -m bench ledger` has made. What stands side by side runs in turns; a ratio is the median of
the rounds' ratios, and of many ranges, lengths and zones the slowest and the worst are told. DuckDB (pip install duckdb) has
the same rows in a table of its own; without it, its line is left out.
"""

import argparse
import json
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from billing_core import stats
from billing_core.actors import SHELL
from billing_core.database import Database, migrate
from billing_core.stats import Period, from_ns
from billing_core.zones import zone

ZONES = ("UTC", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu")
"""Whole hours, and three quarters of one; with and without summer time."""
_SUM = "sum(cost), count(*), sum(prompt_tokens), sum(completion_tokens)"


@dataclass
class Row:
    name: str
    ours_ms: float
    beside_ms: float
    ratio: float
    """ours / beside"""
    limit: float
    met: bool


def ranges(last_ns: int, tz: str) -> Iterator[tuple[str, list[Period]]]:
    """What people look at, up to the ledger's last day: each length, and in the middle of the history too."""
    place = zone(tz)
    end = from_ns(last_ns, place).date()
    for name, granularity, days in (
        ("24 h", "hour", 1),
        ("7 days", "day", 7),
        ("92 days", "day", 92),
        ("12 months", "month", 1),
    ):
        yield name, stats.last_periods(last_ns, granularity, place, days)
    yield "a month long past", stats.periods_between(date(end.year - 2, 3, 1), date(end.year - 2, 3, 31), "day", place)
    yield "two years", stats.periods_between(date(end.year - 2, end.month, 1), end, "month", place)


def beside(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """The median milliseconds of both, and of their ratios; they run in turns."""
    pairs = []
    for turn in range(rounds + 1):
        first, second = (_ms(act) for act in (ours, theirs))
        if turn:  # the first one warms up
            pairs.append((first, second))
    ratio = statistics.median(first / second for first, second in pairs)
    return statistics.median(one for one, _ in pairs), statistics.median(two for _, two in pairs), ratio


def _ms(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1e3


def _accounts(db: Database) -> dict[str, str]:
    """The busiest account, and one in the middle, by what they are called here."""
    rows = db.read(lambda tx: tx.rows(
        "SELECT a.user_id FROM account a JOIN usage_sum s ON s.account_id = a.id WHERE s.of = 1 AND s.length = 768 "
        "GROUP BY a.user_id ORDER BY sum(s.calls) DESC"
    ))  # fmt: skip
    return {"the busiest account": rows[0][0], "an account in the middle": rows[len(rows) // 2][0]}


def of_one_account(large: Database, small: Database, last_ns: int, rounds: int) -> Iterator[Row]:
    """The slowest of all ranges and zones, at most 20 ms; and the one that grew most, at most twice the time."""
    for who, there in _accounts(large).items():
        cases = []
        beside_it = _accounts(small)[who]
        for tz in ZONES:
            for name, periods in ranges(last_ns, tz):
                ours, theirs, ratio = beside(
                    partial(large.read, stats.usage, periods, actor=SHELL, user_id=there),
                    partial(small.read, stats.usage, periods, actor=SHELL, user_id=beside_it),
                    rounds,
                )  # fmt: skip
                cases.append((f"{who}, {name}, {tz}", ours, theirs, ratio))
        slowest, grown = max(cases, key=lambda case: case[1]), max(cases, key=lambda case: case[3])
        yield Row(f"slowest: {slowest[0]} : 20 ms", slowest[1], 20, slowest[1] / 20, 1, slowest[1] <= 20)
        yield Row(f"grown most: {grown[0]}", grown[1], grown[2], grown[3], 2, grown[3] <= 2)


def of_all(large: Database, small: Database, file: Path, last_ns: int, rounds: int) -> Iterator[Row]:
    periods = stats.last_periods(last_ns, "month", zone("Asia/Shanghai"))

    def ours() -> object:
        return large.read(stats.usage, periods, actor=SHELL, user_id=None)

    name = "all accounts, 12 months by month"
    first, second, ratio = beside(ours, lambda: small.read(stats.usage, periods, actor=SHELL, user_id=None), rounds)
    yield Row(f"{name} : at 100 000", first, second, ratio, 2, ratio <= 2)
    plain = _grouped(periods)
    try:
        import duckdb
    except ImportError:
        pass
    else:
        with closing(duckdb.connect()) as column_store:
            _load(column_store, file)
            first, second, ratio = beside(ours, lambda: column_store.execute(plain).fetchall(), rounds)
        yield Row(f"{name} : DuckDB", first, second, ratio, 1, ratio <= 1)
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as raw:
        first, second, ratio = beside(ours, lambda: raw.execute(plain).fetchall(), min(rounds, 3))
    yield Row(f"{name} : plain SQL", first, second, ratio, 0.02, ratio <= 0.02)


def _grouped(periods: Sequence[Period]) -> str:
    """The same sums over the entries."""
    cut = " ".join(f"WHEN created_at_ns < {period.end_ns} THEN {place}" for place, period in enumerate(periods))
    return (
        f"SELECT CASE {cut} END, model_id, {_SUM} FROM entry WHERE type IN ('deduct', 'settle') "
        f"AND created_at_ns >= {periods[0].start_ns} AND created_at_ns < {periods[-1].end_ns} GROUP BY 1, 2"
    )


def _load(column_store: Any, file: Path) -> None:
    import pyarrow as pa

    names = ("created_at_ns", "model_id", "type", "cost", "prompt_tokens", "completion_tokens")
    column_store.execute(
        "CREATE TABLE entry (created_at_ns BIGINT, model_id BIGINT, type TEXT, cost BIGINT, prompt_tokens BIGINT, "
        "completion_tokens BIGINT)"
    )
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as raw:
        cursor = raw.execute(f"SELECT {', '.join(names)} FROM entry")
        while rows := cursor.fetchmany(500_000):
            block = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))  # noqa: F841  its name is asked for
            column_store.execute("INSERT INTO entry SELECT * FROM block")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench stats", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--small", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    large, small = (Database(f"sqlite:///{file}") for file in (asked.file, asked.small))
    for db in (large, small):
        migrate(db)
    ((last_ns,),) = large.read(lambda tx: tx.rows("SELECT max(created_at_ns) FROM entry"))
    rows = []
    for row in (
        *of_one_account(large, small, last_ns, asked.rounds),
        *of_all(large, small, asked.file, last_ns, asked.rounds),
    ):
        rows.append(row)
    if asked.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"{'':72}{'ms':>9}{'beside':>10}{'ratio':>9}{'limit':>7}")
    for row in rows:
        met = "met" if row.met else "missed"
        print(f"{row.name:72}{row.ours_ms:9.2f}{row.beside_ms:10.2f}{row.ratio:9.4f}{row.limit:7.2f}  {met}")
