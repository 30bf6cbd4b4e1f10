"""Names and attributes over WebHDFS: listings, renames, removal, owners, times, links, attributes, lists of access."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from yarl import URL

from gfsclient.namespace import Namespace
from gfsprotocol.errors import AvailabilityError
from gfsprotocol.messages import Listing
from tests.conftest import ExpectedLogs
from tests.gateway.web import raw
from tests.gateway.webhdfs.conftest import ME, WebHdfs

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a gateway that acts as root")


def _names(listed: dict[str, Any]) -> list[str]:
    return [status["pathSuffix"] for status in listed["FileStatuses"]["FileStatus"]]


async def test_status(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, b"12345")
    status = (await webhdfs("GET", "/file", "GETFILESTATUS"))["FileStatus"]
    times = {name: status.pop(name) for name in ("accessTime", "modificationTime")}
    assert all(time > 1_600_000_000_000 for time in times.values())
    assert status.pop("fileId") > 0
    assert status == {
        "blockSize": 64 * 1024 * 1024,
        "childrenNum": 0,
        "group": status["group"],
        "length": 5,
        "owner": ME,
        "pathSuffix": "",
        "permission": "644",
        "replication": 2,
        "storagePolicy": 0,
        "type": "FILE",
    }
    status = (await webhdfs("GET", "", "GETFILESTATUS"))["FileStatus"]
    assert (status["type"], status["length"], status["permission"]) == ("DIRECTORY", 0, "755")
    message = await webhdfs.refused("GET", "/none", "GETFILESTATUS", 404, "FileNotFoundException")
    assert message == f"File does not exist: {webhdfs.directory}/none"
    await webhdfs.refused("GET", "/file/below", "GETFILESTATUS", 403, "ParentNotDirectoryException")


async def test_listings(webhdfs: WebHdfs) -> None:
    for name in "cab":
        await webhdfs("PUT", f"/{name}", "CREATE", 201, b"x")
    await webhdfs("PUT", "/d", "MKDIRS")
    assert _names(await webhdfs("GET", "", "LISTSTATUS")) == ["a", "b", "c", "d"]
    assert _names(await webhdfs("GET", "/a", "LISTSTATUS")) == [""]
    assert _names(await webhdfs("GET", "/d", "LISTSTATUS")) == []
    await webhdfs.refused("GET", "/none", "LISTSTATUS", 404, "FileNotFoundException")
    await webhdfs.refused("GET", "/a/b", "LISTSTATUS", 403, "ParentNotDirectoryException")


async def test_listings_in_batches(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/a", "CREATE", 201, b"x")
    await webhdfs("PUT", "/b", "CREATE", 201, b"x")
    whole = (await webhdfs("GET", "", "LISTSTATUS_BATCH"))["DirectoryListing"]
    assert (_names(whole["partialListing"]), whole["remainingEntries"]) == (["a", "b"], 0)
    rest = (await webhdfs("GET", "", "LISTSTATUS_BATCH", startAfter="a"))["DirectoryListing"]
    assert _names(rest["partialListing"]) == ["b"]
    one = (await webhdfs("GET", "/a", "LISTSTATUS_BATCH"))["DirectoryListing"]
    assert (_names(one["partialListing"]), one["remainingEntries"]) == ([""], 0)


async def test_a_large_directory(webhdfs: WebHdfs, served: Any) -> None:
    files = await served.client()
    async with files:
        names = [f"{number:04d}" for number in range(1100)]
        await asyncio.gather(*(files.make_file(f"{webhdfs.directory}/{name}") for name in names))
    assert _names(await webhdfs("GET", "", "LISTSTATUS")) == names
    lines = [f"GET /webhdfs/v1{webhdfs.directory}?op=LISTSTATUS HTTP/1.0", "Host: localhost", "", ""]
    old = await raw(served.gateway_url(), "\r\n".join(lines).encode())
    head, _, body = old.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ") and _names(json.loads(body)) == names
    first = (await webhdfs("GET", "", "LISTSTATUS_BATCH"))["DirectoryListing"]
    assert (_names(first["partialListing"]), first["remainingEntries"]) == (names[:1000], 1)
    rest = (await webhdfs("GET", "", "LISTSTATUS_BATCH", startAfter="0999"))["DirectoryListing"]
    assert (_names(rest["partialListing"]), rest["remainingEntries"]) == (names[1000:], 0)
    request = f"GET /webhdfs/v1{webhdfs.directory}?op=LISTSTATUS HTTP/1.0\r\nHost: localhost\r\n\r\n"
    head, _, body = (await raw(webhdfs.url.removesuffix("/webhdfs/v1"), request.encode())).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200") and b"chunked" not in head
    assert _names(json.loads(body)) == names


async def test_a_listing_that_fails_in_the_middle_breaks_off_and_is_counted(
    webhdfs: WebHdfs,
    own_gateway: Callable[..., Awaitable[str]],
    monkeypatch: pytest.MonkeyPatch,
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs(r"op=LISTSTATUS&delegation=\.\.\. broken off: no master answers")
    await webhdfs("PUT", "/a", "MKDIRS")
    base = await own_gateway()

    async def one_page(files: Namespace, path: bytes, after: bytes = b"") -> Listing:
        if after:
            raise AvailabilityError("no master answers")
        return Listing((await whole(files, path, after)).entries, more=True)

    whole = Namespace.list_page
    monkeypatch.setattr(Namespace, "list_page", one_page)
    async with aiohttp.ClientSession(base) as http:
        with pytest.raises(aiohttp.ClientError):
            async with http.get(f"/webhdfs/v1{webhdfs.directory}?op=LISTSTATUS&delegation=") as response:
                assert response.status == 200
                await response.read()
        async with http.get("/metrics") as response:
            assert 'gfs_gateway_backend_errors_total{error="AvailabilityError"} 1.0' in await response.text()


async def test_directories(webhdfs: WebHdfs) -> None:
    assert await webhdfs("PUT", "/a/b/c", "MKDIRS", permission="700") == {"boolean": True}
    assert await webhdfs("PUT", "/a/b/c", "MKDIRS") == {"boolean": True}
    assert await webhdfs("PUT", "/n/o", "MKDIRS", permission="0") == {"boolean": True}
    modes = [
        (await webhdfs("GET", path, "GETFILESTATUS"))["FileStatus"]["permission"] for path in ("/a/b/c", "/n", "/n/o")
    ]
    assert modes == ["700", "300", "0"]
    await webhdfs("PUT", "/file", "CREATE", 201, b"x")
    await webhdfs.refused("PUT", "/file", "MKDIRS", 403, "FileAlreadyExistsException")
    await webhdfs.refused("PUT", "/file/x", "MKDIRS", 403, "ParentNotDirectoryException")
    await webhdfs.refused("PUT", "/m", "MKDIRS", 400, "IllegalArgumentException", permission="9")


async def test_renames_that_say_whether_they_did_it(webhdfs: WebHdfs) -> None:
    below = webhdfs.directory
    await webhdfs("PUT", "/a", "CREATE", 201, b"a")
    await webhdfs("PUT", "/b", "CREATE", 201, b"b")
    await webhdfs("PUT", "/d/e", "MKDIRS")

    async def rename(source: str, target: str) -> bool:
        return bool((await webhdfs("PUT", source, "RENAME", destination=below + target))["boolean"])

    assert not await rename("/none", "/x")
    assert not await rename("/a", "/b")
    assert not await rename("/a", "/none/x")
    assert not await rename("/d", "/d/e")
    assert await rename("/a", "/a")
    assert await rename("/a", "/d")
    assert await rename("/d/a", "/a2")
    assert _names(await webhdfs("GET", "", "LISTSTATUS")) == ["a2", "b", "d"]
    await webhdfs.refused("PUT", "/b", "RENAME", 400, "IllegalArgumentException", destination="relative")
    await webhdfs.refused("PUT", "/b", "RENAME", 400, "IllegalArgumentException")


async def test_renames_that_fail_with_an_exception(webhdfs: WebHdfs) -> None:
    below = webhdfs.directory
    await webhdfs("PUT", "/a", "CREATE", 201, b"a")
    await webhdfs("PUT", "/b", "CREATE", 201, b"b")
    await webhdfs("PUT", "/d/e", "MKDIRS")

    async def refused(source: str, target: str, status: int, exception: str, options: str = "NONE") -> None:
        await webhdfs.refused(
            "PUT", source, "RENAME", status, exception, destination=below + target, renameoptions=options
        )

    await refused("/none", "/x", 404, "FileNotFoundException")
    await refused("/a", "/none/x", 404, "FileNotFoundException")
    await refused("/a", "/b", 403, "FileAlreadyExistsException")
    await refused("/a", "/a", 403, "FileAlreadyExistsException")
    await refused("/a", "/d", 403, "IOException", "OVERWRITE")
    await refused("/d", "/d/e/f", 403, "IOException")
    await refused("/a", "/b", 400, "IllegalArgumentException", "MAYBE")
    await webhdfs("PUT", "/a", "RENAME", destination=f"{below}/b", renameoptions="OVERWRITE")
    assert await webhdfs("GET", "/b", "OPEN") == b"a"
    await webhdfs("PUT", "/f", "MKDIRS")
    await refused("/f", "/d", 403, "PathIsNotEmptyDirectoryException", "OVERWRITE")


async def test_removal(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/d/file", "CREATE", 201, b"x")
    await webhdfs.refused("DELETE", "/d", "DELETE", 403, "PathIsNotEmptyDirectoryException")
    assert await webhdfs("DELETE", "/d", "DELETE", recursive="true") == {"boolean": True}
    assert await webhdfs("DELETE", "/d", "DELETE", recursive="true") == {"boolean": False}
    await webhdfs("PUT", "/file", "CREATE", 201, b"x")
    await webhdfs("PUT", "/empty", "MKDIRS")
    assert await webhdfs("DELETE", "/file", "DELETE") == {"boolean": True}
    assert await webhdfs("DELETE", "/empty", "DELETE") == {"boolean": True}


@is_root
async def test_permissions_and_owners(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, b"x")
    await webhdfs("PUT", "/file", "SETPERMISSION", permission="1640")
    await webhdfs("PUT", "/file", "SETOWNER", owner="daemon", group="4242")
    status = (await webhdfs("GET", "/file", "GETFILESTATUS"))["FileStatus"]
    assert (status["permission"], status["owner"], status["group"]) == ("1640", "daemon", "4242")
    await webhdfs.refused("PUT", "/file", "SETOWNER", 400, "IllegalArgumentException")
    await webhdfs.refused("PUT", "/file", "SETOWNER", 400, "IllegalArgumentException", owner="no-such-user")
    await webhdfs.refused("PUT", "/none", "SETPERMISSION", 404, "FileNotFoundException", permission="600")


@is_root
async def test_another_user(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/secret", "CREATE", 201, b"x", permission="600")
    other: dict[str, Any] = {"user_name": "daemon"}
    assert (await webhdfs("GET", "", "GETHOMEDIRECTORY", **other)) == {"Path": "/user/daemon"}
    for method, path, op in (("GET", "/secret", "OPEN"), ("PUT", "/new", "MKDIRS"), ("DELETE", "/secret", "DELETE")):
        await webhdfs.refused(method, path, op, 403, "AccessControlException", **other)
    await webhdfs("GET", "/secret", "CHECKACCESS", fsaction="rw-")
    await webhdfs("GET", "/secret", "CHECKACCESS", fsaction="---", **other)
    message = await webhdfs.refused(
        "GET", "/secret", "CHECKACCESS", 403, "AccessControlException", fsaction="r--", **other
    )
    assert "user=daemon, access=r--" in message and "-rw-------" in message
    await webhdfs.refused("GET", "/secret", "CHECKACCESS", 400, "IllegalArgumentException", fsaction="x")
    await webhdfs.refused("GET", "", "GETFILESTATUS", 403, "AuthorizationException", user_name="no-such-user")
    await webhdfs("GET", "", "GETFILESTATUS", user_name="root", doas="daemon")
    message = await webhdfs.refused(
        "GET", "", "GETFILESTATUS", 403, "AuthorizationException", user_name="daemon", doas="root"
    )
    assert message == "User: daemon is not allowed to impersonate root"


@is_root
async def test_what_is_joined_keeps_its_owner(webhdfs: WebHdfs) -> None:
    for name in ("one", "two", "three"):
        await webhdfs("PUT", f"/{name}", "CREATE", 201, b"x")
        await webhdfs("PUT", f"/{name}", "SETOWNER", owner="daemon", group="daemon")
    await webhdfs("PUT", "", "SETOWNER", owner="daemon")
    other: dict[str, Any] = {"user_name": "daemon"}
    await webhdfs("POST", "/one", "CONCAT", sources=f"{webhdfs.directory}/two")
    await webhdfs("POST", "/one", "CONCAT", sources=f"{webhdfs.directory}/three", **other)
    status = (await webhdfs("GET", "/one", "GETFILESTATUS"))["FileStatus"]
    assert (status["owner"], status["group"], status["length"]) == ("daemon", "daemon", 3)
    await webhdfs("PUT", "/root's", "CREATE", 201, b"x", permission="666")
    await webhdfs.refused(
        "POST", "/root's", "CONCAT", 403, "AccessControlException", sources=f"{webhdfs.directory}/one", **other
    )


async def test_copies_and_times(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, b"x")
    assert await webhdfs("PUT", "/file", "SETREPLICATION", replication=1) == {"boolean": True}
    assert await webhdfs("PUT", "", "SETREPLICATION", replication=1) == {"boolean": False}
    await webhdfs.refused("PUT", "/none", "SETREPLICATION", 404, "FileNotFoundException", replication=1)
    await webhdfs.refused("PUT", "/file", "SETREPLICATION", 403, "IOException", replication=99)
    await webhdfs("PUT", "/file", "SETTIMES", modificationtime=1_320_171_722_771, accesstime=-1)
    await webhdfs("PUT", "/file", "SETTIMES", modificationtime=-1, accesstime=1_320_171_722_000)
    status = (await webhdfs("GET", "/file", "GETFILESTATUS"))["FileStatus"]
    times = (status["modificationTime"], status["accessTime"])
    assert (status["replication"], times) == (1, (1_320_171_722_771, 1_320_171_722_000))
    await webhdfs.refused("PUT", "/file", "SETTIMES", 400, "IllegalArgumentException", modificationtime=2**62)


async def test_symbolic_links(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, b"12345")
    await webhdfs("PUT", "/x/link", "CREATESYMLINK", destination=f"{webhdfs.directory}/file", createParent="true")
    assert (await webhdfs("GET", "/x/link", "GETFILESTATUS"))["FileStatus"]["length"] == 5
    link = (await webhdfs("GET", "/x/link", "GETFILELINKSTATUS"))["FileStatus"]
    assert (link["type"], link["symlink"]) == ("SYMLINK", f"{webhdfs.directory}/file")
    assert await webhdfs("GET", "/x/link", "GETLINKTARGET") == {"Path": f"{webhdfs.directory}/file"}
    (listed,) = (await webhdfs("GET", "/x", "LISTSTATUS"))["FileStatuses"]["FileStatus"]
    assert (listed["type"], listed["symlink"]) == ("SYMLINK", f"{webhdfs.directory}/file")
    assert await webhdfs("GET", "/x/link", "OPEN") == b"12345"
    await webhdfs.refused("GET", "/file", "GETLINKTARGET", 400, "HadoopIllegalArgumentException")
    await webhdfs.refused("PUT", "/x/link", "CREATESYMLINK", 403, "FileAlreadyExistsException", destination="/a")


async def test_extended_attributes(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, b"x")
    await webhdfs("PUT", "/file", "SETXATTR", xattr_name="user.a", xattr_value='"text"', flag="CREATE")
    await webhdfs("PUT", "/file", "SETXATTR", xattr_name="user.b", xattr_value="0x00ff", flag="CREATE,REPLACE")
    await webhdfs("PUT", "/file", "SETXATTR", xattr_name="user.c", xattr_value="0sAAE=", flag="CREATE")
    assert await webhdfs("GET", "/file", "LISTXATTRS") == {"XAttrNames": '["user.a", "user.b", "user.c"]'}
    one = await webhdfs("GET", "/file", "GETXATTRS", xattr_name="user.a", encoding="text")
    assert one == {"XAttrs": [{"name": "user.a", "value": '"text"'}]}
    every = await webhdfs("GET", "/file", "GETXATTRS", encoding="HEX")
    assert [each["value"] for each in every["XAttrs"]] == ["0x74657874", "0x00ff", "0x0001"]
    every = await webhdfs("GET", "/file", "GETXATTRS", encoding="base64")
    assert [each["value"] for each in every["XAttrs"]] == ["0sdGV4dA==", "0sAP8=", "0sAAE="]
    refused = webhdfs.refused
    await refused("PUT", "/file", "SETXATTR", 403, "IOException", xattr_name="user.a", xattr_value="x", flag="CREATE")
    await refused("PUT", "/file", "SETXATTR", 403, "IOException", xattr_name="user.n", xattr_value="x", flag="REPLACE")
    await refused(
        "PUT", "/file", "SETXATTR", 400, "HadoopIllegalArgumentException", xattr_name="user.a", xattr_value="x"
    )
    await refused("PUT", "/file", "SETXATTR", 400, "HadoopIllegalArgumentException", xattr_name="plain", flag="CREATE")
    await refused(
        "PUT",
        "/file",
        "SETXATTR",
        400,
        "IllegalArgumentException",
        xattr_name="user.x",
        xattr_value="0xz",
        flag="CREATE",
    )
    await refused("GET", "/file", "GETXATTRS", 403, "XAttrNotFoundException", xattr_name="user.none")
    await webhdfs("PUT", "/file", "REMOVEXATTR", xattr_name="user.a")
    await refused("PUT", "/file", "REMOVEXATTR", 403, "XAttrNotFoundException", xattr_name="user.a")


async def test_lists_of_access(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, b"x", permission="640")
    status = (await webhdfs("GET", "/file", "GETACLSTATUS"))["AclStatus"]
    assert (status["entries"], status["permission"], status["owner"]) == ([], "640", ME)
    await webhdfs("PUT", "/file", "SETACL", aclspec="user::rwx,group::r-x,other::--x")
    assert (await webhdfs("GET", "/file", "GETACLSTATUS"))["AclStatus"]["permission"] == "751"
    await webhdfs("PUT", "/file", "MODIFYACLENTRIES", aclspec="other::---")
    assert (await webhdfs("GET", "/file", "GETACLSTATUS"))["AclStatus"]["permission"] == "750"
    for spec in ("user:daemon:rwx", "default:user::rwx", "mask::rwx", "user::rwx,user::r--"):
        await webhdfs.refused("PUT", "/file", "MODIFYACLENTRIES", 403, "AclException", aclspec=spec)
    await webhdfs.refused("PUT", "/file", "SETACL", 403, "AclException", aclspec="user::rwx")
    await webhdfs.refused("PUT", "/file", "SETACL", 400, "HadoopIllegalArgumentException", aclspec="nonsense")
    for op in ("REMOVEACL", "REMOVEDEFAULTACL"):
        await webhdfs("PUT", "/file", op)
        await webhdfs.refused("PUT", "/none", op, 404, "FileNotFoundException")
    await webhdfs("PUT", "/file", "REMOVEACLENTRIES", aclspec="user:daemon:,default:user:")
    await webhdfs.refused("PUT", "/file", "REMOVEACLENTRIES", 403, "AclException", aclspec="group::")
    assert (await webhdfs("GET", "/file", "GETACLSTATUS"))["AclStatus"]["permission"] == "750"


async def test_totals(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/d/file", "CREATE", 201, b"12345", replication=2)
    summary = (await webhdfs("GET", "", "GETCONTENTSUMMARY"))["ContentSummary"]
    assert [summary[name] for name in ("directoryCount", "fileCount", "length", "spaceConsumed")] == [2, 1, 5, 10]
    usage = (await webhdfs("GET", "", "GETQUOTAUSAGE"))["QuotaUsage"]
    assert (usage["fileAndDirectoryCount"], usage["quota"], usage["spaceConsumed"]) == (3, -1, 10)
    one = (await webhdfs("GET", "/d/file", "GETCONTENTSUMMARY"))["ContentSummary"]
    assert (one["directoryCount"], one["fileCount"]) == (0, 1)
    space = (await webhdfs("GET", "", "GETSTATUS"))["FsStatus"]
    assert space["capacity"] >= space["remaining"] > 0


async def test_what_the_cluster_says_of_itself(webhdfs: WebHdfs) -> None:
    assert await webhdfs("GET", "", "GETHOMEDIRECTORY") == {"Path": f"/user/{ME}"}
    assert await webhdfs("GET", "", "GETTRASHROOT") == {"Path": f"/user/{ME}/.Trash"}
    defaults = (await webhdfs("GET", "", "GETSERVERDEFAULTS"))["FsServerDefaults"]
    assert (defaults["blockSize"], defaults["replication"], defaults["trashInterval"]) == (64 * 1024 * 1024, 2, 0)
    async with webhdfs.http.put(f"/webhdfs/v1/user/{ME}/.Trash?op=MKDIRS") as response:
        assert response.status == 200
    (root,) = (await webhdfs("GET", "", "GETTRASHROOTS"))["Paths"]
    assert (root["path"], root["isdir"]) == (f"/user/{ME}/.Trash", True)
    assert await webhdfs("GET", "", "GETDELEGATIONTOKEN") == {"Token": None}


@pytest.mark.parametrize(
    ("method", "op"),
    [
        ("PUT", "SETQUOTA"),
        ("PUT", "CREATESNAPSHOT"),
        ("PUT", "SETSTORAGEPOLICY"),
        ("GET", "GETALLSTORAGEPOLICY"),
        ("GET", "GETECPOLICY"),
        ("POST", "UNSETECPOLICY"),
        ("DELETE", "DELETESNAPSHOT"),
    ],
)
async def test_features_that_are_not_there(webhdfs: WebHdfs, method: str, op: str) -> None:
    message = await webhdfs.refused(method, "", op, 400, "UnsupportedOperationException")
    assert message == f"{op} is not supported"


@pytest.mark.parametrize(("method", "op"), [("GET", "MKDIRS"), ("PUT", "OPEN"), ("GET", "NONSENSE"), ("DELETE", "")])
async def test_operations_that_do_not_exist(webhdfs: WebHdfs, method: str, op: str) -> None:
    await webhdfs.refused(method, "", op, 400, "IllegalArgumentException")


async def test_a_name_that_is_not_escaped(webhdfs: WebHdfs, served: Any) -> None:
    """Hadoop's client sends such."""
    lines = [f"PUT /webhdfs/v1{webhdfs.directory}/ü?op=MKDIRS HTTP/1.1", "Host: localhost", "Connection: close", "", ""]
    answer = await raw(served.gateway_url(), "\r\n".join(lines).encode())
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'{"boolean": true}')
    assert _names(await webhdfs("GET", "", "LISTSTATUS")) == ["ü"]


async def test_a_name_that_is_no_utf8(webhdfs: WebHdfs) -> None:
    await webhdfs("PUT", "/file", "CREATE", 201, data=b"x")
    directory = webhdfs.directory

    async def asked(method: str, target: str) -> Any:
        address = URL(f"/webhdfs/v1{directory}{target}", encoded=True)
        async with webhdfs.http.request(method, address) as response:
            assert response.status in (200, 201), await response.text()
            return await response.json() if response.content_type == "application/json" else await response.read()

    assert await asked("PUT", f"/file?op=RENAME&destination={directory}/%ff") == {"boolean": True}
    assert _names(await webhdfs("GET", "", "LISTSTATUS")) == ["\udcff"]
    assert await asked("GET", "/%ff?op=OPEN") == b"x"
    batch = await asked("GET", "?op=LISTSTATUS_BATCH&startAfter=%ff")
    assert _names(batch["DirectoryListing"]["partialListing"]) == []


async def test_a_body_that_looks_like_a_request_stays_as_it_is(webhdfs: WebHdfs, served: Any) -> None:
    body = "GET /webhdfs/v1/ü HTTP/1.1\r\n".encode() * 10
    target = f"/webhdfs/v1{webhdfs.directory}/file?op=CREATE&data=true"
    host, port = served.gateway_url().removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"PUT {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode())
    for start in range(0, len(body), len(body) // 10):
        writer.write(body[start : start + len(body) // 10])
        await writer.drain()
        await asyncio.sleep(0.01)  # so that each line comes by itself, as a request would
    assert (await reader.readline()).startswith(b"HTTP/1.1 201")
    writer.close()
    await writer.wait_closed()
    assert await webhdfs("GET", "/file", "OPEN") == body


@pytest.mark.parametrize("path", ["/a/%2e%2e/b", "/%00", "/a%2fb", "/%zz"])
async def test_paths_that_could_mislead(webhdfs: WebHdfs, path: str) -> None:
    address = URL(f"{webhdfs.url}{path}?op=GETFILESTATUS", encoded=True)
    async with webhdfs.http.get(address) as response:
        assert response.status == 400
        assert (await response.json())["RemoteException"]["exception"] == "IllegalArgumentException"
