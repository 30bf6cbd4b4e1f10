"""Whatever comes over the wire gets the right status and a problem document, and hurts nobody else."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from tests.cluster.harness import Cluster
from tests.gateway.web import ask, put, raw

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OwnGateway = Callable[..., Awaitable[str]]


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, "Host: localhost", "Connection: close", *headers, "", ""]).encode("latin-1") + body


def parsed(answer: bytes) -> tuple[int, dict[str, object]]:
    """Status and problem document."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in [line.partition(b";")[0] for line in lines], answer
    return int(head.split()[1]), json.loads(body)


RENAME = "POST /v1/rename HTTP/1.1"
JSON = "Content-Type: application/json"
BAD = {
    "traversal": (request("GET /v1/files/../../etc/passwd HTTP/1.1"), 400),
    "encoded traversal": (request("GET /v1/files/%2e%2e/%2e%2e/etc HTTP/1.1"), 400),
    "mixed traversal": (request("DELETE /v1/directories/a/.%2E/b HTTP/1.1"), 400),
    "double encoding is a name": (request("GET /v1/files/%252e%252e%252fetc HTTP/1.1"), 404),
    "encoded slash": (request("GET /v1/files/a%2fb HTTP/1.1"), 400),
    "encoded NUL": (request("GET /v1/files/a%00b HTTP/1.1"), 400),
    "half an escape": (request("GET /v1/files/a%2 HTTP/1.1"), 400),
    "CRLF is a name": (request("GET /v1/files/a%0d%0aX-Evil:%201 HTTP/1.1"), 404),
    "CR in the target": (request("GET /v1/files/a\rb HTTP/1.1"), 400),
    "NUL in the target": (request("GET /v1/files/a\0b HTTP/1.1"), 400),
    "NUL in a header": (request("GET /healthz HTTP/1.1", "X: a\0b"), 400),
    "folded header": (request("GET /healthz HTTP/1.1", "X: a", " b"), 400),
    "space before the colon": (request("GET /healthz HTTP/1.1", "X : a"), 400),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "version": (request("GET /healthz HTTP/9.9"), 400),
    "two lengths": (request("PUT /v1/files/x HTTP/1.1", "Content-Length: 1", "Content-Length: 2", body=b"xx"), 400),
    "length and chunks": (
        request("PUT /v1/files/x HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400,
    ),
    "negative length": (request("PUT /v1/files/x HTTP/1.1", "Content-Length: -1"), 400),
    "bad chunk": (request("PUT /v1/files/x HTTP/1.1", "Transfer-Encoding: chunked", body=b"zz\r\nhello\r\n"), 400),
    "long line": (request(f"GET /v1/files/{'a' * 20_000} HTTP/1.1"), 414),
    "long header": (request("GET /healthz HTTP/1.1", f"X: {'a' * 20_000}"), 431),
    "many headers": (request("GET /healthz HTTP/1.1", *(f"X{n}: a" for n in range(1000))), 431),
    "long name": (request(f"GET /v1/files/{'a' * 300} HTTP/1.1"), 400),
    "long path": (request(f"GET /v1/files/{'a/' * 2500}b HTTP/1.1"), 400),
    "unknown address": (request("GET /v2/files/x HTTP/1.1"), 404),
    "unknown method": (request("BREW /v1/files/x HTTP/1.1"), 400),
    "method not here": (request("PUT /v1/status HTTP/1.1"), 405),
    "CONNECT": (request("CONNECT other:443 HTTP/1.1"), 404),
    "unknown parameter": (request("GET /v1/files/x?colour=red HTTP/1.1"), 400),
    "parameter twice": (request("GET /v1/directories/?limit=1&limit=2 HTTP/1.1"), 400),
    "parameter out of range": (request("GET /v1/directories/?limit=100000 HTTP/1.1"), 400),
    "no JSON": (request(RENAME, JSON, "Content-Length: 1", body=b"{"), 400),
    "deep JSON": (request(RENAME, JSON, "Content-Length: 100000", body=b"[" * 100_000), 400),
    "JSON of another kind": (request(RENAME, "Content-Type: text/xml", "Content-Length: 1", body=b"<"), 415),
    "large JSON": (request(RENAME, JSON, "Content-Length: 99999999"), 413),
    "compressed": (request("PUT /v1/files/x HTTP/1.1", "Content-Encoding: gzip", "Content-Length: 1", body=b"x"), 415),
    "compressed on the way": (
        request("PUT /v1/files/x HTTP/1.1", "Transfer-Encoding: gzip, chunked", body=b"1\r\nx\r\n0\r\n\r\n"), 501,
    ),
    "a part": (request("PUT /v1/files/x HTTP/1.1", "Content-Range: bytes 0-0/2", "Content-Length: 1", body=b"x"), 400),
    "no type": (request("PUT /v1/files/x HTTP/1.1", "Content-Type: a", "Content-Length: 1", body=b"x"), 400),
    "no disposition": (
        request("PUT /v1/files/x HTTP/1.1", "Content-Disposition: ; a", "Content-Length: 1", body=b"x"), 400,
    ),
    "expectation": (request("PUT /v1/files/x HTTP/1.1", "Expect: tea", "Content-Length: 1", body=b"x"), 417),
    "digest": (request("PUT /v1/files/x HTTP/1.1", "Digest: rubbish", "Content-Length: 1", body=b"x"), 400),
    "a directory as a file": (request("GET /v1/files/ HTTP/1.1"), 409),
    "the root goes": (request("DELETE /v1/directories/?recursive=true HTTP/1.1"), 400),
    "another host": (b"GET /v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 403),
    "another origin": (request(RENAME, JSON, "Origin: http://evil.example", "Content-Length: 0"), 403),
    "another site": (request("GET /v1/status HTTP/1.1", "Sec-Fetch-Site: cross-site"), 403),
    "basic authentication": (request("GET /v1/status HTTP/1.1", "Authorization: Basic YTpi"), 401),
    "a wrong token": (request("GET /v1/status HTTP/1.1", "Authorization: Bearer gfs1.e30.e30"), 401),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests(served: Cluster, name: str) -> None:
    sent, expected = BAD[name]
    status, problem = parsed(await raw(served.gateway_url(), sent))
    assert (status, problem["status"]) == (expected, expected), problem
    assert problem["detail"] and str(problem["detail"]).isprintable()


async def test_nothing_of_a_body_that_broke_off_is_seen(
    http: aiohttp.ClientSession, served: Cluster, place: str
) -> None:
    sent = request(f"PUT /v1/files{place}/file HTTP/1.1", "Content-Length: 1000000", body=bytes(300_000))
    status, _ = parsed(await raw(served.gateway_url(), sent, half_close=True))
    assert status == 400
    sent = request(f"PUT /v1/files{place}/file HTTP/1.1", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n")
    status, _ = parsed(await raw(served.gateway_url(), sent, half_close=True))
    assert status == 400
    assert (await ask(http, "GET", f"/v1/directories{place}")).json["entries"] == []


async def test_who_closes_its_side_still_hears_the_answer(
    http: aiohttp.ClientSession, served: Cluster, place: str
) -> None:
    await put(http, f"{place}/file", bytes(2_000_000))
    answer = await raw(served.gateway_url(), request(f"GET /v1/files{place}/file HTTP/1.1"), half_close=True)
    assert answer.startswith(b"HTTP/1.1 200 ") and len(answer.partition(b"\r\n\r\n")[2]) == 2_000_000


async def connected(base: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = base.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port), limit=1024)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_who_sends_slowly_is_let_go(own_gateway: OwnGateway, http: aiohttp.ClientSession, place: str) -> None:
    base = await own_gateway(stall_seconds=0.3, header_seconds=0.3)
    assert await raw(base, b"GET /healthz HT") == b""
    sent = request(f"PUT /v1/files{place}/file HTTP/1.1", "Content-Length: 10", body=b"x")
    status, _ = parsed(await raw(base, sent))
    assert status == 408
    assert (await ask(http, "GET", f"/v1/directories{place}")).json["entries"] == []


async def test_who_reads_slowly_is_let_go(own_gateway: OwnGateway, http: aiohttp.ClientSession, place: str) -> None:
    base = await own_gateway(stall_seconds=0.3)
    await put(http, f"{place}/large", bytes(32 * 1024 * 1024))
    reader, writer = await connected(base)
    try:
        writer.write(request(f"GET /v1/files{place}/large HTTP/1.1"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(60):
            while not writer.is_closing():
                await asyncio.sleep(0.05)
                writer.write(b" ")
    finally:
        await closed(writer)


async def test_limits(own_gateway: OwnGateway, place: str) -> None:
    async def chunked() -> AsyncIterator[bytes]:
        yield bytes(6)
        yield bytes(6)

    base = await own_gateway(upload_bytes_max=10, listing_entries_max=1)
    async with aiohttp.ClientSession(base) as session:
        assert (await ask(session, "PUT", f"/v1/files{place}/a", data=bytes(11))).status == 413
        assert (await ask(session, "PUT", f"/v1/files{place}/c", data=chunked())).status == 413
        assert (await ask(session, "PUT", f"/v1/files{place}/a", data=bytes(10))).status == 201
        assert (await ask(session, "PUT", f"/v1/files{place}/b", data=b"")).status == 201
        assert (await ask(session, "GET", f"/v1/directories{place}?sort=size")).status == 422
        assert (await ask(session, "GET", f"/v1/directories{place}")).status == 200


async def test_too_many_connections(own_gateway: OwnGateway) -> None:
    base = await own_gateway(connections_max=2)
    pairs = [await connected(base) for _ in range(2)]
    try:
        status, problem = parsed(await raw(base, request("GET /healthz HTTP/1.1")))
        assert (status, problem["code"]) == (503, 303)
    finally:
        for _, writer in pairs:
            await closed(writer)


async def test_a_connection_ends_with_its_client(own_gateway: OwnGateway) -> None:
    base = await own_gateway()
    for said in (b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        reader, writer = await connected(base)
        writer.write(said)
        if said.endswith(b"\r\n"):
            assert b" 200 " in await reader.readline()
        await closed(writer)
    async with asyncio.timeout(10), aiohttp.ClientSession(base) as session:  # half of what idle ones are given
        while True:
            async with session.get("/metrics") as response:
                if "\ngfs_gateway_connections 1.0\n" in await response.text():
                    break
            await asyncio.sleep(0.02)


async def test_too_many_transfers(own_gateway: OwnGateway, place: str) -> None:
    base = await own_gateway(transfers_max=1, waiting_max=0)
    reader, writer = await connected(base)
    try:
        writer.write(request(f"PUT /v1/files{place}/a HTTP/1.1", "Expect: 100-continue", "Content-Length: 1"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        async with aiohttp.ClientSession(base) as session:
            busy = await ask(session, "PUT", f"/v1/files{place}/b", data=b"x")
            assert (busy.status, busy.headers["Retry-After"]) == (429, "2")
            writer.write(b"x")
            assert b" 201 " in await reader.readline()
            await reader.read()
            assert (await ask(session, "PUT", f"/v1/files{place}/b", data=b"x")).status == 201
    finally:
        await closed(writer)
