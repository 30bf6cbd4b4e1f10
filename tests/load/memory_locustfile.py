"""All kinds of users on files in memory.

With LOAD_TEST_DAMAGE set, some reads return other bytes than were written; with LOAD_TEST_SILENCE, one never returns.
"""

import os
import threading
from collections.abc import Callable, Iterable

from loadtests import locustfile, users

_DAMAGED_READ = 20
_SILENT_READ = 10


class MemoryStore:
    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._reads = 0

    def write(self, path: str, data: bytes) -> None:
        self._files[path] = data

    def read(self, path: str, length: int | None = None, offset: int = 0) -> bytes:
        data = self._files[path][offset:][:length]
        self._reads += 1
        if "LOAD_TEST_SILENCE" in os.environ and self._reads == _SILENT_READ:
            threading.Event().wait()
        is_damaged = "LOAD_TEST_DAMAGE" in os.environ and self._reads % _DAMAGED_READ == 0
        return bytes([data[0] ^ 1]) + data[1:] if is_damaged else data

    def write_stream(self, path: str, pieces: Iterable[bytes]) -> None:
        self._files[path] = b"".join(pieces)

    def read_stream(self, path: str, take: Callable[[bytes], None]) -> None:
        take(self._files[path])

    def append_record(self, path: str, data: bytes) -> int:
        with self._lock:
            offset = len(self._files[path])
            self._files[path] += data
            return offset

    def make_file(self, path: str) -> None:
        self._files.setdefault(path, b"")

    def make_directory(self, path: str) -> None:
        """There are only names."""

    def list(self, path: str) -> list[str]:
        return sorted(name.removeprefix(f"{path}/") for name in self._files if name.startswith(f"{path}/"))

    def size(self, path: str) -> int | None:
        return len(self._files[path]) if path in self._files else None

    def rename(self, source: str, target: str) -> None:
        self._files[target] = self._files.pop(source)

    def remove(self, path: str) -> None:
        del self._files[path]

    def close(self) -> None:
        """Nothing is open."""


class MemoryUser(users.StoreUser):
    abstract = True
    protocol = "memory"
    open_store = staticmethod(lambda _address: MemoryStore())


class SmallFiles(users.SmallFiles, MemoryUser):
    pass


class Streams(users.Streams, MemoryUser):
    pass


class Appends(users.Appends, MemoryUser):
    pass


class Mixed(users.Mixed, MemoryUser):
    pass


class Metadata(users.Metadata, MemoryUser):
    pass


class Listings(users.Listings, MemoryUser):
    pass


Shape = locustfile.Shape
