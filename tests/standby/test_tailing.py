"""A standby's link to its leader, and what happens between an election and the first record."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gfsmaster import operations as op
from gfsmaster.config import MasterConfig
from gfsmaster.oplog import Batch, Leadership
from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.channel import Channel, SystemClock, memory_pair
from gfsprotocol.errors import ConnectionLost, LogFailed
from gfsstandby.follower import Follower
from gfsstandby.node import Node
from gfsstandby.tailing import Tailing
from tests.conftest import ExpectedLogs
from tests.master.leading import KEY, Harness, leading, until
from tests.standby.test_follower import Source, WrittenLog


class UnreadableLog(WrittenLog):
    """A log that fails when it is read, as long as ``is_unreadable``."""

    def __init__(self) -> None:
        super().__init__()
        self.is_unreadable = False
        self.failures = 0

    async def read(self, after: int, previous: bytes | None) -> list[Batch]:
        if self.is_unreadable:
            self.failures += 1
            raise LogFailed("the journal cannot be reached")
        return await super().read(after, previous)


@contextlib.asynccontextmanager
async def tailing(harness: Harness, follower: Follower) -> AsyncIterator[tuple[Tailing, "asyncio.Task[None]"]]:
    """Follows a leader in this process."""
    served: list[asyncio.Task[None]] = []

    async def dial(_address: str) -> Channel:
        near, far = memory_pair("node-1", "master")

        async def serve() -> None:
            peer = await rpc.accept(far, "master", b"m", lambda _: KEY, harness.leader)
            await peer.run()

        served.append(asyncio.create_task(serve()))
        return near

    made = Tailing(follower, SystemClock(), dial, KEY, "node-1", "here:1", 5.0)
    made.follow(Leadership(harness.leader.epoch, "m", "there:1", 1))
    task = asyncio.create_task(made.run())
    try:
        yield made, task
    finally:
        for running in (task, *served):
            running.cancel()
        await asyncio.gather(task, *served, return_exceptions=True)


async def test_a_journal_that_cannot_be_read_while_a_gap_is_filled_does_not_end_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by simulation seed 34: the failure ended the task, and with it the node."""
    monkeypatch.setattr("gfsmaster.tailers.KEPT_BYTES_MAX", 0)  # all has to be read from the log
    log = UnreadableLog()
    async with leading(log) as harness:
        await until(lambda: harness.leader.committer.committed)
        log.is_unreadable = True
        follower = Follower(log, SystemClock())
        async with tailing(harness, follower) as (_, task):
            await until(lambda: log.failures or task.done())
            log.is_unreadable = False
            await until(lambda: follower.sequence == harness.leader.sequence or task.done())
            assert not task.done()


class OvertakenLog(WrittenLog):
    """A log in which node-2 wins epoch 3, and writes, before the winner of epoch 2 has read it to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.source = Source()
        self.write()
        self.epoch = 1
        self.beat = 0

    def write(self) -> None:
        batch = self.source.batch()
        assert batch is not None
        self.batches.append(batch)

    async def leadership(self) -> Leadership:
        if self.epoch == 3:
            self.beat += 1
        return Leadership(self.epoch, f"node-{self.epoch - 1}", "there:1", self.beat)

    async def campaign(self, seen: Leadership, address: str) -> Leadership | None:
        self.epoch = 3
        self.source.machine.log((op.BeginEpoch(3, "node-2"),))
        self.write()
        return Leadership(2, "node-1", address, seen.beat + 1)


@pytest.mark.slow
async def test_who_wins_an_epoch_that_is_over_when_it_has_read_the_log_goes_on_following(
    expected_logs: ExpectedLogs,
) -> None:
    """Found by simulation seed 200018: the old epoch's first record ended the node with StateDiverged."""
    expected_logs("node-1 cannot lead: epoch 2 is over already")
    log = OvertakenLog()

    async def dial(_address: str) -> Channel:
        raise ConnectionLost("nobody is there")

    config = MasterConfig(node="node-1", journal="sqlite://", secret_file=Path("unused"), lease_seconds=0.2)

    async def end_holder(_holder: Leadership) -> str:
        raise AssertionError("the log is not locked")

    node = Node(config, SystemClock(), b"s" * 32, log, dial, end_holder, random.Random(1))
    task = asyncio.create_task(node.run())
    await until(lambda: log.beat or task.done())
    log.source.machine.do(msg.Mkdir(b"/a"))
    log.write()
    await until(lambda: node.follower.sequence == log.source.machine.state.sequence or task.done())
    node.stop()
    await task
