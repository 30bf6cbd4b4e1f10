"""Small reads on the event loop: no thread, one message to the nearest replica, one answer, verified.

It is the short way for what usually goes well. Whatever does not (a server that is unreachable, slow, stale or wrong)
gives None, and the caller goes the long way, :class:`~gfsclient.fetch.Fetcher`, which tries the other replicas and
reports what is wrong. Requests to one server may follow each other without waiting; answers come in order, so a
connection with an answer that came too late is closed.

Belongs to the event loop; atomic between awaits: the choice of a connection, and what waits on it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final, cast

from gfsclient.servers import CONNECT_SECONDS, Servers
from gfsprotocol import bulk
from gfsprotocol.checksums import digest, digests_match
from gfsprotocol.errors import GfsError, RemoteProtocolError
from gfsprotocol.ids import BLOCK_BYTES
from gfsprotocol.messages import ChunkLocation, ServerAddress

log = logging.getLogger(__name__)

QUICK_BYTES_MAX: Final = BLOCK_BYTES
"""The largest read that goes the short way."""
LINES_PER_SERVER: Final = 4
"""A server answers what comes on one connection in turn."""
WAITING_MAX: Final = 64
"""Requests unanswered on one connection."""

_Answer = tuple[bulk.ReplyHeader, bytes] | None
"""None if the connection was lost."""


class _Line(asyncio.Protocol):
    """A connection to a chunk server."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.is_lost = False
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[_Answer]] = deque()
        self._received = bytearray()

    def __len__(self) -> int:
        """How many requests wait for their answers."""
        return len(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, and no subclass of it
        self._transport.write(bulk.PREAMBLE)

    def ask(self, *headers: bulk.Read) -> "list[asyncio.Future[_Answer]]":
        """The futures get the answers."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[_Answer]] = [loop.create_future() for _ in headers]
        self._waiting.extend(futures)
        self._transport.write(b"".join(map(bulk.encode, headers)))
        return futures

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            while self._waiting and (taken := self._take()) is not None:
                future = self._waiting.popleft()
                if not future.done():
                    future.set_result(taken)
            if not self._waiting and self._received:
                raise RemoteProtocolError("bytes that were not asked for")
        except GfsError as error:
            log.warning("closing the connection to %s: %s", self.peer, error.message)
            self.close()

    def _take(self) -> _Answer:
        """The next answer, if all of it is there."""
        received = self._received
        if len(received) < bulk.PREFIX.size:
            return None
        prefix = bytes(received[: bulk.PREFIX.size])
        header_bytes, count = bulk.decode_prefix(prefix, QUICK_BYTES_MAX)
        start = bulk.PREFIX.size + header_bytes
        if len(received) < start + count:
            return None
        reply = bulk.decode_reply(bytes(received[bulk.PREFIX.size : start]))
        payload = bytes(received[start : start + count])
        del received[: start + count]
        return reply, payload

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the long way will tell the reason
        self.close()

    def close(self) -> None:
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()


class QuickReads:
    """Connections for small reads to all chunk servers; part of one client."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._lines: dict[int, list[_Line]] = {}
        self._connecting: dict[int, set[asyncio.Task[_Line | None]]] = {}
        self._is_closed = False

    async def read(self, location: ChunkLocation, start: int, count: int, seconds: float) -> bytes | None:
        """``count`` bytes at ``start`` of a chunk, all of which are recorded; None if it takes longer than ``seconds``,
        or cannot be had in this way."""
        address = self._nearest(location, start, count)
        if address is None:
            return None
        return (await self._ask(address, [_header(location, start, count)], seconds))[0]

    async def read_files(self, locations: Sequence[ChunkLocation], seconds: float) -> list[bytes | None]:
        """The recorded bytes of each chunk, if they are few, as :meth:`read`; at most WAITING_MAX."""
        groups: dict[ServerAddress, list[int]] = {}
        for number, location in enumerate(locations):
            address = self._nearest(location, 0, location.length)
            if address is not None:
                groups.setdefault(address, []).append(number)
        asked = (
            self._ask(address, [_header(locations[number], 0, locations[number].length) for number in numbers], seconds)
            for address, numbers in groups.items()
        )
        read: list[bytes | None] = [None] * len(locations)
        for numbers, answers in zip(groups.values(), await asyncio.gather(*asked), strict=True):
            for number, data in zip(numbers, answers, strict=True):
                read[number] = data
        return read

    def _nearest(self, location: ChunkLocation, start: int, count: int) -> ServerAddress | None:
        """Whom to ask for these bytes; None if it cannot be done in this way."""
        if self._is_closed or not location.chunk or count > QUICK_BYTES_MAX or start + count > location.length:
            return None
        server = self._servers.first(location.servers, location.chunk)
        return self._servers.address(server) if server is not None else None

    async def _ask(self, address: ServerAddress, headers: list[bulk.Read], seconds: float) -> list[bytes | None]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        line = self._idle_line(address)
        if line is None:
            try:
                async with asyncio.timeout(seconds):
                    line = await self._line(address)
            except TimeoutError:
                line = None
                self._servers.failed(address.server)
        if line is None or line.is_lost:
            return [None] * len(headers)
        futures = line.ask(*headers)
        # Who closes a connection answers what waits on it: no task need be cancelled.
        too_late = loop.call_at(begun + seconds, self._give_up, line, address.server)
        try:
            return [_good(header, await future) for header, future in zip(headers, futures, strict=True)]
        finally:
            too_late.cancel()

    def _give_up(self, line: _Line, server: int) -> None:
        """It is too slow: the long way had better begin with another one."""
        line.close()
        self._servers.failed(server)

    def _idle_line(self, address: ServerAddress) -> _Line | None:
        """A connection on which nothing waits, if there is one."""
        if not self._is_closed:
            for line in self._lines.get(address.server, ()):
                if not line and not line.is_lost:
                    return line
        return None

    async def _line(self, address: ServerAddress) -> _Line | None:
        """A connection that can take one more request; None if there is none."""
        connecting = self._connecting.setdefault(address.server, set())
        lines = self._lines.setdefault(address.server, [])
        while not self._is_closed:
            lines[:] = [line for line in lines if not line.is_lost]
            best = min(lines, key=len, default=None)
            is_full = len(lines) + len(connecting) >= LINES_PER_SERVER
            if best is not None and (not best or (is_full and len(best) < WAITING_MAX)):
                return best
            if not is_full:
                task = asyncio.create_task(self._connect(address, lines))
                connecting.add(task)
                task.add_done_callback(connecting.discard)
                return await asyncio.shield(task)
            if not connecting:
                return None
            await asyncio.wait(connecting, return_when=asyncio.FIRST_COMPLETED)
        return None

    async def _connect(self, address: ServerAddress, lines: list[_Line]) -> _Line | None:
        peer = f"{address.host}:{address.port}"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                _, line = await loop.create_connection(lambda: _Line(peer), address.host, address.port)
        except (OSError, TimeoutError) as error:
            log.debug("no connection to chunk server %d at %s: %s", address.server, peer, error)
            return None
        lines.append(line)
        return line

    async def close(self) -> None:
        """Ends the connections; what is asked from now on is not had in this way."""
        self._is_closed = True
        connecting = [task for tasks in self._connecting.values() for task in tasks]
        for task in connecting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)
        for lines in self._lines.values():
            for line in lines:
                line.close()
        self._lines.clear()


def _header(location: ChunkLocation, start: int, count: int) -> bulk.Read:
    return bulk.Read(location.token, location.chunk, location.version, start, count)


def _good(asked: bulk.Read, answer: _Answer) -> bytes | None:
    """The bytes, if they are what was asked for and match their digests."""
    if answer is None:
        return None
    reply, data = answer
    if not isinstance(reply, bulk.ReadReply) or reply.offset != asked.offset or len(data) != asked.length:
        log.debug("chunk %d: %s is of no use", asked.chunk, type(reply).__name__)
        return None
    if reply.verified:
        return data if digest(data) == reply.digests else None
    is_good = asked.offset % BLOCK_BYTES == 0 and digests_match(asked.offset, data, reply.digests)
    return data if is_good else None
