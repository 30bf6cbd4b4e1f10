"""Who is told of which change: clients that keep every answer and heed every notice are never left with a wrong one."""

import dataclasses
import stat
import typing

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gfsmaster import operations as op
from gfsmaster import watches as watching
from gfsmaster.queries import Queries
from gfsmaster.state import State
from gfsmaster.touched import Touched
from gfsmaster.watches import Watches
from gfsprotocol import messages as msg
from gfsprotocol.errors import GfsError, NotFound
from gfsprotocol.ids import ROOT_INODE
from tests.master.machine import CHUNK_BYTES, CLIENT, Machine

Name = tuple[int, bytes]


class Served:
    """A state machine as the leader serves it: answers and notices wait for the log, and leave in its order."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.state = self.machine.state
        self.watches: Watches[str] = Watches(self.state, self.machine.planner.namespace)
        self.queries = Queries(self.state, None, self.machine.planner.namespace, lambda _chunk, _version: b"")  # type: ignore[arg-type]
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
        """What a request is answered, an error too.

        A client that watches is sent (request, answer, the inodes that the request named, as it had looked them up).
        """
        named = [child for place in places(body) if (child := self.child(*place))]
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
            self.parked.append((self.state.sequence, client, (body, reply, named)))
        return reply

    def child(self, base: int, name: bytes) -> int:
        """The inode under a name; 0 for none."""
        inodes = self.state.inodes
        slot = inodes.slot_of(base)
        if name == b"..":
            return inodes.ids[inodes.parent[slot] or slot]
        return inodes.ids[inodes.directories[slot].find(name)] if slot in inodes.directories else 0

    def commit(self, records: int) -> None:
        self.committed = min(self.state.sequence, self.committed + records)
        while self.parked and self.parked[0][0] <= self.committed:
            _, client, message = self.parked.pop(0)
            self.sent[client].append(message)
        for client, notices in self.watches.take(self.committed):
            self.sent[client].extend(notices)


def places(body: msg.RequestBody) -> list[Name]:
    """The names that a request is about."""
    found = [(body.base, body.path)] if isinstance(body, msg.PathRequest) and body.path else []
    if isinstance(body, msg.Rename | msg.Link):
        found.append((body.target_base, body.target))
    return found


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
    complete: dict[int, set[bytes]] = dataclasses.field(default_factory=dict)
    """By directory that was made or listed to its end: no other names are there."""

    def take(self, message: object) -> None:
        if isinstance(message, msg.Invalidate):
            self._invalidate(message)
        elif isinstance(message, tuple):
            self._keep(*message)

    def drop(self, inode: int) -> None:
        self.attributes.pop(inode, None)
        for key in [key for key in self.xattrs if key[0] == inode]:
            del self.xattrs[key]

    def may_be_there(self, directory: int, name: bytes) -> None:
        if directory in self.complete:
            self.complete[directory].add(name)

    def _invalidate(self, notice: msg.Invalidate) -> None:
        if notice.everything:
            self.attributes.clear()
            self.names.clear()
            self.xattrs.clear()
            self.complete.clear()
        for inode in notice.inodes:
            self.drop(inode)
        for name in notice.names:
            self.names.pop(name, None)
            self.may_be_there(*name)
        self.removed.update(notice.removed)

    def _keep(self, body: msg.RequestBody, reply: object, named: list[int]) -> None:
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
                self.complete[body.base] = {entry.name for entry in reply.entries}
            case msg.GetXattr(), msg.Data():
                self.xattrs[body.base, body.name] = reply.data
            case _, GfsError():
                pass
            case _:
                self._own_change(body, reply, named)

    def _keep_attributes(self, attributes: msg.Attributes) -> None:
        self.attributes[attributes.inode] = without_writers(attributes)

    def _own_change(self, body: msg.RequestBody, reply: object, named: list[int]) -> None:
        """Its own doing is not told to it: what that was it knows, as a kernel does."""
        for place in places(body):
            self.drop(place[0])
            self.names.pop(place, None)
            self.may_be_there(*place)
        for inode in named:
            self.drop(inode)
            self.names.pop((inode, b".."), None)
        if isinstance(body, msg.Mkdir) and isinstance(reply, msg.AttributesReply):
            self.complete[reply.attributes.inode] = set()
        if isinstance(body, msg.SetXattr | msg.RemoveXattr | msg.SetAttributes):
            self.drop(body.base)
        trashed = body.inodes if isinstance(body, msg.EmptyTrash) else ()
        for inode in (body.inode,) if isinstance(body, msg.RestoreTrash) else trashed:
            self.drop(inode)
            self.names.pop((inode, b".."), None)
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
        base = self.directory(number)
        self.ask(client, msg.Stat(name, base, follow=False))
        return base, name

    def directory(self, number: int) -> int:
        slot_of, directories = self.served.state.inodes.slot_of, self.served.state.inodes.directories
        known = [inode for inode in self.inodes if slot_of(inode) in directories]
        return known[number % len(known)]

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
        self.ask(client, msg.List(b"", self.directory(number)))

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
        # Who keeps names has to know which one it makes.
        self.ask(client, msg.Create(name, base, open=open, truncate=truncate, follow=client not in self.kept))

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
            assert child == self.served.child(base, name), f"{name!r} in {base}"
        for inode, names in kept.complete.items():
            assert {name for name, _ in inodes.directories.get(inodes.slot_of(inode), ())} <= names

    def teardown(self) -> None:
        self.settle()
        self.served.watches.close()
        assert self.served.state.touched is None
        assert not self.served.watches._holders


NothingWrongIsKept.TestCase.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestNothingWrongIsKept = pytest.mark.slow(NothingWrongIsKept.TestCase)


# ------------------------------------------------------------------------------------------------ each operation once


def everything(state: State) -> tuple[dict[int, object], dict[Name, int]]:
    """All that a client could keep: of each inode, and under each name."""
    inodes = state.inodes
    shown: dict[int, object] = {}
    found: dict[Name, int] = {}
    for slot, inode in enumerate(inodes.ids):
        if inode:
            xattrs = dict(inodes.xattrs.get(slot, {}))
            shown[inode] = (without_writers(state.attributes(slot)), xattrs, inodes.targets.get(slot))
            if slot in inodes.directories:
                found[inode, b".."] = inodes.ids[inodes.parent[slot] or slot]
                found |= {(inode, name): inodes.ids[child] for name, child in inodes.directories[slot]}
    return shown, found


class Noting(Machine):
    """A machine that compares what each record has touched with what it has changed."""

    def __init__(self) -> None:
        self.applied: set[type] = set()
        super().__init__()
        self.state.touched = Touched()

    def log(self, operations: tuple[op.AnyOperation, ...], client: bytes = b"") -> msg.ReplyBody:
        self.applied.update(map(type, operations))
        shown, found = everything(self.state)
        result = super().log(operations, client)
        touched = self.state.touched
        if touched is not None:
            shown_now, found_now = everything(self.state)
            inodes = {before.inode for before in touched.inodes.values()}
            assert {inode for inode in shown if shown[inode] != shown_now.get(inode)} <= inodes, operations
            names = {(directory, name) for _, directory, name in touched.names}
            assert {name for name in found | found_now if found.get(name) != found_now.get(name)} <= names, operations
            touched.clear()
        return result


def test_every_operation_tells_all_that_it_changes() -> None:
    machine = Noting()
    for path in (b"/d", b"/d/e", b"/t"):
        machine.do(msg.Mkdir(path))
    file = machine.attributes(msg.Create(b"/d/f")).inode
    chunk = machine.add_chunk(file, 0)
    machine.log((op.SetChunkVersion(chunk, 2),))
    machine.do(msg.RecordLength(file, (msg.ChunkLength(0, chunk, 7),)))
    machine.do(msg.OpenForWrite(b"/d/f"))
    machine.do(msg.Close(file, size=9))
    machine.do(msg.SetXattr(b"/d/f", name=b"user.x", value=b"1"))
    machine.do(msg.RemoveXattr(b"/d/f", name=b"user.x"))
    machine.do(msg.SetAttributes(b"/d/f", mode=0o600, size=3))
    machine.do(msg.Link(b"/d/f", target=b"/t/g"))
    machine.do(msg.Symlink(b"/d/s", target=b"f"))
    machine.do(msg.MakeNode(b"/d/p", mode=stat.S_IFIFO | 0o600))
    machine.do(msg.Rename(b"/d/s", target=b"/t/s"))
    machine.do(msg.Rename(b"/d/e", target=b"/t/e"))
    machine.do(msg.Rename(b"/t/s", target=b"/d/f"))
    machine.do(msg.Rename(b"/t/e", target=b"/d/f", exchange=True))
    machine.do(msg.RemoveTree(b"/t"))
    machine.reclaim()
    machine.do(msg.MoveToTrash(b"/d"))
    trashed = next(iter(machine.state.trash))
    machine.do(msg.RestoreTrash(b"/again", inode=machine.state.inodes.ids[trashed]))
    machine.do(msg.MoveToTrash(b"/again"))
    machine.do(msg.EmptyTrash())
    machine.reclaim(1)
    machine.log((op.StateDigest(machine.state.digest()),))
    machine.log((op.Answered(msg.Done()),))
    machine.do(msg.Create(b"/left-open"))
    machine.do(msg.Unlink(b"/left-open"))
    machine.log((op.CloseClient(CLIENT),))
    assert machine.applied == set(typing.get_args(op.AnyOperation))


# ------------------------------------------------------------------------------------------------------------- rules


@pytest.fixture
def served() -> Served:
    """Two clients that watch, one that does not; a file that both have seen."""
    made = Served()
    made.ask("c", msg.Create(b"f"))
    for client in ("a", "b"):
        made.watch(client)
        made.ask(client, msg.Stat(b"f"))
    settled(made)
    return made


def settled(served: Served) -> dict[str, list[msg.Invalidate]]:
    """What each was told since the last call."""
    served.commit(1 << 30)
    told = {
        client: [message for message in sent if isinstance(message, msg.Invalidate)]
        for client, sent in served.sent.items()
    }
    served.sent = {client: [] for client in served.sent}
    return told


def inode_of(served: Served, name: bytes) -> int:
    reply = served.ask("c", msg.Stat(name))
    assert isinstance(reply, msg.AttributesReply)
    return reply.attributes.inode


def test_attributes_are_told_once_until_they_are_asked_for_again(served: Served) -> None:
    file = inode_of(served, b"f")
    for _ in range(3):
        served.ask("c", msg.SetAttributes(b"f", mode=0o600))
    assert settled(served)["a"] == [msg.Invalidate(inodes=(file,))]
    served.ask("c", msg.SetAttributes(b"f", mode=0o640))
    assert settled(served)["a"] == []
    served.ask("a", msg.Stat(b"", file))
    served.ask("c", msg.SetAttributes(b"f", mode=0o644))
    assert settled(served)["a"] == [msg.Invalidate(inodes=(file,))]


def test_who_changes_is_not_told(served: Served) -> None:
    file = inode_of(served, b"f")
    served.ask("a", msg.SetAttributes(b"f", mode=0o600))
    assert settled(served) == {"a": [], "b": [msg.Invalidate(inodes=(file,))]}


def test_what_one_has_made_is_watched_too(served: Served) -> None:
    made = served.ask("a", msg.Mkdir(b"d"))
    assert isinstance(made, msg.AttributesReply)
    settled(served)
    served.ask("c", msg.SetAttributes(b"d", mode=0o700))
    assert settled(served)["a"] == [msg.Invalidate(inodes=(made.attributes.inode,))]


def test_what_others_put_into_a_directory_that_one_has_made_is_told(served: Served) -> None:
    directories = [served.ask("a", msg.Mkdir(name)) for name in (b"d", b"e")]
    settled(served)
    for name in (b"d/1", b"d/2"):
        served.ask("c", msg.Create(name))
    [made, _] = [directory.attributes.inode for directory in directories if isinstance(directory, msg.AttributesReply)]
    assert settled(served) == {"a": [msg.Invalidate((made,), ((made, b"1"), (made, b"2")))], "b": []}


def test_to_drop_everything_is_told_behind_the_answers_that_wait(served: Served) -> None:
    served.ask("c", msg.Mkdir(b"d"))
    served.ask("a", msg.Stat(b"d"))
    served.watches.drop("a")
    assert served.watches.take(served.committed) == []
    served.commit(1)
    assert isinstance(served.sent["a"][0], tuple)
    assert served.sent["a"][1:] == [msg.Invalidate(everything=True)]


def test_nothing_is_told_before_it_is_durable(served: Served) -> None:
    served.ask("c", msg.SetAttributes(b"f", mode=0o600))
    served.ask("c", msg.Mkdir(b"d"))
    served.commit(0)
    assert served.sent["a"] == []
    served.commit(1)
    assert len(served.sent["a"]) == 1
    served.commit(1)
    assert served.sent["a"][1] == msg.Invalidate(names=((ROOT_INODE, b"d"),))


def test_a_listing_shows_names_and_attributes(served: Served) -> None:
    served.ask("c", msg.Mkdir(b"d"))
    directory = inode_of(served, b"d")
    for name in (b"d/1", b"d/2"):
        served.ask("c", msg.Create(name))
    settled(served)
    served.ask("a", msg.List(b"", directory))
    served.ask("c", msg.SetAttributes(b"d/1", mode=0o600))
    served.ask("c", msg.Create(b"d/3"))
    told = settled(served)
    assert told["a"] == [msg.Invalidate((inode_of(served, b"d/1"), directory), ((directory, b"3"),))]
    assert told["b"] == []


def test_located_files_show_attributes(served: Served) -> None:
    file = inode_of(served, b"f")
    served.ask("c", msg.SetAttributes(b"f", mode=0o600))
    settled(served)
    reply = served.ask("a", msg.LocateFiles((file, 999)))
    assert isinstance(reply, msg.FileLocations)
    assert [located.attributes.inode for located in reply.files] == [file]
    served.ask("c", msg.SetAttributes(b"f", mode=0o640))
    assert settled(served) == {"a": [msg.Invalidate(inodes=(file,))], "b": []}


def test_a_refusal_shows_nothing_but_that_a_name_is_missing(served: Served) -> None:
    served.ask("c", msg.Mkdir(b"d"))
    settled(served)
    assert isinstance(served.ask("a", msg.Stat(b"d/missing")), NotFound)
    served.ask("c", msg.SetAttributes(b"d", mode=0o700))
    assert settled(served)["a"] == []
    served.ask("c", msg.Create(b"d/missing"))
    assert settled(served)["a"] == [msg.Invalidate(names=((inode_of(served, b"d"), b"missing"),))]


def test_that_a_name_is_missing_is_kept_as_well(served: Served) -> None:
    served.ask("a", msg.Stat(b"new"))
    served.ask("c", msg.Create(b"new"))
    assert served.sent["b"] == []
    assert (ROOT_INODE, b"new") in settled(served)["a"][0].names


def test_the_last_name_of_a_file_is_told_to_all_who_have_seen_it(served: Served) -> None:
    file = inode_of(served, b"f")
    served.ask("c", msg.SetAttributes(b"f", mode=0o600))  # from here on neither keeps its attributes
    served.ask("c", msg.Link(b"f", target=b"g"))
    served.ask("c", msg.Unlink(b"f"))
    assert [notice.removed for notice in settled(served)["a"]] == [()]
    served.ask("a", msg.Unlink(b"g"))
    assert settled(served) == {"a": [], "b": [msg.Invalidate((), ((ROOT_INODE, b"g"),), (file,))]}


def test_others_keep_what_they_were_shown(served: Served) -> None:
    slot = served.state.inodes.slot_of(inode_of(served, b"f"))
    assert served.watches.others_keep(slot, "c")
    assert served.watches.others_keep(slot, "a")
    served.watches.remove("b")
    assert not served.watches.others_keep(slot, "a")
    served.watches.remove("a")
    assert not served.watches.others_keep(slot, "c")


def test_a_slot_that_is_used_again_starts_clean(served: Served) -> None:
    file = inode_of(served, b"f")
    slot = served.state.inodes.slot_of(file)
    served.ask("c", msg.Unlink(b"f"))
    served.ask("c", msg.Close(file))
    settled(served)
    other = served.ask("c", msg.Create(b"g"))
    assert isinstance(other, msg.AttributesReply)
    assert served.state.inodes.slot_of(other.attributes.inode) == slot
    settled(served)
    served.ask("c", msg.SetAttributes(b"g", mode=0o600))
    assert settled(served) == {"a": [], "b": []}
    served.ask("c", msg.Unlink(b"g"))
    assert settled(served)["a"] == [msg.Invalidate(names=((ROOT_INODE, b"g"),))]


def test_a_client_that_is_gone_is_forgotten_and_nothing_is_collected_any_more(served: Served) -> None:
    served.ask("c", msg.Unlink(b"f"))
    served.watches.remove("a")
    served.watches.remove("a")
    assert served.watches.take(1 << 60)[0][0] == "b"
    served.watches.remove("b")
    assert served.state.touched is None
    assert not served.watches._holders
    assert len(served.watches) == 0


@pytest.mark.slow
def test_a_client_that_keeps_too_much_drops_everything(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAGES_MAX", 2)
    for number in range(2 * watching.PAGE_SLOTS):
        served.ask("c", msg.Create(b"%d" % number, open=False))
    settled(served)
    served.ask("a", msg.Stat(b"%d" % (2 * watching.PAGE_SLOTS - 1)))
    assert settled(served)["a"] == []
    served.ask("a", msg.Stat(b"%d" % (watching.PAGE_SLOTS + 1)))
    assert settled(served)["a"] == [msg.Invalidate(everything=True)]
    removed = inode_of(served, b"%d" % (watching.PAGE_SLOTS + 1))
    served.ask("c", msg.Unlink(b"%d" % (2 * watching.PAGE_SLOTS - 1)))
    served.ask("c", msg.Unlink(b"%d" % (watching.PAGE_SLOTS + 1)))
    assert settled(served)["a"] == [msg.Invalidate(inodes=(removed,), removed=(removed,))]


def test_what_waits_for_a_slow_log_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WAITING_MAX", 10)
    for number in range(20):
        served.ask("c", msg.Create(b"%d" % number, open=False))
    assert sum(client.key == "a" for _, client, _ in served.watches._waiting) <= 11
    served.ask("a", msg.Stat(b"f"))
    served.ask("c", msg.SetAttributes(b"f", mode=0o600))
    told = settled(served)["a"]
    assert told[0].everything
    assert told[1].inodes == (inode_of(served, b"f"),)


def test_a_large_notice_is_split(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "NOTICE_ITEMS", 10)
    for number in range(25):
        served.ask("c", msg.Create(b"%d" % number, open=False))
    told = settled(served)["a"]
    assert [len(notice.names) for notice in told] == [10, 10, 5]
    assert [len(notice.inodes) for notice in told] == [0, 0, 0]
