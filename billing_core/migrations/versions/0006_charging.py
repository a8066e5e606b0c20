"""A number that changes with every price, so that a charge need not read again what counts; and what the entries of each sealed
stretch come to, so that a page of the log adds up a year at once. The stretches are filled again beside the charges.
And the sums of every account over 64 days.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

ACCOUNT, LONGEST = 1, 768
KEYS = "account_id, model_id, kind, slot"
NUMBERS = (
    "cost", "calls", "prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens",
    "priced_extras", "upstream_yuan", "upstream_cost",
)  # fmt: skip
TABLES = ("model", "price", "price_withdrawal", "price_rule", "setting")


def upgrade() -> None:
    op.execute(
        f"INSERT INTO usage_sum (of, length, period, {KEYS}, {', '.join(NUMBERS)}) "
        f"SELECT {ACCOUNT}, {8 * LONGEST}, period / 8, {KEYS}, {', '.join(f'sum({name})' for name in NUMBERS)} "
        f"FROM usage_sum WHERE of = {ACCOUNT} AND length = {LONGEST} GROUP BY period / 8, {KEYS}"
    )
    for table in ("stretch_holds", "stretch"):
        op.execute(f"DELETE FROM {table}")
    for name in ("consumed", "recharged"):
        # SQLite takes a new column that can't be empty only with a default
        op.add_column("stretch_holds", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "price_version",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("id = 1", name="price_version_only"),
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute("INSERT INTO price_version (id, version) VALUES (1, random())")
        for table in TABLES:
            for change in ("INSERT", "UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_{change.lower()}_version AFTER {change} ON {table} "
                    "BEGIN UPDATE price_version SET version = random(); END"
                )
        return
    number = "hashtextextended(gen_random_uuid()::text, 0)"
    op.execute(f"INSERT INTO price_version (id, version) VALUES (1, {number})")
    # As its owner, and in the schema of the table that has changed: the app itself may not write there. Whoever may make
    # tables of their own can give them this trigger, so that it does nothing for a table that isn't the owner's.
    op.execute(
        "CREATE FUNCTION new_price_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        "SET search_path = pg_catalog, pg_temp AS $$ BEGIN "
        "IF EXISTS (SELECT FROM pg_class WHERE relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) "
        "AND oid IN (TG_RELID, format('%I.price_version', TG_TABLE_SCHEMA)::regclass)) "
        "THEN RAISE EXCEPTION '% or price_version belongs to somebody else', TG_TABLE_NAME; END IF; "
        f"EXECUTE format('UPDATE %I.price_version SET version = {number}', TG_TABLE_SCHEMA); RETURN NULL; END $$"
    )
    # Before the change, so that whoever changes two tables takes their locks in the order in which everybody does.
    for table in TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_version BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION new_price_version()"
        )
