"""Real chunk servers in threads of the test's process, a small fake leader, and a bulk client by hand."""

import asyncio
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from gfschunkserver.config import ChunkServerConfig
from gfschunkserver.files import Files
from gfschunkserver.server import ChunkServer
from gfsprotocol import bulk, network, rpc, tokens
from gfsprotocol import messages as m
from gfsprotocol.bulksocket import BulkConnection, expect
from gfsprotocol.checksums import digest, digests_match, segment_digests
from gfsprotocol.errors import GfsError, NotLeader
from gfsprotocol.ids import MIB

SECRET = bytes(range(32))
CLUSTER = b"cluster-of-tests"
TOKEN_KEY = tokens.token_key(SECRET)

_T = TypeVar("_T")


def eventually(condition: Callable[[], _T], seconds: float = 10.0) -> _T:
    """What ``condition`` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def pending(self) -> list[str]:
        """Tasks that are still there."""
        return [repr(task) for task in asyncio.all_tasks(self.loop)]

    async def _cancel_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, _T], seconds: float = 30.0) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def stop(self) -> None:
        self.run(self._cancel_tasks())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class FakeLeader:
    """Answers what chunk servers ask of a master, and remembers it."""

    def __init__(self, cluster: bytes = CLUSTER, epoch: int = 1) -> None:
        self.cluster = cluster
        self.epoch = epoch
        self.began = time.monotonic()
        self.registered: list[m.Register] = []
        self.reports: dict[int, dict[int, tuple[int, int]]] = {}
        self.stored: dict[int, dict[int, tuple[int, int]]] = {}
        self.dropped: set[tuple[int, int]] = set()
        self.corrupt: set[tuple[int, int]] = set()
        self.confirmed: list[m.ConfirmGrant] = []
        self.finished: dict[int, str] = {}
        self.orders: dict[int, list[m.Order]] = {}
        self.heartbeats = 0
        self.confirm_error: GfsError | None = None
        self.report_again: set[int] = set()
        self._thread = LoopThread()
        self.port = self._thread.run(self._start())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def clock_ms(self) -> int:
        return int((time.monotonic() - self.began) * 1000)

    async def _start(self) -> int:
        app = web.Application()
        app.router.add_get(network.RPC_PATH, self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        channel, response = await network.upgrade(request)
        peer = await rpc.accept(channel, "master", b"fake", lambda _role: tokens.server_key(SECRET), self)
        await peer.run()
        return response

    def notice(self, peer: rpc.Peer, body: m.NoticeBody) -> None:
        pass

    def handle(self, peer: rpc.Peer, request: m.Request) -> None:
        peer.respond(request.id, self._answer(request.body))

    def _answer(self, body: m.RequestBody) -> m.ReplyBody:
        match body:
            case m.Register():
                self.registered.append(body)
                self.reports[body.server] = {}
                return m.Registered(self.cluster, self.epoch, self.clock_ms(), 0.2)
            case m.ChunkReport():
                self.reports[body.server].update(unpack(body.replicas))
                return m.Done()
            case m.Heartbeat():
                self.heartbeats += 1
                self.stored.setdefault(body.server, {}).update(unpack(body.stored))
                self.dropped.update((body.server, chunk) for chunk in body.dropped)
                self.corrupt.update((body.server, chunk) for chunk in body.corrupt)
                self.finished.update({result.order: result.error for result in body.finished})
                again = body.server in self.report_again
                self.report_again.discard(body.server)
                return m.Orders(self.epoch, self.clock_ms(), tuple(self.orders.pop(body.server, [])), again)
            case m.ConfirmGrant():
                if self.confirm_error is not None:
                    error = self.confirm_error
                    return m.ErrorReply(error.code, error.message, error.hint)
                self.confirmed.append(body)
                return m.Done()
            case _:
                error = NotLeader()
                return m.ErrorReply(error.code, error.message)

    def stop(self) -> None:
        self._thread.run(self._runner.cleanup())
        self._thread.stop()


def unpack(replicas: bytes) -> dict[int, tuple[int, int]]:
    numbers = memoryview(replicas).cast("Q")
    return {numbers[i]: (numbers[i + 1], numbers[i + 2]) for i in range(0, len(numbers), 3)}


class Server:
    """A chunk server in a thread."""

    def __init__(
        self,
        directories: list[Path],
        masters: list[str],
        port: int = 0,
        files: Files | None = None,
        **settings: Any,
    ) -> None:
        values: dict[str, Any] = {"reserve_bytes": 0, "scrub_bytes_per_second": 0, "heartbeat_seconds": 0.2}
        self.config = ChunkServerConfig(
            directories=directories, masters=masters, port=port, secret_file=Path("unused"), **(values | settings)
        )
        self._thread = LoopThread()
        try:
            self.server = self._thread.run(self._start(files))
        except BaseException:
            self._thread.stop()
            raise
        self.stopped = False

    async def _start(self, files: Files | None) -> ChunkServer:
        server = ChunkServer(self.config, SECRET, files)
        await server.start()
        return server

    @property
    def id(self) -> int:
        return self.server.store.server

    @property
    def address(self) -> m.ServerAddress:
        return m.ServerAddress(self.id, "127.0.0.1", self.server.port)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._thread.run(self.server.stop())
            left = self._thread.pending()
            self._thread.stop()
            assert not left, left


class Cluster:
    """A leader and some chunk servers."""

    def __init__(self, root: Path, servers: int, **settings: Any) -> None:
        self.root = root
        self.settings = settings
        self.leader = FakeLeader()
        self.servers = [self.start_server(index) for index in range(servers)]
        for server in self.servers:
            self.wait_registered(server)

    def start_server(self, index: int, **settings: Any) -> Server:
        return Server([self.root / f"disk-{index}"], [self.leader.address], **(self.settings | settings))

    def wait_registered(self, server: Server) -> None:
        eventually(lambda: server.server.store.cluster and server.server.store.highest_epoch == self.leader.epoch)
        eventually(lambda: any(link.epoch for link in server.server._reporter._links))

    def grant(
        self,
        chunk: int,
        version: int,
        members: list[Server] | None = None,
        base_version: int = 0,
        chunk_bytes: int = 64 * MIB,
        cut_length: int = -1,
        valid_ms: int = 60_000,
    ) -> m.Grant:
        now = self.leader.clock_ms()
        chain = self.servers if members is None else members
        return m.Grant(
            chunk, base_version, version, 7, 3, chunk_bytes, cut_length, self.leader.epoch, now, max(0, now + valid_ms),
            tuple(server.address for server in chain),
        )  # fmt: skip

    def read_token(self, chunk: int, version: int = 0, valid_ms: int = 60_000) -> bytes:
        now = self.leader.clock_ms()
        token = tokens.ReadToken(chunk, version, self.leader.epoch, now, max(0, now + valid_ms))
        return tokens.sign_read(TOKEN_KEY, token)

    def read(self, server: Server, chunk: int, offset: int = 0, length: int = 64 * MIB, **options: Any) -> bytes:
        """Bytes of a replica, verified as a client does it."""
        with connected(server) as connection:
            request = bulk.Read(self.read_token(chunk), chunk, 0, offset, length, **options)
            connection.send(request)
            return receive_read(connection)[1]

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
        self.leader.stop()


def receive_read(connection: BulkConnection) -> tuple[bulk.ReadReply, bytes]:
    header, payload_bytes = connection.receive_reply()
    reply = expect(header, bulk.ReadReply, connection.peer)
    payload = bytearray(payload_bytes)
    connection.receive_into(memoryview(payload))
    if reply.verified:
        assert digest(payload) == reply.digests
    else:
        assert digests_match(reply.offset, payload, reply.digests)
    return reply, bytes(payload)


@contextmanager
def connected(server: Server) -> Iterator[BulkConnection]:
    connection = BulkConnection.connect("127.0.0.1", server.server.port, 5.0, 40.0)
    try:
        yield connection
    finally:
        connection.close()


class Writer:
    """A client's side of a write session."""

    def __init__(self, grant: m.Grant, key: bytes = TOKEN_KEY, client: bytes | None = None, verifier: int = 0) -> None:
        primary = grant.members[0]
        self.client = client or secrets.token_bytes(16)
        self.connection = BulkConnection.connect(primary.host, primary.port, 5.0, 60.0)
        self.connection.send(bulk.OpenWrite(tokens.sign_grant(key, grant), 0, self.client, verifier))
        self._opened: bulk.WriteOpened | None = None

    def opened(self) -> bulk.WriteOpened:
        if self._opened is None:
            self._opened = expect(self.connection.receive_reply()[0], bulk.WriteOpened, "primary")
        return self._opened

    def send_write(self, offset: int, data: bytes, sync: bool = False) -> None:
        self.connection.send(bulk.Mutate(bulk.WRITE, 0, offset, segment_digests(offset, data), sync=sync), data)

    def send_append(self, data: bytes, record: int, sync: bool = False) -> None:
        self.connection.send(bulk.Mutate(bulk.APPEND, 0, 0, digest(data), record, sync), data)

    def send_cut(self, length: int, sync: bool = False) -> None:
        self.connection.send(bulk.Mutate(bulk.CUT, 0, length, sync=sync))

    def send_sync(self) -> None:
        self.connection.send(bulk.Mutate(bulk.SYNC, 0, 0))

    def ack(self) -> bulk.Ack:
        self.opened()
        return expect(self.connection.receive_reply()[0], bulk.Ack, "primary")

    def write(self, offset: int, data: bytes, sync: bool = False) -> bulk.Ack:
        self.send_write(offset, data, sync)
        return self.ack()

    def close(self) -> None:
        """Ends the session in order."""
        self.opened()
        self.connection.send(bulk.CloseWrite())
        expect(self.connection.receive_reply()[0], bulk.WriteClosed, "primary")
        self.connection.close()

    def abandon(self) -> None:
        self.connection.close()


def lose_a_write(cluster: Cluster, old: bytes = b"old!", new: bytes = b"new!") -> int:
    """Server 0 loses power before a sync: chunk 1 is ``old`` there, ``new`` elsewhere. The verifier of that write."""
    writer = Writer(cluster.grant(1, 1))
    writer.write(0, old, sync=True)
    durable = copy_of_disk(cluster, 0)
    for start in range(0, len(new), MIB):
        writer.write(start, new[start : start + MIB])
    verifier = writer.opened().verifier
    writer.close()
    lose_power(cluster, 0, durable)
    return verifier


def copy_of_disk(cluster: Cluster, index: int) -> Path:
    """What is durable now; nothing that is only in the server's memory."""
    [home] = cluster.servers[index].config.directories
    return Path(shutil.copytree(home, home.with_name("durable")))


def lose_power(cluster: Cluster, index: int, durable: Path) -> None:
    """The server comes back with what was durable."""
    server = cluster.servers[index]
    [home] = server.config.directories
    port = server.server.port
    server.stop()
    shutil.rmtree(home)
    durable.rename(home)
    cluster.servers[index] = cluster.start_server(index, port=port)
    cluster.wait_registered(cluster.servers[index])


def restart(cluster: Cluster, index: int) -> None:
    """The process ends in order and begins again: nothing is lost, but it remembers nothing."""
    server = cluster.servers[index]
    port = server.server.port
    server.stop()
    cluster.servers[index] = cluster.start_server(index, port=port)
    cluster.wait_registered(cluster.servers[index])


def copy_chunk(cluster: Cluster, order: int, chunk: int, version: int, source: int, target: int) -> str:
    """Has a chunk copied as the leader would; the error, empty if there is none."""
    sources = (cluster.servers[source].address,)
    body = m.ReplicateOrder(order, chunk, version, sources, cluster.read_token(chunk, version))
    cluster.leader.orders[cluster.servers[target].id] = [body]
    eventually(lambda: order in cluster.leader.finished)
    return cluster.leader.finished[order]
