"""The entries of an account that are no calls are summed up as its use is, under a kind of their own, so that what a log's range
holds is read as quickly for a year as for a day; what repricings wrote is found by an index; and what every account used of every
model is summed up for 64 days as well.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

QUARTER_NS = 900 * 10**9
ACCOUNT, BOTH, OTHER = 1, 2, 3
LENGTHS = (16, 96, 768, 6144)
NUMBERS = ("calls", "cost")
ZEROS = (
    "prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens", "priced_extras",
    "upstream_yuan", "upstream_cost",
)  # fmt: skip


def upgrade() -> None:
    is_repricing = sa.text("reprices_id IS NOT NULL")
    op.create_index(
        "entry_repricing_of_account", "entry", ["account_id", "id"],
        sqlite_where=is_repricing, postgresql_where=is_repricing,
    )  # fmt: skip
    recharged = "CASE WHEN type = 'recharge' OR type = 'reversal' AND model_id IS NULL THEN amount ELSE 0 END"
    entries = (
        f"(SELECT created_at_ns / {QUARTER_NS} AS period, account_id, 1 AS calls, {recharged} AS cost FROM entry "
        "WHERE type NOT IN ('deduct', 'settle'))"
    )
    finer = 1
    for length in LENGTHS:
        source = entries if finer == 1 else f"(SELECT * FROM usage_sum WHERE {of_length(finer)})"
        op.execute(
            f"INSERT INTO usage_sum (of, length, period, account_id, model_id, kind, slot, {', '.join((*NUMBERS, *ZEROS))}) "
            f"SELECT {ACCOUNT}, {length}, period / {length // finer}, account_id, 0, {OTHER}, 0, sum(calls), sum(cost), "
            f"{', '.join('0' * len(ZEROS))} FROM {source} AS finer GROUP BY 3, 4"
        )
        finer = length
    numbers = (*NUMBERS, *ZEROS)
    op.execute(
        f"INSERT INTO usage_sum (of, length, period, account_id, model_id, kind, slot, {', '.join(numbers)}) "
        f"SELECT {BOTH}, 6144, period / 8, account_id, model_id, kind, 0, {', '.join(f'sum({name})' for name in numbers)} "
        f"FROM usage_sum WHERE of = {BOTH} AND length = 768 GROUP BY 3, 4, 5, 6"
    )


def of_length(length: int) -> str:
    return f"of = {ACCOUNT} AND length = {length} AND kind = {OTHER}"
