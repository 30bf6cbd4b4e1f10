"""Who may write a chunk, and where: allocation of chunks and leases. Pure planning over state, fleet and leases."""

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from gfsmaster import operations as op
from gfsmaster.fleet import Fleet, Server
from gfsmaster.leases import ChunkLease, Leases
from gfsmaster.placement import choose
from gfsmaster.state import State
from gfsprotocol.errors import FileTooLarge, InvalidArgument, LeaseLost, NoSpace, StaleHandle, TooFewServers
from gfsprotocol.ids import FILE_BYTES_MAX

NO_CUT = -1
TAKEOVER_VERSIONS: Final = 1000
"""More than a leader grants on one chunk without any of them being confirmed or reported."""
FILE_CHUNKS_MAX: Final = 1 << 22
"""A file's chunk slots stand in one array up to the last one: a sparse file must not take the master's memory."""


@dataclass(slots=True, frozen=True)
class Limits:
    """What grants depend on: from the settings, the fewest live replicas that a write needs."""

    min_replicas: int
    settled_at: float = 0.0
    """Monotonic seconds: until then grants of the leader before may be under way that this one does not know."""


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
        lease = ChunkLease(0, 1, members, NO_CUT, now + self._leases.lease_seconds, confirmed=True)
        self._leases.grant(slot, lease)
        return lease

    def lease(self, slot: int, known_version: int, failed: tuple[int, ...], may_cut: bool, now: float) -> ChunkLease:
        """A lease on an existing chunk: the running one if it is sound, else a new version of it.

        ``known_version`` is the one under which members failed the caller; ``may_cut`` says that no other writer can
        have unrecorded bytes in the chunk, which are then cut off. TooFewServers if too few good replicas live.
        """
        running = self._leases.running(slot, now)
        cut = self._state.chunks.cuts.get(slot, NO_CUT)
        if running is not None and cut == NO_CUT:
            members = {server.server for server in running.members}
            is_sound = all(server.connected for server in running.members) and not members.intersection(failed)
            if is_sound or (0 < known_version < running.version and not members.intersection(failed)):
                running.expires = now + self._leases.lease_seconds
                return running
        return self._lease_again(slot, running, failed, cut, may_cut and running is None, now)

    def _lease_again(
        self, slot: int, running: ChunkLease | None, failed: tuple[int, ...], cut: int, may_cut: bool, now: float
    ) -> ChunkLease:
        state = self._state
        recorded = state.chunks.version[slot]
        holders = self._fleet.holders(slot)
        if running is not None and not running.confirmed:
            holders = [server for server in running.members if server.connected] or holders
        members = [server for server in holders if server.server not in failed]
        wanted = state.inodes.replication(state.chunks.inode[slot])
        needed = min(self._limits.min_replicas, wanted)
        if len(members) < needed:
            raise TooFewServers(
                f"{len(members)} good replicas of chunk {state.chunks.ids[slot]} can be reached, "
                f"a write needs at least {needed}"
            )
        last = self._leases.last(slot)
        version = 1 + max(recorded, self._fleet.newest_version(slot), last.version if last is not None else 0)
        if last is None and now < self._limits.settled_at:
            # The leader before may have granted the next version to other members: it must not be taken for ours.
            version += TAKEOVER_VERSIONS
        if cut == NO_CUT and may_cut:
            cut = state.chunks.length[slot]
        turn = slot % len(members)
        members = members[turn:] + members[:turn]
        if running is not None and running.members[0] in members:
            # The old primary has seen every mutation: whatever else was in flight is rolled forward from it.
            members.remove(running.members[0])
            members.insert(0, running.members[0])
        lease = ChunkLease(recorded, version, members, cut, now + self._leases.lease_seconds, confirmed=False)
        self._leases.grant(slot, lease)
        return lease

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
