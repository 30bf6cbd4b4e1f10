"""A TCP forwarder that can go silent: a partition for machines that do not let us drop packets.

It listens where a master is expected, and the master elsewhere. While it is cut, bytes are kept and not passed on,
connections are accepted and lead nowhere, and no connection is ended, so that neither side is told.
"""

import asyncio
import contextlib
from typing import Final

BUFFER_BYTES: Final = 1 << 16


class Forwarder:
    """From ``port`` to ``target``, both on ``host``. Belongs to one event loop."""

    def __init__(self, host: str, port: int, target: int) -> None:
        self._host = host
        self._port = port
        self._target = target
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def start(self) -> None:
        """OSError if the port is in use."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port)

    async def close(self) -> None:
        """Ends all connections."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self, is_cut: bool) -> None:
        """Nothing passes while it is cut."""
        if is_cut:
            self._passes.clear()
        else:
            self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._passes.wait()
            with contextlib.suppress(OSError):  # no one listens there: the connection ends, as it would without us
                there, back = await asyncio.open_connection(self._host, self._target)
                try:
                    await self._both_ways(reader, writer, there, back)
                finally:
                    back.close()
        except asyncio.CancelledError:
            return  # by close(), which no one else has to hear of
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        ways = [asyncio.create_task(self._pass(reader, back)), asyncio.create_task(self._pass(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(BUFFER_BYTES):
            await self._passes.wait()
            writer.write(data)
            await writer.drain()
        await self._passes.wait()
