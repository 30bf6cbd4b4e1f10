"""The sync API: the same calls as :mod:`gfsclient.filesystem`, for programs without an event loop.

The event loop runs in a thread of its own; data of open files is moved by the caller's thread. Any number of threads
may share one file system. It does not outlive a fork: the child gets an error, and opens its own.
"""

import asyncio
import atexit
import io
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from gfsclient import filesystem
from gfsclient.config import ClientConfig
from gfsclient.handle import FileHandle, ReadableBuffer
from gfsclient.namespace import NOW
from gfsclient.paths import PathLike, to_bytes
from gfsclient.transfer import Progress, Readable, Writable
from gfsclient.user import User
from gfsprotocol.errors import ConnectionLost, GfsError, InvalidArgument
from gfsprotocol.messages import Attributes, FileVersion, OpenFile, Space, Status, Summary, TrashEntry

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

READ_BYTES = 1 << 16
CLEAN_UP_SECONDS = 10.0
"""How long an interrupted call may take to undo what it has begun."""


class File(io.BufferedIOBase):
    """An open file, as :func:`open` gives for a binary one: it works with ``shutil``, ``json``, ``io.TextIOWrapper``.

    ``flush``, ``fsync`` and ``close`` promise what :class:`gfsclient.files.File` says.
    """

    def __init__(self, handle: FileHandle, mode: str, name: str) -> None:
        self._own = handle
        self.mode = mode
        self.name = name
        if handle.mode.writes:
            _open_for_writing.add(self)

    @property
    def _handle(self) -> FileHandle:
        """InvalidArgument in a forked child: the parent goes on to use the file, and its connections."""
        if self._own.is_forked:
            raise InvalidArgument("a file cannot be used in a process forked from its own: open it again there")
        return self._own

    @property
    def inode(self) -> int:
        return self._own.inode

    @property
    def closed(self) -> bool:
        return self._own.closed or self._own.is_forked

    def readable(self) -> bool:
        return self._own.mode.reads

    def writable(self) -> bool:
        return self._own.mode.writes

    def seekable(self) -> bool:
        return True

    def read(self, n: int | None = -1, /) -> bytes:
        return self._handle.read(-1 if n is None else n)

    def read1(self, n: int = -1, /) -> bytes:
        return self._handle.read(n if n >= 0 else READ_BYTES)

    def readinto(self, buffer: Any, /) -> int:
        return self._handle.readinto(buffer)

    def readinto1(self, buffer: Any, /) -> int:
        return self._handle.readinto(buffer)

    def peek(self, n: int = 0, /) -> bytes:
        """Bytes from the position on, at least one before the end, without moving it; makes ``readline`` fast."""
        return self._handle.pread(self._handle.tell(), max(n, 4096))

    def pread(self, offset: int, n: int) -> bytes:
        return self._handle.pread(offset, n)

    def write(self, data: ReadableBuffer, /) -> int:  # type: ignore[override]
        return self._handle.write(data)

    def pwrite(self, offset: int, data: ReadableBuffer) -> int:
        return self._handle.pwrite(offset, data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def size(self) -> int:
        return self._handle.size()

    def truncate(self, size: int | None = None, /) -> int:
        return self._handle.truncate(size)

    def flush(self) -> None:
        if not self.closed:
            self._own.flush()

    def fsync(self) -> None:
        self._handle.fsync()

    def close(self) -> None:
        if not self.closed:
            self._own.close()


_open_for_writing: "weakref.WeakSet[File]" = weakref.WeakSet()


@atexit.register
def _close_what_is_left() -> None:
    """As Python's own files, ours are whole when the program has just ended; later there are no threads to do it."""
    for file in list(_open_for_writing):
        try:
            file.close()
        except GfsError as error:
            log.warning("%s was not closed, and cannot be any more: %s", file.name, error.message)


class FileSystem:
    """See :class:`gfsclient.filesystem.FileSystem`, whose calls these are; a context manager."""

    def __init__(self, loop: "_LoopThread", system: filesystem.FileSystem) -> None:
        self._loop = loop
        self._system = system

    @classmethod
    def connect(
        cls,
        masters: Sequence[str],
        key: str | bytes,
        *,
        user: User | None = None,
        deadline_seconds: float | None = None,
        config: ClientConfig | None = None,
    ) -> Self:
        return cls._start(
            lambda: filesystem.FileSystem.connect(
                masters, key, user=user, deadline_seconds=deadline_seconds, config=config
            )
        )

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None, *, user: User | None = None) -> Self:
        return cls._start(lambda: filesystem.FileSystem.from_config(path, user=user))

    @classmethod
    def _start(cls, connect: "Callable[[], Coroutine[Any, Any, filesystem.FileSystem]]") -> Self:
        loop = _LoopThread()
        try:
            return cls(loop, loop.run(connect()))
        except BaseException:
            loop.stop()
            raise

    def close(self) -> None:
        if self._loop.is_running:
            try:
                self._loop.run(self._system.close())
            finally:
                self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------ attributes

    def stat(self, path: PathLike, follow: bool = True) -> Attributes:
        return self._loop.run(self._system.stat(path, follow))

    def exists(self, path: PathLike) -> bool:
        return self._loop.run(self._system.exists(path))

    def is_dir(self, path: PathLike) -> bool:
        return self._loop.run(self._system.is_dir(path))

    def chmod(self, path: PathLike, mode: int, follow: bool = True) -> None:
        self._loop.run(self._system.chmod(path, mode, follow))

    def chown(self, path: PathLike, uid: int = -1, gid: int = -1, follow: bool = True) -> None:
        self._loop.run(self._system.chown(path, uid, gid, follow))

    def utime(
        self, path: PathLike, accessed_ns: int | None = NOW, modified_ns: int | None = NOW, follow: bool = True
    ) -> None:
        self._loop.run(self._system.utime(path, accessed_ns, modified_ns, follow))

    def truncate(self, path: PathLike, size: int) -> None:
        self._loop.run(self._system.truncate(path, size))

    def set_replication(self, path: PathLike, n: int) -> None:
        self._loop.run(self._system.set_replication(path, n))

    def access(self, path: PathLike, mask: int) -> bool:
        return self._loop.run(self._system.access(path, mask))

    def get_xattr(self, path: PathLike, name: PathLike, follow: bool = True) -> bytes:
        return self._loop.run(self._system.get_xattr(path, name, follow))

    def set_xattr(
        self,
        path: PathLike,
        name: PathLike,
        value: bytes,
        *,
        create: bool = False,
        replace: bool = False,
        follow: bool = True,
    ) -> None:
        self._loop.run(self._system.set_xattr(path, name, value, create=create, replace=replace, follow=follow))

    def list_xattrs(self, path: PathLike, follow: bool = True) -> list[str]:
        return self._loop.run(self._system.list_xattrs(path, follow))

    def remove_xattr(self, path: PathLike, name: PathLike, follow: bool = True) -> None:
        self._loop.run(self._system.remove_xattr(path, name, follow))

    # ----------------------------------------------------------------------------------------------------- directories

    def listdir(self, path: PathLike) -> list[str]:
        return self._loop.run(self._system.listdir(path))

    def scandir(self, path: PathLike) -> Iterator[tuple[str, Attributes]]:
        return self._iterate(self._system.scandir(path))

    def walk(self, path: PathLike) -> Iterator[tuple[str, list[str], list[str]]]:
        return self._iterate(self._system.walk(path))

    def _iterate(self, items: AsyncIterator[_Result]) -> Iterator[_Result]:
        async def following() -> tuple[_Result] | None:
            async for item in items:
                return (item,)
            return None

        while (found := self._loop.run(following())) is not None:
            yield found[0]

    def mkdir(self, path: PathLike, mode: int = 0o777, parents: bool = False) -> None:
        self._loop.run(self._system.mkdir(path, mode, parents))

    def make_file(self, path: PathLike, permissions: int = 0o666, exclusive: bool = False) -> Attributes:
        return self._loop.run(self._system.make_file(path, permissions, exclusive))

    def rmdir(self, path: PathLike) -> None:
        self._loop.run(self._system.rmdir(path))

    # ----------------------------------------------------------------------------------------------------------- names

    def remove(self, path: PathLike, expected: FileVersion | None = None) -> None:
        self._loop.run(self._system.remove(path, expected))

    def remove_tree(self, path: PathLike) -> None:
        self._loop.run(self._system.remove_tree(path))

    def rename(
        self,
        source: PathLike,
        target: PathLike,
        no_replace: bool = False,
        exchange: bool = False,
        expected: FileVersion | None = None,
    ) -> None:
        self._loop.run(self._system.rename(source, target, no_replace, exchange, expected))

    def link(self, source: PathLike, target: PathLike) -> None:
        self._loop.run(self._system.link(source, target))

    def symlink(self, target: PathLike, path: PathLike) -> None:
        self._loop.run(self._system.symlink(target, path))

    def readlink(self, path: PathLike) -> str:
        return self._loop.run(self._system.readlink(path))

    # ---------------------------------------------------------------------------------------------- trash and totals

    def move_to_trash(self, path: PathLike, keep_seconds: int = 86_400) -> TrashEntry:
        return self._loop.run(self._system.move_to_trash(path, keep_seconds))

    def list_trash(self) -> list[TrashEntry]:
        return self._loop.run(self._system.list_trash())

    def restore_trash(self, inode: int, path: PathLike | None = None) -> Attributes:
        return self._loop.run(self._system.restore_trash(inode, path))

    def empty_trash(self, inodes: Sequence[int] = ()) -> int:
        return self._loop.run(self._system.empty_trash(inodes))

    def summarize(self, path: PathLike) -> Summary:
        return self._loop.run(self._system.summarize(path))

    def space(self, deadline_seconds: float | None = None) -> Space:
        return self._loop.run(self._system.space(deadline_seconds))

    def status(self) -> Status:
        return self._loop.run(self._system.status())

    def list_open(self) -> list[OpenFile]:
        return self._loop.run(self._system.list_open())

    # ----------------------------------------------------------------------------------------------------------- files

    def open(
        self,
        path: PathLike,
        mode: str = "rb",
        *,
        replication: int = 0,
        chunk_bytes: int = 0,
        permissions: int = 0o666,
    ) -> File:
        place = to_bytes(path)
        opening = self._system.open_handle(place, mode, replication, chunk_bytes, permissions)
        return File(self._loop.run(opening), mode, os.fsdecode(place))

    def read_bytes(self, path: PathLike) -> bytes:
        return self._loop.run(self._system.read_bytes(path))

    def write_bytes(self, path: PathLike, data: ReadableBuffer, *, permissions: int = 0o666) -> None:
        self._loop.run(self._system.write_bytes(path, data, permissions=permissions))

    def append_record(self, path: PathLike, data: bytes, *, sync: bool = False) -> int:
        return self._loop.run(self._system.append_record(path, data, sync=sync))

    def put_file(
        self,
        local: str | os.PathLike[str],
        remote: PathLike,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        replication: int = 0,
        chunk_bytes: int = 0,
    ) -> int:
        return self._loop.run(
            self._system.put_file(
                local,
                remote,
                overwrite=overwrite,
                progress=progress,
                replication=replication,
                chunk_bytes=chunk_bytes,
            )
        )

    def put_stream(
        self,
        fileobj: Readable,
        remote: PathLike,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        replication: int = 0,
        chunk_bytes: int = 0,
        permissions: int = 0o644,
    ) -> int:
        return self._loop.run(
            self._system.put_stream(
                fileobj,
                remote,
                overwrite=overwrite,
                progress=progress,
                replication=replication,
                chunk_bytes=chunk_bytes,
                permissions=permissions,
            )
        )

    def get_file(
        self,
        remote: PathLike,
        local: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> int:
        return self._loop.run(self._system.get_file(remote, local, overwrite=overwrite, progress=progress))

    def get_stream(
        self,
        remote: PathLike,
        fileobj: Writable,
        offset: int = 0,
        length: int | None = None,
        *,
        progress: Progress | None = None,
    ) -> int:
        return self._loop.run(self._system.get_stream(remote, fileobj, offset, length, progress=progress))

    def checksum(self, path: PathLike) -> str:
        return self._loop.run(self._system.checksum(path))


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gfs-loop", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._process == os.getpid() and self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """The result of ``work``; if the waiting is interrupted (Ctrl-C), the work is cancelled and has ended first."""
        try:
            self._check()
        except BaseException:
            work.close()
            raise
        task: asyncio.Task[_Result] | None = None
        ended = threading.Event()
        result: Future[_Result] = Future()

        def end(done: asyncio.Task[_Result]) -> None:
            error = None if done.cancelled() else done.exception()
            if done.cancelled():
                result.cancel()
            elif error is not None:
                result.set_exception(error)
            else:
                result.set_result(done.result())
            ended.set()

        def start() -> None:
            nonlocal task
            task = self._loop.create_task(work)
            task.add_done_callback(end)

        self._loop.call_soon_threadsafe(start)
        try:
            return result.result()
        except BaseException:
            if not ended.is_set():
                self._loop.call_soon_threadsafe(lambda: task is not None and task.cancel())
                ended.wait(CLEAN_UP_SECONDS)
            raise

    def _check(self) -> None:
        if self._process != os.getpid():
            raise InvalidArgument("a file system cannot be used in a process forked from its own: open another there")
        if not self._thread.is_alive():
            raise ConnectionLost("the file system is closed")
        if threading.current_thread() is self._thread:
            raise InvalidArgument("the sync API cannot be used on its own event loop")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, which is the faster one; asyncio's on a platform that it does not support."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
