"""Reads on the event loop: the bytes, verified, or None in good time."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from gfsclient.quickreads import QUICK_BYTES_MAX, QuickReads
from gfsprotocol import bulk
from gfsprotocol.errors import StaleReplica
from gfsprotocol.ids import BLOCK_BYTES
from gfsprotocol.messages import ChunkLocation, Locate, Locations
from tests.client.chunkservers import FakeChunkServer, Fault
from tests.client.smallcluster import SmallCluster, running

DATA = bytes(range(256)) * (3 * BLOCK_BYTES // 256) + b"the last block"


class Scene:
    def __init__(self, cluster: SmallCluster, quick: QuickReads, location: ChunkLocation) -> None:
        self.cluster = cluster
        self.quick = quick
        self.location = location

    @property
    def server(self) -> FakeChunkServer:
        order = self.cluster.files._core.servers.in_order(self.location.servers, self.location.chunk)
        return self.cluster.fleet.servers[order[0]]

    async def read(self, start: int, count: int, seconds: float = 20.0) -> bytes | None:
        return await self.quick.read(self.location, start, count, seconds)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with running() as cluster:
        await cluster.files.write_bytes("/a", DATA)
        core = cluster.files._core
        located = await core.masters.expect(Locate(b"a", 1), Locations)
        core.servers.learn(located.servers)
        quick = QuickReads(core.servers)
        yield Scene(cluster, quick, located.chunks[0])
        await quick.close()


async def read_again(scene: Scene) -> None:
    """Until it goes well: that a connection has ended is noticed some turns of the loop later."""
    async with asyncio.timeout(20):
        while await scene.read(0, 100) != DATA[:100]:  # noqa: ASYNC110 - it is not told
            await asyncio.sleep(0.01)


async def test_whole_blocks_parts_and_the_end(scene: Scene) -> None:
    for start, count in [(0, BLOCK_BYTES), (0, 100), (70_000, 4096), (3 * BLOCK_BYTES, 14), (BLOCK_BYTES - 1, 2)]:
        assert await scene.read(start, count) == DATA[start : start + count]


async def test_many_at_a_time(scene: Scene) -> None:
    starts = [number * 997 for number in range(190)]
    answers = await asyncio.gather(*(scene.read(start, 1000) for start in starts))
    assert answers == [DATA[start : start + 1000] for start in starts]
    assert len(scene.quick._lines[scene.server.server]) <= 4


@pytest.mark.parametrize(("start", "count"), [(0, QUICK_BYTES_MAX + 1), (len(DATA) - 10, 11)])
async def test_what_goes_the_long_way(scene: Scene, start: int, count: int) -> None:
    assert await scene.read(start, count) is None


async def test_a_hole_goes_the_long_way(scene: Scene) -> None:
    assert await scene.quick.read(ChunkLocation(0, 0, 0, 0, (), b""), 0, 10, 20.0) is None


@pytest.mark.parametrize("count", [BLOCK_BYTES, 4096])
async def test_damaged_bytes_are_never_returned(scene: Scene, count: int) -> None:
    def flip(reply: bulk.ReadReply, data: bytearray) -> bulk.ReadReply:
        data[5] ^= 1
        return reply

    scene.server.mangle = flip
    assert await scene.read(0, count) is None


async def test_an_error_is_none(scene: Scene) -> None:
    def refuse(_: bulk.RequestHeader) -> None:
        raise StaleReplica("it is older")

    scene.server.before = refuse
    assert await scene.read(0, 100) is None
    scene.server.before = lambda _: None
    await read_again(scene)


async def test_a_connection_that_breaks_is_replaced(scene: Scene) -> None:
    def cut(_: bulk.RequestHeader) -> None:
        raise Fault

    assert await scene.read(0, 100) == DATA[:100]
    scene.server.before = cut
    assert await scene.read(0, 100) is None
    scene.server.before = lambda _: None
    await read_again(scene)


async def test_a_server_that_hangs_or_is_gone_is_not_waited_for(scene: Scene) -> None:
    go_on = threading.Event()
    scene.server.before = lambda _: go_on.wait(20) and None
    try:
        assert await scene.read(0, 100, seconds=0.05) is None
    finally:
        go_on.set()
    scene.server.kill()
    assert await scene.read(0, 100) is None


async def test_the_nearest_server_is_the_one_that_is_asked_first_by_all(scene: Scene) -> None:
    servers = scene.cluster.files._core.servers
    for chunk in range(6):
        assert servers.first((5, 6, 7), chunk) == servers.in_order((5, 6, 7), chunk)[0]
    servers.failed(6)
    assert [servers.first((5, 6, 7), chunk) for chunk in range(3)] == [5, 7, 7]
    servers.worked(6)
    assert servers.first((5, 6, 7), 1) == 6
    assert servers.first((), 1) is None


async def test_the_library_reads_little_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as cluster:
        await cluster.files.write_bytes("/a", DATA)
        await cluster.files.write_bytes("/small", b"small")
        monkeypatch.delattr(cluster.files._core, "_workers")
        async with await cluster.files.open("/a") as file:
            assert await file.read_once(70_000, 4096) == DATA[70_000:74_096]
        assert await cluster.files.read_bytes("/small") == b"small"
        monkeypatch.undo()
        async with await cluster.files.open("/a") as file:
            assert await file.read_once(0, len(DATA) + 1) == DATA, (
                "what is more than a little, or not there, the long way"
            )
