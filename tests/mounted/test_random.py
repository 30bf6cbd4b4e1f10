"""Random operations on one mount and on two, compared with the local disk; in the long ones servers are killed.

GFS_TESTS_SEED repeats a run, GFS_TESTS_SECONDS sets how long the long ones take.
"""

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster
from tests.mounted.mounting import Mount
from tests.mounted.operations import run
from tests.mounted.test_two_mounts import has_a_standby
from tests.mounted.worker import Worker

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
SHORT_SECONDS = 8.0
LONG_SECONDS = float(os.environ.get("GFS_TESTS_SECONDS", "300"))
KILLED_EVERY_SECONDS = 5.0
PATIENCE_SECONDS = 300.0


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("GFS_TESTS_SEED") or random.randrange(1 << 32))
    print(f"GFS_TESTS_SEED={chosen}")
    return chosen


def compare(worker: Worker, seed: int, seconds: float, local: Path, used: list[Mount], directories: list[Path]) -> None:
    with used[0].watched(seconds + PATIENCE_SECONDS), used[-1].watched(seconds + PATIENCE_SECONDS):
        steps, outcomes = worker.call_unwatched(run, seed, seconds, local, directories)
    print(f"{steps} operations")
    print("\n".join(f"{count:6} {outcome}" for outcome, count in outcomes.most_common()))


def test_on_one_mount(worker: Worker, seed: int, mounted: Mount, place: Path, local: Path) -> None:
    compare(worker, seed, SHORT_SECONDS, local, [mounted], [place])


def test_on_two_mounts(worker: Worker, seed: int, mounted: Mount, pair: tuple[Path, Path], local: Path) -> None:
    compare(worker, seed, SHORT_SECONDS, local, [mounted], list(pair))


@contextmanager
def killing(cluster: Cluster | None, seed: int) -> Iterator[None]:
    """Kills one process after the other, each of which is back and in step before the next."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def kill_one(own: Cluster, chance: random.Random) -> None:
        name = chance.choice([record.name for record in own.records()])
        own.kill(name)
        stop.wait(chance.choice((0.0, 1.0, 4.0)))
        own.restart(name)
        own.wait_for(f"{name} is back", has_a_standby, 120)
        own.wait_for("all copies are there", has_all_copies, 240)

    def run_until_stopped(own: Cluster) -> None:
        chance = random.Random(seed)
        try:
            while not stop.wait(chance.uniform(0.0, KILLED_EVERY_SECONDS)):
                kill_one(own, chance)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    if cluster is None:
        yield
        return
    thread = threading.Thread(target=run_until_stopped, args=(cluster,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def has_all_copies(status: dict[str, object]) -> bool:
    servers = status.get("chunkservers")
    everyone = isinstance(servers, list) and all(server["alive"] for server in servers)
    return everyone and status.get("under_replicated") == 0 and status.get("missing") == 0


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kills", [False, True], ids=["calm", "kills"])
def test_for_long(
    count: int, kills: bool, worker: Worker, seed: int, mounts: Callable[..., list[Mount]], local: Path
) -> None:
    used = mounts(count, masters=2, master={"lease_seconds": 1.0, "server_silent_seconds": 3.0})
    with killing(used[0].cluster if kills else None, seed):
        compare(worker, seed, LONG_SECONDS, local, used, [mount.path for mount in used])
