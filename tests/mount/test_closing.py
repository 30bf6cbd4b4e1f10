"""What is left to do for files that were closed is done for many at once."""

import asyncio
import os

import pytest

from gfsprotocol import bulk
from gfsprotocol.errors import ConnectionLost
from tests.client.smallcluster import SmallCluster
from tests.conftest import ExpectedLogs
from tests.master.leading import until
from tests.mount.scene import ROOT, Mounted, mounts


def sync_sessions(cluster: SmallCluster) -> int:
    """How many syncs came in sessions of their own."""
    requests = [request for server in cluster.fleet.servers.values() for request in server.requests]
    return sum(isinstance(request, bulk.Mutate) and request.kind == bulk.SYNC for request in requests)


def are_synced(cluster: SmallCluster, data: bytes) -> int:
    """How many replicas have all of ``data`` on stable storage."""
    replicas = [replica for server in cluster.fleet.servers.values() for replica in server.replicas.values()]
    return sum(replica.data == data and replica.synced == len(data) for replica in replicas)


async def write_files(mount: Mounted, count: int, data: bytes) -> list[int]:
    return [await mount.write_file(b"file-%d" % number, data) for number in range(count)]


async def test_small_files_are_synced_together_after_they_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfsclient.mount.filetable.GATHER_SECONDS", 1.0)  # enough on a busy machine
    async with mounts() as (cluster, [mount]):
        await write_files(mount, 5, b"small")
        assert not are_synced(cluster, b"small"), "close(2) waits for no disk"
        await mount.operations.close()
        assert are_synced(cluster, b"small") == 15
        assert not sync_sessions(cluster)


async def test_a_file_whose_servers_cannot_be_asked_together_is_synced_in_a_session() -> None:
    def refuse(request: bulk.RequestHeader) -> None:
        if isinstance(request, bulk.SyncChunks):
            raise ConnectionLost("no")

    async with mounts() as (cluster, [mount]):
        cluster.fleet.servers[2].before = refuse
        await write_files(mount, 2, b"small")
        await mount.operations.close()
        assert are_synced(cluster, b"small") == 6
        assert sync_sessions(cluster) == 2


async def test_a_large_chunk_keeps_no_small_ones_waiting() -> None:
    async with mounts() as (cluster, [mount]):
        data = bytes(2 << 20)
        await write_files(mount, 1, data)
        await mount.operations.close()
        assert are_synced(cluster, data) == 3
        assert sync_sessions(cluster) == 1


async def test_what_is_written_while_a_file_is_being_synced_is_synced_too() -> None:
    async with mounts() as (cluster, [mount]):
        number, inode = await mount.create(b"file")
        await mount.operations.write(number, 0, b"first")
        await mount.finish(number)
        again, _ = await mount.operations.open(inode, os.O_WRONLY, ROOT)
        await mount.operations.write(again, 0, b"again")
        await mount.finish(again)
        await mount.operations.close()
        assert are_synced(cluster, b"again") == 3


async def test_files_that_are_closed_together_end_in_one_commit() -> None:
    async with mounts() as (cluster, [mount]):
        leader = cluster.harness.leader
        numbers = [(await mount.create(b"file-%d" % number))[0] for number in range(20)]
        async with asyncio.timeout(10):
            await leader.committer.drained()
        commits = leader.measures.commits
        for number in numbers:
            await mount.finish(number)
        await mount.operations.close()
        assert leader.measures.commits - commits < 10
        assert not leader.state.writers


async def test_who_replaces_a_closed_file_harms_no_later_writer() -> None:
    """Its last bytes were cut off before they were synced: nothing is lost, and nobody is to be told so."""
    async with mounts(2) as (cluster, pair):
        inode = await pair[0].write_file(b"file", b"first")
        for turn in range(1, 7):
            mount = pair[turn % 2]
            number, _ = await mount.operations.open(inode, os.O_WRONLY | os.O_TRUNC, ROOT)
            await mount.operations.write(number, 0, b"turn %d" % turn)
            await mount.finish(number)
        assert await pair[1].content(inode) == b"turn 6"
        for mount in pair:
            await mount.operations.close()
        assert not cluster.harness.leader.state.writers


async def test_the_end_of_the_mount_waits_for_no_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfsclient.mount.filetable.GATHER_SECONDS", 3600.0)
    async with mounts() as (cluster, [mount]):
        await write_files(mount, 3, b"small")
        await mount.operations.close()
        assert are_synced(cluster, b"small") == 9
        assert not cluster.harness.leader.state.writers


@pytest.mark.parametrize("is_synced", [False, True], ids=["not synced", "synced"])
async def test_a_mount_that_slept_too_long_has_lost_nothing_if_nobody_minded(
    expected_logs: ExpectedLogs, is_synced: bool
) -> None:
    """Nor is anybody told so, who opens the file next."""
    expected_logs("is gone: its open files are closed")
    async with mounts() as (cluster, [mount]):
        number, inode = await mount.create(b"file")
        await mount.operations.write(number, 0, b"some")
        await mount.operations.fsync(number)
        await mount.operations.write(number, 4, b"more")
        if is_synced:
            await mount.operations.fsync(number)
        cluster.forget(mount.masters.client)
        await mount.finish(number)
        await until(lambda: not mount.operations.files._closing)
        assert await mount.content(inode) == b"somemore"
        number, _ = await mount.operations.open(inode, os.O_RDWR, ROOT)
        await mount.operations.fsync(number)
        await mount.finish(number)
