"""A file system in memory that forgets, at a crash, what was not fsynced: bytes, lengths and names.

Every change is a boundary at which a crash can be asked for. What survives of the unsynced changes is chosen sector by
sector by a :data:`Survival`: nothing, everything (the process died, the machine did not), or any mixture.
"""

import errno
import random
import threading
from collections.abc import Callable
from pathlib import Path

from gfschunkserver.files import File, Lock
from gfsprotocol.checksums import Buffer
from gfsprotocol.errors import DirectoryInUse

SECTOR_BYTES = 512
Survival = Callable[[int], int]
"""Of ``n`` successive states, of which the first is durable, the index of the one that survives."""


def nothing_survives(_states: int) -> int:
    return 0


def everything_survives(states: int) -> int:
    return states - 1


def anything_survives(seed: int) -> Survival:
    return random.Random(seed).randrange


class Crashed(Exception):
    """The machine stopped here."""


class _Inode:
    def __init__(self) -> None:
        self.content = bytearray()
        self.lengths = [0]
        """The durable one, then all since."""
        self.sectors: dict[int, list[bytes]] = {}
        """Of each sector changed since the last fsync: the durable bytes, then all since."""

    def changed(self, start: int, end: int, change: Callable[[], None]) -> None:
        touched = range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES))
        for sector in touched:
            if sector not in self.sectors:
                self.sectors[sector] = [self._sector(sector)]
        change()
        for sector in touched:
            self.sectors[sector].append(self._sector(sector))
        self.lengths.append(len(self.content))

    def _sector(self, sector: int) -> bytes:
        return bytes(self.content[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])

    def synced(self) -> None:
        self.lengths = [len(self.content)]
        self.sectors = {}

    def crash(self, survives: Survival) -> None:
        length = self.lengths[survives(len(self.lengths))]
        for sector, states in self.sectors.items():
            survivor = states[survives(len(states))].ljust(SECTOR_BYTES, b"\0")
            start = sector * SECTOR_BYTES
            if len(self.content) < start + SECTOR_BYTES:
                self.content.extend(bytes(start + SECTOR_BYTES - len(self.content)))
            self.content[start : start + SECTOR_BYTES] = survivor
        del self.content[length:]
        self.content.extend(bytes(length - len(self.content)))
        self.synced()


class CrashFile:
    def __init__(self, files: "CrashFiles", path: Path, inode: _Inode) -> None:
        self._files = files
        self._path = path
        self._inode = inode

    def write(self, offset: int, *pieces: Buffer) -> None:
        data = b"".join(pieces)
        with self._files.boundary("write", self._path):
            self._files.check_space(max(0, offset + len(data) - len(self._inode.content)))

            def put() -> None:
                content = self._inode.content
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data

            self._inode.changed(min(offset, len(self._inode.content)), offset + len(data), put)

    def read(self, offset: int, count: int) -> bytes:
        self._files.check_alive("read", self._path)
        return bytes(self._inode.content[offset : offset + count])

    def allocate(self, offset: int, count: int) -> None:
        with self._files.boundary("allocate", self._path):
            old = len(self._inode.content)
            missing = max(0, offset + count - old)
            self._files.check_space(missing)
            if missing:
                self._inode.changed(old, old + missing, lambda: self._inode.content.extend(bytes(missing)))

    def truncate(self, length: int) -> None:
        with self._files.boundary("truncate", self._path):
            old = len(self._inode.content)

            def cut() -> None:
                del self._inode.content[length:]
                self._inode.content.extend(bytes(length - len(self._inode.content)))

            self._inode.changed(min(old, length), max(old, length), cut)

    def length(self) -> int:
        return len(self._inode.content)

    def sync(self) -> None:
        with self._files.boundary("sync", self._path):
            self._inode.synced()

    def descriptor(self) -> int:
        raise OSError(errno.ENOTSUP, "there is no descriptor in memory")

    def close(self) -> None:
        pass


class _MemoryLock:
    def __init__(self, files: "CrashFiles", path: Path) -> None:
        self._files = files
        self._path = path

    def release(self) -> None:
        self._files.locked.discard(self._path)


class CrashFiles:
    """See the module. Safe for threads; after a crash everything raises Crashed until :meth:`reboot`."""

    def __init__(self) -> None:
        self.boundaries = 0
        self.crash_at = -1
        self.crashed = False
        self.free_bytes = 1 << 40
        self.locked: set[Path] = set()
        self.failing: Callable[[str, Path], int] = lambda _operation, _path: 0
        """The errno with which an operation is to fail; 0 for none."""
        self._directories: set[Path] = {Path("/")}
        self._names: dict[Path, _Inode] = {}
        self._histories: dict[Path, list[dict[Path, _Inode]]] = {}
        """Of each directory changed since its last sync: its durable names, then all since."""
        self._lock = threading.RLock()

    # --------------------------------------------------------------------------------------------------- crashes

    def boundary(self, operation: str, path: Path) -> threading.RLock:
        """One change; to be used as a context manager."""
        with self._lock:
            self.check_alive(operation, path)
            self.boundaries += 1
            if self.boundaries == self.crash_at:
                self.crashed = True
                raise Crashed(f"at {operation} {path}")
        return self._lock

    def check_alive(self, operation: str, path: Path) -> None:
        if self.crashed:
            raise Crashed(f"before {operation} {path}")
        number = self.failing(operation, path)
        if number:
            raise OSError(number, f"injected into {operation} {path.name}")

    def check_space(self, count: int) -> None:
        if count > self.free_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.free_bytes -= count

    def reboot(self, survives: Survival) -> None:
        """What is on the disks after the crash."""
        inodes = {id(inode): inode for inode in self._names.values()}
        for history in self._histories.values():
            inodes |= {id(inode): inode for names in history for inode in names.values()}
        for directory, history in sorted(self._histories.items()):
            survivor = history[survives(len(history))]
            self._names = {path: inode for path, inode in self._names.items() if path.parent != directory} | survivor
        self._histories = {}
        for inode in inodes.values():
            inode.crash(survives)
        self.locked = set()
        self.crashed = False
        self.boundaries = 0
        self.crash_at = -1

    def content(self, path: Path) -> bytearray:
        """The bytes of a file, to be looked at or damaged."""
        return self._names[path].content

    def _in(self, directory: Path) -> dict[Path, _Inode]:
        return {path: inode for path, inode in self._names.items() if path.parent == directory}

    def _rename(self, directories: set[Path], change: Callable[[], None]) -> None:
        for directory in directories:
            self._histories.setdefault(directory, [self._in(directory)])
        change()
        for directory in directories:
            self._histories[directory].append(self._in(directory))

    # ---------------------------------------------------------------------------------------------- the interface

    def open(self, path: Path, create: bool = False) -> File:
        if not create:
            self.check_alive("open", path)
            if path not in self._names:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            return CrashFile(self, path, self._names[path])
        with self.boundary("create", path):
            if path in self._names:
                inode = self._names[path]
                inode.changed(0, len(inode.content), inode.content.clear)
            else:
                self._rename({path.parent}, lambda: self._names.update({path: _Inode()}))
            return CrashFile(self, path, self._names[path])

    def names(self, directory: Path) -> list[str]:
        self.check_alive("names", directory)
        return sorted(path.name for path in self._names if path.parent == directory)

    def exists(self, path: Path) -> bool:
        return path in self._names or path in self._directories

    def make_directory(self, path: Path) -> None:
        self._directories.update({path, *path.parents})

    def rename(self, source: Path, target: Path) -> None:
        with self.boundary("rename", source):
            self._rename({source.parent, target.parent}, lambda: self._names.update({target: self._names.pop(source)}))

    def remove(self, path: Path) -> None:
        with self.boundary("remove", path):
            if path not in self._names:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            self._rename({path.parent}, lambda: self._names.__delitem__(path))

    def sync_directory(self, path: Path) -> None:
        with self.boundary("sync_directory", path):
            self._histories.pop(path, None)

    def space(self, path: Path) -> tuple[int, int]:
        self.check_alive("space", path)
        return 1 << 41, self.free_bytes

    def lock(self, path: Path) -> Lock:
        if path in self.locked:
            raise DirectoryInUse(f"another process uses the data directory {path.parent}")
        self.locked.add(path)
        return _MemoryLock(self, path)
