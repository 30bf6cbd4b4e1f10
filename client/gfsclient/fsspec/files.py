"""Open files as fsspec has them: blocking ones, which any library takes for a local file, and async ones."""

import io
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from gfsclient import sync
from gfsclient.files import File
from gfsclient.fsspec.errors import as_os_errors
from gfsclient.handle import FileHandle, ReadableBuffer

if TYPE_CHECKING:
    from gfsclient.fsspec.filesystem import GfsFileSystem


class Publication(Protocol):
    """Gives a file that has no name yet its own."""

    def __call__(self) -> None: ...


class GfsFile(io.BufferedIOBase):
    """A file that was opened by ``open``: what :class:`gfsclient.sync.File` is, with errors that are OSErrors.

    In a transaction it has no name before :meth:`commit`, which comes after ``close``.
    """

    def __init__(
        self, fs: "GfsFileSystem", path: str, mode: str, handle: FileHandle, publish: Publication | None = None
    ) -> None:
        self.fs = fs
        """Kept: without it the connection would end while the file is open."""
        self.path = path
        self.mode = mode
        self.name = path
        self.blocksize = fs.blocksize
        self._handle = handle
        self._file = sync.File(handle, mode, path)
        self._publish = publish
        self._is_closed = False

    @property
    def full_name(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))

    @property
    def size(self) -> int:
        """In bytes, with what was written here."""
        with as_os_errors():
            return self._file.size()

    @property
    def loc(self) -> int:
        """The position."""
        return self._file.tell()

    @property
    def closed(self) -> bool:
        return self._is_closed or self._file.closed

    def readable(self) -> bool:
        return self._file.readable()

    def writable(self) -> bool:
        return self._file.writable()

    def seekable(self) -> bool:
        return True

    def read(self, n: int | None = -1, /) -> bytes:
        self._check_open()
        with as_os_errors():
            return self._file.read(n)

    def read1(self, n: int = -1, /) -> bytes:
        self._check_open()
        with as_os_errors():
            return self._file.read1(n)

    def readinto(self, buffer: Any, /) -> int:
        self._check_open()
        with as_os_errors():
            return self._file.readinto(buffer)

    def readinto1(self, buffer: Any, /) -> int:
        return self.readinto(buffer)

    def peek(self, n: int = 0, /) -> bytes:
        self._check_open()
        with as_os_errors():
            return self._file.peek(n)

    def write(self, data: ReadableBuffer, /) -> int:  # type: ignore[override]
        self._check_open()
        with as_os_errors():
            return self._file.write(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._check_open()
        with as_os_errors():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None, /) -> int:
        self._check_open()
        with as_os_errors():
            return self._file.truncate(size)

    def flush(self, force: bool = False) -> None:
        """All replicas have what was written, and readers see it; with ``force`` it is on stable storage."""
        if self.closed:
            return
        with as_os_errors():
            if force:
                self._file.fsync()
            else:
                self._file.flush()

    def close(self) -> None:
        """Everything is durable when this returns."""
        if self.closed:
            return
        self._is_closed = True
        with as_os_errors():
            if self._publish is None:
                self._file.close()
            else:
                self._file.fsync()

    def commit(self) -> None:
        """The end of a transaction: the file gets its name, in place of what had it before."""
        self.close()
        with as_os_errors():
            if self._publish is not None:
                self._publish()
            self._file.close()

    def discard(self) -> None:
        """The end of a transaction that failed: nothing of the file stays."""
        self._is_closed = True
        with as_os_errors():
            self._handle.abort()

    def _check_open(self) -> None:
        if self.closed and not self._handle.is_forked:  # of a forked one the file itself knows better what is wrong
            raise ValueError("I/O operation on closed file")


class AsyncGfsFile:
    """A file that was opened by ``open_async``; an async context manager."""

    def __init__(self, file: File, path: str, mode: str, size: int) -> None:
        self.path = path
        self.mode = mode
        self.size = size
        """In bytes, when it was opened."""
        self._file = file

    @property
    def closed(self) -> bool:
        return self._file.closed

    async def read(self, length: int = -1) -> bytes:
        """Up to ``length`` bytes, all that are left if negative; fewer at the end only."""
        with as_os_errors():
            return await self._file.read(length)

    async def write(self, data: ReadableBuffer) -> int:
        with as_os_errors():
            return await self._file.write(data)

    async def seek(self, offset: int, whence: int = 0) -> int:
        with as_os_errors():
            return await self._file.seek(offset, whence)

    async def tell(self) -> int:
        return await self._file.tell()

    async def flush(self, force: bool = False) -> None:
        """All replicas have what was written, and readers see it; with ``force`` it is on stable storage."""
        with as_os_errors():
            await (self._file.fsync() if force else self._file.flush())

    async def close(self) -> None:
        """Everything is durable when this returns."""
        with as_os_errors():
            await self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
