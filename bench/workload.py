"""What programs do to a mounted directory, timed: large files, random reads, and all that is done to small files.

"Cold" is after the kernel has dropped all caches of this machine, those of the servers' disks, too. Each figure is
greater if better. The files of a round are removed by its last figure.
"""

import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from gfsprotocol.ids import MIB

SPAWN = multiprocessing.get_context("spawn")
SMALL_BYTES = 4096
PROCESSES = 4


class Amounts(NamedTuple):
    """How much is done in a round."""

    mebibytes: int = 256
    random_reads: int = 1_000
    files: int = 600
    """Of each kind and by each of the processes together."""


class Figure(NamedTuple):
    name: str
    unit: str
    value: float


def drop_caches() -> None:
    """Of the whole machine; only root may."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def measure(directory: Path, amounts: Amounts) -> Iterator[Figure]:
    """One round in an empty directory, which is empty again at the end."""
    yield from _large_file(directory / "large", amounts)
    yield from _creations(directory, amounts)
    yield from _small_files(directory / "files-1", amounts)
    for made in sorted(directory.iterdir()):
        _remove(made)


def _large_file(file: Path, amounts: Amounts) -> Iterator[Figure]:
    block = os.urandom(MIB)
    begun = time.perf_counter()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    for _ in range(amounts.mebibytes):
        os.write(descriptor, block)
    os.fsync(descriptor)
    os.close(descriptor)
    yield Figure("sequential write", "MiB/s", amounts.mebibytes / (time.perf_counter() - begun))
    drop_caches()
    begun = time.perf_counter()
    descriptor = os.open(file, os.O_RDONLY)
    buffer = bytearray(MIB)
    while os.readv(descriptor, [buffer]):
        pass
    os.close(descriptor)
    yield Figure("cold sequential read", "MiB/s", amounts.mebibytes / (time.perf_counter() - begun))
    drop_caches()
    chance = random.Random(4)
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    pages = amounts.mebibytes * MIB // SMALL_BYTES
    yield _rate("random 4 KiB reads", amounts.random_reads,
                lambda _: os.pread(descriptor, SMALL_BYTES, chance.randrange(pages) * SMALL_BYTES))  # fmt: skip
    os.close(descriptor)


def _creations(directory: Path, amounts: Amounts) -> Iterator[Figure]:
    for size, kind in ((0, "empty"), (SMALL_BYTES, "4 KiB")):
        for processes in (1, PROCESSES):
            own = directory / (f"files-{processes}" if size else f"empty-{processes}")
            own.mkdir()
            seconds = _in_processes(processes, own, size, amounts.files // processes)
            yield Figure(f"creates, {kind}, {processes} proc.", "/s", amounts.files // processes * processes / seconds)


def _small_files(directory: Path, amounts: Amounts) -> Iterator[Figure]:
    names = [f"0-{number}" for number in range(amounts.files)]
    random.Random(5).shuffle(names)
    drop_caches()
    yield _rate("cold stat", len(names), lambda number: os.stat(directory / names[number]))
    drop_caches()
    yield _rate("cold 4 KiB reads", len(names), lambda number: _read(directory / names[number]))
    drop_caches()
    begun = time.perf_counter()
    subprocess.run(["ls", "-l", directory], check=True, stdout=subprocess.DEVNULL)
    yield Figure("ls -l, entries", "/s", len(names) / (time.perf_counter() - begun))
    yield _rate("rename", len(names), lambda n: os.rename(directory / names[n], directory / f"renamed-{names[n]}"))
    yield _rate("unlink", len(names), lambda number: os.unlink(directory / f"renamed-{names[number]}"))


def _rate(name: str, count: int, act: Callable[[int], object]) -> Figure:
    begun = time.perf_counter()
    for number in range(count):
        act(number)
    return Figure(name, "/s", count / (time.perf_counter() - begun))


def _read(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    while os.read(descriptor, SMALL_BYTES * 2):
        pass
    os.close(descriptor)


def _in_processes(processes: int, directory: Path, size: int, count: int) -> float:
    """Seconds from the moment when all are ready until the last has created its files."""
    ready, done = SPAWN.Barrier(processes + 1), SPAWN.Barrier(processes + 1)
    workers = [
        SPAWN.Process(target=_create, args=(ready, done, directory, number, size, count)) for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    begun = time.perf_counter()
    done.wait()
    seconds = time.perf_counter() - begun
    for worker in workers:
        worker.join()
    return seconds


def _create(ready: Barrier, done: Barrier, directory: Path, process: int, size: int, count: int) -> None:
    data = os.urandom(size)
    ready.wait()
    for number in range(count):
        descriptor = os.open(directory / f"{process}-{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        if size:
            os.write(descriptor, data)
        os.close(descriptor)
    done.wait()


def _remove(path: Path) -> None:
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink()
