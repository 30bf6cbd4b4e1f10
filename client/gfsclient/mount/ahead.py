"""What programs will ask for next in a directory, fetched before they do: its attributes, and the bytes of small files.

Who looks up a few names of a directory, or reads a few of its small files, usually goes on with others (``ls -l``,
``tar``, ``grep``, a build). So the directory is listed a page at a time, into :class:`Remembered`, and small files are
located and read many at once: all questions of one turn of the event loop leave as one frame.

Bytes that were fetched ahead are used only at an open, when the master has just said that the file is what it was then:
close-to-open holds. Each directory pays for what it makes us fetch: entries and files that nobody asks for use up its
credit, those that are used bring more, so that jumping about in a large directory soon fetches nothing ahead.

Bounded: directories, names, bytes, and one request per directory under way. Belongs to the event loop.
"""

import asyncio
import logging
import stat
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Final

from gfsclient.core import Core
from gfsclient.mount.caching import Content, KernelCache, content_of
from gfsclient.mount.callers import ROOT
from gfsclient.mount.directories import PAGE_ENTRIES
from gfsclient.mount.remembered import Mark, Remembered
from gfsclient.quickreads import QUICK_BYTES_MAX
from gfsprotocol.errors import GfsError
from gfsprotocol.ids import MIB
from gfsprotocol.messages import Attributes, ChunkLocation, FileLocations, Invalidate, List, Listing, LocateFiles

log = logging.getLogger(__name__)

DIRECTORIES_MAX: Final = 256
NAMES_MAX: Final = 4 * PAGE_ENTRIES
"""Per directory: among which the next files are looked for."""
BYTES_MAX: Final = 32 * MIB
"""Of files fetched ahead and not read yet."""
BEGIN_AT: Final = 3
"""So many questions in one directory are one after the other."""
LIST_AT_MISSED: Final = 8
"""After so many questions for missing names, and twice as many, and so on, a directory is listed."""
WINDOW_MIN: Final = 8
WINDOW_MAX: Final = 64
"""Files fetched at a time."""
ENTRIES_PER_HIT: Final = 16
FILES_PER_HIT: Final = 8
"""What one that was used allows to be fetched for nothing."""
FILES_CREDIT: Final = 1024
HITS_PER_LOOK: Final = 8
FETCH_SECONDS: Final = 5.0


class _Directory:
    """What was asked for in one directory, and what was fetched."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        """Some that follow each other, in order."""
        self.is_complete = False
        self.task: asyncio.Task[None] | None = None
        self.lookups = 0
        """Since it was listed last: those that had to be asked of the master."""
        self.missed = 0
        self.entries_credit = PAGE_ENTRIES
        self.reads = 0
        """Of small files, that had to be asked of a chunk server."""
        self.hits = 0
        self.files_credit = FILES_CREDIT
        self.window = WINDOW_MIN
        self.fetched: set[int] = set()
        """Inodes, in this pass through the directory."""


class Ahead:
    """Fetches ahead for one mount."""

    def __init__(self, core: Core, cache: KernelCache, remembered: Remembered) -> None:
        self._core = core
        self._cache = cache
        self._remembered = remembered
        self._directories: OrderedDict[int, _Directory] = OrderedDict()
        self._contents: OrderedDict[int, tuple[Content, bytes]] = OrderedDict()
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------ what was asked

    def looked_up(self, directory: int, name: bytes) -> None:
        """The master was asked for a name, and there is something."""
        state = self._state(directory)
        state.lookups += 1
        if state.lookups >= BEGIN_AT:
            self._begin_listing(directory, state, name)

    def missed(self, directory: int) -> None:
        """The master was asked for a name, and there is nothing.

        Who makes files asks for many of those: once all names of the directory are known it need not ask any more. A
        directory that is too large for that is listed ever more rarely.
        """
        state = self._state(directory)
        state.missed += 1
        is_due = state.missed >= LIST_AT_MISSED and not state.missed & (state.missed - 1)
        if is_due and state.task is None and self._cache.freshness.is_current:
            state.task = self._start(state, self._list_whole(directory, state))

    def found(self, directory: int) -> None:
        """A name was known, or that it is missing."""
        state = self._directories.get(directory)
        if state is not None:
            state.entries_credit = min(PAGE_ENTRIES, state.entries_credit + ENTRIES_PER_HIT)

    def read(self, inode: int) -> None:
        """A small file is read whose bytes had not been fetched."""
        place = self._remembered.place(inode)
        if place is None:
            return
        state = self._state(place[0])
        if inode in state.fetched:
            state.fetched.clear()  # the directory is gone through once more
        state.reads += 1
        if state.reads < BEGIN_AT or state.task is not None:
            return
        if not self._knows(state, place[1]):
            self._begin_listing(place[0], state, place[1])
        else:
            self._begin_fetching(place[0], state, place[1], 1)

    def take(self, attributes: Attributes) -> bytes | None:
        """The bytes of a file that is being opened, if they were fetched and it has not changed since."""
        content, data = self._pop(attributes.inode)
        if data is None or content != content_of(attributes):
            return None
        place = self._remembered.place(attributes.inode)
        if place is not None and (state := self._directories.get(place[0])) is not None:
            state.files_credit = min(FILES_CREDIT, state.files_credit + FILES_PER_HIT)
            state.hits += 1
            if not state.hits % HITS_PER_LOOK:
                self._begin_fetching(place[0], state, place[1], state.window // 2)
        return data

    def _state(self, directory: int) -> _Directory:
        state = self._directories.get(directory)
        if state is None:
            state = self._directories[directory] = _Directory()
            if len(self._directories) > DIRECTORIES_MAX:
                self._directories.popitem(last=False)
        self._directories.move_to_end(directory)
        return state

    # --------------------------------------------------------------------------------------------------- attributes

    def _begin_listing(self, directory: int, state: _Directory, name: bytes) -> None:
        if state.task is None and state.entries_credit > 0 and self._cache.freshness.is_current:
            state.lookups = 0
            after = name if state.names and not state.is_complete else b""
            state.task = self._start(state, self._list(directory, state, after))

    async def _list(self, directory: int, state: _Directory, after: bytes) -> None:
        """A page of names behind ``after`` becomes known."""
        mark = self._remembered.mark()
        listing = await self._page(directory, after)
        names = self._learn(directory, listing, mark)
        state.entries_credit -= len(names)
        if after and state.names[-1:] <= [after]:
            names = state.names + names
        state.names = names[-NAMES_MAX:]
        state.is_complete = not after and not listing.more

    async def _list_whole(self, directory: int, state: _Directory) -> None:
        """All names become known, if they are no more than a page."""
        mark = self._remembered.mark()
        with self._remembered.gathering(directory) as gathering:
            listing = await self._page(directory, b"")
            if not listing.more:
                state.names = self._learn(directory, listing, mark)
                state.is_complete = True
                self._remembered.gathered(gathering, state.names)

    async def _page(self, directory: int, after: bytes) -> Listing:
        question = List(b"", directory, after=after, limit=PAGE_ENTRIES)
        return await self._core.masters.expect(question, Listing, FETCH_SECONDS, user=ROOT)

    def _learn(self, directory: int, listing: Listing, mark: Mark) -> list[bytes]:
        """The names that are listed; their attributes are kept."""
        for entry in listing.entries:
            self._remembered.learn(directory, entry.name, entry.attributes, mark)
        return [entry.name for entry in listing.entries]

    def _knows(self, state: _Directory, name: bytes) -> bool:
        return bool(state.names) and state.names[0] <= name <= state.names[-1]

    # -------------------------------------------------------------------------------------------------------- bytes

    def _begin_fetching(self, directory: int, state: _Directory, name: bytes, least: int) -> None:
        """Fetches the files behind ``name``, if there are at least so many to be fetched."""
        if state.task is not None or state.files_credit <= 0 or not self._cache.freshness.is_current:
            return
        files = self._next_files(directory, state, name)
        if len(files) >= least:
            state.task = self._start(state, self._fetch(state, files))

    def _next_files(self, directory: int, state: _Directory, name: bytes) -> list[Attributes]:
        names, start = state.names, bisect_right(state.names, name)
        files: list[Attributes] = []
        for number in range(start, start + min(len(names), 2 * state.window)):
            attributes = self._remembered.find(directory, names[number % len(names)])
            if attributes is not None and self._is_wanted(state, attributes):
                files.append(attributes)
                if len(files) == state.window:
                    break
        return files

    def _is_wanted(self, state: _Directory, attributes: Attributes) -> bool:
        return (
            0 < attributes.size <= QUICK_BYTES_MAX
            and stat.S_ISREG(attributes.mode)
            and attributes.inode not in state.fetched
            and attributes.inode not in self._contents
        )

    async def _fetch(self, state: _Directory, files: list[Attributes]) -> None:
        state.fetched.update(attributes.inode for attributes in files)
        state.files_credit -= len(files)
        state.window = min(WINDOW_MAX, 2 * state.window)
        mark = self._cache.mark()
        question = LocateFiles(tuple(attributes.inode for attributes in files))
        located = await self._core.masters.expect(question, FileLocations, FETCH_SECONDS, user=ROOT)
        self._core.servers.learn(located.servers)
        chunks: list[ChunkLocation] = []
        small: list[Attributes] = []
        for file in located.files:
            # What is not recorded of a chunk reads as zeros: such files go the long way.
            if file.chunk is not None and file.chunk.length == file.attributes.size:
                chunks.append(file.chunk)
                small.append(file.attributes)
        for attributes, data in zip(small, await self._core.quick.read_files(chunks, FETCH_SECONDS), strict=True):
            if data is not None and self._cache.is_fresh(attributes.inode, mark):
                self._keep(attributes, data)

    def _keep(self, attributes: Attributes, data: bytes) -> None:
        self._pop(attributes.inode)
        self._contents[attributes.inode] = (content_of(attributes), data)
        self._bytes += len(data)
        while self._bytes > BYTES_MAX:
            self._pop(next(iter(self._contents)))

    def _pop(self, inode: int) -> tuple[Content | None, bytes | None]:
        kept = self._contents.pop(inode, None)
        if kept is None:
            return None, None
        self._bytes -= len(kept[1])
        return kept

    # ------------------------------------------------------------------------------------------------------- common

    def invalidate(self, notice: Invalidate) -> None:
        """Others have changed this."""
        for inode in (*notice.inodes, *notice.removed):
            self._pop(inode)

    def drop_everything(self) -> None:
        """Nothing is known to be true any more."""
        self._contents.clear()
        self._bytes = 0

    def _start(self, state: _Directory, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._quietly(state, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _quietly(self, state: _Directory, work: Coroutine[None, None, None]) -> None:
        """Whoever asks for it will be told what is wrong."""
        try:
            await work
        except GfsError as error:
            log.debug("nothing was fetched ahead: %s", error.message)
        finally:
            state.task = None

    async def close(self) -> None:
        """Fetches nothing more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
