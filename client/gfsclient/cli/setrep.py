"""``gfsclient setrep``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE
from gfsclient.cli.walking import REGULAR, TYPE_MASK, walk
from gfsprotocol.ids import REPLICATION_MAX

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("setrep")
@click.argument("copies", type=click.IntRange(1, REPLICATION_MAX))
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-R", "--recursive", is_flag=True, help="Also all files in directories.")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, copies: int, paths: tuple[str, ...], recursive: bool
) -> None:
    """Sets how many copies of each file the cluster keeps; it makes or removes copies in the background."""
    for path in paths:
        with failures.of(path):
            if not recursive:
                await files.set_replication(path, copies)
                continue
            async for place in walk(files, failures, path):
                if place.attributes.mode & TYPE_MASK == REGULAR:
                    with failures.of(place.path):
                        await files.set_replication(place.path, copies)
