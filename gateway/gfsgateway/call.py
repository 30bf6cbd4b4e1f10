"""One request on its way to its handler: who asks, for which path, with what."""

import json
import logging
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError

from gfsclient import paths
from gfsclient.filesystem import FileSystem
from gfsgateway import targets
from gfsgateway.auth import Identity
from gfsgateway.problems import HttpRefusal
from gfsgateway.transfer import JSON_BYTES_MAX, Body, Sender
from gfsgateway.users import WIDE, Width
from gfsprotocol.errors import GfsError, InvalidArgument, PermissionDenied

if TYPE_CHECKING:
    from gfsgateway.app import Gateway

log = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=BaseModel)


class Call:
    """What a handler needs to know.

    ``rest`` is what of the path follows the prefix of ``route``, still encoded; ``sent_bytes`` what of a large body has
    been sent.
    """

    __slots__ = ("gateway", "identity", "request", "response", "rest", "route", "sent_bytes")

    def __init__(self, gateway: "Gateway", request: web.BaseRequest, rest: str, identity: Identity) -> None:
        self.gateway = gateway
        self.request = request
        self.rest = rest
        self.route = ""
        self.sent_bytes = 0
        self.response: web.StreamResponse | None = None
        """One whose body is sent piece by piece."""
        self.identity = identity

    async def files(self, width: Width = WIDE) -> FileSystem:
        """The file system in the name of whom the request speaks for."""
        return await self.gateway.users.view(self.identity.user, width, self.identity.confined)

    def path(self) -> bytes:
        """The path that the request's address names, if it may be used; see :meth:`permitted`."""
        return self.permitted(targets.decoded(self.rest))

    def permitted(self, path: bytes) -> bytes:
        """``path``, if the token allows it. PermissionDenied if it does not.

        A token's paths are names. What a symbolic link on the way leads to need not be below them, so who has a token
        for some paths follows none: the masters see to that when they walk the path (see :meth:`files`).
        """
        if not self.identity.allows(path):
            raise PermissionDenied("the bearer token is not for this path")
        return path

    def named(self, text: str) -> bytes:
        """A path from a body or a parameter, if it may be used: as strict as one from an address."""
        try:
            path = paths.to_bytes(text)
        except UnicodeEncodeError as error:
            raise InvalidArgument("a path holds what is neither UTF-8 nor a stray byte") from error
        if b".." in path.split(b"/"):
            raise InvalidArgument("a path holds '..'")
        return self.permitted(path)

    def parameters(self) -> list[tuple[str, str]]:
        """The query's names and values, in order. Bytes that are no UTF-8 stay what they are, as lone surrogates."""
        query = self.request.raw_path.partition("#")[0].partition("?")[2]
        return parse_qsl(query, keep_blank_values=True, errors="surrogateescape")

    def query(self, kind: type[_Model]) -> _Model:
        """The query as ``kind`` has it: each parameter once, none that is not known. InvalidArgument if it is not."""
        values: dict[str, str] = {}
        if "?" not in self.request.raw_path:
            found: _Model = _defaults(kind)
            return found
        for name, value in self.parameters():
            if name in values:
                raise InvalidArgument(f"the parameter '{name}' is there twice")
            values[name] = value
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            raise InvalidArgument(_complaint(error, "parameter")) from error

    async def json(self, kind: type[_Model]) -> _Model:
        """The body as ``kind`` has it. InvalidArgument, or HttpRefusal, if it is not."""
        if self.request.content_type not in ("application/json", "application/octet-stream"):
            raise HttpRefusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
        data = await self.body(JSON_BYTES_MAX).read()
        try:
            return kind.model_validate(json.loads(data.decode()))
        except ValidationError as error:
            raise InvalidArgument(_complaint(error, "field")) from error
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"the body is not JSON: {error}") from error

    def body(self, bytes_max: int | None = None) -> Body:
        """The request's body; by default as large as an upload may be."""
        gateway = self.gateway
        most = gateway.config.upload_bytes_max if bytes_max is None else bytes_max
        return Body(self.request, most, gateway.config.stall_seconds, gateway.measures)

    def sender(self, response: web.StreamResponse) -> Sender:
        """What sends the body of ``response``."""
        self.response = response
        return Sender(self, response)

    def break_off(self, error: GfsError) -> web.StreamResponse | None:
        """The answer, if its head has been sent already: all that is left to say that it failed is to end it there."""
        response = self.response
        if response is None or not response.prepared:
            return None
        log.warning("%s broken off: %s", targets.without_secrets(self.request.raw_path), error.message)
        self.gateway.measures.failed(HTTPStatus.SERVICE_UNAVAILABLE, type(error).__name__)
        self.abort()
        return response

    def abort(self) -> None:
        """Ends the connection in the middle of a body: what has come must not be taken for the whole."""
        if self.request.transport is not None:
            self.request.transport.abort()

    @property
    def is_head(self) -> bool:
        return self.request.method == hdrs.METH_HEAD


@cache
def _defaults(kind: type[BaseModel]) -> Any:
    """What no query at all means, made once for each kind. InvalidArgument if some parameter must be there."""
    try:
        return kind()
    except ValidationError as error:
        raise InvalidArgument(_complaint(error, "parameter")) from error


def _complaint(error: ValidationError, what: str) -> str:
    """What is wrong, in one line."""
    complaints = []
    for detail in error.errors():
        name = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            complaints.append(f"unknown {what} '{name}'")
        elif detail["type"] == "missing":
            complaints.append(f"the {what} '{name}' is missing")
        else:
            complaints.append(
                f"{what} '{name}': {detail['msg'].removeprefix('Value error, ')}" if name else detail["msg"]
            )
    return "; ".join(complaints)
