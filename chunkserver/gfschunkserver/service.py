"""The bulk protocol's side of the port: one thread per connection, a bounded number of them."""

import contextlib
import logging
import socket
import threading
import time
from typing import Final

from gfschunkserver.downstream import Downstream
from gfschunkserver.engine import Engine
from gfschunkserver.opening import open_write
from gfschunkserver.preparing import serve_prepare
from gfschunkserver.reading import serve_read
from gfschunkserver.session import WriteSession
from gfschunkserver.single import serve_single
from gfschunkserver.syncing import serve_sync
from gfsprotocol import bulk
from gfsprotocol.bulk import OpenWrite, Prepare, Read, SingleWrite, SyncChunks, WriteClosed, WriteOpened
from gfsprotocol.bulksocket import BulkConnection, error_header
from gfsprotocol.errors import (
    Busy,
    ConnectionLost,
    DeadlineExceeded,
    GfsError,
    RemoteProtocolError,
    VersionMismatch,
)
from gfsprotocol.ids import MIB

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 120.0
PEER_SECONDS: Final = 20.0
LINGER_SECONDS: Final = 2.0
LINGER_BYTES_MAX: Final = 64 * MIB
JOIN_SECONDS: Final = 10.0


class BulkService:
    """Serves bulk connections until :meth:`stop`."""

    def __init__(self, engine: Engine, connections_max: int) -> None:
        self._engine = engine
        self._connections_max = connections_max
        self._connections: dict[BulkConnection, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stopping = False

    @property
    def connections(self) -> int:
        return len(self._connections)

    def accept(self, sock: socket.socket, peer: str) -> None:
        """Takes over a connection whose first byte announced the bulk protocol."""
        connection = BulkConnection(sock, peer, PEER_SECONDS)
        thread = threading.Thread(target=self._run, args=(connection,), name=f"bulk {peer}")
        with self._lock:
            refused = self._stopping or len(self._connections) >= self._connections_max
            if not refused:
                self._connections[connection] = thread
        if refused:
            self._engine.measures.refused_connections.add()
            self._refuse(connection, f"{self._connections_max} connections are open")
            return
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                del self._connections[connection]
            self._engine.measures.refused_connections.add()
            self._refuse(connection, str(error))

    def _refuse(self, connection: BulkConnection, reason: str) -> None:
        log.warning("refusing the bulk connection of %s: %s", connection.peer, reason)
        connection.set_timeout(0.1)
        with contextlib.suppress(GfsError):
            connection.send(error_header(Busy(reason)))
        connection.close()

    def stop(self) -> None:
        """Ends all connections and waits for their threads."""
        with self._lock:
            self._stopping = True
            connections = list(self._connections.items())
        for connection, _ in connections:
            # The connection may have ended by itself meanwhile.
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + JOIN_SECONDS
        for _, thread in connections:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, connection: BulkConnection) -> None:
        try:
            self._serve(connection)
        except (ConnectionLost, DeadlineExceeded) as error:
            log.debug("%s: %s", connection.peer, error.message)
        except RemoteProtocolError as error:
            log.warning("closing the connection of %s: %s", connection.peer, error.message)
            self._end_with(connection, error)
        except GfsError as error:
            log.info("ending the session of %s: %s", connection.peer, error.message)
            self._end_with(connection, error)
        except Exception as error:
            log.exception("a bulk connection of %s failed", connection.peer)
            self._end_with(connection, error)
        finally:
            connection.close()
            with self._lock:
                del self._connections[connection]

    def _serve(self, connection: BulkConnection) -> None:
        preamble = bytearray(len(bulk.PREAMBLE))
        connection.receive_into(memoryview(preamble))
        if preamble != bulk.PREAMBLE:
            self._engine.measures.refused_connections.add()
        if preamble[:-1] != bulk.PREAMBLE[:-1]:
            raise RemoteProtocolError(f"a bulk connection begins with {bytes(preamble).hex()}")
        if preamble != bulk.PREAMBLE:
            raise VersionMismatch(f"bulk protocol version {preamble[-1]}, this server speaks {bulk.BULK_VERSION}")
        while not self._stopping:
            connection.wait_for_input(IDLE_SECONDS)
            connection.set_timeout(PEER_SECONDS)
            request, payload_bytes = connection.receive_request()
            self._engine.measures.requests.add(type(request).__name__)
            try:
                self._answer(connection, request, payload_bytes)
            except GfsError as error:
                self._count_failure(request, error)
                raise

    def _answer(self, connection: BulkConnection, request: bulk.RequestHeader, payload_bytes: int) -> None:
        if payload_bytes and not isinstance(request, SingleWrite):
            raise RemoteProtocolError(f"a {type(request).__name__} with a payload of {payload_bytes} bytes")
        match request:
            case SingleWrite():
                serve_single(self._engine, connection, request, payload_bytes)
            case Read():
                self._read(connection, request)
            case OpenWrite():
                self._write(connection, request)
            case Prepare():
                serve_prepare(self._engine, connection, request)
            case SyncChunks():
                serve_sync(self._engine, connection, request)
            case _:
                raise RemoteProtocolError(f"a {type(request).__name__} outside a session")

    def _count_failure(self, request: bulk.RequestHeader, error: GfsError) -> None:
        self._engine.measures.failed_requests.add(type(request).__name__, type(error).__name__)

    def _read(self, connection: BulkConnection, request: Read) -> None:
        """An error is an answer: the connection goes on."""
        try:
            serve_read(self._engine, connection, request)
        except (ConnectionLost, DeadlineExceeded):
            raise
        except GfsError as error:
            self._count_failure(request, error)
            connection.send(error_header(error))

    def _write(self, connection: BulkConnection, request: OpenWrite) -> None:
        """An error ends the connection: mutations may be on the way that nobody would read."""
        chain, downstream = open_write(self._engine, request)
        try:
            try:
                replica = chain.replica
                connection.send(WriteOpened(_opened_length(request, replica.length, downstream), replica.verifier))
            except GfsError:
                if downstream is not None:
                    downstream.abandon()
                raise
            WriteSession(self._engine, connection, chain, request.position, request.client).run(downstream)
        finally:
            self._engine.chains.leave(chain)
            self._engine.store.listener(chain.replica.chunk)
        connection.send(WriteClosed())

    def _end_with(self, connection: BulkConnection, error: Exception) -> None:
        """Sends the error and reads on for a moment: closing with unread input would make the error vanish."""
        try:
            connection.set_timeout(LINGER_SECONDS)
            connection.send(error_header(error))
            connection.sock.shutdown(socket.SHUT_WR)
            scratch = memoryview(bytearray(64 * 1024))
            deadline = time.monotonic() + LINGER_SECONDS
            drained = 0
            while drained < LINGER_BYTES_MAX and time.monotonic() < deadline:
                drained += connection.receive_some(scratch)
        except (GfsError, OSError) as gone:
            log.debug("%s is gone: %s", connection.peer, gone)


def _opened_length(request: OpenWrite, length: int, downstream: Downstream | None) -> int:
    """A client hears the primary's length; the primary hears whether anyone has more than it has itself."""
    return length if request.position == 0 or downstream is None else max(length, downstream.length)
