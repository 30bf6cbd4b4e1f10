"""``/metrics`` of real processes: what the page says, and figures that rise with what happens, failures included."""

import os
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gfschunkserver import measures as chunkserver_measures
from gfsclient.mount import measures as mount_measures
from gfsgateway import measures as gateway_measures
from gfsmaster import measures as master_measures
from gfsprotocol import bulk
from gfsprotocol.errors import GfsError, NotFound, PermissionDenied
from gfsprotocol.metrics import Metric
from tests.cluster.harness import Cluster, wait_until
from tests.house.documentation import DOCS

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


def _is_refused(url: str) -> None:
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(url, timeout=30)


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
    of_servers = (*master_measures.METRICS, *chunkserver_measures.METRICS)
    of_clients = (*gateway_measures.METRICS, *mount_measures.METRICS)
    known = {metric.name for metric in (*of_servers, *of_clients)}
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
    # Each value is asked for by itself, and the leader may commit something in between.
    commits, timed = "gfs_master_commits_total", "gfs_master_commit_seconds_count"
    wait_until("every commit is timed", lambda: leader.value(commits) == leader.value(timed) > 0)
    wait_until(
        "every commit has a record", lambda: leader.value(commits) <= leader.value("gfs_master_committed_records_total")
    )
    wait_until("both servers are connected", lambda: leader.value("gfs_master_chunk_servers", state="connected") == 2)
    assert (leader.value("gfs_master_chunks"), leader.value("gfs_master_missing_chunks")) == (1, 0)
    standby.wait("gfs_master_applied_sequence", above=leader.value("gfs_master_committed_sequence") - 1)
    wait_until("the standby is connected", lambda: leader.value("gfs_master_connections", role="master") == 1)
    assert sum(server.value("gfs_chunkserver_written_bytes_total") for server in servers) >= 600_000
    assert sum(server.value("gfs_chunkserver_read_bytes_total") for server in servers) >= 300_000
    assert all(server.value("gfs_chunkserver_journal_sync_seconds_count") > 0 for server in servers)
    wait_until(
        "both masters are heard",
        lambda: all(server.value("gfs_chunkserver_master_connected") == 2 for server in servers),
    )
    assert all(server.value("process_resident_memory_bytes") > 0 for server in [*servers, *masters])


async def test_rot_and_refusals_of_a_chunk_server_are_counted(cluster: Callable[..., Cluster]) -> None:
    running = cluster(masters=1, chunkservers=1, replication=1)
    server, leader = Process(running.port_base + 100), Process(running.port_base)
    async with await running.client(deadline_seconds=2.0) as files:
        await files.write_bytes("/rotten", b"y" * 200_000)
        (replica,) = running.data_directory("chunkserver-1").glob("chunks/*/*.chunk")
        with replica.open("r+b") as file:
            file.seek(-50_000, os.SEEK_END)
            file.write(b"rot")
        with pytest.raises(GfsError):
            await files.read_bytes("/rotten")
    server.wait("gfs_chunkserver_checksum_failures_total", disk=str(running.data_directory("chunkserver-1")))
    leader.wait("gfs_master_missing_chunks")
    leader.wait("gfs_master_corrupt_replicas")
    assert server.value("gfs_chunkserver_corrupt_chunks") == 1
    server.wait("gfs_chunkserver_failed_requests_total", request="Read")
    with socket.create_connection(("127.0.0.1", running.port_base + 100), timeout=30) as stranger:
        stranger.sendall(bulk.PREAMBLE[:1] + b"not it, and long enough")
        while stranger.recv(4096):
            pass
    server.wait("gfs_chunkserver_refused_connections_total")
    _is_refused(f"http://127.0.0.1:{running.port_base + 100}/chunks/1?token=00")
    server.wait("gfs_chunkserver_failed_requests_total", request="HTTP")


def test_failovers_dead_servers_and_lost_clients_are_counted(cluster: Callable[..., Cluster]) -> None:
    settings = {"lease_seconds": 1.0, "client_silent_seconds": 2.0, "server_silent_seconds": 2.0}
    running = cluster(masters=2, chunkservers=2, replication=2, master=settings)
    leader, standby = _masters(running)
    if leader.value("gfs_master_leads") < 1:
        leader, standby = standby, leader
    lost = running.popen("put", "-", "/left-open", stdin=subprocess.PIPE)
    leader.wait("gfs_master_open_files")
    lost.kill()
    lost.communicate()
    leader.wait("gfs_master_expired_clients_total")
    assert running.gfsclient("put", "-", "/file", input=b"content").returncode == 0
    running.kill("chunkserver-2")
    leader.wait("gfs_master_dead_chunk_servers_total")
    leader.wait("gfs_master_chunk_servers", state="away")
    leader.wait("gfs_master_under_replicated_chunks")
    won = standby.value("gfs_master_elections_won_total")
    assert running.gfs("handover").returncode == 0
    leader.wait("gfs_master_leaderships_ended_total", reason="resigned")
    standby.wait("gfs_master_elections_won_total", above=won)
    assert running.gfsclient("stat", "/file").returncode == 0
    assert standby.value("gfs_master_requests_total", request="Stat") >= 1


def _asked(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_gateway_counts_requests_bodies_and_whatever_fails(cluster: Callable[..., Cluster]) -> None:
    settings = {"stall_seconds": 1.0}
    running = cluster(masters=1, chunkservers=1, replication=1, gateways=1, gateway=settings)
    base, port = running.gateway_url(), running.port_base + 200
    _agrees_with_the_page(port, gateway_measures.METRICS)
    gateway = Process(port)
    address = f"{base}/v1/files/file"
    kind = {"Content-Type": "application/octet-stream"}
    assert _asked(address, "PUT", bytes(300_000), **kind) == 201
    assert _asked(address) == 200
    assert _asked(f"{base}/v1/files/missing") == 404
    assert _asked(f"{base}/nowhere") == 404
    assert _asked(address, Range="bytes=999999-") == 416
    assert _asked(f"{base}/webhdfs/v1/missing?op=GETFILESTATUS") == 404

    def requests(**labels: str) -> float:
        return gateway.value("gfs_gateway_requests_total", **labels)

    assert requests(route="/v1/files/", method="PUT", status="2xx") == 1
    assert requests(route="/v1/files/", method="GET", status="2xx") == 1
    assert requests(route="/v1/files/", method="GET", status="4xx") == 2
    assert (requests(route="none"), requests(route="/webhdfs/v1/", status="4xx")) == (1, 1)
    assert gateway.value("gfs_gateway_request_seconds_count") >= 6
    assert gateway.value("gfs_gateway_received_bytes_total") == 300_000
    assert gateway.value("gfs_gateway_sent_bytes_total") > 300_000
    refusals = {"NotFound": 2.0, "RequestedRangeNotSatisfiable": 1.0, "FileNotFoundException": 1.0}
    assert {reason: gateway.value("gfs_gateway_refusals_total", reason=reason) for reason in refusals} == refusals

    with socket.create_connection(("127.0.0.1", port), timeout=60) as stalled:
        stalled.sendall(b"PUT /v1/files/half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        gateway.wait("gfs_gateway_open_uploads")
        assert b" 408 " in stalled.recv(4096)
    assert gateway.value("gfs_gateway_broken_bodies_total", direction="upload", reason="stalled") == 1
    gateway.wait("gfs_gateway_refusals_total", reason="RequestTimeout")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as stranger:
        stranger.sendall(b"what?\r\n\r\n")
        assert b" 400 " in stranger.recv(4096)
    assert gateway.value("gfs_gateway_malformed_requests_total") == 1
    assert gateway.value("gfs_gateway_connections") >= 1
    assert gateway.value("gfs_gateway_backend_errors_total") == 0
    running.kill("master-1")
    assert _asked(f"{base}/readyz") >= 500
    assert gateway.value("gfs_gateway_backend_errors_total") == 1
