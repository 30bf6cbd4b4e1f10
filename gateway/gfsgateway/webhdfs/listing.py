"""What is there: statuses, listings, totals, free space."""

import json
import stat
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from gfsgateway.webhdfs.ask import Ask, Operation, answer
from gfsgateway.webhdfs.exceptions import HADOOP_ILLEGAL_ARGUMENT, HdfsRefusal
from gfsgateway.webhdfs.statuses import entry_statuses, file_status
from gfsprotocol.errors import NotADirectory

NO_QUOTA: Final = -1


async def get_file_status(ask: Ask) -> web.StreamResponse:
    """What a path leads to."""
    files = await ask.files()
    return answer({"FileStatus": file_status(ask.names, b"", await files.stat(ask.path))})


async def get_file_link_status(ask: Ask) -> web.StreamResponse:
    """What is at a path, be it a symbolic link."""
    files = await ask.files()
    found = await files.stat(ask.path, follow=False)
    target = await files.readlink(ask.path) if stat.S_ISLNK(found.mode) else ""
    return answer({"FileStatus": file_status(ask.names, b"", found, target)})


async def get_link_target(ask: Ask) -> web.StreamResponse:
    """Where a symbolic link points."""
    files = await ask.files()
    found = await files.stat(ask.path, follow=False)
    if not stat.S_ISLNK(found.mode):
        raise HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, f"Path {ask.shown} is not a symbolic link")
    return answer({"Path": await files.readlink(ask.path)})


async def list_status(ask: Ask) -> web.StreamResponse:
    """A whole directory, however large: what does not fit into a page is sent page by page."""
    pages = _pages(ask)
    first, is_more = await anext(pages)
    if not is_more:
        return answer({"FileStatuses": {"FileStatus": first}})
    # Without a length it goes in chunks; for HTTP/1.0, which has none, until the connection ends.
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(ask.call.request)
    sender = ask.call.sender(response)
    await sender.write(b'{"FileStatuses": {"FileStatus": [' + _joined(first))
    async for page, _ in pages:
        if page:
            await sender.write(b",\n" + _joined(page))
    await sender.write(b"]}}")
    return response


def _joined(page: list[dict[str, Any]]) -> bytes:
    return ",\n".join(map(json.dumps, page)).encode()


async def _pages(ask: Ask) -> AsyncIterator[tuple[list[dict[str, Any]], bool]]:
    """Pages of a directory, or the file itself, each with whether there are more."""
    after, is_more = b"", True
    while is_more:
        page, is_more, after = await _page(ask, after)
        yield page, is_more


async def _page(ask: Ask, after: bytes) -> tuple[list[dict[str, Any]], bool, bytes]:
    """Statuses, whether there are more, and the last name."""
    files = await ask.files()
    try:
        page = await files.list_page(ask.path, after)
    except NotADirectory:
        # A file lists as itself. If it is not the last name that is no directory, this is refused as well.
        return [file_status(ask.names, b"", await files.stat(ask.path))], False, b""
    entries = await entry_statuses(files, ask.names, ask.path, page.entries)
    return entries, page.more and bool(page.entries), page.entries[-1].name if page.entries else after


async def list_status_batch(ask: Ask) -> web.StreamResponse:
    """A page of a directory. How many entries remain is not known, only whether any do: 1 stands for that."""
    after = ask.parameters.text("startafter").encode("utf-8", "surrogateescape")
    page, is_more, _ = await _page(ask, after)
    listing = {"partialListing": {"FileStatuses": {"FileStatus": page}}, "remainingEntries": int(is_more)}
    return answer({"DirectoryListing": listing})


async def get_content_summary(ask: Ask) -> web.StreamResponse:
    """Totals of a tree."""
    files = await ask.files()
    total = await files.summarize(ask.path)
    summary = {
        "directoryCount": total.directories,
        "ecPolicy": "",
        "fileCount": total.files,
        "length": total.bytes,
        "quota": NO_QUOTA,
        "snapshotDirectoryCount": 0,
        "snapshotFileCount": 0,
        "snapshotLength": 0,
        "snapshotSpaceConsumed": 0,
        "spaceConsumed": total.stored_bytes,
        "spaceQuota": NO_QUOTA,
        "typeQuota": {},
    }
    return answer({"ContentSummary": summary})


async def get_quota_usage(ask: Ask) -> web.StreamResponse:
    """Totals of a tree, as far as a quota would count them."""
    files = await ask.files()
    total = await files.summarize(ask.path)
    usage = {
        "fileAndDirectoryCount": total.files + total.directories,
        "quota": NO_QUOTA,
        "spaceConsumed": total.stored_bytes,
        "spaceQuota": NO_QUOTA,
        "typeQuota": {},
    }
    return answer({"QuotaUsage": usage})


async def get_status(ask: Ask) -> web.StreamResponse:
    """The cluster's sizes (``df``)."""
    files = await ask.files()
    space = await files.space()
    sizes = {"capacity": space.total_bytes, "remaining": space.free_bytes, "used": space.used_bytes}
    return answer({"FsStatus": sizes})


GET: Final[dict[str, Operation]] = {
    "GETFILESTATUS": get_file_status,
    "GETFILELINKSTATUS": get_file_link_status,
    "GETLINKTARGET": get_link_target,
    "LISTSTATUS": list_status,
    "LISTSTATUS_BATCH": list_status_batch,
    "GETCONTENTSUMMARY": get_content_summary,
    "GETQUOTAUSAGE": get_quota_usage,
    "GETSTATUS": get_status,
}
