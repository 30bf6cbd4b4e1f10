"""Orders to chunk servers, which leave with the answers to their heartbeats: copy, delete, verify.

A deletion is ordered again until the server says that the replica is gone, and given up when its reason is gone.
Nothing is deleted in safe mode or while the brake is on.
"""

from collections.abc import Callable
from typing import Final

from gfsmaster.fleet import Fleet
from gfsmaster.repair import Copy, Repair
from gfsmaster.servers import Server
from gfsmaster.state import State
from gfsprotocol import messages as msg

ORDERED_MAX: Final = 100_000
"""Deletions per server, and copies in all, that are remembered until they are answered."""


class Orders:
    """What is to be said to each server at its next heartbeat. Pure."""

    def __init__(
        self,
        state: State,
        fleet: Fleet,
        repair: Repair,
        deletions_per_heartbeat: int,
        sign_read: Callable[[int, int], bytes],
    ) -> None:
        self._state = state
        self._fleet = fleet
        self._repair = repair
        self._deletions_max = deletions_per_heartbeat
        self._sign_read = sign_read
        self._waiting: dict[int, list[Copy]] = {}
        """By server number."""
        self._copies: dict[int, Copy] = {}
        """Under way, by order."""
        self._next = 1

    def _number(self) -> int:
        self._next += 1
        return self._next

    def copy(self, copy: Copy) -> None:
        """The target is to pull the chunk."""
        self._waiting.setdefault(copy.target.number, []).append(copy)

    def _order_copy(self, copy: Copy) -> msg.ReplicateOrder:
        number = self._number()
        self._copies[number] = copy
        while len(self._copies) > ORDERED_MAX:
            del self._copies[next(iter(self._copies))]
        token = self._sign_read(copy.chunk, copy.version)
        sources = tuple(source.address for source in copy.sources)
        return msg.ReplicateOrder(number, copy.chunk, copy.version, sources, token)

    def forget(self, server: Server, now: float) -> None:
        """The server is dead: what it was to be told is void, and what it was to copy is copied elsewhere."""
        void = self._waiting.pop(server.number, [])
        for number in [number for number, copy in self._copies.items() if copy.target is server]:
            void.append(self._copies.pop(number))
        for copy in void:
            self._repair.finished(copy.slot, "", now)

    def finished(self, server: Server, result: msg.OrderResult, now: float) -> None:
        """A server has carried out an order, or could not."""
        copy = self._copies.pop(result.order, None)
        deleted = server.ordered.pop(result.order, 0)
        if deleted and not result.error:
            server.deletions.pop(deleted, None)
        if copy is not None:
            self._repair.finished(copy.slot, result.error, now)

    def withdraw(self, server: Server) -> bool:
        """Gives up deletions whose reason is gone, for other replicas were lost since they were decided.

        Returns whether good replicas are among them: they count no more, so the server has to report them again.
        """
        withdrawn = [
            chunk
            for chunk in list(server.deletions)[: self._deletions_max]
            if not self._repair.may_be_deleted(chunk, server)
        ]
        for chunk in withdrawn:
            del server.deletions[chunk]
        return any(not self._fleet.is_bad(self._state.chunks.slot_of(chunk), server) for chunk in withdrawn)

    def take(self, server: Server, may_delete: bool, now: float) -> tuple[msg.Order, ...]:
        """What the server is to be told now."""
        orders: list[msg.Order] = []
        for copy in self._waiting.pop(server.number, []):
            if self._repair.may_be_made(copy, now):
                orders.append(self._order_copy(copy))
            else:
                self._repair.finished(copy.slot, "", now)
        orders += [msg.VerifyOrder(self._number(), chunk) for chunk in self._fleet.suspects.pop(server.number, [])]
        if may_delete:
            for chunk in list(server.deletions)[: self._deletions_max]:
                # Kept until the server says that the chunk is gone; one that it cannot delete holds up no other.
                version = server.deletions[chunk] = server.deletions.pop(chunk)
                number = self._number()
                server.ordered[number] = chunk
                orders.append(msg.DeleteOrder(number, chunk, version))
            while len(server.ordered) > ORDERED_MAX:
                del server.ordered[next(iter(server.ordered))]
            server.deletions |= server.orphans if server.reported else {}
            if server.reported:
                server.orphans.clear()
        return tuple(orders)
