"""Chunk servers for tests of the client: the bulk protocol over real sockets, replicas in memory, faults on demand.

The primary applies a mutation to all members at once instead of forwarding it, because what is tested is the client.
"""

import contextlib
import itertools
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gfsprotocol import bulk
from gfsprotocol.bulksocket import BulkConnection, error_header
from gfsprotocol.checksums import digest, digests_match
from gfsprotocol.errors import (
    AuthenticationFailed,
    ChunkCorrupt,
    ChunkFull,
    ChunkNotFound,
    ConnectionLost,
    GfsError,
    ReplicaFailed,
    StaleReplica,
    WritesLost,
)
from gfsprotocol.ids import BLOCK_BYTES, PACKET_BYTES
from gfsprotocol.messages import Grant, ServerAddress
from gfsprotocol.tokens import open_grant, open_read


class Fault(Exception):
    """Raised by a hook: the connection is cut without a word."""


@dataclass
class Replica:
    version: int
    data: bytearray = field(default_factory=bytearray)
    synced: int = 0
    rotten: set[int] = field(default_factory=set)
    """Blocks whose bytes do not match their digests."""
    verifier: int = 0

    def digests(self, offset: int, count: int) -> bytes:
        pieces = []
        for start in range(offset, offset + count, BLOCK_BYTES):
            pieces.append(digest(self.data[start : min(start + BLOCK_BYTES, offset + count)]))
            if start // BLOCK_BYTES in self.rotten:
                pieces[-1] = digest(b"what it was")
        return b"".join(pieces)


class FakeFleet:
    """All chunk servers of a test, and what happens to requests."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.servers: dict[int, FakeChunkServer] = {}
        self.lock = threading.Lock()
        self.verifiers = itertools.count(1)
        self.appended: dict[tuple[int, int, bytes, int], bulk.Ack] = {}
        self.confirm: Callable[[int, Grant, int], None] = lambda *_: None
        """Called when a grant has a version that its primary's replica has not."""

    def add(self, server: int) -> "FakeChunkServer":
        self.servers[server] = FakeChunkServer(self, server)
        return self.servers[server]

    def close(self) -> None:
        for server in self.servers.values():
            server.close()

    def content(self, chunk: int) -> list[bytes]:
        """The chunk's bytes on each server that has it."""
        return [bytes(s.replicas[chunk].data) for s in self.servers.values() if chunk in s.replicas]


class FakeChunkServer:
    """One listening socket, a thread per connection."""

    def __init__(self, fleet: FakeFleet, server: int) -> None:
        self.fleet = fleet
        self.server = server
        self.replicas: dict[int, Replica] = {}
        self.requests: list[bulk.RequestHeader] = []
        self.before: Callable[[bulk.RequestHeader], None] = lambda _: None
        """Called with each request before it is carried out; may raise an error for the peer, or Fault."""
        self.after: Callable[[bulk.RequestHeader], None] = lambda _: None
        """Called before the answer is sent."""
        self.mangle: Callable[[bulk.ReadReply, bytearray], bulk.ReadReply] = lambda reply, _: reply
        """May change a read's answer."""
        self.pause_after: tuple[int, threading.Event] | None = None
        """A read's answer stops after so many bytes until the event."""
        self.dead = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = ServerAddress(server, "127.0.0.1", self._listener.getsockname()[1])
        self._connections: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name=f"fake-{server}")]
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._threads[0].start()

    def kill(self) -> None:
        """As kill -9: connections break, and no new ones are taken."""
        self.dead = True
        self._stop_writer.send(b"x")
        self._threads[0].join()
        with self.fleet.lock:
            for connection in self._connections:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with contextlib.suppress(OSError):  # the client was quicker
                    connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def lose_power(self) -> None:
        """Everything that was not synced is gone, and the server is there again."""
        with self.fleet.lock:
            for replica in self.replicas.values():
                del replica.data[replica.synced :]
                replica.verifier = 0
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client was quicker
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if not self.dead:
            self.kill()
        for thread in self._threads:
            thread.join(5)
        self._stop_reader.close()
        self._stop_writer.close()

    def _accept(self) -> None:
        while True:
            watch = select.poll()
            watch.register(self._listener, select.POLLIN)
            watch.register(self._stop_reader, select.POLLIN)
            if any(descriptor == self._stop_reader.fileno() for descriptor, _ in watch.poll()):
                return
            sock, _ = self._listener.accept()
            with self.fleet.lock:
                self._connections.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name=f"fake-{self.server}-peer")
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        connection = BulkConnection(sock, "client", 30.0)
        try:
            preamble = memoryview(bytearray(len(bulk.PREAMBLE)))
            connection.receive_into(preamble)
            assert preamble == bulk.PREAMBLE
            grant = None
            client = b""
            while True:
                request, count = connection.receive_request()
                payload = memoryview(bytearray(count))
                connection.receive_into(payload)
                self.requests.append(request)
                if isinstance(request, bulk.SingleWrite):
                    connection.send(self._write_single(request, bytes(payload)))
                    continue
                self.before(request)
                if isinstance(request, bulk.OpenWrite):
                    grant, client = self._opened(request), request.client
                    own = self.replicas[grant.chunk]
                    reply: bulk.ReplyHeader = bulk.WriteOpened(len(own.data), own.verifier)
                elif isinstance(request, bulk.Mutate):
                    assert grant is not None
                    try:
                        reply = self._mutate(grant, client, request, bytes(payload))
                    except ChunkFull as error:
                        reply = error_header(error)
                elif isinstance(request, bulk.CloseWrite):
                    grant, reply = None, bulk.WriteClosed()
                elif isinstance(request, bulk.SyncChunks):
                    reply = bulk.Synced(tuple(map(self._sync, request.items)))
                else:
                    assert isinstance(request, bulk.Read)
                    self.after(request)
                    self._send_data(connection, *self._read(request))
                    continue
                self.after(request)
                connection.send(reply)
        except (ConnectionLost, Fault):
            pass
        except GfsError as error:
            with contextlib.suppress(ConnectionLost):
                connection.send(error_header(error))
        finally:
            with self.fleet.lock:
                self._connections.discard(sock)
                connection.close()

    def _write_single(self, request: bulk.SingleWrite, payload: bytes) -> bulk.SingleWritten:
        """Hooks are called for the session that it stands for."""
        opening = bulk.OpenWrite(request.grant, request.position, b"", request.verifier)
        self.before(opening)
        grant = self._opened(opening)
        self.after(opening)
        mutation = bulk.Mutate(bulk.WRITE, 0, request.offset, request.digests, sync=request.sync)
        self.before(mutation)
        ack = self._mutate(grant, b"", mutation, payload)
        self.after(mutation)
        return bulk.SingleWritten(ack.length, self.replicas[grant.chunk].verifier)

    def _send_data(self, connection: BulkConnection, reply: bulk.ReadReply, payload: bytes) -> None:
        first, event = self.pause_after or (len(payload), None)
        connection.send_bytes([bulk.encode(reply, len(payload)), payload[:first]])
        if event is not None:
            event.wait(10)
        connection.send_bytes([payload[first:]])

    def _members(self, grant: Grant) -> list["FakeChunkServer"]:
        members = [self.fleet.servers[member.server] for member in grant.members]
        for member in members:
            if member.dead:
                raise ReplicaFailed(f"server {member.server} does not answer", hint=str(member.server))
        return members

    def _opened(self, request: bulk.OpenWrite) -> Grant:
        grant = open_grant(self.fleet.key, request.grant)
        with self.fleet.lock:
            members = self._members(grant)
            own = self.replicas.setdefault(grant.chunk, Replica(0))
            if own.version > grant.version:
                raise StaleReplica(f"version {own.version} is newer than {grant.version}")
            if request.verifier not in (0, own.verifier):
                own.data, own.verifier = self._remembered(grant, members, request.verifier)
            own.verifier = own.verifier or next(self.fleet.verifiers)
            is_new = own.version < grant.version
            if is_new and grant.cut_length >= 0:
                del own.data[grant.cut_length :]
            for member in members:
                replica = member.replicas.setdefault(grant.chunk, Replica(0))
                replica.data[:], replica.verifier = own.data, own.verifier
        if is_new and not grant.is_first:
            self.fleet.confirm(self.server, grant, len(own.data))
        with self.fleet.lock:
            for member in members:
                member.replicas[grant.chunk].version = grant.version
        return grant

    def _remembered(self, grant: Grant, members: list["FakeChunkServer"], verifier: int) -> tuple[bytearray, int]:
        """What a member who can vouch for it has."""
        for member in members:
            replica = member.replicas.get(grant.chunk)
            if replica is not None and replica.verifier == verifier:
                return bytearray(replica.data), verifier
        raise WritesLost("no member has the bytes", hint=" ".join(str(member.server) for member in members))

    def _mutate(self, grant: Grant, client: bytes, request: bulk.Mutate, payload: bytes) -> bulk.Ack:
        with self.fleet.lock:
            members = self._members(grant)
            own = self.replicas[grant.chunk]
            if own.version != grant.version:
                raise StaleReplica("the session's version is over")
            offset = request.offset
            if request.kind == bulk.APPEND:
                known = self.fleet.appended.get((grant.chunk, grant.version, client, request.record))
                if known is not None:
                    return known
                if digest(payload) != request.digests:
                    raise ChunkCorrupt("the payload does not match its digest")
                offset = len(own.data)
                if offset + len(payload) > grant.chunk_bytes:
                    for member in members:
                        member._put(grant.chunk, grant.chunk_bytes, b"")
                    raise ChunkFull
            elif payload and not digests_match(offset, payload, request.digests):
                raise ChunkCorrupt("the payload does not match its digests")
            assert len(payload) <= PACKET_BYTES and offset + len(payload) <= grant.chunk_bytes
            for member in members:
                if request.kind != bulk.SYNC:
                    member._put(grant.chunk, offset, payload)
                if request.sync:
                    member.replicas[grant.chunk].synced = len(own.data)
            ack = bulk.Ack(offset, len(own.data))
            if request.kind == bulk.APPEND:
                self.fleet.appended[grant.chunk, grant.version, client, request.record] = ack
            return ack

    def _sync(self, item: bulk.SyncItem) -> bool:
        grant = open_grant(self.fleet.key, item.grant)
        assert grant.members[item.position].server == self.server
        with self.fleet.lock:
            replica = self.replicas.get(grant.chunk)
            if replica is None or (replica.version, replica.verifier) != (grant.version, item.verifier):
                return False
            replica.synced = len(replica.data)
            return True

    def _put(self, chunk: int, offset: int, payload: bytes) -> None:
        data = self.replicas[chunk].data
        if offset > len(data):
            data.extend(bytes(offset - len(data)))
        data[offset : offset + len(payload)] = payload

    def _read(self, request: bulk.Read) -> tuple[bulk.ReadReply, bytes]:
        token = open_read(self.fleet.key, request.token)
        if token.chunk != request.chunk:
            raise AuthenticationFailed("the token is for another chunk")
        with self.fleet.lock:
            replica = self.replicas.get(request.chunk)
            if replica is None:
                raise ChunkNotFound(f"no chunk {request.chunk} here")
            if replica.version < request.version:
                raise StaleReplica(f"version {replica.version} is older than {request.version}")
            data = bytearray(replica.data[request.offset : request.offset + request.length])
            end = request.offset + len(data)
            is_whole = request.offset % BLOCK_BYTES == 0 and (end % BLOCK_BYTES == 0 or end == len(replica.data))
            if is_whole and not request.verify:
                digests = replica.digests(request.offset, len(data))
                reply = bulk.ReadReply(request.offset, len(replica.data), replica.version, digests, False)
            else:
                blocks = range(request.offset // BLOCK_BYTES, end // BLOCK_BYTES + 1)
                if replica.rotten.intersection(blocks):
                    raise ChunkCorrupt(f"chunk {request.chunk} is corrupt")
                reply = bulk.ReadReply(request.offset, len(replica.data), replica.version, digest(data), True)
        reply = self.mangle(reply, data)
        return reply, bytes(data)
