"""open(2) and what its flags mean."""

import os
from pathlib import Path

from tests.mounted.scenarios import Seen, attempt, read, write


def _opened(path: Path, flags: int, mode: int = 0o644) -> str:
    descriptor = os.open(path, flags, mode)
    os.close(descriptor)
    return "opened"


def creation_flags(place: Path) -> Seen:
    seen = Seen()
    file, link, directory = place / "file", place / "link", place / "directory"
    seen.do(_opened, file, os.O_RDONLY)
    seen.do(_opened, file, os.O_WRONLY | os.O_CREAT, 0o640)
    seen.look(file)
    seen.do(_opened, file, os.O_WRONLY | os.O_CREAT, 0o600)
    seen.do(_opened, file, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    seen.look(file)
    os.mkdir(directory)
    os.symlink("nowhere", link)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT | os.O_WRONLY, os.O_TRUNC | os.O_WRONLY,
                  os.O_DIRECTORY, os.O_NOFOLLOW, os.O_CREAT | os.O_EXCL | os.O_RDWR, os.O_PATH):  # fmt: skip
        for path in (file, directory, link, file / "below", place / "missing" / "below"):
            seen.append((flags, path.name, attempt(_opened, path, flags)))
    seen.look(place / "nowhere")
    return seen


def truncation_on_open(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    write(file, b"0123456789")
    reader = os.open(file, os.O_RDONLY)
    seen.do(_opened, file, os.O_WRONLY | os.O_TRUNC)
    seen.look(file)
    seen.do(os.pread, reader, 10, 0)
    os.close(reader)
    write(file, b"01234")
    seen.do(_opened, file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    seen.look(file)
    return seen


def appending(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    first = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    second = os.open(file, os.O_RDWR | os.O_APPEND)
    for number in range(20):
        seen.do(os.write, first, b"a%d" % number)
        seen.do(os.write, second, b"b%d" % number)
    seen.do(os.lseek, second, 0, os.SEEK_SET)
    seen.do(os.read, second, 5)
    seen.do(os.write, second, b"at the end all the same")
    seen.do(os.ftruncate, first, 7)
    seen.do(os.write, second, b"after the cut")
    seen.do(os.fstat(first).__getattribute__, "st_size")
    os.close(first)
    os.close(second)
    seen.look(file)
    return seen


def wrong_direction(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    write(file)
    reader, writer = os.open(file, os.O_RDONLY), os.open(file, os.O_WRONLY)
    seen.do(os.write, reader, b"x")
    seen.do(os.read, writer, 1)
    seen.do(os.ftruncate, reader, 0)
    seen.do(os.lseek, reader, -1, os.SEEK_SET)
    seen.do(os.lseek, reader, 100, os.SEEK_SET)
    seen.do(os.read, reader, 1)
    seen.do(os.lseek, reader, -2, os.SEEK_END)
    seen.do(os.read, reader, 10)
    os.close(reader)
    os.close(writer)
    directory = os.open(place, os.O_RDONLY)
    seen.do(os.read, directory, 1)
    seen.do(os.ftruncate, directory, 0)
    seen.do(os.fsync, directory)
    os.close(directory)
    seen.look(file)
    return seen


def unlinked_but_open(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    write(file, b"still here")
    both = os.open(file, os.O_RDWR)
    reader = os.open(file, os.O_RDONLY)
    os.unlink(file)
    seen.look(file)
    seen.do(os.fstat(both).__getattribute__, "st_nlink")
    seen.do(os.pread, reader, 100, 0)
    seen.do(os.pwrite, both, b"STILL", 0)
    seen.do(os.fsync, both)
    seen.do(os.pread, reader, 100, 0)
    seen.do(os.ftruncate, both, 3)
    seen.do(os.fchmod, both, 0o600)
    seen.do(os.pread, reader, 100, 0)
    write(file, b"another")
    seen.do(os.pread, reader, 100, 0)
    os.close(both)
    seen.do(os.pread, reader, 100, 0)
    os.close(reader)
    seen.look(file)
    return seen


def replaced_but_open(place: Path) -> Seen:
    seen = Seen()
    file, other = place / "file", place / "other"
    write(file, b"old")
    write(other, b"new content")
    reader, writer = os.open(file, os.O_RDONLY), os.open(file, os.O_WRONLY)
    os.rename(other, file)
    seen.do(os.pread, reader, 100, 0)
    seen.do(os.pwrite, writer, b"OLD, and longer", 0)
    seen.do(os.pread, reader, 100, 0)
    seen.do(os.fstat(reader).__getattribute__, "st_nlink")
    os.close(writer)
    os.close(reader)
    seen.look(file)
    return seen


def by_descriptor_after_a_rename(place: Path) -> Seen:
    seen = Seen()
    (place / "from").mkdir()
    (place / "to").mkdir()
    descriptor = os.open(place / "from" / "file", os.O_RDWR | os.O_CREAT, 0o644)
    seen.do(os.write, descriptor, b"before ")
    os.rename(place / "from" / "file", place / "to" / "moved")
    seen.do(os.write, descriptor, b"after")
    os.rename(place / "to", place / "from" / "to")
    seen.do(os.pread, descriptor, 100, 0)
    os.close(descriptor)
    seen.look(place / "from" / "to" / "moved")
    return seen


def anonymous_files(place: Path) -> Seen:
    """O_TMPFILE is refused by FUSE file systems, in words that programs know; so only what follows is compared."""
    seen = Seen()
    result = attempt(os.open, place, os.O_TMPFILE | os.O_RDWR, 0o600)
    if isinstance(result, int):
        os.close(result)
    else:
        assert result == "ENOTSUP", result
    seen.append(sorted(os.listdir(place)))
    return seen


def many_handles(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    write(file, bytes(1000))
    handles = [os.open(file, os.O_RDWR) for _ in range(100)]
    for number, handle in enumerate(handles):
        os.pwrite(handle, bytes([number]) * 10, number * 10)
    seen.append([os.pread(handle, 1000, 0) == os.pread(handles[0], 1000, 0) for handle in handles])
    for handle in handles:
        os.close(handle)
    seen.append(read(file))
    return seen
