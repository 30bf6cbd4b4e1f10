"""Waiting for the next request of the kernel, cheaper than pyfuse3 does it.

pyfuse3 has the event loop watch the kernel's descriptor anew for each request: half a dozen system calls, a third of
what a small request costs. Here the descriptor stays watched.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

import pyfuse3.asyncio

UNTAKEN_MAX: Final = 3
"""So often in a row a request is told of that nobody takes, until the descriptor is not watched any more.

The next task to wait needs a turn of the event loop, and by then a fast program has asked again.
"""


class KernelWatch:
    """What pyfuse3 waits with: one task at a time, which reads the request as soon as it goes on.

    That holds only where a callback that was called for a descriptor is not called again before the tasks that it woke
    have run, as with uvloop: a task that is woken without a request would end the mount.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        """Watched; -1 if none is."""
        self._waiter: asyncio.Future[None] | None = None
        self._untaken = 0

    async def wait_readable(self, fd: int) -> None:
        """Returns when there is a request; raises ClosedResourceError when there will be none any more."""
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        if self._descriptor != fd:
            self.stop()
            loop.add_reader(fd, self._readable)
            self._descriptor = fd
        try:
            await waiter
        finally:
            if self._waiter is waiter:
                self._waiter = None

    def notify_closing(self, fd: int) -> None:  # noqa: ARG002 - there is only one
        """Ends the waiting."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(pyfuse3.asyncio.ClosedResourceError())

    def stop(self) -> None:
        """Watches nothing any more."""
        if self._descriptor != -1:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._descriptor = -1

    def _readable(self) -> None:
        if self._waiter is None:
            self._untaken += 1
            if self._untaken >= UNTAKEN_MAX:
                self.stop()  # all tasks are busy: the event loop would do nothing else than tell us so
        elif not self._waiter.done():
            self._untaken = 0
            self._waiter.set_result(None)


@contextlib.contextmanager
def kernel_watched() -> Iterator[None]:
    """pyfuse3's main loop, run inside, waits in this way."""
    watch = KernelWatch()
    before = pyfuse3.asyncio.wait_readable, pyfuse3.asyncio.notify_closing
    pyfuse3.asyncio.wait_readable = watch.wait_readable
    pyfuse3.asyncio.notify_closing = watch.notify_closing
    try:
        yield
    finally:
        watch.stop()
        pyfuse3.asyncio.wait_readable, pyfuse3.asyncio.notify_closing = before
