"""What the parts of a chunk server need of each other: the store, the keys, the chains, the peers and the leader."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from gfschunkserver.access import Access
from gfschunkserver.chain import Chains
from gfschunkserver.store import Store
from gfsprotocol.bulksocket import BulkPool
from gfsprotocol.errors import LeaseLost
from gfsprotocol.messages import Grant


class Leader(Protocol):
    """The leading master, as far as a write needs it."""

    def confirm_grant(self, chunk: int, version: int, length: int) -> Future[None]:
        """All members have the grant's version; done when the log has it. From any thread."""


class Engine:
    """One chunk server's moving parts."""

    def __init__(self, store: Store, access: Access, leader: Leader) -> None:
        self.store = store
        self.access = access
        self.leader = leader
        self.chains = Chains()
        self.peers = BulkPool()
        self.suspect: Callable[[int], None] = lambda _chunk: None
        """Has a chunk verified soon, because somebody saw bytes that did not match."""

    @property
    def server(self) -> int:
        return self.store.server

    def expire_chains(self) -> None:
        """Forgets what was kept for grants that are over."""

        def is_over(grant: Grant) -> bool:
            try:
                self.access.check_lease(grant)
            except LeaseLost:
                return True
            return False

        self.chains.expire(is_over)
