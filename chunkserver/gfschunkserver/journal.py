"""A disk's write-ahead journal: records in segments, one fsync for all who wait, and the scan that reads them again.

Invariants:

- A segment begins with its header, durable before any record follows; the segment before it is durable by then.
- The first record of a chunk in a segment is a Base (or the Drop that ends it), so segments may be removed, oldest
  first, once the chunks that they mention have been checkpointed.
- Nothing in memory claims a position durable before the fsync that made it so has returned. After a failed fsync,
  nothing is claimed ever again.
"""

import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gfschunkserver import records
from gfschunkserver.files import File, Files, is_out_of_space
from gfschunkserver.records import AnyRecord, Base, Drop, Mark, Read, ReplicaState
from gfsprotocol.checksums import digest
from gfsprotocol.errors import Busy, DiskFailed

SUFFIX: Final = ".journal"
MAGIC: Final = b"GFSJRNL\0"
FORMAT_VERSION: Final = 1
DISK_ID_BYTES: Final = 16
_HEADER: Final = struct.Struct("<8sII16sQQ16s")
HEADER_BYTES: Final = _HEADER.size
_CHECK_BYTES: Final = 16
CHUNKS_PER_SEGMENT_MAX: Final = 8192
ROOM_SECONDS: Final = 30.0
COMMIT_SECONDS: Final = 60.0


class Segment:
    """One file of the journal. Positions count record bytes over all segments; headers do not count."""

    def __init__(self, number: int, path: Path, file: File, start: int) -> None:
        self.number = number
        self.path = path
        self.file = file
        self.start = start
        self.end = start
        self.chunks: set[int] = set()
        """Chunks that it mentions."""

    def offset(self, position: int) -> int:
        """Where in the file a position is."""
        return HEADER_BYTES + position - self.start


def encode_segment_header(disk_id: bytes, number: int, start: int) -> bytes:
    fields = _HEADER.pack(MAGIC, FORMAT_VERSION, HEADER_BYTES, disk_id, number, start, b"")
    return fields[:-_CHECK_BYTES] + digest(fields[:-_CHECK_BYTES])[:_CHECK_BYTES]


def segment_name(number: int) -> str:
    return f"{number:016x}{SUFFIX}"


class Journal:
    """The end of a disk's journal, where records are appended. Safe for threads.

    All methods raise OSError; who calls them takes the disk out of use then.
    """

    def __init__(
        self,
        files: Files,
        directory: Path,
        disk_id: bytes,
        segment_bytes: int,
        on_sync: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """``on_sync`` is told how many seconds an fsync for those who waited took; it must not wait for anything."""
        self._on_sync = on_sync
        self._files = files
        self._directory = directory
        self._disk_id = disk_id
        self._segment_bytes = segment_bytes
        self._condition = threading.Condition()
        self._old: list[Segment] = []
        self._syncing = False
        self._failed = False
        self._ending = False
        self._durable = 0
        self._marked = 0
        self._current: Segment

    def begin(self, number: int, start: int) -> None:
        """Opens the first segment; an empty journal directory is the precondition."""
        self._durable = self._marked = start
        self._current = self._new_segment(number, start)

    def append(self, state: ReplicaState, record: AnyRecord) -> int:
        """Writes a record about the replica whose state so far is ``state``; returns the position behind it.

        It survives the end of the process from now on, and the end of the machine after :meth:`commit`. On an error
        nothing was appended. The caller holds the replica's order lock.
        """
        with self._condition:
            self._check()
            if self._is_full() and not self._old:
                self._try_to_rotate()
            segment = self._current
            position = segment.end
            pieces: list[bytes] = []
            if record.chunk not in segment.chunks and not isinstance(record, Base | Drop):
                pieces.append(records.encode(state.base(), position, self._durable))
                position += len(pieces[0])
            pieces.append(records.encode(record, position, self._durable))
            segment.file.write(segment.offset(segment.end), *pieces)
            segment.chunks.add(record.chunk)
            segment.end = position + len(pieces[-1])
            self._marked = self._durable
            return segment.end

    def commit(self, position: int) -> None:
        """Returns when all before ``position`` is on stable storage. Whoever comes first syncs for all who wait."""
        with self._condition:
            while self._durable < position:
                self._check()
                if self._syncing:
                    if not self._condition.wait(COMMIT_SECONDS):
                        raise OSError("the journal's fsync does not return")
                    continue
                self._sync_current()
            self._check()

    def wait_for_room(self) -> None:
        """Holds a writer back while checkpoints lag far behind. Busy if they do so for long.

        To be called with no lock held: the checkpoints need the replicas' order locks.
        """
        with self._condition:
            if not self._condition.wait_for(self.has_room, ROOM_SECONDS):
                raise Busy("the disk's checkpoints lag behind its journal")

    def has_room(self) -> bool:
        """Whether a writer need not wait for checkpoints."""
        with self._condition:
            current = self._current.end - self._current.start
            return self._failed or not self._old or current < 2 * self._segment_bytes

    def mark(self) -> None:
        """Notes in the journal how far it is durable, if that is news: damage behind the last record shows by it."""
        with self._condition:
            if self._failed or self._marked >= self._durable:
                return
            segment = self._current
            record = records.encode(Mark(0), segment.end, self._durable)
            segment.file.write(segment.offset(segment.end), record)
            segment.end += len(record)
            self._marked = self._durable

    def rotate(self) -> None:
        """Ends the current segment, so that it can be checkpointed and removed."""
        with self._condition:
            self._check()
            if self._current.end > self._current.start:
                self._rotate()

    def wait_for_old(self, seconds: float) -> Segment | None:
        """The oldest segment that waits for its checkpoint; None if there is none in time."""
        with self._condition:
            self._condition.wait_for(lambda: bool(self._old) or self._ending, seconds)
            return self._old[0] if self._old else None

    def stop_waiting(self) -> None:
        """From now on :meth:`wait_for_old` returns at once."""
        with self._condition:
            self._ending = True
            self._condition.notify_all()

    def remove(self, segment: Segment) -> None:
        """Removes the oldest segment, whose chunks have all been checkpointed.

        The directory is synced before anything else is removed: a segment never outlives a younger one.
        """
        segment.file.close()
        self._files.remove(segment.path)
        self._files.sync_directory(self._directory)
        with self._condition:
            self._old.remove(segment)
            self._condition.notify_all()

    @property
    def size_bytes(self) -> int:
        """Of all records that wait for their checkpoint."""
        with self._condition:
            return sum(segment.end - segment.start for segment in [*self._old, self._current])

    def mentions(self, chunk: int) -> bool:
        """Whether a live segment mentions the chunk: its checkpoint in the file may be old then."""
        with self._condition:
            return chunk in self._current.chunks or any(chunk in segment.chunks for segment in self._old)

    def fail(self) -> None:
        """Nothing is appended or promised any more; all who wait get an error."""
        with self._condition:
            self._failed = True
            self._condition.notify_all()

    def close(self) -> None:
        with self._condition:
            self._failed = True
            for segment in [*self._old, self._current]:
                segment.file.close()

    def _check(self) -> None:
        if self._failed:
            raise OSError("the journal is closed, or failed before")

    def _is_full(self) -> bool:
        segment = self._current
        return segment.end - segment.start >= self._segment_bytes or len(segment.chunks) >= CHUNKS_PER_SEGMENT_MAX

    def _sync_current(self) -> None:
        segment, end = self._current, self._current.end
        self._syncing = True
        self._condition.release()
        synced = False
        begun = time.monotonic()
        try:
            segment.file.sync()
            synced = True
            self._on_sync(time.monotonic() - begun)
        finally:
            self._condition.acquire()
            self._syncing = False
            self._failed = self._failed or not synced
            self._condition.notify_all()
        self._durable = max(self._durable, end)

    def _try_to_rotate(self) -> None:
        try:
            self._rotate()
        except OSError as error:
            # On a full disk it goes on in the segment that there is, while it can: deletions make room.
            if not is_out_of_space(error):
                raise

    def _rotate(self) -> None:
        while self._syncing:
            self._condition.wait(COMMIT_SECONDS)
            self._check()
        try:
            self._current.file.sync()
            self._durable = self._current.end
            segment = self._new_segment(self._current.number + 1, self._current.end)
        except OSError as error:
            if not is_out_of_space(error):
                self._failed = True
                self._condition.notify_all()
            raise
        self._old.append(self._current)
        self._current = segment
        self._condition.notify_all()

    def _new_segment(self, number: int, start: int) -> Segment:
        path = self._directory / segment_name(number)
        file = self._files.open(path, create=True)
        try:
            file.write(0, encode_segment_header(self._disk_id, number, start))
            file.sync()
        except OSError:
            file.close()
            self._files.remove(path)
            raise
        self._files.sync_directory(self._directory)
        return Segment(number, path, file, start)


class JournalScan:
    """The segments that are on a disk, read in order. DiskFailed if what was promised durable cannot be read."""

    def __init__(self, files: Files, directory: Path, disk_id: bytes) -> None:
        self._files = files
        self._directory = directory
        self._disk_id = disk_id
        self._closed = False
        self.segments: list[Segment] = []
        self.unborn: list[Path] = []
        """A last segment that a crash kept from being born; nothing can have followed."""
        try:
            self._open_all()
        except DiskFailed:
            self.close()
            raise

    @property
    def end(self) -> int:
        """The position behind the last record; known when :meth:`read` is through."""
        return self.segments[-1].end if self.segments else 0

    @property
    def last_number(self) -> int:
        return self.segments[-1].number if self.segments else 0

    def read(self) -> Iterator[tuple[Segment, Read]]:
        """All records, and the segments that they are in."""
        for index, segment in enumerate(self.segments):
            data = memoryview(segment.file.read(0, segment.file.length()))
            while (found := records.decode(data[segment.offset(segment.end) :], segment.end)) is not None:
                segment.end = found.end
                if found.record.chunk:
                    segment.chunks.add(found.record.chunk)
                yield segment, found
            if index + 1 < len(self.segments):
                if self.segments[index + 1].start != segment.end:
                    raise self._damaged(segment)
            else:
                self._check_torn_tail(segment, data)

    def read_at(self, segment: Segment, position: int) -> Read:
        """The record at a position where :meth:`read` found one."""
        prefix = segment.file.read(segment.offset(position), records.PREFIX.size)
        body_bytes = records.PREFIX.unpack(prefix)[1]
        found = records.decode(segment.file.read(segment.offset(position), len(prefix) + body_bytes), position)
        if found is None:
            raise self._damaged(segment)
        return found

    def remove_all(self) -> None:
        """Once all is checkpointed. Oldest first, each durably, so that what remains after a crash is contiguous."""
        self.close()
        for path in [segment.path for segment in self.segments] + self.unborn:
            self._files.remove(path)
            self._files.sync_directory(self._directory)

    def close(self) -> None:
        """Once or more often: a closed descriptor's number may be another file's by now."""
        if not self._closed:
            self._closed = True
            for segment in self.segments:
                segment.file.close()

    def _open_all(self) -> None:
        names = [name for name in self._files.names(self._directory) if name.endswith(SUFFIX)]
        for name in names:
            path = self._directory / name
            file = self._files.open(path)
            try:
                segment = self._open_segment(path, file, is_last=name == names[-1])
            except DiskFailed:
                file.close()
                raise
            if segment is None:
                file.close()
                self.unborn.append(path)
                continue
            self.segments.append(segment)
        for before, after in zip(self.segments, self.segments[1:], strict=False):
            if after.number != before.number + 1:
                raise DiskFailed(f"the journal segment between {before.path.name} and {after.path.name} is missing")

    def _open_segment(self, path: Path, file: File, is_last: bool) -> Segment | None:
        header = file.read(0, HEADER_BYTES)
        if len(header) == HEADER_BYTES and digest(header[:-_CHECK_BYTES])[:_CHECK_BYTES] == header[-_CHECK_BYTES:]:
            magic, version, _, disk_id, number, start, _ = _HEADER.unpack(header)
            if magic != MAGIC or version != FORMAT_VERSION:
                raise DiskFailed(f"the journal segment {path.name} has format version {version}")
            if disk_id != self._disk_id or segment_name(number) != path.name:
                raise DiskFailed(f"the journal segment {path.name} belongs to another disk")
            return Segment(number, path, file, start)
        if not is_last or file.length() > HEADER_BYTES:
            raise DiskFailed(f"the header of the journal segment {path.name} is damaged")
        return None

    def _check_torn_tail(self, segment: Segment, data: memoryview) -> None:
        """What cannot be read at the end is a torn tail, unless a later record says that it was durable."""
        tail = bytes(data[segment.offset(segment.end) :])
        at = tail.find(records.MAGIC, 1)
        while at >= 0:
            found = records.decode(memoryview(tail)[at:], segment.end + at)
            if found is not None and found.durable > segment.end:
                raise self._damaged(segment)
            at = tail.find(records.MAGIC, at + 1)

    def _damaged(self, segment: Segment) -> DiskFailed:
        return DiskFailed(
            f"the journal {segment.path} is damaged at byte {segment.offset(segment.end)}, where it was durable"
        )
