"""Requests that no well-behaved client makes are refused: none of them can stop a master or hang it."""

import asyncio

import pytest

from gfsprotocol import messages as msg
from gfsprotocol.errors import Busy, FileTooLarge, InvalidArgument, NotADirectory, NotFound, StaleHandle
from tests.master.leading import leading
from tests.master.machine import Machine

CLIENT = b"c" * 16


@pytest.mark.parametrize("target", [b".", b"..", b"x/.."])
def test_a_symlink_to_dot_or_dot_dot_cannot_be_removed_through(target: bytes) -> None:
    machine = Machine()
    for path in (b"/d", b"/d/e", b"/d/e/x"):
        machine.do(msg.Mkdir(path))
    machine.do(msg.Symlink(b"/d/e/l", target=target))
    for body in (
        msg.Rmdir(b"/d/e/l/"),
        msg.RemoveTree(b"/d/e/l/"),
        msg.MoveToTrash(b"/d/e/l/"),
        msg.Rename(b"/d/e/l/", target=b"/moved"),
    ):
        with pytest.raises(NotADirectory):
            machine.do(body)
    machine.check()


@pytest.mark.parametrize(
    "body",
    [
        msg.Rmdir(b"sub"),
        msg.Rename(b"sub", target=b"/saved"),
        msg.MoveToTrash(b"sub"),
        msg.Unlink(b"file"),
    ],
)
def test_a_removed_directory_that_is_not_reclaimed_yet_is_not_changed(body: msg.Rmdir) -> None:
    machine = Machine()
    tree = machine.attributes(msg.Mkdir(b"/tree")).inode
    machine.do(msg.Mkdir(b"/tree/sub"))
    machine.do(msg.Create(b"/tree/file", open=False))
    machine.do(msg.RemoveTree(b"/tree"))
    arguments = {name: getattr(body, name) for name in body.__struct_fields__} | {"base": tree}
    with pytest.raises(NotFound):
        machine.do(type(body)(**arguments))
    machine.reclaim()
    machine.check()


def test_a_directory_is_not_restored_from_the_trash_into_itself() -> None:
    machine = Machine()
    outer = machine.attributes(msg.Mkdir(b"/outer")).inode
    inner = machine.attributes(msg.Mkdir(b"/outer/inner")).inode
    machine.do(msg.MoveToTrash(b"/outer"))
    for base in (outer, inner):
        with pytest.raises(InvalidArgument):
            machine.do(msg.RestoreTrash(b"again", base, inode=outer))
    machine.do(msg.RestoreTrash(b"", inode=outer))
    assert machine.names(b"/") == [b"outer"]
    machine.check()


def test_only_regular_files_get_lengths_recorded() -> None:
    machine = Machine()
    directory = machine.attributes(msg.Mkdir(b"/d")).inode
    with pytest.raises(InvalidArgument):
        machine.do(msg.RecordLength(directory, (), 1000))
    assert machine.stat(b"/d").size == 0


@pytest.mark.parametrize("index", [-1, -2, -(2**40), 2**32, 2**37, 2**62])
async def test_a_chunk_index_out_of_range_is_refused_and_takes_no_memory(index: int) -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        await harness.add_servers(3)
        made = await harness.change(client, msg.Create(b"/f", chunk_bytes=1 << 16))
        assert isinstance(made, msg.AttributesReply)
        inode = made.attributes.inode
        for present in (0, 1):
            await harness.change(client, msg.AllocateChunk(inode, present))
        chunk = harness.leader.state.chunks.ids[1]
        with pytest.raises(FileTooLarge):
            await harness.change(client, msg.AllocateChunk(inode, index))
        with pytest.raises(StaleHandle):
            await client.call(msg.RenewLease(inode, index, chunk, 1), 5)
        with pytest.raises(StaleHandle):
            await harness.change(client, msg.RecordLength(inode, (msg.ChunkLength(index, chunk, 5, 1),)))
        assert (await client.call(msg.Stat(b"/f"), 5)).body is not None


async def test_summaries_have_a_limit_that_nothing_else_counts_against(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfsmaster.summaries.SUMMARIES_MAX", 1)
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        harness.leader._start(asyncio.sleep(60))  # as a handover would
        await client.call(msg.Summarize(b"/"), 5)
        calls = [client.call(msg.Summarize(b"/"), 5) for _ in range(2)]
        first, second = await asyncio.gather(*calls, return_exceptions=True)
        assert not isinstance(first, BaseException)
        assert isinstance(second, Busy)
        await client.call(msg.Summarize(b"/"), 5)
