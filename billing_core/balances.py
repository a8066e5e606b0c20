"""What many accounts may still spend, in one query: a list of accounts asks as often for two thousand as for two."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import case, func, select

from .accounts import Known
from .database import Transaction
from .models import HOLDS, Account
from .money import Hao


@dataclass(frozen=True, slots=True)
class Balance:
    """As ledger.balance and ledger.held give them, in 毫."""

    left: Hao
    held: Hao


def balances_of(tx: Transaction, accounts: Sequence[Account | Known]) -> list[Balance]:
    """The balance of each account, in their order."""
    h = HOLDS.c
    back = func.sum(case((h.expires_at_ns <= tx.now_ns, h.held), else_=0))
    still = func.sum(case((h.expires_at_ns > tx.now_ns, h.held), else_=0))
    rows = tx.connection().execute(select(h.account_id, back, still).where(h.ended_by.is_(None)).group_by(h.account_id))
    holds: dict[int | None, tuple[int, int]] = {row[0]: (int(row[1]), int(row[2])) for row in rows}
    found = []
    for account in accounts:
        expired, held = holds.get(account.id, (0, 0))
        found.append(Balance(account.balance + expired, held))
    return found
