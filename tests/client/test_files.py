"""Files go in and come out as they were."""

import os

from tests.client.conftest import CHUNK_BYTES


async def test_a_small_file_comes_back(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/a", b"hello")
    assert await cluster.files.read_bytes("/a") == b"hello"
    assert (await cluster.files.stat("/a")).size == 5


async def test_a_small_file_takes_one_round_trip_to_the_primary(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/a", b"hello")
    requests = [type(r).__name__ for server in cluster.fleet.servers.values() for r in server.requests]
    assert requests == ["OpenWrite", "Mutate", "CloseWrite"]


async def test_a_file_of_several_chunks_comes_back(small_cluster):
    cluster = await small_cluster()
    data = os.urandom(CHUNK_BYTES * 3 + 12345)
    await cluster.files.write_bytes("/big", data)
    assert await cluster.files.read_bytes("/big") == data
    async with await cluster.files.open("/big") as file:
        pieces = []
        while piece := await file.read(100_000):
            pieces.append(piece)
    assert b"".join(pieces) == data
