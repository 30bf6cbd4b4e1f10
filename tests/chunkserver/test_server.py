"""A whole server from outside: its port, its HTTP side, what it tells masters and what it does for them."""

import errno
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from gfschunkserver import chunkfile, copying, reading
from gfschunkserver.files import File, OsFiles
from gfsprotocol import bulk
from gfsprotocol import messages as m
from gfsprotocol.bulksocket import BulkConnection
from gfsprotocol.checksums import BLOCK_BYTES, segment_digests
from gfsprotocol.errors import (
    AddressInUse,
    Busy,
    ChunkCorrupt,
    ChunkNotFound,
    ConfigurationError,
    ConnectionLost,
    DirectoryInUse,
    GfsError,
    RemoteProtocolError,
    ReplicaFailed,
    StaleReplica,
    VersionMismatch,
)
from gfsprotocol.ids import MIB
from gfsprotocol.settings import load
from tests.chunkserver.cluster import Cluster, FakeLeader, Server, Writer, connected, eventually, receive_read

pytestmark = [pytest.mark.slow]

MakeCluster = Callable[..., Cluster]
ExpectedLogs = Callable[..., None]


def write_chunk(cluster: Cluster, chunk: int, data: bytes, servers: list[Server] | None = None) -> None:
    writer = Writer(cluster.grant(chunk, 1, servers))
    for start in range(0, len(data), MIB):
        writer.write(start, data[start : start + MIB], sync=True)
    writer.close()


def damage(server: Server, chunk: int, offset: int) -> None:
    """Flips a bit of a replica's data on the disk."""
    replica = server.server.store.get(chunk)
    with replica.path.open("r+b") as file:
        file.seek(replica.data_offset(offset))
        byte = file.read(1)[0]
        file.seek(replica.data_offset(offset))
        file.write(bytes([byte ^ 1]))


# ------------------------------------------------------------------------------------------------------------- port


GARBAGE = [
    b"\xf6",
    b"\xf6GFSX\0\0\1",
    bulk.PREAMBLE + b"garbage that is no frame",
    bulk.PREAMBLE + bulk.PREFIX.pack(bulk.MAGIC, 20, 0xFFFFFFFF) + bytes(20),
    bulk.PREAMBLE + bulk.PREFIX.pack(bulk.MAGIC, 0xFFFF, 0) + os.urandom(0xFFFF),
    bulk.PREAMBLE + bulk.encode(bulk.CloseWrite()),
    bulk.PREAMBLE + bulk.encode(bulk.Ack(1, 2)),
    bulk.PREAMBLE + bulk.encode(bulk.Read(b"", 1, 1, 0, 1), 5) + b"12345",
    b"GET " + b"x" * 100_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    bytes(1000),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_ends_its_connection_and_touches_nothing_else(
    make_cluster: MakeCluster, garbage: bytes, expected_logs: ExpectedLogs
) -> None:
    expected_logs("closing the connection", "closing a connection")
    cluster = make_cluster(1)
    server = cluster.servers[0]
    before = psutil.Process().memory_info().rss
    with socket.create_connection(("127.0.0.1", server.server.port), 5) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(10)
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert psutil.Process().memory_info().rss - before < 64 * MIB
    write_chunk(cluster, 1, b"still fine")
    assert cluster.read(server, 1) == b"still fine"
    eventually(lambda: server.server.status()["bulk_connections"] == 0)


def test_a_newer_protocol_version_is_told_so(make_cluster: MakeCluster) -> None:
    server = make_cluster(1).servers[0]
    with socket.create_connection(("127.0.0.1", server.server.port), 5) as sock:
        connection = BulkConnection(sock, "server", 5)
        connection.send_bytes([bulk.PREAMBLE[:-1] + b"\x09"])
        with pytest.raises(VersionMismatch):
            connection.receive_reply()


def test_too_many_connections_are_refused_and_come_free_again(
    make_cluster: MakeCluster, expected_logs: ExpectedLogs
) -> None:
    expected_logs("refusing the bulk connection")
    cluster = make_cluster(1, connections_max=4)
    server = cluster.servers[0]
    write_chunk(cluster, 1, b"x")
    eventually(lambda: server.server.status()["bulk_connections"] == 0)
    open_ones = [BulkConnection.connect("127.0.0.1", server.server.port, 5, 5) for _ in range(4)]
    eventually(lambda: server.server.status()["bulk_connections"] == 4)
    with connected(server) as connection, pytest.raises(Busy):
        connection.receive_reply()
    for connection in open_ones:
        connection.close()
    eventually(lambda: server.server.status()["bulk_connections"] == 0)
    assert cluster.read(server, 1) == b"x"


def test_a_port_in_use_and_a_directory_in_use_are_named(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(1)
    server = cluster.servers[0]
    with pytest.raises(AddressInUse, match=str(server.server.port)):
        Server([tmp_path / "other"], [cluster.leader.address], port=server.server.port)
    with pytest.raises(DirectoryInUse, match="disk-0"):
        Server([tmp_path / "disk-0"], [cluster.leader.address])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"masters": ["nonsense"]}, "nonsense"),
        ({"directories": ["a", "a"]}, "twice"),
        ({"log_level": "LOUD"}, "log_level"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_wrong_settings_get_one_line(settings: dict[str, object], complaint: str) -> None:
    from gfschunkserver.config import ChunkServerConfig

    values = {"masters": ["localhost:1"], "directories": ["a"], "secret_file": "s"}
    with pytest.raises(ConfigurationError, match=complaint) as failure:
        load(ChunkServerConfig, flags=values | settings)
    assert "\n" not in failure.value.message


# ------------------------------------------------------------------------------------------------------------ reads


def test_reads_of_all_kinds(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    server = cluster.servers[0]
    data = os.urandom(MIB + 777)
    write_chunk(cluster, 1, data)
    token = cluster.read_token(1)
    with connected(server) as connection:
        for offset, length in ((0, MIB), (65536, 65536), (65536, 10 * MIB), (5, 100), (0, 100), (MIB, 777), (0, 0)):
            for verify in (False, True):
                connection.send(bulk.Read(token, 1, 1, offset, length, verify))
                reply, payload = receive_read(connection)
                assert payload == data[offset : offset + length]
                assert reply.chunk_length == len(data)
                assert (reply.version, reply.inode, reply.index, reply.chunk_bytes) == (1, 7, 3, 64 * MIB)
        for offset in (len(data), len(data) + 5, 10 * MIB):
            connection.send(bulk.Read(token, 1, 1, offset, 10))
            assert receive_read(connection)[1] == b""
        connection.send(bulk.Read(token, 1, 2, 0, 10))
        with pytest.raises(StaleReplica):
            connection.receive_reply()
        connection.send(bulk.Read(cluster.read_token(9), 9, 0, 0, 10))
        with pytest.raises(ChunkNotFound):
            connection.receive_reply()


def http_get(server: Server, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    url = f"http://127.0.0.1:{server.server.port}{path}"
    request = urllib.request.Request(url, headers={name.replace("_", "-"): text for name, text in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read(), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


def test_http_serves_ranges_and_status(make_cluster: MakeCluster, expected_logs: ExpectedLogs) -> None:
    expected_logs("is kept as")
    cluster = make_cluster(1)
    server = cluster.servers[0]
    data = os.urandom(300_000)
    write_chunk(cluster, 0xAB, data)
    token = cluster.read_token(0xAB).hex()
    status, body, headers = http_get(server, f"/chunks/ab?version=1&token={token}")
    assert (status, body, headers["X-Gfs-Version"]) == (200, data, "1")
    status, body, headers = http_get(server, "/chunks/ab", X_Gfs_Token=token, Range="bytes=70000-70009")
    assert (status, body) == (206, data[70000:70010])
    assert headers["Content-Range"] == "bytes 70000-70009/300000"
    assert http_get(server, f"/chunks/ab?token={token}", Range="bytes=-5")[1] == data[-5:]
    assert http_get(server, f"/chunks/ab?token={token}", Range="bytes=300000-")[0] == 416
    assert http_get(server, "/chunks/ab")[0] == 403
    assert http_get(server, "/chunks/ab?token=zz")[0] == 403
    assert http_get(server, f"/chunks/ac?token={token}")[0] == 403
    assert http_get(server, f"/chunks/zz?token={token}")[0] == 400
    assert http_get(server, f"/chunks/ad?token={cluster.read_token(0xAD).hex()}")[0] == 404
    assert http_get(server, f"/chunks/ab?version=2&token={token}")[0] == 503
    assert http_get(server, "/healthz")[:2] == (200, b"ok\n")
    report = json.loads(http_get(server, "/status")[1])
    assert (report["chunks"], report["server"]) == (1, f"{server.id:016x}")
    damage(server, 0xAB, 200_000)
    assert http_get(server, f"/chunks/ab?token={token}")[0] == 503
    assert json.loads(http_get(server, "/status")[1])["corrupt_chunks"] == ["ab"]


def test_a_damaged_replica_is_reported_and_served_no_more(
    make_cluster: MakeCluster, expected_logs: ExpectedLogs
) -> None:
    expected_logs("is kept as")
    cluster = make_cluster(2)
    server = cluster.servers[0]
    data = os.urandom(200_000)
    write_chunk(cluster, 1, data)
    damage(server, 1, 100_000)
    with connected(server) as connection:
        connection.send(bulk.Read(cluster.read_token(1), 1, 1, 0, MIB, verify=True))
        with pytest.raises(ChunkCorrupt):
            connection.receive_reply()
        connection.send(bulk.Read(cluster.read_token(1), 1, 1, 0, 10))
        with pytest.raises(ChunkCorrupt):
            connection.receive_reply()
    eventually(lambda: (server.id, 1) in cluster.leader.corrupt)
    assert cluster.read(cluster.servers[1], 1) == data


def test_damage_under_a_writer_drops_this_replica_only(make_cluster: MakeCluster, expected_logs: ExpectedLogs) -> None:
    expected_logs("is kept as")
    cluster = make_cluster(2)
    write_chunk(cluster, 1, b"x" * 1000)
    damage(cluster.servers[1], 1, 5)
    writer = Writer(cluster.grant(1, 1))
    writer.send_write(100, b"y")
    with pytest.raises(ReplicaFailed) as failure:
        writer.ack()
    assert failure.value.hint == str(cluster.servers[1].id)
    writer.abandon()
    eventually(lambda: (cluster.servers[1].id, 1) in cluster.leader.corrupt)


def test_a_chunk_that_is_cut_and_grows_again_while_it_is_read_is_not_damaged(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(1)
    server = cluster.servers[0]
    data = os.urandom(3 * BLOCK_BYTES)
    write_chunk(cluster, 1, data)
    replica = server.server.store.get(1)
    send_file = reading.send_file

    def send_while_it_is_written(connection: BulkConnection, descriptor: int, offset: int, count: int) -> int:
        sent = send_file(connection, descriptor, offset, count - BLOCK_BYTES)
        replica.cut(2 * BLOCK_BYTES, sync=False)
        sent += send_file(connection, descriptor, offset + sent, BLOCK_BYTES)
        replica.put(2 * BLOCK_BYTES, data[:BLOCK_BYTES], segment_digests(0, data[:BLOCK_BYTES]), sync=False)
        return sent

    monkeypatch.setattr(reading, "send_file", send_while_it_is_written)
    with connected(server) as connection, pytest.raises(ConnectionLost):
        connection.send(bulk.Read(cluster.read_token(1), 1, 1, 0, MIB))
        receive_read(connection)
    monkeypatch.undo()
    assert server.server.store.corrupt_chunks() == set()
    assert cluster.read(server, 1) == data[: 2 * BLOCK_BYTES] + data[:BLOCK_BYTES]


@pytest.mark.parametrize(("call", "blocks"), [("pread", 1), ("sendfile", 2)])
def test_a_bad_sector_under_a_read_is_damage_and_not_the_readers_fault(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs, call: str, blocks: int
) -> None:
    expected_logs("is kept as")
    cluster = make_cluster(1)
    server = cluster.servers[0]
    write_chunk(cluster, 1, os.urandom(blocks * BLOCK_BYTES))

    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with connected(server) as connection, pytest.raises(ConnectionLost):
        connection.send(bulk.Read(cluster.read_token(1), 1, 1, 0, blocks * BLOCK_BYTES))
        receive_read(connection)
    eventually(lambda: (server.id, 1) in cluster.leader.corrupt)


def test_a_reader_that_takes_nothing_does_not_keep_others_from_large_verified_reads(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGE_READ_WAIT_SECONDS", 0.1, raising=False)
    cluster = make_cluster(1)
    server = cluster.servers[0]
    data = os.urandom(16 * MIB)
    write_chunk(cluster, 1, data)
    request = bulk.Read(cluster.read_token(1), 1, 1, 0, 16 * MIB, verify=True)
    with connected(server) as stalled, connected(server) as connection:
        stalled.send(request)
        first = memoryview(bytearray(1))
        stalled.receive_into(first)
        connection.set_timeout(5)
        connection.send(request)
        with pytest.raises(Busy):
            receive_read(connection)
    assert cluster.read(server, 1, verify=True) == data


@pytest.mark.parametrize("nested", [b"\x91" * 60_000 + b"\xc0", b"\x81\xc0" * 30_000 + b"\xc0"])
def test_a_deeply_nested_header_is_no_frame(nested: bytes) -> None:
    for decode, tag in ((bulk.decode_request, b"\x03"), (bulk.decode_reply, b"\x16")):
        with pytest.raises(RemoteProtocolError):
            decode(b"\x92" + tag + nested)


# ---------------------------------------------------------------------------------------------------------- masters


@pytest.fixture
def second_leader() -> Iterator[FakeLeader]:
    leader = FakeLeader(epoch=0)
    yield leader
    leader.stop()


def test_all_masters_hear_everything(make_cluster: MakeCluster, second_leader: FakeLeader, tmp_path: Path) -> None:
    cluster = make_cluster(0)
    server = Server([tmp_path / "d"], [cluster.leader.address, second_leader.address])
    cluster.servers.append(server)
    cluster.wait_registered(server)
    write_chunk(cluster, 5, b"hello")
    leaders = (cluster.leader, second_leader)
    eventually(lambda: all(leader.stored.get(server.id, {}).get(5) == (1, 5) for leader in leaders))
    cluster.leader.report_again.add(server.id)
    eventually(lambda: len(cluster.leader.registered) >= 2 and cluster.leader.reports[server.id] == {5: (1, 5)})


def test_a_server_restarts_with_what_it_had(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    write_chunk(cluster, 3, b"abc")
    server = cluster.servers[0]
    identity = server.id
    server.stop()
    cluster.servers[0] = cluster.start_server(0)
    cluster.wait_registered(cluster.servers[0])
    register = cluster.leader.registered[-1]
    assert (register.server, register.cluster, register.highest_epoch) == (identity, cluster.leader.cluster, 1)
    assert register.highest_chunk == 3
    eventually(lambda: cluster.leader.reports[identity] == {3: (1, 3)})
    assert cluster.read(cluster.servers[0], 3) == b"abc"


def test_a_master_of_another_cluster_is_not_obeyed(make_cluster: MakeCluster, expected_logs: ExpectedLogs) -> None:
    expected_logs("not obeying the master")
    cluster = make_cluster(1)
    cluster.servers[0].stop()
    foreign = FakeLeader(cluster=b"another-cluster!", epoch=9)
    try:
        server = Server([cluster.root / "disk-0"], [foreign.address])
        eventually(lambda: foreign.registered)
        eventually(lambda: not server.server._reporter.masters()[foreign.address]["connected"])
        assert server.server.store.highest_epoch == 1
        assert foreign.heartbeats == 0
        server.stop()
    finally:
        foreign.stop()


def test_orders_of_an_epoch_that_is_over_are_refused(make_cluster: MakeCluster, expected_logs: ExpectedLogs) -> None:
    expected_logs("refusing the orders", "is over")
    cluster = make_cluster(1)
    server = cluster.servers[0]
    write_chunk(cluster, 1, b"keep me")
    server.server.store.obey(5)
    before = cluster.leader.heartbeats
    cluster.leader.orders[server.id] = [m.DeleteOrder(1, 1, 9)]
    eventually(lambda: server.id not in cluster.leader.orders and cluster.leader.heartbeats > before + 2)
    assert cluster.leader.finished == {}
    assert cluster.read(server, 1) == b"keep me"


def test_deletion_spares_newer_replicas_and_running_writes(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    server = cluster.servers[0]
    write_chunk(cluster, 1, b"old")
    writer = Writer(cluster.grant(2, 1))
    writer.write(0, b"busy")
    newer = Writer(cluster.grant(3, 4))
    newer.write(0, b"newer")
    newer.close()
    orders = [m.DeleteOrder(chunk + 10, chunk, 3) for chunk in (1, 2, 3, 4)]
    cluster.leader.orders[server.id] = list(orders)
    eventually(lambda: len(cluster.leader.finished) == 4)
    finished = cluster.leader.finished
    assert (finished[11], finished[14]) == ("", "")
    assert "being written" in finished[12]
    assert "newer" in finished[13]
    eventually(lambda: (server.id, 1) in cluster.leader.dropped)
    assert server.server.store.chunks() == [2, 3]
    assert not server.server.store.disks[0].layout.chunk_file(1).exists()
    writer.close()


def test_a_replica_is_copied_verified_and_reported(make_cluster: MakeCluster, expected_logs: ExpectedLogs) -> None:
    expected_logs("cannot be copied from", "is kept as")
    cluster = make_cluster(3)
    first, second, target = cluster.servers
    data = os.urandom(3 * MIB + 5)
    write_chunk(cluster, 1, data, [first, second])
    write_chunk(cluster, 2, b"", [first])
    damage(first, 1, 2 * MIB)
    sources = (first.address, second.address)
    cluster.leader.orders[target.id] = [
        m.ReplicateOrder(1, 1, 1, sources, cluster.read_token(1)),
        m.ReplicateOrder(2, 2, 1, (first.address,), cluster.read_token(2)),
        m.ReplicateOrder(3, 3, 1, sources, cluster.read_token(3)),
    ]
    eventually(lambda: len(cluster.leader.finished) == 3)
    assert cluster.leader.finished[1] == ""
    assert cluster.leader.finished[2] == ""
    assert "no replica" in cluster.leader.finished[3]
    eventually(lambda: cluster.leader.stored.get(target.id, {}).get(1) == (1, len(data)))
    assert cluster.read(target, 1) == data
    replica = target.server.store.get(1)
    assert (replica.state.inode, replica.state.index) == (7, 3)
    assert not list(target.server.store.disks[0].layout.chunks.rglob("*.copy"))
    # A copy that takes the place of a stale replica.
    writer = Writer(cluster.grant(1, 2, [second], base_version=1))
    writer.write(0, b"newer")
    writer.close()
    cluster.leader.orders[target.id] = [m.ReplicateOrder(4, 1, 2, (second.address,), cluster.read_token(1))]
    eventually(lambda: cluster.leader.finished.get(4) == "")
    target.stop()
    cluster.servers[2] = cluster.start_server(2)
    assert cluster.read(cluster.servers[2], 1) == b"newer" + data[5:]


def test_two_orders_for_a_copy_of_the_same_chunk_do_not_write_one_file(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    """As two leaders give them, one after the other, while the first copy is still being made."""
    cluster = make_cluster(2)
    source, target = cluster.servers
    data = os.urandom(3 * MIB)
    write_chunk(cluster, 1, data, [source])
    begun, go_on = threading.Event(), threading.Event()
    read = copying._Pull._read

    def read_slowly(pull: copying._Pull, offset: int, buffer: memoryview) -> tuple[bulk.ReadReply, memoryview]:
        if offset == 2 * MIB and not begun.is_set():
            begun.set()
            assert go_on.wait(20)
        elif offset == MIB and begun.is_set():
            raise ConnectionLost("the source of the second copy is gone")
        return read(pull, offset, buffer)

    monkeypatch.setattr(copying._Pull, "_read", read_slowly)
    expected_logs("cannot be copied from")
    cluster.leader.orders[target.id] = [m.ReplicateOrder(1, 1, 1, (source.address,), cluster.read_token(1))]
    assert begun.wait(20)
    cluster.leader.orders[target.id] = [m.ReplicateOrder(2, 1, 1, (source.address,), cluster.read_token(1))]
    eventually(lambda: 2 in cluster.leader.finished)
    assert "is being copied" in cluster.leader.finished[2]
    go_on.set()
    eventually(lambda: cluster.leader.finished.get(1) == "")
    assert cluster.read(target, 1) == data


def test_orders_of_two_leaders_are_not_taken_for_one_another(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leader numbers its orders from the beginning."""
    cluster = make_cluster(2)
    source, target = cluster.servers
    for chunk in (1, 2):
        write_chunk(cluster, chunk, bytes([chunk]), [source])
    begun, go_on = threading.Event(), threading.Event()
    read = copying._Pull._read

    def read_slowly(pull: copying._Pull, offset: int, buffer: memoryview) -> tuple[bulk.ReadReply, memoryview]:
        if pull._order.chunk == 1:
            begun.set()
            assert go_on.wait(20)
        return read(pull, offset, buffer)

    monkeypatch.setattr(copying._Pull, "_read", read_slowly)
    cluster.leader.orders[target.id] = [m.ReplicateOrder(1, 1, 1, (source.address,), cluster.read_token(1))]
    assert begun.wait(20)
    cluster.leader.epoch = 2
    cluster.leader.orders[target.id] = [m.ReplicateOrder(1, 2, 1, (source.address,), cluster.read_token(2))]
    try:
        eventually(lambda: cluster.leader.stored.get(target.id, {}).get(2) == (1, 1))
        assert cluster.leader.finished.pop(1) == ""
    finally:
        go_on.set()
    before = cluster.leader.heartbeats
    eventually(lambda: cluster.leader.stored.get(target.id, {}).get(1) == (1, 1))
    eventually(lambda: cluster.leader.heartbeats > before + 5)
    assert cluster.leader.finished == {}


def test_a_verify_order_finds_damage_and_the_copy_replaces_it(
    make_cluster: MakeCluster, expected_logs: ExpectedLogs
) -> None:
    expected_logs("is kept as")
    cluster = make_cluster(2)
    server, other = cluster.servers
    data = os.urandom(500_000)
    write_chunk(cluster, 1, data)
    write_chunk(cluster, 2, data)
    damage(server, 1, 400_000)
    cluster.leader.orders[server.id] = [m.VerifyOrder(1, 1), m.VerifyOrder(2, 2), m.VerifyOrder(3, 3)]
    eventually(lambda: len(cluster.leader.finished) == 3)
    assert "does not match" in cluster.leader.finished[1]
    assert cluster.leader.finished[2] == ""
    assert "no replica" in cluster.leader.finished[3]
    eventually(lambda: (server.id, 1) in cluster.leader.corrupt)
    cluster.leader.orders[server.id] = [m.ReplicateOrder(4, 1, 1, (other.address,), cluster.read_token(1))]
    eventually(lambda: cluster.leader.finished.get(4) == "")
    assert cluster.read(server, 1) == data
    assert server.server.store.corrupt_chunks() == set()


def test_the_scrubber_finds_damage_by_itself(make_cluster: MakeCluster, expected_logs: ExpectedLogs) -> None:
    expected_logs("is kept as")
    cluster = make_cluster(1)
    write_chunk(cluster, 1, os.urandom(300_000))
    write_chunk(cluster, 2, os.urandom(300_000))
    damage(cluster.servers[0], 2, 299_999)
    cluster.servers[0].stop()
    cluster.servers[0] = cluster.start_server(0, scrub_bytes_per_second=64 * MIB)
    eventually(lambda: (cluster.servers[0].id, 2) in cluster.leader.corrupt)
    assert cluster.servers[0].server.store.chunks() == [1]


def test_reads_go_on_while_there_is_no_leader(make_cluster: MakeCluster, expected_logs: ExpectedLogs) -> None:
    cluster = make_cluster(1)
    writer = Writer(cluster.grant(1, 1))
    writer.write(0, b"one")
    token = cluster.read_token(1)
    cluster.leader.stop()
    writer.write(3, b" two")
    writer.close()
    with connected(cluster.servers[0]) as connection:
        connection.send(bulk.Read(token, 1, 1, 0, 100))
        assert receive_read(connection)[1] == b"one two"
    cluster.leader = FakeLeader()


def test_memory_stays_bounded_with_dozens_of_sessions(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    before = psutil.Process().memory_info().rss
    writers = [Writer(cluster.grant(chunk, 1)) for chunk in range(1, 41)]
    data = os.urandom(MIB)
    for start in range(0, 4 * MIB, MIB):
        for writer in writers:
            writer.send_write(start, data)
        for writer in writers:
            writer.ack()
    assert psutil.Process().memory_info().rss - before < 150 * MIB
    for writer in writers:
        writer.close()


def test_a_journal_that_is_full_is_checkpointed_while_writes_go_on(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1, journal_segment_bytes=64 * 1024)
    server = cluster.servers[0]
    for chunk in range(1, 30):
        write_chunk(cluster, chunk, bytes([chunk]) * 20_000)
    journal = server.server.store.disks[0].layout.journal
    eventually(lambda: len(list(journal.iterdir())) <= 2)
    path = server.server.store.get(1).path
    header = chunkfile.decode_header(path.read_bytes()[: chunkfile.HEADER_BYTES])
    assert (header.chunk, header.length) == (1, 20_000)
    for chunk in range(1, 30):
        assert cluster.read(server, chunk) == bytes([chunk]) * 20_000


def test_stopping_ends_all_sessions_soon(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    writer = Writer(cluster.grant(1, 1))
    writer.write(0, b"kept", sync=True)
    with connected(cluster.servers[0]) as idle:
        began = time.monotonic()
        cluster.servers[0].stop()
        assert time.monotonic() - began < 5
        with pytest.raises(ConnectionLost):
            idle.receive_reply()
    with pytest.raises(GfsError):
        writer.write(4, b"lost")
    writer.abandon()


def test_stopping_while_an_order_is_carried_out_touches_its_task_on_the_loop_only(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks come and go there: looking at them from another thread could end the stop in its middle."""
    cluster = make_cluster(2)
    source, target = cluster.servers
    write_chunk(cluster, 1, b"x", [source])
    begun, go_on = threading.Event(), threading.Event()
    read, shutdown = copying._Pull._read, ThreadPoolExecutor.shutdown

    def read_slowly(pull: copying._Pull, offset: int, buffer: memoryview) -> tuple[bulk.ReadReply, memoryview]:
        begun.set()
        assert go_on.wait(20)
        return read(pull, offset, buffer)

    def shutdown_and_go_on(executor: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        go_on.set()
        shutdown(executor, wait, cancel_futures=cancel_futures)

    monkeypatch.setattr(copying._Pull, "_read", read_slowly)
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown_and_go_on)
    cluster.leader.orders[target.id] = [m.ReplicateOrder(1, 1, 1, (source.address,), cluster.read_token(1))]
    assert begun.wait(20)
    target._thread.loop.slow_callback_duration = 60.0
    target._thread.loop.set_debug(True)
    try:
        target.stop()
    finally:
        go_on.set()


class _SlowFiles(OsFiles):
    """A disk on which opening a chunk takes as long as the test wants."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def open(self, path: Path, create: bool = False) -> File:
        if path.suffix == ".chunk" and not create:
            self.begun.set()
            assert self.go_on.wait(20)
        return super().open(path, create)


def test_a_slow_disk_does_not_keep_the_server_from_its_heartbeats(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    write_chunk(cluster, 1, b"slow")
    cluster.servers[0].stop()
    files = _SlowFiles()
    files.go_on.set()
    server = cluster.servers[0] = cluster.start_server(0, files=files)
    cluster.wait_registered(server)
    files.begun.clear()
    files.go_on.clear()
    with connected(server) as connection:
        connection.send(bulk.Read(cluster.read_token(1), 1, 1, 0, 10))
        assert files.begun.wait(20)
        before = cluster.leader.heartbeats
        try:
            eventually(lambda: cluster.leader.heartbeats > before + 5)
        finally:
            files.go_on.set()
        assert receive_read(connection)[1] == b"slow"


def test_a_thread_that_cannot_be_started_costs_one_connection(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    expected_logs("refusing the bulk connection")
    cluster = make_cluster(1)
    server = cluster.servers[0]
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith("bulk"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    with connected(server) as connection, pytest.raises(Busy):
        connection.receive_reply()
    monkeypatch.undo()
    assert server.server.status()["bulk_connections"] == 0
    write_chunk(cluster, 1, b"x")


def test_an_order_that_fails_unexpectedly_is_answered(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    expected_logs("an order failed")
    cluster = make_cluster(1)
    server = cluster.servers[0]

    def fail(*_arguments: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("gfschunkserver.orders.copy_chunk", fail)
    monkeypatch.setattr(server.server._orders, "_delete_all", fail)
    cluster.leader.orders[server.id] = [m.ReplicateOrder(1, 1, 1, (), b""), m.DeleteOrder(2, 2, 1)]
    eventually(lambda: len(cluster.leader.finished) == 2)
    assert all("a bug" in error for error in cluster.leader.finished.values())
    assert server.server._orders._running == set()
