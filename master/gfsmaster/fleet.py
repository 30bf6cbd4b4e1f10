"""What chunk servers say of themselves: who lives, and which replicas they hold. Soft state, never logged. Pure.

Replica sets are interned: a chunk costs four bytes here, the number of a set of servers. Chunk servers are the truth
about replicas (GFS §2.6.1); this is the master's latest picture of it, and nothing is deleted on an incomplete one.

Invariants:

- a server stands in a chunk's set only with a replica whose version is at least the logged one;
- a replica known to be corrupt or stale is in ``corrupt`` or ``stale`` and not in the set;
- set 0 is the empty set.
"""

import struct
from array import array
from collections.abc import Iterable
from typing import Final

from gfsmaster.early import EarlyReports
from gfsmaster.servers import Server
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import SafeMode

REPLICA: Final = struct.Struct("<QQQ")
ORPHANS_BRAKE_MIN: Final = 1000
ORPHANS_BRAKE_SHARE: Final = 0.25
VERSION_MAX: Final = 2**31
"""No leader grants so many versions of a chunk: a replica that claims one is damaged."""
CONNECT_AGAIN_SECONDS: Final = 5.0
"""A server whose age says that it began so little later has only connected again."""
SUSPECTS_MAX: Final = 1000
"""Chunks that one server is asked to verify between two heartbeats."""


class Fleet:
    """All chunk servers and where each chunk's replicas are."""

    def __init__(self, state: State, follows: bool = False) -> None:
        """``follows``: of a standby, whose log may be behind what chunk servers report."""
        self._follows = follows
        self._early = EarlyReports()
        self._state = state
        self._chunks = state.chunks
        self.servers: list[Server] = []
        self.by_id: dict[int, Server] = {}
        self.replicas = array("I", [0])
        """Number of the replica set, by chunk slot."""
        self.sets: list[tuple[int, ...]] = [()]
        self._set_numbers: dict[tuple[int, ...], int] = {(): 0}
        self._with: dict[tuple[int, int], int] = {}
        self._without: dict[tuple[int, int], int] = {}
        self.alive_counts = [0]
        """Servers alive in each set."""
        self.located = 0
        """Chunks with a replica on some server, alive or not."""
        self.corrupt: dict[int, set[int]] = {}
        self.stale: dict[int, dict[int, int]] = {}
        self.short: dict[tuple[int, int], int] = {}
        """(slot, server number) of replicas that were reported shorter than recorded -> the length recorded then.

        The report may only be older than the record. One that comes later and is shorter than that is not.
        """
        self.suspects: dict[int, list[int]] = {}
        """By server number: chunks that it shall verify."""
        self.unheard: set[int] = set()
        """Slots of new chunks of which no server has said yet that it has made its replica."""
        self.newer: dict[int, dict[int, int]] = {}
        """Slot -> server number -> version: replicas newer than the log knows."""
        self.brake = ""
        self._newest = 0
        """The highest chunk id that a server stores and this master has not given out."""

    # ------------------------------------------------------------------------------------------------- replica sets

    def _number(self, members: tuple[int, ...]) -> int:
        found = self._set_numbers.get(members)
        if found is None:
            found = self._set_numbers[members] = len(self.sets)
            self.sets.append(members)
            self.alive_counts.append(sum(self.servers[number].alive for number in members))
        return found

    def _grow(self, slot: int) -> None:
        if slot >= len(self.replicas):
            self.replicas.extend([0] * (max(slot + 1, len(self._chunks.ids)) - len(self.replicas)))

    def set_number(self, slot: int) -> int:
        return self.replicas[slot] if slot < len(self.replicas) else 0

    def _assign(self, slot: int, number: int) -> None:
        before = self.replicas[slot]
        self.located += bool(number) - bool(before)
        self.replicas[slot] = number

    def add(self, slot: int, server: Server) -> None:
        """The server holds a good replica of the chunk in ``slot``."""
        self._grow(slot)
        before = self.replicas[slot]
        after = self._with.get((before, server.number))
        if after is None:
            members = tuple(sorted({*self.sets[before], server.number}))
            after = self._with[(before, server.number)] = self._number(members)
        if after != before:
            server.chunks += 1
            self._assign(slot, after)

    def remove(self, slot: int, server: Server) -> None:
        """The server holds no good replica of the chunk in ``slot`` (any more)."""
        before = self.set_number(slot)
        after = self._without.get((before, server.number))
        if after is None:
            members = tuple(number for number in self.sets[before] if number != server.number)
            after = self._without[(before, server.number)] = self._number(members)
        if after != before:
            server.chunks -= 1
            self._assign(slot, after)

    def place(self, slot: int, members: Iterable[Server]) -> None:
        """These servers are to make the replicas of a new chunk; they count as holders from now on."""
        self.set_members(slot, members)
        self.unheard.add(slot)

    def set_members(self, slot: int, members: Iterable[Server]) -> None:
        """Exactly these servers hold a good replica; those that did before are stale now."""
        self.unheard.discard(slot)
        self._grow(slot)
        kept = {member.number for member in members}
        for number in self.sets[self.replicas[slot]]:
            if number not in kept:
                self.remove(slot, self.servers[number])
                self.stale.setdefault(slot, {})[number] = self._chunks.version[slot] - 1
        for number in kept:
            self._redeem(slot, self.servers[number])
            self.add(slot, self.servers[number])
        self.newer.pop(slot, None)

    def newest_version(self, slot: int) -> int:
        """The highest version beyond the logged one that a replica has, or 0: grants must go beyond it."""
        newer = self.newer.get(slot)
        return max(newer.values()) if newer else 0

    def version_of(self, slot: int, server: Server) -> int:
        """The version that the server's good replica has as far as it has told: the logged one, or a newer one."""
        return self.newer.get(slot, {}).get(server.number, 0) or self._chunks.version[slot]

    def revise(self, slot: int) -> None:
        """The log has a new version of the chunk. Of its replicas, those count that were reported with it.

        For a standby, which does not know the members of the grant; the others count again when they are reported.
        """
        version = self._chunks.version[slot]
        reported = self.newer.pop(slot, {})
        for number in self.sets[self.set_number(slot)]:
            if reported.get(number, 0) < version:
                self.remove(slot, self.servers[number])
                self.stale.setdefault(slot, {})[number] = version - 1
        newer = {number: found for number, found in reported.items() if found > version}
        if newer:
            self.newer[slot] = newer

    def forget_chunk(self, slot: int, version: int) -> tuple[list[Server], int]:
        """The chunk was freed: who holds replicas of it, and up to which version they may be deleted.

        They are deleted by :meth:`delete`, once the record that freed the chunk is durable. A replica that was made and
        not heard of is deleted when it is: nobody need be told of chunks that were never written to.
        """
        holders = set(self.sets[self.set_number(slot)])
        for number in holders:
            self.remove(slot, self.servers[number])
        if slot in self.unheard:
            self.unheard.discard(slot)
            holders.clear()
        holders.update(self.stale.pop(slot, {}), self.corrupt.pop(slot, ()))
        # The slot's next chunk is another one: nothing that was said of this one may count against it.
        for server in self.servers:
            self.short.pop((slot, server.number), None)
        highest = max(version, self.newest_version(slot))
        self.newer.pop(slot, None)
        return [self.servers[number] for number in sorted(holders)], highest + 1

    def delete(self, chunk: int, version: int, servers: Iterable[Server]) -> None:
        """Replicas of the chunk up to this version are to be deleted on these servers."""
        for server in servers:
            server.deletions[chunk] = max(version, server.deletions.get(chunk, 0))

    def _redeem(self, slot: int, server: Server) -> None:
        """The server's replica counts as good (again): it is neither bad nor about to be deleted."""
        self._forget_bad(slot, server)
        server.deletions.pop(self._chunks.ids[slot], None)

    def _forget_bad(self, slot: int, server: Server) -> None:
        if slot in self.stale:
            self.stale[slot].pop(server.number, None)
            if not self.stale[slot]:
                del self.stale[slot]
        if slot in self.corrupt:
            self.corrupt[slot].discard(server.number)
            if not self.corrupt[slot]:
                del self.corrupt[slot]

    def is_bad(self, slot: int, server: Server) -> bool:
        """Whether the server's replica is known to be stale or corrupt."""
        return server.number in self.stale.get(slot, ()) or server.number in self.corrupt.get(slot, ())

    def suspect(self, server: Server, chunk: int) -> None:
        """The server is to verify its replica of the chunk."""
        suspects = self.suspects.setdefault(server.number, [])
        if len(suspects) < SUSPECTS_MAX and chunk not in suspects:
            suspects.append(chunk)

    def holders(self, slot: int) -> list[Server]:
        """The usable servers with a good replica."""
        servers = self.servers
        return [servers[number] for number in self.sets[self.set_number(slot)] if servers[number].connected]

    def all_holders(self, slot: int) -> list[Server]:
        """Every server that held a good replica when it was last heard: better than no answer."""
        return [self.servers[number] for number in self.sets[self.set_number(slot)]]

    def alive_count(self, slot: int) -> int:
        return self.alive_counts[self.set_number(slot)]

    # ------------------------------------------------------------------------------------------- what servers say

    def register(self, message: msg.Register, now: float) -> Server:
        """A server introduces itself; its full report follows."""
        server = self.by_id.get(message.server)
        if server is None:
            started = now - message.uptime_seconds
            server = Server(len(self.servers), message.server, message.host, message.port, message.rack, now, started)
            self.servers.append(server)
            self.by_id[message.server] = server
        server.host, server.port, server.rack = message.host, message.port, message.rack
        server.disks = message.disks
        server.heard = server.registered = now
        started = now - message.uptime_seconds
        if started > server.started + CONNECT_AGAIN_SECONDS:
            server.started = started
        server.reported = server.must_report = False
        server.seen = bytearray(len(self._chunks.ids))
        server.orphans.clear()
        self._set_alive(server, alive=True)
        server.connected = True
        if message.highest_chunk > self._chunks.last_id and not self._follows:
            self._brake_for_newer(server, message.highest_chunk)
        return server

    def _brake_for_newer(self, server: Server, chunk: int) -> None:
        """Such a replica is no orphan: it is never ordered deleted, even when the brake is released."""
        self._newest = max(self._newest, chunk)
        self.brake = self.brake or (
            f"chunk server {server.host}:{server.port} stores chunk {chunk}, but this master has only given out "
            f"{self._chunks.last_id}: its metadata is older than the data"
        )

    def check_ids(self) -> None:
        """SafeMode if the next chunk ids may be those of chunks that an earlier master of this cluster gave out.

        A new chunk would take the place of a stored one, and the stored ones that are passed would become orphans.
        """
        if self._newest > self._chunks.last_id:
            raise SafeMode(
                f"chunk {self._newest} is stored, but this master has only given out {self._chunks.last_id}: "
                "its metadata is older than the data, and no chunk is added"
            )

    def report(self, server: Server, replicas: bytes, last: bool) -> None:
        """One slice of a full report."""
        for chunk, version, length in REPLICA.iter_unpack(replicas):
            slot = self._chunks.slot_of(chunk)
            if not slot:
                if chunk <= self._chunks.last_id:
                    server.orphans[chunk] = version
                else:
                    self._unknown(server, chunk, version, length)
                continue
            if server.seen is not None and slot < len(server.seen):
                server.seen[slot] = 1
            self._take(server, slot, version, length)
        if last:
            self._finish_report(server)

    def _finish_report(self, server: Server) -> None:
        seen, server.seen = server.seen, None
        if seen is not None and server.chunks:
            holding = [server.number in members for members in self.sets]
            for slot, number in enumerate(self.replicas):
                if holding[number] and slot < len(seen) and not seen[slot]:
                    self.remove(slot, server)
        server.reported = True
        orphans = len(server.orphans)
        if orphans > max(ORPHANS_BRAKE_MIN, ORPHANS_BRAKE_SHARE * (server.chunks + orphans)):
            self.brake = self.brake or (
                f"chunk server {server.host}:{server.port} stores {orphans} chunks that the namespace does not know, "
                f"next to {server.chunks} that it does"
            )

    def heartbeat(self, message: msg.Heartbeat, now: float) -> Server | None:
        """What changed on a server; None if it has to register, for the first time or again."""
        server = self.by_id.get(message.server)
        if server is None or server.must_report:
            return None
        server.heard = now
        server.disks = message.disks
        server.writes = 0
        server.connected = True
        self._set_alive(server, alive=True)
        for chunk, version, length in REPLICA.iter_unpack(message.stored):
            slot = self._chunks.slot_of(chunk)
            if slot:
                self._take(server, slot, version, length)
            elif chunk <= self._chunks.last_id:
                server.deletions[chunk] = version
            else:
                self._unknown(server, chunk, version, length)
        for chunk in message.dropped:
            self._early.forget(chunk, server.number)
            server.deletions.pop(chunk, None)
            server.orphans.pop(chunk, None)
            slot = self._chunks.slot_of(chunk)
            if slot:
                self.remove(slot, server)
                self._forget_bad(slot, server)
        for chunk in message.corrupt:
            slot = self._chunks.slot_of(chunk)
            if slot:
                self.remove(slot, server)
                self.corrupt.setdefault(slot, set()).add(server.number)
        return server

    def _take(self, server: Server, slot: int, version: int, length: int) -> None:
        """A server holds this replica. Reports may be older than what the log already knows (HDFS-17453)."""
        chunks = self._chunks
        self.unheard.discard(slot)
        if version > VERSION_MAX:
            self.remove(slot, server)
            self.corrupt.setdefault(slot, set()).add(server.number)
            return
        if version < chunks.version[slot]:
            self.remove(slot, server)
            self.stale.setdefault(slot, {})[server.number] = version
            return
        if length < chunks.length[slot]:
            if length < self.short.get((slot, server.number), 0):
                del self.short[slot, server.number]
                self.remove(slot, server)
                self.corrupt.setdefault(slot, set()).add(server.number)
                return
            self.short[slot, server.number] = chunks.length[slot]
            self.suspect(server, chunks.ids[slot])
        else:
            self.short.pop((slot, server.number), None)
        if version > chunks.version[slot]:
            self.newer.setdefault(slot, {})[server.number] = version
        self._redeem(slot, server)
        self.add(slot, server)

    # ------------------------------------------------------------------------------------------------- as a standby

    def _unknown(self, server: Server, chunk: int, version: int, length: int) -> None:
        """A chunk that the state has never given out."""
        if not self._follows:
            self._brake_for_newer(server, chunk)
        elif not self._early.add(chunk, server.number, version, length):
            server.must_report = True

    def catch_up(self) -> None:
        """The state has gone on: takes what was reported of chunks that it knows now, and of versions that it has."""
        state = self._state
        # First what is gone: its slot may belong to another chunk by now.
        for freed in state.freed:
            holders, version = self.forget_chunk(freed.slot, freed.version)
            self.delete(freed.chunk, version, holders)
        state.freed.clear()
        for slot in state.revised:
            if self._chunks.ids[slot]:
                self.revise(slot)
        state.revised.clear()
        for chunk, reports in self._early.take(self._chunks.last_id):
            slot = self._chunks.slot_of(chunk)
            for number, (version, length) in reports.items():
                if slot:
                    self._take(self.servers[number], slot, version, length)
                else:
                    self.servers[number].deletions[chunk] = version

    def lead(self) -> None:
        """The log has been read to its end: what servers report beyond it is nothing that is still to come."""
        self._follows = False
        for chunk, reports in self._early.take():
            for number in reports:
                self._brake_for_newer(self.servers[number], chunk)

    def follow(self) -> None:
        """Another node leads from now on."""
        self._follows = True

    # --------------------------------------------------------------------------------------------------- liveness

    def _set_alive(self, server: Server, alive: bool) -> None:
        if server.alive == alive:
            return
        server.alive = alive
        for number, members in enumerate(self.sets):
            if server.number in members:
                self.alive_counts[number] += 1 if alive else -1

    def tick(self, now: float, silent_seconds: float) -> list[Server]:
        """Declares dead who has been silent for too long; returns who just died."""
        died = [server for server in self.servers if server.alive and now - server.heard > silent_seconds]
        for server in died:
            server.connected = False
            self._set_alive(server, alive=False)
        return died

    def lost_connection(self, server: Server) -> None:
        """Its connection broke: new data goes elsewhere until it is heard again, nothing is copied yet."""
        server.connected = False

    def connected(self) -> list[Server]:
        return [server for server in self.servers if server.connected]

    def release_brake(self) -> int:
        """A person has looked: what was held back is deleted. Returns how many replicas that are."""
        self.brake = ""
        count = 0
        for server in self.servers:
            count += len(server.orphans)
            server.deletions |= server.orphans
            server.orphans.clear()
        return count
