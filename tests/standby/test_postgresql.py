"""Master nodes whose journal is in PostgreSQL: a database that is lost, silent, restarted, failed over, or too old."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gfsmaster import journal, tailers
from gfsmaster.oplog import Batch
from gfsprotocol import messages as msg
from gfsprotocol import rpc
from gfsprotocol.errors import AvailabilityError, LogFailed, LogOutdated
from tests.conftest import ExpectedLogs
from tests.journals import execute
from tests.master.leading import until
from tests.postgresql import PASSWORD, Server
from tests.proxy import Fate, Proxy
from tests.standby.nodes import LEASE_SECONDS, Nodes, nodes

pytestmark = pytest.mark.slow
CLIENT = b"client-1client-1"


@pytest.fixture
def proxy(postgresql: Server) -> Iterator[Proxy]:
    with Proxy(postgresql.port) as made:
        yield made


@pytest.fixture
def database(postgresql: Server) -> Iterator[str]:
    with postgresql.database() as name:
        yield name


async def until_role(cluster: Nodes, number: int, role: str, seconds: float = 15.0) -> msg.Status:
    async with asyncio.timeout(seconds):
        while (status := await cluster.status(number)).role != role:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return status


async def in_step(cluster: Nodes, *numbers: int) -> None:
    async with asyncio.timeout(10):
        while len({(await cluster.status(number)).sequence for number in numbers}) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def insist(cluster: Nodes, numbers: list[int], body: msg.RequestBody, call: msg.Call) -> msg.ReplyBody:
    """Asks one node after the other until one answers, as the client library does."""
    async with asyncio.timeout(20):
        retry = False
        while True:
            for number in numbers:
                try:
                    async with cluster.client(number, CLIENT) as client:
                        again = msg.Call(call.number, call.floor, retry=retry)
                        return (await client.call(body, 2, (), again)).body
                except AvailabilityError:
                    retry = True
                    await asyncio.sleep(0.02)


async def wait_for(event: object) -> None:
    assert await asyncio.to_thread(event.wait, 10)  # type: ignore[attr-defined]


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNANSWERED, None], ids=["before", "after", "waiting"])
async def test_a_commit_in_flight_is_answered_from_the_log_when_the_connection_was_lost(
    tmp_path: Path,
    postgresql: Server,
    database: str,
    proxy: Proxy,
    expected_logs: ExpectedLogs,
    fate: Fate | None,
) -> None:
    """The leader steps down and reads what became of it; the client's retry gets the one result."""
    expected_logs("leads no more: the journal .* cannot be written", "waits for the journal")
    async with nodes(tmp_path, postgresql.url(database, proxy.port)) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        async with cluster.client(0, CLIENT) as client:
            await client.call(msg.Mkdir(b"/a"), 5, (), msg.Call(1, 1))
            begun = asyncio.create_task(cluster_call(client, msg.Create(b"/a/f", open=False), msg.Call(2, 2)))
            if fate is None:
                with postgresql.connect(database) as holder:
                    holder.execute("BEGIN")
                    holder.execute("SELECT 1 FROM leadership FOR UPDATE")
                    await asyncio.sleep(0.1)
                    proxy.cut()
                    assert isinstance(await begun, AvailabilityError)
                    holder.execute("ROLLBACK")
            else:
                # Renewals pass by too: the trap is for a commit, whosever it is, and the next append meets the outcome.
                proxy.trap(b"COMMIT", fate)
                await begun
        made = await insist(cluster, [0], msg.Create(b"/a/f", open=False), msg.Call(2, 2))
        again = await insist(cluster, [0], msg.Create(b"/a/f", open=False), msg.Call(2, 2))
        assert made == again
        status = await cluster.until_leading(0)
        assert status.inodes == 3


async def cluster_call(client: rpc.Peer, body: msg.RequestBody, call: msg.Call) -> object:
    """The answer, or the error that came instead."""
    try:
        return (await client.call(body, 10, (), call)).body
    except AvailabilityError as error:
        return error


@pytest.mark.parametrize("where", ["idle", "commit"])
async def test_a_leader_whose_database_is_silent_is_replaced_and_becomes_a_standby(
    tmp_path: Path,
    postgresql: Server,
    database: str,
    proxy: Proxy,
    expected_logs: ExpectedLogs,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """Held in the middle of a commit it has the row's lock as well."""
    monkeypatch.setattr(journal, "CALL_SECONDS", 2.0)
    expected_logs(
        "node-0 leads no more: the journal",
        "node-0 is silent, and the log is locked: 1 of its sessions were ended",
        "node-0 waits for the journal",
    )
    async with nodes(tmp_path, postgresql.url(database)) as cluster:
        cluster.journals[0] = postgresql.url(database, proxy.port)
        old = cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        cluster.start(1)
        async with cluster.client(0, CLIENT) as client:
            await client.call(msg.Mkdir(b"/a"), 5, (), msg.Call(1, 1))
            await in_step(cluster, 0, 1)
            if where == "commit":
                proxy.trap(b"COMMIT", Fate.HELD)
                await wait_for(proxy.sprung)  # a renewal's, or the change's
            else:
                proxy.silence()
            silent = time.monotonic()
            change = asyncio.create_task(cluster_call(client, msg.Mkdir(b"/lost"), msg.Call(2, 2)))
            status = await cluster.until_leading(1)
            assert status.epoch == 2
            assert time.monotonic() - silent < LEASE_SECONDS * 4
            # By its own clock it has not been the leader for a while.
            assert old.node.leader is None or not old.node.leader.is_valid
            assert isinstance(await change, AvailabilityError)
        await insist(cluster, [1], msg.Mkdir(b"/b"), msg.Call(3, 3))
        proxy.resume()
        await until_role(cluster, 0, "standby")
        await in_step(cluster, 0, 1)
        status = await cluster.status(1)
        assert (status.role, status.epoch, status.inodes) == ("leader", 2, 3)


async def test_a_node_whose_database_is_silent_stops_in_time(
    tmp_path: Path,
    postgresql: Server,
    database: str,
    proxy: Proxy,
    expected_logs: ExpectedLogs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "CALL_SECONDS", 1.0)
    expected_logs("could not commit everything before it stopped", "leads no more")
    async with nodes(tmp_path, postgresql.url(database, proxy.port)) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        proxy.silence()
        begun = time.monotonic()
        assert await cluster.stop(0) == 0
        bound = journal.CALL_SECONDS + 2 * journal.INTERRUPTED_SECONDS + journal.CLOSE_SECONDS
        assert time.monotonic() - begun < bound + 1


async def test_masters_wait_while_the_server_restarts_and_go_on(
    tmp_path: Path, own_postgresql: Callable[[], Server], expected_logs: ExpectedLogs, caplog: pytest.LogCaptureFixture
) -> None:
    expected_logs("leads no more: the journal", "waits for the journal", "cannot lead")
    server = own_postgresql()
    server.create()
    server.start()
    async with nodes(tmp_path, server.url("postgres")) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        cluster.start(1)
        await insist(cluster, [0], msg.Mkdir(b"/a"), msg.Call(1, 1))
        await in_step(cluster, 0, 1)
        await asyncio.to_thread(server.stop)
        await until(lambda: all(f"node-{number} waits for the journal" in caplog.text for number in (0, 1)))
        await asyncio.to_thread(server.start)
        await insist(cluster, [0, 1], msg.Mkdir(b"/b"), msg.Call(2, 2))
        await in_step(cluster, 0, 1)
        roles = sorted([(await cluster.status(0)).role, (await cluster.status(1)).role])
        assert roles == ["leader", "standby"]
    assert PASSWORD not in caplog.text
    assert PASSWORD.replace("+", "%2B").replace("/", "%2F") not in caplog.text


async def test_a_master_that_starts_waits_for_a_database_that_is_down(
    tmp_path: Path, own_postgresql: Callable[[], Server], expected_logs: ExpectedLogs, caplog: pytest.LogCaptureFixture
) -> None:
    expected_logs("node-0 waits up to")
    server = own_postgresql()
    server.create()
    async with nodes(tmp_path, server.url("postgres")) as cluster:
        cluster.start(0, genesis=True)
        await until_logged(caplog, "node-0 waits up to 30 s for its start: the journal .* Connection refused")
        await asyncio.to_thread(server.start)
        await cluster.until_leading(0)
        assert caplog.text.count("waits up to") == 1, "one line in five seconds"
        assert await cluster.stop(0) == 0


async def test_a_master_waits_for_its_database_only_so_long_and_can_be_stopped_meanwhile(
    tmp_path: Path, own_postgresql: Callable[[], Server], expected_logs: ExpectedLogs, caplog: pytest.LogCaptureFixture
) -> None:
    expected_logs("node-0 waits up to")
    server = own_postgresql()
    async with nodes(tmp_path, server.url("postgres")) as cluster:
        cluster.start(0, genesis=True)
        await until_logged(caplog, "node-0 waits up to 30 s")
        begun = time.monotonic()
        assert await cluster.stop(0) == 0
        assert time.monotonic() - begun < 3
        cluster.journal_wait_seconds = 1.0
        cluster.start(0, genesis=True)
        with pytest.raises(LogFailed, match="Connection refused"):
            await asyncio.wait_for(cluster.running.pop(0)[1], 10)


async def test_a_master_that_is_refused_does_not_wait(tmp_path: Path, postgresql: Server, database: str) -> None:
    """A wrong password, a database that is not there: no time makes that right."""
    right = postgresql.url(database)
    for wrong, said in (
        (right.replace("gfs:", "gfs:wrong"), "password authentication failed"),
        (postgresql.url("missing"), 'database "missing" does not exist'),
    ):
        async with nodes(tmp_path, wrong) as cluster:
            cluster.start(0, genesis=True)
            with pytest.raises(LogFailed, match=said):
                await asyncio.wait_for(cluster.running.pop(0)[1], 10)


async def until_logged(caplog: pytest.LogCaptureFixture, pattern: str) -> None:
    async with asyncio.timeout(10):
        while re.search(pattern, caplog.text) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def with_synchronous_replica(own_postgresql: Callable[[], Server]) -> tuple[Server, Server, str]:
    """Both servers, and the address of the one that takes writes."""
    primary, replica = own_postgresql(), own_postgresql()
    primary.create()
    primary.start()
    replica.copy(primary)
    replica.start()
    with primary.connect() as session:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = 'replica'")
        session.execute("SELECT pg_reload_conf()")
        await until(lambda: session.execute("SELECT sync_state FROM pg_stat_replication").fetchone() == ("sync",))
    return primary, replica, primary.url_of_both(replica)


async def test_what_was_acknowledged_survives_the_loss_of_the_database_host(
    tmp_path: Path, own_postgresql: Callable[[], Server], expected_logs: ExpectedLogs
) -> None:
    """Two servers, one a synchronous replica; masters know both and use the one that takes writes."""
    expected_logs("leads no more: the journal", "waits for the journal", "cannot lead")
    primary, replica, url = await with_synchronous_replica(own_postgresql)
    async with nodes(tmp_path, url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        cluster.start(1)
        made: list[int] = []
        stop = asyncio.Event()

        async def write() -> None:
            while not stop.is_set():
                number = len(made) + 1
                await insist(cluster, [0, 1], msg.Mkdir(b"/%d" % number), msg.Call(number, number))
                made.append(number)

        writing = asyncio.create_task(write())
        await until(lambda: len(made) >= 20)
        await asyncio.to_thread(primary.stop, 9)
        before = len(made)
        await asyncio.to_thread(replica.promote)
        await until(lambda: len(made) >= before + 10)
        stop.set()
        await writing
        leader = 0 if (await cluster.status(0)).role == "leader" else 1
        assert (await cluster.status(leader)).inodes == 1 + len(made)
        await in_step(cluster, 0, 1)


async def test_a_synchronous_replica_that_has_stopped_receiving_lacks_nothing_that_was_acknowledged(
    tmp_path: Path,
    own_postgresql: Callable[[], Server],
    expected_logs: ExpectedLogs,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor has any master seen more than it has: a commit that waits for the replica is left alone."""
    monkeypatch.setattr(journal, "CALL_SECONDS", 1.0)
    expected_logs("leads no more: the journal", "waits for the journal", "cannot lead", "is left alone")
    primary, replica, url = await with_synchronous_replica(own_postgresql)
    async with nodes(tmp_path, url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        cluster.start(1)
        for number in range(1, 6):
            await insist(cluster, [0], msg.Mkdir(b"/%d" % number), msg.Call(number, number))
        await asyncio.to_thread(replica.stop_receiving)
        async with cluster.client(0, CLIENT) as client:
            unknown = await cluster_call(client, msg.Mkdir(b"/6"), msg.Call(6, 6))
        assert isinstance(unknown, AvailabilityError)
        async with asyncio.timeout(15):
            while "its commit waits for a synchronous replica, and is left alone" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await asyncio.to_thread(primary.stop, 9)
        await asyncio.to_thread(replica.promote)
        await insist(cluster, [0, 1], msg.Mkdir(b"/6"), msg.Call(6, 6))
        leader = 0 if (await cluster.status(0)).role == "leader" else 1
        assert (await cluster.status(leader)).inodes == 1 + 6
        await in_step(cluster, 0, 1)


async def test_nodes_that_know_more_than_the_log_stop_and_say_so(tmp_path: Path, journal_url: str) -> None:
    """A backup was restored under their feet, or the database failed over to a replica that lagged behind."""
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        cluster.start(1)
        for number in range(1, 6):
            await insist(cluster, [0], msg.Mkdir(b"/%d" % number), msg.Call(number, number))
        await in_step(cluster, 0, 1)
        last = (await cluster.status(0)).sequence
        execute(journal_url, "DELETE FROM log WHERE first > 3")
        _, standby = cluster.running.pop(1)
        with pytest.raises(LogOutdated, match=f"read up to record {last}: that one is not in it, its last one is 3"):
            await asyncio.wait_for(standby, 10)
        async with cluster.client(0, CLIENT) as client:
            answer = await cluster_call(client, msg.Mkdir(b"/6"), msg.Call(6, 6))
        assert isinstance(answer, AvailabilityError)
        _, leader = cluster.running.pop(0)
        with pytest.raises(LogOutdated, match=f"read up to record {last}"):
            await asyncio.wait_for(leader, 10)
        assert [row.first for row in execute(journal_url, "SELECT first FROM log ORDER BY first")][-1] == 3
        # Started anew they take the older log for what it is.
        cluster.start(0)
        assert (await cluster.until_leading(0)).inodes < 7


async def test_a_leader_that_lost_the_log_does_not_follow_an_older_one(
    tmp_path: Path, journal_url: str, expected_logs: ExpectedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drops its state when a commit fails, and still knows what it has promised."""
    expected_logs("leads no more: the database is gone")
    async with nodes(tmp_path, journal_url) as cluster:
        first = cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        for number in range(1, 6):
            await insist(cluster, [0], msg.Mkdir(b"/%d" % number), msg.Call(number, number))
        last = (await cluster.status(0)).sequence

        def fail(_batch: Batch, _previous: bytes) -> None:
            monkeypatch.undo()
            execute(journal_url, "DELETE FROM log WHERE first > 3")
            raise LogFailed("the database is gone")

        monkeypatch.setattr(first._journal.log, "append", fail)
        async with cluster.client(0, CLIENT) as client:
            assert isinstance(await cluster_call(client, msg.Mkdir(b"/6"), msg.Call(6, 6)), AvailabilityError)
        _, leader = cluster.running.pop(0)
        with pytest.raises(LogOutdated, match=f"read up to record {last}: that one is not in it, its last one is 3"):
            await asyncio.wait_for(leader, 10)
        assert [row.first for row in execute(journal_url, "SELECT first FROM log ORDER BY first")][-1] == 3


async def test_a_standby_outlives_connections_that_are_cut_again_and_again(
    tmp_path: Path,
    postgresql: Server,
    database: str,
    proxy: Proxy,
    expected_logs: ExpectedLogs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it was reading the log: here it gets nothing pushed, so that it reads at each change."""
    monkeypatch.setattr(tailers, "KEPT_BYTES_MAX", 0)
    expected_logs("node-1 waits for the journal")
    async with nodes(tmp_path, postgresql.url(database)) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        cluster.journals[1] = postgresql.url(database, proxy.port)
        cluster.start(1)
        await in_step(cluster, 0, 1)
        async with cluster.client(0, CLIENT) as client:
            for number in range(1, 100):
                await client.call(msg.Mkdir(b"/%d" % number), 5, (), msg.Call(number, number))
                if number % 3 == 0:
                    proxy.cut()
        assert not cluster.running[1][1].done()
        await in_step(cluster, 0, 1)
