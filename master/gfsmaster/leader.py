"""The active master: serves clients and chunk servers while its epoch lasts.

plan -> apply -> log -> answer: a change is planned and applied to memory at once, its record goes to the group commit,
and the answer waits until the record is durable. So does every other answer that might have seen it. If a commit fails,
this object is thrown away with its memory, and the node starts again from the log.

Atomic between awaits: everything from a request to its queued record and parked reply; no handler awaits.
"""

import asyncio
import logging
import stat
from collections.abc import Callable, Coroutine
from typing import Any, Final

from gfsmaster import operations as op
from gfsmaster.commits import Committer
from gfsmaster.config import MasterConfig
from gfsmaster.fleet import Fleet
from gfsmaster.granting import Granting, Limits
from gfsmaster.housekeeping import Housekeeping
from gfsmaster.isolation import Isolation
from gfsmaster.journal import Journal
from gfsmaster.leases import ChunkLease, Leases
from gfsmaster.namespace import WRITE, User
from gfsmaster.oplog import Batch
from gfsmaster.orders import Orders
from gfsmaster.planner import Plan, Planner, check_user
from gfsmaster.queries import Queries, Summarizer
from gfsmaster.registry import Registry
from gfsmaster.repair import Repair
from gfsmaster.state import State
from gfsmaster.tailers import Standby, Tailers
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import (
    Busy,
    GfsError,
    InvalidArgument,
    IsADirectory,
    LeaseLost,
    LogFailed,
    NamespaceError,
    NotLeader,
    NotPermitted,
    PermissionDenied,
    StaleHandle,
    StartupError,
    StateDiverged,
)
from gfsprotocol.rpc import Peer
from gfsprotocol.tokens import ReadToken, sign_grant, sign_read

log = logging.getLogger(__name__)

DIGEST_RECORDS: Final = 1000
"""A state digest is logged after so many records."""
READ_TOKEN_SECONDS: Final = 600
TICK_SECONDS: Final = 0.1
EXPIRY_SECONDS: Final = 5.0
SUMMARY_ENTRIES: Final = 5000
SUMMARIES_MAX: Final = 16
LEASE_MARGIN: Final = 0.25
"""The part of the lease that a leader does not use, against clocks that run at different speeds."""
HEARTBEATS_TO_TELL: Final = 3
"""After so many heartbeats of its own, a chunk server has spoken to a new leader twice."""


class Resigned(Exception):
    """The leadership ended as planned: everything is committed, and the epoch was given back."""


class Leader:
    """An rpc.Service for one epoch. ``run`` returns only by raising why the leadership ended."""

    def __init__(
        self,
        config: MasterConfig,
        clock: Clock,
        token_key: bytes,
        fleet: Fleet,
        state: State,
        journal: Journal,
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
        self.committer = Committer(
            journal, epoch, state.sequence, last_hash, self._appending, self._committed, config.acknowledge == "early"
        )
        self.tailers = Tailers(self.committer, clock, epoch, self._started)
        self.fleet = fleet
        fleet.lead()
        self.registry = Registry(state, fleet, clock)
        self.leases = Leases(config.chunk_lease_seconds)
        self.repair = Repair(state, self.fleet, self.leases, config.repairs_per_server)
        self.orders = Orders(state, fleet, self.repair, config.deletions_per_heartbeat, self.sign_read)
        self.housekeeping = Housekeeping(
            config, state, fleet, self.leases, self.repair, self.orders, self._started, self._record
        )
        self.planner = Planner(state)
        settled_at = self._started + config.chunk_lease_seconds if epoch > 1 else 0.0
        self.granting = Granting(state, self.fleet, self.leases, Limits(config.min_replicas, settled_at))
        self.queries = Queries(state, self.fleet, self.planner, self.sign_read)
        self._tasks: set[asyncio.Task[None]] = set()
        self._summaries: set[asyncio.Task[None]] = set()
        """Those of the tasks that make summaries."""
        self._since_digest = 0
        self._take: Callable[[State, bytes, int], None] | None = None
        """Who waits for a snapshot of the state."""
        self._taken = asyncio.Event()
        self._hands_over = False
        """Whether the leadership is being given back: nothing is changed any more."""
        self._hint = ""
        """Then: the address of who is to follow."""
        self._isolation = Isolation(config.lease_seconds, config.heartbeat_seconds, self._started)
        self.is_cut_off = False
        """Whether it resigns because nobody speaks to it any more."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception that ends this leadership from inside: Resigned, or that a record could not be applied."""
        self._special: dict[type, Callable[[Peer, msg.Request, Any], None]] = {
            msg.AllocateChunk: self._allocate_chunk,
            msg.RenewLease: self._renew_lease,
            msg.ReportCorrupt: self._report_corrupt,
            msg.KeepAlive: self._keep_alive,
            msg.ReleaseBrake: self._release_brake,
            msg.Summarize: self._summarize,
            msg.Handover: self._handover,
        }
        self._from_servers: dict[type, Callable[[Peer, msg.Request, Any], None]] = {
            msg.Register: self._register,
            msg.ChunkReport: self._chunk_report,
            msg.Heartbeat: self._heartbeat,
            msg.ConfirmGrant: self._confirm_grant,
            msg.TailLog: self._tail_log,
        }

    # -------------------------------------------------------------------------------------------------- the epoch

    def beat(self, started: float) -> None:
        """The log was renewed, or appended to, by a call that began at ``started``."""
        self._lease_until = max(self._lease_until, started + self.config.lease_seconds * (1 - LEASE_MARGIN))

    def _beating(self) -> Callable[[], None]:
        started = self.clock.monotonic()
        return lambda: self.beat(started)

    def _appending(self, batch: Batch) -> Callable[[], None]:
        if self._take is not None and batch.last == self.state.sequence and self.may_checkpoint:
            take, self._take = self._take, None
            take(self.state, batch.hash, batch.epoch)
            self._taken.set()
        return self._beating()

    @property
    def sequence(self) -> int:
        return self.state.sequence

    @property
    def may_checkpoint(self) -> bool:
        """Whether this node has to write checkpoints: no standby does."""
        return not self.tailers.status()

    async def snapshot(self, take: Callable[[State, bytes, int], None]) -> None:
        """Calls ``take`` with the state, and the hash and the epoch of the batch that it ends with.

        It does when such a batch goes to the log, which is not said to succeed.
        """
        self._taken.clear()
        self._take = take
        try:
            await self._taken.wait()
        finally:
            self._take = None

    def _committed(self, batch: Batch) -> None:
        self.tailers.committed(batch)

    @property
    def is_valid(self) -> bool:
        """Whether this node may still answer as the leader, by its own monotonic clock."""
        return self.clock.monotonic() < self._lease_until and not self._ended.done()

    @property
    def leads(self) -> bool:
        """Whether it may change anything as well: not while it hands over."""
        return not self._hands_over and self.is_valid

    @property
    def token_clock_ms(self) -> int:
        return int((self.clock.monotonic() - self._started) * 1000)

    def begin(self, operations: tuple[op.AnyOperation, ...]) -> None:
        """The epoch's first record."""
        self._record(operations)

    async def run(self, *beside: Coroutine[Any, Any, None]) -> None:
        """Commits and keeps house until a failure is raised: LogFenced, LogFailed, Resigned, or a bug.

        ``beside`` is run as long as that.
        """
        async with asyncio.TaskGroup() as tasks:
            for coroutine in beside:
                tasks.create_task(coroutine)
            tasks.create_task(self.committer.run())
            tasks.create_task(self._keep_house())
            tasks.create_task(self._renew())
            tasks.create_task(self._watch_end())
            if len(self.config.masters) > 1:
                tasks.create_task(self._watch_isolation())

    async def _watch_end(self) -> None:
        await self._ended

    async def _watch_isolation(self) -> None:
        """Gives the epoch back when nobody speaks to us any more, so that a node that is heard can lead."""
        while self._hands_over or not self._isolation.is_cut_off(self.clock.monotonic()):  # noqa: ASYNC110 - a clock
            await asyncio.sleep(TICK_SECONDS)
        log.warning("%s was not spoken to for %.1f s: it may be cut off", self.config.node, self._isolation.limit)
        self.is_cut_off = True
        try:
            await self.resign()
        except TimeoutError as error:
            raise LogFailed("the log took too long for the last records of a leader that is cut off") from error

    async def _renew(self) -> None:
        """A sign of life in the log four times a lease; LogFenced tells that another master leads."""
        while True:
            if not self._hands_over:
                on_success = self._beating()
                await self._journal.renew(self.epoch)
                on_success()
            await asyncio.sleep(self.config.lease_seconds / 4)

    def end(self) -> None:
        """No answer leaves any more; what waits is for the next leader."""
        for task in self._tasks:
            task.cancel()
        if self._ended.done() and not self._ended.cancelled():
            self._ended.exception()  # seen: a group that another failure ended first has not waited for it

    async def hand_over(self, to: str) -> Standby:
        """Gives the epoch back to a standby that has everything; who that is.

        NotFound if no such standby follows, Busy if it does not catch up in time: then this leadership goes on.
        """
        if self._hands_over:
            raise Busy("the leadership is being handed over already")
        successor = self.tailers.choose(to)
        self._hands_over, self._hint = True, successor.address
        try:
            async with asyncio.timeout(self.config.lease_seconds / 2):
                await self.committer.drained()
                await self.tailers.caught_up(successor)
        except TimeoutError as error:
            self._hands_over = False
            raise Busy(f"{successor.node} does not catch up: the leadership stays here") from error
        await self._resign(successor.node)
        return successor

    async def resign(self) -> None:
        """Commits what was promised and gives the epoch back, to whoever takes it."""
        self._hands_over = True
        async with asyncio.timeout(self.config.lease_seconds):
            await self.committer.drained()
        await self._resign("")

    async def _resign(self, successor: str) -> None:
        await self._journal.resign(self.epoch, successor)
        self.tailers.farewell(successor)
        self._end_by(Resigned())

    def _end_by(self, reason: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(reason)

    # ----------------------------------------------------------------------------------------------------- requests

    def handle(self, peer: Peer, request: msg.Request) -> None:
        """Answers a request, or parks the answer until the log has what it reflects."""
        self._isolation.heard()
        if isinstance(request.body, msg.ClusterStatus):
            peer.respond(request.id, self.status())
            return
        if not self.is_valid:
            raise NotLeader(f"{self.config.node} has not renewed its leadership in time")
        if self._hands_over and not isinstance(request.body, msg.TailLog | msg.Heartbeat):
            raise NotLeader(f"{self.config.node} has handed over", hint=self._hint)
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
            result = self._plan_and_record(request, client)
        self.committer.reply(peer, request.id, result)

    def _plan_and_record(self, request: msg.Request, client: bytes) -> msg.ReplyBody:
        plan: Plan
        try:
            if isinstance(request.body, msg.Close | msg.RecordLength):
                self._check_lengths(request.body)
            plan = self.planner.plan(request.body, request.user, client, self._now_ns())
        except NamespaceError as error:
            plan = msg.ErrorReply(error.code, error.message, error.hint)
        if isinstance(plan, tuple):
            result = self._record(plan, client, request.call)
            if isinstance(request.body, msg.Close):
                self._end_leases(request.body.inode)
            return result
        # Of a retry an earlier transmission may still be under way: when it comes it gets this answer too. And a client
        # that was told of a success relies on being known.
        is_success = not isinstance(plan, msg.ErrorReply)
        if (request.call is not None and request.call.retry) or (
            is_success and not self.state.sessions.is_fresh(client, self._now_ns())
        ):
            return self._record((op.Answered(plan),), client, request.call)
        return plan

    def _known_result(self, client: bytes, call: msg.Call | None) -> msg.ReplyBody | None:
        if call is None:
            raise InvalidArgument("a change needs a call number")
        self.committer.check_room()
        self.housekeeping.heard[client] = self.clock.monotonic()
        return self.state.sessions.result(client, call.number, call.retry and not call.unknown_is_new)

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
            self._end_by(error)
            raise StateDiverged(f"a planned change could not be applied: {type(error).__name__}: {error}") from error
        self.committer.submit(record)
        self.state.revised.clear()
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
        if self._was_never_made(self.state.inodes.chunk_at(inode, body.index)):
            replaced = self.state.chunks.ids[self.state.inodes.chunk_at(inode, body.index)]
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

    def _was_never_made(self, slot: int) -> bool:
        """Whether a chunk was allocated by a leader before, and no server has made it: nobody wrote anything to it.

        That leader was gone before its grant was used, and the servers refuse it now. Every server that is known must
        have told twice since we lead: it knew of us from the first time on, and told of all from before by the second.
        """
        if not slot or self.state.chunks.length[slot] or self.state.chunks.version[slot] != 1:
            return False
        fleet = self.fleet
        if self.leases.last(slot) is not None or fleet.all_holders(slot) or fleet.newest_version(slot):
            return False
        if slot in fleet.corrupt or slot in fleet.stale:
            return False
        told = self._started + HEARTBEATS_TO_TELL * self.config.heartbeat_seconds
        return all(server.connected and server.reported and server.heard > told for server in self.fleet.servers)

    def _may_cut(self, inode: int, client: bytes, now: float) -> bool:
        """Whether no one else can have acknowledged bytes in this file that are not recorded."""
        settled = now - self._started > self.config.chunk_lease_seconds
        return not self.state.writers.others(inode, client) and settled

    def _renew_lease(self, peer: Peer, request: msg.Request, body: msg.RenewLease) -> None:
        now = self.clock.monotonic()
        self.housekeeping.heard[peer.hello.name] = now
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
        self.housekeeping.heard[peer.hello.name] = self.clock.monotonic()
        self.committer.reply(peer, request.id, msg.Done())

    def _release_brake(self, peer: Peer, request: msg.Request, _body: msg.ReleaseBrake) -> None:
        if request.user and request.user[0]:
            raise NotPermitted("only root may release the brake")
        if self.fleet.brake:
            log.warning("the brake on deletions was released by %s; it was: %s", peer.name, self.fleet.brake)
        self.committer.reply(peer, request.id, msg.Count(self.fleet.release_brake()))

    def _handover(self, peer: Peer, request: msg.Request, body: msg.Handover) -> None:
        if request.user and request.user[0]:
            raise NotPermitted("only root may hand the leadership over")
        self._start(self._run_handover(peer, request.id, body.to))

    async def _run_handover(self, peer: Peer, request_id: int, to: str) -> None:
        try:
            successor = await self.hand_over(to)
        except (StartupError, GfsError) as error:
            if isinstance(error, StartupError):
                self._end_by(error)
            peer.respond_error(request_id, error)
            return
        log.info("%s handed epoch %d over to %s", self.config.node, self.epoch, successor.node)
        peer.respond(request_id, msg.HandedOver(successor.node, successor.address))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tail_log(self, peer: Peer, request: msg.Request, body: msg.TailLog) -> None:
        if peer.hello.role != "master":
            raise PermissionDenied("TailLog is for masters")
        self.tailers.ask(peer, request, body)

    def _summarize(self, peer: Peer, request: msg.Request, body: msg.Summarize) -> None:
        if len(self._summaries) >= SUMMARIES_MAX:
            raise Busy(f"{SUMMARIES_MAX} summaries are being made already")
        slot = self.planner.namespace.find(request.user, body.base, body.path)
        summarizer = Summarizer(self.state, request.user, slot, self.planner.namespace.allowed)
        task = self._start(self._run_summary(peer, request.id, summarizer))
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
            "leader" if self.is_valid else "standby",
            self.epoch,
            self.config.address if self.is_valid else "",
            self.state.sequence,
            self.committer.committed,
            self.housekeeping.safe_mode,
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
            self.tailers.status(),
        )

    # ------------------------------------------------------------------------------------------------ chunk servers

    def _register(self, peer: Peer, request: msg.Request, body: msg.Register) -> None:
        if body.highest_epoch > self.epoch:
            raise NotLeader(f"chunk server {body.host}:{body.port} has seen epoch {body.highest_epoch}")
        self.registry.register(peer, body)
        if self.fleet.brake:
            log.error("deletions are held back: %s", self.fleet.brake)
        reply = msg.Registered(self.state.cluster, self.epoch, self.token_clock_ms, self.config.heartbeat_seconds)
        self.committer.reply(peer, request.id, reply)

    def _chunk_report(self, peer: Peer, request: msg.Request, body: msg.ChunkReport) -> None:
        self.registry.report(body)
        self.committer.reply(peer, request.id, msg.Done())

    def _heartbeat(self, peer: Peer, request: msg.Request, body: msg.Heartbeat) -> None:
        server = self.registry.heartbeat(peer, body)
        orders: tuple[msg.Order, ...] = ()
        if server is not None:
            for result in body.finished:
                if result.error:
                    log.warning(
                        "chunk server %s:%d could not carry out an order: %s", server.host, server.port, result.error
                    )
                self.orders.finished(server, result, self.clock.monotonic())
            if self.orders.withdraw(server):
                server = None
            else:
                orders = self.orders.take(server, self.housekeeping.may_delete)
        reply = msg.Orders(self.epoch, self.token_clock_ms, orders, report_again=server is None)
        self.committer.reply(peer, request.id, reply)

    def disconnected(self, peer: Peer) -> None:
        """A connection ended."""
        self.tailers.disconnected(peer)
        self.registry.disconnected(peer)

    # -------------------------------------------------------------------------------------------------- housekeeping

    async def _keep_house(self) -> None:
        loop = asyncio.get_running_loop()
        next_expiry = loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS / 5 if self.state.doomed else TICK_SECONDS)
            if not self.leads:
                continue
            now = self.clock.monotonic()
            self.tailers.tick(self.config.lease_seconds / 4)
            self.housekeeping.tick(now, self.committer.submitted - self.committer.committed < DIGEST_RECORDS)
            if loop.time() >= next_expiry:
                next_expiry = loop.time() + EXPIRY_SECONDS
                self.housekeeping.expire(now, self.clock.time_ns())
