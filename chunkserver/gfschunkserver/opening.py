"""How a write session begins: the chain of its grant is found, or all members are prepared for it.

Preparing makes the members' replicas equal before the first mutation under a new version: see
docs/architecture/chunk-servers.md, "Preparing a grant".
"""

import secrets
from contextlib import ExitStack
from typing import Final

from gfschunkserver.buffers import packet_buffer
from gfschunkserver.chain import SYNC_SECONDS, Chain, hop_seconds
from gfschunkserver.downstream import Downstream, open_downstream
from gfschunkserver.engine import Engine
from gfschunkserver.replica import Replica
from gfsprotocol import bulk
from gfsprotocol.bulk import Ack, CommitVersion, OpenWrite, Prepare, Read, ReadReply, Reconcile, Table
from gfsprotocol.bulksocket import BulkConnection
from gfsprotocol.checksums import block_count, digests_match, segment_digests
from gfsprotocol.errors import (
    AlreadyExists,
    ChunkCorrupt,
    ChunkNotFound,
    DataError,
    DiskFailed,
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


def open_write(engine: Engine, request: OpenWrite) -> tuple[Chain, Downstream | None]:
    """The chain of the grant, and a session with the next member."""
    try:
        grant = engine.access.open_grant(request.grant, request.position)
        if request.position == 0:
            return _open_as_primary(engine, grant, request)
        return _open_as_member(engine, grant, request)
    except DiskFailed as error:
        # The end of this disk is no more to a writer than a member that failed.
        own = engine.server
        raise ReplicaFailed(f"server {own:016x}: {error.message}", str(own)) from error


def _open_as_primary(engine: Engine, grant: Grant, request: OpenWrite) -> tuple[Chain, Downstream | None]:
    with engine.chains.opening(grant.chunk):
        chain = engine.chains.get(grant)
        if chain is None:
            engine.chains.promise(grant)
            replica = engine.store.find(grant.chunk)
            _check_history(engine, request, replica)
            if replica is None and grant.base_version == 0:
                return _begin_as_primary(engine, grant, request)
            if replica is not None and replica.version == grant.version:
                raise _restarted(engine)
            chain = prepare_members(engine, grant, request.grant, replica)
    engine.chains.enter(chain, grant)
    try:
        chain.check()
        _check_history(engine, request, chain.replica)
        downstream = _open_next(engine, grant, request, chain.replica)
    except GfsError as error:
        engine.chains.leave(chain)
        if isinstance(error, AlreadyExists):
            raise ReplicaFailed(error.message, error.hint) from error
        raise
    replica = chain.replica
    chain.begin_confirmation(lambda: engine.leader.confirm_grant(replica.chunk, grant.version, replica.length))
    return chain, downstream


def _begin_as_primary(engine: Engine, grant: Grant, request: OpenWrite) -> tuple[Chain, Downstream | None]:
    """A chunk that has no replica yet, as far as the master and this server know. The others may know better."""
    replica = engine.store.create(grant)
    replica.verifier = _new_verifier()
    downstream: Downstream | None = None
    try:
        downstream = _open_next(engine, grant, request, replica)
        if downstream is not None and downstream.length:
            raise AlreadyExists(f"another member holds {downstream.length} bytes of chunk {grant.chunk:x}")
        chain = engine.chains.start(replica, grant)
    except GfsError as error:
        if downstream is not None:
            downstream.abandon()
        # An empty replica must not look like a good one to the master.
        engine.chains.forget(grant.chunk)
        engine.store.drop([replica], "no chain could be made for it")
        if isinstance(error, AlreadyExists):
            # The others have what this server lacks: it lost its replica.
            raise ReplicaFailed(f"server {engine.server:016x}: {error.message}", str(engine.server)) from error
        raise
    engine.chains.enter(chain, grant)
    return chain, downstream


def _open_as_member(engine: Engine, grant: Grant, request: OpenWrite) -> tuple[Chain, Downstream | None]:
    with engine.chains.opening(grant.chunk):
        chain = engine.chains.get(grant)
        if chain is None:
            chain = _begin_as_member(engine, grant, request.verifier)
    engine.chains.enter(chain, grant)
    try:
        chain.check()
        return chain, _open_next(engine, grant, request, chain.replica)
    except GfsError:
        engine.chains.leave(chain)
        raise


def _begin_as_member(engine: Engine, grant: Grant, verifier: int) -> Chain:
    """Only a chunk that has no data yet begins without being prepared."""
    replica = engine.store.find(grant.chunk)
    engine.chains.promise(grant)
    if grant.base_version == 0 and (replica is None or replica.version < grant.version):
        if replica is not None:
            # Version 0 in the log: nothing was ever acknowledged on the chunk, so what is here counts for nothing.
            engine.chains.forget(grant.chunk)
            engine.store.drop([replica], "its grant never came into force")
        replica = engine.store.create(grant)
        replica.verifier = verifier
        return engine.chains.start(replica, grant)
    own = str(engine.server)
    if grant.base_version == 0:
        raise AlreadyExists(f"server {engine.server:016x} has chunk {grant.chunk:x} from before it was started", own)
    raise _restarted(engine)


def _restarted(engine: Engine) -> ReplicaFailed:
    """Under a grant that is in force this server may lack what it acknowledged before it was synced.

    As primary it would then overwrite the others, who have it, and a later sync would be answered for lost bytes.
    """
    own = str(engine.server)
    return ReplicaFailed(f"server {engine.server:016x} was restarted under this grant: it may have lost bytes", own)


def _new_verifier() -> int:
    return secrets.randbits(62) + 1


def _check_history(engine: Engine, request: OpenWrite, replica: Replica | None) -> None:
    """WritesLost if this replica may lack writes that were acknowledged to the client and not synced.

    Checked before the members are prepared: as primary this server would overwrite the others, who may have them.
    """
    if request.verifier and (replica is None or replica.verifier != request.verifier):
        raise WritesLost(f"server {engine.server:016x} may have lost bytes that were not synced", str(engine.server))


def _end_older(engine: Engine, grant: Grant) -> None:
    """Nothing of an older grant is applied from now on; a replica of which that is not known takes no part."""
    if not engine.chains.end(grant.chunk, LeaseLost(f"a newer grant for chunk {grant.chunk:x} has taken over")):
        own = engine.server
        raise ReplicaFailed(f"server {own:016x}: a mutation of chunk {grant.chunk:x} does not end", str(own))


def _open_next(engine: Engine, grant: Grant, request: OpenWrite, replica: Replica) -> Downstream | None:
    position = request.position + 1
    if position == len(grant.members):
        return None
    seconds = hop_seconds(len(grant.members), request.position)
    onward = OpenWrite(request.grant, position, request.client, replica.verifier)
    return open_downstream(engine, grant.members[position], onward, seconds)


# ------------------------------------------------------------------------------------------------------ the primary


def prepare_members(engine: Engine, grant: Grant, signed: bytes, replica: Replica | None) -> Chain:
    """Makes all members' replicas equal and gives them the grant's version, durably, this one last."""
    replica = _usable(engine, grant, replica)
    replica.verifier = replica.verifier or _new_verifier()
    _end_older(engine, grant)
    try:
        with ExitStack() as stack:
            members = [
                _Member(engine, grant, member, Prepare(signed, position, replica.verifier), stack)
                for position, member in enumerate(grant.members[1:], 1)
            ]
            longest = max(members, key=lambda member: member.length, default=None)
            if longest is not None:
                longest.pull_tail(replica, longest.length if grant.cut_length < 0 else grant.cut_length)
            if 0 <= grant.cut_length < replica.length:
                replica.cut(grant.cut_length, sync=False)
            for member in members:
                member.reconcile(replica)
            for member in members:
                member.begin_commit(replica.length)
            for member in members:
                member.end_commit()
        replica.set_version(grant.version)
    except ChunkCorrupt as error:
        engine.suspect(replica.chunk)
        raise ReplicaFailed(f"server {engine.server:016x}: {error.message}", str(engine.server)) from error
    chain = engine.chains.start(replica, grant)
    engine.store.listener(grant.chunk)
    return chain


def _usable(engine: Engine, grant: Grant, replica: Replica | None) -> Replica:
    own = str(engine.server)
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
        self._peer = Downstream(engine, address)
        table, payload_bytes = self._peer.call(request, Table, PREPARE_SECONDS)
        self._clean = False
        stack.callback(self._end)
        self.length = table.length
        if payload_bytes != block_count(table.length) * DIGEST_BYTES:
            raise self._peer.failed(f"sent a table of {payload_bytes} bytes for {table.length} bytes of data")
        self._digests = memoryview(bytearray(payload_bytes))
        self._receive(self._digests)

    def pull_tail(self, replica: Replica, end: int) -> None:
        """Gets what the primary's replica lacks up to ``end``.

        It may have been acknowledged: a machine that lost its unsynced bytes must not take them from the others.
        """
        source = Downstream(self._engine, self._address)
        token = self._engine.access.sign_read(self._grant)
        start = replica.length // BLOCK_BYTES * BLOCK_BYTES
        with packet_buffer() as buffer:
            while replica.length < min(end, self.length):
                request = Read(token, replica.chunk, self._grant.base_version, start, PACKET_BYTES)
                reply, payload_bytes = source.call(request, ReadReply, PREPARE_SECONDS)
                try:
                    data = buffer[:payload_bytes]
                    source.connection.receive_into(data)
                except GfsError as error:
                    source.abandon()
                    raise source.failed(error.message) from error
                source.give_back()
                if not data or not digests_match(start, data, reply.digests):
                    raise source.failed(f"its replica of chunk {replica.chunk:x} is not good at {start}")
                replica.put(start, data, reply.digests, sync=False)
                start += len(data)

    def reconcile(self, replica: Replica) -> None:
        """Sends the blocks in which the replicas differ."""
        table, length = _table(replica)
        blocks = block_count(length)
        per_packet = PACKET_BYTES // BLOCK_BYTES
        block = 0
        while block < blocks:
            run = 0
            while run < per_packet and block + run < blocks and self._differs(table, block + run):
                run += 1
            if run:
                data = replica.read_verified(block * BLOCK_BYTES, run * BLOCK_BYTES)
                header = Reconcile(block * BLOCK_BYTES, segment_digests(block * BLOCK_BYTES, data))
                self._peer.send(PREPARE_SECONDS, bulk.encode(header, len(data)), data)
                self._peer.receive_ack()
            block += run or 1

    def begin_commit(self, length: int) -> None:
        self._peer.send(PREPARE_SECONDS + SYNC_SECONDS, bulk.encode(CommitVersion(length)))

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
        if replica.verifier != request.verifier:
            replica.verifier = 0  # what comes may take the place of writes that only this replica has
        primary.send(Table(replica.version, length), table)
        with packet_buffer() as buffer:
            while True:
                step, payload_bytes = primary.receive_request()
                if isinstance(step, CommitVersion):
                    break
                if not isinstance(step, Reconcile):
                    raise RemoteProtocolError(f"{primary.peer} sent {type(step).__name__} while preparing a grant")
                data = buffer[:payload_bytes]
                primary.receive_into(data)
                _take_blocks(replica, step, data)
                primary.send(Ack(step.offset, replica.length))
        if replica.length != step.length:
            replica.cut(step.length, sync=False)
        engine.chains.promise(grant)
        replica.set_version(grant.version)
        replica.verifier = request.verifier
        engine.chains.start(replica, grant)
    engine.store.listener(grant.chunk)
    primary.send(Ack(0, replica.length))


def _replica_to_prepare(engine: Engine, grant: Grant) -> Replica:
    replica = engine.store.find(grant.chunk)
    if replica is None and grant.base_version == 0:
        return engine.store.create(grant)
    if replica is None:
        raise ChunkNotFound(f"server {engine.server:016x} holds no replica of chunk {grant.chunk:x}")
    if replica.version > grant.version:
        raise LeaseLost(f"chunk {grant.chunk:x} has version {replica.version}, the grant {grant.version}")
    if replica.version < grant.base_version:
        raise StaleReplica(f"chunk {grant.chunk:x} has version {replica.version}, the grant needs {grant.base_version}")
    return replica


def _table(replica: Replica) -> tuple[bytes, int]:
    with replica.pinned(), replica.lock:
        return bytes(replica.state.table), replica.length


def _take_blocks(replica: Replica, step: Reconcile, data: memoryview) -> None:
    if step.offset % BLOCK_BYTES or not digests_match(step.offset, data, step.digests):
        raise DataError(f"blocks of chunk {replica.chunk:x} arrived damaged while its grant was prepared")
    replica.put(step.offset, data, step.digests, sync=False)
