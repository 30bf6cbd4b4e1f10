"""What a program may do to a directory, and what it sees: run on the mount and on the local disk, and compared.

A scenario is a public function that takes an empty directory and gives back what it saw, free of whatever differs from
one file system to another: inode numbers, sizes of directories, blocks, times of now.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
Path_ = str | bytes | Path
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2
PAST_NS = 1_000_000_000_123_456_789
"""2001: whether a time has been set since is seen by its being another."""


def attempt(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What the function gives back, or the name of its error."""
    try:
        return function(*arguments, **named)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


class Seen(list[Any]):
    """What a scenario saw, in order."""

    def do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Does it, notes what came of it, and gives that back."""
        result = attempt(function, *arguments, **named)
        self.append((getattr(function, "__name__", str(function)), result))
        return result

    def look(self, path: Path_) -> None:
        """Notes what is visible of a file from outside."""
        self.append(attempt(visible, path))


def visible(path: Path_) -> tuple[Any, ...]:
    """Type and mode, owner, links, size, device, and the content of a file or link."""
    status = os.lstat(path)
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(os.fsencode(path))
    elif stat.S_ISREG(status.st_mode):
        content = read(path)
    elif stat.S_ISDIR(status.st_mode):
        content = sorted(os.listdir(path))
        return stat.filemode(status.st_mode), status.st_uid, status.st_gid, content
    links = status.st_nlink
    return stat.filemode(status.st_mode), status.st_uid, status.st_gid, links, status.st_size, status.st_rdev, content


def write(path: Path_, data: bytes = b"content", mode: int = 0o644) -> None:
    """Creates or replaces a file, as ``open(path, "wb")`` does."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def read(path: Path_) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def renameat2(source: Path_, target: Path_, flags: int) -> None:
    """rename(2) with flags, which Python does not have."""
    if LIBC.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) with a mode, which Python does not have."""
    if LIBC.fallocate(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
