"""What chunk servers say of themselves, taken into the fleet: the same for the leader and for a standby.

A standby hears every report too, so that it knows where all chunks are when it takes over (HDFS's block reports to both
NameNodes). It may hear of a chunk before it has read of it in the log; the fleet keeps such reports until then
(HDFS-17453 is what happens otherwise).
"""

import logging

from gfsmaster.fleet import Fleet
from gfsmaster.servers import Server
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import AuthenticationFailed
from gfsprotocol.rpc import Peer

log = logging.getLogger(__name__)


class Registry:
    """Takes Register, ChunkReport and Heartbeat. Atomic between awaits: nothing here awaits."""

    def __init__(self, state: State, fleet: Fleet, clock: Clock) -> None:
        self._state = state
        self.fleet = fleet
        self._clock = clock

    def register(self, peer: Peer, body: msg.Register) -> Server:
        """A server's introduction. AuthenticationFailed if it belongs to another cluster."""
        if body.cluster and body.cluster != self._state.cluster:
            log.error("%s belongs to cluster %s, not to this one", peer.name, body.cluster.hex())
            raise AuthenticationFailed(
                f"chunk server {body.host}:{body.port} belongs to cluster {body.cluster.hex()}, "
                f"this is cluster {self._state.cluster.hex()}"
            )
        server = self.fleet.register(body, self._clock.monotonic())
        peer.state = server
        log.info("chunk server %s:%d registered with %d disks", body.host, body.port, len(body.disks))
        return server

    def report(self, body: msg.ChunkReport) -> None:
        """A slice of a server's full report."""
        server = self.fleet.by_id.get(body.server)
        if server is not None:
            self.fleet.report(server, body.replicas, body.last)
            if body.last:
                log.info("chunk server %s:%d reported %d replicas", server.host, server.port, server.chunks)

    def heartbeat(self, peer: Peer, body: msg.Heartbeat) -> Server | None:
        """What changed on a server; None if it has to register and report everything again."""
        server = self.fleet.heartbeat(body, self._clock.monotonic())
        if server is None:
            return None
        peer.state = server
        for chunk in body.corrupt:
            log.warning("chunk server %s:%d has a corrupt replica of chunk %d", server.host, server.port, chunk)
        return server

    def disconnected(self, peer: Peer) -> None:
        """A connection ended; if it was a chunk server's, new data goes elsewhere until it is heard again."""
        if isinstance(peer.state, Server) and self.fleet.by_id.get(peer.state.server) is peer.state:
            log.info("lost the connection to chunk server %s:%d", peer.state.host, peer.state.port)
            self.fleet.lost_connection(peer.state)
