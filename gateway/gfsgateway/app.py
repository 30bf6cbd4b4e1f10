"""The gateway inside an event loop: what all requests share, and the way of each from its head to its answer."""

import asyncio
import itertools
import logging
import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from gfsclient.filesystem import FileSystem
from gfsgateway import rest, webhdfs
from gfsgateway.accesslog import AccessLog
from gfsgateway.auth import Auth, Identity
from gfsgateway.call import Call
from gfsgateway.config import GatewayConfig
from gfsgateway.problems import problem
from gfsgateway.routes import Router, allowed
from gfsgateway.targets import raw_path, without_secrets
from gfsgateway.transfer import Transfers
from gfsgateway.users import Users
from gfsprotocol.errors import AvailabilityError, GfsError

READY_SECONDS: Final = 2.0
CLIENT_GONE: Final = 499
"""In the access log: the client closed the connection before it had its answer."""

log = logging.getLogger(__name__)
_NOBODY: Final = Identity(())


class Gateway:
    """A gateway on a connected file system. Belongs to one event loop."""

    def __init__(self, config: GatewayConfig, files: FileSystem, auth: Auth) -> None:
        self.config = config
        self.files = files
        self.auth = auth
        self.users = Users(files)
        self.transfers = Transfers(config)
        self.router = Router()
        self.is_stopping = False
        self._access_log = AccessLog(config.access_log)
        self._numbers = itertools.count(1)
        self._run = secrets.token_hex(4)
        self.router.add(hdrs.METH_GET, "/healthz", _healthz, is_public=True)
        self.router.add(hdrs.METH_GET, "/readyz", _readyz, is_public=True)
        rest.add_routes(self.router)
        webhdfs.add_routes(self.router, config)

    async def close(self) -> None:
        """Ends what users have open, and writes the rest of the access log."""
        await self.users.close()
        self._access_log.flush()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request, whatever happens; only a client that has gone gets nothing."""
        loop = asyncio.get_running_loop()
        began, number = loop.time(), f"{self._run}-{next(self._numbers):x}"
        call = Call(self, request, "", _NOBODY)
        status, response = CLIENT_GONE, None
        try:
            response = await self._answer(call, number)
            status = response.status
        finally:
            self._log(call, number, status, response, loop.time() - began)
        return response

    async def _answer(self, call: Call, number: str) -> web.StreamResponse:
        request = call.request
        try:
            path = raw_path(request.raw_path)
            if request.method == hdrs.METH_OPTIONS:
                return web.Response(status=204, headers={hdrs.ALLOW: allowed(self.router.methods(path))})
            route, call.rest = self.router.find(request.method, path)
            if not route.is_public:
                call.identity = self.auth.identify(request)
            return await route.handler(call)
        except GfsError as error:
            if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                log.warning(
                    "request %s: %s %s: %s", number, request.method, without_secrets(request.raw_path), error.message
                )
            return problem(error, number)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("request %s: %s %s", number, request.method, without_secrets(request.raw_path))
            return problem(GfsError("a bug in the gateway; its log has more"), number)

    def _log(self, call: Call, number: str, status: int, response: web.StreamResponse | None, seconds: float) -> None:
        request, user = call.request, call.identity.user
        self._access_log.add(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request": number,
                "remote": request.remote,
                "uid": user[0] if user else None,
                "method": request.method,
                "target": without_secrets(request.raw_path).encode("utf-8", "backslashreplace").decode(),
                "status": status,
                "sent_bytes": _sent_bytes(response),
                "received_bytes": request.content.total_bytes,
                "seconds": round(seconds, 6),
                "agent": request.headers.get(hdrs.USER_AGENT, "").encode("utf-8", "backslashreplace").decode(),
            }
        )


def _sent_bytes(response: web.StreamResponse | None) -> int | None:
    """Of the body; a short one goes out after this, as a whole."""
    if response is None:
        return None
    return response.body_length if response.prepared else response.content_length


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
