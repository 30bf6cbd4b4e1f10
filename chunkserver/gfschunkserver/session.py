"""A write session: mutations from upstream, forwarded downstream, applied in order, acknowledged when all have them.

One thread serves both sockets. Nothing in here waits for upstream while an acknowledgement could be passed on.
"""

import select
import time
from collections import deque
from typing import Final

from blake3 import blake3

from gfschunkserver.buffers import packet_buffer
from gfschunkserver.chain import SYNC_SECONDS, AppendSlot, Chain, hop_seconds
from gfschunkserver.downstream import Downstream
from gfschunkserver.engine import Engine
from gfschunkserver.replica import Replica
from gfsprotocol import bulk
from gfsprotocol.bulk import Ack, BulkError, CloseWrite, Mutate
from gfsprotocol.bulksocket import BulkConnection, error_header
from gfsprotocol.checksums import BLOCK_BYTES, segment_digests
from gfsprotocol.errors import (
    ChunkCorrupt,
    ChunkFull,
    ConnectionLost,
    DataError,
    DeadlineExceeded,
    GfsError,
    InvalidArgument,
    LeaseLost,
    NoSpace,
    RemoteProtocolError,
    ReplicaFailed,
)
from gfsprotocol.ids import PACKET_BYTES

PENDING_MAX: Final = 64
POLL_SECONDS: Final = 0.5
REPEAT_POLL_SECONDS: Final = 0.02
IDLE_SECONDS: Final = 120.0
IDLE_SECONDS_PER_MEMBER: Final = 5.0
"""The primary gives an idle session up first: who is later in the chain must not look as if it had failed."""
CONFIRM_SECONDS: Final = 10.0
PIECE_BYTES: Final = 256 * 1024
CUT_THROUGH_BYTES: Final = 128 * 1024


class _Pending:
    """A mutation that is applied here and not yet acknowledged upstream."""

    __slots__ = ("answer", "client_slot", "deadline", "forwarded", "repeats", "seconds")

    def __init__(self, answer: Ack | BulkError | None, forwarded: bool, seconds: float) -> None:
        self.answer = answer
        self.forwarded = forwarded
        """Whether an acknowledgement from downstream is still awaited."""
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.client_slot: AppendSlot | None = None
        """Of an append: gets the answer."""
        self.repeats: AppendSlot | None = None
        """Of a repeated append: gives the answer."""

    def extend_deadline(self) -> None:
        """Its turn begins only now: the one before it may have been a slow sync."""
        self.deadline = max(self.deadline, time.monotonic() + self.seconds)


class WriteSession:
    """Serves one OpenWrite until CloseWrite, an error, or the end of the upstream connection."""

    def __init__(self, engine: Engine, upstream: BulkConnection, chain: Chain, position: int, client: bytes) -> None:
        self._engine = engine
        self._upstream = upstream
        self._chain = chain
        self._position = position
        self._client = client
        self._downstream: Downstream | None = None
        self._pending: deque[_Pending] = deque()
        self._closing = False
        self._failure: GfsError | None = None
        """What ends the session once everything that has a serial is through."""
        self._silent = False
        """Whether nothing is acknowledged any more: nobody would hear it, or it would not be true."""
        self._hop_seconds = hop_seconds(len(chain.members), position)
        self._last_input = time.monotonic()

    def run(self, downstream: Downstream | None) -> None:
        """Returns when the session is closed and the connection may be used again; raises what ended it else.

        ``downstream`` is an open session with the next member, if there is one; it is closed or given back here.
        """
        self._downstream = downstream
        clean = False
        try:
            with packet_buffer() as buffer:
                self._serve(buffer)
            if downstream is not None:
                downstream.finish(self._hop_seconds + SYNC_SECONDS)
            clean = True
        finally:
            if not clean and self._pending:
                self._chain.break_(LeaseLost("a write session ended with mutations that not all members may have"))
            if not clean and downstream is not None:
                downstream.abandon()
        if self._failure is not None:
            raise self._failure

    def _serve(self, buffer: memoryview) -> None:
        while True:
            self._acknowledge()
            if self._closing and not self._pending:
                return
            self._chain.check()
            from_upstream, from_downstream = self._wait()
            if from_downstream:
                self._take_ack()
            else:
                self._check_deadlines()
            if from_upstream:
                try:
                    self._take_request(buffer)
                except GfsError as error:
                    if self._chain.broken is not None:
                        raise
                    self._end(error, silent=isinstance(error, ConnectionLost | DeadlineExceeded))

    def _end(self, error: GfsError, silent: bool) -> None:
        """No more requests. What was given a serial is still brought to its end: no other session may suffer, and a
        repeated append must find its answer."""
        if self._failure is None:
            self._failure = error
        self._silent = self._silent or silent
        self._closing = True

    # ------------------------------------------------------------------------------------------------ waiting

    def _wait(self) -> tuple[bool, bool]:
        """Which of the two sides has something for us."""
        downstream = self._downstream.connection if self._downstream is not None else None
        listens = not self._closing and len(self._pending) < PENDING_MAX
        upstream_ready = listens and self._upstream.has_input()
        downstream_ready = downstream is not None and downstream.has_input()
        if upstream_ready or downstream_ready:
            return upstream_ready, downstream_ready
        poll = select.poll()
        if listens:
            poll.register(self._upstream.sock, select.POLLIN)
        if downstream is not None:
            poll.register(downstream.sock, select.POLLIN)
        repeats = bool(self._pending) and self._pending[0].repeats is not None
        ready = {fd for fd, _ in poll.poll(1000 * (REPEAT_POLL_SECONDS if repeats else POLL_SECONDS))}
        return (
            listens and self._upstream.sock.fileno() in ready,
            downstream is not None and downstream.sock.fileno() in ready,
        )

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        if self._pending:
            head = self._pending[0]
            if now > head.deadline and head.forwarded and self._downstream is not None:
                raise self._broken(self._downstream.failed("does not acknowledge"))
            if now > head.deadline and head.repeats is not None:
                raise LeaseLost("the append that this one repeats does not end")
        elif now - self._last_input > IDLE_SECONDS + self._position * IDLE_SECONDS_PER_MEMBER:
            raise DeadlineExceeded(f"the write session was idle for {IDLE_SECONDS:.0f} s")

    def _broken(self, error: GfsError) -> GfsError:
        self._chain.break_(error)
        return error

    # ------------------------------------------------------------------------------------------------ acknowledging

    def _take_ack(self) -> None:
        assert self._downstream is not None
        try:
            ack = self._downstream.receive_ack()
        except GfsError as error:
            raise self._broken(error) from error
        awaited = [pending for pending in self._pending if pending.forwarded]
        if not awaited:
            raise self._broken(self._downstream.failed("acknowledged what it was not sent"))
        expected = awaited[0].answer
        if isinstance(expected, Ack) and expected != ack:
            raise self._broken(self._downstream.failed(f"acknowledged {ack} where {expected} belongs"))
        awaited[0].forwarded = False
        if len(awaited) > 1:
            awaited[1].extend_deadline()

    def _acknowledge(self) -> None:
        """Passes on what is complete, in order."""
        while self._pending and not self._pending[0].forwarded:
            head = self._pending[0]
            if head.repeats is not None:
                head.answer = self._full() if head.repeats.is_refused else head.repeats.answer
                if head.answer is None:
                    return
            self._pending.popleft()
            if head.client_slot is not None and isinstance(head.answer, Ack):
                head.client_slot.answer = head.answer
            assert head.answer is not None
            self._reply(head.answer)

    def _reply(self, header: Ack | BulkError) -> None:
        if self._silent:
            return
        try:
            if self._position == 0:
                self._chain.wait_confirmed(CONFIRM_SECONDS)
            self._upstream.send(header)
        except GfsError as error:
            if self._chain.broken is not None:
                raise
            self._end(error, silent=True)

    # ------------------------------------------------------------------------------------------------ taking requests

    def _take_request(self, buffer: memoryview) -> None:
        request, payload_bytes = self._upstream.receive_request()
        self._last_input = time.monotonic()
        match request:
            case Mutate():
                if payload_bytes > PACKET_BYTES or (payload_bytes and request.kind in (bulk.CUT, bulk.SYNC)):
                    raise RemoteProtocolError(f"{self._upstream.peer} sent a mutation with a wrong payload")
                if self._position == 0:
                    self._mutate_as_primary(request, buffer[:payload_bytes])
                else:
                    self._mutate_as_member(request, buffer[:payload_bytes])
            case CloseWrite():
                self._closing = True
            case _:
                raise RemoteProtocolError(f"a {type(request).__name__} inside a write session")

    def _mutate_as_primary(self, request: Mutate, payload: memoryview) -> None:
        """Everything is checked before a serial is given: a client that goes wrong or away here harms nobody else."""
        if not self._receive(request, payload, None):
            self._engine.measures.damaged_payloads.add()
            raise DataError(f"the payload from {self._upstream.peer} arrived damaged at the primary")
        self._engine.access.check_lease(self._chain.grant)
        offset = 0 if request.kind == bulk.APPEND else request.offset
        capacity = self._chain.replica.state.chunk_bytes
        if not 0 <= offset <= offset + len(payload) <= capacity:
            raise InvalidArgument(f"bytes {offset} to {offset + len(payload)} are not inside a chunk of {capacity}")
        match request.kind:
            case bulk.WRITE:
                serial = self._chain.assign_write(offset + len(payload) if payload else 0)
                self._send_and_apply(request, serial, offset, payload, request.digests)
            case bulk.APPEND:
                self._append_as_primary(request, payload)
            case bulk.CUT:
                self._send_and_apply(request, self._chain.assign_cut(offset), offset, payload, b"")
            case bulk.SYNC:
                self._send_and_apply(request, self._chain.assign_write(0), 0, payload, b"")
            case _:
                raise RemoteProtocolError(f"{self._upstream.peer} sent a mutation of kind {request.kind}")

    def _append_as_primary(self, request: Mutate, payload: memoryview) -> None:
        slot: AppendSlot | None = None
        if request.record:
            slot, is_new = self._chain.claim(self._client, request.record)
            if not is_new:
                repeat = _Pending(None, False, self._hop_seconds + SYNC_SECONDS)
                repeat.repeats = slot
                self._pending.append(repeat)
                return
        placed = self._chain.assign_append(len(payload))
        if placed is None:
            self._chain.give_up(self._client, request.record)
            self._refuse_full_chunk(request)
            return
        serial, offset = placed
        self._send_and_apply(request, serial, offset, payload, segment_digests(offset, payload), slot)

    def _refuse_full_chunk(self, request: Mutate) -> None:
        """Pads the chunk, so that every later record goes to the next one too (GFS §3.3). The session goes on."""
        serial = self._chain.assign_padding()
        capacity = self._chain.replica.state.chunk_bytes
        if not serial:
            self._pending.append(_Pending(self._full(), False, 0))
            return
        padding = Mutate(bulk.CUT, serial, capacity, sync=request.sync)
        self._send_and_apply(padding, serial, capacity, memoryview(b""), b"")
        self._pending[-1].answer = self._full()

    def _full(self) -> BulkError:
        return error_header(ChunkFull(f"chunk {self._chain.replica.chunk:x} has no room for this record"))

    def _send_and_apply(
        self,
        request: Mutate,
        serial: int,
        offset: int,
        payload: memoryview,
        digests: bytes,
        slot: AppendSlot | None = None,
    ) -> None:
        """The primary's part after a serial was given. Downstream first, so that all members work at the same time."""
        kind = bulk.WRITE if request.kind == bulk.APPEND else request.kind
        ordered = Mutate(kind, serial, offset, digests, sync=request.sync)
        if self._downstream is not None:
            try:
                self._downstream.send(self._send_seconds(), bulk.encode(ordered, len(payload)), payload)
            except GfsError as error:
                raise self._broken(error) from error
        self._apply(ordered, payload)
        self._pending[-1].client_slot = slot

    def _mutate_as_member(self, request: Mutate, payload: memoryview) -> None:
        """A large payload goes on while it comes in. Whatever goes wrong now breaks the chain: it has a serial."""
        downstream = self._downstream
        streams = downstream is not None and len(payload) > CUT_THROUGH_BYTES
        try:
            good = self._receive(request, payload, downstream if streams else None)
            if downstream is not None and not streams:
                downstream.send(self._send_seconds(), bulk.encode(request, len(payload)), payload)
        except GfsError as error:
            raise self._broken(error) from error
        if not good:
            self._engine.measures.damaged_payloads.add()
            reason = f"the payload from {self._upstream.peer} arrived damaged at member {self._position}"
            raise self._broken(ReplicaFailed(reason, str(self._engine.server)))
        self._apply(request, payload)

    def _receive(self, request: Mutate, payload: memoryview, downstream: Downstream | None) -> bool:
        """Receives a payload and says whether it matches its digests; ``downstream`` gets it at the same time.

        In pieces that end at block boundaries, so that each is still in the processor's cache when it is digested.
        """
        is_append = request.kind == bulk.APPEND
        whole = blake3()
        digests: list[bytes] = []
        head = [bulk.encode(request, len(payload))] if downstream is not None else []
        start = 0
        while start < len(payload):
            place = request.offset + start
            piece = payload[start : start + PIECE_BYTES - (0 if is_append else place % BLOCK_BYTES)]
            self._upstream.receive_into(piece)
            if downstream is not None:
                downstream.send(self._send_seconds(), *head, piece)
                head = []
            if is_append:
                whole.update(piece)
            else:
                digests.append(segment_digests(place, piece))
            start += len(piece)
        return (whole.digest() if is_append else b"".join(digests)) == request.digests

    def _send_seconds(self) -> float:
        """A member that syncs does not read: it may take that long to take more."""
        return max((pending.seconds for pending in self._pending if pending.forwarded), default=self._hop_seconds)

    # ------------------------------------------------------------------------------------------------ applying

    def _apply(self, request: Mutate, payload: memoryview) -> None:
        """In the order of serials; durable here on return if the request says so."""
        durable = request.sync or request.kind == bulk.SYNC
        seconds = self._hop_seconds + (SYNC_SECONDS if durable else 0.0)
        replica = self._chain.replica
        try:
            length, position = self._chain.apply(
                request.serial, seconds + SYNC_SECONDS, lambda: self._change(request, payload)
            )
            if durable:
                # Outside the turn: one fsync serves all who append to this chunk at the same time.
                with replica.home.guarded():
                    replica.home.journal.commit(position)
        except GfsError as error:
            raise self._broken(own_failure(self._engine, replica, error)) from error
        self._engine.measures.mutations.add()
        self._engine.measures.written_bytes.add(count=len(payload))
        self._pending.append(_Pending(Ack(request.offset, length), self._downstream is not None, seconds))

    def _change(self, request: Mutate, payload: memoryview) -> tuple[int, int]:
        """(length afterwards, journal position that makes it durable)."""
        replica = self._chain.replica
        self._chain.check_version()
        match request.kind:
            case bulk.WRITE:
                position = replica.put(request.offset, payload, request.digests, request.sync)
            case bulk.CUT:
                position = replica.cut(request.offset, request.sync)
            case bulk.SYNC:
                position = replica.sync()
            case _:
                raise RemoteProtocolError(f"{self._upstream.peer} forwarded a mutation of kind {request.kind}")
        return replica.length, position


def own_failure(engine: Engine, replica: Replica, error: GfsError) -> GfsError:
    """What others are told when this member cannot apply a mutation."""
    server = str(engine.server)
    match error:
        case NoSpace():
            return NoSpace(error.message, server)
        case LeaseLost() | ReplicaFailed():
            return error
        case ChunkCorrupt():
            engine.suspect(replica.chunk)
            return ReplicaFailed(f"server {engine.server:016x}: {error.message}", server)
        case _:
            return ReplicaFailed(f"server {engine.server:016x}: {error.message}", server)
