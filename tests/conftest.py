"""What holds for every test: no unexpected warning in the logs, and nothing left behind."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import psutil
import pytest

from tests import postgresql as postgresql_server
from tests.cluster.harness import Cluster

SLOW_SECONDS = 0.25
VANISH_SECONDS = 3.0
"""How long threads and processes that are ending may still be seen."""

# CI runs the same examples each time: whether a change may land is not a matter of luck. Everyone else explores.
hypothesis.settings.register_profile("gfs", print_blob=True, deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("gfs")


# ------------------------------------------------------------------------------------------------------------- logs


class ExpectedLogs:
    """The warnings that a test says it will cause."""

    def __init__(self) -> None:
        self._patterns: list[re.Pattern[str]] = []
        self.unexpected: list[str] = []

    def __call__(self, *patterns: str) -> None:
        """Allows log lines ``logger: message`` in which one of the regular expressions is found."""
        self._patterns += map(re.compile, patterns)

    def see(self, record: logging.LogRecord) -> None:
        text = f"{record.name}: {record.getMessage()}"
        if not any(pattern.search(text) for pattern in self._patterns):
            self.unexpected.append(f"{record.levelname} {text}")


class _Recorder(logging.Handler):
    def __init__(self, expected: ExpectedLogs) -> None:
        super().__init__(logging.WARNING)
        self._expected = expected

    def emit(self, record: logging.LogRecord) -> None:
        self._expected.see(record)


@pytest.fixture
def expected_logs(_logs: ExpectedLogs) -> ExpectedLogs:
    """Call it with regular expressions of the warnings that the test will cause."""
    return _logs


@pytest.fixture(autouse=True)
def _logs() -> Iterator[ExpectedLogs]:
    expected = ExpectedLogs()
    recorder = _Recorder(expected)
    logging.getLogger().addHandler(recorder)
    yield expected
    logging.getLogger().removeHandler(recorder)
    if expected.unexpected:
        pytest.fail("unexpected warnings in the logs:\n  " + "\n  ".join(expected.unexpected), pytrace=False)


# -------------------------------------------------------------------------------------------------- nothing remains


def _threads() -> set[str]:
    return {f"thread {thread.name}" for thread in threading.enumerate() if thread.is_alive() and not thread.daemon}


for_all_tests: set[int] = set()
"""Children of this process that outlive a test, with their own children."""


def _processes() -> set[str]:
    found = set()
    children = psutil.Process().children()
    while children:
        child = children.pop()
        try:
            command = " ".join(child.cmdline()[:6])
            if child.pid in for_all_tests:
                continue
            children += child.children()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if "multiprocessing.resource_tracker" not in command:  # lives as long as this process, by design
            found.add(f"process {child.pid} ({command})")
    return found


def _ports() -> set[str]:
    connections = psutil.Process().net_connections("inet")
    return {f"listening port {c.laddr.port}" for c in connections if c.status == psutil.CONN_LISTEN}


def _traces() -> set[str]:
    return _threads() | _processes() | _ports()


@pytest.fixture(autouse=True)
def _nothing_remains(_logs: ExpectedLogs) -> Iterator[None]:
    before = _traces()
    yield
    deadline = time.monotonic() + VANISH_SECONDS
    while left := _traces() - before:
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {', '.join(sorted(left))}", pytrace=False)
        time.sleep(0.01)


# --------------------------------------------------------------------------------------------------- slow, unmarked

_unmarked_slow: list[tuple[float, str]] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call" and call.duration > SLOW_SECONDS and item.get_closest_marker("slow") is None:
        _unmarked_slow.append((call.duration, item.nodeid))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _unmarked_slow:
        terminalreporter.section(f"tests over {SLOW_SECONDS} s without the mark 'slow'")
        for duration, name in sorted(_unmarked_slow, reverse=True)[:20]:
            terminalreporter.write_line(f"{duration:6.2f} s  {name}")


# --------------------------------------------------------------------------------------------------------- databases


def do_without(missing: str) -> NoReturn:
    """Skips a test of PostgreSQL for what is missing, or fails it where nothing may be."""
    if os.environ.get(postgresql_server.REQUIRED):
        pytest.fail(f"{missing}, and {postgresql_server.REQUIRED} is set", pytrace=False)
    pytest.skip(missing)


def postgresql_programs() -> Path:
    """Where the server's programs are; without them the test is skipped, or fails."""
    return postgresql_server.find_programs() or do_without(postgresql_server.MISSING)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgresql_server.Server]:
    """A database server for all tests; each makes a database of its own in it."""
    server = postgresql_server.Server(postgresql_programs())
    try:
        server.create()
        for_all_tests.add(server.start())
        yield server
    finally:
        server.remove()


@pytest.fixture
def own_postgresql() -> Iterator[Callable[[], postgresql_server.Server]]:
    """A factory of database servers that a test may stop, kill and copy; they are neither filled nor started."""
    servers: list[postgresql_server.Server] = []

    def make() -> postgresql_server.Server:
        servers.append(postgresql_server.Server(postgresql_programs()))
        return servers[-1]

    try:
        yield make
    finally:
        for server in servers:
            server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database for an operation log, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'journal.sqlite'}"
        return
    server: postgresql_server.Server = request.getfixturevalue("postgresql")
    with server.database() as name:
        yield server.url(name)


# ----------------------------------------------------------------------------------------------------- real clusters


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """A factory of running clusters of real processes; see :class:`tests.cluster.harness.Cluster` for its arguments."""
    clusters: list[Cluster] = []

    def start(**options: object) -> Cluster:
        made = Cluster(tmp_path / f"cluster-{len(clusters) + 1}", **options)  # type: ignore[arg-type]
        clusters.append(made)
        made.up()
        return made

    try:
        yield start
    finally:
        for made in clusters:
            made.stop()
