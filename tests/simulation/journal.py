"""The operation log of a simulation: one in memory, and each master's connection to it with its troubles.

Fence, chain and compare-and-set are those of :class:`gfsmaster.oplog.OperationLog`. A call takes effect at one moment
between its start and its answer. As in the real journal the calls of one process never overlap, and whoever is
cancelled while waiting does not take the call back.
"""

import asyncio
import bisect
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gfsmaster.checkpoint import decode, encode
from gfsmaster.checkpoints import Restored
from gfsmaster.oplog import Batch, Leadership, check_chain
from gfsmaster.state import State
from gfsprotocol.errors import GfsError, LogFailed, LogFenced, LogLocked, LogOutdated
from tests.simulation.loop import MACHINE, Process

LATENCY_SECONDS: Final = (0.0002, 0.003)
LOCK_SECONDS: Final = 1.0
"""How long a writer waits for another's lock."""
LOCK_RETRY_SECONDS: Final = 0.05
READ_ROWS: Final = 16


class Watch(Protocol):
    """Who checks what is appended."""

    def appended(self, batch: Batch, process: Process) -> None: ...

    def elected(self, leadership: Leadership) -> None: ...

    def violate(self, invariant: str, what: str) -> None: ...

    def note(self, event: str, process: Process | None = None, *details: object) -> None: ...


@dataclass(slots=True, frozen=True)
class _Checkpoint:
    sequence: int
    epoch: int
    log_hash: bytes
    parts: list[bytes]


class SharedLog:
    """What the database holds."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.leadership = Leadership(0, "", "", 0)
        self.batches: list[Batch] = []
        self.lasts: list[int] = []
        self.checkpoints: list[_Checkpoint] = []
        """The last two."""
        self.trimmed = 0
        """Records up to here are no longer read; they are kept for the check of the history."""
        self.locked_by: Process | None = None
        self.is_fenced = True
        """Whether the epoch is checked: tests plant the bug that it is not."""

    @property
    def sequence(self) -> int:
        return self.lasts[-1] if self.lasts else 0

    @property
    def last_hash(self) -> bytes:
        return self.batches[-1].hash if self.batches else bytes(32)

    def fence(self, epoch: int, node: str) -> None:
        now = self.leadership
        if self.is_fenced and (now.epoch, now.holder) != (epoch, node):
            raise LogFenced(f"epoch {epoch} is over, another master leads")
        self.leadership = Leadership(now.epoch, now.holder, now.address, now.beat + 1, now.process)

    def append(self, batch: Batch, previous: bytes, node: str, process: Process) -> None:
        self.fence(batch.epoch, node)
        if batch.first <= self.sequence:
            self.watch.violate("one append per place", f"{node} appends record {batch.first} once more")
            raise LogFailed("the row is there already")
        if previous != self.last_hash:
            raise LogOutdated("the log is not the one that the leader has read")
        check_chain(batch, self.sequence, self.last_hash, "the log")
        self.batches.append(batch)
        self.lasts.append(batch.last)
        self.watch.appended(batch, process)

    def campaign(self, seen: Leadership, node: str, address: str, process: str) -> Leadership | None:
        now = self.leadership
        if (now.epoch, now.beat) != (seen.epoch, seen.beat):
            return None
        self.leadership = Leadership(seen.epoch + 1, node, address, seen.beat + 1, process)
        self.watch.elected(self.leadership)
        return self.leadership

    def resign(self, epoch: int, node: str, successor: str) -> None:
        now = self.leadership
        if (now.epoch, now.holder) == (epoch, node):
            self.leadership = Leadership(epoch, "", successor, now.beat + 1, now.process)

    def checkpoint(self, state: State) -> None:
        """Publishes one of what the log makes now, and trims the log to the one before it.

        Never a second one of the same record: then the log would be empty, and no one could see that he has to restore.
        """
        if self.checkpoints and self.checkpoints[-1].sequence >= state.sequence:
            return
        if self.checkpoints:
            self.trimmed = self.checkpoints[-1].sequence
        self.checkpoints = [
            *self.checkpoints[-1:],
            _Checkpoint(state.sequence, self.batches[-1].epoch, self.last_hash, list(encode(state))),
        ]

    def restore(self, after: int) -> Restored | None:
        if (after and self.trimmed <= after) or not self.checkpoints or self.checkpoints[-1].sequence <= after:
            return None
        newest = self.checkpoints[-1]
        self.watch.note("goes on from a checkpoint")
        return Restored(decode(newest.parts), newest.epoch, newest.log_hash)

    def read(self, after: int, previous: bytes) -> list[Batch]:
        start = bisect.bisect_right(self.lasts, max(after, self.trimmed))
        batches = self.batches[start : start + READ_ROWS]
        for batch in batches:
            check_chain(batch, after, previous, "the log")
            after, previous = batch.last, batch.hash
        return batches


@dataclass(slots=True)
class Trouble:
    """What is to go wrong with a connection; times in virtual seconds."""

    unreachable_until: float = 0.0
    hanging_until: float = 0.0
    fails: int = 0
    """So many writes fail and have no effect."""
    loses_answers: int = 0
    """So many writes have their effect, and fail."""
    kills: str = ""
    """The process dies "before", "at" (between effect and answer) or "after" its next append."""
    stops_seconds: float = 0.0
    """If not 0, the process stops for so long inside its next transaction."""
    slow_seconds: float = 0.0


@dataclass(slots=True)
class _Call:
    effect: Callable[[], Any]
    answer: "asyncio.Future[Any]"
    writes: bool = False
    appends: bool = False
    waits_until: float = field(default=0.0)


class SimulatedJournal:
    """A gfsmaster Journal: one process's connection."""

    def __init__(self, log: SharedLog, process: Process, node: str, identity: str, randomness: random.Random) -> None:
        self.trouble = Trouble()
        self._log = log
        self._process = process
        self._node = node
        self._identity = identity
        self._random = randomness
        self._waiting: deque[_Call] = deque()
        self._is_busy = False

    async def restore(self, after: int) -> Restored | None:
        result: Restored | None = await self._call(lambda: self._log.restore(after))
        return result

    async def leadership(self) -> Leadership:
        result: Leadership = await self._call(lambda: self._log.leadership)
        return result

    async def campaign(self, seen: Leadership, address: str) -> Leadership | None:
        log, node, identity = self._log, self._node, self._identity
        result: Leadership | None = await self._call(lambda: log.campaign(seen, node, address, identity), writes=True)
        return result

    async def renew(self, epoch: int) -> None:
        await self._call(lambda: self._log.fence(epoch, self._node), writes=True)

    async def append(self, batch: Batch, previous: bytes) -> None:
        await self._call(
            lambda: self._log.append(batch, previous, self._node, self._process), writes=True, appends=True
        )

    async def resign(self, epoch: int, successor: str) -> None:
        await self._call(lambda: self._log.resign(epoch, self._node, successor), writes=True)

    async def read(self, after: int, previous: bytes) -> list[Batch]:
        result: list[Batch] = await self._call(lambda: self._log.read(after, previous))
        return result

    # ------------------------------------------------------------------------------------------------ one at a time

    async def _call(self, effect: Callable[[], Any], writes: bool = False, appends: bool = False) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(effect, answer, writes, appends))
        self._next()
        return await answer

    def _next(self) -> None:
        if self._waiting and not self._is_busy:
            self._is_busy = True
            self._later(self._latency(), self._begin, self._waiting.popleft())

    def _later(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(max(loop.time() + seconds, self.trouble.hanging_until), action, *arguments, context=MACHINE)

    def _latency(self) -> float:
        return self._random.uniform(*LATENCY_SECONDS) + self._random.random() * self.trouble.slow_seconds

    def _begin(self, call: _Call) -> None:
        process, log = self._process, self._log
        now = asyncio.get_running_loop().time()
        if call.appends and self.trouble.kills == "before":
            process.kill()
        if process.is_dead:
            return
        if self.trouble.stops_seconds and call.writes and process.is_running and log.locked_by is None:
            process.pause()
            asyncio.get_running_loop().call_at(now + self.trouble.stops_seconds, process.resume, context=MACHINE)
            self.trouble.stops_seconds = 0.0
            self._lock(call)
        elif process.is_paused:
            if call.writes and log.locked_by is None and self._random.random() < 0.5:
                self._lock(call)
            else:
                process.on_resume.append(lambda: self._begin(call))
        elif call.writes and log.locked_by not in (None, process):
            call.waits_until = call.waits_until or now + LOCK_SECONDS
            if now < call.waits_until:
                self._later(LOCK_RETRY_SECONDS, self._begin, call)
            else:
                self._end(call, None, LogLocked("the journal is locked by another process"))
        elif now < self.trouble.unreachable_until:
            self._end(call, None, LogFailed("the journal cannot be reached"))
        elif call.writes and self.trouble.fails:
            self.trouble.fails -= 1
            self._end(call, None, LogFailed("the journal cannot be written"))
        else:
            self._take_effect(call)

    def _lock(self, call: _Call) -> None:
        """Stopped inside its transaction: no one else can write until it goes on, or is ended."""
        log, process = self._log, self._process
        log.watch.note("stopped with the lock", process)
        log.locked_by = process

        def release() -> None:
            if log.locked_by is process:
                log.locked_by = None

        def go_on() -> None:
            release()
            self._take_effect(call)

        process.on_resume.append(go_on)
        process.on_death.append(release)

    def _take_effect(self, call: _Call) -> None:
        result, error = None, None
        try:
            result = call.effect()
        except GfsError as failure:
            error = failure
        if call.writes and self.trouble.loses_answers:
            self.trouble.loses_answers -= 1
            self._log.watch.note("the log's answer is lost", self._process)
            error = LogFailed("the connection to the journal was lost")
        if call.appends and self.trouble.kills == "at":
            self._process.kill()
        self._later(self._latency(), self._end, call, result, error)

    def _end(self, call: _Call, result: object, error: GfsError | None) -> None:
        if not call.answer.done():
            if error is None:
                call.answer.set_result(result)
            else:
                call.answer.set_exception(error)
        if call.appends and self.trouble.kills == "after":
            self._process.fuse = self._random.randrange(20)
            self.trouble.kills = ""
        self._is_busy = False
        self._next()
