"""No byte is lost or false while chunk servers and masters are killed and started again under writers."""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gfschunkserver import chunkfile
from gfsclient.config import load_config
from gfsclient.sync import File, FileSystem
from gfsprotocol.ids import KIB, MIB
from tests.cluster.harness import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
Start = Callable[..., Cluster]
FAST = {"server_silent_seconds": 2.0, "lease_seconds": 1.0, "chunk_lease_seconds": 4.0}
CHUNK_BYTES = MIB
DEADLINE_SECONDS = 120.0
MINUTES = float(os.environ.get("GFS_TESTS_SAFETY_MINUTES", "3"))
SEED = os.environ.get("GFS_TESTS_SAFETY_SEED")


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[FileSystem]:
    """A client of its own, patient enough for a busy machine."""
    config = load_config(cluster.layout.client_file)
    with FileSystem.connect(config.masters, config.key, config=config, deadline_seconds=DEADLINE_SECONDS) as fs:
        yield fs


class Workers:
    """Threads that work until they are told to end; the first failure is raised by :meth:`finish`."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=self._guard, args=(work,)))
        self._threads[-1].start()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by finish()
            self.failures.append(error)
            self.stop.set()

    def finish(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]


def assert_equal_replicas(cluster: Cluster) -> int:
    """Stops the cluster, compares the newest replicas of each chunk byte for byte; how many of them there are."""
    cluster.down()
    replicas: dict[int, dict[int, list[bytes]]] = {}
    for path in sorted(cluster.directory.glob("chunkserver-*/disk-1/chunks/*/*.chunk")):
        header, data = read_replica(path)
        replicas.setdefault(header.chunk, {}).setdefault(header.version, []).append(data)
    newest = {chunk: versions[max(versions)] for chunk, versions in replicas.items()}
    assert [chunk for chunk, found in newest.items() if len(set(found)) > 1] == []
    return sum(map(len, newest.values()))


def read_replica(path: Path) -> tuple[chunkfile.ChunkHeader, bytes]:
    content = path.read_bytes()
    header = chunkfile.decode_header(content[: chunkfile.HEADER_BYTES])
    start = chunkfile.data_offset(header.chunk_bytes)
    return header, content[start : start + header.length]


# --------------------------------------------------------------------------- two clients, one chunk, one server dies


def write_own_half(cluster: Cluster, half: int, model: bytearray, workers: Workers) -> None:
    """Writes random ranges of one half of the only chunk; all that is acknowledged is in the model."""
    source = random.Random(half)
    start = half * CHUNK_BYTES // 2
    with connected(cluster) as fs, fs.open("/shared", "r+b") as file:
        while not workers.stop.is_set():
            offset = source.randrange(CHUNK_BYTES // 2 - 20 * KIB)
            data = source.randbytes(source.randrange(1, 20 * KIB))
            file.pwrite(start + offset, data)
            model[start + offset : start + offset + len(data)] = data
            file.flush() if source.random() < 0.8 else file.fsync()


def append_records(cluster: Cluster, writer: int, placed: dict[int, bytes], workers: Workers) -> None:
    source = random.Random(writer)
    with connected(cluster) as fs:
        while not workers.stop.is_set():
            record = bytes([writer]) + source.randbytes(source.randrange(1, 2000))
            placed[fs.append_record("/log", record)] = record


@pytest.mark.parametrize("victim", ["chunkserver-1", "chunkserver-2"])
def test_writers_of_one_chunk_leave_equal_replicas_when_a_server_is_killed(cluster: Start, victim: str) -> None:
    running = cluster(masters=1, chunkservers=3, master=FAST)
    model, placed = bytearray(CHUNK_BYTES), dict[int, bytes]()
    workers = Workers()
    with connected(running) as fs:
        with fs.open("/shared", "wb", chunk_bytes=CHUNK_BYTES) as file:
            file.write(model)
        fs.make_file("/log")
    for number in (0, 1):
        workers.start(lambda number=number: write_own_half(running, number, model, workers))  # type: ignore[misc]
        workers.start(lambda number=number: append_records(running, number, placed, workers))  # type: ignore[misc]
    wait_for_work(workers, lambda: len(placed) > 20)
    running.kill(victim)
    count = len(placed)
    wait_for_work(workers, lambda: len(placed) > count + 20)
    running.restart(victim)
    count = len(placed)
    wait_for_work(workers, lambda: len(placed) > count + 20)
    workers.finish()
    with connected(running) as fs:
        assert fs.read_bytes("/shared") == model
        log = fs.read_bytes("/log")
    assert all(log[offset : offset + len(record)] == record for offset, record in placed.items())
    running.wait_for("all copies are back", lambda status: status["state"] == "well", seconds=120)
    assert assert_equal_replicas(running) >= 6


def wait_for_work(workers: Workers, done: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    """Returns when the workers have come so far, or one has failed."""
    deadline = time.monotonic() + seconds
    while not done() and not workers.failures:
        assert time.monotonic() < deadline, "the writers do not go on"
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------- random, and long


class Writer:
    """One client with one file: writes, syncs, and verifies what it has written, at random."""

    FILE_BYTES = 6 * MIB

    def __init__(self, cluster: Cluster, seed: str, number: int) -> None:
        self.path = f"/file-{number}"
        self.done = 0
        self._cluster = cluster
        self._random = random.Random(f"{seed} writer {number}")
        self._model = bytearray()
        """What was acknowledged: all of it must be there, for servers are killed and machines are not."""
        self._synced = b""

    def run(self, stop: threading.Event) -> None:
        with connected(self._cluster) as fs:
            fs.open(self.path, "wb", chunk_bytes=CHUNK_BYTES).close()
            while not stop.is_set():
                with fs.open(self.path, "r+b") as file:
                    for _ in range(self._random.randrange(1, 60)):
                        self._step(file, stop)
                        self.done += 1
                self._synced = bytes(self._model)
                self.verify(fs)

    def _step(self, file: File, stop: threading.Event) -> None:
        choice = self._random.random()
        if choice < 0.6:
            self._write(file)
        elif choice < 0.7:
            file.fsync()
            self._synced = bytes(self._model)
        elif choice < 0.8:
            file.flush()
        elif choice < 0.97:
            offset = self._random.randrange(len(self._model) + 1)
            count = self._random.randrange(300 * KIB)
            self._compare(file.pread(offset, count), self._model[offset : offset + count], offset)
        else:
            stop.wait(self._random.uniform(0.0, 8.0))  # the session ends, then the lease

    def _write(self, file: File) -> None:
        offset = self._random.randrange(self.FILE_BYTES)
        data = self._random.randbytes(self._random.choice([1, 100, 5000, 65_536, 200_000]))
        file.pwrite(offset, data)
        if offset > len(self._model):
            self._model.extend(bytes(offset - len(self._model)))
        self._model[offset : offset + len(data)] = data

    def verify(self, fs: FileSystem) -> None:
        """Of a file that is closed: all is there, for any reader."""
        self._compare(fs.read_bytes(self.path), self._synced, 0)

    def _compare(self, found: bytes, expected: bytes | bytearray, offset: int) -> None:
        if found != expected:
            place = next((at for at, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), -1)
            raise AssertionError(
                f"{self.path}: {len(found)} bytes where {len(expected)} were expected at {offset}, "
                f"different from {offset + place if place >= 0 else 'the end'} on"
            )


def kill_at_random(cluster: Cluster, source: random.Random, writers: list[Writer], workers: Workers) -> None:
    """Kills and starts again one process after the other, each time with some time to recover."""
    end = time.monotonic() + MINUTES * 60
    names = [record.name for record in cluster.records()]
    while time.monotonic() < end and not workers.failures:
        name = source.choice(names)
        cluster.kill(name)
        workers.stop.wait(source.uniform(0.0, 4.0))
        cluster.restart(name)
        cluster.wait_for("all processes are back", is_complete, seconds=DEADLINE_SECONDS)
        done = [writer.done for writer in writers]
        workers.stop.wait(source.uniform(0.5, 6.0))
        wait_for_work(workers, lambda done=done: all(writer.done > seen for writer, seen in zip(writers, done)))  # type: ignore[misc] # noqa: B905


def is_complete(status: dict[str, object]) -> bool:
    servers = status.get("chunkservers") or ()
    return bool(servers) and all(server["alive"] for server in servers)  # type: ignore[index, attr-defined]


@pytest.mark.long
def test_nothing_is_lost_while_processes_are_killed_one_at_a_time(cluster: Start) -> None:
    seed = SEED or str(random.randrange(10**9))
    print(f"seed {seed}")
    running = cluster(masters=2, chunkservers=4, replication=3, master=FAST)
    workers = Workers()
    writers = [Writer(running, seed, number) for number in range(3)]
    for writer in writers:
        workers.start(lambda writer=writer: writer.run(workers.stop))  # type: ignore[misc]
    try:
        kill_at_random(running, random.Random(f"{seed} faults"), writers, workers)
    finally:
        workers.finish()
    with connected(running) as fs:
        for writer in writers:
            writer.verify(fs)
    running.wait_for("all copies are back", lambda status: status["state"] == "well", seconds=DEADLINE_SECONDS)
    assert assert_equal_replicas(running) > 0
