"""Preparing a grant: the members' replicas are made equal before the first mutation under a new version.

All of them hold what was acknowledged and synced. What was acknowledged and not synced is held by those who can vouch
for it: their verifier says so. The primary takes it from one of them before it makes the others like itself, so it does
not matter who of the members was started since; see docs/architecture/chunk-servers.md, "Preparing a grant".
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import msgspec

from gfschunkserver.buffers import packet_buffer
from gfschunkserver.chain import SYNC_SECONDS, Chain
from gfschunkserver.downstream import Downstream
from gfschunkserver.engine import Engine
from gfschunkserver.replica import Replica
from gfsprotocol import bulk
from gfsprotocol.bulk import Ack, CommitVersion, OpenWrite, Prepare, Read, ReadReply, Reconcile, SingleWrite, Table
from gfsprotocol.bulksocket import BulkConnection
from gfsprotocol.checksums import block_count, digests_match, segment_digests
from gfsprotocol.errors import (
    ChunkCorrupt,
    ChunkNotFound,
    DataError,
    GfsError,
    LeaseLost,
    RemoteProtocolError,
    ReplicaFailed,
    StaleReplica,
    WritesLost,
)
from gfsprotocol.ids import BLOCK_BYTES, DIGEST_BYTES, PACKET_BYTES
from gfsprotocol.messages import Grant, ServerAddress

PREPARE_SECONDS: Final = 20.0


def new_verifier() -> int:
    """Names a history of writes that begins now; see :class:`~gfschunkserver.replica.Replica`."""
    return secrets.randbits(62) + 1


def writes_lost(servers: Sequence[int]) -> WritesLost:
    """What a client hears when none of these servers can vouch for what it wrote and did not sync."""
    names = ", ".join(f"{server:016x}" for server in servers)
    return WritesLost(f"bytes that were not synced may be lost on {names}", " ".join(map(str, servers)))


def _end_older(engine: Engine, grant: Grant) -> None:
    """Nothing of an older grant is applied from now on; a replica of which that is not known takes no part."""
    if not engine.chains.end(grant.chunk, LeaseLost(f"a newer grant for chunk {grant.chunk:x} has taken over")):
        own = engine.server
        raise ReplicaFailed(f"server {own:016x}: a mutation of chunk {grant.chunk:x} does not end", str(own))


def _blank(engine: Engine, grant: Grant) -> Replica:
    """An empty replica of a chunk of which nothing was ever recorded, older than any grant that is prepared for."""
    return engine.store.create(msgspec.structs.replace(grant, version=1))


# ------------------------------------------------------------------------------------------------------ the primary


def prepare_members(engine: Engine, grant: Grant, request: OpenWrite | SingleWrite, replica: Replica | None) -> Chain:
    """Makes all members' replicas equal and gives them the grant's version, durably, this one last.

    WritesLost, before anything is changed, if no member can vouch for the writes that the client relies on.
    """
    replica = _usable(engine, grant, replica)
    _end_older(engine, grant)
    try:
        with ExitStack() as stack:
            members = [
                _Member(engine, grant, member, Prepare(request.grant, position), stack)
                for position, member in enumerate(grant.members[1:], 1)
            ]
            witness = _witness(engine, replica, members, request.verifier)
            verifier = (replica.verifier if witness is None else witness.verifier) or new_verifier()
            if witness is not None:
                replica.verifier = 0  # until it is like the other one it is like none
                witness.pull(replica, 0, witness.length)
            longest = max(members, key=lambda member: member.length, default=None)
            if longest is not None and longest.length > replica.length:
                # It may have been acknowledged, if nobody can vouch for what was.
                end = longest.length if grant.cut_length < 0 else min(grant.cut_length, longest.length)
                longest.pull(replica, replica.length // BLOCK_BYTES, end)
            if 0 <= grant.cut_length < replica.length:
                replica.cut(grant.cut_length, sync=False)
            for member in members:
                member.reconcile(replica, verifier)
            for member in members:
                member.begin_commit(replica.length, verifier)
            for member in members:
                member.end_commit()
        replica.set_version(grant.version)
        replica.verifier = verifier
    except ChunkCorrupt as error:
        engine.suspect(replica.chunk)
        raise ReplicaFailed(f"server {engine.server:016x}: {error.message}", str(engine.server)) from error
    chain = engine.chains.start(replica, grant)
    engine.store.listener(grant.chunk)
    return chain


def _witness(engine: Engine, replica: Replica, members: "Sequence[_Member]", relied_on: int) -> "_Member | None":
    """The member whose replica holds all that was acknowledged; None if that is the primary's own, or nobody knows."""
    if replica.verifier and relied_on in (0, replica.verifier):
        return None
    witnesses = [member for member in members if member.verifier and relied_on in (0, member.verifier)]
    if not witnesses and relied_on:
        raise writes_lost([engine.server, *(member.server for member in members)])
    return max(witnesses, key=lambda member: member.length, default=None)


def _usable(engine: Engine, grant: Grant, replica: Replica | None) -> Replica:
    own = str(engine.server)
    if replica is None and not grant.base_version:
        return _blank(engine, grant)
    if replica is None:
        raise ReplicaFailed(f"server {engine.server:016x} holds no replica of chunk {grant.chunk:x}", own)
    if replica.version > grant.version:
        raise LeaseLost(f"chunk {grant.chunk:x} has version {replica.version}, the grant {grant.version}")
    if replica.version < grant.base_version:
        raise ReplicaFailed(f"server {engine.server:016x} holds a stale replica of chunk {grant.chunk:x}", own)
    return replica


class _Member:
    """Another member while the primary prepares it."""

    def __init__(
        self, engine: Engine, grant: Grant, address: ServerAddress, request: Prepare, stack: ExitStack
    ) -> None:
        self._engine = engine
        self._grant = grant
        self._address = address
        self.server = address.server
        self._peer = Downstream(engine, address)
        table, payload_bytes = self._peer.call(request, Table, PREPARE_SECONDS)
        self._clean = False
        stack.callback(self._end)
        self.length = table.length
        self.verifier = table.verifier
        if payload_bytes != block_count(table.length) * DIGEST_BYTES:
            raise self._peer.failed(f"sent a table of {payload_bytes} bytes for {table.length} bytes of data")
        self._digests = memoryview(bytearray(payload_bytes))
        self._receive(self._digests)

    def pull(self, replica: Replica, first: int, end: int) -> None:
        """Gets the blocks from ``first`` to the one with byte ``end - 1`` in which the primary's replica differs."""
        source = Downstream(self._engine, self._address)
        table, _ = _table(replica)
        with packet_buffer() as buffer:
            for block, run in self._runs(table, first, block_count(end)):
                start = block * BLOCK_BYTES
                data, digests = self._read(source, replica.chunk, start, run, buffer)
                replica.put(start, data, digests, sync=False)

    def _read(
        self, source: Downstream, chunk: int, start: int, run: int, buffer: memoryview
    ) -> tuple[memoryview, bytes]:
        token = self._engine.access.sign_read(self._grant)
        request = Read(token, chunk, self._grant.base_version, start, run * BLOCK_BYTES)
        reply, payload_bytes = source.call(request, ReadReply, PREPARE_SECONDS)
        data = buffer[: min(payload_bytes, len(buffer))]
        try:
            source.connection.receive_into(data)
        except GfsError as error:
            source.abandon()
            raise source.failed(error.message) from error
        if payload_bytes != min(run * BLOCK_BYTES, self.length - start) or not digests_match(
            start, data, reply.digests
        ):
            source.abandon()
            raise source.failed(f"its replica of chunk {chunk:x} is not good at {start}")
        source.give_back()
        return data, reply.digests

    def reconcile(self, replica: Replica, verifier: int) -> None:
        """Sends the blocks in which the replicas differ; ``verifier`` is what the primary's vouches for."""
        table, length = _table(replica)
        for block, run in self._runs(table, 0, block_count(length)):
            start = block * BLOCK_BYTES
            data = replica.read_verified(start, run * BLOCK_BYTES)
            header = Reconcile(start, segment_digests(start, data), verifier)
            self._peer.send(PREPARE_SECONDS, bulk.encode(header, len(data)), data)
            self._peer.receive_ack()

    def _runs(self, table: bytes, first: int, end: int) -> Iterator[tuple[int, int]]:
        """(first block, how many) of what differs from ``table`` in blocks ``first`` to ``end``, a packet at most."""
        block = first
        while block < end:
            run = 0
            while run < PACKET_BYTES // BLOCK_BYTES and block + run < end and self._differs(table, block + run):
                run += 1
            if run:
                yield block, run
            block += run or 1

    def begin_commit(self, length: int, verifier: int) -> None:
        self._peer.send(PREPARE_SECONDS + SYNC_SECONDS, bulk.encode(CommitVersion(length, verifier)))

    def end_commit(self) -> None:
        self._peer.receive_ack()
        self._clean = True

    def _differs(self, table: bytes, block: int) -> bool:
        place = slice(block * DIGEST_BYTES, (block + 1) * DIGEST_BYTES)
        return table[place] != self._digests[place]

    def _receive(self, view: memoryview) -> None:
        try:
            self._peer.connection.receive_into(view)
        except GfsError as error:
            raise self._peer.failed(error.message) from error

    def _end(self) -> None:
        if self._clean:
            self._peer.give_back()
        else:
            self._peer.abandon()


# ---------------------------------------------------------------------------------------------------- other members


def serve_prepare(engine: Engine, primary: BulkConnection, request: Prepare) -> None:
    """A member's side of preparing; returns when the grant's version is durable here."""
    grant = engine.access.open_grant(request.grant, request.position)
    # Before the lock: two primaries that prepare each other's grants must not wait for each other.
    engine.chains.promise(grant)
    with engine.chains.opening(grant.chunk):
        engine.chains.promise(grant)
        _end_older(engine, grant)
        replica = _replica_to_prepare(engine, grant)
        table, length = _table(replica)
        primary.send(Table(replica.version, length, replica.verifier), table)
        with packet_buffer() as buffer:
            while True:
                step, payload_bytes = primary.receive_request()
                if isinstance(step, CommitVersion):
                    break
                if not isinstance(step, Reconcile):
                    raise RemoteProtocolError(f"{primary.peer} sent {type(step).__name__} while preparing a grant")
                _take_verifier(replica, step.verifier)
                data = buffer[:payload_bytes]
                primary.receive_into(data)
                _take_blocks(replica, step, data)
                primary.send(Ack(step.offset, replica.length))
        _take_verifier(replica, step.verifier)
        if replica.length != step.length:
            replica.cut(step.length, sync=False)
        engine.chains.promise(grant)
        replica.set_version(grant.version)
        replica.verifier = step.verifier
        engine.chains.start(replica, grant)
    engine.store.listener(grant.chunk)
    primary.send(Ack(0, replica.length))


def _replica_to_prepare(engine: Engine, grant: Grant) -> Replica:
    replica = engine.store.find(grant.chunk)
    if replica is None and grant.base_version == 0:
        return _blank(engine, grant)
    if replica is None:
        raise ChunkNotFound(f"server {engine.server:016x} holds no replica of chunk {grant.chunk:x}")
    if replica.version > grant.version:
        raise LeaseLost(f"chunk {grant.chunk:x} has version {replica.version}, the grant {grant.version}")
    if replica.version < grant.base_version:
        raise StaleReplica(f"chunk {grant.chunk:x} has version {replica.version}, the grant needs {grant.base_version}")
    return replica


def _take_verifier(replica: Replica, verifier: int) -> None:
    """What comes from a replica with another one may take the place of writes that only this replica has."""
    if replica.verifier != verifier:
        replica.verifier = 0


def _table(replica: Replica) -> tuple[bytes, int]:
    with replica.pinned(), replica.lock:
        return bytes(replica.state.table), replica.length


def _take_blocks(replica: Replica, step: Reconcile, data: memoryview) -> None:
    if step.offset % BLOCK_BYTES or not digests_match(step.offset, data, step.digests):
        raise DataError(f"blocks of chunk {replica.chunk:x} arrived damaged while its grant was prepared")
    replica.put(step.offset, data, step.digests, sync=False)
