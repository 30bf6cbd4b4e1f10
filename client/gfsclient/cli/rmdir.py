"""``gfsclient rmdir``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("rmdir")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@with_filesystem
async def command(files: "FileSystem", failures: Failures, paths: tuple[str, ...]) -> None:
    """Removes empty directories."""
    for path in paths:
        with failures.of(path):
            await files.rmdir(path)
