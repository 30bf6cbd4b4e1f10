"""A cluster of its own for a benchmark, started and ended by the operator's commands."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

GFS = Path(sys.executable).with_name("gfs")


def free_ports() -> int:
    """A base from which some hundred ports are free; below the range of outgoing connections."""
    for base in range(13000, 30000, 400):
        with contextlib.ExitStack() as stack:
            try:
                for offset in (0, 1, 100, 101, 102, 200, 201):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", base + offset))
            except OSError:
                continue
            return base
    raise SystemExit("no free ports for a cluster")


@contextlib.contextmanager
def running(directory: Path, journal: str = "", gateways: int = 0) -> Iterator[Path]:
    """A cluster with two masters and three chunk servers; gives its client.toml. ``journal``: where its log is."""
    environment = os.environ | {"XDG_STATE_HOME": str(directory / "state"), "GFS_CHUNKSERVER_RESERVE_BYTES": "0"}
    if journal:
        environment["GFS_JOURNAL"] = journal
    home = directory / "cluster"
    command = [str(GFS), "up", "--dir", str(home), "--port-base", str(free_ports()), "--detach"]
    command += ["--gateways", str(gateways)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield home / "client.toml"
    finally:
        subprocess.run([str(GFS), "down", "--dir", str(home)], check=True, env=environment, stdout=subprocess.DEVNULL)


def resident_bytes(pid: int) -> int:
    """Peak resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no memory figures")
