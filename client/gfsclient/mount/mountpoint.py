"""The directory that is mounted on: what may be wrong with it, dead mounts that are left there, unmounting."""

import errno
import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gfsprotocol.errors import ConfigurationError, NotADirectory, NotFound, PermissionDenied

MOUNTS: Final = Path("/proc/self/mountinfo")
DEVICE: Final = Path("/dev/fuse")
TYPE: Final = "fuse.gfs"
USER_SETTINGS: Final = Path("/etc/fuse.conf")
UNMOUNT_SECONDS: Final = 60.0
LINKS_MAX: Final = 40
"""Symbolic links that lead to one another, as Linux bounds them."""


@dataclass(frozen=True)
class Mounted:
    """A line of mountinfo."""

    path: str
    kind: str
    source: str
    device: tuple[int, int]
    """(major, minor)."""


def mounted_at(path: str) -> Mounted | None:
    """What is mounted right at a path, the last one if several are; it is not touched."""
    found = None
    for line in MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        place = _unescaped(fields.split(" ")[4])
        if place == path:
            kind, source, *_ = rest.split(" ")
            major, minor = (int(number) for number in fields.split(" ")[2].split(":"))
            found = Mounted(place, kind, _unescaped(source), (major, minor))
    return found


def _unescaped(text: str) -> str:
    """mountinfo has spaces and the like as octal numbers."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text


def absolute(mountpoint: str) -> str:
    """The mount point's real path, without asking the file system that may be mounted there, and be dead."""
    path = os.path.abspath(mountpoint)
    for _ in range(LINKS_MAX):
        parent, name = os.path.split(path)
        path = os.path.join(os.path.realpath(parent), name) if name else parent
        try:
            target = os.readlink(path)
        except OSError:  # it is no link, or nothing at all; the kernel knows without asking whoever is mounted there
            break
        path = os.path.abspath(os.path.join(os.path.dirname(path), target))
    return path


def is_dead(path: str) -> bool:
    """Whether a mount's process is gone: "Transport endpoint is not connected".

    The directory is opened, for that is a question to the process each time: its attributes may be those that the
    kernel has kept.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def clear_dead(path: str) -> None:
    """Takes a mount of ours away whose process is gone, if there is one. ConfigurationError if that cannot be."""
    present = mounted_at(path)
    if present is not None and present.kind == TYPE and is_dead(path):
        unmount_lazily(path)


def prepare(mountpoint: str, allow_other: bool) -> str:
    """The path to mount on, with a dead mount of ours cleared away. An error says what keeps us from mounting."""
    _require_device()
    is_root = os.geteuid() == 0
    if not is_root and shutil.which("fusermount3") is None:
        raise ConfigurationError(
            "fusermount3 is missing, without which only root can mount (Debian: apt install fuse3)"
        )
    if allow_other and not is_root and not _others_allowed():
        raise ConfigurationError(f"allow_other needs the line 'user_allow_other' in {USER_SETTINGS}")
    path = absolute(mountpoint)
    clear_dead(path)
    present = mounted_at(path)
    if present is not None and present.kind == TYPE:
        raise ConfigurationError(f"{mountpoint}: {present.source} is mounted there already")
    return _checked(path, mountpoint, is_root)


def _checked(path: str, mountpoint: str, is_root: bool) -> str:
    try:
        details = os.stat(path)
    except FileNotFoundError:
        raise NotFound(f"{mountpoint}: no such directory to mount on") from None
    except PermissionError:
        raise PermissionDenied(f"{mountpoint}: permission denied") from None
    if not stat.S_ISDIR(details.st_mode):
        raise NotADirectory(f"{mountpoint}: is not a directory")
    path = os.path.realpath(path)
    if not is_root and not os.access(path, os.W_OK):
        raise PermissionDenied(f"{mountpoint}: only a directory that one may write to can be mounted on")
    return path


def _require_device() -> None:
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            raise ConfigurationError(
                f"there is no {DEVICE}: load the kernel's module (modprobe fuse), or run where it is"
            ) from None
        raise PermissionDenied(f"{DEVICE} cannot be opened: {error.strerror}") from None


def _others_allowed() -> bool:
    try:
        lines = USER_SETTINGS.read_text().splitlines()
    except OSError:
        return False
    return "user_allow_other" in (line.strip() for line in lines)


def unmount(path: str) -> None:
    """As umount(8). ConfigurationError with its words if the mount is in use, or we may not."""
    _run(["umount", path] if os.geteuid() == 0 else ["fusermount3", "-u", path])


def unmount_lazily(path: str) -> None:
    """Takes the mount away at once; whoever still uses it gets errors."""
    _run(["umount", "-l", path] if os.geteuid() == 0 else ["fusermount3", "-u", "-z", path])


def _run(command: list[str]) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise ConfigurationError(f"{command[0]} is missing")
    done = subprocess.run(  # noqa: S603
        [program, *command[1:]], capture_output=True, text=True, timeout=UNMOUNT_SECONDS, check=False
    )
    if done.returncode:
        raise ConfigurationError(" ".join(done.stderr.split()) or f"{command[0]} failed")
