"""``gfsclient du``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.output import json_line, shown, size_text, table
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, joined

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("du")
@click.argument("paths", nargs=-1, type=REMOTE, metavar="[PATH...]")
@click.option("-s", "--summarize", is_flag=True, help="One line per PATH, not one per entry of it.")
@click.option("-h", "--human", is_flag=True, help="Sizes as 1.5 MiB.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, paths: tuple[str, ...], summarize: bool, human: bool, as_json: bool
) -> None:
    """Shows how much is in directories: bytes of files, and bytes stored with all copies."""
    rows = []
    for path in paths or ("/",):
        with failures.of(path):
            places = [path]
            if not summarize and await files.is_dir(path):
                places = [joined(path, name) for name in await files.listdir(path)]
            for place in places:
                with failures.of(place):
                    summary = await files.summarize(place)
                    if as_json:
                        json_line(
                            {
                                "path": place,
                                "bytes": summary.bytes,
                                "stored_bytes": summary.stored_bytes,
                                "files": summary.files,
                                "directories": summary.directories,
                            }
                        )
                    else:
                        sizes = (size_text(summary.bytes, human), size_text(summary.stored_bytes, human))
                        rows.append((*sizes, shown(place)))
    if not as_json and rows:
        table(rows, ("BYTES", "STORED", "PATH"), right=(0, 1))
