"""How a write session begins: the chain of its grant is found, or all members are prepared for it.

The first grant of a new chunk needs no preparation: each member begins with an empty replica.
"""

from gfschunkserver.chain import Chain, hop_seconds
from gfschunkserver.downstream import Downstream, open_downstream
from gfschunkserver.engine import Engine
from gfschunkserver.preparing import new_verifier, prepare_members, writes_lost
from gfschunkserver.replica import Replica
from gfsprotocol.bulk import OpenWrite, SingleWrite
from gfsprotocol.errors import AlreadyExists, DiskFailed, GfsError, LeaseLost, ReplicaFailed
from gfsprotocol.messages import Grant


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
        chain = running_or_prepared(engine, grant, request)
        if chain is None:
            return _begin_as_primary(engine, grant, request)
    engine.chains.enter(chain, grant)
    try:
        chain.check()
        check_history(grant, request, chain.replica)
        downstream = _open_next(engine, grant, request, chain.replica)
    except GfsError as error:
        engine.chains.leave(chain)
        if isinstance(error, AlreadyExists):
            raise LeaseLost(error.message) from error
        raise
    confirm(engine, chain)
    return chain, downstream


def running_or_prepared(engine: Engine, grant: Grant, request: OpenWrite | SingleWrite) -> Chain | None:
    """At the primary, with the opening lock: the chain of the grant, all members prepared for it. None if there is none
    because the chunk is new."""
    chain = engine.chains.get(grant)
    if chain is not None:
        return chain
    engine.chains.promise(grant)
    replica = engine.store.find(grant.chunk)
    if replica is not None and replica.version == grant.version:
        raise _restarted(engine)
    if grant.is_first and replica is None:
        return None
    return prepare_members(engine, grant, request, replica)


def confirm(engine: Engine, chain: Chain) -> None:
    """Has the leader log the version of the chain's grant, if that is not being done."""
    replica = chain.replica
    chain.begin_confirmation(lambda: engine.leader.confirm_grant(replica.chunk, chain.version, replica.length))


def new_replica(engine: Engine, grant: Grant, request: OpenWrite | SingleWrite) -> Replica:
    """The primary's, of a chunk that has none yet, as far as the master and this server know. The others may know
    better."""
    own = str(engine.server)
    if request.verifier:
        raise ReplicaFailed(f"server {engine.server:016x} has no replica any more of chunk {grant.chunk:x}", own)
    replica = engine.store.create(grant)
    replica.verifier = new_verifier()
    return replica


def give_up_replica(engine: Engine, replica: Replica, error: GfsError) -> GfsError:
    """Drops the primary's new replica, to which nobody may have had anything acknowledged; what the writer is told."""
    # It must not look like a good one to the master.
    engine.chains.forget(replica.chunk)
    engine.store.drop([replica], "no chain could be made for it")
    if isinstance(error, AlreadyExists):
        # The others have what this server lacks: it lost its replica.
        return ReplicaFailed(f"server {engine.server:016x}: {error.message}", str(engine.server))
    return error


def _begin_as_primary(engine: Engine, grant: Grant, request: OpenWrite) -> tuple[Chain, Downstream | None]:
    replica = new_replica(engine, grant, request)
    downstream: Downstream | None = None
    try:
        downstream = _open_next(engine, grant, request, replica, begins=True)
        if downstream is not None and downstream.length:
            raise AlreadyExists(f"another member holds {downstream.length} bytes of chunk {grant.chunk:x}")
        chain = engine.chains.start(replica, grant)
    except GfsError as error:
        if downstream is not None:
            downstream.abandon()
        raise give_up_replica(engine, replica, error) from error
    engine.chains.enter(chain, grant)
    return chain, downstream


def _open_as_member(engine: Engine, grant: Grant, request: OpenWrite) -> tuple[Chain, Downstream | None]:
    with engine.chains.opening(grant.chunk):
        chain = engine.chains.get(grant)
        if chain is None:
            chain = begin_as_member(engine, grant, request)
    engine.chains.enter(chain, grant)
    try:
        chain.check()
        return chain, _open_next(engine, grant, request, chain.replica, request.begins)
    except GfsError:
        engine.chains.leave(chain)
        raise


def begin_as_member(engine: Engine, grant: Grant, request: OpenWrite | SingleWrite) -> Chain:
    """Only a chunk that has no data anywhere yet begins without being prepared."""
    replica = engine.store.find(grant.chunk)
    engine.chains.promise(grant)
    own = str(engine.server)
    if replica is None:
        if not request.begins:
            raise ReplicaFailed(f"server {engine.server:016x} has no replica of chunk {grant.chunk:x}", own)
        replica = engine.store.create(grant)
        replica.verifier = request.verifier
        return engine.chains.start(replica, grant)
    if request.begins:
        raise AlreadyExists(f"server {engine.server:016x} has chunk {grant.chunk:x} and was restarted since", own)
    raise _restarted(engine)


def _restarted(engine: Engine) -> LeaseLost:
    """Under a grant that is in force this server may lack what it acknowledged before it was synced.

    As primary it would then overwrite the others, who have it, and a later sync would be answered for lost bytes. The
    next grant's preparation makes it equal to them; the master gives one when it has heard that we began anew.
    """
    return LeaseLost(f"server {engine.server:016x} was restarted under this grant: it may have lost bytes")


def check_history(grant: Grant, request: OpenWrite | SingleWrite, replica: Replica) -> None:
    """WritesLost if this replica may lack writes that were acknowledged to the client: then all members' may."""
    if request.verifier not in (0, replica.verifier):
        raise writes_lost([member.server for member in grant.members])


def _open_next(
    engine: Engine, grant: Grant, request: OpenWrite, replica: Replica, begins: bool = False
) -> Downstream | None:
    position = request.position + 1
    if position == len(grant.members):
        return None
    seconds = hop_seconds(len(grant.members), request.position)
    onward = OpenWrite(request.grant, position, request.client, replica.verifier, begins)
    return open_downstream(engine, grant.members[position], onward, seconds)
