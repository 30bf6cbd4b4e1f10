"""What a master node counts, from its start to its end, whatever role it plays meanwhile."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from gfsprotocol.errors import ERRORS_BY_CODE, GfsError
from gfsprotocol.metrics import Histogram, Labels, Metric

METRICS: Final = (
    Metric(
        "gfs_master_requests_total", "counter", "Requests that arrived, by the name of their message.", ("request",)
    ),
    Metric(
        "gfs_master_failed_requests_total",
        "counter",
        "Requests that were answered with an error. NotLeader is how clients find the leader, NotFound an answer.",
        ("request", "error"),
    ),
    Metric("gfs_master_connections", "gauge", "Open connections, by the role of the peer.", ("role",)),
    Metric("gfs_master_refused_connections_total", "counter", "Connections refused: too many, or a wrong key."),
    Metric("gfs_master_leads", "gauge", "1 if this node leads and may answer as the leader, 0 if it follows."),
    Metric("gfs_master_epoch", "gauge", "The epoch of the leader that this node is, or follows."),
    Metric("gfs_master_elections_won_total", "counter", "How often this process began to lead: failovers, and starts."),
    Metric(
        "gfs_master_leaderships_ended_total",
        "counter",
        "How often it ended to lead, by reason: resigned (handover, stop), cut_off, or the error of the log.",
        ("reason",),
    ),
    Metric("gfs_master_applied_sequence", "gauge", "Number of the last log record in this node's memory."),
    Metric("gfs_master_committed_sequence", "gauge", "Number of the last record known to be durable in the log."),
    Metric("gfs_master_lag_seconds", "gauge", "Of a standby: how long ago it had all that the leader had committed."),
    Metric(
        "gfs_master_standby_lag_records",
        "gauge",
        "As the leader sees it: records that a standby has not applied yet.",
        ("standby",),
    ),
    Metric("gfs_master_commits_total", "counter", "Batches written to the operation log."),
    Metric("gfs_master_committed_records_total", "counter", "Records in these batches."),
    Metric("gfs_master_committed_bytes_total", "counter", "Bytes of these records."),
    Metric("gfs_master_failed_commits_total", "counter", "Batches that could not be written; each ends a leadership."),
    Metric("gfs_master_commit_seconds", "histogram", "How long a batch took to be durable."),
    Metric("gfs_master_waiting_records", "gauge", "Records that are applied and not yet durable."),
    Metric("gfs_master_safe_mode", "gauge", "1 while too few chunks are reported to delete anything."),
    Metric("gfs_master_brake", "gauge", "1 while deletions are held back until a person has looked."),
    Metric("gfs_master_inodes", "gauge", "Files, directories and other inodes."),
    Metric("gfs_master_chunks", "gauge", "Chunks of all files."),
    Metric("gfs_master_under_replicated_chunks", "gauge", "Chunks that wait for another replica."),
    Metric("gfs_master_missing_chunks", "gauge", "Chunks of which no good replica is known."),
    Metric("gfs_master_corrupt_replicas", "gauge", "Replicas that failed verification and are not removed yet."),
    Metric("gfs_master_pending_deletions", "gauge", "Replicas that wait for their deletion."),
    Metric(
        "gfs_master_chunk_servers", "gauge", "Chunk servers that are known, by state: connected or away.", ("state",)
    ),
    Metric("gfs_master_dead_chunk_servers_total", "counter", "Chunk servers given up because they were silent."),
    Metric(
        "gfs_master_failed_orders_total", "counter", "Copies, deletions and verifications that a server failed to do."
    ),
    Metric("gfs_master_open_files", "gauge", "Files that are open for writing."),
    Metric("gfs_master_clients", "gauge", "Clients that the state remembers."),
    Metric("gfs_master_expired_clients_total", "counter", "Clients that vanished with files open, which were closed."),
    Metric("gfs_master_checkpoints_total", "counter", "Checkpoints that this process published."),
    Metric("gfs_master_failed_checkpoints_total", "counter", "Checkpoints that it gave up because of an error."),
)


@dataclass(slots=True)
class Measures:
    """All on one event loop: plain numbers, no locks."""

    requests: defaultdict[type, int] = field(default_factory=lambda: defaultdict(int))
    """By the type of the message."""
    failures: defaultdict[tuple[type, int], int] = field(default_factory=lambda: defaultdict(int))
    """By the type of the message and the wire code of the error."""
    refused_connections: int = 0
    elections_won: int = 0
    leaderships_ended: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    commits: int = 0
    committed_records: int = 0
    committed_bytes: int = 0
    failed_commits: int = 0
    commit_seconds: Histogram = field(default_factory=Histogram)
    dead_servers: int = 0
    failed_orders: int = 0
    expired_clients: int = 0
    checkpoints: int = 0
    failed_checkpoints: int = 0

    def failed_requests(self) -> dict[Labels, float]:
        """As samples: names of messages and of errors."""
        return {
            (kind.__name__, ERRORS_BY_CODE.get(code, GfsError).__name__): count
            for (kind, code), count in self.failures.items()
        }
