"""Record append: each record whole, exactly once, where the returned offset says."""

import asyncio
import os
import threading

import pytest

from gfsprotocol import bulk
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    ConnectionLost,
    GfsError,
    InvalidArgument,
    IsADirectory,
    NotFound,
    PermissionDenied,
    Unreachable,
)
from gfsprotocol.ids import KIB, MIB
from tests.client.chunkservers import Fault
from tests.client.smallcluster import SmallCluster
from tests.master.leading import until


def appends(cluster: SmallCluster) -> list[bulk.Mutate]:
    requests = [request for server in cluster.fleet.servers.values() for request in server.requests]
    return [request for request in requests if isinstance(request, bulk.Mutate) and request.kind == bulk.APPEND]


async def check_records(cluster: SmallCluster, path: str, placed: dict[int, bytes]) -> None:
    """Each record lies where it was said to lie, and nothing else but zeros is in the file."""
    content = bytearray(await cluster.files.read_bytes(path))
    for offset, record in placed.items():
        assert content[offset : offset + len(record)] == record
        content[offset : offset + len(record)] = bytes(len(record))
    assert not any(content)


async def test_a_record_is_visible_to_any_reader_when_the_append_returns(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/log", b"")
    other = cluster.connect()
    async with await other.open("/log") as reading:
        assert await reading.read() == b""
        assert await cluster.files.append_record("/log", b"one") == 0
        assert await reading.read() == b"one"
        assert await cluster.files.append_record("/log", b"two") == 3
        assert await reading.read() == b"two"
    assert await cluster.files.append_record("/log", b"three", sync=True) == 6
    assert all(
        replica.synced == 11 for server in cluster.fleet.servers.values() for replica in server.replicas.values()
    )


async def test_a_record_goes_behind_what_was_written_otherwise(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/log", b"head")
    assert await cluster.files.append_record("/log", b"record") == 4
    assert await cluster.files.read_bytes("/log") == b"headrecord"


async def test_what_cannot_be_a_record_is_refused(small_cluster):
    files = (await small_cluster(chunk_bytes=128 * KIB)).files
    await files.write_bytes("/log", b"")
    await files.mkdir("/d")
    for size in (0, 32 * KIB + 1):
        with pytest.raises(InvalidArgument, match="1 to 32768 bytes"):
            await files.append_record("/log", bytes(size))
    with pytest.raises(NotFound):
        await files.append_record("/missing", b"x")
    with pytest.raises(IsADirectory):
        await files.append_record("/d", b"x")


async def test_who_may_not_write_may_not_append(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/log", b"", permissions=0o644)
    with pytest.raises(PermissionDenied):
        await cluster.connect(user=(1000, 1000)).append_record("/log", b"x")


@pytest.mark.slow
async def test_many_appenders_lose_nothing_and_tear_nothing(small_cluster):
    cluster = await small_cluster(chunk_bytes=256 * KIB)
    await cluster.files.write_bytes("/log", b"")
    clients = [cluster.connect() for _ in range(4)]
    placed: dict[int, bytes] = {}

    async def append(client, number: int) -> None:
        for _ in range(20):
            record = bytes([number + 1]) * (64 + int.from_bytes(os.urandom(2), "little") % (60 * KIB))
            placed[await client.append_record("/log", record)] = record

    await asyncio.gather(*(append(client, 2 * n + m) for n, client in enumerate(clients) for m in range(2)))
    assert len(placed) == 160
    await check_records(cluster, "/log", placed)


async def test_records_brought_at_the_same_time_travel_together(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/log", b"")
    await cluster.files.append_record("/log", b"first")
    recorded = []
    plan = cluster.harness.leader.planner._planners[msg.RecordLength]
    cluster.harness.leader.planner._planners[msg.RecordLength] = lambda *a: recorded.append(a) or plan(*a)
    hold = threading.Event()
    for server in cluster.fleet.servers.values():
        server.before = lambda request: hold.wait(5) if isinstance(request, bulk.Mutate) else None
    records = [b"%03d" % number for number in range(20)]
    appending = [asyncio.create_task(cluster.files.append_record("/log", record)) for record in records]
    await until(lambda: len(appends(cluster)) > 1)
    appender = next(iter(cluster.files._appenders._by_inode.values()))
    await until(lambda: len(appender._waiting) >= 18)
    hold.set()
    offsets = await asyncio.gather(*appending)
    await check_records(cluster, "/log", {0: b"first"} | dict(zip(offsets, records, strict=True)))
    assert len(recorded) < 10


async def test_a_chunk_that_is_full_is_followed_by_another(small_cluster):
    cluster = await small_cluster(chunk_bytes=128 * KIB)
    await cluster.files.write_bytes("/log", b"")
    placed = {}
    for number in range(10):
        record = bytes([number + 1]) * 30_000
        placed[await cluster.files.append_record("/log", record)] = record
    assert len(placed) == 10
    assert max(placed) > 256 * KIB
    await check_records(cluster, "/log", placed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_append_repeated_under_one_lease_is_there_once(small_cluster, moment):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/log", b"")
    await cluster.files.append_record("/log", b"first")
    cut = [True]

    def act(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.Mutate) and cut.pop() if cut else False:
            raise ConnectionLost("cut") if moment == "before" else Fault

    for server in cluster.fleet.servers.values():
        setattr(server, moment, act)
    lease = next(iter(cluster.files._appenders._by_inode.values()))._lease
    culprit = lease._culprit
    lease._culprit = lambda lease, error: None  # no one is blamed: the same lease goes on
    offset = await cluster.files.append_record("/log", b"second")
    lease._culprit = culprit
    assert not cut
    assert offset == 5
    assert await cluster.files.read_bytes("/log") == b"firstsecond"


@pytest.mark.slow
async def test_appends_go_on_when_a_replica_dies(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/log", b"")
    placed = {}
    for number in range(12):
        record = b"record %02d." % number
        if number == 5:
            cluster.fleet.servers[2].kill()
        placed[await cluster.files.append_record("/log", record)] = record
    content = await cluster.files.read_bytes("/log")
    for offset, record in placed.items():
        assert content[offset : offset + len(record)] == record


async def test_a_log_that_is_replaced_is_noticed(small_cluster):
    cluster = await small_cluster()
    files = cluster.files
    await files.write_bytes("/log", b"")
    await files.append_record("/log", b"old")
    await files.rename("/log", "/log.1")
    await files.write_bytes("/log", b"")
    assert await files.append_record("/log", b"new") == 0
    assert await files.read_bytes("/log") == b"new"
    assert await files.read_bytes("/log.1") == b"old"


async def test_a_log_that_another_client_truncates_begins_again(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/log", b"")
    for _ in range(3):
        await cluster.files.append_record("/log", b"old")
        await cluster.connect().truncate("/log", 0)
    assert await cluster.files.append_record("/log", b"new") == 0
    assert await cluster.files.read_bytes("/log") == b"new"


async def test_idle_appenders_are_closed(small_cluster, monkeypatch):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/log", b"")
    await cluster.files.append_record("/log", b"x")
    assert len(await cluster.files.list_open()) == 1
    monkeypatch.setattr("gfsclient.append.IDLE_SECONDS", 0.0)
    await cluster.files._core.in_thread(cluster.files._appenders.close_idle)
    assert not await cluster.files.list_open()
    assert await cluster.files.append_record("/log", b"y") == 1


async def test_idle_appenders_that_cannot_be_closed_are_left_to_the_masters(small_cluster, monkeypatch):
    monkeypatch.setattr("gfsclient.filesystem.APPEND_CHECK_SECONDS", 0.0)
    cluster = await small_cluster()
    tried = []

    def failing() -> bool:
        tried.append(None)
        if len(tried) == 1:
            raise Unreachable("no master")
        return False

    monkeypatch.setattr(cluster.files._appenders, "close_idle", failing)
    await cluster.files.write_bytes("/log", b"")
    await cluster.files.append_record("/log", b"x")
    await until(lambda: len(tried) == 2)
    await cluster.files._janitor


@pytest.mark.slow
async def test_an_append_that_cannot_be_done_says_so_at_its_deadline(small_cluster):
    cluster = await small_cluster(deadline_seconds=0.4)
    await cluster.files.write_bytes("/log", b"")
    await cluster.files.append_record("/log", b"x")
    for server in cluster.fleet.servers.values():
        server.kill()
    with pytest.raises(GfsError):
        await cluster.files.append_record("/log", b"y")
    assert await cluster.connect().exists("/log")


async def test_a_failure_of_any_kind_is_told_to_all_whose_records_travelled_together(small_cluster, monkeypatch):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/log", b"")
    await cluster.files.append_record("/log", b"first")
    appender = next(iter(cluster.files._appenders._by_inode.values()))
    deliver, both = appender._deliver, threading.Event()

    def failing(undelivered, lengths):
        if len(undelivered) == 2:
            raise RuntimeError("a bug")
        assert both.wait(5)
        deliver(undelivered, lengths)

    monkeypatch.setattr(appender, "_deliver", failing)
    appending = [asyncio.create_task(cluster.files.append_record("/log", b"x")) for _ in range(3)]
    await until(lambda: len(appender._waiting) == 2)
    both.set()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*appending, return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert all("a bug" in str(result) for result in results if not isinstance(result, int))


@pytest.mark.slow
async def test_a_record_of_the_largest_size_fits(small_cluster):
    cluster = await small_cluster(chunk_bytes=4 * MIB)
    await cluster.files.write_bytes("/log", b"")
    record = os.urandom(MIB)
    offsets = [await cluster.files.append_record("/log", record) for _ in range(5)]
    assert offsets == [n * MIB for n in range(5)]
