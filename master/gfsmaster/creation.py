"""Planning what makes new names: directories, files, nodes and links, and whose they are. Pure."""

import stat
from typing import Final

from gfsmaster import operations as op
from gfsmaster.namespace import Namespace, Place, User, shown
from gfsmaster.places import Places, Plan
from gfsmaster.state import State
from gfsmaster.writing import WritingPlanner
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    AlreadyExists,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotFound,
    NotPermitted,
    SymlinkLoop,
    TooManyLinks,
)
from gfsprotocol.ids import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, NAME_BYTES_MAX, PATH_BYTES_MAX, REPLICATION_MAX

LINKS_MAX: Final = 65_000
NODE_KINDS: Final = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)
DEVICES: Final = range(2**64)


class CreationPlanner:
    """Plans Mkdir, Create, MakeNode, Symlink and Link."""

    def __init__(self, state: State, namespace: Namespace, places: Places, writing: WritingPlanner) -> None:
        self._state = state
        self._inodes = state.inodes
        self._namespace = namespace
        self._places = places
        self._writing = writing

    # -------------------------------------------------------------------------------------------------- directories

    def mkdir(self, body: msg.Mkdir, user: User, _client: bytes, _now_ns: int) -> Plan:
        if not body.parents:
            place = self._places.new_place(user, body.base, body.path, is_directory=True)
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
        while not (place := self._namespace.walk_or_none(user, body.base, b"/".join(parts[:present]))):
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
            self._places.require_creation(Place(place, name, 0), user, body.path)
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

    # -------------------------------------------------------------------------------------------------------- files

    def create(self, body: msg.Create, user: User, client: bytes, _now_ns: int) -> Plan:
        self._check_layout(body.replication, body.chunk_bytes)
        writer = client if body.open or body.anonymous else b""
        if body.anonymous:
            parent = self._namespace.find(user, body.base, body.path)
            self._places.require_creation(Place(parent, b"", 0), user, body.path)
            return (self._file_at(parent, b"", body, user, writer),)
        place = self._namespace.walk(user, body.base, body.path, follow=body.follow and not body.exclusive)
        if not place.slot:
            if body.path.endswith(b"/"):
                raise IsADirectory(f"{shown(body.path)}: a file cannot be made under a name that ends with a slash")
            self._places.require_creation(place, user, body.path)
            return (self._file_at(place.parent, place.name, body, user, writer),)
        if body.exclusive:
            raise AlreadyExists(f"{shown(body.path)}: file exists")
        if not body.follow and stat.S_ISLNK(self._inodes.mode[place.slot]):
            raise SymlinkLoop(f"{shown(body.path)}: is a symbolic link")
        return self._writing.open_existing(place.slot, body.path, user, writer, body.truncate)

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

    # ---------------------------------------------------------------------------------------------- everything else

    def make_node(self, body: msg.MakeNode, user: User, _client: bytes, _now_ns: int) -> Plan:
        kind = stat.S_IFMT(body.mode)
        if kind not in NODE_KINDS:
            raise InvalidArgument(f"{shown(body.path)}: a node is a fifo, a socket or a device")
        if body.device not in DEVICES:
            raise InvalidArgument(f"{body.device} is not a device number")
        place = self._places.new_place(user, body.base, body.path)
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        if is_device and user and user[0]:
            raise NotPermitted(f"{shown(body.path)}: only root may make devices")
        mode, uid, gid = self._ownership(place.parent, user, body.mode, is_directory=False)
        parent, device = self._inodes.ids[place.parent], body.device if is_device else 0
        return (op.MakeNode(parent, place.name, self._inodes.next_id(), kind | mode, uid, gid, device),)

    def symlink(self, body: msg.Symlink, user: User, _client: bytes, _now_ns: int) -> Plan:
        if not body.target or b"\0" in body.target:
            raise InvalidArgument("a symbolic link's target cannot be empty or contain a NUL byte")
        if len(body.target) >= PATH_BYTES_MAX:
            raise NameTooLong(f"a symbolic link's target of {len(body.target)} bytes is too long")
        place = self._places.new_place(user, body.base, body.path)
        _, uid, gid = self._ownership(place.parent, user, 0o777, is_directory=False)
        parent = self._inodes.ids[place.parent]
        return (op.MakeSymlink(parent, place.name, self._inodes.next_id(), body.target, uid, gid),)

    def link(self, body: msg.Link, user: User, _client: bytes, _now_ns: int) -> Plan:
        slot = self._namespace.find(user, body.base, body.path, follow=False)
        place = self._places.new_place(user, body.target_base, body.target)
        if slot in self._inodes.directories:
            raise NotPermitted(f"{shown(body.path)}: a directory cannot have a second name")
        if slot in self._state.trash or not self._inodes.links[slot]:
            raise NotFound(f"{shown(body.path)}: the file was removed")
        if self._inodes.links[slot] >= LINKS_MAX:
            raise TooManyLinks(f"{shown(body.path)}: too many links")
        return (op.MakeLink(self._inodes.ids[place.parent], place.name, self._inodes.ids[slot]),)

    def _ownership(self, parent: int, user: User, mode: int, is_directory: bool) -> tuple[int, int, int]:
        """(mode, uid, gid) of a new inode: a setgid directory passes its group on, and to directories the bit.

        What may be executed with the rights of that group is made by its members only.
        """
        uid, gid = (user[0], user[1]) if user else (0, 0)
        mode &= 0o7777
        if self._inodes.mode[parent] & stat.S_ISGID:
            gid = self._namespace.owner(parent)[1]
            if is_directory:
                mode |= stat.S_ISGID
            elif uid and gid not in user[1:] and mode & stat.S_IXGRP:
                mode &= ~stat.S_ISGID
        return mode, uid, gid
