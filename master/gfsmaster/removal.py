"""Planning what moves names or takes them away: renaming, removal, the trash. Pure."""

import stat
from itertools import islice
from typing import Final

from gfsmaster import operations as op
from gfsmaster.namespace import READ, SEARCH, WRITE, Namespace, Place, User, shown
from gfsmaster.places import Places, Plan
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    AlreadyExists,
    DirectoryNotEmpty,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotFound,
    NotPermitted,
    PermissionDenied,
)
from gfsprotocol.ids import PURGED_ENTRIES_MAX

SUBTREE_CHECK_ENTRIES_MAX: Final = 100_000
TRASH_SECONDS_MAX: Final = 10 * 366 * 86_400


class RemovalPlanner:
    """Plans Rename, Unlink, Rmdir, RemoveTree, MoveToTrash, RestoreTrash and EmptyTrash."""

    def __init__(self, state: State, namespace: Namespace, places: Places) -> None:
        self._state = state
        self._inodes = state.inodes
        self._namespace = namespace
        self._places = places

    # ----------------------------------------------------------------------------------------------------- renaming

    def rename(self, body: msg.Rename, user: User, client: bytes, _now_ns: int) -> Plan:
        """In the order in which Linux's vfs_rename asks: a test compares which error comes first."""
        place = self._places.existing(user, body.base, body.path.rstrip(b"/"))
        target = self._namespace.walk(user, body.target_base, body.target.rstrip(b"/"), follow=False)
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
        self._namespace.require_change(place, user, body.path)
        self._namespace.require_change(target, user, body.target)
        if target.slot and not body.exchange:
            self._check_kinds(place.slot, target.slot, body.target)
        self._require_new_parent(place, target, user, body.path)
        ids = self._inodes.ids
        names = (ids[place.parent], place.name, ids[target.parent], target.name, client if body.hold else b"")
        self._places.check_expected(target.slot, body.expected, body.target)
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
        if is_directory and self._namespace.contains(place.slot, target.parent):
            raise InvalidArgument(f"{shown(body.path)}: a directory cannot be moved into itself")
        if target.slot in self._inodes.directories and self._namespace.contains(target.slot, place.parent):
            if body.exchange:
                raise InvalidArgument(f"{shown(body.target)}: a directory cannot be moved into itself")
            raise DirectoryNotEmpty(f"{shown(body.target)}: directory not empty")

    def _require_new_parent(self, place: Place, target: Place, user: User, path: bytes) -> None:
        """A directory that gets another parent is written to: its ``..`` changes."""
        if place.slot in self._inodes.directories and place.parent != target.parent:
            self._namespace.require(place.slot, user, WRITE, path)

    def _check_kinds(self, slot: int, replaced: int, path: bytes) -> None:
        directories = self._inodes.directories
        if slot in directories and replaced not in directories:
            raise NotADirectory(f"{shown(path)}: not a directory")
        if replaced in directories and slot not in directories:
            raise IsADirectory(f"{shown(path)}: is a directory")

    # ----------------------------------------------------------------------------------------------------- removing

    def unlink(self, body: msg.Unlink, user: User, client: bytes, _now_ns: int) -> Plan:
        place = self._places.removable(user, body.base, body.path)
        if place.slot in self._inodes.directories:
            raise IsADirectory(f"{shown(body.path)}: is a directory")
        self._places.check_expected(place.slot, body.expected, body.path)
        holder = client if body.hold else b""
        return (op.RemoveName(self._inodes.ids[place.parent], place.name, holder),)

    def rmdir(self, body: msg.Rmdir, user: User, _client: bytes, _now_ns: int) -> Plan:
        place = self._places.removable(user, body.base, body.path.rstrip(b"/"))
        directory = self._inodes.directories.get(place.slot)
        if directory is None:
            raise NotADirectory(f"{shown(body.path)}: not a directory")
        if directory:
            raise DirectoryNotEmpty(f"{shown(body.path)}: directory not empty")
        return (op.RemoveName(self._inodes.ids[place.parent], place.name),)

    def remove_tree(self, body: msg.RemoveTree, user: User, _client: bytes, _now_ns: int) -> Plan:
        place = self._places.removable(user, body.base, body.path)
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
            self._namespace.require(directory_slot, user, READ | WRITE | SEARCH, path)
            seen += len(directory)
            if seen > SUBTREE_CHECK_ENTRIES_MAX:
                raise NotPermitted(
                    f"{shown(path)}: more than {SUBTREE_CHECK_ENTRIES_MAX} entries, too many to check permissions "
                    "at once: remove its parts, or remove it as root"
                )
            sticky = self._inodes.mode[directory_slot] & stat.S_ISVTX and not self._namespace.is_owner(
                directory_slot, user
            )
            for _, child in directory:
                if sticky and not self._namespace.is_owner(child, user):
                    raise NotPermitted(f"{shown(path)}: it holds others' files in a sticky directory")
                if child in self._inodes.directories:
                    waiting.append(child)

    # ---------------------------------------------------------------------------------------------------- the trash

    def move_to_trash(self, body: msg.MoveToTrash, user: User, _client: bytes, now_ns: int) -> Plan:
        if not 0 < body.keep_seconds <= TRASH_SECONDS_MAX:
            raise InvalidArgument(f"the trash keeps things between 1 and {TRASH_SECONDS_MAX} seconds")
        place = self._places.removable(user, body.base, body.path)
        self._check_subtree(place.slot, user, body.path)
        parent = self._inodes.ids[place.parent]
        if place.slot in self._state.trash:
            raise NotPermitted(
                f"{shown(body.path)}: another name of this file is in the trash; restore or empty that first"
            )
        path = self._inodes.path_of(place.parent).rstrip(b"/") + b"/" + place.name
        expires_ns = now_ns + body.keep_seconds * 10**9
        return (op.TrashName(parent, place.name, path, user[0] if user else 0, expires_ns),)

    def _trashed(self, inode: int, user: User) -> int:
        slot = self._inodes.slot_of(inode)
        if not slot or slot not in self._state.trash:
            raise NotFound(f"nothing in the trash has the number {inode}")
        if user and user[0] and self._state.trash[slot].uid != user[0]:
            raise PermissionDenied(f"number {inode} in the trash is another user's")
        return slot

    def restore_trash(self, body: msg.RestoreTrash, user: User, _client: bytes, _now_ns: int) -> Plan:
        slot = self._trashed(body.inode, user)
        path = body.path or self._state.trash[slot].path
        place = self._places.new_place(user, body.base, path, slot in self._inodes.directories)
        if self._namespace.contains(slot, place.parent):
            raise InvalidArgument(f"{shown(path)}: a directory cannot be put back into itself")
        return (op.RestoreTrashed(body.inode, self._inodes.ids[place.parent], place.name),)

    def empty_trash(self, body: msg.EmptyTrash, user: User, _client: bytes, _now_ns: int) -> Plan:
        if len(body.inodes) > PURGED_ENTRIES_MAX:
            raise InvalidArgument(f"{len(body.inodes)} entries at once: {PURGED_ENTRIES_MAX} can be removed")
        if body.inodes:
            inodes = tuple(self._inodes.ids[self._trashed(inode, user)] for inode in dict.fromkeys(body.inodes))
        else:
            uid = user[0] if user else 0
            owned = (slot for slot, item in self._state.trash.items() if not uid or item.uid == uid)
            inodes = tuple(self._inodes.ids[slot] for slot in islice(owned, PURGED_ENTRIES_MAX))
        return (op.PurgeTrash(inodes),) if inodes else msg.Count(0)
