"""Everything that time brings to a leader: dead servers, repair, expiry, reclaiming of what was removed."""

import logging
from collections.abc import Callable
from typing import Final

from gfsmaster import operations as op
from gfsmaster.config import MasterConfig
from gfsmaster.fleet import Fleet
from gfsmaster.leases import Leases
from gfsmaster.lingering import KEEPER
from gfsmaster.measures import Measures
from gfsmaster.orders import Orders
from gfsmaster.repair import Repair
from gfsmaster.state import State
from gfsprotocol.ids import PURGED_ENTRIES_MAX

log = logging.getLogger(__name__)

SAFE_MODE_COPY_SECONDS: Final = 60.0
"""Copying harms nothing even on an incomplete picture, so known chunks are not left alone for ever; deleting may."""
SCAN_SLOTS: Final = 20_000
RECLAIM_ENTRIES: Final = 1000
COPIES_PER_TICK: Final = 64
HEARD_MAX: Final = 10_000


class Housekeeping:
    """Called by the leader at its pace; logs what it changes through ``record``."""

    def __init__(
        self,
        config: MasterConfig,
        state: State,
        fleet: Fleet,
        leases: Leases,
        repair: Repair,
        orders: Orders,
        started: float,
        record: Callable[[tuple[op.AnyOperation, ...]], object],
        measures: Measures,
    ) -> None:
        """``started`` is the monotonic time at which the leadership began."""
        self._config = config
        self._state = state
        self._fleet = fleet
        self._leases = leases
        self._repair = repair
        self._orders = orders
        self._started = started
        self._record = record
        self._measures = measures
        self.safe_mode = True
        """While too few chunks are reported: nothing is deleted."""
        self.heard: dict[bytes, float] = {}
        """When each client was last heard, in monotonic seconds."""

    @property
    def may_delete(self) -> bool:
        return not self.safe_mode and not self._fleet.brake

    def tick(self, now: float, log_keeps_up: bool) -> None:
        """To be called often; ``log_keeps_up`` says that there is room for records that could wait."""
        for server in self._fleet.tick(now, self._config.server_silent_seconds):
            log.warning("chunk server %s:%d is dead: its chunks are copied from elsewhere", server.host, server.port)
            self._orders.forget(server, now)
            self._measures.dead_servers += 1
        self._leases.tick(now)
        self._check_safe_mode()
        if not self.safe_mode or now - self._started > SAFE_MODE_COPY_SECONDS:
            self._mend(now)
        if self._state.doomed and log_keeps_up:
            self._record((op.Reclaim(RECLAIM_ENTRIES),))

    def _check_safe_mode(self) -> None:
        if not self.safe_mode:
            return
        chunks = len(self._state.chunks)
        reported = all(server.reported for server in self._fleet.connected())
        if (
            self._fleet.located >= self._config.safe_mode_ratio * chunks
            and reported
            and (self._fleet.servers or not chunks)
        ):
            self.safe_mode = False
            log.info("safe mode is over: %d of %d chunks are located", self._fleet.located, chunks)

    def _mend(self, now: float) -> None:
        self._repair.scan(SCAN_SLOTS, now)
        for copy in self._repair.plan(now, limit=COPIES_PER_TICK):
            self._orders.copy(copy)
        if not self.may_delete:
            return
        for removal in self._repair.removals(SCAN_SLOTS, now):
            # From here on it counts no more, or the next look might choose another of the same chunk as well.
            self._fleet.remove(self._state.chunks.slot_of(removal.chunk), removal.server)
            self._fleet.delete(removal.chunk, removal.version, [removal.server])

    def expire(self, now: float, now_ns: int) -> None:
        """To be called now and then: what the trash has kept long enough, and clients that are gone."""
        expired = [
            self._state.inodes.ids[slot] for slot, item in self._state.trash.items() if item.expires_ns <= now_ns
        ]
        if expired:
            self._record((op.PurgeTrash(tuple(expired[:PURGED_ENTRIES_MAX])),))
        silent = now - self._config.client_silent_seconds
        for client in self._state.writers.clients():
            if client != KEEPER and self.heard.setdefault(client, now) < silent:
                log.warning("client %s is gone: its open files are closed as they stand", client.hex())
                self._record((op.CloseClient(client, frees_unused=True),))
                self._measures.expired_clients += 1
                del self.heard[client]
        if len(self.heard) > HEARD_MAX:
            self.heard = {client: heard for client, heard in self.heard.items() if heard >= silent}
