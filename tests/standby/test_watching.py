"""Clients that watch, through the changes of the leader: whatever a new leader's clients change is seen."""

from pathlib import Path

import pytest

from gfsclient.watcher import Watcher
from gfsprotocol import messages as msg
from tests.conftest import ExpectedLogs
from tests.master.leading import until
from tests.standby.nodes import nodes
from tests.standby.test_reads import connect, started


@pytest.mark.slow
@pytest.mark.parametrize("way", ["handover", "crash"])
async def test_after_a_change_of_the_leader_nothing_old_is_kept(
    tmp_path: Path, way: str, expected_logs: ExpectedLogs
) -> None:
    expected_logs("leads no more", "waits for the journal")
    async with nodes(tmp_path) as cluster:
        await started(cluster)
        ours, other = await connect(cluster, "leader"), await connect(cluster, "leader")
        told: list[msg.Invalidate] = []
        drops: list[int] = []
        watcher = Watcher(ours._masters, told.append, lambda: drops.append(1))
        try:
            await until(lambda: watcher.is_current)
            inode = (await ours.mkdir("/d"), await ours.stat("/d"))[1].inode
            await other.chmod("/d", 0o700)
            await until(lambda: any(inode in notice.inodes for notice in told))
            mark, dropped = watcher.clock, len(drops)
            old = ours._masters._links.leader
            if way == "handover":
                await other._masters.call(msg.Handover())
            else:
                await cluster.crash(0)
            await until(lambda: len(drops) > dropped)
            await until(lambda: ours._masters._links.leader not in (None, old) and watcher.is_current)
            assert watcher.changed_since(inode, mark)
            told.clear()
            assert (await ours.stat("/d")).mode & 0o777 == 0o700
            await other.chmod("/d", 0o750)
            await until(lambda: any(inode in notice.inodes for notice in told))
        finally:
            await watcher.close()
            await ours.close()
            await other.close()
