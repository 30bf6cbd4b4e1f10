"""``gfsclient ln``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.targets import base_name
from gfsclient.cli.values import REMOTE, joined

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("ln")
@click.argument("target", type=REMOTE)
@click.argument("link", type=REMOTE)
@click.option("-s", "--symbolic", is_flag=True, help="Make a symbolic link; TARGET is kept as it is written.")
@with_filesystem
async def command(files: "FileSystem", failures: Failures, target: str, link: str, symbolic: bool) -> None:
    """Gives the file TARGET the second name LINK; if LINK is a directory, in there."""
    with failures.of(link):
        if await files.is_dir(link):
            link = joined(link, base_name(target))
        if symbolic:
            await files.symlink(target, link)
        else:
            await files.link(target, link)
