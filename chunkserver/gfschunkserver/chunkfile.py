"""The format of a chunk file: a header, the digests of all blocks, the data. ``docs/formats.md`` has the bytes.

Pure: bytes in, values out. Header and digest table in a file are a checkpoint; the journal knows what came after.
"""

import struct
from typing import Final

import msgspec

from gfsprotocol.checksums import block_count, digest
from gfsprotocol.errors import ChunkCorrupt, ForeignStore, UnsupportedFormat
from gfsprotocol.ids import CHUNK_BYTES_MAX, DIGEST_BYTES

MAGIC: Final = b"GFSCHUNK"
FORMAT_VERSION: Final = 1
HEADER_BYTES: Final = 4096
PAGE_BYTES: Final = 4096
_FIELDS: Final = struct.Struct("<8sII16sQQQQQQ32s")
_DIGESTED_BYTES: Final = HEADER_BYTES - DIGEST_BYTES


class ChunkHeader(msgspec.Struct, frozen=True, gc=False):
    """What a chunk file says of itself: enough to salvage a namespace from chunks alone."""

    cluster: bytes
    chunk: int
    version: int
    inode: int
    index: int
    """Which chunk of the file it is."""
    chunk_bytes: int
    """How many bytes it may grow to."""
    length: int
    table_digest: bytes
    """Of the table's used part: the digests of the blocks that hold ``length`` bytes."""


def table_bytes(chunk_bytes: int) -> int:
    """Room for the digests of a chunk that may grow to ``chunk_bytes``."""
    used = block_count(chunk_bytes) * DIGEST_BYTES
    return -(-used // PAGE_BYTES) * PAGE_BYTES


def data_offset(chunk_bytes: int) -> int:
    """Where the data begins."""
    return HEADER_BYTES + table_bytes(chunk_bytes)


def encode_header(header: ChunkHeader) -> bytes:
    """:data:`HEADER_BYTES` bytes that end with their own digest."""
    fields = _FIELDS.pack(
        MAGIC,
        FORMAT_VERSION,
        HEADER_BYTES,
        header.cluster,
        header.chunk,
        header.version,
        header.inode,
        header.index,
        header.chunk_bytes,
        header.length,
        header.table_digest,
    )
    body = fields.ljust(_DIGESTED_BYTES, b"\0")
    return body + digest(body)


def decode_header(data: bytes) -> ChunkHeader:
    """ChunkCorrupt if it is damaged, UnsupportedFormat if a newer version wrote it."""
    if len(data) < HEADER_BYTES:
        raise ChunkCorrupt(f"the chunk file ends in its header, after {len(data)} bytes")
    body = data[:_DIGESTED_BYTES]
    if digest(body) != data[_DIGESTED_BYTES:HEADER_BYTES]:
        raise ChunkCorrupt("the chunk file's header does not match its digest")
    magic, version, header_bytes, *fields = _FIELDS.unpack_from(body)
    if magic != MAGIC:
        raise ChunkCorrupt("the file is not a chunk file")
    if version != FORMAT_VERSION or header_bytes != HEADER_BYTES:
        raise UnsupportedFormat(f"the chunk file has format version {version}, this program knows {FORMAT_VERSION}")
    header = ChunkHeader(*fields)
    if not 0 <= header.length <= header.chunk_bytes <= CHUNK_BYTES_MAX:
        raise ChunkCorrupt(f"the chunk file claims {header.length} of {header.chunk_bytes} bytes")
    return header


def check_identity(header: ChunkHeader, cluster: bytes, chunk: int) -> None:
    """ForeignStore if the file belongs to another cluster; ChunkCorrupt if it is another chunk than its name says."""
    if header.cluster != cluster:
        raise ForeignStore(f"the chunk file belongs to cluster {header.cluster.hex()}, this store to {cluster.hex()}")
    if header.chunk != chunk:
        raise ChunkCorrupt(f"the chunk file is chunk {header.chunk:x}, its name says {chunk:x}")


def check_length(header: ChunkHeader, file_bytes: int) -> None:
    """ChunkCorrupt if the file is shorter than its data must be."""
    if header.length and file_bytes < data_offset(header.chunk_bytes) + header.length:
        raise ChunkCorrupt(f"the file of chunk {header.chunk:x} is truncated to {file_bytes} bytes")
