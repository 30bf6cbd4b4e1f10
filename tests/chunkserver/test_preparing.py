"""What was acknowledged and not synced survives servers that forget it, in a grant's preparation and in copies."""

from collections.abc import Callable

import pytest

from gfsprotocol.errors import LeaseLost, ReplicaFailed, WritesLost
from gfsprotocol.ids import BLOCK_BYTES, KIB
from tests.chunkserver.cluster import (
    Cluster,
    Writer,
    copy_chunk,
    copy_of_disk,
    eventually,
    lose_a_write,
    lose_power,
    restart,
)

pytestmark = [pytest.mark.slow]

MakeCluster = Callable[..., Cluster]


def contents(cluster: Cluster, chunk: int = 1) -> list[bytes]:
    return [cluster.read(server, chunk) for server in cluster.servers]


def test_a_primary_that_lost_its_power_takes_the_others_unsynced_writes(make_cluster: MakeCluster) -> None:
    """Another writer's grant, which relies on nothing, must not put the primary's old bytes in place of the others'."""
    cluster = make_cluster(3)
    verifier = lose_a_write(cluster)
    other = Writer(cluster.grant(1, 2, base_version=1))
    other.write(4, b"+", sync=True)
    other.close()
    assert contents(cluster) == [b"new!+"] * 3
    writer = Writer(cluster.grant(1, 3, base_version=2), verifier=verifier)
    assert writer.opened().verifier == verifier
    writer.close()


def test_a_writer_is_served_by_a_primary_that_forgot_if_another_member_remembers(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    verifier = lose_a_write(cluster)
    writer = Writer(cluster.grant(1, 2, base_version=1), verifier=verifier)
    writer.write(4, b"+", sync=True)
    assert writer.opened().verifier == verifier
    writer.close()
    assert contents(cluster) == [b"new!+"] * 3


def test_a_primary_takes_whole_blocks_and_the_length_from_who_remembers(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    old, new = b"o" * (5 * BLOCK_BYTES), b"n" * (40 * BLOCK_BYTES - 7)
    verifier = lose_a_write(cluster, old, new)
    writer = Writer(cluster.grant(1, 2, base_version=1), verifier=verifier)
    assert writer.opened().length == len(new)
    writer.close()
    assert contents(cluster) == [new] * 2


def test_servers_that_were_restarted_one_after_the_other_lose_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    first = Writer(cluster.grant(1, 1))
    first.write(0, b"data")
    verifier = first.opened().verifier
    first.close()
    for version, index in enumerate([0, 1, 2, 0], 2):
        restart(cluster, index)
        writer = Writer(cluster.grant(1, version, base_version=version - 1), verifier=verifier)
        assert writer.opened().verifier == verifier
        writer.close()


def test_when_nobody_remembers_the_writer_hears_it_of_all_members_at_once(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    verifier = lose_a_write(cluster)
    restart(cluster, 1)
    restart(cluster, 2)
    writer = Writer(cluster.grant(1, 2, base_version=1), verifier=verifier)
    with pytest.raises(WritesLost) as failure:
        writer.opened()
    writer.abandon()
    assert set(failure.value.hint.split()) == {str(server.id) for server in cluster.servers}
    # Nothing was changed: who remembers may still come.
    assert [server.server.store.get(1).version for server in cluster.servers] == [1] * 3


def test_no_replica_vouches_for_writes_that_another_writer_had_replaced(make_cluster: MakeCluster) -> None:
    """Those who remember were not to be reached when another writer's grant was prepared."""
    cluster = make_cluster(2)
    verifier = lose_a_write(cluster)
    restart(cluster, 1)
    other = Writer(cluster.grant(1, 2, base_version=1))
    other.write(4, b"+", sync=True)
    other.close()
    for version in (2, 3):
        writer = Writer(cluster.grant(1, version, base_version=1), verifier=verifier)
        with pytest.raises(WritesLost) as failure:
            writer.opened()
        assert set(failure.value.hint.split()) == {str(server.id) for server in cluster.servers}
        writer.abandon()


@pytest.mark.parametrize("index", [1, 2])
def test_a_member_that_lost_a_new_replica_with_its_power_is_not_filled_with_zeros(
    make_cluster: MakeCluster, index: int
) -> None:
    """What was acknowledged under the first grant is gone there; a write behind it must not hide that."""
    cluster = make_cluster(3)
    durable = copy_of_disk(cluster, index)
    grant = cluster.grant(1, 1)
    writer = Writer(grant)
    writer.write(0, b"data")
    verifier = writer.opened().verifier
    writer.close()
    lose_power(cluster, index, durable)
    again = Writer(grant, verifier=verifier)
    with pytest.raises(ReplicaFailed) as failure:
        again.write(4, b" and more")
    again.abandon()
    assert failure.value.hint == str(cluster.servers[index].id)
    assert cluster.servers[index].server.store.find(1) is None
    writer = Writer(cluster.grant(1, 2), verifier=verifier)
    writer.write(4, b" and more", sync=True)
    writer.close()
    assert contents(cluster) == [b"data and more"] * 3


# ------------------------------------------------------------------------------------------------- blank chunks


@pytest.mark.parametrize("made", [[], [0], [1], [0, 1, 2]])
def test_a_chunk_of_which_nothing_is_recorded_begins_with_whatever_its_members_have(
    make_cluster: MakeCluster, made: list[int]
) -> None:
    """The first grant was not used, or its members were restarted while it was made."""
    cluster = make_cluster(3)
    if made:
        first = Writer(cluster.grant(1, 1, [cluster.servers[index] for index in made]))
        first.opened()
        first.close()
    for index in made:
        restart(cluster, index)
    writer = Writer(cluster.grant(1, 2))
    writer.write(0, b"data", sync=True)
    writer.close()
    assert contents(cluster) == [b"data"] * 3
    assert [(confirm.chunk, confirm.version) for confirm in cluster.leader.confirmed] == [(1, 2)]


def test_what_a_member_of_a_blank_chunk_holds_is_kept(make_cluster: MakeCluster) -> None:
    """Acknowledged and not recorded yet: the next grant brings it to those who have nothing."""
    cluster = make_cluster(3)
    first = Writer(cluster.grant(1, 1, cluster.servers[1:]))
    first.write(0, b"data")
    verifier = first.opened().verifier
    first.close()
    writer = Writer(cluster.grant(1, 2), verifier=verifier)
    writer.write(4, b" and more", sync=True)
    writer.close()
    assert contents(cluster) == [b"data and more"] * 3


def test_a_first_grant_that_comes_after_a_newer_one_is_fenced(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    newer = Writer(cluster.grant(1, 2))
    newer.write(0, b"data")
    newer.close()
    late = Writer(cluster.grant(1, 1))
    with pytest.raises(LeaseLost):
        late.opened()
    late.abandon()
    assert contents(cluster) == [b"data"] * 2


# ------------------------------------------------------------------------------------------------------- copies


def test_a_copy_vouches_for_what_its_source_vouches_for(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    first = Writer(cluster.grant(1, 1, cluster.servers[:2]))
    first.write(0, b"data")
    verifier = first.opened().verifier
    first.close()
    assert copy_chunk(cluster, 1, 1, 1, source=0, target=2) == ""
    writer = Writer(cluster.grant(1, 2, [cluster.servers[2]], base_version=1), verifier=verifier)
    assert writer.opened().verifier == verifier
    writer.close()


def test_a_chunk_is_not_copied_while_it_is_written(
    make_cluster: MakeCluster, expected_logs: Callable[..., None]
) -> None:
    expected_logs("cannot be copied", "could not carry out")
    cluster = make_cluster(3)
    grant = cluster.grant(1, 1, cluster.servers[:2])
    writer = Writer(grant)
    writer.write(0, b"data")
    for order, source in ((1, 0), (2, 1)):
        assert "being written" in copy_chunk(cluster, order, 1, 1, source=source, target=2)
    writer.write(4, b" and more")
    writer.close()
    eventually(lambda: not cluster.servers[1].server.engine.chains.is_open(1))
    assert copy_chunk(cluster, 3, 1, 1, source=1, target=2) == ""
    assert contents(cluster) == [b"data and more"] * 3


def test_nothing_is_written_any_more_under_a_version_that_was_copied(make_cluster: MakeCluster) -> None:
    """The copy would count as good and lack it."""
    cluster = make_cluster(3)
    grant = cluster.grant(1, 1, cluster.servers[:2])
    writer = Writer(grant)
    writer.write(0, b"data")
    writer.close()
    eventually(lambda: not cluster.servers[1].server.engine.chains.is_open(1))
    assert copy_chunk(cluster, 1, 1, 1, source=1, target=2) == ""
    again = Writer(grant)
    with pytest.raises((LeaseLost, ReplicaFailed)):
        again.opened()
        again.write(0, b"late")
    again.abandon()
    assert contents(cluster) == [b"data"] * 3


def test_a_copy_of_another_version_than_was_ordered_is_not_made(
    make_cluster: MakeCluster, expected_logs: Callable[..., None]
) -> None:
    """The chunk was leased and written to while the order waited; the same bytes may come again in other places."""
    expected_logs("cannot be copied")
    cluster = make_cluster(3)
    for version in (1, 2):
        writer = Writer(cluster.grant(1, version, cluster.servers[:2], base_version=version - 1))
        writer.write(0, b"%d" % version * 100 * KIB)
        writer.close()
    eventually(lambda: not cluster.servers[0].server.engine.chains.is_open(1))
    assert "version" in copy_chunk(cluster, 1, 1, 1, source=0, target=2)
    assert cluster.servers[2].server.store.find(1) is None
    assert copy_chunk(cluster, 2, 1, 2, source=0, target=2) == ""
