"""A whole write session in one request: as good as one with three, and what goes wrong is told as there."""

import os
from collections.abc import Callable

import pytest

from gfsprotocol import bulk, tokens
from gfsprotocol import messages as m
from gfsprotocol.bulksocket import expect
from gfsprotocol.checksums import segment_digests
from gfsprotocol.errors import (
    DataError,
    InvalidArgument,
    LeaseLost,
    NoSpace,
    RemoteProtocolError,
    ReplicaFailed,
    TokenRefused,
    WritesLost,
)
from tests.chunkserver.cluster import (
    TOKEN_KEY,
    Cluster,
    Writer,
    connected,
    copy_of_disk,
    eventually,
    lose_a_write,
    lose_power,
    restart,
)

pytestmark = [pytest.mark.slow]

MakeCluster = Callable[..., Cluster]


def single(
    grant: m.Grant, offset: int, data: bytes, verifier: int = 0, sync: bool = False, digests: bytes | None = None
) -> bulk.SingleWrite:
    token = tokens.sign_grant(TOKEN_KEY, grant)
    return bulk.SingleWrite(
        token, 0, verifier, 0, offset, segment_digests(offset, data) if digests is None else digests, sync
    )


def write(cluster: Cluster, grant: m.Grant, offset: int, data: bytes, **options: bool | int) -> bulk.SingleWritten:
    server = next(server for server in cluster.servers if server.id == grant.members[0].server)
    with connected(server) as connection:
        connection.send(single(grant, offset, data, **options), data)  # type: ignore[arg-type]
        return expect(connection.receive_reply()[0], bulk.SingleWritten, connection.peer)


def contents(cluster: Cluster, chunk: int) -> list[bytes]:
    return [cluster.read(server, chunk) for server in cluster.servers]


@pytest.mark.parametrize("size", [1, 4096, bulk.SINGLE_BYTES_MAX])
@pytest.mark.parametrize("sync", [False, True])
def test_all_members_have_what_was_written(make_cluster: MakeCluster, size: int, sync: bool) -> None:
    cluster = make_cluster(3)
    data = os.urandom(size)
    written = write(cluster, cluster.grant(1, 1), 0, data, sync=sync)
    assert written.length == size
    assert written.verifier
    assert contents(cluster, 1) == [data] * 3
    stored = cluster.leader.stored
    eventually(lambda: all(stored.get(server.id, {}).get(1) == (1, size) for server in cluster.servers))


def test_a_connection_serves_one_after_the_other(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    with connected(cluster.servers[0]) as connection:
        for chunk in (1, 2, 3):
            connection.send(single(cluster.grant(chunk, 1), 0, b"data"), b"data")
        for _ in range(3):
            assert expect(connection.receive_reply()[0], bulk.SingleWritten, "primary").length == 4
    for chunk in (1, 2, 3):
        assert contents(cluster, chunk) == [b"data"] * 2


def test_what_was_synced_outlives_a_power_cut(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    write(cluster, cluster.grant(1, 1), 0, b"synced", sync=True)
    lose_power(cluster, 1, copy_of_disk(cluster, 1))
    assert contents(cluster, 1) == [b"synced"] * 2


def test_sessions_and_single_writes_are_in_one_order(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    grant = cluster.grant(1, 1)
    write(cluster, grant, 0, b"one ")
    writer = Writer(grant)
    writer.write(4, b"two ")
    written = write(cluster, grant, 8, b"three")
    writer.write(0, b"ONE")
    writer.close()
    assert written.length == 13
    assert contents(cluster, 1) == [b"ONE two three"] * 3


def test_a_later_version_is_prepared_and_confirmed_first(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    write(cluster, cluster.grant(1, 1), 0, b"old, ")
    write(cluster, cluster.grant(1, 2, base_version=1), 5, b"new")
    assert [(body.chunk, body.version) for body in cluster.leader.confirmed] == [(1, 2)]
    assert contents(cluster, 1) == [b"old, new"] * 3
    with pytest.raises(LeaseLost):
        write(cluster, cluster.grant(1, 1), 0, b"late")


def test_a_damaged_payload_is_refused_and_harms_nobody(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    grant = cluster.grant(1, 1)
    write(cluster, grant, 0, b"data")
    with connected(cluster.servers[0]) as connection:
        connection.send(single(grant, 4, b"more", digests=bytes(32)), b"more")
        with pytest.raises(DataError):
            connection.receive_reply()
    assert write(cluster, grant, 4, b"more").length == 8
    assert contents(cluster, 1) == [b"datamore"] * 2


def test_what_does_not_fit_is_refused_and_harms_nobody(
    make_cluster: MakeCluster, expected_logs: Callable[..., None]
) -> None:
    expected_logs("sent 131073 bytes as a single write")
    cluster = make_cluster(2)
    grant = cluster.grant(1, 1, chunk_bytes=64 * 1024)
    write(cluster, grant, 0, b"data")
    with pytest.raises(InvalidArgument):
        write(cluster, grant, 64 * 1024 - 1, b"more")
    large = bytes(bulk.SINGLE_BYTES_MAX + 1)
    with pytest.raises(RemoteProtocolError):
        write(cluster, cluster.grant(2, 1), 0, large)
    assert write(cluster, grant, 4, b"more").length == 8


def test_a_grant_that_is_not_genuine_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    token = tokens.sign_grant(bytes(32), cluster.grant(1, 1))
    with connected(cluster.servers[0]) as connection:
        connection.send(bulk.SingleWrite(token, 0, 0, 0, 0, segment_digests(0, b"data")), b"data")
        with pytest.raises(TokenRefused):
            connection.receive_reply()


def test_a_member_that_is_gone_is_named_and_nothing_stays_of_a_new_chunk(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    grant = cluster.grant(1, 1)
    cluster.servers[2].stop()
    with pytest.raises(ReplicaFailed) as failure:
        write(cluster, grant, 0, b"data")
    assert failure.value.hint == str(cluster.servers[2].id)
    assert cluster.servers[0].server.store.find(1) is None
    again = cluster.grant(1, 2, members=cluster.servers[:2])
    assert write(cluster, again, 0, b"data").length == 4


def test_a_connection_that_was_left_by_a_restarted_member_is_made_anew(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    write(cluster, cluster.grant(1, 1), 0, b"data")
    restart(cluster, 1)
    assert write(cluster, cluster.grant(2, 1), 0, b"data").length == 4


def test_a_primary_that_lost_its_replica_names_itself(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    grant = cluster.grant(1, 1)
    empty = copy_of_disk(cluster, 0)
    write(cluster, grant, 0, b"data")
    lose_power(cluster, 0, empty)
    with pytest.raises(ReplicaFailed) as failure:
        write(cluster, cluster.grant(1, 1), 0, b"late")
    assert failure.value.hint == str(cluster.servers[0].id)
    assert cluster.read(cluster.servers[1], 1) == b"data"


def test_a_member_that_was_restarted_takes_nothing_under_the_same_grant(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    grant = cluster.grant(1, 1)
    write(cluster, grant, 0, b"data")
    restart(cluster, 1)
    with pytest.raises(LeaseLost):
        write(cluster, grant, 4, b"more")


def test_writes_that_nobody_can_vouch_for_are_told_as_lost(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    lose_a_write(cluster)
    newer = cluster.grant(1, 2, base_version=1)
    with pytest.raises(WritesLost):
        write(cluster, newer, 4, b"more", verifier=1)
    assert write(cluster, newer, 4, b"more").length == 8


def test_a_disk_that_is_full_is_named(make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = make_cluster(2)
    grant = cluster.grant(1, 1)
    write(cluster, grant, 0, b"data")
    replica = cluster.servers[1].server.store.get(1)

    def full(_count: int) -> None:
        raise NoSpace("the disk is full")

    monkeypatch.setattr(replica.home, "claim_space", full)
    with pytest.raises(NoSpace) as failure:
        write(cluster, grant, 4, b"more")
    assert failure.value.hint == str(cluster.servers[1].id)
