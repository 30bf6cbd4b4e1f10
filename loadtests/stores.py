"""What users of all protocols can do: one interface, and the native client behind it."""

from collections.abc import Callable, Iterable
from typing import Protocol

from gfsclient.sync import FileSystem
from gfsprotocol.errors import NotFound

READ_BYTES = 1 << 20


class Store(Protocol):
    """A cluster through one protocol. All calls block, and come from many threads; failures are exceptions."""

    def write(self, path: str, data: bytes) -> None:
        """Makes ``data`` the content of a file, durably."""

    def read(self, path: str, length: int | None = None, offset: int = 0) -> bytes:
        """``length`` bytes at ``offset``, or all from there on."""

    def write_stream(self, path: str, pieces: Iterable[bytes]) -> None:
        """Makes a large file without having it in memory."""

    def read_stream(self, path: str, take: Callable[[bytes], None]) -> None:
        """Gives a file's content to ``take``, piece by piece."""

    def append_record(self, path: str, data: bytes) -> int:
        """Appends ``data`` as one record; the offset that it got."""

    def make_file(self, path: str) -> None:
        """An empty file; one that is there is left as it is."""

    def make_directory(self, path: str) -> None:
        """With all that are missing above it; one that is there is left as it is."""

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted."""

    def size(self, path: str) -> int | None:
        """Of a file, in bytes; None if there is nothing of that name."""

    def rename(self, source: str, target: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def close(self) -> None: ...


class NativeStore:
    """The client library, whose event loop has a thread of its own; one for all users of a process."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files

    def write(self, path: str, data: bytes) -> None:
        self._files.write_bytes(path, data)

    def read(self, path: str, length: int | None = None, offset: int = 0) -> bytes:
        if length is None and not offset:
            return self._files.read_bytes(path)
        with self._files.open(path) as file:
            return file.pread(offset, file.size() - offset if length is None else length)

    def write_stream(self, path: str, pieces: Iterable[bytes]) -> None:
        with self._files.open(path, "wb") as file:
            for piece in pieces:
                file.write(piece)

    def read_stream(self, path: str, take: Callable[[bytes], None]) -> None:
        with self._files.open(path) as file:
            while piece := file.read(READ_BYTES):
                take(piece)

    def append_record(self, path: str, data: bytes) -> int:
        return self._files.append_record(path, data)

    def make_file(self, path: str) -> None:
        self._files.make_file(path)

    def make_directory(self, path: str) -> None:
        self._files.mkdir(path, parents=True)

    def list(self, path: str) -> list[str]:
        return self._files.listdir(path)

    def size(self, path: str) -> int | None:
        try:
            return self._files.stat(path).size
        except NotFound:
            return None

    def rename(self, source: str, target: str) -> None:
        self._files.rename(source, target)

    def remove(self, path: str) -> None:
        self._files.remove(path)

    def close(self) -> None:
        self._files.close()
