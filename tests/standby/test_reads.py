"""Reads from a standby: as new as the reader needs, and never older than what it has seen."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gfsclient.config import ClientConfig
from gfsclient.filesystem import FileSystem
from gfsprotocol import messages as msg
from gfsprotocol.errors import NotFound, NotLeader
from gfsprotocol.tokens import client_key
from tests.master.leading import until
from tests.standby.nodes import Nodes, nodes

pytestmark = [pytest.mark.slow]


async def connect(cluster: Nodes, read_from: str) -> FileSystem:
    masters = [f"127.0.0.1:{port}" for port in cluster.ports]
    key = client_key(cluster.secret).hex()
    config = ClientConfig(masters=masters, key=key, read_from=read_from)  # type: ignore[arg-type]
    return await FileSystem.connect(masters, key, config=config)


async def started(cluster: Nodes) -> None:
    cluster.start(0, genesis=True)
    await cluster.until_leading(0)
    cluster.start(1)
    async with asyncio.timeout(10):
        while (await cluster.status(1)).sequence == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def asking(tmp_path: Path, read_from: str) -> AsyncIterator[tuple[Nodes, FileSystem]]:
    """A leader and a standby, and a client of theirs."""
    async with nodes(tmp_path) as cluster:
        await started(cluster)
        files = await connect(cluster, read_from)
        try:
            yield cluster, files
        finally:
            await files.close()


async def test_a_standby_answers_reads_and_never_from_before_ones_own_last_write(tmp_path: Path) -> None:
    async with asking(tmp_path, "standby") as (cluster, files):
        await files.mkdir("/first")
        await until(lambda: files._masters._links.standby() is not None)
        standby = cluster.running[1][0].node
        answered: list[type] = []
        queries = standby._standby._current_queries()
        answer = queries.answer

        def noted(body: msg.RequestBody, user: tuple[int, ...]) -> msg.ReplyBody:
            answered.append(type(body))
            return answer(body, user)

        queries.answer = noted  # type: ignore[method-assign]
        for number in range(50):
            await files.mkdir(f"/d{number}")
            assert stat.S_ISDIR((await files.stat(f"/d{number}")).mode)
        assert len(await files.listdir("/")) == 51
        with pytest.raises(NotFound):
            await files.stat("/missing")
        assert answered.count(msg.Stat) == 51
        assert answered.count(msg.List) >= 1


async def test_a_read_that_the_standby_cannot_answer_in_time_goes_to_the_leader(tmp_path: Path) -> None:
    async with asking(tmp_path, "standby") as (_, files):
        await files.mkdir("/d")
        await until(lambda: files._masters._links.standby() is not None)
        files._masters.sequence += 1000  # as if another leader had answered from there
        standby = files._masters._links.standby()
        assert standby is not None
        response = await standby.submit(msg.Stat(b"/d"), 5, (), None, files._masters.sequence, at_standby=True)
        assert isinstance(response.body, msg.ErrorReply)
        assert response.body.code == NotLeader.code
        assert stat.S_ISDIR((await files.stat("/d")).mode)


async def test_a_read_is_answered_by_the_leader_while_there_is_no_standby(tmp_path: Path) -> None:
    async with nodes(tmp_path) as cluster:
        cluster.start(0, genesis=True)
        await cluster.until_leading(0)
        files = await connect(cluster, "standby")
        try:
            await files.mkdir("/d")
            assert await files.listdir("/") == ["d"]
        finally:
            await files.close()


async def test_a_standby_keeps_a_confined_path_where_it_belongs(tmp_path: Path) -> None:
    async with asking(tmp_path, "leader") as (cluster, files):
        await files.mkdir("/own")
        await files.symlink("/", "/own/out")
        sequence = files._masters.sequence
        async with cluster.client(1) as peer:
            for confined, kind in (((b"/own",), msg.ErrorReply), ((), msg.AttributesReply)):
                question = msg.Stat(b"/own/out")
                response = await peer.submit(question, 5, (), None, sequence, at_standby=True, confined=confined)
                assert isinstance(response.body, kind)


async def test_a_client_that_asks_for_the_leader_is_not_answered_by_a_standby(tmp_path: Path) -> None:
    async with nodes(tmp_path) as cluster:
        await started(cluster)
        async with cluster.client(1) as peer:
            with pytest.raises(NotLeader):
                await peer.call(msg.Stat(b"/"), 5)
            response = await peer.submit(msg.Stat(b"/"), 5, at_standby=True)
            assert isinstance(response.body, msg.AttributesReply)
            response = await peer.submit(msg.Mkdir(b"/x"), 5, (), msg.Call(1, 1), at_standby=True)
            assert isinstance(response.body, msg.ErrorReply)
            assert response.body.code == NotLeader.code
