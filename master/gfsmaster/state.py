"""The state machine: what the operation log makes of nothing.

``State.apply`` is the one transition function. The leader, the standby, a restart and a verification run it, so it is
deterministic: no clock, no randomness, no I/O, no logging. Whatever a record needs was chosen when it was planned. The
planner has checked everything, so any surprise here is divergence and stops the node (``StateDiverged``).

What is not here: where replicas are (chunk servers are the truth about that, GFS §2.6.1), leases, liveness.
"""

import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gfsmaster import operations as op
from gfsmaster.chunks import Chunks
from gfsmaster.digests import StateDigestSum, hashed
from gfsmaster.directory import Directory
from gfsmaster.inodes import Inodes
from gfsmaster.sessions import Sessions, Writers
from gfsmaster.touched import Before, Touched
from gfsprotocol.errors import StateDiverged, UnsupportedFormat
from gfsprotocol.ids import ROOT_INODE
from gfsprotocol.messages import Attributes, AttributesReply, Count, Done, Removed, ReplyBody, TrashEntry, TrashReply

ROOT_SLOT: Final = 1
_DONE: Final = Done()


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


def _removed_nothing(holder: bytes) -> ReplyBody:
    return Removed(0, held=False) if holder else _DONE


class State:
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
        self._handlers: dict[type, Callable[[Any], ReplyBody]] = {
            op.Genesis: self._genesis,
            op.BeginEpoch: self._begin_epoch,
            op.StateDigest: self._state_digest,
            op.Answered: self._answered,
            op.MakeDirectory: self._make_directory,
            op.MakeFile: self._make_file,
            op.MakeSymlink: self._make_symlink,
            op.MakeLink: self._make_link,
            op.Move: self._move,
            op.Exchange: self._exchange,
            op.RemoveName: self._remove_name,
            op.ChangeAttributes: self._change_attributes,
            op.PutXattr: self._put_xattr,
            op.DropXattr: self._drop_xattr,
            op.OpenWriter: self._open_writer,
            op.CloseWriter: self._close_writer,
            op.CloseClient: self._close_client,
            op.MakeNode: self._make_node,
            op.AddChunk: self._add_chunk,
            op.SetChunkVersion: self._set_chunk_version,
            op.RecordLengths: self._record_lengths,
            op.TrashName: self._trash_name,
            op.RestoreTrashed: self._restore_trashed,
            op.PurgeTrash: self._purge_trash,
            op.Reclaim: self._reclaim,
        }

    @property
    def touched(self) -> Touched | None:
        """Output, if somebody wants it: inodes and names touched since whoever applies records last cleared it."""
        return self._touched

    @touched.setter
    def touched(self, touched: Touched | None) -> None:
        self._touched = touched
        self._sum.on_touch = None if touched is None else self._note_touched

    def apply(self, record: op.Record) -> ReplyBody:
        """Applies one record and returns the result of its last operation. StateDiverged if it cannot be applied."""
        if record.time_ns < self.time_ns:
            raise StateDiverged(f"record {self.sequence + 1} is older than the one before it")
        self.time_ns = record.time_ns
        self.sequence += 1
        result: ReplyBody = _DONE
        handlers = self._handlers
        for operation in record.operations:
            result = handlers[type(operation)](operation)
        if record.client:
            self.sessions.remember(record.client, record.call, record.floor, record.time_ns, result)
        return result

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

    def attributes(self, slot: int) -> Attributes:
        return self.inodes.attributes(slot, self.writers.count(slot))

    def is_last_name(self, slot: int) -> bool:
        """Whether a regular file would have no name left if it lost one."""
        return self.inodes.links[slot] == 1 and stat.S_ISREG(self.inodes.mode[slot])

    # ------------------------------------------------------------------------------------------- digest of objects

    def _hash_inode(self, slot: int) -> int:
        return hashed(b"inode", self.inodes.digested(slot))

    def _hash_chunk(self, slot: int) -> int:
        return hashed(b"chunk", self.chunks.digested(slot, self.inodes.ids[self.chunks.inode[slot]]))

    def _hash_entry(self, parent: int, name: bytes, slot: int) -> int:
        ids = self.inodes.ids
        return hashed(b"entry", ids[parent].to_bytes(8, "little") + ids[slot].to_bytes(8, "little") + name)

    # --------------------------------------------------------------------------------------------------- helpers

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

    def _free_chunk(self, slot: int) -> None:
        self._sum.drop_chunk(slot)
        self.freed.append(FreedChunk(slot, self.chunks.ids[slot], self.chunks.version[slot]))
        self.chunks.release(slot)

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

    # ------------------------------------------------------------------------------------------------ the cluster

    def _genesis(self, operation: op.Genesis) -> ReplyBody:
        if self.sequence != 1:
            raise StateDiverged(f"record {self.sequence} is a second genesis")
        if operation.format != op.LOG_FORMAT:
            raise UnsupportedFormat(
                f"the log has format {operation.format}, this version reads format {op.LOG_FORMAT}: use a newer version"
            )
        self.cluster = operation.cluster
        root = self._new_inode(ROOT_INODE, stat.S_IFDIR | operation.mode, operation.uid, operation.gid)
        self.inodes.links[root] = 2
        self.inodes.layout[root] = self.inodes.layouts.number((operation.replication, operation.chunk_bytes))
        self.inodes.directories[root] = Directory(b"")
        return _DONE

    def _begin_epoch(self, operation: op.BeginEpoch) -> ReplyBody:
        if operation.epoch <= self.epoch:
            raise StateDiverged(f"record {self.sequence} begins epoch {operation.epoch} after epoch {self.epoch}")
        self.epoch = operation.epoch
        return _DONE

    def _state_digest(self, operation: op.StateDigest) -> ReplyBody:
        own = self.digest()
        if own != operation.digest:
            raise StateDiverged(
                f"record {self.sequence}: the state's digest is {own.hex()}, the leader's was {operation.digest.hex()}"
            )
        return _DONE

    def _answered(self, operation: op.Answered) -> ReplyBody:
        return operation.reply

    # ---------------------------------------------------------------------------------------------- the namespace

    def _make_directory(self, operation: op.MakeDirectory) -> ReplyBody:
        parent = self._slot(operation.parent)
        slot = self._new_inode(operation.inode, stat.S_IFDIR | operation.mode, operation.uid, operation.gid)
        self.inodes.links[slot] = 2
        self.inodes.layout[slot] = self.inodes.layouts.number((operation.replication, operation.chunk_bytes))
        self.inodes.directories[slot] = Directory(operation.name)
        self._enter(parent, operation.name, slot)
        self._adopt(slot, parent, operation.name)
        return AttributesReply(self.attributes(slot))

    def _make_file(self, operation: op.MakeFile) -> ReplyBody:
        parent = self._slot(operation.parent)
        slot = self._new_inode(operation.inode, stat.S_IFREG | operation.mode, operation.uid, operation.gid)
        self.inodes.layout[slot] = self.inodes.layouts.number((operation.replication, operation.chunk_bytes))
        if operation.name:
            self.inodes.links[slot] = 1
            self.inodes.parent[slot] = parent
            self._enter(parent, operation.name, slot)
        if operation.writer:
            self.writers.open(slot, operation.writer)
        if operation.chunk:
            self._new_chunk(slot, 0, operation.chunk)
        return AttributesReply(self.attributes(slot))

    def _make_node(self, operation: op.MakeNode) -> ReplyBody:
        parent = self._slot(operation.parent)
        slot = self._new_inode(operation.inode, operation.mode, operation.uid, operation.gid)
        self.inodes.links[slot] = 1
        self.inodes.layout[slot] = self.inodes.layout[parent]
        self.inodes.parent[slot] = parent
        if operation.device:
            self.inodes.devices[slot] = operation.device
        self._enter(parent, operation.name, slot)
        return AttributesReply(self.attributes(slot))

    def _make_symlink(self, operation: op.MakeSymlink) -> ReplyBody:
        parent = self._slot(operation.parent)
        slot = self._new_inode(operation.inode, stat.S_IFLNK | 0o777, operation.uid, operation.gid)
        self.inodes.links[slot] = 1
        self.inodes.size[slot] = len(operation.target)
        self.inodes.layout[slot] = self.inodes.layout[parent]
        self.inodes.parent[slot] = parent
        self.inodes.targets[slot] = operation.target
        self._enter(parent, operation.name, slot)
        return AttributesReply(self.attributes(slot))

    def _make_link(self, operation: op.MakeLink) -> ReplyBody:
        parent, slot = self._slot(operation.parent), self._slot(operation.inode)
        self._enter(parent, operation.name, slot)
        self._sum.touch_inode(slot)
        self.inodes.links[slot] += 1
        self.inodes.changed[slot] = self.time_ns
        if not self.inodes.parent[slot]:
            self.inodes.parent[slot] = parent
        return AttributesReply(self.attributes(slot))

    def _move(self, operation: op.Move) -> ReplyBody:
        parent, new_parent = self._slot(operation.parent), self._slot(operation.new_parent)
        slot = self._entry(parent, operation.name)
        replaced = self._directory(new_parent).find(operation.new_name)
        result = _removed_nothing(operation.holder)
        if replaced:
            result = self._remove(new_parent, operation.new_name, replaced, operation.holder)
        self._leave(parent, operation.name, slot)
        self._abandon(slot, parent)
        self._sum.touch_inode(slot)
        self._enter(new_parent, operation.new_name, slot)
        self._adopt(slot, new_parent, operation.new_name)
        self.inodes.changed[slot] = self.time_ns
        return result

    def _exchange(self, operation: op.Exchange) -> ReplyBody:
        parent, new_parent = self._slot(operation.parent), self._slot(operation.new_parent)
        first, second = self._entry(parent, operation.name), self._entry(new_parent, operation.new_name)
        for place, name, slot in ((parent, operation.name, first), (new_parent, operation.new_name, second)):
            self._leave(place, name, slot)
            self._abandon(slot, place)
        for place, name, slot in ((parent, operation.name, second), (new_parent, operation.new_name, first)):
            self._sum.touch_inode(slot)
            self._enter(place, name, slot)
            self._adopt(slot, place, name)
            self.inodes.changed[slot] = self.time_ns
        return _removed_nothing(operation.holder)

    def _remove_name(self, operation: op.RemoveName) -> ReplyBody:
        parent = self._slot(operation.parent)
        return self._remove(parent, operation.name, self._entry(parent, operation.name), operation.holder)

    def _remove(self, parent: int, name: bytes, slot: int, holder: bytes) -> ReplyBody:
        """A name goes. ``holder`` becomes a writer of a regular file that would have none left, and is told."""
        inode_id = self.inodes.ids[slot]
        held = bool(holder) and self.is_last_name(slot)
        if held:
            self.writers.open(slot, holder)
        self._leave(parent, name, slot)
        self._abandon(slot, parent)
        self._drop_link(slot, parent)
        return Removed(inode_id, held) if holder else _DONE

    def _change_attributes(self, operation: op.ChangeAttributes) -> ReplyBody:
        inodes = self.inodes
        slot = self._slot(operation.inode)
        self._sum.touch_inode(slot)
        if operation.mode is not None:
            inodes.mode[slot] = stat.S_IFMT(inodes.mode[slot]) | operation.mode
        if operation.uid is not None or operation.gid is not None:
            uid, gid = inodes.owners.values[inodes.owner[slot]]
            uid = uid if operation.uid is None else operation.uid
            inodes.owner[slot] = inodes.owners.number((uid, gid if operation.gid is None else operation.gid))
        if operation.size is not None:
            self._resize(slot, operation.size)
            inodes.modified[slot] = self.time_ns
        if operation.replication is not None:
            inodes.layout[slot] = inodes.layouts.number((operation.replication, inodes.chunk_bytes(slot)))
        if operation.accessed_ns is not None:
            inodes.accessed[slot] = operation.accessed_ns
        if operation.modified_ns is not None:
            inodes.modified[slot] = operation.modified_ns
        inodes.changed[slot] = self.time_ns
        return AttributesReply(self.attributes(slot))

    def _resize(self, slot: int, size: int) -> None:
        inodes = self.inodes
        chunk_bytes = inodes.chunk_bytes(slot)
        kept = -(-size // chunk_bytes)
        for index in range(inodes.chunk_count(slot) - 1, kept - 1, -1):
            chunk = inodes.chunk_at(slot, index)
            if chunk:
                inodes.set_chunk(slot, index, 0)
                self._free_chunk(chunk)
        last = inodes.chunk_at(slot, kept - 1) if kept and size < inodes.size[slot] else 0
        if last:
            self._sum.touch_chunk(last)
            length = min(self.chunks.length[last], size - (kept - 1) * chunk_bytes)
            self.chunks.length[last] = length
            self.chunks.cuts[last] = length
        inodes.size[slot] = size

    def _put_xattr(self, operation: op.PutXattr) -> ReplyBody:
        slot = self._slot(operation.inode)
        self._sum.touch_inode(slot)
        self.inodes.xattrs.setdefault(slot, {})[operation.name] = operation.value
        self.inodes.changed[slot] = self.time_ns
        return _DONE

    def _drop_xattr(self, operation: op.DropXattr) -> ReplyBody:
        slot = self._slot(operation.inode)
        self._sum.touch_inode(slot)
        attributes = self.inodes.xattrs[slot]
        del attributes[operation.name]
        if not attributes:
            del self.inodes.xattrs[slot]
        self.inodes.changed[slot] = self.time_ns
        return _DONE

    # ---------------------------------------------------------------------------------------------- writers, chunks

    def _open_writer(self, operation: op.OpenWriter) -> ReplyBody:
        slot = self._slot(operation.inode)
        self.writers.open(slot, operation.client)
        return AttributesReply(self.attributes(slot))

    def _close_writer(self, operation: op.CloseWriter) -> ReplyBody:
        slot = self._slot(operation.inode)
        self.writers.close(slot, operation.client)
        reply = AttributesReply(self.attributes(slot))
        self._closed(slot, operation.frees_unused)
        return reply

    def _closed(self, slot: int, frees_unused: bool) -> None:
        """A writer has gone: the file may go, or a chunk that was allocated for what was never written."""
        if frees_unused and not self.writers.count(slot) and self.inodes.chunk_count(slot):
            first = self.inodes.chunk_at(slot, 0)
            if not self.inodes.size[slot]:
                self._resize(slot, 0)
            elif first and not self.chunks.length[first] and self.chunks.version[first] == 1:
                # It came with the file, which was only made longer: a hole, for no server has the chunk.
                self.inodes.set_chunk(slot, 0, 0)
                self._free_chunk(first)
        self._free_if_unused(slot)

    def _free_if_unused(self, slot: int) -> None:
        if not self.inodes.links[slot] and not self.writers.count(slot) and slot not in self.inodes.directories:
            self._free_inode(slot)

    def _close_client(self, operation: op.CloseClient) -> ReplyBody:
        for slot in self.writers.files_of(operation.client):
            while self.writers.has(slot, operation.client):
                self.writers.close(slot, operation.client)
            self._closed(slot, operation.frees_unused)
        return _DONE

    def _add_chunk(self, operation: op.AddChunk) -> ReplyBody:
        self._new_chunk(self._slot(operation.inode), operation.index, operation.chunk)
        return Count(operation.chunk)

    def _new_chunk(self, slot: int, index: int, chunk_id: int) -> None:
        # The new chunk first: its id was planned before the slot of the one that it replaces became free.
        chunk = self.chunks.claim(chunk_id)
        replaced = self.inodes.chunk_at(slot, index)
        if replaced:
            self.inodes.set_chunk(slot, index, 0)
            self._free_chunk(replaced)
        self.chunks.inode[chunk] = slot
        self.chunks.index[chunk] = index
        self.chunks.version[chunk] = 1
        self._sum.new_chunk(chunk)
        self.inodes.set_chunk(slot, index, chunk)

    def _set_chunk_version(self, operation: op.SetChunkVersion) -> ReplyBody:
        chunk = self.chunks.slot_of(operation.chunk)
        if not chunk or operation.version <= self.chunks.version[chunk]:
            raise StateDiverged(f"record {self.sequence} sets a version of chunk {operation.chunk} that cannot be")
        self._sum.touch_chunk(chunk)
        self.chunks.version[chunk] = operation.version
        self.chunks.cuts.pop(chunk, None)
        self.revised.append(chunk)
        return _DONE

    def _record_lengths(self, operation: op.RecordLengths) -> ReplyBody:
        slot = self._slot(operation.inode)
        self._sum.touch_inode(slot)
        for recorded in operation.chunks:
            chunk = self.chunks.slot_of(recorded.chunk)
            if not chunk or self.chunks.inode[chunk] != slot:
                raise StateDiverged(f"record {self.sequence} names chunk {recorded.chunk}, which is not the file's")
            if recorded.length > self.chunks.length[chunk]:
                self._sum.touch_chunk(chunk)
                self.chunks.length[chunk] = recorded.length
        self.inodes.size[slot] = max(self.inodes.size[slot], operation.size)
        self.inodes.modified[slot] = operation.modified_ns
        self.inodes.changed[slot] = self.time_ns
        return AttributesReply(self.attributes(slot))

    # ------------------------------------------------------------------------------------------------------- trash

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

    def _trash_name(self, operation: op.TrashName) -> ReplyBody:
        parent = self._slot(operation.parent)
        slot = self._entry(parent, operation.name)
        self._leave(parent, operation.name, slot)
        self._abandon(slot, parent)
        self._sum.touch_inode(slot)
        self.inodes.parent[slot] = 0
        self.inodes.changed[slot] = self.time_ns
        self.trash[slot] = Trashed(operation.path, operation.uid, self.time_ns, operation.expires_ns)
        return TrashReply(self.trash_entry(slot))

    def _restore_trashed(self, operation: op.RestoreTrashed) -> ReplyBody:
        parent, slot = self._slot(operation.parent), self._slot(operation.inode)
        del self.trash[slot]
        self._sum.touch_inode(slot)
        self._enter(parent, operation.name, slot)
        self._adopt(slot, parent, operation.name)
        self.inodes.changed[slot] = self.time_ns
        return AttributesReply(self.attributes(slot))

    def _purge_trash(self, operation: op.PurgeTrash) -> ReplyBody:
        for inode_id in operation.inodes:
            slot = self._slot(inode_id)
            del self.trash[slot]
            self._drop_link(slot, 0)
        return Count(len(operation.inodes))

    def _reclaim(self, operation: op.Reclaim) -> ReplyBody:
        """Depth first, so that the list of doomed directories stays short."""
        left = operation.entries
        while left and self.doomed:
            directory_slot = self.doomed[-1]
            directory = self.inodes.directories[directory_slot]
            page = directory.page(b"", left)
            for name, slot in page:
                directory.remove(name)
                self._note_name(directory_slot, name)
                self._sum.add(-self._hash_entry(directory_slot, name, slot))
                self._drop_link(slot, directory_slot)
                left -= 1
                if self.doomed[-1] != directory_slot:
                    break
            if not directory:
                self.doomed.remove(directory_slot)
                self._free_inode(directory_slot)
        return _DONE
