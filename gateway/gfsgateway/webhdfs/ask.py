"""One WebHDFS request on its way to what answers it, and the forms that answers have."""

import json
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from aiohttp import hdrs, web

from gfsclient import paths
from gfsclient.filesystem import FileSystem
from gfsgateway import targets
from gfsgateway.call import Call
from gfsgateway.names import Names
from gfsgateway.problems import HttpRefusal
from gfsgateway.users import WIDE, Width
from gfsgateway.webhdfs.exceptions import FILE_NOT_FOUND, HdfsRefusal
from gfsgateway.webhdfs.parameters import Parameters

if TYPE_CHECKING:
    from gfsgateway.webhdfs.service import WebHdfs

PREFIX: Final = "/webhdfs/v1"
DATA: Final = "data"
"""The parameter that marks the second step of a redirected operation, as HttpFS has it."""
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class Ask:
    """What an operation needs to know: for whom, which path, with what."""

    __slots__ = ("call", "parameters", "path", "service")

    def __init__(self, service: "WebHdfs", call: Call, parameters: Parameters, path: bytes) -> None:
        self.service = service
        self.call = call
        self.parameters = parameters
        self.path = path

    @property
    def names(self) -> Names:
        return self.service.names

    @property
    def shown(self) -> str:
        """The path, for a message."""
        return paths.to_text(self.path)

    @property
    def user_name(self) -> str:
        """The name of whom the request speaks for."""
        return self.names.user_name(self.call.identity.user[0])

    async def files(self, width: Width = WIDE) -> FileSystem:
        """The file system in the name of whom the request speaks for."""
        return await self.call.files(width)

    def missing(self) -> HdfsRefusal:
        """That nothing is at the path."""
        return missing(self.path)


Operation = Callable[[Ask], Awaitable[web.StreamResponse]]


def missing(path: bytes) -> HdfsRefusal:
    """That nothing is at ``path``, in words that clients look for."""
    return HdfsRefusal(FILE_NOT_FOUND, f"File does not exist: {paths.to_text(path)}")


def not_a_file(path: bytes) -> HdfsRefusal:
    """That a directory has no content."""
    return HdfsRefusal(FILE_NOT_FOUND, f"Path is not a file: {paths.to_text(path)}")


def answer(value: dict[str, Any], status: int = 200) -> web.Response:
    """JSON; names that are no UTF-8 have lone surrogates in it, escaped."""
    return web.Response(status=status, body=json.dumps(value).encode(), content_type="application/json")


def boolean(value: bool) -> web.Response:
    """What operations answer that say only whether they did something."""
    return answer({"boolean": value})


def nothing(status: int = 200, location: str = "") -> web.Response:
    """No content."""
    headers = {hdrs.LOCATION: location} if location else None
    return web.Response(status=status, content_type="application/octet-stream", headers=headers)


def redirect(ask: Ask) -> web.Response:
    """To the second step, at an address that the client can reach: the one that it has reached."""
    query = [(name, value) for name, value in ask.parameters.items() if name not in ("noredirect", DATA)]
    encoded = urlencode([*query, (DATA, "true")], errors="surrogateescape")
    location = f"{base(ask.call)}{PREFIX}{targets.encoded(ask.path)}?{encoded}"
    if ask.parameters.flag("noredirect"):
        return answer({"Location": location})
    return nothing(307, location)


def base(call: Call) -> str:
    """Scheme and host of the gateway, as the client knows it."""
    config, request = call.gateway.config, call.request
    if config.public_url:
        return config.public_url
    host = request.headers.get(hdrs.HOST)
    if host is None:
        assert request.transport is not None
        name, port = request.transport.get_extra_info("sockname")[:2]
        host = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    if not _HOST.fullmatch(host):
        raise HttpRefusal(HTTPStatus.BAD_REQUEST, "the Host header is not the name of a host")
    return f"{'http' if config.tls_certificate is None else 'https'}://{host}"
