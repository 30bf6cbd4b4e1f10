"""The leader: nothing is acknowledged or seen before it is durable, nothing is applied twice, leases are sound."""

import asyncio

import pytest

from gfsmaster.oplog import GENESIS_HASH
from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.errors import (
    AlreadyExists,
    CallForgotten,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArgument,
    LeaseLost,
    LogFailed,
    NamespaceError,
    NotFound,
    NotLeader,
    PermissionDenied,
    StaleHandle,
    StateDiverged,
    TooFewServers,
)
from gfsprotocol.tokens import open_grant
from tests.conftest import ExpectedLogs
from tests.master.leading import KEY, Harness, HeldLog, leading, replayed, until

CLIENT = b"client-1-client-1"[:16]


async def test_a_change_is_answered_only_when_it_is_durable() -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        await harness.leader.committer.drained()
        harness.log.open.clear()
        change = asyncio.create_task(harness.change(client, msg.Mkdir(b"/a")))
        await until(lambda: harness.leader.state.inodes.directories[1].find(b"a"))
        with pytest.raises(DeadlineExceeded):
            await client.call(msg.Stat(b"/"), 0.1)
        assert not change.done()
        harness.log.open.set()
        assert isinstance(await change, msg.AttributesReply)


async def test_a_read_that_could_see_an_uncommitted_change_waits_for_it() -> None:
    async with leading() as harness:
        client, other = await harness.connect("client", CLIENT), await harness.connect("client", b"o" * 16)
        await harness.leader.committer.drained()
        harness.log.open.clear()
        change = asyncio.create_task(harness.change(client, msg.Mkdir(b"/a")))
        await until(lambda: harness.leader.state.inodes.directories[1].find(b"a"))
        seen = asyncio.create_task(other.call(msg.Stat(b"/a"), 5))
        refused = asyncio.create_task(other.call(msg.Mkdir(b"/a"), 5, (), msg.Call(1, 1)))
        await asyncio.sleep(0)
        assert not seen.done()
        harness.log.open.set()
        await change
        await seen
        with pytest.raises(AlreadyExists):
            await refused


@pytest.mark.slow
async def test_fault_3_a_failed_append_acknowledges_nothing_and_ends_the_leadership() -> None:
    log = HeldLog()
    harness: Harness
    async with leading(log) as harness:
        client = await harness.connect("client", CLIENT)
        await harness.leader.committer.drained()
        log.failure = LogFailed("fsync: Input/output error")
        with pytest.raises((DeadlineExceeded, ConnectionLost)):
            await client.call(msg.Mkdir(b"/a"), 0.3, (), msg.Call(1, 1))
        with pytest.raises(LogFailed):
            await harness.leader.committer.drained()
        log.failure = None
        with pytest.raises(NotLeader):
            await client.call(msg.Mkdir(b"/b"), 5, (), msg.Call(2, 2))
    assert len(log.batches) == 1


async def test_fault_17_a_retried_call_returns_the_first_result_even_from_the_next_leader() -> None:
    async with leading() as harness:
        client, other = await harness.connect("client", CLIENT), await harness.connect("client", b"o" * 16)
        call = msg.Call(7, 7)
        first = (await client.call(msg.Create(b"/f", exclusive=True), 5, (), call)).body
        await other.call(msg.Rename(b"/f", target=b"/g"), 5, (), msg.Call(1, 1))
        again = (await client.call(msg.Create(b"/f", exclusive=True), 5, (), msg.Call(7, 7, retry=True))).body
        assert again == first
        log = harness.log
    state = replayed(log)
    async with leading(HeldLog(), state, log.batches[-1].hash) as harness:
        client = await harness.connect("client", CLIENT)
        again = (await client.call(msg.Create(b"/f", exclusive=True), 5, (), msg.Call(7, 7, retry=True))).body
        assert again == first
        with pytest.raises(NotFound):
            await client.call(msg.Stat(b"/f"), 5)
        await client.call(msg.Mkdir(b"/x"), 5, (), msg.Call(9, 9))
        with pytest.raises(CallForgotten):
            await client.call(msg.Create(b"/f", exclusive=True), 5, (), msg.Call(7, 7, retry=True))


async def test_a_leader_that_could_not_renew_in_time_answers_nothing() -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        harness.clock.now += 46
        with pytest.raises(NotLeader):
            await client.call(msg.Stat(b"/"), 5)


async def test_clients_cannot_speak_as_chunk_servers() -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        with pytest.raises(PermissionDenied):
            await client.call(msg.Heartbeat(1, (), b"", (), ()), 5)
        [server] = await harness.add_servers(1)
        with pytest.raises(PermissionDenied):
            await server.peer.call(msg.Unlink(b"/x"), 5)


async def allocate(harness: Harness, client: object, path: bytes = b"/f") -> tuple[int, msg.Lease]:
    created = await harness.change(client, msg.Create(path))  # type: ignore[arg-type]
    assert isinstance(created, msg.AttributesReply)
    lease = await harness.change(client, msg.AllocateChunk(created.attributes.inode, 0))  # type: ignore[arg-type]
    assert isinstance(lease, msg.Lease)
    return created.attributes.inode, lease


async def test_an_allocation_names_as_many_servers_as_copies_and_is_signed() -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        await harness.add_servers(4)
        _, lease = await allocate(harness, client)
        assert open_grant(KEY, lease.token) == lease.grant
        assert len({member.server for member in lease.grant.members}) == 3
        assert (lease.grant.base_version, lease.grant.version) == (0, 1)


async def test_too_few_servers_refuse_a_write_in_one_line() -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        await harness.add_servers(1)
        with pytest.raises(TooFewServers, match="1 chunk servers are available, a write needs at least 2"):
            await allocate(harness, client)


async def test_writers_of_one_chunk_share_a_lease() -> None:
    async with leading() as harness:
        client, other = await harness.connect("client", CLIENT), await harness.connect("client", b"o" * 16)
        await harness.add_servers(3)
        inode, lease = await allocate(harness, client)
        await harness.change(other, msg.OpenForWrite(b"/f"))
        shared = await harness.change(other, msg.AllocateChunk(inode, 0))
        assert isinstance(shared, msg.Lease)
        assert (shared.grant.version, shared.grant.members) == (lease.grant.version, lease.grant.members)


async def test_a_failed_member_is_dropped_under_a_higher_version_that_is_logged_before_use() -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        servers = await harness.add_servers(3)
        inode, lease = await allocate(harness, client)
        chunk = lease.grant.chunk
        failed = lease.grant.members[1].server
        renewed = await harness.change(client, msg.RenewLease(inode, 0, chunk, 1, (failed,)))
        assert isinstance(renewed, msg.Lease)
        assert renewed.grant.version == 2
        assert failed not in {member.server for member in renewed.grant.members}
        assert renewed.grant.members[0] == lease.grant.members[0]
        slot = harness.leader.state.chunks.slot_of(chunk)
        assert harness.leader.state.chunks.version[slot] == 1
        primary = next(server for server in servers if server.number == renewed.grant.members[0].server)
        await primary.peer.call(msg.ConfirmGrant(primary.number, chunk, 2, 0), 5)
        assert harness.leader.state.chunks.version[slot] == 2
        assert replayed(harness.log).chunks.version[slot] == 2
        stale = next(server for server in servers if server.number == failed)
        await stale.beat([(chunk, 1, 100)])
        assert failed not in {server.server for server in harness.leader.fleet.holders(slot)}
        with pytest.raises(LeaseLost):
            await primary.peer.call(msg.ConfirmGrant(primary.number, chunk, 1, 0), 5)
        with pytest.raises(TooFewServers):
            await harness.change(client, msg.RenewLease(inode, 0, chunk, 2, (renewed.grant.members[1].server,)))


@pytest.mark.slow
async def test_fault_31_lengths_acknowledged_before_a_cut_are_refused(expected_logs: ExpectedLogs) -> None:
    expected_logs("is gone: its open files are closed", "is dead")
    async with leading() as harness:
        sleeper, other = await harness.connect("client", CLIENT), await harness.connect("client", b"o" * 16)
        await harness.add_servers(3)
        inode, lease = await allocate(harness, sleeper)
        chunk = lease.grant.chunk
        await harness.change(sleeper, msg.RecordLength(inode, (msg.ChunkLength(0, chunk, 10, 1),)))
        harness.leader.beat(harness.clock.now + 400)
        harness.clock.now += 300
        for server in harness.leader.fleet.servers:
            server.heard, server.connected, server.alive = harness.clock.now, True, True
        await until(lambda: not harness.leader.state.writers.count(harness.leader.state.inodes.slot_of(inode)), 15)
        await harness.change(other, msg.OpenForWrite(b"/f"))
        cut = await harness.change(other, msg.AllocateChunk(inode, 0))
        assert isinstance(cut, msg.Lease)
        assert cut.grant.cut_length == 10
        with pytest.raises(StaleHandle):
            await harness.change(sleeper, msg.RecordLength(inode, (msg.ChunkLength(0, chunk, 500, 1),)))
        with pytest.raises(StaleHandle):
            await harness.change(sleeper, msg.RenewLease(inode, 0, chunk, 1))


async def test_replicas_of_a_freed_chunk_are_deleted_only_when_that_is_durable() -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        servers = await harness.add_servers(3)
        inode, lease = await allocate(harness, client)
        chunk = lease.grant.chunk
        for server in servers:
            await server.beat([(chunk, 1, 100)])
        await harness.change(client, msg.Close(inode, (msg.ChunkLength(0, chunk, 100, 1),)))
        await until(lambda: not harness.leader.status().safe_mode)
        harness.log.open.clear()
        removal = asyncio.create_task(harness.change(client, msg.Unlink(b"/f")))
        await until(lambda: not len(harness.leader.state.chunks))
        assert not any(server.deletions for server in harness.leader.fleet.servers)
        harness.log.open.set()
        await removal
        orders = (await servers[0].beat()).orders
        assert [type(order) for order in orders] == [msg.DeleteOrder]
        assert orders[0].chunk == chunk


async def test_fault_22_a_master_older_than_the_data_deletes_nothing(expected_logs: ExpectedLogs) -> None:
    expected_logs("deletions are held back", "the brake on deletions was released")
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        [server] = await harness.add_servers(1)
        await server.register([(5, 1, 10)], highest_chunk=99)
        await until(lambda: not harness.leader.status().safe_mode)
        assert "older than the data" in harness.leader.status().brake
        assert (await server.beat()).orders == ()
        released = (await client.call(msg.ReleaseBrake(), 5)).body
        assert released == msg.Count(0)  # chunks that were never given out here are not this master's to delete
        assert (await server.beat()).orders == ()


@pytest.mark.slow
async def test_a_client_that_has_gone_leaves_no_file_open(expected_logs: ExpectedLogs) -> None:
    expected_logs("is gone: its open files are closed")
    async with leading(client_silent_seconds=1.0) as harness:
        client = await harness.connect("client", CLIENT)
        await harness.change(client, msg.Create(b"/f"))
        slot = harness.leader.planner.namespace.find((), 1, b"/f")
        assert harness.leader.state.writers.count(slot) == 1
        harness.clock.now += 2
        await until(lambda: not harness.leader.state.writers.count(slot), 15)


async def test_genesis_hash_begins_the_chain() -> None:
    async with leading() as harness:
        await harness.leader.committer.drained()
        assert harness.log.batches[0].first == 1
        assert harness.log.batches[0].hash != GENESIS_HASH


@pytest.mark.parametrize(
    ("body", "user"),
    [
        (msg.SetAttributes(b"/", modified_ns=2**63), ()),
        (msg.SetAttributes(b"/", accessed_ns=2**64 - 1), ()),
        (msg.SetAttributes(b"/", uid=2**32 - 1), ()),
        (msg.SetAttributes(b"/", gid=2**40), ()),
        (msg.Mkdir(b"/d"), (2**32, 0)),
        (msg.Mkdir(b"/d"), (0, 2**40)),
        (msg.Mkdir(b"/d"), (1,)),
        (msg.Create(b"/f", replication=10**6), ()),
        (msg.Create(b"/f", chunk_bytes=2**50), ()),
        (msg.SetAttributes(b"/f0", size=2**60), ()),
    ],
)
async def test_numbers_out_of_range_are_refused_and_change_nothing(
    body: msg.RequestBody, user: tuple[int, ...]
) -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        await harness.change(client, msg.Create(b"/f0"))
        before = harness.leader.state.digest()
        with pytest.raises(NamespaceError):
            await harness.change(client, body, user)
        assert harness.leader.state.digest() == before


async def test_a_closing_time_out_of_range_is_refused() -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        made = await harness.change(client, msg.Create(b"/f"))
        assert isinstance(made, msg.AttributesReply)
        with pytest.raises(InvalidArgument):
            await harness.change(client, msg.Close(made.attributes.inode, modified_ns=2**63))


async def test_a_change_that_cannot_be_applied_ends_the_leadership_and_is_not_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        await harness.leader.committer.drained()

        def broken(record: object) -> None:
            raise OverflowError("planted")

        monkeypatch.setattr(harness.leader.state, "apply", broken)
        with pytest.raises(StateDiverged, match="planted"):
            await harness.change(client, msg.Mkdir(b"/d"))
        with pytest.raises((NotLeader, ConnectionLost)):
            await client.call(msg.Stat(b"/"), 1)
        assert len(harness.log.records()) == 1


async def test_a_chunk_that_another_writer_may_have_used_is_not_replaced() -> None:
    async with leading() as harness:
        client, other = await harness.connect("client", CLIENT), await harness.connect("client", b"o" * 16)
        await harness.add_servers(4)
        inode, lease = await allocate(harness, client)
        await harness.change(other, msg.OpenForWrite(b"/f"))
        failed = lease.grant.members[0].server
        again = await harness.change(client, msg.AllocateChunk(inode, 0, (failed,), lease.grant.chunk))
        assert isinstance(again, msg.Lease)
        assert again.grant.chunk == lease.grant.chunk
        assert failed not in {member.server for member in again.grant.members}


# ----------------------------------------------------------------------------------------------------------- watches


class Told(rpc.NoService):
    """Takes notices, and answers, in their order."""

    def __init__(self) -> None:
        self.messages: list[object] = []

    def notice(self, peer: rpc.Peer, body: msg.NoticeBody) -> None:
        self.messages.append(body)

    def invalid(self) -> list[msg.Invalidate]:
        return [message for message in self.messages if isinstance(message, msg.Invalidate)]


async def test_who_watches_is_told_of_a_change_when_it_is_durable_and_behind_what_was_answered_before() -> None:
    async with leading() as harness:
        told = Told()
        watcher, other = await harness.connect("client", CLIENT, told), await harness.connect("client", b"o" * 16)
        await watcher.call(msg.Watch(), 5)
        await harness.change(other, msg.Mkdir(b"/a"))
        harness.log.open.clear()
        waits = [asyncio.create_task(harness.change(other, msg.Mkdir(b"/b")))]
        await until(lambda: harness.leader.state.inodes.directories[1].find(b"b"))
        before = asyncio.create_task(watcher.call(msg.Stat(b"/a"), 5))
        await until(lambda: len(harness.leader.committer._parked) == 2)
        waits.append(asyncio.create_task(harness.change(other, msg.SetAttributes(b"/a", mode=0o700))))
        await until(lambda: len(harness.leader.committer._parked) == 3)
        assert (await watcher.call(msg.KeepAlive(), 5)).body == msg.Done()  # it does not wait for the log
        received: list[object] = []
        dispatch = watcher._dispatch
        watcher._dispatch = lambda message: (received.append(message.body), dispatch(message))
        assert not told.messages
        harness.log.open.set()
        await asyncio.gather(*waits)
        shown = (await before).body
        assert isinstance(shown, msg.AttributesReply)
        assert shown.attributes.mode & 0o777 == 0o755
        await until(lambda: len(received) == 2)
        assert received == [shown, msg.Invalidate(inodes=(shown.attributes.inode,))]


async def test_a_leader_that_hands_over_tells_those_who_watch_to_drop_everything() -> None:
    async with leading() as harness:
        told = Told()
        watcher = await harness.connect("client", CLIENT, told)
        await watcher.call(msg.Watch(), 5)
        await harness.leader.resign()
        await until(lambda: told.messages)
        assert told.messages == [msg.Invalidate(everything=True)]
        with pytest.raises(NotLeader):
            await watcher.call(msg.KeepAlive(), 5)


async def test_a_client_that_does_not_read_its_notices_costs_no_more_and_more_memory(
    monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    monkeypatch.setattr("gfsmaster.notices.UNTAKEN_MAX", 10)
    expected_logs("does not read its notices")
    async with leading() as harness:
        told = Told()
        watcher, other = await harness.connect("client", CLIENT, told), await harness.connect("client", b"o" * 16)
        await watcher.call(msg.Watch(), 5)
        with pytest.raises(NotFound):
            await watcher.call(msg.Stat(b"/7"), 5)
        [served] = harness.leader.notices._untaken
        reads = asyncio.Event()
        send = served.channel.send

        async def held(frame: bytes) -> None:
            await reads.wait()
            await send(frame)

        served.channel.send = held  # type: ignore[method-assign]
        for number in range(50):
            await harness.change(other, msg.Mkdir(b"/%d" % number))
        assert served.queued - served.sent < 15
        reads.set()
        await until(lambda: told.invalid()[-1:] == [msg.Invalidate(everything=True)])
        assert isinstance((await watcher.call(msg.Stat(b"/7"), 5)).body, msg.AttributesReply)
        await harness.change(other, msg.Rmdir(b"/7"))
        await until(lambda: told.invalid()[-1].names == ((1, b"7"),))


async def test_who_watches_no_more_costs_nothing() -> None:
    async with leading() as harness:
        watcher = await harness.connect("client", CLIENT)
        await watcher.call(msg.Watch(), 5)
        await watcher.call(msg.Watch(), 5)
        assert harness.leader.state.touched is not None
        [served] = harness.leader.notices._untaken
        harness.leader.disconnected(served)
        assert harness.leader.state.touched is None
        other = await harness.connect("client", b"o" * 16)
        await other.call(msg.Watch(), 5)
        harness.leader.end()
        assert harness.leader.state.touched is None
