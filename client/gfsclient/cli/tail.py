"""``gfsclient tail``."""

import asyncio
from typing import TYPE_CHECKING

import click

from gfsclient.cli.output import StandardOutput, error_line, line, shown
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, SIZE
from gfsclient.cli.walking import is_directory
from gfsprotocol.errors import IsADirectory
from gfsprotocol.ids import KIB

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

LINES = 10
PIECE_BYTES = 64 * KIB
FOLLOW_SECONDS = 0.5


@click.command("tail")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-n", "--lines", type=click.IntRange(0), help=f"How many lines.  [default: {LINES}]")
@click.option("-c", "--bytes", "size", type=SIZE, help="How many bytes, instead of lines.")
@click.option("-f", "--follow", is_flag=True, help="Then write what is appended, until Ctrl-C (one PATH only).")
@with_filesystem
async def command(
    files: "FileSystem", failures: Failures, paths: tuple[str, ...], lines: int | None, size: int | None, follow: bool
) -> None:
    """Writes the end of files to standard output."""
    if lines is not None and size is not None:
        raise click.UsageError("-n and -c exclude each other")
    if follow and len(paths) > 1:
        raise click.UsageError("-f follows one file")
    output = StandardOutput()
    for number, path in enumerate(paths):
        if len(paths) > 1:
            line(f"{chr(10) if number else ''}==> {shown(path)} <==")
        with failures.of(path):
            attributes = await files.stat(path)
            if is_directory(attributes):
                raise IsADirectory
            if size is not None:
                start = max(0, attributes.size - size)
            else:
                start = await _start_of_lines(files, path, attributes.size, LINES if lines is None else lines)
            if attributes.size > start:
                await files.get_stream(path, output, start, attributes.size - start)
            output.flush()
            if follow:
                await _follow(files, path, output, attributes.inode, attributes.size)


async def _start_of_lines(files: "FileSystem", path: str, size: int, lines: int) -> int:
    """Where the last ``lines`` lines begin; read backwards in pieces, so the length of a line does not matter."""
    if lines == 0:
        return size
    async with await files.open(path, "rb") as file:
        end, remaining = size, lines
        while end > 0:
            start = max(0, end - PIECE_BYTES)
            piece = await file.pread(start, end - start)
            position = len(piece)
            if end == size and piece.endswith(b"\n"):
                position -= 1  # the newline that ends the last line begins no other
            while (position := piece.rfind(b"\n", 0, position)) >= 0:
                remaining -= 1
                if remaining == 0:
                    return start + position + 1
            end = start
    return 0


async def _follow(files: "FileSystem", path: str, output: StandardOutput, inode: int, position: int) -> None:
    """Writes what comes; a file that was cut or replaced is told of and written from its beginning."""
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        attributes = await files.stat(path)
        if attributes.inode != inode or attributes.size < position:
            event = "replaced" if attributes.inode != inode else "cut"
            error_line(f"{path}: was {event}; following from its beginning")
            inode, position = attributes.inode, 0
        if attributes.size > position:
            await files.get_stream(path, output, position, attributes.size - position)
            output.flush()
            position = attributes.size
