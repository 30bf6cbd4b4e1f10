"""All that is true, as objects that belong together: inodes, names, chunks, writers, trash; and their digest.

Each step here keeps the columns, the digest and what is told of changes in agreement with each other. Which steps a
record takes, and in which order, is for :mod:`gfsmaster.state`. Deterministic and pure as that is.
"""

import stat
from dataclasses import dataclass

from gfsmaster.chunks import Chunks
from gfsmaster.digests import StateDigestSum, hashed
from gfsmaster.directory import Directory
from gfsmaster.inodes import Inodes
from gfsmaster.sessions import Sessions, Writers
from gfsmaster.touched import Before, Touched
from gfsprotocol.errors import StateDiverged
from gfsprotocol.messages import Attributes, TrashEntry


@dataclass(slots=True)
class Trashed:
    """Something in the trash: where it was, whose it is, until when it is kept."""

    path: bytes
    uid: int
    deleted_ns: int
    expires_ns: int


@dataclass(slots=True, frozen=True)
class FreedChunk:
    """A chunk that the state has just forgotten; its replicas may be deleted once the record is durable."""

    slot: int
    chunk: int
    version: int


class Objects:
    """Namespace, chunks, sessions and trash after ``sequence`` records."""

    def __init__(self) -> None:
        self.cluster = b""
        self.sequence = 0
        self.epoch = 0
        self.time_ns = 0
        self.inodes = Inodes()
        self.chunks = Chunks()
        self.sessions = Sessions()
        self.writers = Writers()
        self.trash: dict[int, Trashed] = {}
        """By inode slot, in order of deletion."""
        self.doomed: list[int] = []
        """Directories cut off the tree whose content is still to be reclaimed."""
        self.freed: list[FreedChunk] = []
        """Output: chunks freed since whoever applies records last emptied it."""
        self.revised: list[int] = []
        """Output: slots of chunks that got a new version since then."""
        self._touched: Touched | None = None
        self._sum = StateDigestSum(self._hash_inode, self._hash_chunk)

    @property
    def touched(self) -> Touched | None:
        """Output, if somebody wants it: inodes and names touched since whoever applies records last cleared it."""
        return self._touched

    @touched.setter
    def touched(self, touched: Touched | None) -> None:
        self._touched = touched
        self._sum.on_touch = None if touched is None else self._note_touched

    def attributes(self, slot: int) -> Attributes:
        return self.inodes.attributes(slot, self.writers.count(slot))

    def is_last_name(self, slot: int) -> bool:
        """Whether a regular file would have no name left if it lost one."""
        return self.inodes.links[slot] == 1 and stat.S_ISREG(self.inodes.mode[slot])

    def trash_entry(self, slot: int) -> TrashEntry:
        item = self.trash[slot]
        return TrashEntry(
            self.inodes.ids[slot],
            item.path,
            item.deleted_ns,
            item.expires_ns,
            item.uid,
            slot in self.inodes.directories,
            self.inodes.size[slot],
        )

    # ------------------------------------------------------------------------------------------------------- digest

    def digest(self) -> bytes:
        """16 bytes that are equal for equal states; the sequence is not in it, for the log carries both."""
        return self._digest(self._sum.value())

    def object_sum(self) -> int:
        """The part of the digest that is kept up to date, for a checkpoint."""
        return self._sum.value()

    def restore_object_sum(self, value: int) -> None:
        """What :meth:`object_sum` gave of the state that this one was restored from."""
        self._sum.restore(value)

    def recomputed_digest(self) -> bytes:
        """The digest from all objects as they stand here, at the cost of seconds per million: a check of everything."""
        fresh = StateDigestSum(self._hash_inode, self._hash_chunk)
        for slot, inode in enumerate(self.inodes.ids):
            if inode:
                fresh.add(self._hash_inode(slot))
        for slot, chunk in enumerate(self.chunks.ids):
            if chunk:
                fresh.add(self._hash_chunk(slot))
        for slot, directory in self.inodes.directories.items():
            for name, child in directory:
                fresh.add(self._hash_entry(slot, name, child))
        return self._digest(fresh.value())

    def _digest(self, objects: int) -> bytes:
        counters = (
            f"{self.epoch} {self.inodes.last_id} {self.chunks.last_id}"
            f" {len(self.inodes.free)} {len(self.chunks.free)} {self.doomed} {list(self.writers.items())}"
            f" {len(self.sessions.by_client)} {sum(s.floor for s in self.sessions.by_client.values())}"
        )
        trash = "".join(f"{slot} {item}" for slot, item in self.trash.items())
        total = objects + hashed(b"counters", counters.encode() + trash.encode() + self.cluster)
        return (total % (1 << 128)).to_bytes(16, "little")

    def _hash_inode(self, slot: int) -> int:
        return hashed(b"inode", self.inodes.digested(slot))

    def _hash_chunk(self, slot: int) -> int:
        return hashed(b"chunk", self.chunks.digested(slot, self.inodes.ids[self.chunks.inode[slot]]))

    def _hash_entry(self, parent: int, name: bytes, slot: int) -> int:
        ids = self.inodes.ids
        return hashed(b"entry", ids[parent].to_bytes(8, "little") + ids[slot].to_bytes(8, "little") + name)

    # ------------------------------------------------------------------------------------------------------ finding

    def _slot(self, inode_id: int) -> int:
        slot = self.inodes.slot_of(inode_id)
        if not slot:
            raise StateDiverged(f"record {self.sequence} names inode {inode_id}, which does not exist here")
        return slot

    def _directory(self, slot: int) -> Directory:
        directory = self.inodes.directories.get(slot)
        if directory is None:
            raise StateDiverged(f"record {self.sequence} names a directory where inode {self.inodes.ids[slot]} is none")
        return directory

    def _entry(self, parent: int, name: bytes) -> int:
        slot = self._directory(parent).find(name)
        if not slot:
            raise StateDiverged(f"record {self.sequence} names entry {name!r}, which does not exist here")
        return slot

    # --------------------------------------------------------------------------------------------- inodes and names

    def _new_inode(self, inode_id: int, mode: int, uid: int, gid: int) -> int:
        inodes = self.inodes
        slot = inodes.claim(inode_id)
        inodes.mode[slot] = mode
        inodes.owner[slot] = inodes.owners.number((uid, gid))
        inodes.accessed[slot] = inodes.modified[slot] = inodes.changed[slot] = self.time_ns
        self._sum.new_inode(slot)
        return slot

    def _note_touched(self, slot: int) -> None:
        if self._touched is not None and slot not in self._touched.inodes:
            inodes = self.inodes
            before = Before(inodes.ids[slot], inodes.links[slot], stat.S_ISREG(inodes.mode[slot]))
            self._touched.inodes[slot] = before

    def _note_name(self, directory: int, name: bytes) -> None:
        if self._touched is not None:
            self._touched.names[directory, self.inodes.ids[directory], name] = None

    def _enter(self, parent: int, name: bytes, slot: int) -> None:
        """Adds an entry and touches the directory."""
        directory = self._directory(parent)
        if directory.find(name):
            raise StateDiverged(f"record {self.sequence} makes entry {name!r}, which exists here")
        directory.insert(name, slot)
        self._note_name(parent, name)
        self._sum.add(self._hash_entry(parent, name, slot))
        self._touch_directory(parent)

    def _leave(self, parent: int, name: bytes, slot: int) -> None:
        """Removes an entry and touches the directory."""
        self._directory(parent).remove(name)
        self._note_name(parent, name)
        self._sum.add(-self._hash_entry(parent, name, slot))
        self._touch_directory(parent)

    def _touch_directory(self, slot: int) -> None:
        self._sum.touch_inode(slot)
        self.inodes.modified[slot] = self.inodes.changed[slot] = self.time_ns

    def _adopt(self, slot: int, parent: int, name: bytes) -> None:
        """An inode now stands under this parent; a directory counts as one of the parent's links."""
        self.inodes.parent[slot] = parent
        directory = self.inodes.directories.get(slot)
        if directory is not None:
            directory.name = name
            self.inodes.links[parent] += 1
            self._note_name(slot, b"..")

    def _abandon(self, slot: int, parent: int) -> None:
        """A directory no longer stands under this parent."""
        if slot in self.inodes.directories:
            self.inodes.links[parent] -= 1
            self._note_name(slot, b"..")

    # ------------------------------------------------------------------------------------------------------- chunks

    def _new_chunk(self, slot: int, index: int, chunk_id: int) -> None:
        # The new chunk first: its id was planned before the slot of the one that it replaces became free.
        chunk = self.chunks.claim(chunk_id)
        self._drop_chunk(slot, index)
        self.chunks.inode[chunk] = slot
        self.chunks.index[chunk] = index
        self.chunks.version[chunk] = 1
        self._sum.new_chunk(chunk)
        self.inodes.set_chunk(slot, index, chunk)

    def _drop_chunk(self, slot: int, index: int) -> None:
        """The file has no chunk at ``index`` any more, if it had one."""
        chunk = self.inodes.chunk_at(slot, index)
        if chunk:
            self.inodes.set_chunk(slot, index, 0)
            self._free_chunk(chunk)

    def _free_chunk(self, slot: int) -> None:
        self._sum.drop_chunk(slot)
        self.freed.append(FreedChunk(slot, self.chunks.ids[slot], self.chunks.version[slot]))
        self.chunks.release(slot)

    def _resize(self, slot: int, size: int) -> None:
        inodes = self.inodes
        chunk_bytes = inodes.chunk_bytes(slot)
        kept = -(-size // chunk_bytes)
        for index in range(inodes.chunk_count(slot) - 1, kept - 1, -1):
            self._drop_chunk(slot, index)
        last = inodes.chunk_at(slot, kept - 1) if kept and size < inodes.size[slot] else 0
        if last:
            self._sum.touch_chunk(last)
            length = min(self.chunks.length[last], size - (kept - 1) * chunk_bytes)
            self.chunks.length[last] = length
            self.chunks.cuts[last] = length
        inodes.size[slot] = size

    # ---------------------------------------------------------------------------------------------------- what goes

    def _free_inode(self, slot: int) -> None:
        for chunk in self.inodes.chunk_slots(slot):
            if chunk:
                self._free_chunk(chunk)
        if slot in self.inodes.directories:
            self._note_name(slot, b"..")
        self._sum.drop_inode(slot)
        self.writers.forget_file(slot)
        self.inodes.release(slot)

    def _drop_link(self, slot: int, parent: int) -> None:
        """A name under ``parent`` is gone: the file goes with its last name and writer; a tree is doomed."""
        inodes = self.inodes
        self._sum.touch_inode(slot)
        inodes.changed[slot] = self.time_ns
        if slot in inodes.directories:
            inodes.links[slot] = 0
            inodes.parent[slot] = 0
            self._note_name(slot, b"..")
            if inodes.directories[slot]:
                self.doomed.append(slot)
            else:
                self._free_inode(slot)
            return
        inodes.links[slot] -= 1
        if inodes.parent[slot] == parent:
            # The other names of a file are not tracked, and the directory may go: the parent is unknown from here on.
            inodes.parent[slot] = 0
        if not inodes.links[slot] and not self.writers.count(slot):
            self._free_inode(slot)

    def _closed(self, slot: int, frees_unused: bool) -> None:
        """A writer has gone: the file may go, or a chunk that was allocated for what was never written."""
        if frees_unused and not self.writers.count(slot) and self.inodes.chunk_count(slot):
            first = self.inodes.chunk_at(slot, 0)
            if not self.inodes.size[slot]:
                self._resize(slot, 0)
            elif first and not self.chunks.length[first] and self.chunks.version[first] == 1:
                # It came with the file, which was only made longer: a hole, for no server has the chunk.
                self._drop_chunk(slot, 0)
        self._free_if_unused(slot)

    def _free_if_unused(self, slot: int) -> None:
        if not self.inodes.links[slot] and not self.writers.count(slot) and slot not in self.inodes.directories:
            self._free_inode(slot)
