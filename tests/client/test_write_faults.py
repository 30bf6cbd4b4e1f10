"""Writes through failures of chunk servers, leases and masters: nothing acknowledged is lost or doubled."""

import asyncio
import errno
import os
import socket
import threading
import time

import pytest

from gfsclient.handle import FileHandle
from gfsprotocol import bulk
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    ConnectionLost,
    DataError,
    DataLost,
    GfsError,
    LeaseLost,
    NoSpace,
    ReplicaFailed,
    StaleHandle,
    TokenRefused,
    TooFewServers,
    Unreachable,
    WritesLost,
)
from gfsprotocol.ids import KIB, MIB
from gfsprotocol.tokens import open_grant
from tests.client.chunkservers import FakeChunkServer, Fault
from tests.client.smallcluster import SmallCluster
from tests.master.leading import until

CHUNK = 256 * KIB
PACKETS = 6


def mutations(server: FakeChunkServer) -> int:
    return sum(isinstance(request, bulk.Mutate | bulk.SingleWrite) for request in server.requests)


def primaries(cluster: SmallCluster) -> list[FakeChunkServer]:
    return [server for server in cluster.fleet.servers.values() if mutations(server)]


def count_mutations(cluster: SmallCluster, act) -> None:
    """Calls ``act(server, n)`` before the n-th mutation of the whole cluster is carried out, from 1."""
    lock, seen = threading.Lock(), [0]

    def hook(server: FakeChunkServer):
        def before(request: bulk.RequestHeader) -> None:
            if isinstance(request, bulk.Mutate):
                with lock:
                    seen[0] += 1
                    number = seen[0]
                act(server, number)

        return before

    for server in cluster.fleet.servers.values():
        server.before = hook(server)


def check_content(cluster: SmallCluster, data: bytes, chunk_bytes: int) -> None:
    """Each chunk of the only file is on at least two live servers, as it should be."""
    state = cluster.harness.leader.state
    slots = state.inodes.chunk_slots(state.inodes.slot_of(2))
    for index, slot in enumerate(slots):
        live = [s for s in cluster.fleet.servers.values() if not s.dead]
        version = state.chunks.version[slot]
        good = [s.replicas[state.chunks.ids[slot]] for s in live if state.chunks.ids[slot] in s.replicas]
        good = [replica for replica in good if replica.version >= version]
        assert len(good) >= 2
        for replica in good:
            assert bytes(replica.data) == data[index * chunk_bytes : (index + 1) * chunk_bytes]


@pytest.mark.slow
@pytest.mark.parametrize("who", ["primary", "another"])
@pytest.mark.parametrize("boundary", range(1, PACKETS + 1))
async def test_a_replica_that_dies_at_any_packet_boundary_costs_no_byte(small_cluster, who, boundary):
    cluster = await small_cluster(servers=4, chunk_bytes=4 * MIB)
    data = os.urandom(PACKETS * MIB - 1000)

    def act(server: FakeChunkServer, number: int) -> None:
        if number == boundary:
            victim = server
            if who == "another":
                victim = next(s for s in cluster.fleet.servers.values() if s is not server and s.replicas)
            victim.dead = True
            if victim is server:
                raise Fault

    count_mutations(cluster, act)
    await cluster.files.write_bytes("/a", data)
    for server in cluster.fleet.servers.values():
        if server.dead:
            server.dead = False
            server.kill()
    assert await cluster.files.read_bytes("/a") == data
    check_content(cluster, data, 4 * MIB)


@pytest.mark.slow
@pytest.mark.parametrize("boundary", range(1, 4))
async def test_an_answer_that_is_lost_is_not_a_byte_lost(small_cluster, boundary):
    cluster = await small_cluster(chunk_bytes=4 * MIB)
    data = os.urandom(3 * MIB)
    seen = [0]

    def cut(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.Mutate):
            seen[0] += 1
            if seen[0] == boundary:
                raise Fault

    for server in cluster.fleet.servers.values():
        server.after = cut
    await cluster.files.write_bytes("/a", data)
    assert await cluster.files.read_bytes("/a") == data


async def test_a_new_chunk_whose_server_is_down_goes_to_others(small_cluster):
    cluster = await small_cluster(servers=4)
    cluster.fleet.servers[2].kill()
    cluster.fleet.servers[2].dead = True
    for number in range(8):
        await cluster.files.write_bytes(f"/{number}", b"data")
        assert await cluster.files.read_bytes(f"/{number}") == b"data"
    state = cluster.harness.leader.state
    for slot in range(1, len(state.chunks) + 1):
        if state.chunks.length[slot]:
            assert len(cluster.fleet.content(state.chunks.ids[slot])) == 3


@pytest.mark.parametrize("error", [LeaseLost("over"), ConnectionLost("cut"), DataError("some hop mangled it")])
async def test_a_lost_lease_is_renewed_and_the_write_goes_on(small_cluster, error):
    cluster = await small_cluster()

    def act(_server: FakeChunkServer, number: int) -> None:
        if number in (1, 2):
            raise error

    count_mutations(cluster, act)
    await cluster.files.write_bytes("/a", b"data")
    assert await cluster.files.read_bytes("/a") == b"data"


async def test_a_full_server_is_done_without(small_cluster):
    cluster = await small_cluster(servers=4)
    full = []

    def act(server: FakeChunkServer, number: int) -> None:
        if number == 1:
            full.append(server)
        if server in full:
            raise NoSpace("disk full", hint=str(server.server))

    count_mutations(cluster, act)
    await cluster.files.write_bytes("/a", b"data")
    assert await cluster.files.read_bytes("/a") == b"data"


@pytest.mark.slow
async def test_too_few_servers_is_told_when_the_deadline_has_passed(small_cluster):
    cluster = await small_cluster(servers=1, deadline_seconds=0.5)
    started = time.monotonic()
    with pytest.raises(TooFewServers, match="1 chunk servers are available, a write needs at least 2"):
        await cluster.files.write_bytes("/a", b"data")
    assert 0.4 < time.monotonic() - started < 5
    assert not (await cluster.files.list_open())


@pytest.mark.slow
async def test_servers_that_all_fail_end_the_write_at_its_deadline(small_cluster):
    cluster = await small_cluster(deadline_seconds=0.5)
    for server in cluster.fleet.servers.values():
        server.kill()
    with pytest.raises(GfsError):
        await cluster.files.write_bytes("/a", b"data")
    assert (await cluster.files.stat("/a")).size == 0
    assert not (await cluster.files.list_open())


@pytest.mark.slow
async def test_an_error_of_the_background_is_told_by_a_later_call(small_cluster):
    cluster = await small_cluster(deadline_seconds=0.3)
    file = await cluster.files.open("/a", "wb")
    for server in cluster.fleet.servers.values():
        server.kill()
    with pytest.raises(GfsError):
        for _ in range(100):
            await file.write(bytes(MIB))
    with pytest.raises(GfsError):
        await file.flush()
    with pytest.raises(GfsError):
        await file.close()


@pytest.mark.slow
async def test_an_idle_session_that_the_server_ends_harms_no_one(small_cluster):
    cluster = await small_cluster()
    async with await cluster.files.open("/a", "wb") as file:
        await file.write(bytes(MIB + 5))
        await file.flush()
        for server in cluster.fleet.servers.values():
            with cluster.fleet.lock:
                for connection in server._connections:
                    connection.shutdown(2)
        await file.write(b"more")
    assert await cluster.files.read_bytes("/a") == bytes(MIB + 5) + b"more"
    assert not cluster.files._core.servers._avoided_until


@pytest.mark.slow
async def test_a_sync_after_the_primary_lost_its_power_finds_the_bytes_elsewhere(small_cluster):
    cluster = await small_cluster()
    data = os.urandom(MIB + 5)
    async with await cluster.files.open("/a", "wb") as file:
        await file.write(data)
        await file.flush()
        [primary] = primaries(cluster)
        primary.lose_power()
        await file.fsync()
    assert await cluster.files.read_bytes("/a") == data
    check_content(cluster, data, cluster.chunk_bytes)


@pytest.mark.slow
async def test_a_sync_after_all_servers_lost_their_power_says_that_bytes_are_lost(small_cluster, expected_logs):
    cluster = await small_cluster(deadline_seconds=0.5)
    file = await cluster.files.open("/a", "wb")
    await file.write(b"synced")
    await file.fsync()
    await file.write(b"only written")
    await file.flush()
    for server in cluster.fleet.servers.values():
        server.lose_power()
    with pytest.raises(WritesLost):
        await file.fsync()
    with pytest.raises(WritesLost):
        await file.close()
    expected_logs("reports a corrupt replica")
    with pytest.raises(DataLost):
        await cluster.files.read_bytes("/a")
    async with await cluster.files.open("/a", "rb") as file:
        assert await file.read(100) == b"synced"
        with pytest.raises(DataLost):
            await file.read(100)
        await file.seek(2)
        assert await file.read(3) == b"nce"


@pytest.mark.slow
async def test_writes_that_were_synced_need_no_one_to_vouch_for_them(small_cluster):
    cluster = await small_cluster()
    async with await cluster.files.open("/a", "wb") as file:
        await file.write(b"synced")
        await file.fsync()
        for server in cluster.fleet.servers.values():
            server.lose_power()
        await file.write(b" and more")
    assert await cluster.files.read_bytes("/a") == b"synced and more"


@pytest.mark.slow
async def test_writing_goes_on_while_no_master_answers(small_cluster):
    cluster = await small_cluster(chunk_bytes=64 * MIB)
    file = await cluster.files.open("/a", "wb")
    await file.write(bytes(MIB))
    await file.flush()
    cluster.harness.log.open.clear()  # no answer leaves any more that depends on the log
    before = sum(map(mutations, cluster.fleet.servers.values()))
    for _ in range(40):
        await file.write(bytes(MIB))
    assert sum(map(mutations, cluster.fleet.servers.values())) > before + 10
    cluster.harness.log.open.set()
    await file.close()
    assert (await cluster.files.stat("/a")).size == 41 * MIB


async def test_a_file_truncated_by_another_client_tells_its_writer(small_cluster):
    cluster = await small_cluster()
    file = await cluster.files.open("/a", "wb")
    await file.write(b"data")
    await file.flush()
    await cluster.connect().truncate("/a", 0)
    await file.write(b"more")
    with pytest.raises(StaleHandle):
        await file.close()
    assert not (await cluster.files.list_open())


async def test_a_lease_is_renewed_before_it_ends(small_cluster):
    cluster = await small_cluster()
    asked = cluster.questions(msg.RenewLease)
    handle = await cluster.files.open_handle(b"/a", "wb")
    await cluster.files._core.in_thread(handle.write, bytes(MIB))
    await cluster.files._core.in_thread(handle.flush)
    stream = next(iter(handle._writer._streams.values()))
    stream._lease._renew_at = 0.0  # as after half of the lease's time
    for _ in range(3):
        await cluster.files._core.in_thread(handle.write, bytes(MIB))
        await cluster.files._core.in_thread(handle.flush)
    await cluster.files._core.in_thread(handle.close)
    assert len(asked) == 1
    assert asked[0].failed == ()
    assert await cluster.files.read_bytes("/a") == bytes(4 * MIB)


async def test_giving_up_ends_a_write_that_waits(small_cluster):
    cluster = await small_cluster(write_window_packets=4)
    hold = threading.Event()
    for server in cluster.fleet.servers.values():
        server.before = lambda request: hold.wait(10) if isinstance(request, bulk.Mutate) else None
    handle = await cluster.files.open_handle(b"/a", "wb")
    write = asyncio.create_task(cluster.files._core.in_thread(handle.write, bytes(20 * MIB)))
    await asyncio.sleep(0)
    handle.give_up()
    with pytest.raises(GfsError, match="given up"):
        await write
    hold.set()
    await cluster.files._core.in_thread(handle.abort)


async def test_no_reader_sees_a_chunk_before_all_that_was_written_ahead_of_it(small_cluster):
    cluster = await small_cluster(chunk_bytes=MIB)
    hold = threading.Event()

    def act(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.OpenWrite) and open_grant(cluster.fleet.key, request.grant).index == 0:
            hold.wait(10)

    for server in cluster.fleet.servers.values():
        server.before = act
    handle = await cluster.files.open_handle(b"/a", "wb")
    in_thread = cluster.files._core.in_thread
    data = os.urandom(2 * MIB + 100)
    await in_thread(handle.write, data)
    writer = handle._writer
    await until(lambda: writer._streams[1].is_unrecorded and writer._streams[1].is_idle)
    writer._record_soon()
    await until(lambda: writer._recording is None or writer._recording.done())
    assert await cluster.connect().read_bytes("/a") == b""
    hold.set()
    await in_thread(handle.close)
    assert await cluster.connect().read_bytes("/a") == data


@pytest.mark.slow
async def test_a_write_that_ends_early_shows_no_zeros_in_place_of_what_was_lost(small_cluster):
    cluster = await small_cluster(chunk_bytes=MIB, deadline_seconds=0.3)
    blocked = []

    def act(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.OpenWrite) and open_grant(cluster.fleet.key, request.grant).index == 0:
            blocked.append(request)
            raise NoSpace("disk full")

    for server in cluster.fleet.servers.values():
        server.before = act
    handle = await cluster.files.open_handle(b"/a", "wb")
    in_thread = cluster.files._core.in_thread
    with pytest.raises(GfsError):
        await in_thread(handle.write, os.urandom(2 * MIB + 100))
        await until(lambda: handle._writer._streams[1].is_idle)
        await in_thread(handle.flush)
    with pytest.raises(GfsError):
        await in_thread(handle.close)
    assert blocked
    assert await cluster.connect().read_bytes("/a") == b""


async def test_an_error_that_passes_loses_nothing_that_was_taken_before(small_cluster, monkeypatch):
    monkeypatch.setattr("gfsclient.writer.STREAMS_KEPT_MAX", 1)
    cluster = await small_cluster(chunk_bytes=256 * KIB)
    core = cluster.files._core
    handle = await cluster.files.open_handle(b"/a", "wb")
    call, failures = core.call, [True]

    def failing(body, kind, deadline_seconds=None):
        if isinstance(body, msg.RecordLength) and failures:
            failures.pop()
            raise Unreachable("no master")
        return call(body, kind, deadline_seconds)

    monkeypatch.setattr(core, "call", failing)
    await core.in_thread(handle.pwrite, 0, b"first")
    await core.in_thread(handle.pwrite, 256 * KIB, b"second")
    with pytest.raises(Unreachable):
        await core.in_thread(handle.pwrite, 512 * KIB, b"third")
    await core.in_thread(handle.close)
    assert (await cluster.files.read_bytes("/a"))[256 * KIB :] == b"second"


async def test_chunks_that_are_remembered_are_bounded_whatever_is_flushed(small_cluster, monkeypatch):
    monkeypatch.setattr("gfsclient.writer.STREAMS_KEPT_MAX", 4)
    cluster = await small_cluster(chunk_bytes=64 * KIB)
    handle = await cluster.files.open_handle(b"/a", "wb")
    in_thread = cluster.files._core.in_thread
    for index in range(10):
        await in_thread(handle.pwrite, index * 64 * KIB, b"data")
        await in_thread(handle.flush)
    assert len(handle._writer._streams) <= 4
    await in_thread(handle.close)
    for server in cluster.fleet.servers.values():
        assert all(replica.synced == len(replica.data) for replica in server.replicas.values())


@pytest.mark.slow
async def test_a_client_without_descriptors_blames_no_server(small_cluster, monkeypatch):
    cluster = await small_cluster()
    asked = cluster.questions()
    connect, attempts = socket.create_connection, [OSError(errno.EMFILE, "Too many open files")] * 6

    def failing(*arguments, **named):
        if attempts:
            raise attempts.pop()
        return connect(*arguments, **named)

    monkeypatch.setattr(socket, "create_connection", failing)
    handle = await cluster.files.open_handle(b"/a", "wb")
    await cluster.files._core.in_thread(handle.write, b"data")
    await cluster.files._core.in_thread(handle.close)
    assert not attempts
    assert len(asked) == 1
    assert cluster.files._core.servers.excluded() == ()
    attempts = [OSError(errno.EMFILE, "Too many open files")] * 2
    await cluster.files._core.in_thread(cluster.files._core.pool.close)
    assert await cluster.files.read_bytes("/a") == b"data"
    assert not cluster.files._core.servers._avoided_until


@pytest.mark.parametrize("what", ["socketpair", "thread"])
async def test_a_stream_that_cannot_start_is_an_error_and_no_wait_for_ever(small_cluster, monkeypatch, what):
    cluster = await small_cluster()
    handle = await cluster.files.open_handle(b"/a", "wb")

    thread = threading.Thread

    def no_socketpair() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def no_thread(*arguments: object, name: str = "", **named: object) -> threading.Thread:
        if name.startswith("gfs-chunk"):
            raise RuntimeError("can't start new thread")
        return thread(*arguments, name=name, **named)

    def write_and_close() -> None:
        with pytest.raises(GfsError, match="cannot be started"):
            handle.write(bytes(3 * MIB))
        with pytest.raises(GfsError, match="cannot be started"):
            handle.close()

    with monkeypatch.context() as broken:
        if what == "socketpair":
            broken.setattr(socket, "socketpair", no_socketpair)
        else:
            broken.setattr(threading, "Thread", no_thread)
        async with asyncio.timeout(5):
            await cluster.files._core.in_thread(write_and_close)
    assert not (await cluster.files.list_open())


async def test_two_handles_of_one_client_cost_each_other_no_acknowledged_byte(small_cluster):
    cluster = await small_cluster()
    in_thread = cluster.files._core.in_thread
    first = await cluster.files.open_handle(b"/a", "wb")
    second = await cluster.files.open_handle(b"/a", "r+b")
    await in_thread(first.write, b"1" * (MIB + 10))
    stream = first._writer._streams[0]
    await until(lambda: stream.is_unrecorded and not stream.has_work)
    cluster.harness.clock.now += 1000  # the lease is over
    cluster.harness.leader.beat(cluster.harness.clock.now)
    await in_thread(second.pwrite, 2 * MIB, b"2")
    await in_thread(second.flush)
    await in_thread(first.close)
    await in_thread(second.close)
    assert await cluster.files.read_bytes("/a") == (b"1" * (MIB + 10)).ljust(2 * MIB, b"\0") + b"2"


def lose_first_grant(cluster: SmallCluster) -> list[int]:
    """The leader is killed when it has granted a new chunk: the servers refuse that grant, and nobody has the chunk."""
    leader, loop = cluster.harness.leader, asyncio.get_running_loop()
    refused: list[int] = []

    async def forget(chunk: int) -> None:
        slot = leader.state.chunks.slot_of(chunk)
        leader.leases.end(slot)
        leader.fleet.set_members(slot, [])
        leader.fleet.stale.clear()
        cluster.harness.clock.now += 5.0
        for server in leader.fleet.servers:
            server.heard = cluster.harness.clock.now

    def act(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.OpenWrite) and not refused:
            chunk = open_grant(cluster.fleet.key, request.grant).chunk
            refused.append(chunk)
            asyncio.run_coroutine_threadsafe(forget(chunk), loop).result(10)
            raise TokenRefused("the grant is of epoch 1, this server has seen epoch 2")

    for server in cluster.fleet.servers.values():
        server.before = act
    return refused


async def test_a_chunk_that_no_server_has_made_begins_anew(small_cluster):
    cluster = await small_cluster()
    refused = lose_first_grant(cluster)
    async with asyncio.timeout(5):
        await cluster.files.write_bytes("/a", b"hello")
    assert len(refused) == 1
    assert await cluster.files.read_bytes("/a") == b"hello"
    chunks = cluster.harness.leader.state.chunks
    assert chunks.version[chunks.slot_of(refused[0])] > 1


async def test_a_chunk_for_records_that_no_server_has_made_begins_anew(small_cluster):
    cluster = await small_cluster()
    await cluster.files.make_file("/a")
    refused = lose_first_grant(cluster)
    async with asyncio.timeout(5):
        assert await cluster.files.append_record("/a", b"hello") == 0
    assert len(refused) == 1
    assert await cluster.files.read_bytes("/a") == b"hello"
    chunks = cluster.harness.leader.state.chunks
    assert chunks.version[chunks.slot_of(refused[0])] > 1


async def test_a_chunk_removed_while_it_is_synced_blames_no_server(small_cluster):
    """Its chunk servers refuse the sync, as they should; new chunks must not avoid them for that."""
    cluster = await small_cluster(chunk_bytes=256 * KIB)
    file = await cluster.files.open("/a", "wb")
    await file.write(b"data")
    await file.flush()
    await cluster.connect().truncate("/a", 0)
    members = [server for server in cluster.fleet.servers.values() if server.replicas]

    def refuse(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.Mutate | bulk.OpenWrite):
            raise ReplicaFailed("a replica is gone", hint=str(members[-1].server))

    for server in members:
        server.before = refuse
    with pytest.raises(StaleHandle):
        await file.fsync()
    with pytest.raises(StaleHandle):
        await file.close()
    assert cluster.files._core.servers.excluded() == ()


@pytest.mark.slow
async def test_a_sync_that_no_server_can_answer_fails_at_once(small_cluster):
    cluster = await small_cluster(deadline_seconds=60.0)
    file = await cluster.files.open("/a", "wb")
    await file.write(b"only written")
    await file.flush()
    for server in cluster.fleet.servers.values():
        server.lose_power()
    async with asyncio.timeout(20):
        with pytest.raises(WritesLost):
            await file.fsync()
        with pytest.raises(WritesLost):
            await file.close()
    assert cluster.files._core.servers.excluded() == ()


@pytest.mark.slow
async def test_a_server_that_failed_is_asked_as_well_when_the_others_have_lost_the_bytes(small_cluster):
    """It is back, but the lease leaves it out: as long as it is not asked nobody knows whether they are lost."""
    cluster = await small_cluster(deadline_seconds=60.0)
    file = await cluster.files.open("/a", "wb")
    await file.write(b"only written")
    await file.flush()
    primary = cluster.fleet.servers[1]
    failures = [ReplicaFailed("it was killed", hint=str(primary.server))]

    def fail_once(request: bulk.RequestHeader) -> None:
        if failures:
            raise failures.pop()

    for server in cluster.fleet.servers.values():
        server.lose_power()
        server.before = fail_once
    async with asyncio.timeout(20):
        with pytest.raises(WritesLost):
            await file.fsync()
        with pytest.raises(WritesLost):
            await file.close()


@pytest.mark.slow
async def test_a_sync_waits_for_the_one_server_that_still_has_the_bytes(small_cluster):
    """It cannot be reached when the others say that they lost them; it leads them when it is back."""
    cluster = await small_cluster(deadline_seconds=30.0)
    file = await cluster.files.open("/a", "wb")
    await file.write(b"only written")
    await file.flush()
    servers = list(cluster.fleet.servers.values())
    fleet = cluster.harness.leader.fleet
    away = cluster.registered[0]
    servers[0].dead = True
    fleet.lost_connection(fleet.by_id[servers[0].server])
    refusals = []

    def note(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.OpenWrite):
            refusals.append(request)

    for server in servers[1:]:
        server.lose_power()
        server.before = note
    syncing = asyncio.create_task(file.fsync())
    await until(lambda: len(refusals) >= 2)
    assert not syncing.done()
    servers[0].dead = False
    cluster.harness.clock.now += 1.0
    await away.register([(1, 1, len(b"only written"))])
    await syncing
    await file.close()
    assert await cluster.files.read_bytes("/a") == b"only written"
    assert [bytes(server.replicas[1].data) for server in servers] == [b"only written"] * 3


@pytest.mark.slow
async def test_a_writer_goes_on_for_as_long_as_there_is_some_progress(small_cluster):
    """Its deadline counts from the last acknowledgement, however many servers fail in all."""
    cluster = await small_cluster(servers=4, deadline_seconds=3.0, chunk_bytes=16 * MIB)
    data = os.urandom(12 * MIB)
    failed = [0]

    def act(server: FakeChunkServer, number: int) -> None:
        if number % 3 == 2:
            failed[0] += 1
            time.sleep(0.8)
            raise Fault

    count_mutations(cluster, act)
    began = time.monotonic()
    await cluster.files.write_bytes("/a", data)
    assert failed[0] >= 4
    assert time.monotonic() - began > 3.0
    assert await cluster.files.read_bytes("/a") == data


async def partly_recorded(cluster: SmallCluster) -> FileHandle:
    """Open: 10 bytes are recorded, and a mebibyte behind them is acknowledged only."""
    in_thread = cluster.files._core.in_thread
    handle = await cluster.files.open_handle(b"/a", "wb")
    await in_thread(handle.write, b"0" * 10)
    await in_thread(handle.fsync)
    await in_thread(handle.write, b"1" * MIB)
    stream = handle._writer._streams[0]
    await until(lambda: stream.is_unrecorded and not stream.has_work)
    return handle


def lose_leases(cluster: SmallCluster) -> None:
    """What no leader knows of the leases that the one before has given."""
    leases = cluster.harness.leader.leases
    leases._by_chunk.clear()
    leases._cut_versions.clear()


@pytest.mark.parametrize("failover", [False, True], ids=["same leader", "another leader"])
@pytest.mark.parametrize("does", ["records", "writes on"])
async def test_a_writer_that_slept_too_long_hears_what_it_has_lost(small_cluster, expected_logs, failover, does):
    """Another client has opened the file meanwhile, which cut off what was not recorded, has written and closed it."""
    expected_logs("is gone: its open files are closed")
    cluster = await small_cluster()
    in_thread = cluster.files._core.in_thread
    slow = await partly_recorded(cluster)
    cluster.forget(cluster.files._core.masters.client)
    async with await cluster.connect().open("/a", "r+b") as other:
        await other.pwrite(10, b"22")
    if failover:
        lose_leases(cluster)
    with pytest.raises((StaleHandle, WritesLost)):
        if does == "writes on":
            await in_thread(slow.pwrite, 2 * MIB, b"3" * MIB)  # says so itself, if it is not too quick
        await in_thread(slow.flush)
    assert await cluster.files.read_bytes("/a") == b"0" * 10 + b"22"


@pytest.mark.parametrize("recorded", [False, True], ids=["not recorded", "recorded"])
async def test_a_writer_that_slept_too_long_goes_on_if_nobody_minded(small_cluster, expected_logs, recorded):
    expected_logs("is gone: its open files are closed")
    cluster = await small_cluster()
    in_thread = cluster.files._core.in_thread
    slow = await partly_recorded(cluster)
    if recorded:
        await in_thread(slow.fsync)
    cluster.forget(cluster.files._core.masters.client)
    await in_thread(slow.close)
    assert await cluster.files.read_bytes("/a") == b"0" * 10 + b"1" * MIB
    assert not await cluster.files.list_open()
