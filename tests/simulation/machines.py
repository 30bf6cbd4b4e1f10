"""The hosts of the master nodes: on each one a process comes and goes, with the real :class:`gfsstandby.node.Node`."""

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gfsmaster.config import MasterConfig
from gfsmaster.oplog import Leadership
from gfsprotocol import rpc
from gfsprotocol.errors import GfsError
from gfsstandby.node import Node
from tests.simulation.journal import SimulatedJournal
from tests.simulation.loop import Process
from tests.simulation.network import End

if TYPE_CHECKING:
    from tests.simulation.world import World

LEASE_SECONDS: Final = 1.0
RATE_ERROR_MAX: Final = 0.02
"""How much faster or slower than true time a machine's monotonic clock may run."""


class MachineClock:
    """A monotonic clock at its own rate from its own beginning, and a wall clock that may jump."""

    def __init__(self, loop: asyncio.AbstractEventLoop, randomness: random.Random) -> None:
        self.wall_error_seconds = 0.0
        self._loop = loop
        self._rate = randomness.uniform(1 - RATE_ERROR_MAX, 1 + RATE_ERROR_MAX)
        self._begin = randomness.uniform(0, 1e6)

    def monotonic(self) -> float:
        return self._begin + self._loop.time() * self._rate

    def time_ns(self) -> int:
        return 1_700_000_000 * 10**9 + int((self._loop.time() + self.wall_error_seconds) * 1e9)


class Machine:
    """``node`` is that of the last process; it may be dead."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.name = f"node-{number}"
        self.config = MasterConfig(
            node=self.name,
            host=self.name,
            port=9400,
            journal="sqlite://",
            secret_file=Path("unused"),
            genesis=number == 0,
            lease_seconds=LEASE_SECONDS,
            heartbeat_seconds=0.5,
            server_silent_seconds=2.5,
            chunk_lease_seconds=4.0,
            **world.settings,  # type: ignore[arg-type]
        )
        self._random = random.Random(f"{world.seed} {self.name}")
        self.clock = MachineClock(asyncio.get_running_loop(), self._random)
        self.process = Process(self.name)
        self.process.kill()
        self.journal: SimulatedJournal
        self.node: Node
        self.is_stopping = False
        self._incarnation = 0
        self.task: asyncio.Task[None]

    @property
    def is_up(self) -> bool:
        return not self.process.is_dead

    def start(self) -> None:
        """A new process, if there is none."""
        if self.is_up:
            return
        self._incarnation += 1
        self.is_stopping = False
        process = self.process = Process(self.name)
        self.world.processes.append(process)
        identity = f"{self.name}/{self._incarnation}"
        journal = SimulatedJournal(self.world.log, process, self.name, identity, self._random)
        self.journal = journal
        self.node = Node(
            self.config,
            self.clock,
            self.world.secret,
            journal,
            lambda address: self.world.network.dial(process, address),
            self._end_holder,
            random.Random(self._random.random()),
        )
        self.world.network.listen(self.config.address, process, self._accept)
        self.task = process.start(self._run(process, self.node))
        self.world.note("starts", process, self._incarnation)

    async def _run(self, process: Process, node: Node) -> None:
        try:
            await node.run()
        except GfsError as error:
            self.world.violate("a node ends only when it is told to", f"{self.name}: {type(error).__name__}: {error}")
        else:
            if not self.is_stopping and not self.world.is_over:
                self.world.violate("a node ends only when it is told to", f"{self.name} just ended")
        self.world.note("ended", process)
        process.kill()

    def stop(self) -> None:
        """As by SIGTERM."""
        if self.is_up:
            self.is_stopping = True
            self.world.note("is told to stop", self.process)
            self.node.stop()

    async def _accept(self, end: End) -> None:
        node = self.node
        try:
            peer = await rpc.accept(end, "master", self.name.encode(), node.key_of_role, node)
        except GfsError:
            return
        await node.serve(peer)

    async def _end_holder(self, holder: Leadership) -> str:
        """Ends the very process that is named, if it is there, or the one that has stopped with the lock."""
        locker = self.world.log.locked_by
        for machine in self.world.machines:
            has_stopped = machine.process is locker and locker.is_paused
            is_named = holder.holder and f"{machine.name}/{machine._incarnation}" == holder.process
            if machine.is_up and (has_stopped if locker is not None else is_named):
                if machine is self:
                    return "it is this very process, and another one has the lock"
                self.world.note("is ended for the lock", machine.process, "by", self.name)
                machine.process.kill()
                return f"process {holder.process} was ended"
        return f"process {holder.process} is gone"
