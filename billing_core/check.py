"""Does the ledger add up? Every invariant, recomputed from the entries.

    findings = check(db)        # empty where everything holds; findings.entries says how many were looked at

It reads one consistent state, streams through the entries an account at a time and leaves sorting to the database, so
that memory stays bounded. Of each rule it names the first row that breaks it, and counts the others.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa

from . import ledger, seals
from .database import Database, Transaction
from .errors import Invalid
from .i18n import N_, translate
from .ledger import PERIOD_NS
from .models import PRICES, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, USAGE_SUMS, USED, Entry
from .money import format_yuan
from .pricing import Rates
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

    def note(self, table: str, id: int | str | None, message: str, **params: object) -> None:
        for known in self:
            if known.message == message:
                known.more += 1
                return
        self.append(Finding(table, id, message, {"id": id, **params}))


def check(db: Database, progress: Callable[[int, int], None] | None = None) -> Findings:
    """Look at every row of the ledger. `progress(entries so far, about how many)` is called as it goes.

    Raises DatabaseUnavailable.
    """
    return db.read(_check, progress or (lambda _done, _all: None))


def _check(tx: Transaction, progress: Callable[[int, int], None]) -> Findings:
    if not tx.is_sqlite:
        # Each statement of an ordinary transaction would see what was committed up to it.
        tx.connection().execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    found = Findings()
    _file(tx, found)
    _triggers(tx, found)
    prices = {row.id: row for row in tx.connection().execute(sa.select(PRICES))}
    _entries(tx, found, prices, progress)
    _holds(tx, found)
    _usage_sums(tx, found)
    _loose_ends(tx, found)
    _seals(tx, found)
    return found


def _rows(tx: Transaction, statement: str) -> Iterator[Any]:
    yield from tx.connection().execute(sa.text(statement), execution_options={"yield_per": ROWS_AT_ONCE})


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


# Entries, account by account


@dataclass(slots=True)
class _Account:
    """An account's row, and what its entries add up to so far."""

    id: int
    user_id: str
    balance: int
    total_consumed: int
    deadline: int | None
    added: int = 0
    """毫: the sum of the amounts."""
    last: int = 0
    """毫: the last entry's balance_after."""
    consumed: int = 0


_ENTRIES = """
SELECT a.id AS a_id, a.user_id, a.balance, a.total_consumed, a.hold_expires_at_ns,
    e.id, e.type, e.amount, e.balance_after, e.cost, e.model_id, e.price_id, e.prompt_tokens, e.completion_tokens,
    e.cached_tokens, e.cache_creation_tokens, e.reasoning_tokens, e.precharge_id, e.reverses_id, e.created_at_ns,
    p.account_id AS p_account, p.type AS p_type, p.cost AS p_cost, p.model_id AS p_model, p.price_id AS p_price,
    h.ended_by, h.expires_at_ns, own.held,
    r.account_id AS r_account, r.type AS r_type, r.cost AS r_cost, r.amount AS r_amount
FROM account a
LEFT JOIN entry e ON e.account_id = a.id
LEFT JOIN entry p ON p.id = e.precharge_id
LEFT JOIN hold h ON h.precharge_id = e.precharge_id
LEFT JOIN hold own ON own.precharge_id = e.id
LEFT JOIN entry r ON r.id = e.reverses_id
ORDER BY a.id, e.id
"""
_DEADLINES = "SELECT account_id, min(expires_at_ns) FROM hold WHERE ended_by IS NULL GROUP BY account_id"


def _entries(tx: Transaction, found: Findings, prices: dict[int, Any], progress: Callable[[int, int], None]) -> None:
    total = int(tx.connection().scalar(sa.text("SELECT max(id) FROM entry")) or 0)
    deadlines = {row[0]: row[1] for row in tx.connection().execute(sa.text(_DEADLINES))}
    account: _Account | None = None
    for row in _rows(tx, _ENTRIES):
        if account is None or account.id != row.a_id:
            _account(found, account, deadlines)
            account = _Account(row.a_id, row.user_id, row.balance, row.total_consumed, row.hold_expires_at_ns)
        if row.id is None:
            continue
        found.entries += 1
        if not found.entries % ROWS_AT_ONCE:
            progress(found.entries, total)
        try:
            _entry(found, account, row, prices)
        except (TypeError, KeyError):  # SQLite keeps text in a column of numbers, if somebody puts it there
            found.note("entry", row.id, N_("Entry {id} holds something that can't be in its place."))
    _account(found, account, deadlines)
    progress(found.entries, found.entries)


def _entry(found: Findings, account: _Account, row: Any, prices: dict[int, Any]) -> None:
    if row.balance_after != account.last + row.amount:
        found.note(
            "entry", row.id,
            N_("Entry {id} of {user_id} ends with {kept} 元, but the entries up to it add up to {sum} 元."),
            user_id=row.user_id, kept=format_yuan(row.balance_after), sum=format_yuan(account.last + row.amount),
        )  # fmt: skip
    account.last = row.balance_after
    account.added += row.amount
    if row.type in ("deduct", "settle", "reversal"):
        account.consumed += row.cost
    _RULES[row.type](found, row)
    if row.type in ("deduct", "settle", "precharge"):
        _cost(found, row, prices)


def _account(found: Findings, account: _Account | None, deadlines: dict[int, int]) -> None:
    """An account's sums, once all its entries have been seen."""
    if account is None:
        return
    user_id = account.user_id
    if account.balance != account.added:
        found.note(
            "account", user_id, N_("The balance of {id} is kept as {kept} 元, but its entries add up to {sum} 元."),
            kept=format_yuan(account.balance), sum=format_yuan(account.added),
        )  # fmt: skip
    if account.total_consumed != account.consumed:
        found.note(
            "account", user_id,
            N_("What {id} has consumed is kept as {kept} 元, but its calls less reversals add up to {sum} 元."),
            kept=format_yuan(account.total_consumed), sum=format_yuan(account.consumed),
        )  # fmt: skip
    if account.deadline != deadlines.get(account.id):
        found.note("account", user_id, N_("The next deadline of {id} is not the earliest of its open precharges."))


def _cost(found: Findings, row: Any, prices: dict[int, Any]) -> None:
    """The cost again, from the tokens and the price that the entry names."""
    price = prices.get(row.price_id)
    if price is None or price.model_id != row.model_id or price.input is None or price.output is None:
        found.note("entry", row.id, N_("Entry {id} names no price of its model."))
        return
    rates = Rates(
        price.input,
        price.output,
        price.input if price.cache_read is None else price.cache_read,
        price.input if price.cache_write is None else price.cache_write,
        price.source,
    )
    try:
        tokens = Tokens(
            row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.cache_creation_tokens, row.reasoning_tokens
        )
    except Invalid:
        found.note("entry", row.id, N_("Entry {id} has token counts that can't be."))
        return
    cost = rates.most(tokens.prompt, tokens.completion) if row.type == "precharge" else rates.cost(tokens)
    if row.cost != cost:
        found.note(
            "entry", row.id, N_("Entry {id} cost {kept} 元, but its tokens at its price cost {sum} 元."),
            kept=format_yuan(row.cost), sum=format_yuan(cost),
        )  # fmt: skip


def _recharge(found: Findings, row: Any) -> None:
    if row.cost or not row.amount:
        found.note("entry", row.id, N_("Entry {id} is a recharge that moves nothing, or has a cost."))


def _deduct(found: Findings, row: Any) -> None:
    if row.amount != -row.cost or row.cost < 0:
        found.note("entry", row.id, N_("Entry {id} is a charge that takes another amount than its cost."))


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
    cost: int
    amount: int


_RULES: dict[str, Callable[[Findings, Any], None]] = {
    "recharge": _recharge, "deduct": _deduct, "precharge": _precharge, "settle": _end, "refund": _end,
    "expire": _end, "reversal": _reversal,
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


_KINDS = [column.name for column in USAGE_SUMS.columns if not column.primary_key]
_TOKENS = [kind for kind in _KINDS if kind.endswith("_tokens")]
# A reversal counts where the call did that its chain of reversals ends in; numbers fall along a chain, so it ends.
_USAGE = f"""
WITH RECURSIVE chain(id, account_id, cost, at_ns, root, sign) AS (
    SELECT id, account_id, cost, created_at_ns, reverses_id, -1 FROM entry WHERE reverses_id IS NOT NULL
    UNION ALL
    SELECT chain.id, chain.account_id, chain.cost, chain.at_ns, up.reverses_id, -chain.sign
    FROM chain JOIN entry up ON up.id = chain.root WHERE up.reverses_id < up.id
)
SELECT account_id, period, model_id, kind, {", ".join(f"sum({kind}) AS {kind}" for kind in _KINDS)}, sum(kept) AS kept
FROM (
    SELECT account_id, period, model_id, kind, {", ".join(_KINDS)}, cost AS kept FROM usage_sum
    UNION ALL
    SELECT account_id, created_at_ns / {PERIOD_NS}, model_id, {USED}, -cost, -1, {", ".join(f"-{kind}" for kind in _TOKENS)}, 0
    FROM entry WHERE type IN ('deduct', 'settle')
    UNION ALL
    SELECT chain.account_id, CASE undone.kind WHEN {UNDONE_AT_CALL} THEN e.created_at_ns ELSE chain.at_ns END / {PERIOD_NS},
        e.model_id, undone.kind, -chain.cost, -chain.sign, {", ".join(f"-chain.sign * e.{kind}" for kind in _TOKENS)}, 0
    FROM chain JOIN entry e ON e.id = chain.root
    CROSS JOIN (SELECT {UNDONE_AT_CALL} AS kind UNION ALL SELECT {UNDONE_AT_REVERSAL}) AS undone
    WHERE e.reverses_id IS NULL AND chain.cost <> 0
) AS both_sides
GROUP BY account_id, period, model_id, kind
HAVING {" OR ".join(f"sum({kind}) <> 0" for kind in _KINDS)}
ORDER BY account_id, period, model_id, kind
"""


def _usage_sums(tx: Transaction, found: Findings) -> None:
    for row in _rows(tx, _USAGE):
        found.note(
            "usage_sum", f"{row.account_id}/{row.period}/{row.model_id}/{row.kind}",
            N_(
                "The sum for account number {account}, quarter of an hour {period} and model number {model} is kept "
                "as {kept} 元, but what its entries say differs by {difference} 元 and {calls} calls."
            ),
            account=row.account_id, period=row.period, model=row.model_id, kept=format_yuan(int(row.kept)),
            difference=format_yuan(-int(row.cost)), calls=-int(row.calls),
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


def _seals(tx: Transaction, found: Findings) -> None:
    seals.verify(
        tx,
        lambda seal: found.note(
            "seal",
            seal.number,
            N_("Seal {id} no longer fits: an entry up to {last} that it closed was changed, added or removed."),
            last=seal.last_entry_id,
        ),
    )
