"""The journal in SQLite and in PostgreSQL, in one run: durable creates per second, and how long one append takes.

PostgreSQL is one of the tests' own, on this host, with its durable default settings: across a network each append takes
its round trips on top. Where its programs are missing, its rows say so.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench import cluster, metadata
from gfsmaster.oplog import GENESIS_HASH, Batch, OperationLog, chain
from tests.postgresql import MISSING, Server, find_programs

APPENDS = 3_000
APPEND_WARM_UP = 300
APPEND_BYTES = 200
"""About one record of a create."""
ENGINES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@contextlib.contextmanager
def _server() -> Iterator[Server | None]:
    """A running PostgreSQL, None if its programs are missing."""
    programs = find_programs()
    if programs is None:
        yield None
        return
    server = Server(programs)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.remove()


def _append_seconds(url: str) -> list[float]:
    """What each append of one small row took."""
    log = OperationLog(url, "bench")
    try:
        log.prepare(genesis=True)
        won = log.campaign(log.leadership(), "bench:1")
        assert won is not None
        payload = bytes(APPEND_BYTES)
        hash, seconds = GENESIS_HASH, []
        for number in range(1, APPEND_WARM_UP + APPENDS + 1):
            previous, hash = hash, chain(hash, number, number, won.epoch, payload)
            begun = time.perf_counter()
            log.append(Batch(number, number, won.epoch, hash, payload), previous)
            seconds.append(time.perf_counter() - begun)
        return seconds[APPEND_WARM_UP:]
    finally:
        log.close()


def _creates(directory: Path, rounds: int, url: str) -> float:
    """The median rate of the rounds; an empty ``url``: SQLite in the cluster's directory."""
    directory.mkdir()
    with cluster.running(directory, url) as config, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return statistics.median(runner.run(metadata.rates(config, rounds, with_stat=False))["durable create"])


def measure(directory: Path, rounds: int) -> list[dict[str, object]]:
    """Two rows for each engine: the median of creates per second, and an append's median with its 99th percentile."""
    appends: dict[str, list[float]] = {}
    creates: dict[str, float] = {}
    with _server() as server:
        appends["sqlite"] = _append_seconds(f"sqlite:///{directory / 'journal.sqlite'}")
        creates["sqlite"] = _creates(directory / "sqlite", rounds, "")
        if server is not None:
            with server.database() as name:
                appends["postgresql"] = _append_seconds(server.url(name))
            with server.database() as name:
                creates["postgresql"] = _creates(directory / "postgresql", rounds, server.url(name))
    rows: list[dict[str, object]] = []
    for engine, title in ENGINES.items():
        if engine not in creates:
            skipped = {"value": "skipped", "bare": "", "ratio": "", "aim": "", "reason": MISSING}
            rows += [{"figure": f"{figure}, {title}", **skipped} for figure in ("durable create", "append")]
            continue
        seconds = sorted(appends[engine])
        median, late = statistics.median(seconds), seconds[len(seconds) * 99 // 100]
        rows.append(
            {
                "figure": f"durable create, {title}",
                "value": f"{creates[engine]:,.0f} /s",
                "bare": "",
                "ratio": f"{creates[engine] / creates['sqlite']:.2f}",
                "aim": "",
            }
        )
        rows.append(
            {
                "figure": f"append, {title}",
                "value": f"{median * 1000:.2f} ms",
                "bare": f"p99 {late * 1000:.2f} ms",
                "ratio": f"{median / statistics.median(appends['sqlite']):.2f}",
                "aim": "",
            }
        )
    return rows
