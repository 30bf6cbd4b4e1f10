"""An open file of the async API."""

from types import TracebackType
from typing import Self

from gfsclient.core import Core
from gfsclient.handle import FileHandle, ReadableBuffer
from gfsclient.paths import encoded
from gfsprotocol.messages import Attributes, Data, GetXattr


class File:
    """A file opened by :meth:`gfsclient.filesystem.FileSystem.open`; an async context manager.

    Reads and writes move one position, as with :func:`open`; ``pread`` and ``pwrite`` do not. What was written is safe
    when ``flush`` (all replicas have it, readers see it), ``fsync`` or ``close`` (and it is on stable storage) return.
    A write that could not be carried out may be told by any of them. Calls of several tasks take turns.
    """

    def __init__(self, core: Core, handle: FileHandle) -> None:
        self._core = core
        self._handle = handle

    @property
    def inode(self) -> int:
        return self._handle.inode

    @property
    def attributes(self) -> Attributes:
        """As they were when it was opened; after :meth:`close` of a file that was written, as they are then."""
        return self._handle.attributes

    @property
    def closed(self) -> bool:
        return self._handle.closed

    async def read(self, n: int = -1) -> bytes:
        """Up to ``n`` bytes, all that are left if negative; fewer, and at last none, at the end of the file only."""
        ready = self._handle.read_ready(n)
        return ready if ready is not None else await self._core.in_thread(self._handle.read, n)

    async def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fills ``buffer`` as far as the file goes; how many bytes that is."""
        view = memoryview(buffer).cast("B")
        data = await self.read(
            len(view)
        )  # a private buffer: if we are cancelled, nothing arrives in the caller's later
        view[: len(data)] = data
        return len(data)

    async def pread(self, offset: int, n: int) -> bytes:
        """Up to ``n`` bytes at ``offset``; several at a time go side by side."""
        return await self._core.in_thread(self._handle.pread, offset, n)

    async def read_once(self, offset: int, n: int) -> bytes:
        """As :meth:`pread`, for who reads no more: nothing is fetched ahead; DataLost if not all can be had."""
        reader = self._handle.quick_reader
        data = None if reader is None else await reader.read_quickly(offset, n)
        return data if data is not None else await self._core.in_thread(self._handle.read_once, offset, n)

    async def write(self, data: ReadableBuffer) -> int:
        """Takes all of ``data``; waits only while too much is unacknowledged."""
        if self._handle.write_ready(data):
            return memoryview(data).nbytes
        return await self._core.in_thread(self._handle.write, data)

    async def pwrite(self, offset: int, data: ReadableBuffer) -> int:
        """Takes all of ``data`` for ``offset``; beyond the end, what is between reads as zeros."""
        return await self._core.in_thread(self._handle.pwrite, offset, data)

    async def seek(self, offset: int, whence: int = 0) -> int:
        """Moves the position, relative to the start (0), itself (1) or the end (2); the new one."""
        return await self._core.in_thread(self._handle.seek, offset, whence)

    async def tell(self) -> int:
        return self._handle.tell()

    async def size(self) -> int:
        """The file's size, with what was written here and not flushed yet."""
        return await self._core.in_thread(self._handle.size)

    async def truncate(self, size: int | None = None) -> int:
        """Cuts the file to ``size`` (by default: at the position) or extends it with zeros; its size then."""
        return await self._core.in_thread(self._handle.truncate, size)

    async def get_xattr(self, name: str) -> bytes:
        """The value of an extended attribute of this file, whatever it is called by now. NoSuchAttribute."""
        question = GetXattr(b"", self.inode, encoded(name))
        return (await self._core.masters.expect(question, Data)).data

    async def flush(self) -> None:
        """Returns when all replicas have acknowledged what was written, and readers see it."""
        await self._core.in_thread(self._handle.flush)

    async def fsync(self) -> None:
        """As :meth:`flush`, and it is on stable storage on every replica."""
        await self._core.in_thread(self._handle.fsync)

    async def close(self) -> None:
        """Makes all durable, as :meth:`fsync`, and ends the use of the file."""
        if not self._handle.close_ready():
            await self._core.in_thread(self._handle.close)

    async def abort(self) -> None:
        """Ends the use of the file and gives up what is not acknowledged."""
        self._handle.give_up()
        await self._core.in_thread(self._handle.abort)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
