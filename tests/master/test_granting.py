"""Who is in a chunk's next lease, and in which order: nobody is left out without need, and who remembers leads."""

from collections.abc import Sequence

import pytest

from gfsmaster.granting import Limits
from gfsmaster.leases import ChunkLease, Leases
from gfsmaster.servers import Server
from gfsprotocol import messages as msg
from gfsprotocol.errors import TooFewServers, WritesLost
from tests.master.test_repair import DISK, Cluster


class Grants(Cluster):
    """One chunk on three servers that have been up for long; ``recorded`` bytes of it are in the log."""

    def __init__(self, servers: int = 3, recorded: int = 10) -> None:
        super().__init__(servers, files=1 if recorded else 0)
        self.now = 10_000.0
        if not recorded:
            inode = self.machine.attributes(msg.Create(b"/blank", replication=3, open=False)).inode
            self.slots.append(self.state.chunks.slot_of(self.machine.add_chunk(inode, 0)))
        [self.slot] = self.slots
        if recorded:
            self.fleet.set_members(self.slot, self.servers[:3])

    def lease(self, *failed: Server, known_version: int = 0, refused: Sequence[Server] = ()) -> ChunkLease:
        numbers = tuple(server.server for server in failed)
        refusing = frozenset(server.server for server in refused)
        return self.granting.lease(self.slot, known_version, numbers, False, self.now, refusing)

    def confirm(self, lease: ChunkLease) -> None:
        operation = self.granting.plan_confirmation(self.slot, lease.version, self.now)
        assert operation is not None
        self.machine.log((operation,))
        self.granting.confirmed(self.slot, self.now)

    def restart(self, server: Server, *slots: int, version: int = 0) -> None:
        """It registers as a process that has begun a second ago, and reports these chunks."""
        message = msg.Register(server.server, b"", "h", server.port, (DISK,), 0, 0, "", 1.0)
        assert self.fleet.register(message, self.now) is server
        self.fleet.report(server, self.pack(list(slots), version), last=True)


def test_who_has_just_begun_comes_last() -> None:
    for index in range(3):
        grants = Grants()
        grants.restart(grants.servers[index], grants.slot)
        assert grants.lease().members[-1] is grants.servers[index]


def test_who_began_first_leads_when_all_have_just_begun() -> None:
    grants = Grants()
    for index in (1, 0, 2):
        grants.now += 20
        grants.restart(grants.servers[index], grants.slot)
    assert grants.lease().members == [grants.servers[index] for index in (1, 0, 2)]


def test_servers_that_have_long_been_up_take_turns_in_leading() -> None:
    cluster = Cluster(3, files=30)
    cluster.now = 10_000.0
    leaders = set()
    for slot in cluster.slots:
        cluster.fleet.set_members(slot, cluster.servers)
        leaders.add(cluster.granting.lease(slot, 0, (), may_cut=False, now=cluster.now).members[0].number)
    assert leaders == {0, 1, 2}


def test_the_primary_of_the_running_lease_stays_first_unless_it_was_restarted() -> None:
    grants = Grants()
    first = grants.lease()
    grants.confirm(first)
    primary, second, third = first.members
    assert grants.lease(third).members == [primary, second]
    grants.now += 5
    grants.restart(primary, grants.slot, version=first.version)
    assert grants.lease().members[-1] is primary


def test_a_lease_of_which_a_member_was_restarted_is_not_given_again() -> None:
    """The member refuses it, because it may have lost what it acknowledged: the next version makes it equal again."""
    grants = Grants()
    lease = grants.lease()
    grants.confirm(lease)
    assert grants.lease(known_version=lease.version) is lease
    grants.now += 5
    grants.restart(lease.members[1], grants.slot, version=lease.version)
    again = grants.lease(known_version=lease.version)
    assert again.version > lease.version
    assert {member.number for member in again.members} == {member.number for member in lease.members}
    assert grants.lease(known_version=again.version) is again


def test_a_server_that_only_connects_again_was_not_restarted() -> None:
    grants = Grants()
    lease = grants.lease()
    grants.now += 100
    for server in grants.servers:
        grants.fleet.lost_connection(server)
        grants.fleet.register(
            msg.Register(server.server, b"", "h", server.port, (DISK,), 0, 0, "", grants.now - 1.0), grants.now
        )
        grants.fleet.report(server, grants.pack([grants.slot]), last=True)
    grants.now = lease.expires - 1
    assert grants.lease(known_version=lease.version) is lease


def test_a_server_that_comes_back_joins_a_lease_under_which_nothing_was_acknowledged() -> None:
    """It may be the one that has what the others lost."""
    grants = Grants()
    away = grants.servers[0]
    grants.fleet.lost_connection(away)
    lease = grants.lease()
    assert away not in lease.members
    grants.beat(away)
    again = grants.lease(known_version=lease.version)
    assert away in again.members
    grants.fleet.lost_connection(away)
    last = grants.lease()
    grants.confirm(last)
    grants.beat(away)
    assert grants.lease() is last


def test_a_server_that_failed_is_not_taken_again_while_there_are_others() -> None:
    grants = Grants()
    lease = grants.lease(grants.servers[0])
    assert grants.servers[0] not in lease.members
    again = grants.lease(grants.servers[1], known_version=lease.version)
    # Two are needed: the one that failed first is better than no one.
    assert grants.servers[0] in again.members and grants.servers[1] not in again.members
    assert grants.lease(known_version=again.version) is again
    grants.now += 1
    grants.restart(grants.servers[1], grants.slot)
    assert grants.servers[1] in grants.lease(known_version=again.version).members


def test_a_server_that_failed_before_is_asked_when_the_others_lack_what_was_acknowledged() -> None:
    """It failed the writer when it died, and has come back before the lease: nobody would ever ask it else."""
    grants = Grants()
    returned = grants.servers[0]
    grants.restart(returned, grants.slot)
    grants.now += 1
    lease = grants.lease(returned)
    assert returned not in lease.members
    assert grants.lease(known_version=lease.version) is lease
    again = grants.lease(known_version=lease.version, refused=lease.members)
    assert {member.number for member in again.members} == {0, 1, 2}
    assert grants.lease(known_version=again.version, refused=lease.members) is again
    # As long as it fails, the others are asked again and again: it may come back with the bytes.
    without = grants.lease(returned, known_version=again.version, refused=lease.members)
    assert returned not in without.members


def test_what_all_members_of_a_set_lack_is_lost() -> None:
    """A server that has left the set may have it, but that is not the chunk any more."""
    grants = Grants()
    lease = grants.lease(grants.servers[0])
    grants.confirm(lease)
    assert grants.lease(known_version=lease.version, refused=lease.members[:1]) is lease
    with pytest.raises(WritesLost) as caught:
        grants.lease(known_version=lease.version, refused=lease.members)
    assert {int(server) for server in caught.value.hint.split()} == {member.server for member in lease.members}


# ------------------------------------------------------------------------------------------------- blank chunks


def test_a_chunk_of_which_nothing_is_recorded_has_members_that_may_hold_nothing() -> None:
    grants = Grants(recorded=0)
    grants.granting.lease_new(grants.slot, grants.servers[:3], grants.now)
    for server in grants.servers:
        grants.restart(server)
    lease = grants.lease(grants.servers[0], known_version=1)
    assert (lease.base_version, lease.version, lease.confirmed) == (0, 2, False)
    assert len(lease.members) == 2
    assert grants.servers[0] not in lease.members


def test_a_blank_chunk_waits_for_a_server_that_may_hold_what_was_acknowledged() -> None:
    grants = Grants(servers=4, recorded=0)
    grants.granting.lease_new(grants.slot, grants.servers[:2], grants.now)
    for server in grants.servers[:2]:
        grants.beat(server, stored=grants.pack([grants.slot], length=10))
    grants.leases.end(grants.slot)
    grants.fleet.lost_connection(grants.servers[0])
    with pytest.raises(TooFewServers):
        grants.lease()
    grants.beat(grants.servers[0])
    assert {member.number for member in grants.lease().members} == {0, 1}


def test_a_new_leader_begins_a_blank_chunk_anew_only_when_every_server_has_told_what_it_holds() -> None:
    grants = Grants(recorded=0)
    grants.granting._limits = Limits(2, told_at=grants.now + 3)
    with pytest.raises(TooFewServers):
        grants.lease()
    grants.now += 4
    for server in grants.servers:
        grants.beat(server)
    lease = grants.lease()
    assert (lease.base_version, len(lease.members)) == (0, 3)
    # Who comes late with the grant of the leader before may have made the chunk elsewhere.
    assert grants.leases.was_cut_since(grants.slot, 1)


def test_cuts_are_remembered_after_the_last_close_for_a_bounded_number_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gfsmaster.leases.CUTS_REMEMBERED_MAX", 2)
    leases = Leases(60.0)
    for slot in (1, 2, 1, 3):
        leases.cut(slot, 5)
        leases.end(slot)
    assert [leases.was_cut_since(slot, 4) for slot in (1, 2, 3)] == [True, False, True]
    leases.forget(1)
    assert not leases.was_cut_since(1, 4)
