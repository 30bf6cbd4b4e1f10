"""Names: rename(2), links, what lies where, and how long names and paths may be."""

import itertools
import os
import socket
import stat
from pathlib import Path

from tests.mounted.scenarios import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    Seen,
    attempt,
    read,
    renameat2,
    visible,
    write,
)

KINDS = ("file", "empty", "full", "link", "fifo", "missing")


def _make(path: Path, kind: str) -> None:
    if kind == "file":
        write(path, path.name.encode())
    elif kind in ("empty", "full"):
        path.mkdir()
        if kind == "full":
            write(path / "inside")
    elif kind == "link":
        path.symlink_to("target-of-a-link")
    elif kind == "fifo":
        os.mkfifo(path)


def tree(place: Path) -> list[object]:
    """Everything below, in order."""
    paths = sorted(itertools.chain.from_iterable([Path(base) / name for name in (*directories, *files)]
                                                 for base, directories, files in os.walk(place)))  # fmt: skip
    return [(str(path.relative_to(place)), attempt(visible, path)) for path in paths]


def every_rename(place: Path) -> Seen:
    """Each kind of file onto each, without and with renameat2(2)'s flags."""
    seen = Seen()
    for number, (source, target) in enumerate(itertools.product(KINDS, KINDS)):
        for flags in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            here = place / f"{number}-{flags}"
            (here / "below").mkdir(parents=True)
            _make(here / "source", source)
            _make(here / "below" / "target", target)
            result = attempt(renameat2, here / "source", here / "below" / "target", flags)
            seen.append((source, target, flags, result, tree(here)))
    return seen


def odd_renames(place: Path) -> Seen:
    seen = Seen()
    (place / "a" / "b" / "c").mkdir(parents=True)
    write(place / "file", b"one")
    os.link(place / "file", place / "same")
    seen.do(os.rename, place / "a", place / "a" / "b" / "c" / "below-itself")
    seen.do(os.rename, place / "a" / "b", place / "a")
    seen.do(os.rename, place / "file", place / "same")
    seen.do(os.rename, place / "file", place / "file")
    seen.do(os.rename, f"{place}/a/", place / "renamed")
    seen.do(os.rename, f"{place}/file/", place / "x")
    seen.do(os.rename, place / "file", f"{place}/new/")
    seen.do(os.rename, place / "renamed", f"{place}/a/")
    seen.do(os.rename, place / "a" / ".", place / "x")
    seen.do(os.rename, place / "file" / "x", place / "x")
    seen.do(os.rename, place / "file", place / "missing" / "x")
    seen.do(renameat2, place / "file", place / "a" / "b", RENAME_NOREPLACE | RENAME_EXCHANGE)
    seen.do(renameat2, place / "a", place / "a" / "b", RENAME_EXCHANGE)
    seen.append(tree(place))
    return seen


def hard_links(place: Path) -> Seen:
    seen = Seen()
    file, other = place / "file", place / "other"
    write(file, b"shared")
    seen.do(os.link, file, other)
    seen.do(os.link, file, other)
    seen.append(os.stat(file).st_ino == os.stat(other).st_ino)
    write(other, b"changed by the other name")
    seen.look(file)
    os.chmod(file, 0o600)
    seen.look(other)
    os.unlink(file)
    seen.look(other)
    seen.do(os.link, place / "missing", place / "x")
    seen.do(os.link, place, place / "directory")
    os.symlink("other", place / "symbolic")
    seen.do(os.link, place / "symbolic", place / "link-to-the-link", follow_symlinks=False)
    seen.do(os.link, other, place / "missing" / "x")
    seen.append(tree(place))
    return seen


def symbolic_links(place: Path) -> Seen:
    seen = Seen()
    (place / "directory").mkdir()
    write(place / "directory" / "file", b"behind a link")
    for target in ("directory", "directory/file", "nowhere", "loop", "../elsewhere", "t" * 4095, "t" * 255, "ä"):
        name = place / f"to-{target[:4].replace('/', '-')}-{len(target)}"
        seen.do(os.symlink, target, name)
        seen.append((os.lstat(name).st_size, os.readlink(name) == target))
    seen.do(os.symlink, "", place / "empty")
    seen.do(os.symlink, "t" * 4096, place / "long")
    seen.do(os.symlink, "loop", place / "loop")
    seen.do(os.symlink, "loop-b", place / "loop-a")
    seen.do(os.symlink, "loop-a", place / "loop-b")
    for looping in ("loop", "loop-a"):
        seen.do(os.stat, place / looping)
        seen.do(os.listdir, place / looping / "below")
    seen.do(os.readlink, place / "directory")
    seen.append(read(place / "to-dire-9" / "file"))
    for number in range(45):
        os.symlink(f"chain-{number + 1}" if number < 44 else "directory", place / f"chain-{number}")
    seen.append([isinstance(attempt(os.stat, place / f"chain-{number}"), os.stat_result) for number in range(45)])
    seen.do(os.chmod, place / "nowhere", 0o600)
    seen.do(os.unlink, place / "to-dire-9")
    seen.append(tree(place / "directory"))
    return seen


def special_files(place: Path) -> Seen:
    seen = Seen()
    seen.do(os.mknod, place / "fifo", stat.S_IFIFO | 0o640)
    seen.do(os.mknod, place / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    seen.do(os.mknod, place / "large", stat.S_IFCHR | 0o600, os.makedev(300, 70_000))
    seen.do(os.mknod, place / "block", stat.S_IFBLK | 0o600, os.makedev(7, 99))
    seen.do(os.mknod, place / "regular", stat.S_IFREG | 0o600)
    seen.do(os.mknod, place / "fifo", stat.S_IFIFO | 0o640)
    previous = os.getcwd()
    os.chdir(place)  # a socket's path is limited to 107 bytes
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind("socket")
        listener.listen()
        seen.do(caller.connect, "socket")
    os.chdir(previous)
    for name in sorted(os.listdir(place)):
        status = os.lstat(place / name)
        seen.append((name, stat.filemode(status.st_mode), status.st_rdev, status.st_size, status.st_nlink))
    reader = os.open(place / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(place / "fifo", os.O_WRONLY)
    os.write(writer, b"through a pipe")
    seen.do(os.read, reader, 100)
    os.close(reader)
    os.close(writer)
    os.rename(place / "null", place / "renamed")
    seen.append(os.lstat(place / "renamed").st_rdev)
    return seen


def directories(place: Path) -> Seen:
    seen = Seen()
    seen.do(os.mkdir, place / "a", 0o750)
    seen.do(os.mkdir, place / "a")
    seen.do(os.mkdir, place / "missing" / "b")
    write(place / "file")
    seen.do(os.mkdir, place / "file" / "b")
    seen.do(os.rmdir, place / "file")
    seen.do(os.unlink, place / "a")
    write(place / "a" / "inside")
    seen.do(os.rmdir, place / "a")
    seen.do(os.rmdir, place / "a" / ".")
    seen.do(os.rmdir, place / "a" / "..")
    seen.do(os.unlink, f"{place}/file/")
    seen.do(os.unlink, place / "a" / "inside")
    seen.do(os.rmdir, place / "a")
    seen.do(os.rmdir, place / "a")
    os.mkdir(place / "left")
    descriptor = os.open(place / "left", os.O_RDONLY)
    os.rmdir(place / "left")
    # Network file systems have forgotten a directory that is removed; local ones know it as long as it is open.
    assert attempt(os.listdir, descriptor) in ([], "ENOENT", "ESTALE")
    assert attempt(os.open, "x", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=descriptor) in ("ENOENT", "ESTALE")
    os.close(descriptor)
    seen.append(tree(place))
    return seen


def names(place: Path) -> Seen:
    seen = Seen()
    for name in ("n" * 255, "ä" * 127, " ", "-rf", "new\nline", "trailing.", "\x7f", "*", "#x#", "CON", ".hidden"):
        seen.do(write, place / name, name.encode())
        seen.look(place / name)
    raw = os.fsencode(place) + b"/\xff\xfe not UTF-8"
    seen.do(write, raw, b"bytes")
    seen.look(raw)
    seen.do(write, place / ("n" * 256))
    seen.do(os.stat, place / ("n" * 256))
    seen.do(os.mkdir, place / ("ä" * 128))
    seen.do(write, place / "Case", b"C")
    seen.do(write, place / "case", b"c")
    seen.append(sorted(os.listdir(os.fsencode(place))))
    return seen


def long_paths(place: Path) -> Seen:
    """A path of 4095 bytes works, one of 4096 does not; below that, step by step, it goes deeper."""
    seen = Seen()
    name = "d" * 255
    path = str(place)
    while len(path) + 256 < 4095:
        path += "/" + name
        os.mkdir(path)
    file = path + "/" + "f" * (4095 - len(path) - 1)
    seen.do(write, file, b"deep")
    seen.append((len(file), read(file)))
    seen.do(write, file + "x")
    seen.do(os.stat, file + "x")
    descriptor = os.open(path, os.O_RDONLY)
    os.mkdir(name, dir_fd=descriptor)
    deeper = os.open(name, os.O_RDONLY, dir_fd=descriptor)
    beyond = os.open("beyond", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=deeper)
    os.close(beyond)
    seen.do(os.listdir, deeper)
    os.close(deeper)
    os.close(descriptor)
    return seen


def reading_a_directory_that_changes(place: Path) -> Seen:
    """Each name that is there from the beginning to the end is read exactly once; others may be read or not."""
    stays = {f"stays-{number:04d}" for number in range(600)}
    goes = [f"goes-{number:04d}" for number in range(200)]
    for name in (*stays, *goes):
        os.mknod(place / name)
    found, comes = [], set()
    with os.scandir(place) as entries:
        for number, entry in enumerate(entries):
            found.append(entry.name)
            if number % 5 == 0 and goes:
                os.unlink(place / goes.pop())
                comes.add(f"comes-{number:04d}")
                os.mknod(place / f"comes-{number:04d}")
    assert len(set(found)) == len(found), "a name was read twice"
    assert set(found) >= stays, "a name was not read"
    assert set(os.listdir(place)) == stays | set(goes) | comes
    return Seen()


def removing_what_is_read(place: Path) -> Seen:
    """``rm -r`` of a directory, as programs do it: they remove what they read before they read on."""
    for number in range(800):
        os.mknod(place / f"{number}")
    descriptor = os.open(place, os.O_RDONLY)
    with os.scandir(descriptor) as entries:
        for entry in entries:
            os.unlink(entry.name, dir_fd=descriptor)
    os.close(descriptor)
    seen = Seen()
    seen.append(os.listdir(place))
    return seen


def directory_entries(place: Path) -> Seen:
    seen = Seen()
    for kind in KINDS:
        _make(place / kind, kind)
    with os.scandir(place) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            own = entry.inode() == os.lstat(entry.path).st_ino
            seen.append((entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(), entry.is_symlink(), own))
    return seen
