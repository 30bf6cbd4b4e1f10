"""Directories: made, listed page by page in the order one likes, removed."""

import base64
import binascii
import heapq
import json
import stat
from http import HTTPStatus
from typing import Any, Final, Literal

from aiohttp import hdrs, web
from pydantic import Field

from gfsclient import paths
from gfsclient.filesystem import FileSystem
from gfsgateway import targets
from gfsgateway.call import Call
from gfsgateway.problems import HttpRefusal
from gfsgateway.rest import models, shapes
from gfsgateway.rest.endpoint import Endpoint, Query
from gfsgateway.rest.writing import KEEP_SECONDS_DEFAULT
from gfsprotocol.errors import InvalidArgument, NotADirectory
from gfsprotocol.messages import Entry

PAGE_ENTRIES_MAX: Final = 1000
_Key = tuple[int, bytes]


class ListQuery(Query):
    """Which page."""

    limit: int = Field(PAGE_ENTRIES_MAX, ge=1, le=PAGE_ENTRIES_MAX, description="How many entries, at most.")
    cursor: str = Field("", max_length=1000, description="'next' of the page before; empty for the first.")
    sort: Literal["name", "size", "modified"] = Field("name", description="Names in the order of their bytes.")
    order: Literal["asc", "desc"] = Field("asc", description="Ascending or descending.")


class MakeQuery(Query):
    """How a new directory is to be."""

    mode: models.Mode = Field("0755", description="Permissions.")
    parents: bool = Field(
        False, description="Make the directories above it that are missing, too, and accept one that is there."
    )


class RemoveQuery(Query):
    """How a directory goes."""

    recursive: bool = Field(False, description="With all that is in it; else only an empty one.")
    trash: bool = Field(False, description="Into the trash, from which it can be brought back, with all that is in it.")
    keep_seconds: int = Field(KEEP_SECONDS_DEFAULT, ge=1, le=10**9, description="How long the trash keeps it.")


async def make(call: Call) -> web.StreamResponse:
    """Makes a directory."""
    query = call.query(MakeQuery)
    path = call.path()
    files = await call.files()
    await files.mkdir(path, mode=int(query.mode, 8), parents=query.parents)
    headers = {hdrs.LOCATION: f"/v1/directories{targets.encoded(path)}"}
    return shapes.reply(shapes.attributes(path, await files.stat(path)), 201, headers)


async def list_entries(call: Call) -> web.StreamResponse:
    """A page of a directory."""
    query = call.query(ListQuery)
    path = call.path()
    files = await call.files()
    if query.sort == "name" and query.order == "asc":
        page = await files.list_page(path, _name_of(query.cursor), query.limit)
        entries, is_more = list(page.entries), page.more
    else:
        entries, is_more = await _sorted_page(files, path, query, call.gateway.config.listing_entries_max)
    following = _cursor(entries[-1], query.sort) if is_more else None
    shown = [_entry(path, entry) for entry in entries]
    return shapes.reply({"path": paths.to_text(path), "entries": shown, "next": following})


def _entry(directory: bytes, entry: Entry) -> dict[str, Any]:
    path = paths.join(directory, entry.name)
    return {"name": paths.to_text(entry.name)} | shapes.attributes(path, entry.attributes)


async def _sorted_page(files: FileSystem, path: bytes, query: ListQuery, entries_max: int) -> tuple[list[Entry], bool]:
    """A page in another order than the master's: it is chosen from all entries. HttpRefusal if these are too many."""
    after = _key_of(query.cursor) if query.cursor else None
    is_descending = query.order == "desc"
    candidates: list[tuple[_Key, Entry]] = []
    seen, last, is_more = 0, b"", True
    while is_more:
        page = await files.list_page(path, last)
        seen += len(page.entries)
        if seen > entries_max:
            message = f"a directory of more than {entries_max} entries is listed by name, ascending, only"
            raise HttpRefusal(HTTPStatus.UNPROCESSABLE_ENTITY, message)
        for entry in page.entries:
            key = _key(entry, query.sort)
            if after is None or (key < after if is_descending else key > after):
                candidates.append((key, entry))
        choose = heapq.nlargest if is_descending else heapq.nsmallest
        candidates = choose(query.limit + 1, candidates, key=lambda candidate: candidate[0])
        is_more = page.more and bool(page.entries)
        last = page.entries[-1].name if page.entries else last
    return [entry for _, entry in candidates[: query.limit]], len(candidates) > query.limit


def _key(entry: Entry, sort: str) -> _Key:
    values = {"name": 0, "size": entry.attributes.size, "modified": entry.attributes.modified_ns}
    return values[sort], entry.name


def _cursor(entry: Entry, sort: str) -> str:
    """Where the next page begins: behind this entry, also if it is removed meanwhile."""
    number, name = _key(entry, sort)
    return base64.urlsafe_b64encode(json.dumps([number, name.hex()]).encode()).decode().rstrip("=")


def _key_of(cursor: str) -> _Key:
    try:
        number, name = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
        if type(number) is int:
            return number, bytes.fromhex(name)
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise InvalidArgument("the cursor is not one of ours") from error
    raise InvalidArgument("the cursor is not one of ours")


def _name_of(cursor: str) -> bytes:
    return _key_of(cursor)[1] if cursor else b""


async def remove(call: Call) -> web.StreamResponse:
    """Removes a directory."""
    query = call.query(RemoveQuery)
    path = call.path()
    files = await call.files()
    found = await files.stat(path, follow=False)
    if not stat.S_ISDIR(found.mode):
        raise NotADirectory(f"{paths.to_text(path)}: not a directory")
    if query.trash:
        return shapes.reply(shapes.trash_entry(await files.move_to_trash(path, query.keep_seconds)))
    if query.recursive:
        await files.remove_tree(path)
    else:
        await files.rmdir(path)
    return web.Response(status=204)


ENDPOINTS: Final = [
    Endpoint(
        hdrs.METH_GET,
        "/v1/directories/{path}",
        list_entries,
        "A page of a directory.",
        ListQuery,
        answers={200: models.Listing},
    ),
    Endpoint(
        hdrs.METH_PUT,
        "/v1/directories/{path}",
        make,
        "Make a directory.",
        MakeQuery,
        answers={201: models.Attributes},
        response_headers=(hdrs.LOCATION,),
    ),
    Endpoint(
        hdrs.METH_DELETE,
        "/v1/directories/{path}",
        remove,
        "Remove a directory, for good or into the trash.",
        RemoveQuery,
        answers={204: None, 200: models.TrashEntry},
    ),
]
