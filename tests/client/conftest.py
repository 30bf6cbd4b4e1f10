"""The small cluster as a fixture."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from tests.client.smallcluster import SmallCluster, running


@pytest.fixture
async def small_cluster() -> AsyncIterator[Callable[..., Awaitable[SmallCluster]]]:
    """A factory: ``await small_cluster(servers=3, chunk_bytes=..., **client settings)``."""
    async with AsyncExitStack() as stack:

        async def make(**options: object) -> SmallCluster:
            return await stack.enter_async_context(running(**options))  # type: ignore[arg-type]

        yield make
