"""Where sources go: to a new name, or into a directory, as cp(1) and mv(1) decide it."""

import posixpath
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from gfsclient.cli.values import joined
from gfsprotocol.errors import AlreadyExists, InvalidArgument, NotADirectory

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

OWNER_ALL: Final = 0o700


async def target_in(files: "FileSystem", sources: Sequence[str], target: str) -> list[tuple[str, str]]:
    """Each source with its target. NotADirectory if there are several and ``target`` is no directory."""
    if await files.is_dir(target):
        return [(source, joined(target, base_name(source))) for source in sources]
    if len(sources) > 1 or target.endswith("/"):
        raise NotADirectory(f"{target}: is not a directory")
    return [(sources[0], target)]


class DirectoryModes:
    """Makes directories that their owner may write to, and gives them their modes when all that is in them is there."""

    def __init__(self, files: "FileSystem") -> None:
        self._files = files
        self._later: list[tuple[str, int]] = []

    async def make(self, path: str, mode: int) -> None:
        """Makes a directory; one that is there is left as it is."""
        try:
            await self._files.mkdir(path, mode=mode | OWNER_ALL)
        except AlreadyExists:
            if not await self._files.is_dir(path):
                raise
        else:
            if mode | OWNER_ALL != mode:
                self._later.append((path, mode))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._later:
            path, mode = self._later.pop()
            await self._files.chmod(path, mode)


async def replace_link(files: "FileSystem", leads_to: str, path: str, force: bool) -> None:
    """Makes a symbolic link; with ``force`` in place of whatever else than a directory is there."""
    try:
        await files.symlink(leads_to, path)
    except AlreadyExists:
        if not force:
            raise
        await files.remove(path)
        await files.symlink(leads_to, path)


def base_name(path: str) -> str:
    """The last name of a path; InvalidArgument if it has none, as ``/`` or ``..``."""
    name = posixpath.basename(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise InvalidArgument(f"{path}: has no name to keep; give the target's full path")
    return name
