"""One cluster with two gateways for all tests of the gateway, and gateways in this process for special settings."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gfsgateway.config import GatewayConfig
from gfsgateway.process import GatewayProcess
from tests.cluster.harness import Cluster

READY_SECONDS = 30.0


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one master, two chunk servers and two gateways."""
    made = Cluster(tmp_path_factory.mktemp("gateway") / "cluster", masters=1, chunkservers=2, gateways=2)
    try:
        made.up()
        yield made
    finally:
        made.stop()


@pytest.fixture
async def http(served: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the first gateway; addresses begin with a slash."""
    async with aiohttp.ClientSession(served.gateway_url()) as session:
        yield session


_numbers = itertools.count(1)


@pytest.fixture
async def place(http: aiohttp.ClientSession) -> str:
    """A fresh directory; its path."""
    path = f"/test-{next(_numbers)}"
    async with http.put(f"/v1/directories{path}") as response:
        assert response.status == 201, await response.text()
    return path


@pytest.fixture
async def own_gateway(served: Cluster) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Starts gateways in this process, with settings of their own; gives the address of each."""
    async with asyncio.TaskGroup() as group:
        started: list[GatewayProcess] = []

        async def start(**settings: Any) -> str:
            config = GatewayConfig(client_file=served.layout.client_file, port=0, **settings)
            process = GatewayProcess(config)
            started.append(process)
            group.create_task(process.run())
            return await _ready(process, "https" if "tls_certificate" in settings else "http")

        yield start
        for process in started:
            process.stop()


async def _ready(process: GatewayProcess, scheme: str) -> str:
    deadline = asyncio.get_running_loop().time() + READY_SECONDS
    async with aiohttp.ClientSession() as session:
        while True:
            base = f"{scheme}://127.0.0.1:{process.port}"
            try:
                if process.port:
                    async with session.get(f"{base}/readyz", ssl=False) as response:
                        if response.status == 200:
                            return base
            except aiohttp.ClientError as error:
                assert asyncio.get_running_loop().time() < deadline, error
            assert asyncio.get_running_loop().time() < deadline, "the gateway is not ready in time"
            await asyncio.sleep(0.02)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """What a gateway's tokens are signed with."""
    file = tmp_path / "gateway-secret"
    file.write_text("ab" * 32)
    file.chmod(0o600)
    return file
