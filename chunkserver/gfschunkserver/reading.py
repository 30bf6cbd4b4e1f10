"""Reads: stored digests and raw bytes by sendfile for those who verify, verified bytes for the others."""

import errno
import os
import select
import threading
from typing import Final

from gfschunkserver.engine import Engine
from gfschunkserver.replica import Replica
from gfsprotocol import bulk
from gfsprotocol.bulk import ReadReply
from gfsprotocol.bulksocket import BulkConnection
from gfsprotocol.checksums import BLOCK_BYTES, block_count, digest
from gfsprotocol.errors import Busy, ChunkCorrupt, ConnectionLost, DeadlineExceeded, InvalidArgument, StaleReplica
from gfsprotocol.ids import CHUNK_BYTES_MAX, DIGEST_BYTES, MIB

SMALL_READ_BYTES: Final = BLOCK_BYTES
LARGE_READ_BYTES: Final = 4 * MIB
LARGE_READ_WAIT_SECONDS: Final = 5.0
"""A reader that takes its bytes slowly must not keep all others waiting."""
SEND_SECONDS: Final = 30.0
_large_reads = threading.Semaphore(1)
"""Verified reads hold their bytes in memory; large ones come one at a time."""


def serve_read(engine: Engine, connection: BulkConnection, request: bulk.Read) -> None:
    """Answers one Read. An error raised before anything is sent is an answer; a ConnectionLost is the end."""
    engine.access.check_read(request.token, request.chunk)
    if request.offset < 0 or not 0 <= request.length <= CHUNK_BYTES_MAX:
        raise InvalidArgument(f"a read of {request.length} bytes at {request.offset} makes no sense")
    replica = engine.store.get(request.chunk)
    if replica.version < request.version:
        raise StaleReplica(f"chunk {request.chunk:x} has version {replica.version} here, not {request.version}")
    if request.copy:
        _check_copy(engine, replica, request)
    try:
        if request.verify or not _is_whole_blocks(replica, request):
            engine.measures.read_bytes.add(count=_send_verified(connection, replica, request))
        else:
            _send_stored(engine, connection, replica, request)
    except ChunkCorrupt as error:
        engine.store.condemn(replica, error.message)
        raise


def _check_copy(engine: Engine, replica: Replica, request: bulk.Read) -> None:
    """A copy counts as much as what it was made of, so nothing may be acknowledged here that would be missing in it."""
    engine.chains.freeze(request.chunk, engine.access.is_over)
    if replica.version != request.version:
        raise StaleReplica(f"chunk {request.chunk:x} has version {replica.version} by now, not {request.version}")


def _is_whole_blocks(replica: Replica, request: bulk.Read) -> bool:
    end = request.offset + request.length
    return request.offset % BLOCK_BYTES == 0 and (end % BLOCK_BYTES == 0 or end >= replica.length)


def _reply(replica: Replica, offset: int, chunk_length: int, digests: bytes, verified: bool) -> ReadReply:
    state = replica.state
    return ReadReply(
        offset,
        chunk_length,
        state.version,
        digests,
        verified,
        state.inode,
        state.index,
        state.chunk_bytes,
        replica.verifier,
    )


def _send_verified(connection: BulkConnection, replica: Replica, request: bulk.Read) -> int:
    """How many bytes were sent."""
    if request.length <= LARGE_READ_BYTES:
        return _send_verified_bytes(connection, replica, request)
    if not _large_reads.acquire(timeout=LARGE_READ_WAIT_SECONDS):
        raise Busy("another large verified read does not end")
    try:
        return _send_verified_bytes(connection, replica, request)
    finally:
        _large_reads.release()


def _send_verified_bytes(connection: BulkConnection, replica: Replica, request: bulk.Read) -> int:
    data = replica.read_verified(request.offset, request.length)
    connection.send(_reply(replica, request.offset, replica.length, digest(data), verified=True), data)
    return len(data)


def _send_stored(engine: Engine, connection: BulkConnection, replica: Replica, request: bulk.Read) -> None:
    with replica.pinned() as file:
        with replica.lock:
            length = replica.length
            end = max(request.offset, min(request.offset + request.length, length))
            table = replica.state.table
            first, last = request.offset // BLOCK_BYTES, block_count(end)
            digests = bytes(table[first * DIGEST_BYTES : last * DIGEST_BYTES]) if end > request.offset else b""
            place = replica.data_offset(request.offset)
        count = end - request.offset
        header = bulk.encode(_reply(replica, request.offset, length, digests, verified=False), count)
        damage = ""
        try:
            sent = _send_range(connection, header, file.descriptor(), place, count)
            engine.measures.read_bytes.add(count=sent)
            if sent == count:
                return
            with replica.lock:
                # The replica may have been cut while it was read, and have grown again since.
                if file.length() < replica.data_offset(replica.length):
                    damage = "its file is shorter than its header says"
        except ChunkCorrupt as error:
            damage = error.message
    # The frame announced more than was sent, so this connection is over whatever the reason.
    if damage:
        engine.store.condemn(replica, damage)
    raise ConnectionLost(f"chunk {request.chunk:x} ended while it was read")


def _send_range(connection: BulkConnection, header: bytes, descriptor: int, offset: int, count: int) -> int:
    """The header and ``count`` bytes of a file; how many bytes of it. As one message if they are few.

    Copying a few is cheaper than another system call here, and another wake-up of who waits for them.
    """
    if count > SMALL_READ_BYTES:
        connection.send_bytes([header])
        return send_file(connection, descriptor, offset, count)
    try:
        data = os.pread(descriptor, count, offset)
    except OSError as error:
        raise _unreadable(offset, error) from error
    connection.send_bytes([header, data])
    return len(data)


def _unreadable(offset: int, error: OSError) -> ChunkCorrupt:
    return ChunkCorrupt(f"the file cannot be read at {offset}: {error.strerror}")


def send_file(connection: BulkConnection, descriptor: int, offset: int, count: int) -> int:
    """``count`` bytes of a file, without copying them; fewer if it ends before.

    ConnectionLost if the peer goes, ChunkCorrupt if the file cannot be read.
    """
    end = offset + count
    sock = connection.sock.fileno()
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while offset < end:
        try:
            sent = os.sendfile(sock, descriptor, offset, end - offset)
        except BlockingIOError:
            if not poll.poll(1000 * SEND_SECONDS):
                raise DeadlineExceeded(f"{connection.peer} takes no data") from None
            continue
        except OSError as error:
            if error.errno == errno.EIO:
                raise _unreadable(offset, error) from error
            raise ConnectionLost(f"sending to {connection.peer} failed: {error.strerror or error}") from error
        if not sent:
            break
        offset += sent
    return count - (end - offset)
