"""One master node: one process that follows the log, and leads when it wins an election.

    follow ──the leader's beat stood still for a lease, and the epoch was won──▶ lead
    lead ──LogFenced, LogFailed, or asked to stop──▶ everything is dropped, follow from the log again

No wall clocks are compared: a standby watches the leader's beat counter in the log's database on its own monotonic
clock. The node listens from the start; while it follows, it answers clients with the leader's address.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import msgspec
from aiohttp import web

from gfsmaster import operations as op
from gfsmaster.config import MasterConfig
from gfsmaster.leader import Leader
from gfsmaster.oplog import Leadership, OperationLog
from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.channel import Clock, SystemClock
from gfsprotocol.errors import (
    AddressInUse,
    AuthenticationFailed,
    ConfigurationError,
    ConnectionLost,
    GfsError,
    LogFailed,
    LogFenced,
    NotLeader,
    SafeMode,
)
from gfsprotocol.network import RPC_PATH, server_log, upgrade
from gfsprotocol.settings import read_secret
from gfsprotocol.tokens import client_key, server_key, token_key
from gfsstandby.follower import Follower

log = logging.getLogger(__name__)

PEERS_MAX = 4096
ROOT_MODE = 0o1777
"""The root of a new cluster, like /tmp: anyone may begin, no one may remove another's."""


class Node:
    """A master node with its listening port."""

    def __init__(self, config: MasterConfig, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        secret = read_secret(config.secret_file)
        self._keys = {"client": client_key(secret), "chunkserver": server_key(secret), "master": server_key(secret)}
        self._token_key = token_key(secret)
        self._journal = OperationLog(config.journal, config.node)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._leader: Leader | None = None
        self._follower = Follower(self._journal, self._executor)
        self._leadership = Leadership(0, "", "", 0)
        self._peers: set[rpc.Peer] = set()
        self._peer_tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._log_is_empty = False

    # ------------------------------------------------------------------------------------------------------- service

    def handle(self, peer: rpc.Peer, request: msg.Request) -> None:
        """rpc.Service: the leader's, or the few things that a standby answers."""
        if self._leader is not None:
            self._leader.handle(peer, request)
            return
        match request.body:
            case msg.ClusterStatus():
                peer.respond(request.id, self._standby_status())
            case msg.Register():
                cluster = self._follower.state.cluster
                if not cluster:
                    raise SafeMode(f"{self.config.node} has not read the log yet")
                peer.respond(request.id, msg.Registered(cluster, 0, 0, self.config.heartbeat_seconds))
            case msg.Heartbeat():
                peer.respond(request.id, msg.Orders(0, 0, ()))
            case msg.ChunkReport():
                peer.respond(request.id, msg.Done())
            case _:
                raise NotLeader(f"{self.config.node} is a standby", hint=self._leadership.address)

    def notice(self, peer: rpc.Peer, body: msg.NoticeBody) -> None:
        """rpc.Service: no notices are defined."""

    def _standby_status(self) -> msg.Status:
        state = self._follower.state
        return msg.Status(
            cluster=state.cluster,
            node=self.config.node,
            role="standby",
            epoch=self._leadership.epoch,
            leader=self._leadership.address,
            sequence=state.sequence,
            committed_sequence=state.sequence,
            safe_mode=False,
            brake="",
            inodes=len(state.inodes),
            chunks=len(state.chunks),
            under_replicated=0,
            missing=0,
            corrupt_replicas=0,
            pending_deletions=0,
            open_files=len(state.writers),
            clients=len(state.sessions.by_client),
            servers=(),
        )

    def _key_of_role(self, role: str) -> bytes:
        key = self._keys.get(role)
        if key is None:
            raise AuthenticationFailed(f"'{role}' is not a role that talks to a master")
        return key

    async def _serve_peer(self, request: web.Request) -> web.StreamResponse:
        if len(self._peers) >= PEERS_MAX:
            return web.Response(status=503, text="too many connections\n")
        try:
            channel, response = await upgrade(request)
        except ConnectionLost as error:
            log.info("%s", error)
            return web.Response()
        try:
            peer = await rpc.accept(channel, "master", self.config.node.encode(), self._key_of_role, self)
        except GfsError as error:
            log.warning("refused a connection from %s: %s", channel.peer, error)
            return response
        self._peers.add(peer)
        try:
            await peer.run()
        finally:
            self._peers.discard(peer)
            if self._leader is not None:
                self._leader.disconnected(peer)
        return response

    async def _serve_status(self, _request: web.Request) -> web.Response:
        status = self._leader.status() if self._leader is not None else self._standby_status()
        shown = {field: getattr(status, field) for field in status.__struct_fields__}
        shown["cluster"] = status.cluster.hex()
        return web.json_response(body=msgspec.json.encode(shown))

    async def _serve_health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    # ----------------------------------------------------------------------------------------------------- the roles

    async def run(self) -> int:
        """Listens and plays its role until asked to stop. A StartupError says why it cannot."""
        loop = asyncio.get_running_loop()
        try:
            self._log_is_empty = await loop.run_in_executor(self._executor, self._journal.prepare, self.config.genesis)
            if self._log_is_empty and not self.config.genesis:
                log.info("the log is empty: waiting for the master that begins the cluster")
            runner = await self._listen()
            try:
                await self._play()
            finally:
                await self._close_peers()
                await runner.cleanup()
        finally:
            self._executor.shutdown()
            self._journal.close()
        return 0

    def stop(self) -> None:
        """Asks :meth:`run` to end."""
        self._stopping.set()

    async def _listen(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get(RPC_PATH, self._serve_peer)
        app.router.add_get("/status", self._serve_status)
        app.router.add_get("/healthz", self._serve_health)
        runner = web.AppRunner(app, access_log=None, logger=server_log, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.config.host, self.config.port, backlog=1024).start()
        except OSError as error:
            await runner.cleanup()
            raise AddressInUse(f"cannot listen on {self.config.address}: {error.strerror or error}") from error
        log.info("%s listens on %s", self.config.node, self.config.address)
        return runner

    async def _play(self) -> None:
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                role = asyncio.create_task(self._follow_and_lead())
                await asyncio.wait({role, stopped}, return_when=asyncio.FIRST_COMPLETED)
                given_up = 0
                if not role.done():
                    given_up = await self._stop_leading()
                    role.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await role
                if given_up:
                    await self._resign(given_up)
        finally:
            stopped.cancel()

    async def _follow_and_lead(self) -> None:
        won, started = await self._follow()
        await self._lead(won, started)

    async def _follow(self) -> tuple[Leadership, float]:
        """Tails the log until an election is won: the new leadership, and when we asked for it."""
        patience = random.Random()  # noqa: S311 - spreads candidates, guards nothing
        seen = Leadership(-1, "", "", -1)
        still_since = self.clock.monotonic()
        while True:
            try:
                current = await self._look()
                now = self.clock.monotonic()
                if (current.epoch, current.beat) != (seen.epoch, seen.beat):
                    seen, still_since = current, now
                won = await self._campaign(current, now - still_since)
                if won is not None:
                    return won, now
            except LogFailed as error:
                # Reading promises nothing to anyone, and an election of unknown outcome is one that we did not win.
                log.warning("%s waits for the journal: %s", self.config.node, error)
                seen = Leadership(-1, "", "", -1)
                await asyncio.sleep(self.config.lease_seconds)
            await asyncio.sleep(self.config.lease_seconds / 10 * patience.uniform(0.5, 1.0))

    async def _look(self) -> Leadership:
        """Who leads, and all that is committed so far."""
        loop = asyncio.get_running_loop()
        current = await loop.run_in_executor(self._executor, self._journal.leadership)
        self._leadership = current
        await self._follower.catch_up()
        return current

    async def _campaign(self, current: Leadership, silent: float) -> Leadership | None:
        """Tries to win the next epoch if no one leads, or the leader has been silent for a lease."""
        may_lead = self._follower.state.sequence > 0 or self.config.genesis
        if not may_lead or (current.holder and silent < self.config.lease_seconds):
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._journal.campaign, current, self.config.address)

    async def _lead(self, won: Leadership, started: float) -> None:
        """Serves one epoch to its end."""
        try:
            await self._follower.catch_up()
        except LogFailed as failure:
            log.warning("%s cannot lead: %s", self.config.node, failure)
            return
        follower = self._follower
        log.info("%s leads epoch %d from record %d on", self.config.node, won.epoch, follower.state.sequence)
        gc.freeze()
        leader = Leader(
            self.config,
            self.clock,
            self._token_key,
            follower.state,
            self._journal,
            self._executor,
            won.epoch,
            follower.last_hash,
            started,
        )
        self._leadership = won
        try:
            leader.begin(self._first_operations(won.epoch))
            self._leader = leader
            await leader.run()
        except* (LogFenced, LogFailed) as group:
            for error in group.exceptions:
                log.warning("%s leads no more: %s", self.config.node, error)
        finally:
            self._leader = None
            leader.end()
            self._follower = Follower(self._journal, self._executor)
            await self._close_peers()

    def _first_operations(self, epoch: int) -> tuple[op.AnyOperation, ...]:
        begin = op.BeginEpoch(epoch, self.config.node)
        if self._follower.state.sequence:
            return (begin,)
        log.info("%s begins a new cluster", self.config.node)
        config = self.config
        genesis = op.Genesis(
            os.urandom(16), op.LOG_FORMAT, ROOT_MODE, os.getuid(), os.getgid(), config.replication, config.chunk_bytes
        )
        return (genesis, begin)

    async def _stop_leading(self) -> int:
        """Takes no more requests, and commits what was promised; the epoch to resign, or 0."""
        leader = self._leader
        if leader is None:
            return 0
        self._leader = None
        try:
            async with asyncio.timeout(self.config.lease_seconds):
                await leader.committer.drained()
        except (LogFenced, LogFailed, TimeoutError) as error:
            log.warning("%s could not commit everything before it stopped: %s", self.config.node, error)
            return 0
        return leader.epoch

    async def _resign(self, epoch: int) -> None:
        """Gives the epoch back: no one needs to wait for the lease."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, self._journal.resign, epoch)
        except LogFailed as error:
            log.warning("%s could not give its epoch back: %s", self.config.node, error)

    async def _close_peers(self) -> None:
        """Clients and chunk servers come back by themselves, here or at the leader."""
        await asyncio.gather(*(peer.channel.close() for peer in list(self._peers)), return_exceptions=True)


def check_port(config: MasterConfig) -> None:
    """ConfigurationError if the host is not an address of this machine."""
    try:
        socket.getaddrinfo(config.host, config.port)
    except OSError as error:
        raise ConfigurationError(f"setting 'host': '{config.host}' cannot be resolved: {error.strerror}") from error


def run(config: MasterConfig) -> int:
    """Runs a master node until SIGTERM or SIGINT; returns the exit code. StartupError if it cannot run."""
    import uvloop

    check_port(config)

    async def main() -> int:
        node = Node(config, SystemClock())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, node.stop)
        return await node.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
