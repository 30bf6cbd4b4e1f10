"""gfsclient as a process: pipes that close, signals in the middle of work, terminals."""

import os
import pty
import select
import signal
import subprocess
from pathlib import Path

import pytest

from gfsclient.cli.output import PIPE_CLOSED
from gfsprotocol.errors import NotFound
from gfsprotocol.ids import MIB
from tests.cluster.harness import Cluster, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_a_reader_that_leaves_early_is_no_error(shared_cluster: Cluster) -> None:
    shared_cluster.gfsclient("put", "-", "/pipe", input=os.urandom(4 * MIB))
    with shared_cluster.popen("cat", "/pipe", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        assert process.wait(30) == PIPE_CLOSED
        assert process.stderr.read() == b""


def test_a_listing_that_nobody_reads_is_no_error(shared_cluster: Cluster) -> None:
    shared_cluster.gfsclient("touch", "/listed")
    reading, writing = os.pipe()
    os.close(reading)
    with shared_cluster.popen("ls", "/", stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        assert process.stderr is not None
        assert (process.wait(30), process.stderr.read()) == (PIPE_CLOSED, b"")


@pytest.mark.parametrize("command", ["ls", "cat"])
def test_an_output_that_is_full_is_one_line(shared_cluster: Cluster, command: str) -> None:
    shared_cluster.gfsclient("put", "-", "/full", input=b"x")
    with (
        open("/dev/full", "wb") as full,
        shared_cluster.popen(command, "/full", stdout=full, stderr=subprocess.PIPE) as process,
    ):
        assert process.stderr is not None
        assert process.wait(30) == 1
        error = process.stderr.read()
    assert error.count(b"\n") == 1 and b"No space left on device" in error and b"Traceback" not in error


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_standard_stream_may_be_closed(shared_cluster: Cluster, tmp_path: Path, closed: int) -> None:
    shared_cluster.gfsclient("touch", "/listed")
    with open(tmp_path / "out", "wb") as out:
        os.set_inheritable(out.fileno(), False)
        process = shared_cluster.popen(
            "ls", "/listed", "/not-there", stdout=out, stderr=out, preexec_fn=lambda: os.close(closed)
        )
        assert process.wait(30) == NotFound.exit_code
    assert b"Traceback" not in (tmp_path / "out").read_bytes()


@pytest.mark.parametrize("options", [(), ("--lines",), ("--record",)])
def test_an_interrupted_append_does_not_wait_for_its_input(shared_cluster: Cluster, options: tuple[str, ...]) -> None:
    path = "/appended" + "".join(options)
    with shared_cluster.popen(
        "append", "--create", *options, path, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"line\nhalf a line")
        process.stdin.flush()
        wait_until("the file is there", lambda: shared_cluster.gfsclient("stat", path).returncode == 0)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(10) == 128 + signal.SIGINT
            assert b"Traceback" not in process.stderr.read()
        finally:
            process.kill()


def test_tail_follows_what_is_appended(shared_cluster: Cluster) -> None:
    shared_cluster.gfsclient("put", "-", "/followed", input=b"one\ntwo\n")
    with shared_cluster.popen("tail", "-n", "1", "-f", "/followed", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"two\n"
        shared_cluster.gfsclient("append", "/followed", input=b"three\n")
        assert process.stdout.read(6) == b"three\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_put_leaves_nothing(shared_cluster: Cluster, number: signal.Signals) -> None:
    path = f"/interrupted-{number.name}"
    with shared_cluster.popen("put", "-", path, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(os.urandom(2 * MIB))
        process.stdin.flush()
        wait_until("the file is being written", lambda: shared_cluster.gfsclient("stat", path).returncode == 0)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert b"Traceback" not in process.stderr.read()
    assert shared_cluster.gfsclient("stat", path).returncode != 0


def test_an_interrupted_get_leaves_nothing(shared_cluster: Cluster, tmp_path: Path) -> None:
    shared_cluster.gfsclient("put", "-", "/large", input=os.urandom(64 * MIB))
    with shared_cluster.popen("get", "/large", str(tmp_path / "local"), stderr=subprocess.PIPE) as process:
        wait_until("the file is being read", lambda: any(tmp_path.iterdir()) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    left = [path.name for path in tmp_path.iterdir()]
    assert (code, left) in [(128 + signal.SIGINT, []), (0, ["local"])]


def test_a_terminal_sees_progress_and_no_control_characters_of_names(shared_cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2J\nb").write_bytes(os.urandom(MIB))
    leader, follower = pty.openpty()
    with shared_cluster.popen("put", str(tmp_path / "a\x1b[2J\nb"), "/", stdin=follower, stderr=follower) as process:
        os.close(follower)
        shown = _all_of(leader)
        assert process.wait(30) == 0
    assert b"1.0/1.0 MiB" in shown
    assert rb"a\x1b[2J\nb" in shown and b"a\x1b[2J" not in shown


def test_a_pipe_sees_no_progress(shared_cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    done = shared_cluster.gfsclient("put", str(tmp_path / "f"), "/quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_shell_completes_paths_of_the_cluster(shared_cluster: Cluster) -> None:
    shared_cluster.gfsclient("mkdir", "-p", "/completed/directory")
    shared_cluster.gfsclient("touch", "/completed/file")
    words = {"COMP_WORDS": "gfsclient ls /completed/", "COMP_CWORD": "2", "_GFSCLIENT_COMPLETE": "bash_complete"}
    found: list[bytes] = []

    def is_answered() -> bool:
        """A shell is not kept waiting: there may be nothing if the machine is busy."""
        with shared_cluster.popen(stdout=subprocess.PIPE, env=shared_cluster.environment | words) as process:
            assert process.stdout is not None
            found[:] = process.stdout.read().split()
            process.wait(30)
        return bool(found)

    wait_until("the shell gets an answer", is_answered)
    assert found == [b"plain,/completed/directory/", b"plain,/completed/file"]


def _all_of(terminal: int) -> bytes:
    """What is written to a terminal until its other side is closed."""
    output = b""
    try:
        while select.select([terminal], [], [], 30)[0]:
            output += os.read(terminal, 65536)
    except OSError:
        pass  # EIO is how a terminal says that nobody holds the other side any more
    finally:
        os.close(terminal)
    return output
