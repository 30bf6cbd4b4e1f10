"""What goes wrong in a run, when, and to whom: chosen by the seed."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from gfsclient.masters import Masters
from gfsmaster.oplog import Leadership
from gfsprotocol import messages as msg
from gfsprotocol.errors import GfsError
from gfsprotocol.ids import ClientId
from tests.simulation.history import USER
from tests.simulation.journal import Trouble
from tests.simulation.loop import Process
from tests.simulation.machines import Machine
from tests.simulation.network import End

if TYPE_CHECKING:
    from tests.simulation.world import World

BREAK_SECONDS: Final = 0.4
"""Between two faults, on average."""
WALL_JUMPS_SECONDS: Final = (-3600.0, 0.0, 3600.0)
ADMIN: Final = ClientId(b"administrator...")


class Faults:
    """Breaks something every now and then."""

    def __init__(self, world: "World", kinds: Sequence[str]) -> None:
        self._world = world
        self._random = world.random
        self._kinds = list(kinds)
        self._later: set[asyncio.Task[None]] = set()
        self._admin = Process("admin")
        world.processes.append(self._admin)

    async def run(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._random.uniform(0.3, 1.0))
        try:
            while loop.time() < until:
                kind = self._random.choice(self._kinds)
                self._world.note("fault", None, kind)
                self._world.counts[kind] += 1
                getattr(self, "_" + kind)()
                await asyncio.sleep(self._random.expovariate(1 / BREAK_SECONDS))
        finally:
            for task in list(self._later):
                task.cancel()

    def _after(self, seconds: float, action: Callable[..., object], *arguments: object) -> None:
        async def work() -> None:
            await asyncio.sleep(seconds)
            action(*arguments)

        task = asyncio.create_task(work())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _victim(self) -> Machine:
        """Most often the leader."""
        leading = [machine for machine in self._world.machines if machine.is_up and machine.node.leader is not None]
        if leading and self._random.random() < 0.7:
            return self._random.choice(leading)
        return self._random.choice(self._world.machines)

    # ------------------------------------------------------------------------------------------------------ processes

    def _restart_later(self, machine: Machine) -> None:
        self._after(self._random.choice((0.02, 0.3, 1.0, 3.0)), machine.start)

    def _crash(self) -> None:
        machine = self._victim()
        if self._random.random() < 0.5 and machine.is_up:
            machine.process.fuse = self._random.randrange(200)
        else:
            machine.process.kill()
        self._restart_later(machine)

    def _crash_at_commit(self) -> None:
        """Before the append has its effect, between effect and answer, or soon after the answer."""
        machine = self._victim()
        if machine.is_up:
            machine.journal.trouble.kills = self._random.choice(("before", "at", "after"))
        self._after(self._random.uniform(0.3, 2.0), machine.start)

    def _crash_twice(self) -> None:
        """The leader, and whoever wins next, at any moment of its beginning."""
        world = self._world
        fuse = self._random.randrange(300)

        def elected(leadership: Leadership) -> None:
            world.on_elected.remove(elected)
            for machine in world.machines:
                if machine.name == leadership.holder and machine.is_up:
                    world.note("crashes as soon as it is elected", machine.process)
                    machine.process.fuse = fuse
                    self._restart_later(machine)

        world.on_elected.append(elected)
        self._crash()

    def _pause(self) -> None:
        process = self._victim().process
        self._world.note("is paused", process)
        process.pause()
        self._after(self._random.choice((0.1, 0.5, 1.5, 3.0)) * self._random.uniform(0.5, 1.5), process.resume)

    def _pause_in_transaction(self) -> None:
        """Stopped with the log's lock in its hand."""
        self._trouble().stops_seconds = self._random.choice((0.5, 1.5, 4.0)) * self._random.uniform(0.5, 1.5)

    def _stop(self) -> None:
        """As by an update: SIGTERM, and started again when it has ended."""
        machine = self._victim()
        machine.stop()
        for _ in range(3):
            self._after(self._random.uniform(0.2, 3.0), machine.start)

    def _handover(self) -> None:
        async def work() -> None:
            masters = Masters(
                self._world.addresses,
                self._world.client_key,
                USER,
                5.0,
                ADMIN,
                lambda address: self._world.network.dial(self._admin, address),
                False,
                self._random,
            )
            try:
                await masters.call(msg.Handover(), 5.0)
            except GfsError as error:
                self._world.note("no handover", self._admin, type(error).__name__)
            finally:
                await masters.close()

        self._admin.start(work())

    def _restart_server(self) -> None:
        server = self._random.choice(list(self._world.servers.values()))
        server.process.kill()

        def start() -> None:
            if server.process.is_dead:
                server.start()

        self._after(self._random.choice((0.05, 1.0, 4.0)), start)

    # -------------------------------------------------------------------------------------------------------- network

    def _hosts(self) -> list[str]:
        world = self._world
        hosts = [machine.name for machine in world.machines] + [client.process.name for client in world.clients]
        return hosts + [server.name for server in world.servers.values()]

    def _partition(self) -> None:
        """One master against all others, or a pair; in one direction or both."""
        victim = self._victim().name
        others = [host for host in self._hosts() if host != victim]
        if self._random.random() < 0.4:
            others = self._random.sample(others, self._random.randrange(1, 4))
        ways = self._random.choice(("in", "out", "both"))
        pairs = [(other, victim) for other in others if ways != "out"]
        pairs += [(victim, other) for other in others if ways != "in"]
        self._world.note("is cut off", None, victim, ways, *others)
        for pair in pairs:
            self._world.network.block(*pair)
        seconds = self._random.choice((0.2, 1.0, 2.5, 4.0)) * self._random.uniform(0.5, 1.5)
        for pair in pairs:
            self._after(seconds, self._world.network.heal, *pair)

    def _break_connections(self) -> None:
        ends = list(self._world.network.ends)
        for end in self._random.sample(ends, min(len(ends), self._random.randrange(1, 6))):
            self._world.network.cut(end)

    def _drop_answers(self) -> None:
        """The next answers to some clients are lost: what they asked for is done, and asked for again."""
        ends = self._client_ends()
        for end in self._random.sample(ends, min(len(ends), 4)):
            end.far.drops_next = True

    def _late_requests(self) -> None:
        """The next requests of some clients arrive when they have been made again on another connection."""
        ends = self._client_ends()
        for end in self._random.sample(ends, min(len(ends), 4)):
            end.delays_next = self._random.choice((0.01, 0.1, 1.0)) * self._random.uniform(0.5, 1.5)

    def _client_ends(self) -> list[End]:
        """Of connections to masters."""
        return [end for end in self._world.network.ends if end.process.name.startswith("client")]

    def _slow_link(self) -> None:
        host = self._random.choice(self._hosts())
        self._world.network.slow[host] = self._random.choice((0.02, 0.2, 1.0))
        self._after(self._random.uniform(0.5, 3.0), self._world.network.slow.pop, host, None)

    # -------------------------------------------------------------------------------------------------------- the log

    def _trouble(self) -> Trouble:
        return self._victim().journal.trouble

    def _journal_unreachable(self) -> None:
        self._trouble().unreachable_until = asyncio.get_running_loop().time() + self._random.uniform(0.1, 3.0)

    def _journal_hangs(self) -> None:
        self._trouble().hanging_until = asyncio.get_running_loop().time() + self._random.uniform(0.3, 4.0)

    def _journal_fails(self) -> None:
        self._trouble().fails += self._random.randrange(1, 3)

    def _journal_loses_answers(self) -> None:
        self._trouble().loses_answers += self._random.randrange(1, 3)

    def _journal_slow(self) -> None:
        trouble = self._trouble()
        trouble.slow_seconds = self._random.choice((0.02, 0.1, 0.4))
        self._after(self._random.uniform(0.5, 3.0), setattr, trouble, "slow_seconds", 0.0)

    def _checkpoint(self) -> None:
        """No fault, but who sleeps over two of them finds the log trimmed."""
        if self._world.log.batches:
            self._world.log.checkpoint(self._world.state)

    # ---------------------------------------------------------------------------------------------------------- clocks

    def _clock_jump(self) -> None:
        machine = self._random.choice(self._world.machines)
        machine.clock.wall_error_seconds = self._random.choice(WALL_JUMPS_SECONDS)


def heal(world: "World") -> None:
    """Everything works again, and whoever is dead is started."""
    world.on_elected.clear()
    for machine in world.machines:
        machine.journal.trouble = Trouble()
        machine.process.fuse = -1
        machine.process.resume()
        machine.start()
    for server in world.servers.values():
        if server.process.is_dead:
            server.start()
    for end in world.network.ends:
        end.drops_next, end.delays_next = False, 0.0
    world.network.heal_all()


ALL: Final = (
    "crash",
    "crash_at_commit",
    "crash_twice",
    "pause",
    "pause_in_transaction",
    "stop",
    "handover",
    "restart_server",
    "partition",
    "break_connections",
    "drop_answers",
    "late_requests",
    "slow_link",
    "journal_unreachable",
    "journal_hangs",
    "journal_fails",
    "journal_loses_answers",
    "journal_slow",
    "checkpoint",
    "clock_jump",
)
"""Names of methods of :class:`Faults`, without the underscore."""
