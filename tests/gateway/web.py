"""What the tests of the gateway say over HTTP, in short."""

import asyncio
import io
from typing import Any, NamedTuple

import aiohttp

PROBLEM = "application/problem+json"


class Reply(NamedTuple):
    status: int
    headers: Any
    body: bytes
    json: Any


async def ask(http: aiohttp.ClientSession, method: str, address: str, **options: Any) -> Reply:
    """One request; its whole answer. An error must be a problem document."""
    if isinstance(options.get("data"), bytes):
        options["data"] = io.BytesIO(options["data"])  # aiohttp complains of large bytes as they are
    async with http.request(method, address, **options) as response:
        body = await response.read()
        kind = response.content_type
        value = await response.json(content_type=None) if kind.endswith("json") and body else None
        if response.status >= 400:
            assert kind == PROBLEM, (response.status, kind, body)
            assert method == "HEAD" or value["status"] == response.status
        return Reply(response.status, response.headers, body, value)


async def put(http: aiohttp.ClientSession, path: str, data: Any = b"content", **headers: str) -> Reply:
    """Uploads; it must work."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = await ask(http, "PUT", f"/v1/files{path}", data=data, headers=named)
    assert reply.status in (200, 201), reply
    return reply


async def until_open(http: aiohttp.ClientSession, path: str) -> None:
    """Waits until somebody has the file open for writing."""
    async with asyncio.timeout(30):
        while not (await ask(http, "GET", f"/v1/attributes{path}")).json["open_writers"]:  # noqa: ASYNC110 - a server
            await asyncio.sleep(0.02)


async def raw(base: str, request: bytes, half_close: bool = False, seconds: float = 30.0) -> bytes:
    """What a gateway answers to these bytes, until it closes the connection."""
    host, _, port = base.rpartition("/")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        await writer.drain()
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(seconds):
            return await reader.read()
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
