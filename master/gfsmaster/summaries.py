"""Totals of subtrees: the one question that takes long, so it is answered in slices, and few at a time."""

import asyncio
import stat
from collections.abc import Callable
from typing import Final

from gfsmaster.commits import Committer
from gfsmaster.measures import Measures
from gfsmaster.namespace import READ, SEARCH, Namespace, User, shown
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import Busy, GfsError, PermissionDenied
from gfsprotocol.rpc import Peer

SUMMARY_ENTRIES: Final = 5000
SUMMARIES_MAX: Final = 16


class Summaries:
    """Answers Summarize. Others get their turn between the slices; nothing holds on to a slot across them."""

    def __init__(self, state: State, namespace: Namespace, committer: Committer, measures: Measures) -> None:
        self._state = state
        self._namespace = namespace
        self._committer = committer
        self._measures = measures
        self._tasks: set[asyncio.Task[None]] = set()

    def summarize(self, peer: Peer, request: msg.Request, body: msg.Summarize) -> None:
        if len(self._tasks) >= SUMMARIES_MAX:
            raise Busy(f"{SUMMARIES_MAX} summaries are being made already")
        slot = self._namespace.find(request.user, body.base, body.path)
        summarizer = Summarizer(self._state, request.user, slot, self._namespace.allowed)
        task = asyncio.create_task(self._run(peer, request.id, summarizer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, peer: Peer, request_id: int, summarizer: "Summarizer") -> None:
        try:
            while summarizer.step(SUMMARY_ENTRIES):  # noqa: ASYNC110 - others get their turn between the slices
                await asyncio.sleep(0)
        except GfsError as error:
            self._measures.failures[msg.Summarize, error.code] += 1
            peer.respond_error(request_id, error)
            return
        self._committer.reply(peer, request_id, summarizer.summary())

    def end(self) -> None:
        """Who waits for one asks the next leader."""
        for task in self._tasks:
            task.cancel()


class Summarizer:
    """Totals of a subtree, in slices, so that a large one holds nobody up. The tree may change meanwhile."""

    def __init__(self, state: State, user: User, slot: int, allowed: Callable[[int, User, int], bool]) -> None:
        self._inodes = state.inodes
        self._user = user
        self._allowed = allowed
        self._waiting: list[tuple[int, bytes]] = []
        self._linked: set[int] = set()
        self.files = self.directories = self.bytes = self.stored_bytes = 0
        self._count(slot)

    def _count(self, slot: int) -> None:
        inodes = self._inodes
        if slot in inodes.directories:
            self.directories += 1
            self._waiting.append((inodes.ids[slot], b""))
            return
        if inodes.links[slot] > 1:
            if slot in self._linked:
                return
            self._linked.add(slot)
        self.files += 1
        if stat.S_ISREG(inodes.mode[slot]):
            self.bytes += inodes.size[slot]
            self.stored_bytes += inodes.size[slot] * inodes.replication(slot)

    def step(self, entries: int) -> bool:
        """Counts up to ``entries`` more entries; False when all are counted. PermissionDenied as ``du`` has it."""
        while self._waiting and entries > 0:
            inode, after = self._waiting.pop()
            slot = self._inodes.slot_of(inode)
            directory = self._inodes.directories.get(slot)
            if directory is None:
                continue
            if not self._allowed(slot, self._user, READ | SEARCH):
                raise PermissionDenied(f"{shown(self._inodes.path_of(slot))}: permission denied")
            page = directory.page(after, entries)
            if len(page) == entries:
                self._waiting.append((inode, page[-1][0]))
            entries -= len(page)
            for _, child in page:
                self._count(child)
        return bool(self._waiting)

    def summary(self) -> msg.Summary:
        return msg.Summary(self.files, self.directories, self.bytes, self.stored_bytes)
