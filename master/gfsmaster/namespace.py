"""Finding one's way in the namespace: path resolution and permission checks, as POSIX has them. Reads only."""

import stat
from typing import Final, NamedTuple

from gfsmaster.inodes import ROOT_SLOT
from gfsmaster.state import State
from gfsprotocol.errors import (
    NameTooLong,
    NotADirectory,
    NotFound,
    NotPermitted,
    PermissionDenied,
    StaleHandle,
    SymlinkLoop,
)
from gfsprotocol.ids import NAME_BYTES_MAX, PATH_BYTES_MAX, ROOT_INODE, SYMLINKS_MAX

READ: Final = 4
WRITE: Final = 2
SEARCH: Final = 1

User = tuple[int, ...]
"""uid, gid, supplementary groups. Empty is root."""


class Place(NamedTuple):
    """Where a path leads: the directory that holds (or would hold) the last name, and the inode there, or 0."""

    parent: int
    name: bytes
    slot: int


class Trail:
    """What was looked at on the way to an answer: for who has to be told when it changes."""

    __slots__ = ("found", "looked")

    def __init__(self) -> None:
        self.looked: list[int] = []
        """Inodes of the directories in which a name was looked up, whether it was there or not."""
        self.found: list[int] = []
        """Inodes that paths have led to, or that were named themselves."""


def shown(path: bytes) -> str:
    """A path for a message: short, printable."""
    text = path if len(path) <= 200 else path[:120] + b"..." + path[-60:]
    return text.decode("utf-8", "backslashreplace").encode("unicode_escape").decode() if path else "/"


class Namespace:
    """Resolves paths against the state. All slots it returns are valid until the next record is applied."""

    def __init__(self, state: State) -> None:
        self._inodes = state.inodes
        self.trail: Trail | None = None
        """Takes down what is looked at, if somebody wants to know."""
        self.confined: tuple[bytes, ...] = ()
        """If there are any, directories: no symbolic link is followed in a path but above these; of one request."""

    def base(self, inode_id: int) -> int:
        """The slot of an inode that a client holds on to. StaleHandle if it is gone."""
        slot = self._base(inode_id)
        if self.trail is not None:
            self.trail.found.append(inode_id)
        return slot

    def _base(self, inode_id: int) -> int:
        slot = self._inodes.slot_of(inode_id)
        if not slot:
            raise StaleHandle(f"inode {inode_id} does not exist any more")
        return slot

    def walk(self, user: User, base: int, path: bytes, follow: bool) -> Place:
        """Where ``path`` below the inode ``base`` leads; ``follow`` says whether a symlink at its end is followed.

        Raises NotFound or NotADirectory for what is missing on the way, PermissionDenied without search permission or
        for a link that may not be followed, SymlinkLoop after 40 links, NameTooLong, StaleHandle. A missing last name
        is a Place with slot 0.
        """
        if len(path) > PATH_BYTES_MAX:
            raise NameTooLong(f"the path is {len(path)} bytes long, the limit is {PATH_BYTES_MAX}")
        inodes = self._inodes
        slot = self._base(base)
        parts = [part for part in path.split(b"/") if part and part != b"."]
        directory_wanted = path.endswith((b"/", b"/."))
        confined = self._confined(base, parts) if self.confined else 0
        parent, name = slot, b""
        links = index = 0
        while index < len(parts):
            name = parts[index]
            directory = inodes.directories.get(slot)
            if directory is None:
                raise NotADirectory(f"{shown(path)}: {shown(b'/'.join(parts[:index]))} is not a directory")
            if user and user[0] and not self.allowed(slot, user, SEARCH):
                raise PermissionDenied(f"{shown(path)}: no permission to search {shown(b'/'.join(parts[:index]))}")
            if self.trail is not None:
                self.trail.looked.append(inodes.ids[slot])
            found = (inodes.parent[slot] or slot) if name == b".." else directory.find(name)
            is_last = index == len(parts) - 1
            if not found:
                if len(name) > NAME_BYTES_MAX:
                    raise NameTooLong(f"a name of {len(name)} bytes is too long, the limit is {NAME_BYTES_MAX}")
                if is_last:
                    return Place(slot, name, 0)
                raise NotFound(f"{shown(path)}: no such directory: {shown(b'/'.join(parts[: index + 1]))}")
            if stat.S_ISLNK(inodes.mode[found]) and (not is_last or follow or directory_wanted):
                if len(parts) - index <= confined:
                    raise PermissionDenied(f"{shown(path)}: no symbolic link is followed here")
                links += 1
                if links > SYMLINKS_MAX:
                    raise SymlinkLoop(f"{shown(path)}: too many levels of symbolic links")
                target = inodes.targets[found]
                parts[: index + 1] = [part for part in target.split(b"/") if part and part != b"."]
                directory_wanted = directory_wanted or (is_last and target.endswith(b"/"))
                index = 0
                if target.startswith(b"/"):
                    slot = ROOT_SLOT
                parent, name = slot, b""
                continue
            parent, slot = slot, found
            index += 1
        if directory_wanted and slot not in inodes.directories:
            raise NotADirectory(f"{shown(path)}: not a directory")
        if self.trail is not None:
            self.trail.found.append(inodes.ids[slot])
        return Place(parent, name, slot)

    def _confined(self, base: int, parts: list[bytes]) -> int:
        """Of how many names at the end of a path no link is followed: all but those above a directory of ``confined``.

        Not of that directory either: who may change it may put a link in its place.
        """
        if base != ROOT_INODE:
            return len(parts)
        above = []
        for directory in self.confined:
            names = [name for name in directory.split(b"/") if name]
            if parts[: len(names)] == names[: len(parts)]:
                above.append(min(len(names) - 1, len(parts)))
        return len(parts) - min(above, default=0)

    def find(self, user: User, base: int, path: bytes, follow: bool = True) -> int:
        """The slot of what a path leads to. NotFound if there is nothing; else as :meth:`walk`."""
        slot = self.walk(user, base, path, follow).slot
        if not slot:
            raise NotFound(f"{shown(path)}: no such file or directory")
        return slot

    def walk_or_none(self, user: User, base: int, path: bytes) -> int:
        """As :meth:`find`, but 0 where something is missing."""
        try:
            return self.walk(user, base, path, follow=True).slot
        except NotFound:
            return 0

    def allowed(self, slot: int, user: User, mask: int) -> bool:
        """Whether ``user`` may do all of ``mask`` with an inode (root: all but executing what no one may)."""
        mode = self._inodes.mode[slot]
        if not user or not user[0]:
            return not mask & SEARCH or stat.S_ISDIR(mode) or bool(mode & 0o111)
        uid, gid = self._inodes.owners.values[self._inodes.owner[slot]]
        if user[0] == uid:
            granted = mode >> 6
        elif gid in user[1:]:
            granted = mode >> 3
        else:
            granted = mode
        return not mask & ~granted

    def require(self, slot: int, user: User, mask: int, path: bytes) -> None:
        """PermissionDenied unless :meth:`allowed`."""
        if not self.allowed(slot, user, mask):
            raise PermissionDenied(f"{shown(path)}: permission denied")

    def require_change(self, place: Place, user: User, path: bytes) -> None:
        """The right to add, replace or remove a name: write and search on the directory, and its sticky bit."""
        inodes = self._inodes
        self.require(place.parent, user, WRITE | SEARCH, path)
        if not user or not user[0] or not place.slot or not inodes.mode[place.parent] & stat.S_ISVTX:
            return
        if user[0] not in (self.owner(place.slot)[0], self.owner(place.parent)[0]):
            raise NotPermitted(f"{shown(path)}: only its owner may, the directory is sticky")

    def owner(self, slot: int) -> tuple[int, ...]:
        """(uid, gid)."""
        return self._inodes.owners.values[self._inodes.owner[slot]]

    def is_owner(self, slot: int, user: User) -> bool:
        return not user or not user[0] or user[0] == self.owner(slot)[0]

    def contains(self, ancestor: int, slot: int) -> bool:
        """Whether ``slot`` is ``ancestor`` or a directory below it."""
        while slot:
            if slot == ancestor:
                return True
            slot = self._inodes.parent[slot] if slot != ROOT_SLOT else 0
        return False
