"""How a mount waits for the kernel: its descriptor is watched once, and not while nobody would take a request."""

import asyncio
import os
from collections.abc import Iterator

import pytest
import uvloop

pyfuse3_asyncio = pytest.importorskip("pyfuse3.asyncio", reason="pyfuse3 is not installed")

from gfsclient.mount.waiting import UNTAKEN_MAX, KernelWatch, kernel_watched  # noqa: E402 - not without pyfuse3


class CountingLoop(uvloop.Loop):
    """An event loop that counts how often it was told to watch something."""

    watched = 0

    def add_reader(self, fd: int, callback: object, *arguments: object) -> None:  # type: ignore[override]
        self.watched += 1
        super().add_reader(fd, callback, *arguments)  # type: ignore[arg-type]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def run(scenario: "asyncio._CoroutineLike[None]") -> CountingLoop:
    loop = CountingLoop()
    try:
        loop.run_until_complete(scenario)
    finally:
        loop.close()
    return loop


def test_the_kernel_is_watched_once_for_many_requests(pipe: tuple[int, int]) -> None:
    source, sink = pipe

    async def request() -> bytes:
        await pyfuse3_asyncio.wait_readable(source)
        return os.read(source, 2)

    async def scenario() -> None:
        with kernel_watched():
            for number in range(20):
                waiting = asyncio.create_task(request())
                await asyncio.sleep(0)
                assert not waiting.done()
                os.write(sink, bytes([number]))
                assert await waiting == bytes([number])

    assert run(scenario()).watched == 1


def test_the_kernel_stays_watched_where_the_next_task_waits_a_turn_later(pipe: tuple[int, int]) -> None:
    source, sink = pipe

    async def scenario() -> None:
        watch = KernelWatch()
        os.write(sink, bytes(20))
        for _ in range(20):
            await watch.wait_readable(source)
            os.read(source, 1)
            await asyncio.sleep(0)
        watch.stop()

    assert run(scenario()).watched == 1


def test_requests_that_nobody_takes_are_not_told_again_and_again(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    watch = KernelWatch()
    told = 0

    async def scenario() -> None:
        nonlocal told
        readable = watch._readable

        def counted() -> None:
            nonlocal told
            told += 1
            readable()

        watch._readable = counted  # type: ignore[method-assign]
        os.write(sink, b"1")
        await watch.wait_readable(source)
        os.read(source, 1)
        os.write(sink, b"2")
        for _ in range(20):  # turns of the loop in which all tasks are busy
            await asyncio.sleep(0)
        assert told == 1 + UNTAKEN_MAX
        await watch.wait_readable(source)
        assert os.read(source, 2) == b"2"
        watch.stop()

    run(scenario())


def test_who_waits_is_told_that_the_mount_ends(pipe: tuple[int, int]) -> None:
    source, _ = pipe

    async def scenario() -> None:
        with kernel_watched():
            waiting = asyncio.create_task(pyfuse3_asyncio.wait_readable(source))
            await asyncio.sleep(0)
            pyfuse3_asyncio.notify_closing(source)
            with pytest.raises(pyfuse3_asyncio.ClosedResourceError):
                await waiting

    run(scenario())
