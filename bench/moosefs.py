"""A MooseFS of the benchmark's own, from Debian's packages: a master, three chunk servers, three copies, one mount.

It refuses loopback addresses, so it lives in a network namespace of its own with a private address on its loopback
interface; that takes root. Its mount is seen from everywhere.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ADDRESS = "10.77.0.1"
COPIES = 3
EMPTY_METADATA = Path("/var/lib/mfs/metadata.mfs.empty")
PROGRAMS = ("mfsmaster", "mfschunkserver", "mfsmount", "mfssetgoal", "mfscli", "ip", "nsenter")
READY_SECONDS = 60.0


def missing() -> str | None:
    """Why it cannot be started here; None if it can."""
    if os.getuid():
        return "MooseFS needs root here"
    absent = [program for program in PROGRAMS if _find(program) is None]
    if absent or not EMPTY_METADATA.exists():
        packages = "moosefs-master moosefs-chunkserver moosefs-client moosefs-cli iproute2"
        return f"no {absent[0] if absent else EMPTY_METADATA} (Debian: apt-get install {packages})"
    return None


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Path]:
    """Gives the mounted directory; files in it are kept in three copies."""
    with _namespace() as inside, contextlib.ExitStack() as daemons:
        (directory / "mnt").mkdir(parents=True)
        _start(daemons, inside, "mfsmaster", _master_file(directory))
        for number in range(1, COPIES + 1):
            _start(daemons, inside, "mfschunkserver", _chunkserver_file(directory, number))
        _wait_for_chunkservers(inside)
        _call(*inside, "mfsmount", directory / "mnt", "-H", ADDRESS)
        daemons.callback(_call, "umount", "-l", directory / "mnt")
        _call(*inside, "mfssetgoal", "-r", str(COPIES), directory / "mnt")
        yield directory / "mnt"


@contextlib.contextmanager
def _namespace() -> Iterator[list[str]]:
    """The words that run a program in a new network namespace."""
    name = f"gfs-bench-{os.getpid()}"
    _call("ip", "netns", "add", name)
    try:
        _call("ip", "-n", name, "link", "set", "lo", "up")
        _call("ip", "-n", name, "addr", "add", f"{ADDRESS}/32", "dev", "lo")
        # "ip netns exec" would give it mounts of its own, too.
        yield ["nsenter", f"--net=/run/netns/{name}"]
    finally:
        _call("ip", "netns", "delete", name)


def _start(daemons: contextlib.ExitStack, inside: list[str], program: str, file: Path) -> None:
    command = [*inside, str(_find(program)), "-c", file]
    _call(*command, "start")
    daemons.callback(_call, *command, "stop")


def _call(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def _master_file(directory: Path) -> Path:
    home = directory / "master"
    home.mkdir()
    shutil.copy(EMPTY_METADATA, home / "metadata.mfs")
    (directory / "exports.cfg").write_text("* / rw,alldirs,maproot=0\n* . rw\n")
    (directory / "topology.cfg").write_text("")
    file = directory / "master.cfg"
    file.write_text(
        f"WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {home}\n"
        f"EXPORTS_FILENAME = {directory / 'exports.cfg'}\nTOPOLOGY_FILENAME = {directory / 'topology.cfg'}\n"
    )
    return file


def _chunkserver_file(directory: Path, number: int) -> Path:
    for name in ("state", "disk"):
        (directory / f"{name}-{number}").mkdir()
    disks = directory / f"disks-{number}.cfg"
    disks.write_text(f"{directory / f'disk-{number}'}\n")
    file = directory / f"chunkserver-{number}.cfg"
    file.write_text(
        f"WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {directory / f'state-{number}'}\n"
        f"HDD_CONF_FILENAME = {disks}\nHDD_LEAVE_SPACE_DEFAULT = 256MiB\nMASTER_HOST = {ADDRESS}\n"
        f"BIND_HOST = {ADDRESS}\nCSSERV_LISTEN_HOST = {ADDRESS}\nCSSERV_LISTEN_PORT = {9520 + number}\n"
    )
    return file


def _wait_for_chunkservers(inside: list[str]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    command = [*inside, "mfscli", "-H", ADDRESS, "-p", "-SCS"]
    while True:
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if sum(f"\t{9520 + number}\t" in listed for number in range(1, COPIES + 1)) == COPIES:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"MooseFS has not all of its chunk servers: {listed}")
        time.sleep(0.2)


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
