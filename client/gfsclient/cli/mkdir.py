"""``gfsclient mkdir``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import OCTAL, REMOTE, current_umask

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("mkdir")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-p", "--parents", is_flag=True, help="Make missing parents too; an existing directory is no error.")
@click.option("-m", "--mode", type=OCTAL, help="Permission bits, octal.  [default: 777 less the umask]")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, paths: tuple[str, ...], parents: bool, mode: int | None
) -> None:
    """Makes directories."""
    bits = 0o777 & ~current_umask() if mode is None else mode
    for path in paths:
        with failures.of(path):
            await files.mkdir(path, mode=bits, parents=parents)
