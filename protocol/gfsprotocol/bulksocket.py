"""Bulk frames over a blocking socket, for threads: clients, chunk servers and the chain between them.

Threads with blocking sockets, because the system calls and BLAKE3 release the interpreter lock and nothing else is left
to do between them; ``docs/decisions/0001-bulk-threads.md`` has the measurements.
"""

import errno
import select
import socket
import struct
import threading
from collections.abc import Sequence
from typing import TypeVar

from gfsprotocol import bulk
from gfsprotocol.errors import Busy, ConnectionLost, DeadlineExceeded, GfsError, RemoteProtocolError, from_wire

_READ_AHEAD_BYTES = 8192
_TIMEVAL = struct.Struct("@ll")
_OWN_FAULTS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)

OWN_FAULT = "here"
"""The hint of the error that says that this process, not the peer, lacks something."""


class BulkConnection:
    """One end of a bulk connection. Not for use by two threads at once.

    Every method raises ConnectionLost if the peer goes, DeadlineExceeded if it is silent for ``timeout_seconds``, and
    RemoteProtocolError if it sends what is not a frame; after any of them the connection is of no more use.
    """

    def __init__(self, sock: socket.socket, peer: str, timeout_seconds: float) -> None:
        self.sock = sock
        self.peer = peer
        self._timeout_seconds = 0.0
        # The kernel keeps the time, not Python, which would poll before each call and never wait for all of a piece.
        sock.settimeout(None)
        self.set_timeout(timeout_seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ahead = memoryview(bytearray(_READ_AHEAD_BYTES))
        self._start = 0
        self._end = 0

    @classmethod
    def connect(cls, host: str, port: int, connect_seconds: float, timeout_seconds: float) -> "BulkConnection":
        """Connects and sends the preamble. ConnectionLost if no one answers in time.

        Busy, with the hint OWN_FAULT, if this process has no descriptor, port or memory left: no fault of the peer.
        """
        try:
            sock = socket.create_connection((host, port), connect_seconds)
        except OSError as error:
            reason = f"cannot connect to {host}:{port}: {error.strerror or error}"
            if error.errno in _OWN_FAULTS:
                raise Busy(reason, OWN_FAULT) from error
            raise ConnectionLost(reason) from error
        connection = cls(sock, f"{host}:{port}", timeout_seconds)
        connection.send_bytes([bulk.PREAMBLE])
        return connection

    def set_timeout(self, seconds: float) -> None:
        """How long the peer may take or send nothing; above zero."""
        if seconds == self._timeout_seconds:
            return
        self._timeout_seconds = seconds
        whole = int(seconds)
        interval = _TIMEVAL.pack(whole, max(1, int((seconds - whole) * 1_000_000)))
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        except OSError as error:
            raise ConnectionLost(f"the connection to {self.peer} broke: {error.strerror or error}") from error

    def send(self, header: bulk.RequestHeader | bulk.ReplyHeader, *payload: bytes | memoryview) -> None:
        """One frame."""
        self.send_bytes([bulk.encode(header, sum(map(len, payload))), *payload])

    def send_bytes(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Raw bytes: pieces of a frame."""
        rest: list[bytes | memoryview] = [piece for piece in pieces if len(piece)]
        try:
            while rest:
                sent = self.sock.sendmsg(rest)
                while rest and sent >= len(rest[0]):
                    sent -= len(rest[0])
                    rest.pop(0)
                if sent:
                    rest[0] = memoryview(rest[0])[sent:]
        except BlockingIOError as error:
            raise DeadlineExceeded(f"{self.peer} takes no data") from error
        except OSError as error:
            raise ConnectionLost(f"the connection to {self.peer} broke: {error.strerror or error}") from error

    def receive_into(self, view: memoryview) -> None:
        """Fills ``view``."""
        done = self._take_ahead(view)
        while done < len(view):
            done += self._recv(view[done:], socket.MSG_WAITALL)

    def receive_some(self, view: memoryview) -> int:
        """At least one byte into ``view``, as many as are there."""
        return self._take_ahead(view) or self._recv(view)

    def _take_ahead(self, view: memoryview) -> int:
        ready = min(self._end - self._start, len(view))
        view[:ready] = self._ahead[self._start : self._start + ready]
        self._start += ready
        return ready

    def has_input(self) -> bool:
        """Whether bytes are already read ahead, so that the socket need not be waited for."""
        return self._end > self._start

    def wait_for_input(self, seconds: float) -> None:
        """Until the peer has sent something, or has gone; DeadlineExceeded after ``seconds``.

        Where the peer may be silent for longer than within a frame: cheaper than to change the timeout to and fro.
        """
        if self.has_input():
            return
        watch = select.poll()
        watch.register(self.sock, select.POLLIN)
        if not watch.poll(seconds * 1000):
            raise DeadlineExceeded(f"{self.peer} sends nothing")

    def receive_request(
        self, payload_bytes_max: int = bulk.REQUEST_PAYLOAD_BYTES_MAX
    ) -> tuple[bulk.RequestHeader, int]:
        """The next request's header and how many bytes of payload follow, to be received by the caller."""
        header, payload_bytes = self._header(payload_bytes_max)
        return bulk.decode_request(header), payload_bytes

    def receive_reply(self, payload_bytes_max: int = bulk.REPLY_PAYLOAD_BYTES_MAX) -> tuple[bulk.ReplyHeader, int]:
        """As :meth:`receive_request`; a :class:`~gfsprotocol.bulk.BulkError` is raised as the error it stands for."""
        header, payload_bytes = self._header(payload_bytes_max)
        reply = bulk.decode_reply(header)
        if isinstance(reply, bulk.BulkError):
            raise from_wire(reply.code, reply.message, reply.hint)
        return reply, payload_bytes

    def is_stale(self) -> bool:
        """Whether an idle connection is unusable: the peer closed it, or sent what was not asked for."""
        watch = select.poll()  # select() has no room for descriptors over 1023
        watch.register(self.sock, select.POLLIN)
        return self.has_input() or bool(watch.poll(0))

    def close(self) -> None:
        self.sock.close()

    def _header(self, payload_bytes_max: int) -> tuple[memoryview, int]:
        header_bytes, payload_bytes = bulk.decode_prefix(self._take(bulk.PREFIX.size), payload_bytes_max)
        return self._take(header_bytes), payload_bytes

    def _take(self, count: int) -> memoryview:
        """The next ``count`` bytes; the view lives until the next call."""
        if count > len(self._ahead):
            whole = memoryview(bytearray(count))
            self.receive_into(whole)
            return whole
        if len(self._ahead) - self._start < count:
            rest = self._end - self._start
            self._ahead[:rest] = bytes(self._ahead[self._start : self._end])
            self._start, self._end = 0, rest
        while self._end - self._start < count:
            self._end += self._recv(self._ahead[self._end :])
        view = self._ahead[self._start : self._start + count]
        self._start += count
        if self._start == self._end:
            self._start = self._end = 0
        return view

    def _recv(self, view: memoryview, flags: int = 0) -> int:
        try:
            count = self.sock.recv_into(view, 0, flags)
        except BlockingIOError as error:
            raise DeadlineExceeded(f"{self.peer} sends nothing") from error
        except OSError as error:
            raise ConnectionLost(f"the connection to {self.peer} broke: {error.strerror or error}") from error
        if not count:
            raise ConnectionLost(f"{self.peer} closed the connection")
        return count


class BulkPool:
    """Idle connections kept for the next request, at most ``idle_per_peer`` of each peer. Safe for threads."""

    def __init__(self, connect_seconds: float = 3.0, timeout_seconds: float = 10.0, idle_per_peer: int = 8) -> None:
        self._connect_seconds = connect_seconds
        self._timeout_seconds = timeout_seconds
        self._idle_per_peer = idle_per_peer
        self._idle: dict[tuple[str, int], list[BulkConnection]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def take(self, host: str, port: int, fresh: bool = False, timeout_seconds: float | None = None) -> BulkConnection:
        """An idle connection that still works, or a new one; a new one in any case if it is to be ``fresh``.

        ``timeout_seconds`` takes the place of the pool's own timeout.
        """
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        while True:
            with self._lock:
                idle = self._idle.get((host, port))
                connection = idle.pop() if idle and not fresh else None
            if connection is None:
                return BulkConnection.connect(host, port, self._connect_seconds, seconds)
            if not connection.is_stale():
                connection.set_timeout(seconds)
                return connection
            connection.close()

    def give_back(self, host: str, port: int, connection: BulkConnection) -> None:
        """For a connection whose last request was answered completely; any other must be closed instead."""
        with self._lock:
            idle = self._idle.setdefault((host, port), [])
            if not self._closed and len(idle) < self._idle_per_peer:
                idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Closes what is idle; what is in use is closed when it comes back."""
        with self._lock:
            self._closed = True
            connections = [connection for idle in self._idle.values() for connection in idle]
            self._idle.clear()
        for connection in connections:
            connection.close()


def error_header(error: Exception) -> bulk.BulkError:
    """The header that tells a peer of ``error``; what is not ours is named by its type."""
    if isinstance(error, GfsError):
        return bulk.BulkError(error.code, error.message, error.hint)
    return bulk.BulkError(GfsError.code, f"internal error: {type(error).__name__}: {error}")


_Reply = TypeVar("_Reply", bound=bulk.ReplyHeader)


def expect(reply: bulk.ReplyHeader, kind: type[_Reply], peer: str) -> _Reply:
    """``reply`` if it is of the kind that the protocol has next; else RemoteProtocolError."""
    if not isinstance(reply, kind):
        raise RemoteProtocolError(f"{peer} answered {type(reply).__name__} where {kind.__name__} belongs")
    return reply
