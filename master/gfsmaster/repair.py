"""Bringing chunks back to their number of copies, and removing copies too many. Pure: decisions out, reports in.

A scan over all chunks in slices finds what has too few or too many good replicas; fewest copies first (GFS §4.3). Each
server makes few copies at a time. Nothing is deleted unless enough good replicas live elsewhere, and nothing at all
while reports are incomplete (safe mode), or while the brake is on.

A chunk that may be leased is left alone: its copy would lack what is written meanwhile, and count as good. What was
decided before it was leased is void: an order names one version, and whatever is written comes under a newer one.
"""

import itertools
import operator
from collections.abc import Iterator
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
        self._uneven: set[int] = set()
        """Those of them whose chunks were not as they should be."""
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
        fleet, ids = self._fleet, self._state.chunks.ids
        stop = min(self._cursor + slots, len(ids))
        self._scanned = range(self._cursor, stop)
        self._uneven = uneven = set(itertools.compress(self._scanned, map(operator.ne, self._alive(), self._wanted())))
        if not all(server.alive for server in fleet.servers):
            # Only then are there sets with more members than are alive.
            members = map(len, map(fleet.sets.__getitem__, self._numbers()))
            uneven.update(itertools.compress(self._scanned, map(operator.gt, members, self._wanted())))
        for bad in (fleet.stale, fleet.corrupt):
            if bad:
                uneven.update(bad.keys() & self._scanned)
        if self.missing:
            self.missing -= self.missing.intersection(self._scanned) - uneven
        for queue in filter(None, self._queues.values()):
            # A server that came back may have brought what they lacked, while no copies were planned.
            for slot in (queue.keys() & self._scanned) - uneven:
                del queue[slot]
        for slot in sorted(uneven):
            if ids[slot]:
                self.examine(slot, now)
        self._cursor = stop if stop < len(ids) else 1

    # Of all chunks that were scanned last, in the order of their slots. Most are as they should be, and looking at them
    # one after the other in Python took a tenth of a leader's time: these iterators run in C.

    def _numbers(self) -> Iterator[int]:
        """Their sets of replicas; without an end, for those that nobody has reported yet are in no table."""
        scanned = self._scanned
        return itertools.chain(self._fleet.replicas[scanned.start : scanned.stop], itertools.repeat(0))

    def _alive(self) -> Iterator[int]:
        """How many live replicas they have; without an end."""
        return map(self._fleet.alive_counts.__getitem__, self._numbers())

    def _wanted(self) -> Iterator[int]:
        """How many they are to have."""
        inodes = self._state.inodes
        replications = [replication for replication, _ in inodes.layouts.values]
        if len(set(replications)) == 1:
            return itertools.repeat(replications[0], len(self._scanned))
        files = self._state.chunks.inode[self._scanned.start : self._scanned.stop]
        return map(replications.__getitem__, map(inodes.layout.__getitem__, files))

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
        state, fleet = self._state, self._fleet
        candidates = set(list(fleet.stale)[:slots]) | set(list(fleet.corrupt)[:slots])
        for slot in self._uneven:
            if state.chunks.ids[slot] and fleet.alive_count(slot) > state.inodes.replication(state.chunks.inode[slot]):
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
