"""Packet buffers that are used again, so that many sessions do not mean much memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gfsprotocol.ids import PACKET_BYTES

_IDLE_MAX = 32
_lock = threading.Lock()
_idle: list[bytearray] = []


@contextmanager
def packet_buffer() -> Iterator[memoryview]:
    """A buffer of :data:`PACKET_BYTES`, with some earlier packet's bytes in it."""
    with _lock:
        buffer = _idle.pop() if _idle else bytearray(PACKET_BYTES)
    try:
        yield memoryview(buffer)
    finally:
        with _lock:
            if len(_idle) < _IDLE_MAX:
                _idle.append(buffer)
