"""``gfsclient chmod``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.modes import Change, ModeChange
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE
from gfsclient.cli.walking import is_symlink, walk

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


# A mode may look like an option: chmod -w PATH.
@click.command("chmod", context_settings={"ignore_unknown_options": True})
@click.argument("change", type=ModeChange(), metavar="MODE")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-R", "--recursive", is_flag=True, help="Also all that is in directories; symbolic links are left out.")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, change: Change, paths: tuple[str, ...], recursive: bool
) -> None:
    """Changes permission bits. MODE is octal (640) or symbolic (u=rw,g+r,o-rwx)."""
    for path in paths:
        with failures.of(path):
            if not recursive:
                attributes = await files.stat(path)
                await files.chmod(path, change(attributes.mode))
                continue
            async for place in walk(files, failures, path):
                if not is_symlink(place.attributes):
                    with failures.of(place.path):
                        await files.chmod(place.path, change(place.attributes.mode))
