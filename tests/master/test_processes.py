"""Whose lock it is, and who may be ended for it."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfsmaster import processes
from gfsmaster.oplog import Leadership, OperationLog

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(journal: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the lock of an SQLite file."""
    arguments = [sys.executable, "-c", HOLD, str(journal)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def identity_of(pid: int) -> str:
    place = processes.own_identity().rsplit("/", 2)[0]
    return f"{place}/{pid}/{processes._start_time(pid)}"


@pytest.mark.slow
def test_a_leader_is_not_ended_for_a_lock_that_another_process_holds(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    log = OperationLog(f"sqlite:///{journal}", "node-1")
    with contextlib.closing(log):
        log.prepare(genesis=True)
        with holder(journal) as stranger, subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as leader:
            said = log.end_holder(Leadership(1, "node-2", "", 1, identity_of(leader.pid)))
            assert f"process {stranger.pid}, which is not the leader" in said
            assert leader.poll() is None
            leader.kill()


@pytest.mark.slow
def test_a_leader_that_holds_the_lock_is_ended(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    log = OperationLog(f"sqlite:///{journal}", "node-1")
    with contextlib.closing(log):
        log.prepare(genesis=True)
        with holder(journal) as leader:
            assert log.end_holder(Leadership(1, "node-2", "", 1, identity_of(leader.pid))) == (
                f"process {leader.pid} was ended"
            )
            assert leader.wait() == -9


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
