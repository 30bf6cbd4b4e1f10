"""The active master: serves clients and chunk servers while its epoch lasts.

plan -> apply -> log -> answer: a change is planned and applied to memory at once, its record goes to the group commit,
and the answer waits until the record is durable. So does every other answer that might have seen it. If a commit fails,
this object is thrown away with its memory, and the node starts again from the log.

Atomic between awaits: everything from a request to its queued record and parked reply; no handler awaits.
"""

import asyncio
import logging
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gfsmaster import operations as op
from gfsmaster.commits import Appender, Committer
from gfsmaster.config import MasterConfig
from gfsmaster.fleet import Fleet, Server
from gfsmaster.granting import Granting, Limits
from gfsmaster.leases import ChunkLease, Leases
from gfsmaster.namespace import WRITE, User
from gfsmaster.planner import Planner, check_user
from gfsmaster.queries import Queries, Summarizer
from gfsmaster.repair import Repair
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import (
    AuthenticationFailed,
    Busy,
    GfsError,
    InvalidArgument,
    IsADirectory,
    LeaseLost,
    NotLeader,
    NotPermitted,
    PermissionDenied,
    StaleHandle,
    StateDiverged,
)
from gfsprotocol.ids import PURGED_ENTRIES_MAX
from gfsprotocol.rpc import Peer
from gfsprotocol.tokens import ReadToken, sign_grant, sign_read

log = logging.getLogger(__name__)

DIGEST_RECORDS: Final = 1000
"""A state digest is logged after so many records."""
READ_TOKEN_SECONDS: Final = 600
TICK_SECONDS: Final = 0.1
EXPIRY_SECONDS: Final = 5.0
SAFE_MODE_COPY_SECONDS: Final = 60.0
"""Copying harms nothing even on an incomplete picture, so known chunks are not left alone for ever; deleting may."""
SCAN_SLOTS: Final = 20_000
RECLAIM_ENTRIES: Final = 1000
ORDERED_MAX: Final = 100_000
"""Deletions per server, and copies in all, that are remembered until they are answered."""
SUMMARY_ENTRIES: Final = 5000
SUMMARIES_MAX: Final = 16
LEASE_MARGIN: Final = 0.25
"""The part of the lease that a leader does not use, against clocks that run at different speeds."""


class Leader:
    """An rpc.Service for one epoch. ``run`` returns only by raising why the leadership ended."""

    def __init__(
        self,
        config: MasterConfig,
        clock: Clock,
        token_key: bytes,
        state: State,
        journal: Appender,
        executor: ThreadPoolExecutor,
        epoch: int,
        last_hash: bytes,
        lease_started: float,
    ) -> None:
        """``lease_started`` is the monotonic time just before the epoch was won."""
        self.config = config
        self.clock = clock
        self.state = state
        self.epoch = epoch
        self._token_key = token_key
        self._started = clock.monotonic()
        self._lease_until = 0.0
        self.beat(lease_started)
        self._journal = journal
        self._executor = executor
        self.committer = Committer(journal, executor, epoch, state.sequence, last_hash, self._beating)
        self.fleet = Fleet(state)
        self.leases = Leases(config.chunk_lease_seconds)
        self.repair = Repair(state, self.fleet, self.leases, config.repairs_per_server)
        self.planner = Planner(state)
        settled_at = self._started + config.chunk_lease_seconds if epoch > 1 else 0.0
        self.granting = Granting(state, self.fleet, self.leases, Limits(config.min_replicas, settled_at))
        self.queries = Queries(state, self.fleet, self.planner, self.sign_read)
        self._heard: dict[bytes, float] = {}
        self._summaries: set[asyncio.Task[None]] = set()
        self._orders: dict[int, list[msg.Order]] = {}
        self._order_slots: dict[int, int] = {}
        self._next_order = 1
        self._since_digest = 0
        self._safe_mode = True
        self._damaged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception if a record could not be applied: the end of this leadership, and of the process."""
        self._special: dict[type, Callable[[Peer, msg.Request, Any], None]] = {
            msg.AllocateChunk: self._allocate_chunk,
            msg.RenewLease: self._renew_lease,
            msg.ReportCorrupt: self._report_corrupt,
            msg.KeepAlive: self._keep_alive,
            msg.ClusterStatus: self._cluster_status,
            msg.ReleaseBrake: self._release_brake,
            msg.Summarize: self._summarize,
        }
        self._from_servers: dict[type, Callable[[Peer, msg.Request, Any], None]] = {
            msg.Register: self._register,
            msg.ChunkReport: self._chunk_report,
            msg.Heartbeat: self._heartbeat,
            msg.ConfirmGrant: self._confirm_grant,
            msg.ClusterStatus: self._cluster_status,
        }

    # -------------------------------------------------------------------------------------------------- the epoch

    def beat(self, started: float) -> None:
        """The log was renewed, or appended to, by a call that began at ``started``."""
        self._lease_until = max(self._lease_until, started + self.config.lease_seconds * (1 - LEASE_MARGIN))

    def _beating(self) -> Callable[[], None]:
        started = self.clock.monotonic()
        return lambda: self.beat(started)

    @property
    def leads(self) -> bool:
        """Whether this node may still answer as the leader, by its own monotonic clock."""
        return self.clock.monotonic() < self._lease_until and not self._damaged.done()

    @property
    def token_clock_ms(self) -> int:
        return int((self.clock.monotonic() - self._started) * 1000)

    def begin(self, operations: tuple[op.AnyOperation, ...]) -> None:
        """The epoch's first record."""
        self._record(operations)

    async def run(self) -> None:
        """Commits and keeps house until a failure is raised: LogFenced, LogFailed, or a bug."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.committer.run())
            tasks.create_task(self._keep_house())
            tasks.create_task(self._renew())
            tasks.create_task(self._watch_damage())

    async def _watch_damage(self) -> None:
        await self._damaged

    async def _renew(self) -> None:
        """A sign of life in the log four times a lease; LogFenced tells that another master leads."""
        loop = asyncio.get_running_loop()
        while True:
            on_success = self._beating()
            await loop.run_in_executor(self._executor, self._journal.renew, self.epoch)
            on_success()
            await asyncio.sleep(self.config.lease_seconds / 4)

    def end(self) -> None:
        """No answer leaves any more; what waits is for the next leader."""
        for task in self._summaries:
            task.cancel()

    # ----------------------------------------------------------------------------------------------------- requests

    def handle(self, peer: Peer, request: msg.Request) -> None:
        """Answers a request, or parks the answer until the log has what it reflects."""
        if not self.leads:
            raise NotLeader(f"{self.config.node} has not renewed its leadership in time")
        try:
            if peer.hello.role == "client":
                self._client_request(peer, request)
            else:
                self._server_request(peer, request)
        except GfsError as error:
            self.committer.reply(peer, request.id, msg.ErrorReply(error.code, error.message, error.hint))

    def notice(self, peer: Peer, body: msg.NoticeBody) -> None:
        """No notices are defined for a leader."""

    def _client_request(self, peer: Peer, request: msg.Request) -> None:
        body = request.body
        if request.user:
            check_user(request.user)
        if self.queries.answers(body):
            self.committer.reply(peer, request.id, self.queries.answer(body, request.user))
            return
        special = self._special.get(type(body))
        if special is not None:
            special(peer, request, body)
        elif self.planner.plans(body):
            self._change(peer, request)
        else:
            raise PermissionDenied(f"{type(body).__name__} is not for clients")

    def _server_request(self, peer: Peer, request: msg.Request) -> None:
        handler = self._from_servers.get(type(request.body))
        if handler is None:
            raise PermissionDenied(f"{type(request.body).__name__} is not for chunk servers")
        handler(peer, request, request.body)

    def _change(self, peer: Peer, request: msg.Request) -> None:
        """A namespace change, exactly once."""
        client = peer.hello.name
        result = self._known_result(client, request.call)
        if result is None:
            if isinstance(request.body, msg.Close | msg.RecordLength):
                self._check_lengths(request.body)
            plan = self.planner.plan(request.body, request.user, client, self._now_ns())
            result = self._record(plan, client, request.call) if isinstance(plan, tuple) else plan
            if isinstance(request.body, msg.Close):
                self._end_leases(request.body.inode)
        self.committer.reply(peer, request.id, result)

    def _known_result(self, client: bytes, call: msg.Call | None) -> msg.ReplyBody | None:
        if call is None:
            raise InvalidArgument("a change needs a call number")
        self.committer.check_room()
        self._heard[client] = self.clock.monotonic()
        return self.state.sessions.result(client, call.number, call.retry)

    def _now_ns(self) -> int:
        """The machine's clock, kept from going back: each record has a time of its own."""
        return max(self.clock.time_ns(), self.state.time_ns + 1)

    def _record(
        self, operations: tuple[op.AnyOperation, ...], client: bytes = b"", call: msg.Call | None = None
    ) -> msg.ReplyBody:
        """Applies and logs operations."""
        if call is None:
            record = op.Record(self._now_ns(), operations)
        else:
            record = op.Record(self._now_ns(), operations, client, call.number, call.floor)
        try:
            result = self.state.apply(record)
        except Exception as error:
            # Half applied and not logged: this memory is of no more use, and nothing may be answered from it.
            self._damaged.set_exception(error)
            raise StateDiverged(f"a planned change could not be applied: {type(error).__name__}: {error}") from error
        self.committer.submit(record)
        if self.state.freed:
            self._free_chunks()
        self._since_digest += 1
        if self._since_digest >= DIGEST_RECORDS:
            self._since_digest = 0
            self._record((op.StateDigest(self.state.digest()),))
        return result

    def _free_chunks(self) -> None:
        for freed in self.state.freed:
            self.leases.end(freed.slot)
            self.repair.forget_chunk(freed.slot)
            servers, version = self.fleet.forget_chunk(freed.slot, freed.version)
            self.committer.when_durable(
                lambda chunk=freed.chunk, version=version, servers=servers: self.fleet.delete(chunk, version, servers)  # type: ignore[misc]
            )
        self.state.freed.clear()

    # ------------------------------------------------------------------------------------------------ chunks, leases

    def sign_read(self, chunk: int, version: int) -> bytes:
        now_ms = self.token_clock_ms
        return sign_read(
            self._token_key, ReadToken(chunk, version, self.epoch, now_ms, now_ms + READ_TOKEN_SECONDS * 1000)
        )

    def _check_lengths(self, body: msg.Close | msg.RecordLength) -> None:
        """Lengths acknowledged before a cut are refused: the bytes may be gone (a lease holder that slept too long)."""
        for recorded in body.chunks:
            slot = self.state.chunks.slot_of(recorded.chunk)
            if (
                slot
                and recorded.length > self.state.chunks.length[slot]
                and self.leases.was_cut_since(slot, recorded.version)
            ):
                raise StaleHandle(f"the lease on chunk {recorded.chunk} ended before its length was recorded")

    def _end_leases(self, inode: int) -> None:
        """After the last writer's close, repair need not wait for the leases to expire."""
        slot = self.state.inodes.slot_of(inode)
        if slot and not self.state.writers.count(slot):
            for chunk in self.state.inodes.chunk_slots(slot):
                self.leases.end(chunk)

    def _writable(self, inode: int, client: bytes, user: User) -> int:
        slot = self.planner.namespace.base(inode)
        if not stat.S_ISREG(self.state.inodes.mode[slot]):
            raise (
                IsADirectory("not a regular file")
                if slot in self.state.inodes.directories
                else InvalidArgument("not a regular file")
            )
        if not self.state.writers.has(slot, client):
            self.planner.namespace.require(slot, user, WRITE, b"")
        return slot

    def _allocate_chunk(self, peer: Peer, request: msg.Request, body: msg.AllocateChunk) -> None:
        client = peer.hello.name
        now = self.clock.monotonic()
        known = self._known_result(client, request.call)
        if isinstance(known, msg.Count):
            self._reply_lease(peer, request.id, known.count, self._lease_again(known.count, client, now))
            return
        inode = self._writable(body.inode, client, request.user)
        # Another writer may have had bytes acknowledged on the chunk that are not recorded yet: then it stays.
        replaced = 0 if self.state.writers.others(inode, client) else body.replaced
        new = self.granting.plan_chunk(inode, body.index, replaced, body.excluded)
        if new is None:
            slot = self.state.inodes.chunk_at(inode, body.index)
            chunk = self.state.chunks.ids[slot]
            failed = body.excluded if body.replaced else ()
            lease = self.granting.lease(slot, 0, failed, self._may_cut(inode, client, now), now)
        else:
            self._record((new.operation,), client, request.call)
            chunk = new.operation.chunk
            lease = self.granting.lease_new(self.state.chunks.slot_of(chunk), new.members, now)
        self._reply_lease(peer, request.id, chunk, lease)

    def _lease_again(self, chunk: int, client: bytes, now: float) -> ChunkLease:
        """For the retry of an allocation that was made before, perhaps by another leader."""
        slot = self.state.chunks.slot_of(chunk)
        if not slot:
            raise StaleHandle(f"chunk {chunk} was allocated and freed again")
        running = self.leases.running(slot, now)
        if running is not None:
            return running
        shared = self.state.writers.others(self.state.chunks.inode[slot], client)
        if shared or self.fleet.holders(slot) or self.state.chunks.length[slot]:
            return self.granting.lease(slot, 0, (), self._may_cut(self.state.chunks.inode[slot], client, now), now)
        inode = self.state.chunks.inode[slot]
        new = self.granting.plan_chunk(inode, self.state.chunks.index[slot], chunk, ())
        if new is None:
            raise StaleHandle(f"chunk {chunk} is no longer part of the file")
        return self.granting.lease_new(slot, new.members, now)

    def _may_cut(self, inode: int, client: bytes, now: float) -> bool:
        """Whether no one else can have acknowledged bytes in this file that are not recorded."""
        settled = now - self._started > self.config.chunk_lease_seconds
        return not self.state.writers.others(inode, client) and settled

    def _renew_lease(self, peer: Peer, request: msg.Request, body: msg.RenewLease) -> None:
        now = self.clock.monotonic()
        self._heard[peer.hello.name] = now
        inode = self._writable(body.inode, peer.hello.name, request.user)
        slot = self.state.inodes.chunk_at(inode, body.index)
        if not slot or self.state.chunks.ids[slot] != body.chunk:
            raise StaleHandle(f"chunk {body.chunk} is no longer part of the file")
        if self.leases.was_cut_since(slot, body.version):
            raise StaleHandle(f"the lease on chunk {body.chunk} ended, and the chunk was cut for another writer")
        lease = self.granting.lease(slot, body.version, body.failed, may_cut=False, now=now)
        self._reply_lease(peer, request.id, body.chunk, lease)

    def _reply_lease(self, peer: Peer, request_id: int, chunk: int, lease: ChunkLease) -> None:
        slot = self.state.chunks.slot_of(chunk)
        inode = self.state.chunks.inode[slot]
        valid_ms = max(0, int((lease.expires - self.clock.monotonic()) * 1000))
        now_ms = self.token_clock_ms
        grant = msg.Grant(
            chunk,
            lease.base_version,
            lease.version,
            self.state.inodes.ids[inode],
            self.state.chunks.index[slot],
            self.state.inodes.chunk_bytes(inode),
            lease.cut_length,
            self.epoch,
            now_ms,
            now_ms + valid_ms,
            tuple(server.address for server in lease.members),
        )
        token = sign_grant(self._token_key, grant)
        self.committer.reply(peer, request_id, msg.Lease(grant, token, self.state.chunks.length[slot], valid_ms))

    def _confirm_grant(self, peer: Peer, request: msg.Request, body: msg.ConfirmGrant) -> None:
        slot = self.state.chunks.slot_of(body.chunk)
        if not slot:
            raise LeaseLost(f"chunk {body.chunk} was freed")
        now = self.clock.monotonic()
        operation = self.granting.plan_confirmation(slot, body.version, now)
        if operation is not None:
            self._record((operation,))
            self.granting.confirmed(slot, now)
        self.committer.reply(peer, request.id, msg.Done())

    def _report_corrupt(self, peer: Peer, request: msg.Request, body: msg.ReportCorrupt) -> None:
        slot = self.state.chunks.slot_of(body.chunk)
        server = self.fleet.by_id.get(body.server)
        if slot and server is not None:
            log.warning(
                "client reports a corrupt replica of chunk %d on %s:%d; it is to verify it",
                body.chunk,
                server.host,
                server.port,
            )
            self.fleet.suspect(server, body.chunk)
        self.committer.reply(peer, request.id, msg.Done())

    # ---------------------------------------------------------------------------------------------- other requests

    def _keep_alive(self, peer: Peer, request: msg.Request, _body: msg.KeepAlive) -> None:
        self._heard[peer.hello.name] = self.clock.monotonic()
        self.committer.reply(peer, request.id, msg.Done())

    def _release_brake(self, peer: Peer, request: msg.Request, _body: msg.ReleaseBrake) -> None:
        if request.user and request.user[0]:
            raise NotPermitted("only root may release the brake")
        if self.fleet.brake:
            log.warning("the brake on deletions was released by %s; it was: %s", peer.name, self.fleet.brake)
        self.committer.reply(peer, request.id, msg.Count(self.fleet.release_brake()))

    def _summarize(self, peer: Peer, request: msg.Request, body: msg.Summarize) -> None:
        if len(self._summaries) >= SUMMARIES_MAX:
            raise Busy(f"{SUMMARIES_MAX} summaries are being made already")
        slot = self.planner.namespace.find(request.user, body.base, body.path)
        summarizer = Summarizer(self.state, request.user, slot, self.planner.namespace.allowed)
        task = asyncio.create_task(self._run_summary(peer, request.id, summarizer))
        self._summaries.add(task)
        task.add_done_callback(self._summaries.discard)

    async def _run_summary(self, peer: Peer, request_id: int, summarizer: Summarizer) -> None:
        try:
            while summarizer.step(SUMMARY_ENTRIES):  # noqa: ASYNC110 - others get their turn between the slices
                await asyncio.sleep(0)
        except GfsError as error:
            peer.respond_error(request_id, error)
            return
        self.committer.reply(peer, request_id, summarizer.summary())

    def status(self) -> msg.Status:
        now = self.clock.monotonic()
        servers = tuple(
            msg.ServerStatus(
                server.server,
                server.host,
                server.port,
                server.connected,
                round(now - server.heard, 3),
                server.chunks,
                server.disks,
            )
            for server in self.fleet.servers
        )
        return msg.Status(
            self.state.cluster,
            self.config.node,
            "leader",
            self.epoch,
            self.config.address,
            self.state.sequence,
            self.committer.committed,
            self._safe_mode,
            self.fleet.brake,
            len(self.state.inodes),
            len(self.state.chunks),
            self.repair.waiting,
            len(self.repair.missing),
            sum(map(len, self.fleet.corrupt.values())),
            sum(len(server.deletions) for server in self.fleet.servers),
            len(self.state.writers),
            len(self.state.sessions.by_client),
            servers,
            self.state.inodes.replication(1),
            round(now - self._started, 3),
        )

    def _cluster_status(self, peer: Peer, request: msg.Request, _body: msg.ClusterStatus) -> None:
        self.committer.reply(peer, request.id, self.status())

    # ------------------------------------------------------------------------------------------------ chunk servers

    def _register(self, peer: Peer, request: msg.Request, body: msg.Register) -> None:
        if body.cluster and body.cluster != self.state.cluster:
            log.error("%s belongs to cluster %s, not to this one", peer.name, body.cluster.hex())
            raise AuthenticationFailed(
                f"chunk server {body.host}:{body.port} belongs to cluster {body.cluster.hex()}, "
                f"this is cluster {self.state.cluster.hex()}"
            )
        if body.highest_epoch > self.epoch:
            raise NotLeader(f"chunk server {body.host}:{body.port} has seen epoch {body.highest_epoch}")
        server = self.fleet.register(body, self.clock.monotonic())
        peer.state = server
        if self.fleet.brake:
            log.error("deletions are held back: %s", self.fleet.brake)
        log.info("chunk server %s:%d registered with %d disks", body.host, body.port, len(body.disks))
        reply = msg.Registered(self.state.cluster, self.epoch, self.token_clock_ms, self.config.heartbeat_seconds)
        self.committer.reply(peer, request.id, reply)

    def _chunk_report(self, peer: Peer, request: msg.Request, body: msg.ChunkReport) -> None:
        server = self.fleet.by_id.get(body.server)
        if server is not None:
            self.fleet.report(server, body.replicas, body.last)
            if body.last:
                log.info("chunk server %s:%d reported %d replicas", server.host, server.port, server.chunks)
        self.committer.reply(peer, request.id, msg.Done())

    def _heartbeat(self, peer: Peer, request: msg.Request, body: msg.Heartbeat) -> None:
        server = self.fleet.heartbeat(body, self.clock.monotonic())
        if server is None:
            reply = msg.Orders(self.epoch, self.token_clock_ms, (), report_again=True)
        else:
            peer.state = server
            for chunk in body.corrupt:
                log.warning("chunk server %s:%d has a corrupt replica of chunk %d", server.host, server.port, chunk)
            for result in body.finished:
                self._order_finished(server, result)
            if self._withdraw_deletions(server):
                reply = msg.Orders(self.epoch, self.token_clock_ms, (), report_again=True)
            else:
                reply = msg.Orders(self.epoch, self.token_clock_ms, self._orders_for(server))
        self.committer.reply(peer, request.id, reply)

    def disconnected(self, peer: Peer) -> None:
        """A connection ended."""
        if isinstance(peer.state, Server):
            log.info("lost the connection to chunk server %s:%d", peer.state.host, peer.state.port)
            self.fleet.lost_connection(peer.state)

    def _order_number(self) -> int:
        self._next_order += 1
        return self._next_order

    def _order_finished(self, server: Server, result: msg.OrderResult) -> None:
        slot = self._order_slots.pop(result.order, 0)
        deleted = server.ordered.pop(result.order, 0)
        if deleted and not result.error:
            server.deletions.pop(deleted, None)
        if result.error:
            log.warning("chunk server %s:%d could not carry out an order: %s", server.host, server.port, result.error)
        if slot:
            self.repair.finished(slot, result.error, self.clock.monotonic())

    def _withdraw_deletions(self, server: Server) -> bool:
        """Gives up deletions whose reason is gone, for other replicas were lost since they were decided.

        Returns whether good replicas are among them: they count no more, so the server has to report them again.
        """
        withdrawn = [
            chunk
            for chunk in list(server.deletions)[: self.config.deletions_per_heartbeat]
            if not self.repair.may_be_deleted(chunk, server)
        ]
        for chunk in withdrawn:
            del server.deletions[chunk]
        return any(not self.fleet.is_bad(self.state.chunks.slot_of(chunk), server) for chunk in withdrawn)

    def _orders_for(self, server: Server) -> tuple[msg.Order, ...]:
        orders = self._orders.pop(server.number, [])
        orders += [msg.VerifyOrder(self._order_number(), chunk) for chunk in self.fleet.suspects.pop(server.number, [])]
        if not self._safe_mode and not self.fleet.brake:
            for chunk in list(server.deletions)[: self.config.deletions_per_heartbeat]:
                # Kept until the server says that the chunk is gone; one that it cannot delete holds up no other.
                version = server.deletions[chunk] = server.deletions.pop(chunk)
                number = self._order_number()
                server.ordered[number] = chunk
                orders.append(msg.DeleteOrder(number, chunk, version))
            while len(server.ordered) > ORDERED_MAX:
                del server.ordered[next(iter(server.ordered))]
            server.deletions |= server.orphans if server.reported else {}
            if server.reported:
                server.orphans.clear()
        return tuple(orders)

    # -------------------------------------------------------------------------------------------------- housekeeping

    async def _keep_house(self) -> None:
        """Everything that time brings: dead servers, repair, expiry, reclaiming."""
        loop = asyncio.get_running_loop()
        next_expiry = loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS / 5 if self.state.doomed else TICK_SECONDS)
            if self.leads:
                self._tick(self.clock.monotonic())
                if loop.time() >= next_expiry:
                    next_expiry = loop.time() + EXPIRY_SECONDS
                    self._expire(self.clock.monotonic())

    def _tick(self, now: float) -> None:
        for server in self.fleet.tick(now, self.config.server_silent_seconds):
            log.warning("chunk server %s:%d is dead: its chunks are copied from elsewhere", server.host, server.port)
            self._orders.pop(server.number, None)
        self.leases.tick(now)
        self._check_safe_mode()
        if not self._safe_mode or now - self._started > SAFE_MODE_COPY_SECONDS:
            self._repair(now)
        if self.state.doomed and self.committer.submitted - self.committer.committed < DIGEST_RECORDS:
            self._record((op.Reclaim(RECLAIM_ENTRIES),))

    def _check_safe_mode(self) -> None:
        if not self._safe_mode:
            return
        chunks = len(self.state.chunks)
        reported = all(server.reported for server in self.fleet.connected())
        if (
            self.fleet.located >= self.config.safe_mode_ratio * chunks
            and reported
            and (self.fleet.servers or not chunks)
        ):
            self._safe_mode = False
            log.info("safe mode is over: %d of %d chunks are located", self.fleet.located, chunks)

    def _repair(self, now: float) -> None:
        self.repair.scan(SCAN_SLOTS, now)
        for copy in self.repair.plan(now, limit=64):
            number = self._order_number()
            self._order_slots[number] = copy.slot
            while len(self._order_slots) > ORDERED_MAX:
                del self._order_slots[next(iter(self._order_slots))]
            token = self.sign_read(copy.chunk, copy.version)
            sources = tuple(source.address for source in copy.sources)
            order = msg.ReplicateOrder(number, copy.chunk, copy.version, sources, token)
            self._orders.setdefault(copy.target.number, []).append(order)
        if self._safe_mode or self.fleet.brake:
            return
        for removal in self.repair.removals(SCAN_SLOTS, now):
            # From here on it counts no more, or the next look might choose another of the same chunk as well.
            self.fleet.remove(self.state.chunks.slot_of(removal.chunk), removal.server)
            self.fleet.delete(removal.chunk, removal.version, [removal.server])

    def _expire(self, now: float) -> None:
        expired = [
            self.state.inodes.ids[slot]
            for slot, item in self.state.trash.items()
            if item.expires_ns <= self.clock.time_ns()
        ]
        if expired:
            self._record((op.PurgeTrash(tuple(expired[:PURGED_ENTRIES_MAX])),))
        silent = now - self.config.client_silent_seconds
        for client in self.state.writers.clients():
            if self._heard.setdefault(client, now) < silent:
                log.warning("client %s is gone: its open files are closed as they stand", client.hex())
                self._record((op.CloseClient(client),))
                del self._heard[client]
        if len(self._heard) > 10_000:
            self._heard = {client: heard for client, heard in self._heard.items() if heard >= silent}
