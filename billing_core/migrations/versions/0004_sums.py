"""Sums of use at several lengths: of every model, of every account, and of every account and model.

They are put together from those of quarters of an hour, the finest first and each coarser one from the one before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

KEYS = ("of", "length", "period", "account_id", "model_id", "kind", "slot")
TOKENS = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens")
LATER = ("priced_extras", "upstream_yuan", "upstream_cost")
NUMBERS = ("cost", "calls", *TOKENS, *LATER)
MODEL, ACCOUNT, BOTH = range(3)
LONGEST, BUSY_CALLS = 768, 2048
USED, UNDONE = "kind = 0", "kind <> 0"
BUSY = f"""
{USED} AND EXISTS (
    SELECT 1 FROM usage_sum AS s WHERE s.of = {ACCOUNT} AND s.length = {LONGEST} AND s.period = q.period / {LONGEST}
    AND s.account_id = q.account_id AND s.model_id = 0 AND s.kind = 0 AND s.slot = 0 AND s.calls >= {BUSY_CALLS}
)
"""
STEPS = (
    (MODEL, USED, (1, 16, 96, 768)),
    (MODEL, UNDONE, (1, 16, 96, 768)),
    (ACCOUNT, USED, (16, 96, 768)),
    (ACCOUNT, UNDONE, (1, 16, 96, 768)),
    (BOTH, USED, (768,)),
    (BOTH, BUSY, (4, 16, 96)),
    (BOTH, UNDONE, (1, 4, 16, 96, 768)),
)


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":  # a constraint keeps its name when its table gets another
        op.execute("ALTER TABLE usage_sum RENAME CONSTRAINT usage_sum_pkey TO usage_sum_quarter_pkey")
    op.rename_table("usage_sum", "usage_sum_quarter")
    op.create_table(
        "usage_sum",
        *(sa.Column(key, sa.BigInteger(), autoincrement=False, nullable=False) for key in KEYS),
        *(sa.Column(number, sa.BigInteger(), nullable=False) for number in NUMBERS[:7]),
        *(sa.Column(number, sa.BigInteger(), nullable=False, server_default="0") for number in LATER),
        sa.PrimaryKeyConstraint(*KEYS),
        sqlite_with_rowid=False,
    )
    for of, which, lengths in STEPS:
        _fill(of, which, lengths)
    op.drop_table("usage_sum_quarter")
    op.create_index("entry_at", "entry", ["account_id", "created_at_ns"], unique=False)


def _fill(of: int, which: str, lengths: tuple[int, ...]) -> None:
    account, model = ("0" if of == MODEL else "account_id"), ("0" if of == ACCOUNT else "model_id")
    source, finer = "usage_sum_quarter", 1
    for length in lengths:
        op.execute(
            f"INSERT INTO usage_sum ({', '.join((*KEYS, *NUMBERS))}) "
            f"SELECT {of}, {length}, period / {length // finer}, {account}, {model}, kind, 0, "
            f"{', '.join(f'sum({number})' for number in NUMBERS)} FROM {source} AS q WHERE {which} GROUP BY 3, 4, 5, 6"
        )
        source, finer = f"(SELECT * FROM usage_sum WHERE of = {of} AND length = {length})", length
        which = USED if which == BUSY else which
