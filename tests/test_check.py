"""Whatever is changed behind the ledger's back is found, and named."""

import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
import sums_reference
from conftest import Clock

from billing_core import accounts, idempotency, ledger, pricing, repricing, seals, stretches, sums
from billing_core import check as check_module
from billing_core.actors import SHELL
from billing_core.check import APPEND_ONLY, VERSIONED, check
from billing_core.database import Database, Transaction
from billing_core.models import ACCOUNT, BOTH, OTHER, USED, Setting
from billing_core.models import MODEL as SUM_OF_MODEL
from billing_core.rates import More
from billing_core.tokens import Extras, Tokens

MODEL = "openai/gpt-4o"


@pytest.fixture
def books(db: Database, clock: Clock) -> Database:
    """A ledger with every kind of entry:

    1 recharge, 2 deduct, 3 precharge, 4 settle of 3, 5 precharge, 6 refund of 5, 7 precharge, 8 expire of 7,
    9 reversal of 2, 10 reversal of 9, 11 reversal of 4, 12 precharge that holds, 13 recharge of the other account,
    14 precharge, 15 reversal of 14.
    """

    def write(tx: Transaction) -> None:
        for user_id in ("ann", "bob"):
            accounts.add(tx, user_id, user_id.title(), actor=SHELL)
        once = idempotency.Once.of(SHELL, "key-1", "recharge")
        ledger.recharge(tx, "ann", 1_000_000, actor=SHELL, remark="首充", once=once)
        ledger.charge(tx, "ann", MODEL, Tokens(3000, 400, 1000, 500, 100), actor=SHELL)
        hold = ledger.precharge(tx, "ann", MODEL, 1000, 500, actor=SHELL)
        ledger.settle(tx, hold.entry_id, Tokens(1100, 600), actor=SHELL)
        hold = ledger.precharge(tx, "ann", MODEL, 1000, 500, actor=SHELL)
        ledger.refund(tx, hold.entry_id, actor=SHELL)
        ledger.precharge(tx, "ann", MODEL, 1000, 500, actor=SHELL, ttl_seconds=60)
        tx.now_ns += 61 * 10**9
        ledger.expire_holds(tx)
        ledger.reverse(tx, 2, "wrong", actor=SHELL)
        ledger.reverse(tx, 9, "right after all", actor=SHELL)
        ledger.reverse(tx, 4, "failed", actor=SHELL)
        ledger.precharge(tx, "ann", MODEL, 2000, 500, actor=SHELL)
        ledger.recharge(tx, "bob", 10_000, actor=SHELL)
        hold = ledger.precharge(tx, "ann", MODEL, 10, 10, actor=SHELL)
        ledger.reverse(tx, hold.entry_id, "stuck", actor=SHELL)

    db.write(write)
    return db


def run(db: Database, *statements: str) -> None:
    """Past SQLAlchemy, as somebody with the database's file or password could."""
    if db.file:
        with closing(sqlite3.connect(db.file, isolation_level=None)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            for statement in statements:
                connection.execute(statement)
    else:
        with db.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    db.engine.dispose()


def tamper(db: Database, *statements: str) -> None:
    """Change rows, with the triggers out of the way meanwhile."""
    off, on = [], []
    for table in APPEND_ONLY:
        if db.file:
            for name in (f"{table}_no_update", f"{table}_no_delete"):
                query = sa.text("SELECT sql FROM sqlite_master WHERE name = :name")
                on.append(db.read(lambda tx, q, n: tx.connection().scalar(q, {"name": n}), query, name))
                off.append(f"DROP TRIGGER {name}")
        else:
            off.append(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            on.append(f"ALTER TABLE {table} ENABLE TRIGGER ALL")
    run(db, *off, *statements, *on)


def found(db: Database) -> list[tuple[str, Any, str]]:
    return [(one.table, one.id, one.sentence()) for one in check(db)]


def test_nothing_is_found_where_everything_adds_up(books: Database) -> None:
    findings = check(books)
    assert (list(findings), findings.entries) == ([], 15)


def test_an_empty_database_adds_up(db: Database) -> None:
    assert (list(check(db)), check(db).entries) == ([], 0)


SET = "UPDATE entry SET "
CASES: list[tuple[Sequence[str], str, Any, str]] = [
    ([SET + "balance_after = balance_after + 1 WHERE id = 6"], "entry", 6, "Entry 6 of ann ends with"),
    ([SET + "amount = amount + 10000 WHERE id = 1"], "entry", 1, "Entry 1 of ann ends with 100.00 元, but .* 101.00 元"),
    ([SET + "amount = 0, balance_after = 0 WHERE id = 13", "UPDATE account SET balance = 0 WHERE user_id = 'bob'"],
     "entry", 13, "moves nothing"),
    ([SET + "cost = 5 WHERE id = 13"], "entry", 13, "or has a cost"),
    ([SET + "cost = cost + 1 WHERE id = 2"], "entry", 2, "another amount than its cost"),
    ([SET + "prompt_tokens = prompt_tokens + 100 WHERE id = 2"], "entry", 2, "but its tokens at its price cost"),
    ([SET + "completion_tokens = 1 WHERE id = 4"], "entry", 4, "Entry 4 cost .* but its tokens at its price cost"),
    ([SET + "prompt_tokens = 900 WHERE id = 3"], "entry", 3, "Entry 3 cost"),
    ([SET + "cached_tokens = 9000 WHERE id = 2"], "entry", 2, "token counts that can't be"),
    ([SET + "reasoning_tokens = NULL WHERE id = 2"], "entry", 2, "token counts that can't be"),
    (["UPDATE price SET input = input + 1000000"], "entry", 2, "but its tokens at its price cost"),
    (["UPDATE price SET input = NULL"], "entry", 2, "names no price of its model"),
    ([SET + "price_id = NULL WHERE id = 2"], "entry", 2, "names no price of its model"),
    ([SET + "amount = amount - 1, cost = cost + 1 WHERE id = 12"], "hold", 12, "kept with another amount"),
    ([SET + "amount = amount - 1 WHERE id = 12"], "entry", 12, "takes another amount than it holds"),
    (["DELETE FROM hold WHERE precharge_id = 12"], "entry", 12, "of which no hold is kept"),
    (["UPDATE hold SET held = held + 1 WHERE precharge_id = 12"], "hold", 12, "kept with another amount"),
    (["UPDATE hold SET ended_by = NULL WHERE precharge_id = 5"], "entry", 6, "whose hold says otherwise"),
    (["UPDATE hold SET ended_by = 6 WHERE precharge_id = 12"], "hold", 12, "not kept as ended by the entry"),
    (["UPDATE hold SET ended_by = NULL WHERE precharge_id = 14"], "hold", 14, "not kept as ended by the entry"),
    (["UPDATE hold SET ended_by = 9 WHERE precharge_id = 14"], "hold", 14, "not kept as ended by the entry"),
    (["INSERT INTO hold (precharge_id, account_id, held, expires_at_ns) VALUES (1, 1, 1, 1)"], "hold", 1, "no precharge"),
    (["UPDATE hold SET account_id = 2 WHERE precharge_id = 5"], "hold", 5, "no precharge of its account"),
    ([SET + "precharge_id = 12 WHERE id = 6"], "entry", 6, "Entry 6 ends precharge 12, whose hold says otherwise"),
    ([SET + "precharge_id = 1 WHERE id = 6"], "entry", 6, "a precharge that its account doesn't have"),
    ([SET + "precharge_id = 3 WHERE id = 6"], "entry", 3, "Precharge 3 has ended more than once"),
    ([SET + "amount = amount + 1 WHERE id = 6"], "entry", 6, "another amount back"),
    ([SET + "amount = amount + 1 WHERE id = 4"], "entry", 4, "another amount back"),
    ([SET + "amount = amount + 1 WHERE id = 8"], "entry", 8, "another amount back"),
    ([SET + "model_id = NULL WHERE id = 6"], "entry", 6, "another model or price than its precharge"),
    ([SET + "created_at_ns = created_at_ns + 1 WHERE id = 8"], "entry", 8, "another moment than"),
    ([SET + "amount = amount + 1 WHERE id = 9"], "entry", 9, "does not undo exactly what entry 2 did"),
    ([SET + "cost = 0 WHERE id = 11"], "entry", 11, "does not undo exactly what entry 4 did"),
    ([SET + "reverses_id = 13 WHERE id = 9"], "entry", 9, "reverses an entry that its account doesn't have"),
    (["DROP INDEX entry_reversed_once", SET + "reverses_id = 4 WHERE id = 15"], "entry", 4, "reversed more than once"),
    (["UPDATE account SET balance = balance + 10000 WHERE user_id = 'bob'"], "account", "bob",
     r"The balance of bob is kept as 2.00 元, but its entries add up to 1.00 元\."),
    (["UPDATE account SET total_consumed = 7 WHERE user_id = 'bob'"], "account", "bob", "has consumed is kept as 0.0007"),
    (["UPDATE account SET hold_expires_at_ns = NULL"], "account", "ann", "is not the earliest"),
    (["UPDATE account SET hold_expires_at_ns = 5 WHERE user_id = 'bob'"], "account", "bob", "is not the earliest"),
    (["UPDATE usage_sum SET cost = cost + 1"], "usage_sum", None, "differs by -0.0001 元 and 0 calls"),
    (["UPDATE usage_sum SET calls = calls + 1"], "usage_sum", None, "and -1 calls"),
    (["UPDATE usage_sum SET reasoning_tokens = 0"], "usage_sum", None, "and 0 calls"),
    (["DELETE FROM usage_sum"], "usage_sum", None, "and 2 calls"),
    (["UPDATE usage_sum SET period = period + 1"], "usage_sum", None, "and 2 calls"),
    (["UPDATE usage_open SET cost = cost + 10000"], "usage_sum", None, r"is kept as 1\.\d+ 元, .* by -1.00 元 and 0 calls"),
    (["UPDATE usage_open SET calls = calls + 1"], "usage_sum", None, "and -1 calls"),
    (["UPDATE usage_open SET reasoning_tokens = 0"], "usage_sum", None, "and 0 calls"),
    (["UPDATE usage_open SET upstream_cost = 7"], "usage_sum", None, "and 0 calls"),
    (["DELETE FROM usage_open"], "usage_sum", None, "and 2 calls"),
    (["UPDATE usage_open SET quarter = quarter + 1"], "usage_sum", None, "and 2 calls"),
    (["UPDATE usage_open SET quarter = 1" + 18 * "0"], "usage_sum", None, "and 2 calls"),
    (["UPDATE usage_open SET account_id = 2 WHERE model_id > 0"], "usage_sum", None, "account number 1 .* and 2 calls"),
    (["UPDATE usage_open SET model_id = 99 WHERE model_id > 0"], "usage_sum", None, "model number 1 .* and 2 calls"),
    (["UPDATE usage_open SET calls = calls + 1 WHERE model_id = 0"], "usage_sum", None,
     "recharges of account number .* by 0.00 元 and -1 entries that are no calls"),
    (["DELETE FROM usage_open WHERE model_id = 0"], "usage_sum", None, "recharges of account number 1 .* by 100.00 元 and 12 entries"),
    (["UPDATE usage_sum SET cost = cost + 1 WHERE kind = 3"], "usage_sum", None, "by -0.0001 元 and 0 entries"),
    (["DELETE FROM usage_sum WHERE kind = 3 AND length = 96"], "usage_sum", None, "for 1 day from .* entries that are no calls"),
    ([SET + "created_at_ns = created_at_ns - 900000000000 WHERE id = 2"], "usage_sum", None, "differs by"),
    *(([f"{SET}{column} = {other} WHERE id = {id}"], "entry", id, "something that can't be in its place")
      for column, other, id in (
        ("reverses_id", 13, 2), ("reverses_id", 1, 13), ("precharge_id", 12, 2), ("precharge_id", 12, 9), ("precharge_id", 12, 1),
        ("reprices_id", 2, 12), ("reprices_id", 2, 6), ("reprices_id", 2, 9), ("model_id", 1, 1), ("price_id", 1, 13),
        ("prompt_tokens", 0, 1), ("model_id", "NULL", 9), ("price_id", 1, 11))),
    *(([f"INSERT INTO setting (name, value) VALUES ('{name}', '{value}')"], "setting", name, "it can't be set to")
      for name, value in (("usd_rate", "much"), ("usd_rate", "0"), ("backup_keep", "0"), ("reversals_count_in", ""))),
    *(([f"INSERT INTO audit (id, at_ns, origin, action, subject, detail) VALUES (99, 1, 'shell', '{action}', 'x', '{detail}')"],
       "audit", 99, "Row 99 of the audit log can't be read")
      for action, detail in (("check", "{"), ("check", "[]"), ("setting.change", "{}"), ("setting.change", '{"value":[1,2]}'))),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_changed_row_is_named(books: Database, clock: Clock, case: int) -> None:
    statements, table, id, words = CASES[case]
    if table == "usage_sum" and "usage_open" not in statements[0]:
        sums_reference.close(books, clock)
    tamper(books, *statements)
    seen = found(books)
    assert any((at == table and (id is None or name == id) and re.search(words, text)) for at, name, text in seen), seen


def test_a_row_that_the_database_would_not_have_taken_is_named(books: Database) -> None:
    if books.is_sqlite:
        tamper(books, SET + "amount = 'much' WHERE id = 6")
        assert ("entry", 6, "Entry 6 holds something that can't be in its place.") in found(books)
        tamper(books, SET + "amount = 0 WHERE id = 6", SET + "type = 'gift' WHERE id = 13")
        assert ("entry", 13, "Entry 13 holds something that can't be in its place.") in found(books)


@pytest.mark.parametrize("column", ["amount", "balance_after", "cost"])
def test_a_number_that_is_not_whole_is_told_of_as_it_stands(books: Database, column: str) -> None:
    if books.is_sqlite:
        tamper(books, f"{SET}{column} = 1.5 WHERE id = 2")
        assert any(id == 2 for _, id, _ in found(books))


def test_sums_too_large_to_add_up_are_found(books: Database) -> None:
    tamper(books, f"UPDATE usage_sum SET calls = {2**63 - 1}", f"UPDATE usage_sum SET cost = {2**63 - 1}")
    assert any(table == "usage_sum" for table, _, _ in found(books))


def test_an_entry_before_the_first_is_looked_at(books: Database) -> None:
    run(books, "INSERT INTO entry (id, account_id, type, amount, balance_after, cost, created_at_ns) "
        "VALUES (-1, 2, 'recharge', 10000, 10000, 0, 1)")  # fmt: skip
    assert any(name == "bob" and "entries add up to 2.00 元" in text for _, name, text in found(books))


def test_a_row_whose_neighbour_is_gone_is_named(books: Database) -> None:
    if not books.file:  # foreign keys are triggers there
        run(books, "SET session_replication_role = replica", *_ORPHANS, "SET session_replication_role = origin")
    else:
        tamper(books, *_ORPHANS)
    seen = found(books)
    assert ("entry", 13, "Entry 13 belongs to no account.") in seen
    assert ("idempotency", "0/key-1", "The idempotency key 0/key-1 names an entry that isn't there.") in seen


_ORPHANS = ("DELETE FROM account WHERE user_id = 'bob'", "UPDATE idempotency SET entry_id = 999")


def test_the_first_row_of_a_rule_is_named_and_the_others_are_counted(books: Database) -> None:
    tamper(books, "UPDATE hold SET held = held + 1")
    seen = [text for _, _, text in found(books)]
    assert seen == ["The hold of precharge 3 is kept with another amount than the entry took. (4 more like it.)"]


# The sums of use


@pytest.fixture
def used(db: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A ledger with every kind of sum: ann is busy, bob isn't; of what they used some is undone, or charged anew."""
    monkeypatch.setattr(sums, "BUSY_CALLS", 4)
    for user_id in ("ann", "bob"):
        db.write(accounts.add, user_id, user_id.title(), actor=SHELL)
    more = More(cache_write_1h=30_000_000, call=1_000)
    price = db.write(pricing.set_price, "rich/model", 18_000_000, 72_000_000, actor=SHELL, more=more)
    tokens = Tokens(3000, 400, 1000, 500, 100, Extras(cache_creation_1h=50, upstream_usd=Decimal("0.0012")))

    def charge(user_id: str, model: str = "rich/model") -> ledger.Receipt:
        clock.forward(seconds=3700)
        return db.write(ledger.charge, user_id, model, tokens, actor=SHELL, allow_debt=True)

    first, *_others = [charge("ann") for _ in range(4)]
    charge("ann", MODEL)
    undone = charge("bob")
    db.write(ledger.reverse, undone.entry_id, "wrong", actor=SHELL)
    clock.forward(days=9)
    price = db.write(pricing.set_price, "rich/model", 19_000_000, 72_000_000, actor=SHELL, more=more)
    assert price.id is not None
    db.write(ledger.reprice, first.entry_id, price.id, "a wrong price", actor=SHELL)
    assert sums_reference.kept(db) == sums_reference.expected(db)
    assert not check(db)
    return db


def one_of_each(db: Database) -> list[Any]:
    """A row of `usage_sum` of every kind and length."""
    every = db.read(lambda tx: tx.connection().execute(sa.text("SELECT * FROM usage_sum")).all())
    return list({(row.of, row.length, row.kind): row for row in every}.values())


def here(row: Any) -> str:
    return "WHERE " + " AND ".join(f"{name} = {getattr(row, name)}" for name in sums.KEY)


def named(db: Database) -> list[str]:
    """The sums that are found to be wrong, but for those that are only counted."""
    findings = check(db)
    assert {one.table for one in findings} <= {"usage_sum"}
    return [str(one.id) for one in findings]


def name_of(row: Any) -> str:
    return "/".join(str(getattr(row, name)) for name in ("of", "length", "period", "account_id", "model_id", "kind"))


def test_every_kind_of_sum_is_there_to_be_checked(used: Database) -> None:
    assert len(one_of_each(used)) == 16 + 2 * 18 + 4
    for name in sums.SUMS:
        assert any(getattr(row, name) for row in one_of_each(used)), name


def test_a_change_to_any_number_of_any_sum_is_found_and_named(used: Database) -> None:
    for place, row in enumerate(one_of_each(used)):
        name = sums.SUMS[place % len(sums.SUMS)]
        run(used, f"UPDATE usage_sum SET {name} = {name} + 1 {here(row)}")
        assert named(used) == [name_of(row)]
        run(used, f"UPDATE usage_sum SET {name} = {name} - 1 {here(row)}")
    assert not check(used)


def test_a_sum_that_is_missing_is_found_and_named(used: Database) -> None:
    names = ", ".join((*sums.KEY, *sums.SUMS))
    for row in one_of_each(used):
        run(used, f"DELETE FROM usage_sum {here(row)}")
        assert named(used)[0] == name_of(row)
        run(used, f"INSERT INTO usage_sum ({names}) VALUES ({', '.join(map(str, row))})")
    assert not check(used)


def test_a_sum_too_many_is_found_and_named(used: Database) -> None:
    names = ", ".join((*sums.KEY, *sums.SUMS))
    rows = one_of_each(used)
    changes: list[dict[str, int]] = [{"period": row.period + 10_000} for row in rows]
    changes += [{"length": 7}, {"length": 4}, {"of": 3}, {"of": -1}, {"kind": 7}, {"account_id": 99}, {"model_id": 99}]
    for place, change in enumerate(changes):
        row = rows[place % len(rows)]._asdict() | change
        if change == {"length": 4}:  # which BOTH has
            row["of"] = ACCOUNT
        run(used, f"INSERT INTO usage_sum ({names}) VALUES ({', '.join(map(str, row.values()))})")
        where = " AND ".join(f"{name} = {row[name]}" for name in sums.KEY)
        assert named(used) == ["/".join(str(row[name]) for name in sums.KEY[:-1])], change
        run(used, f"DELETE FROM usage_sum WHERE {where}")
    assert not check(used)


def test_a_place_that_python_takes_for_another_is_another(used: Database) -> None:
    for name in ("period", "account_id", "model_id"):
        row = one_of_each(used)[0]
        run(used, f"UPDATE usage_sum SET {name} = {name} + {2**61 - 1} {here(row)}")
        assert check(used), name
        run(used, f"UPDATE usage_sum SET {name} = {name} - {2**61 - 1} WHERE {name} >= {2**61 - 1}")
    assert not check(used)


def test_the_parts_of_a_sum_of_a_model_are_added_up_and_no_other_sum_has_any(used: Database) -> None:
    names, ofs = ", ".join((*sums.KEY, *sums.SUMS)), {row.of: row for row in one_of_each(used)}
    for of, row in ofs.items():
        part = row._asdict() | {"slot": 3}
        run(
            used,
            f"INSERT INTO usage_sum ({names}) VALUES ({', '.join(map(str, part.values()))})",
            f"UPDATE usage_sum SET {', '.join(f'{name} = 0' for name in sums.SUMS)} {here(row)}",
        )
        assert bool(check(used)) == (of != SUM_OF_MODEL)


def test_sums_that_a_busy_account_lacks_are_found(used: Database) -> None:
    for length in sums.BUSY:
        kept = used.read(lambda tx, n: tx.connection().execute(sa.text(n)).all(), _BUSY.format("SELECT *", length))
        run(used, _BUSY.format("DELETE", length))
        assert f"2/{length}/" in named(used)[0]
        values = ", ".join(f"({', '.join(map(str, row))})" for row in kept)
        run(used, f"INSERT INTO usage_sum ({', '.join((*sums.KEY, *sums.SUMS))}) VALUES {values}")
    assert not check(used)
    run(used, f"DELETE FROM usage_sum WHERE of = {BOTH} AND kind = {USED} AND length < {sums.LONG}")
    assert named(used)


_BUSY = f"{{}} FROM usage_sum WHERE of = {BOTH} AND length = {{}} AND kind = {USED}"


def test_sums_that_only_a_busy_account_has_are_found_with_another(
    used: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "BUSY_CALLS", 1)
    needless = {key: row for key, row in sums_reference.expected(used).items() if key not in sums_reference.kept(used)}
    assert {key[3] for key in needless} >= {2}
    for key, row in needless.items():
        names = ", ".join((*sums_reference.KEYS, "slot", *sums_reference.NUMBERS))
        run(used, f"INSERT INTO usage_sum ({names}) VALUES ({', '.join(map(str, (*key, 0, *row)))})")
    assert not check(used)
    monkeypatch.setattr(sums, "BUSY_CALLS", 4)
    assert named(used)


def test_a_call_more_or_less_that_makes_an_account_busy_is_found(
    used: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = f"SELECT max(calls) FROM usage_sum WHERE of = {ACCOUNT} AND length = {sums.LONG} AND kind = {USED}"
    calls = used.read(lambda tx: tx.connection().execute(sa.text(query)).scalar_one())
    for more in (0, 1):
        monkeypatch.setattr(sums, "BUSY_CALLS", calls + more)
        assert bool(named(used)) == bool(more)


@pytest.mark.parametrize("what", ["'much'", "''", "1.5", "x'00'", "-9223372036854775808", "9223372036854775807"])
def test_whatever_stands_in_a_sum_the_check_tells_of_it(used: Database, what: str) -> None:
    if not used.is_sqlite and not what.strip("-").isdigit():
        return  # it would not be taken
    row = one_of_each(used)[-1]
    for name in (*sums.KEY, *sums.SUMS):
        if name == "slot" and row.of == SUM_OF_MODEL:
            continue
        run(used, f"UPDATE usage_sum SET {name} = {what} {here(row)}")
        findings = check(used)
        assert [one.table for one in findings][:1] == ["usage_sum"], (name, what)
        used.write(check_module.remember, findings)
        assert all(one.sentence() and one.sentence("zh_CN") for one in findings)
        changed = row._asdict() | {name: what}
        where = " AND ".join(f"{key} = {changed[key]}" for key in sums.KEY)
        run(used, f"UPDATE usage_sum SET {name} = {getattr(row, name)} WHERE {where}")
    assert not check(used)


FORGED = {
    "the model of a count": [
        f"UPDATE usage_sum SET model_id = 7 WHERE kind = {OTHER} AND length = 16 AND account_id = 1"
    ],
    "the model of a sum": [
        f"UPDATE usage_sum SET model_id = 77 WHERE of = {SUM_OF_MODEL} AND length = 96 AND kind = {USED} AND model_id = 1"
    ],
    "one account's money, as another's": [
        f"UPDATE usage_sum SET cost = cost {sign} 5000 WHERE of = {ACCOUNT} AND length = 96 AND kind = {USED} AND account_id = {number}"
        for sign, number in (("+", 1), ("-", 2))
    ],
    "a stretch's recharges, as another's": [
        f"UPDATE stretch_holds SET recharged = recharged {sign} 5 WHERE what = -6 AND number = {number}"
        for sign, number in (("+", 1), ("-", 2))
    ],
}


@pytest.mark.parametrize("what", FORGED)
def test_what_is_forged_is_found_each_time(used: Database, clock: Clock, what: str) -> None:
    """What is compared is a sum of throws: none of them may make up for another."""
    for _time in range(2):
        used.write(ledger.recharge, "ann", 100, actor=SHELL)
        used.write(ledger.recharge, "bob", 100, actor=SHELL)
        seals.close(used, everything=True)
        clock.forward(days=1)
    stretches.fill(used)
    used.write(ledger.charge, "ann", MODEL, Tokens(10, 10), actor=SHELL, allow_debt=True)
    assert not check(used)
    run(used, *FORGED[what])
    assert all(check(used) for _time in range(40))


@pytest.mark.parametrize("what", ["'much'", "''", "1.5", "x'00'", "-9223372036854775808", "9223372036854775807"])
def test_whatever_stands_in_what_is_open_the_check_tells_of_it(used: Database, what: str) -> None:
    if not used.is_sqlite and not what.strip("-").isdigit():
        return  # it would not be taken
    used.write(ledger.charge, "ann", MODEL, Tokens(10, 10), actor=SHELL, allow_debt=True)
    for row in still_open(used):
        for name in row._fields:
            changed = row._asdict() | {name: what}
            run(used, f"UPDATE usage_open SET {name} = {what} {which(row._asdict())}")
            findings = check(used)
            assert [one.table for one in findings][:1] == ["usage_sum"], (name, what)
            assert all(one.sentence() and one.sentence("zh_CN") for one in findings)
            run(used, f"UPDATE usage_open SET {name} = {getattr(row, name)} {which(changed)}")
    assert not check(used)


def still_open(db: Database) -> list[Any]:
    """The rows of `usage_open`: of a call, and of an account's other entries."""
    rows = db.read(lambda tx: tx.connection().execute(sa.text("SELECT * FROM usage_open ORDER BY model_id")).all())
    assert [bool(row.model_id) for row in rows] == [False, True]
    return list(rows)


def which(row: dict[str, Any]) -> str:
    return "WHERE " + " AND ".join(f"{name} = {row[name]}" for name in ("quarter", "account_id", "model_id"))


@pytest.mark.parametrize("name", ["quarter", "account_id", "model_id"])
@pytest.mark.parametrize("number", [2**61 + 1, 2**62 + 1, 2**63 - 1, -(2**63), -1])
def test_an_open_row_too_many_is_found(used: Database, name: str, number: int) -> None:
    used.write(ledger.charge, "ann", MODEL, Tokens(10, 10), actor=SHELL, allow_debt=True)
    for row in still_open(used):
        other = row._asdict() | {name: number}
        run(used, f"INSERT INTO usage_open ({', '.join(other)}) VALUES ({', '.join(map(str, other.values()))})")
        findings = check(used)
        assert [one.table for one in findings][:1] == ["usage_sum"]
        assert all(one.sentence() and one.sentence("zh_CN") for one in findings)
        run(used, f"DELETE FROM usage_open {which(other)}")
    assert not check(used)


@pytest.mark.parametrize("what", ["'much'", "''", "1.5", "x'00'", "-9223372036854775808", "9223372036854775807"])
def test_whatever_stands_in_a_call_the_check_tells_of_it(used: Database, what: str) -> None:
    if not used.is_sqlite and not what.strip("-").isdigit():
        return  # it would not be taken
    for name in (
        *sums.SUMS[2:7],
        "cost",
        "amount",
        "balance_after",
        "created_at_ns",
        "recorded_at_ns",
        "upstream_yuan",
    ):
        (kept,) = used.read(
            lambda tx, n: tx.connection().execute(sa.text(n)).one(), f"SELECT {name} FROM entry WHERE id = 2"
        )
        tamper(used, f"{SET}{name} = {what} WHERE id = 2")
        findings = check(used)
        assert findings or name == "recorded_at_ns", (name, what)  # which nothing but a seal holds
        assert all(one.sentence() and one.sentence("zh_CN") for one in findings)
        tamper(used, f"{SET}{name} = {'NULL' if kept is None else kept} WHERE id = 2")
    assert not check(used)


def test_a_sum_is_named_in_plain_words(used: Database) -> None:
    run(
        used,
        f"UPDATE usage_sum SET cost = cost + 10000 WHERE of = {ACCOUNT} AND length = 16 AND account_id = 2 AND kind = 0",
    )
    (one,) = check(used)
    told = one.sentence()
    assert re.fullmatch(
        r"The sum of account number 2 for 4 hours from 2025-06-15 \d\d:00 \(UTC\) is kept as \d\.\d+ 元, but what its entries "
        r"say differs by -1\.00 元 and 0 calls\.",
        told,
    ), told
    assert "账户编号 2自 " in one.sentence("zh_CN")


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_a_trigger_that_is_missing_is_named(books: Database, table: str) -> None:
    name = f"{table}_no_update" if books.is_sqlite else f"{table}_never_changes"
    run(books, f"DROP TRIGGER {name}" + ("" if books.is_sqlite else f" ON {table}"))
    assert [(at, id) for at, id, _ in found(books)] == [("trigger", name)]


@pytest.mark.parametrize("table", VERSIONED)
def test_a_trigger_that_tells_of_prices_no_more_is_named(books: Database, table: str) -> None:
    names = (
        [f"{table}_{change}_version" for change in ("insert", "update", "delete")]
        if books.is_sqlite
        else [f"{table}_version"]
    )
    for name in names:
        run(books, f"DROP TRIGGER {name}" + ("" if books.is_sqlite else f" ON {table}"))
    assert [(at, id) for at, id, _ in found(books)] == [("trigger", names[0])]


def test_a_version_of_the_prices_that_is_missing_is_named(books: Database) -> None:
    run(books, "DELETE FROM price_version")
    assert [at for at, _, _ in found(books)] == ["price_version"]


def test_a_trigger_that_does_nothing_is_named(books: Database) -> None:
    if books.is_sqlite:
        nothing = "CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry BEGIN SELECT 1; END"
        run(books, "DROP TRIGGER entry_no_delete", nothing)
    else:
        run(books, "ALTER TABLE entry DISABLE TRIGGER entry_never_changes")
    assert [at for at, _, _ in found(books)] == ["trigger"]


def test_a_trigger_that_only_looks_like_it_is_named(books: Database) -> None:
    """What it says stands there, and does nothing."""
    if books.is_sqlite:
        run(
            books,
            "DROP TRIGGER entry_no_update", "DROP TRIGGER price_insert_version",
            "CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'a row of entry never changes') WHERE 0; END",
            "CREATE TRIGGER price_insert_version AFTER INSERT ON price BEGIN UPDATE price_version SET version = version; END",
        )  # fmt: skip
        assert [id for _, id, _ in found(books)] == ["entry_no_update", "price_insert_version"]
    else:
        run(books, "CREATE OR REPLACE FUNCTION never_changes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF false THEN "
            "RAISE EXCEPTION 'a row of %% never changes', TG_TABLE_NAME; END IF; RETURN NULL; END $$")  # fmt: skip
        assert {at for at, _, _ in found(books)} == {"trigger"}


def test_a_history_of_prices_that_was_changed_is_named(books: Database, clock: Clock) -> None:
    price = books.write(pricing.set_price, MODEL, 5_000_000, 5_000_000, actor=SHELL)
    clock.forward(seconds=60)
    charge = books.write(ledger.charge, "ann", MODEL, Tokens(10, 10), actor=SHELL).entry_id
    assert not check(books)
    began = f"{price.valid_from_ns}"
    tamper(books, f"INSERT INTO price_withdrawal (price_id, created_at_ns) VALUES ({price.id}, {began} + 1)")
    assert found(books) == [("price", price.id, f"Price {price.id} was withdrawn after it had begun to count.")]
    tamper(
        books, "DELETE FROM price_withdrawal", f"UPDATE price SET valid_from_ns = {clock() + 1} WHERE id = {price.id}"
    )
    assert found(books) == [("entry", charge, f"Entry {charge} was charged at a price that began to count only later.")]


def test_an_item_of_a_job_at_another_models_price_is_named(books: Database) -> None:
    charge = books.write(ledger.charge, "ann", MODEL, Tokens(10, 10), actor=SHELL).entry_id
    books.write(pricing.set_price, MODEL, 5_000_000, 5_000_000, actor=SHELL)
    other = books.write(pricing.set_price, "other/model", 0, 0, actor=SHELL).id
    seen = books.read(repricing.preview, [charge], actor=SHELL).seen
    books.write(repricing.start, [charge], "wrong", actor=SHELL, seen=seen)
    assert not check(books)
    run(books, f"UPDATE reversal_item SET price_id = {other}")
    assert found(books) == [
        ("reversal_item", f"1/{charge}", f"Item 1/{charge} of a job names a price of another model.")
    ]


@pytest.mark.parametrize(("table", "column"), [("entry", "remark"), ("account", "user_id"), ("model", "name")])
def test_text_that_is_none_is_told(books: Database, table: str, column: str) -> None:
    if books.is_sqlite:
        tamper(books, f"UPDATE {table} SET {column} = CAST(x'ff' AS TEXT) WHERE id = 1")
        assert any(at == "database" and "text that is none" in text for at, _, text in found(books))


def test_a_seal_whose_hash_is_no_text_is_named(books: Database) -> None:
    if books.is_sqlite:
        seals.close(books, everything=True)
        books.write(ledger.charge, "ann", MODEL, Tokens(10, 10), actor=SHELL)
        seals.close(books, everything=True)
        tamper(books, "UPDATE seal SET hash = x'ff' WHERE number = 1")
        assert ("seal", 1) in [(at, id) for at, id, _ in found(books)]


def test_a_trigger_of_another_kind_is_no_trigger(postgres_database: str) -> None:
    db = Database(postgres_database)
    for table, function in (("entry", "new_price_version"), ("setting", "never_changes")):
        name = f"{table}_{'never_changes' if table == 'entry' else 'version'}"
        run(
            db,
            f"DROP TRIGGER {name} ON {table}",
            f"CREATE TRIGGER {name} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}()",
        )
    assert [(at, id) for at, id, _ in found(db)] == [("trigger", "entry_never_changes"), ("trigger", "setting_version")]
    db.close()


def test_a_damaged_file_is_said_to_be_damaged(books: Database) -> None:
    if books.file is None:
        return
    with closing(sqlite3.connect(books.file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'entry_at'"
        page = connection.execute(query).fetchone()[0]
    with books.file.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\x0a" + bytes(200))
    seen = found(books)
    assert ("database", None) in [(at, id) for at, id, _ in seen]
    assert any("damaged" in text for _, _, text in seen)


def test_progress_ends_at_all_entries(books: Database) -> None:
    seen: list[tuple[int, int]] = []
    check(books, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (15, 15)


@pytest.mark.parametrize("case", range(0, 45, 7))
def test_a_large_ledger_is_walked_in_parts_that_see_the_same(
    books: Database, clock: Clock, case: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums_reference.close(books, clock)
    seals.close(books, everything=True)
    books.write(ledger.recharge, "ann", 10_000, actor=SHELL)
    whole = check(books)
    monkeypatch.setattr(check_module.parts, "IN_PARTS_FROM", 1)
    in_parts = check(books)
    assert (in_parts, in_parts.entries, in_parts.seals) == ([], whole.entries, whole.seals)
    statements, table, id, words = CASES[case]
    tamper(books, *statements)
    seen = found(books)
    assert any((at == table and (id is None or name == id) and re.search(words, text)) for at, name, text in seen), seen


def test_a_part_that_no_process_walks_is_walked_here(books: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = check(books).entries
    monkeypatch.setattr(check_module.parts, "IN_PARTS_FROM", 1)
    monkeypatch.setattr(check_module.parts, "_WORKER", "raise SystemExit(1)")
    assert (check(books), check(books).entries) == ([], whole)


def test_what_was_found_last_is_remembered(books: Database, clock: Clock) -> None:
    assert books.read(check_module.last) is None
    books.write(check_module.remember, check(books))
    known = books.read(check_module.last)
    assert known is not None
    assert (known.at_ns, known.broken, known.entries) == (clock.now_ns, (), check(books).entries)
    tamper(books, "UPDATE account SET balance = balance + 10000 WHERE user_id = 'bob'")
    books.write(check_module.remember, check(books))
    known = books.read(check_module.last)
    assert known is not None
    assert [one.sentence() for one in known.broken] == [one.sentence() for one in check(books)]
    assert "The balance of bob" in known.broken[0].sentence()
    assert "bob 的余额" in known.broken[0].sentence("zh_CN")
    assert known.newest_seal == check(books).newest_seal


def test_what_was_found_last_says_how_many_more(books: Database) -> None:
    tamper(books, "UPDATE account SET balance = balance + 10000")
    books.write(check_module.remember, check(books))
    known = books.read(check_module.last)
    assert known is not None
    assert re.search(r"\(\d more like it\.\)$", known.broken[0].sentence())
    assert "另有" in known.broken[0].sentence("zh_CN")


def test_what_an_earlier_version_found_last_is_read_as_it_was_kept(books: Database) -> None:
    kept = {"at_ns": 1, "entries": 2, "seals": 3, "newest_seal": None, "broken": "Entry 7 {is} wrong."}
    books.write(lambda tx: tx.session.add(Setting(name="_last_check", value=json.dumps(kept))))
    known = books.read(check_module.last)
    assert known is not None
    assert known.broken[0].sentence("zh_CN") == "Entry 7 {is} wrong."
