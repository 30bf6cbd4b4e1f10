"""``gfsclient cp``."""

import posixpath
import secrets
import stat
from typing import TYPE_CHECKING

import click

from gfsclient.cli.crew import Crew
from gfsclient.cli.progress import Callback, ProgressBars, Total
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.targets import DirectoryModes, replace_link, target_in
from gfsclient.cli.values import REMOTE, current_umask, joined
from gfsclient.cli.walking import REGULAR, TYPE_MASK, is_directory, is_symlink
from gfsprotocol.errors import InvalidArgument, IsADirectory
from gfsprotocol.ids import MIB
from gfsprotocol.messages import Attributes

if TYPE_CHECKING:
    from gfsclient.files import File
    from gfsclient.filesystem import FileSystem

PIECE_BYTES = 4 * MIB
NAME_CHARACTERS_KEPT = 50
"""Of a name, in the temporary one: characters may have four bytes each, names 255 at most."""


@click.command("cp")
@click.argument("sources", nargs=-1, required=True, type=REMOTE, metavar="SOURCE...")
@click.argument("target", type=REMOTE)
@click.option("-r", "--recursive", is_flag=True, help="Directories with all that is in them.")
@click.option("-f", "--force", is_flag=True, help="Replace existing files, each only when the new one is whole.")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, sources: tuple[str, ...], target: str, recursive: bool, force: bool
) -> None:
    """Copies files inside the cluster. The bytes travel through this client, verified on the way."""
    copy = Copy(files, failures, force)
    with ProgressBars() as bars:
        for source, destination in await target_in(files, sources, target):
            with failures.of(source):
                attributes = await files.stat(source)
                if not is_directory(attributes):
                    await copy.file(source, destination, attributes, bars.bar(source, attributes.size))
                    continue
                if not recursive:
                    raise IsADirectory("is a directory: use -r to copy it with all that is in it")
                if posixpath.normpath(destination).startswith(posixpath.normpath(source).rstrip("/") + "/"):
                    raise InvalidArgument(f"cannot be copied into itself, {destination}")
                total = Total(bars.bar(source))
                async with copy.modes, Crew() as crew:
                    await copy.directory(source, destination, attributes, crew, total)


class Copy:
    """One run of the command."""

    def __init__(self, files: "FileSystem", failures: Failures, force: bool) -> None:
        self._files = files
        self._failures = failures
        self._force = force
        self._umask = current_umask()
        self._made: set[int] = set()
        """Inodes of directories that are copied to: by way of links, they may be inside of what is copied."""
        self.modes = DirectoryModes(files)

    async def directory(self, source: str, target: str, attributes: Attributes, crew: Crew, total: Total) -> None:
        """Copies a directory with all that is in it; not by recursion: a tree may be deeper than Python's stack."""
        waiting = [(source, target, attributes)]
        while waiting:
            path, destination, found = waiting.pop()
            with self._failures.of(path):
                await self._entries(path, destination, found, crew, total, waiting)

    async def _entries(
        self,
        source: str,
        target: str,
        attributes: Attributes,
        crew: Crew,
        total: Total,
        directories: list[tuple[str, str, Attributes]],
    ) -> None:
        if attributes.inode in self._made:
            raise InvalidArgument("cannot be copied into itself")
        await self.modes.make(target, stat.S_IMODE(attributes.mode) & ~self._umask)
        self._made.add((await self._files.stat(target)).inode)
        async for name, found in self._files.scandir(source):
            path, destination = joined(source, name), joined(target, name)
            with self._failures.of(path):
                if is_symlink(found):
                    await replace_link(self._files, await self._files.readlink(path), destination, self._force)
                elif is_directory(found):
                    directories.append((path, destination, found))
                else:
                    await crew.take(self._counted(path, destination, found, total))

    async def file(self, source: str, target: str, attributes: Attributes, progress: Callback | None) -> None:
        """Copies a file; in place of an existing one only when it is whole."""
        if attributes.mode & TYPE_MASK != REGULAR:
            raise InvalidArgument("is neither a file nor a directory")
        if not self._force:
            await self._content(source, target, attributes, progress)
            return
        if await self._same_file(attributes, target):
            raise InvalidArgument(f"and {target} are the same file")
        directory, _, name = target.rpartition("/")
        hidden = f"{directory}/.{name[:NAME_CHARACTERS_KEPT]}.{secrets.token_hex(8)}.partial"
        try:
            await self._content(source, hidden, attributes, progress)
            await self._files.rename(hidden, target)
        except BaseException:
            if await self._files.exists(hidden):
                await self._files.remove(hidden)
            raise

    async def _content(self, source: str, target: str, attributes: Attributes, progress: Callback | None) -> None:
        permissions = stat.S_IMODE(attributes.mode) & 0o777 & ~self._umask
        async with await self._files.open(source, "rb") as original:
            copy = await self._files.open(
                target,
                "xb",
                replication=attributes.replication,
                chunk_bytes=attributes.chunk_bytes,
                permissions=permissions,
            )
            try:
                async with copy:
                    await _pour(original, copy, attributes.size, progress)
            except BaseException:
                await self._files.remove(target)  # half a copy is worse than none
                raise

    async def _counted(self, source: str, target: str, attributes: Attributes, total: Total) -> None:
        with self._failures.of(source):
            await self.file(source, target, attributes, total.part())

    async def _same_file(self, attributes: Attributes, target: str) -> bool:
        return await self._files.exists(target) and (await self._files.stat(target)).inode == attributes.inode


async def _pour(original: "File", copy: "File", size: int, progress: Callback | None) -> None:
    done = 0
    while piece := await original.read(PIECE_BYTES):
        await copy.write(piece)
        done += len(piece)
        if progress is not None:
            progress(done, size)
