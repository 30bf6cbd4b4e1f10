"""The chunk table: what the log knows of chunks. Where their replicas are stands in :mod:`gfsmaster.fleet`."""

import struct
from array import array

from gfsmaster.columns import SlotTable

_DIGESTED = struct.Struct("<QQQQIq")
NO_CUT = -1


class Chunks(SlotTable):
    """All chunks. ``length`` is how many bytes writers have recorded as acknowledged by all replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.version = array("I", [0])
        self.length = array("I", [0])
        self.inode = array("I", [0])
        """Slot of the file."""
        self.index = array("I", [0])
        self.cuts: dict[int, int] = {}
        """Chunks that were truncated in the namespace only: their replicas are cut with the next grant."""

    def _grow(self) -> None:
        for column in (self.version, self.length, self.inode, self.index):
            column.append(0)

    def release(self, slot: int) -> None:
        self.version[slot] = self.length[slot] = self.inode[slot] = self.index[slot] = 0
        self.cuts.pop(slot, None)
        super().release(slot)

    def digested(self, slot: int, inode_id: int) -> bytes:
        """The bytes of a chunk that the state digest covers."""
        return _DIGESTED.pack(
            self.ids[slot],
            self.version[slot],
            self.length[slot],
            inode_id,
            self.index[slot],
            self.cuts.get(slot, NO_CUT),
        )
