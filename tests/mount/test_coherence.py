"""Two mounts of one cluster: what one has closed the other sees, and is told to drop what it kept."""

import asyncio
import os
import time
from collections.abc import Callable

from gfsclient.mount.answers import Changes
from gfsprotocol.ids import ROOT_INODE
from tests.mount.scene import ROOT, attributes_of, mounts


async def until(what: str, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.005)


async def test_close_to_open() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"one")
        assert await there.content(inode) == b"one"
        number, _ = await here.operations.open(inode, os.O_RDWR, ROOT)
        await here.operations.write(number, 0, b"two and more")
        await here.finish(number)
        assert await there.content(inode) == b"two and more"


async def test_what_the_kernel_keeps_is_dropped_when_others_change_it() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"one")
        await here.operations.close()
        kept = await there.operations.lookup(ROOT_INODE, b"file", ROOT)
        missing = await there.operations.lookup(ROOT_INODE, b"none", ROOT)
        assert kept.attributes_seconds > 0
        assert kept.entry_seconds > 0
        assert missing.attributes is None
        assert missing.entry_seconds > 0
        await here.operations.setattr(inode, Changes(mode=0o600), False, ROOT)
        await until("the attributes are dropped", lambda: inode in there.kernel.inodes)
        await here.operations.rename(ROOT_INODE, b"file", ROOT_INODE, b"none", False, False, ROOT)
        await until("the old name is dropped", lambda: (ROOT_INODE, b"file") in there.kernel.entries)
        await until("the missing name is dropped", lambda: (ROOT_INODE, b"none") in there.kernel.entries)
        assert not here.kernel.entries, "who makes a change knows of it"


async def test_pages_are_kept_while_nobody_else_writes() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"one")
        await here.operations.close()
        number, is_kept = await here.operations.open(inode, os.O_RDONLY, ROOT)
        assert is_kept, "they are what was written here"
        await here.finish(number)
        number, _ = await there.operations.open(inode, os.O_WRONLY, ROOT)
        await there.operations.write(number, 0, b"two")
        await there.finish(number)
        number, is_kept = await here.operations.open(inode, os.O_RDONLY, ROOT)
        assert not is_kept
        assert await here.operations.read(number, 0, 10) == b"two"
        await here.finish(number)


async def test_appends_follow_what_others_have_appended() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"log", b"1")
        mine, _ = await here.operations.open(inode, os.O_WRONLY | os.O_APPEND, ROOT)
        theirs, _ = await there.operations.open(inode, os.O_WRONLY | os.O_APPEND, ROOT)
        await there.operations.write(theirs, 1, b"22")
        await there.operations.flush(theirs)
        await until("the notice is here", lambda: inode in here.kernel.inodes)
        await here.operations.write(mine, 1, b"333")
        await here.finish(mine)
        await there.finish(theirs)
        assert await there.content(inode) == b"122333"


async def test_a_file_that_another_has_cut_is_written_from_its_new_end() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"log", b"a long beginning")
        mine, _ = await here.operations.open(inode, os.O_WRONLY | os.O_APPEND, ROOT)
        await here.operations.write(mine, 16, b" and more")
        await here.operations.flush(mine)
        await there.operations.setattr(inode, Changes(size=0), False, ROOT)
        await until("the notice is here", lambda: inode in here.kernel.inodes)
        await here.operations.write(mine, 25, b"anew")
        await here.finish(mine)
        assert await there.content(inode) == b"anew"


async def test_a_file_that_another_removes_can_be_read_on() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"content")
        await here.operations.close()
        number, _ = await there.operations.open(inode, os.O_RDONLY, ROOT)
        await here.operations.unlink(ROOT_INODE, b"file", ROOT)
        file = there.operations.files.find(inode)
        assert file is not None
        await until("it is held", lambda: file.holds == 1)
        assert await there.operations.read(number, 0, 100) == b"content"
        assert attributes_of(await there.operations.getattr(inode, ROOT)).links == 0
        await there.finish(number)


async def test_nothing_is_kept_without_a_leader_that_tells() -> None:
    async with mounts() as (_, [mount]):
        inode = await mount.write_file(b"file", b"x")
        await mount.operations.close()
        await mount.operations.lookup(ROOT_INODE, b"file", ROOT)
        mount.cache.drop_everything()
        assert inode in mount.kernel.inodes
        assert (ROOT_INODE, b"file") in mount.kernel.entries
        await mount.watcher.close()
        answer = await mount.operations.lookup(ROOT_INODE, b"file", ROOT)
        assert (answer.attributes_seconds, answer.entry_seconds) == (0.0, 0.0)
