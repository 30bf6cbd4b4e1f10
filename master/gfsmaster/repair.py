"""Bringing chunks back to their number of copies, and removing copies too many. Pure: decisions out, reports in.

A scan over all chunks in slices finds what has too few or too many good replicas; fewest copies first (GFS §4.3). Each
server makes few copies at a time. Nothing is deleted unless enough good replicas live elsewhere, and nothing at all
while reports are incomplete (safe mode), or while the brake is on.

A chunk that may be leased is left alone: its copy would lack what is written meanwhile, and count as good. What was
decided before it was leased is void: an order names one version, and whatever is written comes under a newer one.
"""

from dataclasses import dataclass
from typing import Final

from gfsmaster.fleet import Fleet
from gfsmaster.leases import Leases
from gfsmaster.placement import choose
from gfsmaster.servers import Server
from gfsmaster.state import State

ORDER_SECONDS: Final = 300.0
QUEUE_MAX: Final = 100_000
RETRY_SECONDS: Final = 10.0


@dataclass(slots=True, frozen=True)
class Copy:
    """``target`` shall pull the chunk from one of ``sources``, which all have ``version``."""

    slot: int
    chunk: int
    version: int
    target: Server
    sources: tuple[Server, ...]


@dataclass(slots=True, frozen=True)
class Removal:
    """``server`` holds a replica that is not needed: too many, or stale, or corrupt."""

    chunk: int
    version: int
    server: Server


class Repair:
    """The planner of repairs; call :meth:`scan` often and :meth:`plan` when orders can be given."""

    def __init__(self, state: State, fleet: Fleet, leases: Leases, copies_per_server: int) -> None:
        self._state = state
        self._fleet = fleet
        self._leases = leases
        self._copies_per_server = copies_per_server
        self._cursor = 1
        self._scanned = range(0)
        """The slots that the last scan has looked at."""
        self._queues: dict[int, dict[int, None]] = {}
        """By number of live replicas: chunk slots, in order of discovery."""
        self._running: dict[int, tuple[int, int, float]] = {}
        """Slot -> (chunk, target number, deadline)."""
        self._load: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        self.missing: set[int] = set()
        """Slots of chunks with recorded bytes of which no good replica is alive."""

    @property
    def waiting(self) -> int:
        """Chunks known to have too few live replicas, but at least one."""
        return sum(len(queue) for queue in self._queues.values()) + len(self._running)

    def scan(self, slots: int, now: float) -> None:
        """Looks at the next ``slots`` chunks."""
        state, fleet = self._state, self._fleet
        ids = state.chunks.ids
        stop = min(self._cursor + slots, len(ids))
        inodes, replicas, alive_counts = state.chunks.inode, fleet.replicas, fleet.alive_counts
        layout, layouts = state.inodes.layout, state.inodes.layouts.values
        sets = fleet.sets
        self._scanned = range(self._cursor, stop)
        for slot in self._scanned:
            if not ids[slot]:
                continue
            number = replicas[slot] if slot < len(replicas) else 0
            alive = alive_counts[number]
            wanted = layouts[layout[inodes[slot]]][0]
            if alive != wanted or len(sets[number]) > wanted or slot in fleet.stale or slot in fleet.corrupt:
                self.examine(slot, now)
            elif slot in self.missing:
                self.missing.discard(slot)
        self._cursor = stop if stop < len(ids) else 1

    def examine(self, slot: int, now: float) -> list[Removal]:
        """Queues a chunk that has too few copies. Returns the replicas that may go, if it has enough."""
        state, fleet = self._state, self._fleet
        chunk = state.chunks.ids[slot]
        if not chunk or self._leases.running(slot, now) is not None:
            return []
        alive = fleet.alive_count(slot)
        wanted = state.inodes.replication(state.chunks.inode[slot])
        if alive:
            self.missing.discard(slot)
        elif state.chunks.length[slot]:
            self.missing.add(slot)
        for queue in self._queues.values():
            queue.pop(slot, None)
        if alive < wanted or len(fleet.holders(slot)) < wanted:
            if 0 < alive < wanted and slot not in self._running and self.waiting < QUEUE_MAX:
                self._queues.setdefault(alive, {})[slot] = None
            return []
        return [] if self._leases.may_run(slot, now) else self._surplus(slot, wanted)

    def _surplus(self, slot: int, wanted: int) -> list[Removal]:
        fleet = self._fleet
        chunk, version = self._state.chunks.ids[slot], self._state.chunks.version[slot]
        removals = [Removal(chunk, found, fleet.servers[number]) for number, found in fleet.stale.get(slot, {}).items()]
        removals += [Removal(chunk, version, fleet.servers[number]) for number in fleet.corrupt.get(slot, ())]
        holders = sorted(fleet.holders(slot), key=lambda server: server.free_bytes)
        highest = max(version, fleet.newest_version(slot))
        removals += [Removal(chunk, highest, server) for server in holders[: len(holders) - wanted]]
        return removals

    def forget_chunk(self, slot: int) -> None:
        """The chunk was freed; a copy that is being made ends by itself."""
        self.missing.discard(slot)
        self._not_before.pop(slot, None)
        for queue in self._queues.values():
            queue.pop(slot, None)

    def may_be_deleted(self, chunk: int, server: Server) -> bool:
        """Whether a removal may still be ordered: enough other good replicas can be reached now, or it was freed."""
        slot = self._state.chunks.slot_of(chunk)
        if not slot:
            return True
        others = sum(holder is not server for holder in self._fleet.holders(slot))
        return others >= self._state.inodes.replication(self._state.chunks.inode[slot])

    def removals(self, slots: int, now: float) -> list[Removal]:
        """Replicas that may go: too many of what was scanned last, stale or corrupt ones of up to ``slots`` chunks."""
        fleet = self._fleet
        candidates = set(list(fleet.stale)[:slots]) | set(list(fleet.corrupt)[:slots])
        state = self._state
        for slot in self._scanned[: max(0, len(fleet.replicas) - self._scanned.start)]:
            if state.chunks.ids[slot] and fleet.alive_counts[fleet.replicas[slot]] > state.inodes.replication(
                state.chunks.inode[slot]
            ):
                candidates.add(slot)
        return [removal for slot in sorted(candidates) for removal in self.examine(slot, now)]

    def plan(self, now: float, limit: int) -> list[Copy]:
        """Up to ``limit`` copies to be made now, fewest live replicas first."""
        self._expire(now)
        copies: list[Copy] = []
        if now < self._leases.settled_at:
            return copies
        for alive in sorted(self._queues):
            queue = self._queues[alive]
            for slot in list(queue)[: 20 * limit]:
                if len(copies) >= limit:
                    return copies
                if not self._is_short(slot):
                    del queue[slot]
                    continue
                if self._not_before.get(slot, 0.0) > now or self._leases.may_run(slot, now):
                    continue
                copy = self._copy(slot)
                if copy is None:
                    continue
                del queue[slot]
                self._start(copy, now)
                copies.append(copy)
        return copies

    def may_be_made(self, copy: Copy, now: float) -> bool:
        """Whether a copy may still be ordered: the chunk lacks it, and was neither leased nor changed since."""
        if self._state.chunks.ids[copy.slot] != copy.chunk or self._leases.may_run(copy.slot, now):
            return False
        has_source = any(self._fleet.version_of(copy.slot, source) == copy.version for source in copy.sources)
        return has_source and self._is_short(copy.slot)

    def _is_short(self, slot: int) -> bool:
        """Whether the chunk is still there, with too few copies: a server that came back may have brought one."""
        state = self._state
        if not state.chunks.ids[slot]:
            return False
        return self._fleet.alive_count(slot) < state.inodes.replication(state.chunks.inode[slot])

    def _copy(self, slot: int) -> Copy | None:
        state, fleet = self._state, self._fleet
        chunk = state.chunks.ids[slot]
        sources = fleet.holders(slot)
        if not chunk or not sources:
            return None
        version = max(fleet.version_of(slot, server) for server in sources)
        avoided = {server.server for server in sources}
        avoided |= {
            server.server
            for server in fleet.servers
            # A deletion on its way would take the new replica as well.
            if self._load.get(server.number, 0) >= self._copies_per_server or chunk in server.deletions
        }
        # A server with a stale or corrupt replica is the last choice, but on a small cluster it is the only one.
        tainted = {*fleet.stale.get(slot, ()), *fleet.corrupt.get(slot, ())}
        soft = {fleet.servers[number].server for number in tainted}
        room = state.inodes.chunk_bytes(state.chunks.inode[slot])
        racks = {server.rack for server in sources if server.rack}
        targets = choose(fleet.servers, 1, room, avoided | soft, racks) or choose(
            fleet.servers, 1, room, avoided, racks
        )
        if not targets:
            return None
        sources = [server for server in sources if fleet.version_of(slot, server) == version]
        return Copy(slot, chunk, version, targets[0], tuple(sources))

    def _start(self, copy: Copy, now: float) -> None:
        self._running[copy.slot] = (copy.chunk, copy.target.number, now + ORDER_SECONDS)
        self._load[copy.target.number] = self._load.get(copy.target.number, 0) + 1

    def finished(self, slot: int, error: str, now: float) -> None:
        """A copy was made, or failed; then it waits a little before it is tried again."""
        running = self._running.pop(slot, None)
        if running is None:
            return
        self._load[running[1]] -= 1
        if error:
            self._not_before[slot] = now + RETRY_SECONDS
        else:
            self._not_before.pop(slot, None)
        if self._state.chunks.ids[slot] == running[0]:
            self.examine(slot, now)

    def _expire(self, now: float) -> None:
        for slot in [slot for slot, (_, _, deadline) in self._running.items() if deadline < now]:
            self.finished(slot, "no answer", now)
        if len(self._not_before) > QUEUE_MAX:
            self._not_before.clear()
