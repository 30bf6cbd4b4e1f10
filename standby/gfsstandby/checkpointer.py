"""Writes checkpoints now and then: a forked child encodes and verifies, a thread of its own stores, in small steps.

Nobody waits for it: a takeover or the end of the node kills the child, and the thread stops at its next step. What was
stored until then stays unpublished, and is removed by the next attempt.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from gfsmaster.checkpoints import CheckpointWriter, Superseded
from gfsmaster.measures import Measures
from gfsmaster.oplog import OperationLog
from gfsmaster.state import State
from gfsprotocol.channel import Clock
from gfsprotocol.errors import LogDamaged, LogFailed
from gfsstandby.snapshot import PART, Snapshot, SnapshotFailed

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 60.0
"""After an attempt that failed, or while another node seems to be at it."""
BUSY_SHARE: Final = 0.01
"""The part of the time that the disk is kept busy with it while the log grows. A commit that meets one of its writes
takes 2 to 3 ms longer, on whatever file of the same disk: by this, fewer than one in a hundred do."""
IDLE_SHARE: Final = 0.1
"""The same while the log does not grow."""
PAUSE_SECONDS_MAX: Final = 2.0
"""Between two steps, however long one took: it may have waited for locks."""

Take = Callable[[State, bytes, int], None]


class Source(Protocol):
    """What has a state: a follower, or a leader."""

    @property
    def sequence(self) -> int:
        """The last record that was applied."""

    @property
    def may_checkpoint(self) -> bool:
        """Whether it is for this node to write one now."""

    async def snapshot(self, take: Take) -> None:
        """Calls ``take`` with a state, the hash and the epoch of the log's row that it ends with."""


class Stopped(Exception):
    """The attempt is to end at once."""


@dataclass(slots=True)
class _Attempt:
    source: Source
    snapshot: Snapshot
    epoch: int
    log_hash: bytes
    stopping: threading.Event


class Checkpointer:
    """At most one attempt at a time. ``run`` goes on until it is cancelled, and may be called again then."""

    def __init__(
        self,
        journal: OperationLog,
        node: str,
        clock: Clock,
        records: int,
        seconds: float,
        measures: Measures | None = None,
    ) -> None:
        """``journal``: a connection of its own. A checkpoint is due after so many records, or so long with any."""
        self._journal = journal
        self._measures = measures or Measures()
        self._node = node
        self._clock = clock
        self._records = records
        self._seconds = seconds
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpointer")
        self._busy: asyncio.Future[None] | None = None
        """The last attempt; done when nothing of it is left."""
        self._attempt: _Attempt | None = None
        self._refusal: OSError | None = None
        """Why no process could be made for it."""
        self._published = 0
        self._published_at = clock.monotonic()
        """When we first saw that one, in monotonic seconds."""
        self._not_before = 0.0
        self._rivals: list[tuple[str, int]] = []

    def close(self) -> None:
        """Waits for the step that is under way, if there is one. ``run`` has ended."""
        self._executor.shutdown()
        self._journal.close()

    async def run(self, source: Source) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if source.may_checkpoint and self._is_due(source.sequence) and await self._is_really_due(source):
                    await self._write_one(source)
            except (LogFailed, LogDamaged, SnapshotFailed, OSError) as error:
                self._measures.failed_checkpoints += 1
                log.warning(
                    "%s has given up a checkpoint, and tries again in %d s: %s", self._node, AGAIN_SECONDS, error
                )
                self._not_before = self._clock.monotonic() + AGAIN_SECONDS

    def _is_due(self, sequence: int) -> bool:
        now = self._clock.monotonic()
        if now < self._not_before or (self._busy is not None and not self._busy.done()):
            return False
        records = sequence - self._published
        return records >= self._records or (records > 0 and now - self._published_at >= self._seconds)

    async def _is_really_due(self, source: Source) -> bool:
        """Looks at what was published, and whether another node is at it: then it is left to that, while it moves."""
        loop = asyncio.get_running_loop()
        store = self._journal.checkpoints
        published, rivals = await loop.run_in_executor(
            self._executor, lambda: (store.published()[:1], store.rivals(self._node))
        )
        if published and published[0].sequence > self._published:
            self._saw(published[0].sequence)
            return False
        if rivals != self._rivals:
            self._rivals = rivals
            if rivals:
                self._not_before = self._clock.monotonic() + AGAIN_SECONDS
                return False
        return self._is_due(source.sequence)

    def _saw(self, sequence: int) -> None:
        self._published, self._published_at = sequence, self._clock.monotonic()

    async def _write_one(self, source: Source) -> None:
        self._refusal = None
        await source.snapshot(lambda state, log_hash, epoch: self._begin(source, state, log_hash, epoch))
        attempt, busy = self._attempt, self._busy
        if self._refusal is not None:
            raise self._refusal
        assert attempt is not None
        assert busy is not None
        try:
            # Shielded: the thread cleans up after itself, whatever becomes of who waits for it.
            await asyncio.shield(busy)
        except Superseded:
            log.info("%s: a newer checkpoint than that at record %d is there", self._node, attempt.snapshot.sequence)
        except Stopped:
            return
        else:
            self._measures.checkpoints += 1
            self._saw(attempt.snapshot.sequence)
        finally:
            attempt.stopping.set()
            attempt.snapshot.kill()
            self._attempt = None

    def _begin(self, source: Source, state: State, log_hash: bytes, epoch: int) -> None:
        """Atomic: forks, and leaves the rest to the thread. Never raises: a leader may be in the middle of a commit."""
        try:
            snapshot = Snapshot(state)
        except OSError as error:
            self._refusal = error
            return
        attempt = self._attempt = _Attempt(source, snapshot, epoch, log_hash, threading.Event())
        self._busy = asyncio.get_running_loop().run_in_executor(self._executor, self._store, attempt)
        self._busy.add_done_callback(lambda future: future.cancelled() or future.exception())

    # --------------------------------------------------------------------------------------------------- the thread

    def _store(self, attempt: _Attempt) -> None:
        snapshot = attempt.snapshot
        sequence = attempt.source.sequence

        def pause(used: float) -> None:
            nonlocal sequence
            before, sequence = sequence, attempt.source.sequence
            share = IDLE_SHARE if sequence == before else BUSY_SHARE
            if attempt.stopping.wait(min(used / share - used, PAUSE_SECONDS_MAX)):
                raise Stopped

        writer = CheckpointWriter(self._journal.checkpoints, self._node, snapshot.sequence, pause)
        try:
            try:
                writer.begin()
                for kind, payload in snapshot.frames():
                    if kind == PART:
                        writer.write(payload)
                    else:
                        checkpoint = writer.publish(attempt.epoch, attempt.log_hash, payload)
                        megabytes = checkpoint.size_bytes / 1e6
                        log.info("%s: checkpoint at record %d, %.1f MB", self._node, checkpoint.sequence, megabytes)
            except (LogFailed, LogDamaged, SnapshotFailed, Superseded):
                if not attempt.stopping.is_set():
                    with contextlib.suppress(LogFailed):  # what stays is removed by the next attempt
                        writer.discard()
                raise
            finally:
                snapshot.close()
            writer.tidy()
        except SnapshotFailed as error:
            if attempt.stopping.is_set():
                raise Stopped from error
            raise
