"""The tables of the operation log's database, the same in SQLite and PostgreSQL; docs/formats.md describes them."""

from typing import Final

import sqlalchemy as sa

SCHEMA_FORMAT: Final = "gfs operation log 1"

metadata = sa.MetaData()
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(256), nullable=False),
)
leadership = sa.Table(
    "leadership",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.String(256), nullable=False),
    sa.Column("address", sa.String(256), nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("process", sa.String(256), nullable=False),
)
log = sa.Table(
    "log",
    metadata,
    sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)
checkpoint = sa.Table(
    "checkpoint",
    metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("log_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("digest", sa.LargeBinary(16), nullable=False),
    sa.Column("format", sa.Integer, nullable=False),
    sa.Column("parts", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
    sa.Column("attempt", sa.String(32), nullable=False, unique=True),
)
checkpoint_part = sa.Table(
    "checkpoint_part",
    metadata,
    sa.Column("attempt", sa.String(32), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("node", sa.String(256), nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)

CORE: Final = frozenset({"meta", "log", "leadership"})
"""What every database of ours has; the other tables are added where they are missing."""
