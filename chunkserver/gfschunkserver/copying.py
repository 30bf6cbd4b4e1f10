"""Copies a whole replica from another server: pulled, verified, made durable, and only then visible."""

import logging
import random
from typing import Final

from gfschunkserver import chunkfile
from gfschunkserver.buffers import packet_buffer
from gfschunkserver.disk import Disk
from gfschunkserver.downstream import Downstream
from gfschunkserver.engine import Engine
from gfschunkserver.files import File
from gfschunkserver.records import Base, ReplicaState
from gfschunkserver.replica import checkpoint
from gfsprotocol.bulk import Read, ReadReply
from gfsprotocol.checksums import BLOCK_BYTES, DIGEST_BYTES, digests_match
from gfsprotocol.errors import Busy, ChunkNotFound, DataError, GfsError, StaleReplica
from gfsprotocol.ids import CHUNK_BYTES_MAX, PACKET_BYTES
from gfsprotocol.messages import ReplicateOrder, ServerAddress

log = logging.getLogger(__name__)

SOURCE_SECONDS: Final = 20.0


def copy_chunk(engine: Engine, order: ReplicateOrder) -> None:
    """Carries out the order with the first source that can; raises what the last one failed with.

    Busy if the chunk is being copied already: a new leader does not know what the one before has ordered.
    """
    with engine.copying(order.chunk):
        _copy_from_any(engine, order)


def _copy_from_any(engine: Engine, order: ReplicateOrder) -> None:
    existing = engine.store.find(order.chunk)
    if existing is not None and existing.version >= order.version:
        return
    failure: GfsError = ChunkNotFound(f"no source was named for chunk {order.chunk:x}")
    for source in random.sample(order.sources, len(order.sources)):
        try:
            _copy_from(engine, order, source)
        except GfsError as error:
            place = f"{source.host}:{source.port}"
            log.warning("chunk %x cannot be copied from %s: %s", order.chunk, place, error.message)
            failure = error
        else:
            return
    raise failure


def _copy_from(engine: Engine, order: ReplicateOrder, source: ServerAddress) -> None:
    disk = engine.store.choose_disk()
    path = disk.layout.copy_file(order.chunk)
    with disk.guarded():
        file = disk.files.open(path, create=True)
    try:
        try:
            with packet_buffer() as buffer:
                state, verifier = _Pull(engine, order, source, disk, file).run(buffer)
        finally:
            file.close()
        _publish(engine, order, disk, state, verifier)
    finally:
        with disk.guarded():
            if disk.files.exists(path):
                disk.files.remove(path)


def _publish(engine: Engine, order: ReplicateOrder, disk: Disk, state: ReplicaState, verifier: int) -> None:
    with engine.chains.opening(order.chunk):
        old = engine.store.find(order.chunk)
        if old is not None and old.version >= state.version:
            return
        if old is not None:
            if engine.chains.is_open(order.chunk):
                raise Busy(f"chunk {order.chunk:x} is being written here")
            engine.chains.forget(order.chunk)
            engine.store.drop([old], "a newer copy takes its place")
        disk.adopt_copy(state).verifier = verifier
    engine.store.supersede_corrupt(order.chunk)
    engine.store.listener(order.chunk)


class _Pull:
    """One copy from one source into one file."""

    def __init__(self, engine: Engine, order: ReplicateOrder, source: ServerAddress, disk: Disk, file: File) -> None:
        self._engine = engine
        self._order = order
        self._source = source
        self._disk = disk
        self._file = file

    def run(self, buffer: memoryview) -> tuple[ReplicaState, int]:
        """The state of the complete, durable file, and the source's verifier: the copy has all that it had.

        An error if the source changes meanwhile.
        """
        table = bytearray()
        first: ReadReply | None = None
        done = 0
        while first is None or done < first.chunk_length:
            reply, data = self._read(done, buffer)
            if first is None:
                first = self._check_first(reply)
                self._disk.claim_space(chunkfile.data_offset(first.chunk_bytes) + first.chunk_length)
            if _history(reply) != _history(first):
                raise StaleReplica(f"chunk {self._order.chunk:x} changed while it was copied")
            table += reply.digests
            with self._disk.guarded():
                self._file.write(chunkfile.data_offset(first.chunk_bytes) + done, data)
            done += len(data)
        state = _state(self._order.chunk, first, bytes(table))
        with self._disk.guarded():
            self._file.write(0, *checkpoint(state, self._disk.cluster))
            self._file.sync()
        return state, first.verifier

    def _read(self, offset: int, buffer: memoryview) -> tuple[ReadReply, memoryview]:
        source = Downstream(self._engine, self._source)
        request = Read(self._order.token, self._order.chunk, self._order.version, offset, PACKET_BYTES, copy=True)
        reply, payload_bytes = source.call(request, ReadReply, SOURCE_SECONDS)
        data = buffer[: min(payload_bytes, len(buffer))]
        try:
            if payload_bytes > PACKET_BYTES:
                raise DataError(f"the source sent {payload_bytes} bytes where {PACKET_BYTES} were asked for")
            source.connection.receive_into(data)
        except GfsError:
            source.abandon()
            raise
        source.give_back()
        if reply.verified or not digests_match(offset, data, reply.digests):
            raise DataError(f"chunk {self._order.chunk:x} from {self._source.host}:{self._source.port} is damaged")
        if len(data) != min(PACKET_BYTES, max(0, reply.chunk_length - offset)):
            raise DataError(f"the source sent {len(data)} bytes of chunk {self._order.chunk:x} at {offset}")
        return reply, data

    def _check_first(self, reply: ReadReply) -> ReadReply:
        if not 0 <= reply.chunk_length <= reply.chunk_bytes <= CHUNK_BYTES_MAX or reply.chunk_bytes < 1:
            raise DataError(f"the source says that the chunk has {reply.chunk_length} of {reply.chunk_bytes} bytes")
        return reply


def _history(reply: ReadReply) -> tuple[int, int, int]:
    return reply.version, reply.chunk_length, reply.verifier


def _state(chunk: int, reply: ReadReply, table: bytes) -> ReplicaState:
    length = reply.chunk_length
    tail = table[-DIGEST_BYTES:] if length % BLOCK_BYTES else b""
    return ReplicaState(
        Base(chunk, reply.version, reply.inode, reply.index, reply.chunk_bytes, length, length, tail, table, False)
    )
