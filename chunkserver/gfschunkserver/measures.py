"""What a chunk server counts, and its metrics as they are at the moment when somebody asks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from gfschunkserver.disk import Disk
from gfsprotocol.messages import DiskUsage
from gfsprotocol.metrics import Counts, Histogram, Labels, Metric, Value

_Item = TypeVar("_Item")

METRICS: Final = (
    Metric(
        "gfs_chunkserver_requests_total",
        "counter",
        "Requests, by the name of their message: Read, OpenWrite, Prepare, and HTTP for those by HTTP.",
        ("request",),
    ),
    Metric(
        "gfs_chunkserver_failed_requests_total",
        "counter",
        "Requests that failed; ConnectionLost: whoever asked has gone.",
        ("request", "error"),
    ),
    Metric("gfs_chunkserver_read_bytes_total", "counter", "Bytes of chunks that were sent."),
    Metric("gfs_chunkserver_written_bytes_total", "counter", "Bytes of chunks that were received and applied here."),
    Metric("gfs_chunkserver_mutations_total", "counter", "Writes, appends, cuts and syncs that were applied here."),
    Metric(
        "gfs_chunkserver_damaged_payloads_total", "counter", "Mutations whose bytes did not match when they arrived."
    ),
    Metric("gfs_chunkserver_connections", "gauge", "Open bulk connections, each with a thread."),
    Metric(
        "gfs_chunkserver_refused_connections_total",
        "counter",
        "Bulk connections refused: too many, or another protocol.",
    ),
    Metric(
        "gfs_chunkserver_checksum_failures_total",
        "counter",
        "Replicas that failed verification and were put aside.",
        ("disk",),
    ),
    Metric("gfs_chunkserver_corrupt_chunks", "gauge", "Such replicas that are still kept for a person."),
    Metric("gfs_chunkserver_scrubbed_bytes_total", "counter", "Bytes that the scrubber found good."),
    Metric("gfs_chunkserver_scrub_remaining_chunks", "gauge", "Chunks that its present pass has still to read."),
    Metric("gfs_chunkserver_disk_failed", "gauge", "1 if the disk is out of use.", ("disk",)),
    Metric("gfs_chunkserver_disk_full_total", "counter", "Writes that found no space left.", ("disk",)),
    Metric("gfs_chunkserver_disk_total_bytes", "gauge", "Size of the disk; 0 if it is out of use.", ("disk",)),
    Metric("gfs_chunkserver_disk_free_bytes", "gauge", "What may be used of it for chunks.", ("disk",)),
    Metric("gfs_chunkserver_disk_chunks", "gauge", "Replicas on it.", ("disk",)),
    Metric("gfs_chunkserver_journal_bytes", "gauge", "Journal records that wait for their checkpoint.", ("disk",)),
    Metric("gfs_chunkserver_journal_sync_seconds", "histogram", "How long an fsync of a journal took."),
    Metric(
        "gfs_chunkserver_orders_total",
        "counter",
        "Orders of the master: ReplicateOrder, DeleteOrder, VerifyOrder.",
        ("order",),
    ),
    Metric("gfs_chunkserver_failed_orders_total", "counter", "Orders that could not be carried out.", ("order",)),
    Metric("gfs_chunkserver_master_connected", "gauge", "1 if the master at this address is connected.", ("master",)),
    Metric("gfs_chunkserver_highest_epoch", "gauge", "The highest epoch of a leader that was heard of."),
)


@dataclass(slots=True)
class Measures:
    """Counted in many threads."""

    requests: Counts = field(default_factory=Counts)
    failed_requests: Counts = field(default_factory=Counts)
    read_bytes: Counts = field(default_factory=Counts)
    written_bytes: Counts = field(default_factory=Counts)
    mutations: Counts = field(default_factory=Counts)
    damaged_payloads: Counts = field(default_factory=Counts)
    refused_connections: Counts = field(default_factory=Counts)
    journal_sync_seconds: Histogram = field(default_factory=Histogram)
    orders: Counts = field(default_factory=Counts)
    failed_orders: Counts = field(default_factory=Counts)

    def read(self) -> dict[str, Value]:
        """By the names of the metrics."""
        return {
            "gfs_chunkserver_requests_total": self.requests,
            "gfs_chunkserver_failed_requests_total": self.failed_requests,
            "gfs_chunkserver_read_bytes_total": self.read_bytes,
            "gfs_chunkserver_written_bytes_total": self.written_bytes,
            "gfs_chunkserver_mutations_total": self.mutations,
            "gfs_chunkserver_damaged_payloads_total": self.damaged_payloads,
            "gfs_chunkserver_refused_connections_total": self.refused_connections,
            "gfs_chunkserver_journal_sync_seconds": self.journal_sync_seconds,
            "gfs_chunkserver_orders_total": self.orders,
            "gfs_chunkserver_failed_orders_total": self.failed_orders,
        }


def read_disks(disks: Iterable[Disk]) -> Mapping[str, Value]:
    """What each disk has, and has been through."""
    by_disk: dict[Labels, Disk] = {(str(disk.layout.root),): disk for disk in disks}
    usage: dict[Labels, DiskUsage] = {labels: disk.usage() for labels, disk in by_disk.items()}
    return {
        "gfs_chunkserver_corrupt_chunks": sum(len(disk.corrupt) for disk in by_disk.values()),
        "gfs_chunkserver_checksum_failures_total": _of(by_disk, lambda disk: disk.checksum_failures.total),
        "gfs_chunkserver_disk_failed": _of(by_disk, lambda disk: int(bool(disk.failed))),
        "gfs_chunkserver_disk_full_total": _of(by_disk, lambda disk: disk.times_full.total),
        "gfs_chunkserver_disk_total_bytes": _of(usage, lambda used: used.total_bytes),
        "gfs_chunkserver_disk_free_bytes": _of(usage, lambda used: used.free_bytes),
        "gfs_chunkserver_disk_chunks": _of(usage, lambda used: used.chunks),
        "gfs_chunkserver_journal_bytes": _of(by_disk, lambda disk: disk.journal_bytes),
    }


def _of(items: Mapping[Labels, _Item], number: Callable[[_Item], float]) -> dict[Labels, float]:
    return {labels: number(item) for labels, item in items.items()}
