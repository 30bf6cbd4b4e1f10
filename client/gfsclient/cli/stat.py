"""``gfsclient stat``."""

from stat import S_IMODE, filemode
from typing import TYPE_CHECKING

import click

from gfsclient.cli.listing import as_json, group_name, type_name, user_name
from gfsclient.cli.output import json_line, line, shown, size_text, time_text_exact
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE
from gfsclient.cli.walking import is_symlink
from gfsprotocol.messages import Attributes

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("stat")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-L", "--dereference", is_flag=True, help="Show what a symbolic link points to.")
@click.option("--json", "json", is_flag=True, help="One JSON object per line.")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, paths: tuple[str, ...], dereference: bool, json: bool
) -> None:
    """Shows all that is known of files and directories."""
    for path in paths:
        with failures.of(path):
            attributes = await files.stat(path, follow=dereference)
            target = await files.readlink(path) if is_symlink(attributes) else None
            if json:
                json_line(as_json(path, attributes, target))
            else:
                _show(path, attributes, target)


def _show(path: str, attributes: Attributes, target: str | None) -> None:
    line(f"  path      {shown(path)}{'' if target is None else f' -> {shown(target)}'}")
    line(f"  type      {type_name(attributes)}, inode {attributes.inode}, {attributes.links} links")
    line(f"  size      {attributes.size} bytes ({size_text(attributes.size)})")
    if attributes.chunk_bytes:
        line(f"  stored    {attributes.replication} copies, chunks of {size_text(attributes.chunk_bytes)}")
    line(f"  mode      {S_IMODE(attributes.mode):04o} ({filemode(attributes.mode)})")
    owner, group = user_name(attributes.uid), group_name(attributes.gid)
    line(f"  owner     {owner} ({attributes.uid}), group {group} ({attributes.gid})")
    if attributes.open_writers:
        line(f"  writers   open for writing by {attributes.open_writers}")
    line(f"  accessed  {time_text_exact(attributes.accessed_ns)}")
    line(f"  modified  {time_text_exact(attributes.modified_ns)}")
    line(f"  changed   {time_text_exact(attributes.changed_ns)}")
