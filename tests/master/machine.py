"""A master's state machine without a master: plans, applies and logs, and replays everything on a second one."""

from gfsmaster import operations as op
from gfsmaster.namespace import User
from gfsmaster.planner import Planner
from gfsmaster.state import State
from gfsprotocol import messages as msg

CLIENT = b"c" * 16
CHUNK_BYTES = 1 << 16


class Machine:
    """``state`` is driven by requests, ``replayed`` by the encoded records."""

    def __init__(self) -> None:
        self.state = State()
        self.replayed = State()
        self.planner = Planner(self.state)
        self.now_ns = 1_000_000_000
        self.records: list[bytes] = []
        self.calls = 0
        self.log((op.Genesis(b"k" * 16, op.LOG_FORMAT, 0o777, 0, 0, 3, CHUNK_BYTES), op.BeginEpoch(1, "test")))

    def log(self, operations: tuple[op.AnyOperation, ...], client: bytes = b"") -> msg.ReplyBody:
        self.now_ns += 1000
        self.calls += 1
        record = op.Record(self.now_ns, operations, client, self.calls if client else 0, self.calls if client else 0)
        result = self.state.apply(record)
        encoded = op.encode_record(record)
        self.records.append(encoded)
        for again in op.decode_records(op.join_records([encoded])):
            assert self.replayed.apply(again) == result
        return result

    def do(self, body: msg.RequestBody, user: User = (), client: bytes = CLIENT) -> msg.ReplyBody:
        plan = self.planner.plan(body, user, client, self.now_ns)
        return self.log(plan, client) if isinstance(plan, tuple) else plan

    def attributes(self, body: msg.RequestBody, user: User = ()) -> msg.Attributes:
        reply = self.do(body, user)
        assert isinstance(reply, msg.AttributesReply)
        return reply.attributes

    def stat(self, path: bytes, follow: bool = True) -> msg.Attributes:
        return self.state.attributes(self.planner.namespace.find((), 1, path, follow))

    def add_chunk(self, inode: int, index: int) -> int:
        chunk = self.state.chunks.next_id()
        self.log((op.AddChunk(inode, index, chunk),))
        return chunk

    def names(self, path: bytes) -> list[bytes]:
        slot = self.planner.namespace.find((), 1, path)
        return [name for name, _ in self.state.inodes.directories[slot]]

    def reclaim(self, entries: int = 2) -> None:
        while self.state.doomed:
            self.log((op.Reclaim(entries),))

    def check(self) -> None:
        """The replayed state is the same, and the digest kept up to date is the one of everything."""
        assert self.state.digest() == self.replayed.digest()
        assert self.state.recomputed_digest() == self.state.digest()
