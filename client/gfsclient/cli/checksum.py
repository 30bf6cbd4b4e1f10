"""``gfsclient checksum``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.output import json_line, line, shown
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("checksum")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@with_filesystem
async def command(files: "FileSystem", failures: Failures, paths: tuple[str, ...], as_json: bool) -> None:
    """Prints the BLAKE3 digest of each file's content, in the form of b3sum."""
    for path in paths:
        with failures.of(path):
            digest = await files.checksum(path)
            if as_json:
                json_line({"path": path, "blake3": digest})
            else:
                line(f"{digest}  {shown(path)}")
