"""What the parts of a chunk server need of each other: the store, the keys, the chains, the peers and the leader."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Protocol

from gfschunkserver.access import Access
from gfschunkserver.chain import Chains
from gfschunkserver.measures import Measures
from gfschunkserver.store import Store
from gfsprotocol.bulksocket import BulkPool
from gfsprotocol.errors import Busy


class Leader(Protocol):
    """The leading master, as far as a write needs it."""

    def confirm_grant(self, chunk: int, version: int, length: int) -> Future[None]:
        """All members have the grant's version; done when the log has it. From any thread."""


class Engine:
    """One chunk server's moving parts."""

    def __init__(self, store: Store, access: Access, leader: Leader, measures: Measures | None = None) -> None:
        self.store = store
        self.access = access
        self.leader = leader
        self.chains = Chains()
        self.peers = BulkPool()
        self.measures = measures or Measures()
        self.suspect: Callable[[int], None] = lambda _chunk: None
        """Has a chunk verified soon, because somebody saw bytes that did not match."""
        self._copied: set[int] = set()
        self._copied_lock = threading.Lock()

    @property
    def server(self) -> int:
        return self.store.server

    @contextmanager
    def copying(self, chunk: int) -> Iterator[None]:
        """While a copy of the chunk is made. Busy if one is being made: both would write to the same file."""
        with self._copied_lock:
            if chunk in self._copied:
                raise Busy(f"chunk {chunk:x} is being copied already")
            self._copied.add(chunk)
        try:
            yield
        finally:
            with self._copied_lock:
                self._copied.discard(chunk)

    def expire_chains(self) -> None:
        """Forgets what was kept for grants that are over."""
        self.chains.expire(self.access.is_long_over)
