"""Programs on a mount under which masters and chunk servers are killed all the time: none may notice anything."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.killing import QUICK, killing
from tests.mounted.mounting import LOCALLY, Mount, need
from tests.mounted.scenarios import read, write
from tests.mounted.test_databases import fill, summary
from tests.mounted.test_fio import run_fio
from tests.mounted.test_programs import everything, make_varied_tree
from tests.mounted.test_two_mounts import seconds_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.skipif(LOCALLY, reason="nothing can be killed under a local directory"),
]
Pair = tuple[Path, Path]
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


def wait_until_told(descriptor: int, modified_ns: int) -> None:
    """Until the mount of an open file knows that another one has changed it."""
    seconds_until("it is told", lambda: os.fstat(descriptor).st_mtime_ns == modified_ns)


def difference(found: bytes, expected: bytes) -> str:
    first = next((at for at, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other), -1)
    last = next((at for at in range(min(len(found), len(expected)) - 1, -1, -1) if found[at] != expected[at]), -1)
    return (
        f"{len(found)} bytes instead of {len(expected)}, others from {first} to {last}, {found[first : first + 20]!r}\n"
    )


def change_and_read(pair: Pair, chance: random.Random, rounds: int) -> None:
    """One mount changes a file in one of several ways and closes it; the other one opens it by name and reads."""
    expected, writer, told = b"", 0, list[str]()
    write(pair[0] / "file", expected)
    kept = [os.open(mount / "file", os.O_RDWR) for mount in pair]
    for number in range(rounds):
        last, (writer, reader) = writer, chance.sample(range(2), 2)
        data = chance.randbytes(chance.choice((1, 5000, 70_000, 1_500_000)))
        way = chance.choice(("rewrite", "save", "append", "overwrite", "kept", "cut"))
        file = pair[writer] / "file"
        if way == "rewrite":
            write(file, data)
            expected = data
        elif way == "save":
            write(file.with_name("new"), data)
            os.rename(file.with_name("new"), file)
            expected = data
            for descriptor in kept:
                os.close(descriptor)
            kept = [os.open(mount / "file", os.O_RDWR) for mount in pair]
        elif way == "append":
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, data)
            os.close(descriptor)
            expected += data
        elif way == "cut":
            os.truncate(file, len(expected) // 2)
            expected = expected[: len(expected) // 2]
        else:
            position = chance.randrange(len(expected) + 1)
            if way == "kept":
                wait_until_told(kept[writer], os.stat(pair[last] / "file").st_mtime_ns)
            descriptor = kept[writer] if way == "kept" else os.open(file, os.O_WRONLY)
            os.pwrite(descriptor, data, position)
            if way == "kept":
                os.fsync(descriptor)
            else:
                os.close(descriptor)
            expected = expected[:position] + data + expected[position + len(data) :]
        if chance.random() < 0.8:
            found = read(pair[reader] / "file")
            told.append(f"{number}: {way} of {len(data)} bytes by mount {writer}, read by mount {reader}")
            assert found == expected, difference(found, expected) + "\n".join(told[-8:])
        else:
            told.append(f"{number}: {way} of {len(data)} bytes by mount {writer}")
    for descriptor in kept:
        os.close(descriptor)


def test_two_mounts_see_what_the_other_has_closed(mounts: Mounts) -> None:
    first, second = mounts(2, masters=2, master=QUICK)
    with first.watched(1200.0), second.watched(1200.0), killing(first.cluster, SEED):
        for number in range(ROUNDS):
            change_and_read((first.path, second.path), random.Random(SEED + number), 150)
