"""What stands at the top of a page: how much is left, what was spent, how long it lasts; for one account or the team.

Everything here comes from sums and from the few entries that people make; nothing reads the history of calls. Amounts
are 毫.
"""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from . import accounts, ledger, stats, stretches
from .actors import Actor
from .balances import balances_of
from .database import Transaction
from .models import IS_RARE, UNDONE_AT_REVERSAL, Account
from .money import Hao
from .stats import Period

DAYS = 30
"""How far the lines and the chart go back, today included."""
PACE_DAYS = 14
"""The pace is that of the last two weeks, today included."""
SOON_DAYS = 7


@dataclass(frozen=True, slots=True)
class Overview:
    """One account."""

    user_id: str
    name: str
    role: str
    status: str
    balance: Hao
    held: Hao
    total_consumed: Hao
    spent: Hao
    """Over the last DAYS days."""
    days_left: int | None
    """Whole days at the present pace; None where nothing is spent."""

    @property
    def runs_out_soon(self) -> bool:
        return self.balance >= 0 and self.days_left is not None and self.days_left < SOON_DAYS


def _overview(account: Account | accounts.Known, left: Hao, held: Hao, spent: list[int]) -> Overview:
    """`spent` in the periods of _pace."""
    return Overview(
        user_id=account.user_id,
        name=account.name,
        role=account.role,
        status=account.status,
        balance=left,
        held=held,
        total_consumed=account.total_consumed,
        spent=sum(spent),
        days_left=days_left(left, spent[-1]),
    )


def days_left(balance: Hao, spent: Hao) -> int | None:
    """How many whole days `balance` lasts where `spent` went in PACE_DAYS; None where nothing was spent."""
    return max(balance, 0) * PACE_DAYS // spent if spent > 0 else None


def last_days(tx: Transaction, tz: ZoneInfo) -> list[Period]:
    return stats.last_periods(tx.now_ns, "day", tz, DAYS)


def _pace(tx: Transaction, tz: ZoneInfo) -> list[Period]:
    """The last DAYS days in two: those that give the pace come last."""
    days = last_days(tx, tz)
    return [stats.joined(days[:-PACE_DAYS]), stats.joined(days[-PACE_DAYS:])]


def one(tx: Transaction, user_id: str, *, actor: Actor, tz: ZoneInfo) -> Overview:
    """Raises UnknownAccount, Forbidden."""
    actor.must_see(user_id)
    account = accounts.find(tx, user_id)
    spent = stats.spent(tx, _pace(tx, tz), actor=actor, user_id=user_id)
    return _overview(account, ledger.balance(tx, account), ledger.held(tx, account), spent)


@dataclass(frozen=True, slots=True)
class Months:
    """What was spent this month so far, and last month."""

    this: int
    last: int


def months(tx: Transaction, user_id: str, *, actor: Actor, tz: ZoneInfo) -> Months:
    """Raises UnknownAccount, Forbidden."""
    last, this = stats.spent(tx, stats.last_periods(tx.now_ns, "month", tz)[-2:], actor=actor, user_id=user_id)
    return Months(this, last)


_MOVED = f"""
WITH RECURSIVE undone(amount, at_ns, reverses_id, times) AS (
    SELECT amount, created_at_ns, reverses_id, 1 FROM entry
    WHERE account_id = ? AND id >= ? AND {IS_RARE}
    UNION ALL
    SELECT undone.amount, undone.at_ns, up.reverses_id, times + 1 FROM undone JOIN entry up ON up.id = undone.reverses_id
    WHERE up.reverses_id IS NOT NULL
)
SELECT amount, created_at_ns FROM entry WHERE account_id = ? AND id >= ? AND type = 'recharge'
UNION ALL
SELECT undone.amount, at_ns FROM undone JOIN entry first ON first.id = undone.reverses_id
WHERE first.type IN ('recharge', 'refund', 'expire') OR (first.type = 'precharge' AND times > 1)
"""
"""What people moved on an account since an entry, beside calls and what is held: recharges, and reversals of all but calls;
that of a hold gives back what was held, as its end does."""


def balances(tx: Transaction, shown: Overview, *, actor: Actor, tz: ZoneInfo) -> list[int]:
    """The balance at the end of each of the last DAYS days, holds not counted: reckoned back from today's by what was spent
    each day and by what people put on and took off since. What was undone had been spent until then; a late call counts on
    its own day."""
    days = last_days(tx, tz)
    spent = stats.spent(tx, days, actor=actor, user_id=shown.user_id, undone=UNDONE_AT_REVERSAL)
    account_id = accounts.number(tx, shown.user_id)
    since = min(window.first for window in stretches.span(tx, days[0].start_ns, None))
    rows = tx.rows(_MOVED, (account_id, since, account_id, since))
    at_end, balance = [], shown.balance + shown.held
    for day, cost in zip(reversed(days), reversed(spent), strict=True):
        at_end.append(balance)
        balance += cost - sum(amount for amount, at in rows if day.start_ns <= at < day.end_ns)
    return at_end[::-1]


@dataclass(frozen=True, slots=True)
class Team:
    """All accounts that a search finds, by name; the sums are over all there are."""

    rows: list[Overview]
    balance: Hao
    spent: Hao
    soon: list[Overview]
    """Who runs out within SOON_DAYS."""
    in_debt: list[Overview]


def neediest_first(rows: list[Overview]) -> list[Overview]:
    """Who is in debt, the deepest first; then who runs out within SOON_DAYS, the soonest first; then the rest, as given."""

    def need(row: Overview) -> tuple[int, int]:
        if row.balance < 0:
            return 0, row.balance
        return (1, row.days_left or 0) if row.runs_out_soon else (2, 0)

    return sorted(rows, key=need)


def team(tx: Transaction, *, actor: Actor, tz: ZoneInfo, search: str = "") -> Team:
    """Raises Forbidden."""
    everybody = accounts.known(tx, actor=actor)
    found = {account.user_id for account in accounts.listed(tx, actor=actor, search=search)} if search.strip() else None
    spent = stats.spent_by(tx, _pace(tx, tz), actor=actor)
    rows = [
        _overview(account, balance.left, balance.held, spent[account.user_id])
        for account, balance in zip(everybody, balances_of(tx, everybody), strict=True)
    ]
    return Team(
        rows=[row for row in rows if found is None or row.user_id in found],
        balance=sum(row.balance for row in rows),
        spent=sum(row.spent for row in rows),
        soon=[row for row in rows if row.runs_out_soon],
        in_debt=[row for row in rows if row.balance < 0],
    )
