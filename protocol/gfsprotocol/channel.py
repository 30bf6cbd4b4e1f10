"""The seam between the RPC layer and whatever carries its frames, with an in-memory twin.

The whole cluster runs over :class:`Channel` and :class:`Clock`; ``gfsprotocol.network`` has the WebSocket, tests and
the simulator use :func:`memory_pair` and a clock of their own.
"""

import asyncio
import time
from typing import Final, Protocol

from gfsprotocol.errors import ConnectionLost

REFUSED: Final = "refused"
"""Hint of a ConnectionLost when no one listens at the address that was dialled."""


class Clock(Protocol):
    """Time as an argument, so that tests and the simulator can own it."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""

    def time_ns(self) -> int:
        """Nanoseconds since the epoch, as the machine believes; for timestamps only, never for decisions."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time_ns(self) -> int:
        return time.time_ns()


class Channel(Protocol):
    """An ordered, reliable stream of frames between two peers, until it breaks."""

    @property
    def peer(self) -> str:
        """Who is at the other end, for people."""

    async def send(self, frame: bytes) -> None:
        """Returns when the frame is on its way and the peer keeps up. ConnectionLost if the channel is broken."""

    async def receive(self) -> bytes:
        """The next frame. ConnectionLost when there will be none; RemoteProtocolError if it was not a frame."""

    async def close(self) -> None:
        """Ends the channel; the peer's ``receive`` raises ConnectionLost."""


class MemoryChannel:
    """One end of an in-memory channel, bounded to ``frames_max`` frames in flight."""

    def __init__(self, peer: str, outgoing: asyncio.Queue[bytes | None], incoming: asyncio.Queue[bytes | None]) -> None:
        self._peer = peer
        self._outgoing = outgoing
        self._incoming = incoming
        self._closed = False

    @property
    def peer(self) -> str:
        return self._peer

    async def send(self, frame: bytes) -> None:
        if self._closed:
            raise ConnectionLost(f"the connection to {self._peer} is closed")
        await self._outgoing.put(frame)

    async def receive(self) -> bytes:
        frame = None if self._closed else await self._incoming.get()
        if frame is None:
            self._closed = True
            raise ConnectionLost(f"{self._peer} closed the connection")
        return frame

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for queue in (self._outgoing, self._incoming):
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)


def memory_pair(left: str = "left", right: str = "right", frames_max: int = 64) -> tuple[MemoryChannel, MemoryChannel]:
    """Two ends of one channel: the first is held by ``left`` and talks to ``right``."""
    forth: asyncio.Queue[bytes | None] = asyncio.Queue(frames_max)
    back: asyncio.Queue[bytes | None] = asyncio.Queue(frames_max)
    return MemoryChannel(right, forth, back), MemoryChannel(left, back, forth)
