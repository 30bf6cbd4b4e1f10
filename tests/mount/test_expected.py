"""What the kernel asks of a directory after a change was asked for along with the change, and is never old."""

import asyncio
import os

from gfsclient.mount.operations import Changes
from gfsprotocol import messages as msg
from gfsprotocol.errors import AlreadyExists
from gfsprotocol.ids import ROOT_INODE
from tests.master.leading import until
from tests.mount.scene import ROOT, Mounted, attributes_of, mounts


class Counted:
    """Counts what is asked of the masters from now on."""

    def __init__(self, mount: Mounted) -> None:
        self.bodies: list[msg.RequestBody] = []
        expect = mount.masters.expect

        async def counting(body: msg.RequestBody, *arguments: object, **named: object) -> object:
            self.bodies.append(body)
            return await expect(body, *arguments, **named)  # type: ignore[arg-type]

        mount.masters.expect = counting  # type: ignore[method-assign, assignment]


async def made_directory(mount: Mounted) -> int:
    return attributes_of(await mount.operations.mkdir(ROOT_INODE, b"directory", 0o755, ROOT)).inode


async def settled(mount: Mounted) -> None:
    """Until the answers that nobody waits for have come."""
    await until(lambda: not mount.operations._expected._asking)


async def test_the_question_after_a_change_needs_no_request() -> None:
    async with mounts() as (_, [mount]):
        directory = await made_directory(mount)
        made = attributes_of(await mount.operations.mkdir(directory, b"below", 0o755, ROOT))
        await settled(mount)
        counted = Counted(mount)
        shown = attributes_of(await mount.operations.getattr(directory, ROOT))
        assert not counted.bodies
        assert (shown.links, shown.changed_ns) == (3, made.changed_ns)
        await mount.operations.getattr(directory, ROOT)
        assert len(counted.bodies) == 1, "it is given once"


async def test_each_kind_of_change_is_seen() -> None:
    async with mounts() as (_, [mount]):
        operations = mount.operations
        directory = await made_directory(mount)
        seen = [attributes_of(await operations.getattr(directory, ROOT)).changed_ns]

        async def sees_change() -> None:
            seen.append(attributes_of(await operations.getattr(directory, ROOT)).changed_ns)
            assert seen[-1] > seen[-2]

        number, _ = await operations.create(directory, b"file", 0o644, os.O_WRONLY | os.O_CREAT, ROOT)
        await sees_change()
        await operations.rename(directory, b"file", directory, b"other", False, False, ROOT)
        await sees_change()
        await operations.setattr(directory, Changes(mode=0o700), False, ROOT)
        await sees_change()
        await operations.unlink(directory, b"other", ROOT)
        await operations.setxattr(directory, b"user.name", b"value", ROOT)
        await sees_change()
        await operations.symlink(directory, b"link", b"target", ROOT)
        await operations.rename(ROOT_INODE, b"directory", ROOT_INODE, b"moved", False, False, ROOT)
        await sees_change()
        await operations.release(number)


async def test_what_another_client_changes_meanwhile_is_seen() -> None:
    async with mounts(2) as (_, [here, there]):
        directory = await made_directory(here)
        await here.operations.mkdir(directory, b"mine", 0o755, ROOT)
        await settled(here)
        await there.operations.mkdir(directory, b"theirs", 0o755, ROOT)
        await until(lambda: here.kernel.inodes.count(directory))
        assert attributes_of(await here.operations.getattr(directory, ROOT)).links == 4


async def test_an_answer_that_may_have_overtaken_the_change_is_not_kept() -> None:
    async with mounts() as (_, [mount]):
        directory = await made_directory(mount)
        making = asyncio.create_task(mount.operations.mkdir(directory, b"below", 0o755, ROOT))
        await asyncio.sleep(0)
        mount.masters.detours += 1  # as if the change had to be sent again
        await making
        await settled(mount)
        counted = Counted(mount)
        assert attributes_of(await mount.operations.getattr(directory, ROOT)).links == 3
        assert len(counted.bodies) == 1


async def test_a_refused_change_leaves_nothing_old_behind() -> None:
    async with mounts() as (_, [mount]):
        directory = await made_directory(mount)
        await mount.operations.mkdir(directory, b"below", 0o755, ROOT)
        try:
            await mount.operations.mkdir(directory, b"below", 0o755, ROOT)
        except AlreadyExists:
            await settled(mount)
        await mount.operations.mkdir(directory, b"second", 0o755, ROOT)
        assert attributes_of(await mount.operations.getattr(directory, ROOT)).links == 4
