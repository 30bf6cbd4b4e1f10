"""Speaks to every master: registers, reports all replicas, then what changed; takes the leader's orders.

Lives on the event loop. A master's link forgets nothing that was not acknowledged: whatever goes wrong, it registers
and reports everything again.
"""

import asyncio
import logging
import math
import random
import struct
import threading
import time
from concurrent.futures import Future
from typing import Final

import aiohttp

from gfschunkserver.engine import Engine
from gfschunkserver.orders import Orders
from gfschunkserver.store import Store
from gfsprotocol import messages as m
from gfsprotocol import network, rpc
from gfsprotocol.errors import (
    AvailabilityError,
    ConnectionLost,
    ForeignStore,
    GfsError,
    LeaseLost,
    RemoteProtocolError,
    Unreachable,
    WireError,
)

log = logging.getLogger(__name__)

REPLICA: Final = struct.Struct("<QQQ")
REPORT_SLICE: Final = 20_000
STORED_PER_HEARTBEAT_MAX: Final = 20_000
CONNECT_SECONDS: Final = 3.0
REPLY_SECONDS: Final = 10.0
COALESCE_SECONDS: Final = 0.05
SPACING_SECONDS: Final = 0.25
"""What changes in a stream is told so often; the leader knows of new replicas since it has placed them."""
BACKOFF_SECONDS: Final = 0.2
BACKOFF_SECONDS_MAX: Final = 5.0
REFUSED_SECONDS: Final = 30.0
CONFIRM_SECONDS: Final = 9.0
CONFIRM_REPLY_SECONDS: Final = 3.0
CONFIRM_RETRY_SECONDS: Final = 0.1


class MasterLink:
    """The connection to one master, and what it has not been told yet."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.peer: rpc.Peer | None = None
        """While registered."""
        self.epoch = 0
        """What it said last; 0 while it does not lead."""
        self.changed: set[int] = set()
        self.finished: list[m.OrderResult] = []
        self.is_urgent = False
        """Whether the next heartbeat cannot wait."""
        self.told_at = -math.inf
        """When the last heartbeat was sent, in monotonic seconds."""
        self.wake = asyncio.Event()
        """There is something to tell."""
        self.hurry = asyncio.Event()
        """There is something that cannot wait for more."""

    def handle(self, peer: rpc.Peer, request: m.Request) -> None:  # noqa: ARG002
        """rpc.Service: masters ask nothing of chunk servers."""
        raise RemoteProtocolError(f"a chunk server answers no {type(request.body).__name__}")

    def notice(self, peer: rpc.Peer, body: m.NoticeBody) -> None:  # noqa: ARG002
        """rpc.Service: the master leads from now on. The answer to the next heartbeat, sent at once, says the rest."""
        if isinstance(body, m.Leading):
            self.is_urgent = True
            self.wake.set()
            self.hurry.set()


class Reporter:
    """All links, and who leads."""

    def __init__(
        self,
        store: Store,
        masters: list[str],
        key: bytes,
        host: str,
        port: int,
        rack: str,
        heartbeat_seconds: float,
    ) -> None:
        self._store = store
        self._key = key
        self._host = host
        self._port = port
        self._rack = rack
        self._heartbeat_seconds = heartbeat_seconds
        self._links = [MasterLink(address) for address in masters]
        self._noted: set[int] = set()
        """Chunks that changed and that no link was told of yet."""
        self._noting = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._confirmations: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._started = time.monotonic()
        self._engine: Engine
        self._orders: Orders
        self.connections = 0
        """Bulk connections, for heartbeats; the server's to set."""

    def start(self, engine: Engine, orders: Orders) -> None:
        self._engine = engine
        self._orders = orders
        self._store.listener = self.note
        self._tasks = [asyncio.create_task(self._keep_link(link)) for link in self._links]

    async def stop(self) -> None:
        """Ends all links; whoever waits for a confirmation hears that none will come."""
        self._stopping = True
        for task in [*self._tasks, *self._confirmations]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._confirmations, return_exceptions=True)

    def masters(self) -> dict[str, dict[str, object]]:
        """For people: which masters are reached, and what they said."""
        return {link.address: {"connected": link.peer is not None, "epoch": link.epoch} for link in self._links}

    # -------------------------------------------------------------------------------------------- from any thread

    def note(self, chunk: int) -> None:
        """The chunk's replica came, went, changed or turned bad. From any thread."""
        with self._noting:
            is_first = not self._noted
            self._noted.add(chunk)
        if is_first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_links)

    def confirm_grant(self, chunk: int, version: int, length: int) -> "Future[None]":
        """See :class:`~gfschunkserver.engine.Leader`. Unreachable if no leader answers in time."""
        return asyncio.run_coroutine_threadsafe(self._confirm(chunk, version, length), self._loop)

    def _wake_links(self) -> None:
        for link in self._links:
            link.wake.set()

    def _collect(self) -> None:
        """Takes what was noted for all links; whatever is noted from now on wakes them again."""
        with self._noting:
            noted, self._noted = self._noted, set()
        for link in self._links:
            link.changed.update(noted)

    async def _confirm(self, chunk: int, version: int, length: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._confirmations.add(task)
        try:
            await self._call_leader(chunk, version, length)
        finally:
            self._confirmations.discard(task)

    async def _call_leader(self, chunk: int, version: int, length: int) -> None:
        body = m.ConfirmGrant(self._store.server, chunk, version, length)
        deadline = self._loop.time() + CONFIRM_SECONDS
        reason = "no leader is known"
        while self._loop.time() < deadline and not self._stopping:
            link = max(self._links, key=lambda link: link.epoch if link.peer is not None else 0)
            if link.peer is not None and link.epoch:
                try:
                    await link.peer.call(body, CONFIRM_REPLY_SECONDS)
                except AvailabilityError as error:
                    reason = f"{link.address}: {error.message}"
                else:
                    return
            await asyncio.sleep(CONFIRM_RETRY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
        raise Unreachable(f"the grant for chunk {chunk:x} could not be confirmed: {reason}")

    # ---------------------------------------------------------------------------------------------------- one link

    async def _keep_link(self, link: MasterLink) -> None:
        """Connects again and again, for ever."""
        failures = 0
        async with aiohttp.ClientSession() as session:
            while True:
                pause = min(BACKOFF_SECONDS * 2 ** min(failures, 10), BACKOFF_SECONDS_MAX)
                try:
                    await self._serve_link(link, session)
                    failures = 0
                except ForeignStore as error:
                    log.error("not obeying the master %s: %s", link.address, error.message)  # noqa: TRY400
                    pause = REFUSED_SECONDS
                except WireError as error:
                    log.error("the master %s: %s", link.address, error.message)  # noqa: TRY400
                    pause = BACKOFF_SECONDS_MAX
                except GfsError as error:
                    level = logging.INFO if link.peer is not None or failures == 0 else logging.DEBUG
                    log.log(level, "the master %s: %s", link.address, error.message)
                    failures = 0 if link.peer is not None else failures + 1
                finally:
                    link.peer = None
                    link.epoch = 0
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    async def _serve_link(self, link: MasterLink, session: aiohttp.ClientSession) -> None:
        channel = await network.dial(session, link.address, CONNECT_SECONDS)
        name = self._store.server.to_bytes(8, "little")
        peer = await rpc.connect(channel, "chunkserver", name, self._key, link)
        running = asyncio.create_task(peer.run())
        try:
            seconds = await self._register(link, peer)
            while True:
                await self._heartbeat(link, peer)
                await self._rest(link, seconds)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _register(self, link: MasterLink, peer: rpc.Peer) -> float:
        """Introduces the server and reports all replicas; returns how often the master wants to hear of it."""
        usage = await asyncio.to_thread(self._store.usage)
        link.changed = set(self._store.corrupt_chunks())
        link.finished = []
        chunks = self._store.chunks()
        body = m.Register(
            self._store.server,
            self._store.cluster,
            self._host,
            self._port,
            usage,
            self._store.highest_epoch,
            chunks[-1] if chunks else 0,
            self._rack,
            time.monotonic() - self._started,
        )
        reply = (await peer.call(body, REPLY_SECONDS)).body
        if not isinstance(reply, m.Registered):
            raise ConnectionLost(f"it answered {type(reply).__name__} to the registration")
        await asyncio.to_thread(self._store.join_cluster, reply.cluster)
        await self._hear(link, reply.epoch, reply.token_clock_ms)
        for start in range(0, max(len(chunks), 1), REPORT_SLICE):
            packed, _ = self._pack(chunks[start : start + REPORT_SLICE])
            last = start + REPORT_SLICE >= len(chunks)
            await peer.call(m.ChunkReport(self._store.server, packed, last), REPLY_SECONDS)
        link.peer = peer
        log.info("registered with the master %s: %d chunks reported", link.address, len(chunks))
        return reply.heartbeat_seconds if reply.heartbeat_seconds > 0 else self._heartbeat_seconds

    async def _hear(self, link: MasterLink, epoch: int, token_clock_ms: int) -> None:
        """A master said which epoch it leads, if any. LeaseLost if that is over."""
        if epoch != link.epoch:
            link.epoch = 0
        if epoch:
            if epoch != self._store.highest_epoch:
                await asyncio.to_thread(self._store.obey, epoch)
            self._engine.access.heard(epoch, token_clock_ms)
            link.epoch = epoch

    async def _heartbeat(self, link: MasterLink, peer: rpc.Peer) -> None:
        link.is_urgent = False
        usage = await asyncio.to_thread(self._store.usage)
        link.told_at = self._loop.time()
        self._collect()
        chunks = list(link.changed)[:STORED_PER_HEARTBEAT_MAX]
        finished = tuple(link.finished[:STORED_PER_HEARTBEAT_MAX])
        link.changed.difference_update(chunks)
        del link.finished[: len(finished)]
        stored, absent = self._pack(chunks)
        corrupt = self._store.corrupt_chunks().intersection(absent)
        body = m.Heartbeat(
            self._store.server,
            usage,
            stored,
            tuple(chunk for chunk in absent if chunk not in corrupt),
            tuple(corrupt),
            finished,
            self.connections,
        )
        reply = (await peer.call(body, REPLY_SECONDS)).body
        if not isinstance(reply, m.Orders):
            raise ConnectionLost(f"it answered {type(reply).__name__} to a heartbeat")
        if reply.report_again:
            raise ConnectionLost("it asks for all chunks again")
        await self._take_orders(link, reply)

    async def _take_orders(self, link: MasterLink, reply: m.Orders) -> None:
        try:
            await self._hear(link, reply.epoch, reply.token_clock_ms)
        except LeaseLost as error:
            link.epoch = 0
            log.warning("refusing the orders of the master %s: %s", link.address, error.message)
            return
        if not reply.epoch:
            return

        def finished(result: m.OrderResult) -> None:
            # The next leader's orders have the same numbers.
            if link.epoch == reply.epoch:
                link.finished.append(result)
                link.wake.set()
                link.hurry.set()

        self._orders.take(reply.epoch, reply.orders, finished)

    async def _rest(self, link: MasterLink, seconds: float) -> None:
        """Until the next heartbeat is due, or something happened; what happens together is told together."""
        self._collect()
        if not link.changed and not link.finished and not link.is_urgent:
            link.wake.clear()
            if not await _set_within(link.wake, seconds):
                return
        if not link.finished and not link.is_urgent:
            link.hurry.clear()
            spacing = min(SPACING_SECONDS, seconds) - COALESCE_SECONDS
            await _set_within(link.hurry, link.told_at + spacing - self._loop.time())
        await asyncio.sleep(COALESCE_SECONDS)

    def _pack(self, chunks: list[int]) -> tuple[bytes, list[int]]:
        """Those of the chunks that are here, packed for a report, and those that are not."""
        packed = bytearray()
        absent: list[int] = []
        for chunk in chunks:
            replica = self._store.find(chunk)
            if replica is None:
                absent.append(chunk)
            else:
                packed += REPLICA.pack(chunk, replica.version, replica.length)
        return bytes(packed), absent


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set before the time is over; at once if there is none."""
    if seconds <= 0:
        return event.is_set()
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
