"""What a gateway counts, from its start to its end, and its metrics as they are at the moment when somebody asks."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import hdrs

from gfsprotocol.metrics import Histogram, Labels, Metric, Value

REQUEST_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Bounds: a large body takes its time."""
METRICS: Final = (
    Metric(
        "gfs_gateway_requests_total",
        "counter",
        "Requests that were answered, by the route that answered (none: there is nothing at that address), method and "
        "class of status; gone: the client left before.",
        ("route", "method", "status"),
    ),
    Metric("gfs_gateway_request_seconds", "histogram", "From the head of a request to the end of its answer."),
    Metric("gfs_gateway_received_bytes_total", "counter", "Bytes of bodies that came."),
    Metric("gfs_gateway_sent_bytes_total", "counter", "Bytes of bodies that were sent."),
    Metric(
        "gfs_gateway_refusals_total",
        "counter",
        "Requests refused for what they asked (status 4xx), by the name of the error.",
        ("reason",),
    ),
    Metric(
        "gfs_gateway_backend_errors_total",
        "counter",
        "Requests that failed for the cluster's sake (status 5xx), or whose answer had to be broken off, by the error.",
        ("error",),
    ),
    Metric("gfs_gateway_malformed_requests_total", "counter", "What came and was no HTTP; it has no route."),
    Metric(
        "gfs_gateway_broken_bodies_total",
        "counter",
        "Bodies that did not come to their end: stalled, cut, or too large; the client's doing.",
        ("direction", "reason"),
    ),
    Metric("gfs_gateway_open_uploads", "gauge", "Bodies that are coming now."),
    Metric(
        "gfs_gateway_transfers",
        "gauge",
        "Large bodies: those that move now, and those that wait for a turn.",
        ("state",),
    ),
    Metric("gfs_gateway_connections", "gauge", "Open connections."),
    Metric("gfs_gateway_refused_connections_total", "counter", "Connections refused because there were too many."),
)
_METHODS: Final = frozenset(hdrs.METH_ALL)


def _numbers() -> defaultdict[Labels, int]:
    return defaultdict(int)


@dataclass(slots=True)
class Measures:
    """All on one event loop: plain numbers, no locks but the histogram's."""

    requests: defaultdict[Labels, int] = field(default_factory=_numbers)
    seconds: Histogram = field(default_factory=lambda: Histogram(REQUEST_SECONDS))
    received_bytes: int = 0
    sent_bytes: int = 0
    refusals: defaultdict[Labels, int] = field(default_factory=_numbers)
    backend_errors: defaultdict[Labels, int] = field(default_factory=_numbers)
    malformed: int = 0
    broken_bodies: defaultdict[Labels, int] = field(default_factory=_numbers)
    open_uploads: int = 0
    connections: int = 0
    refused_connections: int = 0

    def answered(self, route: str, method: str, status: str, seconds: float) -> None:
        """A request is over. Methods that HTTP does not have are one, or a stranger could make any number of labels."""
        self.requests[route, method if method in _METHODS else "other", status] += 1
        self.seconds.observe(seconds)

    def failed(self, status: int, name: str) -> None:
        """A request was answered with an error: one of its asker, or of the cluster."""
        if status < 500:
            self.refusals[name,] += 1
        else:
            self.backend_errors[name,] += 1

    def read(self) -> Mapping[str, Value]:
        """By the names of the metrics."""
        return {
            "gfs_gateway_requests_total": self.requests,
            "gfs_gateway_request_seconds": self.seconds,
            "gfs_gateway_received_bytes_total": self.received_bytes,
            "gfs_gateway_sent_bytes_total": self.sent_bytes,
            "gfs_gateway_refusals_total": self.refusals,
            "gfs_gateway_backend_errors_total": self.backend_errors,
            "gfs_gateway_malformed_requests_total": self.malformed,
            "gfs_gateway_broken_bodies_total": self.broken_bodies,
            "gfs_gateway_open_uploads": self.open_uploads,
            "gfs_gateway_connections": self.connections,
            "gfs_gateway_refused_connections_total": self.refused_connections,
        }
