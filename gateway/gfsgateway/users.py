"""The file system as each user sees it: one set of connections, a view of it per user, the least used forgotten."""

import logging
from collections import OrderedDict
from typing import NamedTuple

from gfsclient.filesystem import FileSystem
from gfsclient.user import User
from gfsprotocol.errors import GfsError
from gfsprotocol.ids import KIB, MIB

VIEWS_MAX = 512


class Width(NamedTuple):
    """How much one transfer may have in memory."""

    read_ahead_bytes: int
    write_window_packets: int


WIDE = Width(16 * MIB, 16)
NARROW = Width(2 * MIB, 2)
SLIM = Width(256 * KIB, 1)

_View = tuple[User, Width, tuple[bytes, ...]]

log = logging.getLogger(__name__)


class Users:
    """Views of one file system. Wide ones buffer much and are fast; slim ones are for when there are many at once."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self._views: OrderedDict[_View, FileSystem] = OrderedDict()

    async def view(self, user: User, width: Width = WIDE, confined: tuple[bytes, ...] = ()) -> FileSystem:
        """The file system in the name of ``user``, where symbolic links do not lead out of the directories of
        ``confined``, if there are any."""
        view = user, width, confined
        found = self._views.get(view)
        if found is not None:
            self._views.move_to_end(view)
            return found
        made = self._views[view] = self._files.acting_as(
            user,
            confined=confined,
            read_ahead_bytes=width.read_ahead_bytes,
            write_window_packets=width.write_window_packets,
        )
        if len(self._views) > VIEWS_MAX:
            await _close(self._views.popitem(last=False)[1])
        return made

    async def close(self) -> None:
        """Closes all views; not the file system itself."""
        while self._views:
            await _close(self._views.popitem()[1])


async def _close(view: FileSystem) -> None:
    try:
        await view.close()
    except GfsError as error:
        log.warning("closing what a user has appended to: %s", error.message)
