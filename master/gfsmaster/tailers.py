"""The standbys that follow a leader, as the leader sees them.

Each asks for what comes after its last record and is answered as soon as something is committed, with the batches
themselves as long as they are kept here; what is older it reads from the log. It asks again when it has applied them,
so nothing piles up for a standby that is slow or stopped.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from gfsmaster.commits import Committer
from gfsmaster.oplog import Batch
from gfsmaster.term import Term
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import InvalidArgument, NotFound
from gfsprotocol.rpc import Peer

KEPT_BYTES_MAX: Final = 4 << 20
REPLY_BYTES_MAX: Final = 1 << 20
STANDBYS_MAX: Final = 64
PUSH_SECONDS: Final = 0.005
"""So much is between two pushes at least: a standby takes several batches at little more than the cost of one."""


@dataclass(slots=True)
class Standby:
    """A node that follows. ``heard`` is the monotonic time of its last question, in seconds."""

    node: str
    address: str
    peer: Peer
    sequence: int
    heard: float
    waiting: int = 0
    """The request that is still to be answered, or 0."""


class Tailers:
    """Belongs to one leadership."""

    def __init__(self, committer: Committer, clock: Clock, term: Term) -> None:
        self._committer = committer
        self._clock = clock
        self._term = term
        self._recent: deque[Batch] = deque()
        self._recent_bytes = 0
        self._standbys: dict[str, Standby] = {}
        self._asked = asyncio.Event()
        self._pushed_at = 0.0
        self._next_push: asyncio.TimerHandle | None = None

    async def caught_up(self, standby: Standby) -> None:
        """Returns when the standby has everything that is committed. Without a deadline of its own."""
        while standby.sequence < self._committer.committed:
            self._asked.clear()
            await self._asked.wait()

    def ask(self, peer: Peer, request: msg.Request, body: msg.TailLog) -> None:
        """Answers now, or when there is something."""
        now = self._clock.monotonic()
        standby = self._standbys.get(body.node)
        if standby is None:
            if len(self._standbys) >= STANDBYS_MAX:
                raise InvalidArgument(f"{STANDBYS_MAX} standbys follow already")
            standby = self._standbys[body.node] = Standby(body.node, body.address, peer, body.after, now)
        standby.address, standby.peer, standby.sequence = body.address, peer, body.after
        standby.heard, standby.waiting = now, request.id
        self._asked.set()
        if body.after < self._committer.committed and self._next_push is None:
            self._answer(standby)

    def committed(self, batch: Batch) -> None:
        """A batch is durable: those who wait for it get it, now or a little later together with what follows."""
        self._recent.append(batch)
        self._recent_bytes += len(batch.payload)
        while self._recent_bytes > KEPT_BYTES_MAX:
            self._recent_bytes -= len(self._recent.popleft().payload)
        if self._next_push is not None:
            return
        loop = asyncio.get_running_loop()
        wait = self._pushed_at + PUSH_SECONDS - loop.time()
        if wait > 0:
            self._next_push = loop.call_later(wait, self._push)
        else:
            self._push()

    def _push(self) -> None:
        self._next_push = None
        self._pushed_at = asyncio.get_running_loop().time()
        for standby in self._standbys.values():
            if standby.waiting and standby.sequence < self._committer.committed:
                self._answer(standby)

    def close(self) -> None:
        """Nothing is pushed any more."""
        if self._next_push is not None:
            self._next_push.cancel()
            self._next_push = None

    def tick(self, seconds: float) -> None:
        """Answers those who have waited for ``seconds``: they hear that the leader lives."""
        now = self._clock.monotonic()
        for standby in self._standbys.values():
            if standby.waiting and now - standby.heard >= seconds:
                self._answer(standby)

    def disconnected(self, peer: Peer) -> None:
        """A connection ended."""
        for node in [node for node, standby in self._standbys.items() if standby.peer is peer]:
            del self._standbys[node]

    def choose(self, node: str) -> Standby:
        """Who may follow as the leader: ``node``, or the one with the most records. NotFound if there is none."""
        if node:
            found = self._standbys.get(node)
            if found is None:
                known = ", ".join(sorted(self._standbys)) or "none"
                raise NotFound(f"no standby '{node}' follows this leader (those that do: {known})")
            return found
        if not self._standbys:
            raise NotFound("no standby follows this leader, so there is no one to hand over to")
        return max(self._standbys.values(), key=lambda standby: standby.sequence)

    def farewell(self, successor: str) -> None:
        """The epoch was given back: all hear who is to follow."""
        for standby in self._standbys.values():
            if standby.waiting:
                self._answer(standby, successor)

    def status(self) -> tuple[msg.StandbyStatus, ...]:
        now = self._clock.monotonic()
        return tuple(
            msg.StandbyStatus(standby.node, standby.address, standby.sequence, round(max(0.0, now - standby.heard), 3))
            for standby in self._standbys.values()
        )

    def _answer(self, standby: Standby, successor: str = "") -> None:
        batches, size = [], 0
        for batch in self._after(standby.sequence):
            if size >= REPLY_BYTES_MAX:
                break
            batches.append(msg.LogBatch(batch.first, batch.last, batch.epoch, batch.hash, batch.payload))
            size += len(batch.payload)
        term = self._term
        reply = msg.LogTail(term.epoch, self._committer.committed, term.clock_ms, tuple(batches), successor)
        request, standby.waiting = standby.waiting, 0
        standby.peer.respond(request, reply, self._committer.committed)

    def _after(self, sequence: int) -> list[Batch]:
        """What follows a record, if it is kept here. Searched from the end: a standby is hardly ever far behind."""
        newer: list[Batch] = []
        for batch in reversed(self._recent):
            if batch.first <= sequence:
                break
            newer.append(batch)
        newer.reverse()
        return newer if newer and newer[0].first == sequence + 1 else []
