"""What the quarter of an hour under way used is kept in a table of its own, a row of an account and model, and added to the sums at
its end. On SQLite the types of an entry are told apart without a list: it made a table of it whenever an entry was written.
"""

import re

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

KEY = ("quarter", "account_id", "model_id")
TOKENS = ("prompt_tokens", "cached_tokens", "cache_creation_tokens", "completion_tokens", "reasoning_tokens")
NUMBERS = ("cost", "calls", *TOKENS, "priced_extras", "upstream_yuan", "upstream_cost")
TYPES = ("deduct", "settle", "recharge", "precharge", "refund", "expire", "reversal")
RARE = ("refund", "expire", "reversal")


def upgrade() -> None:
    op.create_table(
        "usage_open",
        *(sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False) for name in KEY),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in NUMBERS),
        sa.PrimaryKeyConstraint(*KEY),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 50},
    )
    if op.get_bind().dialect.name != "sqlite":
        return
    op.drop_index("entry_rare_of_account", "entry")
    op.create_index("entry_rare_of_account", "entry", ["account_id", "id"], sqlite_where=sa.text(is_one_of(RARE)))
    try:
        with op.get_bind().begin_nested():
            change_check()
    except sa.exc.DBAPIError as error:
        if "may not be modified" not in str(error):  # a build of SQLite that refuses it is only slower
            raise


def change_check() -> None:
    """As SQLite's documentation has it for what leaves the rows as they are: https://sqlite.org/lang_altertable.html."""
    (made,) = op.get_bind().exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'entry'").one()
    (version,) = op.get_bind().exec_driver_sql("PRAGMA schema_version").one()
    op.execute("PRAGMA writable_schema = ON")
    try:
        new = re.sub(r"CHECK \(type IN \([^()]*\)\)", f"CHECK {is_one_of(TYPES)}", made)
        op.get_bind().exec_driver_sql("UPDATE sqlite_master SET sql = ? WHERE name = 'entry'", (new,))
        op.execute(f"PRAGMA schema_version = {version + 1}")
    finally:
        op.execute("PRAGMA writable_schema = RESET")


def is_one_of(types: tuple[str, ...]) -> str:
    return "(" + " OR ".join(f"type = '{type}'" for type in types) + ")"
