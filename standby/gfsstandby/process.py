"""A master node as a process: its log, its listening port, its signals."""

import asyncio
import contextlib
import logging
import random
import signal
import socket
from typing import Final

import aiohttp
import msgspec
from aiohttp import web

from gfsmaster.config import MasterConfig
from gfsmaster.databases import Access
from gfsmaster.journal import ThreadedJournal
from gfsmaster.measures import METRICS, Measures
from gfsmaster.oplog import Leadership, OperationLog
from gfsprotocol import metrics, network, rpc
from gfsprotocol.channel import Channel, Clock, SystemClock
from gfsprotocol.errors import AddressInUse, ConfigurationError, ConnectionLost, GfsError, LogFailed
from gfsprotocol.network import RPC_PATH, server_log, upgrade
from gfsprotocol.settings import read_secret
from gfsstandby.checkpointer import Checkpointer
from gfsstandby.metrics import read
from gfsstandby.node import Node

log = logging.getLogger(__name__)

PEERS_MAX: Final = 4096
RETRY_SECONDS: Final = 0.5
"""Between two attempts to reach the database at the start."""
TELL_SECONDS: Final = 5.0
"""Between two log lines about that."""


class MasterProcess:
    """A node with its journal and its port."""

    def __init__(self, config: MasterConfig, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self._secret = read_secret(config.secret_file)
        self._journal = ThreadedJournal(OperationLog(config.journal, config.node))
        self._checkpointer: Checkpointer | None = None
        self._measures = Measures()
        self._registry = metrics.registry(METRICS, lambda: read(self.node))
        self._session: aiohttp.ClientSession
        self._stopping = asyncio.Event()
        self.node: Node

    def stop(self) -> None:
        """Asks :meth:`run` to end."""
        self._stopping.set()

    async def run(self) -> int:
        """Listens and plays its role until asked to stop. A StartupError says why it cannot."""
        try:
            is_empty = await self._prepare()
            if self._stopping.is_set():
                return 0
            if is_empty and not self.config.genesis:
                log.info("the log is empty: waiting for the master that begins the cluster")
            await self._introduce()
            self._checkpointer = Checkpointer(
                OperationLog(self.config.journal, self.config.node, Access.BACKGROUND),
                self.config.node,
                self._clock,
                self.config.checkpoint_records,
                self.config.checkpoint_seconds,
                self._measures,
            )
            async with aiohttp.ClientSession() as self._session:
                self.node = Node(
                    self.config,
                    self._clock,
                    self._secret,
                    self._journal,
                    self._dial,
                    self._end_holder,
                    random.Random(),  # noqa: S311 - spreads candidates, guards nothing
                    self._checkpointer,
                    self._measures,
                )
                await self._run_node()
        finally:
            if self._checkpointer is not None:
                self._checkpointer.close()
            await self._journal.close()
        return 0

    async def _introduce(self) -> None:
        try:
            await self._journal.run(self._journal.log.introduce)
        except LogFailed as error:
            # To follow needs nothing written, and who stands for election tries it again.
            log.info("%s could not say in the journal which process it is: %s", self.config.node, error)

    async def _prepare(self) -> bool:
        """Whether the log is empty. Waits for a database that is away, as it may be when all hosts start at once."""
        give_up, told = self._clock.monotonic() + self.config.journal_wait_seconds, -TELL_SECONDS
        while True:
            try:
                return await self._journal.run(self._journal.log.prepare, self.config.genesis)
            except LogFailed as error:
                now = self._clock.monotonic()
                if now >= give_up or not self._journal.log.is_away(error):
                    raise
                if now - told >= TELL_SECONDS:
                    told = now
                    log.warning("%s waits up to %.0f s for its start: %s", self.config.node, give_up - now, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(RETRY_SECONDS, give_up - now)):
                    await self._stopping.wait()
                    return True

    async def _run_node(self) -> None:
        runner = await self._listen()
        playing = asyncio.create_task(self.node.run())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            self.node.stop()
            await playing
        finally:
            stopping.cancel()
            playing.cancel()
            await asyncio.gather(playing, stopping, return_exceptions=True)
            await runner.cleanup()

    async def _dial(self, address: str) -> Channel:
        return await network.dial(self._session, address, self.config.lease_seconds)

    async def _end_holder(self, holder: Leadership) -> str:
        return await self._journal.run(self._journal.log.end_holder, holder)

    # -------------------------------------------------------------------------------------------------- the port

    async def _listen(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get(RPC_PATH, self._serve_peer)
        app.router.add_get("/status", self._serve_status)
        app.router.add_get("/digest", self._serve_digest)
        app.router.add_get("/healthz", self._serve_health)
        app.router.add_get(metrics.METRICS_PATH, self._serve_metrics)
        runner = web.AppRunner(app, access_log=None, logger=server_log, shutdown_timeout=1.0)
        await runner.setup()
        try:
            port = self.config.listen_port or self.config.port
            await web.TCPSite(runner, self.config.host, port, backlog=1024).start()
        except OSError as error:
            await runner.cleanup()
            raise AddressInUse(f"cannot listen on {self.config.address}: {error.strerror or error}") from error
        log.info("%s listens on %s", self.config.node, self.config.address)
        return runner

    async def _serve_peer(self, request: web.Request) -> web.StreamResponse:
        if self.node.connections >= PEERS_MAX:
            self._measures.refused_connections += 1
            return web.Response(status=503, text="too many connections\n")
        try:
            channel, response = await upgrade(request)
        except ConnectionLost as error:
            log.info("%s", error)
            return web.Response()
        try:
            peer = await rpc.accept(channel, "master", self.config.node.encode(), self.node.key_of_role, self.node)
        except ConnectionLost as error:
            log.info("no hello: %s", error)
            return response
        except GfsError as error:
            self._measures.refused_connections += 1
            log.warning("refused a connection from %s: %s", channel.peer, error)
            return response
        await self.node.serve(peer)
        return response

    async def _serve_status(self, _request: web.Request) -> web.Response:
        status = self.node.status()
        shown = {field: getattr(status, field) for field in status.__struct_fields__}
        shown["cluster"] = status.cluster.hex()
        return web.json_response(body=msgspec.json.encode(shown))

    async def _serve_digest(self, _request: web.Request) -> web.Response:
        sequence, digest = self.node.digest()
        return web.json_response({"sequence": sequence, "digest": digest.hex()})

    async def _serve_metrics(self, _request: web.Request) -> web.Response:
        return metrics.page(self._registry)

    async def _serve_health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")


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
        process = MasterProcess(config, SystemClock())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, process.stop)
        return await process.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
