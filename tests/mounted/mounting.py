"""A mount of a real cluster for tests: mounted, killed, mounted again, and always unmounted.

With ``GFS_TESTS_MOUNT_LOCALLY=1`` a plain directory stands in for the mount: what fails then is a defect of the test.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from tests.cluster.harness import BIN, Cluster, wait_until

LOCALLY = bool(os.environ.get("GFS_TESTS_MOUNT_LOCALLY"))
REQUIRED = "GFS_TESTS_NEED_MOUNT"
"""Set in the environment: where FUSE or a program is missing, the tests fail instead of being skipped."""
READY_SECONDS = 60.0
END_SECONDS = 60.0
PATIENCE_SECONDS = 120.0
"""How long a program may take on the mount before its daemon is killed, so that a hang becomes a failure."""


class Mount:
    """One mount of a cluster at a directory that every user can reach. ``name`` tells it from others of one test."""

    def __init__(self, cluster: Cluster | None, name: str = "mount", *options: str) -> None:
        self.cluster = cluster
        self._home = Path(tempfile.mkdtemp(prefix=f"gfs-{name}-"))
        self._home.chmod(0o755)
        self.path = self._home / "mnt"
        self.path.mkdir()
        self._options = options or ("-o", "allow_other")
        self._log = self._home / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        """Returns when the directory is the mount."""
        if self.cluster is None:
            return
        with self._log.open("ab") as log:
            self._process = self.cluster.popen(
                "mount", str(self.path), *self._options, "--foreground",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(f"mounted\n{self.log()}", self._answers, READY_SECONDS)

    def unmount(self) -> int:
        """As a user does, who has closed everything; the exit status of the daemon, which flushes before it ends."""
        if self.cluster is None or self._process is None:
            return 0
        done = self.cluster.gfsclient("umount", str(self.path), timeout_seconds=END_SECONDS)
        assert done.returncode == 0, f"umount: {done.stderr.decode()}\n{self.log()}"
        code = self._process.wait(END_SECONDS)
        self._process = None
        return code

    def daemons(self) -> list[psutil.Process]:
        """The process that was started, and those that it has started: with ``--supervise``, the one that serves."""
        if self._process is None:
            return []
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def abort(self) -> None:
        """Kills the daemon: whoever waits for the mount gets an error."""
        for daemon in self.daemons():
            with contextlib.suppress(psutil.NoSuchProcess):
                daemon.kill()
        if self._process is not None:
            self._process.wait(END_SECONDS)

    def remove(self) -> None:
        """The end of a test, however it went: nothing of the mount remains."""
        try:
            if self._process is not None and self._process.poll() is None and os.path.ismount(self.path):
                self.unmount()
        finally:
            self.abort()
            while is_mounted(self.path):
                subprocess.run(["fusermount3", "-u", "-z", str(self.path)], check=True, capture_output=True)
            shutil.rmtree(self._home)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-6000:] if self._log.exists() else ""

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the mount has ended with {self._process.returncode}\n{self.log()}"
        return is_mounted(self.path) and os.path.ismount(self.path)

    # ------------------------------------------------------------------------------------------- programs on it

    def run(self, *command: object, cwd: Path | None = None, seconds: float = PATIENCE_SECONDS, status: int = 0) -> str:
        """Runs a program that is to end with ``status``; its standard output. One that hangs fails."""
        with self.watched(seconds), tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=program_environment(),
            )
            code = process.wait()
            output.seek(0)
            errors.seek(0)
            text, said = output.read().decode(errors="replace"), errors.read().decode(errors="replace")
        shown = " ".join(map(str, command))
        assert code == status, f"{shown} ended with {code}\n{text[-4000:]}\n{said[-4000:]}\n--- mount\n{self.log()}"
        return text

    @contextlib.contextmanager
    def watched(self, seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
        """Kills the daemon if what is inside takes too long: a process that waits for FUSE cannot be killed itself."""
        timer = threading.Timer(seconds, self.abort)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def is_mounted(path: Path) -> bool:
    """Whether the kernel has a mount there, dead or alive."""
    entries = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(entry.split()[4] == str(path) for entry in entries)


def program_environment() -> dict[str, str]:
    """Nothing of the user's own configuration, and the C locale's messages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "GFS_", "LC_"))}
    git = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}
    people = {f"GIT_{who}_{what}": "tests@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**kept, **git, **people, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


def mountable_reason() -> str | None:
    """Why nothing can be mounted here; None if something can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is missing or may not be used"
    if shutil.which("fusermount3") is None:
        return "there is no fusermount3 (Debian: apt-get install fuse3)"
    if os.getuid():
        return "only root mounts for other users here"
    done = subprocess.run([BIN / "python", "-c", "import pyfuse3"], capture_output=True, check=False)
    return "pyfuse3 is not installed" if done.returncode else None


def do_without(missing: str) -> NoReturn:
    """Skips a test for what is missing, or fails it where nothing may be."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{missing}, and {REQUIRED} is set", pytrace=False)
    pytest.skip(missing)


def need(program: str, package: str | None = None) -> str:
    """The path of a program; without it the test is skipped, or fails."""
    return shutil.which(program) or do_without(f"there is no {program} (Debian: apt-get install {package or program})")
