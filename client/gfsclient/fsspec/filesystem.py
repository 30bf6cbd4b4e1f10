"""The file system class that fsspec finds under the protocol ``gfs``."""

import asyncio
import contextlib
import io
import os
import re
import stat
import weakref
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem, get_loop, sync, sync_wrapper
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.utils import isfilelike, stringify_path

from gfsclient.files import File
from gfsclient.filesystem import FileSystem
from gfsclient.fsspec.details import Details, details, followed
from gfsclient.fsspec.errors import as_os_errors
from gfsclient.fsspec.files import AsyncGfsFile, GfsFile
from gfsclient.fsspec.sessions import Access, Sessions
from gfsclient.handle import FileHandle
from gfsclient.paths import to_bytes
from gfsclient.transfer import Progress
from gfsclient.user import User
from gfsprotocol.errors import AlreadyExists, DirectoryNotEmpty, NotADirectory, NotFound

_Result = TypeVar("_Result")

_MASTERS = re.compile(r"^gfs://([^/]*:\d+)(?=/|$)")
"""What stands where other URLs have a host: addresses of masters. A first name without a port belongs to the path."""


class GfsFileSystem(AsyncFileSystem):
    """A cluster's file system, for synchronous programs and for asynchronous ones, as fsspec defines both.

    Connects when it is first used, and again in a forked child. Every failure is an OSError with the errno that POSIX
    has for it. Nothing about files is cached: what another client has changed is seen.
    """

    protocol = "gfs"
    root_marker = "/"
    blocksize = 4 << 20

    def __init__(
        self,
        *args: Any,
        config: str | os.PathLike[str] | None = None,
        masters: str | Sequence[str] | None = None,
        key: str | None = None,
        user: User | None = None,
        deadline_seconds: float | None = None,
        auto_mkdir: bool = True,
        **options: Any,
    ) -> None:
        """``config`` is a client's file of settings, looked for as every client does if it is not given.

        ``masters`` (``host:port``, several with commas between) and ``key`` take the place of what is there. ``user``
        is in whose name to act. ``auto_mkdir`` makes missing directories above what is written, as HDFS does. The
        other options are those of fsspec: ``asynchronous``, ``loop``, ``batch_size``, ``skip_instance_cache``.
        """
        super().__init__(*args, **options)
        self.auto_mkdir = auto_mkdir
        addresses = masters.split(",") if isinstance(masters, str) else tuple(masters or ())
        self._sessions = Sessions(Access(config, tuple(addresses), key or "", user, deadline_seconds))
        weakref.finalize(self, self._sessions.abandon).atexit = False

    # ------------------------------------------------------------------------------------------------- connection

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the synchronous calls; in a forked child another one than in its parent."""
        if self._pid != os.getpid():
            self._pid: int = os.getpid()
            self._loop = None if self.asynchronous else get_loop()
        return self._loop

    async def set_session(self) -> FileSystem:
        """The client that does the work on the running event loop."""
        with as_os_errors():
            return await self._sessions.current()

    async def _close(self) -> None:
        """Ends the connection of the running event loop."""
        with as_os_errors():
            await self._sessions.close()

    def close(self) -> None:
        """Ends all connections, of whatever event loop; used again, the file system connects again."""
        with as_os_errors():
            self._sessions.close_all()

    # ------------------------------------------------------------------------------------------------------ names

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = _MASTERS.sub("", str(stringify_path(path)))
        return "/" + text.removeprefix("gfs://").removeprefix("gfs::").strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        found = _MASTERS.match(path)
        return {"masters": found[1]} if found else {}

    # ------------------------------------------------------------------------------------------------- attributes

    async def _info(self, path: str, **_options: Any) -> Details:
        """A symbolic link is described as what it leads to, with ``islink`` and ``destination``."""
        name = self._strip_protocol(path)
        with as_os_errors():
            files = await self._sessions.current()
            attributes = await files.stat(name, follow=False)
            if stat.S_ISLNK(attributes.mode):
                return await followed(files, name, attributes)
            return details(name, attributes)

    async def _ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:
        """A link to a directory is listed as a ``link``, so that no walk goes in circles."""
        directory = self._strip_protocol(path)
        with as_os_errors():
            files = await self._sessions.current()
            try:
                listed = await self._list(files, directory)
            except NotADirectory:
                listed = [await self._info(directory)]
        return listed if detail else [each["name"] for each in listed]

    async def _list(self, files: FileSystem, directory: str) -> list[Details]:
        listed = []
        async for name, attributes in files.scandir(directory):
            path = f"{directory.rstrip('/')}/{name}"
            if stat.S_ISLNK(attributes.mode):
                found = await followed(files, path, attributes)
                listed.append(found | {"type": "link"} if found["type"] == "directory" else found)
            else:
                listed.append(details(path, attributes))
        return listed

    async def _exists(self, path: str, **_options: Any) -> bool:
        with as_os_errors():
            return await (await self._sessions.current()).exists(self._strip_protocol(path))

    async def _du(self, path: str, total: bool = True, maxdepth: int | None = None, **options: Any) -> Any:
        if not total or maxdepth is not None or options:
            return await super()._du(path, total=total, maxdepth=maxdepth, **options)
        with as_os_errors():
            return (await (await self._sessions.current()).summarize(self._strip_protocol(path))).bytes

    async def _modified(self, path: str) -> datetime:
        return datetime.fromtimestamp((await self._info(path))["mtime"], UTC)

    modified = sync_wrapper(_modified)

    # ------------------------------------------------------------------------------------------------ directories

    async def _mkdir(self, path: str, create_parents: bool = True, **_options: Any) -> None:
        name = self._strip_protocol(path)
        with as_os_errors():
            files = await self._sessions.current()
            await self._with_parents(files, name, lambda: files.mkdir(name), is_wanted=create_parents)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        if not exist_ok:
            await self._mkdir(path)
            return
        with as_os_errors():
            await (await self._sessions.current()).mkdir(self._strip_protocol(path), parents=True)

    async def _rmdir(self, path: str) -> None:
        with as_os_errors():
            await (await self._sessions.current()).rmdir(self._strip_protocol(path))

    rmdir = sync_wrapper(_rmdir)

    async def _with_parents(
        self, files: FileSystem, path: str, work: Callable[[], Awaitable[_Result]], is_wanted: bool | None = None
    ) -> _Result:
        """The result of ``work``, which is done again when it has failed because a directory above was missing."""
        try:
            return await work()
        except NotFound:
            if not (self.auto_mkdir if is_wanted is None else is_wanted):
                raise
        await files.mkdir(self._parent(path), parents=True)
        return await work()

    # ----------------------------------------------------------------------------------------- removal and moving

    async def _rm_file(self, path: str, **_options: Any) -> None:
        with as_os_errors():
            await (await self._sessions.current()).remove(self._strip_protocol(path))

    async def _rm(
        self,
        path: str | list[str],
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **_options: Any,
    ) -> None:
        """A whole tree goes in one step, however large it is. With ``maxdepth`` what lies deeper stays."""
        if not recursive:
            await super()._rm(path, batch_size=batch_size)
            return
        if maxdepth is None:
            with as_os_errors():
                files = await self._sessions.current()
                for name in await self._expand_path(path):
                    await files.remove_tree(name)
            return
        for name in reversed(await self._expand_path(path, recursive=True, maxdepth=maxdepth)):
            await self._rm_shallow(name)

    async def _rm_shallow(self, path: str) -> None:
        with as_os_errors():
            files = await self._sessions.current()
            if not stat.S_ISDIR((await files.stat(path, follow=False)).mode):
                await files.remove(path)
                return
            with contextlib.suppress(DirectoryNotEmpty):  # what keeps it is below the depth that was asked for
                await files.rmdir(path)

    async def _mv_file(self, path1: str, path2: str) -> None:
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        with as_os_errors():
            files = await self._sessions.current()
            try:
                await files.rename(source, target)
            except NotFound:
                await files.stat(source, follow=False)
                if not self.auto_mkdir:
                    raise
                await files.mkdir(self._parent(target), parents=True)
                await files.rename(source, target)

    async def _mv(self, path1: str | list[str], path2: str | list[str], **_options: Any) -> None:
        """Renames, each in one step: into ``path2`` if that is a directory, else to it."""
        if isinstance(path1, list) and isinstance(path2, list):
            pairs = list(zip(path1, path2, strict=True))
        else:
            assert isinstance(path2, str)
            sources = await self._expand_path(path1)
            is_into = isinstance(path1, list) or len(sources) > 1 or path2.endswith("/") or await self._isdir(path2)
            target = self._strip_protocol(path2)
            pairs = [(each, f"{target.rstrip('/')}/{Path(each).name}" if is_into else target) for each in sources]
        for source, target in pairs:
            await self._mv_file(source, target)

    mv = sync_wrapper(_mv)

    # ---------------------------------------------------------------------------------------------- whole contents

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_options: Any) -> bytes:
        name = self._strip_protocol(path)
        with as_os_errors():
            files = await self._sessions.current()
            if start is None and end is None:
                return await files.read_bytes(name)
            async with await files.open(name) as file:
                first, last, _ = slice(start, end).indices(await file.size())
                return await file.pread(first, max(0, last - first))

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_options: Any) -> None:
        """What was there is replaced in one step; ``mode="create"`` refuses it."""

        async def put(files: FileSystem, name: str, overwrite: bool) -> None:
            await files.put_stream(io.BytesIO(value), name, overwrite=overwrite)

        await self._store(path, mode, put)

    async def _put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Callback = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **_options: Any,
    ) -> None:
        if await asyncio.to_thread(Path(lpath).is_dir):
            await self._makedirs(rpath, exist_ok=True)
            return

        async def put(files: FileSystem, name: str, overwrite: bool) -> None:
            await files.put_file(lpath, name, overwrite=overwrite, progress=_told(callback))

        await self._store(rpath, mode, put)

    async def _cp_file(self, path1: str, path2: str, **_options: Any) -> None:
        source = self._strip_protocol(path1)
        info = await self._info(source)
        if info["type"] == "directory":
            await self._makedirs(path2, exist_ok=True)
            return

        async def put(files: FileSystem, name: str, overwrite: bool) -> None:
            opened = await files.open_handle(to_bytes(source), "r")
            try:
                await files.put_stream(opened, name, overwrite=overwrite, permissions=info["mode"] & 0o777)
            finally:
                await asyncio.to_thread(opened.close)

        await self._store(path2, "overwrite", put)

    async def _store(self, path: str, mode: str, put: Callable[[FileSystem, str, bool], Awaitable[None]]) -> None:
        name = self._strip_protocol(path)
        overwrite = mode == "overwrite"
        with as_os_errors():
            files = await self._sessions.current()
            try:
                await self._with_parents(files, name, lambda: put(files, name, overwrite))
            except AlreadyExists:
                if not overwrite:
                    raise
                await put(files, name, True)  # made by somebody else while we found that it was not there

    async def _get_file(self, rpath: str, lpath: Any, callback: Callback = DEFAULT_CALLBACK, **_options: Any) -> None:
        name = self._strip_protocol(rpath)
        with as_os_errors():
            files = await self._sessions.current()
            if isfilelike(lpath):
                await files.get_stream(name, lpath, progress=_told(callback))
            elif await files.is_dir(name):
                await asyncio.to_thread(Path(lpath).mkdir, parents=True, exist_ok=True)
            else:
                await asyncio.to_thread(Path(lpath).parent.mkdir, parents=True, exist_ok=True)
                await files.get_file(name, lpath, overwrite=True, progress=_told(callback))

    async def _touch(self, path: str, truncate: bool = True, **_options: Any) -> None:
        name = self._strip_protocol(path)
        with as_os_errors():
            files = await self._sessions.current()
            attributes = await self._with_parents(files, name, lambda: files.make_file(name))
            if truncate and attributes.size:
                await files.truncate(name, 0)
            else:
                await files.utime(name)

    touch = sync_wrapper(_touch)

    # ------------------------------------------------------------------------------------------------- open files

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,  # noqa: ARG002
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,  # noqa: ARG002
        *,
        replication: int = 0,
        chunk_bytes: int = 0,
        **_options: Any,
    ) -> GfsFile:
        """``block_size`` and ``cache_options`` have no meaning here: the client reads ahead by itself."""
        if not autocommit and mode not in ("rb", "wb", "xb"):
            raise ValueError(f"in a transaction a file can be written as a whole only, not opened as '{mode}'")
        is_deferred = not autocommit and mode != "rb"
        name = self._strip_protocol(path)
        handle = sync(self.loop, self._open_handle, name, mode, is_deferred, replication, chunk_bytes)

        def publish() -> None:
            sync(self.loop, self._publish, handle, name, mode == "wb")

        return GfsFile(self, name, mode, handle, publish if is_deferred else None)

    async def _open_handle(
        self, name: str, mode: str, is_deferred: bool, replication: int, chunk_bytes: int
    ) -> FileHandle:
        with as_os_errors():
            files = await self._sessions.current()

            async def opening() -> FileHandle:
                if is_deferred:
                    return await files.open_unnamed(to_bytes(self._parent(name)), replication, chunk_bytes)
                return await files.open_handle(to_bytes(name), mode, replication, chunk_bytes)

            return await (opening() if "r" in mode else self._with_parents(files, name, opening))

    async def _publish(self, handle: FileHandle, name: str, replace: bool) -> None:
        with as_os_errors():
            await (await self._sessions.current()).publish(handle, name, replace=replace)

    async def open_async(
        self, path: str, mode: str = "rb", *, replication: int = 0, chunk_bytes: int = 0, **options: Any
    ) -> AsyncGfsFile:
        """Opens a file for a program with an event loop; binary, without compression."""
        if "b" not in mode or options.get("compression"):
            raise ValueError("an async file is binary and not compressed")
        name = self._strip_protocol(path)
        with as_os_errors():
            files = await self._sessions.current()

            async def opening() -> File:
                return await files.open(name, mode, replication=replication, chunk_bytes=chunk_bytes)

            file = await (opening() if "r" in mode else self._with_parents(files, name, opening))
            return AsyncGfsFile(file, name, mode, await file.size())


def _told(callback: Callback) -> Progress | None:
    """Progress as fsspec's callbacks hear it."""
    if callback is DEFAULT_CALLBACK:
        return None

    def tell(done: int, total: int | None) -> None:
        callback.set_size(total)
        callback.absolute_update(done)

    return tell
