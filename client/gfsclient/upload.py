"""A file that has no name until it is whole: what is written to it appears at once, with one Publish, or never."""

from gfsclient import paths
from gfsclient.core import Core
from gfsclient.handle import FileHandle, ReadableBuffer
from gfsclient.paths import PathLike
from gfsprotocol.messages import Attributes, AttributesReply, Done, FileVersion, Publish, SetAttributes, SetXattr


class Upload:
    """Made by :meth:`gfsclient.filesystem.FileSystem.begin_upload`; ended by :meth:`publish` or :meth:`discard`."""

    def __init__(self, core: Core, handle: FileHandle, path: bytes) -> None:
        self._core = core
        self._handle = handle
        self._path = path

    @property
    def is_over(self) -> bool:
        return self._handle.closed

    async def write(self, data: ReadableBuffer) -> None:
        """Takes all of ``data``; waits only while too much is unacknowledged."""
        if not self._handle.write_ready(data):
            await self._core.in_thread(self._handle.write, data)

    async def set_xattr(self, name: PathLike, value: bytes) -> None:
        """Sets an extended attribute of the file to be."""
        body = SetXattr(b"", self._handle.inode, paths.encoded(name), value)
        await self._core.masters.expect(body, Done)

    async def chown(self, uid: int, gid: int) -> None:
        """Sets owner and group of the file to be."""
        body = SetAttributes(b"", self._handle.inode, uid=uid, gid=gid)
        await self._core.masters.expect(body, AttributesReply)

    async def finish(self) -> None:
        """All that was written is on stable storage when this returns."""
        await self._core.in_thread(self._handle.fsync)

    async def publish(self, *, replace: bool = False, expected: FileVersion | None = None) -> Attributes:
        """Gives what :meth:`finish` made durable its name; what the file is like then.

        ``replace`` puts it in place of a file that is there; ``expected`` asks for that to be just this one, else
        ConditionFailed. After that, or AlreadyExists, one may try again.
        """
        body = Publish(self._path, inode=self._handle.inode, replace=replace, expected=expected)
        await self._core.masters.expect(body, AttributesReply)
        await self._core.in_thread(self._handle.close)
        return self._handle.attributes

    async def discard(self) -> None:
        """Gives everything up; nothing of it stays."""
        self._handle.give_up()
        await self._core.in_thread(self._handle.abort)
