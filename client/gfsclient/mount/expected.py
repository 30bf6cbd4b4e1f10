"""Attributes of directories that the kernel is about to ask for, because a name in them was changed.

The kernel forgets what it knows of a directory when a program changes it, and asks anew before it walks the next path.
So the question is sent to the master right behind the change, in the same frame, and the answer is kept until the
kernel comes for it: one round trip less for each change.
"""

import asyncio
from typing import Final

from gfsclient.masters import Masters
from gfsclient.mount.caching import KernelCache
from gfsclient.mount.callers import ROOT
from gfsprotocol.errors import GfsError
from gfsprotocol.messages import Attributes, AttributesReply, Stat

EXPECTED_MAX: Final = 1024


class ExpectedDirectories:
    """Belongs to the event loop. Who changes a directory in any way calls :meth:`changes` or :meth:`forget` first."""

    def __init__(self, masters: Masters, cache: KernelCache) -> None:
        self._masters = masters
        self._cache = cache
        self._known: dict[int, tuple[Attributes, int]] = {}
        """By inode: what the master said, and the mark of the question."""
        self._asking: dict[int, asyncio.Task[None]] = {}

    def changes(self, *directories: int) -> None:
        """To be called right before a change of names in them is sent, without an await between."""
        for directory in dict.fromkeys(directories):
            self.forget(directory)
            if self._cache.freshness.is_current and len(self._asking) < EXPECTED_MAX:
                self._asking[directory] = asyncio.create_task(self._ask(directory, self._masters.detours))

    async def _ask(self, directory: int, detours: int) -> None:
        mark = self._cache.mark()
        try:
            reply = await self._masters.expect(Stat(b"", directory), AttributesReply, user=ROOT)
        except GfsError:
            return  # whoever needs it asks again, and is told the error
        finally:
            is_last = self._asking.get(directory) is asyncio.current_task()
            if is_last:
                del self._asking[directory]
        # The answer to a question that was overtaken by its change would be kept although it is old.
        if is_last and self._masters.detours == detours:
            if len(self._known) >= EXPECTED_MAX:
                self._known.clear()
            self._known[directory] = reply.attributes, mark

    def forget(self, inode: int) -> None:
        """It is changed: what is known, or was asked for, is not what the kernel will want to know."""
        self._known.pop(inode, None)
        self._asking.pop(inode, None)

    def forget_all(self) -> None:
        self._known.clear()
        self._asking.clear()

    def take(self, inode: int) -> tuple[Attributes, int] | None:
        """The attributes, once, and the mark that they were asked for at; None if they may have changed since."""
        known = self._known.pop(inode, None)
        return known if known is not None and self._cache.is_fresh(inode, known[1]) else None
