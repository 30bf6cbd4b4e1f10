"""put and get: whole files or what was there before, and nothing left lying about."""

import asyncio
import io
import os
import stat
import threading

import pytest
from blake3 import blake3

from gfsprotocol import bulk
from gfsprotocol.errors import AlreadyExists, DataLost, GfsError, IsADirectory, NotFound
from gfsprotocol.ids import MIB
from tests.client.smallcluster import CHUNK_BYTES
from tests.master.leading import until


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, MIB, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 77])
async def test_a_file_goes_in_and_comes_out_the_same(small_cluster, tmp_path, size):
    files = (await small_cluster()).files
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(size))
    source.chmod(0o640)
    ups: list[tuple[int, int | None]] = []
    downs: list[tuple[int, int | None]] = []
    assert await files.put_file(source, "/a", progress=lambda *p: ups.append(p)) == size
    assert await files.get_file("/a", target, progress=lambda *p: downs.append(p)) == size
    assert source.read_bytes() == target.read_bytes()
    assert (await files.stat("/a")).mode & 0o777 == 0o640
    assert await files.checksum("/a") == blake3(source.read_bytes()).hexdigest()
    if size:
        assert ups[-1] == downs[-1] == (size, size)
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_download_is_durable_with_its_name(small_cluster, tmp_path, monkeypatch, overwrite):
    files = (await small_cluster()).files
    await files.write_bytes("/a", b"data")
    synced, fsync = [], os.fsync

    def note(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, os.listdir(tmp_path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    await files.get_file("/a", tmp_path / "local", overwrite=overwrite)
    assert synced[-1] == (os.stat(tmp_path).st_ino, ["local"])


async def test_what_is_there_is_not_overwritten_unasked(small_cluster, tmp_path):
    files = (await small_cluster()).files
    await files.write_bytes("/a", b"remote")
    (tmp_path / "local").write_bytes(b"local")
    with pytest.raises(AlreadyExists):
        await files.put_file(tmp_path / "local", "/a")
    with pytest.raises(AlreadyExists):
        await files.get_file("/a", tmp_path / "local")
    assert await files.read_bytes("/a") == b"remote"
    assert (tmp_path / "local").read_bytes() == b"local"
    await files.put_file(tmp_path / "local", "/a", overwrite=True)
    assert await files.read_bytes("/a") == b"local"
    await files.write_bytes("/a", b"again")
    await files.get_file("/a", tmp_path / "local", overwrite=True)
    assert (tmp_path / "local").read_bytes() == b"again"
    assert not await files.list_open()


async def test_overwriting_keeps_the_permissions_and_other_names(small_cluster, tmp_path):
    files = (await small_cluster()).files
    await files.write_bytes("/a", b"old", permissions=0o604)
    await files.link("/a", "/b")
    await files.put_stream(io.BytesIO(b"new"), "/a", overwrite=True)
    assert (await files.stat("/a")).mode & 0o777 == 0o604
    assert await files.read_bytes("/b") == b"old"
    assert await files.read_bytes("/a") == b"new"


async def test_directories_are_not_files(small_cluster, tmp_path):
    files = (await small_cluster()).files
    await files.mkdir("/d")
    await files.write_bytes("/a", b"x")
    with pytest.raises(IsADirectoryError):
        await files.put_file(tmp_path, "/new")
    assert not await files.exists("/new")
    with pytest.raises(IsADirectory):
        await files.put_stream(io.BytesIO(b"x"), "/d", overwrite=True)
    with pytest.raises(IsADirectoryError):
        await files.get_file("/a", tmp_path)
    with pytest.raises(IsADirectory):
        await files.get_file("/d", tmp_path / "x")
    with pytest.raises(NotFound):
        await files.get_file("/missing", tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        await files.put_file(tmp_path / "missing", "/new")
    with pytest.raises(FileNotFoundError):
        await files.get_file("/a", tmp_path / "no" / "such" / "place")
    assert os.listdir(tmp_path) == []


class Breaking(io.RawIOBase):
    """A source that fails after some bytes."""

    def __init__(self, good: int) -> None:
        self.left = good

    def readinto(self, buffer) -> int:
        if not self.left:
            raise OSError(5, "the disk is broken")
        count = min(len(buffer), self.left)
        self.left -= count
        return count


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_failed_upload_leaves_what_was_there_before(small_cluster, overwrite):
    files = (await small_cluster()).files
    if overwrite:
        await files.write_bytes("/a", b"old")
    with pytest.raises(OSError, match="broken"):
        await files.put_stream(Breaking(3 * MIB), "/a", overwrite=overwrite)
    assert await files.listdir("/") == (["a"] if overwrite else [])
    if overwrite:
        assert await files.read_bytes("/a") == b"old"
    assert not await files.list_open()


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
async def test_an_upload_that_is_cancelled_leaves_what_was_there_before(small_cluster, overwrite):
    cluster = await small_cluster()
    files = cluster.files
    if overwrite:
        await files.write_bytes("/a", b"old")
    hold, held = threading.Event(), threading.Event()

    def wait(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.Mutate):
            held.set()
            hold.wait(10)

    for server in cluster.fleet.servers.values():
        server.before = wait
    upload = asyncio.create_task(files.put_stream(io.BytesIO(bytes(40 * MIB)), "/a", overwrite=overwrite))
    await until(held.is_set)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload  # though the servers are still busy with it
    hold.set()
    assert await files.listdir("/") == (["a"] if overwrite else [])
    assert not await files.list_open()


@pytest.mark.parametrize("what", ["new", "overwrite", "open"])
async def test_cancelled_while_the_master_makes_the_file_nothing_of_it_stays(small_cluster, what):
    cluster = await small_cluster()
    files = cluster.files
    await files.write_bytes("/a", b"old")
    state = cluster.harness.leader.state
    cluster.harness.log.open.clear()
    if what == "open":
        work = asyncio.create_task(files.open("/a", "r+"))
    else:
        path = "/a" if what == "overwrite" else "/b"
        work = asyncio.create_task(files.put_stream(io.BytesIO(b"data"), path, overwrite=what == "overwrite"))
    await until(lambda: len(state.writers))
    work.cancel()
    await asyncio.sleep(0)
    cluster.harness.log.open.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await files.listdir("/") == ["a"]
    assert not await files.list_open()


async def test_a_write_that_is_cancelled_before_it_began_leaves_no_file_open(small_cluster):
    cluster = await small_cluster(threads=4)
    hold = threading.Event()
    for server in cluster.fleet.servers.values():
        server.before = lambda request: hold.wait(10) if isinstance(request, bulk.Mutate) else None
    writes = [asyncio.create_task(cluster.files.write_bytes(f"/{number}", b"data")) for number in range(5)]
    await until(lambda: len(cluster.harness.leader.state.writers) == 5)
    await until(lambda: cluster.files._core._workers._work_queue.qsize() == 1)
    writes[4].cancel()
    await asyncio.sleep(0)
    hold.set()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 4 + [asyncio.CancelledError]
    await until(lambda: not cluster.harness.leader.state.writers)


@pytest.mark.slow
async def test_an_upload_from_a_pipe_that_is_cancelled_does_not_wait_for_the_pipe(small_cluster):
    files = (await small_cluster()).files
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as sink:
        sink.write(b"some")
        upload = asyncio.create_task(files.put_stream(source, "/a"))
        await asyncio.sleep(0.05)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(upload, 3)
    assert not await files.exists("/a")


@pytest.mark.slow
async def test_an_upload_from_a_pipe_ends_with_the_pipe(small_cluster):
    files = (await small_cluster()).files
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        with os.fdopen(writing, "wb", buffering=0) as sink:
            upload = asyncio.create_task(files.put_stream(source, "/a"))
            for _ in range(5):
                sink.write(b"some ")
                await asyncio.sleep(0.01)
        assert await upload == 25
    assert await files.read_bytes("/a") == b"some " * 5


@pytest.mark.slow
async def test_a_download_that_fails_leaves_nothing(small_cluster, tmp_path):
    cluster = await small_cluster(deadline_seconds=0.2)
    await cluster.files.write_bytes("/a", bytes(100_000))
    for server in cluster.fleet.servers.values():
        server.kill()
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(DataLost):
        await cluster.files.get_file("/a", tmp_path / "old", overwrite=True)
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


async def test_a_device_is_written_to_and_not_replaced(small_cluster):
    files = (await small_cluster()).files
    await files.write_bytes("/a", b"gone")
    assert await files.get_file("/a", "/dev/null") == 4
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


async def test_a_part_of_a_file_can_be_had(small_cluster):
    files = (await small_cluster()).files
    data = os.urandom(300_000)
    await files.write_bytes("/a", data)
    for offset, length in (
        (0, None),
        (0, 0),
        (5, 10),
        (70_000, 200_000),
        (299_999, 100),
        (300_000, 1),
        (400_000, None),
    ):
        sink = io.BytesIO()
        expected = data[offset:] if length is None else data[offset : offset + length]
        assert await files.get_stream("/a", sink, offset, length) == len(expected)
        assert sink.getvalue() == expected


@pytest.mark.slow
async def test_an_upload_to_no_servers_leaves_no_name_behind(small_cluster):
    cluster = await small_cluster(servers=1, deadline_seconds=0.3)
    with pytest.raises(GfsError):
        await cluster.files.put_stream(io.BytesIO(b"data"), "/a")
    assert await cluster.files.listdir("/") == []
