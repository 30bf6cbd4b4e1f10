"""``gfsclient truncate``."""

from typing import TYPE_CHECKING, Any

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, parse_size

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


class SizeChange(click.ParamType[tuple[str, int]]):
    """A size, or with a sign what is added or taken away."""

    name = "[+-]size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        sign = value[:1] if value[:1] in ("+", "-") else ""
        amount = parse_size(value.removeprefix(sign))
        if amount is None:
            self.fail(f"'{value}' is not a size, such as 4096, +64K or -1G", param, ctx)
        return sign, amount


@click.command("truncate")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option(
    "-s",
    "--size",
    type=SizeChange(),
    required=True,
    help="Bytes, K, M, G or T; +SIZE extends and -SIZE shortens by it.",
)
@with_filesystem
async def command(files: "FileSystem", failures: Failures, paths: tuple[str, ...], size: tuple[str, int]) -> None:
    """Cuts files to a size, or extends them with zeros that take no space."""
    sign, amount = size
    for path in paths:
        with failures.of(path):
            if sign:
                present = (await files.stat(path)).size
                await files.truncate(path, max(0, present + (amount if sign == "+" else -amount)))
            else:
                await files.truncate(path, amount)
