"""The control channel over an aiohttp WebSocket: the real thing behind :class:`gfsprotocol.channel.Channel`."""

import asyncio
import errno
import logging

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gfsprotocol.channel import REFUSED
from gfsprotocol.codec import FRAME_BYTES_MAX
from gfsprotocol.errors import ConnectionLost, RemoteProtocolError

RPC_PATH = "/rpc"
PING_SECONDS = 10.0


class _OneLine(logging.Filter):
    """Turns aiohttp's report of a malformed request, a stranger's mistake, into one line without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            lines = error.message.strip().splitlines()
            record.msg = "closing a connection that does not speak HTTP: %s"
            record.args = (lines[0][:200] if lines else type(error).__name__,)
            record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


server_log = logging.getLogger(__name__)
"""For aiohttp's servers: pass it as their ``logger``."""
server_log.addFilter(_OneLine())


class WebSocketChannel:
    """Frames as binary WebSocket messages."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse | web.WebSocketResponse, peer: str) -> None:
        self._socket = socket
        self._peer = peer

    @property
    def peer(self) -> str:
        return self._peer

    async def send(self, frame: bytes) -> None:
        try:
            await self._socket.send_bytes(frame)
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise ConnectionLost(f"the connection to {self._peer} broke: {error}") from error

    async def receive(self) -> bytes:
        message = await self._socket.receive()
        match message.type:
            case aiohttp.WSMsgType.BINARY:
                return message.data  # type: ignore[no-any-return]
            case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED:
                raise ConnectionLost(f"{self._peer} closed the connection")
            case aiohttp.WSMsgType.ERROR if isinstance(message.data, aiohttp.WebSocketError):
                raise RemoteProtocolError(str(message.data))
            case aiohttp.WSMsgType.ERROR:
                raise ConnectionLost(f"the connection to {self._peer} broke: {message.data}")
            case _:
                raise RemoteProtocolError(f"a WebSocket message of type {message.type.name} is not a frame")

    async def close(self) -> None:
        await self._socket.close()


async def dial(session: aiohttp.ClientSession, address: str, connect_seconds: float) -> WebSocketChannel:
    """A channel to the RPC endpoint of ``host:port``. ConnectionLost if there is none."""
    try:
        async with asyncio.timeout(connect_seconds):
            socket = await session.ws_connect(
                f"http://{address}{RPC_PATH}",
                max_msg_size=FRAME_BYTES_MAX,
                heartbeat=PING_SECONDS,
                compress=0,
            )
    except TimeoutError as error:
        raise ConnectionLost(f"{address} does not answer") from error
    except aiohttp.WSServerHandshakeError as error:
        raise ConnectionLost(f"{address} is not a master: it answers HTTP status {error.status}") from error
    except (aiohttp.ClientConnectorError, aiohttp.ClientOSError) as error:
        hint = REFUSED if error.errno == errno.ECONNREFUSED else ""
        raise ConnectionLost(f"{address}: {error.strerror or error}", hint) from error
    except aiohttp.ClientError as error:
        raise ConnectionLost(f"{address}: {error}") from error
    return WebSocketChannel(socket, address)


async def upgrade(request: web.Request) -> tuple[WebSocketChannel, web.WebSocketResponse]:
    """The server's side: the channel, and the response that the handler must return when it is done.

    ConnectionLost if the other side has gone meanwhile.
    """
    response = web.WebSocketResponse(max_msg_size=FRAME_BYTES_MAX, heartbeat=PING_SECONDS, compress=False)
    try:
        await response.prepare(request)
    except ConnectionError as error:
        raise ConnectionLost(f"{request.remote or 'unknown'} left before the handshake") from error
    return WebSocketChannel(response, request.remote or "unknown"), response
