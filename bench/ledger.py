"""How long `check` takes, and how much memory, for a ledger of so many entries.

    python -m bench ledger --entries 10000000 --file /somewhere/ledger.db

The file is made where it isn't there yet: three years, a fifth of it all of one account, most entries charges, some
recharges, holds with their settles, refunds and reversals; sums and seals with it.
"""

import argparse
import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from billing_core import ledger, seals, stretches, sums
from billing_core.check import check
from billing_core.database import Database, prepare
from billing_core.models import ACCOUNT, BOTH, MODEL, OTHER, USED

START_NS = 1_699_999_200 * 10**9
"""The start of a period."""
YEARS_NS = 3 * 365 * 86_400 * 10**9
BLOCK = 250_000
"""Entries that are invented; a longer ledger lays them end to end."""
NUMBERS = (
    "cost", "calls", "prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens",
)  # fmt: skip


def make(file: Path, entries: int, accounts: int, models: int) -> None:
    """A ledger that adds up, written past the app: charging ten million calls one by one takes hours."""
    copies = max(1, entries // BLOCK)
    entries, span = entries // copies, YEARS_NS // copies // sums.QUARTER_NS * sums.QUARTER_NS
    db = Database(f"sqlite:///{file}", clock=lambda: START_NS + YEARS_NS)
    prepare(db)
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -500000")
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO account (id, user_id, name, email, role, status, balance, total_consumed, created_at_ns) "
        "VALUES (?, ?, ?, '', 'member', 'active', 0, 0, ?)",
        [(n, f"user{n}", f"User {n}", START_NS) for n in range(1, accounts + 1)],
    )
    connection.executemany("INSERT INTO model VALUES (?, ?)", [(n, f"maker/model-{n}") for n in range(1, models + 1)])
    prices = [(n, 1_000_000 * n, 4_000_000 * n, 100_000 * n, 1_250_000 * n) for n in range(1, models + 1)]
    connection.executemany(
        "INSERT INTO price (id, model_id, source, input, output, cache_read, cache_write, valid_from_ns, created_at_ns) "
        f"VALUES (?, ?, 'database', ?, ?, ?, ?, {START_NS}, {START_NS})",
        [(n, *rest) for n, (_n, *rest) in ((n, (n, n, i, o, r, w)) for n, i, o, r, w in prices)],
    )
    dice = random.Random(1)
    balance, consumed = [0] * (accounts + 1), [0] * (accounts + 1)
    used_in: dict[tuple[int, int, int, int], list[int]] = {}
    rows: list[tuple[object, ...]] = []
    holds: list[tuple[object, ...]] = []
    id, step = 0, span // (entries + 2)

    def write(account: int, type: str, amount: int, cost: int = 0, model: int | None = None, counts: tuple[int | None, ...] = (None,) * 5,
              precharge: int | None = None, reverses: int | None = None) -> int:  # fmt: skip
        nonlocal id
        id += 1
        balance[account] += amount
        rows.append(
            (id, account, type, amount, balance[account], cost, model, model if cost and type != "reversal" else None, *counts, precharge, reverses,
             None if type not in ("recharge", "reversal") else 1, None if type != "reversal" else "wrong", START_NS + id * step)
        )  # fmt: skip
        if type not in ledger.CALLS:
            used(account, 0, OTHER, amount if type == "recharge" else 0, 1, (0,) * 5)
        return id

    def used(account: int, model: int, kind: int, cost: int, sign: int, counts: tuple[int, ...]) -> None:
        key = (account, (START_NS + id * step) // sums.QUARTER_NS, model, kind)
        for place, number in enumerate((cost, sign, *(sign * count for count in counts))):
            used_in.setdefault(key, [0] * 7)[place] += number

    for account in range(1, accounts + 1):
        write(account, "recharge", 10**12)
    while id < entries:
        account = 1 if dice.random() < 0.2 else dice.randint(1, accounts)
        n = min(int(dice.expovariate(0.15)) + 1, models)
        prompt, completion = dice.randint(10, 20_000), dice.randint(1, 4_000)
        counts = (prompt, dice.randint(0, prompt) if dice.random() < 0.4 else 0, 0, completion, completion // 3)
        micro = (prompt - counts[1]) * 1_000_000 * n + counts[1] * 100_000 * n + completion * 4_000_000 * n
        cost, throw = -(-micro // 100_000_000), dice.random()
        if throw < 0.94:
            first = write(account, "deduct", -cost, cost, n, counts)
            consumed[account] += cost
            used(account, n, 0, cost, 1, counts)
            if throw < 0.001:
                period_id, id_before = id, id
                write(account, "reversal", cost, -cost, n, reverses=first)
                consumed[account] -= cost
                used(account, n, 2, -cost, -1, counts)
                id = period_id
                used(account, n, 1, -cost, -1, counts)
                id = id_before + 1
        elif throw < 0.99:
            most = -(-(prompt * 1_250_000 * n + completion * 4_000_000 * n) // 100_000_000)
            first = write(account, "precharge", -most, most, n, (prompt, 0, 0, completion, 0))
            if throw < 0.98:
                last = write(account, "settle", most - cost, cost, n, counts, precharge=first)
                consumed[account] += cost
                used(account, n, 0, cost, 1, counts)
            else:
                last = write(account, "refund", most, 0, n, precharge=first)
            holds.append((first, account, most, START_NS + YEARS_NS, last))
        else:
            write(account, "recharge", dice.randint(1, 10**7))
    connection.executemany(
        f"INSERT INTO entry ({', '.join(seals.COLUMNS.split(', ')[:18])}) VALUES ({', '.join('?' * 18)})", rows
    )
    connection.executemany("INSERT INTO hold VALUES (?, ?, ?, ?, ?)", holds)
    connection.execute(_QUARTERS)
    by_quarter = ((*key, *numbers) for key, numbers in sorted(used_in.items()))
    connection.executemany(f"INSERT INTO quarter VALUES ({', '.join('?' * 11)})", by_quarter)
    connection.executemany(
        "UPDATE account SET balance = ?, total_consumed = ? WHERE id = ?",
        [(balance[n], consumed[n], n) for n in range(1, accounts + 1)],
    )
    for copy in range(1, copies):
        for statement in _AGAIN:
            shift = {"ids": copy * id, "ns": copy * span, "periods": copy * span // sums.QUARTER_NS}
            until = (START_NS + span) // sums.QUARTER_NS
            connection.execute(statement, shift | {"copy": copy, "last": id, "until": until})
    connection.execute(f"UPDATE account SET balance = balance * {copies}, total_consumed = total_consumed * {copies}")
    _fill_sums(connection)
    connection.execute("COMMIT")
    connection.close()
    seals.close(db, everything=True)
    stretches.fill(db)
    db.close()


_AGAIN = (
    f"INSERT INTO entry ({', '.join(seals.COLUMNS.split(', ')[:19])}) SELECT e.id + :ids, account_id, type, amount, balance_after + :copy * a.balance, cost, model_id, "
    "price_id, prompt_tokens, cached_tokens, cache_creation_tokens, completion_tokens, reasoning_tokens, "
    "precharge_id + :ids, reverses_id + :ids, operator_id, remark, e.created_at_ns + :ns, recorded_at_ns "
    "FROM entry e JOIN account a ON a.id = account_id WHERE e.id <= :last",
    "INSERT INTO hold SELECT precharge_id + :ids, account_id, held, expires_at_ns, ended_by + :ids "
    "FROM hold WHERE precharge_id <= :last",
    f"INSERT INTO quarter SELECT account_id, period + :periods, model_id, kind, {', '.join(NUMBERS)} FROM quarter "
    "WHERE period < :until",
)
_QUARTERS = f"""
CREATE TEMP TABLE quarter (
    account_id INTEGER, period INTEGER, model_id INTEGER, kind INTEGER, {", ".join(f"{name} INTEGER" for name in NUMBERS)},
    PRIMARY KEY (account_id, period, model_id, kind)
) WITHOUT ROWID
"""
_BUSY = f"""
kind = {USED} AND EXISTS (
    SELECT 1 FROM usage_sum s WHERE s.of = {ACCOUNT} AND s.length = {sums.LONG} AND s.period = q.period / {sums.LONG}
    AND s.account_id = q.account_id AND s.model_id = 0 AND s.kind = {USED} AND s.calls >= {sums.BUSY_CALLS}
)
"""


def _fill_sums(connection: sqlite3.Connection) -> None:
    """The sums of use, from those of quarters of an hour: the finest, and each coarser one from the one before."""
    used, undone, other = f"kind = {USED}", f"kind NOT IN ({USED}, {OTHER})", f"kind = {OTHER}"
    steps = [(of, *step) for of in sums.KEPT for step in ((used, sums.KEPT[of]), (undone, sums.UNDONE[of]))]
    for of, chosen, lengths in (*steps, (ACCOUNT, other, sums.KEPT[ACCOUNT]), (BOTH, _BUSY, sums.BUSY)):
        account, model = ("0" if of == MODEL else "account_id"), ("0" if of == ACCOUNT else "model_id")
        source, finer, which = "quarter", 1, chosen
        for length in sorted(lengths):
            connection.execute(
                f"INSERT INTO usage_sum (of, length, period, account_id, model_id, kind, slot, {', '.join(NUMBERS)}) "
                f"SELECT {of}, {length}, period / {length // finer}, {account}, {model}, kind, 0, "
                f"{', '.join(f'sum({name})' for name in NUMBERS)} FROM {source} q WHERE {which} GROUP BY 3, 4, 5, 6"
            )
            source, finer = f"(SELECT * FROM usage_sum WHERE of = {of} AND length = {length})", length
            which = used if chosen == _BUSY else chosen
    connection.execute("DROP TABLE quarter")


def measure(file: Path) -> None:
    """In a process of its own, so that memory is the check's alone."""
    began = time.perf_counter()
    db = Database(f"sqlite:///{file}")
    findings = check(db)
    seconds = time.perf_counter() - began
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        json.dumps(
            {
                "entries": findings.entries,
                "seals": findings.seals,
                "findings": [one.sentence() for one in findings],
                "seconds": round(seconds, 1),
                "rows_per_second": round(findings.entries / seconds),
                "cpu_seconds": round(sum(one.ru_utime + one.ru_stime for one in (own, children)), 1),
                "peak_mb": _peak_mb(),
                "largest_child_mb": round(children.ru_maxrss / 1024),
            }
        )
    )


def _peak_mb() -> int:
    """Of this process; ru_maxrss would begin with what its parent had when it started this one."""
    said = Path("/proc/self/status").read_text()
    return int(said.split("VmHWM:")[1].split()[0]) // 1024


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench ledger", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=2000)
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--file", type=Path, default=None, help="kept; without it, one is made and removed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only-check", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    file = asked.file or Path(f"bench-{os.getpid()}.db")
    if asked.only_check:
        return measure(file)
    try:
        if not file.exists():
            began = time.perf_counter()
            make(file, asked.entries, asked.accounts, asked.models)
            print(f"made in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        command = [sys.executable, "-m", "bench", "ledger", "--only-check", "--file", str(file)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    finally:
        if asked.file is None:
            for left in file.parent.glob(f"{file.name}*"):
                left.unlink()
    if asked.json:
        print(said)
    else:
        for name, value in json.loads(said).items():
            print(f"{name:>18}  {value}")
    return None
