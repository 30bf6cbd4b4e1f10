"""What fsspec calls an info: a file's attributes as a dictionary."""

import stat
from typing import Any

from gfsclient.filesystem import FileSystem
from gfsprotocol.errors import NotADirectory, NotFound, SymlinkLoop
from gfsprotocol.messages import Attributes

Details = dict[str, Any]
"""``name``, ``type`` (file, directory, link, other), ``size`` in bytes, times in seconds since the epoch, and more."""

_SECOND_NS = 1_000_000_000


def details(path: str, attributes: Attributes) -> Details:
    """Keys as those of fsspec's local file system."""
    return {
        "name": path,
        "size": attributes.size,
        "type": _type(attributes.mode),
        "mode": attributes.mode,
        "uid": attributes.uid,
        "gid": attributes.gid,
        "ino": attributes.inode,
        "nlink": attributes.links,
        "mtime": attributes.modified_ns / _SECOND_NS,
        "ctime": attributes.changed_ns / _SECOND_NS,
        "atime": attributes.accessed_ns / _SECOND_NS,
        "islink": stat.S_ISLNK(attributes.mode),
        "replication": attributes.replication,
        "chunk_bytes": attributes.chunk_bytes,
    }


async def followed(files: FileSystem, path: str, attributes: Attributes) -> Details:
    """Of a symbolic link: what it leads to, or the link itself if that is nowhere."""
    destination = await files.readlink(path)
    try:
        attributes = await files.stat(path)
    except (NotFound, NotADirectory, SymlinkLoop):
        pass
    return details(path, attributes) | {"islink": True, "destination": destination}


def _type(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"
