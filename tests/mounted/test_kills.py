"""Programs on a mount under which masters and chunk servers are killed all the time: none may notice anything."""

import contextlib
import os
import random
import shutil
from collections import deque
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


class Shared:
    """A file that two mounts change in turn; each of them has it open all the while, too."""

    def __init__(self, pair: Pair) -> None:
        self._files = [mount / "file" for mount in pair]
        self._content = b""
        self._last = 0
        """Which mount has changed it last."""
        self._open: list[int] = []
        self.told: deque[str] = deque(maxlen=10)
        write(self._files[0], b"")
        self._open_again()

    def _open_again(self) -> None:
        self.close()
        self._open = [os.open(file, os.O_RDWR) for file in self._files]

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def change(self, way: str, mount: int, data: bytes, chance: random.Random) -> None:
        self.told.append(f"{way} by mount {mount}: {len(self._content)} bytes, {len(data)} new ones")
        getattr(self, way)(mount, data, chance.randrange(len(self._content) + 1))
        self._last = mount

    def rewrite(self, mount: int, data: bytes, _position: int) -> None:
        write(self._files[mount], data)
        self._content = data

    def save(self, mount: int, data: bytes, _position: int) -> None:
        file = self._files[mount]
        write(file.with_name("new"), data)
        os.rename(file.with_name("new"), file)
        self._content = data
        self._open_again()

    def append(self, mount: int, data: bytes, _position: int) -> None:
        descriptor = os.open(self._files[mount], os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, data)
        os.close(descriptor)
        self._content += data

    def cut(self, mount: int, _data: bytes, position: int) -> None:
        os.truncate(self._files[mount], position)
        self._content = self._content[:position]

    def overwrite(self, mount: int, data: bytes, position: int) -> None:
        descriptor = os.open(self._files[mount], os.O_WRONLY)
        os.pwrite(descriptor, data, position)
        os.close(descriptor)
        self._put(data, position)

    def overwrite_open(self, mount: int, data: bytes, position: int) -> None:
        descriptor, modified_ns = self._open[mount], os.stat(self._files[self._last]).st_mtime_ns
        seconds_until("its mount is told", lambda: os.fstat(descriptor).st_mtime_ns == modified_ns)
        os.pwrite(descriptor, data, position)
        os.fsync(descriptor)
        self._put(data, position)

    def _put(self, data: bytes, position: int) -> None:
        self._content = self._content[:position] + data + self._content[position + len(data) :]

    def check(self, mount: int) -> None:
        """Whoever opens it now reads what was closed or synced last."""
        found, expected = read(self._files[mount]), self._content
        if found != expected:
            same = next((at for at, byte in enumerate(found) if expected[at : at + 1] != bytes((byte,))), len(found))
            steps = "\n".join(self.told)
            raise AssertionError(
                f"mount {mount} has {len(found)} bytes instead of {len(expected)}, the same up to {same}\n{steps}"
            )


WAYS = ("rewrite", "save", "append", "cut", "overwrite", "overwrite_open")


def test_two_mounts_see_what_the_other_has_closed(mounts: Mounts) -> None:
    first, second = mounts(2, masters=2, master=QUICK)
    with first.watched(1200.0), second.watched(1200.0), killing(first.cluster, SEED):
        for number in range(ROUNDS):
            chance = random.Random(SEED + number)
            shared = Shared((first.path, second.path))
            with contextlib.closing(shared):
                for _ in range(150):
                    writer, reader = chance.sample(range(2), 2)
                    size = chance.choice((1, 5000, 70_000, 1_500_000))
                    shared.change(chance.choice(WAYS), writer, chance.randbytes(size), chance)
                    if chance.random() < 0.8:
                        shared.check(reader)
