"""HDFS's checksum of a file: an MD5 over the MD5 of each block's CRCs, one for every 512 bytes.

Two files with the same content and block size have the same; it is what a cluster has that was set up with
``dfs.checksum.type=CRC32``. (MD5MD5CRC32FileChecksum; the CRCs of a default cluster are CRC32C.)
"""

import hashlib
import struct
import zlib
from typing import Final

CRC_BYTES: Final = 512
"""Of content that one CRC covers."""
_CRC: Final = struct.Struct(">I")
_HEAD: Final = struct.Struct(">IQ")


class FileChecksum:
    """Takes the content in order, in pieces of any size."""

    def __init__(self, block_bytes: int) -> None:
        """``block_bytes`` is a multiple of CRC_BYTES."""
        self._block_bytes = block_bytes
        self._left_of_block = block_bytes
        self._blocks = 0
        self._all = hashlib.md5(usedforsecurity=False)
        self._block = hashlib.md5(usedforsecurity=False)
        self._rest = b""

    def update(self, data: bytes) -> None:
        """More content."""
        data = self._rest + data
        whole = len(data) - len(data) % CRC_BYTES
        view = memoryview(data)[:whole]
        while view:
            part, view = view[: self._left_of_block], view[self._left_of_block :]
            self._add(part)
        self._rest = data[whole:]

    def _add(self, part: memoryview) -> None:
        """Whole pieces of one block, or its last one."""
        starts = range(0, len(part), CRC_BYTES)
        self._block.update(b"".join(_CRC.pack(zlib.crc32(part[start : start + CRC_BYTES])) for start in starts))
        self._left_of_block -= len(part)
        if not self._left_of_block:
            self._end_block()

    def _end_block(self) -> None:
        self._all.update(self._block.digest())
        self._block = hashlib.md5(usedforsecurity=False)
        self._left_of_block = self._block_bytes
        self._blocks += 1

    def finish(self) -> dict[str, str | int]:
        """As WebHDFS has it in JSON; nothing may come after it."""
        if self._rest:
            self._add(memoryview(self._rest))
        if self._left_of_block != self._block_bytes:
            self._end_block()
        # HDFS takes the number of CRCs from the first of several blocks; of one it says 0.
        per_block = self._block_bytes // CRC_BYTES if self._blocks > 1 else 0
        value = _HEAD.pack(CRC_BYTES, per_block) + self._all.digest()
        return {
            "algorithm": f"MD5-of-{per_block}MD5-of-{CRC_BYTES}CRC32",
            "bytes": value.hex(),
            "length": len(value),
        }
