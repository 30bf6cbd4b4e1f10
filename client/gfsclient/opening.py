"""Opening files through the async API: what :class:`~gfsclient.filesystem.FileSystem` has of it."""

import asyncio
import stat
import time
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from gfsclient import paths
from gfsclient.core import Core
from gfsclient.files import File
from gfsclient.handle import FileHandle, OpenMode
from gfsclient.leases import FirstLease
from gfsclient.locations import ChunkMap
from gfsclient.namespace import Namespace
from gfsclient.paths import PathLike
from gfsclient.reader import FileReader
from gfsclient.upload import Upload
from gfsprotocol.errors import GfsError
from gfsprotocol.ids import ROOT_INODE
from gfsprotocol.messages import (
    Attributes,
    AttributesReply,
    Close,
    Create,
    Locate,
    Locations,
    OpenForWrite,
    Publish,
    Unlink,
)

UNDO_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that was opened for writing, with the lease on its first chunk if it came with it."""

    attributes: Attributes
    first: FirstLease | None


class Opening(Namespace):
    """The namespace, and its files' handles."""

    def __init__(self, core: Core) -> None:
        super().__init__(core.masters)
        self._core = core

    async def open(
        self,
        path: PathLike,
        mode: str = "rb",
        *,
        replication: int = 0,
        chunk_bytes: int = 0,
        permissions: int = 0o666,
    ) -> File:
        """Opens a file: ``r``, ``w``, ``a`` or ``x``, with ``+`` to read and write; always binary.

        ``replication``, ``chunk_bytes`` (0: the cluster's defaults) and ``permissions`` (the caller has applied its
        umask) are for a file that is made by it.
        """
        return File(
            self._core, await self.open_handle(paths.to_bytes(path), mode, replication, chunk_bytes, permissions)
        )

    async def open_handle(
        self,
        path: bytes,
        mode: str,
        replication: int = 0,
        chunk_bytes: int = 0,
        permissions: int = 0o666,
        allocate: bool = False,
    ) -> FileHandle:
        """What :meth:`open` opens, for code that runs in threads of its own (the sync API).

        ``allocate`` has a new file come with its first chunk, which saves a question before the first write.
        """
        flags = OpenMode.parse(mode)
        if not flags.writes:
            located = await self._masters.expect(Locate(path, ROOT_INODE), Locations)
            return FileHandle(self._core, path, flags, located.attributes, located)
        if not flags.creates:
            opened = await self._register(OpenForWrite(path))
        else:
            body = self._creation(path, permissions, replication, chunk_bytes, allocate)
            opened = await self._register(structs.replace(body, exclusive=flags.is_exclusive, truncate=flags.truncates))
        return FileHandle(self._core, path, flags, opened.attributes, first=opened.first)

    async def open_unnamed(
        self, directory: bytes, replication: int = 0, chunk_bytes: int = 0, permissions: int = 0o666
    ) -> FileHandle:
        """A new file without a name in ``directory``, open for writing; it goes away with its handle.

        Unless :meth:`publish` names it: so a file appears whole or not at all.
        """
        body = self._creation(directory, permissions, replication, chunk_bytes)
        opened = await self._register(structs.replace(body, anonymous=True))
        return FileHandle(self._core, directory, OpenMode.parse("w"), opened.attributes)

    async def begin_upload(
        self, remote: PathLike, *, replication: int = 0, chunk_bytes: int = 0, permissions: int = 0o644
    ) -> Upload:
        """A file without a name that :meth:`~gfsclient.upload.Upload.publish` puts at ``remote`` when it is whole."""
        place = paths.to_bytes(remote)
        handle = await self.open_unnamed(paths.parent(place), replication, chunk_bytes, permissions)
        return Upload(self._core, handle, place)

    async def publish(self, handle: FileHandle, path: PathLike, *, replace: bool = False) -> Attributes:
        """Names the file of :meth:`open_unnamed`, which stays open; what was flushed before is seen at once.

        ``replace`` puts it in place of an existing file; else AlreadyExists.
        """
        return await self._attributes(Publish(paths.to_bytes(path), inode=handle.inode, replace=replace))

    async def _open_for_put(
        self,
        remote: bytes,
        present: Attributes | None,
        replication: int,
        chunk_bytes: int,
        permissions: int,
        is_empty: bool,
    ) -> FileHandle:
        """A new file; one that replaces another gets its name by Publish, and has the permissions of the other."""
        if present is not None:
            permissions = stat.S_IMODE(present.mode) if stat.S_ISREG(present.mode) else 0o644
        is_new = present is None
        place = remote if is_new else paths.parent(remote)
        body = self._creation(place, permissions, replication, chunk_bytes, not is_empty)
        body = structs.replace(body, exclusive=is_new, anonymous=not is_new)
        opened = await self._register(body, made=remote if is_new else b"")
        return FileHandle(self._core, remote, OpenMode.parse("w"), opened.attributes, first=opened.first)

    async def _reader(self, path: PathLike) -> FileReader:
        located = await self._masters.expect(Locate(paths.to_bytes(path), ROOT_INODE), Locations)
        return FileReader(self._core, ChunkMap(self._core, located))

    # ------------------------------------------------------------------------------------------------ becoming a writer

    def _creation(
        self, path: bytes, permissions: int, replication: int, chunk_bytes: int, allocate: bool = False
    ) -> Create:
        """What makes a file; ``replication`` and ``chunk_bytes`` of 0 are as configured."""
        config = self._core.config
        return Create(
            path,
            mode=permissions,
            replication=replication or config.replication,
            chunk_bytes=chunk_bytes or config.chunk_bytes,
            # While some servers are avoided a chunk is asked for by itself, without those that failed a moment ago.
            allocate=allocate and not self._core.servers.excluded(),
        )

    async def _register(self, body: Create | OpenForWrite, made: bytes = b"") -> _Opened:
        """Makes us a writer. If we are cancelled meanwhile, that is undone first, or the file would stay open for ever.

        ``made`` is the path of a file that is not to stay either.
        """
        asked = time.monotonic()
        asking = asyncio.ensure_future(self._masters.expect(body, AttributesReply))
        try:
            reply = await asyncio.shield(asking)
            return _Opened(reply.attributes, FirstLease(reply.lease, asked) if reply.lease is not None else None)
        except asyncio.CancelledError:
            await asyncio.shield(self._unregister(asking, made))
            raise

    async def _unregister(self, asking: "asyncio.Future[AttributesReply]", made: bytes) -> None:
        await asyncio.wait([asking], timeout=UNDO_SECONDS)
        if not asking.done() or asking.exception() is not None:
            asking.cancel()
            return
        inode = asking.result().attributes.inode
        try:
            await self._masters.expect(Close(inode), AttributesReply, UNDO_SECONDS)
            if made and (await self.stat(made, follow=False)).inode == inode:
                await self._done(Unlink(made))
        except GfsError:
            return  # the masters close what is open when we are gone
