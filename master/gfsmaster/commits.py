"""Group commit: at most one commit in flight; the next batch collects meanwhile.

Invariants:

- a reply leaves only when every record that it reflects is durable (``reply`` parks it until then);
- batches are appended in order, each with the hash of the one before;
- after any failure nothing is appended and no parked reply leaves, ever: ``failure`` is set and the leader ends.

Atomic between awaits: ``submit`` and ``reply`` never await, so a record and its reply land in the same batch.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from gfsmaster.journal import Journal
from gfsmaster.measures import Measures
from gfsmaster.operations import Record, encode_record, join_records
from gfsmaster.oplog import Batch, chain
from gfsprotocol.errors import Busy, StartupError
from gfsprotocol.messages import ReplyBody
from gfsprotocol.rpc import Peer

BATCH_BYTES_MAX: Final = 16 << 20
BATCH_RECORDS_MAX: Final = 4096
WAITING_RECORDS_MAX: Final = 65_536


class Committer:
    """Collects records and the replies that wait for them."""

    def __init__(
        self,
        journal: Journal,
        epoch: int,
        sequence: int,
        last_hash: bytes,
        on_start: Callable[[Batch], Callable[[], None]],
        on_commit: Callable[[Batch], None],
        acknowledge_early: bool = False,
        measures: Measures | None = None,
    ) -> None:
        """``on_start`` gets a batch when its append begins; what it returns is called when that has succeeded.

        ``on_commit`` gets each batch that is durable. ``acknowledge_early`` is for drills only: answers do not wait,
        and what they promised is lost with the leader.
        """
        self._on_start = on_start
        self._on_commit = on_commit
        self._acknowledge_early = acknowledge_early
        self._measures = measures or Measures()
        self._journal = journal
        self._epoch = epoch
        self.last_hash = last_hash
        self.submitted = sequence
        self.committed = sequence
        self.failure: StartupError | None = None
        self.on_reply: Callable[[ReplyBody], None] | None = None
        """Gets each answer when it is given, whether it waits or not."""
        self._records: list[bytes] = []
        self._parked: list[tuple[int, Peer, int, ReplyBody]] = []
        self._after: list[tuple[int, Callable[[], None]]] = []
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def check_room(self) -> None:
        """Busy if too many records wait for the disk."""
        if self.submitted - self.committed > WAITING_RECORDS_MAX:
            raise Busy(f"{WAITING_RECORDS_MAX} changes wait for the operation log")

    def submit(self, record: Record) -> None:
        """Queues an applied record; it is the one after the last submitted."""
        self._records.append(encode_record(record))
        self.submitted += 1
        self._idle.clear()
        self._filled.set()

    def reply(self, peer: Peer, request_id: int, body: ReplyBody) -> None:
        """Answers as soon as all that was submitted so far is durable."""
        if self.on_reply is not None:
            self.on_reply(body)
        if self.committed == self.submitted or self._acknowledge_early:
            peer.respond(request_id, body, self.committed)
        else:
            self._parked.append((self.submitted, peer, request_id, body))

    def when_durable(self, action: Callable[[], None]) -> None:
        """Calls ``action`` as soon as all that was submitted so far is durable."""
        if self.committed == self.submitted:
            action()
        else:
            self._after.append((self.submitted, action))

    async def drained(self) -> None:
        """Returns when nothing waits for the log. The failure is raised if there was one."""
        await self._idle.wait()
        if self.failure is not None:
            raise self.failure

    async def run(self) -> None:
        """Commits batch after batch. Ends by raising the failure: LogFenced or LogFailed."""
        loop = asyncio.get_running_loop()
        while True:
            await self._filled.wait()
            batch = self._next_batch()
            on_success = self._on_start(batch)
            begun = loop.time()
            try:
                await self._journal.append(batch, self.last_hash)
            except StartupError as error:
                self._measures.failed_commits += 1
                self.failure = error
                self._parked.clear()
                self._after.clear()
                self._idle.set()
                raise
            on_success()
            self._count(batch, loop.time() - begun)
            self.last_hash = batch.hash
            self.committed = batch.last
            self._release()
            self._on_commit(batch)

    def _count(self, batch: Batch, seconds: float) -> None:
        self._measures.commits += 1
        self._measures.committed_records += batch.last - batch.first + 1
        self._measures.committed_bytes += len(batch.payload)
        self._measures.commit_seconds.observe(seconds)

    def _next_batch(self) -> Batch:
        count = size = 0
        while count < min(len(self._records), BATCH_RECORDS_MAX) and size < BATCH_BYTES_MAX:
            size += len(self._records[count])
            count += 1
        payload = join_records(self._records[:count])
        del self._records[:count]
        if not self._records:
            self._filled.clear()
        first, last = self.committed + 1, self.committed + count
        return Batch(first, last, self._epoch, chain(self.last_hash, first, last, self._epoch, payload), payload)

    def _release(self) -> None:
        committed = self.committed
        done = 0
        for sequence, peer, request_id, body in self._parked:
            if sequence > committed:
                break
            peer.respond(request_id, body, committed)
            done += 1
        del self._parked[:done]
        done = 0
        for sequence, action in self._after:
            if sequence > committed:
                break
            action()
            done += 1
        del self._after[:done]
        if self.committed == self.submitted:
            self._idle.set()
