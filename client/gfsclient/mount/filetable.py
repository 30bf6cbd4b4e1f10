"""All open files of a mount: handles by number, files by inode, and those that are being closed in the background."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from gfsclient.core import Core
from gfsclient.mount.caching import KernelCache
from gfsclient.mount.openfiles import Access, Handle, OpenFile
from gfsclient.mount.reading import Readers
from gfsclient.syncing import Syncer
from gfsclient.user import User
from gfsprotocol.errors import GfsError, StaleHandle

log = logging.getLogger(__name__)

CLOSING_MAX: Final = 1024
"""So many files may wait for their end in the background; then opening another for writing waits, too."""
SETTLING_AT_ONCE: Final = 8
GATHER_SECONDS: Final = 0.1
"""Files that were closed within so long of each other are ended together: they share a request to each of their
servers, an fsync there, and a commit of the log."""
LOST_MAX: Final = 1024
"""Files of which an error is remembered that came when no program had them open any more."""


class FileTable:
    """Belongs to the event loop."""

    def __init__(self, core: Core, cache: KernelCache, readers: Readers) -> None:
        self._core = core
        self._cache = cache
        self._files: dict[int, OpenFile] = {}
        self._handles: dict[int, Handle] = {}
        self._next_number = 1
        self._readers = readers
        self._lost: dict[int, GfsError] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._syncer = Syncer(core)
        self._turn = asyncio.Semaphore(SETTLING_AT_ONCE)
        self._next_round: asyncio.Event | None = None
        self._gathers = True
        """Whether files wait for others to be ended with; not at the end of the mount."""

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> Handle:
        handle = self._handles.get(number)
        if handle is None:
            raise StaleHandle(f"handle {number} is not open")
        return handle

    def find(self, inode: int) -> OpenFile | None:
        """The file's state if it is open, or still being closed."""
        return self._files.get(inode)

    @asynccontextmanager
    async def using(self, inode: int) -> AsyncIterator[OpenFile]:
        """The file's state, which stays while the block runs, and afterwards if a handle was added in it."""
        file = self._files.get(inode)
        if file is None:
            file = self._files[inode] = OpenFile(self._core, self._cache, self._readers, inode)
        file.users += 1
        try:
            yield file
        finally:
            file.users -= 1
            self.end_if_unused(file)

    def inodes(self) -> list[int]:
        """Those of the files that are open, or still being closed."""
        return list(self._files)

    def add(self, file: OpenFile, access: Access, user: User) -> Handle:
        """A new handle. One that writes is to tell what nobody was told of, if it has not just cut that off."""
        handle = Handle(file, access, user)
        if access.writes:
            error = self._lost.pop(file.inode, None)
            handle.error = None if access.truncates else error
        handle.number = self._next_number
        self._next_number += 1
        self._handles[handle.number] = handle
        file.handles.add(handle)
        return handle

    def release(self, handle: Handle) -> None:
        """The last descriptor of a handle is closed: if it was the file's last one, the file is ended behind us."""
        del self._handles[handle.number]
        handle.file.handles.discard(handle)
        self.end_if_unused(handle.file)

    async def make_room(self) -> None:
        """Waits while too many files are being closed."""
        while len(self._closing) >= CLOSING_MAX:
            await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)

    def tell_lost(self, inode: int) -> None:
        """Raises the error that came when no program had the file open for writing, if nobody was told of it."""
        error = self._lost.pop(inode, None)
        if error is not None:
            raise error

    def end_if_unused(self, file: OpenFile) -> None:
        """Ends behind us what no handle of the file needs any more."""
        if file.users or file.is_writing or (file.handles and file.writer is None):
            return
        if file.writer is None and not file.holds:
            self._drop(file)
            return
        task = asyncio.create_task(self._end(file))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _drop(self, file: OpenFile) -> None:
        if not file.handles and not file.users and self._files.get(file.inode) is file:
            file.forget_reads()
            del self._files[file.inode]

    async def _end(self, file: OpenFile) -> None:
        """Behind the program's back: nothing here is waited for by anyone, unless the file is opened again."""
        await self._settle(file)
        async with file.lock:
            if self._is_used(file):
                return
            try:
                await file.end_writing()
            except GfsError as error:
                self._remember(file, error)
            if not file.handles:
                await file.release_holds()
            if file.writer is None and not file.holds:
                self._drop(file)

    async def _settle(self, file: OpenFile) -> None:
        """Makes durable what was written, together with what else is closed at this time."""
        await self._round()
        await self._sync(file)
        if file.is_settled:
            return
        async with self._turn, file.lock:
            if self._is_used(file):
                return
            try:
                await file.settle()
            except GfsError as error:
                self._remember(file, error)
        await self._round()

    def _remember(self, file: OpenFile, error: GfsError) -> None:
        """Whoever opens the file for writing next, or syncs it, is told."""
        log.warning("inode %d: what was written last may be lost: %s", file.inode, error.message)
        if len(self._lost) >= LOST_MAX:
            del self._lost[next(iter(self._lost))]
        self._lost[file.inode] = error

    async def _sync(self, file: OpenFile) -> None:
        """Together with other files, as far as that goes. Without the lock: what is written meanwhile is not meant."""
        writer = file.writer
        chunks = writer.unsynced() if writer is not None and not self._is_used(file) else []
        if writer is not None and chunks:
            done = await self._syncer.sync(chunks)
            writer.synced(chunk for chunk, is_synced in zip(chunks, done, strict=True) if is_synced)

    @staticmethod
    def _is_used(file: OpenFile) -> bool:
        """Whether it was opened again meanwhile."""
        return bool(file.users) or file.is_writing

    async def _round(self) -> None:
        """Returns when it is time for all who wait here."""
        if self._next_round is None:
            self._next_round = asyncio.Event()
            asyncio.get_running_loop().call_later(GATHER_SECONDS if self._gathers else 0.0, self._begin_round)
        await self._next_round.wait()

    def _begin_round(self) -> None:
        if self._next_round is not None:
            self._next_round.set()
            self._next_round = None

    async def close(self) -> None:
        """Ends all files, durably; errors are in the log."""
        self._gathers = False
        for handle in list(self._handles.values()):
            self.release(handle)
        self._begin_round()
        while self._closing:
            await asyncio.wait(self._closing)
