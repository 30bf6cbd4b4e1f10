"""Directories that are listed ahead and small files that are read ahead: fewer questions, and never an old answer."""

import asyncio
import os

import pytest

from gfsclient.mount import ahead
from gfsclient.mount.operations import Changes
from gfsprotocol import bulk
from gfsprotocol import messages as msg
from gfsprotocol.errors import DataLost, NotFound
from gfsprotocol.ids import ROOT_INODE
from tests.client.smallcluster import SmallCluster
from tests.mount.scene import ROOT, Asked, Mounted, attributes_of, mounts
from tests.mount.test_coherence import until

NAMES = [b"%02d" % number for number in range(20)]


async def look_up(mount: Mounted, name: bytes) -> msg.Attributes:
    return attributes_of(await mount.operations.lookup(ROOT_INODE, name, ROOT))


async def settled(mount: Mounted) -> None:
    """Until nothing is being fetched ahead."""
    while tasks := mount.operations._ahead._tasks:
        await asyncio.wait(tasks)


async def with_files(mount: Mounted) -> dict[bytes, int]:
    """Inodes by name; all of them closed."""
    inodes = {name: await mount.write_file(name, b"content of " + name) for name in NAMES}
    await mount.operations.files.close()
    return inodes


async def listed_ahead(here: Mounted, there: Mounted) -> dict[bytes, int]:
    """What :func:`with_files` makes here; its names and attributes are known there."""
    inodes = await with_files(here)
    for name in NAMES[:3]:
        await look_up(there, name)
    await settled(there)
    return inodes


async def read_ahead(here: Mounted, there: Mounted) -> dict[bytes, int]:
    """As :func:`listed_ahead`; the first four were read there, and what comes next was fetched."""
    inodes = await listed_ahead(here, there)
    for name in NAMES[:4]:
        await there.content(inodes[name])
        await settled(there)
    return inodes


def reads(cluster: SmallCluster) -> int:
    return sum(isinstance(request, bulk.Read) for s in cluster.fleet.servers.values() for request in s.requests)


async def test_names_are_known_once_a_few_were_looked_up() -> None:
    async with mounts(2) as (_, [here, there]):
        inodes = await with_files(here)
        asked = Asked(there)
        for name in NAMES[:3]:
            await look_up(there, name)
        await settled(there)
        assert (asked[msg.Stat], asked[msg.List]) == (3, 1)
        for name in reversed(NAMES):
            answer = await there.operations.lookup(ROOT_INODE, name, ROOT)
            assert attributes_of(answer).inode == inodes[name]
            assert answer.attributes_seconds > 0
            assert answer.entry_seconds > 0
        assert attributes_of(await there.operations.getattr(inodes[NAMES[9]], ROOT)).size == len(b"content of 09")
        assert (asked[msg.Stat], asked[msg.List]) == (3, 1)


async def test_what_is_known_is_dropped_when_others_change_it() -> None:
    async with mounts(2) as (_, [here, there]):
        inodes = await listed_ahead(here, there)
        await here.operations.setattr(inodes[b"05"], Changes(mode=0o600), False, ROOT)
        await here.operations.rename(ROOT_INODE, b"06", ROOT_INODE, b"07", False, False, ROOT)
        await here.operations.unlink(ROOT_INODE, b"08", ROOT)
        # What is dropped here was dropped at the kernel, too, which the mount keeps nothing for that it never showed.
        await until("the notices are here", lambda: (ROOT_INODE, b"08") in there.kernel.entries)
        assert (await look_up(there, b"05")).mode & 0o777 == 0o600
        assert (await look_up(there, b"07")).inode == inodes[b"06"]
        for name in (b"06", b"08"):
            assert (await there.operations.lookup(ROOT_INODE, name, ROOT)).attributes is None


async def test_own_changes_are_seen_at_once() -> None:
    async with mounts(2) as (_, [here, there]):
        inodes = await listed_ahead(here, there)
        operations = there.operations
        await operations.setattr(inodes[b"05"], Changes(mode=0o600), False, ROOT)
        assert (await look_up(there, b"05")).mode & 0o777 == 0o600
        await operations.link(inodes[b"09"], ROOT_INODE, b"second", ROOT)
        assert (await look_up(there, b"09")).links == 2
        await operations.unlink(ROOT_INODE, b"second", ROOT)
        assert (await look_up(there, b"09")).links == 1
        await operations.rename(ROOT_INODE, b"06", ROOT_INODE, b"07", False, False, ROOT)
        assert (await look_up(there, b"07")).inode == inodes[b"06"]
        assert (await operations.lookup(ROOT_INODE, b"06", ROOT)).attributes is None
        number, _ = await operations.open(inodes[b"10"], os.O_WRONLY, ROOT)
        await operations.write(number, 0, b"longer than it was before")
        await there.finish(number)
        assert (await look_up(there, b"10")).size == len(b"longer than it was before")
        before = attributes_of(await operations.getattr(ROOT_INODE, ROOT))
        await operations.mkdir(ROOT_INODE, b"new", 0o755, ROOT)
        assert attributes_of(await operations.getattr(ROOT_INODE, ROOT)).links == before.links + 1


async def test_small_files_are_read_ahead_and_still_seen_as_they_are_at_open() -> None:
    async with mounts(2) as (cluster, [here, there]):
        inodes = await with_files(here)
        for name in NAMES[:4]:
            await look_up(there, name)
            await settled(there)
            assert await there.content(inodes[name]) == b"content of " + name
            await settled(there)
        before = reads(cluster)
        for name in NAMES[4:8]:
            assert await there.content(inodes[name]) == b"content of " + name
        assert reads(cluster) == before, "they had been fetched"
        for name in NAMES[8:]:
            number, _ = await here.operations.open(inodes[name], os.O_WRONLY, ROOT)
            await here.operations.write(number, 0, b"changed by another")
            await here.finish(number)
            assert await there.content(inodes[name]) == b"changed by another"


async def test_what_was_read_ahead_is_put_into_the_kernels_pages_at_an_open() -> None:
    async with mounts(2) as (_, [here, there]):
        inodes = await read_ahead(here, there)
        operations = there.operations
        stored = there.kernel.stored
        assert not stored
        await look_up(there, b"05")
        first, is_kept = await operations.open(inodes[b"05"], os.O_RDONLY, ROOT)
        assert (is_kept, stored) == (True, {inodes[b"05"]: b"content of 05"})
        # Whoever opens it now may be reading: the kernel may have locked its pages until that is answered.
        stored.clear()
        there.cache.drop_pages(inodes[b"05"])
        second, is_kept = await operations.open(inodes[b"05"], os.O_RDONLY, ROOT)
        assert (is_kept, stored) == (False, {})
        await there.finish(first)
        await there.finish(second)
        # The kernel would ask how long it is, and has not been told.
        third, is_kept = await operations.open(inodes[b"06"], os.O_RDONLY, ROOT)
        assert (is_kept, stored) == (False, {})
        assert await operations.read(third, 0, 100) == b"content of 06"
        await there.finish(third)


async def test_what_others_change_while_it_is_opened_is_not_put_into_the_kernels_pages() -> None:
    async with mounts(2) as (_, [here, there]):
        inodes = await read_ahead(here, there)
        await look_up(there, b"05")
        inode = inodes[b"05"]
        expect = there.masters.expect

        async def overtaken(body: msg.RequestBody, *arguments: object, **named: object) -> object:
            answer = await expect(body, *arguments, **named)  # type: ignore[arg-type, var-annotated]
            if isinstance(body, msg.Locate):
                there.watcher.clock += 1
                there.watcher._inodes.note(inode, there.watcher.clock)
            return answer

        there.masters.expect = overtaken  # type: ignore[method-assign, assignment]
        number, is_kept = await there.operations.open(inode, os.O_RDONLY, ROOT)
        assert (is_kept, there.kernel.stored) == (False, {})
        await there.finish(number)


async def test_jumping_about_in_a_large_directory_fetches_nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PAGE_ENTRIES", 4)
    monkeypatch.setattr(ahead, "ENTRIES_PER_HIT", 0)
    async with mounts(2) as (_, [here, there]):
        await with_files(here)
        asked = Asked(there)
        for name in reversed(NAMES):
            await look_up(there, name)
            await settled(there)
        assert asked[msg.List] == 1


@pytest.mark.slow
async def test_what_cannot_be_read_ahead_is_told_to_who_reads_it() -> None:
    async with mounts(2) as (cluster, [here, there]):
        inodes = await with_files(here)
        there.files._core.config = there.files._core.config.model_copy(update={"deadline_seconds": 1.0})
        for name in NAMES[:3]:
            await look_up(there, name)
        await settled(there)
        for server in cluster.fleet.servers.values():
            server.kill()
        there.operations._ahead._state(ROOT_INODE).reads = ahead.BEGIN_AT
        with pytest.raises(DataLost):
            await there.content(inodes[NAMES[3]])
        await settled(there)


async def test_a_few_names_that_are_missing_are_no_reason_to_list() -> None:
    async with mounts() as (_, [mount]):
        asked = Asked(mount)
        for name in NAMES[: ahead.LIST_AT_MISSED - 1]:
            await look_up_missing(mount, name)
        assert not asked[msg.List]


async def test_a_small_directory_is_listed_once_many_names_were_missing() -> None:
    async with mounts(2) as (_, [here, there]):
        await with_files(here)
        asked = Asked(there)
        for number in range(30):
            await look_up_missing(there, b"missing-%d" % number)
            await settled(there)
        assert (asked[msg.Stat], asked[msg.List]) == (ahead.LIST_AT_MISSED, 1)
        await look_up(there, NAMES[3])
        assert asked[msg.Stat] == ahead.LIST_AT_MISSED, "what is there is known as well"


async def test_a_large_directory_is_listed_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PAGE_ENTRIES", 4)
    async with mounts(2) as (_, [here, there]):
        await with_files(here)
        asked = Asked(there)
        for number in range(4 * ahead.LIST_AT_MISSED):
            await look_up_missing(there, b"missing-%d" % number)
            await settled(there)
        assert (asked[msg.Stat], asked[msg.List]) == (4 * ahead.LIST_AT_MISSED, 3)


async def look_up_missing(mount: Mounted, name: bytes) -> None:
    try:
        assert (await mount.operations.lookup(ROOT_INODE, name, ROOT)).attributes is None
    except NotFound:
        assert not mount.watcher.is_current
