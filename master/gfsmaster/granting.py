"""Who may write a chunk, and where: allocation of chunks and leases. Pure planning over state, fleet and leases."""

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from gfsmaster import operations as op
from gfsmaster.fleet import Fleet
from gfsmaster.leases import ChunkLease, Leases
from gfsmaster.placement import choose
from gfsmaster.servers import Server
from gfsmaster.state import State
from gfsprotocol.errors import FileTooLarge, InvalidArgument, LeaseLost, NoSpace, StaleHandle, TooFewServers, WritesLost
from gfsprotocol.ids import FILE_BYTES_MAX

NO_CUT = -1
TAKEOVER_VERSIONS: Final = 1000
"""More than a leader grants on one chunk without any of them being confirmed or reported."""
RECENT_SECONDS: Final = 600.0
AGE_SECONDS: Final = 10.0
"""Servers that have been up for longer than the first are equal, and so are those whose ages differ by less than this:
else one server would lead all chains."""
FILE_CHUNKS_MAX: Final = 1 << 22
"""A file's chunk slots stand in one array up to the last one: a sparse file must not take the master's memory."""


@dataclass(slots=True, frozen=True)
class Limits:
    """What grants depend on: from the settings, the fewest live replicas that a write needs."""

    min_replicas: int
    told_at: float = 0.0
    """Monotonic seconds: a server that was heard later has told of all that it made for the leader before."""


class Granting:
    """Plans AllocateChunk, RenewLease and ConfirmGrant."""

    def __init__(self, state: State, fleet: Fleet, leases: Leases, limits: Limits) -> None:
        self._state = state
        self._fleet = fleet
        self._leases = leases
        self._limits = limits

    def plan_chunk(self, inode: int, index: int, replaced: int, excluded: tuple[int, ...]) -> "NewChunk | None":
        """A new chunk for the file in slot ``inode``; None if there is one at ``index`` that is not to be replaced."""
        state = self._state
        chunk_bytes = state.inodes.chunk_bytes(inode)
        if not 0 <= index < FILE_CHUNKS_MAX or index * chunk_bytes >= FILE_BYTES_MAX:
            raise FileTooLarge(
                f"chunk {index} lies beyond the largest file: {FILE_BYTES_MAX} bytes, or {FILE_CHUNKS_MAX} chunks"
            )
        present = state.inodes.chunk_at(inode, index)
        if replaced:
            if not present or state.chunks.ids[present] != replaced:
                raise StaleHandle(f"chunk {replaced} is no longer part of the file")
            if state.chunks.length[present] or state.chunks.version[present] != 1:
                raise InvalidArgument(f"chunk {replaced} holds acknowledged data and cannot be replaced")
        elif present:
            return None
        members = self._new_members(state.inodes.replication(inode), chunk_bytes, excluded)
        operation = op.AddChunk(state.inodes.ids[inode], index, state.chunks.next_id())
        return NewChunk(operation, members)

    def plan_first(self, make: op.MakeFile) -> "NewFile":
        """The same operation with a first chunk. TooFewServers, NoSpace or SafeMode if there can be none now."""
        members = self._new_members(make.replication, make.chunk_bytes, ())
        return NewFile(replace(make, chunk=self._state.chunks.next_id()), members)

    def _new_members(self, wanted: int, chunk_bytes: int, excluded: tuple[int, ...]) -> list[Server]:
        """The servers of a new chunk."""
        members = choose(self._fleet.servers, wanted, chunk_bytes, set(excluded))
        if len(members) < min(self._limits.min_replicas, wanted) and excluded:
            # Those that failed a moment ago are better than no one.
            members = choose(self._fleet.servers, wanted, chunk_bytes, ())
        self._require(members, wanted, chunk_bytes)
        self._fleet.check_ids()
        return members

    def _require(self, members: list[Server], wanted: int, chunk_bytes: int) -> None:
        needed = min(self._limits.min_replicas, wanted)
        if len(members) >= needed:
            return
        alive = self._fleet.connected()
        full = [server for server in alive if server.free_bytes < chunk_bytes]
        if len(alive) >= needed and full:
            raise NoSpace(
                f"no space left: {len(full)} of {len(alive)} chunk servers have no room for {chunk_bytes} more bytes"
            )
        raise TooFewServers(
            f"{len(members)} chunk servers are available, a write needs at least {needed} ({wanted} copies are wanted)"
        )

    def lease_new(self, slot: int, members: list[Server], now: float) -> ChunkLease:
        """The first lease of a chunk just added."""
        for server in members:
            server.writes += 1
        self._fleet.place(slot, members)
        lease = ChunkLease(0, 1, members, NO_CUT, now + self._leases.lease_seconds, confirmed=True, began=now)
        self._leases.grant(slot, lease)
        return lease

    def lease(
        self,
        slot: int,
        known_version: int,
        failed: tuple[int, ...],
        may_cut: bool,
        now: float,
        refused: frozenset[int] = frozenset(),
    ) -> ChunkLease:
        """A lease on an existing chunk: the running one if it is sound, else a new version of it.

        ``known_version`` is the one under which members failed the caller; ``may_cut`` says that no other writer can
        have unrecorded bytes in the chunk, which are then cut off. ``refused`` cannot vouch for what the caller wrote
        and did not sync. TooFewServers if too few good replicas live; WritesLost if all replicas are among ``refused``.
        """
        running = self._leases.running(slot, now)
        cut = self._state.chunks.cuts.get(slot, NO_CUT)
        if running is not None and cut == NO_CUT:
            members = {server.server for server in running.members}
            if running.confirmed and members <= refused:
                # Whoever else had the chunk is not of its set any more: what it holds is not the chunk's.
                raise WritesLost("bytes that were not synced are lost", " ".join(map(str, sorted(members))))
            is_sound = all(map(running.holds, running.members)) and not members.intersection(failed)
            if (is_sound and not self._missed(slot, running, refused)) or (
                0 < known_version < running.version and not members.intersection(failed)
            ):
                running.expires = now + self._leases.lease_seconds
                return running
        chosen, left_out = self._members(slot, running, failed, forgives=bool(refused))
        return self._lease_again(slot, running, chosen, left_out, cut, may_cut and running is None, now)

    def _lease_again(
        self,
        slot: int,
        running: ChunkLease | None,
        members: list[Server],
        left_out: frozenset[int],
        cut: int,
        may_cut: bool,
        now: float,
    ) -> ChunkLease:
        state = self._state
        recorded = state.chunks.version[slot]
        last = self._leases.last(slot)
        version = 1 + max(recorded, self._fleet.newest_version(slot), last.version if last is not None else 0)
        if last is None and now < self._leases.settled_at:
            # The leader before may have granted the next version to other members: it must not be taken for ours.
            version += TAKEOVER_VERSIONS
        if cut == NO_CUT and may_cut:
            cut = state.chunks.length[slot]
        members = _in_order(slot, members, running, now)
        base = 0 if self._is_blank(slot) else recorded
        expires = now + self._leases.lease_seconds
        lease = ChunkLease(base, version, members, cut, expires, confirmed=False, began=now, left_out=left_out)
        self._leases.grant(slot, lease)
        if not base and not self._fleet.all_holders(slot):
            # Whoever comes late with the first grant, and makes the chunk on other servers, must not be believed.
            self._leases.cut(slot, version)
        return lease

    def _members(
        self, slot: int, running: ChunkLease | None, failed: tuple[int, ...], forgives: bool
    ) -> tuple[list[Server], frozenset[int]]:
        """Who can hold the chunk's next lease, and who is left out of it. TooFewServers.

        Left out are those that failed just now, and before, if that is not forgiven.
        """
        state = self._state
        holders = self._fleet.holders(slot)
        left_out = frozenset(failed)
        if running is not None and not running.confirmed:
            # Nothing was acknowledged under it: who holds the logged version is as good as its members.
            if not forgives:
                left_out |= {server.server for server in holders if running.leaves_out(server)}
            holders = [server for server in running.members if server.connected and server not in holders] + holders
        wanted = state.inodes.replication(state.chunks.inode[slot])
        needed = min(self._limits.min_replicas, wanted)
        members = [server for server in holders if server.server not in left_out]
        if len(members) < needed:
            left_out = frozenset(failed)
            members = [server for server in holders if server.server not in left_out]
        if len(members) < needed and self._may_begin_anew(slot, members):
            avoided = {*failed, *(server.server for server in members)}
            room = state.inodes.chunk_bytes(state.chunks.inode[slot])
            members += choose(self._fleet.servers, wanted - len(members), room, avoided)
        if len(members) < needed:
            raise TooFewServers(
                f"{len(members)} good replicas of chunk {state.chunks.ids[slot]} can be reached, "
                f"a write needs at least {needed}"
            )
        return members, left_out

    def _missed(self, slot: int, running: ChunkLease, refused: frozenset[int]) -> bool:
        """Whether a server that came back holds the chunk too, and may have what the members of the lease lost.

        If they have lost something, that is asked also of one that is left out: it may have failed before it came back.
        """
        if running.confirmed:
            return False
        others = [holder for holder in self._fleet.holders(slot) if holder not in running.members]
        return any(other.server not in refused and (refused or not running.leaves_out(other)) for other in others)

    def _is_blank(self, slot: int) -> bool:
        """Whether nothing of the chunk was ever recorded: its members may hold nothing at all."""
        return self._state.chunks.version[slot] == 1 and not self._state.chunks.length[slot]

    def _may_begin_anew(self, slot: int, members: list[Server]) -> bool:
        """Whether servers without a replica may join ``members``: nothing can have been acknowledged that only others
        hold.

        A mutation is acknowledged by all members. So if one that was to make the chunk has not made it, none was.
        """
        fleet = self._fleet
        if not self._is_blank(slot) or slot in fleet.corrupt:
            return False
        known = fleet.all_holders(slot)
        last = self._leases.last(slot)
        if last is not None and any(member.reported and member not in known for member in last.members):
            return True
        has_told = all(
            server.connected and server.reported and server.heard > self._limits.told_at
            for server in fleet.servers
            if server.alive
        )
        return has_told and all(server in members for server in known)

    def plan_confirmation(self, slot: int, version: int, now: float) -> op.SetChunkVersion | None:
        """All members have reached ``version``; None if that is known already. LeaseLost if it comes too late."""
        lease = self._leases.running(slot, now)
        if lease is None or lease.version != version:
            raise LeaseLost(f"version {version} of chunk {self._state.chunks.ids[slot]} was given up meanwhile")
        if lease.confirmed:
            return None
        if self._state.chunks.cuts.get(slot, lease.cut_length) != lease.cut_length:
            # The members were not cut as the namespace was meanwhile; confirming would forget that they have to be.
            raise LeaseLost(f"chunk {self._state.chunks.ids[slot]} was truncated after version {version} was granted")
        return op.SetChunkVersion(self._state.chunks.ids[slot], version)

    def confirmed(self, slot: int, now: float) -> None:
        """The version is in the log's queue: the members of the lease are the replica set."""
        lease = self._leases.running(slot, now)
        if lease is not None:
            lease.confirmed = True
            self._fleet.set_members(slot, lease.members)


def _in_order(slot: int, members: list[Server], running: ChunkLease | None, now: float) -> list[Server]:
    """The chain: who has just begun comes last, as it remembers nothing of what was not synced; the others in turn."""
    turn = slot % len(members)
    ordered = members[turn:] + members[:turn]
    ordered.sort(key=lambda server: -(min(now - server.started, RECENT_SECONDS) // AGE_SECONDS))
    if running is not None and running.members[0] in members and running.holds(running.members[0]):
        # The old primary has seen every mutation: whatever else was in flight is rolled forward from it.
        ordered.remove(running.members[0])
        ordered.insert(0, running.members[0])
    return ordered


@dataclass(slots=True, frozen=True)
class NewChunk:
    """A chunk to be logged, and the servers chosen for it."""

    operation: op.AddChunk
    members: list[Server]


@dataclass(slots=True, frozen=True)
class NewFile:
    """A file with its first chunk to be logged, and the servers chosen for that."""

    operation: op.MakeFile
    members: list[Server]
