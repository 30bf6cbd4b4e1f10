"""Chunk servers as the masters see them: they register, report, beat, and do what they are ordered. No bytes."""

import asyncio
import random
from typing import TYPE_CHECKING, Final

from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.errors import GfsError
from gfsprotocol.ids import GIB
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

HEARTBEAT_SECONDS: Final = 0.4
CALL_SECONDS: Final = 3.0
RETRY_SECONDS: Final = 0.3


class ChunkServer:
    """Its replicas outlive its process."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"server-{number}"
        self.replicas: dict[int, tuple[int, int]] = {}
        """chunk -> (version, length)"""
        self.highest_epoch = 0
        self._highest_chunk = 0
        self._cluster = b""
        self._random = random.Random(f"{world.seed} server {number}")
        self._news: dict[str, dict[int, None]] = {}
        self._leader: rpc.Peer | None = None
        self._disk = msg.DiskUsage("/disk", 100 * GIB, 50 * GIB, 0, "")
        self.process = Process(self.name)

    def start(self) -> None:
        self.process = Process(self.name)
        self.world.processes.append(self.process)
        self._leader = None
        for address in self.world.addresses:
            self._news[address] = {}
            self.process.start(self._serve(address))

    # -------------------------------------------------------------------------------------------------------- data

    def prepare(self, grant: msg.Grant, length: int) -> bool:
        """Brings the replica to a grant's version. False if it cannot."""
        if grant.epoch < self.highest_epoch:
            return False
        version, known = self.replicas.get(grant.chunk, (0, 0))
        if grant.base_version and (version < grant.base_version or known < length or version > grant.version):
            return False
        cut = length if grant.cut_length < 0 else grant.cut_length
        self._keep(grant.chunk, grant.version, cut if version < grant.version else known)
        return True

    def write(self, grant: msg.Grant, length: int) -> bool:
        version, known = self.replicas.get(grant.chunk, (0, 0))
        if version != grant.version or not self.process.is_running:
            return False
        self._keep(grant.chunk, version, max(known, length))
        return True

    async def confirm(self, grant: msg.Grant, length: int) -> bool:
        """As the primary, to the leader; called by a client, whose patience ends when this process does."""
        leader = self._leader
        if leader is None or leader.is_lost:
            return False
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await leader.call(msg.ConfirmGrant(self.number, grant.chunk, grant.version, length), CALL_SECONDS)
        except (GfsError, TimeoutError):
            return False
        return True

    def _keep(self, chunk: int, version: int, length: int) -> None:
        self.replicas[chunk] = (version, length)
        self._highest_chunk = max(self._highest_chunk, chunk)
        self._tell(chunk)

    def _tell(self, chunk: int) -> None:
        for news in self._news.values():
            news[chunk] = None

    # ----------------------------------------------------------------------------------------------------- masters

    async def _serve(self, address: str) -> None:
        """Talks to one master for ever."""
        while True:
            try:
                channel = await self.world.network.dial(self.process, address)
                peer = await rpc.connect(
                    channel,
                    "chunkserver",
                    self.name.encode(),
                    self.world.server_key,
                    self,
                )
            except GfsError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            running = asyncio.create_task(peer.run())
            try:
                await self._beat(peer, address)
            except GfsError as error:
                self.world.note("server", self.process, address, type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS * self._random.random())
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    async def _beat(self, peer: rpc.Peer, address: str) -> None:
        must_report = True
        finished: list[msg.OrderResult] = []
        while True:
            if must_report:
                await self._report(peer, address)
            news, self._news[address] = self._news[address], {}
            stored = [chunk for chunk in news if chunk in self.replicas]
            dropped = tuple(chunk for chunk in news if chunk not in self.replicas)
            beat = msg.Heartbeat(self.number, (self._disk,), self._packed(stored), dropped, (), tuple(finished))
            orders = (await peer.call(beat, CALL_SECONDS)).body
            assert isinstance(orders, msg.Orders)
            must_report = orders.report_again
            finished = []
            if orders.epoch and self._see(orders.epoch, peer):
                for order in orders.orders:
                    self._obey(order)
                    finished.append(msg.OrderResult(order.order, ""))
            await asyncio.sleep(HEARTBEAT_SECONDS * self._random.uniform(0.5, 1.0))

    async def _report(self, peer: rpc.Peer, address: str) -> None:
        self._news[address] = {}
        register = msg.Register(
            self.number,
            self._cluster,
            self.name,
            9500,
            (self._disk,),
            self.highest_epoch,
            self._highest_chunk,
        )
        registered = (await peer.call(register, CALL_SECONDS)).body
        assert isinstance(registered, msg.Registered)
        self._cluster = registered.cluster
        self._see(registered.epoch, peer)
        chunks = sorted(self.replicas)
        middle = len(chunks) // 2
        await peer.call(msg.ChunkReport(self.number, self._packed(chunks[:middle]), last=False), CALL_SECONDS)
        await asyncio.sleep(self._random.random() * HEARTBEAT_SECONDS)
        await peer.call(msg.ChunkReport(self.number, self._packed(chunks[middle:]), last=True), CALL_SECONDS)

    def _packed(self, chunks: list[int]) -> bytes:
        numbers = ((chunk, *self.replicas[chunk]) for chunk in chunks if chunk in self.replicas)
        return b"".join(number.to_bytes(8, "little") for replica in numbers for number in replica)

    def _see(self, epoch: int, peer: rpc.Peer) -> bool:
        """Whether orders of this epoch are obeyed."""
        if epoch < self.highest_epoch or not epoch:
            return False
        self.highest_epoch = epoch
        self._leader = peer
        return True

    def handle(self, peer: rpc.Peer, request: msg.Request) -> None:
        """rpc.Service: no one asks."""

    def notice(self, peer: rpc.Peer, body: msg.NoticeBody) -> None:
        """rpc.Service: a standby leads from now on."""
        if isinstance(body, msg.Leading):
            self._see(body.epoch, peer)

    def _obey(self, order: msg.Order) -> None:
        match order:
            case msg.DeleteOrder():
                version = self.replicas.get(order.chunk, (0, 0))[0]
                if version <= order.version:
                    self.world.about_to_delete(self, order)
                    self.replicas.pop(order.chunk, None)
                self._tell(order.chunk)
            case msg.ReplicateOrder():
                for address in order.sources:
                    source = self.world.servers[address.server]
                    version, length = source.replicas.get(order.chunk, (0, 0))
                    if source.process.is_running and version >= order.version:
                        self._keep(order.chunk, version, length)
                        return
            case msg.VerifyOrder():
                self._tell(order.chunk)
