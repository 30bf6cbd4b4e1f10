"""Writes through a chain of real servers: order, equality, failures, fences."""

import errno
import os
import random
import socket
import threading
from collections.abc import Callable

import msgspec
import pytest

from gfschunkserver.chain import AppendSlot, Chain, Chains
from gfschunkserver.journal import Journal
from gfschunkserver.records import AnyRecord, ReplicaState
from gfschunkserver.replica import Replica
from gfsprotocol import bulk, tokens
from gfsprotocol.bulksocket import BulkConnection, expect
from gfsprotocol.errors import (
    ChunkFull,
    DataError,
    GfsError,
    InvalidArgument,
    LeaseLost,
    NotLeader,
    ReplicaFailed,
    TokenRefused,
    Unreachable,
)
from gfsprotocol.ids import BLOCK_BYTES, KIB, MIB
from tests.chunkserver.cluster import (
    Cluster,
    Server,
    Writer,
    connected,
    eventually,
    lose_a_write,
    receive_read,
)

pytestmark = [pytest.mark.slow]

MakeCluster = Callable[..., Cluster]
ExpectedLogs = Callable[..., None]


def assert_equal_replicas(cluster: Cluster, chunk: int, servers: list[Server] | None = None) -> bytes:
    contents = [cluster.read(server, chunk) for server in servers or cluster.servers]
    assert all(content == contents[0] for content in contents)
    return contents[0]


def run_together(*works: Callable[[], None]) -> None:
    """Runs all in threads; raises what one of them raised."""
    failures: list[BaseException] = []

    def guard(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=guard, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_a_stream_is_equal_on_all_members(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    data = os.urandom(5 * MIB + 12345)
    writer = Writer(cluster.grant(0x10, 1))
    for start in range(0, len(data), MIB):
        writer.send_write(start, data[start : start + MIB])
    writer.send_sync()
    acks = [writer.ack() for _ in range(7)]
    assert acks[5].length == len(data)
    writer.close()
    for server in cluster.servers:
        assert cluster.read(server, 0x10) == data
        assert cluster.read(server, 0x10, 100, 70_000) == data[100:70_100]
    assert cluster.leader.confirmed == []
    stored = cluster.leader.stored
    eventually(lambda: all(stored.get(server.id, {}).get(0x10) == (1, len(data)) for server in cluster.servers))


def test_a_small_file_is_written_in_one_go(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    writer = Writer(cluster.grant(1, 1))
    writer.send_write(0, b"small", sync=True)
    writer.connection.send(bulk.CloseWrite())
    assert writer.ack() == bulk.Ack(0, 5)
    expect(writer.connection.receive_reply()[0], bulk.WriteClosed, "primary")
    # The same connection serves the next chunk.
    grant = cluster.grant(2, 1)
    token = tokens.sign_grant(tokens.token_key(bytes(range(32))), grant)
    writer.connection.send(bulk.OpenWrite(token, 0, bytes(16)))
    expect(writer.connection.receive_reply()[0], bulk.WriteOpened, "primary")
    writer.connection.send(bulk.CloseWrite())
    expect(writer.connection.receive_reply()[0], bulk.WriteClosed, "primary")
    writer.abandon()
    assert assert_equal_replicas(cluster, 1) == b"small"


def test_writes_anywhere_give_what_a_buffer_would_hold(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    rng = random.Random(4)
    writer = Writer(cluster.grant(1, 1, chunk_bytes=MIB))
    expected = bytearray()
    for _ in range(60):
        if rng.random() < 0.15:
            length = rng.randrange(MIB)
            writer.send_cut(length, sync=rng.random() < 0.5)
            del expected[length:]
            expected.extend(bytes(length - len(expected)))
        else:
            offset = rng.choice([len(expected), rng.randrange(MIB)])
            data = rng.randbytes(min(rng.choice([1, 700, 5000, 100_000]), MIB - offset))
            if not data:
                continue
            writer.send_write(offset, data, sync=rng.random() < 0.5)
            expected.extend(bytes(max(0, offset - len(expected))))
            expected[offset : offset + len(data)] = data
        assert writer.ack().length == len(expected)
    writer.close()
    assert assert_equal_replicas(cluster, 1) == bytes(expected)
    first = cluster.servers[0]
    for _ in range(20):
        start = rng.randrange(len(expected))
        assert cluster.read(first, 1, start, 5000) == expected[start : start + 5000]


def test_concurrent_appenders_lose_nothing_and_repeat_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    grant = cluster.grant(1, 1)
    placed: dict[bytes, int] = {}
    lock = threading.Lock()

    def append(number: int) -> None:
        writer = Writer(grant)
        rng = random.Random(number)
        for record in range(1, 16):
            data = bytes([number, record]) * rng.randrange(32, 20_000)
            writer.send_append(data, record, sync=record % 3 == 0)
            ack = writer.ack()
            with lock:
                placed[data] = ack.offset
        writer.close()

    run_together(*[lambda number=number: append(number) for number in range(6)])
    content = assert_equal_replicas(cluster, 1)
    assert len(placed) == 90
    assert sum(map(len, placed)) == len(content)
    for data, offset in placed.items():
        assert content[offset : offset + len(data)] == data


def test_concurrent_overlapping_writers_leave_identical_replicas(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    grant = cluster.grant(1, 1, chunk_bytes=MIB)

    def scribble(number: int) -> None:
        writer = Writer(grant)
        rng = random.Random(number)
        for _ in range(25):
            offset = rng.randrange(200_000)
            writer.write(offset, bytes([number]) * rng.randrange(1, 100_000), sync=rng.random() < 0.2)
        writer.close()

    run_together(*[lambda number=number: scribble(number) for number in range(1, 5)])
    assert_equal_replicas(cluster, 1)


def test_a_repeated_append_gets_the_first_answer(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    grant = cluster.grant(1, 1)
    first = Writer(grant)
    first.send_append(b"once", 1)
    ack = first.ack()
    first.send_append(b"twice", 2)
    assert first.ack() == bulk.Ack(4, 9)
    first.abandon()
    again = Writer(grant, client=first.client)
    again.send_append(b"once", 1)
    again.send_append(b"new", 3)
    assert again.ack() == ack
    assert again.ack() == bulk.Ack(9, 12)
    again.close()
    assert assert_equal_replicas(cluster, 1) == b"oncetwicenew"


def test_a_full_chunk_is_padded_and_the_session_goes_on(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    capacity = 2 * BLOCK_BYTES + 100
    writer = Writer(cluster.grant(1, 1, chunk_bytes=capacity))
    writer.send_append(b"a" * 100_000, 1)
    writer.send_append(b"b" * 50_000, 2)
    writer.send_append(b"c", 3)
    assert writer.ack().offset == 0
    for _ in range(2):
        with pytest.raises(ChunkFull):
            writer.ack()
    writer.close()
    assert assert_equal_replicas(cluster, 1) == (b"a" * 100_000).ljust(capacity, b"\0")


@pytest.mark.parametrize("victim", [1, 2])
def test_a_member_that_dies_in_a_stream_is_named_and_the_others_go_on(make_cluster: MakeCluster, victim: int) -> None:
    chunk = 0x100 + victim
    cluster = make_cluster(3)
    data = os.urandom(24 * MIB)
    writer = Writer(cluster.grant(chunk, 1))
    acknowledged = 0
    with pytest.raises(ReplicaFailed) as failure:
        for start in range(0, len(data), MIB):
            writer.send_write(start, data[start : start + MIB])
            if start == 8 * MIB:
                cluster.servers[victim].stop()
        while True:
            acknowledged = writer.ack().length
    assert failure.value.hint == str(cluster.servers[victim].id)
    writer.abandon()
    survivors = [server for server in cluster.servers if not server.stopped]
    second = Writer(cluster.grant(chunk, 2, survivors, base_version=1))
    assert second.opened().length >= acknowledged
    for start in range(acknowledged, len(data), MIB):
        second.send_write(start, data[start : start + MIB])
    for _ in range(acknowledged, len(data), MIB):
        second.ack()
    second.send_sync()
    second.ack()
    second.close()
    assert assert_equal_replicas(cluster, chunk, survivors) == data
    assert cluster.leader.confirmed[-1].version == 2


def test_replicas_that_differ_are_made_equal_and_the_longest_wins(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    data = os.urandom(3 * BLOCK_BYTES + 500)
    writer = Writer(cluster.grant(1, 1))
    writer.write(0, data)
    writer.close()
    # What a chain that broke in the middle leaves: one has more, another has something else at the end.
    for index, extra in ((1, b"x" * 70_000), (2, b"y" * 10)):
        own = Writer(cluster.grant(1, 2, [cluster.servers[index]], base_version=1))
        own.write(len(data), extra)
        own.close()
    newest = Writer(cluster.grant(1, 3, base_version=1))
    assert newest.opened().length == len(data) + 70_000
    newest.write(0, b"new")
    newest.close()
    assert assert_equal_replicas(cluster, 1) == b"new" + data[3:] + b"x" * 70_000


def test_a_cut_of_the_namespace_comes_with_the_next_grant(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    writer = Writer(cluster.grant(1, 1))
    writer.write(0, b"secret" * 30_000)
    writer.close()
    writer = Writer(cluster.grant(1, 2, base_version=1, cut_length=6))
    assert writer.opened().length == 6
    assert writer.write(10, b"!") == bulk.Ack(10, 11)
    writer.close()
    assert assert_equal_replicas(cluster, 1) == b"secret\0\0\0\0!"


def test_an_old_grant_is_fenced(make_cluster: MakeCluster, expected_logs: ExpectedLogs) -> None:
    cluster = make_cluster(2)
    old = Writer(cluster.grant(1, 1))
    old.write(0, b"first")
    newer = Writer(cluster.grant(1, 2, base_version=1))
    newer.write(5, b" second")
    old.send_write(0, b"too late")
    with pytest.raises(LeaseLost):
        old.ack()
    old.abandon()
    again = Writer(cluster.grant(1, 1))
    with pytest.raises(LeaseLost):
        again.opened()
    again.abandon()
    newer.close()
    assert assert_equal_replicas(cluster, 1) == b"first second"


def test_a_grant_of_an_epoch_that_is_over_is_refused(make_cluster: MakeCluster, expected_logs: ExpectedLogs) -> None:
    expected_logs("refusing the orders", "is over")
    cluster = make_cluster(1)
    server = cluster.servers[0]
    for epoch in (5, 6):
        server.server.store.obey(epoch)
        server.server.engine.access.heard(epoch, 1000)
    writer = Writer(cluster.grant(1, 1))
    with pytest.raises(LeaseLost):
        writer.opened()
    writer.abandon()


def test_tokens_are_checked(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    server = cluster.servers[0]
    writer = Writer(cluster.grant(1, 1))
    writer.write(0, b"x")
    writer.close()
    good = cluster.read_token(1)
    wrong_key = tokens.sign_read(b"k" * 32, tokens.ReadToken(1, 0, 1, 0, 10**9))
    with connected(server) as connection:
        for token in (cluster.read_token(2), wrong_key, cluster.read_token(1, valid_ms=-10_000), b"", good[:-1]):
            connection.send(bulk.Read(token, 1, 0, 0, 10))
            with pytest.raises(TokenRefused):
                connection.receive_reply()
        connection.send(bulk.Read(good, 1, 0, 0, 10))
        assert receive_read(connection)[1] == b"x"
    for refused in (
        Writer(cluster.grant(2, 1), key=b"k" * 32),
        Writer(cluster.grant(2, 1, valid_ms=-10_000)),
        Writer(cluster.grant(2, 1, chunk_bytes=0)),
    ):
        with pytest.raises((TokenRefused, LeaseLost, InvalidArgument)):
            refused.opened()
        refused.abandon()
    assert server.server.store.find(2) is None


def test_a_grant_for_another_server_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    grant = cluster.grant(1, 1, [cluster.servers[1]])
    with connected(cluster.servers[0]) as connection:
        connection.send(bulk.OpenWrite(tokens.sign_grant(tokens.token_key(bytes(range(32))), grant), 0, bytes(16)))
        with pytest.raises(TokenRefused):
            connection.receive_reply()


def test_a_lease_that_ends_stops_its_writer(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    writer = Writer(cluster.grant(1, 1, valid_ms=300))
    writer.write(0, b"in time")
    eventually(lambda: cluster.leader.clock_ms() > 1000)
    writer.send_write(7, b"late")
    with pytest.raises(LeaseLost):
        writer.ack()
    writer.abandon()
    assert cluster.read(cluster.servers[0], 1) == b"in time"


def test_damage_on_the_way_is_refused_before_it_counts(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    grant = cluster.grant(1, 1)
    good = Writer(grant)
    good.write(0, b"good")
    bad = Writer(grant)
    bad.opened()
    bad.connection.send(bulk.Mutate(bulk.WRITE, 0, 4, bytes(32)), b"damaged")
    with pytest.raises(DataError, match="damaged"):
        bad.ack()
    bad.abandon()
    good.write(4, b" and well")
    good.close()
    assert assert_equal_replicas(cluster, 1) == b"good and well"


def test_a_client_that_goes_away_in_the_middle_of_a_packet_harms_nobody(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    grant = cluster.grant(1, 1)
    good = Writer(grant)
    good.write(0, b"good")
    bad = Writer(grant)
    bad.opened()
    bad.connection.send_bytes([bulk.encode(bulk.Mutate(bulk.WRITE, 0, 4, bytes(512)), MIB), bytes(300 * KIB)])
    bad.abandon()
    assert good.write(4, b" and well") == bulk.Ack(4, 13)
    good.close()
    assert assert_equal_replicas(cluster, 1) == b"good and well"


def test_nothing_is_acknowledged_before_the_leader_has_confirmed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    first = Writer(cluster.grant(1, 1))
    first.write(0, b"x")
    first.close()
    cluster.leader.confirm_error = LeaseLost("the file was removed")
    writer = Writer(cluster.grant(1, 2, base_version=1))
    writer.send_write(1, b"y", sync=True)
    with pytest.raises(LeaseLost):
        writer.ack()
    writer.abandon()
    again = Writer(cluster.grant(1, 2, base_version=1))
    with pytest.raises(LeaseLost):
        again.ack()
    again.abandon()
    cluster.leader.confirm_error = None
    newer = Writer(cluster.grant(1, 3, base_version=1))
    assert newer.write(2, b"z", sync=True) == bulk.Ack(2, 3)
    newer.close()
    assert [(confirm.chunk, confirm.version) for confirm in cluster.leader.confirmed] == [(1, 3)]


def test_a_restarted_primary_does_not_overwrite_what_the_others_acknowledged(
    make_cluster: MakeCluster,
) -> None:
    """One host loses power between an acknowledged write and its sync; the sync must not be answered for old bytes."""
    cluster = make_cluster(3)
    lose_a_write(cluster)
    writer = Writer(cluster.grant(1, 1))
    with pytest.raises(LeaseLost, match="was restarted"):
        writer.opened()
    writer.abandon()
    writer = Writer(cluster.grant(1, 2, cluster.servers[1:], base_version=1))
    writer.write(4, b"+", sync=True)
    writer.close()
    assert [cluster.read(server, 1) for server in cluster.servers[1:]] == [b"new!+"] * 2


def test_a_restarted_member_takes_no_part_before_it_is_prepared(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    writer = Writer(cluster.grant(1, 1))
    writer.write(0, b"kept", sync=True)
    writer.close()
    port = cluster.servers[1].server.port
    cluster.servers[1].stop()
    cluster.servers[1] = cluster.start_server(1, port=port)
    cluster.wait_registered(cluster.servers[1])
    writer = Writer(cluster.grant(1, 1))
    with pytest.raises(LeaseLost, match="was restarted"):
        writer.opened()
    writer.abandon()
    writer = Writer(cluster.grant(1, 2, base_version=1))
    assert writer.opened().length == 4
    writer.close()


def test_a_primary_that_lost_its_disk_does_not_take_the_data_from_the_others(
    make_cluster: MakeCluster, expected_logs: ExpectedLogs
) -> None:
    expected_logs("is missing")
    cluster = make_cluster(2)
    writer = Writer(cluster.grant(1, 1))
    writer.write(0, b"kept", sync=True)
    writer.close()
    primary = cluster.servers[0]
    port, chunk_file = primary.server.port, primary.server.store.get(1).path
    primary.stop()
    chunk_file.unlink()
    cluster.servers[0] = cluster.start_server(0, port=port)
    cluster.wait_registered(cluster.servers[0])
    writer = Writer(cluster.grant(1, 1))
    with pytest.raises(ReplicaFailed) as failure:
        writer.opened()
    assert failure.value.hint == str(cluster.servers[0].id)
    writer.abandon()
    assert cluster.servers[0].server.store.find(1) is None
    assert cluster.read(cluster.servers[1], 1) == b"kept"


def test_an_error_does_not_leave_a_half_made_chain(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    cluster.servers[1].stop()
    writer = Writer(cluster.grant(1, 1))
    with pytest.raises(GfsError) as failure:
        writer.opened()
    assert isinstance(failure.value, ReplicaFailed)
    writer.abandon()
    assert cluster.servers[0].server.store.find(1) is None
    alone = Writer(cluster.grant(1, 2, [cluster.servers[0]]))
    alone.write(0, b"x")
    alone.close()


def test_a_writer_that_is_refused_does_not_break_what_was_on_the_way(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    grant = cluster.grant(1, 1, chunk_bytes=MIB)
    other = Writer(grant)
    other.write(0, b"other")
    writer = Writer(grant)
    writer.opened()
    for number in range(8):
        writer.send_append(bytes([number]) * 30_000, number + 1)
    writer.send_write(2 * MIB, b"beyond the chunk")
    for number in range(8):
        assert writer.ack() == bulk.Ack(5 + number * 30_000, 30_005 + number * 30_000)
    with pytest.raises(InvalidArgument):
        writer.ack()
    writer.abandon()
    other.write(0, b"OTHER")
    other.close()
    assert len(assert_equal_replicas(cluster, 1)) == 5 + 8 * 30_000


def test_a_confirmation_that_no_leader_gives_is_asked_for_again(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gfschunkserver.reporter.CONFIRM_SECONDS", 0.3)
    cluster = make_cluster(2)
    first = Writer(cluster.grant(1, 1))
    first.write(0, b"x")
    first.close()
    cluster.leader.confirm_error = NotLeader()
    writer = Writer(cluster.grant(1, 2, base_version=1))
    writer.send_append(b"once", 1)
    with pytest.raises(Unreachable):
        writer.ack()
    writer.abandon()
    cluster.leader.confirm_error = None
    again = Writer(cluster.grant(1, 2, base_version=1), client=writer.client)
    again.send_append(b"once", 1)
    again.send_append(b" more", 2)
    assert again.ack() == bulk.Ack(1, 5)
    assert again.ack() == bulk.Ack(5, 10)
    again.close()
    assert assert_equal_replicas(cluster, 1) == b"xonce more"


def test_a_verifier_holds_through_grants_and_changes_of_members(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    first = Writer(cluster.grant(1, 1))
    first.write(0, b"data")
    verifier = first.opened().verifier
    assert verifier
    first.close()
    for version, members in ((2, [1, 0]), (3, [0]), (4, [0, 1])):
        grant = cluster.grant(1, version, [cluster.servers[member] for member in members], base_version=version - 1)
        if version == 4:
            grant = msgspec.structs.replace(grant, base_version=2)
        writer = Writer(grant, verifier=verifier)
        assert writer.opened().verifier == verifier
        writer.close()


def test_a_writer_that_paused_under_a_renewed_lease_finds_the_chain(make_cluster: MakeCluster) -> None:
    """A lease is renewed in a session's middle; if nothing more was to be sent, no server has seen the new token."""
    cluster = make_cluster(2)
    writer = Writer(cluster.grant(1, 1, valid_ms=600))
    writer.write(0, b"before")
    writer.close()
    eventually(lambda: cluster.leader.clock_ms() > 800)
    for server in cluster.servers:
        eventually(lambda server=server: not server.server.engine.chains.is_open(1))  # type: ignore[misc]
        server.server.engine.expire_chains()
    again = Writer(cluster.grant(1, 1))
    again.write(6, b" and after")
    again.close()
    assert assert_equal_replicas(cluster, 1) == b"before and after"


def test_chains_and_promises_are_forgotten_some_time_after_their_grants(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    writer = Writer(cluster.grant(1, 1, valid_ms=300))
    writer.write(0, b"x")
    writer.close()
    gone = Writer(cluster.grant(2, 2, base_version=1, valid_ms=300))
    with pytest.raises(ReplicaFailed):
        gone.opened()
    gone.abandon()
    for server in cluster.servers:
        chains = server.server.engine.chains

        def is_empty(server: Server = server, chains: Chains = chains) -> bool:
            server.server.engine.expire_chains()
            return not chains._chains and not chains._promised and not chains._opening

        eventually(is_empty)


def test_a_mutation_that_hangs_keeps_its_member_out_of_the_next_grant(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would come after the member's table was read, and the member would differ from the others."""
    monkeypatch.setattr("gfschunkserver.chain.CLOSE_SECONDS", 0.1)
    cluster = make_cluster(2)
    old = Writer(cluster.grant(1, 1))
    old.write(0, b"first")
    begun, go_on = threading.Event(), threading.Event()
    hanging = cluster.servers[1].server.store.get(1)
    put = Replica.put

    def put_slowly(replica: Replica, offset: int, data: memoryview, digests: bytes, sync: bool) -> int:
        if replica is hanging and data == b"torn":
            begun.set()
            assert go_on.wait(20)
        return put(replica, offset, data, digests, sync)

    monkeypatch.setattr(Replica, "put", put_slowly)
    old.send_write(0, b"torn")
    assert begun.wait(20)
    newer = Writer(cluster.grant(1, 2, base_version=1))
    try:
        with pytest.raises(ReplicaFailed) as failure:
            newer.opened()
    finally:
        go_on.set()
    assert failure.value.hint == str(cluster.servers[1].id)
    newer.abandon()
    old.abandon()


def test_an_empty_write_moves_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    writer = Writer(cluster.grant(1, 1))
    assert writer.write(1000, b"") == bulk.Ack(1000, 0)
    writer.send_append(b"first", 1)
    assert writer.ack() == bulk.Ack(0, 5)
    writer.close()
    assert assert_equal_replicas(cluster, 1) == b"first"


def a_chain(cluster: Cluster) -> Chain:
    writer = Writer(cluster.grant(1, 1))
    writer.opened()
    writer.close()
    chain = cluster.servers[0].server.engine.chains.get(cluster.grant(1, 1))
    assert chain is not None
    return chain


def test_a_busy_client_does_not_make_the_chain_forget_anothers_append(make_cluster: MakeCluster) -> None:
    chain = a_chain(make_cluster(1))
    slow, busy = b"s" * 16, b"b" * 16
    slot, _ = chain.claim(slow, 1)
    slot.answer = bulk.Ack(0, 5)
    for record in range(1, 10_000):
        chain.claim(busy, record)
    assert chain.claim(slow, 1) == (slot, False)
    for number in range(10_000):
        chain.claim(number.to_bytes(16, "little"), 1)
    assert len(chain._slots) < 5000


def test_an_append_that_repeats_a_refused_one_does_not_wait_for_it(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = a_chain(make_cluster(1))
    replica = chain.replica
    first = b"c" * 16
    chain.claim(first, 2)
    claim = Chain.claim

    def claim_and_refuse(chain: Chain, client: bytes, record: int) -> tuple[AppendSlot, bool]:
        claimed = claim(chain, client, record)
        if not claimed[1]:
            chain.give_up(client, record)
        return claimed

    monkeypatch.setattr(Chain, "claim", claim_and_refuse)
    again = Writer(chain.grant, client=first)
    again.send_append(b"no room", 2)
    again.connection.set_timeout(5)
    with pytest.raises(ChunkFull):
        again.ack()
    again.close()
    assert replica.length == 0


def test_who_waits_to_open_a_chunk_and_who_comes_later_meet_at_one_lock() -> None:
    chains = Chains()
    with chains.opening(1):
        chains.expire(lambda _grant: True)
        entered = threading.Event()

        def open_later() -> None:
            with chains.opening(1):
                entered.set()

        later = threading.Thread(target=open_later)
        later.start()
        assert not entered.wait(0.1)
    later.join()
    assert chains._opening == {}


@pytest.mark.parametrize("idle", [1, 2, 3])
def test_a_member_that_lost_power_is_tried_on_a_new_connection(make_cluster: MakeCluster, idle: int) -> None:
    """Of connections that were idle meanwhile nobody has told us that they are gone."""
    cluster = make_cluster(2)
    engine, member = cluster.servers[0].server.engine, cluster.servers[1].address
    dead: list[BulkConnection] = []
    for _ in range(idle):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            dead.append(BulkConnection.connect("127.0.0.1", listener.getsockname()[1], 5.0, 5.0))
            listener.accept()[0].close()
    for connection in dead:
        engine.peers.give_back(member.host, member.port, connection)
        connection.is_stale = lambda: False  # type: ignore[method-assign]
    writer = Writer(cluster.grant(1, 1))
    assert writer.write(0, b"x") == bulk.Ack(0, 1)
    writer.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_primary_whose_disk_fails_at_the_opening_is_named(
    make_cluster: MakeCluster, version: int, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    """To the writer that is a replica which failed, not the end of its file."""
    expected_logs("is out of use")
    cluster = make_cluster(2)
    primary = cluster.servers[0]
    if version == 2:
        writer = Writer(cluster.grant(1, 1))
        writer.write(0, b"kept", sync=True)
        writer.close()
    append = Journal.append

    def fail(journal: Journal, state: ReplicaState, record: AnyRecord) -> int:
        if journal is primary.server.store.disks[0].journal:
            raise OSError(errno.EIO, "Input/output error")
        return append(journal, state, record)

    monkeypatch.setattr(Journal, "append", fail)
    writer = Writer(cluster.grant(1, version, base_version=version - 1))
    with pytest.raises(ReplicaFailed) as failure:
        writer.opened()
    writer.abandon()
    assert failure.value.hint == str(primary.id)
