"""Which handler answers which method and path."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import hdrs, web

from gfsgateway.problems import HttpRefusal

if TYPE_CHECKING:
    from gfsgateway.call import Call

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]

TARGET_CHARACTERS_MAX: Final = 16_000
"""Of a request target: a path of 4,096 bytes, each of them escaped, and a query."""


class Route(NamedTuple):
    """What answers a request."""

    handler: Handler
    is_public: bool
    """Whether it answers without knowing for whom."""
    path: str
    """What it was added for: its name in the metrics."""


class Router:
    """Routes by path: exact ones, and those that end with a slash, for all that is below."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._below: dict[str, dict[str, Route]] = {}

    def add(self, method: str, path: str, handler: Handler, is_public: bool = False) -> None:
        """``path`` is exact, or, with a slash at its end, a prefix: what follows it is the call's ``rest``."""
        table = self._below if path.endswith("/") and path != "/" else self._exact
        table.setdefault(path, {})[method] = Route(handler, is_public, path)

    def find(self, method: str, path: str) -> tuple[Route, str]:
        """The route, and what of the path follows its prefix. HttpRefusal for 404 and 405; OPTIONS has no route."""
        if len(path) > TARGET_CHARACTERS_MAX:
            raise HttpRefusal(HTTPStatus.REQUEST_URI_TOO_LONG, "the path is too long")
        methods, rest = self._methods(path)
        route = methods.get(method)
        if route is None:
            headers = {hdrs.ALLOW: allowed(methods)}
            raise HttpRefusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not possible here", headers)
        return route, rest

    def methods(self, path: str) -> list[str]:
        """The methods that a path has. HttpRefusal (404) if there is no such path."""
        return sorted(self._methods(path)[0])

    def _methods(self, path: str) -> tuple[dict[str, Route], str]:
        found = self._exact.get(path)
        if found is not None:
            return found, ""
        for prefix, methods in self._below.items():
            if path.startswith(prefix):
                return methods, path[len(prefix) :]
            if path == prefix[:-1]:
                return methods, ""
        raise HttpRefusal(HTTPStatus.NOT_FOUND, "there is nothing at this address: /v1/docs lists what there is")


def allowed(methods: "dict[str, Route] | list[str]") -> str:
    """An Allow header."""
    return ", ".join(sorted({*methods, hdrs.METH_OPTIONS}))
