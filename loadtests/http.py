"""A small HTTP client for threads: connections are kept, and nothing is ever asked twice."""

import http.client
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

TIMEOUT_SECONDS: Final = 120.0
"""Longer than any failover takes: what a gateway does not answer in this time is a failed request."""
IDLE_SECONDS: Final = 5.0
"""A connection that rested longer is not used again: the gateway may be about to close it."""
BODY_SHOWN: Final = 300


class RequestFailed(Exception):
    """An answer with a status that is none of the good ones."""


class HttpClient:
    """Requests to one server. Safe for threads."""

    def __init__(self, base: str) -> None:
        """``base``: http://HOST:PORT."""
        self.base = base
        self._place = urlsplit(base).netloc
        self._idle: deque[tuple[float, http.client.HTTPConnection]] = deque()

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        good: Collection[int] = (200, 201, 204),
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """The answer and all of its body. RequestFailed if its status is not ``good``."""
        with self.open(method, target, body, headers, good) as response:
            return response, response.read()

    @contextmanager
    def open(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        good: Collection[int] = (200, 201, 204),
    ) -> Iterator[http.client.HTTPResponse]:
        """As :meth:`ask`, with the body still to be read. An iterable ``body`` is sent in chunks."""
        connection = self._take()
        try:
            is_streamed = body is not None and not isinstance(body, bytes)
            connection.request(method, target, body, dict(headers or {}), encode_chunked=is_streamed)
            response = connection.getresponse()
            _check(method, response, good)
            yield response
        except BaseException:
            connection.close()
            raise
        if response.isclosed() and not response.will_close:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def _take(self) -> http.client.HTTPConnection:
        """The connection used last, if that was not long ago."""
        while True:
            try:
                used, connection = self._idle.pop()
            except IndexError:
                return http.client.HTTPConnection(self._place, timeout=TIMEOUT_SECONDS)
            if time.monotonic() - used < IDLE_SECONDS:
                return connection
            connection.close()


def _check(method: str, response: http.client.HTTPResponse, good: Collection[int]) -> None:
    if response.status not in good:
        told = response.read(BODY_SHOWN).decode(errors="replace")
        raise RequestFailed(f"{method}: {response.status} {response.reason}: {told}")
