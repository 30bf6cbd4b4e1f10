"""``gfsclient get``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gfsclient.cli.crew import Crew
from gfsclient.cli.output import StandardOutput
from gfsclient.cli.progress import Callback, ProgressBars, Total
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.targets import base_name
from gfsclient.cli.values import REMOTE, joined
from gfsclient.cli.walking import REGULAR, TYPE_MASK, is_directory, is_symlink
from gfsprotocol.errors import InvalidArgument, IsADirectory, NotADirectory
from gfsprotocol.messages import Attributes

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("get")
@click.argument("sources", nargs=-1, required=True, type=REMOTE, metavar="PATH... [LOCAL]")
@click.option("-r", "--recursive", is_flag=True, help="Directories with all that is in them.")
@click.option("-f", "--force", is_flag=True, help="Replace existing files, each only when the new one is whole.")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, sources: tuple[str, ...], recursive: bool, force: bool
) -> None:
    """Copies files from the cluster to LOCAL, a file or a directory; "-" is standard output.

    With a single PATH, LOCAL is the current directory. Every byte is verified against its digest; a local file appears
    under its name when it is whole and on stable storage.
    """
    paths, local = (sources, ".") if len(sources) == 1 else (sources[:-1], sources[-1])
    download = Download(files, failures, recursive, force)
    into_directory = os.path.isdir(local)
    if local != "-" and not into_directory and (len(paths) > 1 or local.endswith("/")):
        raise NotADirectory(f"{local}: is not a directory")
    with ProgressBars(wanted=local != "-") as bars:
        for path in paths:
            with failures.of(path):
                if local == "-":
                    await files.get_stream(path, StandardOutput())
                else:
                    target = joined(local, base_name(path)) if into_directory else local
                    await download.one(path, target, bars)


class Download:
    """One run of the command."""

    def __init__(self, files: "FileSystem", failures: Failures, recursive: bool, force: bool) -> None:
        self._files = files
        self._failures = failures
        self._recursive = recursive
        self._force = force

    async def one(self, path: str, local: str, bars: ProgressBars) -> None:
        """Downloads what was named on the command line: a link there stands for what it points to."""
        attributes = await self._files.stat(path)
        if is_directory(attributes):
            if not self._recursive:
                raise IsADirectory("is a directory: use -r to copy it with all that is in it")
            total = Total(bars.bar(path))
            async with Crew() as crew:
                await self._directory(path, local, crew, total)
        else:
            await self._file(path, local, attributes, bars.bar(path, attributes.size))

    async def _directory(self, path: str, local: str, crew: Crew, total: Total) -> None:
        """A directory with all that is in it; not by recursion: a tree may be deeper than Python's stack."""
        waiting = [(path, local)]
        while waiting:
            source, target = waiting.pop()
            with self._failures.of(source):
                await self._entries(source, target, crew, total, waiting)

    async def _entries(
        self, path: str, local: str, crew: Crew, total: Total, directories: list[tuple[str, str]]
    ) -> None:
        Path(local).mkdir(exist_ok=True)
        async for name, attributes in self._files.scandir(path):
            source, target = joined(path, name), joined(local, name)
            with self._failures.of(source):
                if is_symlink(attributes):
                    await self._link(source, target)
                elif is_directory(attributes):
                    directories.append((source, target))
                else:
                    await crew.take(self._counted(source, target, attributes, total))

    async def _counted(self, path: str, local: str, attributes: Attributes, total: Total) -> None:
        with self._failures.of(path):
            await self._file(path, local, attributes, total.part())

    async def _file(self, path: str, local: str, attributes: Attributes, progress: Callback | None) -> None:
        if attributes.mode & TYPE_MASK != REGULAR:
            raise InvalidArgument("is neither a file nor a directory")
        await self._files.get_file(path, local, overwrite=self._force, progress=progress)

    async def _link(self, path: str, local: str) -> None:
        target = await self._files.readlink(path)
        if self._force and os.path.islink(local):
            os.unlink(local)
        os.symlink(target, local)
