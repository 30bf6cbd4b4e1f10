"""``gfsclient tree``."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import click

from gfsclient.cli.output import line, shown
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, joined
from gfsclient.cli.walking import is_directory

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("tree")
@click.argument("path", type=REMOTE, default="/")
@click.option("-L", "--level", "depth_max", type=click.IntRange(1), help="How deep to go.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also names that begin with a dot.")
@click.option("-d", "--directories", is_flag=True, help="Directories only.")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, path: str, depth_max: int | None, everything: bool, directories: bool
) -> None:
    """Shows a directory and all that is in it as a tree."""
    counts = {"directories": 0, "files": 0}

    async def entries(directory: str) -> AsyncGenerator[tuple[str, bool, bool], None]:
        """Name, whether it is a directory, whether it is the last."""
        held: tuple[str, bool] | None = None
        with failures.of(directory):
            async for name, attributes in files.scandir(directory):
                folder = is_directory(attributes)
                if (name.startswith(".") and not everything) or (directories and not folder):
                    continue
                # One entry is held back: only the next one tells whether it was the last.
                if held is not None:
                    yield *held, False
                held = (name, folder)
            if held is not None:
                yield *held, True

    async def below(top: str) -> None:
        """Not by recursion: a tree may be deeper than Python's stack."""
        levels = [(top, "", entries(top))]
        while levels:
            directory, indent, found = levels[-1]
            entry = await anext(found, None)
            if entry is None:
                levels.pop()
                continue
            name, folder, last = entry
            line(f"{indent}{'└── ' if last else '├── '}{shown(name)}{'/' if folder else ''}")
            counts["directories" if folder else "files"] += 1
            if folder and len(levels) != depth_max:
                path = joined(directory, name)
                levels.append((path, indent + ("    " if last else "│   "), entries(path)))

    with failures.of(path):
        attributes = await files.stat(path)
        line(shown(path))
        if is_directory(attributes):
            await below(path)
        line(f"\n{counts['directories']} directories, {counts['files']} files")
