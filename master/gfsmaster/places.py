"""Where names may be put and taken away: what creation, renaming and removal ask of a place alike. Pure."""

from gfsmaster import operations as op
from gfsmaster.inodes import ROOT_SLOT
from gfsmaster.namespace import SEARCH, WRITE, Namespace, Place, User, shown
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import AlreadyExists, ConditionFailed, InvalidArgument, NotADirectory, NotFound

Plan = op.Operations | msg.ReplyBody
"""What to log, or what to answer at once because nothing changes."""


class Places:
    """Finds places, with the errors of Linux for those that will not do."""

    def __init__(self, state: State, namespace: Namespace) -> None:
        self._state = state
        self._inodes = state.inodes
        self._namespace = namespace

    def new_place(self, user: User, base: int, path: bytes, is_directory: bool = False) -> Place:
        """A place where a new name may be put: it does not exist, and the user may write there."""
        place = self._namespace.walk(user, base, path.rstrip(b"/"), follow=False)
        if place.slot:
            raise AlreadyExists(f"{shown(path)}: file exists")
        if path.endswith(b"/.") or (path.endswith(b"/") and not is_directory):
            raise NotFound(f"{shown(path)}: no such directory")
        self.require_creation(place, user, path)
        return place

    def require_creation(self, place: Place, user: User, path: bytes) -> None:
        """That ``user`` may make a name in this directory, which is still one."""
        if b"\0" in place.name:
            raise InvalidArgument(f"{shown(path)}: a name cannot contain a NUL byte")
        if place.parent not in self._inodes.directories:
            raise NotADirectory(f"{shown(path)}: not a directory")
        if not self._inodes.links[place.parent]:
            raise NotFound(f"{shown(path)}: the directory was removed")
        self._namespace.require(place.parent, user, WRITE | SEARCH, path)

    def removable(self, user: User, base: int, path: bytes) -> Place:
        """The place of an existing name that may be taken away."""
        place = self.existing(user, base, path)
        self._namespace.require_change(place, user, path)
        return place

    def existing(self, user: User, base: int, path: bytes) -> Place:
        """The place of an existing name; InvalidArgument for one that nobody can take away.

        A slash at the end does not follow a symbolic link here, but says that a directory is meant.
        """
        name = path.rstrip(b"/")
        place = self._namespace.walk(user, base, name, follow=False)
        if not place.slot:
            raise NotFound(f"{shown(path)}: no such file or directory")
        if place.slot == ROOT_SLOT or name.rpartition(b"/")[2] in (b"", b".", b".."):
            raise InvalidArgument(f"{shown(path)}: the root and '.' and '..' cannot be moved or removed")
        if not self._inodes.links[place.parent]:
            raise NotFound(f"{shown(path)}: the directory was removed")
        if name != path and place.slot not in self._inodes.directories:
            raise NotADirectory(f"{shown(path)}: not a directory")
        return place

    def check_expected(self, slot: int, expected: msg.FileVersion | None, path: bytes) -> None:
        """ConditionFailed unless the inode is as a conditional request wants it."""
        if expected is None:
            return
        found = self._state.attributes(slot) if slot else None
        if found is None or msg.FileVersion(found.inode, found.size, found.changed_ns) != expected:
            raise ConditionFailed(f"{shown(path)}: the file was changed, replaced or removed meanwhile")
