"""``gfsclient touch``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, current_umask
from gfsprotocol.errors import NotFound

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

NOW = -1
"""The master's clock."""


@click.command("touch")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-c", "--no-create", is_flag=True, help="Leave out files that do not exist.")
@with_filesystem
async def command(files: "FileSystem", failures: Failures, paths: tuple[str, ...], no_create: bool) -> None:
    """Sets access and modification times to now; makes an empty file where there is none."""
    for path in paths:
        with failures.of(path):
            try:
                await files.utime(path, NOW, NOW, follow=True)
            except NotFound:
                if not no_create:
                    await files.make_file(path, 0o666 & ~current_umask())
