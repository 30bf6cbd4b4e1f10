"""The operation log as the master nodes see it: asynchronous, so that a simulation can put its own in its place.

:class:`Journal` is the seam. :class:`ThreadedJournal` is the real one: one thread over an
:class:`~gfsmaster.oplog.OperationLog`, so no two calls of a node ever overlap in the database.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

from gfsmaster.checkpoints import Restored
from gfsmaster.oplog import Batch, Leadership, OperationLog

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Journal(Protocol):
    """Log and leadership. Errors as :class:`~gfsmaster.oplog.OperationLog` has them."""

    async def restore(self, after: int) -> Restored | None:
        """A checkpoint from which to go on, if the log itself does not lead on from record ``after``, or from 0."""

    async def leadership(self) -> Leadership:
        """Who leads now."""

    async def campaign(self, seen: Leadership, address: str) -> Leadership | None:
        """Takes the next epoch if nothing has changed since ``seen``; None if something has."""

    async def renew(self, epoch: int) -> None:
        """A sign of life of the leader."""

    async def append(self, batch: Batch) -> None:
        """Makes a batch durable, if its epoch still leads."""

    async def resign(self, epoch: int, successor: str) -> None:
        """A planned end, in favour of the node ``successor`` if one is named."""

    async def read(self, after: int, previous: bytes) -> list[Batch]:
        """Some of the batches that follow record ``after``, checked against the chain; none if there are none."""


class ThreadedJournal:
    """An operation log behind a thread of its own."""

    def __init__(self, log: OperationLog) -> None:
        self.log = log
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="journal")

    async def run(
        self, function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        """Calls a method of the log in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*arguments, **named))

    def close(self) -> None:
        """Waits for the call that is running, if there is one."""
        self._executor.shutdown()
        self.log.close()

    async def restore(self, after: int) -> Restored | None:
        return await self.run(self.log.restore, after)

    async def leadership(self) -> Leadership:
        return await self.run(self.log.leadership)

    async def campaign(self, seen: Leadership, address: str) -> Leadership | None:
        return await self.run(self.log.campaign, seen, address)

    async def renew(self, epoch: int) -> None:
        await self.run(self.log.renew, epoch)

    async def append(self, batch: Batch) -> None:
        await self.run(self.log.append, batch)

    async def resign(self, epoch: int, successor: str) -> None:
        await self.run(self.log.resign, epoch, successor)

    async def read(self, after: int, previous: bytes) -> list[Batch]:
        return await self.run(self.log.read, after, previous)
