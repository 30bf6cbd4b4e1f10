"""The requests of chunk servers, as the leader answers them: who they are, what they have, what they have done.

Atomic between awaits: nothing here awaits, so a report is taken whole.
"""

import logging

from gfsmaster.commits import Committer
from gfsmaster.config import MasterConfig
from gfsmaster.fleet import Fleet
from gfsmaster.housekeeping import Housekeeping
from gfsmaster.measures import Measures
from gfsmaster.orders import Orders
from gfsmaster.registry import Registry
from gfsmaster.state import State
from gfsmaster.term import Term
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import NotLeader
from gfsprotocol.rpc import Peer

log = logging.getLogger(__name__)


class ServerRequests:
    """Register, ChunkReport and Heartbeat, which is answered with orders."""

    def __init__(
        self,
        config: MasterConfig,
        clock: Clock,
        term: Term,
        state: State,
        fleet: Fleet,
        orders: Orders,
        housekeeping: Housekeeping,
        committer: Committer,
        measures: Measures,
    ) -> None:
        self._config = config
        self._clock = clock
        self._term = term
        self._state = state
        self._fleet = fleet
        self._registry = Registry(state, fleet, clock)
        self._orders = orders
        self._housekeeping = housekeeping
        self._committer = committer
        self._measures = measures

    def register(self, peer: Peer, request: msg.Request, body: msg.Register) -> None:
        if body.highest_epoch > self._term.epoch:
            raise NotLeader(f"chunk server {body.host}:{body.port} has seen epoch {body.highest_epoch}")
        self._registry.register(peer, body)
        if self._fleet.brake:
            log.error("deletions are held back: %s", self._fleet.brake)
        reply = msg.Registered(
            self._state.cluster, self._term.epoch, self._term.clock_ms, self._config.heartbeat_seconds
        )
        self._committer.reply(peer, request.id, reply)

    def chunk_report(self, peer: Peer, request: msg.Request, body: msg.ChunkReport) -> None:
        self._registry.report(body)
        self._committer.reply(peer, request.id, msg.Done())

    def heartbeat(self, peer: Peer, request: msg.Request, body: msg.Heartbeat) -> None:
        server = self._registry.heartbeat(peer, body)
        orders: tuple[msg.Order, ...] = ()
        if server is not None:
            for result in body.finished:
                if result.error:
                    self._measures.failed_orders += 1
                    log.warning(
                        "chunk server %s:%d could not carry out an order: %s", server.host, server.port, result.error
                    )
                self._orders.finished(server, result, self._clock.monotonic())
            if self._orders.withdraw(server):
                server = None
            else:
                orders = self._orders.take(server, self._housekeeping.may_delete, self._clock.monotonic())
        reply = msg.Orders(self._term.epoch, self._term.clock_ms, orders, report_again=server is None)
        self._committer.reply(peer, request.id, reply)

    def disconnected(self, peer: Peer) -> None:
        """A connection ended."""
        self._registry.disconnected(peer)
