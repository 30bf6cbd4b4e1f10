"""A master node: restart is replay, a standby follows and takes over, and a wrong log is refused."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy.exc import OperationalError

from gfsmaster.oplog import Leadership, OperationLog
from gfsprotocol import messages as msg
from gfsprotocol.errors import (
    AddressInUse,
    AvailabilityError,
    CallForgotten,
    ForeignStore,
    LogDamaged,
    LogFailed,
    NotLeader,
)
from gfsstandby.process import MasterProcess
from tests.conftest import ExpectedLogs
from tests.journals import execute
from tests.master.leading import until
from tests.standby.nodes import LEASE_SECONDS, Nodes, nodes

pytestmark = pytest.mark.slow
CLIENT = b"client-1client-1"


async def test_a_restarted_node_has_everything_that_was_acknowledged(tmp_path: Path, journal_url: str) -> None:
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        async with cluster.client(0, CLIENT) as client:
            await client.call(msg.Mkdir(b"/a"), 5, (), msg.Call(1, 1))
            made = (await client.call(msg.Create(b"/a/f", open=False), 5, (), msg.Call(2, 2))).body
        await cluster.crash(0)
        cluster.start(0)
        status = await cluster.until_leading(0)
        assert status.epoch == 2
        async with cluster.client(0, CLIENT) as client:
            assert (await client.call(msg.Stat(b"/a/f"), 5)).body == made
            again = (await client.call(msg.Create(b"/a/f", open=False), 5, (), msg.Call(2, 2, retry=True))).body
            assert again == made


async def test_a_standby_follows_answers_with_the_leader_and_takes_over(tmp_path: Path, journal_url: str) -> None:
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        cluster.start(1)
        async with cluster.client(0) as client:
            await client.call(msg.Mkdir(b"/a"), 5, (), msg.Call(1, 1))
        leader = await cluster.status(0)
        async with asyncio.timeout(5):
            while (await cluster.status(1)).sequence < leader.sequence:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        async with cluster.client(1) as client:
            with pytest.raises(NotLeader) as caught:
                await client.call(msg.Stat(b"/a"), 5)
            assert caught.value.hint == leader.leader
        await cluster.crash(0)
        status = await cluster.until_leading(1)
        assert status.epoch == 2
        async with cluster.client(1) as client:
            await client.call(msg.Stat(b"/a"), 5)


async def test_after_a_planned_stop_the_standby_leads_without_waiting(tmp_path: Path, journal_url: str) -> None:
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        assert await cluster.stop(0) == 0
        journal = OperationLog(journal_url, "reader")
        assert journal.leadership().holder == ""
        journal.close()
        cluster.start(1)
        assert (await cluster.until_leading(1)).epoch == 2


async def test_a_leader_that_was_deposed_becomes_a_standby_by_itself(
    tmp_path: Path, journal_url: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("leads no more: epoch 1 is over")
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        execute(journal_url, "UPDATE leadership SET epoch = 2, holder = 'other', address = 'other:1'")
        async with asyncio.timeout(10):
            while (await cluster.status(0)).role == "leader":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        status = await cluster.until_leading(0)  # the other never beats
        assert status.epoch == 3


async def test_a_damaged_log_is_refused_with_the_records_named(tmp_path: Path, journal_url: str) -> None:
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        async with cluster.client(0) as client:
            for number in range(1, 6):
                await client.call(msg.Mkdir(b"/%d" % number), 5, (), msg.Call(number, number))
        await cluster.stop(0)
        [[first, payload]] = execute(journal_url, "SELECT first, payload FROM log ORDER BY first LIMIT 1 OFFSET 2")
        damaged = bytearray(payload)
        damaged[-1] ^= 1
        execute(journal_url, "UPDATE log SET payload = :payload WHERE first = :first", payload=damaged, first=first)
        before = execute(journal_url, "SELECT * FROM log, leadership ORDER BY first")
        cluster.start(0)
        _, task = cluster.running.pop(0)
        with pytest.raises(LogDamaged, match=f"records {first} to"):
            await task
        assert execute(journal_url, "SELECT * FROM log, leadership ORDER BY first") == before


async def test_a_standby_outlives_a_journal_that_cannot_be_reached_for_a_while(
    tmp_path: Path, journal_url: str, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    expected_logs("waits for the journal")
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        standby = cluster.start(1)
        await cluster.status(1)
        journal = standby._journal.log
        failures: list[str] = []

        def unreachable(*_: object) -> None:
            failures.append("once more")
            raise OperationalError("SELECT", {}, Exception("the server closed the connection unexpectedly"))

        with monkeypatch.context() as patch:
            patch.setattr(journal._engine, "connect", unreachable)
            patch.setattr(journal, "leadership", lambda: Leadership(1, "node-0", "", len(failures)))
            await until(lambda: len(failures) >= 2)
        await cluster.stop(0)
        await cluster.until_leading(1)


async def test_a_leader_that_cannot_write_any_more_is_followed_without_waiting_for_its_lease(
    tmp_path: Path, journal_url: str, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    """Its disk is full, so it cannot resign in the log; whoever has failed does not try again at once."""
    expected_logs("node-[01] leads no more: the disk is full")
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.lease_seconds = 20.0
        first = cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        second = cluster.start(1)
        await cluster.status(1)
        await until(lambda: second.node.digest() == first.node.digest())

        async def fill_the_disk(leader: int) -> None:
            log = cluster.running[leader][0]._journal.log

            def full(*_: object) -> None:
                raise LogFailed("the disk is full")

            for name in ("append", "renew", "resign"):
                monkeypatch.setattr(log, name, full)
            async with cluster.client(leader) as client:
                with pytest.raises(AvailabilityError):
                    await client.call(msg.Mkdir(b"/a"), 5, (), msg.Call(1, 1))

        await fill_the_disk(0)
        assert (await cluster.until_leading(1)).epoch == 2
        await fill_the_disk(1)
        await until(lambda: first.node._tailing.ended_epoch == 2)
        assert (await cluster.status(0)).role == "standby"
        assert execute(journal_url, "SELECT epoch, holder FROM leadership") == [(2, "node-1")]


async def test_fault_12_a_node_that_is_alone_never_invents_a_cluster(tmp_path: Path, journal_url: str) -> None:
    async with nodes(tmp_path, journal_url) as cluster:
        for _ in range(3):
            cluster.start(0)
            _, task = cluster.running.pop(0)
            with pytest.raises(ForeignStore, match="genesis"):
                await task
        cluster.start(0, genesis=True)
        first = await cluster.until_leading(0)
        await cluster.stop(0)
        cluster.start(0, genesis=True)
        second = await cluster.until_leading(0)
        assert first.cluster == second.cluster
        assert second.sequence > first.sequence


async def test_a_port_in_use_is_one_line(tmp_path: Path, journal_url: str) -> None:
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        cluster.ports[1] = cluster.ports[0]
        cluster.start(1)
        _, task = cluster.running.pop(1)
        with pytest.raises(AddressInUse, match=str(cluster.ports[0])):
            await task


async def test_the_status_page_and_health_answer_over_http(tmp_path: Path, journal_url: str) -> None:
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        async with aiohttp.ClientSession() as session:
            base = f"http://127.0.0.1:{cluster.ports[0]}"
            async with session.get(f"{base}/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            async with session.get(f"{base}/status") as answer:
                status = await answer.json()
                assert (status["role"], status["node"], status["inodes"]) == ("leader", "node-0", 1)


async def test_a_retry_that_no_one_remembers_is_refused_not_done_twice(tmp_path: Path, journal_url: str) -> None:
    async with nodes(tmp_path, journal_url) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        async with cluster.client(0) as client:
            with pytest.raises(CallForgotten):
                await client.call(msg.Mkdir(b"/a"), 5, (), msg.Call(7, 7, retry=True))


@contextlib.asynccontextmanager
async def cut_off(directory: Path, expected_logs: ExpectedLogs) -> AsyncIterator[tuple[Nodes, MasterProcess]]:
    """A leader that has resigned because nobody spoke to it any more."""
    expected_logs("node-0 was not spoken to")
    async with nodes(directory) as cluster:
        cluster.heartbeat_seconds = LEASE_SECONDS / 4
        first = cluster.start(0, genesis=True)
        await cluster.until_leading(0)  # and now it has heard somebody
        await until(lambda: first.node.leader is None)
        yield cluster, first


async def test_a_leader_that_nobody_speaks_to_any_more_lets_another_lead(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    """Cut off from everybody, but not from the database, it would keep its lease for ever."""
    async with cut_off(tmp_path, expected_logs) as (cluster, first):
        await asyncio.sleep(LEASE_SECONDS)
        assert first.node.leader is None  # it does not stand at once, though nobody else does
        second = cluster.start(1)
        assert (await cluster.until_leading(1)).epoch == 2
        await until(lambda: first.node.digest() == second.node.digest())


async def test_a_leader_that_was_cut_off_leads_again_when_it_is_spoken_to(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    async with cut_off(tmp_path, expected_logs) as (cluster, _):
        assert (await cluster.until_leading(0, seconds=4 * LEASE_SECONDS)).epoch == 2
