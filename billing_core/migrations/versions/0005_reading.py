"""What each sealed stretch of the ledger holds, and which of an account's entries are rare: a page of the log reads little,
however far back it is. The stretches are filled beside the charges once the app runs.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

RARE = {
    "entry_rare_of_account": "type IN ('refund', 'expire', 'reversal')",
    "entry_remarked_of_account": "remark IS NOT NULL",
}


def upgrade() -> None:
    op.create_table(
        "stretch",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("first_id", "last_id", "upto", "from_ns", "to_ns", "latest_ns")
        ),
        sa.PrimaryKeyConstraint("number"),
        sqlite_with_rowid=False,
    )
    for column in ("last_id", "upto"):
        op.create_index(f"stretch_{column}", "stretch", [column], unique=False)
    for name in ("latest", "from"):
        op.create_index(f"stretch_{name}", "stretch", [f"{name}_ns", "number"], unique=False)
    op.create_table(
        "stretch_holds",
        sa.Column("what", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("ids", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("what", "number"),
        sqlite_with_rowid=False,
    )
    for name, which in RARE.items():
        where = sa.text(which)
        op.create_index(name, "entry", ["account_id", "id"], sqlite_where=where, postgresql_where=where)
