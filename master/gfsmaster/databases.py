"""What differs between the databases that may hold the operation log: SQLite on one host, PostgreSQL for several.

Both must say "committed" only when it is on stable storage, and give up waiting for a lock in time: a leader that has
stopped in the middle of a commit still holds it.
"""

import contextlib
import os
import secrets
import shutil
import socket
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from gfsmaster import processes
from gfsprotocol.errors import ConfigurationError, LogFailed

CONNECT_SECONDS: Final = 3
"""To one of PostgreSQL's servers."""
BUSY_SECONDS: Final = 5.0
"""How long an append waits for another one's lock."""
CAMPAIGN_SECONDS: Final = 0.3
"""How long a candidate waits for it."""
SILENT_SECONDS: Final = BUSY_SECONDS
"""A node that is found with the lock again so much later, while nobody leads, does not work any more."""
IDLE_TRANSACTION_SECONDS: Final = 10
END_SECONDS: Final = 2
"""How long PostgreSQL may take to end a session."""
_PREPARING: Final = 0x676673
"""The key of the advisory lock in PostgreSQL under which tables are made."""
_PASSING: Final = ("the database system is", "too many", "connection slots")
"""Of what PostgreSQL says when it starts, stops or is full."""
BACKGROUND_WAL_PAGES: Final = 200
NO_VALUES: Final[Mapping[str, Any]] = {}


class Access(Enum):
    """What a connection is for."""

    LOG = "log"
    BACKGROUND = "background"
    """Bulk writes that must not get into the way of the log's: a commit holds the lock no longer than it must, and is
    on stable storage a little later. Both databases lose commits only from the end of their history, so what is there
    after a power cut is what was there at some moment, and nothing that was synced is lost by it."""
    READ = "read"
    """Reading only; the database refuses everything else."""


class Database(Protocol):
    """The peculiarities of one kind of database."""

    engine: sa.Engine
    identity: str
    """What the leadership row says of this process, so that others can end what it leaves behind."""

    names_nodes: bool
    """Whether every node, not only the leader, is to say there who it is, before it can stop with a lock."""

    where: str
    """The database, for people: without a password."""

    def adopt(self) -> None:
        """Settings that stay in a database which is ours; called before the first write, never for a stranger's."""

    def free_bytes(self) -> int | None:
        """How much room there is where the database lies; None if that cannot be told from here."""

    def check(self, connection: sa.Connection) -> None:
        """ConfigurationError if what is committed here would not be durable."""

    def lock_tables(self, connection: sa.Connection) -> None:
        """At the start of a transaction: no one else makes tables until its end."""

    def limit_wait(self, connection: sa.Connection) -> None:
        """In this transaction, gives up waiting for a lock after CAMPAIGN_SECONDS."""

    def transaction(self, connection: sa.Connection) -> contextlib.AbstractContextManager[object]:
        """One of those that are made all the time: it ends well, or who began it closes the connection.

        Its statements are made by :meth:`change` and :meth:`fetch`. Errors of all three as SQLAlchemy has them.
        """

    def change(self, connection: sa.Connection, statement: sa.TextClause, values: Mapping[str, Any]) -> int:
        """How many rows a statement has changed."""

    def fetch(
        self, connection: sa.Connection, statement: sa.TextClause, values: Mapping[str, Any] = NO_VALUES
    ) -> Sequence[Sequence[Any]]:
        """All rows of an answer."""

    def confirm(self, connection: sa.Connection) -> None:
        """After a commit: LogFailed if it may not be as durable as it has to be."""

    def is_locked(self, error: SQLAlchemyError) -> bool:
        """Whether an operation failed because it would have waited longer for a lock."""

    def is_away(self, error: SQLAlchemyError) -> bool:
        """Whether an operation failed because the database cannot be reached now, and may be in a while."""

    def is_damage(self, error: SQLAlchemyError) -> bool:
        """Whether an operation failed because of what is stored, and not for a reason that may pass."""

    def interrupt(self) -> None:
        """From any thread: lets the calls that wait for the database fail, as far as that is possible."""

    def end(self, identity: str, nodes: Mapping[str, str], /) -> str:
        """Ends what a leader that has stopped holds, or what another node does; what was done, for people.

        ``nodes`` are the identities of the nodes that have named themselves, by name.
        """


def open_database(url: sa.URL, access: Access = Access.LOG) -> Database:
    """ImportError, ValueError or SQLAlchemyError if it cannot be used; ConfigurationError says why not."""
    kind = url.get_backend_name()
    if kind == "sqlite":
        return SQLite(url, access)
    if kind == "postgresql":
        return PostgreSQL(url, access)
    raise ConfigurationError(f"the journal can be in SQLite or in PostgreSQL, not in '{kind}'")


class SQLite:
    """A file on this host."""

    names_nodes = True

    def __init__(self, url: sa.URL, access: Access) -> None:
        self.identity = processes.own_identity()
        self.where = url.database or "a database in memory"
        self._file = Path(url.database or "")
        self._access = access
        # In WAL mode, all locks are on parts of this file.
        self._locked_file = Path(f"{url.database}-shm")
        self._suspect = ("", "", 0.0)
        """The last leader, the node that was found with its lock, and when that was first (monotonic seconds)."""
        arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        if access is not Access.LOG:
            # Only who prepares the log may make the file.
            quoted = urllib.parse.quote(str(self._file.absolute()))
            url = url.set(database=f"file:{quoted}", query={"mode": "rw", "uri": "true"})
        self.engine = sa.create_engine(url, connect_args=arguments)
        sa.event.listen(self.engine, "connect", self._configure)
        sa.event.listen(self.engine, "begin", self._begin)

    def _configure(self, connection: Any, _record: object) -> None:
        """Durable commits (in the background: later), and transactions that we begin ourselves."""
        connection.isolation_level = None
        pragmas = ["trusted_schema = OFF"]
        pragmas.append(f"synchronous = {'NORMAL' if self._access is Access.BACKGROUND else 'FULL'}")
        if self._access is Access.BACKGROUND:
            # What is written in the background is moved from the WAL into the file in the background too: the leader's
            # commits hardly ever find it long enough to do that themselves.
            pragmas.append(f"wal_autocheckpoint = {BACKGROUND_WAL_PAGES}")
        if self._access is Access.READ:
            pragmas.append("query_only = ON")
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    def adopt(self) -> None:
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            _use_wal(driver)

    def free_bytes(self) -> int | None:
        try:
            return shutil.disk_usage(self._file.absolute().parent).free
        except OSError as error:
            raise LogFailed(f"the directory of the journal cannot be looked at: {error.strerror}") from error

    @staticmethod
    def _begin(connection: sa.Connection) -> None:
        # Deferred: readers take no lock that a writer waits for, and our writing transactions write first of all, so
        # none has to turn a read lock into a write lock.
        connection.exec_driver_sql("BEGIN")

    def check(self, connection: sa.Connection) -> None:
        """Nothing to check: each connection sets it."""

    def lock_tables(self, connection: sa.Connection) -> None:
        # Changes nothing, but is a write: who reads first cannot be sure to get the lock later.
        connection.exec_driver_sql("PRAGMA user_version = 0")

    def limit_wait(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.execute(f"PRAGMA busy_timeout = {int(CAMPAIGN_SECONDS * 1000)}").close()

        def restore(_: sa.Connection) -> None:
            driver.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}").close()

        for ending in ("commit", "rollback"):
            sa.event.listen(connection, ending, restore, once=True)

    def is_locked(self, error: SQLAlchemyError) -> bool:
        cause = error.orig if isinstance(error, DBAPIError) else None
        return str(getattr(cause, "sqlite_errorname", "")).startswith("SQLITE_BUSY")

    def is_away(self, error: SQLAlchemyError) -> bool:  # noqa: ARG002 - a file is there, or it is not
        return False

    def is_damage(self, error: SQLAlchemyError) -> bool:
        cause = error.orig if isinstance(error, DBAPIError) else None
        return str(getattr(cause, "sqlite_errorname", "")).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))

    @contextlib.contextmanager
    def transaction(self, connection: sa.Connection) -> Iterator[None]:
        """By the driver, which keeps its statements prepared: what SQLAlchemy does besides costs more than SQLite.

        What does not end well the pool rolls back when the connection is closed.
        """
        self._execute(connection, "BEGIN")
        yield
        self._execute(connection, "COMMIT")

    def change(self, connection: sa.Connection, statement: sa.TextClause, values: Mapping[str, Any]) -> int:
        count, _ = self._execute(connection, statement.text, values)
        return count

    def fetch(
        self, connection: sa.Connection, statement: sa.TextClause, values: Mapping[str, Any] = NO_VALUES
    ) -> Sequence[Sequence[Any]]:
        _, rows = self._execute(connection, statement.text, values)
        return rows

    @staticmethod
    def _execute(
        connection: sa.Connection, statement: str, values: Mapping[str, Any] = NO_VALUES
    ) -> tuple[int, list[tuple[Any, ...]]]:
        """How many rows were changed, and those of the answer."""
        driver: Any = connection.connection.driver_connection
        try:
            cursor = driver.execute(statement, values)
            return cursor.rowcount, cursor.fetchall()  # SQLite goes on while they are fetched, and may fail
        except sqlite3.Error as error:
            raise DBAPIError.instance(statement, None, error, sqlite3.Error) from error

    def confirm(self, connection: sa.Connection) -> None:
        """Nothing to ask: it has waited for the disk."""

    def interrupt(self) -> None:
        """Nothing can be done about a disk that does not answer; all other waiting has its limit."""

    def end(self, identity: str, nodes: Mapping[str, str], /) -> str:
        """By SIGKILL: its lock goes with it, and so does its half of a transaction.

        Not if it is known that another process holds the lock. If that is a node (a candidate, or a standby that writes
        a checkpoint), it is ended in the leader's place when it is stopped, or does not let go for SILENT_SECONDS. A
        stranger (a backup, a shell) is nobody's to end.
        """
        holders = processes.lock_holders(self._locked_file)
        if not holders or processes.pid_of(identity) in holders:
            return processes.end(identity)
        for name, node in nodes.items():
            if processes.pid_of(node) not in holders or node == self.identity:
                continue
            state = processes.state_of(node)
            if state == "T" or (state and self._is_silent(identity, node)):
                return f"the lock is held by {name}, and {processes.end(node)}"
            if state:
                return f"the lock is held by {name}, process {processes.pid_of(node)}, which gets time to let go"
        return f"the lock is held by process {min(holders)}, which is no master and is left alone"

    def _is_silent(self, leader: str, node: str) -> bool:
        """Whether the node was found with the lock before, SILENT_SECONDS ago, and nobody has led since."""
        now = time.monotonic()
        if self._suspect[:2] != (leader, node):
            self._suspect = (leader, node, now)
        return now - self._suspect[2] >= SILENT_SECONDS


class PostgreSQL:
    """A server that all masters reach.

    A connection that was lost while it was idle makes one call fail and no more: the pool opens all its connections
    anew then. To ask each one before it is used would cost every commit a round trip.

    A candidate that has stopped within a transaction needs no one to end it: the server does, after
    IDLE_TRANSACTION_SECONDS.
    """

    names_nodes = False

    def __init__(self, url: sa.URL, access: Access) -> None:
        self.identity = f"gfs-master-{secrets.token_hex(8)}"
        self.where = _place(url)
        self._access = access
        self._lock = threading.Lock()
        self._sessions: set[Any] = set()
        """The driver's connections, under the lock."""
        self.engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url,
            pool_size=2,
            max_overflow=2,
            pool_timeout=CONNECT_SECONDS,
            hide_parameters=True,
            connect_args={
                "application_name": self.identity,
                "connect_timeout": CONNECT_SECONDS,
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "target_session_attrs": url.query.get("target_session_attrs", "read-write"),
                "options": (
                    f"-c lock_timeout={int(BUSY_SECONDS * 1000)} "
                    f"-c idle_in_transaction_session_timeout={IDLE_TRANSACTION_SECONDS * 1000} "
                    r"-c default_transaction_isolation=read\ committed"
                    + (" -c default_transaction_read_only=on" if access is Access.READ else "")
                    + (" -c synchronous_commit=off" if access is Access.BACKGROUND else "")
                ),
            },
        )
        sa.event.listen(self.engine, "connect", self._connected)
        sa.event.listen(self.engine, "close", self._closed)

    def _connected(self, session: Any, record: Any) -> None:
        def notice(diagnostic: Any) -> None:
            if diagnostic.severity_nonlocalized == "WARNING":
                record.info["warning"] = diagnostic.message_primary

        session.add_notice_handler(notice)
        session.autocommit = True
        if self._access is not Access.BACKGROUND and session.execute("SHOW synchronous_commit").fetchone()[0] == "off":
            session.execute("SET synchronous_commit = on")
        session.autocommit = False
        with self._lock:
            self._sessions.add(session)

    def _closed(self, session: Any, _record: object) -> None:
        with self._lock:
            self._sessions.discard(session)

    def check(self, connection: sa.Connection) -> None:
        for name in ("fsync", "full_page_writes"):
            if connection.exec_driver_sql(f"SHOW {name}").scalar() == "off":
                raise ConfigurationError(
                    f"the database server of {self.where} runs with {name} = off: it would lose what was acknowledged"
                )

    def lock_tables(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_PREPARING})")

    def transaction(self, connection: sa.Connection) -> contextlib.AbstractContextManager[object]:
        return connection.begin()

    def change(self, connection: sa.Connection, statement: sa.TextClause, values: Mapping[str, Any]) -> int:
        return connection.execute(statement, values).rowcount

    def fetch(
        self, connection: sa.Connection, statement: sa.TextClause, values: Mapping[str, Any] = NO_VALUES
    ) -> Sequence[Sequence[Any]]:
        return connection.execute(statement, values).fetchall()

    def confirm(self, connection: sa.Connection) -> None:
        """When someone cancels its wait for a synchronous replica the server says "committed", and warns."""
        warning = connection.info.pop("warning", "")
        if warning:
            raise LogFailed(f"the server of the journal {self.where} has warned of a commit: {warning}")

    def is_away(self, error: SQLAlchemyError) -> bool:
        """Not if the server answers, and refuses us: a wrong password does not become right by waiting."""
        if not isinstance(error, OperationalError):
            return False
        state = getattr(error.orig, "sqlstate", None)
        if state is not None:
            return str(state).startswith(("08", "57P"))
        # An attempt to connect has no state, only text.
        text = str(error.orig)
        return "FATAL:" not in text or any(passing in text for passing in _PASSING)

    def is_damage(self, error: SQLAlchemyError) -> bool:
        cause = error.orig if isinstance(error, DBAPIError) else None
        return str(getattr(cause, "sqlstate", "")).startswith("XX")

    def interrupt(self) -> None:
        with self._lock:
            for session in self._sessions:
                if not session.closed:
                    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(session.fileno())) as duplicate:
                        duplicate.shutdown(socket.SHUT_RDWR)

    def adopt(self) -> None:
        """Nothing: its commits are durable as the server is set up."""

    def free_bytes(self) -> int | None:
        return None

    def limit_wait(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(CAMPAIGN_SECONDS * 1000)}")

    def is_locked(self, error: SQLAlchemyError) -> bool:
        cause = error.orig if isinstance(error, DBAPIError) else None
        return getattr(cause, "sqlstate", "") == "55P03"

    def end(self, identity: str, _nodes: Mapping[str, str], /) -> str:
        """By ending its sessions in the server, which rolls its transaction back.

        Not if they wait for the lock themselves: whoever holds it (a backup, a shell) is no reason to end a leader.
        And not if its commit waits for a synchronous replica: the server would show us what the replica lacks, and
        whoever comes next would wait for the replica as well.
        """
        waiting = sa.text(
            "SELECT blocker.pid FROM pg_stat_activity AS session "
            "CROSS JOIN LATERAL unnest(pg_blocking_pids(session.pid)) AS blocking(pid) "
            "JOIN pg_stat_activity AS blocker ON blocker.pid = blocking.pid "
            "WHERE session.application_name = :name AND blocker.application_name IS DISTINCT FROM :name"
        )
        replicating = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND wait_event = 'SyncRep'"
        )
        statement = sa.text(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, :milliseconds)) "
            "FROM pg_stat_activity WHERE application_name = :name AND pid <> pg_backend_pid()"
        )
        if not identity:
            return "it has not said which sessions are its own"
        try:
            with self.engine.begin() as connection:
                blocker = connection.execute(waiting, {"name": identity}).scalar()
                if blocker is not None:
                    return f"session {blocker} holds the lock, which is not the leader's, and is left alone"
                if connection.execute(replicating, {"name": identity}).scalar():
                    return "its commit waits for a synchronous replica, and is left alone"
                count = connection.execute(statement, {"name": identity, "milliseconds": END_SECONDS * 1000}).scalar()
        except SQLAlchemyError as error:
            raise LogFailed(f"the leader's sessions could not be ended: {reason(error)}") from error
        return f"{count} of its sessions were ended"


def _use_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait for a lock here by itself, and masters that begin at once do it at once."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _place(url: sa.URL) -> str:
    """``host:port/database``, or all hosts if there are several."""
    hosts = url.query.get("host", ())
    host = hosts if isinstance(hosts, str) else ",".join(hosts)
    port = f":{url.port}" if url.port else ""
    return f"{host or (url.host or 'localhost') + port}/{url.database or ''}"


def reason(error: BaseException) -> str:
    """A database error in one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
