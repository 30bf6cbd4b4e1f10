"""``gfsclient chmod``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.modes import parse_mode
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, current_umask
from gfsclient.cli.walking import is_symlink, walk

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


# A mode may look like an option: chmod -w PATH.
@click.command("chmod", context_settings={"ignore_unknown_options": True})
@click.argument("mode")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-R", "--recursive", is_flag=True, help="Also all that is in directories; symbolic links are left out.")
@with_filesystem
async def command(files: "FileSystem", failures: Failures, mode: str, paths: tuple[str, ...], recursive: bool) -> None:
    """Changes permission bits. MODE is octal (640) or symbolic (u=rw,g+r,o-rwx)."""
    change = parse_mode(mode, current_umask())
    if change is None:
        raise click.BadParameter(f"'{mode}' is not a mode, such as 640 or u=rw,go-w", param_hint="MODE")
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
