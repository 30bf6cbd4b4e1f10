"""What a process counts, and how Prometheus gets it.

Counting is plain integers, so that it costs next to nothing where it happens; samples are made from them when somebody
asks (a custom collector of prometheus_client). Each process has one registry. The tables of docs/metrics.md are made
from the very definitions that are exposed.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

METRICS_PATH: Final = "/metrics"
LATENCY_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds of histograms of what a disk or a network does."""

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One that a process exposes, by the name that Prometheus sees: units last, ``_total`` for what only grows."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()


class Counts:
    """Numbers that only grow, one for each combination of label values. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Labels, int] = {}

    def add(self, *labels: str, count: int = 1) -> None:
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + count

    def read(self) -> dict[Labels, int]:
        with self._lock:
            return dict(self._counts)

    @property
    def total(self) -> int:
        """Of all combinations."""
        return sum(self.read().values())


class Histogram:
    """How often a value was how large. Safe for threads."""

    def __init__(self, bounds: Sequence[float] = LATENCY_SECONDS) -> None:
        self.bounds = tuple(bounds)
        self._lock = threading.Lock()
        self._counts = [0] * (len(self.bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        place = bisect_left(self.bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._sum += value

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """As Prometheus has it: (upper bound, how many values up to it), and the sum of all values."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        buckets: list[tuple[str, float]] = []
        so_far = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], counts, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        return buckets, total


Value = float | Mapping[Labels, float] | Counts | Histogram
"""Of one metric: a number if it has no labels, else a number for each combination of their values."""
Read = Callable[[], Mapping[str, Value]]
"""The values by name, at this moment. Of a metric that has none now, only the help is told."""


class _Samples(Collector):
    def __init__(self, metrics: Sequence[Metric], read: Read) -> None:
        self._metrics = metrics
        self._read = read

    def describe(self) -> Iterable[Family]:
        return [_family(metric) for metric in self._metrics]

    def collect(self) -> Iterator[Family]:
        values = self._read()
        for metric in self._metrics:
            family = _family(metric)
            if metric.name in values:
                _fill(family, metric, values[metric.name])
            yield family


def registry(metrics: Sequence[Metric], read: Read) -> CollectorRegistry:
    """A process's registry: these metrics, and prometheus_client's own of the process and of Python's collector."""
    made = CollectorRegistry()
    made.register(_Samples(metrics, read))
    ProcessCollector(registry=made)
    GCCollector(registry=made)
    return made


def page(registry: CollectorRegistry) -> web.Response:
    """What ``/metrics`` answers."""
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def _family(metric: Metric) -> Family:
    match metric.kind:
        case "counter":
            return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        case "gauge":
            return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        case "histogram":
            return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _fill(family: Family, metric: Metric, value: Value) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Histogram)
        buckets, total = value.read()
        family.add_metric((), buckets, total)
        return
    assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
    assert not isinstance(value, Histogram)
    if isinstance(value, Counts):
        value = value.read() if metric.labels else value.total
    for labels, number in value.items() if isinstance(value, Mapping) else [((), value)]:
        family.add_metric(labels, number)
