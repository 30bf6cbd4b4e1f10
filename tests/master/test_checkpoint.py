"""A checkpoint is the whole state: what comes after it goes on as if nothing had been between."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from gfsmaster import operations as op
from gfsmaster.checkpoint import PART_BYTES_MAX, decode, encode
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import CallForgotten, LogDamaged, UnsupportedFormat
from tests.master.machine import CLIENT, Machine
from tests.master.test_namespace_model import NamespaceAgainstModel


def copied(state: State) -> State:
    """By way of a checkpoint, of which a second one says the same in every byte."""
    parts = list(encode(state))
    restored = decode(parts)
    assert list(encode(restored)) == parts
    assert restored.digest() == restored.recomputed_digest() == state.digest()
    for table, other in ((state.inodes, restored.inodes), (state.chunks, restored.chunks)):
        assert table.next_ids(5) == other.next_ids(5)
    return restored


class CheckpointsOfAnyState(NamespaceAgainstModel):
    """``replayed`` goes on from a checkpoint of ``state``, with all that the model test asks of it."""

    @rule(writers=st.lists(st.sampled_from([b"w" * 16, b"v" * 16]), max_size=4))
    def restore_while_files_are_open(self, writers: list[bytes]) -> None:
        inodes = self.machine.state.inodes
        files = [inode for slot, inode in enumerate(inodes.ids) if inode and slot not in inodes.directories]
        for number, writer in enumerate(writers):
            if files:
                self.machine.log((op.OpenWriter(files[number % len(files)], writer),), writer)
        self.restore()
        for writer in writers:
            self.machine.log((op.CloseClient(writer),))

    @rule()
    def restore(self) -> None:
        self.machine.replayed = copied(self.machine.state)

    @rule()
    def remove_everything(self) -> None:
        """Frees slots in an order that the next ids depend on."""
        for name in list(self.model.root.entries):
            self.both(msg.RemoveTree(b"/" + name), "")
            del self.model.root.entries[name]
        self.machine.reclaim()


TestCheckpointsOfAnyState = pytest.mark.slow(CheckpointsOfAnyState.TestCase)
TestCheckpointsOfAnyState.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def machine_with_everything() -> Machine:
    machine = Machine()
    for number in range(600):  # more than one bucket
        machine.do(msg.Create(b"/file-%03d" % number, open=number % 3 == 0))
    inode = machine.stat(b"/file-000").inode
    for index in (0, 1, 5):
        machine.add_chunk(inode, index)
    machine.log((op.RecordLengths(inode, (), 5 * 65536 + 10, machine.now_ns),))
    machine.do(msg.SetAttributes(b"/file-000", size=65536 + 5))
    machine.do(msg.SetXattr(b"/file-001", name=b"user.a", value=b"value"))
    machine.do(msg.SetXattr(b"/file-001", name=b"user.b", value=b"v" * 60_000))
    machine.do(msg.Symlink(b"/link", target=b"target"))
    machine.do(msg.Mkdir(b"/tree/of/directories", parents=True))
    machine.do(msg.Create(b"/tree/of/file", open=False))
    machine.do(msg.RemoveTree(b"/tree"))
    machine.do(msg.MoveToTrash(b"/file-002"))
    return machine


def test_everything_that_a_state_has_survives() -> None:
    machine = machine_with_everything()
    state = machine.state
    assert state.doomed and state.inodes.more_chunks and state.inodes.xattrs and state.writers and state.trash
    assert state.inodes.targets and state.sessions.by_client
    restored = machine.replayed = copied(state)
    assert list(restored.trash.items()) == list(state.trash.items())
    assert restored.chunks.cuts == state.chunks.cuts
    assert list(restored.sessions.by_client) == list(state.sessions.by_client)
    machine.reclaim()
    machine.do(msg.Create(b"/afterwards"))
    machine.check()


def test_parts_are_small() -> None:
    machine = Machine()
    for number in range(200):
        machine.do(msg.Create(b"/file-%d" % number, open=False))
        machine.do(msg.SetXattr(b"/file-%d" % number, name=b"user.large", value=bytes(20_000)))
    parts = list(encode(machine.state))
    assert sum(map(len, parts)) > 10 * PART_BYTES_MAX
    assert max(map(len, parts)) <= PART_BYTES_MAX


def test_fault_6_an_id_is_never_given_again_after_a_restart_from_a_checkpoint() -> None:
    machine = Machine()
    for number in range(5):
        machine.do(msg.Create(b"/file-%d" % number, open=False))
    highest = machine.stat(b"/file-4").inode
    chunk = machine.add_chunk(highest, 0)
    machine.do(msg.Unlink(b"/file-4"))
    restored = copied(machine.state)
    assert restored.inodes.next_id() > highest
    assert restored.chunks.next_id() > chunk


def test_the_results_of_calls_survive() -> None:
    machine = Machine()
    made = machine.do(msg.Create(b"/file", open=False))
    assert isinstance(made, msg.AttributesReply)
    call = machine.calls
    for number in range(200):  # of a client that does not say what it has got
        machine.now_ns += 1
        record = op.Record(machine.now_ns, (op.OpenWriter(made.attributes.inode, b"x" * 16),), b"x" * 16, number + 1, 1)
        machine.state.apply(record)
    restored = copied(machine.state)
    assert restored.sessions.result(CLIENT, call, True) == made
    assert len(restored.sessions.by_client[b"x" * 16].results) == 200
    with pytest.raises(CallForgotten):
        restored.sessions.result(CLIENT, call - 1, True)


def test_a_newer_format_is_refused_with_what_to_do() -> None:
    first, *parts = encode(Machine().state)
    assert first[:3] == b"\x00\x98\x01"
    with pytest.raises(UnsupportedFormat, match="format 2, this version reads format 1: use the version that wrote it"):
        decode([first[:2] + b"\x02" + first[3:], *parts])


def test_fault_5_half_a_checkpoint_is_none() -> None:
    parts = list(encode(machine_with_everything().state))
    for count in range(len(parts)):
        with pytest.raises(LogDamaged):
            decode(parts[:count])
    for number in range(len(parts)):
        with pytest.raises(LogDamaged):
            decode(parts[:number] + parts[number + 1 :])
        with pytest.raises(LogDamaged):
            decode([*parts[:number], parts[number][: len(parts[number]) // 2], *parts[number + 1 :]])
    with pytest.raises(LogDamaged):
        decode([*parts, b"\x01"])


def test_a_part_of_an_unknown_kind_is_refused() -> None:
    parts = list(encode(Machine().state))
    with pytest.raises(LogDamaged, match="unknown kind 77"):
        decode([*parts[:-1], b"M", parts[-1]])
