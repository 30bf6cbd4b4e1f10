"""A follower applies what the log has, and makes the same picture of the chunk servers as the leader, in any order."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfsmaster import operations as op
from gfsmaster.checkpoints import Restored
from gfsmaster.oplog import GENESIS_HASH, Batch, chain
from gfsprotocol import messages as msg
from gfsprotocol.channel import SystemClock
from gfsprotocol.errors import LogDamaged, StateDiverged
from gfsstandby.follower import Follower
from tests.master.leading import HeldLog
from tests.master.machine import Machine
from tests.master.test_repair import DISK, REPLICA


class WrittenLog(HeldLog):
    """A log that can be read."""

    async def restore(self, after: int) -> Restored | None:
        return None

    async def read(self, after: int, previous: bytes | None) -> list[Batch]:
        return [batch for batch in self.batches if batch.first > after][:3]


class Source:
    """A machine whose records become batches."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.hash = GENESIS_HASH
        self.written = 0

    def batch(self) -> Batch | None:
        """What was recorded since the last batch."""
        records = self.machine.records[self.written :]
        if not records:
            return None
        first, last = self.written + 1, self.written + len(records)
        payload = op.join_records(records)
        self.hash = chain(self.hash, first, last, 1, payload)
        self.written = last
        return Batch(first, last, 1, self.hash, payload)


async def test_pushed_batches_and_those_of_the_log_meet_wherever_they_do() -> None:
    source, log = Source(), WrittenLog()
    for number in range(30):
        source.machine.do(msg.Mkdir(b"/%d" % number))
        batch = source.batch()
        assert batch is not None
        log.batches.append(batch)
    follower = Follower(log, SystemClock())
    await follower.take(log.batches[5:])  # they do not follow on what is here
    assert follower.state.sequence == 0
    await follower.take(log.batches[:4])
    assert await follower.catch_up() == source.written - log.batches[3].last
    await follower.take(log.batches[20:])
    assert follower.state.digest() == source.machine.state.digest()
    assert follower.last_hash == source.hash


async def test_a_pushed_batch_of_another_chain_is_refused() -> None:
    source = Source()
    follower = Follower(WrittenLog(), SystemClock())
    batch = source.batch()
    assert batch is not None
    with pytest.raises(LogDamaged, match="hash is wrong"):
        await follower.take([Batch(batch.first, batch.last, batch.epoch, bytes(32), batch.payload)])
    assert follower.state.sequence == 0


async def test_fault_15_a_record_that_gives_another_result_stops_the_standby_at_that_record() -> None:
    source, log = Source(), WrittenLog()
    source.machine.do(msg.Mkdir(b"/d"))
    source.machine.records.append(op.encode_record(op.Record(source.machine.now_ns, (op.StateDigest(b"x" * 16),))))
    batch = source.batch()
    assert batch is not None
    log.batches.append(batch)
    with pytest.raises(StateDiverged, match=f"record {batch.last}: "):
        await Follower(log, SystemClock()).catch_up()


async def test_a_cancellation_leaves_no_half_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfsstandby.follower.RECORDS_PER_TURN", 1)
    source, log = Source(), WrittenLog()
    for number in range(20):
        source.machine.do(msg.Mkdir(b"/%d" % number))
    batch = source.batch()
    assert batch is not None
    log.batches.append(batch)
    follower = Follower(log, SystemClock())
    task = asyncio.create_task(follower.catch_up())
    while not follower.state.sequence and not task.done():  # noqa: ASYNC110 - one turn of the loop at a time
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert follower.state.sequence == batch.last
    assert follower.last_hash == batch.hash


class World:
    """Chunks and their replicas as they really are, what is logged of them, and reports that are still on their way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.source = Source()
        self.follower = Follower(WrittenLog(), SystemClock())
        self.servers = range(1, 5)
        self.replicas: dict[int, dict[int, int]] = {server: {} for server in self.servers}
        self.changed: dict[int, set[int]] = {server: set() for server in self.servers}
        self.on_the_way: dict[int, list[msg.Heartbeat]] = {server: [] for server in self.servers}
        self.files: dict[int, int] = {}
        """Chunk -> inode."""

    def good(self, chunk: int) -> list[int]:
        """The servers with a version that counts."""
        state = self.source.machine.state
        logged = state.chunks.version[state.chunks.slot_of(chunk)]
        return [server for server in self.servers if self.replicas[server].get(chunk, 0) >= logged]

    def put(self, server: int, chunk: int, version: int) -> None:
        self.replicas[server][chunk] = version
        self.changed[server].add(chunk)

    def add(self) -> None:
        machine = self.source.machine
        name = b"/%d" % machine.now_ns
        inode = machine.attributes(msg.Create(name, open=False)).inode
        chunk = machine.add_chunk(inode, 0)
        self.files[chunk] = inode
        for server in self.random.sample(self.servers, 3):
            self.put(server, chunk, 1)
        machine.do(msg.RecordLength(inode, (msg.ChunkLength(0, chunk, 10, 1),)))

    def revise(self) -> None:
        """Some of the good replicas get a new version, then the log has it; the others are stale."""
        chunk = self.random.choice(list(self.files))
        good = self.good(chunk)
        members = self.random.sample(good, self.random.randint(1, len(good)))
        version = max(replicas.get(chunk, 0) for replicas in self.replicas.values()) + self.random.randint(1, 2)
        for server in members:
            self.put(server, chunk, version)
        if self.random.random() < 0.8:  # else the leader has died before it was logged
            self.source.machine.log((op.SetChunkVersion(chunk, version),))

    def free(self) -> None:
        chunk = self.random.choice(list(self.files))
        inode = self.files.pop(chunk)
        machine = self.source.machine
        machine.do(msg.Unlink(machine.state.inodes.path_of(machine.state.inodes.slot_of(inode))))

    def copy(self) -> None:
        chunk = self.random.choice(list(self.files))
        newest = max(self.servers, key=lambda server: self.replicas[server].get(chunk, 0))
        self.put(self.random.choice(self.servers), chunk, self.replicas[newest][chunk])

    def lose(self) -> None:
        server = self.random.choice(self.servers)
        if self.replicas[server]:
            chunk = self.random.choice(list(self.replicas[server]))
            if chunk not in self.files or set(self.good(chunk)) - {server}:
                del self.replicas[server][chunk]
                self.changed[server].add(chunk)

    def report(self, server: int) -> None:
        """A heartbeat leaves; it may arrive much later, but not before those that left earlier."""
        changed, self.changed[server] = self.changed[server], set()
        here = self.replicas[server]
        stored = b"".join(REPLICA.pack(chunk, here[chunk], 10) for chunk in changed if chunk in here)
        dropped = tuple(chunk for chunk in changed if chunk not in here)
        self.on_the_way[server].append(msg.Heartbeat(server, (DISK,), stored, dropped, ()))

    def arrive(self, server: int) -> None:
        if self.on_the_way[server]:
            assert self.follower.fleet.heartbeat(self.on_the_way[server].pop(0), 0.0) is not None

    async def tail(self) -> None:
        batch = self.source.batch()
        if batch is not None:
            await self.follower.take([batch])

    async def step(self) -> None:
        acts = ["add", "revise", "revise", "free", "copy", "lose", "tail", "tail", "report", "arrive"]
        what = self.random.choice(acts)
        server = self.random.choice(self.servers)
        if what == "tail":
            await self.tail()
        elif what in ("report", "arrive"):
            getattr(self, what)(server)
        elif what == "add" or self.files:
            getattr(self, what)()

    async def settle(self) -> None:
        await self.tail()
        for server in self.servers:
            self.report(server)
            while self.on_the_way[server]:
                self.arrive(server)

    def check(self) -> None:
        """The picture is the truth: who has a version that counts is in the set, who has an older one is not."""
        fleet, state = self.follower.fleet, self.follower.state
        for chunk in self.files:
            slot = state.chunks.slot_of(chunk)
            version = state.chunks.version[slot]
            good = {server for server in self.servers if self.replicas[server].get(chunk, 0) >= version}
            assert {server.server for server in fleet.holders(slot)} == good, chunk
            newest = max((replicas.get(chunk, 0) for replicas in self.replicas.values()), default=0)
            if newest > version:
                assert fleet.newest_version(slot) >= newest
        assert not fleet._early
        for server in fleet.servers:
            gone = {chunk for chunk in self.replicas[server.server] if chunk not in self.files}
            assert gone <= server.deletions.keys() | server.orphans.keys()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 80))
async def test_fault_16_reports_and_log_in_any_order_give_the_true_picture(seed: int, steps: int) -> None:
    world = World(seed)
    await world.tail()
    for server in world.servers:
        world.follower.fleet.register(msg.Register(server, b"", "h", server, (DISK,), 0, 0), 0.0)
        world.follower.fleet.report(world.follower.fleet.by_id[server], b"", last=True)
    for _ in range(steps):
        await world.step()
    await world.settle()
    world.check()


async def test_a_report_that_cannot_be_kept_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfsmaster.early.EARLY_MAX", 2)
    world = World(1)
    await world.tail()
    fleet = world.follower.fleet
    fleet.register(msg.Register(1, b"", "h", 1, (DISK,), 0, 0), 0.0)
    for _ in range(4):
        world.add()
    stored = b"".join(REPLICA.pack(chunk, 1, 10) for chunk in world.files)
    assert fleet.heartbeat(msg.Heartbeat(1, (DISK,), stored, (), ()), 0.0) is not None
    assert fleet.heartbeat(msg.Heartbeat(1, (DISK,), b"", (), ()), 0.0) is None
    fleet.register(msg.Register(1, b"", "h", 1, (DISK,), 0, 0), 0.0)
    await world.tail()
    fleet.report(fleet.by_id[1], stored, last=True)
    assert all(fleet.holders(world.follower.state.chunks.slot_of(chunk)) for chunk in world.files)


async def test_fault_22_what_no_log_explains_at_the_takeover_trips_the_brake() -> None:
    world = World(1)
    await world.tail()
    fleet = world.follower.fleet
    fleet.register(msg.Register(1, b"", "h", 1, (DISK,), 0, 10**6), 0.0)
    fleet.report(fleet.by_id[1], REPLICA.pack(10**6, 1, 10), last=True)
    assert not fleet.brake
    fleet.lead()
    assert "older than the data" in fleet.brake
