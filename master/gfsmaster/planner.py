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
from gfsmaster.namespace import READ, SEARCH, WRITE, Namespace, Place, User, shown
from gfsmaster.state import ROOT_SLOT, State
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    AlreadyExists,
    ConditionFailed,
    DirectoryNotEmpty,
    FileTooLarge,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoSuchAttribute,
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
    XATTR_NAME_BYTES_MAX,
    XATTR_VALUE_BYTES_MAX,
)

LINKS_MAX: Final = 65_000
SUBTREE_CHECK_ENTRIES_MAX: Final = 100_000
TRASH_SECONDS_MAX: Final = 10 * 366 * 86_400
XATTRS_PER_INODE_MAX: Final = 100

TIMES_NS: Final = range(-(2**63), 2**63)
IDS: Final = range(2**32 - 1)
"""User and group ids; the largest 32-bit number means "no change" to chown(2)."""
GROUPS_MAX: Final = 1024

Operations = tuple[op.AnyOperation, ...]
Plan = Operations | msg.ReplyBody
"""What to log, or what to answer at once because nothing changes."""


def check_user(user: User) -> None:
    """InvalidArgument unless it is a uid, a gid and a bounded number of further groups."""
    if not 2 <= len(user) <= GROUPS_MAX or any(number not in IDS for number in user):
        raise InvalidArgument("a request's user is a uid, a gid and supplementary groups, all of them 32-bit numbers")


def check_times(*times: int | None) -> None:
    """InvalidArgument for a time that does not fit 64 bits of nanoseconds (years 1677 to 2262)."""
    if any(time is not None and time not in TIMES_NS for time in times):
        raise InvalidArgument("a time lies outside the years 1677 to 2262")


class Planner:
    """Plans namespace changes for requests of clients. ``now_ns`` is the leader's clock."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._inodes = state.inodes
        self.namespace = Namespace(state)
        self._planners: dict[type, Callable[[Any, User, bytes, int], Plan]] = {
            msg.Mkdir: self._mkdir,
            msg.Create: self._create,
            msg.OpenForWrite: self._open_for_write,
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
            msg.SetAttributes: self._set_attributes,
            msg.SetReplication: self._set_replication,
            msg.SetXattr: self._set_xattr,
            msg.RemoveXattr: self._remove_xattr,
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

    def _new_place(self, user: User, base: int, path: bytes, follow: bool = False) -> Place:
        """A place where a new name may be put: it does not exist, and the user may write there."""
        place = self.namespace.walk(user, base, path, follow)
        if place.slot:
            raise AlreadyExists(f"{shown(path)}: file exists")
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
        """(mode, uid, gid) of a new inode: a setgid directory passes its group on, and to directories the bit."""
        uid, gid = (user[0], user[1]) if user else (0, 0)
        mode &= 0o7777
        if self._inodes.mode[parent] & stat.S_ISGID:
            gid = self.namespace.owner(parent)[1]
            if is_directory:
                mode |= stat.S_ISGID
        return mode, uid, gid

    def _mkdir(self, body: msg.Mkdir, user: User, _client: bytes, _now_ns: int) -> Plan:
        if not body.parents:
            place = self._new_place(user, body.base, body.path)
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
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"{shown(path)}: not a regular file")
        operations: list[op.AnyOperation] = []
        if writer or truncate:
            self.namespace.require(slot, user, WRITE, path)
        inode = self._inodes.ids[slot]
        if truncate and (self._inodes.size[slot] or self._inodes.chunk_count(slot)):
            operations.append(op.ChangeAttributes(inode, size=0))
        if writer:
            operations.append(op.OpenWriter(inode, writer))
        return tuple(operations) or msg.AttributesReply(self._state.attributes(slot))

    def _open_for_write(self, body: msg.OpenForWrite, user: User, client: bytes, _now_ns: int) -> Plan:
        slot = self.namespace.find(user, body.base, body.path, body.follow)
        return self._open_existing(slot, body.path, user, client, body.truncate)

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
        if slot in self._inodes.directories:
            raise NotPermitted(f"{shown(body.path)}: a directory cannot have a second name")
        if self._inodes.links[slot] >= LINKS_MAX:
            raise TooManyLinks(f"{shown(body.path)}: too many links")
        if slot in self._state.trash or not self._inodes.links[slot]:
            raise NotFound(f"{shown(body.path)}: the file was removed")
        place = self._new_place(user, body.target_base, body.target)
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

    def _lengths(self, body: msg.Close | msg.RecordLength, slot: int, now_ns: int, modified_ns: int) -> Operations:
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
        return (op.RecordLengths(self._inodes.ids[slot], body.chunks, max(size, 0), modified_ns or now_ns),)

    def _close(self, body: msg.Close, _user: User, client: bytes, now_ns: int) -> Plan:
        check_times(body.modified_ns)
        slot = self.namespace.base(body.inode)
        if not self._state.writers.has(slot, client):
            raise StaleHandle(f"inode {body.inode} is not open for this client (any more)")
        return (*self._lengths(body, slot, now_ns, body.modified_ns), op.CloseWriter(body.inode, client))

    def _record_length(self, body: msg.RecordLength, user: User, client: bytes, now_ns: int) -> Plan:
        slot = self.namespace.base(body.inode)
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"inode {body.inode} is not a regular file")
        if not self._state.writers.has(slot, client):
            self.namespace.require(slot, user, WRITE, b"")
        return self._lengths(body, slot, now_ns, 0) or msg.AttributesReply(self._state.attributes(slot))

    # ----------------------------------------------------------------------------------------- moving and removing

    def _named(self, user: User, base: int, path: bytes) -> Place:
        """The place of an existing name that may be taken away."""
        place = self.namespace.walk(user, base, path, follow=False)
        if not place.slot:
            raise NotFound(f"{shown(path)}: no such file or directory")
        last = path.rstrip(b"/").rpartition(b"/")[2]
        # A symbolic link that a trailing slash makes us follow may end at "." or ".." although the path does not.
        if place.slot == ROOT_SLOT or last in (b"", b".", b"..") or place.name in (b"", b".."):
            raise InvalidArgument(f"{shown(path)}: the root and '.' and '..' cannot be moved or removed")
        if not self._inodes.links[place.parent]:
            raise NotFound(f"{shown(path)}: the directory was removed")
        self.namespace.require_change(place, user, path)
        return place

    def _rename(self, body: msg.Rename, user: User, _client: bytes, _now_ns: int) -> Plan:
        place = self._named(user, body.base, body.path)
        target = self.namespace.walk(user, body.target_base, body.target, follow=False)
        if b"\0" in target.name or target.name in (b"", b".."):
            raise InvalidArgument(f"{shown(body.target)}: not a name that a file can be moved to")
        if not self._inodes.links[target.parent]:
            raise NotFound(f"{shown(body.target)}: the directory was removed")
        self.namespace.require_change(target, user, body.target)
        ids = self._inodes.ids
        names = (ids[place.parent], place.name, ids[target.parent], target.name)
        self._check_directory_move(place, target, user, body)
        self._check_expected(target.slot, body.expected, body.target)
        if body.exchange:
            if not target.slot:
                raise NotFound(f"{shown(body.target)}: no such file or directory")
            self._check_directory_move(target, place, user, body)
            return (op.Exchange(*names),) if place.slot != target.slot else msg.Done()
        if target.slot:
            if body.no_replace:
                raise AlreadyExists(f"{shown(body.target)}: file exists")
            if target.slot == place.slot:
                return msg.Done()
            self._check_replaced(place.slot, target.slot, body.target)
        elif body.target.endswith(b"/") and place.slot not in self._inodes.directories:
            raise NotADirectory(f"{shown(body.target)}: not a directory")
        return (op.Move(*names),)

    def _check_directory_move(self, place: Place, target: Place, user: User, body: msg.Rename) -> None:
        if place.slot not in self._inodes.directories or place.parent == target.parent:
            return
        if self.namespace.contains(place.slot, target.parent):
            raise InvalidArgument(f"{shown(body.path)}: a directory cannot be moved into itself")
        self.namespace.require(place.slot, user, WRITE, body.path)

    def _check_replaced(self, slot: int, replaced: int, path: bytes) -> None:
        directories = self._inodes.directories
        if slot in directories and replaced not in directories:
            raise NotADirectory(f"{shown(path)}: not a directory")
        if replaced in directories:
            if slot not in directories:
                raise IsADirectory(f"{shown(path)}: is a directory")
            if directories[replaced]:
                raise DirectoryNotEmpty(f"{shown(path)}: directory not empty")

    def _unlink(self, body: msg.Unlink, user: User, _client: bytes, _now_ns: int) -> Plan:
        place = self._named(user, body.base, body.path)
        if place.slot in self._inodes.directories:
            raise IsADirectory(f"{shown(body.path)}: is a directory")
        self._check_expected(place.slot, body.expected, body.path)
        return (op.RemoveName(self._inodes.ids[place.parent], place.name),)

    def _rmdir(self, body: msg.Rmdir, user: User, _client: bytes, _now_ns: int) -> Plan:
        place = self._named(user, body.base, body.path)
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

    # -------------------------------------------------------------------------------------------------- attributes

    def _set_attributes(self, body: msg.SetAttributes, user: User, _client: bytes, now_ns: int) -> Plan:
        check_times(body.accessed_ns, body.modified_ns)
        slot = self.namespace.find(user, body.base, body.path, body.follow)
        mode = self._new_mode(slot, body, user)
        if body.size is not None:
            self._check_size(slot, body, user)
        if (body.accessed_ns, body.modified_ns) != (None, None) and not self.namespace.is_owner(slot, user):
            explicit = [time for time in (body.accessed_ns, body.modified_ns) if time is not None and time != -1]
            if explicit:
                raise NotPermitted(f"{shown(body.path)}: only its owner may set times")
            self.namespace.require(slot, user, WRITE, body.path)
        change = op.ChangeAttributes(
            self._inodes.ids[slot],
            mode,
            body.uid,
            body.gid,
            now_ns if body.accessed_ns == -1 else body.accessed_ns,
            now_ns if body.modified_ns == -1 else body.modified_ns,
            body.size,
        )
        return (change,)

    def _new_mode(self, slot: int, body: msg.SetAttributes, user: User) -> int | None:
        """The permission bits after chmod, chown or truncate, with setuid and setgid dropped as POSIX asks."""
        current = stat.S_IMODE(self._inodes.mode[slot])
        mode = current
        is_root = not user or not user[0]
        gid = self.namespace.owner(slot)[1]
        if body.uid is not None or body.gid is not None:
            self._check_owner_change(slot, body, user)
            if slot not in self._inodes.directories and not (is_root and body.mode is not None):
                mode &= ~stat.S_ISUID
                if mode & stat.S_IXGRP:
                    mode &= ~stat.S_ISGID
        if body.size is not None and not is_root:
            mode &= ~stat.S_ISUID
        if body.mode is not None:
            if not self.namespace.is_owner(slot, user):
                raise NotPermitted(f"{shown(body.path)}: only its owner may change the mode")
            mode = body.mode & 0o7777
            group = gid if body.gid is None else body.gid
            if not is_root and group not in user[1:] and slot not in self._inodes.directories:
                mode &= ~stat.S_ISGID
        return mode if body.mode is not None or mode != current else None

    def _check_owner_change(self, slot: int, body: msg.SetAttributes, user: User) -> None:
        for number in (body.uid, body.gid):
            if number is not None and number not in IDS:
                raise InvalidArgument(f"{number} is not a user or group id")
        if not user or not user[0]:
            return
        uid, gid = self.namespace.owner(slot)
        if user[0] != uid or body.uid not in (None, uid):
            raise NotPermitted(f"{shown(body.path)}: only root may change the owner")
        if body.gid not in (None, gid) and body.gid not in user[1:]:
            raise NotPermitted(f"{shown(body.path)}: not a member of group {body.gid}")

    def _check_size(self, slot: int, body: msg.SetAttributes, user: User) -> None:
        if slot in self._inodes.directories:
            raise IsADirectory(f"{shown(body.path)}: is a directory")
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"{shown(body.path)}: not a regular file")
        if body.size is None or body.size < 0:
            raise InvalidArgument("a size cannot be negative")
        if body.size > FILE_BYTES_MAX:
            raise FileTooLarge(f"a file of {body.size} bytes is larger than the limit of {FILE_BYTES_MAX}")
        self.namespace.require(slot, user, WRITE, body.path)

    def _set_replication(self, body: msg.SetReplication, user: User, _client: bytes, _now_ns: int) -> Plan:
        if not 1 <= body.replication <= REPLICATION_MAX:
            raise InvalidArgument(f"a replication of {body.replication} is not between 1 and {REPLICATION_MAX}")
        slot = self.namespace.find(user, body.base, body.path)
        self.namespace.require(slot, user, WRITE, body.path)
        return (op.ChangeAttributes(self._inodes.ids[slot], replication=body.replication),)

    def _set_xattr(self, body: msg.SetXattr, user: User, _client: bytes, _now_ns: int) -> Plan:
        if not 0 < len(body.name) <= XATTR_NAME_BYTES_MAX or b"\0" in body.name:
            raise InvalidArgument(f"an attribute's name has 1 to {XATTR_NAME_BYTES_MAX} bytes, none of them NUL")
        if len(body.value) > XATTR_VALUE_BYTES_MAX:
            raise InvalidArgument(f"an attribute's value has at most {XATTR_VALUE_BYTES_MAX} bytes")
        slot = self.namespace.find(user, body.base, body.path, body.follow)
        self.require_xattr(slot, user, body.name, WRITE, body.path)
        present = self._inodes.xattrs.get(slot, {})
        if body.create and body.name in present:
            raise AlreadyExists(f"{shown(body.path)}: attribute {shown(body.name)} exists")
        if body.replace and body.name not in present:
            raise NoSuchAttribute(f"{shown(body.path)}: no attribute {shown(body.name)}")
        if body.name not in present and len(present) >= XATTRS_PER_INODE_MAX:
            raise InvalidArgument(f"{shown(body.path)}: more than {XATTRS_PER_INODE_MAX} attributes")
        return (op.PutXattr(self._inodes.ids[slot], body.name, body.value),)

    def _remove_xattr(self, body: msg.RemoveXattr, user: User, _client: bytes, _now_ns: int) -> Plan:
        slot = self.namespace.find(user, body.base, body.path, body.follow)
        self.require_xattr(slot, user, body.name, WRITE, body.path)
        if body.name not in self._inodes.xattrs.get(slot, {}):
            raise NoSuchAttribute(f"{shown(body.path)}: no attribute {shown(body.name)}")
        return (op.DropXattr(self._inodes.ids[slot], body.name),)

    def require_xattr(self, slot: int, user: User, name: bytes, mask: int, path: bytes) -> None:
        """xattr(7): ``user.`` follows the file's permissions, every other namespace is root's to write."""
        if not user or not user[0]:
            return
        if name.startswith(b"user."):
            self.namespace.require(slot, user, mask, path)
        elif mask & WRITE or name.startswith(b"trusted."):
            raise NotPermitted(f"{shown(path)}: only root may use attribute {shown(name)}")

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
        place = self._new_place(user, body.base, path)
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
