"""Modes, owners, times, extended attributes: who may change them, and what changes them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tests.mounted.scenarios import PAST_NS, Seen, attempt, read, write
from tests.mounted.worker import user

ALICE, BOB, TEAM = 12345, 12346, 22345


def _mode(path: Path) -> str:
    status = os.lstat(path)
    return f"{stat.filemode(status.st_mode)} {status.st_uid} {status.st_gid}"


def masks(place: Path) -> Seen:
    seen = Seen()
    for mask in (0, 0o022, 0o027, 0o077, 0o777):
        previous = os.umask(mask)
        here = place / f"{mask:o}"
        seen.do(os.mkdir, here, 0o7777)
        os.close(os.open(here / "file", os.O_CREAT | os.O_WRONLY, 0o7777))
        os.mkfifo(here / "fifo", 0o666)
        os.symlink("x", here / "link")
        os.umask(previous)
        seen += [_mode(here), *(_mode(here / name) for name in ("file", "fifo", "link"))]
    return seen


def owners_of_new_files(place: Path) -> Seen:
    """A directory with set-group-ID gives its group, and to directories that bit."""
    seen = Seen()
    place.chmod(0o777)
    (place / "team").mkdir()
    os.chown(place / "team", 0, TEAM)
    (place / "team").chmod(0o2777)
    with user(ALICE):
        for base in (place, place / "team"):
            write(base / "file")
            (base / "directory").mkdir()
            os.symlink("x", base / "link")
            os.mkfifo(base / "fifo")
            os.close(os.open(base / "set-group-id", os.O_CREAT | os.O_WRONLY, 0o2770))
            seen += [_mode(base / name) for name in ("file", "directory", "link", "fifo", "set-group-id")]
    return seen


def who_may_read_and_write(place: Path) -> Seen:
    seen = Seen()
    for mode in (0o000, 0o400, 0o040, 0o004, 0o600, 0o060, 0o606, 0o777):
        file, directory = place / f"f{mode:03o}", place / f"d{mode:03o}"
        write(file)
        directory.mkdir()
        write(directory / "inside")
        for path in (file, directory):
            os.chown(path, ALICE, TEAM)
            path.chmod(mode)
        for uid, gid, groups in ((ALICE, ALICE, ()), (BOB, TEAM, ()), (BOB, BOB, (TEAM, 5)), (BOB, BOB, ())):
            with user(uid, gid, groups):
                seen.append((mode, uid, gid, groups,
                             attempt(read, file), attempt(write, file), os.access(file, os.X_OK),
                             attempt(lambda: sorted(os.listdir(directory))),  # noqa: B023
                             attempt(read, directory / "inside"), attempt(os.mknod, directory / f"new-{uid}-{gid}"),
                             os.access(directory, os.W_OK | os.X_OK)))  # fmt: skip
    return seen


def supplementary_groups(place: Path) -> Seen:
    """More groups than the kernel tells a FUSE file system by itself."""
    seen = Seen()
    place.chmod(0o755)
    (place / "team").mkdir()
    os.chown(place / "team", 0, TEAM + 39)
    (place / "team").chmod(0o770)
    with user(ALICE, ALICE, tuple(range(TEAM, TEAM + 40))):
        seen.do(write, place / "team" / "file")
        seen.do(os.rename, place / "team" / "file", place / "team" / "renamed")
        seen.do(os.chown, place / "team" / "renamed", -1, TEAM + 7)
        seen.append(_mode(place / "team" / "renamed"))
        seen.do(os.chown, place / "team" / "renamed", -1, TEAM + 41)
    with user(ALICE, ALICE, tuple(range(TEAM, TEAM + 39))):
        seen.do(write, place / "team" / "another")
    return seen


def changing_modes(place: Path) -> Seen:
    seen = Seen()
    place.chmod(0o777)
    file = place / "file"
    with user(ALICE, ALICE, (TEAM,)):
        write(file)
        for mode in (0o4755, 0o2755, 0o1755, 0o7777, 0o000, 0o644):
            seen.do(os.chmod, file, mode)
            seen.append(_mode(file))
        seen.do(os.chown, file, -1, TEAM)
        seen.do(os.chmod, file, 0o2750)
        seen.append(_mode(file))
    os.chown(file, ALICE, BOB)
    with user(ALICE):
        seen.do(os.chmod, file, 0o2750)  # not a member of the file's group: the bit is dropped
        seen.append(_mode(file))
    with user(BOB):
        seen.do(os.chmod, file, 0o777)
        seen.do(os.utime, file)
        seen.do(os.truncate, file, 0)
    return seen


def changing_owners(place: Path) -> Seen:
    seen = Seen()
    place.chmod(0o777)
    file, directory = place / "file", place / "directory"
    for path, make in ((file, write), (directory, os.mkdir)):
        with user(ALICE, ALICE, (TEAM,)):
            make(path)
            os.chmod(path, 0o6775)
            seen.do(os.chown, path, BOB, -1)
            seen.do(os.chown, path, ALICE, -1)
            seen.append(_mode(path))
            os.chmod(path, 0o6775)
            seen.do(os.chown, path, -1, TEAM)
            seen.append(_mode(path))
            seen.do(os.chown, path, -1, BOB)
            seen.do(os.chown, path, -1, -1)
        os.chmod(path, 0o6775)
        seen.do(os.chown, path, BOB, TEAM)
        seen.append(_mode(path))
        os.chmod(path, 0o2745)
        seen.do(os.chown, path, BOB, BOB)
        seen.append(_mode(path))
    os.symlink("file", place / "link")
    seen.do(os.lchown, place / "link", ALICE, BOB)
    seen += [_mode(place / "link"), _mode(file)]
    return seen


def _by_write(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY)
    os.write(descriptor, b"x")
    os.close(descriptor)


def _by_truncate(file: Path) -> None:
    os.truncate(file, 1)


def writing_drops_privileges(place: Path) -> Seen:
    """Who changes the content of a set-user-ID program takes the bits away, unless it is root."""
    seen = Seen()
    place.chmod(0o777)
    changes: list[Callable[[Path], None]] = [_by_write, _by_truncate]
    for number, change in enumerate(changes):
        for mode in (0o6777, 0o6773, 0o4777, 0o2777):
            for uid in (ALICE, 0):
                file = place / f"{number}-{mode:o}-{uid}"
                write(file)
                os.chown(file, BOB, BOB)
                os.chmod(file, mode)
                with user(uid):
                    change(file)
                seen.append((file.name, _mode(file)))
    return seen


def sticky_directories(place: Path) -> Seen:
    seen = Seen()
    place.chmod(0o1777)
    (place / "own").mkdir()
    os.chown(place / "own", BOB, BOB)
    (place / "own").chmod(0o1777)
    with user(ALICE):
        for base in (place, place / "own"):
            for name in ("one", "two", "three", "four"):
                write(base / name)
            (base / "directory").mkdir()
    with user(BOB):
        for base in (place, place / "own"):
            seen.do(os.unlink, base / "one")
            seen.do(os.rename, base / "two", base / "renamed")
            write(base / "mine")
            seen.do(os.rename, base / "mine", base / "three")
            seen.do(os.link, base / "four", base / "linked")
            seen.do(os.rmdir, base / "directory")
    with user(ALICE):
        for base in (place, place / "own"):
            seen.do(os.rename, base / "four", base / "five")
            seen.do(os.unlink, base / "five")
            seen.append(sorted(os.listdir(base)))
    return seen


def moving_directories_of_others(place: Path) -> Seen:
    """Another parent changes "..": a directory moves only if its mover may write into it."""
    seen = Seen()
    place.chmod(0o777)
    for name in ("from", "to"):
        (place / name).mkdir()
        (place / name).chmod(0o777)
    (place / "from" / "closed").mkdir()
    (place / "from" / "open").mkdir()
    (place / "from" / "open").chmod(0o777)
    with user(ALICE):
        for name in ("closed", "open"):
            seen.do(os.rename, place / "from" / name, place / "from" / f"{name}-renamed")
            seen.do(os.rename, place / "from" / f"{name}-renamed", place / "to" / name)
    return seen


def setting_times(place: Path) -> Seen:
    seen = Seen()
    place.chmod(0o777)
    file = place / "file"
    with user(ALICE):
        write(file)
    for times in ((PAST_NS, PAST_NS + 1), (0, 0), (1, 999_999_999), (PAST_NS, 4_000_000_000_000_000_007), (-5, -7)):
        seen.do(os.utime, file, ns=times)
        status = os.stat(file)
        seen.append((status.st_atime_ns, status.st_mtime_ns))
    os.symlink("file", place / "link")
    seen.do(os.utime, place / "link", ns=(11, 12), follow_symlinks=False)
    seen += [os.lstat(place / "link").st_mtime_ns, os.stat(place / "link").st_mtime_ns]
    os.utime(place, ns=(5, 6))
    seen.append(os.stat(place).st_mtime_ns)
    file.chmod(0o666)
    with user(BOB):
        seen.do(os.utime, file)
        seen.do(os.utime, file, ns=(1, 2))
    file.chmod(0o444)
    with user(BOB):
        seen.do(os.utime, file)
    return seen


def what_changes_times(place: Path) -> Seen:
    """Of a file and its directory: whether the modification time is still that of long ago."""
    seen = Seen()
    file = place / "file"
    write(file, b"0123456789")
    os.mkdir(place / "directory")
    changes: list[tuple[str, Callable[[], object]]] = [
        ("write", lambda: _by_write(file)),
        ("no write", lambda: os.close(os.open(file, os.O_WRONLY))),
        ("truncate", lambda: os.truncate(file, 3)),
        ("truncate to the same size", lambda: os.truncate(file, 3)),
        ("open to truncate", lambda: write(file, b"")),
        ("chmod", lambda: os.chmod(file, 0o600)),
        ("chown", lambda: os.chown(file, ALICE, -1)),
        ("link", lambda: os.link(file, place / "link")),
        ("rename", lambda: os.rename(place / "link", place / "renamed")),
        ("unlink", lambda: os.unlink(place / "renamed")),
        ("mkdir", lambda: os.mkdir(place / "new")),
        ("rmdir", lambda: os.rmdir(place / "new")),
        ("rename into", lambda: os.rename(file, place / "directory" / "file")),
        ("rename out of", lambda: os.rename(place / "directory" / "file", file)),
        ("setxattr", lambda: os.setxattr(file, "user.x", b"1")),
        ("symlink", lambda: os.symlink("x", place / "symlink")),
    ]
    handles = [os.open(path, os.O_RDONLY) for path in (file, place, place / "directory")]
    for name, change in changes:
        for handle in handles:
            os.utime(handle, ns=(PAST_NS, PAST_NS))
        changed = os.fstat(handles[0]).st_ctime_ns
        change()
        seen.append((name, [os.fstat(handle).st_mtime_ns == PAST_NS for handle in handles]))
        assert os.fstat(handles[0]).st_ctime_ns >= changed, "time went backwards"
    for handle in handles:
        os.close(handle)
    return seen


def times_while_open(place: Path) -> Seen:
    """Times that are set while a writer is open hold after its close, as programs that copy files rely on."""
    seen = Seen()
    file = place / "file"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, b"copied")
    os.utime(descriptor, ns=(PAST_NS, PAST_NS + 5))
    seen.append(os.stat(file).st_mtime_ns)
    os.close(descriptor)
    seen.append(os.stat(file).st_mtime_ns)
    descriptor = os.open(file, os.O_WRONLY)
    os.write(descriptor, b"again")
    os.fsync(descriptor)
    seen.append(os.stat(file).st_mtime_ns == PAST_NS + 5)
    os.close(descriptor)
    return seen


def extended_attributes(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    write(file)
    os.symlink("file", place / "link")
    for path in (file, place):
        seen.do(os.listxattr, path)
        seen.do(os.getxattr, path, "user.missing")
        seen.do(os.setxattr, path, "user.a", b"one")
        seen.do(os.setxattr, path, "user.a", b"two", os.XATTR_CREATE)
        seen.do(os.setxattr, path, "user.b", b"two", os.XATTR_REPLACE)
        seen.do(os.setxattr, path, "user.a", b"", os.XATTR_REPLACE)
        seen.do(os.getxattr, path, "user.a")
        seen.do(os.setxattr, path, "user.binary", bytes(range(256)))
        seen.do(os.getxattr, path, "user.binary")
        seen.do(os.setxattr, path, "user.b", b"v" * 1000)
        seen.append(sorted(attempt(os.listxattr, path)))
        seen.do(os.removexattr, path, "user.b")
        seen.do(os.removexattr, path, "user.b")
        seen.do(os.setxattr, path, "noprefix", b"x")
        for name in ("user.", "trusted.", "security."):
            seen.do(os.setxattr, path, name, b"x")
            seen.do(os.getxattr, path, name)
            seen.do(os.removexattr, path, name)
        seen.do(os.setxattr, path, "user." + "n" * 250, b"x")
        seen.do(os.setxattr, path, "user." + "n" * 251, b"x")
        seen.append(sorted(attempt(os.listxattr, path)))
    seen.do(os.setxattr, place / "link", "user.a", b"x", follow_symlinks=False)
    seen.do(os.getxattr, place / "link", "user.binary")
    os.rename(file, place / "renamed")
    seen.do(os.getxattr, place / "renamed", "user.binary")
    return seen


def extended_attributes_of_others(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    write(file)
    os.setxattr(file, "user.a", b"one")
    for mode in (0o644, 0o600, 0o666):
        file.chmod(mode)
        with user(ALICE):
            seen.do(os.getxattr, file, "user.a")
            seen.do(os.setxattr, file, "user.b", b"two")
            seen.do(os.removexattr, file, "user.b")
    return seen


def the_file_system(place: Path) -> Seen:
    """statvfs: what programs rely on."""
    status = os.statvfs(place)
    assert status.f_blocks >= status.f_bfree >= 0
    assert status.f_blocks > 0
    assert status.f_bsize >= 512
    write(place / "file", bytes(10_000))
    file = os.stat(place / "file")
    assert file.st_blksize >= 512
    assert file.st_blocks * 512 >= 10_000
    seen = Seen()
    seen.append(status.f_namemax)
    return seen
