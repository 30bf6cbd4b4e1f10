"""Planning: a request becomes operations, or an answer, or a deterministic error. Pure.

The planner checks everything that can be checked and chooses everything that can be chosen, so that applying the
operations can neither fail nor depend on anything but the state (HDFS's FSDir*Op and MooseFS's fs_univ_* separate the
same two steps). One method per request.
"""

import stat
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from gfsmaster import operations as op
from gfsmaster.attributes import IDS, AttributePlanner, check_times
from gfsmaster.namespace import READ, SEARCH, WRITE, Namespace, Place, User, shown
from gfsmaster.objects import ROOT_SLOT
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    AlreadyExists,
    ConditionFailed,
    DirectoryNotEmpty,
    FileTooLarge,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotFound,
    NotPermitted,
    PermissionDenied,
    StaleHandle,
    TooManyLinks,
)
from gfsprotocol.ids import (
    CHUNK_BYTES_MAX,
    CHUNK_BYTES_MIN,
    FILE_BYTES_MAX,
    NAME_BYTES_MAX,
    PATH_BYTES_MAX,
    PURGED_ENTRIES_MAX,
    REPLICATION_MAX,
)

LINKS_MAX: Final = 65_000
SUBTREE_CHECK_ENTRIES_MAX: Final = 100_000
TRASH_SECONDS_MAX: Final = 10 * 366 * 86_400
NODE_KINDS: Final = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)
DEVICES: Final = range(2**64)
GROUPS_MAX: Final = 1024

Plan = op.Operations | msg.ReplyBody
"""What to log, or what to answer at once because nothing changes."""


def check_user(user: User) -> None:
    """InvalidArgument unless it is a uid, a gid and a bounded number of further groups."""
    if not 2 <= len(user) <= GROUPS_MAX or any(number not in IDS for number in user):
        raise InvalidArgument("a request's user is a uid, a gid and supplementary groups, all of them 32-bit numbers")


class Planner:
    """Plans namespace changes for requests of clients. ``now_ns`` is the leader's clock."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._inodes = state.inodes
        self.namespace = Namespace(state)
        self._attributes = AttributePlanner(state, self.namespace)
        self._planners: dict[type, Callable[[Any, User, bytes, int], Plan]] = {
            msg.Mkdir: self._mkdir,
            msg.MakeNode: self._make_node,
            msg.Create: self._create,
            msg.OpenForWrite: self._open_for_write,
            msg.Hold: self._hold,
            msg.Close: self._close,
            msg.RecordLength: self._record_length,
            msg.Publish: self._publish,
            msg.Rename: self._rename,
            msg.Unlink: self._unlink,
            msg.Rmdir: self._rmdir,
            msg.RemoveTree: self._remove_tree,
            msg.MoveToTrash: self._move_to_trash,
            msg.Link: self._link,
            msg.Symlink: self._symlink,
            msg.SetAttributes: self._attributes.set_attributes,
            msg.SetReplication: self._attributes.set_replication,
            msg.SetXattr: self._attributes.set_xattr,
            msg.RemoveXattr: self._attributes.remove_xattr,
            msg.RestoreTrash: self._restore_trash,
            msg.EmptyTrash: self._empty_trash,
        }

    def plans(self, body: msg.RequestBody) -> bool:
        """Whether a request is a namespace change."""
        return type(body) in self._planners

    def plan(self, body: msg.RequestBody, user: User, client: bytes, now_ns: int) -> Plan:
        """The plan for a request. A NamespaceError is its deterministic answer."""
        return self._planners[type(body)](body, user, client, now_ns)

    # --------------------------------------------------------------------------------------------------- creation

    def _new_place(self, user: User, base: int, path: bytes, is_directory: bool = False) -> Place:
        """A place where a new name may be put: it does not exist, and the user may write there."""
        place = self.namespace.walk(user, base, path.rstrip(b"/"), follow=False)
        if place.slot:
            raise AlreadyExists(f"{shown(path)}: file exists")
        if path.endswith(b"/.") or (path.endswith(b"/") and not is_directory):
            raise NotFound(f"{shown(path)}: no such directory")
        self._require_creation(place, user, path)
        return place

    def _require_creation(self, place: Place, user: User, path: bytes) -> None:
        if b"\0" in place.name:
            raise InvalidArgument(f"{shown(path)}: a name cannot contain a NUL byte")
        if place.parent not in self._inodes.directories:
            raise NotADirectory(f"{shown(path)}: not a directory")
        if not self._inodes.links[place.parent]:
            raise NotFound(f"{shown(path)}: the directory was removed")
        self.namespace.require(place.parent, user, WRITE | SEARCH, path)

    def _ownership(self, parent: int, user: User, mode: int, is_directory: bool) -> tuple[int, int, int]:
        """(mode, uid, gid) of a new inode: a setgid directory passes its group on, and to directories the bit.

        What may be executed with the rights of that group is made by its members only.
        """
        uid, gid = (user[0], user[1]) if user else (0, 0)
        mode &= 0o7777
        if self._inodes.mode[parent] & stat.S_ISGID:
            gid = self.namespace.owner(parent)[1]
            if is_directory:
                mode |= stat.S_ISGID
            elif uid and gid not in user[1:] and mode & stat.S_IXGRP:
                mode &= ~stat.S_ISGID
        return mode, uid, gid

    def _mkdir(self, body: msg.Mkdir, user: User, _client: bytes, _now_ns: int) -> Plan:
        if not body.parents:
            place = self._new_place(user, body.base, body.path, is_directory=True)
            return (self._directory_at(place.parent, place.name, body.mode, user, self._inodes.next_id()),)
        return self._mkdir_parents(body, user)

    def _directory_at(self, parent: int, name: bytes, mode: int, user: User, inode: int) -> op.MakeDirectory:
        mode, uid, gid = self._ownership(parent, user, mode, is_directory=True)
        replication, chunk_bytes = self._inodes.layouts.values[self._inodes.layout[parent]]
        return op.MakeDirectory(self._inodes.ids[parent], name, inode, mode, uid, gid, replication, chunk_bytes)

    def _mkdir_parents(self, body: msg.Mkdir, user: User) -> Plan:
        parts = [part for part in body.path.split(b"/") if part and part != b"."]
        if len(body.path) > PATH_BYTES_MAX:
            raise NameTooLong(f"the path is {len(body.path)} bytes long, the limit is {PATH_BYTES_MAX}")
        present = len(parts)
        while not (place := self.namespace.walk_or_none(user, body.base, b"/".join(parts[:present]))):
            present -= 1
        if place not in self._inodes.directories:
            if present == len(parts):
                raise AlreadyExists(f"{shown(body.path)}: file exists")
            raise NotADirectory(f"{shown(b'/'.join(parts[:present]))}: not a directory")
        missing = parts[present:]
        if not missing:
            return msg.AttributesReply(self._state.attributes(place))
        if self._inodes.directories[place].find(missing[0]):
            raise AlreadyExists(f"{shown(body.path)}: {shown(missing[0])} is a symbolic link that leads nowhere")
        ids = self._inodes.next_ids(len(missing))
        operations: list[op.AnyOperation] = []
        for name in missing:
            if name == b"..":
                raise NotFound(f"{shown(body.path)}: '..' after a directory that does not exist")
            self._require_creation(Place(place, name, 0), user, body.path)
            if len(name) > NAME_BYTES_MAX:
                raise NameTooLong(f"a name of {len(name)} bytes is too long, the limit is {NAME_BYTES_MAX}")
        parent = self._inodes.ids[place]
        template = self._directory_at(place, b"", body.mode, user, 0)
        for name, inode in zip(missing, ids, strict=True):
            operations.append(
                op.MakeDirectory(
                    parent,
                    name,
                    inode,
                    template.mode,
                    template.uid,
                    template.gid,
                    template.replication,
                    template.chunk_bytes,
                )
            )
            parent = inode
        return tuple(operations)

    def _create(self, body: msg.Create, user: User, client: bytes, _now_ns: int) -> Plan:
        self._check_layout(body.replication, body.chunk_bytes)
        writer = client if body.open or body.anonymous else b""
        if body.anonymous:
            parent = self.namespace.find(user, body.base, body.path)
            self._require_creation(Place(parent, b"", 0), user, body.path)
            return (self._file_at(parent, b"", body, user, writer),)
        place = self.namespace.walk(user, body.base, body.path, follow=not body.exclusive)
        if not place.slot:
            if body.path.endswith(b"/"):
                raise IsADirectory(f"{shown(body.path)}: a file cannot be made under a name that ends with a slash")
            self._require_creation(place, user, body.path)
            return (self._file_at(place.parent, place.name, body, user, writer),)
        if body.exclusive:
            raise AlreadyExists(f"{shown(body.path)}: file exists")
        return self._open_existing(place.slot, body.path, user, writer, body.truncate)

    def _file_at(self, parent: int, name: bytes, body: msg.Create, user: User, writer: bytes) -> op.MakeFile:
        mode, uid, gid = self._ownership(parent, user, body.mode, is_directory=False)
        replication, chunk_bytes = self._inodes.layouts.values[self._inodes.layout[parent]]
        return op.MakeFile(
            self._inodes.ids[parent],
            name,
            self._inodes.next_id(),
            mode,
            uid,
            gid,
            body.replication or replication,
            body.chunk_bytes or chunk_bytes,
            writer,
        )

    def _check_layout(self, replication: int, chunk_bytes: int) -> None:
        if replication and not 1 <= replication <= REPLICATION_MAX:
            raise InvalidArgument(f"a replication of {replication} is not between 1 and {REPLICATION_MAX}")
        if chunk_bytes and (not CHUNK_BYTES_MIN <= chunk_bytes <= CHUNK_BYTES_MAX or chunk_bytes % CHUNK_BYTES_MIN):
            raise InvalidArgument(
                f"a chunk size of {chunk_bytes} is not a multiple of {CHUNK_BYTES_MIN} up to {CHUNK_BYTES_MAX}"
            )

    def _open_existing(self, slot: int, path: bytes, user: User, writer: bytes, truncate: bool) -> Plan:
        if slot in self._inodes.directories:
            raise IsADirectory(f"{shown(path)}: is a directory")
        if writer or truncate:
            self.namespace.require(slot, user, WRITE, path)
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"{shown(path)}: not a regular file")
        operations: list[op.AnyOperation] = []
        inode = self._inodes.ids[slot]
        if truncate:
            operations.append(op.ChangeAttributes(inode, self._attributes.mode_written_by(slot, user), size=0))
        if writer:
            operations.append(op.OpenWriter(inode, writer))
        return tuple(operations) or msg.AttributesReply(self._state.attributes(slot))

    def _open_for_write(self, body: msg.OpenForWrite, user: User, client: bytes, _now_ns: int) -> Plan:
        slot = self.namespace.find(user, body.base, body.path, body.follow)
        return self._open_existing(slot, body.path, user, client, body.truncate)

    def _hold(self, body: msg.Hold, _user: User, client: bytes, _now_ns: int) -> Plan:
        slot = self.namespace.base(body.inode)
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"inode {body.inode} is not a regular file")
        return (op.OpenWriter(body.inode, client),)

    def _make_node(self, body: msg.MakeNode, user: User, _client: bytes, _now_ns: int) -> Plan:
        kind = stat.S_IFMT(body.mode)
        if kind not in NODE_KINDS:
            raise InvalidArgument(f"{shown(body.path)}: a node is a fifo, a socket or a device")
        if body.device not in DEVICES:
            raise InvalidArgument(f"{body.device} is not a device number")
        place = self._new_place(user, body.base, body.path)
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        if is_device and user and user[0]:
            raise NotPermitted(f"{shown(body.path)}: only root may make devices")
        mode, uid, gid = self._ownership(place.parent, user, body.mode, is_directory=False)
        parent, device = self._inodes.ids[place.parent], body.device if is_device else 0
        return (op.MakeNode(parent, place.name, self._inodes.next_id(), kind | mode, uid, gid, device),)

    def _symlink(self, body: msg.Symlink, user: User, _client: bytes, _now_ns: int) -> Plan:
        if not body.target or b"\0" in body.target:
            raise InvalidArgument("a symbolic link's target cannot be empty or contain a NUL byte")
        if len(body.target) >= PATH_BYTES_MAX:
            raise NameTooLong(f"a symbolic link's target of {len(body.target)} bytes is too long")
        place = self._new_place(user, body.base, body.path)
        _, uid, gid = self._ownership(place.parent, user, 0o777, is_directory=False)
        parent = self._inodes.ids[place.parent]
        return (op.MakeSymlink(parent, place.name, self._inodes.next_id(), body.target, uid, gid),)

    def _link(self, body: msg.Link, user: User, _client: bytes, _now_ns: int) -> Plan:
        slot = self.namespace.find(user, body.base, body.path, follow=False)
        place = self._new_place(user, body.target_base, body.target)
        if slot in self._inodes.directories:
            raise NotPermitted(f"{shown(body.path)}: a directory cannot have a second name")
        if slot in self._state.trash or not self._inodes.links[slot]:
            raise NotFound(f"{shown(body.path)}: the file was removed")
        if self._inodes.links[slot] >= LINKS_MAX:
            raise TooManyLinks(f"{shown(body.path)}: too many links")
        return (op.MakeLink(self._inodes.ids[place.parent], place.name, self._inodes.ids[slot]),)

    def _publish(self, body: msg.Publish, user: User, client: bytes, _now_ns: int) -> Plan:
        slot = self.namespace.base(body.inode)
        if self._inodes.links[slot] or not self._state.writers.has(slot, client):
            raise InvalidArgument(f"inode {body.inode} is not an anonymous file of this client")
        place = self.namespace.walk(user, body.base, body.path, follow=False)
        self._require_creation(place, user, body.path)
        link = op.MakeLink(self._inodes.ids[place.parent], place.name, body.inode)
        self._check_expected(place.slot, body.expected, body.path)
        if not place.slot:
            return (link,)
        if not body.replace:
            raise AlreadyExists(f"{shown(body.path)}: file exists")
        if place.slot in self._inodes.directories:
            raise IsADirectory(f"{shown(body.path)}: is a directory")
        self.namespace.require_change(place, user, body.path)
        return (op.RemoveName(self._inodes.ids[place.parent], place.name), link)

    def _check_expected(self, slot: int, expected: msg.FileVersion | None, path: bytes) -> None:
        """ConditionFailed unless the inode is as a conditional request wants it."""
        if expected is None:
            return
        found = self._state.attributes(slot) if slot else None
        if found is None or msg.FileVersion(found.inode, found.size, found.changed_ns) != expected:
            raise ConditionFailed(f"{shown(path)}: the file was changed, replaced or removed meanwhile")

    # ------------------------------------------------------------------------------------------------ lengths, end

    def _lengths(
        self, body: msg.Close | msg.RecordLength, slot: int, user: User, now_ns: int, modified_ns: int
    ) -> op.Operations:
        """Recorded lengths, checked against what the file has now."""
        chunk_bytes = self._inodes.chunk_bytes(slot)
        size = body.size
        for recorded in body.chunks:
            chunk = self._state.chunks.slot_of(recorded.chunk)
            if not chunk or self._inodes.chunk_at(slot, recorded.index) != chunk:
                raise StaleHandle(f"chunk {recorded.chunk} is no longer part of the file: it was truncated meanwhile")
            if recorded.length > self._state.chunks.cuts.get(chunk, chunk_bytes):
                raise StaleHandle(f"chunk {recorded.chunk} was truncated after its length was acknowledged")
            if not 0 <= recorded.length <= chunk_bytes:
                raise InvalidArgument(f"a chunk cannot be {recorded.length} bytes long")
            size = max(size, recorded.index * chunk_bytes + recorded.length)
        if size > FILE_BYTES_MAX:
            raise FileTooLarge(f"a file of {size} bytes is larger than the limit of {FILE_BYTES_MAX}")
        if not body.chunks and size < 0:
            return ()
        inode = self._inodes.ids[slot]
        recording = op.RecordLengths(inode, body.chunks, max(size, 0), modified_ns or now_ns)
        mode = self._attributes.mode_written_by(slot, user)
        return (recording,) if mode is None else (op.ChangeAttributes(inode, mode), recording)

    def _close(self, body: msg.Close, user: User, client: bytes, now_ns: int) -> Plan:
        check_times(body.modified_ns)
        slot = self.namespace.base(body.inode)
        if not self._state.writers.has(slot, client):
            raise StaleHandle(f"inode {body.inode} is not open for this client (any more)")
        return (
            *self._lengths(body, slot, user, now_ns, body.modified_ns),
            op.CloseWriter(body.inode, client, frees_unused=True),
        )

    def _record_length(self, body: msg.RecordLength, user: User, client: bytes, now_ns: int) -> Plan:
        slot = self.namespace.base(body.inode)
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"inode {body.inode} is not a regular file")
        if not self._state.writers.has(slot, client):
            self.namespace.require(slot, user, WRITE, b"")
        return self._lengths(body, slot, user, now_ns, 0) or msg.AttributesReply(self._state.attributes(slot))

    # ----------------------------------------------------------------------------------------- moving and removing

    def _named(self, user: User, base: int, path: bytes) -> Place:
        """The place of an existing name that may be taken away."""
        place = self._existing(user, base, path)
        self.namespace.require_change(place, user, path)
        return place

    def _existing(self, user: User, base: int, path: bytes) -> Place:
        """The place of an existing name; InvalidArgument for one that nobody can take away.

        A slash at the end does not follow a symbolic link here, but says that a directory is meant.
        """
        name = path.rstrip(b"/")
        place = self.namespace.walk(user, base, name, follow=False)
        if not place.slot:
            raise NotFound(f"{shown(path)}: no such file or directory")
        if place.slot == ROOT_SLOT or name.rpartition(b"/")[2] in (b"", b".", b".."):
            raise InvalidArgument(f"{shown(path)}: the root and '.' and '..' cannot be moved or removed")
        if not self._inodes.links[place.parent]:
            raise NotFound(f"{shown(path)}: the directory was removed")
        if name != path and place.slot not in self._inodes.directories:
            raise NotADirectory(f"{shown(path)}: not a directory")
        return place

    def _rename(self, body: msg.Rename, user: User, client: bytes, _now_ns: int) -> Plan:
        """In the order in which Linux's vfs_rename asks: a test compares which error comes first."""
        place = self._existing(user, body.base, body.path.rstrip(b"/"))
        target = self.namespace.walk(user, body.target_base, body.target.rstrip(b"/"), follow=False)
        if b"\0" in target.name or target.name in (b"", b".."):
            raise InvalidArgument(f"{shown(body.target)}: not a name that a file can be moved to")
        if not self._inodes.links[target.parent]:
            raise NotFound(f"{shown(body.target)}: the directory was removed")
        if body.no_replace and target.slot:
            raise AlreadyExists(f"{shown(body.target)}: file exists")
        if body.exchange and not target.slot:
            raise NotFound(f"{shown(body.target)}: no such file or directory")
        self._check_ancestors(place, target, body)
        if target.slot == place.slot:
            return msg.Removed(0, held=False) if body.hold else msg.Done()
        self.namespace.require_change(place, user, body.path)
        self.namespace.require_change(target, user, body.target)
        if target.slot and not body.exchange:
            self._check_kinds(place.slot, target.slot, body.target)
        self._require_new_parent(place, target, user, body.path)
        ids = self._inodes.ids
        names = (ids[place.parent], place.name, ids[target.parent], target.name, client if body.hold else b"")
        self._check_expected(target.slot, body.expected, body.target)
        if body.exchange:
            self._require_new_parent(target, place, user, body.target)
            return (op.Exchange(*names),)
        if target.slot and self._inodes.directories.get(target.slot):
            raise DirectoryNotEmpty(f"{shown(body.target)}: directory not empty")
        return (op.Move(*names),)

    def _check_ancestors(self, place: Place, target: Place, body: msg.Rename) -> None:
        """A directory cannot go into itself, nor take the place of one that it is in."""
        is_directory = place.slot in self._inodes.directories
        if body.path.endswith(b"/") and not is_directory:
            raise NotADirectory(f"{shown(body.path)}: not a directory")
        must_be_one = target.slot in self._inodes.directories if body.exchange else is_directory
        if body.target.endswith(b"/") and not must_be_one:
            raise NotADirectory(f"{shown(body.target)}: not a directory")
        if is_directory and self.namespace.contains(place.slot, target.parent):
            raise InvalidArgument(f"{shown(body.path)}: a directory cannot be moved into itself")
        if target.slot in self._inodes.directories and self.namespace.contains(target.slot, place.parent):
            if body.exchange:
                raise InvalidArgument(f"{shown(body.target)}: a directory cannot be moved into itself")
            raise DirectoryNotEmpty(f"{shown(body.target)}: directory not empty")

    def _require_new_parent(self, place: Place, target: Place, user: User, path: bytes) -> None:
        """A directory that gets another parent is written to: its ``..`` changes."""
        if place.slot in self._inodes.directories and place.parent != target.parent:
            self.namespace.require(place.slot, user, WRITE, path)

    def _check_kinds(self, slot: int, replaced: int, path: bytes) -> None:
        directories = self._inodes.directories
        if slot in directories and replaced not in directories:
            raise NotADirectory(f"{shown(path)}: not a directory")
        if replaced in directories and slot not in directories:
            raise IsADirectory(f"{shown(path)}: is a directory")

    def _unlink(self, body: msg.Unlink, user: User, client: bytes, _now_ns: int) -> Plan:
        place = self._named(user, body.base, body.path)
        if place.slot in self._inodes.directories:
            raise IsADirectory(f"{shown(body.path)}: is a directory")
        self._check_expected(place.slot, body.expected, body.path)
        holder = client if body.hold else b""
        return (op.RemoveName(self._inodes.ids[place.parent], place.name, holder),)

    def _rmdir(self, body: msg.Rmdir, user: User, _client: bytes, _now_ns: int) -> Plan:
        place = self._named(user, body.base, body.path.rstrip(b"/"))
        directory = self._inodes.directories.get(place.slot)
        if directory is None:
            raise NotADirectory(f"{shown(body.path)}: not a directory")
        if directory:
            raise DirectoryNotEmpty(f"{shown(body.path)}: directory not empty")
        return (op.RemoveName(self._inodes.ids[place.parent], place.name),)

    def _remove_tree(self, body: msg.RemoveTree, user: User, _client: bytes, _now_ns: int) -> Plan:
        place = self._named(user, body.base, body.path)
        self._check_subtree(place.slot, user, body.path)
        return (op.RemoveName(self._inodes.ids[place.parent], place.name),)

    def _check_subtree(self, slot: int, user: User, path: bytes) -> None:
        """Whoever removes a tree must have the right to remove all that is in it. Root is not asked."""
        if not user or not user[0]:
            return
        seen = 0
        waiting = [slot]
        while waiting:
            directory_slot = waiting.pop()
            directory = self._inodes.directories.get(directory_slot)
            if not directory:
                continue
            self.namespace.require(directory_slot, user, READ | WRITE | SEARCH, path)
            seen += len(directory)
            if seen > SUBTREE_CHECK_ENTRIES_MAX:
                raise NotPermitted(
                    f"{shown(path)}: more than {SUBTREE_CHECK_ENTRIES_MAX} entries, too many to check permissions "
                    "at once: remove its parts, or remove it as root"
                )
            sticky = self._inodes.mode[directory_slot] & stat.S_ISVTX and not self.namespace.is_owner(
                directory_slot, user
            )
            for _, child in directory:
                if sticky and not self.namespace.is_owner(child, user):
                    raise NotPermitted(f"{shown(path)}: it holds others' files in a sticky directory")
                if child in self._inodes.directories:
                    waiting.append(child)

    def _move_to_trash(self, body: msg.MoveToTrash, user: User, _client: bytes, now_ns: int) -> Plan:
        if not 0 < body.keep_seconds <= TRASH_SECONDS_MAX:
            raise InvalidArgument(f"the trash keeps things between 1 and {TRASH_SECONDS_MAX} seconds")
        place = self._named(user, body.base, body.path)
        self._check_subtree(place.slot, user, body.path)
        parent = self._inodes.ids[place.parent]
        if place.slot in self._state.trash:
            raise NotPermitted(
                f"{shown(body.path)}: another name of this file is in the trash; restore or empty that first"
            )
        path = self._inodes.path_of(place.parent).rstrip(b"/") + b"/" + place.name
        expires_ns = now_ns + body.keep_seconds * 10**9
        return (op.TrashName(parent, place.name, path, user[0] if user else 0, expires_ns),)

    # ------------------------------------------------------------------------------------------------------- trash

    def _trashed(self, inode: int, user: User) -> int:
        slot = self._inodes.slot_of(inode)
        if not slot or slot not in self._state.trash:
            raise NotFound(f"nothing in the trash has the number {inode}")
        if user and user[0] and self._state.trash[slot].uid != user[0]:
            raise PermissionDenied(f"number {inode} in the trash is another user's")
        return slot

    def _restore_trash(self, body: msg.RestoreTrash, user: User, _client: bytes, _now_ns: int) -> Plan:
        slot = self._trashed(body.inode, user)
        path = body.path or self._state.trash[slot].path
        place = self._new_place(user, body.base, path, slot in self._inodes.directories)
        if self.namespace.contains(slot, place.parent):
            raise InvalidArgument(f"{shown(path)}: a directory cannot be put back into itself")
        return (op.RestoreTrashed(body.inode, self._inodes.ids[place.parent], place.name),)

    def _empty_trash(self, body: msg.EmptyTrash, user: User, _client: bytes, _now_ns: int) -> Plan:
        if len(body.inodes) > PURGED_ENTRIES_MAX:
            raise InvalidArgument(f"{len(body.inodes)} entries at once: {PURGED_ENTRIES_MAX} can be removed")
        if body.inodes:
            inodes = tuple(self._inodes.ids[self._trashed(inode, user)] for inode in dict.fromkeys(body.inodes))
        else:
            uid = user[0] if user else 0
            owned = (slot for slot, item in self._state.trash.items() if not uid or item.uid == uid)
            inodes = tuple(self._inodes.ids[slot] for slot in islice(owned, PURGED_ENTRIES_MAX))
        return (op.PurgeTrash(inodes),) if inodes else msg.Count(0)
