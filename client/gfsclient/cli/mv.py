"""``gfsclient mv``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.targets import target_in
from gfsclient.cli.values import REMOTE

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("mv")
@click.argument("sources", nargs=-1, required=True, type=REMOTE, metavar="SOURCE...")
@click.argument("target", type=REMOTE)
@click.option("-n", "--no-replace", is_flag=True, help="Fail where the target exists, instead of replacing it.")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, sources: tuple[str, ...], target: str, no_replace: bool
) -> None:
    """Renames SOURCE to TARGET, or moves the sources into the directory TARGET."""
    for source, destination in await target_in(files, sources, target):
        with failures.of(source):
            await files.rename(source, destination, no_replace=no_replace)
