"""gfs up, down, start and status with real processes."""

import os
import select
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gfscluster import processes
from gfscluster.health import Band
from gfsprotocol.errors import (
    AddressInUse,
    AuthenticationFailed,
    ConfigurationError,
    DirectoryInUse,
    LogFailed,
    StartupError,
    Unreachable,
)
from tests.cluster.harness import BIN, Cluster
from tests.house.documentation import documented_fields
from tests.postgresql import PASSWORD, Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
Start = Callable[..., Cluster]


def test_a_cluster_starts_works_and_stops(cluster: Start) -> None:
    running = cluster(masters=2, chunkservers=3)
    assert running.gfsclient("put", "-", "/f", input=b"data").returncode == 0
    status = running.wait_for("well", lambda status: status["state"] == "well")
    assert [master["role"] for master in status["masters"]].count("leader") == 1
    assert [server["alive"] for server in status["chunkservers"]] == [True] * 3
    assert status["replication"] == 3
    assert list(status) == documented_fields("gfs status")
    running.down()
    assert running.records() == []
    assert running.gfs("status", "--dir", str(running.directory)).returncode == Band.UNKNOWN.value


def test_what_was_stored_is_there_after_a_restart(cluster: Start) -> None:
    running = cluster(masters=2, chunkservers=2)
    data = os.urandom(200_000)
    running.gfsclient("put", "-", "/f", input=data)
    running.down()
    running.up()
    assert running.gfsclient("cat", "/f").stdout == data


def test_everything_acknowledged_survives_kill_9_of_everything(cluster: Start) -> None:
    running = cluster(masters=2, chunkservers=3)
    data = os.urandom(200_000)
    assert running.gfsclient("put", "-", "/f", input=data).returncode == 0
    running.kill_all()
    running.up()
    assert running.gfsclient("cat", "/f").stdout == data


def test_a_second_gfs_up_is_refused_in_one_line(cluster: Start) -> None:
    running = cluster(masters=1, chunkservers=1)
    done = running.gfs("up", "--dir", str(running.directory), "--detach")
    assert done.returncode == DirectoryInUse.exit_code
    assert done.stderr.count(b"\n") == 1
    assert b"is running (chunkserver-1, master-1)" in done.stderr
    assert running.gfsclient("ls", "/").returncode == 0


def test_flags_that_contradict_what_is_stored_are_refused(cluster: Start) -> None:
    running = cluster(masters=1, chunkservers=1)
    running.down()
    done = running.gfs("up", "--dir", str(running.directory), "--masters", "3", "--detach")
    assert done.returncode == ConfigurationError.exit_code
    assert done.stderr.decode() == f"gfs: --masters 3: the cluster in {running.directory} was made with 1\n"


def test_a_cluster_with_its_journal_in_postgresql(cluster: Start, postgresql: Server) -> None:
    with postgresql.database() as name:
        running = cluster(masters=2, chunkservers=1, journal=postgresql.url(name))
        assert running.gfsclient("put", "-", "/f", input=b"data").returncode == 0
        assert not list(running.directory.glob("journal*"))
        running.down()
        del running.environment["GFS_JOURNAL"]
        running.up()  # it is stored, for the owner only
        assert running.gfsclient("cat", "/f").stdout == b"data"
        running.down()
        for file in [running.layout.cluster_file, *running.directory.glob("config/master-*.toml")]:
            assert postgresql.url(name) in file.read_text()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        others = [
            (running.directory, postgresql.url("other"), ConfigurationError, "was made with another one"),
            (running.directory.with_name("new"), postgresql.url(name), ConfigurationError, "holds a log already"),
            (running.directory.with_name("new"), postgresql.url("none"), LogFailed, 'database "none" does not exist'),
        ]
        said = running.logs()
        for directory, url, error, text in others:
            done = running.gfs("up", "--dir", str(directory), "--journal", url, "--detach")
            assert done.returncode == error.exit_code
            assert text in done.stderr.decode()
            assert done.stderr.count(b"\n") == 1
            assert not (running.directory.with_name("new") / "cluster.toml").exists()
            said += done.stderr.decode()
        for password in (PASSWORD, postgresql.url(name).split(":")[2].split("@")[0]):
            assert password not in said


def test_a_port_in_use_is_named_and_nothing_is_made(cluster: Start, tmp_path: Path) -> None:
    running = cluster(masters=1, chunkservers=1)
    other = tmp_path / "other"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = running.gfs("up", "--dir", str(other), "--port-base", str(port), "--detach")
    assert done.returncode == AddressInUse.exit_code
    assert done.stderr.decode() == f"gfs: port {port} on 127.0.0.1 is in use, but master-1 needs it\n"
    assert not (other / "cluster.toml").exists()


def test_a_lost_log_is_not_replaced_by_a_new_cluster(cluster: Start) -> None:
    running = cluster(masters=1, chunkservers=1)
    running.down()
    for file in running.directory.glob("journal.sqlite*"):
        file.unlink()
    done = running.gfs("up", "--dir", str(running.directory), "--detach", "--ready-seconds", "2")
    assert done.returncode == StartupError.exit_code
    assert b"holds no operation log" in done.stderr
    assert running.records() == []


def test_a_dead_process_is_told_and_can_be_started_again(cluster: Start) -> None:
    running = cluster(masters=2, chunkservers=3, master={"server_silent_seconds": 1})
    running.gfsclient("put", "-", "/f", input=b"data")
    running.kill("chunkserver-2")
    running.wait_for("degraded", lambda status: status["state"] == "degraded")
    assert running.gfs("status").returncode == Band.DEGRADED.value
    assert running.gfsclient("cat", "/f").stdout == b"data"
    running.restart("chunkserver-2")
    running.wait_for("well again", lambda status: status["state"] == "well")
    assert running.gfs("start", "chunkserver-2", "--dir", str(running.directory)).returncode == DirectoryInUse.exit_code
    assert running.gfs("start", "nobody", "--dir", str(running.directory)).returncode == ConfigurationError.exit_code


def test_the_standby_leads_when_the_leader_dies(cluster: Start) -> None:
    running = cluster(masters=2, chunkservers=2, master={"lease_seconds": 0.5})
    running.gfsclient("put", "-", "/f", input=b"data")
    leader = next(master["node"] for master in running.status()["masters"] if master["role"] == "leader")
    running.kill(leader)
    assert running.gfsclient("cat", "/f").stdout == b"data"
    assert running.gfsclient("put", "-", "/g", input=b"more").returncode == 0
    status = running.status()
    assert status["state"] == "degraded"
    assert status["epoch"] == 2


def test_in_the_foreground_it_tells_of_deaths_and_stops_on_a_signal(cluster: Start, tmp_path: Path) -> None:
    running = cluster(masters=1, chunkservers=2)
    running.down()
    arguments: list[Path | str] = [BIN / "gfs", "up", "--dir", str(running.directory)]
    with subprocess.Popen(
        arguments, env=running.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as up:
        try:
            output = _read_until(up, b"Ctrl-C stops it.")
            assert b"gfsclient put" in output
            running.kill("chunkserver-1")
            assert b"gfs start chunkserver-1" in _read_until(up, b"starts it again")
            up.send_signal(signal.SIGINT)
            assert b"Stopping" in _read_until(up, b"")
        finally:
            up.kill()
        assert up.wait() == 0
    assert running.records() == []


def _read_until(process: "subprocess.Popen[bytes]", text: bytes, seconds: float = 60.0) -> bytes:
    """What the process prints up to ``text``, or all of it for an empty one."""
    assert process.stdout is not None
    output, deadline = b"", time.monotonic() + seconds
    while not text or text not in output:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"not printed in time: {text!r}, but {output!r}"
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            assert not text, f"ended without {text!r}: {output!r}"
            break
        output += piece
    return output


def test_the_current_cluster_needs_no_configuration(cluster: Start) -> None:
    running = cluster(masters=1, chunkservers=1)
    running.environment = {name: value for name, value in running.environment.items() if name != "GFS_CONFIG"}
    running.environment["XDG_CONFIG_HOME"] = str(running.directory)
    assert running.gfsclient("ls", "/").returncode == 0
    running.down()
    done = running.gfsclient("ls", "/")
    assert done.returncode == ConfigurationError.exit_code
    assert b"no cluster is configured" in done.stderr


def test_the_key_of_another_cluster_is_refused_in_one_line(cluster: Start) -> None:
    running = cluster(masters=1, chunkservers=1)
    text = running.layout.client_file.read_text()
    key = text.split('key = "')[1].split('"')[0]
    running.layout.client_file.write_text(text.replace(key, "ab" * 32))
    done = running.gfsclient("--deadline", "3", "ls", "/")
    assert done.returncode in (AuthenticationFailed.exit_code, Unreachable.exit_code)
    assert done.stderr.count(b"\n") == 1
    assert running.gfs("status").returncode == Band.UNKNOWN.value


def test_no_secret_is_in_a_command_line_or_a_log(cluster: Start) -> None:
    running = cluster(masters=1, chunkservers=1)
    running.gfsclient("put", "-", "/f", input=b"data")
    secret = running.layout.secret_file.read_text().strip().encode()
    key = running.layout.client_file.read_text().split('key = "')[1].split('"')[0].encode()
    for record in running.records():
        shown = Path(f"/proc/{record.pid}/cmdline").read_bytes() + running.layout.log_file(record.name).read_bytes()
        assert secret not in shown and key not in shown
    assert stat.S_IMODE(running.directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["master", "chunkserver"])
def test_a_second_process_on_the_same_data_or_port_is_refused(cluster: Start, kind: str) -> None:
    running = cluster(masters=1, chunkservers=1)
    done = running.gfs(kind, "--config", str(running.layout.config_file(f"{kind}-1")))
    assert done.returncode in (AddressInUse.exit_code, DirectoryInUse.exit_code)
    assert done.stderr.decode().splitlines()[-1].startswith("gfs: ")
    assert b"Traceback" not in done.stderr
    assert all(processes.is_running(record) for record in running.records())


def test_settings_from_flags_environment_and_file_are_checked(cluster: Start, tmp_path: Path) -> None:
    running = cluster(masters=1, chunkservers=1)
    config = running.layout.config_file("master-1")
    text = config.read_text()
    config.write_text(text + "lease = 3\n")
    done = running.gfs("master", "--config", str(config))
    assert (done.returncode, done.stderr.decode()) == (
        ConfigurationError.exit_code,
        f"gfs: {config}: unknown setting 'lease'\n",
    )
    config.write_text(text)
    done = running.gfs("master", "--config", str(config), "--lease-seconds", "0")
    assert done.returncode == ConfigurationError.exit_code
    assert b"'lease_seconds'" in done.stderr and done.stderr.count(b"\n") == 1
    done = running.gfs("master", "--config", str(tmp_path / "none.toml"))
    assert done.returncode == ConfigurationError.exit_code


def test_what_is_not_http_is_one_line_in_the_log(cluster: Start) -> None:
    running = cluster(masters=1, chunkservers=1)
    for name, offset in (("master-1", 0), ("chunkserver-1", 100)):
        with socket.create_connection(("127.0.0.1", running.port_base + offset), 5) as stranger:
            stranger.sendall(b"GET /" + b"x" * 100_000)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
        until_logged = time.monotonic() + 10
        while "does not speak HTTP" not in running.log(name) and time.monotonic() < until_logged:
            time.sleep(0.02)
        (line,) = [line for line in running.log(name).splitlines() if "does not speak HTTP" in line]
        assert "WARNING" in line
        assert "Traceback" not in running.log(name)
