"""The operation log and the leadership row, in one SQL database: what is durable, and who may write it.

Tables::

    meta        name, value                  format; node:NAME, the process that the node is
    leadership  id = 1, epoch, holder, address, beat
    log         first, last, epoch, hash, payload
    checkpoint, checkpoint_part                    see :mod:`gfsmaster.checkpoints`

One row of ``log`` is one group commit; ``hash`` is BLAKE3 over the previous row's hash, the row's numbers and its
payload, so a changed, missing or swapped row is found where it stands. The transaction that appends a row also updates
``leadership WHERE epoch = mine``: no row, no append. That is the fence: an old leader cannot commit, however late it
wakes up (HDFS fences its journal nodes by epoch in the same way).

The same transaction checks the new row against the last one in the database. So a leader whose database was replaced by
an older copy (restored, or failed over to a server that had not got everything) adds nothing to it.

Everything here blocks; callers use a thread. Any failure of an append but the fence means that the outcome is unknown,
and the process that asked must stop leading (``LogFailed``); it is never tried again on a log that may have lied.
"""

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from blake3 import blake3
from sqlalchemy.exc import SQLAlchemyError

from gfsmaster.checkpoints import CheckpointStore, Restored
from gfsmaster.databases import Access, open_database, reason
from gfsmaster.operations import LOG_FORMAT, Record, decode_records
from gfsmaster.schema import CORE, SCHEMA_FORMAT
from gfsmaster.schema import leadership as _leadership
from gfsmaster.schema import log as _log
from gfsmaster.schema import meta as _meta
from gfsmaster.schema import metadata as _metadata
from gfsprotocol.errors import (
    ConfigurationError,
    ForeignStore,
    LogDamaged,
    LogFailed,
    LogFenced,
    LogLocked,
    LogOutdated,
    StartupError,
    UnsupportedFormat,
)

_NUMBERS: Final = struct.Struct("<QQQ")
_NODE: Final = "node:"
"""Before the name of a node: the row of ``meta`` that says which process it is."""
GENESIS_HASH: Final = bytes(32)
READ_ROWS: Final = 1024
READ_BYTES: Final = 4 << 20

_FENCE = sa.text("UPDATE leadership SET beat = beat + 1 WHERE id = 1 AND epoch = :epoch AND holder = :holder")
_LEADERSHIP = sa.text("SELECT epoch, holder, address, beat, process FROM leadership WHERE id = 1")
_LAST = sa.text("SELECT last, hash FROM log ORDER BY first DESC LIMIT 1")
_SIZES = sa.text(
    "SELECT first, last, hash, length(payload) FROM log "
    "WHERE first >= (SELECT coalesce(max(first), 0) FROM log WHERE first <= :after) ORDER BY first LIMIT :count"
)
"""The row that holds or precedes a record, if it is still there, and those that follow."""
_ROWS = sa.text(
    "SELECT first, last, epoch, hash, payload FROM log WHERE first > :after AND first <= :last ORDER BY first"
)
_APPEND = sa.text(
    "INSERT INTO log (first, last, epoch, hash, payload) VALUES (:first, :last, :epoch, :hash, :payload)"
).bindparams(sa.bindparam("hash", type_=sa.LargeBinary), sa.bindparam("payload", type_=sa.LargeBinary))


@dataclass(slots=True, frozen=True)
class Batch:
    """One row of the log: records ``first`` to ``last``."""

    first: int
    last: int
    epoch: int
    hash: bytes
    payload: bytes

    @property
    def numbers(self) -> tuple[int, int, int]:
        """What its hash covers besides the payload."""
        return self.first, self.last, self.epoch


@dataclass(slots=True, frozen=True)
class Leadership:
    """Who leads; ``beat`` rises with every sign of life.

    After a planned end ``holder`` is empty and ``address`` the name of the node that is to follow, if one was chosen.
    """

    epoch: int
    holder: str
    address: str
    beat: int
    process: str = ""
    """Which process that is, see :mod:`gfsmaster.processes`."""


def chain(previous: bytes, first: int, last: int, epoch: int, payload: bytes) -> bytes:
    """The hash of a row."""
    return blake3(previous + _NUMBERS.pack(first, last, epoch) + payload).digest()


def check_chain(batch: Batch, after: int, previous: bytes, where: str) -> None:
    """LogDamaged unless the batch follows record ``after``, and its hash the hash ``previous``."""
    named = f"records {batch.first} to {batch.last} of {where}"
    if batch.first != after + 1 or batch.last < batch.first:
        raise LogDamaged(f"{named} do not follow record {after}: records are missing")
    if chain(previous, batch.first, batch.last, batch.epoch, batch.payload) != batch.hash:
        raise LogDamaged(f"{named} are damaged: their hash is wrong. Nothing was changed; restore the journal")


def decode_batch(batch: Batch) -> list[Record]:
    """The records of a row. LogDamaged if they cannot be read."""
    try:
        records = decode_records(batch.payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LogDamaged(f"records {batch.first} to {batch.last} cannot be decoded: {error}") from error
    if len(records) != batch.last - batch.first + 1:
        raise LogDamaged(f"records {batch.first} to {batch.last} are {len(records)} records")
    return records


def _shown(url: str) -> str:
    """A URL of which nothing is certain, without what may be a password."""
    kind, separator, rest = url.partition("?")[0].partition("://")
    return f"{kind}{separator}...{rest[rest.rfind('@') :]}" if "@" in rest else f"{kind}{separator}{rest}"


class OperationLog:
    """A connection to the log's database. Safe to use from one thread at a time per method call."""

    def __init__(self, url: str, node: str, access: Access = Access.LOG) -> None:
        """``url`` as SQLAlchemy has it. ConfigurationError if it cannot be used."""
        self._node = node
        try:
            self._database = open_database(sa.make_url(url), access)
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise ConfigurationError(f"the journal '{_shown(url)}' cannot be used: {reason(error)}") from None
        self._engine = self._database.engine
        self._where = self._database.where
        self.checkpoints = CheckpointStore(self._database, self._where)
        self._is_introduced = not self._database.names_nodes
        self._kept: sa.Connection | None = None
        """The connection of the last append or read, if that has succeeded: to get one anew costs as much as either."""

    def close(self) -> None:
        self._disconnect()
        self._engine.dispose()

    def interrupt(self) -> None:
        """From any thread: lets calls that wait for the database fail, where that is possible."""
        self._database.interrupt()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._connection() as connection:
            with connection.begin():
                yield connection
            self._database.confirm(connection)

    def prepare(self, genesis: bool) -> bool:
        """Creates the tables if there are none and ``genesis`` allows it. Returns whether the log is empty.

        ForeignStore if the database is not a log of ours, UnsupportedFormat if it is newer, LogFailed if it cannot be
        read or written, ConfigurationError if it would not keep what it promises.
        """
        try:
            tables = set(sa.inspect(self._engine).get_table_names())
            if not tables and not genesis:
                raise ForeignStore(
                    f"{self._where} holds no operation log; to begin a new cluster start one master with genesis"
                )
            if not tables:
                self._create()
            else:
                self._check_ours(tables)
                self._database.adopt()
                if not set(_metadata.tables) <= tables:
                    self._create_missing()
            with self._connection() as connection:
                self._database.check(connection)
            return not self.first()
        except SQLAlchemyError as error:
            raise LogFailed(f"the journal {self._where} cannot be used: {reason(error)}") from error

    def is_away(self, failure: LogFailed) -> bool:
        """Whether a call has failed because the database cannot be reached now, and may be in a while."""
        cause = failure.__cause__
        return isinstance(cause, SQLAlchemyError) and self._database.is_away(cause)

    def _create_missing(self) -> None:
        with self._transaction() as connection:
            self._database.lock_tables(connection)
            _metadata.create_all(connection)

    def holds_records(self) -> bool:
        """Whether a cluster has begun in this database. LogFailed if it cannot be read."""
        try:
            if not sa.inspect(self._engine).has_table("log"):
                return False
            with self._connection() as connection:
                return bool(self._database.fetch(connection, _LAST))
        except SQLAlchemyError as error:
            raise LogFailed(f"the journal {self._where} cannot be used: {reason(error)}") from error

    def check(self) -> None:
        """As :meth:`prepare`, and changes nothing: for those who only read."""
        try:
            self._check_ours(set(sa.inspect(self._engine).get_table_names()))
        except SQLAlchemyError as error:
            raise LogFailed(f"the journal {self._where} cannot be read: {reason(error)}") from error

    def _check_ours(self, tables: set[str]) -> None:
        if not tables:
            raise ForeignStore(f"{self._where} holds no operation log")
        if not tables >= CORE:
            raise ForeignStore(f"{self._where} is another program's database: it has tables {sorted(tables)[:5]}")
        with self._connection() as connection:
            known = connection.execute(sa.select(_meta.c.value).where(_meta.c.name == "format")).scalar()
        if known != SCHEMA_FORMAT:
            raise UnsupportedFormat(
                f"{self._where} has format '{known}', this version knows '{SCHEMA_FORMAT}': "
                "use the version that wrote it"
            )

    def _create(self) -> None:
        self._database.adopt()
        with self._transaction() as connection:
            self._database.lock_tables(connection)
            if sa.inspect(connection).get_table_names():
                return  # another master was faster
            _metadata.create_all(connection)
            connection.execute(_meta.insert(), [{"name": "format", "value": SCHEMA_FORMAT}])
            nobody = {"id": 1, "epoch": 0, "holder": "", "address": "", "beat": 0, "process": ""}
            connection.execute(_leadership.insert(), [nobody])

    def first(self) -> int:
        """The first record that is kept, 0 if there is none: what checkpoints cover twice is trimmed."""
        return self._number(sa.select(sa.func.min(_log.c.first)))

    def row_of(self, sequence: int) -> int:
        """The first record of the row that holds record ``sequence``, or the first record that is kept."""
        found = self._number(sa.select(sa.func.max(_log.c.first)).where(_log.c.first <= sequence))
        return found or self.first()

    def _number(self, statement: "sa.Select[Any]") -> int:
        try:
            with self._connection() as connection:
                found: int | None = connection.execute(statement).scalar()
        except SQLAlchemyError as error:
            raise LogFailed(f"the journal {self._where} cannot be read: {reason(error)}") from error
        return found or 0

    def restore(self, after: int) -> Restored | None:
        """The newest intact checkpoint, if the way from record ``after`` leads over one; None if the log has it all.

        It does at the start, and for who has slept so long that the log was trimmed. LogDamaged if there is neither a
        checkpoint nor the log's beginning, UnsupportedFormat if a newer version wrote the checkpoint.
        """
        if after and self.first() <= after + 1:
            return None
        self._disconnect()
        found = self.checkpoints.newest(after)
        first = self.first()
        if found is None and first > after + 1:
            raise LogDamaged(
                f"the journal {self._where} begins with record {first}, and has no intact checkpoint of what was "
                "before. Nothing was changed; restore the journal from a backup"
            )
        return found

    def leadership(self) -> Leadership:
        """Who leads now."""
        with self._reading() as connection:
            rows = self._database.fetch(connection, _LEADERSHIP)
        if not rows:
            raise LogFailed(f"the journal {self._where} cannot be read: it has no row that says who leads")
        return Leadership(*rows[0])

    @contextlib.contextmanager
    def _reading(self, where: str = "", damage: type[StartupError] = LogFailed) -> Iterator[sa.Connection]:
        """A transaction that reads. ``where`` says in an error which part, ``damage`` is raised if that is damaged."""
        try:
            with self._database.transaction(connection := self._connect()):
                yield connection
        except SQLAlchemyError as error:
            self._disconnect()
            failed = damage if self._database.is_damage(error) else LogFailed
            raise failed(f"the journal {self._where} cannot be read{where}: {reason(error)}") from error
        except BaseException:
            self._disconnect()
            raise

    def _connect(self) -> sa.Connection:
        self._kept = self._kept or self._engine.connect()
        return self._kept

    def _connection(self) -> sa.Connection:
        """For what is rare. The pool gets the kept one back and gives it out again, so one session does for all."""
        self._disconnect()
        return self._engine.connect()

    @contextlib.contextmanager
    def _impatient(self) -> Iterator[sa.Connection]:
        """A transaction that does not wait long for a lock: LogLocked says that nothing was changed."""
        try:
            with self._transaction() as connection:
                self._database.limit_wait(connection)
                yield connection
        except SQLAlchemyError as error:
            if self._database.is_locked(error):
                raise LogLocked(f"the journal {self._where} is locked by another process") from error
            raise LogFailed(f"the journal {self._where} cannot be written: {reason(error)}") from error

    def introduce(self) -> None:
        """Says which process this node is, once, where others can read it who find the log locked by it.

        LogLocked or LogFailed if that cannot be written now; :meth:`campaign` does it then.
        """
        if self._is_introduced:
            return
        name = _NODE + self._node
        with self._impatient() as connection:
            connection.execute(_meta.delete().where(_meta.c.name == name))
            connection.execute(_meta.insert(), [{"name": name, "value": self._database.identity}])
        self._is_introduced = True

    def campaign(self, seen: Leadership, address: str) -> Leadership | None:
        """Takes the next epoch if nothing has changed since ``seen``; None if someone was faster, or lives.

        LogLocked if another process has the lock: then nothing was changed. LogFailed if the outcome is unknown.
        """
        self.introduce()
        won = Leadership(seen.epoch + 1, self._node, address, seen.beat + 1, self._database.identity)
        statement = (
            sa.update(_leadership)
            .where(_leadership.c.id == 1, _leadership.c.epoch == seen.epoch, _leadership.c.beat == seen.beat)
            .values(epoch=won.epoch, holder=won.holder, address=won.address, beat=won.beat, process=won.process)
        )
        with self._impatient() as connection:
            if connection.execute(statement).rowcount != 1:
                return None
        return won

    def end_holder(self, holder: Leadership) -> str:
        """Ends what holds the log's lock for a leader that has stopped; what was done, for people.

        With SQLite the very process that is named in the leadership row, or another node's that has stopped with the
        lock, if it runs on this host; with PostgreSQL the leader's connections.
        """
        # Who has resigned is a standby like others now, however silent the leadership is.
        return self._database.end(holder.process if holder.holder else "", self._nodes())

    def _nodes(self) -> dict[str, str]:
        """The processes of the nodes that have introduced themselves, by the nodes' names."""
        named = sa.select(_meta.c.name, _meta.c.value).where(_meta.c.name.startswith(_NODE))
        try:
            with self._connection() as connection:
                return {row.name.removeprefix(_NODE): row.value for row in connection.execute(named)}
        except SQLAlchemyError as error:
            raise LogFailed(f"the journal {self._where} cannot be read: {reason(error)}") from error

    def renew(self, epoch: int) -> None:
        """One more beat. LogFenced if the epoch is over."""
        self._fenced(epoch)

    def append(self, batch: Batch, previous: bytes) -> None:
        """Appends a row durably, if its epoch still leads and the last row has the hash ``previous``.

        LogFenced or LogOutdated if not: then nothing was appended. LogFailed if the outcome is unknown.
        """
        self._fenced(batch.epoch, batch, previous)

    def _fenced(self, epoch: int, batch: Batch | None = None, previous: bytes = b"") -> None:
        try:
            with self._database.transaction(connection := self._connect()):
                self._check_leads(connection, epoch)
                if batch is not None:
                    self._check_follows(connection, batch, previous)
                    self._insert(connection, batch)
            self._database.confirm(connection)
        except SQLAlchemyError as error:
            self._disconnect()
            raise LogFailed(f"the journal {self._where} cannot be written: {reason(error)}") from error
        except BaseException:
            self._disconnect()
            raise

    def _check_leads(self, connection: sa.Connection, epoch: int) -> None:
        fence = {"epoch": epoch, "holder": self._node}
        if self._database.change(connection, _FENCE, fence) != 1:
            raise LogFenced(f"epoch {epoch} is over, another master leads")

    def _disconnect(self) -> None:
        connection, self._kept = self._kept, None
        if connection is not None:
            connection.close()

    def _insert(self, connection: sa.Connection, batch: Batch) -> None:
        row = {
            "first": batch.first,
            "last": batch.last,
            "epoch": batch.epoch,
            "hash": batch.hash,
            "payload": batch.payload,
        }
        self._database.change(connection, _APPEND, row)

    def _check_follows(self, connection: sa.Connection, batch: Batch, previous: bytes) -> None:
        last = self._last(connection)
        if last != (batch.first - 1, previous):
            raise self._outdated(batch.first - 1, last[0])

    def _last(self, connection: sa.Connection) -> tuple[int, bytes]:
        """The last record, and the hash of its row."""
        rows = self._database.fetch(connection, _LAST)
        return (rows[0][0], bytes(rows[0][1])) if rows else (0, GENESIS_HASH)

    def _outdated(self, seen: int, last: int) -> LogOutdated:
        return LogOutdated(
            f"the journal {self._where} is not the one that this node has read up to record {seen}: that one is not in "
            f"it, its last one is {last}. An older copy was restored, or the database failed over to a server that "
            "lacked the newest commits. Bring the newer one back; or start all masters anew, and what it lacks is lost"
        )

    def resign(self, epoch: int, successor: str = "") -> None:
        """A planned end: the next master need not wait for the lease, nor the node ``successor`` for the others."""
        statement = (
            sa.update(_leadership)
            .where(_leadership.c.id == 1, _leadership.c.epoch == epoch, _leadership.c.holder == self._node)
            .values(holder="", address=successor, beat=_leadership.c.beat + 1)
        )
        try:
            with self._transaction() as connection:
                connection.execute(statement)
        except SQLAlchemyError as error:
            raise LogFailed(f"the journal {self._where} cannot be written: {reason(error)}") from error

    def read(self, after: int, previous: bytes | None) -> list[Batch]:
        """Rows whose records follow ``after``, checked against the chain that ends with hash ``previous``.

        Empty if there are none; else the first ones, up to READ_ROWS or READ_BYTES. LogDamaged names the first records
        that cannot be trusted, LogOutdated says that the log lacks what was read from it before; LogFailed that the
        database cannot be reached. Without ``previous`` the first row is taken as it is.
        """
        batches = self._rows(after, previous)
        for batch in batches:
            if previous is None:
                after, previous = batch.last, batch.hash
                continue
            check_chain(batch, after, previous, self._where)
            after, previous = batch.last, batch.hash
        return batches

    def tail(self) -> tuple[int, bytes]:
        """The last record and the hash of its row: where :meth:`read` goes on. LogFailed if it cannot be reached."""
        with self._reading() as connection:
            return self._last(connection)

    def _rows(self, after: int, previous: bytes | None) -> list[Batch]:
        with self._reading(f" after record {after}", LogDamaged) as connection:
            # The sizes before the rows: one answer has room for so much, and PostgreSQL's driver reads all that it is
            # asked for. A cursor in the server would do as well, and not survive its connection.
            found = self._database.fetch(connection, _SIZES, {"after": after, "count": READ_ROWS + 1})
            following = [row for row in found if row[0] > after]
            if after and previous is not None:
                self._check_seen(connection, after, previous, found[: len(found) - len(following)], bool(following))
            last = total = 0
            for row in following[:READ_ROWS]:
                if total >= READ_BYTES:
                    break
                last, total = row[0], total + row[3]
            rows = self._database.fetch(connection, _ROWS, {"after": after, "last": last}) if last else ()
        return [Batch(first, last, epoch, bytes(hash), bytes(payload)) for first, last, epoch, hash, payload in rows]

    def _check_seen(
        self, connection: sa.Connection, after: int, previous: bytes, seen: Sequence[Sequence[Any]], goes_on: bool
    ) -> None:
        """LogOutdated unless the row that ends with record ``after`` is there, or was trimmed and the log goes on."""
        if not seen and goes_on:
            return
        if not seen or (seen[0][1], bytes(seen[0][2])) != (after, previous):
            raise self._outdated(after, self._last(connection)[0])


__all__ = ["GENESIS_HASH", "LOG_FORMAT", "Batch", "Leadership", "OperationLog", "chain", "check_chain", "decode_batch"]
