"""Connections to the masters, and the search for the one that leads.

One connection per master, made when it is needed and kept: after a failover the next leader is already connected. While
there is no leader each master is asked by a task of its own, so one that has stopped delays no other's answer.

Belongs to one event loop; atomic between awaits: who leads, and which connections there are.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import aiohttp

from gfsclient.user import User
from gfsprotocol import network, rpc
from gfsprotocol.channel import Channel
from gfsprotocol.errors import (
    AuthenticationFailed,
    ConnectionLost,
    DeadlineExceeded,
    GfsError,
    NotLeader,
    VersionMismatch,
)
from gfsprotocol.ids import ClientId
from gfsprotocol.messages import KeepAlive, NoticeBody, Watch

CONNECT_SECONDS: Final = 2.0
PROBE_SECONDS: Final = 3.0
"""A master that does not answer for so long is connected anew."""
GOODBYE_SECONDS: Final = 1.0
BACKOFF_SECONDS_MIN: Final = 0.02
BACKOFF_SECONDS_MAX: Final = 1.0
ASK_AGAIN_SECONDS_MAX: Final = 0.2
"""A standby may lead at any moment: it is asked again at least so often."""
HINT_SECONDS: Final = 0.1
"""An address that a master has told us of is asked after so long at the latest."""
HINTS_MAX: Final = 8
"""Addresses that only masters have told us of."""

Dial = Callable[[str], Awaitable[Channel]]


_shared: Final = random.Random()  # noqa: S311 - spreads retries and load, guards nothing


def backoff_seconds(
    attempt: int,
    least: float = BACKOFF_SECONDS_MIN,
    most: float = BACKOFF_SECONDS_MAX,
    randomness: random.Random = _shared,
) -> float:
    """How long to wait before retry number ``attempt`` (from 0): exponential, with full jitter on its upper half."""
    full: float = min(most, least * 2 ** min(attempt, 16))
    return full * randomness.uniform(0.5, 1.0)


class Observer(Protocol):
    """Who keeps what the leader answers; called on the event loop. See :class:`gfsclient.watcher.Watcher`."""

    def elected(self, leader: rpc.Peer, asked_at: float) -> None:
        """This leader is asked from now on, and watches for us: it has answered a Watch sent at ``asked_at``."""

    def left(self) -> None:
        """The leader that was elected is asked no more, or is gone."""

    def told(self, body: NoticeBody) -> None:
        """A master's notice, in order with its answers."""


class _Listener(rpc.NoService):
    """Takes the masters' notices."""

    def __init__(self, links: "Links") -> None:
        self._links = links

    def notice(self, peer: rpc.Peer, body: NoticeBody) -> None:  # noqa: ARG002 - one that leads no more told the truth
        if self._links.observer is not None:
            self._links.observer.told(body)


class _Link:
    """The connection to one master."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.peer: rpc.Peer | None = None
        self.runner: asyncio.Task[None] | None = None
        self.connecting: asyncio.Task[rpc.Peer] | None = None


class Links:
    """All masters of a cluster."""

    def __init__(
        self,
        addresses: Sequence[str],
        client: ClientId,
        key: bytes,
        user: User,
        dial: Dial | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        """``randomness`` spreads retries and load; it guards nothing."""
        self.randomness = randomness or _shared
        self.addresses = tuple(dict.fromkeys(addresses))
        self.dial = dial or self._dial_websocket
        self.leader: rpc.Peer | None = None
        """Who led when it was asked last, and is still connected as far as we know."""
        self.observer: Observer | None = None
        self.reasons: dict[str, str] = {}
        """Why each master was of no use when it was asked last."""
        self._client = client
        self._key = key
        self._user = user
        self._session: aiohttp.ClientSession | None = None
        self._links = {address: _Link(address) for address in self.addresses}
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    def hint(self, address: str) -> None:
        """A master says that this one leads."""
        if address and address not in self._links and len(self._links) < len(self.addresses) + HINTS_MAX:
            self._links[address] = _Link(address)

    @property
    def is_watched(self) -> bool:
        return self.observer is not None

    def watch(self, observer: Observer | None) -> None:
        """The leader is to be asked to watch; one that was not is looked for anew."""
        if self.leader is not None:
            self.demote(self.leader)
        self.observer = observer

    def abandon(self, peer: rpc.Peer) -> None:
        """The peer is of no use: its connection ends, and calls that wait for it fail."""
        self.demote(peer)
        for link in self._links.values():
            if link.peer is peer:
                self._drop(link)

    def demote(self, peer: rpc.Peer) -> None:
        """The peer does not lead (any more); it stays connected."""
        if self.leader is peer:
            self.leader = None
            if self.observer is not None:
                self.observer.left()

    # ---------------------------------------------------------------------------------------------------- the search

    async def search(self, besides: rpc.Peer | None = None) -> None:
        """Asks all masters, ``besides`` one, until one leads: it is :attr:`leader` then.

        Raises AuthenticationFailed or VersionMismatch when every master that is asked refuses us for good.
        """
        refusals: dict[str, GfsError] = {}
        tasks: dict[str, asyncio.Task[tuple[rpc.Peer, float]]] = {}
        try:
            while True:
                for address, link in list(self._links.items()):
                    if address not in tasks and (besides is None or link.peer is not besides):
                        tasks[address] = asyncio.create_task(self._ask_until_it_leads(link))
                if not tasks:
                    return
                asked = [task for address, task in tasks.items() if address not in refusals]
                await asyncio.wait(asked, timeout=HINT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for address, task in tasks.items():
                    if not task.done() or address in refusals:
                        continue
                    error = task.exception()
                    if error is None:
                        self._elect(*task.result())
                        return
                    if not isinstance(error, AuthenticationFailed | VersionMismatch):
                        raise error
                    refusals[address] = error
                if len(refusals) == len(tasks):
                    if besides is None:
                        raise next(iter(refusals.values()))
                    return
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _elect(self, peer: rpc.Peer, asked_at: float) -> None:
        old = self.leader
        if old is not None and old is not peer:
            self.abandon(old)
        self.leader = peer
        if self.observer is not None:
            self.observer.elected(peer, asked_at)

    async def _ask_until_it_leads(self, link: _Link) -> tuple[rpc.Peer, float]:
        """The peer, and when the question was sent that it answered."""
        attempt = 0
        while True:
            try:
                peer = await self._connected(link)
                asked_at = await self._ask(link, peer)
            except (AuthenticationFailed, VersionMismatch) as error:
                self.reasons[link.address] = error.message
                raise
            except NotLeader as error:
                self.reasons[link.address] = error.message
                self.hint(error.hint)
                await asyncio.sleep(backoff_seconds(attempt, most=ASK_AGAIN_SECONDS_MAX, randomness=self.randomness))
            except GfsError as error:
                self.reasons[link.address] = error.message
                await asyncio.sleep(backoff_seconds(attempt, randomness=self.randomness))
            else:
                return peer, asked_at
            attempt += 1

    async def _ask(self, link: _Link, peer: rpc.Peer) -> float:
        """Whether it leads: only a leader answers KeepAlive, or Watch. One that does not answer at all is dropped.

        When the question was sent that it has answered.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                is_watched, asked_at = self.is_watched, loop.time()
                await peer.call(Watch() if is_watched else KeepAlive(), PROBE_SECONDS, self._user)
                if is_watched == self.is_watched:
                    return asked_at
        except (ConnectionLost, DeadlineExceeded):
            if link.peer is peer:
                self._drop(link)
            raise

    # ------------------------------------------------------------------------------------------------- connections

    def standby(self) -> rpc.Peer | None:
        """A master that is connected and not the leader, or None; connects to one if none is."""
        others = [link for link in self._links.values() if self.leader is None or link.peer is not self.leader]
        connected = [link.peer for link in others if link.peer is not None and not link.peer.is_lost]
        if connected:
            return self.randomness.choice(connected)
        for link in others:
            if link.connecting is None:
                self._in_background(self._connect_quietly(link))
        return None

    async def _connect_quietly(self, link: _Link) -> None:
        try:
            await self._connected(link)
        except GfsError as error:
            self.reasons[link.address] = error.message

    async def _connected(self, link: _Link) -> rpc.Peer:
        """The link's peer, connected by one task for all who want it."""
        if link.peer is not None and not link.peer.is_lost:
            return link.peer
        if self._closed:
            raise ConnectionLost("the file system is closed")
        if link.connecting is None:
            link.connecting = asyncio.create_task(self._connect(link))
            link.connecting.add_done_callback(_retrieve)
        return await asyncio.shield(link.connecting)

    async def _connect(self, link: _Link) -> rpc.Peer:
        try:
            try:
                channel = await self.dial(link.address)
            except (OSError, ValueError) as error:
                raise ConnectionLost(str(error)) from error
            try:
                peer = await rpc.connect(channel, "client", self._client, self._key, _Listener(self))
            except BaseException:
                self._in_background(channel.close())
                raise
            if self._closed:
                self._in_background(channel.close())
                raise ConnectionLost("the file system is closed")
            self._drop(link)
            link.peer, link.runner = peer, self._in_background(peer.run())
            link.runner.add_done_callback(lambda _: self.demote(peer))
            return peer
        finally:
            link.connecting = None

    def _drop(self, link: _Link) -> None:
        peer, runner = link.peer, link.runner
        link.peer = link.runner = None
        if peer is None or runner is None:
            return
        self.demote(peer)
        runner.cancel()
        self._in_background(peer.channel.close())

    async def _dial_websocket(self, address: str) -> Channel:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return await network.dial(self._session, address, CONNECT_SECONDS)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs what no one may have to wait for: saying goodbye to a peer that has stopped takes its time."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def close(self) -> None:
        """Ends all connections; calls that wait fail with ConnectionLost."""
        self._closed = True
        for link in self._links.values():
            if link.connecting is not None:
                link.connecting.cancel()
                await asyncio.gather(link.connecting, return_exceptions=True)
            self._drop(link)
        if self._background:
            await asyncio.wait(self._background, timeout=GOODBYE_SECONDS)
        for task in self._background:
            task.cancel()
        if self._session is not None:
            await self._session.close()


def _retrieve(task: "asyncio.Task[rpc.Peer]") -> None:
    """Marks the outcome as seen, also if the last one who waited for it has given up."""
    if not task.cancelled():
        task.exception()
