"""Leases on chunks: who may be written to, and whom to do without after a failure."""

import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from gfsclient.core import Core
from gfsclient.session import WriteSession
from gfsprotocol.bulksocket import OWN_FAULT
from gfsprotocol.errors import (
    Busy,
    ConnectionLost,
    DeadlineExceeded,
    GfsError,
    InvalidArgument,
    LeaseLost,
    NoSpace,
    RemoteProtocolError,
    ReplicaFailed,
    StaleHandle,
    TooFewServers,
    WritesLost,
)
from gfsprotocol.messages import AllocateChunk, Lease, RenewLease

LEASE_MARGIN: Final = 0.5
"""The share of a lease's time after which it is renewed."""
MASTER_SECONDS: Final = 5.0
"""How long one question for a lease may take before it is asked anew, within the stream's own deadline."""
DOUBT_SECONDS: Final = 3.0
"""After so long without any answer the master is asked what it knows of the chain."""
SAME_LEASE_MAX: Final = 2
"""After so many failures under one lease that name no culprit, the primary is taken for it."""


@dataclass(frozen=True, slots=True)
class FirstLease:
    """The lease on a file's first chunk that came with the file, and when that was asked for, in monotonic seconds."""

    lease: Lease
    asked: float


class ChunkLease:
    """The lease on one chunk of a file, and how to get the next one after a failure. One thread's at a time."""

    def __init__(
        self, core: Core, inode: int, index: int, may_replace: bool = True, first: FirstLease | None = None
    ) -> None:
        """``may_replace``: a new chunk whose servers fail may be exchanged, because no one else writes to it.

        ``first`` is a lease that came with the file.
        """
        self.current: Lease | None = None
        self.is_unused = False
        """Whether the chunk is new and no session on it was ever opened: then it can be exchanged for another."""
        self._core = core
        self._inode = inode
        self._may_replace = may_replace
        self._index = index
        self._ends = 0.0
        self._renew_at = 0.0
        self._broken = False
        self._forgiving = False
        self._failed: tuple[int, ...] = ()
        self.refused: set[int] = set()
        """Servers that may lack what was acknowledged and is not synced."""
        self._failures = 0
        self._renewal: Future[Lease] | None = None
        self._renewal_asked = 0.0
        if first is not None:
            self._take(first.lease, first.asked)

    @property
    def is_over(self) -> bool:
        """Whether there was a lease, and another one is needed."""
        return self.current is not None and (self._broken or time.monotonic() >= self._ends)

    def obtain(self, deadline: float) -> Lease:
        """A lease that should work, the running one if it is not known to be broken or over.

        After TooFewServers every other question forgives the servers that failed: they may be all there is.
        """
        lease = self.current
        if lease is not None and not self.is_over:
            return lease
        asked = time.monotonic()
        seconds = min(MASTER_SECONDS, max(0.1, deadline - asked))
        question = self._question(lease)
        try:
            self._take(self._core.call(question, Lease, seconds), asked)
        except TooFewServers:
            self._blame()
            self._forgiving = not self._forgiving
            raise
        except (InvalidArgument, StaleHandle):
            if not isinstance(question, AllocateChunk) or not question.replaced:
                raise
            # Someone else has written to the chunk meanwhile, or exchanged it: it is not ours alone.
            self.is_unused = False
            return self.obtain(deadline)
        assert self.current is not None
        return self.current

    def renew_early(self, at_once: bool = False) -> bool:
        """Looks after the running lease without waiting; whether a newer token has come, to be used from now on.

        A lease is renewed in the middle of its time, or ``at_once`` if there is reason to doubt it.
        """
        now = time.monotonic()
        if self._renewal is not None and self._renewal.done():
            renewal, self._renewal = self._renewal, None
            if renewal.exception() is None:
                lease = renewal.result()
                if self.current is not None and lease.grant.version >= self.current.grant.version:
                    self._take(lease, self._renewal_asked)
                    return True
            return False
        is_due = now > self._renew_at or (at_once and now - self._renewal_asked > DOUBT_SECONDS)
        if is_due and self._renewal is None and self.current is not None:
            grant = self.current.grant
            self._renewal_asked = now
            self._renew_at = max(self._renew_at, now + MASTER_SECONDS)
            body = RenewLease(self._inode, self._index, grant.chunk, grant.version)
            self._renewal = self._core.submit(body, Lease, MASTER_SECONDS)
        return False

    def watch(self, session: WriteSession) -> None:
        """To be called now and then while ``session`` waits for an answer.

        DeadlineExceeded if none can be expected any more; LeaseLost if the master knows of a member that is gone, and
        has given a lease without it. That is sooner than the long time which a sync on a slow disk may take.
        """
        session.check()
        if session.quiet_seconds > DOUBT_SECONDS and self.renew_early(at_once=True):
            assert self.current is not None
            if self.current.grant.version > session.lease.grant.version:
                raise LeaseLost("a member of the chain is gone")

    def failed(self, lease: Lease, error: GfsError, was_connected: bool) -> None:
        """A session under ``lease`` ended with ``error``, or could not be begun."""
        if self.current is None or lease.grant.version < self.current.grant.version:
            return
        if isinstance(error, Busy) and error.hint == OWN_FAULT:
            return
        if isinstance(error, WritesLost):
            # No one's fault any more; a server that comes back, or failed before, may be in the next lease.
            self._broken = True
            return
        self._failures += 1
        if self._failures == 1 and was_connected and isinstance(error, ConnectionLost):
            return  # a connection may break without anyone's fault: the primary shows that it lives by the next one
        self._broken = True
        culprit = self._culprit(lease, error)
        if culprit is None and self._failures > SAME_LEASE_MAX:
            culprit = lease.grant.members[0].server
        if culprit is not None:
            self._failed = tuple(dict.fromkeys((*self._failed, culprit)))

    def opened(self) -> None:
        """A session was opened: from now on someone may have had something acknowledged on the chunk."""
        self.is_unused = False

    def worked(self) -> None:
        """Something was acknowledged under the running lease."""
        self._failures = 0
        self.refused.clear()

    def _blame(self) -> None:
        """New chunks had better avoid the servers that failed.

        Not before the master says that the chunk is still there: servers refuse writes to one that was removed.
        """
        for server in self._failed:
            self._core.servers.failed_write(server)

    @staticmethod
    def _culprit(lease: Lease, error: GfsError) -> int | None:
        members = {member.server for member in lease.grant.members}
        if error.hint.isdigit() and int(error.hint) in members:
            return int(error.hint)
        if isinstance(error, ConnectionLost | DeadlineExceeded | RemoteProtocolError | ReplicaFailed | NoSpace):
            return lease.grant.members[0].server
        return None

    def _question(self, lease: Lease | None) -> AllocateChunk | RenewLease:
        excluded = () if self._forgiving else tuple(dict.fromkeys((*self._core.servers.excluded(), *self._failed)))
        if lease is None:
            return AllocateChunk(self._inode, self._index, excluded)
        grant = lease.grant
        # Forgiving: there were too few replicas. Those of a new chunk may never have been made: its servers refuse the
        # grant of a leader that was replaced before they heard of it.
        if self.is_unused and (self._forgiving or (self._broken and self._failed)):
            return AllocateChunk(self._inode, self._index, excluded, grant.chunk)
        failed = () if self._forgiving else self._failed
        return RenewLease(self._inode, self._index, grant.chunk, grant.version, failed, tuple(self.refused))

    def _take(self, lease: Lease, asked: float) -> None:
        seconds = lease.valid_ms / 1000
        self._blame()
        if self.current is None or self.current.grant.chunk != lease.grant.chunk:
            self.is_unused = self._may_replace and lease.grant.is_first and lease.length == 0
        self.current = lease
        self._ends = asked + seconds
        self._renew_at = asked + seconds * LEASE_MARGIN
        self._broken = False
        self._failed = ()
        self._forgiving = False
        self._renewal = None
        self._core.servers.learn(lease.grant.members)
