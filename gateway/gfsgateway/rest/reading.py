"""GET and HEAD of a file: whole, in ranges, or not at all because the client has it already."""

import secrets
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final
from urllib.parse import quote_from_bytes

from aiohttp import hdrs, web
from pydantic import Field

from gfsclient.files import File
from gfsclient.filesystem import FileSystem
from gfsgateway.call import Call
from gfsgateway.problems import HttpRefusal
from gfsgateway.rest import conditions, digests, ranges, shapes
from gfsgateway.rest.conditions import Conditions
from gfsgateway.rest.endpoint import CONTENT, Endpoint, Query
from gfsgateway.rest.ranges import Range
from gfsgateway.rest.types import Shown
from gfsgateway.transfer import PIECE_BYTES
from gfsprotocol.errors import AvailabilityError, GfsError
from gfsprotocol.messages import Attributes


class ReadQuery(Query):
    """How a file is to come."""

    download: bool = Field(False, description="As something to save, not to show (Content-Disposition: attachment).")


async def read(call: Call) -> web.StreamResponse:
    """The content of a file, or, for HEAD, all but that."""
    query = call.query(ReadQuery)
    path = call.path()
    with call.gateway.transfers.share() as width:
        return await _read(call, path, query, await call.files(width))


async def _read(call: Call, path: bytes, query: ReadQuery, files: FileSystem) -> web.StreamResponse:
    async with await files.open(path) as file:
        shown = await call.gateway.types.of(file, path)
        headers = _headers(path, file.attributes, shown, query.download)
        if Conditions(call.request).is_known(file.attributes):
            return web.Response(status=304, headers=headers)
        algorithm = digests.wanted(call.request.headers)
        if algorithm is not None:
            headers |= digests.response_headers(algorithm, await _digest(call, file, algorithm))
        return await _respond(call, file, headers)


def _headers(path: bytes, found: Attributes, shown: Shown, download: bool) -> dict[str, str]:
    headers = {
        hdrs.CONTENT_TYPE: shown.type,
        hdrs.ETAG: shapes.etag(found),
        hdrs.LAST_MODIFIED: shapes.last_modified(found),
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.CACHE_CONTROL: "no-cache",
        # Files are whatever people have uploaded: none of them may act as a page of this address.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
    }
    disposition = _as_attachment(path, shown.disposition) if download else shown.disposition
    if disposition:
        headers[hdrs.CONTENT_DISPOSITION] = disposition
    return headers


def _as_attachment(path: bytes, disposition: str) -> str:
    """With the name that was kept, if any was; else with the file's own."""
    kept = disposition.partition(";")[2].strip()
    own = quote_from_bytes(path.rpartition(b"/")[2], safe="")
    return f"attachment; {kept}" if kept else f"attachment; filename*=UTF-8''{own}"


async def _respond(call: Call, file: File, headers: dict[str, str]) -> web.StreamResponse:
    size = file.attributes.size
    whole = Range(0, size - 1)
    header = call.request.headers.get(hdrs.RANGE)
    wanted = None
    # An empty file comes whole: it has no ranges, and who asks for the first bytes of something is not wrong.
    if header is not None and size and not call.is_head and conditions.applies(call.request, file.attributes):
        wanted = ranges.parse(header, size)
    if wanted is None:
        return await send(call, file, 200, headers, [(b"", whole)])
    if not wanted:
        refusal = {hdrs.CONTENT_RANGE: f"bytes */{size}"}
        raise HttpRefusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "the file has no such ranges", refusal)
    if len(wanted) == 1:
        headers[hdrs.CONTENT_RANGE] = wanted[0].content_range(size)
        return await send(call, file, 206, headers, [(b"", wanted[0])])
    boundary = secrets.token_hex(16)
    parts = _parts(boundary, headers[hdrs.CONTENT_TYPE], wanted, size)
    headers[hdrs.CONTENT_TYPE] = f"multipart/byteranges; boundary={boundary}"
    return await send(call, file, 206, headers, parts, f"\r\n--{boundary}--\r\n".encode())


def _parts(boundary: str, mime: str, wanted: list[Range], size: int) -> list[tuple[bytes, Range]]:
    """Each range with what goes before it."""
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {mime}\r\nContent-Range: {each.content_range(size)}\r\n\r\n".encode()
        for each in wanted
    ]
    return list(zip(heads, wanted, strict=True))


async def send(
    call: Call, file: File, status: int, headers: dict[str, str], parts: list[tuple[bytes, Range]], tail: bytes = b""
) -> web.StreamResponse:
    """A small body is read before anything is said, so that an error has its status; a large one is streamed."""
    count = sum(len(head) + each.count for head, each in parts) + len(tail)
    if call.is_head:
        return web.Response(status=status, headers=headers | {hdrs.CONTENT_LENGTH: str(count)})
    if count <= PIECE_BYTES:
        bodies = [head + await _exactly(file, each) for head, each in parts]
        return web.Response(status=status, headers=headers, body=b"".join(bodies) + tail)
    async with call.gateway.transfers.turn():
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = count
        pieces = _pieces(file, parts)
        first = await anext(pieces)
        await response.prepare(call.request)
        sender = call.sender(response)
        await sender.write(first)
        async for piece in pieces:
            await sender.write(piece)
        if tail:
            await sender.write(tail)
        return response


async def _pieces(file: File, parts: list[tuple[bytes, Range]]) -> AsyncIterator[bytes]:
    for head, each in parts:
        if head:
            yield head
        await file.seek(each.first)
        left = each.count
        while left:
            piece = await file.read(min(PIECE_BYTES, left))
            if not piece:
                raise _cut()
            yield piece
            left -= len(piece)


async def _exactly(file: File, wanted: Range) -> bytes:
    if not wanted.count:
        return b""
    data = await file.read_once(wanted.first, wanted.count)
    if len(data) != wanted.count:
        raise _cut()
    return data


def _cut() -> GfsError:
    return AvailabilityError("the file was cut while it was read")


async def _digest(call: Call, file: File, algorithm: str) -> bytes:
    """Of the whole content, read before it is sent: the header comes first."""
    hasher = digests.ALGORITHMS[algorithm]()
    async with call.gateway.transfers.turn():
        await file.seek(0)
        while piece := await file.read(PIECE_BYTES):
            hasher.update(piece)
    return hasher.digest()


_REQUEST_HEADERS: Final = (
    hdrs.IF_MATCH,
    hdrs.IF_NONE_MATCH,
    hdrs.IF_MODIFIED_SINCE,
    hdrs.IF_UNMODIFIED_SINCE,
    "Want-Repr-Digest",
)
_RESPONSE_HEADERS: Final = (
    hdrs.ETAG,
    hdrs.LAST_MODIFIED,
    hdrs.CONTENT_TYPE,
    hdrs.CONTENT_DISPOSITION,
    hdrs.ACCEPT_RANGES,
)

ENDPOINTS: Final = [
    Endpoint(
        hdrs.METH_GET,
        "/v1/files/{path}",
        read,
        "The content of a file, or some ranges of it.",
        ReadQuery,
        answers={200: CONTENT, 206: CONTENT, 304: None},
        request_headers=(hdrs.RANGE, hdrs.IF_RANGE, *_REQUEST_HEADERS),
        response_headers=_RESPONSE_HEADERS,
    ),
    Endpoint(
        hdrs.METH_HEAD,
        "/v1/files/{path}",
        read,
        "What GET would say of a file, without its content.",
        ReadQuery,
        answers={200: None, 304: None},
        request_headers=_REQUEST_HEADERS,
        response_headers=_RESPONSE_HEADERS,
    ),
]
