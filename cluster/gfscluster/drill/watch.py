"""What a drill sees of the masters: the journal's leadership row and rows, and their status pages.

The journal is read in a thread of its own, closely while a failover is under way and now and then otherwise: what
watches must not slow down what is watched.
"""

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from gfscluster import probe
from gfscluster.drill.ledger import LogRow
from gfsmaster import operations as op
from gfsmaster.operations import decode_records
from gfsmaster.oplog import Leadership, OperationLog
from gfsprotocol.errors import GfsError, LogFailed, Unreachable
from gfsprotocol.messages import Status

CLOSE_SECONDS: Final = 0.005
"""Between two looks while a failover is under way."""
IDLE_SECONDS: Final = 0.1
ASK_SECONDS: Final = 2.0
WELL_POLL_SECONDS: Final = 0.1
EQUAL_SECONDS: Final = 20.0
PAGE_SECONDS: Final = 1.0


@dataclass
class Seen:
    """When something new was seen, in monotonic seconds."""

    leaderships: list[tuple[float, Leadership]] = field(default_factory=list)
    begun: dict[int, float] = field(default_factory=dict)
    """The first row of each epoch."""


class JournalWatch:
    """Reads along in the journal from its present end, and checks the hash chain on the way (LogDamaged)."""

    def __init__(self, url: str) -> None:
        self._log = OperationLog(url, "drill")
        self.rows: list[LogRow] = []
        self.seen = Seen()
        self._closely = threading.Event()
        self._stopping = threading.Event()
        self._failure: GfsError | None = None
        self._after, self._hash = self._log.tail()
        self._thread = threading.Thread(target=self._run, name="drill-journal", daemon=True)
        self._thread.start()

    def watch_closely(self, closely: bool) -> None:
        """While it matters when something happens."""
        if closely:
            self._closely.set()
        else:
            self._closely.clear()

    def leadership(self) -> Leadership:
        """As it was seen last; asked for if it was not seen yet."""
        return self.seen.leaderships[-1][1] if self.seen.leaderships else self._log.leadership()

    def read_to_end(self) -> list[LogRow]:
        """All rows since the drill began. Ends the watch."""
        self.close()
        if self._failure is not None:
            raise self._failure
        while self._read():
            pass
        self._log.close()
        return self.rows

    def close(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        self._closely.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(LogFailed):  # locked or away: the drill may have done that
                self._look()
            if self._failure is not None:
                return
            if self._closely.is_set():
                self._stopping.wait(CLOSE_SECONDS)
            else:
                self._closely.wait(IDLE_SECONDS)

    def _look(self) -> None:
        current = self._log.leadership()
        known = self.seen.leaderships
        if not known or (known[-1][1].epoch, known[-1][1].holder) != (current.epoch, current.holder):
            known.append((time.monotonic(), current))
        try:
            self._read()
        except LogFailed:
            raise
        except GfsError as error:
            self._failure = error

    def _read(self) -> int:
        batches = self._log.read(self._after, self._hash)
        now = time.monotonic()
        for batch in batches:
            records = decode_records(batch.payload)
            begun = tuple(
                operation.epoch
                for record in records
                for operation in record.operations
                if isinstance(operation, op.BeginEpoch)
            )
            calls = tuple((record.client, record.call) for record in records if record.call)
            self.rows.append(LogRow(batch.first, batch.epoch, begun, calls))
            self.seen.begun.setdefault(batch.epoch, now)
            self._after, self._hash = batch.last, batch.hash
        return len(batches)


class Masters:
    """The masters' own words."""

    def __init__(self, addresses: list[str], key: bytes) -> None:
        self.addresses = addresses
        self._key = key

    async def first_to_serve(self, addresses: list[str], epoch: int) -> tuple[float, str]:
        """When a status page first shows its master as the leader of an epoch after ``epoch``, and which master."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PAGE_SECONDS)) as session:
            while True:
                for address in addresses:
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        async with session.get(f"http://{address}/status") as response:
                            status = await response.json()
                        if status["role"] == "leader" and status["epoch"] > epoch:
                            return time.monotonic(), str(status["node"])
                await asyncio.sleep(CLOSE_SECONDS)

    async def leader(self) -> Status:
        """The leading master's status. Unreachable if none leads."""
        answers = await probe.statuses(self.addresses, self._key, ASK_SECONDS)
        address = probe.find_leader(answers)
        status = answers[address] if address is not None else None
        if not isinstance(status, Status):
            raise Unreachable(f"no master leads: {probe.complaints(answers)}")
        return status

    async def until_well(self, servers: int, seconds: float) -> Status:
        """Waits until one master leads, all others follow it closely, and all chunk servers are there.

        Unreachable, with what is missing, if that takes longer than ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while True:
            answers = await probe.statuses(self.addresses, self._key, ASK_SECONDS)
            missing = _missing(answers, servers)
            leader = probe.find_leader(answers)
            if not missing and leader is not None:
                status = answers[leader]
                assert isinstance(status, Status)
                return status
            if time.monotonic() > deadline:
                raise Unreachable(f"the cluster did not come back in {seconds:.0f} s: {missing}")
            await asyncio.sleep(WELL_POLL_SECONDS)

    async def digests(self) -> dict[str, str]:
        """Each master's state digest, all at the same record. Unreachable if they are never at the same."""
        deadline = time.monotonic() + EQUAL_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_SECONDS)) as session:
            while True:
                pages = {}
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    for address in self.addresses:
                        async with session.get(f"http://{address}/digest") as response:
                            pages[address] = await response.json()
                if len(pages) == len(self.addresses) and len({page["sequence"] for page in pages.values()}) == 1:
                    return {address: page["digest"] for address, page in pages.items()}
                if time.monotonic() > deadline:
                    raise Unreachable(f"the masters are never at the same record: {pages}")
                await asyncio.sleep(WELL_POLL_SECONDS)


def _missing(answers: "dict[str, Status | GfsError]", servers: int) -> str:
    for address, answer in answers.items():
        if isinstance(answer, GfsError):
            return answer.message
        if answer.role == "leader":
            alive = sum(server.alive for server in answer.servers)
            if alive < servers or answer.safe_mode:
                return f"{alive} of {servers} chunk servers have registered with {address}, safe mode"
        elif answer.lag_ms or not answer.leader:
            return f"{address} does not follow yet"
    if sum(isinstance(answer, Status) and answer.role == "leader" for answer in answers.values()) != 1:
        return "no master leads, or more than one"
    return ""
