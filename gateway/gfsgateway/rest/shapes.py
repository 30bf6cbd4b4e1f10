"""From what the client library returns to the JSON that :mod:`gfsgateway.rest.models` describes.

Plain dictionaries: a page of a listing has a thousand of them. A test holds them to the models.
"""

import json
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from aiohttp import web

from gfsclient.paths import to_text
from gfsprotocol import messages as msg

_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def attributes(path: bytes, found: msg.Attributes) -> dict[str, Any]:
    """As the model ``Attributes``."""
    return {
        "path": to_text(path),
        "type": type_of(found),
        "inode": found.inode,
        "size": found.size,
        "mode": f"{stat.S_IMODE(found.mode):04o}",
        "uid": found.uid,
        "gid": found.gid,
        "links": found.links,
        "modified": f"{moment(found.modified_ns):%Y-%m-%dT%H:%M:%S}.{found.modified_ns % 10**9:09d}Z",
        "accessed_ns": found.accessed_ns,
        "modified_ns": found.modified_ns,
        "changed_ns": found.changed_ns,
        "replication": found.replication,
        "chunk_bytes": found.chunk_bytes,
        "open_writers": found.open_writers,
        "etag": etag(found),
    }


def type_of(found: msg.Attributes) -> str:
    """What it is, in a word."""
    return _TYPES.get(stat.S_IFMT(found.mode), "other")


def trash_entry(entry: msg.TrashEntry) -> dict[str, Any]:
    """As the model ``TrashEntry``."""
    return {
        "inode": entry.inode,
        "path": to_text(entry.path),
        "type": "directory" if entry.is_directory else "file",
        "size": entry.size,
        "uid": entry.uid,
        "deleted_ns": entry.deleted_ns,
        "expires_ns": entry.expires_ns,
    }


def version(found: msg.Attributes) -> msg.FileVersion:
    """What a conditional change asks the master to compare."""
    return msg.FileVersion(found.inode, found.size, found.changed_ns)


def etag(found: msg.Attributes) -> str:
    """A strong validator: whatever changes a file's content changes its time of change, which nobody can set."""
    return f'"{found.inode:x}-{found.size:x}-{found.changed_ns:x}"'


def last_modified(found: msg.Attributes) -> str:
    """For the Last-Modified header."""
    return format_datetime(moment(found.modified_ns), usegmt=True)


def moment(time_ns: int) -> datetime:
    """A time in UTC, to the second; one that no calendar has becomes the nearest that it has."""
    seconds = min(max(time_ns // 10**9, -62_135_596_800), 253_402_300_799)
    return datetime.fromtimestamp(seconds, UTC)


def reply(value: dict[str, Any], status: int = 200, headers: Mapping[Any, str] | None = None) -> web.Response:
    """A JSON response; names that are no UTF-8 have lone surrogates in it, escaped."""
    return web.Response(
        status=status, body=json.dumps(value).encode() + b"\n", content_type="application/json", headers=headers
    )
