"""Small files whose first chunk comes with their creation."""

import time

import pytest

from gfsclient.leases import FirstLease


@pytest.mark.parametrize("size", [1, 4096, 3 << 20])
async def test_a_small_file_asks_for_no_chunk(small_cluster, tmp_path, size):
    cluster = await small_cluster()
    asked = cluster.questions()
    data = b"x" * size
    await cluster.files.write_bytes("/bytes", data)
    (tmp_path / "file").write_bytes(data)
    await cluster.files.put_file(tmp_path / "file", "/file")
    await cluster.files.put_file(tmp_path / "file", "/file", overwrite=True)
    assert asked == []
    assert await cluster.files.read_bytes("/bytes") == await cluster.files.read_bytes("/file") == data


async def test_an_empty_file_gets_no_chunk(small_cluster, tmp_path):
    cluster = await small_cluster()
    (tmp_path / "file").touch()
    await cluster.files.put_file(tmp_path / "file", "/file")
    await cluster.files.write_bytes("/bytes", b"")
    assert len(cluster.harness.leader.state.chunks) == 0
    handle = await cluster.files.open_handle(b"/unused", "wb", allocate=True)
    assert len(cluster.harness.leader.state.chunks) == 1
    await cluster.files._core.in_thread(handle.close)
    assert len(cluster.harness.leader.state.chunks) == 0


async def test_a_lease_that_ended_unused_is_asked_for_anew(small_cluster):
    cluster = await small_cluster()
    asked = cluster.questions()
    handle = await cluster.files.open_handle(b"/a", "wb", allocate=True)
    in_thread = cluster.files._core.in_thread
    first = handle._writer._first
    handle._writer._first = FirstLease(first.lease, time.monotonic() - 3600)
    await in_thread(handle.write, b"data")
    await in_thread(handle.close)
    assert asked
    assert await cluster.files.read_bytes("/a") == b"data"


async def test_a_server_that_failed_lately_is_avoided_from_the_first_chunk_on(small_cluster):
    cluster = await small_cluster(servers=4)
    cluster.files._core.servers.failed_write(2)
    asked = cluster.questions()
    await cluster.files.write_bytes("/a", b"data")
    assert [body.excluded for body in asked] == [(2,)]
    assert not cluster.fleet.servers[2].requests


async def test_a_truncated_file_does_not_use_the_chunk_it_came_with(small_cluster):
    cluster = await small_cluster()
    handle = await cluster.files.open_handle(b"/a", "wb", allocate=True)
    in_thread = cluster.files._core.in_thread
    await in_thread(handle.truncate, 0)
    await in_thread(handle.write, b"data")
    await in_thread(handle.close)
    assert await cluster.files.read_bytes("/a") == b"data"
