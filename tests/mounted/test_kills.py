"""Programs on a mount under which masters and chunk servers are killed all the time: none may notice anything."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.killing import QUICK, killing
from tests.mounted.mounting import LOCALLY, Mount, need
from tests.mounted.test_databases import fill, summary
from tests.mounted.test_fio import run_fio
from tests.mounted.test_programs import everything, make_varied_tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.skipif(LOCALLY, reason="nothing can be killed under a local directory"),
]
Mounts = Callable[..., list[Mount]]
SEED = int(os.environ.get("GFS_TESTS_SEED", "1"))
ROUNDS = int(os.environ.get("GFS_TESTS_ROUNDS", "3"))


@pytest.mark.parametrize(
    "options",
    [
        ("--rw=write", "--bs=128k"),
        ("--rw=randrw", "--bs=16k", "--numjobs=2"),
        ("--rw=randwrite", "--bs=8k", "--fsync=32"),
        ("--rw=randwrite", "--bs=4k", "--ioengine=mmap"),
        ("--rw=randwrite", "--bs=16k", "--direct=1", "--ioengine=libaio", "--iodepth=8"),
    ],
    ids=["sequential", "mixed", "fsync", "mapped", "asynchronous"],
)
def test_no_block_is_wrong(options: tuple[str, ...], mounts: Mounts) -> None:
    [mount] = mounts(1, masters=2, master=QUICK)
    with killing(mount.cluster, SEED):
        for number in range(ROUNDS):
            place = mount.path / str(number)
            place.mkdir()
            run_fio(mount, place, "16M", *options, seconds=600.0)
            shutil.rmtree(place)


def test_tar_packs_and_unpacks(mounts: Mounts, local: Path) -> None:
    tar = need("tar")
    (local / "tree").mkdir()
    make_varied_tree(local / "tree")
    [mount] = mounts(1, masters=2, master=QUICK)
    options = ("--xattrs", "--xattrs-include=user.*", "--format=posix")
    with killing(mount.cluster, SEED):
        for number in range(ROUNDS * 3):
            place = mount.path / str(number)
            place.mkdir()
            mount.run(tar, *options, "--sparse", "-cf", place / "archive.tar", "-C", local, "tree", seconds=600.0)
            mount.run(tar, *options, "-xpf", place / "archive.tar", "-C", place, seconds=600.0)
            assert everything(place / "tree") == everything(local / "tree")
            mount.run(tar, *options, "-df", place / "archive.tar", "-C", place, seconds=600.0)
            mount.run("rm", "-r", place, seconds=600.0)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_sqlite(mode: str, mounts: Mounts, local: Path) -> None:
    [mount] = mounts(1, masters=2, master=QUICK)
    fill(local / "database", mode, 600)
    with mount.watched(1200.0), killing(mount.cluster, SEED):
        for number in range(ROUNDS):
            file = mount.path / f"database-{number}"
            fill(file, mode, 600)
            assert summary(file) == summary(local / "database")
