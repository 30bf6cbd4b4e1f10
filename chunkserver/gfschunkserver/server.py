"""The chunk server's process: one port for bulk data and HTTP, links to all masters, and an orderly end."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from gfschunkserver.access import Access
from gfschunkserver.config import ChunkServerConfig
from gfschunkserver.engine import Engine
from gfschunkserver.files import Files, OsFiles
from gfschunkserver.measures import Measures, read_disks
from gfschunkserver.orders import Orders
from gfschunkserver.reporter import Reporter
from gfschunkserver.scrubber import Scrubber
from gfschunkserver.service import BulkService
from gfschunkserver.store import Store
from gfschunkserver.web import make_app
from gfsprotocol import bulk, tokens
from gfsprotocol.errors import AddressInUse, ConfigurationError
from gfsprotocol.metrics import Value
from gfsprotocol.network import server_log
from gfsprotocol.settings import read_secret

log = logging.getLogger(__name__)

BACKLOG: Final = 512
FIRST_BYTE_SECONDS: Final = 10.0
UNDECIDED_MAX: Final = 512
"""Connections that have not sent a byte yet."""
HOUSEKEEPING_SECONDS: Final = 10.0
ACCEPT_RETRY_SECONDS: Final = 0.2
ACCEPTS_PER_TURN: Final = 64


class ChunkServer:
    """A whole chunk server inside an event loop; its bulk data runs in threads beside it."""

    def __init__(self, config: ChunkServerConfig, secret: bytes, files: Files | None = None) -> None:
        self._config = config
        self._secret = secret
        self.store = Store(files or OsFiles(), config.directories, config.journal_segment_bytes, config.reserve_bytes)
        self.scrubber = Scrubber(self.store, config.scrub_bytes_per_second)
        self.port = 0
        """The one it listens on, once started."""
        self.engine: Engine
        self._started_at = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._undecided: set[socket.socket] = set()
        self._accept_again: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listens, takes the disks, and begins to look for masters. StartupError if it cannot."""
        self._listener = self._listen()
        self.port = self._listener.getsockname()[1]
        measures = Measures()
        for disk in self.store.disks:
            disk.on_sync = measures.journal_sync_seconds.observe
        try:
            await asyncio.to_thread(self.store.open)
        except BaseException:
            self._listener.close()
            raise
        config = self._config
        access = Access(self._secret, self.store)
        self._reporter = Reporter(
            self.store,
            config.masters,
            tokens.server_key(self._secret),
            config.advertised_host or config.host,
            self.port,
            config.rack,
            config.heartbeat_seconds,
        )
        self.engine = Engine(self.store, access, self._reporter, measures)
        self.engine.suspect = self.scrubber.suspect
        self._bulk = BulkService(self.engine, config.connections_max)
        self._orders = Orders(self.engine, self.scrubber)
        app = make_app(self.engine, self.status, self.measured)
        self._runner = web.AppRunner(app, access_log=None, logger=server_log)
        await self._runner.setup()
        self.scrubber.start()
        self._reporter.start(self.engine, self._orders)
        self._spawn(self._keep_house())
        self._listen_on()
        log.info(
            "chunk server %016x listens on %s:%d with %d chunks",
            self.store.server,
            config.host,
            self.port,
            len(self.store.chunks()),
        )

    async def stop(self) -> None:
        """Ends what is running, writes checkpoints, and lets the disks go."""
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._accept_again is not None:
            self._accept_again.cancel()
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._undecided:
            sock.close()
        await self._reporter.stop()
        await asyncio.to_thread(self._bulk.stop)
        self._orders.cancel()
        await asyncio.to_thread(self._orders.stop)
        await asyncio.to_thread(self.scrubber.stop)
        self.engine.peers.close()
        await self._runner.cleanup()
        await asyncio.to_thread(self.store.close)
        log.info("chunk server %016x has stopped", self.store.server)

    def status(self) -> dict[str, Any]:
        """What ``/status`` shows."""
        store = self.store
        return {
            "server": f"{store.server:016x}",
            "cluster": store.cluster.hex(),
            "highest_epoch": store.highest_epoch,
            "uptime_seconds": round(time.monotonic() - self._started_at, 3),
            "bulk_connections": self._bulk.connections,
            "chunks": len(store.chunks()),
            "corrupt_chunks": [f"{chunk:x}" for chunk in sorted(store.corrupt_chunks())],
            "scrubbed_bytes": self.scrubber.verified_bytes,
            "disks": [
                {
                    "path": usage.path,
                    "total_bytes": usage.total_bytes,
                    "free_bytes": usage.free_bytes,
                    "chunks": usage.chunks,
                    "failed": usage.failed,
                }
                for usage in store.usage()
            ],
            "masters": self._reporter.masters(),
        }

    def measured(self) -> Mapping[str, Value]:
        """What ``/metrics`` shows, by name. From any thread."""
        return {
            **self.engine.measures.read(),
            **read_disks(self.store.disks),
            "gfs_chunkserver_connections": self._bulk.connections,
            "gfs_chunkserver_scrubbed_bytes_total": self.scrubber.verified_bytes,
            "gfs_chunkserver_scrub_remaining_chunks": self.scrubber.remaining_chunks,
            "gfs_chunkserver_master_connected": {
                (address,): int(bool(said["connected"])) for address, said in self._reporter.masters().items()
            },
            "gfs_chunkserver_highest_epoch": self.store.highest_epoch,
        }

    # --------------------------------------------------------------------------------------------------- the port

    def _listen(self) -> socket.socket:
        config = self._config
        try:
            listener = socket.create_server((config.host, config.port), backlog=BACKLOG)
        except socket.gaierror as error:
            raise ConfigurationError(f"cannot listen on '{config.host}': {error.strerror}") from error
        except OSError as error:
            raise AddressInUse(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from error
        listener.setblocking(False)
        return listener

    def _listen_on(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Takes what waits. A plain callback: a cancelled ``sock_accept`` could lose a connection it has accepted."""
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("cannot accept a connection: %s", error.strerror)
                loop.remove_reader(self._listener)
                self._accept_again = loop.call_later(ACCEPT_RETRY_SECONDS, self._listen_on)
                return
            if len(self._undecided) >= UNDECIDED_MAX:
                sock.close()
                continue
            sock.setblocking(False)
            self._undecided.add(sock)
            self._spawn(self._decide(sock, f"{address[0]}:{address[1]}"))

    async def _decide(self, sock: socket.socket, peer: str) -> None:
        """Looks at the first byte: no HTTP request begins with that of the bulk protocol."""
        try:
            async with asyncio.timeout(FIRST_BYTE_SECONDS):
                first = await _peek(sock)
        except (TimeoutError, OSError) as error:
            log.debug("%s said nothing: %s", peer, error)
            first = b""
        self._undecided.discard(sock)
        if first == bulk.PREAMBLE[:1]:
            self._bulk.accept(sock, peer)
        elif first and self._runner.server is not None:
            await asyncio.get_running_loop().connect_accepted_socket(self._runner.server, sock)
        else:
            sock.close()

    async def _keep_house(self) -> None:
        while True:
            self._reporter.connections = self._bulk.connections
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            self.engine.expire_chains()

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _peek(sock: socket.socket) -> bytes:
    """The first byte, which stays to be read; empty if the peer has closed."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
        return sock.recv(1, socket.MSG_PEEK)
    finally:
        loop.remove_reader(sock)


async def _run_until_signalled(config: ChunkServerConfig, secret: bytes) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = ChunkServer(config, secret)
    await server.start()
    try:
        await stopping.wait()
    finally:
        await server.stop()


def run(config: ChunkServerConfig) -> int:
    """Runs a chunk server until SIGTERM or SIGINT; logs to stderr. StartupError if it cannot start."""
    logging.basicConfig(
        stream=sys.stderr, level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    secret = read_secret(config.secret_file)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run_until_signalled(config, secret))
    return 0
