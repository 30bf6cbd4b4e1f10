"""An open file, for threads: position, modes, and what reading and writing through one handle owe each other."""

import threading
from dataclasses import dataclass
from typing import Final

from gfsclient.core import Core
from gfsclient.leases import FirstLease
from gfsclient.locations import ChunkMap
from gfsclient.reader import FileReader
from gfsclient.writer import FileWriter
from gfsprotocol.errors import InvalidArgument
from gfsprotocol.messages import Attributes, Locate, Locations

ReadableBuffer = bytes | bytearray | memoryview

_SEEK_SET: Final = 0
_SEEK_CURRENT: Final = 1
_SEEK_END: Final = 2


@dataclass(frozen=True, slots=True)
class OpenMode:
    """A mode of :func:`open`, taken apart."""

    reads: bool
    writes: bool
    appends: bool
    creates: bool
    truncates: bool
    is_exclusive: bool

    @classmethod
    def parse(cls, mode: str) -> "OpenMode":
        """``r``, ``w``, ``a`` or ``x``, with ``+`` and ``b`` as one likes; InvalidArgument for anything else."""
        flags = mode.replace("b", "", 1)
        base, plus = flags[:1], flags[1:]
        if base not in ("r", "w", "a", "x") or plus not in ("", "+") or "t" in mode:
            raise InvalidArgument(
                f"'{mode}' is not a mode of a binary file: use r, w, a or x, with + to read and write"
            )
        return cls(
            reads=base == "r" or bool(plus),
            writes=base != "r" or bool(plus),
            appends=base == "a",
            creates=base != "r",
            truncates=base == "w",
            is_exclusive=base == "x",
        )


class FileHandle:
    """One open file. Safe for threads: position and writes are one at a time, positional reads go side by side.

    Everything may raise what :mod:`gfsprotocol.errors` has for the file, the chunks or the masters.
    """

    def __init__(
        self,
        core: Core,
        path: bytes,
        mode: OpenMode,
        attributes: Attributes,
        located: Locations | None = None,
        first: FirstLease | None = None,
    ) -> None:
        """``located`` is the answer to Locate if there has been one; for writing, the caller is registered already.

        ``first`` is a lease on the first chunk that came with the file.
        """
        self.path = path
        self.mode = mode
        self.inode = attributes.inode
        self.attributes = attributes
        """As they were when it was opened; of a file that was written, after :meth:`close`, as they are then."""
        self.closed = False
        self._core = core
        self._lock = threading.RLock()
        self._position = 0
        self._reader = FileReader(core, ChunkMap(core, located)) if located is not None else None
        self._reader_is_stale = False
        self._writer = FileWriter(core, attributes, first) if mode.writes else None
        if self._writer is not None:
            core.count_writer(1)

    # --------------------------------------------------------------------------------------------------------- reading

    def read(self, count: int = -1) -> bytes:
        """Up to ``count`` bytes from the position on, all that are left if negative; fewer at the end only."""
        with self._lock:
            data = self.pread(self._position, 2**62 if count < 0 else count)
            self._position += len(data)
            return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fills ``buffer`` from the position on; how many bytes, 0 at the end."""
        with self._lock:
            count = self._readable().read_into(self._position, memoryview(buffer).cast("B"))
            self._position += count
            return count

    def pread(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes at ``offset``, without moving the position."""
        _check_offset(offset)
        return self._readable().read(offset, count)

    def read_once(self, offset: int, count: int) -> bytes:
        """As :meth:`pread`, for who reads no more: nothing is fetched ahead; DataLost if not all can be had."""
        _check_offset(offset)
        return self._readable().read_once(offset, count)

    @property
    def quick_reader(self) -> FileReader | None:
        """The reader, if nothing is written through this handle that it might not see."""
        return None if self.closed or self._writer is not None else self._reader

    def read_ready(self, count: int) -> bytes | None:
        """As :meth:`read`, if the bytes are at hand; None if it would have to wait for anything."""
        if self._reader is None or self._reader_is_stale or count < 0 or not self._lock.acquire(blocking=False):
            return None
        try:
            data = None if self.closed else self._reader.ready(self._position, count)
            self._position += len(data or b"")
            return data
        finally:
            self._lock.release()

    def _readable(self) -> FileReader:
        """The reader, which sees all that was written through this handle."""
        self._check_open()
        if not self.mode.reads:
            raise InvalidArgument("the file is not open for reading")
        if self._writer is not None:
            with self._lock:
                if self._reader_is_stale:
                    self._writer.flush()
                    if self._reader is not None:
                        self._reader.forget()
                    self._reader_is_stale = False
        with self._lock:
            if self._reader is None:
                located = self._core.call(Locate(b"", self.inode), Locations)
                self._reader = FileReader(self._core, ChunkMap(self._core, located))
            return self._reader

    # --------------------------------------------------------------------------------------------------------- writing

    def write(self, data: ReadableBuffer) -> int:
        """Takes all of ``data`` for the position (in append mode: for the end); acknowledged only after a flush."""
        with self._lock:
            writer = self._writable()
            if self.mode.appends:
                self._position = writer.end
            view = memoryview(data).cast("B")
            writer.write(self._position, view)
            self._position += len(view)
            return len(view)

    def write_ready(self, data: ReadableBuffer) -> bool:
        """As :meth:`write`, if it need not wait; False if it has not been done."""
        if self._writer is None or self.closed or not self._lock.acquire(blocking=False):
            return False
        try:
            offset = self._writer.end if self.mode.appends else self._position
            view = memoryview(data).cast("B")
            if not self._writer.fits(offset, len(view)):
                return False
            self._reader_is_stale = True
            self._writer.write(offset, view)
            self._position = offset + len(view)
            return True
        finally:
            self._lock.release()

    def pwrite(self, offset: int, data: ReadableBuffer) -> int:
        """Takes all of ``data`` for ``offset``, without moving the position."""
        _check_offset(offset)
        with self._lock:
            view = memoryview(data).cast("B")
            self._writable().write(offset, view)
            return len(view)

    def room(self) -> memoryview:
        """Free space for what comes next; :meth:`commit` writes what was put there. For copying without a copy."""
        with self._lock:
            return self._writable().room(self._position)

    def commit(self, count: int) -> None:
        with self._lock:
            self._writable().commit(count)
            self._position += count

    def truncate(self, size: int | None = None) -> int:
        """Cuts the file to ``size`` (by default: at the position) or extends it with zeros; its size then."""
        with self._lock:
            size = self._position if size is None else size
            _check_offset(size)
            return self._writable().truncate(size).size

    def flush(self) -> None:
        """What was written is on all replicas, and visible to readers, when this returns."""
        self._settle(sync=False)

    def fsync(self) -> None:
        """As :meth:`flush`, and on stable storage on every replica."""
        self._settle(sync=True)

    def _settle(self, sync: bool) -> None:
        with self._lock:
            self._check_open()
            if self._writer is not None:
                self._writer.flush(sync)

    def _writable(self) -> FileWriter:
        self._check_open()
        if self._writer is None:
            raise InvalidArgument("the file is not open for writing")
        self._reader_is_stale = True
        return self._writer

    # -------------------------------------------------------------------------------------------------------- position

    def seek(self, offset: int, whence: int = _SEEK_SET) -> int:
        """Moves the position, as :func:`os.lseek`; the new one."""
        with self._lock:
            self._check_open()
            start = {_SEEK_SET: 0, _SEEK_CURRENT: self._position}.get(whence)
            if start is None:
                if whence != _SEEK_END:
                    raise InvalidArgument(f"{whence} is not a way to seek")
                start = self.size()
            _check_offset(start + offset)
            self._position = start + offset
            return self._position

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        """The file's size, with what was written through this handle and not flushed yet."""
        with self._lock:
            self._check_open()
            if self._writer is not None:
                return self._writer.end
            assert self._reader is not None
            return self._reader.chunks.refresh_size()

    # ------------------------------------------------------------------------------------------------------------- end

    def close(self, modified_ns: int = 0) -> None:
        """Makes all that was written durable on every replica and recorded, and ends the handle."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            try:
                if self._writer is not None:
                    self.attributes = self._writer.close(modified_ns)
            finally:
                self._end()

    def close_ready(self) -> bool:
        """As :meth:`close`, if it need not wait; False if it has not been done."""
        if self._writer is not None or not self._lock.acquire(blocking=False):
            return False
        try:
            self.closed = self.closed or self._reader is None or self._reader.close(blocking=False)
            return self.closed
        finally:
            self._lock.release()

    def abort(self) -> None:
        """Ends the handle and gives up what is not acknowledged."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            try:
                if self._writer is not None:
                    self._writer.abort()
            finally:
                self._end()

    @property
    def is_forked(self) -> bool:
        """Whether it belongs to a parent of this process; its locks may be held for ever then."""
        return self._core.is_forked

    def give_up(self) -> None:
        """From another thread: makes a write that waits fail soon."""
        if self._writer is not None:
            self._writer.give_up()

    def _end(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._writer is not None:
            self._core.count_writer(-1)

    def _check_open(self) -> None:
        if self.closed:
            raise InvalidArgument("the file is closed")
        self._core.check()


def _check_offset(offset: int) -> None:
    if offset < 0:
        raise InvalidArgument(f"{offset} is not a place in a file")
