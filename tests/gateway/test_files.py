"""Files over plain REST: whole, in ranges, under conditions, with digests, at the end."""

import asyncio
import base64
import email
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from blake3 import blake3
from yarl import URL

from gfsclient.files import File
from gfsgateway.rest import reading, writing
from gfsprotocol.errors import DataLost
from tests.cluster.harness import Cluster
from tests.gateway.web import ask, put, raw, until_open

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LARGE = 3 * 1024 * 1024 + 17


async def test_a_file_comes_back_as_it_was_put(http: aiohttp.ClientSession, place: str) -> None:
    data = os.urandom(LARGE)
    made = await put(http, f"{place}/file", data)
    assert (made.status, made.json["size"], made.json["type"]) == (201, LARGE, "file")
    assert made.headers["Location"] == f"/v1/files{place}/file"
    got = await ask(http, "GET", f"/v1/files{place}/file")
    assert got.body == data
    assert (got.headers["ETag"], got.headers["Content-Length"]) == (made.headers["ETag"], str(LARGE))
    head = await ask(http, "HEAD", f"/v1/files{place}/file")
    assert (head.body, head.headers["Content-Length"], head.headers["ETag"]) == (b"", str(LARGE), got.headers["ETag"])


@pytest.mark.parametrize("data", [b"", b"x"])
async def test_small_files(http: aiohttp.ClientSession, place: str, data: bytes) -> None:
    await put(http, f"{place}/file", data)
    assert (await ask(http, "GET", f"/v1/files{place}/file")).body == data


async def test_an_upload_without_a_length(http: aiohttp.ClientSession, place: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d\n" % number

    await put(http, f"{place}/file", pieces())
    assert (await ask(http, "GET", f"/v1/files{place}/file")).body == b"".join(b"%d\n" % n for n in range(100))


async def test_replacing_keeps_the_permissions_and_changes_the_tag(http: aiohttp.ClientSession, place: str) -> None:
    first = await ask(http, "PUT", f"/v1/files{place}/file?mode=640", data=b"old")
    second = await put(http, f"{place}/file", b"new")
    assert (first.status, second.status, second.json["mode"]) == (201, 200, "0640")
    assert first.headers["ETag"] != second.headers["ETag"]


async def test_what_replaces_a_set_user_id_file_is_none(http: aiohttp.ClientSession, place: str) -> None:
    await ask(http, "PUT", f"/v1/files{place}/file?mode=6755", data=b"old")
    await ask(http, "PUT", f"/v1/files{place}/other?mode=6755", data=b"old")
    assert (await put(http, f"{place}/file", b"new")).json["mode"] == "0755"
    upload = (await ask(http, "POST", f"/v1/uploads?path={place}/other")).headers["Location"]
    assert (await ask(http, "POST", f"{upload}/complete")).json["mode"] == "0755"


async def test_missing_directories_are_made_on_request(http: aiohttp.ClientSession, place: str) -> None:
    assert (await ask(http, "PUT", f"/v1/files{place}/a/b/c", data=b"x")).status == 404
    assert (await ask(http, "PUT", f"/v1/files{place}/a/b/c?parents=true", data=b"x")).status == 201


async def test_the_content_type_is_kept(http: aiohttp.ClientSession, place: str) -> None:
    await put(http, f"{place}/file", b"x", Content_Type="text/csv; header=present")
    await put(http, f"{place}/page.html", b"x")
    kept = await ask(http, "HEAD", f"/v1/files{place}/file")
    assert kept.headers["Content-Type"] == "text/csv; header=present"
    assert (await ask(http, "HEAD", f"/v1/files{place}/page.html")).headers["Content-Type"] == "text/html"
    assert kept.headers["Content-Security-Policy"] == "sandbox"


@pytest.mark.parametrize("kind", ["text/csv", "application/octet-stream"])
async def test_the_content_disposition_is_kept(http: aiohttp.ClientSession, place: str, kind: str) -> None:
    said = {"Content-Type": kind, "Content-Disposition": 'inline; filename="other name.csv"'}
    put_there = await ask(http, "PUT", f"/v1/files{place}/a.csv", data=b"x", headers=said)
    assert put_there.status == 201
    begun = await ask(http, "POST", f"/v1/uploads?path={place}/b.csv", headers=said)
    assert (await ask(http, "POST", f"{begun.json['href']}/complete")).status == 201
    for source, target in (("a", "c"), ("b", "d")):
        body = {"source": f"{place}/{source}.csv", "target": f"{place}/{target}.csv"}
        assert (await ask(http, "POST", "/v1/copy", json=body)).status == 201
        moved = {"source": f"{place}/{source}.csv", "target": f"{place}/{source}{source}"}
        assert (await ask(http, "POST", "/v1/rename", json=moved)).status == 200
    for name in ("aa", "bb", "c.csv", "d.csv"):
        for method in ("GET", "HEAD"):
            got = await ask(http, method, f"/v1/files{place}/{name}")
            assert got.headers["Content-Disposition"] == said["Content-Disposition"]
            assert got.headers["Content-Type"] == "text/csv"
        got = await ask(http, "GET", f"/v1/files{place}/{name}?download=true")
        assert got.headers["Content-Disposition"] == 'attachment; filename="other name.csv"'
    await put(http, f"{place}/aa", b"x")
    assert "Content-Disposition" not in (await ask(http, "HEAD", f"/v1/files{place}/aa")).headers


async def test_a_download_has_its_name(http: aiohttp.ClientSession, place: str) -> None:
    await put(http, f"{place}/a%20%22b%22%0d%0aX%3a%20y%c3%a9", b"x")
    got = await ask(http, "GET", f"/v1/files{place}/a%20%22b%22%0d%0aX%3a%20y%c3%a9?download=true")
    assert got.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20%22b%22%0D%0AX%3A%20y%C3%A9"


async def test_names_that_are_no_utf8(http: aiohttp.ClientSession, place: str, served: Cluster) -> None:
    request = f"PUT /v1/files{place}/%ff%fe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx".encode()
    host, port = served.gateway_url().removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    assert b" 201 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    listed = await ask(http, "GET", f"/v1/directories{place}")
    assert [entry["name"] for entry in listed.json["entries"]] == ["\udcff\udcfe"]
    # What a listing shows is a path for everything else, too.
    shown = listed.json["entries"][0]["path"]
    copied = await ask(http, "POST", "/v1/copy", json={"source": shown, "target": f"{place}/\udc80"})
    assert (copied.status, copied.json["path"]) == (201, f"{place}/\udc80")
    assert (await ask(http, "POST", "/v1/rename", json={"source": shown, "target": f"{place}/a"})).status == 200
    begun = await ask(http, "POST", URL(f"/v1/uploads?path={place}/%81", encoded=True))
    assert (begun.status, begun.json["path"]) == (201, f"{place}/\udc81")
    assert (await ask(http, "POST", f"{begun.json['href']}/complete")).status == 201
    gone = await ask(http, "DELETE", f"/v1/files{place}/a?trash=true")
    body = {"path": f"{place}/\udc82"}
    assert (await ask(http, "POST", f"/v1/trash/{gone.json['inode']}/restore", json=body)).status == 200
    listed = await ask(http, "GET", f"/v1/directories{place}")
    assert [entry["name"] for entry in listed.json["entries"]] == ["\udc80", "\udc81", "\udc82"]
    for impossible in ("\ud800", "../x", "x/../y"):
        body = {"source": f"{place}/\udc80", "target": f"{place}/{impossible}"}
        assert (await ask(http, "POST", "/v1/rename", json=body)).status == 400


# -------------------------------------------------------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=10-", 10, 999), ("bytes=-1", 999, 999), ("bytes=-5000", 0, 999),
     ("bytes=500-99999999999999999999999999", 500, 999), ("BYTES = 3-4", 3, 4)],
)  # fmt: skip
async def test_one_range(http: aiohttp.ClientSession, place: str, header: str, first: int, last: int) -> None:
    data = os.urandom(1000)
    await put(http, f"{place}/file", data)
    got = await ask(http, "GET", f"/v1/files{place}/file", headers={"Range": header})
    assert (got.status, got.headers["Content-Range"]) == (206, f"bytes {first}-{last}/1000")
    assert got.body == data[first : last + 1]


async def test_several_ranges(http: aiohttp.ClientSession, place: str) -> None:
    data = os.urandom(LARGE)
    await put(http, f"{place}/file", data, Content_Type="image/x-test")
    wanted = [(0, 9), (100, 1_500_000), (LARGE - 3, LARGE - 1)]
    specs = ",".join(f"{first}-{last}" for first, last in wanted)
    got = await ask(http, "GET", f"/v1/files{place}/file", headers={"Range": f"bytes={specs}"})
    assert got.status == 206 and len(got.body) == int(got.headers["Content-Length"])
    message = email.message_from_bytes(b"Content-Type: " + got.headers["Content-Type"].encode() + b"\r\n" + got.body)
    parts = message.get_payload()
    assert [part["Content-Range"] for part in parts] == [f"bytes {a}-{b}/{LARGE}" for a, b in wanted]
    assert all(part["Content-Type"] == "image/x-test" for part in parts)
    boundary = got.headers["Content-Type"].partition("boundary=")[2].encode()
    bodies = [each.partition(b"\r\n\r\n")[2][:-2] for each in got.body.split(b"--" + boundary)[1:-1]]
    assert bodies == [data[a : b + 1] for a, b in wanted]


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=-0", "bytes=0-999,0-999", "bytes=" + "1-1," * 40])
async def test_ranges_that_are_not_there(http: aiohttp.ClientSession, place: str, header: str) -> None:
    await put(http, f"{place}/file", bytes(1000))
    got = await ask(http, "GET", f"/v1/files{place}/file", headers={"Range": header})
    assert (got.status, got.headers["Content-Range"]) == (416, "bytes */1000")


@pytest.mark.parametrize("header", ["bytes=5-2", "lines=1-2", "bytes", "bytes=a-b", "bytes=-", "bytes=1-2-3"])
async def test_a_range_that_cannot_be_read_is_ignored(http: aiohttp.ClientSession, place: str, header: str) -> None:
    await put(http, f"{place}/file", b"content")
    got = await ask(http, "GET", f"/v1/files{place}/file", headers={"Range": header})
    assert (got.status, got.body) == (200, b"content")


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-99", "bytes=-5", "bytes=0-0,-1"])
async def test_an_empty_file_comes_whole(http: aiohttp.ClientSession, place: str, header: str) -> None:
    await put(http, f"{place}/file", b"")
    got = await ask(http, "GET", f"/v1/files{place}/file", headers={"Range": header})
    assert (got.status, got.body) == (200, b"")


async def test_if_range(http: aiohttp.ClientSession, place: str) -> None:
    made = await put(http, f"{place}/file", b"content")
    address = f"/v1/files{place}/file"
    same = await ask(http, "GET", address, headers={"Range": "bytes=0-1", "If-Range": made.headers["ETag"]})
    other = await ask(http, "GET", address, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (same.status, same.body, other.status, other.body) == (206, b"co", 200, b"content")


# ---------------------------------------------------------------------------------------------------------- conditions


async def test_conditions_of_reading(http: aiohttp.ClientSession, place: str) -> None:
    made = await put(http, f"{place}/file", b"content")
    address, tag = f"/v1/files{place}/file", made.headers["ETag"]
    modified = (await ask(http, "HEAD", address)).headers["Last-Modified"]
    known = await ask(http, "GET", address, headers={"If-None-Match": f'"x", W/{tag}'})
    assert (known.status, known.body, known.headers["ETag"]) == (304, b"", tag)
    assert (await ask(http, "GET", address, headers={"If-Modified-Since": modified})).status == 304
    assert (await ask(http, "GET", address, headers={"If-Match": tag})).status == 200
    assert (await ask(http, "GET", address, headers={"If-Match": '"other"'})).status == 412
    assert (await ask(http, "GET", address, headers={"If-Match": f"W/{tag}"})).status == 412
    past = "Mon, 01 Jan 2001 00:00:00 GMT"
    assert (await ask(http, "GET", address, headers={"If-Unmodified-Since": past})).status == 412
    assert (await ask(http, "GET", address, headers={"If-Modified-Since": past})).status == 200


async def test_conditions_of_writing(http: aiohttp.ClientSession, place: str) -> None:
    address = f"/v1/files{place}/file"

    async def write(data: bytes, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await ask(http, "PUT", address, data=data, headers=named)).status

    assert await write(b"0", If_Match="*") == 412
    assert await write(b"1", If_None_Match="*") == 201
    assert await write(b"2", If_None_Match="*") == 412
    tag = (await ask(http, "HEAD", address)).headers["ETag"]
    assert await write(b"3", If_Match='"other"') == 412
    assert await write(b"4", If_Match=f'"other", {tag}') == 200
    assert await write(b"5", If_Match=tag) == 412
    assert await write(b"6", If_Unmodified_Since="Mon, 01 Jan 2001 00:00:00 GMT") == 412
    assert await write(b"7", If_Match="no tag at all") == 400
    assert (await ask(http, "GET", address)).body == b"4"
    assert (await ask(http, "DELETE", address, headers={"If-Match": tag})).status == 412
    assert (await ask(http, "DELETE", address, headers={"If-Match": "*"})).status == 204


async def test_of_many_who_want_to_replace_one_version_one_does(http: aiohttp.ClientSession, place: str) -> None:
    tag = (await put(http, f"{place}/file", b"old")).headers["ETag"]
    replies = await asyncio.gather(
        *(ask(http, "PUT", f"/v1/files{place}/file", data=b"%d" % n, headers={"If-Match": tag}) for n in range(12))
    )
    winners = [number for number, reply in enumerate(replies) if reply.status == 200]
    assert sorted({reply.status for reply in replies}) == [200, 412] and len(winners) == 1
    assert (await ask(http, "GET", f"/v1/files{place}/file")).body == b"%d" % winners[0]


async def test_of_many_who_want_to_make_a_file_one_does(http: aiohttp.ClientSession, place: str) -> None:
    replies = await asyncio.gather(
        *(ask(http, "PUT", f"/v1/files{place}/file", data=b"x", headers={"If-None-Match": "*"}) for _ in range(12))
    )
    assert sorted(reply.status for reply in replies) == [201] + [412] * 11


# ------------------------------------------------------------------------------------------------------------- digests


async def test_digests(http: aiohttp.ClientSession, place: str) -> None:
    data = os.urandom(300_000)
    good = base64.b64encode(blake3(data).digest()).decode()
    sha = base64.b64encode(hashlib.sha256(data).digest()).decode()
    wrong = base64.b64encode(bytes(32)).decode()
    address = f"/v1/files{place}/file"
    bad = await ask(http, "PUT", address, data=data, headers={"Repr-Digest": f"blake3=:{wrong}:"})
    assert bad.status == 400 and (await ask(http, "GET", address)).status == 404
    await put(http, f"{place}/file", data, Repr_Digest=f"blake3=:{good}:, sha-256=:{sha}:", Digest=f"sha-256={sha}")
    told = await ask(http, "HEAD", address, headers={"Want-Repr-Digest": "blake3=5"})
    assert (told.headers["Repr-Digest"], told.headers["Digest"]) == (f"blake3=:{good}:", f"blake3={good}")
    old = await ask(http, "GET", address, headers={"Want-Digest": "SHA-256;q=1"})
    assert (old.headers["Digest"], old.body) == (f"sha-256={sha}", data)


@pytest.mark.parametrize("error", [DataLost("gone"), RuntimeError("a bug")])
async def test_an_error_in_the_middle_of_a_body_ends_it_before_its_length(
    own_gateway: Callable[..., Awaitable[str]],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected_logs: Callable[..., None],
) -> None:
    """Another answer must not come in the place of what is missing."""

    async def pieces(_file: File, _parts: object) -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise error

    expected_logs("broken off: ", "gfsgateway.app: request .* GET /v1/files")
    base = await own_gateway()
    async with aiohttp.ClientSession(base) as session:
        await put(session, f"{place}/file", bytes(LARGE))
        monkeypatch.setattr(reading, "_pieces", pieces)
        head = f"GET /v1/files{place}/file HTTP/1.1\r\nHost: localhost\r\n\r\n"
        try:
            _, _, body = (await raw(base, head.encode())).partition(b"\r\n\r\n")
        except ConnectionResetError:
            return
        assert body == b"x" * len(body)


# -------------------------------------------------------------------------------------------------------------- append


async def test_append(http: aiohttp.ClientSession, place: str) -> None:
    address = f"/v1/files{place}/log"
    assert (await ask(http, "POST", f"{address}?append", data=b"one")).status == 404
    first = await ask(http, "POST", f"{address}?append&create=true", data=b"one")
    second = await ask(http, "PATCH", address, data=b"two")
    assert (first.json, second.json) == ({"offset": 0, "size": 3}, {"offset": 3, "size": 3})
    assert second.headers["ETag"] == (await ask(http, "HEAD", address)).headers["ETag"]
    conflict = await ask(http, "PATCH", address, data=b"x", headers={"Upload-Offset": "3"})
    assert (conflict.status, conflict.headers["Upload-Offset"]) == (409, "6")
    assert (await ask(http, "PATCH", address, data=b"!", headers={"Upload-Offset": "6"})).status == 200
    assert (await ask(http, "GET", address)).body == b"onetwo!"


async def test_what_is_appended_is_checked_before(http: aiohttp.ClientSession, place: str) -> None:
    wrong = base64.b64encode(bytes(32)).decode()
    for query in ("append&create=true", "append=record&create=true"):
        for header in ("Content-Digest", "Digest"):
            headers = {header: f"sha-256=:{wrong}:"}
            bad = await ask(http, "POST", f"/v1/files{place}/log?{query}", data=b"one", headers=headers)
            assert (bad.status, bad.json["title"]) == (400, "Bad Request")
    assert (await ask(http, "GET", f"/v1/files{place}/log")).status == 404, "nothing was made"
    good = {"Content-Digest": f"blake3=:{base64.b64encode(blake3(b'one').digest()).decode()}:"}
    for query, offset in (("append&create=true", 0), ("append=record", 3), ("append", 6)):
        made = await ask(http, "POST", f"/v1/files{place}/log?{query}", data=b"one", headers=good)
        assert made.json == {"offset": offset, "size": 3}
    assert (await ask(http, "GET", f"/v1/files{place}/log")).body == b"oneoneone"
    large = await ask(http, "POST", f"/v1/files{place}/log?append", data=bytes(1024 * 1024 + 1), headers=good)
    assert large.status == 413


async def test_two_do_not_append_at_once(http: aiohttp.ClientSession, place: str, served: Cluster) -> None:
    """Each would write over what the other has written, and both be told that all is well."""
    address = f"/v1/files{place}/log"
    await put(http, f"{place}/log", b"begin ")
    is_first_in, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        is_first_in.set()
        await may_end.wait()
        yield b" end"

    first = asyncio.create_task(ask(http, "POST", f"{address}?append", data=slow()))
    await is_first_in.wait()
    await until_open(http, f"{place}/log")
    assert (await ask(http, "POST", f"{address}?append", data=b"x")).status == 409
    async with http.post(f"/webhdfs/v1{place}/log?op=APPEND&data=true", data=b"x") as response:
        assert response.status == 403
    async with aiohttp.ClientSession(served.gateway_url(2)) as other:
        assert (await ask(other, "POST", f"{address}?append", data=b"x")).status == 409
    may_end.set()
    assert (await first).json == {"offset": 6, "size": 9}
    assert (await ask(http, "POST", f"{address}?append", data=b"!")).json == {"offset": 15, "size": 1}
    assert (await ask(http, "GET", address)).body == b"begin first end!"


async def test_an_append_is_to_the_version_that_its_condition_names(
    own_gateway: Callable[..., Awaitable[str]], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await own_gateway()
    async with aiohttp.ClientSession(base) as session:
        made = await put(session, f"{place}/log", b"first")
        condition = {"If-Match": made.headers["ETag"]}
        weigh = writing._to_append_to

        async def weigh_and_change(*given: Any) -> Any:
            weighed = await weigh(*given)
            monkeypatch.undo()
            assert (await ask(session, "POST", f"/v1/files{place}/log?append", data=b" second")).status == 200
            return weighed

        monkeypatch.setattr(writing, "_to_append_to", weigh_and_change)
        late = await ask(session, "POST", f"/v1/files{place}/log?append", data=b" third", headers=condition)
        assert late.status == 412
        assert (await ask(session, "GET", f"/v1/files{place}/log")).body == b"first second"


async def test_a_record_has_no_offset_of_the_callers_choice(http: aiohttp.ClientSession, place: str) -> None:
    address = f"/v1/files{place}/log?append=record&create=true"
    assert (await ask(http, "POST", address, data=b"x", headers={"Upload-Offset": "0"})).status == 400
    assert (await ask(http, "GET", f"/v1/files{place}/log")).status == 404


async def test_records_of_many_are_all_there(http: aiohttp.ClientSession, place: str) -> None:
    address = f"/v1/files{place}/log?append=record&create=true"
    replies = await asyncio.gather(*(ask(http, "POST", address, data=b"%09d\n" % n) for n in range(20)))
    assert {reply.status for reply in replies} == {200}
    content = (await ask(http, "GET", f"/v1/files{place}/log")).body
    for number, reply in enumerate(replies):
        assert content[reply.json["offset"] :][:10] == b"%09d\n" % number
    too_large = await ask(http, "POST", address, data=bytes(1024 * 1024 + 1))
    assert too_large.status == 413


async def test_removing(http: aiohttp.ClientSession, place: str) -> None:
    await put(http, f"{place}/file")
    assert (await ask(http, "DELETE", f"/v1/files{place}")).status == 409
    assert (await ask(http, "DELETE", f"/v1/files{place}/file")).status == 204
    assert (await ask(http, "DELETE", f"/v1/files{place}/file")).status == 404
