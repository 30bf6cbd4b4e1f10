"""A real PostgreSQL of the tests' own: Debian's programs, an unprivileged user, a free port on loopback.

PostgreSQL refuses to run as root, so root starts it as ``nobody``. It runs as a child of the test process, durable as
in production; its directory is removed at the end.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

PASSWORD = "secret+of/tests"
REQUIRED = "GFS_TESTS_NEED_POSTGRESQL"
"""Set in the environment: where PostgreSQL is missing its tests fail instead of being skipped."""
MISSING = "no PostgreSQL server is installed (Debian: apt-get install postgresql)"
READY_SECONDS = 30.0
_SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 60
shared_buffers = 16MB
autovacuum = off
jit = off
log_min_messages = warning
"""


def find_programs() -> Path | None:
    """The directory of the newest server's programs, or None."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(installed, key=lambda program: int(program.parts[-3]), default=None)
    return newest.parent if newest is not None else None


class Server:
    """One database server. ``directory`` is its own, and made by it."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._account: dict[str, object] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        if os.getuid():
            self._account = {}
        self.directory = Path(tempfile.mkdtemp(prefix="gfs-postgresql-"))
        self.data = self.directory / "data"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self._account:
            shutil.chown(self.directory, "nobody", "nogroup")

    def create(self, settings: str = "") -> None:
        """An empty server with the role ``gfs``, who owns each database that is made for a test."""
        password = self.directory / "password"
        password.write_text(PASSWORD)
        self._run("initdb", "-D", self.data, "-U", "gfs", "-A", "scram-sha-256", "--pwfile", password,
                  "--no-sync", "--no-instructions", "--locale=C.UTF-8", "--encoding=UTF8")  # fmt: skip
        self.configure(settings)

    def copy(self, primary: "Server") -> None:
        """A streaming replica of a running server."""
        self._run("pg_basebackup", "-D", self.data, "-R", "--no-sync", "--checkpoint=fast",
                  "-d", f"host=127.0.0.1 port={primary.port} user=gfs password={PASSWORD} "
                        "application_name=replica")  # fmt: skip

    def configure(self, settings: str) -> None:
        """Sets the server's settings, beside the tests' own; they hold from the next start or reload on."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.write(_SETTINGS + settings)

    def use_certificate(self, certificate: Path, key: Path) -> None:
        """Speaks TLS, and nothing else, from the next start on."""
        for name, source in (("server.crt", certificate), ("server.key", key)):
            shutil.copyfile(source, self.data / name)
            (self.data / name).chmod(0o600)
            if self._account:
                shutil.chown(self.data / name, "nobody", "nogroup")
        self.configure("ssl = on\n")
        rules = self.data / "pg_hba.conf"
        rules.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [self._programs / program, *map(str, arguments)],
            cwd=self.directory,
            capture_output=True,
            check=False,
            **self._account,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, f"{program}: {done.stderr.decode()}"

    def start(self) -> int:
        """Returns when it takes connections: its process id."""
        assert self._process is None
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data, "-p", str(self.port)],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._account,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError as error:
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, f"{error}\n{self.log()}"
                time.sleep(0.02)
            else:
                return self._process.pid

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT ends all sessions and stops, SIGQUIT stops as after a power cut."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=READY_SECONDS)

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory)

    def stop_receiving(self) -> None:
        """A replica gets nothing more from its primary; returns when that is so."""
        with self.connect() as session:
            session.execute("ALTER SYSTEM SET primary_conninfo = ''")
            session.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + READY_SECONDS
            while session.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone() is not None:
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.01)

    def promote(self) -> None:
        """A replica becomes a server that takes writes."""
        self._run("pg_ctl", "promote", "-D", self.data, "-w")

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """A session that commits each statement by itself."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="gfs", password=PASSWORD, dbname=database, autocommit=True
        )

    def url(self, database: str, port: int | None = None) -> str:
        """The journal's address, perhaps by way of a proxy's port."""
        password = PASSWORD.replace("+", "%2B").replace("/", "%2F")
        return f"postgresql+psycopg://gfs:{password}@127.0.0.1:{port or self.port}/{database}"

    def url_of_both(self, replica: "Server") -> str:
        """The journal's address in whichever of the two takes writes."""
        user = self.url("").partition("@")[0]
        return f"{user}@/postgres?host=127.0.0.1:{self.port}&host=127.0.0.1:{replica.port}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The name of a new database, which is dropped in the end."""
        name = f"test_{secrets.token_hex(6)}"
        with self.connect() as session:
            session.execute(f'CREATE DATABASE "{name}"')
        try:
            yield name
        finally:
            with self.connect() as session:
                session.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        port: int = attempt.getsockname()[1]
    return port
