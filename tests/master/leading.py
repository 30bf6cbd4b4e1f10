"""A leader in this process: in-memory channels, a log that a test can hold up or break, a clock that a test moves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from gfsmaster import operations as op
from gfsmaster.config import MasterConfig
from gfsmaster.fleet import Fleet
from gfsmaster.leader import Leader
from gfsmaster.oplog import GENESIS_HASH, Batch, Leadership
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.channel import memory_pair
from gfsprotocol.errors import StartupError
from gfsprotocol.ids import GIB
from gfsprotocol.messages import ReplyBody, RequestBody

KEY = b"k" * 32
CHUNK_BYTES = 1 << 20


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


class HeldLog:
    """Batches become durable while ``open`` is set; ``failure`` makes the next append fail."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.failure: StartupError | None = None
        self.batches: list[Batch] = []
        self.successors: list[str] = []

    async def append(self, batch: Batch, previous: bytes) -> None:
        async with asyncio.timeout(10):
            await self.open.wait()
        if self.failure is not None:
            raise self.failure
        self.batches.append(batch)

    async def renew(self, epoch: int) -> None:
        """Always succeeds."""

    async def resign(self, epoch: int, successor: str) -> None:
        self.successors.append(successor)

    async def leadership(self) -> Leadership:
        raise AssertionError("who leads already neither stands for election nor reads the log")

    async def campaign(self, seen: Leadership, address: str) -> Leadership | None:
        raise AssertionError("who leads already neither stands for election nor reads the log")

    async def read(self, after: int, previous: bytes) -> list[Batch]:
        raise AssertionError("who leads already neither stands for election nor reads the log")

    def records(self) -> list[op.Record]:
        return [record for batch in self.batches for record in op.decode_records(batch.payload)]


class Harness:
    """A leader with connections to it."""

    def __init__(self, log: HeldLog, state: State, last_hash: bytes, **settings: object) -> None:
        self.log = log
        self.clock = ManualClock()
        values = {"lease_seconds": 60.0, "chunk_bytes": CHUNK_BYTES, "server_silent_seconds": 10.0} | settings
        config = MasterConfig(journal="sqlite://", secret_file=Path("unused"), **values)  # type: ignore[arg-type]
        self.leader = Leader(
            config, self.clock, KEY, Fleet(state), state, log, state.epoch + 1, last_hash, self.clock.now
        )
        self.tasks: list[asyncio.Task[None]] = []
        self.calls = 0

    async def connect(self, role: str, name: bytes, service: rpc.Service | None = None) -> rpc.Peer:
        """A connection to the leader; ``service`` takes its notices."""
        near, far = memory_pair(name.decode(), "master")
        accepting = asyncio.create_task(rpc.accept(far, "master", b"m", lambda _: KEY, self.leader))
        peer = await rpc.connect(near, role, name, KEY, service)
        served = await accepting
        self.tasks += [asyncio.create_task(peer.run()), asyncio.create_task(served.run())]
        return peer

    async def change(self, peer: rpc.Peer, body: RequestBody, user: tuple[int, ...] = ()) -> ReplyBody:
        self.calls += 1
        return (await peer.call(body, 5, user, msg.Call(self.calls, self.calls))).body

    async def add_servers(self, count: int, chunks: list[tuple[int, int, int]] | None = None) -> list["FakeServer"]:
        servers = [FakeServer(self, number + 1) for number in range(count)]
        for server in servers:
            await server.register(chunks or [])
        return servers


class FakeServer:
    """What a chunk server tells the master."""

    def __init__(self, harness: Harness, number: int) -> None:
        self.harness = harness
        self.number = number
        self.disk = msg.DiskUsage("/disk", 100 * GIB, 50 * GIB, 0, "")

    async def register(self, chunks: list[tuple[int, int, int]], highest_chunk: int = 0) -> None:
        self.peer = await self.harness.connect("chunkserver", b"cs-%d" % self.number)
        body = msg.Register(self.number, b"", "host", 9500 + self.number, (self.disk,), 0, highest_chunk)
        await self.peer.call(body, 5)
        await self.peer.call(msg.ChunkReport(self.number, pack(chunks), last=True), 5)

    async def beat(self, stored: list[tuple[int, int, int]] = [], **fields: object) -> msg.Orders:  # noqa: B006
        body = msg.Heartbeat(
            self.number,
            (self.disk,),
            pack(stored),
            fields.get("dropped", ()),  # type: ignore[arg-type]
            fields.get("corrupt", ()),  # type: ignore[arg-type]
            fields.get("finished", ()),  # type: ignore[arg-type]
        )
        orders = (await self.peer.call(body, 5)).body
        assert isinstance(orders, msg.Orders)
        return orders


def pack(chunks: list[tuple[int, int, int]]) -> bytes:
    return b"".join(number.to_bytes(8, "little") for chunk in chunks for number in chunk)


@contextlib.asynccontextmanager
async def leading(
    log: HeldLog | None = None, state: State | None = None, last_hash: bytes = GENESIS_HASH, **settings: object
) -> AsyncIterator[Harness]:
    """A running leader, of a new cluster unless there is a state."""
    log = log or HeldLog()
    state = state or State()
    first: tuple[op.AnyOperation, ...] = (op.BeginEpoch(state.epoch + 1, "m"),)
    if not state.sequence:
        first = (op.Genesis(b"c" * 16, op.LOG_FORMAT, 0o777, 0, 0, 3, CHUNK_BYTES), *first)
    harness = Harness(log, state, last_hash, **settings)
    harness.leader.begin(first)
    running = asyncio.create_task(harness.leader.run())
    try:
        yield harness
    finally:
        log.open.set()
        for task in (running, *harness.tasks):
            task.cancel()
        await asyncio.gather(running, *harness.tasks, return_exceptions=True)
        harness.leader.end()


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Polls a condition with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def replayed(log: HeldLog) -> State:
    """What a standby makes of the log."""
    state = State()
    for record in log.records():
        state.apply(record)
    state.freed.clear()
    return state
