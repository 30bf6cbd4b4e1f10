"""The connections of one fsspec file system: one for each event loop that uses it, none shared with another process."""

import asyncio
import os
import threading
from dataclasses import dataclass
from typing import Final

from gfsclient.config import load_config
from gfsclient.filesystem import FileSystem
from gfsclient.user import User
from gfsprotocol.errors import InvalidArgument

_Connections = dict[asyncio.AbstractEventLoop, "asyncio.Task[FileSystem]"]

_of_parents: Final[list[_Connections]] = []
"""What a forked child has inherited. Kept for ever: to collect it would close what the parent goes on to use."""


@dataclass(frozen=True, slots=True)
class Access:
    """Which cluster, and in whose name; what is empty is taken from the client's settings."""

    config: str | os.PathLike[str] | None
    masters: tuple[str, ...]
    key: str
    user: User | None
    deadline_seconds: float | None

    async def connect(self) -> FileSystem:
        """What :meth:`FileSystem.connect` and :func:`load_config` raise if it cannot be done."""
        config = None if self.masters and self.key else load_config(self.config)
        masters, key = self.masters, self.key
        if config is not None:
            masters, key = masters or tuple(config.masters), key or config.key
        return await FileSystem.connect(
            masters, key, user=self.user, deadline_seconds=self.deadline_seconds, config=config
        )


class Sessions:
    """Connects when a loop first asks; loops may be in different threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._by_loop: _Connections = {}

    def _check_process(self) -> None:
        if self._process != os.getpid():
            _of_parents.append(self._by_loop)
            self._begin()

    async def current(self) -> FileSystem:
        """The running loop's connection; what :meth:`FileSystem.connect` raises if there is none to be had."""
        self._check_process()
        loop = asyncio.get_running_loop()
        with self._lock:
            connecting = self._by_loop.get(loop)
            if connecting is None or _has_failed(connecting):
                connecting = loop.create_task(self._access.connect())
                connecting.add_done_callback(_has_failed)
                self._by_loop = {known: task for known, task in self._by_loop.items() if not known.is_closed()}
                self._by_loop[loop] = connecting
        return await asyncio.shield(connecting)

    async def close(self) -> None:
        """Ends the running loop's connection; the next use makes another."""
        self._check_process()
        with self._lock:
            connecting = self._by_loop.pop(asyncio.get_running_loop(), None)
        if connecting is not None:
            await _end(connecting)

    def close_all(self) -> None:
        """Ends the connections of all loops that run in other threads. InvalidArgument on a loop's own thread."""
        self._check_process()
        with self._lock:
            running = {loop: task for loop, task in self._by_loop.items() if loop.is_running()}
            if _running_loop() in running:
                raise InvalidArgument("await _close() ends the connection of the event loop that runs")
            self._by_loop = {}
        for loop, connecting in running.items():
            asyncio.run_coroutine_threadsafe(_end(connecting), loop).result()

    def abandon(self) -> None:
        """As :meth:`close_all`, without waiting, from any thread: for what is not used any more."""
        if self._process != os.getpid():
            _of_parents.append(self._by_loop)
            return
        for loop, connecting in self._by_loop.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(_end(connecting), loop)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _has_failed(connecting: "asyncio.Task[FileSystem]") -> bool:
    return connecting.done() and (connecting.cancelled() or connecting.exception() is not None)


async def _end(connecting: "asyncio.Task[FileSystem]") -> None:
    await asyncio.wait([connecting])
    if not _has_failed(connecting):
        await connecting.result().close()
