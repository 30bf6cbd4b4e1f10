"""Keeps files alive at the master that are open here although their last name is gone.

Who removes a file here asks the master to hold it with the removal. If others do, a notice says so, and we ask then. A
notice may also never come: a new leader does not know what the one before had shown us, and one that was told to watch
anew does not either. So whenever nothing is known any more, each open file is looked at: that shows it to the leader
again, and tells if it was removed meanwhile. Until then the master keeps what is removed (gfsmaster.lingering).

Belongs to the event loop.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Final

from gfsclient.core import Core
from gfsclient.mount.callers import ROOT
from gfsclient.mount.filetable import FileTable
from gfsprotocol import messages as msg
from gfsprotocol.errors import GfsError, StaleHandle

log = logging.getLogger(__name__)

LOOKED_AT_ONCE: Final = 64


class Holding:
    """The registrations that outlive a file's names."""

    def __init__(self, core: Core, files: FileTable) -> None:
        self._core = core
        self._files = files
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._is_unsure = False
        """Whether the leader may not know which files are open here."""

    def removed_here(self, reply: msg.ReplyBody) -> None:
        """If we were registered as a writer of a file that lost its last name: that ends when it is closed here."""
        if not isinstance(reply, msg.Removed) or not reply.held:
            return
        self._core.count_writer(1)
        file = self._files.find(reply.inode)
        if file is not None:
            file.holds += 1
            file.is_removed = True
            self._files.end_if_unused(file)
        else:
            self._in_background(self._let_go(reply.inode))

    def removed_elsewhere(self, inode: int) -> None:
        """Others have taken a file's last name."""
        if self._files.find(inode) is not None:
            self._in_background(self.hold(inode))

    def doubt(self) -> None:
        """Nothing is known any more of what others do: every open file is looked at."""
        self._is_unsure = bool(len(self._files))
        if self._is_unsure and (self._looking is None or self._looking.done()):
            self._looking = self._in_background(self._look())

    async def hold(self, inode: int) -> None:
        """A file that is open here, and has no name, is to live on. That it is open for writing is not enough: it may
        be open for reading longer."""
        async with self._files.using(inode) as file:
            file.is_removed = True
            if file.holds:
                return
            file.holds += 1
            try:
                await self._core.masters.expect(msg.Hold(inode), msg.AttributesReply, user=ROOT)
            except GfsError:
                file.holds -= 1
                raise
            self._core.count_writer(1)

    async def close(self) -> None:
        """Waits for what is under way."""
        self._is_unsure = False
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _let_go(self, inode: int) -> None:
        try:
            await self._core.masters.expect(msg.Close(inode), msg.AttributesReply, user=ROOT)
        finally:
            self._core.count_writer(-1)

    async def _look(self) -> None:
        while self._is_unsure:
            self._is_unsure = False
            inodes = self._files.inodes()
            for start in range(0, len(inodes), LOOKED_AT_ONCE):
                await asyncio.gather(*map(self._look_at, inodes[start : start + LOOKED_AT_ONCE]))

    async def _look_at(self, inode: int) -> None:
        if self._files.find(inode) is None:
            return
        try:
            found = await self._core.masters.expect(msg.Stat(b"", inode), msg.AttributesReply, user=ROOT)
            if not found.attributes.links and self._files.find(inode) is not None:
                await self.hold(inode)
        except StaleHandle:
            log.warning("inode %d was removed while it was open, and no leader knew that", inode)

    def _in_background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _quietly(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except GfsError as error:
            log.warning("%s", error.message)
