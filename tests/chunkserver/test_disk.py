"""One disk, damaged in every way: nothing damaged is ever taken for data, and what was promised is not forgotten."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfschunkserver import chunkfile, records
from gfschunkserver.disk import Disk
from gfschunkserver.files import OsFiles
from gfschunkserver.journal import HEADER_BYTES as SEGMENT_HEADER_BYTES
from gfschunkserver.records import Base, Cut, Drop, Extend, Mark, ReplicaState, Synced, Version, Write
from gfschunkserver.store import Store
from gfsprotocol.checksums import BLOCK_BYTES, segment_digests
from gfsprotocol.errors import (
    AlreadyExists,
    ChunkCorrupt,
    ChunkNotFound,
    ConfigurationError,
    DirectoryInUse,
    DiskFailed,
    ForeignStore,
    InvalidArgument,
    NoSpace,
    UnsupportedFormat,
)
from gfsprotocol.ids import KIB, MIB
from tests.chunkserver.crashfiles import (
    Crashed,
    CrashFile,
    CrashFiles,
    anything_survives,
    everything_survives,
    nothing_survives,
)
from tests.chunkserver.test_crash import CHUNK_BYTES, CLUSTER, ROOT, a_grant, open_disk, put

ExpectedLogs = Callable[..., None]
DATA = bytes(range(256)) * 400


def disk_with_a_chunk(files: CrashFiles, data: bytes = DATA, segment_bytes: int = 48 * KIB) -> Disk:
    disk = open_disk(files, segment_bytes)
    replica = disk.create(a_grant(1))
    put(replica, 0, data, True)
    return disk


def checkpointed(files: CrashFiles) -> None:
    """Leaves a disk with one finished chunk file and an empty journal."""
    disk = disk_with_a_chunk(files)
    disk.journal.rotate()
    assert disk.checkpoint_oldest(0)
    files.reboot(everything_survives)


CHUNK_FILE = ROOT / "chunks" / "01" / f"{1:016x}.chunk"


# ------------------------------------------------------------------------------------------------------ chunk files


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("magic", 0),
        ("version", 8),
        ("cluster", 20),
        ("length", 72),
        ("padding", 2000),
        ("header digest", chunkfile.HEADER_BYTES - 1),
        ("table", chunkfile.HEADER_BYTES + 5),
        ("data", chunkfile.data_offset(CHUNK_BYTES) + 70_000),
        ("last byte", chunkfile.data_offset(CHUNK_BYTES) + len(DATA) - 1),
    ],
)
def test_a_flipped_byte_is_never_returned(what: str, place: int, expected_logs: ExpectedLogs) -> None:
    expected_logs("it is kept as")
    files = CrashFiles()
    checkpointed(files)
    files.content(CHUNK_FILE)[place] ^= 1
    disk = open_disk(files)
    if 1 not in disk.replicas:
        assert 1 in disk.corrupt
        assert files.exists(ROOT / "bad" / CHUNK_FILE.name)
        return
    with pytest.raises(ChunkCorrupt):
        disk.replicas[1].read_verified(0, len(DATA))


@pytest.mark.parametrize("length", [chunkfile.data_offset(CHUNK_BYTES) + len(DATA) - 1, 20_000, 4096, 100])
def test_a_truncated_chunk_file_is_reported_and_kept(length: int, expected_logs: ExpectedLogs) -> None:
    expected_logs("it is kept as")
    files = CrashFiles()
    checkpointed(files)
    del files.content(CHUNK_FILE)[length:]
    disk = open_disk(files)
    assert disk.replicas == {}
    assert list(disk.corrupt) == [1]
    assert files.exists(ROOT / "bad" / CHUNK_FILE.name)


def test_a_chunk_file_that_vanished_is_not_there(expected_logs: ExpectedLogs) -> None:
    expected_logs("is missing")
    files = CrashFiles()
    checkpointed(files)
    disk = open_disk(files)
    files.remove(CHUNK_FILE)
    with pytest.raises(ChunkCorrupt, match="missing"):
        disk.replicas[1].read_verified(0, 10)
    disk.quarantine(disk.replicas[1], "the file of chunk 1 is missing")
    assert disk.replicas == {}
    files.reboot(everything_survives)
    assert open_disk(files).replicas == {}


def test_a_chunk_file_of_another_cluster_is_not_ours(expected_logs: ExpectedLogs) -> None:
    expected_logs("belongs to cluster")
    files = CrashFiles()
    checkpointed(files)
    header = chunkfile.decode_header(bytes(files.content(CHUNK_FILE)[:4096]))
    foreign = chunkfile.ChunkHeader(
        b"another-cluster!", header.chunk, header.version, header.inode, header.index, header.chunk_bytes,
        header.length, header.table_digest,
    )  # fmt: skip
    files.content(CHUNK_FILE)[:4096] = chunkfile.encode_header(foreign)
    disk = open_disk(files)
    assert disk.replicas == {}
    assert disk.corrupt == {}
    assert files.exists(ROOT / "bad" / CHUNK_FILE.name)


def test_a_chunk_file_under_another_name_is_refused(expected_logs: ExpectedLogs) -> None:
    expected_logs("its name says")
    files = CrashFiles()
    checkpointed(files)
    files.rename(CHUNK_FILE, ROOT / "chunks" / "02" / f"{2:016x}.chunk")
    assert open_disk(files).replicas == {}


def test_damage_below_an_overwrite_does_not_get_a_good_digest() -> None:
    files = CrashFiles()
    checkpointed(files)
    disk = open_disk(files)
    files.content(CHUNK_FILE)[chunkfile.data_offset(CHUNK_BYTES) + 100] ^= 1
    with pytest.raises(ChunkCorrupt):
        put(disk.replicas[1], 50, b"new", False)
    with pytest.raises(ChunkCorrupt):
        disk.replicas[1].read_verified(100, 1)


@settings(max_examples=50)
@given(
    st.builds(
        chunkfile.ChunkHeader,
        st.binary(min_size=16, max_size=16),
        *[st.integers(0, 2**64 - 1)] * 4,
        st.just(64 * MIB),
        st.integers(0, 64 * MIB),
        st.binary(min_size=32, max_size=32),
    )
)
def test_a_header_reads_as_it_was_written(header: chunkfile.ChunkHeader) -> None:
    assert chunkfile.decode_header(chunkfile.encode_header(header)) == header


def test_a_header_of_a_newer_format_is_refused_as_such() -> None:
    header = chunkfile.ChunkHeader(CLUSTER, 1, 1, 1, 0, MIB, 0, bytes(32))
    data = bytearray(chunkfile.encode_header(header))
    data[8] = 2
    body = bytes(data[:-32])
    with pytest.raises(UnsupportedFormat):
        chunkfile.decode_header(body + segment_digests(0, body))


def test_a_zeroed_header_over_synced_data_is_damage(expected_logs: ExpectedLogs) -> None:
    """Only a file that never had a digest table was never synced."""
    expected_logs("it is kept as")
    files = CrashFiles()
    checkpointed(files)
    files.content(CHUNK_FILE)[: chunkfile.HEADER_BYTES] = bytes(chunkfile.HEADER_BYTES)
    disk = open_disk(files)
    assert list(disk.corrupt) == [1]
    assert files.exists(ROOT / "bad" / CHUNK_FILE.name)


@pytest.mark.parametrize("place", ["header", "data"])
def test_a_bad_sector_in_one_chunk_does_not_take_the_disk_out_at_the_start(
    place: str, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    expected_logs("it is kept as", "cannot be read")
    files = CrashFiles()
    disk = disk_with_a_chunk(files)
    put(disk.create(a_grant(2)), 0, b"good", True)
    put(disk.replicas[1], 0, DATA[:100], True)
    files.reboot(everything_survives)
    read = CrashFile.read

    def read_or_fail(file: CrashFile, offset: int, count: int) -> bytes:
        is_header = offset < chunkfile.HEADER_BYTES
        if file._path == CHUNK_FILE and is_header == (place == "header"):
            raise OSError(errno.EIO, "Input/output error")
        return read(file, offset, count)

    with monkeypatch.context() as patched:
        patched.setattr(CrashFile, "read", read_or_fail)
        disk = open_disk(files)
    assert disk.replicas[2].read_verified(0, 10) == b"good"
    if place == "header":
        assert disk.replicas[1].read_verified(0, MIB) == DATA
    else:
        assert list(disk.corrupt) == [1]


# ---------------------------------------------------------------------------------------------------------- journal


a_record = st.one_of(
    st.builds(
        Base, st.integers(1, 9), *[st.integers(0, 2**40)] * 6, st.binary(max_size=32), st.binary(max_size=99),
        st.booleans(),
    ),
    st.builds(Extend, st.integers(1, 9), st.integers(0, 2**40), st.integers(0, 1024), st.binary(max_size=99)),
    st.builds(
        Write, st.integers(1, 9), *[st.integers(0, 2**40)] * 3, st.binary(max_size=99), st.binary(max_size=999)
    ),
    st.builds(Cut, st.integers(1, 9), st.integers(0, 2**40), st.binary(max_size=32)),
    st.builds(Synced, st.integers(1, 9)),
    st.builds(Version, st.integers(1, 9), st.integers(0, 2**40)),
    st.builds(Drop, st.integers(1, 9)),
    st.builds(Mark, st.just(0)),
)  # fmt: skip


@given(a_record, st.integers(0, 2**60), st.integers(0, 2**60), st.data())
def test_a_record_reads_as_it_was_written_and_not_with_any_byte_changed(
    record: records.AnyRecord, position: int, durable: int, data: st.DataObject
) -> None:
    encoded = records.encode(record, position, durable)
    assert records.decode(encoded, position) == records.Read(record, position, durable, position + len(encoded))
    assert records.decode(encoded, position + 1) is None
    assert records.decode(encoded[:-1], position) is None
    place = data.draw(st.integers(0, len(encoded) - 1))
    damaged = bytearray(encoded)
    damaged[place] ^= data.draw(st.integers(1, 255))
    assert records.decode(bytes(damaged), position) is None


def segment_file(files: CrashFiles) -> Path:
    (name,) = files.names(ROOT / "journal")
    return ROOT / "journal" / name


def test_a_flipped_byte_in_a_durable_part_of_the_journal_takes_the_disk_out(expected_logs: ExpectedLogs) -> None:
    expected_logs("is out of use", "is damaged", "were not synced")
    places = {"segment header": 30, "record prefix": SEGMENT_HEADER_BYTES + 6, "record body": SEGMENT_HEADER_BYTES + 60}
    for place in places.values():
        files = CrashFiles()
        disk = disk_with_a_chunk(files)
        put(disk.replicas[1], 10, b"durable", True)
        put(disk.replicas[1], 20, b"and more", True)
        files.reboot(everything_survives)
        files.content(segment_file(files))[place] ^= 1
        disk = Disk(files, ROOT, 48 * KIB, 0)
        disk.lock()
        disk.adopt(CLUSTER, 1, 0)
        disk.recover()
        assert "damaged" in disk.failed
        assert disk.replicas == {}


def test_damage_to_the_last_record_shows_once_the_journal_was_marked(expected_logs: ExpectedLogs) -> None:
    expected_logs("is out of use")
    files = CrashFiles()
    disk = disk_with_a_chunk(files, b"small")
    end = SEGMENT_HEADER_BYTES + disk.journal._current.end
    assert not disk.checkpoint_oldest(0)
    files.reboot(everything_survives)
    files.content(segment_file(files))[end - 1] ^= 1
    disk = Disk(files, ROOT, 48 * KIB, 0)
    disk.lock()
    disk.adopt(CLUSTER, 1, 0)
    disk.recover()
    assert "damaged" in disk.failed


def test_a_torn_tail_of_the_journal_is_no_damage(expected_logs: ExpectedLogs) -> None:
    expected_logs("were not synced")
    files = CrashFiles()
    disk = disk_with_a_chunk(files)
    put(disk.replicas[1], len(DATA), b"not synced", False)
    files.reboot(everything_survives)
    del files.content(segment_file(files))[-3:]
    disk = open_disk(files)
    assert disk.replicas[1].read_verified(0, MIB) == DATA


def test_a_missing_segment_takes_the_disk_out(expected_logs: ExpectedLogs) -> None:
    expected_logs("is out of use")
    files = CrashFiles()
    disk = disk_with_a_chunk(files)
    for number in range(3):
        put(disk.replicas[1], 0, bytes([number]) * 60_000, True)
        disk.journal.rotate()
    names = files.names(ROOT / "journal")
    files.reboot(everything_survives)
    files.remove(ROOT / "journal" / names[1])
    disk = Disk(files, ROOT, 48 * KIB, 0)
    disk.lock()
    disk.adopt(CLUSTER, 1, 0)
    disk.recover()
    assert "missing" in disk.failed


def test_a_replica_state_is_the_same_live_and_from_its_base() -> None:
    state = ReplicaState(Base(1, 1, 2, 3, CHUNK_BYTES, 0, 0, b"", b"", True))
    digests = segment_digests(0, DATA)
    state.apply(Extend(1, len(DATA), 0, digests))
    state.apply(Synced(1))
    state.apply(Cut(1, BLOCK_BYTES + 10, b"t" * 32))
    state.apply(Write(1, BLOCK_BYTES, BLOCK_BYTES + 20, 1, b"w" * 32, bytes(20)))
    state.apply(Version(1, 7))
    again = ReplicaState(state.base())
    assert again.base() == state.base()
    assert (again.length, again.version, again.synced_length) == (BLOCK_BYTES + 20, 7, BLOCK_BYTES + 20)
    assert bytes(again.table) == digests[:32] + b"w" * 32


# ------------------------------------------------------------------------------------------------- errors of a disk


@pytest.mark.parametrize("where", ["journal", "chunk"])
def test_an_fsync_error_takes_the_disk_out_and_is_not_retried(where: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("is out of use")
    files = CrashFiles()
    disk = disk_with_a_chunk(files)
    lost: list[int] = []
    disk.on_failure = lambda _disk, chunks: lost.extend(chunks)
    replica = disk.replicas[1]
    put(replica, len(DATA), DATA[:70_000], False)
    failures = iter([errno.EIO])

    def fail_once(operation: str, path: Path) -> int:
        return next(failures, 0) if operation == "sync" and path.suffix == f".{where}" else 0

    files.failing = fail_once
    with pytest.raises(DiskFailed):
        put(replica, 0, b"x", True)
    assert next(failures, 0) == 0
    assert disk.failed
    assert lost == [1]
    with pytest.raises((DiskFailed, ChunkNotFound)):
        put(replica, 0, b"x", True)
    with pytest.raises((DiskFailed, ChunkNotFound)):
        replica.read_verified(0, 1)
    with pytest.raises(DiskFailed):
        disk.create(a_grant(2))


def test_a_full_disk_keeps_the_old_content(expected_logs: ExpectedLogs) -> None:
    files = CrashFiles()
    disk = disk_with_a_chunk(files, segment_bytes=16 * MIB)
    replica = disk.replicas[1]
    for free in (0, 100, 3000, 61_000, 70_500):
        for offset, size, sync in ((len(DATA), 70_000, False), (len(DATA), 500, True), (10, 60_000, False)):
            files.free_bytes = free
            try:
                put(replica, offset, b"z" * size, sync)
            except NoSpace:
                assert replica.read_verified(0, MIB) == DATA
            else:
                files.free_bytes = 1 << 40
                if offset == 10:
                    put(replica, 10, DATA[10:60_010], False)
                replica.cut(len(DATA), False)
    assert not disk.failed
    files.reboot(everything_survives)
    assert open_disk(files).replicas[1].read_verified(0, MIB) == DATA


def test_an_overwrite_across_the_end_that_finds_no_room_leaves_the_disk_in_use() -> None:
    files = CrashFiles()
    disk = disk_with_a_chunk(files, segment_bytes=16 * MIB)
    replica = disk.replicas[1]
    for free in range(0, 1000, 20):
        files.free_bytes = free
        try:
            put(replica, len(DATA) - 100, b"z" * 300, False)
        except NoSpace:
            assert replica.read_verified(0, MIB) == DATA
        else:
            break
    assert replica.read_verified(0, MIB) == DATA[:-100] + b"z" * 300


def test_a_full_disk_without_room_for_a_new_segment_goes_on_in_the_old_one() -> None:
    files = CrashFiles()
    disk = disk_with_a_chunk(files, segment_bytes=1 * KIB)
    replica = disk.create(a_grant(2))
    put(replica, 0, b"x" * 2000, True)
    write = CrashFile.write

    def write_nothing_new(file: CrashFile, offset: int, *pieces: bytes) -> None:
        if not offset:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, offset, *pieces)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CrashFile, "write", write_nothing_new)
        put(replica, 2000, b"y" * 2000, True)
        disk.drop([disk.replicas[1]], "deletions make room")
    assert not disk.failed
    files.reboot(everything_survives)
    disk = open_disk(files)
    assert list(disk.replicas) == [2]
    assert disk.replicas[2].read_verified(0, MIB) == b"x" * 2000 + b"y" * 2000


@pytest.mark.parametrize("how", ["drop", "quarantine"])
def test_a_replica_that_a_full_disk_could_not_let_go_is_still_there(how: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("is kept as")
    files = CrashFiles()
    disk = disk_with_a_chunk(files)
    other = disk.create(a_grant(2))
    replica = disk.replicas[1]
    files.free_bytes = 0
    with pytest.raises(NoSpace):
        if how == "drop":
            disk.drop([replica, other], "the test wants it")
        else:
            disk.quarantine(replica, "the test wants it")
    assert replica.read_verified(0, MIB) == DATA
    files.free_bytes = 1 << 40
    if how == "drop":
        disk.drop([replica, other], "the test wants it")
        assert disk.replicas == {}
    else:
        disk.quarantine(replica, "the test wants it")
        assert list(disk.corrupt) == [1]
    assert not files.exists(CHUNK_FILE)
    disk.create(a_grant(1))


def test_dropping_a_replica_whose_file_has_vanished_leaves_the_disk_in_use() -> None:
    files = CrashFiles()
    disk = disk_with_a_chunk(files)
    files.remove(CHUNK_FILE)
    disk.drop([disk.replicas[1]], "the test wants it")
    assert not disk.failed
    assert disk.replicas == {}


@pytest.mark.parametrize("function", ["fdatasync", "fsync"])
def test_an_fsync_that_finds_no_space_is_a_failed_fsync(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    """Its pages are clean afterwards: asked again it would promise what was never written."""
    expected_logs("is out of use")
    store = open_store(tmp_path / "d")
    store.join_cluster(CLUSTER)
    replica = store.create(a_grant(1))
    original = getattr(os, function)
    failures = iter([errno.ENOSPC])

    def fail_once(descriptor: int) -> None:
        number = next(failures, 0)
        if number:
            raise OSError(number, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, function, fail_once)
    with pytest.raises(DiskFailed):
        put(replica, 0, bytes(70_000), True)
    assert store.disks[0].failed
    store.close()


def test_a_copy_that_cannot_be_published_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    files = CrashFiles()
    disk = disk_with_a_chunk(files)
    open_files: list[CrashFile] = []
    open_file = CrashFiles.open

    def counted(self: CrashFiles, path: Path, create: bool = False) -> CrashFile:
        open_files.append(open_file(self, path, create))
        monkeypatch.setattr(open_files[-1], "close", lambda: open_files.pop())
        return open_files[-1]

    state = ReplicaState(Base(1, 2, 7, 0, CHUNK_BYTES, 0, 0, b"", b"", False))
    copy = disk.layout.copy_file(1)
    files.open(copy, create=True)
    monkeypatch.setattr(CrashFiles, "open", counted)
    with pytest.raises(AlreadyExists):
        disk.adopt_copy(state)
    assert open_files == []
    disk.drop([disk.replicas[1]], "a newer copy takes its place")
    files.free_bytes = 0
    with pytest.raises(NoSpace):
        disk.adopt_copy(state)
    assert open_files == []
    assert disk.replicas == {}
    assert not files.exists(CHUNK_FILE)


def test_the_reserve_is_kept_free_and_deletion_still_works() -> None:
    files = CrashFiles()
    disk = Disk(files, ROOT, 48 * KIB, reserve_bytes=1 << 20)
    disk.lock()
    disk.adopt(CLUSTER, 1, 0)
    disk.recover()
    replica = disk.create(a_grant(1))
    files.free_bytes = (1 << 20) + 10
    disk._space_read_at = -10.0
    with pytest.raises(NoSpace):
        put(replica, 0, DATA, False)
    with pytest.raises(NoSpace):
        disk.create(a_grant(2))
    disk.drop([replica], "the test wants it")
    assert disk.replicas == {}


def test_what_does_not_fit_into_a_chunk_is_refused() -> None:
    disk = disk_with_a_chunk(CrashFiles())
    replica = disk.replicas[1]
    for offset, data in ((CHUNK_BYTES, b"x"), (-1, b"x"), (CHUNK_BYTES - 1, b"xy")):
        with pytest.raises(InvalidArgument):
            put(replica, offset, data, False)
    with pytest.raises(InvalidArgument):
        replica.cut(CHUNK_BYTES + 1, False)
    assert replica.read_verified(0, MIB) == DATA


def test_tables_and_files_of_idle_replicas_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfschunkserver.disk.OPEN_FILES_MAX", 3)
    files = CrashFiles()
    disk = open_disk(files)
    for chunk in range(1, 9):
        put(disk.create(a_grant(chunk)), 0, bytes([chunk]) * 70_000, True)
    disk.journal.rotate()
    assert disk.checkpoint_oldest(0)
    while disk.checkpoint_oldest(0):
        pass
    assert sum(replica.file is not None for replica in disk.replicas.values()) == 3
    assert sum(replica.loaded for replica in disk.replicas.values()) == 3
    for chunk in range(1, 9):
        assert disk.replicas[chunk].read_verified(69_999, 10) == bytes([chunk])
        put(disk.replicas[chunk], 70_000, b"more", True)
    files.reboot(anything_survives(1))
    disk = open_disk(files)
    for chunk in range(1, 9):
        assert disk.replicas[chunk].read_verified(69_999, 10) == bytes([chunk]) + b"more"


# -------------------------------------------------------------------------------- checkpoints beside other threads


def reopened(files: CrashFiles) -> Disk:
    files.failing = lambda _operation, _path: 0
    files.reboot(everything_survives)
    return open_disk(files)


def disk_with_two_chunks_to_checkpoint(files: CrashFiles) -> Disk:
    """Small files: their bytes are promised by the journal alone."""
    disk = open_disk(files)
    for chunk in (1, 2):
        put(disk.create(a_grant(chunk)), 0, bytes([chunk]) * 1000, True)
    disk.journal.rotate()
    return disk


def test_a_disk_that_fails_during_a_checkpoint_keeps_its_journal(expected_logs: ExpectedLogs) -> None:
    """Chunks that are gone because the disk failed were not dropped: only the journal still has them."""
    expected_logs("is out of use")
    files = CrashFiles()
    disk = disk_with_two_chunks_to_checkpoint(files)

    def fail_meanwhile(operation: str, path: Path) -> int:
        if operation == "sync" and path == CHUNK_FILE:
            disk.fail("another thread's fsync failed")
        return 0

    files.failing = fail_meanwhile
    with pytest.raises(DiskFailed):
        disk.checkpoint_oldest(0)
    disk = reopened(files)
    for chunk in (1, 2):
        assert disk.replicas[chunk].read_verified(0, MIB) == bytes([chunk]) * 1000


def test_a_checkpoint_does_not_count_when_another_thread_got_the_fsync_error(expected_logs: ExpectedLogs) -> None:
    """The kernel reports a failed write-back to one fsync of a descriptor only; the next one returns well."""
    expected_logs("is out of use")
    files = CrashFiles()
    disk = disk_with_two_chunks_to_checkpoint(files)
    segments = files.names(ROOT / "journal")
    replica = disk.replicas[2]
    syncs = iter(["the checkpoint's", "the writer's"])

    def fail_meanwhile(operation: str, path: Path) -> int:
        if operation == "sync" and path == replica.path:
            if next(syncs, "") == "the writer's":
                return errno.EIO
            with pytest.raises(DiskFailed):
                put(replica, 1000, bytes(70_000), True)
        return 0

    files.failing = fail_meanwhile
    with pytest.raises(DiskFailed):
        disk.checkpoint_oldest(0)
    assert files.names(ROOT / "journal") == segments


def test_a_checkpoint_leaves_a_drop_its_record_until_the_file_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a crash brings the replica back, with nothing in the journal that says it is gone."""
    files = CrashFiles()
    checkpointed(files)
    disk = open_disk(files)
    remove = files.remove

    def checkpoint_before(path: Path) -> None:
        if path == CHUNK_FILE:
            disk.journal.rotate()
            disk.checkpoint_oldest(0)
        remove(path)

    with monkeypatch.context() as patched:
        patched.setattr(files, "remove", checkpoint_before)
        disk.drop([disk.replicas[1]], "the test wants it")
    files.reboot(nothing_survives)
    assert open_disk(files).replicas == {}


# ------------------------------------------------------------------------------------------------------ whole stores


def open_store(*directories: Path) -> Store:
    store = Store(OsFiles(), directories, 64 * MIB, 0)
    store.open()
    return store


@pytest.mark.slow
def test_a_directory_is_used_by_one_process_only(tmp_path: Path) -> None:
    store = open_store(tmp_path / "d")
    try:
        program = (
            "import sys, pathlib\n"
            "from gfschunkserver.store import Store\nfrom gfschunkserver.files import OsFiles\n"
            "Store(OsFiles(), [pathlib.Path(sys.argv[1])], 1 << 20, 0).open()\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path / "d")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert DirectoryInUse.__name__ in result.stderr
        with pytest.raises(DirectoryInUse):
            open_store(tmp_path / "d")
    finally:
        store.close()
    open_store(tmp_path / "d").close()


@pytest.mark.slow
def test_a_server_keeps_its_identity_and_new_disks_join(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a")
    server = store.server
    store.join_cluster(CLUSTER)
    store.obey(7)
    store.close()
    store = open_store(tmp_path / "a", tmp_path / "b")
    assert (store.server, store.cluster, store.highest_epoch) == (server, CLUSTER, 7)
    store.close()
    store = open_store(tmp_path / "b")
    assert (store.server, store.cluster, store.highest_epoch) == (server, CLUSTER, 7)
    with pytest.raises(ForeignStore):
        store.join_cluster(b"another-cluster!")
    store.close()


@pytest.mark.slow
def test_disks_of_different_servers_or_clusters_do_not_mix(tmp_path: Path) -> None:
    for name in "ab":
        open_store(tmp_path / name).close()
    with pytest.raises(ForeignStore, match="servers"):
        open_store(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / "store.json").write_text("{}")
    with pytest.raises(UnsupportedFormat):
        open_store(tmp_path / "a")


@pytest.mark.slow
def test_of_two_replicas_of_a_chunk_the_newer_one_stays(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a", tmp_path / "b")
    store.join_cluster(CLUSTER)
    for disk, version in zip(store.disks, (2, 3), strict=True):
        put(disk.create(a_grant(1, version)), 0, bytes([version]), True)
    store.close()
    store = open_store(tmp_path / "a", tmp_path / "b")
    assert store.get(1).read_verified(0, 10) == b"\x03"
    assert [len(disk.replicas) for disk in store.disks] == [0, 1]
    store.close()


@pytest.mark.slow
def test_chunks_go_to_the_disk_with_more_room_and_a_failed_disk_leaves_the_others(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("is out of use")
    store = open_store(tmp_path / "a", tmp_path / "b")
    store.join_cluster(CLUSTER)
    told: list[int] = []
    store.listener = told.append
    first = store.create(a_grant(1))
    other = next(disk for disk in store.disks if disk is not first.home)
    put(other.create(a_grant(2)), 0, b"x", True)
    assert isinstance(first.home, Disk)
    first.home.fail("the test pulled the cable")
    assert told == [1, 1]
    with pytest.raises(ChunkNotFound):
        store.get(1)
    assert store.get(2).read_verified(0, 1) == b"x"
    assert isinstance(store.create(a_grant(3)).home, Disk)
    assert [usage.failed != "" for usage in store.usage()].count(True) == 1
    store.close()


def test_a_disk_that_cannot_remember_the_epoch_at_the_start_leaves_the_others(expected_logs: ExpectedLogs) -> None:
    """It failed under one leader, the next one came, and the server is started again."""
    expected_logs("is out of use", "injected into create")
    files = CrashFiles()
    roots = [Path("/a"), Path("/b")]
    store = Store(files, roots, 64 * MIB, 0)
    store.open()
    store.join_cluster(CLUSTER)
    put(store.disks[1].create(a_grant(1)), 0, b"x", True)
    files.failing = lambda operation, path: errno.EIO * (operation == "create" and path.parent == roots[0])
    store.obey(2)
    store.close()
    store = Store(files, roots, 64 * MIB, 0)
    store.open()
    try:
        assert store.highest_epoch == 2
        assert [bool(disk.failed) for disk in store.disks] == [True, False]
        assert store.get(1).read_verified(0, 1) == b"x"
    finally:
        store.close()


@pytest.mark.parametrize("broken", [0, 1])
def test_a_disk_that_cannot_even_be_looked_at_at_the_start_leaves_the_others(
    broken: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("is out of use")
    files = CrashFiles()
    roots = [Path("/a"), Path("/b")]
    store = Store(files, roots, 64 * MIB, 0)
    store.open()
    store.join_cluster(CLUSTER)
    server = store.server
    put(store.disks[1 - broken].create(a_grant(1)), 0, b"x", True)
    store.close()
    files.failing = lambda operation, path: errno.EIO * (path == roots[broken] / "store.json")
    store = Store(files, roots, 64 * MIB, 0)
    store.open()
    try:
        assert (store.server, store.cluster) == (server, CLUSTER)
        assert [bool(disk.failed) for disk in store.disks] == [number == broken for number in range(2)]
        assert store.get(1).read_verified(0, 1) == b"x"
        assert [bool(usage.failed) for usage in store.usage()] == [number == broken for number in range(2)]
    finally:
        store.close()
    files.failing = lambda operation, path: errno.EIO * (path.name == "store.json")
    with pytest.raises(ConfigurationError, match="cannot use the data directory"):
        Store(files, roots, 64 * MIB, 0).open()


def test_a_stopped_disk_is_touched_by_no_thread_that_was_left_behind() -> None:
    """The directory is another process's from then on, and the numbers of descriptors are other files'."""
    files = CrashFiles()
    disk = disk_with_a_chunk(files)
    replica, other = disk.replicas[1], disk.create(a_grant(2))
    disk.start()
    with other.pinned():
        disk.stop()
        assert other.file is not None
        before = bytes(files.content(CHUNK_FILE))
        with pytest.raises((ChunkNotFound, DiskFailed)):
            put(replica, len(DATA), b"late", False)
        with pytest.raises((ChunkNotFound, DiskFailed)):
            disk.create(a_grant(3))
    assert bytes(files.content(CHUNK_FILE)) == before
    assert other.file is None


def test_a_disk_that_failed_closes_its_files(expected_logs: ExpectedLogs) -> None:
    expected_logs("is out of use")
    disk = disk_with_a_chunk(CrashFiles())
    replica, other = disk.replicas[1], disk.create(a_grant(2))
    with other.pinned():
        disk.fail("the test pulled the cable")
        assert replica.file is None
        assert other.file is not None
    assert other.file is None


@pytest.mark.slow
def test_real_files_survive_kill_minus_nine(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib\n"
        "from tests.chunkserver.test_disk import open_store, put, a_grant, CLUSTER\n"
        "store = open_store(pathlib.Path(sys.argv[1]))\n"
        "store.join_cluster(CLUSTER)\n"
        "put(store.create(a_grant(1)), 0, b'a' * 100_000, False)\n"
        "put(store.get(1), 5, b'b' * 10, False)\n"
        "put(store.create(a_grant(2)), 0, b'c', True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "d")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert result.returncode == -9, result.stderr
    store = open_store(tmp_path / "d")
    assert store.get(1).read_verified(0, MIB) == b"aaaaa" + b"b" * 10 + b"a" * 99_985
    assert store.get(2).read_verified(0, MIB) == b"c"
    store.close()


def test_the_crash_double_forgets_what_was_not_synced() -> None:
    files = CrashFiles()
    file = files.open(ROOT / "x", create=True)
    file.write(0, b"durable")
    file.sync()
    files.sync_directory(ROOT)
    file.write(0, b"changed")
    files.open(ROOT / "y", create=True)
    files.crash_at = files.boundaries + 1
    with pytest.raises(Crashed):
        file.sync()
    files.reboot(lambda _states: 0)
    assert files.content(ROOT / "x") == b"durable"
    assert files.names(ROOT) == ["x"]
