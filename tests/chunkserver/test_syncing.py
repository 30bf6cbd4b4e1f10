"""Syncs of many chunks in one request: what may be called durable, and what may not."""

import os
from collections.abc import Callable

import pytest

from gfsprotocol import bulk, tokens
from gfsprotocol import messages as m
from gfsprotocol.bulksocket import expect
from gfsprotocol.errors import InvalidArgument
from gfsprotocol.ids import MIB
from tests.chunkserver.cluster import TOKEN_KEY, Cluster, Writer, connected, copy_of_disk, lose_power, restart

pytestmark = [pytest.mark.slow]

MakeCluster = Callable[..., Cluster]


def item(grant: m.Grant, verifier: int, position: int = 0) -> bulk.SyncItem:
    return bulk.SyncItem(tokens.sign_grant(TOKEN_KEY, grant), position, verifier)


def sync(cluster: Cluster, index: int, *items: bulk.SyncItem) -> tuple[bool, ...]:
    with connected(cluster.servers[index]) as connection:
        connection.send(bulk.SyncChunks(items))
        return expect(connection.receive_reply()[0], bulk.Synced, connection.peer).done


def write_unsynced(grant: m.Grant, data: bytes) -> int:
    """The verifier of the write."""
    writer = Writer(grant)
    for start in range(0, len(data), MIB):
        writer.write(start, data[start : start + MIB])
    verifier = writer.opened().verifier
    writer.close()
    return verifier


@pytest.mark.parametrize("size", [4096, 70_000])
def test_what_was_synced_outlives_a_power_cut(make_cluster: MakeCluster, size: int) -> None:
    cluster = make_cluster(2)
    content = {chunk: os.urandom(size) for chunk in range(1, 6)}
    grants = {chunk: cluster.grant(chunk, 1) for chunk in content}
    verifiers = {chunk: write_unsynced(grants[chunk], data) for chunk, data in content.items()}
    for position in (0, 1):
        items = [item(grants[chunk], verifiers[chunk], position) for chunk in content]
        assert sync(cluster, position, *items) == (True,) * 5
    lose_power(cluster, 0, copy_of_disk(cluster, 0))
    for chunk, data in content.items():
        assert cluster.read(cluster.servers[0], chunk) == data


def test_a_server_that_was_restarted_vouches_for_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    grant = cluster.grant(1, 1)
    verifier = write_unsynced(grant, b"data")
    assert sync(cluster, 0, item(grant, verifier)) == (True,)
    restart(cluster, 0)
    assert sync(cluster, 0, item(grant, verifier), item(grant, 0)) == (False, False)


def test_each_chunk_is_answered_for_itself(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    grant, over = cluster.grant(1, 1), cluster.grant(1, 1, valid_ms=-60_000)
    verifier = write_unsynced(grant, b"data")
    newer, absent = cluster.grant(1, 2, base_version=1), cluster.grant(2, 1)
    forged = bulk.SyncItem(tokens.sign_grant(bytes(32), grant), 0, verifier)
    items = [item(over, verifier), item(newer, verifier), item(absent, verifier), forged, item(grant, verifier + 1),
             item(grant, verifier, 1), item(grant, verifier)]  # fmt: skip
    assert sync(cluster, 0, *items) == (False,) * 6 + (True,)


def test_too_many_chunks_are_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    with pytest.raises(InvalidArgument):
        sync(cluster, 0, *[bulk.SyncItem(b"", 0, 1)] * (bulk.SYNC_ITEMS_MAX + 1))
