"""Databases for the operation log in tests: SQLite and PostgreSQL, and a way to tamper with both."""

from typing import Any

import sqlalchemy as sa


def query(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """As :func:`execute`, with a ``?`` for each value, in whichever database."""
    names = [f"value_{number}" for number in range(len(values))]
    for name in names:
        statement = statement.replace("?", f":{name}", 1)
    return [tuple(row) for row in execute(url, statement, **dict(zip(names, values, strict=True)))]


def execute(url: str, statement: str, **parameters: object) -> list[Any]:
    """Runs one statement past our own code, commits, and gives the rows, if there are any."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement), parameters)
            return list(result) if result.returns_rows else []
    finally:
        engine.dispose()
