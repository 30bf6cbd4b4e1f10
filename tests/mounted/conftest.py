"""Mounts for tests: one that all harmless tests share, and a factory for those that kill something."""

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster
from tests.conftest import for_all_tests
from tests.mounted.mounting import LOCALLY, Mount, do_without, mountable_reason
from tests.mounted.worker import Worker

MOUNTS = pytest.StashKey[list[Mount]]()
"""Of a test: the mounts that it uses."""


@pytest.fixture(scope="session")
def _mountable() -> None:
    reason = None if LOCALLY else mountable_reason()
    if reason is not None:
        do_without(reason)


@pytest.fixture(scope="session")
def mounted_cluster(_mountable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster | None]:
    """The cluster of the shared mounts: one master, three chunk servers; None with the local stand-in."""
    if LOCALLY:
        yield None
        return
    cluster = Cluster(tmp_path_factory.mktemp("mounted") / "cluster", masters=1)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def _shared_mount(mounted_cluster: Cluster | None) -> Iterator[Mount]:
    mount = Mount(mounted_cluster)
    try:
        mount.mount()
        yield mount
    finally:
        mount.remove()


@pytest.fixture
def mounted(_shared_mount: Mount, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """The mount that tests share which do no harm to it; what hangs fails."""
    request.node.stash[MOUNTS] = [_shared_mount]
    with _shared_mount.watched(600.0):
        yield _shared_mount


@pytest.fixture
def place(mounted: Mount, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of the test's own in the shared mount."""
    yield from _directory(mounted.path, request.node.name)


@pytest.fixture
def local(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on the local disk, which every user can reach: what the mount is compared with."""
    base = Path(tmp_path_factory.getbasetemp()).parent.parent
    yield from _directory(base, f"gfs-local-{os.getpid()}-{request.node.name}")


def _directory(parent: Path, name: str) -> Iterator[Path]:
    made = parent / "".join(letter if letter.isalnum() else "-" for letter in name)[:100]
    made.mkdir()
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def _second_mount(mounted_cluster: Cluster | None, _shared_mount: Mount) -> Iterator[Mount]:
    if LOCALLY:
        yield _shared_mount
        return
    mount = Mount(mounted_cluster, "second")
    try:
        mount.mount()
        yield mount
    finally:
        mount.remove()


@pytest.fixture
def pair(
    place: Path, mounted: Mount, _second_mount: Mount, request: pytest.FixtureRequest
) -> Iterator[tuple[Path, Path]]:
    """One directory of the test's own, as the first and as the second mount have it."""
    request.node.stash[MOUNTS].append(_second_mount)
    with _second_mount.watched(600.0):
        yield place, _second_mount.path / place.relative_to(mounted.path)


@pytest.fixture
def mounts(
    _mountable: None, cluster: Callable[..., Cluster], request: pytest.FixtureRequest
) -> Iterator[Callable[..., list[Mount]]]:
    """A factory of several mounts of a cluster of their own: ``mounts(2, masters=2)``.

    With the local stand-in they are one directory under several names.
    """
    made: list[Mount] = []
    request.node.stash[MOUNTS] = made

    def make(count: int, *options: str, **of_the_cluster: object) -> list[Mount]:
        if LOCALLY:
            made.append(Mount(None))
            return made * count
        own = cluster(**of_the_cluster)
        for number in range(count):
            made.append(Mount(own, f"mount-{number}", *options))
            made[-1].mount()
        return made

    try:
        yield make
    finally:
        for mount in made:
            mount.remove()


@pytest.fixture(scope="session")
def _worker() -> Iterator[Worker]:
    worker = Worker(on_start=for_all_tests.add)
    try:
        yield worker
    finally:
        worker.close()


@pytest.fixture
def worker(_worker: Worker) -> Worker:
    """A process that makes system calls, as any user; see :class:`tests.mounted.worker.Worker`."""
    return _worker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what the mounts have logged."""
    report = yield
    if report.failed:
        mounts = item.stash.get(MOUNTS, [])
        report.sections += [("log of the mount", mount.log()) for mount in mounts]
        clusters = {mount.cluster for mount in mounts} - {None}
        report.sections += [("logs of the cluster", cluster.logs()) for cluster in clusters if cluster is not None]
    return report
