"""What is summed up for 4 hours of every model, or of a busy account's use of every model, is summed up for 8 hours as well, and of
the busy account's for 2: a day that begins at 16:00 UTC, as in Shanghai, is three periods and not six. And changes of settings are found in the audit log by an
index: a call that is booked late costs what counted at its moment.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

MODEL, BOTH = 0, 2
NUMBERS = (
    "cost", "calls", "prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens",
    "priced_extras", "upstream_yuan", "upstream_cost",
)  # fmt: skip


def upgrade() -> None:
    is_setting = sa.text("action = 'setting.change'")
    op.create_index("audit_of_settings", "audit", ["at_ns"], sqlite_where=is_setting, postgresql_where=is_setting)
    for ofs, length in (((MODEL, BOTH), 32), ((BOTH,), 8)):
        op.execute(
            f"INSERT INTO usage_sum (of, length, period, account_id, model_id, kind, slot, {', '.join(NUMBERS)}) "
            f"SELECT of, {length}, period / 2, account_id, model_id, kind, slot, {', '.join(f'sum({name})' for name in NUMBERS)} "
            f"FROM usage_sum WHERE of IN ({', '.join(map(str, ofs))}) AND length = {length // 2} GROUP BY of, 3, 4, 5, 6, 7"
        )
