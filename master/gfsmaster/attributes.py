"""Who may change a file's attributes, and what goes with the change: the rules of Linux, planned as operations. Pure.

chmod(2), chown(2), truncate(2), utimensat(2) and xattr(7) say what is asked here; where they leave room, the kernel's
``setattr_prepare`` and ``setattr_should_drop_suidgid`` are followed.
"""

import stat
from typing import Final

from gfsmaster import operations as op
from gfsmaster.namespace import WRITE, Namespace, User, shown
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    AlreadyExists,
    AttributesFull,
    AttributeTooLarge,
    FileTooLarge,
    InvalidArgument,
    IsADirectory,
    NoSuchAttribute,
    NotPermitted,
)
from gfsprotocol.ids import FILE_BYTES_MAX, REPLICATION_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX

XATTRS_PER_INODE_MAX: Final = 100
TIMES_NS: Final = range(-(2**63), 2**63)
IDS: Final = range(2**32 - 1)
"""User and group ids; the largest 32-bit number means "no change" to chown(2)."""
NOW: Final = -1
"""As a time in a request: the master's clock."""


def check_times(*times: int | None) -> None:
    """InvalidArgument for a time that does not fit 64 bits of nanoseconds (years 1677 to 2262)."""
    if any(time is not None and time not in TIMES_NS for time in times):
        raise InvalidArgument("a time lies outside the years 1677 to 2262")


class AttributePlanner:
    """Plans SetAttributes, SetReplication, SetXattr and RemoveXattr."""

    def __init__(self, state: State, namespace: Namespace) -> None:
        self._state = state
        self._inodes = state.inodes
        self._namespace = namespace

    # ------------------------------------------------------------------------------------ mode, owner, size, times

    def set_attributes(self, body: msg.SetAttributes, user: User, client: bytes, now_ns: int) -> op.Operations:
        check_times(body.accessed_ns, body.modified_ns)
        slot = self._namespace.find(user, body.base, body.path, body.follow)
        if body.size is not None:
            self._check_size(slot, body, user, client)
        if body.uid is not None or body.gid is not None:
            self._check_owner_change(slot, body, user)
        mode = self._new_mode(slot, body, user)
        self._check_times(slot, body, user, client)
        change = op.ChangeAttributes(
            self._inodes.ids[slot],
            mode,
            body.uid,
            body.gid,
            now_ns if body.accessed_ns == NOW else body.accessed_ns,
            now_ns if body.modified_ns == NOW else body.modified_ns,
            body.size,
        )
        return (change,)

    def _new_mode(self, slot: int, body: msg.SetAttributes, user: User) -> int | None:
        """The permission bits after chmod, chown or truncate, with setuid and setgid dropped; None leaves them."""
        if body.mode is not None:
            return self._chosen_mode(slot, body, user)
        if body.uid is not None or body.gid is not None:
            return None if slot in self._inodes.directories else self._without_setid(slot, user)
        return self.mode_written_by(slot, user) if body.size is not None else None

    def _chosen_mode(self, slot: int, body: msg.SetAttributes, user: User) -> int:
        if not self._namespace.is_owner(slot, user):
            raise NotPermitted(f"{shown(body.path)}: only its owner may change the mode")
        if stat.S_ISLNK(self._inodes.mode[slot]):
            raise InvalidArgument(f"{shown(body.path)}: a symbolic link has no permissions of its own")
        mode = (body.mode or 0) & 0o7777
        gid = self._namespace.owner(slot)[1] if body.gid is None else body.gid
        if user and user[0] and gid not in user[1:]:
            mode &= ~stat.S_ISGID
        return mode

    def _without_setid(self, slot: int, user: User) -> int | None:
        """The permission bits without those that lend the owner's or the group's rights; None if there are none.

        On a file that its group cannot execute, setgid lends nothing; it stays for who may set it.
        """
        mode = stat.S_IMODE(self._inodes.mode[slot])
        is_member = not user or not user[0] or self._namespace.owner(slot)[1] in user[1:]
        kept = mode & ~stat.S_ISUID
        if mode & stat.S_IXGRP or not is_member:
            kept &= ~stat.S_ISGID
        return kept if kept != mode else None

    def mode_written_by(self, slot: int, user: User) -> int | None:
        """The permission bits after ``user`` has changed the content; None if they stay, as they do for root."""
        return self._without_setid(slot, user) if user and user[0] else None

    def _check_owner_change(self, slot: int, body: msg.SetAttributes, user: User) -> None:
        for number in (body.uid, body.gid):
            if number is not None and number not in IDS:
                raise InvalidArgument(f"{number} is not a user or group id")
        if not user or not user[0]:
            return
        uid, gid = self._namespace.owner(slot)
        if user[0] != uid or body.uid not in (None, uid):
            raise NotPermitted(f"{shown(body.path)}: only root may change the owner")
        if body.gid not in (None, gid) and body.gid not in user[1:]:
            raise NotPermitted(f"{shown(body.path)}: not a member of group {body.gid}")

    def _check_size(self, slot: int, body: msg.SetAttributes, user: User, client: bytes) -> None:
        if slot in self._inodes.directories:
            raise IsADirectory(f"{shown(body.path)}: is a directory")
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"{shown(body.path)}: not a regular file")
        if body.size is None or body.size < 0:
            raise InvalidArgument("a size cannot be negative")
        if body.size > FILE_BYTES_MAX:
            raise FileTooLarge(f"a file of {body.size} bytes is larger than the limit of {FILE_BYTES_MAX}")
        if not self._is_writer(slot, body, client):
            self._namespace.require(slot, user, WRITE, body.path)

    def _is_writer(self, slot: int, body: msg.SetAttributes, client: bytes) -> bool:
        return body.as_writer and self._state.writers.has(slot, client)

    def _check_times(self, slot: int, body: msg.SetAttributes, user: User, client: bytes) -> None:
        """Both to now is anyone's who may write; anything else is the owner's, also only one of them to now.

        With a size comes the time of that change, which was allowed already: a kernel that writes back sends both.
        """
        times = (body.accessed_ns, body.modified_ns)
        if body.accessed_ns is None and (body.modified_ns is None or body.size is not None):
            return
        if self._namespace.is_owner(slot, user) or self._is_writer(slot, body, client):
            return
        if times != (NOW, NOW):
            raise NotPermitted(f"{shown(body.path)}: only its owner may set times")
        self._namespace.require(slot, user, WRITE, body.path)

    def set_replication(self, body: msg.SetReplication, user: User, _client: bytes, _now_ns: int) -> op.Operations:
        if not 1 <= body.replication <= REPLICATION_MAX:
            raise InvalidArgument(f"a replication of {body.replication} is not between 1 and {REPLICATION_MAX}")
        slot = self._namespace.find(user, body.base, body.path)
        self._namespace.require(slot, user, WRITE, body.path)
        return (op.ChangeAttributes(self._inodes.ids[slot], replication=body.replication),)

    # ---------------------------------------------------------------------------------------- extended attributes

    def set_xattr(self, body: msg.SetXattr, user: User, _client: bytes, _now_ns: int) -> op.Operations:
        if not 0 < len(body.name) <= XATTR_NAME_BYTES_MAX or b"\0" in body.name:
            raise InvalidArgument(f"an attribute's name has 1 to {XATTR_NAME_BYTES_MAX} bytes, none of them NUL")
        if len(body.value) > XATTR_VALUE_BYTES_MAX:
            raise AttributeTooLarge(f"an attribute's value has at most {XATTR_VALUE_BYTES_MAX} bytes")
        slot = self._namespace.find(user, body.base, body.path, body.follow)
        self._require_xattr_change(slot, user, body.name, body.path)
        present = self._inodes.xattrs.get(slot, {})
        if body.create and body.name in present:
            raise AlreadyExists(f"{shown(body.path)}: attribute {shown(body.name)} exists")
        if body.replace and body.name not in present:
            raise NoSuchAttribute(f"{shown(body.path)}: no attribute {shown(body.name)}")
        if body.name not in present and len(present) >= XATTRS_PER_INODE_MAX:
            raise AttributesFull(f"{shown(body.path)}: it has {XATTRS_PER_INODE_MAX} attributes, the most a file can")
        return (op.PutXattr(self._inodes.ids[slot], body.name, body.value),)

    def remove_xattr(self, body: msg.RemoveXattr, user: User, _client: bytes, _now_ns: int) -> op.Operations:
        slot = self._namespace.find(user, body.base, body.path, body.follow)
        self._require_xattr_change(slot, user, body.name, body.path)
        if body.name not in self._inodes.xattrs.get(slot, {}):
            raise NoSuchAttribute(f"{shown(body.path)}: no attribute {shown(body.name)}")
        return (op.DropXattr(self._inodes.ids[slot], body.name),)

    def _require_xattr_change(self, slot: int, user: User, name: bytes, path: bytes) -> None:
        """xattr(7): ``user.`` follows the permissions of files and directories, all else is root's to write."""
        if not name.startswith(b"user."):
            if user and user[0]:
                raise NotPermitted(f"{shown(path)}: only root may change attribute {shown(name)}")
            return
        mode = self._inodes.mode[slot]
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise NotPermitted(f"{shown(path)}: only files and directories have attributes of users")
        if stat.S_ISDIR(mode) and mode & stat.S_ISVTX and not self._namespace.is_owner(slot, user):
            raise NotPermitted(f"{shown(path)}: only its owner may, the directory is sticky")
        self._namespace.require(slot, user, WRITE, path)
