"""Many at once, and much at once: every byte comes, in bounded memory of the gateway."""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from blake3 import blake3

from bench.cluster import resident_bytes
from gfsprotocol.ids import GIB, MIB
from loadtests.content import content
from tests.cluster.harness import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

MEMORY_BYTES_MAX = 200 * MIB
MEMORY_BYTES_MAX_OF_MANY = 350 * MIB
"""Up to 128 of them move at a time, each with a packet or two, and the others have begun to come."""
FILES = 8
PATIENCE = aiohttp.ClientTimeout(total=None, sock_read=300)


@pytest.fixture
def running(cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster that keeps one copy, so that the disk is not what is tested."""
    return cluster(masters=1, chunkservers=2, replication=1, gateways=1)


def _peak(running: Cluster) -> int:
    return resident_bytes(running.record("gateway-1").pid)


def _session(running: Cluster) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(running.gateway_url(), connector=connector, timeout=PATIENCE)


async def _put(http: aiohttp.ClientSession, name: str) -> None:
    async with http.put(f"/v1/files/{name}", data=_pieces(name, MIB)) as response:
        assert response.status == 201, await response.text()


async def _get(http: aiohttp.ClientSession, name: str) -> None:
    async with http.get(f"/v1/files/{name}") as response:
        assert response.status == 200, await response.text()
        assert await response.read() == content(name, MIB)


async def _pieces(name: str, count: int) -> AsyncIterator[bytes]:
    for offset in range(0, count, MIB):
        yield content(name, min(MIB, count - offset), offset)


@pytest.mark.parametrize(
    ("downloads", "uploads"),
    [pytest.param(100, 40, id="some"), pytest.param(500, 200, id="all", marks=pytest.mark.long)],
)
async def test_many_at_once(running: Cluster, downloads: int, uploads: int) -> None:
    async with _session(running) as http:
        await asyncio.gather(*(_put(http, f"source-{number}") for number in range(FILES)))
        await asyncio.gather(*(_get(http, f"source-{number % FILES}") for number in range(downloads)))
        print(f"peak memory of the gateway after downloads: {_peak(running) / MIB:.0f} MiB")
        await asyncio.gather(*(_put(http, f"new-{number}") for number in range(uploads)))
        for first in range(0, uploads, FILES):
            await asyncio.gather(*(_get(http, f"new-{number}") for number in range(first, min(first + FILES, uploads))))
    print(f"peak memory of the gateway: {_peak(running) / MIB:.0f} MiB")
    assert _peak(running) < MEMORY_BYTES_MAX_OF_MANY


@pytest.mark.parametrize(
    "size", [pytest.param(320 * MIB, id="320 MiB"), pytest.param(10 * GIB, id="10 GiB", marks=pytest.mark.long)]
)
async def test_a_large_file_up_and_down(running: Cluster, size: int) -> None:
    async with _session(running) as http:
        async with http.put("/v1/files/large", data=_pieces("large", size)) as response:
            assert response.status == 201, await response.text()
        hasher, expected = blake3(), blake3()
        async with http.get("/v1/files/large") as response:
            assert (response.status, response.content_length) == (200, size)
            async for piece in response.content.iter_chunked(MIB):
                hasher.update(piece)
    for offset in range(0, size, MIB):
        expected.update(content("large", MIB, offset))
    assert hasher.digest() == expected.digest()
    print(f"peak memory of the gateway: {_peak(running) / MIB:.0f} MiB")
    assert _peak(running) < MEMORY_BYTES_MAX
