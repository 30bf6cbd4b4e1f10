"""Following the operation log: applies what was committed to a state machine of our own, and hears chunk servers.

Batches come pushed by the leader, and from the log whatever is missing between; both are checked against the hash
chain. The same ``State.apply`` as everywhere: a record that gives another result than the leader had (an id, a digest)
stops the node with ``StateDiverged`` at that record, long before it could matter in a failover.
"""

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable
from typing import Final

from gfsmaster.fleet import Fleet
from gfsmaster.journal import Journal
from gfsmaster.oplog import GENESIS_HASH, Batch, check_chain, decode_batch
from gfsmaster.registry import Registry
from gfsmaster.state import State
from gfsprotocol.channel import Clock
from gfsprotocol.errors import LogDamaged

log = logging.getLogger(__name__)

RECORDS_PER_TURN: Final = 500
FROZEN_RECORDS_MIN: Final = 500
"""What so many records have made at the start is not looked through by the collector of garbage again and again."""


def _freeze() -> None:
    """What was read is here to stay: the collector of garbage need not look at it again and again."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class Follower:
    """``state`` is what the log makes of it up to ``state.sequence``; ``last_hash`` ends its chain there.

    Atomic between awaits: applying up to RECORDS_PER_TURN records, and then taking the reports that waited for them.
    """

    def __init__(self, journal: Journal, clock: Clock, known: tuple[int, bytes] = (0, GENESIS_HASH)) -> None:
        """``known``: a record that this process knows to be in the log though it is not applied here, and its hash."""
        self.on_applied: Callable[[], None] = lambda: None
        """Called when records were applied."""
        self._journal = journal
        self._clock = clock
        self._known = known
        self._applying = asyncio.Lock()
        self.is_ready = False
        """Whether the log was once read to its end: until then reports of chunks would mean little."""
        self._begin(State(), GENESIS_HASH, 0)

    def _begin(self, state: State, last_hash: bytes, epoch: int) -> None:
        self.state = state
        self.last_hash = last_hash
        self.epoch = epoch
        self.fleet = Fleet(state, follows=True)
        self.registry = Registry(state, self.fleet, self._clock)

    def adopt(self, state: State, fleet: Fleet, last_hash: bytes, epoch: int) -> None:
        """Goes on with what a leader had whose every record is in the log."""
        self._known = (0, GENESIS_HASH)
        self._begin(state, last_hash, epoch)
        self.fleet = fleet
        fleet.follow()
        self.registry = Registry(state, fleet, self._clock)
        self.is_ready = True

    async def catch_up(self) -> int:
        """Applies all that is committed now; returns how many records that were.

        LogDamaged, StateDiverged or UnsupportedFormat name the record that cannot be applied; the state is of no more
        use then. LogOutdated: the log lacks what this process knows of it. LogFailed: it cannot be reached now.
        """
        async with self._applying:
            if self._known[0]:
                await self._check_known()
            before = self.state.sequence
            restored = not before and await self._restore()
            while batches := await self._read():
                for batch in batches:
                    await self._apply(batch)
            if (restored or self.state.sequence - before > FROZEN_RECORDS_MIN) and not self.is_ready:
                _freeze()
            self.is_ready = self.is_ready or self.state.sequence > 0
            return self.state.sequence - before

    async def _check_known(self) -> None:
        """LogOutdated if the log lacks the known record: then it is another one, and what it has counts for nothing."""
        with contextlib.suppress(LogDamaged):  # or trimmed; reading it from its beginning will tell
            await self._journal.read(*self._known)
        self._known = (0, GENESIS_HASH)

    async def _read(self) -> list[Batch]:
        try:
            return await self._journal.read(self.state.sequence, self.last_hash)
        except LogDamaged:
            # Or it was trimmed while this node slept, and leads on from a checkpoint.
            if not await self._restore():
                raise
            return await self._journal.read(self.state.sequence, self.last_hash)

    async def _restore(self) -> bool:
        """Begins with the newest checkpoint instead, where that is the way to go on."""
        restored = await self._journal.restore(self.state.sequence)
        if restored is None:
            return False
        log.info("goes on from the checkpoint at record %d", restored.state.sequence)
        self._begin(restored.state, restored.log_hash, restored.epoch)
        self.on_applied()
        return True

    @property
    def sequence(self) -> int:
        return self.state.sequence

    @property
    def may_checkpoint(self) -> bool:
        """Whether there is something worth a checkpoint."""
        return self.is_ready

    async def snapshot(self, take: Callable[[State, bytes, int], None]) -> None:
        """Calls ``take`` between two batches, with the state, and the hash and the epoch of the last row in it."""
        async with self._applying:
            take(self.state, self.last_hash, self.epoch)

    async def take(self, batches: list[Batch]) -> None:
        """Applies what the leader has pushed, as far as it follows on what is here; LogDamaged if it contradicts it."""
        async with self._applying:
            for batch in batches:
                if batch.first == self.state.sequence + 1:
                    check_chain(batch, self.state.sequence, self.last_hash, "the leader's log")
                    await self._apply(batch)

    async def _apply(self, batch: Batch) -> None:
        records = decode_batch(batch)
        cancelled: asyncio.CancelledError | None = None
        for number, record in enumerate(records, start=1):
            self.state.apply(record)
            if number % RECORDS_PER_TURN == 0 and cancelled is None:
                self.fleet.catch_up()
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError as error:
                    cancelled = error  # half a batch is no place from which the log could be read on
        self.fleet.catch_up()
        self.last_hash = batch.hash
        self.epoch = batch.epoch
        self.on_applied()
        if cancelled is not None:
            raise cancelled
