"""Prices of many components, planned, ruled and changed by the hundred; what else a call used, and what it cost upstream."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
APPEND_ONLY = ("price_change", "price_withdrawal", "price_rule")
NEW_COLUMNS = {
    "price": (("more", sa.Text()), ("origin", sa.Text())),
    "entry": (("extras", sa.Text()), ("upstream_usd", sa.BigInteger()), ("upstream_yuan", sa.BigInteger())),
}
SUMS = ("priced_extras", "upstream_yuan", "upstream_cost")
REFERENCES = (("price", "change_id", "price_change"), ("entry", "reprices_id", "entry"), ("reversal_item", "price_id", "price"))


def upgrade() -> None:
    op.create_table(
        "price_change",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("undoes", ID, nullable=True),
        sa.Column("operator_id", ID, nullable=True),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["undoes"], ["price_change.id"]),
        sa.ForeignKeyConstraint(["operator_id"], ["account.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("undoes"),
    )
    op.create_table(
        "price_withdrawal",
        sa.Column("price_id", ID, autoincrement=False, nullable=False),
        sa.Column("operator_id", ID, nullable=True),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["price_id"], ["price.id"]),
        sa.ForeignKeyConstraint(["operator_id"], ["account.id"]),
        sa.PrimaryKeyConstraint("price_id"),
    )
    op.create_table(
        "price_rule",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("operator_id", ID, nullable=True),
        sa.Column("created_at_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["operator_id"], ["account.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    for table, columns in NEW_COLUMNS.items():
        for name, type in columns:
            op.add_column(table, sa.Column(name, type, nullable=True))
    for table, name, target in REFERENCES:
        # A column that may be empty can name another table in SQLite as well, without the table being made anew.
        op.execute(f"ALTER TABLE {table} ADD COLUMN {name} {_id_type()} REFERENCES {target} (id)")
    for name in SUMS:
        op.add_column("usage_sum", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
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


def _id_type() -> str:
    return "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
