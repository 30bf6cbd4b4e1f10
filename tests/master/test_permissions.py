"""POSIX's rules about who may do what, as far as the master decides them."""

import stat

import pytest

from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    InvalidArgument,
    NameTooLong,
    NotADirectory,
    NotFound,
    NotPermitted,
    PermissionDenied,
    StaleHandle,
    SymlinkLoop,
)
from gfsprotocol.ids import ROOT_INODE
from tests.master.machine import Machine

ALICE = (1000, 1000, 50)
BOB = (1001, 1001)


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.do(msg.Mkdir(b"/alice", mode=0o750))
    machine.do(msg.SetAttributes(b"/alice", uid=1000, gid=50))
    machine.do(msg.Create(b"/alice/f", mode=0o640, open=False), ALICE)
    return machine


def test_a_new_file_belongs_to_its_maker(machine: Machine) -> None:
    attributes = machine.stat(b"/alice/f")
    assert (attributes.uid, attributes.gid, stat.S_IMODE(attributes.mode)) == (1000, 1000, 0o640)


def test_search_permission_is_needed_on_the_way(machine: Machine) -> None:
    with pytest.raises(PermissionDenied):
        machine.do(msg.Create(b"/alice/f", open=True), BOB)
    with pytest.raises(PermissionDenied):
        machine.planner.namespace.find(BOB, 1, b"/alice/f")


def test_a_group_member_has_the_groups_rights(machine: Machine) -> None:
    member = (1002, 1002, 50)
    assert machine.planner.namespace.find(member, 1, b"/alice/f")
    with pytest.raises(PermissionDenied):
        machine.do(msg.Create(b"/alice/g"), member)


def test_the_owners_class_counts_for_the_owner_even_if_it_is_worse(machine: Machine) -> None:
    machine.do(msg.SetAttributes(b"/alice/f", mode=0o066), ALICE)
    with pytest.raises(PermissionDenied):
        machine.do(msg.OpenForWrite(b"/alice/f"), ALICE)


def test_in_a_sticky_directory_only_owners_remove_and_rename(machine: Machine) -> None:
    machine.do(msg.Mkdir(b"/tmp", mode=0o1777))
    machine.do(msg.Create(b"/tmp/a", open=False), ALICE)
    machine.do(msg.Create(b"/tmp/b", open=False), BOB)
    for body in (
        msg.Unlink(b"/tmp/a"),
        msg.Rename(b"/tmp/a", target=b"/tmp/c"),
        msg.Rename(b"/tmp/b", target=b"/tmp/a"),
        msg.MoveToTrash(b"/tmp/a"),
        msg.RemoveTree(b"/tmp/a"),
    ):
        with pytest.raises(NotPermitted):
            machine.do(body, BOB)
    machine.do(msg.Unlink(b"/tmp/a"), ALICE)


def test_a_setgid_directory_passes_its_group_on(machine: Machine) -> None:
    machine.do(msg.Mkdir(b"/shared", mode=0o2777))
    machine.do(msg.SetAttributes(b"/shared", gid=77))
    made = machine.attributes(msg.Create(b"/shared/f", open=False), ALICE)
    inner = machine.attributes(msg.Mkdir(b"/shared/d"), ALICE)
    assert (made.gid, inner.gid, bool(inner.mode & stat.S_ISGID)) == (77, 77, True)


def test_only_the_owner_changes_the_mode_and_only_root_the_owner(machine: Machine) -> None:
    machine.do(msg.SetAttributes(b"/alice", mode=0o777))
    for body in (msg.SetAttributes(b"/alice/f", mode=0o777), msg.SetAttributes(b"/alice/f", gid=1001)):
        with pytest.raises(NotPermitted):
            machine.do(body, BOB)
    with pytest.raises(NotPermitted):
        machine.do(msg.SetAttributes(b"/alice/f", uid=1001), ALICE)
    with pytest.raises(NotPermitted):
        machine.do(msg.SetAttributes(b"/alice/f", gid=1001), ALICE)
    assert machine.attributes(msg.SetAttributes(b"/alice/f", gid=50), ALICE).gid == 50


def test_chown_drops_setuid_and_setgid(machine: Machine) -> None:
    machine.do(msg.SetAttributes(b"/alice/f", mode=0o6755))
    changed = machine.attributes(msg.SetAttributes(b"/alice/f", gid=50), ALICE)
    assert stat.S_IMODE(changed.mode) == 0o755


def test_chmod_by_a_non_member_drops_setgid(machine: Machine) -> None:
    machine.do(msg.SetAttributes(b"/alice/f", gid=99))
    changed = machine.attributes(msg.SetAttributes(b"/alice/f", mode=0o2755), ALICE)
    assert stat.S_IMODE(changed.mode) == 0o755


def test_times_can_be_set_to_now_by_writers_and_to_anything_by_the_owner(machine: Machine) -> None:
    machine.do(msg.SetAttributes(b"/alice", mode=0o777))
    machine.do(msg.SetAttributes(b"/alice/f", mode=0o666))
    both = msg.SetAttributes(b"/alice/f", accessed_ns=-1, modified_ns=-1)
    assert machine.attributes(both, BOB).modified_ns == machine.now_ns - 1000
    for times in ({"modified_ns": 5}, {"modified_ns": -1}, {"accessed_ns": -1}, {"accessed_ns": 5, "modified_ns": -1}):
        with pytest.raises(NotPermitted):
            machine.do(msg.SetAttributes(b"/alice/f", **times), BOB)
    machine.do(msg.SetAttributes(b"/alice/f", mode=0o640))
    with pytest.raises(PermissionDenied):
        machine.do(both, BOB)
    assert machine.attributes(msg.SetAttributes(b"/alice/f", accessed_ns=5), ALICE).accessed_ns == 5


def test_removing_a_tree_needs_rights_in_all_of_it(machine: Machine) -> None:
    machine.do(msg.Mkdir(b"/open", mode=0o777))
    machine.do(msg.Mkdir(b"/open/d", mode=0o777), ALICE)
    machine.do(msg.Mkdir(b"/open/d/private", mode=0o700), ALICE)
    machine.do(msg.Create(b"/open/d/private/f"), ALICE)
    for body in (msg.RemoveTree(b"/open/d"), msg.MoveToTrash(b"/open/d")):
        with pytest.raises(PermissionDenied):
            machine.do(body, BOB)
    machine.do(msg.RemoveTree(b"/open/d"), ALICE)


def test_the_trash_is_each_users_own(machine: Machine) -> None:
    machine.do(msg.Mkdir(b"/open", mode=0o777))
    made = machine.attributes(msg.Create(b"/open/f", open=False), ALICE)
    machine.do(msg.MoveToTrash(b"/open/f"), ALICE)
    with pytest.raises(PermissionDenied):
        machine.do(msg.RestoreTrash(b"", inode=made.inode), BOB)
    assert machine.do(msg.EmptyTrash(), BOB) == msg.Count(0)
    machine.do(msg.RestoreTrash(b"", inode=made.inode), ALICE)
    assert machine.stat(b"/open/f").inode == made.inode


def test_extended_attributes_follow_the_files_permissions(machine: Machine) -> None:
    with pytest.raises(NotPermitted):
        machine.do(msg.SetXattr(b"/alice/f", name=b"trusted.x", value=b"1"), ALICE)
    machine.do(msg.SetXattr(b"/alice/f", name=b"user.x", value=b"1"), ALICE)
    machine.do(msg.SetAttributes(b"/alice", mode=0o777))
    with pytest.raises(PermissionDenied):
        machine.do(msg.RemoveXattr(b"/alice/f", name=b"user.x"), BOB)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"/" + b"x" * 5000, NameTooLong),
        (b"/" + b"x" * 256, NameTooLong),
        (b"/a\0b", InvalidArgument),
        (b"/alice/f/below", NotADirectory),
        (b"/none/f", NotFound),
    ],
)
def test_bad_paths_get_one_line_and_change_nothing(machine: Machine, path: bytes, error: type[Exception]) -> None:
    sequence = machine.state.sequence
    with pytest.raises(error) as caught:
        machine.do(msg.Create(path))
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert machine.state.sequence == sequence


def test_symlinks_in_a_circle_end(machine: Machine) -> None:
    machine.do(msg.Symlink(b"/a", target=b"/b"))
    machine.do(msg.Symlink(b"/b", target=b"/a"))
    with pytest.raises(SymlinkLoop):
        machine.stat(b"/a")


def test_creating_through_a_dangling_symlink_makes_its_target(machine: Machine) -> None:
    machine.do(msg.Symlink(b"/link", target=b"alice/new"))
    made = machine.attributes(msg.Create(b"/link", open=False))
    assert machine.stat(b"/alice/new").inode == made.inode


def test_an_inode_that_is_gone_is_stale_and_never_another(machine: Machine) -> None:
    inode = machine.stat(b"/alice/f").inode
    machine.do(msg.Unlink(b"/alice/f"))
    machine.do(msg.Create(b"/alice/g", open=False))
    assert machine.stat(b"/alice/g").inode != inode
    with pytest.raises(StaleHandle):
        machine.planner.namespace.find((), inode, b"")


def test_fault_30_removing_a_large_tree_is_one_record_and_is_reclaimed_in_slices(machine: Machine) -> None:
    machine.do(msg.Mkdir(b"/big"))
    for directory in range(20):
        machine.do(msg.Mkdir(b"/big/%d" % directory))
        for number in range(50):
            machine.do(msg.Create(b"/big/%d/%d" % (directory, number), open=False))
    before = machine.state.sequence
    machine.do(msg.RemoveTree(b"/big"))
    assert machine.state.sequence == before + 1
    with pytest.raises(NotFound):
        machine.stat(b"/big")
    machine.reclaim(entries=100)
    assert machine.state.sequence <= before + 15
    assert len(machine.state.inodes) == 3
    machine.check()


@pytest.fixture
def linked(machine: Machine) -> Machine:
    """/home leads to /real; there, /real/alice/out leads to /alice."""
    for path in (b"/real", b"/real/alice", b"/real/alice/sub"):
        machine.do(msg.Mkdir(path))
    machine.do(msg.Symlink(b"/home", target=b"/real"))
    machine.do(msg.Symlink(b"/real/alice/out", target=b"/alice"))
    return machine


@pytest.mark.parametrize("path", [b"/home/alice/sub", b"/home/alice", b"/home/alice/missing", b"/home", b"/alice/f"])
def test_a_confined_path_follows_links_above_its_directory(linked: Machine, path: bytes) -> None:
    linked.planner.namespace.confined = (b"/other/place", b"/home/alice")
    found = linked.planner.namespace.walk((), ROOT_INODE, path, follow=True)
    linked.planner.namespace.confined = ()
    assert found == linked.planner.namespace.walk((), ROOT_INODE, path, follow=True)


@pytest.mark.parametrize(
    ("confined", "path"),
    [
        ((b"/home/alice",), b"/home/alice/out/f"),
        ((b"/home/alice",), b"/home/alice/out"),
        ((b"/home/alice",), b"/home/alice/out/"),
        ((b"/home",), b"/home/alice"),
        ((b"/home/alice", b"/home"), b"/home/alice"),
        ((b"/real/alice/out",), b"/real/alice/out/f"),
        ((b"/elsewhere",), b"/home/alice"),
    ],
)
def test_a_confined_path_follows_no_link_from_its_directory_on(
    linked: Machine, confined: tuple[bytes, ...], path: bytes
) -> None:
    linked.planner.namespace.confined = confined
    for body in (msg.Create(path), msg.OpenForWrite(path), msg.SetAttributes(path, mode=0o600)):
        with pytest.raises(PermissionDenied, match="no symbolic link"):
            linked.do(body)


def test_a_confined_path_may_name_a_link_itself(linked: Machine) -> None:
    linked.planner.namespace.confined = (b"/real/alice",)
    assert stat.S_ISLNK(linked.stat(b"/real/alice/out", follow=False).mode)
    linked.do(msg.Rename(b"/real/alice/out", target=b"/real/alice/sub/out"))
    with pytest.raises(PermissionDenied):
        linked.do(msg.Rename(b"/real/alice/sub", target=b"/real/alice/sub/out/sub"))
    linked.do(msg.Unlink(b"/real/alice/sub/out"))


def test_directories_above_a_confined_one_are_made_through_links(linked: Machine) -> None:
    linked.planner.namespace.confined = (b"/home/bob/own",)
    linked.do(msg.Mkdir(b"/home/bob/own/new", parents=True))
    assert linked.names(b"/real/bob/own") == [b"new"]


def test_from_an_inode_on_a_confined_path_follows_no_link(linked: Machine) -> None:
    inode = linked.stat(b"/real/alice").inode
    linked.planner.namespace.confined = (b"/out",)
    with pytest.raises(PermissionDenied, match="no symbolic link"):
        linked.planner.namespace.walk((), inode, b"out/f", follow=True)
