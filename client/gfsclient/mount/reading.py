"""Reads of one open file, as the kernel sends them: several programs in sequence, each in pieces, several at a time.

The kernel asks for the pieces of one sequential read side by side, but in order. Each sequence has a reader of its own,
which fetches ahead, and its pieces wait for their turn; whatever continues no sequence goes side by side.
"""

import asyncio
from collections import OrderedDict
from typing import Final

from gfsclient.core import Core
from gfsclient.locations import ChunkMap
from gfsclient.mount.ahead import Ahead
from gfsclient.quickreads import QUICK_BYTES_MAX
from gfsclient.reader import FileReader
from gfsprotocol.messages import Attributes, Locations

SEQUENCES_MAX: Final = 4
"""Per file."""
READERS_MAX: Final = 32
"""In all files together, which bounds what is fetched ahead."""


class Readers:
    """Which readers may fetch ahead: those used last, of all files."""

    def __init__(self, ahead: Ahead) -> None:
        self.ahead = ahead
        self._used: OrderedDict[FileReader, None] = OrderedDict()

    def used(self, reader: FileReader) -> None:
        self._used[reader] = None
        self._used.move_to_end(reader)
        if len(self._used) > READERS_MAX:
            oldest, _ = self._used.popitem(last=False)
            asyncio.get_running_loop().run_in_executor(None, oldest.close)

    def forget(self, reader: FileReader) -> None:
        if reader in self._used:
            del self._used[reader]
            asyncio.get_running_loop().run_in_executor(None, reader.close)


class _Sequence:
    def __init__(self, reader: FileReader) -> None:
        self.reader = reader
        self.expected = -1
        self.turn = asyncio.Lock()


class FileReads:
    """The reading side of an open file, as it was when it was located. Belongs to the event loop."""

    def __init__(self, core: Core, located: Locations, readers: Readers) -> None:
        self.chunks = ChunkMap(core, located)
        self._core = core
        self._readers = readers
        self._sequences: list[_Sequence] = []
        self._random = FileReader(core, self.chunks)
        self.whole = readers.ahead.take(located.attributes)
        """The file, if it is small and was fetched ahead."""

    @property
    def attributes(self) -> Attributes:
        return self.chunks.attributes

    async def read(self, offset: int, count: int) -> bytes | memoryview:
        """Up to ``count`` bytes at ``offset``; fewer at the end of the file.

        What is shown as a view is good until the caller awaits anything: then another read may have its place.
        """
        whole = self.whole
        if whole is not None and offset + count <= len(whole):
            return whole[offset : offset + count]
        sequence = self._sequence(offset)
        continues = sequence is not None and sequence.expected == offset
        if sequence is not None:
            sequence.expected = offset + count
        if not continues and count <= QUICK_BYTES_MAX and (data := await self._quick_read(offset, count)) is not None:
            if sequence is not None:
                sequence.reader.expect(offset + count)
            return data
        if sequence is None:
            return await self._core.in_thread(self._random.read_view, offset, count)
        self._readers.used(sequence.reader)
        async with sequence.turn:
            ready = sequence.reader.ready_view(offset, count)
            if ready is not None:
                return ready
            return await self._core.in_thread(sequence.reader.read_view, offset, count)

    async def _quick_read(self, offset: int, count: int) -> bytes | None:
        """The bytes, if they are easily had from the nearest replica."""
        data = await self._random.read_quickly(offset, count)
        if data is not None and not offset and self.attributes.size <= QUICK_BYTES_MAX:
            self._readers.ahead.read(self.chunks.inode)
        return data

    def _sequence(self, offset: int) -> _Sequence | None:
        """The one that this read continues; else a new or an idle one. None if all are busy."""
        for sequence in self._sequences:
            if sequence.expected == offset:
                return sequence
        if len(self._sequences) < SEQUENCES_MAX:
            sequence = _Sequence(FileReader(self._core, self.chunks))
            self._sequences.append(sequence)
            return sequence
        idle = next((sequence for sequence in self._sequences if not sequence.turn.locked()), None)
        if idle is not None:
            self._sequences.remove(idle)
            self._sequences.append(idle)
        return idle

    def close(self) -> None:
        """What was fetched ahead is dropped."""
        for sequence in self._sequences:
            self._readers.forget(sequence.reader)
        self._sequences.clear()
