"""How the check reads rows, many at a time, and writes amounts that may be none."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from ..database import Transaction
from ..money import format_yuan

ROWS_AT_ONCE = 1000


def each_row(tx: Transaction, statement: str, **params: object) -> Iterator[Any]:
    yield from tx.connection().execute(sa.text(statement), params, execution_options={"yield_per": ROWS_AT_ONCE})


def blocks(tx: Transaction, statement: str) -> Iterator[list[Any]]:
    """Rows as the driver gives them, many at a time: ten million don't each need a Row."""
    driver: Any = tx.connection().connection.driver_connection
    cursor = driver.cursor() if tx.is_sqlite else driver.cursor(name="walk")
    try:
        cursor.execute(statement)
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            yield rows
    finally:
        cursor.close()


def yuan(amount: Any) -> str:
    """An amount in 元; what is none (SQLite keeps 1.5 or text in a column of numbers) as it stands there."""
    return format_yuan(amount) if isinstance(amount, int) else repr(amount)
