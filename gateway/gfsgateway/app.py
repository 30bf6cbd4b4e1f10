"""The gateway inside an event loop: what all requests share, and the way of each from its head to its answer."""

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web

from gfsclient.filesystem import FileSystem
from gfsgateway import rest, webhdfs
from gfsgateway.accesslog import AccessLog
from gfsgateway.appending import Appending
from gfsgateway.auth import Auth, Identity
from gfsgateway.call import Call
from gfsgateway.config import GatewayConfig
from gfsgateway.measures import METRICS, Measures
from gfsgateway.problems import HttpRefusal, name_of, problem
from gfsgateway.rest.types import ContentTypes
from gfsgateway.routes import Router, allowed
from gfsgateway.targets import raw_path, without_secrets
from gfsgateway.transfer import Transfers
from gfsgateway.users import Users
from gfsprotocol import metrics
from gfsprotocol.errors import AvailabilityError, GfsError
from gfsprotocol.metrics import Labels, Value

READY_SECONDS: Final = 2.0
CLIENT_GONE: Final = 499
"""In the access log: the client closed the connection before it had its answer."""

log = logging.getLogger(__name__)
_NOBODY: Final = Identity(())
_ALL_METHODS: Final = [
    hdrs.METH_DELETE,
    hdrs.METH_GET,
    hdrs.METH_HEAD,
    hdrs.METH_PATCH,
    hdrs.METH_POST,
    hdrs.METH_PUT,
]


class Gateway:
    """A gateway on a connected file system. Belongs to one event loop."""

    def __init__(self, config: GatewayConfig, files: FileSystem, auth: Auth) -> None:
        self.config = config
        self.files = files
        self.auth = auth
        self.users = Users(files)
        self.transfers = Transfers(config)
        self.types = ContentTypes()
        self.appending = Appending()
        self.router = Router()
        self.measures = Measures()
        self.registry = metrics.registry(METRICS, self._measured)
        self.is_stopping = False
        self._access_log = AccessLog(config.access_log)
        self._numbers = itertools.count(1)
        self._run = secrets.token_hex(4)
        for method in (hdrs.METH_GET, hdrs.METH_HEAD):
            self.router.add(method, "/healthz", _healthz, is_public=True)
            self.router.add(method, "/readyz", _readyz, is_public=True)
            self.router.add(method, metrics.METRICS_PATH, _metrics, is_public=True)
        rest.add_routes(self.router)
        webhdfs.add_routes(self.router, config)

    async def close(self) -> None:
        """Ends what users have open, and writes the rest of the access log."""
        await self.users.close()
        self._access_log.flush()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request, whatever happens; only a client that has gone gets nothing."""
        began, number = time.perf_counter(), self._number()
        call = Call(self, request, "", _NOBODY)
        response = None
        try:
            response = await self._answer(call, number)
        finally:
            self._note(call, number, response, time.perf_counter() - began)
        return response

    def malformed(self, request: web.BaseRequest, refusal: HttpRefusal) -> web.StreamResponse:
        """The answer to what is no request that HTTP allows; ``request`` stands for it."""
        number = self._number()
        response = problem(refusal, number)
        self.measures.malformed += 1
        self._access_log.add(_line(request, number, refusal.status.value, response.content_length or 0, 0.0))
        return response

    def _number(self) -> str:
        return f"{self._run}-{next(self._numbers):x}"

    async def _answer(self, call: Call, number: str) -> web.StreamResponse:
        request = call.request
        try:
            path = raw_path(request.raw_path)
            if request.method == hdrs.METH_OPTIONS:
                # "*" asks of the server, not of an address.
                methods = _ALL_METHODS if path == "*" else self.router.methods(path)
                return web.Response(status=204, headers={hdrs.ALLOW: allowed(methods)})
            route, call.rest = self.router.find(request.method, path)
            call.route = route.path
            if not route.is_public:
                call.identity = self.auth.identify(request)
            return await route.handler(call)
        except GfsError as error:
            return self._refused(call, error, number)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("request %s: %s %s", number, request.method, without_secrets(request.raw_path))
            return self._refused(call, GfsError("a bug in the gateway; its log has more"), number)

    def _refused(self, call: Call, error: GfsError, number: str) -> web.StreamResponse:
        begun = call.break_off(error)
        if begun is not None:
            return begun
        if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            request = call.request
            target = without_secrets(request.raw_path)
            log.warning("request %s: %s %s: %s", number, request.method, target, error.message)
        response = problem(error, number)
        self.measures.failed(response.status, name_of(error))
        return response

    def _note(self, call: Call, number: str, response: web.StreamResponse | None, seconds: float) -> None:
        """Counts the request, and logs it."""
        request = call.request
        status = CLIENT_GONE if response is None else response.status
        sent = _sent_bytes(call, response)
        shown = "gone" if response is None else f"{status // 100}xx"
        self.measures.answered(call.route or "none", request.method, shown, seconds)
        self.measures.sent_bytes += sent
        if self._access_log.is_on:
            user = call.identity.user
            line = _line(request, number, status, sent, seconds)
            line |= {
                "uid": user[0] if user else None,
                "method": request.method,
                "target": _printable(without_secrets(request.raw_path)),
                "agent": _printable(request.headers.get(hdrs.USER_AGENT, "")),
            }
            self._access_log.add(line)

    def _measured(self) -> Mapping[str, Value]:
        transfers: dict[Labels, float] = {("moving",): self.transfers.active, ("waiting",): self.transfers.waiting}
        return {**self.measures.read(), "gfs_gateway_transfers": transfers}


def _line(request: web.BaseRequest, number: str, status: int, sent_bytes: int, seconds: float) -> dict[str, Any]:
    """A line of the access log, without what only a request that could be read has."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request": number,
        "remote": request.remote,
        "uid": None,
        "method": None,
        "target": None,
        "status": status,
        "sent_bytes": sent_bytes,
        "received_bytes": request.content.total_bytes,
        "seconds": round(seconds, 6),
        "agent": None,
    }


def _printable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _sent_bytes(call: Call, response: web.StreamResponse | None) -> int:
    """Of the body; a short one goes out after this, as a whole."""
    if response is None or response.prepared:
        return call.sent_bytes
    return 0 if call.is_head else response.content_length or 0


async def _metrics(call: Call) -> web.StreamResponse:
    """What Prometheus asks for."""
    return metrics.page(call.gateway.registry)


async def _healthz(_call: Call) -> web.StreamResponse:
    """The process lives."""
    return web.Response(text="ok\n")


async def _readyz(call: Call) -> web.StreamResponse:
    """Requests can be answered: a master leads, and we are not about to stop."""
    if call.gateway.is_stopping:
        raise AvailabilityError("the gateway is about to stop")
    async with asyncio.timeout(READY_SECONDS * 2):
        await call.gateway.files.space(READY_SECONDS)
    return web.Response(text="ready\n")
