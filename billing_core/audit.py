"""The audit log: who did what that is no entry of the ledger, from where and when. It only ever grows.

`note` belongs in the transaction that does the thing, so that both remain or neither.
"""

import json
from typing import Any

from .actors import Actor
from .database import Transaction
from .models import Audit


def note(tx: Transaction, actor: Actor, action: str, subject: str, **detail: Any) -> None:
    """Write down that `actor` did `action` to `subject`; `detail` is what changed, [from, to] by field, without secrets."""
    told = json.dumps(detail, ensure_ascii=False, default=str)
    row = Audit(
        at_ns=tx.now_ns, actor_id=actor.account_id, origin=actor.origin, action=action, subject=subject, detail=told
    )
    tx.add(row)
