"""``gfsclient put``."""

import os
import posixpath
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gfsclient.cli.crew import Crew
from gfsclient.cli.feeding import standard_input
from gfsclient.cli.progress import Callback, ProgressBars, Total
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.targets import DirectoryModes, base_name, replace_link
from gfsclient.cli.values import REMOTE, current_umask, joined
from gfsprotocol.errors import AlreadyExists, InvalidArgument, IsADirectory, NotADirectory
from gfsprotocol.ids import REPLICATION_MAX

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("put")
@click.argument("sources", nargs=-1, required=True, metavar="LOCAL...")
@click.argument("target", type=REMOTE, metavar="PATH")
@click.option("-r", "--recursive", is_flag=True, help="Directories with all that is in them.")
@click.option("-f", "--force", is_flag=True, help="Replace existing files, each only when the new one is whole.")
@click.option("--replication", type=click.IntRange(1, REPLICATION_MAX), help="Copies of each file.")
@with_filesystem
async def command(
    files: "FileSystem",
    failures: Failures,
    sources: tuple[str, ...],
    target: str,
    recursive: bool,
    force: bool,
    replication: int | None,
) -> None:
    """Copies local files into the cluster; LOCAL "-" is standard input.

    Directories that are missing on the way to PATH are made. A file is durable on all its copies when the command is
    done. Symbolic links below a directory stay links.
    """
    upload = Upload(files, failures, recursive, force, replication or 0)
    with ProgressBars() as bars:
        for source, destination in await _targets(files, sources, target):
            with failures.of(source):
                await upload.one(source, destination, bars)


async def _targets(files: "FileSystem", sources: Sequence[str], target: str) -> list[tuple[str, str]]:
    if await files.is_dir(target):
        if "-" in sources:
            raise IsADirectory(f"{target}: is a directory, and standard input has no name")
        return [(source, joined(target, _name(source))) for source in sources]
    if len(sources) > 1 or target.endswith("/"):
        raise NotADirectory(f"{target}: is not a directory")
    return [(sources[0], target)]


def _name(source: str) -> str:
    """The last name of a local path, also of one such as ``.`` that does not tell it."""
    name = os.path.basename(source.rstrip("/"))
    return name if name not in ("", ".", "..") else base_name(os.path.realpath(source))


class Upload:
    """One run of the command."""

    def __init__(self, files: "FileSystem", failures: Failures, recursive: bool, force: bool, replication: int) -> None:
        self._files = files
        self._failures = failures
        self._recursive = recursive
        self._force = force
        self._replication = replication
        self._umask = current_umask()
        self._modes = DirectoryModes(files)

    async def one(self, source: str, target: str, bars: ProgressBars) -> None:
        """Uploads what was named on the command line: a link there stands for what it points to."""
        if source == "-":
            await self._make_parents(target)
            with standard_input(buffered=False) as stream:
                await self._files.put_stream(
                    stream,
                    target,
                    overwrite=self._force,
                    progress=bars.bar("standard input"),
                    replication=self._replication,
                    permissions=0o666 & ~self._umask,
                )
            return
        attributes = os.stat(source)
        await self._make_parents(target)
        if stat.S_ISDIR(attributes.st_mode):
            if not self._recursive:
                raise IsADirectory("is a directory: use -r to copy it with all that is in it")
            total = Total(bars.bar(source))
            async with self._modes, Crew() as crew:
                await self._directory(source, target, crew, total)
        else:
            await self._file(source, target, attributes, bars.bar(source, attributes.st_size))

    async def _make_parents(self, target: str) -> None:
        """Not before it is known that there is something to put there."""
        parent = posixpath.dirname(target.rstrip("/")) or "/"
        try:
            await self._files.mkdir(parent, mode=0o777 & ~self._umask, parents=True)
        except AlreadyExists as error:
            raise NotADirectory(f"{parent}: not a directory") from error

    async def _directory(self, source: str, target: str, crew: Crew, total: Total) -> None:
        """A directory with all that is in it; not by recursion: a tree may be deeper than Python's stack."""
        waiting = [(source, target)]
        while waiting:
            directory, path = waiting.pop()
            with self._failures.of(directory):
                await self._entries(directory, path, crew, total, waiting)

    async def _entries(
        self, source: str, target: str, crew: Crew, total: Total, directories: list[tuple[str, str]]
    ) -> None:
        await self._modes.make(target, stat.S_IMODE(os.stat(source).st_mode) & ~self._umask)
        for entry in sorted(os.scandir(source), key=lambda entry: os.fsencode(entry.name)):
            path = joined(target, entry.name)
            with self._failures.of(entry.path):
                if entry.is_symlink():
                    await replace_link(self._files, os.readlink(entry.path), path, self._force)
                elif entry.is_dir():
                    directories.append((entry.path, path))
                else:
                    await crew.take(self._counted(entry.path, path, entry.stat(), total))

    async def _counted(self, source: str, target: str, attributes: os.stat_result, total: Total) -> None:
        with self._failures.of(source):
            await self._file(source, target, attributes, total.part())

    async def _file(self, source: str, target: str, attributes: os.stat_result, progress: Callback | None) -> None:
        if not stat.S_ISREG(attributes.st_mode):
            raise InvalidArgument("is neither a file nor a directory")
        await self._files.put_file(
            source, target, overwrite=self._force, progress=progress, replication=self._replication
        )
