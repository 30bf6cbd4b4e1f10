"""What one client knows about the chunk servers: where they are, and which of them failed it lately."""

import threading
import time
from collections.abc import Iterable
from typing import Final

from gfsprotocol.messages import ServerAddress

AVOID_SECONDS: Final = 20.0
"""A chunk server that failed a request is asked last for so long."""
CONNECT_SECONDS: Final = 3.0


class Servers:
    """Addresses of chunk servers, and which of them failed us lately. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._addresses: dict[int, ServerAddress] = {}
        self._avoided_until: dict[int, float] = {}
        self._no_writes_until: dict[int, float] = {}

    def learn(self, addresses: Iterable[ServerAddress]) -> None:
        with self._lock:
            self._addresses.update((address.server, address) for address in addresses)

    def address(self, server: int) -> ServerAddress | None:
        with self._lock:
            return self._addresses.get(server)

    def failed(self, server: int) -> None:
        """Ask ``server`` last for a while."""
        with self._lock:
            self._avoided_until[server] = time.monotonic() + AVOID_SECONDS

    def failed_write(self, server: int) -> None:
        """Put no new chunks on ``server`` for a while."""
        self.failed(server)
        with self._lock:
            self._no_writes_until[server] = time.monotonic() + AVOID_SECONDS

    def excluded(self) -> tuple[int, ...]:
        """Servers that failed a write lately, whoever's it was: new chunks had better go elsewhere."""
        now = time.monotonic()
        with self._lock:
            self._no_writes_until = {server: until for server, until in self._no_writes_until.items() if until > now}
            return tuple(self._no_writes_until)

    def worked(self, server: int) -> None:
        if server in self._avoided_until:
            with self._lock:
                self._avoided_until.pop(server, None)

    def first(self, servers: tuple[int, ...], chunk: int) -> int | None:
        """The first of :meth:`in_order`; None if there are none."""
        if not servers:
            return None
        nearest = servers[chunk % len(servers)]
        if nearest not in self._avoided_until:
            return nearest
        return self.in_order(servers, chunk)[0]

    def in_order(self, servers: tuple[int, ...], chunk: int) -> list[int]:
        """Whom to ask for ``chunk``: readers of one chunk agree (one page cache is warm), those of others spread."""
        if not servers:
            return []
        turn = chunk % len(servers)
        rotated = servers[turn:] + servers[:turn]
        now = time.monotonic()
        with self._lock:
            return sorted(rotated, key=lambda server: self._avoided_until.get(server, 0.0) > now)
