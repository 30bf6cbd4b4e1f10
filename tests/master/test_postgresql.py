"""The operation log in PostgreSQL: fencing between real sessions, connections that are lost or fall silent."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gfsmaster import databases, journal
from gfsmaster.journal import ThreadedJournal
from gfsmaster.oplog import GENESIS_HASH, OperationLog
from gfsprotocol.errors import ConfigurationError, LogFailed, LogFenced, LogLocked
from tests.master.test_oplog import Writer, lead
from tests.postgresql import PASSWORD, Server
from tests.proxy import Fate, Proxy

MOVE_ON = "UPDATE leadership SET epoch = epoch + 1, holder = 'two', beat = beat + 1"


@pytest.fixture
def database(postgresql: Server) -> Iterator[str]:
    with postgresql.database() as name:
        yield name


@pytest.fixture
def proxy(postgresql: Server) -> Iterator[Proxy]:
    with Proxy(postgresql.port) as made:
        yield made


@pytest.fixture
def log(postgresql: Server, database: str, proxy: Proxy) -> Iterator[OperationLog]:
    """The log by way of the proxy."""
    made = OperationLog(postgresql.url(database, proxy.port), "one")
    assert made.prepare(genesis=True)
    yield made
    made.close()


@pytest.fixture
def other(postgresql: Server, database: str) -> Iterator[OperationLog]:
    """The same log as another node sees it, which has a good connection."""
    made = OperationLog(postgresql.url(database), "two")
    yield made
    made.close()


@pytest.fixture
def own_log(own_postgresql: Callable[[], Server]) -> Iterator[tuple[Server, OperationLog]]:
    """A log in a server that the test may stop and set up anew."""
    server = own_postgresql()
    server.create()
    server.start()
    made = OperationLog(server.url("postgres"), "one")
    assert made.prepare(genesis=True)
    yield server, made
    made.close()


def wait_until(postgresql: Server, condition: str) -> None:
    """Until a session for which the condition holds is seen in the server."""
    with postgresql.connect() as session:
        deadline = time.monotonic() + 10
        while not session.execute(f"SELECT 1 FROM pg_stat_activity WHERE {condition}").fetchall():
            assert time.monotonic() < deadline, f"never seen: {condition}"
            time.sleep(0.005)


# ------------------------------------------------------------------------------------------------------------ fencing


def test_an_append_that_waits_for_an_election_is_fenced(
    postgresql: Server, database: str, log: OperationLog, other: OperationLog
) -> None:
    """The leader's transaction waits for the candidate's, and then sees the new epoch, not that of its own snapshot."""
    writer = Writer(log)
    epoch = lead(log)
    writer.append(epoch)
    with postgresql.connect(database) as candidate, ThreadPoolExecutor(1) as thread:
        candidate.execute("BEGIN")
        candidate.execute(MOVE_ON)
        append = thread.submit(writer.append, epoch)
        wait_until(postgresql, f"datname = '{database}' AND wait_event_type = 'Lock'")
        candidate.execute("COMMIT")
        with pytest.raises(LogFenced):
            append.result(timeout=10)
    assert len(other.read(0, GENESIS_HASH)) == 1


def test_one_session_does_for_all_that_a_node_asks_of_its_log(
    postgresql: Server, database: str, log: OperationLog
) -> None:
    writer = Writer(log)
    epoch = lead(log)
    writer.append(epoch)
    assert log.restore(0) is None
    assert len(log.read(0, GENESIS_HASH)) == 1
    log.renew(epoch)
    log.resign(epoch)
    assert log.first() == 1
    with postgresql.connect() as session:
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
        assert session.execute(query).fetchall() == [(1,)]


def test_of_candidates_who_try_at_once_one_wins_every_time(log: OperationLog, other: OperationLog) -> None:
    start = threading.Barrier(2)

    def campaign(candidate: OperationLog) -> bool:
        seen = candidate.leadership()
        start.wait()
        return candidate.campaign(seen, "host:1") is not None

    with ThreadPoolExecutor(2) as threads:
        for round in range(1, 21):
            assert sorted(threads.map(campaign, [log, other])) == [False, True]
            assert log.leadership().epoch == round


@pytest.mark.slow
def test_a_leader_that_stopped_in_a_transaction_is_ended(
    log: OperationLog, other: OperationLog, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit arrives late, when another leads: there is no transaction any more that it could commit."""
    writer = Writer(log)
    epoch = lead(log)
    writer.append(epoch)
    proxy.trap(b"COMMIT", Fate.HELD)
    with ThreadPoolExecutor(1) as thread:
        append = thread.submit(writer.append, epoch)
        assert proxy.sprung.wait(10)
        seen = other.leadership()
        with pytest.raises(LogLocked):
            other.campaign(seen, "host:2")
        assert other.end_holder(seen) == "1 of its sessions were ended"
        assert other.campaign(seen, "host:2") is not None
        proxy.resume()
        with pytest.raises(LogFailed):
            append.result(timeout=10)
    assert len(other.read(0, GENESIS_HASH)) == 1


@pytest.mark.slow
def test_the_server_ends_a_leader_that_stopped_in_a_transaction_if_no_one_else_does(
    postgresql: Server, database: str, proxy: Proxy, other: OperationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "IDLE_TRANSACTION_SECONDS", 1)
    log = OperationLog(postgresql.url(database, proxy.port), "one")
    assert log.prepare(genesis=True)
    writer = Writer(log)
    epoch = lead(log)
    proxy.trap(b"COMMIT", Fate.HELD)
    with ThreadPoolExecutor(1) as thread:
        append = thread.submit(writer.append, epoch)
        assert proxy.sprung.wait(10)
        seen = other.leadership()
        deadline = time.monotonic() + 10
        while True:
            try:
                won = other.campaign(seen, "host:2")
                break
            except LogLocked:
                assert time.monotonic() < deadline
        assert won is not None
        proxy.resume()
        with pytest.raises(LogFailed):
            append.result(timeout=10)
    assert other.read(0, GENESIS_HASH) == []
    log.close()


def test_a_leader_that_waits_for_a_stranger_is_left_alone(
    postgresql: Server, database: str, log: OperationLog, other: OperationLog
) -> None:
    writer = Writer(log)
    epoch = lead(log)
    with postgresql.connect(database) as stranger, ThreadPoolExecutor(1) as thread:
        stranger.execute("BEGIN")
        stranger.execute("SELECT 1 FROM leadership FOR UPDATE")
        append = thread.submit(writer.append, epoch)
        wait_until(postgresql, f"datname = '{database}' AND wait_event_type = 'Lock'")
        done = other.end_holder(other.leadership())
        assert (
            done == f"session {stranger.info.backend_pid} holds the lock, which is not the leader's, and is left alone"
        )
        stranger.execute("ROLLBACK")
        append.result(timeout=10)
    assert len(other.read(0, GENESIS_HASH)) == 1


# --------------------------------------------------------------------------------------------------- lost connections


@pytest.mark.parametrize(("fate", "rows"), [(Fate.LOST, 1), (Fate.UNANSWERED, 2)])
def test_a_connection_lost_in_a_commit_is_an_unknown_outcome(
    log: OperationLog, other: OperationLog, proxy: Proxy, fate: Fate, rows: int
) -> None:
    writer = Writer(log)
    epoch = lead(log)
    writer.append(epoch)
    proxy.trap(b"COMMIT", fate)
    with pytest.raises(LogFailed):
        writer.append(epoch)
    assert len(other.read(0, GENESIS_HASH)) == rows
    assert len(log.read(0, GENESIS_HASH)) == rows  # the pool has another connection


def test_a_connection_lost_while_waiting_for_a_lock_appends_nothing(
    postgresql: Server, database: str, log: OperationLog, other: OperationLog, proxy: Proxy
) -> None:
    writer = Writer(log)
    epoch = lead(log)
    with postgresql.connect(database) as holder, ThreadPoolExecutor(1) as thread:
        holder.execute("BEGIN")
        holder.execute("SELECT 1 FROM leadership FOR UPDATE")
        append = thread.submit(writer.append, epoch)
        wait_until(postgresql, f"datname = '{database}' AND wait_event_type = 'Lock'")
        proxy.cut()
        with pytest.raises(LogFailed):
            append.result(timeout=5)
        holder.execute("ROLLBACK")
    assert other.read(0, GENESIS_HASH) == []
    assert writer.append(epoch) in other.read(0, GENESIS_HASH)


@pytest.mark.slow
async def test_a_silent_database_fails_calls_in_time_and_stops_nothing_else(
    log: OperationLog, other: OperationLog, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "CALL_SECONDS", 0.5)
    threaded = ThreadedJournal(log)
    writer = Writer(log)
    epoch = lead(log)
    gaps = [0.0]

    async def watch() -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            gaps.append(now - before)
            before = now

    watching = asyncio.create_task(watch())
    proxy.silence()
    begun = time.monotonic()
    calls = [threaded.run(writer.append, epoch), threaded.renew(epoch), threaded.leadership()]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [LogFailed] * 3
    assert time.monotonic() - begun < 0.5 + journal.INTERRUPTED_SECONDS + 0.5
    assert [thread.name for thread in threading.enumerate()].count("journal") == 1
    proxy.resume()
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await threaded.leadership()).holder == "one"
                break
            except LogFailed:
                continue  # the one that was hanging in its connecting
    assert await threaded.read(0, GENESIS_HASH) == []
    watching.cancel()
    assert max(gaps) < 0.4
    await threaded.close()


@pytest.mark.slow
async def test_a_journal_that_hangs_is_closed_in_time(log: OperationLog, proxy: Proxy) -> None:
    threaded = ThreadedJournal(log)
    await threaded.leadership()
    proxy.silence()
    hanging = asyncio.create_task(threaded.leadership())
    await asyncio.sleep(0.05)
    begun = time.monotonic()
    await threaded.close()
    assert time.monotonic() - begun < journal.CLOSE_SECONDS + journal.INTERRUPTED_SECONDS + 0.5
    with pytest.raises(LogFailed):
        await hanging


async def test_a_call_that_cannot_be_interrupted_fails_and_holds_up_no_more_than_the_journal(
    log: OperationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a disk that hangs. What was asked for meanwhile is never done late."""
    monkeypatch.setattr(journal, "CALL_SECONDS", 0.05)
    monkeypatch.setattr(journal, "INTERRUPTED_SECONDS", 0.05)
    threaded = ThreadedJournal(log)
    disk = threading.Event()
    done: list[str] = []
    with pytest.raises(LogFailed, match="has not answered"):
        await threaded.run(disk.wait)
    with pytest.raises(LogFailed, match="has not answered"):
        await threaded.run(done.append, "late")
    disk.set()
    await threaded.run(done.append, "in time")
    assert done == ["in time"]
    await threaded.close()


@pytest.mark.slow
def test_after_a_restart_of_the_server_one_call_fails_and_no_more(own_log: tuple[Server, OperationLog]) -> None:
    server, log = own_log
    writer = Writer(log)
    epoch = lead(log)
    writer.append(epoch)
    server.stop()
    with pytest.raises(LogFailed):
        log.renew(epoch)
    with pytest.raises(LogFailed, match="refused"):
        log.leadership()
    server.start()
    log.renew(epoch)
    writer.append(epoch)
    assert len(log.read(0, GENESIS_HASH)) == 2


# ---------------------------------------------------------------------------------------------------------- durability


@pytest.mark.slow
def test_a_commit_that_did_not_wait_for_its_replica_is_an_unknown_outcome(own_log: tuple[Server, OperationLog]) -> None:
    """Whoever cancels the wait for a synchronous replica makes the server say "committed": with a warning."""
    server, log = own_log
    writer = Writer(log)
    epoch = lead(log)
    with server.connect() as session, ThreadPoolExecutor(1) as thread:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = 'missing'")
        session.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while session.execute("SHOW synchronous_standby_names").fetchone() != ("missing",):
            assert time.monotonic() < deadline
        append = thread.submit(writer.append, epoch)
        wait_until(server, "wait_event = 'SyncRep'")
        session.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        with pytest.raises(LogFailed, match="has warned of a commit: canceling wait for synchronous replication"):
            append.result(timeout=10)


@pytest.mark.slow
def test_a_server_that_keeps_no_promises_is_refused(own_postgresql: Callable[[], Server]) -> None:
    server = own_postgresql()
    server.create("fsync = off\n")
    server.start()
    log = OperationLog(server.url("postgres"), "one")
    with pytest.raises(ConfigurationError, match="fsync = off: it would lose what was acknowledged"):
        log.prepare(genesis=True)
    log.close()


def test_commits_are_synchronous_whatever_the_role_prefers(postgresql: Server, database: str) -> None:
    log = OperationLog(postgresql.url(database), "one")
    for preferred, used in (("off", "on"), ("remote_apply", "remote_apply")):
        with postgresql.connect(database) as session:
            session.execute(f'ALTER DATABASE "{database}" SET synchronous_commit = {preferred}')
        with log._engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == used
        log.close()


def test_a_refused_password_is_not_told(postgresql: Server, database: str) -> None:
    log = OperationLog(postgresql.url(database).replace("gfs:", "gfs:wrong"), "one")
    with pytest.raises(LogFailed, match="password authentication failed") as caught:
        log.prepare(genesis=True)
    assert PASSWORD not in str(caught.value)
    assert database in str(caught.value)
    log.close()
