"""Syncs of many chunks at once, outside their write sessions: small files that were written and closed."""

import logging
from collections.abc import Sequence

from gfschunkserver.engine import Engine
from gfschunkserver.replica import Replica
from gfsprotocol.bulk import SYNC_ITEMS_MAX, SyncChunks, Synced, SyncItem
from gfsprotocol.bulksocket import BulkConnection
from gfsprotocol.errors import GfsError, InvalidArgument

log = logging.getLogger(__name__)


def serve_sync(engine: Engine, connection: BulkConnection, request: SyncChunks) -> None:
    """Answers one SyncChunks when all that it could sync is on stable storage."""
    if len(request.items) > SYNC_ITEMS_MAX:
        raise InvalidArgument(f"a sync of {len(request.items)} chunks: {SYNC_ITEMS_MAX} are the limit")
    synced = _sync_replicas([_vouching(engine, item) for item in request.items])
    connection.send(Synced(tuple(synced)))


def _vouching(engine: Engine, item: SyncItem) -> Replica | None:
    """The replica, if it has all that was acknowledged under this grant and verifier."""
    try:
        grant = engine.access.open_grant(item.grant, item.position)
    except GfsError as error:
        log.debug("not syncing: %s", error.message)
        return None
    replica = engine.store.find(grant.chunk)
    if replica is None or replica.version != grant.version or not item.verifier:
        return None
    return replica if replica.verifier == item.verifier else None


def _sync_replicas(replicas: Sequence[Replica | None]) -> list[bool]:
    """Which of them are durable now. First all files, then the journals, each of which has most to do only once."""
    positions = [_position(replica) for replica in replicas]
    return [_is_committed(replica, position) for replica, position in zip(replicas, positions, strict=True)]


def _position(replica: Replica | None) -> int:
    """The journal's position that makes it durable, -1 if there is none."""
    if replica is None:
        return -1
    try:
        return replica.sync()
    except GfsError as error:
        log.warning("chunk %x could not be synced: %s", replica.chunk, error.message)
        return -1


def _is_committed(replica: Replica | None, position: int) -> bool:
    if replica is None or position < 0:
        return False
    try:
        with replica.home.guarded():
            replica.home.journal.commit(position)
    except GfsError as error:
        log.warning("chunk %x could not be synced: %s", replica.chunk, error.message)
        return False
    return True
