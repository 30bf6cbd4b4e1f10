"""The operation log as the master nodes see it: asynchronous, so that a simulation can put its own in its place.

:class:`Journal` is the seam. :class:`ThreadedJournal` is the real one: one thread over an
:class:`~gfsmaster.oplog.OperationLog`, so no two calls of a node ever overlap in the database.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar

from gfsmaster.checkpoints import Restored
from gfsmaster.oplog import Batch, Leadership, OperationLog
from gfsprotocol.errors import LogFailed

CALL_SECONDS: Final = 6.0
"""How long a call may take, from being asked for: longer than the database waits for locks, to hear its own reason."""
INTERRUPTED_SECONDS: Final = 1.0
"""How long a call may take to end when its connections were shut."""
CLOSE_SECONDS: Final = 1.0
RESTORE_SECONDS: Final = 600.0
"""How long it may take to read a checkpoint, which is many calls of the database; no one waits for who starts."""

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

    async def append(self, batch: Batch, previous: bytes) -> None:
        """Makes a batch durable, if its epoch still leads and it follows on the one with the hash ``previous``."""

    async def resign(self, epoch: int, successor: str) -> None:
        """A planned end, in favour of the node ``successor`` if one is named."""

    async def read(self, after: int, previous: bytes) -> list[Batch]:
        """Some of the batches that follow record ``after``, checked against the chain; none if there are none."""


class _Call(Generic[_Result]):
    """What the thread is to do, and the answer, which belongs to the event loop.

    A call goes to the thread and back for each commit: a future of concurrent.futures that another one of asyncio
    follows, with a wait for a deadline around it, costs more than the database.
    """

    __slots__ = ("_function", "_loop", "_turn", "answer", "deadline")

    def __init__(self, function: Callable[[], _Result], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._loop = loop
        self._turn = threading.Lock()
        self.answer: asyncio.Future[_Result] = loop.create_future()
        self.deadline: asyncio.TimerHandle

    def take(self) -> bool:
        """From any thread, once: the thread that is to do it takes it, or who waits, so that it is never done."""
        return self._turn.acquire(blocking=False)

    def run(self) -> None:
        """In the thread."""
        settle: Callable[[], None]
        try:
            settle = partial(self.succeed, self._function())
        except BaseException as error:  # noqa: BLE001 - it is for who waits
            settle = partial(self.fail, error)
        with contextlib.suppress(RuntimeError):  # the event loop is closed: no one waits any more
            self._loop.call_soon_threadsafe(settle)

    def succeed(self, result: _Result) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class ThreadedJournal:
    """An operation log behind a thread of its own. No call but :meth:`restore` takes longer than CALL_SECONDS
    + INTERRUPTED_SECONDS.

    A database that is silent (a host without power, a partition) resets no connection, so a call may wait for ever.
    After CALL_SECONDS the connections are shut from here, and the call fails; what it would have changed is unknown.
    A disk that hangs cannot be shut: the call fails here, and those after it, until the thread is back; they are made
    in order, so a log is never read before it is settled what became of a write. The thread is a daemon, so not even
    that keeps the process from ending.
    """

    def __init__(self, log: OperationLog) -> None:
        self.log = log
        self._calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="journal", daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if call.take():
                call.run()
            del call

    async def run(
        self, function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        """Calls a method of the log in its thread. LogFailed if it does not end in time."""
        return await self._call(lambda: function(*arguments, **named), CALL_SECONDS)

    async def _call(self, function: Callable[[], _Result], seconds: float) -> _Result:
        loop = asyncio.get_running_loop()
        call = _Call(function, loop)
        call.deadline = loop.call_later(seconds, self._interrupt, call, seconds)
        self._calls.put(call)
        try:
            return await call.answer
        finally:
            call.deadline.cancel()
            call.take()  # at once: what the thread has not come to by now it never does

    def _interrupt(self, call: _Call[Any], seconds: float) -> None:
        call.deadline = asyncio.get_running_loop().call_later(INTERRUPTED_SECONDS, self._give_up, call, seconds)
        self.log.interrupt()

    def _give_up(self, call: _Call[Any], seconds: float) -> None:
        self.log.interrupt()
        call.fail(LogFailed(f"the journal has not answered within {seconds:.3g} s"))

    async def close(self) -> None:
        """Ends the call that is running, if it does not end soon by itself."""
        with contextlib.suppress(LogFailed):
            await self._call(self.log.close, CLOSE_SECONDS)
        self._calls.put(None)

    async def restore(self, after: int) -> Restored | None:
        return await self._call(lambda: self.log.restore(after), RESTORE_SECONDS)

    async def leadership(self) -> Leadership:
        return await self.run(self.log.leadership)

    async def campaign(self, seen: Leadership, address: str) -> Leadership | None:
        return await self.run(self.log.campaign, seen, address)

    async def renew(self, epoch: int) -> None:
        await self.run(self.log.renew, epoch)

    async def append(self, batch: Batch, previous: bytes) -> None:
        await self.run(self.log.append, batch, previous)

    async def resign(self, epoch: int, successor: str) -> None:
        await self.run(self.log.resign, epoch, successor)

    async def read(self, after: int, previous: bytes) -> list[Batch]:
        return await self.run(self.log.read, after, previous)
