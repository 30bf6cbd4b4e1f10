"""Answers that change nothing: one method per request. Pure; reads the state and what is known of the chunk servers."""

import stat
from collections.abc import Callable
from typing import Any, Final

from gfsmaster.fleet import Fleet
from gfsmaster.namespace import READ, Namespace, User, shown
from gfsmaster.servers import Server
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import InvalidArgument, IsADirectory, NoSuchAttribute, NotADirectory, PermissionDenied
from gfsprotocol.ids import LOCATED_FILES_MAX

LISTING_ENTRIES_MAX: Final = 1000
LOCATIONS_MAX: Final = 256

SignRead = Callable[[int, int], bytes]
"""(chunk id, version) -> token."""


def _is_hidden(name: bytes, user: User) -> bool:
    """Whether an extended attribute is one that only root knows of, xattr(7)."""
    return name.startswith(b"trusted.") and bool(user) and user[0] != 0


class Queries:
    """Plans no operations, so it may serve a standby as well as the leader."""

    def __init__(self, state: State, fleet: Fleet, namespace: Namespace, sign_read: SignRead) -> None:
        self._state = state
        self._inodes = state.inodes
        self._fleet = fleet
        self._namespace = namespace
        self._sign_read = sign_read
        self._queries: dict[type, Callable[[Any, User], msg.ReplyBody]] = {
            msg.Stat: self._stat,
            msg.List: self._list,
            msg.ReadLink: self._read_link,
            msg.GetXattr: self._get_xattr,
            msg.ListXattrs: self._list_xattrs,
            msg.ListTrash: self._list_trash,
            msg.ListOpen: self._list_open,
            msg.CheckAccess: self._check_access,
            msg.Locate: self._locate,
            msg.LocateFiles: self._locate_files,
            msg.StatSpace: self._stat_space,
        }

    def answers(self, body: msg.RequestBody) -> bool:
        return type(body) in self._queries

    def answer(self, body: msg.RequestBody, user: User) -> msg.ReplyBody:
        """The answer as the state is now. A NamespaceError is an answer too."""
        return self._queries[type(body)](body, user)

    def _stat(self, body: msg.Stat, user: User) -> msg.ReplyBody:
        return msg.AttributesReply(
            self._state.attributes(self._namespace.find(user, body.base, body.path, body.follow))
        )

    def _list(self, body: msg.List, user: User) -> msg.ReplyBody:
        slot = self._namespace.find(user, body.base, body.path)
        directory = self._inodes.directories.get(slot)
        if directory is None:
            raise NotADirectory(f"{shown(body.path)}: not a directory")
        self._namespace.require(slot, user, READ, body.path)
        limit = max(1, min(body.limit, LISTING_ENTRIES_MAX))
        page = directory.page(body.after, limit + 1)
        entries = tuple(msg.Entry(name, self._state.attributes(child)) for name, child in page[:limit])
        return msg.Listing(entries, len(page) > limit)

    def _read_link(self, body: msg.ReadLink, user: User) -> msg.ReplyBody:
        slot = self._namespace.find(user, body.base, body.path, follow=False)
        target = self._inodes.targets.get(slot)
        if target is None:
            raise InvalidArgument(f"{shown(body.path)}: not a symbolic link")
        return msg.Data(target)

    def _get_xattr(self, body: msg.GetXattr, user: User) -> msg.ReplyBody:
        slot = self._namespace.find(user, body.base, body.path, body.follow)
        value = None if _is_hidden(body.name, user) else self._inodes.xattrs.get(slot, {}).get(body.name)
        if body.name.startswith(b"user.") and stat.S_IFMT(self._inodes.mode[slot]) in (stat.S_IFREG, stat.S_IFDIR):
            self._namespace.require(slot, user, READ, body.path)
        if value is None:
            raise NoSuchAttribute(f"{shown(body.path)}: no attribute {shown(body.name)}")
        return msg.Data(value)

    def _list_xattrs(self, body: msg.ListXattrs, user: User) -> msg.ReplyBody:
        slot = self._namespace.find(user, body.base, body.path, body.follow)
        names = self._inodes.xattrs.get(slot, {})
        return msg.Names(tuple(sorted(name for name in names if not _is_hidden(name, user))))

    def _list_trash(self, body: msg.ListTrash, user: User) -> msg.ReplyBody:
        uid = user[0] if user else 0
        limit = max(1, min(body.limit, LISTING_ENTRIES_MAX))
        entries: list[msg.TrashEntry] = []
        for slot, item in self._state.trash.items():
            if item.deleted_ns > body.after and (not uid or item.uid == uid):
                if len(entries) == limit:
                    return msg.Trash(tuple(entries), more=True)
                entries.append(self._state.trash_entry(slot))
        return msg.Trash(tuple(entries), more=False)

    def _list_open(self, body: msg.ListOpen, user: User) -> msg.ReplyBody:
        limit = max(1, min(body.limit, LISTING_ENTRIES_MAX))
        slots = [
            slot
            for slot in self._state.writers.inodes_after(body.after)
            if not user or not user[0] or self._namespace.is_owner(slot, user)
        ]
        files = tuple(
            msg.OpenFile(
                self._inodes.ids[slot],
                self._inodes.path_of(slot),
                self._inodes.size[slot],
                self._state.writers.count(slot),
            )
            for slot in slots[:limit]
        )
        return msg.OpenFiles(files, slots[limit - 1] if len(slots) > limit else 0)

    def _check_access(self, body: msg.CheckAccess, user: User) -> msg.ReplyBody:
        slot = self._namespace.find(user, body.base, body.path)
        if not self._namespace.allowed(slot, user, body.mask & 7):
            raise PermissionDenied(f"{shown(body.path)}: permission denied")
        return msg.Done()

    def _locate(self, body: msg.Locate, user: User) -> msg.ReplyBody:
        slot = self._namespace.find(user, body.base, body.path)
        if slot in self._inodes.directories:
            raise IsADirectory(f"{shown(body.path)}: is a directory")
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"{shown(body.path)}: not a regular file")
        self._namespace.require(slot, user, READ, body.path)
        chunk_bytes = self._inodes.chunk_bytes(slot)
        chunk_count = -(-self._inodes.size[slot] // chunk_bytes)
        first = max(0, body.first)
        stop = min(chunk_count, first + max(1, min(body.count, LOCATIONS_MAX)))
        servers: dict[int, Server] = {}
        locations = tuple(self._location(slot, index, servers) for index in range(first, stop))
        return msg.Locations(
            self._state.attributes(slot), locations, tuple(server.address for server in servers.values())
        )

    def _locate_files(self, body: msg.LocateFiles, user: User) -> msg.ReplyBody:
        if len(body.inodes) > LOCATED_FILES_MAX:
            raise InvalidArgument(f"{len(body.inodes)} files are more than {LOCATED_FILES_MAX}")
        servers: dict[int, Server] = {}
        files: list[msg.FileLocation] = []
        for inode in body.inodes:
            slot = self._inodes.slot_of(inode)
            if slot and stat.S_ISREG(self._inodes.mode[slot]) and self._namespace.allowed(slot, user, READ):
                chunk = self._location(slot, 0, servers) if self._inodes.size[slot] else None
                files.append(msg.FileLocation(self._state.attributes(slot), chunk))
        return msg.FileLocations(tuple(files), tuple(server.address for server in servers.values()))

    def _location(self, slot: int, index: int, servers: dict[int, Server]) -> msg.ChunkLocation:
        chunks = self._state.chunks
        chunk = self._inodes.chunk_at(slot, index)
        if not chunk or not chunks.length[chunk]:
            return msg.ChunkLocation(index, 0, 0, 0, (), b"")
        holders = self._fleet.holders(chunk) or self._fleet.all_holders(chunk)
        for server in holders:
            servers[server.number] = server
        turn = chunk % len(holders) if holders else 0
        ids = tuple(server.server for server in holders[turn:] + holders[:turn])
        version = chunks.version[chunk]
        token = self._sign_read(chunks.ids[chunk], version)
        return msg.ChunkLocation(index, chunks.ids[chunk], version, chunks.length[chunk], ids, token)

    def _stat_space(self, _body: msg.StatSpace, _user: User) -> msg.ReplyBody:
        disks = [disk for server in self._fleet.connected() for disk in server.disks if not disk.failed]
        total = sum(disk.total_bytes for disk in disks)
        free = sum(disk.free_bytes for disk in disks)
        return msg.Space(total, free, total - free, len(self._inodes), len(self._state.chunks))
