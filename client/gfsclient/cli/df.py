"""``gfsclient df``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.output import json_line, size_text, table
from gfsclient.cli.session import Failures, with_filesystem

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("df")
@click.option("-h", "--human", is_flag=True, help="Sizes as 1.5 MiB.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_filesystem
async def command(files: "FileSystem", failures: Failures, human: bool, as_json: bool) -> None:  # noqa: ARG001
    """Shows the space of the cluster's disks, all copies counted."""
    space = await files.space()
    if as_json:
        json_line(
            {
                "total_bytes": space.total_bytes,
                "used_bytes": space.used_bytes,
                "free_bytes": space.free_bytes,
                "inodes": space.inodes,
                "chunks": space.chunks,
            }
        )
        return
    used = f"{100 * space.used_bytes / space.total_bytes:.0f}%" if space.total_bytes else "-"
    sizes = [size_text(size, human) for size in (space.total_bytes, space.used_bytes, space.free_bytes)]
    header = ("SIZE", "USED", "FREE", "USE%", "INODES", "CHUNKS")
    table([(*sizes, used, str(space.inodes), str(space.chunks))], header, right=range(6))
