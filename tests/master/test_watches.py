"""Who is told of which change: clients that keep every answer and heed every notice are never left with a wrong one."""

import dataclasses
import stat

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gfsmaster import operations as op
from gfsmaster.queries import Queries
from gfsmaster.watches import Watches
from gfsprotocol import messages as msg
from gfsprotocol.errors import GfsError, NotFound
from gfsprotocol.ids import ROOT_INODE
from tests.master.machine import CHUNK_BYTES, Machine

Name = tuple[int, bytes]


class Served:
    """A state machine as the leader serves it: answers and notices wait for the log, and leave in its order."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.state = self.machine.state
        self.watches: Watches[str] = Watches(self.state, self.machine.planner.namespace)
        self.queries = Queries(self.state, None, self.machine.planner, lambda _chunk, _version: b"")  # type: ignore[arg-type]
        self.committed = self.state.sequence
        self.parked: list[tuple[int, str, object]] = []
        self.sent: dict[str, list[object]] = {}

    def watch(self, client: str) -> None:
        self.watches.add(client)
        self.sent[client] = []

    def log(self, operations: tuple[op.AnyOperation, ...], client: bytes = b"") -> msg.ReplyBody:
        result = self.machine.log(operations, client)
        self.watches.applied()
        return result

    def ask(self, client: str, body: msg.RequestBody) -> object:
        """What a request is answered, an error too; a client that watches is sent (request, answer)."""
        self.watches.begin(client)
        reply: object
        try:
            if self.queries.answers(body):
                reply = self.queries.answer(body, ())
            else:
                plan = self.machine.planner.plan(body, (), client.encode(), self.machine.now_ns)
                reply = self.log(plan, client.encode()) if isinstance(plan, tuple) else plan
        except GfsError as error:
            reply = error
        self.watches.end(None if isinstance(reply, GfsError) else reply)  # type: ignore[arg-type]
        if client in self.sent:
            self.parked.append((self.state.sequence, client, (body, reply)))
        return reply

    def commit(self, records: int) -> None:
        self.committed = min(self.state.sequence, self.committed + records)
        while self.parked and self.parked[0][0] <= self.committed:
            _, client, message = self.parked.pop(0)
            self.sent[client].append(message)
        for client, notices in self.watches.take(self.committed):
            self.sent[client].extend(notices)


def without_writers(attributes: msg.Attributes) -> msg.Attributes:
    return msgspec.structs.replace(attributes, open_writers=0)


@dataclasses.dataclass
class Kept:
    """What a client has kept, and what it does with messages in their order."""

    attributes: dict[int, msg.Attributes] = dataclasses.field(default_factory=dict)
    names: dict[Name, int] = dataclasses.field(default_factory=dict)
    """0: there is nothing."""
    xattrs: dict[tuple[int, bytes], bytes] = dataclasses.field(default_factory=dict)
    removed: set[int] = dataclasses.field(default_factory=set)

    def take(self, message: object) -> None:
        if isinstance(message, msg.Invalidate):
            self._invalidate(message)
        elif isinstance(message, tuple):
            self._keep(*message)

    def drop(self, inode: int) -> None:
        self.attributes.pop(inode, None)
        for key in [key for key in self.xattrs if key[0] == inode]:
            del self.xattrs[key]

    def _invalidate(self, notice: msg.Invalidate) -> None:
        if notice.everything:
            self.attributes.clear()
            self.names.clear()
            self.xattrs.clear()
        for inode in notice.inodes:
            self.drop(inode)
        for name in notice.names:
            self.names.pop(name, None)
        self.removed.update(notice.removed)

    def _keep(self, body: msg.RequestBody, reply: object) -> None:
        match body, reply:
            case msg.Stat(path=b""), msg.AttributesReply():
                self._keep_attributes(reply.attributes)
            case msg.Stat(), msg.AttributesReply():
                self._keep_attributes(reply.attributes)
                self.names[body.base, body.path] = reply.attributes.inode
            case msg.Stat(), NotFound() if body.path:
                self.names[body.base, body.path] = 0
            case msg.List(), msg.Listing():
                for entry in reply.entries:
                    self._keep_attributes(entry.attributes)
                    self.names[body.base, entry.name] = entry.attributes.inode
            case msg.GetXattr(), msg.Data():
                self.xattrs[body.base, body.name] = reply.data
            case _, GfsError():
                pass
            case _:
                self._own_change(body, reply)

    def _keep_attributes(self, attributes: msg.Attributes) -> None:
        self.attributes[attributes.inode] = without_writers(attributes)

    def _own_change(self, body: msg.RequestBody, reply: object) -> None:
        """Its own doing is not told to it: what that was it knows, as a kernel does."""
        places = [(body.base, body.path)] if isinstance(body, msg.PathRequest) and body.path else []
        if isinstance(body, msg.Rename | msg.Link):
            places.append((body.target_base, body.target))
        for place in places:
            self.drop(place[0])
            was = self.names.pop(place, 0)
            self.drop(was)
            self.names.pop((was, b".."), None)
        if isinstance(body, msg.SetXattr | msg.RemoveXattr):
            self.drop(body.base)
        if isinstance(body, msg.EmptyTrash):
            for inode in body.inodes:
                self.drop(inode)
        if isinstance(reply, msg.AttributesReply) and reply.attributes.links:
            self._keep_attributes(reply.attributes)
        if isinstance(body, msg.Close) and isinstance(reply, msg.AttributesReply) and not reply.attributes.links:
            self.drop(body.inode)


CLIENTS = ("a", "b", "c")
clients = st.sampled_from(CLIENTS)
names = st.sampled_from([b"x", b"y", b"z"])
numbers = st.integers(0, 1 << 16)


class NothingWrongIsKept(RuleBasedStateMachine):
    """Clients a and b watch, c does not; all work on the same few names, two directories deep."""

    def __init__(self) -> None:
        super().__init__()
        self.served = Served()
        self.kept = {client: Kept() for client in CLIENTS[:2]}
        self.inodes = [ROOT_INODE]

    @initialize()
    def watch(self) -> None:
        for client in self.kept:
            self.served.watch(client)

    # ---------------------------------------------------------------------------------------------------- requests

    def pick(self, number: int) -> int:
        """An inode that was there once."""
        return self.inodes[number % len(self.inodes)]

    def place(self, client: str, number: int, name: bytes) -> Name:
        """A name in a directory, looked up by whoever is going to change it, as the kernel does."""
        slot_of, directories = self.served.state.inodes.slot_of, self.served.state.inodes.directories
        known = [inode for inode in self.inodes if slot_of(inode) in directories]
        base = known[number % len(known)]
        self.ask(client, msg.Stat(name, base, follow=False))
        return base, name

    def ask(self, client: str, body: msg.RequestBody) -> object:
        reply = self.served.ask(client, body)
        if isinstance(reply, msg.AttributesReply) and reply.attributes.inode not in self.inodes:
            self.inodes.append(reply.attributes.inode)
        return reply

    @rule(client=clients, number=numbers, name=names)
    def look_up(self, client: str, number: int, name: bytes) -> None:
        self.place(client, number, name)

    @rule(client=clients, number=numbers)
    def stat_inode(self, client: str, number: int) -> None:
        self.ask(client, msg.Stat(b"", self.pick(number)))

    @rule(client=clients, number=numbers)
    def list_directory(self, client: str, number: int) -> None:
        self.ask(client, msg.List(b"", self.pick(number)))

    @rule(client=clients, number=numbers, name=names)
    def look_up_parent(self, client: str, number: int, name: bytes) -> None:
        self.ask(client, msg.Stat(b"..", self.place(client, number, name)[0]))

    @rule(client=clients, number=numbers, name=names)
    def get_xattr(self, client: str, number: int, name: bytes) -> None:
        self.ask(client, msg.GetXattr(b"", self.pick(number), b"user." + name))

    @rule(client=clients, number=numbers, name=names, value=names)
    def set_xattr(self, client: str, number: int, name: bytes, value: bytes) -> None:
        self.ask(client, msg.SetXattr(b"", self.pick(number), b"user." + name, value))

    @rule(client=clients, number=numbers, name=names)
    def remove_xattr(self, client: str, number: int, name: bytes) -> None:
        self.ask(client, msg.RemoveXattr(b"", self.pick(number), b"user." + name))

    @rule(client=clients, number=numbers, name=names)
    def mkdir(self, client: str, number: int, name: bytes) -> None:
        base, name = self.place(client, number, name)
        self.ask(client, msg.Mkdir(name, base))

    @rule(client=clients, number=numbers, name=names, open=st.booleans(), truncate=st.booleans())
    def create(self, client: str, number: int, name: bytes, open: bool, truncate: bool) -> None:
        base, name = self.place(client, number, name)
        self.ask(client, msg.Create(name, base, open=open, truncate=truncate))

    @rule(client=clients, number=numbers, name=names)
    def symlink(self, client: str, number: int, name: bytes) -> None:
        base, name = self.place(client, number, name)
        self.ask(client, msg.Symlink(name, base, b"somewhere"))

    @rule(client=clients, number=numbers, name=names, to=numbers, new_name=names, exchange=st.booleans())
    def rename(self, client: str, number: int, name: bytes, to: int, new_name: bytes, exchange: bool) -> None:
        base, name = self.place(client, number, name)
        target_base, target = self.place(client, to, new_name)
        self.ask(client, msg.Rename(name, base, target, target_base, exchange=exchange))

    @rule(client=clients, number=numbers, name=names, to=numbers, new_name=names)
    def link(self, client: str, number: int, name: bytes, to: int, new_name: bytes) -> None:
        base, name = self.place(client, number, name)
        target_base, target = self.place(client, to, new_name)
        self.ask(client, msg.Link(name, base, target, target_base))

    @rule(client=clients, number=numbers, name=names, request=st.sampled_from([msg.Unlink, msg.Rmdir, msg.RemoveTree]))
    def remove(self, client: str, number: int, name: bytes, request: type[msg.PathRequest]) -> None:
        base, name = self.place(client, number, name)
        self.ask(client, request(name, base))

    @rule(client=clients, number=numbers, name=names)
    def trash(self, client: str, number: int, name: bytes) -> None:
        base, name = self.place(client, number, name)
        self.ask(client, msg.MoveToTrash(name, base))

    @rule(client=clients, item=numbers, number=numbers, name=names)
    def restore(self, client: str, item: int, number: int, name: bytes) -> None:
        base, name = self.place(client, number, name)
        if trash := self.trashed():
            self.ask(client, msg.RestoreTrash(name, base, trash[item % len(trash)]))

    @rule(client=clients, item=numbers)
    def purge(self, client: str, item: int) -> None:
        if trash := self.trashed():
            self.ask(client, msg.EmptyTrash((trash[item % len(trash)],)))

    def trashed(self) -> list[int]:
        return [self.served.state.inodes.ids[slot] for slot in self.served.state.trash]

    @rule(
        client=clients,
        number=numbers,
        size=st.sampled_from([0, 1, 2 * CHUNK_BYTES]),
        mode=st.sampled_from([0o600, None]),
    )
    def set_attributes(self, client: str, number: int, size: int, mode: int | None) -> None:
        inode = self.pick(number)
        is_file = stat.S_ISREG(self.served.state.inodes.mode[self.served.state.inodes.slot_of(inode)])
        self.ask(client, msg.SetAttributes(b"", inode, mode, size=size if is_file else None))

    @rule(client=clients, number=numbers, length=st.sampled_from([1, 2, CHUNK_BYTES]))
    def write(self, client: str, number: int, length: int) -> None:
        inode = self.pick(number)
        slot = self.served.state.inodes.slot_of(inode)
        if slot and self.served.state.writers.has(slot, client.encode()):
            if not self.served.state.inodes.first_chunk[slot]:
                self.served.log((op.AddChunk(inode, 0, self.served.state.chunks.next_id()),))
            chunk = self.served.state.chunks.ids[self.served.state.inodes.first_chunk[slot]]
            self.ask(client, msg.RecordLength(inode, (msg.ChunkLength(0, chunk, length),)))

    @rule(client=clients, number=numbers)
    def close(self, client: str, number: int) -> None:
        self.ask(client, msg.Close(self.pick(number)))

    # ------------------------------------------------------------------------------------------------- the master's

    @rule(client=clients)
    def close_client(self, client: str) -> None:
        self.served.log((op.CloseClient(client.encode()),))

    @rule()
    def reclaim(self) -> None:
        if self.served.state.doomed:
            self.served.log((op.Reclaim(2),))

    @rule(client=st.sampled_from(CLIENTS[:2]))
    def lose_track(self, client: str) -> None:
        self.served.watches.drop(client)

    @rule(records=st.integers(1, 4))
    def commit(self, records: int) -> None:
        self.served.commit(records)

    # ------------------------------------------------------------------------------------------------------- checks

    @rule(client=st.sampled_from(CLIENTS[:2]), count=st.integers(1, 5))
    def deliver(self, client: str, count: int) -> None:
        sent = self.served.sent[client]
        for message in sent[:count]:
            self.kept[client].take(message)
        del sent[:count]

    @rule()
    def settle(self) -> None:
        self.served.commit(1 << 30)
        for client, kept in self.kept.items():
            self.deliver(client, 1 << 30)
            self.compare(kept)

    def compare(self, kept: Kept) -> None:
        state = self.served.state
        inodes = state.inodes
        for inode, attributes in kept.attributes.items():
            slot = inodes.slot_of(inode)
            assert slot, f"inode {inode} is kept and gone"
            assert attributes == without_writers(state.attributes(slot))
        for (inode, name), value in kept.xattrs.items():
            assert inodes.xattrs[inodes.slot_of(inode)][name] == value
        for (base, name), child in kept.names.items():
            slot = inodes.slot_of(base)
            found = (
                (inodes.parent[slot] or slot) if name == b".." else inodes.directories[slot].find(name) if slot else 0
            )
            assert child == inodes.ids[found], f"{name!r} in {base}"

    def teardown(self) -> None:
        self.settle()
        self.served.watches.close()
        assert self.served.state.touched is None
        assert not self.served.watches._holders


NothingWrongIsKept.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestNothingWrongIsKept = pytest.mark.slow(NothingWrongIsKept.TestCase)
