"""The file system as each user sees it: one set of connections, a view of it per user, the least used forgotten."""

import logging
from collections import OrderedDict

from gfsclient.filesystem import FileSystem
from gfsclient.user import User
from gfsprotocol.errors import GfsError
from gfsprotocol.ids import MIB

VIEWS_MAX = 512
WIDE_READ_AHEAD_BYTES = 16 * MIB
WIDE_WINDOW_PACKETS = 16
NARROW_READ_AHEAD_BYTES = 2 * MIB
NARROW_WINDOW_PACKETS = 4

log = logging.getLogger(__name__)


class Users:
    """Views of one file system. Wide ones buffer much and are fast; narrow ones are for when there are many at once."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self._views: OrderedDict[tuple[User, bool], FileSystem] = OrderedDict()

    async def view(self, user: User, is_wide: bool = True) -> FileSystem:
        """The file system in the name of ``user``."""
        found = self._views.get((user, is_wide))
        if found is not None:
            self._views.move_to_end((user, is_wide))
            return found
        made = self._views[user, is_wide] = self._files.acting_as(
            user,
            read_ahead_bytes=WIDE_READ_AHEAD_BYTES if is_wide else NARROW_READ_AHEAD_BYTES,
            write_window_packets=WIDE_WINDOW_PACKETS if is_wide else NARROW_WINDOW_PACKETS,
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
