"""Ending the process that holds the log's lock: that very process, and never oneself."""

import subprocess
import sys

import pytest

from gfsmaster.processes import end, own_identity


def test_a_process_never_ends_itself() -> None:
    """Found by simulation seed 15: a deposed leader met the lock of another candidate that had stopped."""
    assert "this very process" in end(own_identity())


@pytest.mark.slow
def test_a_number_that_belongs_to_another_process_by_now_is_left_alone() -> None:
    place = own_identity().rpartition("/")[0].rpartition("/")[0]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert "belongs to another" in end(f"{place}/{other.pid}/1")
        assert other.poll() is None
        assert other.stdin is not None
        other.stdin.write(b"\n")
    assert end(f"{place}/{other.pid}/1") == f"process {other.pid} is gone"
