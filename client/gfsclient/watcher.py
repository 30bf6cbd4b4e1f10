"""What a client that keeps answers needs to know: when others changed them, and whether it would be told at all.

The leader tells a connection that watches (:class:`~gfsprotocol.messages.Watch`) what others change of what it was
answered there. That is worth something only while the leader is known to lead: one that hangs, or is cut off from us,
tells nothing, and another may lead by then. So the leader is asked for a sign of life several times a second, and what
is kept is trusted for ``trust_seconds`` from the sending of the last question that was answered: the answer comes on
the same connection, behind every notice of what had changed before. A leader is followed by another when it has not
renewed its lease for ``lease_seconds`` (2 s by default); it renews four times a lease, so one that hangs from one
moment to the next is distrusted before that. When it dies or steps down, the connection's end or a notice says so.

Answers and notices arrive in order, but who waits for an answer runs only after the notices in the same frame were
taken. So whoever keeps an answer takes :attr:`Watcher.clock` before the question, and asks afterwards whether anything
was changed since.

Belongs to one event loop; atomic between awaits: all but waiting for the tick.
"""

import asyncio
import math
from collections.abc import Callable, Hashable
from typing import Final

from gfsclient.masters import Masters
from gfsprotocol.errors import GfsError, from_wire
from gfsprotocol.messages import ErrorReply, Invalidate, KeepAlive, NoticeBody, Response
from gfsprotocol.rpc import Peer

TRUST_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.1
PING_SECONDS: Final = 0.25
PING_DEADLINE_SECONDS: Final = 10.0
"""Longer than a silent leader is borne with: its silence must show for as long as the question is unanswered."""
READING_TURNS: Final = 10
"""Turns of the event loop after which what lies in its sockets has been read."""
SEARCH_PAUSE_SECONDS: Final = 1.0
CHANGES_MAX: Final = 65_536


class ChangeTimes:
    """When each of the last CHANGES_MAX inodes or names was changed."""

    def __init__(self) -> None:
        self._at: dict[Hashable, int] = {}
        self._forgotten = 0
        """Up to then changes may be forgotten."""

    def note(self, key: Hashable, now: int) -> None:
        self._at.pop(key, None)
        self._at[key] = now
        if len(self._at) > CHANGES_MAX:
            oldest = next(iter(self._at))
            self._forgotten = self._at.pop(oldest)

    def everything(self, now: int) -> None:
        self._at.clear()
        self._forgotten = now

    def since(self, key: Hashable, mark: int) -> bool:
        return mark < self._forgotten or self._at.get(key, 0) > mark


class Watcher:
    """Watches on whatever connection leads. Made on the masters' event loop; a watching client asks no standby."""

    def __init__(
        self,
        masters: Masters,
        on_invalidate: Callable[[Invalidate], None],
        on_everything: Callable[[], None],
        trust_seconds: float = TRUST_SECONDS,
    ) -> None:
        """``on_invalidate`` gets each notice, in order with the answers; ``on_everything``: drop all that is kept.

        Both are called on the event loop, and must not fail. ``trust_seconds`` is for how long a silent leader is
        believed to tell us of changes.
        """
        self._masters = masters
        self._on_invalidate = on_invalidate
        self._on_everything = on_everything
        self._trust_seconds = trust_seconds
        self._loop = asyncio.get_running_loop()
        self.clock = 1
        """Grows with each notice, and whenever all must be dropped."""
        self._inodes = ChangeTimes()
        self._names = ChangeTimes()
        self._leader: Peer | None = None
        self._proved_at = -math.inf
        """When the last question was sent that the leader has answered."""
        self._asked_at = -math.inf
        self._is_asked = False
        """Whether the leader has not answered the last question yet."""
        self._is_trusted = False
        """Whether something may be kept: it was trusted when we last looked."""
        masters.watch(self)
        self._pulse = asyncio.create_task(self._beat())

    # --------------------------------------------------------------------------------------------------- what is asked

    @property
    def is_current(self) -> bool:
        """Whether an answer may be kept: a leader is known that tells us when it is changed."""
        return (
            self._leader is not None
            and not self._leader.is_lost
            and self._loop.time() - self._proved_at < self._trust_seconds
        )

    def changed_since(self, inode: int, mark: int) -> bool:
        """Whether an inode may have been changed by others since :attr:`clock` was ``mark``."""
        return self._inodes.since(inode, mark)

    def name_changed_since(self, directory: int, name: bytes, mark: int) -> bool:
        """Whether others may have put something else, or nothing, under a name since :attr:`clock` was ``mark``."""
        return self._names.since((directory, name), mark)

    async def close(self) -> None:
        """Keeps nothing up to date any more."""
        self._pulse.cancel()
        await asyncio.gather(self._pulse, return_exceptions=True)
        self._masters.watch(None)
        self._leader = None
        self._drop_everything()

    # ------------------------------------------------------------------------------------------------------- the leader

    def elected(self, leader: Peer, asked_at: float) -> None:
        """From now on this leader is asked; it watches for us since it answered the question sent at ``asked_at``."""
        self._drop_everything()
        self._leader, self._proved_at, self._asked_at = leader, asked_at, asked_at
        self._is_asked = False
        self._is_trusted = True

    def left(self) -> None:
        """No leader is asked any more."""
        self._leader = None
        self._drop_everything()

    def told(self, body: NoticeBody) -> None:
        """A notice of a master."""
        if not isinstance(body, Invalidate):
            return
        if body.everything:
            self._drop_everything()
            return
        self.clock += 1
        for inode in (*body.inodes, *body.removed):
            self._inodes.note(inode, self.clock)
        for place in body.names:
            self._names.note(place, self.clock)
            self._inodes.note(place[0], self.clock)  # the directory was changed, too, but that is told only once
        self._on_invalidate(body)

    def _drop_everything(self) -> None:
        self.clock += 1
        self._inodes.everything(self.clock)
        self._names.everything(self.clock)
        self._is_trusted = False
        self._on_everything()

    # -------------------------------------------------------------------------------------------------- signs of life

    async def _beat(self) -> None:
        """Asks the leader for signs of life, and looks for one when there is none."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._leader is None or self._leader.is_lost:
                await self._find_leader()
            else:
                self._ping(self._leader)
                await self._judge()

    async def _find_leader(self) -> None:
        """Looks for a leader although no call waits for one: the next answer is to be kept again."""
        try:
            await self._masters.connect()
        except GfsError:
            # Whoever calls meanwhile is told the reason.
            await asyncio.sleep(SEARCH_PAUSE_SECONDS)

    async def _judge(self) -> None:
        """Drops all that is kept when the leader was silent for too long; it is trusted again when it answers."""
        if self._is_trusted and not self.is_current:
            # It may be this loop that was held up, and the answer lies unread.
            for _ in range(READING_TURNS):
                await asyncio.sleep(0)
        is_current = self.is_current
        if self._is_trusted and not is_current:
            self._drop_everything()
        self._is_trusted = is_current

    def _ping(self, leader: Peer) -> None:
        now = self._loop.time()
        if self._is_asked or now - self._asked_at < PING_SECONDS:
            return
        self._asked_at, self._is_asked = now, True
        answer = leader.submit(KeepAlive(), PING_DEADLINE_SECONDS, self._masters.user)
        answer.add_done_callback(lambda done: self._answered(leader, now, done))

    def _answered(self, leader: Peer, asked_at: float, answer: "asyncio.Future[Response]") -> None:
        if answer.cancelled() or answer.exception() is not None or leader is not self._leader:
            return
        self._is_asked = False
        body = answer.result().body
        if isinstance(body, ErrorReply):
            self._masters.note(leader, from_wire(body.code, body.message, body.hint))
        else:
            self._proved_at = max(self._proved_at, asked_at)
