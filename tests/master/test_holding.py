"""Files that live without a name: held by the client that removed them, by a reader, or by the master for a while."""

import pytest

from gfsmaster import operations as op
from gfsmaster.lingering import KEEPER, LINGER_SECONDS, LINGERING_MAX, Lingering
from gfsmaster.oplog import GENESIS_HASH
from gfsprotocol import messages as msg
from gfsprotocol.errors import InvalidArgument, StaleHandle
from tests.master.leading import HeldLog, leading, replayed, until
from tests.master.machine import CLIENT, Machine

OTHER = b"o" * 16
ALICE = (1000, 1000)


def made(machine: Machine, path: bytes) -> int:
    return machine.attributes(msg.Create(path, open=False)).inode


def lives(machine: Machine, inode: int) -> bool:
    return bool(machine.state.inodes.slot_of(inode))


def test_a_removed_file_is_held_until_its_holder_closes_it() -> None:
    machine = Machine()
    inode = made(machine, b"/file")
    assert machine.do(msg.Unlink(b"/file", hold=True)) == msg.Removed(inode, held=True)
    assert machine.attributes(msg.SetAttributes(b"", inode, size=5)).size == 5
    machine.check()
    machine.do(msg.Close(inode))
    assert not lives(machine, inode)
    machine.check()


def test_only_the_last_name_of_a_regular_file_is_held() -> None:
    machine = Machine()
    inode = made(machine, b"/file")
    machine.do(msg.Link(b"/file", target=b"/second"))
    assert machine.do(msg.Unlink(b"/file", hold=True)) == msg.Removed(inode, held=False)
    link = machine.attributes(msg.Symlink(b"/link", target=b"second")).inode
    assert machine.do(msg.Unlink(b"/link", hold=True)) == msg.Removed(link, held=False)
    assert len(machine.state.writers) == 0
    assert not lives(machine, link)
    machine.check()


def test_a_replaced_file_is_held_as_a_removed_one() -> None:
    machine = Machine()
    old, new = made(machine, b"/old"), made(machine, b"/new")
    assert machine.do(msg.Rename(b"/new", target=b"/old", hold=True)) == msg.Removed(old, held=True)
    assert machine.stat(b"/old").inode == new
    assert lives(machine, old)
    assert machine.do(msg.Rename(b"/old", target=b"/free", hold=True)) == msg.Removed(0, held=False)
    machine.check()


def test_a_rename_that_replaces_nothing_says_so() -> None:
    machine = Machine()
    inode = made(machine, b"/file")
    machine.do(msg.Link(b"/file", target=b"/second"))
    nothing = msg.Removed(0, held=False)
    assert machine.do(msg.Rename(b"/file", target=b"/second", hold=True)) == nothing
    made(machine, b"/other")
    assert machine.do(msg.Rename(b"/file", target=b"/other", hold=True, exchange=True)) == nothing
    assert machine.stat(b"/other").inode == inode
    machine.do(msg.Mkdir(b"/a"))
    directory = machine.attributes(msg.Mkdir(b"/b")).inode
    assert machine.do(msg.Rename(b"/a", target=b"/b", hold=True)) == msg.Removed(directory, held=False)
    machine.check()


def test_a_hold_needs_no_right_and_ends_with_close() -> None:
    machine = Machine()
    inode = machine.attributes(msg.Create(b"/file", mode=0, open=False)).inode
    machine.do(msg.Hold(inode), ALICE)
    machine.do(msg.Unlink(b"/file"))
    assert lives(machine, inode)
    machine.do(msg.Close(inode), ALICE)
    with pytest.raises(StaleHandle):
        machine.do(msg.Hold(inode))
    with pytest.raises(InvalidArgument):
        machine.do(msg.Hold(1))


async def test_a_retried_removal_is_answered_as_the_first_time_even_by_the_next_leader() -> None:
    log = HeldLog()
    async with leading(log) as harness:
        client = await harness.connect("client", CLIENT)
        reply = await harness.change(client, msg.Create(b"/file", open=False))
        assert isinstance(reply, msg.AttributesReply)
        inode = reply.attributes.inode
        call = msg.Call(9, 1)
        removed = msg.Removed(inode, held=True)
        assert (await client.call(msg.Unlink(b"/file", hold=True), 5, (), call)).body == removed
        retry = msg.Call(9, 1, retry=True)
        assert (await client.call(msg.Unlink(b"/file", hold=True), 5, (), retry)).body == removed
    async with leading(log, replayed(log), log.batches[-1].hash) as harness:
        client = await harness.connect("client", CLIENT)
        assert (await client.call(msg.Unlink(b"/file", hold=True), 5, (), retry)).body == removed
        assert harness.leader.state.writers.has(harness.leader.state.inodes.slot_of(inode), CLIENT)


# ------------------------------------------------------------------------------------------------------- lingering


def removed_with_others(machine: Machine, lingering: Lingering, path: bytes, now: float) -> None:
    plan = machine.planner.plan(msg.Unlink(path), (), CLIENT, machine.now_ns)
    assert isinstance(plan, tuple)
    machine.log(lingering.keep(plan, lambda _slot: True, now), CLIENT)


def test_a_file_that_others_may_read_lingers_and_goes() -> None:
    machine = Machine()
    lingering = Lingering(machine.state, 0.0)
    inode = made(machine, b"/file")
    removed_with_others(machine, lingering, b"/file", 0.0)
    assert lives(machine, inode)
    assert lingering.due(LINGER_SECONDS - 0.1) == ()
    machine.log(lingering.due(LINGER_SECONDS))
    assert not lives(machine, inode)
    assert lingering.due(1e9) == ()
    machine.check()


def test_who_holds_it_meanwhile_has_it_afterwards() -> None:
    machine = Machine()
    lingering = Lingering(machine.state, 0.0)
    inode = made(machine, b"/file")
    removed_with_others(machine, lingering, b"/file", 0.0)
    machine.do(msg.Hold(inode), client=OTHER)
    machine.log(lingering.due(LINGER_SECONDS))
    assert lives(machine, inode)
    machine.do(msg.Close(inode), client=OTHER)
    assert not lives(machine, inode)


def test_nothing_lingers_that_has_a_name_or_that_no_other_reads() -> None:
    machine = Machine()
    lingering = Lingering(machine.state, 0.0)
    inode = made(machine, b"/file")
    machine.do(msg.Link(b"/file", target=b"/second"))
    removed_with_others(machine, lingering, b"/file", 0.0)
    plan = machine.planner.plan(msg.Unlink(b"/second"), (), CLIENT, machine.now_ns)
    assert isinstance(plan, tuple)
    assert lingering.keep(plan, lambda _slot: False, 0.0) == plan
    machine.log(plan)
    assert not lives(machine, inode)


def test_a_replaced_file_lingers_too() -> None:
    machine = Machine()
    lingering = Lingering(machine.state, 0.0)
    old = made(machine, b"/old")
    made(machine, b"/new")
    plan = machine.planner.plan(msg.Rename(b"/new", target=b"/old"), (), CLIENT, machine.now_ns)
    assert isinstance(plan, tuple)
    assert lingering.keep(plan, lambda _slot: True, 0.0)[0] == op.OpenWriter(old, KEEPER)


def test_a_new_leader_lets_go_of_what_the_one_before_held() -> None:
    machine = Machine()
    inode = made(machine, b"/file")
    removed_with_others(machine, Lingering(machine.state, 0.0), b"/file", 0.0)
    after = Lingering(machine.state, 100.0)
    assert after.due(100.0 + LINGER_SECONDS - 0.1) == ()
    machine.log(after.due(100.0 + LINGER_SECONDS))
    assert not lives(machine, inode)


def test_every_file_lingers_while_it_is_not_known_what_others_read() -> None:
    machine = Machine()
    lingering = Lingering(machine.state, 0.0)
    lingering.doubt(10.0)
    for path, now, lingers in ((b"/first", 10.0, True), (b"/second", 10.0 + LINGER_SECONDS, False)):
        inode = made(machine, path)
        plan = machine.planner.plan(msg.Unlink(path), (), CLIENT, machine.now_ns)
        assert isinstance(plan, tuple)
        machine.log(lingering.keep(plan, lambda _slot: False, now), CLIENT)
        assert lives(machine, inode) == lingers


async def test_what_is_removed_lingers_while_clients_have_to_show_again_what_they_read() -> None:
    log = HeldLog()
    async with leading(log) as harness:
        client, other = await harness.connect("client", CLIENT), await harness.connect("client", OTHER)
        for path in (b"/first", b"/second", b"/third"):
            await harness.change(client, msg.Create(path, open=False))
        await other.call(msg.Watch(), 5)
        await other.call(msg.Stat(b"/first", 1), 5)
        await harness.change(client, msg.Unlink(b"/third"))
        assert not harness.leader.state.writers.files_of(KEEPER), "all is known"
        (watching,) = harness.leader.notices._untaken
        harness.leader.disconnected(watching)
        await harness.change(client, msg.Unlink(b"/first"))
        assert len(harness.leader.state.writers.files_of(KEEPER)) == 1
    async with leading(log, replayed(log), log.batches[-1].hash) as harness:
        client = await harness.connect("client", CLIENT)
        await client.call(msg.Unlink(b"/second"), 5, (), msg.Call(9, 9))
        assert len(harness.leader.state.writers.files_of(KEEPER)) == 2


def test_very_many_lingering_files_go_early(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LINGERING_MAX > 1
    monkeypatch.setattr("gfsmaster.lingering.LINGERING_MAX", 1)
    machine = Machine()
    lingering = Lingering(machine.state, 0.0)
    for path in (b"/first", b"/second"):
        made(machine, path)
        removed_with_others(machine, lingering, path, 0.0)
    assert len(lingering.due(0.0)) == 1


@pytest.mark.parametrize("entries", [1, 2, 3, 100])
def test_files_of_a_removed_tree_linger_when_it_is_reclaimed(entries: int) -> None:
    machine = Machine()
    lingering = Lingering(machine.state, 0.0)
    for directory in (b"/tree", b"/tree/a", b"/tree/a/b", b"/tree/empty", b"/tree/z"):
        machine.do(msg.Mkdir(directory))
    files = [made(machine, path) for path in (b"/tree/0", b"/tree/a/1", b"/tree/a/b/2", b"/tree/a/c", b"/tree/z/9")]
    machine.do(msg.Link(b"/tree/a/1", target=b"/tree/a/also"))
    others = [made(machine, b"/tree/other%d" % number) for number in range(3)]
    kept = [machine.state.inodes.slot_of(inode) for inode in files]
    machine.do(msg.RemoveTree(b"/tree"))
    while machine.state.doomed:
        machine.log(lingering.keep((op.Reclaim(entries),), kept.__contains__, 0.0))
    assert all(lives(machine, inode) for inode in files)
    assert not any(lives(machine, inode) for inode in others)
    machine.check()
    machine.log(lingering.due(LINGER_SECONDS))
    assert not any(lives(machine, inode) for inode in files)
    machine.check()


def test_a_file_that_the_trash_gives_up_lingers() -> None:
    machine = Machine()
    lingering = Lingering(machine.state, 0.0)
    kept, other = made(machine, b"/kept"), made(machine, b"/other")
    for path in (b"/kept", b"/other"):
        machine.do(msg.MoveToTrash(path, keep_seconds=60))
    slot = machine.state.inodes.slot_of(kept)
    machine.log(lingering.keep((op.PurgeTrash((kept, other)),), lambda found: found == slot, 0.0))
    assert lives(machine, kept) and not lives(machine, other)
    machine.log(lingering.due(LINGER_SECONDS))
    assert not lives(machine, kept)
    machine.check()


async def test_a_reader_may_hold_a_file_of_a_tree_that_another_client_removes() -> None:
    async with leading(HeldLog(), None, GENESIS_HASH) as harness:
        client, watching = await harness.connect("client", CLIENT), await harness.connect("client", b"w" * 16)
        await watching.call(msg.Watch(), 5)
        await harness.change(client, msg.Mkdir(b"/tree"))
        reply = await harness.change(client, msg.Create(b"/tree/file", open=False))
        assert isinstance(reply, msg.AttributesReply)
        await watching.call(msg.Stat(b"/tree/file"), 5)
        await harness.change(client, msg.RemoveTree(b"/tree"))
        state, inode = harness.leader.state, reply.attributes.inode
        await until(lambda: not state.doomed)
        await watching.call(msg.Hold(inode), 5, (), msg.Call(1, 1))
        harness.clock.now += LINGER_SECONDS
        await until(lambda: not state.writers.has(state.inodes.slot_of(inode), KEEPER))
        assert state.inodes.slot_of(inode)


async def test_the_leader_keeps_house_of_lingering_files() -> None:
    async with leading(HeldLog(), None, GENESIS_HASH) as harness:
        client, watching = await harness.connect("client", CLIENT), await harness.connect("client", b"w" * 16)
        await watching.call(msg.Watch(), 5)
        reply = await harness.change(client, msg.Create(b"/file", open=False))
        assert isinstance(reply, msg.AttributesReply)
        await watching.call(msg.Stat(b"/file"), 5)
        await harness.change(client, msg.Unlink(b"/file"))
        slot_of = harness.leader.state.inodes.slot_of
        assert slot_of(reply.attributes.inode)
        harness.clock.now += LINGER_SECONDS
        await until(lambda: not slot_of(reply.attributes.inode))
