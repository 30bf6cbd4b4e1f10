"""A mount's operations on a small cluster, with a kernel that only writes down what it is told."""

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gfsclient.filesystem import FileSystem
from gfsclient.mount.answers import Answer
from gfsclient.mount.caching import KernelCache
from gfsclient.mount.operations import Operations
from gfsclient.watcher import Watcher
from gfsprotocol import messages as msg
from gfsprotocol.ids import ROOT_INODE
from gfsprotocol.messages import Attributes
from tests.client.smallcluster import SmallCluster, running

ROOT = (0, 0)
USER = (1000, 1000)


class NotedKernel:
    """What the kernel is told to drop."""

    def __init__(self) -> None:
        self.inodes: list[int] = []
        self.entries: list[tuple[int, bytes]] = []
        self.expired: list[int] = []
        self.stored: dict[int, bytes] = {}
        """What was put into the pages of a file."""

    def expire_attributes(self, inode: int) -> None:
        self.expired.append(inode)

    def store(self, inode: int, data: bytes) -> bool:
        self.stored[inode] = data
        return True

    def drop_inode(self, inode: int) -> None:
        self.inodes.append(inode)

    def drop_entry(self, directory: int, name: bytes) -> None:
        self.entries.append((directory, name))


class Mounted:
    """One mount, as its kernel sees it."""

    def __init__(self, files: FileSystem) -> None:
        core = files._core
        self.files = files
        self.masters = core.masters
        self.kernel = NotedKernel()
        self.cache = KernelCache(self.kernel)
        self.operations = Operations(core, self.cache)
        self.watcher = self.cache.freshness = Watcher(
            core.masters, self.operations.invalidate, self.operations.drop_everything
        )

    async def close(self) -> None:
        await self.operations.close()
        await self.watcher.close()

    async def create(self, name: bytes, flags: int = os.O_RDWR, mode: int = 0o644) -> tuple[int, int]:
        """(handle, inode) of a new file in the root."""
        number, answer = await self.operations.create(ROOT_INODE, name, mode, flags | os.O_CREAT, ROOT)
        return number, attributes_of(answer).inode

    async def write_file(self, name: bytes, data: bytes) -> int:
        """A file with this content, closed; its inode."""
        number, inode = await self.create(name)
        await self.operations.write(number, 0, data)
        await self.finish(number)
        return inode

    async def finish(self, number: int) -> None:
        """What close(2) of a last descriptor does."""
        await self.operations.flush(number)
        await self.operations.release(number)

    async def content(self, inode: int) -> bytes:
        """What a program reads that opens the file now."""
        number, _ = await self.operations.open(inode, os.O_RDONLY, ROOT)
        try:
            return bytes(await self.operations.read(number, 0, 1 << 20))
        finally:
            await self.finish(number)

    async def listed(self, inode: int = ROOT_INODE, room: int = 3) -> list[bytes]:
        """The names in a directory, asked for ``room`` at a time."""
        number = await self.operations.opendir(inode, ROOT)
        names: list[bytes] = []
        place = 0
        while True:
            count = 0

            def add(name: bytes, answer: Answer, after: int) -> bool:
                nonlocal count, place
                if count == room:
                    return False
                count += 1
                place = after
                names.append(name)
                return True

            await self.operations.readdir(number, place, add)
            if not count:
                await self.operations.releasedir(number)
                return names


class Asked(Counter[type]):
    """How many questions of each kind a mount has asked the masters."""

    def __init__(self, mount: Mounted) -> None:
        super().__init__()
        call = mount.masters.call

        async def counted(body: msg.RequestBody, *arguments: object, **named: object) -> msg.ReplyBody:
            self[type(body)] += 1
            return await call(body, *arguments, **named)  # type: ignore[arg-type]

        mount.masters.call = counted  # type: ignore[method-assign, assignment]


def attributes_of(answer: Answer) -> Attributes:
    assert answer.attributes is not None
    return answer.attributes


@asynccontextmanager
async def mounts(count: int = 1, **settings: object) -> AsyncIterator[tuple[SmallCluster, list[Mounted]]]:
    """A cluster, and so many mounts of it, each a client of its own."""
    async with running(**settings) as cluster:  # type: ignore[arg-type]
        made = [Mounted(cluster.connect()) for _ in range(count)]
        try:
            for mount in made:
                await mount.masters.connect()
            yield cluster, made
        finally:
            for mount in made:
                await mount.close()
