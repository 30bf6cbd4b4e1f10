"""Files over WebHDFS: made in two steps, read in parts, appended to, cut, joined, summed up."""

import asyncio
import io
import os
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import pytest
from yarl import URL

from gfsgateway.webhdfs.checksum import FileChecksum
from gfsgateway.webhdfs.reading import BLOCKS_MAX
from tests.cluster.harness import Cluster
from tests.gateway.web import raw, until_open
from tests.gateway.webhdfs.conftest import WebHdfs

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LARGE = 3 * 1024 * 1024 + 17


async def _redirected(webhdfs: WebHdfs, method: str, path: str, op: str, **parameters: str) -> str:
    address = f"/webhdfs/v1{webhdfs.directory}{path}"
    query = {"op": op, **parameters}
    async with webhdfs.http.request(method, address, params=query, allow_redirects=False) as response:
        assert (response.status, await response.read()) == (307, b""), response
        return response.headers["Location"]


async def test_a_file_is_made_in_two_steps(webhdfs: WebHdfs) -> None:
    data = os.urandom(LARGE)
    location = await _redirected(webhdfs, "PUT", "/a file", "CREATE", permission="640", replication="1")
    await webhdfs.refused("GET", "/a file", "GETFILESTATUS", 404, "FileNotFoundException")
    async with webhdfs.http.put(location, data=io.BytesIO(data)) as response:
        assert (response.status, await response.read()) == (201, b"")
        assert response.headers["Location"].endswith("/a%20file")
    status = (await webhdfs("GET", "/a file", "GETFILESTATUS"))["FileStatus"]
    assert (status["length"], status["permission"], status["replication"]) == (LARGE, "640", 1)
    assert await webhdfs("GET", "/a file", "OPEN") == data


async def test_a_redirect_leads_to_where_the_client_has_come(served: Cluster, webhdfs: WebHdfs) -> None:
    location = await _redirected(webhdfs, "PUT", "/file", "CREATE", **{"user.name": "root", "overwrite": "true"})
    assert location.startswith(served.gateway_url() + "/webhdfs/v1/")
    query = parse_qs(urlsplit(location).query)
    assert query == {"op": ["CREATE"], "user.name": ["root"], "overwrite": ["true"], "data": ["true"]}
    port = served.gateway_url().rpartition(":")[2]
    target = f"/webhdfs/v1{webhdfs.directory}/file?op=CREATE"
    request = f"PUT {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    answer = await raw(served.gateway_url(), request.encode())
    assert f"\r\nLocation: http://localhost:{port}{target}&data=true\r\n".encode() in answer
    answer = await raw(served.gateway_url(), f"PUT {target} HTTP/1.0\r\nHost: a/b\r\n\r\n".encode())
    assert answer.split()[1] in (b"400", b"403") and b"Location" not in answer


async def test_a_client_may_follow_by_itself(webhdfs: WebHdfs) -> None:
    answer = await webhdfs("PUT", "/file", "CREATE", noredirect="true")
    async with webhdfs.http.put(answer["Location"], data=b"content") as response:
        assert response.status == 201
    answer = await webhdfs("GET", "/file", "OPEN", noredirect="true")
    async with webhdfs.http.get(answer["Location"]) as response:
        assert await response.read() == b"content"


async def test_a_public_address_is_what_redirects_name(own_gateway: object, webhdfs: WebHdfs) -> None:
    base = await own_gateway(public_url="https://files.example.com")  # type: ignore[operator]
    async with (
        aiohttp.ClientSession(base) as http,
        http.put("/webhdfs/v1/x?op=CREATE", allow_redirects=False) as response,
    ):
        assert response.headers["Location"] == "https://files.example.com/webhdfs/v1/x?op=CREATE&data=true"


async def test_parts_of_a_file(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, b"0123456789")
    assert await webhdfs("GET", "/file", "OPEN", offset=3) == b"3456789"
    assert await webhdfs("GET", "/file", "OPEN", offset=3, length=4) == b"3456"
    assert await webhdfs("GET", "/file", "OPEN", offset=8, length=100) == b"89"
    assert await webhdfs("GET", "/file", "OPEN", offset=10) == b""
    assert await webhdfs("GET", "/file", "OPEN", length=0) == b""
    message = await webhdfs.refused("GET", "/file", "OPEN", 403, "IOException", offset=11)
    assert message.startswith("Offset=11 out of the range [0, 10]")
    await webhdfs.refused("GET", "/file", "OPEN", 400, "IllegalArgumentException", offset=-1)
    await webhdfs.refused("GET", "/file", "OPEN", 400, "IllegalArgumentException", length="many")


async def test_an_empty_file(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/empty", "CREATE", 201, b"")
    assert await webhdfs("GET", "/empty", "OPEN") == b""
    assert (await webhdfs("GET", "/empty", "GETFILEBLOCKLOCATIONS"))["BlockLocations"] == {"BlockLocation": []}


async def test_a_file_that_is_there_is_replaced_only_on_request(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/a/b/file", "CREATE", 201, b"one")
    for step in ("false", "true"):
        await webhdfs.refused(
            "PUT", "/a/b/file", "CREATE", 403, "FileAlreadyExistsException", data=None, noredirect=step
        )
    location = f"{webhdfs.directory}/a/b/file?op=CREATE&data=true"
    async with webhdfs.http.put(f"/webhdfs/v1{location}", data=b"two") as response:
        assert response.status == 403
    await webhdfs("PUT", "/a/b/file", "CREATE", 201, b"three", overwrite="TRUE")
    assert await webhdfs("GET", "/a/b/file", "OPEN") == b"three"
    await webhdfs.refused("PUT", "/a/b", "CREATE", 403, "FileAlreadyExistsException", overwrite="true")
    await webhdfs.refused("PUT", "/x/y", "CREATE", 404, "FileNotFoundException", createparent="false")
    await webhdfs.refused("PUT", "/a/b/file/c", "CREATE", 403, "ParentNotDirectoryException")


async def test_sizes_that_clients_ask_for(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/large", "CREATE", 201, b"x", blocksize=128 * 1024 * 1024, replication=3)
    await webhdfs("PUT", "/small", "CREATE", 201, b"x", blocksize=100_000)
    sizes = [(await webhdfs("GET", path, "GETFILESTATUS"))["FileStatus"]["blockSize"] for path in ("/large", "/small")]
    assert sizes == [64 * 1024 * 1024, 65536]
    await webhdfs.refused("PUT", "/many", "CREATE", 403, "IOException", replication=17)
    await webhdfs.refused("PUT", "/file", "CREATE", 400, "IllegalArgumentException", permission="888")


async def test_an_upload_that_breaks_off_leaves_nothing(served: Cluster, webhdfs: WebHdfs) -> None:
    target = f"/webhdfs/v1{webhdfs.directory}/file?op=CREATE&data=true"
    head = f"PUT {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n".encode()
    answer = await raw(served.gateway_url(), head + b"half", half_close=True)
    assert answer.startswith(b"HTTP/1.1 400") and b"RemoteException" in answer
    await webhdfs.refused("GET", "/file", "GETFILESTATUS", 404, "FileNotFoundException")


async def test_appending(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/log", "CREATE", 201, b"one ")
    await webhdfs("POST", "/log", "APPEND", 200, b"two ")
    await webhdfs("POST", "/log", "APPEND", 200, b"")
    await webhdfs("POST", "/log", "APPEND", 200, b"three")
    assert await webhdfs("GET", "/log", "OPEN") == b"one two three"
    await webhdfs.refused("POST", "/none", "APPEND", 404, "FileNotFoundException")
    await webhdfs.refused("POST", "", "APPEND", 403, "FileAlreadyExistsException")


async def test_two_do_not_append_at_once(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/log", "CREATE", 201, b"begin ")
    is_first_in, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> object:
        yield b"first"
        is_first_in.set()
        await may_end.wait()
        yield b" end"

    address = f"/webhdfs/v1{webhdfs.directory}/log?op=APPEND&data=true"

    async def append() -> int:
        async with webhdfs.http.post(address, data=slow()) as response:
            return response.status

    first = asyncio.create_task(append())
    await is_first_in.wait()
    await until_open(webhdfs.http, f"{webhdfs.directory}/log")
    await webhdfs.refused("POST", "/log", "APPEND", 403, "AlreadyBeingCreatedException")
    may_end.set()
    assert await first == 200
    assert await webhdfs("GET", "/log", "OPEN") == b"begin first end"


async def test_nobody_appends_to_what_another_client_has_open(served: Cluster, webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/log", "CREATE", 201, b"x")
    async with await served.client() as files, await files.open(f"{webhdfs.directory}/log", "r+b"):
        await webhdfs.refused("POST", "/log", "APPEND", 403, "AlreadyBeingCreatedException")
    await webhdfs("POST", "/log", "APPEND", 200, b"y")


async def test_cutting(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, b"0123456789")
    assert await webhdfs("POST", "/file", "TRUNCATE", newlength=4) == {"boolean": True}
    assert await webhdfs("GET", "/file", "OPEN") == b"0123"
    await webhdfs.refused("POST", "/file", "TRUNCATE", 400, "HadoopIllegalArgumentException", newlength=5)
    await webhdfs.refused("POST", "/file", "TRUNCATE", 400, "IllegalArgumentException")
    await webhdfs.refused("POST", "/none", "TRUNCATE", 404, "FileNotFoundException", newlength=0)


async def test_joining(webhdfs: WebHdfs) -> None:
    for name in ("one", "two", "three"):
        await webhdfs("PUT", f"/{name}", "CREATE", 201, name.encode(), permission="600")
    await webhdfs("PUT", "/one", "SETXATTR", xattr_name="user.kept", xattr_value="yes", flag="CREATE")
    sources = f"{webhdfs.directory}/two,{webhdfs.directory}/three"
    await webhdfs("POST", "/one", "CONCAT", sources=sources)
    assert await webhdfs("GET", "/one", "OPEN") == b"onetwothree"
    status = (await webhdfs("GET", "/one", "GETFILESTATUS"))["FileStatus"]
    assert (status["permission"], status["length"]) == ("600", 11)
    assert await webhdfs("GET", "/one", "LISTXATTRS") == {"XAttrNames": '["user.kept"]'}
    listed = await webhdfs("GET", "", "LISTSTATUS")
    assert [each["pathSuffix"] for each in listed["FileStatuses"]["FileStatus"]] == ["one"]
    await webhdfs.refused("POST", "/one", "CONCAT", 404, "FileNotFoundException", sources=f"{webhdfs.directory}/two")
    for sources in ("relative", "", f"{webhdfs.directory}/../x", f"{webhdfs.directory}/one"):
        answer = await webhdfs("POST", "/one", "CONCAT", 400, sources=sources)
        assert answer["RemoteException"]["exception"].endswith("IllegalArgumentException")


async def test_files_that_are_being_written_are_not_joined(served: Cluster, webhdfs: WebHdfs) -> None:
    """What their writers have not flushed yet would be lost."""
    for name in ("one", "two"):
        await webhdfs("PUT", f"/{name}", "CREATE", 201, name.encode())
    sources = f"{webhdfs.directory}/two"
    for name in ("one", "two"):
        async with await served.client() as files, await files.open(f"{webhdfs.directory}/{name}", "r+b") as file:
            await webhdfs.refused("POST", "/one", "CONCAT", 400, "HadoopIllegalArgumentException", sources=sources)
            await file.write(name.upper().encode())
    await webhdfs("POST", "/one", "CONCAT", sources=sources)
    assert await webhdfs("GET", "/one", "OPEN") == b"ONETWO"


async def test_the_checksum_is_that_of_the_content(webhdfs: WebHdfs) -> None:
    data = os.urandom(200_001)
    await webhdfs("PUT", "/file", "CREATE", 201, data, blocksize=65536)
    expected = FileChecksum(65536)
    expected.update(data)
    assert await webhdfs("GET", "/file", "GETFILECHECKSUM") == {"FileChecksum": expected.finish()}
    await webhdfs.refused("GET", "", "GETFILECHECKSUM", 404, "FileNotFoundException")


async def test_where_the_chunks_are(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, bytes(200_000), blocksize=65536, replication=2)
    found = (await webhdfs("GET", "/file", "GETFILEBLOCKLOCATIONS"))["BlockLocations"]["BlockLocation"]
    assert [(each["offset"], each["length"]) for each in found] == [
        (0, 65536),
        (65536, 65536),
        (131072, 65536),
        (196608, 3392),
    ]
    assert all(len(each["hosts"]) == 2 and not each["corrupt"] for each in found)
    part = await webhdfs("GET", "/file", "GETFILEBLOCKLOCATIONS", offset=70_000, length=10)
    assert [each["offset"] for each in part["BlockLocations"]["BlockLocation"]] == [65536]
    old = (await webhdfs("GET", "/file", "GET_BLOCK_LOCATIONS"))["LocatedBlocks"]
    assert (old["fileLength"], len(old["locatedBlocks"]), old["isLastBlockComplete"]) == (200_000, 4, True)
    await webhdfs.refused("GET", "", "GETFILEBLOCKLOCATIONS", 404, "FileNotFoundException")


async def test_only_so_many_chunks_are_told_at_once(served: Cluster, webhdfs: WebHdfs) -> None:
    """A file may be far longer than what was ever written to it."""
    await webhdfs("PUT", "/holes", "CREATE", 201, b"x", blocksize=65536)
    async with await served.client() as files:
        await files.truncate(f"{webhdfs.directory}/holes", 65536 * (BLOCKS_MAX + 1))
    for op in ("GETFILEBLOCKLOCATIONS", "GET_BLOCK_LOCATIONS"):
        message = await webhdfs.refused("GET", "/holes", op, 400, "HadoopIllegalArgumentException")
        assert f"{BLOCKS_MAX} blocks" in message
    part = await webhdfs("GET", "/holes", "GETFILEBLOCKLOCATIONS", length=65537)
    assert [each["offset"] for each in part["BlockLocations"]["BlockLocation"]] == [0, 65536]


@pytest.mark.parametrize("name", ["with space", "a+b", "100%", "ünï", "semi;colon", "a&b=c", "question?", "hash#"])
async def test_names(webhdfs: WebHdfs, name: str) -> None:
    base = URL(f"{webhdfs.url}{webhdfs.directory}/{quote(name)}", encoded=True)
    async with webhdfs.http.put(base.update_query(op="CREATE"), data=b"x") as response:
        assert response.status == 201, await response.text()
    listed = await webhdfs("GET", "", "LISTSTATUS")
    assert [each["pathSuffix"] for each in listed["FileStatuses"]["FileStatus"]] == [name]
