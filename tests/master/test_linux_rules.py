"""The same operations here and on a local file system of Linux: the same errors, and the same tree afterwards.

Needs root, which acts as others by seteuid(2). What the kernel decides for every file system, mounted ones too, is left
out: hard links of others' files, and what following links in sticky directories is protected from.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gfsmaster.fleet import Fleet
from gfsmaster.namespace import User
from gfsmaster.queries import Queries
from gfsprotocol import messages as msg
from gfsprotocol.errors import GfsError
from tests.master.machine import CLIENT, Machine

SHARED_MEMORY = Path("/dev/shm")
"""A tmpfs wherever there is one, and searchable for everyone."""
ROOT, ALICE, BOB = (0, 0), (1000, 1000, 50), (1001, 1001)
OLD_NS = 1_000_000_000
NO_REPLACE, EXCHANGE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users"),
    pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="there is no /dev/shm to compare with"),
]


@contextlib.contextmanager
def acting(user: User) -> Iterator[None]:
    """The process has the rights of ``user``, so it must not have threads that mind."""
    groups = os.getgroups()
    os.setgroups(user[2:])
    os.setegid(user[1])
    os.seteuid(user[0])
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@dataclass
class Step:
    """One operation of a user, on both sides."""

    name: str
    user: User
    here: Callable[[Machine, User], object]
    there: Callable[[bytes], object]

    def __repr__(self) -> str:
        return f"{self.name} as {self.user[0]}"


def rename_there(old: bytes, new: bytes, flags: int) -> None:
    if _libc.renameat2(-100, old, -100, new, flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def write_there(path: bytes, flags: int, mode: int, data: bytes) -> None:
    if not flags & os.O_EXCL:
        refuse_special(path)
    descriptor = os.open(path, os.O_WRONLY | flags, mode)
    try:
        if data:
            os.pwrite(descriptor, data, 0)
    finally:
        os.close(descriptor)


def refuse_special(path: bytes) -> None:
    """What becomes of opening a fifo or a device is the kernel's to say; here it is no file."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # opening it says why
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        allowed = os.access(path, os.W_OK, effective_ids=True)
        raise OSError(errno.EINVAL if allowed else errno.EACCES, "not a regular file")


def close_here(machine: Machine, user: User, inode: int, size: int) -> None:
    machine.do(msg.Close(inode, size=size if size else -1), user)


def query(machine: Machine, body: msg.RequestBody, user: User) -> msg.ReplyBody:
    return Queries(machine.state, Fleet(machine.state), machine.planner.namespace, lambda *_: b"").answer(body, user)


# ------------------------------------------------------------------------------------------------------- the steps


def requested(name: str, user: User, body: msg.RequestBody, there: Callable[[bytes], object]) -> Step:
    return Step(f"{name} {body}", user, lambda machine, as_user: machine.do(body, as_user), there)


def mkdir(user: User, path: bytes, mode: int) -> Step:
    return requested("mkdir", user, msg.Mkdir(path, mode=mode & 0o1777), lambda base: os.mkdir(base + path, mode))


def create(user: User, path: bytes, mode: int, flags: int, data: bytes) -> Step:
    body = msg.Create(
        path,
        mode=mode,
        exclusive=bool(flags & os.O_EXCL),
        truncate=bool(flags & os.O_TRUNC),
        follow=not flags & os.O_NOFOLLOW,
    )

    def here(machine: Machine, as_user: User) -> None:
        close_here(machine, as_user, machine.attributes(body, as_user).inode, len(data))

    def there(base: bytes) -> None:
        write_there(base + path, os.O_CREAT | flags, mode, data)

    return Step(f"create {body} {data!r}", user, here, there)


def write(user: User, path: bytes, truncates: bool, data: bytes) -> Step:
    body = msg.OpenForWrite(path, truncate=truncates)

    def here(machine: Machine, as_user: User) -> None:
        close_here(machine, as_user, machine.attributes(body, as_user).inode, len(data))

    flags = os.O_TRUNC if truncates else 0
    return Step(f"write {body} {data!r}", user, here, lambda base: write_there(base + path, flags, 0, data))


def mkfifo(user: User, path: bytes, mode: int) -> Step:
    mode |= stat.S_IFIFO
    return requested("mkfifo", user, msg.MakeNode(path, mode=mode), lambda base: os.mknod(base + path, mode))


def mknod(user: User, path: bytes) -> Step:
    mode = stat.S_IFCHR | 0o600
    body = msg.MakeNode(path, mode=mode, device=0x103)
    return requested("mknod", user, body, lambda base: os.mknod(base + path, mode, 0x103))


def symlink(user: User, target: bytes, path: bytes) -> Step:
    return requested("symlink", user, msg.Symlink(path, target=target), lambda base: os.symlink(target, base + path))


def link(path: bytes, target: bytes) -> Step:
    def there(base: bytes) -> None:
        os.link(base + path, base + target, follow_symlinks=False)

    return requested("link", ROOT, msg.Link(path, target=target), there)


def unlink(user: User, path: bytes) -> Step:
    return requested("unlink", user, msg.Unlink(path), lambda base: os.unlink(base + path))


def rmdir(user: User, path: bytes) -> Step:
    return requested("rmdir", user, msg.Rmdir(path), lambda base: os.rmdir(base + path))


def rename(user: User, path: bytes, target: bytes, flags: int) -> Step:
    body = msg.Rename(path, target=target, no_replace=flags == NO_REPLACE, exchange=flags == EXCHANGE)
    return requested("rename", user, body, lambda base: rename_there(base + path, base + target, flags))


def chmod(user: User, path: bytes, mode: int) -> Step:
    return requested("chmod", user, msg.SetAttributes(path, mode=mode), lambda base: os.chmod(base + path, mode))


def chown(user: User, path: bytes, uid: int, gid: int, follow: bool) -> Step:
    body = msg.SetAttributes(path, uid=uid if uid >= 0 else None, gid=gid if gid >= 0 else None, follow=follow)

    def there(base: bytes) -> None:
        os.chown(base + path, uid, gid, follow_symlinks=follow)

    return requested("chown", user, body, there)


def truncate(user: User, path: bytes, size: int) -> Step:
    def there(base: bytes) -> None:
        os.truncate(base + path, size)
        os.utime(base + path)  # file systems differ in whether a file that had this size is modified: ours is

    return requested("truncate", user, msg.SetAttributes(path, size=size), there)


def touch(user: User, path: bytes) -> Step:
    body = msg.SetAttributes(path, accessed_ns=-1, modified_ns=-1)
    return requested("touch", user, body, lambda base: os.utime(base + path))


def utime(user: User, path: bytes, time_ns: int) -> Step:
    body = msg.SetAttributes(path, accessed_ns=time_ns, modified_ns=time_ns)
    return requested("utime", user, body, lambda base: os.utime(base + path, ns=(time_ns, time_ns)))


def set_xattr(user: User, path: bytes, name: bytes, flags: int) -> Step:
    create, replace = flags == os.XATTR_CREATE, flags == os.XATTR_REPLACE
    body = msg.SetXattr(path, name=name, value=b"value", create=create, replace=replace, follow=False)

    def there(base: bytes) -> None:
        os.setxattr(base + path, name, b"value", flags, follow_symlinks=False)

    return requested("setxattr", user, body, there)


def remove_xattr(user: User, path: bytes, name: bytes) -> Step:
    body = msg.RemoveXattr(path, name=name, follow=False)
    return requested("removexattr", user, body, lambda base: os.removexattr(base + path, name, follow_symlinks=False))


def get_xattr(user: User, path: bytes, name: bytes) -> Step:
    body = msg.GetXattr(path, name=name, follow=False)
    return Step(
        f"getxattr {body}",
        user,
        lambda machine, as_user: query(machine, body, as_user),
        lambda base: os.getxattr(base + path, name, follow_symlinks=False),
    )


def access(user: User, path: bytes, mask: int) -> Step:
    def there(base: bytes) -> None:
        os.stat(base + path)
        if not os.access(base + path, mask, effective_ids=True):
            raise PermissionError(errno.EACCES, "no access")

    return Step(
        f"access {path!r} {mask}",
        user,
        lambda machine, as_user: query(machine, msg.CheckAccess(path, mask=mask), as_user),
        there,
    )


# -------------------------------------------------------------------------------------------------- the comparison


def protected() -> bool:
    """Whether the kernel forbids in sticky directories what permissions allow."""
    settings_of_kernel = ("protected_symlinks", "protected_regular", "protected_fifos")
    return any(Path("/proc/sys/fs", name).read_text().strip() != "0" for name in settings_of_kernel)


def tree_there(base: bytes, prefix: bytes = b"") -> dict[bytes, tuple[object, ...]]:
    found: dict[bytes, tuple[object, ...]] = {}
    for name in sorted(os.listdir(base + prefix)):
        path = prefix + b"/" + name
        details = os.lstat(base + path)
        is_directory = stat.S_ISDIR(details.st_mode)
        names = os.listxattr(base + path, follow_symlinks=False)
        found[path] = (
            oct(details.st_mode),
            details.st_uid,
            details.st_gid,
            details.st_nlink,
            0 if is_directory else details.st_size,
            details.st_rdev,
            details.st_mtime_ns if details.st_mtime_ns <= 2 * OLD_NS else "now",
            sorted(os.fsencode(attribute) for attribute in names if attribute.startswith(("user.", "trusted."))),
        )
        if is_directory:
            found |= tree_there(base, path)
    return found


def tree_here(machine: Machine, prefix: bytes = b"") -> dict[bytes, tuple[object, ...]]:
    found: dict[bytes, tuple[object, ...]] = {}
    for name in machine.names(prefix or b"/"):
        path = prefix + b"/" + name
        details = machine.stat(path, follow=False)
        is_directory = stat.S_ISDIR(details.mode)
        names = query(machine, msg.ListXattrs(path, follow=False), ())
        assert isinstance(names, msg.Names)
        found[path] = (
            oct(details.mode),
            details.uid,
            details.gid,
            details.links,
            0 if is_directory else details.size,
            details.device,
            details.modified_ns if details.modified_ns <= 2 * OLD_NS else "now",
            list(names.names),
        )
        if is_directory:
            found |= tree_here(machine, path)
    return found


def make_old(machine: Machine, base: bytes, paths: list[bytes]) -> None:
    """Every time is an old one, so that one sees which are new afterwards."""
    for path in paths:
        os.utime(base + path, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
        machine.do(msg.SetAttributes(path, accessed_ns=OLD_NS, modified_ns=OLD_NS, follow=False))


def outcome(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except GfsError as error:
        return errno.errorcode[error.errno]
    return "done"


def compare(steps: list[Step]) -> None:
    machine = Machine()
    machine.now_ns = 3 * OLD_NS
    base = os.fsencode(tempfile.mkdtemp(dir=SHARED_MEMORY, prefix="gfs-rules-"))
    umask = os.umask(0)
    try:
        os.chmod(base, 0o777)
        for step in steps:
            make_old(machine, base, list(tree_there(base)))
            with acting(step.user):
                expected = outcome(lambda step=step: step.there(base))  # type: ignore[misc]
            found = outcome(lambda step=step: step.here(machine, step.user))  # type: ignore[misc]
            assert found == expected, step
            assert tree_here(machine) == tree_there(base), step
        machine.check()
        assert not machine.state.writers.files_of(CLIENT)
    finally:
        os.umask(umask)
        shutil.rmtree(base)


users = st.sampled_from([ROOT, ALICE, ALICE, BOB])
places = st.sampled_from([b"/a", b"/b", b"/d", b"/d/a", b"/d/b", b"/d/e", b"/d/e/a", b"/f", b"/f/a", b"/l", b"/l/a"])
slashed = st.tuples(places, st.sampled_from([b"", b"", b"", b"", b"/"])).map(b"".join)
dotted = places.map(lambda path: path + b"/.")
targets = st.sampled_from([b"a", b"d", b"d/", b"l", b"e", b".", b"nowhere", b"d/a"])
modes = st.sampled_from([0, 0o400, 0o600, 0o644, 0o666, 0o755, 0o777, 0o2755, 0o2777, 0o4755, 0o6755, 0o2644, 0o6777])
directory_modes = st.sampled_from([0o700, 0o755, 0o777, 0o777, 0o555, 0o300] + ([] if protected() else [0o1777]))
owners = st.sampled_from([-1, 0, 1000, 1001])
groups = st.sampled_from([-1, 0, 50, 1000, 1001])
contents = st.sampled_from([b"", b"x"])
attributes = st.sampled_from([b"user.a", b"user.b", b"trusted.a"])
flags = st.sampled_from([0, 0, os.O_EXCL, os.O_TRUNC, os.O_NOFOLLOW, os.O_NOFOLLOW | os.O_TRUNC])
steps = st.one_of(
    st.builds(mkdir, users, slashed, directory_modes),
    st.builds(mkdir, st.just(ROOT), dotted, directory_modes),
    st.builds(mkdir, users, places, directory_modes),
    st.builds(create, users, places, modes, flags, contents),
    st.builds(write, users, places, st.booleans(), contents),
    st.builds(mkfifo, users, places, modes),
    st.builds(mknod, users, places),
    st.builds(symlink, users, targets, places),
    st.builds(link, places, places),
    st.builds(unlink, users, places),
    st.builds(unlink, st.just(ROOT), slashed),
    st.builds(rmdir, users, slashed),
    st.builds(rmdir, st.just(ROOT), dotted),
    st.builds(rename, users, slashed, slashed, st.sampled_from([0, 0, 0, NO_REPLACE, EXCHANGE])),
    st.builds(chmod, users, places, st.one_of(modes, directory_modes)),
    st.builds(chmod, users, places, st.one_of(modes, directory_modes)),
    st.builds(chown, users, places, owners, groups, st.booleans()),
    st.builds(truncate, users, places, st.integers(0, 2)),
    st.builds(touch, users, places),
    st.builds(utime, users, places, st.sampled_from([0, 1, OLD_NS + 1])),
    st.builds(set_xattr, users, places, attributes, st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE])),
    st.builds(remove_xattr, users, places, attributes),
    st.builds(get_xattr, users, places, attributes),
    st.builds(access, users, places, st.integers(0, 7)),
)


BEGINNING = [
    mkdir(ALICE, b"/d", 0o777),
    create(ALICE, b"/a", 0o6777, 0, b"x"),
    create(BOB, b"/d/b", 0o666, 0, b"x"),
    mkdir(BOB, b"/d/e", 0o755),
    symlink(ALICE, b"d", b"/l"),
    mkdir(ALICE, b"/f", 0o2777),
    chown(ALICE, b"/f", -1, 50, follow=True),
    chmod(ALICE, b"/f", 0o2777),
]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=1, max_size=25))
def test_operations_do_what_they_do_on_a_local_file_system(sequence: list[Step]) -> None:
    compare([*BEGINNING, *sequence])
