"""Reads past bad, slow, short and missing replicas: the file's bytes or an error, never anything else."""

import asyncio
import os
import threading
import time
from dataclasses import replace

import msgspec
import pytest

from gfsprotocol import bulk
from gfsprotocol.errors import DataLost
from gfsprotocol.ids import KIB, MIB
from tests.client.chunkservers import FakeChunkServer, Fault
from tests.client.smallcluster import SmallCluster
from tests.master.leading import until

SIZES = pytest.mark.parametrize("size", [1000, 64 * KIB, 3 * MIB + 17], ids=["small", "block", "large"])


async def written(cluster: SmallCluster, size: int) -> bytes:
    data = os.urandom(size)
    await cluster.files.write_bytes("/a", data)
    for server in cluster.fleet.servers.values():
        server.requests.clear()
    return data


def first_asked(cluster: SmallCluster) -> FakeChunkServer:
    """The replica that a reader of the only chunk asks first."""
    state = cluster.harness.leader.state
    location = cluster.harness.leader.queries._location(state.inodes.slot_of(2), 0, {})
    order = cluster.files._core.servers.in_order(location.servers, location.chunk)
    return cluster.fleet.servers[order[0]]


def reads(server: FakeChunkServer) -> list[bulk.Read]:
    return [request for request in server.requests if isinstance(request, bulk.Read)]


@pytest.mark.slow
@SIZES
@pytest.mark.parametrize("dead", [1, 2])
async def test_dead_servers_are_passed_over(small_cluster, size, dead):
    cluster = await small_cluster()
    data = await written(cluster, size)
    for server in list(cluster.fleet.servers.values())[:dead]:
        server.kill()
    assert await cluster.files.read_bytes("/a") == data


@SIZES
async def test_a_flipped_byte_is_never_returned_but_read_elsewhere_and_reported(small_cluster, size, expected_logs):
    expected_logs("client reports a corrupt replica")
    cluster = await small_cluster()
    data = await written(cluster, size)
    bad = first_asked(cluster)
    replica = next(iter(bad.replicas.values()))
    stored = replica.digests(0, size)
    replica.data[500] ^= 1

    def as_stored(reply: bulk.ReadReply, _data: bytearray) -> bulk.ReadReply:
        return reply if reply.verified else msgspec.structs.replace(reply, digests=stored)

    bad.mangle = as_stored
    assert await cluster.files.read_bytes("/a") == data
    suspects = cluster.harness.leader.fleet.suspects
    await until(lambda: suspects)
    assert list(suspects.values()) == [[next(iter(bad.replicas))]]


@SIZES
async def test_bytes_that_change_on_the_way_are_noticed(small_cluster, size, expected_logs):
    expected_logs("client reports a corrupt replica")
    cluster = await small_cluster()
    data = await written(cluster, size)
    flipped = []

    def flip(reply: bulk.ReadReply, payload: bytearray) -> bulk.ReadReply:
        payload[-1] ^= 0x80
        flipped.append(reply)
        return reply

    first_asked(cluster).mangle = flip
    assert await cluster.files.read_bytes("/a") == data
    assert flipped


@SIZES
async def test_a_block_that_is_overwritten_while_it_is_sent_is_verified_by_the_server(
    small_cluster, size, expected_logs
):
    expected_logs("client reports a corrupt replica")
    cluster = await small_cluster()
    data = await written(cluster, size)
    torn = set()

    def tear(reply: bulk.ReadReply, payload: bytearray) -> bulk.ReadReply:
        if not reply.verified:
            torn.add(reply.offset)
            payload[0] ^= 1
        return reply

    for server in cluster.fleet.servers.values():
        server.mangle = tear
    assert await cluster.files.read_bytes("/a") == data
    assert torn
    assert any(read.verify for server in cluster.fleet.servers.values() for read in reads(server))


@SIZES
async def test_a_short_replica_never_reads_as_zeros(small_cluster, size, expected_logs):
    expected_logs("client reports a corrupt replica")
    cluster = await small_cluster()
    data = await written(cluster, size)
    short = first_asked(cluster)
    for replica in short.replicas.values():
        del replica.data[len(replica.data) // 2 :]
    assert await cluster.files.read_bytes("/a") == data
    assert reads(short)


@pytest.mark.slow
async def test_replicas_that_are_all_short_are_data_lost_and_not_zeros(small_cluster, expected_logs):
    expected_logs("client reports a corrupt replica")
    cluster = await small_cluster(deadline_seconds=0.4)
    await written(cluster, 100_000)
    for server in cluster.fleet.servers.values():
        for replica in server.replicas.values():
            del replica.data[50_000:]
    with pytest.raises(DataLost, match=r"ends at 50000, 100000 bytes are recorded"):
        await cluster.files.read_bytes("/a")


@pytest.mark.slow
@SIZES
async def test_when_no_replica_answers_until_the_deadline_the_error_names_chunk_and_servers(small_cluster, size):
    cluster = await small_cluster(deadline_seconds=0.4)
    await written(cluster, size)
    chunk = next(iter(cluster.fleet.servers[1].replicas))
    for server in cluster.fleet.servers.values():
        server.kill()
    started = time.monotonic()
    with pytest.raises(DataLost) as caught:
        await cluster.files.read_bytes("/a")
    assert 0.3 < time.monotonic() - started < 5
    assert f"chunk {chunk} (number 0 of the file)" in caught.value.message
    assert all(f"server {number}: cannot connect" in caught.value.message for number in (1, 2, 3))


@pytest.mark.slow
async def test_a_read_that_fails_everywhere_goes_on_when_a_server_comes_back(small_cluster):
    cluster = await small_cluster()
    data = await written(cluster, 5000)
    back = threading.Event()

    def absent(request: bulk.RequestHeader) -> None:
        if not back.is_set():
            raise Fault

    for server in cluster.fleet.servers.values():
        server.before = absent
    reading = asyncio.create_task(cluster.files.read_bytes("/a"))
    await until(lambda: sum(len(reads(server)) for server in cluster.fleet.servers.values()) > 6)
    back.set()
    assert await reading == data


@pytest.mark.slow
async def test_fault_26_a_late_answer_lands_in_no_other_read(small_cluster):
    cluster = await small_cluster(read_progress_seconds=0.1, hedge_seconds=0.05, chunk_bytes=1 * MIB)
    data = await written(cluster, 4 * MIB)
    late = first_asked(cluster)
    release = threading.Event()
    held = threading.Semaphore(3)

    def hold(request: bulk.RequestHeader) -> None:
        if held.acquire(blocking=False):
            release.wait(10)

    late.before = hold
    async with await cluster.files.open("/a") as file:
        for offset in (0, 2 * MIB, 700_000, 3 * MIB, 123_456):
            for count in (10, 100_000, 1_000_000):
                assert await file.pread(offset, count) == data[offset : offset + count]
            release.set()


@pytest.mark.slow
async def test_a_server_that_stops_in_the_middle_of_an_answer_is_left_for_another(small_cluster):
    cluster = await small_cluster(read_progress_seconds=0.2)
    data = await written(cluster, 3 * MIB)
    slow = first_asked(cluster)
    release = threading.Event()
    slow.pause_after = MIB + 100, release
    started = time.monotonic()
    assert await cluster.files.read_bytes("/a") == data
    release.set()
    assert time.monotonic() - started < 2
    others = [server for server in cluster.fleet.servers.values() if server is not slow]
    resumed = [read.offset for server in others for read in reads(server)]
    assert resumed
    assert min(resumed) >= MIB  # what came verified is not asked for again


async def test_a_slow_server_costs_a_small_read_only_the_hedge(small_cluster):
    cluster = await small_cluster(hedge_seconds=0.05, read_progress_seconds=20.0)
    data = await written(cluster, 5000)
    slow = first_asked(cluster)
    release = threading.Event()
    slow.before = lambda _: release.wait(10)
    started = time.monotonic()
    assert await cluster.files.read_bytes("/a") == data
    assert time.monotonic() - started < 1
    assert await cluster.files.read_bytes("/a") == data
    assert len(reads(slow)) == 1  # it is asked last for a while
    release.set()


async def test_small_reads_are_verified_by_the_server_and_large_ones_by_the_client(small_cluster):
    cluster = await small_cluster()
    data = await written(cluster, 3 * MIB)
    replies: list[bulk.ReadReply] = []

    def note(reply: bulk.ReadReply, payload: bytearray) -> bulk.ReadReply:
        replies.append(reply)
        return reply

    for server in cluster.fleet.servers.values():
        server.mangle = note
    async with await cluster.files.open("/a") as file:
        assert await file.pread(100, 5000) == data[100:5100]
        assert [reply.verified for reply in replies] == [True]
        replies.clear()
        assert await file.pread(MIB, MIB) == data[MIB : 2 * MIB]
        assert [reply.verified for reply in replies] == [False]


async def test_a_token_that_has_expired_is_exchanged(small_cluster):
    cluster = await small_cluster()
    data = await written(cluster, 200_000)
    async with await cluster.files.open("/a") as file:
        chunks = file._handle._reader.chunks
        location = chunks._known[0]
        chunks._known[0] = msgspec.structs.replace(location, token=bytes(57))
        assert await file.pread(0, 200_000) == data


async def test_a_stale_replica_is_not_read(small_cluster):
    cluster = await small_cluster()
    data = await written(cluster, 5000)
    stale = first_asked(cluster)
    for chunk, replica in stale.replicas.items():
        stale.replicas[chunk] = replace(replica, version=0, data=bytearray(b"old" * 2000))
    assert await cluster.files.read_bytes("/a") == data


async def cut_off(cluster: SmallCluster) -> None:
    """Another client empties the file, and the servers delete the chunk as they are told."""
    await cluster.connect().truncate("/a", 0)
    for server in cluster.fleet.servers.values():
        server.replicas.clear()


async def test_what_another_client_cut_off_is_not_read_as_zeros(small_cluster):
    cluster = await small_cluster()
    await written(cluster, 5000)
    reader = await cluster.files._reader("/a")
    await cut_off(cluster)
    assert await cluster.files._core.in_thread(reader.read_known) == b""


async def test_what_another_client_cut_off_is_not_copied_as_zeros(small_cluster):
    cluster = await small_cluster(read_ahead_bytes=0)
    data = await written(cluster, MIB)
    reader = await cluster.files._reader("/a")
    stream = reader.stream(0)
    first = bytes(await cluster.files._core.in_thread(next, stream))
    assert 0 < len(first) < MIB
    await cut_off(cluster)
    rest = await cluster.files._core.in_thread(lambda: b"".join(map(bytes, stream)))
    assert (first, rest) == (data[: len(first)], b"")
