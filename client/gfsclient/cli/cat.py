"""``gfsclient cat``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.output import StandardOutput
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("cat")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@with_filesystem
async def command(files: "FileSystem", failures: Failures, paths: tuple[str, ...]) -> None:
    """Writes files to standard output, one after the other."""
    output = StandardOutput()
    for path in paths:
        with failures.of(path):
            await files.get_stream(path, output)
            output.flush()
