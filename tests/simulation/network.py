"""Connections between simulated processes: they delay, break, refuse, and stand still in one or both directions.

A connection is a stream like TCP's: frames arrive in order or not at all. What was sent before a close still arrives,
however late, which is how one request comes to be delivered twice: on the old connection, and again on the new one.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from gfsprotocol.channel import REFUSED
from gfsprotocol.errors import ConnectionLost
from tests.simulation.loop import MACHINE, Process

DELAY_SECONDS: Final = (0.0001, 0.002)
DIAL_SECONDS: Final = 2.0
RETRANSMIT_SECONDS: Final = 1.5
"""What a partition has held up arrives so long after its end at the latest; new connections may be faster."""

Accept = Callable[["End"], Awaitable[None]]


class End:
    """One end of a connection: a gfsprotocol Channel."""

    def __init__(self, network: "Network", process: Process, other: str) -> None:
        self.process = process
        self.peer = other
        self.far: End
        self.drops_next = False
        """Whether the next frame sent from here is lost, and the connection with it."""
        self.delays_next = 0.0
        """If not 0, the next frame sent from here arrives so many seconds later, and this side's connection breaks."""
        self.is_closed = False
        self._network = network
        self._inbox: deque[bytes | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._flying: deque[tuple[float, bytes | None]] = deque()
        self._is_timed = False
        self._is_held = False
        self._held_until = 0.0

    async def send(self, frame: bytes) -> None:
        if self.is_closed or self.far.is_broken:
            raise ConnectionLost(f"the connection to {self.peer} is closed")
        if self.drops_next:
            self._network.note("an answer is lost", self.process, self.peer)
            self._network.cut(self)
            return
        self._fly(frame)
        if self.delays_next:
            self._network.note("a request comes late", self.process, self.peer)
            self._held_until = asyncio.get_running_loop().time() + self.delays_next
            self._fly(None)
            self.take(None)

    async def receive(self) -> bytes:
        while not self._inbox and not self.is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        frame = None if self.is_closed else self._inbox.popleft()
        if frame is None:
            self.is_closed = True
            raise ConnectionLost(f"{self.peer} closed the connection")
        return frame

    async def close(self) -> None:
        self.shut()

    def shut(self) -> None:
        """What was sent arrives, and then the end of the stream."""
        if not self.is_closed:
            self.is_closed = True
            self._fly(None)
            self._wake()

    @property
    def is_broken(self) -> bool:
        return bool(self._inbox) and self._inbox[-1] is None

    def take(self, frame: bytes | None) -> None:
        """Something arrives."""
        if not self.is_closed:
            self._inbox.append(frame)
            self._wake()

    def lose_everything(self) -> None:
        """The connection is gone, with all that was under way."""
        self._flying.clear()
        self.take(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fly(self, frame: bytes | None) -> None:
        arrival = asyncio.get_running_loop().time() + self._network.delay(self.process.name, self.far.process.name)
        if self._flying:
            arrival = max(arrival, self._flying[-1][0])
        self._flying.append((arrival, frame))
        self.move()

    def move(self) -> None:
        """Delivers what is due and not held up, and comes back for the rest."""
        loop = asyncio.get_running_loop()
        if self._network.is_blocked(self.process.name, self.far.process.name):
            self._is_held = True
            return
        while self._flying and max(self._flying[0][0], self._held_until) <= loop.time():
            frame = self._flying.popleft()[1]
            self.far.take(frame)
            if frame is None:
                self._network.forget(self)
        if self._flying and not self._is_timed:
            self._is_timed = True
            loop.call_at(max(self._flying[0][0], self._held_until), self._due, context=MACHINE)

    def go_on(self, seconds: float) -> None:
        """The way is free again; what was held up is sent once more after so long, as TCP does."""
        if self._is_held:
            self._is_held = False
            self._held_until = asyncio.get_running_loop().time() + seconds
        self.move()

    def _due(self) -> None:
        self._is_timed = False
        self.move()


class Network:
    """All hosts and their connections. Hosts are named like the processes that run on them."""

    def __init__(self, randomness: random.Random, note: Callable[..., None]) -> None:
        self.note = note
        self._random = randomness
        self._listeners: dict[str, tuple[Process, Accept]] = {}
        self.ends: dict[End, None] = {}
        """Of all connections, in the order of their making."""
        self._blocked: set[tuple[str, str]] = set()
        self.slow: dict[str, float] = {}
        """By host: how many seconds what it sends may take at most."""
        self.is_over = False

    def listen(self, address: str, process: Process, accept: Accept) -> None:
        """Until the process dies."""
        self._listeners[address] = (process, accept)
        process.on_death.append(lambda: self._died(process))

    async def dial(self, process: Process, address: str) -> End:
        loop = asyncio.get_running_loop()
        host = address.partition(":")[0]
        await asyncio.sleep(2 * self.delay(process.name, host))
        give_up = loop.time() + DIAL_SECONDS
        while self.is_blocked(process.name, host) or self.is_blocked(host, process.name):
            if loop.time() >= give_up:
                raise ConnectionLost(f"{address} does not answer")
            await asyncio.sleep(DIAL_SECONDS / 4)
        listener = self._listeners.get(address)
        if listener is None or self.is_over:
            raise ConnectionLost(f"{address} refused the connection", hint=REFUSED)
        near, far = End(self, process, address), End(self, listener[0], process.name)
        near.far, far.far = far, near
        self.ends[near] = self.ends[far] = None
        listener[0].start(listener[1](far))  # type: ignore[arg-type]
        return near

    def delay(self, source: str, target: str) -> float:
        return self._random.uniform(*DELAY_SECONDS) + self._random.random() * self.slow.get(source, 0.0)

    # -------------------------------------------------------------------------------------------------------- faults

    def is_blocked(self, source: str, target: str) -> bool:
        return (source, target) in self._blocked

    def block(self, source: str, target: str) -> None:
        """Nothing gets through in this direction."""
        self._blocked.add((source, target))

    def heal(self, source: str, target: str) -> None:
        self._blocked.discard((source, target))
        for end in list(self.ends):
            if (end.process.name, end.far.process.name) == (source, target):
                end.go_on(self._random.random() * RETRANSMIT_SECONDS)

    def heal_all(self) -> None:
        self.slow.clear()
        for source, target in sorted(self._blocked):
            self.heal(source, target)

    def cut(self, end: End) -> None:
        """The connection breaks for both, and what was under way is lost."""
        end.lose_everything()
        end.far.lose_everything()
        self.forget(end)

    def forget(self, end: End) -> None:
        if end.is_closed or end.far.is_closed or end.is_broken:
            self.ends.pop(end, None)

    def stop_listening(self, address: str) -> None:
        self._listeners.pop(address, None)

    def _died(self, process: Process) -> None:
        """The kernel closes what the process had open; what it has sent still arrives."""
        for address, listener in list(self._listeners.items()):
            if listener[0] is process:
                del self._listeners[address]
        for end in list(self.ends):
            if end.process is process:
                end.shut()

    def over(self) -> None:
        """The run is over: no one gets anywhere any more."""
        self.is_over = True
        for end in list(self.ends):
            self.cut(end)
