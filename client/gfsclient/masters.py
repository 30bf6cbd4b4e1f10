"""Finds the leading master, follows it through failovers, and makes each mutation exactly once.

Whatever happens to masters, a call ends in its answer, in a deterministic error, or, when its deadline has passed, in
an :class:`~gfsprotocol.errors.AvailabilityError` that says what was tried. A mutation keeps its number through all
retries, so that a master which has already carried it out answers with the first result (RIFL, SOSP'15; HDFS's retry
cache).

Belongs to one event loop; atomic between awaits: numbering, choice of the leader, counting.
"""

import asyncio
import math
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import aiohttp

from gfsclient.user import User
from gfsprotocol import messages, network, rpc
from gfsprotocol.channel import Channel
from gfsprotocol.errors import (
    AuthenticationFailed,
    AvailabilityError,
    Busy,
    CallForgotten,
    ConnectionLost,
    DeadlineExceeded,
    GfsError,
    NotLeader,
    SafeMode,
    Unreachable,
    VersionMismatch,
    WireError,
    from_wire,
)
from gfsprotocol.ids import ClientId
from gfsprotocol.messages import Call, ErrorReply, KeepAlive, ReplyBody, RequestBody

CONNECT_SECONDS: Final = 2.0
PROBE_SECONDS: Final = 3.0
"""A leader silent for so long while we wait for answers is left for another."""
TICK_SECONDS: Final = 2.0
KEEP_ALIVE_SECONDS: Final = 20.0
GOODBYE_SECONDS: Final = 1.0
ROUND_SECONDS_MIN: Final = 1.0
ROUND_SECONDS_MAX: Final = 10.0
"""How long one round of asking all masters waits for those that do not answer: a stopped one delays no failover."""
REMEMBERED_SECONDS: Final = 3600.0
"""For so long after its last call a client is known to the masters; no call's deadline is longer."""
BACKOFF_SECONDS_MIN: Final = 0.02
BACKOFF_SECONDS_MAX: Final = 1.0

MUTATIONS: Final = frozenset(
    {
        messages.Mkdir,
        messages.Create,
        messages.OpenForWrite,
        messages.Close,
        messages.RecordLength,
        messages.Publish,
        messages.Rename,
        messages.Unlink,
        messages.Rmdir,
        messages.RemoveTree,
        messages.MoveToTrash,
        messages.Link,
        messages.Symlink,
        messages.SetAttributes,
        messages.SetReplication,
        messages.SetXattr,
        messages.RemoveXattr,
        messages.RestoreTrash,
        messages.EmptyTrash,
        messages.AllocateChunk,
    }
)
"""What changes the namespace and therefore carries a call number."""

Dial = Callable[[str], Awaitable[Channel]]
_Reply = TypeVar("_Reply")


def backoff_seconds(attempt: int, least: float = BACKOFF_SECONDS_MIN, most: float = BACKOFF_SECONDS_MAX) -> float:
    """How long to wait before retry number ``attempt`` (from 0): exponential, with full jitter on its upper half."""
    full: float = min(most, least * 2 ** min(attempt, 16))
    return full * random.uniform(0.5, 1.0)  # noqa: S311


class Masters:
    """All masters of a cluster, seen as one."""

    def __init__(
        self,
        addresses: Sequence[str],
        key: bytes,
        user: User,
        deadline_seconds: float = 60.0,
        client: ClientId | None = None,
        dial: Dial | None = None,
    ) -> None:
        """``dial`` opens a channel to an address; the default is a WebSocket."""
        self.addresses = tuple(dict.fromkeys(addresses))
        self.client = client or ClientId(secrets.token_bytes(16))
        self.user = user
        self.deadline_seconds = deadline_seconds
        self.sequence = 0
        """The highest log sequence seen in an answer: nothing older is accepted afterwards."""
        self._writers = 0
        self._key = key
        self._dial = dial or self._dial_websocket
        self._session: aiohttp.ClientSession | None = None
        self._leader: rpc.Peer | None = None
        self._leader_task: asyncio.Task[None] | None = None
        self._hint = ""
        self._search: asyncio.Task[None] | None = None
        self._reasons: dict[str, str] = {}
        self._next_number = 1
        self._floor = 1
        self._open_numbers: set[int] = set()
        self._succeeded_at = -math.inf
        """When a mutation of ours succeeded last."""
        self._in_flight = 0
        self._housekeeper: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    # ------------------------------------------------------------------------------------------------------- calls

    async def call(self, body: RequestBody, deadline_seconds: float | None = None) -> ReplyBody:
        """The leader's answer to ``body``.

        Raises the error that it answers; after ``deadline_seconds`` Unreachable, DeadlineExceeded, SafeMode or Busy.
        """
        number = self._begin() if type(body) in MUTATIONS else 0
        self._in_flight += 1
        try:
            seconds = self.deadline_seconds if deadline_seconds is None else deadline_seconds
            deadline = asyncio.get_running_loop().time() + seconds
            leader = self._leader
            if leader is None or leader.is_lost:
                return await self._call_patiently(body, number, deadline, None)
            try:
                return await self._ask(leader, body, number, seconds, False)
            except AvailabilityError as error:
                if not _is_retried(error):
                    raise
                self._note(leader, error)
                return await self._call_patiently(body, number, deadline, error)
        finally:
            self._in_flight -= 1
            if number:
                self._open_numbers.discard(number)

    async def expect(self, body: RequestBody, kind: type[_Reply], deadline_seconds: float | None = None) -> _Reply:
        """As :meth:`call`, for the reply that the protocol has for ``body``; WireError for any other."""
        reply = await self.call(body, deadline_seconds)
        if not isinstance(reply, kind):
            raise WireError(f"the master answered {type(body).__name__} with {type(reply).__name__}")
        return reply

    async def _ask(self, leader: rpc.Peer, body: RequestBody, number: int, seconds: float, retry: bool) -> ReplyBody:
        call = Call(number, self._lowest_open(), retry) if number else None
        response = await leader.submit(body, seconds, self.user, call, self.sequence)
        if response.sequence > self.sequence:
            self.sequence = response.sequence
        reply = response.body
        if isinstance(reply, ErrorReply):
            raise from_wire(reply.code, reply.message, reply.hint)
        if number:
            self._succeeded_at = asyncio.get_running_loop().time()
        return reply

    async def _call_patiently(
        self, body: RequestBody, number: int, deadline: float, first_error: AvailabilityError | None
    ) -> ReplyBody:
        """Asks again and again, until the deadline."""
        loop = asyncio.get_running_loop()
        last_error, attempt = first_error, 0
        retry = isinstance(first_error, ConnectionLost)
        while True:
            leader = await self._find_leader(deadline - loop.time(), last_error)
            try:
                return await self._ask(leader, body, number, max(0.0, deadline - loop.time()), retry)
            except CallForgotten:
                if not retry or loop.time() - self._succeeded_at < REMEMBERED_SECONDS:
                    raise
                # Nothing that we did lately was logged, or the master would know us: so this call was not done either.
                retry = False
            except AvailabilityError as error:
                if not _is_retried(error):
                    raise (last_error if isinstance(last_error, SafeMode | Busy) else error) from None
                # Other refusals are given before anything is done; a lost answer may be that of a call that was done.
                last_error, retry = error, retry or isinstance(error, ConnectionLost)
                self._note(leader, error)
                if deadline <= loop.time():
                    raise
                if not isinstance(error, ConnectionLost):
                    await asyncio.sleep(min(backoff_seconds(attempt), max(0.0, deadline - loop.time())))
                attempt = min(attempt + 1, 16)

    def count_writer(self, change: int) -> None:
        """So many more files are open for writing; while there are any, the leader is told that we live."""
        self._writers += change

    def _begin(self) -> int:
        number = self._next_number
        self._next_number += 1
        self._open_numbers.add(number)
        return number

    def _lowest_open(self) -> int:
        """The lowest number still unanswered: results of calls below it may be forgotten."""
        while self._floor < self._next_number and self._floor not in self._open_numbers:
            self._floor += 1
        return self._floor

    # ------------------------------------------------------------------------------------------------------ leader

    def _note(self, leader: rpc.Peer, error: AvailabilityError) -> None:
        """``leader`` failed us: stop using it if it does not lead or cannot be reached."""
        if isinstance(error, NotLeader):
            self._hint = error.hint
        if isinstance(error, NotLeader | ConnectionLost) and self._leader is leader:
            self._abandon()

    def _abandon(self) -> None:
        self._leader = None
        if self._leader_task is not None:
            self._leader_task.cancel()
            self._leader_task = None

    async def connect(self) -> None:
        """Finds the leader before the first call needs it. Raises what :meth:`call` raises if there is none."""
        self._in_flight += 1
        try:
            await self._find_leader(self.deadline_seconds, None)
        finally:
            self._in_flight -= 1

    async def _find_leader(self, seconds: float, last_error: AvailabilityError | None) -> rpc.Peer:
        """The leader, searched for by one task for all who wait; an error when ``seconds`` have passed."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                while True:
                    if self._closed:
                        raise ConnectionLost("the file system is closed")
                    leader = self._leader
                    if leader is not None and not leader.is_lost:
                        return leader
                    if self._search is None or self._search.done():
                        self._search = asyncio.create_task(self._search_leader())
                        self._search.add_done_callback(_retrieve)
                    search = self._search
                    await asyncio.wait([search])  # which does not pass on that the search was cancelled, by close()
                    if not search.cancelled():
                        search.result()
        except TimeoutError as error:
            raise self._unreachable(last_error) from error

    def _unreachable(self, last_error: AvailabilityError | None) -> AvailabilityError:
        if isinstance(last_error, SafeMode | Busy):
            return last_error
        tried = "; ".join(
            reason if address in reason else f"{address}: {reason}" for address, reason in sorted(self._reasons.items())
        )
        tried = tried or f"no answer from {', '.join(self.addresses)}"
        return Unreachable(f"no leading master could be reached ({tried})")

    async def _search_leader(self) -> None:
        """Rounds over all masters at once, until one leads or no call waits. A refused key or version is final."""
        self._abandon()
        attempt = 0
        while self._in_flight:
            addresses = list(dict.fromkeys((*filter(None, [self._hint]), *self.addresses)))
            self._hint = ""
            refusals = await self._round(addresses, min(ROUND_SECONDS_MIN * 1.5**attempt, ROUND_SECONDS_MAX))
            if self._leader is not None:
                return
            if refusals and len(refusals) == len(self._reasons):
                raise refusals[0]
            await asyncio.sleep(backoff_seconds(attempt))
            attempt = min(attempt + 1, 16)

    async def _round(self, addresses: list[str], seconds: float) -> list[GfsError]:
        """Asks each address whether it leads; the first that does becomes ours. The refusals that no retry changes."""
        tasks = {asyncio.create_task(self._probe(address)): address for address in addresses}
        reasons = dict.fromkeys(addresses, f"no answer in {seconds:.1f} s")
        refusals: list[GfsError] = []
        deadline = asyncio.get_running_loop().time() + seconds
        waiting = set(tasks)
        try:
            while waiting and self._leader is None:
                left = deadline - asyncio.get_running_loop().time()
                done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for task in done:
                    error = task.exception()
                    if isinstance(error, GfsError):
                        reasons[tasks[task]] = error.message
                        if isinstance(error, AuthenticationFailed | VersionMismatch):
                            refusals.append(error)
                        elif isinstance(error, NotLeader) and error.hint:
                            self._hint = error.hint
                    elif error is not None:
                        raise error
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        self._reasons = reasons
        return refusals

    async def _probe(self, address: str) -> None:
        """Connects, and makes the peer our leader if it says that it leads."""
        try:
            channel = await self._dial(address)
        except (OSError, ValueError) as error:
            raise ConnectionLost(str(error)) from error
        try:
            peer = await rpc.connect(channel, "client", self.client, self._key)
        except asyncio.CancelledError:
            self._in_background(channel.close())
            raise
        task = self._in_background(peer.run())
        try:
            await peer.call(KeepAlive(), PROBE_SECONDS, self.user)
        except BaseException:
            task.cancel()
            raise
        if self._leader is not None or self._closed:
            task.cancel()
            return
        self._leader, self._leader_task = peer, task
        if self._housekeeper is None:
            self._housekeeper = asyncio.create_task(self._keep_house())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs what no one may have to wait for: saying goodbye to a peer that has stopped takes its time."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _dial_websocket(self, address: str) -> Channel:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return await network.dial(self._session, address, CONNECT_SECONDS)

    # -------------------------------------------------------------------------------------------------- background

    async def _keep_house(self) -> None:
        """Tells the leader that we live while files are open, and notices a leader that has gone silent."""
        loop = asyncio.get_running_loop()
        kept_alive = loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            leader = self._leader
            is_due = bool(self._writers) and loop.time() - kept_alive >= KEEP_ALIVE_SECONDS
            if not (is_due or self._in_flight):
                continue
            if leader is None or leader.is_lost:
                if is_due and await self._is_found():  # by a KeepAlive
                    kept_alive = loop.time()
                continue
            try:
                await leader.call(KeepAlive(), PROBE_SECONDS, self.user)
                kept_alive = loop.time()
            except (NotLeader, ConnectionLost, DeadlineExceeded) as error:
                if self._leader is leader:
                    self._reasons = {leader.channel.peer: error.message}
                    self._abandon()
            except GfsError as error:
                self._reasons = {leader.channel.peer: error.message}

    async def _is_found(self) -> bool:
        """Looks for a leader though no call waits for one."""
        try:
            await self.connect()
        except GfsError:
            return False
        return True

    async def close(self) -> None:
        """Ends the connections; calls still waiting fail with ConnectionLost."""
        self._closed = True
        self._leader = None
        for task in (self._housekeeper, self._search):
            if task is not None:
                await _stop(task)
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=GOODBYE_SECONDS)
        if self._session is not None:
            await self._session.close()


def _is_retried(error: AvailabilityError) -> bool:
    return isinstance(error, NotLeader | SafeMode | Busy | ConnectionLost)


def _retrieve(task: "asyncio.Task[None]") -> None:
    """Marks the outcome of a search as seen, also if the last one who waited for it has given up."""
    if not task.cancelled():
        task.exception()


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
