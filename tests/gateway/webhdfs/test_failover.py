"""The leading master dies in the middle of what a client of HDFS does; the client does not notice."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from tests.cluster.harness import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.long]

MIB = 1024 * 1024


async def test_a_master_dies_while_a_file_is_made_appended_to_and_read(cluster: Callable[..., Cluster]) -> None:
    running = cluster(masters=2, chunkservers=2, gateways=1, master={"lease_seconds": 0.5, "chunk_bytes": MIB})
    data = os.urandom(24 * MIB)
    async with aiohttp.ClientSession(running.gateway_url()) as http:

        async def body() -> AsyncIterator[bytes]:
            for start in range(0, len(data), MIB):
                if start == 8 * MIB:
                    await _replace_leader(running)
                yield data[start : start + MIB]

        async with http.put("/webhdfs/v1/d/file?op=CREATE&data=true", data=body()) as response:
            assert response.status == 201, await response.text()
        async with http.post("/webhdfs/v1/d/file?op=APPEND&data=true", data=body()) as response:
            assert response.status == 200, await response.text()
        got = bytearray()
        async with http.get("/webhdfs/v1/d/file?op=OPEN") as response:
            assert response.status == 200
            async for piece in response.content.iter_chunked(MIB):
                if len(got) < 4 * MIB <= len(got) + len(piece):
                    await _replace_leader(running)
                got += piece
        assert got == data + data
        renaming = asyncio.create_task(_rename(http))
        await _replace_leader(running)
        assert await renaming == {"boolean": True}


async def _rename(http: aiohttp.ClientSession) -> object:
    """A retry inside would find nothing to rename, and say false, if it were not known for the same call."""
    async with http.put("/webhdfs/v1/d/file?op=RENAME&destination=/d/renamed") as response:
        return await response.json()


async def _replace_leader(running: Cluster) -> None:
    """Kills the master that leads, and starts it again when another does."""

    def replace() -> None:
        status = running.status()
        leader = next(master["node"] for master in status["masters"] if master.get("role") == "leader")
        running.kill(leader)
        running.wait_for("another leader", lambda now: _leads_another(now, leader))
        running.restart(leader)
        running.wait_for("two masters", lambda now: sum("role" in master for master in now["masters"]) == 2)

    await asyncio.to_thread(replace)


def _leads_another(status: dict[str, object], old: str) -> bool:
    masters = status.get("masters")
    return isinstance(masters, list) and any(
        master.get("role") == "leader" and master.get("node") != old for master in masters
    )
