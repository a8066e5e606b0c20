"""How a database goes about what a function reads, for tests that hold it to an index."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from billing_core.database import Database, Transaction


def statements(db: Database, function: Callable[[], Any]) -> list[tuple[str, Any]]:
    """The statements that `function` sends, each with its parameters."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    def rows(tx: Transaction, query: str, parameters: Any = ()) -> list[Any]:
        asked.append((query, tuple(parameters)))
        return straight(tx, query, parameters)

    def ask(tx: Transaction, *queries: tuple[str, Any]) -> list[list[Any]]:
        if not tx.is_sqlite:  # where it is so many times `rows`
            asked.extend((query, tuple(parameters)) for query, parameters in queries)
        return straight_ask(tx, *queries)

    straight, straight_ask = Transaction.rows, Transaction.ask
    sa.event.listen(db.engine, "before_cursor_execute", note)
    try:
        with patch.multiple(Transaction, rows=rows, ask=ask):
            function()
    finally:
        sa.event.remove(db.engine, "before_cursor_execute", note)
    return asked


def plans(db: Database, function: Callable[[], Any]) -> list[list[str]]:
    """The steps of each SELECT that `function` makes, as EXPLAIN QUERY PLAN tells them."""
    asked = statements(db, function)
    with db.engine.connect() as connection:
        return [
            [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            for statement, parameters in asked
            if statement.lstrip().startswith(("SELECT", "WITH"))
        ]


def steps(db: Database, function: Callable[[], Any]) -> list[list[str]]:
    """The steps of each SELECT that `function` makes, on either database. Postgres takes an index wherever there is one that
    fits: of a small table it would rather read all."""
    if db.is_sqlite:
        return plans(db, function)
    asked, found = statements(db, function), []
    with db.engine.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        for statement, parameters in asked:
            if statement.lstrip().startswith(("SELECT", "WITH")):
                marked = statement if isinstance(parameters, dict) else statement.replace("%", "%%").replace("?", "%s")
                rows = connection.exec_driver_sql(f"EXPLAIN {marked}", parameters)
                found.append([row[0].strip().removeprefix("->").strip() for row in rows])
    return found
