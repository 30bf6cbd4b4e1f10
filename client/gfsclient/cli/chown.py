"""``gfsclient chown``."""

import grp
import pwd
from typing import TYPE_CHECKING

import click

from gfsclient.cli.session import Failures, with_filesystem
from gfsclient.cli.values import REMOTE
from gfsclient.cli.walking import walk

if TYPE_CHECKING:
    from gfsclient.filesystem import FileSystem


@click.command("chown")
@click.argument("owner", metavar="OWNER[:GROUP]")
@click.argument("paths", nargs=-1, required=True, type=REMOTE, metavar="PATH...")
@click.option("-R", "--recursive", is_flag=True, help="Also all that is in directories; links themselves are changed.")
@click.option("-h", "--no-dereference", is_flag=True, help="Change a symbolic link itself, not what it points to.")
@with_filesystem
async def command(
    files: "FileSystem",
    failures: Failures,
    owner: str,
    paths: tuple[str, ...],
    recursive: bool,
    no_dereference: bool,
) -> None:
    """Changes owner and group: names or numbers; ":GROUP" changes the group only."""
    uid, gid = _parse(owner)
    for path in paths:
        with failures.of(path):
            if not recursive:
                await files.chown(path, uid, gid, follow=not no_dereference)
                continue
            async for place in walk(files, failures, path):
                with failures.of(place.path):
                    await files.chown(place.path, uid, gid, follow=False)


def _parse(owner: str) -> tuple[int | None, int | None]:
    """uid and gid, None for what stays."""
    user, _, group = owner.partition(":")
    if not user and not group:
        raise click.BadParameter(f"'{owner}' names neither an owner nor a group", param_hint="OWNER[:GROUP]")
    return _user_number(user) if user else None, _group_number(group) if group else None


def _user_number(name: str) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise click.BadParameter(f"there is no user '{name}'", param_hint="OWNER[:GROUP]") from None


def _group_number(name: str) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise click.BadParameter(f"there is no group '{name}'", param_hint="OWNER[:GROUP]") from None
