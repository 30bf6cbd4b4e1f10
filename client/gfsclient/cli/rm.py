"""``gfsclient rm``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE
from gfsclient.cli.walking import is_directory
from gfsclient.paths import to_bytes
from gfsprotocol.errors import IsADirectory, NotFound, NotPermitted

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

KEEP_SECONDS = 86400


@click.command("rm")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Remove directories with all that is in them.")
@click.option("-f", "--force", is_flag=True, help="A path that does not exist is no error.")
@click.option("--skip-trash", is_flag=True, help="Remove for good, at once.")
@click.option(
    "--keep-seconds",
    type=click.IntRange(1),
    default=KEEP_SECONDS,
    show_default=True,
    help="How long the trash keeps it.",
)
@with_filesystem
async def command(
    files: "FileSystem",
    failures: Failures,
    paths: tuple[str, ...],
    recursive: bool,
    force: bool,
    skip_trash: bool,
    keep_seconds: int,
) -> None:
    """Moves files to the trash, where "gfsclient trash" finds them; with --skip-trash removes them for good."""
    for path in paths:
        with failures.of(path):
            try:
                await _remove(files, path, recursive, skip_trash, keep_seconds)
            except NotFound:
                if not force:
                    raise


async def _remove(files: "FileSystem", path: str, recursive: bool, skip_trash: bool, keep_seconds: int) -> None:
    if to_bytes(path) == b"/":
        raise NotPermitted("the root directory cannot be removed")
    attributes = await files.stat(path, follow=False)
    if is_directory(attributes) and not recursive:
        raise IsADirectory("is a directory: use -r to remove it with all that is in it")
    if not skip_trash:
        await files.move_to_trash(path, keep_seconds=keep_seconds)
    elif is_directory(attributes):
        await files.remove_tree(path)
    else:
        await files.remove(path)
