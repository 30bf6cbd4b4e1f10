"""Random operations: the same on a mount, or on two in turn, and on the local disk, with everything visible compared.

The idea is that of a model-based test with the local file system as the model (JuiceFS's random tests, fsx, fsstress).
A run is a function of its seed: the same seed does the same again.
"""

import hashlib
import os
import random
import stat
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, NamedTuple

from tests.mounted.scenarios import RENAME_EXCHANGE, RENAME_NOREPLACE, attempt, read, renameat2, write
from tests.mounted.worker import user

DIRECTORIES = ("", "d1", "d1/d2", "d3", "d3/d1")
NAMES = ("a", "b", "c", "a", "b", "c", "a", "b", "c", "d1", "d2", "d3")
USERS = (0, 0, 0, 0, 12345, 12346)
HANDLES = 5
COMPARED_EVERY = 150
TOLD_STEPS = 40
SETTLED_SECONDS = 60.0


class Operation(NamedTuple):
    name: str
    arguments: tuple[Any, ...]
    uid: int
    mount: int
    """The number of the mount on which it is done."""

    def __str__(self) -> str:
        arguments = ", ".join(f"<{len(a)} bytes>" if isinstance(a, bytes) else repr(a) for a in self.arguments)
        return f"{self.name}({arguments}) by user {self.uid} on mount {self.mount}"


class Side:
    """One of the directories, which may have others beside it that are the same one.

    Its public methods are the operations; what they give back is compared.
    """

    def __init__(self, root: Path, has_others: bool) -> None:
        self._root = root
        self._has_others = has_others
        self._handles: dict[int, int] = {}

    def _path(self, path: str) -> Path:
        return self._root / path

    # --------------------------------------------------------------------------------------------- by name

    def write(self, path: str, data: bytes, mode: int) -> None:
        write(self._path(path), data, mode)

    def create_exclusively(self, path: str, mode: int) -> None:
        os.close(os.open(self._path(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def write_at(self, path: str, data: bytes, offset: int) -> None:
        descriptor = os.open(self._path(path), os.O_WRONLY)
        try:
            os.pwrite(descriptor, data, offset)
        finally:
            os.close(descriptor)

    def append(self, path: str, data: bytes) -> None:
        descriptor = os.open(self._path(path), os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def read(self, path: str) -> str:
        return hashlib.sha256(read(self._path(path))).hexdigest()

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self._path(path), size)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._path(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._path(path))

    def unlink(self, path: str) -> None:
        os.unlink(self._path(path))

    def rename(self, path: str, target: str, flags: int) -> None:
        if self._has_others:
            # Linux says ESTALE if it is in the middle of a rename that it finds a directory which another mount has
            # moved, and which is in use here: its __d_unalias needs the lock that rename(2) holds.
            for one in (path, target):
                attempt(os.lstat, self._path(one))
        renameat2(self._path(path), self._path(target), flags)

    def link(self, path: str, target: str) -> None:
        os.link(self._path(path), self._path(target), follow_symlinks=False)

    def symlink(self, path: str, target: str) -> None:
        os.symlink(target, self._path(path))

    def mknod(self, path: str, mode: int) -> None:
        os.mknod(self._path(path), mode, os.makedev(1, 3))

    def chmod(self, path: str, mode: int) -> None:
        # What lchmod(2) would do to a link is not for all kernels the same.
        if not stat.S_ISLNK(os.lstat(self._path(path)).st_mode):
            os.chmod(self._path(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.lchown(self._path(path), uid, gid)

    def utime(self, path: str, nanoseconds: int) -> int:
        os.utime(self._path(path), ns=(nanoseconds, nanoseconds), follow_symlinks=False)
        return os.lstat(self._path(path)).st_mtime_ns

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        os.setxattr(self._path(path), name, value, flags)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self._path(path), name)

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._path(path), name)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(self._path(path)))

    def lookup(self, path: str) -> tuple[Any, ...]:
        return shown(os.lstat(self._path(path)))

    # ------------------------------------------------------------------------------------------- by handle

    def open(self, path: str, handle: int, flags: int) -> None:
        self.close(handle)
        self._handles[handle] = os.open(self._path(path), flags | os.O_NONBLOCK, 0o664)

    def close(self, handle: int) -> None:
        descriptor = self._handles.pop(handle, None)
        if descriptor is not None:
            os.close(descriptor)

    def read_open(self, handle: int, length: int, offset: int) -> str | None:
        descriptor = self._regular(handle)
        return None if descriptor is None else hashlib.sha256(os.pread(descriptor, length, offset)).hexdigest()

    def write_open(self, handle: int, data: bytes, offset: int) -> int | None:
        descriptor = self._regular(handle)
        if descriptor is None:
            return None
        os.lseek(descriptor, offset, os.SEEK_SET)
        written = os.write(descriptor, data)
        if self._has_others:
            os.fsync(descriptor)
        return written

    def truncate_open(self, handle: int, size: int) -> None:
        if (descriptor := self._regular(handle)) is not None:
            os.ftruncate(descriptor, size)

    def sync_open(self, handle: int) -> None:
        if (descriptor := self._regular(handle)) is not None:
            os.fsync(descriptor)

    def stat_open(self, handle: int) -> tuple[Any, ...] | None:
        descriptor = self._handles.get(handle)
        return None if descriptor is None else shown(os.fstat(descriptor))

    def is_directory(self, path: str) -> bool:
        """Whether that is what a path leads to."""
        return self._path(path).is_dir()

    def is_removed_directory(self, handle: int) -> bool:
        """Whether it is open and a directory that has no name any more."""
        descriptor = self._handles.get(handle)
        if descriptor is None:
            return False
        status = os.fstat(descriptor)
        return stat.S_ISDIR(status.st_mode) and status.st_nlink == 0

    def _regular(self, handle: int) -> int | None:
        """Its descriptor; None if nothing is open, or a device or a pipe, which no file system serves itself."""
        descriptor = self._handles.get(handle)
        if descriptor is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return descriptor

    def close_all(self) -> None:
        for handle in list(self._handles):
            self.close(handle)

    def everything(self) -> list[object]:
        """All that is visible below the root."""
        found: list[object] = []
        for base, directories, files in os.walk(self._root):
            directories.sort()
            paths = [Path(base) / name for name in sorted([*directories, *files])]
            found += [(str(path.relative_to(self._root)), attempt(_visible, path)) for path in paths]
        return found


def shown(status: os.stat_result) -> tuple[Any, ...]:
    """What of a status is the same on all file systems."""
    common = stat.filemode(status.st_mode), status.st_uid, status.st_gid
    if stat.S_ISDIR(status.st_mode):
        return common
    return *common, status.st_size, status.st_nlink, status.st_rdev


def _visible(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return *shown(status), os.readlink(path)
    attributes = {name: os.getxattr(path, name) for name in sorted(os.listxattr(path))}
    content = hashlib.sha256(read(path)).hexdigest() if stat.S_ISREG(status.st_mode) else None
    return *shown(status), content, attributes


class Chance:
    """Chooses operations; each is a function of what was chosen before."""

    def __init__(self, seed: int, mounts: int) -> None:
        self._random = random.Random(seed)
        self._mounts = mounts
        self._mount = 0

    def operation(self) -> Operation:
        name = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        # Most of what uses the other mount costs waiting for it to be told.
        if self._random.random() < 0.15:
            self._mount = self._random.randrange(self._mounts)
        arguments = tuple(getattr(self, f"_{kind}")() for kind in ARGUMENTS[name])
        return Operation(name, arguments, self._random.choice(USERS), self._mount)

    def _path(self) -> str:
        directory = self._random.choice(DIRECTORIES)
        return f"{directory}/{self._random.choice(NAMES)}".lstrip("/")

    def _new_directory(self) -> str:
        return self._path() if self._random.random() < 0.2 else self._random.choice(DIRECTORIES[1:])

    def _directory(self) -> str:
        return self._random.choice(DIRECTORIES)

    def _data(self) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 100, 4096, 20_000, 66_000, 200_000)))

    def _offset(self) -> int:
        return self._random.choice((0, 1, 4095, 65_536, self._random.randrange(400_000)))

    def _mode(self) -> int:
        return self._random.choice((0o644, 0o600, 0o666, 0o755, 0o777, 0o400, 0o2770, 0o4755, 0o1777))

    def _kind(self) -> int:
        """No pipe and no device: what is read from them is not the file system's, and a mount is "nodev"."""
        return self._random.choice((stat.S_IFSOCK, stat.S_IFREG)) | 0o644

    def _uid(self) -> int:
        return self._random.choice((-1, *USERS))

    def _flags_of_rename(self) -> int:
        return self._random.choice((0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE))

    def _flags_of_open(self) -> int:
        return self._random.choice((
            os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_TRUNC,
            os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_CREAT | os.O_EXCL,
        ))  # fmt: skip

    def _flags_of_xattr(self) -> int:
        return self._random.choice((0, os.XATTR_CREATE, os.XATTR_REPLACE))

    def _attribute(self) -> str:
        return self._random.choice(("user.a", "user.b"))

    def _value(self) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 200)))

    def _handle(self) -> int:
        return self._random.randrange(HANDLES)

    def _time(self) -> int:
        return self._random.randrange(2**60)


ARGUMENTS: dict[str, tuple[str, ...]] = {
    "write": ("path", "data", "mode"),
    "create_exclusively": ("path", "mode"),
    "write_at": ("path", "data", "offset"),
    "append": ("path", "data"),
    "read": ("path",),
    "truncate": ("path", "offset"),
    "mkdir": ("new_directory", "mode"),
    "rmdir": ("path",),
    "unlink": ("path",),
    "rename": ("path", "path", "flags_of_rename"),
    "link": ("path", "path"),
    "symlink": ("path", "path"),
    "mknod": ("path", "kind"),
    "chmod": ("path", "mode"),
    "chown": ("path", "uid", "uid"),
    "utime": ("path", "time"),
    "setxattr": ("path", "attribute", "value", "flags_of_xattr"),
    "getxattr": ("path", "attribute"),
    "removexattr": ("path", "attribute"),
    "listdir": ("directory",),
    "lookup": ("path",),
    "open": ("path", "handle", "flags_of_open"),
    "close": ("handle",),
    "read_open": ("handle", "offset", "offset"),
    "write_open": ("handle", "data", "offset"),
    "truncate_open": ("handle", "offset"),
    "sync_open": ("handle",),
    "stat_open": ("handle",),
}
WEIGHTS = {name: {"write": 3, "rename": 3, "mkdir": 3, "open": 3, "read_open": 3, "write_open": 4}.get(name, 1)
           for name in ARGUMENTS}  # fmt: skip


class Run:
    """One run: the local directory, the mounts, the operations so far."""

    def __init__(self, seed: int, local: Path, mounts: list[Path]) -> None:
        self._seed = seed
        # Another mount sees what was synced or closed; what is only written it need not see.
        several = len(mounts) > 1
        self._local = [Side(local, several) for _ in mounts]
        self._sides = [Side(mount, several) for mount in mounts]
        self._mounts = mounts
        self._chance = Chance(seed, len(mounts))
        self._last: deque[str] = deque(maxlen=TOLD_STEPS)
        self._used = 0
        self._marks = 0
        self.steps = 0
        self.outcomes: Counter[str] = Counter()

    def step(self) -> None:
        """One operation, on the local directory and on one mount."""
        operation = self._chance.operation()
        if operation.mount != self._used:
            self._settle(operation.mount)
            self._used = operation.mount
        self.steps += 1
        self._look_at_directories(operation)
        with user(operation.uid):
            expected = attempt(getattr(self._local[operation.mount], operation.name), *operation.arguments)
            seen = attempt(getattr(self._sides[operation.mount], operation.name), *operation.arguments)
        self._last.append(f"{self.steps}: {operation} -> {expected!r:.200}")
        self.outcomes[f"{operation.name} {expected if isinstance(expected, str) and expected[:1] == 'E' else ''}"] += 1
        is_gone = seen == "ESTALE" and self._is_of_removed_directory(operation)
        self._demand(expected == seen or is_gone, f"the mount says {seen!r:.400}")

    def _look_at_directories(self, operation: Operation) -> None:
        """That another mount has given a directory to a new owner, a mount knows after a stat (docs/mount.md)."""
        if len(self._mounts) > 1:
            for kind, value in zip(ARGUMENTS[operation.name], operation.arguments, strict=True):
                if kind == "path" and self._local[operation.mount].is_directory(value):
                    attempt(self._sides[operation.mount].lookup, value)

    def _is_of_removed_directory(self, operation: Operation) -> bool:
        """Whether it is by a handle of a directory that may be gone: another mount's removal does not wait for it."""
        handle = dict(zip(ARGUMENTS[operation.name], operation.arguments, strict=True)).get("handle")
        local = self._local[operation.mount]
        return len(self._mounts) > 1 and handle is not None and local.is_removed_directory(handle)

    def compare(self) -> None:
        """Everything visible, on each of the mounts."""
        for number, side in enumerate(self._sides):
            if number != self._used:
                self._settle(number)
                self._used = number
            expected, seen = self._local[number].everything(), side.everything()
            only = [("local", one) for one in expected if one not in seen]
            only += [("mount", one) for one in seen if one not in expected]
            self._demand(expected == seen, f"what is visible on mount {number} differs: {only!r:.2000}")

    def close(self) -> None:
        for side in (*self._local, *self._sides):
            side.close_all()

    def _settle(self, mount: int) -> None:
        """Waits until the mount has been told of all that was done on the one used before it: notices keep their order.

        The mark has been looked at before, so the mount has it in its caches until it is told.
        """
        mark = self._mounts[mount].with_name("mark")
        self._marks += 1
        os.utime(self._mounts[self._used].with_name("mark"), ns=(0, self._marks))
        deadline = time.monotonic() + SETTLED_SECONDS
        while mark.stat().st_mtime_ns != self._marks:
            self._demand(time.monotonic() < deadline, f"mount {mount} was never told of a change")
            time.sleep(0.001)

    def _demand(self, holds: bool, what: str) -> None:
        if not holds:
            steps = "\n  ".join(self._last)
            raise AssertionError(f"seed {self._seed}, step {self.steps}: {what}\nthe last steps:\n  {steps}")


def run(seed: int, seconds: float, local: Path, mounts: list[Path]) -> tuple[int, Counter[str]]:
    """Runs operations for so long: how many, and how often each came to what.

    ``mounts`` are one directory, as each of the mounts has it.
    """
    own = [mount / "random" for mount in mounts]
    (local / "random").mkdir(mode=0o777)
    own[0].mkdir(mode=0o777)
    write(mounts[0] / "mark", b"")
    for directory in (local / "random", own[0]):
        directory.chmod(0o777)
    state = Run(seed, local / "random", own)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end or state.steps < COMPARED_EVERY:
            state.step()
            if state.steps % COMPARED_EVERY == 0:
                state.compare()
        state.compare()
    finally:
        state.close()
    return state.steps, state.outcomes
