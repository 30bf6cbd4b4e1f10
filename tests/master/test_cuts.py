"""A truncation that comes between a grant and what is done under it: no bytes come back, none are lost in silence."""

import pytest

from gfsprotocol import messages as msg
from gfsprotocol.errors import LeaseLost, StaleHandle
from tests.master.leading import FakeServer, Harness, HeldLog, leading, replayed

CLIENT = b"c" * 16


async def _written(harness: Harness, length: int) -> tuple[FakeServer, int, msg.Lease]:
    client = await harness.connect("client", CLIENT)
    [server, *_] = await harness.add_servers(3)
    made = await harness.change(client, msg.Create(b"/f"))
    assert isinstance(made, msg.AttributesReply)
    lease = await harness.change(client, msg.AllocateChunk(made.attributes.inode, 0))
    assert isinstance(lease, msg.Lease)
    await harness.change(
        client, msg.RecordLength(made.attributes.inode, (msg.ChunkLength(0, lease.grant.chunk, length, 1),))
    )
    return server, made.attributes.inode, lease


async def test_lengths_acknowledged_before_the_replicas_were_cut_are_refused() -> None:
    async with leading() as harness:
        _, inode, lease = await _written(harness, 300)
        client = await harness.connect("client", CLIENT)
        await harness.change(client, msg.SetAttributes(b"/f", size=100))
        with pytest.raises(StaleHandle, match="truncated"):
            await harness.change(client, msg.RecordLength(inode, (msg.ChunkLength(0, lease.grant.chunk, 300, 1),)))
        renewed = (await client.call(msg.RenewLease(inode, 0, lease.grant.chunk, 1), 5)).body
        assert isinstance(renewed, msg.Lease)
        assert renewed.grant.cut_length == 100
        assert renewed.grant.version > 1


async def test_a_grant_from_before_a_truncation_is_not_confirmed() -> None:
    async with leading() as harness:
        server, inode, lease = await _written(harness, 300)
        client = await harness.connect("client", CLIENT)
        failed = lease.grant.members[-1].server
        second = (await client.call(msg.RenewLease(inode, 0, lease.grant.chunk, 1, (failed,)), 5)).body
        assert isinstance(second, msg.Lease)
        await harness.change(client, msg.SetAttributes(b"/f", size=100))
        with pytest.raises(LeaseLost, match="truncated"):
            await server.peer.call(msg.ConfirmGrant(server.number, lease.grant.chunk, second.grant.version, 300), 5)
        third = (await client.call(msg.RenewLease(inode, 0, lease.grant.chunk, second.grant.version), 5)).body
        assert isinstance(third, msg.Lease)
        assert third.grant.cut_length == 100
        await server.peer.call(msg.ConfirmGrant(server.number, lease.grant.chunk, third.grant.version, 100), 5)
        assert not harness.leader.state.chunks.cuts


async def test_the_grants_of_two_leaders_never_share_a_version() -> None:
    log = HeldLog()
    async with leading(log) as harness:
        _, inode, lease = await _written(harness, 300)
        client = await harness.connect("client", CLIENT)
        chunk = lease.grant.chunk
        failed = lease.grant.members[-1].server
        before = (await client.call(msg.RenewLease(inode, 0, chunk, 1, (failed,)), 5)).body
        await harness.leader.committer.drained()
        last_hash = log.batches[-1].hash
    async with leading(log, replayed(log), last_hash) as harness:
        client = await harness.connect("client", CLIENT)
        [server, *_] = await harness.add_servers(3, [(chunk, 1, 300)])
        after = (await client.call(msg.RenewLease(inode, 0, chunk, 1), 5)).body
        assert isinstance(before, msg.Lease)
        assert isinstance(after, msg.Lease)
        with pytest.raises(LeaseLost):
            await server.peer.call(msg.ConfirmGrant(server.number, chunk, before.grant.version, 300), 5)
