"""The requests that allocate chunks and lease them to writers, as the leader answers them.

Atomic between awaits: nothing here awaits, from the request to its queued record and parked reply.
"""

import logging
import stat
from collections.abc import Callable
from typing import Final

from gfsmaster import operations as op
from gfsmaster.changes import Changes
from gfsmaster.commits import Committer
from gfsmaster.config import MasterConfig
from gfsmaster.fleet import Fleet
from gfsmaster.granting import Granting, Limits, NewFile
from gfsmaster.leases import ChunkLease, Leases
from gfsmaster.namespace import WRITE, User
from gfsmaster.planner import Planner
from gfsmaster.state import State
from gfsmaster.term import Term
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import GfsError, InvalidArgument, IsADirectory, LeaseLost, StaleHandle
from gfsprotocol.rpc import Peer

log = logging.getLogger(__name__)

HEARTBEATS_TO_TELL: Final = 3
"""After so many heartbeats of its own, a chunk server has spoken to a new leader twice."""


class ChunkRequests:
    """AllocateChunk, RenewLease, ConfirmGrant and ReportCorrupt; and what creation and closing mean for leases."""

    def __init__(
        self,
        config: MasterConfig,
        clock: Clock,
        term: Term,
        state: State,
        fleet: Fleet,
        leases: Leases,
        planner: Planner,
        changes: Changes,
        committer: Committer,
        hears: Callable[[bytes], None],
    ) -> None:
        """``hears`` is told which client has renewed a lease."""
        self._config = config
        self._clock = clock
        self._term = term
        self._state = state
        self._fleet = fleet
        self._leases = leases
        self._planner = planner
        self._changes = changes
        self._committer = committer
        self._hears = hears
        told_at = term.started + HEARTBEATS_TO_TELL * config.heartbeat_seconds if term.epoch > 1 else 0.0
        self._granting = Granting(state, fleet, leases, Limits(config.min_replicas, told_at))

    def check_lengths(self, body: msg.Close | msg.RecordLength, client: bytes) -> None:
        """Lengths acknowledged before a cut are refused: the bytes may be gone (a lease holder that slept too long)."""
        for recorded in body.chunks:
            slot = self._state.chunks.slot_of(recorded.chunk)
            if (
                slot
                and recorded.length > self._state.chunks.length[slot]
                and self._may_be_cut_since(slot, recorded.version, client)
            ):
                raise StaleHandle(f"the lease on chunk {recorded.chunk} ended before its length was recorded")

    def _may_be_cut_since(self, slot: int, version: int, client: bytes) -> bool:
        """Whether bytes that the client had acknowledged under ``version``, and has not recorded, may be gone.

        Nothing that is not recorded is cut off while its writer is registered. Who is not any more was silent for too
        long: then any later version may have begun with a cut, also one that only the leader before knew of.
        """
        if self._leases.was_cut_since(slot, version):
            return True
        chunks = self._state.chunks
        newest = max(chunks.version[slot], self._fleet.newest_version(slot))
        return version < newest and not self._state.writers.has(chunks.inode[slot], client)

    def end_leases(self, inode: int) -> None:
        """After the last writer's close, repair need not wait for the leases to expire."""
        slot = self._state.inodes.slot_of(inode)
        if slot and not self._state.writers.count(slot):
            for chunk in self._state.inodes.chunk_slots(slot):
                self._leases.end(chunk)

    def _writable(self, inode: int, client: bytes, user: User) -> int:
        slot = self._planner.namespace.base(inode)
        if not stat.S_ISREG(self._state.inodes.mode[slot]):
            raise (
                IsADirectory("not a regular file")
                if slot in self._state.inodes.directories
                else InvalidArgument("not a regular file")
            )
        if not self._state.writers.has(slot, client):
            self._planner.namespace.require(slot, user, WRITE, b"")
        return slot

    def allocate_chunk(self, peer: Peer, request: msg.Request, body: msg.AllocateChunk) -> None:
        client = peer.hello.name
        now = self._clock.monotonic()
        known = self._changes.known_result(client, request.call)
        if isinstance(known, msg.Count):
            self._reply_lease(peer, request.id, known.count, self._lease_again(known.count, client, now))
            return
        inode = self._writable(body.inode, client, request.user)
        # Another writer may have had bytes acknowledged on the chunk that are not recorded yet: then it stays.
        replaced = 0 if self._state.writers.others(inode, client) else body.replaced
        new = self._granting.plan_chunk(inode, body.index, replaced, body.excluded)
        if new is None:
            slot = self._state.inodes.chunk_at(inode, body.index)
            chunk = self._state.chunks.ids[slot]
            failed = body.excluded if body.replaced else ()
            lease = self._granting.lease(slot, 0, failed, self._may_cut(inode, client, now), now)
        else:
            self._changes.record((new.operation,), client, request.call)
            chunk = new.operation.chunk
            lease = self._granting.lease_new(self._state.chunks.slot_of(chunk), new.members, now)
        self._reply_lease(peer, request.id, chunk, lease)

    def _lease_again(self, chunk: int, client: bytes, now: float) -> ChunkLease:
        """For the retry of an allocation that was made before, perhaps by another leader."""
        slot = self._state.chunks.slot_of(chunk)
        if not slot:
            raise StaleHandle(f"chunk {chunk} was allocated and freed again")
        running = self._leases.running(slot, now)
        if running is not None:
            return running
        shared = self._state.writers.others(self._state.chunks.inode[slot], client)
        if shared or self._fleet.holders(slot) or self._state.chunks.length[slot]:
            return self._granting.lease(slot, 0, (), self._may_cut(self._state.chunks.inode[slot], client, now), now)
        inode = self._state.chunks.inode[slot]
        new = self._granting.plan_chunk(inode, self._state.chunks.index[slot], chunk, ())
        if new is None:
            raise StaleHandle(f"chunk {chunk} is no longer part of the file")
        return self._granting.lease_new(slot, new.members, now)

    def _may_cut(self, inode: int, client: bytes, now: float) -> bool:
        """Whether no one else can have acknowledged bytes in this file that are not recorded."""
        settled = now - self._term.started > self._config.chunk_lease_seconds
        return not self._state.writers.others(inode, client) and settled

    def renew_lease(self, peer: Peer, request: msg.Request, body: msg.RenewLease) -> None:
        now = self._clock.monotonic()
        self._hears(peer.hello.name)
        inode = self._writable(body.inode, peer.hello.name, request.user)
        slot = self._state.inodes.chunk_at(inode, body.index)
        if not slot or self._state.chunks.ids[slot] != body.chunk:
            raise StaleHandle(f"chunk {body.chunk} is no longer part of the file")
        if self._may_be_cut_since(slot, body.version, peer.hello.name):
            raise StaleHandle(f"the lease on chunk {body.chunk} ended, and the chunk was cut for another writer")
        refused = frozenset(body.refused)
        lease = self._granting.lease(slot, body.version, body.failed, may_cut=False, now=now, refused=refused)
        self._reply_lease(peer, request.id, body.chunk, lease)

    def plan_first(self, plan: op.Operations) -> NewFile | None:
        """If ``plan`` makes a file that is open: the same with its first chunk. None if it does not, or cannot be."""
        if len(plan) != 1 or not isinstance(plan[0], op.MakeFile) or not plan[0].writer:
            return None
        try:
            return self._granting.plan_first(plan[0])
        except GfsError:
            return None  # the file is made all the same; who writes to it asks for the chunk, and is told why not

    def lease_first(self, new: NewFile, result: msg.ReplyBody) -> msg.ReplyBody:
        """The answer to the call that has made the file; a retry of it is told of no lease, and asks for one."""
        chunk = new.operation.chunk
        lease = self._granting.lease_new(self._state.chunks.slot_of(chunk), new.members, self._clock.monotonic())
        assert isinstance(result, msg.AttributesReply)
        return msg.AttributesReply(result.attributes, self._lease(chunk, lease))

    def _reply_lease(self, peer: Peer, request_id: int, chunk: int, lease: ChunkLease) -> None:
        self._committer.reply(peer, request_id, self._lease(chunk, lease))

    def _lease(self, chunk: int, lease: ChunkLease) -> msg.Lease:
        """What a writer is given of a lease: the signed grant, from now on."""
        slot = self._state.chunks.slot_of(chunk)
        inode = self._state.chunks.inode[slot]
        valid_ms = max(0, int((lease.expires - self._clock.monotonic()) * 1000))
        now_ms = self._term.clock_ms
        grant = msg.Grant(
            chunk,
            lease.base_version,
            lease.version,
            self._state.inodes.ids[inode],
            self._state.chunks.index[slot],
            self._state.inodes.chunk_bytes(inode),
            lease.cut_length,
            self._term.epoch,
            now_ms,
            now_ms + valid_ms,
            tuple(server.address for server in lease.members),
        )
        token = self._term.sign_grant(grant)
        return msg.Lease(grant, token, self._state.chunks.length[slot], valid_ms)

    def confirm_grant(self, peer: Peer, request: msg.Request, body: msg.ConfirmGrant) -> None:
        slot = self._state.chunks.slot_of(body.chunk)
        if not slot:
            raise LeaseLost(f"chunk {body.chunk} was freed")
        now = self._clock.monotonic()
        operation = self._granting.plan_confirmation(slot, body.version, now)
        if operation is not None:
            self._changes.record((operation,))
            self._granting.confirmed(slot, now)
        self._committer.reply(peer, request.id, msg.Done())

    def report_corrupt(self, peer: Peer, request: msg.Request, body: msg.ReportCorrupt) -> None:
        slot = self._state.chunks.slot_of(body.chunk)
        server = self._fleet.by_id.get(body.server)
        if slot and server is not None:
            log.warning(
                "client reports a corrupt replica of chunk %d on %s:%d; it is to verify it",
                body.chunk,
                server.host,
                server.port,
            )
            self._fleet.suspect(server, body.chunk)
        self._committer.reply(peer, request.id, msg.Done())
