"""``gfsclient truncate``."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, parse_size

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("truncate")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-s", "--size", required=True, help="Bytes, K, M, G or T; +SIZE extends and -SIZE shortens by it.")
@with_filesystem
async def command(files: "FileSystem", failures: Failures, paths: tuple[str, ...], size: str) -> None:
    """Cuts files to a size, or extends them with zeros that take no space."""
    sign = size[:1] if size[:1] in ("+", "-") else ""
    amount = parse_size(size.removeprefix(sign))
    if amount is None:
        raise click.BadParameter(f"'{size}' is not a size, such as 4096, +64K or -1G", param_hint="--size")
    for path in paths:
        with failures.of(path):
            if sign:
                present = (await files.stat(path)).size
                await files.truncate(path, max(0, present + (amount if sign == "+" else -amount)))
            else:
                await files.truncate(path, amount)
