"""The processes of a cluster on this host: started, recognised again, and ended, by their own ids only.

A record in ``D/run`` names a process by id, start time and boot, so a number that was given to a stranger since is
never mistaken for ours; signals go through a pidfd that was opened before the check.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gfscluster.layout import Layout, write_private
from gfsprotocol.errors import ConfigurationError, StartupError

LOG_BYTES_MAX: Final = 16 * 1024 * 1024
STOP_SECONDS: Final = 20.0
KILL_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Record:
    """A started process."""

    name: str
    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: when it started, since boot."""
    boot: str

    @property
    def kind(self) -> str:
        """The command that it runs: master, chunkserver or gateway."""
        return kind_of(self.name)


STOP_ORDER: Final = ("gateway", "chunkserver", "master")
"""Who uses another is stopped before it."""


def kind_of(name: str) -> str:
    """The kind of process that has this name: ``chunkserver-2`` is a chunkserver."""
    return name.partition("-")[0]


def start(layout: Layout, name: str, genesis: bool = False) -> subprocess.Popen[bytes]:
    """Starts a process of the cluster in a session of its own, and records it."""
    arguments = [sys.executable, "-m", "gfscluster", kind_of(name), "--config", str(layout.config_file(name))]
    if genesis:
        arguments.append("--genesis")
    log_file = layout.log_file(name)
    log_file.parent.mkdir(mode=0o700, exist_ok=True)
    if log_file.exists() and log_file.stat().st_size > LOG_BYTES_MAX:
        log_file.replace(log_file.with_suffix(".log.1"))
    with log_file.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=layout.directory,
            start_new_session=True,
        )
    layout.run_directory.mkdir(mode=0o700, exist_ok=True)
    write_private(_record_file(layout, name), json.dumps(asdict(observe(name, child.pid))) + "\n")
    return child


def observe(name: str, pid: int) -> Record:
    """What identifies the process that has this id now."""
    return Record(name, pid, _stat(pid)[1], _boot())


def recorded(layout: Layout) -> list[Record]:
    """What was started and not yet cleared away, running or not, in order of name."""
    found = []
    for file in sorted(layout.run_directory.glob("*.json")):
        try:
            found.append(Record(**json.loads(file.read_text())))
        except FileNotFoundError:
            continue  # somebody stops the cluster at this moment
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{file} is not a record of a process: {error}") from error
    return found


def forget(layout: Layout, name: str) -> None:
    """Removes the record of a process that has ended."""
    _record_file(layout, name).unlink(missing_ok=True)


def is_running(record: Record) -> bool:
    """Whether this very process still runs."""
    with _handle(record) as handle:
        return handle is not None


def send(record: Record, number: signal.Signals) -> bool:
    """Signals the process; False if it has ended."""
    with _handle(record) as handle:
        if handle is None:
            return False
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        return True


def wait_until_ended(record: Record, deadline: float) -> bool:
    """Whether the process ended before ``deadline`` (monotonic seconds)."""
    with _handle(record) as handle:
        if handle is None:
            return True
        ready = select.poll()
        ready.register(handle, select.POLLIN)
        return bool(ready.poll(max(0.0, deadline - time.monotonic()) * 1000))


def stop(layout: Layout, records: list[Record], stop_seconds: float = STOP_SECONDS) -> list[Record]:
    """Ends processes, gateways before chunk servers before masters; returns those that had to be killed.

    StartupError if one cannot be ended even so.
    """
    killed = []
    for group in ([record for record in records if record.kind == kind] for kind in STOP_ORDER):
        for record in group:
            send(record, signal.SIGTERM)
        deadline = time.monotonic() + stop_seconds
        for record in group:
            if not wait_until_ended(record, deadline):
                killed.append(record)
                kill(record)
            forget(layout, record.name)
    return killed


def kill(record: Record) -> None:
    """Ends a process at once; returns when it is gone."""
    send(record, signal.SIGKILL)
    if not wait_until_ended(record, time.monotonic() + KILL_SECONDS):
        raise StartupError(f"{record.name} (process {record.pid}) does not end, even when killed")


@contextmanager
def _handle(record: Record) -> Iterator[int | None]:
    """A pidfd of exactly this process, or None if it has ended."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor if _is_same(record) else None
    finally:
        os.close(descriptor)


def _is_same(record: Record) -> bool:
    try:
        state, start_ticks = _stat(record.pid)
    except FileNotFoundError:
        return False
    return state not in "ZX" and start_ticks == record.start_ticks and _boot() == record.boot


def _stat(pid: int) -> tuple[str, int]:
    """State and start time; the name before them is in parentheses and may hold anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError as error:
        raise FileNotFoundError(pid) from error
    return fields[0], int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _record_file(layout: Layout, name: str) -> Path:
    return layout.run_directory / f"{name}.json"
