"""What the journal records of replicas, and the one function that applies it, live and at recovery alike.

Pure. ``docs/formats.md`` has the bytes; ``docs/architecture/chunk-servers.md`` says why a record comes before or after
the bytes it speaks of.
"""

import struct
from typing import Final

import msgspec

from gfsprotocol.checksums import block_count, digest
from gfsprotocol.ids import BLOCK_BYTES, DIGEST_BYTES, PACKET_BYTES

PREFIX: Final = struct.Struct("<4sIQQ16s")
MAGIC: Final = b"GFSr"
CHECK_BYTES: Final = 16
BODY_BYTES_MAX: Final = 2 * PACKET_BYTES
_CHECKED_BYTES: Final = PREFIX.size - CHECK_BYTES


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of journal records."""

    chunk: int


class Base(Record, frozen=True, tag=1):
    """The whole state of a replica: what later records of the segment build on."""

    version: int
    inode: int
    index: int
    chunk_bytes: int
    length: int
    synced_length: int
    synced_tail: bytes
    table: bytes
    created: bool
    """Whether the replica begins here, so that its file can be made anew from records alone."""


class Extend(Record, frozen=True, tag=2):
    """The replica grew; the bytes are in the chunk file only, and not durable before a Synced."""

    length: int
    first_block: int
    digests: bytes
    """Of the blocks from ``first_block`` to the new end."""


class Write(Record, frozen=True, tag=3):
    """Bytes that were put somewhere, and the digests of all blocks they touch. All before it is durable with it."""

    offset: int
    length: int
    """Of the replica afterwards."""
    first_block: int
    digests: bytes
    data: bytes


class Cut(Record, frozen=True, tag=4):
    """The replica shrank. All before it is durable with it."""

    length: int
    tail: bytes
    """The digest of the last block if it is not a whole one."""


class Synced(Record, frozen=True, tag=5):
    """All that the replica holds is durable."""


class Version(Record, frozen=True, tag=6):
    """A grant gave the replica a new version. All before it is durable with it."""

    version: int


class Drop(Record, frozen=True, tag=7):
    """The replica is gone; its file may be removed once this is durable."""


class Mark(Record, frozen=True, tag=8):
    """Nothing but the position known durable in the prefix (``chunk`` is 0)."""


AnyRecord = Base | Extend | Write | Cut | Synced | Version | Drop | Mark

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyRecord] = msgspec.msgpack.Decoder(AnyRecord)


def encode(record: AnyRecord, position: int, durable: int) -> bytes:
    """A record as it stands at ``position``, when all before ``durable`` was known to be on stable storage."""
    body = _encoder.encode(record)
    checked = PREFIX.pack(MAGIC, len(body), position, durable, b"")[:_CHECKED_BYTES]
    return b"".join((checked, digest(checked + body)[:CHECK_BYTES], body))


class Read(msgspec.Struct, frozen=True, gc=False):
    """A record as it was found in a segment."""

    record: AnyRecord
    position: int
    durable: int
    end: int
    """The position behind it."""


def decode(data: bytes | memoryview, position: int) -> Read | None:
    """The record at the beginning of ``data``, which stands at ``position``; None if there is none that can be read."""
    if len(data) < PREFIX.size:
        return None
    magic, body_bytes, found_position, durable, check = PREFIX.unpack_from(data)
    end = PREFIX.size + body_bytes
    if magic != MAGIC or found_position != position or body_bytes > BODY_BYTES_MAX or end > len(data):
        return None
    checked = b"".join((data[:_CHECKED_BYTES], data[PREFIX.size : end]))
    if digest(checked)[:CHECK_BYTES] != check:
        return None
    return Read(_decoder.decode(data[PREFIX.size : end]), position, durable, position + end)


class ReplicaState:
    """What a replica is, apart from its bytes.

    Invariants: ``table`` holds the digest of each block of the first ``length`` bytes and nothing more;
    ``synced_length <= length``; ``synced_tail`` is the digest that the block at ``synced_length`` had then.
    """

    __slots__ = (
        "chunk",
        "chunk_bytes",
        "index",
        "inode",
        "length",
        "synced_length",
        "synced_tail",
        "table",
        "version",
    )

    def __init__(self, base: Base) -> None:
        self.chunk = base.chunk
        self.version = base.version
        self.inode = base.inode
        self.index = base.index
        self.chunk_bytes = base.chunk_bytes
        self.length = base.length
        self.synced_length = base.synced_length
        self.synced_tail = base.synced_tail
        self.table = bytearray(base.table)

    def base(self, created: bool = False) -> Base:
        """The record that restores this state."""
        return Base(
            self.chunk,
            self.version,
            self.inode,
            self.index,
            self.chunk_bytes,
            self.length,
            self.synced_length,
            self.synced_tail,
            bytes(self.table),
            created,
        )

    def block_digest(self, block: int) -> bytes:
        return bytes(self.table[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES])

    def apply(self, record: AnyRecord) -> None:
        """The only way in which a replica's state changes."""
        match record:
            case Extend():
                self.table[record.first_block * DIGEST_BYTES :] = record.digests
                self.length = record.length
            case Write():
                start = record.first_block * DIGEST_BYTES
                self.table[start : start + len(record.digests)] = record.digests
                self.length = record.length
                self._all_durable()
            case Cut():
                del self.table[record.length // BLOCK_BYTES * DIGEST_BYTES :]
                self.table += record.tail
                self.length = record.length
                self._all_durable()
            case Version():
                self.version = record.version
                self._all_durable()
            case Synced():
                self._all_durable()
            case Base() | Drop() | Mark():
                raise ValueError(f"{type(record).__name__} does not change a state")
        assert len(self.table) == block_count(self.length) * DIGEST_BYTES

    def _all_durable(self) -> None:
        self.synced_length = self.length
        self.synced_tail = bytes(self.table[-DIGEST_BYTES:]) if self.length % BLOCK_BYTES else b""
