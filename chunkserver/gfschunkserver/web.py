"""HTTP on the chunk server's port: for curl, browsers and monitoring. Bulk traffic has a leaner path beside it."""

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from gfschunkserver.engine import Engine
from gfschunkserver.measures import METRICS
from gfschunkserver.replica import Replica
from gfsprotocol import metrics
from gfsprotocol.checksums import BLOCK_BYTES, block_count
from gfsprotocol.errors import (
    ChunkCorrupt,
    ChunkNotFound,
    ConnectionLost,
    GfsError,
    InvalidArgument,
    StaleReplica,
    TokenRefused,
)

TOKEN_HEADER: Final = "X-Gfs-Token"  # noqa: S105 - a name
VERSION_HEADER: Final = "X-Gfs-Version"
HTTP_READS_MAX: Final = 16


class _FileRange(web.StreamResponse):
    """A range of a chunk file, by sendfile."""

    def __init__(self, status: int, headers: dict[str, str], count: int) -> None:
        super().__init__(status=status, headers=headers)
        self.content_type = "application/octet-stream"
        self.content_length = count

    async def send(self, request: web.Request, descriptor: int, offset: int) -> None:
        """Takes its own copy of the descriptor, so that the file may be closed meanwhile."""
        await self.prepare(request)
        count = self.content_length
        if count and request.method != hdrs.METH_HEAD:
            transport = request.transport
            if transport is None:
                raise ConnectionLost("the client has gone")
            with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
                await asyncio.get_running_loop().sendfile(transport, file, offset, count)
        await self.write_eof()


async def _get_chunk(engine: Engine, request: web.Request) -> web.StreamResponse:
    chunk, version = _chunk_and_version(request)
    blob = request.query.get("token", "") or request.headers.get(TOKEN_HEADER, "")
    try:
        token = bytes.fromhex(blob)
    except ValueError as error:
        raise TokenRefused("the token is not hexadecimal") from error
    engine.access.check_read(token, chunk)
    replica = engine.store.get(chunk)
    if replica.version < version:
        raise StaleReplica(f"chunk {chunk:x} has version {replica.version} here, not {version}")
    try:
        return await _send_range(engine, replica, request)
    except ChunkCorrupt as error:
        await asyncio.to_thread(engine.store.condemn, replica, error.message)
        raise


async def _send_range(engine: Engine, replica: Replica, request: web.Request) -> web.StreamResponse:
    length = replica.length
    try:
        wanted = request.http_range
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    start, stop, _ = wanted.indices(length)
    is_range = hdrs.RANGE in request.headers
    headers = {hdrs.ACCEPT_RANGES: "bytes", VERSION_HEADER: str(replica.version)}
    if is_range and start >= stop:
        return web.Response(status=416, headers={hdrs.CONTENT_RANGE: f"bytes */{length}"})
    if is_range:
        headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{stop - 1}/{length}"
    await asyncio.to_thread(_verify_range, replica, start, stop)
    response = _FileRange(206 if is_range else 200, headers, stop - start)
    with replica.pinned() as file:
        await response.send(request, file.descriptor(), replica.data_offset(start))
    engine.measures.read_bytes.add(count=stop - start)
    return response


def _verify_range(replica: Replica, start: int, stop: int) -> None:
    """HTTP has no digests that a client would check: what is sent is verified first."""
    for block in range(start // BLOCK_BYTES, block_count(stop)):
        replica.verify_block(block)


def _chunk_and_version(request: web.Request) -> tuple[int, int]:
    try:
        return int(request.match_info["chunk"], 16), int(request.query.get("version", "0"))
    except ValueError as error:
        raise InvalidArgument("a chunk is named in hexadecimal, its version in decimal") from error


def make_app(engine: Engine, status: Callable[[], dict[str, Any]], read: metrics.Read) -> web.Application:
    """The HTTP side of a chunk server; ``read`` gives the values of its metrics."""
    registry = metrics.registry(METRICS, read)
    reads = asyncio.Semaphore(HTTP_READS_MAX)

    async def get_chunk(request: web.Request) -> web.StreamResponse:
        engine.measures.requests.add("HTTP")
        try:
            async with reads:
                return await _get_chunk(engine, request)
        except GfsError as error:
            engine.measures.failed_requests.add("HTTP", type(error).__name__)
            http_status = 404 if isinstance(error, ChunkNotFound) else error.http_status
            return web.json_response({"error": error.code, "message": error.message}, status=http_status)

    async def get_status(request: web.Request) -> web.Response:  # noqa: ARG001
        return web.Response(body=msgspec.json.encode(status()), content_type="application/json")

    async def get_health(request: web.Request) -> web.Response:  # noqa: ARG001
        working = any(not disk.failed for disk in engine.store.disks)
        return web.Response(text="ok\n" if working else "no disk works\n", status=200 if working else 503)

    async def get_metrics(request: web.Request) -> web.Response:  # noqa: ARG001
        return await asyncio.to_thread(metrics.page, registry)  # the journals' locks may be held during an fsync

    app = web.Application(client_max_size=64 * 1024)
    app.router.add_get("/chunks/{chunk}", get_chunk)
    app.router.add_get("/status", get_status)
    app.router.add_get("/healthz", get_health)
    app.router.add_get(metrics.METRICS_PATH, get_metrics)
    return app
