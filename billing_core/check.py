"""Does the ledger add up? Every invariant, recomputed from the entries.

    findings = check(db)        # empty where everything holds; findings.entries says how many were looked at

It reads one consistent state while others write, and names the first row that breaks each rule, with a count of the others.
Entries are walked once, in the ledger's order, with each account's running sum and each seal's hash; a large ledger is
walked in parts at once, by a process each, that see the same state. What joins or sorts is left to the database, in a
second pass beside it, so that memory stays bounded.
"""

import json
import os
import pickle
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from operator import mul
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from . import ledger, seals
from .database import Database, Transaction
from .errors import Conflict, Invalid
from .i18n import N_, translate
from .ledger import PERIOD_NS
from .models import PRICES, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USAGE_SUMS, USED, Entry, Seal, Setting
from .money import Hao, format_yuan
from .pricing import rates_of
from .usage import Tokens

ROWS_AT_ONCE = 5000
APPEND_ONLY = ("entry", "price", "seal", "audit")


@dataclass(slots=True)
class Finding:
    """A row that breaks a rule. `id` is its number, or what else names it."""

    table: str
    id: int | str | None
    message: str
    params: dict[str, object]
    more: int = 0
    """How many other rows break the same rule."""

    def sentence(self, language: str = "en") -> str:
        text = translate(self.message, language, **self.params)
        if self.more:
            text += " " + translate(N_("({more} more like it.)"), language, more=self.more)
        return text


class Findings(list[Finding]):
    """What is broken, the first row of each rule."""

    entries = 0
    """How many entries were looked at."""
    seals = 0
    """How many seals."""
    newest_seal: str | None = None
    """The hash of the last one."""

    def note(self, table: str, id: int | str | None, message: str, **params: object) -> None:
        self.add(Finding(table, id, message, {"id": id, **params}))

    def add(self, finding: Finding) -> None:
        for known in self:
            if known.message == finding.message:
                known.more += 1 + finding.more
                return
        self.append(finding)

    def must_be_none(self, message: str) -> None:
        """Raises Conflict with `message`, whose {sentence} tells the first."""
        if self:
            raise Conflict(message, sentence=self[0])


Progress = Callable[[int, int], None]


def check(
    db: Database, progress: Progress | None = None, also: Callable[[Transaction], None] | None = None
) -> Findings:
    """Look at every row of the ledger. `progress(entries so far, about how many)` is called as it goes, and `also` before
    it, in a transaction that sees the state that is checked.

    Raises DatabaseUnavailable.
    """
    return db.read(_snapshot, db.url, progress or (lambda _done, _all: None), also)


def check_within(tx: Transaction) -> Findings:
    """The same inside of a transaction that nobody writes beside: what it has written itself is looked at as well."""
    return _check(tx, None, lambda _done, _all: None)


def _snapshot(
    tx: Transaction, url: str, progress: Progress, also: Callable[[Transaction], None] | None = None
) -> Findings:
    if not tx.is_sqlite:
        # Each statement of an ordinary transaction would see what was committed up to it.
        tx.connection().execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    if also is not None:
        also(tx)
    return _check(tx, url, progress)


def _check(tx: Transaction, url: str | None, progress: Progress) -> Findings:
    """With a `url`, in parts where that helps: other processes see only what is committed."""
    total = int(tx.connection().scalar(sa.text("SELECT max(id) FROM entry")) or 0)
    found = Findings()
    salt = secrets.randbits(61)
    if url and total >= IN_PARTS_FROM:
        walked, kept = _walk_in_parts(tx, found, url, total, salt, progress)
    else:
        known = _seals(tx)
        walked = _walk(tx, Part(0, None, known, salt), lambda done: progress(done, total))
        _file(tx, found)
        _beside(tx, found)
        kept = _kept(tx, salt)
    if kept is None or walked.used != kept:
        _usage_sums(tx, found)
    found.entries = walked.entries
    for finding in walked.findings:
        found.add(finding)
    _accounts(tx, found, walked.sums)
    progress(found.entries, found.entries)
    return found


def _yuan(amount: Any) -> str:
    """An amount in 元; what is none (SQLite keeps 1.5 or text in a column of numbers) as it stands there."""
    return format_yuan(amount) if isinstance(amount, int) else repr(amount)


def _rows(tx: Transaction, statement: str) -> Iterator[Any]:
    yield from tx.connection().execute(sa.text(statement), execution_options={"yield_per": ROWS_AT_ONCE})


def _beside(tx: Transaction, found: Findings) -> None:
    """All but the walk through the entries, the sums of use and the file."""
    _triggers(tx, found)
    _seal_numbers(tx, found)
    _entries_that_name_others(tx, found)
    _holds(tx, found)
    _loose_ends(tx, found)


# The database itself


def _file(tx: Transaction, found: Findings) -> None:
    if tx.is_sqlite:
        for (said,) in tx.connection().execute(sa.text("PRAGMA quick_check(1)")):
            if said != "ok":
                found.note("database", None, N_("The database file is damaged: {said}"), said=said)


def _triggers(tx: Transaction, found: Findings) -> None:
    """The database must refuse to change or delete an entry or a price."""
    if tx.is_sqlite:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        there = {name: " ".join(sql.split()) for name, sql in tx.connection().execute(sa.text(query))}
        wanted = {
            f"{table}_no_{change.lower()}": f"BEFORE {change} ON {table} BEGIN SELECT RAISE(ABORT"
            for table in APPEND_ONLY
            for change in ("UPDATE", "DELETE")
        }
        missing = [name for name, sql in wanted.items() if sql not in there.get(name, "")]
    else:
        query = (
            "SELECT t.tgname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = to_regclass("
            "replace(t.tgname, '_never_changes', '')) AND t.tgtype & 58 = 58 AND t.tgqual IS NULL "
            "AND t.tgenabled IN ('O', 'A') AND p.prosrc LIKE '%RAISE EXCEPTION%'"
        )  # 58: before an update, a delete or a truncate
        there_too = set(tx.connection().scalars(sa.text(query)))
        missing = [f"{table}_never_changes" for table in APPEND_ONLY if f"{table}_never_changes" not in there_too]
    for name in missing:
        found.note(
            "trigger", name, N_("The trigger {id}, which keeps rows from being changed, is missing or switched off.")
        )


# The walk through the entries


@dataclass(frozen=True, slots=True)
class Part:
    """The entries with an id above `after`, up to `last` (None: all that follow), and the seals that close them."""

    after: int
    last: int | None
    closed_by: Sequence[Seal]
    salt: int
    """Of the check's fingerprints, see Sketch."""
    before: str = seals.NOTHING_BEFORE
    """The hash of the seal before the part."""


@dataclass(slots=True)
class Sums:
    """What an account's entries add up to, in 毫."""

    last: int = 0
    """The last entry's balance_after."""
    added: Hao = 0
    consumed: Hao = 0


class Sketch:
    """Fingerprints that add up like the sums of use do: each number times a hash of its place, by dice thrown for this check.
    Two sides with the same total have the same numbers in the same places, but for a chance of one in 10¹⁸; it takes neither
    sorting nor memory."""

    def __init__(self, salt: int) -> None:
        self.salt = salt
        self.factors = [hash((salt, place)) for place in range(7)]

    def of(self, key: tuple[int, int, int, int], *numbers: int) -> int:
        """`key` is account, period, model and kind; `numbers` cost, calls and tokens, in the order of usage_sum."""
        return hash((self.salt, *key)) * sum(map(mul, self.factors, numbers))


@dataclass(slots=True)
class Walked:
    entries: int = 0
    sums: dict[int, Sums] = field(default_factory=dict)
    used: int = 0
    """The fingerprint of what the entries used, see Sketch."""
    findings: list[Finding] = field(default_factory=list)


_BALANCES_BEFORE = """
SELECT a.id, (SELECT e.balance_after FROM entry e WHERE e.account_id = a.id AND e.id <= {after} ORDER BY e.id DESC LIMIT 1)
FROM account a
"""


def _walk(tx: Transaction, part: Part, progress: Callable[[int], None]) -> Walked:
    """Look at a part's entries, one by one."""
    found, sums, entries, used = Findings(), dict[int, Sums](), 0, 0
    fingerprint = Sketch(part.salt).of
    names = seals.Names.read(tx)
    prices = {row.id: row for row in tx.connection().execute(sa.select(PRICES))}
    rates = {id: (row.model_id, row_rates) for id, row in prices.items() if (row_rates := rates_of(row)) is not None}
    if part.after:
        before = tx.connection().execute(sa.text(_BALANCES_BEFORE.format(after=part.after)))
        sums = {row[0]: Sums(row[1]) for row in before if row[1] is not None}
    closing = iter([*part.closed_by, None])
    seal, hashed = next(closing), part.before
    stretch: list[list[Any]] = []
    within = [f"id > {part.after}"] if part.after else []  # a number below 0 is looked at as well
    within += [] if part.last is None else [f"id <= {part.last}"]
    where = f"WHERE {' AND '.join(within)}" if within else ""
    for rows in _raw(tx, f"SELECT {seals.COLUMNS} FROM entry {where} ORDER BY id"):
        for row in rows:
            (id, account_id, type, amount, balance_after, cost, model_id, price_id, prompt, cached, creation, completion,
             reasoning, _precharge_id, _reverses_id, _operator, _remark, created_at_ns, _recorded) = row  # fmt: skip
            while seal is not None and id > seal.last_entry_id:
                hashed = _close(found, seal, hashed, stretch)
                stretch, seal = [], next(closing)
            if seal is not None:
                stretch.append(names.canonical(row))
            account = sums.get(account_id)
            if account is None:
                account = sums[account_id] = Sums()
            try:
                if balance_after != account.last + amount:
                    found.note(
                        "entry", id,
                        N_("Entry {id} of {user_id} ends with {kept} 元, but the entries up to it add up to {sum} 元."),
                        user_id=names.accounts.get(account_id), kept=_yuan(balance_after),
                        sum=_yuan(account.last + amount),
                    )  # fmt: skip
                account.last = balance_after
                account.added += amount
                if type in ("deduct", "settle"):
                    account.consumed += cost
                    used += fingerprint(
                        (account_id, created_at_ns // PERIOD_NS, model_id, USED),
                        cost, 1, prompt, cached, creation, completion, reasoning,
                    )  # fmt: skip
                if type == "deduct":
                    if amount != -cost or cost < 0:
                        found.note("entry", id, N_("Entry {id} is a charge that takes another amount than its cost."))
                    model, price = rates.get(price_id, _NONE)
                    if not (
                        model == model_id is not None and cached >= 0 and creation >= 0 and cached + creation <= prompt
                        and 0 <= reasoning <= completion
                        and cost == price.cost_of(prompt - cached - creation, cached, creation, completion)
                    ):  # fmt: skip
                        _cost(found, row, prices)
                elif type == "recharge":
                    if cost or not amount:
                        found.note("entry", id, N_("Entry {id} is a recharge that moves nothing, or has a cost."))
                elif type in ("settle", "precharge"):
                    _cost(found, row, prices)
                elif type == "reversal":
                    account.consumed += cost
            except (TypeError, KeyError):  # SQLite keeps text in a column of numbers, if somebody puts it there
                if type == "deduct" and None in (prompt, cached, creation, completion, reasoning):
                    found.note("entry", id, _NO_COUNTS)
                else:
                    found.note("entry", id, N_("Entry {id} holds something that can't be in its place."))
        entries += len(rows)
        progress(entries)
    while seal is not None:
        hashed = _close(found, seal, hashed, stretch)
        stretch, seal = [], next(closing)
    return Walked(entries, sums, used, list(found))


_NONE: tuple[Any, Any] = (None, None)
_NO_COUNTS = N_("Entry {id} has token counts that can't be.")


def _raw(tx: Transaction, statement: str) -> Iterator[list[Any]]:
    """Rows as the driver gives them, many at a time: ten million don't each need a Row."""
    driver: Any = tx.connection().connection.driver_connection
    cursor = driver.cursor() if tx.is_sqlite else driver.cursor(name="walk")
    try:
        cursor.execute(statement)
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            yield rows
    finally:
        cursor.close()


def _close(found: Findings, seal: Seal, before: str, stretch: list[list[Any]]) -> str:
    """Compare a seal with the entries that it closed; the hash that the next one stands on."""
    fits = len(stretch) == seal.entries and bool(stretch) and stretch[-1][0] == seal.last_entry_id
    if not fits or seals.hash_of(before, stretch) != seal.hash:
        first = stretch[0][0] if stretch else seal.last_entry_id
        found.note(
            "seal", seal.number,
            N_(
                "Seal {id} no longer fits: one of the entries {first} to {last}, which it closed, was changed, added or "
                "removed."
            ),
            first=first, last=seal.last_entry_id,
        )  # fmt: skip
    return seal.hash


# In parts

IN_PARTS_FROM = 300_000
"""Entries: below that, processes take longer to start than to help."""
PARTS = 2
_WORKER = "from billing_core.check import worker; worker()"


def _walk_in_parts(
    tx: Transaction, found: Findings, url: str, total: int, salt: int, progress: Progress
) -> tuple[Walked, int | None]:
    """The walk by several processes and, meanwhile, all else by this one; with the fingerprint of what is kept."""
    # Every process sees the same entries up to `total`: SQLite writes them in the order of their ids, and for Postgres,
    # where a smaller id may be committed later, this transaction's own snapshot is handed on.
    snapshot = None if tx.is_sqlite else str(tx.connection().scalar(sa.text("SELECT pg_export_snapshot()")))
    parts = _parts(tx, total, salt)
    workers = [_Worker(url, snapshot, part) for part in parts]

    def aside() -> int | None:
        _beside(tx, found)
        return _kept(tx, salt)

    another, of_file = Database(url), Findings()
    try:
        with ThreadPoolExecutor(2) as pool:
            rest, file = pool.submit(aside), pool.submit(another.read, _file, of_file)
            while not (rest.done() and file.done()) or not all(one.ended.is_set() for one in workers):
                progress(sum(one.entries for one in workers), total)
                time.sleep(0.1)
            kept = rest.result()
            file.result()
        walked = [one.walked or _walk(tx, one.part, lambda _entries: None) for one in workers]
    finally:
        another.close()
        for worker in workers:
            worker.process.kill()
    for finding in of_file:
        found.add(finding)
    whole = Walked()
    for each in walked:
        whole.entries += each.entries
        whole.used += each.used
        whole.findings += each.findings
        for id, sums in each.sums.items():
            so_far = whole.sums.setdefault(id, Sums())
            so_far.added += sums.added
            so_far.consumed += sums.consumed
    return whole, kept


def _parts(tx: Transaction, total: int, salt: int) -> list[Part]:
    """The ledger up to `total` in parts of about the same length, cut where a seal ends one of its stretches."""
    known = list(_seals(tx))
    parts, after, before = [], 0, seals.NOTHING_BEFORE
    for number in range(1, PARTS):
        target = total * number // PARTS
        within = [seal for seal in known if seal.last_entry_id <= target]
        last = within[-1].last_entry_id if within else target if not known else after
        if last <= after:
            continue
        parts.append(Part(after, last, within, salt, before))
        known = known[len(within) :]
        after, before = last, within[-1].hash if within else before
    return [*parts, Part(after, total, known, salt, before)]


class _Worker:
    """A process that walks a part; `walked` stays None where it could not."""

    def __init__(self, url: str, snapshot: str | None, part: Part):
        self.part, self.entries, self.walked = part, 0, cast(Walked | None, None)
        self.ended = threading.Event()
        paths = (str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", ""))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        )
        threading.Thread(target=self._listen, args=((url, snapshot, part),), daemon=True).start()

    def _listen(self, task: tuple[str, str | None, Part]) -> None:
        assert self.process.stdin
        assert self.process.stdout
        try:
            with self.process.stdin, self.process.stdout:
                pickle.dump(task, self.process.stdin)
                self.process.stdin.flush()
                while self.walked is None:
                    said = pickle.load(self.process.stdout)
                    if isinstance(said, Walked):
                        self.walked = said
                    else:
                        self.entries = said
        except (OSError, EOFError, pickle.UnpicklingError):
            pass
        finally:
            self.process.wait()
            self.ended.set()


def worker() -> None:
    """What a process of _walk_in_parts runs: it reads its part from standard input, and tells how far it is and then
    what it found on standard output."""
    url, snapshot, part = pickle.load(sys.stdin.buffer)

    def tell(said: int | Walked) -> None:
        pickle.dump(said, sys.stdout.buffer)
        sys.stdout.buffer.flush()

    def walk(tx: Transaction) -> Walked:
        if snapshot is not None:
            tx.connection().execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            tx.connection().execute(sa.text(f"SET TRANSACTION SNAPSHOT '{snapshot}'"))
        return _walk(tx, part, tell)

    db = Database(url)
    tell(db.read(walk))
    db.close()


# Accounts, and single rules

_DEADLINES = "SELECT account_id, min(expires_at_ns) FROM hold WHERE ended_by IS NULL GROUP BY account_id"


def _accounts(tx: Transaction, found: Findings, sums: dict[int, Sums]) -> None:
    """What each account's row keeps, once all entries have been seen."""
    deadlines = {row[0]: row[1] for row in tx.connection().execute(sa.text(_DEADLINES))}
    rows = "SELECT id, user_id, balance, total_consumed, hold_expires_at_ns FROM account ORDER BY id"
    for row in _rows(tx, rows):
        account, user_id = sums.get(row.id, Sums()), row.user_id
        if row.balance != account.added:
            found.note(
                "account", user_id, N_("The balance of {id} is kept as {kept} 元, but its entries add up to {sum} 元."),
                kept=_yuan(row.balance), sum=_yuan(account.added),
            )  # fmt: skip
        if row.total_consumed != account.consumed:
            found.note(
                "account", user_id,
                N_("What {id} has consumed is kept as {kept} 元, but its calls less reversals add up to {sum} 元."),
                kept=_yuan(row.total_consumed), sum=_yuan(account.consumed),
            )  # fmt: skip
        if row.hold_expires_at_ns != deadlines.get(row.id):
            found.note("account", user_id, N_("The next deadline of {id} is not the earliest of its open precharges."))


def _cost(found: Findings, row: Sequence[Any], prices: dict[int, Any]) -> None:
    """The cost again, from the tokens and the price that the entry (a row of seals.COLUMNS) names."""
    id, _account, type, _amount, _after, kept, model_id, price_id, prompt, cached, creation, completion, reasoning = (
        row[:13]
    )
    price = prices.get(price_id)
    rates = None if price is None else rates_of(price)
    if price is None or rates is None or price.model_id != model_id:
        found.note("entry", id, N_("Entry {id} names no price of its model."))
        return
    try:
        tokens = Tokens(prompt, completion, cached, creation, reasoning)
    except Invalid:
        found.note("entry", id, _NO_COUNTS)
        return
    cost = rates.most(tokens.prompt, tokens.completion) if type == "precharge" else rates.cost(tokens)
    if kept != cost:
        found.note(
            "entry", id, N_("Entry {id} cost {kept} 元, but its tokens at its price cost {sum} 元."),
            kept=_yuan(kept), sum=_yuan(cost),
        )  # fmt: skip


# Entries that name others: the database joins them

_NAMING = """
SELECT e.id, e.account_id AS a_id, e.type, e.amount, e.cost, e.model_id, e.price_id, e.precharge_id, e.reverses_id,
    e.created_at_ns, p.account_id AS p_account, p.type AS p_type, p.cost AS p_cost, p.model_id AS p_model,
    p.price_id AS p_price, h.ended_by, h.expires_at_ns, own.held,
    r.account_id AS r_account, r.type AS r_type, r.cost AS r_cost, r.amount AS r_amount
FROM entry e
LEFT JOIN entry p ON p.id = e.precharge_id
LEFT JOIN hold h ON h.precharge_id = e.precharge_id
LEFT JOIN hold own ON own.precharge_id = e.id
LEFT JOIN entry r ON r.id = e.reverses_id
WHERE e.type NOT IN ('deduct', 'recharge')
ORDER BY e.id
"""


def _entries_that_name_others(tx: Transaction, found: Findings) -> None:
    for row in _rows(tx, _NAMING):
        try:
            _RULES[row.type](found, row)
        except (TypeError, KeyError):
            found.note("entry", row.id, N_("Entry {id} holds something that can't be in its place."))


def _precharge(found: Findings, row: Any) -> None:
    if row.amount != -row.cost or row.cost < 0:
        found.note("entry", row.id, N_("Entry {id} is a precharge that takes another amount than it holds."))
    if row.held is None:
        found.note("entry", row.id, N_("Entry {id} is a precharge of which no hold is kept."))
    elif row.held != row.cost:
        found.note("hold", row.id, N_("The hold of precharge {id} is kept with another amount than the entry took."))


def _end(found: Findings, row: Any) -> None:
    """A settle, refund or expire: it ends its own account's precharge, alone, and gives the right amount back."""
    if row.p_type != "precharge" or row.p_account != row.a_id:
        found.note("entry", row.id, N_("Entry {id} ends a precharge that its account doesn't have."))
        return
    if row.ended_by != row.id:
        found.note("entry", row.id, N_("Entry {id} ends precharge {precharge_id}, whose hold says otherwise."),
                   precharge_id=row.precharge_id)  # fmt: skip
    if row.amount != row.p_cost - row.cost or row.cost < 0 or (row.type != "settle" and row.cost):
        found.note("entry", row.id, N_("Entry {id} gives another amount back than what was held less the cost."))
    if row.model_id != row.p_model or (row.type == "settle" and row.price_id != row.p_price):
        found.note("entry", row.id, N_("Entry {id} is of another model or price than its precharge."))
    if row.type == "expire" and row.created_at_ns != row.expires_at_ns:
        found.note("entry", row.id, N_("Entry {id} expired at another moment than its precharge's deadline."))


def _reversal(found: Findings, row: Any) -> None:
    if row.r_type is None or row.r_account != row.a_id or row.reverses_id >= row.id:
        found.note("entry", row.id, N_("Entry {id} reverses an entry that its account doesn't have."))
        return
    undone = cast(Entry, _Undone(row.r_type, row.r_cost, row.r_amount))
    consumed, amount = ledger.undone(undone)
    if (row.cost, row.amount) != (-consumed, amount):
        found.note("entry", row.id, N_("Entry {id} does not undo exactly what entry {reverses_id} did."),
                   reverses_id=row.reverses_id)  # fmt: skip


@dataclass(slots=True)
class _Undone:
    type: str
    cost: Hao
    amount: Hao


_RULES: dict[str, Callable[[Findings, Any], None]] = {
    "precharge": _precharge, "settle": _end, "refund": _end, "expire": _end, "reversal": _reversal,
}  # fmt: skip


# What is kept beside the entries

_HOLDS = """
SELECT h.precharge_id, h.account_id, h.ended_by, p.type AS p_type, p.account_id AS p_account, x.type AS x_type,
    x.account_id AS x_account, x.precharge_id AS x_precharge, x.reverses_id AS x_reverses, u.id AS reversed_by
FROM hold h
LEFT JOIN entry p ON p.id = h.precharge_id
LEFT JOIN entry x ON x.id = h.ended_by
LEFT JOIN entry u ON u.reverses_id = h.precharge_id
ORDER BY h.precharge_id
"""


def _holds(tx: Transaction, found: Findings) -> None:
    for row in _rows(tx, _HOLDS):
        if row.p_type != "precharge" or row.p_account != row.account_id:
            found.note(
                "hold", row.precharge_id, N_("A hold is kept for entry {id}, which is no precharge of its account.")
            )
            continue
        if row.ended_by is None:
            right = row.reversed_by is None
        elif row.x_type == "reversal":
            right = row.x_account == row.account_id and row.x_reverses == row.precharge_id
        else:
            right = row.x_type in ("settle", "refund", "expire") and (row.x_account, row.x_precharge) == (
                row.account_id,
                row.precharge_id,
            )
        if not right:
            found.note(
                "hold", row.precharge_id,
                N_("The hold of precharge {id} is not kept as ended by the entry that ends it."),
            )  # fmt: skip


def _kept(tx: Transaction, salt: int) -> int | None:
    """The fingerprint of the sums of use, less what reversals undid: that of the calls, where the sums are right. None where
    they hold something else than numbers."""
    fingerprint, kept = Sketch(salt).of, 0
    try:
        for rows in _raw(tx, f"SELECT account_id, period, model_id, kind, {', '.join(_KINDS)} FROM usage_sum"):
            for row in rows:
                kept += fingerprint(row[:4], *row[4:])
        for rows in _raw(tx, f"{_CHAIN} {_UNDONE}"):
            for row in rows:
                kept += fingerprint(row[:4], *row[4:11])
    except TypeError:
        return None
    return kept


_KINDS = [column.name for column in USAGE_SUMS.columns if not column.primary_key]
_TOKENS = [kind for kind in _KINDS if kind.endswith("_tokens")]
# A reversal counts where the call did that its chain of reversals ends in; numbers fall along a chain, so it ends.
_CHAIN = """
WITH RECURSIVE chain(id, account_id, cost, at_ns, root, sign) AS (
    SELECT id, account_id, cost, created_at_ns, reverses_id, -1 FROM entry WHERE reverses_id IS NOT NULL
    UNION ALL
    SELECT chain.id, chain.account_id, chain.cost, chain.at_ns, up.reverses_id, -chain.sign
    FROM chain JOIN entry up ON up.id = chain.root WHERE up.reverses_id < up.id
)
"""
_UNDONE = f"""
SELECT chain.account_id, CASE undone.kind WHEN {UNDONE_AT_CALL} THEN e.created_at_ns ELSE chain.at_ns END / {PERIOD_NS},
    e.model_id, undone.kind, -chain.cost, -chain.sign, {", ".join(f"-chain.sign * e.{kind}" for kind in _TOKENS)}, 0
FROM chain JOIN entry e ON e.id = chain.root
CROSS JOIN (SELECT {UNDONE_AT_CALL} AS kind UNION ALL SELECT {UNDONE_AT_REVERSAL}) AS undone
WHERE e.reverses_id IS NULL AND chain.cost <> 0
"""
_USAGE = f"""
{_CHAIN}
SELECT account_id, period, model_id, kind, {", ".join(f"sum({kind}) AS {kind}" for kind in _KINDS)}, sum(kept) AS kept
FROM (
    SELECT account_id, period, model_id, kind, {", ".join(_KINDS)}, cost AS kept FROM usage_sum
    UNION ALL
    SELECT account_id, created_at_ns / {PERIOD_NS}, model_id, {USED}, -cost, -1, {", ".join(f"-{kind}" for kind in _TOKENS)}, 0
    FROM entry WHERE type IN ('deduct', 'settle')
    UNION ALL
    {_UNDONE}
) AS both_sides
GROUP BY account_id, period, model_id, kind
HAVING {" OR ".join(f"sum({kind}) <> 0" for kind in _KINDS)}
ORDER BY account_id, period, model_id, kind
"""


def _usage_sums(tx: Transaction, found: Findings) -> None:
    try:
        _compare_usage_sums(tx, found)
    except OperationalError as error:
        if "integer overflow" not in str(error.orig):
            raise
        found.note("usage_sum", None, N_("The sums of usage hold a number that is larger than any can be."))


def _whole(sum: Any) -> Any:
    """Postgres adds whole numbers up to a Decimal."""
    return int(sum) if sum == sum // 1 and abs(sum) < 2**64 else sum


def _compare_usage_sums(tx: Transaction, found: Findings) -> None:
    for row in _rows(tx, _USAGE):
        found.note(
            "usage_sum", f"{row.account_id}/{row.period}/{row.model_id}/{row.kind}",
            N_(
                "The sum for account number {account}, quarter of an hour {period} and model number {model} is kept "
                "as {kept} 元, but what its entries say differs by {difference} 元 and {calls} calls."
            ),
            account=row.account_id, period=row.period, model=row.model_id, kept=_yuan(_whole(row.kept)),
            difference=_yuan(-_whole(row.cost)), calls=-_whole(row.calls),
        )  # fmt: skip


_LOOSE_ENDS = (
    ("entry", "SELECT e.id FROM entry e LEFT JOIN account a ON a.id = e.account_id WHERE a.id IS NULL ORDER BY e.id",
     N_("Entry {id} belongs to no account.")),
    ("entry", "SELECT reverses_id FROM entry WHERE reverses_id IS NOT NULL GROUP BY reverses_id HAVING count(*) > 1 "
     "ORDER BY reverses_id", N_("Entry {id} has been reversed more than once.")),
    ("entry", "SELECT precharge_id FROM entry WHERE precharge_id IS NOT NULL GROUP BY precharge_id "
     "HAVING count(*) > 1 ORDER BY precharge_id", N_("Precharge {id} has ended more than once.")),
    ("idempotency", "SELECT i.scope || '/' || i.key FROM idempotency i LEFT JOIN entry e ON e.id = i.entry_id "
     "WHERE i.entry_id IS NOT NULL AND e.id IS NULL ORDER BY i.scope, i.key",
     N_("The idempotency key {id} names an entry that isn't there.")),
)  # fmt: skip


def _loose_ends(tx: Transaction, found: Findings) -> None:
    for table, statement, message in _LOOSE_ENDS:
        for (id,) in _rows(tx, statement):
            found.note(table, id, message)


# Seals


def _seals(tx: Transaction) -> list[Seal]:
    """The seals up to the first that is out of its place."""
    good: list[Seal] = []
    for seal in seals.every(tx):
        if not _in_place(seal, good):
            break
        good.append(seal)
    return good


def _in_place(seal: Seal, before: Sequence[Seal]) -> bool:
    """Seals are numbered from 1 without gaps, and each ends after the one before."""
    last = before[-1].last_entry_id if before else 0
    whole = isinstance(seal.last_entry_id, int)  # SQLite keeps text in a column of numbers
    return seal.number == len(before) + 1 and whole and seal.last_entry_id > last


def _seal_numbers(tx: Transaction, found: Findings) -> None:
    good = _seals(tx)
    found.seals, found.newest_seal = len(good), good[-1].hash if good else None
    if len(good) != tx.connection().scalar(sa.text("SELECT count(*) FROM seal")):
        found.note("seal", len(good) + 1, N_("Seal {id} is missing, or out of its place."))


# What was found last


@dataclass(frozen=True, slots=True)
class Last:
    """What the last check said; `broken` is the first finding's sentence in English, None where everything added up."""

    at_ns: int
    entries: int
    seals: int
    newest_seal: str | None
    broken: str | None


_LAST = "_last_check"


def remember(tx: Transaction, findings: Findings) -> None:
    """Keep when the ledger was checked, and what came of it."""
    broken = findings[0].sentence() if findings else None
    told = Last(tx.now_ns, findings.entries, findings.seals, findings.newest_seal, broken)
    tx.merge(Setting(name=_LAST, value=json.dumps(asdict(told))))


def last(tx: Transaction) -> Last | None:
    """What the last check said; None where there was none yet."""
    row = tx.get(Setting, _LAST)
    return None if row is None else Last(**json.loads(row.value))
