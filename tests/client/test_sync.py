"""The sync API: real masters' protocol over a real port, files that behave like Python's own."""

import asyncio
import inspect
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from aiohttp import web

from gfsclient import filesystem, sync
from gfsprotocol import bulk, rpc
from gfsprotocol.errors import ConnectionLost, InvalidArgument, NotFound
from gfsprotocol.ids import MIB
from gfsprotocol.network import RPC_PATH, upgrade
from tests.client.smallcluster import CHUNK_BYTES, SmallCluster, running
from tests.master.leading import KEY


class ServedCluster:
    """The small cluster on a loop in another thread, with its leader on a real port."""

    def __init__(self) -> None:
        self.address = ""
        self.cluster: SmallCluster
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _run(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        async with running() as self.cluster:
            app = web.Application()
            app.router.add_get(RPC_PATH, self._accept)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.address = f"{host}:{port}"
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        channel, response = await upgrade(request)
        peer = await rpc.accept(channel, "master", b"m", lambda _: KEY, self.cluster.harness.leader)
        await peer.run()
        return response

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture
def served() -> Iterator[ServedCluster]:
    cluster = ServedCluster()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def files(served: ServedCluster) -> Iterator[sync.FileSystem]:
    with sync.FileSystem.connect([served.address], KEY, user=(0, 0), deadline_seconds=10) as system:
        yield system


def test_names_and_attributes(files):
    files.mkdir("/a/b", parents=True)
    files.write_bytes("/a/f", b"data")
    files.symlink("f", "/a/link")
    files.link("/a/f", "/a/g")
    assert files.listdir("/a") == ["b", "f", "g", "link"]
    assert [name for name, _ in files.scandir("/a")] == ["b", "f", "g", "link"]
    assert list(files.walk("/")) == [("/", ["a"], []), ("/a", ["b"], ["f", "g", "link"]), ("/a/b", [], [])]
    assert files.readlink("/a/link") == "f"
    assert files.read_bytes("/a/link") == b"data"
    assert files.stat("/a/f").links == 2
    files.chmod("/a/f", 0o600)
    files.chown("/a/f", 5, -1)
    files.utime("/a/f", 1, 2)
    attributes = files.stat("/a/f")
    assert (attributes.mode & 0o777, attributes.uid, attributes.gid) == (0o600, 5, 0)
    assert (attributes.accessed_ns, attributes.modified_ns) == (1, 2)
    files.set_xattr("/a/f", "user.colour", b"blue")
    assert files.list_xattrs("/a/f") == ["user.colour"]
    assert files.get_xattr("/a/f", "user.colour") == b"blue"
    files.remove_xattr("/a/f", "user.colour")
    files.set_replication("/a/f", 2)
    assert files.stat("/a/f").replication == 2
    assert files.access("/a/f", 6)
    files.rename("/a/f", "/a/h")
    files.truncate("/a/h", 2)
    assert files.read_bytes("/a/g") == b"da"
    assert files.summarize("/a").files == 2  # each inode once
    files.remove("/a/h")
    files.rmdir("/a/b")
    entry = files.move_to_trash("/a")
    assert not files.exists("/a")
    assert [item.inode for item in files.list_trash()] == [entry.inode]
    files.restore_trash(entry.inode)
    assert files.is_dir("/a")
    files.move_to_trash("/a")
    assert files.empty_trash() == 1
    assert files.space().total_bytes > 0
    assert len(files.status().servers) == 3
    assert files.list_open() == []
    files.mkdir("/tree/deep", parents=True)
    files.remove_tree("/tree")
    assert files.listdir("/") == []


@pytest.mark.slow
def test_files_work_with_what_python_has_for_files(files, tmp_path):
    data = os.urandom(CHUNK_BYTES + 1000)
    with files.open("/a", "wb") as target:
        shutil.copyfileobj(io.BytesIO(data), target)
    with files.open("/a") as source:
        assert source.read() == data
        source.seek(-5, os.SEEK_END)
        assert source.read() == data[-5:]
        assert source.pread(10, 5) == data[10:15]
    with io.TextIOWrapper(files.open("/t", "wb"), "utf-8") as text:
        json.dump({"ä": list(range(1000))}, text)
    with files.open("/t") as raw:
        assert json.load(raw) == {"ä": list(range(1000))}
    with files.open("/l", "wb") as lines:
        lines.writelines(b"line %d\n" % number for number in range(2000))
    with files.open("/l") as lines:
        assert list(lines) == [b"line %d\n" % number for number in range(2000)]
    with files.open("/l", "r+b") as both:
        both.write(b"LINE")
        assert both.tell() == 4
        assert both.readline() == b" 0\n"
        both.truncate(6)
        both.flush()
        both.fsync()
        assert both.size() == 6
    assert files.read_bytes("/l") == b"LINE 0"
    (tmp_path / "x").write_bytes(data)
    assert files.put_file(tmp_path / "x", "/x") == len(data)
    assert files.get_file("/x", tmp_path / "y") == len(data)
    assert (tmp_path / "y").read_bytes() == data
    sink = io.BytesIO()
    files.get_stream("/x", sink, 5, 10)
    assert sink.getvalue() == data[5:15]
    files.put_stream(io.BytesIO(b"12"), "/z")
    assert files.append_record("/z", b"34") == 2
    assert files.checksum("/z") == files.checksum("/z")


@pytest.mark.slow
def test_threads_share_a_file_system(files):
    failures = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                data = bytes([number]) * (turn * 1000 + 1)
                files.write_bytes(f"/{number}", data)
                assert files.read_bytes(f"/{number}") == data
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.slow
def test_parallel_positional_reads_of_one_file(files):
    data = os.urandom(2 * MIB)
    files.write_bytes("/a", data)
    failures = []
    with files.open("/a") as file:

        def work(number: int) -> None:
            for turn in range(20):
                offset = (number * 7919 + turn * 104_729) % len(data)
                if file.pread(offset, 90_000) != data[offset : offset + 90_000]:
                    failures.append(offset)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_errors_are_the_same_as_those_of_the_async_api(files):
    with pytest.raises(NotFound):
        files.stat("/missing")
    with pytest.raises(NotFound):
        files.open("/missing")


def test_a_closed_file_system_refuses(files):
    files.close()
    files.close()
    with pytest.raises(ConnectionLost, match="closed"):
        files.stat("/")


def in_child(work: Callable[[], str]) -> str:
    """What ``work`` returns in a forked child; nothing if it hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        return told.read().decode()


@pytest.mark.slow
def test_a_forked_child_is_told_to_open_its_own(files):
    def work() -> str:
        with pytest.raises(InvalidArgument) as caught:
            files.stat("/")
        return caught.value.message

    assert "forked" in in_child(work)


@pytest.mark.slow
def test_a_forked_child_does_not_use_the_connections_of_files_that_are_open(files):
    files.write_bytes("/a", b"data")
    source, target = files.open("/a"), files.open("/b", "wb")
    target.write(b"half")

    def work() -> str:
        refused = []
        for use in (source.read, lambda: source.pread(0, 1), lambda: target.write(b"x"), target.fsync, target.tell):
            try:
                use()
            except InvalidArgument as error:
                refused.append("forked" in error.message)
        source.close()
        target.close()
        target.flush()
        return f"{refused} {source.closed} {target.closed}"

    assert in_child(work) == f"{[True] * 5} True True"
    assert source.read() == b"data"
    target.write(b" and half")
    source.close()
    target.close()
    assert files.read_bytes("/b") == b"half and half"


def test_a_file_of_a_closed_file_system_says_so(files):
    files.write_bytes("/a", bytes(100_000))
    file = files.open("/a")
    files.close()
    with pytest.raises(ConnectionLost, match="closed"):
        file.read(10)


@pytest.mark.slow
def test_a_program_that_ends_without_closing_a_file_ends_and_loses_nothing(files, served):
    program = f"""
from gfsclient import sync
system = sync.FileSystem.connect(["{served.address}"], {KEY!r}, user=(0, 0), deadline_seconds=10)
file = system.open("/left", "wb")
file.write(bytes(3 << 20))
reading = system.open("/left")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert files.stat("/left").size == 3 << 20
    assert not files.list_open()


@pytest.mark.slow
def test_an_interrupted_upload_has_left_nothing_behind_when_the_interrupt_is_seen(files, served):
    once = threading.Semaphore(1)

    def interrupt(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.Mutate) and once.acquire(blocking=False):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    for server in served.cluster.fleet.servers.values():
        server.before = interrupt

    class Endless:
        def read(self, count: int) -> bytes:
            return bytes(count)

    with pytest.raises(KeyboardInterrupt):
        files.put_stream(Endless(), "/half")
    files.close()
    with sync.FileSystem.connect([served.address], KEY, user=(0, 0), deadline_seconds=10) as other:
        assert other.listdir("/") == []
        assert other.list_open() == []


FOR_EVENT_LOOPS = {"acting_as", "begin_upload", "list_page", "locate", "open_handle", "open_unnamed", "publish"}
"""What only code that runs on the event loop has a use for: the gateway, and this project's own adapters."""


def test_both_apis_have_the_same_calls():
    def calls(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in FOR_EVENT_LOOPS
        }

    assert calls(sync.FileSystem) == calls(filesystem.FileSystem)
