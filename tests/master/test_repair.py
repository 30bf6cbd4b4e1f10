"""Repair: fewest copies first, never too many at once, and the last good copy is never deleted."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfsmaster import operations as op
from gfsmaster.fleet import REPLICA, Fleet
from gfsmaster.granting import Granting, Limits
from gfsmaster.leases import ChunkLease, Leases
from gfsmaster.orders import Orders
from gfsmaster.repair import Removal, Repair
from gfsmaster.servers import Server
from gfsprotocol import messages as msg
from gfsprotocol.ids import GIB
from tests.master.machine import Machine

DISK = msg.DiskUsage("/d", 100 * GIB, 50 * GIB, 0, "")


class Cluster:
    """A state with chunks, a fleet that holds them, and the planner of repairs."""

    def __init__(self, servers: int, files: int = 0, replication: int = 3) -> None:
        self.machine = Machine()
        self.state = self.machine.state
        self.fleet = Fleet(self.state)
        self.leases = Leases(60.0)
        self.repair = Repair(self.state, self.fleet, self.leases, copies_per_server=2)
        self.granting = Granting(self.state, self.fleet, self.leases, Limits(2))
        self.now = 0.0
        self.servers: list[Server] = []
        self.slots: list[int] = []
        for number in range(files):
            inode = self.machine.attributes(msg.Create(b"/%d" % number, replication=replication, open=False)).inode
            chunk = self.machine.add_chunk(inode, 0)
            self.machine.do(msg.RecordLength(inode, (msg.ChunkLength(0, chunk, 10, 1),)))
            self.slots.append(self.state.chunks.slot_of(chunk))
        for _ in range(servers):
            self.join([])

    def join(self, slots: list[int]) -> Server:
        number = len(self.servers) + 1
        server = self.fleet.register(msg.Register(number, b"", "h", number, (DISK,), 0, 0), self.now)
        self.servers.append(server)
        self.fleet.report(server, self.pack(slots), last=True)
        return server

    def pack(self, slots: list[int], version: int = 0, length: int = 10) -> bytes:
        chunks = self.state.chunks
        return b"".join(REPLICA.pack(chunks.ids[slot], version or chunks.version[slot], length) for slot in slots)

    def beat(self, server: Server, **fields: object) -> None:
        values = {"stored": b"", "dropped": (), "corrupt": ()} | fields
        message = msg.Heartbeat(server.server, (DISK,), values["stored"], values["dropped"], values["corrupt"])  # type: ignore[arg-type]
        assert self.fleet.heartbeat(message, self.now) is server

    def die(self, server: Server) -> None:
        self.now += 100
        for other in self.servers:
            if other is not server and other.connected:
                self.beat(other)
        assert server in self.fleet.tick(self.now, 10.0)


def test_the_chunks_of_a_dead_server_are_copied_fewest_copies_first() -> None:
    cluster = Cluster(5, files=6)
    for slot in cluster.slots:
        cluster.fleet.set_members(slot, cluster.servers[:3])
    cluster.fleet.remove(cluster.slots[4], cluster.servers[1])
    cluster.die(cluster.servers[0])
    cluster.repair.scan(1000, cluster.now)
    copies = cluster.repair.plan(cluster.now, limit=100)
    assert copies[0].slot == cluster.slots[4]
    assert all(copy.target in cluster.servers[1:] and copy.target not in copy.sources for copy in copies)
    per_target = [sum(copy.target is server for copy in copies) for server in cluster.servers]
    assert max(per_target) == 2
    assert cluster.repair.waiting == 6


def test_chunks_whose_server_came_back_wait_for_a_copy_no_more() -> None:
    cluster = Cluster(3, files=2)
    for slot in cluster.slots:
        cluster.fleet.set_members(slot, cluster.servers[:3])
    cluster.die(cluster.servers[0])
    cluster.repair.scan(1000, cluster.now)
    assert cluster.repair.plan(cluster.now, limit=100) == []
    assert cluster.repair.waiting == 2
    back = cluster.fleet.register(msg.Register(1, b"", "h", 1, (DISK,), 0, 0), cluster.now)
    cluster.fleet.report(back, cluster.pack(cluster.slots), last=True)
    assert cluster.repair.plan(cluster.now, limit=100) == []
    assert cluster.repair.waiting == 0


def test_nor_do_they_while_a_new_leader_makes_no_copies_yet() -> None:
    cluster = Cluster(3, files=2)
    for slot in cluster.slots:
        cluster.fleet.set_members(slot, cluster.servers[:3])
    cluster.die(cluster.servers[0])
    cluster.leases.settled_at = cluster.now + 60
    cluster.repair.scan(1000, cluster.now)
    assert cluster.repair.waiting == 2
    back = cluster.fleet.register(msg.Register(1, b"", "h", 1, (DISK,), 0, 0), cluster.now)
    cluster.fleet.report(back, cluster.pack(cluster.slots[:1]), last=True)
    cluster.repair.scan(1000, cluster.now)
    assert cluster.repair.waiting == 1
    assert cluster.repair.plan(cluster.now, limit=100) == []


def test_a_server_just_lost_is_not_used_but_nothing_is_copied_yet() -> None:
    cluster = Cluster(4, files=1)
    cluster.fleet.set_members(cluster.slots[0], cluster.servers[:3])
    cluster.fleet.lost_connection(cluster.servers[0])
    assert cluster.servers[0] not in cluster.fleet.holders(cluster.slots[0])
    cluster.repair.scan(1000, cluster.now)
    assert cluster.repair.plan(cluster.now, 10) == []


def test_a_leased_chunk_is_left_alone() -> None:
    cluster = Cluster(4, files=1)
    cluster.fleet.set_members(cluster.slots[0], cluster.servers[:2])
    cluster.leases.grant(cluster.slots[0], ChunkLease(1, 1, cluster.servers[:2], -1, 50.0, confirmed=True))
    cluster.repair.scan(1000, 1.0)
    assert cluster.repair.plan(1.0, 10) == []
    cluster.repair.scan(1000, 51.0)
    assert len(cluster.repair.plan(51.0, 10)) == 1


def test_a_failed_copy_is_tried_again_later() -> None:
    cluster = Cluster(3, files=1)
    cluster.fleet.set_members(cluster.slots[0], cluster.servers[:2])
    cluster.repair.scan(1000, 0.0)
    [copy] = cluster.repair.plan(0.0, 10)
    cluster.repair.finished(copy.slot, "disk full", 1.0)
    assert cluster.repair.plan(2.0, 10) == []
    assert len(cluster.repair.plan(20.0, 10)) == 1


def test_the_only_possible_target_may_hold_a_stale_replica() -> None:
    cluster = Cluster(3, files=1)
    slot = cluster.slots[0]
    cluster.fleet.set_members(slot, cluster.servers)
    cluster.machine.log((op.SetChunkVersion(cluster.state.chunks.ids[slot], 2),))
    cluster.fleet.set_members(slot, cluster.servers[:2])
    cluster.repair.scan(1000, 0.0)
    assert cluster.repair.removals(1000, 0.0) == []
    [copy] = cluster.repair.plan(0.0, 10)
    assert copy.target is cluster.servers[2]


def test_fault_18_a_stale_or_corrupt_replica_is_removed_only_when_enough_good_ones_live() -> None:
    cluster = Cluster(5, files=1)
    slot = cluster.slots[0]
    cluster.fleet.set_members(slot, cluster.servers[:4])
    cluster.beat(cluster.servers[0], corrupt=(cluster.state.chunks.ids[slot],))
    cluster.beat(cluster.servers[4], stored=b"")
    cluster.fleet.lost_connection(cluster.servers[1])
    assert cluster.repair.removals(1000, 0.0) == []
    cluster.beat(cluster.servers[1])
    [removal] = cluster.repair.removals(1000, 0.0)
    assert removal.server is cluster.servers[0]


def test_fault_16_an_old_report_does_not_make_a_good_replica_bad() -> None:
    cluster = Cluster(3, files=1)
    slot = cluster.slots[0]
    cluster.fleet.set_members(slot, cluster.servers)
    cluster.beat(cluster.servers[0], stored=cluster.pack([slot], length=4))
    assert cluster.servers[0] in cluster.fleet.holders(slot)
    assert cluster.fleet.suspects == {0: [cluster.state.chunks.ids[slot]]}
    cluster.beat(cluster.servers[0], stored=cluster.pack([slot], length=10))
    assert cluster.servers[0] in cluster.fleet.holders(slot)
    cluster.beat(cluster.servers[0], stored=cluster.pack([slot], length=4))
    cluster.beat(cluster.servers[0], stored=cluster.pack([slot], length=4))
    assert cluster.servers[0] not in cluster.fleet.holders(slot)


def test_replicas_that_a_full_report_does_not_name_are_gone() -> None:
    cluster = Cluster(3, files=3)
    for slot in cluster.slots:
        cluster.fleet.set_members(slot, cluster.servers)
    server = cluster.servers[0]
    cluster.fleet.register(msg.Register(server.server, b"", "h", 1, (DISK,), 0, 0), 0.0)
    cluster.fleet.report(server, cluster.pack(cluster.slots[1:]), last=True)
    assert [server in cluster.fleet.holders(slot) for slot in cluster.slots] == [False, True, True]


def test_fault_22_many_unknown_chunks_trip_the_brake_until_a_person_releases_it() -> None:
    cluster = Cluster(1)
    for _ in range(1500):
        cluster.state.chunks.release(cluster.state.chunks.claim(cluster.state.chunks.next_id()))
    orphans = b"".join(REPLICA.pack(slot, 1, 10) for slot in range(1, 1200))
    server = cluster.servers[0]
    cluster.fleet.register(msg.Register(1, b"", "h", 1, (DISK,), 0, 1199), 0.0)
    cluster.fleet.report(server, orphans, last=True)
    assert "does not know" in cluster.fleet.brake
    assert not server.deletions
    assert cluster.fleet.release_brake() == 1199
    assert len(server.deletions) == 1199
    assert cluster.fleet.brake == ""


def test_a_chunk_that_was_leased_while_it_waited_is_not_copied() -> None:
    cluster = Cluster(3, files=1)
    [slot] = cluster.slots
    cluster.fleet.set_members(slot, cluster.servers[:2])
    cluster.repair.scan(1000, 0.0)
    lease = cluster.granting.lease(slot, 0, (), may_cut=False, now=0.0)
    assert cluster.repair.plan(1.0, 10) == []
    assert len(cluster.repair.plan(lease.expires + 1, 10)) == 1


@pytest.mark.parametrize("confirmed", [False, True])
def test_an_order_to_copy_is_void_when_the_chunk_was_leased_before_it_left(confirmed: bool) -> None:
    """Also when that lease is over by then: what the order names is not what the sources have."""
    cluster = Cluster(3, files=1)
    [slot] = cluster.slots
    cluster.fleet.set_members(slot, cluster.servers[:2])
    cluster.repair.scan(1000, 0.0)
    orders = Orders(cluster.state, cluster.fleet, cluster.repair, 10, lambda *_: b"token")
    [copy] = cluster.repair.plan(0.0, 10)
    orders.copy(copy)
    lease = cluster.granting.lease(slot, 0, (), may_cut=False, now=0.0)
    later = 1.0
    if confirmed:
        operation = cluster.granting.plan_confirmation(slot, lease.version, 0.0)
        assert operation is not None
        cluster.machine.log((operation,))
        cluster.granting.confirmed(slot, 0.0)
        for server in cluster.servers[:2]:
            cluster.beat(server, stored=cluster.pack([slot], version=lease.version))
        later = lease.expires + 1
    assert orders.take(copy.target, may_delete=False, now=later) == ()
    cluster.repair.scan(1000, lease.expires + 1)
    [copy] = cluster.repair.plan(lease.expires + 1, 10)
    orders.copy(copy)
    [order] = orders.take(copy.target, may_delete=False, now=lease.expires + 1)
    assert isinstance(order, msg.ReplicateOrder)
    assert order.version == cluster.state.chunks.version[slot]


def test_a_new_leader_copies_nothing_while_leases_of_the_one_before_may_run() -> None:
    cluster = Cluster(3, files=1)
    cluster.fleet.set_members(cluster.slots[0], cluster.servers[:2])
    cluster.leases.settled_at = 60.0
    cluster.repair.scan(1000, 0.0)
    assert cluster.repair.plan(59.0, 10) == []
    assert cluster.repair.waiting == 1
    assert len(cluster.repair.plan(60.0, 10)) == 1


def test_a_copy_is_made_of_replicas_of_one_version() -> None:
    """A grant that never came into force has left a newer one on one server: either is good, a mixture is not."""
    cluster = Cluster(3, files=1)
    [slot] = cluster.slots
    cluster.fleet.set_members(slot, cluster.servers[:2])
    cluster.beat(cluster.servers[1], stored=cluster.pack([slot], version=5))
    cluster.repair.scan(1000, 0.0)
    [copy] = cluster.repair.plan(0.0, 10)
    assert (copy.version, copy.sources) == (5, (cluster.servers[1],))


def test_what_a_server_was_to_copy_is_copied_elsewhere_when_it_dies() -> None:
    cluster = Cluster(4, files=1)
    [slot] = cluster.slots
    cluster.fleet.set_members(slot, cluster.servers[:2])
    orders = Orders(cluster.state, cluster.fleet, cluster.repair, 10, lambda *_: b"token")
    cluster.repair.scan(1000, cluster.now)
    [copy] = cluster.repair.plan(cluster.now, 10)
    orders.copy(copy)
    assert len(orders.take(copy.target, may_delete=False, now=cluster.now)) == 1
    cluster.die(copy.target)
    orders.forget(copy.target, cluster.now)
    cluster.repair.scan(1000, cluster.now)
    [again] = cluster.repair.plan(cluster.now, 10)
    assert again.target is not copy.target


@settings(max_examples=200)
@given(st.data())
def test_a_scan_looks_closely_at_every_chunk_that_is_not_as_it_should_be_and_at_no_other(data: st.DataObject) -> None:
    cluster = Cluster(4, files=8, replication=2)
    fleet = cluster.fleet
    last = data.draw(st.integers(2, 3), label="replication of the last one")
    cluster.machine.do(msg.SetReplication(b"/7", replication=last))
    for slot in cluster.slots[: data.draw(st.integers(0, 8), label="reported")]:
        members = data.draw(st.sets(st.integers(0, 3)), label="members")
        fleet.set_members(slot, [cluster.servers[number] for number in members])
    for mark in ("corrupt", "stale", "missing"):
        for slot in data.draw(st.sets(st.sampled_from(cluster.slots)), label=mark):
            match mark:
                case "corrupt":
                    fleet.corrupt[slot] = {0}
                case "stale":
                    fleet.stale[slot] = {1: 0}
                case _:
                    cluster.repair.missing.add(slot)
    if data.draw(st.booleans(), label="one is dead"):
        cluster.die(cluster.servers[3])
    uneven = {
        slot
        for slot, wanted in zip(cluster.slots, [2] * 7 + [last], strict=True)
        if fleet.alive_count(slot) != wanted
        or len(fleet.all_holders(slot)) != wanted
        or slot in fleet.corrupt
        or slot in fleet.stale
    }
    examined: list[int] = []
    examine = cluster.repair.examine

    def note(slot: int, now: float) -> list[Removal]:
        examined.append(slot)
        return examine(slot, now)

    cluster.repair.examine = note  # type: ignore[method-assign]
    for _ in range(3):
        cluster.repair.scan(3, cluster.now)
    assert examined == sorted(uneven)
    assert cluster.repair.missing == {slot for slot in cluster.slots if not fleet.alive_count(slot)}


steps = st.lists(
    st.tuples(st.sampled_from(["die", "join", "corrupt", "stale", "copy", "remove", "wait"]), st.integers(0, 9)),
    max_size=60,
)


@settings(max_examples=200)
@given(steps, st.integers(1, 3))
def test_fault_18_whatever_happens_the_last_good_replica_is_never_ordered_deleted(
    events: list[tuple[str, int]], replication: int
) -> None:
    cluster = Cluster(5, files=4, replication=replication)
    truth: dict[int, set[int]] = {}
    for slot, start in zip(cluster.slots, itertools.count()):
        members = [cluster.servers[(start + step) % 5] for step in range(replication)]
        cluster.fleet.set_members(slot, members)
        truth[slot] = {member.number for member in members}
    for event, number in events:
        slot = cluster.slots[number % len(cluster.slots)]
        server = cluster.servers[number % len(cluster.servers)]
        chunk = cluster.state.chunks.ids[slot]
        match event:
            case "die" if server.connected and sum(s.connected for s in cluster.servers) > 1:
                cluster.die(server)
            case "join" if not server.alive:
                held = [slot for slot, holders in truth.items() if server.number in holders]
                cluster.fleet.register(msg.Register(server.server, b"", "h", 1, (DISK,), 0, 0), cluster.now)
                cluster.fleet.report(server, cluster.pack(held), last=True)
            case "corrupt" if server.connected and server.number in truth[slot] and len(truth[slot]) > 1:
                truth[slot].discard(server.number)
                cluster.beat(server, corrupt=(chunk,))
            case "copy":
                cluster.repair.scan(1000, cluster.now)
                for copy in cluster.repair.plan(cluster.now, 10):
                    assert truth[copy.slot].intersection(source.number for source in copy.sources)
                    truth[copy.slot].add(copy.target.number)
                    cluster.beat(copy.target, stored=cluster.pack([copy.slot]))
                    cluster.repair.finished(copy.slot, "", cluster.now)
            case "remove":
                for removal in cluster.repair.removals(1000, cluster.now):
                    removed = cluster.state.chunks.slot_of(removal.chunk)
                    cluster.fleet.remove(removed, removal.server)
                    truth[removed].discard(removal.server.number)
                    cluster.beat(removal.server, dropped=(removal.chunk,))
                    assert len(truth[removed]) >= replication
            case _:
                cluster.now += 1
        assert all(truth.values())


def test_a_version_that_no_leader_gives_makes_the_replica_bad_and_nothing_else() -> None:
    cluster = Cluster(3, files=1)
    slot = cluster.slots[0]
    cluster.fleet.set_members(slot, cluster.servers)
    cluster.beat(cluster.servers[0], stored=cluster.pack([slot], version=2**40))
    assert cluster.servers[0] not in cluster.fleet.holders(slot)
    assert not cluster.fleet.newest_version(slot)
    lease = cluster.granting.lease(slot, 0, (), may_cut=False, now=0.0)
    assert lease.version == 2
    assert cluster.servers[0] not in lease.members
