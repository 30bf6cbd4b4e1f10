"""Following the operation log: reads what was committed and applies it to a state machine of our own.

The same ``State.apply`` as everywhere; a record that gives another result than the leader had (an id, a digest) stops
the node with ``StateDiverged`` at that record, long before it could matter in a failover.
"""

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec

from gfsmaster.operations import decode_records
from gfsmaster.oplog import GENESIS_HASH, Batch, OperationLog
from gfsmaster.state import State
from gfsprotocol.errors import LogDamaged

BATCHES_PER_TURN = 16
RECORDS_PER_TURN = 2000


class Follower:
    """``state`` is what the log makes of it up to ``state.sequence``; ``last_hash`` ends its chain there."""

    def __init__(self, journal: OperationLog, executor: ThreadPoolExecutor) -> None:
        self._journal = journal
        self._executor = executor
        self.state = State()
        self.last_hash = GENESIS_HASH
        self.epoch = 0

    async def catch_up(self) -> int:
        """Applies all that is committed now; returns how many records that were.

        LogDamaged, StateDiverged or UnsupportedFormat name the record that cannot be applied; the state is of no more
        use then. The event loop gets its turn every few thousand records.
        """
        loop = asyncio.get_running_loop()
        before = self.state.sequence
        batches = self._journal.read(self.state.sequence, self.last_hash)
        while found := await loop.run_in_executor(self._executor, self._take, batches):
            for batch in found:
                await self._apply(batch)
        if self.state.sequence - before > RECORDS_PER_TURN:
            gc.freeze()
        return self.state.sequence - before

    @staticmethod
    def _take(batches: Iterator[Batch]) -> list[Batch]:
        return [batch for _, batch in zip(range(BATCHES_PER_TURN), batches, strict=False)]

    async def _apply(self, batch: Batch) -> None:
        try:
            records = decode_records(batch.payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise LogDamaged(f"records {batch.first} to {batch.last} cannot be decoded: {error}") from error
        if len(records) != batch.last - batch.first + 1:
            raise LogDamaged(f"records {batch.first} to {batch.last} are {len(records)} records")
        for number, record in enumerate(records, start=1):
            self.state.apply(record)
            if number % RECORDS_PER_TURN == 0:
                await asyncio.sleep(0)
        self.state.freed.clear()
        self.last_hash = batch.hash
        self.epoch = batch.epoch
