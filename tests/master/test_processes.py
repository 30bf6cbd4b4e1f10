"""Whose lock it is, and who may be ended for it."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfsmaster import databases, processes
from gfsmaster.oplog import Leadership, OperationLog
from gfsprotocol.errors import LogLocked
from tests.conftest import ExpectedLogs
from tests.journals import execute
from tests.standby.nodes import nodes

HOLD = """
import sqlite3, sys
from gfsmaster.oplog import OperationLog
path, node = sys.argv[1:]
if node:
    OperationLog(f"sqlite:///{path}", node).introduce()
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
LED_LAST = Leadership(1, "node-2", "", 1, "another/boot/1/2")
"""A leader that is gone."""


@contextlib.contextmanager
def holder(journal: Path, node: str = "") -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the lock of an SQLite file; one of a master node, if it is named."""
    arguments = [sys.executable, "-c", HOLD, str(journal), node]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def identity_of(pid: int) -> str:
    place = processes.own_identity().rsplit("/", 2)[0]
    return f"{place}/{pid}/{processes._look(pid)[1]}"


def stop(process: "subprocess.Popen[str]") -> None:
    """By SIGSTOP; returns when it has."""
    process.send_signal(signal.SIGSTOP)
    until = time.monotonic() + 10
    while processes.state_of(identity_of(process.pid)) != "T":
        assert time.monotonic() < until
        os.sched_yield()


@contextlib.contextmanager
def opened(journal: Path) -> Iterator[OperationLog]:
    """The log of node-1, new if there is none."""
    with contextlib.closing(OperationLog(f"sqlite:///{journal}", "node-1")) as log:
        log.prepare(genesis=True)
        yield log


@pytest.mark.slow
def test_a_leader_is_not_ended_for_a_lock_that_another_process_holds(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    with (
        opened(journal) as log,
        holder(journal) as stranger,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as leader,
    ):
        said = log.end_holder(Leadership(1, "node-2", "", 1, identity_of(leader.pid)))
        assert f"process {stranger.pid}, which is no master and is left alone" in said
        assert leader.poll() is None
        leader.kill()


@pytest.mark.slow
def test_a_leader_that_holds_the_lock_is_ended(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    with opened(journal) as log, holder(journal) as leader:
        assert log.end_holder(Leadership(1, "node-2", "", 1, identity_of(leader.pid))) == (
            f"process {leader.pid} was ended"
        )
        assert leader.wait() == -9


@pytest.mark.slow
def test_a_candidate_that_has_stopped_with_the_lock_is_ended(tmp_path: Path) -> None:
    """The row of the log names the leader before; found by the simulation."""
    journal = tmp_path / "journal.sqlite"
    with opened(journal) as log, holder(journal, "node-3") as candidate:
        stop(candidate)
        with pytest.raises(LogLocked):
            log.campaign(log.leadership(), "here:1")
        assert log.end_holder(LED_LAST) == f"the lock is held by node-3, and process {candidate.pid} was ended"
        assert candidate.wait() == -9
        assert log.campaign(log.leadership(), "here:1") is not None


@pytest.mark.slow
def test_a_node_that_has_the_lock_gets_time_to_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "journal.sqlite"
    with opened(journal) as log, holder(journal, "node-3") as candidate:
        left_alone = f"the lock is held by node-3, process {candidate.pid}, which gets time to let go"
        assert log.end_holder(LED_LAST) == left_alone
        assert log.end_holder(LED_LAST) == left_alone
        monkeypatch.setattr(databases, "SILENT_SECONDS", 0.0)
        assert "was ended" in log.end_holder(LED_LAST)
        assert candidate.wait() == -9


@pytest.mark.slow
def test_a_stranger_that_has_stopped_with_the_lock_is_left_alone(tmp_path: Path) -> None:
    """Also if a node had its process number once."""
    journal = tmp_path / "journal.sqlite"
    with opened(journal) as log, holder(journal) as stranger:
        stop(stranger)
        assert "which is no master and is left alone" in log.end_holder(LED_LAST)
        stranger.send_signal(signal.SIGCONT)
        stranger.communicate("")
    with opened(journal) as log, holder(journal) as stranger:
        stop(stranger)
        earlier = f"{identity_of(stranger.pid).rpartition('/')[0]}/1"
        assert "which is no master and is left alone" in log._database.end("", {"node-3": earlier})


@pytest.mark.slow
def test_who_has_resigned_is_not_ended_for_the_lock(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    with opened(journal) as log, subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as resigned:
        log.end_holder(Leadership(1, "", "", 1, identity_of(resigned.pid)))
        assert resigned.poll() is None
        resigned.kill()


def test_a_node_says_once_which_process_it_is(tmp_path: Path) -> None:
    """In a database that an older version has made as in one of ours, and in the place of the process before."""
    journal = tmp_path / "journal.sqlite"
    with opened(journal) as log:
        execute(f"sqlite:///{journal}", "INSERT INTO meta VALUES ('node:node-1', 'another/boot/1/2')")
        log.introduce()
        assert log._nodes() == {"node-1": processes.own_identity()}
        execute(f"sqlite:///{journal}", "DELETE FROM meta WHERE name LIKE 'node:%'")
        log.introduce()
        assert log._nodes() == {}


@pytest.mark.slow
@pytest.mark.parametrize("resigns", [False, True])
async def test_an_election_goes_on_when_a_candidate_has_stopped_with_the_lock(
    tmp_path: Path, expected_logs: ExpectedLogs, resigns: bool
) -> None:
    expected_logs("node-1 waits for the journal: .* is locked", "the lock is held by node-2, and process .* was ended")
    async with nodes(tmp_path) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        assert execute(cluster.journal_url, "SELECT count(*) FROM meta WHERE name = 'node:node-0'") == [(1,)]
        await (cluster.stop(0) if resigns else cluster.crash(0))
        with holder(tmp_path / "journal.sqlite", "node-2") as candidate:
            stop(candidate)
            cluster.start(1)
            assert (await cluster.until_leading(1)).epoch == 2
            assert candidate.wait() == -9


def test_lock_holders(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE thing (a)")
        locked = Path(f"{journal}-shm")
        assert processes.lock_holders(locked) == set()
        connection.execute("BEGIN IMMEDIATE")
        assert processes.lock_holders(locked) == {processes.pid_of(processes.own_identity())}
        connection.execute("ROLLBACK")
        assert processes.lock_holders(locked) == set()
    assert processes.lock_holders(tmp_path / "nothing") == set()


def test_pid_of_an_identity_from_elsewhere() -> None:
    assert processes.pid_of("") == 0
    assert processes.pid_of("another/boot/1/2") == 0


def test_a_process_never_ends_itself() -> None:
    """Found by simulation seed 15: a deposed leader met the lock of another candidate that had stopped."""
    assert "this very process" in processes.end(processes.own_identity())


@pytest.mark.slow
def test_a_number_that_belongs_to_another_process_by_now_is_left_alone() -> None:
    place = processes.own_identity().rpartition("/")[0].rpartition("/")[0]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert "belongs to another" in processes.end(f"{place}/{other.pid}/1")
        assert other.poll() is None
        assert other.stdin is not None
        other.stdin.write(b"\n")
    assert processes.end(f"{place}/{other.pid}/1") == f"process {other.pid} is gone"
