"""Reading, writing, holes, cutting, mapping."""

import mmap
import os
import random
from pathlib import Path

from tests.mounted.scenarios import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    Seen,
    attempt,
    fallocate,
    read,
    write,
)

BLOCK_BYTES = 65536
PAGE_BYTES = 4096


def holes(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    for offset in (5 * BLOCK_BYTES + 17, BLOCK_BYTES - 3, 20 * BLOCK_BYTES):
        seen.do(os.pwrite, descriptor, b"island", offset)
        seen.append(os.fstat(descriptor).st_size)
    seen.do(os.pread, descriptor, 30, 5 * BLOCK_BYTES)
    seen.do(os.pread, descriptor, 100, 20 * BLOCK_BYTES - 50)
    seen.do(os.pread, descriptor, 100, 100 * BLOCK_BYTES)
    os.close(descriptor)
    seen.append(read(file).strip(b"\0").count(b"island"))
    seen.look(file)
    return seen


def cutting(place: Path) -> Seen:
    """What was cut off is zero when the file grows again."""
    seen = Seen()
    file = place / "file"
    write(file, b"x" * (3 * BLOCK_BYTES))
    for size in (2 * BLOCK_BYTES + 1, 0, 10, 3 * BLOCK_BYTES, PAGE_BYTES + 1, PAGE_BYTES * 2, 1, 1):
        seen.do(os.truncate, file, size)
        seen.append(read(file))
        write_at(file, b"yz", size // 2)
        seen.append(read(file))
    seen.do(os.truncate, file, -1)
    seen.do(os.truncate, place, 0)
    seen.do(os.truncate, place / "missing", 0)
    return seen


def write_at(file: Path, data: bytes, offset: int) -> None:
    descriptor = os.open(file, os.O_WRONLY)
    os.pwrite(descriptor, data, offset)
    os.close(descriptor)


def cutting_while_open(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    writer = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    reader = os.open(file, os.O_RDONLY)
    seen.do(os.pwrite, writer, b"a" * 100_000, 0)
    seen.append(os.pread(reader, 200_000, 0))
    seen.do(os.ftruncate, writer, 50_001)
    seen.append(os.pread(reader, 200_000, 0))
    seen.do(os.pwrite, writer, b"b" * 10, 60_000)
    seen.append(os.pread(reader, 200_000, 0))
    seen.do(os.truncate, file, 70_000)
    seen.append(os.stat(file).st_size)
    seen.append(os.pread(reader, 200_000, 0))
    os.close(writer)
    os.close(reader)
    seen.look(file)
    return seen


def growing_without_a_write(place: Path) -> Seen:
    """A new file that is made longer and closed: what is written to it later finds a place."""
    seen = Seen()
    for number, size in enumerate((1, PAGE_BYTES, 3 * BLOCK_BYTES)):
        file = place / f"file-{number}"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(descriptor, size)
        os.close(descriptor)
        seen.look(file)
        write_at(file, b"late", size)
        write_at(file, b"x", 0)
        seen.look(file)
    return seen


def chunk_boundaries(place: Path) -> Seen:
    """A sparse file over the end of the first chunk of 64 MiB."""
    seen = Seen()
    file = place / "file"
    end = 64 << 20
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    seen.do(os.pwrite, descriptor, b"across the boundary", end - 7)
    seen.do(os.pread, descriptor, 100, end - 20)
    seen.do(os.pwrite, descriptor, b"far behind", 2 * end + 5)
    seen.do(os.fsync, descriptor)
    seen.do(os.pread, descriptor, 30, 2 * end - 5)
    seen.do(os.ftruncate, descriptor, end - 1)
    seen.do(os.ftruncate, descriptor, end + 40)
    seen.do(os.pread, descriptor, 200, end - 20)
    os.close(descriptor)
    seen.append(os.stat(file).st_size)
    return seen


def random_writes(place: Path) -> Seen:
    """Many small writes anywhere, some of them read again at once, one handle and two."""
    seen = Seen()
    chance = random.Random(4)
    file = place / "file"
    write(file, b"")
    handles = [os.open(file, os.O_RDWR), os.open(file, os.O_RDWR)]
    for _ in range(300):
        offset, length = chance.randrange(300_000), chance.choice((1, 10, 100, 4096, 10_000))
        os.pwrite(chance.choice(handles), chance.randbytes(length), offset)
        if chance.random() < 0.3:
            seen.append(os.pread(chance.choice(handles), length + 20, max(0, offset - 10)))
    for handle in handles:
        os.close(handle)
    seen.append(read(file))
    return seen


def vectors(place: Path) -> Seen:
    seen = Seen()
    descriptor = os.open(place / "file", os.O_RDWR | os.O_CREAT, 0o644)
    seen.do(os.writev, descriptor, [b"one", b"", b"two", b"x" * 10_000])
    buffers = [bytearray(2), bytearray(3), bytearray(20_000)]
    seen.do(os.preadv, descriptor, buffers, 1)
    seen.append([bytes(buffer) for buffer in buffers])
    seen.do(os.pwritev, descriptor, [b"A", b"B"], 5)
    seen.do(os.pread, descriptor, 10, 0)
    os.close(descriptor)
    return seen


def copying_in_the_kernel(place: Path) -> Seen:
    seen = Seen()
    write(place / "source", os.urandom(16) * 10_000)
    source = os.open(place / "source", os.O_RDONLY)
    target = os.open(place / "target", os.O_RDWR | os.O_CREAT, 0o644)
    done = 0
    while count := os.copy_file_range(source, target, 160_000 - done):
        done += count
    seen.append(done)
    os.lseek(source, 0, os.SEEK_SET)
    while os.sendfile(target, source, None, 1 << 20):
        pass
    os.close(source)
    os.close(target)
    seen.append(read(place / "target") == read(place / "source") * 2)
    return seen


def shared_mappings(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    write(file, b"." * (3 * PAGE_BYTES + 100))
    descriptor = os.open(file, os.O_RDWR)
    with mmap.mmap(descriptor, 0) as mapping:
        mapping[10:15] = b"first"
        mapping[2 * PAGE_BYTES - 3 : 2 * PAGE_BYTES + 3] = b"second"
        seen.append(os.pread(descriptor, 20, 5))
        mapping.flush()
        seen.append(read(file))
        os.pwrite(descriptor, b"written", 100)
        seen.append(mapping[95:110])
        mapping[3 * PAGE_BYTES + 90 :] = b"0123456789"
    os.close(descriptor)
    seen.look(file)
    return seen


def mappings_outlive_their_descriptor(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    write(file, bytes(2 * PAGE_BYTES))
    descriptor = os.open(file, os.O_RDWR)
    mapping = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    mapping[0:4] = b"late"
    mapping[PAGE_BYTES : PAGE_BYTES + 4] = b"LATE"
    mapping.flush()
    mapping.close()
    seen.look(file)
    return seen


def mappings_of_files_opened_for_append(place: Path) -> Seen:
    """O_APPEND is for what is written; mapped memory stays where it is."""
    seen = Seen()
    file = place / "file"
    for length in (100, PAGE_BYTES, 2 * PAGE_BYTES + 100):
        write(file, b"." * length)
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND)
        with mmap.mmap(descriptor, os.fstat(descriptor).st_size) as mapping:
            mapping[3:6] = b"map"
            mapping[-3:] = b"end"
            mapping.flush()
            seen.append(read(file))
            seen.do(os.write, descriptor, b"appended")
            mapping[6:9] = b"two"
        seen.do(os.write, descriptor, b"." * PAGE_BYTES)
        os.close(descriptor)
        seen.append(read(file))
    return seen


def private_mappings(place: Path) -> Seen:
    seen = Seen()
    file = place / "file"
    write(file, b"p" * PAGE_BYTES)
    descriptor = os.open(file, os.O_RDONLY)
    with mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
        mapping[0:4] = b"mine"
        seen.append(mapping[0:8])
    seen.append(attempt(mmap.mmap, descriptor, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE))
    os.close(descriptor)
    seen.look(file)
    return seen


def allocation(place: Path) -> Seen:
    """fallocate(2): as far as it is supported, else the error that tells programs to do without.

    What a file looks like afterwards is compared only where the call succeeded.
    """
    for number, mode in enumerate((0, FALLOC_KEEP_SIZE, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE)):
        file = place / f"file-{number}"
        write(file, b"f" * 10_000)
        descriptor = os.open(file, os.O_RDWR)
        result = attempt(fallocate, descriptor, mode, 1_000, 20_000)
        os.close(descriptor)
        expected = b"f" * 10_000
        if result is None:
            expected = {0: expected + bytes(11_000), FALLOC_KEEP_SIZE: expected}.get(mode, b"f" * 1000 + bytes(9_000))
        else:
            assert result == "ENOTSUP", (mode, result)
        assert read(file) == expected, mode
    seen = Seen()
    descriptor = os.open(place / "posix", os.O_RDWR | os.O_CREAT, 0o644)
    # The C library writes zeros itself where the file system does not allocate.
    seen.do(os.posix_fallocate, descriptor, 0, 50_000)
    os.close(descriptor)
    seen.append(read(place / "posix"))
    return seen


def finding_data(place: Path) -> Seen:
    """SEEK_DATA and SEEK_HOLE may treat a whole file as data; what they say must be true."""
    file = place / "file"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(descriptor, b"island", 10 * BLOCK_BYTES)
    size = os.fstat(descriptor).st_size
    assert os.lseek(descriptor, 10 * BLOCK_BYTES, os.SEEK_DATA) == 10 * BLOCK_BYTES
    assert os.lseek(descriptor, 10 * BLOCK_BYTES, os.SEEK_HOLE) == size
    data = os.lseek(descriptor, 0, os.SEEK_DATA)
    assert 0 <= data <= 10 * BLOCK_BYTES
    seen = Seen()
    seen.do(os.lseek, descriptor, size, os.SEEK_DATA)
    seen.do(os.lseek, descriptor, size + 10, os.SEEK_HOLE)
    os.close(descriptor)
    return seen


def sizes_that_are_too_large(place: Path) -> Seen:
    """How large a file may be differs; that it is refused does not."""
    write(place / "file")
    assert attempt(os.truncate, place / "file", (1 << 63) - 1) in ("EFBIG", "EINVAL")
    seen = Seen()
    seen.look(place / "file")
    return seen
