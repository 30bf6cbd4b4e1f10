"""Databases on the mount: they rely on fsync, on locks, on mapped files and on writes in the middle of files."""

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import postgresql_programs
from tests.mounted.mounting import Mount, need

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def fill(file: Path, mode: str, rows: int) -> None:
    """Transactions with updates, removals and one that is taken back."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=60)) as database:
        assert database.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode.lower(),)
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, number INTEGER, text TEXT)")
        database.execute("CREATE INDEX by_number ON entry (number)")
        for start in range(0, rows, 100):
            database.execute("BEGIN IMMEDIATE")
            values = [(start + n, (start + n) * 7919 % 1000, "x" * ((start + n) % 500)) for n in range(100)]
            database.executemany("INSERT INTO entry VALUES (?, ?, ?)", values)
            database.execute("COMMIT")
        database.execute("UPDATE entry SET text = text || 'more' WHERE number < 300")
        database.execute("DELETE FROM entry WHERE number >= 900")
        database.execute("BEGIN")
        database.execute("DELETE FROM entry")
        database.execute("ROLLBACK")
        database.execute("VACUUM")


def summary(file: Path) -> tuple[object, ...]:
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as database:
        [check] = database.execute("PRAGMA integrity_check").fetchone()
        return check, *database.execute("SELECT count(*), sum(number), sum(length(text)) FROM entry").fetchone()


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST", "WAL"])
def test_sqlite(mode: str, mounted: Mount, place: Path, local: Path) -> None:
    with mounted.watched():
        fill(local / "database", mode, 600)
        fill(place / "database", mode, 600)
        assert summary(place / "database") == summary(local / "database")
        shutil.copy(place / "database", local / "copy")
    assert summary(local / "copy") == summary(local / "database")


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_sqlite_with_several_processes(mode: str, mounted: Mount, place: Path) -> None:
    """Each adds its rows in transactions of its own; locks keep them apart, and none is lost."""
    sqlite = need("sqlite3")
    file = place / "database"
    mounted.run(sqlite, file, f"PRAGMA journal_mode={mode}; CREATE TABLE entry (who INTEGER, number INTEGER);")
    script = place / "script"
    script.write_text(
        'add="BEGIN IMMEDIATE; INSERT INTO entry SELECT $2, 1 + count(*) FROM entry WHERE who = $2; COMMIT;"\n'
        'for n in $(seq 15); do sqlite3 -cmd ".timeout 60000" "$1" "$add" || exit 1; done\n'
    )
    mounted.run("sh", "-ec", f"for who in 1 2 3; do sh {script} {file} $who & pids=\"$pids $!\"; done; "
                             "for pid in $pids; do wait $pid; done")  # fmt: skip
    told = mounted.run(
        sqlite, file, "SELECT who, count(*), max(number) FROM entry GROUP BY who; PRAGMA integrity_check;"
    )
    assert told.splitlines() == ["1|15|15", "2|15|15", "3|15|15", "ok"]


@contextlib.contextmanager
def as_nobody(directory: Path) -> Iterator[tuple[str, ...]]:
    """PostgreSQL refuses to run as root."""
    if os.getuid():
        yield ()
        return
    shutil.chown(directory, "nobody", "nogroup")
    yield need("setpriv", "util-linux"), "--reuid=nobody", "--regid=nogroup", "--clear-groups"


@pytest.mark.long
def test_postgresql(mounted: Mount, place: Path) -> None:
    """initdb, a short pgbench with its own checks of sums, a crash of the server, and recovery."""
    programs = postgresql_programs()
    pgbench = need("pgbench", "postgresql")
    data = place / "data"
    # A socket's path is short, and a mount keeps no living sockets of others: it is on the local disk.
    with tempfile.TemporaryDirectory(prefix="gfs-pg-") as sockets, as_nobody(place) as prefix:
        if prefix:
            shutil.chown(sockets, "nobody", "nogroup")

        def run(program: object, *arguments: object) -> str:
            return mounted.run(*prefix, program, *arguments, cwd=Path("/"), seconds=300)

        def control(command: str, *arguments: str) -> None:
            run(programs / "pg_ctl", "-D", data, "-w", "-t", "120", "-l", place / "log", command, *arguments)

        run(programs / "initdb", "-D", data, "-U", "gfs", "-A", "trust", "--no-instructions")
        with (data / "postgresql.auto.conf").open("a") as file:
            file.write(f"listen_addresses = ''\nunix_socket_directories = '{sockets}'\nshared_buffers = 16MB\n")
        control("start")
        try:
            connection = ("-h", sockets, "-U", "gfs")
            run(pgbench, *connection, "-i", "-q", "-s", "1", "postgres")
            run(pgbench, *connection, "-c", "2", "-t", "50", "postgres")
            control("stop", "-m", "immediate")
            control("start")
            sums = " union all ".join(
                f"select coalesce(sum({column}), 0) from pgbench_{table}"
                for table, column in (("accounts", "abalance"), ("branches", "bbalance"), ("tellers", "tbalance"),
                                      ("history", "delta"))
            )  # fmt: skip
            balances = run(programs / "psql", *connection, "-At", "-c", sums, "postgres").split()
            assert len(set(balances)) == 1, balances
            assert run(programs / "psql", *connection, "-At", "-c", "select count(*) from pgbench_history",
                       "postgres").strip() == "100"  # fmt: skip
            control("stop", "-m", "fast")
        finally:
            if (data / "postmaster.pid").exists():
                control("stop", "-m", "immediate")
        checked = run(programs / "pg_checksums", "--enable", "-D", data)
        assert re.search(r"Checksums enabled", checked)
        assert "Bad checksums:  0" in run(programs / "pg_checksums", "--check", "-D", data)
