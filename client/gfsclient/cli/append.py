"""``gfsclient append``."""

import threading
from typing import IO, TYPE_CHECKING

import click

from gfsclient.cli.feeding import fed, standard_input
from gfsclient.cli.output import json_line
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, current_umask
from gfsprotocol.errors import InvalidArgument
from gfsprotocol.ids import MIB, RECORD_BYTES_MAX

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

PIECE_BYTES = 1 * MIB


@click.command("append")
@click.argument("path", type=REMOTE)
@click.argument("source", default="-", metavar="[LOCAL]")
@click.option("--record", is_flag=True, help="Append the input as one record: whole, once, among other appenders.")
@click.option("--lines", is_flag=True, help="Append each line of the input as a record.")
@click.option("--create", is_flag=True, help="Make the file if it does not exist.")
@click.option("--json", "json", is_flag=True, help="One JSON object per record, with its offset.")
@with_filesystem
async def command(
    files: "FileSystem",
    failures: Failures,  # noqa: ARG001
    path: str,
    source: str,
    record: bool,
    lines: bool,
    create: bool,
    json: bool,
) -> None:
    """Appends LOCAL, or standard input, to the file at PATH.

    Without --record or --lines the bytes are written behind the file's present end, as by one writer.
    """
    if record and lines:
        raise click.UsageError("--record and --lines exclude each other")
    if json and not (record or lines):
        raise click.UsageError("--json goes with --record or --lines")
    stream = standard_input() if source == "-" else open(source, "rb")  # noqa: SIM115
    try:
        if create and not await files.exists(path):
            await (await files.open(path, "ab", permissions=0o666 & ~current_umask())).close()
        if record or lines:
            await _records(files, path, stream, lines, json)
        else:
            await files.stat(path)
            await _bytes(files, path, stream)
    finally:
        # In a thread: after an error or Ctrl-C it waits for the one that waits for more input.
        threading.Thread(target=stream.close, name="input-close", daemon=True).start()


async def _bytes(files: "FileSystem", path: str, stream: IO[bytes]) -> None:
    async with await files.open(path, "ab") as file:
        async for piece in fed(lambda: stream.read(PIECE_BYTES)):
            await file.write(piece)


async def _records(files: "FileSystem", path: str, stream: IO[bytes], lines: bool, json: bool) -> None:
    read = stream.readline if lines else stream.read
    number = 0
    async for data in fed(lambda: read(RECORD_BYTES_MAX + 1)):
        number += 1
        if len(data) > RECORD_BYTES_MAX:
            raise InvalidArgument(f"record {number} is longer than {RECORD_BYTES_MAX} bytes")
        offset = await files.append_record(path, data)
        if json:
            json_line({"path": path, "offset": offset, "bytes": len(data)})
