"""The mount's operations: what programs see of their own writes, of removed files, of errors, of directories."""

import asyncio
import errno
import os
import stat

import pytest

from gfsclient.mount.answers import Answer, Changes
from gfsclient.mount.operations import Operations
from gfsprotocol.errors import AlreadyExists, GfsError, NotPermitted, PermissionDenied, StaleHandle
from gfsprotocol.ids import ROOT_INODE
from tests.mount.scene import ROOT, USER, attributes_of, mounts


@pytest.mark.slow
async def test_what_is_written_is_read_before_it_is_flushed_and_after() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        number, inode = await mount.create(b"file")
        await operations.write(number, 0, b"hello")
        await operations.write(number, 5, b" world")
        assert await operations.read(number, 0, 100) == b"hello world"
        await operations.write(number, 4_000_000, b"far")
        assert await operations.read(number, 3_999_998, 100) == b"\0\0far"
        await mount.finish(number)
        assert (await mount.content(inode))[:11] == b"hello world"
        assert attributes_of(await operations.getattr(inode, ROOT)).size == 4_000_003


async def test_two_handles_of_a_file_share_what_is_written() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        first, inode = await mount.create(b"file")
        second, _ = await operations.open(inode, os.O_RDWR, ROOT)
        await operations.write(first, 0, b"aaaa")
        await operations.write(second, 2, b"bb")
        assert await operations.read(first, 0, 10) == b"aabb"
        assert attributes_of(await operations.getattr(inode, ROOT)).size == 4
        await mount.finish(first)
        await operations.write(second, 4, b"cc")
        await mount.finish(second)
        assert await mount.content(inode) == b"aabbcc"


async def test_a_file_that_is_read_in_sequence_is_shown_where_it_was_fetched() -> None:
    data = os.urandom(3_000_001)
    piece = 128 * 1024
    async with mounts(read_ahead_bytes=1 << 20) as (_, [mount]):
        inode = await mount.write_file(b"file", data)
        number, _ = await mount.operations.open(inode, os.O_RDONLY, ROOT)
        uncopied = 0
        for start in range(0, len(data), piece):
            shown = await mount.operations.read(number, start, piece)
            assert shown == data[start : start + piece]
            uncopied += isinstance(shown, memoryview)
        assert uncopied > 10
        await mount.finish(number)


async def test_stat_of_a_file_that_is_being_written_is_final() -> None:
    async with mounts() as (_, [mount]):
        number, inode = await mount.create(b"file")
        await mount.operations.write(number, 0, b"x" * 1000)
        during = attributes_of(await mount.operations.getattr(inode, ROOT))
        await mount.finish(number)
        await mount.operations.close()
        after = attributes_of(await mount.operations.getattr(inode, ROOT))
        assert (during.size, during.modified_ns) == (1000, after.modified_ns)


async def test_times_that_were_set_after_a_write_stay() -> None:
    async with mounts() as (_, [mount]):
        number, inode = await mount.create(b"file")
        await mount.operations.write(number, 0, b"x")
        await mount.operations.setattr(inode, Changes(accessed_ns=5, modified_ns=7), True, ROOT)
        await mount.finish(number)
        await mount.operations.close()
        found = attributes_of(await mount.operations.getattr(inode, ROOT))
        assert (found.accessed_ns, found.modified_ns) == (5, 7)


async def test_truncate_while_open_and_while_closed() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        number, inode = await mount.create(b"file")
        await operations.write(number, 0, b"0123456789")
        await operations.setattr(inode, Changes(size=4), True, ROOT)
        assert await operations.read(number, 0, 100) == b"0123"
        await operations.write(number, 6, b"x")
        await mount.finish(number)
        assert await mount.content(inode) == b"0123\0\0x"
        await operations.setattr(inode, Changes(size=2), False, ROOT)
        assert await mount.content(inode) == b"01"
        again, _ = await operations.open(inode, os.O_WRONLY | os.O_TRUNC, ROOT)
        await mount.finish(again)
        assert await mount.content(inode) == b""


async def test_an_unlinked_file_lives_until_it_is_closed() -> None:
    async with mounts() as (cluster, [mount]):
        operations = mount.operations
        inode = await mount.write_file(b"file", b"before")
        await operations.close()
        await operations.lookup(ROOT_INODE, b"file", ROOT)
        reader, _ = await operations.open(inode, os.O_RDONLY, ROOT)
        await operations.unlink(ROOT_INODE, b"file", ROOT)
        assert (await operations.lookup(ROOT_INODE, b"file", ROOT)).attributes is None
        assert await operations.read(reader, 0, 100) == b"before"
        assert attributes_of(await operations.getattr(inode, ROOT)).links == 0
        writer, _ = await operations.open(inode, os.O_RDWR, ROOT)
        await operations.write(writer, 6, b" and after")
        await operations.fsync(writer)
        assert await operations.read(reader, 0, 100) == b"before and after"
        await mount.finish(writer)
        await mount.finish(reader)
        await operations.close()
        assert not cluster.harness.leader.state.writers.clients()


async def test_a_file_that_is_replaced_by_rename_lives_until_it_is_closed() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        old, new = await mount.write_file(b"target", b"old"), await mount.write_file(b"source", b"new")
        await operations.close()
        reader, _ = await operations.open(old, os.O_RDONLY, ROOT)
        await operations.rename(ROOT_INODE, b"source", ROOT_INODE, b"target", False, False, ROOT)
        assert await operations.read(reader, 0, 100) == b"old"
        assert attributes_of(await operations.lookup(ROOT_INODE, b"target", ROOT)).inode == new
        await mount.finish(reader)


async def test_rename_flags() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        one, two = await mount.write_file(b"one", b"1"), await mount.write_file(b"two", b"2")
        with pytest.raises(AlreadyExists):
            await operations.rename(ROOT_INODE, b"one", ROOT_INODE, b"two", True, False, ROOT)
        await operations.rename(ROOT_INODE, b"one", ROOT_INODE, b"two", False, True, ROOT)
        assert attributes_of(await operations.lookup(ROOT_INODE, b"one", ROOT)).inode == two
        assert attributes_of(await operations.lookup(ROOT_INODE, b"two", ROOT)).inode == one


async def test_the_caller_owns_what_it_makes_and_needs_the_right_to() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        directory = attributes_of(await operations.mkdir(ROOT_INODE, b"d", 0o755, ROOT)).inode
        with pytest.raises(PermissionDenied):
            await operations.create(directory, b"file", 0o644, os.O_WRONLY, USER)
        await operations.setattr(directory, Changes(uid=USER[0], gid=USER[1]), False, ROOT)
        number, answer = await operations.create(directory, b"file", 0o600, os.O_WRONLY, USER)
        made = attributes_of(answer)
        assert (made.uid, made.gid, stat.S_IMODE(made.mode)) == (1000, 1000, 0o600)
        with pytest.raises(NotPermitted):
            await operations.setattr(made.inode, Changes(uid=0), False, USER)
        await mount.finish(number)


async def test_special_files_links_and_attributes() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        fifo = attributes_of(await operations.mknod(ROOT_INODE, b"fifo", stat.S_IFIFO | 0o644, 0, ROOT))
        device = attributes_of(await operations.mknod(ROOT_INODE, b"null", stat.S_IFCHR | 0o666, 0x103, ROOT))
        assert stat.S_ISFIFO(fifo.mode)
        assert (stat.S_ISCHR(device.mode), device.device) == (True, 0x103)
        link = attributes_of(await operations.symlink(ROOT_INODE, b"link", b"some/where", ROOT))
        assert await operations.readlink(link.inode, ROOT) == b"some/where"
        inode = await mount.write_file(b"file", b"x")
        assert attributes_of(await operations.link(inode, ROOT_INODE, b"second", ROOT)).links == 2
        await operations.setxattr(inode, b"user.colour", b"red", ROOT)
        assert await operations.getxattr(inode, b"user.colour", ROOT) == b"red"
        assert await operations.listxattr(inode, ROOT) == (b"user.colour",)
        with pytest.raises(OSError, match="not supported") as caught:
            await operations.setxattr(inode, b"system.posix_acl_access", b"", ROOT)
        assert caught.value.errno == errno.EOPNOTSUPP


async def test_a_directory_is_listed_whole_while_names_come_and_go() -> None:
    async with mounts() as (_, [mount]):
        names = [b"f%02d" % number for number in range(10)]
        for name in names:
            await mount.write_file(name, b"")
        assert await mount.listed() == [b".", b"..", *names]
        operations = mount.operations
        number = await operations.opendir(ROOT_INODE, ROOT)
        seen = await some(operations, number, 0, 5)
        await operations.unlink(ROOT_INODE, b"f00", ROOT)
        await operations.unlink(ROOT_INODE, b"f01", ROOT)
        rest = await some(operations, number, seen[-1][1], 100)
        assert [name for name, _ in seen] == [b".", b"..", *names[:3]]
        assert [name for name, _ in rest] == names[3:]
        again = await some(operations, number, seen[2][1], 100)
        assert [name for name, _ in again] == names[2:], "a place stays good although what stood before it is gone"
        await operations.releasedir(number)


async def some(operations: Operations, number: int, place: int, room: int) -> list[tuple[bytes, int]]:
    """Up to ``room`` names from a place on, and the places after them."""
    found: list[tuple[bytes, int]] = []

    def add(name: bytes, _answer: Answer, after: int) -> bool:
        if len(found) == room:
            return False
        found.append((name, after))
        return True

    await operations.readdir(number, place, add)
    return found


@pytest.mark.slow
async def test_a_lost_write_is_told_once_by_each_handle() -> None:
    async with mounts(deadline_seconds=0.5) as (cluster, [mount]):
        operations = mount.operations
        first, inode = await mount.create(b"file")
        second, _ = await operations.open(inode, os.O_RDWR, ROOT)
        await operations.write(first, 0, b"x")
        cluster.fleet.close()
        with pytest.raises(GfsError) as caught:
            await operations.fsync(first)
        with pytest.raises(type(caught.value)):
            await operations.fsync(second)
        await operations.fsync(second)
        await operations.release(first)
        await operations.release(second)


@pytest.mark.slow
async def test_many_writers_of_one_file_and_of_many() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        number, inode = await mount.create(b"file")
        await asyncio.gather(*(operations.write(number, at * 100, b"%c" % (65 + at) * 100) for at in range(20)))
        await mount.finish(number)
        assert await mount.content(inode) == b"".join(b"%c" % (65 + at) * 100 for at in range(20))
        inodes = await asyncio.gather(*(mount.write_file(b"many%d" % at, b"%d" % at) for at in range(50)))
        assert [await mount.content(inode) for inode in inodes] == [b"%d" % at for at in range(50)]


async def test_a_listing_shows_what_was_changed_here_while_it_was_read() -> None:
    """The kernel takes what it is told last: an entry from before a change would undo it for as long as it is kept."""
    async with mounts() as (_, [mount]):
        for number in range(20):
            await mount.write_file(b"%02d" % number, b"")
        await mount.operations.close()
        directory = await mount.operations.opendir(ROOT_INODE, ROOT)
        shown: dict[bytes, Answer] = {}
        place = 0

        async def read(room: int) -> None:
            count = 0

            def add(name: bytes, answer: Answer, after: int) -> bool:
                nonlocal count, place
                if count == room:
                    return False
                count, place, shown[name] = count + 1, after, answer
                return True

            await mount.operations.readdir(directory, place, add)

        await read(5)
        changed = await mount.operations.lookup(ROOT_INODE, b"15", ROOT)
        await mount.operations.setattr(attributes_of(changed).inode, Changes(mode=0o600), False, ROOT)
        await mount.operations.unlink(ROOT_INODE, b"17", ROOT)
        await read(100)
        assert stat.S_IMODE(attributes_of(shown[b"15"]).mode) == 0o600
        assert b"17" not in shown
        assert len(shown) == 2 + 20 - 1


@pytest.mark.parametrize("is_replaced", [False, True], ids=["removed", "replaced"])
async def test_an_open_directory_that_is_removed_is_known_until_it_is_closed(is_replaced: bool) -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        inode = attributes_of(await operations.mkdir(ROOT_INODE, b"gone", 0o750, ROOT)).inode
        await operations.lookup(ROOT_INODE, b"gone", ROOT)
        first = await operations.opendir(inode, ROOT)
        second = await operations.opendir(inode, ROOT)
        await operations.setattr(inode, Changes(mode=0o710), False, ROOT)
        if is_replaced:
            await operations.mkdir(ROOT_INODE, b"new", 0o755, ROOT)
            await operations.rename(ROOT_INODE, b"new", ROOT_INODE, b"gone", False, False, ROOT)
        else:
            await operations.rmdir(ROOT_INODE, b"gone", ROOT)
        mount.watcher._drop_everything()  # as after a failover
        await operations.releasedir(first)
        answer = await operations.getattr(inode, ROOT)
        attributes = attributes_of(answer)
        assert (stat.S_IMODE(attributes.mode), attributes.links) == (0o710, 0)
        listed: list[bytes] = []
        await operations.readdir(second, 0, lambda name, *_: not listed.append(name))
        assert listed == []
        await operations.releasedir(second)
        with pytest.raises(StaleHandle):
            await operations.getattr(inode, ROOT)
