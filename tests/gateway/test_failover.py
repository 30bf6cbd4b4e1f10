"""The leading master dies in the middle of an upload and of a download; the client over HTTP does not notice."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from tests.cluster.harness import Cluster
from tests.gateway.web import ask

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

MIB = 1024 * 1024


async def test_neither_an_upload_nor_a_download_notices(cluster: Callable[..., Cluster]) -> None:
    running = cluster(masters=3, chunkservers=2, gateways=1, master={"lease_seconds": 0.5, "chunk_bytes": MIB})
    data = os.urandom(24 * MIB)
    async with aiohttp.ClientSession(running.gateway_url()) as http:
        killed = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            for start in range(0, len(data), MIB):
                if start == 8 * MIB:
                    await _kill_leader(running)
                    killed.set()
                yield data[start : start + MIB]

        made = await ask(http, "PUT", "/v1/files/file", data=body())
        assert made.status == 201 and killed.is_set()
        got = bytearray()
        async with http.get("/v1/files/file") as response:
            assert response.status == 200
            async for piece in response.content.iter_chunked(MIB):
                if len(got) < 4 * MIB <= len(got) + len(piece):
                    await _kill_leader(running)
                got += piece
        assert got == data
        assert (await ask(http, "PUT", "/v1/files/after", data=b"x")).status == 201


async def _kill_leader(running: Cluster) -> None:
    status = await asyncio.to_thread(running.status)
    leader = next(master["node"] for master in status["masters"] if master.get("role") == "leader")
    await asyncio.to_thread(running.kill, leader)
