"""The wire order of one write session: what was sent, and which answers are still to come.

A session is opened, fed and closed without waiting for anything; answers come in order. That makes a small file one
round trip, and a large one a stream.
"""

import select
import socket
import time
from collections import deque
from typing import Final

from gfsprotocol import bulk
from gfsprotocol.bulksocket import BulkConnection, expect
from gfsprotocol.errors import ChunkFull, ConnectionLost, DeadlineExceeded, GfsError, RemoteProtocolError
from gfsprotocol.ids import PACKET_BYTES
from gfsprotocol.messages import Lease

ACK_SECONDS: Final = 6.0
ACK_SECONDS_PER_MEMBER: Final = 2.0
SYNC_SECONDS: Final = 30.0
LAST_WORDS_SECONDS: Final = 0.5
IDLE_BUFFERS_MAX: Final = 32


class Packet:
    """One mutation on its way: bytes for one place in one chunk.

    ``buffer`` holds PACKET_BYTES, of which ``length`` are used; a packet without a buffer only asks for sync.
    """

    __slots__ = ("buffer", "digests", "kind", "length", "offset", "record", "sync")

    def __init__(self, offset: int, buffer: bytes | bytearray | None, kind: int = bulk.WRITE) -> None:
        self.offset = offset
        self.buffer = buffer
        self.length = 0
        self.kind = kind
        self.sync = kind == bulk.SYNC
        self.digests = b""
        self.record = 0

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def payload(self) -> memoryview:
        return memoryview(self.buffer or b"")[: self.length]


def take_buffer() -> bytearray:
    """A buffer of PACKET_BYTES, with some earlier packet's bytes in it."""
    try:
        return _idle_buffers.pop()
    except IndexError:
        return bytearray(PACKET_BYTES)


def give_back_buffer(buffer: bytearray) -> None:
    """For the next packet of any file: a new one costs more than to write a small file into it."""
    if len(_idle_buffers) < IDLE_BUFFERS_MAX:
        _idle_buffers.append(buffer)


_idle_buffers: list[bytearray] = []


class WriteSession:
    """A session on ``connection`` under ``lease``. One thread's; any error raised ends the connection's use."""

    def __init__(
        self, connection: BulkConnection, lease: Lease, client: bytes, verifier: int = 0, only: Packet | None = None
    ) -> None:
        """``verifier``: of writes that were acknowledged in earlier sessions and are not synced, 0 if there are none.

        WritesLost comes as an answer from a primary that may lack them. ``only`` is all that the session is for, a
        write of at most SINGLE_BYTES_MAX: one request and one answer.
        """
        self.connection = connection
        self.lease = lease
        self.verifier = 0
        """What a later session needs to know whether the writes of this one are still there."""
        self.is_open = False
        self.is_closing = False
        self.is_closed = False
        self._members = len(lease.grant.members)
        self._acks_due: deque[Packet] = deque()
        self._syncs_due = 0
        self._heard_at = time.monotonic()
        self._only = only
        if only is None:
            connection.set_timeout(self._patience())
            self._send(bulk.OpenWrite(lease.token, 0, client, verifier))
        else:
            self._send_only(only, verifier)

    def _send_only(self, packet: Packet, verifier: int) -> None:
        self.is_closing = True
        self._acks_due.append(packet)
        self._syncs_due += packet.sync
        self.connection.set_timeout(self._patience())
        header = bulk.SingleWrite(self.lease.token, 0, verifier, 0, packet.offset, packet.digests, packet.sync)
        self._send(header, packet.payload)

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is still to come."""
        return not self.is_open or bool(self._acks_due) or (self.is_closing and not self.is_closed)

    def send(self, packet: Packet) -> None:
        """Sends one mutation; its answer comes through :meth:`receive`."""
        if not self.is_waiting:
            self._heard_at = time.monotonic()
        self._acks_due.append(packet)
        if packet.sync:
            self._syncs_due += 1
            self.connection.set_timeout(self._patience())
        header = bulk.Mutate(packet.kind, 0, packet.offset, packet.digests, packet.record, packet.sync)
        self._send(header, packet.payload)

    def send_close(self) -> None:
        if not self.is_waiting:
            self._heard_at = time.monotonic()
        self.is_closing = True
        self._send(bulk.CloseWrite())

    @property
    def quiet_seconds(self) -> float:
        """For how long an answer has been waited for."""
        return time.monotonic() - self._heard_at if self.is_waiting else 0.0

    def check(self) -> None:
        """DeadlineExceeded if an answer has not come in any reasonable time."""
        if self.quiet_seconds > self._patience():
            raise DeadlineExceeded(f"{self.connection.peer} acknowledges nothing")

    def wait(self, wake: socket.socket | None, seconds: float) -> bool:
        """Waits for an answer, a wake-up or the time to pass; whether an answer is there."""
        if self.connection.has_input():
            return True
        watch = select.poll()
        watch.register(self.connection.sock, select.POLLIN)
        if wake is not None:
            watch.register(wake, select.POLLIN)
        return any(descriptor == self.connection.sock.fileno() for descriptor, _ in watch.poll(seconds * 1000))

    def receive(self) -> tuple[Packet, bulk.Ack] | None:
        """The next answer: the packet that it acknowledges, or None for the session's own beginning and end.

        ChunkFull, for an append, is the one error after which the session goes on.
        """
        peer = self.connection.peer
        self._heard_at = time.monotonic()
        try:
            reply, payload_bytes = self.connection.receive_reply(0)
        except ChunkFull:
            if not self.is_open or not self._acks_due:
                raise RemoteProtocolError(f"{peer} says that a chunk is full without having been asked") from None
            self._acknowledged()
            raise
        if payload_bytes:
            raise RemoteProtocolError(f"{peer} sent a payload with {type(reply).__name__}")
        if self._only is not None:
            return self._take_written(self._only, expect(reply, bulk.SingleWritten, peer))
        if not self.is_open:
            self.verifier = expect(reply, bulk.WriteOpened, peer).verifier
            self.is_open = True
            return None
        if not self._acks_due:
            expect(reply, bulk.WriteClosed, peer)
            if not self.is_closing:
                raise RemoteProtocolError(f"{peer} closed the session unasked")
            self.is_closed = True
            return None
        ack = expect(reply, bulk.Ack, peer)
        packet = self._acknowledged()
        if packet.kind == bulk.WRITE and ack.offset != packet.offset:
            raise RemoteProtocolError(f"{peer} acknowledged offset {ack.offset} where {packet.offset} was due")
        return packet, ack

    def _take_written(self, packet: Packet, written: bulk.SingleWritten) -> tuple[Packet, bulk.Ack]:
        self.verifier = written.verifier
        self.is_open = self.is_closed = True
        return self._acknowledged(), bulk.Ack(packet.offset, written.length)

    def _acknowledged(self) -> Packet:
        packet = self._acks_due.popleft()
        if packet.sync:
            self._syncs_due -= 1
            self.connection.set_timeout(self._patience())
        return packet

    def _patience(self) -> float:
        """Longer than any member of the chain waits for the next, so that the failed one is named, not the first."""
        return ACK_SECONDS + ACK_SECONDS_PER_MEMBER * self._members + (SYNC_SECONDS if self._syncs_due else 0.0)

    def _send(self, header: bulk.RequestHeader, *payload: memoryview) -> None:
        try:
            self.connection.send(header, *payload)
        except ConnectionLost as error:
            raise self._last_words(error) from error

    def _last_words(self, lost: ConnectionLost) -> GfsError:
        """Why the peer hung up: its error is often still in our receive buffer when a send fails."""
        self.connection.set_timeout(LAST_WORDS_SECONDS)
        try:
            while True:
                self.connection.receive_reply(0)
        except GfsError as error:
            return lost if isinstance(error, ConnectionLost | DeadlineExceeded) else error
