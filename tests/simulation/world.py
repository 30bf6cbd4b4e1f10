"""One run of a simulation: a cluster, its faults, its healing, and what must hold."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from unittest.mock import patch

from blake3 import blake3

from gfsmaster import leader
from gfsmaster.operations import decode_records
from gfsmaster.oplog import Batch, Leadership
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import GfsError
from gfsprotocol.tokens import client_key, server_key
from gfsstandby import follower
from tests.simulation import faults
from tests.simulation.chunkservers import ChunkServer
from tests.simulation.clients import Client
from tests.simulation.history import Broken, Entry, check, check_registers
from tests.simulation.journal import SharedLog
from tests.simulation.loop import Deadlock, Process, VirtualLoop, current_process, virtual_loop
from tests.simulation.machines import Machine
from tests.simulation.network import Network

MASTERS: Final = 3
SERVERS: Final = 3
CLIENTS: Final = 4
FAULTY_SECONDS: Final = 8.0
"""For so long clients work and things break."""
ANSWER_SECONDS: Final = 30.0
"""After healing every call is answered within so long."""
CONVERGENCE_SECONDS: Final = 20.0
"""And then there is one leader, and all nodes have the same state, within so long."""
LOOK_SECONDS: Final = 0.25
LOGGERS: Final = ("gfsprotocol", "gfsmaster", "gfsstandby", "gfsclient")

Plant = Callable[["World"], None]


@dataclass(slots=True, frozen=True)
class Report:
    """What a run has shown."""

    seed: int
    violation: Broken | None
    trace: Sequence[str]
    hash: str
    """Of the whole trace: equal for equal runs."""
    counts: Counter[str]
    """How often each fault and each kind of event came."""
    seconds: float
    """Virtual."""


class World:
    """Everything in a run. Made inside its loop."""

    def __init__(self, seed: int, loop: VirtualLoop, processes: list[Process], settings: dict[str, object]) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.settings = settings
        self.processes = processes
        self.trace: list[str] = []
        self.counts: Counter[str] = Counter()
        self.violation: Broken | None = None
        self.is_over = False
        self._loop = loop
        self.secret = b"s" * 32
        self.client_key, self.server_key = client_key(self.secret), server_key(self.secret)
        self.network = Network(random.Random(f"{seed} network"), self.note)
        self.log = SharedLog(self)
        self.state = State()
        """What the log makes."""
        self._digests: dict[int, bytes] = {}
        self._writers: dict[int, Process] = {}
        self.machines: list[Machine] = []
        self.servers: dict[int, ChunkServer] = {}
        self.clients: list[Client] = []
        self.on_elected: list[Callable[[Leadership], None]] = []

    @property
    def addresses(self) -> list[str]:
        return [machine.config.address for machine in self.machines]

    def note(self, event: str, process: Process | None = None, *details: object) -> None:
        """A line of the trace."""
        self.counts[event] += 1
        shown = " ".join(map(str, details))
        self.trace.append(f"{self._loop.time():9.4f}  {process.name if process else '':<10}  {event}  {shown}".rstrip())

    def violate(self, invariant: str, what: str) -> None:
        """An invariant is broken; the first one counts, and ends the run soon."""
        self.note("BROKEN", None, invariant, what)
        if self.violation is None:
            self.violation = Broken(invariant, what)

    # ----------------------------------------------------------------------------------------------- as the log's watch

    def elected(self, leadership: Leadership) -> None:
        self.note("is elected", None, leadership.holder, "epoch", leadership.epoch)
        for action in self.on_elected:
            action(leadership)

    def appended(self, batch: Batch, process: Process) -> None:
        self.note("appends", process, f"{batch.first}..{batch.last} in epoch {batch.epoch}")
        if batch.epoch < self.state.epoch:
            self.violate("epochs only rise", f"{process} appends in epoch {batch.epoch} after {self.state.epoch}")
        if self._writers.setdefault(batch.epoch, process) is not process:
            self.violate("one writer per epoch", f"{process} and another append in epoch {batch.epoch}")
        try:
            for record in decode_records(batch.payload):
                self.state.apply(record)
        except GfsError as error:
            self.violate("the log can be replayed", f"records {batch.first} to {batch.last}: {error}")
        self.state.freed.clear()
        self.state.revised.clear()
        self._digests[batch.last] = self.state.digest()

    # ------------------------------------------------------------------------------------------------- what must hold

    def about_to_delete(self, server: ChunkServer, order: msg.DeleteOrder) -> None:
        """No good replica goes: there are never more of them than wanted here."""
        slot = self.state.chunks.slot_of(order.chunk)
        version, length = server.replicas.get(order.chunk, (0, 0))
        if slot and version >= self.state.chunks.version[slot] and length >= self.state.chunks.length[slot] > 0:
            self.violate("no good replica is deleted", f"{server.name} is to delete {order} and has version {version}")

    def look(self) -> None:
        """Compares each state with what the log makes of the same records."""
        for machine in self.machines:
            if machine.is_up:
                self._look_at(machine)

    def _look_at(self, machine: Machine) -> None:
        leader = machine.node.leader
        if leader is not None:
            if leader.committer.submitted != leader.committer.committed:
                return
            state = leader.state
            if not leader.is_valid and state.sequence not in self._digests:
                return  # deposed, and does not know it yet
        else:
            state = machine.node.follower.state
        if state.sequence and self._digests.get(state.sequence, state.digest()) != state.digest():
            self.violate("equal digests", f"{machine.name} differs from the log at record {state.sequence}")

    # ---------------------------------------------------------------------------------------------------------- the run

    async def run(self, kinds: Sequence[str]) -> None:
        self.machines += [Machine(self, number) for number in range(MASTERS)]
        for machine in self.machines:
            machine.start()
        for number in range(1, SERVERS + 1):
            self.servers[number] = ChunkServer(self, number)
            self.servers[number].start()
        self.clients += [Client(self, number) for number in range(CLIENTS)]
        self.processes += [client.process for client in self.clients]
        until = self._loop.time() + FAULTY_SECONDS
        working = [client.process.start(client.run(until)) for client in self.clients]
        breaking = asyncio.create_task(faults.Faults(self, kinds).run(until))
        while self._loop.time() < until and self.violation is None:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()
        breaking.cancel()
        await asyncio.gather(breaking, return_exceptions=True)
        if self.violation is None:
            await self._converge(working)
        self._check_failures(working)

    async def _converge(self, working: "list[asyncio.Task[None]]") -> None:
        self.note("heals")
        faults.heal(self)
        await asyncio.wait(working, timeout=ANSWER_SECONDS)
        for client, task in zip(self.clients, working, strict=True):
            if not task.done():
                self.violate("all calls are answered", f"after {ANSWER_SECONDS:.0f} s not: {client.entries[-1]}")
                return
        give_up = self._loop.time() + CONVERGENCE_SECONDS
        while self.violation is None:
            for machine in self.machines:
                machine.start()  # whoever was told to stop has ended by now
            open_point = self._what_is_open()
            if not open_point:
                break
            if self._loop.time() > give_up:
                self.violate("convergence", f"after {CONVERGENCE_SECONDS:.0f} s {open_point}")
            await asyncio.sleep(LOOK_SECONDS)
        self.look()
        self.note("converged")

    def _what_is_open(self) -> str:
        """Why the cluster is not whole yet; empty if it is."""
        leading = [machine for machine in self.machines if machine.is_up and machine.node.leader is not None]
        if len(leading) != 1:
            return f"{len(leading)} nodes lead"
        leader = leading[0].node.leader
        assert leader is not None
        if not leader.is_valid or leader.committer.submitted != self.log.sequence:
            return "the leader has not committed everything"
        if len(leader.fleet.connected()) != SERVERS:
            return f"{len(leader.fleet.connected())} chunk servers are connected"
        for machine in self.machines:
            if machine.node.leader is None and machine.node.follower.state.sequence != self.log.sequence:
                return f"{machine.name} has read to {machine.node.follower.state.sequence} of {self.log.sequence}"
        return ""

    def _check_failures(self, working: "list[asyncio.Task[None]]") -> None:
        for task in working:
            if task.done() and not task.cancelled() and task.exception() is not None:
                self.violate("no bugs", f"a client ended: {task.exception()!r}")

    def check(self) -> None:
        """The history as a whole."""
        entries: list[Entry] = sorted(
            (entry for client in self.clients for entry in client.entries), key=lambda entry: entry.invoked
        )
        try:
            final = check(self.log.batches, entries)
            check_registers(entries)
        except Broken as broken:
            self.violate(broken.invariant, broken.what)
            return
        if final.digest() != self.state.digest():
            self.violate("equal digests", "two replays of the log differ")


class _Notes(logging.Handler):
    """What the nodes and clients log goes to the trace."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.note(record.levelname, current_process(), record.getMessage())


@contextmanager
def _small() -> Iterator[None]:
    """Limits that a short run would not reach."""
    with (
        patch.object(follower, "RECORDS_PER_TURN", 1),
        patch.object(follower, "_freeze", lambda: None),
        patch.object(leader, "DIGEST_RECORDS", 20),
    ):
        yield


@contextmanager
def _logs(world: World) -> Iterator[None]:
    handler = _Notes(world)
    before = []
    for logger in map(logging.getLogger, LOGGERS):
        before.append((logger, logger.level, logger.propagate))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def simulate(seed: int, kinds: Sequence[str] = faults.ALL, plant: Plant | None = None, **settings: object) -> Report:
    """One run. ``plant`` may alter the world before it begins; ``settings`` are those of the masters."""
    processes: list[Process] = []
    with virtual_loop(processes) as loop:
        world = World(seed, loop, processes, settings)
        if plant is not None:
            plant(world)
        with _logs(world), _small():
            try:
                loop.run_until_complete(world.run(kinds))
            except Deadlock as deadlock:
                world.violate("something goes on", str(deadlock))
            seconds = loop.time()
            world.check()
            trace = list(world.trace)
            world.is_over = True
            world.network.over()
            if loop.failures and world.violation is None:
                world.violate("no bugs", loop.failures[0])
            loop.end(processes)
    text = "\n".join(trace)
    return Report(seed, world.violation, trace, blake3(text.encode()).hexdigest(), world.counts, seconds)
