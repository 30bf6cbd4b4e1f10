"""One replica of a chunk: its bytes in a file, its digests in memory, and how a mutation keeps the two together.

Locks, in the order in which they are taken:

- ``order`` is held by whoever changes the replica, from the journal record to the bytes in the file. So a checkpoint,
  which holds it too, never falls between the two.
- ``lock`` is held while bytes that are served and their digests change, and by whoever must see both in step.

What may be done to a file before which record is durable: see docs/architecture/chunk-servers.md.
"""

import errno
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from gfschunkserver import chunkfile
from gfschunkserver.files import File, Files
from gfschunkserver.journal import Journal
from gfschunkserver.records import Base, Cut, Extend, ReplicaState, Synced, Version, Write
from gfsprotocol.checksums import ZERO_BLOCK_DIGEST, Buffer, block_count, digest
from gfsprotocol.errors import ChunkCorrupt, ChunkNotFound, InvalidArgument
from gfsprotocol.ids import BLOCK_BYTES, DIGEST_BYTES

JOURNALED_BYTES_MAX = BLOCK_BYTES
"""Appends that ask for sync and are no larger go to the journal whole, and need no fsync of the chunk file."""


class Home(Protocol):
    """The disk, as far as a replica needs it."""

    files: Files
    journal: Journal
    cluster: bytes

    def guarded(self) -> AbstractContextManager[None]:
        """OSError becomes NoSpace, or takes the disk out of use and becomes DiskFailed."""

    def claim_space(self, count: int) -> None:
        """NoSpace if the disk has no room for ``count`` more bytes."""

    def pin(self, replica: "Replica") -> File:
        """The replica's open file, its table loaded; both stay until :meth:`unpin`."""

    def unpin(self, replica: "Replica") -> None: ...


class Replica:
    """A chunk's replica on one disk."""

    __slots__ = (
        "_tail",
        "dirty",
        "file",
        "gone",
        "home",
        "loaded",
        "lock",
        "name_synced",
        "order",
        "path",
        "pins",
        "position",
        "state",
        "verifier",
    )

    def __init__(self, home: Home, path: Path, state: ReplicaState, loaded: bool, name_synced: bool) -> None:
        self.home = home
        self.path = path
        self.state = state
        self.order = threading.Lock()
        self.lock = threading.Lock()
        self.file: File | None = None
        """Open while pinned, and for a while longer; the disk's to change."""
        self.pins = 0
        self.loaded = loaded
        """Whether ``state.table`` is in memory; the disk's to change."""
        self.gone = ""
        """Why it may not be used any more."""
        self.dirty = False
        """Whether the file holds bytes that no record carries and no fsync has covered."""
        self.name_synced = name_synced
        """Whether the file's name is on stable storage."""
        self.position = 0
        """Of its last journal record."""
        self.verifier = 0
        """Names the history of which no write has been lost since it was first written to; 0 until then.

        Only in memory: a server that was restarted cannot vouch for what was not synced.
        """
        self._tail: blake3 | None = None
        """Has digested the last block, if that is not a whole one; None when it must be read first."""

    @property
    def chunk(self) -> int:
        return self.state.chunk

    @property
    def version(self) -> int:
        return self.state.version

    @property
    def length(self) -> int:
        return self.state.length

    @contextmanager
    def pinned(self) -> Iterator[File]:
        """The open file. ChunkNotFound if the replica is gone."""
        file = self.home.pin(self)
        try:
            yield file
        finally:
            self.home.unpin(self)

    @contextmanager
    def _mutating(self) -> Iterator[File]:
        self.home.journal.wait_for_room()
        with self.order, self.pinned() as file, self.home.guarded():
            if self.gone:
                raise ChunkNotFound(f"chunk {self.chunk:x} is gone: {self.gone}")
            yield file

    # ------------------------------------------------------------------------------------------------- mutations

    def put(self, offset: int, data: Buffer, digests: Buffer, sync: bool) -> int:
        """Puts ``data`` at ``offset``; beyond the end, zeros fill the gap. Returns the journal position to commit.

        ``digests`` are those of ``data`` cut at block boundaries, already verified. With ``sync`` all is durable once
        the position is committed. Raises NoSpace with the old content intact; DiskFailed; ChunkCorrupt if a block that
        must be read to be changed does not match its digest; InvalidArgument if it does not fit into the chunk.
        """
        end = offset + len(data)
        if not 0 <= offset <= end <= self.state.chunk_bytes:
            raise InvalidArgument(f"bytes {offset} to {end} are not inside a chunk of {self.state.chunk_bytes}")
        self.home.claim_space(len(data))
        with self._mutating() as file:
            if not data:
                pass
            elif offset < self.length:
                self._overwrite(file, offset, data, digests)
            elif offset == self.length and self._is_journaled(len(data), sync):
                self._append_journaled(file, data, digests)
            else:
                self._append(file, offset, data, digests)
            if sync:
                self._sync_file(file)
            return self.position

    def _is_journaled(self, count: int, sync: bool) -> bool:
        """Whether an append is small enough for the journal to carry its bytes.

        Also one that need not be durable yet, if the whole chunk is so small: it will have to be, soon, together with
        other small files, and then one fsync of the journal does for all of them.
        """
        return count <= JOURNALED_BYTES_MAX and (
            sync or (not self.dirty and self.length + count <= JOURNALED_BYTES_MAX)
        )

    def cut(self, length: int, sync: bool) -> int:
        """Cuts or extends with zeros to ``length``; otherwise as :meth:`put`."""
        if not 0 <= length <= self.state.chunk_bytes:
            raise InvalidArgument(f"a chunk of {self.state.chunk_bytes} bytes cannot have a length of {length}")
        with self._mutating() as file:
            if length > self.length:
                self._append(file, length, b"", b"")
            elif length < self.length:
                self._cut(file, length)
            if sync:
                self._sync_file(file)
            return self.position

    def sync(self) -> int:
        """Returns the position; once it is committed, all mutations so far are durable."""
        with self._mutating() as file:
            self._sync_file(file)
            return self.position

    def set_version(self, version: int) -> None:
        """Durable on return, with all mutations so far."""
        with self._mutating() as file:
            self._sync_file(file)
            record = Version(self.chunk, version)
            self.position = self.home.journal.append(self.state, record)
            self.home.journal.commit(self.position)
            self.state.apply(record)

    def write_checkpoint(self) -> None:
        """Writes header and table into the file; they and all data are durable after its next fsync."""
        with self.order, self.pinned() as file, self.home.guarded():
            file.write(0, *checkpoint(self.state, self.home.cluster))

    # --------------------------------------------------------------------------------------------------- reading

    def read_verified(self, offset: int, count: int) -> bytes:
        """Bytes that match their digests, fewer at the end of the chunk. ChunkCorrupt if they do not match."""
        with self.pinned() as file, self.lock:
            end = max(offset, min(offset + count, self.length))
            first, last = offset // BLOCK_BYTES, block_count(end)
            blocks = self._read_blocks(file, first, last)
            start = offset - first * BLOCK_BYTES
            return blocks[start : start + end - offset]

    def verify_block(self, block: int) -> int:
        """How many bytes of a block were read and found good; 0 beyond the end. ChunkCorrupt if it is not good."""
        with self.pinned() as file, self.lock:
            if block >= block_count(self.length):
                return 0
            return len(self._read_blocks(file, block, block + 1))

    def _read_blocks(self, file: File, first: int, last: int) -> bytes:
        length = self.length
        start, end = first * BLOCK_BYTES, min(last * BLOCK_BYTES, length)
        if start >= end:
            return b""
        try:
            data = file.read(self.data_offset(start), end - start)
        except OSError as error:
            raise ChunkCorrupt(f"chunk {self.chunk:x} cannot be read at {start}: {error.strerror or error}") from error
        view = memoryview(data)
        for block in range(first, last):
            piece = view[(block - first) * BLOCK_BYTES : (block - first + 1) * BLOCK_BYTES]
            expected = min(BLOCK_BYTES, length - block * BLOCK_BYTES)
            if len(piece) != expected or digest(piece) != self.state.block_digest(block):
                raise ChunkCorrupt(f"block {block} of chunk {self.chunk:x} does not match its digest")
        return data

    # --------------------------------------------------------------------------------- mutations, inside the locks

    def data_offset(self, offset: int) -> int:
        """Where in the file a byte of the chunk is."""
        return chunkfile.data_offset(self.state.chunk_bytes) + offset

    def _append(self, file: File, offset: int, data: Buffer, digests: Buffer) -> None:
        """In place, beyond all acknowledged bytes; then the record that makes it count. Zeros fill a gap."""
        end = offset + len(data)
        blocks, tail = self._grown_digests(file, offset, data, digests)
        record = Extend(self.chunk, end, self.length // BLOCK_BYTES, blocks)
        self.dirty = True
        if offset > self.length:
            # Bytes that an unfinished append left beyond the end must not show through the gap.
            file.truncate(self.data_offset(self.length))
            file.truncate(self.data_offset(offset))
        file.write(self.data_offset(offset), data)
        self.position = self.home.journal.append(self.state, record)
        with self.lock:
            self.state.apply(record)
        self._tail = tail

    def _append_journaled(self, file: File, data: Buffer, digests: Buffer) -> None:
        """The record carries the bytes, so that the file needs no fsync; their order does not matter beyond the end."""
        self._sync_data(file)
        offset = self.length
        blocks, tail = self._grown_digests(file, offset, data, digests)
        record = Write(self.chunk, offset, offset + len(data), offset // BLOCK_BYTES, blocks, bytes(data))
        file.write(self.data_offset(offset), data)
        self.position = self.home.journal.append(self.state, record)
        with self.lock:
            self.state.apply(record)
        self._tail = tail

    def _overwrite(self, file: File, offset: int, data: Buffer, digests: Buffer) -> None:
        """The record is durable before acknowledged bytes are touched: a torn write in place is redone from it."""
        self._sync_data(file)
        end = offset + len(data)
        file.allocate(self.data_offset(offset), len(data))
        blocks = self._overwritten_digests(file, offset, data, digests)
        record = Write(self.chunk, offset, max(end, self.length), offset // BLOCK_BYTES, blocks, bytes(data))
        self.position = self.home.journal.append(self.state, record)
        self.home.journal.commit(self.position)
        with self.lock:
            try:
                file.write(self.data_offset(offset), data)
            except OSError as error:
                # The file is torn now, and only the journal knows better: the disk goes, and recovery mends it.
                raise OSError(errno.EIO, f"overwriting in place failed: {error}") from error
            self.state.apply(record)
        self._tail = None

    def _cut(self, file: File, length: int) -> None:
        self._sync_data(file)
        tail = b""
        if length % BLOCK_BYTES:
            block = length // BLOCK_BYTES
            tail = digest(memoryview(self._read_blocks(file, block, block + 1))[: length % BLOCK_BYTES])
        record = Cut(self.chunk, length, tail)
        self.position = self.home.journal.append(self.state, record)
        self.home.journal.commit(self.position)
        with self.lock:
            self.state.apply(record)
            file.truncate(self.data_offset(length))
        self._tail = None

    def _sync_file(self, file: File) -> None:
        if self.dirty:
            self._sync_data(file)
            record = Synced(self.chunk)
            self.position = self.home.journal.append(self.state, record)
            self.state.apply(record)

    def _sync_data(self, file: File) -> None:
        if self.dirty:
            file.sync()
            if not self.name_synced:
                self.home.files.sync_directory(self.path.parent)
                self.name_synced = True
            self.dirty = False

    def _tail_hasher(self, file: File) -> blake3:
        """A hasher of its own that has digested the last, partial block."""
        if self._tail is None:
            block = self.length // BLOCK_BYTES
            self._tail = blake3(self._read_blocks(file, block, block + 1))
        return self._tail.copy()

    def _grown_digests(self, file: File, offset: int, data: Buffer, digests: Buffer) -> tuple[bytes, blake3 | None]:
        """Digests of the blocks from the one at the end on, when zeros up to ``offset`` and then ``data`` follow.

        Whole blocks are not digested again. Also the hasher of the new last block, if that is not a whole one.
        """
        pieces: list[Buffer] = []
        fill = self.length % BLOCK_BYTES
        tail = self._tail_hasher(file) if fill else blake3()
        gap = offset - self.length
        while gap:
            step = min(BLOCK_BYTES - fill, gap)
            if step == BLOCK_BYTES:
                pieces.append(ZERO_BLOCK_DIGEST)
            else:
                tail.update(bytes(step))
                if fill + step == BLOCK_BYTES:
                    pieces.append(tail.digest())
                    tail = blake3()
            fill = (fill + step) % BLOCK_BYTES
            gap -= step
        view = memoryview(data)
        if fill:
            first = view[: BLOCK_BYTES - fill]
            tail.update(first)
            pieces.append(tail.digest())
            view = view[len(first) :]
            digests = memoryview(digests)[DIGEST_BYTES:]
        if view:
            pieces.append(digests)
            tail = blake3(view[len(view) - len(view) % BLOCK_BYTES :])
        return b"".join(pieces), tail if (offset + len(data)) % BLOCK_BYTES else None

    def _overwritten_digests(self, file: File, offset: int, data: Buffer, digests: Buffer) -> bytes:
        """Digests of all blocks that ``data`` touches. Old bytes are verified: damage must not get a good digest."""
        view = memoryview(data)
        end = offset + len(view)
        first, last = offset // BLOCK_BYTES, block_count(end)
        pieces: list[Buffer] = []
        for block in range(first, last):
            start, stop = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
            covered = view[max(start - offset, 0) : stop - offset]
            if offset <= start and end >= min(stop, self.length):
                at = (block - first) * DIGEST_BYTES
                pieces.append(memoryview(digests)[at : at + DIGEST_BYTES])
                continue
            old = bytearray(self._read_blocks(file, block, block + 1))
            at = max(offset - start, 0)
            old[at : at + len(covered)] = covered
            pieces.append(digest(old))
        return b"".join(pieces)


def checkpoint(state: ReplicaState, cluster: bytes) -> tuple[bytes, bytes]:
    """The header and the table of a chunk file in this state."""
    table = bytes(state.table)
    header = chunkfile.ChunkHeader(
        cluster,
        state.chunk,
        state.version,
        state.inode,
        state.index,
        state.chunk_bytes,
        state.length,
        digest(table),
    )
    return chunkfile.encode_header(header), table


def state_from_header(header: chunkfile.ChunkHeader, table: bytes = b"") -> ReplicaState:
    """The state of a replica whose file is a finished checkpoint: all of it is durable."""
    tail = bytes(table[-DIGEST_BYTES:]) if header.length % BLOCK_BYTES else b""
    base = Base(
        header.chunk,
        header.version,
        header.inode,
        header.index,
        header.chunk_bytes,
        header.length,
        header.length,
        tail,
        table,
        False,
    )
    return ReplicaState(base)
