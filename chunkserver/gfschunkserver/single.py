"""A write session of one mutation in one request and one reply: how small files are written.

What :mod:`gfschunkserver.session` says holds here too: the primary has verified the payload before it gives a serial;
from then on whatever goes wrong breaks the chain; a reply means that this server and all behind it have applied it.
"""

from typing import Final

from msgspec.structs import replace

from gfschunkserver.buffers import packet_buffer
from gfschunkserver.chain import SYNC_SECONDS, Chain, hop_seconds
from gfschunkserver.downstream import Downstream
from gfschunkserver.engine import Engine
from gfschunkserver.opening import (
    begin_as_member,
    check_history,
    confirm,
    give_up_replica,
    new_replica,
    running_or_prepared,
)
from gfschunkserver.session import own_failure
from gfsprotocol import bulk
from gfsprotocol.bulk import SingleWrite, SingleWritten
from gfsprotocol.bulksocket import BulkConnection
from gfsprotocol.checksums import digests_match
from gfsprotocol.errors import (
    AlreadyExists,
    DataError,
    DiskFailed,
    GfsError,
    InvalidArgument,
    RemoteProtocolError,
    ReplicaFailed,
)
from gfsprotocol.messages import Grant

CONFIRM_SECONDS: Final = 10.0


def serve_single(engine: Engine, upstream: BulkConnection, request: SingleWrite, payload_bytes: int) -> None:
    """Answers when all members have the bytes. An error ends the connection, as that of any write session."""
    if payload_bytes > bulk.SINGLE_BYTES_MAX:
        raise RemoteProtocolError(f"{upstream.peer} sent {payload_bytes} bytes as a single write")
    with packet_buffer() as buffer:
        payload = buffer[:payload_bytes]
        upstream.receive_into(payload)
        is_good = digests_match(request.offset, payload, request.digests)
        if not is_good:
            engine.measures.damaged_payloads.add()
        try:
            grant = engine.access.open_grant(request.grant, request.position)
            if request.position:
                written = _write_as_member(engine, grant, request, payload, is_good)
            elif is_good:
                written = _write_as_primary(engine, grant, request, payload)
            else:
                raise DataError(f"the payload from {upstream.peer} arrived damaged at the primary")
        except DiskFailed as error:
            # The end of this disk is no more to a writer than a member that failed.
            own = engine.server
            raise ReplicaFailed(f"server {own:016x}: {error.message}", str(own)) from error
    upstream.send(written)


def _write_as_primary(engine: Engine, grant: Grant, request: SingleWrite, payload: memoryview) -> SingleWritten:
    with engine.chains.opening(grant.chunk):
        chain = running_or_prepared(engine, grant, request)
        if chain is None:
            return _begin(engine, grant, request, payload)
    engine.chains.enter(chain, grant)
    try:
        chain.check()
        check_history(grant, request, chain.replica)
        confirm(engine, chain)
        written = _order(engine, chain, request, payload, begins=False)
        chain.wait_confirmed(CONFIRM_SECONDS)
        return written
    finally:
        engine.chains.leave(chain)
        engine.store.listener(grant.chunk)


def _begin(engine: Engine, grant: Grant, request: SingleWrite, payload: memoryview) -> SingleWritten:
    """The first write to a new chunk. If it fails nothing was acknowledged: what is here is of no use to anybody."""
    replica = new_replica(engine, grant, request)
    chain = engine.chains.start(replica, grant)
    engine.chains.enter(chain, grant)
    try:
        return _order(engine, chain, request, payload, begins=True)
    except GfsError as error:
        raise give_up_replica(engine, replica, error) from error
    finally:
        engine.chains.leave(chain)
        engine.store.listener(grant.chunk)


def _order(engine: Engine, chain: Chain, request: SingleWrite, payload: memoryview, begins: bool) -> SingleWritten:
    """The primary's part: a serial, once nothing is left that only the client could have done wrong."""
    engine.access.check_lease(chain.grant)
    end = request.offset + len(payload)
    capacity = chain.replica.state.chunk_bytes
    if not 0 <= request.offset <= end <= capacity:
        raise InvalidArgument(f"bytes {request.offset} to {end} are not inside a chunk of {capacity}")
    serial = chain.assign_write(end if payload else 0)
    ordered = replace(request, verifier=chain.replica.verifier, serial=serial, begins=begins)
    return _carry_out(engine, chain, ordered, payload)


def _write_as_member(
    engine: Engine, grant: Grant, request: SingleWrite, payload: memoryview, is_good: bool
) -> SingleWritten:
    own = engine.server
    with engine.chains.opening(grant.chunk):
        chain = engine.chains.get(grant)
        if chain is None:
            chain = begin_as_member(engine, grant, request)
        elif request.begins and chain.replica.length:
            raise AlreadyExists(f"server {own:016x} holds {chain.replica.length} bytes of chunk {grant.chunk:x}")
    engine.chains.enter(chain, grant)
    try:
        chain.check()
        if not is_good:
            reason = f"a payload for chunk {grant.chunk:x} arrived damaged at member {request.position}"
            error = ReplicaFailed(reason, str(own))
            chain.break_(error)
            raise error
        return _carry_out(engine, chain, request, payload)
    finally:
        engine.chains.leave(chain)
        engine.store.listener(grant.chunk)


def _carry_out(engine: Engine, chain: Chain, request: SingleWrite, payload: memoryview) -> SingleWritten:
    """What has a serial: downstream first, so that all members work at the same time. An error breaks the chain."""
    seconds = hop_seconds(len(chain.members), request.position) + (SYNC_SECONDS if request.sync else 0.0)
    downstream: Downstream | None = None
    try:
        position = request.position + 1
        if position < len(chain.members):
            member = Downstream(engine, chain.members[position])
            member.begin(seconds, bulk.encode(replace(request, position=position), len(payload)), payload)
            downstream = member
        length = _apply(engine, chain, request, payload, seconds)
        if downstream is not None:
            _await(downstream, length)
    except BaseException as error:
        if downstream is not None:
            downstream.abandon()
        chain.break_(error if isinstance(error, GfsError) else ReplicaFailed(f"internal error: {error!r}"))
        raise
    return SingleWritten(length, chain.replica.verifier)


def _await(downstream: Downstream, length: int) -> None:
    """Returns when the next member and all behind it have the mutation, and the chunk the same ``length``."""
    behind, _ = downstream.end(SingleWritten)
    if behind.length != length:
        raise downstream.failed(f"has {behind.length} bytes where {length} belong")
    downstream.give_back()


def _apply(engine: Engine, chain: Chain, request: SingleWrite, payload: memoryview, seconds: float) -> int:
    """In the order of serials; durable here on return if the request says so. The chunk's length afterwards."""
    replica = chain.replica

    def change() -> tuple[int, int]:
        chain.check_version()
        return replica.put(request.offset, payload, request.digests, request.sync), replica.length

    try:
        position, length = chain.apply(request.serial, seconds + SYNC_SECONDS, change)
        if request.sync:
            # Outside the turn: one fsync serves all who write to this disk at the same time.
            with replica.home.guarded():
                replica.home.journal.commit(position)
    except GfsError as error:
        raise own_failure(engine, replica, error) from error
    engine.measures.mutations.add()
    engine.measures.written_bytes.add(count=len(payload))
    return length
