"""Fifos, sockets and devices."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsmaster.checkpoint import decode, encode
from gfsprotocol import messages as msg
from gfsprotocol.errors import AlreadyExists, InvalidArgument, NotPermitted, PermissionDenied
from tests.master.machine import Machine

ALICE = (1000, 1000)
DEVICE_KINDS = (stat.S_IFCHR, stat.S_IFBLK)


@given(
    kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, *DEVICE_KINDS]),
    permissions=st.integers(0, 0o7777),
    device=st.integers(0, 2**64 - 1),
)
def test_a_node_keeps_its_kind_permissions_and_number_through_a_checkpoint(
    kind: int, permissions: int, device: int
) -> None:
    machine = Machine()
    made = machine.attributes(msg.MakeNode(b"/node", mode=kind | permissions, device=device))
    assert made.mode == kind | permissions
    assert made.device == (device if kind in DEVICE_KINDS else 0)
    restored = decode(encode(machine.state))
    assert restored.attributes(restored.inodes.slot_of(made.inode)) == made
    assert restored.digest() == restored.recomputed_digest()
    machine.check()


def test_the_number_of_a_removed_device_does_not_come_back_with_its_slot() -> None:
    machine = Machine()
    machine.do(msg.MakeNode(b"/null", mode=stat.S_IFCHR | 0o666, device=0x103))
    machine.do(msg.Unlink(b"/null"))
    assert machine.attributes(msg.Create(b"/file", open=False)).device == 0
    machine.check()


def test_only_root_makes_devices_and_everyone_fifos() -> None:
    machine = Machine()
    for kind in DEVICE_KINDS:
        with pytest.raises(NotPermitted):
            machine.do(msg.MakeNode(b"/device", mode=kind | 0o600, device=1), ALICE)
    made = machine.attributes(msg.MakeNode(b"/fifo", mode=stat.S_IFIFO | 0o600), ALICE)
    assert (made.uid, made.gid, made.links) == (1000, 1000, 1)
    machine.do(msg.Mkdir(b"/private", mode=0o700))
    with pytest.raises(PermissionDenied):
        machine.do(msg.MakeNode(b"/private/fifo", mode=stat.S_IFIFO), ALICE)
    with pytest.raises(AlreadyExists):
        machine.do(msg.MakeNode(b"/fifo", mode=stat.S_IFIFO), ALICE)


@pytest.mark.parametrize("mode", [0o644, stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777])
def test_what_is_no_node_is_refused(mode: int) -> None:
    with pytest.raises(InvalidArgument):
        Machine().do(msg.MakeNode(b"/node", mode=mode))


def test_a_node_holds_no_bytes() -> None:
    machine = Machine()
    made = machine.attributes(msg.MakeNode(b"/fifo", mode=stat.S_IFIFO | 0o600))
    for body in (
        msg.OpenForWrite(b"/fifo"),
        msg.Create(b"/fifo"),
        msg.SetAttributes(b"/fifo", size=0),
        msg.Hold(made.inode),
        msg.RecordLength(made.inode, ()),
    ):
        with pytest.raises(InvalidArgument):
            machine.do(body)
