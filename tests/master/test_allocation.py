"""A new file that comes with its first chunk, and what becomes of chunks that nobody wrote to."""

from gfsmaster import operations as op
from gfsprotocol import messages as msg
from gfsprotocol.tokens import open_grant
from tests.master.leading import CHUNK_BYTES, KEY, Harness, HeldLog, leading, replayed
from tests.master.machine import CLIENT, Machine

OTHER = b"o" * 16


async def created(harness: Harness, body: msg.Create) -> tuple[msg.Attributes, msg.Lease | None]:
    client = await harness.connect("client", CLIENT)
    reply = await harness.change(client, body)
    assert isinstance(reply, msg.AttributesReply)
    return reply.attributes, reply.lease


async def test_a_file_and_its_first_chunk_are_one_record_and_one_answer() -> None:
    async with leading() as harness:
        await harness.add_servers(3)
        attributes, lease = await created(harness, msg.Create(b"/file", allocate=True))
        assert lease is not None
        grant = open_grant(KEY, lease.token)
        assert (grant.inode, grant.index, grant.base_version, grant.version) == (attributes.inode, 0, 0, 1)
        assert (len(grant.members), grant.chunk_bytes, lease.length) == (3, CHUNK_BYTES, 0)
        last = harness.log.records()[-1]
        assert [type(operation) for operation in last.operations] == [op.MakeFile]
        assert replayed(harness.log).digest() == harness.leader.state.digest()


async def test_without_enough_servers_the_file_is_made_without_a_chunk() -> None:
    async with leading() as harness:
        attributes, lease = await created(harness, msg.Create(b"/file", allocate=True))
        assert lease is None
        assert attributes.open_writers == 1
        assert len(harness.leader.state.chunks) == 0


async def test_only_a_new_file_that_is_open_gets_a_chunk() -> None:
    async with leading() as harness:
        await harness.add_servers(3)
        assert (await created(harness, msg.Create(b"/file", open=False, allocate=True)))[1] is None
        assert (await created(harness, msg.Create(b"/file", truncate=True, allocate=True)))[1] is None
        assert (await created(harness, msg.Create(b"/", anonymous=True, allocate=True)))[1] is not None


async def test_a_retry_is_answered_without_a_lease_and_the_chunk_is_there_to_ask_for() -> None:
    log = HeldLog()
    async with leading(log) as harness:
        await harness.add_servers(3)
        client = await harness.connect("client", CLIENT)
        body = msg.Create(b"/file", allocate=True)
        first = (await client.call(body, 5, (), msg.Call(1, 1))).body
        again = (await client.call(body, 5, (), msg.Call(1, 1, retry=True))).body
        assert isinstance(first, msg.AttributesReply) and isinstance(again, msg.AttributesReply)
        assert first.lease is not None and again == msg.AttributesReply(first.attributes)
        asked = (await client.call(msg.AllocateChunk(first.attributes.inode, 0), 5, (), msg.Call(2, 2))).body
        assert isinstance(asked, msg.Lease)
        assert asked.grant.chunk == first.lease.grant.chunk
        assert asked.grant.version == 1
    async with leading(log, replayed(log), log.batches[-1].hash) as harness:
        client = await harness.connect("client", CLIENT)
        assert (await client.call(body, 5, (), msg.Call(1, 1, retry=True))).body == again


async def test_the_chunk_of_a_file_that_is_closed_empty_is_freed() -> None:
    async with leading() as harness:
        servers = await harness.add_servers(3)
        attributes, lease = await created(harness, msg.Create(b"/file", allocate=True))
        assert lease is not None
        client = await harness.connect("client", CLIENT)
        await harness.change(client, msg.Close(attributes.inode))
        assert len(harness.leader.state.chunks) == 0
        await harness.leader.committer.drained()
        assert not any(server.deletions for server in harness.leader.fleet.servers), "nobody has made it"
        await servers[0].beat(stored=[(lease.grant.chunk, 1, 0)])
        assert [list(server.deletions) for server in harness.leader.fleet.servers] == [[lease.grant.chunk], [], []]
        assert replayed(harness.log).digest() == harness.leader.state.digest()


async def test_a_chunk_that_a_server_has_made_is_deleted_on_all_of_its_servers() -> None:
    async with leading() as harness:
        servers = await harness.add_servers(3)
        attributes, lease = await created(harness, msg.Create(b"/file", allocate=True))
        assert lease is not None
        await servers[0].beat(stored=[(lease.grant.chunk, 1, 0)])
        client = await harness.connect("client", CLIENT)
        await harness.change(client, msg.Close(attributes.inode))
        await harness.leader.committer.drained()
        assert all(list(server.deletions) == [lease.grant.chunk] for server in harness.leader.fleet.servers)


def test_a_chunk_is_freed_by_the_last_writer_only_and_never_one_with_bytes() -> None:
    machine = Machine()
    inode = machine.attributes(msg.Create(b"/file")).inode
    chunk = machine.add_chunk(inode, 0)
    machine.do(msg.OpenForWrite(b"/file"), client=OTHER)
    machine.do(msg.Close(inode))
    assert machine.state.chunks.slot_of(chunk)
    machine.do(msg.Close(inode, (msg.ChunkLength(0, chunk, 1),)), client=OTHER)
    assert machine.state.chunks.slot_of(chunk)
    machine.check()


def test_a_client_that_dies_leaves_no_unused_chunk() -> None:
    machine = Machine()
    inode = machine.attributes(msg.Create(b"/file")).inode
    chunk = machine.add_chunk(inode, 0)
    machine.log((op.CloseClient(CLIENT, frees_unused=True),))
    assert not machine.state.chunks.slot_of(chunk)
    machine.check()


def test_old_records_of_closes_are_applied_as_they_were() -> None:
    machine = Machine()
    inode = machine.attributes(msg.Create(b"/file")).inode
    chunk = machine.add_chunk(inode, 0)
    machine.log((op.CloseWriter(inode, CLIENT),))
    assert machine.state.chunks.slot_of(chunk)
