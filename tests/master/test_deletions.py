"""Replicas are deleted only while the reason holds; what was said of a freed chunk does not count against the next."""

import pytest

from gfsmaster import operations as op
from gfsmaster.queries import Queries
from gfsprotocol import messages as msg
from gfsprotocol.errors import InvalidArgument, SafeMode
from tests.conftest import ExpectedLogs
from tests.master.leading import Harness, leading
from tests.master.machine import Machine
from tests.master.test_repair import Cluster

CLIENT = b"c" * 16


async def _one_copy_too_many(harness: Harness) -> int:
    """A chunk of one copy that stands on the first two of three servers."""
    client = await harness.connect("client", CLIENT)
    made = await harness.change(client, msg.Create(b"/f", replication=1, open=False))
    assert isinstance(made, msg.AttributesReply)
    state = harness.leader.state
    chunk = state.chunks.next_id()
    harness.leader.changes.record((op.AddChunk(made.attributes.inode, 0, chunk),))
    await harness.change(client, msg.RecordLength(made.attributes.inode, (msg.ChunkLength(0, chunk, 10, 1),)))
    return chunk


async def test_fault_18_a_surplus_replica_is_kept_if_the_other_was_lost_before_the_order_left() -> None:
    async with leading() as harness:
        leader = harness.leader
        chunk = await _one_copy_too_many(harness)
        servers = await harness.add_servers(2, [(chunk, 1, 10)])
        leader.housekeeping.safe_mode = False
        leader.housekeeping._mend(harness.clock.now)
        [condemned] = [server for server in leader.fleet.servers if server.deletions]
        [other] = [server for server in leader.fleet.servers if server is not condemned]
        leader.fleet.lost_connection(other)
        orders = await servers[condemned.number].beat()
        assert not any(isinstance(order, msg.DeleteOrder) for order in orders.orders)
        assert orders.report_again
        await servers[condemned.number].register([(chunk, 1, 10)])
        assert leader.fleet.holders(leader.state.chunks.slot_of(chunk)) == [condemned]


async def test_deletions_that_a_server_refuses_hold_up_no_others_and_done_ones_end(expected_logs: ExpectedLogs) -> None:
    expected_logs("could not carry out")
    async with leading(deletions_per_heartbeat=1) as harness:
        [server] = await harness.add_servers(1)
        harness.leader.housekeeping.safe_mode = False
        known = harness.leader.fleet.servers[0]
        harness.leader.fleet.delete(101, 1, [known])
        harness.leader.fleet.delete(102, 1, [known])
        [first] = (await server.beat()).orders
        [second] = (await server.beat(finished=(msg.OrderResult(first.order, "is being written"),))).orders
        assert isinstance(second, msg.DeleteOrder)
        assert second.chunk == 102
        [third] = (await server.beat(finished=(msg.OrderResult(second.order, ""),))).orders
        assert isinstance(third, msg.DeleteOrder)
        assert third.chunk == 101
        assert list(known.deletions) == [101]


async def test_fault_22_what_a_newer_master_gave_out_is_not_deleted_after_the_brake_is_released(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("the brake on deletions was released")
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        chunk = await _one_copy_too_many(harness)
        [server] = await harness.add_servers(1, [(chunk, 1, 10), (10**6, 1, 10)])
        harness.leader.housekeeping.safe_mode = False
        assert "older than the data" in harness.leader.fleet.brake
        await client.call(msg.ReleaseBrake(), 5)
        for _ in range(3):
            assert (await server.beat()).orders == ()


async def test_fault_22_a_master_older_than_the_data_gives_out_no_chunk_ids(expected_logs: ExpectedLogs) -> None:
    """They would be those of chunks that are stored, and the others would become orphans once they are passed."""
    expected_logs("the brake on deletions was released", "deletions are held back")
    async with leading() as harness:
        client = await harness.connect("client", CLIENT)
        servers = await harness.add_servers(2)
        made = await harness.change(client, msg.Create(b"/f"))
        assert isinstance(made, msg.AttributesReply)
        await servers[0].beat(stored=[(10**6, 1, 10)])
        await client.call(msg.ReleaseBrake(), 5)
        with pytest.raises(SafeMode, match="older than the data"):
            await harness.change(client, msg.AllocateChunk(made.attributes.inode, 0))


def test_a_chunk_is_not_taken_for_corrupt_because_of_the_one_before_it_in_its_slot() -> None:
    cluster = Cluster(3, files=1)
    slot = cluster.slots[0]
    cluster.fleet.set_members(slot, cluster.servers)
    cluster.beat(cluster.servers[0], stored=cluster.pack([slot], length=4))
    cluster.machine.do(msg.Unlink(b"/0"))
    cluster.fleet.forget_chunk(slot, 1)
    inode = cluster.machine.attributes(msg.Create(b"/new", open=False)).inode
    chunk = cluster.machine.add_chunk(inode, 0)
    assert cluster.state.chunks.slot_of(chunk) == slot
    cluster.machine.do(msg.RecordLength(inode, (msg.ChunkLength(0, chunk, 10, 1),)))
    cluster.fleet.set_members(slot, cluster.servers)
    cluster.beat(cluster.servers[0], stored=cluster.pack([slot], length=4))
    assert cluster.servers[0] in cluster.fleet.holders(slot)


def test_nothing_is_kept_of_replicas_that_are_gone() -> None:
    cluster = Cluster(4, files=1)
    slot = cluster.slots[0]
    chunk = cluster.state.chunks.ids[slot]
    cluster.fleet.set_members(slot, cluster.servers)
    cluster.fleet.set_members(slot, cluster.servers[:3])
    cluster.beat(cluster.servers[0], corrupt=(chunk,))
    for server in (cluster.servers[0], cluster.servers[3]):
        cluster.beat(server, dropped=(chunk,))
    assert not cluster.fleet.stale
    assert not cluster.fleet.corrupt
    for server in cluster.servers:
        cluster.fleet.remove(slot, server)
    cluster.repair.scan(1000, 0.0)
    assert cluster.repair.missing == {slot}
    cluster.repair.forget_chunk(slot)
    assert not cluster.repair.missing


def test_reports_of_corruption_take_no_endless_memory() -> None:
    cluster = Cluster(1)
    for number in range(5000):
        cluster.fleet.suspect(cluster.servers[0], number % 2000)
    assert len(cluster.fleet.suspects[0]) == 1000


def test_everything_in_the_trash_goes_in_records_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr("gfsmaster.removal.PURGED_ENTRIES_MAX", 3)
    for number in range(5):
        machine.do(msg.Create(b"/%d" % number, open=False))
        machine.do(msg.MoveToTrash(b"/%d" % number))
    counts = [machine.do(msg.EmptyTrash()) for _ in range(3)]
    assert counts == [msg.Count(3), msg.Count(2), msg.Count(0)]
    with pytest.raises(InvalidArgument, match="3 can be removed"):
        machine.do(msg.EmptyTrash((1, 2, 3, 4)))


def test_listings_go_on_although_the_last_entry_seen_is_gone() -> None:
    cluster = Cluster(1)
    queries = Queries(cluster.state, cluster.fleet, cluster.machine.planner.namespace, lambda _chunk, _version: b"")
    made = [cluster.machine.attributes(msg.Create(b"/%d" % number)).inode for number in range(5)]
    first = queries.answer(msg.ListOpen(limit=2), ())
    assert isinstance(first, msg.OpenFiles)
    cluster.machine.do(msg.Close(made[1]))
    rest = queries.answer(msg.ListOpen(first.next, limit=10), ())
    assert isinstance(rest, msg.OpenFiles)
    assert [[file.inode for file in page.files] for page in (first, rest)] == [made[:2], made[2:]]
    assert not rest.next
    for number in range(5):
        cluster.machine.do(msg.MoveToTrash(b"/%d" % number))
    trash = queries.answer(msg.ListTrash(limit=2), ())
    assert isinstance(trash, msg.Trash)
    cluster.machine.do(msg.EmptyTrash((made[1],)))
    left = queries.answer(msg.ListTrash(trash.entries[-1].deleted_ns, limit=10), ())
    assert isinstance(left, msg.Trash)
    assert [[entry.inode for entry in page.entries] for page in (trash, left)] == [made[:2], made[2:]]


def test_the_open_files_of_others_do_not_end_the_list_of_ones_own() -> None:
    cluster = Cluster(1)
    queries = Queries(cluster.state, cluster.fleet, cluster.machine.planner.namespace, lambda _chunk, _version: b"")
    for number in range(3):
        cluster.machine.do(msg.Create(b"/%d" % number))
    cluster.machine.do(msg.Mkdir(b"/bob", mode=0o777))
    own = cluster.machine.attributes(msg.Create(b"/bob/f"), (7, 7)).inode
    page = queries.answer(msg.ListOpen(limit=2), (7, 7))
    assert isinstance(page, msg.OpenFiles)
    assert [file.inode for file in page.files] == [own]
