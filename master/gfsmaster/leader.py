"""The active master: serves clients and chunk servers while its epoch lasts.

plan -> apply -> log -> answer: a change is planned and applied to memory at once, its record goes to the group commit,
and the answer waits until the record is durable. So does every other answer that might have seen it. If a commit fails,
this object is thrown away with its memory, and the node starts again from the log.

Atomic between awaits: everything from a request to its queued record and parked reply; no handler awaits.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from gfsmaster import operations as op
from gfsmaster.changes import DIGEST_RECORDS, Changes
from gfsmaster.chunk_requests import ChunkRequests
from gfsmaster.commits import Committer
from gfsmaster.config import MasterConfig
from gfsmaster.fleet import Fleet
from gfsmaster.housekeeping import Housekeeping
from gfsmaster.isolation import Isolation
from gfsmaster.journal import Journal
from gfsmaster.leases import Leases
from gfsmaster.lingering import Lingering
from gfsmaster.measures import Measures
from gfsmaster.namespace_requests import NamespaceRequests
from gfsmaster.notices import Notices
from gfsmaster.oplog import Batch
from gfsmaster.orders import Orders
from gfsmaster.planner import Planner, check_user
from gfsmaster.queries import Queries
from gfsmaster.repair import Repair
from gfsmaster.server_requests import ServerRequests
from gfsmaster.state import State
from gfsmaster.summaries import Summaries
from gfsmaster.tailers import Standby, Tailers
from gfsmaster.term import Term
from gfsmaster.watches import Watches
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import (
    Busy,
    GfsError,
    LogFailed,
    NotLeader,
    NotPermitted,
    PermissionDenied,
    StartupError,
)
from gfsprotocol.rpc import Peer

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.1
EXPIRY_SECONDS: Final = 5.0
LEASE_MARGIN: Final = 0.25
"""The part of the lease that a leader does not use, against clocks that run at different speeds."""


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
        measures: Measures | None = None,
    ) -> None:
        """``lease_started`` is the monotonic time just before the epoch was won."""
        self.measures = measures or Measures()
        self.config = config
        self.clock = clock
        self.state = state
        self.epoch = epoch
        self.term = Term(epoch, clock, token_key, clock.monotonic())
        self._lease_until = 0.0
        self.beat(lease_started)
        self._journal = journal
        self.committer = Committer(
            journal,
            epoch,
            state.sequence,
            last_hash,
            self._appending,
            self._committed,
            config.acknowledge == "early",
            self.measures,
        )
        self.tailers = Tailers(self.committer, clock, self.term)
        self.fleet = fleet
        fleet.lead()
        settled_at = self.term.started + config.chunk_lease_seconds if epoch > 1 else 0.0
        self.leases = Leases(config.chunk_lease_seconds, settled_at)
        self.repair = Repair(state, self.fleet, self.leases, config.repairs_per_server)
        self.orders = Orders(state, fleet, self.repair, config.deletions_per_heartbeat, self.term.sign_read)
        self.planner = Planner(state)
        self.lingering = Lingering(state, self.term.started)
        if epoch > 1:
            self._doubt()
        watches: Watches[Peer] = Watches(state, self.planner.namespace, self._doubt)
        self.notices = Notices(watches, self.committer)
        self.changes = Changes(
            state, self.committer, clock, fleet, self.leases, self.repair, self._hears, self._end_by, watches.applied
        )
        self._is_kept = watches.others_keep
        self.housekeeping = Housekeeping(
            config,
            state,
            fleet,
            self.leases,
            self.repair,
            self.orders,
            self.term.started,
            self._record_removal,
            self.measures,
        )
        self.queries = Queries(state, self.fleet, self.planner.namespace, self.term.sign_read)
        self.chunks = ChunkRequests(
            config,
            clock,
            self.term,
            state,
            fleet,
            self.leases,
            self.planner,
            self.changes,
            self.committer,
            self._hears,
        )
        self.names = NamespaceRequests(
            clock,
            state,
            self.planner,
            self.changes,
            self.chunks,
            self.lingering,
            watches.others_keep,
            self.committer,
            self.measures,
        )
        self.servers = ServerRequests(
            config,
            clock,
            self.term,
            state,
            fleet,
            self.orders,
            self.housekeeping,
            self.committer,
            self.measures,
        )
        self.summaries = Summaries(state, self.planner.namespace, self.committer, self.measures)
        self._tasks: set[asyncio.Task[None]] = set()
        self._take: Callable[[State, bytes, int], None] | None = None
        """Who waits for a snapshot of the state."""
        self._taken = asyncio.Event()
        self._hands_over = False
        """Whether the leadership is being given back: nothing is changed any more."""
        self._hint = ""
        """Then: the address of who is to follow."""
        self._isolation = Isolation(config.lease_seconds, config.heartbeat_seconds, self.term.started)
        self.is_cut_off = False
        """Whether it resigns because nobody speaks to it any more."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception that ends this leadership from inside: Resigned, or that a record could not be applied."""
        self._special: dict[type, Callable[[Peer, msg.Request, Any], None]] = {
            msg.AllocateChunk: self.chunks.allocate_chunk,
            msg.RenewLease: self.chunks.renew_lease,
            msg.ReportCorrupt: self.chunks.report_corrupt,
            msg.KeepAlive: self._keep_alive,
            msg.Watch: self._watch,
            msg.ReleaseBrake: self._release_brake,
            msg.Summarize: self.summaries.summarize,
            msg.Handover: self._handover,
        }
        self._from_servers: dict[type, Callable[[Peer, msg.Request, Any], None]] = {
            msg.Register: self.servers.register,
            msg.ChunkReport: self.servers.chunk_report,
            msg.Heartbeat: self.servers.heartbeat,
            msg.ConfirmGrant: self.chunks.confirm_grant,
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
        self.notices.tell()
        self.tailers.committed(batch)

    @property
    def is_valid(self) -> bool:
        """Whether this node may still answer as the leader, by its own monotonic clock."""
        return self.clock.monotonic() < self._lease_until and not self._ended.done()

    @property
    def leads(self) -> bool:
        """Whether it may change anything as well: not while it hands over."""
        return not self._hands_over and self.is_valid

    def begin(self, operations: tuple[op.AnyOperation, ...]) -> None:
        """The epoch's first record."""
        self.changes.record(operations)

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
        self.summaries.end()
        self.notices.close()
        self.tailers.close()
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
        self.notices.farewell()
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
        self.notices.begin(peer)
        try:
            if peer.hello.role == "client":
                self._client_request(peer, request)
            else:
                self._server_request(peer, request)
        except GfsError as error:
            self.measures.failures[type(request.body), error.code] += 1
            self.committer.reply(peer, request.id, msg.ErrorReply(error.code, error.message, error.hint))
        finally:
            self.notices.end()

    def notice(self, peer: Peer, body: msg.NoticeBody) -> None:
        """No notices are defined for a leader."""

    def _client_request(self, peer: Peer, request: msg.Request) -> None:
        body = request.body
        if request.user:
            check_user(request.user)
        self.planner.namespace.confined = request.confined
        if self.queries.answers(body):
            self.committer.reply(peer, request.id, self.queries.answer(body, request.user))
            return
        special = self._special.get(type(body))
        if special is not None:
            special(peer, request, body)
        elif self.planner.plans(body):
            self.names.change(peer, request)
        else:
            raise PermissionDenied(f"{type(body).__name__} is not for clients")

    def _server_request(self, peer: Peer, request: msg.Request) -> None:
        handler = self._from_servers.get(type(request.body))
        if handler is None:
            raise PermissionDenied(f"{type(request.body).__name__} is not for chunk servers")
        handler(peer, request, request.body)

    def _doubt(self) -> None:
        self.lingering.doubt(self.clock.monotonic())

    def _hears(self, client: bytes) -> None:
        self.housekeeping.heard[client] = self.clock.monotonic()

    # ---------------------------------------------------------------------------------------------- other requests

    def _keep_alive(self, peer: Peer, request: msg.Request, _body: msg.KeepAlive) -> None:
        # Not behind a slow commit: it reflects nothing, and tells a client that watches that it knows what is durable.
        self._hears(peer.hello.name)
        peer.respond(request.id, msg.Done(), self.committer.committed)

    def _watch(self, peer: Peer, request: msg.Request, _body: msg.Watch) -> None:
        self._hears(peer.hello.name)
        self.notices.watch(peer)
        peer.respond(request.id, msg.Done(), self.committer.committed)

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
            self.measures.failures[msg.Handover, error.code] += 1
            peer.respond_error(request_id, error)
            return
        log.info("%s handed epoch %d over to %s", self.config.node, self.epoch, successor.node)
        peer.respond(request_id, msg.HandedOver(successor.node, successor.address))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tail_log(self, peer: Peer, request: msg.Request, body: msg.TailLog) -> None:
        if peer.hello.role != "master":
            raise PermissionDenied("TailLog is for masters")
        self.tailers.ask(peer, request, body)

    def status(self) -> msg.Status:
        now = self.clock.monotonic()
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
            tuple(server.status(now) for server in self.fleet.servers),
            self.state.inodes.replication(1),
            round(now - self.term.started, 3),
            self.tailers.status(),
        )

    def disconnected(self, peer: Peer) -> None:
        """A connection ended."""
        self.notices.disconnected(peer)
        self.tailers.disconnected(peer)
        self.servers.disconnected(peer)

    # -------------------------------------------------------------------------------------------------- housekeeping

    def _record_removal(self, operations: op.Operations) -> None:
        """What time brings may take the last name from files that somebody has open."""
        self.changes.record(self.lingering.keep(operations, self._is_kept, self.clock.monotonic()))

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
            if over := self.lingering.due(now):
                self.changes.record(over)
            if loop.time() >= next_expiry:
                next_expiry = loop.time() + EXPIRY_SECONDS
                self.housekeeping.expire(now, self.clock.time_ns())
