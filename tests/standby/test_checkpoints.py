"""Nodes write checkpoints, start from them, and are never held up by them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from gfsmaster import checkpoint as encoding
from gfsmaster import checkpoints
from gfsmaster.config import MasterConfig
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import LogDamaged
from gfsstandby import checkpointer, snapshot
from gfsstandby.snapshot import PART, VERIFIED, Snapshot, SnapshotFailed
from tests import journals
from tests.conftest import ExpectedLogs
from tests.master.leading import until
from tests.master.machine import Machine
from tests.standby.nodes import Nodes, nodes

pytestmark = pytest.mark.slow
CLIENT = b"client-1client-1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointer, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(checkpointer, "AGAIN_SECONDS", 0.2)


def query(cluster: Nodes, statement: str, *values: object) -> list[tuple[Any, ...]]:
    return journals.query(cluster.journal_url, statement, *values)


def published(cluster: Nodes) -> list[int]:
    return [row[0] for row in query(cluster, "SELECT sequence FROM checkpoint ORDER BY sequence")]


async def make_files(cluster: Nodes, leader: int, first: int, count: int) -> None:
    async with cluster.client(leader, CLIENT) as client:
        for number in range(first, first + count):
            await client.call(msg.Create(b"/file-%d" % number, open=False), 10, (), msg.Call(number + 1, number + 1))


async def leader_and_standby(cluster: Nodes) -> None:
    cluster.start(0, genesis=True)
    await cluster.until_leading(0)
    cluster.start(1)
    async with asyncio.timeout(10):
        while (await cluster.status(0)).standbys == ():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def endless_checkpoint(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nodes]:
    """A leader, and a standby that writes a checkpoint for ever: each part is a long pause away from the next."""
    monkeypatch.setattr(encoding, "PART_BYTES_MAX", 1000)
    for share in ("BUSY_SHARE", "IDLE_SHARE"):
        monkeypatch.setattr(checkpointer, share, 1e-9)
    monkeypatch.setattr(checkpointer, "PAUSE_SECONDS_MAX", 1e9)
    async with nodes(directory, checkpoint_records=30) as cluster:
        await leader_and_standby(cluster)
        await make_files(cluster, 0, 0, 60)
        await until(lambda: query(cluster, "SELECT count(*) FROM checkpoint_part")[0][0] > 0)
        yield cluster


def children() -> list[psutil.Process]:
    """Those that were forked from this process, dead ones too; a database server for other tests is none of them."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE or child.cmdline() == psutil.Process().cmdline():
                found.append(child)
    return found


# ------------------------------------------------------------------------------------------------ the forked process


def test_a_snapshot_is_the_state_of_its_moment_verified() -> None:
    machine = Machine()
    for number in range(3000):
        machine.do(msg.Create(b"/file-%d" % number))
    digest = machine.state.digest()
    taken = Snapshot(machine.state)
    for number in range(1000):
        machine.do(msg.Create(b"/later-%d" % number))
    *parts, last = taken.frames()
    taken.close()
    assert last == (VERIFIED, digest)
    assert all(kind == PART for kind, _ in parts)
    state = encoding.decode([payload for _, payload in parts])
    assert (state.sequence, state.digest()) == (taken.sequence, digest)
    assert not children()


def test_a_state_whose_digest_is_wrong_is_not_verified() -> None:
    machine = Machine()
    machine.do(msg.Create(b"/file"))
    machine.state.digest()
    machine.state.inodes.size[2] += 1  # as a stray write would
    taken = Snapshot(machine.state)
    with pytest.raises(SnapshotFailed, match="is not that of its objects"):
        list(taken.frames())
    taken.close()


@pytest.mark.parametrize("parts", [0, 1, 5, 15])
def test_fault_5_a_child_killed_at_any_part_has_verified_nothing(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PART_BYTES_MAX", 64 << 10)
    machine = Machine()
    for number in range(20_000):
        machine.do(msg.Create(b"/file-%d" % number, open=False))
    # Far more is left than the pipe and its buffers hold: the child cannot be done before it is killed.
    descriptors = set(os.listdir("/proc/self/fd"))
    taken = Snapshot(machine.state)
    frames = taken.frames()
    for _ in range(parts):
        assert next(frames)[0] == PART
    taken.kill()
    with pytest.raises(SnapshotFailed):
        list(frames)
    taken.close()
    taken.kill()
    assert not children()
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_a_child_keeps_nothing_open(tmp_path: Path) -> None:
    machine = Machine()
    for number in range(8000):
        machine.do(msg.Create(b"/file-%d" % number, open=False))
    with (tmp_path / "other").open("w"):
        taken = Snapshot(machine.state)
        next(taken.frames())
        opened = [int(name) for name in os.listdir(f"/proc/{taken.pid}/fd")]
        assert len([number for number in opened if number > 2]) <= 2  # the pipe, and /proc's own at most
        taken.close()


def test_a_child_ends_with_its_parent() -> None:
    code = (
        "import time; from gfsstandby.snapshot import Snapshot; from tests.master.machine import Machine\n"
        "taken = Snapshot(Machine().state); print(taken.pid, flush=True); time.sleep(60)"
    )
    slow = "import gfsstandby.snapshot as s, time; s._send = lambda *_: time.sleep(60) or b''\n"
    with subprocess.Popen([sys.executable, "-c", slow + code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    deadline = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------- nodes


async def test_a_standby_writes_them_and_a_restart_begins_there(tmp_path: Path, journal_url: str) -> None:
    async with nodes(tmp_path, journal_url, checkpoint_records=30) as cluster:
        await leader_and_standby(cluster)
        total = 0
        for _ in range(3):
            before = published(cluster)
            await make_files(cluster, 0, total, 40)
            total += 40
            await until(lambda before=before: published(cluster)[-1:] > before[-1:])  # type: ignore[misc]
        await until(lambda: query(cluster, "SELECT min(first) FROM log")[0][0] > 1)
        assert {row[0] for row in query(cluster, "SELECT node FROM checkpoint_part")} == {"node-1"}
        await until(lambda: len(published(cluster)) == 2)
        await cluster.crash(1)
        await cluster.crash(0)
        assert not children()
        restarted = cluster.start(0)
        await cluster.until_leading(0)
        assert query(cluster, "SELECT min(first) FROM log")[0][0] > 1
        async with cluster.client(0, CLIENT) as client:
            for number in range(total):
                await client.call(msg.Stat(b"/file-%d" % number), 5)
            again = await client.call(
                msg.Create(b"/file-%d" % (total - 1), open=False), 5, (), msg.Call(total, total, retry=True)
            )
            assert isinstance(again.body, msg.AttributesReply)
        assert restarted.node.leader is not None
        state = restarted.node.leader.state
        assert state.recomputed_digest() == state.digest()


async def test_a_leader_that_is_alone_writes_them(tmp_path: Path) -> None:
    async with nodes(tmp_path, count=1, checkpoint_records=30) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        await make_files(cluster, 0, 0, 40)
        await asyncio.sleep(0.1)
        await make_files(cluster, 0, 40, 5)
        await until(lambda: published(cluster) != [])
        await cluster.stop(0)
        cluster.start(0)
        await cluster.until_leading(0)
        await make_files(cluster, 0, 45, 5)


async def test_a_leader_with_a_standby_leaves_them_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(tmp_path, checkpoint_records=10) as cluster:
        await leader_and_standby(cluster)
        leader = cluster.running[0][0].node.leader
        assert leader is not None
        assert not leader.may_checkpoint
        await make_files(cluster, 0, 0, 30)
        await until(lambda: published(cluster) != [])
        assert {row[0] for row in query(cluster, "SELECT node FROM checkpoint_part")} == {"node-1"}
        await cluster.crash(1)
        await until(lambda: leader.may_checkpoint)


async def test_a_takeover_does_not_wait_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with endless_checkpoint(tmp_path, monkeypatch) as cluster:
        await until(lambda: len(children()) == 1)
        await cluster.crash(0)
        begun = asyncio.get_running_loop().time()
        await cluster.until_leading(1)
        assert asyncio.get_running_loop().time() - begun < 3.0
        await until(lambda: not children(), 3.0)
        assert published(cluster) == []
        for share in ("BUSY_SHARE", "IDLE_SHARE"):
            monkeypatch.setattr(checkpointer, share, 1.0)
        await make_files(cluster, 1, 60, 40)
        await asyncio.sleep(0.1)
        await make_files(cluster, 1, 100, 5)
        await until(lambda: published(cluster) != [])
        unpublished = "SELECT count(*) FROM checkpoint_part WHERE attempt NOT IN (SELECT attempt FROM checkpoint)"
        await until(lambda: query(cluster, unpublished)[0][0] == 0)


async def test_a_node_that_ends_takes_its_checkpoint_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with endless_checkpoint(tmp_path, monkeypatch) as cluster:
        async with asyncio.timeout(5):
            assert await cluster.stop(1) == 0
        assert not children()


@pytest.mark.parametrize("after", [1, 10])
async def test_fault_5_an_attempt_whose_process_is_killed_is_given_up_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs, after: int
) -> None:
    expected_logs("node-1 has given up a checkpoint, and tries again in .*: the process that encodes it has ended")
    monkeypatch.setattr(encoding, "PART_BYTES_MAX", 1000)
    frames = Snapshot.frames
    killed: list[int] = []

    def killing(self: Snapshot) -> Any:
        for number, frame in enumerate(frames(self)):
            if number == after and not killed:
                killed.append(self.pid)
                os.kill(self.pid, signal.SIGKILL)
            yield frame

    monkeypatch.setattr(Snapshot, "frames", killing)
    monkeypatch.setattr(snapshot, "_send", _slowly(snapshot._send))
    async with nodes(tmp_path, checkpoint_records=30) as cluster:
        await leader_and_standby(cluster)
        await make_files(cluster, 0, 0, 60)
        await until(lambda: published(cluster) != [])
        assert killed


def _slowly(send: Callable[[State, Any], bytes]) -> Callable[[State, Any], bytes]:
    """The child has not written all when the parent sees its first parts."""

    class Unbuffered:
        def __init__(self, pipe: Any) -> None:
            self._pipe = pipe

        def write(self, data: bytes) -> None:
            self._pipe.write(data)
            self._pipe.flush()
            time.sleep(0.01)

    return lambda state, pipe: send(state, Unbuffered(pipe))


async def test_fault_29_a_full_disk_stops_neither_leader_nor_standby(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    expected_logs("node-1 has given up a checkpoint, and tries again in .*: the journal cannot be written: .* is full")
    monkeypatch.setattr(encoding, "PART_BYTES_MAX", 1000)
    async with nodes(tmp_path, checkpoint_records=30) as cluster:
        await leader_and_standby(cluster)
        query(
            cluster,
            "CREATE TRIGGER full BEFORE INSERT ON checkpoint_part WHEN new.number > 3 "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
        )
        await make_files(cluster, 0, 0, 60)
        failing = cluster.running[1][0]._checkpointer
        assert failing is not None
        await until(lambda: failing._not_before > 0)
        await make_files(cluster, 0, 60, 20)
        await until(lambda: cluster.running[1][0].node.follower.state.sequence >= 80)
        assert published(cluster) == []
        query(cluster, "DROP TRIGGER full")
        await until(lambda: published(cluster) != [])


async def test_fault_7_a_damaged_newest_one_is_passed_over_with_a_warning(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("the checkpoint at record .* is damaged: part 2 of .* is passed over")
    async with nodes(tmp_path, checkpoint_records=30) as cluster:
        await leader_and_standby(cluster)
        total = 0
        while len(published(cluster)) < 2:
            before = published(cluster)
            await make_files(cluster, 0, total, 40)
            total += 40
            await until(lambda before=before: published(cluster) != before)  # type: ignore[misc]
        await cluster.stop(1)
        await cluster.stop(0)
        newest = query(cluster, "SELECT attempt FROM checkpoint ORDER BY sequence DESC")[0][0]
        query(cluster, "UPDATE checkpoint_part SET payload = x'0102' WHERE attempt = ? AND number = 2", newest)
        node = cluster.start(0)
        await cluster.until_leading(0)
        assert node.node.leader is not None
        assert len(node.node.leader.state.inodes) == total + 1


async def test_a_standby_that_slept_through_the_trimming_goes_on(
    tmp_path: Path, journal_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "TRIMMED_ROWS", 4)
    async with nodes(tmp_path, journal_url, count=3, checkpoint_records=20) as cluster:
        await leader_and_standby(cluster)
        sleeper = cluster.start(2)
        await cluster.status(2)
        await until(lambda: sleeper.node.follower.is_ready)
        async with sleeper.node.follower._applying:  # it hears, and applies nothing
            total = 0
            while query(cluster, "SELECT min(first) FROM log")[0][0] == 1:
                await make_files(cluster, 0, total, 25)
                total += 25
        await until(lambda: sleeper.node.follower.state.sequence >= total)
        state = sleeper.node.follower.state
        assert state.recomputed_digest() == state.digest()


async def test_a_log_that_begins_in_the_middle_without_a_checkpoint_is_refused(
    tmp_path: Path,
) -> None:
    async with nodes(tmp_path) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        await make_files(cluster, 0, 0, 10)
        await cluster.stop(0)
        query(cluster, "DELETE FROM log WHERE first < 5")
        cluster.start(0)
        _, task = cluster.running.pop(0)
        with pytest.raises(LogDamaged, match="begins with record 5, and has no intact checkpoint"):
            await task


async def test_another_checkpoint_is_due_after_records_or_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(tmp_path, checkpoint_records=10_000) as cluster:
        configured = cluster.config

        def config(number: int, genesis: bool = False) -> MasterConfig:
            return configured(number, genesis).model_copy(update={"checkpoint_seconds": 0.3})

        monkeypatch.setattr(cluster, "config", config)
        await leader_and_standby(cluster)
        await make_files(cluster, 0, 0, 3)
        await until(lambda: published(cluster) != [])
