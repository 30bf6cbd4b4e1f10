"""What the parts of one client share: the masters, bulk connections, threads, and what is known about chunk servers.

Metadata and small reads live on the event loop, other chunk data in threads (docs/decisions/0001); :meth:`Core.call` is
the bridge from a thread to the masters.
"""

import asyncio
import copy
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, Self, TypeVar

from gfsclient.acting import ActingMasters
from gfsclient.config import ClientConfig
from gfsclient.masters import Masters
from gfsclient.quickreads import QuickReads
from gfsclient.servers import CONNECT_SECONDS, Servers
from gfsclient.user import Acting
from gfsprotocol.bulksocket import BulkPool
from gfsprotocol.errors import ConnectionLost, InvalidArgument, LocalProtocolError
from gfsprotocol.messages import RequestBody

FETCH_THREADS: Final = 12

_Reply = TypeVar("_Reply")
_Result = TypeVar("_Result")
_Arguments = ParamSpec("_Arguments")


class Core:
    """The shared parts; made on the event loop that its masters belong to."""

    def __init__(self, config: ClientConfig, masters: Masters) -> None:
        self.config = config
        self.masters = masters
        self.loop = asyncio.get_running_loop()
        self.pool = BulkPool(CONNECT_SECONDS)
        self.servers = Servers()
        self.quick = QuickReads(self.servers)
        self.fetchers = ThreadPoolExecutor(FETCH_THREADS, "gfs-fetch")
        self.records = itertools.count(1)
        """Numbers of appended records, rising over all files: servers tell repetitions by them."""
        self._workers = ThreadPoolExecutor(config.threads, "gfs-file")
        self._loop_thread = threading.get_ident()
        self._process = os.getpid()
        self._closed = threading.Event()

    def acting_as(self, acting: Acting, **settings: Any) -> Self:
        """The same connections and threads in another name, with some settings changed."""
        other = copy.copy(self)
        other.masters = ActingMasters(self.masters, acting)
        other.config = self.config.model_copy(update=settings)
        return other

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    @property
    def is_forked(self) -> bool:
        """Whether we are in a child of its process: there its threads are missing, and its connections shared."""
        return os.getpid() != self._process

    def check(self) -> None:
        """ConnectionLost if closed, InvalidArgument in a forked child."""
        if self.is_forked:
            raise InvalidArgument("a file system cannot be used in a process forked from its own: open another there")
        if self._closed.is_set():
            raise ConnectionLost("the file system is closed")

    def submit(
        self, body: RequestBody, kind: type[_Reply], deadline_seconds: float | None = None, at_leader: bool = False
    ) -> "Future[_Reply]":
        """From any thread: asks the masters; the future gets the reply or the error."""
        self.check()
        return asyncio.run_coroutine_threadsafe(self.masters.expect(body, kind, deadline_seconds, at_leader), self.loop)

    def call(
        self, body: RequestBody, kind: type[_Reply], deadline_seconds: float | None = None, at_leader: bool = False
    ) -> _Reply:
        """From a thread that is not the event loop's: the masters' answer, or its error raised."""
        if threading.get_ident() == self._loop_thread:
            raise LocalProtocolError("a blocking call on the event loop's own thread")
        return self.submit(body, kind, deadline_seconds, at_leader).result()

    def count_writer(self, change: int) -> None:
        """From any thread: a file was opened for writing (1) or closed (-1)."""
        self.loop.call_soon_threadsafe(self.masters.count_writer, change)

    async def in_thread(
        self, function: "Callable[_Arguments, _Result]", *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        """Runs blocking work in one of the client's threads; cancelled, we leave it to its end: it may close a file."""
        self.check()
        work = self.loop.run_in_executor(self._workers, lambda: function(*arguments, **named))
        work.add_done_callback(_seen)
        return await asyncio.shield(work)

    async def close(self) -> None:
        """Ends threads and connections; what is under way is waited for, at most until its own deadline."""
        if self._closed.is_set():
            return
        self._closed.set()
        await asyncio.to_thread(self._workers.shutdown, True, cancel_futures=True)
        await asyncio.to_thread(self.fetchers.shutdown, True, cancel_futures=True)
        self.pool.close()
        await self.quick.close()
        await self.masters.close()


def _seen(work: "asyncio.Future[Any]") -> None:
    """Who was cancelled hears no more how it ended; that is no reason to complain on stderr."""
    if not work.cancelled():
        work.exception()
