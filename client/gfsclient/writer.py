"""Writes of one file: gathers bytes to packets, spreads them over chunks, knows what is durable and what is recorded.

Memory is bounded by the packets that may be unacknowledged, whatever the file's size: a writer that is faster than the
chunk servers waits for a buffer. At most three chunks are under way, so that one fills while those before it are
acknowledged and synced.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import Final

from gfsclient.chunkstream import ChunkStream
from gfsclient.core import Core
from gfsclient.leases import FirstLease
from gfsclient.session import Packet, give_back_buffer, take_buffer
from gfsclient.syncing import UnsyncedChunk
from gfsprotocol import bulk
from gfsprotocol.errors import DeadlineExceeded, FileTooLarge, GfsError, StaleHandle
from gfsprotocol.ids import FILE_BYTES_MAX, PACKET_BYTES
from gfsprotocol.messages import Attributes, AttributesReply, ChunkLength, Close, RecordLength, SetAttributes, Stat

CHUNKS_ACTIVE_MAX: Final = 3
STREAMS_KEPT_MAX: Final = 256
"""Chunks whose leases and unsynced state are remembered; beyond them the file is synced."""
CLOSE_SECONDS: Final = 5.0
"""How long a writer that has failed tries to tell the master."""


class FileWriter:
    """The writing side of an open file.

    Safe for threads in that errors and acknowledgements come from others; the calls themselves are one at a time, which
    :class:`~gfsclient.handle.FileHandle` sees to. Each may raise the error that ended an earlier, unfinished write.
    """

    def __init__(
        self, core: Core, attributes: Attributes, first: FirstLease | None = None, follows_cuts: bool = False
    ) -> None:
        """``first`` is a lease on the first chunk that came with the file.

        ``follows_cuts``: as POSIX has it, a file that others cut is written on; else StaleHandle tells the writer.
        """
        self.inode = attributes.inode
        self.chunk_bytes = attributes.chunk_bytes
        self.end = attributes.size
        """The file's size as far as this writer knows, with all that was written and not flushed."""
        self.recorded: Attributes | None = None
        """What the master said when it was told of lengths last."""
        self._core = core
        self._first = first
        self._follows_cuts = follows_cuts
        self._changed = threading.Condition()
        self._streams: OrderedDict[int, ChunkStream] = OrderedDict()
        self._packet: Packet | None = None
        self._packet_index = 0
        self._free: list[bytearray] = []
        self._buffers = 0
        self._given_up = False
        self._recording: Future[AttributesReply] | None = None

    # --------------------------------------------------------------------------------------------------------- writing

    def fits(self, offset: int, count: int) -> bool:
        """Whether ``count`` bytes at ``offset`` find room in the packet at hand: then :meth:`write` does not block."""
        packet = self._packet
        return packet is not None and self._continues(packet, offset) and packet.length + count < self._limit(packet)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Takes ``data`` for ``offset``. Blocks while too much is unacknowledged."""
        rest = memoryview(data).cast("B")
        while rest:
            room = self.room(offset)
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            self.commit(count)
            offset += count
            rest = rest[count:]

    def room(self, offset: int) -> memoryview:
        """Free space, at least one byte, to put what belongs at ``offset``; :meth:`commit` says how much was put."""
        packet = self._packet
        if packet is None or not self._continues(packet, offset) or packet.length == self._limit(packet):
            self._seal()
            if offset >= FILE_BYTES_MAX:
                raise FileTooLarge(f"offset {offset} is beyond the limit of {FILE_BYTES_MAX}")
            self._packet_index, start = divmod(offset, self.chunk_bytes)
            packet = self._packet = Packet(start, self._take_buffer())
        assert packet.buffer is not None
        return memoryview(packet.buffer)[packet.length : self._limit(packet)]

    def commit(self, count: int) -> None:
        """``count`` bytes were put into the room."""
        packet = self._packet
        assert packet is not None
        packet.length += count
        self.end = max(self.end, self._packet_index * self.chunk_bytes + packet.end)
        if packet.length == self._limit(packet):
            self._seal()

    def _continues(self, packet: Packet, offset: int) -> bool:
        return offset == self._packet_index * self.chunk_bytes + packet.end

    def _limit(self, packet: Packet) -> int:
        """Packets end where packets would end if the chunk were cut into equal ones, so that blocks stay whole."""
        return min(PACKET_BYTES - packet.offset % PACKET_BYTES, self.chunk_bytes - packet.offset)

    def _take_buffer(self) -> bytearray:
        """A free buffer; waits for one while all are unacknowledged."""
        with self._changed:
            while True:
                for stream in self._streams.values():
                    self._free.extend(stream.free)
                    stream.free.clear()
                if self._free:
                    return self._free.pop()
                if self._buffers < self._core.config.write_window_packets:
                    self._buffers += 1
                    return take_buffer()
                self._check()
                self._changed.wait()

    def _seal(self, sync: bool = False, final: bool = False) -> None:
        """Hands the packet at hand to its chunk's stream. The end of a chunk is synced at once, while the next fills.

        ``final`` says that no more will follow, so that the session is closed in the same round trip.
        """
        packet = self._packet
        if packet is None:
            return
        if not packet.length:
            assert isinstance(packet.buffer, bytearray)
            self._free.append(packet.buffer)
            self._packet = None
            return
        is_last = packet.end == self.chunk_bytes
        packet.sync = sync or is_last
        self._make_room()
        with self._changed:
            stream = self._stream(self._packet_index)
            self._packet = None  # not before: whatever ends the waiting, what write() has taken is not lost by it
            stream.put(packet)
            if is_last or final:
                stream.finish()
            stream.start()
        self._record_soon()

    def _make_room(self) -> None:
        """So that the packet at hand may have a stream of its own, although very many chunks are remembered."""
        if len(self._streams) >= STREAMS_KEPT_MAX and self._packet_index not in self._streams:
            self._settle_streams(sync=True)
            self._record(None)

    def _stream(self, index: int) -> ChunkStream:
        """The stream of a chunk, ready for packets. With the condition; waits while too many others are active."""
        self._check()
        stream = self._streams.get(index)
        if stream is None:
            self._forget_settled()
            stream = self._streams[index] = self._new_stream(index)
        self._streams.move_to_end(index)
        while not stream.is_running:
            active = [other for other in self._streams.values() if other.is_running]
            if len(active) < CHUNKS_ACTIVE_MAX:
                break
            active[0].finish()
            self._changed.wait()
            self._check()
        return stream

    def _new_stream(self, index: int) -> ChunkStream:
        first = None
        if index == 0:
            first, self._first = self._first, None
        return ChunkStream(self._core, self.inode, index, self._changed, first, self._follows_cuts)

    def _forget_settled(self) -> None:
        """Drops the oldest chunks of which nothing is left to do, so that the number remembered stays bounded."""
        for index, stream in list(self._streams.items()):
            if len(self._streams) < STREAMS_KEPT_MAX:
                break
            if stream.is_idle and not stream.is_unsynced and not stream.is_unrecorded:
                self._free.extend(stream.free)
                del self._streams[index]

    def give_up(self) -> None:
        """From any thread: a write that waits, and any later one, fails."""
        with self._changed:
            self._given_up = True
            for stream in self._streams.values():
                stream.abandon()
            self._changed.notify_all()

    def _check(self) -> None:
        if self._given_up:
            raise DeadlineExceeded("the write was given up")
        for stream in self._streams.values():
            if stream.error is not None:
                raise stream.error

    # -------------------------------------------------------------------------------------------------------- settling

    def flush(self, sync: bool = False) -> None:
        """Returns when all is acknowledged by all replicas (with ``sync``: on their stable storage) and recorded."""
        self.deliver(sync)
        self._record(None)

    def deliver(self, sync: bool = False) -> None:
        """The first half of :meth:`flush`: all is acknowledged, and not recorded yet."""
        self._settle(sync)
        self._trim()

    async def record(self) -> None:
        """The second half of :meth:`flush`, for who is on the event loop."""
        if self._recording is not None:
            recording = asyncio.wrap_future(self._recording)
            recording.add_done_callback(_succeeded)  # what it could not tell is told again, and no failure of ours
            await asyncio.wait([recording])
        chunks = self._recordable()
        if chunks:
            reply = await self._core.masters.expect(RecordLength(self.inode, chunks), AttributesReply)
            self._told(chunks, reply)

    def _trim(self) -> None:
        """Gives buffers back: very many files may be open for writing, and most have been written to long ago."""
        with self._changed:
            for stream in self._streams.values():
                self._free.extend(stream.free)
                stream.free.clear()
            self._buffers -= len(self._free)
            while self._free:
                give_back_buffer(self._free.pop())

    def close(self, modified_ns: int = 0) -> Attributes:
        """Makes all durable and recorded, and ends the registration as a writer; what the file is like then."""
        self.settle()
        self._trim()
        return self._end(Close(self.inode, self._recordable(), -1, modified_ns), None)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to be sent, synced or recorded, so that the registration may be ended as it is."""
        with self._changed:
            if self._packet is not None or self._given_up or (self._recording and not self._recording.done()):
                return False
            return all(stream.is_settled for stream in self._streams.values())

    def unsynced(self) -> list[UnsyncedChunk]:
        """The chunks whose servers can be asked to sync them without a session."""
        with self._changed:
            told = [stream.unsynced() for stream in self._streams.values() if stream.is_unsynced]
        return [chunk for chunk in told if chunk is not None]

    def synced(self, chunks: Iterable[UnsyncedChunk]) -> None:
        """These chunks are on stable storage everywhere, as they were when :meth:`unsynced` told them."""
        with self._changed:
            for chunk in chunks:
                stream = self._streams.get(chunk.index)
                if stream is not None:
                    stream.synced(chunk)

    def settle(self) -> None:
        """Makes all durable, as the last thing before the end; if that fails, the registration is ended."""
        try:
            self._settle(True, final=True)
        except GfsError as error:
            try:
                self.abort()
            except GfsError as second:
                error.add_note(f"and the file stays open at the master: {second.message}")
            raise

    def abort(self) -> None:
        """Gives up what is not acknowledged, records what stands before it, and ends the registration as a writer."""
        self._packet = None
        with self._changed:
            chunks = self._presentable()
            for stream in self._streams.values():
                stream.abandon()
        self._end(Close(self.inode, chunks), CLOSE_SECONDS)

    def _end(self, close: Close, deadline_seconds: float | None) -> Attributes:
        try:
            return self._core.call(close, AttributesReply, deadline_seconds).attributes
        except StaleHandle:
            if close.chunks and self._is_registered_yet(deadline_seconds):
                raise  # another client has truncated the file: what we wrote is gone
        # The masters have given us up while we were silent: what we wrote counts, unless others have cut it off since.
        if close.chunks:
            self._core.call(RecordLength(self.inode, close.chunks), AttributesReply, deadline_seconds)
        now: Stat | SetAttributes = Stat(b"", self.inode)
        if close.modified_ns:
            now = SetAttributes(b"", self.inode, modified_ns=close.modified_ns)
        return self._core.call(now, AttributesReply, deadline_seconds).attributes

    def _is_registered_yet(self, deadline_seconds: float | None) -> bool:
        """Whether there was still a registration to be ended."""
        try:
            self._core.call(Close(self.inode), AttributesReply, deadline_seconds)
        except StaleHandle:
            return False
        return True

    def truncate(self, size: int) -> Attributes:
        """Cuts the file, or extends it with zeros, after all that was written before."""
        self.flush(sync=True)
        self.begin_anew(size // self.chunk_bytes)
        body = SetAttributes(b"", self.inode, size=size)
        attributes = self._core.call(body, AttributesReply).attributes
        self.end = attributes.size
        return attributes

    def begin_anew(self, from_index: int = 0) -> None:
        """What was sent is made durable, and chunks from ``from_index`` on are forgotten: they may be others by now.

        What is gathered goes to those that the file has then.
        """
        self._settle_streams(sync=True)  # those forgotten below are the only ones that know what is not durable yet
        self._record(None)
        with self._changed:
            for stream in self._streams.values():
                stream.finish()
            self._wait_for(lambda: all(stream.is_idle for stream in self._streams.values()))
            self._first = None  # a cut may have freed the chunk
            for index in [index for index in self._streams if index >= from_index]:
                self._free.extend(self._streams.pop(index).free)

    def learn_size(self, size: int) -> None:
        """The file is this long at the master: longer here only by what is gathered."""
        packet = self._packet
        gathered = 0 if packet is None or not packet.length else self._packet_index * self.chunk_bytes + packet.end
        self.end = max(size, gathered)

    def _settle(self, sync: bool, final: bool = False) -> None:
        with self._changed:
            self._check()
            idle = all(stream.is_idle for stream in self._streams.values())
            unsynced = [stream for stream in self._streams.values() if stream.needs_sync]
        has_packet = self._packet is not None and self._packet.length > 0
        if idle and has_packet:
            self._settle_one(sync)
        elif idle and sync and len(unsynced) == 1:
            self._sync_one(unsynced[0])
        else:
            self._seal(sync, final)
        self._settle_streams(sync, final)

    def _settle_streams(self, sync: bool, final: bool = False) -> None:
        with self._changed:
            if sync:
                self._ask_for_sync(final)
            if final:
                for stream in self._streams.values():
                    stream.finish()
            self._wait_for(lambda: not any(stream.has_work for stream in self._streams.values()))
            assert not (sync and any(stream.is_unsynced for stream in self._streams.values()))

    def _settle_one(self, sync: bool) -> None:
        """The last packet of a small file, or of a small change: sent in this thread, its session in one round trip."""
        packet = self._packet
        assert packet is not None
        packet.sync = sync or packet.end == self.chunk_bytes
        self._make_room()
        with self._changed:
            stream = self._stream(self._packet_index)
            self._packet = None
            stream.put(packet)
        stream.run_here()
        with self._changed:
            self._check()

    def _sync_one(self, stream: ChunkStream) -> None:
        """The one chunk of a small file that was flushed before: synced in this thread."""
        with self._changed:
            stream.put(Packet(0, None, bulk.SYNC))
        stream.run_here()
        with self._changed:
            self._check()

    def _ask_for_sync(self, final: bool) -> None:
        """Has every chunk with unsynced bytes synced, at most three at a time. With the condition."""
        for index in [index for index, stream in self._streams.items() if stream.needs_sync]:
            stream = self._stream(index)
            stream.put(Packet(0, None, bulk.SYNC))
            if final:
                stream.finish()
            stream.start()

    def _wait_for(self, settled: Callable[[], bool]) -> None:
        while not settled():
            self._check()
            self._changed.wait()
        self._check()

    # ------------------------------------------------------------------------------------------------------- recording

    def _recordable(self) -> tuple[ChunkLength, ...]:
        with self._changed:
            told = [stream.recordable() for stream in self._streams.values()]
        return tuple(length for length in told if length is not None)

    def _presentable(self) -> tuple[ChunkLength, ...]:
        """As :meth:`_recordable`, while something is under way: up to the first chunk that lacks something. With the
        condition. A reader of what stands behind it would find zeros where bytes are still to come."""
        lacking = min((index for index, stream in self._streams.items() if stream.has_work), default=None)
        told = [stream.recordable() for index, stream in self._streams.items() if lacking is None or index <= lacking]
        return tuple(length for length in told if length is not None)

    def _record(self, deadline_seconds: float | None) -> None:
        """Tells the master how long the chunks have become, so that readers see it."""
        recording = self._recording
        if recording is not None:
            wait([recording])  # what it could not tell is told again
        chunks = self._recordable()
        if chunks:
            self._told(chunks, self._core.call(RecordLength(self.inode, chunks), AttributesReply, deadline_seconds))

    def _record_soon(self) -> None:
        """Tells the master of completed chunks without waiting; one such message at a time."""
        if self._recording is not None and not self._recording.done():
            return
        with self._changed:
            chunks = self._presentable()
            if not any(self._streams[told.index].is_idle for told in chunks):
                return
        self._recording = self._core.submit(RecordLength(self.inode, chunks), AttributesReply)
        self._recording.add_done_callback(lambda done: self._told(chunks, done.result()) if _succeeded(done) else None)

    def _told(self, chunks: tuple[ChunkLength, ...], reply: AttributesReply) -> None:
        with self._changed:
            self.recorded = reply.attributes
            for told in chunks:
                stream = self._streams.get(told.index)
                if stream is not None:
                    stream.recorded(told)


def _succeeded(future: "Future[AttributesReply] | asyncio.Future[AttributesReply]") -> bool:
    return not future.cancelled() and future.exception() is None
