"""The state machine: what the operation log makes of nothing.

``State.apply`` is the one transition function. The leader, the standby, a restart and a verification run it, so it is
deterministic: no clock, no randomness, no I/O, no logging. Whatever a record needs was chosen when it was planned. The
planner has checked everything, so any surprise here is divergence and stops the node (``StateDiverged``).

What is not here: where replicas are (chunk servers are the truth about that, GFS §2.6.1), leases, liveness.
"""

import stat
from collections.abc import Callable
from typing import Any, Final

from gfsmaster import operations as op
from gfsmaster.directory import Directory
from gfsmaster.objects import Objects, Trashed
from gfsprotocol.errors import StateDiverged, UnsupportedFormat
from gfsprotocol.ids import ROOT_INODE
from gfsprotocol.messages import AttributesReply, Count, Done, Removed, ReplyBody, TrashReply

_DONE: Final = Done()


def _removed_nothing(holder: bytes) -> ReplyBody:
    return Removed(0, held=False) if holder else _DONE


class State(Objects):
    """The objects, and what each record does to them."""

    def __init__(self) -> None:
        super().__init__()
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

    def _close_client(self, operation: op.CloseClient) -> ReplyBody:
        for slot in self.writers.files_of(operation.client):
            while self.writers.has(slot, operation.client):
                self.writers.close(slot, operation.client)
            self._closed(slot, operation.frees_unused)
        return _DONE

    def _add_chunk(self, operation: op.AddChunk) -> ReplyBody:
        self._new_chunk(self._slot(operation.inode), operation.index, operation.chunk)
        return Count(operation.chunk)

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
