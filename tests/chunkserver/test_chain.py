"""Writes through a chain of real servers."""

import os
import random
import threading
from collections.abc import Callable

import pytest

from gfsprotocol.errors import ChunkFull, GfsError, LeaseLost, ReplicaFailed, TokenRefused
from gfsprotocol.ids import KIB, MIB
from tests.chunkserver.cluster import Cluster, Server, Writer, connected, eventually, receive_read

MakeCluster = Callable[..., Cluster]


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
    assert cluster.leader.confirmed[0].version == 1
    for server in cluster.servers:
        eventually(lambda server=server: cluster.leader.stored.get(server.id, {}).get(0x10) == (1, len(data)))
