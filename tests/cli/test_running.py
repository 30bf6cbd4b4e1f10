"""How the command line meets errors, without any cluster."""

import asyncio
import inspect
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gfsclient.cli.crew import Crew
from gfsclient.cli.feeding import fed
from gfsprotocol.errors import ConfigurationError, NotFound, Unreachable

GFSCLIENT = Path(sys.executable).with_name("gfsclient")
CONFIG = 'masters = ["127.0.0.1:{port}"]\nkey = "{key}"\n'


def run(tmp_path: Path, *arguments: str | bytes, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GFS_")}
    environment |= {"HOME": str(tmp_path), "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": ""} | variables
    return subprocess.run(
        [GFSCLIENT, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def config_file(tmp_path: Path, port: int = 1) -> str:
    file = tmp_path / "client.toml"
    file.write_text(CONFIG.format(port=port, key="ab" * 32))
    return str(file)


@pytest.mark.slow
def test_without_a_cluster_the_line_says_what_was_looked_for(tmp_path: Path) -> None:
    done = run(tmp_path, "ls", "/")
    assert done.returncode == ConfigurationError.exit_code
    assert done.stderr.startswith("gfsclient: no cluster is configured")
    assert f"{tmp_path}/.config/gfs/client.toml" in done.stderr
    assert f"{tmp_path}/.local/state/gfs/current" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_unreachable_masters_are_listed_with_the_reason(tmp_path: Path) -> None:
    done = run(tmp_path, "--config", config_file(tmp_path), "--deadline", "0.5", "ls", "/")
    assert done.returncode == Unreachable.exit_code
    assert "127.0.0.1:1" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text(CONFIG.format(port=1, key="ab" * 32) + "mastres = []\n")
    done = run(tmp_path, "ls", "/", GFS_CONFIG=str(file))
    assert done.returncode == ConfigurationError.exit_code
    assert done.stderr == f"gfsclient: {file}: unknown setting 'mastres'\n"


@pytest.mark.slow
def test_a_setting_in_the_environment_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "ls", "/", GFS_CLIENT_MASTERS="127.0.0.1:1", GFS_CLIENT_KEY="ab" * 32)
    assert done.returncode == ConfigurationError.exit_code
    assert "masters" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"\xff\xfe", b"/no/such/client.toml"])
def test_a_pointer_to_a_cluster_that_leads_nowhere_is_one_line(tmp_path: Path, content: bytes) -> None:
    current = tmp_path / ".local" / "state" / "gfs" / "current"
    current.parent.mkdir(parents=True)
    current.write_bytes(content)
    done = run(tmp_path, "ls", "/")
    assert done.returncode == ConfigurationError.exit_code
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("ls", "--no-such-option"), ("no-such-command",), ("put",), ("chmod", "u+q", "/x"), ("head", "-n", "x", "/")],
)
def test_a_wrong_command_line_exits_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, "--config", config_file(tmp_path), "--deadline", "0.5", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_each_shell_gets_a_completion_script(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        done = run(tmp_path, "completion", shell)
        assert done.returncode == 0
        assert "_GFSCLIENT_COMPLETE" in done.stdout


@pytest.mark.slow
def test_completion_proposes_commands_and_is_silent_without_a_cluster(tmp_path: Path) -> None:
    words = {"COMP_WORDS": "gfsclient tr", "COMP_CWORD": "1", "_GFSCLIENT_COMPLETE": "bash_complete"}
    assert run(tmp_path, **words).stdout.split() == ["plain,tree", "plain,truncate", "plain,trash"]
    words |= {"COMP_WORDS": "gfsclient ls /a", "COMP_CWORD": "2"}
    done = run(tmp_path, **words)
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_without_a_traceback(tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = config_file(tmp_path, silent.getsockname()[1])
        process = subprocess.Popen([GFSCLIENT, "--config", config, "ls", "/"], stderr=subprocess.PIPE)
        silent.settimeout(30)
        connection, _ = silent.accept()  # it is in the middle of its work now
        with connection:
            process.send_signal(number)
            _, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert stderr == b"\n"  # behind the ^C that a terminal shows


async def test_a_crew_runs_no_more_than_its_size_at_once() -> None:
    running, most = 0, 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    async with Crew(3) as crew:
        for _ in range(20):
            await crew.take(work())
    assert (running, most) == (0, 3)


async def test_the_first_error_of_a_crew_is_the_error() -> None:
    async def fail() -> None:
        raise NotFound("gone")

    with pytest.raises(NotFound, match="gone"):
        async with Crew(2) as crew:
            await crew.take(fail())


async def test_work_that_waits_for_a_free_hand_is_closed_when_the_waiting_ends() -> None:
    never = asyncio.Event()

    async def work() -> None:
        await never.wait()

    waiting = work()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), Crew(1) as crew:
            await crew.take(work())
            await crew.take(waiting)
    assert inspect.getcoroutinestate(waiting) == inspect.CORO_CLOSED


async def test_input_is_fed_to_its_end_in_order() -> None:
    pieces = iter([b"a", b"b", b"c", b"", b"never"])
    assert [piece async for piece in fed(lambda: next(pieces))] == [b"a", b"b", b"c"]


async def test_an_error_of_the_input_is_raised_where_it_is_used() -> None:
    def read() -> bytes:
        raise OSError(5, "broken")

    with pytest.raises(OSError, match="broken"):
        async for _ in fed(read):
            pass


async def test_waiting_input_does_not_hold_up_the_end() -> None:
    read_end, write_end = os.pipe()
    started = time.monotonic()
    feeding = fed(lambda: os.read(read_end, 1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(feeding)
    assert time.monotonic() - started < 5
    os.close(write_end)
    os.close(read_end)
