"""BLAKE3 of blocks: computed in the writer's buffer, kept with the chunk, checked in the reader's buffer."""

from blake3 import blake3

from gfsprotocol.ids import BLOCK_BYTES, DIGEST_BYTES

Buffer = bytes | bytearray | memoryview


def digest(data: Buffer) -> bytes:
    """The 32-byte BLAKE3 digest of ``data``; the interpreter lock is released while it runs over large buffers."""
    return blake3(data).digest()


def segment_digests(offset: int, data: Buffer) -> bytes:
    """The digests of ``data`` cut at the block boundaries of the chunk in which it starts at ``offset``, concatenated.

    A segment that is a whole block gives the very digest that the chunk stores.
    """
    view = memoryview(data)
    first = BLOCK_BYTES - offset % BLOCK_BYTES
    pieces = [digest(view[:first])] if view else []
    pieces.extend(digest(view[start : start + BLOCK_BYTES]) for start in range(first, len(view), BLOCK_BYTES))
    return b"".join(pieces)


def digests_match(offset: int, data: Buffer, digests: Buffer) -> bool:
    """Whether ``digests`` are those of ``data``, cut as in :func:`segment_digests`."""
    return segment_digests(offset, data) == digests


def block_count(length: int) -> int:
    """How many blocks hold ``length`` bytes."""
    return -(-length // BLOCK_BYTES)


ZERO_BLOCK_DIGEST = digest(bytes(BLOCK_BYTES))

__all__ = [
    "BLOCK_BYTES",
    "DIGEST_BYTES",
    "ZERO_BLOCK_DIGEST",
    "Buffer",
    "block_count",
    "digest",
    "digests_match",
    "segment_digests",
]
