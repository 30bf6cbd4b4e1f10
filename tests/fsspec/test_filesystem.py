"""What fsspec's own suite does not ask: errors, names, links, transactions, forks, event loops, a program's end."""

import asyncio
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.callbacks import Callback

from gfsclient.fsspec import GfsFileSystem
from gfsclient.sync import FileSystem
from tests.cluster.harness import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def top(fs: GfsFileSystem) -> str:
    """An empty directory."""
    if fs.exists("/top"):
        fs.rm("/top", recursive=True)
    fs.mkdir("/top")
    return "/top"


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (FileNotFoundError, lambda fs: fs.cat_file("/top/missing")),
        (FileNotFoundError, lambda fs: fs.open("/top/missing")),
        (FileNotFoundError, lambda fs: fs.info("/top/missing")),
        (FileNotFoundError, lambda fs: fs.ls("/top/missing")),
        (FileNotFoundError, lambda fs: fs.mv("/top/missing", "/top/elsewhere/x")),
        (FileExistsError, lambda fs: fs.mkdir("/top")),
        (FileExistsError, lambda fs: fs.makedirs("/top")),
        (FileExistsError, lambda fs: fs.put_file(__file__, "/top/file", mode="create")),
        (IsADirectoryError, lambda fs: fs.pipe_file("/top", b"")),
        (IsADirectoryError, lambda fs: fs.rm("/top")),
        (NotADirectoryError, lambda fs: fs.pipe_file("/top/file/below", b"")),
        (NotADirectoryError, lambda fs: fs.rmdir("/top/file")),
        (OSError, lambda fs: fs.rmdir("/top")),
        (OSError, lambda fs: fs.touch("/top/" + "n" * 300)),
    ],
)
def test_failures_are_the_os_errors_of_posix(
    fs: GfsFileSystem, top: str, kind: type[OSError], wrong: Callable[[GfsFileSystem], object]
) -> None:
    fs.touch(f"{top}/file")
    with pytest.raises(OSError) as failure:
        wrong(fs)
    assert type(failure.value) is kind
    assert failure.value.errno
    assert not fs.exists(f"{top}/elsewhere")


def test_what_one_may_not_do_is_a_permission_error(fs: GfsFileSystem, top: str, options: dict[str, Any]) -> None:
    fs.pipe_file(f"{top}/mine", b"secret")
    with FileSystem.from_config(options["config"]) as files:
        files.chmod(f"{top}/mine", 0o600)
    other = GfsFileSystem(user=(1000, 1000), **options)
    with pytest.raises(PermissionError):
        other.cat_file(f"{top}/mine")
    other.close()


def test_a_cluster_that_does_not_answer_is_a_timeout_and_is_asked_again_later() -> None:
    away = GfsFileSystem(masters="127.0.0.1:1", key="00" * 32, deadline_seconds=0.3)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            away.exists("/x")
    away.close()


def test_a_file_that_is_closed_says_so(fs: GfsFileSystem, top: str) -> None:
    with fs.open(f"{top}/file", "wb") as file:
        file.write(b"x")
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.write(b"y")


# ------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("gfs:///a/b", "/a/b"),
        ("gfs://a/b", "/a/b"),
        ("gfs://", "/"),
        ("", "/"),
        ("/", "/"),
        ("a/b/", "/a/b"),
        ("gfs://host:9000/a/b", "/a/b"),
        ("gfs://host:9000,other:9001/a", "/a"),
        ("gfs://[::1]:9000", "/"),
        (Path("/a/b"), "/a/b"),
        (["gfs:///a", "b"], ["/a", "/b"]),
    ],
)
def test_paths_are_taken_out_of_urls(url: Any, path: Any) -> None:
    assert GfsFileSystem._strip_protocol(url) == path


def test_masters_are_taken_out_of_urls() -> None:
    assert GfsFileSystem._get_kwargs_from_urls("gfs://host:9000,other:9001/a") == {"masters": "host:9000,other:9001"}
    assert GfsFileSystem._get_kwargs_from_urls("gfs://a/b:1/c") == {}


def test_a_url_alone_is_enough(running_cluster: Cluster, fs: GfsFileSystem, top: str) -> None:
    fs.pipe_file(f"{top}/file", b"by url")
    master = f"127.0.0.1:{running_cluster.port_base}"
    key = running_cluster.layout.client_file.read_text().split('key = "')[1].split('"')[0]
    with fsspec.open(f"gfs://{master}{top}/file", "rt", key=key) as file:
        assert file.read() == "by url"
    fsspec.filesystem("gfs", masters=master, key=key).close()


def test_directories_above_are_made_unless_told_otherwise(fs: GfsFileSystem, top: str, options: dict[str, Any]) -> None:
    fs.pipe_file(f"{top}/a/b/file", b"1")
    fs.mv(f"{top}/a/b/file", f"{top}/c/d/file")
    assert fs.cat_file(f"{top}/c/d/file") == b"1"
    strict = GfsFileSystem(auto_mkdir=False, **options)
    for wrong in (
        lambda: strict.pipe_file(f"{top}/x/y", b""),
        lambda: strict.touch(f"{top}/x/y"),
        lambda: strict.open(f"{top}/x/y", "wb"),
        lambda: strict.mv(f"{top}/c/d/file", f"{top}/x/y"),
        lambda: strict.mkdir(f"{top}/x/y", create_parents=False),
    ):
        with pytest.raises(FileNotFoundError):
            wrong()
    strict.close()


def test_symbolic_links_are_what_they_lead_to_and_no_walk_goes_in_circles(
    fs: GfsFileSystem, top: str, options: dict[str, Any]
) -> None:
    fs.pipe_file(f"{top}/real/file", b"12345")
    with FileSystem.from_config(options["config"]) as files:
        files.symlink("real/file", f"{top}/to-file")
        files.symlink("..", f"{top}/real/up")
        files.symlink("nowhere", f"{top}/dangling")
    info = fs.info(f"{top}/to-file")
    assert (info["type"], info["size"], info["islink"], info["destination"]) == ("file", 5, True, "real/file")
    assert fs.isdir(f"{top}/real/up") and fs.info(f"{top}/dangling")["type"] == "link"
    assert {each["name"]: each["type"] for each in fs.ls(top)} == {
        f"{top}/real": "directory",
        f"{top}/to-file": "file",
        f"{top}/dangling": "link",
    }
    assert list(fs.walk(top)) == [(top, ["real"], ["dangling", "to-file"]), (f"{top}/real", [], ["file", "up"])]
    assert fs.cat_file(f"{top}/to-file") == b"12345"


def test_trees_are_moved_removed_and_measured(fs: GfsFileSystem, top: str) -> None:
    fs.pipe({f"{top}/a/1": b"1", f"{top}/a/b/2": b"22", f"{top}/a/b/c/3": b"333"})
    assert fs.du(f"{top}/a") == 6 and fs.du(f"{top}/a", total=False)[f"{top}/a/b/2"] == 2
    assert fs.glob(f"{top}/a/**/[23]") == [f"{top}/a/b/2", f"{top}/a/b/c/3"]
    fs.mkdir(f"{top}/into")
    fs.mv(f"{top}/a", f"{top}/into")
    fs.mv(f"{top}/into/a/*", f"{top}/into")
    assert fs.find(top) == [f"{top}/into/1", f"{top}/into/b/2", f"{top}/into/b/c/3"]
    fs.mv([f"{top}/into/1"], [f"{top}/one"])
    assert fs.cat_file(f"{top}/one") == b"1"
    fs.rm(f"{top}/into", recursive=True, maxdepth=2)
    assert fs.find(top) == [f"{top}/into/b/c/3", f"{top}/one"]
    fs.rm([f"{top}/into", f"{top}/one"], recursive=True)
    assert fs.ls(top) == []
    assert fs.modified(top).year > 2000


# ------------------------------------------------------------------------------------------------------------- files


def test_files_are_read_and_written_as_local_ones(fs: GfsFileSystem, top: str) -> None:
    with fs.open(f"{top}/file", "w", encoding="utf-8") as text:
        text.write("één\ntwee\n")
    with fs.open(f"{top}/file", "ab") as file:
        file.write(b"three\n")
    with fs.open(f"{top}/file", "r+b") as file:
        file.seek(-6, os.SEEK_END)
        file.write(b"THREE")
        file.flush(force=True)
        assert (file.loc, file.size, file.full_name) == (16, 17, f"gfs://{top}/file")
    with fs.open(f"{top}/file", "r", encoding="utf-8") as text:
        assert list(text) == ["één\n", "twee\n", "THREE\n"]
    with fs.open(f"{top}/file", "rb") as file:
        assert file.readline() == "één\n".encode() and file.peek(2)[:2] == b"tw" and file.read1(2) == b"tw"
        assert file.readinto(bytearray(4)) == 4 and file.tell() == 12
    assert fs.cat_file(f"{top}/file", start=-6) == b"THREE\n"
    assert fs.cat_file(f"{top}/file", 6, -7) == b"twee"
    assert fs.cat_file(f"{top}/file", 100, 200) == b""
    assert fs.cat_ranges([f"{top}/file"] * 2, [6, 11], [10, 16]) == [b"twee", b"THREE"]
    assert fs.head(f"{top}/file", 2) == "é".encode() and fs.tail(f"{top}/file", 2) == b"E\n"
    fs.touch(f"{top}/file", truncate=False)
    assert fs.size(f"{top}/file") == 17
    fs.touch(f"{top}/file")
    assert fs.size(f"{top}/file") == 0


def test_files_go_both_ways_and_the_callback_hears_of_it(fs: GfsFileSystem, top: str, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "local").write_bytes(content)
    up, down = Callback(), Callback()
    fs.put_file(str(tmp_path / "local"), f"{top}/file", callback=up)
    fs.get_file(f"{top}/file", str(tmp_path / "deep" / "copy"), callback=down)
    assert (up.size, up.value, down.size, down.value) == (3_000_000,) * 4
    assert (tmp_path / "deep" / "copy").read_bytes() == content
    with (tmp_path / "stream").open("wb") as sink:
        fs.get_file(f"{top}/file", sink)
    assert (tmp_path / "stream").read_bytes() == content
    fs.cp_file(f"{top}/file", f"{top}/again")
    assert fs.cat_file(f"{top}/again") == content


def test_what_is_written_in_a_transaction_appears_at_its_end(fs: GfsFileSystem, top: str) -> None:
    fs.pipe_file(f"{top}/old", b"before")
    with fs.transaction:
        with fs.open(f"{top}/old", "wb") as file:
            file.write(b"after")
        with fs.open(f"{top}/deep/new", "xb") as file:
            file.write(b"new")
        assert fs.cat_file(f"{top}/old") == b"before" and not fs.exists(f"{top}/deep/new")
        with pytest.raises(ValueError, match="as a whole"):
            fs.open(f"{top}/old", "ab")
    assert fs.cat_file(f"{top}/old") == b"after" and fs.cat_file(f"{top}/deep/new") == b"new"


def test_of_a_transaction_that_fails_nothing_stays(fs: GfsFileSystem, top: str, running_cluster: Cluster) -> None:
    def fail() -> None:
        with fs.transaction, fs.open(f"{top}/new", "wb") as file:
            file.write(b"never")
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        fail()
    assert fs.ls(top) == []
    running_cluster.wait_for("no file is open", lambda status: status["open_files"] == 0)


# ------------------------------------------------------------------------------------- processes and event loops


def _read(fs: GfsFileSystem, path: str, queue: Any) -> None:
    try:
        queue.put(fs.cat_file(path))
        with fs.open(path) as file:
            queue.put(file.read())
        fs.close()
    except BaseException as error:  # noqa: BLE001 - the parent is to fail, not to wait for ever
        queue.put(repr(error))
        queue.put(repr(error))


def test_a_forked_child_and_its_parent_both_go_on(fs: GfsFileSystem, top: str) -> None:
    fs.pipe_file(f"{top}/file", b"shared")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_read, args=(fs, f"{top}/file", queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in range(4)] == [b"shared"] * 4
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    queue.close()
    queue.join_thread()
    assert fs.cat_file(f"{top}/file") == b"shared"


def test_a_program_may_end_without_closing_anything(fs: GfsFileSystem, top: str, options: dict[str, str]) -> None:
    program = (
        "import fsspec\nfrom gfsclient.fsspec import GfsFileSystem\n"
        "fsspec.register_implementation('gfs', GfsFileSystem, clobber=True)\n"
        f"file = fsspec.open('gfs://{top}/left', 'wb', config={options['config']!r}).open()\n"
        "file.write(b'whole')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert fs.cat_file(f"{top}/left") == b"whole"


def test_a_pickled_one_leads_to_the_same_cluster(fs: GfsFileSystem, top: str) -> None:
    fs.pipe_file(f"{top}/file", b"1")
    again = pickle.loads(pickle.dumps(fs))
    assert again.cat_file(f"{top}/file") == b"1"
    again.close()


async def test_programs_with_an_event_loop(options: dict[str, str]) -> None:
    fs = GfsFileSystem(asynchronous=True, skip_instance_cache=True, **options)
    await fs._pipe_file("/top/async/file", b"0123456789")
    async with await fs.open_async("/top/async/file") as file:
        assert (file.size, await file.seek(4), await file.read(2), await file.tell()) == (10, 4, b"45", 6)
    async with await fs.open_async("/top/new/file", "wb") as file:
        assert await file.write(b"abc") == 3
        await file.flush()
        assert await fs._cat_file("/top/new/file") == b"abc"
    assert file.closed
    with pytest.raises(FileNotFoundError):
        await fs.open_async("/top/missing")
    with pytest.raises(ValueError, match="binary"):
        await fs.open_async("/top/new/file", "r")
    assert sorted(await asyncio.gather(*(fs._size(f"/top/{name}/file") for name in ("async", "new")))) == [3, 10]
    assert (await (await fs.set_session()).status()).role == "leader"
    await fs._close()


def test_each_event_loop_has_a_connection_of_its_own(options: dict[str, str]) -> None:
    fs = GfsFileSystem(asynchronous=True, skip_instance_cache=True, **options)

    async def use() -> bool:
        try:
            with pytest.raises(OSError, match="_close"):
                await fs._exists("/")
                fs.close()
            return bool(await fs._exists("/"))
        finally:
            await fs._close()

    assert asyncio.run(use())
    assert asyncio.run(use())


def test_one_that_is_not_used_any_more_lets_its_threads_go(options: dict[str, str]) -> None:
    fs = GfsFileSystem(skip_instance_cache=True, **options)
    fs.pipe_file("/top/collected", b"1")  # threads have been started: who leaves them behind fails the test
    del fs
