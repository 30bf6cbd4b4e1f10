"""Four gibibytes in and out: equal bytes, bounded memory everywhere, no bulk byte through the master."""

import filecmp
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gfsprotocol.ids import GIB, MIB
from tests.cluster.harness import BIN, Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.long]

FILE_BYTES = 4 * GIB
MEMORY_BYTES_MAX = 300 * MIB
CONTROL_BYTES_MAX = 32 * MIB


MEASURE = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
print(usage.ru_maxrss)
sys.exit(process.returncode)
"""
"""A small parent for what is measured: Linux counts the memory of whoever forked a process as that process's own peak,
and a test runner may have used far more than the limit that is checked here."""


def run_client(cluster: Cluster, *arguments: str) -> int:
    """Runs ``gfsclient``, which must succeed; its peak resident memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, BIN / "gfsclient", *arguments],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout.split()[-1]) * 1024


def test_the_measure_is_not_the_runners_own_memory() -> None:
    ballast = b"x" * (MEMORY_BYTES_MAX + 50 * MIB)
    command = [sys.executable, "-c", MEASURE, sys.executable, "-c", "pass"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 50 * MIB < len(ballast)


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def transferred_bytes(pid: int) -> int:
    """What a process has read and written through system calls, sockets included."""
    counters = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counters["rchar"]) + int(counters["wchar"])


def test_four_gibibytes_go_in_and_come_out(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    running = cluster(masters=2, chunkservers=3)
    source, copy = tmp_path / "source", tmp_path / "copy"
    block = os.urandom(MIB)
    with source.open("wb") as file:
        for number in range(FILE_BYTES // MIB):
            file.write(number.to_bytes(8, "little") + block[8:])
    masters = [record for record in running.records() if record.name.startswith("master")]
    before = {record.name: transferred_bytes(record.pid) for record in masters}
    assert running.gfsclient("mkdir", "/data").returncode == 0
    peaks = {
        "put": run_client(running, "put", str(source), "/data/bigfile"),
        "get": run_client(running, "get", "/data/bigfile", str(copy)),
    }
    assert filecmp.cmp(source, copy, shallow=False)
    for record in running.records():
        peaks[record.name] = peak_bytes(record.pid)
    control = {record.name: transferred_bytes(record.pid) - before[record.name] for record in masters}
    print({name: f"{peak / MIB:.0f} MiB" for name, peak in peaks.items()}, control)
    assert max(peaks.values()) < MEMORY_BYTES_MAX, peaks
    assert max(control.values()) < CONTROL_BYTES_MAX, control
    source.unlink()
    copy.unlink()
