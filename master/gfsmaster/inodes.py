"""The inode table: everything about a file but its bytes, in columns by slot.

Rare things (second chunks, symlink targets, extended attributes, device numbers, directories' entries) stand in
dictionaries beside the columns, so that the common small file pays nothing for them.
"""

import stat
import struct
from array import array
from typing import Final

from gfsmaster.columns import Interned, SlotTable
from gfsmaster.directory import Directory
from gfsprotocol.messages import Attributes

ROOT_SLOT: Final = 1
_DIGESTED = struct.Struct("<QIIIQqqqIQHQ")


class Inodes(SlotTable):
    """All inodes. ``mode`` is ``st_mode``, times are nanoseconds, ``parent`` is the slot of a link's directory."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = array("I", [0])
        self.owner = array("I", [0])
        """Number of (uid, gid) in ``owners``."""
        self.size = array("Q", [0])
        self.accessed = array("q", [0])
        self.modified = array("q", [0])
        self.changed = array("q", [0])
        self.links = array("I", [0])
        self.parent = array("I", [0])
        self.first_chunk = array("I", [0])
        """The slot of chunk 0; 0 if there is none."""
        self.layout = array("H", [0])
        """Number of (replication, chunk bytes) in ``layouts``."""
        self.owners = Interned()
        self.layouts = Interned()
        self.more_chunks: dict[int, array[int]] = {}
        """Chunk slots from index 1 on, of files that have them; 0 is a hole."""
        self.directories: dict[int, Directory] = {}
        self.targets: dict[int, bytes] = {}
        self.xattrs: dict[int, dict[bytes, bytes]] = {}
        self.devices: dict[int, int] = {}
        """Numbers of device nodes, as ``st_rdev``; 0 is not kept."""

    def _grow(self) -> None:
        for column in (self.mode, self.owner, self.size, self.accessed, self.modified, self.changed):
            column.append(0)
        for column in (self.links, self.parent, self.first_chunk, self.layout):
            column.append(0)

    def release(self, slot: int) -> None:
        self.size[slot] = self.links[slot] = self.parent[slot] = self.first_chunk[slot] = self.mode[slot] = 0
        self.more_chunks.pop(slot, None)
        self.directories.pop(slot, None)
        self.targets.pop(slot, None)
        self.xattrs.pop(slot, None)
        self.devices.pop(slot, None)
        super().release(slot)

    def is_directory(self, slot: int) -> bool:
        return stat.S_ISDIR(self.mode[slot])

    def chunk_at(self, slot: int, index: int) -> int:
        """The chunk slot at ``index`` of a file; 0 for a hole, beyond the end or a negative index."""
        if index == 0:
            return self.first_chunk[slot]
        more = self.more_chunks.get(slot)
        return more[index - 1] if more is not None and 0 < index <= len(more) else 0

    def set_chunk(self, slot: int, index: int, chunk: int) -> None:
        if index == 0:
            self.first_chunk[slot] = chunk
            return
        more = self.more_chunks.setdefault(slot, array("I"))
        if len(more) < index:
            more.extend(array("I", [0]) * (index - len(more)))
        more[index - 1] = chunk
        while more and not more[-1]:
            more.pop()
        if not more:
            del self.more_chunks[slot]

    def chunk_count(self, slot: int) -> int:
        """One more than the last index that has a chunk."""
        more = self.more_chunks.get(slot)
        return len(more) + 1 if more else int(bool(self.first_chunk[slot]))

    def chunk_slots(self, slot: int) -> list[int]:
        """All chunks of a file by index, holes as 0."""
        more = self.more_chunks.get(slot)
        return [self.first_chunk[slot], *more] if more else [self.first_chunk[slot]] if self.first_chunk[slot] else []

    def replication(self, slot: int) -> int:
        return self.layouts.values[self.layout[slot]][0]

    def chunk_bytes(self, slot: int) -> int:
        return self.layouts.values[self.layout[slot]][1]

    def attributes(self, slot: int, open_writers: int) -> Attributes:
        uid, gid = self.owners.values[self.owner[slot]]
        replication, chunk_bytes = self.layouts.values[self.layout[slot]]
        return Attributes(
            self.ids[slot],
            self.mode[slot],
            self.links[slot],
            uid,
            gid,
            self.size[slot],
            self.accessed[slot],
            self.modified[slot],
            self.changed[slot],
            replication,
            chunk_bytes,
            open_writers,
            self.devices.get(slot, 0),
            slot in self.xattrs,
        )

    def path_of(self, slot: int) -> bytes:
        """A path under which an inode stands; ``?`` for what has no name (any more)."""
        names: list[bytes] = []
        while slot != ROOT_SLOT:
            parent = self.parent[slot]
            directory = self.directories.get(slot)
            name: bytes | None = None
            if parent:
                name = directory.name if directory is not None else self.directories[parent].name_of(slot)
            if name is None:
                return b"/".join([b"?", *reversed(names)])
            names.append(name)
            slot = parent
        return b"/" + b"/".join(reversed(names))

    def digested(self, slot: int) -> bytes:
        """The bytes of an inode that the state digest covers."""
        uid, gid = self.owners.values[self.owner[slot]]
        replication, chunk_bytes = self.layouts.values[self.layout[slot]]
        packed = _DIGESTED.pack(
            self.ids[slot],
            self.mode[slot],
            uid,
            gid,
            self.size[slot],
            self.accessed[slot],
            self.modified[slot],
            self.changed[slot],
            self.links[slot],
            self.ids[self.parent[slot]],
            replication,
            chunk_bytes,
        )
        target = self.targets.get(slot)
        if target is not None:
            packed += b"\0target" + target
        for name, value in sorted(self.xattrs.get(slot, {}).items()):
            packed += b"\0xattr" + name + b"\0" + value
        device = self.devices.get(slot)
        if device is not None:
            packed += b"\0device" + device.to_bytes(8, "little")
        return packed
