"""Checkpoints in the log's database: written in small steps, published at once, verified whenever they are read.

Tables::

    checkpoint       sequence, epoch, log_hash, digest, format, parts, size_bytes, hash, attempt
    checkpoint_part  attempt, number, sequence, node, hash, payload

A checkpoint is written part by part under an *attempt*, a random name that nothing refers to until one transaction
inserts the row of ``checkpoint``. So one that was cut short cannot be mistaken for a whole one, wherever that happened;
its parts are removed later. Invariants:

- a published checkpoint is what the log makes of its records 1 to ``sequence``: whoever publishes has decoded the parts
  and recomputed the digest, and the log has a row that ends there with ``log_hash``;
- the two newest intact checkpoints are kept, and the log behind the older of them. What is damaged counts for nothing.

No epoch fences these writes: a checkpoint says nothing that is not in the log, whoever writes it.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from blake3 import blake3
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from gfsmaster.checkpoint import CHECKPOINT_FORMAT, decode
from gfsmaster.databases import Database, reason
from gfsmaster.schema import checkpoint as _checkpoint
from gfsmaster.schema import checkpoint_part as _part
from gfsmaster.schema import log as _log
from gfsmaster.state import State
from gfsprotocol.errors import LogDamaged, LogFailed, UnsupportedFormat

log = logging.getLogger(__name__)

KEPT: Final = 2
READ_PARTS: Final = 8
REMOVED_PARTS: Final = 8
"""Parts that one transaction removes."""
TRIMMED_ROWS: Final = 128
"""Rows of the log that one transaction removes."""
LOCK_SECONDS: Final = 60.0
"""How long one step waits for others' locks, in short bits."""
RESERVE_BYTES: Final = 128 << 20
"""Room that is left to the log."""

_Result = TypeVar("_Result")


@dataclass(slots=True, frozen=True)
class Checkpoint:
    """A published checkpoint. ``hash`` is BLAKE3 over all parts, ``log_hash`` that of the last row it covers."""

    sequence: int
    epoch: int
    log_hash: bytes
    digest: bytes
    format: int
    parts: int
    size_bytes: int
    hash: bytes
    attempt: str


@dataclass(slots=True, frozen=True)
class Restored:
    """A state, and where in the log it stands."""

    state: State
    epoch: int
    log_hash: bytes


class Superseded(Exception):
    """A newer checkpoint was published meanwhile: this one is of no use."""


class CheckpointStore:
    """Reads checkpoints. Everything blocks; safe to use from several threads."""

    def __init__(self, database: Database, where: str) -> None:
        """``where`` names the database for people."""
        self._database = database
        self._engine = database.engine
        self._where = where

    def published(self) -> list[Checkpoint]:
        """Newest first."""
        return [
            Checkpoint(**row._mapping)
            for row in self._select(sa.select(_checkpoint).order_by(_checkpoint.c.sequence.desc()))
        ]

    def newest(self, beyond: int) -> Restored | None:
        """The newest intact one after record ``beyond``; damaged ones are passed over with a warning."""
        while True:
            published = [checkpoint for checkpoint in self.published() if checkpoint.sequence > beyond]
            for checkpoint in published:
                try:
                    state = self.load(checkpoint)
                except LogDamaged as damage:
                    if checkpoint not in self.published():
                        break  # removed while we were reading, for newer ones
                    log.warning("%s; it is passed over", damage)
                else:
                    return Restored(state, checkpoint.epoch, checkpoint.log_hash)
            else:
                return None

    def load(self, checkpoint: Checkpoint) -> State:
        """The state. LogDamaged if it is not what was published, UnsupportedFormat if a newer version wrote it."""
        named = f"the checkpoint at record {checkpoint.sequence} of {self._where}"
        if checkpoint.format != CHECKPOINT_FORMAT:
            raise UnsupportedFormat(
                f"{named} has format {checkpoint.format}, this version reads format {CHECKPOINT_FORMAT}: "
                "use the version that wrote it"
            )
        try:
            state = decode(self.read(checkpoint))
        except LogDamaged as damage:
            raise LogDamaged(f"{named} is damaged: {damage}") from damage
        if (state.sequence, state.digest()) != (checkpoint.sequence, checkpoint.digest):
            raise LogDamaged(f"{named} is damaged: it holds another state than was published")
        return state

    def read(self, checkpoint: Checkpoint) -> Iterator[bytes]:
        """The parts; LogDamaged as soon as one is not what was published."""
        whole, number, size = blake3(), 0, 0
        for row in self._parts(checkpoint.attempt):
            payload = bytes(row.payload)
            if row.number != number or blake3(payload).digest() != bytes(row.hash):
                raise LogDamaged(f"part {number} of {checkpoint.parts} is missing or damaged")
            whole.update(payload)
            number, size = number + 1, size + len(payload)
            yield payload
        if (number, size, whole.digest()) != (checkpoint.parts, checkpoint.size_bytes, checkpoint.hash):
            raise LogDamaged(f"{number} of {checkpoint.parts} parts are there, and they are not what was published")

    def is_intact(self, checkpoint: Checkpoint) -> bool:
        """Whether all its bytes are as they were published; logs a warning if not."""
        try:
            for _ in self.read(checkpoint):
                pass
        except LogDamaged as damage:
            log.warning("the checkpoint at record %d of %s is damaged: %s", checkpoint.sequence, self._where, damage)
            return False
        return True

    def rivals(self, node: str) -> list[tuple[str, int]]:
        """Attempts of other nodes that may be under way, beyond the newest checkpoint, with the parts they have."""
        newest = sa.select(sa.func.coalesce(sa.func.max(_checkpoint.c.sequence), 0)).scalar_subquery()
        statement = (
            sa.select(_part.c.attempt, sa.func.count().label("parts"))
            .where(_part.c.node != node, _part.c.sequence > newest)
            .group_by(_part.c.attempt)
            .order_by(_part.c.attempt)
        )
        return [(row.attempt, row.parts) for row in self._select(statement)]

    def _parts(self, attempt: str) -> "Iterator[sa.Row[Any]]":
        number = -1
        while True:
            statement = (
                sa.select(_part.c.number, _part.c.hash, _part.c.payload)
                .where(_part.c.attempt == attempt, _part.c.number > number)
                .order_by(_part.c.number)
                .limit(READ_PARTS)
            )
            rows = self._select(statement)
            yield from rows
            if len(rows) < READ_PARTS:
                return
            number = rows[-1].number

    def _select(self, statement: "sa.Select[Any]") -> "list[sa.Row[Any]]":
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(statement))
        except OperationalError as error:
            raise LogFailed(f"the journal {self._where} cannot be read: {reason(error)}") from error
        except SQLAlchemyError as error:
            raise LogDamaged(f"the journal {self._where} cannot be read: {reason(error)}") from error


class CheckpointWriter:
    """One attempt to write a checkpoint: parts, then :meth:`publish`, then :meth:`tidy`.

    Each step is a short transaction. After it ``pause`` is called with the seconds that it took; it waits for as long
    as the log is to have for itself, and may raise to give the attempt up. LogFailed says why a step was not possible.
    """

    def __init__(self, store: CheckpointStore, node: str, sequence: int, pause: Callable[[float], None]) -> None:
        self._store = store
        self._database = store._database
        self._node = node
        self._sequence = sequence
        self._pause = pause
        self._attempt = secrets.token_hex(16)
        self._hashes: list[bytes] = []
        self._whole = blake3()
        self._bytes = 0

    def begin(self) -> None:
        """Removes what earlier attempts have left behind."""
        if len(self._store.published()) > KEPT:
            self.tidy()
        published = sa.select(_checkpoint.c.attempt)
        self._remove_parts(sa.and_(_part.c.node == self._node, _part.c.attempt.not_in(published)))

    def write(self, payload: bytes) -> None:
        """Stores the next part."""
        free = self._database.free_bytes()
        if free is not None and free < RESERVE_BYTES:
            raise LogFailed(f"only {free >> 20} MiB are free where the journal is")
        digest = blake3(payload).digest()
        values = {
            "attempt": self._attempt,
            "number": len(self._hashes),
            "sequence": self._sequence,
            "node": self._node,
            "hash": digest,
            "payload": payload,
        }
        self._write(lambda connection: connection.execute(_part.insert(), [values]))
        self._hashes.append(digest)
        self._whole.update(payload)
        self._bytes += len(payload)

    def publish(self, epoch: int, log_hash: bytes, digest: bytes) -> Checkpoint:
        """Makes the parts a checkpoint, if all are stored as they were written and the log has a row that ends there.

        Superseded if there is a newer one; LogDamaged if what is stored is not what was written.
        """
        checkpoint = Checkpoint(
            self._sequence,
            epoch,
            log_hash,
            digest,
            CHECKPOINT_FORMAT,
            len(self._hashes),
            self._bytes,
            self._whole.digest(),
            self._attempt,
        )
        for _ in self._store.read(checkpoint):
            self._pause(0.0)
        self._write(lambda connection: self._insert(connection, checkpoint))
        return checkpoint

    def _insert(self, connection: sa.Connection, checkpoint: Checkpoint) -> None:
        newest = connection.execute(
            sa.insert(_checkpoint).from_select(
                list(_checkpoint.c.keys()),
                sa.select(
                    *(sa.literal(getattr(checkpoint, column.name), column.type) for column in _checkpoint.c)
                ).where(~sa.exists().where(_checkpoint.c.sequence >= checkpoint.sequence)),
            ),
            # Of an INSERT, SQLAlchemy keeps it only when told to: with psycopg it would be -1.
            execution_options={"preserve_rowcount": True},
        )
        if newest.rowcount != 1:
            raise Superseded
        stored = connection.execute(
            sa.select(_part.c.number, _part.c.hash).where(_part.c.attempt == self._attempt).order_by(_part.c.number)
        )
        if [(number, bytes(digest)) for number, digest in stored] != list(enumerate(self._hashes)):
            raise LogDamaged("parts were removed or changed while the checkpoint was written")
        row = connection.execute(
            sa.select(_log.c.last, _log.c.hash)
            .where(_log.c.first <= checkpoint.sequence)
            .order_by(_log.c.first.desc())
            .limit(1)
        ).one_or_none()
        if row is None or (row.last, bytes(row.hash)) != (checkpoint.sequence, checkpoint.log_hash):
            raise LogDamaged(f"the log has no row that ends with record {checkpoint.sequence} and this hash")

    def tidy(self) -> None:
        """Removes what the two newest intact checkpoints make superfluous: older ones, unfinished attempts, the log."""
        published = self._store.published()
        intact: list[Checkpoint] = []
        for checkpoint in published:
            if len(intact) < KEPT and self._store.is_intact(checkpoint):
                intact.append(checkpoint)
            self._pause(0.0)
        gone = [checkpoint.sequence for checkpoint in published if checkpoint not in intact]
        if not intact:
            return
        if gone:
            self._write(
                lambda connection: connection.execute(sa.delete(_checkpoint).where(_checkpoint.c.sequence.in_(gone)))
            )
        used = sa.select(_checkpoint.c.attempt)
        self._remove_parts(sa.and_(_part.c.sequence <= intact[0].sequence, _part.c.attempt.not_in(used)))
        if len(intact) == KEPT:
            self._trim(intact[-1].sequence)

    def discard(self) -> None:
        """Removes the parts of this attempt, which was given up."""
        self._remove_parts(_part.c.attempt == self._attempt)

    def _trim(self, sequence: int) -> None:
        """Removes the log's rows up to a record, oldest first, so that what is left is always without a gap."""
        rows = sa.select(_log.c.first).where(_log.c.last <= sequence).order_by(_log.c.first).limit(TRIMMED_ROWS)
        statement = sa.delete(_log).where(_log.c.first.in_(rows.scalar_subquery()))
        self._repeat(statement)

    def _remove_parts(self, which: "sa.ColumnElement[bool]") -> None:
        for row in self._store._select(sa.select(_part.c.attempt).where(which).distinct()):
            numbers = (
                sa.select(_part.c.number)
                .where(_part.c.attempt == row.attempt)
                .order_by(_part.c.number)
                .limit(REMOVED_PARTS)
            )
            statement = sa.delete(_part).where(
                _part.c.attempt == row.attempt, _part.c.number.in_(numbers.scalar_subquery())
            )
            self._repeat(statement)

    def _repeat(self, statement: sa.Delete) -> None:
        """Until there is nothing left to delete."""
        while self._write(lambda connection: connection.execute(statement).rowcount) > 0:
            pass

    def _write(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        """One transaction, which writes first of all. Waits for others' locks in bits that ``pause`` can end."""
        give_up = time.monotonic() + LOCK_SECONDS
        while True:
            begun = time.monotonic()
            try:
                with self._database.engine.begin() as connection:
                    self._database.limit_wait(connection)
                    result = work(connection)
            except SQLAlchemyError as error:
                if not self._database.is_locked(error) or time.monotonic() > give_up:
                    raise LogFailed(f"the journal cannot be written: {reason(error)}") from error
                self._pause(0.0)
            else:
                self._pause(time.monotonic() - begun)
                return result
