"""The requests that change the namespace, as the leader answers them: each one exactly once.

Atomic between awaits: nothing here awaits, so ids and slots of a plan stay true until it is recorded.
"""

from collections.abc import Callable

from gfsmaster import operations as op
from gfsmaster.changes import Changes
from gfsmaster.chunk_requests import ChunkRequests
from gfsmaster.commits import Committer
from gfsmaster.lingering import Lingering
from gfsmaster.measures import Measures
from gfsmaster.places import Plan
from gfsmaster.planner import Planner
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import NamespaceError
from gfsprotocol.rpc import Peer


class NamespaceRequests:
    """Plans a request, and records what the leader makes of the plan."""

    def __init__(
        self,
        clock: Clock,
        state: State,
        planner: Planner,
        changes: Changes,
        chunks: ChunkRequests,
        lingering: Lingering,
        others_keep: Callable[[int, Peer], bool],
        committer: Committer,
        measures: Measures,
    ) -> None:
        """``others_keep`` says of an inode's slot whether a client other than the one named may have it open."""
        self._clock = clock
        self._state = state
        self._planner = planner
        self._changes = changes
        self._chunks = chunks
        self._lingering = lingering
        self._others_keep = others_keep
        self._committer = committer
        self._measures = measures

    def change(self, peer: Peer, request: msg.Request) -> None:
        """A namespace change, exactly once."""
        client = peer.hello.name
        result = self._changes.known_result(client, request.call)
        if result is None:
            result = self._plan_and_record(peer, request)
        if isinstance(result, msg.ErrorReply):
            self._measures.failures[type(request.body), result.code] += 1
        self._committer.reply(peer, request.id, result)

    def _plan_and_record(self, peer: Peer, request: msg.Request) -> msg.ReplyBody:
        client = peer.hello.name
        plan: Plan
        try:
            if isinstance(request.body, msg.Close | msg.RecordLength):
                self._chunks.check_lengths(request.body, client)
            plan = self._planner.plan(request.body, request.user, client, self._changes.now_ns())
        except NamespaceError as error:
            plan = msg.ErrorReply(error.code, error.message, error.hint)
        if isinstance(plan, tuple):
            return self._record(plan, peer, request)
        # Of a retry an earlier transmission may still be under way: when it comes it gets this answer too. And a client
        # that was told of a success relies on being known.
        is_success = not isinstance(plan, msg.ErrorReply)
        if (request.call is not None and request.call.retry) or (
            is_success and not self._state.sessions.is_fresh(client, self._changes.now_ns())
        ):
            return self._changes.record((op.Answered(plan),), client, request.call)
        return plan

    def _record(self, plan: op.Operations, peer: Peer, request: msg.Request) -> msg.ReplyBody:
        """Records a plan, with what the leader adds to it: a new file's first chunk, and removed files that linger."""
        body = request.body
        new = self._chunks.plan_first(plan) if isinstance(body, msg.Create) and body.allocate else None
        if new is not None:
            plan = (new.operation,)
        plan = self._lingering.keep(plan, lambda slot: self._others_keep(slot, peer), self._clock.monotonic())
        result = self._changes.record(plan, peer.hello.name, request.call)
        if new is not None:
            return self._chunks.lease_first(new, result)
        if isinstance(body, msg.Close):
            self._chunks.end_leases(body.inode)
        return result
