"""Reads of one file: ahead of the reader when it reads in sequence, in parallel when it reads much."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from typing import Final

from gfsclient.core import Core
from gfsclient.fetch import Fetcher, Piece
from gfsclient.locations import ChunkMap
from gfsclient.quickreads import QUICK_BYTES_MAX
from gfsprotocol.errors import DataLost, GfsError
from gfsprotocol.ids import BLOCK_BYTES, KIB, MIB

SEGMENT_BYTES: Final = 8 * MIB
"""The most that one request asks for."""
SEGMENT_BYTES_FIRST: Final = 256 * KIB
"""Read-ahead begins with this much and doubles, so that a look at a file's head does not fetch its middle."""
PARALLEL_FETCHES: Final = 3
"""Requests of one large read under way at a time."""


class Segment:
    """A piece that is fetched ahead into a buffer of its own."""

    def __init__(self, piece: Piece, skip: int, buffer: bytearray, fetch: "Future[int]") -> None:
        self.piece = piece
        self.unread = piece.view[skip:]
        self.buffer = buffer
        self.fetch = fetch

    @property
    def good(self) -> memoryview:
        """What is there of the unread bytes although the rest is lost."""
        return self.unread[: max(0, self.piece.done - (len(self.piece.view) - len(self.unread)))]


class ReadAhead:
    """What follows in a file, fetched before it is wanted, into a bounded ring of buffers. One thread's at a time."""

    def __init__(self, core: Core, fetcher: Fetcher, chunks: ChunkMap, position: int, eager: bool) -> None:
        """From ``position`` on; ``eager`` begins at full width."""
        self.position = position
        self._core = core
        self._fetcher = fetcher
        self._chunks = chunks
        self._planned = position
        # Two in the ring at least, where the settings leave room for it.
        self._segment_bytes_max = max(SEGMENT_BYTES_FIRST, min(SEGMENT_BYTES, core.config.read_ahead_bytes // 2))
        self._segment_bytes = self._segment_bytes_max if eager else SEGMENT_BYTES_FIRST
        self._segments: deque[Segment] = deque()
        self._ahead_bytes = 0
        self._free: list[bytearray] = []

    def ready(self) -> memoryview:
        """What can be had without waiting; empty if nothing."""
        head = self._segments[0] if self._segments else None
        if head is None or not head.fetch.done() or head.fetch.exception() is not None:
            return memoryview(b"")
        return head.unread

    def next(self) -> memoryview:
        """The next bytes at ``position``, as many as lie together; empty at the end of the file as it was known.

        DataLost if they cannot be had; those before them are shown first.
        The view is good until :meth:`took`.
        """
        self._plan()
        if not self._segments:
            return memoryview(b"")
        head = self._segments[0]
        try:
            head.fetch.result()
        except DataLost:
            if not head.good:
                raise
            return head.good
        return head.unread

    def took(self, count: int) -> None:
        """The reader has made use of ``count`` bytes of what :meth:`next` or :meth:`ready` showed."""
        head = self._segments[0]
        head.unread = head.unread[count:]
        self.position += count
        if not head.unread:
            self._segments.popleft()
            self._ahead_bytes -= len(head.piece.view)
            if len(head.buffer) == self._segment_bytes_max:
                self._free.append(head.buffer)

    def close(self) -> None:
        """Gives up what is still being fetched; its buffers are not used again, so nothing can land in them later."""
        for segment in self._segments:
            segment.piece.is_cancelled = True
            segment.fetch.cancel()
        self._segments.clear()
        self._ahead_bytes = 0
        self._free.clear()

    def _plan(self) -> None:
        """Starts fetches until enough is ahead; at least one if the file has more."""
        while self._planned < self._chunks.size and (
            not self._segments or self._ahead_bytes + self._segment_bytes <= self._core.config.read_ahead_bytes
        ):
            index, offset = divmod(self._planned, self._chunks.chunk_bytes)
            skip = offset % BLOCK_BYTES
            end = min(offset - skip + self._segment_bytes, self._chunks.chunk_bytes)
            end = min(end, self._chunks.size - index * self._chunks.chunk_bytes)
            buffer = self._buffer(end - offset + skip)
            piece = Piece(index, offset - skip, memoryview(buffer)[: end - offset + skip])
            fetch = self._core.fetchers.submit(self._fetcher.fetch, piece)
            self._segments.append(Segment(piece, skip, buffer, fetch))
            self._ahead_bytes += len(piece.view)
            self._planned += end - offset
            self._segment_bytes = min(self._segment_bytes * 2, self._segment_bytes_max)

    def _buffer(self, count: int) -> bytearray:
        if count <= self._segment_bytes_max // 2:
            return bytearray(count)  # a small chunk, or the beginning: it would waste a full one
        return self._free.pop() if self._free else bytearray(max(count, self._segment_bytes_max))


class FileReader:
    """The reading side of an open file. Safe for threads."""

    def __init__(self, core: Core, chunks: ChunkMap) -> None:
        self.chunks = chunks
        self._core = core
        self._fetcher = Fetcher(core, chunks)
        self._lock = threading.Lock()
        self._ahead: ReadAhead | None = None
        self._expected = 0
        """Where the next read begins if the file is read in sequence."""

    def ready(self, offset: int, count: int) -> bytes | None:
        """``count`` bytes at ``offset`` if they have been fetched ahead; None if not all of them. Never blocks."""
        view = self.ready_view(offset, count)
        return None if view is None else bytes(view)

    def ready_view(self, offset: int, count: int) -> memoryview | None:
        """As :meth:`ready`, without a copy: it shows these bytes until anyone reads from here again."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            ahead = self._ahead
            if ahead is None or ahead.position != offset:
                return None
            view = ahead.ready()
            if len(view) <= count:  # the last bytes of a segment are left to those who may start the next fetch
                return None
            ahead.took(count)
            self._expected = offset + count
            return view[:count]
        finally:
            self._lock.release()

    def expect(self, offset: int) -> None:
        """The file was read up to ``offset`` in another way: a read from there on continues it. Never blocks."""
        if self._lock.acquire(blocking=False):
            self._expected = offset
            self._lock.release()

    def read(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes; fewer at the end of the file, or before bytes that are lost. DataLost at those."""
        return bytes(self.read_view(offset, count))

    def read_view(self, offset: int, count: int) -> memoryview:
        """As :meth:`read`, without the last copy; nobody else has these bytes."""
        view = memoryview(bytearray(self._clip(offset, count)))
        return view[: self.read_into(offset, view)]

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fills ``view``, as far as :meth:`read` goes; how many bytes that is."""
        view = view[: self._clip(offset, len(view))]
        if not view:
            return 0
        count = len(view)
        if not self._lock.acquire(blocking=False):
            count = self._fill(offset, view)
        else:
            try:
                in_sequence = offset == self._expected
                self._expected = offset + count
                if in_sequence and count < 2 * self._core.config.read_ahead_bytes:
                    count = self._take(offset, view)
                    view = view[:0]
            finally:
                self._lock.release()
            if view:
                count = self._fill(offset, view)
        # If the file was cut by someone else meanwhile, it ends there: what was filled beyond is not its content.
        return max(0, min(count, self.chunks.size - offset))

    def read_once(self, offset: int, count: int) -> bytes:
        """As :meth:`read`, but nothing is fetched ahead, and it is all of it or DataLost: for who reads no more."""
        buffer = bytearray(self._clip(offset, count))
        if buffer:
            self._fill(offset, memoryview(buffer), whole=True)
        return bytes(memoryview(buffer)[: max(0, self.chunks.size - offset)])  # as in read_into

    async def read_quickly(self, offset: int, count: int) -> bytes | None:
        """On the event loop: these bytes, if they are few, known to be there, and easily had; else None."""
        if not 0 < count <= QUICK_BYTES_MAX or offset + count > self.chunks.size:
            return None
        index, start = divmod(offset, self.chunks.chunk_bytes)
        location = self.chunks.known(index)
        if location is None:
            return None
        return await self._core.quick.read(location, start, count, self._core.config.hedge_seconds)

    def read_known(self) -> bytes:
        """The whole file, as long as it was when its chunks were located, or shorter if it was cut since."""
        buffer = bytearray(self.chunks.size)
        if buffer:
            self._fill(0, memoryview(buffer), whole=True)
        return bytes(memoryview(buffer)[: self.chunks.size])  # what was cut off meanwhile reads as zeros: see read_into

    def stream(self, offset: int, count: int | None = None) -> Iterator[memoryview]:
        """The file's bytes from ``offset`` on, at most ``count``, in views that are good until the next one comes."""
        left = self._clip(offset, 2**63 if count is None else count)
        ahead = ReadAhead(self._core, self._fetcher, self.chunks, offset, eager=left > SEGMENT_BYTES)
        try:
            while left:
                view = ahead.next()[:left]
                view = view[: max(0, self.chunks.size - ahead.position)]  # as in read_into
                if not view:
                    return
                yield view
                ahead.took(len(view))
                left -= len(view)
        finally:
            ahead.close()

    def forget(self) -> None:
        """The file was changed through the same handle: what was fetched or located before is used no more."""
        with self._lock:
            self._close_ahead()
        self.chunks.forget()
        self.chunks.refresh_size()

    def close(self, blocking: bool = True) -> bool:
        """Gives up what is fetched ahead; False if not ``blocking`` and another thread is reading."""
        if not self._lock.acquire(blocking=blocking):
            return False
        try:
            self._close_ahead()
        finally:
            self._lock.release()
        return True

    def _close_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _clip(self, offset: int, count: int) -> int:
        """How many of ``count`` bytes the file has; its size is asked for anew before it is said to end."""
        size = self.chunks.size
        if offset + count > size:
            size = self.chunks.refresh_size()
        return max(0, min(count, size - offset))

    def _take(self, offset: int, view: memoryview) -> int:
        """Copies from what is fetched ahead; fewer bytes if the file has become shorter. With the lock."""
        ahead = self._ahead
        if ahead is None or ahead.position != offset:
            self._close_ahead()
            ahead = self._ahead = ReadAhead(self._core, self._fetcher, self.chunks, offset, len(view) >= SEGMENT_BYTES)
        done = 0
        try:
            while done < len(view):
                ready = ahead.next()[: len(view) - done]
                if not ready:
                    break
                view[done : done + len(ready)] = ready
                ahead.took(len(ready))
                done += len(ready)
        except GfsError as error:
            self._close_ahead()
            if not done or not isinstance(error, DataLost):
                raise
        return done

    def _fill(self, offset: int, view: memoryview, whole: bool = False) -> int:
        """Fetches right into ``view``; how many bytes are there before the first that is lost.

        DataLost if that is none, or not all and the ``whole`` is wanted.
        """
        pieces = list(self._pieces(offset, view))
        try:
            self._fetch_all(deque(pieces))
        except DataLost:
            count = 0
            for piece in pieces:
                count += min(piece.done, len(piece.view))
                if piece.done < len(piece.view):
                    break
            if whole or not count:
                raise
            return count
        return len(view)

    def _fetch_all(self, pieces: deque[Piece]) -> None:
        """A few requests at a time. No fetch is left running when it returns or raises."""
        if len(pieces) == 1:
            self._fetcher.fetch(pieces.pop())
        running: dict[Future[int], Piece] = {}
        try:
            while pieces or running:
                while pieces and len(running) < PARALLEL_FETCHES:
                    piece = pieces.popleft()
                    running[self._core.fetchers.submit(self._fetcher.fetch, piece)] = piece
                done, _ = wait(running, return_when="FIRST_COMPLETED")
                for fetch in done:
                    del running[fetch]
                    fetch.result()
        finally:
            for fetch, piece in running.items():
                piece.is_cancelled = True
                fetch.cancel()
            wait(running)

    def _pieces(self, offset: int, view: memoryview) -> Iterator[Piece]:
        """Cuts a range at chunk ends and into whole blocks; what is less than a block is asked for as it is."""
        chunk_bytes = self.chunks.chunk_bytes
        while view:
            index, start = divmod(offset, chunk_bytes)
            count = min(len(view), chunk_bytes - start, SEGMENT_BYTES)
            if count > BLOCK_BYTES and start % BLOCK_BYTES:
                count = BLOCK_BYTES - start % BLOCK_BYTES
            elif count > BLOCK_BYTES and offset + count < self.chunks.size:
                count -= (start + count) % BLOCK_BYTES
            yield Piece(index, start, view[:count])
            view = view[count:]
            offset += count
