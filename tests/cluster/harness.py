"""Clusters of real processes for tests: started by ``gfs up``, killed, paused, started again, and always ended."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfscluster import processes
from gfscluster.layout import Layout
from gfscluster.processes import Record
from gfscluster.shape import CHUNKSERVER_PORT_OFFSET, GATEWAY_PORT_OFFSET

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

READY_SECONDS = 60.0
BIN = Path(sys.executable).parent
# Below the range from which the kernel gives ports to outgoing connections.
PORTS = range(12000, 31000)

Completed = subprocess.CompletedProcess[bytes]


class Cluster:
    """One cluster in a directory of its own, with settings by environment: ``master={"lease_seconds": 0.5}``."""

    def __init__(
        self,
        directory: Path,
        masters: int = 2,
        chunkservers: int = 3,
        replication: int | None = None,
        master: Mapping[str, object] | None = None,
        chunkserver: Mapping[str, object] | None = None,
        journal: str | None = None,
        gateways: int = 0,
        gateway: Mapping[str, object] | None = None,
    ) -> None:
        self.layout = Layout(directory)
        self.directory = directory
        self._masters = masters
        self._chunkservers = chunkservers
        self._replication = replication
        self._gateways = gateways
        self.journal_url = journal or f"sqlite:///{directory / 'journal.sqlite'}"
        self.port_base = free_port_base(masters, chunkservers, gateways)
        self.environment = {
            **os.environ,
            **({"GFS_JOURNAL": journal} if journal else {}),
            "GFS_CONFIG": str(self.layout.client_file),
            "XDG_STATE_HOME": str(directory.with_name(directory.name + "-state")),
            **_variables("GFS_MASTER_", master or {}),
            # Tests fill no disk: what the machine has free is no concern of theirs.
            **_variables("GFS_CHUNKSERVER_", {"reserve_bytes": 0} | dict(chunkserver or {})),
            **_variables("GFS_GATEWAY_", gateway or {}),
        }

    # ------------------------------------------------------------------------------------------------- the whole

    def up(self) -> None:
        """Starts everything, the first time or again; returns when it is ready."""
        arguments = ["--masters", str(self._masters), "--chunkservers", str(self._chunkservers)]
        arguments += ["--gateways", str(self._gateways)]
        if self._replication is not None:
            arguments += ["--replication", str(self._replication)]
        done = self.gfs(
            "up", "--dir", str(self.directory), *arguments, "--port-base", str(self.port_base), "--detach",
            timeout_seconds=READY_SECONDS + 60,
        )  # fmt: skip
        assert done.returncode == 0, f"gfs up failed: {done.stderr.decode()}\n{self.logs()}"

    def down(self) -> None:
        """Stops everything gracefully."""
        done = self.gfs("down", "--dir", str(self.directory))
        assert done.returncode == 0, done.stderr.decode()

    def kill_all(self) -> None:
        """SIGKILL for every process, as close to each other as can be: a power cut that spares the page cache."""
        records = self.records()
        for record in records:
            processes.send(record, signal.SIGKILL)
        for record in records:
            processes.kill(record)

    def stop(self) -> None:
        """Ends what still runs; for the end of a test."""
        for record in self.records():
            processes.send(record, signal.SIGCONT)
        self.kill_all()

    # ------------------------------------------------------------------------------------------ single processes

    def records(self) -> list[Record]:
        return processes.recorded(self.layout)

    def record(self, name: str) -> Record:
        return next(record for record in self.records() if record.name == name)

    def kill(self, name: str) -> None:
        """SIGKILL; returns when the process is gone."""
        processes.kill(self.record(name))

    def pause(self, name: str) -> None:
        assert processes.send(self.record(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        assert processes.send(self.record(name), signal.SIGCONT)

    def restart(self, name: str) -> None:
        """Starts a process that was killed; the environment's settings hold for it too."""
        done = self.gfs("start", name, "--dir", str(self.directory))
        assert done.returncode == 0, done.stderr.decode()

    def gateway_url(self, number: int = 1) -> str:
        """Where a gateway answers."""
        return f"http://127.0.0.1:{self.port_base + GATEWAY_PORT_OFFSET + number - 1}"

    def data_directory(self, name: str) -> Path:
        """Where a chunk server keeps its chunks."""
        return self.directory / name / "disk-1"

    def log(self, name: str) -> str:
        return self.layout.log_file(name).read_text(errors="replace")

    def logs(self) -> str:
        """The ends of all logs, for the message of a failed test."""
        files = sorted((self.directory / "logs").glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    # ------------------------------------------------------------------------------------------------ use of it

    async def client(self, **options: Any) -> "FileSystem":
        """A connected async file system, to be closed by the caller."""
        from gfsclient.config import load_config
        from gfsclient.filesystem import FileSystem

        config = load_config(self.layout.client_file)
        return await FileSystem.connect(config.masters, config.key, config=config, **options)

    def gfs(self, *arguments: str, timeout_seconds: float = 60.0) -> Completed:
        return self._run("gfs", arguments, None, timeout_seconds)

    def gfsclient(self, *arguments: str, input: bytes | None = None, timeout_seconds: float = 60.0) -> Completed:
        """Runs the command line; nothing is asserted about how it ends."""
        return self._run("gfsclient", arguments, input, timeout_seconds)

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Starts ``gfsclient`` and leaves it to the caller to wait for it."""
        options.setdefault("env", self.environment)
        return subprocess.Popen([BIN / "gfsclient", *arguments], **options)

    def status(self) -> dict[str, Any]:
        """What ``gfs status --json`` says."""
        answer: dict[str, Any] = json.loads(self.gfs("status", "--json").stdout)
        return answer

    def wait_for(self, what: str, condition: Callable[[dict[str, Any]], bool], seconds: float = 30.0) -> dict[str, Any]:
        """Polls the status until ``condition`` holds; fails, naming ``what``, if it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition(status := self.status()):
            assert time.monotonic() < deadline, f"not in time: {what}; status {status}\n{self.logs()}"
            time.sleep(0.05)
        return status

    def _run(self, program: str, arguments: tuple[str, ...], input: bytes | None, timeout_seconds: float) -> Completed:
        return subprocess.run(
            [BIN / program, *arguments],
            env=self.environment,
            capture_output=True,
            input=input if input is not None else b"",
            timeout=timeout_seconds,
            check=False,
        )


@contextlib.contextmanager
def running(directory: Path, masters: int = 1, chunkservers: int = 2, gateways: int = 0) -> Iterator[Cluster]:
    """A running cluster in a directory that does not exist yet."""
    made = Cluster(directory, masters, chunkservers, gateways=gateways)
    try:
        made.up()
        yield made
    finally:
        made.stop()


def wait_until(what: str, condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Polls until ``condition`` holds; fails, naming ``what``, if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def free_port_base(masters: int, chunkservers: int, gateways: int = 0) -> int:
    """A port base of which all ports that a cluster would use are free just now."""
    for _ in range(100):
        base = random.choice(PORTS)
        offsets = [*range(masters), *range(CHUNKSERVER_PORT_OFFSET, CHUNKSERVER_PORT_OFFSET + chunkservers)]
        offsets += range(GATEWAY_PORT_OFFSET, GATEWAY_PORT_OFFSET + gateways)
        if all(_is_free(base + offset) for offset in offsets):
            return base
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _variables(prefix: str, settings: Mapping[str, object]) -> dict[str, str]:
    return {f"{prefix}{name}".upper(): str(value) for name, value in settings.items()}
