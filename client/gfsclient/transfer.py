"""Bytes between local files and the cluster's, in a thread: few copies, bounded memory, interruptible."""

import errno
import os
import secrets
import select
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from gfsclient.handle import FileHandle
from gfsclient.reader import FileReader
from gfsprotocol.errors import AlreadyExists, DeadlineExceeded

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all (None if not known), from the thread that copies."""

NAME_CHARACTERS_KEPT: Final = 50
"""Of a name, in the temporary one: characters may have four bytes each, names 255 at most."""
_POLL_SECONDS: Final = 0.2


class Readable(Protocol):
    """What :func:`copy_in` needs of a local file; ``readinto`` is used where there is one."""

    def read(self, count: int, /) -> bytes: ...


class Writable(Protocol):
    """What :func:`copy_out` needs of a local file."""

    def write(self, data: memoryview, /) -> Any: ...


class Stop:
    """Tells a copying thread that its caller has gone."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """DeadlineExceeded if the copying is to end."""
        if self._event.is_set():
            raise DeadlineExceeded("the copying was given up")


def copy_in(source: Readable, handle: FileHandle, stop: Stop, progress: Progress | None, total: int | None) -> int:
    """Writes all of ``source`` to the file at its position; how many bytes. Errors of the source are OSErrors."""
    read_into = getattr(source, "readinto1", None) or getattr(source, "readinto", None)
    descriptor = _waitable(source)
    done = 0
    while True:
        _wait_readable(descriptor, stop)
        room = handle.room()
        if read_into is not None:
            count = read_into(room)
        else:
            data = source.read(len(room))
            room[: len(data)] = data
            count = len(data)
        handle.commit(count or 0)
        if count == 0:
            return done
        done += count or 0
        if progress is not None:
            progress(done, total)


def copy_out(
    reader: FileReader, sink: Writable, stop: Stop, progress: Progress | None, offset: int, length: int | None
) -> int:
    """Writes the file's bytes from ``offset`` on, at most ``length``, to ``sink``; how many."""
    total = max(0, reader.chunks.size - offset)
    total = total if length is None else min(total, length)
    done = 0
    for view in reader.stream(offset, length):
        stop.check()
        write_all(sink, view)
        done += len(view)
        if progress is not None:
            progress(done, max(total, done))
    return done


def write_all(sink: Writable, view: memoryview) -> None:
    """All of ``view``, also to a raw file that takes less at a time."""
    while view:
        count = sink.write(view)
        view = view[count if isinstance(count, int) else len(view) :]


def get_to_path(reader: FileReader, target: Path, overwrite: bool, stop: Stop, progress: Progress | None) -> int:
    """Copies a whole file to a local path: under a temporary name until it is complete and on disk.

    AlreadyExists if there is something and not ``overwrite``; OSError for what the local file system refuses. A device
    or a pipe is written to as it is.
    """
    try:
        present = target.stat()
    except FileNotFoundError:
        present = None
    if present is not None and stat.S_ISDIR(present.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if present is not None and not stat.S_ISREG(present.st_mode):
        with target.open("wb", buffering=0) as sink:
            return copy_out(reader, sink, stop, progress, 0, None)
    if present is not None and not overwrite:
        raise AlreadyExists(f"{target}: file exists")
    temporary = target.with_name(f".{target.name[:NAME_CHARACTERS_KEPT]}.gfs-{secrets.token_hex(4)}")
    mode = stat.S_IMODE(present.st_mode if present is not None else reader.chunks.attributes.mode) & 0o777
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb", buffering=0) as sink:
            count = copy_out(reader, sink, stop, progress, 0, None)
            os.fsync(descriptor)
        _publish(temporary, target, overwrite)
        _sync_directory(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return count


def _publish(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        temporary.rename(target)
        return
    try:
        target.hardlink_to(temporary)  # unlike rename, it does not replace what has appeared meanwhile
    except FileExistsError as error:
        raise AlreadyExists(f"{target}: file exists") from error
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        temporary.rename(target)  # a local file system without hard links
        return
    temporary.unlink()


def _sync_directory(directory: Path) -> None:
    """Makes names in it durable."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # one that we may write to and not read
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot
            raise
    finally:
        os.close(descriptor)


def _waitable(source: Readable) -> int | None:
    """The descriptor of a pipe, a terminal or a socket, which may let us wait for ever; None for anything else."""
    try:
        descriptor = int(source.fileno())  # type: ignore[attr-defined]
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode) else None


def _wait_readable(descriptor: int | None, stop: Stop) -> None:
    """Returns when there is something to read; meanwhile it looks now and then whether anyone still wants it."""
    stop.check()
    if descriptor is None:
        return
    watch = select.poll()
    watch.register(descriptor, select.POLLIN)
    while not watch.poll(_POLL_SECONDS * 1000):
        stop.check()
