"""The link of a standby to the leader: gets what is committed as it is committed, and notices when the leader is gone.

One question is under way at a time (:class:`~gfsprotocol.messages.TailLog`), so a slow standby gets what it can take,
and the leader knows how far it is. When the connection breaks, the leader's address is tried at once: if it refuses
connections, no process listens there any more, and the election need not wait for the lease.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from gfsmaster.oplog import Batch, Leadership
from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.channel import REFUSED, Channel, Clock
from gfsprotocol.errors import AvailabilityError, ConnectionLost, LogFailed, NotLeader, RemoteProtocolError, WireError
from gfsstandby.follower import Follower

log = logging.getLogger(__name__)

Dial = Callable[[str], Awaitable[Channel]]

RETRY_SECONDS: Final = 0.1


class Tailing:
    """Follows one leader after the other; :meth:`follow` says which. ``run`` goes on until it is cancelled."""

    def __init__(
        self, follower: Follower, clock: Clock, dial: Dial, key: bytes, node: str, address: str, reply_seconds: float
    ) -> None:
        """``reply_seconds``: a leader that does not answer for so long is tried anew."""
        self._follower = follower
        self._clock = clock
        self._dial = dial
        self._key = key
        self._node = node
        self._address = address
        self._reply_seconds = reply_seconds
        self._leader = Leadership(0, "", "", 0)
        self._changed = asyncio.Event()
        self.alarm = asyncio.Event()
        """Set when there may be something to do about the leadership: the leader has resigned, or is gone."""
        self.refused_epoch = 0
        """The epoch whose leader's address has refused a connection."""
        self.ended_epoch = 0
        """The epoch whose leader has said itself that it is over."""
        self.successor = ""
        """Whom the leader has chosen when it resigned."""
        self.token_clock: tuple[int, int, float] | None = None
        """Epoch, milliseconds, and when that was (monotonic seconds): what the leader's token clock showed."""
        self._committed = 0
        self._level_at = clock.monotonic()
        """When we last had all that the leader had committed."""
        self._heard_at = clock.monotonic()

    def follow(self, leader: Leadership) -> None:
        """Who leads, as the log says."""
        if (leader.epoch, leader.address) != (self._leader.epoch, self._leader.address):
            self._leader = leader
            self._changed.set()

    @property
    def lag_ms(self) -> int:
        """How long ago we last had all that the leader had committed; 0 if we have it, as far as we have heard."""
        now = self._clock.monotonic()
        if self._follower.state.sequence >= self._committed and now - self._heard_at < self._reply_seconds:
            return 0
        return int((now - self._level_at) * 1000)

    async def run(self) -> None:
        while True:
            self._changed.clear()
            leader = self._leader
            if leader.holder and leader.holder != self._node:
                await self._tail(leader)
                wait = RETRY_SECONDS
            else:
                wait = 3600.0
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _tail(self, leader: Leadership) -> None:
        """Follows until the connection ends."""
        try:
            channel = await self._dial(leader.address)
            peer = await rpc.connect(channel, "master", self._node.encode(), self._key)
        except AvailabilityError as error:
            if error.hint == REFUSED and self._leader == leader:
                log.info("%s: nobody listens at the leader's address %s", self._node, leader.address)
                self.refused_epoch = leader.epoch
                self.alarm.set()
            return
        except WireError as error:
            log.warning("%s cannot follow the leader at %s: %s", self._node, leader.address, error)
            return
        running = asyncio.create_task(peer.run())
        try:
            while self._leader.epoch == leader.epoch:
                await self._ask(peer)
        except (AvailabilityError, RemoteProtocolError) as error:
            log.info("%s no longer follows %s: %s", self._node, leader.address, error)
            if not isinstance(error, NotLeader):
                # Gone, or only its connection? The next try tells, and an answer in the row of the log does.
                self._changed.set()
        except LogFailed as error:
            # The election's task reads as well, and warns; here it is tried again with the next connection.
            log.info("%s could not read what the leader has not pushed: %s", self._node, error)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _ask(self, peer: rpc.Peer) -> None:
        after = self._follower.state.sequence
        response = await peer.call(msg.TailLog(self._node, self._address, after), self._reply_seconds)
        tail = response.body
        if isinstance(tail, msg.EpochEnded):
            if tail.epoch == self._leader.epoch != self.ended_epoch:
                self.ended_epoch = tail.epoch
                self.alarm.set()
            raise NotLeader(f"it does not lead epoch {tail.epoch} any more")
        if not isinstance(tail, msg.LogTail):
            raise RemoteProtocolError(f"the leader answered {type(tail).__name__} to TailLog")
        now = self._clock.monotonic()
        self.token_clock = (tail.epoch, tail.token_clock_ms, now)
        self._committed = tail.committed
        await self._follower.take(
            [Batch(batch.first, batch.last, batch.epoch, batch.hash, batch.payload) for batch in tail.batches]
        )
        if self._follower.state.sequence < tail.committed and not tail.batches:
            await self._follower.catch_up()
        if self._follower.state.sequence >= tail.committed:
            self._level_at = self._clock.monotonic()
        self._heard_at = now
        if tail.successor:
            self.successor = tail.successor
            self.alarm.set()
            raise ConnectionLost("the leader has resigned")
