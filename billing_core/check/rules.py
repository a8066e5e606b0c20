"""The rules that the database joins or sorts for, and those of the rows beside the entries."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from .. import ledger, seals, settings
from ..database import Transaction
from ..i18n import N_
from ..models import Entry, Seal
from ..money import Hao
from .findings import Findings
from .reading import each_row, yuan
from .walk import Sums

_OUT_OF_PLACE = N_("Entry {id} holds something that can't be in its place.")
APPEND_ONLY = ("entry", "price", "price_change", "price_withdrawal", "price_rule", "seal", "audit")
VERSIONED = ("model", "price", "price_withdrawal", "price_rule", "setting")
"""The tables whose changes change `price_version`."""


def single_rules(tx: Transaction, found: Findings) -> None:
    """All but the walk through the entries, the sums of use and the file."""
    _triggers(tx, found)
    _seal_numbers(tx, found)
    _entries_that_name_others(tx, found)
    _holds(tx, found)
    _loose_ends(tx, found)
    _settings(tx, found)
    _audit(tx, found)


# The database itself


def file(tx: Transaction, found: Findings) -> None:
    if tx.is_sqlite:
        for (said,) in tx.connection().execute(sa.text("PRAGMA quick_check(1)")):
            if said != "ok":
                found.note("database", None, N_("The database file is damaged: {said}"), said=said)


class _Triggers(NamedTuple):
    """Triggers of one kind: SQLite has one a change, Postgres one a table."""

    tables: Sequence[str]
    changes: Sequence[str]
    sqlite_name: str
    sqlite: str
    """What it does, after its name."""
    postgres_name: str
    when: int
    """When it acts: 2 before; 4 an insert, 8 a delete, 16 an update, 32 a truncate."""
    function: str
    """What its function does."""


_REFUSING = _Triggers(
    APPEND_ONLY, ("UPDATE", "DELETE"), "no_{}",
    "BEFORE {change} ON {table} BEGIN SELECT RAISE(ABORT, 'a row of {table} never changes'); END",
    "never_changes", 2 + 8 + 16 + 32, "BEGIN RAISE EXCEPTION 'a row of % never changes', TG_TABLE_NAME; END",
)  # fmt: skip
_TELLING = _Triggers(
    VERSIONED, ("INSERT", "UPDATE", "DELETE"), "{}_version",
    "AFTER {change} ON {table} BEGIN UPDATE price_version SET version = random(); END",
    "version", 2 + 4 + 8 + 16 + 32,
    "BEGIN IF EXISTS (SELECT FROM pg_class WHERE relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) "
    "AND oid IN (TG_RELID, format('%I.price_version', TG_TABLE_SCHEMA)::regclass)) "
    "THEN RAISE EXCEPTION '% or price_version belongs to somebody else', TG_TABLE_NAME; END IF; "
    "EXECUTE format('UPDATE %I.price_version SET version = hashtextextended(gen_random_uuid()::text, 0)', TG_TABLE_SCHEMA); "
    "RETURN NULL; END",
)  # fmt: skip


def _triggers(tx: Transaction, found: Findings) -> None:
    """The database must refuse to change or delete an entry or a price, and tell charges of new prices."""
    for name in _missing(tx, _REFUSING):
        found.note(
            "trigger", name, N_("The trigger {id}, which keeps rows from being changed, is missing or switched off.")
        )
    for name in _missing(tx, _TELLING):
        found.note(
            "trigger", name, N_("The trigger {id}, which tells charges of new prices, is missing or switched off.")
        )
    if not tx.rows("SELECT version FROM price_version"):
        found.note("price_version", None, N_("The version of the prices is missing, so that nothing can be charged."))


def _missing(tx: Transaction, kind: _Triggers) -> list[str]:
    """The triggers that aren't there, or don't do what they should."""
    if tx.is_sqlite:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        there = {name: " ".join(sql.split()) for name, sql in tx.rows(query)}
        wanted = {
            f"{table}_{kind.sqlite_name.format(change.lower())}": kind.sqlite.format(change=change, table=table)
            for table in kind.tables
            for change in kind.changes
        }
        return [name for name, does in wanted.items() if there.get(name) != f"CREATE TRIGGER {name} {does}"]
    query = (
        "SELECT t.tgname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
        "WHERE t.tgrelid = to_regclass(replace(t.tgname, ?, '')) AND t.tgtype & ? = ? "
        "AND t.tgqual IS NULL AND t.tgenabled IN ('O', 'A') AND btrim(p.prosrc) = ?"
    )
    found = {name for (name,) in tx.rows(query, (f"_{kind.postgres_name}", kind.when, kind.when, kind.function))}
    return [name for table in kind.tables if (name := f"{table}_{kind.postgres_name}") not in found]


# Accounts


_DEADLINES = "SELECT account_id, min(expires_at_ns) FROM hold WHERE ended_by IS NULL GROUP BY account_id"


def accounts(tx: Transaction, found: Findings, sums: dict[int, Sums]) -> None:
    """What each account's row keeps, once all entries have been seen."""
    deadlines = {row[0]: row[1] for row in tx.connection().execute(sa.text(_DEADLINES))}
    rows = "SELECT id, user_id, balance, total_consumed, hold_expires_at_ns FROM account ORDER BY id"
    for row in each_row(tx, rows):
        account, user_id = sums.get(row.id, Sums()), row.user_id
        if row.balance != account.added:
            found.note(
                "account", user_id, N_("The balance of {id} is kept as {kept} 元, but its entries add up to {sum} 元."),
                kept=yuan(row.balance), sum=yuan(account.added),
            )  # fmt: skip
        if row.total_consumed != account.consumed:
            found.note(
                "account", user_id,
                N_("What {id} has consumed is kept as {kept} 元, but its calls less reversals add up to {sum} 元."),
                kept=yuan(row.total_consumed), sum=yuan(account.consumed),
            )  # fmt: skip
        if row.hold_expires_at_ns != deadlines.get(row.id):
            found.note("account", user_id, N_("The next deadline of {id} is not the earliest of its open precharges."))


# Entries that name others


_NAMING = """
SELECT e.id, e.account_id AS a_id, e.type, e.amount, e.cost, e.model_id, e.price_id, e.precharge_id, e.reverses_id,
    e.created_at_ns, p.account_id AS p_account, p.type AS p_type, p.cost AS p_cost, p.model_id AS p_model,
    p.price_id AS p_price, h.ended_by, h.expires_at_ns, own.held,
    r.account_id AS r_account, r.type AS r_type, r.cost AS r_cost, r.amount AS r_amount, r.model_id AS r_model,
    CASE WHEN e.reprices_id IS NOT NULL THEN (
        SELECT max(u.id) FROM entry o JOIN entry u ON u.reverses_id = o.id
        WHERE o.id = e.reprices_id AND o.type IN ('deduct', 'settle') AND o.account_id = e.account_id AND u.id < e.id
        AND o.model_id = e.model_id AND o.created_at_ns = e.created_at_ns
    ) END AS repriced_by
FROM entry e
LEFT JOIN entry p ON p.id = e.precharge_id
LEFT JOIN hold h ON h.precharge_id = e.precharge_id
LEFT JOIN hold own ON own.precharge_id = e.id
LEFT JOIN entry r ON r.id = e.reverses_id
WHERE e.type NOT IN ('deduct', 'recharge') OR e.reprices_id IS NOT NULL
ORDER BY e.id
"""


def _entries_that_name_others(tx: Transaction, found: Findings) -> None:
    for row in each_row(tx, _NAMING):
        try:
            _RULES[row.type](found, row)
        except (TypeError, KeyError):
            found.note("entry", row.id, _OUT_OF_PLACE)


def _repriced(found: Findings, row: Any) -> None:
    """The same call at another price: the entry that it stands for is reversed."""
    if row.repriced_by is None:
        found.note(
            "entry", row.id, N_("Entry {id} stands for a call of its account that isn't reversed, or isn't there.")
        )


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
    if (row.model_id, row.price_id) != (row.r_model, None):
        found.note("entry", row.id, _OUT_OF_PLACE)


@dataclass(slots=True)
class _Undone:
    type: str
    cost: Hao
    amount: Hao


_RULES: dict[str, Callable[[Findings, Any], None]] = {
    "deduct": _repriced, "precharge": _precharge, "settle": _end, "refund": _end, "expire": _end, "reversal": _reversal,
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
    for row in each_row(tx, _HOLDS):
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


_LOOSE_ENDS = (
    # From one account to the next in the index, not from one entry to the next.
    ("entry", "WITH RECURSIVE seen(id) AS (SELECT min(account_id) FROM entry UNION ALL "
     "SELECT (SELECT min(account_id) FROM entry WHERE account_id > seen.id) FROM seen WHERE seen.id IS NOT NULL) "
     "SELECT id FROM entry WHERE account_id IN (SELECT id FROM seen WHERE id NOT IN (SELECT id FROM account)) ORDER BY id",
     N_("Entry {id} belongs to no account.")),
    ("entry", "SELECT reverses_id FROM entry WHERE reverses_id IS NOT NULL GROUP BY reverses_id HAVING count(*) > 1 "
     "ORDER BY reverses_id", N_("Entry {id} has been reversed more than once.")),
    ("entry", "SELECT precharge_id FROM entry WHERE precharge_id IS NOT NULL GROUP BY precharge_id "
     "HAVING count(*) > 1 ORDER BY precharge_id", N_("Precharge {id} has ended more than once.")),
    ("entry", "SELECT id FROM entry WHERE reverses_id IS NOT NULL AND type <> 'reversal' ORDER BY id", _OUT_OF_PLACE),
    ("entry", "SELECT id FROM entry WHERE reprices_id IS NOT NULL AND type <> 'deduct' ORDER BY id", _OUT_OF_PLACE),
    ("entry", "SELECT id FROM entry WHERE precharge_id IS NOT NULL AND type NOT IN ('settle', 'refund', 'expire') ORDER BY id",
     _OUT_OF_PLACE),
    ("entry", "SELECT id FROM entry WHERE type = 'recharge' AND coalesce(model_id, price_id, prompt_tokens, completion_tokens) "
     "IS NOT NULL ORDER BY id", _OUT_OF_PLACE),
    ("price", "SELECT p.id FROM price_withdrawal w JOIN price p ON p.id = w.price_id WHERE w.created_at_ns >= p.valid_from_ns "
     "ORDER BY p.id", N_("Price {id} was withdrawn after it had begun to count.")),
    ("reversal_item", "SELECT i.job_id || '/' || i.entry_id FROM reversal_item i JOIN entry e ON e.id = i.entry_id "
     "JOIN price p ON p.id = i.price_id WHERE p.model_id <> e.model_id ORDER BY i.job_id, i.entry_id",
     N_("Item {id} of a job names a price of another model.")),
    ("idempotency", "SELECT i.scope || '/' || i.key FROM idempotency i LEFT JOIN entry e ON e.id = i.entry_id "
     "WHERE i.entry_id IS NOT NULL AND e.id IS NULL ORDER BY i.scope, i.key",
     N_("The idempotency key {id} names an entry that isn't there.")),
)  # fmt: skip


def _loose_ends(tx: Transaction, found: Findings) -> None:
    for table, statement, message in _LOOSE_ENDS:
        for (id,) in each_row(tx, statement):
            found.note(table, id, message)


def _settings(tx: Transaction, found: Findings) -> None:
    for name, value in tx.rows("SELECT name, value FROM setting ORDER BY name"):
        if name in settings.DEFAULTS and not (isinstance(value, str) and settings.can_be(name, value)):
            found.note("setting", name, N_("The setting {id} holds something that it can't be set to."))


def _audit(tx: Transaction, found: Findings) -> None:
    """Each row can be read: the price of a late call depends on what settings were before."""
    for id, action, text in each_row(tx, "SELECT id, action, detail FROM audit ORDER BY id"):
        try:
            detail = json.loads(text)
            right = isinstance(detail, dict)
            if action == "setting.change":
                right = right and list(map(type, detail.get("value") or ())) == [str, str]
        except (ValueError, TypeError):
            right = False
        if not right:
            found.note("audit", id, N_("Row {id} of the audit log can't be read."))


# Seals


def seals_in_place(tx: Transaction) -> list[Seal]:
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
    good = seals_in_place(tx)
    found.seals, found.newest_seal = len(good), good[-1].hash if good else None
    if len(good) != tx.connection().scalar(sa.text("SELECT count(*) FROM seal")):
        found.note("seal", len(good) + 1, N_("Seal {id} is missing, or out of its place."))
