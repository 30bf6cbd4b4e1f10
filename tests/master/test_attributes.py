"""What is asked of a file that a mount has open, whatever its mode and its names are by now; and limits."""

import stat

import pytest

from gfsmaster.attributes import XATTRS_PER_INODE_MAX
from gfsmaster.fleet import Fleet
from gfsmaster.queries import Queries
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    AttributesFull,
    AttributeTooLarge,
    InvalidArgument,
    NoSuchAttribute,
    NotPermitted,
    PermissionDenied,
    StaleHandle,
)
from gfsprotocol.ids import XATTR_VALUE_BYTES_MAX
from tests.master.machine import CLIENT, Machine

OTHER = b"o" * 16
ALICE, BOB = (1000, 1000), (1001, 1001)


def removed(machine: Machine) -> int:
    """A file that lives without a name, and that its client has open."""
    inode = machine.attributes(msg.Create(b"/file", mode=0o600, open=False), ALICE).inode
    assert machine.do(msg.Unlink(b"/file", hold=True), ALICE) == msg.Removed(inode, held=True)
    return inode


def test_a_file_without_a_name_can_be_used_by_its_number() -> None:
    machine = Machine()
    inode = removed(machine)
    queries = Queries(machine.state, Fleet(machine.state), machine.planner.namespace, lambda *_: b"")
    machine.do(msg.OpenForWrite(b"", inode), ALICE)
    chunk = machine.add_chunk(inode, 0)
    machine.do(msg.RecordLength(inode, (msg.ChunkLength(0, chunk, 5, 1),)), ALICE)
    machine.do(msg.SetAttributes(b"", inode, mode=0o640, size=3), ALICE)
    machine.do(msg.SetXattr(b"", inode, b"user.a", b"1"), ALICE)
    assert queries.answer(msg.GetXattr(b"", inode, b"user.a"), ALICE) == msg.Data(b"1")
    assert queries.answer(msg.ListXattrs(b"", inode), ALICE) == msg.Names((b"user.a",))
    machine.do(msg.RemoveXattr(b"", inode, b"user.a"), ALICE)
    located = queries.answer(msg.Locate(b"", inode), ALICE)
    assert isinstance(located, msg.Locations)
    assert (located.attributes.size, located.attributes.links, located.attributes.mode) == (3, 0, stat.S_IFREG | 0o640)
    assert [location.chunk for location in located.chunks] == [chunk]
    assert queries.answer(msg.Stat(b"", inode), ALICE) == msg.AttributesReply(located.attributes)
    for _ in range(2):
        machine.do(msg.Close(inode), ALICE)
    with pytest.raises(StaleHandle):
        machine.do(msg.SetAttributes(b"", inode, size=0), ALICE)
    machine.check()


def test_attributes_say_whether_there_are_extended_ones() -> None:
    machine = Machine()
    inode = machine.attributes(msg.Create(b"/file", open=False)).inode
    assert not machine.stat(b"/file").has_xattrs
    machine.do(msg.SetXattr(b"", inode, b"user.a", b"1"))
    assert machine.stat(b"/file").has_xattrs
    machine.do(msg.RemoveXattr(b"", inode, b"user.a"))
    assert not machine.stat(b"/file").has_xattrs


def test_a_writer_cuts_what_it_could_not_open_any_more() -> None:
    machine = Machine()
    inode = machine.attributes(msg.Create(b"/file", mode=0o600), ALICE).inode
    machine.do(msg.SetAttributes(b"/file", uid=1001, mode=0))
    with pytest.raises(PermissionDenied):
        machine.do(msg.SetAttributes(b"", inode, size=5), ALICE)
    assert machine.attributes(msg.SetAttributes(b"", inode, size=5, as_writer=True), ALICE).size == 5
    times = msg.SetAttributes(b"", inode, accessed_ns=5, modified_ns=6, as_writer=True)
    assert machine.attributes(times, ALICE).modified_ns == 6
    with pytest.raises(PermissionDenied):
        machine.do(msg.SetAttributes(b"", inode, size=6, as_writer=True), ALICE, OTHER)
    with pytest.raises(NotPermitted):
        machine.do(msg.SetAttributes(b"", inode, mode=0o777, as_writer=True), ALICE)


def test_a_truncation_may_come_with_its_time() -> None:
    machine = Machine()
    machine.do(msg.Create(b"/file", mode=0o666, open=False), ALICE)
    assert machine.attributes(msg.SetAttributes(b"/file", size=1, modified_ns=7), BOB).modified_ns == 7
    with pytest.raises(NotPermitted):
        machine.do(msg.SetAttributes(b"/file", size=1, accessed_ns=7, modified_ns=7), BOB)


@pytest.mark.parametrize("body", [msg.Close(0, size=5), msg.RecordLength(0, (), 5)])
@pytest.mark.parametrize(("user", "mode"), [((), 0o6777), (ALICE, 0o777), (BOB, 0o777)])
def test_writing_takes_the_rights_from_a_program_that_it_lends(
    body: msg.Close | msg.RecordLength, user: tuple[int, ...], mode: int
) -> None:
    machine = Machine()
    inode = machine.attributes(msg.Create(b"/program", mode=0o6777), ALICE).inode
    recorded = type(body)(inode, (), 5)
    assert stat.S_IMODE(machine.attributes(recorded, user).mode) == mode
    machine.check()


def test_closing_without_writing_takes_nothing() -> None:
    machine = Machine()
    inode = machine.attributes(msg.Create(b"/program", mode=0o6777), ALICE).inode
    assert stat.S_IMODE(machine.attributes(msg.Close(inode), BOB).mode) == 0o6777


def test_a_symbolic_link_has_no_mode_of_its_own() -> None:
    machine = Machine()
    machine.do(msg.Symlink(b"/link", target=b"nowhere"))
    with pytest.raises(InvalidArgument):
        machine.do(msg.SetAttributes(b"/link", mode=0o600, follow=False))


def test_what_a_file_is_told_of_changes_its_time_of_change() -> None:
    machine = Machine()
    machine.do(msg.Mkdir(b"/d"))
    machine.do(msg.Create(b"/a", open=False))
    for body in (
        msg.Rename(b"/a", target=b"/b"),
        msg.Link(b"/b", target=b"/a"),
        msg.Unlink(b"/a"),
        msg.SetAttributes(b"/b", mode=0o600),
        msg.SetAttributes(b"/b", uid=5),
        msg.SetAttributes(b"/b", accessed_ns=5),
        msg.SetAttributes(b"/b", size=0),
        msg.SetXattr(b"/b", name=b"user.a", value=b"1"),
        msg.RemoveXattr(b"/b", name=b"user.a"),
    ):
        before = machine.now_ns
        machine.do(body)
        assert machine.stat(b"/b").changed_ns > before, body
    before = machine.now_ns
    machine.do(msg.Rename(b"/b", target=b"/d", exchange=True))
    assert min(machine.stat(b"/b").changed_ns, machine.stat(b"/d").changed_ns) > before


def test_limits_of_extended_attributes() -> None:
    machine = Machine()
    machine.do(msg.Create(b"/file", open=False))
    with pytest.raises(AttributeTooLarge):
        machine.do(msg.SetXattr(b"/file", name=b"user.a", value=bytes(XATTR_VALUE_BYTES_MAX + 1)))
    for number in range(XATTRS_PER_INODE_MAX):
        machine.do(msg.SetXattr(b"/file", name=b"user.%d" % number, value=b"1"))
    with pytest.raises(AttributesFull):
        machine.do(msg.SetXattr(b"/file", name=b"user.more", value=b"1"))
    machine.do(msg.SetXattr(b"/file", name=b"user.0", value=b"2"))


def test_trusted_attributes_are_roots_alone() -> None:
    machine = Machine()
    machine.do(msg.Create(b"/file", mode=0o666, open=False), ALICE)
    machine.do(msg.SetXattr(b"/file", name=b"trusted.a", value=b"1"))
    machine.do(msg.SetXattr(b"/file", name=b"security.a", value=b"1"))
    queries = Queries(machine.state, Fleet(machine.state), machine.planner.namespace, lambda *_: b"")
    with pytest.raises(NoSuchAttribute):
        queries.answer(msg.GetXattr(b"/file", name=b"trusted.a"), ALICE)
    assert queries.answer(msg.GetXattr(b"/file", name=b"security.a"), ALICE) == msg.Data(b"1")
    assert queries.answer(msg.ListXattrs(b"/file"), ALICE) == msg.Names((b"security.a",))
    for name in (b"trusted.a", b"security.a"):
        with pytest.raises(NotPermitted):
            machine.do(msg.SetXattr(b"/file", name=name, value=b"2"), ALICE)
    assert queries.answer(msg.ListXattrs(b"/file"), ()) == msg.Names((b"security.a", b"trusted.a"))


def test_a_hold_outlives_the_other_writers() -> None:
    machine = Machine()
    inode = removed(machine)
    machine.do(msg.Hold(inode), BOB, OTHER)
    machine.do(msg.Close(inode), ALICE, CLIENT)
    assert machine.state.inodes.slot_of(inode)
