"""``gfsclient trash``: list, restore, empty."""

from typing import TYPE_CHECKING

import click

from gfsclient.cli.output import json_line, line, shown, size_text, table, time_text
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE
from gfsclient.paths import to_text

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.group("trash")
def command() -> None:
    """What rm removed and the cluster still keeps."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@with_filesystem
async def list_command(files: "FileSystem", failures: Failures, as_json: bool) -> None:  # noqa: ARG001
    """Shows your entries, in order of deletion; root sees all of them."""
    rows = []
    for entry in await files.list_trash():
        path = to_text(entry.path)
        if as_json:
            json_line(
                {
                    "id": entry.inode,
                    "path": path,
                    "type": "directory" if entry.is_directory else "file",
                    "bytes": entry.size,
                    "uid": entry.uid,
                    "deleted_ns": entry.deleted_ns,
                    "expires_ns": entry.expires_ns,
                }
            )
            continue
        kind = "directory" if entry.is_directory else size_text(entry.size)
        rows.append((str(entry.inode), time_text(entry.deleted_ns), time_text(entry.expires_ns), kind, shown(path)))
    if rows:
        table(rows, ("ID", "DELETED", "EXPIRES", "SIZE", "PATH"), right=(0, 3))


@command.command("restore")
@click.argument("entry", type=int, metavar="ID")
@click.argument("path", type=REMOTE, required=False)
@with_filesystem
async def restore_command(files: "FileSystem", failures: Failures, entry: int, path: str | None) -> None:
    """Puts an entry back where it was, or at PATH."""
    with failures.of(path or f"trash entry {entry}"):
        await files.restore_trash(entry, path)


@command.command("empty")
@click.argument("entries", type=int, nargs=-1, metavar="[ID...]")
@with_filesystem
async def empty_command(files: "FileSystem", failures: Failures, entries: tuple[int, ...]) -> None:  # noqa: ARG001
    """Removes entries for good: those named, or all of yours."""
    count = await files.empty_trash(entries)
    line(f"{count} {'entry' if count == 1 else 'entries'} removed for good")
