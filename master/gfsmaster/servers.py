"""A chunk server, as a master sees it. Pure."""

from dataclasses import dataclass, field

from gfsprotocol import messages as msg


@dataclass(slots=True)
class Server:
    """A chunk server. ``heard`` is the monotonic time of its last sign of life, in seconds."""

    number: int
    server: int
    host: str
    port: int
    rack: str
    heard: float
    started: float = 0.0
    """Monotonic seconds: when its process began, as nearly as we know."""
    registered: float = 0.0
    """Monotonic seconds: when it introduced itself last; whatever it failed at before may be over."""
    connected: bool = True
    """Usable now: new data may go there, and readers are sent there first."""
    alive: bool = True
    """Counted: a server that was just lost may be back in a moment, so nothing is copied before it is declared dead."""
    disks: tuple[msg.DiskUsage, ...] = ()
    chunks: int = 0
    reported: bool = False
    """Whether its full report has been heard to the end."""
    seen: bytearray | None = None
    """While a full report runs: one byte per chunk slot."""
    deletions: dict[int, int] = field(default_factory=dict)
    """Chunks whose replica here may go: id -> highest version to delete."""
    ordered: dict[int, int] = field(default_factory=dict)
    """Deletions that were sent: order -> chunk."""
    orphans: dict[int, int] = field(default_factory=dict)
    """Replicas of chunks that the namespace does not know: id -> version."""
    must_report: bool = False
    """Whether something it said could not be kept: it is to register and report all again."""
    writes: int = 0
    """New chunks placed since the last heartbeat; spreads allocations between heartbeats."""

    @property
    def address(self) -> msg.ServerAddress:
        return msg.ServerAddress(self.server, self.host, self.port)

    @property
    def free_bytes(self) -> int:
        return sum(disk.free_bytes for disk in self.disks if not disk.failed)

    def status(self, now: float) -> msg.ServerStatus:
        """What a person is told of it; ``now`` is monotonic seconds."""
        heard = round(now - self.heard, 3)
        return msg.ServerStatus(self.server, self.host, self.port, self.connected, heard, self.chunks, self.disks)
