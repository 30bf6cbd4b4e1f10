"""Metadata through RPC: stat and durable create, with many requests in flight from one client process."""

import asyncio
import statistics
import time
from pathlib import Path

import uvloop

from bench import cluster
from gfsclient.filesystem import FileSystem

IN_FLIGHT = 256
STATS = 60_000
CREATES = 20_000
WARM_UP = 5_000


async def _rate(count: int, one: object) -> float:
    async def worker(number: int) -> None:
        for index in range(number, count, IN_FLIGHT):
            await one(index)  # type: ignore[operator]

    begun = time.perf_counter()
    await asyncio.gather(*(worker(number) for number in range(IN_FLIGHT)))
    return count / (time.perf_counter() - begun)


async def rates(config: Path, rounds: int, with_stat: bool = True) -> dict[str, list[float]]:
    """Requests per second, of each round."""
    figures: dict[str, list[float]] = {"stat": [], "durable create": []}
    async with await FileSystem.from_config(config) as fs:
        for turn in range(rounds):
            await fs.mkdir(f"/bench-{turn}")

            async def create(index: int, turn: int = turn) -> None:
                await fs.make_file(f"/bench-{turn}/file-{index:06d}")

            async def stat(index: int, turn: int = turn) -> None:
                await fs.stat(f"/bench-{turn}/file-{index % CREATES:06d}")

            figures["durable create"].append(await _rate(CREATES, create))
            if with_stat:
                await _rate(WARM_UP, stat)
                figures["stat"].append(await _rate(STATS, stat))
            await fs.remove_tree(f"/bench-{turn}")
    return figures


def measure(directory: Path, rounds: int) -> list[dict[str, object]]:
    """Medians over ``rounds`` of requests per second."""
    with cluster.running(directory) as config, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(rates(config, rounds))
    aims = {"stat": 60_000, "durable create": 15_000}
    return [
        {"figure": name, "value": f"{statistics.median(of_rounds):,.0f} /s", "bare": "", "ratio": "", "aim": aims[name]}
        for name, of_rounds in figures.items()
    ]
