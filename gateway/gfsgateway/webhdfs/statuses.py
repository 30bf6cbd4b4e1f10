"""From the attributes of a file to the JSON that HDFS calls FileStatus."""

import asyncio
import stat
from typing import Any

from gfsclient import paths
from gfsclient.filesystem import FileSystem
from gfsgateway.names import Names
from gfsprotocol.errors import NamespaceError
from gfsprotocol.messages import Attributes, Entry

PERMISSIONS = 0o1777
"""HDFS knows no set-user-id and no set-group-id."""
_LINKS_AT_A_TIME = 32
_UNKNOWN_CHILDREN = -1
"""How many entries a directory has is not known without listing it; clients take this for an old server's silence."""


def file_status(names: Names, name: bytes, found: Attributes, target: str = "") -> dict[str, Any]:
    """As FileStatus; ``name`` is empty for the thing that was asked for, ``target`` is where a symbolic link points."""
    is_directory, is_link = stat.S_ISDIR(found.mode), stat.S_ISLNK(found.mode)
    is_file = not is_directory and not is_link
    status: dict[str, Any] = {
        "accessTime": 0 if is_directory else found.accessed_ns // 10**6,
        "blockSize": found.chunk_bytes if is_file else 0,
        "childrenNum": _UNKNOWN_CHILDREN if is_directory else 0,
        "fileId": found.inode,
        "group": names.group_name(found.gid),
        "length": found.size if is_file else 0,
        "modificationTime": found.modified_ns // 10**6,
        "owner": names.user_name(found.uid),
        "pathSuffix": paths.to_text(name),
        "permission": f"{found.mode & PERMISSIONS:o}",
        "replication": found.replication if is_file else 0,
        "storagePolicy": 0,
        "type": "DIRECTORY" if is_directory else "SYMLINK" if is_link else "FILE",
    }
    if is_link:
        status["symlink"] = target
    return status


async def entry_statuses(
    files: FileSystem, names: Names, directory: bytes, entries: tuple[Entry, ...]
) -> list[dict[str, Any]]:
    """The entries of a directory; where its symbolic links point is looked up, some at a time."""
    links = [entry.name for entry in entries if stat.S_ISLNK(entry.attributes.mode)]
    targets: dict[bytes, str] = {}
    for start in range(0, len(links), _LINKS_AT_A_TIME):
        some = links[start : start + _LINKS_AT_A_TIME]
        found = await asyncio.gather(*(_target(files, paths.join(directory, name)) for name in some))
        targets |= zip(some, found, strict=True)
    return [file_status(names, entry.name, entry.attributes, targets.get(entry.name, "")) for entry in entries]


async def _target(files: FileSystem, path: bytes) -> str:
    """Where a link points; nowhere, if it was removed meanwhile."""
    try:
        return await files.readlink(path)
    except NamespaceError:
        return ""
