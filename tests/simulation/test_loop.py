"""The virtual loop: time jumps, processes pause and die between callbacks, waiting for nothing is found out."""

import asyncio
import time

import pytest

from tests.simulation.loop import Deadlock, Process, virtual_loop


def test_an_hour_takes_no_time() -> None:
    with virtual_loop([]) as loop:
        started = time.monotonic()
        loop.run_until_complete(asyncio.sleep(3600))
        assert loop.time() == 3600
        assert time.monotonic() - started < 1


def test_waiting_for_nothing_is_a_deadlock() -> None:
    with virtual_loop([]) as loop, pytest.raises(Deadlock):
        loop.run_until_complete(asyncio.Event().wait())


def test_a_thread_is_an_error() -> None:
    with virtual_loop([]) as loop, pytest.raises(RuntimeError, match="no threads"):
        loop.run_until_complete(asyncio.to_thread(print))


def test_a_paused_process_gets_no_time_and_everything_that_came_meanwhile_afterwards() -> None:
    process = Process("p")
    seen: list[tuple[float, str]] = []

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append((asyncio.get_running_loop().time(), "tick"))

    async def main() -> None:
        task = process.start(work())
        await asyncio.sleep(1.5)
        process.pause()
        await asyncio.sleep(10)
        process.resume()
        await task

    with virtual_loop([process]) as loop:
        loop.run_until_complete(main())
    assert seen == [(1.0, "tick"), (11.5, "tick"), (12.5, "tick")]


def test_a_killed_process_runs_no_finally_until_the_run_is_over() -> None:
    process = Process("p")
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1)
            seen.append("went on")
        finally:
            seen.append("finally")

    async def main() -> None:
        process.start(work())
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(5)
        assert not seen

    with virtual_loop([process]) as loop:
        loop.run_until_complete(main())
    assert seen == ["finally"]


def test_groups_of_tasks_are_cancelled_in_the_same_order_in_every_run() -> None:
    def run(before: int) -> list[int]:
        cancelled: list[int] = []
        garbage = [object() for _ in range(before)]

        async def work(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(number)

        async def main() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1), asyncio.TaskGroup() as group:
                    for number in range(20):
                        group.create_task(work(number))

        with virtual_loop([]) as loop:
            loop.run_until_complete(main())
        assert len(garbage) == before
        return cancelled

    first = run(0)
    assert sorted(first) == list(range(20))
    assert all(run(before) == first for before in (7, 100, 1001))


def test_a_fuse_kills_between_two_callbacks() -> None:
    process = Process("p")
    seen: list[int] = []

    async def work() -> None:
        for number in range(100):
            seen.append(number)
            await asyncio.sleep(0)

    async def main() -> None:
        process.start(work())
        process.fuse = 5
        await asyncio.sleep(1)

    with virtual_loop([process]) as loop:
        loop.run_until_complete(main())
    assert process.is_dead
    assert seen == [0, 1, 2, 3, 4]
