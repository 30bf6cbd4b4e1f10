"""Databases for the operation log in tests: SQLite and PostgreSQL, and a way to tamper with both."""

from typing import Any

import sqlalchemy as sa


def execute(url: str, statement: str, **parameters: object) -> list[Any]:
    """Runs one statement past our own code, commits, and gives the rows, if there are any."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement), parameters)
            return list(result) if result.returns_rows else []
    finally:
        engine.dispose()
