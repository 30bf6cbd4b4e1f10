"""The async API of the file system: what a person would call."""

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from blake3 import blake3

from gfsclient import paths, transfer
from gfsclient.append import Appenders
from gfsclient.config import ClientConfig, load_config
from gfsclient.core import Core
from gfsclient.handle import FileHandle, ReadableBuffer
from gfsclient.masters import Masters
from gfsclient.opening import Opening
from gfsclient.paths import PathLike
from gfsclient.reader import FileReader
from gfsclient.transfer import Progress, Stop
from gfsclient.user import Acting, User, checked, process_user
from gfsprotocol.errors import GfsError, IsADirectory, NotFound, StaleHandle
from gfsprotocol.messages import Attributes, Unlink
from gfsprotocol.settings import load

APPEND_CHECK_SECONDS: Final = 5.0
STOP_SECONDS: Final = 5.0

_Result = TypeVar("_Result")


class FileSystem(Opening):
    """A cluster's file system. Made by :meth:`connect` or :meth:`from_config`; an async context manager.

    Belongs to the event loop on which it was made. Failovers of masters and failures of chunk servers are not seen by
    the caller as long as ``deadline_seconds`` without progress have not passed.
    """

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._appenders = Appenders(core)
        self._janitor: asyncio.Task[None] | None = None
        self._is_borrowed = False

    @classmethod
    async def connect(
        cls,
        masters: Sequence[str],
        key: str | bytes,
        *,
        user: User | None = None,
        deadline_seconds: float | None = None,
        config: ClientConfig | None = None,
    ) -> Self:
        """Connects to the cluster whose masters listen on these ``host:port``, with the clients' key (or its hex).

        ``user`` is in whose name to act: uid, gid and groups; by default those of the process. Raises Unreachable,
        with what was tried, when no master leads until the deadline, and AuthenticationFailed for a wrong key.
        """
        given: dict[str, Any] = {"masters": list(masters), "key": key.hex() if isinstance(key, bytes) else key}
        if deadline_seconds is not None:
            given["deadline_seconds"] = deadline_seconds
        known = config.model_dump() if config is not None else {}
        config = load(ClientConfig, None, known | given)
        acting = process_user() if user is None else checked(user)
        leaders = Masters(
            config.masters,
            config.key_bytes,
            acting,
            config.deadline_seconds,
            read_from_standby=config.read_from == "standby",
        )
        try:
            await leaders.connect()
        except BaseException:
            await leaders.close()
            raise
        return cls(Core(config, leaders))

    @classmethod
    async def from_config(cls, path: str | os.PathLike[str] | None = None, *, user: User | None = None) -> Self:
        """Connects to the cluster of a configuration file; see :func:`gfsclient.config.find_config` for which one."""
        config = load_config(path)
        return await cls.connect(config.masters, config.key, user=user, config=config)

    async def close(self) -> None:
        """Ends all connections and threads. Files that are still open are not made durable by it."""
        if self._janitor is not None:
            self._janitor.cancel()
            await asyncio.gather(self._janitor, return_exceptions=True)
        try:
            if not self._core.is_closed:
                await self._core.in_thread(self._appenders.close)
        finally:
            if not self._is_borrowed:
                await self._core.close()

    def acting_as(self, user: User, *, confined: Sequence[PathLike] = (), **settings: Any) -> Self:
        """This file system in another user's name, on the same connections and threads; some settings may differ.

        If ``confined`` names directories, the masters follow no symbolic link in a path, but above these directories:
        a path that begins with one of them leads nowhere else, whatever is renamed meanwhile. PermissionDenied for one
        that would have to. (A path with ``..`` is the caller's to refuse.) To be closed before this one.
        """
        directories = tuple(paths.to_bytes(path) for path in confined)
        other = type(self)(self._core.acting_as(Acting(checked(user), directories), **settings))
        other._is_borrowed = True
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # --------------------------------------------------------------------------------------------------- whole contents

    async def read_bytes(self, path: PathLike) -> bytes:
        """The whole content of a file."""
        reader = await self._reader(path)
        data = await reader.read_quickly(0, reader.chunks.size)
        return data if data is not None else await self._core.in_thread(reader.read_known)

    async def write_bytes(self, path: PathLike, data: ReadableBuffer, *, permissions: int = 0o666) -> None:
        """Makes ``data`` the whole content of a file, durably."""
        handle = await self.open_handle(paths.to_bytes(path), "w", permissions=permissions, allocate=bool(data))
        await self._core.in_thread(_write_and_close, handle, data)

    async def append_record(self, path: PathLike, data: bytes, *, sync: bool = False) -> int:
        """Appends ``data`` as one record, whole and at an offset that the system chooses and that is returned.

        Any number of clients may append at the same time. The record is on all replicas and visible when this returns;
        with ``sync`` it is on stable storage. It is not repeated by retries under one lease; after the failure of a
        replica it may be there twice (GFS §3.3). Between records there may be zeros, where one did not fit into a
        chunk. InvalidArgument for more than 1 MiB or a quarter of a chunk.
        """
        place = paths.to_bytes(path)
        self._watch_appenders()
        try:
            return await self._append(place, data, sync)
        except StaleHandle:
            return await self._append(place, data, sync)  # truncated or replaced: once more, into what is there now

    async def _append(self, path: bytes, data: bytes, sync: bool) -> int:
        attributes = await self.stat(path)
        return await self._core.in_thread(self._appenders.append, path, attributes, data, sync)

    def _watch_appenders(self) -> None:
        if self._janitor is None or self._janitor.done():
            self._janitor = asyncio.create_task(self._close_idle_appenders())

    async def _close_idle_appenders(self) -> None:
        is_any_left = True
        while is_any_left:
            await asyncio.sleep(APPEND_CHECK_SECONDS)
            with contextlib.suppress(GfsError):  # the masters close what could not be closed, when we are gone
                is_any_left = await self._core.in_thread(self._appenders.close_idle)

    # -------------------------------------------------------------------------------------------------------- transfer

    async def put_file(
        self,
        local: str | os.PathLike[str],
        remote: PathLike,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        replication: int = 0,
        chunk_bytes: int = 0,
    ) -> int:
        """Uploads a local file, durably; its length. AlreadyExists unless ``overwrite``, which keeps the old content
        until the new one is complete. OSError for what is wrong with the local file.
        """
        source = await self._core.in_thread(Path(local).open, "rb", 0)
        with source:
            details = os.fstat(source.fileno())
            if stat.S_ISDIR(details.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(local))
            total = details.st_size if stat.S_ISREG(details.st_mode) else None
            permissions = stat.S_IMODE(details.st_mode) & 0o777
            return await self._put(
                source, paths.to_bytes(remote), overwrite, progress, total, replication, chunk_bytes, permissions
            )

    async def put_stream(
        self,
        fileobj: transfer.Readable,
        remote: PathLike,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        replication: int = 0,
        chunk_bytes: int = 0,
        permissions: int = 0o644,
    ) -> int:
        """As :meth:`put_file`, from a binary file object, until its end."""
        return await self._put(
            fileobj, paths.to_bytes(remote), overwrite, progress, None, replication, chunk_bytes, permissions
        )

    async def get_file(
        self,
        remote: PathLike,
        local: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Downloads a file; its length. The local file appears when it is complete and on disk, or not at all.

        AlreadyExists if there is one, unless ``overwrite``; OSError for what the local file system refuses.
        """
        reader, stop = await self._reader(remote), Stop()
        work = self._core.in_thread(transfer.get_to_path, reader, Path(local), overwrite, stop, progress)
        return await _stoppable(work, stop.set)

    async def get_stream(
        self,
        remote: PathLike,
        fileobj: transfer.Writable,
        offset: int = 0,
        length: int | None = None,
        *,
        progress: Progress | None = None,
    ) -> int:
        """Writes a file's bytes from ``offset`` on, at most ``length``, to a binary file object; how many."""
        reader, stop = await self._reader(remote), Stop()
        work = self._core.in_thread(transfer.copy_out, reader, fileobj, stop, progress, offset, length)
        return await _stoppable(work, stop.set)

    async def checksum(self, path: PathLike) -> str:
        """The BLAKE3 digest of a file's content, in hexadecimal, computed while it is read."""
        reader, stop = await self._reader(path), Stop()
        return await _stoppable(self._core.in_thread(_checksum, reader, stop), stop.set)

    async def _put(
        self,
        source: transfer.Readable,
        remote: bytes,
        overwrite: bool,
        progress: Progress | None,
        total: int | None,
        replication: int,
        chunk_bytes: int,
        permissions: int,
    ) -> int:
        """A new file is listed as open meanwhile; one that replaces another has no name until it is complete."""
        present = await self._present(remote) if overwrite else None
        handle = await self._open_for_put(remote, present, replication, chunk_bytes, permissions, total == 0)
        stop = Stop()

        def give_up() -> None:
            stop.set()
            handle.give_up()

        try:
            count = await _stoppable(
                self._core.in_thread(transfer.copy_in, source, handle, stop, progress, total), give_up
            )
            if present is not None:
                await self._core.in_thread(handle.fsync)
                await self.publish(handle, remote, replace=True)
            await self._core.in_thread(handle.close)
        except BaseException as error:
            await asyncio.shield(self._discard(handle, present is None, error))
            raise
        return count

    async def _present(self, remote: bytes) -> Attributes | None:
        """What is to be replaced; IsADirectory if that is a directory."""
        try:
            present = await self.stat(remote, follow=False)
        except NotFound:
            return None
        if stat.S_ISDIR(present.mode):
            raise IsADirectory(f"{paths.to_text(remote)}: is a directory")
        return present

    async def _discard(self, handle: FileHandle, is_named: bool, error: BaseException) -> None:
        """After a failed upload nothing of it stays behind, if a master can be told so."""
        try:
            await self._core.in_thread(handle.abort)
            if is_named and (await self.stat(handle.path, follow=False)).inode == handle.inode:
                await self._done(Unlink(handle.path))
        except GfsError as second:
            error.add_note(f"{paths.to_text(handle.path)} is left incomplete: {second.message}")


async def _stoppable(work: Coroutine[Any, Any, _Result], stop: Callable[[], None]) -> _Result:
    """The result of work in a thread; if we are cancelled, the thread is told and waited for, for a while."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait([task], timeout=STOP_SECONDS)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise


def _checksum(reader: FileReader, stop: Stop) -> str:
    hasher = blake3()
    for view in reader.stream(0):
        stop.check()
        hasher.update(view)
    return hasher.hexdigest()


def _write_and_close(handle: FileHandle, data: ReadableBuffer) -> None:
    try:
        handle.write(data)
    except BaseException:
        handle.abort()
        raise
    handle.close()
