"""What differs between the databases that may hold the operation log: SQLite on one host, PostgreSQL for several.

Both must say "committed" only when it is on stable storage, and give up waiting for a lock in time: a leader that has
stopped in the middle of a commit still holds it.
"""

import secrets
import shutil
import urllib.parse
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gfsmaster import processes
from gfsprotocol.errors import LogFailed

CONNECT_SECONDS: Final = 5
BUSY_SECONDS: Final = 5.0
"""How long an append waits for another one's lock."""
CAMPAIGN_SECONDS: Final = 0.3
"""How long a candidate waits for it."""
IDLE_TRANSACTION_SECONDS: Final = 10
BACKGROUND_WAL_PAGES: Final = 200


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

    def adopt(self) -> None:
        """Settings that stay in a database which is ours; called before the first write, never for a stranger's."""

    def free_bytes(self) -> int | None:
        """How much room there is where the database lies; None if that cannot be told from here."""

    def limit_wait(self, connection: sa.Connection) -> None:
        """In this transaction, gives up waiting for a lock after CAMPAIGN_SECONDS."""

    def is_locked(self, error: SQLAlchemyError) -> bool:
        """Whether an operation failed because it would have waited longer for a lock."""

    def end(self, identity: str) -> str:
        """Ends what a leader that has stopped holds; what was done, for people."""


def open_database(url: sa.URL, access: Access = Access.LOG) -> Database:
    """ImportError or SQLAlchemyError if it cannot be used."""
    if url.get_backend_name() == "sqlite":
        return SQLite(url, access)
    return PostgreSQL(url, access)


class SQLite:
    """A file on this host."""

    def __init__(self, url: sa.URL, access: Access) -> None:
        self.identity = processes.own_identity()
        self._file = Path(url.database or "")
        self._access = access
        # In WAL mode, all locks are on parts of this file.
        self._locked_file = Path(f"{url.database}-shm")
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
            driver.execute("PRAGMA journal_mode = WAL").close()

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

    def end(self, identity: str) -> str:
        """By SIGKILL: its lock goes with it, and so does its half of a transaction.

        Not if it is known that another process holds the lock (a backup, a shell): that is no reason to end a leader.
        """
        holders = processes.lock_holders(self._locked_file)
        if holders and processes.pid_of(identity) not in holders:
            return f"the lock is held by process {min(holders)}, which is not the leader and is left alone"
        return processes.end(identity)


class PostgreSQL:
    """A server that all masters reach."""

    def __init__(self, url: sa.URL, access: Access) -> None:
        self.identity = f"gfs-master-{secrets.token_hex(8)}"
        self.engine = sa.create_engine(
            url,
            pool_size=2,
            max_overflow=2,
            connect_args={
                "application_name": self.identity,
                "connect_timeout": CONNECT_SECONDS,
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": 10_000,
                "options": (
                    f"-c lock_timeout={int(BUSY_SECONDS * 1000)} "
                    f"-c idle_in_transaction_session_timeout={IDLE_TRANSACTION_SECONDS * 1000} "
                    "-c default_transaction_isolation='read committed'"
                    + (" -c default_transaction_read_only=on" if access is Access.READ else "")
                    + (" -c synchronous_commit=off" if access is Access.BACKGROUND else "")
                ),
            },
        )

    def adopt(self) -> None:
        """Nothing: its commits are durable as the server is set up."""

    def free_bytes(self) -> int | None:
        return None

    def limit_wait(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(CAMPAIGN_SECONDS * 1000)}")

    def is_locked(self, error: SQLAlchemyError) -> bool:
        cause = error.orig if isinstance(error, DBAPIError) else None
        return getattr(cause, "sqlstate", "") == "55P03"

    def end(self, identity: str) -> str:
        """By ending its sessions in the server, which rolls its transaction back."""
        statement = sa.text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = :name AND pid <> pg_backend_pid()"
        )
        if not identity:
            return "it has not said which sessions are its own"
        try:
            with self.engine.begin() as connection:
                count = connection.execute(statement, {"name": identity}).scalar()
        except SQLAlchemyError as error:
            raise LogFailed(f"the leader's sessions could not be ended: {reason(error)}") from error
        return f"{count} of its sessions were ended"


def reason(error: BaseException) -> str:
    """A database error in one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
