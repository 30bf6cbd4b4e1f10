"""A small cluster for the client: the real leader over in-memory channels, chunk servers that do as they are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gfsclient.config import ClientConfig
from gfsclient.core import Core
from gfsclient.filesystem import FileSystem
from gfsclient.masters import Masters
from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.channel import Channel, memory_pair
from gfsprotocol.messages import Grant
from tests.client.chunkservers import FakeFleet
from tests.master.leading import KEY, FakeServer, Harness, leading, pack

CHUNK_BYTES = 4 << 20


class SmallCluster:
    """Leader, chunk servers, and file systems connected to them."""

    def __init__(self, harness: Harness, fleet: FakeFleet, chunk_bytes: int) -> None:
        self.harness = harness
        self.chunk_bytes = chunk_bytes
        self.fleet = fleet
        self.registered: list[FakeServer] = []
        self.files: FileSystem
        self._systems: list[FileSystem] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, servers: int, **settings: object) -> None:
        loop = asyncio.get_running_loop()
        for number in range(1, servers + 1):
            fake = self.fleet.add(number)
            registered = _AtAddress(self.harness, number, fake.address.port)
            await registered.register([])
            self.registered.append(registered)

        def confirm(server: int, grant: Grant, length: int) -> None:
            body = msg.ConfirmGrant(server, grant.chunk, grant.version, length)
            peer = self.registered[server - 1].peer
            asyncio.run_coroutine_threadsafe(peer.call(body, 5), loop).result(10)

        self.fleet.confirm = confirm
        self.files = self.connect(**settings)

    def questions(self, *kinds: type[msg.RequestBody]) -> list[msg.RequestBody]:
        """Fills with what the leader is asked from now on of these kinds; by default: about chunks."""
        asked: list[msg.RequestBody] = []
        handlers = self.harness.leader._special
        for kind in kinds or (msg.RenewLease, msg.AllocateChunk):

            def note(peer: rpc.Peer, request: msg.Request, body: Any, act: Any = handlers[kind]) -> None:
                asked.append(body)
                act(peer, request, body)

            handlers[kind] = note
        return asked

    def connect(self, user: tuple[int, ...] = (0, 0), **settings: object) -> FileSystem:
        """Another client."""
        values: dict[str, object] = {
            "masters": ["m:1"],
            "key": KEY.hex(),
            "deadline_seconds": 10.0,
            "hedge_seconds": 5.0,
            "chunk_bytes": self.chunk_bytes,
        }
        values |= settings
        config = ClientConfig(**values)  # type: ignore[arg-type]
        masters = Masters(config.masters, KEY, user, config.deadline_seconds, dial=self.dial)
        system = FileSystem(Core(config, masters))
        self._systems.append(system)
        return system

    def forget(self, client: bytes) -> None:
        """The leader has not heard from the client for too long: its leases are over, and it writes no more."""
        leader, clock = self.harness.leader, self.harness.clock
        clock.now += leader.config.client_silent_seconds + 1
        for server in leader.fleet.servers:
            server.heard = clock.now
        leader.housekeeping.heard[client] = 0.0
        leader.beat(clock.now)
        leader.housekeeping.expire(clock.now, clock.time_ns())
        assert client not in leader.state.writers.clients()

    async def dial(self, address: str) -> Channel:
        """A channel to the leader."""
        near, far = memory_pair("client", address)
        self._tasks.append(asyncio.create_task(self._serve(far)))
        return near

    async def _serve(self, channel: Channel) -> None:
        peer = await rpc.accept(channel, "master", b"m", lambda _: KEY, self.harness.leader)
        try:
            await peer.run()
        finally:
            self.harness.leader.disconnected(peer)

    async def close(self) -> None:
        for system in self._systems:
            await system.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _AtAddress(FakeServer):
    """Registers with the address of a real socket."""

    def __init__(self, harness: Harness, number: int, port: int) -> None:
        super().__init__(harness, number)
        self.port = port

    async def register(self, chunks: list[tuple[int, int, int]], highest_chunk: int = 0) -> None:
        self.peer = await self.harness.connect("chunkserver", b"cs-%d" % self.number)
        body = msg.Register(self.number, b"", "127.0.0.1", self.port, (self.disk,), 0, highest_chunk)
        await self.peer.call(body, 5)
        await self.peer.call(msg.ChunkReport(self.number, pack(chunks), last=True), 5)


@asynccontextmanager
async def running(servers: int = 3, chunk_bytes: int = CHUNK_BYTES, **settings: object) -> AsyncIterator[SmallCluster]:
    """A cluster and a client with these settings, for as long as the block lasts."""
    async with leading(server_silent_seconds=3600.0) as harness:
        fleet = FakeFleet(KEY)
        cluster = SmallCluster(harness, fleet, chunk_bytes)
        try:
            await cluster.start(servers, **settings)
            yield cluster
        finally:
            await cluster.close()
            fleet.close()
