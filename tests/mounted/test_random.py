"""Random operations on one mount and on two, compared with the local disk; in the long ones servers are killed.

GFS_TESTS_SEED repeats a run, GFS_TESTS_SECONDS sets how long the long ones take.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.killing import QUICK, killing
from tests.mounted.mounting import Mount
from tests.mounted.operations import run
from tests.mounted.worker import Worker

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
SHORT_SECONDS = 8.0
LONG_SECONDS = float(os.environ.get("GFS_TESTS_SECONDS", "300"))
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


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kills", [False, True], ids=["calm", "kills"])
def test_for_long(
    count: int, kills: bool, worker: Worker, seed: int, mounts: Callable[..., list[Mount]], local: Path
) -> None:
    used = mounts(count, masters=2, master=QUICK)
    with killing(used[0].cluster if kills else None, seed):
        compare(worker, seed, LONG_SECONDS, local, used, [mount.path for mount in used])
