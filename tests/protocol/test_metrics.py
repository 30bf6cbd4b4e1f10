"""What is counted is what Prometheus reads."""

import threading
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gfsprotocol.metrics import Counts, Histogram, Metric, Value, page, registry

METRICS = (
    Metric("gfs_test_plain_total", "counter", "Without labels."),
    Metric("gfs_test_labelled_total", "counter", "With labels.", ("kind", "error")),
    Metric("gfs_test_level", "gauge", "Up and down."),
    Metric("gfs_test_seconds", "histogram", "How long."),
)


def _samples(values: Mapping[str, Value]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = bytes(page(registry(METRICS, lambda: values)).body).decode()  # type: ignore[arg-type]
    assert all(
        f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n" in text for metric in METRICS
    )
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("gfs_")
    }


def test_what_was_never_counted_is_nothing_not_absent() -> None:
    assert _samples({"gfs_test_plain_total": Counts(), "gfs_test_labelled_total": Counts()}) == {
        ("gfs_test_plain_total", frozenset()): 0
    }


def test_of_a_metric_without_a_value_only_the_help_is_told() -> None:
    assert _samples({"gfs_test_level": 2.5}) == {("gfs_test_level", frozenset()): 2.5}


def test_labels_come_through_whatever_they_hold() -> None:
    counts = Counts()
    counts.add("Read", 'with "quotes"\nand more', count=3)
    counts.add("Read", "")
    assert _samples({"gfs_test_labelled_total": counts}) == {
        ("gfs_test_labelled_total", frozenset({("kind", "Read"), ("error", 'with "quotes"\nand more')})): 3,
        ("gfs_test_labelled_total", frozenset({("kind", "Read"), ("error", "")})): 1,
    }
    assert counts.total == 4


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.floats(0.001, 50), min_size=1, max_size=8, unique=True))
def test_a_histogram_counts_every_value_up_to_each_bound(values: list[float], bounds: list[float]) -> None:
    histogram = Histogram(sorted(bounds))
    for value in values:
        histogram.observe(value)
    buckets, total = histogram.read()
    assert total == pytest.approx(sum(values))
    assert buckets[-1] == ("+Inf", len(values))
    assert buckets[:-1] == [(str(bound), sum(value <= bound for value in values)) for bound in sorted(bounds)]


def test_no_count_is_lost_between_threads() -> None:
    counts, histogram = Counts(), Histogram()

    def count() -> None:
        for _ in range(2000):
            counts.add("x")
            histogram.observe(0.001)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.total == 8000
    assert histogram.read()[0][-1] == ("+Inf", 8000)
