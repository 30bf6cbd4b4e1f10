"""What must not happen to data when processes die, disks rot or fill up, and strangers knock on the ports."""

import multiprocessing
import os
import random
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gfschunkserver import chunkfile
from gfsclient.sync import FileSystem
from gfsprotocol import bulk
from gfsprotocol.errors import NoSpace, TooFewServers
from gfsprotocol.ids import MIB
from tests.cluster.harness import Cluster, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
Start = Callable[..., Cluster]
# After a takeover nothing is copied before the leases of the leader before have ended.
FAST = {"server_silent_seconds": 2.0, "lease_seconds": 1.0, "chunk_lease_seconds": 4.0}


def pattern(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Upload:
    """``gfsclient put - PATH`` in a process, fed by hand."""

    def __init__(self, cluster: Cluster, path: str, data: bytes) -> None:
        self.data = data
        self.sent = 0
        self.process = cluster.popen("put", "-", path, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def feed(self, count: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(self.data[self.sent : self.sent + count])
        self.process.stdin.flush()
        self.sent += count

    def feed_until_recorded(self, cluster: Cluster, path: str, count: int) -> int:
        """Feeds ``count`` bytes, and on in small steps until the master knows of some; how many it knows of."""
        self.feed(count)
        deadline = time.monotonic() + 30
        with FileSystem.from_config(cluster.layout.client_file) as fs:
            while not (size := fs.stat(path).size if fs.exists(path) else 0):
                assert time.monotonic() < deadline, "nothing is recorded in time"
                self.feed(65_536)
                time.sleep(0.02)
        return size

    def finish(self) -> tuple[int, str]:
        assert self.process.stdin is not None
        self.feed(len(self.data))
        self.process.stdin.close()
        assert self.process.stderr is not None
        errors = self.process.stderr.read().decode()
        self.process.stderr.close()
        return self.process.wait(120), errors


def test_a_chunk_server_killed_in_the_middle_of_a_put(cluster: Start) -> None:
    running = cluster(chunkservers=3, master=FAST)
    data = pattern(150 * MIB)
    for number in (1, 2, 3):
        upload = Upload(running, f"/file-{number}", data)
        assert upload.feed_until_recorded(running, f"/file-{number}", 75 * MIB + 12345)
        running.kill(f"chunkserver-{number}")
        assert upload.finish() == (0, "")
        assert running.gfsclient("cat", f"/file-{number}").stdout == data
        running.restart(f"chunkserver-{number}")
        running.wait_for("all copies are back", lambda status: status["state"] == "well", seconds=90)


def test_a_chunk_server_killed_in_the_middle_of_a_get(cluster: Start) -> None:
    running = cluster(chunkservers=3, master=FAST)
    data = pattern(200 * MIB)
    assert running.gfsclient("put", "-", "/file", input=data).returncode == 0
    for number in (1, 2, 3):
        download = running.popen("get", "/file", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert download.stdout is not None
        assert download.stderr is not None
        received = download.stdout.read(30 * MIB)
        running.kill(f"chunkserver-{number}")
        received += download.stdout.read()
        assert (download.wait(), download.stderr.read()) == (0, b"")
        assert received == data
        download.stdout.close()
        download.stderr.close()
        running.restart(f"chunkserver-{number}")
        running.wait_for("it is back", lambda status: status["state"] == "well", seconds=90)


def test_everything_killed_in_the_middle_of_a_put(cluster: Start) -> None:
    running = cluster(chunkservers=3, master=FAST)
    data = pattern(150 * MIB)
    assert running.gfsclient("put", "-", "/before", input=data[:MIB]).returncode == 0
    upload = Upload(running, "/file", data)
    acknowledged = upload.feed_until_recorded(running, "/file", 80 * MIB)
    running.kill_all()
    upload.process.kill()
    upload.process.communicate()
    running.up()
    with FileSystem.from_config(running.layout.client_file) as fs:
        assert sorted(fs.listdir("/")) == ["before", "file"]
        assert fs.read_bytes("/before") == data[:MIB]
        size = fs.stat("/file").size
        assert size >= acknowledged
        assert fs.read_bytes("/file") == data[:size]
        assert [file.path for file in fs.list_open()] == [b"/file"]


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 70_000)


def foreign(path: Path) -> None:
    """As if the file came from another cluster: its header names that one, everything else is right."""
    with path.open("r+b") as file:
        header = chunkfile.decode_header(file.read(chunkfile.HEADER_BYTES))
        file.seek(0)
        file.write(chunkfile.encode_header(msgspec.structs.replace(header, cluster=b"f" * 16)))


@pytest.mark.parametrize(
    ("damage", "at_rest"),
    [
        (flip, False),
        pytest.param(truncate, False, marks=pytest.mark.long),
        (flip, True),
        (truncate, True),
        (Path.unlink, True),
        (foreign, True),
    ],
    ids=["flip-running", "truncate-running", "flip-at-rest", "truncate-at-rest", "missing-at-rest", "foreign-at-rest"],
)
def test_a_damaged_replica_is_never_returned_and_is_reported(
    cluster: Start, damage: Callable[[Path], object], at_rest: bool
) -> None:
    """Each server's replica in turn: one of them is the one that readers ask first, so at least one is noticed. What a
    server sees when it starts, it sees whichever one it is."""
    seen_at_start = at_rest and damage is not flip
    running = cluster(chunkservers=3, master=FAST)
    data = pattern(3 * MIB)
    assert running.gfsclient("put", "-", "/file", input=data).returncode == 0
    running.down()  # what is in the journal goes to the chunk files
    running.up()
    noticed = 0
    for name in ["chunkserver-2"] if seen_at_start else ["chunkserver-1", "chunkserver-2", "chunkserver-3"]:
        [path] = running.data_directory(name).glob("chunks/*/*.chunk")
        good = path.read_bytes()
        if at_rest:
            running.kill(name)
        said_before = len(running.log(name))
        damage(path)
        if at_rest:
            running.restart(name)
            running.wait_for("it is back", lambda status: all(server["alive"] for server in status["chunkservers"]))
        for _ in range(2):
            assert running.gfsclient("cat", "/file").stdout == data
        is_gone = damage is Path.unlink and at_rest  # nobody can tell that it was there but the master
        if is_noticed := is_gone or says_damage(running, name, said_before):
            noticed += 1
            running.wait_for("the copy is made good", lambda status: status["state"] == "well", seconds=60)
            wait_until("a good copy is stored", lambda path=path, good=good: is_same_data(path, good))  # type: ignore[misc]
        else:
            path.write_bytes(good)
        assert is_noticed or not seen_at_start
    assert noticed >= 1


def says_damage(cluster: Cluster, name: str, start: int) -> bool:
    """Whether the chunk server's log tells of damage, within a few seconds."""
    deadline = time.monotonic() + 3
    while not re.search("corrupt|missing|damaged|another cluster|shorter", cluster.log(name)[start:], re.IGNORECASE):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_same_data(path: Path, good: bytes) -> bool:
    return path.exists() and path.read_bytes()[-2 * MIB :] == good[-2 * MIB :]


def _append(config: Path, worker: int, count: int, results: "multiprocessing.queues.Queue[object]") -> None:
    source = random.Random(worker)
    with FileSystem.from_config(config) as fs:
        for number in range(count):
            body = source.randbytes(source.choice([64, 1000, 65_000]))
            record = struct.pack("<4sIII", b"rec!", worker, number, len(body)) + body
            results.put((worker, number, fs.append_record("/log", record), len(record)))


def test_ten_writers_append_each_record_whole_and_once(cluster: Start) -> None:
    running = cluster(chunkservers=3, master=FAST)
    assert running.gfsclient("touch", "/log").returncode == 0
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.queues.Queue[object] = context.Queue()
    writers = [
        context.Process(target=_append, args=(running.layout.client_file, worker, 40, results)) for worker in range(10)
    ]
    for writer in writers:
        writer.start()
    answers = [results.get(timeout=120) for _ in range(400)]
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    results.close()
    results.join_thread()
    with FileSystem.from_config(running.layout.client_file) as fs:
        content = fs.read_bytes("/log")
    expected: dict[int, tuple[int, int]] = {}
    for worker, number, offset, length in answers:  # type: ignore[misc]
        magic, found_worker, found_number, body = struct.unpack_from("<4sIII", content, offset)
        assert (magic, found_worker, found_number, body + 16) == (b"rec!", worker, number, length)
        expected[offset] = (offset, length)
    assert len(expected) == 400
    assert sum(length for _, length in expected.values()) == len(content)  # nothing twice, no gaps: it fits one chunk
    sources = {worker: random.Random(worker) for worker in range(10)}
    for worker in range(10):
        for offset in sorted(o for w, _, o, _ in answers if w == worker):  # type: ignore[misc]
            body = sources[worker].randbytes(sources[worker].choice([64, 1000, 65_000]))
            assert content[offset + 16 : offset + 16 + len(body)] == body


def test_the_chunks_of_a_dead_server_come_back_to_their_number_of_copies(cluster: Start) -> None:
    running = cluster(chunkservers=4, replication=3, master=FAST)
    for number in range(5):
        assert running.gfsclient("put", "-", f"/{number}", input=pattern(MIB, number)).returncode == 0
    before = running.wait_for("all is well", lambda status: status["state"] == "well")
    victim = max(before["chunkservers"], key=lambda server: server["chunks"])
    name = next(
        n
        for n in ("chunkserver-1", "chunkserver-2", "chunkserver-3", "chunkserver-4")
        if str(victim["address"]).endswith(str(running.port_base + 99 + int(n[-1])))
    )
    running.kill(name)

    def is_repaired(status: dict[str, object]) -> bool:
        alive = [server for server in status["chunkservers"] if server["alive"]]  # type: ignore[attr-defined]
        return len(alive) == 3 and sum(server["chunks"] for server in alive) == 15

    running.wait_for("15 copies on three servers", is_repaired, seconds=60)
    for number in range(5):
        assert running.gfsclient("cat", f"/{number}").stdout == pattern(MIB, number)


def test_fewer_live_servers_than_needed_refuse_a_write_in_one_line(cluster: Start) -> None:
    running = cluster(chunkservers=3, master=FAST)
    assert running.gfsclient("put", "-", "/before", input=b"x").returncode == 0
    running.kill("chunkserver-1")
    assert running.gfsclient("put", "-", "/two", input=b"y").returncode == 0
    running.kill("chunkserver-2")
    done = running.gfsclient("--deadline", "3", "put", "-", "/one", input=b"z")
    assert done.returncode == TooFewServers.exit_code
    assert len(done.stderr.decode().splitlines()) == 1
    assert "a write needs at least 2" in done.stderr.decode()
    assert running.gfsclient("cat", "/before").stdout == b"x"
    assert sorted(running.gfsclient("ls", "/").stdout.split()) == [b"before", b"two"]


def test_full_disks_refuse_a_write_in_one_line_and_deleting_still_works(cluster: Start) -> None:
    running = cluster(chunkservers=3, master=FAST)
    assert running.gfsclient("put", "-", "/before", input=b"x").returncode == 0
    running.environment["GFS_CHUNKSERVER_RESERVE_BYTES"] = str(1 << 60)
    running.kill("chunkserver-1")
    running.restart("chunkserver-1")
    running.wait_for("all servers live", lambda s: all(server["alive"] for server in s["chunkservers"]))
    assert running.gfsclient("put", "-", "/one-full", input=b"y").returncode == 0
    for number in (2, 3):
        running.kill(f"chunkserver-{number}")
        running.restart(f"chunkserver-{number}")
    running.wait_for("all servers live", lambda s: all(server["alive"] for server in s["chunkservers"]))
    done = running.gfsclient("--deadline", "3", "put", "-", "/all-full", input=b"z")
    assert done.returncode == NoSpace.exit_code
    assert len(done.stderr.decode().splitlines()) == 1
    assert "no space" in done.stderr.decode().lower()
    assert running.gfsclient("cat", "/one-full").stdout == b"y"
    assert running.gfsclient("rm", "--skip-trash", "/before").returncode == 0
    assert running.gfsclient("ls", "/").stdout.split() == [b"one-full"]


GARBAGE = {
    "garbage": random.Random(5).randbytes(5000),
    "bulk frame of 4 GiB": bulk.PREAMBLE + bulk.PREFIX.pack(bulk.MAGIC, 10, 2**32 - 1) + bytes(10),
    "bulk garbage": bulk.PREAMBLE + random.Random(6).randbytes(5000),
    "websocket frame of 4 GiB": (
        b"GET /rpc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        b"\x82\xff" + (2**32).to_bytes(8, "big") + b"mask" + bytes(5000)
    ),
    "endless header": b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000,
}


def test_garbage_on_any_port_ends_that_connection_and_nothing_else(cluster: Start) -> None:
    running = cluster(masters=2, chunkservers=3, master=FAST)
    assert running.gfsclient("put", "-", "/file", input=b"data").returncode == 0
    for offset in (0, 1, 100, 101, 102):
        for garbage in GARBAGE.values():
            with socket.create_connection(("127.0.0.1", running.port_base + offset), 5) as stranger:
                stranger.settimeout(20)
                try:
                    stranger.sendall(garbage)
                    stranger.shutdown(socket.SHUT_WR)
                    while stranger.recv(65536):
                        pass
                except ConnectionError:
                    continue
    assert running.gfsclient("cat", "/file").stdout == b"data"
    assert running.wait_for("all is well", lambda status: status["state"] == "well")["epoch"] == 1
    for record in running.records():
        assert "Traceback" not in running.log(record.name)
