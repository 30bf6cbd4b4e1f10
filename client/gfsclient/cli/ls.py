"""``gfsclient ls``."""

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from gfsclient.cli.listing import as_json, group_name, user_name
from gfsclient.cli.output import json_line, line, shown, size_text, table, time_text
from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE, joined
from gfsclient.cli.walking import is_directory, is_symlink
from gfsprotocol.errors import GfsError, NotFound
from gfsprotocol.messages import Attributes

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

PAGE = 1000
"""Entries that are held and aligned together, so that a huge directory is shown while it is read."""


@dataclass(frozen=True)
class Style:
    """What the options ask for."""

    long: bool
    everything: bool
    recursive: bool
    human: bool
    json: bool


@dataclass(frozen=True)
class Item:
    """A line to come: ``shown`` is the name as the listing has it."""

    path: str
    shown: str
    attributes: Attributes


@click.command("ls")
@click.argument("paths", nargs=-1, type=REMOTE, metavar="[PATH...]")
@click.option("-l", "--long", is_flag=True, help="Mode, copies, owner, group, size, time of change, name.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also names that begin with a dot.")
@click.option("-R", "--recursive", is_flag=True, help="Also all that is in directories.")
@click.option("-h", "--human", is_flag=True, help="Sizes as 1.5 MiB.")
@click.option("-d", "--directory", is_flag=True, help="Directories themselves, not what is in them.")
@click.option("--json", "json", is_flag=True, help="One JSON object per line.")
@with_filesystem
async def command(
    files: "FileSystem",
    failures: Failures,
    paths: tuple[str, ...],
    long: bool,
    everything: bool,
    recursive: bool,
    human: bool,
    directory: bool,
    json: bool,
) -> None:
    """Lists files and directories, by default the root, in the order of their names' bytes."""
    style = Style(long, everything, recursive, human, json)
    single: list[Item] = []
    directories: list[str] = []
    for path in paths or ("/",):
        with failures.of(path):
            attributes = await _stat(files, path, follow=not (directory or long))
            if is_directory(attributes) and not directory:
                directories.append(path)
            else:
                single.append(Item(path, path, attributes))
    await _show(files, failures, style, single)
    headed = recursive or len(paths) > 1
    first, waiting = not single, directories[::-1]
    while waiting:
        path = waiting.pop()
        with failures.of(path):
            below = await _list(files, failures, style, path, headed, first)
            waiting.extend(reversed(below))  # not by recursion: a tree may be deeper than Python's stack
        first = False


async def _stat(files: "FileSystem", path: str, follow: bool) -> Attributes:
    """As ls(1): a link that leads nowhere is shown itself."""
    try:
        return await files.stat(path, follow=follow)
    except NotFound:
        return await files.stat(path, follow=False)


async def _list(
    files: "FileSystem", failures: Failures, style: Style, directory: str, headed: bool, first: bool
) -> list[str]:
    """Lists one directory; those in it that are to be listed too."""
    if headed and not style.json:
        line(f"{'' if first else chr(10)}{shown(directory)}:")
    page: list[Item] = []
    below: list[str] = []
    async for name, attributes in files.scandir(directory):
        if name.startswith(".") and not style.everything:
            continue
        path = joined(directory, name)
        page.append(Item(path, name, attributes))
        if style.recursive and is_directory(attributes):
            below.append(path)
        if len(page) == PAGE:
            await _show(files, failures, style, page)
            page = []
    await _show(files, failures, style, page)
    return below


async def _show(files: "FileSystem", failures: Failures, style: Style, items: list[Item]) -> None:
    if not style.long and not style.json:
        for item in items:
            line(shown(item.shown))
        return
    rows = []
    for item in items:
        target = await _target(files, failures, item)
        if style.json:
            json_line(as_json(item.path, item.attributes, target))
        else:
            rows.append(_row(item, target, style.human))
    table(rows, right=(1, 4))


async def _target(files: "FileSystem", failures: Failures, item: Item) -> str | None:
    """Where a symbolic link points; None if it is none, or has gone since it was listed."""
    if not is_symlink(item.attributes):
        return None
    try:
        return await files.readlink(item.path)
    except NotFound:
        return None
    except GfsError as error:
        failures.report(item.path, error)
        return None


def _row(item: Item, target: str | None, human: bool) -> tuple[str, ...]:
    attributes = item.attributes
    name = shown(item.shown)
    return (
        stat.filemode(attributes.mode),
        str(attributes.replication) if stat.S_ISREG(attributes.mode) else "-",
        user_name(attributes.uid),
        group_name(attributes.gid),
        size_text(attributes.size, human),
        time_text(attributes.modified_ns),
        name if target is None else f"{name} -> {shown(target)}",
    )
