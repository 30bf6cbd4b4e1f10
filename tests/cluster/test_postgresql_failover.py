"""A cluster of real processes whose PostgreSQL fails over to a replica that lacks what was acknowledged."""

import time
from collections.abc import Callable

import pytest

from gfscluster import processes
from tests.cluster.harness import Cluster
from tests.journals import execute
from tests.postgresql import Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.long]


def until(condition: Callable[[], bool], what: str, made: Cluster, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}\n{made.logs()}"
        time.sleep(0.05)


def last_record(server: Server) -> int:
    return int(execute(server.url("postgres"), "SELECT max(last) AS last FROM log")[0].last)


def test_masters_refuse_a_replica_that_lagged_and_lose_nothing_when_the_newer_server_is_back(
    cluster: Callable[..., Cluster], own_postgresql: Callable[[], Server]
) -> None:
    primary, replica = own_postgresql(), own_postgresql()
    primary.create()
    primary.start()
    replica.copy(primary)
    replica.start()
    made = cluster(masters=2, chunkservers=1, journal=primary.url_of_both(replica))
    assert made.gfsclient("mkdir", "/kept").returncode == 0
    until(lambda: last_record(replica) == last_record(primary), "a replica that has everything", made)
    replica.stop_receiving()
    for number in range(10):
        assert made.gfsclient("mkdir", f"/lacking-{number}").returncode == 0
    newest, lacking = last_record(primary), last_record(replica)
    assert lacking < newest

    def has_everything(status: dict[str, object]) -> bool:
        masters = status["masters"]
        assert isinstance(masters, list)
        return all(master.get("sequence", 0) >= newest for master in masters)

    made.wait_for("masters that have read everything", has_everything)
    primary.stop(9)
    replica.promote()
    masters = [made.record("master-1"), made.record("master-2")]
    until(lambda: not any(map(processes.is_running, masters)), "the end of both masters", made)
    for record in masters:
        [last] = made.log(record.name).splitlines()[-1:]
        assert last.startswith("gfs: the journal ")
        assert "is not the one that this node has read up to record" in last
        assert f"its last one is {lacking}." in last
    assert last_record(replica) == lacking, "something was added to it"
    assert made.gfsclient("--deadline", "1", "ls", "/").returncode != 0

    replica.stop()
    primary.start()
    for record in masters:
        made.restart(record.name)
    made.wait_for("a leader", lambda status: any(master.get("role") == "leader" for master in status["masters"]))
    names = made.gfsclient("ls", "/").stdout.decode().split()
    assert {"kept", *(f"lacking-{number}" for number in range(10))} <= set(names)
    made.stop()
