"""Bodies, in both directions: in bounded memory, in turn, never faster than the other side, and never without end."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from gfsgateway.config import GatewayConfig
from gfsgateway.measures import Measures
from gfsgateway.problems import HttpRefusal
from gfsgateway.users import NARROW, SLIM, WIDE, Width
from gfsprotocol.errors import Busy
from gfsprotocol.ids import KIB, MIB

if TYPE_CHECKING:
    from gfsgateway.call import Call

PIECE_BYTES: Final = 256 * KIB
"""What is read and sent at a time."""
JSON_BYTES_MAX: Final = 1 * MIB
"""The largest body that is not a file's content."""


class Transfers:
    """Who may move a large body now: so many at a time, in order of arrival, and only so many may wait."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._free = asyncio.Semaphore(config.transfers_max)
        self._shares = 0
        self.waiting = 0
        self.active = 0

    @contextmanager
    def share(self) -> Iterator[Width]:
        """How much memory one of those that read or write files now may have: the more there are, the less.

        The first ones have half of all together; that of the last ones is bounded by their number.
        """
        self._shares += 1
        try:
            half = self._config.transfer_bytes // 2
            fitting = (width for width in (WIDE, NARROW) if self._shares * width.read_ahead_bytes <= half)
            yield next(fitting, SLIM)
        finally:
            self._shares -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Width]:
        """Waits for a place and holds it, with its share of memory. Busy if too many wait, or for too long."""
        await self._enter()
        self.active += 1
        try:
            with self.share() as width:
                yield width
        finally:
            self.active -= 1
            self._free.release()

    async def _enter(self) -> None:
        if self._free.locked() and self.waiting >= self._config.waiting_max:
            raise Busy("too many transfers wait already")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._config.queue_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise Busy("too many transfers are under way") from error
        finally:
            self.waiting -= 1


class Body:
    """The body of a request, read as it comes."""

    def __init__(self, request: web.BaseRequest, bytes_max: int, stall_seconds: float, measures: Measures) -> None:
        """HttpRefusal if its head says already that it cannot be taken."""
        self._request = request
        self._measures = measures
        self._bytes_max = bytes_max
        self._stall_seconds = stall_seconds
        self.received = 0
        length = request.content_length
        if length is not None and length > bytes_max:
            raise self._too_large()
        coding = request.headers.get(hdrs.TRANSFER_ENCODING, "chunked")
        if coding.strip().lower() != "chunked":
            message = f"of the transfer codings only 'chunked' is known, not '{coding}'"
            raise HttpRefusal(HTTPStatus.NOT_IMPLEMENTED, message, close=True)
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise HttpRefusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a body must come without a Content-Encoding")

    async def pieces(self) -> AsyncIterator[bytes]:
        """What comes, until its end. HttpRefusal if it is too large, stops coming, or ends before its end."""
        self._measures.open_uploads += 1
        try:
            await self._invite()
            while piece := await self._next():
                self.received += len(piece)
                self._measures.received_bytes += len(piece)
                if self.received > self._bytes_max:
                    raise self._too_large()
                yield piece
        finally:
            self._measures.open_uploads -= 1

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._stall_seconds):
                return await self._request.content.readany()
        except TimeoutError as error:
            self._measures.broken_bodies["upload", "stalled"] += 1
            message = f"the body made no progress for {self._stall_seconds:g} s"
            raise HttpRefusal(HTTPStatus.REQUEST_TIMEOUT, message, close=True) from error
        except (web.RequestPayloadError, ConnectionError) as error:
            self._measures.broken_bodies["upload", "cut"] += 1
            raise HttpRefusal(HTTPStatus.BAD_REQUEST, "the body ended before its end", close=True) from error

    async def read(self) -> bytes:
        """All of it."""
        return b"".join([piece async for piece in self.pieces()])

    async def _invite(self) -> None:
        """Says that the body may come, to a client that waits for it before it sends a large one."""
        expectation = self._request.headers.get(hdrs.EXPECT)
        if expectation is None or self._request.version < (1, 1):
            return
        if expectation.lower() != "100-continue":
            raise HttpRefusal(HTTPStatus.EXPECTATION_FAILED, f"'{expectation}' is not an expectation that can be met")
        if self._request.content.is_eof() or self._request.content.total_bytes:
            return
        await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Else the head of the final response would be taken for sent.
        self._request.writer.output_size = 0

    def _too_large(self) -> HttpRefusal:
        self._measures.broken_bodies["upload", "too_large"] += 1
        message = f"the body is larger than {self._bytes_max} bytes"
        return HttpRefusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, close=True)


class Sender:
    """A response's body on its way to a client that may be slow, or gone."""

    def __init__(self, call: "Call", response: web.StreamResponse) -> None:
        self._call = call
        self._response = response
        self._measures = call.gateway.measures

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. ConnectionError if the client has gone, or takes nothing for long."""
        try:
            async with asyncio.timeout(self._call.gateway.config.stall_seconds):
                await self._response.write(data)
        except TimeoutError as error:
            self._measures.broken_bodies["download", "stalled"] += 1
            self._call.abort()
            raise ConnectionResetError("the client takes nothing") from error
        except ConnectionError:
            self._measures.broken_bodies["download", "cut"] += 1
            raise
        self._call.sent_bytes += len(data)
