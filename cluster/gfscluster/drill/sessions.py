"""What is done to the leader's sessions in PostgreSQL, and how it is undone."""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from gfscluster import processes
from gfscluster.drill.hits import Hit
from gfscluster.layout import Layout
from gfscluster.shape import Shape
from gfsmaster.databases import PostgreSQL, open_database, reason
from gfsmaster.oplog import OperationLog
from gfsprotocol.errors import ConfigurationError, LogFailed

CATCH_SECONDS: Final = 20.0
"""How long the drill lies in wait for a commit of the leader."""
STILL_SECONDS: Final = 0.02
"""What a stopped process had sent before has been done in the server by then."""
WATCH_SECONDS: Final = 0.02

_LOCK = sa.text("SELECT 1 FROM leadership WHERE id = 1 FOR UPDATE")
_HOLDING = sa.text(
    "SELECT pid FROM pg_stat_activity WHERE application_name = :name AND state = 'idle in transaction' "
    "AND backend_xid IS NOT NULL"
)
_EXISTS = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND application_name = :name")
_END_COMMITTING = sa.text(
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = :name AND state = 'active' AND query = 'COMMIT'"
)


class _Sessions(Hit):
    """A blow by way of a session of our own."""

    def __init__(self, place: Layout, shape: Shape, seconds: float, journal: str) -> None:
        super().__init__(place, shape, seconds)
        self._journal = journal
        database = open_database(sa.make_url(journal))
        if not isinstance(database, PostgreSQL):
            raise ConfigurationError("the journal is not in PostgreSQL")
        self._engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")

    async def finish(self) -> None:
        self._engine.dispose()

    def _leader_sessions(self) -> str:
        """What the leader's sessions are called."""
        log = OperationLog(self._journal, "drill")
        try:
            return log.leadership().process
        finally:
            log.close()

    async def _in_server(self, work: Callable[[sa.Connection], None]) -> None:
        """Does something in a thread with a session of our own; each statement is a transaction."""

        def call() -> None:
            try:
                with self._engine.connect() as connection:
                    work(connection)
            except SQLAlchemyError as error:
                raise LogFailed(f"the journal's server does not do what the drill asks for: {reason(error)}") from error

        await asyncio.to_thread(call)


class LockedRow(_Sessions):
    """A stranger holds the lock of the leadership row, which every commit needs."""

    _connection: sa.Connection | None = None

    async def act(self) -> None:
        self.note = "journal locked"
        await asyncio.to_thread(self._lock)
        self._at = time.monotonic()

    def _lock(self) -> None:
        try:
            self._connection = self._engine.connect().execution_options(isolation_level="READ COMMITTED")
            # It is idle in its transaction for as long as the blow is to last.
            self._connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            self._connection.execute(_LOCK)
        except SQLAlchemyError as error:
            raise LogFailed(f"the journal cannot be locked: {reason(error)}") from error

    def lift(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):  # the server may be away; then so is the lock
                self._connection.close()
            self._connection = None


class StoppedInCommit(_Sessions):
    """SIGSTOP in the middle of a commit: the server waits for a COMMIT, and nobody else can commit meanwhile."""

    def __init__(self, place: Layout, shape: Shape, seconds: float, journal: str) -> None:
        super().__init__(place, shape, seconds, journal)
        self._caught: tuple[str, int] | None = None
        """The sessions' name, and the one that is in a commit."""
        self._lifted = threading.Event()
        """What catches it is in a thread, and does not notice when the drill ends."""

    async def act(self) -> None:
        self._lifted.clear()
        name = await asyncio.to_thread(self._leader_sessions)
        await self._in_server(lambda connection: self._catch(connection, name))

    def _catch(self, connection: sa.Connection, name: str) -> None:
        record, until = self.record, time.monotonic() + CATCH_SECONDS
        self._caught = None
        try:
            while self._caught is None and time.monotonic() < until and not self._lifted.is_set():
                processes.send(record, signal.SIGCONT)
                processes.send(record, signal.SIGSTOP)
                self._at = time.monotonic()
                if connection.execute(_HOLDING, {"name": name}).first() is not None:
                    self._lifted.wait(STILL_SECONDS)
                    found = connection.execute(_HOLDING, {"name": name}).first()
                    self._caught = (name, found.pid) if found is not None else None
        finally:
            if self._lifted.is_set():
                processes.send(record, signal.SIGCONT)
        self.note = "stopped in a commit" if self._caught is not None else "stopped; it was never caught in a commit"

    async def outlast(self) -> None:
        if self._caught is not None:
            await self._in_server(self._watch)
        await super().outlast()

    def _watch(self, connection: sa.Connection) -> None:
        """Until its session has been ended, or the time is up."""
        assert self._caught is not None
        name, pid = self._caught
        while time.monotonic() < self._at + self.seconds and not self._lifted.is_set():
            if not connection.execute(_EXISTS, {"pid": pid, "name": name}).scalar():
                self.note = f"stopped in a commit; its session was ended after {time.monotonic() - self._at:.1f} s"
                return
            self._lifted.wait(WATCH_SECONDS)

    def lift(self) -> None:
        self._lifted.set()
        if self._name:
            processes.send(self.record, signal.SIGCONT)


class EndedInCommit(_Sessions):
    """The server ends the leader's session while it commits: the leader cannot know what became of that commit."""

    async def act(self) -> None:
        name = await asyncio.to_thread(self._leader_sessions)
        await self._in_server(lambda connection: self._end(connection, name))

    def _end(self, connection: sa.Connection, name: str) -> None:
        until = time.monotonic() + CATCH_SECONDS
        while time.monotonic() < until:
            self._at = time.monotonic()
            ended: Any = connection.execute(_END_COMMITTING, {"name": name}).first()
            if ended is not None:
                self.note = "connection lost with a commit in flight"
                return
        log = OperationLog(self._journal, "drill")
        try:
            current = log.leadership()
            self._at = time.monotonic()
            self.note = f"never caught in a commit; {log.end_holder(current)}"
        finally:
            log.close()
