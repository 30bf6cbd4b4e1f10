"""Identifiers and the sizes that every process agrees on.

Identifiers are plain integers with a type of their own, so that mypy keeps a chunk id out of an inode's place.
Inode and chunk ids only grow and are never used twice (see ``gfsmaster.columns`` for how they stay dense in memory).
"""

from typing import Final, NewType

InodeId = NewType("InodeId", int)
ChunkId = NewType("ChunkId", int)
ChunkVersion = NewType("ChunkVersion", int)
"""Rises with every lease and every change of a chunk's replica set (GFS §4.5); 0 means that no replica exists yet."""
ServerId = NewType("ServerId", int)
"""A chunk server's number inside one cluster, 63 random bits, kept in its data directories."""
Epoch = NewType("Epoch", int)
"""A leadership's number; it rises with each election and fences what an older leader still says."""
Sequence = NewType("Sequence", int)
"""The position of a record in the operation log, from 1."""
ClientId = NewType("ClientId", bytes)
"""16 random bytes that a client chooses for its lifetime; half of a call's identity."""

ROOT_INODE: Final = InodeId(1)

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

BLOCK_BYTES: Final = 64 * KIB
"""The unit of checksum."""
DIGEST_BYTES: Final = 32
CHUNK_BYTES_DEFAULT: Final = 64 * MIB
CHUNK_BYTES_MAX: Final = 64 * MIB
CHUNK_BYTES_MIN: Final = BLOCK_BYTES
PACKET_BYTES: Final = 1 * MIB
"""The most payload that one mutation carries; larger writes are cut into several, each of them atomic."""
RECORD_BYTES_MAX: Final = PACKET_BYTES
"""The largest record of a record append: one mutation, so that it is whole or absent on every replica."""

NAME_BYTES_MAX: Final = 255
PATH_BYTES_MAX: Final = 4096
SYMLINKS_MAX: Final = 40
REPLICATION_MAX: Final = 16
XATTR_NAME_BYTES_MAX: Final = 255
XATTR_VALUE_BYTES_MAX: Final = 64 * KIB
LOCATED_FILES_MAX: Final = 256
"""Files that one question asks for the places of."""
PURGED_ENTRIES_MAX: Final = 5000
"""Entries of the trash that one record removes."""
FILE_BYTES_MAX: Final = 2**53
