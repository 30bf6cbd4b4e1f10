"""Errors as RFC 9457 problem documents: one for every error of the file system, with its wire code."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from gfsprotocol.errors import AuthenticationFailed, AvailabilityError, GfsError, InvalidArgument

CONTENT_TYPE = "application/problem+json"
RETRY_SECONDS = 2
DETAIL_CHARACTERS_MAX = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class HttpRefusal(InvalidArgument):
    """What is wrong is HTTP's own business: a method, a header, a body that is too large or too slow."""

    def __init__(
        self, status: HTTPStatus, message: str, headers: Mapping[Any, str] | None = None, close: bool = False
    ) -> None:
        """``close`` ends the connection: what would come next on it is not known."""
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.close = close


def name_of(error: GfsError) -> str:
    """What an error is called where errors are counted: by its class, or, if it is HTTP's own, by its status."""
    return error.status.phrase.replace(" ", "") if isinstance(error, HttpRefusal) else type(error).__name__


def problem(error: GfsError, instance: str = "") -> web.Response:
    """The response for an error; ``instance`` names this occurrence, as the access log does."""
    headers: dict[str, str] = {}
    status = error.http_status
    if isinstance(error, HttpRefusal):
        status, headers = error.status.value, error.headers
    elif isinstance(error, AuthenticationFailed):
        headers["WWW-Authenticate"] = 'Bearer realm="gfs"'
    elif isinstance(error, AvailabilityError):
        headers["Retry-After"] = str(RETRY_SECONDS)
    response = web.Response(
        status=status,
        body=document(status, type(error).__name__, error.code, error.message, instance),
        content_type=CONTENT_TYPE,
        headers=headers,
    )
    if isinstance(error, HttpRefusal) and error.close:
        response.force_close()
    return response


def document(status: int, name: str, code: int, detail: str, instance: str) -> bytes:
    """The document itself. ``type`` names the error's class in docs/errors.md."""
    value = {
        "type": f"urn:gfs:error:{name}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _CONTROL.sub(" ", detail)[:DETAIL_CHARACTERS_MAX],
        "code": code,
    }
    return json.dumps(value | ({"instance": f"urn:gfs:request:{instance}"} if instance else {})).encode()
