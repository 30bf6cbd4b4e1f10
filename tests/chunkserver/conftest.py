"""Fixtures: clusters that leave nothing behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chunkserver.cluster import Cluster


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    clusters: list[Cluster] = []

    def make(servers: int, **settings: Any) -> Cluster:
        clusters.append(Cluster(tmp_path, servers, **settings))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.stop()
