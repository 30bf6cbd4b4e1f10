"""The metrics of a mount: they rise with what programs do, and with what they are refused."""

import os
import socket
import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gfsclient.mount.measures import METRICS
from tests.mounted.mounting import LOCALLY, Mount

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def _free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        return int(attempt.getsockname()[1])


@pytest.mark.skipif(LOCALLY, reason="a directory counts nothing")
def test_a_mount_counts_what_it_is_asked(mounts: Callable[..., list[Mount]]) -> None:
    port = _free_port()
    (mount,) = mounts(1, "-o", f"metrics={port}", masters=1, chunkservers=1, replication=1)

    def value(name: str, **labels: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        assert {metric.name.removesuffix("_total") for metric in METRICS} <= {family.name for family in families}
        found = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in found if labels.items() <= sample.labels.items())

    file = mount.path / "file"
    file.write_bytes(bytes(100_000))
    mount.run("cat", file)
    assert value("gfs_mount_written_bytes_total") == 100_000
    assert value("gfs_mount_requests_total", operation="create") == 1
    assert value("gfs_mount_requests_total", operation="lookup") >= 1
    assert value("gfs_mount_request_seconds_count") >= value("gfs_mount_requests_total", operation="write") > 0
    assert value("gfs_mount_watched") == 1
    assert value("gfs_mount_kept_inodes") >= 1
    with pytest.raises(OSError, match="No data available"):
        os.removexattr(mount.path, "user.none")
    assert value("gfs_mount_failed_requests_total", operation="removexattr", error="ENODATA") == 1
