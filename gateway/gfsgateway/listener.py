"""Connections: aiohttp's HTTP, with our limits, our errors, and an ear for a client that has said all it will say."""

import asyncio
import contextlib
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong

from gfsgateway import targets
from gfsgateway.config import GatewayConfig
from gfsgateway.problems import HttpRefusal, document
from gfsprotocol.errors import ConfigurationError
from gfsprotocol.ids import KIB
from gfsprotocol.network import server_log

if TYPE_CHECKING:
    from gfsgateway.app import Gateway

LINE_BYTES_MAX: Final = 16 * KIB
FIELD_BYTES_MAX: Final = 8 * KIB
HEADERS_MAX: Final = 64
TOO_MANY_HEADERS: Final = "Too many headers"
"""How aiohttp's complaint of more than HEADERS_MAX begins; there is no exception of its own."""
DETAIL_CHARACTERS: Final = 120
"""Of what aiohttp says of a request that it cannot read; it may quote all of that."""
READ_BUFFER_BYTES: Final = 64 * KIB
"""Of a body that is not read yet, also one that waits for its turn, twice as much is taken at most."""
LINGER_SECONDS: Final = 2.0
"""How long the rest of a refused body is read and thrown away, so that the client hears why."""


class Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_begun", "_body", "_listener")

    def __init__(self, listener: "Listener", **options: Any) -> None:
        super().__init__(listener, **options)
        self._listener = listener
        self._begun = 0
        self._body: StreamReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        measures = self._listener.gateway.measures
        measures.connections += 1
        if measures.connections > self._listener.connections_max and self.transport is not None:
            measures.refused_connections += 1
            self.transport.write(_too_many())
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The end of it, which comes once."""
        self._listener.gateway.measures.connections -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What has come. Where a request begins, its target is made one that the parser takes, if it can be."""
        if not data.isascii() and self._is_between_requests():
            data = targets.escaped_request(data)
        super().data_received(data)

    def begin(self, request: web.BaseRequest) -> None:
        """The request is about to be handled."""
        self._begun += 1
        self._body = request.content

    def _is_between_requests(self) -> bool:
        """Whether what comes next is no part of a body: all requests are being handled, the last one has come whole."""
        return self._begun == self._request_count and (self._body is None or self._body.is_eof())

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client will send no more, but it may wait for an answer: it gets that, and then the connection ends.

        A body that should go on is at its end. (Under TLS a connection cannot be half closed.) Where nothing is to be
        answered, the connection ends at once: aiohttp would wait for the next request for ever.
        """
        if self._begun == self._request_count and not self._request_in_progress:
            return False
        request = self._listener.current.get(self)
        if request is not None and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("the client closed its side"))
        self.close()
        return self.ssl_context is None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is not even HTTP. From a handler only this comes here: that the client has gone."""
        if isinstance(exc, ConnectionError):
            raise exc
        if exc is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log_exception("a bug in the gateway", exc_info=exc)
        lines = (message or "").strip().splitlines() or ["this is not a request that HTTP allows"]
        if isinstance(exc, LineTooLong):
            is_target = str(LINE_BYTES_MAX) in lines[0]
            status = HTTPStatus.REQUEST_URI_TOO_LONG if is_target else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            lines = ["the target is too long" if is_target else "a header is too long"]
        elif lines[0].startswith(TOO_MANY_HEADERS):
            status, lines = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, [f"there are more than {HEADERS_MAX} headers"]
        refusal = HttpRefusal(HTTPStatus(status), lines[0][:DETAIL_CHARACTERS], close=True)
        return self._listener.gateway.malformed(request, refusal)


class Listener(web.Server):
    """Makes connections, and knows what each of them is busy with."""

    def __init__(self, config: GatewayConfig, gateway: "Gateway") -> None:
        super().__init__(self._handle)
        self.gateway = gateway
        self.connections_max = config.connections_max
        self.current: dict[Connection, web.BaseRequest] = {}
        self._is_stopping = False
        self._is_drained = asyncio.Event()
        self._options: dict[str, Any] = {
            "loop": asyncio.get_running_loop(),
            "keepalive_timeout": config.header_seconds,
            "logger": server_log,
            "access_log": None,
            "max_line_size": LINE_BYTES_MAX,
            "max_field_size": FIELD_BYTES_MAX,
            "max_headers": HEADERS_MAX,
            "lingering_time": LINGER_SECONDS,
            "read_bufsize": READ_BUFFER_BYTES,
            "auto_decompress": False,
        }

    def __call__(self) -> web.RequestHandler:
        return Connection(self, **self._options)

    async def drain(self, seconds: float) -> None:
        """Ends connections that wait for a request, and lets those that have one finish it, for so long at most.

        To be called before the runner's cleanup, which reads no more of any body.
        """
        self._is_stopping = True
        for connection in self.connections:
            if connection not in self.current:
                connection.close()
        if self.current:
            self._is_drained.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_drained.wait(), seconds)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        self.current[connection] = request
        connection.begin(request)
        try:
            response = await self.gateway.handle(request)
            if self._is_stopping:
                response.force_close()
            return response
        finally:
            self.current.pop(connection, None)
            if not self.current:
                self._is_drained.set()


def tls_context(config: GatewayConfig) -> ssl.SSLContext | None:
    """What the certificate files make; None without them. ConfigurationError if they cannot be used."""
    if config.tls_certificate is None or config.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except OSError as error:
        files = f"{config.tls_certificate} and {config.tls_key}"
        raise ConfigurationError(
            f"the certificate and key in {files} cannot be used: {error.strerror or error}"
        ) from error
    return context


def _too_many() -> bytes:
    body = document(503, "Busy", 303, "too many connections", "")
    head = f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\nRetry-After: 2\r\n"
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}Connection: close\r\n\r\n".encode() + body
