"""Real drills of real clusters: short ones here, the series that the figures come from under ``make test-long``."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gfscluster import processes
from gfscluster.drill.packets import is_possible
from tests.cluster.harness import BIN, Cluster
from tests.postgresql import Server

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

needs_packets = pytest.mark.skipif(not is_possible(), reason="this machine does not let us drop packets")


def drill(cluster: Cluster, mode: str, *arguments: str, seconds: float = 120.0) -> dict[str, Any]:
    """The report of a drill that must find nothing wrong."""
    file = cluster.directory.with_name("report.json")
    options = ("--dir", str(cluster.directory), "--json", str(file), *arguments)
    done = cluster.gfs("drill", mode, *options, timeout_seconds=seconds)
    assert done.returncode == 0, f"{done.stdout.decode()}\n{done.stderr.decode()}\n{cluster.logs()}"
    assert b"Nothing that was acknowledged is lost" in done.stdout
    report: dict[str, Any] = json.loads(file.read_text())
    assert report["recovered"]
    assert not any(report["faults"].values())
    assert sum(one["unknown"] + one["reader_errors"] for one in report["rounds"]) == 0
    return report


def test_a_kill_drill_and_its_page(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    report = drill(cluster(), "kill", "--rounds", "2", "--html", str(page))
    assert [one["ended"] for one in report["rounds"]] == [True, True]
    assert all(one["first_acknowledged"] < 1.9 for one in report["rounds"]), "the lease was waited for"
    assert all(one["detect"] <= one["elect"] for one in report["rounds"])
    assert report["rounds"][1]["epoch"] == report["rounds"][0]["epoch"] + 1
    assert "<svg" in page.read_text()


def test_a_handover_drill(cluster: Callable[..., Cluster]) -> None:
    report = drill(cluster(), "handover", "--rounds", "2", "--metadata-only", "--files", "500")
    assert report["files"] >= 500
    assert [one["ended"] for one in report["rounds"]] == [False, False]


def test_a_pause_drill(cluster: Callable[..., Cluster]) -> None:
    report = drill(cluster(master={"lease_seconds": 1}), "pause", "--rounds", "1", "--hold", "4")
    [one] = report["rounds"]
    assert one["successor"] != one["leader"]
    assert one["ended"] == bool(one["note"])


@needs_packets
def test_a_partition_drill(cluster: Callable[..., Cluster]) -> None:
    made = cluster(master={"lease_seconds": 1})
    report = drill(made, "partition", "--rounds", "1", "--hold", "4", "--metadata-only")
    [one] = report["rounds"]
    assert report["means"] == "packet loss"
    assert one["successor"] != one["leader"]
    assert "was not spoken to" in made.log(one["leader"])


@pytest.mark.long
def test_a_partition_drill_without_packet_loss(cluster: Callable[..., Cluster]) -> None:
    made = cluster(master={"lease_seconds": 1})
    report = drill(made, "partition", "--forwarder", "--rounds", "1", "--hold", "4", "--metadata-only")
    [one] = report["rounds"]
    assert report["means"] == "forwarder"
    assert one["successor"] != one["leader"]
    assert "was not spoken to" in made.log(one["leader"])
    assert made.gfs("status").returncode == 0, "the masters listen where they did before"


def test_a_database_drill(cluster: Callable[..., Cluster]) -> None:
    report = drill(cluster(), "database", "--rounds", "2", "--hold", "2", "--metadata-only")
    assert [one["note"] for one in report["rounds"]] == ["journal locked", "disk full"]


def test_a_database_drill_with_postgresql(cluster: Callable[..., Cluster], postgresql: Server) -> None:
    with postgresql.database() as name:
        made = cluster(masters=2, chunkservers=1, journal=postgresql.url(name), master={"lease_seconds": 1})
        report = drill(made, "database", "--rounds", "3", "--hold", "2.5", "--metadata-only")
        stopped, ended, locked = report["rounds"]
        assert stopped["note"].startswith("stopped in a commit; its session was ended after")
        assert stopped["successor"] != stopped["leader"]
        assert ended["note"] == "connection lost with a commit in flight"
        assert locked["note"] == "journal locked"
        assert not any(one["ended"] for one in report["rounds"]), "no process has to be started again"
        assert "leads no more: the journal" in made.log(ended["leader"])
        made.stop()


def test_answers_before_the_commit_lose_what_they_promised(tmp_path: Path) -> None:
    arguments = [BIN / "gfs", "drill", "kill", "--acknowledge", "early", "--rounds", "2", "--seed", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"^(early|durable) +\d+ +\d+ +(.*)$", done.stdout, re.MULTILINE))
    assert rows["durable"].split() == ["0", "none"]
    assert rows["early"].split() != ["0", "none"]


def test_an_interrupted_drill_leaves_nothing_stopped(cluster: Callable[..., Cluster]) -> None:
    interrupt(cluster(), "pause")


@pytest.mark.long
def test_an_interrupted_drill_leaves_nothing_stopped_in_a_commit(
    cluster: Callable[..., Cluster], postgresql: Server
) -> None:
    with postgresql.database() as name:
        made = cluster(journal=postgresql.url(name))
        interrupt(made, "database")
        made.stop()


def interrupt(made: Cluster, mode: str) -> None:
    """Ctrl-C when the leader is stopped."""
    child = subprocess.Popen(
        [BIN / "gfs", "drill", mode, "--hold", "60", "--dir", str(made.directory)],
        env={**made.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        made.wait_for("a stopped master", lambda _: any(is_stopped(record.pid) for record in made.records()))
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130, said
    assert b"Traceback" not in said
    made.wait_for("both masters", lambda status: all("role" in master for master in status["masters"]))


def is_stopped(pid: int) -> bool:
    return processes._stat(pid)[0] == "T"


def test_what_cannot_be_drilled_is_one_line(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    made = cluster(masters=1, chunkservers=1)
    alone = made.gfs("drill", "kill", "--dir", str(made.directory))
    assert alone.returncode == 51
    assert alone.stderr == b"gfs: the cluster has one master only: there is no one to take over\n"
    nothing = made.gfs("drill", "--dir", str(tmp_path / "nothing"))
    assert nothing.returncode == 51
    assert made.gfs("drill", "earthquake").returncode == 2
    assert made.gfs("drill", "pause", "--acknowledge", "early").returncode == 2


def test_a_cluster_that_does_not_run_is_unreachable(cluster: Callable[..., Cluster]) -> None:
    made = cluster(chunkservers=1)
    made.down()
    assert made.gfs("drill", "--dir", str(made.directory), "--patience", "1").returncode == 35


@pytest.mark.skipif(shutil.which("unshare") is None or shutil.which("ip") is None, reason="no unshare, or no ip")
@needs_packets
@pytest.mark.long
def test_a_partition_in_a_network_of_its_own(tmp_path: Path) -> None:
    """As anyone may do it: cluster and drill in a network namespace, where we are root."""
    place = tmp_path / "cluster"
    script = (
        "ip link set lo up && gfs up --dir $D --port-base 9400 --detach && "
        "{ gfs drill partition --rounds 2 --dir $D; code=$?; gfs down --dir $D; exit $code; }"
    )
    environment = {
        **os.environ,
        "D": str(place),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *own, "--net", "sh", "-c", script],
        env=environment, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


SERIES = {
    "kill": (100, {"first_acknowledged": {"p50": 0.5, "p99": 1.5}}),
    "handover": (30, {"longest_gap": {"max": 0.3}}),
    "pause": (20, {"first_acknowledged": {"p99": 4.0}}),
    "partition": (20, {"first_acknowledged": {"p99": 4.0}}),
}


@pytest.mark.long
@pytest.mark.parametrize("mode", SERIES)
def test_a_series_keeps_its_times(mode: str, cluster: Callable[..., Cluster]) -> None:
    if mode == "partition" and not is_possible():
        pytest.skip("this machine does not let us drop packets")
    rounds, limits = SERIES[mode]
    report = drill(cluster(), mode, "--rounds", str(rounds), seconds=1200)
    for figure, bounds in limits.items():
        for name, limit in bounds.items():
            assert report["percentiles"][figure][name] < limit, f"{figure} {name}: {report['percentiles']}"


@pytest.mark.long
def test_a_million_files_do_not_slow_the_takeover(cluster: Callable[..., Cluster]) -> None:
    made = cluster(chunkservers=1)
    few = drill(made, "kill", "--rounds", "10", "--metadata-only", seconds=300)
    many = drill(made, "kill", "--rounds", "10", "--metadata-only", "--files", "1000000", seconds=1800)
    assert many["files"] >= 1_000_000
    medians = [report["percentiles"]["first_acknowledged"]["p50"] for report in (few, many)]
    assert medians[1] < medians[0] + 0.2
