"""Directories of which all names are known: what is missing is told without a question, and never wrongly."""

import asyncio
import os

import pytest

from gfsclient.mount import complete
from gfsclient.mount.complete import CompleteDirectories
from gfsprotocol import messages as msg
from gfsprotocol.errors import NotFound
from gfsprotocol.ids import ROOT_INODE
from tests.mount.scene import ROOT, Asked, Mounted, attributes_of, mounts
from tests.mount.test_coherence import until

# --------------------------------------------------------------------------------------------------- what is collected


@pytest.fixture
def known() -> CompleteDirectories:
    return CompleteDirectories()


def test_a_directory_that_was_made_lacks_everything_until_it_is_touched(known: CompleteDirectories) -> None:
    assert not known.lacks(7, b"a")
    known.made(7)
    assert known.lacks(7, b"a")
    known.touched(7, b"a")
    assert not known.lacks(7, b"a")
    assert known.lacks(7, b"b")
    known.drop_everything()
    assert not known.lacks(7, b"b")


def test_what_is_touched_while_a_directory_is_listed_may_be_there(known: CompleteDirectories) -> None:
    names = known.gather(7)
    known.touched(7, b"new")
    assert not known.lacks(7, b"x"), "it is not listed yet"
    known.gathered(names, [b"listed"])
    assert [known.lacks(7, name) for name in (b"new", b"listed", b"x")] == [False, False, True]


def test_a_listing_that_was_overtaken_counts_for_nothing(known: CompleteDirectories) -> None:
    first = known.gather(7)
    second = known.gather(7)
    known.gathered(first, [])
    assert not known.lacks(7, b"x")
    known.give_up(second)
    known.gathered(second, [])
    assert not known.lacks(7, b"x")
    third = known.gather(7)
    known.drop_everything()
    known.gathered(third, [])
    assert not known.lacks(7, b"x"), "what was changed since may not have been told"


def test_what_was_removed_is_missing_unless_something_else_happened(known: CompleteDirectories) -> None:
    known.made(7)
    known.touched(7, b"a")
    before = known.before(7, b"a")
    known.lost(before, 2)
    assert not known.lacks(7, b"a"), "our change has not been answered"
    for _ in range(2):
        known.touched(7, b"a")
    known.lost(before, 2)
    assert known.lacks(7, b"a")
    for _ in range(3):
        known.touched(7, b"a")
    known.lost(before, 2)
    assert not known.lacks(7, b"a"), "someone has made it again"


def test_what_was_removed_before_a_directory_was_listed_anew_is_not_missing(known: CompleteDirectories) -> None:
    known.made(7)
    before = known.before(7, b"a")
    known.gathered(known.gather(7), [b"a"])
    known.lost(before, 0)
    assert not known.lacks(7, b"a")


def test_what_is_kept_is_bounded(known: CompleteDirectories, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("NAMES_MAX", "DIRECTORIES_MAX", "GATHERING_MAX", "TOUCHED_MAX"):
        monkeypatch.setattr(complete, bound, 2)
    for directory in (7, 8):
        known.made(directory)
    assert known.lacks(7, b"a")
    known.made(9)
    assert [known.lacks(directory, b"a") for directory in (7, 8, 9)] == [True, False, True]
    for directory, name in ((7, b"a"), (9, b"b"), (9, b"c")):
        known.touched(directory, name)
    assert not known.lacks(7, b"z"), "these are too many names"
    assert known.lacks(9, b"z")
    listings = [known.gather(directory) for directory in (1, 2, 3)]
    for name in (b"a", b"b", b"c"):
        known.touched(3, name)
    for listing in listings:
        known.gathered(listing, [])
    assert [known.lacks(directory, b"z") for directory in (1, 2, 3)] == [False, True, False]


# ----------------------------------------------------------------------------------------------------------- in a mount


async def made_directory(mount: Mounted) -> int:
    return attributes_of(await mount.operations.mkdir(ROOT_INODE, b"directory", 0o755, ROOT)).inode


async def is_missing(mount: Mounted, directory: int, name: bytes) -> bool:
    try:
        return (await mount.operations.lookup(directory, name, ROOT)).attributes is None
    except NotFound:
        return True


async def make(mount: Mounted, directory: int, name: bytes) -> None:
    number, _ = await mount.operations.create(directory, name, 0o644, os.O_WRONLY | os.O_CREAT, ROOT)
    await mount.finish(number)


async def test_a_new_directory_is_known_to_be_empty() -> None:
    async with mounts() as (_, [mount]):
        directory = await made_directory(mount)
        asked = Asked(mount)
        answer = await mount.operations.lookup(directory, b"file", ROOT)
        assert (answer.attributes, answer.entry_seconds > 0) == (None, True)
        await make(mount, directory, b"file")
        assert asked[msg.Stat] <= 1, "of the directory, along with the change"
        assert not await is_missing(mount, directory, b"file")
        assert await is_missing(mount, directory, b"other")
        await mount.operations.unlink(directory, b"file", ROOT)
        before = asked[msg.Stat]
        assert await is_missing(mount, directory, b"file")
        assert asked[msg.Stat] == before


async def test_each_kind_of_change_of_our_own_is_known() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        directory = await made_directory(mount)
        await make(mount, directory, b"file")
        await operations.mkdir(directory, b"below", 0o755, ROOT)
        await operations.symlink(directory, b"link", b"target", ROOT)
        await operations.mknod(directory, b"fifo", 0o010644, 0, ROOT)
        file = attributes_of(await operations.lookup(directory, b"file", ROOT)).inode
        await operations.link(file, directory, b"second", ROOT)
        await operations.rename(directory, b"link", directory, b"renamed", False, False, ROOT)
        for name in (b"file", b"below", b"second", b"fifo", b"renamed"):
            assert not await is_missing(mount, directory, name), name
        await operations.rename(directory, b"file", directory, b"second", False, False, ROOT)
        assert not await is_missing(mount, directory, b"file"), "both are the same file, and so both stay"
        await operations.rmdir(directory, b"below", ROOT)
        for name in (b"below", b"link", b"none"):
            assert await is_missing(mount, directory, name), name


async def test_what_others_put_into_a_directory_is_told() -> None:
    async with mounts(2) as (_, [here, there]):
        directory = await made_directory(here)
        assert await is_missing(here, directory, b"file")
        for name in (b"file", b"unseen"):
            await make(there, directory, name)
        await until("the names are dropped", lambda: (directory, b"unseen") in here.kernel.entries)
        assert (directory, b"file") in here.kernel.entries
        for name in (b"file", b"unseen"):
            assert not await is_missing(here, directory, name)
        here.kernel.entries.clear()
        await there.operations.unlink(directory, b"file", ROOT)
        await until("the name is dropped", lambda: (directory, b"file") in here.kernel.entries)
        asked = Asked(here)
        for _ in range(2):
            assert await is_missing(here, directory, b"file")
        assert asked[msg.Stat] == 1, "it is missing again, once that was asked"


async def test_a_directory_that_was_listed_whole_is_known() -> None:
    async with mounts(2) as (_, [here, there]):
        for number in range(5):
            await make(there, ROOT_INODE, b"%d" % number)
        assert len(await here.listed()) == 7
        asked = Asked(here)
        assert await is_missing(here, ROOT_INODE, b"9")
        assert not asked
        assert not await is_missing(here, ROOT_INODE, b"3")


async def test_what_is_made_while_a_directory_is_listed_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfsclient.mount.directories.PAGE_ENTRIES", 3)
    monkeypatch.setattr("gfsclient.mount.directories.PAGE_ENTRIES_CHANGING", 3)
    async with mounts(2) as (_, [here, there]):
        for number in range(1, 8):
            await make(there, ROOT_INODE, b"%d" % number)
        operations = here.operations
        number, place = await operations.opendir(ROOT_INODE, ROOT), 0

        async def list_more(room: int) -> None:
            nonlocal place

            def add(_name: bytes, _answer: object, after: int) -> bool:
                nonlocal room, place
                room -= 1
                if room >= 0:
                    place = after
                return room >= 0

            await operations.readdir(number, place, add)

        await list_more(5)
        await make(there, ROOT_INODE, b"0-theirs")
        await make(here, ROOT_INODE, b"0-ours")
        await until("it is told", lambda: here.cache.freshness.name_changed_since(ROOT_INODE, b"0-theirs", 1))
        await list_more(100)
        asked = Asked(here)
        assert await is_missing(here, ROOT_INODE, b"0-nobody's")
        assert not asked, "all is known"
        for name in (b"0-theirs", b"0-ours", b"7"):
            assert not await is_missing(here, ROOT_INODE, name)


async def test_nothing_is_known_without_a_leader_that_tells() -> None:
    async with mounts() as (_, [mount]):
        directory = await made_directory(mount)
        mount.operations.drop_everything()
        asked = Asked(mount)
        assert await is_missing(mount, directory, b"file")
        assert asked[msg.Stat] == 1


async def test_names_that_cannot_be_are_left_to_the_master() -> None:
    async with mounts() as (_, [mount]):
        directory = await made_directory(mount)
        assert attributes_of(await mount.operations.lookup(directory, b"..", ROOT)).inode == ROOT_INODE
        with pytest.raises(Exception, match="too long"):
            await mount.operations.lookup(directory, b"x" * 256, ROOT)


async def test_what_is_made_by_several_at_once_is_there() -> None:
    """Two mounts make, remove and look for the same names; when all is told, both know what is there."""
    async with mounts(2) as (_, pair):
        directory = await made_directory(pair[0])
        await pair[1].listed(directory)

        async def work(mount: Mounted, salt: int) -> None:
            for turn in range(40):
                name = b"%d" % ((turn * salt) % 5)
                if await is_missing(mount, directory, name):
                    await make(mount, directory, name)
                else:
                    try:
                        await mount.operations.unlink(directory, name, ROOT)
                    except NotFound:
                        continue

        await asyncio.gather(work(pair[0], 3), work(pair[0], 7), work(pair[1], 11))
        there = set((await pair[1].listed(directory))[2:])
        # What was told last is behind an answer that is asked for now.
        for mount in pair:
            await mount.masters.call(msg.KeepAlive())
            assert {
                name for name in map(b"%d".__mod__, range(5)) if not await is_missing(mount, directory, name)
            } == there
