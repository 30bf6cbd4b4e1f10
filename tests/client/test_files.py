"""Files go in and come out as they were."""

import asyncio
import gc
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfsprotocol import bulk
from gfsprotocol.errors import AlreadyExists, ConnectionLost, InvalidArgument, IsADirectory, NotFound
from gfsprotocol.ids import KIB, MIB
from tests.client.smallcluster import CHUNK_BYTES, SmallCluster, running


async def test_a_small_file_comes_back(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/a", b"hello")
    assert await cluster.files.read_bytes("/a") == b"hello"
    assert (await cluster.files.stat("/a")).size == 5


async def test_an_empty_file_comes_back(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/a", b"")
    assert await cluster.files.read_bytes("/a") == b""


async def test_a_small_file_takes_one_round_trip_to_the_primary(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/a", b"hello")
    requests = [request for server in cluster.fleet.servers.values() for request in server.requests]
    assert [type(request).__name__ for request in requests] == ["SingleWrite"]
    assert requests[0].sync


@pytest.mark.slow
async def test_a_file_of_several_chunks_comes_back(small_cluster):
    cluster = await small_cluster()
    data = os.urandom(CHUNK_BYTES * 3 + 12345)
    await cluster.files.write_bytes("/big", data)
    assert await cluster.files.read_bytes("/big") == data
    async with await cluster.files.open("/big") as file:
        pieces = []
        while piece := await file.read(100_000):
            pieces.append(piece)
    assert b"".join(pieces) == data
    contents = [cluster.fleet.content(chunk) for chunk in cluster.fleet.servers[1].replicas]
    pieces = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    assert sorted(contents) == sorted([piece] * 3 for piece in pieces)


async def test_closing_makes_every_byte_durable_on_every_replica(small_cluster):
    cluster = await small_cluster(chunk_bytes=256 * KIB)
    async with await cluster.files.open("/a", "wb") as file:
        for _ in range(10):
            await file.write(b"x" * 100_000)
            await file.flush()
    for server in cluster.fleet.servers.values():
        assert sum(len(replica.data) for replica in server.replicas.values()) == 1_000_000
        assert all(replica.synced == len(replica.data) for replica in server.replicas.values())


async def test_flushed_bytes_are_seen_by_another_client_before_the_close(small_cluster):
    cluster = await small_cluster()
    other = cluster.connect()
    async with await cluster.files.open("/a", "wb") as file:
        await file.write(b"first")
        await file.flush()
        assert await other.read_bytes("/a") == b"first"
        async with await other.open("/a") as reading:
            assert await reading.read() == b"first"
            await file.write(b" second")
            await file.flush()
            assert await reading.read() == b" second"


async def test_modes_do_what_open_promises(small_cluster):
    files = (await small_cluster()).files
    with pytest.raises(NotFound):
        await files.open("/a", "r")
    with pytest.raises(NotFound):
        await files.open("/a", "r+")
    async with await files.open("/a", "x") as file:
        await file.write(b"abc")
    with pytest.raises(AlreadyExists):
        await files.open("/a", "xb")
    async with await files.open("/a", "ab") as file:
        await file.seek(0)
        await file.write(b"def")
    assert await files.read_bytes("/a") == b"abcdef"
    async with await files.open("/a", "r+b") as file:
        assert await file.read(2) == b"ab"
        await file.write(b"XY")
        assert await file.read() == b"ef"
        await file.seek(-1, 2)
        assert await file.read() == b"f"
    assert await files.read_bytes("/a") == b"abXYef"
    async with await files.open("/a", "w+") as file:
        assert await file.read() == b""
        await file.write(b"new")
        assert await file.pread(0, 10) == b"new"
    await files.mkdir("/d")
    for mode in ("r", "r+", "w", "a"):
        with pytest.raises(IsADirectory):
            await files.open("/d", mode)


@pytest.mark.parametrize("mode", ["", "b", "rw", "rt", "rbb", "+", "U"])
async def test_an_impossible_mode_is_refused(small_cluster, mode):
    cluster = await small_cluster()
    with pytest.raises(InvalidArgument, match="not a mode"):
        await cluster.files.open("/a", mode)


async def test_a_closed_or_unsuitable_file_refuses(small_cluster):
    files = (await small_cluster()).files
    file = await files.open("/a", "wb")
    with pytest.raises(InvalidArgument, match="not open for reading"):
        await file.read()
    await file.close()
    await file.close()
    with pytest.raises(InvalidArgument, match="closed"):
        await file.write(b"x")
    async with await files.open("/a") as reading:
        with pytest.raises(InvalidArgument, match="not open for writing"):
            await reading.write(b"x")


async def test_what_was_never_written_reads_as_zeros(small_cluster):
    files = (await small_cluster(chunk_bytes=128 * KIB)).files
    async with await files.open("/sparse", "wb") as file:
        await file.pwrite(300 * KIB, b"end")
    assert await files.read_bytes("/sparse") == bytes(300 * KIB) + b"end"
    await files.truncate("/sparse", 500 * KIB)
    assert await files.read_bytes("/sparse") == bytes(300 * KIB) + b"end" + bytes(200 * KIB - 3)
    await files.truncate("/sparse", 300 * KIB + 1)
    await files.truncate("/sparse", 300 * KIB + 3)
    assert await files.read_bytes("/sparse") == bytes(300 * KIB) + b"e\0\0"


async def test_memory_of_a_writer_is_bounded_whatever_it_writes(small_cluster):
    cluster = await small_cluster(chunk_bytes=64 * MIB, write_window_packets=4)
    held: list[int] = []
    handle = await cluster.files.open_handle(b"/a", "wb")

    def look(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.Mutate):
            held.append(handle._writer._buffers)

    for server in cluster.fleet.servers.values():
        server.before = look
    for _ in range(20):
        await cluster.files._core.in_thread(handle.write, bytes(MIB))
    await cluster.files._core.in_thread(handle.close)
    assert max(held) <= 4


async def test_a_file_that_is_flushed_holds_no_buffers(small_cluster):
    cluster = await small_cluster()
    handle = await cluster.files.open_handle(b"/a", "wb")
    await cluster.files._core.in_thread(handle.write, b"small")
    assert handle._writer._buffers == 1
    await cluster.files._core.in_thread(handle.flush)
    assert handle._writer._buffers == 0
    await cluster.files._core.in_thread(handle.close)


async def test_a_read_after_the_own_truncation_ends_where_the_file_does(small_cluster):
    files = (await small_cluster()).files
    async with await files.open("/a", "w+b") as file:
        await file.pwrite(0, b"abc")
        assert await file.pread(0, 3) == b"abc"
        await file.truncate(0)
        assert await file.pread(0, 1) == b""


async def test_a_read_of_what_another_client_cut_off_ends_there(small_cluster):
    cluster = await small_cluster()
    await cluster.files.write_bytes("/a", bytes(1000))
    async with await cluster.files.open("/a") as file:
        await cluster.connect().truncate("/a", 10)
        file._handle._reader.chunks.forget()
        assert await file.pread(5, 100) == bytes(5)


@pytest.mark.parametrize("size", [500, 64 * KIB, 100_000, 300_000])
async def test_what_was_written_before_a_truncation_is_durable_after_the_close(small_cluster, size):
    cluster = await small_cluster(chunk_bytes=128 * KIB)
    async with await cluster.files.open("/a", "wb") as file:
        await file.write(bytes(90_000))
        await file.flush()
        await file.truncate(size)
    for server in cluster.fleet.servers.values():
        assert [replica.synced for replica in server.replicas.values()] == [90_000]


# ------------------------------------------------------------------------------------------------ against a model

_OFFSETS = st.one_of(st.integers(0, 400_000), st.sampled_from([0, 65_535, 65_536, 131_071, 131_072, 131_073, 262_144]))
_COUNTS = st.one_of(st.integers(1, 200_000), st.sampled_from([1, 65_536, 131_072]))
_STEPS = st.one_of(
    st.tuples(st.just("pwrite"), _OFFSETS, _COUNTS),
    st.tuples(st.just("pread"), _OFFSETS, _COUNTS),
    st.tuples(st.just("write"), _OFFSETS, _COUNTS),
    st.tuples(st.just("read"), _OFFSETS, _COUNTS),
    st.tuples(st.just("truncate"), _OFFSETS, st.just(0)),
    st.tuples(st.sampled_from(["flush", "fsync", "reopen"]), st.just(0), st.just(0)),
)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(_STEPS, max_size=12), st.integers(0, 2**32))
def test_an_open_file_behaves_like_an_array_of_bytes(steps, seed):
    asyncio.run(_compare_with_model(steps, seed))


async def _compare_with_model(steps: list[tuple[str, int, int]], seed: int) -> None:
    model = bytearray()
    pattern = bytes((seed + n * 7) % 251 + 1 for n in range(251)) * 900
    async with running(chunk_bytes=128 * KIB, write_window_packets=4, read_ahead_bytes=512 * KIB) as cluster:
        file = await cluster.files.open("/f", "w+b")
        for number, (action, offset, count) in enumerate(steps):
            data = pattern[number : number + count]
            match action:
                case "pwrite":
                    await file.pwrite(offset, data)
                    _write(model, offset, data)
                case "write":
                    await file.seek(offset)
                    await file.write(data)
                    _write(model, offset, data)
                    assert await file.tell() == offset + len(data)
                case "pread":
                    assert await file.pread(offset, count) == model[offset : offset + count]
                case "read":
                    await file.seek(offset)
                    assert await file.read(count) == model[offset : offset + count]
                case "truncate":
                    assert await file.truncate(offset) == offset
                    model.extend(bytes(max(0, offset - len(model))))
                    del model[offset:]
                case "flush":
                    await file.flush()
                case "fsync":
                    await file.fsync()
                case "reopen":
                    await file.close()
                    assert await cluster.files.read_bytes("/f") == model
                    file = await cluster.files.open("/f", "r+b")
            assert await file.size() == len(model)
        await file.close()
        assert await cluster.files.read_bytes("/f") == model
        _check_replicas(cluster)


def _write(model: bytearray, offset: int, data: bytes) -> None:
    model.extend(bytes(max(0, offset - len(model))))
    model[offset : offset + len(data)] = data


def _check_replicas(cluster: SmallCluster) -> None:
    for chunk in {chunk for server in cluster.fleet.servers.values() for chunk in server.replicas}:
        assert len(set(cluster.fleet.content(chunk))) == 1


async def test_what_fails_after_its_caller_was_cancelled_is_not_complained_about(small_cluster):
    """Said on stderr by asyncio's handler, when the future is collected."""
    cluster = await small_cluster()
    begun, go_on = threading.Event(), threading.Event()

    def work():
        begun.set()
        go_on.wait(10)
        raise ConnectionLost("the file system is closed")

    complaints = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    waiting = asyncio.create_task(cluster.files._core.in_thread(work))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    go_on.set()
    await cluster.files.close()
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []
