"""``/metrics`` of real processes: what the page says, and figures that rise with what happens, failures included."""

import re
import urllib.request
from collections.abc import Callable, Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gfschunkserver import measures as chunkserver_measures
from gfsmaster import measures as master_measures
from gfsprotocol.errors import NotFound, PermissionDenied
from gfsprotocol.metrics import Metric
from tests.cluster.harness import Cluster, wait_until
from tests.house.documentation import DOCS

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


class Process:
    """The metrics of one process, asked for anew each time."""

    def __init__(self, port: int) -> None:
        self._port = port

    def value(self, name: str, **labels: str) -> float:
        """The sum of all samples with this name and these labels."""
        families = text_string_to_metric_families(_page(self._port))
        found = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in found if labels.items() <= sample.labels.items())

    def wait(self, name: str, above: float = 0.0, **labels: str) -> None:
        wait_until(f"{name} {labels} over {above}", lambda: self.value(name, **labels) > above, seconds=60)


def _masters(running: Cluster) -> list[Process]:
    return [Process(running.port_base + number) for number in range(2)]


def _documented() -> dict[str, str]:
    rows = re.findall(r"^\| `(gfs_\w+)` \| \w+ \| [^|]*\| (.*) \|$", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    return dict(rows)


def _agrees_with_the_page(port: int, metrics: tuple[Metric, ...]) -> None:
    shown = dict(re.findall(r"^# HELP (gfs_\w+) (.*)$", _page(port), re.MULTILINE))
    documented = _documented()
    assert shown == {metric.name: metric.help for metric in metrics}
    assert shown.items() <= documented.items()


async def test_every_process_shows_what_the_page_says_and_counts_what_happens(cluster: Callable[..., Cluster]) -> None:
    running = cluster(masters=2, chunkservers=2, master={"lease_seconds": 1.0, "client_silent_seconds": 2.0})
    first = running.port_base
    for port in (first, first + 1):
        _agrees_with_the_page(port, master_measures.METRICS)
    for port in (first + 100, first + 101):
        _agrees_with_the_page(port, chunkserver_measures.METRICS)
    known = {metric.name for metric in (*master_measures.METRICS, *chunkserver_measures.METRICS)}
    assert set(_documented()) == known
    named = set(re.findall(r"\bgfs_\w+", (DOCS / "metrics.md").read_text()))
    assert named <= known

    masters = _masters(running)
    leader, standby = sorted(masters, key=lambda master: -master.value("gfs_master_leads"))
    assert (leader.value("gfs_master_leads"), standby.value("gfs_master_leads")) == (1, 0)
    servers = [Process(port) for port in (first + 100, first + 101)]

    async with await running.client() as files:
        content = b"x" * 300_000
        await files.write_bytes("/file", content)
        assert await files.read_bytes("/file") == content
        with pytest.raises(NotFound):
            await files.stat("/missing")
        await files.chmod("/file", 0o600)
    other = await running.client(user=(1000, 1000))
    with pytest.raises(PermissionDenied):
        await other.read_bytes("/file")
    await other.close()

    assert leader.value("gfs_master_requests_total", request="Create") == 1
    assert leader.value("gfs_master_failed_requests_total", request="Stat", error="NotFound") >= 1
    assert leader.value("gfs_master_failed_requests_total", error="PermissionDenied") >= 1
    assert leader.value("gfs_master_commits_total") == leader.value("gfs_master_commit_seconds_count") > 0
    assert leader.value("gfs_master_committed_records_total") >= leader.value("gfs_master_commits_total")
    assert leader.value("gfs_master_chunk_servers", state="connected") == 2
    assert (leader.value("gfs_master_chunks"), leader.value("gfs_master_missing_chunks")) == (1, 0)
    standby.wait("gfs_master_applied_sequence", above=leader.value("gfs_master_committed_sequence") - 1)
    assert leader.value("gfs_master_connections", role="master") == 1
    assert sum(server.value("gfs_chunkserver_written_bytes_total") for server in servers) >= 600_000
    assert sum(server.value("gfs_chunkserver_read_bytes_total") for server in servers) >= 300_000
    assert all(server.value("gfs_chunkserver_journal_sync_seconds_count") > 0 for server in servers)
    assert all(server.value("gfs_chunkserver_master_connected") == 2 for server in servers)
    assert all(server.value("process_resident_memory_bytes") > 0 for server in [*servers, *masters])


async def test_failures_are_counted(cluster: Callable[..., Cluster]) -> None:
    running = cluster(
        masters=2,
        chunkservers=2,
        replication=2,
        master={"lease_seconds": 1.0, "client_silent_seconds": 2.0, "server_silent_seconds": 2.0},
    )
    masters = _masters(running)
    leader, standby = sorted(masters, key=lambda master: -master.value("gfs_master_leads"))
    names = sorted(record.name for record in running.records() if "chunk" in record.name)
    server = Process(running.port_base + 100)

    # Bytes that rot on a disk.
    files = await running.client()
    await files.write_bytes("/rotten", b"y" * 200_000)
    await files.write_bytes("/left-open", b"z")
    left = await files.open("/left-open", "ab")
    await left.write(b"never closed")
    running.gfs("down", "--dir", str(running.directory))  # checkpoints: the file has its table
    (damaged,) = [
        file for file in running.data_directory(names[0]).glob("chunks/*/*.chunk") if file.stat().st_size > 200_000
    ]
    with damaged.open("r+b") as file:
        file.seek(-50_000, 2)
        file.write(b"rot")
    running.up()
    for master in masters:
        wait_until("a leader", lambda: sum(each.value("gfs_master_leads") for each in masters) == 1)
    leader, standby = sorted(masters, key=lambda master: -master.value("gfs_master_leads"))
    assert (await files.read_bytes("/rotten"))[:1] == b"y"
    await files.close()

    leader.wait("gfs_master_expired_clients_total")
    running.kill(names[1])
    leader.wait("gfs_master_dead_chunk_servers_total")
    leader.wait("gfs_master_under_replicated_chunks")
    del server
    won = standby.value("gfs_master_elections_won_total")
    leading = next(record.name for record in running.records() if record.name.endswith(str(masters.index(leader) + 1)))
    running.kill(leading)
    standby.wait("gfs_master_elections_won_total", above=won)
    standby.wait("gfs_master_leads")
