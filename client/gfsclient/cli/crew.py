"""A bounded number of transfers at a time, so that many small files do not wait for each other's round trips."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self

TRANSFERS_MAX: Final = 8


class Crew:
    """Runs up to ``size`` pieces of work at once; leaving the context waits for all, or cancels them on an error."""

    def __init__(self, size: int = TRANSFERS_MAX) -> None:
        self._free = asyncio.Semaphore(size)
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group  # one reason is enough: the others are its consequence

    async def take(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts ``work`` as soon as there is a free hand."""
        try:
            await self._free.acquire()
        except BaseException:
            work.close()  # or Python complains that nobody awaited it
            raise

        async def run() -> None:
            try:
                await work
            finally:
                self._free.release()

        self._group.create_task(run())
