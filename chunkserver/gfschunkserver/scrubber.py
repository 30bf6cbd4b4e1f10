"""Verifies replicas: at once on order or on suspicion, and all of them again and again, slowly."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from gfschunkserver.replica import Replica
from gfschunkserver.store import Store
from gfsprotocol.checksums import BLOCK_BYTES
from gfsprotocol.errors import ChunkCorrupt, DataError, DiskFailed
from gfsprotocol.ids import MIB

REQUESTS_MAX: Final = 1024
STEP_BYTES: Final = 1 * MIB
PASS_SECONDS_MIN: Final = 3600.0
"""A small store is not read again and again all day."""
STOP_SECONDS: Final = 10.0


class Scrubber:
    """A thread. What fails verification is condemned: served no more, and reported."""

    def __init__(self, store: Store, bytes_per_second: int) -> None:
        self._store = store
        self._bytes_per_second = bytes_per_second
        self._requests: queue.Queue[tuple[int, Callable[[str], None]]] = queue.Queue(REQUESTS_MAX)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrubber")
        self._todo: list[int] = []
        self._block = 0
        self._pass_began = -PASS_SECONDS_MIN
        self.verified_bytes = 0

    @property
    def remaining_chunks(self) -> int:
        """That the present pass has still to read."""
        return len(self._todo)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._request(0, lambda _error: None)
        self._thread.join(STOP_SECONDS)

    def suspect(self, chunk: int) -> None:
        """Verifies the chunk soon."""
        self._request(chunk, lambda _error: None)

    def verify(self, chunk: int, done: Callable[[str], None]) -> None:
        """Verifies the chunk soon and says what was wrong; an empty text if nothing was."""
        self._request(chunk, done)

    def _request(self, chunk: int, done: Callable[[str], None]) -> None:
        try:
            self._requests.put_nowait((chunk, done))
        except queue.Full:
            done("too many chunks wait for verification")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                chunk, done = self._requests.get(timeout=self._scrub_step())
            except queue.Empty:
                continue
            if chunk:
                done(self._verify(chunk))

    def _verify(self, chunk: int) -> str:
        replica = self._store.find(chunk)
        if replica is None:
            return "this server holds no replica of the chunk"
        block = 0
        while not self._stopping.is_set():
            error, count = self._verify_block(replica, block)
            if error or not count:
                return error
            block += 1
        return "the server is stopping"

    def _scrub_step(self) -> float:
        """Verifies a little of the slow pass; returns how long to rest afterwards, in seconds."""
        if not self._bytes_per_second:
            return PASS_SECONDS_MIN
        if not self._todo:
            now = time.monotonic()
            if now - self._pass_began < PASS_SECONDS_MIN:
                return min(1.0, PASS_SECONDS_MIN)
            self._pass_began = now
            self._todo = self._store.chunks()[::-1]
            self._block = 0
        done = 0
        while self._todo and done < STEP_BYTES:
            replica = self._store.find(self._todo[-1])
            error, count = self._verify_block(replica, self._block) if replica is not None else ("", 0)
            done += max(count, BLOCK_BYTES // 16)
            self._block += 1
            if error or not count:
                self._todo.pop()
                self._block = 0
        return done / self._bytes_per_second

    def _verify_block(self, replica: Replica, block: int) -> tuple[str, int]:
        """(what is wrong, bytes verified); 0 bytes beyond the end."""
        try:
            count = replica.verify_block(block)
        except ChunkCorrupt as error:
            self._store.condemn(replica, error.message)
            return error.message, 0
        except (DataError, DiskFailed) as error:
            return error.message, 0
        self.verified_bytes += count
        return "", count
