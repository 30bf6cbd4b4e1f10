"""Failovers of real master processes: killed, stopped, handed over; what clients and chunk servers notice."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from gfscluster import processes
from tests.cluster.harness import Cluster
from tests.journals import execute
from tests.postgresql import Server

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

MIB = 1 << 20


with_both_journals = pytest.mark.parametrize("journal", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def journal(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The address of the journal, None for SQLite in the cluster's directory."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield None
        return
    server: Server = request.getfixturevalue("postgresql")
    with server.database() as name:
        yield server.url(name)


@pytest.fixture(name="cluster")
def started_cluster(cluster: Callable[..., Cluster], journal: str | None) -> Cluster:
    return cluster(journal=journal)


def leader_name(cluster: Cluster) -> str:
    [leader] = [master["node"] for master in cluster.status()["masters"] if master.get("role") == "leader"]
    return str(leader)


def all_in_step(status: dict[str, object]) -> bool:
    """One leader, all others standbys that have everything."""
    masters = status["masters"]
    assert isinstance(masters, list)
    if any("role" not in master for master in masters):
        return False
    sequences = {master["sequence"] for master in masters}
    return sum(master["role"] == "leader" for master in masters) == 1 and len(sequences) == 1


async def make_directories(  # type: ignore[no-untyped-def]
    files, prefix: str, stop: asyncio.Event, made: list[str] | None = None
) -> list[str]:
    """One after the other; ``made`` gets every one that was acknowledged, and is given back."""
    made = [] if made is None else made
    while not stop.is_set():
        name = f"/{prefix}-{len(made)}"
        await files.mkdir(name)
        made.append(name)
    return made


async def through(cluster: Cluster, act, seconds: float) -> list[str]:  # type: ignore[no-untyped-def]
    """Clients make directories while ``act`` is done and for ``seconds`` after it; all that were acknowledged."""
    files = await cluster.client()
    stop = asyncio.Event()
    try:
        writers = [asyncio.create_task(make_directories(files, f"{time.monotonic_ns()}-{n}", stop)) for n in range(4)]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(act)
        await asyncio.sleep(seconds)
        stop.set()
        made = [name for names in await asyncio.gather(*writers) for name in names]
        present = {f"/{name}" for name in await files.listdir("/")}
        assert present.issuperset(made)
        assert len(made) == len(set(made))
    finally:
        await files.close()
    return made


@with_both_journals
async def test_a_killed_leader_is_replaced_and_no_acknowledged_change_is_lost(cluster: Cluster) -> None:
    for _ in range(3):
        leader = leader_name(cluster)
        made = await through(cluster, lambda: cluster.kill(leader), 1.0)  # noqa: B023
        assert len(made) > 10
        cluster.restart(leader)
        cluster.wait_for("both masters in step", all_in_step)


async def test_a_handover_moves_the_leadership_and_nobody_is_refused(cluster: Cluster) -> None:
    before = leader_name(cluster)
    said: list[str] = []
    await through(cluster, lambda: said.append(cluster.gfs("handover").stdout.decode()), 0.5)
    cluster.wait_for("both masters in step", all_in_step)
    after = leader_name(cluster)
    assert after != before
    assert said[0].startswith(f"{after} at ")
    refused = cluster.gfs("handover", "--to", "nobody")
    assert refused.returncode == 4
    assert refused.stderr.decode() == f"gfs: no standby 'nobody' follows this leader (those that do: {before})\n"


@with_both_journals
async def test_fault_13_a_leader_that_was_stopped_for_long_comes_back_as_a_standby(cluster: Cluster) -> None:
    leader = leader_name(cluster)
    epoch = cluster.status()["epoch"]
    cluster.pause(leader)
    await through(cluster, lambda: None, 4.0)
    cluster.resume(leader)
    status = cluster.wait_for("both masters in step", all_in_step)
    assert status["epoch"] == epoch + 1
    assert leader_name(cluster) != leader
    assert f"{leader} leads no more" in cluster.log(leader)
    assert "refusing the orders" not in cluster.logs()


@with_both_journals
async def test_a_leader_that_stopped_in_the_middle_of_a_commit_is_ended(cluster: Cluster) -> None:
    """It holds a lock: nobody can commit as long as it exists (SQLite), or its session in the server (PostgreSQL)."""
    leader = leader_name(cluster)
    record = cluster.record(leader)

    def stop_with_the_lock() -> None:
        for _ in range(2000):
            cluster.pause(leader)
            if is_locked(cluster.journal_url):
                return
            cluster.resume(leader)
        raise AssertionError("it was never caught with the lock")

    await through(cluster, stop_with_the_lock, 5.0)
    if cluster.journal_url.startswith("sqlite"):
        assert not processes.is_running(record)
        assert f"process {record.pid} was ended" in cluster.logs()
        cluster.restart(leader)
    else:
        assert "1 of its sessions were ended" in cluster.logs()
        cluster.resume(leader)
    cluster.wait_for("both masters in step", all_in_step)


_IDLE_IN_TRANSACTION = (
    "SELECT pid FROM pg_stat_activity JOIN leadership ON application_name = process WHERE state = 'idle in transaction'"
)


def is_locked(journal_url: str) -> bool:
    if journal_url.startswith("sqlite"):
        path = journal_url.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
        return False
    try:
        execute(journal_url, "SELECT 1 FROM leadership FOR UPDATE NOWAIT")
    except OperationalError:
        # Not if its server is at work for the leader: it goes on without it, and may just be ending what it does.
        return bool(execute(journal_url, _IDLE_IN_TRANSACTION))
    return False


async def test_data_flows_on_through_a_failover(cluster: Cluster, tmp_path: Path) -> None:
    """A reader with cached locations, a writer with a lease, and a put: none of them sees an error."""
    data = os.urandom(96 * MIB)
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(data)
    assert cluster.gfsclient("put", str(source), "/read").returncode == 0
    files = await cluster.client()
    try:
        reader = await files.open("/read", "rb")
        writer = await files.open("/written", "wb")
        assert await reader.read(MIB) == data[:MIB]
        await writer.write(data[:MIB])
        await writer.flush()
        leader = leader_name(cluster)
        put = cluster.popen("put", str(source), "/put", stderr=-1)
        cluster.kill(leader)
        rest = bytearray()
        for position in range(MIB, len(data), MIB):
            rest += await reader.read(MIB)
            await writer.write(data[position : position + MIB])
        assert rest == data[MIB:]
        await writer.close()
        await reader.close()
        _, said = put.communicate(timeout=60)
        assert put.returncode == 0, said
    finally:
        await files.close()
    for path in ("/put", "/written"):
        assert cluster.gfsclient("get", path, str(copy), "-f").returncode == 0
        assert copy.read_bytes() == data
    cluster.restart(leader)
    cluster.wait_for("both masters in step", all_in_step)
