"""Mutations of one chunk, on their way to its replicas, whatever happens to them.

A thread takes packets from a queue, streams them to the chunk's primary, and keeps each until every replica has
acknowledged it. When a replica, the primary or the lease fails, it gets another lease from the master and goes on from
the last acknowledged byte. The stream outlives its thread: when there is nothing to send for a while the session ends,
and the next packet starts another one.

All fields are guarded by the file's one condition (``changed``), which the writer shares; network and master calls are
made without it.
"""

import contextlib
import socket
import threading
import time
from collections import deque
from typing import Final

from gfsclient.core import Core
from gfsclient.leases import MASTER_SECONDS, ChunkLease, FirstLease
from gfsclient.links import backoff_seconds
from gfsclient.session import Packet, WriteSession
from gfsclient.syncing import UnsyncedChunk
from gfsprotocol import bulk
from gfsprotocol.checksums import segment_digests
from gfsprotocol.errors import (
    AvailabilityError,
    ConnectionLost,
    DataError,
    GfsError,
    LeaseLost,
    RemoteProtocolError,
    StaleHandle,
    TooFewServers,
    WritesLost,
)
from gfsprotocol.messages import AttributesReply, ChunkLength, Lease, Locate, Locations, RecordLength

IDLE_SECONDS: Final = 2.0
WATCH_SECONDS: Final = 1.0
SMALL_CHUNK_BYTES: Final = 1 << 20
WINDOW_PACKETS: Final = 8
"""Packets sent and not acknowledged, per chunk."""


class ChunkStream:
    """The queue of one chunk's mutations and the thread that empties it."""

    def __init__(
        self,
        core: Core,
        inode: int,
        index: int,
        changed: threading.Condition,
        first: FirstLease | None = None,
        follows_cuts: bool = False,
    ) -> None:
        """``first`` is a lease on the chunk that came with the file.

        ``follows_cuts``: if others have cut the chunk off, what is still to be sent goes to another in its place.
        """
        self.index = index
        self.error: GfsError | None = None
        self.is_running = False
        self.is_unsynced = False
        """Whether something acknowledged is not on stable storage yet."""
        self.is_unrecorded = False
        """Whether the master has not been told of something acknowledged."""
        self.free: list[bytearray] = []
        """Buffers of acknowledged packets, for the writer to take back."""
        self._core = core
        self._inode = inode
        self._follows_cuts = follows_cuts
        self._lease = ChunkLease(core, inode, index, first=first)
        self._changed = changed
        self._queue: deque[Packet] = deque()
        self._unacknowledged: deque[Packet] = deque()
        self._chunk = 0
        self._acknowledged = 0
        """How many packets were."""
        self._acknowledged_end = 0
        self._acknowledged_version = 0
        self._verifier = 0
        """Of what is acknowledged and not synced."""
        self._holders: frozenset[int] = frozenset()
        """The servers that acknowledged it last."""
        self._loss: WritesLost | None = None
        self._finishing = False
        self._abandoned = False
        self._wake_reader: socket.socket | None = None
        self._wake_writer: socket.socket | None = None
        self._trouble_since: float | None = None
        self._attempt = 0

    # ----------------------------------------------------------------------------- for the writer, with the condition

    @property
    def has_work(self) -> bool:
        return bool(self._queue) or bool(self._unacknowledged)

    @property
    def is_idle(self) -> bool:
        return not self.is_running and not self.has_work

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing of it that is under way, unsynced or unknown to the master, and no error to tell."""
        return self.is_idle and not self.is_unsynced and not self.is_unrecorded and self.error is None

    def unsynced(self) -> UnsyncedChunk | None:
        """What its servers have to be told for a sync without a session; None if only a session can do it.

        Or had better: of a large chunk, because others are synced together with it.
        """
        lease = self._lease.current
        if self._acknowledged_end > SMALL_CHUNK_BYTES:
            return None
        if not self.is_idle or self.error is not None or lease is None or self._lease.is_over or not self._verifier:
            return None
        if self._acknowledged_version != lease.grant.version or self._chunk != lease.grant.chunk:
            return None
        return UnsyncedChunk(self.index, lease, self._verifier, self._acknowledged)

    def synced(self, chunk: UnsyncedChunk) -> None:
        """What had been acknowledged when ``chunk`` was taken is on stable storage everywhere."""
        if chunk.acknowledged == self._acknowledged:
            self.is_unsynced = False

    @property
    def needs_sync(self) -> bool:
        """Whether something will not be on stable storage when all that is under way is acknowledged."""
        under_way = self._queue or self._unacknowledged
        return not under_way[-1].sync if under_way else self.is_unsynced

    def put(self, packet: Packet) -> None:
        """Adds a mutation; :meth:`start` or :meth:`run` must follow if no thread is running."""
        self._queue.append(packet)
        self._finishing = False
        self._wake()

    def finish(self) -> None:
        """The session is to end when all is acknowledged, without waiting for more."""
        self._finishing = True
        self._wake()

    def start(self) -> None:
        """Empties the queue in a thread, unless one does so already."""
        if self.is_running or not self._queue:
            return
        try:
            self._wake_reader, self._wake_writer = socket.socketpair()
            self._wake_reader.setblocking(False)
            self._wake_writer.setblocking(False)
            self.is_running = True
            threading.Thread(target=self._run, name=f"gfs-chunk-{self.index}", daemon=True).start()
        except (OSError, RuntimeError) as error:  # no descriptor or no thread is left in this process
            self._end(GfsError(f"writing chunk {self.index} cannot be started: {error}"))

    def abandon(self) -> None:
        """What is not sent yet is forgotten, and what was sent is not sent again."""
        self._abandoned = True
        self._queue.clear()
        self.finish()

    def run_here(self) -> None:
        """Empties the queue in the caller's thread; to be called without the condition, and not while a thread runs."""
        with self._changed:
            self.is_running = True
            self._finishing = True
        self._run()

    def recordable(self) -> ChunkLength | None:
        """What the master should know of this chunk, if it does not know yet."""
        if not self.is_unrecorded:
            return None
        return ChunkLength(self.index, self._chunk, self._acknowledged_end, self._acknowledged_version)

    def recorded(self, told: ChunkLength) -> None:
        if told.length == self._acknowledged_end:
            self.is_unrecorded = False

    # ----------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            while self._goes_on():
                lease = self._obtain_lease()
                if lease is not None:
                    self._serve_session(lease)
        except GfsError as error:
            self._end(error)
        except BaseException as error:
            self._end(GfsError(f"writing chunk {self.index} ended unexpectedly: {type(error).__name__}: {error}"))
            raise

    def _goes_on(self) -> bool:
        """Whether there is something to send. If not the thread has ended, as far as others can tell."""
        with self._changed:
            if self._abandoned:
                self._queue.clear()
            if self._queue:
                return True
            self._stop()
            return False

    def _end(self, error: GfsError) -> None:
        with self._changed:
            self.error = error
            self._stop()

    def _stop(self) -> None:
        self.is_running = False
        for end in (self._wake_reader, self._wake_writer):
            if end is not None:
                end.close()
        self._wake_reader = self._wake_writer = None
        self._changed.notify_all()

    def _obtain_lease(self) -> Lease | None:
        """A lease, or None after a failure that is worth another try."""
        deadline = (self._trouble_since or time.monotonic()) + self._core.config.deadline_seconds
        try:
            try:
                if self._lease.is_over:
                    self._record_first()
                lease = self._lease.obtain(deadline)
                return lease if self._still_wants(lease) else None
            except StaleHandle:
                if not self._follows_cuts or not self._follow_cut():
                    raise
        except (AvailabilityError, LeaseLost) as error:
            self._survive(error)
        return None

    def _follow_cut(self) -> bool:
        """After a refusal: whether others have cut the chunk, and no more is gone than what they have cut off.

        The next lease is then asked for as if it were the first.
        """
        lease = self._lease.current
        if lease is None or self.is_unrecorded:
            return False
        located = self._core.call(Locate(b"", self._inode, self.index, 1), Locations, MASTER_SECONDS)
        with self._changed:
            self._lease = ChunkLease(self._core, self._inode, self.index)
            self._acknowledged_end = 0
            if not any(chunk.chunk == lease.grant.chunk for chunk in located.chunks):
                self._forget_acknowledged()
        return True

    def _still_wants(self, lease: Lease) -> bool:
        """Whether there is something to send under this lease; not if all was for a chunk that others have cut off."""
        if not self._follows_cuts or self._chunk in (0, lease.grant.chunk):
            return True
        with self._changed:
            self._forget_acknowledged()
            return bool(self._queue)

    def _forget_acknowledged(self) -> None:
        """There is another chunk by now, or none: nothing that was written before needs a sync. With the condition."""
        self._queue = deque(packet for packet in self._queue if packet.kind != bulk.SYNC)
        self.is_unsynced = False
        self._chunk = self._verifier = 0
        self._holders = frozenset()
        self._lease.refused.clear()
        self._loss = None

    def _record_first(self) -> None:
        """Tells the master what is acknowledged: under a new lease a chunk may be cut to its recorded length."""
        with self._changed:
            told = self.recordable()
        if told is not None:
            self._core.call(RecordLength(self._inode, (told,)), AttributesReply, MASTER_SECONDS)
            with self._changed:
                self.recorded(told)

    def _serve_session(self, lease: Lease) -> None:
        primary = lease.grant.members[0]
        connection = None
        try:
            only = self._take_only()
            connection = self._core.pool.take(primary.host, primary.port)
            verifier = self._verifier if self.is_unsynced else 0
            self._pump(WriteSession(connection, lease, self._core.masters.client, verifier, only))
            self._core.pool.give_back(primary.host, primary.port, connection)
            connection = None
        except (DataError, AvailabilityError, RemoteProtocolError) as error:
            self._take_back()
            if isinstance(error, WritesLost):
                self._doubt(error)
            with self._changed:
                has_lost_nothing = not self._queue and isinstance(error, ConnectionLost)
            if not has_lost_nothing:  # else the server ended an idle session, which is its right
                self._lease.failed(lease, error, connection is not None)
                self._survive(error)
        finally:
            if connection is not None:
                connection.close()

    def _take_only(self) -> Packet | None:
        """The packet to be sent, if it is the only one, small, and the session is to end after it."""
        with self._changed:
            packet = self._queue[0] if self._finishing and len(self._queue) == 1 else None
            if packet is None or packet.kind != bulk.WRITE or not 0 < packet.length <= bulk.SINGLE_BYTES_MAX:
                return None
            self._unacknowledged.append(self._queue.popleft())
        if not packet.digests:
            packet.digests = segment_digests(packet.offset, packet.payload)
        self._lease.renew_early()
        return packet

    def _pump(self, session: WriteSession) -> None:
        """Sends while there is something to send, takes answers as they come, and closes when nothing is left."""
        while not session.is_closed:
            packet = None if session.is_closing else self._next_packet()
            if packet is not None:
                if not session.is_waiting and session.connection.is_stale():
                    raise ConnectionLost("the server has ended an idle session")
                if not packet.digests and packet.length:
                    packet.digests = segment_digests(packet.offset, packet.payload)
                session.send(packet)
                if self._lease.renew_early():
                    session.send_close()
                self._take_answers(session)
            elif session.is_waiting or session.is_closing:
                with self._changed:
                    finishing = self._finishing and not self._queue
                if finishing and not session.is_closing:
                    session.send_close()
                if session.wait(self._wake_reader, WATCH_SECONDS):
                    self._take_answers(session)
                self._drain_wake()
                self._lease.watch(session)
            elif self._is_over(session):
                session.send_close()

    def _next_packet(self) -> Packet | None:
        with self._changed:
            if not self._queue or len(self._unacknowledged) >= WINDOW_PACKETS:
                return None
            packet = self._queue.popleft()
            self._unacknowledged.append(packet)
            return packet

    def _is_over(self, session: WriteSession) -> bool:
        """With nothing under way: whether the session should end, after a while of waiting for more."""
        with self._changed:
            if self._queue:
                return False
            if self._finishing or self._wake_reader is None:
                return True
        if session.wait(self._wake_reader, IDLE_SECONDS):
            self._take_answer(session)
        self._drain_wake()
        with self._changed:
            return not self._queue

    def _take_answers(self, session: WriteSession) -> None:
        while session.is_waiting and session.wait(None, 0.0):
            self._take_answer(session)

    def _take_answer(self, session: WriteSession) -> None:
        answer = session.receive()
        self._lease.opened()
        if answer is None:
            return
        packet, ack = answer
        self._lease.worked()
        with self._changed:
            self._trouble_since, self._attempt = None, 0
            self._unacknowledged.popleft()
            self._acknowledged += 1
            self._chunk = session.lease.grant.chunk
            self._acknowledged_version = session.lease.grant.version
            self.is_unsynced = not packet.sync
            self._verifier = session.verifier
            self._holders = frozenset(member.server for member in session.lease.grant.members)
            self._loss = None
            if packet.kind != bulk.SYNC:
                self._acknowledged_end = max(self._acknowledged_end, ack.offset + packet.length)
                self.is_unrecorded = True
            if isinstance(packet.buffer, bytearray):
                self.free.append(packet.buffer)
            self._changed.notify_all()

    def _take_back(self) -> None:
        """What was sent and not acknowledged goes to the head of the queue again, in its order."""
        with self._changed:
            self._queue.extendleft(reversed(self._unacknowledged))
            self._unacknowledged.clear()

    def _doubt(self, error: WritesLost) -> None:
        """Another server may still have what those named may have lost: raises ``error`` when all have said so.

        It is kept, to be raised instead of what keeps us from asking the others.
        """
        self._loss = error
        self._lease.refused.update(int(server) for server in error.hint.split() if server.isdigit())
        if self._lease.refused >= self._holders:
            raise error

    def _survive(self, error: GfsError) -> None:
        """Waits a little before the next try; raises ``error`` if there is no time for one."""
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
        if now - self._trouble_since > self._core.config.deadline_seconds:
            raise self._loss or error
        # The first failure is answered at once; TooFewServers needs someone else to act first.
        if self._attempt or isinstance(error, TooFewServers):
            time.sleep(backoff_seconds(self._attempt))
        self._attempt += 1

    def _wake(self) -> None:
        if self._wake_writer is not None:
            with contextlib.suppress(BlockingIOError):  # a full pipe has woken the reader already
                self._wake_writer.send(b"w")

    def _drain_wake(self) -> None:
        if self._wake_reader is not None:
            with contextlib.suppress(BlockingIOError):
                while len(self._wake_reader.recv(4096)) == 4096:
                    pass
