"""How attributes look, for people and as JSON: shared by ls, stat and find."""

import functools
import grp
import pwd
import stat
from typing import Any, Final

from gfsprotocol.messages import Attributes

_TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def type_name(attributes: Attributes) -> str:
    """What kind of thing it is."""
    return _TYPES.get(stat.S_IFMT(attributes.mode), "unknown")


def as_json(path: str, attributes: Attributes, target: str | None = None) -> dict[str, Any]:
    """The written contract: see docs/cli.md. ``target`` is where a symbolic link points."""
    value: dict[str, Any] = {
        "path": path,
        "type": type_name(attributes),
        "inode": attributes.inode,
        "mode": f"{stat.S_IMODE(attributes.mode):04o}",
        "links": attributes.links,
        "uid": attributes.uid,
        "gid": attributes.gid,
        "size": attributes.size,
        "replication": attributes.replication,
        "chunk_bytes": attributes.chunk_bytes,
        "open_writers": attributes.open_writers,
        "accessed_ns": attributes.accessed_ns,
        "modified_ns": attributes.modified_ns,
        "changed_ns": attributes.changed_ns,
    }
    if target is not None:
        value["target"] = target
    return value


@functools.cache
def user_name(uid: int) -> str:
    """The account's name on this machine, or the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


@functools.cache
def group_name(gid: int) -> str:
    """The group's name on this machine, or the number."""
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)
