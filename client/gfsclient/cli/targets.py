"""Where sources go: to a new name, or into a directory, as cp(1) and mv(1) decide it."""

import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gfsclient.cli.values import joined
from gfsprotocol.errors import InvalidArgument, NotADirectory

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


async def target_in(files: "FileSystem", sources: Sequence[str], target: str) -> list[tuple[str, str]]:
    """Each source with its target. NotADirectory if there are several and ``target`` is no directory."""
    if await files.is_dir(target):
        return [(source, joined(target, base_name(source))) for source in sources]
    if len(sources) > 1 or target.endswith("/"):
        raise NotADirectory(f"{target}: is not a directory")
    return [(sources[0], target)]


def base_name(path: str) -> str:
    """The last name of a path; InvalidArgument if it has none, as ``/`` or ``..``."""
    name = posixpath.basename(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise InvalidArgument(f"{path}: has no name to keep; give the target's full path")
    return name
