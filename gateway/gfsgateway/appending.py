"""One at a time puts bytes behind the end of a file: of two, each would write over what the other has written."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gfsclient.files import File
from gfsclient.filesystem import FileSystem
from gfsprotocol.errors import InvalidArgument


class IsBeingWritten(InvalidArgument):
    """Somebody else writes to the file."""


class Appending:
    """The files that this gateway has open for appending just now. Belongs to one event loop."""

    def __init__(self) -> None:
        self._inodes: set[int] = set()

    @asynccontextmanager
    async def opened(self, files: FileSystem, path: bytes) -> AsyncIterator[File]:
        """The file, open for writing here alone until it is closed. IsBeingWritten if somebody else has it open.

        Another client is known by the master, which counts a gateway once: two requests to this one we know ourselves.
        """
        file = await files.open(path, "r+b")
        inode = file.inode
        if file.attributes.open_writers > 1 or inode in self._inodes:
            await file.close()
            raise IsBeingWritten("the file is being written by another client")
        self._inodes.add(inode)
        try:
            async with file:
                yield file
        finally:
            self._inodes.discard(inode)
