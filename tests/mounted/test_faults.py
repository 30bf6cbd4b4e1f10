"""The mount stays up: masters and chunk servers die under it, and so does its own daemon."""

import errno
import multiprocessing
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.harness import Cluster, wait_until
from tests.cluster.test_failover import leader_name
from tests.mounted.mounting import LOCALLY, Mount, is_mounted
from tests.mounted.scenarios import attempt, read, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(LOCALLY, reason="nothing can be killed under a local directory"),
]
MIB = 1 << 20
SPAWN = multiprocessing.get_context("spawn")
Mounts = Callable[..., list[Mount]]
QUICK = {"lease_seconds": 1.0, "server_silent_seconds": 3.0}


class Work:
    """A program that works on the mount, and takes note of each error.

    A process of its own: one that the tests start while a file is open closes that file first, and waits for that as
    long as the mount does. An EIO says that bytes which were not synced may be lost: after ``forgives`` of them it
    begins its round anew.
    """

    def __init__(self, place: Path, forgives: int) -> None:
        self._rounds = SPAWN.Value("l", 0)
        self._stop = SPAWN.Event()
        self._errors: multiprocessing.queues.SimpleQueue[str] = SPAWN.SimpleQueue()
        self._error: str | None = None
        self._process = SPAWN.Process(target=work, args=(place, forgives, self._rounds, self._stop, self._errors))

    @property
    def rounds(self) -> int:
        return self._rounds.value

    @property
    def error(self) -> str | None:
        if self._error is None and not self._errors.empty():
            self._error = self._errors.get()
        if self._error is None and self._process.exitcode:
            self._error = f"it ended with {self._process.exitcode}"
        return self._error

    def start(self) -> None:
        self._process.start()

    def goes_on(self) -> None:
        """Returns when some more rounds are done."""
        enough = self.rounds + 3
        wait_until("the work goes on", lambda: self.rounds >= enough or self.error is not None, 120)
        self.check()

    def stop(self) -> None:
        self._stop.set()
        self._process.join()

    def check(self) -> None:
        assert self.error is None, f"round {self.rounds} failed: {self.error}"


def work(place: Path, forgives: int, rounds: Any, stop: Any, errors: Any) -> None:
    """In the process: rounds until the end."""
    try:
        while not stop.is_set():
            try:
                one_round(place, rounds.value)
            except OSError as error:
                if error.errno != errno.EIO or not forgives:
                    raise
                forgives -= 1
            rounds.value += 1
    except BaseException:  # noqa: BLE001 - raised by `working`
        errors.put(traceback.format_exc())


def one_round(place: Path, number: int) -> None:
    """Writes, renames, reads, lists and removes."""
    data = random.Random(number).randbytes(number * 977 % 150_000)
    new, kept = place / "new", place / f"kept-{number % 10}"
    write(new, data)
    os.rename(new, kept)
    assert read(kept) == data
    assert kept.name in os.listdir(place)
    descriptor = os.open(kept, os.O_RDWR | os.O_APPEND)
    try:
        os.write(descriptor, b"appended")
        os.fsync(descriptor)
        assert os.pread(descriptor, 20, len(data)) == b"appended"
    finally:
        os.close(descriptor)


@contextmanager
def working(place: Path, forgives: int = 0) -> Iterator[Work]:
    """The work goes on while what is inside happens; no more errors of it are forgiven than said."""
    place.mkdir()
    work = Work(place, forgives)
    work.start()
    try:
        yield work
    finally:
        work.stop()
    work.check()


def cluster_of(mount: Mount) -> Cluster:
    assert mount.cluster is not None
    return mount.cluster


@contextmanager
def a_large_write(target: Path, data: bytes) -> Iterator[None]:
    """While what is inside happens, ``data`` is written and fsynced in small pieces, by another process."""
    begun = SPAWN.Event()
    process = SPAWN.Process(target=write_large, args=(target, data, begun))
    process.start()
    try:
        wait_until("the write has begun", lambda: begun.is_set() or not process.is_alive(), 60)
        yield
    finally:
        process.join()
    assert process.exitcode == 0, "the write failed"


def write_large(target: Path, data: bytes, begun: Any) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT, 0o644)
    for number, position in enumerate(range(0, len(data), 100_000)):
        os.pwrite(descriptor, data[position : position + 100_000], position)
        if number % 50 == 49:
            os.fsync(descriptor)
        if number == 20:
            begun.set()
    os.close(descriptor)


def test_a_leader_and_chunk_servers_are_killed_while_programs_work(mounts: Mounts) -> None:
    [mount] = mounts(1, masters=2, master=QUICK)
    cluster = cluster_of(mount)
    data = random.Random(1).randbytes(40 * MIB)
    with mount.watched(300), working(mount.path / "work") as work, a_large_write(mount.path / "large", data):
        work.goes_on()
        leader = leader_name(cluster)
        cluster.kill(leader)
        work.goes_on()
        cluster.kill("chunkserver-2")
        work.goes_on()
        cluster.restart(leader)
        cluster.restart("chunkserver-2")
        work.goes_on()
    assert read(mount.path / "large") == data
    done = cluster.gfsclient("cat", "/large")
    assert done.stdout == data, done.stderr


def test_a_reader_goes_on_when_its_chunk_server_dies(mounts: Mounts) -> None:
    [mount] = mounts(1, masters=1, master=QUICK)
    cluster = cluster_of(mount)
    data = random.Random(2).randbytes(30 * MIB)
    write(mount.path / "file", data)
    with (mount.path / "file").open("r+b") as file:
        os.fsync(file.fileno())  # unmounting waits for what is not durable, and with one server left it could not be
    for number in (1, 2):
        with mount.watched(120):
            descriptor = os.open(mount.path / "file", os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            found = bytearray(os.pread(descriptor, MIB, 0))
            cluster.kill(f"chunkserver-{number}")
            for position in range(MIB, len(data), MIB):
                found += os.pread(descriptor, MIB, position)
            os.close(descriptor)
        assert found == data


def test_everything_stops_and_starts_again(mounts: Mounts) -> None:
    """All processes are killed and started again; programs stall and go on.

    All servers of a chunk have gone at once: of each file that is being written its program may hear that bytes which
    it has not synced may be lost, once.
    """
    [mount] = mounts(1, masters=2, master=QUICK)
    cluster = cluster_of(mount)
    with mount.watched(400), working(mount.path / "work", forgives=2) as work:
        work.goes_on()
        names = [record.name for record in cluster.records()]
        cluster.kill_all()
        rounds = work.rounds
        for name in names:
            cluster.restart(name)
        wait_until("the work goes on", lambda: work.rounds > rounds + 5 or work.error is not None, 240)
        work.check()


def test_unmounting_flushes(mounts: Mounts) -> None:
    [mount] = mounts(1, masters=1)
    cluster = cluster_of(mount)
    contents = {f"file-{number}": random.Random(number).randbytes(number * 150_001) for number in range(12)}
    for name, data in contents.items():
        write(mount.path / name, data)
    assert mount.unmount() == 0
    assert not is_mounted(mount.path)
    assert os.listdir(mount.path) == []
    for name, data in contents.items():
        assert cluster.gfsclient("cat", f"/{name}").stdout == data, name
    mount.mount()
    assert {name: read(mount.path / name) for name in os.listdir(mount.path)} == contents


def test_unmounting_what_is_in_use_is_refused_and_harmless(mounts: Mounts) -> None:
    [mount] = mounts(1, masters=1)
    cluster = cluster_of(mount)
    descriptor = os.open(mount.path / "file", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(descriptor, b"before ")
    refused = cluster.gfsclient("umount", str(mount.path))
    assert refused.returncode != 0
    assert len(refused.stderr.decode().splitlines()) == 1, refused.stderr
    os.write(descriptor, b"after")
    os.close(descriptor)
    assert mount.unmount() == 0
    assert cluster.gfsclient("cat", "/file").stdout == b"before after"


def test_a_daemon_that_is_told_to_end_flushes(mounts: Mounts) -> None:
    [mount] = mounts(1, masters=1)
    cluster = cluster_of(mount)
    data = random.Random(9).randbytes(5 * MIB)
    write(mount.path / "file", data)
    [daemon] = mount.daemons()
    daemon.terminate()
    assert daemon.wait(timeout=60) == 0
    assert not is_mounted(mount.path)
    assert cluster.gfsclient("cat", "/file").stdout == data


def test_what_was_synced_survives_a_daemon_that_is_killed(mounts: Mounts) -> None:
    """The dead mount is no obstacle for the next one at the same place."""
    [mount] = mounts(1, masters=1)
    data = random.Random(10).randbytes(3 * MIB)
    descriptor = os.open(mount.path / "file", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(descriptor, data)
    os.fsync(descriptor)
    mount.abort()
    assert attempt(os.pread, descriptor, 10, 0) in ("ENOTCONN", "ECONNABORTED", "EIO")
    assert attempt(os.close, descriptor) in (None, "ENOTCONN", "ECONNABORTED", "EIO")
    wait_until("the mount is dead", lambda: attempt(os.listdir, mount.path) == "ENOTCONN", 30)
    mount.mount()
    assert read(mount.path / "file") == data


def test_a_supervised_daemon_comes_back(mounts: Mounts) -> None:
    [mount] = mounts(1, "-o", "allow_other", "--supervise", masters=1)
    write(mount.path / "file", b"here")
    descriptor = os.open(mount.path / "file", os.O_RDONLY)
    os.fsync(descriptor)
    for number in range(3):
        serving = mount.daemons()[-1]
        assert serving.pid != mount.daemons()[0].pid, "the supervisor serves itself"
        serving.send_signal(9)
        begun = time.monotonic()
        wait_until("the mount answers again", lambda: attempt(read, mount.path / "file") == b"here", 60)
        print(f"back after {time.monotonic() - begun:.2f} s")
        write(mount.path / f"after-{number}", b"works")
    assert attempt(os.pread, descriptor, 10, 0) in ("ENOTCONN", "ECONNABORTED", "EIO")
    assert attempt(os.close, descriptor) in (None, "ENOTCONN", "ECONNABORTED", "EIO")
    first = psutil.Process(mount.daemons()[0].pid)
    assert mount.unmount() == 0
    assert not first.is_running()


def test_a_failed_write_is_told_once_and_the_mount_goes_on(mounts: Mounts) -> None:
    """With too few chunk servers and a short deadline a write cannot be done: the program hears of it."""
    [mount] = mounts(1, "-o", "allow_other,deadline=3", masters=1, chunkservers=2, master=QUICK)
    cluster = cluster_of(mount)
    write(mount.path / "before", b"before")
    descriptor = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, b"first")
    os.fsync(descriptor)
    cluster.kill("chunkserver-1")
    cluster.kill("chunkserver-2")
    with mount.watched(120):
        os.write(descriptor, b"second")
        assert isinstance(attempt(os.fsync, descriptor), str)
        attempt(os.close, descriptor)
        assert os.stat(mount.path / "before").st_size == 6
    cluster.restart("chunkserver-1")
    cluster.restart("chunkserver-2")
    with mount.watched(120):
        wait_until("writes work again", lambda: attempt(write, mount.path / "after", b"after") is None, 60)
        assert read(mount.path / "before") == b"before"
        assert read(mount.path / "after") == b"after"


def test_a_cluster_that_is_gone_is_an_error_and_no_hang(mounts: Mounts) -> None:
    [mount] = mounts(1, "-o", "allow_other,deadline=2", masters=1)
    cluster = cluster_of(mount)
    write(mount.path / "file", b"here")
    cluster.kill_all()
    with mount.watched(120):
        result = attempt(os.mknod, mount.path / "new")
        assert result in ("EIO", "ETIMEDOUT", "EAGAIN", "EHOSTUNREACH"), result
