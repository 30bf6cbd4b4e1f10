"""Many files located by one question: what each is and where its first chunk is, or that it is not for the caller."""

import pytest

from gfsprotocol import messages as msg
from gfsprotocol.errors import InvalidArgument
from gfsprotocol.ids import LOCATED_FILES_MAX
from tests.client.smallcluster import running


async def test_files_come_in_order_and_what_is_none_of_the_callers_files_is_left_out() -> None:
    async with running() as cluster:
        files = cluster.files
        await files.mkdir("/d")
        for name, data in (("a", b"first"), ("b", b""), ("c", b"third")):
            await files.write_bytes(f"/{name}", data)
        await files.chmod("/c", 0o600)
        inodes = {name: (await files.stat(f"/{name}")).inode for name in "abcd"}
        question = msg.LocateFiles((inodes["c"], 999, inodes["d"], inodes["b"], inodes["a"]))
        masters = files._core.masters
        reply = await masters.expect(question, msg.FileLocations)
        assert [file.attributes.inode for file in reply.files] == [inodes["c"], inodes["b"], inodes["a"]]
        assert [file.chunk and file.chunk.length for file in reply.files] == [5, None, 5]
        assert {server.server for server in reply.servers} == {1, 2, 3}
        located = await masters.expect(msg.Locate(b"a", 1), msg.Locations)
        chunk = reply.files[2].chunk
        assert chunk is not None
        assert (chunk.chunk, chunk.version, chunk.servers) == (
            located.chunks[0].chunk,
            located.chunks[0].version,
            located.chunks[0].servers,
        )
        others = await masters.expect(question, msg.FileLocations, user=(1000, 1000))
        assert [file.attributes.inode for file in others.files] == [inodes["b"], inodes["a"]]


async def test_the_number_of_files_is_bounded() -> None:
    async with running() as cluster:
        masters = cluster.files._core.masters
        assert await masters.expect(msg.LocateFiles((2,) * LOCATED_FILES_MAX), msg.FileLocations)
        with pytest.raises(InvalidArgument):
            await masters.expect(msg.LocateFiles((2,) * (LOCATED_FILES_MAX + 1)), msg.FileLocations)
