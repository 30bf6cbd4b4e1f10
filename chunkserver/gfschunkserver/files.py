"""The tiny interface through which everything on a disk is read and written.

It exists for one reason: tests replace it by a double that forgets what was not fsynced, and enumerate crashes. So it
offers only what has a clear meaning under a crash: bytes are durable after :meth:`File.sync`, names after
:meth:`Files.sync_directory`.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from gfsprotocol.checksums import Buffer
from gfsprotocol.errors import DirectoryInUse


class File(Protocol):
    """An open file. Every method raises OSError."""

    def write(self, offset: int, *pieces: Buffer) -> None:
        """Puts all pieces, one after the other, at ``offset``."""

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes, or fewer at the end of the file."""

    def allocate(self, offset: int, count: int) -> None:
        """Gives bytes a place on the disk, zeros behind the end: writing them cannot fail for want of space then."""

    def truncate(self, length: int) -> None:
        """Cuts the file, or extends it with zeros."""

    def length(self) -> int:
        """In bytes."""

    def sync(self) -> None:
        """Returns when all written bytes are on stable storage (fdatasync). Its error never means a full disk."""

    def descriptor(self) -> int:
        """For sendfile."""

    def close(self) -> None:
        """The file may not be used afterwards."""


class Lock(Protocol):
    """Held until released or until the process ends."""

    def release(self) -> None: ...


class Files(Protocol):
    """A file system. Every method raises OSError."""

    def open(self, path: Path, create: bool = False) -> File:
        """``create`` makes a new, empty file, also in place of an old one."""

    def names(self, directory: Path) -> list[str]:
        """What is in a directory, sorted."""

    def exists(self, path: Path) -> bool: ...

    def make_directory(self, path: Path) -> None:
        """With its ancestors; it may be there already."""

    def rename(self, source: Path, target: Path) -> None:
        """Atomic; replaces ``target``."""

    def remove(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None:
        """Returns when all changes of names in the directory are on stable storage; errors as :meth:`File.sync`."""

    def space(self, path: Path) -> tuple[int, int]:
        """(total, free) bytes of the file system that holds ``path``."""

    def lock(self, path: Path) -> Lock:
        """DirectoryInUse if another process holds it."""


class OsFile:
    """A file of the operating system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, offset: int, *pieces: Buffer) -> None:
        rest: list[Buffer] = list(pieces)
        while rest:
            written = os.pwritev(self._descriptor, rest, offset)
            offset += written
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = memoryview(rest[0])[written:]

    def read(self, offset: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, offset)
        if len(data) == count or not data:
            return data
        pieces = [data]
        while (missing := count - sum(map(len, pieces))) and pieces[-1]:
            pieces.append(os.pread(self._descriptor, missing, offset + count - missing))
        return b"".join(pieces)

    def allocate(self, offset: int, count: int) -> None:
        os.posix_fallocate(self._descriptor, offset, count)

    def truncate(self, length: int) -> None:
        os.ftruncate(self._descriptor, length)

    def length(self) -> int:
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        with _never_full():
            os.fdatasync(self._descriptor)

    def descriptor(self) -> int:
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)


class OsLock:
    """flock on a file; the kernel releases it when the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


class OsFiles:
    """The operating system's files."""

    def open(self, path: Path, create: bool = False) -> File:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        return OsFile(os.open(path, flags, 0o600))

    def names(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names, not paths

    def exists(self, path: Path) -> bool:
        return path.exists()

    def make_directory(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _never_full():
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def space(self, path: Path) -> tuple[int, int]:
        figures = os.statvfs(path)
        return figures.f_blocks * figures.f_frsize, figures.f_bavail * figures.f_frsize

    def lock(self, path: Path) -> Lock:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise DirectoryInUse(f"another process uses the data directory {path.parent}") from error
        except OSError:
            os.close(descriptor)
            raise
        return OsLock(descriptor)


def is_out_of_space(error: OSError) -> bool:
    """Whether ``error`` means a full disk rather than a broken one."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def _never_full() -> Iterator[None]:
    """A full disk is asked again later. An fsync must not be: what it could not write counts as clean afterwards."""
    try:
        yield
    except OSError as error:
        if is_out_of_space(error):
            raise OSError(errno.EIO, f"fsync failed: {error.strerror}") from error
        raise


def write_atomically(files: Files, path: Path, content: bytes) -> None:
    """Replaces a small file: after a crash it holds the old or the new content."""
    beside = path.with_name(path.name + ".new")
    file = files.open(beside, create=True)
    try:
        file.write(0, content)
        file.sync()
    finally:
        file.close()
    files.rename(beside, path)
    files.sync_directory(path.parent)
