"""Seals, an audit log, jobs of reversals, and sums that keep calls and what was undone of them apart.

Sums are made anew from the entries. Seals and the audit log never change, like entries and prices.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
APPEND_ONLY = ("seal", "audit")
TOKENS = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens")
NOT_DONE = sa.text("reversal_id IS NULL AND refusal IS NULL")
QUARTER_NS = 900_000_000_000


def upgrade() -> None:
    op.create_table(
        "seal",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_entry_id", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "audit",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("actor_id", ID, nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["account.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_at", "audit", ["at_ns"], unique=False)
    op.create_table(
        "reversal_job",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("operator_id", ID, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("finished_at_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["operator_id"], ["account.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "reversal_item",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("entry_id", ID, nullable=False),
        sa.Column("reversal_id", ID, nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["reversal_job.id"]),
        sa.ForeignKeyConstraint(["entry_id"], ["entry.id"]),
        sa.ForeignKeyConstraint(["reversal_id"], ["entry.id"]),
        sa.PrimaryKeyConstraint("job_id", "entry_id"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "reversal_item_left",
        "reversal_item",
        ["job_id", "entry_id"],
        unique=False,
        sqlite_where=NOT_DONE,
        postgresql_where=NOT_DONE,
    )
    _sums()
    if op.get_bind().dialect.name == "sqlite":
        for table in APPEND_ONLY:
            for change in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, 'a row of {table} never changes'); END"
                )
    else:
        for table in APPEND_ONLY:
            op.execute(
                f"CREATE TRIGGER {table}_never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION never_changes()"
            )


def _sums() -> None:
    op.drop_table("usage_sum")
    op.create_table(
        "usage_sum",
        sa.Column("account_id", ID, nullable=False),
        sa.Column("period", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("kind", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        *(sa.Column(tokens, sa.BigInteger(), nullable=False) for tokens in TOKENS),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"]),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"]),
        sa.PrimaryKeyConstraint("account_id", "period", "model_id", "kind"),
        sqlite_with_rowid=False,
    )
    op.create_index("usage_sum_period", "usage_sum", ["period"], unique=False)
    columns = f"account_id, period, model_id, kind, cost, calls, {', '.join(TOKENS)}"
    op.execute(
        f"INSERT INTO usage_sum ({columns}) SELECT account_id, created_at_ns / {QUARTER_NS}, model_id, 0, sum(cost), "
        f"count(*), {', '.join(f'sum({tokens})' for tokens in TOKENS)} FROM entry WHERE type IN ('deduct', 'settle') "
        "GROUP BY 1, 2, 3"
    )
    # A reversal undoes the call that its chain of reversals ends in, or counts it again.
    for kind, when in ((1, "root"), (2, "top")):
        op.execute(
            f"""
            INSERT INTO usage_sum ({columns})
            WITH RECURSIVE chain(id, up, sign) AS (
                SELECT id, reverses_id, -1 FROM entry WHERE reverses_id IS NOT NULL
                UNION ALL
                SELECT chain.id, entry.reverses_id, -chain.sign FROM chain JOIN entry ON entry.id = chain.up
                WHERE entry.reverses_id IS NOT NULL
            )
            SELECT root.account_id, {when}.created_at_ns / {QUARTER_NS}, root.model_id, {kind}, sum(top.cost),
                sum(chain.sign), {", ".join(f"sum(chain.sign * root.{tokens})" for tokens in TOKENS)}
            FROM chain JOIN entry AS top ON top.id = chain.id JOIN entry AS root ON root.id = chain.up
            WHERE root.type IN ('deduct', 'settle') AND top.cost <> 0
            GROUP BY 1, 2, 3
            """
        )
