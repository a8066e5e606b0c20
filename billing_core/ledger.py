"""The only code that moves money. Amounts are 毫, times ns since the epoch, UTC.

Every function runs in one transaction (see database.py), locks one account's row, and writes an entry that never changes.
Whatever it refuses leaves nothing behind. `once` makes a repetition give the first receipt again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, insert, select, text, update

from . import idempotency, pricing
from .accounts import Actor
from .database import Transaction
from .errors import BillingError, Conflict, Frozen, InsufficientBalance, Invalid, NotFound, UnknownAccount
from .i18n import N_
from .idempotency import Once
from .models import ACCOUNTS, ENTRIES, HOLDS, Account, Entry
from .money import MAX_HAO, check_hao, format_yuan
from .text import one_line
from .usage import Tokens

SECOND = 1_000_000_000
PERIOD_NS = 900 * SECOND
"""A period of usage_sum: a quarter of an hour."""
DEFAULT_TTL_SECONDS = 900
MAX_TTL_SECONDS = 7 * 24 * 3600
EARLIEST_NS = 946_684_800 * SECOND
"""2000-01-01: no call is older, and no time zone since then cuts through a quarter of an hour."""
AHEAD_SECONDS = 300
"""How far ahead `created_at` may lie: as much as clocks differ."""
MAX_BALANCE = 9 * 10**18


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an operation did. Amounts in 毫."""

    entry_id: int
    user_id: str
    type: str
    amount: int
    cost: int
    balance: int
    """After it."""
    status: str
    created_at_ns: int
    expires_at_ns: int | None = None
    replayed: bool = False

    @property
    def refunded(self) -> int:
        """What came back of a hold."""
        return max(self.amount, 0)


@dataclass(frozen=True, slots=True)
class Charge:
    """One call to be charged; `once` is its request id."""

    user_id: str
    model: str
    tokens: Tokens
    created_at_ns: int | None = None
    allow_debt: bool = False
    once: Once | None = None


@dataclass(frozen=True, slots=True)
class _Locked:
    """An account's row, locked and changed by this transaction."""

    id: int
    balance: int
    status: str


# Recharges


def recharge(
    tx: Transaction, user_id: str, amount: int, *, actor: Actor, remark: str = "", once: Once | None = None
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
    account = _lock(tx, user_id)
    balance = _move(tx, account, amount)
    entry = _write(tx, account.id, "recharge", amount, balance, actor, remark=remark)
    return _done(tx, once, entry, user_id, account.status)


# Charges


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
) -> Receipt:
    """Take what a call costs, at the price in force at `created_at_ns` (now, without it).

    Raises InsufficientBalance (unless `allow_debt`: the call has been made), Frozen, UnknownAccount, Invalid, Forbidden,
    Conflict.
    """
    actor.must_charge()
    model = pricing.clean_model(model)
    at = _call_time(tx, created_at_ns)
    if (known := _replayed(tx, once)) is not None:
        return known
    model_id, rates = pricing.to_charge(tx, model, at)
    cost = _bounded(rates.cost(tokens))
    account = _take(tx, user_id, cost, consumed=cost, allow_debt=allow_debt)
    entry = _write(
        tx, account.id, "deduct", -cost, account.balance, actor,
        cost=cost, model_id=model_id, price_id=rates.price_id, created_at_ns=at, **_counts(tokens),
    )  # fmt: skip
    _count(tx, account.id, model_id, at, cost, 1, tokens)
    return _done(tx, once, entry, user_id, account.status)


def charge_many(tx: Transaction, charges: Iterable[Charge], *, actor: Actor) -> list[Receipt | BillingError]:
    """Charge a batch in one transaction; a refused one spoils no other. One result a charge, in their order."""
    results: dict[int, Receipt | BillingError] = {}
    # Accounts are locked in one order everywhere, so that two batches never wait for each other; each account's own
    # charges keep theirs.
    for place, item in sorted(enumerate(charges), key=lambda pair: pair[1].user_id):
        try:
            with tx.begin_nested():
                results[place] = charge(
                    tx, item.user_id, item.model, item.tokens, actor=actor,
                    created_at_ns=item.created_at_ns, allow_debt=item.allow_debt, once=item.once,
                )  # fmt: skip
        except BillingError as error:
            results[place] = error
    return [results[place] for place in range(len(results))]


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
    once: Once | None = None,
) -> Receipt:
    """Hold the most that a call can cost, until it is settled, refunded, or `ttl_seconds` have passed.

    Raises InsufficientBalance, Frozen, UnknownAccount, Invalid, Forbidden, Conflict.
    """
    actor.must_charge()
    model = pricing.clean_model(model)
    expected = Tokens(prompt=prompt_tokens, completion=max_completion_tokens)
    if isinstance(ttl_seconds, bool) or not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
        raise Invalid(
            N_("ttl_seconds must be a whole number from 1 to {most} (a week)."),
            field="ttl_seconds",
            most=MAX_TTL_SECONDS,
        )
    if (known := _replayed(tx, once)) is not None:
        return known
    model_id, rates = pricing.to_charge(tx, model, tx.now_ns)
    held = _bounded(rates.most(prompt_tokens, max_completion_tokens))
    account = _take(tx, user_id, held)
    entry = _write(
        tx, account.id, "precharge", -held, account.balance, actor,
        cost=held, model_id=model_id, price_id=rates.price_id, **_counts(expected),
    )  # fmt: skip
    expires = tx.now_ns + ttl_seconds * SECOND
    tx.connection().execute(
        insert(HOLDS).values(precharge_id=entry["id"], account_id=account.id, held=held, expires_at_ns=expires)
    )
    _note_deadline(tx, account.id)
    return _done(tx, once, entry, user_id, account.status, expires)


def settle(tx: Transaction, precharge_id: int, tokens: Tokens, *, actor: Actor, once: Once | None = None) -> Receipt:
    """End a hold with what the call really cost, at the price of the precharge: the rest goes back, or more is taken,
    into debt if need be. Raises Conflict where the hold has ended, NotFound, Forbidden."""
    actor.must_charge()
    if (known := _replayed(tx, once)) is not None:
        return known
    held, account, user_id = _open_hold(tx, precharge_id)
    rates = pricing.charged_at(tx, held.price_id)
    cost = _bounded(rates.cost(tokens))
    balance = _move(tx, account, held.cost - cost, consumed=cost)
    entry = _write(
        tx, account.id, "settle", held.cost - cost, balance, actor,
        cost=cost, model_id=held.model_id, price_id=held.price_id, precharge_id=precharge_id, **_counts(tokens),
    )  # fmt: skip
    _end_hold(tx, account.id, precharge_id, entry["id"])
    _count(tx, account.id, held.model_id, tx.now_ns, cost, 1, tokens)
    return _done(tx, once, entry, user_id, account.status)


def refund(tx: Transaction, precharge_id: int, *, actor: Actor, once: Once | None = None) -> Receipt:
    """Give a hold back in full: the call failed. Raises Conflict where the hold has ended, NotFound, Forbidden."""
    actor.must_charge()
    if (known := _replayed(tx, once)) is not None:
        return known
    held, account, user_id = _open_hold(tx, precharge_id)
    balance = _move(tx, account, held.cost)
    entry = _write(
        tx, account.id, "refund", held.cost, balance, actor, model_id=held.model_id, precharge_id=precharge_id
    )
    _end_hold(tx, account.id, precharge_id, entry["id"])
    return _done(tx, once, entry, user_id, account.status)


def expire_holds(tx: Transaction) -> int:
    """Write down what has expired, for every account; how many holds. Balances include it before that (see balance)."""
    due = select(ACCOUNTS.c.user_id).where(ACCOUNTS.c.hold_expires_at_ns <= tx.now_ns).order_by(ACCOUNTS.c.user_id)
    return sum(_expire(tx, _select_for_update(tx, user_id)) for user_id in tx.connection().scalars(due).all())


def expired(tx: Transaction, account: Account) -> int:
    """What has come back of an account's holds by their deadlines and isn't written down yet, in 毫."""
    if account.hold_expires_at_ns is None or account.hold_expires_at_ns > tx.now_ns:
        return 0
    due = (HOLDS.c.account_id == account.id, HOLDS.c.ended_by.is_(None), HOLDS.c.expires_at_ns <= tx.now_ns)
    return int(tx.connection().execute(select(func.coalesce(func.sum(HOLDS.c.held), 0)).where(*due)).scalar_one())


def held(tx: Transaction, account: Account) -> int:
    """What an account's open holds hold, in 毫: off its balance, not yet consumed."""
    if account.hold_expires_at_ns is None:
        return 0
    still = (HOLDS.c.account_id == account.id, HOLDS.c.ended_by.is_(None), HOLDS.c.expires_at_ns > tx.now_ns)
    return int(tx.connection().execute(select(func.coalesce(func.sum(HOLDS.c.held), 0)).where(*still)).scalar_one())


def balance(tx: Transaction, account: Account) -> int:
    """What may still be spent, in 毫; holds past their deadline have come back."""
    return account.balance + expired(tx, account)


# Undoing


def reverse(tx: Transaction, entry_id: int, reason: str, *, actor: Actor, once: Once | None = None) -> Receipt:
    """Undo an entry with one that names it. Of a settle the whole call is undone; a precharge that still holds ends.

    Raises Conflict where it is reversed already or cannot be, NotFound, Forbidden.
    """
    actor.must_be_admin()
    reason = one_line(reason, 500, field="reason")
    if not reason:
        raise Invalid(N_("Say why: the reason stands beside the reversal."), field="reason")
    if (known := _replayed(tx, once)) is not None:
        return known
    entry = tx.get(Entry, entry_id)
    if entry is None:
        raise NotFound(N_("There is no entry {entry_id}."), entry_id=entry_id)
    user_id = _user_id(tx, entry.account_id)
    account = _lock(tx, user_id)
    if tx.connection().scalar(select(ENTRIES.c.id).where(ENTRIES.c.reverses_id == entry_id)) is not None:
        raise Conflict(N_("Entry {entry_id} has been reversed already."), entry_id=entry_id)
    if entry.type == "precharge":
        _open_hold(tx, entry_id)
    consumed, amount = undone(entry)
    balance = _move(tx, account, amount, consumed=-consumed)
    row = _write(
        tx, account.id, "reversal", amount, balance, actor,
        cost=-consumed, model_id=entry.model_id, reverses_id=entry_id, remark=reason,
    )  # fmt: skip
    if entry.type == "precharge":
        _end_hold(tx, account.id, entry_id, row["id"])
    if consumed and entry.model_id is not None:
        first, sign = _first(tx, entry)
        tokens = Tokens(*(getattr(first, f"{kind}_tokens") or 0 for kind in _KINDS))
        _count(tx, account.id, entry.model_id, first.created_at_ns, -consumed, -sign, tokens)
    return _done(tx, once, row, user_id, account.status)


def undone(entry: Entry) -> tuple[int, int]:
    """What reversing an entry takes off the consumption and adds to the balance, in 毫."""
    if entry.type in ("deduct", "settle"):
        return entry.cost, entry.cost
    return (entry.cost if entry.type == "reversal" else 0), -entry.amount


def _first(tx: Transaction, entry: Entry) -> tuple[Entry, int]:
    """The call at the end of a chain of reversals, and whether undoing `entry` takes it back (1) or counts it again (-1)."""
    sign = 1
    while entry.reverses_id is not None:
        found = tx.get(Entry, entry.reverses_id)
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


def _bounded(cost: int) -> int:
    if cost > MAX_HAO:
        raise Invalid(N_("The call would cost more than any entry can hold. Check the token counts."), field="tokens")
    return cost


_TAKE = text(
    "UPDATE account SET balance = balance - :cost, total_consumed = total_consumed + :consumed "
    "WHERE user_id = :user_id AND status = 'active' AND (balance >= :cost OR :allow_debt) "
    "AND (hold_expires_at_ns IS NULL OR hold_expires_at_ns > :now) RETURNING id, balance"
)


def _take(tx: Transaction, user_id: str, cost: int, *, consumed: int = 0, allow_debt: bool = False) -> _Locked:
    """Take `cost` off a balance that covers it, in one statement. Raises what stands against it."""
    if user_id.isprintable():
        request = {"user_id": user_id, "cost": cost, "consumed": consumed, "allow_debt": allow_debt, "now": tx.now_ns}
        row = tx.connection().execute(_TAKE, request).one_or_none()
        if row is not None:
            _check_balance(row.balance)
            return _Locked(row.id, row.balance, "active")
    account = _lock(tx, user_id)
    if account.status == "frozen":
        raise Frozen(user_id)
    if account.balance < cost and not allow_debt:
        raise InsufficientBalance(
            N_("The balance of {user_id} is {balance} 元, the call needs {cost} 元. Ask an admin for a recharge."),
            user_id=user_id, balance=format_yuan(account.balance), cost=format_yuan(cost),
        )  # fmt: skip
    return replace(account, balance=_move(tx, account, -cost, consumed=consumed))


def _select_for_update(tx: Transaction, user_id: str) -> _Locked:
    known = user_id.isprintable()
    wanted = (
        select(ACCOUNTS.c.id, ACCOUNTS.c.balance, ACCOUNTS.c.status)
        .where(ACCOUNTS.c.user_id == user_id)
        .with_for_update()
    )
    row = tx.connection().execute(wanted).one_or_none() if known else None
    if row is None:
        raise UnknownAccount(user_id)
    return _Locked(row.id, row.balance, row.status)


def _lock(tx: Transaction, user_id: str) -> _Locked:
    """An account's row, locked until the end of the transaction, with what has expired written down."""
    account = _select_for_update(tx, user_id)
    return _select_for_update(tx, user_id) if _expire(tx, account) else account


def _move(tx: Transaction, account: _Locked, amount: int, *, consumed: int = 0) -> int:
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


def _check_balance(balance: int) -> None:
    if abs(balance) > MAX_BALANCE:
        raise Invalid(N_("The balance would be larger than the ledger can hold."), field="amount")


_KINDS = ("prompt", "completion", "cached", "cache_creation", "reasoning")


def _counts(tokens: Tokens) -> dict[str, int]:
    return {f"{kind}_tokens": getattr(tokens, kind) for kind in _KINDS}


_ENTRY_COLUMNS = [column.name for column in ENTRIES.columns if column.name != "id"]
_EMPTY_ENTRY = dict.fromkeys(_ENTRY_COLUMNS)
_INSERT_ENTRY = text(
    f"INSERT INTO entry ({', '.join(_ENTRY_COLUMNS)}) VALUES (:{', :'.join(_ENTRY_COLUMNS)}) RETURNING id"
)


def _write(
    tx: Transaction, account_id: int, type: str, amount: int, balance: int, actor: Actor | None, **columns: Any
) -> dict[str, Any]:
    """Write an entry; its columns."""
    row = {**_EMPTY_ENTRY, "cost": 0, "created_at_ns": tx.now_ns, **columns}
    row |= {"account_id": account_id, "type": type, "amount": amount, "balance_after": balance}
    if actor is not None and actor.account_id != account_id:
        row["operator_id"] = actor.account_id
    if row["created_at_ns"] != tx.now_ns:
        row["recorded_at_ns"] = tx.now_ns
    row["id"] = tx.connection().execute(_INSERT_ENTRY, row).scalar_one()
    return row


_SUMS = ("cost", "calls", *(f"{kind}_tokens" for kind in _KINDS))
_COUNT = text(
    f"INSERT INTO usage_sum (account_id, period, model_id, {', '.join(_SUMS)}) "
    f"VALUES (:account_id, :period, :model_id, :{', :'.join(_SUMS)}) ON CONFLICT (account_id, period, model_id) "
    f"DO UPDATE SET {', '.join(f'{name} = usage_sum.{name} + excluded.{name}' for name in _SUMS)}"
)


def _count(
    tx: Transaction, account_id: int, model_id: int | None, at_ns: int, cost: int, calls: int, tokens: Tokens
) -> None:
    """Add a call (`calls` 1) to the sums, or take one off them (-1)."""
    added = {kind: calls * count for kind, count in _counts(tokens).items()}
    key = {"account_id": account_id, "period": at_ns // PERIOD_NS, "model_id": model_id}
    tx.connection().execute(_COUNT, {**key, "cost": cost, "calls": calls, **added})


def _open_hold(tx: Transaction, precharge_id: int) -> tuple[Entry, _Locked, str]:
    """A precharge that still holds, its account locked. Raises NotFound, Conflict."""
    entry = tx.get(Entry, precharge_id)
    if entry is None or entry.type != "precharge":
        raise NotFound(N_("There is no precharge {precharge_id}."), precharge_id=precharge_id)
    user_id = _user_id(tx, entry.account_id)
    account = _lock(tx, user_id)
    ended_by = tx.connection().scalar(select(HOLDS.c.ended_by).where(HOLDS.c.precharge_id == precharge_id))
    if ended_by is None:
        return entry, account, user_id
    how = tx.connection().scalar(select(ENTRIES.c.type).where(ENTRIES.c.id == ended_by))
    raise Conflict(_ENDED[how or ""], precharge_id=precharge_id)


_ENDED = {
    "settle": N_("Precharge {precharge_id} has been settled already."),
    "refund": N_("Precharge {precharge_id} has been refunded already."),
    "reversal": N_("Precharge {precharge_id} has been reversed by an admin."),
    "expire": N_(
        "Precharge {precharge_id} has expired and was given back. Charge the call itself, with allow_debt if it was made."
    ),
}


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
    holds = tx.connection().execute(due).all()
    for hold in holds:
        balance = _move(tx, account, hold.held)
        entry = _write(
            tx, account.id, "expire", hold.held, balance, None,
            model_id=hold.model_id, precharge_id=hold.precharge_id, created_at_ns=hold.expires_at_ns,
        )  # fmt: skip
        tx.connection().execute(
            update(HOLDS).where(HOLDS.c.precharge_id == hold.precharge_id).values(ended_by=entry["id"])
        )
        account = replace(account, balance=balance)
    if holds:
        _note_deadline(tx, account.id)
    return len(holds)


def _user_id(tx: Transaction, account_id: int) -> str:
    return str(tx.connection().execute(select(ACCOUNTS.c.user_id).where(ACCOUNTS.c.id == account_id)).scalar_one())


def _done(
    tx: Transaction, once: Once | None, row: dict[str, Any], user_id: str, status: str, expires_at_ns: int | None = None
) -> Receipt:
    """The receipt of an entry, remembered under the request's key."""
    idempotency.remember(tx, once, entry_id=row["id"], answer=None if status == "active" else status)
    return Receipt(
        row["id"], user_id, row["type"], row["amount"], row["cost"], row["balance_after"], status,
        row["created_at_ns"], expires_at_ns,
    )  # fmt: skip


def _replayed(tx: Transaction, once: Once | None) -> Receipt | None:
    """The receipt that this key's first request got."""
    known = idempotency.earlier(tx, once)
    if known is None:
        return None
    entry = tx.get(Entry, known.entry_id)
    assert entry is not None
    expires = tx.connection().scalar(select(HOLDS.c.expires_at_ns).where(HOLDS.c.precharge_id == entry.id))
    return Receipt(
        entry.id or 0, _user_id(tx, entry.account_id), entry.type, entry.amount, entry.cost, entry.balance_after,
        "frozen" if known.answer else "active", entry.created_at_ns, expires, replayed=True,
    )  # fmt: skip
