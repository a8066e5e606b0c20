"""The only code that moves money. Amounts are 毫, times ns since the epoch, UTC.

Every function runs in one transaction (see database.py), locks its account's row, and writes an entry that never changes.
Whatever it refuses leaves nothing behind. `once` makes a repetition give the first receipt again.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, count, islice
from typing import Any, NamedTuple

from sqlalchemy import FromClause, bindparam, case, func, insert, select, update

from . import idempotency, pricing, sums
from .accounts import find
from .actors import Actor
from .database import Database, Retry, Transaction, chunks, is_id, marks, may_be_alone
from .errors import (
    BillingError,
    Conflict,
    DatabaseUnavailable,
    Frozen,
    InsufficientBalance,
    Invalid,
    NotFound,
    UnknownAccount,
)
from .i18n import N_
from .idempotency import Earlier, Once
from .models import ACCOUNTS, ENTRIES, HOLDS, UNDONE_AT_CALL, UNDONE_AT_REVERSAL, Account, Entry, Model, Price
from .money import MAX_HAO, Hao, check_hao, format_yuan
from .pricing import InForce, Upstream
from .sums import Uses
from .text import one_line
from .tokens import KINDS, Extras, Tokens, extras_from, tier_named

SECOND = 1_000_000_000
DEFAULT_TTL_SECONDS = 900
MAX_TTL_SECONDS = 7 * 24 * 3600
EARLIEST_NS = 946_684_800 * SECOND
"""2000-01-01: no call is older, and since then time zones cut through no quarter of an hour, but for clocks set at 00:01."""
AHEAD_SECONDS = 300
"""How far ahead `created_at` may lie: as much as clocks differ."""
MAX_BALANCE = 9 * 10**18


class Receipt(NamedTuple):
    """What an operation did. Amounts in 毫."""

    entry_id: int
    user_id: str
    type: str
    amount: Hao
    cost: Hao
    balance: Hao
    """After it."""
    status: str
    created_at_ns: int
    expires_at_ns: int | None = None
    replayed: bool = False
    other_ids: tuple[int, ...] = ()
    """The entries for other models within the same call; `amount`, `cost` and `balance` include them."""

    @property
    def refunded(self) -> Hao:
        """What came back of a hold."""
        return max(self.amount, 0)


class Charge(NamedTuple):
    """One call to be charged; `once` is its request id."""

    user_id: str
    model: str
    tokens: Tokens
    created_at_ns: int | None = None
    allow_debt: bool = False
    once: Once | None = None
    others: tuple[tuple[str, Tokens], ...] = ()
    """What other models used within the same call."""


class _Locked(NamedTuple):
    """An account's row, locked and changed by this transaction."""

    id: int
    balance: Hao
    status: str
    due: bool = False
    """Whether a hold of it has expired that isn't written down."""
    is_full: bool = False
    """Whether much of what it used is open; see sums.py."""


# Recharges


def recharge(
    tx: Transaction, user_id: str, amount: Hao, *, actor: Actor, remark: str = "", once: Once | None = None
) -> Receipt:
    """Change a balance by `amount` 毫: above 0 credits, below 0 debits, into debt where it is more than there is.

    Raises Invalid, UnknownAccount, Forbidden, Conflict.
    """
    actor.must_be_admin()
    if isinstance(amount, bool) or not isinstance(amount, int) or amount == 0:
        raise Invalid(N_("The amount must be a whole number of 毫 other than 0 (1 元 is 10,000 毫)."), field="amount")
    check_hao(amount)
    remark = one_line(remark, 500, field="remark")
    if (known := _replayed(tx, once)) is not None:
        return known
    account = _lock(tx, user_id, once)
    _check_balance(account.balance + _held(tx, account.id) + amount)  # what is held comes back
    balance, uses = _move(tx, account, amount), _uses(tx, [account])
    entry = _write(tx, account.id, "recharge", amount, balance, actor, uses, remark=remark)
    uses.write()
    return _done(tx, once, user_id, account.status, entry)


# Charges


@may_be_alone
def charge(
    tx: Transaction,
    user_id: str,
    model: str,
    tokens: Tokens,
    *,
    actor: Actor,
    created_at_ns: int | None = None,
    allow_debt: bool = False,
    once: Once | None = None,
    others: Sequence[tuple[str, Tokens]] = (),
) -> Receipt:
    """Take what a call costs, at the price in force at `created_at_ns` (now, without it or where it is ahead). What `others` used within the
    call is charged with it, an entry a model: all of it or nothing.

    Raises InsufficientBalance (unless `allow_debt`: the call has been made), Frozen, UnknownAccount, Invalid, Forbidden,
    Conflict.
    """
    actor.must_charge()
    (result,) = _charge_all(tx, [Charge(user_id, model, tokens, created_at_ns, allow_debt, once, tuple(others))], actor)
    if isinstance(result, BillingError):
        raise result
    return result


@may_be_alone
def charge_many(tx: Transaction, charges: Iterable[Charge], *, actor: Actor) -> list[Receipt | BillingError]:
    """Charge a batch in one transaction; a refused one spoils no other. One result a charge, in their order."""
    charges = list(charges)
    try:
        actor.must_charge()
    except BillingError as error:
        return [error] * len(charges)
    return _charge_all(tx, charges, actor)


def _charge_all(tx: Transaction, charges: Sequence[Charge], actor: Actor) -> list[Receipt | BillingError]:
    """Decide on each charge, then write all of what is granted at once."""
    if len(charges) == 1 and (receipt := _at_once(tx, charges[0], actor)) is not None:
        return [receipt]
    batch = _Batch(tx, charges, actor)
    refused: dict[int, BillingError] = {}
    for place, item in enumerate(charges):
        try:
            batch.book(place, item)
        except BillingError as error:
            refused[place] = error
    results = batch.write() | refused
    return [results[place] for place in range(len(charges))]


def _at_once(tx: Transaction, item: Charge, actor: Actor) -> Receipt | None:
    """Charge a call of this moment at a price that was read before, where nothing stands against it: on Postgres in one statement
    and one round trip. None: nothing was done, and the same has to be done step by step."""
    if item.others or item.created_at_ns is not None:
        return None
    if not tx.is_sqlite and (item.once is None or not tx.is_alone):  # without a key it can't be asked again
        return None
    if not isinstance(item.model, str) or not item.user_id.isprintable() or (prices := pricing.last_read(tx)) is None:
        return None
    if (noted := prices.noted(item.model, tx.now_ns)) is None:
        return None
    tokens, (number, rates) = item.tokens, noted
    cost = rates.cost(tokens)
    if cost > MAX_HAO:
        return None
    asked = prices.upstream(item.model, tokens, tx.now_ns)
    scope, key, fingerprint = item.once or (None, None, None)
    parameters: dict[str, Any] = dict(zip(sums.SUMS, sums.of_call(cost, 1, tokens, _yuan(asked)), strict=True))
    parameters |= {
        "user_id": item.user_id, "lowest": -MAX_BALANCE if item.allow_debt else 0, "version": prices.version,
        "model_id": number, "price_id": rates.price_id, "operator_id": actor.account_id, "now_ns": tx.now_ns,
        "extras": tokens.extras and tokens.extras.as_json(), "usd": asked and asked.usd, "yuan": asked and asked.yuan,
        "scope": scope, "key": key, "fingerprint": fingerprint,
        "quarter": tx.now_ns // sums.QUARTER_NS, "busy_calls": sums.BUSY_CALLS,
    }  # fmt: skip
    for entry_id, balance in _in_turn(tx, parameters) if tx.is_sqlite else tx.at_once(_ALL_AT_ONCE, parameters):
        return Receipt(entry_id, item.user_id, "deduct", -cost, cost, balance, "active", tx.now_ns)
    return None


_ENOUGH = f"""
user_id = %(user_id)s AND status = 'active' AND balance - %(cost)s >= %(lowest)s
AND (hold_expires_at_ns IS NULL OR hold_expires_at_ns > %(now_ns)s)
AND (SELECT version FROM price_version) = %(version)s
AND NOT EXISTS (SELECT 1 FROM idempotency WHERE scope = %(scope)s AND key = %(key)s)
AND NOT {sums.TO_CLOSE.format("%(quarter)s")}
"""
_TAKE = "UPDATE account SET balance = balance - %(cost)s, total_consumed = total_consumed + %(cost)s"
_WRITE = """
INSERT INTO entry (account_id, type, amount, balance_after, cost, model_id, price_id, prompt_tokens, cached_tokens,
    cache_creation_tokens, completion_tokens, reasoning_tokens, operator_id, created_at_ns, extras, upstream_usd, upstream_yuan)
SELECT taken.id, 'deduct', -%(cost)s, taken.balance, %(cost)s, %(model_id)s, %(price_id)s, %(prompt_tokens)s, %(cached_tokens)s,
    %(cache_creation_tokens)s, %(completion_tokens)s, %(reasoning_tokens)s, nullif(%(operator_id)s::bigint, taken.id),
    %(now_ns)s, %(extras)s, %(usd)s::bigint, %(yuan)s::bigint
FROM taken
"""
_REMEMBER = """
INSERT INTO idempotency (scope, key, fingerprint, entry_id)
SELECT %(scope)s, %(key)s, %(fingerprint)s, written.id
FROM written
"""
_ALL_AT_ONCE = f"""
WITH taken AS ({_TAKE} WHERE {_ENOUGH} RETURNING id, balance), written AS ({_WRITE} RETURNING id), remembered AS ({_REMEMBER}),
opened AS ({sums.OPEN} RETURNING usage_open.calls)
SELECT written.id, balance FROM taken, written, opened WHERE 1 / CAST(calls <= %(busy_calls)s AS integer) = 1
"""
"""Where something stands against it, it finds nothing to do (no such account, other prices, too little money, a known key, a
quarter of an hour to be closed) or fails as a whole: at a key that came in the same moment, and at a division by 0 where the
account's calls are to be closed. All that it writes is selected from what locks the account, so that what it adds to is as the
charge before left it."""


def _in_turn(tx: Transaction, parameters: dict[str, Any]) -> list[tuple[int, Hao]]:
    """_ALL_AT_ONCE on SQLite, one statement after the other; what is open of the account is closed where it is to be."""
    for account_id, balance, is_full in tx.rows(_FIND, parameters):
        parameters |= {"account_id": account_id, "balance": balance}
        tx.rows(_TAKE_FOUND, parameters)
        parameters["entry_id"] = tx.insert(_of_sqlite(_WRITE), parameters)
        if parameters["key"] is not None:
            tx.rows(_of_sqlite(_REMEMBER), parameters)
        tx.rows(_of_sqlite(sums.OPEN), parameters)
        if is_full:
            Uses(tx, [account_id], False).write()
        return [(parameters["entry_id"], balance)]
    return []


@lru_cache
def _of_sqlite(query: str) -> str:
    """A part of _ALL_AT_ONCE as a statement of its own, whose parameters say as well what the parts before it gave. A row of
    VALUES takes less than one that is selected, which SQLite might have to take back alone."""
    query = re.sub(r"SELECT ([^;]*?)\s+FROM (taken|written)\b", r"VALUES (\1)", query)
    for given, name in {"taken.id": "account_id", "taken.balance": "balance", "written.id": "entry_id"}.items():
        query = query.replace(given, f"%({name})s")
    return re.sub(r"%\((\w+)\)s(::bigint)?", r":\1", query)


# To find the account and then to change it by its number takes less than RETURNING.
_FIND = _of_sqlite(
    f"SELECT id, balance - %(cost)s, {sums.IS_FULL.format('%(quarter)s', '%(busy_calls)s')} FROM account WHERE {_ENOUGH}"
)
_TAKE_FOUND = _of_sqlite(f"{_TAKE} WHERE id = %(account_id)s")


class _Batch:
    """Charges of one transaction: their accounts locked, what they take kept in mind until it is written."""

    def __init__(self, tx: Transaction, charges: Sequence[Charge], actor: Actor) -> None:
        self._tx, self._actor = tx, actor
        users = sorted({item.user_id for item in charges if item.user_id.isprintable()})  # no other is an id
        locks = _locks(tx, users)
        keys = idempotency.queries(item.once for item in charges if item.once is not None)
        numbers = _numbers(tx, max(1, sum(1 + len(item.others) for item in charges)))
        answers = iter(tx.ask(*locks, *keys, numbers))  # the accounts are locked before anything else is read
        self._accounts = _locked_rows(islice(answers, len(locks)))
        self._earlier = idempotency.found(islice(answers, len(keys)))
        self._numbers: list[Any] | None = next(answers)
        ((version, to_close, _number), *_others) = self._numbers
        self._prices = pricing.InForce(tx, version)
        self._uses = _uses(tx, self._accounts.values(), bool(to_close))
        self._taken: dict[int, Hao] = {}
        """By account, what has been taken off it."""
        self._granted: dict[tuple[int, str], tuple[int, Once]] = {}
        """By scope and key, the place of the charge that was granted with it, and what was asked."""
        self._booked: list[tuple[int, Charge, Hao, list[list[Any]]]] = []
        """Granted charges: their place, their cost, and their entries, which have no number yet."""
        self._replays: dict[int, Earlier] = {}
        """Charges that were granted before, by their place."""
        self._again: dict[int, int] = {}
        """Charges that stand in the batch twice: the place of each, and of the first."""

    def book(self, place: int, item: Charge) -> None:
        """Grant a charge, or raise what stands against it."""
        tx, prices = self._tx, self._prices
        used = [(pricing.clean_model(name), counts) for name, counts in ((item.model, item.tokens), *item.others)]
        if item.once is not None:
            key = item.once.scope, item.once.key
            if (known := idempotency.same(item.once, self._earlier.get(key))) is not None:
                self._replays[place] = known
                return
            if (granted := self._granted.get(key)) is not None:
                idempotency.same(item.once, granted[1])
                self._again[place] = granted[0]
                return
        at = _call_time(tx, item.created_at_ns)  # after that: the clock may have been set back since the first time
        moment = min(at, tx.now_ns)  # a price that is planned may still be withdrawn
        calls = [(model, tokens, bounded(prices.at(model, moment).cost(tokens))) for model, tokens in used]
        cost = calls[0][2] if len(calls) == 1 else bounded(sum(call[2] for call in calls))
        account = self._accounts.get(item.user_id)
        if account is None:
            raise UnknownAccount(item.user_id)
        if account.due:
            account = self._accounts[item.user_id] = _without_due(tx, account)
            self._numbers = None  # an expiry's entry comes first
        _must_cover(account, item.user_id, cost, item.allow_debt)
        _check_balance(account.balance - cost)
        rows, balance = [], account.balance
        for model, tokens, one_cost in calls:
            number, kept = prices.kept(model, moment)
            asked = prices.upstream(model, tokens, moment)
            balance -= one_cost
            rows.append(
                [
                    None, account.id, -one_cost, balance, one_cost, number, kept.price_id, tokens.prompt, tokens.cached,
                    tokens.cache_creation, tokens.completion, tokens.reasoning,
                    None if self._actor.account_id == account.id else self._actor.account_id,
                    at, None if at == tx.now_ns else tx.now_ns, tokens.extras and tokens.extras.as_json(),
                    asked and asked.usd, asked and asked.yuan,
                ]
            )  # fmt: skip
            self._uses.add(account.id, number, at, one_cost, 1, tokens, _yuan(asked))
        self._accounts[item.user_id] = _Locked(account.id, balance, account.status)
        self._taken[account.id] = self._taken.get(account.id, 0) + cost
        self._booked.append((place, item, cost, rows))
        if item.once is not None:
            self._granted[key] = place, item.once

    def write(self) -> dict[int, Receipt]:
        """Write what was granted; the receipts by the charges' places."""
        tx = self._tx
        entries, done = [], []
        receipts = dict(zip(self._replays, _receipts(tx, list(self._replays.values())), strict=True))
        numbers = self._new_numbers()
        for place, item, cost, rows in self._booked:
            for row in rows:
                row[0] = next(numbers)
            entries += rows
            first, *others = rows
            ids = [row[0] for row in others]
            receipts[place] = Receipt(
                first[0], item.user_id, "deduct", -cost, cost, rows[-1][3], "active", first[13], other_ids=tuple(ids)
            )
            if item.once is not None:
                done.append((item.once, first[0], _answer("active", ids)))
        if entries:
            tx.many(_TAKEN, [(taken, taken, account) for account, taken in self._taken.items()])
            tx.many(_CHARGED, entries)
            idempotency.remember_all(tx, done)
            self._uses.write()
        for place, granted in self._again.items():
            receipts[place] = receipts[granted]._replace(replayed=True)
        return receipts

    def _new_numbers(self) -> Iterator[int]:
        """For entries."""
        found = self._numbers or self._tx.rows(*_numbers(self._tx, sum(len(rows) for *_charge, rows in self._booked)))
        return count(found[0][2]) if self._tx.is_sqlite else iter([number for *_known, number in found])


_TAKEN = "UPDATE account SET balance = balance - ?, total_consumed = total_consumed + ? WHERE id = ?"
_CHARGED = (
    "INSERT INTO entry (id, account_id, type, amount, balance_after, cost, model_id, price_id, prompt_tokens, cached_tokens, "
    "cache_creation_tokens, completion_tokens, reasoning_tokens, operator_id, created_at_ns, recorded_at_ns, extras, "
    "upstream_usd, upstream_yuan) VALUES (?, ?, 'deduct', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


# Holds


def precharge(
    tx: Transaction,
    user_id: str,
    model: str,
    prompt_tokens: int,
    max_completion_tokens: int,
    *,
    actor: Actor,
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    service_tier: str | None = None,
    once: Once | None = None,
) -> Receipt:
    """Hold the most that a call can cost (in a service tier, with one), until it is settled, refunded, or `ttl_seconds`
    have passed.

    Raises InsufficientBalance, Frozen, UnknownAccount, Invalid, Forbidden, Conflict.
    """
    actor.must_charge()
    model = pricing.clean_model(model)
    tier = None if service_tier is None else tier_named(service_tier)
    extras = None if tier is None else Extras(service_tier=tier)
    expected = Tokens(prompt=prompt_tokens, completion=max_completion_tokens, extras=extras)
    if type(ttl_seconds) is not int or not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
        raise Invalid(
            N_("ttl_seconds must be a whole number from 1 to {most} (a week)."),
            field="ttl_seconds",
            most=MAX_TTL_SECONDS,
        )
    if (known := _replayed(tx, once)) is not None:
        return known
    account = _lock(tx, user_id, once)
    model_id, rates = pricing.to_charge(tx, model, tx.now_ns)
    held = bounded(rates.most(expected))
    _must_cover(account, user_id, held)
    balance, uses = _move(tx, account, -held), _uses(tx, [account])
    entry = _write(
        tx, account.id, "precharge", -held, balance, actor, uses,
        cost=held, model_id=model_id, price_id=rates.price_id, **_counts(expected),
    )  # fmt: skip
    expires = tx.now_ns + ttl_seconds * SECOND
    tx.connection().execute(
        insert(HOLDS).values(precharge_id=entry["id"], account_id=account.id, held=held, expires_at_ns=expires)
    )
    _note_deadline(tx, account.id)
    uses.write()
    return _done(tx, once, user_id, account.status, entry)._replace(expires_at_ns=expires)


@may_be_alone
def settle(
    tx: Transaction,
    precharge_id: int,
    tokens: Tokens | None,
    *,
    actor: Actor,
    once: Once | None = None,
    others: Sequence[tuple[str, Tokens]] = (),
    tier_of_hold: bool = False,
) -> Receipt:
    """End a hold with what the call really cost, at the price of the precharge: the rest goes back, or more is taken,
    into debt if need be. What `others` used within the call is charged with it, at their own prices; `tokens` None: only they
    were called, so that all that was held goes back. `tier_of_hold`: the call was in the service tier that was held for. Raises
    Conflict where the hold has ended, NotFound, Forbidden."""
    actor.must_end_holds()
    used = [(pricing.clean_model(name), counts) for name, counts in others]
    if (known := _replayed(tx, once)) is not None:
        return known
    held, account, user_id = _open_hold(tx, precharge_id, once)
    if tier_of_hold and (asked_for := extras_from(held.extras)) is not None:
        tokens = tokens and _in_tier(tokens, asked_for.service_tier)
        used = [(name, _in_tier(counts, asked_for.service_tier)) for name, counts in used]
    cost = 0 if tokens is None else bounded(pricing.charged_at(tx, held.price_id).cost(tokens))
    prices = pricing.InForce(tx)
    calls = _priced(tx, prices, used)
    in_all = bounded(cost + sum(call.cost for call in calls))
    _move(tx, account, held.cost - in_all, consumed=in_all)
    balance, uses = account.balance + held.cost - cost, _uses(tx, [account])
    if tokens is None:
        entry = _given_back(tx, account, held, balance, actor, uses)
    else:
        upstream = prices.upstream(tx.session.get_one(Model, held.model_id).name, tokens, tx.now_ns)
        entry = _write(
            tx, account.id, "settle", held.cost - cost, balance, actor, uses,
            cost=cost, model_id=held.model_id, price_id=held.price_id, precharge_id=precharge_id, **_counts(tokens),
            **_asked(upstream),
        )  # fmt: skip
        _end_hold(tx, account.id, precharge_id, entry["id"])
        uses.add(account.id, _model(held), tx.now_ns, cost, 1, tokens, _yuan(upstream))
    others_written = _deduct(tx, account, balance, calls, actor, tx.now_ns, uses)
    uses.write()
    return _done(tx, once, user_id, account.status, entry, *others_written)


def refund(tx: Transaction, precharge_id: int, *, actor: Actor, once: Once | None = None) -> Receipt:
    """Give a hold back in full: the call failed. Raises Conflict where the hold has ended, NotFound, Forbidden."""
    actor.must_end_holds()
    if (known := _replayed(tx, once)) is not None:
        return known
    held, account, user_id = _open_hold(tx, precharge_id, once)
    balance, uses = _move(tx, account, held.cost), _uses(tx, [account])
    entry = _given_back(tx, account, held, balance, actor, uses)
    uses.write()
    return _done(tx, once, user_id, account.status, entry)


def _given_back(
    tx: Transaction, account: "_Locked", held: Entry, balance: Hao, actor: Actor, uses: Uses
) -> dict[str, Any]:
    """The entry that gives all of a hold back, which has been added to the `balance`."""
    entry = _write(
        tx, account.id, "refund", held.cost, balance, actor, uses, model_id=held.model_id, precharge_id=held.id
    )
    _end_hold(tx, account.id, held.id or 0, entry["id"])
    return entry


def _in_tier(tokens: Tokens, service_tier: str | None) -> Tokens:
    return replace(tokens, extras=replace(tokens.extras or Extras(), service_tier=service_tier))


def expire_holds(tx: Transaction) -> int:
    """Write down what has expired, for every account; how many holds. Balances include it before that (see balance)."""
    return sum(_expire_one(tx, user_id) for user_id in _with_holds_due(tx))


def note_expired(db: Database) -> None:
    """The same, an account at a time. The doors call it before they read, so that entries and balances say the same.
    Where nothing is due it costs one look into an index; where the database can't be written to, it is left for later."""
    with suppress(DatabaseUnavailable):
        for user_id in db.read(_with_holds_due):
            db.write(_expire_one, user_id)


def _with_holds_due(tx: Transaction) -> list[str]:
    due = select(ACCOUNTS.c.user_id).where(ACCOUNTS.c.hold_expires_at_ns <= tx.now_ns).order_by(ACCOUNTS.c.user_id)
    return list(tx.connection().scalars(due))


def _expire_one(tx: Transaction, user_id: str) -> int:
    return _expire(tx, _locked(tx, user_id))


def expired(tx: Transaction, account: Account) -> Hao:
    """What has come back of an account's holds by their deadlines and isn't written down yet, in 毫."""
    if account.hold_expires_at_ns is None or account.hold_expires_at_ns > tx.now_ns:
        return 0
    due = (HOLDS.c.account_id == account.id, HOLDS.c.ended_by.is_(None), HOLDS.c.expires_at_ns <= tx.now_ns)
    return int(tx.connection().execute(select(func.coalesce(func.sum(HOLDS.c.held), 0)).where(*due)).scalar_one())


def held(tx: Transaction, account: Account) -> Hao:
    """What an account's open holds hold, in 毫: off its balance, not yet consumed."""
    if account.hold_expires_at_ns is None:
        return 0
    still = (HOLDS.c.account_id == account.id, HOLDS.c.ended_by.is_(None), HOLDS.c.expires_at_ns > tx.now_ns)
    return int(tx.connection().execute(select(func.coalesce(func.sum(HOLDS.c.held), 0)).where(*still)).scalar_one())


def balance(tx: Transaction, account: Account) -> Hao:
    """What may still be spent, in 毫; holds past their deadline have come back."""
    return account.balance + expired(tx, account)


# Undoing


@may_be_alone
def reverse(tx: Transaction, entry_id: int, reason: str, *, actor: Actor, once: Once | None = None) -> Receipt:
    """Undo an entry with one that names it. Of a settle the whole call is undone; a precharge that still holds ends.

    Raises Conflict where it is reversed already or cannot be, NotFound, Forbidden.
    """
    actor.must_be_admin()
    reason = _reason(reason)
    if (known := _replayed(tx, once)) is not None:
        return known
    entry, account, user_id = _not_reversed(tx, entry_id, once)
    if entry.type == "precharge":
        _open_hold(tx, entry_id)
    if entry.type == "reversal" and (charge_id := tx.connection().scalar(_CHARGED_ANEW, {"id": entry_id})) is not None:
        raise Conflict(NOT_BY_ITSELF, entry_id=entry_id, charge_id=charge_id)
    uses = _uses(tx, [account])
    row = _reverse(tx, account, entry, reason, actor, uses)
    uses.write()
    return _done(tx, once, user_id, account.status, row)


@may_be_alone
def reprice(
    tx: Transaction, entry_id: int, price_id: int, reason: str, *, actor: Actor, once: Once | None = None
) -> Receipt:
    """Charge a call again at another price of its model: its entry, a deduct or settle, is reversed, and a deduct for the
    same call is written that names it, into debt if need be, and on a frozen account as well. The receipt is of both: its
    amount is what they add to the balance together.

    Raises Conflict where the entry is reversed already, charges no call or would cost the same, Invalid where the price is
    none of its model's, NotFound, Forbidden.
    """
    actor.must_be_admin()
    reason = _reason(reason)
    if (known := _replayed(tx, once)) is not None:
        return known
    entry, account, user_id = _not_reversed(tx, entry_id, once)
    if entry.type not in CALLS or entry.model_id is None:
        raise Conflict(NO_CALL, entry_id=entry_id)
    price = tx.session.get(Price, price_id) if is_id(price_id) else None
    if price is None or price.model_id != entry.model_id or price.input is None:
        raise Invalid(
            N_("Price {price_id} is not one of the model of entry {entry_id}."),
            field="price_id", price_id=price_id, entry_id=entry_id,
        )  # fmt: skip
    tokens, asked = counted(entry), _upstream(entry)
    cost = bounded(pricing.charged_at(tx, price_id).cost(tokens))
    if cost == entry.cost:
        raise Conflict(COSTS_THE_SAME, entry_id=entry_id)
    uses = _uses(tx, [account])
    reversal = _reverse(tx, account, entry, reason, actor, uses)
    account = account._replace(balance=reversal["balance_after"])
    balance = _move(tx, account, -cost, consumed=cost)
    call = _Priced(entry.model_id, price_id, tokens, cost, asked)
    (charge,) = _deduct(
        tx, account, balance + cost, [call], actor, entry.created_at_ns, uses, reprices_id=entry_id, remark=reason
    )
    # The sums by the moment of reversals leave the call's period as it was: there only the difference counts, now.
    for sign, at in ((-1, entry.created_at_ns), (1, tx.now_ns)):
        uses.add(account.id, entry.model_id, at, sign * cost, sign, tokens, _yuan(asked), UNDONE_AT_REVERSAL)
    uses.write()
    return _done(tx, once, user_id, account.status, reversal, charge)


CALLS = ("deduct", "settle")
"""The types of entries that charge a call."""
REVERSED_ALREADY = N_("Entry {entry_id} has been reversed already.")
NO_CALL = N_("Entry {entry_id} charges no call, so it has no price.")
COSTS_THE_SAME = N_("Entry {entry_id} costs the same at the price that counts now, so it stays as it is.")
NOT_BY_ITSELF = N_(
    "Entry {entry_id} was written by a repricing, and charge {charge_id} stands in the place of what it undid. Reverse or "
    "reprice that one."
)


def charged_anew(reversal: FromClause) -> Any:
    """SQL for the charge that a repricing wrote together with a row of `entry`, a reversal: the account's next entry. NULL
    where no repricing wrote it."""
    following, row = ENTRIES.alias(), reversal.c
    charge = (
        select(case((following.c.reprices_id == row.reverses_id, following.c.id)))
        .where(following.c.account_id == row.account_id, following.c.id > row.id)
        .order_by(following.c.id)
        .limit(1)
        .correlate(reversal)
        .scalar_subquery()
    )
    return case((row.reverses_id.is_not(None), charge))


_CHARGED_ANEW = select(charged_anew(ENTRIES)).where(ENTRIES.c.id == bindparam("id"))


def _reason(reason: str) -> str:
    reason = one_line(reason, 500, field="reason")
    if not reason:
        raise Invalid(N_("Say why: the reason stands beside the reversal."), field="reason")
    return reason


def _not_reversed(tx: Transaction, entry_id: int, once: Once | None) -> tuple[Entry, _Locked, str]:
    """An entry that is not reversed yet, its account locked. Raises NotFound, Conflict."""
    entry = _entry(tx, entry_id)
    if entry is None:
        raise NotFound(N_("There is no entry {entry_id}."), entry_id=entry_id)
    user_id = _user_id(tx, entry.account_id)
    account = _lock(tx, user_id, once)
    if tx.connection().scalar(select(ENTRIES.c.id).where(ENTRIES.c.reverses_id == entry_id)) is not None:
        raise Conflict(REVERSED_ALREADY, entry_id=entry_id)
    return entry, account, user_id


def _reverse(tx: Transaction, account: _Locked, entry: Entry, reason: str, actor: Actor, uses: Uses) -> dict[str, Any]:
    """Write the reversal of an entry, but for the sums of use; its columns."""
    consumed, amount = undone(entry)
    balance = _move(tx, account, amount, consumed=-consumed)
    row = _write(
        tx, account.id, "reversal", amount, balance, actor, uses,
        cost=-consumed, model_id=entry.model_id, reverses_id=entry.id, remark=reason,
    )  # fmt: skip
    if entry.type == "precharge":
        _end_hold(tx, account.id, entry.id or 0, row["id"])
    first, sign = _first(tx, entry)
    if first.type in CALLS:
        for kind, at in ((UNDONE_AT_CALL, first.created_at_ns), (UNDONE_AT_REVERSAL, tx.now_ns)):
            uses.add(account.id, _model(first), at, -consumed, -sign, counted(first), first.upstream_yuan, kind)
    return row


def counted(entry: Any) -> Tokens:
    """What the call of an entry, or of a row with its columns, used."""
    counts: dict[str, Any] = {kind: getattr(entry, f"{kind}_tokens") or 0 for kind in KINDS}
    return Tokens(**counts, extras=extras_from(entry.extras))


def _upstream(entry: Entry) -> Upstream | None:
    return None if entry.upstream_yuan is None else Upstream(entry.upstream_usd or 0, entry.upstream_yuan)


@dataclass(frozen=True, slots=True)
class Change:
    """What an operation would make of a balance, in 毫: shown before it counts."""

    before: Hao
    after: Hao


def preview_recharge(tx: Transaction, user_id: str, amount: Hao, *, actor: Actor) -> Change:
    """Raises Invalid for 0, UnknownAccount, Forbidden."""
    actor.must_be_admin()
    if amount == 0:
        raise Invalid(N_("0 元 changes nothing. Write 100 to add 100 元, or -100 to take 100 元 off."), field="amount")
    before = balance(tx, find(tx, user_id))
    return Change(before, before + amount)


def preview_reversal(tx: Transaction, entry_id: int, *, actor: Actor) -> Change:
    """Raises NotFound, Forbidden."""
    actor.must_be_admin()
    entry = _entry(tx, entry_id)
    if entry is None:
        raise NotFound(N_("There is no entry {entry_id}."), entry_id=entry_id)
    before = balance(tx, find(tx, _user_id(tx, entry.account_id)))
    return Change(before, before + undone(entry)[1])


def undone(entry: Entry) -> tuple[Hao, Hao]:
    """What reversing an entry takes off the consumption and adds to the balance, in 毫."""
    if entry.type in ("deduct", "settle"):
        return entry.cost, entry.cost
    return (entry.cost if entry.type == "reversal" else 0), -entry.amount


def _first(tx: Transaction, entry: Entry) -> tuple[Entry, int]:
    """The call at the end of a chain of reversals, and whether undoing `entry` takes it back (1) or counts it again (-1)."""
    sign = 1
    while entry.reverses_id is not None:
        found = tx.session.get(Entry, entry.reverses_id)
        assert found is not None
        entry, sign = found, -sign
    return entry, sign


# The pieces


def _call_time(tx: Transaction, created_at_ns: int | None) -> int:
    if created_at_ns is None:
        return tx.now_ns
    if isinstance(created_at_ns, bool) or not isinstance(created_at_ns, int) or created_at_ns < EARLIEST_NS:
        raise Invalid(
            N_("created_at must be a time since 2000, in whole nanoseconds since 1970 (UTC)."), field="created_at"
        )
    if created_at_ns > tx.now_ns + AHEAD_SECONDS * SECOND:
        raise Invalid(N_("created_at lies in the future. Leave it out, or check the clock."), field="created_at")
    return created_at_ns


def bounded(cost: Hao) -> Hao:
    """A cost that an entry can hold. Raises Invalid."""
    if cost > MAX_HAO:
        raise Invalid(N_("The call would cost more than any entry can hold. Check the token counts."), field="tokens")
    return cost


@dataclass(frozen=True, slots=True)
class _Priced:
    """What a call used of one model, and what that costs."""

    model_id: int
    price_id: int | None
    tokens: Tokens
    cost: Hao
    upstream: Upstream | None


def _priced(tx: Transaction, prices: InForce, used: Iterable[tuple[str, Tokens]]) -> list[_Priced]:
    """What counts used now cost."""
    calls = []
    for name, tokens in used:
        number, rates = prices.kept(name, tx.now_ns)
        asked = prices.upstream(name, tokens, tx.now_ns)
        calls.append(_Priced(number, rates.price_id, tokens, bounded(rates.cost(tokens)), asked))
    return calls


def _deduct(
    tx: Transaction, account: _Locked, balance: Hao, calls: Iterable[_Priced], actor: Actor, at: int, uses: Uses,
    reprices_id: int | None = None, remark: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Write what calls cost, an entry each, down from `balance`; the money has been taken."""
    entries = []
    for call in calls:
        balance -= call.cost
        entry = _write(
            tx, account.id, "deduct", -call.cost, balance, actor, uses, cost=call.cost,
            model_id=call.model_id, price_id=call.price_id, created_at_ns=at, reprices_id=reprices_id,
            remark=remark, **_counts(call.tokens), **_asked(call.upstream),
        )  # fmt: skip
        uses.add(account.id, call.model_id, at, call.cost, 1, call.tokens, _yuan(call.upstream))
        entries.append(entry)
    return entries


def _must_cover(account: _Locked, user_id: str, cost: Hao, allow_debt: bool = False) -> None:
    """Raises Frozen, and InsufficientBalance unless `allow_debt`."""
    if account.status == "frozen":
        raise Frozen(user_id)
    if account.balance < cost and not allow_debt:
        raise InsufficientBalance(
            N_("The balance of {user_id} is {balance} 元, the call needs {cost} 元. Ask an admin for a recharge."),
            user_id=user_id, balance=format_yuan(account.balance), cost=format_yuan(cost),
        )  # fmt: skip


def _locks(tx: Transaction, user_ids: Sequence[str]) -> list[tuple[str, Sequence[Any]]]:
    """What locks accounts' rows, in one order everywhere, so that two batches never wait for each other: `user_ids` sorted."""
    first = tx.now_ns, tx.now_ns // sums.QUARTER_NS, sums.BUSY_CALLS
    return [(_lock_query(len(some), tx.is_sqlite), (*first, *some)) for some in chunks(user_ids)]


@lru_cache
def _lock_query(count: int, is_sqlite: bool) -> str:
    return (
        f"SELECT user_id, id, balance, status, coalesce(hold_expires_at_ns <= ?, FALSE), {sums.IS_FULL.format('?', '?')} FROM account "
        f"WHERE user_id IN ({marks(count)}) ORDER BY user_id{'' if is_sqlite else ' FOR NO KEY UPDATE'}"
    )


def _locked_rows(answers: Iterable[Iterable[Sequence[Any]]]) -> dict[str, _Locked]:
    """What they answer: by user id, whoever there is."""
    return {user_id: _Locked(*row) for rows in answers for user_id, *row in rows}


def _numbers(tx: Transaction, most: int) -> tuple[str, Sequence[Any]]:
    """What to ask for the prices' version, whether there is something to close (see sums.py), and the numbers of new entries:
    the first of them on SQLite, where nobody else writes meanwhile, else `most`."""
    quarter = tx.now_ns // sums.QUARTER_NS
    return (_NEXT_NUMBER, (quarter,)) if tx.is_sqlite else (_NEW_NUMBERS, (quarter, most))


_NEXT_NUMBER = (
    f"SELECT version, {sums.TO_CLOSE.format('?')}, (SELECT coalesce(max(id), 0) + 1 FROM entry) FROM price_version"
)
_NEW_NUMBERS = (
    f"SELECT version, {sums.TO_CLOSE.format('?')}, nextval(pg_get_serial_sequence('entry', 'id')) "
    "FROM price_version CROSS JOIN generate_series(1, ?)"
)


def _locked(tx: Transaction, user_id: str) -> _Locked:
    found = _locked_rows(tx.ask(*_locks(tx, [user_id]))) if user_id.isprintable() else {}
    if user_id not in found:
        raise UnknownAccount(user_id)
    return found[user_id]


def _uses(tx: Transaction, accounts: Iterable[_Locked], to_close: bool | None = None) -> Uses:
    """What is to be added to the sums of locked accounts."""
    return Uses(tx, [account.id for account in accounts if account.is_full], to_close)


def _without_due(tx: Transaction, account: _Locked) -> _Locked:
    """A locked account once what has expired is written down."""
    _expire(tx, account)
    ((balance,),) = tx.rows("SELECT balance FROM account WHERE id = ?", (account.id,))
    return account._replace(balance=balance, due=False)


def _lock(tx: Transaction, user_id: str, once: Once | None = None) -> _Locked:
    """An account's row, locked until the end of the transaction, with what has expired written down. Raises Retry where
    the same request was under way and is done by now: its answer counts, not what would be refused after it."""
    account = _locked(tx, user_id)
    if idempotency.earlier(tx, once) is not None:
        raise Retry
    return _without_due(tx, account) if account.due else account


def _move(tx: Transaction, account: _Locked, amount: Hao, *, consumed: Hao = 0) -> Hao:
    """Add `amount` to a locked account's balance; the balance after it."""
    _check_balance(account.balance + amount)
    return int(
        tx.connection()
        .execute(
            update(ACCOUNTS)
            .where(ACCOUNTS.c.id == account.id)
            .values(balance=ACCOUNTS.c.balance + amount, total_consumed=ACCOUNTS.c.total_consumed + consumed)
            .returning(ACCOUNTS.c.balance)
        )
        .scalar_one()
    )


def _held(tx: Transaction, account_id: int) -> Hao:
    """What a locked account's open holds hold."""
    open_ones = (HOLDS.c.account_id == account_id, HOLDS.c.ended_by.is_(None))
    return int(tx.connection().execute(select(func.coalesce(func.sum(HOLDS.c.held), 0)).where(*open_ones)).scalar_one())


def _check_balance(balance: Hao) -> None:
    if abs(balance) > MAX_BALANCE:
        raise Invalid(N_("The balance would be larger than the ledger can hold."), field="amount")


def _counts(tokens: Tokens) -> dict[str, Any]:
    counts: dict[str, Any] = {f"{kind}_tokens": getattr(tokens, kind) for kind in KINDS}
    return counts if tokens.extras is None else counts | {"extras": tokens.extras.as_json()}


def _yuan(upstream: Upstream | None) -> int | None:
    return None if upstream is None else upstream.yuan


def _asked(upstream: Upstream | None) -> dict[str, int]:
    return {} if upstream is None else {"upstream_usd": upstream.usd, "upstream_yuan": upstream.yuan}


_ENTRY_COLUMNS = [column.name for column in ENTRIES.columns if column.name != "id"]
_EMPTY_ENTRY = dict.fromkeys(_ENTRY_COLUMNS)
_INSERT_ENTRY = f"INSERT INTO entry ({', '.join(_ENTRY_COLUMNS)}) VALUES ({marks(len(_ENTRY_COLUMNS))}) RETURNING id"


_OWN = ("deduct", "precharge", "settle", "refund")
"""What an account's own key may write: nobody else did it then. A recharge or reversal of one's own is an admin's."""


def _write(
    tx: Transaction,
    account_id: int,
    type: str,
    amount: Hao,
    balance: Hao,
    actor: Actor | None,
    uses: Uses,
    **columns: Any,
) -> dict[str, Any]:
    """Write an entry, and count it in `uses` where it is no call; its columns."""
    row = {**_EMPTY_ENTRY, "cost": 0, "created_at_ns": tx.now_ns, **columns}
    row |= {"account_id": account_id, "type": type, "amount": amount, "balance_after": balance}
    by_itself = type in _OWN and row["reprices_id"] is None and actor is not None and actor.account_id == account_id
    row["operator_id"] = None if actor is None or by_itself else actor.account_id
    if row["created_at_ns"] != tx.now_ns:
        row["recorded_at_ns"] = tx.now_ns
    ((row["id"],),) = tx.rows(_INSERT_ENTRY, [row[name] for name in _ENTRY_COLUMNS])
    if type not in CALLS:
        uses.add_other(account_id, row["created_at_ns"], sums.recharged(type, row["model_id"], amount))
    return row


def _model(entry: Entry) -> int:
    """The number of the model of an entry that has one."""
    assert entry.model_id is not None
    return entry.model_id


def _entry(tx: Transaction, entry_id: int) -> Entry | None:
    return tx.session.get(Entry, entry_id) if is_id(entry_id) else None


def _open_hold(tx: Transaction, precharge_id: int, once: Once | None = None) -> tuple[Entry, _Locked, str]:
    """A precharge that still holds, its account locked. Raises NotFound, Conflict."""
    entry = _entry(tx, precharge_id)
    if entry is None or entry.type != "precharge":
        raise NotFound(N_("There is no precharge {precharge_id}."), precharge_id=precharge_id)
    user_id = _user_id(tx, entry.account_id)
    account = _lock(tx, user_id, once)
    ended_by = tx.connection().scalar(select(HOLDS.c.ended_by).where(HOLDS.c.precharge_id == precharge_id))
    if ended_by is None:
        return entry, account, user_id
    how = tx.connection().scalar(select(ENTRIES.c.type).where(ENTRIES.c.id == ended_by))
    raise Conflict(ENDED[how or ""], precharge_id=precharge_id)


ENDED = {
    "settle": N_("Precharge {precharge_id} has been settled already."),
    "refund": N_("Precharge {precharge_id} has been refunded already."),
    "reversal": N_("Precharge {precharge_id} has been reversed by an admin."),
    "expire": N_(
        "Precharge {precharge_id} has expired and was given back. Charge the call itself, with allow_debt if it was made."
    ),
}
"""What is said of a precharge that has ended, by the type of the entry that ended it."""


def _end_hold(tx: Transaction, account_id: int, precharge_id: int, entry_id: int) -> None:
    tx.connection().execute(update(HOLDS).where(HOLDS.c.precharge_id == precharge_id).values(ended_by=entry_id))
    _note_deadline(tx, account_id)


def _note_deadline(tx: Transaction, account_id: int) -> None:
    open_ones = select(func.min(HOLDS.c.expires_at_ns)).where(
        HOLDS.c.account_id == account_id, HOLDS.c.ended_by.is_(None)
    )
    tx.connection().execute(
        update(ACCOUNTS).where(ACCOUNTS.c.id == account_id).values(hold_expires_at_ns=open_ones.scalar_subquery())
    )


def _expire(tx: Transaction, account: _Locked) -> int:
    """Give back what a locked account's holds held past their deadlines; how many there were."""
    due = (
        select(HOLDS.c.precharge_id, HOLDS.c.held, HOLDS.c.expires_at_ns, ENTRIES.c.model_id)
        .join(ENTRIES, ENTRIES.c.id == HOLDS.c.precharge_id)
        .where(HOLDS.c.account_id == account.id, HOLDS.c.ended_by.is_(None), HOLDS.c.expires_at_ns <= tx.now_ns)
        .order_by(HOLDS.c.expires_at_ns, HOLDS.c.precharge_id)
    )
    holds, uses = tx.connection().execute(due).all(), _uses(tx, [account])
    for hold in holds:
        balance = _move(tx, account, hold.held)
        entry = _write(
            tx, account.id, "expire", hold.held, balance, None, uses,
            model_id=hold.model_id, precharge_id=hold.precharge_id, created_at_ns=hold.expires_at_ns,
        )  # fmt: skip
        tx.connection().execute(
            update(HOLDS).where(HOLDS.c.precharge_id == hold.precharge_id).values(ended_by=entry["id"])
        )
        account = account._replace(balance=balance)
    if holds:
        _note_deadline(tx, account.id)
        uses.write()
    return len(holds)


def _user_id(tx: Transaction, account_id: int) -> str:
    return str(tx.connection().execute(select(ACCOUNTS.c.user_id).where(ACCOUNTS.c.id == account_id)).scalar_one())


def _done(
    tx: Transaction, once: Once | None, user_id: str, status: str, first: dict[str, Any], *others: Any
) -> Receipt:
    """The receipt of an operation's entries, remembered under the request's key."""
    rest = [row["id"] for row in others]
    idempotency.remember(tx, once, entry_id=first["id"], answer=_answer(status, rest))
    rows = (first, *others)
    return Receipt(
        first["id"], user_id, first["type"], sum(row["amount"] for row in rows), sum(row["cost"] for row in rows),
        rows[-1]["balance_after"], status, first["created_at_ns"], other_ids=tuple(rest),
    )  # fmt: skip


def _answer(status: str, other_ids: Sequence[int]) -> Any:
    """What the entry of an answer doesn't say."""
    return {"status": status, "other_ids": other_ids} if other_ids else None if status == "active" else status


def _replayed(tx: Transaction, once: Once | None) -> Receipt | None:
    """The receipt that this key's first request got."""
    known = idempotency.earlier(tx, once)
    return None if known is None else _receipt(tx, known)


def _receipt(tx: Transaction, known: Earlier) -> Receipt:
    (receipt,) = _receipts(tx, [known])
    return receipt


def _receipts(tx: Transaction, known: Sequence[Earlier]) -> list[Receipt]:
    """The first receipts of requests that come again, in their order."""
    if not known:
        return []
    answers = [json.loads(one.answer) if one.answer else "active" for one in known]
    statuses = [answer["status"] if isinstance(answer, dict) else answer for answer in answers]
    others = [tuple(answer["other_ids"]) if isinstance(answer, dict) else () for answer in answers]
    numbers = [(one.entry_id, *rest) for one, rest in zip(known, others, strict=True)]
    rows = {
        row[0]: row
        for some in chunks(list(chain.from_iterable(numbers)))
        for row in tx.rows(_WRITTEN.format(marks(len(some))), some)
    }
    found = []
    for ids, status in zip(numbers, statuses, strict=True):
        first, *rest = (rows[number] for number in ids)
        number, user_id, type, _amount, _cost, _balance, created_at_ns, expires_at_ns = first
        amount, cost = (sum(row[place] for row in (first, *rest)) for place in (3, 4))
        balance = (first, *rest)[-1][5]
        found.append(
            Receipt(number, user_id, type, amount, cost, balance, status, created_at_ns, expires_at_ns, True, ids[1:])
        )
    return found


_WRITTEN = (
    "SELECT e.id, a.user_id, e.type, e.amount, e.cost, e.balance_after, e.created_at_ns, h.expires_at_ns FROM entry e "
    "JOIN account a ON a.id = e.account_id LEFT JOIN hold h ON h.precharge_id = e.id WHERE e.id IN ({})"
)
