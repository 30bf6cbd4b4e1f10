"""Directories, names, attributes, trash and status over plain REST."""

import asyncio
import base64

import aiohttp
import pytest

from gfsgateway.rest import models
from tests.cluster.harness import Cluster
from tests.gateway.web import ask, put, raw

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


async def test_a_directory_is_made_and_removed(http: aiohttp.ClientSession, place: str) -> None:
    made = await ask(http, "PUT", f"/v1/directories{place}/a?mode=700")
    assert (made.status, made.json["type"], made.json["mode"]) == (201, "directory", "0700")
    assert (await ask(http, "PUT", f"/v1/directories{place}/a")).status == 409
    assert (await ask(http, "PUT", f"/v1/directories{place}/a?parents=true")).status == 201
    assert (await ask(http, "PUT", f"/v1/directories{place}/b/c")).status == 404
    assert (await ask(http, "PUT", f"/v1/directories{place}/b/c?parents=true")).status == 201
    assert (await ask(http, "DELETE", f"/v1/directories{place}/b")).status == 409
    assert (await ask(http, "DELETE", f"/v1/directories{place}/b?recursive=true")).status == 204
    assert (await ask(http, "DELETE", f"/v1/directories{place}/a")).status == 204
    assert (await ask(http, "GET", f"/v1/directories{place}")).json["entries"] == []


async def _names(http: aiohttp.ClientSession, address: str, limit: int) -> list[str]:
    """All names, page by page."""
    names: list[str] = []
    cursor = ""
    while True:
        page = (await ask(http, "GET", f"{address}&limit={limit}&cursor={cursor}")).json
        assert len(page["entries"]) <= limit
        names += [entry["name"] for entry in page["entries"]]
        cursor = page["next"]
        if cursor is None:
            return names


async def test_listings(http: aiohttp.ClientSession, place: str) -> None:
    sizes = {"b": 1, "a": 3, "d": 3, "c": 0, "e": 2, "ü": 5}
    for name, size in sizes.items():
        await put(http, f"{place}/{name}", bytes(size))
    address = f"/v1/directories{place}"
    by_name = sorted(sizes)
    by_size = sorted(sizes, key=lambda name: (sizes[name], name))
    for limit in (1, 2, 6, 1000):
        assert await _names(http, f"{address}?sort=name", limit) == by_name
        assert await _names(http, f"{address}?order=desc", limit) == by_name[::-1]
        assert await _names(http, f"{address}?sort=size", limit) == by_size
        assert await _names(http, f"{address}?sort=size&order=desc", limit) == by_size[::-1]
        assert await _names(http, f"{address}?sort=modified", limit) == list(sizes)
    listing = models.Listing.model_validate((await ask(http, "GET", address)).json)
    assert [entry.path for entry in listing.entries][-1] == f"{place}/ü"
    assert (await ask(http, "GET", f"{address}?cursor=rubbish")).status == 400
    assert (await ask(http, "GET", f"{address}/a")).status == 409
    assert (await ask(http, "GET", f"{address}/nothing")).status == 404


async def test_rename(http: aiohttp.ClientSession, place: str) -> None:
    for name in ("a", "b"):
        await put(http, f"{place}/{name}", name.encode())

    async def rename(source: str, target: str, **options: bool) -> int:
        body = {"source": f"{place}/{source}", "target": f"{place}/{target}", **options}
        return (await ask(http, "POST", "/v1/rename", json=body)).status

    assert await rename("a", "b", replace=False) == 409
    assert await rename("a", "b", exchange=True) == 200
    assert (await ask(http, "GET", f"/v1/files{place}/a")).body == b"b"
    assert await rename("a", "b") == 200
    assert await rename("a", "c") == 404
    assert await rename("b", "c") == 200
    assert (await ask(http, "GET", f"/v1/files{place}/c")).body == b"b"


async def test_copy(http: aiohttp.ClientSession, place: str) -> None:
    data = bytes(range(256)) * 4000
    await put(http, f"{place}/a", data, Content_Type="text/x-test")
    body = {"source": f"{place}/a", "target": f"{place}/b", "replace": False}
    copied = await ask(http, "POST", "/v1/copy", json=body)
    assert (copied.status, copied.json["size"]) == (201, len(data))
    got = await ask(http, "GET", f"/v1/files{place}/b")
    assert (got.body, got.headers["Content-Type"]) == (data, "text/x-test")
    assert (await ask(http, "POST", "/v1/copy", json=body)).status == 409
    assert (await ask(http, "POST", "/v1/copy", json=body | {"replace": True})).status == 201
    assert (await ask(http, "POST", "/v1/copy", json=body | {"source": place})).status == 409


async def test_attributes(http: aiohttp.ClientSession, place: str) -> None:
    await put(http, f"{place}/file")
    address = f"/v1/attributes{place}/file"
    value = base64.b64encode(b"\0value").decode()
    body = {"mode": "600", "modified_ns": 10**18, "replication": 1, "xattrs": {"user.a": value, "user.b": ""}}
    changed = await ask(http, "PATCH", address, json=body)
    assert (changed.json["mode"], changed.json["modified_ns"], changed.json["replication"]) == ("0600", 10**18, 1)
    assert changed.json["modified"] == "2001-09-09T01:46:40.000000000Z"
    shown = await ask(http, "GET", f"{address}?xattrs=true")
    assert models.AttributesWithXattrs.model_validate(shown.json).xattrs == {"user.a": value, "user.b": ""}
    assert (await ask(http, "PATCH", address, json={"xattrs": {"user.a": None}})).status == 200
    assert (await ask(http, "PATCH", address, json={"xattrs": {"user.a": None}})).status == 404
    assert (await ask(http, "PATCH", address, json={"mode": "644"}, headers={"If-Match": '"x"'})).status == 412
    for wrong in ({"mode": "9"}, {"mode": 420}, {"uid": -1}, {"colour": "red"}, {"xattrs": {"user.a": "?"}}, []):
        assert (await ask(http, "PATCH", address, json=wrong)).status == 400


async def test_the_trash(http: aiohttp.ClientSession, place: str) -> None:
    await put(http, f"{place}/file", b"x")
    await put(http, f"{place}/dir/file?parents=true", b"x")
    first = await ask(http, "DELETE", f"/v1/files{place}/file?trash=true&keep_seconds=1000")
    second = await ask(http, "DELETE", f"/v1/directories{place}/dir?trash=true")
    assert (first.json["path"], first.json["type"], second.json["type"]) == (f"{place}/file", "file", "directory")
    listed = models.Trash.model_validate((await ask(http, "GET", "/v1/trash")).json)
    assert {first.json["inode"], second.json["inode"]} <= {entry.inode for entry in listed.entries}
    restored = await ask(http, "POST", f"/v1/trash/{first.json['inode']}/restore")
    assert (restored.status, restored.json["path"]) == (200, f"{place}/file")
    for wrong in (f"{place}/../elsewhere", "elsewhere", "/\ud800"):
        body = {"path": wrong}
        assert (await ask(http, "POST", f"/v1/trash/{second.json['inode']}/restore", json=body)).status == 400
    body = {"path": f"{place}/elsewhere"}
    assert (await ask(http, "POST", f"/v1/trash/{second.json['inode']}/restore", json=body)).status == 200
    assert (await ask(http, "GET", f"/v1/files{place}/elsewhere/file")).body == b"x"
    assert (await ask(http, "POST", f"/v1/trash/{first.json['inode']}/restore")).status == 404
    third = await ask(http, "DELETE", f"/v1/files{place}/file?trash=true")
    assert (await ask(http, "DELETE", f"/v1/trash/{third.json['inode']}")).status == 204
    assert (await ask(http, "DELETE", f"/v1/trash/{third.json['inode']}")).status == 404
    assert (await ask(http, "DELETE", "/v1/trash")).json["count"] == 0


async def test_status_and_health(http: aiohttp.ClientSession, served: Cluster) -> None:
    status = models.Status.model_validate((await ask(http, "GET", "/v1/status")).json)
    assert len(status.chunkservers) == 2 and status.leader
    assert (await ask(http, "GET", "/healthz")).body == b"ok\n"
    assert (await ask(http, "GET", "/readyz")).body == b"ready\n"
    for address in (
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/status",
        "/v1/docs",
        "/v1/openapi.json",
        "/v1/directories/",
    ):
        head = await ask(http, "HEAD", address)
        assert (head.status, head.body) == (200, b"") and int(head.headers["Content-Length"]) > 0
    assert (await ask(http, "HEAD", "/v1/directories/none")).status == 404
    options = await ask(http, "OPTIONS", "/v1/files/x")
    assert (options.status, options.headers["Allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
    answer = await raw(served.gateway_url(), b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 ") and b"Allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n" in answer


async def test_many_at_a_time(http: aiohttp.ClientSession, place: str) -> None:
    data = bytes(range(256)) * 4096
    replies = await asyncio.gather(*(put(http, f"{place}/{number}", data) for number in range(40)))
    assert {reply.status for reply in replies} == {201}
    got = await asyncio.gather(*(ask(http, "GET", f"/v1/files{place}/{number}") for number in range(40)))
    assert all(reply.body == data for reply in got)
