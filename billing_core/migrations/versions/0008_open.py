"""What the quarter of an hour under way used is kept in a table of its own, a row a call, and added to the sums at its end."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

KEY = ("quarter", "account_id", "model_id")
TOKENS = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens")
NUMBERS = ("cost", "calls", *TOKENS, "priced_extras", "upstream_yuan", "upstream_cost")


def upgrade() -> None:
    op.create_table(
        "usage_open",
        *(sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False) for name in KEY),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in NUMBERS),
        sa.PrimaryKeyConstraint(*KEY),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 50},
    )
