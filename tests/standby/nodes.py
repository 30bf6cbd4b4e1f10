"""Master nodes in this process, with a real log and real connections."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from gfsmaster.config import MasterConfig
from gfsprotocol import messages as msg
from gfsprotocol import network, rpc
from gfsprotocol.channel import SystemClock
from gfsprotocol.errors import AvailabilityError
from gfsprotocol.tokens import client_key
from gfsstandby.process import MasterProcess
from tests.cluster.harness import free_port_base

LEASE_SECONDS = 0.5


class Nodes:
    """Up to ``count`` nodes of one cluster."""

    def __init__(self, directory: Path, journal_url: str, count: int, checkpoint_records: int) -> None:
        self.journal_url = journal_url
        self.directory = directory
        self.checkpoint_records = checkpoint_records
        self.lease_seconds = LEASE_SECONDS
        self.heartbeat_seconds = 60.0
        """What a leader expects of chunk servers; here are none, and it may not be taken for cut off."""
        self.journal_wait_seconds = 30.0
        self.secret = secrets.token_bytes(32)
        self.secret_file = directory / "secret"
        self.secret_file.write_text(self.secret.hex())
        self.secret_file.chmod(0o600)
        base = free_port_base(count, 0)
        self.ports = [base + number for number in range(count)]
        self.journals: dict[int, str] = {}
        """Other ways to the journal, for single nodes."""
        self.running: dict[int, tuple[MasterProcess, asyncio.Task[int]]] = {}

    def config(self, number: int, genesis: bool = False) -> MasterConfig:
        return MasterConfig(
            node=f"node-{number}",
            port=self.ports[number],
            journal=self.journals.get(number, self.journal_url),
            journal_wait_seconds=self.journal_wait_seconds,
            secret_file=self.secret_file,
            genesis=genesis,
            masters=[f"127.0.0.1:{port}" for port in self.ports],
            lease_seconds=self.lease_seconds,
            checkpoint_records=self.checkpoint_records,
            heartbeat_seconds=self.heartbeat_seconds,
        )

    def start(self, number: int, genesis: bool = False) -> MasterProcess:
        node = MasterProcess(self.config(number, genesis), SystemClock())
        self.running[number] = (node, asyncio.create_task(node.run()))
        return node

    async def stop(self, number: int) -> int:
        """As by SIGTERM."""
        node, task = self.running.pop(number)
        node.stop()
        return await task

    async def crash(self, number: int) -> None:
        """No farewell to anyone."""
        _, task = self.running.pop(number)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    @contextlib.asynccontextmanager
    async def client(self, number: int, name: bytes | None = None) -> AsyncIterator[rpc.Peer]:
        """A connection to a node, as soon as it listens."""
        async with aiohttp.ClientSession() as session:
            channel = await self._dial(session, number)
            peer = await rpc.connect(channel, "client", name or os.urandom(16), client_key(self.secret))
            task = asyncio.create_task(peer.run())
            try:
                yield peer
            finally:
                await peer.channel.close()
                await asyncio.gather(task, return_exceptions=True)

    async def _dial(self, session: aiohttp.ClientSession, number: int) -> network.WebSocketChannel:
        async with asyncio.timeout(10):
            while True:
                try:
                    return await network.dial(session, f"127.0.0.1:{self.ports[number]}", 1.0)
                except AvailabilityError:
                    await asyncio.sleep(0.02)

    async def status(self, number: int) -> msg.Status:
        """Asked again if the node drops the connection, as it does when its leadership ends."""
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(AvailabilityError):
                    async with self.client(number) as peer:
                        status = (await peer.call(msg.ClusterStatus(), 5)).body
                        assert isinstance(status, msg.Status)
                        return status

    async def until_leading(self, number: int, seconds: float = 10.0) -> msg.Status:
        async with asyncio.timeout(seconds):
            while (status := await self.status(number)).role != "leader":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return status


@contextlib.asynccontextmanager
async def nodes(
    directory: Path, journal_url: str = "", count: int = 2, checkpoint_records: int = 200_000
) -> AsyncIterator[Nodes]:
    """``journal_url`` is an SQLite file in ``directory`` if it is not given."""
    journal_url = journal_url or f"sqlite:///{directory / 'journal.sqlite'}"
    made = Nodes(directory, journal_url, count, checkpoint_records)
    try:
        yield made
    finally:
        for number in list(made.running):
            await made.crash(number)
