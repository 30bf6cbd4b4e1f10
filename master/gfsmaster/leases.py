"""Write leases on chunks: who may mutate which chunk with which replicas, for how long. Soft state, pure.

A lease is shared by all writers of a chunk: they reach the same primary, which orders their mutations (GFS §3.1).
Safety does not rest on expiry but on versions: a replica set is changed only under a higher version, which every
member of the new set has before anything is acknowledged under it. Expiry is what lets repair touch the chunk.
"""

from dataclasses import dataclass
from typing import Final

from gfsmaster.servers import Server

CUTS_REMEMBERED_MAX: Final = 1 << 16
"""Chunks whose last cut is remembered: who slept through it is refused by name as well."""


@dataclass(slots=True)
class ChunkLease:
    """``began`` and ``expires`` are monotonic seconds; ``base_version`` is what the members must have at least."""

    base_version: int
    version: int
    members: list[Server]
    cut_length: int
    expires: float
    confirmed: bool
    began: float = 0.0
    left_out: frozenset[int] = frozenset()
    """Servers that failed a writer since the logged version: not taken again while there are others, or before
    they have registered again."""

    def leaves_out(self, server: Server) -> bool:
        return server.server in self.left_out and server.registered <= self.began

    def holds(self, member: Server) -> bool:
        """Whether the member is there and has been since the lease began: a restarted one takes no part in it."""
        return member.connected and member.started <= self.began


class Leases:
    """By chunk slot."""

    def __init__(self, lease_seconds: float, settled_at: float = 0.0) -> None:
        """``settled_at``: until then leases of the leader before may run, of which this one does not know."""
        self.lease_seconds = lease_seconds
        self.settled_at = settled_at
        self._by_chunk: dict[int, ChunkLease] = {}
        self._cut_versions: dict[int, int] = {}

    def running(self, slot: int, now: float) -> ChunkLease | None:
        lease = self._by_chunk.get(slot)
        return lease if lease is not None and lease.expires > now else None

    def may_run(self, slot: int, now: float) -> bool:
        """Whether someone may be writing to the chunk: then a copy would lack what is written meanwhile."""
        return now < self.settled_at or self.running(slot, now) is not None

    def last(self, slot: int) -> ChunkLease | None:
        """The last lease given, even if it has expired."""
        return self._by_chunk.get(slot)

    def grant(self, slot: int, lease: ChunkLease) -> None:
        self._by_chunk[slot] = lease
        if lease.cut_length >= 0:
            self.cut(slot, lease.version)

    def cut(self, slot: int, version: int) -> None:
        """What was acknowledged under older versions and is not recorded yet is gone."""
        self._cut_versions.pop(slot, None)
        self._cut_versions[slot] = version
        if len(self._cut_versions) > CUTS_REMEMBERED_MAX:
            del self._cut_versions[next(iter(self._cut_versions))]

    def was_cut_since(self, slot: int, version: int) -> bool:
        """Whether bytes acknowledged under ``version`` and not yet recorded may have been cut off since."""
        return version < self._cut_versions.get(slot, 0)

    def end(self, slot: int) -> None:
        """The last writer has closed the file: repair need not wait. One that slept since may still come back."""
        self._by_chunk.pop(slot, None)

    def forget(self, slot: int) -> None:
        """The chunk is gone."""
        self.end(slot)
        self._cut_versions.pop(slot, None)

    def tick(self, now: float) -> None:
        """Forgets what has been over for as long as it lasted."""
        for slot in [slot for slot, lease in self._by_chunk.items() if lease.expires + self.lease_seconds < now]:
            del self._by_chunk[slot]
