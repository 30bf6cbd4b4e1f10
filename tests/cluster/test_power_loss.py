"""Fault 1: what was acknowledged before a power cut is there after it, though all that was not synced is gone."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.test_failover import make_directories

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
SOURCE = Path(__file__).with_name("lost_writes.c")
REQUIRED = "GFS_TESTS_NEED_COMPILER"


@pytest.fixture
def preloaded(tmp_path: Path) -> Path:
    """The library that keeps what was synced."""
    compiler = shutil.which("cc")
    if compiler is None:
        if REQUIRED in os.environ:
            pytest.fail("there is no C compiler")
        pytest.skip("there is no C compiler (Debian: apt-get install gcc libc6-dev)")
    library = tmp_path / "lost_writes.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return library


async def acknowledged_then_killed(cluster: Cluster) -> list[str]:
    """Clients make directories until every process is killed at once; those that were acknowledged."""
    files = await cluster.client()
    stop = asyncio.Event()
    made: list[list[str]] = [[] for _ in range(8)]
    writers = [asyncio.create_task(make_directories(files, f"d{n}", stop, made[n])) for n in range(8)]
    await asyncio.sleep(1.0)
    await asyncio.to_thread(cluster.kill_all)
    stop.set()
    await files.close()
    await asyncio.gather(*writers, return_exceptions=True)
    return [name for names in made for name in names]


def _restore(directory: Path, durable: Path) -> None:
    for left in directory.glob("journal.sqlite*"):
        left.unlink()
    for kept in durable.glob("journal.sqlite*"):
        shutil.copy(kept, directory / kept.name)


async def lost_after_a_power_cut(cluster: Cluster, durable: Path) -> tuple[int, int]:
    """(acknowledged, not there after the cluster has started from what was synced)."""
    made = await acknowledged_then_killed(cluster)
    _restore(cluster.directory, durable)
    await asyncio.to_thread(cluster.up)
    files = await cluster.client()
    try:
        present = {f"/{name}" for name in await files.listdir("/")}
    finally:
        await files.close()
    return len(made), len(set(made) - present)


@pytest.mark.parametrize("acknowledge", ["durable", "early"])
async def test_fault_1_a_power_cut_takes_nothing_that_was_acknowledged(
    cluster: Callable[..., Cluster],
    preloaded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    acknowledge: str,
) -> None:
    """And it is seen when something is missing: answered before the commit, some is."""
    durable = tmp_path / "durable"
    durable.mkdir()
    monkeypatch.setenv("LD_PRELOAD", str(preloaded))
    monkeypatch.setenv("GFS_TESTS_WATCHED", str(tmp_path / "cluster-1" / "journal.sqlite"))
    monkeypatch.setenv("GFS_TESTS_DURABLE", str(durable))
    running = cluster(masters=1, chunkservers=1, master={"acknowledge": acknowledge})
    monkeypatch.undo()
    acknowledged, lost = await lost_after_a_power_cut(running, durable)
    assert acknowledged > 100
    assert bool(lost) == (acknowledge == "early"), f"{lost} of {acknowledged}"
