"""Two mounts of one cluster: what one has closed the other sees, and is told to drop what it kept."""

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from gfsclient.chunkstream import ChunkStream
from gfsclient.mount.answers import Changes
from gfsclient.mount.openfiles import PAGE_BYTES
from gfsprotocol.errors import AlreadyExists, NoSuchAttribute, StaleHandle
from gfsprotocol.ids import ROOT_INODE
from tests.mount.scene import ROOT, Asked, attributes_of, mounts


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


async def test_that_an_inode_has_no_extended_attributes_is_kept_until_someone_sets_one() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"one")
        await here.operations.close()
        await there.listed()
        asked = Asked(there)
        for _ in range(2):
            with pytest.raises(NoSuchAttribute):
                await there.operations.getxattr(inode, b"security.selinux", ROOT)
            assert await there.operations.listxattr(inode, ROOT) == ()
        assert not asked, "the listing has said so"
        await here.operations.setxattr(inode, b"user.colour", b"red", ROOT)
        await until("the attributes are dropped", lambda: inode in there.kernel.inodes)
        assert await there.operations.getxattr(inode, b"user.colour", ROOT) == b"red"
        await there.listed()
        assert await there.operations.listxattr(inode, ROOT) == (b"user.colour",)
        await there.operations.removexattr(inode, b"user.colour", ROOT)
        await there.listed()
        await there.operations.setxattr(inode, b"user.colour", b"blue", ROOT)
        assert await there.operations.getxattr(inode, b"user.colour", ROOT) == b"blue"


async def test_nothing_is_made_through_a_symlink_that_the_kernel_does_not_know() -> None:
    async with mounts(2) as (_, [here, there]):
        await there.operations.symlink(ROOT_INODE, b"link", b"target", ROOT)
        with pytest.raises(StaleHandle, match="has become a symlink"):
            await here.create(b"link")
        with pytest.raises(AlreadyExists):
            await here.create(b"link", os.O_RDWR | os.O_EXCL)
        assert await here.listed() == [b".", b"..", b"link"]


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


@pytest.mark.parametrize("direction", [os.O_WRONLY, os.O_RDWR])
@pytest.mark.parametrize("length", [1, PAGE_BYTES])
async def test_appends_follow_what_others_have_appended(direction: int, length: int) -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"log", b"1" * length)
        mine, _ = await here.operations.open(inode, direction | os.O_APPEND, ROOT)
        theirs, _ = await there.operations.open(inode, direction | os.O_APPEND, ROOT)
        await here.operations.getattr(inode, ROOT)
        for end, text in ((length, b"2"), (2 * length, b"4")):  # the kernel knows only what was appended on its mount
            await there.operations.write(theirs, end, text * length)
            await there.operations.flush(theirs)
            await until("the notice is here", lambda: inode in here.kernel.inodes)
            here.kernel.inodes.clear()
            await here.operations.write(mine, end, b"3" * length)
            await here.operations.flush(mine)
        await here.finish(mine)
        await there.finish(theirs)
        assert await there.content(inode) == b"".join(digit * length for digit in (b"1", b"2", b"3", b"4", b"3"))


async def test_mapped_memory_is_not_appended() -> None:
    async with mounts() as (_, [mount]):
        inode = await mount.write_file(b"file", b"." * (PAGE_BYTES + 10))
        number, _ = await mount.operations.open(inode, os.O_RDWR | os.O_APPEND, ROOT)
        await mount.operations.getattr(inode, ROOT)
        await mount.operations.write(number, PAGE_BYTES, b"mapped....")
        await mount.operations.write(number, PAGE_BYTES + 10, b"appended")
        await mount.operations.write(number, 0, b"m" * PAGE_BYTES)
        await mount.finish(number)
        assert await mount.content(inode) == b"m" * PAGE_BYTES + b"mapped....appended"


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


async def test_a_file_that_another_has_rewritten_longer_is_written_on() -> None:
    """What the writer here knows of the file's chunk is over, although the file is no shorter than it was."""
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"old")
        mine, _ = await here.operations.open(inode, os.O_RDWR, ROOT)
        await here.operations.write(mine, 3, b"er")
        await here.operations.flush(mine)
        theirs, _ = await there.operations.open(inode, os.O_WRONLY | os.O_TRUNC, ROOT)
        await there.operations.write(theirs, 0, b"new content")
        await there.finish(theirs)
        await until("the notice is here", lambda: here.cache.freshness.changed_since(inode, here.cache.mark() - 1))
        await here.operations.write(mine, 4, b"C")
        await here.operations.fsync(mine)
        assert await there.content(inode) == b"new Content"
        await here.finish(mine)


@pytest.mark.parametrize("size", [0, 2])
async def test_what_was_cut_off_elsewhere_before_it_was_durable_is_no_error(size: int) -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"one")
        number, _ = await here.operations.open(inode, os.O_WRONLY, ROOT)
        await here.operations.write(number, 0, b"two")
        await here.operations.flush(number)
        await there.operations.setattr(inode, Changes(size=size), False, ROOT)
        if size:
            theirs, _ = await there.operations.open(inode, os.O_WRONLY, ROOT)
            await there.operations.write(theirs, size, b"and more of it")
            await there.operations.fsync(theirs)  # under a new lease, with which the cut is made
            await there.finish(theirs)
        await here.operations.fsync(number)
        await here.finish(number)
        await here.operations.close()
        again, _ = await here.operations.open(inode, os.O_WRONLY, ROOT)
        await here.operations.write(again, 0, b"three")
        await here.operations.fsync(again)
        assert await there.content(inode) == (b"three more of it" if size else b"three")
        await here.finish(again)


async def test_a_chunk_that_is_replaced_while_its_writer_asks_for_it_needs_no_sync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"one")
        number, _ = await here.operations.open(inode, os.O_WRONLY, ROOT)
        await here.operations.write(number, 0, b"two")
        await here.operations.flush(number)
        await there.operations.setattr(inode, Changes(size=2), False, ROOT)
        theirs, _ = await there.operations.open(inode, os.O_WRONLY, ROOT)
        await there.operations.write(theirs, 2, b"more")
        await there.operations.fsync(theirs)
        loop, follow_cut = asyncio.get_running_loop(), ChunkStream._follow_cut

        def follow_and_be_late(stream: ChunkStream) -> bool:
            followed = follow_cut(stream)
            work = there.operations.setattr(inode, Changes(size=0), False, ROOT)
            asyncio.run_coroutine_threadsafe(work, loop).result()
            return followed

        monkeypatch.setattr(ChunkStream, "_follow_cut", follow_and_be_late)
        async with asyncio.timeout(20):
            await here.operations.fsync(number)
        await here.finish(number)
        await there.finish(theirs)
        assert await there.content(inode) == b""


async def test_what_is_gathered_when_others_cut_the_file_is_written_behind_the_cut() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"0123456789")
        number, _ = await here.operations.open(inode, os.O_WRONLY, ROOT)
        await here.operations.write(number, 0, b"a")
        await here.operations.fsync(number)
        mark = here.cache.mark()
        await here.operations.write(number, 1, b"b")
        await there.operations.setattr(inode, Changes(size=0), False, ROOT)
        await until("the notice is here", lambda: here.cache.freshness.changed_since(inode, mark))
        await here.operations.fsync(number)
        assert await there.content(inode) == b"\0b"
        await here.finish(number)


async def test_a_name_that_the_kernel_remembers_wrongly_is_looked_up_again() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"old")
        await here.operations.close()
        await there.operations.lookup(ROOT_INODE, b"file", ROOT)
        reader, _ = await there.operations.open(inode, os.O_RDONLY, ROOT)
        await here.write_file(b"new", b"new")
        await here.operations.rename(ROOT_INODE, b"new", ROOT_INODE, b"file", False, False, ROOT)
        file = there.operations.files.find(inode)
        assert file is not None
        await until("it is held", lambda: file.holds == 1)
        file.is_removed = False  # as if the notice were still on its way
        with pytest.raises(StaleHandle):
            await there.operations.open(inode, os.O_RDONLY, ROOT)
        by_descriptor, _ = await there.operations.open(inode, os.O_RDONLY, ROOT)
        assert await there.operations.read(by_descriptor, 0, 10) == b"old"
        await there.finish(by_descriptor)
        await there.finish(reader)
        await until("nobody needs it", lambda: there.operations.files.find(inode) is None)
        with pytest.raises(StaleHandle):
            await there.operations.open(inode, os.O_WRONLY, ROOT)


async def test_a_removed_file_is_read_on_after_its_writers_have_closed_it() -> None:
    async with mounts(2) as (_, [here, there]):
        inode = await here.write_file(b"file", b"content")
        await here.operations.close()
        reader, _ = await there.operations.open(inode, os.O_RDONLY, ROOT)
        writer, _ = await there.operations.open(inode, os.O_WRONLY, ROOT)
        await here.operations.unlink(ROOT_INODE, b"file", ROOT)
        file = there.operations.files.find(inode)
        assert file is not None
        await until("it is held", lambda: file.holds == 1)
        await there.finish(writer)
        await until("it is closed", lambda: file.writer is None)
        assert await there.operations.read(reader, 0, 100) == b"content"
        await there.finish(reader)


async def test_files_that_are_open_are_shown_to_the_leader_again_when_nothing_is_known_any_more() -> None:
    async with mounts(2) as (cluster, [here, there]):
        inode = await here.write_file(b"file", b"content")
        gone = await here.write_file(b"gone", b"gone")
        await here.operations.close()
        reader, _ = await there.operations.open(inode, os.O_RDONLY, ROOT)
        second, _ = await there.operations.open(gone, os.O_RDONLY, ROOT)
        leader = cluster.harness.leader
        peer = next(peer for peer in leader.notices._untaken if peer.hello.name == there.masters.client)
        keeps = leader.notices._watches.others_keep
        leader.notices._watches.add(peer)  # as with a new leader: it knows nothing of what was shown
        slot = leader.state.inodes.slot_of(inode)
        other = next(other for other in leader.notices._untaken if other is not peer)
        assert not keeps(slot, other)
        await here.operations.unlink(ROOT_INODE, b"gone", ROOT)
        there.watcher._drop_everything()
        file = there.operations.files.find(gone)
        assert file is not None
        await until("the file that was removed is held", lambda: file.holds == 1)
        assert await there.operations.read(second, 0, 100) == b"gone"
        await until("the other one is known again", lambda: keeps(slot, other))
        await there.finish(reader)
        await there.finish(second)


async def test_a_directory_removed_there_is_gone_although_it_is_open_here() -> None:
    async with mounts(2) as (_, [here, there]):
        replaced = attributes_of(await here.operations.mkdir(ROOT_INODE, b"replaced", 0o755, ROOT)).inode
        number = await here.operations.opendir(replaced, ROOT)
        await here.operations.getattr(replaced, ROOT)
        moved = attributes_of(await there.operations.mkdir(ROOT_INODE, b"moved", 0o755, ROOT)).inode
        await there.operations.rename(ROOT_INODE, b"moved", ROOT_INODE, b"replaced", False, False, ROOT)
        await until("the attributes are dropped", lambda: replaced in here.kernel.inodes)
        with pytest.raises(StaleHandle):
            await here.operations.getattr(replaced, ROOT)
        await here.operations.releasedir(number)
        assert attributes_of(await here.operations.lookup(ROOT_INODE, b"replaced", ROOT)).inode == moved
