"""Makes what was written to many small files durable with one request to each of their servers.

A chain of servers syncs one chunk in a session of its own. Files that were written, closed and are to be durable soon
do better: each server is asked once for all chunks at hand (as an NFS client's COMMIT), and one fsync of its journal
does for them. What is not durable then, for whatever reason, is left to a session, which knows what to do about it.
"""

import asyncio
import logging
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Final

from gfsclient.core import Core
from gfsprotocol import bulk
from gfsprotocol.bulksocket import expect
from gfsprotocol.errors import GfsError
from gfsprotocol.messages import Lease, ServerAddress

log = logging.getLogger(__name__)

REPLY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class UnsyncedChunk:
    """A chunk, the lease under which its last writes were acknowledged, and the verifier that they have."""

    index: int
    lease: Lease
    verifier: int
    acknowledged: int
    """How many writes had been acknowledged: a later one makes it unsynced again."""


def sync_chunks(core: Core, chunks: list[UnsyncedChunk]) -> list[bool]:
    """Which of the chunks, at most SYNC_ITEMS_MAX, are on stable storage on all their servers now. Blocks."""
    asked: dict[ServerAddress, list[tuple[int, bulk.SyncItem]]] = {}
    for number, chunk in enumerate(chunks):
        for position, member in enumerate(chunk.lease.grant.members):
            item = bulk.SyncItem(chunk.lease.token, position, chunk.verifier)
            asked.setdefault(member, []).append((number, item))
    answers = {member: core.fetchers.submit(_ask, core, member, items) for member, items in asked.items()}
    wait(answers.values())
    synced = [True] * len(chunks)
    for member, items in asked.items():
        for (number, _), done in zip(items, answers[member].result(), strict=True):
            synced[number] = synced[number] and done
    return synced


def _ask(core: Core, member: ServerAddress, items: list[tuple[int, bulk.SyncItem]]) -> tuple[bool, ...]:
    nothing = (False,) * len(items)
    try:
        connection = core.pool.take(member.host, member.port)
        try:
            connection.set_timeout(REPLY_SECONDS)
            connection.send(bulk.SyncChunks(tuple(item for _, item in items)))
            reply, _ = connection.receive_reply(0)
            done = expect(reply, bulk.Synced, connection.peer).done
        except BaseException:
            connection.close()
            raise
    except GfsError as error:
        log.debug("server %016x syncs nothing: %s", member.server, error.message)
        return nothing
    core.pool.give_back(member.host, member.port, connection)
    return done if len(done) == len(items) else nothing


class Syncer:
    """Collects chunks while a sync is under way, and syncs them all by the next one. Belongs to the event loop."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting: list[tuple[UnsyncedChunk, asyncio.Future[bool]]] = []
        self._running: asyncio.Task[None] | None = None

    async def sync(self, chunks: list[UnsyncedChunk]) -> list[bool]:
        """Which of the chunks are durable now."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[bool]] = [loop.create_future() for _ in chunks]
        self._waiting.extend(zip(chunks, futures, strict=True))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await asyncio.gather(*futures)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: bulk.SYNC_ITEMS_MAX], self._waiting[bulk.SYNC_ITEMS_MAX :]
                done = await self._try([chunk for chunk, _ in batch])
                for (_, future), is_synced in zip(batch, done, strict=True):
                    if not future.done():
                        future.set_result(is_synced)
        finally:
            self._running = None

    async def _try(self, chunks: list[UnsyncedChunk]) -> list[bool]:
        try:
            return await self._core.in_thread(sync_chunks, self._core, chunks)
        except GfsError as error:
            log.debug("nothing is synced: %s", error.message)
            return [False] * len(chunks)
