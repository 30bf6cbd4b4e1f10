"""Which process a master node is, and how to end it when it has stopped with the log's lock in its hand.

HDFS's ZKFC fences by ssh and kill; on one host this is the same without ssh. An identity is boot id, pid namespace, pid
and start time, so nothing but that very process is ever ended: not one that got its number later, not one of another
host or container.
"""

import os
import select
import signal
from pathlib import Path
from typing import Final

END_SECONDS: Final = 5.0


def own_identity() -> str:
    """``boot/namespace/pid/start`` of this process; empty where /proc does not say."""
    pid = os.getpid()
    start = _look(pid)[1]
    return f"{_place()}/{pid}/{start}" if start else ""


def end(identity: str) -> str:
    """Ends the process with SIGKILL and waits until it is gone; never this one.

    What was done, or why nothing was; for people.
    """
    place, _, rest = identity.rpartition("/")[0].rpartition("/")
    start = identity.rpartition("/")[2]
    if not place or not rest.isdigit():
        return "it has not said which process it is"
    if place != _place():
        return "it runs on another host, or in another container"
    pid = int(rest)
    if identity == own_identity():
        # We led last, and somebody else has stopped with the lock.
        return "it is this very process, and another one has the lock"
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return f"process {pid} is gone"
    try:
        # The descriptor is of a process that was alive: if its start time is right now, it was the right one all along.
        if _look(pid)[1] != start:
            return f"process {pid} is gone, its number belongs to another"
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        watch = select.poll()
        watch.register(descriptor, select.POLLIN)
        if not watch.poll(END_SECONDS * 1000):
            return f"process {pid} was sent SIGKILL and is still there"
    except PermissionError:
        return f"process {pid} belongs to another user and cannot be ended from here"
    else:
        return f"process {pid} was ended"
    finally:
        os.close(descriptor)


def pid_of(identity: str) -> int:
    """The process id in an identity of this host and container; 0 if there is none."""
    parts = identity.rsplit("/", 2)
    return int(parts[1]) if len(parts) == 3 and parts[0] == _place() and parts[1].isdigit() else 0


def state_of(identity: str) -> str:
    """The state of a process as ps shows it, ``T`` for a stopped one; empty if it is gone, or not of this container."""
    state, start = _look(pid_of(identity))
    return state if start == identity.rpartition("/")[2] else ""


def lock_holders(file: Path) -> set[int]:
    """Processes of this container that hold a write lock on a part of a file; empty where the kernel does not say."""
    try:
        status = file.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return set()
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    holders = set()
    for line in lines:
        fields = line.split()
        if "->" not in fields and len(fields) >= 6 and fields[3] == "WRITE" and fields[5] == wanted:
            holders.add(int(fields[4]))
    return holders


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return "unknown"


def _look(pid: int) -> tuple[str, str]:
    """State, and start in clock ticks since the boot: fields 3 and 22 of proc(5); empty if there is no such process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    fields = status.rpartition(")")[2].split()
    return fields[0], fields[19]
