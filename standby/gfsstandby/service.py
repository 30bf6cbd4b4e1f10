"""What a standby answers: chunk servers' reports, its status, and reads that ask for no more than it has applied."""

from dataclasses import dataclass
from typing import Final

from gfsmaster.config import MasterConfig
from gfsmaster.measures import Measures
from gfsmaster.namespace import Namespace
from gfsmaster.planner import check_user
from gfsmaster.queries import Queries
from gfsmaster.state import State
from gfsmaster.term import Term
from gfsprotocol import messages as msg
from gfsprotocol.channel import Clock
from gfsprotocol.errors import GfsError, NotLeader, SafeMode
from gfsprotocol.rpc import Peer
from gfsstandby.follower import Follower
from gfsstandby.tailing import Tailing

PARKED_MAX: Final = 4096
PARKED_SECONDS: Final = 0.5
"""How long a read waits for what it must see, before the reader is sent to the leader."""


@dataclass(slots=True)
class _Parked:
    peer: Peer
    request: msg.Request
    until: float


class StandbyService:
    """An rpc.Service over a follower. Nothing here awaits."""

    def __init__(
        self,
        config: MasterConfig,
        clock: Clock,
        token_key: bytes,
        follower: Follower,
        tailing: Tailing,
        measures: Measures,
    ) -> None:
        self._measures = measures
        self._config = config
        self._clock = clock
        self._token_key = token_key
        self._follower = follower
        self._tailing = tailing
        self.epoch = 0
        """The leader's epoch, as the log says."""
        self.leader = ""
        """The leader's address."""
        self.ended_epoch = 0
        """The last epoch that this node has led; it answers nothing as its leader any more."""
        self._started = clock.monotonic()
        self._parked: list[_Parked] = []
        self._namespace = Namespace(follower.state)
        self._queries: Queries | None = None
        self._queried: State | None = None
        follower.on_applied = self._release

    def handle(self, peer: Peer, request: msg.Request) -> None:
        """Answers, parks the request, or raises what the answer is to be."""
        match request.body:
            case msg.ClusterStatus():
                peer.respond(request.id, self.status(), self._follower.state.sequence)
            case msg.Register():
                self._register(peer, request, request.body)
            case msg.Heartbeat():
                server = self._follower.registry.heartbeat(peer, request.body)
                peer.respond(request.id, msg.Orders(0, 0, (), report_again=server is None))
            case msg.ChunkReport():
                self._follower.registry.report(request.body)
                peer.respond(request.id, msg.Done())
            case msg.TailLog() if self.ended_epoch and peer.hello.role == "master":
                peer.respond(request.id, msg.EpochEnded(self.ended_epoch))
            case _:
                if not request.at_standby or not self._follower.is_ready:
                    raise NotLeader(f"{self._config.node} is a standby", hint=self.leader)
                self._read(peer, request)

    def disconnected(self, peer: Peer) -> None:
        """A connection ended."""
        self._follower.registry.disconnected(peer)
        self._parked = [parked for parked in self._parked if parked.peer is not peer]

    def tick(self) -> None:
        """To be called often: reads that have waited too long are sent to the leader."""
        now = self._clock.monotonic()
        late = [parked for parked in self._parked if parked.until <= now]
        if late:
            self._parked = [parked for parked in self._parked if parked.until > now]
        for parked in late:
            self._refuse(parked.peer, parked.request, self._behind())

    def end(self) -> None:
        """This node is no standby any more, or one with another state: who waits is to ask again."""
        parked, self._parked = self._parked, []
        for waiting in parked:
            self._refuse(waiting.peer, waiting.request, self._behind())

    def status(self) -> msg.Status:
        state = self._follower.state
        return msg.Status(
            cluster=state.cluster,
            node=self._config.node,
            role="standby",
            epoch=self.epoch,
            leader=self.leader,
            sequence=state.sequence,
            committed_sequence=state.sequence,
            safe_mode=False,
            brake="",
            inodes=len(state.inodes),
            chunks=len(state.chunks),
            under_replicated=0,
            missing=0,
            corrupt_replicas=0,
            pending_deletions=0,
            open_files=len(state.writers),
            clients=len(state.sessions.by_client),
            servers=(),
            uptime_seconds=round(self._clock.monotonic() - self._started, 3),
            lag_ms=self._tailing.lag_ms,
        )

    def _register(self, peer: Peer, request: msg.Request, body: msg.Register) -> None:
        follower = self._follower
        if not follower.is_ready:
            raise SafeMode(f"{self._config.node} has not read the log yet")
        follower.registry.register(peer, body)
        peer.respond(request.id, msg.Registered(follower.state.cluster, 0, 0, self._config.heartbeat_seconds))

    # ---------------------------------------------------------------------------------------------------------- reads

    def _read(self, peer: Peer, request: msg.Request) -> None:
        if self._follower.state.sequence >= request.minimum_sequence:
            self._answer(peer, request)
            return
        if len(self._parked) >= PARKED_MAX:
            raise self._behind()
        until = self._clock.monotonic() + PARKED_SECONDS
        self._parked.append(_Parked(peer, request, until))

    def _release(self) -> None:
        sequence = self._follower.state.sequence
        if not self._parked:
            return
        ready = [parked for parked in self._parked if parked.request.minimum_sequence <= sequence]
        self._parked = [parked for parked in self._parked if parked.request.minimum_sequence > sequence]
        for parked in ready:
            try:
                self._answer(parked.peer, parked.request)
            except GfsError as error:
                self._refuse(parked.peer, parked.request, error, sequence)

    def _answer(self, peer: Peer, request: msg.Request) -> None:
        queries = self._current_queries()
        if not queries.answers(request.body):
            raise NotLeader(f"{self._config.node} is a standby", hint=self.leader)
        if request.user:
            check_user(request.user)
        self._namespace.confined = request.confined
        sequence = self._follower.state.sequence
        try:
            reply = queries.answer(request.body, request.user)
        except GfsError as error:
            self._refuse(peer, request, error, sequence)
            return
        peer.respond(request.id, reply, sequence)

    def _refuse(self, peer: Peer, request: msg.Request, error: GfsError, sequence: int = 0) -> None:
        self._measures.failures[type(request.body), error.code] += 1
        peer.respond_error(request.id, error, sequence)

    def _current_queries(self) -> Queries:
        follower = self._follower
        if self._queries is None or self._queried is not follower.state:
            self._namespace = Namespace(follower.state)
            self._queries = Queries(follower.state, follower.fleet, self._namespace, self._sign_read)
            self._queried = follower.state
        return self._queries

    def _sign_read(self, chunk: int, version: int) -> bytes:
        """By the leader's token clock, as it was last heard and has gone on since."""
        clock = self._tailing.token_clock
        if clock is None:
            raise NotLeader(f"{self._config.node} has not heard the leader yet", hint=self.leader)
        epoch, shown_ms, heard = clock
        return Term(epoch, self._clock, self._token_key, heard - shown_ms / 1000).sign_read(chunk, version)

    def _behind(self) -> NotLeader:
        return NotLeader(f"{self._config.node} has not read that far yet", hint=self.leader)
