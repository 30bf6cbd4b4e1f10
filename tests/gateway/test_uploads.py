"""Uploads that are resumed: by another request, by another gateway, after the death of one."""

import asyncio
import base64
import os
import signal
import time

import aiohttp
import pytest
from blake3 import blake3

from gfscluster import processes
from gfsgateway.rest import uploads
from tests.cluster.harness import Cluster
from tests.gateway.web import Reply, ask, put

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

MIB = 1024 * 1024


async def begin(http: aiohttp.ClientSession, path: str, query: str = "", **headers: str) -> str:
    made = await ask(http, "POST", f"/v1/uploads?path={path}{query}", headers=headers)
    assert (made.status, made.headers["Upload-Offset"]) == (201, "0")
    return made.headers["Location"]


async def send(http: aiohttp.ClientSession, address: str, offset: int, data: bytes, **headers: str) -> Reply:
    return await ask(http, "PATCH", address, data=data, headers={"Upload-Offset": str(offset), **headers})


async def until_ready(served: Cluster, number: int) -> None:
    """Returns when a gateway that was started again answers."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{served.gateway_url(number)}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def offset_of(http: aiohttp.ClientSession, address: str) -> int:
    return int((await ask(http, "HEAD", address)).headers["Upload-Offset"])


async def test_in_parts_through_two_gateways(http: aiohttp.ClientSession, place: str, served: Cluster) -> None:
    data = os.urandom(2 * MIB + 5)
    address = await begin(http, f"{place}/file", f"&length={len(data)}&mode=600", **{"Content-Type": "text/x-test"})
    assert (await send(http, address, 0, data[:MIB])).json["offset"] == MIB
    assert (await ask(http, "GET", f"/v1/files{place}/file")).status == 404
    early = await ask(http, "POST", f"{address}/complete")
    assert (early.status, early.headers["Upload-Offset"]) == (409, str(MIB))
    await until_ready(served, 2)
    async with aiohttp.ClientSession(served.gateway_url(2)) as other:
        assert await offset_of(other, address) == MIB
        wrong = await send(other, address, 5, b"x")
        assert (wrong.status, wrong.headers["Upload-Offset"]) == (409, str(MIB))
        assert (await send(other, address, MIB, data[MIB:])).json["offset"] == len(data)
        assert (await send(other, address, len(data), b"more")).status == 413
        done = await ask(other, "POST", f"{address}/complete")
    assert (done.status, done.json["size"], done.json["mode"]) == (201, len(data), "0600")
    got = await ask(http, "GET", f"/v1/files{place}/file")
    assert (got.body, got.headers["Content-Type"]) == (data, "text/x-test")
    assert got.headers["ETag"] == done.headers["ETag"]
    assert (await ask(http, "HEAD", address)).status == 404


async def begin_to_send(
    base: str, address: str, data: bytes, size: int, more: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends the head of a request for ``size`` bytes, with ``more`` headers, and the first of them."""
    host, port = base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"PATCH {address} HTTP/1.1\r\nHost: localhost\r\nUpload-Offset: 0\r\nContent-Length: {size}\r\n{more}\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return reader, writer


async def wait_for_offset(http: aiohttp.ClientSession, address: str) -> int:
    """What has come, as soon as it is anything."""
    async with asyncio.timeout(30):
        while not (offset := await offset_of(http, address)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return offset


async def trickle_until_some_is_kept(
    http: aiohttp.ClientSession, address: str, writer: asyncio.StreamWriter, data: bytes
) -> int:
    """Sends ``data`` slowly; how much of it was sent when something of the whole body had been recorded."""
    async with asyncio.timeout(60):
        for start in range(0, len(data) - 1, 1024):
            writer.write(data[start : start + 1024])
            await writer.drain()
            if await offset_of(http, address):
                return start + 1024
            await asyncio.sleep(0.05)
    raise AssertionError("all was sent, and nothing recorded")


async def test_what_came_before_a_gateway_died_is_kept(
    place: str, http: aiohttp.ClientSession, served: Cluster
) -> None:
    data = os.urandom(6 * MIB)
    address = await begin(http, f"{place}/file")
    await until_ready(served, 2)
    _, writer = await begin_to_send(served.gateway_url(2), address, data[: 4 * MIB], len(data))
    try:
        await trickle_until_some_is_kept(http, address, writer, data[4 * MIB :])
        processes.kill(served.record("gateway-2"))
        kept = await offset_of(http, address)
        assert 0 < kept < 6 * MIB
        assert (await send(http, address, kept, data[kept:])).status == 200, "at once, while the dead one is remembered"
        assert (await ask(http, "POST", f"{address}/complete")).status == 201
    finally:
        served.restart("gateway-2")
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert (await ask(http, "GET", f"/v1/files{place}/file")).body == data


async def test_what_a_client_sent_before_it_left_is_kept(
    http: aiohttp.ClientSession, place: str, served: Cluster
) -> None:
    data = os.urandom(3 * MIB)
    address = await begin(http, f"{place}/file")
    _, writer = await begin_to_send(served.gateway_url(), address, data[: 2 * MIB], len(data))
    writer.close()
    await writer.wait_closed()
    kept = await wait_for_offset(http, address)
    async with asyncio.timeout(30):
        while (reply := await send(http, address, kept, data[kept:])).status == 409:
            kept = int(reply.headers["Upload-Offset"])  # the rest of what came was still being written
    assert reply.json["offset"] == len(data)
    assert (await ask(http, "POST", f"{address}/complete")).status == 201
    assert (await ask(http, "GET", f"/v1/files{place}/file")).body == data


@pytest.mark.parametrize("goes_on", ["completed", "gone on"])
async def test_a_request_that_was_given_up_for_another_one_changes_nothing_any_more(
    http: aiohttp.ClientSession, place: str, served: Cluster, goes_on: str
) -> None:
    """Its connection seemed dead. When the rest of its body comes after all, it must not be cut for a wrong digest."""
    data = os.urandom(3 * MIB)
    address = await begin(http, f"{place}/file")
    wrong = f"Content-Digest: blake3=:{base64.b64encode(bytes(32)).decode()}:\r\n"
    reader, writer = await begin_to_send(served.gateway_url(), address, data[: 2 * MIB], len(data), wrong)
    try:
        sent = 2 * MIB + await trickle_until_some_is_kept(http, address, writer, data[2 * MIB :])
        async with asyncio.timeout(30):
            while (reply := await send(http, address, await offset_of(http, address), b"the end")).status == 409:
                pass
        whole = reply.json["offset"]
        if goes_on == "completed":
            assert (await ask(http, "POST", f"{address}/complete")).status == 201
        writer.write(data[sent:])
        answer = (await asyncio.wait_for(reader.read(), 30)).decode()
        assert answer.startswith("HTTP/1.1 409 ")
        assert ("completed or given up" if goes_on == "completed" else "another request") in answer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    if goes_on == "completed":
        body = (await ask(http, "GET", f"/v1/files{place}/file")).body
        assert len(body) >= whole and body[: 2 * MIB] == data[: 2 * MIB]
    else:
        assert await offset_of(http, address) >= whole


async def test_conditions_and_digests(http: aiohttp.ClientSession, place: str) -> None:
    digest = base64.b64encode(blake3(b"new").digest()).decode()
    address = await begin(http, f"{place}/file")
    bad = await send(http, address, 0, b"bad", **{"Content-Digest": f"blake3=:{digest}:"})
    assert bad.status == 400 and await offset_of(http, address) == 0
    assert (await send(http, address, 0, b"new", **{"Content-Digest": f"blake3=:{digest}:"})).status == 200
    old = await put(http, f"{place}/file", b"old")
    assert (await ask(http, "POST", f"{address}/complete", headers={"If-None-Match": "*"})).status == 412
    wrong = base64.b64encode(bytes(32)).decode()
    refused = await ask(http, "POST", f"{address}/complete", headers={"Repr-Digest": f"blake3=:{wrong}:"})
    assert refused.status == 400
    headers = {"If-Match": old.headers["ETag"], "Repr-Digest": f"blake3=:{digest}:"}
    assert (await ask(http, "POST", f"{address}/complete", headers=headers)).status == 200
    assert (await ask(http, "GET", f"/v1/files{place}/file")).body == b"new"


async def test_given_up_and_wrong(http: aiohttp.ClientSession, place: str, served: Cluster) -> None:
    address = await begin(http, f"{place}/file")
    assert (await ask(http, "PATCH", address, data=b"x")).status == 428
    assert (await ask(http, "DELETE", address)).status == 204
    assert (await ask(http, "DELETE", address)).status == 404
    assert (await ask(http, "HEAD", "/v1/uploads/..%2f..")).status == 404
    assert (await ask(http, "POST", "/v1/uploads?path=relative")).status == 400
    assert (await ask(http, "POST", f"/v1/uploads?path={place}/../x")).status == 400
    assert (await ask(http, "POST", f"/v1/uploads?path={place}/no/file")).status == 404
    assert (await ask(http, "POST", f"/v1/uploads?path={place}")).status == 409


async def test_abandoned_uploads_are_removed(http: aiohttp.ClientSession, place: str, served: Cluster) -> None:
    old, new = await begin(http, f"{place}/old"), await begin(http, f"{place}/new")
    root = await served.client(user=uploads.ROOT)
    try:
        await uploads.expire(root, (await root.stat(f"/.gfs/uploads/{old[-32:]}")).changed_ns + 1)
    finally:
        await root.close()
    assert (await ask(http, "HEAD", old)).status == 404
    assert (await ask(http, "DELETE", new)).status == 204


async def test_what_is_no_upload_keeps_none_from_being_removed(
    http: aiohttp.ClientSession, place: str, served: Cluster
) -> None:
    """Everybody may write into the directory of uploads."""
    old = await begin(http, f"{place}/old")
    async with await served.client(user=(4711, 4711)) as stranger:
        await stranger.mkdir("/.gfs/uploads/0")
    async with await served.client(user=uploads.ROOT) as root:
        await uploads.expire(root, (await root.stat("/.gfs/uploads/0")).changed_ns + 1)
        assert (await ask(http, "HEAD", old)).status == 404
        await root.rmdir("/.gfs/uploads/0")


async def test_a_gateway_that_stops_lets_requests_finish(served: Cluster, place: str) -> None:
    await until_ready(served, 2)
    host, port = served.gateway_url(2).removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    record = served.record("gateway-2")
    try:
        async with asyncio.timeout(60):
            head = f"PUT /v1/files{place}/file HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n"
            writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert processes.send(record, signal.SIGTERM)
            while await _is_accepting(served.gateway_url(2)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
            writer.write(b"onetwo")
            assert b" 201 " in await reader.readline()
        assert await asyncio.to_thread(processes.wait_until_ended, record, time.monotonic() + 60)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        processes.kill(record)
        served.restart("gateway-2")


async def _is_accepting(base: str) -> bool:
    host, port = base.removeprefix("http://").split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return True
