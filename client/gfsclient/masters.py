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
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

from gfsclient.links import Dial, Links, Observer, backoff_seconds
from gfsclient.user import Acting, User
from gfsprotocol import messages, rpc
from gfsprotocol.errors import (
    AvailabilityError,
    Busy,
    CallForgotten,
    ConnectionLost,
    GfsError,
    NotLeader,
    SafeMode,
    Unreachable,
    WireError,
    from_wire,
)
from gfsprotocol.ids import ClientId
from gfsprotocol.messages import Call, ErrorReply, KeepAlive, ReplyBody, RequestBody, Response

SILENT_SECONDS: Final = 3.0
"""A leader silent for so long while we wait for answers is left for another."""
DOUBT_SECONDS: Final = 0.4
"""After so long without any answer the others are asked whether one of them leads by now."""
TICK_SECONDS: Final = 0.2
KEEP_ALIVE_SECONDS: Final = 20.0
STANDBY_SECONDS: Final = 1.5
"""How long a standby may take to answer a read before the leader is asked."""
STANDBY_PAUSE_SECONDS: Final = 1.0
"""For how long standbys are not asked after one was of no use."""
REMEMBERED_SECONDS: Final = 3600.0
"""For so long after its last call a client is known to the masters; no call's deadline is longer."""

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
        messages.MakeNode,
        messages.Hold,
    }
)
"""What changes the namespace and therefore carries a call number."""

READS: Final = frozenset(
    {
        messages.Stat,
        messages.List,
        messages.ReadLink,
        messages.GetXattr,
        messages.ListXattrs,
        messages.ListTrash,
        messages.ListOpen,
        messages.CheckAccess,
        messages.Locate,
        messages.LocateFiles,
        messages.StatSpace,
    }
)
"""What a standby answers as well as the leader."""

_Reply = TypeVar("_Reply")


class ChangeObserver(Protocol):
    """Who has to know what this client changes: the leader tells a client nothing of its own changes."""

    def sent(self, body: RequestBody) -> None:
        """This is about to be asked for."""

    def answered(self, body: RequestBody) -> None:
        """It was answered, or given up. Called before whoever asked goes on."""


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
        read_from_standby: bool = False,
        randomness: random.Random | None = None,
    ) -> None:
        """``dial`` opens a channel to an address; the default is a WebSocket. ``randomness`` spreads retries and load.

        ``read_from_standby``: reads go to a standby, which never answers from before our own last write, nor from
        before what we have read already.
        """
        self.client = client or ClientId(secrets.token_bytes(16))
        self.user = user
        self.deadline_seconds = deadline_seconds
        self.sequence = 0
        """The highest log sequence seen in an answer: nothing older is accepted afterwards."""
        self.detours = 0
        """How many calls were not answered at the first attempt: the others are done in the order they were made in."""
        self._writers = 0
        self._links = Links(addresses, self.client, key, user, dial, randomness)
        self._read_from_standby = read_from_standby
        self._no_standby_until = -math.inf
        self._search: asyncio.Task[None] | None = None
        self._next_number = 1
        self._floor = 1
        self._open_numbers: set[int] = set()
        self._succeeded_at = -math.inf
        """When a mutation of ours succeeded last."""
        self._in_flight = 0
        self._housekeeper: asyncio.Task[None] | None = None
        self._closed = False
        self.change_observer: ChangeObserver | None = None

    # ------------------------------------------------------------------------------------------------------- calls

    @property
    def addresses(self) -> tuple[str, ...]:
        """As they were given."""
        return self._links.addresses

    async def call(
        self,
        body: RequestBody,
        deadline_seconds: float | None = None,
        at_leader: bool = False,
        user: User | None = None,
        confined: tuple[bytes, ...] = (),
    ) -> ReplyBody:
        """The leader's answer to ``body``, or a standby's if it is a read and reads may go there.

        ``user`` is in whose name it is asked, if not in that of the client; ``confined`` as in the request. Raises the
        error that it answers; after ``deadline_seconds`` Unreachable, DeadlineExceeded, SafeMode or Busy.
        """
        acting = Acting(self.user if user is None else user, confined)
        number = self._begin() if type(body) in MUTATIONS else 0
        if number and self.change_observer is not None:
            self.change_observer.sent(body)
        self._in_flight += 1
        try:
            seconds = self.deadline_seconds if deadline_seconds is None else deadline_seconds
            deadline = asyncio.get_running_loop().time() + seconds
            if self._read_from_standby and not self._links.is_watched and not at_leader and type(body) in READS:
                reply = await self._ask_standby(body, acting, min(seconds, STANDBY_SECONDS))
                if reply is not None:
                    return reply
            leader = self._links.leader
            if leader is None or leader.is_lost:
                return await self._call_patiently(body, acting, number, deadline, None)
            try:
                return await self._ask(leader, body, acting, number, seconds, False)
            except AvailabilityError as error:
                if not _is_retried(error):
                    raise
                self.note(leader, error)
                return await self._call_patiently(body, acting, number, deadline, error)
        finally:
            self._in_flight -= 1
            if number:
                self._open_numbers.discard(number)
                if self.change_observer is not None:
                    self.change_observer.answered(body)

    async def expect(
        self,
        body: RequestBody,
        kind: type[_Reply],
        deadline_seconds: float | None = None,
        at_leader: bool = False,
        user: User | None = None,
    ) -> _Reply:
        """As :meth:`call`, for the reply that the protocol has for ``body``; WireError for any other."""
        reply = await self.call(body, deadline_seconds, at_leader, user)
        if not isinstance(reply, kind):
            raise WireError(f"the master answered {type(body).__name__} with {type(reply).__name__}")
        return reply

    async def _ask(
        self,
        leader: rpc.Peer,
        body: RequestBody,
        acting: Acting,
        number: int,
        seconds: float,
        retry: bool,
        unknown_is_new: bool = False,
    ) -> ReplyBody:
        call = Call(number, self._lowest_open(), retry, unknown_is_new) if number else None
        user, confined = acting
        reply = self._seen(await leader.submit(body, seconds, user, call, self.sequence, confined=confined))
        if number:
            self._succeeded_at = asyncio.get_running_loop().time()
        return reply

    async def _ask_standby(self, body: RequestBody, acting: Acting, seconds: float) -> ReplyBody | None:
        """A standby's answer; None if there is none that can give it, and the leader is to be asked."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._no_standby_until:
            return None
        standby = self._links.standby()
        if standby is None:
            return None
        try:
            user, confined = acting
            return self._seen(await standby.submit(body, seconds, user, None, self.sequence, True, confined))
        except AvailabilityError:
            self._no_standby_until = loop.time() + STANDBY_PAUSE_SECONDS
            return None

    def _seen(self, response: Response) -> ReplyBody:
        """The answer, or its error raised. What it reflects is what later answers have to reflect at least."""
        if response.sequence > self.sequence:
            self.sequence = response.sequence
        if isinstance(response.body, ErrorReply):
            raise from_wire(response.body.code, response.body.message, response.body.hint)
        return response.body

    async def _call_patiently(
        self,
        body: RequestBody,
        acting: Acting,
        number: int,
        deadline: float,
        first_error: AvailabilityError | None,
    ) -> ReplyBody:
        """Asks again and again, until the deadline."""
        self.detours += 1
        loop = asyncio.get_running_loop()
        last_error, attempt = first_error, 0
        retry, unknown_is_new = isinstance(first_error, ConnectionLost), False
        while True:
            leader = await self._find_leader(deadline - loop.time(), last_error)
            try:
                seconds = max(0.0, deadline - loop.time())
                return await self._ask(leader, body, acting, number, seconds, retry, unknown_is_new)
            except CallForgotten:
                if not retry or unknown_is_new or loop.time() - self._succeeded_at < REMEMBERED_SECONDS:
                    raise
                # Nothing that we did lately was logged, or the master would know us: so this call was not done either.
                unknown_is_new = True
            except AvailabilityError as error:
                if not _is_retried(error):
                    raise (last_error if isinstance(last_error, SafeMode | Busy) else error) from None
                # Other refusals are given before anything is done; a lost answer may be that of a call that was done.
                last_error, retry = error, retry or isinstance(error, ConnectionLost)
                self.note(leader, error)
                if deadline <= loop.time():
                    raise
                if not isinstance(error, ConnectionLost):
                    wait = backoff_seconds(attempt, randomness=self._links.randomness)
                    await asyncio.sleep(min(wait, max(0.0, deadline - loop.time())))
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

    def note(self, leader: rpc.Peer, error: GfsError) -> None:
        """``leader`` failed us: stop using it if it does not lead or cannot be reached."""
        if isinstance(error, NotLeader):
            self._links.hint(error.hint)
            self._links.demote(leader)
        elif isinstance(error, ConnectionLost):
            self._links.abandon(leader)

    def watch(self, observer: Observer | None) -> None:
        """From now on every leader is asked to watch for us before anything else is asked, and no standby is asked."""
        self._links.watch(observer)

    async def connect(self, deadline_seconds: float | None = None) -> None:
        """Finds the leader before the first call needs it. Raises what :meth:`call` raises if there is none."""
        self._in_flight += 1
        try:
            await self._find_leader(self.deadline_seconds if deadline_seconds is None else deadline_seconds, None)
        finally:
            self._in_flight -= 1

    async def _find_leader(self, seconds: float, last_error: AvailabilityError | None) -> rpc.Peer:
        """The leader, searched for by one task for all who wait; an error when ``seconds`` have passed."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                while True:
                    if self._closed:
                        raise ConnectionLost("the file system is closed")
                    leader = self._links.leader
                    if leader is not None and not leader.is_lost:
                        return leader
                    if self._search is None or self._search.done():
                        self._search = asyncio.create_task(self._search_leader())
                        self._search.add_done_callback(_retrieve)
                    if self._housekeeper is None:
                        self._housekeeper = asyncio.create_task(self._keep_house())
                    search = self._search
                    await asyncio.wait([search])  # which does not pass on that the search was cancelled, by close()
                    if not search.cancelled():
                        search.result()
        except TimeoutError as error:
            raise self._unreachable(last_error) from error

    def _unreachable(self, last_error: AvailabilityError | None) -> AvailabilityError:
        if isinstance(last_error, SafeMode | Busy):
            return last_error
        reasons = sorted(self._links.reasons.items())
        tried = "; ".join(reason if address in reason else f"{address}: {reason}" for address, reason in reasons)
        tried = tried or f"no answer from {', '.join(self.addresses)}"
        return Unreachable(f"no leading master could be reached ({tried})")

    async def _search_leader(self, besides: rpc.Peer | None = None) -> None:
        """Until one leads, or no call waits for one. A key or version that all refuse is final."""
        search = asyncio.create_task(self._links.search(besides))
        try:
            while self._in_flight:
                done, _ = await asyncio.wait({search}, timeout=TICK_SECONDS)
                if done:
                    search.result()
                    return
                if besides is not None and (besides.is_lost or not besides.quiet_seconds):
                    return  # it is gone, and another search begins; or it has answered after all
        finally:
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)

    # -------------------------------------------------------------------------------------------------- background

    async def _keep_house(self) -> None:
        """Tells the leader that we live while files are open, and notices a leader that has gone silent."""
        loop = asyncio.get_running_loop()
        kept_alive = loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            leader = self._links.leader
            is_due = bool(self._writers) and loop.time() - kept_alive >= KEEP_ALIVE_SECONDS
            if leader is None or leader.is_lost:
                if is_due and await self._is_found():  # by a KeepAlive
                    kept_alive = loop.time()
                continue
            if is_due:
                kept_alive = loop.time()
                leader.submit(KeepAlive(), SILENT_SECONDS, self.user).add_done_callback(_retrieve)
            if leader.quiet_seconds > SILENT_SECONDS:
                self._links.reasons = {leader.channel.peer: f"no answer in {SILENT_SECONDS:.0f} s"}
                self._links.abandon(leader)
            elif leader.quiet_seconds > DOUBT_SECONDS and (self._search is None or self._search.done()):
                # It may have stopped, or it is only slow: if another one leads by now, that one is asked instead.
                self._search = asyncio.create_task(self._search_leader(besides=leader))
                self._search.add_done_callback(_retrieve)

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
        for task in (self._housekeeper, self._search):
            if task is not None:
                await _stop(task)
        await self._links.close()


def _is_retried(error: AvailabilityError) -> bool:
    return isinstance(error, NotLeader | SafeMode | Busy | ConnectionLost)


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """Marks an outcome as seen, also if the last one who waited for it has given up."""
    if not task.cancelled():
        task.exception()


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
