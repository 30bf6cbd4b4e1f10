"""The order of mutations on one chunk under one grant, over however many connections they come (GFS §3.1).

The primary assigns serials; every replica applies in their order. Once a serial is given, everything that keeps it from
being applied breaks the chunk under this grant: all sessions end with the same error, and only a newer version helps.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Final, TypeVar

from gfschunkserver.replica import Replica
from gfsprotocol.bulk import Ack
from gfsprotocol.errors import AvailabilityError, Busy, GfsError, LeaseLost, ReplicaFailed, Unreachable
from gfsprotocol.messages import Grant

HOP_SECONDS: Final = 4.0
HOP_SECONDS_PER_MEMBER: Final = 2.0
SYNC_SECONDS: Final = 30.0
RECORDS_REMEMBERED_MAX: Final = 128
"""Of each client: more than it can have under way, in a session that broke and the one after it."""
CLIENTS_REMEMBERED_MAX: Final = 512
CLOSE_SECONDS: Final = 30.0

_Result = TypeVar("_Result")


class AppendSlot:
    """One append of one client: pending, and then for ever the same answer."""

    __slots__ = ("answer", "is_refused")

    def __init__(self) -> None:
        self.answer: Ack | None = None
        self.is_refused = False
        """Whether it did not fit, and so will never have an answer."""


class Chain:
    """One member's view of a chunk under one grant version. Safe for threads."""

    def __init__(self, replica: Replica, grant: Grant) -> None:
        self.replica = replica
        self.grant = grant
        self.version = grant.version
        self.members = grant.members
        self.sessions = 0
        """Write sessions that are open here; protected by :class:`Chains`."""
        self._turn = threading.Condition()
        self._assigned = 0
        self._applied = 0
        self._running = False
        self._assigned_length = replica.length
        self._broken: GfsError | None = None
        self._confirmation: Future[None] | None = None
        self._confirmed = grant.is_first
        """Whether the log has the version; the first one came into the log with the chunk."""
        self._slots: OrderedDict[bytes, OrderedDict[int, AppendSlot]] = OrderedDict()
        """By client and record; who was not heard of for the longest time is forgotten first."""

    # ------------------------------------------------------------------------------------------------- breaking

    @property
    def broken(self) -> GfsError | None:
        """Why no mutation can be accepted under this grant any more."""
        return self._broken

    def check(self) -> None:
        """Raises what broke the chain."""
        if self._broken is not None:
            raise _again(self._broken)

    def check_version(self) -> None:
        """LeaseLost if a newer grant has the replica by now."""
        if self.replica.version != self.version:
            raise LeaseLost(f"chunk {self.replica.chunk:x} has version {self.replica.version} by now")

    def break_(self, error: GfsError) -> None:
        """Only the first reason counts."""
        with self._turn:
            if self._broken is None:
                self._broken = error
                self._turn.notify_all()

    def close(self, error: GfsError) -> bool:
        """Breaks the chain and waits until a mutation that is being applied is through; False if it does not end."""
        self.break_(error)
        with self._turn:
            return self._turn.wait_for(lambda: not self._running, CLOSE_SECONDS)

    # ------------------------------------------------------------------------------------------------ the primary

    def assign_write(self, end: int) -> int:
        """The serial of a mutation after which the chunk is at least ``end`` bytes long."""
        with self._turn:
            self.check()
            return self._assign(max(self._assigned_length, end))

    def assign_cut(self, length: int) -> int:
        """The serial of a cut."""
        with self._turn:
            self.check()
            return self._assign(length)

    def assign_append(self, count: int) -> tuple[int, int] | None:
        """(serial, offset) of an append; None if it does not fit: the chunk is to be padded then."""
        with self._turn:
            self.check()
            offset = self._assigned_length
            if offset + count > self.replica.state.chunk_bytes:
                return None
            return self._assign(offset + count), offset

    def assign_padding(self) -> int:
        """The serial of the cut that fills the chunk; 0 if it is full already."""
        with self._turn:
            self.check()
            capacity = self.replica.state.chunk_bytes
            return self._assign(capacity) if self._assigned_length < capacity else 0

    def _assign(self, length: int) -> int:
        self._assigned_length = length
        self._assigned += 1
        return self._assigned

    def claim(self, client: bytes, record: int) -> tuple[AppendSlot, bool]:
        """The slot of a client's append, and whether it is new: only then is it to be done."""
        with self._turn:
            slots = self._slots.setdefault(client, OrderedDict())
            self._slots.move_to_end(client)
            slot = slots.get(record)
            if slot is not None:
                return slot, False
            slot = slots[record] = AppendSlot()
            if len(slots) > RECORDS_REMEMBERED_MAX:
                slots.popitem(last=False)
            if len(self._slots) > CLIENTS_REMEMBERED_MAX:
                self._slots.popitem(last=False)
            return slot, True

    def give_up(self, client: bytes, record: int) -> None:
        """The append was refused with no serial given; it may be tried again."""
        with self._turn:
            slot = self._slots.get(client, OrderedDict[int, AppendSlot]()).pop(record, None)
            if slot is not None:
                slot.is_refused = True

    def begin_confirmation(self, confirm: Callable[[], Future[None]]) -> None:
        """All members have the version: has the leader log it, unless that was done, or is being done."""
        with self._turn:
            if not self._confirmed and self._confirmation is None:
                self._confirmation = confirm()

    def wait_confirmed(self, seconds: float) -> None:
        """Returns when the log has the version: nothing is acknowledged before. A refusal breaks the chain.

        If no leader answers, that is Unreachable, and the next session asks again.
        """
        if self._confirmed:
            return
        confirmation = self._confirmation
        unreachable = f"version {self.version} of chunk {self.replica.chunk:x} is not confirmed: no leader answers"
        if confirmation is None:
            raise Unreachable(unreachable)
        try:
            confirmation.result(seconds)
        except (AvailabilityError, TimeoutError, CancelledError) as error:
            with self._turn:
                if self._confirmation is confirmation:
                    self._confirmation = None
            raise Unreachable(unreachable) from error
        except GfsError as error:
            self.break_(error)
            raise _again(error) from error
        self._confirmed = True

    # -------------------------------------------------------------------------------------------------- all members

    def apply(self, serial: int, seconds: float, action: Callable[[], _Result]) -> _Result:
        """Runs ``action`` when all serials before have been applied. Whatever it raises breaks the chain."""
        with self._turn:
            deadline = time.monotonic() + seconds
            while self._applied != serial - 1:
                self.check()
                if serial <= self._applied:
                    raise self._break_inside(ReplicaFailed(f"serial {serial} came twice", str(self.members[0].server)))
                if not self._turn.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise self._break_inside(
                        LeaseLost(f"the mutation before serial {serial} of chunk {self.replica.chunk:x} did not come")
                    )
            self.check()
            self._running = True
        try:
            result = action()
        except GfsError as error:
            self._finish(error)
            raise
        except BaseException as error:
            self._finish(ReplicaFailed(f"internal error: {type(error).__name__}: {error}"))
            raise
        self._finish(None)
        return result

    def _finish(self, error: GfsError | None) -> None:
        with self._turn:
            self._running = False
            if error is None:
                self._applied += 1
            elif self._broken is None:
                self._broken = error
            self._turn.notify_all()

    def _break_inside(self, error: GfsError) -> GfsError:
        if self._broken is None:
            self._broken = error
            self._turn.notify_all()
        return error


class _Opening:
    """The lock of one chunk's opening, and how many hold it or wait for it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class Chains:
    """The chains of all chunks that are being written here: at most one each, the one of the newest grant."""

    def __init__(self) -> None:
        self._chains: dict[int, Chain] = {}
        self._promised: dict[int, Grant] = {}
        self._opening: dict[int, _Opening] = {}
        self._lock = threading.Lock()

    def get(self, grant: Grant) -> Chain | None:
        """The running chain of this very grant."""
        with self._lock:
            chain = self._chains.get(grant.chunk)
        if chain is None or chain.version != grant.version or chain.members != grant.members:
            return None
        return chain

    def promise(self, grant: Grant) -> None:
        """From now on only this version and later ones are prepared. LeaseLost if a later one was promised."""
        with self._lock:
            self._refuse_older(grant)
            self._promised[grant.chunk] = grant

    def start(self, replica: Replica, grant: Grant) -> Chain:
        """The chain of a grant that all is prepared for; the one before it ends."""
        with self._lock:
            self._refuse_older(grant)
            old = self._chains.get(grant.chunk)
            chain = self._chains[grant.chunk] = Chain(replica, grant)
        if old is not None:
            old.break_(LeaseLost(f"a newer grant for chunk {grant.chunk:x} has taken over"))
        return chain

    def end(self, chunk: int, error: GfsError) -> bool:
        """Breaks the running chain, if there is one; whether nothing is being applied any more."""
        with self._lock:
            chain = self._chains.get(chunk)
        return chain is None or chain.close(error)

    def is_open(self, chunk: int) -> bool:
        """Whether a write session is running on the chunk."""
        with self._lock:
            chain = self._chains.get(chunk)
            return chain is not None and chain.sessions > 0

    def freeze(self, chunk: int, is_over: Callable[[Grant], bool]) -> None:
        """From now on nothing is written under the version that the chunk has here. Busy while it is being written.

        Without a chain nothing is either: a session that finds none is refused, or begins another version.
        """
        with self._lock:
            chain = self._chains.get(chunk)
            is_written = chain is not None and chain.sessions > 0
        if chain is None:
            return
        if is_written and not is_over(chain.grant):
            raise Busy(f"chunk {chunk:x} is being written here")
        if not chain.close(LeaseLost(f"chunk {chunk:x} is copied to another server: its lease has ended")):
            raise Busy(f"a mutation of chunk {chunk:x} does not end")

    def enter(self, chain: Chain, grant: Grant) -> None:
        """A session begins; its grant may hold longer than the one before."""
        with self._lock:
            chain.sessions += 1
            if grant.expires_ms > chain.grant.expires_ms:
                chain.grant = grant

    def leave(self, chain: Chain) -> None:
        """A session has ended."""
        with self._lock:
            chain.sessions -= 1

    def forget(self, chunk: int) -> None:
        """The replica is gone."""
        with self._lock:
            chain = self._chains.pop(chunk, None)
            self._promised.pop(chunk, None)
        if chain is not None:
            chain.break_(LeaseLost(f"the replica of chunk {chunk:x} is gone"))

    @contextmanager
    def opening(self, chunk: int) -> Iterator[None]:
        """Held by the session that prepares a grant for the chunk; the others find its chain then."""
        with self._lock:
            opening = self._opening.setdefault(chunk, _Opening())
            opening.users += 1
        try:
            with opening.lock:
                yield
        finally:
            with self._lock:
                opening.users -= 1
                if not opening.users:
                    del self._opening[chunk]

    def expire(self, is_over: Callable[[Grant], bool]) -> None:
        """Forgets chains without sessions whose grants are over, and promises, so that they do not gather."""
        with self._lock:
            for chunk in [
                chunk for chunk, chain in self._chains.items() if not chain.sessions and is_over(chain.grant)
            ]:
                del self._chains[chunk]
            for chunk in [
                chunk for chunk, grant in self._promised.items() if chunk not in self._chains and is_over(grant)
            ]:
                del self._promised[chunk]

    def _refuse_older(self, grant: Grant) -> None:
        chain = self._chains.get(grant.chunk)
        promised = self._promised.get(grant.chunk)
        newest = max(promised.version if promised is not None else 0, chain.version if chain is not None else 0)
        if grant.version < newest:
            raise LeaseLost(f"version {grant.version} of chunk {grant.chunk:x} is over: version {newest} has begun")


def _again(error: GfsError) -> GfsError:
    """The same error for another thread: one exception object must not be raised in two."""
    return type(error)(error.message, error.hint)


def hop_seconds(members: int, position: int) -> float:
    """How long a member waits for the one behind it: the shorter the fewer members are behind.

    So the neighbour of a hung member gives up first, and names it.
    """
    return HOP_SECONDS + HOP_SECONDS_PER_MEMBER * (members - 2 - position)
