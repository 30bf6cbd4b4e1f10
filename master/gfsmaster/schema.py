"""The tables of the operation log's database, the same in SQLite and PostgreSQL; docs/formats.md describes them."""

from typing import Any, Final

import sqlalchemy as sa

SCHEMA_FORMAT: Final = "gfs operation log 1"


def _number(name: str, *, small: bool = False, key: bool = False) -> "sa.Column[Any]":
    kind = sa.Integer() if small else sa.BigInteger()
    if key:
        # In SQLite only a key of this type, which has 64 bits there too, is the table's own key and needs no index.
        kind = kind.with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, nullable=False, primary_key=key, autoincrement=False)


def _text(name: str, length: int, *, key: bool = False, unique: bool | None = None) -> "sa.Column[Any]":
    return sa.Column(name, sa.String(length), nullable=False, primary_key=key, unique=unique)


def _bytes(name: str, length: int | None = None) -> "sa.Column[Any]":
    return sa.Column(name, sa.LargeBinary(length), nullable=False)


metadata = sa.MetaData()
meta = sa.Table("meta", metadata, _text("name", 64, key=True), _text("value", 256))
leadership = sa.Table(
    "leadership",
    metadata,
    _number("id", small=True, key=True),
    _number("epoch"),
    _text("holder", 256),
    _text("address", 256),
    _number("beat"),
    _text("process", 256),
)
log = sa.Table(
    "log",
    metadata,
    _number("first", key=True),
    _number("last"),
    _number("epoch"),
    _bytes("hash", 32),
    _bytes("payload"),
)
checkpoint = sa.Table(
    "checkpoint",
    metadata,
    _number("sequence", key=True),
    _number("epoch"),
    _bytes("log_hash", 32),
    _bytes("digest", 16),
    _number("format", small=True),
    _number("parts", small=True),
    _number("size_bytes"),
    _bytes("hash", 32),
    _text("attempt", 32, unique=True),
)
checkpoint_part = sa.Table(
    "checkpoint_part",
    metadata,
    _text("attempt", 32, key=True),
    _number("number", small=True, key=True),
    _number("sequence"),
    _text("node", 256),
    _bytes("hash", 32),
    _bytes("payload"),
)

CORE: Final = frozenset({"meta", "log", "leadership"})
"""What every database of ours has; the other tables are added where they are missing."""
