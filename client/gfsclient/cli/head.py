"""``gfsclient head``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.output import StandardOutput, line, shown
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, SIZE
from gfsprotocol.ids import KIB

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

LINES = 10
PIECE_BYTES = 64 * KIB


@click.command("head")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-n", "--lines", type=click.IntRange(0), help=f"How many lines.  [default: {LINES}]")
@click.option("-c", "--bytes", "size", type=SIZE, help="How many bytes, instead of lines.")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, paths: tuple[str, ...], lines: int | None, size: int | None
) -> None:
    """Writes the beginning of files to standard output."""
    if lines is not None and size is not None:
        raise click.UsageError("-n and -c exclude each other")
    output = StandardOutput()
    for number, path in enumerate(paths):
        if len(paths) > 1:
            line(f"{chr(10) if number else ''}==> {shown(path)} <==")
        with failures.of(path):
            if size is not None:
                await files.get_stream(path, output, 0, size)
            else:
                await _write_lines(files, path, output, LINES if lines is None else lines)
            output.flush()


async def _write_lines(files: "FileSystem", path: str, output: StandardOutput, lines: int) -> None:
    async with await files.open(path, "rb") as file:
        while lines > 0 and (piece := await file.read(PIECE_BYTES)):
            end = 0
            while lines > 0 and (found := piece.find(b"\n", end)) >= 0:
                end, lines = found + 1, lines - 1
            output.write(piece if lines > 0 else piece[:end])
