"""A series of rounds against a running cluster: load, hit, wait, check."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gfsclient.config import ClientConfig
from gfscluster.drill import report, statistics
from gfscluster.drill.hits import Hit
from gfscluster.drill.ledger import Call, Fault, Finding, Outcome, check_log
from gfscluster.drill.load import Load, RoundLedger
from gfscluster.drill.page import Timeline
from gfscluster.drill.report import Report, Round
from gfscluster.drill.watch import JournalWatch, Masters
from gfsprotocol.errors import Unreachable

WARM_SECONDS: Final = 0.7
"""Of load before the hit, on average."""
SETTLE_SECONDS: Final = 1.0
"""Of load after the first call was acknowledged again, at least."""
POLL_SECONDS: Final = 0.01
BEFORE_SECONDS: Final = 0.2
"""What of the time before the hit belongs to the longest gap."""
TIMELINES_MAX: Final = 8
"""The slowest rounds are drawn."""
FINDINGS_MAX: Final = 1000


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    mode: str
    rounds: int
    writers: int
    pace: float
    data: bool
    seed: int
    directory: str
    """Of the names that the drill makes."""
    patience: float
    """After so many seconds the cluster is taken for gone."""


@dataclass(slots=True)
class _Recovery:
    """Monotonic seconds."""

    at: float
    first: float
    serve: tuple[float, str] | None
    until: float
    ended: bool
    note: str


class Series:
    """Runs the rounds one after the other. :meth:`run` undoes whatever it did, also when it is cancelled."""

    def __init__(
        self,
        plan: Plan,
        config: ClientConfig,
        journal: str,
        servers: int,
        hits: list[Hit],
        on_round: Callable[[Round], None],
    ) -> None:
        """``servers``: how many chunk servers there are to be; ``hits`` take turns; ``on_round`` hears of each."""
        self._plan = plan
        self._masters = Masters(config.masters, config.key_bytes)
        self._load = Load(config, plan.directory, plan.writers, plan.pace, plan.data, plan.seed)
        self._url = journal
        self._servers = servers
        self._hits = hits
        self._on_round = on_round
        self._random = random.Random(plan.seed)  # noqa: S311 - when to hit
        self._rounds: list[Round] = []
        self._ledgers: list[RoundLedger] = []
        self._findings: list[Finding] = []
        self.timelines: list[Timeline] = []
        self._journal: JournalWatch
        self._files = 0
        self._recovered = True
        self.failure: Unreachable | None = None
        """Why it ended early, if the cluster did not come back."""

    async def run(self) -> Report:
        """The report over all rounds that took place; if the cluster does not come back, :attr:`failure` is set."""
        self._files = (await self._masters.until_well(self._servers, self._plan.patience)).inodes
        self._journal = JournalWatch(self._url)
        try:
            for hit in self._hits:
                await hit.prepare()
            await self._load.connect()
            for number in range(1, self._plan.rounds + 1):
                await self._round(number, self._hits[(number - 1) % len(self._hits)])
            await self._check_all()
        except Unreachable as error:
            self.failure, self._recovered = error, False
        finally:
            await self._load.close()
            self._journal.close()
            for hit in self._hits:
                await hit.finish()
        return self._report()

    async def _round(self, number: int, hit: Hit) -> None:
        before = await self._masters.leader()
        ledger = await self._load.start(number)
        try:
            await asyncio.sleep(WARM_SECONDS * self._random.uniform(0.5, 1.5))
            recovery = await self._hit(hit, before.node, before.epoch, before.leader, ledger)
            await self._masters.until_well(self._servers, self._plan.patience)
        finally:
            hit.undo()
        await self._load.stop()
        await self._masters.until_well(self._servers, self._plan.patience)
        found = await self._load.check(ledger) + await self._compare_digests()
        if not found:
            await self._load.discard_stream(ledger)
        self._ledgers.append(ledger)
        self._note_round(number, before.node, before.epoch, ledger, recovery, found)

    async def _hit(self, hit: Hit, name: str, epoch: int, address: str, ledger: RoundLedger) -> _Recovery:
        others = [known for known in self._masters.addresses if known != address]
        self._journal.watch_closely(True)
        serving = asyncio.create_task(self._masters.first_to_serve(others, epoch))
        noted = len(ledger.calls)
        at = await hit.strike(name)
        lasting = asyncio.create_task(hit.outlast())
        try:
            first = await self._first_acknowledged(ledger.calls, noted, at)
            await asyncio.sleep(SETTLE_SECONDS)
            await lasting
        finally:
            for task in (serving, lasting):
                task.cancel()
            await asyncio.gather(serving, lasting, return_exceptions=True)
            self._journal.watch_closely(False)
            until = time.monotonic()
            ended = hit.undo()
        serve = serving.result() if not serving.cancelled() else None
        return _Recovery(at, first, serve, until, ended, hit.note)

    async def _first_acknowledged(self, calls: list[Call], noted: int, at: float) -> float:
        """Waits for the first answer to a write that was begun after ``at``; how long after it."""
        deadline = time.monotonic() + self._plan.patience
        while True:
            first = statistics.first_acknowledged(calls[noted:], at)
            if first is not None:
                return first
            self._load.check_running()
            if time.monotonic() > deadline:
                raise Unreachable(f"no write was acknowledged for {self._plan.patience:.0f} s after the hit")
            await asyncio.sleep(POLL_SECONDS)

    async def _compare_digests(self) -> list[Finding]:
        digests = await self._masters.digests()
        if len(set(digests.values())) == 1:
            return []
        return [Finding(Fault.DIGEST, f"the masters' states differ: {digests}")]

    async def _check_all(self) -> None:
        """Once more over all ledgers, and over the log."""
        seen = set(self._findings)
        for ledger in self._ledgers:
            found = await self._load.check(ledger, with_stream=False)
            self._findings += [finding for finding in found if finding not in seen]
        rows = await asyncio.to_thread(self._journal.read_to_end)
        self._findings += check_log(rows)

    # ------------------------------------------------------------------------------------------------------- figures

    def _note_round(
        self, number: int, name: str, epoch: int, ledger: RoundLedger, recovery: _Recovery, found: list[Finding]
    ) -> None:
        at = recovery.at
        changes = [
            when
            for when, current in self._journal.seen.leaderships
            if when >= at and (current.epoch > epoch or not current.holder)
        ]
        begun = {began: when for began, when in self._journal.seen.begun.items() if began > epoch and when >= at}
        # The row of the leadership is read before the rows of the log, and may change between the two.
        changes += begun.values()
        metadata = self._load.metadata_clients
        calls = [call for call in ledger.calls if call.client in metadata]
        gaps = statistics.longest_gaps(calls, at - BEFORE_SECONDS, recovery.until)
        one = Round(
            number=number,
            leader=name,
            successor=recovery.serve[1] if recovery.serve is not None else name,
            epoch=max(begun, default=epoch),
            first_acknowledged=recovery.first,
            longest_gap=max(gaps.values(), default=None),
            detect=min(changes) - at if changes else None,
            elect=min(begun.values()) - at if begun else None,
            serve=recovery.serve[0] - at if recovery.serve is not None else None,
            ended=recovery.ended,
            calls=len(ledger.calls),
            refused=sum(call.outcome is Outcome.REFUSED for call in ledger.calls),
            unknown=sum(call.outcome is Outcome.UNKNOWN for call in ledger.calls),
            reader_errors=ledger.reader_errors,
            faults=_counted(found),
            findings=[finding.text for finding in found[:FINDINGS_MAX]],
            errors=ledger.errors,
            note=recovery.note,
        )
        self._rounds.append(one)
        self._findings += found
        self.timelines.append(_timeline(one, ledger, recovery))
        self.timelines.sort(key=lambda line: line.first_acknowledged, reverse=True)
        del self.timelines[TIMELINES_MAX:]
        self._on_round(one)

    def _report(self) -> Report:
        return Report(
            mode=self._plan.mode,
            means=self._hits[0].means,
            rounds_wanted=self._plan.rounds,
            rounds=self._rounds,
            clients=self._load.clients,
            files=self._files,
            calls=sum(one.calls for one in self._rounds),
            duplicated_records=sum(ledger.duplicated_records for ledger in self._ledgers),
            faults=_counted(self._findings),
            findings=[finding.text for finding in self._findings[:FINDINGS_MAX]],
            percentiles=report.percentiles_of(self._rounds),
            seed=self._plan.seed,
            recovered=self._recovered,
        )


def _counted(found: list[Finding]) -> dict[str, int]:
    return report.no_faults() | Counter(finding.fault.value for finding in found)


def _timeline(one: Round, ledger: RoundLedger, recovery: _Recovery) -> Timeline:
    clients: dict[int, list[float]] = {}
    for call in ledger.calls:
        if call.outcome is Outcome.ACKNOWLEDGED:
            clients.setdefault(call.client, []).append(call.ended - recovery.at)
    marks = {"hit": 0.0}
    for name in ("detect", "elect", "serve", "first_acknowledged"):
        value = getattr(one, name)
        if value is not None:
            marks[report.FIGURES[name]] = value
    title = f"Round {one.number}: {one.leader} was hit, {one.successor} leads"
    return Timeline(title, recovery.first, clients, marks)
