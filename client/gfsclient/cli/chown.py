"""``gfsclient chown``."""

import grp
import pwd
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE
from gfsclient.cli.walking import walk

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem

KEEP = -1
DIGITS_MAX = 10
"""Of the largest uid."""


class Owner(click.ParamType[tuple[int, int]]):
    """uid and gid from ``OWNER``, ``OWNER:GROUP`` or ``:GROUP``, names or numbers; KEEP for what stays."""

    name = "owner"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        user, _, group = value.partition(":")
        if not user and not group:
            self.fail(f"'{value}' names neither an owner nor a group", param, ctx)
        try:
            uid = _number(user, lambda name: pwd.getpwnam(name).pw_uid)
            gid = _number(group, lambda name: grp.getgrnam(name).gr_gid)
        except KeyError as error:
            self.fail(f"'{value}' is not known on this machine: {error.args[0]}", param, ctx)
        return uid, gid


def _number(text: str, look_up: Callable[[str], int]) -> int:
    if not text:
        return KEEP
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else look_up(text)


@click.command("chown")
@click.argument("owner", type=Owner(), metavar="OWNER[:GROUP]")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-R", "--recursive", is_flag=True, help="Also all that is in directories; links themselves are changed.")
@click.option("-h", "--no-dereference", is_flag=True, help="Change a symbolic link itself, not what it points to.")
@with_filesystem
async def command(
    files: "FileSystem",
    failures: Failures,
    owner: tuple[int, int],
    paths: tuple[str, ...],
    recursive: bool,
    no_dereference: bool,
) -> None:
    """Changes owner and group: names or numbers; ":GROUP" changes the group only."""
    uid, gid = owner
    for path in paths:
        with failures.of(path):
            if not recursive:
                await files.chown(path, uid, gid, follow=not no_dereference)
                continue
            async for place in walk(files, failures, path):
                with failures.of(place.path):
                    await files.chown(place.path, uid, gid, follow=False)
